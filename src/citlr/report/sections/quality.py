"""The page's table of the generator's quality: overall, per level and per held label."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from citlr.audit.results.result import AuditResult
from citlr.report import tables
from citlr.report.numerals import decimal, percent
from citlr.report.tables import Column, Table


@dataclass(frozen=True)
class _Measure:
    """One number of the generator's quality."""

    name: str
    value: float | None
    show: Callable[[float], str]
    meaning: str


def quality_table(result: AuditResult) -> Table:
    """Tabulate the generator's quality, overall, per level and per held label."""
    quality = result.quality
    fine = partial(decimal, digits=4)
    at = "" if quality.carried is None else f" at {quality.carried.size} pixels"
    measures = [
        _Measure("Composition", quality.composition, fine, "L1 change under the null intervention; 0 is best"),
        *_optional("Composition, SSIM", quality.similarity, fine, "structural similarity with it; 1 is best"),
        *(
            _Measure(
                f"Composition, {count} cycles", values[0], fine, "L1 change after so many null interventions in a row"
            )
            for count, values in quality.cycles.items()
            if count == max(quality.cycles, key=int)
        ),
        *(
            _Measure(f"Effectiveness, {level}", value, percent, f"images redrawn as {level} that read as {level}")
            for level, value in quality.effectiveness.items()
        ),
        *(
            _Measure(f"AUROC, {level}", value, fine, f"how well a probe tells {level} from the other levels")
            for level, value in quality.auroc.items()
        ),
        *(
            _Measure(f"Error at {level}", value, partial(decimal, digits=1), "of a probe's reading of the attribute")
            for level, value in quality.error.items()
        ),
        *(
            _Measure(
                f"Drift, {label}",
                value,
                partial(percent, signed=True),
                "how far a probe's reading of what must stay shifts; 0 is best",
            )
            for label, value in quality.drift.items()
        ),
        *(
            _Measure(
                f"Drift, {label} (not held)", value, partial(percent, signed=True), "the same of what was not held"
            )
            for label, value in quality.off_target.items()
        ),
        *(
            _Measure(
                f"Difference left, {level}",
                share,
                percent,
                f"what recorded levels still differ by{at} when all images are redrawn as this one; 0 is best",
            )
            for level, share in ({} if quality.left is None else quality.left.left).items()
        ),
        _Measure("Reversibility", quality.reversibility, fine, "L1 change after there and back again; 0 is best"),
        _Measure(
            "Minimality",
            quality.minimality,
            fine,
            "L1 change from the null intervention to another level; small, as long as effectiveness is high",
        ),
        _Measure("FID", quality.fid, partial(decimal, digits=2), f"distance to real images ({_extractor(result)})"),
        *_optional("KID", quality.kid, fine, f"the same without bias in small samples ({_extractor(result)})"),
    ]
    why = "; ".join(quality.notes) or "not measured in this audit"
    rows = [
        [tables.text(one.name), tables.number(one.value, one.show, why), tables.text(one.meaning)] for one in measures
    ]
    return tables.build(
        "Quality of the redrawn images", [Column("Measure"), Column("Value", "number"), Column("Meaning")], rows
    )


def _optional(name: str, value: float | None, show: Callable[[float], str], meaning: str) -> list[_Measure]:
    """Give a measure that audits of earlier versions do not have, or nothing."""
    return [] if value is None else [_Measure(name, value, show, meaning)]


def _extractor(result: AuditResult) -> str:
    return f"features: {result.quality.fid_extractor}" if result.quality.fid_extractor else "no feature extractor"
