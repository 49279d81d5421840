"""The tasks of the imaging study: train one network, audit one model; each alone, resumable, and writing a row."""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from citlr.audit.prediction import predict_sets, side_read, write_responses
from citlr.audit.results.result import AuditResult
from citlr.audit.results.statistics import contrasts, outcome_of
from citlr.config import TestConfig
from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.invariance.effects.auroc import clustered_auroc
from citlr.invariance.observational.published import published_cit_lr
from citlr.invariance.tables import ORIGINAL_DRAW
from citlr.predictors.base import Predictor
from citlr.predictors.loading import load_predictor
from citlr.predictors.training.classifier import train_classifier
from citlr.predictors.training.settings import TrainingSettings
from citlr.report.page import write_report
from citlr.run.files import read_json, write_json
from citlr.run.rows import Row
from citlr.run.stage import SCRATCH, Stage
from citlr.run.stages import Stages
from citlr.studies.imaging.shared import Shared, open_shared
from citlr.studies.imaging.study import ImagingStudy, read_study

Floats = npt.NDArray[np.float64]


def factual_auroc(responses: pd.DataFrame, test: Cohort, study: ImagingStudy) -> list[Row]:
    """Give the AUROC of every label on the original images of every level, and of all: Tables 2 and 3."""
    originals = responses[responses["draw"] == ORIGINAL_DRAW]
    frame, rows = test.frame, []
    for label in study.labels:
        own = originals[originals["label"] == label].set_index("image_id")["probability"]
        score = own.loc[frame["image_id"]].to_numpy(float)
        for level in ("all", *study.levels):
            here = np.ones(len(frame), bool) if level == "all" else (frame[study.attribute] == level).to_numpy()
            area = clustered_auroc(
                score[here], frame[label].to_numpy(float)[here], frame["patient_id"].to_numpy(str)[here]
            )
            rows.append({"label": label, "level": level, **vars(area)})
    return rows


def paired_change(responses: pd.DataFrame, label: str, contrast: tuple[str, str]) -> Row:
    """Test that the mean output is the same under both levels: Tables 12 and 13.

    Draws are averaged within an image and images within a patient, so that patients are the pairs of the t-test.
    """
    own = responses[(responses["draw"] >= 0) & (responses["label"] == label)]
    means = own.pivot_table(
        index=["patient_id", "image_id"], columns="level", values="probability", aggfunc="mean", observed=True
    )
    change = (means[contrast[1]] - means[contrast[0]]).groupby("patient_id").mean().to_numpy(float)
    found = {"paired_t": 0.0, "paired_p": 1.0, "paired_difference": float(change.mean())}
    if len(change) > 1 and np.ptp(change) > 0:
        test = stats.ttest_1samp(change, 0.0)
        found |= {"paired_t": float(test.statistic), "paired_p": float(test.pvalue)}
    return {**found, "paired_patients": len(change)}


def true_values(
    outcome: Mapping[str, Floats],
    decided: Mapping[str, npt.NDArray[np.bool_]],
    factual: npt.NDArray[np.str_],
    contrast: tuple[str, str],
) -> Row:
    """Give the true psi, mean effect and ECA from outputs (n,) on the true images under every level."""
    change = outcome[contrast[1]] - outcome[contrast[0]]
    levels = list(decided)
    table = np.stack([decided[level] for level in levels], axis=1)
    own = table[np.arange(len(factual)), [levels.index(level) for level in factual]]
    return {
        "true_psi": float(np.mean(change**2)),
        "true_mean_effect": float(np.mean(change)),
        "true_eca": float((table == own[:, None]).mean()),
    }


# Where a network's checkpoints lie in its folder.
TRAINED = "trained"


def train_network(
    *, seed: int, folder: str, arch: str, settings: dict[str, Any], weights: str | None, content: str
) -> Row:
    """Train one network of the study and keep its checkpoints; goes on where it was."""
    home = Path(folder) / "networks" / arch

    def work(place: Path) -> None:
        asked = {"arch": arch, "weights": weights, "seed": seed}
        write_json(place / "row.json", _train(Path(folder), place / TRAINED, settings, **asked))

    inputs = {"arch": arch, "settings": settings, "seed": seed}
    Stages(home).do(Stage("train", inputs, work, (TRAINED, "row.json"), (content,)))
    row: Row = read_json(home / "row.json")
    return row


def _train(folder: Path, place: Path, settings: dict[str, Any], **asked: Any) -> Row:
    study = read_study(folder)
    plan = network_settings(settings, len(study.cohort.part("train")))
    trained = train_classifier(study.cohort, **asked, directory=place, labels=study.labels, settings=plan, export=False)
    return {
        "arch": asked["arch"],
        "checkpoints": json.dumps([checkpoint.path.name for checkpoint in trained.checkpoints]),
        "mean_auroc": trained.checkpoints[0].mean_auroc,
        "spread": trained.spread,
        "similar": trained.similar,
        "start": trained.start.text,
        "start_kind": trained.start.kind,
        "augmented": plan.augmented,
        "notes": "\n".join(trained.notes),
    }


def network_settings(settings: dict[str, Any], images: int) -> TrainingSettings:
    """Augment the training images where each is shown more than twice, and leave them alone where it is not.

    Augmentation stands in for images that a cohort does not have. Where there are more than can be shown, it only makes
    a short training longer.

    >>> plan = {"rounds": 4, "keep": 2, "round_steps": 25, "batch_size": 32}
    >>> network_settings(plan, 4000).augmented, network_settings(plan, 650).augmented
    (False, True)
    """
    made = TrainingSettings(**settings)
    shown = made.rounds if made.round_steps is None else made.rounds * made.round_steps * made.batch_size / images
    return replace(made, augmented=shown > 2)


def audit_model(*, seed: int, folder: str, model: dict[str, Any], outcome: str, content: list[str]) -> Row:
    """Audit one model on the redrawn images that all share; done once for the same content."""
    place, name = Path(folder), model["name"]
    shared: Row = {key: model[key] for key in ("arch", "rank")} | {"model": name}

    def work(home: Path) -> None:
        common = open_shared(place)
        predictor = load_predictor(model["source"], name=name, trust=model["trust"])
        require_labels(predictor, common.study.labels, exact=model["own"])
        write_json(home / "row.json", _audit_one(predictor, common, home, shared, outcome=outcome, seed=seed))

    places = ("audit.json", "responses.parquet", "audit.html", "row.json")
    inputs = {**shared, "own": model["own"], "outcome": outcome, "seed": seed}
    Stages(place / "models" / name).do(Stage("audit", inputs, work, places, tuple(content)))
    row: Row = read_json(place / "models" / name / "row.json")
    return row


def _audit_one(predictor: Predictor, common: Shared, home: Path, shared: Row, *, outcome: str, seed: int) -> Row:
    """Audit a model, write its result, responses and page, and return its row."""
    start = time.perf_counter()
    every = predict_sets(predictor, common.counterfactuals.sets, common.counterfactuals.cohort, folder=home / SCRATCH)
    threshold = operating_points(predictor, common.study.cohort.part("validation"), common)
    truth = {level: predictor.predict(np.asarray(images)) for level, images in common.truth.items()}
    predicted = time.perf_counter()
    test = TestConfig.model_validate({"outcome": outcome, "threshold": threshold})
    inputs = {"model_sha256": predictor.fingerprint()}
    result = common.audit(predictor.name, every, test=test, seed=seed, inputs=inputs)
    responses = every[every["attribute"] == common.study.attribute]
    result.to_json(home / "audit.json")
    write_responses(home / "responses.parquet", every)
    write_report(home / "audit.html", result, responses=responses)
    rows = _with_truth(_rows(result, responses, common, test, seed), predictor, truth, common, test)
    return {
        **shared,
        "verdict": result.verdict,
        "inference_seconds": predicted - start,
        "audit_seconds": time.perf_counter() - predicted,
        "rows": json.dumps([{**shared, **one} for one in rows]),
        "aurocs": json.dumps(
            [{**shared, **one} for one in factual_auroc(responses, common.counterfactuals.cohort, common.study)]
        ),
    }


def require_labels(predictor: Predictor, labels: tuple[str, ...], *, exact: bool = False) -> None:
    """Refuse a model that does not give every label of the study, and where `exact` one that gives others as well."""
    missing = [label for label in labels if label not in predictor.labels]
    if missing:
        raise InputError(
            f"The model '{predictor.name}' gives {list(predictor.labels)}, not '{missing[0]}': the study is of "
            f"{list(labels)}; give a model of all of them, or study fewer with --label."
        )
    if exact and len(predictor.labels) != len(labels):
        raise InputError(
            f"The checkpoint '{predictor.name}' gives {len(predictor.labels)} labels {list(predictor.labels)} and the "
            f"study has {len(labels)}, {list(labels)}: it is of another training; delete its folder and train again."
        )


def operating_points(predictor: Predictor, validation: Cohort, common: Shared) -> dict[str, float]:
    """Give every label the threshold that calls as many validation images positive as are: rare findings need one.

    One half where the validation split has only one class of the label.
    """
    size = side_read(predictor.input, common.counterfactuals.main.plan.size)
    parts = np.split(np.arange(len(validation)), range(256, len(validation), 256))
    scores = np.concatenate([predictor.predict(validation.pixels(rows, size=size)) for rows in parts])
    found = {}
    for label in common.study.labels:
        truth = validation.frame[label].to_numpy(float)
        known = ~np.isnan(truth)
        share = float(truth[known].mean()) if known.any() else 0.0
        own = scores[known, predictor.labels.index(label)]
        found[label] = float(np.quantile(own, 1 - share)) if 0 < share < 1 else 0.5
    return found


def _rows(result: AuditResult, own: pd.DataFrame, common: Shared, test: TestConfig, seed: int) -> list[Row]:
    """Put the tests of one model side by side: a row per label and contrast."""
    base = {(row.method, row.label, row.contrast): row for row in result.baselines}
    rows = []
    for row in result.tests:
        parity = base["demographic_parity", row.label, row.contrast]
        within = [base[name, row.label, row.contrast] for name in ("equal_opportunity", "predictive_equality")]
        published = _published(own, common, row.label, row.contrast, test, seed)
        rows.append(
            {
                "label": row.label,
                "contrast": list(row.contrast),
                "n_images": row.n_images,
                "n_patients": row.n_patients,
                "threshold": _threshold(test, row.label),
                "verdict": row.verdict,
                "pvalue": row.pvalue,
                "log10_citlr": row.log10_pvalue,
                "log10_published": published,
                "log10_parity": float(np.log10(parity.pvalue)),
                "log10_opportunity": float(np.log10(min(1.0, 2 * min(one.pvalue for one in within)))),
                "psi": row.psi.estimate,
                "psi_low": row.psi.low,
                "psi_high": row.psi.high,
                "mean_effect": row.mean_effect.estimate,
                "eca": row.eca,
                **paired_change(own, row.label, row.contrast),
            }
        )
    return rows


def _threshold(test: TestConfig, label: str) -> float:
    assert isinstance(test.threshold, dict)  # `operating_points` names every label
    return test.threshold[label]


def _published(
    own: pd.DataFrame, common: Shared, label: str, contrast: tuple[str, str], test: TestConfig, seed: int
) -> float:
    """Run the published test on the images as they came: log10 p of (Z, A, Yhat)."""
    originals = own[(own["draw"] == ORIGINAL_DRAW) & (own["label"] == label)].set_index("image_id")
    frame = common.counterfactuals.cohort.frame
    probability = originals.loc[frame["image_id"], "probability"].to_numpy(float)
    result = published_cit_lr(
        common.representation,
        frame[common.study.attribute].to_numpy(str),
        outcome_of(probability, label, test),
        patients=frame["patient_id"].to_numpy(str),
        contrast=contrast,
        seed=seed,
    )
    return float(np.log10(result.pvalue))


def _with_truth(
    rows: list[Row], predictor: Predictor, outputs: dict[str, Floats], common: Shared, test: TestConfig
) -> list[Row]:
    """Add what the true counterfactuals say, where they are known."""
    if not outputs:
        return rows
    factual = common.counterfactuals.cohort.frame[common.study.attribute].to_numpy(str)
    truth: dict[tuple[str, tuple[str, str]], Row] = {}
    for label in common.study.labels:
        column = predictor.labels.index(label)
        own = {level: outcome_of(values[:, column], label, test) for level, values in outputs.items()}
        decided = {level: values[:, column] >= _threshold(test, label) for level, values in outputs.items()}
        for contrast in contrasts(common.study.levels):
            truth[label, contrast] = true_values(own, decided, factual, contrast)
    return [{**row, **truth[row["label"], tuple(row["contrast"])]} for row in rows]
