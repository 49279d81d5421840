"""`citlr reproduce generation`: the publication's Tables 6 to 11, Figures 13 and 14, on the phantom or any cohort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from citlr.console import Narrator
from citlr.errors import InputError, did_you_mean
from citlr.generators.probes.training import ProbeSettings, fit_probes
from citlr.generators.quality.features import load_extractor
from citlr.run.files import atomic_write, claim, fingerprint, read_json, write_json
from citlr.studies.generation.figures import picture_grid, write_grid
from citlr.studies.generation.measure import Bench, Row, measure_entrant, probe_rows
from citlr.studies.generation.study import PRESETS, Effort, Entrant, Study, cohort_study, entrants, phantom_study
from citlr.studies.generation.tables import Sheet, gate_lines, study_sheets

PHANTOM = "phantom"


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
    narrator: Narrator | None = None,
) -> dict[str, Any]:
    """Train every model, measure it by one protocol, and write tables, page and picture grid."""
    if preset not in PRESETS:
        raise InputError(f"There is no preset '{preset}'.{did_you_mean(preset, PRESETS)}")
    effort = _changed(PRESETS[preset], changes or {})
    extractor = load_extractor(features)
    narrator, folder = narrator or Narrator(quiet=True), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    study = _study(cohort, effort, folder, attribute, hold, correlation, seed, narrator)
    chosen = entrants(study, tuple(models))
    key = fingerprint({"study": study.key(), "effort": _plain(effort), "features": features, "seed": seed})
    claim(folder, key, "another comparison (other images, cohort, preset, seed, features or version of citlr)")
    narrator.say(f"{study.name}: {len(study.train)} training images, {len(chosen)} models, {effort.seeds} seeds")
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
        directory=folder / "probe",
        narrator=narrator,
    )
    bench = Bench.of(study, effort, probes, extractor, folder, narrator)
    probe = probe_rows(bench)
    for turn in range(effort.seeds):
        for entrant in chosen:
            # Equations have no training, and one row.
            if entrant.kind != "oracle" or turn == 0:
                measure_entrant(bench, entrant, seed + turn)
    every = [(entrant, _finished(folder, entrant)) for entrant in entrants(study)]
    shown = tuple(entrant for entrant, _ in every if (folder / "rows" / f"{entrant.slug}-{seed}.json").is_file())
    return _write(bench, shown, [row for _, found in every for row in found], probe, seed)


def _finished(folder: Path, entrant: Entrant) -> list[Row]:
    """Read the rows of a model's trainings, by seed."""
    numbers = {file.stem.removeprefix(f"{entrant.slug}-"): file for file in (folder / "rows").glob("*.json")}
    own = sorted((int(number), file) for number, file in numbers.items() if number.isdigit())
    return [read_json(file) for _, file in own]


def _changed(effort: Effort, changes: dict[str, Any]) -> Effort:
    wanted = {name: value for name, value in changes.items() if value is not None}
    for name, value in wanted.items():
        if isinstance(value, int) and value < 1:
            raise InputError(f"{name}={value} is not a number of 1 or more.")
    return replace(effort, **wanted)


def _plain(effort: Effort) -> dict[str, Any]:
    """Give what the rows depend on: one more seed adds rows and changes none."""
    return {name: value for name, value in asdict(effort).items() if name != "seeds"}


def _study(
    cohort: str,
    effort: Effort,
    folder: Path,
    attribute: str | None,
    hold: Sequence[str] | None,
    correlation: float,
    seed: int,
    narrator: Narrator,
) -> Study:
    if cohort != PHANTOM:
        held = None if hold is None else tuple(hold)
        return cohort_study(Path(cohort), attribute=attribute, hold=held, seed=seed, narrator=narrator)
    if attribute is not None or hold is not None:
        raise InputError(
            "The phantom's attribute and held covariates are given; --attribute and --hold are of cohorts."
        )
    return phantom_study(effort, folder, correlation=correlation, seed=seed)


def _write(bench: Bench, chosen: Sequence[Entrant], rows: list[Row], probe: list[Row], seed: int) -> dict[str, Any]:
    study, folder = bench.study, bench.folder
    sheets = study_sheets(rows, probe, levels=study.levels, attribute=study.attribute)
    (folder / "tables").mkdir(exist_ok=True)
    for one in sheets:
        one.write(folder / "tables")
    write_grid(picture_grid(bench, chosen, seed=seed), folder / "pictures.png")
    content = {
        "study": {
            "name": study.name,
            "attribute": study.attribute,
            "levels": list(study.levels),
            "hold": list(study.hold),
            "train_images": len(study.train),
            "test_images": len(bench.test),
        },
        "effort": asdict(bench.effort),
        "probe": probe,
        "rows": rows,
    }
    write_json(folder / "generation.json", content)
    with atomic_write(folder / "generation.md") as temporary:
        temporary.write_text(_page(bench, rows, sheets), encoding="utf-8")
    return content


def _trainings(rows: Sequence[Row]) -> str:
    """Say how often the models were trained: one number, or each model's.

    Examples
    --------
    >>> _trainings([{"model": "CLDM"}, {"model": "DLDM"}, {"model": "DLDM"}])
    'CLDM 1, DLDM 2'
    """
    counts = Counter(row["model"] for row in rows)
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values()))} of every model"
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _page(bench: Bench, rows: Sequence[Row], sheets: Sequence[Sheet]) -> str:
    study, effort = bench.study, bench.effort
    notes = sorted({note for row in rows for note in row["notes"]})
    lines = [
        f"# Generators on {study.name}",
        "",
        f"{len(study.train)} training images, {len(bench.test)} test images of {effort.size} x {effort.size} pixels, "
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
    lines += ["![test images redrawn by every model](pictures.png)", ""]
    return "\n".join(lines)
