"""Gates on what the model answers: redrawn as they are, and between recorded levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from citlr.audit.measures.unexplained import FINER, LOST
from citlr.audit.results.records import Agreement, Gate, Unexplained
from citlr.config import GateConfig
from citlr.invariance.records import Estimate, TestRow
from citlr.text import as_set, beside, listed_few

if TYPE_CHECKING:
    from citlr.audit.gates.evidence import Answers


# The largest unexplained difference that "equivalent" may leave open: as many answers as the gate on agreement lets
# redrawing turn. An interval that reaches further could not have told a marker which redrawing leaves in place.
UNSEEN = 0.20


class OfRow(Protocol):
    """What was measured of one label at one contrast."""

    @property
    def label(self) -> str:
        """The label."""

    @property
    def contrast(self) -> tuple[str, str]:
        """The two levels."""


Measured = TypeVar("Measured", bound=OfRow)


def with_rows(measured: Sequence[Measured], rows: Sequence[TestRow]) -> Iterator[tuple[Measured, TestRow, str]]:
    """Give what was measured beside the test of it, and what a gate's name ends with where there are many contrasts."""
    of = {(row.label, row.contrast): row for row in rows}
    several = len({row.contrast for row in rows}) > 1
    for one in measured:
        row = of.get((one.label, one.contrast))
        if row is not None:
            yield one, row, f", {one.contrast[1]} against {one.contrast[0]}" if several else ""


def gate_agreement(answers: Answers) -> Iterator[Gate]:
    """Hold the agreement of every label against the limits; a limit of 0 for equal decisions waives them."""
    for one in answers.agreement if answers.limits.agreement else ():
        yield _of_agreement(one, answers.limits)


def _of_agreement(found: Agreement, limits: GateConfig) -> Gate:
    name, share = f"agreement on {found.label}", found.decisions
    if share is None:
        text = (
            f"Whether the model answers redrawn images as it answers originals is unknown: {found.note}. It needs "
            "answers on the originals, and on every image redrawn under the level that it has."
        )
        return Gate(name, None, limits.agreement, False, text, "model", found.label)
    moved = _largest_change(found)
    alike = beside(100 * share.estimate, 100 * limits.agreement, 1)
    told = [f"decides {alike}% alike (at least {as_set(100 * limits.agreement, 0)}% are needed)"]
    if found.rank is None:
        told.append("gives outputs whose ranks cannot be compared")
    else:
        rank = beside(found.rank, limits.agreement_rank, 2)
        told.append(f"ranks images alike by {rank} (Spearman; at least {limits.agreement_rank:g})")
    told += [found.note] if found.note else []
    told += [
        f"tells {what} with an AUROC of {after:.3f} where it was {before:.3f} "
        f"(at most {limits.agreement_auroc:g} apart)"
        for what, (before, after) in moved.items()
    ]
    passed = (
        share.estimate >= limits.agreement
        and (found.rank is not None and found.rank >= limits.agreement_rank)
        and all(abs(after - before) <= limits.agreement_auroc for before, after in moved.values())
    )
    says = "answers" if passed else "does not answer"
    text = (
        f"On '{found.label}' the model {says} images redrawn under their own level as it answers the originals: it "
        f"{'; '.join(told)}."
    )
    if not passed:
        text += (
            " It looks at what redrawing takes away: redraw at the size that it reads, or train the generator longer."
        )
    return Gate(name, share.estimate, limits.agreement, passed, text, "model", found.label)


def _largest_change(found: Agreement) -> Mapping[str, tuple[float, float]]:
    """Give the AUROCs of the level that changes most, and those of the label."""
    moved: dict[str, tuple[float, float]] = {}
    if found.attribute_auroc:
        level, pair = max(found.attribute_auroc.items(), key=lambda item: abs(item[1][1] - item[1][0]))
        moved[f"'{level}' from the rest"] = pair
    if found.label_auroc is not None:
        moved[f"'{found.label}' itself"] = found.label_auroc
    return moved


def gate_unexplained(answers: Answers) -> Iterator[Gate]:
    """Hold the differences against the verdicts.

    One beyond the margin fails that redrawing shows nothing of, and so does a dependence that they contradict. Where
    they are not known, or one of `UNSEEN` is not ruled out, "equivalent" fails: it stands beside a difference of that
    size in at most alpha/2 of the audits.
    """
    if answers.limits.unexplained:
        for one, row, which in with_rows(answers.unexplained, answers.rows):
            yield _of_difference(one, row, f"unexplained difference on {one.label}{which}")


def _of_difference(found: Unexplained, row: TestRow, name: str) -> Gate:
    first, second = found.contrast
    if found.difference is None or found.rest is None:
        text = f"The difference on '{found.label}' between recorded levels is unknown: {found.note}."
        # What redrawing leaves in place shows in recorded levels alone, and nobody could look.
        passed = row.verdict != "equivalent"
        if not passed:
            text += " Redrawing finds no effect, but whether it leaves in place what the model reads cannot be told."
        return Gate(name, None, row.margin, passed, text, "model", found.label, found.contrast)
    contradicted = _contradicted(found.difference, row)
    reach, most = max(-found.rest.low, found.rest.high), max(UNSEEN, row.margin)
    # Written so that a bound that is not a number fails.
    open_still = row.verdict == "equivalent" and not reach < most
    passed = not contradicted and not open_still and (not found.beyond or row.verdict == "dependence")
    within = beside(100 * reach, 100 * most, 1)
    among = f" {found.where}" if found.where and found.where not in (LOST, FINER) else ""
    given = listed_few([f"'{name}'" for name in found.given], 6)
    difference = (
        f"the outputs of '{second}' differ from those of '{first}' by {_points(found.difference)} points"
        f"{f', given {given}' if found.given else ''}; redrawing moves them by "
        f"{100 * row.mean_effect.estimate:+.1f} and leaves {_points(found.rest)}"
        + ("" if found.lost is None else f", and null interventions lose {_points(found.lost)} of their probabilities")
        + ("" if found.finer is None else f"; {_points(found.finer)} of them rest on detail finer than its pixels")
    )
    if passed:
        text = f"On '{found.label}' {difference}. More than {within} points unexplained are ruled out."
        if row.verdict == "dependence":
            text += " A dependence is found: what redrawing leaves is shown, and forbids no such verdict."
    elif contradicted:
        text = (
            f"Redrawing shows an effect on '{found.label}' that recorded '{first}' and '{second}' do not: {difference}."
            " Either the generator invents it, or something that is not recorded cancels it in these patients: train "
            "on more images, or record what else differs between the groups as a covariate."
        )
    elif open_still and not found.beyond:
        text = (
            f"Up to {within} points between '{first}' and '{second}' may go unexplained on '{found.label}', "
            f'and "equivalent" needs fewer than {100 * most:g} to be left open: {difference}. Redrawing finds no '
            "effect, but whether it leaves in place what the model reads cannot be told: test more patients of the "
            "rarer level."
        )
    else:
        text = (
            f"'{first}' and '{second}' get different answers here{among}, and redrawing does not show why: on "
            f"'{found.label}' {difference}. Record what else differs between the groups as a covariate, or redraw "
            "more of the image's detail."
        )
    held = found.difference if contradicted or row.verdict != "dependence" else found.rest
    if not passed and not contradicted:
        held = {LOST: found.lost, FINER: found.finer}.get(found.where) or held
    return Gate(name, held.estimate, row.margin, passed, text, "model", found.label, found.contrast)


def _contradicted(difference: Estimate, row: TestRow) -> bool:
    """Say whether recorded levels are shown not to differ as redrawing says that they depend.

    What a generator does is what recorded levels differ by beside what is held, so that both agree where it is right.
    """
    mean, margin = row.mean_effect, row.margin
    if row.verdict != "dependence":
        return False
    return bool((mean.low > margin > difference.high) or (mean.high < -margin < difference.low))


def _points(estimate: Estimate) -> str:
    value, low, high = (100 * one for one in (estimate.estimate, estimate.low, estimate.high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
