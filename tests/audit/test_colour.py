"""Colour through the whole chain: generators, models, gallery, a closed model's pictures, and a verdict by the page."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import colours
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from as_user import citlr
from pages import ROOT, commands
from PIL import Image
from torch import nn

import citlr as package
from citlr.audit.redrawing.pictures import Pictures
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import CounterfactualSet
from citlr.data.images import encode_png, interleaved
from citlr.errors import InputError
from citlr.exchange.closed import encode, export_blind
from citlr.generators.probes.linear import describe
from citlr.generators.probes.probe import load_probes
from citlr.generators.probes.training import ProbeSettings, fit_probes
from citlr.generators.quality.features import Extractor
from citlr.generators.quality.measures import effect_map
from citlr.generators.quality.meter import QualityMeter
from citlr.generators.registry import build_generator, load_generator
from citlr.predictors.export import export_program, make_card
from citlr.predictors.loading import load_predictor
from citlr.predictors.specs import InputSpec
from citlr.report.charts.gallery import Gallery, Strip
from citlr.report.charts.gallery import encode as encode_gallery

PAGE = (ROOT / "docs" / "colour.md").read_text(encoding="utf-8")
QUIET = Narrator(quiet=True)
LEVELS = ["female", "male"]
SHORT: dict[str, dict[str, Any]] = {
    "dldm": {"ae_steps": 20, "ae_channels": [8], "unet_channels": [16, 16], "denoiser_steps": 10},
    "cldm": {"ae_steps": 5, "ae_channels": [8], "unet_channels": [16, 16], "denoiser_steps": 5},
    "vae": {"steps": 5},
    "latent-shift": {"autoencoder": {"ae_steps": 5, "ae_channels": [8]}, "probe_steps": 5},
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return colours.cohort(tmp_path_factory.mktemp("colour"), 200)


@pytest.mark.parametrize("kind", SHORT)
def test_generators_redraw_red_green_and_blue(cohort: Cohort, kind: str, tmp_path: Path) -> None:
    train, validation = cohort.part("train"), cohort.part("validation")
    model = build_generator(kind, size=32, preset="tiny", **SHORT[kind]).fit(train, validation, narrator=QUIET)
    some = cohort.part("test").take(np.arange(6))
    images = some.pixels(size=32)
    drawn = model.generate(images, some.frame, attribute="sex", levels=LEVELS, draws=2)
    assert drawn.shape == (6, 2, 2, 3, 32, 32)
    assert model.reconstruct(images).shape == images.shape
    model.save(tmp_path / kind)
    again = load_generator(tmp_path / kind)
    assert again.fingerprint() == model.fingerprint()
    assert np.allclose(again.generate(images, some.frame, attribute="sex", levels=LEVELS, draws=2), drawn, atol=1e-5)
    with pytest.raises(InputError, match=r"needs \(n, 3, 32, 32\)"):
        model.generate(images[:, :1], some.frame, attribute="sex", levels=LEVELS)


def test_a_change_of_hue_is_drawn_and_read_where_luminance_shows_next_to_nothing(
    cohort: Cohort, tmp_path: Path
) -> None:
    train, validation, test = (cohort.part(name) for name in ("train", "validation", "test"))
    model = build_generator("dldm", size=32, hold=["mel"], preset="tiny", **SHORT["dldm"])
    model.fit(train, validation, narrator=QUIET)
    images = test.pixels(size=32)
    drawn = model.generate(images, test.frame, attribute="sex", levels=LEVELS, draws=2)
    true = np.broadcast_to(colours.TONE, images.shape)
    found = effect_map(drawn[:, 1].mean(axis=1) - drawn[:, 0].mean(axis=1), true)
    assert found.cosine > 0.9
    assert 0.7 < found.scale < 1.3
    assert model.mean_replicates("sex", LEVELS).shape[1:] == (2, 3, 32, 32)
    probes = fit_probes(train, validation, ProbeSettings(["sex"], 32, steps=30), narrator=QUIET)
    probes.save(tmp_path)
    assert np.allclose(load_probes(tmp_path).read(images)["sex"], probes.read(images)["sex"])
    meter = QualityMeter(probes, attribute="sex", levels=LEVELS)
    meter.add(images, drawn, test.frame["sex"])
    assert min(meter.report().effectiveness.values()) > 0.9
    # What describes images for what is left of an attribute sees the hue, too.
    males = (test.frame["sex"] == "male").to_numpy()
    width = describe(images[:, :1]).shape[1]
    tint = describe(images)[:, width:]
    assert np.abs(tint[males].mean(axis=0) - tint[~males].mean(axis=0)).max() > 0.05


def test_grey_settings_do_not_speak_of_channels() -> None:
    for kind in ("dldm", "edits"):
        assert "image_channels" not in build_generator(kind, size=32, preset="tiny").config.to_json()


def test_a_model_of_three_channels_sees_colour_and_one_of_grey_only_what_it_declares() -> None:
    images = np.random.default_rng(0).random((4, 3, 8, 8)).astype(np.float32)
    mean, std = (0.7, 0.5, 0.4), (0.2, 0.25, 0.3)
    spec = InputSpec(size=8, channels=3, mean=mean, std=std)
    expected = (images - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert np.allclose(spec.prepare(torch.from_numpy(images)).numpy(), expected, atol=1e-5)
    model = load_predictor(lambda x: x.mean(axis=(2, 3))[:, :1], labels=["red"], input={"channels": 3})
    assert np.allclose(model.predict(images)[:, 0], images[:, 0].mean(axis=(1, 2)), atol=1e-6)
    grey = load_predictor(lambda x: x.mean(axis=(1, 2, 3)), labels=["bright"])
    with pytest.raises(InputError, match=r"in colour and the model's input has one channel: declare input: \{channels"):
        grey.predict(images)
    told = load_predictor(lambda x: x.mean(axis=(1, 2, 3)), labels=["bright"], input={"luminance": True})
    weighted = (images.mean(axis=(2, 3)) * [0.299, 0.587, 0.114]).sum(axis=1)
    assert np.allclose(told.predict(images)[:, 0], weighted, atol=1e-6)
    assert "luminance" not in InputSpec(size=8).model_dump()
    with pytest.raises(InputError, match="luminance is of models that take one channel"):
        InputSpec(channels=3, luminance=True)


def test_the_gallery_shows_colour_and_differences_around_mid_grey() -> None:
    null = np.full((6, 6, 3), 100, np.uint8)
    redder = null + np.asarray([50, 0, 0], np.uint8)
    view = encode_gallery(Gallery((Strip("1", "f", null, {"f": null, "m": redder}),), "sex"))
    assert view.colour_bar == ""
    shown = {tile.role: base64.b64decode(tile.uri.split(",")[1]) for tile in view.strips[0].tiles}
    first = {role: Image.open(io.BytesIO(one)).convert("RGB").getpixel((0, 0)) for role, one in shown.items()}
    assert first["counterfactual"] == (150, 100, 100)
    red, green, blue = first["difference"]
    assert (green, blue) == (128, 128)
    assert red > 240
    with pytest.raises(InputError, match="images of one shape"):
        Strip("1", "f", null, {"f": null[..., 0]})


def test_a_closed_model_gets_pictures_in_colour() -> None:
    image = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    pixels = interleaved(np.round(image * 255).astype(np.uint8))
    assert (np.asarray(Image.open(io.BytesIO(encode(image, "x", "png")))) == pixels).all()
    assert Image.open(io.BytesIO(encode(image, "x", "jpeg"))).mode == "RGB"
    pydicom = pytest.importorskip("pydicom")
    found = pydicom.dcmread(io.BytesIO(encode(image, "x0123456789abcdef", "dicom")))
    assert found.PhotometricInterpretation == "RGB"
    assert (found.pixel_array == pixels).all()


def test_somebody_elses_pictures_in_colour_are_answered_in_colour(cohort: Cohort, tmp_path: Path) -> None:
    test, rows = cohort.part("test").take(np.arange(4)), []
    for number in map(int, test.frame["image_id"]):
        for level in LEVELS:
            image = colours.skin(number, male=level == "male", spot=colours.sides(number)[1])
            for draw in range(2):
                rows.append((number, level, draw, f"{number}{level}{draw}.png"))
                (tmp_path / rows[-1][-1]).write_bytes(encode_png(image))
    pd.DataFrame(rows, columns=["image_id", "level", "draw", "path"]).to_csv(tmp_path / "t.csv", index=False)
    found = package.read_counterfactuals(tmp_path / "t.csv", test, attribute="sex", size=32, narrator=QUIET)
    drawn = found.main.read(0).drawn
    assert drawn.shape == (4, 2, 2, 3, 32, 32)
    # Clipping aside, these are exact.
    assert np.abs(np.median(drawn[:, 1, 0] - drawn[:, 0, 0], axis=(0, 2, 3)) - colours.TONE.ravel()).max() < 0.01
    written = export_blind(found.sets, test, key_folder=tmp_path / "key", out=tmp_path / "out")
    pictures = [Image.open(io.BytesIO(file.read_bytes())) for file in written.folder.glob("*.png")]
    assert (len(pictures), {picture.mode for picture in pictures}) == (20, {"RGB"})


def test_features_of_colour_are_given_three_channels() -> None:
    images = np.random.default_rng(0).random((3, 3, 8, 8)).astype(np.float32)
    assert Extractor("mean", lambda x: x.mean(dim=(2, 3)))(images).shape == (3, 3)


QUICK = {
    "generate": {"draws": 2, "shard": 16},
    "gates": {"probe_steps": 24},
    "test": {"randomizations": 199},
    "controls": {"placebo_images": 8, "replicate_images": 8, "planted": [4.0], "bootstraps": 5},
    "quality": {"cycles": 2},
    "report": {"gallery": 1},
}


def reads_red(file: Path, side: int = 32) -> None:
    net = nn.Sequential(nn.AvgPool2d(side // 4), nn.Flatten(), nn.Linear(48, 1))
    with torch.no_grad():
        net[2].weight.copy_(torch.tensor([2.0, 0.0, 0.0]).repeat_interleave(16)[None] / 16)
    export_program(net, file, make_card(["mel"], input=InputSpec(size=side, channels=3)))


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user of the page has: HAM10000, a model that reads red, and the page's configuration, made quick."""
    root = tmp_path_factory.mktemp("brought")
    colours.ham10000(root / "HAM10000", 120)
    reads_red(root / "model.pt2")
    page = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0])
    page["cohort"]["min_patients_per_level"] = 5
    page["generator"] |= {"size": 32, "preset": "tiny", "options": SHORT["dldm"]}
    page["model"]["input"]["size"] = 32
    (root / "audit.yaml").write_text(yaml.safe_dump({**page, **QUICK}))
    return root


def test_the_page_leads_from_ham10000_to_a_verdict(brought: Path) -> None:
    prepare, audit = commands("colour.md")
    done = citlr(*prepare, "--quiet", cwd=brought)
    assert done.returncode == 0, done.stderr
    done = citlr(*audit, "--quiet", cwd=brought)
    assert done.returncode == 0, done.stderr
    drawn = CounterfactualSet.open(brought / "run" / "counterfactuals" / "levels")
    assert drawn.plan.channels == 3
    change = drawn.read(0).drawn
    hue = np.median(change[:, 1] - change[:, 0], axis=(0, 1, 3, 4))
    assert (np.sign(hue) == np.sign(colours.TONE.ravel())).all()
    result = json.loads((brought / "run" / "audit.json").read_text())
    assert [test["attribute"] for test in result["tests"]] == ["sex"]
    page = (brought / "run" / "audit.html").read_text()
    assert "around mid-grey" in page
    assert "Original picture" in page


def test_edits_take_a_change_of_hue_from_a_table_to_a_verdict(tmp_path: Path) -> None:
    """At the model's 48 pixels, of which the generator sees 32; an image that has the level is left bit for bit."""
    whole = colours.cohort(tmp_path / "scans", 120, side=48)
    whole.frame.to_csv(tmp_path / "study.csv", index=False)
    reads_red(tmp_path / "model.pt2", side=48)
    config = {
        "cohort": {
            "table": "study.csv",
            "images": "scans",
            "attribute": "sex",
            "labels": ["mel"],
            "channels": 3,
            "split": "split",
            "min_patients_per_level": 5,
        },
        "generator": {"kind": "edits", "size": 32, "hold": ["mel"], "preset": "tiny"},
        "model": {"source": "model.pt2", "output": "logit", "input": {"size": 48, "channels": 3}},
        **QUICK,
        "test": {"randomizations": 199, "outcome": "probability"},
    }
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(config))
    # Only the most promising kinds of change are tried: the search for the others has tests of its own.
    quickly = "from citlr.generators.edits import choice; choice.PROMISING = 0.9"
    done = citlr("audit", "audit.yaml", "--out", "run", "--quiet", cwd=tmp_path, before=quickly)
    assert done.returncode == 0, done.stderr
    result, page = (tmp_path / "run" / name for name in ("audit.json", "audit.html"))
    assert json.loads(result.read_text())["tests"][0]["pvalue"] < 0.05
    assert "around mid-grey" in page.read_text()
    kept = CounterfactualSet.open(tmp_path / "run" / "counterfactuals" / "levels")
    assert (kept.plan.edits, kept.plan.channels) == (True, 3)
    test = whole.take(np.flatnonzero(whole.frame["image_id"].isin(kept.plan.image_ids)))
    drawn = Pictures(kept, test, 48)
    shown = np.concatenate([images for _, images in drawn])[:, :, 0]
    own = np.asarray([LEVELS.index(level) for level in kept.plan.factual])
    originals, rows = drawn.originals(range(len(kept))), np.arange(len(kept))
    assert np.array_equal(shown[rows, own], originals)
    change = shown[:, 1] - shown[:, 0]
    found = effect_map(change, np.broadcast_to(colours.TONE, change.shape))
    assert found.relative_error < 0.3, found
    quality = json.loads((tmp_path / "run" / "quality" / "quality.json").read_text())
    assert min(quality["effectiveness"].values()) > 0.9
    blind = export_blind([kept], test, key_folder=tmp_path / "key", out=tmp_path / "out", size=48)
    assert {Image.open(io.BytesIO(file.read_bytes())).mode for file in blind.folder.glob("*.png")} == {"RGB"}
    generator = load_generator(tmp_path / "run" / "generator")
    moved = generator.edit_by_replicates(test.pixels(size=32)[:2], test.frame.iloc[:2], "sex", LEVELS)
    assert moved.shape == (2, 1, 12, 3, 32, 32)
    assert generator.for_channels(3).fingerprint() == generator.fingerprint()


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("model", "input", {"size": 32, "channels": 1}, "The images are in colour and the model's input has one"),
        ("quality", "features", "torchxrayvision:densenet121-res224-all", "torchxrayvision"),
        ("cohort", "channels", 2, "channels"),
        ("cohort", "channels", 1, "cohort.channels cannot be set for the prepared cohort"),
    ],
)
def test_what_cannot_see_colour_is_refused_before_anything_is_trained(
    brought: Path, tmp_path: Path, section: str, key: str, value: object, said: str
) -> None:
    if not (brought / "cohort").is_dir():
        assert citlr(*commands("colour.md")[0], "--quiet", cwd=brought).returncode == 0
    config = yaml.safe_load((brought / "audit.yaml").read_text())
    config[section][key] = value
    (brought / "bad.yaml").write_text(yaml.safe_dump(config))
    done = citlr("audit", "bad.yaml", "--out", tmp_path / "run", "--quiet", cwd=brought)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "run" / "generator").exists()


def test_a_table_of_own_pictures_goes_from_init_to_a_verdict(tmp_path: Path) -> None:
    """The proposal says that they are in colour; their exact counterfactuals come as files, and the model reads red."""
    colours.cohort(tmp_path / "scans", 200).frame.drop(columns="image_id").to_csv(tmp_path / "study.csv", index=False)
    reads_red(tmp_path / "model.pt2")
    words = ("--images", "scans", "--attribute", "sex", "--label", "mel", "--model", "model.pt2")
    done = citlr("init", "study.csv", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "audit.yaml").read_text()
    assert "40 of 40 images are in colour: red, green and blue are redrawn" in " ".join(text.replace("#", " ").split())
    proposed = yaml.safe_load(text)
    assert (proposed["cohort"]["channels"], proposed["cohort"]["split"]) == (3, "split")
    rows = []
    for number in (one for one in range(200) if (one // 4) % 5 == 4):
        for level in LEVELS:
            image = colours.skin(number, male=level == "male", spot=colours.sides(number)[1])
            for draw in range(2):
                rows.append((f"{number}.png", level, draw, f"{number}{level}{draw}.png"))
                (tmp_path / rows[-1][-1]).write_bytes(encode_png(np.clip(image + 0.004 * draw, 0, 1)))
    pd.DataFrame(rows, columns=["image_id", "level", "draw", "path"]).to_csv(tmp_path / "drawn.csv", index=False)
    proposed["generator"] = {"kind": "images", "table": "drawn.csv", "size": 32}
    quick = {
        "gates": {"probe_steps": 24},
        "test": {"randomizations": 199, "outcome": "probability"},
        "controls": {"bootstraps": 5},
    }
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump({**proposed, **quick}))
    done = citlr("audit", "audit.yaml", "--out", "run", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (test,) = json.loads((tmp_path / "run" / "audit.json").read_text())["tests"]
    assert test["pvalue"] < 0.05, test
