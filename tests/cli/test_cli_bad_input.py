"""Bad input costs one sentence and exit status 2, and nothing that was finished."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from as_user import citlr

Configure = Callable[..., Path]


def refused(config: Path, run: Path) -> str:
    """Run an audit that has to be refused; return what it says, one line."""
    done = citlr("audit", config, "--out", run, "--quiet")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("citlr: ")
    return lines[0]


def own_world(tmp_path: Path, world: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Put a changed table in place of the link to the shared world."""
    (tmp_path / "world").unlink(missing_ok=True)
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "images").symlink_to(world / "world" / "images")
    change(pd.read_csv(world / "world" / "phantom.csv")).to_csv(tmp_path / "world" / "phantom.csv", index=False)


# Says at the end which slow modules were imported.
HEAVY = (
    "import sys\ntry:\n    from citlr.cli.main import main; main()\nfinally:\n"
    "    print([m for m in ('torch', 'pandas', 'numpy', 'sklearn', 'monai') if m in sys.modules], file=sys.stderr)"
)


def test_a_misspelt_key_names_the_nearest(configure: Configure, tmp_path: Path) -> None:
    assert "Did you mean 'margin'?" in refused(configure(test={"margn": 0.1}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_table(configure: Configure, tmp_path: Path) -> None:
    assert "none.csv" in refused(configure(cohort={"table": "none.csv"}), tmp_path / "run")


def test_a_missing_configuration(tmp_path: Path) -> None:
    assert "none.yaml" in refused(tmp_path / "none.yaml", tmp_path / "run")


def test_an_output_folder_is_taken_by_another_configuration_and_keeps_what_does_not_depend_on_it(
    configure: Configure, tmp_path: Path
) -> None:
    assert citlr("audit", configure(), "--out", tmp_path / "run", "--until", "cohort", "--quiet").returncode == 0
    kept = (tmp_path / "run" / "stages" / "cohort.json").read_bytes()
    other = configure(test={"margin": 0.07})
    assert citlr("audit", other, "--out", tmp_path / "run", "--until", "cohort", "--quiet").returncode == 0
    assert (tmp_path / "run" / "stages" / "cohort.json").read_bytes() == kept
    assert '"margin": 0.07' in (tmp_path / "run" / "config.json").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.assign(sex="female"), "female"),
        (lambda t: t.assign(image_id="same"), "same"),
        (lambda t: t.assign(sex=["male"] * 10 + ["female"] * (len(t) - 10)), "20"),
        (lambda t: t.assign(split=["train", "test"] * (len(t) // 2), patient_id=t["sex"]), "more than one split"),
        (lambda t: t.rename(columns={"sex": "sxe"}), "Did you mean 'sxe'?"),
    ],
    ids=["single level", "duplicated id", "too few patients", "patient in two splits", "misnamed column"],
)
def test_tables_that_cannot_carry_an_audit(
    configure: Configure, world: Path, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    split = {"split": "split"} if "split" in said else {}
    config = configure(cohort=split)
    own_world(tmp_path, world, change)
    assert said in refused(config, tmp_path / "run")


def test_unreadable_images_are_counted_and_too_many_stop(configure: Configure, world: Path, tmp_path: Path) -> None:
    config = configure()
    own_world(tmp_path, world, lambda table: table)
    (tmp_path / "world" / "images").unlink()
    shutil.copytree(world / "world" / "images", tmp_path / "world" / "images")
    files = sorted((tmp_path / "world" / "images").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:100])
    assert citlr("audit", config, "--out", tmp_path / "one", "--until", "cohort", "--quiet").returncode == 0
    for file in files[1:5]:
        file.write_bytes(b"")
    assert "unreadable" in refused(config, tmp_path / "many")


MODELS = """
import numpy as np
def nan(images): return np.full((len(images), 1), np.nan)
def large(images): return np.full((len(images), 1), 3.0)
def raises(images): raise RuntimeError("out of paper")
def two(images): return np.zeros((len(images), 2))
"""


@pytest.mark.parametrize(
    ("function", "said"), [("nan", "NaN"), ("large", "outside [0, 1]"), ("raises", "out of paper"), ("two", "2")]
)
def test_models_that_cannot_be_audited_are_found_before_anything_long(
    configure: Configure, tmp_path: Path, function: str, said: str
) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    config = configure(model={"source": f"models.py:{function}", "output": "probability", "input": {}})
    assert said in refused(config, tmp_path / "run")
    assert not (tmp_path / "run" / "generator").exists()


def test_a_full_disk_keeps_what_was_finished(configure: Configure, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("the file size limit of the shell stands in for a full disk on Linux only")
    run = tmp_path / "run"
    assert citlr("audit", configure(), "--out", run, "--until", "cohort", "--quiet").returncode == 0
    kept = (run / "cohort.parquet").read_bytes()
    # Every write of a file fails as on a full disk, in a process where the call that reserves space does.
    full = (
        "import errno, os\n"
        "def full(descriptor): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "os.fsync = full\n"
    )
    done = citlr("fit", run, "--quiet", before=full)
    assert done.returncode == 2, done.stderr
    assert "disk is full" in done.stderr
    assert (run / "cohort.parquet").read_bytes() == kept
    assert citlr("fit", run, "--quiet").returncode == 0


def test_a_full_gpu_is_a_sentence_and_what_was_finished_stays(never_killed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(never_killed, run)
    (run / "stages" / "generate.json").unlink()
    # Stands in for a card, which is not there: the denoiser fails as on one that is full, in the third shard.
    full = (
        "import torch, citlr.generators.diffusion.sampling as s\n"
        "redraw, calls = s.Sampler.redraw_batch, []\n"
        "def full(*arguments):\n"
        "    calls.append(1)\n"
        "    if len(calls) > 2: raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')\n"
        "    return redraw(*arguments)\n"
        "s.Sampler.redraw_batch = full\n"
    )
    done = citlr("generate", run, "--quiet", before=full)
    assert done.returncode == 2
    assert done.stderr.startswith("citlr: The memory of the GPU is full: what was finished stays;"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(run.glob(".work/generate-*/**/part-*.parquet"))
    assert citlr("generate", run, "--quiet").returncode == 0


def test_help_names_every_verb_and_is_quick_to_import() -> None:
    done = citlr("--help")
    assert done.returncode == 0
    for verb in ("demo", "audit", "prepare", "fit", "generate", "predict", "test", "report", "calibrate"):
        assert verb in done.stdout
    assert citlr("--help", program=HEAVY).stderr.strip() == "[]"


def test_a_typing_error_is_told_before_torch_is_imported(configure: Configure, tmp_path: Path) -> None:
    done = citlr("audit", configure(test={"margn": 0.1}), "--out", tmp_path / "run", program=HEAVY)
    assert "margin" in done.stderr
    assert not {"torch", "monai"} & set(done.stderr.splitlines()[-1].strip("[]").replace("'", "").split(", "))


def test_json_is_json_and_nothing_else(never_killed: Path) -> None:
    done = citlr("report", never_killed, "--quiet")
    assert done.returncode == 0
    content = json.loads((never_killed / "audit.json").read_text())
    assert content["schema"] == "citlr.audit/1"
    for key in ("verdict", "tests", "baselines", "quality", "controls", "cohort", "provenance"):
        assert key in content
    row = content["tests"][0]
    names = (
        "attribute contrast label method n_images n_patients draws statistic pvalue pvalue_adjusted mean_effect psi "
    )
    names += "flip_rate eca margin equivalence_pvalue detectable_effect verdict"
    assert set(names.split()) <= set(row)
    # The generator's own error was measured, not left out.
    assert row["mean_error"] >= 0
    assert row["psi_error"] >= 0
    assert set(content["quality"]) >= {
        "composition",
        "effectiveness",
        "reversibility",
        "minimality",
        "drift",
        "fid",
        "gates",
    }
    assert set(content["controls"]) >= {"placebo", "planted", "detection_limit"}


def test_what_the_server_of_commands_holds_is_frozen() -> None:
    """A module that it does not find it passes over without a word, and every command is slower by its garbage."""
    done = citlr("--version", before="import gc; assert gc.get_freeze_count() > 100_000")
    assert done.returncode == 0, done.stderr
