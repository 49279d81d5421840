"""Fitted scikit-learn estimators as models under audit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray

from citlr.errors import InputError
from citlr.predictors.base import BatchedPredictor
from citlr.predictors.content import digest
from citlr.predictors.declared import Declared
from citlr.predictors.foreign import user_code
from citlr.predictors.weights import warn_trusted
from citlr.text import shortened

# classes in their order that say no and yes, and not what
_NO_YES = {("0", "1"), ("false", "true"), ("no", "yes"), ("n", "y"), ("negative", "positive"), ("absent", "present")}


class SklearnPredictor(BatchedPredictor):
    """A fitted classifier on flattened pixels; `predict_proba` for probabilities, `decision_function` for logits.

    A column is found by the label's name among the estimator's classes. Where the classes are no and yes (0 and 1), a
    label is the second one; where they are numbers, several labels are found by position.
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
        # Here, for it takes .7 s, and all kinds of models are asked whether an object is theirs.
        from sklearn.exceptions import NotFittedError
        from sklearn.utils.validation import check_is_fitted

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
        if self.output.columns is not None and not isinstance(given, list):
            return np.asarray(given)
        return self._positive(given, getattr(self._estimator, "classes_", None))

    def _positive(self, given: Any, classes: Any) -> NDArray[np.float64]:
        """Choose the column of every label's positive class."""
        if isinstance(given, list):  # multi-output forests: one (n, 2) array per label
            known = classes if isinstance(classes, list) and len(classes) == len(given) else [None] * len(given)
            labels = self.labels if len(self.labels) == len(given) else [""] * len(given)
            parts = zip(given, known, labels, strict=True)
            return np.column_stack([self._yes(np.asarray(part), names, label) for part, names, label in parts])
        values = np.asarray(given)
        if not isinstance(classes, np.ndarray):
            return values
        names = [str(name) for name in classes]
        if values.ndim == 1 and len(names) == 2:
            # a margin is that of the second class
            return self._yes(np.column_stack([-values, values]), classes, self.labels[0])
        known_labels = [label for label in self.labels if label in names]
        if len(known_labels) == len(self.labels):
            return values[:, [names.index(label) for label in self.labels]]
        if known_labels:
            raise InputError(
                f"Model '{self.name}' knows the classes {shortened(', '.join(names))}, of which '{known_labels[0]}' is "
                f"one of the labels ({shortened(', '.join(self.labels))}) and others are not: name classes only, or "
                "say which output belongs to which label with 'columns'."
            )
        if len(self.labels) == 1 and len(names) <= 2:
            return self._yes(values, classes, self.labels[0])[:, None]
        if not _are_numbers(classes):
            raise self._not_named(names, self.labels)
        return values

    def _not_named(self, names: Sequence[str], labels: Sequence[str]) -> InputError:
        several = self._method == "predict_proba" and not isinstance(getattr(self._estimator, "classes_", None), list)
        other = "say which output belongs to which label with 'columns'" if several else "fit it on 0 and 1"
        return InputError(
            f"Model '{self.name}' knows the classes {shortened(', '.join(names))}, of which none is "
            f"'{shortened(', '.join(labels))}': name labels as the classes are written, or {other}."
        )

    def _yes(self, values: NDArray[Any], classes: Any, label: str) -> NDArray[np.float64]:
        """Give what stands for the label, of two columns: that of its name, or the second of no and yes."""
        if values.ndim != 2 or values.shape[1] != 2:
            held = "" if classes is None else f" ({shortened(', '.join(map(str, classes)))})"
            raise InputError(
                f"Model '{self.name}' knows {values.shape[-1]} class(es){held} of a label, and a label has two, yes "
                "and no: fit it on images of both, or say which output belongs to which label with 'columns'."
            )
        names = ["no", "yes"] if classes is None else [str(name) for name in classes]
        if label in names:
            return np.asarray(values[:, names.index(label)])
        if label and not _are_numbers(classes) and tuple(name.lower() for name in names) not in _NO_YES:
            raise self._not_named(names, [label])
        return np.asarray(values[:, 1])

    def _content(self) -> str | None:
        return digest(self._estimator)


def _are_numbers(classes: Any) -> bool:
    """Whether classes are numbers or truth values, which are no names."""
    return np.asarray(classes).dtype.kind in "biuf"


def takes(found: object) -> bool:
    """Whether an object is an estimator, of scikit-learn or like one."""
    return (
        not isinstance(found, type)
        and hasattr(found, "fit")
        and any(hasattr(found, name) for name in ("predict_proba", "decision_function", "get_params"))
    )


def wrap(found: Any, declared: Declared, settings: dict[str, Any]) -> SklearnPredictor:
    """Make a predictor of an estimator."""
    return SklearnPredictor(found, **settings)


def read(path: Path, declared: Declared) -> SklearnPredictor:
    """Unpickle an estimator, if the user vouches for the file."""
    if not declared.trust:
        raise InputError(
            f"Model file '{path}' is a pickle, and reading it could run any code: convert it to ONNX (skl2onnx), give "
            "the fitted object from Python, or pass trust=True (--trust) if you know where it comes from."
        )
    warn_trusted(path)
    with user_code(f"Model file '{path}' cannot be unpickled", "It may be truncated, or written by other versions."):
        found = joblib.load(path)
    settings = declared.settings(path.stem)
    if not takes(found):
        raise InputError(f"Model '{settings['name']}' is a {type(found).__name__}, which is no sklearn.")
    return SklearnPredictor(found, **settings)
