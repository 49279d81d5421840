"""Write the pages of a run: one per model, and one that ranks them when there are several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from citlr.audit.generation import Counterfactuals
from citlr.audit.prediction import read_responses
from citlr.audit.redrawing.pictures import Pictures
from citlr.audit.results.result import AuditResult
from citlr.config import LEGIBLE, ReportConfig
from citlr.data.counterfactuals import Plan
from citlr.data.images import interleaved
from citlr.doses import nearest
from citlr.generators.variables import as_level
from citlr.randomness import hashed_seed
from citlr.report.charts.gallery import Gallery, Strip
from citlr.report.fleet import write_fleet
from citlr.report.page import write_report
from citlr.run.files import digest_or_missing, fingerprint


def publish(
    sources: Mapping[str, Path],
    targets: Mapping[str, Path],
    results: Mapping[str, AuditResult],
    counterfactuals: Callable[[], Counterfactuals],
    *,
    report: ReportConfig,
    sizes: Mapping[str, int],
    first: Path,
) -> None:
    """Write every model's page, and one that ranks them where there are several; `sizes` are what models read."""
    pictures: dict[str, Gallery] = {}
    if report.gallery:
        pictures = choose_galleries(counterfactuals(), report.gallery, sizes, pixels=report.gallery_pixels)
    for name, result in results.items():
        responses = read_responses(sources[name] / "responses.parquet")
        attribute = result.tests[0].attribute if result.tests else ""
        write_report(
            targets[name],
            result,
            responses=responses[responses["attribute"] == attribute],
            gallery=pictures.get(name),
            mask_below=report.mask_below,
            intended_use=report.intended_use,
            attribute_definition=report.attribute_definition,
        )
    if len(results) > 1:
        links = {name: targets[name].relative_to(first.parent).as_posix() for name in results}
        write_fleet(first, results, links)


def templates_fingerprint() -> str:
    """Fingerprint what pages are made with besides the code."""
    files = sorted((Path(__file__).parent / "templates").iterdir())
    return fingerprint([[file.name, digest_or_missing(file)] for file in files])


def choose_galleries(
    counterfactuals: Counterfactuals, count: int, sizes: Mapping[str, int], *, pixels: int = LEGIBLE
) -> dict[str, Gallery]:
    """Take the same images for show on every model's page, at the size that this one reads."""
    drawn = {size: choose_gallery(counterfactuals, count, size=size, pixels=pixels) for size in {*sizes.values()}}
    return {name: drawn[size] for name, size in sizes.items()}


def choose_gallery(counterfactuals: Counterfactuals, count: int, *, size: int, pixels: int = LEGIBLE) -> Gallery:
    """Take images for show: drawn by a keyed order, the factual levels in turn, first draw of each level.

    They are shown as who reads `size` pixels sees them, reduced to `pixels`.
    """
    plan, shown = counterfactuals.main.plan, counterfactuals.pictures(size)
    rows, in_turn = _rows_for_show(plan, count, number=counterfactuals.null is not None)
    originals = shown.originals(rows)
    strips = []
    for number, row in enumerate(rows):
        drawn = shown.read(row // plan.shard, draws=1)[row % plan.shard, :, 0]
        levels = {level: _picture(image, pixels) for level, image in zip(plan.levels, drawn, strict=True)}
        factual = plan.factual[row]
        if counterfactuals.null is not None:
            factual = as_level(float(factual))
            null = Pictures(counterfactuals.null, counterfactuals.cohort, size).read(row // plan.shard, draws=1)
            levels = {**levels, factual: _picture(null[row % plan.shard, 0, 0], pixels)}
        strips.append(Strip(f"Test image {number + 1}", factual, _picture(originals[number], pixels), levels))
    note = f"Drawn at random from the test split, {in_turn} in turn; the first draw of each level is shown."
    if shown.side > pixels and size <= pixels:
        note += f" They are shown at {pixels} pixels a side; the model reads {size}."
    elif shown.side > pixels:
        note += (
            f" The model reads {size} pixels a side; pictures are reduced to {pixels}, too small for text that "
            "is burnt in to be read."
        )
    elif shown.side > size:
        note += f" They are shown at {shown.side} pixels a side; the model reads {size}."
    else:
        note += f" They are shown as the model reads them, at {shown.side} pixels a side."
    return Gallery(tuple(strips), counterfactuals.attribute, note)


def _rows_for_show(plan: Plan, count: int, *, number: bool) -> tuple[list[int], str]:
    """Choose images by a keyed order, the factual levels in turn, and say what was taken in turn.

    A number has nearly as many values as images: in turn by those, the youngest would always be shown.
    """
    groups: Sequence[str] = plan.factual
    if number:
        groups = [plan.levels[place] for place in nearest([float(value) for value in plan.factual], plan.levels)]
    turn = dict.fromkeys(groups, 0)
    ranked = []
    for row in sorted(range(len(groups)), key=lambda row: hashed_seed("gallery", plan.image_ids[row])):
        turn[groups[row]] += 1
        ranked.append((turn[groups[row]], groups[row], row))
    in_turn = "those recorded nearest to every level" if number else "the factual levels"
    return sorted(row for _, _, row in sorted(ranked)[:count]), in_turn


def _picture(image: npt.NDArray[np.float32], pixels: int) -> npt.NDArray[np.uint8]:
    """Give an image (c, H, W) as a picture of at most so many pixels a side, (h, w) or (h, w, 3)."""
    shown = interleaved(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8))
    height, width = shown.shape[:2]
    if max(height, width) <= pixels:
        return shown
    factor = pixels / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(shown).resize(size, Image.Resampling.BOX))
