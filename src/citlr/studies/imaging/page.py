"""The page and the figures of `citlr reproduce imaging`: one HTML page that loads nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from citlr.audit.prediction import read_responses
from citlr.audit.results.statistics import contrasts
from citlr.data.associations.measures import describe
from citlr.data.associations.plot import draw
from citlr.report.charts.scatters import paired
from citlr.run.files import read_json
from citlr.run.rows import Row
from citlr.studies.imaging import tables
from citlr.studies.imaging.study import ImagingStudy
from citlr.studies.imaging.tables import TESTS
from citlr.studies.kit.page import Heading, Part, Picture, write_html

# Colours and shapes that stay apart in grey and for the colour blind (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b3609a", "#56b4e9", "#e69f00")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
AXES = {"eca": "ECA of the redrawn images", "true_eca": "true ECA", "true_psi": "true psi"}


def _style(place: int) -> dict[str, Any]:
    return {"color": COLOURS[place % len(COLOURS)], "marker": SHAPES[place % len(SHAPES)]}


def tests_against(rows: Sequence[Row], target: str) -> Figure:
    """Draw log10 p of the four tests against the size of the effect, a row of panels per finding: Fig. 3 and 4."""
    frame = pd.DataFrame(rows)
    labels, archs = list(dict.fromkeys(frame["label"])), list(dict.fromkeys(frame["arch"]))
    figure = Figure(figsize=(3.1 * len(TESTS), 2.7 * len(labels) + 0.7), layout="constrained")
    panels = figure.subplots(len(labels), len(TESTS), squeeze=False, sharex="row")
    for i, label in enumerate(labels):
        own = frame[frame["label"] == label]
        for j, (test, words) in enumerate(TESTS.items()):
            panel = panels[i][j]
            for k, arch in enumerate(archs):
                part = own[own["arch"] == arch]
                panel.scatter(part[target], part[test], s=26, label=arch, **_style(k))
            fit = _fit(panel, own[target].to_numpy(float), own[test].to_numpy(float))
            panel.axhline(np.log10(0.05), color="#777777", linewidth=0.8, linestyle=":")
            # above the panel, where it hides no mark
            panel.set_title(f"{words}\n{fit}" if i == 0 else fit, fontsize=9)
            panel.set_ylabel(f"{label}\nlog10 p" if j == 0 else "", fontsize=9)
            panel.set_xlabel(AXES[target] if i == len(labels) - 1 else "", fontsize=9)
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(archs), 5), fontsize=8, frameon=False)
    return figure


def _fit(panel: Axes, x: np.ndarray, y: np.ndarray) -> str:
    """Draw the linear fit, and say how well it and the ranks agree."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return "no variation"
    line = stats.linregress(x, y)
    ends = np.array([x.min(), x.max()])
    panel.plot(ends, line.intercept + line.slope * ends, color="#222222", linewidth=1)
    return f"Pearson {line.rvalue:+.2f}, Spearman {stats.spearmanr(x, y).statistic:+.2f}"


def changes(responses: dict[str, pd.DataFrame], study: ImagingStudy, label: str, contrast: tuple[str, str]) -> Figure:
    """Draw the output under do(a') against that under do(a), a panel per network: Fig. 8 to 12."""
    columns = min(len(responses), 5)
    lines = -(-len(responses) // columns)
    figure = Figure(figsize=(2.9 * columns, 2.9 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False)
    for panel in panels.flat[len(responses) :]:
        panel.set_visible(False)
    for panel, (name, table) in zip(panels.flat, responses.items(), strict=False):
        points = paired(table)[study.attribute, label]
        panel.plot([0, 1], [0, 1], color="#777777", linewidth=0.8)
        for k, level in enumerate(study.levels):
            part = points[points["factual"] == level]
            recorded = f"recorded {level} ({len(part)})"
            panel.scatter(part[contrast[0]], part[contrast[1]], s=9, alpha=0.7, label=recorded, **_style(k))
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        panel.set_title(name, fontsize=10)
        panel.set_xlabel(f"output under do({contrast[0]})", fontsize=8)
        panel.set_ylabel(f"output under do({contrast[1]})", fontsize=8)
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(study.levels), fontsize=8, frameon=False)
    return figure


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


def write_pages(study: ImagingStudy, done: Results, folder: Path, *, kind: str, notes: Sequence[str]) -> Path:
    """Write tables, figures and `imaging.html` of a study with this kind of generator; give the page."""
    test = study.cohort.part("test")
    summary = (
        f"{_count(len(done.models), 'model')} of {_count(len({row['arch'] for row in done.models}), 'network')}, "
        f"{_count(len(study.labels), 'finding')} ({', '.join(study.labels)}), {study.attribute}: "
        f"{', '.join(study.levels)}. Tested on {_count(len(test), 'image')} of "
        f"{_count(test.frame['patient_id'].nunique(), 'patient')}, redrawn once for all models. "
        f"The generator ({kind}) held: {', '.join(study.hold) or 'nothing'}."
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
        Picture.of(tests_against(done.rows, target), folder, f"tests-{target}", words)
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
            pictures.append(Picture.of(changes(responses, study, label, contrast), folder, name, caption))
    return tuple(pictures)
