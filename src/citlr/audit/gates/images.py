"""Gates on the redrawn images: what they leave and carry, what moves along, a fair coin, and moving alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import copysign, inf, isfinite
from typing import TYPE_CHECKING

from citlr.audit.gates.answers import with_rows
from citlr.audit.measures.curve import foretell
from citlr.audit.measures.put_back import PutBack
from citlr.audit.results.records import Carried, Gate, Placebo
from citlr.generators.quality.records import Left, what_is_unknown
from citlr.invariance.records import TestRow
from citlr.text import as_set, beside

if TYPE_CHECKING:
    from citlr.audit.gates.evidence import Evidence

# What a failed gate tells its reader to do next.
MORE_TO_READ = "More training images of every level would let a probe read it."
MEASURE_AGAIN = "Measure the quality again with this model (`citlr generate --force`)."
TOSS = "Leave controls.placebo_images out, or use more test images."
TRAIN_LONGER = "Train the generator longer, or on more images."
HOLD_IT = "Name it in `generator.hold`, that it is kept as observed."
KEEP_IT = "Redraw the images with it kept as observed."
LESS_GUIDANCE = "Use less guidance, or another kind of generator."
MORE_IS_DRAWN = "Use a `generator.size` nearer to what the model reads, or more training images."
# Standard errors by which more than all has to be left: by chance in one of 40.
SURELY = 1.96
LOOK_AT_THEM = "Look at these images first: `citlr generate` names them."
FILE_THEM = (
    "File every redrawn image under the image_id of its original; 'strangers' in quality/quality.json of the run names "
    "these."
)
ASK_FOR_A_CURVE = "How many training images would do is foretold with quality.learning_curve: [0.25, 0.5]."


def gate_composition(evidence: Evidence) -> Iterator[Gate]:
    """Hold the change by null interventions against its limit."""
    value, limit = evidence.faithfulness.quality.composition, evidence.limits.composition
    if value is None:
        text = "Composition is unknown: no null intervention was drawn. Redraw every image as its own group as well."
    else:
        text = (
            f"Redrawing an image as what it already is should change nothing; it changed by {_percent(value, limit)} "
            f"of black-to-white, and at most {as_set(100 * limit, 1)}% is allowed."
        )
    passed = value is not None and value <= limit
    more = "" if value is None or passed else f" {TRAIN_LONGER}"
    yield Gate("composition", value, limit, passed, text + more, "generator")


def _percent(share: float, limit: float) -> str:
    return f"{beside(100 * share, 100 * limit, 1)}%"


def gate_own_patient(evidence: Evidence) -> Iterator[Gate]:
    """Fail images that somebody else has redrawn as another patient's: levels differ by who is shown then."""
    count = evidence.faithfulness.quality.misfiled
    if count is not None:
        text = f"Redrawn images that show another patient than their original, far more than their own: {count}."
        more = f" {FILE_THEM}" if count else ""
        yield Gate("own patient", float(count), 0.0, not count, text + more, "generator")


def gate_effectiveness(evidence: Evidence) -> Iterator[Gate]:
    """Hold the smallest share of the attribute that is carried against its limit, and the largest against its inverse.

    Images that surely carry more than a real one of the level show a larger effect than there is. A share whose
    estimate is above and that may be below is not known.
    """
    carried, limit = evidence.carried, evidence.limits.effectiveness
    levels = evidence.responses.levels if evidence.responses is not None else ()
    absent = [level for level in levels if carried.shares and level not in carried.shares]
    absent += [level for level, share in carried.shares.items() if not isfinite(share.estimate)]
    if absent or not carried.shares:
        looked = any(one.size == carried.size for one in evidence.faithfulness.carried)
        where = f" under '{absent[0]}'" if absent else ""
        text = f"What share of the attribute the redrawn images carry{where} is unknown. {carried.note} "
        text += MORE_TO_READ if looked else MEASURE_AGAIN
        yield Gate("effectiveness", None, limit, False, text, "generator")
        return
    level, share = min(carried.shares.items(), key=lambda item: item[1].estimate)
    exaggerated = None if share.estimate < limit else _exaggerated(carried, limit)
    if exaggerated is not None:
        yield exaggerated
        return
    which = "for a difference that was asked for, redrawn images" if carried.slope else f"images redrawn as '{level}'"
    text = (
        f"At {carried.size} pixels, the size that the model reads, {which} carry {_percent(share.estimate, limit)} "
        f"[{share.low:.1%}, {share.high:.1%}] of what a probe reads of real ones; at least "
        f"{as_set(100 * limit, 0)}% is needed."
    )
    passed = share.estimate >= limit
    if not passed and (unplaced := evidence.faithfulness.quality.left_alone):
        text += f" {unplaced} {LOOK_AT_THEM}"
    if not passed and (curve := evidence.faithfulness.curve_at(carried.size)):
        text += f" {foretell(curve, limit)}"
    elif not passed and evidence.retrainable:
        text += f" {TRAIN_LONGER} {ASK_FOR_A_CURVE}"
    elif not passed:
        text += f" {TRAIN_LONGER}"
    yield Gate("effectiveness", share.estimate, limit, passed, text, "generator")


def _exaggerated(carried: Carried, limit: float) -> Gate | None:
    """Fail what surely carries more than real images do, and what may carry more as well as less than is needed."""
    for level, share in sorted(carried.shares.items(), key=lambda item: -item[1].low):
        if limit and share.estimate * limit > 1 and (share.low * limit > 1 or share.low < limit):
            text = (
                f"Images redrawn as '{level}' carry {share.estimate:.1%} [{share.low:.1%}, {share.high:.1%}] of what "
                f"a probe reads of real ones at {carried.size} pixels, "
            )
            if share.low * limit > 1:
                text += (
                    f"surely more than {100 / limit:.4g}%: they exaggerate it, and would show a larger effect than "
                    "there is. Use less guidance."
                )
            else:
                text += (
                    f"which may be less than {as_set(100 * limit, 0)}% and more than {100 / limit:.4g}%: the share "
                    f"is not known. {MORE_TO_READ}"
                )
            return Gate("effectiveness", share.estimate, 1 / limit, False, text, "generator")
    return None


def gate_difference_left(evidence: Evidence) -> Iterator[Gate]:
    """Hold what redrawing leaves of the difference between recorded levels, at the size that the model reads.

    Images that surely differ more from recorded ones of their level than the originals do carry no verdict. Where more
    is left than the limit, a model may read it, and none is shown to be equivalent.
    """
    left, limit = evidence.faithfulness.left_at(evidence.carried.size), evidence.limits.difference_left
    if left is None or not left.left:
        yield Gate("difference left", None, 1.0, True, f"Nothing to hold. {what_is_unknown(left)[0]}", "generator")
        return
    level, share = max(left.left.items(), key=lambda item: item[1] - SURELY * left.error[item[0]])
    harm = limit <= 1 < share - SURELY * left.error[level]
    more = f" More than all of it does harm. {LESS_GUIDANCE} {TRAIN_LONGER}" if harm else ""
    yield Gate(
        "difference left", share, 1.0, not harm, _what_is_left(left, level, evidence.carried.size) + more, "generator"
    )
    level, share = max(left.left.items(), key=lambda item: item[1])
    claimed = [row for row in evidence.rows if row.verdict == "equivalent" and share > limit] if limit <= 1 else []
    for _, row, which in with_rows(claimed, evidence.rows):
        text = (
            f"{_what_is_left(left, level, evidence.carried.size, limit)} A model may read what is left, so that none "
            f"is shown to be equivalent above {as_set(100 * limit, 0)}%. {MORE_IS_DRAWN}"
        )
        name = f"difference left on {row.label}{which}"
        yield Gate(name, share, limit, False, text, "generator", row.label, row.contrast)


def _what_is_left(left: Left, level: str, size: int, limit: float = 1.0) -> str:
    return (
        f"At {size} pixels, the size that the model reads, redrawing all images as '{level}' leaves "
        f"{_percent(left.left[level], limit)} of the squared difference between recorded levels (error "
        f"{left.error[level]:.1%})."
    )


def gate_drift(evidence: Evidence) -> Iterator[Gate]:
    """Hold the shift of labels and covariates against the limit: of what is held, and of what a probe reads of others.

    A finding that goes with the attribute and is not held is redrawn with it: a model that reads the finding only would
    be called dependent on the attribute.
    """
    limit, quality = evidence.limits.drift, evidence.faithfulness.quality
    for label, shift in sorted(quality.drift.items()):
        passed = shift is not None and abs(shift) <= limit
        if shift is None:
            text = (
                f"The drift of the held '{label}' is unknown: its probe reads no better than chance. More training "
                "images with and without it would let a probe read it."
            )
        else:
            text = f"Redrawing moves the held '{label}' by {_shift(shift, limit)}."
        more = "" if passed or shift is None else f" {TRAIN_LONGER}"
        yield Gate(f"drift of {label}", shift, limit, passed, text + more, "generator")
    for label, shift in sorted(quality.off_target.items()):
        if shift is not None:
            passed = abs(shift) <= limit
            text = f"Redrawing moves '{label}', which is not held, by {_shift(shift, limit)}."
            more = "" if passed else f" {HOLD_IT if evidence.retrainable else KEEP_IT}"
            yield Gate(f"drift of {label}", shift, limit, passed, text + more, "generator")


def _shift(shift: float, limit: float) -> str:
    moved = beside(shift, copysign(limit, shift), 4, "+f")
    return f"{moved} in probability; at most {limit:g} is allowed"


def gate_placebo(evidence: Evidence) -> Iterator[Gate]:
    """Hold the coin against its own audit's verdict, and what it could have shown against every dependence."""
    if evidence.limits.placebo and evidence.tossable:
        placebo = evidence.controls.placebo
        shown = "shows no dependence" if evidence.coin_passed else "shows a dependence, where there is none"
        said = "was not made" if placebo is None else f"{shown} (p = {placebo.pvalue:.3g})"
        pvalue = None if placebo is None else placebo.pvalue
        if placebo is None:
            more = f" {TOSS}"
        else:
            more = "" if evidence.coin_passed else f" The generator invents differences. {TRAIN_LONGER}"
        text = f"The audit of a fair coin {said}.{more}"
        yield Gate("placebo", pvalue, None, evidence.coin_passed, text, "generator")
        if placebo is not None:
            yield from _coins_that_show_less(placebo, evidence.rows)


def _coins_that_show_less(placebo: Placebo, rows: Sequence[TestRow]) -> Iterator[Gate]:
    """Fail every dependence that is too small for the coin to have shown it (80 % power), were it the generator's."""
    found = inf if placebo.detectable is None else placebo.detectable
    claimed = [row for row in rows if row.verdict == "dependence"]
    for _, row, which in with_rows(claimed, rows):
        most = max(row.psi.high, row.mean_effect.high, -row.mean_effect.low)
        if not found <= most:
            text = (
                f"The coin's {placebo.n_images} images show a psi of {found:.3g} or more with 80 % power, and the "
                f"effects on '{row.label}' are {most:.3g} at most: had the generator invented them, the coin would not "
                f"have told. {TOSS}"
            )
            name = f"placebo on {row.label}{which}"
            yield Gate(name, found, most, False, text, "generator", row.label, row.contrast)


def gate_put_back(evidence: Evidence) -> Iterator[Gate]:
    """Hold every dependence against what moving alone does: it has to exceed the margin beyond that."""
    if evidence.limits.put_back:
        for one, row, which in with_rows(evidence.put_back, evidence.rows):
            yield _gate_of_put_back(one, row, f"put back on {one.label}{which}")


def _gate_of_put_back(found: PutBack, row: TestRow, name: str) -> Gate:
    turned = found.turned
    what = (
        f"turns {turned.estimate:.1%} of the decisions"
        if row.outcome == "decision"
        else f"changes the probabilities by {turned.estimate**0.5:.3f} (root mean square)"
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
