"""The gates of an audit, in the order of the page: a new one is a function in a file of its own, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from citlr.audit.gates.answers import gate_agreement, gate_unexplained
from citlr.audit.gates.evidence import Evidence
from citlr.audit.gates.images import gate_composition, gate_drift, gate_effectiveness, gate_placebo
from citlr.audit.results.records import Gate

GATES: tuple[Callable[[Evidence], Iterable[Gate]], ...] = (
    gate_composition,
    gate_effectiveness,
    gate_drift,
    gate_placebo,
    gate_agreement,
    gate_unexplained,
)


def gates_of(evidence: Evidence) -> tuple[Gate, ...]:
    """Hold what was measured against every limit."""
    return tuple(gate for each in GATES for gate in each(evidence))
