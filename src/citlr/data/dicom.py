"""DICOM radiographs: pixels and what it takes to show them. Tags about the patient are never parsed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from citlr.data.images import MAX_PIXELS, Pixels
from citlr.errors import CitlrError, InputError, MissingExtraError, did_you_mean

Window = Literal["header", "percentile", "range"]
WINDOWS: tuple[Window, ...] = get_args(Window)
# Percentiles between which a film without a window is shown: collimator edges and markers lie outside.
PERCENTILES = (0.5, 99.5)
# The reader skips every element that is not listed, so nothing about the patient can reach an artefact. All are in the
# groups acquisition (0018), image pixel (0028, 7FE0), presentation (2050) and view code (0054); none is in group 0010.
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
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    "PixelData",
)
HEADER_TAGS = ("Modality", "ViewPosition", "ViewCodeSequence", "Rows", "Columns")


@dataclass(frozen=True)
class DicomHeader:
    """What the header says of the exposure.

    Parameters
    ----------
    modality : str
        Such as DX or CR; empty when not stated.
    view : str
        The view position, or the meaning of the view code; empty when not stated.
    rows, columns : int
        Size in pixels; 0 when not stated.
    """

    modality: str
    view: str
    rows: int
    columns: int


def read_dicom(path: str | os.PathLike[str], *, window: Window = "header") -> Pixels:
    """Read a single-frame radiograph as it is meant to be looked at: air dark, bone bright.

    Stored values go through the modality transform (rescale slope and intercept, or its table), then through the VOI
    table or window (DICOM PS3.3 C.11.2), and MONOCHROME1 is inverted. Padding pixels become black.

    Parameters
    ----------
    path : path-like
        The file.
    window : {"header", "percentile", "range"}
        The header's VOI table or first window, with the percentile window where it has neither; the 0.5th to 99.5th
        percentile; or the smallest to the largest value.

    Returns
    -------
    ndarray of float32, shape (1, H, W), in [0, 1]

    Raises
    ------
    InputError
        If the file is no DICOM, has no pixels, several frames, colour, too many pixels, or cannot be decoded.
    MissingExtraError
        If the extra `dicom` is not installed.
    """
    if window not in WINDOWS:
        raise InputError(f"window='{window}' is not known.{did_you_mean(window, WINDOWS)}")
    file = Path(path)
    dataset = _read(file, DISPLAY_TAGS)
    _require_plain_radiograph(file, dataset)
    try:
        stored = dataset.pixel_array
    except Exception as error:  # each decoder raises its own kind
        raise InputError(
            f"{file} cannot be decoded ({error}); is the extra 'dicom' installed, the file whole?"
        ) from error
    padding = _padding(dataset, stored)
    try:
        shown = _display(dataset, stored, padding, window)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{file} has a display transform that cannot be applied ({error}).") from error
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1.0 - shown
    shown[padding] = 0.0
    return shown.astype(np.float32)[None]


def read_header(path: str | os.PathLike[str]) -> DicomHeader:
    """Read modality, view and size without touching pixels or patient.

    Raises
    ------
    InputError
        If the file is missing or no DICOM.
    """
    dataset = _read(Path(path), HEADER_TAGS, pixels=False)
    view = str(dataset.get("ViewPosition") or "").strip()
    codes = dataset.get("ViewCodeSequence")
    if not view and codes:
        view = str(codes[0].get("CodeMeaning") or "").strip()
    return DicomHeader(
        modality=str(dataset.get("Modality") or "").strip(),
        view=view,
        rows=int(dataset.get("Rows") or 0),
        columns=int(dataset.get("Columns") or 0),
    )


def _read(file: Path, tags: tuple[str, ...], *, pixels: bool = True) -> Any:
    try:
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise MissingExtraError("pydicom", "dicom", "Reading DICOM") from error
    try:
        return dcmread(file, specific_tags=list(tags), stop_before_pixels=not pixels)
    except FileNotFoundError as error:
        raise InputError(f"{file} is not there; check the image folder and the path column.") from error
    except InvalidDicomError as error:
        raise InputError(f"{file} is not a DICOM file.") from error
    except CitlrError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in the parser
        raise InputError(f"{file} cannot be read as DICOM, it may be truncated ({error}).") from error


def _require_plain_radiograph(file: Path, dataset: Any) -> None:
    if "PixelData" not in dataset:
        raise InputError(f"{file} is a DICOM file without pixel data (a report or a presentation state?).")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise InputError(f"{file} holds {frames} frames; a radiograph has one, so export the frame that is meant.")
    kind = str(dataset.get("PhotometricInterpretation") or "(none)")
    if kind not in ("MONOCHROME1", "MONOCHROME2") or int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise InputError(f"{file} has the photometric interpretation {kind}; MONOCHROME1 or MONOCHROME2 is needed.")
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if rows < 1 or columns < 1:
        raise InputError(f"{file} does not state its rows and columns.")
    if rows * columns > MAX_PIXELS:
        raise InputError(f"{file} claims {columns} x {rows} pixels, more than {MAX_PIXELS:,}; it is refused as a bomb.")


def _padding(dataset: Any, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, dtype=bool)
    last = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(first), int(first if last is None else last)))
    inside: npt.NDArray[np.bool_] = (stored >= low) & (stored <= high)
    # A film that is nothing but "padding" has a wrong padding value, as some detectors write 0 for black.
    return np.zeros(stored.shape, dtype=bool) if inside.all() else inside


def _display(
    dataset: Any, stored: npt.NDArray[Any], padding: npt.NDArray[np.bool_], window: Window
) -> npt.NDArray[np.float64]:
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    values = apply_modality_lut(stored, dataset)
    if window == "header" and dataset.get("VOILUTSequence"):
        top = 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
        return _clipped(np.asarray(apply_voi_lut(values, dataset, prefer_lut=True), dtype=np.float64) / top)
    values = np.asarray(values, dtype=np.float64)
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if window == "header" and center is not None and width is not None and width >= 1:
        return _windowed(values, center, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    seen = values[~padding]
    low, high = (seen.min(), seen.max()) if window == "range" else np.percentile(seen, PERCENTILES)
    if high <= low:
        low, high = float(seen.min()), float(max(seen.max(), seen.min() + 1.0))
    return _clipped((values - low) / (high - low))


def _first(value: Any) -> float | None:
    """Give the first of possibly several windows; makers list alternatives after it."""
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)


def _windowed(values: npt.NDArray[np.float64], center: float, width: float, function: str) -> npt.NDArray[np.float64]:
    """Apply a window as DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3 define it, with the output in [0, 1]."""
    if function == "SIGMOID":
        # exp saturates far outside the window, where the answer is 0 or 1 anyway.
        sigmoid: npt.NDArray[np.float64] = 1.0 / (
            1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700.0, 700.0))
        )
        return sigmoid
    if function == "LINEAR_EXACT":
        return _clipped((values - center) / width + 0.5)
    if function != "LINEAR":
        raise ValueError(f"VOI LUT function '{function}'")
    # At width 1 the definition is a step.
    return _clipped((values - (center - 0.5)) / max(width - 1.0, 1e-9) + 0.5)


def _clipped(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    clipped: npt.NDArray[np.float64] = np.clip(values, 0.0, 1.0)
    return clipped
