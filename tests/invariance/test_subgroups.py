"""Subgroups and intersections of an audit: found where they are, cut into readable parts, masked where small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_fake import make_result

from citlr.audit.privacy import mask_parts
from citlr.audit.results.result import read_result
from citlr.audit.results.verdicts import audit_subgroups, groupings
from citlr.config import TestConfig
from citlr.data.cohort import Cohort
from citlr.invariance.responses import Responses
from citlr.report.sections.subgroups import parts_tables

COUNT = 80


def cohort(**columns: object) -> Cohort:
    frame = pd.DataFrame(
        {
            "image_id": [f"i{row}" for row in range(COUNT)],
            "path": "x.png",
            "patient_id": [f"p{row}" for row in range(COUNT)],
            "split": "test",
            "sex": ["F", "M"] * (COUNT // 2),
            "edema": 0.0,
        }
    ).assign(**columns)
    return Cohort(frame, Path(), ("sex",), ("edema",), tuple(name for name in columns if name not in ("age", "view")))


def responses(changed: np.ndarray) -> Responses:
    values = np.zeros((COUNT, 2, 4, 1))
    values[changed, 1] = 1.0
    return Responses.from_arrays(
        values,
        units=[f"i{row}" for row in range(COUNT)],
        patients=[f"p{row}" for row in range(COUNT)],
        levels=["F", "M"],
        labels=["edema"],
        attribute="sex",
        factual=np.arange(COUNT) % 2,
    )


def test_an_effect_is_found_in_the_part_that_has_it() -> None:
    view = np.where(np.arange(COUNT) % 4 < 2, "AP", "PA")
    rows = audit_subgroups(
        responses(np.flatnonzero((view == "AP") & (np.arange(COUNT) % 2 == 0))),
        cohort(view=view),
        settings=TestConfig(),
        shared_seeds=True,
    )
    psi = {row.subgroup: row.psi.estimate for row in rows}
    assert psi[("sex", "F"), ("view", "AP")] == 1.0
    assert psi[("sex", "F"), ("view", "PA")] == psi[("sex", "M"), ("view", "AP")] == 0.0
    assert psi[(("sex", "F"),)] == psi[(("view", "AP"),)] == 0.5
    assert {row.n_patients for row in rows if len(row.subgroup) == 2} == {COUNT // 4}


def test_covariates_in_the_order_of_the_responses_not_of_the_cohort() -> None:
    found = groupings(cohort(view=["AP"] * 3 + ["PA"] * (COUNT - 3)), ["i5", "i0"])
    assert found["view"].tolist() == ["PA", "AP"]


def test_numbers_become_bands_and_names_of_people_do_not_become_groups() -> None:
    ages = np.array([0, 17, 18, 39, 59.5, 79, 80, 103, *np.linspace(20, 70, COUNT - 8)], float)
    dose = np.arange(COUNT, dtype=float)
    found = groupings(
        cohort(age=ages, dose=dose, ward=[f"w{row}" for row in range(COUNT)], one="same"),
        [f"i{row}" for row in range(COUNT)],
    )
    assert set(found) == {"age", "dose"}
    bands = ["0 to 17"] * 2 + ["18 to 39"] * 2 + ["40 to 59", "60 to 79"] + ["80 and over"] * 2
    assert found["age"][:8].tolist() == bands
    assert {text: int((found["dose"] == text).sum()) for text in set(found["dose"])} == {
        "up to 26.3333": 27,
        "26.3333 to 52.6667": 26,
        "over 52.6667": 27,
    }


def test_what_is_not_known_is_a_group_of_its_own() -> None:
    ages = np.where(np.arange(COUNT) < 40, np.nan, 50.0)
    rows = audit_subgroups(responses(np.arange(4)), cohort(age=ages), settings=TestConfig(), shared_seeds=True)
    assert (("age", "missing"),) in {row.subgroup for row in rows}


def test_no_masked_part_is_the_difference_of_shown_ones() -> None:
    parts = {(("sex", level),): 100 for level in "FM"} | {(("view", view),): 100 for view in ("AP", "PA")}
    crossed = {(("sex", "F"), ("view", "AP")): 3, (("sex", "F"), ("view", "PA")): 97}
    crossed |= {(("sex", "M"), ("view", "AP")): 97, (("sex", "M"), ("view", "PA")): 3}
    assert mask_parts({**parts, **crossed}, below=5) == set(crossed)
    assert mask_parts({**parts, **crossed}, below=1) == set()
    crossed[("sex", "M"), ("view", "PA")] = 60
    # One small cell: its row and its column need a second one each, and those a partner in turn.
    assert mask_parts({**parts, **crossed}, below=5) == set(crossed)


def test_masked_parts_show_neither_size_nor_effect_and_the_others_do() -> None:
    result = make_result()
    _, crossed = parts_tables(result, below=5)
    hidden = [row for row in crossed.rows if row[3].absent]
    assert [row[0].text for row in hidden] == [
        f"sex: {level}, view: {view}" for level in ("female", "male") for view in ("AP", "PA")
    ]
    assert all(cell.text == "n/a" for row in hidden for cell in row[3:])
    assert not any(row[3].absent for table in parts_tables(result, below=1) for row in table.rows)


def test_subgroups_survive_their_json(tmp_path: Path) -> None:
    result = make_result()
    result.to_json(tmp_path / "audit.json")
    assert read_result(tmp_path / "audit.json").subgroups == result.subgroups


@pytest.mark.parametrize("depth", [1, 2])
def test_the_page_has_a_row_for_every_part(depth: int) -> None:
    result = make_result()
    wanted = sum(len(row.subgroup) == depth for row in result.subgroups)
    assert len(parts_tables(result, below=1)[depth - 1].rows) == wanted
