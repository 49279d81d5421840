"""Run the model under audit on every redrawn image and on the originals: the long table of responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from citlr.audit.redrawing.pictures import Pictures
from citlr.console import Ticker, silent
from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import CounterfactualSet
from citlr.data.steps import to_numbers
from citlr.data.tables.columns import read_table
from citlr.errors import InputError
from citlr.invariance.tables import COARSE_DRAW, ORIGINAL_DRAW
from citlr.predictors.base import Predictor
from citlr.predictors.check import check_predictor
from citlr.predictors.specs import InputSpec
from citlr.run.files import atomic_write

# The draw of rows that hold the model's output on the image as it came, and on the image at the generator's pixels, for
# a model that reads finer ones.
ORIGINAL, COARSE = ORIGINAL_DRAW, COARSE_DRAW
COLUMNS = ("image_id", "patient_id", "attribute", "level", "draw", "label", "probability")


def audited_labels(predictor: Predictor, cohort: Cohort) -> tuple[str, ...]:
    """Return the labels that the model gives and the cohort knows, in the cohort's order."""
    shared = tuple(label for label in cohort.labels if label in predictor.labels)
    if not shared:
        raise InputError(
            f"The model '{predictor.name}' gives {list(predictor.labels)}, none of the cohort's labels "
            f"{list(cohort.labels)}: name the model's outputs with `labels`."
        )
    return shared


def predict(
    predictor: Predictor,
    counterfactuals: CounterfactualSet,
    cohort: Cohort,
    *,
    originals: bool = True,
    folder: Path | None = None,
    tick: Ticker = silent,
) -> pd.DataFrame:
    """Return the model's probability for every original and every redrawn image."""
    labels = audited_labels(predictor, cohort)
    check_on_cohort(predictor, cohort, size=counterfactuals.plan.size)
    pictures, frames = Pictures(counterfactuals, cohort, side_read(predictor.input, counterfactuals.plan.size)), []
    if originals:
        for name, draw in (("originals", ORIGINAL), *((("coarse", COARSE),) if pictures.has_coarse else ())):
            frames.append(_kept(folder, name, partial(_originals, predictor, pictures, draw, labels)))
    for number in range(counterfactuals.plan.n_shards):
        frames.append(_kept(folder, f"part-{number:05d}", partial(_shard, predictor, pictures, number, labels)))
        tick(counterfactuals.plan.rows(number).stop)
    return pd.concat(frames, ignore_index=True)


def predict_sets(
    predictor: Predictor,
    sets: Sequence[CounterfactualSet],
    cohort: Cohort,
    *,
    folder: Path | None = None,
    tick: Ticker = silent,
) -> pd.DataFrame:
    """Return the model's probability for all pictures of an audit, see `predict`; originals are those of the first."""
    frames = []
    for number, part in enumerate(sets):
        own = None if folder is None else folder / part.folder.name
        first = number == 0
        frames.append(predict(predictor, part, cohort, originals=first, folder=own, tick=tick if first else silent))
    return pd.concat(frames, ignore_index=True)


def write_responses(path: Path, frame: pd.DataFrame) -> None:
    """Write the long table, atomically."""
    with atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pandas(frame[list(COLUMNS)], preserve_index=False), temporary)


def read_responses(path: str | Path) -> pd.DataFrame:
    """Read a long table of responses (parquet or CSV), such as one filled in by a closed model's owner."""
    source = Path(path)
    if not source.is_file():
        raise InputError(
            f"No responses at '{source}': run `citlr predict` first, or give the file of the model's owner."
        )
    own = source.suffix == ".parquet"
    frame = pd.read_parquet(source) if own else read_table(source, verbatim=COLUMNS)
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise InputError(f"'{source}' lacks the columns {missing}: responses need {list(COLUMNS)}.")
    if own:
        typed = {name: frame[name].astype(str) for name in COLUMNS if name not in ("draw", "probability")}
    else:
        typed = {name: to_numbers(frame[name], source=str(source)) for name in ("draw", "probability")}
    return frame.assign(**typed)[list(COLUMNS)]


def kind_of_answers(frame: pd.DataFrame) -> str:
    """Tell decisions from probabilities: "decisions" where every answer is 0 or 1.

    Examples
    --------
    >>> kind_of_answers(pd.DataFrame({"probability": [0.0, 1.0]}))
    'decisions'
    """
    return "decisions" if frame["probability"].isin([0.0, 1.0]).all() else "probabilities"


def check_on_cohort(predictor: Predictor, cohort: Cohort, *, size: int) -> tuple[str, ...]:
    """Run one batch of the cohort's images through the model before anything long starts."""
    audited_labels(predictor, cohort)
    rows = np.arange(min(4, len(cohort)))
    return check_predictor(predictor, cohort.pixels(rows, size=side_read(predictor.input, size))).notes


def side_read(spec: InputSpec, size: int) -> int:
    """Return the side of the images that a model reads: its own, or the generator's where it takes any."""
    wanted = spec.size
    if wanted is None:
        return size
    return wanted if isinstance(wanted, int) else max(wanted)


def _probabilities(
    predictor: Predictor, images: npt.NDArray[np.float32], ids: Sequence[str], labels: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Return the probabilities of `labels`, float64 (n, len(labels)); an error names the images."""
    try:
        values = predictor.predict(images)
    except InputError as error:
        raise InputError(f"{error} (The batch starts with the image '{ids[0]}' and ends with '{ids[-1]}'.)") from error
    return values[:, [predictor.labels.index(label) for label in labels]]


def _kept(folder: Path | None, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Read a finished part, or make it and keep it."""
    if folder is None:
        return make()
    path = folder / f"{name}.parquet"
    try:
        return pd.read_parquet(path)
    except (OSError, pa.ArrowException):  # not there yet, or damaged
        write_responses(path, make())
        return pd.read_parquet(path)


def _originals(predictor: Predictor, pictures: Pictures, draw: int, labels: Sequence[str]) -> pd.DataFrame:
    """Predict the images as they came, at the size that the model asks for, or what of them the generator sees."""
    plan, found = pictures.part.plan, []
    for start in range(0, len(plan.image_ids), 64):
        rows = range(start, min(start + 64, len(plan.image_ids)))
        images = pictures.originals(rows, pictures.size if draw == ORIGINAL else plan.size)
        found.append(_probabilities(predictor, images, plan.image_ids[rows.start : rows.stop], labels))
    level = np.array(plan.factual)[:, None]
    return _long(pictures.part, range(len(level)), level, np.array([draw]), np.concatenate(found), labels)


def _shard(predictor: Predictor, pictures: Pictures, number: int, labels: Sequence[str]) -> pd.DataFrame:
    plan = pictures.part.plan
    rows, per_image = plan.rows(number), len(plan.levels) * plan.kept
    ids = [plan.image_ids[row] for row in rows for _ in range(per_image)]
    found: list[npt.NDArray[np.float64]] = []
    done = 0
    for images in pictures.batches(number):
        found.append(_probabilities(predictor, images, ids[done : done + len(images)], labels))
        done += len(images)
    # Draws that are alike are answered once.
    values = np.repeat(np.concatenate(found), plan.draws // plan.kept, axis=0)
    level = np.tile(np.array(plan.levels), (len(rows), 1))
    return _long(pictures.part, rows, level, np.arange(plan.draws), values, labels)


def _long(
    counterfactuals: CounterfactualSet,
    rows: range,
    level: npt.NDArray[np.str_],
    draws: npt.NDArray[np.int_],
    values: npt.NDArray[np.float64],
    labels: Sequence[str],
) -> pd.DataFrame:
    """Lay out values of shape (images * levels * draws, labels) as one row per image, level, draw and label."""
    count, n_levels = level.shape
    per_image = n_levels * len(draws)
    repeat = per_image * len(labels)
    start, stop = rows.start, rows.stop
    return pd.DataFrame(
        {
            "image_id": np.repeat(np.array(counterfactuals.plan.image_ids[start:stop]), repeat),
            "patient_id": np.repeat(np.array(counterfactuals.plan.patient_ids[start:stop]), repeat),
            "attribute": counterfactuals.plan.attribute,
            "level": np.repeat(level.ravel(), len(draws) * len(labels)),
            "draw": np.tile(np.repeat(draws, len(labels)), count * n_levels),
            "label": np.tile(np.array(labels), count * per_image),
            "probability": values.ravel(),
        }
    )
