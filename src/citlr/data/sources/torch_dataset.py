"""A `torch.utils.data.Dataset`, or a data set object of torchxrayvision, as it is: images and dictionaries.

Neither package is imported here: what counts is how the object behaves.
"""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageOps

from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.data.flow import FlowRecorder
from citlr.data.images import fit_square
from citlr.data.pixels.colour import as_rgb, luminance
from citlr.data.pixels.shown import BLANK, FAINT, NOTHING, Pixels, Remark, blank_fault, contrast
from citlr.data.pixels.source import digest_of
from citlr.data.pixels.square import Fit
from citlr.data.reading import read_cohort
from citlr.data.tables.vocabulary import findings
from citlr.errors import InputError, did_you_mean

# torchxrayvision scales every image to this range, in its own words "[-1024, 1024]".
XRAY_RANGE = (-1024.0, 1024.0)
IMAGE_KEYS = ("image", "img", "x", "pixels")
_KINDS = {"b": "booleans", "i": "integers", "u": "integers", "f": "floats"}
# Items looked at before anything long starts: a wrong range makes all of them black.
_FIRST = 16


class ImageDataset(Protocol):
    """What an object has to do to be a source."""

    def __len__(self) -> int:
        """Give the number of images."""

    def __getitem__(self, index: int) -> Any:
        """Give a dictionary with the image in it, or a pair of image and dictionary."""


@dataclass(frozen=True)
class DatasetPixels:
    """Pixels out of a data set object, one caller at a time: few such objects can be read from several threads.

    - `ranges` (float, float): The values for black and white, by the kind of an item's numbers, as NumPy names it.
    """

    dataset: ImageDataset
    positions: dict[str, int] = field(repr=False)
    ranges: dict[str, tuple[float, float]]
    channels: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def read_many(self, ids: Sequence[str], paths: Sequence[str], *, size: int, fit: Fit) -> Pixels:
        """Ask for the items, scale them to [0, 1] and resize them."""
        batch = np.empty((len(ids), self.channels, size, size), dtype=np.float32)
        for place, image_id in enumerate(ids):
            scaled = self.native(image_id)
            fault = blank_fault(f"Item {self.positions[image_id]} of the data set", _span(scaled), least=NOTHING)
            if fault:
                raise InputError(f"{fault} Leave it out of the data set.")
            batch[place] = fit_square(scaled, size=size, fit=fit)
        return batch

    def native(self, image_id: str, path: str = "") -> Pixels:
        """Give one image at its own size, scaled to [0, 1]."""
        return _scaled(self._array(image_id), self.ranges, self.positions[image_id], self.channels)

    def fingerprint(self, ids: Sequence[str], paths: Sequence[str]) -> str:
        """Ask for every item once: only its values say what it is."""
        return digest_of([str(self.ranges), *ids], ["", *map(self._digest, ids)])

    def _digest(self, image_id: str) -> str:
        image = self._array(image_id)
        text = hashlib.sha256(f"{image.shape} {image.dtype}".encode())
        text.update(np.ascontiguousarray(image).tobytes())
        return text.hexdigest()

    def _array(self, image_id: str) -> npt.NDArray[Any]:
        index = self.positions[image_id]
        with self._lock:
            image, _ = _parts(self.dataset, index)
        return _array(image, index, self.channels)


def read_dataset(
    dataset: ImageDataset,
    *,
    attribute: str,
    labels: Sequence[str],
    columns: Mapping[str, str] | None = None,
    value_range: tuple[float, float] | None = None,
    narrator: Narrator = QUIET,
    **choices: Any,
) -> Cohort:
    """Read a data set object into a cohort whose pixels stay in the object until they are asked for.

    An object with `csv`, `labels` and `pathologies`, as torchxrayvision's have, is described by its tables and no image
    is decoded. Of any other object every item is looked at once, one at a time, and its dictionary kept.

    Parameters
    ----------
    dataset : ImageDataset
        Items are dictionaries with the image under `image`, `img`, `x` or `pixels`, or pairs (image, dictionary).
        An image is a tensor, an array, or a Pillow image, which is read as it is shown.
    attribute : str
        The sensitive attribute: a key of the dictionaries, or a column of `csv`; `sex` is made of `sex_male` and
        `sex_female` where it has these.
    labels : sequence of str
        Findings: keys of the dictionaries, or names among `pathologies`.
    columns : mapping of str to str, optional
        Our names (`image_id`, `patient_id`, `age`, `view`, ...) to the object's.
    value_range : (float, float), optional
        The object's values for black and white; without it, by each item's own numbers, (0, 255) for integers, (0, 1)
        for booleans and floats, and (-1024, 1024) for floats of torchxrayvision's objects.
    narrator : Narrator
        Shows progress.
    **choices
        Further arguments of `citlr.data.reading.read_cohort`, such as `levels`, `split`, `seed`.

    Returns
    -------
    Cohort
        It lives as long as the object does; to keep it, write a cache (`citlr.data.pixels.cache.write_cache`).

    Raises
    ------
    InputError
        For items of another kind, and as `read_cohort`.
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise InputError(f"A {type(dataset).__name__} is no data set: it has no length or cannot be indexed.")
    if len(dataset) == 0:
        raise InputError(f"The data set ({type(dataset).__name__}) is empty.")
    renames = dict(columns or {})
    described = all(hasattr(dataset, name) for name in ("csv", "labels", "pathologies"))
    channels, ranged = choices.get("channels", 1), value_range is not None
    frame = _xray_table(dataset) if described else _walk(dataset, channels, ranged, narrator)
    for ours, theirs in (("patient_id", "patientid"), ("age", "age_years")):
        if ours not in renames and ours not in frame.columns and theirs in frame.columns:
            renames[ours] = theirs
    if "sex" not in frame.columns and "sex" not in renames and {"sex_male", "sex_female"} <= set(frame.columns):
        made = _sex(frame)
        frame = frame.drop(columns=[name for name in frame if str(name).lower() == "sex"]).assign(sex=made)
    identity = renames.pop("image_id", "image_id")
    names = (
        frame[identity].astype(str) if identity in frame.columns else pd.Series([f"{row:07d}" for row in frame.index])
    )
    # The object's own files and names are not read: its items are.
    taken = [name for name in frame if str(name).lower() in ("image_id", "path") and name not in renames.values()]
    frame = frame.drop(columns=taken).assign(
        image_id=names.to_numpy(), path=[f"item/{row:07d}" for row in range(len(frame))]
    )
    cohort = read_cohort(
        frame, images=Path(), attribute=attribute, labels=labels, columns=renames, check="none", **choices
    )
    positions = {str(name): index for index, name in enumerate(frame["image_id"])}
    pixels = DatasetPixels(dataset, positions, _ranges(value_range, xray=described), cohort.channels)
    first = cohort.frame["image_id"].tolist()[:_FIRST]
    recorder = FlowRecorder(cohort.frame, steps=cohort.flow)
    if not described:
        _require_shown(pixels, first, recorder, narrator)
    if not described or getattr(dataset, "data_aug", None) is not None:
        _require_still(pixels, first)
    return replace(cohort, source=pixels, flow=tuple(recorder.steps))


def _xray_table(dataset: Any) -> pd.DataFrame:
    """Put `csv` and the label matrix side by side; their rows are the object's items, in order."""
    table, matrix = dataset.csv, np.asarray(dataset.labels, dtype=float)
    if len(table) != len(dataset) or matrix.shape != (len(dataset), len(dataset.pathologies)):
        raise InputError(
            f"The tables of the {type(dataset).__name__} do not fit its {len(dataset)} items: csv has {len(table)} "
            f"rows, labels have the shape {matrix.shape} for {len(dataset.pathologies)} pathologies."
        )
    findings = pd.DataFrame(matrix, columns=[str(name) for name in dataset.pathologies])
    plain = table.reset_index(drop=True)
    both: pd.DataFrame = pd.concat([plain[[name for name in plain if name not in findings]], findings], axis=1)
    return both


def _walk(dataset: ImageDataset, channels: int, ranged: bool, narrator: Narrator) -> pd.DataFrame:
    rows, kinds = [], dict[str, int]()
    with narrator.progress("read items", total=len(dataset)) as tick:
        for index in range(len(dataset)):
            image, described = _parts(dataset, index)
            kinds.setdefault(_KINDS[_array(image, index, channels).dtype.kind], index)
            rows.append({str(key): _plain(value) for key, value in described.items()})
            tick(index + 1)
    if len(kinds) > 1 and not ranged:
        (one, first), (other, second) = list(kinds.items())[:2]
        raise InputError(
            f"Items {first} and {second} of the data set hold {one} and {other}, which have no range in common; give "
            "all items one kind of numbers, or `value_range`."
        )
    return pd.DataFrame(rows)


def _parts(dataset: ImageDataset, index: int) -> tuple[Any, Mapping[str, Any]]:
    """Take one item apart into image and dictionary."""
    item = dataset[index]
    if isinstance(item, Mapping):
        key = next((name for name in IMAGE_KEYS if name in item), None)
        if key is None:
            raise InputError(f"Item {index} of the data set has no image.{did_you_mean('image', map(str, item))}")
        return item[key], {name: value for name, value in item.items() if name != key}
    if isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[1], Mapping):
        return item[0], item[1]
    raise InputError(
        f"Item {index} of the data set is a {type(item).__name__}; a dictionary with an image, or a pair of an image "
        "and a dictionary, is needed."
    )


def _array(image: Any, index: int, channels: int) -> npt.NDArray[Any]:
    """Give a tensor, an array or a Pillow image as an array of numbers."""
    if isinstance(image, Image.Image) and not image.mode.startswith(("I", "F")):
        # The numbers of a palette are no grey values: a picture is what it shows, as a file of it would be.
        shown, _ = as_rgb(ImageOps.exif_transpose(image), f"Item {index} of the data set", deep=False)
        values = np.asarray(shown)
        return values[..., 0] if channels == 1 and (values == values[..., :1]).all() else values
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if array.dtype.kind not in _KINDS:
        raise InputError(f"Item {index} of the data set has an image of {array.dtype}; numbers are due.")
    return array


def _plain(value: Any) -> Any:
    """Give a tensor of one element as a number; everything else as it is."""
    return value.item() if hasattr(value, "item") and np.size(value) == 1 else value


def _ranges(stated: tuple[float, float] | None, *, xray: bool) -> dict[str, tuple[float, float]]:
    if stated is not None:
        if not stated[0] < stated[1]:
            raise InputError(f"value_range={stated} is empty; give the values for black and white, the smaller first.")
        return dict.fromkeys(_KINDS, stated)
    return {"b": (0.0, 1.0), "i": (0.0, 255.0), "u": (0.0, 255.0), "f": XRAY_RANGE if xray else (0.0, 1.0)}


def _require_shown(pixels: DatasetPixels, ids: list[str], recorder: FlowRecorder, narrator: Narrator) -> None:
    """Refuse items most of which show nothing, and tell where most use little of the grey range."""
    spans = {image_id: _span(pixels.native(image_id)) for image_id in ids}
    blank, faint = ([one for one, span in spans.items() if not span >= least] for least in (BLANK, FAINT))
    if 2 * len(blank) > len(ids):
        raise InputError(
            f"{len(blank)} of the first {len(ids)} items of the data set show nothing, the first: item "
            f"{pixels.positions[blank[0]]}; give value_range as its values for black and white."
        )
    if 2 * len(faint) > len(ids):
        recorder.remark(
            f"{len(faint)} of the first {len(ids)} items {Remark.FAINT}, where black and white are those of their kind "
            "of numbers: give value_range as theirs",
            faint,
        )
        narrator.say(f"Remark: {recorder.steps[-1].reason}.")


def _require_still(pixels: DatasetPixels, ids: list[str]) -> None:
    for image_id in ids:
        if pixels.fingerprint([image_id], [""]) != pixels.fingerprint([image_id], [""]):
            raise InputError(
                f"Item {pixels.positions[image_id]} of the data set is another image each time that it is asked for; "
                "take random transforms (augmentation) out of it."
            )


def _span(scaled: Pixels) -> float:
    return contrast(luminance(scaled.reshape(-1, *scaled.shape[-2:])))


def _scaled(image: npt.NDArray[Any], ranges: dict[str, tuple[float, float]], index: int, channels: int) -> Pixels:
    plane = image[0] if image.ndim == 3 and image.shape[0] == 1 else image
    if channels > 1:
        # Pillow's images have their channels last.
        plane = image.transpose(2, 0, 1) if image.ndim == 3 and image.shape[2] == channels != len(image) else image
        if plane.ndim != 3 or len(plane) != channels:
            raise InputError(
                f"Item {index} of the data set has an image of shape {image.shape}; ({channels}, H, W) or "
                f"(H, W, {channels}) is due in colour."
            )
    elif plane.ndim != 2:
        raise InputError(
            f"Item {index} of the data set has an image of shape {image.shape}; (1, H, W) or (H, W) is due "
            "(channels=3 reads colour)."
        )
    low, high = value_range = ranges[image.dtype.kind]
    scaled: Pixels = (plane.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    # The comparison is false for NaN. A thousandth over the edge is rounding in a resize.
    if not (float(scaled.min()) >= -1e-3 and float(scaled.max()) <= 1.001):
        raise InputError(
            f"Item {index} of the data set has values from {plane.min():g} to {plane.max():g}, outside {value_range}; "
            "give value_range as its values for black and white."
        )
    return np.clip(scaled, 0.0, 1.0)


def _sex(frame: pd.DataFrame) -> pd.Series:
    male, female = (findings(frame[name]) == 1 for name in ("sex_male", "sex_female"))
    stated = pd.Series(np.where(male, "male", "female"), index=frame.index)
    # Blank where neither or both are set: kept out and counted, as any blank.
    return stated.where(male != female, None)
