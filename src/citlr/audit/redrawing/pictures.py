"""Redrawn images as somebody sees them who reads at another size than the generator's: made of the originals there.

At the generator's own size a kept picture is what it is. Above it, and of edits at every size, originals are decoded at
the size that is asked for, a shard at a time, and what redrawing changed is put into them. An edit is drawn into the
original at its native size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from citlr.audit.redrawing.native import Native
from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import CounterfactualSet
from citlr.data.edits import Edit
from citlr.generators.base import Images
from citlr.generators.edits.composition import compose_change

Rows = npt.NDArray[np.intp]
# Images in memory at a time: so many, and so many pixels (64 MiB).
AT_A_TIME, PIXELS = 256, 2**24


@dataclass(frozen=True)
class Pictures:
    """The redrawn images of a set for who reads at `size` pixels."""

    part: CounterfactualSet
    cohort: Cohort
    size: int

    @property
    def side(self) -> int:
        """Side that they come in, pixels: who reads at less than a kept picture has shrinks it himself."""
        return self.size if self.part.plan.edits else max(self.size, self.part.plan.size)

    @property
    def has_coarse(self) -> bool:
        """Whether there is detail that the generator cannot see, and that no edit touches."""
        return self.size > self.part.plan.size

    def originals(self, rows: Sequence[int], size: int | None = None) -> Images:
        """Decode the images as they came, (n, c, side, side), by their positions in the plan."""
        return self.cohort.pixels(self._own(rows), size=self.side if size is None else size)

    def _own(self, rows: Sequence[int]) -> list[int]:
        """Give the rows of the cohort of positions in the plan."""
        place = {name: row for row, name in enumerate(self.cohort.frame["image_id"].astype(str))}
        return [place[self.part.plan.image_ids[row]] for row in rows]

    def batches(
        self, number: int, *, draws: int | None = None, places: Sequence[int] | None = None
    ) -> Iterator[Images]:
        """Give the first draws (all that are kept, without a number) of a shard: (k, c, side, side), image by image.

        `places` are those of its images that are wanted, all without it.
        """
        shard, plan = self.part.read(number), self.part.plan
        drawn = shard.drawn if draws is None else shard.drawn[:, :, :draws]
        rows: Sequence[int] = shard.rows
        if places is not None:
            drawn, rows = drawn[list(places)], [shard.rows[place] for place in places]
        per_image = drawn.shape[1] * drawn.shape[2]
        flat = drawn.reshape(-1) if isinstance(drawn, Edit) else drawn.reshape(-1, *drawn.shape[3:])
        sources = self._sources(rows)
        step = max(1, min(AT_A_TIME, PIXELS // self.side**2))
        for start in range(0, flat.shape[0], step):
            part = flat[start : start + step]
            owner = np.arange(start, min(start + step, flat.shape[0])) // per_image
            if isinstance(part, Edit):
                yield self._edited(rows, sources[0], owner, part)
            elif self.side == plan.size:
                yield part
            else:
                yield compose_change(sources[0][owner], part, sources[1][owner])

    def put_back(self, number: int) -> Images:
        """Give a shard's originals, moved as far as any of their edits moves them, and put back: (b, c, side, side)."""
        shard = self.part.read(number)
        assert isinstance(shard.drawn, Edit)
        ways = shard.drawn.displacement[:, :, 0]
        farthest = np.square(ways).sum(axis=(2, 3, 4)).argmax(axis=1)
        drawn, way = self.originals(shard.rows), ways[np.arange(len(ways)), farthest]
        for place, native in self._native(shard.rows, drawn, np.arange(len(ways)), way.any(axis=(1, 2, 3))):
            drawn[place] = native.put_back(way[place])
        return drawn

    def _edited(self, rows: Sequence[int], originals: Images, owner: Rows, edits: Edit) -> Images:
        """Edit images (k, c, side, side): for every edit, the place of its original in `rows`."""
        drawn = originals[owner]
        moves, adds = (np.any(part, axis=(1, 2, 3)) for part in (edits.displacement, edits.added))
        for place, native in self._native(rows, originals, owner, np.logical_or(moves, adds)):
            drawn[place] = native.edited(edits[place])
        return drawn

    def _native(
        self, rows: Sequence[int], originals: Images, owner: Rows, wanted: npt.NDArray[np.bool_]
    ) -> Iterator[tuple[int, Native]]:
        """Give the places of edits that are `wanted` (k,), and the image of each at its native size."""
        own, native, last = self._own(rows), None, -1
        for place in np.flatnonzero(wanted):
            if native is None or owner[place] != last:
                last = int(owner[place])
                # A source of somebody's own may give squares of a size that is asked for, and nothing else.
                finer = hasattr(self.cohort.pixel_source, "native")
                picture = self.cohort.native(own[last]) if finer else originals[last]
                native = Native.of(picture, originals[last], self.cohort.fit)
            yield int(place), native

    def _sources(self, rows: Sequence[int]) -> tuple[Images, ...]:
        """Decode what pictures are made of: originals, and those at the generator's size for pictures."""
        if self.part.plan.edits:
            return (self.originals(rows),)
        if self.side == self.part.plan.size:
            return ()
        return self.originals(rows), self.originals(rows, self.part.plan.size)

    def read(self, number: int, *, draws: int | None = None) -> Images:
        """Give a shard's images, the first draws or all: (b, levels, draws, c, side, side)."""
        plan = self.part.plan
        images = np.concatenate(list(self.batches(number, draws=draws)))
        shape = (len(plan.rows(number)), len(plan.levels), -1, *images.shape[1:])
        wanted = plan.draws if draws is None else min(draws, plan.draws)
        images = images.reshape(shape)
        return images if images.shape[2] == wanted else np.repeat(images, wanted, axis=2)

    def __iter__(self) -> Iterator[tuple[range, Images]]:
        """Give the rows and the images of every shard, one in memory at a time."""
        for number in range(self.part.plan.n_shards):
            yield self.part.plan.rows(number), self.read(number)
