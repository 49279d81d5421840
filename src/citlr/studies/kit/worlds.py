"""Worlds of the studies whose counterfactuals are exact: their kinds by name, and their images and arrays on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from citlr.errors import require_known
from citlr.run.files import atomic_write
from citlr.run.stage import Stage
from citlr.run.stages import Stages
from citlr.simulators.phantom.world import AnatomyKind
from citlr.simulators.units import WorldUnits

WorldName = Literal["phantom", "varying", "semireal"]
WORLDS: tuple[WorldName, ...] = get_args(WorldName)
# Writes the images of a world into a folder.
Write = Callable[[Path], object]
# What the demo and the studies take where nobody says: the phantom as it always was, or "varying".
DEFAULT_WORLD: WorldName = "phantom"


def anatomy_of(world: str) -> AnatomyKind:
    """Name the anatomy of a phantom: "phantom" is the one whose chests lie on top of each other."""
    check_world(world)
    return "varying" if world == "varying" else "fixed"


def check_world(world: str) -> None:
    """Raise InputError, naming the nearest, if there is no such kind of world."""
    require_known(world, WORLDS, f"There is no world '{world}': it is {', '.join(WORLDS)}")


def world_folder(
    stages: Stages, sample: WorldUnits, *, name: str = "world", write: Write | None = None, **inputs: str
) -> Path:
    """Write the images and the table of units and give their folder.

    `write` does it where they are not the plain ones; `inputs` say what else it depends on.
    """

    def work(folder: Path) -> None:
        if write is None:
            # Who reads the table says how many patients a level needs.
            sample.write(folder / name, min_patients_per_level=1)
        else:
            write(folder / name)

    stages.do(Stage(name, {"units": sample.fingerprint(), **inputs}, work, (name,)))
    return stages.path(name)


def write_array(path: Path, array: NDArray[np.float32]) -> None:
    """Write an array as `.npy`, atomically."""
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)


def true_changes(units: WorldUnits, levels: tuple[str, ...]) -> NDArray[np.float32]:
    """Give the exact change from each image's own level to every other one, (n (levels - 1), 1, s, s), not rounded."""
    return changes(np.stack([units.counterfactual(level, digital=False) for level in levels], axis=1), units.level)


def changes(images: NDArray[np.float32], own: NDArray[np.intp]) -> NDArray[np.float32]:
    """Give the changes from the own level to the others: of images (n, levels, ...), (n (levels - 1), ...)."""
    others = np.arange(images.shape[1])[None, :] != own[:, None]
    base = images[np.arange(len(images)), own]
    found: NDArray[np.float32] = (images - base[:, None])[others]
    return found
