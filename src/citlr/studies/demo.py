"""The demo: an embedded world, one classifier that cannot see the attribute and one that uses it, one audit of both."""

from pathlib import Path
from typing import Any

import yaml

from citlr.audit.results.result import AuditResult
from citlr.config import parse_config, read_config
from citlr.console import QUIET, Narrator
from citlr.predictors.export import export_program, make_card
from citlr.predictors.specs import InputSpec, OutputSpec
from citlr.report.publish import run_audit
from citlr.run.files import write_text
from citlr.run.folder import Run
from citlr.run.stage import Stage
from citlr.run.stages import Stages
from citlr.simulators.phantom.classifiers import BiasedClassifier, attribute_detector, train_blind
from citlr.simulators.phantom.world import PhantomWorld
from citlr.studies.kit.worlds import DEFAULT_WORLD, anatomy_of, world_folder

FINDING = "cardiomegaly"
SIZE = 64
# Logits that the biased model adds for a male image: enough to move the calls of many hearts near the threshold.
BIAS = 2.0


def run_demo(
    out: str | Path, *, seed: int = 0, patients: int = 3000, narrator: Narrator | None = None
) -> dict[str, AuditResult]:
    """Make the world and the two classifiers, and audit them; run again, it goes on where it was."""
    root = Path(out)
    narrator = narrator or QUIET
    stages = Stages(root, narrator)
    world = PhantomWorld(size=SIZE, correlation={FINDING: 0.3}, anatomy=anatomy_of(DEFAULT_WORLD))
    sample = world.sample(patients, seed=seed, images_per_patient=1)

    def write(folder: Path) -> None:
        narrator.say(
            f"world: {len(sample)} phantom radiographs of {patients} patients, sex and {FINDING} correlated by 0.3"
        )
        sample.write(folder, seed=seed)

    with stages.locked():
        world_folder(stages, sample, write=write)
        stages.do(_models_stage(world, seed, narrator))
    config_file = root / "audit.yaml"
    if not config_file.is_file():  # it is the user's from here on
        content = _config(seed)
        parse_config(content, str(config_file))
        write_text(config_file, yaml.safe_dump(content, sort_keys=False))
    return run_audit(Run.open(root / "run", read_config(config_file)), narrator=narrator)


def _models_stage(world: PhantomWorld, seed: int, narrator: Narrator) -> Stage:
    """Return the stage that trains the blind classifier on patients of its own, and adds the bias."""

    def work(folder: Path) -> None:
        narrator.say(
            f"models: a classifier of {FINDING} that cannot see the attribute, and one with {BIAS:g} logits of bias"
        )
        blind = train_blind(world.sample(500, seed=seed + 1_000_003), FINDING, seed=seed)
        biased = BiasedClassifier(blind, attribute_detector(world), strength=BIAS)
        for name, module in {"blind": blind, "biased": biased}.items():
            card = make_card([FINDING], input=InputSpec(size=SIZE), output=OutputSpec("logit"))
            export_program(module, folder / "models" / f"{name}.pt2", card)

    return Stage("models", {"world": repr(world), "seed": seed, "bias": BIAS}, work, ("models",))


def _config(seed: int) -> dict[str, Any]:
    model = {"labels": [FINDING], "input": {"size": SIZE}, "output": "logit"}
    return {
        "seed": seed,
        "cohort": {
            "table": "world/phantom.csv",
            "images": "world",
            "attribute": "sex",
            "levels": ["female", "male"],
            "labels": [FINDING],
            "covariates": ["view"],
            "fractions": [0.78, 0.10, 0.12],
            "split_seed": seed,
        },
        "generator": {
            "kind": "dldm",
            "preset": "tiny",
            "size": SIZE,
            "hold": ["view", FINDING],
            # Wider than "tiny", whose changes in rib contrast read as another view and fail the gate of the held view.
            "options": {"latent_channels": 16, "ae_steps": 250, "unet_channels": [64, 64], "denoiser_steps": 350},
        },
        # The defaults, a larger coin and ten cycles, say more and take a minute and a half; the demo has six in all.
        "controls": {"placebo_images": 100},
        "quality": {"cycles": 2},
        "report": {"gallery": 6},
        "models": {name: {"source": f"models/{name}.pt2", **model} for name in ("blind", "biased")},
    }
