"""Phantom worlds of the studies on disk: written once by a stage, whatever study asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from citlr.run.files import fingerprint
from citlr.run.stage import Stage
from citlr.run.stages import Stages
from citlr.simulators.phantom import PhantomSample


def world_folder(
    stages: Stages,
    sample: PhantomSample,
    *,
    name: str = "world",
    write: Callable[[Path], object] | None = None,
    **inputs: str,
) -> Path:
    """Write the images and the table of units and give their folder.

    `write` does it where they are not the plain ones; `inputs` say what else it depends on.
    """

    def work(folder: Path) -> None:
        (write or sample.write)(folder / name)

    units = {"world": repr(sample.world), "seed": sample.seed, "units": fingerprint(sample.frame.to_dict("list"))}
    stages.do(Stage(name, {**units, **inputs}, work, (name,)))
    return stages.path(name)
