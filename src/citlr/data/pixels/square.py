"""The square that is read of a rectangular picture: where the picture lies in it."""

from dataclasses import dataclass
from typing import Literal, Self, get_args

Fit = Literal["pad", "crop", "stretch"]
FITS: tuple[Fit, ...] = get_args(Fit)


@dataclass(frozen=True)
class Region:
    """Where a whole picture lies in a square of `size` pixels a side, in pixels of the square.

    Of a picture that is cropped, a part lies outside.
    """

    size: int
    left: float
    top: float
    width: float
    height: float

    @classmethod
    def of(cls, width: int, height: int, *, size: int, fit: Fit) -> Self:
        """Place a picture of `width` x `height` pixels.

        >>> Region.of(200, 100, size=64, fit="pad")
        Region(size=64, left=0, top=16, width=64, height=32)
        """
        if fit == "stretch":
            return cls(size, 0, 0, size, size)
        if fit == "crop":
            wide, high = (size * side / min(width, height) for side in (width, height))
            return cls(size, (size - wide) / 2, (size - high) / 2, wide, high)
        wide, high = (max(1, round(side * size / max(width, height))) for side in (width, height))
        return cls(size, (size - wide) // 2, (size - high) // 2, wide, high)
