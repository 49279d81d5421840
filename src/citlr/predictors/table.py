"""A closed model that only its owner can run: a request goes out, a filled-in responses file comes back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from citlr.errors import InputError, did_you_mean
from citlr.predictors.base import require_labels, require_probabilities
from citlr.predictors.specs import InputSpec
from citlr.run.files import sha256

KEYS = ("image_id", "attribute", "level", "draw")


class TablePredictor:
    """Probabilities from a file: one row per image and label (long), or one column per label (wide).

    Rows are found by image_id, attribute, level and draw; draw -1 is the original image.

    Parameters
    ----------
    path : path-like
        CSV or parquet with the columns image_id, attribute, level, draw, and either label and probability, or one
        column per label.
    labels : sequence of str
        The labels to read.
    name : str, optional
        What the report calls the model; the file's stem if not given.

    Raises
    ------
    InputError
        If the file or a column is missing, a row is there twice, or a value is not a probability.

    Examples
    --------
    >>> import tempfile
    >>> keys = {"image_id": ["a", "a"], "attribute": "sex", "level": ["F", "M"], "draw": 0}
    >>> rows = pd.DataFrame({**keys, "flu": [0.1, 0.2]})
    >>> rows.to_csv(f"{tempfile.gettempdir()}/citlr_doc.csv", index=False)
    >>> model = TablePredictor(f"{tempfile.gettempdir()}/citlr_doc.csv", labels=["flu"])
    >>> model.lookup(rows[["image_id", "attribute", "level", "draw"]].iloc[[1, 0]])
    array([[0.2], [0.1]])
    """

    def __init__(self, path: str | os.PathLike[str], *, labels: Sequence[str], name: str | None = None) -> None:
        self._path = Path(path)
        self.name = name or self._path.stem
        self.labels = require_labels(labels)
        self.input = InputSpec()
        self._wide = _widen(_read(self._path), self.labels, self._path)
        values = self._wide.to_numpy(dtype=np.float64)
        try:
            require_probabilities(values, self.labels, self.name)
        except InputError as error:
            raise InputError(f"In '{self._path}' (image counts rows of the sorted file): {error}") from error

    def lookup(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Find the probabilities of images by their keys.

        Parameters
        ----------
        frame : pandas.DataFrame
            With the columns image_id, attribute, level and draw.

        Returns
        -------
        float64 array of shape (len(frame), n_labels)

        Raises
        ------
        InputError
            If an image is not in the file; the message counts them and names the first.
        """
        wanted = pd.MultiIndex.from_frame(_typed(frame[list(KEYS)]))
        positions = self._wide.index.get_indexer(wanted)
        missing = np.flatnonzero(positions < 0)
        if len(missing):
            first = dict(zip(KEYS, wanted[missing[0]], strict=True))
            raise InputError(
                f"'{self._path}' lacks {len(missing)} of {len(frame)} images; the first is {first}: have the model's "
                "owner fill every row of the request."
            )
        return np.asarray(self._wide.to_numpy(dtype=np.float64)[positions])

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """Refuse: a file cannot look at new images.

        Raises
        ------
        InputError
            Always; use `lookup`.
        """
        raise InputError(
            f"Model '{self.name}' is a table of responses and cannot look at {len(images)} new image(s): write a "
            "request, have its owner fill it, and look the rows up."
        )

    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return f"sha256:{sha256(self._path)}"


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"Responses file '{path}' does not exist.")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=dict.fromkeys(KEYS, str), keep_default_na=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise InputError(f"Responses file '{path}' cannot be read ({error}); CSV and parquet can.") from error


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    texts = {key: frame[key].astype(str) for key in KEYS if key != "draw"}
    return frame.assign(**texts, draw=pd.to_numeric(frame["draw"]).astype(int))


def _widen(frame: pd.DataFrame, labels: Sequence[str], path: Path) -> pd.DataFrame:
    long = "label" in frame.columns and "probability" in frame.columns
    needed = [*KEYS, *(("label", "probability") if long else labels)]
    for name in needed:
        if name not in frame.columns:
            raise InputError(f"Responses file '{path}' has no column '{name}'.{did_you_mean(name, frame.columns)}")
    keys: list[Any] = [*KEYS, "label"] if long else [*KEYS]
    doubled = frame.duplicated(keys)
    if doubled.any():
        first = frame.loc[doubled, keys].iloc[0].to_dict()
        raise InputError(f"Responses file '{path}' has {int(doubled.sum())} row(s) twice; the first is {first}.")
    frame = _typed(frame)
    if not long:
        wide = frame.set_index(list(KEYS))[list(labels)]
    else:
        for label in labels:
            if label not in set(frame["label"]):
                known = did_you_mean(label, frame["label"].unique())
                raise InputError(f"Responses file '{path}' has no row for label '{label}'.{known}")
        # not pivot_table: it averages rows that are there twice, and drops NaN
        wide = frame.set_index(keys)["probability"].unstack("label")[list(labels)]  # noqa: PD010
    numbers = {label: pd.to_numeric(wide[label], errors="coerce") for label in labels}
    return pd.DataFrame(numbers, index=wide.index).sort_index()
