"""The alignment of images: exact inverse, right moments, nothing where nothing is known."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from citlr.errors import StateError
from citlr.generators.conditions import Conditions
from citlr.generators.effects.alignment import Alignment, aligned
from citlr.generators.effects.components import principal_components
from citlr.learning.store import Dataset

SIZE = 16


def world(n: int = 1200, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Images in which sex brightens a corner and widens a pattern's variation; the view brightens another corner."""
    random = np.random.default_rng(seed)
    male, ap = random.integers(0, 2, n), random.integers(0, 2, n)
    images = 0.5 + 0.02 * random.normal(size=(n, 1, SIZE, SIZE))
    images[male == 1, :, :4, :4] += 0.1
    images[ap == 1, :, -4:, -4:] += 0.1
    pattern = np.zeros((SIZE, SIZE))
    pattern[6:10] = 1
    images[:, 0] += (random.normal(size=n) * (0.02 + 0.06 * male))[:, None, None] * pattern
    frame = pd.DataFrame(
        {
            "patient_id": [f"p{k}" for k in range(n)],
            "sex": np.where(male == 1, "M", "F"),
            "view": np.where(ap == 1, "AP", "PA"),
        }
    )
    return images.astype(np.float32), frame


def fitted(components: int = 20) -> tuple[Alignment, Conditions, np.ndarray, pd.DataFrame, dict[str, int]]:
    images, frame = world()
    conditions = Conditions.of(frame, attributes=["sex"], hold=["view"], coin_seed=0)
    alignment = Alignment(conditions, (1, SIZE, SIZE), components)
    report = alignment.fit(images, conditions.encode(frame), frame["patient_id"], seed=0)
    return alignment, conditions, images, frame, report


def test_undoing_under_the_factual_codes_gives_the_image_back() -> None:
    alignment, conditions, images, frame, _ = fitted()
    codes = conditions.encode(frame)
    x = torch.from_numpy(images)
    back = alignment.undo(alignment(x, codes), codes)
    torch.testing.assert_close(back, x, atol=1e-5, rtol=0)


def test_before_it_is_fitted_it_changes_nothing() -> None:
    images, frame = world(50)
    conditions = Conditions.of(frame, attributes=["sex"], hold=["view"], coin_seed=0)
    x = torch.from_numpy(images)
    torch.testing.assert_close(
        Alignment(conditions, (1, SIZE, SIZE), 5)(x, conditions.encode(frame)), x, atol=1e-6, rtol=0
    )


def test_mean_and_variance_no_longer_tell_the_levels_apart_and_the_view_stays() -> None:
    alignment, conditions, images, frame, report = fitted()
    assert report["sex"] >= 1
    assert report["placebo"] == 0
    y = alignment(torch.from_numpy(images), conditions.encode(frame)).numpy()[:, 0]
    male, ap = (frame["sex"] == "M").to_numpy(), (frame["view"] == "AP").to_numpy()
    assert abs(y[male, :4, :4].mean() - y[~male, :4, :4].mean()) < 0.003
    assert y[ap, -4:, -4:].mean() - y[~ap, -4:, -4:].mean() == pytest.approx(0.1, abs=0.01)
    deviation = [y[who, 6:10].mean(axis=(1, 2)).std() for who in (male, ~male)]
    assert deviation[0] / deviation[1] == pytest.approx(1, abs=0.15)
    assert images[male, 0, 6:10].mean(axis=(1, 2)).std() > 2 * images[~male, 0, 6:10].mean(axis=(1, 2)).std()


def test_a_counterfactual_has_the_other_levels_mean_and_variance_of_the_units_own_pattern() -> None:
    alignment, conditions, images, frame, _ = fitted()
    codes = conditions.encode(frame)
    female = (frame["sex"] == "F").to_numpy()
    y = alignment(torch.from_numpy(images), codes)
    male = alignment.undo(y, conditions.intervene(codes, "sex", "M")).numpy()[female, 0]
    own = images[female, 0]
    assert (male - own)[:, :4, :4].mean() == pytest.approx(0.1, abs=0.01)
    before, after = (one[:, 6:10].mean(axis=(1, 2)) for one in (own, male))
    assert after.std() / before.std() == pytest.approx(4, rel=0.25)
    # Each image's own pattern is scaled, none is invented.
    assert np.corrcoef(before, after)[0, 1] > 0.97


def test_a_copy_by_its_state_aligns_alike() -> None:
    alignment, conditions, images, frame, _ = fitted()
    other = Alignment(conditions, (1, SIZE, SIZE), 20)
    other.load_state_dict(alignment.state_dict())
    x, codes = torch.from_numpy(images), conditions.encode(frame)
    assert not torch.allclose(other(x, codes), x, atol=0.01)
    assert torch.equal(other(x, codes), alignment(x, codes))


def test_a_level_that_is_not_given_moves_nothing() -> None:
    alignment, conditions, images, frame, _ = fitted()
    codes = conditions.encode(frame)
    nothing = conditions.intervene(codes, ["sex", "placebo"], None)
    x = torch.from_numpy(images)
    torch.testing.assert_close(alignment(x, nothing), x, atol=1e-5, rtol=0)


def test_a_number_has_its_mean_effect_aligned() -> None:
    images, frame = world()
    age = np.random.default_rng(1).uniform(20, 80, len(frame))
    images[:, 0, :4, -4:] += (0.002 * age)[:, None, None].astype(np.float32)
    frame = frame.assign(age=age)
    conditions = Conditions.of(frame, attributes=["age"], hold=["view"], coin_seed=0)
    alignment = Alignment(conditions, (1, SIZE, SIZE), 20)
    codes = conditions.encode(frame)
    assert "age" not in alignment.fit(images, codes, frame["patient_id"], seed=0)
    y = alignment(torch.from_numpy(images), codes)
    older = alignment.undo(y, conditions.intervene(codes, "age", "70")) - alignment.undo(
        y, conditions.intervene(codes, "age", "40")
    )
    assert float(older[:, 0, :4, -4:].mean()) == pytest.approx(0.06, abs=0.005)


def test_a_number_that_is_missing_in_places_keeps_its_slope() -> None:
    images, frame = world()
    random = np.random.default_rng(1)
    age = random.uniform(20, 80, len(frame))
    images[:, 0, :4, -4:] += (0.002 * age)[:, None, None].astype(np.float32)
    # Those whose age is not known have something of their own.
    unknown = random.random(len(frame)) < 0.3
    images[unknown, 0, :4, -4:] += 0.3
    frame = frame.assign(age=np.where(unknown, np.nan, age))
    conditions = Conditions.of(frame, attributes=["age"], hold=["view"], coin_seed=0)
    alignment = Alignment(conditions, (1, SIZE, SIZE), 20)
    codes = conditions.encode(frame)
    alignment.fit(images, codes, frame["patient_id"], seed=0)
    y = alignment(torch.from_numpy(images), codes)
    older, younger = (alignment.undo(y, conditions.intervene(codes, "age", value)) for value in ("70", "40"))
    assert float((older - younger)[:, 0, :4, -4:].mean()) == pytest.approx(0.06, abs=0.005)


def test_an_effect_that_differs_with_what_is_held_is_given_back_as_it_differs() -> None:
    images, frame = world()
    male, ap = (frame["sex"] == "M").to_numpy(), (frame["view"] == "AP").to_numpy()
    images[male & ap, :, :4, :4] -= 0.06  # of .1: the view hides most of it
    conditions = Conditions.of(frame, attributes=["sex"], hold=["view"], coin_seed=0)
    codes = conditions.encode(frame)
    alignment = Alignment(conditions, (1, SIZE, SIZE), 20)
    alignment.fit(images, codes, frame["patient_id"], seed=0)
    shares = dict(zip(alignment.joint.names, alignment.joint.kept.tolist(), strict=True))
    assert shares["sex x view"] > 0.9
    assert shares["placebo x view"] < 0.5
    x = torch.from_numpy(images)
    y = alignment(x, codes)
    torch.testing.assert_close(alignment.undo(y, codes), x, atol=1e-5, rtol=0)
    change = (
        alignment.undo(y, conditions.intervene(codes, "sex", "M"))
        - alignment.undo(y, conditions.intervene(codes, "sex", "F"))
    ).numpy()[:, 0, :4, :4]
    assert change[ap].mean() == pytest.approx(0.04, abs=0.005)
    assert change[~ap].mean() == pytest.approx(0.10, abs=0.005)
    aligned_images = y.numpy()[:, 0, :4, :4]
    for view in (ap, ~ap):
        assert aligned_images[male & view].mean() == pytest.approx(aligned_images[~male & view].mean(), abs=0.003)
    # Of an image whose view is not recorded the mean effect is given back.
    unknown = conditions.encode(frame.assign(view=None))
    mean = alignment.undo(y, conditions.intervene(unknown, "sex", "M")) - alignment.undo(
        y, conditions.intervene(unknown, "sex", "F")
    )
    assert float(mean[:, 0, :4, :4].mean()) == pytest.approx(0.1 - 0.06 * ap.mean(), abs=0.006)


def test_same_seed_same_maps_and_another_fit_another_mark() -> None:
    first, second = fitted()[0], fitted()[0]
    assert first.mark() == second.mark()
    assert first.mark() != fitted(components=10)[0].mark()


def test_few_images_give_fewer_components_and_none_an_identity_of_maps() -> None:
    images, frame = world(12)
    conditions = Conditions.of(frame, attributes=["sex"], hold=["view"], coin_seed=0)
    alignment = Alignment(conditions, (1, SIZE, SIZE), 20)
    assert set(alignment.fit(images, conditions.encode(frame), frame["patient_id"], seed=0)) <= {"sex", "placebo"}
    images, frame = world(5)
    alignment = Alignment(conditions, (1, SIZE, SIZE), 20)
    assert alignment.fit(images, conditions.encode(frame), frame["patient_id"], seed=0) == {"sex": 0, "placebo": 0}
    assert float(alignment.basis.abs().max()) == 0


def test_hidden_latents_tell_neither_the_attribute_nor_what_is_held_and_have_no_way_back() -> None:
    """What images keep for lack of proof is taken off latents, where it could be read, and so is a held finding.

    The view goes with sex here: kept, it would tell sex of eight images in ten. The coin is no secret.
    """
    random = np.random.default_rng(3)
    n = 600
    _, frame = world(n)
    male = (frame["sex"] == "M").to_numpy()
    ap = random.random(n) < np.where(male, 0.8, 0.2)
    frame["view"] = np.where(ap, "AP", "PA")
    z = random.normal(size=(n, 2, 4, 4))
    # A change of spread too small for permutations to show, and another mean; the view has both too.
    z[male, 0, :2] *= 1.25
    z[male, 1, :2] += 0.5
    z[ap, 0, 2:] *= 1.25
    z[ap, 1, 2:] += 2.0
    z = z.astype(np.float32)
    conditions = Conditions.of(frame, attributes=["sex"], hold=["view"], coin_seed=0)
    codes = conditions.encode(frame)
    alignment = Alignment(conditions, (2, 4, 4), 100, hidden=True)
    assert set(alignment.fit(z, codes, frame["patient_id"], seed=0)) == {"sex", "view"}
    y = alignment(torch.from_numpy(z), codes).numpy().reshape(n, -1)
    plain = z.reshape(n, -1)
    for one, other in ((male, ~male), (ap, ~ap)):
        assert np.abs(plain[one].mean(axis=0) - plain[other].mean(axis=0)).max() > 0.4
        assert np.abs(y[one].mean(axis=0) - y[other].mean(axis=0)).max() < 0.15
        assert (plain[one].var(axis=0) / plain[other].var(axis=0)).max() > 1.4
    # Of spreads, those of the attribute's levels are made alike last: they count.
    assert np.abs(y[male].var(axis=0) / y[~male].var(axis=0) - 1).max() < 0.1
    assert np.abs(y[ap, 8:16].var(axis=0) / y[~ap, 8:16].var(axis=0) - 1).max() < 0.25
    # Nothing is moved for the coin.
    heads = conditions.intervene(codes, "placebo", "heads")
    torch.testing.assert_close(alignment(torch.from_numpy(z), heads), alignment(torch.from_numpy(z), codes))
    with pytest.raises(StateError, match="no way back"):
        alignment.undo(torch.from_numpy(z), codes)


def test_a_rare_level_blows_nothing_up() -> None:
    """Of a level with twelve images a covariance of 32 components is singular: others of it would be blown up.

    The levels that many images show are aligned in full all the same.
    """
    random = np.random.default_rng(4)
    n = 600
    _, frame = world(2 * n)
    frame["view"] = np.select([np.arange(2 * n) % 50 == 0, np.arange(2 * n) % 2 == 0], ["LL", "AP"], "PA")
    z = random.normal(size=(2 * n, 2, 4, 4)).astype(np.float32)
    z[frame["view"] == "AP"] *= 1.5
    conditions = Conditions.of(frame, attributes=["sex"], hold=["view"], coin_seed=0)
    codes = conditions.encode(frame)
    alignment = Alignment(conditions, (2, 4, 4), 100, hidden=True)
    assert alignment.fit(z[:n], codes[:n], frame["patient_id"][:n], seed=0) == {"view": 32, "sex": 32}
    y = alignment(torch.from_numpy(z[n:]), codes[n:]).numpy()
    spread = {view: y[(frame["view"] == view).to_numpy()[n:]].std() for view in ("LL", "AP", "PA")}
    assert spread["LL"] < 2
    assert spread["AP"] / spread["PA"] == pytest.approx(1, abs=0.05)


def test_covariances_are_left_alone_where_the_attribute_does_not_act() -> None:
    images, frame = world()
    conditions = Conditions.of(frame, attributes=["sex"], hold=["view"], coin_seed=0)
    codes = conditions.encode(frame)
    where = torch.zeros(1, SIZE, SIZE)
    where[:, :8] = 1
    alignment = Alignment(conditions, (1, SIZE, SIZE), 20)
    assert alignment.fit(images, codes, frame["patient_id"], seed=0, where=where)["sex"] >= 1
    x = torch.from_numpy(images)
    y = alignment(x, codes).numpy()
    # The pattern reaches over both halves: its variation is another one in the upper half, the same in the lower.
    deviation = {rows: [y[who, 0, rows].mean(axis=1).std() for who in levels(frame)] for rows in (6, 9)}
    assert deviation[6][0] / deviation[6][1] == pytest.approx(1, abs=0.2)
    assert deviation[9][0] / deviation[9][1] > 2
    torch.testing.assert_close(alignment.undo(torch.from_numpy(y), codes), x, atol=1e-5, rtol=0)
    # Where it acts nowhere, there is no covariance to align.
    nowhere = Alignment(conditions, (1, SIZE, SIZE), 20)
    assert nowhere.fit(images, codes, frame["patient_id"], seed=0, where=torch.zeros(1, SIZE, SIZE)) == {
        "sex": 0,
        "placebo": 0,
    }


def levels(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    male = (frame["sex"] == "M").to_numpy()
    return male, ~male


def test_splits_are_aligned_as_they_are_read_and_named_by_the_maps() -> None:
    alignment, conditions, images, frame, _ = fitted()

    class Named:
        """All that `Dataset` asks of a cohort here."""

        def fingerprint(self) -> str:
            return "0123456789abcdef" * 4

    data = Dataset(Named(), images)  # type: ignore[arg-type]
    codes = conditions.encode(frame)
    found = aligned(data, alignment, codes)
    assert found.mark == f"{data.mark}-{alignment.mark()}"
    assert found.pixels is data.pixels
    rows = np.array([5, 2, 7])
    torch.testing.assert_close(found.images(rows), alignment(torch.from_numpy(images[rows]), codes[rows]))


def test_a_patient_with_many_images_counts_once() -> None:
    """Copies of an image are nothing new: neither means, nor what is shown, nor how many components are theirs."""
    images, frame = world(400)
    random = np.random.default_rng(5)
    images[:, 0, :4, -4:] += 0.04 * ((frame["sex"] == "M") & (frame["view"] == "AP")).to_numpy()[:, None, None]
    copies = np.repeat(np.arange(400), random.integers(1, 9, 400))
    conditions = Conditions.of(frame, attributes=["sex"], hold=["view"], coin_seed=0)
    found = []
    for rows in (np.arange(400), copies):
        own = frame.iloc[rows]
        alignment = Alignment(conditions, (1, SIZE, SIZE), 100)
        report = alignment.fit(images[rows], conditions.encode(own), own["patient_id"], seed=0)
        assert report["sex"] >= 1
        found.append(alignment)
    once, often = found
    assert int(often.basis.any(dim=1).sum()) == 20
    for name in ("centre", "effects", "joint.effects"):
        torch.testing.assert_close(often.get_buffer(name), once.get_buffer(name), atol=1e-5, rtol=0)
    assert once.joint is not None
    assert often.joint is not None
    torch.testing.assert_close(often.joint.kept, once.joint.kept, atol=1e-3, rtol=0)
    codes = conditions.encode(frame)
    x, other = torch.from_numpy(images), conditions.intervene(codes, "sex", "M")
    one, two = (own.undo(own(x, codes), other) for own in found)
    assert float((one - two).square().mean().sqrt()) < 0.1 * float((one - x).square().mean().sqrt())


@pytest.mark.parametrize("hidden", [True, False])
def test_a_patient_counts_once_where_a_level_is_not_known_of_all_images(hidden: bool) -> None:
    """Patients of one level have an image more, of which nobody said the level: no change of covariance shows."""
    n, name = 800, "view" if hidden else "sex"
    random = np.random.default_rng(0)
    levels = {"sex": random.choice(["F", "M"], n), "view": random.choice(["AP", "PA"], n)}
    frame = pd.DataFrame({"patient_id": np.arange(n).astype(str), **levels})
    pixels = random.standard_normal((n, 2, 4, 4)).astype(np.float32)
    some = np.flatnonzero(frame[name] == frame[name].max())
    every = pd.concat([frame, frame.iloc[some].assign(**{name: None})], ignore_index=True)
    conditions = Conditions.of(every, attributes=["sex"], hold=["view"], coin_seed=0)
    codes, alignment = conditions.encode(every), Alignment(conditions, (2, 4, 4), 20, hidden=hidden)
    report = alignment.fit(np.concatenate([pixels, pixels[some]]), codes, every["patient_id"], seed=0)
    assert (report[name] > 0) == hidden  # of latents, covariances are taken off as they are
    parts = alignment(torch.from_numpy(pixels), codes[:n]).flatten(1) @ alignment.basis.T
    spread = [float(parts[np.flatnonzero(frame[name] == level)].var()) for level in sorted(set(frame[name]))]
    assert spread[0] == pytest.approx(spread[1], rel=0.1)


def test_principal_components_are_found_in_passes() -> None:
    random = np.random.default_rng(0)
    rows = (random.normal(size=(300, 40)) * 0.8 ** np.arange(40)).astype(np.float32)
    found = principal_components(lambda: iter(np.split(rows, 3)), width=40, count=5, random=random)
    exact = np.linalg.svd(rows, full_matrices=False)[2][:5].T
    assert np.linalg.svd(found.T @ exact)[1].min() > 0.999
    np.testing.assert_allclose(found.T @ found, np.eye(5), atol=1e-5)


def test_of_many_images_the_covariances_are_those_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    few, conditions, images, frame, _ = fitted()
    codes = conditions.encode(frame)
    monkeypatch.setattr("citlr.learning.store.SAMPLE", len(images) // 2)
    some = Alignment(conditions, images.shape[1:], few.components)
    some.fit(images, codes, frame["patient_id"], seed=0)
    torch.testing.assert_close(some.centre, few.centre)
    assert not torch.equal(some.basis, few.basis)
    mended = some.undo(some(torch.from_numpy(images), codes), codes)
    torch.testing.assert_close(mended, torch.from_numpy(images), atol=1e-3, rtol=0)


def test_in_a_folder_the_alignment_is_the_same_and_the_parts_are_not_in_memory(tmp_path: Path) -> None:
    images, frame = world(6000)
    frame.loc[::7, "sex"] = None
    conditions = Conditions.of(frame, attributes=["sex"], hold=["view"], coin_seed=0)
    codes, marks, most = conditions.encode(frame), [], []
    for directory in (None, tmp_path / "training"):
        alignment = Alignment(conditions, (1, SIZE, SIZE), 200)
        tracemalloc.start()
        assert alignment.fit(images, codes, frame["patient_id"], seed=0, directory=directory)["sex"] > 0
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        marks.append(alignment.mark())
    assert marks[0] == marks[1]
    assert most[1] < most[0] - 0.9 * 6000 * 200 * 4
    assert not list((tmp_path / "training").iterdir())
