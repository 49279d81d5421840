"""`citlr reproduce imaging`: the publication's study of ten networks, on the phantom or any cohort.

Tables 2, 3, 6, 12 and 13, Figures 3, 4, 6 and 8 to 12. One generator, one set of redrawn images, any number of models.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from citlr.audit.gates.images import ASK_FOR_A_CURVE
from citlr.audit.results.result import read_result
from citlr.console import QUIET, Narrator
from citlr.errors import InputError, StateError, require_known
from citlr.generators.registry import build_generator
from citlr.predictors.base import Predictor
from citlr.predictors.check import check_predictor
from citlr.predictors.loading import load_predictor
from citlr.predictors.training.settings import TrainingSettings
from citlr.randomness import hashed_seed
from citlr.report.publish import write_fleet
from citlr.run.engines import Engine
from citlr.run.files import digest_or_missing, fingerprint, write_json
from citlr.run.rows import Row
from citlr.run.stages import Stages
from citlr.studies.imaging.models import TRAINED, audit_model, require_labels, train_network
from citlr.studies.imaging.page import Results, write_pages
from citlr.studies.imaging.shared import audited_after, prepare
from citlr.studies.imaging.study import PRESETS, ImagingEffort, ImagingStudy, changed, phantom_imaging, read_imaging
from citlr.studies.imaging.tables import agreement
from citlr.studies.kit.cohorts import PHANTOM, Source
from citlr.studies.kit.sweep import Sweep, SweepTask, run_sweep


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
    engine: Engine | None = None,
    seed: int = 0,
    narrator: Narrator | None = None,
) -> dict[str, Any]:
    """Train the networks, redraw the test images once, audit every checkpoint, and write tables, figures and page."""
    require_known(preset, PRESETS, f"There is no preset '{preset}'")
    if outcome not in ("decision", "probability"):
        raise InputError(f"outcome is '{outcome}'; it can be decision or probability.")
    extras = _extras(models)
    held = None if hold is None else tuple(hold)
    source = Source(cohort, attribute, tuple(labels), held, correlation, seed)
    findings = {"findings": source.labels if cohort == PHANTOM else ()}
    effort = changed(PRESETS[preset], {**findings, **(changes or {})})
    TrainingSettings(**_settings(effort))  # refused now rather than after the generator, and that before the images
    build_generator(effort.kind, size=effort.size, preset=effort.generator, **effort.options)
    narrator, folder = narrator or QUIET, Path(out).absolute()
    predictors = [load_predictor(path, name=name, trust=trust) for name, path in extras.items()]
    content = {predictor.name: predictor.fingerprint() for predictor in predictors}
    study = _study(source, effort, Stages(folder, narrator))
    while predictors:  # every task loads its own again
        _check_extra(predictors.pop(), study, effort.size, narrator)
    narrator.say(
        f"{study.name}: {len(study.cohort)} images, {len(effort.networks)} networks, {effort.keep} checkpoints"
    )
    prepare(study, effort, folder, seed=seed, narrator=narrator)

    # The tasks are stages of folders of their own and know themselves what is done.
    power: dict[str, Any] = {"engine": engine, "narrator": narrator}
    trained, untrained = _records(
        run_sweep(train_network, _trainings(effort, folder, weights, seed), title="train", **power)
    )
    for row in trained:
        row["checkpoints"] = json.loads(row["checkpoints"])
        row["kept"] = len(row["checkpoints"])
    planned = [*_checkpoints(trained, folder), *_outside(extras, content, trust)]
    audits = _audits(planned, folder, outcome, seed)
    audited, failed = _records(run_sweep(audit_model, audits, title="audit", **power)) if audits else ([], [])
    if not audited:
        first = (untrained + failed)[0]
        raise StateError(f"No model could be audited; the first that failed, {first['task']}: {first['error']}")
    return _publish(study, effort, folder, (trained, audited, untrained + failed), seed)


def _check_extra(predictor: Predictor, study: ImagingStudy, size: int, narrator: Narrator) -> None:
    """Refuse a model that could not be audited before anything long starts."""
    require_labels(predictor, study.labels)
    images = study.cohort.part("test").pixels(np.arange(min(4, len(study.cohort.part("test")))), size=size)
    for note in check_predictor(predictor, images).notes:
        narrator.say(note)


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


def _study(source: Source, effort: ImagingEffort, stages: Stages) -> ImagingStudy:
    if source.cohort != PHANTOM:
        return read_imaging(source, effort, stages.narrator)
    if source.attribute not in (None, "sex"):
        raise InputError(f"The phantom has no attribute '{source.attribute}'; its only one is sex.")
    if source.hold is not None:
        raise InputError("What the phantom's generator holds is given (the findings and the view); leave --hold out.")
    with stages.locked():
        return phantom_imaging(source, effort, stages)


def _settings(effort: ImagingEffort) -> dict[str, Any]:
    names = ("size", "rounds", "round_steps", "batch_size", "keep", "schedule")
    return {name: getattr(effort, name) for name in names}


def _trainings(effort: ImagingEffort, folder: Path, weights: str | None, seed: int) -> list[SweepTask]:
    content = fingerprint([audited_after(folder)[0], None if weights is None else digest_or_missing(weights)])
    common = {"folder": str(folder), "settings": _settings(effort), "weights": weights, "content": content}
    return [
        SweepTask(arch, hashed_seed("imaging network", seed, arch) % 2**31, {"arch": arch, **common})
        for arch in effort.networks
    ]


def _checkpoints(trained: list[Row], folder: Path) -> Iterator[tuple[Row, str]]:
    """List the models of the study's own, with their content."""
    for row in trained:
        for rank, file in enumerate(row["checkpoints"], 1):
            source = str(folder / "networks" / row["arch"] / TRAINED / file)
            model = {"name": f"{row['arch']}-{rank}", "arch": row["arch"], "rank": rank, "source": source}
            yield {**model, "own": True, "trust": False}, digest_or_missing(source)


def _outside(extras: dict[str, str], content: dict[str, str], trust: bool) -> Iterator[tuple[Row, str]]:
    """List the models that were given, with their content."""
    for name, source in extras.items():
        model = {"name": name, "arch": name, "rank": 1, "source": source}
        yield {**model, "own": False, "trust": trust}, content[name]


def _audits(models: list[tuple[Row, str]], folder: Path, outcome: str, seed: int) -> list[SweepTask]:
    common, after = {"folder": str(folder), "outcome": outcome}, audited_after(folder)
    return [
        SweepTask(model["name"], seed, {"model": model, "content": [content, *after], **common})
        for model, content in models
    ]


def _records(sweep: Sweep) -> tuple[list[Row], list[Row]]:
    """Give the rows of the tasks that were done, and task and error of the others."""
    frames = sweep.done, sweep.failed[["task", "error"]]
    done, failed = ([{str(k): v for k, v in row.items()} for row in frame.to_dict("records")] for frame in frames)
    return done, failed


def _publish(
    study: ImagingStudy, effort: ImagingEffort, folder: Path, done: tuple[list[Row], list[Row], list[Row]], seed: int
) -> dict[str, Any]:
    """Write tables, figures and pages of the networks that were trained, audited, and of the tasks that failed."""
    trained, audited, failed = done
    rows = [one for row in audited for one in json.loads(row["rows"])]
    aurocs = [one for row in audited for one in json.loads(row["aurocs"])]
    models = [{key: value for key, value in row.items() if key not in ("rows", "aurocs")} for row in audited]
    shared = {
        "generator, trained once": Stages(folder).require("fit", "run the study again").seconds,
        "test images, redrawn once": Stages(folder).require("generate", "run the study again").seconds,
    }
    results = Results(trained, failed, models, rows, aurocs, shared, agreement(rows))
    audits = {row["model"]: read_result(folder / "models" / row["model"] / "audit.json") for row in models}
    write_fleet(folder / "audit.html", audits, {name: f"models/{name}/audit.html" for name in audits})
    notes = _notes(study, results, audits[models[0]["model"]].quality.gates)
    write_pages(study, results, folder, kind=effort.kind, notes=notes)
    content = {
        "study": {key: getattr(study, key) for key in ("name", "attribute", "levels", "labels", "hold")},
        "seed": seed,
        "effort": asdict(effort),
        "notes": notes,
        "networks": trained,
        "models": models,
        "failed": failed,
        "shared": shared,
        "agreement": results.agreement,
        "rows": rows,
        "aurocs": aurocs,
    }
    write_json(folder / "imaging.json", content)
    return content


def _notes(study: ImagingStudy, results: Results, gates: Sequence[Any]) -> list[str]:
    """Say what a reader of the tables has to know first."""
    notes = []
    whole = {row["test"]: row for row in results.agreement if row["finding"] == "all" and row["target"] == "true_psi"}
    if whole:
        words = {"log10_citlr": "this project's test", "log10_published": "CIT-LR as published"}
        words |= {"log10_parity": "demographic parity", "log10_opportunity": "equality of opportunity, both outcomes"}
        said = [
            f"{words[test]} {'no variation' if row['spearman'] is None else format(row['spearman'], '+.2f')}"
            for test, row in whole.items()
        ]
        notes.append(
            f"Spearman correlation of -log10 p with the true psi over {whole['log10_citlr']['models']} rows: "
            f"{', '.join(said)}."
        )
    # Those of all models: the gates of a model, or of a verdict of its, are on its own page.
    shared = (gate for gate in gates if gate.about == "generator" and gate.label is None and gate.name != "placebo")
    missed = [gate.text for gate in shared if gate.passed is False]
    notes += [f"The generator misses a gate, so no verdict is given: {_by_options(text, study)}" for text in missed]
    random = sorted(row["arch"] for row in results.trained if row["start_kind"] == "random")
    if random:
        notes.append(
            f"Trained from random first weights, not from ImageNet's: {', '.join(random)}. "
            "torchvision's weights are used where its cache has them, or --weights names a file."
        )
    starts = {row["start"] for row in results.trained}
    notes += sorted({line for row in results.trained for line in row["notes"].splitlines() if line not in starts})
    notes += [f"Failed: {row['task']}: {row['error']}" for row in results.failed]
    notes += list(study.notes)
    notes.append(
        "Tests are of decisions or probabilities of one classifier on one cohort. Demographic parity and equality of "
        "opportunity are associations: where finding and attribute go together, an innocent model fails them."
    )
    return notes


def _by_options(text: str, study: ImagingStudy) -> str:
    """Ask for a learning curve as this verb takes it, where an audit's settings would."""
    if ASK_FOR_A_CURVE not in text:
        return text
    whole = len(study.cohort.part("train"))
    asked = " ".join(f"--learn {max(1, round(share * whole))}" for share in (0.25, 0.5))
    return text.replace(ASK_FOR_A_CURVE, f"How many training images would do is foretold with {asked}.")
