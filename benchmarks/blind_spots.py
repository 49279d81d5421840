"""Audits of models that read what a smaller generator cannot draw, through a generator with no other fault.

The generator is the phantom itself at fewer pixels than the images and models have: whatever it does not show is finer
than its pixels, or is not redrawn at all (`citlr.simulators.phantom.cues`). No model may be called equivalent.

    python benchmarks/blind_spots.py --cue texture region marker
    python benchmarks/blind_spots.py --cue texture --size 128 --generator 64
    python benchmarks/blind_spots.py --edits

With `--edits` it gives edits of the original, which leave every cue where it is, and not pictures.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from citlr.audit.generation import generate
from citlr.audit.measures.faithfulness import QualitySettings, assess_faithfulness
from citlr.audit.prediction import predict_sets
from citlr.config import TestConfig
from citlr.generators.oracle import EditingOracle, Oracle
from citlr.simulators.phantom.cues import CUES, Cue
from citlr.simulators.phantom.sample import read_phantom
from citlr.studies.kit.audits import Redrawn
from citlr.studies.pipeline.families import Drawn, PhantomFamily
from citlr.studies.pipeline.making import build_hidden, hidden_candidates, hidden_truth, write_cued
from citlr.studies.pipeline.study import ATTRIBUTE, FINDINGS, LEVELS, QUICK, Place, as_predictor


def measure(cue: Cue, wanted: argparse.Namespace, folder: Path) -> Counter[str]:
    """Audit the models of one cue, print a line for each, and count verdicts and failed gates."""
    family, place = PhantomFamily(), Place(0.4, 0, wanted.seed)
    sample = place.world(wanted.size).sample(wanted.patients, seed=wanted.seed, images_per_patient=1)
    small = place.world(wanted.generator).sample(wanted.patients, seed=wanted.seed, images_per_patient=1)
    write_cued(family, sample, cue, folder)
    cohort = read_phantom(folder, attribute=ATTRIBUTE, labels=FINDINGS, seed=wanted.seed, fractions=(0.4, 0.1, 0.5))
    test = cohort.part("test")
    kind = EditingOracle if wanted.edits else Oracle
    counterfactuals = generate(
        kind.of(small), test, attribute="sex", levels=LEVELS, draws=2, placebo_images=40, seed=wanted.seed
    )
    found = assess_faithfulness(
        counterfactuals,
        cohort.part("train"),
        cohort.part("validation"),
        QualitySettings((), sizes=(wanted.size,), probe_steps=wanted.steps, cycles=1, seed=wanted.seed),
    )
    for one in found.carried:
        shares = ", ".join(f"{level} {share.estimate:.2f}" for level, share in one.shares.items())
        print(f"{cue}: carried at {one.size} pixels: {shares or one.note}", flush=True)
    units = sample.of_images(counterfactuals.main.plan.image_ids)
    counts: Counter[str] = Counter()
    half = replace(QUICK, hidden_size=wanted.size // 2)
    bases, images = family.bases(list(FINDINGS), place, half, Drawn(sample, cohort))
    for candidate, module in build_hidden(hidden_candidates(wanted.models, wanted.seed), cue, bases, images):
        flips = hidden_truth(module, cue, units).flip_rate
        responses = predict_sets(as_predictor(candidate, module, size=wanted.size), counterfactuals.sets, test)
        result = Redrawn(cohort, counterfactuals, found).audit(
            candidate.name, responses, test=TestConfig(), seed=wanted.seed, size=wanted.size
        )
        failed = [gate.name for gate in result.quality.gates if not gate.passed]
        ungated = result.tests[0].reason.split("would have been '")[-1].split("'")[0]
        print(
            f"{cue}: {candidate.name}, true flip rate {flips:.3f}: {result.verdict} ({', '.join(failed)}); without "
            f"gates: {ungated}",
            flush=True,
        )
        counts.update([result.verdict, *(name.split(" on ")[0] for name in failed)])
    return counts


def main() -> None:
    """Run as the module says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cue", nargs="+", choices=CUES, default=CUES)
    for name, usual in {"size": 64, "generator": 32, "patients": 900, "models": 24, "steps": 250, "seed": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--edits", action="store_true")
    wanted = parser.parse_args()
    for cue in wanted.cue:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{cue}: {dict(measure(cue, wanted, Path(folder)))}", flush=True)


if __name__ == "__main__":
    main()
