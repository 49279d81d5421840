"""Preparing, describing and handing out, as a user does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from as_user import CONFIG, citlr

from citlr.cli.options import mapping, pairs
from citlr.errors import InputError

Configure = Callable[..., Path]


def prepared(world: Path, out: Path) -> Path:
    """Prepare the small world's table as a cohort."""
    done = citlr(
        *("prepare", "table", world / "world" / "phantom.csv", "--images", world / "world", "--attribute", "sex"),
        *("--label", "cardiomegaly", "--label", "effusion", "--covariate", "view", "--out", out, "--quiet"),
    )
    assert done.returncode == 0, done.stderr
    return out / "cohort.parquet"


def test_a_table_becomes_a_cohort_that_can_be_described(world: Path, tmp_path: Path) -> None:
    cohort = prepared(world, tmp_path / "cohort")
    assert json.loads((tmp_path / "cohort" / "flow.json").read_text())
    assert "200" in (tmp_path / "cohort" / "flow.md").read_text()
    described = citlr("describe", cohort, "--out", tmp_path / "tables", "--leaks", "--quiet")
    assert described.returncode == 0, described.stderr
    assert "cardiomegaly" in described.stdout
    assert list((tmp_path / "tables").iterdir())


def test_a_map_without_an_equals_sign_is_refused(world: Path, tmp_path: Path) -> None:
    done = citlr(
        *("prepare", "table", world / "world" / "phantom.csv", "--images", world / "world", "--attribute", "sex"),
        *("--label", "edema", "--map", "path", "--out", tmp_path / "cohort"),
    )
    assert done.returncode == 2
    assert "ours=theirs" in done.stderr


@pytest.mark.parametrize(
    ("entry", "pair"),
    [
        (">=65=old", (">=65", "old")),
        ("<=64=<=64", ("<=64", "<=64")),
        ("<65=young", ("<65", "young")),
        ("view=PA=AP", ("view", "PA=AP")),
    ],
)
def test_a_sign_of_a_value_is_no_end_of_it(entry: str, pair: tuple[str, str]) -> None:
    assert pairs("--level", [entry], "raw=name") == [pair]


@pytest.mark.parametrize("entry", [">=65", "=a", "a=", "a"])
def test_half_a_pair_is_refused(entry: str) -> None:
    with pytest.raises(InputError, match=f"--level '{entry}' is not of the form raw=name"):
        pairs("--level", [entry], "raw=name")


def test_a_name_with_two_values_is_refused() -> None:
    assert mapping("--map", ["path=file", "path=file"], "ours=theirs") == {"path": "file"}
    with pytest.raises(InputError, match="--map gives 'path' twice, as 'file' and as 'image'"):
        mapping("--map", ["path=file", "path=image"], "ours=theirs")


def test_a_prepared_cohort_can_be_audited(world: Path, tmp_path: Path, configure: Configure) -> None:
    prepared(world, tmp_path / "cohort")
    config = configure(cohort={"table": "cohort/cohort.parquet", "images": None})
    done = citlr("audit", config, "--out", tmp_path / "run", "--until", "cohort", "--quiet")
    assert done.returncode == 0, done.stderr


JOINT = {"attribute": "sex and age", "combine": ["sex", "age"], "bins": {"age": [60]}, "min_patients_per_level": 5}


def test_a_joint_attribute_of_sex_and_age_is_audited_whole(world: Path, tmp_path: Path, configure: Configure) -> None:
    done = citlr("audit", configure(cohort=JOINT), "--out", tmp_path / "run", "--quiet")
    assert done.returncode in (0, 1), done.stderr
    levels = {f"{sex}, {age}" for sex in ("female", "male") for age in ("0-59", "60+")}
    tests = json.loads((tmp_path / "run" / "audit.json").read_text())["tests"]
    assert {row["attribute"] for row in tests} == {"sex and age"}
    assert {level for row in tests for level in row["contrast"]} == levels
    assert len(tests) == 6
    frame = pd.read_parquet(tmp_path / "run" / "cohort.parquet")
    # The split is drawn within the combinations, and they are what the table says.
    assert set(frame["sex and age"]) == levels
    assert (frame["sex and age"].str.startswith("female") == (frame["sex"] == "female")).all()
    assert "sex and age" in (tmp_path / "run" / "audit.html").read_text()


def test_joint_attributes_that_cannot_be_made_are_refused(world: Path, tmp_path: Path, configure: Configure) -> None:
    for change, words in (
        ({"combine": ["sex"]}, "two columns or more"),
        ({"attribute": "sex"}, "a name of its own"),
        ({"bins": {"agee": [60]}}, "Did you mean 'age'"),
        ({"levels": ["female, 0-59", "male, 61+"]}, "Did you mean 'male, 60+'"),
        ({"min_patients_per_level": 40}, "Too few patients"),
    ):
        run = tmp_path / f"run{len(words)}"
        done = citlr("audit", configure(cohort={**JOINT, **change}), "--out", run, "--until", "cohort")
        assert done.returncode == 2
        assert words in " ".join(done.stderr.split()), done.stderr


def test_a_joint_attribute_of_a_prepared_cohort(world: Path, tmp_path: Path, configure: Configure) -> None:
    prepared(world, tmp_path / "cohort")
    change = {"attribute": "sex and view", "combine": ["sex", "view"], "table": "cohort/cohort.parquet", "images": None}
    config = configure(cohort={**change, "covariates": [], "min_patients_per_level": 2}, generator={"hold": []})
    done = citlr("audit", config, "--out", tmp_path / "run", "--until", "cohort", "--quiet")
    assert done.returncode == 0, done.stderr
    assert pd.read_parquet(tmp_path / "run" / "cohort.parquet")["sex and view"].nunique() == 4


def test_a_closed_model_goes_out_comes_back_and_is_gated(world: Path, tmp_path: Path, configure: Configure) -> None:
    configure()
    content = {
        **CONFIG,
        "model": {"name": "vendor", "kind": "closed", "source": "elsewhere", "labels": ["cardiomegaly"]},
    }
    config = tmp_path / "closed.yaml"
    config.write_text(yaml.safe_dump(content))
    run = tmp_path / "run"
    waiting = citlr("audit", config, "--out", run, "--quiet")
    assert waiting.returncode == 2
    assert "citlr export" in waiting.stderr
    assert citlr("export", run, "--out", tmp_path / "blind", "--quiet").returncode == 0
    ids = pd.read_csv(tmp_path / "blind" / "manifest.csv")["id"]
    # 50 test images and 16 for the coin, two levels and draws each, the originals, and 10 moved by 12 replicates.
    assert len(ids) == 50 * 5 + 16 * 4 + 10 * 12
    answers = pd.DataFrame({"id": ids, "cardiomegaly": 0.25})
    answers.iloc[:10].to_csv(tmp_path / "half.csv", index=False)
    refused = citlr("ingest", run, tmp_path / "half.csv", "--quiet")
    assert refused.returncode == 2
    assert "lacks" in refused.stderr
    assert not (run / "responses.parquet").exists()
    answers.to_csv(tmp_path / "all.csv", index=False)
    taken = citlr("ingest", run, tmp_path / "all.csv", "--quiet")
    assert taken.returncode == 0, taken.stderr
    assert json.loads((run / "audit.json").read_text())["tests"][0]["pvalue"] == 1.0
    (tmp_path / "policy.yaml").write_text("fail_on: [dependence, inconclusive]\nrequire_gates: true\n")
    gate = citlr("check", run, "--policy", tmp_path / "policy.yaml", "--junit", tmp_path / "junit.xml")
    assert gate.returncode == 1
    assert gate.stdout.startswith("breach: vendor: ")
    assert (tmp_path / "junit.xml").read_text().startswith("<?xml")
