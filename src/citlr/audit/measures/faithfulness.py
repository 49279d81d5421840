"""How faithful the redrawn images of an audit are: measured by probes that had no part in training the generator.

What of the attribute they carry is read at the size that the model under audit reads: at the generator's own size a
probe cannot see that all finer detail is gone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.audit.generation import Counterfactuals
from citlr.audit.measures.left import chosen_images, left_at, measure_left
from citlr.audit.measures.readings import carried_by, find_strangers, read_carried, read_quality
from citlr.audit.measures.retraining import Curves, Retraining, curve_point
from citlr.audit.redrawing.pictures import Pictures
from citlr.audit.results.records import Carried, CurvePoint, Quality
from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.errors import StateError
from citlr.generators.base import CounterfactualGenerator, Images
from citlr.generators.edits.generator import EditGenerator
from citlr.generators.on_disk import ImagesOnDisk
from citlr.generators.probes.probe import Probes
from citlr.generators.probes.training import ProbeSettings, fit_probes
from citlr.generators.quality.cycles import Cycle, cycle_composition, there_and_back
from citlr.generators.quality.drift import drifts
from citlr.generators.quality.features import load_extractor
from citlr.generators.quality.measures import composition, similarity
from citlr.generators.quality.meter import QualityMeter, QualityReport
from citlr.generators.quality.records import Left
from citlr.invariance.records import Estimate
from citlr.run.engines import Engine
from citlr.run.files import atomic_write, read_json, write_json
from citlr.threads import give_back

# Images that are redrawn there and back, and in cycles: each costs the generator that many more draws.
REVERSED = 48


NOT_REDRAWN = (
    "Reversibility and null interventions in a row were not measured: only the images of the generator are at hand, so "
    "nothing can be redrawn."
)
# Below half a step of 256, images redrawn as they are differ from the originals by rounding.
ROUNDED = 1 / 510
AS_THEY_CAME = (
    "The images redrawn under their own level are the originals, but for rounding. That is a null intervention only if "
    "the generator leaves them so: originals put in its place let what redrawing alone changes pass for an effect."
)
# What only an audit adds to the quality of its images.
_OF_AN_AUDIT = ("gates", "carried", "agreement", "unexplained", "curve")


@dataclass(frozen=True)
class QualitySettings:
    """How redrawn images are measured.

    - `hold`: What the generator holds; labels and covariates of the cohort are watched besides.
    - `sizes`: Sides of the images that models read: what is carried is read at each, and at the generator's own.
    - `learning_curve`: Parts of the training split, above 0 and below 1, on which the generator is trained again.
    """

    hold: Sequence[str]
    sizes: Sequence[int] = ()
    probe_steps: int = 800
    features: str = "probe"
    cycles: int = 10
    learning_curve: Sequence[float] = ()
    seed: int = 0


@dataclass(frozen=True)
class Faithfulness:
    """How faithful the redrawn images are, before any gate.

    - `quality`: The measures; None is unknown, and its `notes` say why.
    - `carried`: What share of the attribute the redrawn images carry, at every size that a model reads.
    - `detector` (images, levels, draws, levels): Probability of each level (last axis) that the probe reads off every
      redrawn image, in the plan's order; None when the probe reads no better than chance.
    - `curves`: By the size of the images, what is carried after training on parts of the training split and, last, on
      all of it; empty where that was not asked for, or a probe does not read it.
    - `lefts`: By the size of the images, what redrawing leaves of the difference between recorded levels.
    - `strangers`: Images that somebody else has redrawn as another patient's, each with the image that it shows.
    """

    quality: Quality
    carried: tuple[Carried, ...] = ()
    detector: npt.NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    curves: Curves = field(default_factory=dict)
    lefts: Mapping[int, Left | None] = field(default_factory=dict)
    strangers: tuple[tuple[str, str], ...] = ()

    def carried_at(self, size: int) -> Carried:
        """Find what the redrawn images carry for a model that reads at this size; unknown where nobody looked."""
        for found in self.carried:
            if found.size == size:
                return found
        return Carried(size, {}, f"No probe read the images at {size} pixels, the size that the model reads.")

    def curve_at(self, size: int) -> tuple[CurvePoint, ...]:
        """Give the learning curve for a model that reads at this size; empty where it was not measured."""
        return self.curves.get(size, ())

    def left_at(self, size: int) -> Left | None:
        """Give what redrawing leaves for a model that reads at this size; at the generator's where nobody looked."""
        return self.lefts.get(size, self.quality.left)

    def summary(self) -> str:
        """Say the main numbers in a line."""
        quality = self.quality
        levels = ", ".join(f"{name} {share:.1%}" for name, share in quality.effectiveness.items()) or "unknown"
        moved = ", ".join(
            f"{name} {'unknown' if shift is None else f'{shift:+.3f}'}" for name, shift in quality.drift.items()
        )
        null = "unknown" if quality.composition is None else f"{quality.composition:.4f}"
        shares = "; ".join(
            f"carried at {one.size} pixels "
            + (", ".join(f"{name} {share.estimate:.1%}" for name, share in one.shares.items()) or "unknown")
            for one in self.carried
        )
        return f"composition {null}; effectiveness {levels}; {shares}; drift {moved or 'of nothing held'}"

    def save(self, folder: Path) -> None:
        """Write `quality.json` and `detector.npy`; the JSON last, so that half a measurement is none."""
        content = {name: value for name, value in asdict(self.quality).items() if name not in _OF_AN_AUDIT}
        if self.detector is not None:
            with atomic_write(folder / "detector.npy") as temporary:
                np.save(temporary, self.detector)
        content["carried"] = [asdict(one) for one in self.carried]
        content["curves"] = {str(size): [asdict(one) for one in points] for size, points in self.curves.items()}
        content["lefts"] = {str(size): None if one is None else asdict(one) for size, one in self.lefts.items()}
        content["strangers"] = [list(pair) for pair in self.strangers]
        write_json(folder / "quality.json", {**content, "has_detector": self.detector is not None})


def read_faithfulness(folder: Path) -> Faithfulness:
    """Read what `Faithfulness.save` wrote."""
    if not (folder / "quality.json").is_file():
        raise StateError(
            f"The redrawn images are not measured yet (nothing in '{folder}'): run `citlr generate` first."
        )
    content = read_json(folder / "quality.json")
    detector = np.load(folder / "detector.npy", mmap_mode="r") if content.pop("has_detector") else None
    carried = tuple(
        Carried(
            one["size"],
            {name: Estimate(**share) for name, share in one["shares"].items()},
            one["note"],
            one.get("slope", False),
        )
        for one in content.pop("carried")
    )
    # Measured before there were curves, it has none.
    curves = {int(size): tuple(map(curve_point, points)) for size, points in content.pop("curves", {}).items()}
    lefts = {int(size): None if one is None else Left(**one) for size, one in content.pop("lefts", {}).items()}
    left, strangers = content.pop("left"), tuple(map(tuple, content.pop("strangers", ())))
    quality = Quality(
        **{**content, "notes": tuple(content["notes"]), "gates": (), "left": None if left is None else Left(**left)}
    )
    return Faithfulness(quality, carried, detector, curves, lefts, strangers)


def assess_faithfulness(
    counterfactuals: Counterfactuals,
    train: Cohort,
    validation: Cohort,
    settings: QualitySettings,
    *,
    directory: Path | None = None,
    narrator: Narrator | None = None,
    engine: Engine | None = None,
) -> Faithfulness:
    """Measure the redrawn images."""
    narrator, engine = narrator or QUIET, engine or Engine()
    extractor = load_extractor(settings.features)
    hold, seed = settings.hold, settings.seed
    plan, attribute = counterfactuals.main.plan, counterfactuals.attribute
    again = Retraining(counterfactuals, train, validation, hold, seed, narrator)
    parts = again.parts(settings.learning_curve)
    every = dict.fromkeys((*hold, *counterfactuals.cohort.labels, *counterfactuals.cohort.covariates))
    # What has one value in the training split cannot be told apart there.
    watched = tuple(name for name in every if len(train.frame[name].dropna().unique()) > 1)

    def trained(size: int) -> Probes:
        own = size == plan.size
        asked = ProbeSettings(
            (attribute,), size, labels=watched, steps=settings.probe_steps, architecture="small" if own else "fine"
        )
        place = None if directory is None else directory / "training" / ("" if own else f"at-{size}")
        return fit_probes(train, validation, asked, seed=seed, directory=place, narrator=narrator)

    eyes = {plan.size: trained(plan.size)}
    meter = QualityMeter(eyes[plan.size], attribute=attribute, levels=plan.levels, extractor=extractor)
    chosen = chosen_images(counterfactuals, seed)
    read_quality(meter, counterfactuals.pictures(), chosen, narrator, engine)
    strangers = find_strangers(counterfactuals, seed, narrator, engine)
    there, repeated = _redrawn_again(counterfactuals, settings.cycles, seed, narrator)
    report = _with_null(meter.report(reversibility=there, cycles=repeated), counterfactuals)
    remarks = (
        *null_remarks(report.composition, counterfactuals.generator),
        *_kept_remarks(counterfactuals.generator, attribute),
    )
    report = replace(report, notes=(*report.notes, *remarks))
    report = replace(report, drift=drifts(report.drift, report.readings, counterfactuals.cohort.frame, attribute))
    real, redrawn = report.real_readings, report.attribute_readings
    assert real is not None
    assert redrawn is not None
    assert report.described is not None
    frame, levels = counterfactuals.cohort.frame, counterfactuals.levels
    carried = [carried_by(eyes[plan.size], (real, redrawn), frame, attribute, levels, hold, report.numbers)]
    # What was read shard by shard, and what was freed on the way here, would lie beside the largest step of this stage.
    del meter
    give_back()
    lefts = {plan.size: measure_left(counterfactuals, report.described, chosen, hold, seed)}
    for size in sorted({*settings.sizes} - {plan.size}):
        eyes[size] = trained(size)
        carried.append(read_carried(counterfactuals, eyes[size], hold, narrator, engine))
        lefts[size] = left_at(counterfactuals, size, chosen, hold, seed, narrator=narrator, engine=engine)
    read = {one.size: one.shares for one in carried if one.shares and one.size in (settings.sizes or (plan.size,))}
    curves = again.curves(parts, [eyes[size] for size in read], directory) if parts and read else {}
    lost = counterfactuals.main.not_placed()
    return Faithfulness(
        replace(
            quality_of(report, repeated, lefts[plan.size], hold),
            not_placed=None if lost is None else len(lost),
            misfiled=None if strangers is None else len(strangers),
        ),
        tuple(carried),
        redrawn if eyes[plan.size].trusted[attribute] else None,
        {size: (*points, CurvePoint(len(train), read[size])) for size, points in curves.items()},
        lefts,
        strangers or (),
    )


def null_remarks(composition: float | None, generator: CounterfactualGenerator) -> tuple[str, ...]:
    """Say of somebody else's images that their null interventions are the originals; of ours it is known why."""
    if composition is None or composition > ROUNDED or not isinstance(generator, ImagesOnDisk):
        return ()
    return (AS_THEY_CAME,)


def _kept_remarks(generator: CounterfactualGenerator, attribute: str) -> tuple[str, ...]:
    """Name the parts of an edit that training kept: what they are tells where it may be wrong."""
    if not isinstance(generator, EditGenerator):
        return ()
    kept = generator.kept(attribute)
    return (f"Edits of '{attribute}', of the kinds that brought left-out training patients closer: {kept}.",)


def _with_null(report: QualityReport, counterfactuals: Counterfactuals) -> QualityReport:
    """Measure null interventions where they lie beside the levels: of a number, whose own value is none of them."""
    if counterfactuals.null is None:
        return report
    sums, pictures = np.zeros(2), Pictures(counterfactuals.null, counterfactuals.cohort, counterfactuals.main.plan.size)
    for rows, drawn in pictures:
        images = pictures.originals(rows)
        sums += len(rows) * np.asarray([composition(images, drawn[:, 0]), similarity(images, drawn[:, 0])])
    change, alike = (sums / len(counterfactuals.cohort)).tolist()
    return replace(report, composition=change, similarity=alike)


def quality_of(report: QualityReport, repeated: Mapping[int, Cycle], left: Left | None, hold: Sequence[str]) -> Quality:
    """Put what was measured into the record of an audit; null interventions in a row stand in for one of a number."""
    return Quality(
        left=left,
        composition=repeated[1].difference if repeated and report.composition is None else report.composition,
        effectiveness=report.effectiveness,
        reversibility=report.reversibility,
        minimality=report.minimality,
        drift={name: shift for name, shift in report.drift.items() if name in hold},
        fid=report.fid,
        fid_extractor=report.fid_extractor,
        gates=(),
        notes=(*report.notes, *(() if repeated else (NOT_REDRAWN,))),
        kid=report.kid,
        similarity=repeated[1].similarity if repeated and report.similarity is None else report.similarity,
        auroc=report.auroc,
        error=report.error,
        off_target={name: shift for name, shift in report.drift.items() if name not in hold},
        cycles={str(count): [cycle.difference, cycle.similarity] for count, cycle in repeated.items()},
    )


def _redrawn_again(
    counterfactuals: Counterfactuals, cycles: int, seed: int, narrator: Narrator
) -> tuple[float | None, dict[int, Cycle]]:
    """Redraw a sample there and back, and in cycles; somebody else's images cannot be redrawn."""
    generator, attribute = counterfactuals.generator, counterfactuals.attribute
    if isinstance(generator, ImagesOnDisk):
        return None, {}
    again = _again(counterfactuals)
    with narrator.progress("cycles", cycles + 2) as tick:
        there = there_and_back(generator, *again, attribute=attribute, seed=seed)
        tick(2)
        repeated = cycle_composition(generator, *again, attribute=attribute, cycles=cycles, seed=seed)
        tick(cycles + 2)
    return there, repeated


def _again(counterfactuals: Counterfactuals) -> tuple[Images, pd.DataFrame]:
    """Images and rows that are redrawn again, a sample."""
    part = counterfactuals.cohort.take(np.arange(min(REVERSED, len(counterfactuals.cohort))))
    return part.pixels(size=counterfactuals.main.plan.size), part.frame
