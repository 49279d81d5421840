"""The training of a latent diffusion generator from beginning to end: which part learns when, and from what."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from citlr.generators.diffusion.guidance import calibrate, measure_errors, round_trip
from citlr.generators.diffusion.parts import Encoded, latents, train_autoencoder, train_denoiser
from citlr.generators.diffusion.sampling import Sampler
from citlr.generators.effects.alignment import aligned
from citlr.generators.effects.support import find_support
from citlr.generators.effects.uncertainty import find_deviations
from citlr.generators.preparation import Prepared
from citlr.generators.published.disentangle import Disentangler
from citlr.generators.published.game import Game, choose_strength, estimate_information, train_disentangler
from citlr.learning import store
from citlr.learning.session import Session
from citlr.learning.store import Dataset, Rows, Stream, by_codes, spans

SPLITS = ("train", "validation")
# Images that the information in latents as encoded is estimated on.
INFORMATION_IMAGES = 2048


class Fitting:
    """One training."""

    def __init__(self, sampler: Sampler, prepared: Prepared) -> None:
        self.sampler, self.prepared, self.config = sampler, prepared, sampler.config
        self.seed = prepared.session.seed
        self.report: dict[str, Any] = {}

    def run(self) -> Sampler:
        """Train all parts, and measure what is known only when they are trained."""
        sampler, config, (train, _), codes = self.sampler, self.config, self.prepared.sets, self.prepared.codes
        self._note_sample()
        self._find_support()
        inputs = self._residualise()
        marks = [*(data.mark for data in inputs), self.prepared.mark]
        session = self.prepared.session.keyed(*marks, *config.autoencoder_depends_on())
        train_autoencoder(session, config.autoencoder, sampler.autoencoder, *inputs)
        z = [latents(session, sampler.autoencoder, data, name=name) for data, name in zip(inputs, SPLITS, strict=True)]
        session = session.keyed(*marks, *config.weights_depend_on())
        if sampler.latent_alignment is not None:
            self.report["latent_alignment"] = sampler.latent_alignment.fit(
                z[0], codes[0], train.cohort.frame["patient_id"], seed=self.seed, directory=session.directory
            )
            # What follows depends on the maps.
            session = session.keyed(*marks, sampler.latent_alignment.mark(), *config.weights_depend_on())
        if sampler.disentangler is not None:
            self._play(session, sampler.disentangler, self._changed(z, sampler.residualise_latent))
        hidden = self._changed(z, sampler.disentangle)
        first, second = (
            Encoded(Stream(own), *rest) for own, rest in zip(z, zip(hidden, codes, strict=True), strict=True)
        )
        train_denoiser(session, config.denoiser, sampler.denoiser, sampler.process, sampler.conditions, (first, second))
        patients = train.cohort.frame["patient_id"]
        sampler.uncertainty.deviations.copy_(
            find_deviations(train.pixels, patients, codes[0], sampler.conditions, seed=self.seed)
        )
        self.sampler = dataclasses.replace(sampler, guidance=self._guidance())
        self._recentre()
        self._round_trip()
        return self.sampler

    def _note_sample(self) -> None:
        """Say so where not all images are used for everything."""
        every = len(self.prepared.sets[0])
        if every <= store.SAMPLE:
            return
        self.report["sampled"] = store.SAMPLE
        self.prepared.session.narrator.say(
            f"fit: covariances, and where an attribute acts, are estimated from {store.SAMPLE} of {every} training "
            "images, drawn by the seed; means and networks learn from all."
        )

    def _find_support(self) -> None:
        if self.config.sampling.support != "shown":
            return
        support = self.sampler.support
        train, codes = self.prepared.sets[0], self.prepared.codes[0]
        patients = train.cohort.frame["patient_id"]
        found = find_support(train.pixels, codes, self.prepared.conditions, seed=self.seed, patients=patients)
        support.weights.copy_(found)
        names = [variable.name for variable in support.variables]
        self.report["support"] = {name: float(part.mean()) for name, part in zip(names, found, strict=True)}
        for name, share in self.report["support"].items():
            if share == 0:
                self.prepared.session.narrator.say(
                    f"The training split shows no effect of '{name}' on any pixel, given what is held: setting it will "
                    "change nothing, and its effectiveness will fail the gate."
                )

    def _residualise(self) -> tuple[Dataset, Dataset]:
        """Fit the alignment, and give the splits as the autoencoder is to see them."""
        alignment, (train, validation), codes = self.sampler.alignment, self.prepared.sets, self.prepared.codes
        if alignment is None:
            return train, validation
        where = self.sampler.support.anywhere().expand(train.pixels.shape[1:])
        self.report["alignment"] = alignment.fit(
            train.pixels,
            codes[0],
            train.cohort.frame["patient_id"],
            seed=self.seed,
            where=where,
            directory=self.prepared.session.directory,
        )
        if alignment.joint is not None:
            shares = zip(alignment.joint.names, alignment.joint.kept.tolist(), strict=True)
            self.report["joint_effects"] = [[name, share] for name, share in shares]
        return aligned(train, alignment, codes[0]), aligned(validation, alignment, codes[1])

    def _play(self, session: Session, phi: Disentangler, residual: list[Stream]) -> None:
        """Play the publication's game, and say how much the latents told of the attribute before and after."""
        sampler, codes, settings = self.sampler, self.prepared.codes, self.config.published
        game = Game(settings, session, sampler.conditions, sampler.process.start, residual[0], codes[0])
        before = game
        if sampler.alignment is not None or sampler.latent_alignment is not None:
            self.report["information_aligned"] = estimate_information(game, None, part="information-aligned")
            plain = self._encode_plainly()
            before = dataclasses.replace(game, z=plain, codes=codes[0][: len(plain)])
        self.report["information_before"] = estimate_information(before, None, part="information-before")
        if settings.strength is None:
            decode = sampler.autoencoder.decode
            self.report["strengths"] = choose_strength(game, phi, decode, residual[1], codes[1])
            self.report["strength"] = phi.strength
        else:
            train_disentangler(game, phi)
        changed = phi.strength > 0 or "information_aligned" not in self.report
        self.report["information_after"] = (
            estimate_information(game, phi, part="information-after") if changed else self.report["information_aligned"]
        )

    @torch.no_grad()
    def _encode_plainly(self) -> Stream:
        """Encode some images as they are, not residualised: z0 of the publication."""
        train, sampler = self.prepared.sets[0], self.sampler
        few = spans(min(len(train), INFORMATION_IMAGES), 64)
        parts = [sampler.autoencoder.encode(train.images(part).to(sampler.device)).cpu() for part in few]
        return Stream(torch.cat(parts).numpy())

    def _changed(self, z: list[Rows], change: Callable[[Tensor, Tensor], Tensor]) -> list[Stream]:
        """Give the latents of both splits, which have their own codes, changed as they are read."""
        pairs = zip(z, self.prepared.codes, strict=True)
        return [Stream(rows, by_codes(change, codes, self.sampler.device)) for rows, codes in pairs]

    def _guidance(self) -> float:
        chosen = self.config.sampling.guidance
        if chosen is None:
            found = calibrate(self.sampler, *self.prepared.sets, self.prepared.session)
            chosen = found.guidance
            self.report["effect_size_at_guidance_1"] = found.size_at_one if np.isfinite(found.size_at_one) else None
            self.report["effect_size"] = found.size if np.isfinite(found.size) else None
        self.report["guidance"] = chosen
        return chosen

    def _recentre(self) -> None:
        if self.sampler.recentring is None:
            return
        found, images = measure_errors(self.sampler, self.prepared.sets[0], self.prepared.session)
        self.sampler.recentring.errors.copy_(found)
        self.report |= {"mean_error": float(found.square().mean().sqrt()), "mean_error_images": images}

    def _round_trip(self) -> None:
        if self.config.sampling.abduction != "inversion":
            return
        validation, images = self.prepared.splits[1], self.prepared.sets[1]
        few = np.arange(min(32, len(validation)))
        trip = round_trip(self.sampler, images.images(few).numpy(), validation.take(few).frame)
        self.report["round_trip"] = dataclasses.asdict(trip)
