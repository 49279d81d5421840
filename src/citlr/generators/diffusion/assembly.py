"""The untrained parts of a latent diffusion generator, each initialised from its own seed."""

from __future__ import annotations

import torch

from citlr.generators.conditions import Conditions
from citlr.generators.diffusion.autoencoder import Autoencoder
from citlr.generators.diffusion.denoiser import Denoiser
from citlr.generators.diffusion.process import Process
from citlr.generators.diffusion.sampling import Sampler
from citlr.generators.diffusion.settings import LDMConfig
from citlr.generators.effects.alignment import Alignment
from citlr.generators.effects.recentring import Recentring
from citlr.generators.effects.support import Support
from citlr.generators.effects.uncertainty import Uncertainty
from citlr.generators.published.disentangle import Disentangler
from citlr.generators.published.hiding import Secret
from citlr.generators.published.strength import LADDER
from citlr.learning.loop import seeded


def assemble(config: LDMConfig, conditions: Conditions, *, seed: int, device: torch.device) -> Sampler:
    """Build all parts and put them on the device."""
    secret = Secret(conditions, config.given_held)
    sampler = Sampler(
        config=config,
        conditions=conditions,
        secret=secret,
        process=Process.of(config),
        alignment=_alignment(config, conditions),
        autoencoder=_autoencoder(config, seed),
        latent_alignment=_latent_alignment(config, conditions),
        disentangler=_disentangler(config, len(secret.columns), seed) if config.disentangle else None,
        denoiser=_denoiser(config, conditions, seed),
        support=Support(conditions, config.size),
        uncertainty=Uncertainty(conditions, config.size),
        recentring=_recentring(config, conditions),
        guidance=1.0,
        device=device,
    )
    return sampler.to(device)


def _alignment(config: LDMConfig, conditions: Conditions) -> Alignment | None:
    if config.alignment == "none":
        return None
    return Alignment(conditions, (1, config.size, config.size), config.components)


def _latent_alignment(config: LDMConfig, conditions: Conditions) -> Alignment | None:
    if config.latent_alignment == "none" or not config.disentangle:
        return None
    return Alignment(conditions, config.latent_shape, config.latent_components, hidden=True)


def _recentring(config: LDMConfig, conditions: Conditions) -> Recentring | None:
    if config.alignment == "none" or not config.recentre:
        return None
    return Recentring(conditions, config.size)


def _autoencoder(config: LDMConfig, seed: int) -> Autoencoder:
    with seeded(seed, "autoencoder"):
        return Autoencoder(
            channels=config.ae_channels,
            latent_channels=config.latent_channels,
            blocks=config.ae_blocks,
            patch=config.patch,
            groups=config.groups,
            local=config.local,
            shortcut=config.shortcut,
        )


def _denoiser(config: LDMConfig, conditions: Conditions, seed: int) -> Denoiser:
    with seeded(seed, "denoiser"):
        return Denoiser(
            latent_channels=config.latent_channels,
            widths=[variable.width for variable in conditions.variables],
            channels=config.unet_channels,
            attention=config.unet_attention,
            blocks=config.unet_blocks,
            head=config.head,
            groups=config.groups,
            context=config.context,
            planes=config.planes,
            prediction=config.prediction,
        )


def _disentangler(config: LDMConfig, attributes: int, seed: int) -> Disentangler:
    with seeded(seed, "disentangler"):
        return Disentangler(
            latent_shape=config.latent_shape,
            channels=config.phi_channels,
            strength=LADDER[0] if config.strength is None else config.strength,
            attributes=attributes,
            informed=config.informed,
            at_most=config.at_most,
        )
