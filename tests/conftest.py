"""What holds for every test."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# No deadline, as no test asserts a time; derandomised, so that a suite that passed passes again on the same code.
settings.register_profile("citlr", deadline=None, derandomize=True)
settings.load_profile("citlr")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call() -> None:
    """Take a test's name out of the environment: processes that know another one are not taken again."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)
