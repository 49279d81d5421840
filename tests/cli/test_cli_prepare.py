"""`citlr prepare`, one command for each data set, and every way in which its input can be bad."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees
import yaml
from as_user import CONFIG

from citlr.cli.main import main
from citlr.data.cohort import Cohort
from citlr.data.pixels.shards import CachePixels

Words = tuple[str | Path, ...]
TABLE = ("--attribute", "gender", "--label", "edema", "--map", "path=file", "--map", "patient_id=subject")


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run the command line in this process: the same entry point, without a second for imports every time."""

    def run(*words: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["citlr", *map(str, words)])
        with pytest.raises(SystemExit) as status:
            main()
            sys.exit(0)
        said = capsys.readouterr()
        return Done(int(status.value.code or 0), said.out, said.err)

    return run


def chexpert(root: Path) -> Words:
    return ("chexpert", trees.chexpert(root))


def mimic(root: Path, version: int = 2) -> Words:
    jpg, hospital = trees.mimic(root, version)
    return ("mimic-cxr", jpg, "--mimic-iv", hospital)


def mimic_1(root: Path) -> Words:
    return mimic(root, 1)


def nih(root: Path) -> Words:
    return ("nih", trees.nih(root))


def nih_2017(root: Path) -> Words:
    return ("nih", trees.nih(root, "Patient Gender"))


def padchest(root: Path) -> Words:
    return ("padchest", trees.padchest(root))


def table(root: Path) -> Words:
    return ("table", trees.table(root), *TABLE)


@pytest.mark.parametrize("source", [chexpert, mimic, mimic_1, nih, nih_2017, padchest, table])
def test_every_data_set_is_one_command(
    source: Callable[[Path], Words], tmp_path: Path, cli: Callable[..., Done]
) -> None:
    out = tmp_path / "out"
    done = cli("prepare", *source(tmp_path / "data"), "--out", out, "--cache", "16", "--quiet")
    assert (done.status, done.err) == (0, "")
    cohort = Cohort.from_parquet(out / "cohort.parquet")
    assert isinstance(cohort.source, CachePixels)
    names = ("cohort.parquet", "flow.md", "flow.json", cohort.source.folder.name)
    assert done.out.split() == [str(out / name) for name in names]
    number = cohort.frame["patient_id"].str.extract(r"(\d+)$")[0].astype(int) % 1000
    sexes = ("F", "M") if source is table else ("female", "male")
    expected = [sexes[trees.is_male(patient)] for patient in number]
    assert cohort.frame["gender" if source is table else "sex"].tolist() == expected
    if source in (chexpert, mimic, mimic_1):
        assert cohort.attributes == ("race", "sex")
        assert cohort.frame["race"].tolist() == [trees.race_of(patient) for patient in number]
    assert sorted(set(number)) == list(trees.PATIENTS)
    assert set(cohort.frame["split"]) == {"train", "validation", "test"}
    if source is mimic:
        assert cohort.frame["split"].tolist() == cohort.frame["official_split"].tolist()
    flow = json.loads((out / "flow.json").read_text())["flow"]
    assert flow[-1]["n_images"] == len(cohort) == len(trees.PATIENTS)
    assert cohort.pixels(size=16).shape == (48, 1, 16, 16)
    assert cohort.pixels(size=16).std() > 0.1


def test_choices_of_a_study_reach_it(tmp_path: Path, cli: Callable[..., Done]) -> None:
    root = trees.chexpert(tmp_path)

    def prepare(*words: str) -> Cohort:
        done = cli("prepare", "chexpert", root, "--out", tmp_path / "out", "--quiet", *words)
        assert done.status == 0, done.err
        return Cohort.from_parquet(tmp_path / "out" / "cohort.parquet")

    assert len(prepare("--views", "all")) == 96
    assert set(prepare("--race", "black", "--race", "asian").frame["race"]) == {"black", "asian"}
    chosen = prepare("--label", "Fracture", "--uncertain", "ones", "--blank", "ignore")
    assert chosen.frame["Fracture"].fillna(9).value_counts().to_dict() == {1.0: 24, 0.0: 12, 9.0: 12}
    ages = prepare("--attribute", "age_group", "--age-edge", "50", "--min-age", "35", "--age-cap", "0")
    assert set(ages.frame["age_group"]) == {"0-49", "50+"}
    assert ages.frame["age"].min() == 35
    assert prepare("--fit", "crop").fit == "crop"
    for words, sentence in (
        (("--views", "fronta"), "Did you mean 'frontal'"),
        (("--race", "withe"), "Did you mean 'white'"),
        (("--fit", "stretched"), "Did you mean 'stretch'"),
        (("--split", "official"), "no official test split"),
        (("--label", "Edemma"), "Did you mean 'Edema'"),
        (("--cache", "0"), "give 1 to 4096"),
    ):
        done = cli("prepare", "chexpert", root, "--out", tmp_path / "other", *words)
        assert done.status == 2
        assert sentence in done.err
    assert not (tmp_path / "other" / "cohort.parquet").exists()


def test_levels_groups_and_rows_of_a_table(tmp_path: Path, cli: Callable[..., Done]) -> None:
    words = ("prepare", *table(tmp_path), "--out", tmp_path / "out", "--quiet")
    named = cli(*words, "--level", "F=female", "--level", "M=male", "--keep", "side=train", "--keep", "side=val")
    assert named.status == 0, named.err
    cohort = Cohort.from_parquet(tmp_path / "out" / "cohort.parquet")
    assert cohort.levels("gender") == ("female", "male")
    assert len(cohort) == 35
    unnamed = cli(*words, "--level", "F=female")
    assert unnamed.status == 2
    assert "'M' (24 images)" in unnamed.err


# Every line of bad input: what is done to which tree, and what the sentence has to say.


def empty(root: Path) -> Words:
    (root / "CheXpert").mkdir(parents=True)
    return ("chexpert", root / "CheXpert")


def no_images_table(root: Path) -> Words:
    trees.nih(root)
    (root / "Data_Entry_2017_v2020.csv").unlink()
    return ("nih", root)


def truncated_gz(root: Path) -> Words:
    words = mimic(root)
    file = root / "mimic-cxr-jpg" / "mimic-cxr-2.0.0-metadata.csv.gz"
    file.write_bytes(file.read_bytes()[:-200])
    return words


def mixed_names(root: Path) -> Words:
    words = mimic(root)
    folder = root / "mimic-cxr-jpg"
    (folder / "mimic-cxr-2.0.0-chexpert.csv.gz").rename(folder / "mimic-cxr-2.1.0-chexpert.csv.gz")
    return words


def mixed_columns(root: Path) -> Words:
    words = mimic(root)
    file = root / "mimiciv" / "hosp" / "admissions.csv.gz"
    pd.read_csv(file).assign(ethnicity="WHITE").to_csv(file, index=False)
    return words


def mixed_paths(root: Path) -> Words:
    words = chexpert(root)
    file = root / "CheXpert-v1.0-small" / "valid.csv"
    file.write_text(file.read_text().replace("CheXpert-v1.0-small/", "CheXpert-v1.0/"))
    return words


def outside(root: Path) -> Words:
    words = chexpert(root)
    file = root / "CheXpert-v1.0-small" / "train.csv"
    file.write_text(file.read_text().replace("train/patient00001/", "../../patient00001/"))
    return words


def absolute(root: Path) -> Words:
    words = table(root)
    file = root / "study.csv"
    file.write_text(file.read_text().replace("files/1.png", "/etc/passwd.png"))
    return words


def bomb(root: Path) -> Words:
    words = table(root)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    (root / "files" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + body)
    return words


def dicom_without_pixels(root: Path) -> Words:
    pydicom = pytest.importorskip("pydicom")
    words = table(root)
    file = root / "study.csv"
    file.write_text(file.read_text().replace("files/1.png", "files/1.dcm"))
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3", "SR"
    dataset.save_as(root / "files" / "1.dcm", enforce_file_format=True)
    return words


def workbook(root: Path) -> Words:
    words = chexpert(root)
    (root / "CHEXPERT DEMO.xlsx").write_bytes(b"PK\x03\x04 and no more")
    return words


def double_patient(root: Path) -> Words:
    words = chexpert(root)
    people = pd.read_excel(root / "CHEXPERT DEMO.xlsx", dtype=str, engine="openpyxl")
    pd.concat([people, people.iloc[[4]]]).to_excel(root / "CHEXPERT DEMO.xlsx", index=False)
    return words


def double_study(root: Path) -> Words:
    words = mimic(root)
    file = root / "mimic-cxr-jpg" / "mimic-cxr-2.0.0-chexpert.csv.gz"
    found = pd.read_csv(file, dtype=str)
    pd.concat([found, found.iloc[[6]]]).to_csv(file, index=False)
    return words


def no_demographics(root: Path) -> Words:
    words = chexpert(root)
    (root / "CHEXPERT DEMO.xlsx").unlink()
    return words


def other_hospital(root: Path) -> Words:
    jpg, hospital = trees.mimic(root)
    (hospital / "hosp").rename(hospital / "ed")
    return ("mimic-cxr", jpg, "--mimic-iv", hospital)


def shared_patient(root: Path) -> Words:
    words = (*table(root), "--split", "side")
    file = root / "study.csv"
    file.write_text(file.read_text().replace(",s12,", ",s1,"))
    return words


def unknown_race(root: Path) -> Words:
    words = chexpert(root)
    people = pd.read_excel(root / "CHEXPERT DEMO.xlsx", dtype=str, engine="openpyxl")
    people.loc[people.index % 12 == 0, "PRIMARY_RACE"] = "Caucasian"
    people.to_excel(root / "CHEXPERT DEMO.xlsx", index=False)
    return words


@pytest.mark.parametrize(
    ("broken", "sentences"),
    [
        (empty, ("none of train.csv", "usually in the folder CheXpert-v1.0")),
        (no_images_table, ("Data_Entry_2017*.csv", "beside the folder images/")),
        (other_hospital, ("patients.csv.gz", "hosp/ (v2 and later) or core/")),
        (no_demographics, ("CHEXPERT DEMO.xlsx", "AIMI")),
        (truncated_gz, ("mimic-cxr-2.0.0-metadata.csv.gz", "truncated")),
        (mixed_names, ("mixes versions", "mimic-cxr-2.1.0-chexpert.csv.gz")),
        (mixed_columns, ("both 'race' and 'ethnicity'",)),
        (mixed_paths, ("mix versions", "CheXpert-v1.0-small")),
        (outside, ("leaves the image folder ('..')", "'../../patient00001")),
        (absolute, ("that is absolute", "'/etc/passwd.png'")),
        (bomb, ("files/1.png", "decompression bomb")),
        (dicom_without_pixels, ("files/1.dcm", "without pixel data")),
        (workbook, ("CHEXPERT DEMO.xlsx cannot be read as an Excel table",)),
        (double_patient, ("1 patients more than once: patient00005",)),
        (double_study, ("1 studies more than once: 10000007/50000007",)),
        (shared_patient, ("1 patients have images in more than one split", "s1")),
        (unknown_race, ("'Caucasian' (4)", "--allow-unknown")),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    broken: Callable[[Path], Words], sentences: tuple[str, ...], tmp_path: Path, cli: Callable[..., Done]
) -> None:
    done = cli("prepare", *broken(tmp_path / "data"), "--out", tmp_path / "out", "--quiet")
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith("citlr: ")
    assert len(done.err.strip().splitlines()) == 1
    for sentence in sentences:
        assert sentence in done.err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_unknown_strings_count_as_unknown_on_request(tmp_path: Path, cli: Callable[..., Done]) -> None:
    words = unknown_race(tmp_path / "data")
    done = cli("prepare", *words, "--out", tmp_path / "out", "--allow-unknown", "--quiet")
    assert done.status == 0, done.err
    page = (tmp_path / "out" / "flow.md").read_text()
    assert "race: not stated (Caucasian: 4)" in page
    raw = {one["raw"]: one for one in json.loads((tmp_path / "out" / "flow.json").read_text())["raw"]}
    assert [raw["Caucasian"][key] for key in ("level", "images_before", "images_after")] == ["unknown", 8, 0]


def test_patients_without_demographics_are_counted_and_kept_out(tmp_path: Path, cli: Callable[..., Done]) -> None:
    words = chexpert(tmp_path / "data")
    workbook = tmp_path / "data" / "CHEXPERT DEMO.xlsx"
    pd.read_excel(workbook, dtype=str, engine="openpyxl").iloc[5:].to_excel(workbook, index=False)
    assert cli("prepare", *words, "--out", tmp_path / "out", "--quiet").status == 0
    assert (
        "| race | race: the patient is not in the table of demographics" in (tmp_path / "out" / "flow.md").read_text()
    )
    kept = Cohort.from_parquet(tmp_path / "out" / "cohort.parquet").frame["patient_id"]
    assert not set(kept) & {f"patient{number:05d}" for number in range(1, 6)}
    assert len(kept) == 43


def test_images_that_look_the_same_in_two_splits_are_listed(tmp_path: Path, cli: Callable[..., Done]) -> None:
    words = ("prepare", *table(tmp_path), "--split", "side", "--out", tmp_path / "out", "--leaks")
    assert cli(*words).status == 0
    assert len(pd.read_csv(tmp_path / "out" / "near_duplicates.csv")) == 0
    # 12 is in the test split, 1 in training.
    trees.picture(1).resize((50, 60)).save(tmp_path / "files" / "12.png")
    done = cli(*words)
    assert done.status == 0
    assert "Warning: 1 pairs" in done.err
    pairs = pd.read_csv(tmp_path / "out" / "near_duplicates.csv")
    assert pairs.loc[0, ["first", "second", "first_split", "second_split"]].tolist() == [
        *("files/1.png", "files/12.png", "train", "test")
    ]
    described = cli("describe", tmp_path / "out" / "cohort.parquet", "--leaks", "--quiet")
    assert "files/1.png (train) and files/12.png (test) differ in" in described.out
    plain = cli("describe", tmp_path / "out" / "cohort.parquet", "--leaks", "--json", "--out", tmp_path / "tables")
    content = json.loads(plain.out)
    assert [pair["second"] for pair in content["near_duplicates"]] == ["files/12.png"]
    assert {one["variable"] for one in content["associations"]} == {"edema"}
    assert (tmp_path / "tables" / "associations.png").is_file()


def test_a_description_names_findings_missingness_view_and_age(tmp_path: Path, cli: Callable[..., Done]) -> None:
    words = ("prepare", *chexpert(tmp_path), "--blank", "ignore", "--out", tmp_path / "out", "--quiet")
    assert cli(*words).status == 0
    described = cli("describe", tmp_path / "out" / "cohort.parquet")
    assert described.status == 0
    for start in ("| race | Edema | patient |", "| race | Edema missing |", "| sex | view |", "| sex | female | 24 |"):
        assert start in described.out


@pytest.fixture
def cached(world: Path, tmp_path: Path, cli: Callable[..., Done]) -> Path:
    """The small world, copied, prepared with a cache; its configuration names the prepared cohort."""
    shutil.copytree(world / "world", tmp_path / "world")
    shutil.copy(world / "model.ts", tmp_path / "model.ts")
    done = cli(
        *("prepare", "table", tmp_path / "world" / "phantom.csv", "--images", tmp_path / "world"),
        *("--attribute", "sex", "--label", "cardiomegaly", "--covariate", "view", "--out", tmp_path / "cohort"),
        *("--cache", "32", "--quiet"),
    )
    assert done.status == 0, done.err
    configure(tmp_path / "audit.yaml")
    return tmp_path


def configure(file: Path, **changes: object) -> Path:
    plain = {key: value for key, value in CONFIG["cohort"].items() if key != "images"}
    cohort = {**plain, "table": "cohort/cohort.parquet", **changes}
    file.write_text(yaml.safe_dump({**CONFIG, "cohort": cohort}))
    return file


def test_training_reads_the_cache_and_nothing_else(cached: Path, cli: Callable[..., Done]) -> None:
    # Without a single image file left, only the cache can have been read.
    for image in (cached / "world").rglob("*.png"):
        image.unlink()
    done = cli("audit", cached / "audit.yaml", "--out", cached / "run", "--until", "fit")
    assert done.status == 0, done.err
    assert "pixels up to 32 x 32 from" in done.err
    assert (cached / "run" / "generator" / "config.json").is_file()
    files = configure(cached / "files.yaml", cache=False)
    refused = cli("audit", files, "--out", cached / "other", "--until", "fit", "--quiet")
    assert refused.status == 2
    assert "is not there" in refused.err
    # The generator knows whom it has seen: another cohort with its training patients in the test split is refused.
    turned = Cohort.from_parquet(cached / "cohort" / "cohort.parquet")
    swapped = turned.frame["split"].map({"train": "test", "test": "train", "validation": "validation"})
    turned.frame["split"] = swapped
    turned.to_parquet(cached / "cohort" / "turned.parquet")
    words = ("--generator", cached / "run" / "generator", "--quiet")
    assert cli("describe", cached / "cohort" / "cohort.parquet", *words).status == 0
    seen = cli("describe", cached / "cohort" / "turned.parquet", *words)
    assert seen.status == 2
    assert "test patients were in the training set of" in seen.err


def test_a_stale_or_small_cache_stops_an_audit(cached: Path, cli: Callable[..., Done]) -> None:
    larger = configure(cached / "larger.yaml")
    content = yaml.safe_load(larger.read_text())
    content["generator"]["size"] = 64
    larger.write_text(yaml.safe_dump(content))
    done = cli("audit", larger, "--out", cached / "larger", "--until", "fit", "--quiet")
    assert done.status == 2
    assert "prepare the cohort with --cache 64" in done.err
    first = Cohort.from_parquet(cached / "cohort" / "cohort.parquet").frame["path"].iloc[0]
    trees.picture(0).save(cached / "world" / first)
    done = cli("audit", cached / "audit.yaml", "--out", cached / "run", "--until", "cohort", "--quiet")
    assert done.status == 2
    assert "1 of 200 images were changed after the cache" in done.err
    assert not (cached / "run" / "cohort.parquet").exists()


def test_how_rectangles_become_squares_reaches_the_cohort_of_an_audit(cached: Path, cli: Callable[..., Done]) -> None:
    table = configure(cached / "table.yaml", table="world/phantom.csv", images="world", fit="crop")
    assert cli("audit", table, "--out", cached / "run", "--until", "cohort", "--quiet").status == 0
    assert Cohort.from_parquet(cached / "run" / "cohort.parquet").fit == "crop"
    prepared = configure(cached / "prepared.yaml", fit="crop")
    done = cli("audit", prepared, "--out", cached / "other", "--until", "cohort", "--quiet")
    assert done.status == 2
    assert "cohort.fit cannot be set for the prepared cohort" in done.err


def test_a_gz_that_is_none_is_read_as_the_text_that_it_is(tmp_path: Path, cli: Callable[..., Done]) -> None:
    words = mimic(tmp_path)
    file = tmp_path / "mimiciv" / "hosp" / "patients.csv.gz"
    assert cli("prepare", *words, "--out", tmp_path / "gz", "--quiet").status == 0
    file.write_bytes(gzip.decompress(file.read_bytes()))
    assert cli("prepare", *words, "--out", tmp_path / "text", "--quiet").status == 0
    packed, plain = (Cohort.from_parquet(tmp_path / name / "cohort.parquet").frame for name in ("gz", "text"))
    pd.testing.assert_frame_equal(packed, plain)


def test_a_cached_cohort_has_the_cache_as_its_source(tmp_path: Path, cli: Callable[..., Done]) -> None:
    words = ("prepare", *nih(tmp_path), "--out", tmp_path / "out", "--quiet")
    assert cli(*words).status == 0
    assert Cohort.from_parquet(tmp_path / "out" / "cohort.parquet").source is None
    plain = Cohort.from_parquet(tmp_path / "out" / "cohort.parquet").pixels(size=24)
    assert cli(*words, "--cache", "24").status == 0
    cohort = Cohort.from_parquet(tmp_path / "out" / "cohort.parquet")
    assert isinstance(cohort.source, CachePixels)
    np.testing.assert_array_equal(cohort.pixels(size=24), plain)
