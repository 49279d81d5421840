"""Structural similarity of two batches of images, differentiable."""

from __future__ import annotations

from torch import Tensor


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) with a uniform window.

    The mean over windows of
    `(2 m_a m_b + c1) (2 s_ab + c2) / ((m_a^2 + m_b^2 + c1) (s_a^2 + s_b^2 + c2))`, c1 = 0.01^2, c2 = 0.03^2.

    Shapes: `a, b` (n, c, s, s) in [0, 1]; gives (n,).

    Examples
    --------
    >>> import torch
    >>> image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> ssim(image, image)
    tensor([1.])
    """
    # Of channels that lie side by side, as networks give them, windows take half as long again.
    a, b = a.contiguous(), b.contiguous()
    window = min(7, *a.shape[-2:])

    def mean(x: Tensor) -> Tensor:
        return _sums(_sums(x, window, -2), window, -1).div(window * window)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    both = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return score.mean(dim=(1, 2, 3))


def _sums(x: Tensor, window: int, axis: int) -> Tensor:
    """Add up neighbours along an axis: a pooling takes six times as long, and its gradient twice and a half."""
    places = x.shape[axis] - window + 1
    found = x.narrow(axis, 0, places)
    for k in range(1, window):
        found = found + x.narrow(axis, k, places)
    return found
