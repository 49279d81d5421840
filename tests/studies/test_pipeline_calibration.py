"""`citlr calibrate --pipeline`: the audits it makes, what they add up to, and that a run cut off goes on."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from citlr.audit.generation import generate
from citlr.audit.measures.faithfulness import QualitySettings, assess_faithfulness
from citlr.console import QUIET
from citlr.errors import InputError, StateError
from citlr.generators.oracle import Oracle
from citlr.run.files import read_json
from citlr.run.rows import Rows
from citlr.simulators.phantom.classifiers import classify
from citlr.simulators.phantom.effects import true_effect
from citlr.studies.calibration.counts import exact_bounds
from citlr.studies.pipeline.families import Drawn, PhantomFamily
from citlr.studies.pipeline.making import PipelineWorld
from citlr.studies.pipeline.page import write_pipeline_page
from citlr.studies.pipeline.run import Making, _publish, audit_one, run_pipeline
from citlr.studies.pipeline.study import (
    FINDINGS,
    LEVELS,
    QUICK,
    PipelineSettings,
    Place,
    as_predictor,
    build_models,
    candidates,
)
from citlr.studies.pipeline.tables import summarise_hidden, summarise_pipeline

SMALL = replace(
    QUICK,
    correlations=(0.4,),
    blind=1,
    biased=1,
    shortcuts=0,
    indifferent=0,
    hidden=0,
    patients=340,
    model_patients=60,
    epochs=2,
    placebo_images=8,
    probe_steps=10,
    options={
        "ae_channels": [8],
        "ae_steps": 4,
        "unet_channels": [16, 16],
        "denoiser_steps": 4,
        "information_steps": 2,
        "recentre": 20,
        "guidance": 1.0,
    },
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    run_pipeline(out=folder, settings=SMALL, seed=3)
    return folder


def test_the_order_in_which_worlds_finish_changes_nothing(finished: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (finished / "pipeline.jsonl").read_text().splitlines()]
    first = [{name: value for name, value in line.items() if name != "key"} for line in lines]
    second = [{**line, "number": 1, "place": "another"} for line in first]
    found = []
    for name, arrived in (("one", first + second), ("two", second + first)):
        log = Rows(tmp_path / f"{name}.jsonl", {"key": name}, other="")
        for line in arrived:
            log.add(line)
        found.append(_publish(Making(PhantomFamily(), SMALL, tmp_path / name, log, QUIET), 3))
    assert found[0] == found[1]
    assert [one["number"] for one in found[0]["worlds"]] == [0, 1]


def test_every_classifier_of_every_world_has_its_row(finished: Path) -> None:
    tables = read_json(finished / "pipeline.json")
    assert [row["model"] for row in tables["models"]] == ["blind-00", "biased-00"]
    blind, biased = tables["models"]
    assert blind["true_psi"] == blind["true_mean_effect"] == 0
    assert biased["true_psi"] > 0.1
    assert blind["finding"] == biased["finding"]  # the biased one is the blind one with a dose of the attribute
    # Four steps make no generator: the gates have to say so, and then nobody is accused and nobody cleared.
    assert blind["failed_gates"]
    assert blind["verdict"] == biased["verdict"] == "inconclusive"
    assert tables["summary"]["all"]["withheld"]["hits"] == 2
    (world,) = tables["worlds"]
    assert world["effect"]["relative_error"] > 0.5
    assert (finished / "pipeline.png").stat().st_size > 10_000
    assert "0 of 1 (0.0%) blind classifiers" in (finished / "pipeline.md").read_text()


def test_a_run_cut_off_goes_on_to_the_same_rows(finished: Path) -> None:
    log = finished / "pipeline.jsonl"
    before, rows = log.read_text(), read_json(finished / "pipeline.json")["models"]
    lines = before.splitlines(keepends=True)
    log.write_text("".join(lines[:-1]) + lines[-1][:30])  # killed while writing the last audit
    kept = (finished / "correlation-0.4-generator-0" / "stages" / "fit.json").stat().st_mtime_ns
    assert run_pipeline(out=finished, settings=SMALL, seed=3)["models"] == rows
    # The torn line is closed, not cut: other processes may be writing.
    assert log.read_text() == before[: -len(lines[-1])] + lines[-1][:30] + lines[-1] * 2
    assert (finished / "correlation-0.4-generator-0" / "stages" / "fit.json").stat().st_mtime_ns == kept


def test_rows_of_other_settings_are_refused(finished: Path) -> None:
    with pytest.raises(StateError, match="other settings"):
        run_pipeline(out=finished, settings=replace(SMALL, patients=341), seed=3)
    with pytest.raises(StateError, match="another seed"):
        run_pipeline(out=finished, settings=SMALL, seed=4)
    with pytest.raises(InputError, match="at least one"):
        run_pipeline(out=finished, settings=SMALL, seed=3, generators=0)
    with pytest.raises(InputError, match=r"no world of correlation 0\.5"):
        run_pipeline(out=finished, settings=SMALL, seed=3, correlations=[0.5])


def test_generators_without_the_pipeline_is_an_error_of_use(tmp_path: Path) -> None:
    from citlr.cli.app import app

    result = CliRunner().invoke(app, ["calibrate", "--generators", "2", "--out", str(tmp_path)])
    assert isinstance(result.exception, InputError)
    assert "--pipeline" in str(result.exception)


def test_with_exact_counterfactuals_the_innocent_are_cleared_and_the_biased_found() -> None:
    place = Place(0.4, 0, 7)
    world = place.world(32)
    sample = world.sample(330, seed=7, images_per_patient=1)
    with tempfile.TemporaryDirectory() as folder:
        cohort = sample.write(Path(folder), fractions=(0.2, 0.1, 0.7), seed=7)
        test = cohort.part("test")
        counterfactuals = generate(
            Oracle.of(sample), test, attribute="sex", levels=LEVELS, draws=2, placebo_images=10, seed=7
        )
        found = assess_faithfulness(
            counterfactuals,
            cohort.part("train"),
            cohort.part("validation"),
            QualitySettings((), probe_steps=20, cycles=1, seed=7),
        )
        units = sample.of_images(test.frame["image_id"])
        made = PipelineWorld(cohort, counterfactuals, found, units, {}, Drawn(sample, cohort))
        chosen = candidates(PipelineSettings(blind=2, biased=1, shortcuts=0, indifferent=1), seed=7)
        assert {candidate.finding for candidate in chosen[:2]} == set(FINDINGS)
        rows = []
        for candidate, module in build_models(chosen, world, patients=60, epochs=2):
            truth = true_effect(classify(module), units, LEVELS)
            rows.append(audit_one(candidate, as_predictor(candidate, module, size=32), truth, made, 7))
    assert [row["ungated_verdict"] for row in rows] == ["equivalent", "equivalent", "dependence", "equivalent"]
    for row in rows:  # an exact generator gives back the truth itself
        assert row["psi"] == pytest.approx(row["true_psi"])
        assert row["mean_effect"] == pytest.approx(row["true_mean_effect"])


def _row(kind: str, flip: float, verdict: str, ungated: str, **more: object) -> dict[str, object]:
    return {
        "correlation": 0.0,
        "kind": kind,
        "true_flip_rate": flip,
        "true_psi": flip,
        "true_mean_effect": flip,
        "psi": flip / 2,
        "mean_effect": -flip,
        "verdict": verdict,
        "ungated_verdict": ungated,
        "failed_gates": ["placebo"] if verdict != ungated else [],
        "agreement": 0.95,
        "agreement_rank": None,
        "agreement_auroc": 0.02,
        "carried": 0.97,
        "beyond": False,
        **more,
    }


def test_the_summary_counts_what_it_says() -> None:
    rows = [
        _row("blind", 0.0, "dependence", "dependence"),
        _row("blind", 0.0, "inconclusive", "dependence"),
        _row("blind", 0.0, "equivalent", "equivalent", correlation=0.8),
        _row("biased", 0.3, "dependence", "dependence"),
        _row("biased", 0.2, "equivalent", "equivalent"),
        _row("shortcut", 0.04, "inconclusive", "inconclusive"),
        _row("indifferent", 0.01, "inconclusive", "dependence"),
        _row("indifferent", 0.00, "equivalent", "equivalent"),
    ]
    every = summarise_pipeline(rows)["all"]
    assert (every["false_alarms"]["hits"], every["false_alarms"]["of"]) == (1, 3)
    assert every["false_alarms_on_trust"]["hits"] == 2
    assert (every["detected"]["hits"], every["detected"]["of"]) == (1, 2)
    assert every["acquitted"]["hits"] == 1
    assert every["withheld"]["hits"] == 2
    # The indifferent ones are counted apart: neither innocent by construction nor biased.
    assert [every[f"indifferent_{what}"]["hits"] for what in ("accused", "accused_on_trust", "cleared")] == [0, 1, 1]
    assert every["indifferent_psi"] == [0.01, 0.005]
    assert every["spearman_psi"] == pytest.approx(1)
    assert every["spearman_mean_effect"] == pytest.approx(-1)
    assert summarise_pipeline(rows)["0.8"]["false_alarms"]["hits"] == 0
    # The exact bound: with 60 innocent ones, none accused says at most 4.9 %.
    assert exact_bounds(0, 60, 0.95)[1] == pytest.approx(1 - 0.05 ** (1 / 60))


def test_what_the_gates_cost_and_what_hides_from_the_generator_is_counted(finished: Path, tmp_path: Path) -> None:
    rows = [
        _row("blind", 0.0, "inconclusive", "equivalent"),
        _row("blind", 0.0, "inconclusive", "inconclusive"),
        _row("biased", 0.3, "dependence", "dependence"),
        _row("indifferent", 0.0, "inconclusive", "equivalent"),
    ]
    held_up = summarise_pipeline(rows)["all"]["held_up"]
    assert (held_up["hits"], held_up["of"]) == (1, 3)
    hidden = [
        _row("hidden", 0.5, "inconclusive", "equivalent", cue="texture", failed_gates=["agreement on effusion"]),
        _row("hidden", 0.4, "dependence", "dependence", cue="marker", failed_gates=[]),
    ]
    found = summarise_hidden(hidden)
    assert [found["all"][name]["hits"] for name in ("equivalent", "inconclusive", "dependence")] == [0, 1, 1]
    assert found["all"]["equivalent_on_trust"]["hits"] == 1
    gates = {"effectiveness": 0, "difference left": 0, "agreement": 1, "unexplained difference": 0}
    assert found["texture"]["gates"] == gates
    assert found["all"]["smallest_flip_rate"] == 0.4
    tables = read_json(finished / "pipeline.json")
    worlds = [{"cue": "texture", "carried": {"32": {"female": 0.9, "male": 0.8}, "64": "no better than chance"}}]
    tables |= {"hidden": hidden, "hidden_summary": found, "hidden_worlds": worlds}
    (tmp_path / "pipeline.json").write_text(json.dumps(tables))
    write_pipeline_page(tmp_path / "pipeline.json", tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "called *equivalent* 0 of 2 (0.0%), on trust 1; inconclusive 1, dependence 1." in text
    assert "| hidden, texture | 1 | 0.950 to 0.950 | unknown | 0.020 to 0.020 | 0.970 to 0.970 | 0 |" in text
    assert "| texture | 0 of 1 (0.0%) | 1 | 1 | 0 | 0 | 0 | 1 | 0 | 0.500 | 0.80 / unknown |" in text


def test_the_page_names_whoever_was_judged_wrongly(finished: Path, tmp_path: Path) -> None:
    tables = read_json(finished / "pipeline.json")
    accused = tables["models"][0] | {"verdict": "dependence", "failed_gates": []}
    tables["models"][0] = accused
    tables["summary"] = summarise_pipeline(tables["models"])
    (tmp_path / "pipeline.json").write_text(json.dumps(tables))
    write_pipeline_page(tmp_path / "pipeline.json", tmp_path / "page.md", figure="elsewhere.png")
    text = (tmp_path / "page.md").read_text()
    assert "False alarms: 1 of 1 (100.0%)" in text
    assert "| blind-00 (+0) |" in text
    assert "(elsewhere.png)" in text
