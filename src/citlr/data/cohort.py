"""The cohort: one row per image, who it is of, and pixels when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import infer_dtype, is_bool_dtype

from citlr.data.cohort_file import find_cache, note_cache, read_frame, write_frame
from citlr.data.flow import FlowStep as FlowStep
from citlr.data.flow import RawCount
from citlr.data.pixels.colour import require_channels
from citlr.data.pixels.shown import WHITE, Pixels
from citlr.data.pixels.source import FolderPixels, PixelSource, read_batches
from citlr.data.pixels.square import Fit
from citlr.data.splits import SPLITS, assign_splits
from citlr.data.tables.numbers import banded, is_number
from citlr.data.tables.printable import require_printable
from citlr.data.tables.vocabulary import findings
from citlr.errors import InputError, require_kind, require_known, require_names
from citlr.run.files import fingerprint
from citlr.text import listed_few, shown, visible


@dataclass(frozen=True, eq=False)
class Cohort:
    """Images with their patients, attributes and labels.

    Parameters
    ----------
    frame : DataFrame
        One row per image with a RangeIndex: `image_id`, `path` (relative to `root`), `patient_id`, `split`, the
        attributes (names, never codes; or a number, such as the age), the labels (0.0, 1.0 or NaN), the covariates,
        and `age`, `view` where known.
    root : Path
        The image folder.
    attributes, labels, covariates : tuple of str
        Columns of `frame`.
    flow : tuple of FlowStep
        Who was left out on the way here.
    raw : tuple of RawCount
        What the data set wrote for each attribute, counted before and after the exclusions.
    source : PixelSource, optional
        Where pixels come from; files below `root` when it is not given.
    fit : {"pad", "crop", "stretch"}
        How rectangles become squares.
    white : int
        The value of 16-bit images that is white: less than 65535 where all of them were written with fewer bits.
    channels : {1, 3}
        Grey, or red, green and blue.

    Examples
    --------
    >>> frame = pd.DataFrame({"image_id": ["a"], "path": ["a.png"], "patient_id": ["p"], "split": ["test"],
    ...                       "sex": ["female"], "edema": [1.0]})
    >>> cohort = Cohort(frame, Path("."), attributes=("sex",), labels=("edema",))
    >>> len(cohort), cohort.levels("sex")
    (1, ('female',))
    """

    frame: pd.DataFrame
    root: Path
    attributes: tuple[str, ...]
    labels: tuple[str, ...]
    covariates: tuple[str, ...] = ()
    flow: tuple[FlowStep, ...] = ()
    raw: tuple[RawCount, ...] = field(default=(), repr=False)
    source: PixelSource | None = field(default=None, repr=False)
    fit: Fit = "pad"
    white: int = WHITE
    channels: int = 1

    def __repr__(self) -> str:
        """Say how much there is of what, in a few lines; the table is `frame`."""
        splits = self.frame["split"].value_counts(sort=False)
        what = "images" if self.channels == 1 else "images in colour"
        lines = [
            f"Cohort of {len(self.frame)} {what}, {self.frame['patient_id'].nunique()} patients",
            *(f"  {name}: {listed_few(self.levels(name)) or self._range(name)}" for name in self.attributes),
            f"  labels: {listed_few(self.labels) or 'none'}",
            f"  covariates: {listed_few(self.covariates) or 'none'}",
            f"  splits: {', '.join(f'{name} {count}' for name, count in splits.items())}",
        ]
        return visible("\n".join(lines))

    def __post_init__(self) -> None:
        require_kind(self.frame, pd.DataFrame, "The frame of a cohort", "a table of pandas, one row per image")
        require_kind(self.root, (str, os.PathLike), "The root of a cohort", "the folder of its images")
        for role in ("attributes", "labels", "covariates"):
            object.__setattr__(self, role, require_names(getattr(self, role), role))
        require_printable((*self.attributes, *self.labels, *self.covariates), "The name of a column")
        needed = ("image_id", "path", "patient_id", *self.attributes, *self.labels, *self.covariates)
        for column in needed:
            require_known(column, self.frame.columns, f"A cohort needs the column '{column}', and its frame has none")
        twice = self.frame.columns[self.frame.columns.duplicated()]
        for column in twice.intersection([*needed, "split", "age", "view"]):
            raise InputError(f"The frame of a cohort has the column '{column}' twice; name every column once.")
        # The columns that the caller puts into its own table later are no part of this one, nor those of one name.
        frame = self.frame.loc[:, ~self.frame.columns.isin(twice)] if len(twice) else self.frame
        object.__setattr__(self, "frame", frame.assign(**_as_findings(frame, self.labels)).reset_index(drop=True))
        object.__setattr__(self, "root", Path(self.root))
        require_channels(self.channels, self.source)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def pixel_source(self) -> PixelSource:
        """Where pixels come from: `source`, or the files below `root`."""
        return FolderPixels(self.root, self.white, self.channels) if self.source is None else self.source

    def part(self, split: str) -> Cohort:
        """Give the images of one split.

        Raises
        ------
        InputError
            If the name is none of train, validation and test, or no split was drawn yet.
        """
        require_known(split, SPLITS, f"'{split}' is not a split")
        if "split" not in self.frame.columns:
            raise InputError("The cohort has no split yet; call split(seed=...) first.")
        return self.take(np.flatnonzero((self.frame["split"] == split).to_numpy()))

    def take(self, rows: npt.ArrayLike) -> Cohort:
        """Give the images at these row numbers (or where a boolean mask is true), in that order.

        A mask has an entry for every image; one of pandas is aligned by its index, as pandas does.
        """
        return replace(self, frame=self.frame.iloc[_places(rows, len(self))].reset_index(drop=True))

    def fewer(self, images: int | None, *, seed: int) -> Cohort:
        """Keep about so many images, of whole patients in an order by the seed: fewer are a part of more."""
        if images is None or images >= len(self):
            return self
        patients = self.frame["patient_id"].astype(str)
        order = np.random.default_rng(seed).permutation(patients.unique())
        counts = patients.value_counts().loc[order].cumsum()
        kept = counts.index[: int((counts < images).sum()) + 1]
        return self.take(patients.isin(kept).to_numpy())

    def levels(self, attribute: str) -> tuple[str, ...]:
        """Give the levels of an attribute, sorted; a number has none."""
        require_known(attribute, self.attributes, f"'{attribute}' is not an attribute of the cohort")
        if is_number(self.frame[attribute]):
            return ()
        return tuple(sorted(self.frame[attribute].dropna().astype(str).unique()))

    def _range(self, attribute: str) -> str:
        low, high = self.frame[attribute].min(), self.frame[attribute].max()
        return f"a number, {low:g} to {high:g}" if len(self) else "a number"

    def split(
        self,
        *,
        by: str = "patient_id",
        fractions: Sequence[float] = (0.65, 0.10, 0.25),
        stratify: str | None = None,
        seed: int,
    ) -> tuple[Cohort, Cohort, Cohort]:
        """Draw a split by patient and give (train, validation, test); see `citlr.data.splits.assign_splits`.

        The first attribute is the stratum when `stratify` is not given.
        """
        stratum = stratify or (self.attributes[0] if self.attributes else None)
        # Of a number, its quarters are the strata.
        if stratum is not None and stratum in self.attributes:
            groups: str | pd.Series | None = banded(self.frame[stratum])
        else:
            groups = stratum
        drawn = assign_splits(self.frame, by=by, fractions=fractions, stratify=groups, seed=seed)
        whole = replace(self, frame=self.frame.assign(split=drawn))
        return whole.part("train"), whole.part("validation"), whole.part("test")

    def batches(
        self, *, size: int, batch_size: int, rows: npt.ArrayLike | None = None, workers: int = 2
    ) -> Iterator[tuple[npt.NDArray[np.int64], Pixels]]:
        """Decode images a batch at a time, in order, a few batches ahead and never more.

        Parameters
        ----------
        size : int
            Side of the square images, in pixels.
        batch_size : int
            Images in a batch; the last one may be smaller.
        rows : array of int, optional
            Row numbers, in the order wanted; all rows without it.
        workers : int
            Decoding threads.

        Yields
        ------
        rows : ndarray of int, shape (b,)
        pixels : ndarray of float32, shape (b, channels, size, size), in [0, 1]

        Raises
        ------
        InputError
            For an image that cannot be read, by name.
        """
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size} is not a number of images; give 1 or more.")
        chosen = np.arange(len(self), dtype=np.int64) if rows is None else _places(rows, len(self))
        ids, paths = self.frame["image_id"].tolist(), self.frame["path"].tolist()
        source = self.pixel_source

        def read(part: npt.NDArray[np.int64]) -> Pixels:
            places = part.tolist()
            taken = [ids[row] for row in places], [paths[row] for row in places]
            return source.read_many(*taken, size=size, fit=self.fit)

        return read_batches(read, chosen, batch_size=batch_size, workers=workers)

    def pixels(self, rows: npt.ArrayLike | None = None, *, size: int, workers: int = 2) -> Pixels:
        """Decode images (n, channels, size, size) all at once: for small sets only."""
        rows = np.arange(len(self)) if rows is None else _places(rows, len(self))
        images = np.empty((len(rows), self.channels, size, size), dtype=np.float32)
        start = 0
        for part, batch in self.batches(size=size, batch_size=32, rows=rows, workers=workers):
            images[start : start + len(part)] = batch
            start += len(part)
        return images

    def native(self, row: int) -> Pixels:
        """Give one image (channels, H, W) at its own size, or at that of a cache it is read from."""
        one = self.frame.iloc[row]
        return self.pixel_source.native(one["image_id"], one["path"])

    def fingerprint(self) -> str:
        """Give the SHA-256 of all that an audit reads of the cohort: its rows, its roles, and every image's content.

        Where the images lie is not in it. All files are read once, or the digests that a cache keeps of its pixels.
        """
        colour = () if self.channels == 1 else (self.channels,)
        roles = (self.attributes, self.labels, self.covariates, self.fit, self.white, *colour)
        # Text, since a column has another type after a turn through parquet; a blank is told from an empty word.
        rows = self.frame.to_csv(index=False, na_rep="\0")
        ids, paths = self.frame["image_id"].tolist(), self.frame["path"].tolist()
        return fingerprint([roles, rows, self.pixel_source.fingerprint(ids, paths)])

    def counts(self) -> pd.DataFrame:
        """Count images and patients by attribute, level, label, value and split.

        Returns
        -------
        DataFrame
            Columns `split`, `attribute`, `level` (of a number: its quarters), `label`, `value` (positive, negative or
            missing), `images` and `patients`.
        """
        columns = ["split", "attribute", "level", "label", "value", "images", "patients"]
        split = self.frame["split"] if "split" in self.frame.columns else pd.Series("all", index=self.frame.index)
        parts = []
        for attribute in self.attributes:
            number = is_number(self.frame[attribute])
            levels = banded(self.frame[attribute]) if number else self.frame[attribute]
            for label in self.labels:
                value = self.frame[label].map({1.0: "positive", 0.0: "negative"}).fillna("missing")
                keys = {"split": split, "level": levels, "value": value}
                grouped = self.frame.assign(**keys).groupby(list(keys), sort=True)["patient_id"]
                cells = grouped.agg(images="size", patients="nunique").reset_index()
                parts.append(cells.assign(attribute=attribute, label=label)[columns])
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    def missing(self) -> dict[str, int]:
        """Count the images without a value, for every label, covariate, attribute, age and view."""
        extra = [name for name in ("age", "view") if name in self.frame.columns]
        names = dict.fromkeys((*self.attributes, *self.labels, *self.covariates, *extra))
        return {name: int(self.frame[name].isna().sum()) for name in names}

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the frame, and everything else but the pixels as JSON in the file's metadata, atomically."""
        content = {
            "root": str(self.root.absolute()),
            "attributes": list(self.attributes),
            "labels": list(self.labels),
            "covariates": list(self.covariates),
            "fit": self.fit,
            "white": self.white,
            "flow": [asdict(step) for step in self.flow],
            "raw": [asdict(one) for one in self.raw],
            "cache": note_cache(self.source, Path(path)),
            **({} if self.channels == 1 else {"channels": self.channels}),
        }
        write_frame(self.frame, content, Path(path))

    @classmethod
    def from_parquet(
        cls, path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, *, cache: bool = True
    ) -> Cohort:
        """Read a cohort back.

        Parameters
        ----------
        path : path-like
            A file that `to_parquet` wrote.
        root : path-like, optional
            The image folder, where it is no longer the one it was.
        cache : bool
            Whether pixels come from the cache that the cohort was prepared with, if it was, or from the image files.

        Raises
        ------
        InputError
            If the file is missing or holds no cohort.
        StateError
            If the cache is gone, or older than the image files.
        """
        file = Path(path)
        frame, content = read_frame(file)
        images, note = Path(content["root"] if root is None else root), cache and content.get("cache")
        return cls(
            frame=frame,
            root=images,
            attributes=tuple(content["attributes"]),
            labels=tuple(content["labels"]),
            covariates=tuple(content["covariates"]),
            flow=tuple(FlowStep.from_dict(step) for step in content["flow"]),
            raw=tuple(RawCount(**one) for one in content["raw"]),
            source=find_cache(note, file, images, frame["image_id"].tolist()) if note else None,
            fit=content["fit"],
            white=content["white"],
            channels=content.get("channels", 1),
        )


def _as_findings(frame: pd.DataFrame, labels: Sequence[str]) -> dict[str, pd.Series]:
    """Give the labels that are not numbers, as text, categories or nullable truths, as the numbers that they say."""
    found: dict[str, pd.Series] = {}
    for name in labels:
        numbers = isinstance(frame[name].dtype, np.dtype) and frame[name].dtype.kind in "biuf"
        said = frame[name] if numbers else findings(frame[name])
        odd = frame[name][~said.isin((0, 1)) & frame[name].notna()]
        odd = odd[odd.astype(str).str.strip() != ""]
        if len(odd):
            raise InputError(f"The label '{name}' holds {shown(odd.tolist()[0])}; a finding is 1, 0 or missing.")
        found |= {} if numbers else {name: said}
    return found


def _places(rows: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    """Give numbers (k,) of rows, of which there are `count`, by themselves or by a mask; anything else is refused."""
    if isinstance(rows, pd.DataFrame) and rows.shape[1] == 1:
        rows = rows.iloc[:, 0]
    if isinstance(rows, pd.Series) and is_bool_dtype(rows.dtype) and set(rows.index) == set(range(count)):
        rows = rows.reindex(range(count))
    chosen = np.asarray(rows)
    if chosen.dtype == object and chosen.ndim == 1:  # of an index, or of a nullable type
        kind = infer_dtype(chosen, skipna=False)
        chosen = chosen.astype({"boolean": np.bool_, "integer": np.int64, "empty": np.int64}.get(kind, object))
    if chosen.dtype == bool and chosen.shape != (count,):
        raise InputError(f"The mask has the shape {chosen.shape} for {count} images; give an entry for every image.")
    if chosen.dtype == bool:
        return np.flatnonzero(chosen)
    whole = chosen.size == 0 or (chosen.dtype.kind in "iuf" and bool(np.all(chosen == np.floor(chosen))))
    if chosen.ndim != 1 or not whole or bool(np.any((chosen < -count) | (chosen >= count))):
        raise InputError(f"Rows of the cohort are whole numbers below {count}, or a mask; found {shown(chosen)}.")
    return chosen.astype(np.int64)
