"""A model that cannot be run here: its owner gets pictures under opaque names and sends back numbers."""

from __future__ import annotations

import hmac
import io
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from citlr.artifacts import atomic_write, read_json, write_json
from citlr.audit.prediction import ORIGINAL
from citlr.console import Ticker, silent
from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import Counterfactuals
from citlr.errors import InputError, MissingExtraError, StateError

Format = Literal["png", "jpeg", "dicom"]
SUFFIX: dict[str, str] = {"png": ".png", "jpeg": ".jpg", "dicom": ".dcm"}
KEY_COLUMNS = ("id", "image_id", "patient_id", "attribute", "level", "draw")


@dataclass(frozen=True)
class Export:
    """What was handed out.

    Parameters
    ----------
    folder : Path
        Pictures and `manifest.csv`.
    key : Path
        The sealed key, which stays in the run.
    n_images : int
        Pictures written.
    """

    folder: Path
    key: Path
    n_images: int

    def __str__(self) -> str:
        """Say what to hand over and what to keep."""
        return (
            f"{self.n_images} pictures and manifest.csv in {self.folder}: hand these over. The key {self.key} stays "
            "here; bring the answers back with `citlr ingest`."
        )


def export_blind(
    sets: Sequence[Counterfactuals],
    cohort: Cohort,
    *,
    key_folder: Path,
    out: Path,
    format: Format = "png",
    tick: Ticker = silent,
) -> Export:
    """Write every redrawn image, and the images as they came, under opaque and shuffled names.

    Parameters
    ----------
    sets : sequence of Counterfactuals
        What to hand out; the originals of the first are added, at the same size.
    cohort : Cohort
        Where the originals are.
    key_folder : Path
        Where the sealed key goes; used again when it is there, so that names stay the same.
    out : Path
        Folder for the model's owner; new, empty, or of an earlier export by the same key.
    format : {"png", "jpeg", "dicom"}
        Of the pictures; DICOM is secondary capture without patient tags, marked as derived and synthetic.
    tick : callable
        Told the number of pictures done.

    Returns
    -------
    Export
        Names and number.

    Raises
    ------
    InputError
        If the format is unknown.
    StateError
        If the folder holds something else.
    """
    if format not in SUFFIX:
        raise InputError(f"The format '{format}' is not known: use {', '.join(SUFFIX)}.")
    _require_own_folder(out)
    secret = _secret(key_folder)
    rows: list[dict[str, Any]] = []
    for picture, row in _pictures(sets, cohort):
        name = opaque_id(secret, row)
        rows.append({"id": name, **row})
        path = out / f"{name}{SUFFIX[format]}"
        if not path.is_file():
            with atomic_write(path) as temporary:
                temporary.write_bytes(encode(picture, name, format))
        tick(len(rows))
    key = pd.DataFrame(rows, columns=list(KEY_COLUMNS)).sort_values("id", ignore_index=True)
    with atomic_write(key_folder / "key.parquet") as temporary:
        pq.write_table(pa.Table.from_pandas(key, preserve_index=False), temporary)
    (key_folder / "key.parquet").chmod(0o600)
    with atomic_write(out / "manifest.csv") as temporary:
        temporary.write_text("id\n" + "".join(f"{name}\n" for name in key["id"]))
    return Export(out, key_folder / "key.parquet", len(key))


def opaque_id(secret: bytes, row: dict[str, Any]) -> str:
    """Return a name that says nothing without the secret: 16 hexadecimal digits of a keyed hash.

    Examples
    --------
    >>> row = {"image_id": "a", "patient_id": "p", "attribute": "sex", "level": "F", "draw": 0}
    >>> len(opaque_id(b"secret", row)), opaque_id(b"secret", row) == opaque_id(b"other", row)
    (16, False)
    """
    message = "\x1f".join(str(row[name]) for name in KEY_COLUMNS[1:])
    return hmac.new(secret, message.encode(), "sha256").hexdigest()[:16]


def encode(picture: npt.NDArray[np.float32], name: str, format: Format) -> bytes:
    """Return the bytes of one picture, float32 (H, W) in [0, 1]; they depend on the pixels and the name only."""
    grey = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    if format == "dicom":
        return _dicom(grey, name)
    buffer = io.BytesIO()
    if format == "png":
        # Fast filters: 12,000 pictures are to be written in well under a minute.
        Image.fromarray(grey).save(buffer, "PNG", compress_level=1)
    else:
        Image.fromarray(grey).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _pictures(
    sets: Sequence[Counterfactuals], cohort: Cohort
) -> Iterator[tuple[npt.NDArray[np.float32], dict[str, Any]]]:
    first = sets[0].plan
    position = {name: row for row, name in enumerate(cohort.frame["image_id"])}
    rows = np.array([position[name] for name in first.image_ids])
    done = 0
    for _, images in cohort.batches(size=first.size, batch_size=64, rows=rows):
        for image in images:
            yield (
                image[0],
                _row(first.image_ids[done], first.patient_ids[done], first.attribute, first.factual[done], ORIGINAL),
            )
            done += 1
    for twins in sets:
        plan = twins.plan
        for shard in twins.shards():
            for offset, row in enumerate(shard.rows):
                for k, level in enumerate(plan.levels):
                    for draw in range(plan.draws):
                        known = _row(plan.image_ids[row], plan.patient_ids[row], plan.attribute, level, draw)
                        yield shard.images[offset, k, draw, 0], known


def _row(image_id: str, patient_id: str, attribute: str, level: str, draw: int) -> dict[str, Any]:
    return {"image_id": image_id, "patient_id": patient_id, "attribute": attribute, "level": level, "draw": draw}


def _secret(folder: Path) -> bytes:
    """Read or make the run's secret; it comes from the system, not from a seed, or names could be guessed."""
    file = folder / "secret.json"
    if not file.is_file():
        write_json(file, {"secret": secrets.token_hex(32)})
        file.chmod(0o600)
    return bytes.fromhex(read_json(file)["secret"])


def _require_own_folder(out: Path) -> None:
    if not out.exists():
        return
    foreign = [
        path.name for path in out.iterdir() if path.name != "manifest.csv" and path.suffix not in SUFFIX.values()
    ]
    if not out.is_dir() or foreign:
        raise StateError(
            f"'{out}' holds other things ('{foreign[0]}' among them): give a new or an empty folder as --out."
        )


def _dicom(grey: npt.NDArray[np.uint8], name: str) -> bytes:
    """Return a secondary-capture object with new UIDs, no patient, and the marks of a derived, synthetic image."""
    try:
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
    except ImportError as error:
        raise MissingExtraError("pydicom", "dicom", "Exporting DICOM") from error
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name, "instance"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(io.BytesIO(), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[name, "study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[name, "series"])
    dataset.Modality = "OT"
    dataset.ConversionType = "SYN"  # synthetic image (DICOM PS3.3 C.8.6.1)
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.DerivationDescription = "Synthetic test image, not of a patient; not for diagnostic use"
    dataset.BurnedInAnnotation = "NO"
    dataset.PatientName, dataset.PatientID = "", name
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyDate = dataset.StudyTime = ""
    dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.StudyID = ""
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = grey.shape
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = grey.tobytes() + b"\0" * (grey.size % 2)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
