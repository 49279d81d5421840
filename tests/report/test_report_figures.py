"""Figures for notebooks: what they show, that no text is small, and that they touch no global state."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from report_fake import RACES, make_gallery, make_responses, make_result, make_tests

from citlr.audit.results.result import Estimate
from citlr.errors import InputError
from citlr.report.charts import figures
from citlr.report.charts import geometry as charts
from citlr.report.charts.gallery import DIVERGING, Gallery, Strip, _palette, _steps, encode, signed_difference
from citlr.report.charts.scatters import MAX_POINTS, paired, scatter


@pytest.fixture(scope="module")
def result():
    return make_result(levels=RACES, attribute="race", missing=True)


@pytest.fixture(scope="module")
def drawn(result):
    return figures.forest(result)


def test_the_forest_draws_without_pyplot_and_no_text_is_below_nine_points(drawn):
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=40)
    assert buffer.getvalue().startswith(b"\x89PNG")
    texts = [text for text in drawn.findobj(Text) if text.get_visible() and text.get_text().strip()]
    assert texts
    assert min(text.get_fontsize() for text in texts) >= 9
    assert not any("nan" in text.get_text().lower() for text in texts)
    if "matplotlib.pyplot" in sys.modules:
        assert matplotlib.pyplot.get_fignums() == []


def test_the_forest_shows_every_test_and_says_what_is_not_there(drawn, result):
    left, right = drawn.axes
    assert len(left.get_yticklabels()) == len(result.tests)
    assert [text.get_text() for text in left.texts] == [" n/a"]
    assert len(right.collections) == len(result.tests)
    first = result.tests[0]
    intervals = [line.get_xdata() for line in left.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2]
    assert list(intervals[0]) == pytest.approx([100 * first.psi.low, 100 * first.psi.high])


@pytest.mark.parametrize("factor", [1e-4, 0.01, 0.3, 1.0, 40.0])
def test_no_two_marks_of_an_axis_read_alike(factor):
    tests = tuple(
        replace(row, psi=Estimate(*(factor * x for x in (row.psi.estimate, row.psi.low, row.psi.high))))
        for row in make_tests()
    )
    planted = tuple(replace(dose, psi=factor * dose.psi) for dose in make_result().controls.planted)
    result = make_result(tests=tests, controls=replace(make_result().controls, planted=planted))
    axes = [charts.forest(result.tests).psi.ticks, *(chart.y_ticks for chart in charts.dose_response(result))]
    for ticks in axes:
        assert len(ticks) >= 2
        assert len({tick.text for tick in ticks}) == len(ticks)


def test_draws_are_averaged_and_originals_give_the_level():
    responses = pd.DataFrame(
        {
            "image_id": ["a"] * 5 + ["b"] * 4,
            "attribute": "sex",
            "level": ["f", "f", "f", "m", "m", "f", "f", "m", "m"],
            "draw": [-1, 0, 1, 0, 1, 0, 1, 0, 1],
            "label": "x",
            "probability": [0.9, 0.1, 0.3, 0.5, 0.7, 0.2, 0.2, 0.4, 0.8],
        }
    )
    table = paired(responses)["sex", "x"]
    assert table["f"].tolist() == pytest.approx([0.2, 0.2])
    assert table["m"].tolist() == pytest.approx([0.6, 0.6])
    assert table["factual"].tolist() == ["f", "unknown"]


def test_a_panel_draws_every_image_up_to_a_limit_and_says_so(result):
    row = next(row for row in result.tests if row.label == "edema")
    few = scatter(
        paired(make_responses(result, n_images=30, draws=1))["race", "edema"], row, levels=RACES, threshold=0.5
    )
    assert sum(marks.n for marks in few.marks) == sum(marks.path.count("M") for marks in few.marks) == 30
    assert few.note == ""
    assert few.threshold == 0.5
    many = paired(make_responses(make_result(("edema",), RACES, "race"), n_images=2 * MAX_POINTS + 10, draws=1))
    thinned = scatter(many["race", "edema"], row, levels=RACES, threshold=None)
    assert sum(marks.n for marks in thinned.marks) <= MAX_POINTS
    assert thinned.note == "every 3. image of 4010 drawn"


def test_points_lie_where_the_numbers_say(result):
    row = next(row for row in result.tests if row.contrast == ("asian", "black"))
    table = pd.DataFrame({"asian": [0.0, 0.25], "black": [1.0, 0.5], "factual": ["asian", "asian"]})
    panel = scatter(table, row, levels=RACES, threshold=None)
    assert panel.marks[0].path == "M0 0h.01M50 100h.01"
    assert scatter(table.drop(columns="black"), row, levels=RACES, threshold=None) is None


def test_a_signed_difference_is_counterfactual_minus_null():
    null, other = np.array([[10, 200]], np.uint8), np.array([[61, 149]], np.uint8)
    assert signed_difference(other, null).tolist() == [[pytest.approx(0.2), pytest.approx(-0.2)]]
    coloured = _palette()[_steps(np.array([[0.0, 0.2, -0.2, 5.0]]), 0.2)]
    codes = ["#" + "".join(f"{value:02x}" for value in pixel) for pixel in coloured[0]]
    assert codes == ["#ffffff", DIVERGING[-1], DIVERGING[0], DIVERGING[-1]]
    with pytest.raises(InputError, match="above 0"):
        _steps(np.zeros((1, 1)), 0.0)


def test_the_scale_is_one_for_all_maps_and_covers_the_changes():
    null = np.zeros((10, 10), np.uint8)
    strips = tuple(Strip(str(n), "f", null, {"f": null, "m": np.full((10, 10), n, np.uint8)}) for n in (0, 30))
    assert Gallery(strips, "sex").scale == pytest.approx(0.15)
    assert Gallery(strips[:1], "sex").scale == pytest.approx(0.05)


def test_pictures_are_lossless_until_the_budget_asks_otherwise():
    gallery = make_gallery(2, size=64)
    shown = encode(gallery)
    roles = [tile.role for tile in shown.strips[0].tiles]
    assert roles == ["original", "null", "counterfactual", "difference"]
    assert all(tile.uri.startswith("data:image/png") for tile in shown.strips[0].tiles)
    assert shown.storage.startswith("8 pictures take 0.0 MB of this page. They are stored losslessly, as PNG.")
    tight = encode(gallery, budget=18_000)
    assert sum(len(tile.uri) for strip in tight.strips for tile in strip.tiles) <= 18_000
    assert "JPEG" in tight.storage
    assert tight.strips[0].tiles[3].uri.startswith("data:image/png")


def test_a_lossless_picture_decodes_to_itself():
    import base64

    from PIL import Image

    gallery = make_gallery(1, size=32)
    uri = encode(gallery).strips[0].tiles[0].uri
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
    np.testing.assert_array_equal(decoded, gallery.strips[0].original)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Strip("s", "f", np.zeros((2, 2), np.uint8), {}), "no image redrawn at its factual level 'f'"),
        (lambda: Strip("s", "f", np.zeros((2, 2)), {"f": np.zeros((2, 2), np.uint8)}), "takes uint8"),
        (lambda: Strip("s", "f", np.zeros((2, 2), np.uint8), {"f": np.zeros((3, 2), np.uint8)}), "one shape"),
        (lambda: figures.forest(make_result(tests=())), "no test"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(make, says):
    with pytest.raises(InputError, match=says):
        make()
