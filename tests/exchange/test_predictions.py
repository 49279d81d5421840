"""A table of predictions to a verdict, as a user comes with it: long, wide, with and without originals, and wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from as_user import ENVIRONMENT, citlr
from pages import ROOT, commands, python

from citlr.audit.conditional import (
    CONDITION,
    ONE_ANSWER,
    ONE_DRAW,
    ORIGINALS,
    REPEATED,
    TURNED_ELSEWHERE,
    audit_predictions,
)
from citlr.config import TestConfig
from citlr.errors import InputError
from citlr.exchange.policy import Policy, check_policy
from citlr.exchange.predictions import read_predictions

Change = Callable[[pd.DataFrame], pd.DataFrame]


def predictions(*, patients: int = 60, shift: float = 1.5) -> pd.DataFrame:
    """Predictions on two labels, of which the second goes with the level."""
    rng = np.random.default_rng(0)
    rows = []
    for unit in range(patients):
        own, base = "FM"[unit % 2], rng.normal(0, 2)
        for label, effect in (("edema", 0.0), ("pneumonia", shift)):
            for level, draw in [*((level, draw) for level in "FM" for draw in range(3)), (own, -1)]:
                value = 1 / (1 + np.exp(-(base + effect * (level == "M") + rng.normal(0, 0.02))))
                rows.append((f"{unit:03d}", f"p{unit}", level, draw, label, value))
    return pd.DataFrame(rows, columns=["image_id", "patient_id", "level", "draw", "label", "probability"])


def written(tmp_path: Path, table: pd.DataFrame) -> Path:
    table.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def own_level(table: pd.DataFrame) -> pd.Series:
    return table["image_id"].map(table[table["draw"] == -1].drop_duplicates("image_id").set_index("image_id")["level"])


def test_a_table_becomes_a_verdict_a_page_and_json(tmp_path: Path) -> None:
    done = citlr(
        "assess", written(tmp_path, predictions()), "--margin", ".05", "--attribute", "sex", "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    assert "model: dependence" in done.stdout
    assert "conditional on the counterfactuals" in done.stdout
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert {(row["label"], row["verdict"]) for row in content["tests"]} >= {("pneumonia", "dependence")}
    assert {gate["name"] for gate in content["quality"]["gates"]} >= {"agreement on edema", "agreement on pneumonia"}
    assert content["condition"] in (tmp_path / "out" / "audit.html").read_text()
    assert len(pd.read_csv(tmp_path / "out" / "effects.csv")) == 2


def test_the_first_verdict_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\ntry:\n    from citlr.cli.main import main; main()\nfinally:\n"
        "    print([m for m in ('torch', 'monai', 'matplotlib') if m in sys.modules], file=sys.stderr)"
    )
    words = ["assess", str(written(tmp_path, predictions())), "--margin", ".05", "--out", str(tmp_path / "out")]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"


def test_every_form_of_one_table_says_the_same(tmp_path: Path) -> None:
    table = predictions()
    base = read_predictions(written(tmp_path, table)).responses
    keys = ["image_id", "patient_id", "level", "draw"]
    wide = table.set_index([*keys, "label"])["probability"].unstack("label").reset_index()  # noqa: PD010
    blank = table.assign(recorded=own_level(table), level=table["level"].where(table["draw"] >= 0))
    blank["draw"] = blank["draw"].astype(str).where(table["draw"] >= 0, "")
    percent = table.assign(probability=100 * table["probability"])
    for other, options in (
        (wide, {"labels": ("edema", "pneumonia")}),
        (blank, {}),
        (percent, {"percent": True}),
        (
            table.rename(columns={"level": "sex", "probability": "score"}),
            {"columns": {"level": "sex", "probability": "score"}},
        ),
        (table.sample(frac=1, random_state=0), {"labels": ("edema", "pneumonia")}),
    ):
        found = read_predictions(written(tmp_path, other), **options).responses  # type: ignore[arg-type]
        order = np.argsort(found.units.astype(str))
        np.testing.assert_allclose(found.take(order).values, base.values, rtol=1e-12)
        np.testing.assert_array_equal(found.take(order).factual, base.factual)
        assert found.original is not None


def test_without_originals_the_recorded_level_may_come_by_itself_or_not_at_all(tmp_path: Path) -> None:
    table = predictions()
    drawn = table[table["draw"] >= 0]
    settings = TestConfig(margin=0.05)
    found = read_predictions(written(tmp_path, drawn.assign(recorded=own_level(table))))
    result = audit_predictions(found.responses, found.known, settings=settings)
    assert found.responses.original is None
    assert [gate.name for gate in result.quality.gates] == ["independent draws"]
    assert {cell["level"]: cell["patients"] for cell in result.cohort.counts} == {"F": 30, "M": 30}
    assert any("draw -1" in note for note in result.quality.notes)
    plain = read_predictions(written(tmp_path, drawn))
    assert plain.responses.factual is None
    assert audit_predictions(plain.responses, plain.known, settings=settings).subgroups == ()


def test_a_model_that_answers_null_interventions_otherwise_is_left_open(tmp_path: Path) -> None:
    table = predictions(shift=0.0)
    original = table["draw"] == -1
    table.loc[original, "probability"] = np.where(own_level(table)[original] == "M", 0.9, 0.1)
    found = read_predictions(written(tmp_path, table))
    result = audit_predictions(found.responses, found.known, settings=TestConfig(margin=0.2))
    assert result.verdict == "inconclusive"
    assert "agreement on edema" in result.tests[0].reason


def test_what_is_recorded_may_explain_a_difference_between_levels(tmp_path: Path) -> None:
    """All F are sick and half of the M: the outputs on the originals differ, and the finding says why."""
    table = predictions(patients=200, shift=0.0)
    unit = table["image_id"].astype(int)
    sick = (unit % 2 == 0) | (unit % 4 == 1)
    noise = np.random.default_rng(1).random(200)[unit]
    table["probability"] = np.where(sick, 0.6 + 0.4 * noise, 0.4 * noise)
    file = written(tmp_path, table.assign(ill=sick.astype(int)))
    settings = TestConfig(margin=0.1)
    verdicts = []
    for given in ((), ("ill",)):
        found = read_predictions(file, given=given)
        verdicts.append(audit_predictions(found.responses, found.known, settings=settings).verdict)
    assert verdicts == ["inconclusive", "equivalent"]


def test_a_conditional_verdict_does_not_pass_for_one_whose_gates_were_met(tmp_path: Path) -> None:
    found = read_predictions(written(tmp_path, predictions(patients=300, shift=0.0)))
    result = audit_predictions(found.responses, found.known, settings=TestConfig(margin=0.1))
    assert result.verdict == "equivalent"
    breaches = check_policy({"model": result}, Policy()).breaches
    assert [rule.name for rule in breaches] == ["gates"]
    assert "conditional" in breaches[0].text


def at(row: int, **cells: object) -> Change:
    """Change cells of one row."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        changed = table.astype(object)
        for name, value in cells.items():
            changed.loc[row, name] = value
        return changed

    return change


WRONG: dict[str, tuple[Change, str]] = {
    "no null interventions": (lambda t: t[(t["level"] != own_level(t)) | (t["draw"] < 0)], "under its own level 'F'"),
    "none, and no originals": (lambda t: t[(t["level"] != own_level(t)) & (t["draw"] >= 0)], "null intervention"),
    "a level spelt otherwise": (
        lambda t: t.assign(level=t["level"].mask((t["image_id"] == "007") & (t["level"] == "F"), "f")),
        "'007'",
    ),
    "a row twice": (lambda t: pd.concat([t, t.iloc[[4]]]), "in row 5 and row 841"),
    "percentages": (lambda t: t.assign(probability=100 * t["probability"]), "--percent"),
    "no number": (at(8, probability=""), "in row 9 (image '000', level F, draw 1)"),
    "beyond one": (at(8, probability=1.2), "'1.2' for 'probability' in row 9"),
    "one draw": (lambda t: t[t["draw"] <= 0], "There is 1 draw"),
    "few patients": (lambda t: t[t["image_id"] < "030"], "15 recorded as 'F'"),
    "no patients": (lambda t: t.drop(columns="patient_id"), "--map patient_id=image_id"),
    "a broken patient": (at(8, patient_id="#REF!"), "'patient_id' holds '#REF!' (1 images)"),
    "a broken level": (at(8, level="#REF!"), "'level' holds '#REF!' (1 images)"),
    "a rounded patient": (at(8, patient_id="2.0230101e+17"), "1 cells of 'patient_id' such as '2.0230101e+17'"),
    "a patient spelt otherwise": (
        lambda t: t.assign(
            patient_id=t["patient_id"].mask(t["image_id"] == "007", "P7").mask(t["image_id"] == "008", "p7")
        ),
        "the patients 'P7' and 'p7', which look like spellings of one",
    ),
    "half a draw": (at(8, draw=0.5), "'0.5' as draw in row 9"),
    "a level left out": (at(8, level=""), "no level in row 9"),
    "no labels": (lambda t: t.drop(columns="label"), "--label"),
    "decisions that are none": (lambda t: t.rename(columns={"probability": "decision"}), "a decision is 0 or 1"),
    "two recorded levels": (lambda t: t.assign(recorded="F"), "more than one recorded level"),
    "a recorded level that is not redrawn": (lambda t: t[t["draw"] >= 0].assign(recorded="X"), "level 'X'"),
    "an original that says no level": (lambda t: t.assign(level=t["level"].where(t["draw"] >= 0)), "row 7"),
    "an original left out": (lambda t: t.drop(index=6), "original outputs (draw -1)"),
    "a draw left out": (lambda t: t.drop(index=8), "cells are missing"),
    "an attribute left out": (
        lambda t: t.assign(attribute=np.where(t["draw"] >= 0, "sex", None)),
        "no attribute in row 7",
    ),
    "an attribute spelt otherwise": (
        lambda t: t.assign(attribute=np.where(t["image_id"] == "007", "Sex", "sex")),
        "the attributes 'sex' and 'Sex'",
    ),
    "decisions at another threshold": (lambda t: t.assign(threshold=0.7), "says the threshold 0.7"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_judged_is_refused_with_its_row(tmp_path: Path, name: str) -> None:
    change, said = WRONG[name]
    with pytest.raises(InputError) as refused:
        found = read_predictions(written(tmp_path, change(predictions())))
        audit_predictions(found.responses, found.known, settings=TestConfig(margin=0.05))
    assert said in str(refused.value)
    assert str(refused.value).endswith((".", "?"))


@pytest.mark.parametrize("value", ["probability", "decision"])
def test_a_column_under_the_labels_name_is_not_taken_for_the_models_answers(tmp_path: Path, value: str) -> None:
    """As of a long table that says under `pneumonia` who has it: the same under every level."""
    table = predictions()[lambda t: t["label"] == "pneumonia"]
    answers = table["probability"] if value == "probability" else (table["probability"] >= 0.5).astype(int)
    ill = (table["image_id"].astype(int) % 3 == 0).astype(int)
    mine = table.drop(columns="probability").assign(**{value: answers, "pneumonia": ill})
    found = read_predictions(written(tmp_path, mine), labels=["pneumonia"])
    pd.testing.assert_series_equal(
        found.long["probability"], answers.astype(float), check_names=False, check_index=False
    )
    with pytest.raises(InputError, match="a column 'label' that never says 'pneumonia': name a label of lung"):
        read_predictions(written(tmp_path, mine.assign(label="lung")), labels=["pneumonia"])


def test_a_wide_table_may_have_columns_of_our_names(tmp_path: Path) -> None:
    keys = ["image_id", "patient_id", "level", "draw"]
    wide = predictions().set_index([*keys, "label"])["probability"].unstack("label").reset_index()  # noqa: PD010
    wide = wide.rename(columns={"edema": "probability"}).assign(label="scan", truth=1)
    with pytest.raises(InputError, match="never says 'probability'"):
        read_predictions(written(tmp_path, wide), labels=["probability"])
    found = read_predictions(written(tmp_path, wide.drop(columns="label")), labels=["probability"])
    np.testing.assert_array_equal(found.long["probability"], wide["probability"])
    wide = wide.rename(columns={"probability": "edema"})
    found = read_predictions(written(tmp_path, wide), labels=["edema"])
    assert (found.known["edema"] == 1).all()


def test_decisions_beside_probabilities_are_those_at_the_threshold(tmp_path: Path) -> None:
    table = predictions(patients=40)
    asked = table["label"] == "pneumonia"
    table["decision"] = (table["probability"] >= 0.8).astype(int).astype(str).where(asked, "")
    first = table.index[asked & table["probability"].between(0.5, 0.8, inclusive="left")][0]
    file = written(tmp_path, table)
    with pytest.raises(InputError) as refused:
        read_predictions(file)
    assert f"decision '0' beside the probability {table.loc[first, 'probability']:g} in row {first + 1} " in str(
        refused.value
    )
    assert "threshold of 'pneumonia' is 0.5" in str(refused.value)
    assert "--threshold" in str(refused.value)
    read_predictions(file, labels=["edema"])
    read_predictions(file, threshold={"edema": 0.5, "pneumonia": 0.8})
    done = citlr("assess", file, "--margin", ".05", "--out", tmp_path / "out")
    assert (done.returncode, "--threshold" in done.stderr) == (2, True)
    done = citlr("assess", file, "--margin", ".05", "--threshold", ".8", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr


def test_fractions_of_one_label_are_not_taken_for_percentages(tmp_path: Path) -> None:
    long = predictions(patients=40)[lambda t: t["label"] == "pneumonia"]
    other = long.assign(label="effusion", probability=100 * long["probability"])
    both = pd.concat([long.assign(label="edema"), other])
    keys = ["image_id", "patient_id", "level", "draw"]
    wide = both.set_index([*keys, "label"])["probability"].unstack("label").reset_index()  # noqa: PD010
    for table, labels in ((both, []), (wide, ["effusion", "edema"])):
        with pytest.raises(InputError, match="largest answer for 'edema' is 0"):
            read_predictions(written(tmp_path, table), labels=labels, percent=True)


def test_a_column_of_thresholds_that_are_those_of_the_call_is_taken(tmp_path: Path) -> None:
    table = predictions(patients=40)
    given: dict[str, float] = {label: 0.3 + k / 10 for k, label in enumerate(table["label"].unique())}
    said = table.assign(threshold=table["label"].map(given)).assign(attribute="sex")
    read_predictions(written(tmp_path, said), threshold=given)
    percent = said.assign(probability=100 * said["probability"], threshold=100 * said["threshold"])
    read_predictions(written(tmp_path, percent), threshold=given, percent=True)
    with pytest.raises(InputError, match="say the operating point with --threshold, or leave"):
        read_predictions(written(tmp_path, said))


@pytest.mark.parametrize("written_as", ["30%", "0,3", " .30 ", "3e-1"])
def test_an_operating_point_is_read_however_it_is_written(tmp_path: Path, written_as: str) -> None:
    table = predictions(patients=40)
    said = table.assign(threshold=written_as)
    with pytest.raises(InputError, match=r"says the threshold 0\.3 for 'edema'"):
        read_predictions(written(tmp_path, said))
    read_predictions(written(tmp_path, said), threshold=0.3)


def test_an_operating_point_that_is_no_number_is_not_passed_over(tmp_path: Path) -> None:
    said = predictions(patients=40).assign(threshold="Youden")
    with pytest.raises(InputError, match="has 'Youden' in the column 'threshold', which is no number"):
        read_predictions(written(tmp_path, said))


def test_an_operating_point_that_is_not_known_or_of_a_label_that_nobody_asks_for_says_nothing(tmp_path: Path) -> None:
    table = predictions(patients=40)
    edema = table["label"] == "edema"
    other = table[edema].assign(label="mass")
    for word in ("unknown", "-", "n/a", " ? "):
        read_predictions(written(tmp_path, table.assign(threshold=np.where(table["draw"] < 0, word, "0.5"))))
    said = pd.concat([table[edema].assign(threshold="0.5"), other.assign(threshold="Youden")])
    read_predictions(written(tmp_path, said), labels=["edema"])


def test_decisions_of_a_parquet_table_are_looked_at_whatever_their_type(tmp_path: Path) -> None:
    """As numbers or truths they were passed over beside the answers of a wide table."""
    long = predictions(patients=40)[lambda t: t["label"] == "edema"]
    wide = long.drop(columns="label").rename(columns={"probability": "edema"})
    for form in ("int64", "float64", "bool", "boolean"):
        for cut in (0.8, 0.5):
            wide.assign(decision=(wide["edema"] >= cut).astype(form)).to_parquet(tmp_path / "wide.parquet")
            read_predictions(tmp_path / "wide.parquet", labels=["edema"], threshold=cut)
        wide.assign(decision=(wide["edema"] >= 0.8).astype(form)).to_parquet(tmp_path / "wide.parquet")
        with pytest.raises(InputError, match=r"has the decision '0.*threshold of 'edema' is 0\.5"):
            read_predictions(tmp_path / "wide.parquet", labels=["edema"])


def test_decisions_in_a_wide_table_are_those_at_the_threshold(tmp_path: Path) -> None:
    long = predictions(patients=40)[lambda t: t["label"] == "edema"]
    wide = long.drop(columns="label").rename(columns={"probability": "edema"})
    high = wide.assign(decision=(wide["edema"] >= 0.8).astype(int))
    with pytest.raises(InputError, match=r"decision '0' beside the probability .* threshold of 'edema' is 0\.5"):
        read_predictions(written(tmp_path, high), labels=["edema"])
    read_predictions(written(tmp_path, high), labels=["edema"], threshold=0.8)
    percent = high.assign(edema=100 * high["edema"])
    read_predictions(written(tmp_path, percent), labels=["edema"], threshold=0.8, percent=True)
    # Words say what was done with the patient, and not what the model decided.
    read_predictions(written(tmp_path, wide.assign(decision="referred")), labels=["edema"])


def test_bad_input_leaves_what_was_finished(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "audit.json").write_text("earlier")
    file = written(tmp_path, predictions().drop(columns="draw"))
    for options in (["--margin", ".05"], ["--margin", "2"], ["--margin", ".05", "--threshold", "high"]):
        done = citlr("assess", file, *options, "--out", tmp_path / "out")
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert done.stderr.startswith("citlr: ")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["audit.json"]


def test_the_page_runs_as_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    rows = [(n, n, sex, draw) for n in range(60) for sex in "FM" for draw in range(2)]
    mine = pd.DataFrame(rows, columns=["img", "pat", "sex", "draw"])
    score = np.random.default_rng(0).random((60, 2)).repeat(4, axis=0)
    mine.assign(edema=score[:, 0], effusion=score[:, 1]).to_csv(tmp_path / "mine.csv", index=False)
    assert commands("predictions.md")
    for words in commands("predictions.md"):
        done = citlr(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "assessment" / "audit.html").is_file()
    monkeypatch.chdir(tmp_path)
    for block in python("predictions.md"):
        exec(block, {})
    assert "pneumonia, F against M" in capsys.readouterr().out


def with_truth(table: pd.DataFrame) -> pd.DataFrame:
    """Say of every image and label whether it has the finding, as outputs of the original suggest; one is not known."""
    original = table[table["draw"] == -1].set_index(["image_id", "label"])["probability"]
    unsure = np.random.default_rng(1).random(len(original))
    truth = pd.Series((original.to_numpy() > unsure).astype(int), original.index).astype(str)
    truth.iloc[0] = ""
    return table.join(truth.rename("truth"), on=["image_id", "label"])


def test_a_column_of_truth_gives_the_accuracy_by_group(tmp_path: Path) -> None:
    words = ("--margin", ".05", "--attribute", "sex", "--threshold", ".3", "--out", tmp_path / "out")
    done = citlr("assess", written(tmp_path, with_truth(predictions(patients=120))), *words)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "audit.json").read_text())["accuracy"]
    rows = {(row["label"], row["level"]): row for row in found["groups"]}
    assert set(rows) == {(label, level) for label in ("edema", "pneumonia") for level in ("", "F", "M")}
    assert (rows["edema", ""]["n_images"], rows["pneumonia", ""]["n_images"]) == (119, 120)
    assert rows["edema", "F"]["threshold"] == 0.3
    assert 0.5 < rows["edema", "F"]["measures"]["auroc"]["low"] < rows["edema", "F"]["measures"]["auroc"]["high"] < 1
    assert {row["label"] for row in found["differences"]} == {"edema", "pneumonia"}
    assert "Accuracy by label and group" in (tmp_path / "out" / "audit.html").read_text()


def test_a_wide_table_names_the_truth_of_each_label(tmp_path: Path) -> None:
    table = with_truth(predictions())
    keys = ["image_id", "patient_id", "level", "draw"]
    edema, pneumonia = (
        table[table["label"] == label].rename(columns={"probability": label, "truth": f"{label}_truth"})
        for label in ("edema", "pneumonia")
    )
    wide = edema.merge(pneumonia, on=keys)
    truths = {"edema": "edema_truth", "pneumonia": "pneumonia_truth"}
    found = read_predictions(written(tmp_path, wide), labels=["edema", "pneumonia"], truth=truths)
    assert found.known["edema"].isna().sum() == 1
    long = read_predictions(written(tmp_path, table))
    assert long.known.sort_values("image_id")["pneumonia"].tolist() == found.known["pneumonia"].tolist()


@pytest.mark.parametrize(
    ("change", "words", "says"),
    [
        (lambda table: table.assign(truth="2"), (), "gives '2' as the truth of 'edema'"),
        (lambda table: table.assign(truth=(table["draw"] > 0).astype(int)), (), "more than one 'truth'"),
        (lambda table: table, ("--truth", "edma=truth"), "Did you mean 'edema'"),
        (lambda table: table, ("--truth", "edema=nothing"), "has no column 'nothing' (--truth)"),
        (lambda table: table, ("--truth", "edema"), "is not of the form LABEL=COLUMN"),
    ],
)
def test_a_truth_that_cannot_be_one_is_refused(
    tmp_path: Path, change: Change, words: tuple[str, ...], says: str
) -> None:
    table = change(with_truth(predictions(patients=24)))
    done = citlr("assess", written(tmp_path, table), "--margin", ".05", "--out", tmp_path / "out", *words)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())


def test_without_truth_or_originals_the_page_says_what_is_missing(tmp_path: Path) -> None:
    table = predictions()
    for part, says in ((table, "the truth of no image is recorded"), (table[table["draw"] >= 0], "(draw -1)")):
        found = read_predictions(written(tmp_path, part))
        result = audit_predictions(found.responses, found.known, settings=TestConfig(margin=0.05))
        assert result.accuracy is not None
        assert result.accuracy.groups == ()
        assert says in result.accuracy.notes[0]


def test_too_few_patients_are_told_how_many_would_do_and_the_key(tmp_path: Path) -> None:
    done = citlr("assess", written(tmp_path, predictions(patients=24)), "--margin", ".05", "--out", tmp_path / "out")
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert "12 recorded as 'F', 12 recorded as 'M', and 20 of every level would do" in said
    assert "lower --min-patients to 12 knowingly" in said


def test_equivalence_of_a_model_that_tells_nothing_says_so(tmp_path: Path) -> None:
    """As of a network that was given other numbers than it was trained on."""
    table = predictions(patients=400, shift=0.0)
    told, chance = with_truth(table), with_truth(table)
    answers = chance.groupby(["image_id", "label"])["truth"].first()
    mixed = pd.Series(np.random.default_rng(2).permutation(answers.to_numpy()), answers.index)
    chance = chance.drop(columns="truth").join(mixed.rename("truth"), on=["image_id", "label"])
    mirrored = told.assign(probability=1 - told["probability"])
    for given, doubted in ((told, False), (chance, True), (mirrored, True)):
        found = read_predictions(written(tmp_path, given))
        result = audit_predictions(found.responses, found.known, settings=TestConfig(margin=0.05))
        assert {row.verdict for row in result.tests} == {"equivalent"}
        assert {"prepared as it was in training" in row.reason for row in result.tests} == {doubted}
        assert {"the other class (1 - p)" in row.reason for row in result.tests} == {given is mirrored}


@pytest.mark.parametrize("known", ["originals", "recorded", "nothing"])
def test_originals_in_the_place_of_null_interventions_are_refused(tmp_path: Path, known: str) -> None:
    """The model reads what redrawing adds, and no level: beside the originals that passed for a dependence."""
    table, own = predictions(shift=0.0), own_level(predictions(shift=0.0))
    originals = table[table["draw"] == -1].set_index(["image_id", "label"])["probability"]
    table.loc[table["draw"] >= 0, "probability"] **= 0.4
    honest = table.copy()
    null = (table["draw"] >= 0) & (table["level"] == own)
    keys = zip(table["image_id"], table["label"], strict=True)
    table["probability"] = table["probability"].mask(null, [originals[key] for key in keys])
    for one, fits in ((honest, True), (table, False)):
        shown = one if known == "originals" else one[one["draw"] >= 0]
        shown = shown.assign(recorded=own) if known == "recorded" else shown
        found = read_predictions(written(tmp_path, shown))
        if fits:
            audit_predictions(found.responses, found.known, settings=TestConfig(margin=0.05))
            continue
        with pytest.raises(InputError, match="answered alike for every image under its own level, and not under the"):
            audit_predictions(found.responses, found.known, settings=TestConfig(margin=0.05))


def test_edits_and_saturated_answers_are_no_originals_in_another_place(tmp_path: Path) -> None:
    """The null intervention of an edit is the original; it is told, as is what else answers show of their making."""
    table = predictions()
    own = own_level(table)
    first = table[table["draw"].isin((-1, 0))].set_index(["image_id", "label", "level", "draw"])["probability"]

    def told(draw: Callable[[Any], float]) -> str:
        made = table.assign(probability=[draw(row) for row in table.itertuples()])
        found = read_predictions(written(tmp_path, made))
        return audit_predictions(found.responses, found.known, settings=TestConfig(margin=0.05)).condition

    def edit(row: Any) -> float:
        original = row.draw == -1 or row.level == own[row.Index]
        level, draw = (own[row.Index], -1) if original else (row.level, 0)
        return float(first[row.image_id, row.label, level, draw])

    assert told(edit) == CONDITION + ONE_DRAW + ORIGINALS
    assert told(lambda row: float(first[row.image_id, row.label, own[row.Index], -1])) == CONDITION + ONE_ANSWER
    assert told(lambda row: row.probability) == CONDITION
    # Of a model that is sure under the own level all draws are alike, and nothing is told by it.
    sure = told(lambda row: 0.99 if row.draw == -1 or row.level == own[row.Index] else row.probability)
    assert sure == CONDITION + ORIGINALS


def test_images_that_another_patient_has_too_are_told(tmp_path: Path) -> None:
    """A table that held every image under two patients had intervals that were too narrow, without a word."""
    table = predictions(patients=60)
    few = table[table["image_id"] < "005"]
    copies = few.assign(image_id="copy" + few["image_id"], patient_id="x" + few["patient_id"])
    own = few.assign(image_id="again" + few["image_id"])
    for more, said in ((copies, REPEATED.format(count=10)), (own, "")):
        found = read_predictions(written(tmp_path, pd.concat([table, more], ignore_index=True)))
        result = audit_predictions(found.responses, found.known, settings=TestConfig(margin=0.05))
        assert result.condition == CONDITION + said


def test_answers_of_one_decimal_that_coincide_by_chance_are_nobody_elses(tmp_path: Path) -> None:
    """Eight coarse answers an image: a few are another patient's by chance, and others miss one by a tenth."""
    rng = np.random.default_rng(1)
    images = pd.DataFrame({"image_id": [f"i{n:04d}" for n in range(2500)], "patient_id": range(2500)})
    table = images.merge(pd.DataFrame({"level": ["F", "M"]}), how="cross").merge(
        pd.DataFrame({"draw": range(4)}), how="cross"
    )
    score = np.repeat(rng.normal(-1.5, 1, 2500), 8) + rng.normal(0, 0.6, len(table))
    table = table.assign(attribute="sex", label="edema", probability=(1 / (1 + np.exp(-score))).round(1))

    def told(made: pd.DataFrame) -> str:
        found = read_predictions(written(tmp_path, made))
        return audit_predictions(found.responses, found.known, settings=TestConfig(randomizations=99)).condition

    assert told(table) == CONDITION
    twice = table.assign(image_id="x" + table["image_id"], patient_id=table["patient_id"] + 5000)
    assert told(pd.concat([table, twice], ignore_index=True)).startswith(CONDITION + " ")


def test_decisions_on_originals_in_the_place_of_null_interventions_are_told(tmp_path: Path) -> None:
    """Decisions are alike by chance in most images, but not under the own level of every one that noise turns."""
    table = predictions(patients=200, shift=0.0)
    table["probability"] = (table["probability"] + np.random.default_rng(3).normal(0, 0.1, len(table))).clip(0, 1)
    own = own_level(table)
    drawn, first = table["draw"] >= 0, table.groupby(["image_id", "label", "level"])["probability"].transform("first")
    said = []
    for replaced in (drawn & (table["level"] == own), drawn & (table["level"] != own), drawn & (table.index % 2 == 0)):
        made = table.assign(probability=table["probability"].mask(replaced, first), recorded=own)[drawn]
        found = read_predictions(written(tmp_path, made.assign(probability=(made["probability"] >= 0.5).astype(float))))
        said.append(audit_predictions(found.responses, found.known, settings=TestConfig(margin=0.05)).condition)
    count = int(re.search(r"between draws of (\d+) images", said[0]).group(1))  # type: ignore[union-attr]
    assert count >= 10
    assert said == [CONDITION + TURNED_ELSEWHERE.format(count=count), CONDITION, CONDITION]


def test_a_name_that_is_blank_is_refused(tmp_path: Path) -> None:
    words = ("--margin", ".05", "--attribute", "sex", "--name", " ", "--out", tmp_path / "out")
    done = citlr("assess", written(tmp_path, predictions()), *words)
    assert done.returncode == 2
    assert done.stderr == "citlr: --name is blank; say what the model is called, or leave the option out.\n"
    assert not (tmp_path / "out").exists()
