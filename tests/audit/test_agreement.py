"""Gates on what the model itself does: with null interventions, and between recorded levels."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_fake import make_result

from citlr.audit.conditional import audit_predictions
from citlr.audit.gates.answers import gate_agreement, gate_unexplained
from citlr.audit.gates.evidence import Answers, Evidence
from citlr.audit.measures import unexplained
from citlr.audit.measures.agreement import measure_agreement
from citlr.audit.measures.faithfulness import Faithfulness
from citlr.audit.measures.unexplained import measure_unexplained
from citlr.audit.results.records import Carried, Estimate, Gate, Quality, Unexplained
from citlr.audit.results.result import AuditResult, Verdict, read_result
from citlr.audit.results.statistics import schema_rows
from citlr.audit.results.verdicts import withhold
from citlr.config import GateConfig, TestConfig
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import assess

SETTINGS = TestConfig(randomizations=199)
DRAWS = 4
UNSEEN = Faithfulness(Quality(None, {}, None, 0.0, {}, None, "", ()))


class World:
    """Images of patients whose level goes with a finding; what a model answers is a function of both and of noise."""

    def __init__(self, n: int, seed: int, *, tied: float = 0.5, levels: tuple[str, ...] = ("female", "male")) -> None:
        self.random = np.random.default_rng(seed)
        self.levels = levels
        self.sick = self.random.random(n) < 0.5
        own = self.random.integers(0, len(levels), n)
        self.level = np.where(self.random.random(n) < tied, own, np.where(self.sick, 0, len(levels) - 1))
        self.severity = self.sick * 2.0 + 0.6 * self.random.normal(size=n) - 1
        names = [f"i{k:05}" for k in range(n)]
        self.frame = pd.DataFrame({"image_id": names, "patient_id": [f"p{k:05}" for k in range(n)],
                                   "sex": np.asarray(levels)[self.level], "x": self.sick.astype(float)})  # fmt: skip

    def answers(self, real: np.ndarray, redrawn: np.ndarray | None = None, *, noise: float = 0.2) -> pd.DataFrame:
        """Long table of logits on the originals (n,), and the same, or others (n,), on every redrawn image."""
        n, k = len(real), len(self.levels)
        drawn = (real if redrawn is None else redrawn)[:, None, None] + np.zeros((1, k, 1))
        drawn = drawn + noise * self.random.normal(size=(n, 1, DRAWS))
        parts = [self._long(real[:, None, None], self.frame["sex"].to_numpy()[:, None], [-1])]
        parts.append(self._long(drawn, np.tile(np.asarray(self.levels), (n, 1)), range(DRAWS)))
        return pd.concat(parts, ignore_index=True)

    def _long(self, logits: np.ndarray, level: np.ndarray, draws: object) -> pd.DataFrame:
        n, k, d = logits.shape
        return pd.DataFrame({
            "image_id": np.repeat(self.frame["image_id"], k * d),
            "patient_id": np.repeat(self.frame["patient_id"], k * d),
            "attribute": "sex", "level": np.repeat(level.ravel(), d), "draw": np.tile(list(draws), n * k), "label": "x",
            "probability": 1 / (1 + np.exp(-logits.ravel())),
        })  # fmt: skip

    def audited(self, table: pd.DataFrame) -> tuple[list[Gate], list[str]]:
        responses = Responses.from_frame(table, attribute="sex", levels=self.levels)
        rows = schema_rows(assess(responses, **SETTINGS.model_dump(), shared_seeds=True, seed=0))
        agreement = measure_agreement(responses, self.frame, settings=SETTINGS)
        found = measure_unexplained(responses, self.frame, given=("x",), settings=SETTINGS, seed=0)
        evidence = Evidence(
            GateConfig(), UNSEEN, UNSEEN.carried_at(64), rows=rows, agreement=agreement, unexplained=found
        )
        gates = [*gate_agreement(evidence), *gate_unexplained(evidence)]
        return gates, [row.verdict for row in withhold(rows, gates)]


def failed(gates: list[Gate]) -> list[str]:
    return [gate.name for gate in gates if not gate.passed]


def test_a_fair_model_passes_although_the_finding_goes_with_the_level() -> None:
    world = World(900, 0, tied=0.4)
    gates, verdicts = world.audited(world.answers(world.severity * 3))
    assert failed(gates) == []
    assert verdicts == ["equivalent"]


@pytest.mark.parametrize("seed", range(8))
def test_fair_models_are_rarely_held_up(seed: int) -> None:
    world = World(450, 100 + seed)
    gates, _ = world.audited(world.answers(world.severity * 3))
    assert failed(gates) == []


def test_answers_that_redrawing_takes_away_fail_the_agreement() -> None:
    """The model reads what redrawn images do not have: it answers every one of them as if nobody had it."""
    world = World(600, 1)
    texture = np.where(world.level == 1, 3.0, -3.0)
    gates, verdicts = world.audited(world.answers(texture, np.full(600, -3.0)))
    assert failed(gates) == ["agreement on x", "unexplained difference on x"]
    assert verdicts == ["inconclusive"]
    assert gates[0].value == pytest.approx(0.5, abs=0.06)
    assert "'female' and 'male' get different answers here, and redrawing does not show why" in gates[1].text


def test_answers_that_redrawn_images_keep_are_found_by_the_recorded_levels() -> None:
    """Edits that leave fine detail in place keep the texture: null interventions agree, and still it is unexplained."""
    world = World(600, 2)
    either = np.where(world.level == 1, 3.0, world.severity * 3)  # the finding, or the texture
    gates, verdicts = world.audited(world.answers(either))
    assert failed(gates) == ["unexplained difference on x"]
    assert verdicts == ["inconclusive"]


def test_a_dependence_in_some_images_both_ways_has_no_mean_and_is_found_by_the_finding() -> None:
    world = World(1500, 3)
    some = world.random.random(1500) < 0.5
    swapped = np.where((world.level == 1) & some, -world.severity, world.severity)
    gates, verdicts = world.audited(world.answers(swapped * 3, noise=0.0))
    assert failed(gates) == ["unexplained difference on x"]
    assert "with 'x'" in gates[1].text or "without 'x'" in gates[1].text
    assert abs(gates[1].value) < 0.06
    assert verdicts == ["inconclusive"]


@pytest.mark.parametrize("values", [("AP", "PA"), (0.0, 1.0), (True, False)])
def test_a_dependence_both_ways_between_views_is_found_by_the_view(values: tuple[object, object]) -> None:
    """It has no mean, overall or in the sick or the healthy, and redrawn images keep what the model reads."""
    world = World(800, 4)
    view = world.random.random(800) < 0.5
    world.frame["view"] = np.where(view, *(np.array(values, dtype=object)))
    world.frame["view"] = world.frame["view"].infer_objects()
    read = world.random.normal(size=800) + 1.5 * world.level * np.where(view, 1, -1)
    for given, fails in ((("x",), False), (("x", "view"), True)):
        responses = Responses.from_frame(world.answers(read), attribute="sex", levels=world.levels)
        rows = schema_rows(assess(responses, **SETTINGS.model_dump(), seed=0))
        assert rows[0].verdict == "equivalent"
        found = measure_unexplained(responses, world.frame, given=given, settings=SETTINGS, seed=0)
        (gate,) = gate_unexplained(Answers(GateConfig(), unexplained=found, rows=rows))
        assert gate.passed is not fails
        assert ("get different answers here where 'view' is " in gate.text) is fails


def test_hard_decisions_and_three_levels_are_held_contrast_by_contrast() -> None:
    world = World(1200, 4, levels=("a", "b", "c"))
    hard = np.where(world.level == 2, 40.0, np.where(world.sick, 40.0, -40.0))
    gates, verdicts = world.audited(world.answers(hard, np.where(world.sick, 40.0, -40.0), noise=0.0))
    assert "unexplained difference on x, c against a" in failed(gates)
    assert "unexplained difference on x, c against b" in failed(gates)
    assert "unexplained difference on x, b against a" not in failed(gates)
    assert "equivalent" not in verdicts[1:]


@pytest.mark.parametrize("seed", range(3))
def test_a_small_dose_that_redrawing_takes_away_is_found_in_the_probabilities(seed: int) -> None:
    """Few decisions change, so that those of the levels hardly differ; the probabilities of every image do."""
    world = World(450, 20 + seed)
    fair = world.severity * 3
    gates, verdicts = world.audited(world.answers(fair + np.where(world.level == 1, 1.0, 0.0), fair))
    assert "unexplained difference on x" in failed(gates)
    assert "null interventions lose" in gates[1].text
    # The part that is held against the limit: what is lost, where the difference itself does not reach beyond it.
    whole = [float(one) for one in re.findall(r"by ([-+.\d]+) \[([-+.\d]+), ([-+.\d]+)\]", gates[1].text)[0]]
    lost = [float(one) for one in re.findall(r"lose ([-+.\d]+) \[([-+.\d]+), ([-+.\d]+)\]", gates[1].text)[0]]
    held = (
        whole if whole[1] > 100 * SETTINGS.margin or "out 'x'" in gates[1].text or "with 'x'" in gates[1].text else lost
    )
    assert 100 * gates[1].value == pytest.approx(held[0], abs=0.051)
    assert verdicts == ["inconclusive"]


def test_a_found_dependence_is_not_withheld_by_the_difference_that_it_makes() -> None:
    world = World(600, 5)
    table = world.answers(world.severity)
    shown = np.where(table["level"] == "male", 0.9, 0.1)
    gates, verdicts = world.audited(table.assign(probability=shown))
    assert failed(gates) == []
    assert verdicts == ["dependence"]
    # Redrawing explains all of it: what is left is what is shown beside the limit.
    assert "differ from those of 'female' by +100.2" in gates[1].text
    assert abs(gates[1].value) < gates[1].limit
    assert "forbids no such verdict" in gates[1].text


def test_a_dependence_that_recorded_levels_contradict_is_withheld() -> None:
    """A generator that raises every answer under one level, of a model that answers both levels alike."""
    world = World(3000, 7)
    table = world.answers(world.severity * 3, noise=0.0)
    female = table["image_id"].isin(world.frame["image_id"][world.frame["sex"] == "female"])
    led = female & (table["level"] == "male") & (table["draw"] >= 0)
    raised = np.where(led, np.minimum(table["probability"] + 0.3, 1.0), table["probability"])
    gates, verdicts = world.audited(table.assign(probability=raised))
    assert failed(gates) == ["unexplained difference on x"]
    assert "Either the generator invents it, or something that is not recorded cancels it" in gates[-1].text
    assert verdicts == ["inconclusive"]


@pytest.mark.parametrize("logit", [-4.0, 4.0])
def test_outputs_that_are_the_same_everywhere_agree(logit: float) -> None:
    world = World(600, 6)
    gates, verdicts = world.audited(world.answers(np.full(600, logit), noise=0.0))
    assert failed(gates) == []
    assert verdicts == ["equivalent"]


@pytest.mark.parametrize("redrawn", [True, False])
def test_outputs_that_are_the_same_on_one_side_only_do_not_agree(redrawn: bool) -> None:
    """Decisions are equal and nothing is told from anything; yet one side varies, and the other says one number."""
    world = World(500, 11)
    varies, flat = -4 + 0.2 * world.random.normal(size=500), np.full(500, -4.0)
    sides = (varies, flat) if redrawn else (flat, varies)
    gates, verdicts = world.audited(world.answers(*sides, noise=0.0))
    assert failed(gates) == ["agreement on x"]
    assert "all get one and the same output" in gates[0].text
    assert verdicts == ["inconclusive"]


def test_rare_decisions_are_no_disagreement() -> None:
    world = World(900, 7)
    gates, verdicts = world.audited(world.answers(world.severity - 3.2))
    assert failed(gates) == []
    assert verdicts == ["equivalent"]


def test_without_null_interventions_agreement_is_unknown_and_fails() -> None:
    world = World(60, 8)
    table = world.answers(world.severity)
    responses = Responses.from_frame(table[table["draw"] >= 0], attribute="sex", levels=world.levels)
    (found,) = measure_agreement(responses, world.frame, settings=SETTINGS)
    (gate,) = gate_agreement(Evidence(GateConfig(), UNSEEN, UNSEEN.carried_at(64), agreement=(found,)))
    assert not gate.passed
    assert "unknown" in gate.text


def test_where_the_record_says_the_level_nobody_is_left_to_compare() -> None:
    world = World(300, 9)
    table, told = world.answers(world.severity), world.frame.assign(told=world.level.astype(float))
    responses = Responses.from_frame(table, attribute="sex", levels=world.levels)
    (found,) = measure_unexplained(responses, told, given=("x", "told"), settings=SETTINGS, seed=0)
    assert found.difference is None
    assert not found.beyond


def test_who_has_which_level_is_estimated_once_for_all_models(monkeypatch: pytest.MonkeyPatch) -> None:
    world, made = World(200, 17), []
    real = unexplained.assign
    assigned: unexplained.Assigned = {}
    monkeypatch.setattr(unexplained, "assign", lambda *given, **named: made.append(real(*given, **named)) or made[-1])

    def measured(logits: np.ndarray, frame: pd.DataFrame = world.frame, seed: int = 0) -> Unexplained:
        responses = Responses.from_frame(world.answers(logits, noise=0.0), attribute="sex", levels=world.levels)
        (found,) = measure_unexplained(responses, frame, given=("x",), settings=SETTINGS, seed=seed, assigned=assigned)
        return found

    first, second = measured(world.severity), measured(-world.severity)
    assert (first != second, len(made)) == (True, 1)
    assigned.clear()
    assert measured(-world.severity) == second  # by itself
    assert len(made) == 2
    # Another seed, and other covariates or patients of the same images, are asked anew.
    measured(world.severity, seed=1)
    measured(world.severity, world.frame.assign(x=1 - world.frame["x"]))
    measured(world.severity, world.frame.assign(patient_id=[f"p{k // 2}" for k in range(200)]))
    assert len(made) == 5


@pytest.mark.parametrize("told", [True, False])
def test_no_model_is_equivalent_whose_recorded_levels_cannot_be_compared(told: bool) -> None:
    """It answers by the level, which redrawing leaves in place; a covariate says it, or few patients have one."""
    world = World(400, 15)
    if not told:
        world.level[:] = 0
        world.level[:7] = 1
        world.frame["sex"] = np.asarray(world.levels)[world.level]
    world.frame["x"] = world.level.astype(float) if told else world.frame["x"]
    gates, verdicts = world.audited(world.answers(6.0 * world.level - 3, noise=0.0))
    assert verdicts == ["inconclusive"]
    assert failed(gates) == ["unexplained difference on x"]


def test_an_interval_as_wide_as_the_range_rules_nothing_out() -> None:
    world = World(26, 16)
    real = np.where(world.random.random(26) < 0.5, 8.0, -8.0)
    responses = Responses.from_frame(world.answers(real), attribute="sex", levels=world.levels)
    blurred = world.frame.assign(told=world.level + world.random.normal(size=26) * 0.45)
    found = measure_unexplained(responses, blurred, given=("x", "told"), settings=SETTINGS, seed=0)
    row = replace(make_result().tests[0], label="x", contrast=found[0].contrast, margin=0.02, verdict="equivalent")
    (gate,) = gate_unexplained(Answers(GateConfig(), unexplained=found, rows=(row,)))
    assert not gate.passed
    assert '"equivalent" needs fewer than 20 to be left open' in gate.text


@pytest.mark.parametrize(("reach", "verdict", "passes"), [
    (0.19, "equivalent", True), (0.2, "equivalent", False), (0.9, "inconclusive", True), (nan, "equivalent", False)
])  # fmt: skip
def test_equivalent_needs_a_stated_difference_to_be_ruled_out(reach: float, verdict: Verdict, passes: bool) -> None:
    row = replace(make_result().tests[0], margin=0.02, verdict=verdict)
    rest = Estimate(0.05, 0.05 - reach, reach)
    found = Unexplained(row.label, row.contrast, rest, rest, False)
    (gate,) = gate_unexplained(Answers(GateConfig(), unexplained=(found,), rows=(row,)))
    assert gate.passed == passes
    assert not passes or f"More than {100 * reach:.1f} points unexplained are ruled out" in gate.text
    # What does not matter need not be ruled out.
    (wide,) = gate_unexplained(Answers(GateConfig(), unexplained=(found,), rows=(replace(row, margin=0.5),)))
    assert wide.passed == (reach < 0.5 or verdict != "equivalent")


@pytest.mark.parametrize("cases", [8, 60])
def test_a_model_that_is_not_shown_to_tell_the_finding_is_doubted_however_few_have_it(cases: int) -> None:
    random = np.random.default_rng(20)
    outputs = random.random((300, 1, 1, 1)).repeat(2, axis=1).repeat(2, axis=2)
    truth = np.zeros(300)
    truth[random.permutation(300)[:cases]] = 1
    responses = Responses.from_arrays(
        outputs, levels=["F", "M"], labels=["x"], attribute="sex", factual=np.arange(300) % 2, original=outputs[:, 0, 0]
    )
    known = pd.DataFrame({"image_id": responses.units, "patient_id": responses.patients, "x": truth})
    (row,) = audit_predictions(responses, known, settings=TestConfig(margin=0.02)).tests
    assert row.verdict == "equivalent"
    assert "not shown to tell 'x'" in row.reason
    assert ("too few patients for an interval" in row.reason) == (cases < 10)


def test_a_gate_of_one_label_leaves_the_others_alone() -> None:
    rows = [replace(row, verdict="equivalent") for row in make_result().tests]
    gate = Gate(f"agreement on {rows[0].label}", 0.5, 0.8, False, "It does not.", "model", label=rows[0].label)
    after = withhold(tuple(rows), (gate,))
    assert {row.verdict for row in after if row.label == rows[0].label} == {"inconclusive"}
    assert {row.verdict for row in after if row.label != rows[0].label} == {"equivalent"}


def test_what_was_measured_is_read_back(tmp_path: Path) -> None:
    world = World(200, 10)
    table = world.answers(world.severity)
    responses = Responses.from_frame(table, attribute="sex", levels=world.levels)
    base: AuditResult = make_result()
    quality = replace(
        base.quality,
        carried=Carried(64, {"female": Estimate(0.97, 0.9, 1.04)}),
        agreement=measure_agreement(responses, world.frame, settings=SETTINGS),
        unexplained=measure_unexplained(responses, world.frame, given=("x",), settings=SETTINGS, seed=0),
        gates=(Gate("g", 1.0, 0.5, True, "Fine.", "model", "x", ("female", "male")),),
    )
    result = replace(base, quality=quality, tests=tuple(replace(row, carried=0.9) for row in base.tests))
    result.to_json(tmp_path / "audit.json")
    assert read_result(tmp_path / "audit.json").quality == quality
    assert read_result(tmp_path / "audit.json").tests[0].carried == 0.9


def test_an_audit_of_before_gates_said_what_they_are_about_is_read(tmp_path: Path) -> None:
    gates = (Gate("g", 1.0, 0.5, True, "Fine.", "generator"), Gate("of x", 1.0, 0.5, True, "Fine.", "model", "x"))
    base = make_result()
    result = replace(base, quality=replace(base.quality, gates=gates))
    content = json.loads(result.to_json(tmp_path / "audit.json").read_text())
    assert [gate.pop("about") for gate in content["quality"]["gates"]] == ["generator", "model"]
    (tmp_path / "audit.json").write_text(json.dumps(content))
    assert read_result(tmp_path / "audit.json").quality.gates == gates
