"""A trained generator against true counterfactuals: what the short runs of the other files cannot see."""

from __future__ import annotations

import numpy as np
import pytest

from citlr.generators.diffusion.ldm import DLDM
from citlr.generators.diffusion.leakage import measure_leakage
from citlr.generators.probes.training import ProbeSettings, fit_probes
from citlr.generators.quality.measures import effect_map
from citlr.generators.quality.meter import QualityMeter
from citlr.simulators.phantom.world import PhantomWorld

pytestmark = pytest.mark.slow


def test_a_trained_generator_draws_the_true_effect(tmp_path) -> None:
    sample = PhantomWorld(size=32, correlation={"cardiomegaly": 0.3}).sample(900, seed=0)
    cohort = sample.write(tmp_path)
    train, validation = cohort.part("train"), cohort.part("validation")
    test = cohort.part("test").take(np.arange(0, 400, 4))
    images, frame, levels = test.pixels(size=32), test.frame, ["female", "male"]
    probes = fit_probes(train, validation, ProbeSettings(["sex"], 32, labels=["cardiomegaly"]))
    place = {name: row for row, name in enumerate(sample.frame["image_id"])}
    rows = [place[name] for name in frame["image_id"]]
    true = sample.counterfactual("male", rows) - sample.counterfactual("female", rows)
    found = {}
    for preset in ("tiny", "published"):
        model = DLDM(size=32, hold=["view", "cardiomegaly"], preset=preset).fit(train, validation, seed=0)
        redrawn = model.generate(images, frame, attribute="sex", levels=levels, draws=2)
        meter = QualityMeter(probes, attribute="sex", levels=levels)
        meter.add(images, redrawn, frame["sex"])
        leakage = measure_leakage(model, train, cohort.part("test"), attribute="sex")
        found[preset] = (effect_map(redrawn[:, 1, 0] - redrawn[:, 0, 0], true), meter.report(), leakage)
    ours, quality, leakage = found["tiny"]
    assert ours.cosine > 0.88
    assert 0.75 < ours.scale < 1.15
    assert min(quality.effectiveness.values()) > 0.9
    assert abs(quality.drift["cardiomegaly"] or 0.0) < 0.1
    assert leakage.hidden.information < leakage.latent.information
    # The published objective leaves most of the effect in the latent, where the condition cannot reach it.
    assert found["published"][0].scale < ours.scale
    assert found["published"][1].composition > quality.composition
