"""What the audits of known classifiers add up to, and the tables of the whole-pipeline calibration's page."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy import stats

from citlr.config import GateConfig, TestConfig
from citlr.run.rows import Row
from citlr.studies.calibration.counts import exact_bounds
from citlr.studies.kit.page import Cell, table_lines

CONFIDENCE = 0.95
# True flip rates from which on a bias is to be found.
RELEVANT = 0.05
# What the names of the gates begin with that a classifier which reads what is not redrawn may fail.
HIDDEN_GATES = ("effectiveness", "difference left", "agreement", "unexplained difference")
BINS = (0.0, 0.01, 0.02, 0.05, 0.10, 0.20, 1.01)


def rate(rows: Sequence[Row], says: Callable[[Row], bool]) -> dict[str, Any]:
    """Count how many rows say so, with exact bounds; the rate of no rows is None."""
    hits = sum(bool(says(row)) for row in rows)
    low, high = exact_bounds(hits, len(rows), CONFIDENCE)
    return {"hits": hits, "of": len(rows), "rate": hits / len(rows) if rows else None, "low": low, "high": high}


def spearman(rows: Sequence[Row], estimated: str, true: str) -> float | None:
    """Rank correlation of what was estimated with what is true; None where either is the same everywhere.

    >>> spearman([{"a": 1, "b": 2}, {"a": 2, "b": 5}, {"a": 3, "b": 9}], "a", "b")
    1.0
    """
    a, b = ([float(row[name]) for row in rows] for name in (estimated, true))
    if len(rows) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(stats.spearmanr(a, b).statistic)


def summarise_pipeline(rows: Sequence[Row]) -> dict[str, Any]:
    """Add up the audits."""
    groups: dict[str, list[Row]] = {"all": list(rows)}
    for row in sorted(rows, key=lambda row: float(row["correlation"])):
        groups.setdefault(f"{row['correlation']:g}", []).append(row)
    return {name: _summary(group) for name, group in groups.items()}


def summarise_hidden(rows: Sequence[Row]) -> dict[str, Any]:
    """Add up the audits of classifiers that read a cue: verdicts and failed gates, "all" and by cue."""
    groups: dict[str, list[Row]] = {"all": list(rows)}
    for row in rows:
        groups.setdefault(str(row["cue"]), []).append(row)
    return {
        name: {
            **{
                verdict: rate(group, lambda row, verdict=verdict: row["verdict"] == verdict)  # type: ignore[misc]
                for verdict in ("equivalent", "inconclusive", "dependence")
            },
            "equivalent_on_trust": rate(group, lambda row: row["ungated_verdict"] == "equivalent"),
            "smallest_flip_rate": min((float(row["true_flip_rate"]) for row in group), default=None),
            "gates": {
                gate: sum(any(name.startswith(gate) for name in row["failed_gates"]) for row in group)
                for gate in HIDDEN_GATES
            },
        }
        for name, group in groups.items()
    }


def _largest(rows: list[Row], key: str) -> float | None:
    return max((float(row[key]) for row in rows), default=None)


def _psi_share(rows: Sequence[Row]) -> float | None:
    """Give the median of estimated over true psi, of those that have any; None without such.

    >>> _psi_share([{"psi": 0.1, "true_psi": 0.2}, {"psi": 0.0, "true_psi": 0.0}])
    0.5
    """
    shares = [row["psi"] / row["true_psi"] for row in rows if row["true_psi"] > 0]
    return float(np.median(shares)) if shares else None


def _summary(rows: list[Row]) -> dict[str, Any]:
    blind = [row for row in rows if row["kind"] == "blind"]
    seeing = [row for row in rows if row["kind"] in ("biased", "shortcut")]
    indifferent = [row for row in rows if row["kind"] == "indifferent"]
    strong = [row for row in seeing if row["true_flip_rate"] >= RELEVANT]
    ladder = []
    for low, high in itertools.pairwise(BINS):
        part = [row for row in seeing if low <= row["true_flip_rate"] < high]
        found = rate(part, lambda row: row["verdict"] == "dependence")
        ladder.append({"from": low, "below": high, **found, "psi_share": _psi_share(part)})
    return {
        "false_alarms": rate(blind, lambda row: row["verdict"] == "dependence"),
        "false_alarms_on_trust": rate(blind, lambda row: row["ungated_verdict"] == "dependence"),
        "cleared": rate(blind, lambda row: row["verdict"] == "equivalent"),
        "indifferent_accused": rate(indifferent, lambda row: row["verdict"] == "dependence"),
        "indifferent_accused_on_trust": rate(indifferent, lambda row: row["ungated_verdict"] == "dependence"),
        "indifferent_cleared": rate(indifferent, lambda row: row["verdict"] == "equivalent"),
        "indifferent_psi": [_largest(indifferent, "true_psi"), _largest(indifferent, "psi")],
        "inconclusive": rate(rows, lambda row: row["verdict"] == "inconclusive"),
        # What the gates cost: settled on trust, and settled no more.
        "held_up": rate([*blind, *seeing], lambda row: row["verdict"] == "inconclusive" != row["ungated_verdict"]),
        "withheld": rate(rows, lambda row: bool(row["failed_gates"])),
        "detected": rate(strong, lambda row: row["verdict"] == "dependence"),
        "detected_on_trust": rate(strong, lambda row: row["ungated_verdict"] == "dependence"),
        "acquitted": rate(strong, lambda row: row["verdict"] == "equivalent"),
        "detected_by_flip_rate": ladder,
        "spearman_psi": spearman(rows, "psi", "true_psi"),
        "spearman_psi_seeing": spearman(seeing, "psi", "true_psi"),
        "spearman_mean_effect": spearman(rows, "mean_effect", "true_mean_effect"),
    }


# A classifier that changes fewer of its decisions than the audit's margin is not to be accused.
MARGIN = TestConfig().margin


def hidden_lines(tables: dict[str, Any]) -> Iterator[str]:
    """Tabulate the classifiers that read a cue."""
    summary = tables["hidden_summary"]
    if not summary["all"]["equivalent"]["of"]:
        yield "No such world was made."
        return
    limits = GateConfig()
    yield (
        "Four gates are about it. *Effectiveness*: a probe at the size that the classifier reads says what share of "
        f"the attribute redrawn images carry, at least {limits.effectiveness:.0%}. *Difference left*: redrawing leaves "
        f"at most {limits.difference_left:.0%} of the squared difference between recorded levels at that size; more "
        "forbids *equivalent*. *Agreement*: the classifier answers "
        f"null interventions as it answers originals (at least {limits.agreement:.0%} equal decisions, a rank "
        f"correlation of {limits.agreement_rank:g}, AUROCs of attribute and finding at most {limits.agreement_auroc:g} "
        "apart). *Unexplained difference*: recorded levels get answers that differ by more than the margin, given what "
        "is recorded, and redrawing does not show it. An audit may fail several.\n"
    )

    def carried(row: Row) -> str:
        own = [world["carried"] for world in tables["hidden_worlds"] if world["cue"] == row["name"]]
        return "; ".join(" / ".join(map(_carried, one.values())) for one in own)

    columns: dict[str, Cell] = {
        "cue": "{name}",
        "called equivalent": lambda row: share_of(row["equivalent"]),
        "on trust": "{equivalent_on_trust[hits]}",
        "inconclusive": "{inconclusive[hits]}",
        "dependence": "{dependence[hits]}",
        "effectiveness failed": "{gates[effectiveness]}",
        "difference left failed": "{gates[difference left]}",
        "agreement failed": "{gates[agreement]}",
        "unexplained difference": "{gates[unexplained difference]}",
        "smallest true flip rate": "{smallest_flip_rate:.3f}",
        "carried at the generator's size / at the classifier's": carried,
    }
    yield from table_lines(columns, [{"name": name, **group} for name, group in summary.items()], "lrrrrrrrrrl")


def prediction_table(tables: dict[str, Any]) -> list[str]:
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
    return table_lines(columns, groups.items(), "lrllllr")


def _span(values: list[float]) -> str:
    return f"{min(values):.3f} to {max(values):.3f}" if values else "unknown"


def _carried(shares: dict[str, float] | str) -> str:
    return "unknown" if isinstance(shares, str) else f"{min(shares.values()):.2f}"


def share_of(count: Row) -> str:
    """Write a count of `rate`: how many of how many."""
    return f"{count['hits']} of {count['of']}" + ("" if count["rate"] is None else f" ({count['rate']:.1%})")


def number_of(value: float | None) -> str:
    """Write a correlation or an effect."""
    return "not defined" if value is None else f"{value:.3f}"


def correlation_table(summary: dict[str, Row]) -> list[str]:
    """Tabulate the audits by the correlation of their world."""

    def share(name: str) -> Cell:
        return lambda row: share_of(row[name])

    columns: dict[str, Cell] = {
        "correlation": "{name}",
        "false alarms (on trust)": lambda row: (
            f"{share_of(row['false_alarms'])}, ({row['false_alarms_on_trust']['hits']})"
        ),
        "upper bound": "{false_alarms[high]:.1%}",
        "blind called equivalent": share("cleared"),
        "inconclusive, all": share("inconclusive"),
        "gate failed": share("withheld"),
        "found (true flip rate at least 5 %)": share("detected"),
        "on trust": share("detected_on_trust"),
        "Spearman psi": lambda row: number_of(row["spearman_psi"]),
        "Spearman mean effect": lambda row: number_of(row["spearman_mean_effect"]),
    }
    return table_lines(columns, [{"name": name, **group} for name, group in summary.items()], "lrrrrrrrrr")


def flip_rate_table(every: Row) -> list[str]:
    """Tabulate what was found, by the true flip rate."""
    columns: dict[str, Cell] = {
        "true flip rate": lambda part: f"{part['from']:g} to {min(part['below'], 1):g}",
        "found": share_of,
        "exact bounds": lambda part: f"{part['low']:.1%} to {part['high']:.1%}" if part["of"] else "",
        "psi read, of the true one (median)": lambda part: (
            "" if part["psi_share"] is None else f"{part['psi_share']:.0%}"
        ),
    }
    return table_lines(columns, every["detected_by_flip_rate"], "lrlr")


def generator_table(worlds: list[Row]) -> list[str]:
    """Tabulate how faithful the generators are."""
    held = sorted({name for row in worlds for name in row["drift"]})
    guided = bool(worlds) and all("guidance" in row["training"] for row in worlds)
    columns: dict[str, Cell] = {
        "correlation": "{correlation:g}",
        "generator": "{number}",
        "relative error": "{effect[relative_error]:.3f}",
        "cosine": "{effect[cosine]:.3f}",
        "scale": "{effect[scale]:.2f}",
        "outside": "{effect[outside]:.4f}",
        "composition": "{composition:.4f}",
        "effectiveness by level": lambda row: (
            " / ".join(f"{value:.3f}" for value in row["effectiveness"].values()) or "unknown"
        ),
        f"drift of {', '.join(held)}": lambda row: ", ".join(_moved(row["drift"].get(name)) for name in held),
        **({"guidance": lambda row: f"{row['training']['guidance']:g}"} if guided else {}),
        "core minutes": lambda row: f"{row['fit_core_seconds'] / 60:.1f}",
    }
    return table_lines(
        columns, sorted(worlds, key=lambda row: (row["correlation"], row["number"])), "lrrrrrrll" + "r" * (1 + guided)
    )


def _moved(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.3f}"


def wrong_lines(models: list[Row]) -> Iterator[str]:
    """Name every classifier that was judged wrongly."""
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
    yield from table_lines(columns, wrong, "llllrrrll")


def _is_wrong(row: Row) -> bool:
    if row["kind"] == "blind" or (row["kind"] == "indifferent" and row["true_flip_rate"] < MARGIN):
        return bool(row["verdict"] == "dependence")
    # What a gate withheld is counted above: here are the errors of the test.
    return bool(row["true_flip_rate"] >= RELEVANT and row["ungated_verdict"] != "dependence")
