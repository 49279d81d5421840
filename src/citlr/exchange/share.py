"""An audit as JSON that may leave the house: no folder, file name or raw value, small cells without their numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from citlr.audit import privacy
from citlr.audit.results.result import AuditResult, plain
from citlr.report.sections.accuracy import masked
from citlr.report.sections.subgroups import masked_parts


def shareable(result: AuditResult, *, mask_below: int = 5) -> dict[str, Any]:
    """Return the audit as plain JSON types for people outside."""
    content = result.to_dict()
    cohort = content["cohort"]
    hide_cell = privacy.mask_small(result.cohort.counts, below=mask_below)
    cohort["counts"] = [
        {**cell, "images": None, "patients": None} if hide else cell
        for cell, hide in zip(cohort["counts"], hide_cell, strict=True)
    ]
    cohort["flow"] = privacy.merge_small_steps(result.cohort.flow, below=mask_below)
    cohort["missing"] = {
        name: None if number and number < mask_below else number for name, number in cohort["missing"].items()
    }
    raw = privacy.mask_raw(cohort["raw"], below=mask_below)
    fewest = [
        min(number for number in (row["images_before"], row["images_after"]) if number is not None) for row in raw
    ]
    cohort["raw"] = [row for row, number in zip(raw, fewest, strict=True) if number >= mask_below]
    hidden = masked_parts(result, below=mask_below)
    content["subgroups"] = [
        row for row, kept in zip(content["subgroups"], result.subgroups, strict=True) if kept.subgroup not in hidden
    ]
    if (accuracy := masked(result, below=mask_below)) is not None:
        content["accuracy"] = plain(asdict(accuracy))
    shared: dict[str, Any] = privacy.scrub(content)
    return {**shared, "masked_below": mask_below, "masked_subgroups": len(hidden)}
