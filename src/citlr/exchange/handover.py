"""Handing a run's images to the owner of a closed model, and taking the answers back: checked whole, then joined."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import pandas as pd

from citlr.audit.assembly import CLOSED
from citlr.audit.chain import Chain
from citlr.audit.results.result import AuditResult
from citlr.console import QUIET, Narrator
from citlr.data.tables.columns import read_table
from citlr.errors import InputError, StateError
from citlr.exchange.closed import KEY_COLUMNS, Export, Format, export_blind, require_exported
from citlr.exchange.numbers import VALUES, read_numbers, require_decided, require_same_cut, short
from citlr.invariance.operating_point import thresholds
from citlr.invariance.tables import COLUMNS
from citlr.report.publish import report
from citlr.run.files import sha256
from citlr.run.folder import Run


def ingest(
    file: str | Path,
    *,
    key_folder: Path,
    labels: Sequence[str],
    percent: bool = False,
    threshold: float | Mapping[str, float] = 0.5,
) -> pd.DataFrame:
    """Read the answers of a model's owner, wide or long, and put image, level and draw back beside them.

    `threshold` is the operating point, or that of each label: decisions beside probabilities have to be those at it.
    """
    if not (key_folder / "key.parquet").is_file():
        raise StateError("Nothing was exported from this run: run `citlr export` first.")
    key = pd.read_parquet(key_folder / "key.parquet")
    table = _read_answers(Path(file))
    cuts = dict(zip(labels, thresholds(threshold, labels), strict=True))
    require_same_cut(table, cuts, str(file), setting="`test.threshold`", percent=percent)
    if "id" in table:
        of = partial(_of, table)
        require_decided(table, of, str(file), cuts=cuts, setting="`test.threshold`", percent=percent)
    wide = _wide(table, labels, str(file))
    _check_ids(wide, key, str(file))
    values = read_numbers(
        {label: wide[label] for label in labels}, lambda row: _of(wide, row), str(file), percent=percent
    )
    answered = wide[["id"]].assign(**values)
    # What edits draw alike is one picture, which is answered once.
    joined = key.merge(answered, on="id", how="left", validate="many_to_one")
    # The order of the stages' own responses: images, levels and draws as they were drawn, labels innermost.
    joined["original"] = (joined["draw"] >= 0).astype(int)
    long = joined.melt(
        id_vars=[*KEY_COLUMNS, "original"], value_vars=list(labels), var_name="label", value_name="probability"
    )
    order = ["attribute", "original", "image_id", "level", "draw", "label"]
    return long.sort_values(order, ignore_index=True)[list(COLUMNS)]


def _read_answers(file: Path) -> pd.DataFrame:
    """Read the cells as text; blank ones are empty text, and their id is named where a number was due."""
    if not file.is_file():
        raise InputError(f"No predictions at '{file}': give the CSV that the model's owner sent back.")
    return read_table(file).astype("string").fillna("").astype(object)


def _of(table: pd.DataFrame, row: int) -> str:
    return f" of the id '{table['id'].iloc[row]}'"


def _wide(table: pd.DataFrame, labels: Sequence[str], file: str) -> pd.DataFrame:
    """Bring long answers to one row per id."""
    if "id" not in table:
        found = ", ".join(short(name) for name in table.columns[:6])
        raise InputError(f"'{file}' has no column 'id' (found {found}): keep the ids of manifest.csv.")
    value = next((name for name in VALUES if name in table), None)
    if "label" in table and value is not None:
        twice = table.duplicated(["id", "label"])
        if twice.any():
            raise InputError(
                f"'{file}' answers the id '{short(table.loc[twice, 'id'].iloc[0])}' twice for one label: answer once."
            )
        undecided = ~table[value].isin(["0", "1", "0.0", "1.0"])
        if value == "decision" and undecided.any():
            raise InputError(
                f"'{file}' has '{short(table.loc[undecided, value].iloc[0])}' in the column 'decision': a decision is "
                "0 or 1; probabilities go into a column 'probability'."
            )
        # Not pivot_table, which would average what is there twice and drop what is missing.
        table = table.set_index(["id", "label"])[value].unstack("label").reset_index()  # noqa: PD010
    missing = [label for label in labels if label not in table]
    if missing:
        raise InputError(
            f"'{file}' has no column {missing}: give one column per label {list(labels)}, or 'label' and 'probability'."
        )
    return table


def _check_ids(table: pd.DataFrame, key: pd.DataFrame, file: str) -> None:
    twice = table["id"][table["id"].duplicated()]
    if len(twice):
        raise InputError(f"'{file}' has the id '{short(twice.iloc[0])}' twice ({len(twice)} ids are): answer once.")
    unknown = sorted(set(table["id"].astype(str)) - set(key["id"]))
    if unknown:
        raise InputError(
            f"'{file}' has {len(unknown)} ids that this run did not hand out ('{short(unknown[0])}' first): send "
            "answers to the ids of its manifest.csv."
        )
    missing = sorted(set(key["id"]) - set(table["id"]))
    if missing:
        count = key["id"].nunique()
        raise InputError(
            f"'{file}' lacks {len(missing)} of {count} ids ('{missing[0]}' first): every id needs an answer."
        )


FOLDER = "closed"


def export_run(run: Run, *, out: Path, format: str = "png", narrator: Narrator | None = None) -> Export:
    """Write a run's redrawn images and originals under opaque names; see `citlr.exchange.closed.export_blind`."""
    narrator = narrator or QUIET
    with run.locked():
        chain = Chain(run, narrator)
        chain.upto("quality")
        counterfactuals = chain.counterfactuals
        sets = counterfactuals.sets
        main = counterfactuals.main
        size = _size(chain)
        # Originals, without what is finer than the generator's pixels too, and moved and put back where edits move.
        images = len(main) * (1 + (size > main.plan.size) + main.plan.edits)
        images += sum(len(part) * len(part.plan.levels) * part.plan.draws for part in sets)
        with narrator.progress("export", images) as tick:
            return export_blind(
                sets,
                chain.test_part,
                key_folder=run.path(FOLDER),
                out=out,
                format=cast(Format, format),
                size=size,
                tick=tick,
            )


def ingest_run(
    run: Run, file: Path, *, model: str = "", percent: bool = False, narrator: Narrator | None = None
) -> dict[str, AuditResult]:
    """Take a closed model's answers and finish its audit; the run is untouched until the whole file is accepted."""
    closed = [name for name, settings in run.config.models.items() if settings.kind == CLOSED]
    name = model or (closed[0] if len(closed) == 1 else "")
    if name not in closed:
        known = ", ".join(closed) or "none"
        raise InputError(
            f"Say which closed model the answers are of with --model (closed models of this run: {known})."
        )
    with run.locked():
        chain = Chain(run, narrator or QUIET)
        chain.upto("quality")
        require_exported(run.path(FOLDER), chain.counterfactuals.main, _size(chain))
        labels = run.config.models[name].labels or run.config.cohort.labels
        cut = run.config.test.threshold
        frame = ingest(file, key_folder=run.path(FOLDER), labels=labels, percent=percent, threshold=cut)
        chain.ingest(name, frame, sha256(file))
        chain.upto("test")
        report(chain)
        return chain.results()


def _size(chain: Chain) -> int:
    """Give the side that pictures are handed out in: the largest that a closed model of the run declares to read."""
    closed = [size for name, size in chain.sizes.items() if chain.predictor(name) is None]
    return max(closed or [chain.counterfactuals.main.plan.size])
