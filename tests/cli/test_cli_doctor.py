"""`citlr doctor`: what is installed and what the machine has, without a path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from as_user import citlr

from citlr.run import machine


def test_it_says_versions_devices_threads_disk_and_extras_and_no_path(tmp_path: Path) -> None:
    done = citlr("doctor", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("torch", "python", "device            cpu:", "threads           1 on", "GB here", "extra dicom"):
        assert word in done.stdout
    assert str(tmp_path) not in done.stdout
    assert str(Path.home()) not in done.stdout
    content = json.loads(citlr("doctor", "--json", cwd=tmp_path).stdout)
    assert content["variables"]["OMP_NUM_THREADS"] == "1"
    assert content["devices"][0]["memory_gb"] > 0
    assert content["free_disk_gb"]["here"] > 0
    assert {"dicom", "onnx", "pdf", "xlsx"} <= {extra["name"] for extra in content["extras"]}
    assert "test" not in {extra["name"] for extra in content["extras"]}


def test_a_missing_extra_comes_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["numpy>=2.0", "no-such-package>=1; extra == 'rare'", "numpy ; extra == 'usual'"]
    monkeypatch.setattr(machine.metadata, "requires", lambda name: needed)
    rare, usual = machine.extras()
    assert (rare.missing, rare.remedy) == (("no-such-package",), "pip install 'citlr[rare]'")
    assert (usual.missing, usual.remedy) == ((), "")
    assert "no no-such-package: pip install 'citlr[rare]'" in str(machine.Machine({}, (), 1, 1, {}, {}, (rare, usual)))
