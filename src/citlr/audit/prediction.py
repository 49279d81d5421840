"""Run the model under audit on every redrawn image and on the originals: the long table of responses."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from citlr.data.pixels.square import Fit
from citlr.data.steps import to_numbers
from citlr.data.tables.columns import read_table
from citlr.errors import InputError
from citlr.invariance.tables import COARSE_DRAW, COLUMNS, ORIGINAL_DRAW, PUT_BACK_DRAW
from citlr.predictors.base import Predictor
from citlr.predictors.check import check_predictor, require_unchanged
from citlr.predictors.outputs import as_matrix, require_probabilities
from citlr.predictors.specs import InputSpec
from citlr.run.engines import Engine
from citlr.run.files import atomic_write

# Images that a model is asked for at a time: other batches have other last bits.
BATCH = 64
# Originals that are answered at a time, in whole batches.
_ORIGINALS = 1024


def audited_labels(predictor: Predictor, cohort: Cohort) -> tuple[str, ...]:
    """Return the labels that the model gives and the cohort knows, in the cohort's order."""
    shared = tuple(label for label in cohort.labels if label in predictor.labels)
    if not shared:
        raise InputError(
            f"The model '{predictor.name}' gives {list(predictor.labels)}, none of the cohort's labels "
            f"{list(cohort.labels)}: name the model's outputs with `labels`."
        )
    return shared


def predict_sets(
    predictor: Predictor,
    sets: Sequence[CounterfactualSet],
    cohort: Cohort,
    *,
    originals: bool = True,
    folder: Path | None = None,
    tick: Ticker = silent,
    engine: Engine | None = None,
) -> pd.DataFrame:
    """Return the model's probability for all pictures of an audit, and for the `originals`, those of the first set.

    Parts that are finished lie in `folder`, which the engine reaches; without it all is done in this process.
    """
    labels = audited_labels(predictor, cohort)
    asked = [Pictures(part, cohort, side_read(predictor.input, part.plan.size)) for part in sets]
    for size in dict.fromkeys(part.plan.size for part in sets):
        check_on_cohort(predictor, cohort, size=size)
    parts = _parts(asked, originals)
    answers = _Answers(predictor, tuple(asked), labels, None if folder is None else folder.absolute())
    found: dict[int, pd.DataFrame] = {}
    if folder is not None:
        found = {row: frame for row, part in enumerate(parts) if (frame := answers.kept(part)) is not None}
    missing = [row for row in range(len(parts)) if row not in found]
    done = sum(parts[row].images for row in found)
    tick(done)
    for turn, frame in (engine or Engine()).each(_answer, answers, [parts[row] for row in missing]):
        row = missing[turn]
        found[row] = frame
        done += parts[row].images
        tick(done)
    if originals:
        _require_unchanged(answers, parts[0], found[0])
    return pd.concat([found[row] for row in range(len(parts))], ignore_index=True)


@dataclass(frozen=True)
class _Part:
    """What is asked of a model at a time: originals (at one of two sizes), or a shard of one of the sets.

    - `images`: How many of the first set's images are done with it.
    """

    number: int
    name: str
    rows: range
    draw: int | None = None
    images: int = 0


def _parts(asked: Sequence[Pictures], originals: bool) -> list[_Part]:
    """Cut the work, in the order of the table that comes of it."""
    plan, parts = asked[0].part.plan, []
    sizes = (("originals", ORIGINAL_DRAW), *((("coarse", COARSE_DRAW),) if asked[0].has_coarse else ()))
    for name, draw in sizes if originals else ():
        for start in range(0, len(plan.image_ids), _ORIGINALS):
            rows = range(start, min(start + _ORIGINALS, len(plan.image_ids)))
            parts.append(_Part(0, f"{name}-{start:06d}", rows, draw))
    if originals and plan.edits:
        parts += [_Part(0, f"put-back-{shard:05d}", plan.rows(shard), PUT_BACK_DRAW) for shard in range(plan.n_shards)]
    for number, pictures in enumerate(asked):
        own = pictures.part.plan
        for shard in range(own.n_shards):
            images = 0 if number else len(own.rows(shard))
            parts.append(_Part(number, f"part-{shard:05d}", range(shard, shard + 1), images=images))
    return parts


@dataclass(frozen=True)
class _Answers:
    """A model and what it is asked: what any process needs for a part of the answers."""

    predictor: Predictor
    asked: tuple[Pictures, ...]
    labels: tuple[str, ...]
    folder: Path | None

    def path(self, part: _Part) -> Path | None:
        """Say where a finished part lies."""
        if self.folder is None:
            return None
        return self.folder / self.asked[part.number].part.folder.name / f"{part.name}.parquet"

    def kept(self, part: _Part) -> pd.DataFrame | None:
        """Read a finished part; None where it is not there yet, or damaged."""
        path = self.path(part)
        try:
            return None if path is None else pd.read_parquet(path)
        except (OSError, pa.ArrowException):
            return None

    def make(self, part: _Part) -> pd.DataFrame:
        """Ask the model."""
        pictures = self.asked[part.number]
        if part.draw is None:
            return _shard(self.predictor, pictures, part.rows.start, self.labels)
        if part.draw == PUT_BACK_DRAW:
            return _put_back(self.predictor, pictures, part.rows, self.labels)
        return _originals(self.predictor, pictures, part.rows, part.draw, self.labels)


def _answer(answers: _Answers, part: _Part) -> pd.DataFrame:
    """Answer a part and keep it; as it is read back, whether it was finished before or not."""
    frame, path = answers.make(part), answers.path(part)
    if path is None:
        return frame
    write_responses(path, frame)
    return pd.read_parquet(path)


def _require_unchanged(answers: _Answers, part: _Part, first: pd.DataFrame) -> None:
    """Ask for the first batch of originals again; of a model that drifted no answer is kept for a later call."""
    again = answers.make(replace(part, rows=part.rows[:BATCH]))["probability"].to_numpy()
    shape = (-1, len(answers.labels))
    before = first["probability"].to_numpy()[: len(again)].reshape(shape)
    try:
        require_unchanged(answers.predictor, before, again.reshape(shape))
    except InputError:
        if answers.folder is not None:
            shutil.rmtree(answers.folder)
        raise


def write_responses(path: Path, frame: pd.DataFrame) -> None:
    """Write the long table, atomically."""
    with atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pandas(frame[list(COLUMNS)], preserve_index=False), temporary)


def read_responses(path: str | Path) -> pd.DataFrame:
    """Read a long table of responses (parquet or CSV), such as one filled in by a closed model's owner."""
    source = Path(path)
    if not source.is_file():
        raise InputError(
            f"There are no answers of the model at '{source}': run `citlr predict` first, or give the file of the "
            "model's owner."
        )
    own = source.suffix == ".parquet"
    try:
        frame = pd.read_parquet(source) if own else read_table(source, verbatim=COLUMNS)
    except pa.ArrowException as error:
        raise InputError(f"'{source}' is damaged ({error}): run `citlr test` on its run to make it again.") from error
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise InputError(f"'{source}' lacks the columns {missing}: responses need {list(COLUMNS)}.")
    if own:
        typed = {name: frame[name].astype(str) for name in COLUMNS if name not in ("draw", "probability")}
    else:
        typed = {name: to_numbers(frame[name], source=str(source)) for name in ("draw", "probability")}
    return frame.assign(**typed)[list(COLUMNS)]


def kind_of_answers(frame: pd.DataFrame) -> str:
    """Tell decisions from probabilities: "decisions" where every answer is 0 or 1."""
    return "decisions" if frame["probability"].isin([0.0, 1.0]).all() else "probabilities"


def check_on_cohort(predictor: Predictor, cohort: Cohort, *, size: int, images: int = 4) -> tuple[str, ...]:
    """Run one batch of the cohort's images through the model before anything long starts; say what looks wrong.

    `size` is the side of the generator's pixels. A few images are soon asked for; what a batch as large as an audit's
    does to its images shows before the model is asked for all.
    """
    audited_labels(predictor, cohort)
    rows = np.arange(min(images, len(cohort)))
    found = check_predictor(predictor, cohort.pixels(rows, size=side_read(predictor.input, size))).notes
    return (*found, *_unsized(predictor, size), *_out_of_shape(predictor.input, cohort.fit))


def _unsized(predictor: Predictor, size: int) -> tuple[str, ...]:
    """Say at which size a model is asked that takes any, as one with global pooling or a resizing of its own does."""
    if predictor.input.size is not None:
        return ()
    return (
        f"Model '{predictor.name}' is not said to read images of one size, and is shown them at {size} pixels a side, "
        "those of the generator: declare input: {size: ...} if it was trained on others.",
    )


def _out_of_shape(spec: InputSpec, fit: Fit) -> tuple[str, ...]:
    """Say that images which are no squares come out of shape to a model that reads no squares either."""
    if len({*spec.shape}) < 2 or fit == "stretch":
        return ()
    height, width = spec.shape
    how = "with black bars" if fit == "pad" else "by their centre"
    return (
        f"The model reads images {height} high and {width} wide, and those that are no squares are made square before "
        f"({how}, cohort.fit: {fit}), so that it sees them out of shape: say cohort.fit: stretch if it was trained on "
        "images stretched to its size.",
    )


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
        # A copy, which a predictor of its own may write into, and a matrix of whatever it gives, by its names.
        given = predictor.predict(images.copy())
        values = as_matrix(given, len(images), predictor.name, heads=predictor.labels)
        require_probabilities(values, predictor.labels, predictor.name)
    except InputError as error:
        raise InputError(f"{error} (The batch starts with the image '{ids[0]}' and ends with '{ids[-1]}'.)") from error
    return values[:, [predictor.labels.index(label) for label in labels]]


def _originals(predictor: Predictor, pictures: Pictures, rows: range, draw: int, labels: Sequence[str]) -> pd.DataFrame:
    """Predict the images as they came, at the size that the model asks for, or what of them the generator sees."""
    plan, found = pictures.part.plan, []
    for start in range(rows.start, rows.stop, BATCH):
        some = range(start, min(start + BATCH, rows.stop))
        images = pictures.originals(some, pictures.size if draw == ORIGINAL_DRAW else plan.size)
        found.append(_probabilities(predictor, images, plan.image_ids[some.start : some.stop], labels))
    return _beside(pictures, rows, draw, np.concatenate(found), labels)


def _put_back(predictor: Predictor, pictures: Pictures, rows: range, labels: Sequence[str]) -> pd.DataFrame:
    """Predict a shard's originals, moved and put back."""
    plan, found = pictures.part.plan, []
    images = pictures.put_back(rows.start // plan.shard)
    for start in range(0, len(rows), BATCH):
        ids = plan.image_ids[rows.start + start : rows.start + start + BATCH]
        found.append(_probabilities(predictor, images[start : start + BATCH], ids, labels))
    return _beside(pictures, rows, PUT_BACK_DRAW, np.concatenate(found), labels)


def _beside(
    pictures: Pictures, rows: range, draw: int, values: npt.NDArray[np.float64], labels: Sequence[str]
) -> pd.DataFrame:
    """Lay out values (images, labels) that stand beside the redrawn images, under the recorded level."""
    level = np.array(pictures.part.plan.factual[rows.start : rows.stop])[:, None]
    return _long(pictures.part, rows, level, np.array([draw]), values, labels)


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
