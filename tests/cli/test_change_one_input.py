"""After a whole run one input is changed: what depends on it is done again, nothing else, as in a fresh run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from as_user import CONFIG
from PIL import Image

from citlr.audit.finished import find, side_answered
from citlr.config import read_config
from citlr.console import Narrator
from citlr.errors import InputError, StateError
from citlr.exchange.deliver import deliver
from citlr.report.publish import run_audit, run_stage
from citlr.run.folder import Run
from citlr.run.stage import code_version

ALL = {"cohort", "fit", "generate", "quality", "predict.cnn", "test.cnn", "report"}
AFTER_GENERATE = {"generate", "quality", "predict.cnn", "test.cnn", "report"}
SETTINGS: dict[str, Any] = {
    **CONFIG,
    # Half the patients of other commands: what is done again does not depend on how many there are.
    "cohort": {**CONFIG["cohort"], "min_patients_per_level": 5},
    # Of the kinds that train, the one that redraws fastest: every audit of these tests is made whole.
    "generator": {
        "kind": "vae",
        "preset": "tiny",
        "size": 32,
        "hold": ["view", "cardiomegaly"],
        "options": {"steps": 8, "channels": [8, 8]},
    },
    "gates": {"probe_steps": 4},
    "controls": {"placebo_images": 6, "replicate_images": 4, "planted": [], "bootstraps": 0},
    "quality": {"cycles": 1},
    "report": {},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with a model, a configuration, and a finished run of it; every test leaves it as it was."""
    from citlr.predictors.export import export_torchscript, make_card
    from citlr.predictors.specs import InputSpec
    from citlr.simulators.phantom.classifiers import analytic_blind
    from citlr.simulators.phantom.world import PhantomWorld

    root = tmp_path_factory.mktemp("one")
    phantom = PhantomWorld(size=32)
    phantom.sample(100, seed=0, images_per_patient=1).write(root / "world", min_patients_per_level=5)
    for name, label in (("model.ts", "cardiomegaly"), ("other.ts", "effusion")):
        model = analytic_blind(phantom, label).eval()
        export_torchscript(model, root / name, make_card(["cardiomegaly"], input=InputSpec(size=32)))
    (root / "audit.yaml").write_text(yaml.safe_dump(SETTINGS))
    audit(root, root / "run")
    return root


def audit(root: Path, run: Path) -> None:
    run_audit(Run.open(run, read_config(root / "audit.yaml")))


FRESH: dict[str, dict[str, Any]] = {}


def fresh(name: str, root: Path, folder: Path) -> dict[str, Any]:
    """Give the artefacts of a run that began after a change, which two tests may ask for."""
    if name not in FRESH:
        audit(root, folder / "fresh")
        assert _provenance(folder / "fresh")["history"] == []
        FRESH[name] = artefacts(folder / "fresh")
    return FRESH[name]


def setting(**sections: dict[str, Any]) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        content = {**SETTINGS, **{name: {**SETTINGS.get(name, {}), **value} for name, value in sections.items()}}
        (root / "audit.yaml").write_text(yaml.safe_dump(content))

    return change


def another_model(root: Path) -> None:
    shutil.copy(root / "other.ts", root / "model.ts")


def another_table(root: Path) -> None:
    """Correct the finding of one test image."""
    file = root / "world" / "phantom.csv"
    table = pd.read_csv(file)
    row = table.index[table["path"] == _path(root, "test")][0]
    table.loc[row, "cardiomegaly"] = 1 - table.loc[row, "cardiomegaly"]
    table.to_csv(file, index=False)


def one_pixel(split: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        file = root / "world" / _path(root, split)
        image = np.asarray(Image.open(file)).copy()
        image[3, 3] = 255 - image[3, 3]
        Image.fromarray(image).save(file)

    return change


def _path(root: Path, split: str) -> str:
    frame = pd.read_parquet(root / "run" / "cohort.parquet")
    return str(frame.loc[frame["split"] == split, "path"].iloc[0])


CHANGES: dict[str, tuple[Callable[[Path], None], set[str], str]] = {
    "model file": (another_model, {"predict.cnn", "test.cnn", "report"}, "model: other content"),
    "table": (another_table, {"cohort", *AFTER_GENERATE}, "table: other content"),
    "pixel of a test image": (one_pixel("test"), {"cohort", *AFTER_GENERATE}, "images: other content"),
    "pixel of a training image": (one_pixel("train"), ALL, "images: other content"),
    "generator option": (
        setting(generator={"options": {**SETTINGS["generator"]["options"], "steps": 9}}),
        ALL - {"cohort"},
        "generator.options.steps: 8 -> 9",
    ),
    "threshold": (
        setting(test={**CONFIG["test"], "threshold": 0.4}),
        {"test.cnn", "report"},
        "test.threshold: 0.5 -> 0.4",
    ),
    "levels": (setting(cohort={"levels": ["male", "female"]}), {"cohort", *AFTER_GENERATE}, "cohort.levels: None -> "),
    "report": (setting(report={"intended_use": "triage"}), {"report"}, ""),
}


@pytest.fixture
def restored(place: Path, tmp_path: Path) -> Iterator[Path]:
    """The world, put back as it was when the test ends."""
    kept = {name: place / name for name in ("world", "model.ts", "audit.yaml")}
    for name, path in kept.items():
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, tmp_path / name)
    yield place
    for name, path in kept.items():
        if path.is_dir():
            shutil.rmtree(path)
            shutil.copytree(tmp_path / name, path)
        else:
            shutil.copy2(tmp_path / name, path)


@pytest.mark.parametrize("name", CHANGES)
def test_what_depends_on_it_is_done_again_and_is_as_in_a_fresh_run(name: str, restored: Path, tmp_path: Path) -> None:
    change, redone, told = CHANGES[name]
    run = tmp_path / "run"
    shutil.copytree(restored / "run", run)
    change(restored)
    audit(restored, run)
    assert {stage for stage in ALL if _record(run, stage) != _record(restored / "run", stage)} == redone
    assert artefacts(run) == fresh(name, restored, tmp_path)
    said = [line for entry in _provenance(run)["history"] for line in entry["changes"]]
    assert any(told in line for line in said) if told else said == []
    page = (run / "audit.html").read_text()
    assert ("changed after a first verdict" in page) == bool(told)


def test_images_that_change_during_a_run_give_no_verdict(restored: Path, tmp_path: Path) -> None:
    """Measured as they were and answered as they are: the next call makes all of it again."""
    change = CHANGES["pixel of a test image"][0]

    class Meddler(Narrator):
        def say(self, message: str) -> None:
            if message.startswith("quality:"):
                change(restored)

    run = Run.open(tmp_path / "run", read_config(restored / "audit.yaml"))
    with pytest.raises(StateError, match="were changed while this run read them"):
        run_audit(run, narrator=Meddler(quiet=True))
    assert run.record("predict.cnn") is not None
    assert run.record("test.cnn") is None
    audit(restored, tmp_path / "run")
    assert artefacts(tmp_path / "run") == fresh("pixel of a test image", restored, tmp_path)


def test_an_upgraded_package_does_all_again(restored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(restored / "run", run)
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99.0" if name == "citlr" else version(name))
    code_version.cache_clear()
    try:
        audit(restored, run)
    finally:
        code_version.cache_clear()
    assert all(_record(run, stage) != _record(restored / "run", stage) for stage in ALL)
    assert any(line.startswith("citlr: ") for entry in _provenance(run)["history"] for line in entry["changes"])


def test_a_second_model_asks_the_first_nothing_again(restored: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(restored / "run", run)
    first = {key: value for key, value in SETTINGS["model"].items() if key != "name"}
    content = {key: value for key, value in SETTINGS.items() if key != "model"}
    content["models"] = {"cnn": first, "other": {**first, "source": "other.ts"}}
    (restored / "audit.yaml").write_text(yaml.safe_dump(content))
    audit(restored, run)
    for stage in ("fit", "generate", "quality", "predict.cnn", "test.cnn"):
        before, after = (json.loads(_record(place, stage)) for place in (restored / "run", run))
        assert (before["key"], before["finished"]) == (after["key"], after["finished"]), stage
    moved = (run / "models" / "cnn" / "responses.parquet").read_bytes()
    assert moved == (restored / "run" / "responses.parquet").read_bytes()
    assert (run / "models" / "other" / "audit.json").is_file()
    assert not (run / "audit.json").exists()


def test_nothing_is_done_again_when_nothing_changed(restored: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(restored / "run", run)
    audit(restored, run)
    assert all(_record(run, stage) == _record(restored / "run", stage) for stage in ALL)


@pytest.fixture
def run(restored: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(restored / "run", tmp_path / "run"))


def test_an_audit_is_not_relied_on_once_another_was_refused_or_stopped_early(
    restored: Path, run: Path, tmp_path: Path
) -> None:
    (restored / "broken.py").write_text(
        "import torch\n\ndef build():\n    return torch.nn.Sequential(torch.nn.Flatten(), Nan())\n\n"
        "class Nan(torch.nn.Module):\n    def forward(self, x):\n        return x[:, :1] * float('nan')\n"
    )
    setting(model={"source": "broken.py:build"})(restored)
    with pytest.raises(InputError):
        audit(restored, run)
    _require_refused(run, tmp_path)
    setting()(restored)
    audit(restored, run)
    assert set(find(run)) == {"cnn"}
    # A call that finds everything done changes nothing.
    run_stage(Run.open(run), "predict")
    assert set(find(run)) == {"cnn"}
    setting(test={**CONFIG["test"], "margin": 0.3})(restored)
    run_stage(Run.open(run, read_config(restored / "audit.yaml")), "predict")
    _require_refused(run, tmp_path)
    run_stage(Run.open(run), "report")
    assert find(run)["cnn"].result.tests[0].margin == 0.3


def test_an_audit_is_compared_by_what_it_was_tested_by(run: Path) -> None:
    content = json.loads((run / "config.json").read_text())
    content["test"] |= {"outcome": "probability", "threshold": 0.9}
    (run / "config.json").write_text(json.dumps(content))
    test = find(run, responses=True)["cnn"].test
    assert test is not None
    assert (test.outcome, test.threshold) == ("decision", 0.5)


@pytest.mark.parametrize("strips", [0, 1])
def test_a_page_is_written_where_the_model_is_gone(strips: int, restored: Path, run: Path, tmp_path: Path) -> None:
    setting(report={"gallery": strips})(restored)
    audit(restored, run)
    assert side_answered(Run.open(run), "cnn") == 32
    page = (run / "audit.html").read_bytes()
    (restored / "model.ts").unlink()
    run_stage(Run.open(run), "report", force=True)
    assert (run / "audit.html").read_bytes() == page
    (written,) = deliver(Run.open(run), ("html",), out=tmp_path / "out")
    assert written.is_file()


def _require_refused(run: Path, tmp_path: Path) -> None:
    for ask in (lambda: find(run), lambda: deliver(Run.open(run), ("json",), out=tmp_path / "out")):
        with pytest.raises(StateError, match="did not reach its verdict"):
            ask()
    assert not (tmp_path / "out").exists()


def artefacts(run: Path) -> dict[str, Any]:
    """Every file of a run but what says when and where it was made."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if not path.is_file() or name.startswith(("stages/", ".")) or name in ("history.json", "provenance.json"):
            continue
        if name == "audit.json":
            found[name] = {**json.loads(path.read_text()), "provenance": None}
        elif name == "generator/config.json":
            found[name] = _without_seconds(json.loads(path.read_text()))
        elif name != "audit.html":  # tells what every stage took
            found[name] = path.read_bytes()
    assert {"audit.json", "responses.parquet", "quality/quality.json", "cohort.parquet"} <= set(found)
    return found


def _without_seconds(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_seconds(value) for key, value in content.items() if "seconds" not in key}
    return content


def _record(run: Path, stage: str) -> str:
    return (run / "stages" / f"{stage}.json").read_text()


def _provenance(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "audit.json").read_text())["provenance"]
    return found
