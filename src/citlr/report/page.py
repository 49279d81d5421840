"""The page that is filed: one self-contained HTML file that loads nothing, verdict first, with its grounds."""

import base64
import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from citlr.audit.privacy import without_paths
from citlr.audit.results.curves import largest_change
from citlr.audit.results.result import AuditResult, TestRow
from citlr.checks import failed
from citlr.errors import InputError
from citlr.invariance.tables import with_nearest
from citlr.report import guidance, numerals, wording
from citlr.report.charts import geometry as charts
from citlr.report.charts.gallery import Gallery, encode
from citlr.report.charts.scatters import Scatter, dose_panels, paired, scatter
from citlr.report.guidance import plain_words
from citlr.report.sections import accuracy as report_accuracy
from citlr.report.sections import cohort as report_cohort
from citlr.report.sections import controls as report_controls
from citlr.report.sections import effects as report_effects
from citlr.report.sections import gates as report_gates
from citlr.report.sections import provenance as report_provenance
from citlr.report.sections import quality as report_quality
from citlr.report.sections import subgroups as report_subgroups
from citlr.run.files import write_text
from citlr.text import joined, listed, visible
from citlr.version import __version__

# The templates of the page in their order, and what the contents call the sections of each, by id. A section that its
# template leaves out is not listed.
PARTS: dict[str, dict[str, str]] = {
    "verdict": {"verdict": "Verdict"},
    "effects": {"effects": "Effects", "subgroups": "Subgroups", "accuracy": "Accuracy"},
    "pictures": {"images": "Images", "predictions": "Predictions"},
    "trust": {"gates": "Gates", "controls": "Controls", "baselines": "Associations"},
    "cohort": {"cohort": "Cohort", "attribute": "Attribute"},
    "method": {"question": "The test", "limits": "Limits"},
    "provenance": {"guidance": "Guidance", "provenance": "Provenance"},
}
_SHOWN_SCATTERS = 6  # the weightiest; the others open on demand
_COLUMNS = ("image_id", "attribute", "level", "draw", "label", "probability")


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """Return the templates, autoescaped, with the page's own filters."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("citlr.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=numerals.percent,
        pvalue=numerals.pvalue,
        count=numerals.count,
        private=without_paths,
        commands=_commands,
    )
    environment.globals["titles"] = wording.TITLES
    return environment


def _commands(sentence: str) -> Markup:
    """Mark what stands between backticks, a command or an option, as code."""
    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(sentence))))


def fill(template: str, **context: Any) -> str:
    """Return a page; a name that would turn its line around, or hide a part of it, is shown with its escapes."""
    return visible(environment().get_template(template).render(context))


def _asset(name: str) -> Markup:
    """Read a file of our own that goes into the page as it is."""
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))


def drawing_rules() -> str:
    """Return the part of the style sheet that is about drawings."""
    return str(_asset("svg.css"))


def stylesheet() -> Markup:
    """Return the style sheet of every page."""
    return _asset("page.css") + _asset("svg.css")


def table_script() -> Markup:
    """Return the one script of every page: it makes tables sortable, and opens what is folded for print."""
    return _asset("page.js")


def script_hash() -> str:
    """Return the script's SHA-256 as a content security policy wants it."""
    return base64.b64encode(hashlib.sha256(table_script().encode()).digest()).decode("ascii")


def render(
    result: AuditResult,
    *,
    responses: pd.DataFrame | None = None,
    gallery: Gallery | None = None,
    mask_below: int = 5,
    intended_use: str = "",
    attribute_definition: str = "",
    most_scatters: int | None = None,
) -> str:
    """Write the page of an audit.

    The same arguments give the same page, byte for byte. It loads nothing (a content security policy forbids it) and
    works without scripts; the one script makes tables sortable. No identifier, path or free text of the data is in it.
    """
    if mask_below < 1:
        raise InputError(
            f"mask_below is {mask_below}: give the smallest number of patients a shown cell may have, 1 or more."
        )
    measured = bool(result.accuracy and result.accuracy.groups)
    context: dict[str, Any] = {
        "result": result,
        "parts": PARTS,
        "version": __version__,
        "style": stylesheet(),
        "script": table_script(),
        "script_hash": script_hash(),
        "question": wording.question(result),
        "attribute": joined(wording.attributes(result)) or "the attribute",
        "confidence": wording.level_percent(result.alpha),
        "headline": wording.headline(result),
        "plain": plain_words(result),
        "findings": wording.findings(result),
        "failed": failed(result.quality.gates),
        "facts": _facts(result),
        "date": report_provenance.date(result),
        "forest": charts.forest(result.tests),
        "effects": report_effects.effects_table(result),
        "details": report_effects.details_table(result),
        "omnibus": report_effects.omnibus_table(result),
        "curves": dose_panels(result),
        "curves_table": report_effects.dose_table(result),
        "largest": tuple(largest_change(one) for one in result.dose_response if one.outcome == result.tests[0].outcome),
        "qq": charts.qq(result.tests),
        "scatters": _scatters(result, responses)[:most_scatters],
        "shown_scatters": _SHOWN_SCATTERS,
        "has_responses": responses is not None,
        "gallery": encode(gallery) if gallery is not None and gallery.strips else None,
        "gates": report_gates.gates_table(result),
        "attenuation": report_gates.attenuation(result),
        "carried": report_gates.carried_table(result),
        "curve": report_gates.curve_table(result),
        "agreement": report_gates.agreement_table(result),
        "unexplained": report_gates.unexplained_table(result),
        "quality": report_quality.quality_table(result),
        "quality_notes": tuple(
            without_paths(note) for note in (*result.quality.notes, result.quality.left_alone) if note
        ),
        "planted": report_controls.planted_table(result),
        "doses": charts.dose_response(result),
        "generator_error": report_controls.generator_error(result),
        "detection": report_controls.limit_of_detection(result),
        "control_notes": tuple(without_paths(note) for note in result.controls.notes),
        "baselines": report_effects.baselines_table(result),
        "flow": report_cohort.flow(result, below=mask_below),
        "counts": report_cohort.counts(result, below=mask_below) if result.cohort.counts else (),
        "mask_below": mask_below,
        "missing": report_cohort.missing(result, below=mask_below),
        "attribute_levels": report_cohort.levels(result, below=mask_below),
        "attribute_column": report_cohort.column(result),
        "raw_values": report_cohort.raw_values(result, below=mask_below),
        "intended_use": intended_use,
        "attribute_definition": attribute_definition,
        "subgroups": report_subgroups.parts_tables(result, below=mask_below),
        "reshuffle": report_effects.reshuffle(result),
        "across": report_effects.across(result),
        "size": "The root of psi" if any(row.outcome == "probability" for row in result.tests) else "Psi",
        "model_run": report_provenance.model_run(result),
        "guidance": guidance.items(accuracy=measured),
        "answered": guidance.by_section(accuracy=measured),
        **_accuracy(result, mask_below),
        "stages": report_provenance.stages(result),
        "changes": report_provenance.changes(result),
        "blocks": report_provenance.blocks(result),
        "is_number": numerals.is_number,
    }
    return fill("report.html.j2", **context)


def write_report(path: str | os.PathLike[str], result: AuditResult, **options: Any) -> Path:
    """Render the page, with the options of `render`, and write it atomically; return its path."""
    write_text(path, render(result, **options))
    return Path(path)


def _accuracy(result: AuditResult, below: int) -> dict[str, Any]:
    """Give the section of accuracy by group what it shows."""
    accuracy = report_accuracy.masked(result, below=below)
    if accuracy is None:
        return {"accuracy_groups": None, "accuracy_differences": None, "accuracy_notes": (report_accuracy.MISSING,)}
    return {
        "accuracy_groups": report_accuracy.groups_table(result, accuracy),
        "accuracy_differences": report_accuracy.differences_table(result, accuracy),
        "accuracy_notes": (*accuracy.notes, *report_accuracy.without_interval(accuracy)),
    }


def _facts(result: AuditResult) -> tuple[tuple[str, str], ...]:
    """List the frame of the audit in a few words."""
    tests = result.tests
    if not tests:
        return (("Model", result.model),)
    levels = dict.fromkeys(level for row in tests for level in row.contrast)
    labels = dict.fromkeys(row.label for row in tests)
    images, patients = max(row.n_images for row in tests), max(row.n_patients for row in tests)
    return (
        ("Model", result.model),
        ("Attribute", f"{joined(wording.attributes(result))}: {listed(levels)}"),
        ("Labels", str(len(labels))),
        ("Test set", f"{numerals.count(images)} images, {numerals.count(patients)} patients"),
        ("Redrawn", _draws(tests)),
        ("Outcome", joined(dict.fromkeys(row.outcome for row in tests))),
        ("Margin", joined(dict.fromkeys(numerals.margin(row.margin) for row in tests))),
        (
            "Error rate",
            f"{numerals.margin(result.alpha)}: dependence by Holm over {len(tests)} "
            f"{'test' if len(tests) == 1 else 'tests'}, equivalence of each by itself",
        ),
    )


def _draws(tests: tuple[TestRow, ...]) -> str:
    draws = sorted({row.draws for row in tests})
    return f"{' to '.join(str(number) for number in dict.fromkeys((draws[0], draws[-1])))} times per level"


def _scatters(result: AuditResult, responses: pd.DataFrame | None) -> tuple[Scatter, ...]:
    """Lay out one panel per test, the smallest adjusted p first."""
    if responses is None:
        return ()
    lacking = [name for name in _COLUMNS if name not in responses.columns]
    if lacking:
        raise InputError(f"The responses lack the column '{lacking[0]}': they need {', '.join(_COLUMNS)}.")
    if len(result.dose_response):
        responses = with_nearest(responses, [one.level for one in result.dose_response.curves[0].points])
    tables = paired(responses)
    panels = []
    for row in sorted(
        result.tests, key=lambda row: row.pvalue_adjusted if numerals.is_number(row.pvalue_adjusted) else 2.0
    ):
        table = tables.get((row.attribute, row.label))
        levels = tuple(
            dict.fromkeys(x for test in result.tests if test.attribute == row.attribute for x in test.contrast)
        )
        panel = None
        if table is not None:
            panel = scatter(table, row, levels=(*levels, "unknown"), threshold=result.threshold(row.label))
        if panel is not None:
            panels.append(panel)
    return tuple(panels)
