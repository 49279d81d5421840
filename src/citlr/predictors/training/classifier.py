"""Train one of the networks on a cohort's training split: the loop of all trainings, and the best checkpoints kept."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.errors import InputError, MissingExtraError, StateError, require_known
from citlr.learning.checkpoints import load_head
from citlr.learning.devices import is_alone, on_devices
from citlr.learning.loop import run
from citlr.learning.plan import Budget, Learner, Progress, TrainingPlan
from citlr.learning.trainer import Trainer, full_precision
from citlr.predictors.export import export_onnx, export_program, make_card, save_weights
from citlr.predictors.specs import InputSpec, require_labels
from citlr.predictors.training.rounds import (
    Batches,
    Round,
    augment,
    auroc_by_label,
    best_rounds,
    count_similar,
    mean_auroc,
    write_rounds,
)
from citlr.predictors.training.settings import Checkpoint, TrainedClassifier, TrainingSettings
from citlr.predictors.training.zoo import Start, ZooNetwork, build_network
from citlr.randomness import ALONE, hashed_seed
from citlr.run.files import fingerprint, read_json, write_json

# Names the training: its seeds, and what the progress bar and errors call it.
PART = "classifier"


def masked_bce(logits: Tensor, truth: Tensor) -> Tensor:
    """Sum over the labels of the mean binary cross-entropy, (n, n_labels), over images whose label is known."""
    known = ~truth.isnan()
    losses = nn.functional.binary_cross_entropy_with_logits(logits.float(), truth.nan_to_num(), reduction="none")
    # not losses * known: a label without a value must not reach the sum even as inf * 0
    counted = torch.where(known, losses, torch.zeros_like(losses))
    return (counted.sum(dim=0) / known.sum(dim=0).clamp(min=1)).sum()


def train_classifier(
    cohort: Cohort,
    *,
    arch: str,
    directory: str | Path,
    labels: Sequence[str] | None = None,
    weights: str | Path | None = "auto",
    settings: TrainingSettings | None = None,
    seed: int = 0,
    export: bool = True,
    narrator: Narrator | None = None,
) -> TrainedClassifier:
    """Train a network for several labels on a cohort, or go on with a training that was interrupted."""
    settings, narrator, folder = settings or TrainingSettings(), narrator or QUIET, Path(directory)
    if settings.devices > 1 and is_alone():
        again = partial(train_classifier, arch=arch, directory=folder, labels=labels, weights=weights)
        own = partial(again, settings=settings, seed=seed, export=export)
        precision = full_precision(settings.accelerator, settings.precision)
        return on_devices(settings.devices, settings.accelerator, precision, own, cohort)
    chosen = _labels(cohort, labels)
    splits = cohort.part("train"), cohort.part("validation")
    _require_both_classes(*splits, chosen)
    network, start = build_network(arch, chosen, weights=weights, dropout=settings.dropout, seed=seed)
    narrator.say(start.text)
    trainer = Trainer(settings.accelerator, settings.precision)
    training = Training(network, start, splits, settings, seed, folder, trainer)
    rounds = Round.all(run(training.plan(), trainer, directory=folder, narrator=narrator).rows)
    return training.finish(rounds, export=export)


@dataclass(frozen=True)
class Training:
    """One training: the network, the splits that it learns from and is chosen by, its settings, its folder."""

    network: ZooNetwork
    start: Start
    splits: tuple[Cohort, Cohort]
    settings: TrainingSettings
    seed: int
    folder: Path
    trainer: Trainer

    def plan(self) -> TrainingPlan:
        """Say what a step is, and what is kept of a round."""
        settings, trainer, train = self.settings, self.trainer, self.splits[0]
        round_steps = settings.round_steps or math.ceil(len(train) / settings.batch_size)
        rate = settings.learning_rate or _default_rate(self.network, self.start)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=rate, weight_decay=settings.weight_decay)
        learner = Learner(self.network, optimizer, clip=None)
        truth = train.frame[list(self.network.labels)].to_numpy(dtype=np.float32)
        batches = Batches(train, trainer, settings.size, round_steps, settings.batch_size, self.seed, PART)
        total = torch.zeros((), dtype=torch.float64, device=trainer.device if trainer.pace > 1 else "cpu")
        share = trainer.fabric.global_rank

        def update(step: int, random: torch.Generator) -> dict[str, Tensor]:
            rows, pixels = batches.of(step)
            images = trainer.put(torch.from_numpy(pixels))
            if share:  # each process changes its images in ways of its own
                random = trainer.random(seed=self.seed, part=f"{PART}-{share}", step=step)
            images = augment(images, random) if settings.augmented else images
            with self._dropout(step):
                loss = masked_bce(learner.runner(images), trainer.put(torch.from_numpy(truth[rows])))
                if trainer.pace == 1 and not bool(torch.isfinite(loss)):
                    raise InputError(
                        f"The training of {self.network.arch} diverged in round {step // round_steps + 1} (the loss "
                        "is not a number): lower learning_rate, or start from ImageNet weights."
                    )
                value = trainer.descend(loss, learner)
            total.add_(value.double().to(total.device))
            return {"loss": value}

        def validate() -> dict[str, Any]:
            auroc = self._auroc(learner.runner)
            loss = float(total) / round_steps
            total.zero_()
            return {"loss": loss, "auroc": auroc, "validation": -mean_auroc(auroc)}

        key = self._key()
        self._require_own(key)
        return TrainingPlan(
            PART,
            {"network": learner},
            update,
            self._budget(round_steps, rate),
            self.seed,
            validate,
            key,
            memory={"loss": total},
            file="state",
            enough=self._enough,
            keep=self._keep,
            remark=_remark,
        )

    def _budget(self, round_steps: int, rate: float) -> Budget:
        settings = self.settings
        return Budget(
            settings.rounds * round_steps,
            batch_size=settings.batch_size,
            learning_rate=rate,
            schedule=settings.schedule,
            validate_every=round_steps,
            patience=settings.patience,
            least_batch=2 * settings.devices,
        )

    def _key(self) -> str:
        # what the path of the weights file is called does not matter, what is in it does
        start = [self.network.arch, self.start.kind, self.start.sha256]
        splits = [split.fingerprint() for split in self.splits]
        return fingerprint([splits, self.network.labels, *start, asdict(self.settings), self.seed])

    def _require_own(self, key: str) -> None:
        state = self.folder / "state.safetensors"
        if state.is_file() and load_head(state).get("key") != key:
            raise StateError(
                f"'{self.folder}' holds a training of another network, cohort or settings: give another folder, or "
                "delete it."
            )

    @contextmanager
    def _dropout(self, step: int) -> Iterator[None]:
        """Seed the dropout of a step: it has no generator argument in torch."""
        devices = [self.trainer.device] if self.trainer.device.type == "cuda" else []
        with ALONE, torch.random.fork_rng(devices=devices):
            torch.manual_seed(hashed_seed(self.seed, PART, "dropout", step, self.trainer.fabric.global_rank))
            yield

    def _auroc(self, module: nn.Module) -> dict[str, float | None]:
        """Give the AUROC of every label on the validation split."""
        validation, labels = self.splits[1], self.network.labels
        scores = np.empty((len(validation), len(labels)))
        for rows, pixels in validation.batches(size=self.settings.size, batch_size=self.settings.batch_size):
            scores[rows] = module(torch.from_numpy(pixels).to(self.trainer.device)).double().cpu().numpy()
        if not np.isfinite(scores).all():
            raise InputError(f"The training of {self.network.arch} diverged (NaN on the validation split).")
        return auroc_by_label(validation.frame[list(labels)].to_numpy(dtype=np.float64), scores, labels)

    def _enough(self, progress: Progress) -> bool:
        """Say whether the checkpoints to be kept are there, and of similar accuracy."""
        best = best_rounds(Round.all(progress.rows), self.settings.keep)
        return len(best) == self.settings.keep == count_similar(best, self.settings.tolerance)

    def _keep(self, progress: Progress) -> None:
        """Keep the last round's checkpoint while it is among the best, and rewrite the history."""
        rounds = Round.all(progress.rows)
        if rounds[-1] in best_rounds(rounds, self.settings.keep):
            save_weights(self.network, self.folder / rounds[-1].file, self._card(rounds[-1]))
        write_rounds(self.folder, rounds, self.settings.keep)

    def _card(self, entry: Round) -> dict[str, Any]:
        more = {**self.network.architecture(), "start": asdict(self.start), "seed": self.seed, "round": asdict(entry)}
        spec = InputSpec(size=self.settings.size, channels=self.splits[0].channels)
        return make_card(self.network.labels, input=spec, **more)

    def finish(self, rounds: list[Round], *, export: bool) -> TrainedClassifier:
        """Export the best checkpoint, unless that is done or not wanted, and describe the training."""
        kept = best_rounds(rounds, self.settings.keep)
        summary = self.folder / "training.json"
        program, onnx = self.folder / "model.pt2", self.folder / "model.onnx"
        if self.trainer.fabric.is_global_zero and (not summary.is_file() or (export and not program.is_file())):
            write_json(summary, self._summary(len(rounds), kept, export=export))
        self.trainer.fabric.barrier()
        return TrainedClassifier(
            arch=self.network.arch,
            labels=self.network.labels,
            start=self.start,
            checkpoints=tuple(Checkpoint(self.folder / k.file, k.number, k.auroc, k.mean) for k in kept),
            spread=kept[0].mean - kept[-1].mean,
            similar=count_similar(kept, self.settings.tolerance),
            program=program if program.is_file() else None,
            onnx=onnx if onnx.is_file() else None,
            notes=tuple(read_json(summary)["notes"]),
        )

    def _export(self, best: Round, notes: list[str]) -> dict[str, float]:
        """Write both formats and give how far each is from the module."""
        differences = {"program": export_program(self.network, self.folder / "model.pt2", self._card(best))}
        try:
            differences["onnx"] = export_onnx(self.network, self.folder / "model.onnx", self._card(best))
        except MissingExtraError as error:
            notes.append(str(error))
        return differences

    def _summary(self, rounds: int, kept: list[Round], *, export: bool) -> dict[str, Any]:
        best, notes = kept[0], [self.start.text]
        differences = self._export(best, notes) if export else {}
        spread, similar = kept[0].mean - kept[-1].mean, count_similar(kept, self.settings.tolerance)
        if similar < len(kept):
            notes.append(
                f"Of the {len(kept)} checkpoints of {self.network.arch} that were kept, only {similar} within "
                f"{self.settings.tolerance} of the best in mean AUROC (itself among them), the others up to "
                f"{spread:.3f} below it: more rounds give more of similar accuracy."
            )
        notes += [
            f"The validation split has one class of '{k}' only: no AUROC." for k, v in best.auroc.items() if v is None
        ]
        notes += [self.trainer.halved] if self.trainer.halved else []
        return {
            "arch": self.network.arch,
            "labels": list(self.network.labels),
            "start": asdict(self.start),
            "settings": asdict(self.settings),
            "seed": self.seed,
            "rounds": rounds,
            "kept": [asdict(entry) for entry in kept],
            "spread": spread,
            "largest_export_difference": differences,
            "notes": notes,
        }


def _remark(progress: Progress) -> str:
    """Say the AUROC of every label after the last round."""
    auroc = progress.rows[-1]["auroc"] if progress.rows else {}
    said = "".join(f" {name} {'-' if value is None else format(value, '.3f')}" for name, value in auroc.items())
    return said and f"  AUROC{said}"


def _labels(cohort: Cohort, labels: Sequence[str] | None) -> tuple[str, ...]:
    chosen = require_labels(cohort.labels if labels is None else labels)
    for label in chosen:
        require_known(label, cohort.labels, f"The cohort has no label '{label}'")
    return chosen


def _require_both_classes(train: Cohort, validation: Cohort, labels: tuple[str, ...]) -> None:
    for name, part in (("training", train), ("validation", validation)):
        if not len(part):
            raise InputError(f"The cohort has no images in its {name} split: it is needed to train a classifier.")
    usable = 0
    for label in labels:
        if train.frame[label].dropna().nunique() < 2:
            raise InputError(f"Label '{label}' has one class only in the training split: leave it out of 'labels'.")
        usable += validation.frame[label].dropna().nunique() == 2
    if not usable:
        raise InputError("No label has both classes in the validation split: no AUROC could pick a checkpoint.")


def _default_rate(network: ZooNetwork, start: Start) -> float:
    normalised = any(isinstance(layer, nn.BatchNorm2d) for layer in network.backbone.modules())
    return 1e-3 if start.kind == "random" and normalised else 1e-4
