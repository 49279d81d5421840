"""What a model of 224 pixels makes of null interventions: 64-pixel pictures blown up, and edits at its own size.

A small DenseNet is trained on the training split for a few rounds, an edit generator of 64 pixels is fitted on sex, and
the model answers test images as they came, the same at 64 pixels (what every null intervention was before edits were
kept), and the edits composed at 224 pixels. Needs about ten minutes of one core.

    python benchmarks/sizes.py --nih ../shared/data/nih_cxr14_1000_256px
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models import DenseNet

from citlr.audit.generation import Counterfactuals, generate
from citlr.audit.measures.agreement import measure_agreement
from citlr.audit.measures.unexplained import measure_unexplained
from citlr.audit.prediction import predict_sets
from citlr.config import TestConfig
from citlr.data.cohort import Cohort
from citlr.data.reading import read_cohort
from citlr.generators.edits.generator import EditGenerator
from citlr.invariance.responses import Responses
from citlr.predictors.loading import load_predictor

SIZE, GENERATOR = 224, 64


def train(cohort: Cohort, label: str, rounds: int, seed: int) -> nn.Module:
    """Train a DenseNet of less than half of DenseNet-121's width and depth, from random weights."""
    torch.manual_seed(seed)
    net = DenseNet(growth_rate=12, block_config=(3, 6, 8, 6), num_init_features=24, num_classes=1)
    net.features.conv0 = nn.Conv2d(1, 24, 7, stride=2, padding=3, bias=False)
    part = cohort.part("train")
    images = torch.from_numpy(part.pixels(size=SIZE))
    truth = torch.tensor(part.frame[label].to_numpy(np.float32))[:, None]
    weight = (truth == 0).sum() / (truth == 1).sum()
    steps = rounds * -(-len(images) // 16)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(images), (16,))
        shift = torch.randint(-12, 13, (2,)).tolist()
        batch = torch.roll(images[rows], shift, dims=(2, 3)) * (0.9 + 0.2 * torch.rand(16, 1, 1, 1))
        loss = nn.functional.binary_cross_entropy_with_logits(net(batch - 0.5), truth[rows], pos_weight=weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval()


class Centred(nn.Module):
    """The net with its input brought about zero."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Give logits (n, 1) of images (n, 1, s, s)."""
        logits: torch.Tensor = self.net(images - 0.5)
        return logits


def report(name: str, before: Responses, nulls: np.ndarray, cohort: Cohort, settings: TestConfig) -> None:
    """Print how outputs on null interventions (n, labels) agree with those on originals."""
    values = before.values.copy()
    values[np.arange(len(values)), before.factual] = nulls[:, None]
    with_nulls = Responses(**{**vars(before), "values": values})
    (found,) = measure_agreement(with_nulls, cohort.frame, settings=settings)
    moved = np.abs(nulls - before.original).mean()
    assert found.decisions is not None
    assert found.label_auroc is not None
    sex = found.attribute_auroc["M"]
    print(
        f"{name}: {found.decisions.estimate:.1%} [{found.decisions.low:.1%}, {found.decisions.high:.1%}] of decisions "
        f"alike, rank correlation {found.rank:.3f}, mean change of probability {moved:.4f}; AUROC of {found.label} "
        f"{found.label_auroc[0]:.3f} on originals, {found.label_auroc[1]:.3f} here; of sex {sex[0]:.3f}, {sex[1]:.3f}",
        flush=True,
    )


def disk(counterfactuals: Counterfactuals) -> str:
    """Say what edits take on disk."""
    plan = counterfactuals.main.plan
    used = sum(file.stat().st_size for file in counterfactuals.main.folder.glob("*.parquet"))
    return f"{used / len(plan.image_ids) / len(plan.levels):.0f} bytes an image and level"


def main() -> None:
    """Run as the module says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nih", type=Path, default=Path("../shared/data/nih_cxr14_1000_256px"))
    parser.add_argument("--label", default="effusion")
    for name, usual in {"rounds": 12, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=usual)
    wanted = parser.parse_args()
    cohort = read_cohort(
        wanted.nih / "metadata.csv",
        images=wanted.nih,
        attribute="sex",
        labels=[wanted.label],
        covariates=["view"],
        columns={"path": "image", "image_id": "source_file"},
        split="split",
    )
    began = time.process_time()
    net = Centred(train(cohort, wanted.label, wanted.rounds, wanted.seed))
    print(f"model: {time.process_time() - began:.0f} s of processor time", flush=True)
    model = load_predictor(net, labels=[wanted.label], input={"size": SIZE}, output="logit", device="cpu")
    began = time.process_time()
    generator = EditGenerator(GENERATOR, hold=("view",)).fit(cohort.part("train"), cohort.part("validation"))
    print(f"generator: {time.process_time() - began:.0f} s; {generator.report['edits']['sex']}", flush=True)
    test = cohort.part("test")
    with tempfile.TemporaryDirectory() as folder:
        counterfactuals = generate(
            generator, test, attribute="sex", draws=2, placebo_images=0, replicate_images=0, out=folder
        )
        print(f"kept: {disk(counterfactuals)}", flush=True)
        began = time.process_time()
        composed = sum(images.shape[0] * 2 for _, images in counterfactuals.pictures(SIZE))
        spent = (time.process_time() - began) / composed
        print(f"composed at {SIZE} pixels: {1000 * spent:.1f} ms an image and level", flush=True)
        frame = predict_sets(model, counterfactuals.sets, test)
    first = Responses.from_frame(frame, attribute="sex")
    cut = float(np.quantile(first.original, 1 - test.frame[wanted.label].mean()))
    settings = TestConfig(threshold=cut)
    report("64 pixels blown up", first, first.coarse, test, settings)
    report(f"edits at {SIZE} pixels", first, first.null[:, 0], test, settings)
    (found,) = measure_unexplained(first, test.frame, given=("view", wanted.label), settings=settings, seed=0)
    print(f"between levels: {found.difference}; of it finer than the generator's pixels: {found.finer}; {found.where}")


if __name__ == "__main__":
    main()
