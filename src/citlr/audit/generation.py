"""Redraw the images of a cohort under every level, and a sample of them under both sides of a fair coin."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import stats

from citlr.audit.pictures import Pictures
from citlr.audit.replicates import REPLICATE_IMAGES, draw_replicates
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import CounterfactualSet, Images, Plan, write_counterfactuals
from citlr.data.edits import Edit
from citlr.data.leaks import require_unseen
from citlr.errors import InputError, did_you_mean
from citlr.generators.base import CounterfactualGenerator, EditingGenerator
from citlr.randomness import COIN, PLACEBO, hashed_seed
from citlr.run.files import fingerprint
from citlr.run.stage import Stage, code_version
from citlr.run.stages import Stages
from citlr.values import CountOrNone, Few, Flag, Margin, Name, Number, Positive, Seed, Whole, check_fields, check_value

# The share of moved decisions that a coin's sample is sized by where nothing else is said: the default margin.
PLACEBO_MARGIN = 0.02
# The folders of an audit's pictures.
SETS = ("levels", "placebo", "replicates")


@dataclass(frozen=True)
class Counterfactuals:
    """Every image of a cohort redrawn under every level of its attribute.

    Parameters
    ----------
    cohort : Cohort
        The images that were redrawn, in the order of the plan.
    main : CounterfactualSet
        Under every level of the attribute.
    placebo : CounterfactualSet or None
        A sample under heads and tails of a fair coin, the negative control; None when none was asked for.
    generator : CounterfactualGenerator
        What drew them.
    replicates : CounterfactualSet or None
        A sample moved by what the generator's training split leaves open (see `citlr.audit.replicates`); None where the
        generator does not know it, or none was asked for.
    key : str
        Of the stage that drew them: what is computed from the pictures is kept under it.
    """

    cohort: Cohort
    main: CounterfactualSet
    placebo: CounterfactualSet | None
    generator: CounterfactualGenerator = field(repr=False)
    replicates: CounterfactualSet | None = None
    key: str = ""

    @classmethod
    def open(cls, folder: Path, cohort: Cohort, generator: CounterfactualGenerator, *, key: str = "") -> Self:
        """Open what `generate` wrote; `key` is that of its stage."""
        kept = {name: folder / name for name in ("placebo", "replicates")}
        others = {name: CounterfactualSet.open(path) for name, path in kept.items() if path.is_dir()}
        placebo, replicates = others.get("placebo"), others.get("replicates")
        return cls(cohort, CounterfactualSet.open(folder / "levels"), placebo, generator, replicates, key)

    @property
    def sets(self) -> tuple[CounterfactualSet, ...]:
        """All pictures that a model has to answer."""
        return tuple(part for part in (self.main, self.placebo, self.replicates) if part is not None)

    def pictures(self, size: int | None = None) -> Pictures:
        """Give the pictures under every level for who reads at `size` pixels; the generator's own without it."""
        return Pictures(self.main, self.cohort, self.main.plan.size if size is None else size)

    @property
    def attribute(self) -> str:
        """What was intervened on."""
        return self.main.plan.attribute

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels, in order; a contrast (a, a') is a' minus a."""
        return self.main.plan.levels


@dataclass(frozen=True)
class CohortRequest:
    """How a cohort is redrawn: what `generate` is asked for, less the generator and the images.

    `levels` of None are all that the generator knows, `guidance` of None is its own; `placebo_images` and
    `replicate_images` are the sizes of the two samples, see `generate`.
    """

    attribute: Name
    levels: tuple[str, ...] | None = None
    draws: Annotated[Whole, Field(ge=1, le=1000)] = 4
    guidance: Positive | None = None
    shared_seeds: Flag = True
    placebo_images: CountOrNone = 0
    replicate_images: CountOrNone = REPLICATE_IMAGES
    seed: Seed = 0
    shard: Few = 32

    def __post_init__(self) -> None:
        check_fields(self)


def generate(
    generator: CounterfactualGenerator,
    cohort: Cohort,
    *,
    attribute: str,
    draws: int = 4,
    levels: Sequence[str] | None = None,
    guidance: float | None = None,
    shared_seeds: bool = True,
    placebo_images: int | None = None,
    margin: float = PLACEBO_MARGIN,
    replicate_images: int = REPLICATE_IMAGES,
    seed: int = 0,
    out: str | Path | None = None,
    shard: int = 32,
    narrator: Narrator | None = None,
) -> Counterfactuals:
    """Redraw every image of a cohort under every level of an attribute.

    Parameters
    ----------
    generator : CounterfactualGenerator
        A fitted one.
    cohort : Cohort
        The images to redraw, none of which may have trained the generator: usually the test split.
    attribute : str
        What to intervene on.
    draws : int
        Draws per level, at least 2; the noise of a draw is shared by the levels when `shared_seeds`.
    levels : sequence of str, optional
        The levels, in order; all that the generator knows by default.
    guidance : float, optional
        Strength of the condition; the generator's own calibrated value when None.
    placebo_images : int, optional
        Size of the sample that is redrawn under both sides of a coin; 0 for no negative control, None for as many as
        notice a coin that moves a share `margin` of the outputs (see `placebo_size`).
    margin : float
        That of the audit to come, in (0, 1); one above the default asks for no smaller sample.
    replicate_images : int
        Size of the sample that is moved by replicates of the generator's mean effect; 0 for none: the generator is then
        taken as if it had learnt from endless images.
    seed : int
        Of every draw.
    out : path-like, optional
        Folder to write to and to go on in; a temporary one when None. What another generator, cohort or setting left in
        it is replaced.
    shard : int
        Images per file.
    narrator : Narrator, optional
        Shows progress.

    Returns
    -------
    Counterfactuals
        Handles to the pictures on disk.

    Raises
    ------
    InputError
        If the attribute or a level is unknown, the cohort is empty or holds a patient the generator learnt from, or
        `draws` is below 2.
    """
    narrator = narrator or Narrator(quiet=True)
    request = CohortRequest(
        attribute=attribute,
        levels=None if levels is None else tuple(levels),
        draws=draws,
        guidance=guidance,
        shared_seeds=shared_seeds,
        placebo_images=coin_sample(placebo_images, margin),
        replicate_images=replicate_images,
        seed=seed,
        shard=shard,
    )
    require_request(generator, cohort, request)
    root = Path(tempfile.mkdtemp(prefix="citlr-") if out is None else out)
    stages = Stages(root, narrator)
    stage = generate_stage(lambda: generator, cohort, request, after=(generator.fingerprint(),), narrator=narrator)
    with stages.locked():
        record = stages.do(stage)
    counterfactuals = Counterfactuals.open(root, cohort, generator, key=record.key)
    if out is None:
        # A folder that nobody asked for lives as long as the counterfactuals.
        weakref.finalize(counterfactuals, shutil.rmtree, root, ignore_errors=True)
    return counterfactuals


def generate_stage(
    generator: Callable[[], CounterfactualGenerator],
    cohort: Cohort,
    request: CohortRequest,
    *,
    after: tuple[str, ...],
    narrator: Narrator,
    where: str = "",
) -> Stage:
    """Return the stage that redraws a cohort into the folder `where` of the stages.

    `after` names the generator by its fingerprint or by the key of the stage that trained it.
    """
    inputs = {"generate": asdict(request), "cohort": cohort.fingerprint()}
    key = fingerprint([code_version(), inputs, list(after)])

    def work(folder: Path) -> dict[str, Any]:
        return draw_sets(generator(), cohort, request, folder / where, key=key, narrator=narrator)

    places = (where,) if where else SETS
    return Stage("generate", inputs, work, places, after)


def require_request(generator: CounterfactualGenerator, cohort: Cohort, request: CohortRequest) -> None:
    """Refuse what cannot be redrawn; errors as of `generate`."""
    choose_levels(generator, request.attribute, request.levels)
    if request.draws < 2:
        raise InputError(
            f"draws is {request.draws}: at least 2 are needed to tell the attribute's effect from generator noise."
        )
    if len(cohort) == 0:
        raise InputError("The cohort has no image to redraw: is the test split empty?")
    require_unseen(cohort, getattr(generator, "seen", ()))


def draw_sets(
    generator: CounterfactualGenerator,
    cohort: Cohort,
    request: CohortRequest,
    root: Path,
    *,
    key: str,
    narrator: Narrator,
) -> dict[str, Any]:
    """Write the pictures under every level, the coin's and the replicates below `root`; return their numbers."""
    require_request(generator, cohort, request)
    levels = choose_levels(generator, request.attribute, request.levels)

    def draw_set(folder: str, part: Cohort, name: str, of: tuple[str, ...]) -> CounterfactualSet:
        frame = part.frame
        plan = Plan(
            attribute=name,
            levels=of,
            draws=request.draws,
            image_ids=tuple(frame["image_id"].astype(str)),
            patient_ids=tuple(frame["patient_id"].astype(str)),
            factual=tuple(frame[name].astype(str)) if name in frame else ("",) * len(frame),
            shard=request.shard,
            size=generator.size,
            shared_seeds=request.shared_seeds,
            key=key,
            edits=isinstance(generator, EditingGenerator),
            alike=isinstance(generator, EditingGenerator),
        )

        def draw(rows: range) -> Images | Edit:
            index = np.arange(rows.start, rows.stop)
            images = part.pixels(index, size=generator.size)
            own = frame.iloc[index].reset_index(drop=True)
            if isinstance(generator, EditingGenerator):
                return generator.edit(images, own, attribute=name, levels=of, guidance=request.guidance)[:, :, None]
            return generator.generate(
                images,
                own,
                attribute=name,
                levels=of,
                draws=request.draws,
                seed=request.seed,
                guidance=request.guidance,
                shared_seeds=request.shared_seeds,
            )

        with narrator.progress("generate" if name == request.attribute else name, len(part)) as tick:
            return write_counterfactuals(root / folder, plan, draw, tick=tick)

    main = draw_set("levels", cohort, request.attribute, levels)
    sample = placebo_sample(cohort, request.placebo_images, request.seed)
    if len(sample):
        draw_set("placebo", cohort.take(sample), PLACEBO, COIN)
    moved = placebo_sample(cohort, request.replicate_images, request.seed)
    with narrator.progress("replicates", len(moved)) as tick:
        draw_replicates(root / "replicates", generator, main, cohort.take(moved), tick=tick)
    return {"images": len(main), "placebo_images": len(sample)}


def placebo_size(margin: float, *, power: float = 0.80) -> int:
    """Give the number of images that a coin is audited on, so that a generator that lets it show is noticed.

    If the coin moves a share `margin` of the decisions one way, the default test sees about `n * margin` of them. Six
    that agree are the fewest that random signs produce in less than 5 % of cases (2 / 2^6), so n is the smallest number
    at which six or more are drawn with probability `power`.

    Examples
    --------
    >>> placebo_size(0.02), placebo_size(0.1)
    (394, 78)
    """
    margin = check_value("margin", margin, Margin)
    power = check_value("power", power, Annotated[Number, Field(gt=0, lt=1)])
    fewest = 6

    def enough(size: int) -> bool:
        return bool(stats.binom.sf(fewest - 1, size, margin) >= power)

    # The probability grows with the size: double it until it is enough, then halve the way back.
    high = fewest
    while not enough(high):
        high *= 2
    return bisect_left(range(high + 1), True, lo=fewest, key=enough)


def coin_sample(wanted: int | None, margin: float = PLACEBO_MARGIN) -> int:
    """Return how many images the coin is audited on; a margin above the default asks for no fewer.

    So that moving the margin upwards redraws nothing.

    Examples
    --------
    >>> coin_sample(None, 0.05), coin_sample(None, 0.01) > 700, coin_sample(8, 0.05)
    (394, True, 8)
    """
    return placebo_size(min(margin, PLACEBO_MARGIN)) if wanted is None else wanted


def placebo_sample(cohort: Cohort, n_images: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the rows of the images that the coin is audited on: one per patient first, drawn by a keyed order.

    The order is a hash of the seed and the image, so that a larger sample contains a smaller one.
    """
    frame = cohort.frame[["image_id", "patient_id"]].assign(
        order=[hashed_seed("placebo sample", seed, name) for name in cohort.frame["image_id"]]
    )
    frame = frame.sort_values("order")
    frame["repeat"] = frame.groupby("patient_id").cumcount()
    rows = frame.sort_values(["repeat", "order"]).index.to_numpy()[:n_images]
    return np.sort(rows).astype(np.int64)


def choose_levels(generator: CounterfactualGenerator, attribute: str, levels: Sequence[str] | None) -> tuple[str, ...]:
    """Return the levels to redraw under: those asked for, or all that the generator knows; errors as of `generate`."""
    if attribute not in generator.attributes:
        near = did_you_mean(attribute, generator.attributes)
        raise InputError(f"The generator cannot intervene on '{attribute}', which it was not trained with.{near}")
    known = generator.attributes[attribute]
    if not known and levels is None:
        raise InputError(f"'{attribute}' is a number: say under which values to redraw (levels), for example two ages.")
    chosen = known if levels is None else tuple(levels)
    for level in chosen if known else ():
        if level not in known:
            raise InputError(
                f"The generator does not know the level '{level}' of '{attribute}'.{did_you_mean(level, known)}"
            )
    if len(set(chosen)) < 2:
        raise InputError(f"A contrast needs two different levels of '{attribute}'; found {list(chosen)}.")
    return chosen
