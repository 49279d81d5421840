"""Accuracy by group where it is read: page, model card, JSON that may leave the house, and audits of before."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from report_fake import LABELS, RACES, SEXES, make_accuracy, make_result

from citlr.audit import privacy
from citlr.audit.results.records import Accuracy
from citlr.audit.results.result import read_result
from citlr.exchange.deliver import shareable
from citlr.report.card import model_card
from citlr.report.page import render
from citlr.report.sections.accuracy import MEASURES, masked

TWO = LABELS[:2]


def section(result, **options) -> str:
    html = render(result, **options).split('<section id="accuracy"')[1].split("</section>")[0]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).replace("\u202f", " ")


def test_the_page_shows_every_measure_of_every_group_with_its_interval():
    result = make_result(TWO)
    text = section(result)
    for name, _, _ in MEASURES.values():
        assert name in text
    own = next(row for row in result.accuracy.groups if row.level == "female").measures["auroc"]
    assert f"{own.estimate:.2f} {own.low:.2f} to {own.high:.2f}" in text
    assert "male − female" in text
    assert "No verdict rests on it." in text
    assert len(make_result(TWO, RACES, "race").accuracy.differences) == 6


def test_few_patients_are_named_and_what_is_missing_is_said():
    result = make_result(TWO, accuracy=make_accuracy(TWO, SEXES, cases=7))
    text = section(result, mask_below=1)
    assert re.search(r"edema, male \(Sensitivity\): \d patients with the finding: 10 are needed for an interval", text)
    assert "no interval" in text
    note = "Accuracy on edema is not known: the truth of no image is recorded."
    assert note in section(make_result(TWO, accuracy=Accuracy((), (), (note,))))


@pytest.mark.parametrize(
    ("measured", "answers"), [(True, ["yes", "in part", "yes"]), (False, ["in part", "no", "in part"])]
)
def test_the_page_answers_requests_of_accuracy_only_where_it_was_measured(measured, answers):
    html = render(make_result(TWO) if measured else make_result(TWO, accuracy=None))
    rows = re.findall(r"<tr>.*?</tr>", html.split('<section id="guidance"')[1].split("</section>")[0])
    found = {
        item: re.search(r'class="mark \w+">([^<]+)<', row)[1]
        for row in rows
        for item in ("Performance, bias", "Art. 15", "Item 23a")
        if item in row
    }
    assert list(found.values()) == answers


def test_a_small_group_is_masked_everywhere_and_cannot_be_had_by_subtraction():
    result = make_result(TWO, accuracy=make_accuracy(TWO, SEXES, cases=3))
    shown = masked(result, below=5)
    hidden = {(row.label, row.level) for row in shown.groups if not row.measures}
    assert hidden == {(label, level) for label in TWO for level in ("", "male")}
    assert all(row.measures == {} for row in shown.differences)
    assert "masked: fewer than 5 patients" in section(result)
    assert "masked" in model_card(result)
    content = shareable(result, mask_below=5)["accuracy"]
    assert content["groups"][0]["n_images"] is None
    assert content["groups"][1]["measures"]["auroc"]["estimate"] == result.accuracy.groups[1].measures["auroc"].estimate
    assert masked(result, below=1) == result.accuracy


@pytest.mark.parametrize(("unknown", "hidden"), [(3, {"", "male"}), (0, set()), (60, set())])
def test_a_level_in_which_few_are_unknown_is_masked(unknown, hidden):
    """Its own number of images, which is shown, would tell how few findings are missing."""
    result = make_result(TWO, accuracy=make_accuracy(TWO, SEXES))
    whole = {"split": "test", "attribute": result.tests[0].attribute, "label": "", "value": "all"}
    sizes = {level: 120 + unknown * (level == "male") for level in SEXES}
    counts = tuple({**whole, "level": level, "images": n, "patients": n // 2} for level, n in sizes.items())
    shown = masked(replace(result, cohort=replace(result.cohort, counts=counts)), below=5)
    assert {row.level for row in shown.groups if row.n_images is None} == hidden


def test_next_to_nobody_is_not_hidden_by_one_more_cell():
    """Of 100, one and one are known where only they are hidden: each holds one at least."""
    cells = [{"split": "test", "attribute": "sex", "level": "f", "label": "x", "patients": n} for n in (1, 1, 40, 58)]
    assert privacy.mask_small(cells, below=5) == [True, True, True, False]
    sizes = {"fa": 2, "fb": 1, "fc": 30, "fd": 40, "ma": 50, "mb": 60}
    parts = {(("sex", key[0]), ("view", key[1])): size for key, size in sizes.items()}
    assert (("sex", "f"), ("view", "c")) in privacy.mask_parts(parts, below=5)


def test_recorded_values_do_not_tell_how_few_were_left_out():
    rows = tuple(
        {"attribute": "sex", "raw": raw, "level": level, "images_before": 90 + few, "images_after": 90}
        for raw, level, few in (("M", "male", 2), ("F", "female", 0))
    )
    result = make_result(TWO, accuracy=None)
    result = replace(result, cohort=replace(result.cohort, raw=rows))
    assert {row["images_before"] for row in shareable(result, mask_below=5)["cohort"]["raw"]} == {None}
    assert [row["images_before"] for row in shareable(result, mask_below=2)["cohort"]["raw"]] == [92, 90]
    assert "tells that fewer than 5 were left out" in render(result)


def test_json_goes_there_and_back_and_an_audit_of_before_is_read(tmp_path):
    result = make_result(TWO, accuracy=make_accuracy(TWO, SEXES, cases=0))
    path = result.to_json(tmp_path / "audit.json")
    assert read_result(path).accuracy.to_frame().equals(result.accuracy.to_frame())
    content = json.loads(path.read_text())
    path.write_text(json.dumps(shareable(result)))
    assert read_result(path).accuracy.groups[0].label == TWO[0]
    del content["accuracy"]
    path.write_text(json.dumps(content))
    before = read_result(path)
    assert before.accuracy is None
    assert "This audit is of before accuracy was measured" in section(before)
    assert "This audit is of before accuracy was measured" in model_card(before)


def test_the_table_has_a_row_for_every_measure_and_says_why_one_is_missing():
    frame = make_accuracy(TWO, SEXES, cases=0).to_frame()
    assert list(frame) == ["label", "group", "measure", "estimate", "low", "high", "n_images", "n_patients", "note"]
    assert len(frame) == 2 * 4 * len(MEASURES)
    gone = frame[(frame["group"] == "male") & (frame["measure"] == "auroc")]
    assert gone["estimate"].isna().all()
    assert set(gone["note"]) == {"no image with the finding"}


def test_the_card_tells_each_group():
    result = make_result(TWO)
    card = model_card(result)
    assert "### How accurate the model is, by recorded group" in card
    assert len(re.findall(r"^\| (?:cardiomegaly|edema) \| (?:all|female|male) \| ", card, re.MULTILINE)) == 6
    assert "How accurate the model is, in any group" not in card
    assert replace(result, accuracy=None) != result
