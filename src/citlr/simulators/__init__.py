"""Worlds whose counterfactuals are known exactly."""
