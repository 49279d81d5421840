"""The sentence for a clinician, of every verdict: asked, found, for whom, and what not to conclude."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from report_fake import LABELS, RACES, make_result, make_row

from citlr.report.guidance import plain_words
from citlr.report.page import render
from citlr.report.publish import heaviest
from citlr.report.wording import findings

SETTINGS = {"attribute": "sex", "psi": 0.061, "mean": -0.042, "width": 0.018, "pvalue": 0.0002, "tests": 3}


def one(label="pneumonia", verdict="dependence", **changes):
    return make_row(label, ("male", "female"), verdict=verdict, **(SETTINGS | changes))


def said(*rows, **changes):
    words = plain_words(make_result(tests=rows, **changes))
    return replace(words, **{name: getattr(words, name).replace("\u202f", " ") for name in vars(words)})


def test_a_dependence_is_told_in_images_of_a_hundred():
    words = said(one())
    assert words.asked == "Does chest-net 2.1 answer differently when only the sex that an image shows is changed?"
    assert words.found == (
        "Yes, for pneumonia: about 6 in 100 images get another decision when redrawn as female instead of male, beyond "
        "what redrawing alone changes."
    )
    assert words.matters == (
        "Patients recorded as male or female, where the answer on pneumonia is used. 812 patients were tested."
    )
    assert words.beware.startswith("Which answer is right, or that care is unfair")


def test_several_findings_are_told_together():
    words = said(one(), one("edema", psi=0.11), one("mass", "inconclusive"), one("hernia", "equivalent"))
    assert words.found.startswith(
        "Yes, for pneumonia and edema: up to about 11 in 100 images get another decision on edema"
    )
    assert words.rest == "No answer yet for mass. No difference that matters for hernia."
    many = said(*(one(label) for label in LABELS))
    assert many.found.startswith("Yes, for 5 findings: up to about 6 in 100 images")


def test_the_largest_change_is_told_where_all_have_the_smallest_p():
    """Randomisations give no p below their number: of three contrasts at it the first would stand for all."""
    rows = [
        make_row("mass", pair, verdict="dependence", **(SETTINGS | {"psi": psi, "attribute": "race"}))
        for pair, psi in ((("a", "b"), 0.13), (("a", "c"), 0.84), (("b", "c"), 0.69))
    ]
    less = replace(rows[1], pvalue_adjusted=0.01)
    assert said(*rows).found.startswith("Yes, for mass: up to about 84 in 100 images get another decision on mass when")
    assert said(rows[0], less).found.startswith("Yes, for mass: up to about 84 in 100")
    result = make_result(tests=tuple(rows))
    assert heaviest(result).psi.estimate == 0.84
    assert findings(result)[0].sentence.replace("\u202f", " ").find("84.0 %") > 0


def test_a_shift_without_flips_and_a_probability_are_told_as_they_are():
    assert "the share of positive decisions moves by 4.2 percentage points" in said(one(psi=0.0)).found
    assert "the probability moves by 5.0 percentage points" in said(one(psi=0.0025, outcome="probability")).found


@pytest.mark.parametrize(
    ("rows", "failed", "says"),
    [
        ((one(verdict="equivalent"),), False, "No: for pneumonia, changing sex makes no difference above 2 %"),
        ((one(verdict="inconclusive", pvalue=0.4),), False, "No answer yet for pneumonia: the images neither show"),
        ((one(verdict="inconclusive"),), False, "No answer yet for pneumonia: the images show a difference, which"),
        ((one(verdict="inconclusive"),), True, "No answer yet for pneumonia: a check of the audit itself failed."),
    ],
)
def test_the_other_verdicts_say_what_not_to_conclude(rows, failed, says):
    words = said(*rows, failed=failed)
    assert words.found.startswith(says)
    assert words.beware.startswith("That ")
    assert words.matters


@pytest.mark.parametrize("changes", [{}, {"failed": True}, {"levels": RACES, "attribute": "race"}])
def test_it_stands_in_the_answer_before_every_number_and_no_sentence_is_long(changes):
    result = make_result(**changes)
    words = plain_words(result)
    page = render(result)
    assert page.index(words.found.split(":")[0]) < page.index("Label by label")
    for text in vars(words).values():
        assert all(len(sentence.split()) <= 34 for sentence in re.split(r"[.?] ", text))
    assert plain_words(make_result(tests=())) is None
