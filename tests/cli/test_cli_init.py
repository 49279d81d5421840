"""`citlr init`: from a table and a folder of images to a configuration that an audit reads at once."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees
from as_user import ENVIRONMENT, citlr
from pages import ROOT, commands
from PIL import Image

from citlr.config import read_config
from citlr.data.cohort import Cohort

NIH = ROOT.parent / "shared" / "data" / "nih_cxr14_1000_256px"
SEXES = ("--attribute", "Gender", "--label", "edema")


def study(root: Path, patients: int = 160) -> Path:
    """A study's own table, with its own names, and pictures of 40 x 48 pixels."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(patients):
        file = root / "scans" / f"{patient}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (48, 40), dtype=np.uint8)).save(file)
        row = {"file": file.name, "Subject ID": f"s{patient}", "Gender": "FM"[patient % 2], "Age": 20 + patient % 60}
        row.update({"edema": patient // 2 % 2, "effusion": (-1, 0, 1)[patient % 3], "scanner": "AB"[patient // 3 % 2]})
        row.update({"projection": ("AP", "PA")[patient // 5 % 2], "Radiologist": f"Dr. No. {patient}", "notes": ""})
        rows.append({**row, "part": ("train", "val", "test")[patient // 4 % 3]})
    pd.DataFrame(rows).to_csv(root / "study.csv", index=False)
    return root / "study.csv"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    study(tmp_path)
    return tmp_path


def init(home: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return citlr("init", "study.csv", "--images", "scans", *words, cwd=home)


def test_a_function_of_a_file_is_found_from_the_folder_of_the_configuration(home: Path) -> None:
    (home / "model.py").write_text("def make(): ...\n")
    (home / "audits").mkdir()
    done = init(home, *SEXES, "--model", "model.py:make", "--out", "audits/audit.yaml")
    assert done.returncode == 0, done.stderr
    (model,) = read_config(home / "audits" / "audit.yaml").models.values()
    assert model.source == f"{home / 'model.py'}:make"


def test_images_are_looked_at_where_paths_are_written_as_on_windows(home: Path) -> None:
    table = pd.read_csv(home / "study.csv")
    table.assign(file="scans\\" + table["file"]).to_csv(home / "study.csv", index=False)
    done = citlr("init", "study.csv", "--images", ".", *SEXES, cwd=home)
    assert done.returncode == 0, done.stderr
    assert "40 x 48 pixels; PNG, grey, 8 bits (40)" in (home / "audit.yaml").read_text()


def test_the_proposal_is_read_and_leads_into_an_audit(home: Path) -> None:
    done = init(home, *SEXES)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "audit.yaml\n")
    cohort = read_config(home / "audit.yaml").cohort
    assert (cohort.table, cohort.images) == (home / "study.csv", home / "scans")
    assert cohort.columns == {"path": "file", "patient_id": "Subject ID", "view": "projection"}
    assert (cohort.attribute, cohort.labels, cohort.split, cohort.fit) == ("Gender", ("edema",), "part", "pad")
    assert read_config(home / "audit.yaml").generator.hold == ("view", "edema")
    text = (home / "audit.yaml").read_text()
    assert "table: study.csv" in text
    assert "160 of 160 files looked for are there" in text
    assert "40 x 48 pixels; PNG, grey, 8 bits" in text
    assert "F 80 images of 80 patients (26 of them in test)" in text
    assert "Few values (to hold one: covariates and generator.hold): scanner." in text
    assert "Not understood: Radiologist." in text
    assert "Blank, or one value: notes." in text
    assert "Dr. No" not in text
    done = citlr("audit", "audit.yaml", "--out", "run", "--until", "cohort", "--quiet", cwd=home)
    assert done.returncode == 0, done.stderr
    assert Cohort.from_parquet(home / "run" / "cohort.parquet").levels("Gender") == ("F", "M")


def test_colour_is_what_is_seen_and_not_how_it_is_saved(home: Path) -> None:
    """Radiographs are often saved with three channels, with a coloured mark on them."""
    for number, file in enumerate(sorted((home / "scans").iterdir())):
        picture = np.asarray(Image.open(file).convert("RGB")).copy()
        picture[:4, :4] = (200, 30, 30)
        if number % 4 == 0:
            picture[24:] //= np.asarray([1, 2, 3], np.uint8)
        Image.fromarray(picture).save(file)
    assert init(home, *SEXES).returncode == 0
    text = flat((home / "audit.yaml").read_text())
    assert "channels:" not in text.replace("channels: 3 would read red", "")
    assert "10 of 40 images are in colour and are read in grey; channels: 3 would read red" in text
    assert "PNG, RGB, all grey (30), PNG, RGB in colour (10)" in text


def test_edits_are_proposed_for_few_images_in_grey(home: Path) -> None:
    assert init(home, *SEXES).returncode == 0
    assert read_config(home / "audit.yaml").generator.kind == "edits"
    assert "Of fewer than 2000 images it carries more" in flat((home / "audit.yaml").read_text())
    # Many rows: each image under thirteen names of its own.
    table = pd.read_csv(home / "study.csv")
    copies = [table]
    for copy in range(1, 13):
        for number in range(160):
            os.link(home / "scans" / f"{number}.png", home / "scans" / f"{number}-{copy}.png")
        copies.append(table.assign(file=[name.replace(".png", f"-{copy}.png") for name in table["file"]]))
    pd.concat(copies).to_csv(home / "study.csv", index=False)
    assert init(home, *SEXES, "--force").returncode == 0
    assert read_config(home / "audit.yaml").generator.kind == "dldm"


def test_edits_are_not_proposed_for_images_in_colour(home: Path) -> None:
    for file in sorted((home / "scans").iterdir()):
        picture = np.asarray(Image.open(file).convert("RGB")).copy()
        Image.fromarray(picture // np.asarray([1, 2, 3], np.uint8)).save(file)
    assert init(home, *SEXES).returncode == 0
    found = read_config(home / "audit.yaml")
    assert (found.generator.kind, found.cohort.channels) == ("dldm", 3)


def test_without_a_model_it_is_a_closed_one_with_its_three_commands(home: Path) -> None:
    assert init(home, *SEXES).returncode == 0
    (model,) = read_config(home / "audit.yaml").models.values()
    assert (model.kind, model.source, model.labels) == ("closed", None, ("edema",))
    text = (home / "audit.yaml").read_text()
    for command in ("--until quality", "citlr export run", "citlr ingest run answers.csv"):
        assert command in text


def test_a_model_is_named_by_its_path(home: Path) -> None:
    (home / "model.ts").write_bytes(b"")
    assert init(home, *SEXES, "--model", "model.ts").returncode == 0
    (model,) = read_config(home / "audit.yaml").models.values()
    assert (model.source, model.labels) == (str(home / "model.ts"), ("edema",))
    lost = init(home, *SEXES, "--model", "modell.ts", "--out", "b.yaml")
    assert (lost.returncode, (home / "b.yaml").exists()) == (2, False)
    assert "--model modell.ts" in lost.stderr


def test_no_attribute_and_no_label_is_guessed(home: Path) -> None:
    done = init(home)
    assert (done.returncode, (home / "audit.yaml").exists()) == (2, False)
    assert "--attribute NAME, one of Gender (F 80, M 80); Age (ages from 20 to 79); scanner (A 81, B 79)" in done.stderr
    done = init(home, "--attribute", "Gender")
    assert (done.returncode, (home / "audit.yaml").exists()) == (2, False)
    assert "--label NAME (repeatable), one of edema (present in 80 of 160 rows); effusion" in done.stderr


def test_an_age_is_compared_in_groups_and_an_uncertain_label_is_named(home: Path) -> None:
    study(home, patients=360)
    assert init(home, "--attribute", "Age", "--label", "effusion").returncode == 0
    cohort = read_config(home / "audit.yaml").cohort
    assert cohort.bins == {"Age": (40.0, 60.0)}
    assert cohort.uncertain == "ignore"
    assert "effusion (120 rows)" in (home / "audit.yaml").read_text()


def test_nothing_is_overwritten_without_being_told(home: Path) -> None:
    (home / "audit.yaml").write_text("mine")
    done = init(home, *SEXES)
    assert (done.returncode, (home / "audit.yaml").read_text()) == (2, "mine")
    assert "--force" in done.stderr
    assert init(home, *SEXES, "--force").returncode == 0


def test_a_split_that_no_audit_can_use_is_not_used(home: Path) -> None:
    frame = pd.read_csv(home / "study.csv")
    frame.assign(**{"Subject ID": frame.index // 3}).to_csv(home / "study.csv", index=False)
    done = init(home, *SEXES, "--attribute", "scanner")
    assert read_config(home / "audit.yaml").cohort.split is None, done.stderr
    assert "one patient has images on two sides" in " ".join((home / "audit.yaml").read_text().split())


def test_what_an_audit_would_stop_at_is_told_at_once(tmp_path: Path) -> None:
    study(tmp_path, patients=30)
    done = init(tmp_path, *SEXES)
    assert done.returncode == 2
    assert "audit.yaml is written, and an audit would stop at this: Too few patients" in done.stderr
    assert read_config(tmp_path / "audit.yaml").cohort.attribute == "Gender"


def test_names_that_yaml_would_read_as_something_else(home: Path) -> None:
    names = {
        "file": "yes",
        "Subject ID": "Patient: ID",
        "Gender": "#sex, 'as told'",
        "edema": "null",
        "projection": "1e3",
    }
    frame = pd.read_csv(home / "study.csv").rename(columns=names).rename(columns={"part": "{split}"})
    (home / "a: b").mkdir()
    frame.to_csv(home / "a: b" / "-.csv", index=False)
    maps = ("--map", "patient_id=Patient: ID")
    done = citlr(
        *("init", "a: b/-.csv", "--images", "scans", "--attribute", names["Gender"], "--label", "null", *maps), cwd=home
    )
    assert done.returncode == 0, done.stderr
    cohort = read_config(home / "audit.yaml").cohort
    assert cohort.table == home / "a: b" / "-.csv"
    assert cohort.columns == {"path": "yes", "patient_id": "Patient: ID", "view": "1e3"}
    assert (cohort.attribute, cohort.labels, cohort.split) == (names["Gender"], ("null",), "{split}")


def change(**columns: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(**columns)


BAD: list[tuple[Callable[[pd.DataFrame], pd.DataFrame], tuple[str, ...], str]] = [
    (change(), ("--images", "nowhere"), "--images nowhere is no folder"),
    (change(), ("--images", "."), "no column"),
    (change(), ("--attribute", "gendr"), "Did you mean 'Gender'?"),
    (change(), ("--label", "edma"), "Did you mean 'edema'?"),
    (change(), ("--map", "patient=x"), "Did you mean 'patient_id'?"),
    (change(), ("--map", "path=fil"), "Did you mean 'file'?"),
    (lambda frame: frame.drop(columns="Subject ID"), (), "--map patient_id=NAME"),
    (lambda frame: frame.drop(columns=["edema", "effusion"]).assign(x=1), (), "'edema' is no column"),
    (lambda frame: frame.iloc[:0], (), "no rows"),
    (lambda frame: frame.assign(file="/data/" + frame["file"]), (), "give with --images the folder"),
    (lambda frame: frame.assign(file="scans/" + frame["file"]), (), "give --images "),
    (lambda frame: frame.drop(columns="file"), (), "names files in scans"),
    (lambda frame: frame.assign(copy=frame["file"]), (), "which column names the image: give --map path=NAME"),
]


@pytest.mark.parametrize(("spoil", "words", "sentence"), BAD, ids=[sentence for _, _, sentence in BAD])
def test_bad_input_is_one_sentence(
    home: Path, spoil: Callable[[pd.DataFrame], pd.DataFrame], words: tuple[str, ...], sentence: str
) -> None:
    spoil(pd.read_csv(home / "study.csv")).to_csv(home / "study.csv", index=False)
    done = init(home, *SEXES, *words)
    assert done.returncode == 2
    assert sentence.lower() in done.stderr.lower()
    assert len(done.stderr.splitlines()) == 1
    assert not (home / "audit.yaml").exists()


@pytest.mark.parametrize(
    ("tree", "table", "name"),
    [
        (trees.chexpert, "CheXpert-v1.0-small/train.csv", "chexpert"),
        (lambda root: trees.mimic(root), "mimic-cxr-jpg/mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr"),
        (trees.nih, "Data_Entry_2017_v2020.csv", "nih"),
        (trees.padchest, "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", "padchest"),
    ],
    ids=["chexpert", "mimic-cxr", "nih", "padchest"],
)
def test_a_public_data_set_is_recognised(tmp_path: Path, tree: Callable[[Path], object], table: str, name: str) -> None:
    tree(tmp_path)
    done = citlr("init", table, "--images", ".", cwd=tmp_path)
    assert done.returncode == 2
    assert f"citlr prepare {name} " in done.stderr


def test_a_prepared_cohort_goes_on_from_there(home: Path) -> None:
    maps = ("--map", "path=file", "--map", "patient_id=Subject ID", "--map", "view=projection", "--split", "part")
    words = ("--attribute", "Gender", "--label", "edema", "--label", "effusion", "--uncertain", "ignore")
    done = citlr(
        *("prepare", "table", "study.csv", "--images", "scans", *words, "--covariate", "view", *maps, "--quiet"),
        cwd=home,
    )
    assert done.returncode == 0, done.stderr
    done = citlr("init", "cohort/cohort.parquet", *SEXES, cwd=home)
    assert done.returncode == 0, done.stderr
    cohort = read_config(home / "audit.yaml").cohort
    assert (cohort.images, cohort.columns, cohort.split) == (None, {}, None)
    assert (cohort.attribute, cohort.labels, cohort.covariates) == ("Gender", ("edema",), ("view",))
    assert "26 of them in test" in (home / "audit.yaml").read_text()


def at_terminal(home: Path, keys: bytes) -> tuple[int, str, str]:
    """Type at a terminal; give the exit status, standard output, and what the terminal showed."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "citlr", "init", "study.csv", "--images", "scans"]
    with subprocess.Popen(
        words, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, cwd=home, env={**os.environ, **ENVIRONMENT}
    ) as process:
        os.close(theirs)
        os.write(ours, keys)
        said = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 65536):
                said += part
        printed = process.communicate(timeout=120)[0]
    os.close(ours)
    return process.returncode, printed.decode(), said.decode()


def test_at_a_terminal_it_asks(home: Path) -> None:
    status, printed, said = at_terminal(home, b"sex\nGender\n2, edema\nlost.ts\n\n")
    assert (status, printed) == (0, "audit.yaml\n"), said
    assert "1  Gender  F 80, M 80" in said
    assert "'sex' is none of them." in said
    assert "lost.ts is neither a file" in said
    config = read_config(home / "audit.yaml")
    assert (config.cohort.attribute, config.cohort.labels) == ("Gender", ("effusion", "edema"))
    assert next(iter(config.models.values())).kind == "closed"


def test_answers_that_end_early_write_nothing(home: Path) -> None:
    status, printed, said = at_terminal(home, b"Gender\n\x04")
    assert (status, printed, (home / "audit.yaml").exists()) == (2, "", False)
    assert "give --attribute, --label and --model" in said


def flat(text: str) -> str:
    """Leave out where lines break."""
    return " ".join(text.replace("#", " ").split())


def test_the_commands_of_the_page_run_as_written(home: Path) -> None:
    """All but the last, which trains a generator."""
    *short, whole = commands("start.md")
    for words in short:
        done = citlr(*words, cwd=home)
        assert done.returncode == 0, done.stderr
    assert (home / "run" / "cohort.parquet").is_file()
    page = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert flat(shown) in flat((home / "audit.yaml").read_text())
    assert whole == ["audit", "audit.yaml", "--out", "run"]


def test_real_radiographs(tmp_path: Path) -> None:
    if not NIH.is_dir():
        pytest.skip(f"the NIH subset is not at {NIH}")
    words = ("--images", NIH, "--attribute", "sex", "--label", "pneumonia")
    done = citlr("init", NIH / "metadata.csv", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cohort = read_config(tmp_path / "audit.yaml").cohort
    assert cohort.columns == {"path": "image", "patient_id": "patient_id", "view": "view"}
    assert cohort.split == "split"
