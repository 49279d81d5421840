"""What is handed to people outside the run: page, PDF, JSON, Markdown and CSV of every model's audit.

JSON that may leave the house has no folder, file name or raw value, and small cells are without their numbers.
"""

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from citlr.audit import privacy
from citlr.audit.chain import Chain
from citlr.audit.finished import side_answered
from citlr.audit.prediction import read_responses
from citlr.audit.results.result import AuditResult
from citlr.audit.stages import HANDED_ON, PAGE
from citlr.config import ReportConfig
from citlr.console import QUIET
from citlr.errors import require_known
from citlr.report.card import model_card
from citlr.report.charts.gallery import Gallery
from citlr.report.page import render
from citlr.report.pdf import write_pdf
from citlr.report.publish import choose_galleries
from citlr.report.sections.accuracy import masked
from citlr.report.sections.subgroups import masked_parts
from citlr.report.tables import safe_csv
from citlr.run.files import write_json, write_text
from citlr.run.folder import Run, require_no_run
from citlr.values import plain


def shareable(result: AuditResult, *, mask_below: int = 5) -> dict[str, Any]:
    """Return the audit as plain JSON types for people outside."""
    content = result.to_dict()
    cohort = content["cohort"]
    hide_cell = privacy.mask_small(result.cohort.counts, below=mask_below)
    cohort["counts"] = [
        {**cell, "images": None, "patients": None} if hide else cell
        for cell, hide in zip(cohort["counts"], hide_cell, strict=True)
    ]
    cohort["flow"] = privacy.merge_small_steps(result.cohort.flow, below=mask_below)
    cohort["missing"] = {
        name: None if number and number < mask_below else number for name, number in cohort["missing"].items()
    }
    raw = privacy.mask_raw(cohort["raw"], below=mask_below)
    fewest = [
        min(number for number in (row["images_before"], row["images_after"]) if number is not None) for row in raw
    ]
    cohort["raw"] = [row for row, number in zip(raw, fewest, strict=True) if number >= mask_below]
    hidden = masked_parts(result, below=mask_below)
    content["subgroups"] = [
        row for row, kept in zip(content["subgroups"], result.subgroups, strict=True) if kept.subgroup not in hidden
    ]
    if (accuracy := masked(result, below=mask_below)) is not None:
        content["accuracy"] = plain(asdict(accuracy))
    shared: dict[str, Any] = privacy.scrub(content)
    return {**shared, "masked_below": mask_below, "masked_subgroups": len(hidden)}


NAMES: dict[str, str] = {"html": PAGE, **HANDED_ON}
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
        require_known(form, NAMES, f"There is no form '{form}' of a report")
    shown = report or run.config.report
    # A run that is only read may lie where nothing can be written, not even a lock.
    outside = out is not None and not out.resolve().is_relative_to(run.root.resolve())
    if out is not None and outside:
        require_no_run(out)
    with nullcontext() if outside else run.locked():
        chain = Chain(run, QUIET)
        results = chain.results()
        pictures: dict[str, Gallery] = {}
        if {"html", "pdf"} & {*forms}:
            run.require_shown(pictures=bool(shown.gallery))
        if shown.gallery and {"html", "pdf"} & {*forms}:
            sizes = {name: side_answered(run, name) for name in results}
            pictures = choose_galleries(chain.counterfactuals, shown.gallery, sizes, pixels=shown.gallery_pixels)
        written = []
        for name, result in results.items():
            folder = chain.folder(name) if out is None else out if len(run.config.models) == 1 else out / name
            model = _Model(result, chain.folder(name), chain.config.cohort.attribute, pictures.get(name), shown)
            for form in dict.fromkeys(forms):
                path = folder / NAMES[form]
                model.write(path, form, engine)
                written.append(path)
    return written


@dataclass(frozen=True)
class _Model:
    """One model's audit with what its page shows."""

    result: AuditResult
    source: Path
    attribute: str
    pictures: Gallery | None
    shown: ReportConfig

    def write(self, path: Path, form: str, engine: str) -> None:
        """Write it in one form."""
        said = {"intended_use": self.shown.intended_use, "attribute_definition": self.shown.attribute_definition}
        if form == "json":
            write_json(path, shareable(self.result, mask_below=self.shown.mask_below))
        elif form == "pdf":
            write_pdf(self.page(most_scatters=_SCATTERS_ON_PAPER, **said), path, engine=engine)
        elif form == "csv":
            write_text(path, safe_csv(self.result.to_frame()))
        else:
            write_text(
                path,
                self.page(**said)
                if form == "html"
                else model_card(self.result, mask_below=self.shown.mask_below, **said),
            )

    def page(self, **options: Any) -> str:
        """Render the page."""
        responses = read_responses(self.source / "responses.parquet")
        responses = responses[responses["attribute"] == self.attribute]
        below = self.shown.mask_below
        return render(self.result, responses=responses, gallery=self.pictures, mask_below=below, **options)
