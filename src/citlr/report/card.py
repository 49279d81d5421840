"""The audit as a section of a model card, in Markdown; checks as people read them outside the page."""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence

from citlr.audit.privacy import without_paths
from citlr.audit.results.curves import largest_change
from citlr.audit.results.result import AuditResult, Estimate
from citlr.checks import Checks, failed
from citlr.report import numerals, tables, wording
from citlr.report.charts.geometry import contrast_text
from citlr.report.sections import accuracy as report_accuracy
from citlr.report.sections import provenance as report_provenance
from citlr.report.sections.controls import limit_of_detection
from citlr.text import joined, markdown, markdown_table, visible
from citlr.version import __version__

_OUTCOMES = {True: "passed", False: "**failed**", None: "**waived**"}


def grid(checks: Iterable[Checks], head: Sequence[str], about: Callable[[Checks], tuple[str, ...]]) -> list[str]:
    """Write checks as a table in Markdown, failed ones first; `about` says what each is about, below `head`."""
    rows = [
        f"| {'✅' if check.passed else '❌'} | {' | '.join(markdown(cell) for cell in (*about(check), check.text))} |"
        for check in sorted(checks, key=lambda check: bool(check.passed))
    ]
    return [f"| | {' | '.join(head)} | finding |", "|" + "---|" * (len(head) + 2), *rows]


def junit(checks: Sequence[Checks], about: Callable[[Checks], tuple[str, ...]]) -> bytes:
    """Write checks as JUnit XML, one test case each; the first of what it is `about` is its class."""
    suite = ET.Element("testsuite", name="citlr", tests=str(len(checks)), failures=str(len(failed(checks))))
    for check in checks:
        group, *name = about(check)
        case = ET.SubElement(suite, "testcase", classname=visible(group), name=visible(": ".join(name)))
        if check.passed is False:
            ET.SubElement(case, "failure", message=visible(check.text)).text = visible(check.text)
    return bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True))


def model_card(
    result: AuditResult, *, intended_use: str = "", attribute_definition: str = "", mask_below: int = 5
) -> str:
    """Write what a reader of a model card has to know, with its grounds and limits."""
    attribute = joined(wording.attributes(result), "or") or "the attribute"
    safe = markdown
    lines = [
        f"## Counterfactual invariance: does the output depend on {safe(attribute)}?",
        "",
        f"**{wording.TITLES[result.verdict]}.** {safe(wording.headline(result))}",
        "",
        *([safe(result.condition), ""] if result.condition else []),
        "*Evidence, not certification: one audit of one model on one cohort, with the assumptions of its report.*",
        "",
        *_test_set(result),
        *_effects(result),
        *_doses(result),
        *_accuracy(result, mask_below),
        "### What the verdicts rest on",
        "",
        *_gates(result),
        *([f"- {safe(result.quality.left_alone)}"] if result.quality.left_alone else []),
        f"- {safe(limit_of_detection(result))}",
        f"- {safe(report_provenance.model_run(result))}",
        *([f"- Intended use, as declared: {safe(intended_use)}"] if intended_use else []),
        f"- Definition of {safe(attribute)}, as declared: {safe(attribute_definition) or 'none was given'}",
        "",
        "### What they do not say",
        "",
        "- That the model is right, or fair: one that does not depend on an attribute can be wrong for everyone.",
        "- Anything beyond this model version, this kind of image, and what the image generator can redraw.",
        "",
        f"Made by citlr {__version__}; the whole report, its settings and hashes are in audit.html and audit.json.",
    ]
    return "\n".join(lines) + "\n"


def _test_set(result: AuditResult) -> list[str]:
    if not result.tests:
        return []
    images, patients = (max(getattr(row, name) for row in result.tests) for name in ("n_images", "n_patients"))
    margins = joined(dict.fromkeys(numerals.margin(row.margin) for row in result.tests))
    count = numerals.count
    return [f"Test set: {count(images)} images of {count(patients)} patients; margin {margins}.", ""]


def _effects(result: AuditResult) -> list[str]:
    if not result.tests:
        return []
    head = ["label", "redrawn as", "verdict", "psi", "mean effect", "adjusted p"]
    rows = []
    for row in result.tests:
        cells = [row.label, contrast_text(row.contrast), row.verdict, _interval(row.psi), _interval(row.mean_effect)]
        adjusted = numerals.pvalue(row.pvalue_adjusted) if numerals.is_number(row.pvalue_adjusted) else "n/a"
        rows.append([*cells, adjusted])
    intervals = f"Intervals: {wording.level_percent(result.alpha)}, clustered by patient."
    return [markdown_table(head, rows), "", intervals, ""]


def _doses(result: AuditResult) -> list[str]:
    if not len(result.dose_response):
        return []
    rows = [
        [curve.label, curve.outcome, one.level, numerals.percent(one.output), _interval(one.change)]
        for curve in result.dose_response
        for one in curve.points
    ]
    table = markdown_table(["label", "outcome", "redrawn at", "mean", "change from the lowest value"], rows)
    said = [markdown(largest_change(one)) for one in result.dose_response if one.outcome == result.tests[0].outcome]
    bands = "Bands hold for all values at once, and the largest change for all pairs."
    return ["### Dose-response", "", table, "", bands, "", *said, ""]


def _accuracy(result: AuditResult, below: int) -> list[str]:
    accuracy = report_accuracy.masked(result, below=below)
    lines = ["### How accurate the model is, by recorded group", ""]
    if accuracy is None:
        return [*lines, report_accuracy.MISSING, ""]
    if accuracy.groups:
        head, *rows = report_accuracy.card_rows(accuracy)
        confidence = wording.level_percent(result.alpha)
        lines += [markdown_table(head, rows), ""]
        lines += [f"On the images as they came; {confidence} intervals, clustered by patient."]
    return [*lines, *(markdown(note) for note in accuracy.notes), ""]


def _interval(estimate: Estimate) -> str:
    if not numerals.is_number(estimate.estimate):
        return "n/a"
    cell = tables.estimate(estimate, "")
    return f"{cell.text} ({cell.detail})"


def _gates(result: AuditResult) -> list[str]:
    if not result.quality.gates:
        return ["- No gate was set: the verdicts assume a faithful generator."]
    return [
        # Without the paths of this machine.
        f"- Gate {markdown(gate.name)}: {_OUTCOMES[gate.passed]}. {markdown(without_paths(gate.text))}"
        for gate in result.quality.gates
    ]
