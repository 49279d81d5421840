from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from citlr.data.images import decode_png, encode_png
from citlr.errors import InputError
from citlr.simulators.phantom import FINDINGS, PhantomSample, PhantomWorld, true_effect
from citlr.simulators.phantom.regions import attribute_windows
from citlr.simulators.phantom.render import thickness
from citlr.studies.generation.effects import fixed_map_share

THREE = ("a", "b", "c")


@pytest.fixture(scope="module")
def sample() -> PhantomSample:
    return PhantomWorld(size=64).sample(150, seed=3)


def changed(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels (s, s) in which any unit differs."""
    return np.asarray((first != second)[:, 0].any(axis=0))


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize("levels", [("female", "male"), THREE])
@pytest.mark.parametrize("digital", [True, False])
def test_pixels_outside_the_support_are_the_same_number_under_every_level(
    size: int, levels: tuple[str, ...], digital: bool
) -> None:
    # A strong effect and 8-bit rounding included: equality, not closeness.
    world = PhantomWorld(size=size, levels=levels, strength=2.0)
    units = world.sample(4 if size > 64 else 30, seed=size)
    base = units.counterfactual(levels[0], digital=digital)
    for level in levels[1:]:
        difference = changed(base, units.counterfactual(level, digital=digital))
        assert not difference[~world.support()].any()
        assert difference[world.support()].any()


def test_the_support_is_not_larger_than_what_is_touched(sample: PhantomSample) -> None:
    support = sample.world.support()
    touched = changed(sample.counterfactual("female", digital=False), sample.counterfactual("male", digital=False))
    assert touched[support].mean() > 0.85
    assert 0.3 < support.mean() < 0.6


def test_the_attribute_is_seen_without_a_lens(sample: PhantomSample) -> None:
    support = sample.world.support()
    difference = sample.counterfactual("male") - sample.counterfactual("female")
    # 0.004 is one grey value of 256; the film noise has a standard deviation of about three.
    assert np.abs(difference[:, 0][:, support]).mean() > 0.02
    upper, lower = np.zeros_like(support), np.zeros_like(support)
    upper[:26], lower[30:46] = True, True
    assert difference[:, 0][:, support & upper].mean() > 0.01  # bone of the last level is denser
    assert difference[:, 0][:, support & lower].mean() < -0.05  # the shadow of the first level is gone


def test_no_effect_at_strength_zero() -> None:
    units = PhantomWorld(size=32, strength=0.0).sample(10, seed=0)
    assert (units.counterfactual("female", digital=False) == units.counterfactual("male", digital=False)).all()


def test_the_middle_of_three_levels_lies_between_the_others() -> None:
    units = PhantomWorld(size=64, levels=THREE).sample(40, seed=1)
    a, b, c = (units.counterfactual(level)[:, 0, 30:46, :12].mean() for level in THREE)
    assert a > b > c
    assert set(PhantomWorld(levels=THREE).sample(60, seed=0).frame["sex"]) == set(THREE)


def test_the_counterfactual_of_the_counterfactual_is_the_image(sample: PhantomSample) -> None:
    factual = list(sample.frame["sex"])
    original = sample.images()
    assert (sample.do("male").do("female").do(factual).images() == original).all()
    assert (sample.counterfactual(factual) == original).all()
    other = ["male" if level == "female" else "female" for level in factual]
    assert (sample.do(other).frame["sex"] == other).all()
    assert (sample.do(other).images() != original).reshape(len(sample), -1).any(axis=1).all()


def test_setting_the_attribute_leaves_findings_view_and_age_alone(sample: PhantomSample) -> None:
    before, after = sample.frame, sample.do("male").frame
    assert before.drop(columns="sex").equals(after.drop(columns="sex"))


@pytest.mark.parametrize("finding", FINDINGS)
def test_severity_changes_its_region_only_and_brightens_it(sample: PhantomSample, finding: str) -> None:
    units = sample.take(np.arange(60))
    region = sample.world.region(finding)
    grades = [units.with_severity(finding, grade).images(digital=False) for grade in (0.0, 0.3, 0.6, 1.0)]
    for mild, severe in itertools.pairwise(grades):
        assert not changed(mild, severe)[~region].any()
        assert severe.mean() > mild.mean()
    assert changed(grades[0], grades[-1])[region].mean() > 0.3


@pytest.mark.parametrize("size", [32, 64, 100, 256])
def test_heart_and_effusion_lie_outside_the_support_and_the_others_overlap_it(size: int) -> None:
    world = PhantomWorld(size=size)
    overlap = {finding: bool((world.region(finding) & world.support()).any()) for finding in FINDINGS}
    assert overlap == {
        "cardiomegaly": False, "edema": True, "consolidation": True, "atelectasis": True, "effusion": False,
    }  # fmt: skip


def test_the_heart_grows_and_the_angle_fills_where_a_reader_looks(sample: PhantomSample) -> None:
    units = sample.take(sample.exogenous["effusion_side"].to_numpy() > 0.65)  # fluid in the image's right half alone
    gain = (units.with_severity("effusion", 1).images() - units.with_severity("effusion", 0).images())[:, 0].mean(
        axis=0
    )
    row, column = np.unravel_index(gain.argmax(), gain.shape)
    assert row > 44
    assert column > 48
    assert gain[:, :32].max() == 0
    heart = units.with_severity("cardiomegaly", 1).images() - units.with_severity("cardiomegaly", 0).images()
    row, column = np.unravel_index(heart[:, 0].mean(axis=0).argmax(), gain.shape)
    assert 30 < row < 50
    assert 34 < column < 50


def test_the_bedside_view_magnifies_the_heart_and_flattens_the_contrast(sample: PhantomSample) -> None:
    frame = PhantomWorld(size=64, prevalence=0.01).sample(300, seed=0)
    images, bedside = frame.images()[:, 0], (frame.frame["view"] == "AP").to_numpy()
    spread = images.reshape(len(images), -1).std(axis=1)
    assert spread[bedside].mean() < 0.95 * spread[~bedside].mean()
    assert 0.3 < bedside.mean() < 0.5


@pytest.mark.parametrize("size", [32, 48, 64, 128, 256])
def test_images_are_float32_within_bounds_and_use_the_range(size: int) -> None:
    images = PhantomWorld(size=size).sample(6, seed=4).images(digital=False)
    assert images.dtype == np.float32
    assert images.shape == (12, 1, size, size)
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.max() - images.min() > 0.8
    # At the limits of the film information would be lost; only the air beside the patient may be there.
    assert (images == 1).mean() < 0.01


def test_extreme_anatomy_stays_finite_and_float32() -> None:
    units = PhantomWorld(size=32).sample(8, seed=0, images_per_patient=1)
    table = {name: np.full((2, 1, 1), value, np.float32) for name in units.exogenous.columns[2:] for value in (2.0,)}
    table["ap"] = np.ones((2, 1, 1), np.float32)
    severity = {name: np.ones((2, 1, 1), np.float32) for name in FINDINGS}
    for sign in (1, -1):
        signed = {name: (sign * value).astype(np.float32) for name, value in table.items()}
        total = thickness(32, signed, severity, severity["edema"], severity["edema"])
        assert total.dtype == np.float32
        assert np.isfinite(total).all()


def test_files_hold_the_images_bit_for_bit(sample: PhantomSample) -> None:
    images = sample.images(np.arange(5))
    assert (np.stack([decode_png(encode_png(image)) for image in images]) == images).all()
    assert np.abs(images - sample.images(np.arange(5), digital=False)).max() <= 0.5001 / 255


@pytest.mark.parametrize("wanted", [-0.5, 0.0, 0.3, 0.6])
def test_the_wanted_correlation_and_prevalence_are_reached(wanted: float) -> None:
    frame = PhantomWorld(correlation=wanted, prevalence=0.4).sample(4000, seed=11, images_per_patient=1).frame
    male = (frame["sex"] == "male").to_numpy().astype(float)
    for finding in FINDINGS:
        # Four standard errors of a correlation of 4,000 independent patients.
        assert np.corrcoef(male, frame[finding])[0, 1] == pytest.approx(wanted, abs=4 / np.sqrt(4000))
        assert frame[finding].mean() == pytest.approx(0.4, abs=4 * 0.49 / np.sqrt(4000))


def test_correlation_by_finding_and_with_the_view_in_a_world_of_three_levels() -> None:
    world = PhantomWorld(
        levels=THREE, attribute="race", weights=(0.5, 0.3, 0.2), correlation={"edema": 0.4, "view": -0.3}
    )
    frame = world.sample(4000, seed=5, images_per_patient=1).frame
    index = frame["race"].map(dict(zip(THREE, range(3), strict=True))).to_numpy().astype(float)
    assert frame["race"].value_counts(normalize=True)["a"] == pytest.approx(0.5, abs=0.035)
    for name, target in {"edema": 0.4, "effusion": 0.0}.items():
        assert np.corrcoef(index, frame[name])[0, 1] == pytest.approx(target, abs=0.065)
    assert np.corrcoef(index, frame["view"] == "AP")[0, 1] == pytest.approx(-0.3, abs=0.065)


@pytest.mark.parametrize("levels", [("female", "male"), THREE])
def test_where_anatomy_varies_no_fixed_map_is_the_effect_and_the_support_still_holds(levels: tuple[str, ...]) -> None:
    world = PhantomWorld(size=48, levels=levels, anatomy="varying")
    units = world.sample(200, seed=6, images_per_patient=1)
    # Measured on four samples: .285 to .291 over the ends, .27 and .30 between neighbours; the fixed anatomy has .80.
    first = np.zeros(200, dtype=np.intp)
    assert fixed_map_share(units.counterfactual(levels[-1]) - units.counterfactual(levels[0]), first) < 0.3
    fixed = PhantomWorld(size=48, levels=levels).sample(200, seed=6, images_per_patient=1)
    assert fixed_map_share(fixed.counterfactual(levels[-1]) - fixed.counterfactual(levels[0]), first) > 0.7
    for digital in (True, False):
        base, other = (units.counterfactual(level, digital=digital) for level in (levels[0], levels[-1]))
        assert not changed(base, other)[~world.support()].any()
        assert changed(base, other)[world.support()].mean() > 0.9
    # Who has what is as in the fixed anatomy: only the bodies differ, and the images of a patient share theirs.
    assert units.frame.equals(fixed.frame)
    pairs = world.sample(3, seed=6, images_per_patient=2).exogenous
    assert (pairs["build_width"].to_numpy()[::2] == pairs["build_width"].to_numpy()[1::2]).all()
    assert (pairs["turn"].to_numpy()[::2] != pairs["turn"].to_numpy()[1::2]).all()


def test_where_anatomy_varies_a_male_image_tells_where_a_breast_would_lie_and_how_large() -> None:
    """Else no generator could be right: what it cannot know of is not in what the attribute does."""
    units = PhantomWorld(size=64, anatomy="varying").sample(60, seed=4, images_per_patient=1)
    change = units.counterfactual("female", digital=False) - units.counterfactual("male", digital=False)
    random, errors = np.random.default_rng(0), []
    names = [name for name in units.exogenous if name.startswith("breast")]
    for _ in range(4):
        table = units.exogenous.copy()
        table[names] = table[names].to_numpy()[random.permutation(len(units))]
        other = replace(units, exogenous=table)
        again = other.counterfactual("female", digital=False) - other.counterfactual("male", digital=False)
        errors.append(float(((again - change) ** 2).sum() / (change**2).sum()) / 2)
    assert np.mean(errors) < 0.08  # half the squared distance of two draws: what the best guess misses
    # Wider lungs and a lower diaphragm, which show under both levels, move the breast.
    for name in ("lung_width", "lung_base"):
        parts = []
        for value in (-2.0, 2.0):
            moved = replace(units, exogenous=units.exogenous.assign(**{name: value}))
            parts.append(moved.counterfactual("female", digital=False) - moved.counterfactual("male", digital=False))
        assert np.abs(parts[1] - parts[0]).mean() > 0.3 * np.abs(change).mean(), name


def test_where_anatomy_varies_the_window_has_no_edge() -> None:
    window, _ = attribute_windows(64, varying=True)
    assert window.max() == 1
    assert np.abs(np.diff(window, axis=1)).max() < 0.2  # a step over five pixels of 64 or more
    assert np.abs(np.diff(window, axis=0)).max() < 0.2
    assert np.array_equal(window > 0, PhantomWorld(size=64, anatomy="varying").support())


def test_varying_anatomy_moves_what_it_says() -> None:
    units = PhantomWorld(size=64, anatomy="varying", strength=0.0).sample(40, seed=1, images_per_patient=1)
    table = units.exogenous.assign(**dict.fromkeys(("turn", "across", "down", "build_width", "build_height"), 0.0))
    still = replace(units, exogenous=table)
    for name, factor in {"turn": 2.0, "across": 2.0, "down": -2.0, "build_width": 2.0, "build_height": -2.0}.items():
        moved = replace(still, exogenous=table.assign(**{name: factor}))
        assert np.abs(moved.images() - still.images()).mean() > 0.02, name
        assert np.array_equal(moved.images(), moved.counterfactual("male")), name  # strength 0: nothing else


def test_the_fixed_anatomy_is_what_it_was_before_anatomy_could_vary() -> None:
    """Its rows are the reference that later generators are held against; four bands of three images."""
    units = PhantomWorld(size=64, correlation=0.3).sample(20, seed=5).take(slice(0, 3))
    bands = [units.do(level).images().reshape(3, 4, 16, 64).mean(axis=(2, 3)) for level in (units.frame["sex"], "male")]
    # Bit for bit on one machine; the digits here leave room for another one's exponential function.
    factual = [[0.4725, 0.5167, 0.5620, 0.7261], [0.4587, 0.4954, 0.5463, 0.7074], [0.4820, 0.5151, 0.4687, 0.6573]]
    male = [[0.4907, 0.5280, 0.5138, 0.7261], [0.4752, 0.5073, 0.5017, 0.7074], [0.4820, 0.5151, 0.4687, 0.6573]]
    assert bands[0] == pytest.approx(np.array(factual), abs=2e-4)
    assert bands[1] == pytest.approx(np.array(male), abs=2e-4)


def test_a_patients_images_share_anatomy_and_tendency_but_not_pose_and_noise() -> None:
    units = PhantomWorld(size=32).sample(600, seed=2, images_per_patient=2)
    first, second = units.take(slice(0, None, 2)), units.take(slice(1, None, 2))
    assert (first.exogenous["heart_size"] == second.exogenous["heart_size"]).all()
    assert (first.level == second.level).all()
    assert (first.exogenous["zoom"] != second.exogenous["zoom"]).mean() > 0.9
    assert (first.images() != second.images()).reshape(len(first), -1).any(axis=1).all()
    # Tendencies correlate by 0.5, so that labels of one patient agree more often than those of strangers.
    assert np.corrcoef(first.frame["edema"], second.frame["edema"])[0, 1] > 0.15


def test_units_do_not_depend_on_how_many_are_drawn_or_rendered_together() -> None:
    world = PhantomWorld(size=64)
    few, many = world.sample(3, seed=7), world.sample(40, seed=7)
    assert few.frame.equals(many.frame.head(len(few)))
    together = many.images()
    assert (few.images() == together[: len(few)]).all()
    assert (many.images([31, 5]) == together[[31, 5]]).all()
    assert (world.sample(40, seed=7).images() == together).all()
    assert (world.sample(40, seed=8).images() != together).any()


def test_a_range_of_images_per_patient() -> None:
    frame = PhantomWorld().sample(300, seed=0, images_per_patient=(1, 3)).frame
    counts = frame.groupby("patient_id").size()
    assert set(counts) == {1, 2, 3}
    assert frame["image_id"].is_unique


def test_writing_gives_a_cohort_whose_pixels_are_the_images(tmp_path) -> None:
    units = PhantomWorld(size=32).sample(240, seed=0, images_per_patient=(1, 2))
    cohort = units.write(tmp_path / "world")
    assert len(cohort) == len(units)
    assert cohort.attributes == ("sex",)
    assert cohort.labels == FINDINGS
    assert "view" in cohort.covariates
    by_name = units.frame.set_index("image_id")
    assert (by_name.loc[cohort.frame["image_id"], "sex"].to_numpy() == cohort.frame["sex"].to_numpy()).all()
    order = units.frame["image_id"].tolist()
    rows = [order.index(name) for name in cohort.frame["image_id"]]
    assert (cohort.pixels(size=32) == units.images(rows)).all()
    assert set(cohort.frame["split"]) == {"train", "validation", "test"}
    assert (cohort.frame.groupby("patient_id")["split"].nunique() == 1).all()


def test_the_true_effect_of_a_classifier_known_in_closed_form(sample: PhantomSample) -> None:
    first, last = sample.counterfactual("female"), sample.counterfactual("male")

    def shadow(images: NDArray[np.float32]) -> NDArray[np.float64]:
        return images[:, 0, 38, 6].astype(np.float64)

    effect = true_effect(shadow, sample, ("female", "male"), threshold=0.6)
    before, after = shadow(first), shadow(last)
    assert effect.flip_rate == np.mean((before >= 0.6) != (after >= 0.6)) > 0
    assert effect.psi == effect.flip_rate
    assert effect.mean_effect == np.mean((after >= 0.6).astype(float) - (before >= 0.6))
    assert effect.psi_probability == pytest.approx(np.mean((after - before) ** 2))
    assert effect.mean_effect_probability == pytest.approx(np.mean(after - before))
    assert (effect.n_images, effect.n_patients) == (300, 150)
    backwards = true_effect(shadow, sample, ("male", "female"), threshold=0.6)
    assert backwards.mean_effect == -effect.mean_effect


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PhantomWorld(size=16), "size is 16"),
        (lambda: PhantomWorld(anatomy="variing"), "anatomy"),
        (lambda: PhantomWorld(levels=("one",)), "two or more"),
        (lambda: PhantomWorld(weights=(0.5, 0.6)), "sum to one"),
        (lambda: PhantomWorld(prevalence=1.0), "between 0 and 1"),
        (lambda: PhantomWorld(prevalence={"oedema": 0.2}), "Did you mean 'edema'"),
        (lambda: PhantomWorld(correlation=0.8), "largest possible is 0.655"),
        (lambda: PhantomWorld(correlation=-0.8), "largest possible is -0.655"),
        (lambda: PhantomWorld(correlation={"efusion": 0.2}), "Did you mean 'effusion'"),
        (lambda: PhantomWorld().sample(0, seed=0), "0 patients"),
        (lambda: PhantomWorld().sample(2, seed=-1), "seed -1"),
        (lambda: PhantomWorld().sample(2, seed=0, images_per_patient=(3, 1)), r"\(3, 1\) images"),
        (lambda: PhantomWorld().sample(2, seed=0).do("mal"), "Did you mean 'male'"),
        (lambda: PhantomWorld().sample(2, seed=0).do(["male"]), "1 levels were given for 4"),
        (lambda: PhantomWorld().sample(2, seed=0).with_severity("edema", 1.5), r"outside \[0, 1\]"),
        (lambda: PhantomWorld().region("heart"), "no finding 'heart'"),
    ],
)
def test_bad_settings_are_answered_with_a_sentence(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("classify", "message"),
    [
        (lambda images: np.zeros((len(images), 1)), r"shape \(8, 1\)"),
        (lambda images: np.full(len(images), 1.5), "not a logit"),
        (lambda images: np.full(len(images), np.nan), "not a logit"),
    ],
)
def test_an_output_that_is_no_probability_is_refused(classify, message: str) -> None:
    units = PhantomWorld(size=32).sample(4, seed=0)
    with pytest.raises(InputError, match=message):
        true_effect(classify, units, ("female", "male"))
