"""Errors that a user can act on: one sentence with what was found, where, and what would do."""

import difflib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from citlr.text import LONGEST_MESSAGE, LONGEST_VALUE, listed, shortened


class CitlrError(Exception):
    """Base of every error this package raises on purpose; the command line prints it and exits with 2.

    Whatever went into the message (a value of a file, another library's own words), it is one line of at most 1000
    characters that hides nothing.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(shortened(str(message), LONGEST_MESSAGE))


class InputError(CitlrError, ValueError):
    """Something the user gave (a table, an image, a prediction, a setting) cannot be used as it is."""


class StateError(CitlrError, RuntimeError):
    """A run folder, a lock or a checkpoint is in a state that the requested stage cannot go on from."""


class MissingExtraError(CitlrError, ImportError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed: pip install 'citlr[{extra}]'."
        )
        self._given = (package, extra, purpose)

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str]]:
        """Survive the way from a worker process to the one that says it."""
        return type(self), self._given


@contextmanager
def needed(package: str, extra: str, purpose: str) -> Iterator[None]:
    """Import an optional dependency, or say what needs it."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(package, extra, purpose) from error


def did_you_mean(name: object, options: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the option nearest to `name`, or the list of options when none is near.

    >>> did_you_mean("margn", ["margin", "alpha"])
    " Did you mean 'margin'?"
    >>> did_you_mean("zzz", ["margin", "alpha"])
    ' Known: alpha, margin.'
    """
    known = sorted(str(option) for option in options)
    if not known:
        return ""
    # Case is the commonest slip in column names ("sex" for "Sex"), and costs the measure too much.
    folded = {option.lower(): option for option in known}
    near = difflib.get_close_matches(str(name)[:LONGEST_VALUE].lower(), folded, n=1, cutoff=0.6)
    return f" Did you mean '{folded[near[0]]}'?" if near else f" Known: {shortened(listed(known))}."


def require_kind(value: Any, kind: type | tuple[type, ...], name: str, remedy: str) -> None:
    """Refuse an argument of another kind than is meant, such as a network in the place of a predictor."""
    if not isinstance(value, kind):
        raise InputError(f"{name} is a {type(value).__name__}; give {remedy}.")


def is_listed(value: Any) -> bool:
    """Whether a value gives one thing after the other, be it by its places alone."""
    try:
        iter(value)
    except TypeError:
        return False
    return True


def require_names(value: Any, name: str) -> Sequence[str]:
    """Refuse what is no list of names, as the letters of a text are none; give them as often as they are asked for."""
    if isinstance(value, str | bytes | Mapping) or not is_listed(value):
        raise InputError(f"{name} is a {type(value).__name__}; give a list of names.")
    if isinstance(value, list | tuple):
        return value
    return tuple(sorted(value) if isinstance(value, set | frozenset) else value)


def require_known(name: Any, known: Any, problem: str) -> None:
    """Refuse a name that is not among the known ones; `problem` says so, without its full stop."""
    if not isinstance(name, Hashable) or name not in known:
        raise InputError(f"{problem}.{did_you_mean(name, known)}")
