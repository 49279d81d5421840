"""The page of `citlr reproduce imaging`: every table and figure on one HTML page that loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from citlr.audit.prediction import read_responses
from citlr.audit.results.statistics import contrasts
from citlr.data.associations.measures import describe
from citlr.data.associations.plot import draw
from citlr.report.page import environment, stylesheet
from citlr.run.files import atomic_write, read_json
from citlr.run.rows import Row
from citlr.studies.imaging import figures, tables
from citlr.studies.imaging.study import ImagingStudy
from citlr.studies.kit.page import save_figure
from citlr.studies.kit.sheet import Sheet
from citlr.text import visible
from citlr.version import __version__


@dataclass(frozen=True)
class Picture:
    """A figure: its bytes as base64, its file relative to the page, and what it shows."""

    data: str
    link: str
    caption: str


@dataclass(frozen=True)
class Part:
    """A section of the page."""

    name: str
    title: str
    sheets: tuple[Sheet, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Results:
    """All rows of a study.

    - `trained`, `failed`: Networks, and the tasks that failed.
    - `models`, `rows`, `aurocs`: A row per model; per model, finding and contrast; per model, finding and level.
    - `shared`: Seconds that were spent once.
    - `agreement`: See `imaging_tables.agreement`.
    """

    trained: Sequence[Row]
    failed: Sequence[Row]
    models: Sequence[Row]
    rows: Sequence[Row]
    aurocs: Sequence[Row]
    shared: Row
    agreement: Sequence[Row]


def write_pages(study: ImagingStudy, done: Results, folder: Path, *, notes: Sequence[str]) -> Path:
    """Write tables, figures and `imaging.html`; give the page."""
    parts = _parts(study, done, folder)
    for part in parts:
        for sheet in part.sheets:
            sheet.write(folder / "tables")
    engine = environment().overlay(loader=jinja2.PackageLoader("citlr.studies.imaging", "templates"))
    test = study.cohort.part("test")
    summary = (
        f"{_count(len(done.models), 'model')} of {_count(len({row['arch'] for row in done.models}), 'network')}, "
        f"{_count(len(study.labels), 'finding')} ({', '.join(study.labels)}), {study.attribute}: "
        f"{', '.join(study.levels)}. Tested on {_count(len(test), 'image')} of "
        f"{_count(test.frame['patient_id'].nunique(), 'patient')}, redrawn once for all models. "
        f"The generator held: {', '.join(study.hold) or 'nothing'}."
    )
    page = engine.get_template("imaging.html.j2").render(
        version=__version__,
        style=stylesheet(),
        title=study.name[:1].upper() + study.name[1:],
        summary=summary,
        notes=list(notes),
        parts=parts,
        fleet="audit.html",
    )
    with atomic_write(folder / "imaging.html") as temporary:
        temporary.write_text(visible(page), encoding="utf-8")
    return folder / "imaging.html"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _parts(study: ImagingStudy, done: Results, folder: Path) -> list[Part]:
    description = describe(study.cohort, attributes=[study.attribute])
    association = tables.association_sheet(description.associations, study)
    drawn = _picture(
        draw(description), folder, "association", f"Findings, missing labels, view and age by {study.attribute}."
    )
    probe = tables.probe_sheet(read_json(folder / "attribute.json"), study)
    truth = bool(done.rows) and "true_psi" in done.rows[0]
    against = [
        _picture(figures.tests_against(done.rows, target), folder, f"tests-{target}", words)
        for target, words in _against(truth)
    ]
    return [
        Part(
            "agreement",
            "Tests against the size of the effect",
            (tables.agreement_sheet(done.agreement),),
            (*against,),
        ),
        Part("auroc", "AUROC by network, level and finding", (tables.auroc_sheet(done.aurocs, study),)),
        Part("association", "Findings and the attribute", (association,), (drawn,)),
        Part("attribute", "The attribute can be seen", (probe,)),
        Part("change", "Output under both levels", (tables.paired_sheet(done.rows),), _changes(study, done, folder)),
        Part("models", "Every model", (tables.model_sheet(done.rows),)),
        Part("networks", "Networks", (tables.network_sheet(done.trained, done.failed),)),
        Part("cost", "Cost", (tables.cost_sheet(done.shared, done.models),)),
    ]


def _against(truth: bool) -> list[tuple[str, str]]:
    words = (
        "log10 p of the four tests against {}; one mark per model, dotted: p = 0.05. A test that measures the effect "
    )
    words += "falls {}."
    targets = (
        [("true_psi", words.format("the true psi (exact counterfactuals)", "from left to right"))] if truth else []
    )
    targets += (
        [("true_eca", words.format("the true ECA (exact counterfactuals)", "from right to left"))] if truth else []
    )
    caption = words.format("ECA", "from right to left") + " This ECA also counts flips that generator noise makes."
    return [*targets, ("eca", caption)]


def _changes(study: ImagingStudy, done: Results, folder: Path) -> tuple[Picture, ...]:
    best = [row for row in done.models if row["rank"] == 1]
    responses = {}
    for row in best:
        table = read_responses(folder / "models" / row["model"] / "responses.parquet")
        responses[row["arch"]] = table[table["attribute"] == study.attribute]
    pictures = []
    for label in study.labels:
        for contrast in contrasts(study.levels):
            name = "-".join(["change", label, *contrast]).replace(" ", "_").replace("/", "_")
            caption = (
                f"{label}: output under do({contrast[1]}) against do({contrast[0]}), best checkpoint of each network, "
                "draws averaged, one mark per test image, coloured by the recorded level (Fig. 8 to 12)."
            )
            pictures.append(_picture(figures.changes(responses, study, label, contrast), folder, name, caption))
    return tuple(pictures)


def _picture(figure: Any, folder: Path, name: str, caption: str) -> Picture:
    path = save_figure(figure, folder / "figures" / f"{name}.png")
    return Picture(base64.b64encode(path.read_bytes()).decode(), f"figures/{path.name}", caption)
