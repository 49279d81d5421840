"""The gate on what moving an image does to the answers, whatever it is moved to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from citlr.audit.gates.answers import with_rows
from citlr.audit.measures.put_back import PutBack
from citlr.audit.results.records import Gate
from citlr.invariance.records import TestRow

if TYPE_CHECKING:
    from citlr.audit.gates.evidence import Evidence


def gate_put_back(evidence: Evidence) -> Iterator[Gate]:
    """Hold every dependence against what moving alone does: it has to exceed the margin beyond that."""
    if evidence.limits.put_back:
        for one, row, which in with_rows(evidence.put_back, evidence.rows):
            yield _of_label(one, row, f"put back on {one.label}{which}")


def _of_label(found: PutBack, row: TestRow, name: str) -> Gate:
    turned = found.turned
    what = (
        f"turns {turned.estimate:.1%} of the decisions"
        if row.outcome == "decision"
        else (f"changes the probabilities by {turned.estimate**0.5:.3f} (root mean square)")
    )
    text = f"Moving images as an edit does, and putting them back, {what} on '{found.label}'."
    # What moving does not change, it does not explain.
    told = row.beyond(found.psi, found.mean_effect) or not turned.estimate
    passed = row.verdict != "dependence" or told
    if passed and turned.estimate > row.psi_margin:
        claimed = (
            "The dependence is larger by more than the margin" if row.verdict == "dependence" else "None is claimed"
        )
        text += f" That may pass for a dependence. {claimed}."
    if not passed:
        text += (
            f" Beyond that, no effect is shown to exceed the margin of {row.margin:g} (psi {found.psi.estimate:.4f} "
            f"[{found.psi.low:.4f}, {found.psi.high:.4f}]): the model may read what interpolation leaves of an image. "
            "Use more test images, or `kind: dldm`, which redraws an image under its own level too."
        )
    return Gate(name, turned.estimate, row.margin, passed, text, "generator", found.label, found.contrast)
