"""Predictions on somebody's own counterfactuals as a table, long or wide, checked whole and brought to `Responses`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from citlr.data.tables.columns import read_table, table_columns
from citlr.data.tables.redrawn import number_draws, require_attribute, require_every_level, require_once, row_of
from citlr.doses import RECORDED, as_numbers, nearest
from citlr.errors import InputError, did_you_mean, require_known
from citlr.exchange.numbers import VALUES, read_numbers, require_decided, require_same_cut, short
from citlr.invariance.operating_point import thresholds
from citlr.invariance.responses import Responses
from citlr.invariance.tables import COLUMNS, ORIGINAL_DRAW

NEEDED = ("image_id", "patient_id", "level", "draw")
# Whether an image has the finding of the row's label, 0 or 1; blank where nobody knows.
TRUTH = "truth"
# A column `recorded` says the level that an image really has, where the rows of the originals do not.
# Words such as "NA" are names in these, never blanks.
_NAMES = ("image_id", "patient_id", "level", "label", "attribute", RECORDED)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a table of predictions holds.

    - `responses`: The predictions; `factual` and `original` where the table has them.
    - `known`: A row per image, in the order of `responses`: image_id, patient_id, what else was asked for, and under
      the name of a label whether the image has the finding (0, 1, NaN), where the table says so.
    - `long`: The table as `responses.parquet` has it.
    """

    responses: Responses
    known: pd.DataFrame
    long: pd.DataFrame

    @property
    def answers(self) -> str:
        """Tell decisions from probabilities."""
        return "decisions" if self.long["probability"].isin([0.0, 1.0]).all() else "probabilities"


def read_predictions(
    file: str | Path,
    *,
    attribute: str = "",
    labels: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    given: Sequence[str] = (),
    truth: Mapping[str, str] | None = None,
    percent: bool = False,
    threshold: float | Mapping[str, float] = 0.5,
) -> Predictions:
    """Read the predictions of a model on redrawn images; the format is in docs/predictions.md.

    - `labels`: The columns of a wide table, or a choice among the labels of a long one.
    - `columns`: Our names and the table's own, `{"level": "sex"}`.
    - `given`: Columns that say what else is recorded of an image.
    - `truth`: The column of the truth of each label, `{"edema": "edema_truth"}`; a long table may have one, `truth`.
    - `threshold`: The operating point, or that of each label: decisions beside probabilities have to be those at it.
    """
    source = str(file)
    table = _of_attribute(_renamed(Path(file), columns or {}), attribute, source)
    table = number_draws(table, source)
    recorded = _recorded(table, source)
    levelled = table.assign(level=table["level"].fillna(table["image_id"].map(recorded)))
    long = _long(levelled, labels, source, percent, threshold)
    generated = long[long["draw"] != ORIGINAL_DRAW]
    if generated.empty:
        raise InputError(f"'{source}' has no redrawn image: rows with draw 0, 1, ... are needed for every level.")
    number = _of_a_number(generated)
    require_every_level(generated, _own_levels(generated, recorded) if number else recorded, source)
    responses = Responses.from_frame(long, labels=labels or None, number=number)
    responses = _with_recorded(responses, recorded) if len(recorded) else responses
    known = pd.DataFrame({"image_id": responses.units, "patient_id": responses.patients})
    truths = _truths(table, responses.labels, truth or {}, source)
    for name in given:
        if name in responses.labels:  # in a long table, the column of a finding under the label's own name
            truths.setdefault(name, _zero_or_one(_per_image(table, name, source), name, source))
            continue
        known[name] = known["image_id"].map(_per_image(table, name, source))
        numbers = pd.to_numeric(known[name], errors="coerce")
        known[name] = numbers if numbers.notna().equals(known[name].notna()) else known[name]
    for label, values in truths.items():
        known[label] = known["image_id"].map(values).astype(float)
    return Predictions(responses, known, long)


def _of_a_number(generated: pd.DataFrame) -> bool:
    """Tell levels that are values of a number, such as ages: three numbers or more, or beside the word "recorded"."""
    levels = list(generated["level"].unique())
    values = [level for level in levels if level != RECORDED]
    return as_numbers(values) is not None and (len(values) > 2 or (len(values) == 2 and RECORDED in levels))


def _own_levels(generated: pd.DataFrame, recorded: pd.Series) -> pd.Series:
    """Give the level under which an image is its null intervention, by image; of none where there is no such level."""
    levels = set(generated["level"])
    if RECORDED in levels:
        return pd.Series(RECORDED, index=recorded.index)
    return recorded if set(recorded) <= levels else recorded.iloc[:0]


def _with_recorded(responses: Responses, recorded: pd.Series) -> Responses:
    """Say which level each image really has, of a number the nearest, where the rows of the originals have not."""
    own = [str(recorded[unit]) for unit in responses.units]
    if responses.factual is None:
        place = {level: k for k, level in enumerate(responses.levels)}
        if responses.number:
            if as_numbers(own) is None:
                strange = next(level for level in own if as_numbers([level]) is None)
                raise InputError(f"The levels are numbers, and an image is recorded with '{short(strange)}'.")
            factual = nearest([float(level) for level in own], responses.levels)
        else:
            factual = np.array([place[level] for level in own], dtype=np.intp)
        responses = replace(responses, factual=factual)
    if responses.number and responses.own is None and set(own) <= set(responses.levels):
        # Whoever has just one of the values was redrawn under it.
        responses = replace(responses, own=responses.values[np.arange(responses.n_units), responses.factual])
    return responses


def _renamed(file: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """Read the cells as text, blank ones missing, under our names."""
    have = table_columns(file)
    for ours, theirs in columns.items():
        require_known(theirs, have, f"'{file}' has no column '{theirs}' (wanted as '{ours}')")
        if ours in have and ours != theirs:
            raise InputError(f"'{file}' has a column '{ours}' and '{theirs}' is to be called so: rename one of them.")
    table = read_table(file, verbatim=[columns.get(name, name) for name in _NAMES])
    table = table.rename(columns={theirs: ours for ours, theirs in columns.items()})
    for name in NEEDED:
        if name not in table:
            hint = " (--map patient_id=image_id where every image is a patient)" if name == "patient_id" else ""
            raise InputError(
                f"'{file}' has no column '{name}': predictions need {', '.join(NEEDED)}; say which column it is with "
                f"--map {name}=COLUMN{hint}.{did_you_mean(name, map(str, table.columns))}"
            )
    return table.astype("string").astype(object).where(table.notna(), None)


def _of_attribute(table: pd.DataFrame, attribute: str, source: str) -> pd.DataFrame:
    """Keep the rows of one attribute; a table without such a column holds one, whatever it is called."""
    if "attribute" not in table:
        return table.assign(attribute=attribute or "attribute")
    require_attribute(table, source)
    present = [str(name) for name in table["attribute"].unique()]
    chosen = attribute or (present[0] if len(present) == 1 else "")
    if chosen not in present:
        asked = f"there is no '{attribute}' among them" if attribute else "say which one with --attribute"
        raise InputError(f"'{source}' holds the attributes {', '.join(present) or '(none)'}: {asked}.")
    return table[table["attribute"] == chosen]


def _recorded(table: pd.DataFrame, source: str) -> pd.Series:
    """Give the level that each image really has, by image id; of none where the table does not say."""
    own = table[table["draw"] == ORIGINAL_DRAW]
    said = own[["image_id", "level"]]
    if RECORDED in table:
        said = pd.concat([table[["image_id", RECORDED]].set_axis(["image_id", "level"], axis=1), said])
    elif own["level"].isna().any():
        blank = own.index[own["level"].isna()][0]
        raise InputError(
            f"'{source}' does not say which level the original in {row_of(blank)} has: write it as its level, or in a "
            f"column '{RECORDED}'."
        )
    said = said.dropna().drop_duplicates()
    double = said[said["image_id"].duplicated(keep=False)]
    if len(double):
        first = double[double["image_id"] == double["image_id"].iloc[0]]["level"]
        raise InputError(
            f"'{source}' gives the image '{short(double['image_id'].iloc[0])}' more than one recorded level "
            f"({', '.join(map(short, first))}): an image has one, in all its rows."
        )
    lacking = set(table["image_id"]) - set(said["image_id"])
    if len(said) and lacking:
        raise InputError(
            f"'{source}' does not say which level the image '{short(min(lacking))}' really has ({len(lacking)} "
            "images): say it of every image, or of none."
        )
    return said.set_index("image_id")["level"]


def _is_long(table: pd.DataFrame) -> bool:
    """Tell a row for each answer from a row for all labels: a label and its value, whatever columns are beside them."""
    return "label" in table and any(name in table for name in VALUES)


def _long(
    table: pd.DataFrame, labels: Sequence[str], source: str, percent: bool, threshold: float | Mapping[str, float]
) -> pd.DataFrame:
    """Bring long and wide tables to the columns of `responses.parquet`."""

    def of(row: int) -> str:
        one, where = table.iloc[row], row_of(table.index[row])
        return f" in {where} (image '{short(one['image_id'])}', level {one['level']}, draw {one['draw']})"

    if _is_long(table):
        present = _labels(table, labels, source)
        require_once(table, ["label"], source)
        cuts = dict(zip(labels or present, thresholds(threshold, labels or present), strict=True))
        require_decided(table, of, source, cuts=cuts, setting="--threshold", percent=percent)
        value = next(name for name in VALUES if name in table)
        require_same_cut(table, cuts, source, setting="--threshold", percent=percent)
        numbers = read_numbers({value: table[value]}, of, source, percent=percent, labels=table["label"])[value]
        undecided = np.flatnonzero(~np.isin(numbers, (0, 1)))
        if value == "decision" and len(undecided):
            raise InputError(
                f"'{source}' has {numbers[undecided[0]]:g} as decision{of(undecided[0])}: a decision is 0 or 1; "
                "probabilities go into a column 'probability'."
            )
        return table.assign(probability=numbers)[list(COLUMNS)]
    missing = next((label for label in labels if label not in table), "" if labels else "label")
    if missing:
        near = did_you_mean(missing, map(str, table.columns))
        raise InputError(
            f"'{source}' has no column '{missing}': give the columns 'label' and 'probability' (or 'decision'), or "
            f"name the columns of predictions with --label, one for each label.{near}"
        )
    require_once(table, [], source)
    cuts = dict(zip(labels, thresholds(threshold, labels), strict=True))
    require_same_cut(table, cuts, source, setting="--threshold", percent=percent)
    require_decided(table, of, source, cuts=cuts, setting="--threshold", percent=percent)
    read = read_numbers({label: table[label] for label in labels}, of, source, percent=percent)
    ids = table[[name for name in COLUMNS if name not in ("label", "probability")]]
    parts = [ids.assign(label=label, probability=numbers) for label, numbers in read.items()]
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _labels(table: pd.DataFrame, labels: Sequence[str], source: str) -> list[str]:
    """Give the labels of a long table; those that are asked for are among them."""
    blank = table.index[table["label"].isna()]
    if len(blank):
        raise InputError(f"'{source}' has no label in {row_of(blank[0])}: fill it in.")
    present = [str(label) for label in table["label"].unique()]
    unknown = next((label for label in labels if label not in present), None)
    if unknown is None:
        return present
    if unknown in table:
        raise InputError(
            f"'{source}' has a column '{unknown}' and a column 'label' that never says '{unknown}': name a label of "
            f"{', '.join(map(short, present[:6]))}, or leave the column 'label' out if '{unknown}' holds predictions."
        )
    raise InputError(f"'{source}' has no label and no column '{unknown}'.{did_you_mean(unknown, present)}")


def _truths(
    table: pd.DataFrame, labels: Sequence[str], columns: Mapping[str, str], source: str
) -> dict[str, pd.Series]:
    """Give the truth of the labels for which the table says it, by image id."""
    for label in columns:
        require_known(label, labels, f"--truth names '{label}', which is no label of '{source}'")
    found = {label: _per_image(table, column, source, "--truth") for label, column in columns.items()}
    if TRUTH in table and not columns:
        if not _is_long(table) and len(labels) > 1:
            raise InputError(
                f"'{source}' has one column '{TRUTH}' and {len(labels)} labels: say whose it is, with --truth "
                "LABEL=COLUMN for each label."
            )
        for label in labels:
            own = table[table["label"] == label] if _is_long(table) else table
            found[label] = _per_image(own, TRUTH, source, TRUTH)
    return {label: _zero_or_one(values, label, source) for label, values in found.items() if len(values)}


def _zero_or_one(values: pd.Series, label: str, source: str) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = values[~numbers.isin((0, 1))]
    if len(wrong):
        raise InputError(
            f"'{source}' gives '{short(wrong.iloc[0])}' as the truth of '{label}' for the image "
            f"'{short(wrong.index[0])}': 1 has the finding, 0 has not, and a blank is not known."
        )
    return numbers.astype(float)


def _per_image(table: pd.DataFrame, name: str, source: str, option: str = "--given") -> pd.Series:
    """Give a column that has one value per image, by image id."""
    require_known(name, table, f"'{source}' has no column '{name}' ({option})")
    values = table[["image_id", name]].dropna().drop_duplicates()
    double = values["image_id"][values["image_id"].duplicated()]
    if len(double):
        raise InputError(
            f"'{source}' has more than one '{name}' of the image '{short(double.iloc[0])}': what is recorded of an "
            f"image ({option}) is the same in all its rows."
        )
    return values.set_index("image_id")[name]
