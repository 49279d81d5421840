"""The stages of an audit on a few images and for a few steps, timed: real networks, real batches, the real model."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from numpy.typing import NDArray

from citlr.audit.assembly import generator_from, generator_of, held, quality_settings_of, request_of
from citlr.audit.chain import Chain
from citlr.audit.generation import Counterfactuals
from citlr.audit.measures.faithfulness import Faithfulness, QualitySettings, assess_faithfulness
from citlr.audit.on_disk import on_disk
from citlr.audit.planning.stopwatch import Stopwatch
from citlr.audit.prediction import predict_sets, write_responses
from citlr.audit.redrawing.drawing import CohortRequest, draw_sets
from citlr.audit.results.verdicts import AuditInputs, Settings, audit_responses
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.flow import FlowRecorder
from citlr.data.preconditions import blank_unlearnt
from citlr.data.tables.numbers import MAX_CATEGORIES
from citlr.generators.base import BATCH
from citlr.generators.learnt import LearntGenerator
from citlr.generators.on_disk import ImagesOnDisk
from citlr.learning.session import Pace
from citlr.predictors.base import Predictor
from citlr.predictors.specs import InputSpec
from citlr.run.machine import peak_memory_mb

# Writes the page of a result: it is made above this room.
WritePage = Callable[..., object]
# Images of the training, validation and test split that a pilot is made on; edits are found of more only.
TRAIN, VALIDATION, EDITED = 48, 16, 160
# Steps that a probe is trained for: eight validations fall between them.
PROBE_STEPS = 17


class Grey:
    """Stands in for a closed model: the page is timed on the mean grey of an image. Its answers are shown to nobody."""

    def __init__(self, name: str, labels: Sequence[str], size: int) -> None:
        self.name, self.labels, self.input = name, tuple(labels), InputSpec(size=size)

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """Give the mean grey, for every label."""
        return np.repeat(images.mean(axis=(1, 2, 3), dtype=np.float64)[:, None], len(self.labels), axis=1)

    def fingerprint(self) -> str:
        """Name it."""
        return "grey"


@dataclass
class Pilot:
    """What a pilot measured; seconds by the clock.

    - `images`: Of the sample, by split.
    - `paces`: Of the trained parts; `watches` keep the loops of every stage, `seconds` its whole.
    - `mb`: 10^6 bytes that each stage left, of arrays that grow with the images and of all else, by stage and kind.
    - `generator`: With the settings that the images and the device decide.
    """

    images: dict[str, int]
    paces: dict[str, Pace]
    watches: dict[str, Stopwatch]
    seconds: dict[str, float]
    mb: dict[tuple[str, str], float]
    generator: LearntGenerator | ImagesOnDisk
    request: CohortRequest
    quality: QualitySettings
    write_page: WritePage
    levels: int = 2
    peak_memory_mb: float | None = None
    peak_gpu_mb: float | None = None

    @property
    def flown(self) -> float:
        """Seconds that the parts were trained for."""
        return sum(pace.flown for pace in self.paces.values())

    @contextmanager
    def stage(self, name: str) -> Iterator[Stopwatch]:
        """Time a stage."""
        watch = self.watches.setdefault(name, Stopwatch(quiet=True))
        began = time.perf_counter()
        yield watch
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def weigh(self, name: str, folder: Path) -> None:
        """Note what lies in a folder: arrays as long as a cohort, and all else."""
        files = [file for file in folder.rglob("*") if file.is_file()]
        for kind in ("arrays", "rest"):
            own = [file for file in files if (file.suffix == ".npy") == (kind == "arrays")]
            self.mb[name, kind] = sum(file.stat().st_size for file in own) / 1e6


def fly(chain: Chain, *, write_page: WritePage, seconds: float, narrator: Narrator) -> Pilot:
    """Make every stage on a sample of the chain's cohort; each trained part for so many seconds."""
    config, whole, gpu = chain.config, chain.whole, torch.cuda.is_available()
    request = request_of(config)
    few = max(2, BATCH // request.draws)
    train = EDITED if config.generator.kind == "edits" else TRAIN
    sample = sample_of(whole, {"train": train, "validation": VALIDATION, "test": few}, seed=config.seed)
    splits, test = (sample.part("train"), sample.part("validation")), sample.part("test")
    hold = held(chain.run, sample)
    generator = _untrained(chain, hold)
    quality = quality_settings_of(config.gates, config.quality, hold, chain.sizes.values(), config.seed)
    pilot = Pilot(
        {"train": len(splits[0]), "validation": len(splits[1]), "test": len(test)},
        {}, {}, {}, {}, generator, request, quality, write_page,
    )  # fmt: skip
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory(prefix="citlr-") as name:
        root = Path(name)
        narrator.say("benchmark: fit, some steps of every part")
        _fit(pilot, splits, len(whole.part("train")), root / "fit", seconds)
        narrator.say("benchmark: generate, a few images")
        counterfactuals = _generate(pilot, test, root / "counterfactuals")
        narrator.say("benchmark: quality, predict, test")
        pilot.levels = len(counterfactuals.levels)
        faithfulness = _quality(pilot, counterfactuals, splits, root / "quality")
        for model in config.models:
            _predict_and_test(pilot, chain, model, counterfactuals, faithfulness, sample, root / "models")
    pilot.peak_memory_mb = peak_memory_mb()
    pilot.peak_gpu_mb = torch.cuda.max_memory_allocated() / 1e6 if gpu else None
    return pilot


def _untrained(chain: Chain, hold: tuple[str, ...]) -> LearntGenerator | ImagesOnDisk:
    if chain.config.generator.table is not None:
        return generator_of(chain.run, chain.whole)
    return generator_from(chain.config.generator.model_copy(update={"hold": hold}))


def _fit(pilot: Pilot, splits: tuple[Cohort, Cohort], images: int, folder: Path, seconds: float) -> None:
    generator = pilot.generator
    with pilot.stage("fit") as watch:
        if isinstance(generator, LearntGenerator):
            pilot.paces = generator.pilot(*splits, images=images, seconds=seconds, directory=folder, narrator=watch)
    pilot.weigh("fit", folder)
    generator.save(folder / "saved")
    pilot.weigh("generator", folder / "saved")


def _generate(pilot: Pilot, test: Cohort, folder: Path) -> Counterfactuals:
    request = replace(
        pilot.request,
        placebo_images=min(pilot.request.placebo_images, len(test)),
        replicate_images=min(pilot.request.replicate_images, len(test)),
    )
    if isinstance(pilot.generator, ImagesOnDisk):
        request = pilot.request = on_disk(pilot.request, pilot.generator.draws)
    with pilot.stage("generate") as watch:
        draw_sets(pilot.generator, test, request, folder, key="pilot", narrator=watch)
    for name in ("levels", "placebo", "replicates", *(("null",) if (folder / "null").is_dir() else ())):
        pilot.weigh(name, folder / name)
    return Counterfactuals.open(folder, test, pilot.generator)


def _quality(
    pilot: Pilot, counterfactuals: Counterfactuals, splits: tuple[Cohort, Cohort], folder: Path
) -> Faithfulness:
    settings = replace(pilot.quality, probe_steps=PROBE_STEPS, cycles=1, learning_curve=())
    with pilot.stage("quality") as watch:
        found = assess_faithfulness(counterfactuals, *splits, settings, directory=folder, narrator=watch)
    pilot.weigh("quality", folder)
    return found


def _predict_and_test(
    pilot: Pilot,
    chain: Chain,
    name: str,
    counterfactuals: Counterfactuals,
    faithfulness: Faithfulness,
    sample: Cohort,
    folder: Path,
) -> None:
    """Ask a model, test its answers and write the page."""
    config, test = chain.config, counterfactuals.cohort
    labels = tuple(label for label in sample.labels if label in (config.models[name].labels or sample.labels))
    predictor: Predictor = chain.predictor(name) or Grey(name, labels, chain.sizes[name])
    frames = []
    for part in counterfactuals.sets:
        with pilot.stage(f"predict.{name}.{part.folder.name}"):
            first = part is counterfactuals.main
            frames.append(predict_sets(predictor, [part], test, originals=first))
    responses = pd.concat(frames, ignore_index=True)
    write_responses(folder / name / "responses.parquet", responses)
    pilot.weigh(f"responses.{name}", folder / name)
    with pilot.stage("test"):
        result = audit_responses(
            AuditInputs(
                model=name,
                responses=responses,
                whole=sample,
                counterfactuals=counterfactuals,
                faithfulness=faithfulness,
                settings=Settings(config.test, config.gates, config.controls, config.seed),
                provenance={},
                size=chain.sizes[name],
            )
        )
    with pilot.stage("report"):
        pilot.write_page(folder / name / "audit.html", result, responses=responses)
    pilot.weigh("page", folder / name)


def sample_of(cohort: Cohort, counts: dict[str, int], *, seed: int) -> Cohort:
    """Keep about so many images of every split, of different patients where there are as many."""
    frame, random = cohort.frame, np.random.default_rng(seed)
    kept = [some(frame[frame["split"] == split], cohort, count, random) for split, count in counts.items()]
    found = cohort.take(np.sort(np.concatenate(kept)))
    recorder = FlowRecorder(found.frame)
    # What the few training images do not have counts as not stated, as it would in a cohort of these images.
    blank_unlearnt(recorder, found.covariates)
    return replace(found, frame=recorder.frame)


def some(part: pd.DataFrame, cohort: Cohort, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw rows of a split: in turn one of every value of every column of few values, until there are enough."""
    order = part.index.to_numpy()[random.permutation(len(part))]
    repeat = part.loc[order].groupby("patient_id").cumcount().to_numpy()
    order = order[np.argsort(repeat, kind="stable")]
    columns = [*cohort.attributes, *cohort.labels, *cohort.covariates]
    queues = [
        list(order[(part.loc[order, name] == value).to_numpy()])
        for name in columns
        if part[name].nunique() <= MAX_CATEGORIES
        for value in part[name].dropna().unique()
    ]
    chosen: dict[int, None] = {}
    while len(chosen) < min(count, len(part)) and any(queues):
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue:
                chosen[queue.pop(0)] = None
    return np.fromiter(chosen, dtype=np.int64)
