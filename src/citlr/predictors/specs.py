"""What a model under audit wants to see and what it gives back, declared once and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch

from citlr.config.model import Channels, Columns, Grey, Scale, Sides, Spread
from citlr.errors import InputError, did_you_mean
from citlr.text import shortened, shown
from citlr.values import Name, check_fields

OUTPUT_KINDS = ("probability", "logit")
ACTIVATIONS = ("sigmoid", "softmax")
LAYOUTS = ("channels_first", "channels_last")


def require_choice(value: object, options: Sequence[str], what: str) -> None:
    """Raise `InputError` unless `value` is one of `options`; the message names the nearest."""
    if not isinstance(value, str) or value not in options:
        near = did_you_mean(str(value), options)
        allowed = ", ".join(options)
        raise InputError(f"{what} is {shown(value)}; allowed: {allowed}.{near if 'mean' in near else ''}")


def require_labels(labels: object) -> tuple[str, ...]:
    """Check that there are labels, each a name and there once, and return them as a tuple."""
    if isinstance(labels, str):
        labels = (labels,)
    if not isinstance(labels, Sequence | np.ndarray | pd.Index):
        raise InputError(f"labels is {shown(labels)}; give a list of names, one for each output.")
    names = tuple(labels)
    if not names:
        raise InputError("A model needs at least one label: name its outputs with 'labels'.")
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"A label is {shown(name)}; give a name, in quotes where it looks like a number.")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(f"Label '{shortened(twice[0])}' is named more than once.")
    return tuple(str(name) for name in names)


def _from_mapping(cls: type[Any], settings: Mapping[str, Any], what: str) -> Any:
    known = [field.name for field in fields(cls)]
    for key in settings:
        if key not in known:
            raise InputError(f"{what} has no setting {shown(key)}.{did_you_mean(str(key), known)}")
    return cls(**settings)


def _check(spec: Any, what: str) -> None:
    """Hold every field against the kind of value that a configuration takes there, and make it that."""
    for name in (field.name for field in fields(spec)):
        value = getattr(spec, name)
        if isinstance(value, np.ndarray | range):
            object.__setattr__(spec, name, list(value))
    try:
        check_fields(spec)
    except InputError as error:
        raise InputError(f"{what}.{error}") from error


@dataclass(frozen=True)
class InputSpec:
    """How an image of the cohort, float32 (1, H, W) in [0, 1], becomes what the model was trained on.

    The steps, in this order: resize (bilinear, antialiased), repeat to `channels`, map [0, 1] to [`low`, `high`],
    subtract `mean` and divide by `std`, change the layout.

    Parameters
    ----------
    size : int or (int, int), optional
        Height and width that the model takes, in pixels; one number for a square. None leaves the size as it comes.
    channels : {1, 3}
        Three channels repeat the gray value.
    low, high : float
        What black (0) and white (1) become: (0, 255) for 8-bit values, (-1, 1), (-1024, 1024), ...
    mean, std : float or sequence of float
        One number, or one per channel, on the scale of [`low`, `high`]; `std` must be positive.
    layout : {"channels_first", "channels_last"}
        (n, C, H, W), or (n, H, W, C) as TensorFlow has it.

    Raises
    ------
    InputError
        If a setting is out of its range.

    Examples
    --------
    >>> spec = InputSpec(size=2, channels=3, high=255.0)
    >>> spec.prepare(torch.full((5, 1, 4, 4), 0.5)).shape
    torch.Size([5, 3, 2, 2])
    >>> InputSpec(channels=2)
    Traceback (most recent call last):
    ...
    citlr.errors.InputError: input.channels=2: a model takes 1 (grey) or 3 (grey repeated).
    """

    size: Sides | None = None
    channels: Channels = 1
    low: Grey = 0.0
    high: Grey = 1.0
    mean: Scale = 0.0
    std: Spread = 1.0
    layout: Literal["channels_first", "channels_last"] = "channels_first"

    def __post_init__(self) -> None:
        require_choice(self.layout, LAYOUTS, "input.layout")
        if isinstance(self.size, list | tuple) and len(self.size) != 2:
            raise InputError(f"input.size is {shown(self.size)}; give one number of pixels, or height and width.")
        _check(self, "input")
        if not self.low < self.high:
            raise InputError(f"input.low is {self.low:g} and input.high {self.high:g}; low must be below high.")
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.channels:
                raise InputError(f"input.{name} has {len(value)} values for {self.channels} channel(s).")

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width), or an empty tuple where the size is left as it comes."""
        if self.size is None:
            return ()
        return (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)

    @classmethod
    def of(cls, value: InputSpec | Mapping[str, Any] | None) -> Self:
        """Make a specification from itself, from a mapping as the config has it, or from nothing (the defaults)."""
        if isinstance(value, cls):
            return value
        if value is None:
            return cls()
        if not isinstance(value, Mapping):
            raise InputError(f"input is a {type(value).__name__}; give an InputSpec or a mapping of its settings.")
        made: Self = _from_mapping(cls, value, "input")
        return made

    def shape_of(self, sides: Sequence[int]) -> tuple[int, ...]:
        """Give the shape that an image of these sides (height, width) is made to, without the batch axis."""
        sides = self.shape or tuple(sides)
        return (self.channels, *sides) if self.layout == "channels_first" else (*sides, self.channels)

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Turn float32 (n, 1, H, W) in [0, 1] into the model's input, on the same device.

        Parameters
        ----------
        images : torch.Tensor of shape (n, 1, H, W)
            Values in [0, 1].

        Returns
        -------
        torch.Tensor of shape (n, channels, h, w) or (n, h, w, channels)
        """
        if self.shape and tuple(images.shape[-2:]) != self.shape:
            images = torch.nn.functional.interpolate(
                images, size=self.shape, mode="bilinear", antialias=True, align_corners=False
            )
        images = images.expand(-1, self.channels, -1, -1)
        images = self.low + images * (self.high - self.low)
        mean = images.new_tensor(self.mean).reshape(-1, 1, 1)
        std = images.new_tensor(self.std).reshape(-1, 1, 1)
        images = (images - mean) / std
        if self.layout == "channels_last":
            images = images.permute(0, 2, 3, 1)
        return images.contiguous()


@dataclass(frozen=True)
class OutputSpec:
    """What the numbers that the model gives are, and which of them belong to the labels.

    Parameters
    ----------
    kind : {"probability", "logit"}
        Whether the outputs are probabilities already.
    activation : {"sigmoid", "softmax"}
        What turns logits into probabilities: label by label, or over all outputs; not used for probabilities.
    columns : sequence of int or mapping of str to int, optional
        The output column of each label, where the model has more outputs than the audit has labels or another order.
    name : str, optional
        Which output, where the model gives several by name (ONNX graphs, dictionaries).

    Raises
    ------
    InputError
        If a setting is not one of the allowed values.

    Examples
    --------
    >>> OutputSpec("logit", activation="softmax", columns=[1]).columns
    (1,)
    >>> OutputSpec("logits")
    Traceback (most recent call last):
    ...
    citlr.errors.InputError: output is 'logits'; allowed: probability, logit. Did you mean 'logit'?
    """

    kind: Literal["probability", "logit"] = "probability"
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    columns: Columns | None = None
    name: Name | None = None

    def __post_init__(self) -> None:
        require_choice(self.kind, OUTPUT_KINDS, "output")
        require_choice(self.activation, ACTIVATIONS, "output.activation")
        _check(self, "output")

    @classmethod
    def of(cls, value: OutputSpec | Mapping[str, Any] | str | None) -> Self:
        """Make a specification from itself, its kind, a mapping as the config has it, or from nothing."""
        if isinstance(value, cls):
            return value
        if value is None:
            return cls()
        if isinstance(value, str):
            return cls(kind=value)  # type: ignore[arg-type]  # __post_init__ checks the value
        if not isinstance(value, Mapping):
            raise InputError(f"output is a {type(value).__name__}; give 'logit', 'probability' or a mapping.")
        made: Self = _from_mapping(cls, value, "output")
        return made

    def indices(self, labels: Sequence[str], n_outputs: int, model: str) -> list[int]:
        """Find the output column of every label.

        Raises
        ------
        InputError
            If the model has another number of outputs than there are labels and `columns` does not say which,
            or if a column is named that the model does not have.
        """
        if self.columns is None:
            if n_outputs != len(labels):
                raise InputError(
                    f"Model '{model}' gives {n_outputs} output(s) for {len(labels)} label(s) ({', '.join(labels)}): "
                    "name the labels it has, or say which output belongs to which label with 'columns'."
                )
            return list(range(n_outputs))
        if isinstance(self.columns, Mapping):
            for label in labels:
                if label not in self.columns:
                    raise InputError(f"'columns' has no entry for label '{label}'.{did_you_mean(label, self.columns)}")
            chosen = [int(self.columns[label]) for label in labels]
        else:
            chosen = list(self.columns)
        if len(chosen) != len(labels):
            raise InputError(f"'columns' has {len(chosen)} entries for {len(labels)} label(s) ({', '.join(labels)}).")
        for column in chosen:
            if chosen.count(column) > 1:
                raise InputError(f"'columns' names output {column} for two labels; every label has its own.")
            if not 0 <= column < n_outputs:
                raise InputError(
                    f"'columns' names output {column}, but model '{model}' has outputs 0..{n_outputs - 1}."
                )
        return chosen
