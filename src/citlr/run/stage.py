"""A stage: a piece of work whose result is kept under a key of everything that it depends on."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, Self

from citlr.run.files import fingerprint

# What a stage needs while it is under way and nobody afterwards: this folder of its own goes when the stage is done.
SCRATCH = "scratch"
Work = Callable[[Path], Mapping[str, Any] | None]


@cache
def code_version() -> str:
    """Return the package's version and a digest of its sources, so that no two states of the code share a key."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
        digest.update(file.read_bytes())
    return f"{metadata.version('citlr')}+{digest.hexdigest()[:12]}"


def stage_key(name: str, inputs: Mapping[str, Any], after: Sequence[str] = ()) -> str:
    """Fingerprint of the code, the inputs and the keys of the stages before."""
    return fingerprint({"stage": name, "code": code_version(), "inputs": dict(inputs), "after": list(after)})


@dataclass(frozen=True)
class Stage:
    """A piece of work that is done once for the same key.

    - `name`: Of its record; letters, digits, "-", "_" and ".".
    - `inputs`: All that it reads from outside, as plain JSON: settings by name, and fingerprints of files, images,
      weights.
    - `work`: Writes into the folder it is given: `places` below it, and what it needs to go on after a kill below
      `SCRATCH`. Returns facts for the record.
    - `places`: Files or folders that it leaves, relative to the folder of all stages; nothing else is kept.
    - `after`: Keys of the stages whose output it reads.
    - `discovered`: Fingerprint of outside inputs that are known only from the output, which lies in the folder it is
      given: the image files that a table names, for example.
    """

    name: str
    inputs: Mapping[str, Any]
    work: Work
    places: tuple[str, ...]
    after: tuple[str, ...] = ()
    discovered: Callable[[Path], str] | None = None

    @cached_property
    def key(self) -> str:
        """Fingerprint of all that the output depends on."""
        return stage_key(self.name, self.inputs, self.after)


@dataclass(frozen=True)
class StageRecord:
    """What is known of a finished stage.

    - `stage_key`: The key without what was discovered.
    - `code`: Version of the code that did it.
    - `files`: SHA-256 of every file below the places.
    - `seconds`, `peak_memory_mb`, `attempts`, `facts`: What it took, in all attempts, and what the work said.
    - `finished`: UTC, ISO 8601.
    - `discovered`: See `Stage`; empty where nothing is.
    - `after`: Names of the stages of its folder that it was made of, and their keys.
    """

    name: str
    key: str
    stage_key: str
    code: str
    inputs: dict[str, Any]
    places: tuple[str, ...]
    files: dict[str, str]
    seconds: float
    peak_memory_mb: float | None
    attempts: int
    facts: dict[str, Any] = field(default_factory=dict)
    finished: str = ""
    discovered: str = ""
    after: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Take a record out of JSON; TypeError where it is none."""
        record = cls(**content)
        if not (isinstance(record.files, dict) and isinstance(record.facts, dict) and isinstance(record.inputs, dict)):
            raise TypeError("files, facts and inputs have to be mappings")
        if not isinstance(record.after, dict):
            object.__setattr__(record, "after", {})
        object.__setattr__(record, "places", tuple(record.places))
        # Runs are handed on, and what is at a place may be moved or removed: it lies in the folder, whoever says so.
        outside = [one for one in (*record.places, *record.files) if not _inside(one)]
        if outside or not _inside(record.name) or "/" in record.name:
            raise TypeError("places and files have to lie in the folder")
        return record


def _inside(place: Any) -> bool:
    """Say whether a place, relative to a folder, is below it."""
    if not isinstance(place, str) or "\0" in place:
        return False
    parts = PurePosixPath(place).parts
    return bool(parts) and ".." not in parts and not PurePosixPath(place).is_absolute()
