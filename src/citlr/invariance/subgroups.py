"""Effects in parts of the cohort: by factual level, by covariate, and where they meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from citlr.errors import InputError
from citlr.invariance.effects.estimates import Effects, Outcome, contrast_effects
from citlr.invariance.effects.intervals import Interval
from citlr.invariance.responses import Responses
from citlr.invariance.rows import Bounds, bounds_of

MISSING = "missing"


@dataclass(frozen=True)
class SubgroupEffect:
    """The effects of one contrast on one label in one part of the cohort; not adjusted for the number of parts.

    - `subgroup` (str, str): Variables and their values; the attribute's own name stands for the factual level.
    - `contrast` (str, str)
    - `label`
    - `n_images`, `n_patients`
    - `mean_effect`, `psi`, `rms_effect`, `flip_rate`: With intervals clustered by patient.
    - `within_flip_rate`
    - `note`: Why nothing is said, where there is a single patient; the bounds are then the whole range.
    """

    subgroup: tuple[tuple[str, str], ...]
    contrast: tuple[str, str]
    label: str
    n_images: int
    n_patients: int
    mean_effect: Bounds
    psi: Bounds
    rms_effect: Bounds
    flip_rate: Bounds
    within_flip_rate: float
    note: str = ""


def subgroup_effects(
    responses: Responses,
    covariates: pd.DataFrame | Mapping[str, Any] | None = None,
    *,
    depth: int = 2,
    alpha: float = 0.05,
    outcome: Outcome = "decision",
    threshold: float | Mapping[str, float] = 0.5,
    shared_seeds: bool = True,
) -> tuple[SubgroupEffect, ...]:
    """Estimate every effect by factual level, by each covariate, and by their intersections.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.zeros((40, 2, 4, 1))
    >>> values[:20, 1] = 1.0
    >>> r = Responses.from_arrays(values, factual=np.arange(40) % 2, levels=["f", "m"], attribute="sex")
    >>> for row in subgroup_effects(r, {"view": ["PA"] * 20 + ["AP"] * 20}, depth=1):
    ...     print(row.subgroup, row.n_images, row.psi.estimate)
    (('sex', 'f'),) 20 0.5
    (('sex', 'm'),) 20 0.5
    (('view', 'AP'),) 20 0.0
    (('view', 'PA'),) 20 1.0
    """
    variables = _variables(responses, covariates)
    options: dict[str, Any] = {
        "alpha": alpha,
        "outcome": outcome,
        "threshold": threshold,
        "shared_seeds": shared_seeds,
    }
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
    if responses.factual is not None:
        variables[responses.attribute] = np.asarray(responses.levels, dtype=object)[responses.factual]
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
    responses: Responses,
    subgroup: tuple[tuple[str, str], ...],
    rows: NDArray[np.intp],
    options: dict[str, Any],
) -> Iterator[SubgroupEffect]:
    n_patients = int(pd.Series(responses.patients[rows]).nunique())
    for contrast in responses.contrasts:
        if n_patients < 2:
            yield from _unsaid(responses, subgroup, contrast, len(rows))
            continue
        effects = contrast_effects(responses.take(rows), contrast=contrast, **options)
        for k in range(len(responses.labels)):
            yield _row(effects, k, subgroup, len(rows), n_patients)


def _row(
    effects: Effects, k: int, subgroup: tuple[tuple[str, str], ...], n_images: int, n_patients: int
) -> SubgroupEffect:
    def bounds(interval: Interval) -> Bounds:
        return bounds_of(interval, k)

    return SubgroupEffect(
        subgroup=subgroup,
        contrast=effects.contrast,
        label=effects.labels[k],
        n_images=n_images,
        n_patients=n_patients,
        mean_effect=bounds(effects.mean_effect),
        psi=bounds(effects.psi),
        rms_effect=bounds(effects.rms_effect),
        flip_rate=bounds(effects.flip_rate),
        within_flip_rate=float(effects.within_flip_rate[k]),
    )


def _unsaid(
    responses: Responses, subgroup: tuple[tuple[str, str], ...], contrast: tuple[int, int], n_images: int
) -> Iterator[SubgroupEffect]:
    nan = float("nan")
    whole = Bounds(nan, 0.0, 1.0)
    for label in responses.labels:
        yield SubgroupEffect(
            subgroup=subgroup,
            contrast=(responses.levels[contrast[0]], responses.levels[contrast[1]]),
            label=label,
            n_images=n_images,
            n_patients=1,
            mean_effect=Bounds(nan, -1.0, 1.0),
            psi=whole,
            rms_effect=whole,
            flip_rate=whole,
            within_flip_rate=nan,
            note="one patient: nothing can be said of a population",
        )
