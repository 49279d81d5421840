"""Who was audited: the flow of exclusions, the counts with small cells masked, and what is missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from citlr.audit import privacy
from citlr.audit.results.result import AuditResult
from citlr.report import tables
from citlr.report.numerals import count
from citlr.report.tables import Cell, Column, Table

_SPLITS = {"train": 0, "training": 0, "validation": 1, "test": 2}
_KEYS = ("split", "attribute", "level", "label", "value")


@dataclass(frozen=True)
class Step:
    """One step of the flow, in words."""

    name: str
    remaining: str
    excluded: str
    reason: str
    share: float  # of the largest step, percent


def flow(result: AuditResult, *, below: int) -> tuple[Step, ...]:
    """Lay out the flow of exclusions, steps that left out fewer patients put together."""
    steps = privacy.merge_small_steps(result.cohort.flow, below=below)
    top = max((int(step.get("n_images", 0)) for step in steps), default=0) or 1
    return tuple(
        Step(
            str(step.get("step", "")).replace("_", " "),
            _people(step.get("n_images", 0), step.get("n_patients", 0)),
            _excluded(step),
            str(step.get("reason", "")),
            round(100 * int(step.get("n_images", 0)) / top, 1),
        )
        for step in steps
    )


def _people(images: Any, patients: Any) -> str:
    plural = ("image" if int(images) == 1 else "images", "patient" if int(patients) == 1 else "patients")
    return f"{count(int(images))} {plural[0]} of {count(int(patients))} {plural[1]}"


def _excluded(step: Mapping[str, Any]) -> str:
    if step.get("excluded_patients", 0) is None:
        return "a few left out, too few to give their number"
    images, patients = int(step.get("excluded_images", 0)), int(step.get("excluded_patients", 0))
    return f"{_people(images, patients)} left out" if images or patients else ""


@dataclass(frozen=True)
class Counts:
    """The counts of one attribute: one table, and how many cells are masked."""

    attribute: str
    table: Table
    masked: int


def counts(result: AuditResult, *, below: int) -> tuple[Counts, ...]:
    """Tabulate images and patients per label, value, split and level, small cells masked."""
    cells = result.cohort.counts
    masked = privacy.mask_small(cells, below=below)
    if not all(key in cell for cell in cells for key in _KEYS):
        return (Counts("", _plain(cells, masked, below), sum(masked)),)
    return tuple(
        _pivot(
            attribute,
            [(cell, hide) for cell, hide in zip(cells, masked, strict=True) if cell["attribute"] == attribute],
            below,
        )
        for attribute in dict.fromkeys(str(cell["attribute"]) for cell in cells)
    )


def levels(result: AuditResult, *, below: int) -> Table | None:
    """Tabulate how many people each level of the attribute has in each part of the cohort; None without counts."""
    cells = [cell for cell in result.cohort.counts if cell.get("value") == "all" and not cell.get("label")]
    if not cells or not all(key in cell for cell in cells for key in _KEYS):
        return None
    masked = privacy.mask_small([{**cell, "label": cell["split"], "level": ""} for cell in cells], below=below)
    found = {(str(cell["split"]), str(cell["level"])): (cell, hide) for cell, hide in zip(cells, masked, strict=True)}
    splits = sorted({split for split, _ in found}, key=lambda split: (_SPLITS.get(split, 9), split))
    names = list(dict.fromkeys(level for _, level in found))
    columns = [Column("Level"), *(Column(split, "number", "images (patients)") for split in splits)]
    rows = [
        [tables.text(level), *(_count_cell(found.get((split, level)), below) for split in splits)] for level in names
    ]
    return tables.build("Levels of the attribute", columns, rows)


def column(result: AuditResult) -> str:
    """Name the column of the table that the attribute was read from, where the configuration is recorded."""
    config = result.provenance.get("config")
    cohort = config.get("cohort") if isinstance(config, Mapping) else None
    if not isinstance(cohort, Mapping) or not isinstance(cohort.get("attribute"), str):
        return ""
    renamed = cohort.get("columns")
    name = str(cohort["attribute"])
    return str(renamed.get(name, name)) if isinstance(renamed, Mapping) else name


def raw_values(result: AuditResult, *, below: int) -> Table | None:
    """Tabulate how the values that the data set recorded became levels; None where they are the levels."""
    reason = f"masked: beside the images in the cohort it tells that fewer than {below} were left out"
    rows = [
        [
            tables.text(str(row["raw"]) or "(blank)"),
            tables.text(row["level"]),
            *(
                tables.absent(reason) if number is None else Cell(count(number), str(number), kind="number")
                for number in (row["images_before"], row["images_after"])
            ),
        ]
        for row in privacy.mask_raw(result.cohort.raw, below=below)
    ]
    columns = [
        Column("Recorded value"),
        Column("Read as"),
        Column("Images in the table", "number"),
        Column("Images in the cohort", "number"),
    ]
    return tables.build("Recorded values and the levels made of them", columns, rows) if rows else None


def _pivot(attribute: str, cells: list[tuple[Mapping[str, Any], bool]], below: int) -> Counts:
    splits = sorted({str(cell["split"]) for cell, _ in cells}, key=lambda split: (_SPLITS.get(split, 9), split))
    levels = list(dict.fromkeys(str(cell["level"]) for cell, _ in cells))
    found = {
        tuple(str(cell[key]) for key in ("split", "level", "label", "value")): (cell, hide) for cell, hide in cells
    }
    heads = dict.fromkeys((str(cell["label"]), str(cell["value"])) for cell, _ in cells)
    columns = [
        Column("Label"),
        Column("Value"),
        *(Column(f"{split}: {level}", "number") for split in splits for level in levels),
    ]
    rows = [
        [
            tables.text(label or "all images"),
            tables.text(value),
            *(_count_cell(found.get((split, level, label, value)), below) for split in splits for level in levels),
        ]
        for label, value in heads
    ]
    title = f"Images (patients) by label and {attribute}, in each part of the cohort"
    return Counts(attribute, tables.build(title, columns, rows), sum(hide for _, hide in cells))


def _count_cell(found: tuple[Mapping[str, Any], bool] | None, below: int) -> Cell:
    if found is None:
        return Cell("0", "0", kind="number")
    cell, hide = found
    if hide:
        return tables.absent(_mask_reason(below))
    return Cell(f"{count(cell['images'])} ({count(cell['patients'])})", str(cell["images"]), kind="number")


def _mask_reason(below: int) -> str:
    return f"masked: the cell, or one that could be found by subtracting it, has fewer than {below} patients"


def _plain(cells: tuple[dict[str, Any], ...], masked: list[bool], below: int) -> Table:
    names = list(dict.fromkeys(key for cell in cells for key in cell))
    sizes = {"images", "patients", "n_images", "n_patients"}
    rows = [
        [
            tables.absent(_mask_reason(below)) if hide and name in sizes else tables.text(cell.get(name, "–"))
            for name in names
        ]
        for cell, hide in zip(cells, masked, strict=True)
    ]
    return tables.build("Images and patients in every cell", [Column(name) for name in names], rows)


def missing(result: AuditResult, *, below: int) -> tuple[str, ...]:
    """Say who and what is missing, in sentences; numbers below are not given."""
    sentences = []
    left_out = [step for step in result.cohort.flow if step.get("excluded_images", 0) != 0]
    patients = sum(int(step.get("excluded_patients") or 0) for step in left_out)
    if left_out and patients < below:
        sentences.append("A few images were left out before the audit, for the reasons in the flow above.")
    elif left_out:
        images = sum(int(step["excluded_images"] or 0) for step in left_out)
        sentences.append(
            f"{_people(images, patients)} were left out before the audit, for the reasons in the flow above."
        )
    elif result.cohort.flow:
        sentences.append("No image was left out.")
    gaps = {name: number for name, number in result.cohort.missing.items() if number != 0}
    if gaps:
        listed = ", ".join(f"{name} in {_few(number, below)} images" for name, number in gaps.items())
        sentences.append(f"Values are missing for {listed}.")
    elif result.cohort.missing:
        sentences.append("No value is missing in " + ", ".join(result.cohort.missing) + ".")
    sentences.append(
        "People whom the table never held (other hospitals, other scanners, patients who were not imaged) are missing "
        "from every number on this page."
    )
    return tuple(sentences)


def _few(number: int | None, below: int) -> str:
    """Write a number of images, unless it is small, or was masked where the audit was shared."""
    return f"fewer than {below}" if number is None or number < below else count(number)
