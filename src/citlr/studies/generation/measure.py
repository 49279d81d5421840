"""One model, one seed: train it, redraw the test images, and measure all that the tables show."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_auc_score

from citlr.audit.gates.evidence import Evidence
from citlr.audit.gates.registry import gates_of
from citlr.audit.measures.faithfulness import Faithfulness, quality_of
from citlr.audit.measures.readings import carried_by
from citlr.config import GateConfig
from citlr.data.cohort import Cohort
from citlr.generators.base import CounterfactualGenerator, Images
from citlr.generators.diffusion.guidance import round_trip
from citlr.generators.diffusion.ldm import LatentDiffusion
from citlr.generators.diffusion.leakage import measure_leakage
from citlr.generators.oracle import Oracle
from citlr.generators.probes.probe import Probes
from citlr.generators.quality.cycles import cycle_composition, there_and_back
from citlr.generators.quality.features import Extractor
from citlr.generators.quality.measures import effect_map
from citlr.generators.quality.meter import QualityMeter, QualityReport
from citlr.generators.registry import load_generator
from citlr.randomness import COIN, PLACEBO
from citlr.run.files import read_json, write_json
from citlr.run.rows import Row
from citlr.run.stage import Stage
from citlr.run.stages import Stages
from citlr.studies.generation.study import Effort, Entrant, Study
from citlr.studies.kit.audits import training_stage
from citlr.studies.kit.cohorts import evenly
from citlr.studies.kit.worlds import write_array

# Images for what needs many draws each, and pictures that are kept for the grid.
FEW, PICTURES = 40, 4


@dataclass(frozen=True)
class Measures:
    """What all models are measured with, and how much of everything; `key` is that of the stage of the probe."""

    study: Study
    effort: Effort
    probes: Probes
    extractor: Extractor | None
    test: Cohort
    images: Images
    stages: Stages
    key: str

    @classmethod
    def of(
        cls, study: Study, effort: Effort, probes: Probes, extractor: Extractor | None, stages: Stages, key: str
    ) -> Self:
        """Choose the test images: evenly over the split."""
        test = evenly(study.test, effort.images)
        return cls(study, effort, probes, extractor, test, test.pixels(size=effort.size), stages, key)


def measure_entrant(measures: Measures, entrant: Entrant, seed: int) -> None:
    """Train a model and measure it: two stages."""
    name, stages = f"{entrant.slug}-{seed}", measures.stages
    fit = None if entrant.kind == "oracle" else stages.do(_training(measures, entrant, seed))

    def work(folder: Path) -> None:
        stages.narrator.say(f"{entrant.name}, seed {seed}")
        if fit is None:
            assert measures.study.sample is not None  # The oracle enters only where there is one.
            generator: CounterfactualGenerator = Oracle.of(measures.study.sample)
        else:
            generator = load_generator(stages.path("models", name))
        row = {"model": entrant.name, "kind": entrant.kind, "seed": seed}
        row["fit_seconds"] = 0.0 if fit is None else fit.facts["core_seconds"]
        measured, pictures = _measured(measures, generator, entrant, seed)
        write_array(folder / "pictures" / f"{name}.npy", pictures)
        write_json(folder / "rows" / f"{name}.json", row | measured)

    after = (measures.key,) if fit is None else (measures.key, fit.key)
    places = (f"rows/{name}.json", f"pictures/{name}.npy")
    stages.do(Stage(f"row.{name}", {"model": entrant.name, "seed": seed}, work, places, after))


def _training(measures: Measures, entrant: Entrant, seed: int) -> Stage:
    study, effort, name = measures.study, measures.effort, f"{entrant.slug}-{seed}"
    options = {"preset": effort.preset, **effort.steps.get(entrant.kind, {}), **entrant.options}
    hold = study.hold if entrant.held else ()
    settings = {"size": effort.size, "hold": hold, "attributes": (study.attribute,), **options}
    splits = (study.train, study.validation)
    return training_stage(measures.stages, entrant.kind, settings, splits, seed=seed, name=name)


def finished_rows(measures: Measures, entrant: Entrant) -> list[Row]:
    """Read the rows of all of a model's trainings that the folder holds, by seed."""
    seeds = (
        record.inputs["seed"] for record in measures.stages.records() if record.inputs.get("model") == entrant.name
    )
    return [read_json(measures.stages.path("rows", f"{entrant.slug}-{seed}.json")) for seed in sorted(seeds)]


def probe_rows(measures: Measures) -> list[Row]:
    """Read the original test images with the probe: the publication's Table 6, accuracy and AUROC per level."""
    study, probes = measures.study, measures.probes
    rows = []
    for name in (study.attribute, *study.watched):
        target = probes.target(name)
        code = target.code(measures.test.frame[name])
        given = code >= 0
        read = probes.read(measures.images[given])[name]
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


def _measured(
    measures: Measures, generator: CounterfactualGenerator, entrant: Entrant, seed: int
) -> tuple[Row, npt.NDArray[np.float32]]:
    """Measure a trained model; also the first draws of a few images for the grid, (images, levels, s, s)."""
    study, effort = measures.study, measures.effort
    attribute, levels, frame = study.attribute, study.levels, measures.test.frame
    began = time.process_time()
    redrawn = _redraw(measures, generator, seed)
    pace = 1000 * (time.process_time() - began) / (len(redrawn) * len(levels) * effort.draws)
    meter = QualityMeter(measures.probes, attribute=attribute, levels=levels, extractor=measures.extractor)
    meter.add(measures.images, redrawn, frame[attribute])
    few, rows = measures.images[:FEW], frame.iloc[:FEW].reset_index(drop=True)
    cycles = cycle_composition(generator, few, rows, attribute=attribute, cycles=effort.cycles, seed=seed)
    there = there_and_back(generator, few, rows, attribute=attribute, seed=seed)
    report = meter.report(reversibility=there, cycles=cycles)
    coin = generator.generate(few, rows, attribute=PLACEBO, levels=COIN, seed=seed)
    row: Row = {
        "seconds_per_1000": pace,
        "composition": {str(count): cycle.difference for count, cycle in cycles.items()} | {"1": report.composition},
        "similarity": {str(count): cycle.similarity for count, cycle in cycles.items()} | {"1": report.similarity},
        **{name: getattr(report, name) for name in ("effectiveness", "auroc", "reversibility", "minimality", "drift")},
        "held": list(study.hold) if entrant.held else [],
        "fid": report.fid,
        "kid": report.kid,
        "features": report.fid_extractor,
        "coin": float(np.abs(coin[:, 1] - coin[:, 0]).mean()),
        "gates": _gates(report, measures, study.hold),
        "notes": list(report.notes),
        "effect_map": _effect(measures, redrawn),
        "leakage": None,
        "round_trip": None,
        "training": dict(getattr(generator, "report", {})),
    }
    if isinstance(generator, LatentDiffusion):
        leak = measure_leakage(
            generator, study.train, study.test, attribute=attribute, steps=effort.leakage_steps, seed=seed
        )
        row["leakage"] = asdict(leak)
        row["round_trip"] = asdict(round_trip(generator.sampler, few, rows))
    return row, redrawn[picture_rows(frame, study), :, 0, 0]


def _redraw(measures: Measures, generator: CounterfactualGenerator, seed: int) -> Images:
    """Redraw the test images, with a bar."""
    study, frame = measures.study, measures.test.frame
    asked: dict[str, Any] = {"attribute": study.attribute, "levels": study.levels, "draws": measures.effort.draws}
    with measures.stages.narrator.progress("generate", len(frame)) as tick:
        return generator.generate(measures.images, frame, **asked, seed=seed, tick=tick)


def true_images(measures: Measures) -> npt.NDArray[np.float32] | None:
    """Give true counterfactuals of the test images, (n, levels, 1, s, s), where a simulator knows them."""
    sample = measures.study.sample
    if sample is None:
        return None
    units = sample.of_images(measures.test.frame["image_id"].astype(str))
    return np.stack([units.counterfactual(level) for level in measures.study.levels], axis=1)


def _effect(measures: Measures, redrawn: Images) -> Row | None:
    """Compare the first draw's changes from the first level with the true ones."""
    true = true_images(measures)
    if true is None:
        return None
    generated = redrawn[:, :, 0]
    return asdict(effect_map(generated[:, 1:] - generated[:, :1], true[:, 1:] - true[:, :1]))


def _gates(report: QualityReport, measures: Measures, hold: tuple[str, ...]) -> list[Row]:
    """Hold a report against the limits that an audit has by default; the coin's audit needs a model and is left out."""
    # What is not held has no gate here.
    quality = replace(quality_of(report, {}, None, hold), off_target={})
    assert report.real_readings is not None
    assert report.attribute_readings is not None
    study = measures.study
    readings = (report.real_readings, report.attribute_readings)
    carried = carried_by(measures.probes, readings, measures.test.frame, study.attribute, study.levels, hold)
    return [asdict(gate) for gate in gates_of(Evidence(GateConfig(placebo=False), Faithfulness(quality), carried))]


def picture_rows(frame: pd.DataFrame, study: Study) -> list[int]:
    """Choose images for the grid: the first of each level in turn, so that every direction is shown."""
    by_level = [np.flatnonzero((frame[study.attribute].astype(str) == level).to_numpy()) for level in study.levels]
    turns = [int(rows[turn]) for turn in range(PICTURES) for rows in by_level if turn < len(rows)]
    return turns[:PICTURES]
