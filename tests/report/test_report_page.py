"""The page itself: what it says first, what it never shows, and that it loads nothing."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from report_fake import (
    FOURTEEN,
    LABELS,
    NAN,
    RACES,
    make_cohort,
    make_gallery,
    make_provenance,
    make_responses,
    make_result,
    make_tests,
)

from citlr.audit.privacy import scrub
from citlr.audit.results.records import Carried
from citlr.audit.results.result import (
    AuditResult,
    CohortSummary,
    Controls,
    Estimate,
    Gate,
    OmnibusRow,
    Quality,
    read_result,
)
from citlr.errors import InputError, require_known
from citlr.generators.quality.records import Left
from citlr.report import page as page_module
from citlr.report.card import model_card
from citlr.report.charts.gallery import Gallery, Strip
from citlr.report.page import render, write_report
from citlr.report.sections.gates import gates_table

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Elements with their attributes, the text outside style and script, and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.pieces: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.pieces))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def full() -> tuple[AuditResult, str]:
    result = make_result(missing=True)
    return result, render(result, responses=make_responses(result, n_images=60), gallery=make_gallery(3, size=32))


@pytest.fixture(scope="module")
def page(full) -> Page:
    return Page(full[1])


def test_the_verdict_comes_before_every_number_and_says_evidence_not_certification(page):
    text = page.text
    assert "Evidence, not certification." in text
    headline = text.index("Yes. For 2 of 5 labels, the model’s decision depends on sex")
    assert headline < text.index("Label by label") < text.index("How large the effects are")
    assert text.index("Evidence, not certification.") < headline


def test_every_section_the_contents_name_is_there(page):
    anchors = [attrs["href"].removeprefix("#") for attrs in page.all("a") if attrs["href"].startswith("#")]
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert set(anchors) <= set(ids)
    assert len(ids) == len(set(ids))
    for name in ("verdict", "effects", "images", "predictions", "gates", "controls", "baselines", "cohort", "question",
                 "limits", "guidance", "provenance"):  # fmt: skip
        assert name in anchors


def test_the_contents_name_every_section_that_is_there_in_the_order_of_the_page(full, monkeypatch):
    result, html = full
    nothing_to_plot = make_responses(result, n_images=60).assign(level="another")
    for one in (html, render(result), render(result, responses=nothing_to_plot)):
        found = Page(one)
        listed = [attrs["href"] for attrs in found.all("a") if attrs["href"].startswith("#")]
        sections = ["#" + attrs["id"] for attrs in found.all("section")]
        assert listed[1 : len(sections) + 1] == sections  # the first skips to the verdict
    monkeypatch.setattr(page_module, "PARTS", {"verdict": {"verdict": "Verdict"}, "cohort": {"cohort": "Who"}})
    short = Page(render(result))
    assert [attrs["id"] for attrs in short.all("section")] == ["verdict", "cohort", "attribute"]
    assert '<li><a href="#cohort">Who</a></li>' in render(result)


def test_every_tag_is_closed(page):
    assert page.unbalanced == []
    assert page.open == []


def test_nothing_is_loaded_from_anywhere(full):
    html = full[1]
    found = Page(html)
    for tag, attrs in found.elements:
        for name in ("src", "href", "data", "action", "poster", "srcset", "xlink:href"):
            if name in attrs:
                assert attrs[name].startswith(("#", "data:image/")), (tag, attrs[name][:80])
    assert not re.search(r"url\(|@import|//[a-z]", re.sub(r"data:image/[^\"]*", "", html))
    policy = next(attrs["content"] for attrs in found.all("meta") if "Security" in attrs.get("http-equiv", ""))
    assert "default-src 'none'" in policy
    assert "img-src data:" in policy


def test_the_script_is_the_one_that_the_policy_allows(full):
    import base64
    import hashlib

    script = re.search(r"<script>(.*?)</script>", full[1], re.DOTALL).group(1)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in full[1]
    assert "onclick" not in full[1]


def test_a_missing_number_is_never_shown_as_nan_and_says_why(page):
    assert not re.search(r"\b(nan|inf|none)\b", page.text.replace("None was computed", ""), re.IGNORECASE)
    assert "n/a: fewer than two patients have this label." in page.text
    assert "n/a: fewer than 2048 images, too few for the distance to real images." in page.text
    assert "n/a: no positive image is female." in page.text
    assert "n/a: not measured: Held labels must not move along" in page.text
    assert "The placebo was switched off in the configuration." in page.text
    assert "limit of detection was not reached" in page.text
    for _, attrs in page.elements:
        for name, value in attrs.items():
            assert "nan" not in value.lower().split() or name == "d"


def test_every_number_missing_still_renders_a_page_with_reasons():
    rows = tuple(
        replace(
            row,
            psi=Estimate(0.01, NAN, NAN),
            mean_effect=Estimate(NAN, NAN, NAN),
            flip_rate=Estimate(NAN, NAN, NAN),
            **dict.fromkeys(
                (
                    "statistic",
                    "pvalue",
                    "pvalue_adjusted",
                    "pvalue_screening",
                    "log10_pvalue",
                    "within_flip_rate",
                    "eca",
                    "equivalence_pvalue",
                    "detectable_effect",
                ),
                NAN,
            ),
            verdict="inconclusive",
            reason="",
        )
        for row in make_tests()
    )
    page = Page(render(make_result(tests=rows, missing=True)))
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)
    assert "| 1.0\u202f% (no interval) | n/a | n/a |" in model_card(make_result(tests=rows))
    assert "no 95" in page.text
    assert "no p-value could be computed" in page.text
    assert "recorded no reason" in page.text


def test_an_audit_that_holds_nothing_says_so_in_every_section():
    quality = Quality(None, {}, None, None, {}, None, "", ())
    empty = AuditResult(
        "inconclusive", (), (), quality, Controls(None, (), None), CohortSummary((), (), {}), model="m", provenance={}
    )
    text = Page(render(empty)).text
    for sentence in (
        "No test was run, so there is no verdict.",
        "No gate was set for this audit",
        "Not run: this audit has no placebo",
        "Not run: this audit has no planted bias",
        "None was computed in this audit.",
        "The audit recorded no flow of exclusions.",
        "The audit recorded no counts.",
        "The audit recorded no provenance",
    ):
        assert sentence in text


def test_a_failed_gate_is_named_in_the_headline_and_in_every_sentence():
    text = Page(render(make_result(failed=True))).text
    assert "No verdict: the image generator failed the gate “effectiveness”" in text
    assert text.count("No verdict on ") == len(LABELS)
    assert "No verdict on cardiomegaly: the image generator failed the gate “effectiveness” (Redrawn images" in text
    assert text.count("failed the gate “effectiveness” (Redrawn images") == 1
    assert "In this audit a gate failed" in text
    # A loose file's dependence beside a failed gate names no gate, so the next label has to say why.
    first, *others = make_result(failed=True).tests
    text = Page(render(make_result(failed=True, tests=(replace(first, verdict="dependence"), *others)))).text
    assert text.count("failed the gate “effectiveness” (Redrawn images") == 1


def test_a_gate_is_seen_to_have_failed_in_its_row():
    numbers = ((0.05121, 0.0512), (-0.05004, 0.05), (0.01, 0.05), (0.000051, 0.00005))
    gates = tuple(Gate("composition", value, limit, False, "It changed.", "generator") for value, limit in numbers)
    rows = gates_table(make_result(quality=replace(make_result().quality, gates=gates))).rows
    shown = [tuple(cell.text for cell in row[3:5]) for row in rows]
    assert shown == [("0.05121", "0.0512"), ("\u22120.05004", "0.050"), ("0.010", "0.050"), ("0.0001", "0.00005")]


def test_commands_and_options_in_a_sentence_are_shown_as_code():
    gate = Gate(
        "effectiveness",
        0.1,
        0.8,
        False,
        "Try `citlr audit --kind <edits>`, or `quality.left`; one ` is text.",
        "generator",
    )
    result = make_result(failed=True)
    html = render(replace(result, quality=replace(result.quality, notes=("See `hold`.",), gates=(gate,))))
    shown = "Try <code>citlr audit --kind &lt;edits&gt;</code>, or <code>quality.left</code>; one ` is text."
    assert html.count(shown.rstrip(".")) == 3  # beside the verdict, at the first label, and in the table of gates
    assert "See <code>hold</code>." in html
    assert Page(html).unbalanced == []


def test_beside_a_measure_that_is_missing_stands_what_is_unknown_and_no_other_note():
    result = make_result()
    few, other = "50 images are too few: the Frechet distance is unknown.", "The view is read by a regression."
    for notes, reason in (((other, few), few), ((other,), "not measured in this audit.")):
        html = render(replace(result, quality=replace(result.quality, fid=None, notes=notes)))
        assert f"n/a: {reason}</li>" in html
        assert html.count(other) == 1


def test_html_in_names_is_escaped_everywhere():
    evil = '<img src=x onerror="alert(1)">'
    labels, levels = (evil, "b&b"), ("<i>f</i>", "m'\"")
    result = make_result(labels, levels, "<b>sex</b>", model="<script>alert(2)</script>")
    result = replace(
        result,
        quality=replace(result.quality, notes=(evil,), gates=(Gate(evil, 0.1, 0.2, False, evil, "cohort"),)),
        provenance={evil: {evil: evil}, "finished": evil},
        cohort=replace(result.cohort, flow=({"step": evil, "reason": evil, "n_images": 1, "n_patients": 1},)),
    )
    image = np.zeros((8, 8), np.uint8)
    gallery = Gallery((Strip(evil, levels[0], image, dict.fromkeys(levels, image)),), evil, evil)
    html = render(result, responses=make_responses(result, n_images=20), gallery=gallery)
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "<i>f</i>" not in html
    page = Page(html)
    assert page.unbalanced == []
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert evil in page.text


def test_no_identifier_no_folder_and_no_file_list_leaves_the_run(full):
    result, html = full
    assert "/srv/ann" not in html
    assert "/data/hospital" not in html
    assert "patient00017" not in html
    assert "image00001" not in html
    assert "cohort.csv" in html
    assert "AP/PA" in html
    assert "Dr Gray" not in html  # a raw value of the table
    assert result.cohort.flow[2]["names"] == ["patient00017_view1.png"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/srv/Ann Example/my (old) study's/the table.csv", "the table.csv"),
        ("C:\\Users\\Ann Example\\my study\\cohort.csv", "cohort.csv"),
        ("\\\\server\\Ann Example\\cohort.csv", "cohort.csv"),
        ("/srv/Ann Example/model.py:make", "model.py:make"),
        ("torchvision:resnet18:/srv/Ann Example/w.pt", "torchvision:resnet18:w.pt"),
        ("/srv/Ann Example/images/", "images"),
        ("'/srv/Ann Example/my study's/m.pt2' is not '/srv/Ann/'", "'m.pt2' is not '(folder)'"),
        ("w/o contrast, views AP / PA", "w/o contrast, views AP / PA"),
        ("'/data' has no 'AP/PA', nor has '/srv/Ann Example/x.csv'", "'data' has no 'AP/PA', nor has 'x.csv'"),
        (
            "no audit at '~/run': run `citlr audit`, or name 'a/b'",
            "no audit at 'run': run `citlr audit`, or name 'a/b'",
        ),
        ("/srv/ann/cohort.csv, views AP / PA", "cohort.csv, views AP / PA"),
    ],
)
def test_no_part_of_a_folder_with_a_blank_in_its_name_is_handed_on(text: str, shown: str):
    assert scrub({"table": text}) == {"table": shown}


def test_pictures_are_shown_only_when_they_are_given(full):
    result, html = full
    assert "data:image/" in html
    without = render(result)
    assert "data:image/" not in without
    assert 'id="images"' not in without
    assert 'id="predictions"' not in without


def test_small_cells_are_masked_with_a_sibling_and_the_mask_can_be_set():
    cells = make_cohort(LABELS[:1], ("female", "male"), "sex").counts
    small = tuple(
        {**cell, "images": 4127, "patients": 3}
        if (cell["split"], cell["level"], cell["value"]) == ("test", "male", "missing")
        else {**cell, "images": 5093}
        if (cell["split"], cell["level"], cell["value"]) == ("test", "male", "positive")
        else cell
        for cell in cells
        if cell["split"] == "test"
    )
    result = replace(make_result(), cohort=CohortSummary((), small, {}))
    shown = Page(render(result)).text
    assert "4 127" not in shown
    assert "5 093" not in shown  # the next smallest, or 4127 could be had by subtraction
    assert "fewer than 5 patients" in shown
    assert "4 127" in Page(render(result, mask_below=1)).text
    with pytest.raises(InputError, match="mask_below is 0"):
        render(result, mask_below=0)


def test_every_picture_has_a_text_and_every_table_its_scopes(page):
    images = page.all("img")
    assert images
    assert all(attrs.get("alt") for attrs in images)
    for attrs in page.all("svg"):
        assert attrs.get("aria-hidden") == "true" or (attrs.get("role") == "img" and attrs.get("aria-label"))
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    for attrs in page.elements:
        if attrs[1].get("class", "").split()[:1] == ["scroll"]:
            assert attrs[1]["role"] == "region"
            assert attrs[1]["aria-label"]
            assert attrs[1]["tabindex"] == "0"


def test_language_title_and_headings_are_in_order(page):
    assert page.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_same_audit_gives_the_same_bytes(full):
    result, html = full
    assert render(result, responses=make_responses(result, n_images=60), gallery=make_gallery(3, size=32)) == html


def test_the_page_is_written_whole_or_not_at_all(tmp_path):
    path = write_report(tmp_path / "run" / "audit.html", make_result())
    before = path.read_text(encoding="utf-8")
    assert before.endswith("</html>")
    with pytest.raises(InputError, match="lack the column 'draw'"):
        write_report(path, make_result(), responses=make_responses(make_result(), n_images=5).drop(columns="draw"))
    assert path.read_text(encoding="utf-8") == before
    assert [file.name for file in path.parent.iterdir()] == ["audit.html"]


def test_the_responses_decide_the_scatter(full):
    result, _ = full
    responses = make_responses(result, n_images=40)
    page = Page(render(result, responses=responses))
    panels = [
        attrs for attrs in page.all("svg") if attrs.get("aria-label", "").startswith("Scatter of the mean output")
    ]
    assert len(panels) == len(result.tests)
    assert "on 40 images" in panels[0]["aria-label"]
    assert "recorded as female" in page.text
    other = responses.assign(level="elsewhere")
    assert "hold no image redrawn at the levels" in Page(render(result, responses=other)).text


def test_three_levels_and_fourteen_labels_stay_under_eight_megabytes_with_24_strips():
    result = make_result(FOURTEEN, RACES, "race")
    responses = make_responses(result, n_images=1000, draws=2)
    html = render(result, responses=responses, gallery=make_gallery(24, size=256, levels=RACES, attribute="race"))
    assert len(result.tests) == 42
    assert 1_000_000 < len(html.encode()) < 8_000_000
    page = Page(html)
    assert sum(attrs.get("class") == "strip" for attrs in page.all("figure")) == 24
    assert len([attrs for attrs in page.all("svg") if attrs.get("aria-label", "").startswith("Scatter")]) == 42
    assert "QQ plot of the p-values" in page.text


def test_levels_that_hold_commas_are_told_apart():
    """Levels of sex and age together were one list of words: "female, 0-59, female, 60+, male, 0-59"."""
    levels = ("female, 0-59", "female, 60+", "male, 0-59")
    row = OmnibusRow(levels, "edema", 4.2, "product", 0.0123, 0.0246, 0.0246, math.log10(0.0123))
    result = replace(make_result(("edema",), levels, "sex and age"), omnibus=(row,))
    listed = "female, 0-59; female, 60+; male, 0-59"
    assert f"all of {listed} at once" in str(result)
    text = Page(render(result)).text
    assert f"sex and age: {listed}" in text
    assert f"All levels at once: {listed}" in text
    with pytest.raises(InputError, match=rf"No such level\. Known: {re.escape(listed)}\."):
        require_known("x", levels, "No such level")


def test_the_test_of_all_levels_at_once_is_shown_and_read_back(tmp_path):
    plain = make_result(("edema",), RACES, "race")
    assert "All levels at once" not in render(plain)
    row = OmnibusRow(RACES, "edema", 4.2, "product", 0.0123, 0.0246, 0.0246, math.log10(0.0123))
    result = replace(plain, omnibus=(row,))
    text = Page(render(result)).text
    assert f"All levels at once: {', '.join(RACES)}" in text
    assert "changes of single images" in text
    assert "all of asian, black, white at once: adjusted p = 0.025" in str(result)
    result.to_json(tmp_path / "audit.json")
    assert read_result(tmp_path / "audit.json").omnibus == (row,)
    with pytest.raises(InputError, match=r"is a folder: give the path of the audit\.json in it"):
        read_result(tmp_path)


def test_the_larger_gap_of_both_outcomes_in_an_audit_of_before_is_shown_as_equalised_odds(tmp_path):
    odds, own = "Equalised odds", "Equality of opportunity (those with the finding)"
    base = make_result(("edema",))
    row = base.baselines[1]
    for note, shown, hidden in (
        ("y = 0 speaks; 3 images without a known outcome left out.", odds, "opportunity"),
        ("y = 0; p = 1: too few patients in every outcome.", odds, "opportunity"),
        ("3 images without a known outcome left out.", own, odds),
    ):
        replace(base, baselines=(replace(row, note=note),)).to_json(tmp_path / "audit.json")
        text = Page(render(read_result(tmp_path / "audit.json"))).text
        assert shown in text
        assert hidden not in text


def test_a_name_that_turns_or_hides_text_is_shown_with_its_escapes():
    name = "ede\u202ema\u200b\x1b[1m"
    result = make_result((name, "<b>|x"), RACES, "race")
    for written in (render(result), model_card(result), str(result), Page(render(result)).text):
        assert not set("\u202e\u200b\x1b") & set(written)
        assert "\\u202e" in written or "\\\\u202e" in written


def test_what_the_audit_measured_is_on_the_page(page):
    text = page.text
    assert "7.4 %" in text  # narrow spaces are spaces to Page
    assert "6.3 % to 9.0 %" in text
    assert "0.0002" in text
    assert make_provenance(LABELS, "sex")["inputs"]["/srv/ann/study/cohort.csv"] in text
    assert "21 min 52 s" in text
    assert "Associations between output and attribute" in text
    assert "These are associations, not effects." in text
    assert "randomizations" in text


def test_what_the_auditor_declares_is_quoted_and_what_he_does_not_is_said(full):
    result, silent = full
    assert "was not declared for this audit" in silent
    page = render(result, intended_use="Triage <b>only</b>.", attribute_definition="Self-reported at admission.")
    assert "Triage &lt;b&gt;only&lt;/b&gt;." in page
    assert "Self-reported at admission." in page
    assert "was not declared for this audit" not in page


@pytest.mark.parametrize(
    ("run", "says"),
    [
        ({"where": "here"}, "The model was run here"),
        ({"where": "by its owner", "answers": "probabilities"}, "Its owner was given the redrawn images"),
        ({"where": "by its owner", "answers": "decisions"}, "The answers are decisions (0 or 1)"),
        (None, "did not record who ran the model"),
    ],
)
def test_the_page_says_who_ran_the_model(full, run, says):
    result, _ = full
    page = render(replace(result, provenance={**result.provenance, "model_run": run}))
    assert says in page
    assert ("decisions (0 or 1)" in page) == (run is not None and run.get("answers") == "decisions")


def test_the_page_says_what_the_error_rate_holds_for(full):
    """Holm is for dependence; a row is called equivalent by itself, and of many at the margin some are."""
    text = Page(full[1]).text
    assert "equivalence of each by itself" in text
    assert "said of each row at the error rate by itself; the overall verdict needs every row to be" in text


def test_the_reshuffling_is_the_one_that_was_done(full):
    result, page = full
    assert "exchanging the levels within each draw, which is right whether or not" in page
    afresh = tuple(replace(row, method="randomization_permutation") for row in result.tests)
    assert "permuting them within each image" in render(replace(result, tests=afresh))


def test_the_rule_of_equivalence_and_psi_are_worded_as_they_are_computed(full):
    result, page = full
    text = Page(page).text
    assert "the largest of one-sided tests against the margin, is below 0.05" in text
    assert "have two sides (95 %) and may reach beyond the margin all the same" in text.replace("\u202f", " ")
    assert "The whole interval" not in text
    assert "between one draw at a level and another draw at the other level" in text
    assert "need not be the difference of the two shares" in text
    assert "share their noise)" in text
    assert "(draws share their noise)" not in text
    afresh = tuple(replace(row, method="randomization_permutation") for row in result.tests)
    assert "need not be the difference" not in Page(render(replace(result, tests=afresh))).text


def test_every_section_names_the_items_that_it_answers(full):
    from citlr.report.guidance import by_section

    _, html = full
    for anchor, items in by_section(accuracy=True).items():
        section = html.split(f'<section id="{anchor}"')[1].split("</section>")[0]
        for item in items:
            assert f", {item.item}</" in section


def test_images_that_were_left_as_they_are_are_counted_wherever_an_audit_is_read(tmp_path):
    result = make_result()
    said = "left as they are: 49."
    assert said not in render(result) + model_card(result) + str(result)
    quality = replace(result.quality, not_placed=49)
    left = replace(result, quality=quality)
    read = read_result(left.to_json(tmp_path / "audit.json"))
    assert read.quality.not_placed == 49
    for written in (render(read), model_card(read), str(read), read._repr_html_()):
        assert written.count(said) == 1
    # A reason that says it already is enough.
    rows = (replace(left.tests[0], reason=f"A gate failed. {quality.left_alone}"), *left.tests[1:])
    assert str(replace(left, tests=rows)).count(said) == 1


def test_the_row_of_what_is_left_names_the_size_it_was_read_at():
    result = make_result()
    left = Left(before=12.0, p=0.001, left={"F": 0.1, "M": 0.2}, error={"F": 0.01, "M": 0.01})
    quality = replace(result.quality, left=left, carried=Carried(224, {"F": Estimate(0.9, 0.8, 1.0)}))
    page = render(replace(result, quality=quality))
    assert page.count(">what recorded levels still differ by at 224 pixels when") == 2
