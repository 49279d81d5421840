"""Test and page of an audit of 20,000 test images x 3 levels x 4 draws x 5 labels, against 60 s and 2 GB.

    OMP_NUM_THREADS=1 python benchmarks/assess.py [--images 20000] [--reference ../main/src]

Two processes each for the sources beside this file and, where given, for those of the reference: what the stages
`test` and `report` do with `responses.parquet` (planted biases, parts of the cohort and parity among it), and
`citlr assess` on the same table, which also reads and checks every cell. The outputs are made up: a shift with the
level, noise of draws.
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
from dataclasses import replace
from pathlib import Path
from typing import Any

LIMIT_SECONDS, LIMIT_MB = 60.0, 2000.0
LEVELS, LABELS, DRAWS = ("asian", "black", "white"), 5, 4
# Forks nothing: the child of this program is the command, so the children's largest resident memory is its own.
COMMAND = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "citlr", "assess", *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL)
own = resource.getrusage(resource.RUSAGE_CHILDREN)
print(own.ru_utime + own.ru_stime, own.ru_maxrss)
"""


def write_table(file: Path, images: int) -> None:
    """Write the long table of responses, originals (draw -1) among them."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(0)
    names, levels = np.array([f"i{row:06d}" for row in range(images)]), np.array(LEVELS)
    labels = np.array([f"finding {k}" for k in range(LABELS)])
    base = random.normal(-1.0, 1.0, (images, 1, 1, LABELS))
    logits = base + 0.05 * np.arange(3)[:, None, None] + 0.3 * random.normal(size=(images, 3, DRAWS, LABELS))
    own = random.integers(0, 3, images)
    original = np.take_along_axis(logits, own[:, None, None, None], axis=1)[:, 0, 0]
    unit, level, draw, label = (part.ravel() for part in np.indices(logits.shape))
    unit0, label0 = (part.ravel() for part in np.indices(original.shape))
    every = np.concatenate([unit, unit0])
    frame = pd.DataFrame(
        {
            "image_id": names[every],
            "patient_id": names[every // 2 * 2],
            "attribute": "race",
            "level": levels[np.concatenate([level, own[unit0]])],
            "draw": np.concatenate([draw, np.full(len(unit0), -1)]),
            "label": labels[np.concatenate([label, label0])],
            "probability": 1 / (1 + np.exp(-np.concatenate([logits.ravel(), original.ravel()]))),
        }
    )
    frame.to_parquet(file)


def stages(file: Path) -> dict[str, float]:
    """Do in this process what the stages do; processor seconds and MB."""
    import numpy as np
    import pandas as pd

    from citlr.audit.conditional import audit_predictions
    from citlr.audit.measures.controls import planted_ladder
    from citlr.audit.prediction import read_responses
    from citlr.audit.results.statistics import baselines
    from citlr.audit.results.verdicts import audit_subgroups
    from citlr.config import ControlsConfig, TestConfig
    from citlr.data.cohort import Cohort
    from citlr.invariance.responses import Responses
    from citlr.report.page import render

    marks = [time.process_time()]
    frame = read_responses(file)
    responses = Responses.from_frame(frame)
    marks.append(time.process_time())
    settings, random = TestConfig(margin=0.02), np.random.default_rng(1)
    known = pd.DataFrame({"image_id": responses.units, "patient_id": responses.patients})
    result = audit_predictions(responses, known, settings=settings)
    marks.append(time.process_time())
    detector = random.dirichlet((1, 1, 1), responses.values.shape[:3])
    planted, _ = planted_ladder(
        responses, detector, controls=ControlsConfig(), settings=settings, shared_seeds=True, seed=0
    )
    marks.append(time.process_time())
    beside = {"path": known["image_id"], "race": responses.recorded, "view": random.choice(["AP", "PA"], len(known))}
    truth = {label: random.integers(0, 2, len(known)).astype(float) for label in responses.labels}
    frame_of = known.assign(**beside, **truth, age=random.integers(20, 90, len(known)).astype(float))
    cohort = Cohort(frame_of, file.parent, attributes=("race",), labels=responses.labels, covariates=("view",))
    parts = audit_subgroups(responses, cohort, settings=settings, shared_seeds=True)
    parity = baselines(responses, cohort, settings=settings)
    marks.append(time.process_time())
    result = replace(result, controls=replace(result.controls, planted=planted), subgroups=parts, baselines=parity)
    page = render(result, responses=frame)
    result.to_json(file.parent / "audit.json")
    marks.append(time.process_time())
    seconds = {name: marks[k + 1] - marks[k] for k, name in enumerate(("read", "test", "planted", "parts", "report"))}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _unit() / 1e6
    return {**seconds, "sum": marks[-1] - marks[0], "mb": peak, "page_mb": len(page.encode()) / 1e6}


def _unit() -> int:
    return 1 if sys.platform == "darwin" else 1024


def main() -> None:
    """Measure with both sources."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--child", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(stages(arguments.child)))
        return
    own = Path(__file__).resolve().parents[1] / "src"
    with tempfile.TemporaryDirectory() as name:
        table = Path(name) / "responses.parquet"
        write_table(table, arguments.images)
        for sources in filter(None, [arguments.reference, own]):
            environment = {**os.environ, "PYTHONPATH": str(sources)}

            def run(*command: str, environment: dict[str, str] = environment) -> str:
                done = subprocess.run(
                    [sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True, env=environment
                )
                return done.stdout.splitlines()[-1]

            found: dict[str, Any] = json.loads(run(__file__, "--child", str(table)))
            _say(sources, "stages", found)
            asked = [str(table), "--margin", "0.02", "--out", str(Path(name) / sources.parent.name)]
            seconds, kilobytes = run("-c", COMMAND, *asked).split()
            _say(sources, "citlr assess", {"sum": float(seconds), "mb": float(kilobytes) * _unit() / 1e6})


def _say(sources: Path, what: str, found: dict[str, Any]) -> None:
    shares = {"of_60_s": found["sum"] / LIMIT_SECONDS, "of_2_gb": found["mb"] / LIMIT_MB}
    numbers = {key: round(value, 2) for key, value in {**found, **shares}.items()}
    print(json.dumps({"sources": sources.parent.name, "what": what, **numbers}), flush=True)


if __name__ == "__main__":
    main()
