"""From a table and its images to a proposal: each column's part; what cannot be known is asked, never guessed."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pandas as pd

from citlr.data.proposals.columns import Column, describe_columns, patient_columns
from citlr.data.proposals.pictures import Look, look_at, no_path, path_columns
from citlr.data.sources.registry import DATA_SETS, recognised
from citlr.data.splits import require_disjoint
from citlr.data.tables.columns import PARQUET, read_table
from citlr.errors import InputError, require_known
from citlr.text import shortened


class Asker(Protocol):
    """Whoever decides what cannot be known: a person at a terminal, or nobody."""

    def one(self, what: str, option: str, candidates: Mapping[str, str]) -> str:
        """Give one of the candidates, which are named with what is known of each."""

    def several(self, what: str, option: str, candidates: Mapping[str, str]) -> tuple[str, ...]:
        """Give one or more of the candidates."""


class Nobody:
    """Stops with a sentence that lists the candidates, as there is no terminal to ask at."""

    def one(self, what: str, option: str, candidates: Mapping[str, str]) -> str:
        """Stop."""
        listed = "; ".join(f"{name} ({known})" if known else name for name, known in candidates.items())
        raise InputError(f"Without a terminal nobody can be asked {what}: give {option}, one of {listed}.")

    def several(self, what: str, option: str, candidates: Mapping[str, str]) -> tuple[str, ...]:
        """Stop."""
        raise InputError(self.one(what, f"{option} (repeatable)", candidates))


@dataclass(frozen=True)
class Given:
    """What the user has said already; what is empty is found or asked for.

    - `columns`: Our names (path, patient_id, split, view) to the table's.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    attribute: str = ""
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Proposal:
    """What a table's columns are to be; the paths are as the user gave them.

    - `columns`: Our names (path, patient_id, view) to the table's; empty for a prepared cohort.
    - `why`: For each of our names, and for `split`, how it was known.
    - `others`: The columns that are not used.
    """

    table: Path
    images: Path | None
    rows: int
    columns: Mapping[str, str]
    why: Mapping[str, str]
    attribute: Column
    labels: tuple[Column, ...]
    split: str
    others: tuple[Column, ...]
    look: Look


def propose(table: Path, images: Path | None, given: Given, asker: Asker) -> Proposal:
    """Look at a table and some of its images, ask what cannot be known, and say what every column is to be."""
    if images is None:
        return _of_prepared(table, given, asker)
    if not images.is_dir():
        raise InputError(f"--images {images} is no folder: give the folder that the paths of the table start from.")
    frame = read_table(table)
    _refuse_known(table, frame, given)
    for ours, theirs in given.columns.items():
        require_known(
            ours, ("path", "patient_id", "split", "view"), f"--map {ours}={theirs} maps what nothing asks for"
        )
        require_known(theirs, frame, f"{table} has no column '{theirs}' (--map)")
    path, why_path = _path(frame, images, given, table, asker)
    patient, why_patient = _patient(frame, path, given, asker)
    described = {one.name: one for one in describe_columns(frame) if one.name not in (path, patient)}
    split, why_split = _split(frame, patient, described, given)
    view, why_view = _view(described, given)
    columns = {"path": path, "patient_id": patient, **({"view": view} if view else {})}
    why = {"path": why_path, "patient_id": why_patient, "split": why_split, "view": why_view}
    free = {name: one for name, one in described.items() if name not in (split, view)}
    look = look_at(frame[path].dropna().astype(str).tolist(), images)
    return _with_roles(
        Proposal(table, images, len(frame), columns, why, _NONE, (), split, (), look), free, given, asker
    )


_NONE = Column("", "constant", "")


def _of_prepared(table: Path, given: Given, asker: Asker) -> Proposal:
    """Take what `citlr prepare` has settled: only attribute and labels are left to choose."""
    if not table.is_file() or table.suffix.lower() not in PARQUET:
        read_table(table)  # raises where there is none
        raise InputError(
            f"Nothing says where the images of {table} are: give --images DIR (a cohort.parquet of `citlr prepare` "
            "alone knows it)."
        )
    if given.columns:
        raise InputError(f"--map is for tables of your own: {table} is read as `citlr prepare` wrote it.")
    from citlr.data.cohort import Cohort

    cohort = Cohort.from_parquet(table)
    own = (*cohort.attributes, *cohort.labels, *(name for name in cohort.covariates if name == "view"))
    described = {
        one.name: one for one in describe_columns(cohort.frame) if one.name in {*own, "sex", "race", "hispanic"}
    }
    view = described.get("view")
    usable = view is not None and view.kind != "constant"
    columns = {"view": "view"} if usable else {}
    look = look_at(cohort.frame["path"].tolist(), Path(cohort.root))
    why = {"view": view.why if view else "", "split": "the cohort has it"}
    bare = Proposal(table, None, len(cohort), columns, why, _NONE, (), "", (), look)
    return _with_roles(bare, {name: one for name, one in described.items() if name != "view"}, given, asker)


def _refuse_known(table: Path, frame: pd.DataFrame, given: Given) -> None:
    """Point to `citlr prepare` where the table is a public data set's own, unless its columns were named."""
    name = recognised([str(one) for one in frame.columns])
    if name is None or {"path", "patient_id"} <= given.columns.keys():
        return
    options = DATA_SETS[name].options.items()
    more = "".join(f" --{key.replace('_', '-')} DIR" for key, option in options if option.default is ...)
    title = DATA_SETS[name].summary.split(",")[0].split(" (")[0].split(".")[0]
    folder = shlex.quote(str(table.parent))
    raise InputError(
        f"{table} has the columns of {title}: `citlr prepare {name} {folder}{more} --out cohort` reads it, then say "
        "`citlr init cohort/cohort.parquet`; to read it as any other table, name two columns with --map path=COLUMN "
        "--map patient_id=COLUMN."
    )


def _path(frame: pd.DataFrame, images: Path, given: Given, table: Path, asker: Asker) -> tuple[str, str]:
    found = path_columns(frame, images)
    if "path" in given.columns:
        return given.columns["path"], "you named it"
    if not found:
        raise no_path(frame, images, str(table))
    known = {name: f"{there} of {of} files looked for are there" for name, (there, of) in found.items()}
    name = next(iter(known)) if len(known) == 1 else asker.one("which column names the image", "--map path=NAME", known)
    return name, known[name]


def _patient(frame: pd.DataFrame, path: str, given: Given, asker: Asker) -> tuple[str, str]:
    names = [str(name) for name in frame.columns]
    if "patient_id" in given.columns:
        name, why = given.columns["patient_id"], "you named it"
    else:
        called = [name for name in patient_columns(names) if len(frame[name].drop_duplicates()) > 1]
        name, why = called[0] if len(called) == 1 else "", "it is called so"
        if not name:
            likely = called or [one for one in names if frame[one].nunique() > max(20, len(frame) // 20)]
            many = {one: f"{frame[one].nunique()} values" for one in likely}
            many[path] = f"{frame[path].nunique()} values, where every image is another patient's"
            name = asker.one("which column names the patient", "--map patient_id=NAME", many)
            why = "you named it"
    return name, f"{why}; {len(frame)} rows are of {frame[name].nunique()} patients"


def _split(frame: pd.DataFrame, patient: str, described: Mapping[str, Column], given: Given) -> tuple[str, str]:
    """Take a given split only if an audit can use it; else say why a split is drawn."""
    if "split" in given.columns:
        return given.columns["split"], "you named it"
    found = [one for one in described.values() if one.kind == "split"]
    if len(found) != 1:
        several = f"several columns hold splits ({', '.join(one.name for one in found)}; --map split=NAME takes one)"
        return "", several if found else "no column holds train and test"
    name, why = found[0].name, f"{found[0].why}: {found[0].summary()}"
    if frame[name].isna().any():
        return "", f"'{name}' holds a split and is blank in {int(frame[name].isna().sum())} rows"
    try:
        require_disjoint(pd.DataFrame({"patient_id": frame[patient].astype(str), "split": frame[name].astype(str)}))
    except InputError:
        return "", f"'{name}' holds a split in which one patient has images on two sides"
    return name, why


def _view(described: Mapping[str, Column], given: Given) -> tuple[str, str]:
    if "view" in given.columns:
        return given.columns["view"], "you named it"
    found = [one for one in described.values() if one.kind == "view"]
    return (found[0].name, f"{found[0].why}: {found[0].summary()}") if len(found) == 1 else ("", "")


def _with_roles(bare: Proposal, free: Mapping[str, Column], given: Given, asker: Asker) -> Proposal:
    """Choose attribute and labels among the columns that are left."""
    attribute = _attribute(free, given, asker)
    labels = _labels({name: one for name, one in free.items() if name != attribute.name}, given, asker)
    used = {attribute.name, *(one.name for one in labels)}
    others = tuple(one for name, one in free.items() if name not in used)
    return replace(bare, attribute=attribute, labels=labels, others=others)


def _attribute(free: Mapping[str, Column], given: Given, asker: Asker) -> Column:
    if given.attribute:
        return _named(given.attribute, free, "--attribute")
    known = {one.name: one.summary() for one in free.values() if one.kind in ("attribute", "age")}
    few = {one.name: one.summary() for one in free.values() if one.kind == "few"}
    if not known and not few:
        raise InputError(
            "No column looks like an attribute (sex, race, ethnicity, age, or a few values): add one to the table, or "
            "name one with --attribute."
        )
    return free[asker.one("which attribute is audited", "--attribute NAME", {**known, **few})]


def _labels(free: Mapping[str, Column], given: Given, asker: Asker) -> tuple[Column, ...]:
    if given.labels:
        return tuple(_named(name, free, "--label") for name in dict.fromkeys(given.labels))
    known = {one.name: one.why for one in free.values() if one.kind == "label"}
    if not known:
        raise InputError(
            "No column looks like a finding (0 and 1, or yes and no): add one for each finding that the model calls, "
            "or name one with --label."
        )
    if len(known) == 1:
        return (free[next(iter(known))],)
    return tuple(free[name] for name in asker.several("which findings the model calls", "--label NAME", known))


def _named(name: str, free: Mapping[str, Column], option: str) -> Column:
    require_known(name, free, f"{option} '{shortened(name)}' is no column that is left for it")
    return free[name]
