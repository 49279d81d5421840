"""`citlr reproduce generation`: the publication's Tables 6 to 11, Figures 13 and 14, on the phantom or any cohort."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from citlr.config.kinds import GENERATORS
from citlr.console import Narrator
from citlr.errors import InputError, StateError, require_known
from citlr.generators.probes.probe import load_probes
from citlr.generators.probes.training import ProbeSettings, fit_probes
from citlr.generators.quality.features import load_extractor
from citlr.generators.registry import build_generator
from citlr.run.engines import Engine
from citlr.run.files import write_json
from citlr.run.rows import Row
from citlr.run.stage import SCRATCH, Stage
from citlr.run.stages import Stages
from citlr.studies.generation.measure import Measures, finished_rows, measure_entrant, probe_rows
from citlr.studies.generation.study import PRESETS, Effort, Entrant, Study, cohort_study, entrants, phantom_study
from citlr.studies.generation.tables import gate_lines, picture_grid, study_sheets
from citlr.studies.kit.cohorts import PHANTOM, Source
from citlr.studies.kit.page import Sheet, save_figure, write_page


def run_generation(
    *,
    out: str | Path,
    preset: str = "full",
    cohort: str = PHANTOM,
    attribute: str | None = None,
    hold: Sequence[str] | None = None,
    correlation: float = 0.8,
    features: str = "probe",
    models: Sequence[str] = (),
    changes: dict[str, Any] | None = None,
    seed: int = 0,
    engine: Engine | None = None,
    narrator: Narrator | None = None,
) -> dict[str, Any]:
    """Train every model, measure it by one protocol, and write tables, page and picture grid."""
    require_known(preset, PRESETS, f"There is no preset '{preset}'")
    effort = _changed(PRESETS[preset], changes or {})
    for kind in GENERATORS:  # refused now rather than after the images and the probe
        build_generator(kind, size=effort.size, preset=effort.preset, **effort.steps.get(kind, {}))
    extractor = load_extractor(features)
    stages = Stages(Path(out).absolute(), narrator)
    with stages.locked():
        source = Source(cohort, attribute, (), None if hold is None else tuple(hold), correlation, seed)
        study = _study(source, effort, stages)
        chosen = entrants(study, tuple(models))
        probe = _probe_stage(study, effort, features, seed, stages.narrator)
        before = stages.record(probe.name)
        if before is not None and before.stage_key != probe.key:
            other = "another comparison (other images, cohort, preset, seed, features or version of citlr)"
            raise StateError(f"{stages.root} holds {other}: give another folder.")
        stages.narrator.say(
            f"{study.name}: {len(study.train)} training images, {len(chosen)} models, {effort.seeds} seeds"
        )
        key = stages.do(probe).key
        measured = Measures.of(study, effort, load_probes(stages.path("probe")), extractor, stages, key)
        # Equations have no training, and one row.
        rows = [
            (entrant, seed + turn)
            for turn in range(effort.seeds)
            for entrant in chosen
            if entrant.kind != "oracle" or turn == 0
        ]
        for _ in (engine or Engine()).each(_measure, measured, rows, narrator=stages.narrator):
            pass
        return _write(measured, seed)


def _measure(measures: Measures, row: tuple[Entrant, int]) -> None:
    measure_entrant(measures, *row)


def _probe_stage(study: Study, effort: Effort, features: str, seed: int, narrator: Narrator) -> Stage:
    """Return the stage that trains what reads redrawn images; its inputs are those of every row."""

    def work(folder: Path) -> None:
        probes = fit_probes(
            *study.probe_splits,
            ProbeSettings(
                (study.attribute,),
                effort.size,
                labels=study.watched,
                steps=effort.probe_steps,
                batch_size=32,
                architecture=effort.probe,
                # In the phantom's own sample for the probe nothing goes with the attribute.
                within_levels=study.sample is None,
            ),
            seed=seed,
            directory=folder / SCRATCH,
            narrator=narrator,
        )
        probes.save(folder / "probe")

    # One more seed adds rows and changes none.
    plain = {name: value for name, value in asdict(effort).items() if name != "seeds"}
    inputs = {"study": study.fingerprint(), "effort": plain, "features": features, "seed": seed}
    return Stage("probe", inputs, work, ("probe",))


def _changed(effort: Effort, changes: dict[str, Any]) -> Effort:
    wanted = {name: value for name, value in changes.items() if value is not None}
    for name, value in wanted.items():
        if isinstance(value, int) and value < 1:
            raise InputError(f"{name}={value} is not a number of 1 or more.")
    return replace(effort, **wanted)


def _study(source: Source, effort: Effort, stages: Stages) -> Study:
    if source.cohort != PHANTOM:
        return cohort_study(source, stages.narrator)
    if source.attribute is not None or source.hold is not None:
        raise InputError(
            "The phantom's attribute and held covariates are given; --attribute and --hold are of cohorts."
        )
    return phantom_study(source, effort, stages)


def _write(measures: Measures, seed: int) -> dict[str, Any]:
    """Write tables, page and grid of all that the folder holds."""
    study, folder = measures.study, measures.stages.root
    finished = [(entrant, finished_rows(measures, entrant)) for entrant in entrants(study)]
    rows, probe = [row for _, found in finished for row in found], probe_rows(measures)
    shown = [entrant for entrant, found in finished if any(row["seed"] == seed for row in found)]
    sheets = study_sheets(rows, probe, levels=study.levels, attribute=study.attribute)
    for one in sheets:
        one.write(folder / "tables")
    save_figure(picture_grid(measures, shown, seed=seed), folder / "pictures.png")
    content = {
        "study": {
            "name": study.name,
            "attribute": study.attribute,
            "levels": list(study.levels),
            "hold": list(study.hold),
            "train_images": len(study.train),
            "test_images": len(measures.test),
        },
        "effort": asdict(measures.effort),
        "probe": probe,
        "rows": rows,
    }
    write_json(folder / "generation.json", content)
    write_page(folder / "generation.md", _page(measures, rows, sheets))
    return content


def _trainings(rows: Sequence[Row]) -> str:
    """Say how often the models were trained: one number, or each model's.

    >>> _trainings([{"model": "CLDM"}, {"model": "DLDM"}, {"model": "DLDM"}])
    'CLDM 1, DLDM 2'
    """
    counts = Counter(row["model"] for row in rows)
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values()))} of every model"
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _page(measures: Measures, rows: Sequence[Row], sheets: Sequence[Sheet]) -> list[str]:
    study, effort, tested = measures.study, measures.effort, len(measures.test)
    notes = sorted({note for row in rows for note in row["notes"]})
    lines = [
        f"# Generators on {study.name}",
        "",
        f"{len(study.train)} training images, {tested} test images of {effort.size} x {effort.size} pixels, "
        f"{effort.draws} draws, preset '{effort.preset}', trainings: {_trainings(rows)} (mean ± standard deviation "
        "over several). "
        f"Held: {', '.join(study.hold) or 'nothing'}. The probe ({effort.probe}) had no part in any generator's "
        "training.",
        "",
    ]
    for one in sheets:
        lines += [one.markdown(), ""]
    lines += ["**Gates of an audit, at their default limits (the coin's audit needs a model and is left out)**", ""]
    lines += [*gate_lines(rows), ""]
    if notes:
        lines += ["**Not known, and why**", "", *(f"- {note}" for note in notes), ""]
    return [*lines, "![test images redrawn by every model](pictures.png)"]
