"""Numbers that are not what they were declared to be are refused with the declaration that is right, or noted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from citlr.errors import InputError
from citlr.predictors.check import check_predictor
from citlr.predictors.loading import load_predictor

IMAGES = np.random.default_rng(3).random((5, 1, 8, 8), dtype=np.float32)


def score(x: np.ndarray) -> np.ndarray:
    """Spread scores, some above 0 and some below."""
    return 40 * (x.mean(axis=(1, 2, 3)) - 0.5)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def classes(x: np.ndarray) -> np.ndarray:
    """Probabilities of two classes that exclude each other."""
    p = sigmoid(score(x))
    return np.stack([1 - p, p], axis=1)


def checked(function: Callable[[np.ndarray], Any], output: Any = None, **settings: Any) -> tuple[str, ...]:
    model = load_predictor(function, output=output, **{"labels": ["flu"], "name": "m", **settings})
    return check_predictor(model, IMAGES).notes


class LogSoftmax(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = 40 * (x.mean((1, 2, 3)) - 0.5)
        return torch.log_softmax(torch.stack([0 * z, z, z - 1], 1), 1)


RIGHT = r"declare output: \{kind: logit, activation: softmax, columns: \[1\]\}"


def test_log_probabilities_are_led_to_a_softmax() -> None:
    for output in ({"columns": [1]}, {"kind": "logit", "columns": [1]}):
        model = load_predictor(LogSoftmax(), labels=["flu"], output=output, device="cpu")
        with pytest.raises(InputError, match=RIGHT):
            check_predictor(model, IMAGES)
        with pytest.raises(InputError, match=RIGHT):
            model.predict(IMAGES)
    right = {"kind": "logit", "activation": "softmax", "columns": [1]}
    model = load_predictor(LogSoftmax(), labels=["flu"], output=right, device="cpu")
    assert check_predictor(model, IMAGES).notes == ()
    expected = torch.exp(LogSoftmax()(torch.from_numpy(IMAGES)))[:, 1].double().numpy()
    np.testing.assert_allclose(model.predict(IMAGES)[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_log_probabilities_are_known_in_any_precision(kind: type) -> None:
    with pytest.raises(InputError, match=r"never above \.5"):
        checked(lambda x: np.log(classes(x)).astype(kind), {"kind": "logit", "columns": [1]})


def test_columns_by_name_stay_in_the_advice() -> None:
    with pytest.raises(InputError, match=r"activation: softmax, columns: \{flu: 1, no: 0\}\}"):
        checked(lambda x: np.log(classes(x)), {"columns": {"flu": 1, "no": 0}})


def test_probabilities_of_classes_are_no_logits() -> None:
    for activation in ("sigmoid", "softmax"):
        output = {"kind": "logit", "activation": activation, "columns": [1]}
        with pytest.raises(InputError, match=r"its 2 outputs are probabilities.*Declare output: probability"):
            checked(classes, output)
    assert checked(classes, {"columns": [1]}) == ()


def test_a_softmax_of_one_output_is_refused() -> None:
    with pytest.raises(InputError, match=r"a softmax over one is 1 whatever the image shows: declare output: logit"):
        checked(score, {"kind": "logit", "activation": "softmax"})


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: 100 * sigmoid(score(x)), "percentages, wrap .* divides by 100"),
        (lambda x: np.arange(len(x)) % 3, "numbers of classes"),
        (lambda x: np.log(sigmoid(score(x))), "logarithms of probabilities, wrap .* exponentials"),
        (score, r"If these are logits, declare output: logit\.$"),
    ],
)
def test_advice_fits_the_numbers(function: Callable[[np.ndarray], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        checked(function)


def test_scores_of_two_classes_are_led_to_either_declaration() -> None:
    def two(x: np.ndarray) -> np.ndarray:
        return np.stack([-score(x), score(x)], axis=1)

    with pytest.raises(InputError, match=r"declare output: logit, or output: \{kind: logit, activation: softmax, col"):
        checked(two, {"columns": [1]})
    (note,) = checked(two, {"kind": "logit", "columns": [1]})
    assert "declare output: {kind: logit, activation: softmax, columns: [1]}" in note
    assert checked(two, {"kind": "logit", "activation": "softmax", "columns": [1]}) == ()


def test_what_looks_like_an_activation_too_many_is_noted() -> None:
    (note,) = checked(lambda x: sigmoid(sigmoid(9 * score(x))))
    assert "as a sigmoid does that is taken of probabilities" in note

    def twice(x: np.ndarray) -> np.ndarray:
        p = sigmoid(9 * score(x))
        e = np.exp(np.stack([1 - p, p], axis=1))
        return e / e.sum(axis=1, keepdims=True)

    (note,) = checked(twice, {"columns": [1]})
    assert "as a softmax does that is taken of probabilities" in note
    (note,) = checked(lambda x: np.log(sigmoid(3 * score(x))), "logit")
    assert "no probability is above .5" in note
    assert checked(lambda x: sigmoid(score(x))) == ()
    assert checked(score, "logit") == ()


def test_all_negative_logits_of_a_rare_label_are_no_matter() -> None:
    assert checked(lambda x: score(x) - 9, "logit") == ()
    assert checked(lambda x: np.stack([score(x) - 9, score(x) - 8], 1), "logit", labels=["a", "b"]) == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda x: np.array(["0.5"] * len(x)), "it holds text"),
        (lambda x: x.mean(axis=(1, 2, 3)) + 0j, "it holds complex"),
        (lambda x: np.ma.masked_greater(x.mean(axis=(1, 2, 3)), 0.0), "masked out"),
        (lambda x: (x.mean(axis=(1, 2, 3))[:, None],) * 2, r"gives 2 outputs at once \(a tuple\)"),
        (lambda x: {1, 2}, "gives a set that is not an array of numbers"),
        (lambda x: torch.zeros(len(x), 1, device="meta"), "no array|not an array of numbers"),
        (lambda x: np.zeros((len(x), 0)), r"output of shape \(5, 0\)"),
        (lambda x: x.mean(axis=(1, 2, 3))[:1, None], "set batch_size to it"),
        (lambda x: {}, r"gives nothing: say which with output\.name"),
    ],
)
def test_what_is_no_row_of_numbers_per_image_is_refused(given: Callable[[np.ndarray], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        checked(given)


def test_a_tuple_for_two_images_is_not_taken_for_two_rows() -> None:
    model = load_predictor(lambda x: (x.mean(axis=(1, 2, 3))[:, None], x.max(axis=(1, 2, 3))[:, None]), labels=["a"])
    with pytest.raises(InputError, match="2 outputs at once"):
        model.predict(IMAGES[:2])


def test_probabilities_by_class_as_onnxruntime_gives_them_are_read() -> None:
    model = load_predictor(
        lambda x: [{"no": 1 - p, "yes": p} for p in sigmoid(score(x))], labels=["flu"], columns=[1], name="m"
    )
    np.testing.assert_allclose(model.predict(IMAGES)[:, 0], sigmoid(score(IMAGES)))


def test_an_output_for_each_label_is_taken_by_its_name() -> None:
    def heads(x: np.ndarray) -> dict[str, Any]:
        p = sigmoid(score(x))
        return {"cold": 1 - p, "age": 60 + p, "flu": torch.tensor(p)[:, None]}

    model = load_predictor(heads, labels=["flu", "cold"], name="m")
    p = sigmoid(score(IMAGES))
    np.testing.assert_allclose(model.predict(IMAGES), np.column_stack([p, 1 - p]), atol=1e-6)
    wide = load_predictor(lambda x: {"flu": heads(x)["cold"], "cold": classes(x)}, labels=["flu", "cold"], name="m")
    with pytest.raises(InputError, match=r"gives flu, cold: say which with output\.name"):
        wide.predict(IMAGES)
    with pytest.raises(InputError, match=r"gives cold, age, flu: say which with output\.name"):
        load_predictor(heads, labels=["flu", "pox"], name="m").predict(IMAGES)


@pytest.mark.parametrize("form", ["a table", "a mapping per image", "that, of an output by name"])
def test_outputs_with_names_are_ordered_as_the_labels(form: str) -> None:
    def named(x: np.ndarray) -> Any:
        p = sigmoid(score(x))
        found = pd.DataFrame({"cold": 1 - p, "flu": p})
        return found if form == "a table" else found.to_dict("records")

    output, call = "probability", named
    if form.startswith("that"):
        output, call = {"name": "probs"}, lambda x: {"label": np.zeros(len(x)), "probs": named(x)}
    model = load_predictor(call, labels=["flu", "cold"], output=output, name="m")
    p = sigmoid(score(IMAGES))
    np.testing.assert_allclose(model.predict(IMAGES), np.column_stack([p, 1 - p]), atol=1e-6)
    with pytest.raises(InputError, match=r"names its outputs cold, flu, and none 'pox': name labels as the outputs"):
        load_predictor(call, labels=["flu", "pox"], output=output, name="m").predict(IMAGES)
    other = load_predictor(call, labels=["a", "b"], output=output, name="m").predict(IMAGES)
    np.testing.assert_allclose(other, np.column_stack([1 - p, p]), atol=1e-6)


@pytest.mark.parametrize("made", [list, tuple])
@pytest.mark.parametrize("number", [float, np.float32, lambda p: np.array([p]), lambda p: torch.tensor([p])])
def test_a_mapping_per_image_may_hold_numbers_of_any_kind(made: Callable[..., Any], number: Callable[..., Any]) -> None:
    p = sigmoid(score(IMAGES))
    for labels, right in ((["flu", "cold"], [p, 1 - p]), (["a", "b"], [1 - p, p]), (["flu"], [p])):
        model = load_predictor(
            lambda x: made({"cold": number(1 - one), "flu": number(one)} for one in sigmoid(score(x))),
            labels=labels,
            name="m",
        )
        np.testing.assert_allclose(model.predict(IMAGES), np.column_stack(right), atol=1e-6)


def test_another_number_of_outputs_in_a_later_batch_is_refused() -> None:
    model = load_predictor(lambda x: np.full((len(x), len(x)), 0.5), labels=["a"], columns=[0], batch_size=3)
    with pytest.raises(InputError, match="3 outputs for one batch of images and 2 for another"):
        model.predict(IMAGES)


def test_an_array_that_a_model_fills_anew_for_every_batch_is_read_before() -> None:
    images = np.random.default_rng(7).random((10, 1, 4, 4)).astype(np.float32)
    held = np.zeros((4, 1))

    def score(batch: np.ndarray) -> np.ndarray:
        held[: len(batch)] = batch.mean(axis=(1, 2, 3), dtype=np.float64)[:, None]
        return held[: len(batch)]

    model = load_predictor(score, labels=["flu"], output="probability", batch_size=4)
    assert np.allclose(model.predict(images)[:, 0], images.mean(axis=(1, 2, 3)))


def test_a_name_for_an_output_without_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"leave output\.name \('probs'\) out"):
        checked(lambda x: sigmoid(score(x)), {"name": "probs"})


def test_a_function_that_reads_a_file_is_noted_as_never_the_same(tmp_path: Any) -> None:
    np.save(tmp_path / "w.npy", np.ones(1))
    path = tmp_path / "w.npy"
    (note,) = checked(lambda x: sigmoid(score(x)) * np.load(path))
    assert "is asked again whenever the audit is run" in note
