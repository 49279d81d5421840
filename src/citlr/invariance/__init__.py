"""Tests, effects and verdicts: arrays in, frozen results out, no torch."""
