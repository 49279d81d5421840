"""An edit of an image: where every pixel is taken from, what is added before, and the bytes of it on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from citlr.errors import StateError

Floats = npt.NDArray[np.float32]
# Steps that are kept, of 16 bits: displacements go to half a side, added values to 4. At 64 pixels a displacement
# is off by 1/2048 of a pixel at most, a grey value by 1/16384: a thirtieth of what a PNG of 8 bits rounds away.
_OF_A_SIDE, _OF_GREY = 65536.0, 8192.0
NOT_PLACED = "cannot be brought together with the others (turned, inverted, another body part)"


@dataclass(frozen=True)
class Edit:
    """Edits of images, on a grid of their own: change the values, then move them, all channels together.

    - `displacement` (..., 2, s, s): x and y in pixels of the grid; a pixel at p is taken from p + u(p).
    - `added` (..., c, s, s): Grey values, or red, green and blue.
    - `placed` (...): Whether the image could be placed where edits are known; others are left as they are. None where
      no image has to be placed.
    """

    displacement: Floats
    added: Floats
    placed: npt.NDArray[np.bool_] | None = None

    def __getitem__(self, index: Any) -> Edit:
        """Take edits by their leading axes."""
        return Edit(self.displacement[index], self.added[index], None if self.placed is None else self.placed[index])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the edits as if each were one picture, (..., c, s, s)."""
        return self.added.shape

    def reshape(self, *leading: int) -> Edit:
        """Give other leading axes."""
        return Edit(
            self.displacement.reshape(*leading, *self.displacement.shape[-3:]),
            self.added.reshape(*leading, *self.added.shape[-3:]),
            None if self.placed is None else self.placed.reshape(*leading),
        )


def encode_edit(edit: Edit) -> bytes:
    """Turn one edit, `displacement` (2, s, s) and `added` (c, s, s), into bytes that compress well.

    Smooth fields are differences along x, low bytes before high ones; an edit of nothing is all zeros.
    """
    size = edit.added.shape[-1]
    fields = np.concatenate([edit.displacement * (_OF_A_SIDE / size), edit.added * _OF_GREY])
    steps = np.rint(fields)
    if not np.abs(steps).max() < 2**15:  # false for NaN as well
        raise StateError("An edit moves a pixel by half a side, or changes it by 4 or more, or is not finite.")
    differences = np.diff(steps.astype(np.int16), axis=-1, prepend=np.int16(0))
    content: bytes = differences.astype("<i2").reshape(-1, 1).view(np.uint8).T.tobytes()
    return content


def decode_edit(content: bytes, size: int) -> Edit:
    """Turn what `encode_edit` gave into an edit on a grid of `size` points a side."""
    halves = np.frombuffer(content, np.uint8).reshape(2, -1)
    differences = np.ascontiguousarray(halves.T).view("<i2").reshape(-1, size, size)
    fields = np.cumsum(differences, axis=-1, dtype=np.int16).astype(np.float32)
    return Edit(fields[:2] * np.float32(size / _OF_A_SIDE), fields[2:] * np.float32(1 / _OF_GREY))
