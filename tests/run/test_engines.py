"""Parts on every engine: the same results, dead processes replaced, errors that come through, threads of the sender."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from engine_parts import NOISY, answers, count, die_once, draw_once, square, threads, variable
from threadpoolctl import threadpool_limits

from citlr.audit.chain import Chain
from citlr.console import Narrator
from citlr.data.counterfactuals import Plan, write_counterfactuals
from citlr.errors import InputError, StateError
from citlr.predictors.adapters.callable import import_object
from citlr.predictors.loading import load_predictor
from citlr.run import engines
from citlr.run.engines import Engine
from citlr.run.parcel import Missing, Parcel, forget, work_on

TWO = Engine(workers=2)


def test_parts_come_with_their_positions_and_what_is_shared_arrives() -> None:
    assert dict(TWO.each(square, 3, [5, 1, 2])) == {0: 28, 1: 4, 2: 7} == dict(Engine().each(square, 3, [5, 1, 2]))
    assert dict(TWO.each(square, 4, [5])) == {0: 29}, "another parcel to the same processes"
    assert list(TWO.each(square, 4, [])) == []


def test_processes_compute_with_the_threads_of_this_one() -> None:
    with threadpool_limits({"blas": 2}):
        here = threads(None, 0)
        there = dict(TWO.each(threads, None, range(4))).values()
    # Not all libraries that this process has met are loaded there.
    assert ("blas", 2) in here
    assert all(("blas", 2) in one and set(one) <= set(here) for one in there)


def test_an_error_of_a_part_arrives_as_it_is_and_ends_the_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^3 is too noisy$"):
        list(TWO.each(count, tmp_path, range(40)))
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) < 39
    assert dict(TWO.each(square, 3, [5])) == {0: 28}


def test_what_cannot_be_sent_is_said() -> None:
    with pytest.raises(InputError, match="cannot be sent to other processes"):
        list(TWO.each(square, (part for part in ()), [1]))


def test_a_killed_process_is_replaced_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = dict(TWO.each(die_once, tmp_path / "log", range(8), narrator=Narrator(quiet=False)))
    assert found == {number: 2 * number for number in range(8)}
    assert "A worker died" in capsys.readouterr().err


def test_a_part_that_dying_processes_refuse_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It came back, as its parcel had not arrived yet, and they died before it could be sent again."""
    started = []

    class Processes:
        def __init__(self) -> None:
            self.dying = not started
            started.append(self)

        def submit(self, function: Any, *given: Any) -> Future[Any]:
            if function is engines.deliver and self.dying:
                raise BrokenExecutor
            future: Future[Any] = Future()
            future.set_result(Missing if function is engines.work_on else square(3, given[-1]))
            return future

        def shutdown(self, **_: Any) -> None:
            pass

    monkeypatch.setattr(engines, "_processes", lambda parcel, workers: Processes())
    assert dict(TWO.each(square, 3, [5, 1, 2], narrator=Narrator(quiet=True))) == {0: 28, 1: 4, 2: 7}
    assert len(started) == 2


def test_a_part_that_kills_every_process_is_said() -> None:
    seen = []
    with pytest.raises(StateError, match=r"Workers died 3 times at the same part, .* what was finished is kept"):
        seen += [number for number, _ in TWO.each(die_once, Path("/nowhere/log"), range(8))]


def test_shards_of_a_killed_process_are_drawn_again(tmp_path: Path) -> None:
    names = tuple(map(str, range(10)))
    plan = Plan("sex", ("f", "m"), 1, names, names, ("f",) * 10, shard=2, size=8, shared_seeds=True, key="k")
    done: list[int] = []
    written = write_counterfactuals(
        tmp_path / "two", plan, draw_once(tmp_path / "log"), tick=lambda n, note="": done.append(n), engine=TWO
    )
    assert (tmp_path / "log").exists(), "a process was killed"
    assert done == sorted(done) == [2, 4, 6, 8, 10]
    plain = write_counterfactuals(tmp_path / "one", plan, draw_once(tmp_path / "log"))
    for number in range(plan.n_shards):
        assert written.shard_path(number).read_bytes() == plain.shard_path(number).read_bytes()
        np.testing.assert_array_equal(written.read(number).drawn, plain.read(number).drawn)


IMAGES = np.linspace(0, 1, 2 * 64, dtype=np.float32).reshape(2, 1, 8, 8)
CODE = "import os\ndef predict(x):\n    return x.mean((1, 2, 3)) * {}\n"


def test_processes_of_before_are_not_asked_in_another_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("one", "two"):
        monkeypatch.setenv("CITLR_TEST", value)
        assert set(dict(TWO.each(variable, "CITLR_TEST", range(4))).values()) == {value}


def test_a_module_that_was_loaded_again_answers_in_the_processes_as_it_does_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "own_network.py"
    file.write_text(CODE.format(0.25))
    module = importlib.import_module("own_network")
    for factor in (0.25, 0.5):
        file.write_text(CODE.format(factor) + f"# {factor}")
        module = importlib.reload(module)
        model = load_predictor(module.predict, labels=["flu"], name="own", device="cpu")
        assert dict(TWO.each(answers, model, [IMAGES, IMAGES]))[1] == answers(model, IMAGES)
    file.write_text(CODE.format(0.0625) + "# not loaded again")
    with pytest.raises(StateError, match="makes another model of 'own' than the one that is audited"):
        list(TWO.each(answers, model, [IMAGES]))


def test_a_model_that_is_read_again_is_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "m.py").write_text(CODE.format(0.5))
    (tmp_path / "elsewhere" / "m.py").write_text(CODE.format(0.25))
    monkeypatch.chdir(tmp_path)
    model = load_predictor("m.py:predict", labels=["flu"], device="cpu")
    sent = pickle.dumps(model)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert answers(pickle.loads(sent), IMAGES) == answers(model, IMAGES), "a relative path is that of the sender"
    (tmp_path / "m.py").write_text(CODE.format(0.25))
    with pytest.raises(StateError, match="give every machine the same files"):
        pickle.loads(sent)


@pytest.mark.parametrize("read", [True, False])
def test_answers_that_rest_on_the_environment_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: bool
) -> None:
    (tmp_path / "m.py").write_text(CODE.format("float(os.environ['CITLR_TEST'])"))
    monkeypatch.setenv("CITLR_TEST", "0.5")
    source = f"{tmp_path / 'm.py'}:predict"
    model = load_predictor(source if read else import_object(source), labels=["flu"], name="own")
    assert model.fingerprint().startswith("unknown:")
    model.predict(IMAGES)
    sent = pickle.dumps(model)
    assert answers(pickle.loads(sent), IMAGES) == answers(model, IMAGES)
    monkeypatch.setenv("CITLR_TEST", "0.25")
    with pytest.raises(StateError, match=r"gets other answers of model 'own' .* an environment variable"):
        pickle.loads(sent)


PROGRAM = """
from engine_parts import slow
from citlr.run.engines import Engine
if __name__ == "__main__":
    for number, process in Engine(workers=2).each(slow, None, range(1000)):
        print(process, flush=True)
"""


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """However that ends: a second run must not find the first one's workers at work."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        workers = {int(process.stdout.readline()) for _ in range(NOISY)}
        process.send_signal(signal.SIGKILL)
    assert process.pid not in workers
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(map(is_running, workers)):
        time.sleep(0.1)
    assert not any(map(is_running, workers))


def is_running(process: int) -> bool:
    """Say whether a process is there, and no zombie that nobody has asked for its end."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_parcel_that_is_forgotten_while_a_part_begins_is_that_parts_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster's worker may have several threads."""
    packed = Parcel.of(square, 3)
    packed.arrive()
    monkeypatch.setattr(Parcel, "_limit", lambda parcel: forget(parcel.name))
    assert work_on(packed.name, 2) == 7
    assert work_on(packed.name, 2) is Missing


TWO_STUDIES = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from distributed import LocalCluster
from engine_parts import wait_for
from citlr.run import parcel
from citlr.run.engines import Engine

folder = Path(sys.argv[1])
options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
with LocalCluster(**options) as cluster, ThreadPoolExecutor() as pool:
    engine = Engine("dask", scheduler=cluster.scheduler_address)

    def study(*items):
        return pool.submit(lambda: dict(engine.each(wait_for, folder, items)))

    def begun(item):
        while not (folder / f"{item}.begun").exists():
            time.sleep(0.01)

    short = study("a")
    begun("a")
    long = study("b", "c", "d")
    begun("b")
    (folder / "a.go").touch()
    print(short.result(60), len(parcel._arrived))
    parcel._arrived.clear()  # as in a worker that came while the parcel was on its way: one part has not begun
    for item in "bcd":
        (folder / f"{item}.go").touch()
    print(sorted(long.result(60).items()))
"""


def run_program(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(program)
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    command = [sys.executable, str(folder / "program.py"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)


def test_of_two_studies_on_one_cluster_the_first_to_end_takes_nothing_from_the_other(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    done = run_program(tmp_path, TWO_STUDIES)
    assert done.stdout == "{0: 'a'} 1\n[(0, 'b'), (1, 'c'), (2, 'd')]\n", done.stderr


NO_WORKER = """
import io, sys, threading
from distributed import LocalCluster
from engine_parts import square
from rich.console import Console
from citlr.console import Narrator
from citlr.run.engines import Engine

class Spoken(io.StringIO):
    def write(self, text):
        if "no worker yet" in text:
            said.set()
        return super().write(text)

said, spoken = threading.Event(), Spoken()
with LocalCluster(n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
    narrator = Narrator(quiet=False, console=Console(file=spoken))
    engine = Engine("dask", scheduler=cluster.scheduler_address, narrator=narrator)
    threading.Thread(target=lambda: said.wait(60) and cluster.scale(1)).start()
    for again in range(2):
        print(sorted(engine.each(square, 10, [1, 2])), spoken.getvalue().count("no worker yet"))
print(f"`dask worker {engine.scheduler}`" in spoken.getvalue())
"""


def test_a_cluster_without_workers_is_waited_for_and_told(tmp_path: Path) -> None:
    """Nodes of a queue come when they come: the bar stood at 0 without a word, also where nobody had asked for any."""
    pytest.importorskip("distributed")
    done = run_program(tmp_path, NO_WORKER)
    assert done.stdout.splitlines() == ["[(0, 11), (1, 14)] 1", "[(0, 11), (1, 14)] 1", "True"], done.stderr


def test_the_stages_of_a_run_tell_what_becomes_of_their_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shards are drawn, read and answered by functions that know no narrator."""
    run: Any = SimpleNamespace(config=None)
    engine = Chain(run, Narrator(quiet=False), TWO).engine
    assert engine == TWO
    assert engine is not None
    dict(engine.each(die_once, tmp_path / "log", range(4)))
    assert "A worker died" in capsys.readouterr().err
