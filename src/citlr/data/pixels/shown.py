"""Does a decoded image show anything? Asked once, of every image, whatever reader it came through."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

# The middle 99 % of the grey values of an image that shows something span at least four of 256 steps; a marker or the
# rim of a collimator on an empty film does not make up a hundredth of it.
BLANK = 1 / 64
# Below this the image is shown, but somebody should look: twelve bits in sixteen look like this.
FAINT = 1 / 16
# An image that was let in is refused later only below half a step of 256: shrinking takes contrast from noise.
NOTHING = 1 / 512
WHITE = 65535
# Twice the area of the largest flat-panel detector in use; below Pillow's own alarm, which only warns.
MAX_PIXELS = 64_000_000
Pixels = npt.NDArray[np.float32]
# Depths of detectors; a set of 16-bit images whose largest value is one of these or less was written with fewer bits.
DEPTHS = (8, 10, 12, 14)
_SAMPLE = 65536
_MIDDLE = (0.5, 99.5)
# Kinds of file: DICOM that is shown as its header asks for, and such that is shown by its values alone.
DICOM, BARE_DICOM = "DICOM", "DICOM, between percentiles"


class Remark(StrEnum):
    """What was done about an image that is not plainly what its reader expects."""

    COLOUR = "in colour, and read as grey (luminance)"
    GREY = "in grey among colour, and read as three equal channels"
    TRANSPARENT = "with transparency, which lies on black"
    WINDOW = "with a header window or table that shows nothing of the pixels: shown between percentiles"
    RESCALE = "with a rescale slope, intercept or table that leaves no values: shown as stored, between percentiles"
    TABLE = "with a VOI table whose entries have another depth than it declares: their own is taken as white"
    BITS = (
        "with bits set above those that are stored, which are left out: an overlay, or values of more bits than stated"
    )
    DEEPER = (
        "with compressed values of more bits than their header states, which are read as they are: an overlay, or a "
        "BitsStored that is too small"
    )
    DAMAGED = "whose JPEG is damaged, so that parts of them come out wrong or grey: look at them, or fetch them again"
    LONG = (
        "with twice the bytes of pixels that their header asks for, or more, of which the first are read: see whether "
        "they have more bits, or several frames"
    )
    BURNT = "with text burnt into the picture, as their header says: it may name the patient, or tell levels apart"
    OBLONG = "with pixels that are no squares, and shown in their true shape"
    RAW = "marked for processing, not for presentation: raw images of the detector, which nobody is meant to look at"
    NARROW = "with a window narrower than 1, which is taken as exact"
    FAINT = "with less than a sixteenth of the grey range used"
    LINK = "behind a link that leads out of the image folder"


@dataclass(frozen=True)
class Seen:
    """A decoded image, and what there is to say of it.

    - `image` (c, H, W) in [0, 1], of one or three channels
    - `contrast`: The span of the middle 99 % of its grey values (of luminance, in colour), in [0, 1], as it came.
    - `peak`: The largest stored value of an image of 16 bits a channel, in [0, 65535]; 0 for other images.
    - `kind`: What the file is: its format, and how it holds pixels.
    """

    image: npt.NDArray[np.float32]
    contrast: float
    remarks: tuple[Remark, ...] = ()
    peak: int = 0
    kind: str = ""


def contrast(values: npt.NDArray[Any]) -> float:
    """Measure the span of the middle 99 % of values of any shape, on at most some 65,536 of them; NaN if one is NaN.

    >>> contrast(np.linspace(0, 1, 101)), contrast(np.full((4, 4), 0.5))
    (0.99, 0.0)
    """
    # An odd step goes through all columns of an image, however wide.
    sample = values.reshape(-1)[:: values.size // _SAMPLE | 1]
    low, high = _percentiles_of_bytes(sample) if sample.dtype == np.uint8 else np.percentile(sample, _MIDDLE)
    return float(high - low)


def _percentiles_of_bytes(sample: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Give what `np.percentile` gives, to the bit, by sorting bytes by their digits: it takes a sixth of the time.

    >>> sample = np.array([3, 200, 7, 7, 90], dtype=np.uint8)
    >>> bool(np.all(_percentiles_of_bytes(sample) == np.percentile(sample, _MIDDLE)))
    True
    """
    place = (sample.size - 1) * (np.asarray(_MIDDLE) / 100)
    before = np.floor(place).astype(np.intp)
    ordered = np.sort(sample, kind="stable")
    first, second = (ordered[at].astype(np.float64) for at in (before, np.minimum(before + 1, sample.size - 1)))
    part, step = place - before, second - first
    # From the nearer of the two, as numpy does.
    return np.asarray(np.where(part < 0.5, first + step * part, second - step * (1 - part)))


def white_of(peaks: list[int]) -> int:
    """Say which value is white in a set of images of 16 bits, by the largest value of each.

    It is less than 65535 where none of them needs more than 14 bits: that of the detector's depth. Asked of a set and
    never of one image: a dark image among brighter ones stays dark.

    >>> white_of([3900, 4095]), white_of([3900, 65535]), white_of([])
    (4095, 65535, 65535)
    """
    largest = max(peaks, default=WHITE)
    return next((2**bits - 1 for bits in DEPTHS if 0 < largest < 2**bits), WHITE)


def blank_fault(name: str, span: float, *, least: float = BLANK) -> str | None:
    """Say that an image with this contrast shows nothing, or None."""
    # The comparison is false for NaN.
    if span >= least:
        return None
    what = "are no numbers" if np.isnan(span) else f"lie within {100 * span:.2g} % of the grey range"
    return f"{name} shows nothing: 99 % of its pixels {what}."
