"""Where memory runs out in redrawing or in a model's answers, batches are halved, told, and the numbers stay."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from citlr.errors import InputError
from citlr.generators.conditions import Conditions
from citlr.generators.request import Batches, Request, redraw_in_batches
from citlr.predictors.loading import load_predictor
from citlr.predictors.specs import InputSpec

TROUBLES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeError("The following operation failed in the TorchScript interpreter: CUDA out of memory."),
    MemoryError(),
]
IMAGES = np.random.default_rng(0).random((11, 1, 8, 8), dtype=np.float32)
FRAME = pd.DataFrame({"image_id": [f"i{k}" for k in range(11)], "patient_id": range(11), "sex": ["F", "M"] * 5 + ["F"]})


def redrawn(room: int, trouble: Exception, sizes: list[int], notes: list[str]) -> np.ndarray:
    """Brighten images by their level, in a memory with room for so many at a time."""

    def redraw(images: Tensor, codes: Tensor, ids: list[str], request: Request) -> Tensor:
        assert len(images) == len(codes) == len(ids)
        if len(images) > room:
            raise trouble
        sizes.append(len(images))
        return torch.stack([images * 0.5, images * 0.5 + 0.5], dim=1)[:, :, None]

    conditions = Conditions.of(FRAME, attributes=["sex"], hold=[], coin_seed=0)
    request = Request(("sex",), ("F", "M"))
    return redraw_in_batches(
        IMAGES, FRAME, request, Batches(redraw, conditions, per_batch=8), lambda done, note="": notes.append(note)
    )


@pytest.mark.parametrize("trouble", TROUBLES)
def test_redrawing_goes_on_with_smaller_batches(trouble: Exception) -> None:
    whole = redrawn(8, trouble, [], [])
    sizes: list[int] = []
    notes: list[str] = []
    assert np.array_equal(redrawn(3, trouble, sizes, notes), whole)
    assert sizes == [2] * 6  # the last is filled up: an image's bits do not depend on its company
    assert set(notes) == {"memory ran out: 2 images at a time"}
    with pytest.raises(type(trouble)):
        redrawn(0, trouble, [], [])


def test_other_trouble_is_not_tried_again() -> None:
    sizes: list[int] = []
    with pytest.raises(RuntimeError, match="shapes"):
        redrawn(3, RuntimeError("shapes do not fit"), sizes, [])
    assert sizes == []


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_model_is_asked_for_fewer_images_at_a_time(trouble: Exception) -> None:
    sizes: list[int] = []
    room = 5

    class Mean(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > room:
                raise trouble
            sizes.append(len(images))
            return images.mean(dim=(1, 2, 3))[:, None]

    model = load_predictor(
        Mean(), labels=["edema"], output="probability", input=InputSpec(size=8), batch_size=8, name="m"
    )
    notes: list[str] = []
    found = model.predict(IMAGES, tick=lambda done, note="": notes.append(note))
    assert found[:, 0] == pytest.approx(IMAGES.mean(axis=(1, 2, 3)), abs=1e-6)
    assert sizes == [4, 4, 3]
    assert notes == ["memory ran out: 4 images at a time"] * 3
    room = 0
    with pytest.raises(InputError, match="Lower batch_size"):
        model.predict(IMAGES)
