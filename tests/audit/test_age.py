"""An age through a whole audit: as a user comes with it, with exact counterfactuals, and by predictions alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from as_user import CONFIG, citlr
from pages import ROOT, commands, python

from citlr.audit.measures.slope import carried_slope
from citlr.audit.results.result import AuditResult, read_result
from citlr.data.images import encode_png
from citlr.predictors.export import export_program, make_card
from citlr.predictors.specs import InputSpec
from citlr.report.card import model_card
from citlr.simulators.phantom.regions import bone_window, breast_window
from citlr.simulators.phantom.world import PhantomWorld
from citlr.simulators.units import write_images

PAGE = (ROOT / "docs" / "age.md").read_text(encoding="utf-8")
SIDE, TESTED, AGES = 32, 60, ("30", "50", "70")
QUICK: dict[str, Any] = {
    "gates": {"probe_steps": 24},
    "controls": {"bootstraps": 5, "placebo_images": 16, "replicate_images": 10, "planted": [4.0]},
    "quality": {"cycles": 2},
    "generate": {"draws": 2},
    "report": {"gallery": 2},
}


class Ageing(torch.nn.Module):
    """A model whose output rises with the density of bone, and so with age."""

    def __init__(self, support: np.ndarray, middle: float) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(support.astype(np.float32) / support.sum()))
        self.middle = middle

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 40 * ((images[:, 0] * self.weight).sum(dim=(1, 2)) - self.middle).unsqueeze(1)


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user brings: ages 20 to 80, images, exact counterfactuals of the test part, a model that sees age."""
    root = tmp_path_factory.mktemp("brought")
    phantom = PhantomWorld(size=SIDE, attribute="age", levels=tuple(map(str, range(20, 81))), strength=2)
    sample = phantom.sample(360, seed=0, images_per_patient=1)
    images = sample.images()
    write_images(root, sample.frame, images[:, 0], table="phantom.csv")
    table = pd.read_csv(root / "phantom.csv")
    table["path"] = table["path"].str.removeprefix("images/")
    parts = ["test"] * TESTED + ["train"] * 250 + ["validation"] * (len(table) - TESTED - 250)
    table.assign(split=parts).to_csv(root / "cohort.csv", index=False)
    (root / "redrawn").mkdir()
    some, rows, rng = sample.take(np.arange(TESTED)), [], np.random.default_rng(0)
    for level in (*AGES, "recorded"):
        drawn = images[:TESTED] if level == "recorded" else some.counterfactual(level)
        for name, image in zip(table["image_id"], drawn, strict=False):
            for draw in range(2):
                path = f"redrawn/{name}_{level}_{draw}.png"
                noisy = np.clip(image + rng.normal(0, 0.01, image.shape), 0, 1).astype(np.float32)
                (root / path).write_bytes(encode_png(noisy))
                rows.append((name, level, draw, path))
    pd.DataFrame(rows, columns=["image_id", "level", "draw", "path"]).to_csv(root / "counterfactuals.csv", index=False)
    # Where bone grows denser with age; the shadow of the breast, which fades, would cancel it.
    bone = (bone_window(SIDE) > 0) & (breast_window(SIDE) <= 0)
    seen = (images[:, 0] * bone).sum(axis=(1, 2)) / bone.sum()
    model = Ageing(bone, float(np.median(seen))).eval()
    export_program(model, root / "model.pt2", make_card(["cardiomegaly"], input=InputSpec(size=SIDE)))
    page = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0])
    assert page["cohort"]["levels"] == [30, 50, 70]
    quick = {**page, **QUICK, "cohort": {**page["cohort"], "split": "split", "min_patients_per_level": 5}}
    tiny = {"kind": "dldm", **CONFIG["generator"], "hold": page["generator"]["hold"]}
    (root / "age.yaml").write_text(yaml.safe_dump({**quick, "generator": tiny}))
    exact = {"kind": "images", "table": "counterfactuals.csv", "size": SIDE, "hold": ["view"]}
    # What the probe reads of the age is not judged here, only that it is asked.
    probes = {"gates": {"probe_steps": 60, "agreement": 0}, "report": {"gallery": 2}}
    (root / "exact.yaml").write_text(yaml.safe_dump({**quick, **probes, "generator": exact}))
    return root


@pytest.fixture(scope="module")
def exact(brought: Path) -> AuditResult:
    """The audit of the exact counterfactuals."""
    done = citlr("audit", "exact.yaml", "--out", "exact", "--quiet", cwd=brought)
    assert done.returncode == 0, done.stderr
    assert "the largest change of the share of positive decisions is" in done.stdout
    return read_result(brought / "exact" / "audit.json")


def test_exact_counterfactuals_give_the_curve_and_carry_the_age(brought: Path, exact: AuditResult) -> None:
    frame = exact.dose_response.to_frame()
    assert frame["level"].tolist() == [*AGES, *AGES]
    curve = frame[frame["outcome"] == "probability"]["output"].to_numpy()
    rise = np.diff(curve)
    assert (rise > 0).all() or (rise < 0).all()
    assert np.abs(curve[-1] - curve[0]) > 0.1
    assert [row.contrast for row in exact.tests] == [("30", "50"), ("30", "70"), ("50", "70")]
    assert exact.omnibus[0].levels == AGES
    assert exact.omnibus[0].pvalue_adjusted < 0.05
    assert exact.dose_response.curves[0].contrast == ("30", "70")
    assert exact.quality.composition is not None
    assert 0 < exact.quality.composition < 0.02
    assert exact.quality.left is None
    assert exact.quality.carried is not None
    assert exact.quality.carried.slope
    # Sixty images tell little of a slope; what it is, is tested on arrays below.
    assert exact.quality.carried.note or exact.quality.carried.shares["50"] == exact.quality.carried.shares["30"]
    assert {cell["level"] for cell in exact.cohort.counts} == set(AGES)
    assert {row.contrast for row in exact.baselines} <= {row.contrast for row in exact.tests}


def test_the_plan_counts_those_that_were_recorded_near_an_age(brought: Path) -> None:
    done = citlr("plan", "exact.yaml", "--json", "plan.json", "--quiet", cwd=brought)
    assert done.returncode == 0, done.stderr
    levels = json.loads((brought / "plan.json").read_text())["levels"]
    assert list(levels) == [f"nearest {age}" for age in AGES]
    assert sum(one["images"] for one in levels.values()) == TESTED
    assert "level nearest 30, test" in done.stdout


def test_page_card_and_figure_show_the_curve(brought: Path, exact: AuditResult) -> None:
    page = (brought / "exact" / "audit.html").read_text(encoding="utf-8")
    assert 'class="dose-band"' in page
    assert "Change of the share of positive decisions for cardiomegaly from 30 on" in page
    assert "Dose-response: the output at every value" in page
    card = model_card(exact)
    assert "### Dose-response" in card
    assert len(exact.dose_response.plot().axes) == 2


def test_an_audit_of_before_is_read_and_has_no_curve(brought: Path, exact: AuditResult, tmp_path: Path) -> None:
    content = json.loads((brought / "exact" / "audit.json").read_text())
    assert read_result(exact.to_json(tmp_path / "again.json")) == exact
    del content["dose_response"]
    del content["quality"]["carried"]["slope"]
    (tmp_path / "before.json").write_text(json.dumps(content))
    assert len(read_result(tmp_path / "before.json").dose_response) == 0


def test_the_page_leads_from_ages_to_a_verdict(brought: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (words,) = commands("age.md")
    done = citlr(*words, "--quiet", cwd=brought)
    assert done.returncode == 0, done.stderr
    answers = pd.read_parquet(brought / "run" / "responses.parquet")
    assert set(answers[(answers["attribute"] == "age") & (answers["draw"] >= 0)]["level"]) == {*AGES, "recorded"}
    result = read_result(brought / "run" / "audit.json")
    assert {"composition", "effectiveness", "placebo", "agreement on cardiomegaly"} <= {
        gate.name for gate in result.quality.gates
    }
    monkeypatch.chdir(brought)
    exec(python("age.md")[0], {})
    assert (brought / "ages.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([30, 50, 95], "no training image shows 'age' = 95"),
        (["young", "old"], "its level 'young' is none"),
        ([30], "at least 2"),
    ],
)
def test_bad_levels_end_in_a_sentence(brought: Path, levels: list[object], said: str) -> None:
    content = yaml.safe_load((brought / "age.yaml").read_text())
    content["cohort"]["levels"] = levels
    (brought / "bad.yaml").write_text(yaml.safe_dump(content))
    done = citlr("audit", "bad.yaml", "--out", "bad", "--quiet", cwd=brought)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_table_of_predictions_at_ages_has_a_curve(brought: Path, exact: AuditResult, tmp_path: Path) -> None:
    answers = pd.read_parquet(brought / "exact" / "responses.parquet").drop(columns="attribute")
    answers.to_csv(tmp_path / "predictions.csv", index=False)
    done = citlr("assess", "predictions.csv", "--margin", ".05", "--attribute", "age", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "taken for values of a number" in " ".join(done.stderr.split())  # codes such as 1, 2, 3 would be too
    result = read_result(tmp_path / "assessment" / "audit.json")
    pd.testing.assert_frame_equal(result.dose_response.to_frame(), exact.dose_response.to_frame())
    assert any(gate.name == "agreement on cardiomegaly" and gate.value for gate in result.quality.gates)
    assert 'class="dose-band"' in (tmp_path / "assessment" / "audit.html").read_text(encoding="utf-8")


def reading(share: float, *, seed: int = 0, count: int = 400) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """A probe that shrinks ages to the middle by half, and images that carry a share of what was asked for."""
    rng = np.random.default_rng(seed)
    age, view = rng.uniform(20, 80, count), rng.integers(0, 2, count)
    age = age + 5 * view
    real = 25 + 0.5 * age + 4 * view + rng.normal(0, 5, count)
    asked = np.array([30.0, 50.0, 70.0])
    drawn = real[:, None, None] + 0.5 * share * (asked - age[:, None])[:, :, None] + rng.normal(0, 1, (count, 3, 2))
    patients = [f"p{number // 2}" for number in range(count)]
    return real, drawn, pd.DataFrame({"age": age, "view": view.astype(str), "patient_id": patients})


def slope(share: float, seed: int = 0) -> Any:
    real, drawn, frame = reading(share, seed=seed)
    return carried_slope(real, drawn, frame, attribute="age", levels=AGES, hold=["view"], size=64)


def test_the_share_of_a_number_is_a_slope_whatever_the_probe_shrinks() -> None:
    inside = 0
    for seed in range(60):
        one = slope(0.6, seed).shares["30"]
        inside += one.low <= 0.6 <= one.high
    assert inside >= 51
    assert slope(1.0).shares["70"].estimate == pytest.approx(1.0, abs=0.15)
    assert abs(slope(0.0).shares["70"].estimate) < 0.05


def test_a_probe_that_reads_no_age_says_so() -> None:
    real, drawn, frame = reading(1.0)
    noise = np.random.default_rng(1).normal(size=len(real))
    found = carried_slope(noise, drawn, frame, attribute="age", levels=AGES, hold=["view"], size=64)
    assert found.shares == {}
    assert "does not rise with 'age'" in found.note
