"""The run folder: one lock, stages that are done once and resumed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from citlr.config import AuditConfig, differences, parse_config
from citlr.errors import InputError, StateError
from citlr.run.files import read_json, write_json
from citlr.run.provenance import peak_memory_mb


@dataclass(frozen=True)
class StageRecord:
    """What is known of a finished stage."""

    name: str
    key: str
    seconds: float
    peak_memory_mb: float
    attempts: int
    facts: dict[str, Any]
    finished: str = ""  # UTC, ISO 8601


class Run:
    """A folder that holds one audit and every artefact of it.

    Parameters
    ----------
    folder : path-like
        Where; made by `Run.open`.
    config : AuditConfig
        The settings, every path absolute.
    """

    def __init__(self, folder: str | os.PathLike[str], config: AuditConfig) -> None:
        self.folder = Path(folder)
        self.config = config

    @classmethod
    def open(cls, folder: str | os.PathLike[str], config: AuditConfig | None = None) -> Run:
        """Open a run folder, or start one when `config` is given and the folder is new.

        Raises
        ------
        StateError
            If the folder holds an audit of another configuration, or is not empty and not a run.
        InputError
            If no configuration is given and the folder holds none.
        """
        root = Path(folder)
        file = root / "config.json"
        if file.is_file():
            stored = parse_config(read_json(file), str(file))
            if config is not None and stored.fingerprint() != config.fingerprint():
                # What the page says may change: no number depends on it.
                if stored.model_copy(update={"report": config.report}).fingerprint() == config.fingerprint():
                    write_json(file, config.model_dump(mode="json"))
                    return cls(root, config)
                changed = differences(stored.model_dump(mode="json"), config.model_dump(mode="json"))
                raise StateError(
                    f"'{root}' holds an audit of another configuration ({'; '.join(changed[:5])}): give another --out."
                )
            return cls(root, stored)
        if config is None:
            raise InputError(
                f"'{root}' is not a run folder (no config.json): start one with `citlr audit CONFIG --out`."
            )
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise StateError(f"'{root}' is there already and is not a run folder: give an empty or a new one as --out.")
        write_json(file, config.model_dump(mode="json"))
        return cls(root, config)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run; the system lets go of it when the process dies, however it dies."""
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StateError(
                f"Another process is working in '{self.folder}': wait for it, or give another --out."
            ) from error
        # Nobody else works here now: what a killed process left half written goes.
        for leftover in self.folder.rglob(".*.partial*"):
            leftover.unlink(missing_ok=True)
        try:
            yield
        finally:
            lock.release()

    def path(self, *parts: str) -> Path:
        """Return a path inside the run folder."""
        return self.folder.joinpath(*parts)

    def record(self, name: str) -> StageRecord | None:
        """Return what is known of a finished stage, or None."""
        file = self.path("stages", f"{name}.json")
        return StageRecord(**read_json(file)) if file.is_file() else None

    def done(self, name: str, key: str) -> bool:
        """Return whether the stage was finished for exactly these inputs."""
        record = self.record(name)
        return record is not None and record.key == key

    def stage(
        self,
        name: str,
        key: str,
        work: Callable[[], Mapping[str, Any] | None],
        *,
        partial: Path | None = None,
    ) -> StageRecord:
        """Do `work` unless it was finished for the same `key`; note seconds, peak memory and the facts it returns.

        Parameters
        ----------
        name : str
            The stage; `/` and the like are not allowed in it.
        key : str
            Fingerprint of everything that the stage's output depends on.
        work : callable
            Does the stage; it resumes from its own partial output.
        partial : Path, optional
            Folder of that output; what other inputs left in it is removed before `work`, not gone on with.

        Returns
        -------
        StageRecord
            Of this call, or of the earlier one that finished.
        """
        finished = self.record(name)
        if finished is not None and finished.key == key:
            return finished
        begun = self.path("stages", f"{name}.begun.json")
        attempts, others = 1, finished is not None
        if begun.is_file():
            before = read_json(begun)
            attempts, others = (before["attempts"] + 1, False) if before["key"] == key else (1, True)
        if others and partial is not None and partial.is_dir():
            shutil.rmtree(partial)
        write_json(begun, {"key": key, "attempts": attempts})
        start = time.monotonic()
        facts = dict(work() or {})
        seconds, ended = round(time.monotonic() - start, 2), datetime.now(UTC).isoformat(timespec="seconds")
        record = StageRecord(name, key, seconds, peak_memory_mb(), attempts, facts, ended)
        write_json(self.path("stages", f"{name}.json"), record.__dict__)
        begun.unlink()
        return record

    def records(self) -> list[StageRecord]:
        """Return the finished stages, in the order in which they finished."""
        files = [file for file in self.path("stages").glob("*.json") if not file.name.endswith(".begun.json")]
        return [StageRecord(**read_json(file)) for file in sorted(files, key=lambda file: file.stat().st_mtime_ns)]
