"""DICOM radiographs: pixels and what it takes to show them. Tags about the patient are never parsed."""

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from citlr.data.pixels.display import WINDOWS, Window, display, squared
from citlr.data.pixels.header import Header
from citlr.data.pixels.shown import MAX_PIXELS, Pixels, Remark
from citlr.errors import CitlrError, InputError, needed, require_known
from citlr.run.files import require_regular
from citlr.text import shortened

# The reader skips every element that is not listed, so nothing about the patient can reach an artefact. All are in the
# groups acquisition (0018), image pixel (0028, 7FE0), presentation (2050) and view code (0054), but modality and intent
# (0008); none is in group 0010.
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
    "PixelData",
)
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
    """Read a single-frame radiograph as it is meant to be looked at, air dark and bone bright, with remarks.

    Stored values go through the modality transform (rescale slope and intercept, or its table), then through the VOI
    table or window (DICOM PS3.3 C.11.2), and MONOCHROME1 or a presentation LUT shape of INVERSE is inverted. Padding
    pixels become black. Pixels that are no squares are made such.

    Shapes: gives (1, H, W) in [0, 1].
    """
    require_known(window, WINDOWS, f"window='{window}' is not known")
    film = Film.of(path)
    stored = film.decode()
    shown, remarks = film.show(stored, window)
    square = squared(film.header, shown)
    more = {
        Remark.BITS: film.has_more_bits(stored),
        Remark.OBLONG: square.shape != shown.shape,
        Remark.RAW: film.header.text("PresentationIntentType").upper() == "FOR PROCESSING",
    }
    return square.astype(np.float32)[None], (*remarks, *(remark for remark, holds in more.items() if holds))


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
        decoder = _decoder(file, str(getattr(dataset.file_meta, "TransferSyntaxUID", "") or ""))
        film = cls(file, header, decoder, header.raw("PixelData"), shape)
        need = shape[0] * shape[1] * header.whole("BitsAllocated") // 8
        if not decoder.UID.is_encapsulated and len(film.content) < need:
            raise InputError(
                f"{file} cannot be decoded, it may be truncated: {len(film.content)} of {need} bytes of pixels."
            )
        return film

    def decode(self) -> npt.NDArray[Any]:
        """Give the stored values (H, W), whole numbers."""
        rows, columns = self.shape
        described = {
            "rows": rows,
            "columns": columns,
            "samples_per_pixel": 1,
            "number_of_frames": 1,
            "photometric_interpretation": self.header.text("PhotometricInterpretation"),
            "bits_allocated": self.header.whole("BitsAllocated"),
            "bits_stored": self.header.whole("BitsStored"),
            "pixel_representation": self.header.whole("PixelRepresentation"),
            "pixel_keyword": "PixelData",
            "pixel_vr": self.header.representation("PixelData"),
        }
        try:
            stored, _ = self.decoder.as_array(self.content, index=0, **described)
        except Exception as error:  # each decoder raises its own kind, with a page of words
            how = _compression(self.decoder.UID)
            raise InputError(
                f"{self.file} cannot be decoded: it is {how}, and no installed decoder takes it; see whether the file "
                "is whole, or write it without compression."
            ) from error
        return np.asarray(stored).reshape(rows, columns)

    def has_more_bits(self, stored: npt.NDArray[Any]) -> bool:
        """Say whether words that are not compressed hold more than the stored values and their sign."""
        bits, width = self.header.whole("BitsStored"), stored.dtype.itemsize
        if self.decoder.UID.is_encapsulated or width == 1 or bits == 8 * width:
            return False
        order = "<" if self.decoder.UID.is_little_endian else ">"
        words = np.frombuffer(self.content, f"{order}u{width}", stored.size).reshape(stored.shape)
        plain = stored.astype(f"{stored.dtype.kind}{width}").view(f"u{width}")
        return bool(((words != plain) & (words >> bits > 0)).any())

    def show(self, stored: npt.NDArray[Any], window: Window) -> tuple[npt.NDArray[np.float64], tuple[Remark, ...]]:
        """Turn stored values (H, W) into grey values in [0, 1] as the header asks for."""
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
