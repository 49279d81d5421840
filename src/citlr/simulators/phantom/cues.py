"""Cues that go with the attribute's last level and that a generator may not draw, and classifiers that read them.

A cue is added to the phantom's finished images, so that the truth stays exact: the counterfactual of an image is the
phantom's own, with the cue or without it.

- *texture*: a chequerboard of single pixels, which is gone at half the size;
- *region*: stripes in a band at the top whose phase is drawn for each image, so that the images of a level show
  nothing on average;
- *marker*: a small bright square in a corner, at a place drawn for each image.
"""

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from citlr.errors import require_known

Cue = Literal["texture", "region", "marker"]
CUES: tuple[Cue, ...] = get_args(Cue)
Images = NDArray[np.float32]
# Grey values of 255 that a cue adds or takes away.
HEIGHT = {"texture": 5, "region": 8, "marker": 70}
# Share of the height that the band takes, and side of the corner (in pixels) that the marker lies in.
BAND, CORNER = 8, 10
# Logits between an image that has the cue and one that has not.
SPAN = 12.0


def add_cue(images: Images, cue: Cue, keys: NDArray[np.int64]) -> Images:
    """Add a cue to images (n, 1, s, s) in [0, 1] of 256 grey values; `keys` (n,) say what is drawn for each image."""
    require_known(cue, CUES, f"There is no cue '{cue}'")
    size = images.shape[-1]
    change = np.zeros((len(images), 1, size, size), dtype=np.float32)
    rows, columns = np.mgrid[0:size, 0:size]
    if cue == "texture":
        change += np.where((rows + columns) % 2 == 0, 1, -1)
    for number, key in enumerate(keys):
        if cue == "region":
            stripes = np.where((columns + int(key)) % 4 < 2, 1, -1)
            change[number, 0, : size // BAND] = stripes[: size // BAND]
        elif cue == "marker":
            top, left = (int(place) % (CORNER - 3) + 1 for place in (key, key // 7))
            change[number, 0, top : top + 2, left : left + 2] = 1
    return np.clip(images + change * np.float32(HEIGHT[cue] / 255), 0, 1)


_EDGE, _MIDDLE = [-1 / 12] * 4, [-1 / 12, 1 / 4, 1 / 4, -1 / 12]
_KERNELS: dict[str, list[list[list[float]]]] = {
    "texture": [[[1 / 4, -1 / 4], [-1 / 4, 1 / 4]]],
    "region": [[[1 / 12, 1 / 12, -1 / 12, -1 / 12] * 3], [[1 / 12, -1 / 12, -1 / 12, 1 / 12] * 3]],
    "marker": [[_EDGE, _MIDDLE, _MIDDLE, _EDGE]],
}


class CueReader(nn.Module):
    """Logit of a cue: images (n, 1, s, s) in [0, 1] to (n, 1), `SPAN` apart with it and without it.

    - `images` (n, 1, s, s): Images without the cue, which it is set by.
    """

    if TYPE_CHECKING:
        kernel: Tensor

    def __init__(self, cue: Cue, images: Images) -> None:
        super().__init__()
        self.cue, self.slope, self.middle = cue, 1.0, 0.0
        self.register_buffer("kernel", torch.tensor(_KERNELS[cue])[:, None])
        keys = np.arange(len(images), dtype=np.int64)
        with torch.no_grad():
            without, there = (
                self.score(torch.from_numpy(part)).double().mean() for part in (images, add_cue(images, cue, keys))
            )
        self.slope, self.middle = float(SPAN / (there - without)), float((there + without) / 2)

    def score(self, images: Tensor) -> Tensor:
        """Give how much of the cue there is, (n, 1)."""
        if self.cue == "texture":
            return nn.functional.conv2d(images, self.kernel).abs().mean(dim=(2, 3))
        if self.cue == "region":
            found = nn.functional.conv2d(images[:, :, : images.shape[-1] // BAND], self.kernel)
            return (found**2).sum(dim=1).sqrt().mean(dim=(1, 2))[:, None]
        return nn.functional.conv2d(images[:, :, :CORNER, :CORNER], self.kernel).amax(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, 1)."""
        return self.slope * (self.score(images) - self.middle)


Use = Literal["alone", "either", "shift", "some", "swap", "hard"]
USES: tuple[Use, ...] = get_args(Use)


class CueClassifier(nn.Module):
    """A classifier of a finding that uses a cue.

    - `base`: Logit of the finding, such as `analytic_blind`.
    - `reader`: Logit of the cue.
    - `use`: The cue and nothing else; the finding or the cue; a dose of the cue on the finding's logit; the cue in some
      images only; the finding, turned round in some images that have the cue; the finding or the cue as 0 or 1.
    - `amount`: Dose (logits) for "shift"; share of the images, in (0, 1], for "some" and "swap".
    - `images` (n, 1, s, s): What the share is set by.
    """

    def __init__(self, base: nn.Module, reader: CueReader, use: Use, *, amount: float, images: Images) -> None:
        super().__init__()
        self.base, self.reader, self.use, self.amount = base, reader, use, amount
        with torch.no_grad():
            self.cut = float(torch.quantile(self._kind(torch.from_numpy(images)), 1 - min(amount, 1.0)))

    @staticmethod
    def _kind(images: Tensor) -> Tensor:
        """Give a number (n, 1) that has to do with neither: how bright the middle of the image is."""
        size = images.shape[-1]
        middle = images[:, :, size // 3 : 2 * size // 3, size // 3 : 2 * size // 3]
        return middle.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, 1)."""
        cue: Tensor = self.reader(images)
        if self.use == "alone":
            return cue
        finding: Tensor = self.base(images)
        chosen = self._kind(images) >= self.cut
        if self.use == "shift":
            return finding + self.amount * torch.tanh(cue / 2)
        if self.use == "some":
            return torch.where(chosen, torch.maximum(finding, cue), finding)
        if self.use == "swap":
            return torch.where(chosen & (cue > 0), -finding, finding)
        either = torch.maximum(finding, cue)
        return torch.where(either > 0, 40.0, -40.0) if self.use == "hard" else either
