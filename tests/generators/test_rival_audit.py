from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from as_user import CONFIG, citlr

import citlr as package
from citlr.audit.gates.evidence import Evidence
from citlr.audit.gates.registry import gates_of
from citlr.audit.generation import generate
from citlr.audit.measures.faithfulness import Faithfulness
from citlr.audit.redrawing.coin import placebo_size
from citlr.audit.results.result import Carried, Quality, read_result
from citlr.config import GateConfig, QualityConfig
from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.generators.registry import build_generator
from citlr.predictors.export import export_torchscript, make_card
from citlr.predictors.specs import InputSpec
from citlr.run.files import read_json
from citlr.simulators.phantom.classifiers import analytic_blind
from citlr.simulators.phantom.world import PhantomWorld

OPTIONS: dict[str, dict] = {
    "edits": {},
    "vae": {"steps": 8, "channels": [8, 8], "beta": 2.0},
    "latent-shift": {"probe_steps": 8, "autoencoder": {"ae_steps": 8}},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cohort]:
    root = tmp_path_factory.mktemp("rival-audit")
    phantom = PhantomWorld(size=32)
    cohort = phantom.sample(200, seed=0, images_per_patient=1).write(root / "world")
    model = analytic_blind(phantom, "cardiomegaly").eval()
    export_torchscript(model, root / "model.ts", make_card(["cardiomegaly"], input=InputSpec(size=32)))
    return root, cohort


@pytest.mark.slow  # whole audits through a VAE are made by test_change_one_input.py
@pytest.mark.parametrize("kind", ["edits", "vae", "latent-shift"])
def test_an_audit_takes_a_rival_by_its_kind(world, tmp_path: Path, kind: str) -> None:
    root, _ = world
    for name in ("world", "model.ts"):
        (tmp_path / name).symlink_to(root / name)
    generator = {**CONFIG["generator"], "kind": kind, "options": OPTIONS[kind]}
    content = {**CONFIG, "generator": generator, "generate": {"draws": 4, "shard": 16}, "quality": {"cycles": 3}}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(content))
    done = citlr("audit", tmp_path / "audit.yaml", "--out", tmp_path / "run", "--quiet")
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "run" / "generator" / "config.json")["kind"] == kind
    result = read_result(tmp_path / "run" / "audit.json")
    assert result.controls.regeneration.n_images == result.tests[0].n_images
    assert set(result.quality.cycles) == {"1", "2", "3"}
    assert result.quality.similarity is not None
    assert set(result.quality.drift) | set(result.quality.off_target) <= {"cardiomegaly", "view"}
    page = (tmp_path / "run" / "audit.html").read_text()
    assert "further draws under the same level" in page
    assert "Composition, 3 cycles" in page


def test_an_audit_refuses_weights_that_are_not_there_before_anything_is_trained(world, tmp_path: Path) -> None:
    root, _ = world
    for name in ("world", "model.ts"):
        (tmp_path / name).symlink_to(root / name)
    content = {**CONFIG, "quality": {"features": "inception_v3:weights.pth"}}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(content))
    done = citlr("audit", tmp_path / "audit.yaml", "--out", tmp_path / "run", "--quiet")
    assert done.returncode == 2
    assert "There are no weights at" in done.stderr
    assert not (tmp_path / "run" / "generator").exists()


def test_a_number_is_redrawn_under_values_that_are_named(world) -> None:
    cohort = world[1]
    aged = Cohort(**{**vars(cohort), "frame": cohort.frame.assign(age=np.linspace(20, 90, len(cohort)))})
    vae = build_generator("vae", size=32, attributes=("age",), steps=2, batch=8, channels=(8, 8), accelerator="cpu")
    vae.fit(aged.part("train"), aged.part("validation"), seed=0)
    test = aged.part("test").take(range(3))
    with pytest.raises(InputError, match="'age' is a number: say under which values"):
        generate(vae, test, attribute="age")
    counterfactuals = generate(vae, test, attribute="age", levels=["40", "70"], draws=2, placebo_images=0)
    assert counterfactuals.levels == ("40", "70")
    assert len(counterfactuals.main) == 3


def test_an_audit_in_python_measures_with_what_it_is_told(world) -> None:
    root, cohort = world
    vae = build_generator("vae", size=32, steps=2, batch=8, channels=(8, 8), accelerator="cpu")
    vae.fit(cohort.part("train"), cohort.part("validation"), seed=0)
    test = cohort.part("test").take(range(24))
    # The coin's sample is sized by the margin of the audit to come, by the default one at least: here it takes all.
    counterfactuals = package.generate(vae, test, attribute="sex", draws=2, margin=0.5)
    assert len(counterfactuals.placebo) == len(test) < placebo_size(0.02)
    model = package.load_predictor(root / "model.ts")
    options = {"margin": 0.5, "gates": GateConfig(probe_steps=4), "randomizations": 99}
    result = package.audit(model, counterfactuals, quality=QualityConfig(cycles=2), **options)
    assert set(result.quality.cycles) == {"1", "2"}
    assert result.verdict == "inconclusive"  # no generator learns in two steps
    with pytest.raises(InputError, match="There are no weights at"):
        package.audit(model, counterfactuals, quality=QualityConfig(features="inception_v3:none.pth"), **options)


def test_the_gate_says_when_effectiveness_is_unknown() -> None:
    note = "The probe of 'sex' reads no better than chance."
    found = Faithfulness(Quality(None, {}, None, 0.0, {}, None, "", ()), (Carried(64, {}, note),))
    gates = gates_of(Evidence(GateConfig(placebo=False), found, found.carried_at(64)))
    # Of what is left nothing is held where it is not known.
    assert [gate.passed for gate in gates] == [False, False, True]
    assert gates[0].text.startswith("Composition is unknown: no null intervention was drawn.")
    assert gates[1].text.startswith(f"What share of the attribute the redrawn images carry is unknown. {note}")
