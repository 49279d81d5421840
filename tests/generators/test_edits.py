"""The edit generator: registration, the family of edits, shrinkage, and the whole on images whose truth is known."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from scipy.stats import gamma

from citlr.audit.generation import generate
from citlr.audit.measures.faithfulness import QualitySettings, assess_faithfulness, read_faithfulness
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.images import encode_png
from citlr.generators.base import EditingGenerator
from citlr.generators.conditions import Conditions
from citlr.generators.edits import choice
from citlr.generators.edits.atlas import build_atlas, likeness, register
from citlr.generators.edits.choice import ALPHA, find
from citlr.generators.edits.estimate import Cases
from citlr.generators.edits.family import CHANNELS, DISPLACEMENTS, Family, Frame, apply, bands
from citlr.generators.edits.fine import chance, differences, placed
from citlr.generators.edits.generator import EditGenerator, half_of, some_rows
from citlr.generators.edits.shrinkage import TINY, shrink
from citlr.generators.edits.significance import _tail, shown
from citlr.generators.edits.summaries import edited, frame_of, summaries, width
from citlr.generators.edits.warps import compose, inverse, warp
from citlr.generators.effects.aligned import of_one
from citlr.generators.effects.contrasts import coded, contrasts, design
from citlr.generators.effects.whitening import Whitening
from citlr.generators.registry import load_generator
from citlr.generators.variables import Variable
from citlr.simulators import semireal
from citlr.simulators.phantom import PhantomWorld
from citlr.simulators.planted.world import SemiRealSample


def chests(n: int, seed: int, **world: object) -> torch.Tensor:
    return torch.from_numpy(PhantomWorld(size=64, **world).sample(n, seed=seed, images_per_patient=1).images())


def smooth_displacement(n: int, seed: int, size: int = 64, scale: float = 3.0) -> torch.Tensor:
    coarse = torch.randn(n, 2, 3, 3, generator=torch.Generator().manual_seed(seed)) * scale
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)


def test_a_displacement_and_its_inverse_cancel() -> None:
    there = smooth_displacement(3, 0)
    left = compose(there, inverse(there))[:, :, 8:-8, 8:-8]
    assert float(left.abs().max()) < 0.1
    images = chests(2, 0)
    assert torch.allclose(warp(images, torch.zeros(2, 2, 64, 64)), images, atol=1e-5)


def test_registration_brings_moved_chests_together() -> None:
    images = chests(60, 1)
    moved = warp(images, smooth_displacement(60, 2, scale=2.0))
    atlas = build_atlas(moved)
    displacement = register(moved, atlas)
    apart = likeness(moved, atlas, torch.zeros_like(displacement))
    assert float(likeness(moved, atlas, displacement).mean()) > float(apart.mean()) + 0.1


def test_registration_does_not_see_shading_and_contrast() -> None:
    images = chests(40, 3)
    atlas = build_atlas(images)
    ramp = torch.linspace(0, 0.1, 64).view(1, 1, 1, 64)
    change = register(0.8 * images + ramp, atlas) - register(images, atlas)
    assert float(change.pow(2).mean().sqrt()) < 0.35  # pixels of 32


def test_the_edit_of_nothing_is_nothing_and_bands_add_up() -> None:
    images, family = chests(4, 4), Family(64)
    still = Frame(torch.zeros(4, 2, 64, 64), torch.zeros(4, 2, 64, 64))
    assert torch.equal(edited(family, images, torch.zeros(4, family.width), still), images)
    assert torch.allclose(bands(images).sum(dim=1, keepdim=True), images, atol=1e-5)
    assert len(family.blocks) == family.width == sum(int(family.columns((kind,)).sum()) for kind in KINDS)


KINDS = tuple(CHANNELS)


def test_what_both_sides_have_alike_and_what_they_have_apart_have_variances_of_their_own() -> None:
    family, random = Family(64), torch.Generator().manual_seed(0)
    for field in family.fields:
        blocks = family.blocks[field.span].reshape(field.grid, field.grid)
        alike, apart = blocks[:, : field.alike], blocks[:, field.alike :]
        assert not set(alike.flatten().tolist()) & set(apart.flatten().tolist())
        if field.alike == field.grid:
            continue
        for columns, sign in ((slice(None, field.alike), 1), (slice(field.alike, None), -1)):
            table = torch.zeros(field.grid, field.grid)
            table[:, columns] = torch.randn(table[:, columns].shape, generator=random)
            own = torch.zeros(1, family.width)
            own[0, field.span] = table.flatten()
            drawn = family.maps(own)[field.kind][:, field.channel]
            assert float(drawn.abs().max()) > 0.01
            assert torch.allclose(drawn.flip(-1), sign * drawn, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_edit_does_what_it_says(kind: str) -> None:
    images, family = chests(3, 5), Family(64)
    still = Frame(torch.zeros(3, 2, 64, 64), torch.zeros(3, 2, 64, 64))
    own = torch.zeros(3, family.width)
    coarsest = [field for field in family.fields if field.kind == kind and field.channel == 0][-1]
    level = torch.zeros(coarsest.grid, coarsest.grid)
    level[:, : coarsest.alike] = 1.0 if coarsest.alike == coarsest.grid else 2**0.5  # alike on both sides
    own[:, coarsest.span] = level.flatten()
    added, displacement = family.split(images, own, still)
    if kind in DISPLACEMENTS:
        assert float(added.abs().max()) < 1e-6
        assert torch.allclose(displacement[:, 0], torch.tensor(coarsest.unit), atol=1e-4)
        assert torch.allclose(displacement[:, 1], torch.tensor(0.0), atol=1e-6)
        return
    assert float(displacement.abs().max()) == 0
    wanted = {
        "shade": torch.full_like(images, coarsest.unit),
        "contrast": (np.exp(coarsest.unit) - 1) * bands(images)[:, :1],
        "tone": coarsest.unit * 4 * images * (1 - images),
    }[kind]
    assert torch.allclose(added, wanted, atol=1e-4)
    assert torch.equal(apply(images, added, displacement), (images + added).clamp(0, 1)) or kind == "contrast"


def test_contrasts_of_levels_add_up_to_nothing_and_two_are_half_apart() -> None:
    assert contrasts(Variable("sex", ("F", "M"))).flatten().tolist() == pytest.approx([-0.5, 0.5])
    three = contrasts(Variable("race", ("a", "b", "w")))
    assert three.shape == (3, 2)
    assert three.sum(dim=0).abs().max() < 1e-6
    assert contrasts(Variable("age")).tolist() == [[1.0]]


def test_a_difference_is_read_beside_what_is_held_and_every_patient_counts_once() -> None:
    random = np.random.default_rng(0)
    patient = np.repeat(np.arange(300), random.integers(1, 4, 300))
    level, label = random.integers(0, 2, 300), np.zeros(300, dtype=int)
    label[:] = np.where(random.random(300) < 0.8, level, 1 - level)
    frame = pd.DataFrame({"patient_id": patient, "sex": np.array(["F", "M"])[level[patient]], "label": label[patient]})
    conditions = Conditions.of(frame, attributes=("sex",), hold=("label",), coin_seed=0)
    lines = design(conditions, conditions.attributes[0], conditions.encode(frame), patient)
    measured = np.column_stack([2.0 * level[patient] + 5.0 * label[patient], 5.0 * label[patient]]).astype(float)
    assert lines.difference(measured)[0] == pytest.approx([2.0, 0.0], abs=1e-8)
    noisy = random.standard_normal((300, 3))[patient]
    error = np.sqrt((lines.influences(noisy)[0] ** 2).sum(axis=0))
    spread = [lines.difference(random.standard_normal((300, 1))[patient])[0, 0] for _ in range(300)]
    assert error.mean() == pytest.approx(np.std(spread), rel=0.2)


def test_shrinkage_finds_the_block_that_is_there_and_its_draws_cover_the_truth() -> None:
    random = np.random.default_rng(1)
    answers = random.standard_normal((80, 40))
    blocks = np.repeat(np.arange(10), 4)
    truth = np.zeros(40)
    truth[4:8] = (1.0, -1.5, 2.0, 1.0)
    found = shrink(answers, answers @ truth + random.standard_normal(80), blocks, np.ones(40, dtype=bool))
    assert found.mean[4:8] == pytest.approx(truth[4:8], abs=0.6)
    assert np.abs(np.delete(found.mean, np.arange(4, 8))).max() < 0.35
    assert found.evidence > 50
    spread = found.draws(answers, 400, random).std(axis=0)[4:8]
    assert spread == pytest.approx(np.sqrt(1 / 80), rel=0.5)


def test_the_test_of_nothing_keeps_its_level_and_has_power() -> None:
    random = np.random.default_rng(2)
    family = Family(16)
    answers = random.standard_normal((30, family.width)) / 5
    mixing = np.linalg.cholesky(0.5 * np.eye(30) + 0.5)
    found = []
    for _ in range(40):
        influences = random.standard_normal((150, 30)) @ mixing.T
        found.append(shown(family, answers, influences, random.standard_normal((150, 256)), random))
    # Exact binomial: of 40 tests of level .05, more than 8 reject with probability .0001.
    assert np.sum(np.array(found) <= 0.05) <= 8
    still, pixels = random.standard_normal((150, 30)) @ mixing.T, random.standard_normal((150, 256))
    shifted = still + 1.5 * answers[:, family.columns("tone").numpy()][:, 0] / 5**0.5
    assert shown(family, answers, shifted * 3, 0 * pixels, random) <= 0.01
    # What no summary shows is seen in the pixels: a grain in one corner.
    grain = np.zeros((16, 16))
    grain[:4, :4] = np.indices((4, 4)).sum(axis=0) % 2 - 0.5
    assert shown(family, answers, still, pixels + grain.ravel(), random) <= 0.01


def test_tails_are_those_of_a_gamma_distribution() -> None:
    random = np.random.default_rng(0)
    for shape, size in ((0.3, 1e-6), (2.0, 1.0), (60.0, 7.0)):
        drawn = random.gamma(shape, size, 500)
        drawn[0] *= 20
        mean, variance = drawn[1:].mean() + TINY, drawn[1:].var() + TINY
        expected = -gamma.logsf(drawn, mean**2 / variance, scale=variance / mean)
        assert np.array_equal(_tail(drawn), expected)


@pytest.mark.parametrize("patients", [60, 400])
def test_differences_have_unit_errors_also_where_patients_are_fewer_than_numbers(patients: int) -> None:
    random = np.random.default_rng(3)
    mixing = random.standard_normal((200, 10)) * np.linspace(3, 0.3, 10)

    def drawn(count: int) -> np.ndarray:
        return random.standard_normal((count, 10)) @ mixing.T + random.standard_normal((count, 200))

    fresh = Whitening.of(drawn(patients) / patients**0.5)(drawn(400).T)
    assert (fresh**2).mean() == pytest.approx(1.0, abs=0.15)


def test_fine_structure_is_kept_where_it_is_and_nothing_elsewhere() -> None:
    random = np.random.default_rng(4)
    frame = pd.DataFrame({"patient_id": range(200), "sex": np.tile(["F", "M"], 100)})
    conditions = Conditions.of(frame, attributes=("sex",), hold=(), coin_seed=0)
    lines = design(conditions, conditions.attributes[0], conditions.encode(frame), frame["patient_id"])
    images = torch.from_numpy(random.normal(0.5, 0.05, (200, 1, 64, 64)).astype(np.float32))
    forth = torch.zeros(200, 2, 64, 64)
    by_chance = chance(images, forth, lines, random)
    none = differences(images, forth, lines)
    maps, cost = by_chance.shrunk(none, "film")
    assert cost == 0
    assert not maps.any()
    images[1::2, 0, 20:44, 30] += 0.1
    there = differences(images, forth, lines)
    maps, cost = by_chance.shrunk(there, "film")
    assert cost > 0
    assert float(maps[0, 24:40, 30].mean()) > 0.05
    assert float(maps[0, :, :12].abs().max()) < 0.005
    # What an edit takes away counts as fit, and what is placed by maps of half a contrast takes it away.
    images += placed(
        -torch.from_numpy(np.tile([-0.5, 0.5], 100)).float()[:, None], {"film": maps, "atlas": 0 * maps}, forth
    )
    gain = by_chance.fit(there) - by_chance.fit(differences(images, forth, lines))
    assert gain > 0.8 * (by_chance.fit(there) - by_chance.fit(none)) > 20


def test_a_summary_has_the_width_that_is_said() -> None:
    images = chests(2, 6)
    assert summaries(images, torch.zeros(2, 2, 64, 64)).shape == (2, width())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    world = PhantomWorld(size=32, anatomy="varying")
    sample = world.sample(160, seed=11, images_per_patient=(1, 2))
    return sample.write(tmp_path_factory.mktemp("plain"), min_patients_per_level=1)


def planted(cohort: Cohort, folder: Path, *effects: str) -> tuple[SemiRealSample, Cohort]:
    sample = semireal(cohort, effects=effects, size=32, correlation={cohort.labels[0]: 0.4}, seed=5)
    return sample, sample.write(folder, fractions=(0.7, 0.05, 0.25), min_patients_per_level=1)


def fitted(written: Cohort, seed: int = 0) -> EditGenerator:
    generator = EditGenerator(size=32, hold=(written.labels[0],))
    return generator.fit(written.part("train"), seed=seed)


@pytest.fixture(scope="module")
def toned(plain: Cohort, tmp_path_factory: pytest.TempPathFactory) -> tuple[SemiRealSample, Cohort, EditGenerator]:
    sample, written = planted(plain, tmp_path_factory.mktemp("toned"), "tone")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(choice, "FIRST_STEPS", 1)  # of a kind on trial: enough to tell which one was planted
        return sample, written, fitted(written)


def test_an_effect_is_found_and_carried(toned: tuple[SemiRealSample, Cohort, EditGenerator]) -> None:
    sample, written, generator = toned
    report = generator.report["edits"]
    assert report["planted"]["p"] <= ALPHA
    assert report["planted"]["kinds"] == ["tone"]
    test = written.part("test")
    units = sample.take(sample.frame.set_index("image_id").index.get_indexer(test.frame["image_id"]))
    images = test.pixels(np.arange(len(test)), size=32)
    redrawn = generator.generate(images, test.frame, attribute="planted", levels=("less", "more"), draws=2)
    rows = np.arange(len(test))
    assert np.array_equal(redrawn[rows, units.level, 0], images)  # the null intervention is the image
    assert np.array_equal(redrawn[:, :, 0], redrawn[:, :, 1])
    other = np.array(sample.world.levels)[1 - units.level]
    truth = units.counterfactual(list(other), digital=False) - units.images(digital=False)
    change = redrawn[rows, 1 - units.level, 0] - images
    assert np.linalg.norm(change - truth) / np.linalg.norm(truth) < 0.5


def test_the_coin_changes_nothing_and_what_cannot_be_placed_is_left(
    toned: tuple[SemiRealSample, Cohort, EditGenerator],
) -> None:
    _, written, generator = toned
    test = written.part("test")
    images = test.pixels(np.arange(12), size=32)
    frame = test.frame.iloc[:12]
    coin = generator.generate(images, frame, attribute="placebo", levels=generator.attributes["placebo"])
    assert np.array_equal(coin, np.broadcast_to(images[:, None, None], coin.shape))
    turned = np.ascontiguousarray(np.rot90(images, axes=(2, 3)))
    redrawn = generator.generate(turned, frame, attribute="planted", levels=("less", "more"))
    left = np.abs(redrawn - turned[:, None, None]).max(axis=(1, 2, 3, 4, 5)) == 0
    assert left.mean() >= 0.9


def test_replicates_differ_about_the_edit(toned: tuple[SemiRealSample, Cohort, EditGenerator]) -> None:
    _, written, generator = toned
    test = written.part("test")
    images = test.pixels(np.arange(6), size=32)
    frame = test.frame.iloc[:6].reset_index(drop=True)
    moved = generator.edit_by_replicates(images, frame, "planted", ("less", "more"))
    assert moved.shape == (6, 1, 12, 1, 32, 32)
    exact = generator.edit(images, frame, attribute="planted", levels=("more",))
    spread = moved.added.std(axis=2).mean()
    less = (frame["planted"] == "less").to_numpy()
    assert less.any()
    assert 0 < spread < np.abs(exact.added[less]).mean()
    # About the edit itself, whichever level an image has.
    assert np.abs(moved.added[:, 0].mean(axis=1) - exact.added[:, 0]).mean() < spread


def test_what_is_kept_of_an_edit_is_what_it_redraws(
    toned: tuple[SemiRealSample, Cohort, EditGenerator], tmp_path: Path
) -> None:
    _, written, generator = toned
    assert isinstance(generator, EditingGenerator)
    test = written.part("test")
    levels = ("less", "more")
    kept = generate(generator, test, attribute="planted", levels=levels, draws=2, placebo_images=4, out=tmp_path)
    assert all(part.plan.edits for part in kept.sets)
    images = test.pixels(size=32)
    drawn = np.concatenate([shown for _, shown in kept.pictures()])
    direct = generator.generate(images, test.frame, attribute="planted", levels=levels, draws=2)
    assert np.abs(drawn - direct).max() < 0.25 / 255  # less than an 8-bit picture rounds away
    own = (test.frame["planted"] == "more").astype(int).to_numpy()
    assert np.array_equal(drawn[np.arange(len(test)), own, 0], images)
    large = np.concatenate([shown for _, shown in kept.pictures(75)])
    assert np.array_equal(large[np.arange(len(test)), own, 1], test.pixels(size=75))
    assert kept.replicates is not None
    assert not kept.replicates.plan.alike


def test_a_saved_generator_draws_the_same(toned: tuple[SemiRealSample, Cohort, EditGenerator], tmp_path: Path) -> None:
    _, written, generator = toned
    generator.save(tmp_path)
    again = load_generator(tmp_path)
    assert again.fingerprint() == generator.fingerprint()
    test = written.part("test")
    images = test.pixels(np.arange(5), size=32)
    both = [
        one.generate(images, test.frame.iloc[:5], attribute="planted", levels=("less", "more"))
        for one in (generator, again)
    ]
    assert np.array_equal(*both)


def test_where_patients_are_left_out_they_are_left_out_whole() -> None:
    patients = np.repeat(np.arange(40), 3)
    rows = some_rows(patients, 50, 0)
    assert len(rows) == 48
    assert set(np.unique(patients[rows], return_counts=True)[1]) == {3}
    assert sorted(some_rows(patients, 500, 0)) == list(range(120))


@pytest.mark.parametrize("images", [(10,) * 6, (40, *(1,) * 12), (60,)])
def test_few_patients_and_one_with_most_images_are_learnt_from(images: tuple[int, ...]) -> None:
    patients = np.repeat(np.arange(len(images)), images)
    if len(images) > 1:
        row = half_of(patients)
        assert 0 < row < len(patients)
        assert patients[row] != patients[row - 1]
    frame = pd.DataFrame({"patient_id": patients, "sex": np.where(patients % 2, "F", "M")})
    if len(images) == 1:
        frame["sex"] = np.tile(["F", "M"], 30)
    conditions = Conditions.of(frame, attributes=("sex",), hold=(), coin_seed=0)
    variable, codes = conditions.attributes[0], conditions.encode(frame)
    films = chests(len(patients), 5)
    atlas = build_atlas(films)
    family = Family(64)
    lines = design(conditions, variable, codes, patients)
    own, alone = coded(conditions, variable, codes), of_one(conditions, variable)
    every = Cases(family, atlas, films, frame_of(films, atlas), own, lines, alone, codes[:, :3])
    table = np.random.default_rng(0).standard_normal((width(), family.width))
    found = find(
        lambda: pytest.fail("nothing is shown, and yet halves were cut"), every, table, np.random.default_rng(1), 0
    )
    assert found.kinds == ()


def test_a_half_in_which_nobody_varies_has_an_error() -> None:
    signals = np.random.default_rng(0).standard_normal((30, 2))
    assert np.isfinite(Whitening.of(np.zeros((8, 30)))(signals)).all()
    assert np.isfinite(Whitening.of(np.random.default_rng(1).standard_normal((2, 30)))(signals)).all()


def turned(part: Cohort, folder: Path, every: int) -> tuple[Cohort, set[str]]:
    """Write a cohort anew with one image in so many on its side; give their names."""
    rows = np.arange(0, len(part), every)
    for row, path in enumerate(part.frame["path"]):
        image = part.pixels([row], size=32)[0]
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(encode_png(np.rot90(image, axes=(1, 2)).copy() if row in rows else image))
    return replace(part, root=folder), set(part.frame["image_id"].iloc[rows].astype(str))


def test_test_images_that_cannot_be_placed_are_counted_and_named(
    toned: tuple[SemiRealSample, Cohort, EditGenerator], tmp_path: Path
) -> None:
    _, written, generator = toned
    test, lost = turned(written.part("test"), tmp_path / "images", 7)
    said = Console(file=io.StringIO(), width=400)
    kept = generate(
        generator, test, attribute="planted", draws=2, placebo_images=0, out=tmp_path / "out", shard=20,
        narrator=Narrator(quiet=False, console=said),
    )  # fmt: skip
    named = kept.main.not_placed()
    assert named is not None
    assert len(lost & {*named}) >= 0.9 * len(lost)
    # They, and nobody else, are the images that no level changes.
    edits = generator.edit(test.pixels(size=32), test.frame, attribute="planted", levels=("less", "more"))
    still = (edits.added == 0).all(axis=(1, 2, 3, 4)) & (edits.displacement == 0).all(axis=(1, 2, 3, 4))
    assert list(named) == test.frame["image_id"].astype(str)[still].tolist()
    line = f"{len(named)} of {len(test)}, {', '.join(named[:5])}"
    assert f"and are left as they are: {line}" in said.file.getvalue()
    # Of a run that is finished already, it is said again.
    again = Console(file=io.StringIO(), width=400)
    generate(
        generator, test, attribute="planted", draws=2, placebo_images=0, out=tmp_path / "out", shard=20,
        narrator=Narrator(quiet=False, console=again),
    )  # fmt: skip
    assert line in again.file.getvalue()
    found = assess_faithfulness(
        kept, written.part("train"), written.part("validation"), QualitySettings((), probe_steps=2, cycles=1)
    )
    found.save(tmp_path / "quality")
    assert read_faithfulness(tmp_path / "quality").quality.not_placed == len(named)


def test_training_images_that_cannot_be_placed_are_named_and_where_nothing_is_planted_nothing_is_changed(
    plain: Cohort, tmp_path: Path
) -> None:
    _, written = planted(plain, tmp_path / "plain")
    train, lost = turned(written.part("train"), tmp_path / "turned", 20)
    said = Console(file=io.StringIO(), width=400)
    generator = EditGenerator(size=32, hold=(written.labels[0],))
    generator.fit(train, seed=0, narrator=Narrator(quiet=False, console=said))
    assert generator.report["edits"]["planted"]["kinds"] == []
    assert float(generator.edits.coefficients.abs().max()) == 0
    count = generator.report["edits"]["not_placed"]
    (line,) = [one for one in said.file.getvalue().splitlines() if "training images that cannot be brought" in one]
    assert f": {count} of " in line
    assert count >= 3
    assert {*line.split(": ")[-1].split(" and ")[0].split(", ")[1:]} <= {*train.frame["image_id"].astype(str)}
    assert sum(name in line for name in lost) >= 3
