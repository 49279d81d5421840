"""How exactly inversion finds the noise that leads back to an image: up by fixed-point iteration, down by DDIM."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from citlr.generators.base import Images
from citlr.generators.batches import BATCH, batches, check_images
from citlr.generators.diffusion.sampling import Request, Sampler
from citlr.generators.diffusion.schedule import walk_down


@dataclass(frozen=True)
class RoundTrip:
    """What is lost between a latent and the same latent inverted and walked back under its own condition.

    - `latent`: `||z' - z|| / ||z||` over all images; z is the latent that the walk is to end at.
    - `image`: Mean absolute difference of the decoded images, grey values in [0, 1].
    """

    latent: float
    image: float


@torch.no_grad()
def round_trip(sampler: Sampler, images: Images, frame: pd.DataFrame) -> RoundTrip:
    """Invert images and walk back under their factual condition, without guidance.

    Shapes: `images` (n, 1, size, size) in [0, 1].
    """
    check_images(images, sampler.config.size)
    codes = sampler.conditions.encode(frame)
    request = Request(("placebo",), (), 1, 0, 1.0, True, True)
    error = power = change = 0.0
    for part, filled in batches(images):
        rows = [min(row, part.stop - 1) for row in range(part.start, part.start + BATCH)]
        kept = part.stop - part.start
        z = sampler.encode(torch.from_numpy(filled).to(sampler.device), codes[rows])
        clean = z if sampler.process.restoring else sampler.hide(z, codes[rows])
        noisy = sampler._abduct(z, codes[rows], request)
        assert noisy is not None
        model = sampler._model(codes[rows], request, None, 1.0)
        back = walk_down(noisy, model, grid=sampler.process.grid, table=sampler.process.table)
        error += float((back - clean)[:kept].double().square().sum())
        power += float(clean[:kept].double().square().sum())
        ends = [sampler.lead(sampler.paint(one[:, None]), codes[rows]).clamp(0, 1) for one in (back, clean)]
        pictures = ends[0] - ends[1]
        change += float(pictures[:kept].abs().mean()) * kept
    return RoundTrip((error / power) ** 0.5, change / len(images))
