"""How faithful counterfactual images are: pure functions of arrays.

Composition, effectiveness and reversibility are the axioms of Monteiro et al. (2023); drift and the effect map are this
project's. `meter.py` makes one report of them all, and `cycles.py` redraws images again and again.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from citlr.errors import InputError


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) with a uniform window.

    The mean over windows of
    `(2 m_a m_b + c1) (2 s_ab + c2) / ((m_a^2 + m_b^2 + c1) (s_a^2 + s_b^2 + c2))`, c1 = 0.01^2, c2 = 0.03^2.

    Shapes: `a, b` (n, c, s, s) in [0, 1]; gives (n,).
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


Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class EffectMap:
    """How the generated change compares with the true one, where a simulator knows it.

    - `relative_error`: `||generated - true|| / ||true||` over all images and pixels; 0 is perfect, 1 is no better than
      no change.
    - `cosine`: Between the two changes; 1 is the right direction.
    - `scale`: Length of the generated change along the true one, as a share of it; below 1 it hides bias.
    - `outside`: Mean absolute generated change where there is no true one, in grey values.
    """

    relative_error: float
    cosine: float
    scale: float
    outside: float


def effect_map(generated: Array, true: Array) -> EffectMap:
    """Compare changes `do(a') - do(a)`.

    With g and t all pixels of both: `scale = g.t / t.t`, `cosine = g.t / (||g|| ||t||)`.
    """
    if generated.shape != true.shape:
        raise InputError(f"Generated changes {generated.shape} and true ones {true.shape} differ in shape.")
    a, b = np.asarray(generated, dtype=np.float64).ravel(), np.asarray(true, dtype=np.float64).ravel()
    power = float(b @ b)
    if power == 0:
        raise InputError("The true change is zero everywhere: there is no effect to compare with.")
    untouched = b == 0
    return EffectMap(
        relative_error=float(np.sqrt(((a - b) ** 2).sum() / power)),
        cosine=float(a @ b / np.sqrt(max(float(a @ a), 1e-300) * power)),
        scale=float(a @ b / power),
        outside=float(np.abs(a[untouched]).mean()) if untouched.any() else 0.0,
    )


def composition(images: Array, null: Array) -> float:
    """Mean absolute change of images by the null intervention (Monteiro et al. 2023); 0 is perfect.

    Shapes: `images` (n, c, s, s) in [0, 1], `null` (n, draws, c, s, s) in [0, 1].

    >>> composition(np.zeros((2, 1, 4, 4)), np.full((2, 3, 1, 4, 4), 0.5))
    0.5
    """
    return float(np.abs(null - images[:, None]).mean())


def similarity(images: Array, null: Array) -> float:
    """Mean structural similarity (7 x 7 windows) of images (n, c, s, s) with null interventions (n, draws, c, s, s)."""
    pairs = np.broadcast_to(images[:, None], null.shape).reshape(-1, *images.shape[1:])
    found = [
        ssim(
            torch.tensor(pairs[start : start + 256], dtype=torch.float64),
            torch.tensor(null.reshape(pairs.shape)[start : start + 256], dtype=torch.float64),
        )
        for start in range(0, len(pairs), 256)
    ]
    return float(torch.cat(found).mean())


def effectiveness(readings: Array) -> npt.NDArray[np.float64]:
    """Share of images redrawn under each level that a probe reads as that level (Monteiro et al. 2023).

    Shapes: `readings` (n, levels, draws, levels); gives (levels,).
    """
    read = readings.argmax(axis=-1)
    wanted = np.arange(readings.shape[1])[None, :, None]
    shares: npt.NDArray[np.float64] = (read == wanted).mean(axis=(0, 2))
    return shares


def level_auroc(readings: Array) -> npt.NDArray[np.float64]:
    """AUROC by which a probe's probability of a level tells images redrawn under it from those under the others.

    Shapes: `readings` (n, levels, draws, levels); gives (levels,).
    """
    # Here, for networks take `ssim` from this file, and drawing by them needs nothing of scikit-learn.
    from sklearn.metrics import roc_auc_score

    count = readings.shape[1]
    wanted = np.broadcast_to(np.arange(count)[None, :, None], readings.shape[:3]).ravel()
    return np.asarray([roc_auc_score(wanted == k, readings[..., k].ravel()) for k in range(count)])


def level_error(numbers: Array, wanted: Array) -> npt.NDArray[np.float64]:
    """Mean absolute error of a probe's reading of a continuous attribute, per level that images were redrawn under.

    Shapes: `numbers` (n, levels, draws), `wanted` (levels,); gives (levels,).
    """
    return np.asarray(np.abs(numbers - wanted[None, :, None]).mean(axis=(0, 2)))


def drift(readings: Array) -> float:
    """Largest mean shift of a probability (n, levels, draws, k) between levels: what moves that should have stayed."""
    means = readings.mean(axis=(0, 2))[:, 1:] if readings.shape[-1] == 2 else readings.mean(axis=(0, 2))
    shifts = (means[None, :, :] - means[:, None, :])[np.triu_indices(len(means), 1)].ravel()
    return float(shifts[np.abs(shifts).argmax()])


def frechet_distance(a: Array, b: Array) -> float:
    """Frechet distance of two sets of features taken as normal (Heusel et al. 2017).

    `||m_a - m_b||^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`, with the means and covariances of both.

    Shapes: `a, b` (n, d) and (m, d).
    """
    if min(len(a), len(b)) < 2:
        raise InputError(f"A Frechet distance needs two images on both sides, found {len(a)} and {len(b)}.")
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    shift = a.mean(axis=0) - b.mean(axis=0)
    cov_a, cov_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # tr sqrt(A B) = tr sqrt(sqrt(A) B sqrt(A)), and the latter is symmetric: no complex numbers on the way.
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    return float(max(0.0, shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross))


# Pairs of images whose kernel is in memory at a time: three numbers of each, some 13 MB.
PAIRS = 2**19


def kernel_distance(a: Array, b: Array) -> float:
    """Kernel inception distance of two sets of features (Binkowski et al. 2018): unbiased, so it may be below 0.

    The squared maximum mean discrepancy under the kernel `k(x, y) = (x.y / d + 1)^3`, without the pairs of an image and
    itself. Parameters and errors as of `frechet_distance`.
    """
    if min(len(a), len(b)) < 2:
        raise InputError(f"A kernel distance needs two images on both sides, found {len(a)} and {len(b)}.")
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)

    def kernel(x: Array, y: Array) -> float:
        """Sum the kernel over all pairs, some rows at a time: all at once, memory grows with their square."""
        step = max(1, PAIRS // len(y))
        parts = (x[start : start + step] @ y.T for start in range(0, len(x), step))
        return float(sum(((part / x.shape[1] + 1) ** 3).sum() for part in parts))

    own = [
        (kernel(x, x) - float((((x**2).sum(axis=1) / x.shape[1] + 1) ** 3).sum())) / (len(x) * (len(x) - 1))
        for x in (a, b)
    ]
    return own[0] + own[1] - 2 * kernel(a, b) / (len(a) * len(b))
