"""Redraw the images of a cohort under every level, and a sample of them under both sides of a fair coin."""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from citlr.audit.redrawing.coin import PLACEBO_MARGIN, coin_sample
from citlr.audit.redrawing.drawing import CohortRequest, draw_sets, require_request, require_shown
from citlr.audit.redrawing.pictures import Pictures
from citlr.audit.redrawing.replicates import REPLICATE_IMAGES
from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import CounterfactualSet
from citlr.doses import number_levels
from citlr.errors import InputError, is_listed, require_kind
from citlr.generators.base import CounterfactualGenerator
from citlr.run.engines import Engine
from citlr.run.files import fingerprint
from citlr.run.stage import Stage, code_version
from citlr.run.stages import Stages
from citlr.text import listed_few, visible

if TYPE_CHECKING:
    # A second of statistics, which redrawing has no need of.
    from citlr.audit.measures.unexplained import Assigned

# The folders of an audit's pictures.
SETS = ("levels", "null", "placebo", "replicates")


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
        A sample moved by what the generator's training split leaves open (see
        `citlr.audit.redrawing.replicates`); None where the generator does not know it, or none was asked for.
    null : CounterfactualSet or None
        Every image under its own value of an attribute that is a number; None of one with levels, where the own one is
        among those of `main`.
    key : str
        Of the stage that drew them: what is computed from the pictures is kept under it.
    assigned : dict
        Who has which level given what is recorded, as the first model's audit estimates it for the next ones.
    """

    cohort: Cohort
    main: CounterfactualSet
    placebo: CounterfactualSet | None
    generator: CounterfactualGenerator = field(repr=False)
    replicates: CounterfactualSet | None = None
    key: str = ""
    null: CounterfactualSet | None = None
    assigned: "Assigned" = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        """Say what was redrawn, in a few lines."""
        plan = self.main.plan
        beside = [name for name in ("placebo", "replicates") if getattr(self, name) is not None]
        return visible(
            f"Counterfactuals of {len(plan.image_ids)} images, {len(set(plan.patient_ids))} patients\n"
            f"  {plan.attribute}: {listed_few(plan.levels)}; {plan.draws} draws per level\n"
            f"  {'edits' if plan.edits else 'pictures'} at {plan.size} pixels, by {type(self.generator).__name__}\n"
            f"  beside them: {', '.join(beside) or 'nothing'}"
        )

    @classmethod
    def open(cls, folder: Path, cohort: Cohort, generator: CounterfactualGenerator, *, key: str = "") -> Self:
        """Open what `generate` wrote; `key` is that of its stage."""
        kept = {name: folder / name for name in ("placebo", "replicates", "null")}
        others = {name: CounterfactualSet.open(path) for name, path in kept.items() if path.is_dir()}
        placebo, replicates = others.get("placebo"), others.get("replicates")
        main = CounterfactualSet.open(folder / "levels")
        return cls(cohort, main, placebo, generator, replicates, key, others.get("null"))

    @property
    def sets(self) -> tuple[CounterfactualSet, ...]:
        """All pictures that a model has to answer."""
        return tuple(part for part in (self.main, self.null, self.placebo, self.replicates) if part is not None)

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


def generate(
    generator: CounterfactualGenerator,
    cohort: Cohort,
    *,
    attribute: str,
    draws: int = 4,
    levels: Sequence[str] | Sequence[float] | None = None,
    guidance: float | None = None,
    shared_seeds: bool = True,
    placebo_images: int | None = None,
    margin: float = PLACEBO_MARGIN,
    replicate_images: int = REPLICATE_IMAGES,
    seed: int = 0,
    out: str | Path | None = None,
    shard: int = 32,
    engine: Literal["loky", "dask", "ray"] = "loky",
    workers: int = 1,
    scheduler: str | None = None,
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
        The levels, in order; all that the generator knows by default. Of a number, such as the age, the values to
        redraw at, `["30", "50", "70"]` or `[30, 50, 70]`; images are then redrawn under their own value besides.
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
        it is replaced, and counterfactuals that were opened before are then refused.
    shard : int
        Images per file.
    engine : {"loky", "dask", "ray"}
        Where files are drawn: in processes of this machine (this one alone with one worker), on a Dask or a Ray cluster
        whose machines reach `out`. The images are the same. Processes compute with as many threads as this one:
        give workers and threads as there are cores.
    workers : int
        Processes, at least 1, where they are started here.
    scheduler : str, optional
        Address of a running cluster; without it one is started here.
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
        `draws` is below 2; or no cluster answers, or the generator cannot be sent to other processes.
    StateError
        If workers die again and again at one file, the disk is full, or another process works in `out`.
    """
    if not hasattr(generator, "attributes"):
        raise InputError(f"generator is a {type(generator).__name__}; give a fitted one, as load_generator reads it.")
    require_kind(cohort, Cohort, "cohort", "a cohort, such as citlr.read_cohort(...).part('test')")
    if isinstance(levels, set | frozenset | Mapping):
        raise InputError(f"levels is a {type(levels).__name__}, which has no order; give a list.")
    if levels is not None and not is_listed(levels):
        raise InputError(f"levels is a {type(levels).__name__}; give a list.")
    narrator = narrator or QUIET
    request = CohortRequest(
        attribute=attribute,
        levels=None if levels is None else tuple(number_levels([*levels])),
        draws=draws,
        guidance=guidance,
        shared_seeds=shared_seeds,
        placebo_images=coin_sample(placebo_images, margin),
        replicate_images=replicate_images,
        seed=seed,
        shard=shard,
    )
    chosen = Engine(engine, workers, scheduler, narrator)
    require_request(generator, cohort, request)
    require_shown(generator, attribute, request.levels or ())
    root = Path(tempfile.mkdtemp(prefix="citlr-") if out is None else out)
    stages = Stages(root, narrator)
    stage = generate_stage(
        lambda: generator, cohort, request, after=(generator.fingerprint(),), narrator=narrator, engine=chosen
    )
    with stages.locked():
        record = stages.do(stage)
    for remark in record.facts["remarks"]:
        narrator.say(remark)
    counterfactuals = Counterfactuals.open(root, cohort, generator, key=record.key)
    if out is None:
        # A folder that nobody asked for lives as long as the handle of its pictures, which copies share.
        weakref.finalize(counterfactuals.main, shutil.rmtree, root, ignore_errors=True)
    return counterfactuals


def generate_stage(
    generator: Callable[[], CounterfactualGenerator],
    cohort: Cohort,
    request: CohortRequest,
    *,
    after: tuple[str, ...],
    narrator: Narrator,
    where: str = "",
    engine: Engine | None = None,
) -> Stage:
    """Return the stage that redraws a cohort into the folder `where` of the stages.

    `after` names the generator by its fingerprint or by the key of the stage that trained it.
    """
    inputs = {"generate": asdict(request), "cohort": cohort.fingerprint()}
    key = fingerprint([code_version(), inputs, list(after)])

    def work(folder: Path) -> dict[str, Any]:
        return draw_sets(generator(), cohort, request, folder / where, key=key, narrator=narrator, engine=engine)

    places = (where,) if where else SETS
    return Stage("generate", inputs, work, places, after)
