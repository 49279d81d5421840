"""One batch through the model before anything long starts."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from citlr.checks import Check
from citlr.errors import InputError
from citlr.predictors.base import HALF_TOLERANCE, TOLERANCE, BatchedPredictor, Predictor, require_images
from citlr.predictors.content import is_unknown
from citlr.predictors.foreign import user_code
from citlr.predictors.outputs import as_matrix, doubts, require_probabilities
from citlr.predictors.specs import require_labels
from citlr.text import shortened

# the same weights on the same numbers: anything above the last bits is chance in the model
_REPEAT_TOLERANCE = 1e-6
# images that are also given alone, from the first of the batch to the last
_ALONE = 8
# Probabilities of so many images, or more, that lie closer together than this tell nobody apart.
_MANY, _APART = 16, 0.01


@dataclass(frozen=True)
class PredictorCheck:
    """What one batch showed.

    - `low`, `high`: Smallest and largest probability given.
    - `repeat`: Largest difference between two runs on the same batch.
    - `batch`: Largest difference of an image alone from the same image in the batch.
    - `notes`: What looks wrong without being an error, one sentence each.
    """

    n_images: int
    low: float
    high: float
    repeat: Check
    batch: Check
    notes: tuple[str, ...]


def check_predictor(predictor: Predictor, images: NDArray[np.float32]) -> PredictorCheck:
    """Run one batch through a model and refuse one that could not be audited: by what it gives, or how it varies.

    Refused are two answers for the same batch (dropout left on), and another answer for an image alone than in a batch
    (batch normalisation in training mode), so two images or more are needed.

    Shapes: `images` (n, 1, H, W) in [0, 1], real ones, as the audit will give them.
    """
    require_images(images)
    require_labels(predictor.labels)
    if len(images) < 2:
        raise InputError(f"The check of model '{predictor.name}' got {len(images)} image; it needs at least 2.")
    first = _run(predictor, images)
    off = float(np.abs(_run(predictor, images) - first).max())
    repeat = Check(
        "the same images twice",
        off,
        _REPEAT_TOLERANCE,
        off <= _REPEAT_TOLERANCE,
        f"Model '{predictor.name}' gives two answers for the same {len(images)} images (probabilities differ by up "
        f"to {off:.2g}): its chance must be off; call eval() on the module so that dropout rests.",
    )
    repeat.require()
    places = np.unique(np.linspace(0, len(images) - 1, min(len(images), _ALONE)).astype(int))
    off = float(np.abs(_alone(predictor, images, places) - first[places]).max())
    allowed = _tolerance(predictor)
    batch = Check(
        "an image alone and in a batch",
        off,
        allowed,
        off <= allowed,
        f"Model '{predictor.name}' gives another answer for an image alone than in a batch (probabilities "
        f"differ by up to {off:.2g}): an answer must not rest on the other images; call eval() on the module if "
        "it holds batch normalisation, and divide by no mean or maximum of the whole batch.",
    )
    batch.require()
    notes = _notes(predictor, images, first)
    return PredictorCheck(len(images), float(first.min()), float(first.max()), repeat, batch, notes)


def require_unchanged(predictor: Predictor, first: NDArray[np.float64], again: NDArray[np.float64]) -> None:
    """Refuse a model that drifts while it is asked, too slowly for two runs one after the other to show it.

    Shapes: `first` and `again` (n, labels), the answers to the same images before all others and after them.
    """
    off = float(np.abs(again - first).max())
    if not off <= _tolerance(predictor):  # also where an answer is not a number by now
        raise InputError(
            f"Model '{predictor.name}' answers its first {len(first)} images otherwise at the end than at the start "
            f"(probabilities differ by up to {off:.2g}), so that its answers cannot be compared: it must keep nothing "
            "between two calls, and nobody may change it, or its server, while it is asked."
        )


def _tolerance(predictor: Predictor) -> float:
    half = getattr(predictor, "dtype", None) in (torch.float16, torch.bfloat16)
    return HALF_TOLERANCE if half else TOLERANCE


def _run(predictor: Predictor, images: NDArray[np.float32]) -> NDArray[np.float64]:
    with user_code(f"Model '{predictor.name}' failed on images of shape {images.shape}"):
        given = predictor.predict(images.copy())  # which a predictor of its own may write into
        shape = np.shape(given)
    expected = (len(images), len(predictor.labels))
    if shape != expected:
        raise InputError(
            f"Model '{predictor.name}' gives an output of shape {shape}; {expected[0]} image(s) and "
            f"{expected[1]} label(s) ({shortened(', '.join(predictor.labels))}) make {expected}."
        )
    values = as_matrix(given, len(images), predictor.name, heads=predictor.labels)
    require_probabilities(values, predictor.labels, predictor.name)
    return values


def _alone(predictor: Predictor, images: NDArray[np.float32], places: NDArray[np.intp]) -> NDArray[np.float64]:
    """Give the output of each image by itself; of one image the difference may be small by chance."""
    try:
        return np.concatenate([_run(predictor, images[k : k + 1]) for k in places])
    except InputError as error:
        raise InputError(
            f"Model '{predictor.name}' takes a batch of {len(images)} images but not one image alone: {error} "
            "Call eval() on the module if it holds batch normalisation; free the batch axis if it is fixed."
        ) from error


def _notes(predictor: Predictor, images: NDArray[np.float32], values: NDArray[np.float64]) -> tuple[str, ...]:
    notes = list(getattr(predictor, "remarks", ()))
    for column, label in enumerate(predictor.labels):
        low, high = values[:, column].min(), values[:, column].max()
        if low == high:
            notes.append(
                f"Model '{predictor.name}' gives {low:.4g} for '{label}' on all {len(images)} images of the check."
            )
        elif len(images) >= _MANY and high - low < _APART:
            notes.append(
                f"Model '{predictor.name}' hardly tells images apart: it gives {low:.4g} to {high:.4g} for '{label}' "
                f"on all {len(images)} images of the check. If it was trained on other grey values, such as 0 to 255, "
                "declare them: input: {low: ..., high: ...}."
            )
    if isinstance(predictor, BatchedPredictor):
        given = predictor.outputs(images)
        notes.extend(doubts(given, predictor.output, predictor.labels, predictor.name))
        notes.extend(predictor.naming(given.shape[1]))
        if is_unknown(predictor.fingerprint()):
            notes.append(
                f"Model '{predictor.name}' runs code whose answers may rest on something outside it, such as a file or "
                "a server: it cannot be told from another model, and is asked again whenever the audit is run."
            )
    return tuple(notes)
