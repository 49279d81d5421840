"""What held covariates and rare levels leave of an intervention to learn from: a refusal, or a remark."""

from collections.abc import Iterable, Sequence

import pandas as pd

from citlr.errors import InputError
from citlr.generators.variables import Variable, as_level

# A level with fewer training images than this is reported as sparse.
FEW = 20
# Rows of one combination of held covariates that tell whether it determines the attribute.
COMMON = 5


def require_overlap(frame: pd.DataFrame, attribute: Variable, held: Sequence[Variable]) -> None:
    """Refuse held covariates that determine the attribute: holding them and changing it is then never seen."""
    for covariate in held:
        _require_overlap(frame, attribute, covariate)
    _require_joint_overlap(frame, attribute, held)


def sparse_levels(frame: pd.DataFrame, variables: Iterable[Variable]) -> tuple[str, ...]:
    """Say which levels of the attributes have fewer than `FEW` training images: what they look like is a guess."""
    notes = []
    for variable in variables:
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
    blank = [level for level in attribute.levels if level not in set(levels)]
    if blank:
        why = f"is blank in every training image of '{attribute.name}' = '{blank[0]}'"
        raise InputError(_not_to_hold(attribute, covariate, why))
    if covariate.levels:
        determined = attribute.levels and levels.groupby(both[covariate.name].map(as_level)).nunique().max() == 1
    elif attribute.levels:
        # A number determines the level when the levels' ranges do not meet.
        ranges = both[covariate.name].groupby(levels).agg(["min", "max"]).sort_values("min")
        determined = len(ranges) > 1 and bool((ranges["min"].iloc[1:].to_numpy() > ranges["max"].iloc[:-1]).all())
    else:
        determined = abs(float(both[attribute.name].corr(both[covariate.name], method="spearman"))) > 1 - 1e-9
    if determined:
        raise InputError(_not_to_hold(attribute, covariate, f"determines '{attribute.name}' in the training split"))


def _not_to_hold(attribute: Variable, covariate: Variable, why: str) -> str:
    return (
        f"The held covariate '{covariate.name}' {why}, so that no image shows how '{attribute.name}' looks while it "
        f"stays; take '{covariate.name}' off `hold`."
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
