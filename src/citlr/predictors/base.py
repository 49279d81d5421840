"""The model under audit: images in, probabilities out, whatever it is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from citlr.console import Ticker, silent
from citlr.errors import InputError
from citlr.predictors.content import never_equal
from citlr.predictors.specs import InputSpec, OutputSpec
from citlr.run.files import fingerprint as digest_of_json

# float32 softmax can give 1 + 1e-7: rounding, not a wrong output
_ROUNDING = 1e-6


@runtime_checkable
class Predictor(Protocol):
    """What the audit needs of a model."""

    @property
    def name(self) -> str:
        """What the report calls the model."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each output column."""

    @property
    def input(self) -> InputSpec:
        """What the model wants to see."""

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """Give probabilities (n, n_labels) for images (n, 1, H, W) in [0, 1]."""

    def fingerprint(self) -> str:
        """Name all that the answers rest on; equal fingerprints mean equal answers."""


class BatchedPredictor(ABC):
    """The part that every adapter shares: checks, batches, preparation, probabilities.

    Parameters
    ----------
    name : str
        What errors and the report call the model.
    labels : sequence of str
        The label of each column of the result.
    input : InputSpec
        What the model wants to see.
    output : OutputSpec
        What the model gives.
    batch_size : int
        Images per call of the model.
    device : torch.device
        Where images are prepared.

    Raises
    ------
    InputError
        If there are no labels, a label twice, or the batch size is below 1.
    """

    def __init__(
        self,
        *,
        name: str,
        labels: Sequence[str],
        input: InputSpec,
        output: OutputSpec,
        batch_size: int = 64,
        device: torch.device | None = None,
    ) -> None:
        self.name = name
        self.labels = require_labels(labels)
        self.input = input
        self.output = output
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
        self.batch_size = batch_size
        self.device = device or torch.device("cpu")
        self._unknown = never_equal()

    @abstractmethod
    def _forward(self, batch: torch.Tensor) -> Any:
        """Run the model on a prepared batch (on `device`); return what it gives."""

    @abstractmethod
    def _content(self) -> str | None:
        """Name what the model itself gives its answers by; None where that cannot be known."""

    def fingerprint(self) -> str:
        """Name all that the answers rest on: the model's content, its labels, its declared input and output.

        Returns
        -------
        str
            "sha256:" and a digest, the same for two loads of the same model, another one as soon as answers can differ
            (device and batch size, which move the last bits, do not count). "unknown:" and a random number where the
            content cannot be known, such as a function that asks a server: never taken for an earlier model.
        """
        content = self._content()
        if content is None:
            return self._unknown
        declared = {"labels": self.labels, "input": asdict(self.input), "output": asdict(self.output)}
        return f"sha256:{digest_of_json({'kind': type(self).__name__, 'content': content, **declared})}"

    def predict(self, images: NDArray[np.float32], *, tick: Ticker = silent) -> NDArray[np.float64]:
        """Give the probability of every label for every image.

        Parameters
        ----------
        images : float array of shape (n, 1, H, W)
            Values in [0, 1].
        tick : Ticker
            Called with the number of images done.

        Returns
        -------
        float64 array of shape (n, n_labels)
            Probabilities in [0, 1].

        Raises
        ------
        InputError
            If the images have another shape or range, the model raises, gives another number of labels, NaN, or
            values outside [0, 1] where probabilities were declared.
        """
        raw = self.outputs(images, tick=tick)
        columns = self.output.indices(self.labels, raw.shape[1], self.name)
        if self.output.kind == "logit":
            # NaN must be named before the activation hides an infinite logit as 0 or 1
            require_finite(raw[:, columns], self.labels, self.name)
            raw = _activate(raw, self.output.activation)
        values = raw[:, columns]
        require_probabilities(values, self.labels, self.name)
        return np.clip(values, 0.0, 1.0)

    def outputs(self, images: NDArray[np.float32], *, tick: Ticker = silent) -> NDArray[np.float64]:
        """Give what the model itself gives, before activation and choice of columns: float64 (n, n_outputs)."""
        require_images(images)
        parts: list[NDArray[np.float64]] = []
        for start in range(0, len(images), self.batch_size):
            chunk = np.ascontiguousarray(images[start : start + self.batch_size], dtype=np.float32)
            # torch may not alias a read-only array (memory maps, arrow buffers)
            tensor = torch.from_numpy(chunk if chunk.flags.writeable else chunk.copy())
            parts.append(self._call(tensor))
            tick(start + len(chunk))
        return np.concatenate(parts)

    def _call(self, images: torch.Tensor) -> NDArray[np.float64]:
        batch = self.input.prepare(images.to(self.device))
        try:
            with torch.inference_mode():
                given = self._forward(batch)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"Model '{self.name}' failed on a batch of shape {tuple(batch.shape)}: {one_sentence(error)} "
                "Check the declared input (size, channels, layout) and the device."
            ) from error
        return as_matrix(given, len(images), self.name, key=self.output.name)


def require_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Check that there are labels, each once, and return them as a tuple."""
    if isinstance(labels, str):
        labels = (labels,)
    names = tuple(str(label) for label in labels)
    if not names:
        raise InputError("A model needs at least one label: name its outputs with 'labels'.")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"Label '{name}' is named more than once.")
    return names


def require_images(images: object) -> None:
    """Raise `InputError` unless `images` is a float array (n, 1, H, W), n > 0, with finite values in [0, 1]."""
    if not isinstance(images, np.ndarray):
        raise InputError(f"images is a {type(images).__name__}; give a numpy array of shape (n, 1, H, W).")
    if images.ndim != 4 or images.shape[1] != 1 or 0 in images.shape:
        raise InputError(f"images has shape {images.shape}; a predictor takes (n, 1, H, W) with at least one image.")
    if not np.issubdtype(images.dtype, np.floating):
        raise InputError(f"images holds {images.dtype}; a predictor takes float values in [0, 1].")
    low, high = float(images.min()), float(images.max())
    if not (low >= -_ROUNDING and high <= 1.0 + _ROUNDING):
        raise InputError(f"images has values from {low:.4g} to {high:.4g}; a predictor takes finite values in [0, 1].")


def require_finite(values: NDArray[np.float64], labels: Sequence[str], model: str) -> None:
    """Raise `InputError` if a value is NaN or infinite; the message counts them and names the first."""
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"Model '{model}' gives {int(bad.sum())} of {values.size} values that are NaN or infinite; the first is "
            f"{values[row, column]} for image {row}, label '{labels[column]}'."
        )


def require_probabilities(values: NDArray[np.float64], labels: Sequence[str], model: str) -> None:
    """Raise `InputError` unless all values are in [0, 1]; the message counts the others and names the first."""
    require_finite(values, labels, model)
    bad = (values < -_ROUNDING) | (values > 1.0 + _ROUNDING)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"Model '{model}' gives {int(bad.sum())} of {values.size} values outside [0, 1]; the first is "
            f"{values[row, column]:.4g} for image {row}, label '{labels[column]}'. If these are logits, "
            "declare output: logit."
        )


def as_matrix(given: Any, n: int, model: str, *, key: str | None = None) -> NDArray[np.float64]:
    """Turn what a model gave for `n` images into float64 (n, n_outputs).

    Parameters
    ----------
    given : tensor, array, sequence, or mapping of them
        (n,), (n, k), or (n, k, 1, ...).
    n : int
        Number of images.
    model : str
        For the message.
    key : str, optional
        Which entry of a mapping.

    Raises
    ------
    InputError
        If it is not one row per image.

    Examples
    --------
    >>> as_matrix([0.1, 0.2], 2, "m")
    array([[0.1], [0.2]])
    """
    if isinstance(given, dict):
        if key is None and len(given) == 1:
            key = next(iter(given))
        if key not in given:
            raise InputError(f"Model '{model}' gives {', '.join(map(str, given))}: say which with output.name.")
        given = given[key]
    if isinstance(given, torch.Tensor):
        given = given.detach().to("cpu", torch.float64).numpy()
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Model '{model}' gives a {type(given).__name__} that is not an array of numbers: wrap the model in a "
            "function that returns one row of numbers per image."
        ) from error
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim < 2 or len(values) != n or values.size != n * values.shape[1]:
        raise InputError(
            f"Model '{model}' gives an output of shape {values.shape} for {n} image(s); a classifier gives one row "
            "per image, one column per label."
        )
    return values.reshape(n, -1)


def _activate(logits: NDArray[np.float64], activation: str) -> NDArray[np.float64]:
    if activation == "softmax":
        exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponent / exponent.sum(axis=1, keepdims=True), dtype=np.float64)
    # exp(-|x|) never overflows
    decay = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, decay) / (1.0 + decay)


def choose_device(device: str | torch.device) -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1", "mps" into a device that is there.

    Raises
    ------
    InputError
        If the device is not known to torch or not in this machine.

    Examples
    --------
    >>> choose_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1).to(chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"Device '{device}' cannot be used here ({one_sentence(error)}); 'auto' or 'cpu' can."
        ) from error
    return chosen


def one_sentence(error: BaseException) -> str:
    r"""Shorten an exception to its type and its telling line.

    Examples
    --------
    >>> one_sentence(ValueError("bad shape\n  at frame 1"))
    'ValueError: bad shape.'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TorchScript puts its own traceback first and the cause last
    line = "" if not lines else lines[-1] if lines[0].startswith("The following operation failed") else lines[0]
    line = line.removeprefix(f"{type(error).__name__}: ")
    if len(line) > 300:
        line = line[:300] + "..."
    text = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return text if text.endswith(".") else text + "."
