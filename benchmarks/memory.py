"""Peak memory of the whole chain by the number of phantom images: it must not grow with their number.

    python benchmarks/memory.py --size 64 --images 1000 8000 32000

Trains a generator for a few steps only, as its quality is not what is measured. Prints a JSON line for each number of
images, and the ratio of the last to the first.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from citlr.predictors.export import export_program, make_card
from citlr.predictors.specs import InputSpec
from citlr.simulators.phantom.classifiers import analytic_blind
from citlr.simulators.phantom.world import PhantomWorld

# Forks nothing: the child of this program is the audit, so the children's largest resident memory is its own.
PROGRAM = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "citlr", "audit", *sys.argv[1:], "--quiet"]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def measure(patients: int, size: int) -> float:
    """Return the peak resident memory of an audit of two images a patient, MB."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        world = PhantomWorld(size=size)
        world.sample(patients, seed=0, images_per_patient=2).write(root / "world")
        card = make_card(["cardiomegaly"], input=InputSpec(size=size))
        export_program(analytic_blind(world, "cardiomegaly"), root / "model.pt2", card)
        steps = {"ae_steps": 20, "denoiser_steps": 20, "phi_steps": 5, "information_steps": 5}
        config = {
            "cohort": {
                "table": "world/phantom.csv",
                "images": "world",
                "attribute": "sex",
                "labels": ["cardiomegaly"],
                "covariates": ["view"],
            },
            "generator": {"preset": "tiny", "size": size, "hold": ["view"], "options": steps},
            "generate": {"draws": 2},
            "model": {"source": "model.pt2", "labels": ["cardiomegaly"], "output": "logit"},
            "test": {"randomizations": 199},
            "controls": {"planted": [1.0], "bootstraps": 5},
        }
        (root / "audit.yaml").write_text(yaml.safe_dump(config))
        command = [sys.executable, "-c", PROGRAM, str(root / "audit.yaml"), "--out", str(root / "run")]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return int(done.stdout.splitlines()[-1]) * (1 if sys.platform == "darwin" else 1024) / 1e6


def main() -> None:
    """Measure each number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="the images' side, pixels")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 8000, 32000])
    options = parser.parse_args()
    peaks = []
    for images in options.images:
        start = time.monotonic()
        peaks.append(measure(images // 2, options.size))
        seconds = round(time.monotonic() - start)
        print(json.dumps({"images": images, "peak_mb": round(peaks[-1], 1), "seconds": seconds}), flush=True)
    print(json.dumps({"last_to_first": round(peaks[-1] / peaks[0], 3)}))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
