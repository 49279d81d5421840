"""What holds for every test."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

# What it does is meant for the server of `as_user`, and done when it is imported.
collect_ignore = ["frozen.py"]
# No deadline, as no test asserts a time; derandomised, so that a suite that passed passes again on the same code.
settings.register_profile("citlr", deadline=None, derandomize=True)
settings.load_profile("citlr")


# Thousands of tests and all that they import are no garbage: the collector looks at what tests make, not at these.
gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave what is there out of all collections to come; there was none before."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call() -> None:
    """Take a test's name out of the environment: processes that know another one are not taken again."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)
