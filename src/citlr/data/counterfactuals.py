"""Redrawn images on disk: parquet shards of pictures or of edits, beside the plan by which they resume.

Shards of pictures are read by `datasets` and pandas as such. An edit (see `citlr.data.edits`) takes more room than an
8-bit picture of its size, and is kept once for all draws of a level that are alike.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from citlr.console import Ticker, silent
from citlr.data.edits import Edit, decode_edit, encode_edit
from citlr.data.images import decode_png, encode_png
from citlr.errors import InputError, StateError
from citlr.run.engines import Engine
from citlr.run.files import atomic_write, fingerprint, read_json, write_json

Images = npt.NDArray[np.float32]
_TEXT = {"dtype": "string", "_type": "Value"}
_FEATURES = {
    **dict.fromkeys(("image_id", "patient_id", "attribute", "level"), _TEXT),
    "draw": {"dtype": "int16", "_type": "Value"},
    "image": {"_type": "Image"},
}
_NAMES = [*((name, pa.string()) for name in ("image_id", "patient_id", "attribute", "level")), ("draw", pa.int16())]
SCHEMA = pa.schema(
    [*_NAMES, ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))],
    # Under this key Hugging Face `datasets` finds that a column holds pictures.
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
EDITS = pa.schema([*_NAMES, ("edit", pa.binary())])
# Less than half of one of the 256 steps that pictures are written in: what leaves the scale by rounding.
ROUNDED = 0.5 / 255
_DREW = b"citlr.key"  # of a shard: the key of the plan that it was drawn by
_NOT_PLACED = b"citlr.not_placed"  # of a shard of edits: image_ids that were left as they are, see `Edit.placed`


@dataclass(frozen=True)
class Plan:
    """Which images are redrawn, how, and in which shards.

    - `attribute`, `levels`, `draws`: What is intervened on, the levels in order, and the draws per level.
    - `image_ids`, `patient_ids`, `factual`: One entry per image, in the order of the shards.
    - `shard`: Images per shard.
    - `shared_seeds`: Whether the levels of one draw share their noise (then the test flips signs of their difference).
    - `key`: Fingerprint of the generator and the settings that drew them.
    - `edits`: Whether edits are kept, or pictures.
    - `alike`: Whether all draws of a level are one and the same, which is then kept once.
    - `guidance`: Weight of the intervention that was asked for; None for the generator's own.
    """

    attribute: str
    levels: tuple[str, ...]
    draws: int
    image_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    factual: tuple[str, ...]
    shard: int
    size: int
    shared_seeds: bool
    key: str
    edits: bool = False
    alike: bool = False
    guidance: float | None = None
    channels: int = 1

    @property
    def picture(self) -> tuple[int, int, int]:
        """Shape of one picture, (channels, size, size)."""
        return (self.channels, self.size, self.size)

    def to_json(self) -> dict[str, Any]:
        """Give the plan as JSON; of grey pictures it is that of before there was colour."""
        return {name: value for name, value in asdict(self).items() if name != "channels" or value != 1}

    @property
    def kept(self) -> int:
        """Number of draws that are on disk."""
        return 1 if self.alike else self.draws

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-len(self.image_ids) // self.shard)

    def rows(self, shard: int) -> range:
        """Return the positions of the images in one shard."""
        return range(shard * self.shard, min((shard + 1) * self.shard, len(self.image_ids)))


@dataclass(frozen=True)
class Shard:
    """A part of the redrawn images.

    - `drawn` (b, levels, kept draws, channels, size, size): Values in [0, 1], or edits.
    """

    rows: range
    drawn: Images | Edit


class CounterfactualSet:
    """A folder of redrawn images."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder.absolute()  # other processes may work elsewhere
        self.plan = plan

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a finished folder."""
        root = Path(folder)
        if not (root / "plan.json").is_file():
            raise InputError(f"No counterfactuals at '{root}' (no plan.json): run `citlr generate` first.")
        content = read_json(root / "plan.json")
        known = {one.name: one.default is MISSING for one in fields(Plan)}
        if not content.keys() <= known.keys() or any(needed and name not in content for name, needed in known.items()):
            raise StateError(f"The counterfactuals at '{root}' are of another version: run `citlr generate` again.")
        tuples = {name: tuple(content[name]) for name in ("levels", "image_ids", "patient_ids", "factual")}
        opened = cls(root, Plan(**{**content, **tuples}))
        missing = [number for number in range(opened.plan.n_shards) if not opened.shard_path(number).is_file()]
        if missing:
            raise StateError(
                f"'{root}' lacks {len(missing)} of {opened.plan.n_shards} shards: run `citlr generate` again to go on."
            )
        return opened

    def __len__(self) -> int:
        """Return the number of images that were redrawn."""
        return len(self.plan.image_ids)

    def shard_path(self, number: int) -> Path:
        """Return the file of one shard."""
        return self.folder / f"part-{number:05d}.parquet"

    def read(self, number: int) -> Shard:
        """Decode one shard."""
        plan, rows, path = self.plan, self.plan.rows(number), self.shard_path(number)
        self._marks(number)
        column = "edit" if plan.edits else "image"
        table = pq.read_table(path, columns=["image_id", "level", "draw", column])
        expected = [
            (plan.image_ids[row], level, draw) for row in rows for level in plan.levels for draw in range(plan.kept)
        ]
        stored = list(zip(*(table[name].to_pylist() for name in ("image_id", "level", "draw")), strict=True))
        if stored != expected:
            raise StateError(
                f"'{path}' does not hold the images of its plan: delete the file and run `citlr generate`."
            )
        shape = (len(rows), len(plan.levels), plan.kept)
        if plan.edits:
            found = [decode_edit(content, plan.size) for content in table[column].to_pylist()]
            both = (np.stack([getattr(one, name) for one in found]) for name in ("displacement", "added"))
            return Shard(rows, Edit(*both).reshape(*shape))
        encoded = [picture["bytes"] for picture in table[column].to_pylist()]
        with ThreadPoolExecutor(2) as pool:
            decoded = list(pool.map(partial(decode_png, channels=plan.channels), encoded))
        return Shard(rows, np.stack(decoded).astype(np.float32, copy=False).reshape(*shape, *plan.picture))

    def _marks(self, number: int) -> dict[bytes, bytes]:
        """Read what is written on a shard beside its columns; refuse one that is not of the plan that was opened."""
        path, own = self.shard_path(number), self.plan.key.encode()
        marks = (pq.read_schema(path).metadata or {}) if path.is_file() else {_DREW: b""}
        # A shard of before the key was kept has none.
        if marks.get(_DREW, own) != own:
            raise StateError(
                f"The pictures in '{self.folder}' were drawn anew or taken away after they were opened: draw the "
                "counterfactuals of every generator and setting into a folder of their own."
            )
        return dict(marks)

    def not_placed(self) -> tuple[str, ...] | None:
        """Name the images that could not be placed and were left as they are; None where no image has to be."""
        every = [self._marks(number) for number in range(self.plan.n_shards)]
        if not all(_NOT_PLACED in one for one in every):
            return None
        return tuple(name for one in every for name in json.loads(one[_NOT_PLACED]))

    def shards(self) -> Iterator[Shard]:
        """Yield the shards in order, one in memory at a time."""
        for number in range(self.plan.n_shards):
            yield self.read(number)


# Draws the images of a part of the plan's rows; where processes share the work, it has to be one that can be pickled.
Draw = Callable[[range], Images | Edit]


def write_counterfactuals(
    folder: str | Path, plan: Plan, draw: Draw, *, tick: Ticker = silent, engine: Engine | None = None
) -> CounterfactualSet:
    """Draw and write every shard that is not there yet, on an engine that reaches the folder."""
    root = Path(folder)
    plan_file = root / "plan.json"
    content = plan.to_json()
    if plan_file.is_file() and fingerprint(read_json(plan_file)) != fingerprint(content):
        shutil.rmtree(root)
    if not plan_file.is_file():
        write_json(plan_file, content)
    written = CounterfactualSet(root, plan)
    missing = [number for number in range(plan.n_shards) if not written.shard_path(number).is_file()]
    done = len(written) - sum(len(plan.rows(number)) for number in missing)
    for _, count in (engine or Engine()).each(_make_shard, (written, draw), missing):
        done += count
        tick(done)
    return written


def _make_shard(shared: tuple[CounterfactualSet, Draw], number: int) -> int:
    """Draw one shard, and give its number of images."""
    written, draw = shared
    rows = written.plan.rows(number)
    _write_shard(written.shard_path(number), written.plan, rows, draw(rows))
    return len(rows)


def _write_shard(path: Path, plan: Plan, rows: Sequence[int], drawn: Images | Edit) -> None:
    shape = (len(rows), len(plan.levels), plan.kept, *plan.picture)
    if drawn.shape != shape or isinstance(drawn, Edit) != plan.edits:
        raise StateError(f"The generator gave {type(drawn).__name__} of shape {drawn.shape}; expected {shape}.")
    encoded: dict[str, list[Any]]
    marks = {_DREW: plan.key.encode()}
    if isinstance(drawn, Edit):
        if drawn.placed is not None:
            left = [plan.image_ids[row] for row, able in zip(rows, drawn.placed[:, 0, 0], strict=True) if not able]
            marks[_NOT_PLACED] = json.dumps(left).encode()
        flat = drawn.reshape(-1)
        encoded = {"edit": [encode_edit(flat[number]) for number in range(flat.shape[0])]}
    else:
        if not np.isfinite(drawn).all():
            raise StateError("The generator gave images with values that are not finite.")
        low, high = float(drawn.min()), float(drawn.max())
        if not (low > -ROUNDED and high < 1 + ROUNDED):
            raise StateError(
                f"The generator gave grey values from {low:g} to {high:g}, and they lie in [0, 1]: clip or scale what "
                "it gives."
            )
        drawn = drawn if low >= 0 and high <= 1 else drawn.clip(0, 1)
        with ThreadPoolExecutor(2) as pool:
            pictures = list(pool.map(encode_png, drawn.reshape(-1, *plan.picture)))
        encoded = {"image": [{"bytes": png, "path": None} for png in pictures]}
    repeat = len(plan.levels) * plan.kept
    columns = {
        "image_id": [plan.image_ids[row] for row in rows for _ in range(repeat)],
        "patient_id": [plan.patient_ids[row] for row in rows for _ in range(repeat)],
        "attribute": [plan.attribute] * (len(rows) * repeat),
        "level": [level for _ in rows for level in plan.levels for _ in range(plan.kept)],
        "draw": list(range(plan.kept)) * (len(rows) * len(plan.levels)),
        **encoded,
    }
    schema, compression = (EDITS, "zstd") if plan.edits else (SCHEMA, "snappy")
    schema = schema.with_metadata({**(schema.metadata or {}), **marks})
    with atomic_write(path) as temporary:
        pq.write_table(pa.table(columns, schema=schema), temporary, compression=compression)
