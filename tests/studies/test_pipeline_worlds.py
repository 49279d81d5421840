"""`citlr calibrate --pipeline` on other worlds: varying anatomy, real images, any generator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from citlr.console import Narrator
from citlr.errors import InputError
from citlr.run.engines import Engine
from citlr.run.files import read_json
from citlr.run.rows import Rows
from citlr.run.stage import stage_key
from citlr.run.stages import Stages
from citlr.simulators.phantom import PhantomWorld, true_effect
from citlr.simulators.phantom.classifiers import classify
from citlr.simulators.phantom.cues import CueReader
from citlr.studies.generation.study import PRESETS, phantom_study
from citlr.studies.kit.cohorts import PlantedCohort, Planting, Source, take_source
from citlr.studies.kit.worlds import DEFAULT_WORLD, anatomy_of, changes, true_changes
from citlr.studies.pipeline.families import Drawn, PhantomFamily, PlantedFamily, choose_family
from citlr.studies.pipeline.making import cued, hidden_candidates, hidden_places, hidden_truth
from citlr.studies.pipeline.run import run_pipeline
from citlr.studies.pipeline.study import QUICK, Place, with_generator

NOTHING = {"effect": None, "level": None, "label": None, "hold": None, "strength": 1.0}
# Three steps of a probe and four of a generator: no gate is judged here, all that they rest on is measured.
SMALL = replace(
    QUICK,
    blind=1,
    biased=1,
    shortcuts=1,
    indifferent=1,
    hidden=1,
    hidden_patients=0,
    placebo_images=8,
    probe_steps=3,
    kind="vae",
    options={"steps": 4},
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A `cohort.parquet` of images that stand for real ones."""
    folder = tmp_path_factory.mktemp("prepared")
    sample = PhantomWorld(size=64, anatomy="varying", prevalence=0.5).sample(330, seed=0, images_per_patient=1)
    sample.write(folder / "world", min_patients_per_level=1).to_parquet(folder / "cohort.parquet")
    return str(folder / "cohort.parquet")


def planted(prepared: str, **wanted: object) -> PlantedFamily:
    source = Source(prepared, labels=("cardiomegaly", "effusion"))
    return PlantedFamily(PlantedCohort.read(source, Planting(**wanted), Narrator(quiet=True)))  # type: ignore[arg-type]


def test_real_images_go_through_the_same_sweep_page_and_tables(prepared: str, tmp_path: Path) -> None:
    family, shown = planted(prepared, effects=("shadow", "tone"), levels=("a", "b", "c")), replace(SMALL, hidden=0)
    found = run_pipeline(out=tmp_path, settings=shown, family=family, correlations=[0.3], seed=3)
    assert [row["model"] for row in found["models"]] == ["blind-00", "biased-00", "shortcut-00", "indifferent-00"]
    blind, biased, _, indifferent = found["models"]
    assert blind["true_psi"] == 0
    assert biased["true_flip_rate"] > 0.3  # the only biased one is the strongest
    assert biased["strength"] > 0
    assert indifferent["true_flip_rate"] < 0.05
    (world,) = found["worlds"]
    assert world["effect"]["relative_error"] > 0
    assert set(world["drift"]) == {"cardiomegaly", "effusion", "view"}
    page = (tmp_path / "pipeline.md").read_text()
    assert "Real images (330 of 330" in page
    assert "shadow, tone; strength" in page
    assert "VAE, preset tiny with steps 4, which holds cardiomegaly, effusion and view" in page
    assert "guidance" not in page
    assert found == run_pipeline(out=tmp_path, settings=shown, family=family, correlations=[0.3], seed=3)


def test_a_cue_hides_from_the_generator_in_real_images_too(
    prepared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two levels, and as many images as they need; of the three worlds, of 64 pixels, one is made."""
    family = planted(prepared, effects=("shadow", "tone"), levels=("less", "more"))
    family = replace(family, planted=replace(family.planted, cohort=family.planted.cohort.take(np.arange(240))))
    cues = replace(SMALL, blind=0, biased=0, shortcuts=0, indifferent=0)
    places = hidden_places(replace(cues, correlations=(0.3,)), 3)
    assert {cue for cue, _ in places} == {"texture", "region", "marker"}
    for cue, place in places:
        units = family.draw(place, size=64, patients=1).take(np.arange(60))
        # The first use is the cue alone.
        assert hidden_truth(CueReader(cue, units.counterfactual("less")), cue, units, family.levels).flip_rate > 0.3
    monkeypatch.setattr("citlr.studies.pipeline.making.CUES", ("texture",))
    found = run_pipeline(out=tmp_path, settings=cues, family=family, correlations=[0.3], seed=3)
    (row,) = found["hidden"]
    assert row["cue"] == "texture"
    assert row["true_flip_rate"] > 0.3
    assert found["models"] == found["worlds"] == []
    assert found == run_pipeline(out=tmp_path, settings=cues, family=family, correlations=[0.3], seed=3)


def test_a_cue_is_audited_again_in_worlds_of_another_correlation(
    prepared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such worlds have the correlation that was asked for where it is less than usual: .1 here, and .3 before."""
    family = planted(prepared, effects=("shadow", "tone"), levels=("less", "more"))
    cues = replace(SMALL, blind=0, biased=0, shortcuts=0, indifferent=0)
    made: list[float] = []

    def make(family: object, cue: str, place: Place, *rest: object) -> None:
        made.append(place.correlation)
        raise RuntimeError("made")

    monkeypatch.setattr("citlr.studies.pipeline.run.make_hidden_world", make)
    monkeypatch.setattr("citlr.studies.pipeline.run._publish", lambda made, seed: {})
    asked: dict[str, Any] = {"out": tmp_path, "settings": cues, "family": family, "seed": 3}
    with pytest.raises(RuntimeError, match="made"):
        run_pipeline(**asked, correlations=[0.3])
    key = stage_key("pipeline", {"seed": 3, "settings": cues.to_json(), "family": family.describe()})
    log = Rows(tmp_path / "pipeline.jsonl", {"key": key}, other="")
    for cue, place in hidden_places(replace(cues, correlations=(0.3,)), 3):
        ((candidate, _, _),) = hidden_candidates(1, place.seed, family.findings)
        log.add({"what": "hidden", "cue": cue, "correlation": 0.3, "model": candidate.name})
    run_pipeline(**asked, correlations=[0.3])  # all is there
    with pytest.raises(RuntimeError, match="made"):
        run_pipeline(**asked, correlations=[0.1])
    assert made == [0.3, 0.1]


def test_of_three_levels_the_last_has_the_cue_and_is_judged_against_the_first(prepared: str) -> None:
    levels = ("a", "b", "c")
    units = planted(prepared, effects=("tone",), levels=levels).draw(Place(0, 0, 1), size=64, patients=1)
    part = units.take(np.arange(24))
    shown = np.abs(cued(part, "region", levels=levels) - part.images()).max(axis=(1, 2, 3)) > 0
    assert shown.tolist() == (part.level == 2).tolist()
    truth = hidden_truth(CueReader("region", part.counterfactual("a")), "region", part, levels)
    assert truth.contrast == ("a", "c")
    assert truth.mean_effect > 0.3  # the second level has no cue, and no effect of it


@pytest.mark.slow
def test_two_workers_count_the_same(prepared: str, tmp_path: Path) -> None:
    family = planted(prepared, effects=("shadow", "tone"))
    asked: dict[str, Any] = {"settings": SMALL, "family": family, "correlations": [0.3], "seed": 3}
    one, two = (
        run_pipeline(out=tmp_path / str(workers), **asked, engine=Engine(workers=workers)) for workers in (1, 2)
    )
    for found in (one, two):
        for world in found["worlds"]:
            del world["fit_core_seconds"]  # what they computed is the same, how long it took is not
    assert two == one


def test_the_classifiers_of_a_world_are_what_their_kinds_say(prepared: str, tmp_path: Path) -> None:
    family, place = planted(prepared, effects=("shadow", "organ")), Place(0.6, 0, 5)
    units = family.draw(place, size=32, patients=1)
    units.write(tmp_path)
    cohort = family.read(tmp_path, place, SMALL)
    assert {name: len(cohort.part(name)) for name in ("train", "validation", "test")} == {
        "train": 231, "validation": 33, "test": 66
    }  # fmt: skip
    chosen = family.candidates(replace(SMALL, blind=2, biased=3), place)
    test = units.of_images(cohort.part("test").frame["image_id"])
    flips: dict[str, list[float]] = {}
    for candidate, module in family.build(chosen, place, SMALL, Drawn(units, cohort)):
        flips.setdefault(candidate.kind, []).append(true_effect(classify(module), test, family.levels).flip_rate)
        assert (candidate.strength < 0) == (candidate.rate < 0)
    assert flips["blind"] == [0, 0]
    assert max(flips["indifferent"]) < 0.05
    assert min(flips["biased"]) < 0.1 < 0.25 < max(flips["biased"])


def test_changes_are_from_the_own_level_and_exact(prepared: str) -> None:
    units = planted(prepared, effects=("tone",), levels=("a", "b", "c")).draw(Place(0, 0, 1), size=32, patients=1)
    part = units.take(slice(0, 5))
    found = true_changes(part, ("a", "b", "c")).reshape(5, 2, 1, 32, 32)
    own = [part.take([k]).counterfactual("abc"[part.level[k]], digital=False)[0] for k in range(5)]
    others = [[name for name in "abc" if name != "abc"[part.level[k]]] for k in range(5)]
    for k in range(5):
        for j, name in enumerate(others[k]):
            changed = part.take([k]).counterfactual(name, digital=False)[0]
            assert np.array_equal(found[k, j], changed - own[k])
    assert np.abs(changes(np.zeros((2, 2, 1)), np.array([0, 1]))).max() == 0


def test_the_anatomy_varies_where_it_is_asked_for() -> None:
    place = Place(0.4, 0, 1)
    fixed, varying = (PhantomFamily(kind).draw(place, size=32, patients=3) for kind in ("fixed", "varying"))
    assert fixed.frame.equals(varying.frame)
    assert not np.array_equal(fixed.images(), varying.images())
    assert choose_family("varying", None, NOTHING, seed=0, narrator=Narrator()) == PhantomFamily("varying")
    assert choose_family("phantom", None, NOTHING, seed=0, narrator=Narrator()) == PhantomFamily("fixed")


def test_another_generator_leaves_the_options_of_the_first_behind() -> None:
    assert with_generator(QUICK, None, None) == QUICK
    other = with_generator(QUICK, "latent-shift", "tiny")
    assert (other.kind, other.preset, other.options) == ("latent-shift", "tiny", {})
    with pytest.raises(InputError, match="Did you mean 'vae'"):
        with_generator(QUICK, "vaes", None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--world", "semi"], "Did you mean 'semireal'"),
        (["--world", "semireal"], "say which with --cohort"),
        (["--world", "varying", "--effect", "tone"], "--effect goes with --world semireal"),
        (["--cohort", "{cohort}", "--effect", "tune"], "Did you mean 'tone'"),
        (["--cohort", "{cohort}", "--effect", "null"], "no image shows"),
        (["--cohort", "{cohort}", "--label", "oedema"], "Did you mean 'edema'"),
        (["--cohort", "{cohort}", "--hold", "weight"], "no label or covariate"),
        (["--cohort", "{cohort}", "--level", "one"], "two different names"),
        (["--cohort", "{cohort}", "--correlation", "1.4"], "ask for less"),
        (["--kind", "gan"], "no generator of the kind 'gan'"),
        (["--preset", "tinny"], "Did you mean 'tiny'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    prepared: str, tmp_path: Path, arguments: list[str], said: str
) -> None:
    from citlr.cli.app import app

    given = [argument.format(cohort=prepared) for argument in arguments]
    result = CliRunner().invoke(app, ["calibrate", "--pipeline", "--quick", "--out", str(tmp_path / "out"), *given])
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_worlds_without_the_pipeline_are_an_error_of_use(tmp_path: Path) -> None:
    from citlr.cli.app import app

    result = CliRunner().invoke(app, ["calibrate", "--world", "varying", "--out", str(tmp_path)])
    assert "--world goes with --pipeline" in str(result.exception)


def test_tables_say_which_worlds_they_are_of(tmp_path: Path) -> None:
    assert PhantomFamily("varying").describe() == {"world": "phantom", "anatomy": "varying"}
    assert "fingerprint" not in read_json(Path(__file__).parents[2] / "docs" / "pipeline.json").get("family", {})


def test_one_word_makes_the_varying_anatomy_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every study asks `DEFAULT_WORLD`, none has a word of its own."""
    assert choose_family(None, None, NOTHING, seed=0, narrator=Narrator()) == PhantomFamily(anatomy_of(DEFAULT_WORLD))
    for place in ("pipeline.families", "generation.study", "imaging.study", "demo"):
        monkeypatch.setattr(f"citlr.studies.{place}.DEFAULT_WORLD", "varying")
    assert choose_family(None, None, NOTHING, seed=0, narrator=Narrator()) == PhantomFamily("varying")
    effort = replace(PRESETS["smoke"], patients=240)
    study = phantom_study(Source(correlation=0.3), effort, Stages(tmp_path, Narrator(quiet=True)))
    assert study.sample is not None
    assert study.sample.world.anatomy == "varying"


def test_a_study_of_a_prepared_cohort_takes_its_split_whatever_its_own_seed(tmp_path: Path) -> None:
    cohort = PhantomWorld(size=32).sample(400, seed=0, images_per_patient=1).write(tmp_path, min_patients_per_level=1)
    cohort.to_parquet(tmp_path / "cohort.parquet")
    source = Source(cohort=str(tmp_path / "cohort.parquet"), seed=7)
    taken = take_source(source, Narrator(quiet=True)).cohort
    assert taken.frame["split"].tolist() == cohort.frame["split"].tolist()
