"""From stored values to what is meant to be looked at (PS3.3 C.11): modality transform, VOI transform, padding."""

from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from citlr.data.pixels.header import Header
from citlr.data.pixels.shown import MAX_PIXELS, Remark, contrast
from citlr.errors import InputError

Window = Literal["header", "percentile", "range"]
Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
WINDOWS: tuple[Window, ...] = get_args(Window)
# Percentiles between which a film without a window is shown: collimator edges and markers lie outside.
PERCENTILES = (0.5, 99.5)
# A window shows something where the middle 99 % of the pixels span at least this much of the grey range,
POOR_CONTRAST = 1 / 16
# and at least this share of the pixels is neither black nor white.
POOR_SHARE = 0.02
# How many times as long as the other a side of a pixel is that is no square.
OBLONG = (1.01, 8.0)


def display(header: Header, stored: npt.NDArray[Any], window: Window) -> tuple[Values, tuple[Remark, ...], bool]:
    """Show stored values (H, W) in [0, 1], air dark and bone bright; with what had to be said on the way.

    Besides, whether the header said how.

    What the header asks for counts only where it shows something of the pixels; else the percentile window is taken,
    with a remark.
    """
    padding = padding_mask(header, stored)
    values, usable = rescaled(header, stored)
    remarks = [] if usable else [Remark.RESCALE]
    shown = None
    if window == "header" and usable:
        # A window is in the units of the rescaled values: without these it says nothing.
        shown, said = _by_header(header, values)
        remarks += said
    stated = shown is not None
    if shown is None:
        shown = by_range(values, padding, window)
    elif _poor(shown, padding):
        plain = by_range(values, padding, "percentile")
        if not np.isfinite(shown).all() or not _poor(plain, padding):
            shown, stated = plain, False
            remarks = [*(one for one in remarks if one is Remark.RESCALE), Remark.WINDOW]
    # In the objects that state both they say the same thing (PS3.3 C.8.11.3.1): either is enough, both invert once.
    if header.text("PhotometricInterpretation") == "MONOCHROME1" or header.text("PresentationLUTShape") == "INVERSE":
        shown = 1.0 - shown
    shown[padding] = 0.0
    return shown, tuple(remarks), stated


def rescaled(header: Header, stored: npt.NDArray[Any]) -> tuple[Values, bool]:
    """Apply the modality table, or slope and intercept; the stored values and False where these wipe them out."""
    values = stored.astype(np.float64)
    item = header.item("ModalityLUTSequence")
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    with np.errstate(all="ignore"):  # a slope of 1e308 overflows: the test below sees it
        if item is not None:
            turned = Table.read(item, signed=stored.dtype.kind == "i").apply(values)
        else:
            turned = values * (1.0 if slope is None else slope) + (0.0 if intercept is None else intercept)
        span = np.ptp(turned)
    # NaN fails both comparisons. The sign of a useless slope is unknown; the photometric interpretation still says
    # which end is white.
    usable = bool(np.isfinite(span)) and (span > 0 or np.ptp(values) == 0)
    return (turned, True) if usable else (values, False)


def _by_header(header: Header, values: Values) -> tuple[Values | None, list[Remark]]:
    """Apply the first VOI table, or else the first window; None where the header has neither."""
    item = header.item("VOILUTSequence")
    if item is not None:
        # Written without a sign, the start of a table is above all values that it is for.
        table = Table.read(item, signed=bool(values.size and (values.min() < 0 or values.max() < 1 << 15)))
        top = table.top
        return clipped(table.apply(values) / top), [Remark.TABLE] if top != table.declared else []
    centers, widths = header.numbers("WindowCenter"), header.numbers("WindowWidth")
    # Makers list alternatives after the first.
    if not centers or not widths:
        return None, []
    center, width = centers[0], widths[0]
    function = header.text("VOILUTFunction") or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise InputError(
            f"{header.file} has the VOI LUT function '{function}' as its display transform; LINEAR, LINEAR_EXACT and "
            "SIGMOID are known."
        )
    if not (np.isfinite(center) and np.isfinite(width) and width > 0):
        return np.full(values.shape, np.nan), []
    if function == "LINEAR" and width < 1:
        # Its definition subtracts 1 from the width; values of such a range are not whole numbers.
        return windowed(values, center, width, "LINEAR_EXACT"), [Remark.NARROW]
    return windowed(values, center, width, function), []


def windowed(values: Values, center: float, width: float, function: str) -> Values:
    """Apply a window as DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3 define it, with the output in [0, 1]."""
    with np.errstate(over="ignore"):
        if function == "SIGMOID":
            # exp saturates far outside the window, where the answer is 0 or 1 anyway.
            return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700.0, 700.0)))
        if function == "LINEAR_EXACT":
            return clipped((values - center) / width + 0.5)
        # At width 1 the definition is a step.
        return clipped((values - (center - 0.5)) / max(width - 1.0, 1e-9) + 0.5)


def by_range(values: Values, padding: Mask, window: Window) -> Values:
    """Show what is no padding between its percentiles, or between its ends where these are one or are asked for."""
    seen = values[~padding]
    low, high = (seen.min(), seen.max()) if window == "range" else np.percentile(seen, PERCENTILES)
    if high <= low:
        low, high = seen.min(), seen.max()
    if high <= low:
        return np.zeros_like(values)
    # Halved first: the difference of two large numbers can overflow.
    return clipped((values / 2 - low / 2) / (high / 2 - low / 2))


def squared(header: Header, shown: Values) -> Values:
    """Give an image (H, W) whose pixels are squares: the shorter side of its pixels is that of the new ones."""
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
        try:
            sides = header.numbers(name)
        except InputError:
            continue  # how large a pixel is need not be known
        if len(sides) == 2 and all(np.isfinite(side) and side > 0 for side in sides):
            break
    else:
        return shown
    # Sides that differ by rounding, or by more than those of any film, say nothing.
    if not OBLONG[0] < max(sides) / min(sides) < OBLONG[1]:
        return shown
    (rows, columns), ratio = shown.shape, sides[0] / sides[1]
    size = (columns, round(rows * ratio)) if ratio > 1 else (round(columns / ratio), rows)
    if size[0] * size[1] > MAX_PIXELS:
        return shown
    stretched = Image.fromarray(shown.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(stretched, dtype=np.float64)


def padding_mask(header: Header, stored: npt.NDArray[Any]) -> Mask:
    """Find the padding by its bits: a value may be written without the sign that the pixels have, or with it."""
    first = header.number("PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, dtype=bool)
    ends = [header.whole("PixelPaddingValue"), header.whole("PixelPaddingRangeLimit", default=int(first))]
    low, high = sorted(_as_stored(end, stored.dtype, header.whole("BitsStored")) for end in ends)
    inside: Mask = (stored >= low) & (stored <= high)
    # A film that is nothing but "padding" has a wrong padding value, as some detectors write 0 for black.
    return np.zeros(stored.shape, dtype=bool) if inside.all() else inside


def _as_stored(value: int, kind: np.dtype[Any], bits: int) -> int:
    """Read the bits of a value as the pixels' own: 63536 is -2000 among signed 16-bit ones."""
    signed = kind.kind == "i"
    for width in (8 * kind.itemsize, bits):
        cut = value & ((1 << width) - 1)
        read = cut - (1 << width) if signed and cut >> (width - 1) else cut
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        if low <= read <= high:
            return read
    return read


@dataclass(frozen=True)
class Table:
    """A lookup table: entries for values from `first` on, and the white that it declares."""

    entries: npt.NDArray[np.uint16]
    first: int
    declared: int

    @classmethod
    def read(cls, item: Header, *, signed: bool) -> Self:
        """Read a table; its entries are bytes or words, whatever the declared depth says."""
        described = [int(value) if np.isfinite(value) else -1 for value in item.numbers("LUTDescriptor")]
        if len(described) != 3 or not 1 <= described[2] <= 16 or described[0] < 0:
            raise InputError(f"{item.file} has the LUTDescriptor {described} in its header; three numbers are due.")
        count, first = described[0] or 65536, described[1]
        content = item.raw("LUTData")
        # One byte an entry, or one word; a byte more makes the length even.
        kind = "u1" if len(content) in (count, count + count % 2) and count > 1 else "<u2"
        if len(content) < count * np.dtype(kind).itemsize:
            raise InputError(
                f"{item.file} has a table of {count} entries in its header, and {len(content)} bytes of it."
            )
        entries = np.frombuffer(content, dtype=_order(item, kind))[:count].astype(np.uint16)
        # The descriptor's second number has the sign of what goes through the table.
        first = first - 65536 if signed and first >= 32768 else first
        return cls(entries, first, (1 << described[2]) - 1)

    @property
    def top(self) -> int:
        """The entry that is white: of as many bits as the entries need, which not every maker declares."""
        return (1 << max(1, int(self.entries.max()).bit_length())) - 1

    def apply(self, values: Values) -> Values:
        """Look values up; those beyond an end get the entry at that end."""
        place = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.int64)
        looked_up: Values = self.entries[place].astype(np.float64)
        return looked_up


def _order(item: Header, kind: str) -> str:
    element = item.dataset.get_item("LUTData", keep_deferred=True)
    return kind if getattr(element, "is_little_endian", True) else kind.replace("<", ">")


def _poor(shown: Values, padding: Mask) -> bool:
    seen = shown[~padding]
    if not np.isfinite(seen).all():
        return True
    inside = np.count_nonzero((seen > 0.0) & (seen < 1.0)) / seen.size
    return bool(inside < POOR_SHARE) or contrast(seen) < POOR_CONTRAST


def clipped(values: Values) -> Values:
    """Cut values to [0, 1]."""
    return np.clip(values, 0.0, 1.0)
