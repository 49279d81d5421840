"""The card that a model file carries: what the model wants to see and gives, and how it is built."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import safetensors

from citlr.errors import InputError
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
