"""The data set objects of torchxrayvision itself, over files in the layouts that it reads."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trees

from citlr import read_dataset
from citlr.data.cohort import Cohort
from citlr.data.prepared import write_prepared
from citlr.data.sources.nih import prepare_nih
from citlr.data.sources.study import Study

pytestmark = pytest.mark.skipif(find_spec("torchxrayvision") is None, reason="the extra 'xray' is not installed")


def datasets() -> Any:
    """Import it where a test needs it: three seconds, which every worker would spend at collection."""
    import torchxrayvision

    return torchxrayvision.datasets


def nih(root: Path, **choices: Any) -> Any:
    trees.nih(root)
    options = {"views": ["PA", "AP"], "unique_patients": False, **choices}
    return datasets().NIH_Dataset(str(root / "images"), str(root / "Data_Entry_2017_v2020.csv"), **options)


def read(dataset: Any, **choices: Any) -> Cohort:
    options = {"attribute": "sex", "labels": ["Effusion", "Edema"], "min_patients_per_level": 1, **choices}
    return read_dataset(dataset, **options)


def test_the_nih_object_agrees_with_our_own_reading_of_its_files(tmp_path: Path) -> None:
    cohort = read(nih(tmp_path), columns={"image_id": "Image Index"})
    ours = prepare_nih(tmp_path, study=Study(labels=("Effusion", "Edema"))).frame.set_index("image_id")
    frame = cohort.frame.set_index("image_id")
    assert len(frame) == len(trees.PATIENTS)
    ours = ours.loc[frame.index]
    for column in ("sex", "age", "view", "Effusion", "Edema"):
        assert frame[column].tolist() == ours[column].tolist(), column
    # Identifiers are spelt differently; the patients are the same people.
    assert frame["patient_id"].nunique() == ours["patient_id"].nunique()
    expected = prepare_nih(tmp_path).frame.set_index("image_id").loc[frame.index]
    assert expected["path"].str.endswith(".png").all()
    files = Cohort(expected.reset_index(), tmp_path, attributes=("sex",), labels=())
    np.testing.assert_allclose(cohort.pixels(size=40), files.pixels(size=40), atol=1.5 / 255)


def test_objects_made_of_objects_and_their_transforms(tmp_path: Path) -> None:
    whole = nih(tmp_path, transform=datasets().XRayCenterCrop())
    part = datasets().SubsetDataset(whole, list(range(7, 40)))
    cohort = read(part)
    assert len(cohort) == 33
    assert cohort.pixels([0], size=40).std() > 0.05
    expected = (whole[7]["img"][0] + 1024) / 2048
    np.testing.assert_allclose(cohort.pixels([0], size=40)[0, 0], expected, atol=1e-5)
    merged = datasets().MergeDataset([part, part])
    twice = read(merged)
    assert len(twice) == 66
    np.testing.assert_array_equal(twice.pixels([33], size=40), twice.pixels([0], size=40))


def test_the_chexpert_object_and_its_unstated_labels(tmp_path: Path) -> None:
    folder = trees.chexpert(tmp_path)
    dataset = datasets().CheX_Dataset(
        str(folder), str(folder / "train.csv"), views=["AP"], unique_patients=False, flat_dir=False
    )
    cohort = read(dataset)
    assert len(cohort) == 36
    stated = [{"1.0": 1.0, "0.0": 0.0}.get(trees.labels(patient)["Edema"]) for patient in trees.PATIENTS[:36]]
    assert [None if np.isnan(one) else one for one in cohort.frame["Edema"]] == stated
    assert cohort.frame["sex"].tolist() == [("female", "male")[trees.is_male(one)] for one in trees.PATIENTS[:36]]
    assert cohort.pixels([0, 1], size=16).std() > 0.05


def test_an_object_becomes_a_cohort_that_the_command_line_can_use(tmp_path: Path) -> None:
    cohort = read(nih(tmp_path / "data"))
    written = write_prepared(cohort, tmp_path / "out", cache=24)
    stored = Cohort.from_parquet(written["cohort"])
    assert stored.levels("sex") == ("female", "male")
    assert np.abs(stored.pixels(size=24) - cohort.pixels(size=24)).max() <= 1 / 510 + 1e-6
