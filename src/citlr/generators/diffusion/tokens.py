"""Codes as tokens, which the denoiser attends to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Tokens(nn.Module):
    """Embeds a code as one token per variable: (n, width) -> (n, variables, dim).

    A linear map per variable, so that a null token, a level and a number have an embedding each of their own.

    - `widths`: Length of each variable's code.
    - `dim`: Length of a token.
    """

    def __init__(self, widths: Sequence[int], dim: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.embeddings = nn.ModuleList(nn.Linear(width, dim) for width in widths)

    def forward(self, codes: Tensor) -> Tensor:
        """Embed codes."""
        parts = torch.split(codes, list(self.widths), dim=1)
        return torch.stack([embed(part) for embed, part in zip(self.embeddings, parts, strict=True)], dim=1)
