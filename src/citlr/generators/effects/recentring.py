"""The mean error of an intervention, measured on training images and taken off again.

Aligned images have the same mean under every level of an attribute, given what is held (see `alignment`): what an
attribute does on average is given back by the alignment, exactly as the training split shows it. Whatever a denoiser of
minutes adds to that on average is its error, and would move every classifier that looks there, also one that makes
nothing of the attribute.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from citlr.generators.conditions import Conditions


class Recentring(nn.Module):
    """Mean changes of aligned images by which interventions are off; zeros until they are measured."""

    errors: Tensor

    def __init__(self, conditions: Conditions, size: int, channels: int = 1) -> None:
        super().__init__()
        self.image = (channels, size, size)
        self.columns = conditions.columns(variable for variable in conditions.attributes if variable.levels)
        self.register_buffer("errors", torch.zeros(len(self.columns), channels * size, size))

    def entered(self, codes: Tensor, requested: Tensor) -> Tensor:
        """Mark the levels that images get and did not have before.

        Shapes: `codes, requested` (n, width); gives (n, columns).

        Examples
        --------
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"image_id": ["1", "2"], "patient_id": ["1", "2"], "sex": ["F", "M"]})
        >>> conditions = Conditions.of(frame, attributes=("sex",), hold=(), coin_seed=0)
        >>> codes = conditions.encode(frame)
        >>> Recentring(conditions, 32).entered(codes, conditions.intervene(codes, ("sex",), "M"))[:, :3]
        tensor([[0., 1., 0.],
                [0., 0., 0.]])
        """
        return (requested[:, self.columns] - codes[:, self.columns]).clamp(min=0)

    def forward(self, codes: Tensor, requested: Tensor) -> Tensor:
        """Give the mean error of redrawing images of these factual codes under those requested.

        Shapes: gives (n, 1, c, s, s).

        Examples
        --------
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"patient_id": ["1", "2"], "sex": ["F", "M"]})
        >>> conditions = Conditions.of(frame, attributes=("sex",), hold=(), coin_seed=0)
        >>> codes, recentring = conditions.encode(frame), Recentring(conditions, 1)
        >>> recentring.errors += 0.25
        >>> recentring(codes, conditions.intervene(codes, ("sex",), "M")).flatten()
        tensor([0.2500, 0.0000])
        """
        entered = self.entered(codes, requested).to(self.errors.device)
        # The channels lie one below the other.
        return torch.einsum("nc,chw->nhw", entered, self.errors).reshape(len(codes), 1, *self.image)
