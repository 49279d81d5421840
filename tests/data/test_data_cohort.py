"""The cohort from a table: what it keeps, what it leaves out with a count, what it refuses."""

from __future__ import annotations

import shutil
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from citlr.data.cohort import Cohort
from citlr.data.flow import flow_table
from citlr.data.pixels.checks import _with_pictures, structure_fault
from citlr.data.pixels.survey import Look
from citlr.data.reading import read_cohort
from citlr.data.splits import assign_splits, read_split_names, require_disjoint
from citlr.data.tables.columns import read_table, refuse_unsafe_paths
from citlr.errors import InputError, StateError

PATIENTS = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    (tmp_path / "images").mkdir()
    for patient in range(PATIENTS):
        for visit in range(2):
            name = f"images/{patient:03d}_{visit}.png"
            Image.fromarray(rng.integers(0, 255, (20, 16), dtype=np.uint8)).save(tmp_path / name)
            rows.append(
                {
                    "file": name,
                    "pid": f"{patient:03d}",
                    "Sex": "MF"[patient % 2],
                    "Age": 20 + patient,
                    "View": "PA" if visit else "AP",
                    "edema": (patient // 2) % 2,
                }
            )
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    return tmp_path


COLUMNS = {"path": "file", "patient_id": "pid", "sex": "Sex", "age": "Age", "view": "View"}
LEVELS = {"F": "female", "M": "male"}


def read(folder: Path, **changes: Any) -> Cohort:
    choices: dict[str, Any] = {
        "images": folder,
        "attribute": "sex",
        "labels": ["edema"],
        "columns": COLUMNS,
        "levels": LEVELS,
        "min_patients_per_level": 3,
    }
    return read_cohort(changes.pop("table", folder / "table.csv"), **{**choices, **changes})


def edit(folder: Path, change: Any) -> None:
    table = pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)
    pd.DataFrame(change(table)).to_csv(folder / "table.csv", index=False)


def test_reads_a_table(folder: Path) -> None:
    cohort = read(folder, covariates=["view"])
    assert len(cohort) == 2 * PATIENTS
    assert cohort.levels("sex") == ("female", "male")
    # Leading zeros of identifiers survive, and numbers are numbers.
    assert cohort.frame["patient_id"].iloc[0] == "000"
    assert cohort.frame["age"].iloc[0] == 20.0
    assert cohort.frame["edema"].isin([0.0, 1.0]).all()
    assert cohort.frame.groupby("patient_id")["split"].nunique().max() == 1
    assert sum(len(cohort.part(name)) for name in ("train", "validation", "test")) == len(cohort)
    counts = cohort.counts()
    assert counts["images"].sum() == len(cohort)
    assert set(counts["value"]) == {"positive", "negative"}
    assert cohort.missing() == {"sex": 0, "edema": 0, "view": 0, "age": 0}


@pytest.mark.parametrize("kind", ["parquet", "tsv", "csv.gz", "xlsx"])
def test_other_tables_give_the_same_cohort(folder: Path, kind: str) -> None:
    table = pd.read_csv(folder / "table.csv", dtype=str)
    file = folder / f"other.{kind}"
    if kind == "parquet":
        table.to_parquet(file)
    elif kind == "xlsx":
        table.to_excel(file, index=False)
    else:
        table.to_csv(file, index=False, sep="\t" if kind == "tsv" else ",")
    pd.testing.assert_frame_equal(read(folder, table=file).frame, read(folder).frame)


def test_the_split_is_seeded_and_does_not_depend_on_row_order(folder: Path) -> None:
    first, again, other = read(folder), read(folder), read(folder, seed=1)
    assert (first.frame["split"] == again.frame["split"]).all()
    assert (first.frame["split"] != other.frame["split"]).any()
    edit(folder, lambda table: table.iloc[::-1])
    back = read(folder).frame.set_index("image_id")["split"]
    assert (back.loc[first.frame["image_id"]].to_numpy() == first.frame["split"].to_numpy()).all()


def test_the_split_is_stratified(folder: Path) -> None:
    test = read(folder, fractions=(0.5, 0.0, 0.5)).part("test").frame
    assert test.drop_duplicates("patient_id")["sex"].value_counts().to_dict() == {"female": 10, "male": 10}
    parts = read(folder).split(seed=3, stratify="edema")
    assert [part.frame["patient_id"].nunique() for part in parts] == [26, 4, 10]


def test_given_split_and_its_names(folder: Path) -> None:
    edit(folder, lambda t: t.assign(Fold=["Train" if int(p) < 20 else "holdout" for p in t["pid"]]))
    assert read(folder, split="Fold").frame["split"].value_counts().to_dict() == {"train": 40, "test": 40}
    assert len(read(folder, split="split", columns={**COLUMNS, "split": "Fold"}).part("test")) == 40
    edit(folder, lambda t: t.assign(Fold="maybe"))
    with pytest.raises(InputError, match=r"'maybe' \(80 images\)"):
        read(folder, split="Fold")
    with pytest.raises(InputError, match="Did you mean 'Fold'"):
        read(folder, split="Fodl")


def test_one_patient_in_two_splits_is_refused(folder: Path) -> None:
    edit(folder, lambda t: t.assign(Fold=["train" if "_0" in f else "test" for f in t["file"]]))
    with pytest.raises(InputError, match=r"40 patients have images in more than one split: 000 \(test and train\)"):
        read(folder, split="Fold")


def test_misnamed_columns_name_the_nearest(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no column 'sexx' .*Did you mean 'Sex'"):
        read(folder, columns={**COLUMNS, "sex": "sexx"})
    with pytest.raises(InputError, match=r"no column 'edemma'.* Did you mean 'edema'"):
        read(folder, labels=["edemma"])
    with pytest.raises(InputError, match=r"maps 'patient', which nothing asks for.* Did you mean 'patient_id'"):
        read(folder, columns={"path": "file", "patient": "pid"})


def test_missing_files_and_folders(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no table .*Did you mean 'table.csv'"):
        read(folder, table=folder / "tabel.csv")
    with pytest.raises(InputError, match="no image folder"):
        read(folder, images=folder / "nowhere")
    with pytest.raises(InputError, match="max_unreadable"):
        read(folder, images=folder / "images")


@pytest.mark.parametrize("check", ["decode", "structure", "exists"])
def test_unreadable_images_are_left_out_counted_and_named(folder: Path, check: str) -> None:
    (folder / "images/000_0.png").unlink()
    whole = (folder / "images/001_0.png").read_bytes()
    (folder / "images/001_0.png").write_bytes(whole[: len(whole) // 2])
    bad = ["images/000_0.png"] + (["images/001_0.png"] if check != "exists" else [])
    cohort = read(folder, max_unreadable=0.1, check=check)
    step = next(step for step in cohort.flow if step.step == "readable")
    assert list(step.names) == bad
    assert (step.excluded_images, step.excluded_patients) == (len(bad), 0)
    assert step.n_images == len(cohort) == 2 * PATIENTS - len(bad)
    assert "images/000_0.png" in flow_table(cohort.flow)
    with pytest.raises(InputError, match=rf"{len(bad)} of 80 images .* more than the share .*images/000_0.png"):
        read(folder, check=check)


def test_a_picture_of_several_patients_is_told_whatever_its_file_is_like(folder: Path) -> None:
    """Filed under two patients it counts as two, and intervals are too narrow; one patient may have it twice."""
    (folder / "images/005_1.png").unlink()
    (folder / "images/005_1.png").symlink_to(folder / "images/005_0.png")
    told = [step.reason for step in read(folder).flow if step.step == "remark"]
    assert not any("picture of another patient" in reason for reason in told)
    Image.open(folder / "images/003_0.png").save(folder / "images/004_0.png", compress_level=0)
    cohort = read(folder)
    step = next(step for step in cohort.flow if "picture of another patient" in step.reason)
    assert step.names == ("images/003_0.png", "images/004_0.png")
    assert step.reason.startswith("2 images are the very picture")
    assert len(cohort) == 2 * PATIENTS


@pytest.mark.parametrize("check", ["structure", "exists"])
def test_a_file_of_several_patients_is_told_where_no_image_is_decoded(folder: Path, check: str) -> None:
    """Byte by byte: files of one size and another content are different pictures, and so is one that is not there."""
    files = [folder / f"images/00{number}_0.png" for number in range(6)]
    bits = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    for file, pixels in zip(files, bits, strict=False):
        Image.fromarray(pixels).save(file, compress_level=0)
    shutil.copy(files[3], folder / "images/003_1.png")
    assert len({file.stat().st_size for file in files[:3]}) == 1
    for file in files[4:]:
        file.unlink()
    quiet = read(folder, check=check, max_unreadable=0.1)
    assert not any("picture of another patient" in step.reason for step in quiet.flow)
    content = bytearray(files[0].read_bytes())
    shutil.copy(files[0], files[5])
    content[200] ^= 1  # of one size, and alike in the middle
    files[4].write_bytes(content)
    found = read(folder, check=check)
    step = next(step for step in found.flow if "picture of another patient" in step.reason)
    assert step.names == ("images/000_0.png", "images/005_0.png")


def test_files_of_one_size_are_compared_without_a_piece_of_each_in_memory(tmp_path: Path) -> None:
    """As raw DICOM files are; two of these are one picture."""
    for number in range(400):
        (tmp_path / f"{number}").write_bytes(np.random.default_rng(number // 2 if number < 2 else number).bytes(2000))
    looks = [Look(f"{number}") for number in range(400)]
    _with_pictures(tmp_path, looks[:4])
    tracemalloc.start()
    found = _with_pictures(tmp_path, looks)
    assert tracemalloc.get_traced_memory()[1] < 400 * 1024
    tracemalloc.stop()
    assert [one.picture for one in found] == ["0", "0", *(one.name for one in looks[2:])]


def test_corrupt_pixels_are_found_by_decoding(folder: Path) -> None:
    file = folder / "images/002_0.png"
    content = bytearray(file.read_bytes())
    middle = content.index(b"IDAT") + 30
    content[middle : middle + 20] = b"\x00" * 20
    file.write_bytes(bytes(content))
    assert structure_fault(file) is None
    assert read(folder, max_unreadable=0.1).flow[-1].names == ("images/002_0.png",)


def test_structure_of_jpeg_and_others(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.jpg")
    assert structure_fault(tmp_path / "a.jpg") is None
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-30])
    assert "truncated" in str(structure_fault(tmp_path / "b.jpg"))
    (tmp_path / "c.jpg").write_bytes(b"hello")
    assert "not a PNG or JPEG image" in str(structure_fault(tmp_path / "c.jpg"))
    assert "is not there" in str(structure_fault(tmp_path / "d.jpg"))


def test_what_a_phone_writes_behind_a_jpeg_is_no_cut(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=95)
    whole = (tmp_path / "a.jpg").read_bytes()
    assert len(whole) > 1 << 18
    (tmp_path / "a.jpg").write_bytes(whole + b"SEFT" * 900)
    assert structure_fault(tmp_path / "a.jpg") is None
    # A thumbnail at the start, as cameras write, has an end of its own.
    small = whole[:2] + b"\xff\xe1\xff\xf0" + b"\xff\xd9" * 32_759 + whole[2:]
    for cut in (65_600, 66_300, 1 << 17, len(small) - 10):
        (tmp_path / "b.jpg").write_bytes(small[:cut])
        assert "truncated" in str(structure_fault(tmp_path / "b.jpg"))


def test_levels(folder: Path) -> None:
    with pytest.raises(InputError, match=r"'M' \(40 images\)"):
        read(folder, levels={"F": "female", "Male": "male"})
    with pytest.raises(InputError, match="single level 'person'"):
        read(folder, levels={"F": "person", "M": "person"})
    with pytest.raises(InputError, match="single level 'female'"):
        read(folder, keep={"sex": "female"})
    with pytest.raises(InputError, match="at most 12"):
        read(folder, attribute="age", levels=None, columns={"path": "file", "patient_id": "pid", "age": "Age"})
    with pytest.raises(InputError, match="names 'sexx'"):
        read(folder, levels={"sexx": LEVELS})
    both = read(folder, attributes=["view"], levels={"sex": LEVELS, "view": ["AP", "PA"]})
    assert both.attributes == ("sex", "view")


def test_age_groups(folder: Path) -> None:
    columns = {"path": "file", "patient_id": "pid", "age": "Age", "age_group": "Age"}
    cohort = read(folder, attribute="age_group", levels=None, bins={"age_group": [40]}, columns=columns)
    assert cohort.levels("age_group") == ("0-39", "40+")
    assert ((cohort.frame["age"] >= 40) == (cohort.frame["age_group"] == "40+")).all()


def test_blank_attributes_are_counted_and_kept_out(folder: Path) -> None:
    edit(folder, lambda t: t.assign(Sex=["" if int(p) < 3 else s for p, s in zip(t["pid"], t["Sex"], strict=True)]))
    cohort = read(folder)
    step = next(step for step in cohort.flow if step.step == "sex")
    assert (step.excluded_images, step.excluded_patients) == (6, 3)
    assert (step.n_images, step.n_patients) == (74, 37)
    assert "6 blank" in step.reason


def test_keep_counts_by_value_and_lateral_is_left_out(folder: Path) -> None:
    cohort = read(folder, keep={"view": "PA"})
    assert cohort.flow[-1].excluded_images == PATIENTS
    assert "AP: 40" in cohort.flow[-1].reason
    with pytest.raises(InputError, match=r"leaves no image"):
        read(folder, keep={"view": "LL"})
    edit(folder, lambda t: t.assign(View=["LATERAL" if "_0" in f else "PA" for f in t["file"]]))
    cohort = read(folder)
    assert len(cohort) == PATIENTS
    assert "LATERAL: 40" in cohort.flow[-1].reason
    assert len(read(folder, lateral="keep")) == 2 * PATIENTS


def test_few_patients_in_a_level_of_the_test_split(folder: Path) -> None:
    with pytest.raises(InputError, match=r"'female' has 5 \(about 80 in all splits would do\), 'male' has 5"):
        read(folder, min_patients_per_level=20)


def test_duplicated_image_ids(folder: Path) -> None:
    edit(folder, lambda t: pd.concat([t, t.iloc[[0, 5]]]))
    with pytest.raises(InputError, match=r"2 image ids more than once: images/000_0.png, images/002_1.png"):
        read(folder)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/etc/passwd", "that is absolute"),
        ("../x.png", "that leaves the image folder"),
        ("a/../../x.png", "that leaves the image folder"),
        ("..\\x.png", "that leaves the image folder"),
        ("C:\\x.png", "that begins with a drive"),
        ("~/x.png", "that begins with a home folder"),
        ("file:///x.png", "that is an address"),
        ("https://a.org/x.png", "that is an address"),
        ("a\x00.png", "with the character NUL"),
    ],
)
def test_paths_out_of_the_folder_are_refused_as_what_they_are(folder: Path, path: str, says: str) -> None:
    paths = pd.Series([path, "a.png"])
    with pytest.raises(InputError, match=f"has an image path {says}.* in 1 row, the first in row 1"):
        refuse_unsafe_paths(paths, source="table.csv")
    if "\x00" not in path:  # a CSV does not keep it
        edit(folder, lambda t: t.assign(file=[path, *t["file"][1:]]))
        with pytest.raises(InputError, match=says):
            read(folder)


def test_labels(folder: Path) -> None:
    edit(folder, lambda t: t.assign(edema=["-1.0", "", "1.0", "0", *(["1"] * 76)]))
    with pytest.raises(InputError, match=r"1 uncertain values \(-1\)"):
        read(folder)
    for policy, value in (("zeros", 0.0), ("ones", 1.0)):
        assert read(folder, uncertain=policy).frame["edema"].iloc[0] == value
    ignored = read(folder, uncertain="ignore").frame["edema"]
    assert ignored.iloc[:4].isna().tolist() == [True, True, False, False]
    edit(folder, lambda t: t.assign(edema=["2", *t["edema"][1:]]))
    with pytest.raises(InputError, match=r"must be 0, 1, -1 or blank, and holds '2' \(1\)"):
        read(folder, uncertain="ignore")


def test_damaged_tables(tmp_path: Path, folder: Path) -> None:
    whole = folder / "t.csv.gz"
    pd.read_csv(folder / "table.csv").to_csv(whole, index=False)
    whole.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(InputError, match="truncated"):
        read_table(whole)
    (tmp_path / "b.xlsx").write_bytes(b"PK\x03\x04 no workbook")
    with pytest.raises(InputError, match="cannot be read as an Excel table"):
        read_table(tmp_path / "b.xlsx")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "b.parquet")
    (tmp_path / "b.csv").write_text("")
    with pytest.raises(InputError, match="is empty"):
        read_table(tmp_path / "b.csv")
    (tmp_path / "b.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="no rows"):
        read_table(tmp_path / "b.csv")
    (tmp_path / "b.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(InputError, match="not in UTF-8: the byte 0xFF in line 2"):
        read_table(tmp_path / "b.csv")
    (tmp_path / "b.docx").write_text("x")
    with pytest.raises(InputError, match="a table is"):
        read_table(tmp_path / "b.docx")


def test_parquet_round_trip(folder: Path) -> None:
    cohort = read(folder, covariates=["view"], fit="crop")
    cohort.to_parquet(folder / "cohort.parquet")
    back = Cohort.from_parquet(folder / "cohort.parquet")
    pd.testing.assert_frame_equal(back.frame, cohort.frame)
    assert (back.flow, back.attributes, back.labels, back.covariates) == (
        cohort.flow,
        cohort.attributes,
        cohort.labels,
        cohort.covariates,
    )
    assert (back.fit, back.root) == ("crop", folder)
    np.testing.assert_array_equal(back.pixels([3, 1], size=8), cohort.pixels([3, 1], size=8))
    assert Cohort.from_parquet(folder / "cohort.parquet", root="elsewhere").root == Path("elsewhere")
    pd.DataFrame({"a": [1]}).to_parquet(folder / "other.parquet")
    with pytest.raises(InputError, match=r"not a cohort of this version .* another program has saved it.*`images`"):
        Cohort.from_parquet(folder / "other.parquet")
    with pytest.raises(
        InputError, match=r"table.csv is no cohort that `citlr prepare` wrote.*the folder of its images"
    ):
        Cohort.from_parquet(folder / "table.csv")
    with pytest.raises(InputError, match="no cohort at"):
        Cohort.from_parquet(folder / "none.parquet")
    (folder / "cohort.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="damaged"):
        Cohort.from_parquet(folder / "cohort.parquet")


def test_batches_are_ordered_bounded_and_stop_with_the_reader(folder: Path) -> None:
    cohort = read(folder)
    rows = np.array([5, 0, 7, 3, 2])
    found = list(cohort.batches(size=8, batch_size=2, rows=rows))
    assert np.concatenate([part for part, _ in found]).tolist() == rows.tolist()
    np.testing.assert_array_equal(np.concatenate([images for _, images in found]), cohort.pixels(rows, size=8))

    class Counting:
        asked = 0

        def read_many(self, ids: list[str], paths: list[str], *, size: int, fit: str) -> np.ndarray:
            Counting.asked += len(ids)
            return np.zeros((len(ids), 1, size, size), np.float32)

    from dataclasses import replace

    stream = replace(cohort, source=Counting()).batches(size=8, batch_size=4, workers=2)
    next(stream)
    time.sleep(0.1)
    # Two threads and one batch ahead: never the whole cohort.
    assert Counting.asked <= 4 * 4
    stream.close()  # type: ignore[attr-defined]
    assert not [one for one in threading.enumerate() if one.name.startswith("citlr-decode")]


def test_an_image_that_goes_missing_later_is_named(folder: Path) -> None:
    cohort = read(folder)
    (folder / "images/004_1.png").unlink()
    with pytest.raises(InputError, match=r"004_1.png is not there"):
        cohort.pixels(size=8)
    with pytest.raises(InputError, match="batch_size"):
        next(cohort.batches(size=8, batch_size=0))


def test_parts_and_levels_are_checked(folder: Path) -> None:
    cohort = read(folder)
    with pytest.raises(InputError, match="Did you mean 'validation'"):
        cohort.part("validaton")
    with pytest.raises(InputError, match="not an attribute"):
        cohort.levels("race")
    with pytest.raises(InputError, match="needs the column 'race'"):
        Cohort(cohort.frame, folder, attributes=("race",), labels=())
    assert len(cohort.take(cohort.frame["sex"] == "male")) == PATIENTS
    assert issubclass(StateError, Exception)


def test_split_helpers_refuse_nonsense() -> None:
    frame = pd.DataFrame({"patient_id": ["a", "b"], "split": ["train", "test"]})
    for fractions in ((0.5, 0.5), (0.5, 0.6, 0.1), (1.2, -0.2, 0.0), (float("nan"), 0.5, 0.5)):
        with pytest.raises(InputError, match="three shares"):
            assign_splits(frame, fractions=fractions, seed=0)
    with pytest.raises(InputError, match="no column"):
        assign_splits(frame, by="patient", seed=0)
    with pytest.raises(InputError, match="blank"):
        read_split_names(pd.Series(["train", None]))
    require_disjoint(frame)


def test_cells_of_a_workbook(tmp_path: Path) -> None:
    table = pd.DataFrame({" a ": [1.0, 2.5, None], "b": ["007", "NA", "x"], "c": [1, 2, 3]})
    table.to_excel(tmp_path / "t.xlsx", index=False)
    read_back = read_table(tmp_path / "t.xlsx", columns=["a", "b"])
    assert read_back.columns.tolist() == ["a", "b"]
    # Whole numbers without ".0", identifiers with their zeros, blanks blank.
    assert read_back["a"].tolist()[:2] == ["1", "2.5"]
    assert read_back["b"].tolist()[0] == "007"
    assert read_back.isna().sum().tolist() == [1, 1]
    pd.DataFrame().to_excel(tmp_path / "empty.xlsx", index=False)
    with pytest.raises(InputError, match=r"empty first sheet|no rows"):
        read_table(tmp_path / "empty.xlsx")
