"""`citlr reproduce morphomnist`: run as a user does on drawn digits, and its measures on what is known."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from as_user import citlr
from digits import drawn_digits, drawn_mnist, write_npz
from PIL import Image

from citlr.errors import InputError
from citlr.generators.conditions import Conditions
from citlr.generators.registry import build_generator
from citlr.simulators.morphomnist.files import Digits
from citlr.simulators.morphomnist.world import ATTRIBUTES, sample_digits
from citlr.studies.morphomnist.measure import composition, minimality
from citlr.studies.morphomnist.study import entrants

MODELS = ("exact", "unchanged", "vae")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("morphomnist")
    write_npz(folder, drawn_mnist(240, 20))
    return folder


def command(place: Path, *more: str):
    chosen = [word for name in MODELS for word in ("--model", name)]
    words = ["reproduce", "morphomnist", "digits.npz", "--preset", "smoke", "--out", "out", *chosen]
    return citlr(*words, *more, cwd=place)


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    done = command(place, "--page", "docs/page.md", "-q")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "out/morphomnist.json", "out/morphomnist.md", "out/morphomnist.png", "docs/page.md", "docs/morphomnist.png"
    ]  # fmt: skip
    return place / "out"


def table(run: Path, name: str) -> dict[str, list[str]]:
    return {line[0]: line[1:] for line in csv.reader((run / "tables" / f"{name}.csv").read_text().splitlines())}


def test_published_rows_stand_beside_ours_and_are_marked(run: Path) -> None:
    rows = table(run, "composition")
    assert rows["HVAE"][:3] == ["published", "0.438", "1.550"]
    assert set(rows["VAE"][1:] + rows["GAN"][1:]) == {"not at hand"}
    assert {rows[name][0] for name in MODELS} == {"measured here"}
    assert table(run, "realism")["HVAE"][1] == "5.36"
    page = (run / "morphomnist.md").read_text()
    assert "Melistas et al. 2024" in page
    assert "CC BY-SA 3.0" in page
    assert page == (run.parent / "docs" / "page.md").read_text()
    for name in ("composition", "realism", "effectiveness_thickness", "truth_intensity", "cost"):
        assert (run / "tables" / f"{name}.md").read_text().strip() in page
    with Image.open(run.parent / "docs" / "morphomnist.png") as picture:
        assert picture.size[0] > 500


def test_the_exact_counterfactual_is_the_floor_and_the_original_does_nothing(run: Path) -> None:
    content = json.loads((run / "morphomnist.json").read_text())
    rows = {row["model"]: row for row in content["rows"]}
    assert list(rows) == list(MODELS)
    exact, unchanged, vae = rows.values()
    for name in ATTRIBUTES:
        assert exact["truth"][name]["l1"] == 0
        assert exact["truth"][name]["cosine"] == pytest.approx(1)
        assert unchanged["truth"][name]["relative_error"] == pytest.approx(1)
        assert exact["effectiveness"][name]["measured"][name] < unchanged["effectiveness"][name]["measured"][name] / 3
    assert exact["composition"] == unchanged["composition"] == {"1": 0, "10": 0}
    assert exact["reversibility"] == 0
    assert vae["composition"]["1"] > 1
    assert exact["seconds_per_1000"] > 0
    assert vae["fit_seconds"] > 0
    assert all(0 <= row["minimality"] <= 1 for row in rows.values())


def test_a_run_goes_on_with_the_same_numbers(run: Path) -> None:
    before, made = (run / "morphomnist.json").read_bytes(), (run / "models" / "vae" / "config.json").stat().st_mtime_ns
    assert command(run.parent).returncode == 0
    assert (run / "morphomnist.json").read_bytes() == before
    assert (run / "models" / "vae" / "config.json").stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.npz"], "There is no 'nothing.npz'"),
        (["digits.npz", "--preset", "smok"], "There is no preset 'smok'. Did you mean 'smoke'?"),
        (["digits.npz", "--preset", "full"], "There are 240 training and 20 test digits"),
        (["digits.npz", "--features", "resnet"], "There is no feature extractor 'resnet'"),
    ],
)
def test_bad_input_is_one_sentence(place: Path, words: list[str], said: str) -> None:
    done = citlr("reproduce", "morphomnist", *words, "--out", "other", "-q", cwd=place)
    assert done.returncode == 2
    assert done.stderr.startswith(f"citlr: {said}")
    assert done.stderr.count("\n") == 1


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(InputError, match="There is no model 'hvae' in the comparison"):
        entrants(("hvae",))


def test_composition_counts_grey_values_over_ten_cycles() -> None:
    test = sample_digits(Digits(*drawn_digits(10, seed=3)), 10, name="t", seed=0)
    measures = SimpleNamespace(study=SimpleNamespace(test=test), images=np.zeros((10, 1, 32, 32)), cycled=4, seed=0)
    found = composition(measures, lambda images, *_: images + 2 / 255)  # type: ignore[arg-type]
    assert found == pytest.approx({"1": 2, "10": 20})


def test_minimality_is_least_for_a_change_that_only_crosses_the_border() -> None:
    """Features are the grey value itself, groups its halves: images at .1, .4 and .9, of which the first is moved."""
    values = np.array([0.1, 0.4, 0.6, 0.9])
    test = SimpleNamespace(thickness=values, intensity=values)
    study = SimpleNamespace(
        test=test,
        targets={name: (np.array([0.6, 0.6, 0.1, 0.1]),) * 2 for name in ATTRIBUTES},
        group=lambda name, numbers: np.digitize(numbers, [0.5]),
    )

    def divergence(moved: list[float]) -> float:
        measures = SimpleNamespace(
            study=study, features=lambda x: x[:, 0, 0], images=values[:, None, None, None], chosen=np.zeros(4, int)
        )
        return minimality(measures, np.array(moved)[:, None, None, None])  # type: ignore[arg-type]

    # Nobody of the other half is as near as .45 away from .1, and only the image at .4 is so near to itself.
    near, far = divergence([0.55, 0.55, 0.45, 0.45]), divergence([1.0, 1.0, 0.0, 0.0])
    assert near < far <= 1


@pytest.mark.parametrize("kind", ["vae", "cldm"])
def test_every_image_can_have_a_level_of_its_own(tmp_path: Path, kind: str) -> None:
    sample = sample_digits(Digits(*drawn_digits(40, seed=3)), 40, name="t", seed=0)
    sample.write(tmp_path)
    cohort = sample.cohort(tmp_path)
    few = {"ae_steps": 2, "denoiser_steps": 2, "unet_channels": (16, 16)} if kind == "cldm" else {"steps": 2}
    generator = build_generator(kind, size=32, preset="tiny", hold=("digit",), **few)
    generator.fit(cohort.take(np.arange(0, 40, 2)), cohort.take(np.arange(1, 40, 2)))
    images, frame = sample.images()[:3], cohort.frame.iloc[:3]
    width, grey = np.array([1.5, 3.0, 5.0]), np.array([90.0, 180.0, 250.0])
    asked = {"attribute": ATTRIBUTES, "draws": 2, "seed": 1}
    together = generator.generate(images, frame, levels=[(width, grey)], **asked)
    for row in range(3):
        levels = [(str(width[row]), str(grey[row]))]
        alone = generator.generate(images[[row]], frame.iloc[[row]], levels=levels, **asked)
        assert np.allclose(together[row], alone[0], atol=1e-5)
    assert np.abs(together[0, 0, 0] - together[0, 0, 1]).max() > 0
    with pytest.raises(InputError, match=r"array of the shape \(2,\), and there are 3 images"):
        generator.generate(images, frame, levels=[(width[:2], grey)], **asked)


def test_values_of_one_image_are_those_of_all_its_draws() -> None:
    frame = sample_digits(Digits(*drawn_digits(20, seed=3)), 20, name="t", seed=0).frame
    conditions = Conditions.of(frame, attributes=ATTRIBUTES, hold=(), coin_seed=0)
    codes = conditions.encode(frame.iloc[:2]).repeat_interleave(3, dim=0)
    changed = conditions.intervene(codes, "thickness", np.array([1.0, 4.0]))
    span = conditions.span("thickness")
    assert torch.unique(changed[:3, span.start]).numel() == 1
    assert (changed[3:, span.start] > changed[:3, span.start]).all()
