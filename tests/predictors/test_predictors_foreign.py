"""User code that ends the program, prints or changes the process: an error of the model, never the end of an audit."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from citlr.errors import InputError
from citlr.predictors.check import check_predictor
from citlr.predictors.foreign import user_code
from citlr.predictors.loading import load_predictor

IMAGES = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
NET = """
import os, sys, torch
class Net(torch.nn.Module):
    def forward(self, x):
        {forward}
        return x.mean((1, 2, 3))[:, None]
    {method}
{top}
"""


def written(folder: Path, forward: str = "pass", method: str = "", top: str = "") -> str:
    (folder / "m.py").write_text(NET.format(forward=forward, method=method, top=top))
    return f"{folder / 'm.py'}:Net"


@pytest.mark.parametrize(
    "parts",
    [
        {"top": "sys.exit(0)"},
        {"top": "os._exit(0)"},
        {"top": "raise SystemExit"},
        {"top": "class Stop(BaseException): pass\nraise Stop('no licence')"},
        {"top": "raise GeneratorExit"},
        {"method": "def __init__(self): sys.exit(0)"},
        {"method": "def __deepcopy__(self, memo): sys.exit(0)"},
        {"method": "def eval(self): os._exit(0)"},
        {"method": "def parameters(self, recurse=True): sys.exit(0)"},
        {"top": "def __getattr__(name): sys.exit(0)\ndel Net"},
        {"forward": "sys.exit(0)"},
        {"forward": "os._exit(0)"},
        {"forward": "raise SystemExit('goodbye')"},
    ],
)
def test_an_exit_anywhere_is_one_sentence(tmp_path: Path, parts: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        check_predictor(load_predictor(written(tmp_path, **parts), labels=["a"], device="cpu"), IMAGES)
    said = str(caught.value)
    assert "\n" not in said
    assert "ends the program (SystemExit" in said or "Stop: no licence" in said or "GeneratorExit" in said


class Leaving:
    def __reduce__(self) -> tuple[object, ...]:
        return sys.exit, (0,)


@pytest.mark.filterwarnings("ignore:.*is a pickle")
def test_an_exit_while_a_pickle_is_read_is_one_sentence(tmp_path: Path) -> None:
    joblib.dump(Leaving(), tmp_path / "m.joblib")
    with pytest.raises(InputError, match=r"cannot be unpickled: it ends the program \(SystemExit: 0\)"):
        load_predictor(tmp_path / "m.joblib", labels=["a"], trust=True)
    torch.save({"w": Leaving()}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"cannot be unpickled: it ends the program \(SystemExit: 0\)"):
        load_predictor(nn.Flatten(), weights=tmp_path / "w.pt", labels=["a"], trust=True, device="cpu")


def test_a_child_of_the_models_code_still_ends(tmp_path: Path) -> None:
    fork = (
        "child = os.fork()\nif not child: os._exit(7)\nassert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7"
    )
    load_predictor(written(tmp_path, top=fork), labels=["a"], device="cpu")


def test_ctrl_c_stays_ctrl_c(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_predictor(written(tmp_path, top="raise KeyboardInterrupt"), labels=["a"])


def test_what_a_model_prints_is_not_among_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = written(tmp_path, top="print('loading weights')", forward="print('seen', len(x))")
    load_predictor(source, labels=["a"], device="cpu").predict(IMAGES)
    out, err = capsys.readouterr()
    assert out == ""
    assert "loading weights" in err
    assert "seen 4" in err


def test_a_models_code_changes_nothing_of_the_process(tmp_path: Path) -> None:
    here, threads = Path.cwd(), torch.get_num_threads()
    top = (
        "torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); torch.set_num_threads(3)\n"
        f"os.chdir({str(tmp_path)!r})"
    )
    load_predictor(written(tmp_path, top=top, forward="torch.set_default_dtype(torch.float64)"), labels=["a"])
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == threads
    assert Path.cwd() == here
    assert os._exit.__name__ == "_exit"


@pytest.mark.parametrize(
    "setting",
    [
        "numpy.seterr(all='raise')",
        "torch.set_default_device('meta')",
        "torch.use_deterministic_algorithms(True)",
        "warnings.simplefilter('error')",
    ],
)
def test_what_a_models_code_makes_an_error_is_none_for_others(tmp_path: Path, setting: str) -> None:
    before = list(warnings.filters)
    top = f"import numpy, warnings\n{setting}"
    for parts in ({"top": top}, {"top": "import numpy, warnings", "forward": f"x = x + 0; {setting}"}):
        model = load_predictor(written(tmp_path, **parts), labels=["a"], device="cpu")
        with contextlib.suppress(InputError):
            model.predict(IMAGES)
        assert np.geterr()["divide"] == "warn"
        assert torch.zeros(1).device.type == "cpu"
        assert not torch.are_deterministic_algorithms_enabled()
        assert warnings.filters == before


def test_an_exception_that_cannot_be_written_is_named() -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise SystemExit(0)

    with pytest.raises(InputError, match=r"^It failed: OddError\. Mend it\.$"), user_code("It failed", "Mend it."):
        raise OddError


def test_a_message_without_end_is_cut() -> None:
    with pytest.raises(InputError) as caught, user_code("It failed"):
        raise ValueError("x" * 10_000_000)
    assert len(str(caught.value)) < 300


def test_a_network_without_weights_is_not_audited(tmp_path: Path) -> None:
    """`source: model.py:make` alone is a network that nobody has trained, another one at every call."""
    path = tmp_path / "model.py"
    path.write_text("from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 1))\n")
    with pytest.raises(InputError, match=r"not trained.*`weights: FILE` below `model`"):
        load_predictor(f"{path}:make", labels=["flu"], device="cpu")
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 1)).state_dict(), tmp_path / "w.pt")
    load_predictor(f"{path}:make", weights=tmp_path / "w.pt", labels=["flu"], device="cpu")
    path.write_text(
        "import torch\nfrom torch import nn\ndef make():\n    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))\n"
        f"    network.load_state_dict(torch.load({str(tmp_path / 'w.pt')!r}))\n    return network\n"
    )
    load_predictor(f"{path}:make", labels=["flu"], device="cpu")
