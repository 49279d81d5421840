"""From the columns of a cohort to what the denoiser is conditioned on: one token per attribute and held covariate."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from citlr.doses import RECORDED
from citlr.errors import InputError, did_you_mean, require_known
from citlr.generators.base import Level
from citlr.generators.overlap import require_overlap
from citlr.generators.variables import Variable, code_of
from citlr.randomness import COIN, PLACEBO, toss


@dataclass(frozen=True)
class Conditions:
    """The variables in the order of their tokens: attributes, the coin, held covariates.

    - `attributes`: What can be intervened on, a set of levels or a number such as the age; the coin is the last of
      them.
    - `held`: What stays at its observed value.
    """

    attributes: tuple[Variable, ...]
    held: tuple[Variable, ...]
    coin_seed: int

    @classmethod
    def of(cls, frame: pd.DataFrame, *, attributes: Sequence[str], hold: Sequence[str], coin_seed: int) -> Self:
        """Read the variables off the training rows."""
        for name in (*attributes, *hold):
            require_known(name, frame, f"The cohort has no column '{name}', which the generator is to condition on")
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
            require_overlap(frame, variable, held)
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
    def acting(self) -> tuple[Variable, ...]:
        """The attributes of which one asks where they act: those recorded; the coin where it is all there is."""
        return self.recorded or self.attributes

    @property
    def width(self) -> int:
        """Length of the code of one row."""
        return sum(variable.width for variable in self.variables)

    def columns(self, variables: Iterable[Variable]) -> list[int]:
        """Where the codes of several variables stand in a row, column by column."""
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
        attributes = {variable.name: variable for variable in self.attributes}
        require_known(name, attributes, f"The generator cannot intervene on '{name}'")
        return attributes[name]

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
        """Set one or several attributes to a level, or with None to the null code; all else stays as it is.

        `RECORDED` is the value that a row has, of an attribute that is a number.
        With an array every row gets a value of its own; where rows come in draws, all draws of an image get its value.
        """
        names = (attribute,) if isinstance(attribute, str) else tuple(attribute)
        values = tuple(level) if isinstance(level, tuple | list) else (level,) * len(names)
        if len(values) != len(names):
            raise InputError(f"{len(names)} attributes are intervened on together, but a level names {len(values)}.")
        changed = codes.clone()
        for name, value in zip(names, values, strict=True):
            variable = self.attribute(name)
            if isinstance(value, np.ndarray):
                given: Any = np.repeat(value, len(codes) // max(1, len(value)))
                code = variable.encode(given)
            elif value == RECORDED and not variable.levels:
                continue
            else:
                code = code_of(variable, value)
            changed[:, self.span(name)] = torch.from_numpy(code)
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
        changed, nothing = codes.clone(), self.nothing(1)
        for variable in self.variables:
            share, span = probability if variable in self.attributes else probability / 5, self.span(variable.name)
            gone = torch.rand(len(codes), generator=generator) < share
            changed[gone, span] = nothing[0, span]
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


def two_levels() -> Conditions:
    """Return conditions of nobody, an attribute of two levels and the coin, for networks that are built on trial."""
    return Conditions((Variable("attribute", ("a", "b")), Variable(PLACEBO, COIN)), (), 0)
