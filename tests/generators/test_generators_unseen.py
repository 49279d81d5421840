"""An image of a patient that the generator learnt from is not redrawn, also after a round trip to disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from citlr.audit.generation import generate
from citlr.errors import InputError
from citlr.generators.diffusion.ldm import DLDM
from citlr.generators.registry import load_generator
from citlr.simulators.phantom.world import PhantomWorld


def test_patients_of_the_training_split_are_refused(tmp_path: Path) -> None:
    cohort = PhantomWorld(size=32).sample(60, seed=0, images_per_patient=1).write(tmp_path, min_patients_per_level=2)
    train, test = cohort.part("train"), cohort.part("test")
    model = DLDM(32, preset="tiny", ae_steps=2, denoiser_steps=2, phi_steps=1, information_steps=1)
    model.fit(train, cohort.part("validation"), seed=0)
    model.save(tmp_path / "generator")
    back = load_generator(tmp_path / "generator")
    with pytest.raises(InputError, match="generator"):
        generate(back, train, attribute="sex", draws=2, placebo_images=0)
    assert len(generate(back, test, attribute="sex", draws=2, placebo_images=0).main) == len(test)
