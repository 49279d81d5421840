"""What the calibration page says; every number in it is computed from the tables."""

from collections.abc import Sequence

from scipy import stats

from citlr.run.rows import Row
from citlr.simulators.families import NULLS
from citlr.studies.calibration.counts import CONFIDENCE

ALPHA = 0.05

HEAD = """# Calibration: are the error rates what they are said to be?

This page is made from `calibration.json` by `citlr calibrate --page docs/calibration.md`, which draws data whose truth
is known, runs every test on them and counts. Every repetition draws new data and refits whatever is fitted. "Bounds"
are exact binomial bounds of the rate, each at 99.9 %; a size is out of bounds when so many rejections have a
probability below 1 in 1000 at a true size of 5 %.
"""

SECTIONS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "Default test (generated images)",
        ("default test", "paired t-test"),
        '4 draws per level; 199 randomisations for sizes, 999 for power. With more than two levels, "default test" is '
        'Holm over the contrasts. The p-value is exact by construction for every null but "asymmetric probability", '
        "where both levels have one mean and different distributions. Power depends on the generator's noise: in the "
        'families of effects 28 % of the decisions flip between two draws at one level, in the "quieter" ones 17 %; in '
        "those with shared seeds half of the draws use one random number at both levels. The paired t-test of each "
        "image's mean change stands beside: it cannot see effects that cancel. Every repetition has data of its own; "
        "50 to 200 of them are tested in one call, as labels are, and share the random numbers of the randomisations.",
    ),
    (
        "Equivalence",
        ("equivalence",),
        'How often "equivalent" was said where the truth lies on the margin of 0.05. Where psi alone is on the margin '
        "(changes of 22 points each way), the test of psi is the one under trial; so it is of psi at the originals.",
    ),
    (
        "Without a generator (Z, A, Yhat)",
        ("dCRT", "GCM", "RMS bound"),
        "8 features, decisions, 199 redraws, learners chosen by cross-validation and refitted in every repetition. "
        '"Known" means that p(A|Z) was given: the distilled test (dCRT) is then exact. "Estimated" means that it was '
        "cross-fitted: no test of conditional independence can hold its size for every such world. These rows are of "
        "two worlds with noise in the decisions and a level that goes with Z by a line, measured before kernels and "
        "shares of misfit were there. [Embeddings](embeddings.md) has worlds of outputs without noise, where size was "
        "lost.",
    ),
    (
        "Parity",
        ("demographic parity", "equalised odds", "AUROC gap", "published parity"),
        "Associations, clustered by patient. The last row is the published comparison, which draws 1000 pairs from the "
        "two groups whatever their size.",
    ),
    (
        "CIT-LR as published",
        ("published CIT-LR",),
        "32 features, an attribute by the toss of a coin that nothing depends on, two networks (64, 32) per test. "
        "These counts, pooled over the two nulls, are the table that is printed beside each of its p-values.",
    ),
)

COVERAGE = (
    "Nominal 95 %; n counts images, so that 200 images at 4 per patient are 50 patients. The interval of psi errs "
    "on the safe side where the estimate is lost in generator noise (a negative one counts as zero). Where hardly any "
    "patients differ, both intervals allow for patients that were not seen. Coverage above 97 % is the price. Psi at "
    "the originals is that of decisions on them; the draws' noise has half of the scores' spread, and the upper limit "
    "holds all of it that draws do not share. The lower bound of the root mean square effect is one-sided."
)


def findings(tables: dict[str, list[Row]]) -> list[str]:
    """State what the tables show, in sentences; parts that were not run are left out.

    >>> findings({"size": [], "power": [], "coverage": []})
    []
    """
    return [
        *_default(tables["size"]),
        *_power(tables["power"]),
        *_coverage(tables["coverage"]),
        *_group(tables["size"], "equivalence", "Equivalence on the margin", 0.06),
        *_group(tables["size"], ("dCRT, p(A|Z) known",), "Distilled test, p(A|Z) known", ALPHA),
        *_group(tables["size"], ("dCRT, p(A|Z) estimated",), "Distilled test, p(A|Z) estimated", ALPHA),
        *_group(tables["size"], ("demographic", "equalised", "AUROC"), "Parity tests", ALPHA),
        *_published(tables["size"]),
    ]


def exceeds(row: Row, alpha: float = ALPHA) -> bool:
    """Whether so many rejections are incredible at a true size of `alpha`."""
    return bool(stats.binom.sf(row["rejections"] - 1, row["reps"], alpha) < 1 - CONFIDENCE)


def _default(sizes: Sequence[Row]) -> list[str]:
    rows = [row for row in sizes if row["test"].startswith("default test")]
    exact = [row for row in rows if NULLS[row["null"]].exact]
    other = [row for row in rows if not NULLS[row["null"]].exact]
    lines = _group(exact, ("default test",), "Default test, exact nulls", ALPHA)
    return lines + _group(other, ("default test",), "Default test, equal means without symmetry", ALPHA)


def _group(sizes: Sequence[Row], tests: str | tuple[str, ...], name: str, alpha: float) -> list[str]:
    rows = [row for row in sizes if row["test"].startswith(tests)]
    if not rows:
        return []
    worst = max(rows, key=lambda row: row["rate"])
    out = [row for row in rows if exceeds(row, alpha)]
    verdict = f"all {len(rows)} rates" if not out else f"{len(rows) - len(out)} of {len(rows)} rates"
    text = (
        f"{name}: {verdict} inside the exact 99.9 % bound of {alpha:.0%}; highest {worst['rate']:.2%} "
        f"({worst['null']}, n = {worst['n']}, {worst['reps']} repetitions)."
    )
    if out:
        text += " Outside: " + "; ".join(f"{r['test']}, {r['null']}, n = {r['n']}: {r['rate']:.2%}" for r in out) + "."
    return [text]


def _power(rows: Sequence[Row]) -> list[str]:
    wanted = (
        ("default test", "uniform shift", 0.1, 0.75),
        ("default test", "zero-mean effect", 0.012, 0.80),
        ("default test", "zero-mean effect, quieter", 0.012, 0.80),
        ("default test", "zero-mean effect, shared seeds", 0.012, 0.80),
        ("paired t-test of the mean", "zero-mean effect", 0.012, None),
        ("dCRT, p(A|Z) known", "uniform effect, unconfounded, 1 per patient", 0.1, 0.6),
        ("dCRT, p(A|Z) estimated", "uniform effect, unconfounded, 1 per patient", 0.1, None),
        ("dCRT, p(A|Z) known", "zero-mean effect, unconfounded, 1 per patient", 0.2, None),
        ("GCM, p(A|Z) known", "zero-mean effect, unconfounded, 1 per patient", 0.2, None),
    )
    lines = []
    for test, alternative, effect, target in wanted:
        for row in rows:
            if (row["test"], row["alternative"], row["effect"], row["n"]) == (test, alternative, effect, 500):
                goal = f" (wanted: {target:.0%})" if target else ""
                lines.append(f"Power at n = 500, {test}, {alternative} of {effect:g}: {row['rate']:.1%}{goal}.")
    return lines


def _coverage(rows: Sequence[Row]) -> list[str]:
    lines = []
    for name in ("mean effect", "psi", "psi at the originals"):
        chosen = [row for row in rows if row["interval"] == name]
        if chosen:
            ordered = sorted(chosen, key=lambda row: row["rate"])
            inside = sum(0.93 <= row["rate"] <= 0.97 for row in chosen)
            text = (
                f"95 % interval of {name}: coverage {ordered[0]['rate']:.1%} to {ordered[-1]['rate']:.1%}; {inside} of "
                f"{len(chosen)} cases between 93 and 97 %."
            )
            out = [row for row in chosen if not 0.93 <= row["rate"] <= 0.97]
            if out:
                text += " Outside: " + "; ".join(f"{r['effect']}, n = {r['n']}: {r['rate']:.1%}" for r in out) + "."
            lines.append(text)
    return lines


def _published(sizes: Sequence[Row]) -> list[str]:
    rows = [row for row in sizes if row["test"] == "published CIT-LR"]
    lines = []
    if rows:
        low, high = min(rows, key=lambda r: r["rate"]), max(rows, key=lambda r: r["rate"])
        lines.append(
            f"Published CIT-LR rejects true nulls {low['rate']:.0%} ({low['null']}) to {high['rate']:.0%} "
            f"({high['null']}) of the time."
        )
    pairs = [row for row in sizes if row["test"].startswith("published parity")]
    lines.extend(
        f"The published parity comparison rejects exact parity {row['rate']:.0%} of the time at n = {row['n']}."
        for row in pairs
    )
    return lines
