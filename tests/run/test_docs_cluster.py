"""What docs/cluster.md shows of a laptop runs as it stands; the benchmark of one card runs without one, or says so."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from citlr.learning.beside import beside

ROOT = Path(__file__).resolve().parents[2]


def benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_program_of_the_page_redraws_on_two_workers(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), flags=re.DOTALL)
    (tmp_path / "program.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+ images redrawn\n", done.stdout)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_the_benchmark_of_a_card_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="There is no CUDA device here"):
        benchmark("gpu").main()


def test_the_benchmark_of_a_card_counts_what_other_threads_would_compute() -> None:
    threads, square = torch.get_num_threads(), torch.ones(8, 8)
    torch.set_num_threads(2)
    try:
        assert benchmark("gpu").operations(lambda: beside(lambda part: part @ part, [square, square])) == 2 * 2 * 8**3
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_benchmark_of_a_card_runs_its_code_on_a_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["--device", "cpu", "--size", "32", "--seconds", "0.1", "--steps", "1", "--images", "60"]
    small += ["--preset", "tiny"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *small, "--out", str(tmp_path / "gpu.md")])
    benchmark("gpu").main()
    rows, shares = (tmp_path / "gpu.md").read_text().split("\n\nRedrawing, shares of the time:\n\n")
    header, _, *of_size = shares.splitlines()
    assert len(of_size) == 1
    assert "convolutions" in header
    spent = [float(cell) for cell in of_size[0].split("|")[2:-1]]
    assert abs(sum(spent) - 1) < 0.01
    assert spent[0] > 0.05
    assert spent[-1] < 0.5
    rows = rows.splitlines()[4:]
    assert [row.split("|")[2].strip() for row in rows] == [
        "training steps, autoencoder",
        "training steps, denoiser",
        "redrawn images",
    ]
    assert all(float(row.split("|")[column]) > 0 for row in rows for column in (3, 4))
