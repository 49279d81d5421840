"""The noising of training and of generation: which times, and which noise leads where."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from citlr.generators.diffusion.schedule import diffuse, even_grid, noise_table
from citlr.generators.diffusion.settings import TIMESTEPS, LDMConfig


@dataclass(frozen=True)
class Process:
    """Noise levels, and the noise that a denoiser is to predict.

    With the objective "restoring" the noise carries the disentangler's change along: `eps' = eps + (phi(z) - z) / s`,
    s being the noise-to-signal ratio at the depth that generation starts from. There,
    `sqrt(a) z + sqrt(1 - a) eps' = sqrt(a) phi(z) + sqrt(1 - a) eps`: the noised disentangled latent. As eps' does not
    depend on the time, DDIM with a perfect denoiser goes along a straight line from there back to z, and what phi took
    away can only come from the condition.

    - `table` (T + 1,): See `noise_table`.
    - `grid`: Times that sampling goes through, see `even_grid`.
    """

    table: npt.NDArray[np.float64]
    grid: tuple[int, ...]
    restoring: bool

    @classmethod
    def of(cls, config: LDMConfig) -> Self:
        """Build the process of a configuration."""
        denoiser = config.denoiser
        grid = even_grid(TIMESTEPS, depth=denoiser.depth, steps=denoiser.sampling_steps)
        return cls(noise_table(TIMESTEPS), grid, denoiser.objective == "restoring")

    @property
    def ratio(self) -> float:
        """Noise over signal at the depth that generation starts from: `s = sqrt((1 - alpha_bar) / alpha_bar)`."""
        deepest = float(self.table[self.grid[-1]])
        return math.sqrt((1 - deepest) / deepest)

    def times(self, n: int, random: torch.Generator) -> Tensor:
        """Draw training times: all of the table as published, else those of the grid, half of them its deepest.

        The first step of sampling is where the condition decides; the others refine.
        """
        if not self.restoring:
            return torch.randint(1, len(self.table), (n,), generator=random)
        later = torch.randint(1, len(self.grid), (n,), generator=random)
        first = torch.rand(n, generator=random) < 0.5
        return torch.tensor(self.grid)[torch.where(first, len(self.grid) - 1, later)]

    def noised(self, z: Tensor, hidden: Tensor, eps: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noise latents (n, c, h, w) to times (n,), and say what noise a denoiser is to predict there."""
        alpha = torch.from_numpy(self.table[times.cpu().numpy()]).to(z)[:, None, None, None]
        noise = eps + (hidden - z) / self.ratio if self.restoring else eps
        return diffuse(z, noise, alpha), noise, alpha

    def start(self, hidden: Tensor, eps: Tensor) -> Tensor:
        """Noise disentangled latents to the depth that generation starts from; see `diffuse`, of any one shape."""
        return diffuse(hidden, eps, float(self.table[self.grid[-1]]))
