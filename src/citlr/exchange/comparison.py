"""Audits side by side: verdicts and effects, and the difference of the effects with its interval."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from citlr.audit.finished import Finished
from citlr.audit.results.result import AuditResult, Estimate, TestRow, Verdict
from citlr.errors import InputError
from citlr.invariance.effects.at_originals import at_originals
from citlr.invariance.effects.clustered import recovered
from citlr.invariance.effects.clusters import Clusters, signed_mean
from citlr.invariance.effects.estimates import outcome_values, psi_parts
from citlr.invariance.effects.intervals import signed_interval
from citlr.run.files import fingerprint
from citlr.text import listed_few, shortened, visible
from citlr.values import plain

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One label under one contrast in two audits; differences are the other audit's minus the first one's.

    - `first_alpha`, `other_alpha`: Error rate of the intervals of each audit.
    - `differing`: The settings that differ, such as "margin 0.02 and 0.05": the first audit's, then the other's.
    - `paired`: Whether the difference was taken image by image.
    - `note`: How the interval was made, or why there is none.
    """

    label: str
    attribute: str
    contrast: tuple[str, str]
    first: str
    other: str
    first_verdict: Verdict
    other_verdict: Verdict
    first_psi: Estimate
    other_psi: Estimate
    psi: Estimate
    first_mean: Estimate
    other_mean: Estimate
    mean: Estimate
    first_alpha: float
    other_alpha: float
    differing: tuple[str, ...]
    paired: bool
    note: str


@dataclass(frozen=True)
class Comparison:
    """All differences to the first audit; `alpha` is its error rate, of each interval, not adjusted for their count."""

    rows: tuple[Difference, ...]
    alpha: float

    def to_frame(self) -> pd.DataFrame:
        """Return one row per label, contrast and audit that is compared with the first."""
        return pd.DataFrame([_flat(row) for row in self.rows])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; a number that does not exist is None."""
        return {"schema": "citlr.comparison/1", "alpha": self.alpha, "rows": [plain(asdict(row)) for row in self.rows]}

    def __str__(self) -> str:
        """Write the table, and how to read it."""
        table = self.to_frame()[list(_SHOWN)].to_string(index=False, float_format=lambda value: f"{value:.4g}")
        notes = "\n".join(dict.fromkeys(row.note for row in self.rows))
        how = f"Differences are `other` minus `first`, {100 * (1 - self.alpha):g}% intervals."
        return visible(f"{table}\n\n{how}\n{notes}")


# What of a cohort's settings says where it lies, and not who is in it.
_PLACES = ("table", "images", "cache")
_SHOWN = (
    "label", "contrast", "first", "other", "first_verdict", "other_verdict", "first_psi", "other_psi",
    "psi_difference", "psi_low", "psi_high", "mean_difference", "mean_low", "mean_high",
)  # fmt: skip


def compare(audits: Sequence[Finished]) -> Comparison:
    """Compare every audit with the first."""
    if len(audits) < 2:
        raise InputError("A comparison needs at least two audits: give two runs, or one run with several models.")
    audits = _told_apart(audits)
    rows = [row for other in audits[1:] for row in _pair(audits[0], other)]
    return Comparison(tuple(rows), audits[0].result.alpha)


def choose(found: Sequence[Mapping[str, Finished]]) -> list[list[Finished]]:
    """Say what is compared with what: runs model by model where their models share names, else all in a row."""
    if len(found) == 1 or all(len(one) == 1 for one in found):
        return [[audit for one in found for audit in one.values()]]
    common = [name for name in found[0] if all(name in one for one in found)]
    if not common:
        listed = "; ".join(", ".join(one) for one in found)
        raise InputError(f"The runs share no model ({listed}): say which with RUN:MODEL.")
    alone = tuple(dict.fromkeys(name for one in found for name in one if name not in common))
    return [[replace(one[name], alone=alone) for one in found] for name in common]


def _told_apart(audits: Sequence[Finished]) -> list[Finished]:
    """Name audits that are called alike, as runs in folders called `run`, by the folders above too; the same by number.

    A row of one would else be read as another's.
    """
    names = [audit.name for audit in audits]
    for above in range(1, max(len(audit.place.parts) for audit in audits) + 1):
        places = {(name, audit.place) for name, audit in zip(names, audits, strict=True)}
        alike = {name for name, times in Counter(name for name, _ in places).items() if times > 1}
        names = [
            "/".join((*audit.place.parts[1:-1][-above:], audit.name)) if name in alike else name
            for name, audit in zip(names, audits, strict=True)
        ]
    numbered = [f"{name} ({names[: place + 1].count(name)})" for place, name in enumerate(names)]
    names = [new if names.count(name) > 1 else name for name, new in zip(names, numbered, strict=True)]
    return [replace(audit, name=name) for audit, name in zip(audits, names, strict=True)]


def _pair(first: Finished, other: Finished) -> list[Difference]:
    known = {key_of(row): row for row in other.result.tests}
    shared = [row for row in first.result.tests if key_of(row) in known]
    if not shared:
        raise InputError(f"'{first.name}' and '{other.name}' have no label and contrast in common: nothing to compare.")
    alone = [row for row in other.result.tests if key_of(row) not in {key_of(one) for one in shared}]
    alone += [row for row in first.result.tests if row not in shared]
    found = [_difference(first, other, row, _turned(known[key_of(row)], row.contrast)) for row in shared]
    if alone:
        names = ", ".join(dict.fromkeys(f"'{row.label}', {' against '.join(row.contrast)}" for row in alone))
        found = [replace(row, note=f"{row.note} In one of the two only, and not compared: {names}.") for row in found]
    if other.alone:
        names = listed_few(f"'{name}'" for name in other.alone)
        found = [
            replace(row, note=f"{row.note} Models that not all runs have, and not compared: {names}.") for row in found
        ]
    return found


def key_of(row: TestRow) -> tuple[str, frozenset[str], str]:
    """Name what a test is about, whichever level is the reference: psi and the size of the mean effect are the same."""
    return row.attribute, frozenset(row.contrast), row.label


def _turned(row: TestRow, contrast: tuple[str, str]) -> TestRow:
    """Give the row with its levels in this order: psi stays, and the mean effect changes its sign."""
    if row.contrast == contrast:
        return row
    mean = row.mean_effect
    return replace(row, contrast=contrast, mean_effect=Estimate(-mean.estimate, -mean.high, -mean.low))


def differing(first: AuditResult, other: AuditResult, one: TestRow, two: TestRow) -> tuple[str, ...]:
    """Name what two tests of a label differ by: settings, who was tested, and what redrew them, where both say it.

    A threshold is one of decisions only.
    """
    pairs: dict[str, tuple[float | None, float | None]] = {
        "margin": (one.margin, two.margin),
        "alpha": (first.alpha, other.alpha),
    }
    if one.outcome == two.outcome == "decision":
        pairs["threshold"] = (first.threshold(one.label), other.threshold(two.label))
    shown = {
        name: ["not recorded" if value is None else f"{value:g}" for value in pair] for name, pair in pairs.items()
    }
    named = [f"{name} {' and '.join(shown[name])}" for name, pair in pairs.items() if pair[0] != pair[1]]
    mine, yours = _made_of(first, one), _made_of(other, two)
    named += [f"{name} {mine[name]} and {yours[name]}" for name in mine if mine[name] != yours.get(name, mine[name])]
    return tuple(named)


def _made_of(result: AuditResult, row: TestRow) -> dict[str, str]:
    """Say who was tested, and by what images, as an audit.json tells it: settings, and the first digits of digests."""

    def part(*names: str) -> dict[str, Any]:
        found: Any = result.provenance
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    inputs, config = part("inputs"), part("config")
    said = {f"cohort.{name}": value for name, value in part("config", "cohort").items() if name not in _PLACES}
    digests = {"cohort's table": inputs.get("table_sha256"), "generator": inputs.get("generator_sha256")}
    digests = {
        name: (value if isinstance(value, str) else fingerprint(value))[:8] for name, value in digests.items() if value
    }
    said |= {"test images": row.n_images, "draws": row.draws, **digests}
    said |= {"seed": config["seed"]} if "seed" in config else {}
    return {name: shortened(str(value)) for name, value in said.items()}


def _difference(first: Finished, other: Finished, one: TestRow, two: TestRow) -> Difference:
    why = _unpaired_because(first, other)
    alphas = first.result.alpha, other.result.alpha
    settings = differing(first.result, other.result, one, two)
    note = why or f"'{other.name}' and '{first.name}' have the same images: paired, clustered by patient."
    note += _redrawn_apart(first, other)
    if one.outcome != two.outcome:
        psi = mean = Estimate(math.nan, math.nan, math.nan)
        note = f"No difference: '{first.name}' is about each {one.outcome} and '{other.name}' about each {two.outcome}."
    elif why:
        psi, mean = recovered(one.psi, two.psi, 0.0), recovered(one.mean_effect, two.mean_effect, 0.0)
        if alphas[0] != alphas[1]:
            psi, mean = (Estimate(found.estimate, math.nan, math.nan) for found in (psi, mean))
    else:
        psi, mean = _image_by_image(first, other, one, alphas[0])
    kinds = [_at_originals(audit, row) for audit, row in ((first, one), (other, two))]
    if None not in kinds and kinds[0] != kinds[1]:
        at, drawn = (first, other) if kinds[0] else (other, first)
        note += (
            f" Psi of '{at.name}' is at the originals, and that of '{drawn.name}' of the draws, whose noise hides "
            "small effects: a difference may come from that alone."
        )
    if settings:
        note += f" Settings differ ('{first.name}' and '{other.name}'): {', '.join(settings)}."
    return Difference(
        label=one.label,
        attribute=one.attribute,
        contrast=one.contrast,
        first=first.name,
        other=other.name,
        first_verdict=one.verdict,
        other_verdict=two.verdict,
        first_psi=one.psi,
        other_psi=two.psi,
        psi=psi,
        first_mean=one.mean_effect,
        other_mean=two.mean_effect,
        mean=mean,
        first_alpha=alphas[0],
        other_alpha=alphas[1],
        differing=settings,
        paired=not why and one.outcome == two.outcome,
        note=note,
    )


def _unpaired_because(first: Finished, other: Finished) -> str:
    """Say why two audits cannot be compared image by image; empty where they can."""
    pair = f"'{other.name}' and '{first.name}'"
    how = "so the intervals are combined as of independent audits"
    if first.result.alpha != other.result.alpha:
        how = "and no interval can be made of two that have different confidence"
    if first.responses is None or other.responses is None:
        return f"{pair}: the responses of one are not here, {how}."
    mine = dict(zip(map(str, first.responses.units), map(str, first.responses.patients), strict=True))
    yours = dict(zip(map(str, other.responses.units), map(str, other.responses.patients), strict=True))
    if mine == yours:
        unlike = _other_content(first, other)
        return unlike and f"{pair} {unlike}, {how}."
    both = len(mine.keys() & yours.keys())
    overlap = f"share {both} of {len(mine)} and {len(yours)} images" if both else "have other images"
    care = " although they are not quite independent" if both and how.startswith("so") else ""
    return f"{pair} {overlap}, {how}{care}."


def _at_originals(audit: Finished, row: TestRow) -> bool | None:
    """Say whether psi is free of what the noise of draws hides of it; None where that cannot be told."""
    responses, test = audit.responses, audit.test
    if responses is None or test is None or row.outcome != "decision":
        return None
    label = responses.labels.index(row.label)
    outputs = responses.values[..., label]
    if bool((outputs == outputs[:, :, :1]).all()):
        return True
    return audit.shared_seeds and bool(at_originals(responses, threshold=test.threshold).known[label])


def _other_content(first: Finished, other: Finished) -> str:
    """Say what is amiss with images of the same names and patients; empty where they are the same images."""
    if not first.cohort or first.cohort == other.cohort:
        return ""
    mine, yours = (audit.contents() if audit.contents else None for audit in (first, other))
    if mine is None or yours is None:
        return "have images of the same names, which cannot be looked at any more as they were audited"
    changed = sum(mine[name] != yours.get(name) for name in mine)
    return f"have images of the same names, {changed} of {len(mine)} with other content" if changed else ""


def _redrawn_apart(first: Finished, other: Finished) -> str:
    """Say where two runs drew counterfactuals of their own: a difference is then not the models' alone."""
    if not (first.redrawn and other.redrawn) or first.redrawn == other.redrawn:
        return ""
    return (
        f" '{first.name}' and '{other.name}' were redrawn by different generators, draws or seeds: the difference holds"
        " that too."
    )


def _image_by_image(first: Finished, other: Finished, row: TestRow, alpha: float) -> tuple[Estimate, Estimate]:
    """Return the differences of psi and of the mean effect, image by image, clustered by patient."""
    (one, patients), (two, _) = _contributions(first, row), _contributions(other, row)
    # Halved, the differences of values in [-1, 1] lie in [-1, 1] again, as the interval asks for.
    interval = signed_interval(signed_mean((two - one) / 2, Clusters.of(patients)), alpha=alpha)
    found = [
        Estimate(*(2 * float(part[k]) for part in (interval.estimate, interval.low, interval.high))) for k in range(2)
    ]
    return found[0], found[1]


def _contributions(audit: Finished, row: TestRow) -> tuple[Floats, npt.NDArray[np.object_]]:
    """Return each image's contribution to psi and to the mean effect, shape (units, 2), images by name."""
    responses, test = audit.responses, audit.test
    if responses is None or test is None:
        raise InputError(
            f"The model's answers of '{audit.name}' are not here, only its audit.json: compare the whole run folder."
        )
    label = responses.labels.index(row.label)
    options: dict[str, Any] = {"outcome": test.outcome, "threshold": test.threshold}
    levels = [responses.levels.index(level) for level in row.contrast]
    pair = outcome_values(responses, **options)[:, levels][..., label]
    parts, _ = psi_parts(responses, **options, contrast=(levels[0], levels[1]), shared_seeds=audit.shared_seeds)
    shift = (pair[:, 1] - pair[:, 0]).mean(axis=1)
    order = np.argsort(responses.units.astype(str))
    return np.stack([parts[:, label], shift], axis=1)[order], responses.patients[order]


def _flat(row: Difference) -> dict[str, Any]:
    return {
        "label": row.label,
        "attribute": row.attribute,
        "contrast": f"{row.contrast[1]} - {row.contrast[0]}",
        "first": row.first,
        "other": row.other,
        "first_verdict": row.first_verdict,
        "other_verdict": row.other_verdict,
        "first_psi": row.first_psi.estimate,
        "other_psi": row.other_psi.estimate,
        "psi_difference": row.psi.estimate,
        "psi_low": row.psi.low,
        "psi_high": row.psi.high,
        "first_mean": row.first_mean.estimate,
        "other_mean": row.other_mean.estimate,
        "mean_difference": row.mean.estimate,
        "mean_low": row.mean.low,
        "mean_high": row.mean.high,
        "paired": row.paired,
    }
