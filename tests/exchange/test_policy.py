"""The gate of a release: every rule has a breach that it catches, and machine-readable copies."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_fake import make_result

from citlr.audit.results.result import (
    AuditResult,
    CohortSummary,
    Controls,
    Estimate,
    Gate,
    Quality,
    TestRow,
    Verdict,
    read_result,
    worst,
)
from citlr.cli.main import main
from citlr.errors import InputError
from citlr.exchange.policy import Policy, check_policy, read_policy
from citlr.report.card import model_card
from citlr.report.page import render


def row(label: str = "edema", verdict: Verdict = "equivalent", psi: float = 0.004, high: float = 0.01) -> TestRow:
    interval = Estimate(psi, 0.0, high)
    return TestRow(
        attribute="sex",
        contrast=("F", "M"),
        label=label,
        outcome="decision",
        method="sign flips",
        n_images=200,
        n_patients=150,
        draws=4,
        statistic=1.5,
        pvalue=0.2,
        pvalue_adjusted=0.4,
        pvalue_screening=0.3,
        log10_pvalue=-0.7,
        mean_effect=interval,
        psi=interval,
        flip_rate=interval,
        within_flip_rate=0.01,
        eca=0.98,
        margin=0.02,
        equivalence_pvalue=0.01,
        detectable_effect=math.nan,
        verdict=verdict,
        reason=f"{label}: because",
    )


def result(*rows: TestRow, gate: bool = True) -> AuditResult:
    gates = (Gate("composition", 0.01, 0.05, gate, "L1", "generator"),)
    counts = tuple(
        {"split": "test", "attribute": "sex", "level": level, "label": "", "value": "all", "images": 100, "patients": n}
        for level, n in (("F", 60), ("M", 90))
    )
    return AuditResult(
        verdict=worst(row.verdict for row in rows),
        tests=rows,
        baselines=(),
        quality=Quality(0.01, {"F": 0.9, "M": 0.9}, 0.01, 0.02, {}, None, "", gates),
        controls=Controls(None, (), None),
        cohort=CohortSummary((), counts, {}),
    )


def breaches(policy: Policy, *rows: TestRow, gate: bool = True, baseline: AuditResult | None = None) -> list[str]:
    old = None if baseline is None else {"m": baseline}
    return [check.name for check in check_policy({"m": result(*rows, gate=gate)}, policy, baseline=old).breaches]


def test_a_clean_audit_passes_and_says_how_many_rules_it_met() -> None:
    report = check_policy({"m": result(row())}, Policy(margin=0.02, min_patients=60))
    assert report.passed
    assert str(report) == "passed: 5 rules met"


@pytest.mark.parametrize(
    ("policy", "changed", "rule"),
    [
        (Policy(), row(verdict="dependence"), "verdict"),
        (Policy(fail_on=("dependence", "inconclusive")), row(verdict="inconclusive"), "verdict"),
        (Policy(margin=0.01), row(high=0.01), "margin"),
        (Policy(margin={"edema": 0.005}), row(), "margin"),
        (Policy(margin=0.5), row(high=math.nan), "margin"),
        (Policy(min_patients=61), row(), "patients"),
    ],
)
def test_every_rule_catches_its_breach(policy: Policy, changed: TestRow, rule: str) -> None:
    assert breaches(policy, changed) == [rule]


def test_a_uniform_shift_is_a_breach_of_the_margin_though_its_psi_is_small() -> None:
    shifted = replace(row(psi=0.01, high=0.012), mean_effect=Estimate(-0.1, -0.12, -0.08))
    assert breaches(Policy(margin=0.02), shifted) == ["margin"]
    assert breaches(Policy(margin=0.13), shifted) == []
    assert breaches(Policy(max_increase=0.05), shifted, baseline=result(row(psi=0.01))) == ["baseline"]


@pytest.mark.parametrize("bounds", [(-0.01, math.nan), (math.nan, 0.01)])
def test_a_bound_that_is_no_number_is_a_breach_on_either_side(bounds: tuple[float, float]) -> None:
    unknown = replace(row(), mean_effect=Estimate(0.0, *bounds))
    assert breaches(Policy(margin=0.5), unknown) == ["margin"]


def test_the_margin_of_a_policy_says_that_it_asks_for_more_than_equivalent() -> None:
    wide = replace(row(high=0.021), margin=0.02)
    (found,) = check_policy({"m": replace(result(wide), alpha=0.1)}, Policy(margin=0.02)).breaches
    assert "by the two-sided 90 % intervals psi may be up to 0.0210" in found.text
    assert found.text.endswith("('equivalent' within 0.02 is by one-sided tests at 0.1, which ask for less)")
    (found,) = check_policy({"m": result(replace(wide, verdict="inconclusive"))}, Policy(margin=0.02)).breaches
    assert "one-sided" not in found.text


def test_single_gates_can_be_required() -> None:
    assert breaches(Policy(require_gates=("composition",)), row(), gate=False) == ["gates"]
    assert breaches(Policy(require_gates=("composition",)), row()) == []
    with pytest.raises(InputError, match="Did you mean 'composition'"):
        breaches(Policy(require_gates=("compositon",)), row())


def test_an_audit_without_gates_has_passed_none() -> None:
    bare = replace(result(row()), quality=replace(result(row()).quality, gates=()))
    assert [check.text for check in check_policy({"m": bare}, Policy()).breaches] == ["no generator gate was set"]


def test_a_gate_that_was_waived_has_not_passed(tmp_path: Path) -> None:
    """Neither for a release, nor on the page, the card and the terminal, nor once it was read back."""
    gate = Gate("placebo", None, None, None, "Waived: no measured value fails.", "generator")
    clean = result(row())
    some = replace(clean, quality=replace(clean.quality, gates=(*clean.quality.gates, gate)))
    waived = read_result(some.to_json(tmp_path / "audit.json"))
    assert waived == some
    (broken,) = check_policy({"m": waived}, Policy()).breaches
    assert broken.text == "gates waived: placebo"
    assert not check_policy({"m": waived}, Policy(require_gates=("placebo",))).passed
    assert check_policy({"m": waived}, Policy(require_gates=False)).passed
    assert "Gates that were waived: placebo." in str(waived)
    assert "1 passed, 0 failed, 1 waived" in repr(waived)
    assert "- Gate placebo: **waived**." in model_card(waived)
    assert '<span class="mark part">– waived</span>' in render(waived)


def test_failed_gates_are_a_breach_unless_waived() -> None:
    assert breaches(Policy(), row(), gate=False) == ["gates"]
    assert breaches(Policy(require_gates=False), row(), gate=False) == []


def test_no_worse_than_the_baseline_by_more_than_x() -> None:
    policy = Policy(max_increase=0.002)
    assert breaches(policy, row(psi=0.005), baseline=result(row(psi=0.004))) == []
    assert breaches(policy, row(psi=0.007), baseline=result(row(psi=0.004))) == ["baseline"]
    assert breaches(policy, row("other"), baseline=result(row())) == ["baseline", "coverage"]
    # A change of probabilities is smaller than one of decisions and says nothing of it.
    of_probabilities = replace(row(psi=0.001), outcome="probability")
    assert breaches(policy, of_probabilities, baseline=result(row(psi=0.004))) == ["baseline"]
    assert breaches(policy, of_probabilities, baseline=result(of_probabilities)) == []
    # Their psi is a mean square: .0016 more of it is a change by four points.
    assert breaches(policy, replace(of_probabilities, psi=Estimate(0.0026, 0.001, 0.004)),
                    baseline=result(of_probabilities)) == ["baseline"]  # fmt: skip
    with pytest.raises(InputError, match="--baseline"):
        breaches(policy, row())


def with_counts(*cells: tuple[str, str, int | None]) -> AuditResult:
    counts = tuple(
        {"split": "test", "attribute": "sex", "level": level, "label": "", "value": value, "images": n, "patients": n}
        for level, value, n in cells
    )
    return replace(result(row()), cohort=CohortSummary((), counts, {}))


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ((("unknown", "all", 300),), ["level 'F' is not recorded of any", "level 'M' is not recorded of any"]),
        ((("F", "all", 80),), ["level 'M' is not recorded of any test patient, 50 are needed"]),
        ((("F", "all", 80), ("M", "all", None)), ["level 'M' has a masked count of test patients"]),
        ((("F", "all", 80), ("M", "all", None), ("M", "1", 0)), ["level 'M' has a masked count of test patients"]),
        ((("F", "all", 80), ("M", "all", 0)), ["level 'M' has 0 test patients"]),
        ((("F", "all", 80), ("M", "all", 90), ("M", "1", None)), []),
    ],
)
def test_every_level_that_is_tested_needs_its_patients(
    cells: tuple[tuple[str, str, int | None], ...], says: list[str]
) -> None:
    found = check_policy({"m": with_counts(*cells)}, Policy(min_patients=50)).breaches
    assert [rule.name for rule in found] == ["patients"] * len(says)
    for rule, begin in zip(found, says, strict=True):
        assert rule.text.startswith(begin)


def at(threshold: object, *rows: TestRow, alpha: float = 0.05) -> AuditResult:
    provenance = {"config": {"test": {"threshold": threshold}}}
    return replace(result(*rows), provenance=provenance, alpha=alpha)


def test_a_model_is_not_held_against_the_baseline_of_another_model_of_its_run() -> None:
    """A new model passed by the old numbers of the one that was audited beside it."""
    policy, old = Policy(max_increase=0.001), result(row(psi=0.004))
    found = check_policy({"new": old, "net": old}, policy, baseline={"net": old})
    assert [(rule.model, rule.name) for rule in found.breaches] == [("new", "baseline")]
    assert "is not in the baseline run" in str(found)
    renamed = check_policy({"new": old}, policy, baseline={"threshold-net": old})
    assert renamed.passed
    assert "(here and in the baseline: model new and threshold-net)" in renamed.to_markdown()


def test_what_the_baseline_tested_and_the_release_does_not_is_a_breach() -> None:
    """A release passed by leaving out the label that failed before, or the model."""
    older = {"net": result(row(), row("mass", "dependence"))}
    (found,) = check_policy({"net": result(row())}, Policy(), baseline=older).breaches
    assert (found.model, found.name, found.subject) == ("net", "coverage", "baseline")
    assert found.text == "tested in the baseline and not here: mass, sex M against F"
    ages = replace(row(), attribute="age", contrast=("young", "old"))
    (found,) = check_policy({"net": result(row())}, Policy(), baseline={"net": result(row(), ages)}).breaches
    assert found.text.endswith("not here: edema, age old against young")
    two = {"net": result(row()), "x": result(row())}
    (found,) = check_policy({"net": result(row())}, Policy(), baseline=two).breaches
    assert (found.model, found.name) == ("x", "coverage")
    assert found.text.startswith("'x' is in the baseline and was not audited")
    # More than the baseline has, a model under another name and the other level as the reference are whole.
    more, turned = result(row(), row("mass")), replace(row(), contrast=("M", "F"))
    for policy, new, old in (
        (Policy(), {"net": more, "x": more}, {"net": result(row())}),
        (Policy(), {"new": more}, {"net": more}),
        (Policy(max_increase=0.001), {"net": result(row())}, {"net": result(turned)}),
    ):
        assert check_policy(new, policy, baseline=old).passed


def test_a_baseline_at_another_threshold_is_a_breach_and_another_margin_is_said() -> None:
    policy, calm = Policy(max_increase=0.002), row()

    def rule(old: AuditResult, new: AuditResult) -> str:
        (found,) = (one for one in check_policy({"m": new}, policy, baseline={"m": old}).checks if one.limit == 0.002)
        return f"{found.passed}: {found.text}"

    assert "False: edema, sex M against F is about other decisions than the baseline (threshold 0.95 and 0.5)" in rule(
        at(0.5, calm), at(0.95, calm)
    )
    assert rule(at({"edema": 0.5}, calm), at(0.5, calm)).startswith("True: ")
    assert "threshold 0.5 and not recorded" in rule(result(calm), at(0.5, calm))
    wide = rule(at(0.5, replace(calm, margin=0.3), alpha=0.1), at(0.5, calm))
    assert wide.startswith("True: ")
    assert wide.endswith("(here and in the baseline: margin 0.02 and 0.3, alpha 0.05 and 0.1)")
    # The threshold of no decision makes no difference.
    odds = replace(calm, outcome="probability")
    assert rule(at(0.5, odds), at(0.95, odds)).startswith("True: ")


def test_the_threshold_of_an_audit_is_its_settings_or_that_of_its_accuracy() -> None:
    assert at({"edema": 0.3, "mass": 0.6}, row()).threshold("mass") == 0.6
    assert at({"mass": 0.6}, row()).threshold("edema") is None
    assert result(row()).threshold("edema") is None
    assert at("high", row()).threshold("edema") is None
    audited = make_result(("edema",), provenance={})
    assert audited.threshold("edema") == audited.accuracy.groups[0].threshold


def test_an_unknown_label_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="Did you mean 'edema'"):
        breaches(Policy(margin={"edma": 0.1}), row())


def test_junit_and_markdown(tmp_path: Path) -> None:
    report = check_policy({"a|b": result(row("<b>x</b>", "dependence"))}, Policy(margin=0.02))
    report.write(junit=tmp_path / "j.xml", markdown=tmp_path / "s.md")
    suite = ET.parse(tmp_path / "j.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    assert len(suite.findall("testcase/failure")) == 1
    text = (tmp_path / "s.md").read_text(encoding="utf-8")
    assert "1 of 3 rules are breached" in text
    assert "a\\|b" in text
    assert "<b>" not in text
    # A control character of a label would make the XML unreadable.
    odd = check_policy({"m": result(row("a\x00b\x1b", "dependence"))}, Policy())
    assert [case.get("name") for case in ET.fromstring(odd.to_junit())][1] == "verdict: a\\x00b\\x1b, sex M against F"


def test_a_policy_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("margin: {edema: 0.02}\nfail_on: [dependence, inconclusive]\nmin_patients: 50\n")
    assert read_policy(file).margin == {"edema": 0.02}
    file.write_text("margn: 0.02")
    with pytest.raises(InputError, match="Did you mean 'margin'"):
        read_policy(file)
    file.write_text("- margin")
    with pytest.raises(InputError, match="holds list, not a mapping of the keys margin"):
        read_policy(file)
    with pytest.raises(InputError, match="No policy"):
        read_policy(tmp_path / "none.yaml")


def test_a_result_survives_its_json(tmp_path: Path) -> None:
    before = result(row(), row("x", "dependence"))
    before.to_json(tmp_path / "audit.json")
    after = read_result(tmp_path / "audit.json")
    assert math.isnan(after.tests[0].detectable_effect)
    strip = [replace(test, detectable_effect=0.0) for test in after.tests]
    assert replace(after, tests=tuple(strip)) == replace(
        before, tests=tuple(replace(test, detectable_effect=0.0) for test in before.tests)
    )


def test_a_result_of_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_text('{"schema": "citlr.audit/9"}')
    with pytest.raises(InputError, match=r"citlr\.audit/9"):
        read_result(tmp_path / "audit.json")
    with pytest.raises(InputError, match="No audit"):
        read_result(tmp_path / "none.json")


def test_frame_and_text_have_one_row_per_test() -> None:
    audited = result(row(), row("x", "dependence"))
    assert list(audited.to_frame()["label"]) == ["edema", "x"]
    assert "x: because" in str(audited)
    assert "<script>" not in replace(audited, model="<script>")._repr_html_()


def test_an_audit_that_is_cut_foreign_or_odd_is_an_error_of_input(tmp_path: Path) -> None:
    before, file = result(row(), row("x", "dependence")), tmp_path / "audit.json"
    before.to_json(file)
    whole = file.read_bytes()
    assert read_result(file) == before
    for length in range(0, len(whole) - 3, 61):
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"audit\.json"):
            read_result(file)
    content = json.loads(whole)
    for key, value in list(content.items()):
        for other in ("5", 5, [5], {"five": 5}, None, False):
            if (
                key in ("schema", "provenance", "model", "alpha")
                or other == value
                or (key, other) == ("condition", "5")
            ):
                continue
            file.write_text(json.dumps({**content, key: other}))
            with pytest.raises(InputError):
                read_result(file)
    test = content["tests"][0]
    for odd in ({**test, "verdict": "fine"}, {**test, "psi": 0.1}, {**test, "draws": "4"}, {**test, "extra": 1}, {}):
        file.write_text(json.dumps({**content, "tests": [odd]}))
        with pytest.raises(InputError, match="tests"):
            read_result(file)
    for foreign in ("[]", "7", "{}", '{"schema": "other/1"}', "[" * 100_000, "\ufffe"):
        file.write_text(foreign)
        with pytest.raises(InputError):
            read_result(file)


@pytest.mark.parametrize(
    "rules",
    [
        "margin: .inf", "margin: true", "margin: '0.02'", "margin: {edema: .nan}", "margin: {}", "min_patients: 2.5",
        "max_increase: .inf", "require_gates: maybe", "fail_on: dependence", "fail_on: [dependance]", "margin: [0.1]",
        "margin: 0.1\nmargin: 0.2", "a: &a [*a]", "margin: [" * 99, "[",
    ],
)  # fmt: skip
def test_a_policy_that_would_pass_by_mistake_is_refused(tmp_path: Path, rules: str) -> None:
    (tmp_path / "policy.yaml").write_text(rules)
    with pytest.raises(InputError, match=r"policy\.yaml"):
        read_policy(tmp_path / "policy.yaml")


def test_no_label_and_no_audit_goes_unchecked() -> None:
    with pytest.raises(InputError, match="names no number for 'x'"):
        check_policy({"m": result(row(), row("x"))}, Policy(margin={"edema": 0.02}))
    with pytest.raises(InputError, match="holds no test"):
        check_policy({"m": replace(result(row()), tests=())}, Policy())


def test_the_gate_exits_with_2_and_not_1_where_it_cannot_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "half.json").write_text('{"schema": "citlr.audit/1", "tests": [')
    result(row(verdict="dependence")).to_json(tmp_path / "audit.json")
    (tmp_path / "policy.yaml").write_text("max_increase: 0.1")
    half, whole = str(tmp_path / "half.json"), str(tmp_path / "audit.json")
    calls = {
        ("check", whole): 1,
        ("check", half): 2,
        ("check", whole, "--policy", half): 2,
        ("check", whole, "--policy", str(tmp_path / "policy.yaml"), "--baseline", half): 2,
        ("check", "n" * 5000): 2,
        ("compare", whole, half): 2,
        ("check", whole, "--junit", f"{whole}/below.xml"): 2,
    }
    for arguments, status in calls.items():
        monkeypatch.setattr("sys.argv", ["citlr", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == status, arguments
        said = capsys.readouterr().err
        assert (said.startswith("citlr: ") and said.count("\n") == 1) or status == 1


OURS = {"method": "randomization_sign_flip"}


def _verdict(content: dict[str, Any], verdict: str, **changes: Any) -> None:
    content["verdict"] = content["tests"][0]["verdict"] = verdict
    content["tests"][0] |= changes


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda one: one.update(verdict="equivalent"), "and that of its tests 'dependence'"),
        (lambda one: _verdict(one, "equivalent"), "is 'equivalent', and its reason is another"),
        (lambda one: _verdict(one, "inconclusive"), "is 'inconclusive', and its reason is another"),
        (lambda one: _verdict(one, "equivalent", reason=""), "are not shown to lie below the margin"),
        (lambda one: _verdict(one, "inconclusive", reason="inconclusive, because of x"), "and no gate failed, and its"),
        (lambda one: one["quality"]["gates"][0].update(passed=False), "and the gate 'composition' failed"),
        (lambda one: one.update(tests=one["tests"] * 2), "it has a test twice"),
        (lambda one: one["tests"][0].update(OURS, pvalue_adjusted=0.05), "adjusted p-value of 0.05 is not below 0.05"),
        (
            lambda one: one.update(alpha=0.001, tests=[{**one["tests"][0], **OURS, "pvalue_adjusted": 0.004}]),
            "adjusted p-value of 0.004 is not below 0.001",
        ),
        (
            lambda one: _verdict(
                one,
                "equivalent",
                reason="",
                equivalence_pvalue=0.01,
                mean_effect={"estimate": 0.0, "low": 0.03, "high": 0.04},
                psi={"estimate": 0.0, "low": 0.0, "high": 0.0},
            ),
            "is 'equivalent', and an interval lies beyond the margin of 0.02",
        ),
    ],
)
def test_an_audit_that_contradicts_itself_is_refused(
    edit: Callable[[dict[str, Any]], None], what: str, tmp_path: Path
) -> None:
    reason = "edema: the output depends on the level (adjusted p = 0.004)."
    found = result(replace(row(verdict="dependence", psi=0.06, high=0.1), reason=reason))
    path = found.to_json(tmp_path / "audit.json")
    assert read_result(path) == found
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=re.escape(what)):
        read_result(path)


@pytest.mark.parametrize("changes", [{**OURS, "pvalue_adjusted": None}, {"method": "mine", "pvalue_adjusted": 0.4}])
def test_a_dependence_by_another_p_value_or_none_is_read(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = result(row(verdict="dependence", psi=0.06, high=0.1)).to_json(tmp_path / "audit.json")
    content = json.loads(path.read_text())
    content["tests"][0] |= changes
    path.write_text(json.dumps(content))
    assert read_result(path).verdict == "dependence"
