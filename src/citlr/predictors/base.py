"""The model under audit: images in, probabilities out, whatever it is made of."""

import platform
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from citlr.console import Ticker, silent
from citlr.data.pixels.colour import CHANNELS
from citlr.errors import InputError, StateError
from citlr.learning.beside import out_of_memory, smaller, told
from citlr.predictors.content import is_unknown, never_equal
from citlr.predictors.foreign import one_sentence, user_code
from citlr.predictors.outputs import (
    ROUNDING,
    activate,
    as_matrix,
    require_declared,
    require_finite,
    require_probabilities,
)
from citlr.predictors.specs import InputSpec, OutputSpec, require_labels
from citlr.run.files import fingerprint as digest_of_json
from citlr.text import shortened, shown

# kernels may sum in another order for another batch or on another machine
TOLERANCE = 1e-3
# ... and numbers of 16 bits have so few digits that the order shows in the third
HALF_TOLERANCE = 1e-2
# Images that a model is asked for again in another process.
_AGAIN = 4
Answers = tuple[NDArray[np.float32], NDArray[np.float64]]


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
        """Give probabilities (n, n_labels) for images (n, c, H, W) in [0, 1]."""

    def fingerprint(self) -> str:
        """Name all that the answers rest on; equal fingerprints mean equal answers."""


class BatchedPredictor(ABC):
    """The part that every adapter shares: checks, batches, preparation, probabilities."""

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
        self.batch_size = _require_batch_size(batch_size)
        self.device = device or torch.device("cpu")
        # what the model takes images in, and what was noticed when it was loaded
        self.dtype = torch.float32
        self.remarks: tuple[str, ...] = ()
        # batches of this size only, the last one filled up
        self._fixed: int | None = None
        self._unknown = never_equal()
        # How it is read again, and what it was then: sessions and scripted modules cannot be sent to another process.
        self._again: tuple[Callable[[], Predictor], str] | None = None
        # the first images that it was asked for, which other processes are asked as well
        self._asked: NDArray[np.float32] | None = None

    def read_again(self, again: Callable[[], Predictor]) -> None:
        """Keep how this model is made where it was just read from, for other processes."""
        self._again = (again, self.fingerprint())

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Go to another process as the file that it was read from, where there is one, or else as it is."""
        if self._again is None:
            return super().__reduce_ex__(protocol)
        return _made_again, (*self._again, self._answers())

    def __getstate__(self) -> dict[str, Any]:
        # Asked first: a model that counts its calls is another one after each.
        answers = self._answers()
        return {**vars(self), "_sent": (self.fingerprint(), answers)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        fingerprint, answers = state.pop("_sent")
        vars(self).update(state)
        require_same_model(self, fingerprint, answers)

    def _answers(self) -> Answers | None:
        """Give the images that it was asked for first, and what it says of them now."""
        return None if self._asked is None else (self._asked, self.predict(self._asked))

    @abstractmethod
    def _forward(self, batch: torch.Tensor) -> Any:
        """Run the model on a prepared batch (on `device`); return what it gives."""

    @abstractmethod
    def _content(self) -> str | None:
        """Name what the model itself gives its answers by; None where that cannot be known."""

    def fingerprint(self) -> str:
        """Name all that the answers rest on: the model's content, its labels, its declared input and output."""
        content = self._content()
        if content is None:
            return self._unknown
        declared = {"labels": self.labels, "input": dict(self.input), "output": dict(self.output)}
        return f"sha256:{digest_of_json({'kind': type(self).__name__, 'content': content, **declared})}"

    def predict(self, images: NDArray[np.float32], *, tick: Ticker = silent) -> NDArray[np.float64]:
        """Give the probability (n, n_labels) of every label for every image (n, c, H, W)."""
        raw = self.outputs(images, tick=tick)
        columns = self._columns(raw.shape[1])
        values = raw[:, columns]
        if self.output.kind == "logit":
            # NaN must be named before the activation hides an infinite logit as 0 or 1
            require_finite(values, self.labels, self.name)
            require_declared(raw, self.output, self.name)
            values = activate(raw, self.output.activation)[:, columns]
        require_probabilities(values, self.labels, self.name, raw=raw, output=self.output)
        return np.clip(values, 0.0, 1.0)

    def _columns(self, n_outputs: int) -> list[int]:
        """Find the output of every label."""
        return self.output.indices(self.labels, n_outputs, self.name)

    def naming(self, n_outputs: int) -> tuple[str, ...]:
        """Say what is to be said of the names that a model itself has for its outputs."""
        return ()

    def outputs(self, images: NDArray[np.float32], *, tick: Ticker = silent) -> NDArray[np.float64]:
        """Give what the model itself gives, before activation and choice of columns: float64 (n, n_outputs)."""
        require_images(images)
        parts: list[NDArray[np.float64]] = []
        start, whole = 0, self.batch_size
        while start < len(images):
            chunk = np.ascontiguousarray(images[start : start + self.batch_size], dtype=np.float32)
            # torch may not alias a read-only array (memory maps, arrow buffers)
            tensor = torch.from_numpy(chunk if chunk.flags.writeable else chunk.copy())
            try:
                parts.append(self._call(tensor))
            except InputError as error:
                # What memory has no room for is tried again in halves, and so are the batches after it.
                if error.__cause__ is None or len(chunk) < 2 or not out_of_memory(error.__cause__):
                    raise
                self.batch_size = smaller(len(chunk), error.__cause__)
                continue
            if parts[-1].shape[1] != parts[0].shape[1]:
                raise InputError(
                    f"Model '{self.name}' gives {parts[0].shape[1]} outputs for one batch of images and "
                    f"{parts[-1].shape[1]} for another: a classifier gives the same outputs for every image."
                )
            start += len(chunk)
            tick(start, told(self.batch_size, whole))
        if self._asked is None:
            self._asked = np.array(images[:_AGAIN], dtype=np.float32)
        return np.concatenate(parts)

    def _call(self, images: torch.Tensor) -> NDArray[np.float64]:
        shape = (len(images), *self.input.shape_of(images.shape[-2:]))
        kind = "" if self.dtype == torch.float32 else f"{str(self.dtype).removeprefix('torch.')} "
        failed = f"Model '{self.name}' failed on a {kind}batch of shape {shape}"
        advice = partial(_advice, dtype=self.dtype, layout=self.input.layout)
        with user_code(failed, advice), torch.inference_mode():
            batch = self.input.prepare(images.to(self.device)).to(self.dtype)
            if self._fixed and len(batch) < self._fixed:
                batch = torch.cat([batch, batch[-1:].expand(self._fixed - len(batch), *batch.shape[1:])])
            given = self._forward(batch)
        # whole before it is cut: the rows of an output without a batch axis are classes
        heads = self.labels if self.output.columns is None else ()
        return as_matrix(given, len(batch), self.name, key=self.output.name, heads=heads)[: len(images)]

    def _fix(self, size: object) -> None:
        """Keep the number of images that a graph takes at a time, where it takes one only."""
        if isinstance(size, int) and size > 0:
            self._fixed = self.batch_size = size


def ask_network(network: torch.nn.Module, batch: torch.Tensor) -> Any:
    """Ask a network of torch; of what transformers gives, the logits."""
    # picks of kernels that vary from run to run would break "same seed, same bits" on a GPU
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        given = network(batch)
    return given if isinstance(given, torch.Tensor | Mapping) else getattr(given, "logits", given)


def _made_again(again: Callable[[], BatchedPredictor], fingerprint: str, answers: Answers | None) -> Predictor:
    """Read a model again, which has to be the same one."""
    model = again()
    require_same_model(model, fingerprint, answers)
    return model


def require_same_model(model: BatchedPredictor, fingerprint: str, answers: Answers | None) -> None:
    """Refuse a model that this process has made otherwise than the one that sent it: by what it is, or what it says."""
    if not is_unknown(fingerprint) and model.fingerprint() != fingerprint:
        raise StateError(
            f"The process on {platform.node()} makes another model of '{model.name}' than the one that is audited: "
            "give every machine the same files of the model and of what it imports; after a change, load the model "
            "again, and start workers again that are running."
        )
    if answers is None:
        return
    off = float(np.abs(model.predict(answers[0]) - answers[1]).max())
    if not off <= (HALF_TOLERANCE if model.dtype in (torch.float16, torch.bfloat16) else TOLERANCE):
        raise StateError(
            f"The process on {platform.node()} gets other answers of model '{model.name}' than the one that audits it "
            f"(probabilities differ by up to {off:.2g}): its code rests on something that is not the same there, such "
            "as an environment variable, a file or what was asked before; make it so, or audit with one worker."
        )


def _advice(failure: str, dtype: torch.dtype, layout: str) -> str:
    """Say what would do about a model that fails on a batch."""
    channels = re.search(r"to have (\d+) channels, but got (\d+)", failure)
    if channels and channels[1] in ("1", "3") and channels[2] in ("1", "3"):
        return f"Declare input: {{channels: {channels[1]}}}."
    if channels:
        other = "channels_last" if layout == "channels_first" else "channels_first"
        return f"Declare input: {{layout: {other}}} if that is where the model has its channels."
    if "memory" in failure.lower():
        return "Lower batch_size, or give another device."
    if re.search(r"dtype|scalar type|Byte|Long|Int\b|Half|Double|uint8|type \(", failure):
        kind = str(dtype).removeprefix("torch.")
        return (
            f"The batch holds {kind} numbers, as the model's first weights do: make all weights {kind}, or wrap a "
            "model that takes other numbers in a function that converts them."
        )
    return "Check the declared input (size, channels, layout) and the device."


def _require_batch_size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= 100_000:
        raise InputError(f"batch_size is {shown(value)}; it must be a whole number of at least 1, at most 100000.")
    return int(value)


def require_images(images: object) -> None:
    """Raise `InputError` unless `images` is a float array (n, 1 or 3, H, W), n > 0, with finite values in [0, 1]."""
    if not isinstance(images, np.ndarray):
        raise InputError(
            f"images is a {type(images).__name__}; give a numpy array of shape (n, 1, H, W), or (n, 3, H, W) in colour."
        )
    if images.ndim != 4 or images.shape[1] not in CHANNELS or 0 in images.shape:
        raise InputError(
            f"images has shape {images.shape}; a predictor takes (n, 1, H, W) with at least one image, or (n, 3, H, W)."
        )
    if not np.issubdtype(images.dtype, np.floating):
        raise InputError(f"images holds {images.dtype}; a predictor takes float values in [0, 1].")
    low, high = float(images.min()), float(images.max())
    if not (low >= -ROUNDING and high <= 1.0 + ROUNDING):
        raise InputError(f"images has values from {low:.4g} to {high:.4g}; a predictor takes finite values in [0, 1].")


def choose_device(device: str | torch.device) -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1", "mps" into a device that is there.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(device, str | torch.device):  # torch takes a number for that GPU
        raise InputError(f"Device is {shown(device)}; give 'auto', 'cpu', 'cuda' or 'cuda:1'.")
    try:
        chosen = torch.device(device)
        torch.zeros(1).to(chosen)
        if chosen.type == "meta":
            raise RuntimeError("it computes nothing")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"Device '{shortened(str(device))}' cannot be used here ({one_sentence(error)}); 'auto' or 'cpu' can."
        ) from error
    return chosen
