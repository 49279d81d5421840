"""Alignment of images or latents: an attribute's mean and covariance are taken off, and given back exactly.

`y = m(h) + T_a (x - m(h) - e_a(h))`, where `m` is the mean given the held covariates h, `e_a` the mean effect of level
a, which may differ with what is held (see `joint`), and `T_a` the optimal transport from the level's covariance to the
levels' barycentre (see `transport`). The way back under any level is its inverse. What is left to the disentangler and
the denoiser is what is not normal about the attribute. Of latents that are to hide the attribute, what the held
covariates do is taken off too: these tell the attribute wherever the two go together, and the denoiser is told them
anyway.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from citlr.errors import StateError
from citlr.generators.conditions import Conditions
from citlr.generators.effects.components import principal_components
from citlr.generators.effects.contrasts import by_patient
from citlr.generators.effects.joint import JointEffects
from citlr.generators.effects.transport import Floats, level_covariances, move, plain_covariances, ways_to_barycentre
from citlr.generators.variables import Variable
from citlr.learning.scratch import ScratchRows, scratch_rows
from citlr.learning.store import Dataset, Rows, by_codes, sample_rows, spans
from citlr.randomness import PLACEBO, hashed_seed

Singles = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]
# Patients per component at least: of images, where a covariance of more components than that is noise and is given back
# with the level; of latents, where it is only taken off, and what is left untouched can be read.
PATIENTS_PER_COMPONENT = 20
PATIENTS_PER_HIDDEN_COMPONENT = 4
# Shapes of products are multiples of this.
BLOCK = 16


class Alignment(nn.Module):
    """Aligns arrays (n, *shape) over the attributes' levels, and back; changes nothing until it is fitted.

    - `shape`: Of one image, (1, s, s), or of one latent, (c, h, w).
    - `components`: Principal components within which covariances are aligned, at most; outside of them only means are.
    - `hidden`: Images are restored to other levels: every attribute is aligned, the coin too (an audit of the coin has
      to see what the maps invent), and a level's covariance differs from the pooled one only where a change is shown
      (see `level_covariances`). With `hidden`, nothing is ever restored, and nothing is to be read any more: what is
      held is aligned first, then the attributes, in all directions; the coin, which is no secret, is left alone.
    """

    centre: Tensor
    effects: Tensor
    basis: Tensor
    used: Tensor
    inside: Tensor

    def __init__(self, conditions: Conditions, shape: Sequence[int], components: int, *, hidden: bool = False) -> None:
        super().__init__()
        self.conditions, self.entries, self.hidden = conditions, math.prod(shape), hidden
        self.components = min(components, self.entries)
        self.register_buffer("centre", torch.zeros(self.entries))
        # One row per column of a code: those of attributes are taken off and given back, the held ones are the mean.
        self.register_buffer("effects", torch.zeros(conditions.width, self.entries))
        self.register_buffer("basis", torch.zeros(self.components, self.entries))
        # What of the basis is not zero: few components where images are few, few pixels where few show the attribute.
        self.register_buffer("used", torch.zeros(0, 0), persistent=False)
        self.register_buffer("inside", torch.zeros(0, dtype=torch.int64), persistent=False)
        # What is never restored needs no finer means.
        self.joint = None if hidden else JointEffects(conditions, self.entries)
        for k, variable in self._mapped():
            same = torch.eye(self.components).repeat(len(variable.levels), 1, 1)
            self.register_buffer(f"forth{k}", same.clone())
            if not hidden:
                self.register_buffer(f"back{k}", same.clone())

    def _mapped(self) -> list[tuple[int, Variable]]:
        """List the variables whose covariances are aligned; a number has a mean effect, and no covariance.

        The attributes come last: what the maps before them do to the levels' covariances is made alike again.
        """
        count = len(self.conditions.attributes)
        every = list(enumerate(self.conditions.variables))
        chosen = every[count:] + every[:count] if self.hidden else every[:count]
        return [(k, one) for k, one in chosen if one.levels and not (self.hidden and one.name == PLACEBO)]

    def forward(self, images: Tensor, codes: Tensor) -> Tensor:
        """Align images or latents whose factual codes are (n, width); grey values may leave [0, 1] a little."""
        codes = codes.to(images.device)
        mean, effect = self._means(codes)
        rest = images.flatten(1) - mean - effect
        kept = self.centre if self.hidden else mean
        return (kept + self._moved(rest, codes, "forth")).reshape(images.shape)

    def undo(self, aligned: Tensor, codes: Tensor) -> Tensor:
        """Restore aligned images to the levels of `codes` (n, width); the inverse of `forward` under the same codes."""
        if self.hidden:
            raise StateError("Hidden latents have no way back; the alignment of images has one.")
        codes = codes.to(aligned.device)
        mean, effect = self._means(codes)
        rest = aligned.flatten(1) - mean
        return (mean + effect + self._moved(rest, codes, "back")).reshape(aligned.shape)

    def mark(self) -> str:
        """Name the fitted maps."""
        digest = hashlib.blake2b(digest_size=8)
        for value in self.state_dict().values():
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def fit(
        self,
        pixels: Rows,
        codes: Tensor,
        patients: npt.ArrayLike,
        *,
        seed: int,
        where: Tensor | None = None,
        directory: Path | None = None,
    ) -> dict[str, int]:
        """Estimate means and maps, every patient counting once; in `directory` lies what would take much memory.

        Shapes: `pixels` (n, *shape), `codes` (n, width), `patients` (n,).
        """
        mask = torch.ones(self.entries) if where is None else where.flatten().cpu()
        numbers, every = by_patient(np.asarray(patients).astype(str))
        self._fit_means(pixels, codes, torch.from_numpy(every), mask.double())
        random = np.random.default_rng(hashed_seed("alignment", seed))
        rows, inside = sample_rows(len(pixels), random), mask.numpy() > 0
        number, weights = by_patient(numbers[rows])
        per_component = PATIENTS_PER_HIDDEN_COMPONENT if self.hidden else PATIENTS_PER_COMPONENT
        count = min(self.components, (int(number.max()) + 1) // per_component, int(inside.sum()))
        if count < 1:
            return {variable.name: 0 for _, variable in self._mapped()}

        def rests() -> Iterator[npt.NDArray[np.float32]]:
            return (rest[:, inside] for rest in self._rests(pixels, codes, rows, np.sqrt(weights)))

        with scratch_rows(directory, (len(rows), count)) as parts:
            self._fit_basis(rests, parts, inside, random)
            return self._fit_every_map(parts, codes[torch.from_numpy(rows)], number, random)

    def _fit_basis(
        self, rests: Callable[[], Iterator[Singles]], parts: ScratchRows, inside: Mask, random: np.random.Generator
    ) -> None:
        """Find the principal components of residuals (n, entries inside), and fill in their parts (n, components)."""
        count = parts.shape[1]
        basis = principal_components(rests, width=int(inside.sum()), count=count, random=random)
        self.basis[:count] = 0
        self.basis[:count, torch.from_numpy(inside)] = torch.from_numpy(basis).T
        self._find_used()
        for part, rest in zip(spans(len(parts)), rests(), strict=True):
            parts[part] = rest @ basis

    def _means(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean given what is held, and the attributes' mean effect: (n, entries) each."""
        names = [variable.name for variable in self.conditions.held]
        start = self.conditions.span(names[0]).start if names else codes.shape[1]
        mean, effect = self.centre + codes[:, start:] @ self.effects[start:], codes[:, :start] @ self.effects[:start]
        return mean, effect if self.joint is None else effect + self.joint(codes)

    def _moved(self, rest: Tensor, codes: Tensor, way: str) -> Tensor:
        parts = rest[:, self.inside] @ self.used.T
        moved = parts
        variables = self._mapped()
        for k, variable in variables if way == "forth" else reversed(variables):
            own = codes[:, self.conditions.span(variable.name)]
            maps: Tensor = getattr(self, f"{way}{k}")[:, : len(self.used), : len(self.used)]
            # The last column of a code says that no level is given: nothing moves then.
            # Level by level: one product over all of them would hold a matrix per image.
            each = [own[:, [level]] * (moved @ one.T) for level, one in enumerate(maps)]
            moved = own[:, -1:] * moved + torch.stack(each).sum(dim=0)
        return rest.index_add(1, self.inside, (moved - parts) @ self.used)

    def _find_used(self) -> None:
        rows, pixels = self.basis.any(dim=1), self.basis.any(dim=0)
        self.inside = (~pixels).to(torch.uint8).sort(stable=True).indices[: _padded(pixels)].sort().values
        self.used = self.basis[: _padded(rows)][:, self.inside].contiguous()

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._find_used()

    def _fit_means(self, pixels: Rows, codes: Tensor, weights: Tensor, where: Tensor, ridge: float = 1.0) -> None:
        """Regress the pixels on all codes; each variable's part is zero on average, that of a missing value zero."""
        weigh, patients = weights[:, None], float(weights.sum())
        average = (weigh * codes.double()).sum(dim=0) / patients
        design = codes.double() - average
        weighed = weigh * design
        cross = torch.zeros(codes.shape[1], self.entries, dtype=torch.float64)
        total = torch.zeros(self.entries, dtype=torch.float64)
        for part in spans(len(pixels)):
            rows = torch.from_numpy(np.asarray(pixels[part], dtype=np.float64)).flatten(1)
            cross += weighed[part].T @ rows
            total += (weigh[part] * rows).sum(dim=0)
        effects = torch.linalg.solve(weighed.T @ design + ridge * torch.eye(len(cross), dtype=torch.float64), cross)
        centre = total / patients
        if self.joint is not None:
            taken = self.joint.fit(pixels, codes, effects, weights=weights, where=where, ridge=ridge)
            effects, centre = effects - taken[:-1], centre - taken[-1]
        for variable in self.conditions.variables:
            own = self.conditions.span(variable.name)
            if variable.levels:
                # A slope is none of the flag's business: a number is standardised, and its effect zero at the mean.
                effects[own] -= average[own] @ effects[own]
            effects[own.stop - 1] = 0
            if self.hidden and variable.name == PLACEBO:
                effects[own] = 0
        self.centre.copy_(centre.float())
        self.effects.copy_(effects.float())

    def _rests(self, pixels: Rows, codes: Tensor, rows: npt.NDArray[np.int64], roots: Floats) -> Iterator[Singles]:
        """Give residuals (some rows, entries), times the roots of weights (some rows,), piece by piece."""
        for part in spans(len(rows)):
            mean, effect = self._means(codes[rows[part]].to(self.centre.device))
            images = torch.from_numpy(np.asarray(pixels[rows[part]], dtype=np.float32)).flatten(1)
            yield (images - (mean + effect).cpu()).numpy() * roots[part, None].astype(np.float32)

    def _held(self, codes: Tensor) -> Floats:
        """Columns (n, m) of what is held, without those that follow from the others."""
        parts = [np.empty((len(codes), 0))]
        for variable in self.conditions.held:
            own = codes[:, self.conditions.span(variable.name)].double().numpy()
            parts.append(own[:, 1:] if variable.levels else own)
        every = np.concatenate(parts, axis=1)
        return every[:, every.std(axis=0) > 0]

    def _fit_every_map(
        self, parts: ScratchRows, codes: Tensor, patients: Places, random: np.random.Generator
    ) -> dict[str, int]:
        """Estimate the maps of all variables, one after the other, by `parts` (n, components), codes (n, width)."""
        held, report = self._held(codes), {}
        for k, variable in self._mapped():
            own = codes[:, self.conditions.span(variable.name)].numpy()
            known = np.flatnonzero(own[:, -1] == 0)
            if len(known) == len(own):
                report[variable.name] = self._fit_maps(k, parts, own, held, patients, random)
                continue
            # A patient counts once here too, of whose images some have no level.
            more = np.sqrt(by_patient(patients[known])[1] / by_patient(patients)[1][known])[:, None].astype(np.float32)
            with scratch_rows(parts.folder, (len(known), parts.shape[1])) as some:
                for part in spans(len(known)):
                    some[part] = parts[known[part]] * more[part]
                report[variable.name] = self._fit_maps(k, some, own[known], held[known], patients[known], random)
                for part in spans(len(known)):
                    parts[known[part]] = some[part] / more[part]
        return report

    def _fit_maps(
        self, k: int, parts: ScratchRows, own: Singles, held: Floats, patients: Places, random: np.random.Generator
    ) -> int:
        """Estimate one variable's maps, and apply them to `parts` in place: the next one sees what is left.

        Shapes: `parts` (n, components), `own` (n, levels + 1) with a level given in all rows, `held` (n, m),
        `patients` (n,).
        """
        index, levels, count = own[:, :-1].argmax(axis=1), own.shape[1] - 1, parts.shape[1]
        if self.hidden:
            covariances, kept = plain_covariances(parts, index, patients, levels=levels)
        else:
            covariances, kept = level_covariances(parts, index, held, patients, random, levels=levels)
        if not kept:
            return 0
        for level, forth in enumerate(ways_to_barycentre(covariances)):
            getattr(self, f"forth{k}")[level, :count, :count] = torch.from_numpy(forth).float()
            if not self.hidden:
                back = np.linalg.inv(forth)
                getattr(self, f"back{k}")[level, :count, :count] = torch.from_numpy(back).float()
            move(parts, index == level, forth)
        return kept


def _padded(used: Tensor) -> int:
    """Count what is used, rounded up: products of odd shapes have bits that depend on a row's place in its batch."""
    return min(-(-int(used.sum()) // BLOCK) * BLOCK, len(used))


def aligned(data: Dataset, alignment: Alignment, codes: Tensor) -> Dataset:
    """Give a split whose images are aligned as they are read, on the alignment's device; none of it is kept."""
    change = by_codes(alignment, codes, alignment.centre.device)
    return Dataset(data.cohort, data.pixels, f"-{alignment.mark()}", change)
