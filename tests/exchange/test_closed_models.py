"""The closed-model round trip: blind pictures out, checked numbers back."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from citlr.audit.generation import generate
from citlr.audit.prediction import kind_of_answers
from citlr.data.cohort import Cohort
from citlr.data.counterfactuals import CounterfactualSet, Images, Plan, write_counterfactuals
from citlr.data.images import encode_png
from citlr.errors import InputError, StateError
from citlr.exchange import secondary_capture as secondary_capture_module
from citlr.exchange.closed import export_blind, opaque_id, require_exported
from citlr.exchange.handover import ingest
from citlr.exchange.secondary_capture import secondary_capture
from citlr.generators.oracle import EditingOracle

COUNT, SIZE = 4, 16
LABELS = ("pneumonia", "edema")


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    root = tmp_path / "images"
    root.mkdir()
    for row in range(COUNT):
        image = np.full((1, SIZE, SIZE), row / 10, dtype=np.float32)
        image[..., 0] = 1.0
        (root / f"i{row}.png").write_bytes(encode_png(image))
    frame = pd.DataFrame(
        {
            "image_id": [f"i{row}" for row in range(COUNT)],
            "path": [f"i{row}.png" for row in range(COUNT)],
            "patient_id": [f"p{row // 2}" for row in range(COUNT)],
            "split": "test",
            "sex": ["F", "M"] * (COUNT // 2),
            "pneumonia": [0.0, 1.0] * (COUNT // 2),
            "edema": 0.0,
        }
    )
    return Cohort(frame, root, attributes=("sex",), labels=LABELS)


@pytest.fixture
def counterfactuals(tmp_path: Path, cohort: Cohort) -> CounterfactualSet:
    plan = Plan(
        attribute="sex",
        levels=("F", "M"),
        draws=2,
        image_ids=tuple(cohort.frame["image_id"]),
        patient_ids=tuple(cohort.frame["patient_id"]),
        factual=tuple(cohort.frame["sex"]),
        shard=3,
        size=SIZE,
        shared_seeds=True,
        key="k",
    )

    return write_counterfactuals(tmp_path / "counterfactuals", plan, constant)


def constant(rows: range) -> Images:
    """Draw two levels that differ in nothing."""
    return np.full((len(rows), 2, 2, 1, SIZE, SIZE), 0.5, dtype=np.float32)


def answers(folder: Path, key: Path, **columns: object) -> Path:
    ids = pd.read_csv(folder / "manifest.csv")["id"]
    table = pd.DataFrame({"id": ids, "pneumonia": np.linspace(0, 1, len(ids)), "edema": 0.25})
    file = key / "answers.csv"
    table.assign(**columns).to_csv(file, index=False)
    return file


@pytest.mark.parametrize(("format", "suffix"), [("png", ".png"), ("jpeg", ".jpg"), ("dicom", ".dcm")])
def test_what_leaves_says_nothing_of_the_level(
    tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet, format: str, suffix: str
) -> None:
    out, sealed = tmp_path / "out", tmp_path / "sealed"
    export = export_blind([counterfactuals], cohort, key_folder=sealed, out=out, format=format)  # type: ignore[arg-type]
    key = pd.read_parquet(sealed / "key.parquet")
    assert export.n_images == len(key) == COUNT * 5
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*(f"{name}{suffix}" for name in key["id"]), "manifest.csv"]
    )
    assert list(pd.read_csv(out / "manifest.csv").columns) == ["id"]
    # The constant pictures of two levels are the same bytes once each one's own name is taken out (DICOM also has UIDs
    # that are made from the name, of a fixed length), and no time of a file tells the order in which they were drawn.
    bodies: dict[str, list[bytes]] = {"F": [], "M": []}
    for row in key[key["draw"] >= 0].itertuples():
        file = out / f"{row.id}{suffix}"
        content = file.read_bytes()
        for word in (b"sex", b"level", str(row.image_id).encode() + b"\0", b"p0\0", b"p1\0"):
            assert word not in content
        bodies[row.level].append(without_name(content, str(row.id)))
    assert len(set(bodies["F"]) | set(bodies["M"])) == 1
    assert len({path.stat().st_mtime for path in out.iterdir()}) == 1
    assert list(pd.read_csv(out / "manifest.csv")["id"]) == sorted(key["id"])


def without_name(content: bytes, name: str) -> bytes:
    uids = re.compile(rb"1\.2\.826\.0\.1\.3680043\.8\.498\.\d{38}")
    return uids.sub(b"UID", content).replace(name.encode(), b"NAME")


def test_the_key_stays_and_is_sealed(tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet) -> None:
    export = export_blind([counterfactuals], cohort, key_folder=tmp_path / "sealed", out=tmp_path / "out")
    assert export.key.stat().st_mode & 0o077 == 0
    assert (tmp_path / "sealed" / "secret.json").stat().st_mode & 0o077 == 0


def test_answers_to_pictures_that_were_drawn_anew_since_are_refused(
    tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet
) -> None:
    sealed = tmp_path / "sealed"
    export_blind([counterfactuals], cohort, key_folder=sealed, out=tmp_path / "out")
    require_exported(sealed, counterfactuals, SIZE)
    before = set(pd.read_parquet(sealed / "key.parquet")["id"])
    plan = replace(counterfactuals.plan, key="another generator")
    anew = write_counterfactuals(counterfactuals.folder, plan, constant)
    with pytest.raises(StateError, match=r"drawn anew .* answers are to other pictures: run `citlr export` again"):
        require_exported(sealed, anew, SIZE)
    # No name of an old picture is one of a new picture, so that old answers could not be taken for new ones.
    export_blind([anew], cohort, key_folder=sealed, out=tmp_path / "again")
    assert before.isdisjoint(pd.read_parquet(sealed / "key.parquet")["id"])


def test_exported_again_the_names_stay_and_another_run_has_others(
    tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet
) -> None:
    def names(sealed: str, out: str) -> list[str]:
        export_blind([counterfactuals], cohort, key_folder=tmp_path / sealed, out=tmp_path / out)
        return sorted(path.name for path in (tmp_path / out).iterdir())

    assert names("a", "one") == names("a", "one")
    assert not set(names("b", "two")) & set(names("a", "one")) - {"manifest.csv"}


def test_a_spreadsheet_reads_no_name_as_a_number() -> None:
    row = {"image_id": "i", "patient_id": "p", "attribute": "sex", "level": "F"}
    assert all(opaque_id(b"s", {**row, "draw": draw})[0] == "x" for draw in range(99))


def test_another_format_or_an_old_picture_in_the_folder_is_not_handed_out(
    tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet
) -> None:
    export_blind([counterfactuals], cohort, key_folder=tmp_path / "sealed", out=tmp_path / "out")
    with pytest.raises(StateError, match=r"\.png' among them"):
        export_blind([counterfactuals], cohort, key_folder=tmp_path / "sealed", out=tmp_path / "out", format="jpeg")
    with pytest.raises(StateError, match="new or an empty folder"):
        export_blind([counterfactuals], cohort, key_folder=tmp_path / "other", out=tmp_path / "out")


def test_a_folder_with_other_things_is_refused(
    tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    with pytest.raises(StateError, match=r"thesis\.tex"):
        export_blind([counterfactuals], cohort, key_folder=tmp_path / "sealed", out=tmp_path / "out")


def test_dicom_is_marked_as_synthetic_and_has_no_patient(
    tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet
) -> None:
    pydicom = pytest.importorskip("pydicom")
    export_blind([counterfactuals], cohort, key_folder=tmp_path / "sealed", out=tmp_path / "out", format="dicom")
    files = sorted((tmp_path / "out").glob("*.dcm"))
    first, second = (pydicom.dcmread(path) for path in files[:2])
    assert first.SOPClassUID.name == "Secondary Capture Image Storage"
    assert first.ImageType[0] == "DERIVED"
    assert first.ConversionType == "SYN"
    assert first[0x0008, 0x001C].value == "YES"  # Synthetic Data
    assert first.PatientName == "" == first.PatientSex
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.StudyInstanceUID != second.StudyInstanceUID
    assert first.pixel_array.shape == (SIZE, SIZE)
    assert "BurnedInAnnotation" not in first  # nobody looked


@pytest.mark.parametrize("shape", [(4, 6), (5, 5)])
def test_a_dicom_object_from_the_template_is_the_one_written_whole(shape: tuple[int, int]) -> None:
    pydicom = pytest.importorskip("pydicom")
    grey = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape)
    content = secondary_capture(grey, "x123456789abcdef")
    assert content == secondary_capture_module._write(grey, "x123456789abcdef")
    dataset = pydicom.dcmread(io.BytesIO(content))
    assert dataset.PatientID == "x123456789abcdef"
    np.testing.assert_array_equal(dataset.pixel_array, grey)


def test_wide_and_long_answers_come_back_alike(
    tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet
) -> None:
    sealed = tmp_path / "sealed"
    export_blind([counterfactuals], cohort, key_folder=sealed, out=tmp_path / "out")
    wide = answers(tmp_path / "out", sealed)
    table = pd.read_csv(wide)
    long = sealed / "long.csv"
    table.melt("id", var_name="label", value_name="probability").sample(frac=1, random_state=0).to_csv(
        long, sep=";", index=False
    )
    first = ingest(wide, key_folder=sealed, labels=LABELS)
    pd.testing.assert_frame_equal(first, ingest(long, key_folder=sealed, labels=LABELS))
    key = pd.read_parquet(sealed / "key.parquet").set_index(["image_id", "level", "draw"])["id"]
    sent = table.set_index("id")["pneumonia"]
    for row in first[first["label"] == "pneumonia"].itertuples():
        assert row.probability == pytest.approx(sent[key[row.image_id, row.level, row.draw]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.iloc[: len(t) // 2], "lacks 10 of 20 ids"),
        (lambda t: t.assign(id=[f"x{n}" for n in range(len(t))]), "20 ids that this run did not hand out"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "twice"),
        (lambda t: t.assign(pneumonia=[f"0,{n}" for n in range(len(t))]), "decimal commas"),
        (lambda t: t.assign(pneumonia=t["pneumonia"] * 100), "percentages"),
        (lambda t: t.assign(pneumonia=[f"{v:.0%}" for v in t["pneumonia"]]), "percentages"),
        (lambda t: t.assign(pneumonia=t["pneumonia"] - 0.5), "probabilities lie in [0, 1]"),
        (lambda t: t.assign(pneumonia=np.nan), "a number is needed"),
        (lambda t: t.assign(pneumonia="high"), "'high' for 'pneumonia' of the id 'x"),
        (lambda t: t.assign(pneumonia="=1+1"), "'=1+1' for 'pneumonia'"),
        (lambda t: t.assign(pneumonia="<script>" * 9), "<script><script><script><script><scri..."),
        (lambda t: t.assign(pneumonia=[1.2, *t["pneumonia"][1:]]), "'1.2' for 'pneumonia' of the id"),
        (lambda t: t.rename(columns={"edema": "pneumonia"}), "the column 'pneumonia' more than once"),
        (lambda t: t.drop(columns="edema"), "no column ['edema']"),
        (lambda t: t.drop(columns="id"), "no column 'id'"),
    ],
)
def test_bad_answers_are_refused_in_one_sentence(
    tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet, change: object, said: str
) -> None:
    sealed = tmp_path / "sealed"
    export_blind([counterfactuals], cohort, key_folder=sealed, out=tmp_path / "out")
    file = answers(tmp_path / "out", sealed)
    changed = change(pd.read_csv(file))  # type: ignore[operator]
    changed.to_csv(file, index=False, sep=";" if "commas" in said else ",")
    with pytest.raises(InputError) as caught:
        ingest(file, key_folder=sealed, labels=LABELS)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,pneumonia,edema\nx1,0,5,0,25\n", "5 cells in line 2 and 3 in its header"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("just words", "has a header and no rows"),
        ('id,pneumonia,edema\nx1,"0.5,0.25\n', "the quote that line 2 opens is never closed"),
    ],
)
def test_what_is_no_table_is_refused(
    tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet, text: str, said: str
) -> None:
    export_blind([counterfactuals], cohort, key_folder=tmp_path / "sealed", out=tmp_path / "out")
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=re.escape(said)):
        ingest(tmp_path / "a.csv", key_folder=tmp_path / "sealed", labels=LABELS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t, "leave --percent out"),
        (lambda t: t.assign(edema="25%"), "with and without a percent sign"),
        (lambda t: t.assign(edema=100 * t["edema"]), "its largest answer for 'pneumonia' is"),
        (lambda t: t.assign(threshold=0.7), "the threshold 0.7 for"),
    ],
)
def test_fractions_are_not_taken_for_percentages(
    tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet, change: object, said: str
) -> None:
    sealed = tmp_path / "sealed"
    export_blind([counterfactuals], cohort, key_folder=sealed, out=tmp_path / "out")
    file = answers(tmp_path / "out", sealed)
    change(pd.read_csv(file)).to_csv(file, index=False)  # type: ignore[operator]
    with pytest.raises(InputError, match=said):
        ingest(file, key_folder=sealed, labels=LABELS, percent=True)


def test_decisions_come_back_wide_or_long_and_a_word_is_not_one(
    tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet
) -> None:
    sealed = tmp_path / "sealed"
    export_blind([counterfactuals], cohort, key_folder=sealed, out=tmp_path / "out")
    ids = pd.read_csv(tmp_path / "out" / "manifest.csv")["id"]
    table = pd.DataFrame({"id": ids, "pneumonia": np.arange(len(ids)) % 2, "edema": 0})
    table.to_csv(sealed / "wide.csv", index=False)
    table.melt("id", var_name="label", value_name="decision").to_csv(sealed / "long.csv", index=False)
    wide = ingest(sealed / "wide.csv", key_folder=sealed, labels=LABELS)
    pd.testing.assert_frame_equal(wide, ingest(sealed / "long.csv", key_folder=sealed, labels=LABELS))
    assert kind_of_answers(wide) == "decisions"
    table.assign(edema=0.5).melt("id", var_name="label", value_name="decision").to_csv(sealed / "half.csv", index=False)
    with pytest.raises(InputError, match="a decision is 0 or 1; probabilities go"):
        ingest(sealed / "half.csv", key_folder=sealed, labels=LABELS)
    table.assign(edema="negative").to_csv(sealed / "words.csv", index=False)
    with pytest.raises(InputError, match="a decision is 0 or 1"):
        ingest(sealed / "words.csv", key_folder=sealed, labels=LABELS)


def test_decisions_beside_the_probabilities_are_those_at_the_threshold(
    tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet
) -> None:
    sealed = tmp_path / "sealed"
    export_blind([counterfactuals], cohort, key_folder=sealed, out=tmp_path / "out")
    wide = pd.read_csv(answers(tmp_path / "out", sealed)).assign(pneumonia=0.6, edema=20.0 / 100)
    long = wide.melt("id", var_name="label", value_name="probability").assign(decision=0)
    long.to_csv(sealed / "long.csv", index=False)
    with pytest.raises(InputError, match=f"beside the probability 0.6 of the id '{long['id'][0]}'.*`test.threshold`"):
        ingest(sealed / "long.csv", key_folder=sealed, labels=LABELS)
    ingest(sealed / "long.csv", key_folder=sealed, labels=LABELS, threshold=0.7)
    long.assign(probability=100 * long["probability"]).to_csv(sealed / "long.csv", index=False)
    ingest(sealed / "long.csv", key_folder=sealed, labels=LABELS, threshold=0.7, percent=True)


def test_a_wide_answer_of_one_label_has_its_decisions_at_the_threshold(
    tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet
) -> None:
    sealed = tmp_path / "sealed"
    export_blind([counterfactuals], cohort, key_folder=sealed, out=tmp_path / "out")
    wide = pd.read_csv(answers(tmp_path / "out", sealed))[["id"]].assign(edema=0.6, decision=0)
    wide.to_csv(sealed / "wide.csv", index=False)
    with pytest.raises(InputError, match=f"beside the probability 0.6 of the id '{wide['id'][0]}'.*`test.threshold`"):
        ingest(sealed / "wide.csv", key_folder=sealed, labels=["edema"])
    ingest(sealed / "wide.csv", key_folder=sealed, labels=["edema"], threshold=0.7)
    wide.assign(threshold="70%").to_csv(sealed / "wide.csv", index=False)
    ingest(sealed / "wide.csv", key_folder=sealed, labels=["edema"], threshold=0.7)
    with pytest.raises(InputError, match=r"threshold 0\.7 for 'edema'"):
        ingest(sealed / "wide.csv", key_folder=sealed, labels=["edema"], threshold=0.6)


def test_a_long_table_that_lacks_one_label_of_one_id_is_refused(
    tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet
) -> None:
    sealed = tmp_path / "sealed"
    export_blind([counterfactuals], cohort, key_folder=sealed, out=tmp_path / "out")
    long = pd.read_csv(answers(tmp_path / "out", sealed)).melt("id", var_name="label", value_name="probability")
    gone = long.iloc[7]
    long.drop(index=7).to_csv(sealed / "long.csv", index=False)
    with pytest.raises(InputError, match=f"'' for '{gone['label']}' of the id '{gone['id']}'"):
        ingest(sealed / "long.csv", key_folder=sealed, labels=LABELS)


def test_percentages_are_taken_when_said(tmp_path: Path, cohort: Cohort, counterfactuals: CounterfactualSet) -> None:
    sealed = tmp_path / "sealed"
    export_blind([counterfactuals], cohort, key_folder=sealed, out=tmp_path / "out")
    file = answers(tmp_path / "out", sealed, edema=25)
    table = pd.read_csv(file)
    table.assign(pneumonia=table["pneumonia"] * 100).to_csv(file, index=False)
    read = ingest(file, key_folder=sealed, labels=LABELS, percent=True)
    assert set(read.loc[read["label"] == "edema", "probability"]) == {0.25}


def test_what_edits_draw_alike_is_one_picture_so_that_nobody_can_tell_originals_by_counting(
    tmp_path: Path, cohort: Cohort
) -> None:
    def lighter(level: str, rows: np.ndarray) -> np.ndarray:
        return np.full((len(rows), 1, SIZE, SIZE), 0.3 if level == "M" else 0.2, np.float32)

    names = list(cohort.frame["image_id"])
    oracle = EditingOracle(lighter, image_ids=names, attribute="sex", levels=("F", "M"), size=SIZE)
    sets = generate(oracle, cohort, attribute="sex", draws=3, placebo_images=2, out=tmp_path / "drawn").sets
    sealed, out = tmp_path / "sealed", tmp_path / "out"
    export = export_blind(sets, cohort, key_folder=sealed, out=out)
    key = pd.read_parquet(sealed / "key.parquet")
    # An original and its other level; the coin's pictures, and those put back, are originals.
    handed_out = pd.read_csv(out / "manifest.csv")["id"]
    assert export.n_images == len(handed_out) == key["id"].nunique() == 2 * COUNT
    pictures = [path.read_bytes() for path in out.glob("*.png")]
    assert len(set(pictures)) == len(pictures) == 2 * COUNT
    own = dict(zip(names, cohort.frame["sex"], strict=True))
    for image, rows in key.groupby("image_id"):
        original = rows.loc[rows["draw"] == -1, "id"].item()
        moved = rows[(rows["attribute"] == "sex") & (rows["level"] != own[str(image)])]
        assert (len(moved), moved["id"].nunique()) == (3, 1)
        assert set(rows.drop(moved.index)["id"]) == {original} != set(moved["id"])
    read = ingest(answers(out, sealed), key_folder=sealed, labels=LABELS)
    assert len(read) == len(key) * len(LABELS)
    assert read["probability"].notna().all()


def test_nothing_was_exported(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="citlr export"):
        ingest(tmp_path / "a.csv", key_folder=tmp_path, labels=LABELS)
