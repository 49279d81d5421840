"""A folder of stages: one lock, every stage done once, its output whole, checked and named by what it was made of."""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from citlr.console import QUIET, Narrator
from citlr.errors import InputError, StateError
from citlr.run.files import fingerprint, read_json, sha256, write_json
from citlr.run.history import History
from citlr.run.lock import locked
from citlr.run.machine import peak_memory_mb
from citlr.run.stage import Stage, StageRecord, code_version
from citlr.threads import give_back

# Where unfinished stages lie, each in a folder named after its key.
WORK = ".work"
_BEGUN, _RECORD = "begun.json", "record.json"


class Stages:
    """A folder that keeps the output of stages: the only cache of the package.

    An unfinished stage lies in `.work/<name>-<key>`, so nothing that was made under another key can be taken up. When
    it is whole, its places are moved to their names, and `stages/<name>.json` is written with a SHA-256 of every file.
    A finished stage is done again when its key differs or one of its files is not what it was.
    """

    def __init__(self, root: str | Path, narrator: Narrator | None = None) -> None:
        self.root = Path(root)
        self.narrator = narrator or QUIET
        self._intact: set[tuple[str, str]] = set()  # (name, key) whose files were compared by this process

    def path(self, *parts: str) -> Path:
        """Return a path inside the folder."""
        return self.root.joinpath(*parts)

    @property
    def history(self) -> History:
        """What was changed after a first verdict."""
        return History(self.path("history.json"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; the system lets go of it when the process dies, however it dies."""
        with locked(self.root):
            yield

    def record(self, name: str) -> StageRecord | None:
        """Return what is known of a finished stage; None where there is none, or its record is damaged."""
        return _read_record(self.path("stages", f"{name}.json"))

    def earlier(self, name: str) -> StageRecord | None:
        """Return what a stage was last made of, one that was forgotten included."""
        return self.record(name) or _read_record(self.path("stages", f"{name}.before"))

    def records(self) -> list[StageRecord]:
        """Return the finished stages, in the order in which they finished."""
        files = sorted(self.path("stages").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        return [record for record in map(_read_record, files) if record is not None]

    def forget(self, name: str) -> None:
        """Undo a stage, finished or not: the next call starts it from nothing, and knows what it was made of before."""
        if self.record(name) is not None:
            self.path("stages", f"{name}.json").replace(self.path("stages", f"{name}.before"))
        self.path("stages", f"{name}.json").unlink(missing_ok=True)
        for work in self._unfinished(name):
            shutil.rmtree(work)

    def intact(self, record: StageRecord) -> str | None:
        """Return the first file of a finished stage that is missing or is not what was written, None if all are."""
        if (record.name, record.key) in self._intact:
            return None
        for name, digest in record.files.items():
            file = self.path(name)
            if not file.is_file():
                return f"'{file}' is missing"
            if sha256(file) != digest:
                return f"'{file}' was changed or damaged after it was written"
        self._intact.add((record.name, record.key))
        return None

    def require(self, name: str, remedy: str) -> StageRecord:
        """Return the record of a finished stage whose files are intact."""
        record, file = self.record(name), self.path("stages", f"{name}.json")
        if record is None and file.is_file():
            raise StateError(f"'{file}' is damaged: {remedy}.")
        if record is None:
            raise StateError(f"'{self.root}' has no finished stage '{name}': {remedy}.")
        trouble = self.intact(record)
        if trouble is not None:
            raise StateError(f"{trouble}: {remedy}.")
        return record

    def done(self, stage: Stage) -> StageRecord | None:
        """Return the record of a stage that was finished for exactly these inputs and whose files are intact."""
        record = self.record(stage.name)
        if record is None or not self._same_inputs(record, stage):
            return None
        if record.places != stage.places:
            record = self._rename_places(record, stage.places)
        trouble = self.intact(record)
        if trouble is not None:
            self.narrator.say(f"{stage.name}: {trouble}: it is made again.")
            return None
        return record

    def _same_inputs(self, record: StageRecord, stage: Stage) -> bool:
        """Say whether a stage was finished for these inputs, those among them that its output names."""
        if record.stage_key != stage.key:
            return False
        if stage.discovered is None or self.intact(record) is not None:
            return True
        return record.discovered == stage.discovered(self.root)

    def do(self, stage: Stage) -> StageRecord:
        """Do a stage unless it is done; go on where an earlier attempt with the same key was cut off."""
        record = self.done(stage)
        if record is not None:
            return record
        before = self.earlier(stage.name)
        if before is not None and not self._same_inputs(before, stage):
            self.history.note(before, stage)
        work = self.path(WORK, f"{stage.name}-{stage.key[:16]}")
        whole = _read_record(work / _RECORD)
        if whole is None or (stage.discovered is not None and whole.discovered != stage.discovered(work)):
            whole = self._work(stage, work)
        self._publish(whole, work)
        return whole

    def _work(self, stage: Stage, work: Path) -> StageRecord:
        """Do the work in its own folder; the record written last says that the folder is whole."""
        begun = _json_or_none(work / _BEGUN)
        attempts = int(begun.get("attempts", 0)) + 1 if isinstance(begun, dict) else 1
        write_json(work / _BEGUN, {"key": stage.key, "attempts": attempts})
        start = time.monotonic()
        facts = dict(stage.work(work) or {})
        # What a stage has freed lies about in its heaps, and the next would come on top of it.
        give_back()
        files = {name: sha256(work / name) for name in _files(work, stage.places)}
        discovered = "" if stage.discovered is None else stage.discovered(work)
        record = StageRecord(
            name=stage.name,
            key=stage.key if not discovered else fingerprint([stage.key, discovered]),
            stage_key=stage.key,
            code=code_version(),
            inputs=dict(stage.inputs),
            places=stage.places,
            files=files,
            seconds=round(time.monotonic() - start, 2),
            peak_memory_mb=peak_memory_mb(),
            attempts=attempts,
            facts=facts,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            discovered=discovered,
            after={one.name: one.key for one in self.records() if one.key in stage.after},
        )
        write_json(work / _RECORD, asdict(record))
        return record

    def _publish(self, record: StageRecord, work: Path) -> None:
        """Move what is whole to its names; killed in between, the next call goes on moving."""
        file = self.path("stages", f"{record.name}.json")
        before = _read_record(file)
        for place in () if before is None else before.places:
            if place not in record.places:
                _remove(self.path(place))
        self._make_room(record.name, record.places)
        for place in record.places:
            source, target = work / place, self.path(place)
            if not any(_below(name, place) for name in record.files):
                _remove(target)
            elif source.exists():
                file.unlink(missing_ok=True)
                _remove(target)
                target.parent.mkdir(parents=True, exist_ok=True)
                source.replace(target)
        write_json(file, asdict(record))
        file.with_suffix(".before").unlink(missing_ok=True)
        self._intact.add((record.name, record.key))
        for other in self._unfinished(record.name):
            shutil.rmtree(other)

    def _unfinished(self, name: str) -> list[Path]:
        """Folders of attempts at a stage, under any key; a key has no "-" in it."""
        return [path for path in self.path(WORK).glob(f"{name}-*") if path.name.rpartition("-")[0] == name]

    def _make_room(self, name: str, places: tuple[str, ...]) -> None:
        """Move what other models' stages have at these places to folders of their own: it may be there only once."""
        for other in self.records():
            model = other.name.partition(".")[2]
            taken = other.name != name and model and {*other.places} & {*places}
            if taken and self.intact(other) is None:
                elsewhere = (f"models/{model}/{place}" if place in places else place for place in other.places)
                self._rename_places(other, tuple(elsewhere))

    def _rename_places(self, record: StageRecord, places: tuple[str, ...]) -> StageRecord:
        """Move finished output to the names that it has now, such as when a run of one model gets a second one."""
        self._make_room(record.name, places)
        files = dict(record.files)
        for old, new in zip(record.places, places, strict=True):
            # one that is not there may have been moved by a process that was killed before it wrote the record
            if old != new and self.path(old).exists():
                self.path(new).parent.mkdir(parents=True, exist_ok=True)
                _remove(self.path(new))
                self.path(old).replace(self.path(new))
            files = {new + name.removeprefix(old) if _below(name, old) else name: one for name, one in files.items()}
        moved = replace(record, places=places, files=files)
        write_json(self.path("stages", f"{record.name}.json"), asdict(moved))
        return moved


def _files(root: Path, places: tuple[str, ...]) -> list[str]:
    """Name every file below the places; a place may stay empty."""
    names: list[str] = []
    for place in places:
        path = root / place
        if not path.exists():
            continue
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        names += [file.relative_to(root).as_posix() for file in inside if file.is_file()]
    return names


def _below(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}/")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _json_or_none(file: Path) -> Any:
    try:
        return read_json(file)
    except (OSError, ValueError, InputError, StateError):
        return None


def _read_record(file: Path) -> StageRecord | None:
    content = _json_or_none(file)
    if not isinstance(content, Mapping):
        return None
    try:
        return StageRecord.from_json(content)
    except TypeError:
        return None
