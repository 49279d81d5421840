"""DICOM radiographs: pixels and what it takes to show them. Tags about the patient are never parsed."""

import os
import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from citlr.data.pixels.display import WINDOWS, Window, display, squared
from citlr.data.pixels.header import Header, take_from_frame
from citlr.data.pixels.shown import MAX_PIXELS, Pixels, Remark
from citlr.errors import CitlrError, InputError, needed, require_known
from citlr.run.files import require_regular
from citlr.text import shortened

# The reader skips every element that is not listed, so nothing about the patient can reach an artefact. All are in the
# groups acquisition (0018), image pixel (0028, 7FE0), presentation (2050), frame (5200) and view code (0054), but
# modality and intent (0008); none is in group 0010.
DISPLAY_TAGS = (
    "TransferSyntaxUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "BurnedInAnnotation",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "PixelAspectRatio",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    "PresentationLUTShape",
    "PresentationIntentType",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "PixelData",
)
# Where a compressed picture says how large it is: behind the markers of a frame (JPEG, JPEG-LS), or in that of its
# size, with the place of its upper left corner (JPEG 2000).
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_SIZE = re.compile(rb"\xff\x4f\xff\x51.{4}(.{4})(.{4})(.{4})(.{4})", re.DOTALL)
HEADER_TAGS = ("Modality", "ViewPosition", "ViewCodeSequence", "Rows", "Columns")
# What pydicom and its decoders warn of is either named by an error of this file, or changes no pixel.
_NOISY = re.compile(r"(pydicom|pylibjpeg|libjpeg|openjpeg|rle)(\.|$)")


@dataclass(frozen=True)
class DicomHeader:
    """What the header says of the exposure.

    - `modality`: Such as DX or CR; empty when not stated.
    - `view`: The view position, or the meaning of the view code; empty when not stated.
    - `rows`, `columns`: Size in pixels; 0 when not stated.
    """

    modality: str
    view: str
    rows: int
    columns: int


def see_dicom(path: str | os.PathLike[str], *, window: Window = "header") -> tuple[Pixels, tuple[Remark, ...]]:
    """Read a single-frame radiograph as it is meant to be looked at, air dark and bone bright, with remarks."""
    shown, remarks, _ = show_dicom(path, window=window)
    return shown, remarks


def show_dicom(path: str | os.PathLike[str], *, window: Window = "header") -> tuple[Pixels, tuple[Remark, ...], bool]:
    """Read a radiograph as `see_dicom` does; besides, whether its header said how it is to be shown.

    Stored values go through the modality transform (rescale slope and intercept, or its table), then through the VOI
    table or window (DICOM PS3.3 C.11.2), and MONOCHROME1 or a presentation LUT shape of INVERSE is inverted. Padding
    pixels become black. Pixels that are no squares are made such.

    Shapes: gives (1, H, W) in [0, 1].
    """
    require_known(window, WINDOWS, f"window='{window}' is not known")
    film = Film.of(path)
    stored, above = film.decode()
    shown, remarks, stated = film.show(stored, window)
    square = squared(film.header, shown)
    more = {
        Remark.BITS: above and not film.has_own_depth,
        Remark.DEEPER: above and film.has_own_depth,
        Remark.OBLONG: square.shape != shown.shape,
        Remark.LONG: film.is_too_long,
        Remark.BURNT: film.header.text("BurnedInAnnotation").upper() == "YES",
        Remark.RAW: film.header.text("PresentationIntentType").upper() == "FOR PROCESSING",
    }
    return square.astype(np.float32)[None], (*remarks, *(remark for remark, holds in more.items() if holds)), stated


def read_header(path: str | os.PathLike[str]) -> DicomHeader:
    """Read modality, view and size without touching pixels or patient."""
    file = require_regular(path)
    header = Header(file, _read(file, HEADER_TAGS, pixels=False))
    view = header.text("ViewPosition")
    code = None if view else header.item("ViewCodeSequence")
    return DicomHeader(
        modality=header.text("Modality"),
        view=view or ("" if code is None else code.text("CodeMeaning")),
        rows=header.whole("Rows"),
        columns=header.whole("Columns"),
    )


@dataclass(frozen=True)
class Film:
    """One radiograph as it lies in its file: its header looked at, its pixels not decoded yet."""

    file: Path
    header: Header
    decoder: Any
    content: bytes
    shape: tuple[int, int]

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file and refuse, by its header alone, what is no plain radiograph or cannot be decoded here."""
        file = require_regular(path)
        dataset = _read(file, DISPLAY_TAGS)
        header = Header(file, dataset)
        shape = _plain_radiograph(header)
        take_from_frame(header)
        decoder = _decoder(file, str(getattr(dataset.file_meta, "TransferSyntaxUID", "") or ""))
        film = cls(file, header, decoder, header.raw("PixelData"), shape)
        if not decoder.UID.is_encapsulated and len(film.content) < film.need:
            raise InputError(
                f"{file} cannot be decoded, it may be truncated: {len(film.content)} of {film.need} bytes of pixels."
            )
        own = _own_size(film.content) if decoder.UID.is_encapsulated else None
        # Of another number of pixels, the decoder fails; these it would lay out in the wrong rows.
        if own and own != shape and own[0] * own[1] == shape[0] * shape[1]:
            raise InputError(
                f"{file} states {shape[1]} x {shape[0]} pixels, and its compressed picture has {own[1]} x {own[0]}; "
                "export it again."
            )
        return film

    @property
    def need(self) -> int:
        """How many bytes the pixels take, where they are not compressed."""
        return self.shape[0] * self.shape[1] * self.header.whole("BitsAllocated") // 8

    @property
    def is_too_long(self) -> bool:
        """Whether a second picture, or one of twice the depth, would have room behind the pixels; writers pad less."""
        return not self.decoder.UID.is_encapsulated and len(self.content) >= 2 * self.need

    @property
    def has_own_depth(self) -> bool:
        """Whether the compressed values say themselves how many bits they have, whatever the header says."""
        from pydicom.uid import JPEG2000TransferSyntaxes

        return self.decoder.UID in JPEG2000TransferSyntaxes

    def decode(self) -> tuple[npt.NDArray[Any], bool]:
        """Give the stored values (H, W), whole numbers, and whether words held more than these and their sign."""
        rows, columns = self.shape
        bits = self.header.whole("BitsStored")
        described = {
            "rows": rows,
            "columns": columns,
            "samples_per_pixel": 1,
            "number_of_frames": 1,
            "photometric_interpretation": self.header.text("PhotometricInterpretation"),
            "bits_allocated": self.header.whole("BitsAllocated"),
            "bits_stored": bits,
            "pixel_representation": self.header.whole("PixelRepresentation"),
            "pixel_keyword": "PixelData",
            "pixel_vr": self.header.representation("PixelData"),
            "correct_unused_bits": False,
        }
        try:
            decoded, _ = self.decoder.as_array(self.content, index=0, **described)
        except Exception as error:  # each decoder raises its own kind, with a page of words
            how = _compression(self.decoder.UID)
            raise InputError(
                f"{self.file} cannot be decoded: it is {how}, and no installed decoder takes it; see whether the file "
                "is whole, or write it without compression."
            ) from error
        words = np.asarray(decoded).reshape(rows, columns)
        width = words.dtype.itemsize
        unused = 8 * width - bits
        if not unused:
            return words, False
        stored = (words << unused) >> unused
        plain, held = (one.astype(f"{words.dtype.kind}{width}").view(f"u{width}") for one in (stored, words))
        above = bool(((held != plain) & (held >> bits > 0)).any())
        return words if self.has_own_depth else stored, above

    def show(
        self, stored: npt.NDArray[Any], window: Window
    ) -> tuple[npt.NDArray[np.float64], tuple[Remark, ...], bool]:
        """Turn stored values (H, W) into grey values in [0, 1] as the header asks for, see `display`."""
        try:
            return display(self.header, stored, window)
        except InputError:
            raise
        except Exception as error:  # no header may end in a traceback; which value it was is in the error
            raise InputError(
                f"{self.file} has a display transform that cannot be applied ({shortened(str(error))})."
            ) from error

    def require_display(self) -> None:
        """Refuse, without decoding, a header with a display value that is none: two pixels ask for all of them."""
        kind = f"{'i' if self.header.whole('PixelRepresentation') else 'u'}{self.header.whole('BitsAllocated') // 8}"
        self.show(np.array([[0, 1]], dtype=kind), "header")


def _plain_radiograph(header: Header) -> tuple[int, int]:
    """Give rows and columns of what is one grey image of a possible size."""
    file = header.file
    if not header.raw("PixelData"):
        raise InputError(f"{file} is a DICOM file without pixel data (a report or a presentation state?).")
    frames = header.whole("NumberOfFrames", default=1)
    if frames > 1:
        raise InputError(f"{file} holds {frames} frames; a radiograph has one, so export the frame that is meant.")
    kind = header.text("PhotometricInterpretation") or "(none)"
    if kind not in ("MONOCHROME1", "MONOCHROME2") or header.whole("SamplesPerPixel", default=1) != 1:
        raise InputError(
            f"{file} has the photometric interpretation {shortened(kind, 60)}; MONOCHROME1 or MONOCHROME2 is needed."
        )
    rows, columns = header.whole("Rows"), header.whole("Columns")
    if rows < 1 or columns < 1:
        raise InputError(f"{file} does not state its rows and columns.")
    if rows * columns > MAX_PIXELS:
        raise InputError(f"{file} claims {columns} x {rows} pixels, more than {MAX_PIXELS:,}; it is refused as a bomb.")
    allocated, stored = header.whole("BitsAllocated"), header.whole("BitsStored")
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise InputError(f"{file} states {stored} of {allocated} bits a pixel; 1 to all of 8, 16 or 32 can be read.")
    # No decoder looks at it: bits that lie elsewhere would be shown as noise.
    highest = header.whole("HighBit", default=stored - 1)
    if highest != stored - 1:
        raise InputError(
            f"{file} states the HighBit {highest} for {stored} stored bits, where {stored - 1} is due; write it with "
            "its values in the lower bits."
        )
    if header.whole("PixelRepresentation") not in (0, 1):
        raise InputError(f"{file} states a PixelRepresentation that is neither 0 nor 1.")
    return rows, columns


def _decoder(file: Path, syntax: str) -> Any:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    try:
        decoder = get_decoder(UID(syntax))
    except NotImplementedError as error:
        name = _compression(UID(syntax)) if syntax else "written in a transfer syntax that it does not state"
        raise InputError(
            f"{file} is {name}, which no decoder of pydicom takes; write it without compression."
        ) from error
    if not decoder.is_available:
        raise InputError(
            f"{file} is {_compression(decoder.UID)}, and no installed decoder takes it: pip install 'citlr[dicom]', or "
            "write it without compression."
        )
    return decoder


def _own_size(content: bytes) -> tuple[int, int] | None:
    """Give rows and columns as a compressed picture states them; None where it does not."""
    from pydicom.encaps import get_frame

    try:
        stream = get_frame(content, 0, number_of_frames=1)
        if size := _SIZE.search(stream):
            right, lower, left, upper = (int.from_bytes(side) for side in size.groups())
            return lower - upper, right - left
        place = 2 if stream.startswith(b"\xff\xd8\xff") else len(stream)
        while stream[place] == 0xFF:
            if stream[place + 1] in _FRAMES:
                rows, columns = struct.unpack(">HH", stream[place + 5 : place + 9])
                return (rows, columns) if rows else None  # stated behind the picture
            place += 2 + int.from_bytes(stream[place + 2 : place + 4])
    except Exception:  # a damaged stream, which the decoder names
        pass
    return None


def _compression(syntax: Any) -> str:
    """Name a transfer syntax as the standard does."""
    name = str(syntax.name)
    known = name if name == str(syntax) else f"{name} ({syntax})"
    return f"{'compressed' if syntax.is_transfer_syntax and syntax.is_compressed else 'written'} as {shortened(known)}"


def _read(file: Path, tags: tuple[str, ...], *, pixels: bool = True) -> Any:
    with needed("pydicom", "dicom", "Reading DICOM"):
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError
    _hush()
    read = partial(dcmread, file, specific_tags=list(tags), stop_before_pixels=not pixels)
    try:
        return read()
    except FileNotFoundError as error:
        raise InputError(f"{file} is not there; check the image folder and the path column.") from error
    except InvalidDicomError as error:
        bare = _without_preamble(read)
        if bare is None:
            raise InputError(f"{file} is not a DICOM file.") from error
        return bare
    except CitlrError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in the parser
        raise InputError(
            f"{file} cannot be read as DICOM, it may be truncated ({shortened(str(error)) or type(error).__name__})."
        ) from error


def _without_preamble(read: Callable[..., Any]) -> Any:
    """Read what was written before DICOM files had a preamble, or by a program that leaves it out; None if none."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    try:
        dataset = read(force=True)
        if dataset.get_item("Rows") is None:
            return None
    except Exception:  # anything can be tried as DICOM, and fail anywhere
        return None
    if not getattr(dataset.file_meta, "TransferSyntaxUID", ""):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _hush() -> None:
    """Keep the warnings of pydicom and its decoders off standard error, in every thread."""
    # Looked for first: the library takes a rule out and puts it in again, and other threads would be without it.
    if not any(rule[3] == _NOISY for rule in warnings.filters):
        warnings.filterwarnings("ignore", module=_NOISY.pattern)
