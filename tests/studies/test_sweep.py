"""A sweep: the same rows on every engine, kept as they come, and failures that stop nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sweep_tasks import count_calls, dies, divide

from citlr.errors import InputError, StateError
from citlr.run.engines import Engine
from citlr.studies.kit.sweep import Sweep, SweepTask, run_sweep, sweep_rows

# Other processes have to find the package and the tasks, wherever this one found them.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])}
TASKS = [SweepTask(f"n={n}", n, {"numerator": 6}) for n in range(9)]


def counting(log: Path, n: int = 6) -> list[SweepTask]:
    return [SweepTask(f"seed {k}", k, {"log": str(log)}) for k in range(n)]


def run(
    function: Callable[..., dict[str, Any]], tasks: list[SweepTask], out: Path, engine: Engine | None = None
) -> Sweep:
    return run_sweep(function, tasks, sweep_rows(out, function, tasks), title=out.stem, engine=engine)


def rows(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="seconds")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return rows(run(divide, TASKS, tmp_path_factory.mktemp("one") / "rows.jsonl").frame)


@pytest.mark.parametrize("engine", ["loky", "dask", pytest.param("ray", marks=pytest.mark.slow)])  # Ray starts slowly
def test_every_engine_gives_the_same_rows(engine: str, reference: pd.DataFrame, tmp_path: Path) -> None:
    # In a process of its own: clusters leave threads and atexit hooks behind.
    program = (
        "import sys; from pathlib import Path; from sweep_tasks import divide\n"
        "from citlr.run.engines import Engine\n"
        "from citlr.studies.kit.sweep import SweepTask, run_sweep, sweep_rows\n"
        "if __name__ == '__main__':\n"
        "    tasks = [SweepTask(f'n={n}', n, {'numerator': 6}) for n in range(9)]\n"
        "    rows = sweep_rows(Path(sys.argv[1]).with_suffix('.jsonl'), divide, tasks)\n"
        "    sweep = run_sweep(divide, tasks, rows, title='rows', engine=Engine(sys.argv[2], workers=2))\n"
        "    sweep.to_parquet(Path(sys.argv[1]))\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "rows.parquet"), engine],
        capture_output=True,
        text=True,
        timeout=300,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = pd.read_parquet(tmp_path / "rows.parquet")
    pd.testing.assert_frame_equal(rows(found), reference, check_dtype=False, check_exact=True)
    again = run(divide, TASKS, tmp_path / "rows.jsonl").frame  # none of them is computed a second time
    assert again["seconds"].tolist()[1:] == found["seconds"].tolist()[1:]


def test_a_failure_is_a_row_and_the_rest_goes_on(reference: pd.DataFrame) -> None:
    failed = reference[reference["error"].notna()]
    assert failed["task"].tolist() == ["n=0"]
    assert failed["error"].item() == "ZeroDivisionError: integer division or modulo by zero"
    assert len(reference) == len(TASKS)


def test_what_is_finished_costs_nothing_and_failures_are_tried_again(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "rows.jsonl"
    first = run(count_calls, counting(log), out)
    again = run(count_calls, counting(log), out)
    pd.testing.assert_frame_equal(first.frame, again.frame)
    assert len(log.read_text().splitlines()) == 6
    broken = tmp_path / "gone" / "log"
    out = tmp_path / "failing.jsonl"
    assert len(run(count_calls, counting(broken), out).failed) == 6
    broken.parent.mkdir()
    assert len(run(count_calls, counting(broken), out).failed) == 0


def test_killed_it_goes_on_where_it_was(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "rows.jsonl"
    program = (
        "import sys, time; from pathlib import Path; from sweep_tasks import count_calls\n"
        "from citlr.run.rows import Rows\n"
        "from citlr.studies.kit.sweep import SweepTask, run_sweep, sweep_rows\n"
        "tasks = [SweepTask(f'seed {k}', k, {'log': sys.argv[2]}) for k in range(6)]\n"
        "add = Rows.add\n"
        "Rows.add = lambda self, row: (add(self, row), time.sleep(0.5 if row['twice'] >= 4 else 0))\n"
        "run_sweep(count_calls, tasks, sweep_rows(Path(sys.argv[1]), count_calls, tasks), title='rows')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(out), str(log)], env=ENVIRONMENT)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (out.is_file() and len(out.read_bytes().splitlines()) >= 3):
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = len(log.read_text().splitlines())
    assert 3 <= before < 6
    with out.open("a") as file:
        file.write('{"key": "')  # a line that was under way
    sweep = run(count_calls, counting(log), out)
    assert sweep.done["twice"].tolist() == [0, 2, 4, 6, 8, 10]
    assert len(log.read_text().splitlines()) <= 7  # at most the one under way was done twice


def test_a_worker_that_is_killed_is_replaced_and_its_task_done_again(tmp_path: Path) -> None:
    out, log = tmp_path / "rows.jsonl", tmp_path / "log"
    assert run(dies, counting(log), out, Engine(workers=2)).done["twice"].tolist() == [0, 2, 4, 6, 8, 10]
    assert log.exists()


def test_bad_input(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    run(divide, TASKS, out)
    with pytest.raises(StateError, match="holds the rows of another sweep"):
        run(divide, TASKS[:-1], out)
    with pytest.raises(InputError, match="two tasks of the name 'n=0'"):
        run(divide, [*TASKS, TASKS[0]], tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="There is no engine 'daks'"):
        Engine("daks")
    with pytest.raises(InputError, match="loky has no scheduler"):
        Engine(scheduler="tcp://127.0.0.1:1")
    with pytest.raises(InputError, match="workers must be a whole number of at least 1"):
        Engine(workers=0)
    out.write_bytes(b"PAR1 torn\n")
    with pytest.raises(StateError, match="cannot be read"):
        run(divide, TASKS, out)


@pytest.mark.parametrize(
    ("engine", "address"),
    [("dask", "tcp://127.0.0.1:1"), ("ray", "127.0.0.1:1"), ("ray", "ray://127.0.0.1:1"), ("ray", "127.0.0.1:one")],
)
def test_nobody_at_the_address(engine: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed" if engine == "dask" else engine)
    monkeypatch.setattr("citlr.run.clusters._ANSWER_SECONDS", 1)
    with pytest.raises(InputError, match=f"No {engine} cluster answers at '{address}'"):
        run(divide, TASKS, tmp_path / "a.jsonl", Engine(engine, scheduler=address))
    assert not list(tmp_path.glob("*.jsonl"))
