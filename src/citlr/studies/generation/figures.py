"""The picture grid of `citlr reproduce generation` (Figures 13 and 14): models in rows, images in columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from citlr.studies.generation.measure import Measures, picture_rows, true_images
from citlr.studies.generation.study import Entrant

# A change of this many grey values is shown in full colour.
FULL = 0.25
Pictures = npt.NDArray[np.float32]


def picture_grid(measures: Measures, entrants: Sequence[Entrant], *, seed: int) -> Figure:
    """Draw a grid: per image the null intervention, every other level, and the signed difference of the two."""
    study, rows = measures.study, picture_rows(measures.test.frame, measures.study)
    own = [study.levels.index(str(level)) for level in measures.test.frame[study.attribute].iloc[rows]]
    stacks = _stacks(measures, entrants, rows, seed)
    per_image = 1 + 2 * (len(study.levels) - 1)
    columns = per_image * len(rows)
    figure = Figure(figsize=(1.05 * columns + 1.6, 1.05 * (len(stacks) + 1) + 0.9), layout="constrained")
    axes = figure.subplots(len(stacks) + 1, columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    for position, row in enumerate(rows):
        first = axes[0, position * per_image]
        _show(first, measures.images[row, 0])
        first.set_title(f"original\n{study.levels[own[position]]}", fontsize=7)
    for number, (name, pictures) in enumerate(stacks, start=1):
        axes[number, 0].text(-0.15, 0.5, name, transform=axes[number, 0].transAxes, ha="right", va="center", fontsize=8)
        for position in range(len(rows)):
            place = axes[number, position * per_image : (position + 1) * per_image]
            _show_levels(place, pictures[position], own[position], study.levels if number == 1 else ())
    figure.suptitle(
        f"{study.name}: test images redrawn under every level of {study.attribute}; change in red (brighter) and blue "
        f"(darker), full colour at {FULL:g} of the grey scale",
        fontsize=8,
    )
    return figure


def _stacks(
    measures: Measures, entrants: Sequence[Entrant], rows: Sequence[int], seed: int
) -> list[tuple[str, Pictures]]:
    """Name the lines of the grid with their pictures, (images, levels, s, s): the truth first, where it is known."""
    true = true_images(measures)
    stacks = [] if true is None else [("truth", true[list(rows), :, 0])]
    for entrant in entrants:
        if entrant.kind != "oracle":
            stacks.append((entrant.name, np.load(measures.stages.path("pictures", f"{entrant.slug}-{seed}.npy"))))
    return stacks


def _show_levels(axes: npt.NDArray[np.object_], pictures: Pictures, own: int, titles: Sequence[str]) -> None:
    """Show one image: the null intervention, then every other level with its change; titles where they are given."""
    _show(axes[0], pictures[own])
    others = [k for k in range(len(pictures)) if k != own]
    for step, other in enumerate(others):
        _show(axes[1 + 2 * step], pictures[other])
        _show_change(axes[2 + 2 * step], pictures[other] - pictures[own])
        if titles:
            axes[1 + 2 * step].set_title(f"do({titles[other]})", fontsize=7)
            axes[2 + 2 * step].set_title("change", fontsize=7)
    if titles:
        axes[0].set_title(f"do({titles[own]})", fontsize=7)


def _show(axis: Axes, image: Pictures) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _show_change(axis: Axes, change: Pictures) -> None:
    axis.imshow(change, cmap="bwr", vmin=-FULL, vmax=FULL, interpolation="nearest")
