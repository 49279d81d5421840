"""Colour as edits see it: luminance, and by how much red and blue differ from it.

What shows an anatomy is nearly all in luminance, and what shows a tone of skin or a stain nearly all in the other two:
neither drowns in the spread of the other, as they do in red, green and blue. A grey image has one axis, itself.
"""

import torch
from torch import Tensor

from citlr.data.pixels.colour import LUMINANCE

# Opponent colours: red less luminance, blue less luminance; a change of either leaves luminance as it is.
OPPONENTS = 2
_RED, _GREEN, _BLUE = LUMINANCE
_AXES = torch.tensor([LUMINANCE, (1 - _RED, -_GREEN, -_BLUE), (-_RED, -_GREEN, 1 - _BLUE)])
_BACK = torch.tensor([(1.0, 1.0, 0.0), (1.0, -_RED / _GREEN, -_BLUE / _GREEN), (1.0, 0.0, 1.0)])


def axes(images: Tensor) -> Tensor:
    """Give the axes of images (n, c, s, s): luminance first, then the opponent colours, if there are any."""
    return images if images.shape[1] == 1 else _turned(_AXES, images)


def grey(images: Tensor) -> Tensor:
    """Give the luminance (n, 1, s, s) of images (n, c, s, s)."""
    return images if images.shape[1] == 1 else _turned(_AXES[:1], images)


def red_green_blue(along: Tensor) -> Tensor:
    """Give images, or changes of them, from their axes."""
    return along if along.shape[1] == 1 else _turned(_BACK, along)


def _turned(weights: Tensor, images: Tensor) -> Tensor:
    return torch.einsum("kc,ncyx->nkyx", weights.to(images), images)
