"""One model, one seed: train it, redraw the test images, and measure all that the tables show."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_auc_score

from citlr.audit.gates.evidence import Evidence
from citlr.audit.gates.faithfulness import Faithfulness, carried_by
from citlr.audit.gates.registry import gates_of
from citlr.audit.results.records import Quality
from citlr.config import GateConfig
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.generators.base import CounterfactualGenerator, Images
from citlr.generators.diffusion.ldm import LatentDiffusion
from citlr.generators.oracle import Oracle
from citlr.generators.probes.probe import Probes
from citlr.generators.published.inversion import round_trip
from citlr.generators.published.leakage import measure_leakage
from citlr.generators.quality.cycles import cycle_composition, there_and_back
from citlr.generators.quality.features import Extractor
from citlr.generators.quality.measures import effect_map
from citlr.generators.quality.meter import QualityMeter, QualityReport
from citlr.generators.registry import build_generator
from citlr.learning.resume import seconds_spent
from citlr.randomness import COIN, PLACEBO
from citlr.run.files import atomic_write, read_json, write_json
from citlr.studies.generation.study import Effort, Entrant, Study

# Images for what needs many draws each, and pictures that are kept for the grid.
FEW, PICTURES = 40, 4
Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What every model is measured with: the study, the probe, the features, and how much of everything."""

    study: Study
    effort: Effort
    probes: Probes
    extractor: Extractor | None
    test: Cohort
    images: Images
    folder: Path
    narrator: Narrator

    @classmethod
    def of(
        cls,
        study: Study,
        effort: Effort,
        probes: Probes,
        extractor: Extractor | None,
        folder: Path,
        narrator: Narrator,
    ) -> Bench:
        """Choose the test images: evenly over the split."""
        rows = np.unique(np.linspace(0, len(study.test) - 1, min(effort.images, len(study.test))).astype(int))
        test = study.test.take(rows)
        return cls(study, effort, probes, extractor, test, test.pixels(size=effort.size), folder, narrator)


def measure_entrant(bench: Bench, entrant: Entrant, seed: int) -> Row:
    """Train and measure, or find it done: a finished row is never computed again."""
    file = bench.folder / "rows" / f"{entrant.slug}-{seed}.json"
    if file.is_file():
        found: Row = read_json(file)
        return found
    bench.narrator.say(f"{entrant.name}, seed {seed}")
    generator, seconds = _trained(bench, entrant, seed)
    row = {"model": entrant.name, "kind": entrant.kind, "seed": seed, "fit_seconds": seconds}
    row |= _measured(bench, generator, entrant, seed)
    write_json(file, row)
    return row


def probe_rows(bench: Bench) -> list[Row]:
    """Read the original test images with the probe: the publication's Table 6, accuracy and AUROC per level."""
    study, probes = bench.study, bench.probes
    rows = []
    for name in (study.attribute, *study.watched):
        target = probes.target(name)
        code = target.code(bench.test.frame[name])
        given = code >= 0
        read = probes.read(bench.images[given])[name]
        for k, level in enumerate(target.levels):
            own = code[given] == k
            both = 0 < own.sum() < len(own)
            rows.append(
                {
                    "target": name,
                    "level": level,
                    "images": int(own.sum()),
                    "accuracy": float((read[own].argmax(axis=1) == k).mean()) if own.any() else None,
                    "auroc": float(roc_auc_score(own, read[:, k])) if both else None,
                    "trusted": bool(probes.trusted[name]),
                }
            )
    return rows


def _trained(bench: Bench, entrant: Entrant, seed: int) -> tuple[CounterfactualGenerator, float]:
    """Fit a model in its own folder; seconds are of the processor, in all sessions that trained it."""
    study, effort = bench.study, bench.effort
    if entrant.kind == "oracle":
        assert study.sample is not None  # It enters only where there is one.
        return Oracle.of(study.sample), 0.0
    options = {"preset": effort.preset, **effort.steps.get(entrant.kind, {}), **entrant.options}
    hold = study.hold if entrant.held else ()
    model = build_generator(entrant.kind, size=effort.size, hold=hold, attributes=(study.attribute,), **options)
    training = bench.folder / "models" / f"{entrant.slug}-{seed}" / "training"
    earlier, began = seconds_spent(training), time.process_time()
    model.fit(study.train, study.validation, seed=seed, directory=training, narrator=bench.narrator)
    seconds = earlier + time.process_time() - began
    model.save(training.parent)
    return model, seconds


def _measured(bench: Bench, generator: CounterfactualGenerator, entrant: Entrant, seed: int) -> Row:
    study, effort = bench.study, bench.effort
    attribute, levels, frame = study.attribute, study.levels, bench.test.frame
    began = time.process_time()
    redrawn = _redraw(bench, generator, seed)
    pace = 1000 * (time.process_time() - began) / (len(redrawn) * len(levels) * effort.draws)
    meter = QualityMeter(bench.probes, attribute=attribute, levels=levels, extractor=bench.extractor)
    meter.add(bench.images, redrawn, frame[attribute])
    few, rows = bench.images[:FEW], frame.iloc[:FEW].reset_index(drop=True)
    cycles = cycle_composition(generator, few, rows, attribute=attribute, cycles=effort.cycles, seed=seed)
    there = there_and_back(generator, few, rows, attribute=attribute, seed=seed)
    report = meter.report(reversibility=there, cycles=cycles)
    coin = generator.generate(few, rows, attribute=PLACEBO, levels=COIN, seed=seed)
    row: Row = {
        "seconds_per_1000": pace,
        "composition": {str(count): cycle.difference for count, cycle in cycles.items()} | {"1": report.composition},
        "similarity": {str(count): cycle.similarity for count, cycle in cycles.items()} | {"1": report.similarity},
        "effectiveness": report.effectiveness,
        "auroc": report.auroc,
        "reversibility": report.reversibility,
        "minimality": report.minimality,
        "drift": report.drift,
        "held": list(study.hold) if entrant.held else [],
        "fid": report.fid,
        "kid": report.kid,
        "features": report.fid_extractor,
        "coin": float(np.abs(coin[:, 1] - coin[:, 0]).mean()),
        "gates": _gates(report, bench, study.hold),
        "notes": list(report.notes),
        "effect_map": _effect(bench, redrawn),
        "leakage": None,
        "round_trip": None,
        "training": dict(getattr(generator, "report", {})),
    }
    if isinstance(generator, LatentDiffusion):
        leak = measure_leakage(
            generator, study.train, study.test, attribute=attribute, steps=effort.leakage_steps, seed=seed
        )
        row["leakage"] = leak.to_json()
        row["round_trip"] = asdict(round_trip(generator._fitted, few, rows))
    _keep_pictures(bench, redrawn, entrant, seed)
    return row


def _redraw(bench: Bench, generator: CounterfactualGenerator, seed: int) -> Images:
    """Redraw the test images, a part at a time, with a bar."""
    study, parts = bench.study, []
    with bench.narrator.progress("generate", len(bench.images)) as tick:
        for start in range(0, len(bench.images), 32):
            rows = slice(start, start + 32)
            frame = bench.test.frame.iloc[rows].reset_index(drop=True)
            drawn = generator.generate(
                bench.images[rows],
                frame,
                attribute=study.attribute,
                levels=study.levels,
                draws=bench.effort.draws,
                seed=seed,
            )
            parts.append(drawn)
            tick(min(start + 32, len(bench.images)))
    return np.concatenate(parts)


def true_images(bench: Bench) -> npt.NDArray[np.float32] | None:
    """Give true counterfactuals of the test images, (n, levels, 1, s, s), where a simulator knows them."""
    sample = bench.study.sample
    if sample is None:
        return None
    place = {name: row for row, name in enumerate(sample.frame["image_id"].astype(str))}
    rows = [place[name] for name in bench.test.frame["image_id"].astype(str)]
    return np.stack([sample.counterfactual(level, rows) for level in bench.study.levels], axis=1)


def _effect(bench: Bench, redrawn: Images) -> Row | None:
    """Compare the first draw's changes from the first level with the true ones."""
    true = true_images(bench)
    if true is None:
        return None
    generated = redrawn[:, :, 0]
    return asdict(effect_map(generated[:, 1:] - generated[:, :1], true[:, 1:] - true[:, :1]))


def _gates(report: QualityReport, bench: Bench, hold: tuple[str, ...]) -> list[Row]:
    """Hold a report against the limits that an audit has by default; the coin's audit needs a model and is left out."""
    quality = Quality(
        composition=report.composition,
        effectiveness=report.effectiveness,
        reversibility=report.reversibility,
        minimality=report.minimality,
        drift={name: report.drift[name] for name in hold},
        fid=report.fid,
        fid_extractor=report.fid_extractor,
        gates=(),
    )
    assert report.real_readings is not None
    assert report.attribute_readings is not None
    study = bench.study
    readings = (report.real_readings, report.attribute_readings)
    carried = carried_by(bench.probes, *readings, bench.test.frame, study.attribute, study.levels, hold)
    return [asdict(gate) for gate in gates_of(Evidence(GateConfig(placebo=False), Faithfulness(quality), carried))]


def _keep_pictures(bench: Bench, redrawn: Images, entrant: Entrant, seed: int) -> None:
    """Keep the first draws of a few images for the grid, (images, levels, s, s)."""
    rows = picture_rows(bench.test.frame, bench.study)
    folder = bench.folder / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / f"{entrant.slug}-{seed}.npy") as temporary, temporary.open("wb") as stream:
        np.save(stream, redrawn[rows, :, 0, 0])


def picture_rows(frame: pd.DataFrame, study: Study) -> list[int]:
    """Choose images for the grid: the first of each level in turn, so that every direction is shown."""
    by_level = [np.flatnonzero((frame[study.attribute].astype(str) == level).to_numpy()) for level in study.levels]
    turns = [int(rows[turn]) for turn in range(PICTURES) for rows in by_level if turn < len(rows)]
    return turns[:PICTURES]
