"""From responses to the audit: test, baselines, controls, and the gates that a verdict has to pass."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.audit.gates.evidence import Evidence
from citlr.audit.gates.registry import gates_of, withhold
from citlr.audit.generation import Counterfactuals
from citlr.audit.measures.accuracy import measure_accuracy, with_doubt
from citlr.audit.measures.agreement import measure_agreement
from citlr.audit.measures.controls import run_controls
from citlr.audit.measures.faithfulness import Faithfulness
from citlr.audit.measures.put_back import measure_put_back
from citlr.audit.measures.unexplained import measure_unexplained
from citlr.audit.redrawing.replicates import replicates_of
from citlr.audit.results.curves import measure_doses
from citlr.audit.results.records import Agreement, Unexplained
from citlr.audit.results.result import AuditResult, CohortSummary, worst
from citlr.audit.results.statistics import baselines, recorded_of, schema_rows
from citlr.config import ControlsConfig, GateConfig, TestConfig
from citlr.data.cohort import Cohort
from citlr.data.tables.numbers import is_number, recorded_levels
from citlr.generators.learnt import LearntGenerator
from citlr.generators.on_disk import ImagesOnDisk
from citlr.generators.quality.records import what_is_unknown
from citlr.invariance.records import SubgroupRow
from citlr.invariance.responses import Responses
from citlr.invariance.subgroups import subgroup_effects
from citlr.invariance.verdict import assess

ON_DISK = (
    "This verdict is conditional on what only the owner of the generator could measure: whether a fair coin would show "
    "(placebo), how surely its training images show what the attribute does, and whether it has seen these patients."
)
# A recorded value of fewer images may be somebody's own words.
RARE = 5


@dataclass(frozen=True)
class Settings:
    """What the verdict is asked for: the test, the generator's limits, the controls, and the seed of all three."""

    test: TestConfig
    gates: GateConfig
    controls: ControlsConfig
    seed: int


@dataclass(frozen=True)
class AuditInputs:
    """Everything that the audit of one model rests on.

    - `responses`: Long table, the coin's responses among them.
    - `counterfactuals`: Of the split that is audited.
    - `size`: Side of the images that the model reads; the generator's without it.
    - `remarks`: What looked wrong of the model when it was tried.
    """

    model: str
    responses: pd.DataFrame
    whole: Cohort
    counterfactuals: Counterfactuals
    faithfulness: Faithfulness
    settings: Settings
    provenance: dict[str, Any]
    size: int | None = None
    remarks: tuple[str, ...] = ()

    @property
    def test(self) -> Cohort:
        """The split that is audited, image for image as it was redrawn."""
        return self.counterfactuals.cohort


def audit_responses(inputs: AuditInputs) -> AuditResult:
    """Test the responses of one model."""
    config, counterfactuals = inputs.settings, inputs.counterfactuals
    # Of images that somebody else has drawn, a coin cannot be asked for: the rule is docs/own-images.md's.
    on_disk = isinstance(counterfactuals.generator, ImagesOnDisk)
    attribute, levels = counterfactuals.attribute, counterfactuals.levels
    shared = counterfactuals.main.plan.shared_seeds
    number = is_number(inputs.test.frame[attribute])
    responses = Responses.from_frame(inputs.responses, attribute=attribute, levels=levels, number=number)
    replicates = replicates_of(inputs.responses, responses)
    carried = inputs.faithfulness.carried_at(inputs.size or counterfactuals.main.plan.size)
    assessment = assess(
        responses,
        **config.test.model_dump(),
        shared_seeds=shared,
        seed=config.seed,
        replicates=replicates,
        carried={level: share.low for level, share in carried.shares.items()} or None,
    )
    controls, coin_passed = run_controls(
        inputs.responses,
        responses,
        _aligned(inputs.faithfulness.detector, counterfactuals, responses),
        controls=config.controls,
        settings=config.test,
        shared_seeds=shared,
        seed=config.seed,
    )
    rows = schema_rows(assessment)
    agreement, unexplained = _of_the_model(inputs, responses)
    evidence = Evidence(
        limits=config.gates,
        faithfulness=inputs.faithfulness,
        carried=carried,
        controls=controls,
        coin_passed=coin_passed,
        tossable=not on_disk,
        retrainable=isinstance(counterfactuals.generator, LearntGenerator),
        counterfactuals=counterfactuals,
        responses=responses,
        rows=rows,
        agreement=agreement,
        unexplained=unexplained,
        put_back=measure_put_back(responses, settings=config.test, replicates=replicates),
    )
    gates = gates_of(evidence)
    accuracy = measure_accuracy(responses, inputs.test.frame, settings=config.test)
    rows, measured = with_doubt(withhold(rows, gates), accuracy), inputs.faithfulness.quality
    left = inputs.faithfulness.left_at(carried.size)
    return AuditResult(
        verdict=worst(row.verdict for row in rows),
        tests=rows,
        baselines=baselines(responses, inputs.test, settings=config.test),
        quality=replace(
            measured,
            drift={name: shift for name, shift in measured.drift.items() if shift is not None},
            gates=gates,
            carried=carried,
            agreement=agreement,
            unexplained=unexplained,
            curve=inputs.faithfulness.curve_at(carried.size),
            left=left,
            notes=(*measured.notes, *what_is_unknown(left), *inputs.remarks),
        ),
        controls=controls,
        cohort=summarise(_by_nearest(inputs.whole, attribute, levels) if number else inputs.whole, attribute),
        provenance=inputs.provenance,
        model=inputs.model,
        alpha=config.test.alpha,
        subgroups=audit_subgroups(responses, inputs.test, settings=config.test, shared_seeds=shared),
        omnibus=assessment.omnibus,
        condition=ON_DISK if on_disk else "",
        accuracy=accuracy,
        dose_response=measure_doses(responses, settings=config.test, seed=config.seed, replicates=replicates),
    )


def _by_nearest(cohort: Cohort, attribute: str, levels: Sequence[str]) -> Cohort:
    """Name a number by the nearest of the values that it is redrawn at: the groups of all that needs groups."""
    named = recorded_levels(cohort.frame[attribute], levels)
    return replace(cohort, frame=cohort.frame.assign(**{attribute: named}))


def _of_the_model(inputs: AuditInputs, responses: Responses) -> tuple[tuple[Agreement, ...], tuple[Unexplained, ...]]:
    """Measure what the model makes of null interventions, and how its outputs differ between recorded levels."""
    test, frame = inputs.settings.test, inputs.test.frame
    given = recorded_beside(inputs.test, inputs.counterfactuals.generator.hold, responses.attribute)
    seed, known = inputs.settings.seed, inputs.counterfactuals.assigned
    return (
        measure_agreement(responses, frame, settings=test),
        measure_unexplained(responses, frame, given=given, settings=test, seed=seed, assigned=known),
    )


def recorded_beside(cohort: Cohort, hold: Sequence[str], attribute: str) -> tuple[str, ...]:
    """Name what is held and what else is recorded of every image: labels and covariates, without the attribute."""
    names = dict.fromkeys((*hold, *cohort.labels, *cohort.covariates))
    return tuple(name for name in names if name != attribute and name in cohort.frame)


def summarise(cohort: Cohort, attribute: str) -> CohortSummary:
    """Count who is in the cohort, in every cell, and who is missing."""
    counts = cohort.counts()
    counts = counts[counts["attribute"] == attribute]
    everyone = (
        cohort.frame.groupby(["split", attribute], sort=True)["patient_id"]
        .agg(images="size", patients="nunique")
        .reset_index()
        .rename(columns={attribute: "level"})
        .assign(attribute=attribute, label="", value="all")
    )
    table = pd.concat([everyone[counts.columns], counts], ignore_index=True)
    cells = tuple({str(name): value for name, value in row.items()} for row in table.to_dict("records"))
    # Names of excluded images stay in the cohort's own file: an audit is made to be handed on.
    flow = tuple({key: value for key, value in asdict(step).items() if key != "names"} for step in cohort.flow)
    raw = tuple(asdict(one) for one in cohort.raw if one.attribute == attribute and one.images_before >= RARE)
    return CohortSummary(flow, cells, cohort.missing(), raw)


def _aligned(
    detector: npt.NDArray[np.float32] | None, counterfactuals: Counterfactuals, responses: Responses
) -> npt.NDArray[np.float64] | None:
    """Bring the detector's rows, which follow the plan, into the order of the responses."""
    if detector is None:
        return None
    position = {name: row for row, name in enumerate(counterfactuals.main.plan.image_ids)}
    return detector[[position[str(unit)] for unit in responses.units]].astype(np.float64)


# A variable with more values describes single patients rather than groups.
MOST_VALUES = 8
# Years; the bounds that reporting guidance for imaging uses most: children, younger and older adults, the very old.
AGE_EDGES = (0, 18, 40, 60, 80)


def audit_subgroups(
    responses: Responses, cohort: Cohort, *, settings: TestConfig, shared_seeds: bool
) -> tuple[SubgroupRow, ...]:
    """Estimate the effects in every part of the test set that the cohort can name."""
    covariates = groupings(cohort, responses.units)
    if responses.factual is None and not covariates:
        return ()
    return subgroup_effects(
        responses,
        covariates,
        depth=2,
        alpha=settings.alpha,
        outcome=settings.outcome,
        threshold=settings.threshold,
        shared_seeds=shared_seeds,
    )


def groupings(cohort: Cohort, units: Any) -> dict[str, Any]:
    """Return the covariates of the images as categories."""
    known = recorded_of(cohort.frame, units)
    extra = [name for name in ("age", "view") if name in known.columns]
    found = {}
    for name in dict.fromkeys((*cohort.covariates, *extra)):
        if name in cohort.attributes:
            continue
        values = _categories(known[name], name)
        if 2 <= values.nunique(dropna=False) <= MOST_VALUES:
            found[str(name)] = values.to_numpy(dtype=object)
    return found


def _categories(column: pd.Series, name: str) -> pd.Series:
    """Give a column as text categories: ages in fixed bands, other numbers with many values in thirds."""
    if not pd.api.types.is_numeric_dtype(column) or (name != "age" and column.nunique() <= MOST_VALUES):
        return column.map(_text, na_action="ignore")
    if name == "age":
        names = [f"{low} to {high - 1}" for low, high in pairwise(AGE_EDGES)]
        bands = np.array([*names, f"{AGE_EDGES[-1]} and over"], dtype=object)
        ages = column.to_numpy(float, na_value=np.nan)
        band = np.clip(np.digitize(np.nan_to_num(ages), AGE_EDGES) - 1, 0, len(bands) - 1)
        return pd.Series(bands[band], index=column.index).where(column.notna())
    low, high = (float(bound) for bound in column.quantile([1 / 3, 2 / 3]))
    labels = [f"up to {low:g}", f"{low:g} to {high:g}", f"over {high:g}"]
    thirds = np.select([column <= low, column <= high], labels[:2], labels[2])
    return pd.Series(thirds, index=column.index, dtype=object).where(column.notna())


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
