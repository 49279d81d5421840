"""The plan of an audit: what can be checked is checked, a pilot is timed, and its measures are brought to the whole."""

import math
import time
from pathlib import Path

import torch

from citlr.audit.assembly import CLOSED, held, unheld_of
from citlr.audit.chain import Chain
from citlr.audit.intake import audited_cohort
from citlr.audit.planning.outlook import foresee, statistics_seconds
from citlr.audit.planning.pilot import Pilot, WritePage, fly
from citlr.audit.planning.records import AuditPlan, StagePlan
from citlr.audit.planning.stopwatch import Stopwatch
from citlr.audit.preconditions import require_learnable, require_possible
from citlr.audit.prediction import check_on_cohort
from citlr.config import AuditConfig
from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.data.proposals.pictures import look_at
from citlr.data.tables.numbers import is_number, recorded_levels
from citlr.generators.base import BATCH
from citlr.generators.edits.choice import ALPHA
from citlr.generators.edits.generator import EditGenerator
from citlr.generators.learnt import LearntGenerator
from citlr.invariance.verdict import enough
from citlr.randomness import PLACEBO
from citlr.run.folder import Run
from citlr.run.machine import free_gb

# Images that are decoded to know how long one takes.
DECODED = 64
# Copies of the weights in a checkpoint: the weights, their average, the best, and Adam's two moments.
COPIES = 5
# Bytes that an edit takes for each pixel of the generator: those that a pilot finds on its few images change nothing.
EDIT = 2.9
# How many times as long edits take that show something: 6 to 11 with some 700 radiographs (docs/generators.md).
SHOWN = 8.0


def plan_audit(
    config: AuditConfig, out: Path, *, write_page: WritePage, seconds: float = 1.0, narrator: Narrator | None = None
) -> AuditPlan:
    """Check all that can be known without running, and foretell what the run will take; nothing is left in `out`.

    `seconds` are what every trained part is timed for; `write_page` is `citlr.report.page.write_report`.

    Raises InputError in the audit's own words where it would refuse the configuration.
    """
    narrator, began = narrator or QUIET, time.perf_counter()
    require_possible(config)
    # The images are looked at one by one in the run; here it is asked whether they are there, and some are decoded.
    cohort = audited_cohort(config.cohort, narrator=narrator, check="exists")
    chain = Chain(Run(out, config), narrator)
    chain.__dict__["whole"] = cohort
    require_learnable(chain.run, cohort)
    notes = [*unheld_of(config, cohort)]
    for name in config.models:
        predictor = chain.predictor(name)
        if predictor is not None:
            found = check_on_cohort(predictor, chain.test_part, size=config.generator.size)
            notes += [f"{name}: {note}" for note in found]
    decode = _decoding(cohort, config.generator.size)
    pilot = fly(chain, write_page=write_page, seconds=seconds, narrator=narrator)
    counts = {split: len(cohort.part(split)) for split in ("train", "validation", "test")}
    stages = Forecast(pilot, counts, config).stages(decode)
    column = cohort.part("test").frame[config.cohort.attribute]
    recorded = recorded_levels(column, config.cohort.levels)
    # Every image is redrawn at every age; counted are those that were recorded near to it.
    near = "nearest " if is_number(column) else ""
    return AuditPlan(
        images={split: _count(cohort.part(split)) for split in counts},
        levels={
            f"{near}{level}": _count(cohort.part("test").take((recorded == level).to_numpy()))
            for level in dict.fromkeys(recorded.sort_values())
        },
        pictures=look_at(cohort.frame["path"].tolist(), cohort.root).said,
        held=held(chain.run, cohort),
        generator=_settings(pilot, config),
        parameters=_parameters(pilot),
        stages=stages,
        peak_memory_mb=pilot.peak_memory_mb,
        peak_gpu_mb=pilot.peak_gpu_mb,
        disk_mb=Forecast(pilot, counts, config).disk(),
        free_disk_mb=1000 * free_gb(out),
        outlook=foresee(cohort, config),
        notes=tuple(notes),
        benchmark_seconds=round(time.perf_counter() - began, 1),
    )


def _decoding(cohort: Cohort, size: int) -> float:
    """Give the seconds in which an image is decoded at the generator's size; a file that cannot be read is named."""
    rows = range(0, len(cohort), max(1, len(cohort) // DECODED))
    began = time.perf_counter()
    cohort.pixels(list(rows), size=size)
    return (time.perf_counter() - began) / len(rows)


def _count(part: Cohort) -> dict[str, int]:
    return {"images": len(part), "patients": int(part.frame["patient_id"].nunique())}


def _settings(pilot: Pilot, config: AuditConfig) -> dict[str, object]:
    """Name what is trained, and every part's steps and batch."""
    found: dict[str, object] = {"kind": config.generator.kind, "size": config.generator.size}
    if isinstance(pilot.generator, LearntGenerator):
        own = pilot.generator.config
        found |= {"preset": own.preset, "device": str(pilot.generator.device)}
        widths = {name: value for name, value in own.to_json().items() if name.endswith("channels")}
        found |= {name: value for name, value in widths.items() if name not in ("phi_channels", "critic_channels")}
        found |= {name: f"{pace.steps} steps of {pace.batch}" for name, pace in pilot.paces.items()}
    return found


def _parameters(pilot: Pilot) -> dict[str, int]:
    """Count the parameters of every network; what is estimated and not trained by gradients has none."""
    if not isinstance(pilot.generator, LearntGenerator):
        return {}
    modules: dict[str, torch.nn.Module] = pilot.generator.modules()
    counts = {name: sum(one.numel() for one in module.parameters()) for name, module in modules.items()}
    return {name: count for name, count in counts.items() if count}


class Forecast:
    """From a pilot on a few images to the whole: what grows is multiplied by what it grows with."""

    def __init__(self, pilot: Pilot, counts: dict[str, int], config: AuditConfig) -> None:
        self.pilot, self.counts, self.config = pilot, counts, config

    def stages(self, decode: float) -> tuple[StagePlan, ...]:
        """Foretell every stage of the run, by its name; `decode` are seconds an image."""
        seconds, counts, request = self.pilot.seconds, self.counts, self.pilot.request
        whole, test = sum(counts.values()), counts["test"]
        levels = f"{request.draws} draws of every level"
        samples = f"{self._sets()['placebo']} for the coin, {self._sets()['replicates']} for replicates"
        fit = self._fit()
        found = [
            StagePlan("cohort", whole * decode, f"{whole:,} files are decoded"),
            StagePlan("fit", fit, self._fitted()),
            StagePlan("generate", self._generate(), f"{test:,} images, {levels}; {samples}"),
            StagePlan("quality", self._quality(fit), f"{self.config.gates.probe_steps} steps of each probe"),
        ]
        for name, model in self.config.models.items():
            said = f"predict.{name}" if len(self.config.models) > 1 else "predict"
            mine = None if model.kind == CLOSED else self._predict(name)
            found.append(StagePlan(said, mine, "every original and every redrawn image"))
        rows = max(len(self.config.cohort.labels) * self.pilot.levels * (self.pilot.levels - 1) // 2, 1)
        tested = f"{enough(self.config.test.randomizations, rows, self.config.test.alpha)} randomisations"
        found += [StagePlan("test", self._test(), tested), StagePlan("report", seconds["report"], "the page")]
        return tuple(found)

    def disk(self) -> dict[str, float]:
        """Foretell the disk in 10^6 bytes: of the finished run, and on top while it works."""
        mb, test = self.pilot.mb, self.pilot.images["test"]
        pictures = sum(
            (mb[name, "rest"] + mb[name, "arrays"]) * count / min(test, count)
            for name, count in self._sets().items()
            if count
        )
        if self.config.generator.kind == "edits":
            each = EDIT * self.config.generator.size**2 / 1e6
            pictures = max(pictures, each * self.pilot.levels * sum(self._sets().values()))
        answers = sum(mb[f"responses.{name}", "rest"] * self.counts["test"] / test for name in self.config.models)
        learnt = self.pilot.images["train"] + self.pilot.images["validation"]
        grown = (self.counts["train"] + self.counts["validation"]) / learnt
        weights = mb["generator", "rest"] + self._alignments()
        trained = sum(_parameters(self.pilot).values()) * 4 / 1e6
        fit = mb["fit", "arrays"] * grown + COPIES * trained
        quality = mb["quality", "arrays"] * grown + mb["quality", "rest"]
        return {
            "finished": round(pictures + answers + weights + mb["page", "rest"], 1),
            "while it works": round(max(fit, quality), 1),
        }

    def _alignments(self) -> float:
        """Foretell the 10^6 bytes of alignments that more images may call for than a pilot has."""
        if not isinstance(self.pilot.generator, EditGenerator):
            return 0.0
        states = [module.state_dict() for module in self.pilot.generator.unaligned()]
        taken = sum(int(value.nbytes) for state in states for value in state.values())
        return taken / 1e6

    def _sets(self) -> dict[str, int]:
        """Count the images of every set that is redrawn."""
        request, test = self.pilot.request, self.counts["test"]
        return {
            "levels": test,
            "placebo": min(request.placebo_images, test),
            "replicates": min(request.replicate_images, test) if ("replicates", "rest") in self.pilot.mb else 0,
            **({"null": test} if ("null", "rest") in self.pilot.mb else {}),
        }

    def _fitted(self) -> str:
        """Say what is trained; edits are estimated, and images of others are taken as they are."""
        paces = self.pilot.paces.items()
        if not paces and isinstance(self.pilot.generator, LearntGenerator):
            less = "; sooner where nothing is shown" if self._not_yet_shown() > 1 else ""
            return f"estimated from {self._learnt_images():,} images; no network is trained{less}"
        each = [f"{name} {pace.steps:,} x {pace.seconds_a_step:.3g} s" for name, pace in paces]
        return ", ".join(each) or "nothing is trained"

    def _fit(self) -> float:
        """Foretell the training: steps and validations, what is redrawn to measure the generator, and all else."""
        pilot, counts = self.pilot, self.counts
        watch = pilot.watches["fit"]
        trained = sum(pace.steps * pace.seconds_a_step for pace in pilot.paces.values())
        validations = sum(pace.validations * pace.seconds_a_validation for pace in pilot.paces.values())
        validated = min(256, counts["validation"]) / min(256, pilot.images["validation"])
        redrawn = sum(
            loop.seconds * self._batches(loop.title) for loop in watch.loops if loop.title in ("guidance", "mean error")
        )
        timed = pilot.flown + watch.of("guidance", "mean error")
        rest = (pilot.seconds["fit"] - timed) * self._learnt_from() * self._not_yet_shown()
        return trained + validations * validated + redrawn + rest

    def _not_yet_shown(self) -> float:
        """Give how many times as long edits take with all images, of which more is shown than of a pilot's few."""
        found = getattr(self.pilot.generator, "report", {}).get("edits", {}).items()
        shown = [one["p"] <= ALPHA for name, one in found if isinstance(one, dict) and name != PLACEBO]
        return 1.0 if any(shown) or not shown else SHOWN

    def _batches(self, title: str) -> float:
        """Give how many times as many batches a loop of the training makes with all images."""
        split, most = ("validation", 48) if title == "guidance" else ("train", self._recentred())
        few, many = (min(most, images[split]) for images in (self.pilot.images, self.counts))
        return math.ceil(many / BATCH) / max(1, math.ceil(few / BATCH))

    def _recentred(self) -> int:
        generator = self.pilot.generator
        return generator.redrawn_in_fit() if isinstance(generator, LearntGenerator) else 0

    def _learnt_from(self) -> float:
        """Give how many times as many images the statistics between the parts are made of."""
        return self._learnt_images() / self.pilot.images["train"]

    def _learnt_images(self) -> int:
        most: int = getattr(getattr(self.pilot.generator, "config", None), "images", self.counts["train"])
        return min(most, self.counts["train"])

    def _generate(self) -> float:
        watch, test = self.pilot.watches["generate"], self.pilot.images["test"]
        # Of a number, images under their own value are drawn in the loop of the levels.
        titles = {"levels": ("generate",), "placebo": ("placebo",), "replicates": ("replicates",), "null": ()}
        return sum(watch.of(*titles[name]) * count / min(test, max(1, count)) for name, count in self._sets().items())

    def _quality(self, fit: float) -> float:
        """Foretell the measurement: probes, every redrawn image, cycles; and trainings again for a learning curve."""
        pilot, counts = self.pilot, self.counts
        watch: Stopwatch = pilot.watches["quality"]
        probes = [loop for loop in watch.loops if loop.title == "probe"]
        validated = min(512, counts["validation"]) / min(512, pilot.images["validation"])
        trained = sum(self.config.gates.probe_steps * one.piece + 8 * one.extra * validated for one in probes)
        read = [loop for loop in watch.loops if loop.title.startswith("quality")]
        looked = sum(loop.seconds for loop in read) * counts["test"] / pilot.images["test"]
        batches = math.ceil(min(48, counts["test"]) / BATCH) / math.ceil(pilot.images["test"] / BATCH)
        cycles = watch.of("cycles") * (self.config.quality.cycles + 2) / 3 * batches
        rest = pilot.seconds["quality"] - sum(loop.seconds for loop in watch.loops)
        curve = len(self.config.quality.learning_curve) * (fit + self._generate())
        return trained + looked + cycles + rest * counts["train"] / pilot.images["train"] + curve

    def _test(self) -> float:
        """Foretell the test of every model: what the pilot's took, and what more images add to every look at them."""
        few, levels, labels = self.pilot.images["test"], self.pilot.levels, len(self.config.cohort.labels)
        each = [statistics_seconds(count, levels, labels, self.config) for count in (few, few, self.counts["test"])]
        # The audit itself, the coin, and every planted bias.
        looks = (2 + len(self.config.controls.planted)) * len(self.config.models)
        return self.pilot.seconds["test"] + looks * max(0.0, each[2] - each[1])

    def _predict(self, name: str) -> float:
        test = self.pilot.images["test"]
        mine = {
            folder: self.pilot.seconds.get(f"predict.{name}.{folder}", 0.0) * count / min(test, max(1, count))
            for folder, count in self._sets().items()
        }
        return sum(mine.values())
