"""Association tables against closed forms and scipy, and the files they are written to."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from PIL import Image

from citlr.data.associations.measures import describe, unheld, write_description
from citlr.data.associations.plot import draw
from citlr.data.cohort import Cohort
from citlr.errors import InputError


@pytest.fixture
def cohort() -> Cohort:
    rng = np.random.default_rng(0)
    n = 600
    patient = np.repeat(np.arange(n // 2), 2)
    race = np.array(["asian", "black", "white"])[patient % 3]
    frame = pd.DataFrame(
        {
            "image_id": [str(row) for row in range(n)],
            "path": [f"{row}.png" for row in range(n)],
            "patient_id": patient.astype(str),
            "split": np.where(patient % 2, "train", "test"),
            "race": race,
            "sex": np.where(patient % 4 < 2, "f", "m"),
            "edema": (rng.random(n) < np.where(race == "black", 0.6, 0.2)).astype(float),
            "effusion": (rng.random(n) < 0.3).astype(float),
            "view": np.where(rng.random(n) < np.where(race == "white", 0.8, 0.4), "PA", "AP"),
            "age": 50 + 10 * (race == "white") + rng.normal(0, 5, n),
        }
    )
    frame.loc[frame["race"] == "asian", "effusion"] = np.where(rng.random(200) < 0.5, np.nan, 1.0)
    frame.loc[:4, "age"] = np.nan
    return Cohort(frame, Path(), attributes=("race", "sex"), labels=("edema", "effusion"))


def test_chi_square_and_cramers_v_agree_with_scipy(cohort: Cohort) -> None:
    found = {(one.kind, one.attribute, one.variable, one.unit): one for one in describe(cohort).associations}
    one = found["label", "race", "edema", "image"]
    table = pd.crosstab(cohort.frame["race"], cohort.frame["edema"]).to_numpy()
    reference = scipy.stats.chi2_contingency(table, correction=False)
    assert one.statistic == pytest.approx(reference.statistic)
    assert one.pvalue == pytest.approx(reference.pvalue)
    assert one.cramers_v == pytest.approx(scipy.stats.contingency.association(table, method="cramer"))
    assert one.log10_pvalue == pytest.approx(math.log10(reference.pvalue), rel=1e-9)
    assert one.smallest_expected == pytest.approx(reference.expected_freq.min())
    assert one.rates()["black"] == pytest.approx(cohort.frame.loc[cohort.frame["race"] == "black", "edema"].mean())
    people = cohort.frame.groupby("patient_id").agg(race=("race", "first"), edema=("edema", "max"))
    by_patient = found["label", "race", "edema", "patient"]
    assert sum(map(sum, by_patient.table)) == 300
    assert by_patient.statistic == pytest.approx(
        scipy.stats.chi2_contingency(pd.crosstab(people["race"], people["edema"]), correction=False).statistic
    )
    assert found["label", "sex", "edema", "patient"].pvalue > 1e-4


def test_missingness_view_and_age(cohort: Cohort) -> None:
    described = describe(cohort)
    missing = next(one for one in described.associations if one.kind == "missing" and one.variable == "effusion")
    assert missing.rates()["white"] == 0.0
    assert missing.rates()["asian"] == pytest.approx(0.5, abs=0.1)
    assert missing.log10_pvalue < -20
    none = next(one for one in described.associations if one.kind == "missing" and one.variable == "edema")
    assert (none.cramers_v, none.pvalue, none.dof) == (0.0, 1.0, 0)
    assert set(none.rates().values()) == {0.0}
    view = next(one for one in described.associations if one.kind == "view" and one.attribute == "race")
    assert view.cramers_v > 0.3
    ages = {age.level: age for age in described.ages if age.attribute == "race"}
    assert ages["white"].mean - ages["black"].mean == pytest.approx(10, abs=1.5)
    assert sum(age.n_missing for age in ages.values()) == 5
    assert ages["white"].pvalue < 1e-10
    frame = cohort.frame.drop_duplicates("patient_id").dropna(subset=["age"])
    groups = [part["age"] for _, part in frame.groupby("race")]
    assert ages["white"].pvalue == pytest.approx(scipy.stats.kruskal(*groups).pvalue)


def test_no_label_at_all_and_no_age() -> None:
    frame = pd.DataFrame({"image_id": ["a", "b"], "path": ["a", "b"], "patient_id": ["a", "b"], "sex": ["f", "m"]})
    frame["edema"] = np.nan
    frame["age"] = np.nan
    described = describe(Cohort(frame, Path(), attributes=("sex",), labels=("edema",)))
    assert [one.kind for one in described.associations] == ["missing"]
    assert described.associations[0].rates() == {"f": 1.0, "m": 1.0}
    assert math.isnan(described.ages[0].mean)
    assert described.to_dict()["ages"][0]["mean"] is None
    assert draw(described).axes


def test_choices_and_files(cohort: Cohort, tmp_path: Path) -> None:
    described = describe(cohort, attributes=["race"], split="test")
    assert {one.attribute for one in described.associations} == {"race"}
    assert described.n_patients == 150
    with pytest.raises(InputError, match="Did you mean 'race'"):
        describe(cohort, attributes=["rase"])
    with pytest.raises(InputError, match="no images"):
        describe(cohort.take([]))
    paths = write_description(describe(cohort), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "associations.json",
        "associations.md",
        "associations.png",
    ]
    content = json.loads(paths["json"].read_text())
    assert content["schema"] == "citlr.description/1"
    assert "| race | edema | patient |" in paths["md"].read_text()
    with Image.open(paths["png"]) as picture:
        assert picture.size == (2250, 1080)
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 50
    frame = describe(cohort).to_frame()
    assert frame.loc[frame["kind"] == "label", "n"].max() == 600
    with pytest.raises(InputError, match="is a file"):
        write_description(described, paths["md"])


def test_what_goes_with_the_attribute_and_is_not_held_is_said(cohort: Cohort) -> None:
    """By patient: twice as many images of the same patients show no more."""
    with_view = replace(cohort, covariates=("view", "age"))
    said = unheld(with_view, "race", ())
    assert [note.split("'")[1] for note in said] == ["edema", "effusion", "view", "age"]
    assert "generator.hold" in said[0]
    assert [note.split("'")[1] for note in unheld(with_view, "race", ("edema", "age"))] == ["effusion", "view"]
    assert unheld(cohort, "sex", ()) == ()
    assert [note.split("'")[1] for note in unheld(with_view, "age", ())] == ["effusion", "view"]
    random = np.random.default_rng(1)
    chance = cohort.frame.assign(edema=(random.random(len(cohort)) < 0.1).astype(float))
    assert unheld(replace(cohort, frame=chance, labels=("edema",)), "race", ()) == ()
