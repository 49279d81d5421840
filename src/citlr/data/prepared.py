"""What `citlr prepare` leaves in a folder: the cohort and its flow, all of it or nothing."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from citlr.console import QUIET, Narrator
from citlr.data.cohort import Cohort
from citlr.data.flow import flow_table, raw_table
from citlr.data.pixels.cache import cache_name, write_cache
from citlr.errors import InputError
from citlr.run.files import atomic_write
from citlr.run.folder import require_no_run
from citlr.run.lock import locked
from citlr.text import markdown_table

SCHEMA = "citlr.flow/1"


def write_prepared(
    cohort: Cohort,
    out: str | os.PathLike[str],
    *,
    cache: int | None = None,
    max_unreadable: float = 0.01,
    narrator: Narrator = QUIET,
) -> dict[str, Path]:
    """Write `cohort.parquet`, `flow.md` and `flow.json` into a folder, and before them a cache of the pixels if asked.

    All three are complete under temporary names before the first of them gets its own.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for cohort.parquet, flow.md and flow.json.")
    require_no_run(folder)
    paths = {"cohort": folder / "cohort.parquet", "flow_md": folder / "flow.md", "flow_json": folder / "flow.json"}
    try:
        # Not deep: the folder may be anybody's, and only what lies beside the three files is of this command.
        with locked(folder, deep=False):
            if cache is not None:
                place = paths["cache"] = folder / cache_name(cohort, cache)
                cohort = write_cache(cohort, place, size=cache, max_unreadable=max_unreadable, narrator=narrator)
            with atomic_write(paths["flow_md"]) as page, atomic_write(paths["flow_json"]) as data:
                page.write_text(_page(cohort), encoding="utf-8")
                data.write_text(_data(cohort), encoding="utf-8")
                cohort.to_parquet(paths["cohort"])
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error}); give another folder or make room.") from error
    return paths


def _data(cohort: Cohort) -> str:
    content = {
        "schema": SCHEMA,
        "attributes": list(cohort.attributes),
        "labels": list(cohort.labels),
        "flow": [asdict(step) for step in cohort.flow],
        "raw": [asdict(one) for one in cohort.raw],
        "counts": cohort.counts().to_dict("records"),
        "missing": cohort.missing(),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _page(cohort: Cohort) -> str:
    parts = ["# Flow of the cohort", "", flow_table(cohort.flow), ""]
    if cohort.raw:
        parts += ["## Raw values", "", raw_table(cohort.raw), ""]
    sides = cohort.frame.groupby(["split", *cohort.attributes], sort=True)["patient_id"].agg(["size", "nunique"])
    rows = []
    for keys, row in sides.iterrows():
        cells = keys if isinstance(keys, tuple) else (keys,)
        rows.append((*cells, row["size"], row["nunique"]))
    head = ["split", *cohort.attributes, "images", "patients"]
    return "\n".join([*parts, "## Splits", "", markdown_table(head, rows, right=2)]) + "\n"
