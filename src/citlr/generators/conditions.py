"""From the columns of a cohort to what the denoiser is conditioned on: one token per attribute and held covariate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from citlr.errors import InputError, did_you_mean
from citlr.generators.base import COIN, PLACEBO, Level, toss

# A covariate with more distinct numbers than this is continuous, with fewer a set of categories.
MAX_CATEGORIES = 8
# A level with fewer training images than this is reported as sparse.
FEW = 20
# Rows of one combination of held covariates that tell whether it determines the attribute.
COMMON = 5


@dataclass(frozen=True)
class Variable:
    """One thing to condition on.

    Parameters
    ----------
    name : str
        Column of the cohort.
    levels : tuple of str
        Values of a categorical variable; empty for a continuous one.
    centre, spread : float
        What a continuous variable is standardised by.
    """

    name: str
    levels: tuple[str, ...] = ()
    centre: float = 0.0
    spread: float = 1.0

    @property
    def width(self) -> int:
        """Length of the code: one per level, or one number, and a flag for "not given"."""
        return max(len(self.levels), 1) + 1

    def encode(self, values: Sequence[Any] | pd.Series) -> npt.NDArray[np.float32]:
        """Code values as rows (n, width); a missing one is the null code, all zeros but for its flag.

        Raises
        ------
        InputError
            For a level that is unknown, or where a continuous variable has a value that is no number.
        """
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
        unknown = sorted(set(text) - set(index))
        if unknown:
            raise InputError(
                f"The column '{self.name}' holds '{unknown[0]}', which the generator was not trained with."
                f"{did_you_mean(unknown[0], self.levels)}"
            )
        code[np.flatnonzero(given), text.map(index).to_numpy(dtype=np.int64)] = 1.0
        return code

    def to_json(self) -> dict[str, Any]:
        """Give the variable as JSON."""
        return {"name": self.name, "levels": list(self.levels), "centre": self.centre, "spread": self.spread}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild a variable from `to_json`."""
        return cls(content["name"], tuple(content["levels"]), content["centre"], content["spread"])

    @classmethod
    def of(cls, name: str, values: pd.Series) -> Self:
        """Describe a column: categorical, or continuous when it holds more than a few different numbers."""
        given = values.dropna()
        if pd.api.types.is_numeric_dtype(given) and given.nunique() > MAX_CATEGORIES:
            numbers = given.to_numpy(dtype=np.float64)
            return cls(name, (), float(numbers.mean()), float(numbers.std() or 1.0))
        return cls(name, tuple(sorted({as_level(value) for value in given})))


def as_level(value: Any) -> str:
    """Write a cell as the name of a level: labels 0.0 and 1.0 are "0" and "1".

    Examples
    --------
    >>> as_level(1.0), as_level("AP")
    ('1', 'AP')
    """
    return str(int(value)) if isinstance(value, float | np.floating) and float(value).is_integer() else str(value)


@dataclass(frozen=True)
class Conditions:
    """The variables in the order of their tokens: attributes, the coin, held covariates.

    Parameters
    ----------
    attributes : tuple of Variable
        What can be intervened on, a set of levels or a number such as the age; the coin is the last of them.
    held : tuple of Variable
        What stays at its observed value.
    coin_seed : int
        Seed of the coin.
    """

    attributes: tuple[Variable, ...]
    held: tuple[Variable, ...]
    coin_seed: int

    @classmethod
    def of(cls, frame: pd.DataFrame, *, attributes: Sequence[str], hold: Sequence[str], coin_seed: int) -> Self:
        """Read the variables off the training rows.

        Raises
        ------
        InputError
            If a column is missing or empty, an attribute has a single level, a covariate is held that is the attribute
            itself, or one that determines it: there is then no image of one level to learn the other's look from.
        """
        for name in (*attributes, *hold):
            if name not in frame.columns:
                raise InputError(
                    f"The cohort has no column '{name}', which the generator is to condition on."
                    f"{did_you_mean(name, [str(column) for column in frame.columns])}"
                )
            if frame[name].notna().sum() == 0:
                raise InputError(f"The column '{name}' is empty in the training split; take it off the list.")
        both = sorted(set(attributes) & set(hold))
        if both:
            raise InputError(f"'{both[0]}' cannot be both intervened on and held; take it off `hold`.")
        variables = tuple(Variable.of(name, frame[name]) for name in attributes)
        for variable in variables:
            if len(variable.levels) == 1:
                raise InputError(
                    f"The attribute '{variable.name}' has the single level '{variable.levels[0]}' in the training "
                    "split; a counterfactual needs at least two."
                )
        held = tuple(Variable.of(name, frame[name]) for name in hold)
        for variable in variables:
            for covariate in held:
                _require_overlap(frame, variable, covariate)
            _require_joint_overlap(frame, variable, held)
        return cls((*variables, Variable(PLACEBO, COIN)), held, coin_seed)

    @property
    def variables(self) -> tuple[Variable, ...]:
        """All variables, in the order of their codes."""
        return (*self.attributes, *self.held)

    @property
    def recorded(self) -> tuple[Variable, ...]:
        """The attributes that the cohort records: all but the coin."""
        return tuple(variable for variable in self.attributes if variable.name != PLACEBO)

    @property
    def width(self) -> int:
        """Length of the code of one row."""
        return sum(variable.width for variable in self.variables)

    def columns(self, variables: Iterable[Variable]) -> list[int]:
        """Where the codes of several variables stand in a row, column by column.

        Examples
        --------
        >>> frame = pd.DataFrame({"sex": ["F", "M"], "view": ["AP", "PA"], "patient_id": [1, 2]})
        >>> conditions = Conditions.of(frame, attributes=["sex"], hold=[], coin_seed=0)
        >>> conditions.columns(conditions.attributes), conditions.columns(conditions.recorded)
        ([0, 1, 2, 3, 4, 5], [0, 1, 2])
        """
        every = range(self.width)
        return [column for variable in variables for column in every[self.span(variable.name)]]

    def span(self, name: str) -> slice:
        """Where a variable's code stands in a row."""
        start = 0
        for variable in self.variables:
            if variable.name == name:
                return slice(start, start + variable.width)
            start += variable.width
        raise InputError(f"'{name}' is not conditioned on.{did_you_mean(name, [v.name for v in self.variables])}")

    def attribute(self, name: str) -> Variable:
        """Find an attribute that can be intervened on."""
        for variable in self.attributes:
            if variable.name == name:
                return variable
        raise InputError(
            f"The generator cannot intervene on '{name}'.{did_you_mean(name, [v.name for v in self.attributes])}"
        )

    def encode(self, frame: pd.DataFrame) -> Tensor:
        """Code the observed values of rows, (n, width); the coin is tossed from `patient_id`."""
        codes = []
        for variable in self.variables:
            if variable.name == PLACEBO:
                values: Any = toss(frame["patient_id"], seed=self.coin_seed)
            elif variable.name in frame.columns:
                values = frame[variable.name]
            else:
                raise InputError(f"The rows to be redrawn have no column '{variable.name}', which the generator needs.")
            codes.append(variable.encode(values))
        return torch.from_numpy(np.concatenate(codes, axis=1))

    def intervene(self, codes: Tensor, attribute: str | Sequence[str], level: Level | None) -> Tensor:
        """Set one or several attributes to a level, or with None to the null code; all else stays as it is."""
        names = (attribute,) if isinstance(attribute, str) else tuple(attribute)
        values = (level,) * len(names) if level is None or isinstance(level, str) else tuple(level)
        if len(values) != len(names):
            raise InputError(f"{len(names)} attributes are intervened on together, but a level names {len(values)}.")
        changed = codes.clone()
        for name, value in zip(names, values, strict=True):
            variable = self.attribute(name)
            changed[:, self.span(name)] = torch.from_numpy(variable.encode([value]))
        return changed

    def nothing(self, n: int) -> Tensor:
        """Give n rows in which no variable is given."""
        rows = torch.zeros(n, self.width)
        for variable in self.variables:
            rows[:, self.span(variable.name).stop - 1] = 1.0
        return rows

    def drop(self, codes: Tensor, *, probability: float, generator: torch.Generator) -> Tensor:
        """Replace variables, each by itself, by the null code at random.

        For attributes this is the dropout of classifier-free guidance. Held covariates are dropped a fifth as often: so
        that the code of a missing value is a trained one even where the training split misses none.
        """
        changed = codes.clone()
        for variable in self.variables:
            share = probability if variable in self.attributes else probability / 5
            gone = torch.rand(len(codes), generator=generator) < share
            null = torch.zeros(variable.width)
            null[-1] = 1.0
            changed[gone, self.span(variable.name)] = null
        return changed

    def to_json(self) -> dict[str, Any]:
        """Give the conditions as JSON."""
        return {
            "attributes": [variable.to_json() for variable in self.attributes],
            "held": [variable.to_json() for variable in self.held],
            "coin_seed": self.coin_seed,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild conditions from `to_json`."""
        return cls(
            tuple(Variable.from_json(item) for item in content["attributes"]),
            tuple(Variable.from_json(item) for item in content["held"]),
            content["coin_seed"],
        )


def sparse_levels(frame: pd.DataFrame, conditions: Conditions) -> tuple[str, ...]:
    """Say which levels of the attributes have fewer than `FEW` training images: what they look like is a guess.

    Examples
    --------
    >>> frame = pd.DataFrame({"sex": ["F"] * 30 + ["M"] * 10, "patient_id": range(40)})
    >>> sparse_levels(frame, Conditions.of(frame, attributes=["sex"], hold=[], coin_seed=0))
    ("The level 'M' of 'sex' has 10 training images: what a generator shows of it is mostly a guess.",)
    """
    notes = []
    for variable in conditions.recorded:
        if not variable.levels:
            continue
        counts = frame[variable.name].dropna().map(as_level).value_counts()
        notes += [
            f"The level '{level}' of '{variable.name}' has {counts.get(level, 0)} training images: what a generator "
            "shows of it is mostly a guess."
            for level in variable.levels
            if counts.get(level, 0) < FEW
        ]
    return tuple(notes)


def _require_overlap(frame: pd.DataFrame, attribute: Variable, covariate: Variable) -> None:
    """Refuse a held covariate that determines the attribute: holding one and changing the other is then never seen."""
    both = frame[[attribute.name, covariate.name]].dropna()
    if not len(both):
        return
    levels = both[attribute.name].map(as_level) if attribute.levels else both[attribute.name]
    if covariate.levels:
        determined = attribute.levels and levels.groupby(both[covariate.name].map(as_level)).nunique().max() == 1
    elif attribute.levels:
        # A number determines the level when the levels' ranges do not meet.
        ranges = both[covariate.name].groupby(levels).agg(["min", "max"]).sort_values("min")
        determined = len(ranges) > 1 and bool((ranges["min"].iloc[1:].to_numpy() > ranges["max"].iloc[:-1]).all())
    else:
        determined = abs(float(both[attribute.name].corr(both[covariate.name], method="spearman"))) > 1 - 1e-9
    if determined:
        raise InputError(
            f"The held covariate '{covariate.name}' determines '{attribute.name}' in the training split, so that no "
            f"image shows how '{attribute.name}' looks while it stays; take '{covariate.name}' off `hold`."
        )


def _require_joint_overlap(frame: pd.DataFrame, attribute: Variable, held: Sequence[Variable]) -> None:
    """Refuse held covariates that determine the attribute together, as far as rows that share all of them tell."""
    sets = [covariate.name for covariate in held if covariate.levels]
    both = frame[[attribute.name, *sets]].dropna()
    if len(sets) < 2 or not attribute.levels or not len(both):
        return
    levels = both[attribute.name].map(as_level).groupby([both[name].map(as_level) for name in sets])
    often = levels.size() >= COMMON
    # Where most rows share their combination with few others, that each has one level says nothing.
    if levels.size()[often].sum() >= len(both) / 2 and levels.nunique()[often].max() == 1:
        raise InputError(
            f"The held covariates {', '.join(repr(name) for name in sets)} together determine '{attribute.name}' in "
            f"the training split, so that no image shows how '{attribute.name}' looks while they stay; take one of "
            "them off `hold`."
        )


class Tokens(nn.Module):
    """Embeds a code as one token per variable: (n, width) -> (n, variables, dim).

    A linear map per variable, so that a null token, a level and a number have an embedding each of their own.

    Parameters
    ----------
    widths : sequence of int
        Length of each variable's code.
    dim : int
        Length of a token.
    """

    def __init__(self, widths: Sequence[int], dim: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.embeddings = nn.ModuleList(nn.Linear(width, dim) for width in widths)

    def forward(self, codes: Tensor) -> Tensor:
        """Embed codes."""
        parts = torch.split(codes, list(self.widths), dim=1)
        return torch.stack([embed(part) for embed, part in zip(self.embeddings, parts, strict=True)], dim=1)
