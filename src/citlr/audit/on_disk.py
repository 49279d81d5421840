"""Counterfactuals that somebody else has drawn, from their table to what an audit takes."""

import os
from dataclasses import replace
from pathlib import Path

from citlr.audit.generation import Counterfactuals, generate
from citlr.audit.redrawing.drawing import CohortRequest
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.redrawn import read_redrawn
from citlr.errors import require_kind
from citlr.generators.on_disk import ImagesOnDisk
from citlr.values import Name, Side, check_value


def on_disk(request: CohortRequest, draws: int) -> CohortRequest:
    """Ask for what is on the disk: all draws, no coin and no replicates, which nobody can draw any more."""
    return replace(request, draws=draws, placebo_images=0, replicate_images=0)


def read_counterfactuals(
    table: str | Path,
    cohort: Cohort,
    *,
    attribute: str,
    size: int,
    out: str | Path | None = None,
    narrator: Narrator | None = None,
) -> Counterfactuals:
    """Read counterfactual images of a generator that is not citlr's.

    Every image of the cohort is there under every level, its own too (null intervention), and at least twice.

    Parameters
    ----------
    table : path-like
        CSV, TSV, parquet or Excel with the columns image_id, level, draw (0, 1, ...) and path, relative to the table:
        PNG or JPEG, squares of one size. Images that the cohort does not hold are left aside.
    cohort : Cohort
        The images that were redrawn: usually the test split.
    attribute : str
        What was intervened on.
    size : int
        Side of the images in pixels; 256 at most: larger ones are read at 256.
    out : path-like, optional
        Folder to keep what was read in; a temporary one without it.
    narrator : Narrator, optional
        Shows progress.

    Returns
    -------
    Counterfactuals
        For `citlr.audit(model, counterfactuals, train=..., validation=...)`. The splits train the probes that judge the
        images. A verdict is conditional on what only the owner of the generator can measure, and says so.

    Raises
    ------
    InputError
        If an image, a level or a draw is missing or there twice, or a file is no square of `size` pixels.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from citlr.data.images import encode_png
    >>> from citlr.simulators.phantom.world import PhantomWorld
    >>> folder = Path(tempfile.mkdtemp())
    >>> sample = PhantomWorld(size=32).sample(6, seed=0, images_per_patient=1)
    >>> cohort = sample.write(folder, min_patients_per_level=1)
    >>> rows = []
    >>> for level in ("female", "male"):
    ...     for image_id, pixels in zip(sample.frame["image_id"], sample.counterfactual(level), strict=True):
    ...         for draw in range(2):
    ...             rows.append((image_id, level, draw, f"{image_id}-{level}-{draw}.png"))
    ...             _ = (folder / rows[-1][-1]).write_bytes(encode_png(pixels))
    >>> pd.DataFrame(rows, columns=["image_id", "level", "draw", "path"]).to_csv(folder / "redrawn.csv", index=False)
    >>> counterfactuals = read_counterfactuals(folder / "redrawn.csv", cohort, attribute="sex", size=32)
    >>> counterfactuals.levels, len(counterfactuals.main)
    (('female', 'male'), 6)
    """
    attribute, size = check_value("attribute", attribute, Name), check_value("size", size, Side)
    require_kind(table, (str, os.PathLike), "table", "the path of a table of the redrawn images")
    index = read_redrawn(Path(table), cohort, attribute=attribute, size=size)
    generator = ImagesOnDisk(index, attribute=attribute, size=size, channels=cohort.channels, white=cohort.white)
    return generate(
        generator,
        cohort,
        attribute=attribute,
        draws=generator.draws,
        placebo_images=0,
        replicate_images=0,
        out=out,
        narrator=narrator,
    )
