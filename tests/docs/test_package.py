"""What is handed on: the package, its extras, and the files for those who use it and carry on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from pages import ROOT

from citlr.errors import CitlrError
from citlr.version import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_one_version_everywhere() -> None:
    assert PROJECT["dynamic"] == ["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (__version__, PROJECT["license"])
    assert {"cff-version", "message", "title", "authors", "references"} <= set(citation)


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10


def blocked(*modules: str) -> dict[str, Any]:
    """What `sys.modules` holds where packages are not installed: their parts that were imported before go, too."""
    parts = [name for name in sys.modules if name.split(".")[0] in modules]
    return dict.fromkeys([*modules, *parts])


def _xlsx(folder: Path) -> None:
    from citlr.data.tables.columns import read_table

    with zipfile.ZipFile(folder / "study.xlsx", "w") as book:
        book.writestr("xl/workbook.xml", "")
    read_table(folder / "study.xlsx")


def _pdf(folder: Path) -> None:
    from citlr.report.pdf import write_pdf

    write_pdf("<p></p>", folder / "a.pdf", engine="weasyprint")


def _dicom(folder: Path) -> None:
    from citlr.data.pixels.dicom import see_dicom

    (folder / "a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    see_dicom(folder / "a.dcm")


def _onnx(folder: Path) -> None:
    from citlr.predictors.loading import load_predictor

    (folder / "m.onnx").write_bytes(b"x")
    load_predictor(folder / "m.onnx", labels=["a"])


def _timm(folder: Path) -> None:
    from citlr.predictors.loading import load_predictor

    safetensors.torch.save_file({"fc.weight": torch.zeros(1, 2)}, folder / "weights.safetensors")
    load_predictor("timm:resnet18", weights=folder / "weights.safetensors", labels=["a"])


def _huggingface(folder: Path) -> None:
    from citlr.predictors.loading import load_predictor

    (folder / "config.json").write_text('{"problem_type": "multi_label_classification"}')
    grey = {"size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(grey))
    (folder / "model.safetensors").write_bytes(b"")
    load_predictor(folder, labels=["a"])


def _xray(folder: Path) -> None:
    from citlr.generators.quality.features import load_extractor

    load_extractor("torchxrayvision:densenet121-res224-all")


def _cluster(folder: Path) -> None:
    from citlr.run.engines import Engine

    list(Engine("dask", 2).each(_length, None, ["a", "b"]))


def _length(shared: None, item: str) -> int:
    return len(item)


NEEDED: dict[str, tuple[tuple[str, ...], Callable[[Path], None]]] = {
    "cluster": (("dask", "distributed"), _cluster),
    "dicom": (("pydicom",), _dicom),
    "huggingface": (("transformers",), _huggingface),
    "onnx": (("onnxruntime",), _onnx),
    "pdf": (("weasyprint",), _pdf),
    "timm": (("timm",), _timm),
    "xlsx": (("python_calamine",), _xlsx),
    "xray": (("torchxrayvision",), _xray),
}


def test_every_extra_is_tried() -> None:
    assert set(NEEDED) | {"test", "docs"} == set(PROJECT["optional-dependencies"])
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `citlr\[(\w+)\]` \|", text, re.MULTILINE)) == set(NEEDED)


@pytest.mark.parametrize("extra", NEEDED)
def test_a_missing_extra_is_a_sentence_with_the_command(
    extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules, use = NEEDED[extra]
    for name, nothing in blocked(*modules).items():
        monkeypatch.setitem(sys.modules, name, nothing)
    with pytest.raises(CitlrError, match=rf"pip install '?citlr\[{extra}\]"):
        use(tmp_path)


def test_the_form_for_bugs_asks_for_the_machine_and_for_no_patient() -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8"))
    asked = {part.get("id"): part for part in form["body"]}
    assert "citlr doctor" in asked["doctor"]["attributes"]["label"]
    assert asked["doctor"]["validations"]["required"]
    assert "no patient data" in form["body"][0]["attributes"]["value"]


def test_hooks_are_the_linters_of_the_house() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    programs = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in hooks[0]["hooks"]}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lint = makefile.split("\nlint:")[1].split("\n\n")[0]
    assert programs == {word.removeprefix("$(BIN)/") for word in lint.split() if word.startswith("$(BIN)/")}


def test_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"^ +make ([a-z-]+) ", done.stdout, re.MULTILINE)) == targets


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own() -> None:
    """Wheel and sdist are built and checked; version, a verdict and an audit come from the installed wheel."""
    pytest.importorskip("build", reason="the extra 'docs' is not installed here: make package installs it")
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "package.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"citlr-{__version__}-py3-none-any.whl" in done.stdout
    assert "the smallest world audited" in done.stdout
