"""The training of a latent diffusion generator from beginning to end: which part learns when, and from what."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from citlr.generators.diffusion.assembly import assemble
from citlr.generators.diffusion.fitting import Encoded, Workshop, latents, train_autoencoder, train_denoiser
from citlr.generators.diffusion.guidance import calibrate, measure_errors
from citlr.generators.diffusion.sampling import Sampler
from citlr.generators.effects.alignment import aligned
from citlr.generators.effects.support import find_support
from citlr.generators.effects.uncertainty import find_deviations
from citlr.generators.preparation import Prepared
from citlr.generators.published.disentangle import Disentangler
from citlr.generators.published.hiding import Hiding, estimate_information, train_disentangler
from citlr.generators.published.inversion import round_trip
from citlr.generators.published.strength import choose_strength
from citlr.learning.store import Dataset, Rows, spans, stored

SPLITS = ("train", "validation")
# Images that the information in latents as encoded is estimated on.
INFORMATION_IMAGES = 2048


class Fitting:
    """One training.

    - `shop`: Configuration, seed, folder; the names of what the networks see are added to it.
    - `prepared`: The splits.
    - `sampler`: What is trained.
    - `report`: What the training found out.
    """

    def __init__(self, shop: Workshop, prepared: Prepared) -> None:
        self.prepared = prepared
        self.report: dict[str, Any] = {}
        self.sampler = assemble(shop.config, prepared.conditions, seed=shop.seed, device=shop.trainer.device)
        self.shop = shop

    def run(self) -> Sampler:
        """Train all parts, and measure what is known only when they are trained."""
        train, codes = self.prepared.sets[0], self.prepared.codes
        self._find_support()
        inputs = self._align()
        self.shop = dataclasses.replace(self.shop, marks=(*(data.mark for data in inputs), self.prepared.mark))
        train_autoencoder(self.shop, self.sampler.autoencoder, *inputs)
        z = [
            latents(self.shop, self.sampler.autoencoder, data, name=name)
            for data, name in zip(inputs, SPLITS, strict=True)
        ]
        hidden = z
        if self.sampler.disentangler is not None:
            self._disentangle(self.sampler.disentangler, z)
            hidden = self._each(self.sampler.hide, z, "hidden")
        encoded = [Encoded(a, b, code) for a, b, code in zip(z, hidden, codes, strict=True)]
        train_denoiser(self.shop, self.sampler.denoiser, self.sampler.process, self.prepared.conditions, *encoded)
        deviations = find_deviations(train, codes[0], self.prepared.conditions, seed=self.shop.seed)
        self.sampler.uncertainty.deviations.copy_(deviations)
        self.sampler = dataclasses.replace(self.sampler, guidance=self._guidance())
        self._recentre()
        self._round_trip()
        self.report |= self.prepared.remarks()
        return self.sampler

    def _align(self) -> tuple[Dataset, Dataset]:
        """Fit the alignment, and give the splits as the autoencoder is to see them."""
        alignment, sets, codes = self.sampler.alignment, self.prepared.sets, self.prepared.codes
        if alignment is None:
            return sets
        where = self.sampler.support.anywhere()
        self.report["alignment"] = alignment.fit(sets[0].pixels, codes[0], seed=self.shop.seed, where=where)
        if alignment.joint is not None:
            shares = zip(alignment.joint.names, alignment.joint.kept.tolist(), strict=True)
            self.report["joint_effects"] = [[name, share] for name, share in shares]
        mark, folder = alignment.mark(), self.shop.directory
        return (
            aligned(sets[0], alignment, codes[0], mark, folder),
            aligned(sets[1], alignment, codes[1], mark, folder),
        )

    def _disentangle(self, phi: Disentangler, z: list[Rows]) -> None:
        """Hide the attribute from the latents, and say how much they told of it before and after."""
        sampler, codes = self.sampler, self.prepared.codes
        settled = z
        if sampler.latent_alignment is not None:
            self.report["latent_alignment"] = sampler.latent_alignment.fit(z[0], codes[0], seed=self.shop.seed)
            # What follows depends on the maps.
            self.shop = dataclasses.replace(self.shop, marks=(*self.shop.marks, sampler.latent_alignment.mark()))
            settled = self._each(sampler.settle, z, "settled")
        shop = self.shop
        game = Hiding(shop, sampler.process, sampler.secret, settled[0], codes[0])
        before = game
        if sampler.alignment is not None or sampler.latent_alignment is not None:
            self.report["information_aligned"] = estimate_information(game, None, part="information-aligned")
            plain = self._encode_plainly()
            before = Hiding(shop, sampler.process, sampler.secret, plain, codes[0][: len(plain)])
        self.report["information_before"] = estimate_information(before, None, part="information-before")
        if shop.config.strength is None:
            self.report["strengths"] = choose_strength(game, phi, sampler.autoencoder, settled[1], codes[1])
            self.report["strength"] = phi.strength
        elif shop.config.strength > 0:
            train_disentangler(game, phi)
        changed = phi.strength > 0 or "information_aligned" not in self.report
        self.report["information_after"] = (
            estimate_information(game, phi, part="information-after") if changed else self.report["information_aligned"]
        )

    @torch.no_grad()
    def _encode_plainly(self) -> Rows:
        """Encode some images as they are, not aligned: z0 of the publication."""
        train, sampler = self.prepared.sets[0], self.sampler
        few = spans(min(len(train), INFORMATION_IMAGES), 64)
        parts = [sampler.autoencoder.encode(train.images(part).to(sampler.device)).cpu() for part in few]
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def _each(
        self, change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], z: list[Rows], name: str
    ) -> list[Rows]:
        """Change all latents of both splits, which have their own codes; on disk where there is a folder."""
        shop, changed = self.shop, []
        for split, rows, codes in zip(SPLITS, z, self.prepared.codes, strict=True):

            def parts(rows: Rows = rows, codes: torch.Tensor = codes) -> Iterator[tuple[slice, Rows]]:
                for part in spans(len(rows)):
                    some = torch.from_numpy(np.array(rows[part])).to(shop.trainer.device)
                    yield part, change(some, codes[part]).cpu().numpy()

            file = None if shop.directory is None else shop.directory / f"{name}-{split}-{shop.key('disentangler')}.npy"
            changed.append(stored(file, rows.shape, parts, dtype="float32"))
        return changed

    def _find_support(self) -> None:
        if self.shop.config.support != "shown":
            return
        support = self.sampler.support
        found = find_support(
            self.prepared.sets[0], self.prepared.codes[0], self.prepared.conditions, seed=self.shop.seed
        )
        support.weights.copy_(found)
        names = [variable.name for variable in support.variables]
        self.report["support"] = {name: float(part.mean()) for name, part in zip(names, found, strict=True)}
        for name, share in self.report["support"].items():
            if share == 0:
                self.shop.narrator.say(
                    f"The training split shows no effect of '{name}' on any pixel, given what is held: setting it will "
                    "change nothing, and its effectiveness will fail the gate."
                )

    def _guidance(self) -> float:
        chosen = self.shop.config.guidance
        if chosen is None:
            found = calibrate(self.sampler, *self.prepared.sets, seed=self.shop.seed, narrator=self.shop.narrator)
            chosen = found.guidance
            self.report["effect_size_at_guidance_1"] = found.size_at_one if np.isfinite(found.size_at_one) else None
            self.report["effect_size"] = found.size if np.isfinite(found.size) else None
        self.report["guidance"] = chosen
        return chosen

    def _recentre(self) -> None:
        if self.sampler.recentring is None:
            return
        found = measure_errors(self.sampler, self.prepared.sets[0], seed=self.shop.seed, narrator=self.shop.narrator)
        self.sampler.recentring.errors.copy_(found)
        self.report["mean_error"] = float(found.square().mean().sqrt())

    def _round_trip(self) -> None:
        if self.shop.config.abduction != "inversion":
            return
        validation, images = self.prepared.splits[1], self.prepared.sets[1]
        few = np.arange(min(32, len(validation)))
        trip = round_trip(self.sampler, images.images(few).numpy(), validation.take(few).frame)
        self.report["round_trip"] = dataclasses.asdict(trip)
