"""Train a small CNN to call pneumonia on 1000 chest radiographs of NIH ChestX-ray14, so that there is a model to audit.

    python examples/train_small_cnn.py --out run/small_cnn

Only the training split is learnt from, by a schedule fixed beforehand; validation and test are only measured.
Writes `model.pt2` (torch.export, what examples/nih_sex.yaml audits), `model.safetensors` and `metrics.json`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from citlr.console import Narrator, Ticker
from citlr.data.cohort import Cohort
from citlr.data.reading import read_cohort
from citlr.errors import CitlrError
from citlr.invariance.effects.clustered import auroc_part
from citlr.predictors.export import export_program, make_card, save_weights
from citlr.predictors.specs import InputSpec
from citlr.predictors.training.rounds import augment
from citlr.run.files import write_json

SIZE = 64
LABEL = "pneumonia"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "nih_cxr14_1000_256px"


class SmallCNN(nn.Module):
    """Four convolutions with batch normalisation and pooling, one linear output; takes gray images in [0, 1]."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        channels = (1, width, 2 * width, 4 * width, 4 * width)
        self.features = nn.Sequential(*(block for pair in itertools.pairwise(channels) for block in _block(*pair)))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(channels[-1], 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Give logits (n, 1) for images (n, 1, H, W) in [0, 1]."""
        logits: torch.Tensor = self.head(self.features((images - 0.5) / 0.25))
        return logits


def build() -> SmallCNN:
    """Make the untrained network: `examples/train_small_cnn.py:build` with weights is a source for load_predictor."""
    return SmallCNN()


def _block(inside: int, outside: int) -> list[nn.Module]:
    return [nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(), nn.MaxPool2d(2)]


def logits_of(model: nn.Module, images: torch.Tensor) -> NDArray[np.float64]:
    model.eval()
    with torch.inference_mode():
        return np.concatenate([model(part)[:, 0].double().numpy() for part in images.split(128)])


def auroc(cohort: Cohort, scores: NDArray[np.float64]) -> dict[str, float]:
    """AUROC with a 95 % interval: DeLong's variance, summed within patients."""
    codes, who = np.unique(cohort.frame["patient_id"].to_numpy(), return_inverse=True)
    part = auroc_part(scores, cohort.frame[LABEL].to_numpy(dtype=float), who, len(codes))
    if part is None:
        raise SystemExit(f"{LABEL} needs two patients with and two without it to give an AUROC.")
    half = float(stats.t.ppf(0.975, part.freedom)) * part.variance**0.5
    return {
        "estimate": part.value,
        "low": max(0.0, part.value - half),
        "high": min(1.0, part.value + half),
        "images": len(cohort),
        "patients": part.n_patients,
    }


def train(train_set: Cohort, validation: Cohort, *, epochs: int, seed: int, tick: Ticker) -> nn.Module:
    """Train with AdamW and a one-cycle rate, and keep the last epoch: 91 validation images are too few to pick one."""
    with torch.random.fork_rng():  # initialisation and dropout have no generator argument in torch
        torch.manual_seed(seed)
        return _train(train_set, validation, epochs=epochs, rng=torch.Generator().manual_seed(seed), tick=tick)


def _train(train_set: Cohort, validation: Cohort, *, epochs: int, rng: torch.Generator, tick: Ticker) -> nn.Module:
    images, truth = _tensors(train_set)
    seen, seen_truth = _tensors(validation)
    model, loss_of = build(), nn.functional.binary_cross_entropy_with_logits
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    steps = -(-len(images) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=epochs * steps)
    for epoch in range(1, epochs + 1):
        model.train()
        for rows in torch.randperm(len(images), generator=rng).split(32):
            optimiser.zero_grad()
            loss_of(model(augment(images[rows], rng))[:, 0], truth[rows]).backward()
            optimiser.step()
            schedule.step()
        loss = loss_of(torch.from_numpy(logits_of(model, seen)), seen_truth.double())
        tick(epoch, f"validation loss {float(loss):.3f}")
    return model


def _tensors(cohort: Cohort) -> tuple[torch.Tensor, torch.Tensor]:
    truth = cohort.frame[LABEL].to_numpy(dtype=np.float32)
    return torch.from_numpy(cohort.pixels(size=SIZE)), torch.from_numpy(truth.copy())


def main(out: Path, data: Path, *, epochs: int, seed: int, narrator: Narrator) -> None:
    cohort = read_cohort(
        data / "metadata.csv",
        images=data,
        attribute="sex",
        labels=[LABEL],
        covariates=["view"],
        columns={"path": "image", "image_id": "source_file"},
        split="split",
        narrator=narrator,
    )
    train_set, validation, test = (cohort.part(name) for name in ("train", "validation", "test"))
    with narrator.progress("train", total=epochs) as tick:
        model = train(train_set, validation, epochs=epochs, seed=seed, tick=tick)
    card = make_card([LABEL], input=InputSpec(size=SIZE))
    save_weights(model, out / "model.safetensors", card)
    export_program(model, out / "model.pt2", card)
    metrics = {
        name: auroc(part, logits_of(model, torch.from_numpy(part.pixels(size=SIZE))))
        for name, part in (("validation", validation), ("test", test))
    }
    write_json(out / "metrics.json", {"seed": seed, "epochs": epochs, "auroc": metrics})
    for name, area in metrics.items():
        print(
            f"{name}: AUROC {area['estimate']:.3f} (95 % interval {area['low']:.3f} to {area['high']:.3f}; "
            f"{area['images']} images of {area['patients']} patients)"
        )
    print(f"Written to {out}: model.pt2, model.safetensors, metrics.json.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("run/small_cnn"), help="folder to write (default %(default)s)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with metadata.csv and images/")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    given = parser.parse_args()
    try:
        main(given.out, given.data, epochs=given.epochs, seed=given.seed, narrator=Narrator(quiet=given.quiet))
    except CitlrError as error:
        sys.exit(str(error))
