"""What is handed to people outside the run: page, PDF, JSON, Markdown and CSV of every model's audit."""

from __future__ import annotations

import io
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, get_args

from citlr.audit.chain import Chain
from citlr.audit.prediction import read_responses
from citlr.audit.results.result import AuditResult
from citlr.config import ReportConfig
from citlr.console import Narrator
from citlr.errors import InputError, did_you_mean
from citlr.exchange.share import shareable
from citlr.report.card import model_card
from citlr.report.charts.gallery import Gallery
from citlr.report.page import render
from citlr.report.pdf import write_pdf
from citlr.report.publish import choose_gallery
from citlr.report.tables import spreadsheet
from citlr.run.files import atomic_write, write_json
from citlr.run.folder import Run

Form = Literal["html", "pdf", "json", "md", "csv"]
NAMES: dict[str, str] = {
    "html": "audit.html",
    "pdf": "audit.pdf",
    "json": "audit.shared.json",
    "md": "model-card.md",
    "csv": "effects.csv",
}
# A PDF cannot fold the rest away.
_SCATTERS_ON_PAPER = 6


def deliver(
    run: Run,
    forms: tuple[str, ...],
    *,
    out: Path | None = None,
    report: ReportConfig | None = None,
    engine: str = "weasyprint",
) -> list[Path]:
    """Write the audits of a run in the forms that are asked for."""
    for form in forms:
        if form not in NAMES:
            raise InputError(f"There is no form '{form}' of a report.{did_you_mean(form, get_args(Form))}")
    shown = report or run.config.report
    # A run that is only read may lie where nothing can be written, not even a lock.
    outside = out is not None and not out.resolve().is_relative_to(run.root.resolve())
    with nullcontext() if outside else run.locked():
        chain = Chain(run, Narrator(quiet=True))
        results = chain.results()
        pictures = None
        if shown.gallery and {"html", "pdf"} & {*forms}:
            pictures = choose_gallery(chain.counterfactuals, shown.gallery, pixels=shown.gallery_pixels)
        written = []
        for name, result in results.items():
            folder = chain.folder(name) if out is None else out if len(run.config.models) == 1 else out / name
            for form in dict.fromkeys(forms):
                path = folder / NAMES[form]
                _write(path, form, result, chain.folder(name), pictures, shown, engine, chain.config.cohort.attribute)
                written.append(path)
    return written


def _write(
    path: Path,
    form: str,
    result: AuditResult,
    source: Path,
    pictures: Gallery | None,
    shown: ReportConfig,
    engine: str,
    attribute: str,
) -> None:
    said = {"intended_use": shown.intended_use, "attribute_definition": shown.attribute_definition}
    if form == "json":
        write_json(path, shareable(result, mask_below=shown.mask_below))
        return
    if form in ("html", "pdf"):
        responses = read_responses(source / "responses.parquet")
        page = render(
            result,
            responses=responses[responses["attribute"] == attribute],
            gallery=pictures,
            mask_below=shown.mask_below,
            most_scatters=_SCATTERS_ON_PAPER if form == "pdf" else None,
            **said,
        )
        if form == "pdf":
            write_pdf(page, path, engine=engine)
            return
        text = page
    else:
        text = model_card(result, **said) if form == "md" else effects_csv(result)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def effects_csv(result: AuditResult) -> str:
    """Return the effects as CSV, one row per label and contrast; no cell is a formula to a spreadsheet."""
    frame = result.to_frame()
    frame.columns = [str(spreadsheet(name)) for name in frame.columns]
    buffer = io.StringIO()
    frame.map(spreadsheet).to_csv(buffer, index=False)
    return buffer.getvalue()
