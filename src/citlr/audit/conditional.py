"""An audit of predictions alone, without images: its verdict is conditional on counterfactuals that nobody measured."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.audit.gates.draws import ROUNDING
from citlr.audit.gates.evidence import Answers
from citlr.audit.gates.registry import OF_ANSWERS, withhold
from citlr.audit.measures.accuracy import measure_accuracy, with_doubt
from citlr.audit.measures.agreement import measure_agreement
from citlr.audit.measures.controls import audit_regeneration
from citlr.audit.measures.unexplained import measure_unexplained
from citlr.audit.results.curves import measure_doses
from citlr.audit.results.records import BaselineRow, CohortSummary, Controls, Quality
from citlr.audit.results.result import AuditResult, worst
from citlr.audit.results.statistics import contrasts, outcome_of, parity_row, schema_rows
from citlr.config import GateConfig, TestConfig
from citlr.data.redrawn import MOSTLY_ALIKE
from citlr.errors import InputError
from citlr.invariance.arrays import repeated
from citlr.invariance.parity import demographic_parity
from citlr.invariance.records import SubgroupRow
from citlr.invariance.responses import Responses
from citlr.invariance.subgroups import subgroup_effects
from citlr.invariance.verdict import assess

CONDITION = (
    "This verdict is conditional on the counterfactuals: no image was at hand, so nothing here says whether they carry "
    "the attribute, whether they leave the rest of the image as it was, or whether the generator would show a coin."
)
# What the answers themselves tell of how they were made.
ONE_ANSWER = (
    " Every image has one answer under all levels and draws: the model reads nothing of what was redrawn, or was run "
    "on the originals alone."
)
ONE_DRAW = (
    " The draws of every image are alike, as of a generator without chance: if one draw was copied, its noise passes "
    "for an effect."
)
ORIGINALS = (
    " Images redrawn under their own level are answered as the originals are, to the last digit: if those stand in "
    "their place, and not edits that change nothing there, what redrawing does passes for an effect."
)
# No decision under the own level differs between draws, and of so many images some do under others.
TURNED_ELSEWHERE = (
    " Decisions differ between draws of {count} images, and never under the own level of an image: if originals stand "
    "in its place, what redrawing does passes for an effect."
)
REPEATED = (
    " {count} images are answered as an image of another patient is, to the last digit under every level and draw: if "
    "one picture is filed under several patients, intervals are narrower than they should be."
)
# Answers of an image that have to differ among themselves, before it is no chance that another's are the same.
VARIED = 4
# The chance, at most, of the own level being a quiet one in all of these images, had any of their levels been so.
BY_CHANCE = 1e-3


def audit_predictions(
    responses: Responses,
    known: pd.DataFrame,
    *,
    settings: TestConfig,
    model: str = "model",
    fewest: int = 20,
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> AuditResult:
    """Test predictions on counterfactuals that somebody else made.

    `known` has a row per image (image_id, patient_id, and what else is recorded of it and may explain a difference
    between recorded levels); `fewest` is how many patients a level needs. Seeds are taken as shared: signs of the
    differences are flipped, which is valid for draws that share no noise as well. Images may share none: a gate looks.
    """
    _require_patients(responses, fewest)
    _require_null_interventions(responses)
    assessment = assess(responses, **settings.model_dump(), seed=seed)
    answers = Answers(GateConfig(), responses=responses, rows=schema_rows(assessment))
    if responses.original is not None:
        given = tuple(str(name) for name in known.columns if name not in ("image_id", "patient_id"))
        answers = replace(
            answers,
            agreement=measure_agreement(responses, known, settings=settings),
            unexplained=measure_unexplained(responses, known, given=given, settings=settings, seed=seed),
        )
    gates = tuple(gate for each in OF_ANSWERS for gate in each(answers))
    accuracy = measure_accuracy(responses, known, settings=settings, remedy=" (column 'truth', or --truth)")
    rows = with_doubt(withhold(answers.rows, gates), accuracy)
    again = audit_regeneration(responses, settings=settings, seed=seed)
    return AuditResult(
        verdict=worst(row.verdict for row in rows),
        tests=rows,
        baselines=_parity(responses, settings),
        quality=replace(
            _unmeasured(responses), gates=gates, agreement=answers.agreement, unexplained=answers.unexplained
        ),
        controls=Controls(None, (), None, ("No coin and no planted bias: both need the images.",), again),
        cohort=_summary(responses),
        provenance=dict(provenance or {}),
        model=model,
        alpha=settings.alpha,
        subgroups=_subgroups(responses, settings),
        omnibus=assessment.omnibus,
        condition=CONDITION + _told_by(responses) + _repeated(responses),
        accuracy=accuracy,
        dose_response=measure_doses(responses, settings=settings, seed=seed),
    )


def _require_patients(responses: Responses, fewest: int) -> None:
    """Refuse levels (of all images together, where the recorded level is not known) with too few patients."""
    recorded = responses.recorded
    groups = {"": responses.patients}
    if recorded is not None and not responses.number:
        groups = {level: responses.patients[recorded == level] for level in responses.levels}
    few = {name: count for name, of in groups.items() if (count := len(pd.unique(pd.Series(of)))) < fewest}
    if few:
        counts = ", ".join(f"{count} recorded as '{name}'" if name else str(count) for name, count in few.items())
        raise InputError(
            f"Too few patients for a verdict on '{responses.attribute}': {counts}, and {fewest} of every level would "
            f"do; add patients, leave the level out, or lower --min-patients to {min(few.values())} knowingly."
        )


def _alike(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Say where all draws are alike in all labels: (..., draws, labels) becomes (...)."""
    return np.asarray((np.ptp(values, axis=-2) <= ROUNDING).all(axis=-1))


def _require_null_interventions(responses: Responses) -> None:
    """Refuse answers whose draws differ under other levels and under the own never: those are of the originals.

    What draws share under one side only passes for an effect of the attribute, in a model that reads noise or a blur.
    Where most images are answered alike, as by decisions, draws may be alike by chance, and nothing is told by it.
    """
    alike, null = _alike(responses.values), responses.null
    others = np.ones(alike.shape, bool)
    if responses.factual is not None:
        others[np.arange(len(alike)), responses.factual] = False
    elif null is None:
        # Nobody says which level an image has: the one whose draws are alike, where every image has one such.
        others = ~alike
        null = responses.values[np.arange(len(alike)), alike.argmax(axis=1)]
        if not (alike.sum(axis=1) == 1).all():
            return
    if null is None or 2 * len(np.unique(null[:, 0].round(6), axis=0)) < len(null):
        return
    if _alike(null).all() and alike[others].mean() < MOSTLY_ALIKE:
        raise InputError(
            f"The draws of '{responses.attribute}' are answered alike for every image under its own level, and not "
            "under the others: redraw under the own level as under the others (null intervention), for the original "
            "in its place is no substitute."
        )


def _told_by(responses: Responses) -> str:
    """Say what else a verdict is conditional on, as the answers tell it; decisions may be alike by chance."""
    values, null, told = responses.values, responses.null, ""
    decided = bool(np.isin(values, (0, 1)).all())
    if not decided:
        if np.ptp(values, axis=(1, 2)).max() <= ROUNDING:
            return ONE_ANSWER
        told = ONE_DRAW if _alike(values).all() else ""
    if null is None:
        return told
    if responses.original is not None and np.abs(null - responses.original[:, None]).max() <= ROUNDING:
        return told + ORIGINALS
    turned = (~_alike(values)).sum(axis=1)
    quiet = decided and not responses.number and bool(_alike(null).all())
    if quiet and np.prod(1 - turned / values.shape[1]) < BY_CHANCE:
        told += TURNED_ELSEWHERE.format(count=int((turned > 0).sum()))
    return told


def _repeated(responses: Responses) -> str:
    """Tell of images that are answered as another patient's."""
    rows = responses.values.reshape(responses.n_units, -1)
    varied = (np.diff(np.sort(rows, axis=1), axis=1) > 0).sum(axis=1) >= VARIED - 1
    count = repeated(rows, responses.patients, varied)
    return REPEATED.format(count=count) if count else ""


def _unmeasured(responses: Responses) -> Quality:
    """Name what was not measured."""
    notes = ["Composition, effectiveness, drift, cycles and the placebo were not measured: they need the images."]
    if responses.original is None:
        notes.append(
            "Whether the model answers images redrawn as they are as it answers the originals is not known: the table "
            "holds no predictions on the originals (draw -1)."
        )
    if responses.factual is None:
        notes.append("The level that each image really has is not known: there is nothing by recorded level here.")
    return Quality(None, {}, None, None, {}, None, "", (), tuple(notes))


def _parity(responses: Responses, settings: TestConfig) -> tuple[BaselineRow, ...]:
    """Return demographic parity on the images as they came."""
    level, original = responses.recorded, responses.original
    if original is None or level is None:
        return ()
    return tuple(
        parity_row(
            demographic_parity(
                outcome_of(original[:, k], label, settings),
                level,
                responses.patients,
                contrast=pair,
                alpha=settings.alpha,
            ),
            label,
        )
        for k, label in enumerate(responses.labels)
        for pair in contrasts([name for name in responses.levels if name in set(level)])
    )


def _subgroups(responses: Responses, settings: TestConfig) -> tuple[SubgroupRow, ...]:
    if responses.factual is None:
        return ()
    return subgroup_effects(responses, alpha=settings.alpha, outcome=settings.outcome, threshold=settings.threshold)


def _summary(responses: Responses) -> CohortSummary:
    """Count images and patients by recorded level, where it is known."""
    level = np.full(responses.n_units, "unknown", object) if responses.recorded is None else responses.recorded
    table = pd.DataFrame({"level": level, "patient_id": responses.patients})
    cells = tuple(
        {
            "split": "test",
            "attribute": responses.attribute,
            "level": str(name),
            "label": "",
            "value": "all",
            "images": len(part),
            "patients": int(part["patient_id"].nunique()),
        }
        for name, part in table.groupby("level")
    )
    return CohortSummary((), cells, {})
