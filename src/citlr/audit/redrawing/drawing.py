"""What is asked of a cohort's redrawing, and the sets of redrawn images that are written of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from citlr.audit.redrawing.coin import placebo_sample
from citlr.audit.redrawing.replicates import REPLICATE_IMAGES, draw_replicates
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import CounterfactualSet, Images, Plan, write_counterfactuals
from citlr.data.edits import NOT_PLACED, Edit
from citlr.data.leaks import require_unseen
from citlr.data.tables.columns import require_unique
from citlr.data.tables.numbers import is_number
from citlr.doses import RECORDED, as_numbers
from citlr.errors import InputError, require_known
from citlr.generators.base import CounterfactualGenerator, EditingGenerator
from citlr.randomness import COIN, PLACEBO
from citlr.run.engines import Engine
from citlr.text import listed_few
from citlr.values import CountOrNone, Few, Flag, Name, Positive, Seed, Whole, check_fields


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


def require_request(generator: CounterfactualGenerator, cohort: Cohort, request: CohortRequest) -> None:
    """Refuse what cannot be redrawn; errors as of `generate`."""
    levels = choose_levels(generator, request.attribute, request.levels)
    require_known(request.attribute, cohort.frame, f"The cohort has no column '{request.attribute}' to redraw")
    if is_number(cohort.frame[request.attribute]):
        _require_numbers(request.attribute, levels)
    if request.draws < 2:
        raise InputError(
            f"draws is {request.draws}: at least 2 are needed to tell the attribute's effect from generator noise."
        )
    if len(cohort) == 0:
        raise InputError("The cohort has no image to redraw: is the test split empty?")
    require_unique(cohort.frame["image_id"], source="the cohort to redraw", what="image ids")
    for name in ("patient_id", request.attribute):
        missing = cohort.frame[name].isna()
        if missing.any():
            raise InputError(
                f"{int(missing.sum())} of {len(cohort)} images have no '{name}': leave them out, "
                f"cohort.take(cohort.frame['{name}'].notna())."
            )
    require_unseen(cohort, getattr(generator, "seen", ()))


def draw_sets(
    generator: CounterfactualGenerator,
    cohort: Cohort,
    request: CohortRequest,
    root: Path,
    *,
    key: str,
    narrator: Narrator,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Write the images under every level, the coin's and the replicates below `root`; return their numbers."""
    require_request(generator, cohort, request)
    drawing = Drawing(generator, request, root, key, narrator, engine or Engine())
    main = drawing.levels(cohort)
    if is_number(cohort.frame[request.attribute]):
        # Nobody has just one of the values that all are redrawn under.
        drawing.write("null", cohort, request.attribute, (RECORDED,))
    sample = placebo_sample(cohort, request.placebo_images, request.seed)
    if len(sample):
        drawing.write("placebo", cohort.take(sample), PLACEBO, COIN)
    moved = placebo_sample(cohort, request.replicate_images, request.seed)
    with narrator.progress("replicates", len(moved)) as tick:
        draw_replicates(root / "replicates", generator, main, cohort.take(moved), tick=tick, engine=engine)
    return {"images": len(main), "placebo_images": len(sample), "remarks": _remarks(main)}


def _remarks(main: CounterfactualSet) -> list[str]:
    """Name the images that were left as they are, for who can look at them: no page and no audit does."""
    lost = main.not_placed()
    if not lost:
        return []
    told = f"{len(lost)} of {len(main)}, {listed_few(lost)}"
    return [f"generate: test images that {NOT_PLACED} and are left as they are: {told}"]


@dataclass(frozen=True)
class Drawing:
    """Sets of redrawn images of one request, below `root`."""

    generator: CounterfactualGenerator
    request: CohortRequest
    root: Path
    key: str
    narrator: Narrator
    engine: Engine = field(default_factory=Engine)

    def levels(self, cohort: Cohort) -> CounterfactualSet:
        """Write the images under every level."""
        name = self.request.attribute
        return self.write("levels", cohort, name, choose_levels(self.generator, name, self.request.levels))

    def write(self, folder: str, part: Cohort, name: str, levels: tuple[str, ...]) -> CounterfactualSet:
        """Redraw images under the levels of one attribute."""
        frame, request = part.frame, self.request
        edits = isinstance(self.generator, EditingGenerator)
        plan = Plan(
            attribute=name,
            levels=levels,
            draws=request.draws,
            image_ids=tuple(frame["image_id"].astype(str)),
            patient_ids=tuple(frame["patient_id"].astype(str)),
            factual=tuple(frame[name].astype(str)) if name in frame else ("",) * len(frame),
            shard=request.shard,
            size=self.generator.size,
            shared_seeds=request.shared_seeds,
            key=self.key,
            edits=edits,
            alike=edits,
            guidance=request.guidance,
            channels=part.channels,
        )

        draw = _Redrawing(self.generator, request, part, name, levels)
        with self.narrator.progress("generate" if name == request.attribute else name, len(part)) as tick:
            return write_counterfactuals(self.root / folder, plan, draw, tick=tick, engine=self.engine)


@dataclass(frozen=True)
class _Redrawing:
    """Redraws some images at a time: what any process needs for it."""

    generator: CounterfactualGenerator
    request: CohortRequest
    cohort: Cohort
    attribute: str
    levels: tuple[str, ...]

    def __call__(self, rows: range) -> Images | Edit:
        """Give edits (n, levels, 1, ...) where the generator gives them, or pictures."""
        generator, request, part = self.generator, self.request, self.cohort.take(np.arange(rows.start, rows.stop))
        images = part.pixels(size=generator.size)
        asked: dict[str, Any] = {"attribute": self.attribute, "levels": self.levels, "guidance": request.guidance}
        if isinstance(generator, EditingGenerator):
            return generator.edit(images, part.frame, **asked)[:, :, None]
        noise: dict[str, Any] = {name: getattr(request, name) for name in ("draws", "seed", "shared_seeds")}
        return generator.generate(images, part.frame, **asked, **noise)


def choose_levels(generator: CounterfactualGenerator, attribute: str, levels: Sequence[str] | None) -> tuple[str, ...]:
    """Return the levels to redraw under: those asked for, or all that the generator knows; errors as of `generate`."""
    require_known(
        attribute,
        generator.attributes,
        f"The generator cannot intervene on '{attribute}', which it was not trained with",
    )
    known = generator.attributes[attribute]
    if not known and levels is None:
        raise InputError(f"'{attribute}' is a number: say under which values to redraw (levels), for example two ages.")
    chosen = known if levels is None else tuple(levels)
    for level in chosen if known else ():
        require_known(level, known, f"The generator does not know the level '{level}' of '{attribute}'")
    if len(set(chosen)) < 2:
        raise InputError(f"A contrast needs two different levels of '{attribute}'; found {list(chosen)}.")
    return chosen


def _require_numbers(attribute: str, levels: Sequence[str]) -> None:
    strange = [level for level in levels if as_numbers([level]) is None]
    if strange:
        raise InputError(f"'{attribute}' is a number, and its level '{strange[0]}' is none: give numbers, such as 30.")


def require_shown(generator: CounterfactualGenerator, attribute: str, levels: Sequence[str]) -> None:
    """Refuse to redraw a number at a value beyond those that the generator has seen, where it says which they are."""
    span = getattr(generator, "spans", {}).get(attribute)
    numbers = as_numbers(levels)
    if span is None or numbers is None:
        return
    outside = [level for level, value in zip(levels, numbers, strict=True) if not span[0] <= value <= span[1]]
    if outside:
        raise InputError(
            f"No training image shows '{attribute}' = {outside[0]}, they go from {span[0]:g} to {span[1]:g}: give "
            "levels within that range."
        )
