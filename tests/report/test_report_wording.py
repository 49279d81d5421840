"""One sentence per label: what was found, how large it is, and why a verdict is open."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from report_fake import NAN, RACES, make_result, make_row

from citlr.audit.results.result import Estimate, Gate, TestRow
from citlr.report import wording
from citlr.report.numerals import NARROW, pvalue
from citlr.report.sections.controls import generator_error


def plain(text: str) -> str:
    return text.replace("\u202f", " ")


def row(**changes) -> TestRow:
    settings = {"attribute": "sex", "psi": 0.061, "mean": -0.042, "width": 0.018, "pvalue": 0.0002, "tests": 3}
    verdict = changes.pop("verdict", "dependence")
    return make_row("pneumonia", ("male", "female"), verdict=verdict, **(settings | changes))


def sentence(one: TestRow, **changes) -> str:
    return plain(wording.findings(make_result(tests=(one,), **changes))[0].sentence)


def test_a_dependence_in_plain_words():
    assert sentence(row()) == (
        "The model’s decision on pneumonia depends on sex: redrawing an image as female instead of male flips "
        "6.1 % more of the decisions than redrawing alone does (95 % interval 5.0 % to 7.7 %; adjusted "
        "p = 0.0006), and lowers positive decisions by 4.2 percentage points on average."
    )


def test_an_effect_that_is_shown_and_carries_no_verdict_says_why():
    reason = "pneumonia, male against female: only 1.33% of the decisions are the rarer one."
    one = replace(row(verdict="inconclusive"), reason=reason)
    assert sentence(one).endswith("; only 1.33% of the decisions are the rarer one.")
    said = wording.headline(make_result(tests=(one,), verdict="inconclusive"))
    assert said == "Not settled: redrawn images show an effect of sex, which carries no verdict."


@pytest.mark.parametrize(
    ("error", "says"),
    [(None, "Not known"), (0.0, "moves none of the model"), (0.011, "a standard error of 1.1 percentage points")],
)
def test_the_report_says_what_the_generator_cannot_know(error, says):
    result = make_result(tests=(row(mean_error=error, psi_error=error),))
    assert says in plain(generator_error(result))


def test_an_equivalence_names_its_margin():
    said = sentence(row(verdict="equivalent", psi=0.001, mean=0.0, width=0.004))
    assert said.startswith("The model’s decision on pneumonia is equivalent across sex within the margin of 2 %: ")
    assert "leaves positive decisions where they are on average" in said


@pytest.mark.parametrize(
    ("psi", "mean", "reaches"),
    [
        (0.015, 0.0, "the interval of psi reaches the margin of 2 %"),
        (0.0, 0.012, "the interval of the mean effect reaches the margin of 2 %"),
        (0.015, 0.012, "the intervals of psi and the mean effect reach the margin of 2 %"),
    ],
)
def test_an_open_verdict_says_which_interval_reaches_the_margin(psi, mean, reaches):
    said = sentence(row(verdict="inconclusive", psi=psi, mean=mean, width=0.012, pvalue=0.2))
    assert said.startswith("Whether the decision on pneumonia depends on sex is not settled: ")
    assert reaches in said
    assert said.endswith("and a psi under 1.2 % could have been missed.")


def test_an_open_verdict_for_a_failed_gate_says_the_gate_and_what_it_measured():
    quality = replace(
        make_result().quality, gates=(Gate("drift of view", 0.2, 0.05, False, "The view moved by 0.2.", "generator"),)
    )
    said = sentence(row(verdict="inconclusive"), quality=quality)
    assert said.startswith(
        "No verdict on pneumonia: the image generator failed the gate “drift of view” (The view moved by 0.2). For the "
        "record only: redrawing an image as female instead of male flips"
    )


@pytest.mark.parametrize(
    ("about", "who", "what"),
    [
        (["generator"], "the image generator", "its images"),
        (["model"], "the model’s answers", "the redrawn images"),
        (["cohort"], "the cohort", "its patients"),
        (["cohort", "generator"], "the audit", "it"),
    ],
)
def test_a_failed_gate_is_told_of_what_it_is_about(about, who, what):
    """A gate of the whole cohort, such as too few patients, is no failure of the generator."""
    gates = tuple(Gate(f"of the {one}", 3.0, 20.0, False, "Too few.", one) for one in about)
    result = make_result(tests=(row(verdict="inconclusive"),), quality=replace(make_result().quality, gates=gates))
    assert f"No verdict: {who} failed " in wording.headline(result)
    assert f", so {what} cannot carry a conclusion." in wording.headline(result)
    assert f"{who} failed the gate" in wording.findings(result)[0].sentence


def test_a_probability_is_moved_and_not_flipped():
    said = sentence(row(outcome="probability", psi=0.0025, mean=0.031))
    assert "moves the predicted probability by 5.0 percentage points (root mean square" in said
    assert "raises the probability by 3.1 percentage points on average" in said
    assert "flip" not in said
    assert "the decision" not in said


def test_a_negative_or_missing_excess_is_said_as_it_is():
    fewer = sentence(row(verdict="inconclusive", psi=-0.004, width=0.03, pvalue=0.4))
    assert "flips 0.40 % fewer of the decisions than redrawing alone does" in fewer
    gone = replace(row(verdict="inconclusive"), psi=Estimate(NAN, NAN, NAN), reason="no image was redrawn.")
    assert "could not be computed (no image was redrawn)." in sentence(gone)
    assert "nan" not in sentence(gone)


@pytest.mark.parametrize("alpha", [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2])
def test_a_p_value_looks_to_be_below_a_round_alpha_exactly_where_it_is(alpha):
    for value in (alpha * (1 - 1e-5), alpha * (1 - 0.0008), alpha, alpha * (1 + 0.0008)):
        shown = pvalue(value).replace(NARROW, "").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
        number = float(re.sub(r"(×?)10-(\d+)$", lambda part: f"{'' if part[1] else '1'}e-{part[2]}", shown))
        assert (number < alpha) == (value < alpha), (value, shown)
        assert number == pytest.approx(value, rel=0.02)


def test_the_weightiest_contrast_speaks_and_the_others_are_counted():
    found = wording.findings(make_result(levels=RACES, attribute="race"))
    assert [one.verdict for one in found] == sorted(
        (one.verdict for one in found), key=["dependence", "inconclusive", "equivalent"].index
    )
    assert found[0].rest == "The other 2 contrasts: 2 inconclusive."
    assert len({one.label for one in found}) == len(found) == 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tests": (row(),)}, "Yes. For the one label tested, the model’s decision depends on sex"),
        ({"tests": (row(verdict="equivalent"),)}, "No, within the margin of 2 %"),
        ({"tests": (row(verdict="inconclusive"),)}, "Not settled"),
        ({"failed": True}, "No verdict: the image generator failed the gate “effectiveness”"),
        ({"tests": ()}, "No test was run"),
    ],
)
def test_the_headline_answers_the_question(changes, says):
    result = make_result(**changes)
    assert plain(wording.headline(result)).startswith(says)
    assert wording.question(result).endswith("?")
