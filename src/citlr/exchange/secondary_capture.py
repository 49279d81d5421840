"""DICOM for the owner of a closed model: secondary capture with new UIDs, no patient, marked as synthetic."""

import io
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from citlr.errors import needed

_ROLES = ("instance", "study", "series")


def secondary_capture(pixels: npt.NDArray[np.uint8], name: str) -> bytes:
    """Return one picture as a DICOM object; its bytes depend on the pixels and the name only.

    Only the name, the UIDs and the pixels differ between objects of one size, so the rest is written once: 12,000
    objects take seconds instead of half a minute.

    Shapes: `pixels` (H, W), or (H, W, 3) in colour.
    """
    placeholder = "?" * len(name)
    content = _template(pixels.shape, placeholder)
    old, new = _uids(placeholder), _uids(name)
    for before, after in zip((*old, placeholder), (*new, name), strict=True):
        # Equal lengths keep every length field of the file true.
        if len(before) != len(after):
            return _write(pixels, name)
        content = content.replace(before.encode(), after.encode())
    last = _padded(pixels)
    return content[: -len(last)] + last


def _padded(pixels: npt.NDArray[np.uint8]) -> bytes:
    return pixels.tobytes() + b"\0" * (pixels.size % 2)


@lru_cache(maxsize=4)
def _template(shape: tuple[int, ...], name: str) -> bytes:
    return _write(np.zeros(shape, np.uint8), name)


def _uids(name: str) -> tuple[str, ...]:
    with needed("pydicom", "dicom", "Exporting DICOM"):
        from pydicom.uid import generate_uid
    return tuple(str(generate_uid(entropy_srcs=[name, role])) for role in _ROLES)


def _write(pixels: npt.NDArray[np.uint8], name: str) -> bytes:
    """Write a whole object; the pixels come last."""
    with needed("pydicom", "dicom", "Exporting DICOM"):
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage
    instance, study, series = _uids(name)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(io.BytesIO(), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = map(UID, (instance, study, series))
    dataset.Modality = "OT"
    dataset.ConversionType = "SYN"  # synthetic image (DICOM PS3.3 C.8.6.1)
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    # The resampled originals carry the same words as the redrawn images, or they could be told apart by them.
    dataset.DerivationDescription = (
        "Test image of an audit: redrawn by a generative model, or resampled. Not for diagnostic use"
    )
    dataset.add_new((0x0008, 0x001C), "CS", "YES")  # Synthetic Data (PS3.3 C.12.1), unknown to older dictionaries
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Pixels only; every attribute is new"
    dataset.PatientName, dataset.PatientID = "", name
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyDate = dataset.StudyTime = ""
    dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.StudyID = ""
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = _padded(pixels)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
