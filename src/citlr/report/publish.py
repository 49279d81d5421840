"""The last arrow of the chain: from finished audits to a page per model, and one that ranks several."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from citlr.audit.assembly import whole_provenance
from citlr.audit.chain import STAGES as BEFORE
from citlr.audit.chain import Chain
from citlr.audit.finished import side_answered
from citlr.audit.generation import Counterfactuals
from citlr.audit.prediction import read_responses
from citlr.audit.redrawing.pictures import Pictures
from citlr.audit.results.result import SEVERITY, AuditResult, TestRow
from citlr.audit.stages import PAGE
from citlr.config import LEGIBLE, ReportConfig
from citlr.console import QUIET, Narrator
from citlr.data.counterfactuals import Plan
from citlr.data.images import interleaved
from citlr.doses import nearest
from citlr.errors import require_known
from citlr.generators.variables import as_level
from citlr.randomness import hashed_seed
from citlr.report import numerals, tables, wording
from citlr.report.charts.gallery import Gallery, Strip
from citlr.report.page import fill, stylesheet, write_report
from citlr.run.engines import Engine
from citlr.run.files import digest_or_missing, fingerprint, write_json, write_text
from citlr.run.folder import Run
from citlr.run.stage import Stage
from citlr.text import joined
from citlr.version import __version__


def rank(results: Mapping[str, AuditResult]) -> list[str]:
    """Return the models, the gravest verdict first and the largest psi first among equals."""

    def weight(name: str) -> tuple[int, float, str]:
        result = results[name]
        known = (row.psi.estimate for row in result.tests if numerals.is_number(row.psi.estimate))
        largest = max(known, default=0.0)
        return (-SEVERITY.index(result.verdict), -largest, name)

    return sorted(results, key=weight)


def heaviest(result: AuditResult) -> TestRow | None:
    """Return the row that decides a model's verdict: gravest, then smallest adjusted p, then largest."""
    return min(result.tests, key=lambda row: (*wording.weight(row), row.label), default=None)


def render_fleet(results: Mapping[str, AuditResult], links: Mapping[str, str]) -> str:
    """Return the page."""
    names = rank(results)
    columns = (
        tables.Column("Model"),
        tables.Column("Verdict", "verdict"),
        tables.Column("Label that decides"),
        tables.Column("psi", "number"),
        tables.Column("Mean effect", "number"),
        tables.Column("p", "number", "adjusted"),
    )
    rows = tuple(_row(name, results[name]) for name in names)
    table = tables.build("Models, the gravest verdict first", columns, rows)
    entries = [
        {"name": name, "link": links[name], "verdict": results[name].verdict, "says": wording.headline(results[name])}
        for name in names
    ]
    attributes = dict.fromkeys(name for result in results.values() for name in wording.attributes(result))
    return fill(
        "fleet.html.j2",
        version=__version__,
        style=stylesheet(),
        attribute=joined(attributes, "or") or "the attribute",
        entries=entries,
        table=table,
    )


def write_fleet(path: Path, results: Mapping[str, AuditResult], links: Mapping[str, str]) -> Path:
    """Render the page, write it atomically, and return its path."""
    write_text(path, render_fleet(results, links))
    return path


def _row(name: str, result: AuditResult) -> tuple[tables.Cell, ...]:
    row = heaviest(result)
    if row is None:
        none = tables.absent("no test was run")
        return (tables.text(name), tables.verdict(result.verdict), none, none, none, none)
    return (
        tables.text(name),
        tables.verdict(result.verdict),
        tables.text(row.label),
        tables.number(row.psi.estimate, numerals.percent, "it could not be computed"),
        tables.number(row.mean_effect.estimate, numerals.percent, "it could not be computed"),
        tables.number(row.pvalue_adjusted, numerals.pvalue, "it could not be computed"),
    )


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


STAGES = (*BEFORE, "report")


def run_audit(run: Run, *, narrator: Narrator | None = None, engine: Engine | None = None) -> dict[str, AuditResult]:
    """Run every stage that is not done yet, and return the audit of every model by name."""
    with run.locked():
        chain = Chain(run, narrator or QUIET, engine)
        chain.upto("test")
        report(chain)
        return chain.results()


def run_stage(
    run: Run, stage: str, *, force: bool = False, narrator: Narrator | None = None, engine: Engine | None = None
) -> str:
    """Run the stages up to one, and say what it left behind."""
    require_known(stage, STAGES, f"There is no stage '{stage}'")
    with run.locked():
        chain = Chain(run, narrator or QUIET, engine)
        if force and stage == "report":
            run.forget(stage)
        elif force:
            chain.forget(stage)
        if stage != "report":
            chain.upto(stage)
            return f"{stage}: done, see {chain.artefact(stage)}"
        if not chain.audited():
            chain.upto("test")
        report(chain)
    return f"report: done, see {run.path(PAGE)}"


def report(chain: Chain) -> None:
    """Write the pages of finished audits."""
    run, config = chain.run, chain.config
    places = {name: chain.place(name, PAGE) for name in config.models}

    def work(folder: Path) -> None:
        run.require_shown(pictures=bool(config.report.gallery))
        sources = {name: chain.folder(name) for name in config.models}
        targets = {name: folder / place for name, place in places.items()}
        # The redrawn images are opened only where strips are shown.
        publish(
            sources,
            targets,
            chain.results(),
            lambda: chain.counterfactuals,
            report=config.report,
            sizes={name: side_answered(run, name) for name in config.models},
            first=folder / PAGE,
        )
        write_json(folder / "provenance.json", whole_provenance(run))

    inputs = {"report": config.report.model_dump(mode="json"), "templates": templates_fingerprint()}
    after = tuple(chain.keys[f"test.{name}"] for name in config.models)
    every = tuple(dict.fromkeys((PAGE, *places.values(), "provenance.json")))
    chain.do(Stage("report", inputs, work, every, after))
    chain.narrator.say(f"report: {run.path(PAGE)}")
