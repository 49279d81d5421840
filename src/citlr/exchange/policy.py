"""The gate of a release: a policy in plain terms, one line per breach, JUnit and Markdown for the pipeline."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from citlr.audit.results.result import AuditResult, TestRow, Verdict
from citlr.checks import Check, failed
from citlr.config import Section, parse_section, read_yaml
from citlr.errors import InputError, require_known
from citlr.exchange.comparison import differing, key_of
from citlr.report.card import grid
from citlr.report.card import junit as as_junit
from citlr.run.files import atomic_write, write_text
from citlr.text import beside, markdown, shortened, visible
from citlr.values import ByForm, CountOrNone, Flag, Listed, Name, Names, Number, One, PerName, Share

Limit = Annotated[Number, Field(gt=0, le=1)]
Limits = Annotated[Annotated[Limit, One] | Annotated[dict[Name, Limit], PerName, Field(min_length=1)], ByForm]
Gates = Annotated[Annotated[Flag, One] | Annotated[Names, Listed], ByForm]


class Policy(Section):
    """What a release has to meet.

    `margin` bounds the two-sided intervals of psi and of the mean effect (one number, or one per label); `fail_on` the
    verdicts that stop a release; `min_patients` the fewest test patients at any level; `require_gates` whether every
    generator gate has to be passed (a waived one is not), or a list of those that have to; `max_increase` how much psi
    and the size of the mean effect may exceed the baseline's.
    """

    margin: Limits | None = None
    fail_on: tuple[Verdict, ...] = ("dependence",)
    min_patients: CountOrNone = 0
    require_gates: Gates = True
    max_increase: Share | None = None


@dataclass(frozen=True)
class Rule(Check):
    """One rule, by name, for one model and what it is about."""

    model: str
    subject: str


@dataclass(frozen=True)
class CheckReport:
    """Every rule that was looked at, and notes on what no rule is about."""

    checks: tuple[Rule, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there is no breach."""
        return not self.breaches

    @property
    def breaches(self) -> tuple[Rule, ...]:
        """The rules that are not met."""
        return failed(self.checks)

    def __str__(self) -> str:
        """One line per breach, or that there is none."""
        if self.passed:
            return f"passed: {len(self.checks)} rules met"
        return visible("\n".join(f"breach: {rule.model}: {rule.text}" for rule in self.breaches))

    def to_markdown(self) -> str:
        """Return a summary in GitHub-flavoured Markdown."""
        title = "passed" if self.passed else f"{len(self.breaches)} of {len(self.checks)} rules are breached"
        lines = [f"## citlr: {title}", "", *grid(self.checks, ("model", "rule", "for"), _about)]
        lines += [line for note in self.notes for line in ("", markdown(note))]
        return "\n".join(lines) + "\n"

    def to_junit(self) -> bytes:
        """Return JUnit XML, one test case per rule."""
        return as_junit(self.checks, _about)

    def write(self, *, junit: Path | None = None, markdown: Path | None = None) -> None:
        """Write the machine's and the reviewer's copy, where a path is given."""
        if junit is not None:
            with atomic_write(junit) as temporary:
                temporary.write_bytes(self.to_junit())
        if markdown is not None:
            write_text(markdown, self.to_markdown())


def _about(rule: Rule) -> tuple[str, ...]:
    return rule.model, rule.name, rule.subject


def read_policy(path: str | Path) -> Policy:
    """Read a policy from YAML."""
    content = read_yaml(path, Policy, "policy")
    if not content:
        raise InputError(
            f"'{shortened(str(path))}' holds no rule, as a file that was cut off: write the rules of "
            "docs/release-gate.md, or leave --policy out for the defaults."
        )
    return parse_section(Policy, content, f"In '{shortened(str(path))}'")


def check_policy(
    results: dict[str, AuditResult], policy: Policy, *, baseline: dict[str, AuditResult] | None = None
) -> CheckReport:
    """Hold every model's audit against the policy."""
    for name, result in results.items():
        if not result.tests:
            raise InputError(f"The audit of '{name}' holds no test, so no rule can be met: give a finished audit.")
    _require_known_labels(results, policy)
    if policy.max_increase is not None and baseline is None:
        raise InputError("The policy sets max_increase, and there is no baseline: give --baseline OLD_RUN.")
    rules: list[Rule] = []
    for name, result in results.items():
        rules += _gates(name, result, policy.require_gates)
        rules += _patients(name, result, policy)
        for row in result.tests:
            rules += _of_row(name, row, policy, result.alpha)
            if baseline is not None and policy.max_increase is not None:
                older = {one: baseline[one] for one in _older(name, results, baseline)}
                rules.append(_increase(name, result, row, older, policy.max_increase))
    rules += _left_out(results, baseline or {})
    return CheckReport(tuple(rules))


def _require_known_labels(results: dict[str, AuditResult], policy: Policy) -> None:
    known = {row.label for result in results.values() for row in result.tests}
    named = policy.margin if isinstance(policy.margin, dict) else dict.fromkeys(known)
    for label in named:
        require_known(label, known, f"The policy names the label '{label}', which was not audited")
    for label in sorted(known):
        if label not in named:
            raise InputError(
                f"The policy's margin names no number for '{label}': name every label, or give one number."
            )


def _of_row(name: str, row: TestRow, policy: Policy, alpha: float) -> list[Rule]:
    subject = subject_of(row)
    allowed = row.verdict not in policy.fail_on
    rules = [Rule("verdict", None, None, allowed, f"{subject} is '{row.verdict}'", name, subject)]
    margin = policy.margin.get(row.label) if isinstance(policy.margin, dict) else policy.margin
    if margin is not None:
        # `np.maximum` and the comparison are such that a bound that is not a number fails; `max` would drop it.
        shift = float(np.maximum(-row.mean_effect.low, row.mean_effect.high))
        size, what = _size(row.psi.high, row)
        within = size < margin and shift < margin
        text = (
            f"{subject}: by the two-sided {100 * (1 - alpha):g} % intervals {what} may be up to "
            f"{beside(size, margin, 4)} and the mean effect up to {beside(shift, margin, 4)} in size, the margin is "
            f"{margin:g}"
        )
        if not within and row.verdict == "equivalent" and row.margin <= margin:
            text += f" ('equivalent' within {row.margin:g} is by one-sided tests at {alpha:g}, which ask for less)"
        rules.append(Rule("margin", float(np.maximum(size, shift)), margin, within, text, name, subject))
    return rules


def _size(psi: float, row: TestRow) -> tuple[float, str]:
    """Give psi on the margin's scale: of probabilities, whose psi is a mean square, its root."""
    return (psi, "psi") if row.outcome == "decision" else (max(psi, 0.0) ** 0.5, "the root of psi")


def _gates(name: str, result: AuditResult, required: bool | tuple[str, ...]) -> list[Rule]:
    """Look at every gate, or at those that are named; an audit without gates has passed none."""
    gates = {gate.name: gate for gate in result.quality.gates}
    if isinstance(required, tuple):
        for one in required:
            require_known(one, gates, f"The policy requires the gate '{one}', which the audit of '{name}' has not")
        named = [gates[one] for one in required]
        return [
            Rule(
                "gates", gate.value, gate.limit, bool(gate.passed), f"gate '{gate.name}': {gate.text}", name, gate.name
            )
            for gate in named
        ]
    if not required:
        return []
    wrong = [gate.name for gate in failed(gates.values())]
    amiss = {"failed": wrong, "waived": result.waived}
    text = "; ".join(f"gates {how}: {', '.join(which)}" for how, which in amiss.items() if which)
    text = text or "all generator gates passed"
    text = text if gates else "no generator gate was set"
    text = text if not result.condition else f"no generator gate was measured: {result.condition}"
    met = result.gates_passed and bool(gates) and not result.condition
    return [Rule("gates", None, None, met, text, name, "generator")]


def _patients(name: str, result: AuditResult, policy: Policy) -> list[Rule]:
    """Look at every level that is tested: one that nobody counted has no patients, as far as is known."""
    fewest = policy.min_patients
    whole = [cell for cell in result.cohort.counts if cell["split"] == "test" and cell.get("value") == "all"]
    found = {str(cell["level"]): cell["patients"] for cell in whole if not cell.get("label")}
    rules = []
    for level in sorted({level for row in result.tests for level in row.contrast}) if fewest else ():
        count = found.get(level)
        text = f"level '{level}' has {count} test patients, {fewest} are needed"
        if count is None and level in found:
            text = f"level '{level}' has a masked count of test patients, taken for fewer than the {fewest} needed"
        elif count is None:
            text = f"level '{level}' is not recorded of any test patient, {fewest} are needed"
        rules.append(Rule("patients", count, fewest, count is not None and count >= fewest, text, name, level))
    return rules


def _older(name: str, results: Collection[str], baseline: Collection[str]) -> list[str]:
    """Name the model of the baseline: the same, or the only one under another name, unless that is here itself."""
    return [one for one in baseline if one == name or (len(baseline) == 1 and one not in results)]


def _increase(name: str, result: AuditResult, row: TestRow, baseline: dict[str, AuditResult], allowed: float) -> Rule:
    subject = subject_of(row)
    before, old = next(iter(baseline.items()), ("", None))
    same = [other for other in old.tests if key_of(other) == key_of(row)] if old else []
    if old is None or not same:
        text = f"{subject} is not in the baseline run: nothing to compare with"
        return Rule("baseline", None, allowed, False, text, name, subject)
    named = [] if before == name else [f"model {name} and {before}"]
    settings = differing(result, old, row, same[0])
    others = ", ".join([*named, *settings])
    text = ""
    if same[0].outcome != row.outcome:
        text = f"{subject} is about each {row.outcome}, the baseline about each {same[0].outcome}: nothing to compare"
    elif any(one.startswith("threshold ") for one in settings):
        text = f"{subject} is about other decisions than the baseline ({others}): nothing to compare"
    if text:
        return Rule("baseline", None, allowed, False, text, name, subject)
    size, what = _size(row.psi.estimate, row)
    rise = size - _size(same[0].psi.estimate, row)[0]
    further = abs(row.mean_effect.estimate) - abs(same[0].mean_effect.estimate)
    text = (
        f"{subject}: {what} is {size:.4f}, {beside(rise, allowed, 4, '+f')} against the baseline, and the size of "
        f"the mean effect {abs(row.mean_effect.estimate):.4f}, {beside(further, allowed, 4, '+f')}; {allowed:g} more "
        f"is allowed{f' (here and in the baseline: {others})' if others else ''}"
    )
    met = rise <= allowed and further <= allowed
    return Rule("baseline", max(rise, further), allowed, met, text, name, subject)


def _left_out(results: dict[str, AuditResult], baseline: dict[str, AuditResult]) -> list[Rule]:
    """Look at all that the baseline tested: what is no longer audited cannot fail, and would pass by that."""
    rules = []
    for before, old in baseline.items():
        held = [name for name in results if before in _older(name, results, baseline)]
        text = f"all that was tested of '{before}' in the baseline is tested"
        if not held:
            text = f"'{before}' is in the baseline and was not audited: audit it, or give --baseline OLD_RUN:MODEL"
        tested = {key_of(row) for name in held for row in results[name].tests}
        alone = [subject_of(row) for row in old.tests if key_of(row) not in tested] if held else []
        if alone:
            text = f"tested in the baseline and not here: {'; '.join(alone)}"
        name = held[0] if held else before
        rules.append(Rule("coverage", len(alone), 0, bool(held) and not alone, text, name, "baseline"))
    return rules


def subject_of(row: TestRow) -> str:
    """Name a row: label, attribute and contrast."""
    return f"{row.label}, {row.attribute} {row.contrast[1]} against {row.contrast[0]}"
