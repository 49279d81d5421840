"""Images in colour: which files are read as red, green and blue, the cache, PNG shards, and the data sets in colour."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import colours
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from citlr.cli.main import main
from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import CounterfactualSet, Plan, write_counterfactuals
from citlr.data.images import decode_png, encode_png, read_image
from citlr.data.pixels.cache import write_cache
from citlr.data.pixels.source import FolderPixels
from citlr.data.reading import read_cohort
from citlr.data.redrawn import read_redrawn
from citlr.data.sources.torch_dataset import read_dataset
from citlr.errors import InputError


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colours.ham10000(tmp_path_factory.mktemp("ham"), 60)


def status(*words: str | Path) -> int:
    """Run the command line in this process; its exit status."""
    kept, sys.argv = sys.argv, ["citlr", *map(str, words), "--quiet"]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = kept
    return 0


def prepared(*words: str | Path) -> Cohort:
    """Run `citlr prepare` and read what it wrote; the last word is its folder."""
    assert status("prepare", *words[:-1], "--out", words[-1]) == 0
    return Cohort.from_parquet(Path(words[-1]) / "cohort.parquet")


def refusal(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert status(*words) == 2
    return capsys.readouterr().err


def rgb(tmp_path: Path) -> np.ndarray:
    return np.random.default_rng(0).integers(20, 230, (8, 6, 3), dtype=np.uint8)


def test_red_green_and_blue_come_out_as_they_are_stored_and_upright(tmp_path: Path) -> None:
    pixels = rgb(tmp_path)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png", channels=3)
    assert found.shape == (3, 8, 6)
    assert (np.round(found.transpose(1, 2, 0) * 255) == pixels).all()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "b.png", exif=turned)
    assert (read_image(tmp_path / "b.png", channels=3) == found.transpose(0, 2, 1)[:, :, ::-1]).all()
    padded = read_image(tmp_path / "a.png", size=8, channels=3)
    assert padded.shape == (3, 8, 8)
    assert not padded[:, :, [0, -1]].any()
    assert read_image(tmp_path / "a.png").shape == (1, 8, 6)


def test_other_pictures_among_rgb_are_converted_by_rule_or_refused_by_name(tmp_path: Path) -> None:
    image = Image.fromarray(rgb(tmp_path))
    clear = image.convert("RGBA")
    clear.putpixel((0, 0), (200, 200, 200, 0))
    for name, picture in {"opaque": image.convert("RGBA"), "clear": clear, "grey": image.convert("L")}.items():
        picture.save(tmp_path / f"{name}.png")
    source = FolderPixels(tmp_path, channels=3)
    assert source.see("opaque.png").remarks == ()
    seen = source.see("clear.png")
    assert "transparency" in seen.remarks[0]
    assert not seen.image[:, 0, 0].any()
    seen = source.see("grey.png")
    assert "three equal channels" in seen.remarks[0]
    assert (seen.image == seen.image[:1]).all()
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.full((8, 6), 40_000, np.uint16)).save(tmp_path / "deep.png")
    for name, said in {"cmyk.jpg": r"cmyk.jpg is in CMYK, not in RGB", "deep.png": "deep.png has 16 bits"}.items():
        with pytest.raises(InputError, match=said):
            source.see(name)
    with pytest.raises(InputError, match=r"channels=2 is not known: give 1 \(grey\) or 3"):
        read_image(tmp_path / "grey.png", channels=2)


def test_a_png_of_colour_is_off_by_half_a_step_of_256(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((3, 5, 7)).astype(np.float32)
    again = decode_png(encode_png(image), channels=3)
    assert again.shape == image.shape
    assert np.abs(again - image).max() <= 0.5 / 255 + 1e-6


def test_shards_of_colour_come_back_and_plans_of_grey_do_not_speak_of_channels(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).random((2, 2, 2, 3, 8, 8)).astype(np.float32)
    plan = Plan("sex", ("f", "m"), 2, ("a", "b"), ("p", "q"), ("f", "m"), 2, 8, True, "key", channels=3)
    write_counterfactuals(tmp_path / "colour", plan, lambda rows: drawn[rows.start : rows.stop])
    opened = CounterfactualSet.open(tmp_path / "colour")
    assert opened.plan == plan
    assert np.abs(opened.read(0).drawn - drawn).max() < 0.002
    write_counterfactuals(tmp_path / "grey", replace(plan, channels=1), lambda rows: drawn[rows][..., :1, :, :])
    assert "channels" not in (tmp_path / "grey" / "plan.json").read_text()
    assert CounterfactualSet.open(tmp_path / "grey").plan.channels == 1


def test_a_cache_of_colour_gives_what_the_files_give(tree: Path, tmp_path: Path) -> None:
    cohort = prepared("ham10000", tree, "--label", "mel", tmp_path / "out")
    assert cohort.channels == 3
    assert "images in colour" in repr(cohort)
    cached = write_cache(cohort, tmp_path / "cache", size=16)
    few = np.arange(5)
    assert cached.pixels(few, size=16).shape == (5, 3, 16, 16)
    assert np.abs(cached.pixels(few, size=16) - cohort.pixels(few, size=16)).max() <= 0.5 / 255 + 1e-6
    assert cached.pixels(few, size=8).shape == (5, 3, 8, 8)
    sent = pickle.loads(pickle.dumps(cached))
    assert sent.source == cached.source
    assert (sent.pixels(few, size=16) == cached.pixels(few, size=16)).all()
    grey = replace(cohort, channels=1)
    assert grey.pixels(few, size=16).shape == (5, 1, 16, 16)
    assert grey.fingerprint() != cohort.fingerprint()
    with pytest.raises(InputError, match=r"have 3 channel\(s\) and the cohort is to have 1"):
        replace(cached, channels=1)
    grey.to_parquet(tmp_path / "grey.parquet")
    assert b'"channels"' not in (tmp_path / "grey.parquet").read_bytes()


def test_ham10000_keeps_lesions_together_and_says_that_it_names_no_patient(tree: Path, tmp_path: Path) -> None:
    cohort = prepared("ham10000", tree, "--label", "mel", "--label", "nv", tmp_path / "out")
    frame = cohort.frame
    assert (cohort.attributes, cohort.labels, cohort.covariates) == (("sex",), ("mel", "nv"), ("localization", "age"))
    assert len(frame) == 65
    assert frame.groupby("patient_id")["split"].nunique().max() == 1
    assert set(frame["sex"]) == {"female", "male"}
    assert frame["age"].isna().sum() == 1
    assert (frame["mel"] + frame["nv"]).max() == 1
    assert frame["path"].str.match(r"HAM10000_images_part_[12]/ISIC_\d{7}\.jpg").all()
    said = [step.reason for step in cohort.flow]
    assert any("no patient is named" in one for one in said)
    assert any("sex: not stated" in one for one in said)


def test_the_tabbed_table_of_ham10000_is_the_same(tmp_path: Path) -> None:
    colours.ham10000(tmp_path, 24, "HAM10000_metadata.tab")
    assert len(prepared("ham10000", tmp_path, tmp_path / "out")) == 26


def test_the_table_of_ham10000_is_read_without_a_suffix_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colours.ham10000(tmp_path, 24)
    table = tmp_path / "HAM10000_metadata"
    (tmp_path / "HAM10000_metadata.csv").rename(table)
    assert len(prepared("ham10000", tmp_path, tmp_path / "out")) == 26
    pd.read_csv(table).to_parquet(table)
    told = refusal(capsys, "prepare", "ham10000", tmp_path, "--out", tmp_path / "b")
    assert "is a parquet file: name it .parquet" in told


def test_ages_of_one_among_grown_up_people_are_told(tmp_path: Path) -> None:
    colours.odir5k(tmp_path, kaggle=True)
    table = pd.read_csv(tmp_path / "full_df.csv", dtype=str)
    for age, told in (("1", True), ("9", False)):
        table.loc[table["ID"].isin(["3", "5"]), "Patient Age"] = age
        table.to_csv(tmp_path / "full_df.csv", index=False)
        flow = prepared("odir5k", tmp_path, "--label", "C", tmp_path / age).flow
        assert any("'age' is 1 in 4 images, which is taken as a number" in step.reason for step in flow) == told


@pytest.mark.parametrize("kaggle", [False, True])
def test_odir_is_an_eye_a_row_with_its_laterality(tmp_path: Path, kaggle: bool) -> None:
    colours.odir5k(tmp_path, kaggle=kaggle)
    cohort = prepared("odir5k", tmp_path, "--label", "C", "--label", "lens dust", tmp_path / "out")
    frame = cohort.frame
    assert cohort.covariates == ("laterality", "age")
    assert frame["laterality"].value_counts().to_dict() == {"right": 48, "left": 47}
    assert frame.groupby("patient_id")["split"].nunique().max() == 1
    # Of the patient, the fellow eye has it, too; a keyword is of the eye.
    assert frame.groupby("patient_id")["C"].nunique().max() == 1
    assert set(frame.loc[frame["lens dust"] == 1, "laterality"]) == {"right"}
    assert any("C is recorded of the patient" in step.reason for step in cohort.flow)
    assert any("low image quality" in step.reason for step in cohort.flow)


def test_odir_leaves_out_eyes_of_no_patient(tmp_path: Path) -> None:
    colours.odir5k(tmp_path, kaggle=True)
    table = pd.read_csv(tmp_path / "full_df.csv", dtype=str)
    table.loc[table["ID"].isin(["3", "5"]), "ID"] = ""
    table.to_csv(tmp_path / "full_df.csv", index=False)
    cohort = prepared("odir5k", tmp_path, "--label", "C", tmp_path / "out")
    assert [(step.reason, step.excluded_images) for step in cohort.flow if step.step == "patient"] == [
        ("no patient", 4)
    ]


def test_fitzpatrick17k_studies_the_skin_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colours.fitzpatrick17k(tmp_path)
    cohort = prepared("fitzpatrick17k", tmp_path, tmp_path / "out")
    assert cohort.levels("skin_group") == ("I-II", "III-IV", "V-VI")
    assert (cohort.labels, len(cohort)) == (("malignant",), 58)
    assert any("every image is taken to be of a patient" in step.reason for step in cohort.flow)
    six = prepared("fitzpatrick17k", tmp_path, "--attribute", "skin_type", tmp_path / "six")
    assert six.levels("skin_type") == ("I", "II", "III", "IV", "V", "VI")
    said = refusal(capsys, "prepare", "fitzpatrick17k", tmp_path, "--attribute", "sex", "--out", tmp_path / "no")
    assert "Fitzpatrick17k does not record 'sex'" in said
    table = pd.read_csv(tmp_path / "fitzpatrick17k.csv")
    table.loc[0, "three_partition_label"] = "unheard of"
    table.to_csv(tmp_path / "fitzpatrick17k.csv", index=False)
    said = refusal(capsys, "prepare", "fitzpatrick17k", tmp_path, "--out", tmp_path / "no")
    assert "classes that it is not known to have: unheard of" in said


def test_a_table_in_colour_names_the_picture_that_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        male, spot = colours.sides(number)
        mode, name = ("CMYK", f"{number}.jpg") if number == 3 else ("RGB", f"{number}.png")
        colours.save(tmp_path / name, colours.skin(number, male=male, spot=spot), mode)
    paths = [f"{number}.jpg" if number == 3 else f"{number}.png" for number in range(8)]
    table = pd.DataFrame({"path": paths, "patient_id": range(8), "sex": ["f", "m"] * 4, "mel": [0, 0, 1, 1] * 2})
    table.to_csv(tmp_path / "table.csv", index=False)
    words = ("prepare", "table", tmp_path / "table.csv", "--attribute", "sex", "--label", "mel")
    said = refusal(capsys, *words, "--channels", "3", "--out", tmp_path / "no")
    assert "3.jpg is in CMYK, not in RGB" in said
    assert "channels=4 is not known" in refusal(capsys, *words, "--channels", "4", "--out", tmp_path / "no")


def test_redrawn_images_of_another_kind_than_their_originals_are_named(tree: Path, tmp_path: Path) -> None:
    cohort = prepared("ham10000", tree, "--label", "mel", tmp_path / "out").take(np.arange(1))
    rows = []
    for level in ("female", "male"):
        for draw in range(2):
            name = f"{level}{draw}.png"
            mode = "RGBA" if (level, draw) == ("male", 1) else "RGB"
            colours.save(tmp_path / name, colours.skin(0, male=level == "male", spot=False), mode)
            rows.append((cohort.frame["image_id"][0], level, draw, name))
    pd.DataFrame(rows, columns=["image_id", "level", "draw", "path"]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match=r"male1.png' is in RGBA, and the cohort is in colour"):
        read_redrawn(tmp_path / "t.csv", cohort, attribute="sex", size=colours.SIDE)


def test_a_data_set_object_gives_colour_with_its_channels_first_or_last() -> None:
    images = [colours.skin(number, male=number % 2 == 1, spot=number % 4 > 1) for number in range(80)]
    facts = [{"patient_id": k, "sex": "fm"[k % 2], "mel": (k // 2) % 2} for k in range(80)]
    last = [((255 * one.transpose(1, 2, 0)).astype(np.uint8), two) for one, two in zip(images, facts, strict=True)]
    options = {"attribute": "sex", "labels": ["mel"], "min_patients_per_level": 1}
    first = list(zip(images, facts, strict=True))
    found = [read_dataset(one, channels=3, **options).pixels([0, 1], size=16) for one in (first, last)]
    assert found[0].shape == (2, 3, 16, 16)
    assert np.abs(found[0] - found[1]).max() < 1 / 255
    with pytest.raises(InputError, match="channels=3 reads colour"):
        read_dataset(first, **options).pixels([0], size=16)


def test_a_table_reads_grey_without_being_asked_for_colour(tree: Path) -> None:
    table = pd.read_csv(tree / "HAM10000_metadata.csv").head(40)
    table["path"] = [
        f"HAM10000_images_part_{1 + int(one[-7:]) % 2}/{two}.jpg"
        for one, two in zip(table["lesion_id"], table["image_id"], strict=True)
    ]
    table["mel"] = (table["dx"] == "mel").astype(int)
    columns = {"patient_id": "lesion_id"}
    grey = read_cohort(table, images=tree, attribute="sex", labels=["mel"], columns=columns, min_patients_per_level=0)
    assert grey.channels == 1
    assert any("read as grey" in step.reason for step in grey.flow)
    assert grey.pixels([0], size=8).shape == (1, 1, 8, 8)
