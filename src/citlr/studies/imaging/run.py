"""`citlr reproduce imaging`: the publication's study of ten networks, on the phantom or any cohort.

Tables 2, 3, 6, 12 and 13, Figures 3, 4, 6 and 8 to 12. One generator, one set of redrawn images, any number of models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from citlr.audit.results.result import read_result
from citlr.console import Narrator
from citlr.errors import InputError, StateError, did_you_mean
from citlr.predictors.base import Predictor
from citlr.predictors.check import check_predictor
from citlr.predictors.loading import load_predictor
from citlr.predictors.training.settings import TrainingSettings
from citlr.randomness import hashed_seed
from citlr.report.fleet import write_fleet
from citlr.run.files import digest_or_missing, fingerprint, write_json
from citlr.run.stages import Stages
from citlr.studies.imaging.models import TRAINED, audit_model, require_labels, train_network
from citlr.studies.imaging.page import Found, write_pages
from citlr.studies.imaging.stage import audited_after, set_stage
from citlr.studies.imaging.study import (
    PHANTOM,
    PRESETS,
    ImagingEffort,
    ImagingStudy,
    changed,
    phantom_imaging,
    read_imaging,
)
from citlr.studies.imaging.tables import agreement
from citlr.studies.kit.engines import check_engine
from citlr.studies.kit.sweep import SweepTask, run_sweep, sweep_key

Row = dict[str, Any]


def run_imaging(
    *,
    out: str | Path,
    cohort: str = PHANTOM,
    attribute: str | None = None,
    preset: str = "smoke",
    labels: Sequence[str] = (),
    hold: Sequence[str] | None = None,
    correlation: float = 0.8,
    models: Sequence[str] = (),
    trust: bool = False,
    weights: str | None = "auto",
    outcome: str = "decision",
    changes: dict[str, Any] | None = None,
    engine: str = "loky",
    workers: int = 1,
    scheduler: str | None = None,
    seed: int = 0,
    narrator: Narrator | None = None,
) -> dict[str, Any]:
    """Train the networks, redraw the test images once, audit every checkpoint, and write tables, figures and page."""
    if preset not in PRESETS:
        raise InputError(f"There is no preset '{preset}'.{did_you_mean(preset, PRESETS)}")
    if outcome not in ("decision", "probability"):
        raise InputError(f"outcome is '{outcome}'; it can be decision or probability.")
    check_engine(engine, workers=workers, scheduler=scheduler)
    extras = _extras(models)
    effort = changed(PRESETS[preset], {**(changes or {}), **_findings(cohort, labels)})
    TrainingSettings(**_settings(effort))  # refused now rather than after the generator
    narrator, folder = narrator or Narrator(quiet=True), Path(out).absolute()
    predictors = [load_predictor(source, name=name, trust=trust) for name, source in extras.items()]
    content = {predictor.name: predictor.fingerprint() for predictor in predictors}
    folder.mkdir(parents=True, exist_ok=True)
    study = _study(cohort, effort, folder, attribute, labels, hold, correlation, seed, narrator)
    while predictors:  # every task loads its own again
        _check_extra(predictors.pop(), study, effort.size, narrator)
    narrator.say(
        f"{study.name}: {len(study.cohort)} images, {len(effort.networks)} networks, {effort.keep} checkpoints"
    )
    set_stage(study, effort, folder, seed=seed, narrator=narrator)
    power: dict[str, Any] = {"engine": engine, "workers": workers, "scheduler": scheduler, "narrator": narrator}
    trained, lost = _train(effort, folder, weights, seed, power)
    audited, failed = _audit(trained, extras, content, folder, trust, outcome, seed, power)
    if not audited:
        first = (lost + failed)[0]
        raise StateError(f"No model could be audited; the first that failed, {first['task']}: {first['error']}")
    return _publish(study, effort, folder, trained, audited, lost + failed, seed)


def _check_extra(predictor: Predictor, study: ImagingStudy, size: int, narrator: Narrator) -> None:
    """Refuse a model that could not be audited before anything long starts."""
    require_labels(predictor, study.labels)
    images = study.cohort.part("test").pixels(np.arange(min(4, len(study.cohort.part("test")))), size=size)
    for note in check_predictor(predictor, images).notes:
        narrator.say(note)


def _findings(cohort: str, labels: Sequence[str]) -> dict[str, Any]:
    return {"findings": tuple(labels)} if cohort == PHANTOM and labels else {}


def _extras(models: Sequence[str]) -> dict[str, str]:
    """Split "NAME=SOURCE"; a bare file is called by its stem."""
    found: dict[str, str] = {}
    for text in models:
        name, _, source = text.partition("=") if "=" in text else (Path(text).stem, "=", text)
        if not re.fullmatch(r"[\w.-]+", name) or not source:
            raise InputError(f"--model '{text}' is not NAME=SOURCE with a name of letters, digits, '.', '_' and '-'.")
        if name in found:
            raise InputError(f"Two models are called '{name}': write NAME=SOURCE with different names.")
        path = Path(source)
        found[name] = str(path.absolute()) if path.exists() else source
    return found


def _study(
    cohort: str,
    effort: ImagingEffort,
    folder: Path,
    attribute: str | None,
    labels: Sequence[str],
    hold: Sequence[str] | None,
    correlation: float,
    seed: int,
    narrator: Narrator,
) -> ImagingStudy:
    if cohort != PHANTOM:
        return read_imaging(
            Path(cohort), effort, attribute=attribute, labels=labels, hold=hold, seed=seed, narrator=narrator
        )
    if attribute not in (None, "sex"):
        raise InputError(f"The phantom has no attribute '{attribute}'; its only one is sex.")
    if hold is not None:
        raise InputError("What the phantom's generator holds is given (the findings and the view); leave --hold out.")
    return phantom_imaging(effort, folder, correlation=correlation, seed=seed)


def _settings(effort: ImagingEffort) -> dict[str, Any]:
    names = ("size", "rounds", "round_steps", "batch_size", "keep", "schedule")
    return {name: getattr(effort, name) for name in names}


def _train(
    effort: ImagingEffort, folder: Path, weights: str | None, seed: int, power: dict[str, Any]
) -> tuple[list[Row], list[Row]]:
    settings = _settings(effort)
    content = fingerprint([audited_after(folder)[0], None if weights is None else digest_or_missing(weights)])
    tasks = [
        SweepTask(
            arch,
            seed=hashed_seed("imaging network", seed, arch) % 2**31,
            arguments={
                "folder": str(folder),
                "arch": arch,
                "settings": settings,
                "weights": weights,
                "content": content,
            },
        )
        for arch in effort.networks
    ]
    sweep = run_sweep(train_network, tasks, _file(folder, "train", train_network, tasks), retry=True, **power)
    trained = []
    for row in _records(sweep.done):
        checkpoints = json.loads(row.pop("checkpoints"))
        trained.append({**row, "checkpoints": checkpoints, "kept": len(checkpoints)})
    return trained, _records(sweep.failed[["task", "error"]])


def _audit(
    trained: list[Row],
    extras: dict[str, str],
    content: dict[str, str],
    folder: Path,
    trust: bool,
    outcome: str,
    seed: int,
    power: dict[str, Any],
) -> tuple[list[Row], list[Row]]:
    planned = [
        (
            f"{row['arch']}-{rank}",
            row["arch"],
            rank,
            str(folder / "networks" / row["arch"] / TRAINED / file),
            True,
            False,
        )
        for row in trained
        for rank, file in enumerate(row["checkpoints"], 1)
    ]
    planned += [(name, name, 1, source, False, trust) for name, source in extras.items()]
    keys = ("name", "arch", "rank", "source", "own", "trust")
    models = [dict(zip(keys, one, strict=True)) for one in planned]
    after = audited_after(folder)
    tasks = [
        SweepTask(
            model["name"],
            seed=seed,
            arguments={
                "folder": str(folder),
                "outcome": outcome,
                "model": model,
                "content": [content.get(model["name"]) or digest_or_missing(str(model["source"])), *after],
            },
        )
        for model in models
    ]
    if not tasks:
        return [], []
    sweep = run_sweep(audit_model, tasks, _file(folder, "audit", audit_model, tasks), retry=True, **power)
    return _records(sweep.done), _records(sweep.failed[["task", "error"]])


def _records(frame: pd.DataFrame) -> list[Row]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _file(folder: Path, name: str, function: Any, tasks: Sequence[SweepTask]) -> Path:
    """Name the rows by the tasks, so that one more model is another sweep; what is done is found by the tasks."""
    return folder / "sweeps" / f"{name}-{sweep_key(function, tasks)[:12]}.parquet"


def _publish(
    study: ImagingStudy,
    effort: ImagingEffort,
    folder: Path,
    trained: list[Row],
    audited: list[Row],
    failed: list[Row],
    seed: int,
) -> dict[str, Any]:
    rows = [one for row in audited for one in json.loads(row["rows"])]
    aurocs = [one for row in audited for one in json.loads(row["aurocs"])]
    models = [{key: value for key, value in row.items() if key not in ("rows", "aurocs")} for row in audited]
    shared = {
        "generator, trained once": Stages(folder).require("fit", "run the study again").seconds,
        "test images, redrawn once": Stages(folder).require("generate", "run the study again").seconds,
    }
    found = Found(trained, failed, models, rows, aurocs, shared, agreement(rows))
    results = {row["model"]: read_result(folder / "models" / row["model"] / "audit.json") for row in models}
    write_fleet(folder / "audit.html", results, {name: f"models/{name}/audit.html" for name in results})
    notes = _notes(study, found, results[models[0]["model"]].quality.gates)
    write_pages(study, found, folder, notes=notes)
    content = {
        "study": {key: getattr(study, key) for key in ("name", "attribute", "levels", "labels", "hold")},
        "seed": seed,
        "effort": asdict(effort),
        "notes": notes,
        "networks": trained,
        "models": models,
        "failed": failed,
        "shared": shared,
        "agreement": found.agreement,
        "rows": rows,
        "aurocs": aurocs,
    }
    write_json(folder / "imaging.json", content)
    return content


def _notes(study: ImagingStudy, found: Found, gates: Sequence[Any]) -> list[str]:
    """Say what a reader of the tables has to know first."""
    notes = []
    whole = {row["test"]: row for row in found.agreement if row["finding"] == "all" and row["target"] == "true_psi"}
    if whole:
        words = {"log10_citlr": "this project's test", "log10_published": "CIT-LR as published"}
        words |= {"log10_parity": "demographic parity", "log10_opportunity": "equality of opportunity"}
        said = [
            f"{words[test]} {'no variation' if row['spearman'] is None else format(row['spearman'], '+.2f')}"
            for test, row in whole.items()
        ]
        notes.append(
            f"Spearman correlation of -log10 p with the true psi over {whole['log10_citlr']['models']} rows: "
            f"{', '.join(said)}."
        )
    missed = [gate.text for gate in gates if not gate.passed and gate.name != "placebo"]
    notes += [f"The generator misses a gate, so no verdict is given: {text}" for text in missed]
    random = sorted(row["arch"] for row in found.trained if row["start_kind"] == "random")
    if random:
        notes.append(
            f"Trained from random first weights, not from ImageNet's: {', '.join(random)}. "
            "torchvision's weights are used where its cache has them, or --weights names a file."
        )
    starts = {row["start"] for row in found.trained}
    notes += sorted({line for row in found.trained for line in row["notes"].splitlines() if line not in starts})
    notes += [f"Failed: {row['task']}: {row['error']}" for row in found.failed]
    notes += list(study.notes)
    notes.append(
        "Tests are of decisions or probabilities of one classifier on one cohort. Demographic parity and equality of "
        "opportunity are associations: where finding and attribute go together, an innocent model fails them."
    )
    return notes
