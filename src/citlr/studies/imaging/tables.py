"""The tables of `citlr reproduce imaging`: rows of measurements to Markdown, CSV and LaTeX."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from citlr.data.associations.records import Association
from citlr.run.rows import Row
from citlr.studies.imaging.study import ImagingStudy
from citlr.studies.kit.page import Cell, Sheet

# Column of log10 p, and what the tables call the test.
TESTS = {
    "log10_citlr": "this project",
    "log10_published": "CIT-LR as published",
    "log10_parity": "demographic parity",
    "log10_opportunity": "equality of opportunity, both outcomes",
}
TARGETS = {"true_psi": "true psi", "true_eca": "1 - true ECA", "eca": "1 - ECA of redrawn images"}


def association_sheet(found: Sequence[Association], study: ImagingStudy) -> Sheet:
    """Cross the findings with the attribute: Fig. 6."""

    def share(level: str) -> Cell:
        return lambda one: f"{one.rates().get(level, float('nan')):.1%}"

    columns: dict[str, Cell] = {
        "finding": lambda one: one.variable,
        **{f"patients with it, {level}": share(level) for level in study.levels},
        "chi-square": lambda one: f"{one.statistic:.2f}",
        "df": lambda one: str(one.dof),
        "p": lambda one: _power(one.log10_pvalue),
        "Cramer's V": lambda one: f"{one.cramers_v:.3f}",
    }
    rows = [one for one in found if one.kind == "label" and one.unit == "patient" and one.variable in study.labels]
    return Sheet.of("association", f"Findings by {study.attribute}, of patients, all splits (Fig. 6)", columns, rows)


def probe_sheet(rows: Sequence[Row], study: ImagingStudy) -> Sheet:
    """Say how well the attribute can be read off the original test images: Table 6."""
    columns: dict[str, Cell] = {
        "level": "{level}",
        "read rightly": lambda row: "none" if row["accuracy"] is None else f"{row['accuracy']:.1%}",
        "AUROC against the rest (95 %)": area,
        "images of it": "{n_positive}",
        "images": "{n_images}",
        "patients": "{n_patients}",
    }
    caption = f"ResNet-34 that reads {study.attribute} off the original test images (Table 6)"
    return Sheet.of("attribute", caption, columns, rows)


def auroc_sheet(rows: Sequence[Row], study: ImagingStudy) -> Sheet:
    """AUROC per network, level and finding, of the best checkpoint: Tables 2 and 3."""
    levels, cells = ("all", *study.levels), []
    for name in dict.fromkeys(row["model"] for row in rows if row["rank"] == 1):
        for label in study.labels:
            own = {row["level"]: row for row in rows if row["model"] == name and row["label"] == label}
            counts = ", ".join(f"{level} {own[level]['n_patients']}" for level in study.levels)
            cells.append((own["all"]["arch"], label, *(area(own[level]) for level in levels), counts))
    caption = (
        "AUROC on the original test images, best checkpoint of each network, with 95 % interval (DeLong, clustered by "
        "patient) (Tables 2 and 3)"
    )
    return Sheet("auroc", caption, ("network", "finding", *levels, "patients"), tuple(cells))


def paired_sheet(rows: Sequence[Row]) -> Sheet:
    """Mean change of the output between two levels, per network and finding: Tables 12 and 13."""
    columns: dict[str, Cell] = {
        "network": "{arch}",
        "finding": "{label}",
        "a / a'": lambda row: " / ".join(row["contrast"]),
        "t": "{paired_t:.2f}",
        "p": lambda row: pvalue(row["paired_p"]),
        "mean difference": "{paired_difference:+.4f}",
        "images": "{n_images}",
        "patients": "{paired_patients}",
    }
    caption = (
        "Paired t-test that the MEAN output is the same under do(a) and do(a'), best checkpoint of each network; draws "
        "are averaged within images, images within patients. Effects that cancel out are invisible to it (Tables 12 "
        "and 13)"
    )
    return Sheet.of("paired", caption, columns, [row for row in rows if row["rank"] == 1])


def agreement(rows: Sequence[Row]) -> list[Row]:
    """Correlate every test with every measure of the effect, per finding and over all of them."""
    frame, found = pd.DataFrame(rows), []
    for finding in (*dict.fromkeys(frame["label"]), "all"):
        own = frame if finding == "all" else frame[frame["label"] == finding]
        for target, _ in TARGETS.items():
            if target not in own:
                continue
            effect = own[target].to_numpy(float) if target == "true_psi" else 1 - own[target].to_numpy(float)
            for test in TESTS:
                weight = -own[test].to_numpy(float)
                varies = len(own) > 2 and np.ptp(weight) > 0 and np.ptp(effect) > 0
                found.append(
                    {
                        "finding": finding,
                        "test": test,
                        "target": target,
                        "models": len(own),
                        "spearman": float(stats.spearmanr(weight, effect).statistic) if varies else None,
                        "pearson": float(stats.pearsonr(weight, effect).statistic) if varies else None,
                    }
                )
    return found


def agreement_sheet(found: Sequence[Row]) -> Sheet:
    """Lay out the correlations: a line per finding and measure, a column per test."""
    cells = []
    for finding in dict.fromkeys(row["finding"] for row in found):
        for target, words in TARGETS.items():
            own = {row["test"]: row for row in found if row["finding"] == finding and row["target"] == target}
            if own:
                line = (_correlations(own[test]) for test in TESTS)
                cells.append((finding, words, str(own["log10_citlr"]["models"]), *line))
    caption = "Spearman (Pearson) correlation of -log10 p with the size of the effect, over models (Fig. 3 and 4)"
    return Sheet("agreement", caption, ("finding", "effect", "models", *TESTS.values()), tuple(cells))


def model_sheet(rows: Sequence[Row]) -> Sheet:
    """List every model, finding and contrast."""

    def chance(test: str) -> Cell:
        return lambda row: _power(row[test])

    truth = {"true psi": "{true_psi:.4f}", "true ECA": "{true_eca:.4f}"} if rows and "true_psi" in rows[0] else {}
    columns: dict[str, Cell] = {
        "model": "{model}",
        "finding": "{label}",
        "a / a'": lambda row: " / ".join(row["contrast"]),
        "verdict": "{verdict}",
        **{f"p, {words}": chance(test) for test, words in TESTS.items()},
        "psi (95 %)": "{psi:.4f} ({psi_low:.4f} to {psi_high:.4f})",
        "ECA": "{eca:.4f}",
        **truth,
    }
    return Sheet.of("models", "Every model, finding and contrast", columns, rows)


def network_sheet(trained: Sequence[Row], failed: Sequence[Row]) -> Sheet:
    """Say what was trained, and how alike the checkpoints are."""
    starts = {"imagenet": "ImageNet", "file": "a file", "random": "random"}
    columns: dict[str, Cell] = {
        "network": "{arch}",
        "checkpoints": "{kept}",
        "of similar accuracy": "{similar}",
        "mean AUROC, validation": "{mean_auroc:.3f}",
        "spread over checkpoints": "{spread:.3f}",
        "augmented": lambda row: "yes" if row["augmented"] else "no",
        "first weights, or error": lambda row: starts[row["start_kind"]],
    }
    sheet = Sheet.of("networks", "Networks and their checkpoints", columns, trained)
    lines = [(row["task"], "0", "0", "none", "none", "", row["error"]) for row in failed]
    return replace(sheet, cells=(*sheet.cells, *lines))


def cost_sheet(shared: Row, models: Sequence[Row]) -> Sheet:
    """Say what was paid once, and what one more model costs."""
    cells = [(name, f"{seconds:.1f}", "") for name, seconds in shared.items()]
    cells += [(row["model"], f"{row['inference_seconds']:.1f}", f"{row['audit_seconds']:.1f}") for row in models]
    head = ("what", "s (of a model: its own inference)", "s on top of a model's inference")
    return Sheet("cost", "Wall-clock time: paid once, and for one more model", head, tuple(cells))


def area(row: Row) -> str:
    """Write an AUROC with its interval, or why there is none.

    >>> area({"estimate": 0.9, "low": 0.8, "high": 0.95, "note": ""})
    '0.900 (0.800 to 0.950)'
    >>> area({"estimate": None, "low": None, "high": None, "note": "no images with the finding"})
    'none: no images with the finding'
    """
    if row["estimate"] is None:
        return f"none: {row['note']}"
    if row["low"] is None:
        return f"{row['estimate']:.3f} ({row['note']})"
    return f"{row['estimate']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def pvalue(value: float) -> str:
    """Write a p-value.

    >>> pvalue(0.0456), pvalue(0.00001)
    ('0.046', '1e-05')
    """
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def _power(log10: float) -> str:
    return pvalue(10**log10) if log10 > -12 else f"10^{log10:.0f}"


def _correlations(row: Row) -> str:
    if row["spearman"] is None:
        return "no variation"
    return f"{row['spearman']:+.2f} ({row['pearson']:+.2f})"
