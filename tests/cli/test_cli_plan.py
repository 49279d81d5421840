"""`citlr plan`: what is refused, what is foreseen, and how near it is to what the audit then takes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from as_user import CONFIG, citlr
from safetensors.torch import save_file

from citlr.audit.planning.outlook import foresee
from citlr.audit.planning.plan import Forecast
from citlr.audit.planning.records import AuditPlan, Outlook, StagePlan
from citlr.config.reading import parse_config
from citlr.generators.conditions import Conditions
from citlr.generators.edits.generator import EditGenerator
from citlr.simulators.phantom.world import PhantomWorld


@pytest.fixture(scope="module")
def planned(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("plan")
    done = citlr("plan", world / "audit.yaml", "--out", folder / "run", "--json", folder / "plan.json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (folder / "run").exists()
    return {"said": done.stdout, **json.loads((folder / "plan.json").read_text())}


def records(run: Path) -> dict[str, dict[str, Any]]:
    every = [json.loads(file.read_text()) for file in (run / "stages").glob("*.json")]
    return {one["name"].split(".")[0]: one for one in every}


def test_the_plan_is_near_to_what_the_audit_takes(planned: dict[str, Any], never_killed: Path) -> None:
    from safetensors import safe_open

    taken, stages = records(never_killed), {one["stage"]: one["seconds"] for one in planned["stages"]}
    assert set(stages) == set(taken)
    for part, count in planned["parameters"].items():
        with safe_open(never_killed / "generator" / f"{part}.safetensors", "pt") as file:
            stored = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 - not a mapping
        assert count <= stored <= count + 4096, part  # beside buffers
    assert {"autoencoder", "denoiser"} == set(planned["parameters"])
    whole = sum(one["seconds"] for one in taken.values())
    assert planned["seconds"] / 10 < whole < planned["seconds"] * 10
    kept = sum(file.stat().st_size for file in never_killed.rglob("*") if file.is_file()) / 1e6
    assert planned["disk_mb"]["finished"] / 3 < kept < planned["disk_mb"]["finished"] * 3
    assert sum(one["images"] for one in planned["images"].values()) == taken["cohort"]["facts"]["images"] == 200
    assert planned["peak_memory_mb"] > 200


def test_more_findings_take_more_patients(tmp_path: Path) -> None:
    """The verdict is the worst of the rows: of two findings both have to be equivalent."""
    cohort = PhantomWorld(size=32).sample(60, seed=0, images_per_patient=1).write(tmp_path, min_patients_per_level=1)
    base = {"model": {"source": "m.pt2", "labels": ["cardiomegaly"], "output": "logit"}}
    usual = {}
    for outcome in ("decision", "probability"):
        for labels in (["cardiomegaly"], ["cardiomegaly", "effusion"]):
            asked = {"table": "t.csv", "images": "i", "attribute": "sex", "labels": labels}
            content = {**base, "cohort": asked, "test": {"margin": 0.05, "outcome": outcome}}
            config = parse_config(content, "audit.yaml")
            usual[outcome, len(labels)] = foresee(cohort, config).usual
    assert usual["decision", 2] > usual["decision", 1] > 59
    assert usual["probability", 1] == 59  # draws that differ by three points are no noise for a margin of five


def test_it_says_settings_patients_and_what_is_out_of_reach(planned: dict[str, Any], world: Path) -> None:
    said = planned["said"]
    for words in (
        "12 steps of 32",
        "stage fit",
        "held",
        "32 x 32 pixels",
        "network denoiser",
        "level female",
        "are free",
    ):
        assert words in said, words
    assert planned["outlook"]["fewest"] == 149
    assert "WARNING" in said
    assert "inconclusive from the start" in said
    assert str(world) not in said + json.dumps(planned)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"generator": {"size": 33}}, "give a multiple of"),
        ({"cohort": {"table": "nowhere.csv"}}, "There is no table at"),
        ({"cohort": {"attribute": "sexx"}}, "sexx"),
        ({"model": {"source": "nowhere.ts"}}, "There is no file"),
        ({"cohort": {"min_patients_per_level": 1000}}, "Too few patients in the test split"),
        ({"quality": {"learning_curve": [0.4, 0.01]}}, "quality.learning_curve asks for 0.01 of the training images"),
    ],
    ids=["size", "table", "attribute", "model", "patients", "curve"],
)
def test_what_an_audit_refuses_is_refused_in_the_same_words(
    configure: Callable[..., Path], changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    file = configure(**changes)
    plan, dry = citlr("plan", file, "--quiet", cwd=tmp_path), citlr("audit", file, "--dry-run", "--quiet", cwd=tmp_path)
    real = citlr("audit", file, "--until", "cohort", "--quiet", cwd=tmp_path)
    assert plan.returncode == dry.returncode == real.returncode == 2
    assert says in plan.stderr
    assert plan.stderr == dry.stderr == real.stderr


def no_validation(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(split=np.where(np.arange(len(frame)) < 140, "train", "test"))


def held_blank(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(view=frame["view"].where(frame["sex"] == "male"))


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (no_validation, {"split": "split"}, "140 training and 0 validation images: both need at least one"),
        (held_blank, {}, "'view' is blank in every training image of 'sex' = 'female'"),
    ],
)
def test_what_the_whole_cohort_shows_is_refused_before_the_training_and_not_of_a_sample(
    configure: Callable[..., Path],
    world: Path,
    tmp_path: Path,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    options: dict[str, str],
    says: str,
) -> None:
    change(pd.read_csv(world / "world" / "phantom.csv")).to_csv(tmp_path / "table.csv", index=False)
    file = configure(cohort={"table": "table.csv", **options}, generator={"hold": ["view"]})
    done = [citlr(*words, "--quiet", cwd=tmp_path) for words in (("plan", file), ("audit", file, "--until", "cohort"))]
    for one in done:
        assert (one.returncode, says in one.stderr) == (2, True), one.stderr
    assert done[0].stderr == done[1].stderr


def test_what_goes_with_the_attribute_and_is_not_held_is_said_before_training(
    configure: Callable[..., Path], world: Path, tmp_path: Path
) -> None:
    frame = pd.read_csv(world / "world" / "phantom.csv")
    frame["ward"] = np.where(frame["sex"] == "male", "north", "south")
    frame.loc[::5, "ward"] = "north"
    frame.to_csv(tmp_path / "table.csv", index=False)
    note = "'ward' goes with 'sex'"
    cohort = {"table": "table.csv", "covariates": ["view", "ward"]}
    file = configure(cohort=cohort)
    assert note in citlr("plan", file, "--quiet", cwd=tmp_path).stdout
    done = citlr("audit", file, "--until", "cohort", cwd=tmp_path)
    assert note in done.stdout + done.stderr
    file = configure(cohort=cohort, generator={"hold": ["view", "ward"]})
    done = citlr("audit", file, "--until", "cohort", cwd=tmp_path)
    assert note not in done.stdout + done.stderr


SHORT = {name: CONFIG["generator"]["options"][name] for name in ("ae_steps", "ae_channels", "unet_channels")} | {
    "denoiser_steps": 12,
    "phi_steps": 4,
    "information_steps": 4,
}


@pytest.mark.parametrize(
    "generator",
    [
        {"kind": "vae", "size": 32, "options": {"steps": 12, "channels": [8, 16]}},
        {"kind": "latent-shift", "size": 32, "options": {"probe_steps": 12, "autoencoder": {"ae_steps": 12}}},
        {"kind": "cldm", "preset": "published", "size": 32, "options": SHORT},
        # With the publication's game on top: a disentangler against a critic.
        pytest.param({"kind": "dldm", "preset": "published", "size": 32, "options": SHORT}, marks=pytest.mark.slow),
        # Edits are found of 160 images as they are of thousands: most of it takes the same time.
        pytest.param({"kind": "edits", "size": 32, "options": {}}, marks=pytest.mark.slow),
    ],
    ids=["vae", "latent-shift", "cldm", "dldm", "edits"],
)
def test_every_kind_of_generator_is_planned_and_a_closed_model_is_its_owners(
    configure: Callable[..., Path], generator: dict[str, Any], tmp_path: Path
) -> None:
    import yaml

    file = configure()
    content = yaml.safe_load(file.read_text())
    content["generator"] = {"preset": "tiny", **generator, "hold": ["view"]}
    content["model"] = {"kind": "closed", "labels": ["cardiomegaly"], "input": {"size": 32}}
    file.write_text(yaml.safe_dump(content))
    done = citlr("audit", file, "--dry-run", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "elsewhere" in done.stdout
    assert generator["kind"] in done.stdout
    assert "nothing is trained" not in done.stdout
    assert ("no network is trained" in done.stdout) is (generator["kind"] == "edits")
    if generator["kind"] in ("cldm", "dldm"):
        assert ("network disentangler" in done.stdout) is (generator["kind"] == "dldm")


def test_edits_that_a_pilot_finds_none_of_have_their_place_on_the_disk() -> None:
    from citlr.config import AuditConfig

    options: dict[str, Any] = {"kind": "edits", "size": 32, "preset": "tiny", "options": {}}
    config = AuditConfig.model_validate(
        {**CONFIG, "generator": options, "model": {"kind": "closed", "labels": ["cardiomegaly"]}}
    )
    request = SimpleNamespace(placebo_images=16, replicate_images=10)
    images = {"train": 48, "validation": 16, "test": 8}
    pilot: Any = SimpleNamespace(images=images, mb=defaultdict(float), request=request, levels=2, generator=None)
    pilot.mb["replicates", "rest"] = 0.0
    found = Forecast(pilot, {"train": 671, "validation": 91, "test": 238}, config).disk()
    # Measured on 238 radiographs at 32 pixels, with as many for the coin and replicates: 1.15 MB.
    assert 1.15 / 1.5 < found["finished"] < 1.15 * 1.5


@pytest.mark.parametrize(("p", "times"), [(0.4, 8), (0.001, 1)])
def test_edits_take_longer_where_more_is_shown_of_all_images_than_of_a_pilot(p: float, times: int) -> None:
    from citlr.audit.planning.stopwatch import Stopwatch
    from citlr.config import AuditConfig

    config = AuditConfig.model_validate(
        {**CONFIG, "generator": {"kind": "edits"}, "model": {"kind": "closed", "labels": ["cardiomegaly"]}}
    )
    generator = EditGenerator(size=32)
    found = {"kinds": [], "left": {}}
    generator.report = {"edits": {"images": 160, "sex": {**found, "p": p}, "placebo": {**found, "p": 0.001}}}
    pilot: Any = SimpleNamespace(
        images={"train": 160, "validation": 16, "test": 8}, generator=generator, paces={}, flown=0.0,
        watches={"fit": Stopwatch()}, seconds={"fit": 3.0},
    )  # fmt: skip
    forecast = Forecast(pilot, {"train": 640, "validation": 91, "test": 238}, config)
    assert forecast._fit() == pytest.approx(3 * 4 * times)
    assert ("sooner where nothing is shown" in forecast._fitted()) is (times > 1)


def test_an_alignment_that_a_pilot_does_not_take_has_its_place_on_the_disk(tmp_path: Path) -> None:
    """The file of edits is twice as large with it, and more: counted once, where it is there already and where not."""
    from citlr.config import AuditConfig

    frame = PhantomWorld(size=64).sample(60, seed=0, images_per_patient=1).frame
    conditions = Conditions.of(frame, attributes=["sex"], hold=["view"], coin_seed=0)
    generator = EditGenerator(size=64)
    generator.build(conditions, seed=0)
    generator._conditions = conditions
    asked = {**CONFIG, "generator": {"kind": "edits"}, "model": {"kind": "closed", "labels": ["cardiomegaly"]}}
    request, taken, told = SimpleNamespace(placebo_images=0, replicate_images=0), [], []
    for aligned in (False, True):
        if aligned:
            generator.take({"aligned": ["sex"]})
        save_file(generator.edits.state_dict(), tmp_path / "edits.safetensors")
        taken.append((tmp_path / "edits.safetensors").stat().st_size / 1e6)
        pilot: Any = SimpleNamespace(
            images={"train": 48, "validation": 12, "test": 8},
            mb=defaultdict(float, {("generator", "rest"): taken[-1]}),
            request=request,
            levels=2,
            generator=generator,
            paces={},
        )
        plan = Forecast(pilot, {"train": 48, "validation": 12, "test": 8}, AuditConfig.model_validate(asked))
        told.append(plan.disk()["finished"])
    assert taken[1] > 2 * taken[0]
    assert told[0] == pytest.approx(told[1], abs=0.2)


def test_what_will_not_fit_and_what_will_take_days_is_said() -> None:
    plan = AuditPlan(
        images={"train": {"images": 190_000, "patients": 60_000}},
        levels={},
        pictures="",
        held=(),
        generator={},
        parameters={},
        stages=(StagePlan("fit", 400_000.0, "denoiser"), StagePlan("predict", None, "")),
        peak_memory_mb=None,
        peak_gpu_mb=None,
        disk_mb={"finished": 90_000.0, "while it works": 20_000.0},
        free_disk_mb=100_000.0,
        outlook=Outlook(patients=30_000, margin=0.02, fewest=149, usual=900),
        notes=(),
        benchmark_seconds=30.0,
    )
    assert "The disk has 100.0 GB free and the run needs about 110.0 GB." in str(plan)
    assert "4.6 days" in str(plan)
    assert "there are 30000" in str(plan)
