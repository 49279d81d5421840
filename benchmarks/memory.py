"""Peak memory of the whole chain with 1,000 and with 8,000 phantom images: it must not grow with their number.

    python benchmarks/memory.py

Trains a generator for a few steps only, as its quality is not what is measured. Prints a JSON line a size and the
ratio.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from citlr.predictors.export import export_program, make_card
from citlr.predictors.specs import InputSpec
from citlr.simulators.phantom.classifiers import analytic_blind
from citlr.simulators.phantom.world import PhantomWorld

SIZE = 32
# Forks nothing: the child of this program is the audit, so the children's largest resident memory is its own.
PROGRAM = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "citlr", "audit", *sys.argv[1:], "--quiet"]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def measure(patients: int) -> float:
    """Return the peak resident memory of an audit, MB."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        world = PhantomWorld(size=SIZE)
        world.sample(patients, seed=0, images_per_patient=2).write(root / "world")
        card = make_card(["cardiomegaly"], input=InputSpec(size=SIZE))
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
            "generator": {"preset": "tiny", "size": SIZE, "hold": ["view"], "options": steps},
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
    """Measure both sizes."""
    peaks = {}
    for patients in (500, 4000):
        peaks[2 * patients] = measure(patients)
        print(json.dumps({"images": 2 * patients, "peak_mb": round(peaks[2 * patients], 1)}), flush=True)
    print(json.dumps({"ratio_8000_to_1000": round(peaks[8000] / peaks[1000], 3)}))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
