"""Conditional latent diffusion: CLDM, and DLDM with its disentangled latent. Fit, generate, save, load."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from citlr.console import Narrator, Ticker, silent
from citlr.errors import StateError
from citlr.generators.base import FORMAT, Images, Level
from citlr.generators.conditions import Conditions, two_levels
from citlr.generators.diffusion.assembly import assemble
from citlr.generators.diffusion.fitting import Workshop
from citlr.generators.diffusion.ldm_fit import Fitting
from citlr.generators.diffusion.sampling import Sampler
from citlr.generators.diffusion.settings import LDMConfig
from citlr.generators.preparation import prepare
from citlr.learning.checkpoints import load_module, save_state, weights_fingerprint
from citlr.learning.loop import Trainer
from citlr.run.files import read_json, write_json

if TYPE_CHECKING:
    from citlr.data.cohort import Cohort


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

    def rehearse(self) -> None:
        """Build the networks for an attribute of two levels and drop them: what cannot be built is found here."""
        assemble(self.config, two_levels(), seed=0, device=torch.device("cpu"))

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
        config, narrator = self.config, narrator or Narrator()
        prepared = prepare(config, train, validation, seed=seed, directory=directory, narrator=narrator)
        fitting = Fitting(Workshop(config, prepared.trainer, seed, directory, narrator), prepared)
        self._sampler, self.report = fitting.run(), fitting.report
        self.splits, self.seen = prepared.splits, prepared.seen
        return self

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
            Grey values to add to redrawn images, see `citlr.generators.effects.uncertainty`; zero where an intervention
            on the attribute changes nothing.
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
        """Give the representation Z (n, d) of images (n, 1, size, size) with their rows: the disentangled latents.

        With `latent_alignment` they tell no more of what is held than of the attribute: what is to be adjusted for is Z
        and `held_codes` together.
        """
        return self._fitted.represent(images, frame)

    def held_codes(self, frame: pd.DataFrame) -> npt.NDArray[np.float32]:
        """Give the codes (n, m) of what is held, see `Conditions.encode`; no columns where nothing is."""
        conditions = self._fitted.conditions
        return np.asarray(conditions.encode(frame)[:, conditions.columns(conditions.held)].numpy())

    def fingerprint(self) -> str:
        """Return the SHA-256 of the settings and all weights: generators that draw other images have another one."""
        sampler = self._fitted
        strength = None if sampler.disentangler is None else sampler.disentangler.strength
        head = [FORMAT, self.config.to_json(), sampler.conditions.to_json(), sampler.guidance, strength]
        return weights_fingerprint(sampler.modules(), head)

    def save(self, directory: Path) -> None:
        """Write `config.json` and the weights as safetensors; the JSON last, so that half a generator is none."""
        sampler = self._fitted
        directory = Path(directory)
        for name, module in sampler.modules().items():
            save_state(directory / f"{name}.safetensors", module.state_dict(), {"part": name})
        content = {
            "kind": "dldm" if self.config.disentangle else "cldm",
            "format": FORMAT,
            "config": self.config.to_json(),
            "conditions": sampler.conditions.to_json(),
            "guidance": sampler.guidance,
            "report": self.report,
            "seen": list(self.seen),
        }
        write_json(directory / "config.json", content)


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
        super().__init__(LDMConfig.preset_of(preset, **{"size": size, "hold": hold, **overrides}))


class CLDM(LatentDiffusion):
    """Latent diffusion without disentangler and alignment; parameters as of `DLDM`."""

    def __init__(self, size: int = 64, *, hold: Sequence[str] = (), preset: str = "small", **overrides: Any) -> None:
        settings = {"size": size, "hold": hold, "disentangle": False, "alignment": "none", **overrides}
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
        load_module(module, directory / f"{name}.safetensors")
        module.eval()
    model._sampler = dataclasses.replace(sampler, guidance=content["guidance"])
    model.report = content["report"]
    model.seen = tuple(content["seen"])
    return model
