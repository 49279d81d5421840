"""The run folder: the stages of one audit, and the configuration that they follow."""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from citlr.config import AuditConfig, parse_config
from citlr.console import Narrator
from citlr.errors import InputError, StateError
from citlr.run.files import read_json, write_json
from citlr.run.lock import HOLDER
from citlr.run.stage import Stage, StageRecord
from citlr.run.stages import Stages

# The input of a stage by which it holds what somebody else sent in: nothing here can make that again.
ANSWERS = "answers"


class Run(Stages):
    """A folder that holds one audit and every artefact of it.

    - `config`: The settings, every path absolute; written when the run is locked.
    - `moved`: Whether they are others than those of the call before.
    """

    def __init__(self, root: str | Path, config: AuditConfig, narrator: Narrator | None = None) -> None:
        super().__init__(root, narrator)
        self.config, self.moved = config, False

    @classmethod
    def open(cls, folder: str | Path, config: AuditConfig | None = None, *, narrator: Narrator | None = None) -> Self:
        """Open a run folder, or start one when `config` is given and the folder is new.

        Another configuration than the one before is taken: the stages that depend on what differs are done again.
        """
        root = Path(folder)
        file = root / "config.json"
        if config is not None:
            if not file.is_file() and root.exists() and not _is_new(root):
                raise StateError(
                    f"'{root}' is there already and is not a run folder: give an empty or a new one as --out."
                )
            return cls(root, config, narrator)
        if not file.is_file():
            raise InputError(
                f"'{root}' is not a run folder (no config.json): start one with `citlr audit CONFIG --out`."
            )
        return cls(root, parse_config(read_json(file), str(file)), narrator)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run, and write its configuration where that is another than before."""
        with super().locked():
            file, content = self.path("config.json"), self.config.model_dump(mode="json")
            try:
                same = file.is_file() and read_json(file) == content
            except (ValueError, InputError, StateError):
                same = False  # damaged, and the whole of it is in memory
            if not same:
                self.moved = file.is_file()
                write_json(file, content)
            yield

    @property
    def unfinished(self) -> Path:
        """A mark that is there from when stages are begun until the test is done, refused and killed calls included."""
        return self.path("stages", "unfinished")

    def require_folders(self) -> None:
        """Refuse models that are one folder to this disk, as where it does not tell upper from lower case."""
        if not self.unfinished.with_name(self.unfinished.name.upper()).exists():
            return
        seen: dict[str, str] = {}
        for name in self.config.models:
            other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
            if other != name:
                raise InputError(
                    f"The models '{other}' and '{name}' would share files: the disk of '{self.root}' does not tell "
                    "upper from lower case; give one of them another name."
                )

    def keep_history(self) -> None:
        """See that the list of changes is there as long as a verdict is: without it all would seem to be the first."""
        names = {file.stem for file in self.path("stages").glob("test.*")}
        verdicts = [record for name in names if (record := self.earlier(name)) is not None]
        if verdicts:
            self.history.lost(min(verdicts, key=lambda one: one.finished), told=not self.unfinished.exists())

    def stamps(self) -> dict[str, int]:
        """Give when each record of a stage was written."""
        return {file.name: file.stat().st_mtime_ns for file in self.path("stages").glob("*.json")}

    def do(self, stage: Stage) -> StageRecord:
        """Do a stage; of a model that takes another's place, note what is tested otherwise than the other was."""
        kind, _, model = stage.name.partition(".")
        before = self.earlier(stage.name)
        if before is None and kind == "test":
            self._note_replaced(stage, model)
        if before is not None and ANSWERS in before.inputs and ANSWERS not in stage.inputs:
            raise StateError(
                f"'{self.root}' keeps answers of '{model}' that its owner sent in and nobody can make again: give the "
                "model that is run here another name, or another --out."
            )
        return super().do(stage)

    def _note_replaced(self, stage: Stage, model: str) -> None:
        files = sorted(self.path("stages").glob("test.*"), key=lambda file: file.stat().st_mtime_ns)
        before = self.earlier(files[-1].stem) if files else None
        other = "" if before is None else before.name.partition(".")[2]
        # What changes for a model that is still in the run is told of itself.
        if before is not None and other not in self.config.models:
            was, now = {**before.inputs, "model": other}, {**stage.inputs, "model": model}
            self.history.note(replace(before, inputs=was), replace(stage, inputs=now))

    def require(self, name: str, remedy: str) -> StageRecord:
        """Return the record of a finished stage; what was begun since may show it to be of another model."""
        record = super().require(name, remedy)
        if self.unfinished.exists():
            raise StateError(
                f"What was last begun in '{self.root}' did not reach its verdict, so the audit that is there may be of "
                f"another model or other settings than the run's: {remedy}, or run `citlr audit` again."
            )
        self._require_own(record, remedy)
        return record

    def require_shown(self, pictures: bool) -> None:
        """Refuse to show responses, and pictures, that are not what the verdict of the run was made of."""
        stages = [f"predict.{model}" for model in self.config.models] + ["generate"] * pictures
        for record in (record for name in stages if (record := self.record(name)) is not None):
            trouble = self.intact(record)
            if trouble is not None:
                raise StateError(f"{trouble}: run `citlr test {self.root}` to make it again.")

    def _require_own(self, record: StageRecord, remedy: str) -> None:
        """Refuse a record that was made of other stages than those of the run: of one that another run left here."""
        kept, seen = {one.name: one for one in self.records()}, [record]
        for one in seen:
            # One that is damaged or gone, as where only the verdict was handed on, is none of another run.
            there = [name for name in one.after if name in kept]
            if any(kept[name].key != one.after[name] for name in there):
                raise StateError(
                    f"The record '{self.path('stages', one.name)}.json' is of another run than those beside it, so "
                    f"files of several runs lie in '{self.root}': {remedy}."
                )
            seen += [kept[name] for name in there]


def require_no_run(folder: Path) -> None:
    """Refuse to write beside the artefacts of an audit: some are called alike, and would be replaced."""
    if (folder / "config.json").is_file() and (folder / "stages").is_dir():
        raise StateError(
            f"'{folder}' is the run folder of an audit, whose files would be replaced: give another --out."
        )


def _is_new(root: Path) -> bool:
    """Say whether a folder holds nothing but what a run leaves that was stopped at once."""
    return root.is_dir() and all(path.name in (".lock", HOLDER, ".work") for path in root.iterdir())
