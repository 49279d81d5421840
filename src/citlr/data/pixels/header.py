"""What a DICOM header says, element by element: each is read as what it has to be, or named in one sentence.

The bytes are read here and not by pydicom's own conversion, which warns on standard error, raises what it likes, and
gives a list where a number is due.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citlr.errors import InputError
from citlr.text import shortened

Value = str | float
# Value representations that hold binary numbers, and what `struct` calls them (DICOM PS3.5 table 6.2-1).
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d", "OW": "H"}

# Where enhanced objects keep it (DICOM PS3.3 C.7.6.16.2): the sequence, and the elements of its item.
_OF_FRAME = {
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}


@dataclass(frozen=True)
class Header:
    """The elements of one file, or of one item of a sequence in it."""

    file: Path
    dataset: Any

    def text(self, name: str) -> str:
        """Give the first value as text; empty where there is none."""
        values = self._values(name)
        return str(values[0]) if values else ""

    def numbers(self, name: str) -> tuple[float, ...]:
        """Give all values, NaN and infinity among them; none where the element is absent or blank."""
        return tuple(self._number(name, value) for value in self._values(name))

    def number(self, name: str) -> float | None:
        """Give the value of an element that may have one only; None where it is absent or blank."""
        values = self._values(name)
        if len(values) > 1:
            raise InputError(f"{self.file} has {len(values)} values of {name} in its header, where one is due.")
        return self._number(name, values[0]) if values else None

    def whole(self, name: str, *, default: int = 0) -> int:
        """Give the value as a whole number."""
        value = self.number(name)
        if value is None:
            return default
        if not (math.isfinite(value) and value == math.floor(value)):
            raise InputError(f"{self.file} has {value:g} as {name} in its header, which is no whole number.")
        return int(value)

    def item(self, name: str) -> Header | None:
        """Give the first item of a sequence; None where there is none."""
        try:
            items = self.dataset.get(name)
            if not items:
                return None
            if not hasattr(items[0], "get_item"):
                raise TypeError("no sequence of items")
            return Header(self.file, items[0])
        except Exception as error:  # pydicom parses it now, and a damaged one can fail anywhere
            raise InputError(
                f"{self.file} has a {name} in its header that cannot be read ({shortened(str(error))})."
            ) from error

    def raw(self, name: str) -> bytes:
        """Give the bytes of an element; none where it is absent."""
        element = self.dataset.get_item(name, keep_deferred=True)
        value = None if element is None else element.value
        if value is None:
            return b""
        if not isinstance(value, bytes):
            raise InputError(f"{self.file} has a {name} that is no run of bytes but {type(value).__name__}.")
        return value

    def representation(self, name: str) -> str:
        """Give the value representation of an element that is there."""
        return str(self.dataset.get_item(name, keep_deferred=True).VR or _usual(name))

    def _values(self, name: str) -> list[Value]:
        element = self.dataset.get_item(name, keep_deferred=True)
        if element is None:
            return []
        content = element.value
        if not isinstance(content, bytes):
            return [] if content is None else [str(content)]
        code = _BINARY.get(element.VR or _usual(name))
        if code is None:
            # A text is padded to an even length by a blank, a UID by a zero byte.
            parts = [part.strip(" \0\t\r\n") for part in content.decode("ascii", errors="replace").split("\\")]
            return list(parts) if any(parts) else []
        size = struct.calcsize(code)
        if len(content) % size:
            raise InputError(f"{self.file} has {len(content)} bytes of {name} in its header, no multiple of {size}.")
        order = "<" if getattr(element, "is_little_endian", True) else ">"
        return list(struct.unpack(f"{order}{len(content) // size}{code}", content))

    def _number(self, name: str, value: Value) -> float:
        try:
            return float(value)
        except ValueError as error:
            raise InputError(
                f"{self.file} has '{shortened(str(value))}' as {name} in its header, which is no number."
            ) from error


def take_from_frame(header: Header) -> None:
    """Put what an enhanced object says of its one frame where others have it: rescale, window, size of the pixels.

    What is said of the frame goes before what is said of all. Only listed elements are taken, none about the patient.
    """
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        frame = header.item(groups)
        for macro, names in _OF_FRAME.items():
            item = frame and frame.item(macro)
            for name in names:
                element = item and item.dataset.get_item(name, keep_deferred=True)
                if element is not None and not header.text(name):
                    header.dataset[name] = element


def _usual(name: str) -> str:
    """Give the value representation of the standard, for files that do not state it."""
    from pydicom.datadict import dictionary_VR

    # "US or SS": the sign is a question of what reads the bits.
    return str(dictionary_VR(name))[:2]
