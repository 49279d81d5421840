"""DICOM: every display rule, every refusal, and no word about the patient."""

from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import tempfile
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
from PIL import Image  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels.processing import apply_windowing  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

from citlr.data.images import is_dicom, read_image  # noqa: E402
from citlr.data.pixels.checks import structure_fault  # noqa: E402
from citlr.data.pixels.dicom import DISPLAY_TAGS, HEADER_TAGS, read_header, see_dicom  # noqa: E402
from citlr.data.pixels.shown import Remark  # noqa: E402
from citlr.data.reading import read_cohort  # noqa: E402
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


def read_dicom(file: Path, **options: Any) -> np.ndarray:
    return see_dicom(file, **options)[0]


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


def test_a_high_bit_that_is_not_stated_is_the_usual_one(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        read_dicom(write(tmp_path / "a.dcm", HighBit=None)), read_dicom(write(tmp_path / "b.dcm"))
    )


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
        ({"HighBit": 15, "PixelData": (VALUES << 4).tobytes()}, "states the HighBit 15 for 12 stored bits, where 11"),
        ({"HighBit": 10}, "states the HighBit 10 for 12 stored bits, where 11"),
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


def percentiles(values: np.ndarray = VALUES) -> np.ndarray:
    low, high = np.percentile(values, (0.5, 99.5))
    return np.clip((values - low) / (high - low), 0, 1)


def table(entries: np.ndarray, bits: int, *, kind: str = "OW", first: int = 0, count: int | None = None) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536 if count is None else count, first, bits]
    item.add_new("LUTData", kind, entries.tobytes() if kind == "OW" else entries.tolist())
    return item


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": 30_000, "WindowWidth": 100},
        {"WindowCenter": -9000, "WindowWidth": 500},
        {"WindowCenter": 5000, "WindowWidth": 2001},  # the brightest 2 % of the pixels alone, and these nearly black
        {"WindowCenter": 2000, "WindowWidth": 1},
        {"WindowCenter": 2000, "WindowWidth": 0},
        {"WindowCenter": 2000, "WindowWidth": -400},
        {"WindowCenter": NAN, "WindowWidth": 400},
        {"WindowCenter": 2000, "WindowWidth": NAN},
        {"WindowCenter": INFINITE, "WindowWidth": 400},
        {"WindowCenter": 2000, "WindowWidth": INFINITE},
        {"WindowCenter": 2000, "WindowWidth": 1e7},
        {"WindowCenter": 90_000, "WindowWidth": 500, "VOILUTFunction": "SIGMOID"},
        {"VOILUTSequence": Sequence([table(np.full(4096, 4095, np.uint16), 12)])},
        {"VOILUTSequence": Sequence([table(np.zeros(4096, np.uint16), 12)])},
        {"VOILUTSequence": Sequence([table(np.arange(4096, dtype=np.uint16), 12, first=20_000)])},
    ],
    ids=str,
)
def test_a_window_that_shows_nothing_falls_back_with_a_remark(tmp_path: Path, window: dict[str, Any]) -> None:
    image, remarks = see_dicom(write(tmp_path / "a.dcm", **window))
    np.testing.assert_allclose(image[0], percentiles(), atol=1e-6)
    assert remarks == (Remark.WINDOW,)


@pytest.mark.parametrize(
    "tags",
    [
        {"RescaleSlope": 0, "RescaleIntercept": 100},
        {"RescaleSlope": NAN, "RescaleIntercept": 0},
        {"RescaleSlope": 1, "RescaleIntercept": NAN},
        {"RescaleSlope": INFINITE, "RescaleIntercept": 0},
        {"RescaleSlope": 1e308, "RescaleIntercept": 0},
        {"RescaleSlope": 1e-30, "RescaleIntercept": 1000},
        {"ModalityLUTSequence": Sequence([table(np.full(4096, 7, np.uint16), 16)])},
    ],
    ids=str,
)
def test_a_rescale_that_leaves_nothing_is_not_applied(tmp_path: Path, tags: dict[str, Any]) -> None:
    # A window is in rescaled values: without them it means nothing.
    image, remarks = see_dicom(write(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1500, **tags))
    np.testing.assert_allclose(image[0], percentiles(), atol=1e-6)
    assert remarks == (Remark.RESCALE,)


def test_good_headers_are_shown_without_a_remark(tmp_path: Path) -> None:
    for tags in (
        {},
        {"WindowCenter": 2000, "WindowWidth": 1500},
        # A window for the lungs leaves half of the film black or white, which is what it is for.
        {"WindowCenter": 1000, "WindowWidth": 300},
        {"RescaleSlope": -1, "RescaleIntercept": 4095},
        {"WindowCenter": "", "WindowWidth": "", "RescaleSlope": "", "PixelPaddingValue": None},
        {"VOILUTSequence": Sequence([])},
    ):
        plain = {name: value for name, value in tags.items() if value is not None}
        assert see_dicom(write(tmp_path / "a.dcm", **plain))[1] == (), tags


def test_a_window_narrower_than_one_is_taken_as_exact(tmp_path: Path) -> None:
    # Values in [0, 1): the definition of LINEAR, which takes 1 off the width, has no sense here.
    small = {"RescaleSlope": 1 / 4096, "RescaleIntercept": 0, "WindowCenter": 0.5, "WindowWidth": 0.75}
    image, remarks = see_dicom(write(tmp_path / "a.dcm", **small))
    np.testing.assert_allclose(image[0], np.clip((VALUES / 4096 - 0.5) / 0.75 + 0.5, 0, 1), atol=1e-6)
    assert remarks == (Remark.NARROW,)
    exact, none = see_dicom(write(tmp_path / "b.dcm", VOILUTFunction="LINEAR_EXACT", **small))
    np.testing.assert_array_equal(exact, image)
    assert none == ()


@pytest.mark.parametrize(
    ("entries", "bits", "kind", "white", "said"),
    [
        (np.arange(4096, dtype=np.uint16), 12, "OW", 4095, ()),
        (np.arange(4096, dtype=np.uint16), 16, "OW", 4095, (Remark.TABLE,)),
        (np.arange(4096, dtype=np.uint16), 10, "US", 4095, (Remark.TABLE,)),
        (np.arange(4096, dtype=np.uint16) * 16, 8, "US", 65535, (Remark.TABLE,)),
        ((np.arange(4096) // 16).astype(np.uint16), 8, "OW", 255, ()),
        ((np.arange(4096) // 16).astype(np.uint8), 8, "OW", 255, ()),
        ((np.arange(4096) // 16).astype(np.uint16), 16, "OW", 255, (Remark.TABLE,)),
    ],
)
def test_white_of_a_table_is_that_of_its_entries(
    tmp_path: Path, entries: np.ndarray, bits: int, kind: str, white: int, said: tuple[Remark, ...]
) -> None:
    image, remarks = see_dicom(write(tmp_path / "a.dcm", VOILUTSequence=Sequence([table(entries, bits, kind=kind)])))
    np.testing.assert_allclose(image[0], entries[VALUES] / white, atol=1e-6)
    assert remarks == said


def test_modality_table_and_first_value_of_a_table(tmp_path: Path) -> None:
    reverse = np.arange(4096, dtype=np.uint16)[::-1]
    image = read_dicom(write(tmp_path / "a.dcm", ModalityLUTSequence=Sequence([table(reverse, 12)])), window="range")
    np.testing.assert_allclose(image[0], 1 - VALUES / VALUES.max(), atol=1e-6)
    # Signed values begin below 0, and the descriptor of an unsigned element says so by its bits.
    signed = (VALUES.astype(np.int16) - 2000).astype(np.int16)
    item = table(np.arange(4096, dtype=np.uint16), 12)
    item.add_new("LUTDescriptor", "US", [4096, 65536 - 2000, 12])
    np.testing.assert_allclose(
        read_dicom(write(tmp_path / "b.dcm", signed, bits=16, VOILUTSequence=Sequence([item])))[0],
        VALUES / 4095,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("kind", "bits", "value", "stated"),
    [
        (np.int16, 16, -2000, 63536),
        (np.int16, 12, -2000, 63536),
        (np.int16, 12, -2000, 2096),
        (np.int16, 16, -2000, -2000),
        (np.uint16, 16, 63536, -2000),
        (np.uint8, 8, 254, -2),
        (np.uint16, 12, 4095, 4095),
    ],
)
def test_padding_is_found_by_its_bits(tmp_path: Path, kind: type, bits: int, value: int, stated: int) -> None:
    values = (np.arange(1024).reshape(32, 32) // 8).astype(kind)
    values[:, :5] = value
    file = write(tmp_path / "a.dcm", values, bits=bits)
    data = pydicom.dcmread(file)
    data.add_new("PixelPaddingValue", "US" if stated >= 0 else "SS", stated)
    data.save_as(file)
    image = read_dicom(file)[0]
    assert image[:, :5].max() == 0.0
    np.testing.assert_allclose(image[:, 5:], percentiles(values[:, 5:].astype(float)), atol=1e-6)


@pytest.mark.parametrize(
    ("tags", "inverted"),
    [
        ({"PresentationLUTShape": "IDENTITY"}, False),
        ({"PresentationLUTShape": "INVERSE"}, True),
        ({"PhotometricInterpretation": "MONOCHROME1"}, True),
        # Objects that state both say one thing twice (PS3.3 C.8.11.3.1).
        ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, True),
    ],
)
def test_inversion(tmp_path: Path, tags: dict[str, str], inverted: bool) -> None:
    window = {"WindowCenter": 2000, "WindowWidth": 1500}
    plain = read_dicom(write(tmp_path / "a.dcm", **window))
    image = read_dicom(write(tmp_path / "b.dcm", **window, **tags))
    np.testing.assert_allclose(image, 1 - plain if inverted else plain, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind", "value", "sentence"),
    [
        ("NumberOfFrames", "IS", b"one ", "'one' as NumberOfFrames in its header, which is no number"),
        ("Rows", "LO", b"32px", "'32px' as Rows"),
        ("Columns", "DS", b"31.5", "31.5 as Columns in its header, which is no whole number"),
        ("RescaleSlope", "DS", b"1,5 ", "'1,5' as RescaleSlope"),
        ("RescaleSlope", "DS", b"1\\2 ", "2 values of RescaleSlope"),
        ("WindowCenter", "LO", b"bone", "'bone' as WindowCenter"),
        ("BitsStored", "FD", struct.pack("<d", NAN), "nan as BitsStored"),
        ("BitsAllocated", "US", b"\x10\0\x10\0", "2 values of BitsAllocated"),
        ("BitsAllocated", "US", b"\x0c\0", "12 of 12 bits a pixel"),
        ("PixelRepresentation", "US", b"\x07\0", "neither 0 nor 1"),
        ("PixelPaddingValue", "DS", b"nan ", "nan as PixelPaddingValue"),
        ("Rows", "US", b"\x20\0\x20", "3 bytes of Rows in its header, no multiple of 2"),
        ("VOILUTSequence", "LO", b"none", "VOILUTSequence in its header that cannot be read"),
    ],
)
def test_a_header_value_that_is_no_number_is_named(
    tmp_path: Path, name: str, kind: str, value: bytes, sentence: str
) -> None:
    file = write(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1500)
    file.write_bytes(rewritten(file.read_bytes(), {name: (kind, value)}))
    with pytest.raises(InputError, match=sentence) as caught:
        read_dicom(file)
    assert "\n" not in str(caught.value)
    assert structure_fault(file) == str(caught.value)


def test_tables_that_are_none_are_named(tmp_path: Path) -> None:
    for item, sentence in (
        (
            table(np.arange(100, dtype=np.uint16), 12, count=4096),
            "a table of 4096 entries in its header, and 200 bytes",
        ),
        (table(np.arange(100, dtype=np.uint16), 99), "LUTDescriptor"),
        (Dataset(), "LUTDescriptor"),
    ):
        with pytest.raises(InputError, match=sentence):
            read_dicom(write(tmp_path / "a.dcm", VOILUTSequence=Sequence([item])))


TEXTS = [b"", b"1A", b"nan ", b"-1", b"1e999 ", b"7\\x", b"\\\\", b"1\\2\\3", b"\xff\xfe", b"0 "]
NUMBERS = [struct.pack("<H", value) for value in (0, 1, 3, 255, 4096, 65535)]
ELEMENT = st.tuples(
    st.sampled_from(["LO", "CS", "DS", "IS", "UI", "US", "SS", "UL", "FD", "FL", "OB", "OW", "UN", "SQ", "AT", "ZZ"]),
    st.one_of(
        st.sampled_from(TEXTS), st.lists(st.sampled_from(NUMBERS), max_size=5).map(b"".join), st.binary(max_size=9)
    ),
)


def explicit(name: str, kind: str, content: bytes) -> bytes:
    """One element in explicit little endian, whatever it says it is."""
    tag = pydicom.datadict.tag_for_keyword(name)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind.encode()
    long = kind in ("OB", "OW", "UN", "SQ")
    return head + (struct.pack("<HI", 0, len(content)) if long else struct.pack("<H", len(content))) + content


def rewritten(content: bytes, changes: dict[str, tuple[str, bytes]]) -> bytes:
    """Put elements in place of a file's own, or where they belong."""
    raw = pydicom.dcmread(io.BytesIO(content))
    start = content.index(b"\x08\x00\x16\x00UI")
    elements = {}
    for element in raw:
        plain = pydicom.filebase.DicomBytesIO()
        plain.is_little_endian, plain.is_implicit_VR = True, False
        pydicom.filewriter.write_data_element(plain, element)
        elements[int(element.tag)] = plain.getvalue()
    for name, (kind, value) in changes.items():
        elements[pydicom.datadict.tag_for_keyword(name)] = explicit(name, kind, value)
    return content[:start] + b"".join(elements[tag] for tag in sorted(elements))


def outcome(file: Path) -> None:
    """Read a file: a picture that the check without decoding passed, too, or a sentence."""
    fault = structure_fault(file)
    image, error = None, None
    try:
        image = read_dicom(file)
    except InputError as caught:
        error = str(caught)
    if error is not None:
        assert "\n" not in error
        return
    assert fault is None
    assert image is not None
    assert np.isfinite(image).all()
    assert 0.0 <= image.min() <= image.max() <= 1.0


def test_elements_are_written_as_they_were(tmp_path: Path) -> None:
    content = write(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1500).read_bytes()
    assert rewritten(content, {}) == content


@cache
def good() -> bytes:
    """A file in which nothing is wrong."""
    window = {"WindowCenter": 2000, "WindowWidth": 1500, "RescaleSlope": 1, "RescaleIntercept": 0}
    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder) / "a.dcm", **window).read_bytes()


SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=100, **SLOW)
@given(st.dictionaries(st.sampled_from(DISPLAY_TAGS[1:]), ELEMENT, min_size=1, max_size=3))
def test_no_header_ends_in_anything_but_a_picture_or_a_sentence(
    tmp_path: Path, changes: dict[str, tuple[str, bytes]]
) -> None:
    (tmp_path / "b.dcm").write_bytes(rewritten(good(), changes))
    outcome(tmp_path / "b.dcm")


@settings(max_examples=60, **SLOW)
@given(st.lists(st.tuples(st.integers(128, 800), st.integers(0, 255)), min_size=1, max_size=8))
def test_no_flipped_bytes_end_in_anything_else(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(good())
    for place, value in flips:
        content[place] = value
    (tmp_path / "b.dcm").write_bytes(bytes(content))
    outcome(tmp_path / "b.dcm")
    with contextlib.suppress(InputError):
        read_header(tmp_path / "b.dcm")


def test_a_compression_that_nothing_takes_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.dcm", syntax=JPEG2000Lossless)
    data = pydicom.dcmread(file)
    data.PixelData = encapsulate([b"\xff\x4f\xff\x51 no picture" + bytes(40)])
    data.save_as(file)
    with pytest.raises(InputError) as caught:
        read_dicom(file)
    assert "compressed as JPEG 2000 Image Compression (Lossless Only)" in str(caught.value)
    assert "no installed decoder takes it" in str(caught.value)
    assert "plugin" not in str(caught.value)
    assert "pylibjpeg" not in str(caught.value)
    # MPEG4, and one that is in no standard.
    for syntax, name in (("1.2.840.10008.1.2.4.102", "MPEG-4 AVC"), ("1.2.3.4", "1.2.3.4")):
        data.file_meta.TransferSyntaxUID = syntax
        data.save_as(file, implicit_vr=False, little_endian=True)
        with pytest.raises(InputError, match=f"{name}.*which no decoder of pydicom takes"):
            read_dicom(file)
        assert "no decoder" in str(structure_fault(file))


def test_nothing_of_pydicom_reaches_standard_error(tmp_path: Path) -> None:
    """In a process of its own, in threads, with warnings on."""
    long = write(tmp_path / "long.dcm").read_bytes() + bytes(8)
    (tmp_path / "long.dcm").write_bytes(long)
    changes = {"NumberOfFrames": ("IS", b"1A"), "WindowCenter": ("DS", b"1" * 30)}
    (tmp_path / "text.dcm").write_bytes(rewritten(write(tmp_path / "text.dcm").read_bytes(), changes))
    excess = write(tmp_path / "excess.dcm", PixelData=VALUES.tobytes() + bytes(64))
    broken = write(tmp_path / "broken.dcm", syntax=JPEG2000Lossless)
    broken.write_bytes(broken.read_bytes().replace(b"\xff\x51", b"\xff\x00", 1))
    script = """
        import sys
        from concurrent.futures import ThreadPoolExecutor
        from citlr.data.pixels.dicom import read_header, see_dicom
        from citlr.errors import InputError
        def read(file):
            for reader in (read_header, see_dicom):
                try:
                    reader(file)
                except InputError:
                    pass
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read, sys.argv[1:] * 10))
    """
    files = [str(tmp_path / f"{name}.dcm") for name in ("long", "text", "broken")] + [str(excess)]
    command = [sys.executable, "-W", "always", "-c", textwrap.dedent(script), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "pydicom" not in done.stderr
    assert done.stdout == done.stderr == ""


def test_dicom_is_known_by_its_content(tmp_path: Path) -> None:
    for name in ("IM0001", "1.2.840.5", "scan.png"):
        file = write(tmp_path / name)
        np.testing.assert_array_equal(read_image(file), read_dicom(file))
        assert structure_fault(file) is None
    Image.fromarray((VALUES // 16).astype(np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "b.png").rename(tmp_path / "b.dcm")
    with pytest.raises(InputError, match="not a DICOM file"):
        read_image(tmp_path / "b.dcm")


@pytest.mark.parametrize(("written", "suffix"), [("", ""), (".png", ".png"), ("", ".dcm"), (".jpg", ".jpg")])
@pytest.mark.parametrize("check", ["decode", "none"])
def test_a_lateral_view_is_left_out_by_its_header_whatever_the_file_is_called(
    tmp_path: Path, written: str, suffix: str, check: Any
) -> None:
    rows = []
    for patient in range(8):
        write(tmp_path / f"p{patient}{suffix}", ViewPosition="LL" if patient < 2 else "PA")
        rows.append({"path": f"p{patient}{written}", "patient_id": f"p{patient}", "sex": "fm"[patient % 2], "e": 0})
    options: dict[str, Any] = {"images": tmp_path, "attribute": "sex", "labels": ["e"], "min_patients_per_level": 0}
    cohort = read_cohort(pd.DataFrame(rows), **options, check=check)
    assert len(cohort) == 6
    assert cohort.frame["path"].tolist() == [f"p{patient}{suffix}" for patient in range(2, 8)]


def test_pictures_that_state_no_view_get_no_column_of_views(tmp_path: Path) -> None:
    table = folder_of_dicoms(tmp_path)
    for path in table["path"]:
        Image.fromarray((VALUES // 16).astype(np.uint8)).save(tmp_path / f"{path}.png")
    options: dict[str, Any] = {"images": tmp_path, "attribute": "sex", "labels": ["edema"], "min_patients_per_level": 1}
    assert "view" not in read_cohort(table.assign(path=table["path"] + ".png"), **options).frame


@pytest.mark.parametrize("check", ["decode", "structure"])
def test_both_checks_leave_out_what_the_header_forbids(tmp_path: Path, check: Any) -> None:
    table = folder_of_dicoms(tmp_path)
    write(tmp_path / "0_PA.dcm", NumberOfFrames=3)
    write(tmp_path / "1_PA.dcm", PhotometricInterpretation="RGB", SamplesPerPixel=3)
    write(tmp_path / "2_PA.dcm", PixelData=b"\0" * 100)
    write(tmp_path / "3_PA.dcm", RescaleSlope=[1, 2])
    options: dict[str, Any] = {"images": tmp_path, "attribute": "sex", "labels": ["edema"], "check": check}
    options |= {"min_patients_per_level": 1, "lateral": "keep"}
    with pytest.raises(InputError, match=r"4 of 36 images .*\(0 not there, 4 damaged"):
        read_cohort(table, **options)
    cohort = read_cohort(table, **options, max_unreadable=0.2)
    step = next(one for one in cohort.flow if one.step == "readable")
    assert set(step.names) == {f"{patient}_PA.dcm" for patient in range(4)}
    assert np.isfinite(cohort.pixels(size=8)).all()


def test_fallbacks_are_counted_in_the_flow(tmp_path: Path) -> None:
    table = folder_of_dicoms(tmp_path)
    for patient in range(3):
        write(tmp_path / f"{patient}_PA.dcm", WindowCenter=50_000, WindowWidth=20)
    write(tmp_path / "5_PA.dcm", np.full((32, 32), 500, np.uint16))
    options: dict[str, Any] = {"images": tmp_path, "attribute": "sex", "labels": ["edema"], "lateral": "keep"}
    cohort = read_cohort(table, **options, max_unreadable=0.1, min_patients_per_level=1)
    unreadable, remark = cohort.flow[-2:]
    assert unreadable.names == ("5_PA.dcm",)
    assert "1 showing nothing" in unreadable.reason
    assert remark.step == "remark"
    assert remark.reason == f"3 images {Remark.WINDOW}"
    assert remark.names == ("0_PA.dcm", "1_PA.dcm", "2_PA.dcm")
    assert len(cohort) == 35


SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")


@pytest.mark.parametrize("name", SPACINGS)
@pytest.mark.parametrize(("sides", "shape"), [(["2", "1"], (64, 32)), (["1", "2"], (32, 64)), (["3", "2"], (48, 32))])
def test_pixels_that_are_no_squares_are_made_such(
    tmp_path: Path, name: str, sides: list[str], shape: tuple[int, int]
) -> None:
    disc = (np.hypot(*np.mgrid[-15.5:16, -15.5:16]) < 10).astype(np.uint16) * 4000
    image, remarks = see_dicom(write(tmp_path / "a.dcm", disc, **{name: sides}))
    assert image.shape == (1, *shape)
    assert remarks == (Remark.OBLONG,)
    high, wide = (np.count_nonzero(image[0].max(axis=axis) > 0.5) for axis in (1, 0))
    assert (high / 20, wide / 20) == pytest.approx((shape[0] / 32, shape[1] / 32), abs=0.05)
    flat = read_image(tmp_path / "a.dcm", size=16)
    assert flat.shape == (1, 16, 16)


@pytest.mark.parametrize(
    "sides",
    [
        ["0.14", "0.14"],
        ["0.1400", "0.1401"],
        ["0,14", "0,2"],
        ["0", "1"],
        ["1"],
        ["nan", "1"],
        ["1e-300", "1e300"],
        ["1", "99"],
        "",
    ],
)
def test_pixels_of_which_nothing_is_known_are_squares(tmp_path: Path, sides: Any) -> None:
    file = write(tmp_path / "a.dcm")
    data = pydicom.dcmread(file)
    data.add(pydicom.DataElement("PixelSpacing", "LO", sides))
    data.save_as(file)
    image, remarks = see_dicom(file)
    assert image.shape == (1, 32, 32)
    assert remarks == ()


def test_what_the_images_own_spacing_says_goes_before_the_ratio(tmp_path: Path) -> None:
    image, _ = see_dicom(write(tmp_path / "a.dcm", PixelSpacing=["0.2", "0.2"], PixelAspectRatio=["2", "1"]))
    assert image.shape == (1, 32, 32)


@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "i4"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("more", [0, 1 << 12, 0x7000])
def test_bits_above_the_stored_ones_are_told(tmp_path: Path, kind: str, order: str, more: int) -> None:
    values = (VALUES.astype(np.int64) - 2048 * (kind[0] == "i")) & (-1 if more == 0 else 0xFFF)
    values[:, ::2] |= more
    words = values.astype(kind).astype(order + kind)
    file = write(tmp_path / "a.dcm", words.astype(kind))
    if order == ">":
        plain = pydicom.dcmread(file)
        data = Dataset()
        data.update({element.tag: element for element in plain})
        data.PixelData, data.file_meta = words.tobytes(), plain.file_meta
        data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        data.save_as(file, implicit_vr=False, little_endian=False, enforce_file_format=True)
    image, remarks = see_dicom(file)
    assert remarks == ((Remark.BITS,) if more else ())
    np.testing.assert_allclose(image, read_dicom(write(tmp_path / "b.dcm")), atol=1e-6)


def test_a_sign_that_is_not_extended_is_no_other_bit(tmp_path: Path) -> None:
    signed = (VALUES.astype(np.int16) - 2048) & 0xFFF
    image, remarks = see_dicom(write(tmp_path / "a.dcm", signed))
    assert remarks == ()
    np.testing.assert_allclose(image, read_dicom(write(tmp_path / "b.dcm")), atol=1e-6)


@pytest.mark.parametrize("offset", [-2000, 0, 2000])
def test_a_table_that_begins_below_zero_does_so_for_every_image(tmp_path: Path, offset: int) -> None:
    """Its start is written without a sign; images of one film have values on either side of zero, or on one."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [8192, 65536 - 4096, 12])
    item.add_new("LUTData", "OW", (np.arange(8192, dtype=np.uint16) // 2).tobytes())
    values = (VALUES // 2).astype(np.int16) + np.int16(offset)
    image, remarks = see_dicom(write(tmp_path / "a.dcm", values, bits=14, VOILUTSequence=Sequence([item])))
    assert remarks == ()
    np.testing.assert_allclose(image[0], (values.astype(float) + 4096) // 2 / 4095, atol=1e-6)


@pytest.mark.parametrize(
    "syntax", ["with its syntax", ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_a_file_without_its_preamble_is_read(tmp_path: Path, syntax: str) -> None:
    """As they were written before there was one, and are by programs that leave it out."""
    file = write(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1500, ViewPosition="LL")
    expected = read_dicom(file)
    if syntax == "with its syntax":
        file.write_bytes(file.read_bytes()[132:])
    else:
        data, little = Dataset(), syntax != ExplicitVRBigEndian
        data.update({element.tag: element for element in pydicom.dcmread(file)})
        data.PixelData = VALUES.astype("<u2" if little else ">u2").tobytes()
        data.save_as(file, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little)
    assert not is_dicom(file)
    np.testing.assert_array_equal(read_dicom(file), expected)
    assert structure_fault(file) is None
    table = pd.DataFrame({"path": ["a.dcm"], "patient_id": ["p"], "sex": ["f"], "edema": [1]})
    with pytest.raises(InputError, match="lateral view"):
        read_cohort(table, images=tmp_path, attribute="sex", labels=["edema"])


@pytest.mark.parametrize("content", [b"hello, this is a note\n" * 40, bytes(range(256)) * 9, b"\0" * 999, b""])
def test_what_is_called_dicom_and_is_none_is_called_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(InputError, match="is not a DICOM file"):
        read_dicom(tmp_path / "a.dcm")


def test_raw_images_of_a_detector_are_told(tmp_path: Path) -> None:
    raw = write(tmp_path / "a.dcm", PresentationIntentType="FOR PROCESSING")
    assert see_dicom(raw)[1] == (Remark.RAW,)
    assert see_dicom(write(tmp_path / "b.dcm", PresentationIntentType="FOR PRESENTATION"))[1] == ()


def items(**tags: Any) -> Sequence:
    item = Dataset()
    for name, value in tags.items():
        setattr(item, name, value)
    return Sequence([item])


def test_an_enhanced_object_of_one_frame_is_shown_as_its_frame_says(tmp_path: Path) -> None:
    signed = VALUES.astype(np.int16) - 2000
    frame = items(
        PixelValueTransformationSequence=items(RescaleSlope=2, RescaleIntercept=-100, RescaleType="HU"),
        FrameVOILUTSequence=items(WindowCenter=300, WindowWidth=901),
    )
    shared = items(
        FrameVOILUTSequence=items(WindowCenter=0, WindowWidth=10), PixelMeasuresSequence=items(PixelSpacing=[2, 1])
    )
    groups = {"PerFrameFunctionalGroupsSequence": frame, "SharedFunctionalGroupsSequence": shared}
    for syntax in (None, RLELossless):
        image, remarks = see_dicom(
            write(tmp_path / "a.dcm", signed, bits=16, syntax=syntax, NumberOfFrames=1, **groups)
        )
        assert remarks == (Remark.OBLONG,)
        assert image.shape == (1, 64, 32)
        plain = np.clip((2.0 * signed - 100 - 299.5) / 900 + 0.5, 0, 1)
        # The first and last row of a picture that is stretched are its own.
        np.testing.assert_allclose(image[0, [0, -1]], plain[[0, -1]], atol=1e-6)
    shown, _ = see_dicom(
        write(tmp_path / "b.dcm", signed, SharedFunctionalGroupsSequence=shared, RescaleIntercept=2000)
    )
    assert shown.shape == (1, 64, 32)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_bits_above_the_stored_ones_of_compressed_values_are_told(tmp_path: Path, syntax: Any) -> None:
    values = VALUES.copy()
    values[::4, ::2] |= 0x3000
    deep = write(tmp_path / "deep.dcm", values, bits=16, syntax=syntax)
    data = pydicom.dcmread(deep)
    data.BitsStored, data.HighBit, data.WindowCenter, data.WindowWidth = 12, 11, 2048, 4096
    data.save_as(deep)
    image, remarks = see_dicom(deep)
    plain = read_dicom(write(tmp_path / "plain.dcm", WindowCenter=2048, WindowWidth=4096))
    # JPEG 2000 says itself how many bits its values have.
    own = syntax == JPEG2000Lossless
    assert remarks == ((Remark.DEEPER,) if own else (Remark.BITS,))
    np.testing.assert_allclose(image[:, ::4, ::2], 1.0 if own else plain[:, ::4, ::2], atol=1e-6)
    np.testing.assert_allclose(image[:, 1::4], plain[:, 1::4], atol=1e-6)
    whole = write(tmp_path / "whole.dcm", syntax=syntax)
    assert see_dicom(whole)[1] == ()


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGBaseline8Bit])
def test_a_compressed_picture_of_another_shape_than_its_header_is_refused(tmp_path: Path, syntax: Any) -> None:
    wide = np.hstack([VALUES // 16] * 2).astype(np.uint8)
    file = write(tmp_path / "a.dcm", wide, bits=8, syntax=syntax if syntax == JPEG2000Lossless else None)
    data = pydicom.dcmread(file)
    if syntax == JPEGBaseline8Bit:
        stream = io.BytesIO()
        Image.fromarray(wide).save(stream, "JPEG", comment=b"made by hand")
        data.PixelData = encapsulate([stream.getvalue()])
        data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        data.save_as(file)
    assert see_dicom(file)[0].shape == (1, 32, 64)
    data.Rows, data.Columns = 64, 32
    data.save_as(file)
    with pytest.raises(InputError, match="states 32 x 64 pixels, and its compressed picture has 64 x 32; export it"):
        see_dicom(file)
    assert "states 32 x 64 pixels" in str(structure_fault(file))


def test_windows_of_some_files_beside_none_of_others_are_told(tmp_path: Path) -> None:
    for image in range(40):
        window = {"WindowCenter": 2000, "WindowWidth": 3000} if image % 4 else {}
        write(tmp_path / f"{image}.dcm", **window)
    rows = [{"path": f"{k}.dcm", "patient_id": f"p{k}", "sex": "fm"[k // 4 % 2], "edema": k % 2} for k in range(40)]

    def told(chosen: list[dict[str, Any]]) -> list[str]:
        cohort = read_cohort(
            pd.DataFrame(chosen), images=tmp_path, attribute="sex", labels=["edema"], min_patients_per_level=0
        )
        return [step.reason for step in cohort.flow if "window" in step.reason]

    (reason,) = told(rows)
    assert reason.startswith("10 DICOM images without a window or table of their own, shown between percentiles")
    assert not told([row for k, row in enumerate(rows) if k % 4])
    assert not told([row for k, row in enumerate(rows) if k % 4 == 0])
    # A few are not worth a word.
    assert not told([row for k, row in enumerate(rows) if k % 4 or k < 16])


def test_more_pixels_than_the_header_asks_for_are_told(tmp_path: Path) -> None:
    assert see_dicom(write(tmp_path / "a.dcm", PixelData=VALUES.tobytes() + bytes(40)))[1] == ()
    assert see_dicom(write(tmp_path / "a.dcm", PixelData=VALUES.tobytes() * 2))[1] == (Remark.LONG,)
    # Words of 16 bits that are taken for two bytes.
    shallow = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": VALUES.tobytes()}
    assert Remark.LONG in see_dicom(write(tmp_path / "a.dcm", **shallow))[1]


@pytest.mark.parametrize(("said", "told"), [("YES", True), ("NO", False), ("", False), (None, False)])
def test_text_that_is_burnt_in_is_told(tmp_path: Path, said: str | None, told: bool) -> None:
    tags = {} if said is None else {"BurnedInAnnotation": said}
    assert see_dicom(write(tmp_path / "a.dcm", **tags))[1] == ((Remark.BURNT,) if told else ())
