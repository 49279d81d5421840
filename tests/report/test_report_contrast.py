"""The page's colours, computed from its style sheet: WCAG 2 AA for text, 3:1 for marks, in light and in dark."""

from __future__ import annotations

import re
from importlib.resources import files

import numpy as np
import pytest

CSS = "".join(
    (files("citlr.report") / "templates" / name).read_text(encoding="utf-8") for name in ("page.css", "svg.css")
)
# Okabe and Ito's first three.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73")
TEXT = ("ink", "soft", "accent", "dependence", "inconclusive", "equivalent")
MARKS = ("dependence-mark", "inconclusive-mark", "equivalent-mark", "strong-rule", "level-0", "level-1", "level-2",
         "level-3", "accent")  # fmt: skip
# Text stands on the page; each verdict's own words on its wash as well.
ON_WASH = [(name, f"{name}-wash") for name in ("dependence", "inconclusive", "equivalent")]
ON_WASH += [("ink", wash) for _, wash in ON_WASH]


def themes() -> dict[str, dict[str, str]]:
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    assert len(blocks) == 2
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", one)) for one in blocks)
    assert set(light) == set(dark)
    return {"light": light, "dark": {**light, **dark}}


def luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def ratio(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_ratio_is_the_one_of_wcag():
    assert ratio("#000000", "#ffffff") == pytest.approx(21)
    assert ratio("#777777", "#ffffff") == pytest.approx(4.478, abs=0.001)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_a_contrast_of_4_5(theme):
    colours = themes()[theme]
    pairs = [(name, "paper") for name in TEXT] + ON_WASH + [("paper", "ink")]
    assert {pair: ratio(*(colours[name] for name in pair)) for pair in pairs if
            ratio(*(colours[name] for name in pair)) < 4.5} == {}  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_marks_have_a_contrast_of_3(theme):
    colours = themes()[theme]
    assert {name: ratio(colours[name], colours["paper"]) for name in MARKS if
            ratio(colours[name], colours["paper"]) < 3} == {}  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_interval_marks_stand_out_on_the_band_of_equivalence(theme):
    colours = themes()[theme]
    for name in ("dependence-mark", "inconclusive-mark", "equivalent-mark"):
        assert ratio(colours[name], colours["band"]) >= 2.7


def test_every_colour_of_the_style_sheet_is_a_variable():
    rules = re.sub(r":root \{.*?\}", "", CSS, flags=re.DOTALL)
    assert set(re.findall(r"#[0-9a-fA-F]{3,8}\b", rules)) == {"#000000", "#ffffff"}  # on pictures, grey in either theme
    named = set(re.findall(r"var\(--([\w-]+)\)", CSS))
    assert named <= set(themes()["light"]) | {"sans", "serif", "mono", "mark", "tiles"}


def test_light_levels_are_okabe_and_itos():
    light = themes()["light"]
    assert [light[f"level-{index}"].upper() for index in range(3)] == [code.upper() for code in OKABE_ITO[:3]]


def test_no_size_is_below_nine_points():
    for size, unit in re.findall(r"font(?:-size)?:[^;]*?([\d.]+)(px|pt|rem)\b", CSS):
        points = {"px": 0.75, "pt": 1.0, "rem": 12.0}[unit] * float(size)
        assert points >= 9, (size, unit)
