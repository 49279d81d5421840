"""Where a network learns nothing, a regression on described images reads what is there, and nothing that is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.images import encode_png
from citlr.generators.probes.linear import told_apart
from citlr.generators.probes.probe import load_probes
from citlr.generators.probes.training import ProbeSettings, fit_probes

SIDE, COUNT = 32, 240


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Blotches of more contrast under M; `coin` shows nothing, and `follows` goes with sex only."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("images")
    sex, coin = rng.choice(["F", "M"], COUNT), rng.integers(0, 2, COUNT).astype(float)
    for n in range(COUNT):
        blotches = np.kron(rng.normal(size=(8, 8)), np.ones((4, 4))) * (0.13 if sex[n] == "M" else 0.1)
        (folder / f"i{n}.png").write_bytes(encode_png(np.clip(0.5 + blotches, 0, 1)[None]))
    frame = pd.DataFrame({"image_id": [f"i{n}" for n in range(COUNT)], "sex": sex, "coin": coin})
    frame["follows"] = np.where(rng.random(COUNT) < 0.8, sex == "M", sex == "F").astype(float)
    frame["path"], frame["patient_id"] = frame["image_id"] + ".png", frame["image_id"]
    frame["split"] = np.where(np.arange(COUNT) < 200, "train", "validation")
    return Cohort(frame, folder, attributes=("sex",), labels=("coin", "follows"))


def test_what_a_network_does_not_read_a_regression_does(cohort: Cohort, tmp_path: Path) -> None:
    settings = ProbeSettings(("sex",), SIDE, labels=("coin", "follows"), steps=5)
    probes = fit_probes(cohort.part("train"), cohort.part("validation"), settings, narrator=Narrator(quiet=True))
    # What goes with sex within no level of it is not trusted, and a coin is not.
    assert dict(probes.trusted) == {"sex": True, "coin": False, "follows": False}
    assert list(probes.linear) == ["sex"]
    held_out = cohort.part("validation")
    read = probes.read(held_out.pixels(size=SIDE))["sex"]
    np.testing.assert_allclose(read.sum(axis=1), 1, atol=1e-6)
    right = (read[:, 1] > 0.5) == (held_out.frame["sex"] == "M").to_numpy()
    assert right.mean() > 0.75
    assert probes.accuracy["sex"] == pytest.approx(right.mean(), abs=0.15)
    probes.save(tmp_path)
    again = load_probes(tmp_path)
    assert np.array_equal(again.read(held_out.pixels(size=SIDE))["sex"], read)
    assert list(load_probes(tmp_path).linear) == ["sex"]


def test_what_goes_with_the_stratum_is_no_merit() -> None:
    rng = np.random.default_rng(1)
    strata = rng.integers(0, 2, 2000)
    there = rng.random(2000) < np.where(strata == 1, 0.9, 0.1)
    assert told_apart(strata + 0.01 * rng.normal(size=2000), there, strata, range(2000)) > 0.001
    assert told_apart(strata + 0.0 * strata, there, np.zeros(2000, dtype=int), range(2000)) < 1e-10
    assert told_apart(there + rng.normal(size=2000), there, strata, range(2000)) < 1e-10
    assert told_apart(rng.normal(size=4), np.ones(4, dtype=bool), np.zeros(4, dtype=int), range(4)) == 1.0
    # At the null the p-values are even.
    values = [told_apart(rng.normal(size=60), there[:60], strata[:60], range(60)) for _ in range(400)]
    assert np.mean(np.array(values) < 0.1) == pytest.approx(0.1, abs=0.04)


def test_many_images_of_few_patients_are_few_patients() -> None:
    """Images of a patient are alike: as if they were others, chance would pass for a reading."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(300):
        score, there = rng.normal(size=24), np.arange(24) % 2 == 0
        once = told_apart(score, there, np.zeros(24, dtype=int), range(24))
        images = [np.repeat(one, 10) for one in (score, there, np.zeros(24, dtype=int), np.arange(24))]
        assert told_apart(*images) == pytest.approx(once, abs=1e-9)
        found.append(once)
    assert np.mean(np.array(found) < 0.1) == pytest.approx(0.1, abs=0.05)
