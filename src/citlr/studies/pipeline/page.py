"""Page and figure of the whole-pipeline calibration, made from `pipeline.json` alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from citlr.config import GateConfig, TestConfig
from citlr.run.files import read_json
from citlr.run.rows import Row
from citlr.studies.kit.page import save_figure, write_page
from citlr.studies.kit.sheet import Cell, markdown_table
from citlr.studies.pipeline.summary import CONFIDENCE, RELEVANT

COLOURS = {"blind": "#4d4d4d", "biased": "#1f77b4", "shortcut": "#d95f02", "indifferent": "#1b9e77"}
# A classifier that changes fewer of its decisions than the audit's margin is not to be accused.
MARGIN = TestConfig().margin
MARKS = {0: "o", 1: "s", 2: "^"}

HEAD = """# The whole pipeline: how often does an audit accuse an innocent classifier?

This page is made from `pipeline.json` by `citlr calibrate --pipeline --page docs/pipeline.md`. Phantom worlds, whose
counterfactuals are known exactly, differ in how strongly sex goes together with the two audited findings
(cardiomegaly, effusion). In each, a generator is trained from scratch on the world's own images, redraws the test
images under both levels, and every classifier is audited as `citlr audit` does it, gates included.

- **Blind** classifiers multiply every pixel that sex can touch by zero: their true dependence is exactly 0.
- **Biased** ones add a known dose of a detector of sex to the logit of a blind one (0.25 to 6 logits).
- **Shortcut** ones are trained on all pixels in patients in whom sex and finding go together, and may have learnt it.
- **Indifferent** ones look at pixels where sex acts (about half of their weights lie there) and use nothing of what
  sex does: their weights are at a right angle to its true change, unit by unit. Any error of the generator there moves
  them.

- **Hidden** ones stand in worlds of their own, where men carry a cue besides what the phantom draws: a texture of
  single pixels, stripes in a band whose images show nothing on average, or a marker in the corner. The generator draws
  images of half the size that these classifiers read. They read the cue alone, or the finding or the cue, or a dose of
  the cue on the finding, or use it in a part of the images only (raising the output, or turning it round), or answer 0
  and 1. None of them is to be called equivalent.

A *false alarm* is the verdict "dependence" about a blind classifier. The truth is taken over the same test images,
from their exact counterfactuals.

*On trust* is what the verdict would be if the generator were beyond doubt: without the gates, and without the error
that its own training sample leaves open.

A blind one is accused as soon as the generator changes pixels that sex cannot touch; an indifferent one when what the
generator changes where sex acts is not what sex does there. What is left of sex in an indifferent one is little and not
nothing, so that "dependence" about it is no error of the test, but not what an auditor is to be told either.
"""


def write_pipeline_page(source: str | Path, page: str | Path, *, figure: str = "pipeline.png") -> None:
    """Write the Markdown page."""
    tables = read_json(source)
    lines = [
        HEAD,
        "## What was found\n",
        *(f"- {line}" for line in findings(tables)),
        "",
        f"![Estimated against true effect, every classifier]({figure})\n",
        "## By correlation\n",
        *_by_correlation(tables["summary"]),
        "\n## What the generator does not draw\n",
        *_hidden(tables),
        "\n## What the classifiers answer, and what is carried\n",
        *_answers(tables),
        "\n## Found, by true flip rate\n",
        *_by_flip_rate(tables["summary"]["all"]),
        "\n## The generators\n",
        *_generators(tables["worlds"]),
        "\n## Every classifier that was judged wrongly\n",
        *_wrong(tables["models"]),
        "\n## How it was made\n",
        *_made(tables),
    ]
    write_page(page, lines)


def findings(tables: dict[str, Any]) -> Iterator[str]:
    """Say the main numbers, one sentence each."""
    every = tables["summary"]["all"]
    alarms, bare = every["false_alarms"], every["false_alarms_on_trust"]
    yield (
        f"False alarms: {_share(alarms)} blind classifiers, at most {alarms['high']:.1%} by the exact one-sided "
        f"{CONFIDENCE:.0%} bound (classifiers of one world share a generator, so they are not independent); "
        f"on trust {bare['hits']}."
    )
    yield f"Blind classifiers shown to be *equivalent* within the margin of 0.02: {_share(every['cleared'])}."
    if every["indifferent_accused"]["of"]:
        accused, bare = every["indifferent_accused"], every["indifferent_accused_on_trust"]
        true, estimated = (_number(value) for value in every["indifferent_psi"])
        yield (
            f"Indifferent classifiers: called *dependent* {_share(accused)}, on trust {bare['hits']}; "
            f"*equivalent* {_share(every['indifferent_cleared'])}; largest true psi {true}, largest estimate "
            f"{estimated}."
        )
    found, bare_found = every["detected"], every["detected_on_trust"]
    yield (
        f"Biased and shortcut classifiers whose true flip rate is {RELEVANT:.0%} or more: found {_share(found)}, at "
        f"least {found['low']:.1%} by the exact bound; on trust {_share(bare_found)}, at least "
        f"{bare_found['low']:.1%}; called *equivalent*: {every['acquitted']['hits']}."
    )
    psi, mean = every["spearman_psi"], every["spearman_mean_effect"]
    yield (
        f"Rank correlation (Spearman) of estimated with true psi: {_number(psi)} over all classifiers, "
        f"{_number(every['spearman_psi_seeing'])} over the biased and shortcut ones; of the mean effect "
        f"{_number(mean)}."
    )
    hidden = tables["hidden_summary"]["all"]
    if hidden["equivalent"]["of"]:
        yield (
            "Classifiers that read what the generator does not draw: called *equivalent* "
            f"{_share(hidden['equivalent'])}, on trust {hidden['equivalent_on_trust']['hits']}; inconclusive "
            f"{hidden['inconclusive']['hits']}, dependence {hidden['dependence']['hits']}."
        )
    yield (
        "What the gates cost: blind, biased and shortcut classifiers that are *inconclusive* and would be settled on "
        f"trust: {_share(every['held_up'])}."
    )
    held = every["withheld"]
    yield f"A generator gate failed, so that the verdict was *inconclusive*, in {_share(held)} audits{_which(tables)}."


def _hidden(tables: dict[str, Any]) -> Iterator[str]:
    """Tabulate the classifiers that read a cue."""
    summary = tables["hidden_summary"]
    if not summary["all"]["equivalent"]["of"]:
        yield "No such world was made."
        return
    limits = GateConfig()
    yield (
        "Three gates are about it. *Effectiveness*: a probe at the size that the classifier reads says what share of "
        f"the attribute redrawn images carry, at least {limits.effectiveness:.0%}. *Agreement*: the classifier answers "
        f"null interventions as it answers originals (at least {limits.agreement:.0%} equal decisions, a rank "
        f"correlation of {limits.agreement_rank:g}, AUROCs of attribute and finding at most {limits.agreement_auroc:g} "
        "apart). *Unexplained difference*: recorded levels get answers that differ by more than the margin, given what "
        "is recorded, and redrawing does not show it. An audit may fail several.\n"
    )
    worlds = {row["cue"]: row for row in tables["hidden_worlds"]}

    def carried(row: Row) -> str:
        return " / ".join(_carried(one) for one in worlds.get(row["name"], {"carried": {}})["carried"].values())

    columns: dict[str, Cell] = {
        "cue": "{name}",
        "called equivalent": lambda row: _share(row["equivalent"]),
        "on trust": "{equivalent_on_trust[hits]}",
        "inconclusive": "{inconclusive[hits]}",
        "dependence": "{dependence[hits]}",
        "effectiveness failed": "{gates[effectiveness]}",
        "agreement failed": "{gates[agreement]}",
        "unexplained difference": "{gates[unexplained difference]}",
        "smallest true flip rate": "{smallest_flip_rate:.3f}",
        "carried at the generator's size / at the classifier's": carried,
    }
    yield from markdown_table(columns, [{"name": name, **group} for name, group in summary.items()], "lrrrrrrrrl")


def _answers(tables: dict[str, Any]) -> list[str]:
    """Tabulate what the gates on the classifiers' own answers rest on: the range of each number, by kind."""
    limits = GateConfig()
    groups: dict[str, list[Row]] = {}
    for row in [*tables["models"], *tables["hidden"]]:
        groups.setdefault(row["kind"] if "cue" not in row else f"hidden, {row['cue']}", []).append(row)

    def span(name: str) -> Cell:
        return lambda group: _span([row[name] for row in group[1] if row[name] is not None])

    columns: dict[str, Cell] = {
        "classifiers": lambda group: group[0],
        "audits": lambda group: str(len(group[1])),
        f"equal decisions (limit {limits.agreement:g})": span("agreement"),
        f"rank correlation ({limits.agreement_rank:g})": span("agreement_rank"),
        f"change of AUROC ({limits.agreement_auroc:g})": span("agreement_auroc"),
        "share carried, lower bound": span("carried"),
        "difference beyond the margin": lambda group: str(sum(bool(row["beyond"]) for row in group[1])),
    }
    return markdown_table(columns, groups.items(), "lrllllr")


def _span(values: list[float]) -> str:
    return f"{min(values):.3f} to {max(values):.3f}" if values else "unknown"


def _carried(shares: dict[str, float] | str) -> str:
    return "unknown" if isinstance(shares, str) else f"{min(shares.values()):.2f}"


def _which(tables: dict[str, Any]) -> str:
    """Name the gates that failed, and in how many audits each."""
    counts = Counter(name for row in tables["models"] for name in row["failed_gates"])
    listed = ", ".join(f"{name} in {count}" for name, count in counts.most_common())
    return f" ({listed})" if listed else ""


def _share(count: Row) -> str:
    return f"{count['hits']} of {count['of']}" + ("" if count["rate"] is None else f" ({count['rate']:.1%})")


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _by_correlation(summary: dict[str, Row]) -> list[str]:
    def share(name: str) -> Cell:
        return lambda row: _share(row[name])

    columns: dict[str, Cell] = {
        "correlation": "{name}",
        "false alarms (on trust)": lambda row: (
            f"{_share(row['false_alarms'])}, ({row['false_alarms_on_trust']['hits']})"
        ),
        "upper bound": "{false_alarms[high]:.1%}",
        "blind called equivalent": share("cleared"),
        "inconclusive, all": share("inconclusive"),
        "gate failed": share("withheld"),
        "found (true flip rate at least 5 %)": share("detected"),
        "on trust": share("detected_on_trust"),
        "Spearman psi": lambda row: _number(row["spearman_psi"]),
        "Spearman mean effect": lambda row: _number(row["spearman_mean_effect"]),
    }
    return markdown_table(columns, [{"name": name, **group} for name, group in summary.items()], "lrrrrrrrrr")


def _by_flip_rate(every: Row) -> list[str]:
    columns: dict[str, Cell] = {
        "true flip rate": lambda part: f"{part['from']:g} to {min(part['below'], 1):g}",
        "found": _share,
        "exact bounds": lambda part: f"{part['low']:.1%} to {part['high']:.1%}" if part["of"] else "",
        "psi read, of the true one (median)": lambda part: (
            "" if part["psi_share"] is None else f"{part['psi_share']:.0%}"
        ),
    }
    return markdown_table(columns, every["detected_by_flip_rate"], "lrlr")


def _generators(worlds: list[Row]) -> list[str]:
    columns: dict[str, Cell] = {
        "correlation": "{correlation:g}",
        "generator": "{number}",
        "relative error": "{effect[relative_error]:.3f}",
        "cosine": "{effect[cosine]:.3f}",
        "scale": "{effect[scale]:.2f}",
        "outside": "{effect[outside]:.4f}",
        "composition": "{composition:.4f}",
        "effectiveness F / M": lambda row: (
            " / ".join(f"{value:.3f}" for value in row["effectiveness"].values()) or "unknown"
        ),
        "drift of cardiomegaly, effusion, view": lambda row: ", ".join(
            _moved(row["drift"].get(name)) for name in ("cardiomegaly", "effusion", "view")
        ),
        "guidance": lambda row: f"{row['training'].get('guidance', float('nan')):g}",
        "core minutes": lambda row: f"{row['fit_core_seconds'] / 60:.1f}",
    }
    return markdown_table(columns, sorted(worlds, key=lambda row: (row["correlation"], row["number"])), "lrrrrrrllrr")


def _moved(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.3f}"


def _wrong(models: list[Row]) -> Iterator[str]:
    wrong = [row for row in models if _is_wrong(row)]
    if not wrong:
        yield (
            "None: no blind or indifferent classifier was accused, and none with a true flip rate of 5 % or more was "
            "missed but where a gate withheld the verdict."
        )
        return
    columns: dict[str, Cell] = {
        "world": "{place}",
        "classifier": "{model} ({strength:+g})",
        "finding": "{finding}",
        "architecture": "{architecture}",
        "true flip rate": "{true_flip_rate:.3f}",
        "psi": "{psi:.3f}",
        "p": "{pvalue:.2g}",
        "verdict": "{verdict}",
        "gates that failed": lambda row: ", ".join(row["failed_gates"]) or "none",
    }
    yield from markdown_table(columns, wrong, "llllrrrll")


def _is_wrong(row: Row) -> bool:
    if row["kind"] == "blind" or (row["kind"] == "indifferent" and row["true_flip_rate"] < MARGIN):
        return bool(row["verdict"] == "dependence")
    # What a gate withheld is counted above: here are the errors of the test.
    return bool(row["true_flip_rate"] >= RELEVANT and row["ungated_verdict"] != "dependence")


def _made(tables: dict[str, Any]) -> Iterator[str]:
    settings = tables["settings"]
    options = ", ".join(f"{name} {value}" for name, value in settings["options"].items())
    count = len(tables["worlds"])
    shares = " / ".join(f"{share:.1%}" for share in settings["fractions"])
    yield (
        f"Seed {tables['seed']}; {count} world{'' if count == 1 else 's'} of {settings['patients']} patients, one "
        f"image of {settings['size']} x {settings['size']} each ({shares} for training, validation, audit); "
        f"DLDM, preset {settings['preset']}{f' with {options}' if options else ''}, which holds view, cardiomegaly and "
        f"effusion; {settings['draws']} draws per level; networks trained on {settings['model_patients']} patients of "
        f"their own for {settings['epochs']} rounds. Margin 0.02, decisions at 0.5, default gates."
    )


def write_pipeline_figure(source: str | Path, target: str | Path) -> None:
    """Draw estimated against true psi and mean effect, one mark per classifier, as PNG."""
    models = read_json(source)["models"]
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _scatter(left, models, "true_psi", "psi", "psi (excess flip rate)")
    _scatter(right, models, "true_mean_effect", "mean_effect", "mean effect on the decision")
    handles, labels = left.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(COLOURS), frameon=False, fontsize=8)
    save_figure(figure, target, dpi=110)


def _scatter(axes: Axes, models: list[Row], true: str, estimated: str, title: str) -> None:
    worlds = sorted({row["correlation"] for row in models})
    for kind, colour in COLOURS.items():
        for place, correlation in enumerate(worlds):
            rows = [row for row in models if row["kind"] == kind and row["correlation"] == correlation]
            if rows:
                x, y = [row[true] for row in rows], [row[estimated] for row in rows]
                name = f"{kind}, correlation {correlation:g}"
                mark = MARKS[place % len(MARKS)]
                axes.plot(x, y, mark, color=colour, markersize=5, alpha=0.7, markeredgewidth=0, label=name)
    values = [row[key] for row in models for key in (true, estimated)] or [0.0, 1.0]
    span = [min(0.0, *values), max(0.05, *values)]
    axes.plot(span, span, color="black", linewidth=0.8)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("true")
    axes.set_ylabel("estimated through the trained generator")
