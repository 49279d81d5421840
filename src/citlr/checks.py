"""A check: what was measured, what it is held against, and whether that is enough; gates and rules are checks."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from citlr.errors import InputError


@dataclass(frozen=True)
class Check:
    """One condition and what was found.

    - `value`, `limit`: None where there is no number, or where not a number decides.
    - `passed`: None where nothing follows from it: a remark.
    """

    name: str
    value: float | None
    limit: float | None
    passed: bool | None
    text: str

    def require(self) -> None:
        """Raise `InputError` with the text where it failed."""
        if self.passed is False:
            raise InputError(self.text)


Checks = TypeVar("Checks", bound=Check)


def failed(checks: Iterable[Checks]) -> tuple[Checks, ...]:
    """List the checks that said no."""
    return tuple(check for check in checks if check.passed is False)
