"""Presets of a latent diffusion generator: values over the defaults, by their flat names.

One for each budget: "laptop" takes minutes on two cores, "workstation" hours on one GPU, "paper" is as published.
"""

import math
from typing import Any

from citlr.generators.published.disentangle import PUBLISHED

SHORT = {"ae_steps": 150, "denoiser_steps": 1000, "phi_steps": 100, "information_steps": 60}
# What "workstation" takes from the images and the device.
FOLLOWING = ("ae_channels", "unet_channels", "ae_steps", "ae_batch", "denoiser_steps", "denoiser_batch")
# Images from which on the networks have their whole width.
WIDE_FROM = 5000
# Times that the autoencoder and the denoiser see each image, and images that each sees at least and at most.
PASSES = {"ae": 15, "denoiser": 60}
SEEN = {"ae": (160_000, 3_200_000), "denoiser": (640_000, 6_400_000)}
# Bytes that a training step keeps per pixel, and per position of the latent, three times what the forward pass saves
# (counted in the tests); a batch takes a quarter of a GPU's memory at most.
BYTES_PER_PIXEL, BYTES_PER_POSITION, SHARE = 2400, 150_000, 0.25
LARGEST_BATCH, BATCH_WITHOUT_GPU = 64, 16
# How trainings of hours, and of days, are averaged, stopped and kept.
HOURS = {"ema": 0.999, "patience": 4, "checkpoint_minutes": 10.0}
DAYS = {"ema": 0.9999, "patience": 50, "checkpoint_minutes": 15.0}
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": SHORT,
    "laptop": {},
    # Our design at 128 to 256 pixels; what follows from the images and the device is in `workstation`.
    "workstation": {
        **HOURS,
        "ae_blocks": 2,
        "ae_rate": 1e-3,
        "unet_attention": (False, True, True),
        "unet_blocks": 2,
        "head": 32,
        "context": 64,
        "denoiser_rate": 5e-4,
        "follow": FOLLOWING,
    },
    # The publication's objective and sampling around the autoencoder and the budget of "tiny": for comparison.
    "published": {**PUBLISHED, **SHORT, "local": True, "shortcut": True},
    "paper": {
        **PUBLISHED,
        **DAYS,
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
        "phi_channels": (8, 16, 32, 64),
        "critic_channels": (64, 128, 256, 512),
        "phi_steps": 20_000,
        "phi_batch": 64,
        "phi_rate": 1e-4,
        "information_steps": 5_000,
    },
}


def workstation(size: int, images: int, memory_gb: float | None) -> dict[str, Any]:
    """Give the fields of "workstation" that follow from the size and number of training images, and from the device.

    The latent has a quarter of the image's side up to 128 pixels and an eighth above, so that the denoiser's side is at
    most 32. Few images get half the width: they take more passes than they can fill. Steps are what it takes to see
    each image so many times, within limits.

    >>> workstation(256, 190_000, 80.0)["ae_channels"], workstation(256, 190_000, 80.0)["denoiser_steps"]
    ((64, 128), 100000)
    >>> workstation(128, 2000, None)["unet_channels"], workstation(128, 2000, None)["denoiser_batch"]
    ((32, 64, 96), 16)
    """
    width = 64 if images >= WIDE_FROM else 32
    factor = 4 if size <= 128 else 8
    kept = {"ae": BYTES_PER_PIXEL * size**2, "denoiser": BYTES_PER_POSITION * (size // factor) ** 2}
    found: dict[str, Any] = {
        "ae_channels": (width,) if factor == 4 else (width, 2 * width),
        "unet_channels": (width, 2 * width, 3 * width),
    }
    for part, each in kept.items():
        batch = batch_for(each * width / 64, memory_gb)
        least, most = SEEN[part]
        found |= {
            f"{part}_batch": batch,
            f"{part}_steps": math.ceil(min(max(PASSES[part] * images, least), most) / batch),
        }
    return found


def batch_for(bytes_an_image: float, memory_gb: float | None) -> int:
    """Give the largest power of two, 4 to 64, of images that fit into a share of a GPU's memory; 16 without a GPU.

    >>> batch_for(150e6, 80.0), batch_for(150e6, 8.0), batch_for(150e6, None)
    (64, 8, 16)
    """
    if memory_gb is None:
        return BATCH_WITHOUT_GPU
    fits = SHARE * memory_gb * 1e9 / bytes_an_image
    return int(2 ** math.floor(math.log2(min(max(fits, 4), LARGEST_BATCH))))
