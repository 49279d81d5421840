"""Effects in parts of the cohort: by factual level, by covariate, and where they meet."""

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from citlr.errors import InputError
from citlr.invariance.effects.estimates import Outcome, contrast_effects, psi_parts
from citlr.invariance.records import Estimate, SubgroupRow
from citlr.invariance.responses import Responses

MISSING = "missing"
# Mean effect, psi and flip rate where there is one patient: the whole range.
UNSAID = (Estimate(math.nan, -1.0, 1.0), Estimate(math.nan, 0.0, 1.0), Estimate(math.nan, 0.0, 1.0))


def subgroup_effects(
    responses: Responses,
    covariates: pd.DataFrame | Mapping[str, Any] | None = None,
    *,
    depth: int = 2,
    alpha: float = 0.05,
    outcome: Outcome = "decision",
    threshold: float | Mapping[str, float] = 0.5,
    shared_seeds: bool = True,
) -> tuple[SubgroupRow, ...]:
    """Estimate every effect by factual level, by each covariate, and by their intersections."""
    variables = _variables(responses, covariates)
    options: dict[str, Any] = {"outcome": outcome, "threshold": threshold, "shared_seeds": shared_seeds}
    # Of all images: how psi is taken depends on the noise of the draws, and a part would have its own.
    parts = {contrast: psi_parts(responses, contrast=contrast, **options) for contrast in responses.contrasts}
    options |= {"alpha": alpha, "parts": parts}
    return tuple(
        row
        for size in range(1, max(1, depth) + 1)
        for names in combinations(variables, size)
        for subgroup, rows in _parts(names, variables)
        for row in _effects(responses, subgroup, rows, options)
    )


def _variables(
    responses: Responses, covariates: pd.DataFrame | Mapping[str, Any] | None
) -> dict[str, NDArray[np.object_]]:
    variables: dict[str, NDArray[np.object_]] = {}
    if responses.recorded is not None:
        variables[responses.attribute] = responses.recorded
    for name, column in {} if covariates is None else dict(covariates).items():
        values = pd.Series(np.asarray(column, dtype=object))
        if len(values) != responses.n_units:
            raise InputError(f"The covariate '{name}' has {len(values)} values for {responses.n_units} images.")
        if str(name) in variables:
            raise InputError(f"The covariate '{name}' has the name of the attribute; rename it.")
        variables[str(name)] = values.where(values.notna(), MISSING).map(str).to_numpy(dtype=object)
    if not variables:
        raise InputError("There is nothing to group by: give covariates, or responses that know the factual level.")
    return variables


def _parts(
    names: tuple[str, ...], variables: dict[str, NDArray[np.object_]]
) -> Iterator[tuple[tuple[tuple[str, str], ...], NDArray[np.intp]]]:
    table = pd.DataFrame({name: variables[name] for name in names})
    for values, rows in sorted(table.groupby(list(names), sort=True).indices.items(), key=lambda item: str(item[0])):
        key = values if isinstance(values, tuple) else (values,)
        yield tuple(zip(names, map(str, key), strict=True)), np.asarray(rows)


def _effects(
    responses: Responses, subgroup: tuple[tuple[str, str], ...], rows: NDArray[np.intp], options: dict[str, Any]
) -> Iterator[SubgroupRow]:
    n_patients = int(pd.Series(responses.patients[rows]).nunique())
    note = "" if n_patients > 1 else "one patient: nothing can be said of a population"
    for contrast in responses.contrasts:
        names = (responses.levels[contrast[0]], responses.levels[contrast[1]])
        measured = [UNSAID] * len(responses.labels)
        if n_patients > 1:
            own = options | {"parts": tuple(part[rows] for part in options["parts"][contrast])}
            found = contrast_effects(responses.take(rows), contrast=contrast, **own)
            places = range(len(responses.labels))
            measured = [(found.mean_effect.at(k), found.psi.at(k), found.flip_rate.at(k)) for k in places]
        for label, effects in zip(responses.labels, measured, strict=True):
            yield SubgroupRow(responses.attribute, subgroup, names, label, len(rows), n_patients, *effects, note=note)
