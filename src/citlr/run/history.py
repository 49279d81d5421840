"""What was changed in a folder after a first verdict was seen: an auditor wants to know that a margin moved."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from citlr.config.reading import differences
from citlr.errors import InputError, StateError
from citlr.run.files import read_json, write_json
from citlr.run.stage import Stage, StageRecord, code_version

_DIGEST = re.compile(r"\b[0-9a-f]{32,64}\b")


class History:
    """A list of changes in a JSON file, which is not there before the first verdict."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def _content(self) -> dict[str, Any]:
        if not self.file.is_file():
            return {"first_verdict": None, "changes": []}
        try:
            content = read_json(self.file)
            return {
                "first_verdict": str(content["first_verdict"]),
                "changes": [dict(one) for one in content["changes"]],
            }
        except (OSError, ValueError, TypeError, KeyError, InputError, StateError) as error:
            # An auditor asks for it: it is neither made anew nor left out in silence.
            raise StateError(
                f"'{self.file}', which tells what was changed after the first verdict, is damaged: restore it, or "
                "start a new run in another folder."
            ) from error

    def seen(self) -> None:
        """Note that a verdict was there to be seen, the first time only."""
        content = self._content()
        if content["first_verdict"] is None:
            write_json(self.file, {**content, "first_verdict": datetime.now(UTC).isoformat(timespec="seconds")})

    def lost(self, verdict: StageRecord, *, told: bool) -> None:
        """Begin again where the file is gone and the record of a verdict is there: what was changed meanwhile counts.

        `told` says in the list that it was gone; who was killed as the first verdict was written has lost nothing.
        """
        if self.file.exists():
            return
        when = datetime.now(UTC).isoformat(timespec="seconds")
        text = f"'{self.file.name}' was gone: what was changed before is not known"
        entry = {"stage": verdict.name, "key": "", "when": when, "changes": [text]}
        write_json(self.file, {"first_verdict": verdict.finished or when, "changes": [entry] if told else []})

    def note(self, before: StageRecord, stage: Stage) -> None:
        """Note what a stage depends on now and did not when it was last finished; nothing before the first verdict."""
        content = self._content()
        if content["first_verdict"] is None:
            return
        earlier = [one for one in content["changes"] if one["stage"] == stage.name]
        if earlier and earlier[-1]["key"] == stage.key:
            return  # noted before a kill
        changes = changed_inputs(before, stage)
        if changes:
            when = datetime.now(UTC).isoformat(timespec="seconds")
            entry = {"stage": stage.name, "key": stage.key, "when": when, "changes": changes}
            write_json(self.file, {**content, "changes": [*content["changes"], entry]})

    def changes(self) -> list[dict[str, Any]]:
        """Return `stage`, `when` (UTC, ISO 8601) and `changes` (sentences) of every change after the first verdict."""
        return [{name: one[name] for name in ("stage", "when", "changes")} for one in self._content()["changes"]]


def changed_inputs(before: StageRecord, stage: Stage) -> list[str]:
    """Say which inputs of a stage differ from those of its last record; a fingerprint says only that it does.

    >>> old = StageRecord("test.m", "k", "k", code_version(), {"margin": 0.02, "model": "0" * 64}, (), {}, 1.0, None, 1)
    >>> new = Stage("test.m", {"margin": 0.05, "model": "1" * 64}, lambda folder: None, ())
    >>> changed_inputs(old, new)
    ['margin: 0.02 -> 0.05', 'model: other content']
    """
    # As a record is read back: JSON knows no tuple, which is another thing than a list of the same.
    old, new = (json.loads(json.dumps(dict(one.inputs), default=str)) for one in (before, stage))
    changes = [_readable(one) for one in differences(old, new)]
    if before.code != code_version():
        changes.append(f"citlr: {before.code} -> {code_version()}")
    if before.stage_key == stage.key:
        changes.append("images: other content")
    return changes


def _readable(change: str) -> str:
    name, _, values = change.partition(": ")
    return f"{name}: other content" if _DIGEST.search(values) else change
