"""Presets of a latent diffusion generator: values over the defaults, by their flat names."""

from __future__ import annotations

from typing import Any

from citlr.generators.published.settings import PUBLISHED

SHORT = {"ae_steps": 150, "denoiser_steps": 1000, "phi_steps": 100, "information_steps": 60}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": SHORT,
    "small": {},
    # The publication's objective and sampling around the autoencoder and the budget of "tiny": for comparison.
    "published": {**PUBLISHED, **SHORT, "local": True, "shortcut": True},
    "paper": {
        **PUBLISHED,
        "size": 256,
        "patch": 1,
        "ae_channels": (64, 128, 256, 512),
        "ae_blocks": 2,
        "latent_channels": 8,
        "groups": 32,
        "ae_steps": 100_000,
        "ae_batch": 16,
        "ae_rate": 1e-4,
        "unet_channels": (128, 256, 512),
        "unet_attention": (False, True, True),
        "unet_blocks": 2,
        "head": 64,
        "context": 512,
        "sampling_steps": 50,
        "denoiser_steps": 200_000,
        "denoiser_batch": 64,
        "denoiser_rate": 1e-4,
        "ema": 0.9999,
        "phi_channels": (8, 16, 32, 64),
        "critic_channels": (64, 128, 256, 512),
        "phi_steps": 20_000,
        "phi_batch": 64,
        "phi_rate": 1e-4,
        "information_steps": 5_000,
        "patience": 50,
        "checkpoint_minutes": 15.0,
    },
}
