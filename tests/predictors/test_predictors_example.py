"""The example that trains the small CNN runs as a user runs it, on a folder laid out like the radiographs."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from citlr.predictors.check import check_predictor
from citlr.predictors.loading import load_predictor

SCRIPT = Path(__file__).parents[2] / "examples" / "train_small_cnn.py"


def radiographs(root: Path) -> None:
    """Write 80 noise images, the ill ones brighter, and the table."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    rows = []
    for number in range(80):
        ill = number // 2 % 2
        pixels = rng.integers(60 + 60 * ill, 120 + 60 * ill, (64, 64)).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        split = "train" if number < 24 else "val" if number < 36 else "test"
        row = {"image": f"images/{number}.png", "patient_id": f"p{number}", "sex": "FM"[number % 2], "view": "PA"}
        rows.append({**row, "split": split, "pneumonia": ill, "source_file": f"{number}.png"})
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)


def test_the_example_trains_exports_and_measures(tmp_path: Path) -> None:
    radiographs(tmp_path)
    command = [sys.executable, str(SCRIPT), "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--epochs", "2"]
    done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "test: AUROC" in done.stdout
    assert "44 images of 44 patients" in done.stdout
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["auroc"]["test"]
    assert 0 <= metrics["low"] <= metrics["estimate"] <= metrics["high"] <= 1
    images = np.random.default_rng(1).random((4, 1, 64, 64), dtype=np.float32)
    script = load_predictor(tmp_path / "out" / "model.pt2", device="cpu")
    check_predictor(script, images)
    rebuilt = load_predictor(
        f"{SCRIPT}:build",
        weights=tmp_path / "out" / "model.safetensors",
        labels=["pneumonia"],
        input={"size": 64},
        output="logit",
        device="cpu",
    )
    np.testing.assert_allclose(rebuilt.predict(images), script.predict(images), atol=1e-6)


def test_a_missing_data_folder_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a script exits with, if it is no number, Python writes to stderr, without a traceback."""
    given = ["--data", str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--quiet"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *given])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "metadata.csv" in str(ended.value.code)
    assert len(str(ended.value.code).splitlines()) == 1
