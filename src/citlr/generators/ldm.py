"""Conditional latent diffusion: CLDM, and DLDM with its disentangled latent. Fit, generate, save, load."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import torch

from citlr.artifacts import read_json, write_json
from citlr.console import Narrator, Ticker, silent
from citlr.data.leaks import fingerprints
from citlr.errors import InputError, StateError
from citlr.generators.alignment import aligned
from citlr.generators.assembly import assemble
from citlr.generators.base import Images, Level, hashed_seed
from citlr.generators.calibration import calibrate, measure_errors
from citlr.generators.checkpoints import load_state, save_state
from citlr.generators.conditions import Conditions, sparse_levels
from citlr.generators.fitting import Encoded, Workshop, latents, train_autoencoder, train_denoiser
from citlr.generators.hiding import Hiding, estimate_information, train_disentangler
from citlr.generators.inversion import round_trip
from citlr.generators.sampling import Sampler
from citlr.generators.settings import LDMConfig
from citlr.generators.store import Dataset, Rows, require_variety, spans, stored
from citlr.generators.strength import choose_strength
from citlr.generators.support import find_support
from citlr.generators.training import Trainer
from citlr.generators.uncertainty import find_deviations

if TYPE_CHECKING:
    from citlr.data.cohort import Cohort


SPLITS = ("train", "validation")
# Images that the information in latents as encoded is estimated on.
INFORMATION_IMAGES = 2048


class LatentDiffusion:
    """A conditional latent diffusion model that redraws images under each level of an attribute.

    Parameters
    ----------
    config : LDMConfig
        What it is built from.

    Attributes
    ----------
    config : LDMConfig
    report : dict
        What training found out: information before and after disentanglement (nats), guidance, losses.
    """

    def __init__(self, config: LDMConfig) -> None:
        self.config = config
        self.size = config.size
        self.hold = config.hold
        self.report: dict[str, Any] = {}
        # What it learnt from, while it is in memory: the probes that judge it learn from the same patients.
        self.splits: tuple[Cohort, Cohort] | None = None
        # Marks of the patients it learnt from, kept with it: no image of theirs may be audited.
        self.seen: tuple[str, ...] = ()
        self._sampler: Sampler | None = None

    @property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        """What can be intervened on, the coin among it; known after `fit`."""
        return {variable.name: variable.levels for variable in self._fitted.conditions.attributes}

    @property
    def _fitted(self) -> Sampler:
        if self._sampler is None:
            raise StateError("The generator is not trained yet: call fit(), or load_generator() on a saved one.")
        return self._sampler

    def fit(
        self,
        train: Cohort,
        validation: Cohort | None = None,
        *,
        seed: int = 0,
        directory: Path | None = None,
        narrator: Narrator | None = None,
    ) -> Self:
        """Train all parts.

        Parameters
        ----------
        train, validation : Cohort
            Splits; validation is for early stopping and the choice of the guidance. Without it a tenth of the training
            patients, drawn by the seed, is set aside.
        seed : int
            Same seed, same data, same machine: same bits.
        directory : Path, optional
            For checkpoints and caches. An interrupted call with the same arguments goes on from there and ends with the
            same bits. Without it, decoded images and latents are kept in memory.
        narrator : Narrator, optional
            Shows the progress.

        Returns
        -------
        LatentDiffusion
            Itself.

        Raises
        ------
        InputError
            If a column is missing, an attribute has one level, or the images do not fit.
        StateError
            If a loss stops being a number.
        """
        if validation is None:
            train, validation = set_aside(train, seed)
        if not len(train) or not len(validation):
            raise InputError(f"{len(train)} training and {len(validation)} validation images: both need at least one.")
        config = self.config
        conditions = Conditions.of(
            train.frame, attributes=config.attributes or train.attributes, hold=config.hold, coin_seed=seed
        )
        notes = sparse_levels(train.frame, conditions)
        for note in notes:
            (narrator or Narrator()).say(note)
        trainer = Trainer(config.accelerator, config.precision, config.devices)
        sets = tuple(Dataset.of(part, size=config.size, directory=directory) for part in (train, validation))
        require_variety(sets[0])
        sampler = assemble(config, conditions, seed=seed, device=trainer.device)
        codes = tuple(conditions.encode(part.frame) for part in (train, validation))
        inputs = self._align(sampler, sets, codes, seed, directory)
        marks = tuple(data.mark for data in inputs)
        shop = Workshop(config, trainer, seed, directory, narrator or Narrator(), marks)
        train_autoencoder(shop, sampler.autoencoder, *inputs)
        z = tuple(
            latents(shop, sampler.autoencoder, data, name=name) for data, name in zip(inputs, SPLITS, strict=True)
        )
        if sampler.disentangler is not None:
            self._disentangle(shop, sampler, sets[0], z, codes)
        encoded = tuple(
            Encoded(a, a if sampler.disentangler is None else _each(shop, sampler.hide, z=a, codes=b, name=name), b)
            for a, b, name in zip(z, codes, ("hidden-train", "hidden-validation"), strict=True)
        )
        train_denoiser(shop, sampler.denoiser, sampler.process, conditions, *encoded)
        self._find_support(shop, sampler, sets[0], codes[0])
        deviations = find_deviations(sets[0], codes[0], conditions, seed=seed)
        sampler.uncertainty.deviations.copy_(deviations)
        self._sampler = sampler = dataclasses.replace(sampler, guidance=self._guidance(shop, sampler, *sets))
        self._recentre(shop, sampler, sets[0])
        if config.abduction == "inversion":
            few = np.arange(min(32, len(validation)))
            trip = round_trip(self._sampler, sets[1].images(few).numpy(), validation.take(few).frame)
            self.report["round_trip"] = dataclasses.asdict(trip)
        if trainer.halved:
            self.report["batch_halved"] = trainer.halved
        if notes:
            self.report["sparse_levels"] = list(notes)
        self.splits = (train, validation)
        self.seen = tuple(fingerprints([*train.frame["patient_id"], *validation.frame["patient_id"]]))
        return self

    def _align(
        self,
        sampler: Sampler,
        sets: Sequence[Dataset],
        codes: Sequence[torch.Tensor],
        seed: int,
        directory: Path | None,
    ) -> tuple[Dataset, ...]:
        """Fit the alignment, and give the splits as the autoencoder is to see them."""
        alignment = sampler.alignment
        if alignment is None:
            return tuple(sets)
        self.report["alignment"] = alignment.fit(sets[0].pixels, codes[0], seed=seed)
        mark = alignment.mark()
        return tuple(aligned(data, alignment, own, mark, directory) for data, own in zip(sets, codes, strict=True))

    def _find_support(self, shop: Workshop, sampler: Sampler, train: Dataset, codes: torch.Tensor) -> None:
        if self.config.support != "shown":
            return
        found = find_support(train, codes, sampler.conditions, seed=shop.seed)
        sampler.support.weights.copy_(found)
        names = [variable.name for variable in sampler.support.variables]
        self.report["support"] = {name: float(part.mean()) for name, part in zip(names, found, strict=True)}
        for name, share in self.report["support"].items():
            if share == 0:
                shop.narrator.say(
                    f"The training split shows no effect of '{name}' on any pixel, given what is held: setting it will "
                    "change nothing, and its effectiveness will fail the gate."
                )

    def _guidance(self, shop: Workshop, sampler: Sampler, train: Dataset, validation: Dataset) -> float:
        chosen = self.config.guidance
        if chosen is None:
            found = calibrate(sampler, train, validation, seed=shop.seed, narrator=shop.narrator)
            chosen = found.guidance
            self.report["effect_size_at_guidance_1"] = found.size_at_one if np.isfinite(found.size_at_one) else None
            self.report["effect_size"] = found.size if np.isfinite(found.size) else None
        self.report["guidance"] = chosen
        return chosen

    def _recentre(self, shop: Workshop, sampler: Sampler, train: Dataset) -> None:
        if sampler.recentring is None:
            return
        found = measure_errors(sampler, train, seed=shop.seed, narrator=shop.narrator)
        sampler.recentring.errors.copy_(found)
        self.report["mean_error"] = float(found.square().mean().sqrt())

    @torch.no_grad()
    def _encode_plainly(self, sampler: Sampler, train: Dataset) -> Rows:
        """Encode some images as they are, not aligned: z0 of the publication."""
        few = spans(min(len(train), INFORMATION_IMAGES), 64)
        parts = [sampler.autoencoder.encode(train.images(part).to(sampler.device)).cpu() for part in few]
        return torch.cat(parts).numpy()

    def _disentangle(
        self,
        shop: Workshop,
        sampler: Sampler,
        train: Dataset,
        z: Sequence[Rows],
        codes: Sequence[torch.Tensor],
    ) -> None:
        phi = sampler.disentangler
        if phi is None:
            return
        settled = tuple(z)
        if sampler.latent_alignment is not None:
            self.report["latent_alignment"] = sampler.latent_alignment.fit(z[0], codes[0], seed=shop.seed)
            settled = tuple(
                _each(shop, sampler.settle, z=a, codes=b, name=f"settled-{name}")
                for a, b, name in zip(z, codes, SPLITS, strict=True)
            )
        game = Hiding(shop, sampler.process, sampler.secret, settled[0], codes[0])
        before = game
        if sampler.alignment is not None or sampler.latent_alignment is not None:
            self.report["information_aligned"] = estimate_information(game, None, part="information-aligned")
            plain = self._encode_plainly(sampler, train)
            before = Hiding(shop, sampler.process, sampler.secret, plain, codes[0][: len(plain)])
        self.report["information_before"] = estimate_information(before, None, part="information-before")
        if self.config.strength is None:
            self.report["strengths"] = choose_strength(game, phi, sampler.autoencoder, settled[1], codes[1])
            self.report["strength"] = phi.strength
        elif self.config.strength > 0:
            train_disentangler(game, phi)
        changed = phi.strength > 0 or "information_aligned" not in self.report
        self.report["information_after"] = (
            estimate_information(game, phi, part="information-after") if changed else self.report["information_aligned"]
        )

    def generate(
        self,
        images: Images,
        frame: pd.DataFrame,
        *,
        attribute: str | Sequence[str],
        levels: Sequence[Level],
        draws: int = 1,
        seed: int = 0,
        guidance: float | None = None,
        shared_seeds: bool = True,
        abduction: str | None = None,
        tick: Ticker = silent,
    ) -> Images:
        """Redraw images under each level.

        Parameters
        ----------
        images : ndarray of float32, shape (n, 1, size, size), in [0, 1]
        frame : DataFrame
            The cohort's rows of these images: image_id, patient_id, attributes, held covariates.
        attribute : str or sequence of str
            What is intervened on; several names mean a joint intervention, whose levels are tuples.
        levels : sequence
            Levels to redraw under, the factual one among them as a rule (the null intervention).
        draws : int
            Images per level; draw r of an image is a function of (seed, image_id, r) only.
        seed : int
            Seed of the noise.
        guidance : float, optional
            Weight of the intervened attribute's condition; the calibrated one without it.
        shared_seeds : bool
            Whether draw r starts from the same noise under every level.
        abduction : {"noise", "inversion"}, optional
            The configuration's own without it.
        tick : Ticker
            Called with the number of images done.

        Returns
        -------
        ndarray of float32, shape (n, len(levels), draws, 1, size, size), in [0, 1]
        """
        return self._fitted.redraw(
            images,
            frame,
            attribute=attribute,
            levels=levels,
            draws=draws,
            seed=seed,
            guidance=guidance,
            shared_seeds=shared_seeds,
            abduction=abduction,
            tick=tick,
        )

    def mean_replicates(self, attribute: str | Sequence[str], levels: Sequence[Level]) -> Images:
        """Give by how much the mean image under each level may be off, as the training split shows it.

        Parameters
        ----------
        attribute, levels
            As in `generate`.

        Returns
        -------
        ndarray of float32, shape (replicates, len(levels), 1, size, size)
            Grey values to add to redrawn images, see `citlr.generators.uncertainty`; zero where an intervention on the
            attribute changes nothing.
        """
        sampler = self._fitted
        names = (attribute,) if isinstance(attribute, str) else tuple(attribute)
        nobody = torch.zeros(1, sampler.conditions.width)
        codes = torch.cat([sampler.conditions.intervene(nobody, names, level) for level in levels])
        found = sampler.uncertainty.of(codes)[:, :, None] * sampler.support.of(names)
        return found.cpu().numpy()

    def reconstruct(self, images: Images) -> Images:
        """Encode and decode images (n, 1, size, size)."""
        return self._fitted.reconstruct(images)

    def represent(self, images: Images, frame: pd.DataFrame) -> Images:
        """Give the representation Z (n, d) of images (n, 1, size, size) with their rows: the disentangled latents."""
        return self._fitted.represent(images, frame)

    def save(self, directory: Path) -> None:
        """Write `config.json` and the weights as safetensors; the JSON last, so that half a generator is none."""
        sampler = self._fitted
        directory = Path(directory)
        for name, module in sampler.modules().items():
            save_state(directory / f"{name}.safetensors", module.state_dict(), {"part": name})
        content = {
            "kind": "dldm" if self.config.disentangle else "cldm",
            "config": self.config.to_json(),
            "conditions": sampler.conditions.to_json(),
            "guidance": sampler.guidance,
            "report": self.report,
            "seen": list(self.seen),
        }
        write_json(directory / "config.json", content)


def set_aside(train: Cohort, seed: int) -> tuple[Cohort, Cohort]:
    """Keep nine tenths of the patients for training and set a tenth aside for validation, drawn by a keyed hash."""
    aside = np.asarray([hashed_seed("set aside", seed, patient) % 10 == 0 for patient in train.frame["patient_id"]])
    return train.take(~aside), train.take(aside)


@torch.no_grad()
def _each(
    shop: Workshop,
    change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    z: Rows,
    codes: torch.Tensor,
    name: str,
) -> Rows:
    """Change all latents of a split, which have these codes; on disk where there is a folder."""

    def parts() -> Iterator[tuple[slice, Rows]]:
        for part in spans(len(z)):
            some = torch.from_numpy(np.array(z[part])).to(shop.trainer.device)
            yield part, change(some, codes[part]).cpu().numpy()

    file = None if shop.directory is None else shop.directory / f"{name}-{shop.key('disentangler')}.npy"
    return stored(file, z.shape, parts, dtype="float32")


class DLDM(LatentDiffusion):
    """Latent diffusion with a disentangled latent.

    Parameters
    ----------
    size : int
        Side of the images, 32 to 256.
    hold : sequence of str
        Covariates kept at their observed values.
    preset : {"tiny", "small", "paper"}
        Where the other settings come from.
    **overrides
        Any field of `LDMConfig`.

    Examples
    --------
    >>> DLDM(size=32, hold=["view"], preset="tiny").config.latent_shape
    (8, 8, 8)
    """

    def __init__(self, size: int = 64, *, hold: Sequence[str] = (), preset: str = "small", **overrides: Any) -> None:
        super().__init__(LDMConfig.preset_of(preset, **{"size": size, "hold": tuple(hold), **overrides}))


class CLDM(LatentDiffusion):
    """Latent diffusion without disentangler and alignment; parameters as of `DLDM`."""

    def __init__(self, size: int = 64, *, hold: Sequence[str] = (), preset: str = "small", **overrides: Any) -> None:
        settings = {"size": size, "hold": tuple(hold), "disentangle": False, "alignment": "none", **overrides}
        super().__init__(LDMConfig.preset_of(preset, **settings))


def load_latent_diffusion(directory: Path) -> LatentDiffusion:
    """Read a generator that `LatentDiffusion.save` wrote, onto the processor or the configured device."""
    content = read_json(directory / "config.json")
    config = LDMConfig.from_json(content["config"])
    model = LatentDiffusion(config)
    conditions = Conditions.from_json(content["conditions"])
    device = Trainer(config.accelerator, config.precision, config.devices).device
    sampler = assemble(config, conditions, seed=0, device=device)
    if sampler.disentangler is not None and config.strength is None:
        sampler.disentangler.strength = content["report"]["strength"]
    for name, module in sampler.modules().items():
        tensors, _ = load_state(directory / f"{name}.safetensors")
        module.load_state_dict(tensors)
        module.eval()
    model._sampler = dataclasses.replace(sampler, guidance=content["guidance"])
    model.report = content["report"]
    model.seen = tuple(content["seen"])
    return model
