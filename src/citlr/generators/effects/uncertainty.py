"""How surely the training split shows what an attribute does on average: replicates of the mean effect.

No generator knows the mean effect of an attribute better than the images it learnt from show it. Patients are
weighted anew in every replicate (the Bayesian bootstrap, Rubin 1981), the regression that gives the mean effects is
repeated, and what each replicate's effects deviate by is kept. A model's output on images moved by such deviations
says how far its own measured effect may be off, whatever the model looks at.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from citlr.generators.base import REPLICATES
from citlr.generators.conditions import Conditions
from citlr.generators.effects.contrasts import by_patient
from citlr.learning.store import Rows, spans
from citlr.randomness import hashed_seed


class Uncertainty(nn.Module):
    """Deviations of the attributes' mean effects, one set per replicate; zeros until they are found."""

    deviations: Tensor

    def __init__(self, conditions: Conditions, size: int, channels: int = 1) -> None:
        super().__init__()
        self.columns, self.image = conditions.columns(conditions.acting), (channels, size, size)
        # The channels one below the other.
        self.register_buffer("deviations", torch.zeros(REPLICATES, len(self.columns), channels * size, size))

    def of(self, codes: Tensor) -> Tensor:
        """Give what the mean image under each code deviates by, in each replicate.

        Shapes: `codes` (levels, width); gives (REPLICATES, levels, c, s, s).

        >>> import pandas as pd
        >>> frame = pd.DataFrame({"patient_id": ["1", "2"], "sex": ["F", "M"]})
        >>> conditions = Conditions.of(frame, attributes=("sex",), hold=(), coin_seed=0)
        >>> Uncertainty(conditions, 4).of(conditions.encode(frame)).shape
        torch.Size([12, 2, 1, 4, 4])
        """
        chosen = codes[:, self.columns].to(self.deviations)
        found = torch.einsum("lc,kchw->klhw", chosen, self.deviations)
        return found.reshape(*found.shape[:2], *self.image)


def find_deviations(
    pixels: Rows, patients: npt.ArrayLike, codes: Tensor, conditions: Conditions, *, seed: int
) -> Tensor:
    """Repeat the regression of the pixels on all codes with patients weighted anew.

    With the design D (a one and all codes), pixels x and a replicate's weights W, drawn from Exp(1) per patient and
    shared out among the patient's images, the effects are `b_W = (D' W D)^+ D' W x`; what is kept is how they deviate
    from those of patients that all count the same.

    Shapes: `pixels` (n, c, s, s), `patients` (n,), `codes` (n, width); gives (REPLICATES, columns, c * s, s).
    """
    size, entries = pixels.shape[-1], math.prod(pixels.shape[1:])
    random = np.random.default_rng(hashed_seed("uncertainty", seed))
    number, alike = by_patient(np.asarray(patients).astype(str))
    drawn = random.standard_exponential((REPLICATES, int(number.max()) + 1))[:, number]
    weights = alike * np.concatenate([np.ones((1, len(number))), drawn])
    design = np.concatenate([np.ones((len(codes), 1)), codes.double().numpy()], axis=1)
    cross = np.zeros((len(weights), design.shape[1], entries))
    for part in spans(len(design)):
        rows = np.asarray(pixels[part], dtype=np.float64).reshape(-1, entries)
        for k, weight in enumerate(weights):
            cross[k] += (design[part] * weight[part, None]).T @ rows
    effects = np.stack([_solve(design, weight, one) for weight, one in zip(weights, cross, strict=True)])[:, 1:]
    kept = []
    for variable in conditions.acting:
        own = codes[:, conditions.span(variable.name)].double().numpy()
        kept.append(_centred(effects[:, conditions.span(variable.name)], own, bool(variable.levels)))
    every = np.concatenate(kept, axis=1)
    return torch.from_numpy(every[1:] - every[:1]).float().reshape(REPLICATES, every.shape[1], -1, size)


def _solve(
    design: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], cross: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    # Columns of one variable sum to one, so that the smallest of all solutions is taken; contrasts are the same in all.
    gram = (design * weight[:, None]).T @ design
    return np.linalg.pinv(gram, rcond=1e-10, hermitian=True) @ cross


def _centred(effects: npt.NDArray[np.float64], own: npt.NDArray[np.float64], levels: bool) -> npt.NDArray[np.float64]:
    """Make the effects (k, columns, pixels) of one variable zero on average, and that of a missing value zero."""
    centred = effects - np.einsum("c,kcp->kp", own.mean(axis=0), effects)[:, None] if levels else effects.copy()
    centred[:, -1] = 0
    return centred
