"""Real images with a planted attribute: exact counterfactuals, placed by anatomy, correlated as asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import citlr
from citlr.data.cohort import Cohort
from citlr.errors import InputError
from citlr.generators.oracle import Oracle
from citlr.simulators import semireal
from citlr.simulators.phantom import PhantomWorld, true_effect
from citlr.simulators.planted.effects import EFFECTS, ONE_SIDED, apply, grid, locate
from citlr.simulators.planted.world import SemiRealWorld, _weights

NIH = Path(__file__).parents[3] / "shared" / "data" / "nih_cxr14_1000_256px"
ALL = tuple(EFFECTS)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Images that stand for real ones: a phantom's, of which some patients have two."""
    sample = PhantomWorld(size=64).sample(240, seed=3, images_per_patient=(1, 2))
    return sample.write(tmp_path_factory.mktemp("plain"), min_patients_per_level=1)


def film(left: float, height: float) -> np.ndarray:
    """A chest of two dark lungs whose place is known."""
    x, y = grid(64)
    lungs = sum(np.exp(-((x - c) ** 2) / 0.010 - (y - height) ** 2 / 0.030) for c in (left, left + 0.4))
    return (0.8 - 0.6 * lungs).astype(np.float32)


@pytest.mark.parametrize(("left", "height"), [(0.28, 0.42), (0.33, 0.50)])
def test_the_lungs_are_found_where_they_are(left: float, height: float) -> None:
    found = locate(film(left, height))
    assert found.centre[:, 0] == pytest.approx([left, left + 0.4], abs=0.03)
    assert found.centre[:, 1] == pytest.approx([height, height], abs=0.04)
    assert found.midline == pytest.approx(left + 0.2, abs=0.02)


@pytest.mark.parametrize("kind", [kind for kind in EFFECTS if kind != "tone"])
def test_an_effect_moves_with_the_anatomy(kind: str) -> None:
    centres = []
    for left, height in ((0.26, 0.40), (0.34, 0.50)):
        image = film(left, height)
        if kind in ("contrast", "shape", "organ", "breath"):  # act on what is there: give them something everywhere
            image = image + 0.05 * np.sin(40 * grid(64)[0]).astype(np.float32) * np.cos(40 * grid(64)[1])
        anatomy = locate(image)
        change = np.abs(apply(image, anatomy, 1.0, (kind,)) - apply(image, anatomy, 0.0, (kind,)))
        x, y = grid(64)
        centres.append(((change * x).sum() / change.sum(), (change * y).sum() / change.sum()))
    (x0, y0), (x1, y1) = centres
    assert x1 - x0 > 0.02
    assert y1 - y0 > 0.02


def test_no_attribute_leaves_the_image_and_the_two_levels_differ() -> None:
    image = film(0.3, 0.45)
    anatomy = locate(image)
    for kind in EFFECTS:
        middle = 0.0 if kind in ONE_SIDED else 0.5
        assert apply(image, anatomy, middle, (kind,)) == pytest.approx(image, abs=2e-6), kind
        assert np.abs(apply(image, anatomy, 1.0, (kind,)) - apply(image, anatomy, 0.0, (kind,))).max() > 0.01, kind


def test_a_texture_is_not_there_at_half_the_size() -> None:
    image = film(0.3, 0.45) * 0.8 + 0.1
    anatomy = locate(image)
    change = apply(image, anatomy, 1.0, ("texture",)) - image
    assert np.abs(change).max() > 0.03
    assert np.abs(change.reshape(32, 2, 32, 2).mean(axis=(1, 3))).max() < 0.01


def test_counterfactuals_are_exact_and_files_hold_the_factual_images(cohort: Cohort, tmp_path: Path) -> None:
    sample = semireal(cohort, effects=ALL, levels=("a", "b", "c"), correlation={"edema": 0.3}, seed=1)
    part = sample.take(slice(0, 30))
    images = part.images()
    for number, level in enumerate(("a", "b", "c")):
        mine = part.level == number
        assert mine.any()
        assert np.array_equal(part.counterfactual(level)[mine], images[mine])
        assert np.abs(part.counterfactual(level)[~mine] - images[~mine]).max() > 0.05
    written = sample.write(tmp_path, min_patients_per_level=5)
    assert written.attributes == ("planted",)
    rows = [written.frame["image_id"].tolist().index(name) for name in part.frame["image_id"]]
    assert written.pixels(rows, size=64) == pytest.approx(images, abs=1e-6)
    oracle = Oracle.of(part)
    redrawn = oracle.generate(images, part.frame, attribute="planted", levels=["a", "c"])
    assert np.array_equal(redrawn[:, 1, 0], part.counterfactual("c"))
    assert true_effect(lambda x: x.mean(axis=(1, 2, 3)).astype(float), part, ("a", "c")).psi_probability > 0


def test_a_patient_has_one_level_and_it_goes_with_the_label_as_asked(cohort: Cohort) -> None:
    sample = semireal(cohort, effects=("tone",), correlation={"effusion": 0.5}, seed=2)
    assert sample.frame.groupby("patient_id")["planted"].nunique().max() == 1
    patients = pd.DataFrame({"level": sample.level, "label": sample.frame["effusion"]}).groupby(
        sample.frame["patient_id"]
    )
    known = patients.max()
    assert known["level"].corr(known["label"]) == pytest.approx(0.5, abs=0.12)
    assert semireal(cohort, effects=("tone",), seed=2).level.mean() == pytest.approx(0.5, abs=0.08)
    again = semireal(cohort, effects=("tone",), correlation={"effusion": 0.5}, seed=2)
    assert np.array_equal(again.level, sample.level)
    assert not np.array_equal(semireal(cohort, effects=("tone",), seed=3).level, sample.level)


def together(cohort: Cohort, *, flipped: float) -> Cohort:
    """The same images, whose consolidation is their edema but for a share of the patients."""
    patients = cohort.frame["patient_id"]
    edema = cohort.frame["edema"].groupby(patients).transform("max")
    turned = patients.map({name: place for place, name in enumerate(patients.unique())}) % 100 < 100 * flipped
    return replace(cohort, frame=cohort.frame.assign(edema=edema, consolidation=edema.where(~turned, 1 - edema)))


@pytest.mark.parametrize("levels", [("less", "more"), ("a", "b", "c")])
@pytest.mark.parametrize(
    "wanted",
    [
        {"edema": 0.3, "consolidation": 0.1},
        {"edema": 0.2, "consolidation": 0.2, "effusion": -0.2},
        {"edema": 0.2, "consolidation": 0.0},
    ],
)
def test_labels_that_go_with_each_other_each_have_the_correlation_that_was_asked(
    cohort: Cohort, levels: tuple[str, ...], wanted: dict[str, float]
) -> None:
    real = together(cohort, flipped=0.2)
    shown = real.frame.groupby("patient_id", sort=False)[list(wanted)].max()
    assert shown["edema"].corr(shown["consolidation"]) > 0.4
    # The mean over many seeds: its error is 1 / sqrt(patients x seeds).
    found = []
    for seed in range(60):
        level = pd.Series(semireal(real, effects=("tone",), levels=levels, correlation=wanted, seed=seed).level)
        found.append(shown.corrwith(level.groupby(real.frame["patient_id"], sort=False).first()))
    assert pd.concat(found, axis=1).mean(axis=1).to_dict() == pytest.approx(wanted, abs=0.04)


def test_one_label_alone_moves_the_levels_as_it_always_did(cohort: Cohort) -> None:
    for levels, label, wanted in ((("less", "more"), "edema", 0.3), (("a", "b", "c"), "effusion", -0.17)):
        shown = cohort.frame.groupby("patient_id", sort=False)[label].max()
        score = np.arange(len(levels)) - (len(levels) - 1) / 2
        score = score / np.sqrt(np.mean(score**2))
        # The worlds of published tables hold these numbers to the last bit.
        values = shown.to_numpy(float)
        usual = (1 + (wanted * (values - values.mean()) / values.std())[:, None] * score) / len(levels)
        world = SemiRealWorld(levels=levels, correlation={label: wanted})
        assert np.array_equal(_weights(cohort, world, cohort.frame["patient_id"]), usual)


def test_labels_that_determine_each_other_or_are_blank_are_refused(cohort: Cohort) -> None:
    same = together(cohort, flipped=0)
    with pytest.raises(InputError, match="edema, consolidation determine each other"):
        semireal(same, correlation={"edema": 0.1, "consolidation": 0.3}, seed=0)
    with pytest.raises(InputError, match="ask for less"):
        semireal(together(cohort, flipped=0.05), correlation={"edema": 0.3, "consolidation": -0.3}, seed=0)
    blank = cohort.frame["edema"].where(cohort.frame.index >= 3)
    some = replace(cohort, frame=cohort.frame.assign(edema=blank))
    with pytest.raises(InputError, match=f"'edema' is blank for 3 of the cohort's {len(cohort)} images"):
        semireal(some, correlation={"edema": 0.1}, seed=0)
    # Nobody asks it to go with the label: blanks are as they were.
    assert semireal(some, correlation={"effusion": 0.1}, seed=0).frame["edema"].isna().sum() == 3


@pytest.mark.parametrize("null", [{"effects": ()}, {"strength": 0.0}])
def test_in_a_null_world_no_image_shows_the_attribute(cohort: Cohort, null: dict) -> None:
    sample = semireal(cohort, seed=0, **null).take(slice(0, 8))
    assert np.array_equal(sample.counterfactual("less"), sample.counterfactual("more"))
    assert sample.images() == pytest.approx(cohort.take(np.arange(8)).pixels(size=64), abs=1 / 510 + 1e-6)


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ({"effects": ("shadows",)}, "Did you mean 'shadow'?"),
        ({"effects": ("tone", "tone")}, "twice"),
        ({"levels": ("a", "a")}, "two different names"),
        ({"strength": -1.0}, "null world"),
        ({"size": 8}, "pixels"),
        ({"correlation": {"edemas": 0.3}}, "Did you mean 'edema'?"),
        ({"correlation": {"edema": 0.99}}, "ask for less"),
        ({"correlation": {"edema": float("nan")}}, "ask for less"),
    ],
)
def test_what_cannot_be_planted_is_refused_in_a_sentence(cohort: Cohort, planted: dict, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        semireal(cohort, seed=0, **planted)


@pytest.mark.skipif(not NIH.is_dir(), reason="the radiographs of ../shared/data are not here")
def test_in_real_radiographs_the_lungs_are_found_and_no_fixed_map_explains_the_effect() -> None:
    real = citlr.read_cohort(
        NIH / "metadata.csv",
        images=NIH,
        attribute="sex",
        labels=["edema"],
        columns={"path": "image", "image_id": "source_file"},
        split="split",
        seed=0,
    ).take(np.arange(0, 1000, 10))
    found = [locate(image[0]) for image in real.pixels(size=64)]
    left, right = np.array([one.centre[0] for one in found]), np.array([one.centre[1] for one in found])
    assert (np.abs(left - np.median(left, axis=0)) < 0.16).mean() > 0.95
    assert (np.abs(right - np.median(right, axis=0)) < 0.16).mean() > 0.95
    assert np.corrcoef(left[:, 1], right[:, 1])[0, 1] > 0.5  # both lungs of a patient lie equally high
    # The phantom's effect is to 79 % one map of pixels; what is placed by anatomy is not.
    for kinds, most in ((("shape",), 0.3), (("contrast",), 0.3), (("shadow",), 0.8)):
        sample = semireal(real, effects=kinds, seed=0)
        change = (sample.counterfactual("more") - sample.counterfactual("less")).reshape(len(real), -1)
        explained = 1 - ((change - change.mean(axis=0)) ** 2).sum() / (change**2).sum()
        assert explained < most, kinds
