"""What a notebook shows of what a function returns: a few lines, no whole table, no name of a patient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_fake import FOURTEEN, RACES, make_result

from citlr import assess
from citlr.audit.generation import generate
from citlr.generators.oracle import Oracle
from citlr.invariance.responses import Responses
from citlr.simulators.phantom.world import PhantomWorld


def test_a_cohort_and_its_counterfactuals(tmp_path: Path) -> None:
    sample = PhantomWorld(size=32).sample(200, seed=0, images_per_patient=1)
    cohort = sample.write(tmp_path)
    said = repr(cohort).splitlines()
    assert said[0] == f"Cohort of {len(cohort)} images, 200 patients"
    assert "  sex: female, male" in said
    assert len(said) <= 6
    assert str(cohort.frame["patient_id"].iloc[0]) not in repr(cohort)
    part = cohort.part("test")
    found = generate(Oracle.of(sample), part, attribute="sex", draws=2, placebo_images=0, replicate_images=0)
    assert repr(found).splitlines() == [
        f"Counterfactuals of {len(part)} images, {part.frame['patient_id'].nunique()} patients",
        "  sex: female, male; 2 draws per level",
        "  pictures at 32 pixels, by Oracle",
        "  beside them: nothing",
    ]


def test_responses_and_their_assessment() -> None:
    values = np.random.default_rng(0).uniform(0.2, 0.8, (40, 2, 2, 7))
    labels = [f"finding {number}" for number in range(7)]
    responses = Responses.from_arrays(values, levels=["f", "m"], labels=labels, attribute="sex")
    said = repr(responses).splitlines()
    assert said[0] == "Responses to 40 images, 40 patients"
    assert said[2] == "  labels: finding 0, finding 1, finding 2, finding 3, finding 4 and 2 more"
    assert len(said) == 4
    found = assess(responses, margin=0.02, randomizations=99)
    assert repr(found).startswith("Assessment of sex (f, m) on finding 0")
    assert f"7 tests: 7 {found.verdict}" in repr(found)
    assert len(repr(found).splitlines()) == 3


@pytest.mark.parametrize(("labels", "levels", "most"), [(("edema",), ("f", "m"), 4), (FOURTEEN, RACES, 12)])
def test_an_audit_of_many_labels_is_as_short_as_one_of_few(labels, levels, most) -> None:
    result = make_result(labels, levels)
    assert repr(result).splitlines()[0] == f"AuditResult of chest-net 2.1: {result.verdict}"
    assert len(repr(result).splitlines()) <= most
    html = result._repr_html_()
    assert html.count("<tr") <= 9
    assert ("And 34 tests more" in html) == (len(labels) > 1)
    assert len(str(result).splitlines()) > len(result.tests)  # print says why, of all


def test_what_is_said_of_several_labels_alike_is_said_once() -> None:
    result = make_result(FOURTEEN, ("f", "m"))
    why = "inconclusive, because a gate failed (effectiveness). Train longer."
    alike = tuple(replace(row, reason=f"{row.label}: {why}") for row in result.tests[:13])
    other = replace(result.tests[13], reason=f"{result.tests[13].label}: equivalent.")
    said = str(replace(result, tests=(*alike, other)))
    assert said.count("Train longer") == 1
    assert f"{', '.join(row.label for row in alike)}: {why}" in said.splitlines()
    assert f"{other.label}: equivalent." in said.splitlines()


def test_what_is_said_of_several_contrasts_names_them() -> None:
    result = make_result(("edema",), ("asian", "black", "white"), "race")
    first, second, third = result.tests
    why = "inconclusive, because a gate failed. Without it the verdict would have been"
    rows = (
        replace(first, reason=f"edema: {why} 'dependence'."),
        replace(second, reason=f"edema: {why} 'equivalent'."),
        replace(third, reason=f"edema, {third.contrast[0]} against {third.contrast[1]}: no dependence was found."),
    )
    named = [f"edema, {row.contrast[0]} against {row.contrast[1]}" for row in rows]
    said = str(replace(result, tests=rows)).splitlines()
    assert f"{named[0]}: {why} 'dependence'." in said
    assert f"{named[1]}: {why} 'equivalent'." in said
    assert f"{named[2]}: no dependence was found." in said
    alike = str(replace(result, tests=(rows[0], replace(second, reason=rows[0].reason)))).splitlines()
    assert f"{named[0]}; {named[1]}: {why} 'dependence'." in alike
