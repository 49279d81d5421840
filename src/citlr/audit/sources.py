"""The files of the user that finished audits rest on, and whether they are still what they were.

A run says by its keys what was made of what, and looks at it when it goes on. Who only reads a verdict does not load
the model for that.
"""

import json
import stat
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path, PurePath

from citlr.audit.stages import COHORT, images_fingerprint
from citlr.config import AuditConfig
from citlr.data.cohort import Cohort
from citlr.data.cohort_file import read_frame
from citlr.errors import CitlrError
from citlr.run.files import digest_or_missing, write_json
from citlr.run.folder import Run
from citlr.run.stage import code_version

# In the folder of records; no record of a stage, for a file whose change changes nothing would make that stage again.
SOURCES = "sources"
# By which the time of a record, in whole seconds, and that of a disk may differ.
_CLOCK_SECONDS = 5


def _files(config: AuditConfig, model: str) -> list[Path]:
    """Name the files of a model and the table of its cohort that are there; those of a folder, where a model is one."""
    settings = config.models[model]
    source = settings.source or ""
    code = source.rpartition(":")[0]  # of "file.py:name"
    named = (source, code if code.endswith(".py") else "", settings.weights, config.cohort.table)
    found: list[Path] = []
    for path in (Path(one) for one in named if one):
        found += sorted(one for one in path.rglob("*") if not _own(one.relative_to(path))) if path.is_dir() else [path]
    return [path for path in found if path.is_file()]


def _own(path: Path) -> bool:
    """Say whether systems, Python or loaders wrote a file into a model's folder for themselves."""
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def _noted(run: Run) -> dict[str, dict[str, str]]:
    """Read what was noted; nothing where it is damaged, as in a run that nobody noted it of."""
    try:
        content = json.loads(run.path("stages", SOURCES).read_bytes())
        return {str(name): dict(files) for name, files in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def note_sources(run: Run) -> None:
    """Note what the files hold that the audits of a run were just made of, or found to rest on still."""
    content = {
        name: {str(path): digest_or_missing(path) for path in _files(run.config, name)} for name in run.config.models
    }
    if _noted(run) != content:
        write_json(run.path("stages", SOURCES), content)


def replaced(run: Run, model: str, images: Callable[[], bool]) -> tuple[str, ...]:
    """Say which files of a model's audit hold something else now; of one that is gone nothing can be said.

    `images` says whether images do, which is the same of all models of a run.
    """
    names = [
        f"'{Path(path).name}' was"
        for path, digest in _noted(run).get(model, {}).items()
        if digest_or_missing(path) not in ("missing", digest)
    ]
    names += ["an image of the cohort was"] * images()
    return tuple(
        f"{model}: {name} changed after this audit, which is of the file as it was: run `citlr audit` again for a "
        "verdict on the file that is there."
        for name in names
    )


def images_replaced(run: Run) -> bool:
    """Say whether an image holds something else now; all are read only where one was touched since they were read."""
    read = run.record("cohort")
    # another version may digest them otherwise
    if read is None or read.code != code_version() or run.intact(read) is not None:
        return False
    try:
        cohort, note = Cohort.from_parquet(run.path(COHORT), cache=False), read_frame(run.path(COHORT))[1].get("cache")
        begun = datetime.fromisoformat(read.finished).timestamp() - read.seconds
        if _last_touched(cohort.root, cohort.frame["path"]) < begun - _CLOCK_SECONDS:
            return False
    except (CitlrError, OSError, ValueError):
        return False
    try:
        return images_fingerprint(run.root) != read.discovered
    except CitlrError:  # a cache, of images as they were; of one that was removed nothing can be said
        return note is None or (run.root / note["folder"]).is_dir()


def _last_touched(root: Path, paths: Iterable[str]) -> float:
    """Say when one of these images was last written or put in its place; no program can set these times (ctime)."""
    found, parts = 0.0, {PurePath()}
    for path in paths:
        parts.add(PurePath(path).parent)
        # Of a link: of what it leads to, and its own.
        found = max(found, (root / path).stat().st_ctime, (root / path).lstat().st_ctime)
    within = {root / above for part in parts for above in (part, *part.parents)}
    for folder in {*within, *root.absolute().parents, root.resolve(), *root.resolve().parents}:
        own = folder.lstat()
        # Much is put into folders above that is no image: both times tell of that, and only one of another name.
        if folder in within or stat.S_ISLNK(own.st_mode) or own.st_ctime_ns != own.st_mtime_ns:
            found = max(found, own.st_ctime)
    return found
