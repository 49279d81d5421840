"""What the user declared of a model, before it meets what its file says of itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from citlr.errors import InputError, did_you_mean
from citlr.predictors.specs import InputSpec, OutputSpec
from citlr.text import shown


def with_columns(output: OutputSpec | None, columns: Any) -> OutputSpec | None:
    """Put the columns that were declared by themselves into what was declared of the output."""
    if columns is None:
        return output
    # checked before they meet the rest
    chosen = OutputSpec(columns=columns).columns
    if output is not None and output.columns is not None and output.columns != chosen:
        raise InputError(f"columns is {shown(columns)} and output.columns {shown(output.columns)}: give one of them.")
    return OutputSpec(columns=chosen) if output is None else output.model_copy(update={"columns": chosen})


@dataclass(frozen=True)
class Declared:
    """What the user said, before it meets what the file says of itself."""

    labels: tuple[str, ...] | None
    input: InputSpec | None
    output: OutputSpec | None
    device: torch.device
    batch_size: int
    name: str | None
    trust: bool
    weights: str | os.PathLike[str] | None

    def settings(
        self, default_name: str, card: Mapping[str, Any] | None = None, graph: Callable[[], InputSpec] | None = None
    ) -> dict[str, Any]:
        """Give the settings of a `BatchedPredictor`: declared first, then of the card, the graph, the defaults."""
        card = card or {}
        name = self.name or default_name
        of_card = list(card.get("labels", ()))
        labels = self.labels if self.labels is not None else of_card
        if not labels:
            raise InputError(f"Model '{name}' does not say what its outputs are: name them with 'labels'.")
        spec = self.input if self.input is not None else card.get("input")
        output = self.output if self.output is not None else OutputSpec.of(card.get("output"))
        if output.columns is None and of_card and list(labels) != of_card:
            columns = {label: of_card.index(_known(label, of_card, name)) for label in labels}
            output = output.model_copy(update={"columns": columns})
        return {
            "name": name,
            "labels": labels,
            "input": graph() if spec is None and graph is not None else InputSpec.of(spec),
            "output": output,
            "batch_size": self.batch_size,
            "device": self.device,
        }

    def remarks(self, name: str, card: Mapping[str, Any]) -> tuple[str, ...]:
        """Say where what was declared is not what the file says of itself."""
        of_file = OutputSpec.of(card.get("output")) if "output" in card else self.output
        if self.output is None or of_file is None or self.output.kind == of_file.kind:
            return ()
        return (
            f"Model '{name}' is declared to give output: {self.output.kind}, and its file says {of_file.kind}: what "
            "was declared is used.",
        )


def _known(label: str, of_card: Sequence[str], name: str) -> str:
    if label not in of_card:
        raise InputError(f"Model '{name}' has no label '{label}'.{did_you_mean(label, of_card)}")
    return label
