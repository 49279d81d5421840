"""A small world on disk, with a model and a configuration, as a user would bring them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from as_user import CONFIG, citlr


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 200 phantom patients, a model and a configuration, shared and not to be changed."""
    from citlr.predictors.export import export_torchscript, make_card
    from citlr.predictors.specs import InputSpec
    from citlr.simulators.phantom.classifiers import analytic_blind
    from citlr.simulators.phantom.world import PhantomWorld

    root = tmp_path_factory.mktemp("world")
    phantom = PhantomWorld(size=32)
    phantom.sample(200, seed=0, images_per_patient=1).write(root / "world")
    model = analytic_blind(phantom, "cardiomegaly").eval()
    export_torchscript(model, root / "model.ts", make_card(["cardiomegaly"], input=InputSpec(size=32)))
    (root / "audit.yaml").write_text(yaml.safe_dump(CONFIG))
    return root


@pytest.fixture
def configure(world: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a configuration beside links to the world, with sections changed."""

    def write(**changes: Any) -> Path:
        for name in ("world", "model.ts"):
            if not (tmp_path / name).exists():
                (tmp_path / name).symlink_to(world / name)
        content = {**CONFIG, **{key: {**CONFIG.get(key, {}), **value} for key, value in changes.items()}}
        file = tmp_path / "audit.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    return write


@pytest.fixture(scope="session")
def never_killed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = citlr("audit", world / "audit.yaml", "--out", run, "--quiet")
    assert done.returncode == 0, done.stderr
    return run
