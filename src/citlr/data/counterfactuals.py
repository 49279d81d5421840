"""Redrawn images on disk: parquet shards that `datasets` and pandas read, beside the plan by which they resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from citlr.console import Ticker, silent
from citlr.data.images import decode_png, encode_png
from citlr.errors import InputError, StateError
from citlr.run.files import atomic_write, fingerprint, read_json, write_json

Images = npt.NDArray[np.float32]
_TEXT = {"dtype": "string", "_type": "Value"}
_FEATURES = {
    **dict.fromkeys(("image_id", "patient_id", "attribute", "level"), _TEXT),
    "draw": {"dtype": "int16", "_type": "Value"},
    "image": {"_type": "Image"},
}
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("image_id", "patient_id", "attribute", "level")),
        ("draw", pa.int16()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ],
    # Under this key Hugging Face `datasets` finds that a column holds pictures.
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


@dataclass(frozen=True)
class Plan:
    """Which images are redrawn, how, and in which shards.

    - `attribute`, `levels`, `draws`: What is intervened on, the levels in order, and the draws per level.
    - `image_ids`, `patient_ids`, `factual`: One entry per image, in the order of the shards.
    - `shard`: Images per shard.
    - `size`: Side of the images, pixels.
    - `shared_seeds`: Whether the levels of one draw share their noise (then the test flips signs of their difference).
    - `key`: Fingerprint of the generator and the settings that drew them.
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

    - `images` (b, levels, draws, 1, size, size): Grey values in [0, 1].
    """

    rows: range
    images: Images


class CounterfactualSet:
    """A folder of redrawn images.

    - `folder`: Where the shards and `plan.json` are.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan

    @classmethod
    def open(cls, folder: str | Path) -> CounterfactualSet:
        """Open a finished folder."""
        root = Path(folder)
        if not (root / "plan.json").is_file():
            raise InputError(f"No counterfactuals at '{root}' (no plan.json): run `citlr generate` first.")
        content = read_json(root / "plan.json")
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
        plan, rows = self.plan, self.plan.rows(number)
        path = self.shard_path(number)
        table = pq.read_table(path, columns=["image_id", "level", "draw", "image"])
        expected = [
            (plan.image_ids[row], level, draw) for row in rows for level in plan.levels for draw in range(plan.draws)
        ]
        stored = list(zip(*(table[name].to_pylist() for name in ("image_id", "level", "draw")), strict=True))
        if stored != expected:
            raise StateError(
                f"'{path}' does not hold the images of its plan: delete the file and run `citlr generate`."
            )
        encoded = [picture["bytes"] for picture in table["image"].to_pylist()]
        with ThreadPoolExecutor(2) as pool:
            decoded = list(pool.map(decode_png, encoded))
        shape = (len(rows), len(plan.levels), plan.draws, 1, plan.size, plan.size)
        return Shard(rows, np.stack(decoded).astype(np.float32, copy=False).reshape(shape))

    def shards(self) -> Iterator[Shard]:
        """Yield the shards in order, one in memory at a time."""
        for number in range(self.plan.n_shards):
            yield self.read(number)


def write_counterfactuals(
    folder: str | Path, plan: Plan, draw: Callable[[range], Images], *, tick: Ticker = silent
) -> CounterfactualSet:
    """Draw and write every shard that is not there yet."""
    root = Path(folder)
    plan_file = root / "plan.json"
    content = asdict(plan)
    if plan_file.is_file() and fingerprint(read_json(plan_file)) != fingerprint(content):
        shutil.rmtree(root)
    if not plan_file.is_file():
        write_json(plan_file, content)
    written = CounterfactualSet(root, plan)
    for number in range(plan.n_shards):
        rows = plan.rows(number)
        path = written.shard_path(number)
        if not path.is_file():
            _write_shard(path, plan, rows, draw(rows))
        tick(rows.stop)
    return written


def _write_shard(path: Path, plan: Plan, rows: Sequence[int], images: Images) -> None:
    shape = (len(rows), len(plan.levels), plan.draws, 1, plan.size, plan.size)
    if images.shape != shape or not np.isfinite(images).all():
        raise StateError(f"The generator gave images of shape {images.shape} (expected {shape}) or not finite values.")
    with ThreadPoolExecutor(2) as pool:
        encoded = list(pool.map(encode_png, images.reshape(-1, 1, plan.size, plan.size)))
    repeat = len(plan.levels) * plan.draws
    columns = {
        "image_id": [plan.image_ids[row] for row in rows for _ in range(repeat)],
        "patient_id": [plan.patient_ids[row] for row in rows for _ in range(repeat)],
        "attribute": [plan.attribute] * len(encoded),
        "level": [level for _ in rows for level in plan.levels for _ in range(plan.draws)],
        "draw": list(range(plan.draws)) * (len(rows) * len(plan.levels)),
        "image": [{"bytes": png, "path": None} for png in encoded],
    }
    with atomic_write(path) as temporary:
        pq.write_table(pa.table(columns, schema=SCHEMA), temporary)
