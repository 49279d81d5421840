"""An estimator's classes are the labels that they are named after; a column is never another class's by chance."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from citlr.errors import InputError
from citlr.predictors.loading import load_predictor

IMAGES = np.random.default_rng(0).random((6, 1, 4, 4), dtype=np.float32)
FLAT = IMAGES.reshape(6, -1)
TRUTH = np.array([0, 1, 0, 1, 0, 1])


def test_a_margin_is_that_of_the_label_that_is_asked_for() -> None:
    svc = LinearSVC().fit(FLAT, np.where(TRUTH, "none", "edema"))
    margin = svc.decision_function(FLAT)
    for label, sign in (("none", 1), ("edema", -1)):
        given = load_predictor(svc, labels=[label], output="logit").predict(IMAGES)[:, 0]
        np.testing.assert_allclose(given, 1 / (1 + np.exp(-sign * margin)), atol=1e-12)


def test_a_class_that_was_never_seen_is_not_certain() -> None:
    with pytest.raises(InputError, match=r"knows 1 class\(es\) \(0\) of a label, and a label has two"):
        load_predictor(DecisionTreeClassifier().fit(FLAT, 0 * TRUTH), labels=["edema"]).predict(IMAGES)
    forest = RandomForestClassifier(3, random_state=0).fit(FLAT, np.column_stack([TRUTH, 0 * TRUTH]))
    with pytest.raises(InputError, match=r"knows 1 class\(es\) \(0\) of a label"):
        load_predictor(forest, labels=["edema", "mass"]).predict(IMAGES)
    three = RandomForestClassifier(3, random_state=0).fit(FLAT, np.column_stack([TRUTH, [0, 1, 2, 0, 1, 2]]))
    with pytest.raises(InputError, match=r"knows 3 class\(es\) \(0, 1, 2\) of a label"):
        load_predictor(three, labels=["edema", "mass"]).predict(IMAGES)


def test_labels_of_which_some_are_classes_are_refused() -> None:
    fitted = LogisticRegression().fit(FLAT, ["edema", "mass", "none"] * 2)
    with pytest.raises(InputError, match=r"knows the classes edema, mass, none, of which 'edema' is one of the labels"):
        load_predictor(fitted, labels=["edema", "nodule"]).predict(IMAGES)


@pytest.mark.parametrize("output", ["probability", "logit"])
def test_a_class_by_another_name_is_no_label(output: str) -> None:
    fitted = LogisticRegression().fit(FLAT, np.where(TRUTH, "Cardiomegaly", "normal"))
    shown = fitted.predict_proba(FLAT)[:, 0]
    load = partial(load_predictor, output=output)
    # As logits they are of single precision, whose last bit depends on the processor.
    close = partial(np.testing.assert_allclose, rtol=1e-6)
    close(load(fitted, labels=["Cardiomegaly"]).predict(IMAGES)[:, 0], shown)
    with pytest.raises(InputError, match=r"the classes Cardiomegaly, normal, of which none is 'cardiomegaly': name"):
        load(fitted, labels=["cardiomegaly"]).predict(IMAGES)
    for no, yes in (("No", "Yes"), (False, True), (1.0, 2.0), ("0", "1")):
        told = LogisticRegression().fit(FLAT, np.where(TRUTH, yes, no))
        close(load(told, labels=["mass"]).predict(IMAGES)[:, 0], told.predict_proba(FLAT)[:, 1])
    by_column = load_predictor(fitted, labels=["cardiomegaly"], columns=[0])
    np.testing.assert_array_equal(by_column.predict(IMAGES)[:, 0], shown)


def test_several_labels_are_never_found_by_the_place_of_other_names() -> None:
    three = LogisticRegression().fit(FLAT, ["Edema", "Mass", "None"] * 2)
    with pytest.raises(InputError, match="of which none is 'mass, edema, none'"):
        load_predictor(three, labels=["mass", "edema", "none"]).predict(IMAGES)
    numbers = LogisticRegression().fit(FLAT, [0, 1, 2] * 2)
    found = load_predictor(numbers, labels=["mass", "edema", "none"]).predict(IMAGES)
    np.testing.assert_array_equal(found, numbers.predict_proba(FLAT))
    both = np.column_stack([np.where(TRUTH, "edema", "none"), np.where(TRUTH, "Mass", "none")])
    forest = RandomForestClassifier(3, random_state=0).fit(FLAT, both)
    found = load_predictor(forest, labels=["edema", "Mass"]).predict(IMAGES)
    np.testing.assert_array_equal(found, np.column_stack([part[:, 0] for part in forest.predict_proba(FLAT)]))
    with pytest.raises(InputError, match="of which none is 'mass'"):
        load_predictor(forest, labels=["edema", "mass"]).predict(IMAGES)


def test_a_class_in_the_place_of_an_object_is_refused() -> None:
    with pytest.raises(InputError, match="is the class LogisticRegression; give an instance"):
        load_predictor(LogisticRegression, labels=["edema"])
