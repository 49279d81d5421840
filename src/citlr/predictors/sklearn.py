"""Fitted scikit-learn estimators as models under audit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from citlr.errors import InputError
from citlr.predictors.base import BatchedPredictor, one_sentence
from citlr.predictors.content import digest
from citlr.predictors.torch import warn_trusted


class SklearnPredictor(BatchedPredictor):
    """A fitted classifier on flattened pixels; `predict_proba` for probabilities, `decision_function` for logits.

    With one label and two classes the second class is the positive one. With several labels a column is found by
    the label's name among the estimator's classes, or by position.

    Parameters
    ----------
    estimator : scikit-learn classifier or pipeline
        Fitted; takes (n, n_features).
    **settings
        As in `BatchedPredictor`.

    Raises
    ------
    InputError
        If it is not fitted, or has no method for the declared output.
    """

    def __init__(self, estimator: Any, **settings: Any) -> None:
        super().__init__(**settings)
        method = "predict_proba" if self.output.kind == "probability" else "decision_function"
        if not hasattr(estimator, method):
            other = "logit" if self.output.kind == "probability" else "probability"
            raise InputError(
                f"Model '{self.name}' ({type(estimator).__name__}) has no {method}, which output: {self.output.kind} "
                f"needs: declare output: {other} if it has the other one, or wrap it in CalibratedClassifierCV."
            )
        try:
            check_is_fitted(estimator)
        except NotFittedError as error:
            raise InputError(
                f"Model '{self.name}' ({type(estimator).__name__}) is not fitted: call fit() first."
            ) from error
        self._estimator = estimator
        self._method = method

    def _forward(self, batch: torch.Tensor) -> NDArray[np.float64]:
        flat = batch.cpu().numpy().reshape(len(batch), -1)
        wanted = getattr(self._estimator, "n_features_in_", flat.shape[1])
        if wanted != flat.shape[1]:
            raise InputError(
                f"Model '{self.name}' was fitted on {wanted} features, but the declared input makes {flat.shape[1]} "
                f"({' x '.join(map(str, batch.shape[1:]))}): set input.size and input.channels to the model's."
            )
        given = getattr(self._estimator, self._method)(flat)
        return _positive_columns(given, getattr(self._estimator, "classes_", None), self.labels, self.output.columns)

    def _content(self) -> str | None:
        return digest(self._estimator)


def _positive_columns(given: Any, classes: Any, labels: Sequence[str], columns: object) -> NDArray[np.float64]:
    if isinstance(given, list):  # multi-output forests: one (n, 2) array per label
        return np.column_stack([np.asarray(part)[:, -1] for part in given])
    values = np.asarray(given, dtype=np.float64)
    if columns is not None or values.ndim == 1 or not isinstance(classes, np.ndarray):
        return values
    names = [str(name) for name in classes]
    if set(labels) <= set(names):
        return values[:, [names.index(label) for label in labels]]
    if len(labels) == 1 and values.shape[1] == 2:
        return values[:, 1:]
    return values


def read_estimator(path: str | os.PathLike[str], *, trust: bool) -> Any:
    """Unpickle an estimator, if the user vouches for the file.

    Raises
    ------
    InputError
        If `trust` is false, or the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"Model file '{path}' does not exist.")
    if not trust:
        raise InputError(
            f"Model file '{path}' is a pickle, and reading it could run any code: convert it to ONNX (skl2onnx), give "
            "the fitted object from Python, or pass trust=True (--trust) if you know where it comes from."
        )
    warn_trusted(path)
    try:
        return joblib.load(path)
    except Exception as error:
        raise InputError(f"Model file '{path}' cannot be unpickled ({one_sentence(error)}).") from error
