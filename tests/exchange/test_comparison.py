"""Audits side by side: paired where the images are the same, honest where they are not."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_fake import make_result, make_row
from scipy import stats
from scipy.special import expit

from citlr.audit.finished import Finished, find
from citlr.audit.results.result import AuditResult, Estimate
from citlr.config import AuditConfig, TestConfig
from citlr.errors import InputError, StateError
from citlr.exchange.comparison import choose, compare
from citlr.exchange.comparison_page import markdown, render_comparison
from citlr.invariance.responses import Responses
from citlr.run.folder import Run
from citlr.run.stage import Stage

COUNT = 400


def audit(name: str, values: np.ndarray, *, order: np.ndarray | None = None, prefix: str = "i") -> Finished:
    rows = np.arange(len(values)) if order is None else order
    responses = Responses.from_arrays(
        values[rows],
        units=[f"{prefix}{row}" for row in rows],
        patients=[f"p{row // 2}" for row in rows],
        levels=["female", "male"],
        labels=["edema"],
        attribute="sex",
    )
    shift = values[:, 1] - values[:, 0]
    row = make_row(
        "edema", ("female", "male"), attribute="sex", psi=0.1, mean=float(shift.mean()), width=0.04,
        verdict="inconclusive", pvalue=0.2, tests=1,
    )  # fmt: skip
    return Finished(name, "net", make_result(tests=(row,)), responses, TestConfig())


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    base = np.repeat(rng.random((COUNT, 1, 4, 1)) < 0.3, 2, axis=1).astype(float)
    flips = rng.random((COUNT, 1)) < 0.2
    more = flips | (rng.random((COUNT, 1)) < 0.1)
    some, further = base.copy(), base.copy()
    some[:, 1][flips[:, 0]] = 1.0
    further[:, 1][more[:, 0]] = 1.0
    return {"some": some, "more": further}


def test_the_paired_difference_is_that_of_the_images_whatever_their_order(values: dict[str, np.ndarray]) -> None:
    other = audit("b", values["more"], order=np.random.default_rng(0).permutation(COUNT))
    row = compare([audit("a", values["some"]), other]).rows[0]
    change = (values["more"] - values["some"])[:, 1, :, 0].mean(axis=1)
    assert row.paired
    assert row.mean.estimate == pytest.approx(change.mean())
    by_patient = change.reshape(-1, 2).mean(axis=1)
    half = stats.t.isf(0.025, COUNT // 2 - 1) * by_patient.std(ddof=1) / math.sqrt(COUNT // 2)
    # The audit's own interval corrects for skewness; the plain one is near it.
    assert row.mean.low == pytest.approx(change.mean() - half, abs=0.005)
    assert row.mean.high == pytest.approx(change.mean() + half, abs=0.01)


def test_pairing_makes_the_interval_shorter(values: dict[str, np.ndarray]) -> None:
    first, other = audit("a", values["some"]), audit("b", values["more"])
    paired = compare([first, other]).rows[0]
    apart = compare([first, replace(other, responses=None)]).rows[0]
    assert not apart.paired
    assert apart.note.endswith("as of independent audits.")
    assert paired.mean.high - paired.mean.low < apart.mean.high - apart.mean.low
    assert apart.mean.estimate == pytest.approx(paired.mean.estimate)


def test_a_model_does_not_differ_from_itself(values: dict[str, np.ndarray]) -> None:
    row = compare([audit("a", values["some"]), audit("b", values["some"])]).rows[0]
    assert row.psi.estimate == row.mean.estimate == 0.0
    assert row.psi.low < 0 < row.psi.high < 0.05


def test_other_images_are_not_paired_and_an_overlap_is_said(values: dict[str, np.ndarray]) -> None:
    first = audit("a", values["some"])
    assert "have other images" in compare([first, audit("b", values["more"], prefix="j")]).rows[0].note
    part = audit("c", values["more"], order=np.arange(100))
    row = compare([first, part]).rows[0]
    assert not row.paired
    assert "share 100 of 400 and 100 images" in row.note
    assert "not quite independent" in row.note


def test_psi_at_the_originals_beside_psi_of_the_draws_is_said() -> None:
    rng = np.random.default_rng(4)
    scores = rng.normal(0, 1, (COUNT, 1, 1, 1)) + rng.normal(0, 1, (COUNT, 1, 4, 1))
    values = expit(np.repeat(scores, 2, axis=1) + 0.3 * np.arange(2)[:, None, None])
    draws = audit("b", values)
    assert draws.responses is not None
    original = values[:, 0, 0]
    known = replace(draws.responses, factual=np.zeros(COUNT, dtype=int), original=original)
    whole = replace(draws, name="a", responses=known)
    said = "Psi of 'a' is at the originals, and that of 'b' of the draws"
    assert said in compare([whole, draws]).rows[0].note
    assert said in compare([draws, whole]).rows[0].note
    assert "at the originals" not in compare([whole, replace(whole, name="c")]).rows[0].note
    assert "at the originals" not in compare([draws, replace(draws, name="c")]).rows[0].note


def test_decisions_are_not_compared_with_probabilities(values: dict[str, np.ndarray]) -> None:
    first, other = audit("a", values["some"]), audit("b", values["more"])
    tests = tuple(replace(row, outcome="probability") for row in other.result.tests)
    row = compare([first, replace(other, result=replace(other.result, tests=tests))]).rows[0]
    assert math.isnan(row.psi.estimate)
    assert "about each decision" in row.note


def settled(audit: Finished, *, alpha: float = 0.05, margin: float = 0.05, threshold: float = 0.5) -> Finished:
    provenance = {"config": {"test": {"threshold": threshold}}}
    tests = tuple(replace(row, margin=margin) for row in audit.result.tests)
    result = replace(audit.result, alpha=alpha, provenance=provenance, tests=tests, accuracy=None)
    return replace(audit, result=result, test=TestConfig(alpha=alpha, margin=margin, threshold=threshold))


def test_intervals_of_different_confidence_are_not_joined(values: dict[str, np.ndarray]) -> None:
    first, other = settled(audit("a", values["some"])), settled(audit("b", values["more"]), alpha=0.3)
    apart = compare([replace(first, responses=None), other])
    (row,) = apart.rows
    assert (row.first_alpha, row.other_alpha) == (0.05, 0.3)
    assert row.mean.estimate == pytest.approx(row.other_mean.estimate - row.first_mean.estimate)
    assert all(math.isnan(bound) for part in (row.psi, row.mean) for bound in (part.low, part.high))
    assert "no interval can be made of two that have different confidence" in row.note
    page, table = render_comparison([apart]).replace("\u202f", " "), markdown([apart])
    assert "interval of 95 %" in page
    assert "interval of 70 %" in page
    assert "(no interval)" in table
    assert "nan" not in page + table + json.dumps(apart.to_dict(), allow_nan=False)
    # Image by image they are computed afresh, at the first one's level.
    paired, same = compare([first, other]).rows[0], compare([first, settled(audit("b", values["more"]))]).rows[0]
    assert (paired.psi, paired.mean) == (same.psi, same.mean)


def test_every_setting_that_differs_is_said(values: dict[str, np.ndarray]) -> None:
    first = settled(audit("a", values["some"]))
    assert compare([first, settled(audit("b", values["more"]))]).rows[0].differing == ()
    other = settled(audit("b", values["more"]), margin=0.3, threshold=0.95)
    other = replace(other, result=replace(other.result, tests=(replace(other.result.tests[0], verdict="equivalent"),)))
    found = compare([first, other])
    assert found.rows[0].differing == ("margin 0.05 and 0.3", "threshold 0.5 and 0.95")
    for written in (str(found), markdown([found]), render_comparison([found])):
        assert "margin 0.05 and 0.3, threshold 0.5 and 0.95" in written
    assert "equivalent in b (margin 0.05 and 0.3, threshold 0.5 and 0.95)" in render_comparison([found])
    assert "another margin" in render_comparison([found])


def test_other_cohorts_and_generators_are_said_of_files_alone(values: dict[str, np.ndarray]) -> None:
    def alone(name: str, split: int, table: str, weights: str, images: int) -> Finished:
        row = replace(audit(name, values["some"]).result.tests[0], n_images=images)
        config = {"cohort": {"table": f"{name}.csv", "split_seed": split}, "seed": 0}
        inputs = {"table_sha256": table * 64, "generator_sha256": {"a.safetensors": weights}}
        result = make_result(tests=(row,), provenance={"config": config, "inputs": inputs})
        return Finished(name, "net", result)

    first = alone("a", 0, "e", "f", 100)
    assert compare([first, alone("b", 0, "e", "f", 100)]).rows[0].differing == ()
    found = compare([first, alone("b", 3, "d", "c", 120)])
    told = ", ".join(found.rows[0].differing)
    every = (
        "cohort.split_seed 0 and 3",
        "test images 100 and 120",
        "cohort's table eeeeeeee and dddddddd",
        "generator ",
    )
    assert all(one in told for one in every)
    for written in (str(found), markdown([found]), render_comparison([found])):
        assert "split_seed 0 and 3" in written.replace("\\", "")


def test_what_cannot_be_compared_is_refused(values: dict[str, np.ndarray]) -> None:
    first = audit("a", values["some"])
    with pytest.raises(InputError, match="at least two audits"):
        compare([first])
    renamed = tuple(replace(row, label="flu") for row in first.result.tests)
    with pytest.raises(InputError, match="no label and contrast in common"):
        compare([first, replace(first, result=replace(first.result, tests=renamed))])


def test_audits_that_are_called_alike_are_told_apart_by_the_folders_above(values: dict[str, np.ndarray]) -> None:
    # `--out run`, the default, in the folders of three studies, and one of them named twice.
    places = ["/a/old/run", "/a/new/run", "/b/new/run", "/b/new/run", "/b/new/other"]
    audits = [replace(audit(Path(place).name, values["some"]), place=Path(place)) for place in places]
    found = compare(audits)
    assert [found.rows[0].first, *(row.other for row in found.rows)] == [
        "old/run",
        "a/new/run",
        "b/new/run (1)",
        "b/new/run (2)",
        "other",
    ]
    assert len({row.note for row in found.rows}) == 4


def test_runs_are_compared_model_by_model_where_they_share_names(values: dict[str, np.ndarray]) -> None:
    one = audit("a", values["some"])
    assert [len(series) for series in choose([{"x": one, "y": one}])] == [2]
    assert [len(series) for series in choose([{"x": one}, {"z": one}, {"w": one}])] == [3]
    assert [len(series) for series in choose([{"x": one, "y": one}, {"y": one, "x": one}])] == [2, 2]
    with pytest.raises(InputError, match="RUN:MODEL"):
        choose([{"x": one, "y": one}, {"z": one}])
    (some,) = choose([{"x": one, "y": one}, {"x": one, "z": one}])
    assert str(compare(some)).endswith(" Models that not all runs have, and not compared: 'y', 'z'.")
    assert "not compared" not in str(compare(choose([{"x": one}, {"z": one}])[0]))


def test_page_markdown_json_and_text(values: dict[str, np.ndarray]) -> None:
    hostile = audit("<b>|a", values["some"])
    found = compare([hostile, audit("b", values["more"])])
    page, table = render_comparison([found]), markdown([found])
    assert "&lt;b&gt;|a" in page
    assert "<b>|" not in page
    assert "Evidence, not certification" in page
    both = [found, compare([audit("c", values["some"]), audit("d", values["more"])])]
    assert "<h1>&lt;b&gt;|a, c and what is compared with each</h1>" in render_comparison(both)
    assert "&lt;b&gt;\\|a" in table
    assert table.count("\n| ") == 2
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["rows"][0]["psi"].keys() == {"estimate", "low", "high"}
    assert "paired, clustered by patient" in str(found)


def test_an_audit_that_was_handed_on_is_found_by_its_file(tmp_path) -> None:
    result: AuditResult = make_result()
    result.to_json(tmp_path / "audit.json")
    found = find(tmp_path / "audit.json", responses=True)
    assert list(found) == [result.model]
    assert found[result.model].responses is None
    with pytest.raises(InputError, match="not a run folder"):
        find(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not of 'other'"):
        find(f"{tmp_path / 'audit.json'}:other")


def test_a_damaged_record_of_a_run_is_named(tmp_path) -> None:
    settings = {"cohort": {"table": "/a.csv", "images": "/", "attribute": "sex", "labels": ["x"]},
                "model": {"source": "m.onnx"}}  # fmt: skip
    run = Run.open(tmp_path / "run", AuditConfig.model_validate(settings))
    with run.locked():
        work = lambda folder: {"at": str(make_result().to_json(folder / "audit.json"))}  # noqa: E731
        run.do(Stage("test.model", {}, work, ("audit.json",)))
    assert list(find(run.root)) == ["model"]
    record = run.root / "stages" / "test.model.json"
    record.write_text(record.read_text()[:20])
    with pytest.raises(StateError, match=r"test\.model\.json' is damaged: run `citlr test .*` to finish it\."):
        find(run.root)
    record.unlink()
    with pytest.raises(StateError, match=r"no finished stage 'test\.model'"):
        find(run.root)


def test_estimates_of_handed_on_audits_combine_as_independent_ones(values: dict[str, np.ndarray]) -> None:
    first, other = audit("a", values["some"]), audit("b", values["more"])
    one = replace(first.result.tests[0], psi=Estimate(0.1, 0.08, 0.12))
    two = replace(one, psi=Estimate(0.15, 0.12, 0.19))
    row = compare(
        [
            replace(first, responses=None, result=replace(first.result, tests=(one,))),
            replace(other, responses=None, result=replace(other.result, tests=(two,))),
        ]
    ).rows[0]
    assert row.psi.estimate == pytest.approx(0.05)
    assert row.psi.low == pytest.approx(0.05 - math.hypot(0.03, 0.02))
    assert row.psi.high == pytest.approx(0.05 + math.hypot(0.04, 0.02))


def test_a_contrast_in_the_other_order_is_the_same_and_what_has_no_partner_is_named(
    values: dict[str, np.ndarray],
) -> None:
    one, other = audit("a", values["some"]), audit("b", values["more"])
    (row,) = other.result.tests
    mean = row.mean_effect
    turned = replace(
        row,
        contrast=("male", "female"),
        mean_effect=Estimate(-mean.estimate, -mean.high, -mean.low),
        verdict="dependence",
    )
    alone = replace(row, label="mass")
    back = replace(other, result=make_result(tests=(turned, alone)))
    (same,), (found,) = compare([one, other]).rows, compare([one, back]).rows
    assert (found.mean, found.psi, found.contrast) == (same.mean, same.psi, ("female", "male"))
    assert found.other_mean == mean
    assert "not compared: 'mass', female against male" in found.note


def test_images_of_the_same_names_with_other_content_are_not_paired(values: dict[str, np.ndarray]) -> None:
    first, other = audit("a", values["some"]), audit("b", values["more"])
    mine = {f"i{row}": f"{row}" for row in range(COUNT)}
    theirs = mine | {"i0": "another"}
    first = replace(first, cohort="one", contents=lambda: mine)
    # Another cohort in which the test images are the same, as where a training image was added.
    assert compare([first, replace(other, cohort="two", contents=lambda: dict(mine))]).rows[0].paired
    assert compare([first, replace(other, cohort="one", contents=None)]).rows[0].paired
    for contents, says in ((lambda: theirs, "1 of 400 with other content"), (lambda: None, "cannot be looked at")):
        row = compare([first, replace(other, cohort="two", contents=contents)]).rows[0]
        assert not row.paired
        assert says in row.note


def test_counterfactuals_of_different_generators_are_said(values: dict[str, np.ndarray]) -> None:
    first = replace(audit("a", values["some"]), redrawn="one")
    assert "redrawn by" not in compare([first, replace(first, name="b")]).rows[0].note
    row = compare([first, replace(first, name="b", redrawn="two")]).rows[0]
    assert row.paired
    assert "'a' and 'b' were redrawn by different generators, draws or seeds" in row.note
