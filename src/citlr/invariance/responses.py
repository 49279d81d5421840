"""The model's outputs on every redrawn image: one validated array with its names, the only input of the statistics."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from citlr.errors import InputError, did_you_mean
from citlr.invariance.arrays import nameless, ordered, require_one_order, unmasked
from citlr.invariance.operating_point import reaches, thresholds
from citlr.invariance.tables import read_long, require_different, require_numbers
from citlr.text import listed_few, visible
from citlr.values import Flag, check_value

# What is known beside the outputs on redrawn images, of every image or of none.
BESIDE = ("factual", "original", "coarse", "put_back", "own")


@dataclass(frozen=True, eq=False)
class Responses:
    """Outputs of one model under every level of one attribute.

    Parameters
    ----------
    values : ndarray of float64, shape (units, levels, draws, labels)
        Probabilities in [0, 1]; `values[i, a, r, k]` is the output for label k on draw r of image i under do(A = a).
    patients : ndarray, shape (units,)
        Patient of every image: the cluster of everything that is said of the population.
    units : ndarray, shape (units,)
        Identifier of every image, all different.
    levels, labels : tuple of str
        Names along the second and the last axis.
    attribute : str
        Name of the attribute.
    factual : ndarray of int, shape (units,), or None
        Index in `levels` of the level that each image really has; None where it is not known.
    original : ndarray of float64, shape (units, labels), or None
        Outputs on the images as they were, never used as the reference of a contrast (DESIGN: null intervention).
    coarse : ndarray of float64, shape (units, labels), or None
        Outputs on the images without what is finer than the generator's pixels, for a model that reads finer ones.
    put_back : ndarray of float64, shape (units, labels), or None
        Outputs on the images moved as an edit moves them and put back: they show what the marks of moving do.
    number : bool
        Whether the levels are values of a number, such as ages: `factual` is then the nearest of them.
    own : ndarray of float64, shape (units, draws, labels), or None
        Outputs on images redrawn under their own value of a number: their null interventions.

    Raises
    ------
    InputError
        When a shape, a value or a name does not fit, in one sentence.

    Examples
    --------
    >>> import numpy as np
    >>> r = Responses.from_arrays(np.full((3, 2, 2, 1), 0.25), patients=["p", "p", "q"], levels=["f", "m"])
    >>> r.n_units, r.n_patients, r.n_draws, r.contrasts
    (3, 2, 2, ((0, 1),))
    """

    values: NDArray[np.float64]
    patients: NDArray[np.object_]
    units: NDArray[np.object_]
    levels: tuple[str, ...]
    labels: tuple[str, ...]
    attribute: str
    factual: NDArray[np.intp] | None = None
    original: NDArray[np.float64] | None = None
    coarse: NDArray[np.float64] | None = None
    put_back: NDArray[np.float64] | None = None
    number: bool = False
    own: NDArray[np.float64] | None = None

    def __repr__(self) -> str:
        """Say what was answered, in a few lines; the numbers are `values`."""
        known = ", ".join(name for name in BESIDE[:-1] if getattr(self, name) is not None)
        return visible(
            f"Responses to {self.n_units} images, {self.n_patients} patients\n"
            f"  {self.attribute}: {listed_few(self.levels)}; {self.n_draws} draws per level\n"
            f"  labels: {listed_few(self.labels)}\n"
            f"  known besides: {known or 'nothing'}"
        )

    def __post_init__(self) -> None:
        _check_shape(self)
        for name, array in _by_image(self).items():
            if name not in ("patients", "units", "factual"):
                _check_probabilities(array, name)
        _check_names(self)
        if self.number:
            require_numbers(self.levels)

    @property
    def n_units(self) -> int:
        """Number of images."""
        return int(self.values.shape[0])

    @property
    def n_draws(self) -> int:
        """Number of generated images per image and level."""
        return int(self.values.shape[2])

    @property
    def n_patients(self) -> int:
        """Number of different patients."""
        return int(pd.unique(pd.Series(self.patients)).size)

    @property
    def contrasts(self) -> tuple[tuple[int, int], ...]:
        """Every pair of levels (index of a, index of a'), a before a'."""
        return tuple(combinations(range(len(self.levels)), 2))

    @property
    def recorded(self) -> NDArray[np.object_] | None:
        """Name of the level that each image really has, shape (units,); None where it is not known."""
        return None if self.factual is None else np.asarray(self.levels, dtype=object)[self.factual]

    @property
    def null(self) -> NDArray[np.float64] | None:
        """Outputs on null interventions, shape (units, draws, labels); None where they are not known."""
        if self.number:
            return self.own
        return None if self.factual is None else self.values[np.arange(self.n_units), self.factual]

    def take(self, rows: ArrayLike) -> Self:
        """Keep the images at these positions (or where a mask is true), in this order."""
        index = np.arange(self.n_units)[np.asarray(rows)]
        return replace(self, **{name: array[index] for name, array in _by_image(self).items()})

    def decisions(self, threshold: float | Mapping[str, float] = 0.5) -> NDArray[np.float64]:
        """Return 1.0 where the probability reaches its label's threshold, else 0.0; shape of `values`.

        Parameters
        ----------
        threshold : float or mapping from label to float
            Operating point, in [0, 1]; a value equal to it is positive. A mapping has to name every label.

        Raises
        ------
        InputError
            When a threshold is missing, unknown or outside [0, 1].
        """
        cut = thresholds(threshold, self.labels)
        return reaches(self.values, cut).astype(np.float64)

    @classmethod
    def from_arrays(
        cls,
        values: ArrayLike,
        *,
        patients: Iterable[object] | None = None,
        units: Iterable[object] | None = None,
        levels: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        attribute: str = "attribute",
        factual: ArrayLike | None = None,
        original: ArrayLike | None = None,
        number: bool = False,
        own: ArrayLike | None = None,
    ) -> Self:
        """Build from an array (units, levels, draws, labels); a three-dimensional one has a single label.

        Parameters
        ----------
        values : array-like
            Probabilities in [0, 1].
        patients, units : iterable, optional
            One entry per image; without `patients` every image is a patient of its own.
        levels, labels : sequence of str, optional
            Names; made up from the positions when left out.
        attribute : str
            Name of the attribute.
        factual : array-like of int or str, optional
            Factual level of every image, as index or as name.
        original : array-like, optional
            Outputs on the original images, shape (units, labels).
        number : bool
            Whether the levels are values of a number.
        own : array-like, optional
            Outputs on images redrawn under their own value of a number, shape (units, draws, labels).
        """
        require_one_order(patients=patients, units=units, factual=factual, original=original)
        array = unmasked(values, "values")
        if array.ndim == 3:
            array = array[..., None]
        if array.ndim != 4:
            raise InputError(
                f"values has {array.ndim} dimensions; give an array of shape (units, levels, draws, labels)."
            )
        n, n_levels, _, n_labels = array.shape
        names = _names(levels, "level", n_levels)
        unit_ids = ordered(range(n) if units is None else units, "units")
        return cls(
            values=array,
            patients=unit_ids if patients is None else ordered(patients, "patients"),
            units=unit_ids,
            levels=names,
            labels=_names(labels, "label", n_labels),
            attribute=str(attribute),
            factual=None if factual is None else _level_index(factual, names),
            original=None if original is None else _of_shape(original, "original", (n, n_labels)),
            number=check_value("number", number, Flag),
            own=None if own is None else _of_shape(own, "own", (n, "draws", n_labels)),
        )

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        attribute: str | None = None,
        levels: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        number: bool = False,
    ) -> Self:
        """Build from the long table of `responses.parquet`.

        Parameters
        ----------
        frame : DataFrame
            Columns image_id, patient_id, attribute, level, draw, label, probability. Rows with draw -1 hold the
            output on the original image, with its factual level, rows with draw -2 that on its coarse version, and
            rows with draw -3 that on the image moved and put back; draws 0, 1, ... are generated images.
        attribute : str, optional
            Which attribute; may be left out when the table has only one.
        levels, labels : sequence of str, optional
            Order (and choice) along those axes; sorted levels, labels as they come, when left out.
        number : bool
            Whether the levels are values of a number, such as ages: an original is then recorded with its own value,
            and rows of the level "recorded" hold the outputs on the image redrawn under that.

        Raises
        ------
        InputError
            When a column or a cell is missing, a row is there twice, or a value is not a probability.
        """
        return cls(**read_long(frame, attribute=attribute, levels=levels, labels=labels, number=number))

    @classmethod
    def from_parquet(cls, path: str | Path, *, attribute: str | None = None) -> Self:
        """Read `responses.parquet`; see `from_frame` for its columns."""
        source = Path(path)
        if not source.is_file():
            raise InputError(f"There is no file {source}; give the responses table that `citlr predict` writes.")
        try:
            frame = pd.read_parquet(source)
        except (ValueError, OSError) as error:
            raise InputError(f"{source} cannot be read as a responses table: {error}.") from error
        return cls.from_frame(frame, attribute=attribute)


def _names(names: Iterable[object] | None, what: str, size: int) -> tuple[str, ...]:
    """Name the places along an axis, by their number where nobody did."""
    if names is None:
        return tuple(f"{what}{i}" for i in range(size))
    given = ordered(names, f"{what}s")
    if nameless(given).any():
        raise InputError(f"{what}s has no name at place {int(np.flatnonzero(nameless(given))[0])}; name every {what}.")
    return tuple(map(str, given))


def _of_shape(values: ArrayLike, name: str, shape: tuple[int | str, ...]) -> NDArray[np.float64]:
    """Check the shape of what is known beside the outputs; the axis of the labels may be left out where one is there.

    Nothing is reshaped: outputs (labels, units) would become those of other images.
    """
    array = unmasked(values, name)
    if shape[-1] == 1 and array.ndim == len(shape) - 1:
        array = array[..., None]
    if array.ndim != len(shape) or any(isinstance(b, int) and a != b for a, b in zip(array.shape, shape, strict=True)):
        wanted = ", ".join(map(str, shape))
        raise InputError(f"{name} has the shape {array.shape}; give one of shape ({wanted}), in the order of values.")
    return array


def _level_index(factual: ArrayLike, levels: tuple[str, ...]) -> NDArray[np.intp]:
    given = ordered(factual, "factual")
    if nameless(given).any():
        raise InputError(
            f"{int(nameless(given).sum())} images have no factual level; give one for every image, or none."
        )
    position = {level: i for i, level in enumerate(levels)}
    if all(isinstance(one, int | np.integer) and not isinstance(one, bool) for one in given):
        named = {*map(str, given)} <= {*levels}
        # Of two levels called 1 and 2, a 2 is no place.
        places = all(0 <= one < len(levels) for one in given)
        if named and places and any(position[str(one)] != one for one in given):
            raise InputError(
                f"factual holds numbers that are names of the levels ({', '.join(levels)}) and places of others among "
                "them: give the names as text."
            )
        if places or not named:
            return given.astype(np.intp)
    unknown = [str(level) for level in given if str(level) not in position]
    if unknown:
        raise InputError(f"The factual level '{unknown[0]}' is none of the levels.{did_you_mean(unknown[0], levels)}")
    return np.array([position[str(level)] for level in given], dtype=np.intp)


def _by_image(r: Responses) -> dict[str, NDArray[Any]]:
    """Give the arrays that have an entry for every image, by name."""
    arrays = {name: getattr(r, name) for name in ("values", "patients", "units", *BESIDE)}
    return {name: array for name, array in arrays.items() if array is not None}


def _check_shape(r: Responses) -> None:
    n, n_levels, n_draws, n_labels = np.shape(r.values)
    if n == 0 or n_labels == 0:
        raise InputError(f"There is nothing to test: {n} images, {n_labels} labels.")
    if n_levels < 2:
        raise InputError(f"'{r.attribute}' has {n_levels} level; a contrast needs at least two.")
    if n_draws < 2:
        raise InputError(
            f"There is {n_draws} draw per image and level; at least two are needed to tell the attribute from "
            "generator noise (four or more are advised): generate with a larger `draws`."
        )
    for name, array in _by_image(r).items():
        if len(array) != n:
            raise InputError(f"{name} has {len(array)} entries for {n} images; give one per image.")
    if r.factual is not None and not bool(np.all((r.factual >= 0) & (r.factual < n_levels))):
        raise InputError(f"factual has an index outside 0..{n_levels - 1}.")


def _check_names(r: Responses) -> None:
    for name, found, size in (("levels", r.levels, np.shape(r.values)[1]), ("labels", r.labels, np.shape(r.values)[3])):
        if len(found) != size:
            raise InputError(f"{name} has {len(found)} names for {size} {name} in values.")
        require_different(found, name)
    if not pd.Series(r.units).is_unique:
        twice = pd.Series(r.units)[pd.Series(r.units).duplicated()].iloc[0]
        raise InputError(f"The image '{twice}' is there twice; every unit needs an identifier of its own.")
    if nameless(np.asarray(r.patients, dtype=object)).any():
        raise InputError("An image has no patient; give every image a patient identifier (its own if need be).")
    if r.n_patients < 2:
        raise InputError(
            f"All {r.n_units} images come from one patient; nothing can be said of a population from one patient."
        )


def _check_probabilities(values: NDArray[np.float64], name: str) -> None:
    bad = ~np.isfinite(values)
    if bool(bad.any()):
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{name} has {int(bad.sum())} entries that are not numbers (NaN or infinite), first at {where}."
        )
    bad = (values < 0) | (values > 1)
    if bool(bad.any()):
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{name} has {int(bad.sum())} entries outside [0, 1], first {values[where]:.6g} at {where}: "
            "give probabilities, not logits or percentages."
        )
