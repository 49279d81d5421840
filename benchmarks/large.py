"""A DLDM of 256 pixels on a laptop: time, memory and disk of `fit` and `generate` for 2000 phantom images.

    python benchmarks/large.py --size 256 --images 2000

Takes the better part of an hour of two cores. Prints a JSON line for each stage, as its record in the run holds it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from citlr.predictors.export import export_program, make_card
from citlr.predictors.specs import InputSpec
from citlr.simulators.phantom.classifiers import analytic_blind
from citlr.simulators.phantom.world import PhantomWorld

FINDING = "cardiomegaly"


def prepare(root: Path, size: int, images: int) -> Path:
    """Write a world of two images a patient, a model and a configuration."""
    world = PhantomWorld(size=size)
    world.sample(images // 2, seed=0, images_per_patient=2).write(root / "world")
    export_program(analytic_blind(world, FINDING), root / "model.pt2", make_card([FINDING], input=InputSpec(size=size)))
    config = {
        "cohort": {
            "table": "world/phantom.csv",
            "images": "world",
            "attribute": "sex",
            "labels": [FINDING],
            "covariates": ["view"],
        },
        "generator": {"preset": "laptop", "size": size, "hold": ["view"]},
        "model": {"source": "model.pt2", "labels": [FINDING], "output": "logit"},
    }
    (root / "audit.yaml").write_text(yaml.safe_dump(config))
    return root / "audit.yaml"


def main() -> None:
    """Run the stages one by one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="the images' side, pixels")
    parser.add_argument("--images", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        config, run = prepare(root, options.size, options.images), root / "run"
        for stage in ("fit", "generate"):
            command = [
                sys.executable,
                "-m",
                "citlr",
                "audit",
                str(config),
                "--until",
                stage,
                "--out",
                str(run),
                "--quiet",
            ]
            subprocess.run(command, check=True)
            record = json.loads((run / "stages" / f"{stage}.json").read_text())
            found = {key: record[key] for key in ("seconds", "peak_memory_mb")}
            mb = sum(file.stat().st_size for file in run.rglob("*") if file.is_file()) / 1e6
            print(json.dumps({"stage": stage, **found, "run_mb": round(mb)}), flush=True)


if __name__ == "__main__":
    main()
