"""What a person sees while something long runs: progress on standard error, results alone on standard output."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, Self, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from citlr.text import visible


class Ticker(Protocol):
    """What a long loop calls once a step."""

    def __call__(self, done: int, note: str = "") -> None:
        """Report that `done` steps are finished, with a short note such as the loss."""


def silent(done: int, note: str = "") -> None:
    """Report nothing; the default ticker of every long function."""


class _StandardError:
    """Standard error, whichever it is now: where it takes nothing any more, the work goes on.

    A terminal that was closed, a reader that is gone and a full disk below a log are no reasons to end an audit.
    """

    @property
    def _stream(self) -> Any:
        # A bar that is shown stands before it, and writes here.
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            self._stream.flush()


@dataclass
class Narrator:
    """Says what goes on, on standard error; a quiet one says nothing."""

    quiet: bool = True
    console: Console = field(default_factory=lambda: Console(file=cast(IO[str], _StandardError())))

    def __reduce__(self) -> tuple[type[Self], tuple[bool]]:
        """Be quiet in another process, whose lines nobody could tell apart."""
        return type(self), (True,)

    def say(self, text: str) -> None:
        """Print one line, without markup."""
        if not self.quiet:
            self.console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Ticker]:
        """Show a bar with steps done, time spent, time left and a note; give the function that moves it."""
        if self.quiet:
            yield silent
            return
        columns = (
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self.console, refresh_per_second=4) as bar:
            task = bar.add_task(visible(title), total=total, note="")

            def tick(done: int, note: str = "") -> None:
                bar.update(task, completed=done, note=visible(note))

            yield tick


QUIET = Narrator(quiet=True)
