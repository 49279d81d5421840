"""Page and figure of the whole-pipeline calibration, made from `pipeline.json` alone."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from citlr.run.files import read_json
from citlr.run.rows import Row
from citlr.studies.kit.page import save_figure, write_page
from citlr.studies.pipeline.tables import (
    CONFIDENCE,
    RELEVANT,
    correlation_table,
    flip_rate_table,
    generator_table,
    hidden_lines,
    number_of,
    prediction_table,
    share_of,
    wrong_lines,
)
from citlr.text import joined

TITLE = """# The whole pipeline: how often does an audit accuse an innocent classifier?

This page is made from `pipeline.json` by `citlr calibrate --pipeline{options} --page docs/pipeline.md`. """

PHANTOM = """Phantom worlds{anatomy}, whose
counterfactuals are known exactly, differ in how strongly sex goes together with the two audited findings
(cardiomegaly, effusion). In each, a generator is trained from scratch on the world's own images, and redraws the test
images under both levels. Every classifier is audited as `citlr audit` does it, gates included.

- **Blind** classifiers multiply every pixel that sex can touch by zero: their true dependence is exactly 0.
- **Biased** ones add a known dose of a detector of sex to the logit of a blind one (0.25 to 6 logits).
- **Shortcut** ones are trained on all pixels in patients in whom sex and finding go together, and may have learnt it.
- **Indifferent** ones look at pixels where sex acts (about half of their weights lie there) and use nothing of what
  sex does: their weights are at a right angle to its true change, unit by unit. Any error of the generator there moves
  them.

- **Hidden** ones stand in worlds of their own, where men carry a cue besides what the phantom draws: a texture of
  single pixels, stripes in a band whose images show nothing on average, or a marker in the corner. The generator draws
  images of half the size that these classifiers read. Some read the cue alone, some the finding or
  the cue, some the finding with a dose of the cue. Others use the cue in a part of the images only (raising the output,
  or turning it round), or answer 0 and 1. None of them is to be called equivalent.
"""

SEMIREAL = """Real images ({images} of {patients}
patients, *{cohort}*) into which an attribute is planted whose counterfactuals are known exactly ({effects}; strength
{strength:g}; levels {levels}). Worlds differ in how strongly it goes together with {label}. In each, a generator is
trained from scratch on the world's own images, and redraws the test images under all levels. Every classifier is
audited as `citlr audit` does it, gates included. All classifiers are linear in frozen features: mean grey values, and
what random filters answer.

- **Blind** classifiers have weights at a right angle to what the attribute does to every image of the world: their true
  dependence is 0.
- **Biased** ones add a dose of a detector of the attribute to the logit of a blind one, which turns 2 % to 50 % of the
  decisions, every third towards the first level.
- **Shortcut** ones are trained on the images as they are, in which attribute and finding may go together.
- **Indifferent** ones read the attribute, and let it turn fewer decisions than the margin (about .8 %).
- **Hidden** ones stand in worlds of their own, where images of the last level carry a cue besides what is planted: a
  texture of single pixels, stripes in a band, or a marker in the corner. The generator draws images of half the size
  that these classifiers read. None of them is to be called equivalent.
"""

WORDS = """
A *false alarm* is the verdict "dependence" about a blind classifier. The truth is taken over the same test images,
from their exact counterfactuals.

*On trust* is what the verdict would be if the generator were beyond doubt: without the gates, and without the error
that its own training sample leaves open.
"""

WHY_PHANTOM = """
A blind one is accused as soon as the generator changes pixels that sex cannot touch; an indifferent one when what the
generator changes where sex acts is not what sex does there. An indifferent one still uses a little of sex. So
"dependence" about it is no error of the test, but it would mislead an auditor.
"""

WHY_SEMIREAL = """
A blind one is accused as soon as the generator changes an image in another way than the attribute does. An indifferent
one still uses a little of the attribute. So "dependence" about it is no error of the test, but it would mislead an
auditor.
"""


def head_of(tables: dict[str, Any]) -> str:
    """Write the top of the page; tables without a family are of the phantom as it was."""
    family = tables.get("family", {"world": "phantom", "anatomy": "fixed"})
    if family["world"] == "phantom":
        varying = family["anatomy"] == "varying"
        worlds = PHANTOM.format(anatomy=" whose anatomy varies" if varying else "")
        return TITLE.format(options=" --world varying" if varying else "") + worlds + WORDS + WHY_PHANTOM
    shown = family | {"effects": ", ".join(family["effects"]), "levels": ", ".join(family["levels"])}
    worlds = SEMIREAL.format(**shown, label=family["labels"][0])
    return TITLE.format(options=" --world semireal") + worlds + WORDS + WHY_SEMIREAL


COLOURS = {"blind": "#4d4d4d", "biased": "#1f77b4", "shortcut": "#d95f02", "indifferent": "#1b9e77"}
MARKS = {0: "o", 1: "s", 2: "^"}


def write_pipeline_page(source: str | Path, page: str | Path, *, figure: str = "pipeline.png") -> None:
    """Write the Markdown page."""
    tables = read_json(source)
    lines = [
        head_of(tables),
        "## What was found\n",
        *(f"- {line}" for line in findings(tables)),
        "",
        f"![Estimated against true effect, every classifier]({figure})\n",
        "## By correlation\n",
        *correlation_table(tables["summary"]),
        "\n## What the generator does not draw\n",
        *hidden_lines(tables),
        "\n## What the classifiers answer, and what is carried\n",
        *prediction_table(tables),
        "\n## Found, by true flip rate\n",
        *flip_rate_table(tables["summary"]["all"]),
        "\n## The generators\n",
        *generator_table(tables["worlds"]),
        "\n## Every classifier that was judged wrongly\n",
        *wrong_lines(tables["models"]),
        "\n## How it was made\n",
        *_made(tables),
    ]
    write_page(page, lines)


def findings(tables: dict[str, Any]) -> Iterator[str]:
    """Say the main numbers, one sentence each."""
    every = tables["summary"]["all"]
    alarms, bare = every["false_alarms"], every["false_alarms_on_trust"]
    yield (
        f"False alarms: {share_of(alarms)} blind classifiers, at most {alarms['high']:.1%} by the exact one-sided "
        f"{CONFIDENCE:.0%} bound (classifiers of one world share a generator, so they are not independent); "
        f"on trust {bare['hits']}."
    )
    yield f"Blind classifiers shown to be *equivalent* within the margin of 0.02: {share_of(every['cleared'])}."
    if every["indifferent_accused"]["of"]:
        accused, bare = every["indifferent_accused"], every["indifferent_accused_on_trust"]
        true, estimated = (number_of(value) for value in every["indifferent_psi"])
        yield (
            f"Indifferent classifiers: called *dependent* {share_of(accused)}, on trust {bare['hits']}; "
            f"*equivalent* {share_of(every['indifferent_cleared'])}; largest true psi {true}, largest estimate "
            f"{estimated}."
        )
    found, bare_found = every["detected"], every["detected_on_trust"]
    yield (
        f"Biased and shortcut classifiers whose true flip rate is {RELEVANT:.0%} or more: found {share_of(found)}, at "
        f"least {found['low']:.1%} by the exact bound; on trust {share_of(bare_found)}, at least "
        f"{bare_found['low']:.1%}; called *equivalent*: {every['acquitted']['hits']}."
    )
    psi, mean = every["spearman_psi"], every["spearman_mean_effect"]
    yield (
        f"Rank correlation (Spearman) of estimated with true psi: {number_of(psi)} over all classifiers, "
        f"{number_of(every['spearman_psi_seeing'])} over the biased and shortcut ones; of the mean effect "
        f"{number_of(mean)}."
    )
    hidden = tables["hidden_summary"]["all"]
    if hidden["equivalent"]["of"]:
        yield (
            "Classifiers that read what the generator does not draw: called *equivalent* "
            f"{share_of(hidden['equivalent'])}, on trust {hidden['equivalent_on_trust']['hits']}; inconclusive "
            f"{hidden['inconclusive']['hits']}, dependence {hidden['dependence']['hits']}."
        )
    yield (
        "What the gates cost: blind, biased and shortcut classifiers that are *inconclusive* and would be settled on "
        f"trust: {share_of(every['held_up'])}."
    )
    held = share_of(every["withheld"])
    yield f"A generator gate failed, so that the verdict was *inconclusive*, in {held} audits{_which(tables)}."


def _which(tables: dict[str, Any]) -> str:
    """Name the gates that failed, and in how many audits each."""
    counts = Counter(name for row in tables["models"] for name in row["failed_gates"])
    listed = ", ".join(f"{name} in {count}" for name, count in counts.most_common())
    return f" ({listed})" if listed else ""


def _made(tables: dict[str, Any]) -> Iterator[str]:
    settings = tables["settings"]
    options = ", ".join(f"{name} {value}" for name, value in settings["options"].items())
    kind = settings.get("kind", "dldm").upper()
    held = joined(tables.get("family", {}).get("hold", ["view", "cardiomegaly", "effusion"])) or "nothing"
    yield (
        f"Seed {tables['seed']}; {_images(tables)}; {kind}, preset {settings['preset']}"
        f"{f' with {options}' if options else ''}, which holds {held}; {settings['draws']} draws per level. "
        "Margin 0.02, decisions at 0.5, default gates."
    )


def _images(tables: dict[str, Any]) -> str:
    """Say how many worlds of how many images there are, and what classifiers learnt from."""
    settings, count, family = tables["settings"], len(tables["worlds"]), tables.get("family", {})
    worlds = f"{count} world{'' if count == 1 else 's'}"
    pixels = f"{settings['size']} x {settings['size']}"
    if family.get("world") == "semireal":
        return (
            f"{worlds} of {family['images']} images of {pixels}; classifiers learnt from a share of the training split"
        )
    shares = " / ".join(f"{share:.1%}" for share in settings["fractions"])
    return (
        f"{worlds} of {settings['patients']} patients, one image of {pixels} each ({shares} for training, "
        f"validation, audit); networks trained on {settings['model_patients']} patients of their own for "
        f"{settings['epochs']} rounds"
    )


def write_pipeline_figure(source: str | Path, target: str | Path) -> None:
    """Draw estimated against true psi and mean effect, one mark per classifier, as PNG."""
    models = read_json(source)["models"]
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _scatter(left, models, "true_psi", "psi", "psi")
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
