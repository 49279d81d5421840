"""A narrator that says nothing and measures everything that is announced to it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from citlr.console import Narrator, Ticker


@dataclass
class Loop:
    """One announced loop: its length, how long it took, and when each piece of it was done, in seconds."""

    title: str
    total: int
    seconds: float = 0.0
    done: list[tuple[int, float]] = field(default_factory=list)

    @property
    def piece(self) -> float:
        """Seconds of a piece in which nothing else is done, such as a validation: the lower quartile."""
        return float(np.quantile(self._each, 0.25)) if len(self.done) > 1 else self.seconds / max(1, self.total)

    @property
    def extra(self) -> float:
        """Seconds that the longest piece takes over that, after the first, which builds what the others find."""
        return (
            max(0.0, float(np.median(self._each[self._each > self.piece])) - self.piece) if len(self.done) > 3 else 0.0
        )

    @property
    def _each(self) -> np.ndarray:
        marks = np.array(self.done)
        return np.diff(marks[:, 1]) / np.maximum(1, np.diff(marks[:, 0]))


@dataclass
class Stopwatch(Narrator):
    """Keeps every loop that was announced, in order."""

    loops: list[Loop] = field(default_factory=list)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Ticker]:
        """Measure a loop."""
        loop, began = Loop(title, total), time.perf_counter()

        def tick(done: int, note: str = "") -> None:
            loop.done.append((done, time.perf_counter() - began))

        self.loops.append(loop)
        yield tick
        loop.seconds = time.perf_counter() - began

    def of(self, *titles: str) -> float:
        """Sum the seconds of the loops with these titles."""
        return sum(loop.seconds for loop in self.loops if loop.title in titles)
