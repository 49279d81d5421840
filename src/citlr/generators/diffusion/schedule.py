"""Noise tables and the deterministic way between noise levels (DDIM), as pure functions of a few lines.

Time runs from 0 (clean) to T (noise). `alpha_bar[t]` is the share of signal variance left at time t, 1 at time 0:
`x_t = sqrt(alpha_bar[t]) z + sqrt(1 - alpha_bar[t]) eps`. The way is a grid of times; every function is told both ends
of a step, so no stride is ever assumed and no step can miss the grid.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from citlr.errors import InputError

PREDICTIONS = ("epsilon", "sample", "velocity")
# (noisy latent, time) -> predicted noise, of the latent's shape.
NoiseModel = Callable[[Tensor, int], Tensor]


def noise_table(timesteps: int, *, beta_start: float = 0.002, beta_end: float = 0.02) -> npt.NDArray[np.float64]:
    """Share of signal variance left at each time (timesteps + 1,): the root of beta rises linearly (scaled linear)."""
    betas = np.linspace(math.sqrt(beta_start), math.sqrt(beta_end), timesteps) ** 2
    return np.concatenate([[1.0], np.cumprod(1.0 - betas)])


def even_grid(timesteps: int, *, depth: float, steps: int) -> tuple[int, ...]:
    """List times from 0 to `depth * timesteps`, as even as whole numbers allow."""
    if not 0 < depth <= 1:
        raise InputError(f"depth={depth} is not a share of the noise schedule; give a number in (0, 1].")
    last = max(1, round(depth * timesteps))
    if not 1 <= steps <= last:
        raise InputError(f"{steps} sampling steps do not fit into {last} noise levels; give 1 to {last}.")
    return tuple(round(last * k / steps) for k in range(steps + 1))


def diffuse(z: Tensor, noise: Tensor, alpha_bar: float | Tensor) -> Tensor:
    """Noise a clean latent: `sqrt(alpha_bar) z + sqrt(1 - alpha_bar) noise` (Ho et al. 2020, equation 4)."""
    level = torch.as_tensor(alpha_bar, dtype=z.dtype, device=z.device)
    return level.sqrt() * z + (1 - level).sqrt() * noise


def clean_from_noise(x: Tensor, noise: Tensor, alpha_bar: float) -> Tensor:
    """Solve `diffuse` for the clean latent: `(x - sqrt(1 - alpha_bar) noise) / sqrt(alpha_bar)`; `alpha_bar` above 0.

    >>> clean_from_noise(torch.tensor([2.0]), torch.tensor([2.0]), 0.64).round(decimals=4)
    tensor([1.])
    """
    return (x - math.sqrt(1 - alpha_bar) * noise) / math.sqrt(alpha_bar)


def ddim_step(
    x: Tensor, noise: Tensor, *, alpha_from: float, alpha_to: float, eta: float = 0.0, fresh: Tensor | None = None
) -> Tensor:
    """One step of DDIM (Song et al. 2021, equation 12), in either direction."""
    clean = clean_from_noise(x, noise, alpha_from)
    if eta == 0.0:
        return math.sqrt(alpha_to) * clean + math.sqrt(1 - alpha_to) * noise
    if fresh is None:
        raise InputError(f"eta={eta} adds noise at every step: pass `fresh`.")
    variance = eta**2 * (1 - alpha_to) / (1 - alpha_from) * (1 - alpha_from / alpha_to)
    direction = math.sqrt(max(1 - alpha_to - variance, 0.0))
    return math.sqrt(alpha_to) * clean + direction * noise + math.sqrt(variance) * fresh


def ddim_sample(
    x: Tensor,
    model: NoiseModel,
    *,
    grid: tuple[int, ...],
    table: npt.NDArray[np.float64],
    eta: float = 0.0,
    fresh: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Go from the deepest time of `grid` to its first by DDIM."""
    for k in range(len(grid) - 1, 0, -1):
        added = fresh(k) if fresh is not None and eta > 0 and grid[k - 1] > 0 else None
        x = ddim_step(
            x,
            model(x, grid[k]),
            alpha_from=float(table[grid[k]]),
            alpha_to=float(table[grid[k - 1]]),
            eta=eta if added is not None else 0.0,
            fresh=added,
        )
    return x


def ddim_invert(
    z: Tensor, model: NoiseModel, *, grid: tuple[int, ...], table: npt.NDArray[np.float64], iterations: int = 3
) -> Tensor:
    """Find the noise that `ddim_sample` would lead back to `z` (DDIM inversion by fixed-point iteration).

    The step down from t to s uses the noise predicted at t, which inversion does not know yet. It is the fixed point of
    `x_t = step(x_s, model(x_t, t), s -> t)`, reached here by repeating that line; once is the usual approximation.
    """
    x = z
    for k in range(1, len(grid)):
        alpha_from, alpha_to = float(table[grid[k - 1]]), float(table[grid[k]])
        start, guess = x, x
        for _ in range(iterations + 1):
            guess = ddim_step(start, model(guess, grid[k]), alpha_from=alpha_from, alpha_to=alpha_to)
        x = guess
    return x


def target_of(prediction: str, *, z: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Give what a network of this kind should put out: the noise, the clean latent, or the velocity.

    The velocity is `sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) z` (Salimans and Ho 2022).

    >>> target_of("velocity", z=torch.tensor([1.0]), noise=torch.tensor([2.0]), alpha_bar=torch.tensor(0.5))
    tensor([0.7071])
    """
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return z
    return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * z


def noise_of(prediction: str, output: Tensor, *, x: Tensor, alpha_bar: float) -> Tensor:
    """Turn the network's output at `x` into the noise that it implies.

    >>> z, eps, a = torch.ones(1), torch.full((1,), 3.0), torch.tensor(0.64)
    >>> x = a.sqrt() * z + (1 - a).sqrt() * eps
    >>> outputs = [(p, target_of(p, z=z, noise=eps, alpha_bar=a)) for p in PREDICTIONS]
    >>> [round(float(noise_of(p, output, x=x, alpha_bar=0.64)), 4) for p, output in outputs]
    [3.0, 3.0, 3.0]
    """
    if prediction == "epsilon":
        return output
    if prediction == "sample":
        return (x - math.sqrt(alpha_bar) * output) / math.sqrt(max(1 - alpha_bar, 1e-12))
    return math.sqrt(alpha_bar) * output + math.sqrt(1 - alpha_bar) * x
