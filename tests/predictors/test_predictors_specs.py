"""What a model wants to see and gives: preparation against plain numpy, and every setting that is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from citlr.errors import InputError
from citlr.predictors.specs import InputSpec, OutputSpec


def test_scaling_channels_and_normalisation_are_the_arithmetic_they_say() -> None:
    images = np.random.default_rng(0).random((2, 1, 4, 4), dtype=np.float32)
    spec = InputSpec(channels=3, low=-1024, high=1024, mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0))
    prepared = spec.prepare(torch.from_numpy(images)).numpy()
    for channel, (mean, std) in enumerate([(1.0, 2.0), (2.0, 4.0), (3.0, 8.0)]):
        expected = (images[:, 0] * 2048.0 - 1024.0 - mean) / std
        np.testing.assert_allclose(prepared[:, channel], expected, rtol=1e-5)


def test_resizing_is_antialiased_like_pillow() -> None:
    image = np.random.default_rng(1).random((32, 32), dtype=np.float32)
    expected = np.asarray(Image.fromarray(image).resize((12, 8), Image.Resampling.BILINEAR))
    prepared = InputSpec(size=(8, 12)).prepare(torch.from_numpy(image[None, None]))
    np.testing.assert_allclose(prepared[0, 0].numpy(), expected, atol=1e-5)


def test_a_fine_grating_becomes_gray_and_not_a_coarse_one() -> None:
    grating = torch.arange(64).remainder(2).float().expand(1, 1, 64, 64)
    prepared = InputSpec(size=16).prepare(grating)
    assert (prepared - 0.5).abs().max() < 0.13


def test_channels_last_moves_the_channels() -> None:
    images = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    assert InputSpec(channels=3, layout="channels_last").prepare(images).shape == (2, 4, 5, 3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 0}, "input.size=0: it should be greater"),
        ({"size": (4, 4, 4)}, r"input.size is \(4, 4, 4\)"),
        ({"channels": 2}, "input.channels=2: a model takes 1"),
        ({"low": 1.0, "high": 0.0}, "low must be below high"),
        ({"channels": 3, "mean": (0.1, 0.2)}, r"input.mean has 2 values for 3 channel"),
        ({"std": 0.0}, "input.std=0.0: it should be greater"),
        ({"layout": "channel_last"}, "Did you mean 'channels_last'"),
        ({"chanels": 3}, "input has no setting 'chanels'. Did you mean 'channels'"),
    ],
)
def test_an_input_that_cannot_be_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        InputSpec.of(settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("logits", "output is 'logits'; allowed: probability, logit. Did you mean 'logit'"),
        ({"kind": "logit", "activation": "sigmod"}, "Did you mean 'sigmoid'"),
        ({"knd": "logit"}, "output has no setting 'knd'. Did you mean 'kind'"),
        (3, "output is a int"),
    ],
)
def test_an_output_that_cannot_be_is_refused(settings: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        OutputSpec.of(settings)  # type: ignore[arg-type]


def test_columns_by_name_and_by_position() -> None:
    assert OutputSpec(columns={"a": 4, "b": 2, "c": 0}).indices(["b", "a"], 5, "m") == [2, 4]
    assert OutputSpec(columns=[3]).indices(["a"], 5, "m") == [3]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (None, r"gives 5 output\(s\) for 2 label\(s\) \(edema, mass\)"),
        ([1], "'columns' has 1 entries for 2 label"),
        ([1, 5], "'columns' names output 5, but model 'm' has outputs 0..4"),
        ({"edema": 1, "mas": 2}, "no entry for label 'mass'. Did you mean 'mas'"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        OutputSpec(columns=columns).indices(["edema", "mass"], 5, "m")  # type: ignore[arg-type]
