"""What the user declared of a model, before it meets what its file says of itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from citlr.errors import InputError, did_you_mean
from citlr.predictors.specs import InputSpec, OutputSpec
from citlr.text import shown

Spec = TypeVar("Spec", InputSpec, OutputSpec)


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
        """Give the settings of a `BatchedPredictor`: what was declared over what the card says, else the graph."""
        card = card or {}
        name = self.name or default_name
        of_card = list(card.get("labels", ()))
        labels = self.labels if self.labels is not None else of_card
        if not labels:
            raise InputError(f"Model '{name}' does not say what its outputs are: name them with 'labels'.")
        spec = _merged(self.input, card["input"] if "input" in card else self._of_graph(graph), InputSpec)
        output = _merged(self.output, card.get("output"), OutputSpec)
        if output.columns is None and of_card and list(labels) != of_card:
            columns = {label: of_card.index(_known(label, of_card, name)) for label in labels}
            output = output.model_copy(update={"columns": columns})
        return {
            "name": name,
            "labels": labels,
            "input": spec,
            "output": output,
            "batch_size": self.batch_size,
            "device": self.device,
        }

    def says(self, *names: str) -> bool:
        """Whether all of these settings of `input` were declared."""
        return self.input is not None and set(names) <= self.input.model_fields_set

    def _of_graph(self, graph: Callable[[], InputSpec] | None) -> InputSpec | None:
        """Read off a graph what was not declared; nothing where its axes are declared to be others than they look."""
        if graph is None or self.says("size", "channels"):
            return None
        try:
            found = graph()
        except InputError:
            if self.input is None:
                raise
            return None
        return None if self.input is not None and self.input.layout != found.layout else found

    def remarks(self, name: str, card: Mapping[str, Any]) -> tuple[str, ...]:
        """Say where what was declared is not what the file says of itself."""
        told = []
        for what, declared, kind in (("input", self.input, InputSpec), ("output", self.output, OutputSpec)):
            if declared is None or what not in card:
                continue
            of_file = kind.of(card[what])
            for key in sorted(declared.model_fields_set):
                ours, theirs = (getattr(one, key) for one in (declared, of_file))
                # a side is that of a square, and one mean that of all channels
                if theirs is not None and _spread(ours) != _spread(theirs):
                    told.append(
                        f"Model '{name}' is declared to have {what}.{key}: {shown(ours)}, and its file says "
                        f"{shown(theirs)}: what was declared is used."
                    )
        return tuple(told)


def _spread(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


def _merged(declared: Spec | None, said: Any, kind: type[Spec]) -> Spec:
    """Put what was declared over what the file says of itself."""
    of_file = kind.of(said)
    if declared is None:
        return of_file
    return kind.of({**dict(of_file), **declared.model_dump(exclude_unset=True)})


def _known(label: str, of_card: Sequence[str], name: str) -> str:
    if label not in of_card:
        raise InputError(f"Model '{name}' has no label '{label}'.{did_you_mean(label, of_card)}")
    return label
