"""What leaves the run: JSON without small cells, a model card, CSV without formulas, a PDF that shows the drawings."""

from __future__ import annotations

import base64
import csv
import io
import json
from dataclasses import replace

import pytest
from filelock import FileLock
from report_fake import make_gallery, make_result, make_tests

from citlr.audit import chain
from citlr.audit.chain import Chain
from citlr.audit.results.result import read_result
from citlr.cli.app import app
from citlr.config import AuditConfig
from citlr.console import Narrator
from citlr.errors import InputError, MissingExtraError
from citlr.exchange.deliver import shareable
from citlr.report import pdf
from citlr.report.card import model_card
from citlr.report.page import render
from citlr.report.tables import safe_csv
from citlr.run.folder import Run
from citlr.run.stage import Stage

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNiAAAABgADNjd8qAAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def result():
    return make_result(labels=("edema", "=HYPERLINK(1)", "a|b <i>"))


def test_shared_json_has_no_folder_name_or_raw_value_and_no_small_cell(result):
    counts = (*result.cohort.counts[:3], {**result.cohort.counts[3], "images": 4, "patients": 3})
    small = replace(result, cohort=replace(result.cohort, counts=counts, missing={"sex": 3, "age": 40}))
    shared = shareable(small)
    text = json.dumps(shared)
    for secret in ("/srv/ann", "/data/hospital", "patient00017", "Dr Gray"):
        assert secret in json.dumps(small.to_dict())
        assert secret not in text
    assert [cell["patients"] for cell in shared["cohort"]["counts"]][3] is None
    assert shared["cohort"]["missing"] == {"sex": None, "age": 40}
    assert {tuple(map(tuple, row["subgroup"])) for row in shared["subgroups"]} == {
        row.subgroup for row in result.subgroups if len(row.subgroup) == 1
    }
    assert shared["masked_subgroups"] == 4
    # Three patients left out as unreadable join those of the step before.
    assert [step["step"] for step in shared["cohort"]["flow"]] == ["table", "view and unreadable"]


def test_shared_json_is_read_back_and_makes_a_page(result, tmp_path):
    (tmp_path / "shared.json").write_text(json.dumps(shareable(result), allow_nan=False))
    again = read_result(tmp_path / "shared.json")
    assert again.tests == result.tests
    assert "Evidence, not certification" in render(again)


def test_the_model_card_says_what_was_found_and_what_it_rests_on(result):
    card = model_card(result, attribute_definition="Self-reported.")
    assert card.startswith("## Counterfactual invariance")
    assert "Evidence, not certification" in card
    rows = [line for line in card.split("### ")[0].splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(result.tests)
    assert "a\\|b &lt;i&gt;" in card
    assert "<i>" not in card
    assert card.count("- Gate ") == len(result.quality.gates)
    assert "as declared: Self-reported." in card
    assert "none was given" in model_card(result)


def test_no_cell_of_the_csv_is_a_formula(result):
    rows = list(csv.DictReader(io.StringIO(safe_csv(result.to_frame()))))
    assert [row["label"] for row in rows] == ["edema", "'=HYPERLINK(1)", "a|b <i>"]
    assert float(rows[0]["mean_effect"]) == pytest.approx(result.tests[0].mean_effect.estimate)


def test_every_drawing_takes_its_rules_along_with_colours_resolved(result):
    page = pdf.drawable(render(result))
    drawings = page.split("<svg")[1:]
    assert drawings
    for drawing in drawings:
        style = drawing.split("<style>")[1].split("</style>")[0]
        assert "stroke: #d55e00" in style
        assert "var(" not in style


def test_a_brace_in_a_name_ends_no_rules(result):
    usual = render(result)
    rules = []
    for page in (usual, usual.replace("<title>", "<title>sex} {x")):
        rules.append(pdf.drawable(page).split("<svg")[1].split("<style>")[1].split("</style>")[0])
    assert rules[0] == rules[1]


# Said on machines without libharfbuzz-subset0, on which WeasyPrint embeds whole fonts: larger files, the same text.
@pytest.mark.filterwarnings("ignore:HarfBuzz-Subset will be required:DeprecationWarning")
def test_a_pdf_by_weasyprint_holds_the_text(tmp_path):
    pypdf = pytest.importorskip("pypdf")
    try:
        import weasyprint  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"no WeasyPrint here: {error}")
    small = make_result(labels=("edema",), subgroups=())
    (tmp_path / "secret.png").write_bytes(base64.b64decode(PIXEL))
    page = render(small, gallery=make_gallery(1, size=16))
    outside = f'<img src="{(tmp_path / "secret.png").as_uri()}" alt="">'
    pages = pypdf.PdfReader(pdf.write_pdf(page.replace("<footer>", f"{outside}<footer>"), tmp_path / "a.pdf")).pages
    # The gallery's own pictures and the colour bar; the file on the disk is not read.
    assert len({image.data for one in pages for image in one.images}) == page.count('<img src="data:')
    # Where a line ends depends on the machine's fonts.
    text = " ".join("".join(one.extract_text() for one in pages).split())
    assert "Evidence, not certification" in text
    assert "Screening p" in text


def test_a_pdf_engine_is_never_changed_silently(result, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="Did you mean 'chromium'"):
        pdf.write_pdf("", tmp_path / "a.pdf", engine="chromum")
    monkeypatch.setattr(pdf, "find_browser", lambda: "")
    with pytest.raises(InputError, match="No Chromium on the PATH"):
        pdf.write_pdf("", tmp_path / "a.pdf", engine="chromium")
    monkeypatch.setitem(__import__("sys").modules, "weasyprint", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'citlr\[pdf\]'"):
        pdf.write_pdf("", tmp_path / "a.pdf")
    assert list(tmp_path.iterdir()) == []


def test_the_verb_writes_what_is_asked_for_and_asks_before_text_can_be_read(tmp_path):
    from typer.testing import CliRunner

    config = AuditConfig.model_validate(
        {
            "cohort": {"table": "/a.csv", "images": "/", "attribute": "sex", "labels": ["edema"]},
            "model": {"source": "m.onnx"},
        }
    )
    result = make_result(labels=("edema",), tests=make_tests(("edema",)))

    def write(folder):
        result.to_json(folder / "audit.json")

    opened = Run.open(tmp_path / "run", config)
    with opened.locked():
        opened.do(
            Stage("test.model", {}, lambda folder: {"at": str(result.to_json(folder / "audit.json"))}, ("audit.json",))
        )
    run = opened.root
    runner = CliRunner()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock"}
    # What is written elsewhere asks no lock of a run that another process holds, or that cannot be written to.
    with FileLock(run / ".lock", timeout=0):
        done = runner.invoke(
            app, [*f"report {run} --format json --format md --format csv -o {tmp_path / 'out'}".split()]
        )
    assert done.exit_code == 0, done.output
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock"} == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"audit.shared.json", "model-card.md", "effects.csv"}
    refused = runner.invoke(app, ["report", str(run), "--images", "4", "--pixels", "512"])
    assert "no_burnt_in_text" in str(refused.exception)
    unknown = runner.invoke(app, ["report", str(run), "--format", "pfd"])
    assert "Did you mean 'pdf'" in str(unknown.exception)


def test_what_was_handed_on_of_another_audit_is_set_aside(result, tmp_path, monkeypatch):
    """A card stood beside the next audit.json and said what that does not."""
    config = {"cohort": {"table": "t.csv", "attribute": "sex", "labels": ["edema"]}, "test": {"margin": 0.05}}
    config |= {"model": {"kind": "closed", "labels": ["edema"]}, "generator": {"preset": "tiny"}}
    monkeypatch.setattr(Chain, "_require_same_images", lambda _: None)  # there are none
    monkeypatch.setattr(Chain, "_inputs", lambda *_: None)
    monkeypatch.setattr(chain, "audit_responses", lambda _: result)

    def tested(margin: float, *models: str) -> set[str]:
        several = {"models": dict.fromkeys(models, config["model"])} if models else {"model": config["model"]}
        content = {name: value for name, value in config.items() if name != "model"} | several
        run = Run.open(tmp_path / "run", AuditConfig.model_validate({**content, "test": {"margin": margin}}))
        one = Chain(run, Narrator(quiet=True))
        one.keys |= {"cohort": "a", "quality": "b", **{f"predict.{name}": name for name in models or ("model",)}}
        with run.locked():
            one.test()
        found = [path for path in run.root.rglob("*") if path.name.startswith(("model-card", "audit.shared"))]
        return {path.relative_to(run.root).as_posix() for path in found}

    assert tested(0.05) == set()
    for name in ("model-card.md", "audit.shared.json"):
        (tmp_path / "run" / name).write_text("of the first")
    assert tested(0.05) == {"model-card.md", "audit.shared.json"}
    assert tested(0.2) == {"model-card.md.before", "audit.shared.json.before"}
    assert (tmp_path / "run" / "model-card.md.before").read_text() == "of the first"
    for path in (tmp_path / "run").glob("*.before"):
        path.unlink()
    # Through a run of two models, the one's files stood beside the audit.json of the other.
    (tmp_path / "run" / "model-card.md").write_text("of the first")
    assert tested(0.2, "model", "other") == {"models/model/model-card.md"}
    assert tested(0.2, "other") == {"models/model/model-card.md"}
    (tmp_path / "run" / "model-card.md").write_text("of the other")
    assert tested(0.2) == {"model-card.md", "model-card.md.before"}
    assert (tmp_path / "run" / "model-card.md").read_text() == "of the first"
    assert tested(0.3, "model", "other") == {"model-card.md.before"}
