"""Train one of the networks on a cohort's training split: seeded rounds, exact resume, the best checkpoints kept.

Everything random in a round depends on (seed, round) alone, so that a training that was killed and started again ends
with the same bits as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from citlr.console import Narrator, Ticker
from citlr.data.cohort import Cohort
from citlr.errors import InputError, MissingExtraError, did_you_mean
from citlr.predictors.export import export_onnx, export_torchscript, make_card, save_weights
from citlr.predictors.specs import InputSpec, require_labels
from citlr.predictors.training.augmentation import augment
from citlr.predictors.training.rounds import (
    Progress,
    Round,
    auroc_by_label,
    mean_auroc,
    read_progress,
    restore,
    save_progress,
    tidy,
)
from citlr.predictors.training.settings import (
    Checkpoint,
    TrainedClassifier,
    TrainingSettings,
    choose_precision,
    rate_share,
)
from citlr.predictors.training.zoo import Start, ZooNetwork, build_network
from citlr.predictors.weights import fill_module, read_weights
from citlr.randomness import hashed_seed
from citlr.run.files import fingerprint, read_json, write_json


def masked_bce(logits: Tensor, truth: Tensor) -> Tensor:
    """Sum over the labels of the mean binary cross-entropy over the images where the label is known.

    Shapes: `logits` (n, n_labels), `truth` (n, n_labels).

    Examples
    --------
    >>> round(float(masked_bce(torch.zeros(2, 2), torch.tensor([[1.0, float("nan")], [0.0, float("nan")]]))), 4)
    0.6931
    """
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
    settings, narrator, folder = settings or TrainingSettings(), narrator or Narrator(quiet=True), Path(directory)
    chosen = _labels(cohort, labels)
    train, validation = cohort.part("train"), cohort.part("validation")
    _require_both_classes(train, validation, chosen)
    network, start = build_network(arch, chosen, weights=weights, dropout=settings.dropout, seed=seed)
    narrator.say(start.text)
    key = _key(train, validation, chosen, arch, start, settings, seed)
    run = _Run(network, start, train, validation, settings, seed, folder, key)
    with narrator.progress("train", total=settings.rounds * run.steps) as tick:
        run.go(tick)
    return run.finish(export=export)


class _Run:
    """One training: the network, its optimiser, its device, its folder."""

    def __init__(
        self,
        network: ZooNetwork,
        start: Start,
        train: Cohort,
        validation: Cohort,
        settings: TrainingSettings,
        seed: int,
        folder: Path,
        key: str,
    ) -> None:
        self.network, self.start, self.settings = network, start, settings
        self.seed, self.folder, self.key = seed, folder, key
        self.train, self.validation, self.labels = train, validation, network.labels
        self.truth = train.frame[list(self.labels)].to_numpy(dtype=np.float32)
        self.seen = validation.frame[list(self.labels)].to_numpy(dtype=np.float64)
        self.steps = settings.round_steps or math.ceil(len(train) / settings.batch_size)
        self.input = InputSpec(size=settings.size)
        # Here, for it takes 2 s, of which only a training has need.
        import lightning_fabric as fabric_package

        self.fabric = fabric_package.Fabric(
            accelerator=settings.accelerator,
            devices=settings.devices,
            precision=choose_precision(settings),  # type: ignore[arg-type]  # Fabric checks it
        )
        self.fabric.launch()
        self.rate = settings.learning_rate or _default_rate(network, start)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.rate, weight_decay=settings.weight_decay)
        self.module, self.optimizer = self.fabric.setup(network, optimizer)
        self.progress = read_progress(folder, key) or Progress()

    def go(self, tick: Ticker) -> None:
        """Run the rounds that are left."""
        if self.progress.rounds:
            tidy(self.folder, self.progress, self.settings.keep)  # a kill may have left one checkpoint too many
            restore(self.folder, self.network, self.optimizer.optimizer, self.fabric.device)
        while not self._over():
            self._round(len(self.progress.rounds) + 1, tick)
        if not self.progress.finished:
            self.progress.finished = True
            self._save()

    def _over(self) -> bool:
        done = len(self.progress.rounds)
        keep = self.settings.keep
        enough = done >= keep and self.progress.similar(keep, self.settings.tolerance) == keep
        tired = enough and self.progress.waited() >= self.settings.patience
        return self.progress.finished or done >= self.settings.rounds or tired

    def _round(self, number: int, tick: Ticker) -> None:
        fabric, local = self.fabric, self.settings.batch_size // self.settings.devices
        rng = torch.Generator().manual_seed(hashed_seed(self.seed, "augment", number, fabric.global_rank))
        rows = self._rows(number)[fabric.global_rank :: fabric.world_size]
        total, note = 0.0, self._note()
        devices = [fabric.device] if fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # dropout has no generator argument in torch
            torch.manual_seed(hashed_seed(self.seed, "dropout", number, fabric.global_rank))
            self.module.train()
            batches = self.train.batches(size=self.settings.size, batch_size=local, rows=rows)
            for step, (here, pixels) in enumerate(batches, start=1):
                images = fabric.to_device(torch.from_numpy(pixels))
                images = augment(images, rng) if self.settings.augmented else images
                loss = masked_bce(self.module(images), fabric.to_device(torch.from_numpy(self.truth[here])))
                self._descend(loss, number, step)
                total += float(loss.detach())
                tick((number - 1) * self.steps + step, f"loss {total / step:.3f}{note}")
        auroc = auroc_by_label(self.seen, self._scores(), self.labels)
        entry = Round(number, number * self.steps, total / self.steps, auroc, mean_auroc(auroc))
        self.progress.rounds.append(entry)
        tick(number * self.steps, f"loss {entry.loss:.3f}{self._note()}")
        self._save(entry)

    def _rows(self, number: int) -> NDArray[np.int64]:
        """Rows of all steps of a round: whole batches through one permutation of the split after the other."""
        n, count = len(self.train), self.steps * self.settings.batch_size
        positions = np.arange((number - 1) * count, number * count)
        rows = np.empty(count, dtype=np.int64)
        for epoch in np.unique(positions // n):
            here = positions // n == epoch
            order = np.random.default_rng(hashed_seed(self.seed, "order", int(epoch))).permutation(n)
            rows[here] = order[positions[here] % n]
        return rows

    def _descend(self, loss: Tensor, number: int, step: int) -> None:
        if not bool(torch.isfinite(loss)):
            raise InputError(
                f"The training of {self.network.arch} diverged in round {number} (the loss is not a number): "
                "lower learning_rate, or start from ImageNet weights."
            )
        before, total = (number - 1) * self.steps + step - 1, self.settings.rounds * self.steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * rate_share(self.settings.schedule, before, total)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()

    def _scores(self) -> NDArray[np.float64]:
        self.module.eval()
        scores = np.empty(self.seen.shape)
        with torch.inference_mode():
            for rows, pixels in self.validation.batches(size=self.settings.size, batch_size=self.settings.batch_size):
                logits = self.module(self.fabric.to_device(torch.from_numpy(pixels)))
                scores[rows] = logits.double().cpu().numpy()
        if not np.isfinite(scores).all():
            raise InputError(f"The training of {self.network.arch} diverged (NaN on the validation split).")
        return scores

    def _note(self) -> str:
        if not self.progress.rounds:
            return ""
        auroc = self.progress.rounds[-1].auroc
        return "  AUROC " + " ".join(f"{k} {'-' if v is None else format(v, '.3f')}" for k, v in auroc.items())

    def card(self, entry: Round) -> dict[str, Any]:
        """Give the card of a checkpoint."""
        more = {**self.network.architecture(), "start": asdict(self.start), "seed": self.seed, "round": asdict(entry)}
        return make_card(self.labels, input=self.input, **more)

    def _save(self, entry: Round | None = None) -> None:
        if self.fabric.is_global_zero:
            # the checkpoint first: a state that counts a round whose file is missing could not be resumed
            if entry is not None and entry in self.progress.kept(self.settings.keep):
                save_weights(self.network, self.folder / entry.file, self.card(entry))
            save_progress(self.folder, self.progress, self.network, self.optimizer.optimizer, self.key)
            tidy(self.folder, self.progress, self.settings.keep)
        self.fabric.barrier()

    def finish(self, *, export: bool) -> TrainedClassifier:
        """Export the best checkpoint, unless that is done or not wanted, and describe the training."""
        kept = self.progress.kept(self.settings.keep)
        summary = self.folder / "training.json"
        script, onnx = self.folder / "model.ts", self.folder / "model.onnx"
        if self.fabric.is_global_zero and (not summary.is_file() or (export and not script.is_file())):
            write_json(summary, self._summary(kept, export=export))
        self.fabric.barrier()
        content = read_json(summary)
        return TrainedClassifier(
            arch=self.network.arch,
            labels=self.labels,
            start=self.start,
            checkpoints=tuple(Checkpoint(self.folder / k.file, k.number, k.auroc, k.mean) for k in kept),
            spread=kept[0].mean - kept[-1].mean,
            similar=self.progress.similar(self.settings.keep, self.settings.tolerance),
            torchscript=script if script.is_file() else None,
            onnx=onnx if onnx.is_file() else None,
            notes=tuple(content["notes"]),
        )

    def _export(self, best: Round, notes: list[str]) -> dict[str, float]:
        """Write both formats and give how far each is from the module."""
        fill_module(self.network, read_weights(self.folder / best.file), model=self.network.arch, path=best.file)
        differences = {"torchscript": export_torchscript(self.network, self.folder / "model.ts", self.card(best))}
        try:
            differences["onnx"] = export_onnx(self.network, self.folder / "model.onnx", self.card(best))
        except MissingExtraError as error:
            notes.append(str(error))
        return differences

    def _summary(self, kept: list[Round], *, export: bool) -> dict[str, Any]:
        best, notes = kept[0], [self.start.text]
        differences = self._export(best, notes) if export else {}
        spread, tolerance = kept[0].mean - kept[-1].mean, self.settings.tolerance
        similar = self.progress.similar(self.settings.keep, tolerance)
        if similar < len(kept):
            notes.append(
                f"Of the {len(kept)} checkpoints of {self.network.arch} that were kept, only {similar} within "
                f"{tolerance} of the best in mean AUROC (itself among them), the others up to {spread:.3f} below it: "
                "more rounds give more of similar accuracy."
            )
        notes += [
            f"The validation split has one class of '{k}' only: no AUROC." for k, v in best.auroc.items() if v is None
        ]
        return {
            "arch": self.network.arch,
            "labels": list(self.labels),
            "start": asdict(self.start),
            "settings": asdict(self.settings),
            "seed": self.seed,
            "rounds": len(self.progress.rounds),
            "kept": [asdict(entry) for entry in kept],
            "spread": spread,
            "largest_export_difference": differences,
            "notes": notes,
        }


def _labels(cohort: Cohort, labels: Sequence[str] | None) -> tuple[str, ...]:
    chosen = require_labels(cohort.labels if labels is None else labels)
    for label in chosen:
        if label not in cohort.labels:
            raise InputError(f"The cohort has no label '{label}'.{did_you_mean(label, cohort.labels)}")
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


def _key(
    train: Cohort,
    validation: Cohort,
    labels: tuple[str, ...],
    arch: str,
    start: Start,
    settings: TrainingSettings,
    seed: int,
) -> str:
    parts = [part.fingerprint() for part in (train, validation)]
    # what the path of the weights file is called does not matter, what is in it does
    return fingerprint([parts, labels, arch, start.kind, start.sha256, asdict(settings), seed])
