"""The smallest world that an audit runs through: is everything installed, and does it work together?

    python examples/smallest.py --out smallest && citlr audit smallest/audit.yaml --out smallest/run

About a minute of one core. Budgets are of a few steps: its verdict means nothing, and its gates say so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

import citlr
from citlr.predictors.export import export_program, make_card
from citlr.predictors.specs import InputSpec, OutputSpec
from citlr.simulators.phantom.classifiers import analytic_blind

FINDING, SIZE = "cardiomegaly", 32


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("smallest"))
    folder: Path = options.parse_args().out
    world = citlr.PhantomWorld(size=SIZE)
    world.sample(200, seed=0, images_per_patient=1).write(folder / "world")
    card = make_card([FINDING], input=InputSpec(size=SIZE), output=OutputSpec("logit"))
    export_program(analytic_blind(world, FINDING), folder / "model.pt2", card)
    config = {
        "cohort": {
            "table": "world/phantom.csv",
            "images": "world",
            "attribute": "sex",
            "labels": [FINDING],
            "covariates": ["view"],
        },
        "generator": {
            "preset": "tiny",
            "size": SIZE,
            "hold": ["view", FINDING],
            "options": {"ae_steps": 12, "denoiser_steps": 12, "phi_steps": 4, "sampling_steps": 2},
        },
        "generate": {"draws": 2},
        "model": {"name": "blind", "source": "model.pt2", "labels": [FINDING]},
        "test": {"randomizations": 199},
        "gates": {"probe_steps": 24},
        "controls": {"placebo_images": 16, "replicate_images": 10, "planted": [4.0], "bootstraps": 5},
        "quality": {"cycles": 2},
    }
    (folder / "audit.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    print(folder / "audit.yaml")


if __name__ == "__main__":
    main()
