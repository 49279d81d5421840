"""What a notebook hands to `generate` and `audit`: tables of any kind of column, masks, models of one's own."""

from __future__ import annotations

import gc
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report_fake import make_result

import citlr
from citlr.audit.generation import Counterfactuals
from citlr.audit.prediction import predict_sets
from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.generators.oracle import Oracle
from citlr.predictors.specs import InputSpec
from citlr.simulators.phantom.world import PhantomWorld

LABEL = "edema"


class Own:
    """A model that keeps the protocol and no base class, and writes into the images that it is given."""

    name, labels, input = "own", (LABEL,), InputSpec()

    def __init__(self, form: Any = np.asarray) -> None:
        self.form = form

    def predict(self, images: np.ndarray) -> Any:
        np.sqrt(images, out=images)
        return self.form(images.mean(axis=(2, 3), dtype=np.float64))

    def fingerprint(self) -> str:
        return "own"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Oracle, Counterfactuals]:
    sample = PhantomWorld(size=32).sample(200, seed=1, images_per_patient=1)
    cohort = sample.write(tmp_path_factory.mktemp("world")).take(range(60))
    oracle = Oracle.of(sample)
    return cohort, oracle, redraw(oracle, cohort)


def redraw(oracle: Oracle, cohort: Cohort, **options: Any) -> Counterfactuals:
    none = {"placebo_images": 0, "replicate_images": 0}
    return citlr.generate(oracle, cohort, **{"attribute": "sex", "draws": 2, **none, **options})


@pytest.mark.parametrize("form", [list, lambda p: p.tolist(), lambda p: pd.DataFrame(p, columns=[LABEL])])
def test_a_model_of_ones_own_may_give_any_matrix_and_write_into_its_images(
    drawn: tuple[Cohort, Oracle, Counterfactuals], form: Any
) -> None:
    cohort, _, counterfactuals = drawn
    model = citlr.load_predictor(lambda x: np.sqrt(x).mean((2, 3), dtype=np.float64), labels=[LABEL], name="own")
    right, found = (predict_sets(one, counterfactuals.sets, cohort) for one in (model, Own(form)))
    pd.testing.assert_frame_equal(found, right, check_exact=False, atol=1e-7)


def test_a_table_of_a_model_of_ones_own_is_read_by_the_names_of_its_columns(
    drawn: tuple[Cohort, Oracle, Counterfactuals],
) -> None:
    """By their places the answers for one finding would be those for the other."""
    cohort, _, counterfactuals = drawn
    model = Own(lambda p: pd.DataFrame({"effusion": 1 - p[:, 0], LABEL: p[:, 0]}))
    model.labels = (LABEL, "effusion")
    found = predict_sets(model, counterfactuals.sets, cohort).pivot_table(
        "probability", ["image_id", "level", "draw"], "label"
    )
    right = predict_sets(Own(), counterfactuals.sets, cohort).set_index(["image_id", "level", "draw"])["probability"]
    assert np.allclose(found[LABEL], right.loc[found.index], atol=1e-6)
    assert np.allclose(found["effusion"], 1 - found[LABEL], atol=1e-6)


def test_a_model_of_ones_own_that_gives_no_probability_is_named(drawn: tuple[Cohort, Oracle, Counterfactuals]) -> None:
    cohort, _, counterfactuals = drawn
    calls = []

    def late(values: np.ndarray) -> np.ndarray:
        calls.append(len(values))
        return values if len(calls) < 30 else values - 2

    with pytest.raises(InputError, match=r"Model 'own' gives .* values outside"):
        for _ in range(9):
            predict_sets(Own(late), counterfactuals.sets, cohort)


def test_what_is_no_predictor_or_no_counterfactuals_is_named(drawn: tuple[Cohort, Oracle, Counterfactuals]) -> None:
    cohort, oracle, counterfactuals = drawn
    wrong: list[tuple[Any, Any, dict[str, Any], str]] = [
        (lambda x: x, counterfactuals, {}, "model is a function; give a predictor"),
        (Own(), cohort, {}, "counterfactuals is a Cohort"),
        (Own(), counterfactuals, {"train": cohort.frame, "validation": cohort.frame}, "train is a DataFrame"),
        (Own(), counterfactuals, {"train": cohort, "validation": cohort}, "60 patients of the redrawn images are in"),
    ]
    for model, given, options, said in wrong:
        with pytest.raises(InputError, match=said):
            citlr.audit(model, given, margin=0.05, **options)
    with pytest.raises(InputError, match="cohort is a DataFrame"):
        citlr.generate(oracle, cohort.frame, attribute="sex")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="generator is a NoneType"):
        citlr.generate(None, cohort, attribute="sex")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="path=None"):
        citlr.read_result(None)  # type: ignore[arg-type]


def test_patients_are_compared_as_they_are_written(drawn: tuple[Cohort, Oracle, Counterfactuals]) -> None:
    cohort, _, counterfactuals = drawn
    numbered = replace(counterfactuals, cohort=replace(cohort, frame=cohort.frame.assign(patient_id=range(60))))
    train = replace(cohort, frame=cohort.frame.assign(patient_id=[str(k) for k in range(50, 110)]))
    with pytest.raises(InputError, match="10 patients of the redrawn images"):
        citlr.audit(Own(), numbered, margin=0.05, train=train, validation=train)


def test_limits_may_be_given_as_in_a_configuration(drawn: tuple[Cohort, Oracle, Counterfactuals]) -> None:
    cohort, _, counterfactuals = drawn
    other = replace(cohort, frame=cohort.frame.assign(patient_id=[f"t{k}" for k in range(60)]))
    options: dict[str, Any] = {"margin": 0.05, "randomizations": 99, "train": other, "validation": other}
    result = citlr.audit(
        citlr.load_predictor(lambda x: x.mean((2, 3)), labels=[LABEL]),
        counterfactuals,
        gates={"probe_steps": 2, "composition": 0.77},
        controls={"planted": [], "bootstraps": 5},
        quality={"cycles": 1},
        **options,
    )
    assert next(gate for gate in result.quality.gates if gate.name == "composition").limit == 0.77
    with pytest.raises(InputError, match=r"gates: .*'compositions'"):
        citlr.audit(Own(), counterfactuals, gates={"compositions": 0.77}, **options)


def test_levels_and_images_to_redraw_are_told_apart(drawn: tuple[Cohort, Oracle, Counterfactuals]) -> None:
    cohort, oracle, _ = drawn
    frame = cohort.frame
    with pytest.raises(InputError, match="levels is a set, which has no order"):
        redraw(oracle, cohort, levels={"female", "male"})
    named: Any = {"male": 1, "female": 2}.keys()
    assert redraw(oracle, cohort, levels=named).main.plan.levels == ("male", "female")
    for name in ("sex", "patient_id"):
        some = replace(cohort, frame=frame.assign(**{name: frame[name].where(frame.index > 4)}))
        with pytest.raises(InputError, match=f"5 of 60 images have no '{name}'"):
            redraw(oracle, some)
    with pytest.raises(InputError, match="has 3 image ids more than once"):
        redraw(oracle, replace(cohort, frame=pd.concat([frame, frame.iloc[:3]])))
    with pytest.raises(InputError, match="no column 'sex' to redraw"):
        redraw(oracle, replace(cohort, frame=frame.rename(columns={"sex": "gender"}), attributes=("gender",)))


def test_pictures_are_there_as_long_as_a_copy_of_their_handle(drawn: tuple[Cohort, Oracle, Counterfactuals]) -> None:
    cohort, oracle, _ = drawn
    first = redraw(oracle, cohort.take(range(8)))
    second, folder = replace(first, key="another"), first.main.folder
    del first
    gc.collect()
    assert second.pictures().originals(range(8), 32).shape == (8, 1, 32, 32)
    assert folder.is_dir()
    del second
    gc.collect()
    assert not folder.is_dir()


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder: give the path of the file to write"):
        make_result().to_json(tmp_path)


def test_a_result_that_was_pickled_or_read_back_is_the_same(tmp_path: Path) -> None:
    """A number that does not exist is no other's equal, and an audit has some."""
    result = make_result(("edema",))
    result = replace(result, tests=tuple(replace(row, equivalence_pvalue=float("nan")) for row in result.tests))
    assert pickle.loads(pickle.dumps(result)) == result == citlr.read_result(result.to_json(tmp_path / "audit.json"))
    for other in (replace(result, model="another"), replace(result, tests=()), result.to_dict()):
        assert result != other
