"""What several data sets need: finding files, patients whose records disagree, demographics by join."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from citlr.console import Narrator
from citlr.data.flow import FlowRecorder
from citlr.data.tables.bins import MAX_STRANGE
from citlr.data.tables.columns import require_unique
from citlr.data.tables.vocabulary import OLDEST, raw_text
from citlr.errors import InputError

Place = str | os.PathLike[str]
# More than this share of unmatched keys is not missing data but two files that do not belong together.
MAX_UNMATCHED = 0.5


def require_root(root: Place, *, source: str) -> Path:
    """Give the root folder, or say that it is not there."""
    folder = Path(root)
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give the folder that {source} was unpacked to.")
    return folder


def require_labeller(labeller: str, first: str, other: str) -> None:
    """Refuse the name of a labeller that a data set has no labels of."""
    if labeller not in (first, other):
        raise InputError(f"labeller='{labeller}' is not known; '{first}' and '{other}' are.")


@dataclass(frozen=True)
class Tables:
    """How the table of a data set is usually named, as glob patterns relative to the root folder, and where it lies."""

    source: str
    names: tuple[str, ...]
    usually: str

    def find(self, root: Place, table: str | None, narrator: Narrator) -> tuple[Path, Path]:
        """Give the root folder and the table in it, which `table` may name; say which is read."""
        folder = require_root(root, source=self.source)
        file = find_file(folder, (table,) if table else self.names, source=self.source, usually=self.usually)
        narrator.say(f"{self.source}: reading {file.name}")
        return folder, file


def find_file(root: Path, names: Sequence[str], *, source: str, usually: str) -> Path:
    """Give the first of `names` (glob patterns, relative to `root`) that exists."""
    file = find_optional(root, names, source=source)
    if file is None:
        raise InputError(
            f"{root} does not look like {source}: none of {', '.join(names)} is there. It is usually {usually}."
        )
    return file


def find_optional(root: Path, names: Sequence[str], *, source: str) -> Path | None:
    """Give the first of `names` that exists, or None; several files for one pattern are two versions and refused."""
    for name in names:
        hits = sorted(path for path in root.glob(name) if path.is_file())
        if len(hits) > 1:
            listed = ", ".join(str(path.relative_to(root)) for path in hits)
            raise InputError(f"{root} holds several versions of one {source} file: {listed}. Leave one of them there.")
        if hits:
            return hits[0]
    return None


def keys_of(numbers: pd.Series) -> pd.Series:
    """Give identifiers that are numbers as text, without the `.0` of a program that saved them again beside blanks."""
    return raw_text(numbers).str.replace(r"\.0+$", "", regex=True)


def years_of(dates: pd.Series, *, source: str) -> pd.Series:
    """Give the years of dates as data sets, and programs that save them again, write these; few others are blank.

    >>> years_of(pd.Series(["20140915", "2014-09-15", "1950.0", "1950", None]), source="t.csv").tolist()
    [2014.0, 2014.0, 1950.0, 1950.0, nan]
    """
    text = raw_text(dates)
    year = pd.to_numeric(text.str.extract(r"^(\d{4})(?:\d{4}|[-/]\d\d?[-/]\d\d?(?:[ T].*)?)?(?:\.0+)?$")[0]).astype(
        float
    )
    strange = year.isna() & (text != "")
    if strange.mean() > MAX_STRANGE:
        raise InputError(
            f"{source}: the column '{dates.name}' holds {int(strange.sum())} dates that cannot be read, the first "
            f"'{text[strange].iloc[0][:80]}'; write 20140915 or 2014-09-15."
        )
    return pd.Series(year.to_numpy(), index=dates.index, name=dates.name)


def note_no_ages(recorder: FlowRecorder, stated: pd.Series, age: pd.Series) -> None:
    """Tell in the flow of ages that were stated, and are none: typing errors that count as not stated."""
    none = int((stated & age.isna()).sum())
    if none:
        recorder.start("age", f"ages above {OLDEST:g} years or below 0 count as not stated ({none})")


def join(frame: pd.DataFrame, table: pd.DataFrame, on: str | list[str], unmatched: str) -> pd.DataFrame:
    """Add the columns of a table, and `matched`: whether a row of it was there; two files that do not fit are refused.

    `unmatched` goes on where the error has said how many of the images, or of the patients, have none.
    """
    joined = frame.merge(table, on=on, how="left", indicator="matched")
    joined["matched"] = (joined["matched"] == "both").to_numpy()
    counted = joined.drop_duplicates("patient_id") if on == "patient_id" else joined
    without = int((~counted["matched"]).sum())
    if without > MAX_UNMATCHED * len(counted):
        raise InputError(f"{without} of {len(counted)} {unmatched}")
    return joined


def join_patients(
    frame: pd.DataFrame, people: pd.DataFrame, *, columns: Iterable[str], source: str, people_source: str
) -> pd.DataFrame:
    """Add columns of a table with one row per patient; patients without a row get blanks, and are counted later."""
    require_unique(people["patient_id"], source=people_source, what="patients")
    unmatched = f"patients of {source} are not in {people_source}; the two files are of different versions or releases."
    return join(frame, people[["patient_id", *columns]], "patient_id", unmatched)


def index_files(root: Path, folders: Sequence[str], *, suffixes: Sequence[str]) -> dict[str, str]:
    """Map file names to paths relative to `root`, over folders given as glob patterns; the first folder wins."""
    places: dict[str, str] = {}
    for pattern in folders:
        for folder in sorted(root.glob(pattern)) if pattern != "." else [root]:
            if not folder.is_dir():
                continue
            prefix = folder.relative_to(root).as_posix()
            prefix = "" if prefix == "." else prefix + "/"
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.lower().endswith(tuple(suffixes)):
                        places.setdefault(entry.name, prefix + entry.name)
    return places


def located(names: pd.Series, root: Path, folders: Sequence[str], *, usual: str) -> pd.Series:
    """Give the paths of files by their names; one that is nowhere keeps the usual place, so that it is named there."""
    places = index_files(root, folders, suffixes=(".jpg", ".jpeg", ".png"))
    return names.map(places).astype("string").fillna(usual + names).astype(str)
