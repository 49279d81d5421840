"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# No deadline, as no test asserts a time; derandomised, so that a suite that passed passes again on the same code.
settings.register_profile("citlr", deadline=None, derandomize=True)
settings.load_profile("citlr")
