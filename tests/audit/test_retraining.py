"""The learning curve of a generator, measured: parts of whole patients, one training each, kept as they come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import citlr as package
from citlr.audit.generation import Counterfactuals, generate
from citlr.audit.measures import retraining
from citlr.audit.measures.faithfulness import QualitySettings, read_faithfulness
from citlr.audit.measures.retraining import Retraining
from citlr.audit.results.records import Carried, Estimate
from citlr.audit.stages import QUALITY, quality_stage
from citlr.config import GateConfig, QualityConfig
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.generators.oracle import Oracle
from citlr.generators.registry import build_generator
from citlr.predictors.export import export_torchscript, make_card
from citlr.predictors.specs import InputSpec
from citlr.run.stage import Stage
from citlr.run.stages import Stages
from citlr.simulators.phantom.classifiers import analytic_blind
from citlr.simulators.phantom.world import PhantomWorld

HOLD = ("cardiomegaly",)
QUIET = Narrator(quiet=True)
SHARES = (0.5, 0.25)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cohort, Counterfactuals]:
    # Some 170 of 260 images teach a probe of 80 steps the sex (of seeds 0, 7 and 8): untrusted, it would give no curve.
    root = tmp_path_factory.mktemp("curve")
    phantom = PhantomWorld(size=32)
    cohort = phantom.sample(130, seed=0, images_per_patient=2).write(root / "world", min_patients_per_level=5)
    model = analytic_blind(phantom, "cardiomegaly").eval()
    export_torchscript(model, root / "model.ts", make_card(["cardiomegaly"], input=InputSpec(size=32)))
    generator = build_generator("vae", size=32, hold=HOLD, steps=20, batch=16, channels=(8, 8), accelerator="cpu")
    generator.fit(cohort.part("train"), cohort.part("validation"), seed=0, narrator=QUIET)
    options = {"attribute": "sex", "draws": 2, "placebo_images": 0, "replicate_images": 0, "guidance": 1.5}
    return root, cohort, generate(generator, cohort.part("test"), out=root / "drawn", **options)


def stage_of(cohort: Cohort, drawn: Counterfactuals) -> Stage:
    splits = (cohort.part("train"), cohort.part("validation"))
    settings = QualitySettings(HOLD, probe_steps=80, cycles=1, learning_curve=SHARES)
    return quality_stage(lambda: drawn, splits, settings, after=("drawn",), narrator=QUIET)


def test_every_part_has_a_point_and_a_killed_run_goes_on(
    drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cohort, counterfactuals = drawn
    whole, killed = Stages(tmp_path / "whole"), Stages(tmp_path / "killed")
    whole.do(stage_of(cohort, counterfactuals))
    found = read_faithfulness(whole.path(QUALITY))
    assert set(found.curves) == {32}
    train = cohort.part("train")
    sizes = [len(train.fewer(round(share * len(train)), seed=0)) for share in sorted(SHARES)]
    points = found.curve_at(32)
    assert [point.images for point in points] == [*sizes, len(train)]
    assert points[-1].shares == found.carried_at(32).shares
    assert all(set(point.shares) == set(counterfactuals.levels) for point in points)

    fit, trained = type(counterfactuals.generator).fit, []

    def dies(generator, part, *rest, **options):
        trained.append(len(part))
        if len(trained) == 2:
            raise KeyboardInterrupt
        return fit(generator, part, *rest, **options)

    monkeypatch.setattr(type(counterfactuals.generator), "fit", dies)
    with pytest.raises(KeyboardInterrupt):
        killed.do(stage_of(cohort, counterfactuals))
    killed.do(stage_of(cohort, counterfactuals))
    assert trained == [sizes[0], sizes[1], sizes[1]]
    assert read_faithfulness(killed.path(QUALITY)) == found
    assert not list(killed.path(".work").glob("quality*"))


@pytest.mark.slow
def test_parts_are_drawn_as_the_audited_images_were_and_read_at_every_size(
    drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cohort, counterfactuals = drawn
    seen: list[Counterfactuals] = []
    eyes = [SimpleNamespace(size=size) for size in (32, 224)]

    def look(again: Counterfactuals, eye: SimpleNamespace, *_: object) -> Carried:
        seen.append(again)
        return Carried(eye.size, {"F": Estimate(eye.size, 0.0, 1.0)})

    monkeypatch.setattr(retraining, "read_carried", look)
    again = Retraining(counterfactuals, cohort.part("train"), cohort.part("validation"), HOLD, 0, QUIET)
    (part,) = again.parts((0.25,))
    found = again.curves([part], eyes, tmp_path)
    assert {size: points[0].shares["F"].estimate for size, points in found.items()} == {32: 32, 224: 224}
    assert seen[0] is seen[1]
    plan = seen[0].main.plan
    assert replace(plan, key="", draws=2) == replace(counterfactuals.main.plan, key="")
    assert plan.guidance == 1.5
    assert not (tmp_path / str(len(part))).exists()
    assert counterfactuals.generator is not seen[0].generator
    assert seen[0].generator.config == counterfactuals.generator.config


def test_parts_are_of_whole_patients_and_lie_in_each_other(drawn) -> None:
    _, cohort, counterfactuals = drawn
    train = cohort.part("train")
    again = Retraining(counterfactuals, train, cohort.part("validation"), HOLD, 0, QUIET)
    small, large = again.parts((0.5, 0.25, 0.25, 0.9999))
    patients = [set(part.frame["patient_id"]) for part in (small, large)]
    assert patients[0] < patients[1]
    assert len(small) == train.frame["patient_id"].isin(patients[0]).sum()
    assert again.parts(()) == []


def test_a_part_that_cannot_train_the_generator_is_refused(drawn) -> None:
    _, cohort, counterfactuals = drawn
    train = cohort.part("train")
    few = Retraining(counterfactuals, train, cohort.part("validation"), HOLD, 0, QUIET)
    with pytest.raises(InputError, match=r"quality.learning_curve asks for 0.001 .* cannot train the generator"):
        few.parts((0.001,))
    small = set(train.fewer(round(0.2 * len(train)), seed=0).frame["patient_id"])
    frame = train.frame.assign(cardiomegaly=(~train.frame["patient_id"].isin(small)).astype(float))
    rare = replace(few, train=replace(train, frame=frame))
    with pytest.raises(InputError, match="hold none of 'cardiomegaly' = '1': ask for a larger share"):
        rare.parts((0.2,))
    oracle = replace(counterfactuals, generator=Oracle.__new__(Oracle))
    with pytest.raises(InputError, match="which Oracle does not offer: leave"):
        replace(few, counterfactuals=oracle).parts((0.5,))


@pytest.mark.slow
def test_an_audit_in_python_takes_a_learning_curve(drawn, tmp_path: Path) -> None:
    root, _, counterfactuals = drawn
    model = package.load_predictor(root / "model.ts")
    options = {"gates": GateConfig(probe_steps=150), "randomizations": 99, "out": tmp_path}
    result = package.audit(model, counterfactuals, quality=QualityConfig(cycles=1, learning_curve=(0.5,)), **options)
    assert len(result.quality.curve) == 2
    assert result.quality.curve[-1].shares == result.quality.carried.shares
    result.to_html(tmp_path / "audit.html")
    assert "Would more training images help?" in (tmp_path / "audit.html").read_text()
