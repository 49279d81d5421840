"""One thing that a generator is conditioned on, and its code: a set of levels or a number, and whether it is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.data.tables.numbers import MAX_CATEGORIES
from citlr.errors import InputError, require_known


@dataclass(frozen=True)
class Variable:
    """One thing to condition on.

    - `levels`: Values of a categorical variable; empty for a continuous one.
    - `centre`, `spread`: What a continuous variable is standardised by.
    - `span`: The lowest and the highest value of a continuous variable in training; None where it is not known.
    """

    name: str
    levels: tuple[str, ...] = ()
    centre: float = 0.0
    spread: float = 1.0
    span: tuple[float, float] | None = None

    @property
    def width(self) -> int:
        """Length of the code: one per level, or one number, and a flag for "not given"."""
        return max(len(self.levels), 1) + 1

    def encode(self, values: Sequence[Any] | pd.Series) -> npt.NDArray[np.float32]:
        """Code values as rows (n, width); a missing one is the null code, all zeros but for its flag."""
        series = pd.Series(values).reset_index(drop=True)
        code = np.zeros((len(series), self.width), dtype=np.float32)
        given = series.notna().to_numpy()
        code[~given, -1] = 1.0
        if not self.levels:
            numbers = pd.to_numeric(series[given], errors="coerce")
            if numbers.isna().any():
                raise InputError(
                    f"'{self.name}' is a number, and '{series[given][numbers.isna()].iloc[0]}' is none; give a number."
                )
            code[given, 0] = (numbers.to_numpy(dtype=np.float64) - self.centre) / self.spread
            return code
        index = {level: k for k, level in enumerate(self.levels)}
        text = series[given].map(as_level)
        for level in sorted(set(text)):
            require_known(
                level, index, f"The column '{self.name}' holds '{level}', which the generator was not trained with"
            )
        code[np.flatnonzero(given), text.map(index).to_numpy(dtype=np.int64)] = 1.0
        return code

    def to_json(self) -> dict[str, Any]:
        """Give the variable as JSON."""
        own = {"name": self.name, "levels": list(self.levels), "centre": self.centre, "spread": self.spread}
        return own if self.span is None else {**own, "span": list(self.span)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild a variable from `to_json`."""
        span = content.get("span")
        known = None if span is None else (float(span[0]), float(span[1]))
        return cls(content["name"], tuple(content["levels"]), content["centre"], content["spread"], known)

    @classmethod
    def of(cls, name: str, values: pd.Series) -> Self:
        """Describe a column: categorical, or continuous when it holds more than a few different numbers."""
        given = values.dropna()
        if pd.api.types.is_numeric_dtype(given) and given.nunique() > MAX_CATEGORIES:
            numbers = given.to_numpy(dtype=np.float64)
            span = (float(numbers.min()), float(numbers.max()))
            return cls(name, (), float(numbers.mean()), float(numbers.std() or 1.0), span)
        return cls(name, tuple(sorted({as_level(value) for value in given})))


@lru_cache(maxsize=64, typed=True)
def code_of(variable: Variable, value: Any) -> npt.NDArray[np.float32]:
    """Give the code (1, width) of one value, which every batch is redrawn under."""
    return variable.encode([value])


def as_level(value: Any) -> str:
    """Write a cell as the name of a level: labels 0.0 and 1.0 are "0" and "1".

    >>> as_level(1.0), as_level("AP")
    ('1', 'AP')
    """
    return str(int(value)) if isinstance(value, float | np.floating) and float(value).is_integer() else str(value)
