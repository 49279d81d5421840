"""The edit generator: counterfactuals as edits of the original, estimated from unpaired images without a network."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from citlr.data.edits import NOT_PLACED, Edit
from citlr.generators.base import REPLICATES, Images, Levels, Names
from citlr.generators.conditions import Conditions
from citlr.generators.edits.atlas import build_atlas, likeness, register
from citlr.generators.edits.choice import ALPHA, find
from citlr.generators.edits.composition import Middle, edited
from citlr.generators.edits.estimate import Blend, Cases, Learnt
from citlr.generators.edits.family import Edits, Family, Frame
from citlr.generators.edits.fine import placed
from citlr.generators.edits.settings import EditSettings
from citlr.generators.edits.summaries import frame_of, measured
from citlr.generators.edits.warps import inverse, resized
from citlr.generators.effects.aligned import ALIGNMENT, Aligned, of_one
from citlr.generators.effects.contrasts import coded, contrasts, design
from citlr.generators.learnt import LearntGenerator
from citlr.generators.preparation import Prepared
from citlr.generators.redrawing import Editing
from citlr.generators.request import Request
from citlr.generators.variables import Variable
from citlr.randomness import hashed_seed
from citlr.text import joined, listed_few

# Images on which the answers to edits are measured, at most.
MEASURED_ON = 768
# An image whose likeness to the atlas lies this many deviations (by the median) below the median cannot be placed.
UNLIKE = 6.0
NOTHING, UNSURE = "nothing is shown", "something is shown, but no change brings left-out patients closer"
WORDS = {
    "film": "fine structure on the film",
    "atlas": "fine structure in the atlas",
    ALIGNMENT: "the alignment of what is left",
}


class EditGenerator(Editing, LearntGenerator):
    """Redraws an image by an edit: a displacement and a change of appearance, placed by the image's own anatomy.

    Nothing is drawn at random: all draws of a level are alike, and the null intervention is the image itself. Where the
    training images show nothing of an attribute, nothing is changed; `report` says which kinds of change were kept.
    """

    settings = EditSettings
    kind: ClassVar[str] = "edits"
    config: EditSettings
    edits: Edits

    def build(self, conditions: Conditions, *, seed: int) -> None:
        """Make room for what is to be learnt."""
        self.family, self._built = Family(self.size, self.channels), conditions
        self._spans: dict[str, slice] = {}
        self._blends: dict[str, Blend] = {}
        count = 0
        for variable in conditions.attributes:
            own = contrasts(variable).shape[1]
            self._spans[variable.name] = slice(count, count + own)
            count += own
        self.edits = Edits(count, self.family).to(self.device)

    def modules(self) -> dict[str, nn.Module]:
        """Name the one file of weights."""
        return {"edits": self.edits}

    def facts(self) -> dict[str, Any]:
        """Name the attributes of which what edits leave is aligned."""
        names = [self._built.attributes[int(number)].name for number in self.edits.aligned]
        blends = {name: asdict(blend) for name, blend in self._blends.items()}
        return ({"aligned": names} if names else {}) | ({"blends": blends} if blends else {})

    def take(self, facts: Mapping[str, Any]) -> None:
        """Make room for the alignments that were saved."""
        self._blends = {name: Blend(tuple(own["whole"]), own["share"]) for name, own in facts.get("blends", {}).items()}
        for name in facts.get("aligned", ()):
            variable = self._built.attribute(name)
            self._align(variable, Aligned(of_one(self._built, variable), self.channels, self.size))

    def unaligned(self) -> Iterator[Aligned]:
        """Give the alignment, before it is fitted, of each recorded attribute that has none."""
        for number, variable in enumerate(self.conditions.recorded):
            if str(number) not in self.edits.aligned:
                yield Aligned(of_one(self.conditions, variable), self.channels, self.size)

    def _align(self, variable: Variable, aligned: Aligned) -> None:
        number = [one.name for one in self._built.attributes].index(variable.name)
        self.edits.aligned[str(number)] = aligned.to(self.device)

    def weight(self) -> float:
        """Give the configuration's own."""
        return self.config.guidance

    def per_batch(self, request: Request) -> int:
        """Images that are redrawn at a time."""
        return 64

    @torch.no_grad()
    def learn(self, prepared: Prepared) -> None:
        """Find the atlas, how summaries answer to edits, and the edits of every attribute."""
        session, conditions = prepared.session, prepared.conditions
        seed, narrator = session.seed, session.narrator
        rows = some_rows(prepared.splits[0].frame["patient_id"].to_numpy(), self.config.images, seed)
        images, codes = prepared.sets[0].images(rows), prepared.codes[0][torch.from_numpy(rows)]
        patients = prepared.splits[0].frame["patient_id"].to_numpy()[rows]
        narrator.say(f"edits: bringing {len(images)} images together")
        # Estimated on the processor, wherever images are redrawn later.
        atlas = build_atlas(images[: self.config.chosen_on])
        self.edits.atlas.copy_(atlas)
        placed = self._placed(images, atlas)
        lost = prepared.splits[0].frame["image_id"].to_numpy()[rows[~placed.numpy()]]
        if len(lost):
            told = f"{len(lost)} of {len(images)}, {listed_few(lost)}"
            narrator.say(f"edits: training images that {NOT_PLACED} and are left out: {told}")
        images, codes, patients = images[placed], codes[placed], patients[placed.numpy()]
        frame = frame_of(images, atlas)
        table = measured(
            self.family,
            images[:MEASURED_ON],
            Frame(frame.forth[:MEASURED_ON], frame.back[:MEASURED_ON]),
            atlas,
            seed=hashed_seed("answers to edits", seed),
        )
        self.report["edits"] = {"images": len(images), "not_placed": len(lost)}
        for variable in conditions.attributes:
            random = np.random.default_rng(hashed_seed("edits", seed, variable.name))
            own, alone = coded(conditions, variable, codes), of_one(conditions, variable)
            lone = alone, codes[:, conditions.columns(alone.variables)]

            def cases(
                part: slice, variable: Variable = variable, own: Tensor = own, lone: tuple[Conditions, Tensor] = lone
            ) -> Cases:
                lines = design(conditions, variable, codes[part], patients[part])
                way = Frame(frame.forth[part], frame.back[part])
                return Cases(self.family, atlas, images[part], way, own[part], lines, lone[0], lone[1][part])

            def halves(cases: Callable[[slice], Cases] = cases) -> list[Cases]:
                # Rows come by patient, in an order drawn by the seed: halves of them are halves of the patients.
                some = min(len(images), self.config.chosen_on)
                middle = half_of(patients[:some])
                return [cases(slice(middle)), cases(slice(middle, some))]

            found = find(halves, cases(slice(None)), table.double().numpy(), random, seed)
            self._keep(variable, found, random)
            if found.unwritten:
                self.report["edits"][variable.name]["unwritten"] = list(found.unwritten)
            narrator.say(f"edits: {variable.name}: {self.kept(variable.name)}")

    def kept(self, attribute: str) -> str:
        """Name the kinds of change that an attribute's edits are made of, as training chose them."""
        found = self.report["edits"][attribute]
        blend, kinds = found.get("blend"), found["kinds"]
        named = [WORDS.get(kind, kind) for kind in kinds if blend is None or kind != ALIGNMENT]
        said = joined(named, "and") if named else NOTHING if found["p"] > ALPHA else UNSURE
        averaged = "" if blend is None else f", averaged with the alignment (its share is {blend['share']:.0%})"
        return f"{said}{averaged} (p = {found['p']:.3f})"

    def _placed(self, images: Tensor, atlas: Tensor) -> Tensor:
        """Mark the images (n,) that can be brought to the atlas, and remember what is too unlike."""
        like = likeness(images, atlas, register(images, atlas))
        middle = like.median()
        least = middle - UNLIKE * 1.4826 * (like - middle).abs().median()
        self.edits.least.copy_(least)
        return like >= least

    def _keep(self, variable: Variable, found: Learnt, random: np.random.Generator) -> None:
        rows = self._spans[variable.name]
        self.edits.coefficients[rows] = torch.from_numpy(found.edit.coefficients).float()
        self.edits.in_atlas[rows], self.edits.on_film[rows] = found.edit.fine["atlas"], found.edit.fine["film"]
        if set(found.kinds) - {ALIGNMENT}:
            drawn, blend = found.draws(REPLICATES, random), found.blend
            if blend is not None:
                # With the alignment go the kinds that stay whole; both ends are drawn apart (see `Middle.errors`).
                with_it = found.draws(REPLICATES, random) * self.family.columns(blend.whole).double().numpy()
                drawn = (1 - blend.share) ** 0.5 * drawn + blend.share**0.5 * with_it
            self.edits.draws[:, rows] = torch.from_numpy(drawn).float()
        report = {"kinds": list(found.kinds), "p": found.p, "left": found.left}
        if found.aligned is not None:
            self._align(variable, found.aligned)
        if found.blend is not None:
            self._blends[variable.name] = found.blend
            report |= {"blend": asdict(found.blend)}
        self.report["edits"][variable.name] = report

    def _frame(self, images: Tensor) -> tuple[Frame, Tensor]:
        """Register images (n, c, s, s), and mark (n, 1) those that can be brought to the atlas."""
        own = register(images, self.edits.atlas)
        able = likeness(images, self.edits.atlas, own) >= self.edits.least
        forth = resized(own, self.size)
        return Frame(forth, inverse(forth)), able[:, None]

    def _coded(self, codes: Tensor) -> Tensor:
        each = [coded(self.conditions, variable, codes) for variable in self.conditions.attributes]
        return torch.cat(each, dim=1).to(self.device)

    def _edit(
        self,
        images: Tensor,
        change: Tensor,
        frame: Frame,
        extra: Tensor | float = 0.0,
        kinds: tuple[str, ...] | None = None,
    ) -> Tensor:
        """Give edits (n, 2 + c, s, s) by a change of codes (n, contrasts), and `extra` coefficients (n, width).

        With `kinds`, those of some kinds alone.
        """
        own = self.edits.coefficients
        fine = {"atlas": self.edits.in_atlas, "film": self.edits.on_film}
        if kinds is not None:
            own = own * self.family.columns(kinds).to(own)
            fine = {where: maps * (where in kinds) for where, maps in fine.items()}
        added, displacement = self.family.split(images, change @ own + extra, frame)
        return torch.cat([displacement, added + placed(change, fine, frame.back)], dim=1)

    def _middles(self, images: Tensor, codes: Tensor, frame: Frame, able: Tensor) -> Iterator[Middle]:
        """Bring images (n, c, s, s) to the middle of every attribute's levels of which what is left is aligned."""
        factual = self._coded(codes)
        for number, aligned in self.edits.aligned.items():
            assert isinstance(aligned, Aligned)
            name = self.conditions.attributes[int(number)].name
            rows, blend = self._spans[name], self._blends.get(name)
            change = torch.zeros_like(factual)
            change[:, rows] = -factual[:, rows] * able
            edit = self._edit(images, change, frame, kinds=None if blend is None else blend.whole)
            middle, columns = (
                edited(images, edit[:, :2], edit[:, 2:]),
                self.conditions.columns(aligned.conditions.variables),
            )
            share = 1.0 if blend is None else blend.share
            yield Middle(aligned, columns, middle, codes[:, columns], inverse(edit[:, :2]), share)

    def edit_batch(self, images: Tensor, codes: Tensor, ids: list[str], request: Request) -> Tensor:
        """Edit images; what is not intervened on is not touched: (n, levels, 1, 2 + c + 1, s, s).

        The last channel is 1 where the image could be placed, and 0 where it is left as it is.
        """
        own = images.to(self.device)
        frame, able = self._frame(own)
        factual, middles = self._coded(codes), list(self._middles(own, codes, frame, able))
        found, mark = [], able[:, :, None, None].expand(-1, 1, *own.shape[2:]).to(own)
        for requested in request.requested(self.conditions, codes):
            change = request.weight * (self._coded(requested) - factual) * able
            moves = (change != 0).any(dim=1).view(-1, 1, 1, 1)
            edit = self._edit(own, change, frame)
            for middle in middles:
                edit[:, 2:] += request.weight * middle.change(requested)
            found.append(torch.cat([torch.where(moves, edit, 0.0), mark], dim=1))
        return torch.stack(found, dim=1)[:, :, None]

    def redraw_batch(self, images: Tensor, codes: Tensor, ids: list[str], request: Request) -> Tensor:
        """Edit images; all draws are alike."""
        own, edits = images.to(self.device), self.edit_batch(images, codes, ids, request)[:, :, 0]
        redrawn = [edited(own, edit[:, :2], edit[:, 2:-1]) for edit in edits.unbind(dim=1)]
        return torch.stack(redrawn, dim=1)[:, :, None].expand(-1, -1, request.draws, -1, -1, -1)

    def change(self, images: Images, frame: pd.DataFrame, request: Request) -> Edit:
        """Answer a request a batch at a time."""
        found = self.in_batches(images, frame, request, self.edit_batch)[:, :, 0]
        return Edit(found[:, :, :2], found[:, :, 2:-1], found[:, :, -1, 0, 0] > 0)

    def reconstruct_batch(self, images: Tensor) -> Tensor:
        """Keep all of an image."""
        return images

    @torch.no_grad()
    def edit_by_replicates(
        self, images: Images, frame: pd.DataFrame, attribute: Names, levels: Levels, guidance: float | None = None
    ) -> Edit:
        """Give edits to every level but the first, each off by a replicate: (n, levels - 1, replicates, ...).

        A replicate is off by its error of the level's contrast against the first level, both weighted as edits are.
        """
        weight = self.weight() if guidance is None else guidance
        own, conditions = torch.from_numpy(images).to(self.device), self.conditions
        codes, (placed, able) = conditions.encode(frame), self._frame(own)
        factual, middles = self._coded(codes), list(self._middles(own, codes, placed, able))
        requested = [conditions.intervene(codes, attribute, level) for level in levels]
        first, *others = (self._coded(one) for one in requested)
        found = []
        for other, there in zip(others, requested[1:], strict=True):
            change, contrast = weight * (other - factual) * able, weight * (other - first) * able
            each = [self._edit(own, change, placed, contrast @ draw) for draw in self.edits.draws]
            edit = torch.stack(each, dim=1)
            for middle in middles:
                left = middle.change(there)[:, None] + middle.errors(there, requested[0])
                edit[:, :, 2:] += weight * left * able[:, :, None, None, None]
            found.append(edit)
        both = torch.stack(found, dim=1).cpu().numpy()
        return Edit(both[:, :, :, :2], both[:, :, :, 2:])


def half_of(patients: npt.NDArray[Any]) -> int:
    """Give the row at which the second half of the patients begins; the rows of a patient lie together."""
    starts = np.flatnonzero(patients[1:] != patients[:-1]) + 1
    return int(starts[len(starts) // 2])


def some_rows(patients: npt.NDArray[Any], most: int, seed: int) -> npt.NDArray[np.int64]:
    """Give the rows of patients in an order drawn by the seed: whole patients, `most` rows at most."""
    unique, number = np.unique(patients.astype(str), return_inverse=True)
    turn = np.random.default_rng(hashed_seed("edits", seed)).permutation(len(unique))[number]
    order = np.argsort(turn, kind="stable")
    kept = order[:most]
    if len(order) > most and turn[order[most]] == turn[kept[-1]]:
        kept = kept[turn[kept] != turn[kept[-1]]]  # the last patient has more images than there is room for
    return kept.astype(np.int64)
