"""Tests on (Z, A, Yhat) alone, where no generator is at hand."""
