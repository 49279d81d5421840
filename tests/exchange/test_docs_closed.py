"""The page on closed models: its three commands lead from its configuration to a verdict on a vendor's CSV."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import yaml
from as_user import CONFIG, citlr
from pages import ROOT, commands

from citlr.config import read_config
from citlr.simulators.phantom.world import PhantomWorld

PAGE = (ROOT / "docs" / "closed.md").read_text(encoding="utf-8")


def test_the_example_is_a_configuration_without_a_source() -> None:
    (model,) = read_config(ROOT / "examples" / "closed.yaml").models.values()
    assert (model.kind, model.source) == ("closed", None)


def test_the_page_leads_to_a_verdict_in_three_commands(tmp_path: Path) -> None:
    PhantomWorld(size=32).sample(200, seed=0, images_per_patient=1).write(tmp_path / "world")
    block = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0].replace("pneumonia", "cardiomegaly")
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump({**CONFIG, **yaml.safe_load(block)}))
    draw, export, ingest = commands("closed.md")
    assert citlr(*draw, "--quiet", cwd=tmp_path).returncode == 0
    # Whoever forgets the answers is told where to go on, and loses nothing.
    early = citlr("audit", "audit.yaml", "--out", "run", "--quiet", cwd=tmp_path)
    assert early.returncode == 2
    assert "citlr export run" in early.stderr
    assert citlr(*export, "--quiet", cwd=tmp_path).returncode == 0
    manifest = pd.read_csv(tmp_path / "for_the_owner" / "manifest.csv")
    manifest[["id"]].assign(cardiomegaly=0.25).to_csv(tmp_path / "answers.csv", index=False)
    done = citlr(*ingest, "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "vendor: " in done.stdout
    assert (tmp_path / "run" / "audit.html").is_file()


def test_a_model_without_a_source_is_told_of_the_closed_kind(tmp_path: Path) -> None:
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump({**CONFIG, "model": {"name": "vendor"}}))
    done = citlr("audit", "audit.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "kind: closed" in done.stderr
