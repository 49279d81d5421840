"""`citlr reproduce generation --world`: effect maps of any kind of generator in worlds whose truth is known."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from engine_parts import Posted
from typer.testing import CliRunner

from citlr.console import Narrator
from citlr.errors import InputError
from citlr.generators.oracle import Oracle
from citlr.simulators.phantom import PhantomWorld
from citlr.simulators.planted.classifiers import Trainer
from citlr.studies.generation.effect_page import effect_sheet
from citlr.studies.generation.effects import Fitting, compare, run_effects
from citlr.studies.generation.worlds import Asked, open_worlds
from citlr.studies.kit.cohorts import Source

VAE, SHIFT = "vae:steps=4", "latent-shift:probe_steps=3,autoencoder={ae_steps: 3}"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A `cohort.parquet` of images that stand for real ones; some patients have two."""
    folder = tmp_path_factory.mktemp("prepared")
    sample = PhantomWorld(size=64, anatomy="varying", prevalence=0.5).sample(200, seed=0, images_per_patient=(1, 2))
    sample.write(folder / "world", min_patients_per_level=1).to_parquet(folder / "cohort.parquet")
    return str(folder / "cohort.parquet")


def asked(prepared: str, *worlds: str) -> Asked:
    return Asked(worlds, Source(prepared, labels=("cardiomegaly",)), size=32, patients=200)


def test_several_worlds_and_sizes_in_one_table(prepared: str, tmp_path: Path) -> None:
    wanted = asked(prepared, "shadow+tone", "null")
    fitting = Fitting((SHIFT,), "tiny", sizes=(100, None), images=20)
    found = run_effects(wanted, fitting, out=tmp_path, seed=1)
    rows = found["rows"]
    assert [(row["world"], row["kind"]) for row in rows] == [
        (world, SHIFT) for world in ("shadow+tone", "null") for _ in range(2)
    ]
    for row in rows:
        assert row["test_images"] == 20
        assert row["true_rms"] > 0.01
        assert row["ms_per_image"] > 0
        assert (row["effect"] is None) == (row["world"] == "null")
        assert "cardiomegaly" in row["drift"]
        assert set(row["drift"]) <= {"cardiomegaly", "view", "effusion"}
    few, whole = rows[0]["train_images"], rows[1]["train_images"]
    assert 100 <= few < 104  # whole patients, of one or two images
    assert whole > 150
    table = list(csv.reader((tmp_path / "tables" / "effects.csv").read_text().splitlines()))
    assert len(table) == 5
    assert table[-1][table[0].index("error")] == "-"
    assert "Their AUROC on test images: " in (tmp_path / "effects.md").read_text()
    kept = list((tmp_path / "null" / "models").rglob("config.json"))
    assert kept
    before = [path.stat().st_mtime_ns for path in kept]
    assert run_effects(wanted, fitting, out=tmp_path, seed=1) == found
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_one_training_serves_all_strengths_and_the_pick_is_published(prepared: str, tmp_path: Path) -> None:
    kinds = (f"{VAE},guidance=0.5", f"{VAE},guidance=3")
    wanted, fitting = asked(prepared, "shadow+tone"), Fitting(kinds, "tiny", images=40)
    rows = run_effects(wanted, fitting, out=tmp_path, seed=1)["rows"]
    assert [row["kind"] for row in rows] == [*kinds]
    # Processes that begin anew have tests of their own; here, that what they are sent is all that they need.
    two = run_effects(wanted, fitting, out=tmp_path / "two", seed=1, engine=Posted(workers=2))["rows"]
    times = {"fit_seconds": 0, "ms_per_image": 0}
    assert [row | times for row in two] == [row | times for row in rows]
    assert [path.name for path in (tmp_path / "shadow+tone" / "models").iterdir()] == ["vae-steps-4"]
    assert rows[0]["rms"] < rows[1]["rms"]
    assert all({"before", "p", "left", "error"} == set(row["left"]) for row in rows)
    (pick,) = csv.DictReader((tmp_path / "tables" / "picks.csv").read_text().splitlines())
    assert pick["candidates"] == "3"


@pytest.mark.parametrize("name", ["phantom", "shadow+contrast", "null"])
def test_the_truth_itself_has_no_error_and_no_drift(prepared: str, tmp_path: Path, name: str) -> None:
    (world,) = open_worlds(asked(prepared, name), tmp_path, Narrator(quiet=True))
    test = world.cohort.part("test")
    learns = world.units.frame["image_id"].isin(world.cohort.part("train").frame["image_id"]).to_numpy(bool)
    reader = Trainer.of(world.shown or world.units, learns, world.levels).blind("cardiomegaly", seed=0)
    row = compare(world, test, Oracle.of(world.units), {"cardiomegaly": reader}, 0)
    assert row["drift"] == {"cardiomegaly": 0}
    assert row["null_change"] == 0
    if name == "null":
        assert row["effect"] is None
        assert row["rms"] == 0 < row["true_rms"]
        return
    # Files hold 256 grey values, the exact change is not rounded.
    assert row["effect"]["relative_error"] < 0.1
    assert row["effect"]["cosine"] == pytest.approx(1, abs=0.01)
    assert row["effect"]["scale"] == pytest.approx(1, abs=0.01)
    assert 0.05 < row["fixed_map"] < 0.95
    assert len(effect_sheet([{**row, "world": name, "kind": "oracle", "train_images": 0, "fit_seconds": 0}]).cells) == 1


def test_smaller_parts_are_of_whole_patients_and_of_one_another(prepared: str, tmp_path: Path) -> None:
    (world,) = open_worlds(asked(prepared, "tone"), tmp_path, Narrator(quiet=True))
    train = world.cohort.part("train")
    small, larger = (train.fewer(number, seed=0) for number in (50, 120))
    assert set(small.frame["image_id"]) < set(larger.frame["image_id"]) < set(train.frame["image_id"])
    whole = train.frame["patient_id"].value_counts()
    own = small.frame["patient_id"].value_counts()
    assert (own == whole.loc[own.index]).all()
    assert len(train.fewer(10_000, seed=0)) == len(train)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--world", "shadows"], "Did you mean 'shadow'"),
        (["--world", "tone"], "say which with --cohort"),
        (["--world", "varying", "--world", "varying"], "named twice"),
        (["--world", "varying", "--kind", "gan"], "no generator of the kind 'gan'"),
        (["--world", "varying", "--kind", "edits:guidanc=0.5"], "Did you mean 'guidance'"),
        (["--world", "varying", "--budget", "tinny"], "Did you mean 'tiny'"),
        (["--kind", "vae"], "--kind goes with --world"),
    ],
)
def test_bad_requests_are_refused_in_a_sentence(tmp_path: Path, arguments: list[str], said: str) -> None:
    from citlr.cli.app import app

    result = CliRunner().invoke(app, ["reproduce", "generation", "--out", str(tmp_path / "out"), *arguments])
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_command_line_asks_for_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from citlr.cli.app import app

    calls = []
    monkeypatch.setattr("citlr.studies.generation.effects.run_effects", lambda *given, **named: calls.append(given))
    given = ["--world", "phantom", "--world", "tone+line", "--kind", "vae", "--kind", "dldm", "--budget", "tiny"]
    given += ["--cohort", "a.yaml", "--label", "edema", "--learn", "190", "--learn", "375", "--images", "40"]
    result = CliRunner().invoke(
        app, ["reproduce", "generation", "--out", str(tmp_path), *given], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "effects.md" in result.stdout
    ((wanted, fitting),) = calls
    assert wanted == Asked(("phantom", "tone+line"), Source("a.yaml", labels=("edema",)))
    assert fitting == Fitting(("vae", "dldm"), "tiny", sizes=(190, 375), images=40)
