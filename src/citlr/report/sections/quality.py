"""The page's table of the generator's quality: overall, per level and per held label."""

from collections.abc import Callable
from functools import partial

from citlr.audit.results.result import AuditResult
from citlr.report import tables
from citlr.report.numerals import decimal, percent
from citlr.report.tables import Column, Table

# Measures that audits of earlier versions do not have.
_LATER = ("Composition, SSIM", "KID")
# One number of the generator's quality: its name, itself, how it is written, and what it means.
_Measure = tuple[str, float | None, Callable[[float], str], str]


def quality_table(result: AuditResult) -> Table:
    """Tabulate the generator's quality, overall, per level and per held label."""
    quality = result.quality
    fine, signed = partial(decimal, digits=4), partial(percent, signed=True)
    at = "" if quality.carried is None else f" at {quality.carried.size} pixels"
    features = f"features: {quality.fid_extractor}" if quality.fid_extractor else "no feature extractor"
    stays = "how far a probe's reading of what must stay shifts; 0 is best"
    alike = f"what recorded levels still differ by{at} when all images are redrawn as this one; 0 is best"
    small = "L1 change from the null intervention to another level; small, as long as effectiveness is high"
    repeated = "L1 change after so many null interventions in a row"
    left = {} if quality.left is None else quality.left.left
    last = [max(quality.cycles, key=int)] if quality.cycles else []
    measures: list[_Measure] = [
        ("Composition", quality.composition, fine, "L1 change under the null intervention; 0 is best"),
        ("Composition, SSIM", quality.similarity, fine, "structural similarity with it; 1 is best"),
        *((f"Composition, {count} cycles", quality.cycles[count][0], fine, repeated) for count in last),
    ]
    for level, share in quality.effectiveness.items():
        measures.append((f"Effectiveness, {level}", share, percent, f"images redrawn as {level} that read as {level}"))
    for level, area in quality.auroc.items():
        measures.append((f"AUROC, {level}", area, fine, f"how well a probe tells {level} from the other levels"))
    tenths, of_probe = partial(decimal, digits=1), "of a probe's reading of the attribute"
    measures += [
        *((f"Error at {level}", error, tenths, of_probe) for level, error in quality.error.items()),
        *((f"Drift, {label}", shift, signed, stays) for label, shift in quality.drift.items()),
        *(
            (f"Drift, {label} (not held)", shift, signed, "the same of what was not held")
            for label, shift in quality.off_target.items()
        ),
        *((f"Difference left, {level}", share, percent, alike) for level, share in left.items()),
        ("Reversibility", quality.reversibility, fine, "L1 change after there and back again; 0 is best"),
        ("Minimality", quality.minimality, fine, small),
        ("FID", quality.fid, partial(decimal, digits=2), f"distance to real images ({features})"),
        ("KID", quality.kid, fine, f"the same without bias in small samples ({features})"),
    ]
    # Other notes tell how something was measured; they stand below the table.
    reasons = [note for note in quality.notes if any(word in note for word in ("unknown", "too few"))]
    why = " ".join(reasons) or "not measured in this audit"
    rows = [
        [tables.text(name), tables.number(value, show, why), tables.text(meaning)]
        for name, value, show, meaning in measures
        if value is not None or name not in _LATER
    ]
    columns = [Column("Measure"), Column("Value", "number"), Column("Meaning")]
    return tables.build("Quality of the redrawn images", columns, rows)
