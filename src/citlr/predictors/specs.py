"""What a model under audit wants to see and what it gives back, declared once and checked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, get_args, get_origin

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError

from citlr.config import InputConfig, OutputConfig, Section
from citlr.data.pixels.colour import LUMINANCE
from citlr.errors import InputError, did_you_mean, require_known
from citlr.text import shortened, shown
from citlr.values import said


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


class _Declared(Section):
    """A section of the configuration that is also made in Python, with errors that say so."""

    what: ClassVar[str]
    forms: ClassVar[str]

    def __init__(self, **settings: Any) -> None:
        fields = type(self).model_fields
        for name in settings:
            require_known(name, fields, f"{self.what} has no setting {shown(name)}")
        for name, field in fields.items():
            if name in settings and get_origin(field.annotation) is Literal:
                named = self.what if name == "kind" else f"{self.what}.{name}"
                require_choice(settings[name], get_args(field.annotation), named)
        plain = {name: list(one) if isinstance(one, np.ndarray | range) else one for name, one in settings.items()}
        try:
            super().__init__(**plain)
        except ValidationError as error:
            problem = error.errors()[0]
            if not problem["loc"]:  # what several settings together cannot be
                raise InputError(f"{self.what}.{said(problem)}.") from error
            name = str(problem["loc"][0])
            raise InputError(f"{self.what}.{name}={shown(plain[name])}: {said(problem)}.") from error

    @classmethod
    def of(cls, value: Section | Mapping[str, Any] | None) -> Self:
        """Make a specification from itself, from a section or a mapping as the config has it, or from nothing."""
        if isinstance(value, cls):
            return value
        if isinstance(value, Section):
            value = value.model_dump()
        if not isinstance(value, Mapping | None):
            raise InputError(f"{cls.what} is a {type(value).__name__}; give {cls.forms}.")
        return cls(**{str(name): one for name, one in (value or {}).items()})


class InputSpec(_Declared, InputConfig):
    """How an image of the cohort, float32 (c, H, W) in [0, 1], becomes what the model was trained on.

    c is 1 of grey images and 3 of colour. The steps, in this order: take the luminance (of colour, where it is
    declared), resize (bilinear, antialiased), repeat to `channels`, map [0, 1] to [`low`, `high`],
    subtract `mean` and divide by `std`, change the layout.

    Parameters
    ----------
    size : int or (int, int), optional
        Height and width that the model takes, in pixels; one number for a square. None leaves the size as it comes.
    channels : {1, 3}
        Three channels take colour as it is, and repeat the grey value of grey images.
    low, high : float
        What black (0) and white (1) become: (0, 255) for 8-bit values, (-1, 1), (-1024, 1024), ...
    mean, std : float or sequence of float
        One number, or one per channel, on the scale of [`low`, `high`]; `std` must be positive.
    layout : {"channels_first", "channels_last"}
        (n, C, H, W), or (n, H, W, C) as TensorFlow has it.
    luminance : bool
        Whether a model of one channel is shown the luminance of images in colour; without it they are refused.

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
    citlr.errors.InputError: input.channels=2: a model takes 1 (grey) or 3 (colour, or grey repeated).
    """

    what: ClassVar[str] = "input"
    forms: ClassVar[str] = "an InputSpec or a mapping of its settings"

    def __init__(self, **settings: Any) -> None:
        size = settings.get("size")
        if isinstance(size, list | tuple) and len(size) != 2:
            raise InputError(f"input.size is {shown(size)}; give one number of pixels, or height and width.")
        super().__init__(**settings)

    @classmethod
    def of_axes(cls, shape: Sequence[Any], **settings: Any) -> Self | None:
        """Read size, channels and layout off the four axes of a graph's input; None where none has 1 or 3 channels."""
        last = shape[3] in (1, 3) and shape[1] not in (1, 3)
        channels, sides = (shape[3], shape[1:3]) if last else (shape[1], shape[2:4])
        if channels not in (1, 3):
            return None
        size = tuple(sides) if all(isinstance(side, int) for side in sides) else None
        layout = "channels_last" if last else "channels_first"
        return cls(size=size, channels=int(channels), layout=layout, **settings)

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width), or an empty tuple where the size is left as it comes."""
        if self.size is None:
            return ()
        return (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)

    def shape_of(self, sides: Sequence[int]) -> tuple[int, ...]:
        """Give the shape that an image of these sides (height, width) is made to, without the batch axis."""
        sides = self.shape or tuple(sides)
        return (self.channels, *sides) if self.layout == "channels_first" else (*sides, self.channels)

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Turn float32 (n, c, H, W) in [0, 1] into the model's input, on the same device.

        Shapes: gives (n, channels, h, w) or (n, h, w, channels).
        """
        if images.shape[1] > self.channels:
            if not self.luminance:
                raise InputError(
                    "The images are in colour and the model's input has one channel: declare input: {channels: 3}, or "
                    "input: {luminance: true} of a model that reads grey."
                )
            weights = images.new_tensor(LUMINANCE).reshape(1, 3, 1, 1)
            images = (images * weights).sum(dim=1, keepdim=True)
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


class OutputSpec(_Declared, OutputConfig):
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

    what: ClassVar[str] = "output"
    forms: ClassVar[str] = "'logit', 'probability' or a mapping"

    def __init__(self, kind: str | None = None, **settings: Any) -> None:
        super().__init__(**settings, **({} if kind is None else {"kind": kind}))

    @classmethod
    def of(cls, value: Section | Mapping[str, Any] | str | None) -> Self:
        """Make a specification from itself, its kind, a section or a mapping as the config has it, or from nothing."""
        return cls(value) if isinstance(value, str) else super().of(value)

    def indices(self, labels: Sequence[str], n_outputs: int, model: str) -> list[int]:
        """Find the output column of every label, or say what has to be declared for it."""
        if self.columns is None:
            if n_outputs != len(labels):
                raise InputError(
                    f"Model '{model}' gives {n_outputs} output(s) for {len(labels)} label(s) ({', '.join(labels)}): "
                    "name the labels it has, or say which output belongs to which label with 'columns'."
                )
            return list(range(n_outputs))
        if isinstance(self.columns, Mapping):
            for label in labels:
                require_known(label, self.columns, f"'columns' has no entry for label '{label}'")
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
