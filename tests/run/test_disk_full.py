"""A full disk is one sentence, whatever writes: never SIGBUS, never a library's own exception; then it goes on."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from citlr.audit.generation import generate
from citlr.data.cohort import Cohort
from citlr.data.pixels.cache import write_cache
from citlr.errors import InputError, StateError
from citlr.generators.oracle import Oracle
from citlr.learning.checkpoints import load_state, save_state
from citlr.learning.scratch import scratch_rows
from citlr.run.files import atomic_write
from citlr.run.rows import Row, Rows
from citlr.simulators.phantom.world import PhantomWorld

Disk = Callable[[str], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A file system of so many bytes; asked for again, it has that size."""
    place = tmp_path / "disk"

    def sized(size: str) -> Path:
        again = "remount," if place.is_dir() else ""
        place.mkdir(exist_ok=True)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"{again}size={size}", "tmpfs", place], check=False)
        if mounted.returncode:
            pytest.skip("only root can mount a small file system")
        return place

    if sys.platform != "linux":
        pytest.skip("tmpfs is Linux's")
    yield sized
    subprocess.run(["umount", place], check=False)


NOISE = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)


def safetensors(file: Path) -> None:
    save_state(file, {"weight": torch.ones(300_000)}, {"step": 1})


def torch_save(file: Path) -> None:
    with atomic_write(file) as temporary:
        torch.save({"weight": torch.ones(300_000)}, temporary)


def parquet(file: Path) -> None:
    table = pa.table({"a": np.random.default_rng(0).random(300_000)})
    with atomic_write(file) as temporary:
        pq.write_table(table, temporary)


def picture(file: Path) -> None:
    with atomic_write(file) as temporary:
        Image.fromarray(np.tile(NOISE, (20, 20))).save(temporary, format="PNG", compress_level=0)


def frame(file: Path) -> None:
    with atomic_write(file) as temporary:
        pd.DataFrame({"a": np.random.default_rng(0).random(100_000)}).to_csv(temporary)


@pytest.mark.parametrize("write", [safetensors, torch_save, parquet, picture, frame])
def test_every_writer_says_it_in_one_sentence(disk: Disk, write: Callable[[Path], None]) -> None:
    place = disk("512k")
    with pytest.raises(StateError, match=r"The disk is full while writing .*out\.bin': free some space"):
        write(place / "out.bin")
    assert not list(place.iterdir())
    write(disk("64m") / "out.bin")


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    for error in (RuntimeError("unrelated"), InputError("no"), OSError(2, "no such file")):
        with pytest.raises(type(error)), atomic_write(tmp_path / "a"):
            raise error


LIMITED = """
import resource, sys
from pathlib import Path
from test_disk_full import {write}
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    {write}(Path(sys.argv[1]))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
@pytest.mark.parametrize("write", [safetensors, parquet, picture, frame])
def test_a_limit_of_files_is_said_with_the_file(tmp_path: Path, write: Callable[[Path], None]) -> None:
    program = [sys.executable, "-c", LIMITED.format(write=write.__name__), tmp_path / "out.bin"]
    done = subprocess.run(program, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(
        f"StateError '{tmp_path / 'out.bin'}' became larger than the system lets a file be"
    ), done
    assert not list(tmp_path.iterdir())


def test_what_the_system_refuses_another_library_is_an_error_of_the_system(tmp_path: Path) -> None:
    class SafetensorError(Exception):
        """As of the library: no OSError."""

    with pytest.raises(PermissionError, match=r"weights\.bin"), atomic_write(tmp_path / "weights.bin"):
        raise SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)")
    # What this package says of another file is said of that one.
    damaged = "'a.safetensors' is damaged (No such file, os error 2); remove it and train that part again."
    with pytest.raises(StateError, match="remove it and train"), atomic_write(tmp_path / "table.csv"):
        raise StateError(damaged)


def test_what_was_whole_stays(disk: Disk) -> None:
    place = disk("2m")
    save_state(place / "a.safetensors", {"w": torch.ones(200_000)}, {"step": 1})
    with pytest.raises(StateError, match="disk is full"):
        save_state(place / "a.safetensors", {"w": torch.ones(400_000)}, {"step": 2})
    assert load_state(place / "a.safetensors")[1] == {"step": 1}


def test_a_row_is_kept_or_it_is_said(disk: Disk) -> None:
    kept = Rows(disk("16k") / "rows.jsonl", {"key": "a"}, other="holds others.")
    with pytest.raises(StateError, match=r"^The disk is full while writing '.*rows\.jsonl': free some space"):
        for number in range(100):
            kept.add({"number": number, "note": "n" * 301})
    assert rows_of(kept.path) == kept.lines
    disk("64k")
    kept.add({"number": -1})
    assert rows_of(kept.path) == kept.lines
    assert [row["number"] for row in kept.lines] == [*range(len(kept.lines) - 1), -1]


def test_rows_aside_say_it_too(disk: Disk) -> None:
    with (
        pytest.raises(StateError, match=r"^The disk is full while writing '.*scratch': free some space"),
        scratch_rows(disk("64k"), (1000, 100)) as rows,
    ):
        rows[:] = np.ones((1000, 100))


def rows_of(file: Path) -> list[Row]:
    return Rows(file, {"key": "a"}, other="holds others.").lines


def test_a_cache_goes_on_when_there_is_room(disk: Disk, tmp_path: Path) -> None:
    rows = []
    for row in range(60):
        name = f"{row}.png"
        Image.fromarray(np.roll(NOISE, row)).save(tmp_path / name)
        rows.append({"image_id": name, "path": name, "patient_id": name, "split": "test", "sex": "f", "e": 0.0})
    cohort = Cohort(pd.DataFrame(rows), tmp_path, attributes=("sex",), labels=("e",))
    with pytest.raises(StateError, match="disk is full"):
        write_cache(cohort, disk("150k") / "cache", size=64, shard_size=20)
    cached = write_cache(cohort, disk("8m") / "cache", size=64, shard_size=20)
    np.testing.assert_array_equal(cached.pixels(size=64), cohort.pixels(size=64))


def test_redrawing_goes_on_when_there_is_room(disk: Disk, tmp_path: Path) -> None:
    sample = PhantomWorld(size=32).sample(60, seed=0, images_per_patient=1)
    test = sample.write(tmp_path / "world", min_patients_per_level=1).part("test")
    asked: dict[str, Any] = {"attribute": "sex", "draws": 4, "placebo_images": 0, "shard": 2}
    with pytest.raises(StateError, match="The disk is full while writing"):
        generate(Oracle.of(sample), test, out=disk("80k"), **asked)
    assert list(disk("80k").glob(".work/*/levels/part-*.parquet")), "what was finished is there"
    drawn = generate(Oracle.of(sample), test, out=disk("8m"), **asked)
    whole = generate(Oracle.of(sample), test, out=tmp_path / "whole", **asked)
    for number in range(whole.main.plan.n_shards):
        assert drawn.main.shard_path(number).read_bytes() == whole.main.shard_path(number).read_bytes()


def test_arrays_of_a_training_do_not_kill_the_process(disk: Disk) -> None:
    """In a process of its own, which a memory map would end."""
    script = """
        import sys
        from pathlib import Path
        import numpy as np
        from citlr.learning.store import spans, stored
        from citlr.errors import StateError
        parts = lambda: ((rows, np.full((rows.stop - rows.start, 100), rows.start)) for rows in spans(2000))
        try:
            found = stored(Path(sys.argv[1]) / "a.npy", (2000, 100), parts, dtype="float32")
        except StateError as error:
            sys.exit(f"said: {error}")
        print(found.shape, found[:].dtype, float(found[:].sum()))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(disk("300k"))]
    full = subprocess.run(command, capture_output=True, text=True, check=False)
    assert full.returncode == 1
    assert full.stderr.startswith("said: The disk is full while writing")
    disk("4m")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = 100.0 * sum(start * (min(start + 256, 2000) - start) for start in range(0, 2000, 256))
    assert done.stdout.split(") ")[1].split() == ["float32", str(expected)]
