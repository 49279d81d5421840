"""The gates of an audit: a new one is a function in a file of its own, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from citlr.audit.gates.answers import gate_agreement, gate_unexplained
from citlr.audit.gates.draws import gate_draws
from citlr.audit.gates.images import (
    gate_composition,
    gate_difference_left,
    gate_drift,
    gate_effectiveness,
    gate_own_patient,
    gate_placebo,
    gate_put_back,
)
from citlr.audit.results.records import WITHHELD, About, Gate
from citlr.checks import failed
from citlr.invariance.records import TestRow

if TYPE_CHECKING:
    from citlr.audit.gates.evidence import Answers, Evidence

# What a model's outputs alone are held against: also where nobody has the images.
OF_ANSWERS: tuple[Callable[[Answers], Iterable[Gate]], ...] = (gate_draws, gate_agreement, gate_unexplained)
# Of an audit with the images, in the order of the page.
GATES: tuple[Callable[[Evidence], Iterable[Gate]], ...] = (
    gate_composition,
    gate_own_patient,
    gate_effectiveness,
    gate_difference_left,
    gate_drift,
    gate_placebo,
    gate_agreement,
    gate_unexplained,
    gate_put_back,
    gate_draws,
)


def gates_of(evidence: Evidence) -> tuple[Gate, ...]:
    """Hold what was measured against every limit; a gate that a limit waives is there, and has not passed."""
    gates = [gate for each in GATES for gate in each(evidence)]
    for name, key, about in _waived(evidence):
        found = [gate for gate in gates if gate.name.startswith(name)]
        why = f"Waived: with `gates.{key}` no measured value fails."
        gates = [
            replace(gate, passed=None, text=f"{why} {gate.text}") if gate in found and gate.passed else gate
            for gate in gates
        ]
        if not found:
            gates.append(Gate(name, None, None, None, why, about))
    return tuple(gates)


def _waived(evidence: Evidence) -> Iterator[tuple[str, str, About]]:
    """Name the gates that no measured value fails at these limits, and the key and value that say so."""
    limits, tested = evidence.limits, bool(evidence.rows)
    if limits.composition >= 1:
        yield "composition", f"composition: {limits.composition:g}", "generator"
    if limits.effectiveness == 0:
        yield "effectiveness", "effectiveness: 0", "generator"
    if limits.difference_left > 1:
        yield "difference left", f"difference_left: {limits.difference_left:g}", "generator"
    if limits.drift == 1 and (evidence.faithfulness.quality.drift or evidence.faithfulness.quality.off_target):
        yield "drift", "drift: 1", "generator"
    if tested and evidence.tossable and not limits.placebo:
        yield "placebo", "placebo: false", "generator"
    if tested and not limits.agreement:
        yield "agreement", "agreement: 0", "model"
    if tested and not limits.unexplained:
        yield "unexplained difference", "unexplained: false", "model"
    if tested and not limits.put_back and evidence.put_back:
        yield "put back", "put_back: false", "generator"
    if tested and not limits.draws:
        yield "independent draws", "draws: false", "generator"


def withhold(rows: tuple[TestRow, ...], gates: tuple[Gate, ...]) -> tuple[TestRow, ...]:
    """Turn every verdict into "inconclusive" that a failed gate is about, and say which."""
    return tuple(_withheld(row, [gate for gate in failed(gates) if gate.concerns(row)]) for row in rows)


def _withheld(row: TestRow, failing: Sequence[Gate]) -> TestRow:
    if not failing:
        return row
    several = len(failing) > 1
    names, why = ", ".join(gate.name for gate in failing), " ".join(gate.text for gate in failing)
    return replace(
        row,
        verdict="inconclusive",
        reason=f"{row.label}: {WITHHELD} {'gates' if several else 'a gate'} failed ({names}). {why} "
        f"Without {'them' if several else 'it'} the verdict would have been '{row.verdict}'.",
    )
