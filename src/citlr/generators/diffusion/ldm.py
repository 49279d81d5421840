"""Conditional latent diffusion: CLDM, and DLDM with its disentangled latent."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pandas as pd
import torch
from torch import Tensor, nn

from citlr.errors import InputError
from citlr.generators.base import BATCH, Images, Level
from citlr.generators.conditions import Conditions
from citlr.generators.diffusion.fitting import Fitting
from citlr.generators.diffusion.networks import Autoencoder, Denoiser
from citlr.generators.diffusion.process import Process
from citlr.generators.diffusion.sampling import Sampler
from citlr.generators.diffusion.settings import LDMConfig
from citlr.generators.effects.alignment import Alignment
from citlr.generators.effects.recentring import Recentring
from citlr.generators.effects.support import Support
from citlr.generators.effects.uncertainty import Uncertainty
from citlr.generators.learnt import LearntGenerator
from citlr.generators.preparation import Prepared
from citlr.generators.published.disentangle import Disentangler
from citlr.generators.published.game import LADDER
from citlr.generators.request import Request
from citlr.learning.loop import seeded


class LatentDiffusion(LearntGenerator):
    """A conditional latent diffusion model that redraws images under each level of an attribute."""

    settings = LDMConfig
    config: LDMConfig
    kind = "dldm"
    _sampler: Sampler

    @property
    def sampler(self) -> Sampler:
        """The trained parts."""
        _ = self.conditions  # refuses a generator that is not trained
        return self._sampler

    def build(self, conditions: Conditions, *, seed: int) -> None:
        """Build all parts untrained, each initialised from its own seed, and put them on the device."""
        config = self.config
        effects, image = config.effects, (config.image_channels, config.size, config.size)
        aligned, hides = effects.alignment != "none", config.disentangle and effects.latent_alignment != "none"
        sampler = Sampler(
            config=config,
            conditions=conditions,
            process=Process.of(config),
            alignment=Alignment(conditions, image, effects.components) if aligned else None,
            autoencoder=build_autoencoder(config, seed),
            latent_alignment=(
                Alignment(conditions, config.latent_shape, effects.latent_components, hidden=True) if hides else None
            ),
            disentangler=_disentangler(config, conditions, seed) if config.has_disentangler else None,
            denoiser=_denoiser(config, conditions, seed),
            support=Support(conditions, config.size),
            uncertainty=Uncertainty(conditions, config.size, config.image_channels),
            recentring=Recentring(conditions, config.size, config.image_channels)
            if aligned and effects.recentre
            else None,
            guidance=1.0,
            device=self.device,
        )
        self._sampler = sampler.to(self.device)

    def learn(self, prepared: Prepared) -> None:
        """Train all parts, see `Fitting`."""
        fitting = Fitting(self._sampler, prepared)
        self._sampler, self.report = fitting.run(), fitting.report

    def modules(self) -> dict[str, nn.Module]:
        """Name the parts that there are."""
        return self._sampler.modules()

    def facts(self) -> dict[str, Any]:
        """Give the chosen guidance, and the strength of the disentangler where there is one."""
        phi = self._sampler.disentangler
        return {"guidance": self._sampler.guidance} | ({} if phi is None else {"strength": phi.strength})

    def take(self, facts: Mapping[str, Any]) -> None:
        """Take up guidance and strength."""
        phi = self._sampler.disentangler
        if phi is not None and self.config.published.strength is None:
            phi.strength = facts["report"]["strength"]
        self._sampler = dataclasses.replace(self._sampler, guidance=facts["guidance"])

    def redrawn_in_fit(self) -> int:
        """Give the images that the mean error is measured on."""
        return self.config.effects.recentre or 0

    def weight(self) -> float:
        """Give the guidance that was chosen."""
        return self._sampler.guidance

    def abduction(self) -> str:
        """Give the configuration's own."""
        return self.config.sampling.abduction

    def check_inversion(self, draws: int) -> None:
        """Refuse draws that inversion without fresh noise would make all alike."""
        if self.config.sampling.eta == 0 and draws != 1:
            raise InputError(
                f"Inversion without added noise (eta=0) gives one image per level, but {draws} draws were asked for; "
                "set draws=1, eta above 0, or abduction='noise'."
            )

    def per_batch(self, request: Request) -> int:
        """Redraw as many images at a time as give a whole batch of latents."""
        return max(1, BATCH // request.draws)

    def redraw_batch(self, images: Tensor, codes: Tensor, ids: list[str], request: Request) -> Tensor:
        """Redraw images, see `Sampler.redraw_batch`."""
        return self._sampler.redraw_batch(images, codes, ids, request)

    def reconstruct_batch(self, images: Tensor) -> Tensor:
        """Encode and decode images (n, c, s, s), without alignment."""
        return self._sampler.autoencoder.decode(self._sampler.autoencoder.encode(images))

    def mean_replicates(self, attribute: str | Sequence[str], levels: Sequence[Level]) -> Images:
        """Give by how much the mean image under each level may be off, as the training split shows it.

        Values (replicates, levels, channels, size, size) to add to redrawn images, see
        `citlr.generators.effects.uncertainty`; zero where an intervention on the attribute changes nothing.
        """
        names = (attribute,) if isinstance(attribute, str) else tuple(attribute)
        codes = torch.cat(
            Request(names, tuple(levels)).requested(self.conditions, torch.zeros(1, self.conditions.width))
        )
        found = self._sampler.uncertainty.of(codes) * self._sampler.support.of(names)
        return found.cpu().numpy()

    def represent(self, images: Images, frame: pd.DataFrame) -> Images:
        """Give the representation Z (n, d) of images (n, 1, size, size) with their rows: the disentangled latents.

        With `latent_alignment` they tell no more of what is held than of the attribute: what is to be adjusted for is Z
        and `held_codes` together.
        """
        return self.sampler.represent(images, frame)


class DLDM(LatentDiffusion):
    """Latent diffusion with a disentangled latent.

    Parameters
    ----------
    size : int
        Side of the images, 32 to 256.
    hold : sequence of str
        Covariates kept at their observed values.
    preset : {"tiny", "laptop", "workstation", "published", "paper"}
        Where the other settings come from: "laptop" takes minutes on two cores, "workstation" hours on a GPU.
    config : LDMConfig, optional
        All settings, instead of these.
    **overrides
        Any field of `LDMConfig`.

    Attributes
    ----------
    config : LDMConfig
    report : dict
        What training found out: guidance, support, what the alignments took off; with the publication's game also the
        information before and after disentanglement (nats).

    Examples
    --------
    >>> DLDM(size=32, hold=["view"], preset="tiny").config.latent_shape
    (8, 8, 8)
    """


class CLDM(LatentDiffusion):
    """Latent diffusion without disentangler and alignment; parameters as of `DLDM`."""

    kind = "cldm"
    own_settings: ClassVar[Mapping[str, Any]] = {"disentangle": False, "alignment": "none"}


def build_autoencoder(config: LDMConfig, seed: int) -> Autoencoder:
    """Build the autoencoder, untrained."""
    with seeded(seed, "autoencoder"):
        return Autoencoder(config.autoencoder, config.image_channels)


def _denoiser(config: LDMConfig, conditions: Conditions, seed: int) -> Denoiser:
    with seeded(seed, "denoiser"):
        widths = [variable.width for variable in conditions.variables]
        return Denoiser(config.denoiser, config.autoencoder, widths)


def _disentangler(config: LDMConfig, conditions: Conditions, seed: int) -> Disentangler:
    settings = config.published
    with seeded(seed, "disentangler"):
        return Disentangler(
            latent_shape=config.latent_shape,
            channels=settings.phi_channels,
            strength=LADDER[0] if settings.strength is None else settings.strength,
            attributes=len(conditions.columns(conditions.recorded)),
            informed=settings.informed,
            at_most=settings.at_most,
        )
