"""DICOM: every display rule, every refusal, and no word about the patient."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
from PIL import Image  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels.processing import apply_windowing  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

from citlr.data.cohort import read_cohort  # noqa: E402
from citlr.data.dicom import DISPLAY_TAGS, HEADER_TAGS, read_dicom, read_header  # noqa: E402
from citlr.data.images import read_image  # noqa: E402
from citlr.errors import InputError  # noqa: E402

VALUES = np.arange(0, 4096, 4, dtype=np.uint16).reshape(32, 32)


def write(path: Path, values: np.ndarray = VALUES, *, bits: int = 12, syntax: Any = None, **tags: Any) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.PatientBirthDate = "Doe^Jane", "SECRET-1", "19500101"
    data.PatientSex, data.PatientAge, data.InstitutionName = "F", "070Y", "Some Hospital"
    data.Modality, data.SamplesPerPixel = "DX", 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = values.shape[-2:]
    data.BitsAllocated = 8 * values.dtype.itemsize
    data.BitsStored, data.HighBit = bits, bits - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    data.PixelData = values.tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    if syntax is not None:
        data.compress(syntax, generate_instance_uid=False)
    data.save_as(path, enforce_file_format=True)
    return path


def test_window_of_the_header_agrees_with_pydicom(tmp_path: Path) -> None:
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        file = write(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1500, VOILUTFunction=function)
        expected = apply_windowing(VALUES, pydicom.dcmread(file)) / 4095
        np.testing.assert_allclose(read_dicom(file)[0], expected, atol=1e-4)


def test_first_of_several_windows(tmp_path: Path) -> None:
    several = write(tmp_path / "a.dcm", WindowCenter=[2000, 100], WindowWidth=[1500, 50])
    one = write(tmp_path / "b.dcm", WindowCenter=2000, WindowWidth=1500)
    np.testing.assert_array_equal(read_dicom(several), read_dicom(one))


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    window = {"WindowCenter": 2000, "WindowWidth": 1500}
    plain = read_dicom(write(tmp_path / "a.dcm", **window))
    inverted = read_dicom(write(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1", **window))
    np.testing.assert_allclose(inverted, 1.0 - plain, atol=1e-6)


def test_rescale_is_applied_before_the_window(tmp_path: Path) -> None:
    plain = read_dicom(write(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1001))
    scaled = write(tmp_path / "b.dcm", RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=3000, WindowWidth=2001)
    np.testing.assert_allclose(read_dicom(scaled), plain, atol=1e-3)


def test_voi_table(tmp_path: Path) -> None:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 16]
    item.LUTData = (np.arange(4096, dtype=np.uint16)[::-1] * 16).tobytes()
    item["LUTData"].VR = "OW"
    image = read_dicom(write(tmp_path / "a.dcm", VOILUTSequence=Sequence([item])))
    np.testing.assert_allclose(image[0], (4095 - VALUES.astype(float)) * 16 / 65535, atol=1e-6)


def test_percentile_window_without_one_in_the_header(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[0, 0] = 0
    values[-1, -1] = 4095
    image = read_dicom(write(tmp_path / "a.dcm", values))
    low, high = np.percentile(values, [0.5, 99.5])
    np.testing.assert_allclose(image[0], np.clip((values - low) / (high - low), 0, 1), atol=1e-6)
    span = read_dicom(write(tmp_path / "b.dcm", values), window="range")
    np.testing.assert_allclose(span[0], values / 4095, atol=1e-6)
    flat = read_dicom(write(tmp_path / "c.dcm", np.full((8, 8), 7, np.uint16)))
    assert np.isfinite(flat).all()


@pytest.mark.parametrize(("kind", "bits"), [(np.uint8, 8), (np.uint16, 10), (np.uint16, 16), (np.int16, 16)])
def test_depths_and_signs(tmp_path: Path, kind: type, bits: int) -> None:
    info = np.iinfo(kind)
    low, high = (info.min, info.max) if bits in (8, 16) else (0, 2**bits - 1)
    values = np.linspace(low, high, 1024).round().astype(kind).reshape(32, 32)
    image = read_dicom(write(tmp_path / "a.dcm", values, bits=bits), window="range")[0]
    assert (image[0, 0], image[-1, -1]) == (0.0, 1.0)
    assert (np.diff(image.ravel()) >= 0).all()


def test_padding_is_black_and_does_not_widen_the_window(tmp_path: Path) -> None:
    values = VALUES // 4 + 1000
    values[:, :4] = 4095
    image = read_dicom(write(tmp_path / "a.dcm", values, PixelPaddingValue=4095), window="range")[0]
    assert image[:, :4].max() == 0.0
    assert image[:, 4:].max() == pytest.approx(1.0)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_lossless_compression(tmp_path: Path, syntax: Any) -> None:
    plain = read_dicom(write(tmp_path / "a.dcm"), window="range")
    packed = read_dicom(write(tmp_path / "b.dcm", syntax=syntax), window="range")
    np.testing.assert_array_equal(plain, packed)


def test_jpeg_compression(tmp_path: Path) -> None:
    values = np.linspace(0, 255, 64 * 64).reshape(64, 64).round().astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, format="JPEG", quality=95)
    file = write(tmp_path / "a.dcm", values, bits=8)
    data = pydicom.dcmread(file)
    data.PixelData = encapsulate([stream.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.save_as(file)
    assert np.abs(read_dicom(file, window="range")[0] - values / 255).max() < 0.03


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"PixelData": None}, "without pixel data"),
        ({"NumberOfFrames": 2}, "holds 2 frames"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "photometric interpretation RGB"),
        ({"Rows": 60000, "Columns": 60000}, "refused as a bomb"),
        ({"Rows": None}, "does not state its rows"),
        ({"PixelData": b"\x00" * 100}, "cannot be decoded"),
        ({"WindowCenter": 1, "WindowWidth": 10, "VOILUTFunction": "CUBIC"}, "display transform"),
    ],
)
def test_refusals(tmp_path: Path, tags: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_dicom(write(tmp_path / "a.dcm", **tags))


def test_no_dicom_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_text("hello" * 100)
    with pytest.raises(InputError, match="not a DICOM file"):
        read_dicom(tmp_path / "a.dcm")
    with pytest.raises(InputError, match="is not there"):
        read_image(tmp_path / "b.dcm")
    whole = write(tmp_path / "c.dcm").read_bytes()
    (tmp_path / "c.dcm").write_bytes(whole[: len(whole) - 900])
    with pytest.raises(InputError):
        read_dicom(tmp_path / "c.dcm")
    with pytest.raises(InputError, match="Did you mean 'percentile'"):
        read_dicom(tmp_path / "c.dcm", window="percentil")  # type: ignore[arg-type]


def test_no_tag_about_the_patient_is_ever_parsed() -> None:
    for keyword in (*DISPLAY_TAGS, *HEADER_TAGS):
        group = pydicom.datadict.tag_for_keyword(keyword) >> 16
        assert group not in (0x0010, 0x0032, 0x0038, 0x0040), keyword
        assert not keyword.startswith(("Patient", "Institution", "Referring")), keyword


def folder_of_dicoms(tmp_path: Path) -> pd.DataFrame:
    rows = []
    for patient in range(12):
        for view in ("PA", "LL", ""):
            name = f"{patient}_{view or 'none'}.dcm"
            write(tmp_path / name, ViewPosition=view)
            rows.append({"path": name, "patient_id": f"p{patient}", "sex": "fm"[patient % 2], "edema": patient % 2})
    return pd.DataFrame(rows)


def test_lateral_views_are_left_out_by_header_and_nothing_of_the_patient_reaches_the_artefact(tmp_path: Path) -> None:
    table = folder_of_dicoms(tmp_path)
    cohort = read_cohort(table, images=tmp_path, attribute="sex", labels=["edema"], min_patients_per_level=1)
    assert len(cohort) == 24
    assert cohort.flow[-1].excluded_images == 12
    assert "LL: 12" in cohort.flow[-1].reason
    cohort.to_parquet(tmp_path / "cohort.parquet")
    content = (tmp_path / "cohort.parquet").read_bytes() + cohort.frame.to_csv().encode()
    for word in (b"Doe", b"SECRET", b"1950", b"070Y", b"Hospital"):
        assert word not in content
    assert cohort.pixels([0], size=16).shape == (1, 1, 16, 16)


def test_view_code_where_the_position_is_blank(tmp_path: Path) -> None:
    code = Dataset()
    code.CodeMeaning = "left lateral"
    header = read_header(write(tmp_path / "a.dcm", ViewCodeSequence=Sequence([code])))
    assert (header.view, header.modality, header.rows) == ("left lateral", "DX", 32)
