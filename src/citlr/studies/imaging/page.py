"""The page of `citlr reproduce imaging`: every table and figure on one HTML page that loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from citlr.audit.prediction import read_responses
from citlr.audit.results.statistics import contrasts
from citlr.data.associations.measures import describe
from citlr.data.associations.plot import draw
from citlr.run.files import read_json
from citlr.run.rows import Row
from citlr.studies.imaging import figures, tables
from citlr.studies.imaging.study import ImagingStudy
from citlr.studies.kit.page import Heading, Part, Picture, write_html


@dataclass(frozen=True)
class Results:
    """All rows of a study.

    - `models`, `rows`, `aurocs`: A row per model; per model, finding and contrast; per model, finding and level.
    - `shared`: Seconds that were spent once.
    - `agreement`: See `citlr.studies.imaging.tables.agreement`.
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
    test = study.cohort.part("test")
    summary = (
        f"{_count(len(done.models), 'model')} of {_count(len({row['arch'] for row in done.models}), 'network')}, "
        f"{_count(len(study.labels), 'finding')} ({', '.join(study.labels)}), {study.attribute}: "
        f"{', '.join(study.levels)}. Tested on {_count(len(test), 'image')} of "
        f"{_count(test.frame['patient_id'].nunique(), 'patient')}, redrawn once for all models. "
        f"The generator held: {', '.join(study.hold) or 'nothing'}."
    )
    heading = Heading("Imaging study", study.name[:1].upper() + study.name[1:], summary, notes)
    write_html(folder / "imaging.html", heading, _parts(study, done, folder), fleet="audit.html")
    return folder / "imaging.html"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _parts(study: ImagingStudy, done: Results, folder: Path) -> list[Part]:
    description = describe(study.cohort, attributes=[study.attribute])
    association = tables.association_sheet(description.associations, study)
    drawn = Picture.of(
        draw(description), folder, "association", f"Findings, missing labels, view and age by {study.attribute}."
    )
    probe = tables.probe_sheet(read_json(folder / "attribute.json"), study)
    truth = bool(done.rows) and "true_psi" in done.rows[0]
    against = [
        Picture.of(figures.tests_against(done.rows, target), folder, f"tests-{target}", words)
        for target, words in _against(truth)
    ]
    return [
        Part(
            "agreement", "Tests against the size of the effect", (tables.agreement_sheet(done.agreement),), (*against,)
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
    """Say which measures of the effect the tests are drawn against, and what the reader sees there."""
    words = (
        "log10 p of the four tests against {}; one mark per model, dotted: p = 0.05. A test that measures the effect "
        "falls {}."
    )
    psi = words.format("the true psi (exact counterfactuals)", "from left to right")
    eca = words.format("the true ECA (exact counterfactuals)", "from right to left")
    seen = words.format("ECA", "from right to left") + " This ECA also counts flips that generator noise makes."
    return [*([("true_psi", psi), ("true_eca", eca)] if truth else []), ("eca", seen)]


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
            pictures.append(Picture.of(figures.changes(responses, study, label, contrast), folder, name, caption))
    return tuple(pictures)
