"""How many training images would do: what the learning curve foretells, and where the gate and the page say so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_fake import make_result

from citlr.audit.gates.evidence import Evidence
from citlr.audit.gates.images import ASK_FOR_A_CURVE, TRAIN_LONGER, gate_effectiveness
from citlr.audit.measures.curve import Line, foretell
from citlr.audit.measures.faithfulness import Faithfulness, read_faithfulness
from citlr.audit.results.records import Carried, CurvePoint, Estimate, Gate, Quality
from citlr.audit.results.result import read_result
from citlr.config import GateConfig, parse_config
from citlr.errors import InputError
from citlr.report.numerals import percent
from citlr.report.page import render

SIZES = (200, 400, 800)


def around(share: float, half: float) -> Estimate:
    return Estimate(share, share - half, share + half)


def curve(half: float = 0.03, **levels: tuple[float, ...]) -> tuple[CurvePoint, ...]:
    """Points at 200, 400, ... images, with intervals of this half width."""
    many = len(next(iter(levels.values())))
    return tuple(
        CurvePoint(200 * 2**k, {name: around(shares[k], half) for name, shares in levels.items()}) for k in range(many)
    )


def power(scale: float, slope: float, sizes: tuple[int, ...] = SIZES) -> tuple[float, ...]:
    return tuple(1 - scale * n**slope for n in sizes)


def test_a_power_of_the_images_is_followed_to_the_limit() -> None:
    """1 - s = 8 / sqrt(n): .8 is carried by 1600 images."""
    line = Line.through(np.array(SIZES, float), [around(share, 0.02) for share in power(8, -0.5)])
    assert line.slope == pytest.approx(-0.5)
    estimate, low, high = line.reach(0.8, 800)
    assert estimate == pytest.approx(1600, rel=0.01)
    assert 1000 < low < estimate < high < 3000
    said = foretell(curve(0.02, F=power(8, -0.5), M=(0.7, 0.8, 0.9)), 0.8)
    assert said.startswith("By the share carried at 200, 400 and 800 training images, it would take about 1,600 (1,")
    assert said.endswith(") to carry 80% in 'F'.")


def test_the_level_that_needs_most_is_named() -> None:
    said = foretell(curve(0.02, F=power(8, -0.5), M=power(9, -0.5)), 0.8)
    assert "about 2,000" in said
    assert said.endswith("in 'M'.")


def test_farther_than_ten_times_the_images_at_hand_nothing_is_said() -> None:
    slow = curve(0.01, F=(0.30, 0.35, 0.40))
    assert "it would take more than ten times the 800 at hand to carry 80% in 'F'." in foretell(slow, 0.8)
    assert "more than ten times the 800 at hand" in foretell(curve(0.02, F=power(8, -0.5)), 1.0)
    unsure = foretell(curve(0.14, F=power(8, -0.5)), 0.8)
    assert "about 1,600 (800 to more than 8,000)" in unsure


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (0.5, 0.53, 0.55), (0.6, 0.55, 0.5), (0.5, 0.7, 0.52)])
def test_a_curve_that_does_not_rise_beyond_its_error_foretells_nothing(shares: tuple[float, ...]) -> None:
    assert foretell(curve(0.08, F=shares, M=power(8, -0.5)), 0.8) == (
        "The share carried of 'F' at 200, 400 and 800 training images does not rise beyond its error: more images of "
        "this kind do not show to help."
    )


def test_from_nothing_the_curve_cannot_tell() -> None:
    """Edits that are not sure draw nothing: 1000 radiographs gave shares of exactly 0 at every size."""
    assert foretell(curve(0.15, F=(0.0, 0.0, 0.1), M=(0.0, 0.0, 0.0)), 0.8) == (
        "Nothing of 'F' and 'M' is carried beyond its error at 200, 400 and 800 training images: from that nobody can "
        "tell how many would do."
    )
    assert "does not rise" in foretell(curve(0.15, F=(0.2, 0.1, 0.2)), 0.8)


def test_noise_alone_seldom_looks_like_a_rise() -> None:
    """A share that is .6 whatever is learnt from, read with the errors that its intervals say."""
    random, error = np.random.default_rng(0), 0.05
    rises = 0
    for _ in range(400):
        read = [around(0.6 + error * random.standard_normal(), 1.96 * error) for _ in SIZES]
        rises += Line.through(np.array(SIZES, float), read).rises
    assert rises <= 33  # of 400 at 5 %: more happen less than once in a hundred times


def test_what_carries_the_limit_already_needs_nothing() -> None:
    assert foretell(curve(F=(0.8, 0.85, 0.9)), 0.8) == "The 800 training images at hand carry 80% in every level."
    whole = foretell(curve(0.05, F=(0.6, 1.0, 1.03), M=power(8, -0.5)), 0.8)
    assert whole.endswith("in 'M'.")
    assert Line.through(np.array(SIZES, float), [around(s, 0.05) for s in (0.6, 1.0, 1.03)]).rises


def test_a_line_that_is_there_already_asks_for_no_fewer_than_are_at_hand() -> None:
    assert "about 800 (800 to " in foretell(curve(0.03, F=(0.5, 0.79, 0.79)), 0.8)


def test_a_level_that_is_known_at_one_size_only_foretells_nothing() -> None:
    points = [*curve(M=(0.4, 0.5)), CurvePoint(800, {"F": around(0.5, 0.03), "M": around(0.6, 0.03)})]
    assert foretell(points, 0.8) == "How the share carried of 'F' grows with the training images is not known."
    points[1] = CurvePoint(400, {"F": around(0.3, 0.03), "M": around(0.5, 0.03)})
    assert "to carry 80% in " in foretell(points, 0.8)


def faithful(**curves: tuple[CurvePoint, ...]) -> Faithfulness:
    quality = Quality(0.01, {"F": 1.0, "M": 1.0}, None, 0.0, {}, None, "", ())
    return Faithfulness(quality, curves={int(size.strip("_")): points for size, points in curves.items()})


def effectiveness(share: float, found: Faithfulness, **changes: bool) -> Gate:
    carried = Carried(64, {"F": around(share, 0.03), "M": around(0.95, 0.03)})
    (gate,) = gate_effectiveness(Evidence(GateConfig(), found, carried, **changes))
    return gate


def test_the_gate_ends_with_what_is_foretold_or_with_how_to_ask() -> None:
    points = curve(F=(0.4, 0.5, 0.6), M=(0.95, 0.95, 0.95))
    failing = effectiveness(0.6, faithful(_64=points))
    assert not failing.passed
    assert failing.text.endswith(f"at least 80% is needed. {foretell(points, 0.8)}")
    other_size = effectiveness(0.6, faithful(_224=points))
    assert other_size.text.endswith(f"is needed. {TRAIN_LONGER} {ASK_FOR_A_CURVE}")
    assert "quality.learning_curve: [0.25, 0.5]" in ASK_FOR_A_CURVE
    assert effectiveness(0.6, faithful(), retrainable=False).text.endswith(f"is needed. {TRAIN_LONGER}")
    assert effectiveness(0.9, faithful(_64=points)).text.endswith("at least 80% is needed.")


def test_a_curve_is_kept_and_what_has_none_is_read(tmp_path: Path) -> None:
    points = curve(F=(0.4, 0.5, 0.6))
    faithful(_64=points).save(tmp_path)
    assert read_faithfulness(tmp_path).curve_at(64) == points
    content = json.loads((tmp_path / "quality.json").read_text())
    del content["curves"]
    (tmp_path / "quality.json").write_text(json.dumps(content))
    assert read_faithfulness(tmp_path).curve_at(64) == ()


def test_an_audit_holds_the_curve_and_the_page_shows_it(tmp_path: Path) -> None:
    result = make_result()
    assert "Would more training images help?" not in render(result)
    points = curve(female=(0.4, 0.5, 0.6), male=(0.7, 0.72, 0.74))
    measured = replace(result, quality=replace(result.quality, curve=points))
    measured.to_json(tmp_path / "audit.json")
    assert read_result(tmp_path / "audit.json").quality.curve == points
    content = json.loads((tmp_path / "audit.json").read_text())
    del content["quality"]["curve"]
    (tmp_path / "audit.json").write_text(json.dumps(content))
    assert read_result(tmp_path / "audit.json") == result
    page = render(measured)
    assert "Would more training images help?" in page
    assert f"{percent(0.57)} to {percent(0.63)}" in page


def test_parts_are_above_nothing_and_below_all() -> None:
    base = {"cohort": {"table": "a.csv", "attribute": "sex", "labels": ["x"]}, "model": {"source": "m.onnx"}}
    config = parse_config(base | {"quality": {"learning_curve": [0.25, 0.5]}}, "audit.yaml")
    assert config.quality.learning_curve == (0.25, 0.5)
    for wrong in ([0.5, 1.0], [0], 0.5, ["half"]):
        with pytest.raises(InputError, match="learning_curve"):
            parse_config(base | {"quality": {"learning_curve": wrong}}, "audit.yaml")
    images = {"kind": "images", "table": "redrawn.csv"}
    with pytest.raises(InputError, match="images nothing is trained"):
        parse_config(base | {"generator": images, "quality": {"learning_curve": [0.5]}}, "audit.yaml")
