"""Where the attribute acts: the pixels at which the training split shows an effect, given the held covariates.

A generator also learns what goes with the attribute in its sample by chance, everywhere in the image, and a model that
cannot see the attribute does see that. What is not shown is therefore not changed.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor, nn

from citlr.generators.conditions import Conditions
from citlr.generators.effects.contrasts import by_patient
from citlr.generators.effects.whitening import decomposed
from citlr.generators.variables import Variable
from citlr.learning.store import Rows, sample_rows, spans
from citlr.randomness import PLACEBO, hashed_seed

# Permutations of the attribute that the threshold rests on, and the share of them that may show anything anywhere.
PERMUTATIONS = 99
ERROR = 0.05
# Side of the window that squared t-values are averaged over, as a share of the image: 5 pixels of 64.
WINDOW = 5 / 64


class Support(nn.Module):
    """Weights in [0, 1] by which an intervention's change is multiplied, pixel by pixel; ones until they are found."""

    weights: Tensor

    def __init__(self, conditions: Conditions, size: int) -> None:
        super().__init__()
        self.variables: tuple[Variable, ...] = conditions.acting
        self.register_buffer("weights", torch.ones(len(self.variables), size, size))

    def of(self, names: Sequence[str]) -> Tensor:
        """Give the weights (1, 1, 1, s, s) of an intervention on these attributes together.

        The coin may act wherever any attribute may: its audit has to see what the generator invents there.
        """
        rows = [k for k, variable in enumerate(self.variables) if variable.name in names]
        if not rows or PLACEBO in names:
            return self.anywhere()[None, None]
        return self.weights[rows].amax(dim=0)[None, None, None]

    def anywhere(self) -> Tensor:
        """Give the largest weight of all attributes at each pixel: (1, s, s), in [0, 1]."""
        return self.weights.amax(dim=0)[None]


def find_support(pixels: Rows, codes: Tensor, conditions: Conditions, *, seed: int, patients: npt.ArrayLike) -> Tensor:
    """Find where each attribute acts.

    Every pixel is regressed on the held covariates' codes and on the attribute's. The squared t-values of the
    attribute's codes (the largest over its levels), averaged over a small window, are held against their maximum over
    the image in permutations of the attribute's residuals (Freedman and Lane 1983): where there is no effect at all,
    95 % of data sets show none anywhere. Of more than SAMPLE images, so many are drawn. Images of one patient are
    alike, and so are their levels: where `patients` have several, their signs are redrawn instead.

    Shapes: `pixels` (n, c, s, s), `codes` (n, width), `patients` (n,); gives (attributes, s, s).
    """
    random = np.random.default_rng(hashed_seed("support", seed))
    rows = sample_rows(len(codes), np.random.default_rng(hashed_seed("support", seed, "rows")))
    codes = codes[torch.from_numpy(rows)]
    held = np.concatenate(
        [np.ones((len(codes), 1)), codes[:, conditions.columns(conditions.held)].double().numpy()], axis=1
    )
    # An orthonormal basis of what is held.
    u, s, _ = decomposed(held)
    basis = u[:, s > 1e-8 * s[0]]
    number, _ = by_patient(np.asarray(patients)[rows])
    maps = []
    for variable in conditions.acting:
        levels = codes[:, conditions.span(variable.name)].double().numpy()
        levels = levels - basis @ (basis.T @ levels)
        levels = levels[:, (levels**2).sum(axis=0) > 1e-6 * len(levels)]
        if levels.shape[1]:
            maps.append(_shown(pixels, rows, basis, _redrawn(levels, number, random)))
        else:
            maps.append(np.zeros((pixels.shape[-1], pixels.shape[-1])))
    return torch.from_numpy(np.stack(maps)).float()


def _redrawn(
    levels: npt.NDArray[np.float64], number: npt.NDArray[np.intp], random: np.random.Generator
) -> Iterator[npt.NDArray[np.float64]]:
    """Give levels (n, k), and what they could have been by chance: permuted, or by patient (n,) with other signs."""
    yield levels
    patients = int(number.max()) + 1
    for _ in range(PERMUTATIONS):
        if patients == len(levels):
            yield levels[random.permutation(patients)]
        else:
            yield levels * random.choice((-1.0, 1.0), patients)[number, None]


def _shown(
    every: Rows, rows: npt.NDArray[np.int64], basis: npt.NDArray[np.float64], redrawn: Iterator[npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """Map (s, s) where the first of levels (n, k), free of the basis, shows more than what is redrawn: 0 or 1."""
    n, channels, size = len(rows), every.shape[1], every.shape[-1]
    every_order = []
    for levels in redrawn:
        # A permuted attribute is freed of the held covariates again, else it would borrow their effect.
        free = levels - basis @ (basis.T @ levels)
        every_order.append(free / np.sqrt((free**2).sum(axis=0)))
    columns = every_order[0].shape[1]
    tried = np.stack(every_order, axis=1).reshape(n, -1)
    cross, square, known = (np.zeros((k, channels * size**2)) for k in (tried.shape[1], 1, basis.shape[1]))
    for part in spans(n):
        pixels = np.asarray(every[rows[part]], dtype=np.float64).reshape(len(tried[part]), -1)
        cross += tried[part].T @ pixels
        known += basis[part].T @ pixels
        square += (pixels**2).sum(axis=0)
    rest = np.maximum(square - (known**2).sum(axis=0), 1e-12)
    squared = (n - basis.shape[1] - 1) * cross**2 / np.maximum(rest - cross**2, 1e-12)
    # A pixel shows an effect where one of its channels does.
    squared = squared.reshape(1 + PERMUTATIONS, columns * channels, size, size).max(axis=1)
    window = max(1, round(WINDOW * size) // 2 * 2 + 1)
    smooth = ndimage.uniform_filter(squared, size=(0, window, window), mode="nearest")
    highest = np.sort(smooth[1:].max(axis=(1, 2)))
    threshold = highest[int(np.ceil((1 - ERROR) * (PERMUTATIONS + 1))) - 1]
    # A window that reaches over the edge of an effect shows one, though its centre has none: the outermost quarter of a
    # window is taken off again, or a model that is blind to the attribute would be shown what was invented there.
    edge = max(1, window // 4)
    return np.asarray(ndimage.binary_erosion(smooth[0] > threshold, iterations=edge, border_value=1), dtype=np.float64)
