"""A file that was replaced after an audit: whoever reads the verdict is told, until the audit is made again."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_fake import make_result
from typer.testing import CliRunner

from citlr.audit import chain, sources
from citlr.audit.chain import Chain
from citlr.audit.sources import SOURCES
from citlr.audit.stages import cohort_stage
from citlr.cli.app import app
from citlr.config import AuditConfig, CohortConfig
from citlr.console import Narrator
from citlr.run.folder import Run


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of two models and a table; a chain whose test needs no images."""
    (tmp_path / "weights").mkdir()
    for name in ("a.onnx", "net.py", "net.safetensors", "study.csv", "weights/config.json"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(Chain, "_require_same_images", lambda _: None)
    monkeypatch.setattr(Chain, "_inputs", lambda *_: None)
    result = make_result(("edema",))
    monkeypatch.setattr(chain, "audit_responses", lambda _: result)
    return tmp_path


def audited(place: Path, **models: dict[str, Any]) -> Path:
    content = {
        "cohort": {"table": place / "study.csv", "images": place, "attribute": "sex", "labels": ["edema"]},
        "models": models,
    }
    run = Run.open(place / "run", AuditConfig.model_validate(content))
    one = Chain(run, Narrator(quiet=True))
    one.keys |= {"cohort": "a", "quality": "b", **{f"predict.{name}": name for name in models}}
    with run.locked():
        one.test()
    return run.root


def check(place: Path) -> tuple[list[str], str]:
    """Give what is told, and the Markdown."""
    policy, markdown = place / "policy.yaml", place / "summary.md"
    policy.write_text("require_gates: false\nfail_on: []\n")
    done = CliRunner().invoke(app, f"check {place / 'run'} --policy {policy} --markdown {markdown}".split())
    assert (done.exit_code, done.stdout.startswith("passed")) == (0, True), done.output
    return done.stderr.splitlines(), markdown.read_text()


def test_a_file_that_was_replaced_is_told_until_it_is_audited(place: Path) -> None:
    models: dict[str, dict[str, Any]] = {
        "graph": {"source": str(place / "a.onnx")},
        "net": {"source": f"{place / 'net.py'}:make", "weights": place / "net.safetensors"},
        "folder": {"source": str(place / "weights")},
        "named": {"source": "torchvision:resnet18", "labels": ["edema"]},
        "vendor": {"kind": "closed", "labels": ["edema"]},
    }
    audited(place, **models)
    assert check(place)[0] == []
    for name, whose in {
        "a.onnx": "graph",
        "net.safetensors": "net",
        "net.py": "net",
        "weights/config.json": "folder",
    }.items():
        (place / name).write_text("another")
        told, summary = check(place)
        assert told == [line for line in told if line.startswith(f"{whose}: '{Path(name).name}' was changed after")]
        assert (len(told), f"{whose}: '{Path(name).name}' was changed" in summary) == (1, True)
        assert str(place) not in summary
        audited(place, **models)
        assert check(place)[0] == [], "audited again"
    (place / "study.csv").write_text("another")
    assert len(check(place)[0]) == len(models)


def test_an_image_that_was_replaced_is_told_and_one_that_was_only_touched_or_is_gone_is_not(place: Path) -> None:
    """A copy can keep size and time of a file."""
    shapes = np.random.default_rng(0).integers(0, 255, (80, 12, 12), dtype=np.uint8)
    files = [place / f"{number}.png" for number in range(80)]
    for file, pixels in zip(files, shapes, strict=True):
        Image.fromarray(pixels).save(file)
    sexes = ["F", "M"] * 40
    rows = {"patient_id": range(80), "path": [file.name for file in files], "sex": sexes, "edema": [0, 1] * 40}
    pd.DataFrame(rows).to_csv(place / "study.csv", index=False)
    run = Run.open(audited(place, graph={"source": str(place / "a.onnx")}))
    settings = {**run.config.cohort.model_dump(), "min_patients_per_level": 1}
    run.do(cohort_stage(CohortConfig.model_validate(settings), Narrator(quiet=True)))
    files[3].touch()
    assert check(place)[0] == []
    kept, status = files[3].read_bytes(), files[3].stat()
    shutil.copy(files[5], files[3])
    os.utime(files[3], ns=(status.st_atime_ns, status.st_mtime_ns))
    told, _ = check(place)
    assert told[0].startswith("graph: an image of the cohort was changed after this audit")
    files[4].rename(place / "elsewhere.png")
    assert check(place)[0] == []
    (place / "elsewhere.png").rename(files[4])
    files[3].write_bytes(kept)
    assert check(place)[0] == []


def cohort_read(place: Path, images: Path, **models: dict[str, Any]) -> Run:
    """An audit of 80 images that lie in folders, each by a link."""
    store = place / "store"
    shapes = np.random.default_rng(1).integers(0, 255, (80, 12, 12), dtype=np.uint8)
    for folder in (store, images / "one"):
        folder.mkdir(parents=True)
    for number, pixels in enumerate(shapes):
        Image.fromarray(pixels).save(store / f"{number}.png")
        (images / "one" / f"{number}.png").symlink_to(store / f"{number}.png")
    rows = {"patient_id": range(80), "path": [f"one/{number}.png" for number in range(80)]}
    pd.DataFrame(rows | {"sex": ["F", "M"] * 40, "edema": [0, 1] * 40}).to_csv(place / "study.csv", index=False)
    run = Run.open(audited(place, **models))
    settings = {**run.config.cohort.model_dump(), "images": images, "min_patients_per_level": 1}
    run.do(cohort_stage(CohortConfig.model_validate(settings), Narrator(quiet=True)))
    return run


@pytest.mark.parametrize("how", ["link", "folder", "folder above", "link to the folder"])
def test_images_of_before_that_are_put_in_the_place_of_others_are_told(
    place: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The files themselves are as old as they were, and nobody wrote to them."""
    monkeypatch.setattr(sources, "_CLOCK_SECONDS", -3600)  # all that is here counts as old ...
    above = place / "above"
    images = above / "images"
    if how == "link to the folder":
        above.symlink_to(place / "real")
        (place / "real").mkdir()
    run = cohort_read(place, images, one={"source": str(place / "a.onnx")}, two={"source": str(place / "a.onnx")})
    assert check(place)[0] == []
    other = place / "other"
    shutil.copytree(above, other / "above", symlinks=True)
    shutil.copytree(place / "store", other / "store")
    for name in ("3.png", "5.png"):
        (other / "above" / "images" / "one" / name).unlink()
    (other / "above" / "images" / "one" / "3.png").symlink_to(place / "store" / "5.png")
    (other / "above" / "images" / "one" / "5.png").symlink_to(place / "store" / "3.png")
    read: list[Path] = []
    whole = sources.images_fingerprint
    monkeypatch.setattr(sources, "images_fingerprint", lambda folder: read.append(folder) or whole(folder))
    time.sleep(0.05)
    record = run.record("cohort")
    assert record is not None
    begun = datetime.fromisoformat(record.finished).timestamp() - record.seconds
    monkeypatch.setattr(sources, "_CLOCK_SECONDS", begun - time.time())  # ... but for what is done from here on
    (above / "elsewhere.txt").touch()
    (place / "elsewhere.txt").touch()
    assert (check(place)[0], read) == ([], []), "what else is put beside the images is no reason to read them"
    if how == "link":
        (images / "one" / "3.png").unlink()
        (images / "one" / "3.png").symlink_to(place / "store" / "5.png")
    elif how == "folder":
        images.rename(place / "before")
        (other / "above" / "images").rename(images)
    elif how == "folder above":
        above.rename(place / "before")
        (other / "above").rename(above)
    else:
        above.unlink()
        above.symlink_to(other / "above")
    assert [line.split(",")[0] for line in check(place)[0]] == [
        f"{model}: an image of the cohort was changed after this audit" for model in ("one", "two")
    ]
    assert len(read) == 1, "once for all models"


def test_of_images_whose_cache_was_removed_nothing_is_said(place: Path) -> None:
    """As to save room on a disk: what was touched need not be another image."""
    files = [place / "images" / f"{number}.png" for number in range(80)]
    pictures = np.random.default_rng(4).integers(0, 255, (80, 12, 12), dtype=np.uint8)
    files[0].parent.mkdir()
    for file, pixels in zip(files, pictures, strict=True):
        Image.fromarray(pixels).save(file)
    rows = {
        "patient_id": range(80),
        "path": [file.name for file in files],
        "sex": ["F", "M"] * 40,
        "edema": [0, 1] * 40,
    }
    pd.DataFrame(rows).to_csv(place / "rows.csv", index=False)
    words = f"--images {files[0].parent} --attribute sex --label edema --out {place / 'study'} --cache 8"
    done = CliRunner().invoke(app, f"prepare table {place / 'rows.csv'} {words} --quiet".split())
    assert done.exit_code == 0, done.output
    run = Run.open(audited(place, graph={"source": str(place / "a.onnx")}))
    prepared = {"table": place / "study" / "cohort.parquet", "images": None, "min_patients_per_level": 1}
    settings = {**run.config.cohort.model_dump(), **prepared}
    run.do(cohort_stage(CohortConfig.model_validate(settings), Narrator(quiet=True)))
    files[3].touch()
    assert check(place)[0] == []
    cache = next(folder for folder in (place / "study").iterdir() if folder.is_dir())
    cache.rename(place / "removed")
    assert check(place)[0] == []
    (place / "removed").rename(cache)
    shutil.copy(files[5], files[3])
    assert [line.partition(" was")[0] for line in check(place)[0]] == ["graph: an image of the cohort"]


def test_what_python_and_a_file_browser_write_into_a_model_s_folder_is_no_change(place: Path) -> None:
    kept = ("weights/__pycache__/model.cpython-311.pyc", "weights/.DS_Store", "weights/.cache/lock")
    for name in kept:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("as it was")
    audited(place, folder={"source": str(place / "weights")})
    for name in kept:
        (place / name).write_text("as it is now")
    assert check(place)[0] == []
    (place / "weights" / "config.json").write_text("another")
    assert len(check(place)[0]) == 1


def test_of_files_that_are_gone_and_runs_of_before_nothing_is_told(place: Path) -> None:
    run = audited(place, graph={"source": str(place / "a.onnx")})
    (place / "a.onnx").write_text("another")
    assert len(check(place)[0]) == 1
    (place / "a.onnx").unlink()
    assert check(place)[0] == []
    (place / "a.onnx").write_text("another")
    for content in ("", "[]", json.dumps({"graph": 3})):
        (run / "stages" / SOURCES).write_text(content)
        assert check(place)[0] == []
    (run / "stages" / SOURCES).unlink()
    assert check(place)[0] == []
    shutil.rmtree(place / "weights")


def test_a_test_that_finds_all_done_writes_nothing_anew(place: Path) -> None:
    run = audited(place, graph={"source": str(place / "a.onnx")})
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.name != ".lock"}
    audited(place, graph={"source": str(place / "a.onnx")})
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.name != ".lock"} == before
