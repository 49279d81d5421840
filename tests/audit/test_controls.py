from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from citlr.audit.gates.evidence import Evidence
from citlr.audit.gates.images import gate_placebo
from citlr.audit.measures.controls import audit_placebo, audit_regeneration, planted_ladder, run_controls
from citlr.audit.measures.faithfulness import Faithfulness
from citlr.audit.redrawing.coin import placebo_size
from citlr.audit.results.records import Carried
from citlr.audit.results.result import AuditResult, Controls, Quality, read_result
from citlr.audit.results.statistics import schema_rows
from citlr.audit.results.verdicts import withhold
from citlr.config import AuditConfig, ControlsConfig, GateConfig, TestConfig, parse_config
from citlr.errors import InputError
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import assess

SETTINGS = TestConfig(randomizations=499, margin=0.05)
LEVELS = ("F", "M")


def table(values: np.ndarray, *, attribute: str = "sex", levels: tuple[str, ...] = LEVELS) -> pd.DataFrame:
    n, k, draws = values.shape
    return pd.DataFrame(
        [
            {"image_id": f"i{i:04}", "patient_id": f"p{i:04}", "attribute": attribute, "level": levels[a], "draw": r,
             "label": "x", "probability": values[i, a, r]}
            for i in range(n) for a in range(k) for r in range(draws)
        ]
    )  # fmt: skip


def draws(n: int, count: int, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    """Outputs with noise of their own per draw; `shift` is between the first half of the draws and the rest."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, 1, 1)) + 0.5 * random.normal(size=(n, 2, count))
    logits[..., count // 2 :] += shift
    return 1 / (1 + np.exp(-logits))


def originals(values: np.ndarray, *, flipped: int) -> pd.DataFrame:
    """Outputs on the images as they came: the decision of the factual draws, but for some that flip."""
    first = (values[:, 0, 0] >= 0.5).astype(float)
    first[:flipped] = 1 - first[:flipped]
    return pd.DataFrame({"image_id": [f"i{i:04}" for i in range(len(first))],
                         "patient_id": [f"p{i:04}" for i in range(len(first))], "attribute": "sex",
                         "level": "F", "draw": -1, "label": "x", "probability": first})  # fmt: skip


def test_regeneration_under_the_same_level_finds_nothing_where_draws_are_alike() -> None:
    found = []
    for seed in range(20):
        frame = table(draws(60, 4, seed=seed))
        again = audit_regeneration(
            Responses.from_frame(frame, attribute="sex", levels=LEVELS), settings=SETTINGS, seed=seed
        )
        assert again.changed is None
        found.append(again.pvalue < 0.05)
    assert sum(found) <= 4  # exact: P(more than 4 of 20 at 5 %) is .003


def test_regeneration_notices_draws_that_are_not_alike() -> None:
    frame = table(draws(200, 4, shift=1.5))
    responses = Responses.from_frame(frame, attribute="sex", levels=LEVELS)
    again = audit_regeneration(responses, settings=SETTINGS, seed=0)
    assert again.pvalue < 0.01
    assert again.n_images == 200


def test_regeneration_counts_decisions_that_redrawing_changes() -> None:
    values = np.repeat(draws(50, 1), 4, axis=2)
    frame = pd.concat([table(values), originals(values, flipped=5)])
    again = audit_regeneration(Responses.from_frame(frame, attribute="sex", levels=LEVELS), settings=SETTINGS, seed=0)
    assert again.changed == pytest.approx(0.1)


def test_two_draws_are_too_few_to_halve_and_the_report_says_so() -> None:
    frame = table(draws(30, 2))
    responses: Responses = Responses.from_frame(frame, attribute="sex", levels=LEVELS)
    assert audit_regeneration(responses, settings=SETTINGS, seed=0) is None
    controls, passed = run_controls(
        frame, responses, None, controls=ControlsConfig(), settings=SETTINGS, shared_seeds=True, seed=0
    )
    assert not passed
    assert any("2 draws are no two halves of two" in note for note in controls.notes)


def test_the_coin_says_what_it_could_have_noticed() -> None:
    values = np.repeat(draws(40, 4)[:, :1], 2, axis=1)  # the same under heads and tails
    coin = table(values, attribute="placebo", levels=("heads", "tails"))
    placebo, passed = audit_placebo(coin, settings=SETTINGS, shared_seeds=True, seed=0)
    assert passed
    assert placebo.pvalue == 1
    assert placebo.detectable > 0
    frame = pd.concat([table(values), coin])
    controls, _ = run_controls(
        frame,
        Responses.from_frame(frame, attribute="sex", levels=LEVELS),
        None,
        controls=ControlsConfig(),
        settings=TestConfig(randomizations=499, margin=0.001),
        shared_seeds=True,
        seed=0,
    )
    assert any("may go unnoticed" in note for note in controls.notes)


def test_a_coin_that_moves_outputs_fails_its_gate_and_says_so() -> None:
    values = draws(200, 4)
    values[:, 1] = np.clip(values[:, 1] + 0.3, 0, 1)
    coin = table(values, attribute="placebo", levels=("heads", "tails"))
    placebo, passed = audit_placebo(coin, settings=SETTINGS, shared_seeds=True, seed=0)
    assert not passed
    assert placebo.pvalue < 0.01
    found = Faithfulness(Quality(0.01, {"F": 1.0}, None, 0.0, {}, None, "", ()))
    controls = Controls(placebo, (), None)
    (gate,) = gate_placebo(Evidence(GateConfig(), found, found.carried_at(64), controls, coin_passed=passed))
    assert (gate.name, gate.passed) == ("placebo", False)
    wanted = f"The audit of a fair coin shows a dependence, where there is none (p = {placebo.pvalue:.3g})."
    assert gate.text.startswith(wanted)


@pytest.mark.parametrize(("images", "stands"), [(3, False), (6, False), (394, True)])
def test_a_coin_that_could_not_have_shown_it_carries_no_dependence(images: int, stands: bool) -> None:
    """A tenth of the images flip; the coin of three images shows nothing, whatever the generator does."""
    values = (draws(600, 5) > 0.5).astype(float)
    values[:60, 1] = 1 - values[:60, 0]
    rows = schema_rows(assess(Responses.from_frame(table(values), attribute="sex"), **SETTINGS.model_dump(), seed=0))
    assert [row.verdict for row in rows] == ["dependence"]
    coin = table((draws(images, 6) > 0.5).astype(float), attribute="placebo", levels=("heads", "tails"))
    placebo, passed = audit_placebo(coin, settings=SETTINGS, shared_seeds=True, seed=0)
    evidence = Evidence(
        GateConfig(),
        Faithfulness(Quality(0.01, {"F": 1.0}, None, 0.0, {}, None, "", ())),
        Carried(64, {}),
        Controls(placebo, (), None),
        coin_passed=passed,
        rows=rows,
    )
    gates = tuple(gate_placebo(evidence))
    assert passed
    assert [row.verdict for row in withhold(rows, gates)] == ["dependence" if stands else "inconclusive"]
    assert stands or f"The coin's {images} images" in gates[1].text


def test_the_power_is_that_of_the_planted_bias_and_not_of_the_effect_that_is_there() -> None:
    values = draws(300, 4)
    values[:, 1] = np.clip(values[:, 1] + 0.2, 0, 1)
    responses = Responses.from_frame(table(values), attribute="sex", levels=LEVELS)
    detector = np.broadcast_to(np.eye(2)[None, :, None, :], (300, 2, 4, 2))
    rows, limit = planted_ladder(
        responses,
        detector,
        controls=ControlsConfig(planted=(1e-6, 2.0), bootstraps=10),
        settings=SETTINGS,
        shared_seeds=True,
        seed=0,
    )
    assert [row.detected for row in rows] == [True, True]
    assert rows[0].power <= 0.3
    assert (rows[1].power, limit) == (1.0, 2.0)


def test_a_planted_bias_within_the_margin_is_not_found_however_significant() -> None:
    """The test finds it every time, and the verdict is equivalent: it sets no limit."""
    values = np.broadcast_to(np.random.default_rng(1).random((300, 1, 1)), (300, 2, 4))
    responses = Responses.from_frame(table(values), attribute="sex", levels=LEVELS)
    detector = np.broadcast_to(np.eye(2)[None, :, None, :], (300, 2, 4, 2))
    (row,), limit = planted_ladder(
        responses,
        detector,
        controls=ControlsConfig(planted=(0.05,), bootstraps=4),
        settings=SETTINGS.model_copy(update={"outcome": "probability"}),
        shared_seeds=True,
        seed=0,
    )
    assert row.pvalue < 0.01
    assert (row.detected, row.power, limit) == (False, 1.0, None)


def test_with_many_labels_a_planted_bias_has_power_too() -> None:
    """Of ten tests and more none could be significant after adjustment by the randomisations of a sample alone."""
    labels = [f"finding {number}" for number in range(12)]
    values = np.random.default_rng(2).random((200, 1, 4, 12)) + np.zeros((1, 2, 1, 1))
    responses = Responses.from_arrays(values, patients=np.arange(200), levels=LEVELS, labels=labels)
    detector = np.broadcast_to(np.eye(2)[None, :, None, :], (200, 2, 4, 2))
    controls = ControlsConfig(planted=(4.0,), bootstraps=5)
    rows, limit = planted_ladder(responses, detector, controls=controls, settings=SETTINGS, shared_seeds=True, seed=0)
    assert {row.power for row in rows} == {1.0}
    assert limit == 4.0


def test_placebo_size_has_the_power_that_it_is_for() -> None:
    random = np.random.default_rng(0)
    for margin in (0.02, 0.05):
        n = placebo_size(margin)
        power = (random.binomial(n, margin, 20_000) >= 6).mean()
        assert 0.79 < power < 0.82
        assert placebo_size(margin, power=0.9) > n


def test_controls_are_read_back(tmp_path: Path) -> None:
    from report_fake import make_result

    result: AuditResult = make_result()
    frame = table(draws(60, 4))
    responses = Responses.from_frame(frame, attribute="sex", levels=LEVELS)
    controls, _ = run_controls(
        frame, responses, None, controls=ControlsConfig(), settings=SETTINGS, shared_seeds=True, seed=0
    )
    assert controls.regeneration.n_images == 60
    from dataclasses import replace

    replace(result, controls=controls).to_json(tmp_path / "audit.json")
    assert read_result(tmp_path / "audit.json").controls == controls


def test_quality_section_of_the_configuration(tmp_path: Path) -> None:
    base = {"cohort": {"table": "a.csv", "attribute": "sex", "labels": ["x"]}, "model": {"source": "m.onnx"}}

    def features(text: str) -> str:
        config = AuditConfig.model_validate(base | {"quality": {"features": text}}).resolved(tmp_path)
        return config.quality.features

    assert features("probe") == "probe"
    assert features("inception_v3:w.pth") == f"inception_v3:{tmp_path / 'w.pth'}"
    assert features("torchxrayvision:densenet121-res224-all") == "torchxrayvision:densenet121-res224-all"
    assert features("torchxrayvision:all:w.pt") == f"torchxrayvision:all:{tmp_path / 'w.pt'}"
    with pytest.raises(InputError, match="Did you mean 'features'"):
        parse_config(base | {"quality": {"feature": "probe"}}, "audit.yaml")
    for kind in ("vae", "latent-shift"):
        assert AuditConfig.model_validate(base | {"generator": {"kind": kind}}).generator.kind == kind
