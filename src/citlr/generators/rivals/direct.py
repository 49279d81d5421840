"""What generators share that redraw in one pass, without sampling through noise: a latent, a condition, an image."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from citlr.generators.base import BATCH
from citlr.generators.conditions import Conditions
from citlr.generators.learnt import LearntGenerator
from citlr.generators.request import Request
from citlr.generators.settings import ABDUCTIONS, GeneratorSettings, require_known_value
from citlr.values import Name, Positive


@dataclass(frozen=True)
class DirectConfig(GeneratorSettings):
    """What every generator of this kind is built from; further fields as of `GeneratorSettings`.

    - `abduction`: Whether a draw takes its latent from the posterior at random, or all draws the posterior's mean.
    """

    abduction: Name = "noise"
    guidance: Positive = 1.0

    afterwards: ClassVar[frozenset[str]] = GeneratorSettings.afterwards | {"guidance", "abduction"}

    def check(self) -> None:
        """Refuse values that do not go together; InputError naming the field."""
        require_known_value("abduction", self.abduction, ABDUCTIONS)


class DirectGenerator(LearntGenerator):
    """A generator that infers a latent, changes the condition, and decodes."""

    config: DirectConfig

    @abstractmethod
    def posterior(self, images: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the latent given images (n, 1, s, s) and their factual codes (n, width)."""

    @abstractmethod
    def render(self, latent: Tensor, factual: Tensor, requested: Tensor, free: Tensor, guidance: float) -> Tensor:
        """Give images of latents under the codes `requested`; `free` has the null code where `requested` intervenes."""

    def weight(self) -> float:
        """Give the configuration's own."""
        return self.config.guidance

    def abduction(self) -> str:
        """Give the configuration's own."""
        return self.config.abduction

    def redraw_batch(self, images: Tensor, codes: Tensor, ids: list[str], request: Request) -> Tensor:
        """Redraw images, one draw after the other."""
        factual = codes.to(self.device)
        mean, deviation = self.posterior(images.to(self.device), factual)
        free = self.conditions.intervene(codes, request.names, None).to(self.device)
        redrawn = []
        for level, requested in zip(request.levels, request.requested(self.conditions, codes), strict=True):
            latents = mean[:, None].expand(-1, request.draws, *mean.shape[1:])
            if not request.inverts:
                noise = request.noise(ids, self.kind, level, tuple(mean.shape[1:])).to(self.device)
                latents = latents + deviation[:, None] * noise.reshape(latents.shape)
            target = requested.to(self.device)
            draws = [
                self.render(latents[:, draw].contiguous(), factual, target, free, request.weight)
                for draw in range(request.draws)
            ]
            redrawn.append(torch.stack(draws, dim=1))
        return torch.stack(redrawn, dim=1)

    def reconstruct_batch(self, images: Tensor) -> Tensor:
        """Encode and decode images (n, 1, s, s), told nothing of them."""
        null = self.conditions.nothing(BATCH).to(self.device)
        mean, _ = self.posterior(images, null)
        return self.render(mean, null, null, null, 1.0)


def level_columns(conditions: Conditions, name: str) -> npt.NDArray[np.int64]:
    """Columns of a code that name the levels of a variable (or hold its number), without the flag for "not given".

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"patient_id": [1, 2], "sex": ["F", "M"]})
    >>> level_columns(Conditions.of(frame, attributes=["sex"], hold=[], coin_seed=0), "sex")
    array([0, 1])
    """
    part = conditions.span(name)
    return np.arange(part.start, part.stop - 1)
