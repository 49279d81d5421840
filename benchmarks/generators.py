"""Generators against true counterfactuals on the phantom: published design against ours, at equal steps.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE python benchmarks/generators.py --size 64 --patients 900

Prints a Markdown table, one row per generator: seconds to fit, seconds per 1000 images, and what the quality report and
the effect map say. Nothing is compared with numbers of other machines: all rows come from one run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.generators.diffusion.ldm import CLDM, DLDM, LatentDiffusion
from citlr.generators.oracle import Oracle
from citlr.generators.probes.probe import Probes
from citlr.generators.probes.training import ProbeSettings, fit_probes
from citlr.generators.quality.cycles import cycle_composition, there_and_back
from citlr.generators.quality.measures import effect_map
from citlr.generators.quality.meter import QualityMeter
from citlr.simulators.phantom.world import PhantomWorld

FINDING = "cardiomegaly"
OTHERS = ("edema", "consolidation", "atelectasis", "effusion")
HEAD = (
    "generator | fit s | s / 1000 images | relative error | cosine | scale | outside | composition 1 | "
    "composition 10 | there and back | effectiveness F / M | drift held | largest drift of the rest | placebo change"
)


def rivals(preset: str) -> dict[str, tuple[type[LatentDiffusion], dict[str, Any]]]:
    return {
        "published DLDM": (DLDM, {"preset": "published"}),
        "published CLDM": (CLDM, {"preset": "published"}),
        "CLDM": (CLDM, {"preset": preset}),
        "DLDM": (DLDM, {"preset": preset}),
        "DLDM, nothing given back": (DLDM, {"preset": preset, "detail": "none"}),
        "DLDM, nothing held": (DLDM, {"preset": preset, "hold": ()}),
    }


def measure(generator: Any, sample: Any, test: Cohort, probes: Probes, images: int, draws: int) -> list[str]:
    size = generator.size
    rows = np.unique(np.linspace(0, len(test) - 1, images).astype(int))
    test = test.take(rows)
    x, frame, levels = test.pixels(size=size), test.frame, list(sample.world.levels)
    began = time.perf_counter()
    redrawn = generator.generate(x, frame, attribute="sex", levels=levels, draws=draws, seed=1)
    pace = 1e6 * (time.perf_counter() - began) / redrawn[:, :, :, 0, 0, 0].size / 1e3
    units = sample.of_images(frame["image_id"])
    true = units.counterfactual(levels[1]) - units.counterfactual(levels[0])
    effect = effect_map(redrawn[:, 1, 0] - redrawn[:, 0, 0], true)
    meter = QualityMeter(probes, attribute="sex", levels=levels)
    meter.add(x, redrawn, frame["sex"])
    report = meter.report()
    few, head = x[:40], frame.iloc[:40].reset_index(drop=True)
    cycles = cycle_composition(generator, few, head, attribute="sex", cycles=10)
    coin = generator.generate(few, head, attribute="placebo", levels=["heads", "tails"], draws=1, seed=1)
    held = report.drift[FINDING]
    rest = max((abs(v) for k, v in report.drift.items() if k in OTHERS and v is not None), default=float("nan"))
    return [
        f"{pace:.1f}",
        f"{effect.relative_error:.2f}",
        f"{effect.cosine:.3f}",
        f"{effect.scale:.2f}",
        f"{effect.outside:.4f}",
        f"{report.composition:.4f}",
        f"{cycles[10].difference:.4f}",
        f"{there_and_back(generator, few, head, attribute='sex'):.4f}",
        " / ".join(f"{value:.3f}" for value in report.effectiveness.values()) or "unknown",
        "unknown" if held is None else f"{held:+.3f}",
        f"{rest:.3f}",
        f"{np.abs(coin[:, 1] - coin[:, 0]).mean():.4f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--patients", type=int, default=900)
    parser.add_argument("--correlation", type=float, default=0.3, help=f"of sex with {FINDING}")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="names of rows")
    asked = parser.parse_args()
    world = PhantomWorld(size=asked.size, correlation={FINDING: asked.correlation}, prevalence={FINDING: 0.5})
    sample = world.sample(asked.patients, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        cohort = sample.write(Path(folder))
        train, validation, test = (cohort.part(name) for name in ("train", "validation", "test"))
        labels = [FINDING, *OTHERS, "view"]
        narrator = Narrator(quiet=False)
        probes = fit_probes(train, validation, ProbeSettings(["sex"], asked.size, labels=labels, steps=500))
        print(
            f"{asked.size} x {asked.size}, {len(train)} training images, correlation {asked.correlation}, probe", end=""
        )
        print(f" accuracy {', '.join(f'{k} {v:.2f}' for k, v in probes.accuracy.items())}\n\n| {HEAD} |")
        print("|" + "---|" * (HEAD.count("|") + 1), flush=True)
        if not asked.only or "oracle" in asked.only:
            row = measure(Oracle.of(sample), sample, test, probes, asked.images, asked.draws)
            print("| " + " | ".join(["oracle", "0", *row]) + " |", flush=True)
        for name, (kind, settings) in rivals(asked.preset).items():
            for seed in range(asked.seeds if not asked.only or name in asked.only else 0):
                model = kind(**{"size": asked.size, "hold": ("view", FINDING), **settings})
                began = time.perf_counter()
                model.fit(train, validation, seed=seed, narrator=narrator)
                spent = time.perf_counter() - began
                row = measure(model, sample, test, probes, asked.images, asked.draws)
                label = f"{name} (guidance {model.report['guidance']:g})"
                print("| " + " | ".join([label, f"{spent:.0f}", *row]) + " |", flush=True)


if __name__ == "__main__":
    main()
