from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from citlr.errors import InputError
from citlr.generators.diffusion.schedule import ddim_invert, ddim_sample, ddim_step, diffuse, even_grid, noise_table


def exact_noise(spread: float, table: np.ndarray):
    """Noise that a perfect model predicts where the data are normal with deviation `spread`."""

    def predict(x: torch.Tensor, time: int) -> torch.Tensor:
        alpha = float(table[time])
        return x * math.sqrt(1 - alpha) / (alpha * spread**2 + 1 - alpha)

    return predict


def reference_scheduler(**options: Any) -> Any:
    """Build the scheduler of diffusers, imported where a test needs it: a second, which every worker would spend."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(1000, beta_start=0.002, beta_end=0.02, beta_schedule="scaled_linear", **options)


def test_schedule_table_is_that_of_diffusers() -> None:
    reference = reference_scheduler()
    ours = noise_table(1000)
    assert ours[0] == 1.0
    np.testing.assert_allclose(ours[1:], reference.alphas_cumprod.numpy(), rtol=1e-4)


def test_schedule_step_is_that_of_diffusers() -> None:
    reference = reference_scheduler(clip_sample=False, set_alpha_to_one=True)
    reference.set_timesteps(50)
    table = noise_table(1000)
    random = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 4, 8, 8, generator=random), torch.randn(2, 4, 8, 8, generator=random)
    for time in (980, 500, 20, 0):  # diffusers counts from 0, we from 1; 20 is its stride
        theirs = reference.step(noise, time, x, eta=0.0).prev_sample
        ours = ddim_step(x, noise, alpha_from=table[time + 1], alpha_to=table[max(time + 1 - 20, 0)])
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_schedule_stochastic_step_is_that_of_diffusers() -> None:
    reference = reference_scheduler(clip_sample=False, set_alpha_to_one=True)
    reference.set_timesteps(50)
    table = noise_table(1000)
    random = torch.Generator().manual_seed(0)
    x, noise, fresh = (torch.randn(1, 4, 8, 8, generator=random) for _ in range(3))
    theirs = reference.step(noise, 500, x, eta=0.7, variance_noise=fresh).prev_sample
    ours = ddim_step(x, noise, alpha_from=table[501], alpha_to=table[481], eta=0.7, fresh=fresh)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="pass `fresh`"):
        ddim_step(x, noise, alpha_from=0.5, alpha_to=0.6, eta=0.7)


@pytest.mark.parametrize(("spread", "limit"), [(1.0, 5e-6), (0.5, 1e-4)])
def test_schedule_inversion_round_trip(spread: float, limit: float) -> None:
    # METHOD.md section 2: 5e-7 and 2e-5 in its own set-up, where the usual inversion rule has 1e-3 and 5e-2.
    table, grid = noise_table(1000), even_grid(1000, depth=1.0, steps=50)
    z = spread * torch.randn(64, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = exact_noise(spread, table)
    errors = {}
    for iterations in (0, 3):
        noisy = ddim_invert(z, model, grid=grid, table=table, iterations=iterations)
        back = ddim_sample(noisy, model, grid=grid, table=table)
        errors[iterations] = float((back - z).norm() / z.norm())
    assert errors[3] < limit
    assert errors[3] < errors[0] / 50


def test_schedule_walk_with_the_true_noise_is_exact() -> None:
    table, grid = noise_table(1000), even_grid(1000, depth=0.2, steps=7)
    random = torch.Generator().manual_seed(0)
    z, eps = torch.randn(3, 5, generator=random), torch.randn(3, 5, generator=random)
    start = diffuse(z, eps, float(table[grid[-1]]))
    torch.testing.assert_close(ddim_sample(start, lambda x, time: eps, grid=grid, table=table), z, rtol=1e-4, atol=1e-5)


def test_schedule_grid_is_even_and_ends_where_it_should() -> None:
    for depth, steps in ((0.2, 10), (0.2, 7), (1.0, 50), (0.15, 3)):
        grid = even_grid(1000, depth=depth, steps=steps)
        assert (grid[0], grid[-1], len(grid)) == (0, round(1000 * depth), steps + 1)
        strides = np.diff(grid)
        assert strides.max() - strides.min() <= 1


@pytest.mark.parametrize(
    "wrong", [{"depth": 0.0, "steps": 1}, {"depth": 1.5, "steps": 1}, {"depth": 0.01, "steps": 11}]
)
def test_schedule_grid_refuses(wrong: dict) -> None:
    with pytest.raises(InputError):
        even_grid(1000, **wrong)
