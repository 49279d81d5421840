"""What the user declared of a model, and the card in which its file says of itself what it wants to see and gives."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import safetensors
import torch

from citlr.errors import InputError, require_known
from citlr.predictors.foreign import one_sentence
from citlr.predictors.specs import InputSpec, OutputSpec, require_labels
from citlr.text import shown

Card = dict[str, Any]
# key of the card in the metadata of safetensors, TorchScript and ONNX files
CARD = "citlr.json"
# a card of a thousand labels has some twenty thousand characters
_LONGEST = 1_000_000


def parse_card(text: str | bytes, path: str | os.PathLike[str]) -> Card:
    """Read and check the card (labels, input, output, architecture) of a file; empty where there is none.

    >>> parse_card('{"labels": 5}', "m.onnx")
    Traceback (most recent call last):
    ...
    citlr.errors.InputError: The card in 'm.onnx' (metadata 'citlr.json') cannot be used: its labels are 5: give a \
list of names. Export the model again.
    """
    if not text:
        return {}
    try:
        card = _read(text)
        if "labels" in card:
            _check_labels(card["labels"])
        for name, spec in (("input", InputSpec), ("output", OutputSpec)):
            if name in card:
                if not isinstance(card[name], dict):
                    raise InputError(f"its {name} is {shown(card[name])}; a card has a mapping of settings there.")
                spec.of(card[name])
        _check_architecture(card)
    except InputError as error:
        raise InputError(
            f"The card in '{path}' (metadata '{CARD}') cannot be used: {error} Export the model again."
        ) from error
    return card


def _read(text: str | bytes) -> Card:
    if len(text) > _LONGEST:
        raise InputError(f"it has {len(text)} characters, and no card has more than {_LONGEST}.")
    try:
        card = json.loads(text)
    except RecursionError as error:
        raise InputError("it is nested too deeply.") from error
    except ValueError as error:
        raise InputError(f"it is no JSON ({one_sentence(error).rstrip('.')}).") from error
    if not isinstance(card, dict):
        raise InputError(f"it is {shown(card)}, not a mapping.")
    return card


def _check_labels(labels: object) -> None:
    if not isinstance(labels, list):
        raise InputError(f"its labels are {shown(labels)}: give a list of names.")
    require_labels(labels)


def _check_architecture(card: Mapping[str, Any]) -> None:
    if "arch" not in card:
        return
    if not isinstance(card["arch"], str):
        raise InputError(f"its arch is {shown(card['arch'])}; give the name of a network.")
    if "labels" not in card:
        raise InputError("it names an architecture and no labels, one for each head.")
    dropout = card.get("dropout", 0.0)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float):
        raise InputError(f"its dropout is {shown(dropout)}; give a number of at least 0 and below 1.")


def read_card(path: str | os.PathLike[str]) -> Card:
    """Read the card from a safetensors file's metadata; empty where there is none."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(CARD, "")
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"Weights file '{path}' cannot be read as safetensors ({one_sentence(error)}).") from error
    return parse_card(text, path)


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
    require_known(label, of_card, f"Model '{name}' has no label '{label}'")
    return label
