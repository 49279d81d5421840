"""The verdict in plain words: one headline for the audit, one sentence for every label."""

from dataclasses import dataclass

from citlr.audit.results.records import About
from citlr.audit.results.result import SEVERITY, AuditResult, Estimate, Gate, TestRow, Verdict
from citlr.checks import failed
from citlr.report import numerals
from citlr.report.numerals import NARROW, is_number, percent, points
from citlr.text import joined

TITLES: dict[Verdict, str] = {
    "dependence": "Dependence",
    "inconclusive": "Inconclusive",
    "equivalent": "Equivalent within the margin",
}


@dataclass(frozen=True)
class Finding:
    """What the audit says about one label: the contrast that weighs most, in a sentence, and the rest in a clause."""

    label: str
    attribute: str
    verdict: Verdict
    sentence: str
    rest: str


def level_percent(alpha: float) -> str:
    """Write the confidence level that goes with an error rate (95 %)."""
    return f"{100 * (1 - alpha):g}{NARROW}%"


def attributes(result: AuditResult) -> tuple[str, ...]:
    """List the attributes that were tested, in order."""
    return tuple(dict.fromkeys(row.attribute for row in result.tests))


def interval(estimate: Estimate, alpha: float) -> str:
    """Write the interval of a share in brackets, or say that it is not bounded."""
    if not (is_number(estimate.low) and is_number(estimate.high)):
        return f"no {level_percent(alpha)} interval could be computed"
    return f"{level_percent(alpha)} interval {percent(estimate.low)} to {percent(estimate.high)}"


def question(result: AuditResult) -> str:
    """Ask the audit's question."""
    return f"Does {result.model} depend on {joined(attributes(result), 'or') or 'the attribute'}?"


def headline(result: AuditResult) -> str:
    """Answer the audit's question in one sentence."""
    findings = weightiest(result)
    total = len(findings)
    dependent = [row for row in findings if row.verdict == "dependence"]
    attribute = joined(attributes(result)) or "the attribute"
    if not result.tests:
        return "No test was run, so there is no verdict."
    if result.verdict == "dependence":
        of = "the one label tested" if total == 1 else f"{len(dependent)} of {total} labels"
        return f"Yes. For {of}, the model’s {_outcome(dependent)} depends on {attribute} beyond the rest of the image."
    if result.verdict == "equivalent":
        margins = sorted({row.margin for row in result.tests})
        within = joined(numerals.margin(margin) for margin in margins)
        return f"No, within the margin of {within}: the effect of {attribute} is shown to be smaller than that."
    failing = failed(result.quality.gates)
    if failing:
        names = joined(gate.name for gate in failing)
        gates = f"the gate “{names}”" if len(failing) == 1 else f"{len(failing)} gates ({names})"
        return f"No verdict: {_who(failing)} failed {gates}, so {_what(failing)} cannot carry a conclusion."
    settled = sum(row.verdict == "equivalent" for row in findings)
    clause = f" {settled} of {total} labels are equivalent." if settled else ""
    shown = any(is_number(row.pvalue_adjusted) and row.pvalue_adjusted < result.alpha for row in findings)
    if shown:
        return f"Not settled: redrawn images show an effect of {attribute}, which carries no verdict.{clause}"
    return f"Not settled: the data neither show a dependence on {attribute} nor rule one out.{clause}"


def _outcome(rows: list[TestRow]) -> str:
    return "decision" if all(row.outcome == "decision" for row in rows) else "output"


def weightiest(result: AuditResult) -> list[TestRow]:
    """Give, for every attribute and label, the contrast that weighs most."""
    return [rows[0] for _, rows in _by_label(result)]


def _by_label(result: AuditResult) -> list[tuple[tuple[str, str], list[TestRow]]]:
    """Group the tests by attribute and label, the weightiest contrast first."""
    groups: dict[tuple[str, str], list[TestRow]] = {}
    for row in result.tests:
        groups.setdefault((row.attribute, row.label), []).append(row)
    return [(key, sorted(rows, key=weight)) for key, rows in groups.items()]


def weight(row: TestRow) -> tuple[int, float, float]:
    """Order rows, the weightiest first: by verdict, p, and size, as randomisations give many the same smallest p."""
    adjusted = row.pvalue_adjusted if is_number(row.pvalue_adjusted) else 2.0
    return (-SEVERITY.index(row.verdict), adjusted, -row.psi.estimate if is_number(row.psi.estimate) else 0.0)


def findings(result: AuditResult) -> tuple[Finding, ...]:
    """Say, for every attribute and label, what was found; the gravest verdicts first, then the given order."""
    failing = failed(result.quality.gates)
    found: list[Finding] = []
    told: set[tuple[Gate, ...]] = set()
    for (attribute, label), rows in sorted(_by_label(result), key=lambda one: -SEVERITY.index(one[1][0].verdict)):
        row = rows[0]
        own = tuple(gate for gate in failing if gate.concerns(row))
        said = _sentence(row, own, result.alpha, again=own in told)
        found.append(Finding(label, attribute, row.verdict, said, _rest(rows)))
        # A verdict that a loose `audit.json` gives beside a failed gate names none.
        told |= {own} if row.verdict == "inconclusive" else set()
    return tuple(found)


def _rest(rows: list[TestRow]) -> str:
    """Say how the other contrasts of the label came out."""
    others = rows[1:]
    if not others:
        return ""
    counts = {verdict: sum(row.verdict == verdict for row in others) for verdict in reversed(SEVERITY)}
    parts = [f"{number} {verdict}" for verdict, number in counts.items() if number]
    which = "The other contrast is" if len(others) == 1 else f"The other {len(others)} contrasts:"
    return f"{which} {others[0].verdict}." if len(others) == 1 else f"{which} {joined(parts)}."


def _sentence(row: TestRow, failing: tuple[Gate, ...], alpha: float, *, again: bool) -> str:
    """Say what was found; what the gates that fail have measured is not said `again` of the next label."""
    if row.verdict == "dependence":
        return f"The model’s {row.outcome} on {row.label} depends on {row.attribute}: {measured(row, alpha)}."
    if row.verdict == "equivalent":
        return (
            f"The model’s {row.outcome} on {row.label} is equivalent across {row.attribute} within the margin of "
            f"{numerals.margin(row.margin)}: {measured(row, alpha)}."
        )
    if failing:
        why = _gates(failing, again=again)
        return f"No verdict on {row.label}: {why}. For the record only: {measured(row, alpha)}."
    opening = f"Whether the {row.outcome} on {row.label} depends on {row.attribute} is not settled"
    if not is_number(row.psi.estimate):
        return f"{opening}: {measured(row, alpha)}."
    return f"{opening}: {measured(row, alpha)}; {_why_open(row, alpha)}."


def _gates(failing: tuple[Gate, ...], *, again: bool) -> str:
    """Name the failed gates, and say what was measured where it is one."""
    names = joined(f"“{gate.name}”" for gate in failing)
    if len(failing) > 1:
        return f"{_who(failing)} failed the gates {names}"
    why = "" if again else failing[0].text.rstrip(". ")
    return f"{_who(failing)} failed the gate {names}{f' ({why})' if why else ''}"


# What a gate is about: who failed it, and what can then carry no conclusion.
_SUBJECTS: dict[About, tuple[str, str]] = {
    "generator": ("the image generator", "its images"),
    "model": ("the model’s answers", "the redrawn images"),
    "cohort": ("the cohort", "its patients"),
}


def _who(failing: tuple[Gate, ...]) -> str:
    found = {_SUBJECTS[gate.about][0] for gate in failing}
    return found.pop() if len(found) == 1 else "the audit"


def _what(failing: tuple[Gate, ...]) -> str:
    found = {_SUBJECTS[gate.about][1] for gate in failing}
    return found.pop() if len(found) == 1 else "it"


def measured(row: TestRow, alpha: float) -> str:
    """Say what redrawing the images did, in one clause, with its interval and p-value."""
    base, other = row.contrast
    lead = f"redrawing an image as {other} instead of {base}"
    evidence = f"{interval(row.psi, alpha)}; {_adjusted(row)}"
    if not is_number(row.psi.estimate):
        return f"the effect of {lead} could not be computed ({row.reason.rstrip('. ') or 'no reason was recorded'})"
    if row.outcome == "decision":
        return f"{lead} {_flips(row)} ({evidence}){_shift(row, 'positive decisions')}"
    # psi is a mean squared change of a probability: its root is in the units of the probability itself.
    spread = points(max(row.psi.estimate, 0.0) ** 0.5)
    return (
        f"{lead} moves the predicted probability by {spread} (root mean square, beyond the generator’s own noise; "
        f"squared: {evidence}){_shift(row, 'the probability')}"
    )


def _flips(row: TestRow) -> str:
    if row.psi.estimate == 0:
        return "flips no more decisions than redrawing alone does"
    more = "more" if row.psi.estimate > 0 else "fewer"
    return f"flips {percent(abs(row.psi.estimate))} {more} of the decisions than redrawing alone does"


def _shift(row: TestRow, what: str) -> str:
    effect = row.mean_effect.estimate
    if not is_number(effect):
        return ""
    if abs(effect) < 5e-5:
        return (
            f", and leaves {what} where they are on average"
            if what.endswith("s")
            else ", and leaves its mean unchanged"
        )
    return f", and {'raises' if effect > 0 else 'lowers'} {what} by {points(effect)} on average"


def _adjusted(row: TestRow) -> str:
    if not is_number(row.pvalue_adjusted):
        return "no p-value could be computed"
    shown = numerals.pvalue(row.pvalue_adjusted)
    return f"adjusted p {'' if shown.startswith('below') else '= '}{shown}"


def _why_open(row: TestRow, alpha: float) -> str:
    """Say why a row without a failed gate is inconclusive."""
    if is_number(row.pvalue_adjusted) and row.pvalue_adjusted < alpha and row.reason:
        return row.reason.removeprefix(f"{row.label}, {row.contrast[0]} against {row.contrast[1]}: ").rstrip(". ")
    margin, size = numerals.margin(row.margin), "psi" if row.outcome == "decision" else "the root of psi"
    reaches = [
        name
        for name, beyond in (
            (size, is_number(row.psi.high) and row.psi.high >= row.psi_margin),
            ("the mean effect", _outside(row.mean_effect, row.margin)),
        )
        if beyond
    ]
    intervals = "the intervals of {} reach" if len(reaches) > 1 else "the interval of {} reaches"
    why = f"{intervals.format(joined(reaches))} the margin of {margin}" if reaches else row.reason.rstrip(". ")
    why = why or f"equivalence within {margin} is not shown"
    if is_number(row.detectable_effect):
        return f"{why}, and a psi under {percent(row.detectable_effect)} could have been missed"
    return why


def _outside(estimate: Estimate, margin: float) -> bool:
    return is_number(estimate.low) and is_number(estimate.high) and max(-estimate.low, estimate.high) >= margin
