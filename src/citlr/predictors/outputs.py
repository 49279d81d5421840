"""What a model gave: one row of finite numbers per image, and whether they are what they were declared to be."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from citlr.errors import InputError
from citlr.predictors.foreign import user_code
from citlr.predictors.specs import OutputSpec
from citlr.text import shortened, shown

# float32 softmax can give 1 + 1e-7: rounding, not a wrong output
ROUNDING = 1e-6
# sums of the probabilities of classes, in the precision of 16 bits
_SUM_ROUNDING = 4e-3
# what a sigmoid makes of a probability lies between those of 0 and 1
_TWICE = (0.5, 1 / (1 + np.exp(-1.0)))
SOFTMAX = "{kind: logit, activation: softmax}"

Matrix = NDArray[np.float64]


def as_matrix(given: Any, n: int, model: str, *, key: str | None = None, heads: Sequence[str] = ()) -> Matrix:
    """Turn what a model gave for `n` images into float64 (n, n_outputs).

    - `heads`: Labels, each of which may be the name of an output.

    >>> as_matrix([0.1, 0.2], 2, "m")
    array([[0.1], [0.2]])
    >>> as_matrix({"flu": [0.1], "age": [60], "cold": [0.2]}, 1, "m", heads=["cold", "flu"])
    array([[0.2, 0.1]])
    """
    given = given if key is None else _one_output(given, n, model, key)
    given = _by_name(given, n, model, heads)
    given = _one_output(given, n, model, None) if key is None else given
    no_numbers = (
        f"Model '{model}' gives a {type(given).__name__} that is not an array of numbers",
        "Wrap the model in a function that returns one row of numbers per image.",
    )
    with user_code(*no_numbers):
        array = given.detach().to("cpu") if isinstance(given, torch.Tensor) else given
        if isinstance(array, torch.Tensor):
            array = (array if array.is_complex() or array.dtype == torch.bool else array.to(torch.float64)).numpy()
        values = np.ma.asanyarray(array) if isinstance(array, np.ma.MaskedArray) else np.asarray(array)
        if values.dtype.kind == "O":
            values = values.astype(np.float64)
        if values.dtype.kind not in "biuf":
            raise TypeError(f"it holds {'text' if values.dtype.kind in 'US' else values.dtype}")
        if np.ma.is_masked(values):
            raise TypeError("some of its values are masked out")
        # a copy: a model may fill one array anew for every batch
        values = np.array(values, dtype=np.float64)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim < 2 or len(values) != n or values.shape[1] < 1 or values.size != n * values.shape[1]:
        fewer = values.ndim > 1 and 0 < len(values) < n and values.shape[1] != n
        fixed = " If the model takes batches of a fixed size only, set batch_size to it." if fewer else ""
        raise InputError(
            f"Model '{model}' gives an output of shape {values.shape} for {n} image(s); a classifier gives one row "
            f"per image, one column per label.{fixed}"
        )
    return values.reshape(n, -1)


def _by_name(given: Any, n: int, model: str, heads: Sequence[str]) -> Any:
    """Order outputs as the labels, where they have the labels' names: of a mapping, a table, or a mapping per image."""
    # A mapping per image is what onnxruntime makes of scikit-learn's classifiers: the probability of every class.
    rows = given if isinstance(given, list | tuple) else ()
    rows = rows if all(isinstance(row, Mapping) and set(row) == set(rows[0]) for row in rows) else ()
    table = bool(rows) or isinstance(given, pd.DataFrame)
    if not table and not (isinstance(given, Mapping) and len(given) > 1):
        return given
    names = list(rows[0] if rows else given)
    named = [head for head in heads if head in names]
    if table and named and len(named) < len(heads) == len(names):
        other = next(head for head in heads if head not in names)
        raise InputError(
            f"Model '{model}' names its outputs {shortened(', '.join(map(str, names)))}, and none '{other}': name "
            "labels as the outputs are named, or say which output belongs to which label with 'columns'."
        )
    whole = bool(heads) and len(named) == len(heads)
    if rows:
        return [[row[name] for name in (heads if whole else names)] for row in rows]
    if whole:
        parts = [as_matrix(given[head].to_numpy() if table else given[head], n, model) for head in heads]
        given = np.concatenate(parts, axis=1) if all(part.shape[1] == 1 for part in parts) else given
    return given


def _one_output(given: Any, n: int, model: str, key: str | None) -> Any:
    """Choose the output that is meant, of a mapping, a tuple or a list."""
    if isinstance(given, Mapping):
        if key is None and len(given) == 1:
            key = next(iter(given))
        if key not in given:
            names = shortened(", ".join(map(str, given)))
            raise InputError(f"Model '{model}' gives {names or 'nothing'}: say which with output.name.")
        return given[key]
    if key is not None:
        raise InputError(f"Model '{model}' gives one output without a name: leave output.name ({shown(key)}) out.")
    if not isinstance(given, tuple | list) or not given:
        return given
    parts = [part for part in given if isinstance(part, torch.Tensor | np.ndarray) and part.ndim > 0]
    if not parts:
        return given
    if len(given) == 1 and parts[0].ndim > 1:
        return parts[0]
    rows = isinstance(given, list) and len(parts) == len(given) == n and all(part.ndim == 1 for part in parts)
    if not rows:
        raise InputError(
            f"Model '{model}' gives {len(given)} outputs at once (a {type(given).__name__}): wrap it in a function "
            "that returns the one that is meant, one row per image."
        )
    return [part.tolist() for part in parts]


def require_finite(values: Matrix, labels: Sequence[str], model: str) -> None:
    """Raise `InputError` if a value is NaN or infinite; the message counts them and names the first."""
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"Model '{model}' gives {int(bad.sum())} of {values.size} values that are NaN or infinite; the first is "
            f"{values[row, column]} for image {row}, label '{labels[column]}'."
        )


def require_probabilities(
    values: Matrix, labels: Sequence[str], model: str, *, raw: Matrix | None = None, output: OutputSpec | None = None
) -> None:
    """Raise `InputError` unless all values are in [0, 1]; the message counts the others, and says what they may be.

    Shapes: `values` (n, n_labels), `raw` (n, n_outputs).
    """
    require_finite(values, labels, model)
    bad = (values < -ROUNDING) | (values > 1.0 + ROUNDING)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"Model '{model}' gives {int(bad.sum())} of {values.size} values outside [0, 1]; the first is "
            f"{values[row, column]:.4g} for image {row}, label '{labels[column]}'. "
            f"{_advice(values if raw is None else raw, len(labels), output)}"
        )


def _advice(raw: Matrix, n_labels: int, output: OutputSpec | None) -> str:
    """Say what numbers outside [0, 1] may be, and how they are declared."""
    if _log_softmax(raw):
        return f"They are logarithms of probabilities that sum to 1: declare output: {_softmax(output)}."
    if raw.max() <= ROUNDING:
        return (
            "If these are logits, declare output: logit; if they are logarithms of probabilities, wrap the model in a "
            "function that gives their exponentials."
        )
    if raw.min() >= 0 and (raw == np.round(raw)).all():
        return "If these are numbers of classes, wrap the model in a function that gives the probability of each label."
    logits = "If these are logits, declare output: logit"
    if raw.min() >= 0 and raw.max() <= 100:
        return f"If these are percentages, wrap the model in a function that divides by 100. {logits}."
    if raw.shape[1] > 1:
        return f"{logits}, or output: {_softmax(output)} where the {raw.shape[1]} outputs are classes of one label."
    return f"{logits}."


def _softmax(output: OutputSpec | None) -> str:
    columns = None if output is None else output.columns
    if columns is None:
        return SOFTMAX
    written = dict(columns) if isinstance(columns, Mapping) else list(columns)
    return f"{SOFTMAX[:-1]}, columns: {shown(written)}}}".replace("'", "")


def _log_softmax(raw: Matrix) -> bool:
    """Whether every row is the logarithms of probabilities that sum to 1; one row could be so by chance."""
    return bool(raw.max() <= ROUNDING) and _sums_to_one(np.exp(raw))


def _sums_to_one(raw: Matrix) -> bool:
    """Whether every row is probabilities that sum to 1."""
    if len(raw) < 2 or raw.shape[1] < 2 or raw.min() < -ROUNDING or raw.max() > 1.0 + ROUNDING:
        return False
    return bool(np.abs(raw.sum(axis=1) - 1.0).max() <= _SUM_ROUNDING)


def require_declared(raw: Matrix, output: OutputSpec, model: str) -> None:
    """Raise `InputError` where the numbers (n, n_outputs) cannot be the logits that they were declared to be."""
    if output.kind != "logit":
        return
    if output.activation == "softmax" and raw.shape[1] == 1:
        raise InputError(
            f"Model '{model}' gives one output, and a softmax over one is 1 whatever the image shows: declare "
            "output: logit (a sigmoid)."
        )
    if output.activation == "sigmoid" and _log_softmax(raw):
        raise InputError(
            f"Model '{model}' gives logarithms of probabilities (the exponentials of its {raw.shape[1]} outputs sum to "
            f"1), of which a sigmoid makes p/(1+p), never above .5: declare output: {_softmax(output)}."
        )
    if _sums_to_one(raw):
        raise InputError(
            f"Model '{model}' is declared to give logits, but its {raw.shape[1]} outputs are probabilities: in [0, 1], "
            "and they sum to 1 for every image. Declare output: probability."
        )


def doubts(raw: Matrix, output: OutputSpec, labels: Sequence[str], model: str) -> list[str]:
    """Say what the numbers look like that they were not declared to be, where it cannot be told for certain."""
    low, high, count = raw.min(), raw.max(), f"all {raw.size} outputs of the check"
    varies = high > low
    if output.kind == "probability":
        twice = _twice_softmax(raw) if _sums_to_one(raw) else varies and low >= _TWICE[0] and high <= _TWICE[1]
        if not twice:
            return []
        what = "softmax" if _sums_to_one(raw) else "sigmoid"
        return [
            f"Model '{model}' gives probabilities between {low:.2f} and {high:.2f} only, as a {what} does that is "
            f"taken of probabilities: if it is taken twice, leave one out."
        ]
    if low >= 0.0 and high <= 1.0:
        return [
            f"Model '{model}' is declared to give logits, and {count} are in [0, 1]: if they are probabilities, "
            "declare output: probability."
        ]
    if output.activation == "sigmoid" and varies and high <= 0.0 and high > -0.1:
        return [
            f"Model '{model}' is declared to give logits, and {count} are at most 0, so no probability is above .5: "
            "if they are logarithms of probabilities, wrap the model in a function that gives their exponentials."
        ]
    if output.activation == "sigmoid" and raw.shape[1] == 2 and len(labels) == 1:
        return [
            f"Model '{model}' gives two outputs, and '{labels[0]}' is a sigmoid of one of them: if they are the two "
            f"classes of one label, declare output: {_softmax(output)}."
        ]
    return []


def _twice_softmax(raw: Matrix) -> bool:
    """Whether rows that sum to 1 end where a softmax of probabilities has to end, e / (e + k - 1)."""
    end = np.e / (np.e + raw.shape[1] - 1)
    return bool(end - 0.02 <= raw.max() <= end + ROUNDING and raw.min() >= 1 / (np.e + raw.shape[1] - 1) - ROUNDING)


def activate(logits: Matrix, activation: str) -> Matrix:
    """Turn logits into probabilities: label by label (sigmoid), or over all outputs (softmax)."""
    if activation == "softmax":
        exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponent / exponent.sum(axis=1, keepdims=True), dtype=np.float64)
    # exp(-|x|) never overflows
    decay = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, decay) / (1.0 + decay)
