"""The alignment of what edits leave: taken where it brings left-out patients closer, redrawn, saved, and in doubt."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter

from citlr.audit.generation import generate
from citlr.audit.measures.faithfulness import QualitySettings, assess_faithfulness
from citlr.data.cohort import Cohort
from citlr.generators.conditions import Conditions
from citlr.generators.edits import choice
from citlr.generators.edits.composition import Middle
from citlr.generators.edits.estimate import Blend, Cases, Edit
from citlr.generators.edits.family import Family, Frame
from citlr.generators.edits.generator import EditGenerator
from citlr.generators.effects.aligned import ALIGNMENT, Aligned, of_one
from citlr.generators.effects.contrasts import coded, design
from citlr.generators.effects.whitening import decomposed
from citlr.generators.registry import load_generator
from citlr.generators.request import Request
from citlr.learning.checkpoints import load_module, save_state
from citlr.randomness import PLACEBO
from citlr.simulators.phantom import PhantomWorld
from citlr.simulators.phantom.sample import PhantomSample

SEX = ("female", "male")


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> tuple[PhantomSample, Cohort, EditGenerator]:
    """Chests that lie on top of each other: what sex does to them is nearly one map of pixels."""
    sample = PhantomWorld(size=32, correlation=0.3).sample(430, seed=21, images_per_patient=1)
    cohort = sample.write(tmp_path_factory.mktemp("chests"), fractions=(0.7, 0.05, 0.25), min_patients_per_level=1)
    generator = EditGenerator(size=32, hold=("view", "cardiomegaly"))
    with pytest.MonkeyPatch.context() as patched:
        # Only fine structure is tried kind by kind: the search, which has tests of its own, takes half a minute.
        patched.setattr(choice, "PROMISING", 10.0)
        return sample, cohort, generator.fit(cohort.part("train"), seed=0)


def error(sample: PhantomSample, cohort: Cohort, generator: EditGenerator) -> float:
    test = cohort.part("test")
    units = sample.take(sample.frame.set_index("image_id").index.get_indexer(test.frame["image_id"]))
    images = test.pixels(np.arange(len(test)), size=32)
    redrawn = generator.generate(images, test.frame, attribute="sex", levels=SEX)[:, :, 0]
    rows = np.arange(len(test))
    own = (test.frame["sex"] == SEX[1]).to_numpy().astype(int)
    assert np.array_equal(redrawn[rows, own], images)  # the null intervention is the image
    truth = np.stack([units.counterfactual(level) for level in SEX], axis=1)[rows, 1 - own] - images
    return float(np.linalg.norm(redrawn[rows, 1 - own] - images - truth) / np.linalg.norm(truth))


def test_it_is_taken_where_bodies_lie_on_top_of_each_other(chests: tuple[PhantomSample, Cohort, EditGenerator]) -> None:
    sample, cohort, generator = chests
    report = generator.report["edits"]
    assert report["sex"]["kinds"][-1] == ALIGNMENT
    assert report["sex"]["left"][ALIGNMENT] < 0.5
    assert report["placebo"]["kinds"] == []
    found = error(sample, cohort, generator)
    assert found < 0.75
    aligned = generator.edits.aligned
    generator.edits.aligned = torch.nn.ModuleDict()
    try:
        without = error(sample, cohort, generator)
    finally:
        generator.edits.aligned = aligned
    assert without > found + 0.2


def test_it_is_kept_with_the_generator(chests: tuple[PhantomSample, Cohort, EditGenerator], tmp_path: Path) -> None:
    _, cohort, generator = chests
    generator.save(tmp_path)
    again = load_generator(tmp_path)
    assert again.fingerprint() == generator.fingerprint()
    frame, images = cohort.part("test").frame.iloc[:9], cohort.part("test").pixels(np.arange(9), size=32)
    both = [one.generate(images, frame, attribute="sex", levels=SEX) for one in (generator, again)]
    assert np.array_equal(*both)
    assert not np.array_equal(both[0][:, 0], both[0][:, 1])


def test_guidance_weighs_it_and_replicates_are_off_where_the_attribute_acts(
    chests: tuple[PhantomSample, Cohort, EditGenerator],
) -> None:
    _, cohort, generator = chests
    frame, images = cohort.part("test").frame.iloc[:9], cohort.part("test").pixels(np.arange(9), size=32)
    whole, half = (generator.change(images, frame, Request(("sex",), SEX, guidance=weight)) for weight in (1.0, 0.5))
    assert np.allclose(half.added, whole.added / 2, atol=2e-3)
    replicates = generator.edit_by_replicates(images, frame, "sex", SEX)
    off = replicates.added[:, 0] - whole.added[:, 1][:, None]
    acts = generator.edits.aligned["0"].support.anywhere()[0].numpy() > 0  # type: ignore[union-attr, operator]
    assert float(off[..., acts].std(axis=1).mean()) > 1e-4


def test_replicates_lie_about_edits_of_the_same_weight(
    chests: tuple[PhantomSample, Cohort, EditGenerator], tmp_path: Path
) -> None:
    """Else what a model makes of them is off by the whole difference of the weights."""
    _, cohort, generator = chests
    few = cohort.part("test").take(np.arange(12))
    for weight in (0.5, 2.0):
        drawn = generate(
            generator,
            few,
            attribute="sex",
            guidance=weight,
            placebo_images=0,
            replicate_images=12,
            out=tmp_path / str(weight),
        )
        assert drawn.replicates is not None
        main, moved = (
            np.concatenate([shard.drawn.added for shard in own.shards()])  # type: ignore[union-attr]
            for own in (drawn.main, drawn.replicates)
        )
        place = [drawn.main.plan.image_ids.index(name) for name in drawn.replicates.plan.image_ids]
        first, off = main[place, 0, 0], moved[:, 0] - main[place, 1, :1]
        moves = few.frame["sex"].to_numpy() == SEX[0]
        assert np.abs(off.mean(axis=1)[moves]).mean() < 0.3 * np.abs(main[place, 1, 0] - first)[moves].mean()
        spread = float(off.std(axis=1).mean())
        exact = generator.edit_by_replicates(few.pixels(size=32), few.frame, "sex", SEX).added[:, 0]
        assert spread == pytest.approx(weight * float(exact.std(axis=1).mean()), rel=0.05)


@pytest.mark.parametrize("whole", [(), ("contrast", "displacement")])
def test_a_blend_is_the_average_and_is_kept(
    chests: tuple[PhantomSample, Cohort, EditGenerator], tmp_path: Path, whole: tuple[str, ...]
) -> None:
    """Of the alignment of what the kinds that stay whole leave, a share, and of the other kinds the rest."""
    _, cohort, trained = chests
    frame, images = cohort.part("test").frame.iloc[:9], cohort.part("test").pixels(np.arange(9), size=32)
    trained.save(tmp_path / "trained")
    random, request = np.random.default_rng(8), Request(("sex",), SEX)
    planted = torch.from_numpy(0.3 * random.standard_normal(trained.family.width)).float()

    def drawn(share: float | None, taken: dict[str, float], folder: str = "") -> np.ndarray:
        """What is added, where edits of some kinds are there, weighted, beside the alignment."""
        generator = load_generator(tmp_path / "trained")
        assert isinstance(generator, EditGenerator)
        generator._blends = {} if share is None else {"sex": Blend(whole, share)}
        generator.edits.in_atlas.zero_()
        generator.edits.on_film.zero_()
        generator.edits.coefficients.zero_()
        for kind, weight in taken.items():
            own = generator.family.columns(kind)
            generator.edits.coefficients[generator._spans["sex"]] += weight * torch.where(own, planted, 0.0)
        if not (set(whole) or share is not None):
            generator.edits.aligned = torch.nn.ModuleDict()
        if folder:
            generator.save(tmp_path / folder)
            again = load_generator(tmp_path / folder)
            assert again.fingerprint() == generator.fingerprint()
            generator = again  # type: ignore[assignment]
        return generator.change(images, frame, request).added

    kinds = dict.fromkeys((*whole, "shade"), 1.0)
    blended = drawn(0.25, kinds | {"shade": 0.75}, "blend")
    alone = drawn(1.0, kinds | {"shade": 0.0})
    edits = drawn(0.0, kinds)
    assert np.allclose(blended, 0.25 * alone + 0.75 * edits, atol=1e-5)
    assert np.abs(blended - edits).max() > 1e-3
    own = np.array([SEX.index(level) for level in frame["sex"]])
    assert not blended[np.arange(9), own].any()


def test_replicates_of_a_blend_are_as_wide_as_if_both_erred_alike(
    chests: tuple[PhantomSample, Cohort, EditGenerator],
) -> None:
    _, cohort, trained = chests
    images, number = (
        torch.from_numpy(cohort.part("test").pixels(np.arange(4), size=32)),
        next(iter(trained.edits.aligned)),
    )
    aligned = trained.edits.aligned[number]
    assert isinstance(aligned, Aligned)
    codes = aligned.conditions.encode(cohort.part("test").frame.iloc[:4])
    first, other = (aligned.conditions.intervene(codes, "sex", level) for level in SEX)
    still, columns = torch.zeros(4, 2, 32, 32), list(range(aligned.conditions.width))
    whole, part = (Middle(aligned, columns, images, codes, still, share).errors(other, first) for share in (1.0, 0.25))
    assert torch.allclose(part, 0.5 * whole)
    assert part.any()


def test_kinds_that_stay_whole_are_drawn_whole_and_the_others_by_the_root_of_their_share(
    chests: tuple[PhantomSample, Cohort, EditGenerator], tmp_path: Path
) -> None:
    chests[2].save(tmp_path)
    generator = load_generator(tmp_path)
    assert isinstance(generator, EditGenerator)
    rows, width = generator._spans["sex"], generator.family.width
    found: Any = SimpleNamespace(
        kinds=("contrast", "shade", ALIGNMENT),
        edit=Edit.none(1, generator.family),
        aligned=None,
        blend=Blend(("contrast",), 0.75),
        p=0.001,
        left={},
        draws=lambda count, random: random.standard_normal((count, 1, width)),
    )
    generator._keep(generator.conditions.attribute("sex"), found, np.random.default_rng(0))
    spread = generator.edits.draws[:, rows].pow(2).mean(dim=(0, 1))
    for kind, expected in (("contrast", 1.0), ("shade", 0.25)):
        assert float(spread[generator.family.columns(kind)].mean()) == pytest.approx(expected, rel=0.15)


def test_an_audit_tells_which_kinds_were_kept(
    chests: tuple[PhantomSample, Cohort, EditGenerator], tmp_path: Path
) -> None:
    _, cohort, trained = chests
    trained.save(tmp_path / "generator")
    generator = load_generator(tmp_path / "generator")
    few = cohort.part("test").take(np.arange(24))
    drawn = generate(generator, few, attribute="sex", placebo_images=0, replicate_images=0, out=tmp_path / "drawn")
    for found, said in (
        ({"kinds": ["shade", "film"], "p": 0.001}, "shade and fine structure on the film (p = 0.001)."),
        (
            {"kinds": ["shade", ALIGNMENT], "p": 0.001, "blend": {"whole": [], "share": 0.25}},
            "shade, averaged with the alignment (its share is 25%) (p = 0.001).",
        ),
        ({"kinds": [], "p": 0.53}, "nothing is shown (p = 0.530)."),
    ):
        generator.report["edits"]["sex"] = found
        asked = QualitySettings((), probe_steps=2, cycles=1)
        told = assess_faithfulness(drawn, cohort.part("train"), cohort.part("validation"), asked).quality.notes
        beginning = "Edits of 'sex', of the kinds that brought left-out training patients closer: "
        assert [note.removeprefix(beginning) for note in told if note.startswith(beginning)] == [said]


def test_a_number_and_what_is_beside_it() -> None:
    """Of an age only the mean effect is aligned; another attribute beside it is held."""
    random = np.random.default_rng(3)
    age, sex = random.normal(60, 10, 400), np.array(["F", "M"])[random.integers(0, 2, 400)]
    frame = pd.DataFrame({"patient_id": np.arange(400), "age": age, "sex": sex})
    conditions = Conditions.of(frame, attributes=("age", "sex"), hold=(), coin_seed=0)
    alone = of_one(conditions, conditions.attribute("age"))
    assert [variable.name for variable in alone.variables] == ["age", "sex"]
    pixels = 0.5 + 0.02 * random.standard_normal((400, 1, 16, 16))
    where = np.zeros((16, 16))
    where[4:12, 4:12] = 1
    pixels += where * ((age - 60) / 10 * 0.05 + 0.1 * (sex == "M"))[:, None, None, None]
    images, codes = torch.from_numpy(pixels).float(), alone.encode(frame)
    aligned = (
        Aligned(alone, 1, 16)
        .fit(images, codes, seed=0, patients=frame["patient_id"])
        .doubt(images, frame["patient_id"], codes, seed=0)
    )
    older = alone.intervene(codes, ("age",), 70.0)
    change = aligned.change(images, codes, older)[:, 0]
    expected = (70 - age) / 10 * 0.05
    assert np.allclose(change[:, 7, 7], expected, atol=0.02)
    assert not change[:, 0, 0].any()
    assert not aligned.change(images, codes, codes).any()
    younger = alone.intervene(codes, ("age",), 50.0)
    off = aligned.errors(older[:1], younger[:1])
    # Two standard deviations of age: twice the standard error of a slope.
    assert 0.3 < float(off[:, 0, 0, 6:10, 6:10].std()) / (2 * 0.02 / 400**0.5) < 3


def test_where_another_attribute_is_asked_for_nothing_is_changed() -> None:
    """Neither by what covariances nor by what both do together; asked for together, each adds its own."""
    random = np.random.default_rng(3)
    age, male = random.normal(60, 10, 1500), random.integers(0, 2, 1500)
    frame = pd.DataFrame({"patient_id": np.arange(1500), "age": age, "sex": np.array(["F", "M"])[male]})
    conditions = Conditions.of(frame, attributes=("age", "sex"), hold=(), coin_seed=0)
    varied = np.einsum(
        "n,nk,kyx->nyx", 0.03 * (1 + male), random.standard_normal((1500, 5)), random.standard_normal((5, 16, 16))
    )
    mean = 0.05 * male + (age - 60) / 10 * (0.05 + 0.04 * male)
    pixels = 0.5 + (varied + mean[:, None, None] + 0.01 * random.standard_normal((1500, 16, 16)))[:, None]
    images, codes = torch.from_numpy(pixels).float(), conditions.encode(frame)
    alone = of_one(conditions, conditions.attribute("sex"))
    columns = conditions.columns(alone.variables)
    aligned = Aligned(alone, 1, 16).fit(images, codes[:, columns], seed=0, patients=frame["patient_id"])
    older, men, both = (
        conditions.intervene(codes, names, level)[:, columns]
        for names, level in (("age", 80.0), ("sex", "M"), (("age", "sex"), (80.0, "M")))
    )
    assert not aligned.change(images, codes[:, columns], older).any()
    assert torch.equal(*(aligned.change(images, codes[:, columns], one) for one in (men, both)))
    assert aligned.change(images, codes[:, columns], men).any()


def test_what_shows_of_the_coin_is_aligned_and_kept(tmp_path: Path) -> None:
    """By chance the coin shows something in one training of a hundred, and its audit has to see what is invented."""
    random = np.random.default_rng(4)
    frame = pd.DataFrame({"patient_id": np.arange(400), "sex": np.array(["F", "M"])[random.integers(0, 2, 400)]})
    conditions = Conditions.of(frame, attributes=("sex",), hold=(), coin_seed=0)
    coin = conditions.attribute(PLACEBO)
    alone = of_one(conditions, coin)
    codes = conditions.encode(frame)[:, conditions.columns(alone.variables)]
    where = np.zeros((16, 16))
    where[4:12, 4:12] = 0.1
    pixels = 0.5 + 0.02 * random.standard_normal((400, 1, 16, 16)) + where * codes[:, 1].numpy()[:, None, None, None]
    images = torch.from_numpy(pixels).float()
    aligned = (
        Aligned(alone, 1, 16)
        .fit(images, codes, seed=0, patients=frame["patient_id"])
        .doubt(images, frame["patient_id"], codes, seed=0)
    )
    heads, tails = (alone.intervene(codes, PLACEBO, level) for level in coin.levels)
    change = aligned.change(images, codes, tails) - aligned.change(images, codes, heads)
    assert np.allclose(change[:, 0, 7, 7], 0.1, atol=0.02)
    assert not change[:, 0, 0].any()
    assert float(aligned.errors(tails[:1], heads[:1]).abs().max()) > 0
    save_state(tmp_path / "aligned.safetensors", aligned.state_dict(), {})
    load_module(again := Aligned(alone, 1, 16), tmp_path / "aligned.safetensors")
    assert torch.equal(again.change(images, codes, tails), aligned.change(images, codes, tails))


@pytest.mark.parametrize("hold", [(), ("age",)])
def test_a_number_acts_no_further_than_in_edits(hold: tuple[str, ...]) -> None:
    """An age of 414 years is a slip, whether it is asked for, recorded, or held beside what is asked for."""
    random = np.random.default_rng(5)
    age, male = random.normal(60, 10, 3000), random.integers(0, 2, 3000)
    age[0] = 414
    frame = pd.DataFrame({"patient_id": np.arange(3000), "age": age, "sex": np.array(["F", "M"])[male]})
    attributes = ("sex",) if hold else ("age",)
    conditions = Conditions.of(frame, attributes=attributes, hold=hold, coin_seed=0)
    alone = of_one(conditions, conditions.attributes[0])
    mean = 0.05 * male * (1 + (np.minimum(age, 90) - 60) / 10 * 0.5) if hold else (np.minimum(age, 90) - 60) / 10 * 0.02
    pixels = 0.5 + (mean[:, None, None] + 0.01 * random.standard_normal((3000, 16, 16)))[:, None]
    images, codes = torch.from_numpy(pixels).float(), alone.encode(frame)
    aligned = (
        Aligned(alone, 1, 16)
        .fit(images, codes, seed=0, patients=frame["patient_id"])
        .doubt(images, frame["patient_id"], codes, seed=0)
    )
    levels = ("F", "M") if hold else (60.0, 414.0)
    first, other = (alone.intervene(codes, attributes[0], level) for level in levels)
    change = aligned.change(images, codes, other) - aligned.change(images, codes, first)
    assert 0.04 < float(change[0].mean()) < 0.15
    if not hold:
        assert not aligned.change(images, codes, other)[0].any()  # 414 years are what it has
        assert torch.equal(aligned.errors(other, first), aligned.errors(alone.intervene(codes, "age", 300.0), first))


def test_replicates_are_off_by_the_value_that_each_image_is_given() -> None:
    random = np.random.default_rng(6)
    age = random.normal(60, 10, 400)
    frame = pd.DataFrame({"patient_id": np.arange(400), "age": age})
    conditions = Conditions.of(frame, attributes=("age",), hold=(), coin_seed=0)
    alone = of_one(conditions, conditions.attribute("age"))
    pixels = 0.5 + ((age - 60) / 10 * 0.05)[:, None, None, None] + 0.02 * random.standard_normal((400, 1, 16, 16))
    images, codes = torch.from_numpy(pixels).float(), alone.encode(frame)
    aligned = (
        Aligned(alone, 1, 16)
        .fit(images, codes, seed=0, patients=frame["patient_id"])
        .doubt(images, frame["patient_id"], codes, seed=0)
    )
    some = slice(0, 3)
    first, each = (alone.intervene(codes[some], "age", value) for value in (60.0, np.array([60.0, 65.0, 70.0])))
    still = Middle(aligned, list(range(alone.width)), images[some], codes[some], torch.zeros(3, 2, 16, 16))
    off = still.errors(each, first)
    assert not off[0].any()
    assert off[1].any()
    assert torch.allclose(off[2], 2 * off[1], atol=1e-6)


def test_where_it_acts_is_asked_of_patients() -> None:
    random = np.random.default_rng(7)
    patient = np.repeat(np.arange(100), 8)
    frame = pd.DataFrame({"patient_id": patient, "sex": np.array(["F", "M"])[random.integers(0, 2, 100)][patient]})
    conditions = Conditions.of(frame, attributes=("sex",), hold=(), coin_seed=0)
    sex, codes, still = conditions.attribute("sex"), conditions.encode(frame), torch.zeros(800, 2, 16, 16)
    bodies = 0.5 + gaussian_filter(random.standard_normal((100, 1, 16, 16)), (0, 0, 2, 2))[patient]
    bodies += 0.05 * random.standard_normal(bodies.shape)
    family, own = Family(16), coded(conditions, sex, codes)
    cases = Cases(
        family,
        torch.zeros(1, 2, 16, 16),
        torch.from_numpy(bodies).float(),
        Frame(still, still),
        own,
        design(conditions, sex, codes, patient),
        of_one(conditions, sex),
        codes[:, :3],
    )
    assert not cases.aligned(Edit.none(1, family), 0).support.anywhere().any()


def test_a_decomposition_that_divide_and_conquer_ends_on_nothing_is_made_another_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of the summaries of 375 chests of 32 pixels on one processor: LAPACK said that it does not converge."""
    matrix = np.random.default_rng(5).standard_normal((30, 40))
    plain = decomposed(matrix)

    def lost(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", lost)
    left, size, right = decomposed(matrix)
    assert np.allclose(size, plain[1])
    assert np.allclose(left * size @ right, matrix)
