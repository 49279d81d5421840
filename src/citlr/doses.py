"""Levels that are values of a number, such as ages: as they are written, as numbers, and the nearest to a value."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# More levels than this are free text, or a number read as categories; contrasts grow with the square.
MOST_LEVELS = 12
# What a grid of levels is made of.
_GRID = ("from", "to", "step")
# The level of a null intervention on a number: the image is redrawn under the value that is recorded of it.
RECORDED = "recorded"


def as_numbers(levels: Sequence[object]) -> npt.NDArray[np.float64] | None:
    """Read the names of levels as numbers (levels,); None where one is none.

    >>> as_numbers(["30", "50.5"]), as_numbers(["30", "F"])
    (array([30. , 50.5]), None)
    """
    try:
        numbers = np.asarray([float(str(level)) for level in levels])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def nearest(values: npt.ArrayLike, levels: Sequence[str]) -> npt.NDArray[np.intp]:
    """Give the index of the level that is nearest to each number (n,), the lower of two."""
    wanted = as_numbers(levels)
    assert wanted is not None
    away = np.abs(np.asarray(values, dtype=np.float64)[:, None] - wanted)
    return np.asarray(away.argmin(axis=1), dtype=np.intp)


def number_levels(value: Any) -> Any:
    """Write numbers as names of levels, and a grid `{from, to, step}` as the numbers it means; all else is let through.

    >>> number_levels([30, 50.5]), number_levels({"from": 30, "to": 50, "step": 10}), number_levels(["F", "M"])
    (['30', '50.5'], ['30', '40', '50'], ['F', 'M'])
    """
    if isinstance(value, Mapping):
        return _grid(value)
    if isinstance(value, list | tuple) and all(map(_is_number, value)):
        return [_written(number) for number in value]
    return value


def _grid(asked: Mapping[Any, Any]) -> list[str]:
    if set(asked) != {*_GRID} or not all(map(_is_number, asked.values())):
        names = "" if {*_GRID} & {*asked} else "; values get names from `citlr prepare table --level raw=name`"
        raise ValueError(f"a grid is {{from: 30, to: 80, step: 10}}, in numbers{names}")
    low, high, step = (float(asked[key]) for key in _GRID)
    if not (step > 0 and low + step <= high and (high - low) / step < MOST_LEVELS):
        raise ValueError(f"a grid goes up, by a step above 0, in 2 to {MOST_LEVELS} values")
    count = int((high - low) / step + 1e-9) + 1
    return [_written(round(low + step * place, 9)) for place in range(count)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _written(number: float) -> str:
    return str(float(number)).removesuffix(".0")
