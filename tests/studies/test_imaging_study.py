from __future__ import annotations

import csv
import json
import re
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
import typer

from citlr.audit.gates.images import ASK_FOR_A_CURVE
from citlr.audit.generation import generate
from citlr.audit.measures.faithfulness import read_faithfulness
from citlr.audit.prediction import read_responses
from citlr.audit.redrawing.pictures import Pictures
from citlr.audit.results.records import Gate
from citlr.cli.app import app
from citlr.console import Narrator
from citlr.errors import InputError
from citlr.generators.registry import build_generator
from citlr.predictors.export import make_card, save_weights
from citlr.predictors.loading import load_predictor
from citlr.predictors.specs import InputSpec
from citlr.predictors.training.zoo import ZooNetwork
from citlr.simulators.phantom.sample import read_phantom
from citlr.simulators.phantom.world import PhantomWorld
from citlr.simulators.units import write_images
from citlr.studies.imaging.models import TRAINED, audit_model, factual_auroc, paired_change, require_labels, true_values
from citlr.studies.imaging.page import Results
from citlr.studies.imaging.page import changes as draw_changes
from citlr.studies.imaging.page import tests_against as draw_tests_against
from citlr.studies.imaging.run import _notes, run_imaging
from citlr.studies.imaging.shared import _beside_the_attribute, _represent, open_shared
from citlr.studies.imaging.study import PRESETS, ImagingStudy, changed, read_imaging
from citlr.studies.imaging.tables import agreement
from citlr.studies.kit.cohorts import Source

# The smallest study: enough for every table, not for a good number in any.
TINY: dict[str, Any] = {
    "networks": ("resnet34",),
    "keep": 2,
    "rounds": 2,
    "round_steps": 1,
    "batch_size": 8,
    "patients": 200,
    "images": 16,
    "draws": 2,
    "placebo_images": 2,
    "probe_steps": 2,
    "attribute_steps": 2,
    "cycles": 1,
    "options": {
        "unet_channels": (16, 16),
        "ae_channels": (8,),
        "phi_channels": (8, 8),
        "critic_channels": (8, 8),
        "sampling_steps": 2,
        "ae_steps": 2,
        "denoiser_steps": 2,
        "phi_steps": 1,
        "information_steps": 1,
    },
}
FINDINGS = ("cardiomegaly", "effusion")
NIH = Path(__file__).parents[3] / "shared" / "data" / "nih_cxr14_1000_256px"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imaging")
    run_imaging(out=out, changes=TINY, weights=None)
    return out


def table(run: Path, name: str) -> list[list[str]]:
    return list(csv.reader((run / "tables" / f"{name}.csv").read_text().splitlines()))


def pictures(run: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted((run / "counterfactuals").rglob("*.parquet"))}


@pytest.mark.slow
def test_every_table_is_there_three_times_over_and_on_the_page(run: Path) -> None:
    page = (run / "imaging.html").read_text()
    names = {"agreement", "auroc", "association", "attribute", "paired", "models", "networks", "cost"}
    assert {path.stem for path in (run / "tables").iterdir()} == names
    for name in names:
        assert f"tables/{name}.csv" in page
        assert f"tables/{name}.tex" in page
        lines, latex = table(run, name), (run / "tables" / f"{name}.tex").read_text()
        assert {len(line) for line in lines} == {len(lines[0])}
        assert len(lines) == latex.count(r"\\")
    # Fig. 6, three times Fig. 3, and one of Fig. 8 to 12 per finding
    assert page.count("data:image/png;base64,") == len(list((run / "figures").iterdir())) == 6
    assert "http:" not in page
    assert "https:" not in page
    assert str(run) not in page
    assert "Trained from random first weights" in page
    assert "2 models of 1 network, 2 findings (cardiomegaly, effusion)" in page
    assert "<h1>Phantom, 64 x 64" in page
    (network,) = table(run, "networks")[1:]
    assert network[:3] == ["resnet34", "2", network[2]]
    assert network[5:] == ["no", "random"]


@pytest.mark.slow
def test_all_models_are_ranked_with_a_report_each(run: Path) -> None:
    fleet = (run / "audit.html").read_text()
    for name in ("resnet34-1", "resnet34-2"):
        assert f'href="models/{name}/audit.html"' in fleet
        assert name in (run / "models" / name / "audit.html").read_text()


@pytest.mark.slow
def test_tables_agree_with_the_responses(run: Path) -> None:
    content = json.loads((run / "imaging.json").read_text())
    rows = [row for row in content["rows"] if row["model"] == "resnet34-1"]
    assert [row["label"] for row in rows] == list(FINDINGS)
    common = open_shared(run)
    predictor = load_predictor(run / "networks" / "resnet34" / TRAINED / content["networks"][0]["checkpoints"][0])
    own = read_responses(run / "models" / "resnet34-1" / "responses.parquet").query("attribute == 'sex'")
    for k, row in enumerate(rows):
        female, male = (predictor.predict(np.asarray(common.truth[level]))[:, k] for level in ("female", "male"))
        moved = (female >= row["threshold"]) != (male >= row["threshold"])
        assert row["true_psi"] == moved.mean()
        # two levels: the factual one counts as kept, the other flips or not
        assert row["true_eca"] == 1 - moved.mean() / 2
        wide = own.query("draw >= 0").pivot_table(
            index="image_id", columns=["label", "level"], values="probability", aggfunc="mean"
        )
        change = wide[row["label"], "male"] - wide[row["label"], "female"]
        assert row["paired_difference"] == pytest.approx(change.mean(), abs=1e-12)
        assert row["paired_patients"] == 16
    auroc = {(row["label"], row["level"]): row for row in content["aurocs"] if row["model"] == "resnet34-1"}
    assert {level for _, level in auroc} == {"all", "female", "male"}
    assert sum(auroc["effusion", level]["n_images"] for level in ("female", "male")) == 16


@pytest.mark.slow
def test_one_more_model_pays_for_its_own_inference_only(run: Path, tmp_path: Path) -> None:
    network, card = ZooNetwork("resnet34", FINDINGS), make_card(FINDINGS, input=InputSpec(size=64))
    save_weights(network, tmp_path / "own.safetensors", {**card, **network.architecture()})
    before, audited = pictures(run), (run / "models" / "resnet34-1" / "row.json").stat().st_mtime_ns
    content = run_imaging(out=run, changes=TINY, weights=None, models=[f"mine={tmp_path / 'own.safetensors'}"])
    assert [row["model"] for row in content["models"]] == ["resnet34-1", "resnet34-2", "mine"]
    assert pictures(run) == before, "the images were redrawn"
    assert (run / "models" / "resnet34-1" / "row.json").stat().st_mtime_ns == audited
    mine = content["models"][-1]
    assert mine["audit_seconds"] > 0
    assert ["mine", *(f"{mine[key]:.1f}" for key in ("inference_seconds", "audit_seconds"))] in table(run, "cost")


def _pickle(folder: Path) -> Path:
    path = folder / "model.pt"
    torch.save({"model": torch.nn.Linear(2, 2)}, path)
    return path


def _other_labels(folder: Path) -> Path:
    network, card = ZooNetwork("resnet34", ["effusion"]), make_card(["effusion"], input=InputSpec(size=64))
    save_weights(network, folder / "one.safetensors", {**card, **network.architecture()})
    return folder / "one.safetensors"


def _saved(folder: Path, labels: tuple[str, ...], named: tuple[str, ...], **output: Any) -> Path:
    network, card = ZooNetwork("resnet34", labels), make_card(named, input=InputSpec(size=64), **output)
    save_weights(network, folder / "model.safetensors", {**card, **network.architecture()})
    return folder / "model.safetensors"


def _unnamed_output(folder: Path) -> Path:
    module = torch.jit.trace(ZooNetwork("resnet34", ("a", "b", "c")).eval(), torch.zeros(2, 1, 64, 64))
    card = json.dumps(make_card(FINDINGS, input=InputSpec(size=64)))
    torch.jit.save(module, folder / "three.ts", _extra_files={"citlr.json": card})
    return folder / "three.ts"


def _other_architecture(folder: Path) -> Path:
    network, card = ZooNetwork("resnet34", FINDINGS), make_card(FINDINGS, input=InputSpec(size=64))
    save_weights(network, folder / "other.safetensors", {**card, "arch": "vgg13", "dropout": 0.2})
    return folder / "other.safetensors"


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_pickle, "pickle"),
        (_other_labels, r"gives \['effusion'\], not 'cardiomegaly'"),
        (_unnamed_output, r"gives 3 output\(s\) for 2 label\(s\)"),
        (_other_architecture, "vgg13|other"),
    ],
)
def test_a_model_that_cannot_be_audited_is_refused_before_anything_long(make: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        run_imaging(out=tmp_path / "run", changes=TINY, models=[str(make(tmp_path))])
    assert not (tmp_path / "run" / "generator").exists()


def test_an_outside_model_may_know_more_labels_and_a_checkpoint_of_the_study_may_not(tmp_path: Path) -> None:
    more = load_predictor(_saved(tmp_path, ("mass", *FINDINGS), ("mass", *FINDINGS)), name="more")
    require_labels(more, FINDINGS)
    with pytest.raises(InputError, match=r"'more' gives 3 labels .* and the study has 2"):
        require_labels(more, FINDINGS, exact=True)
    same = load_predictor(_saved(tmp_path, FINDINGS, FINDINGS), name="same")
    require_labels(same, FINDINGS, exact=True)


@pytest.mark.slow
def test_a_checkpoint_of_another_training_is_a_failed_row_and_not_a_wrong_one(run: Path, tmp_path: Path) -> None:
    source = str(_saved(tmp_path, ("mass", *FINDINGS), ("mass", *FINDINGS)))
    model = {"arch": "resnet34", "rank": 9, "source": source, "trust": False}
    given = {"folder": str(run), "outcome": "decision", "content": ["k"]}
    with pytest.raises(InputError, match="gives 3 labels"):
        audit_model(seed=0, model={**model, "name": "strange", "own": True}, **given)
    rows = json.loads(audit_model(seed=0, model={**model, "name": "outside", "own": False}, **given)["rows"])
    assert [row["label"] for row in rows] == list(FINDINGS)
    # the answer for a finding is that of its own output, wherever it stands
    images = open_shared(run).study.cohort.part("test").pixels(size=64)
    own = read_responses(run / "models" / "outside" / "responses.parquet").query("draw == -1 and label == 'effusion'")
    wanted = load_predictor(source).predict(images)[:, 2]
    np.testing.assert_allclose(own["probability"].to_numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"preset": "big"}, "no preset 'big'"),
        ({"attribute": "race"}, "no attribute 'race'"),
        ({"outcome": "logit"}, "decision or probability"),
        ({"changes": {"networks": ("resnet43",)}}, "no network 'resnet43'"),
        ({"changes": {"keep": 3, "rounds": 2}}, "fewer than the 3 checkpoints"),
        ({"models": ["a b=x.onnx"]}, "NAME=SOURCE"),
        ({"models": ["a/x.onnx", "b/x.onnx"]}, "called 'x'"),
        ({"hold": ["view"]}, "leave --hold out"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments: Mapping[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        run_imaging(out=tmp_path / "run", **arguments)
    assert not (tmp_path / "run" / "generator").exists()


@pytest.mark.slow
def test_another_setting_redoes_what_depends_on_it_and_nothing_else(run: Path) -> None:
    def written(name: str) -> int:
        return (run / name).stat().st_mtime_ns

    kept, redone = (
        ["stages/fit.json", "networks/resnet34/row.json"],
        ["stages/generate.json", "models/resnet34-1/row.json"],
    )
    before = {name: written(name) for name in (*kept, *redone)}
    run_imaging(out=run, changes={**TINY, "draws": 3}, weights=None)
    assert [name for name, time in before.items() if written(name) == time] == kept
    responses = read_responses(run / "models" / "resnet34-1" / "responses.parquet").query("attribute == 'sex'")
    assert set(responses["draw"]) == {-1, 0, 1, 2}


def test_a_cohort_is_studied_for_what_it_can_carry(tmp_path: Path) -> None:
    world = PhantomWorld(size=32, prevalence={"edema": 0.02, "cardiomegaly": 0.5, "effusion": 0.5})
    cohort = world.sample(200, seed=0, images_per_patient=2).write(tmp_path / "world")
    cohort.to_parquet(tmp_path / "cohort.parquet")
    effort = replace(PRESETS["smoke"], images=20)
    source, narrator = Source(str(tmp_path / "cohort.parquet"), attribute="sex"), Narrator(quiet=True)
    study = read_imaging(source, effort, narrator)
    assert "edema" not in study.labels
    assert "edema (" in study.notes[0]
    assert study.hold == (*study.labels, "view")
    assert len(study.cohort.part("test")) == 20
    assert len(study.cohort.part("train")) == len(cohort.part("train"))
    with pytest.raises(InputError, match="race"):
        read_imaging(replace(source, attribute="race"), effort, narrator)
    with pytest.raises(InputError, match="no label 'oedema'"):
        read_imaging(replace(source, labels=("oedema",)), effort, narrator)


YAML = """
cohort:
  table: world/phantom.csv
  images: world
  attribute: sex
  labels: [effusion]
  covariates: [view]
generator: {hold: [view, effusion]}
model: {source: model.onnx}
"""


def test_a_yamls_findings_can_be_others_and_are_held(tmp_path: Path) -> None:
    world = PhantomWorld(size=32, prevalence=0.5)
    world.sample(200, seed=0, images_per_patient=2).write(tmp_path / "world")
    (tmp_path / "audit.yaml").write_text(YAML)
    source = Source(str(tmp_path / "audit.yaml"), attribute="sex")

    def read(**more: Any) -> ImagingStudy:
        return read_imaging(replace(source, **more), PRESETS["smoke"], Narrator(quiet=True))

    plain = read()
    assert (plain.labels, plain.hold) == (("effusion",), ("view", "effusion"))
    more = read(labels=("edema", "effusion"))
    assert more.labels == ("edema", "effusion")
    assert more.hold == ("view", "effusion", "edema")
    assert more.cohort.part("train").frame["edema"].notna().all()
    held = read(labels=("edema",), hold=("view",))
    assert held.hold == ("view",)
    with pytest.raises(InputError, match="oedema"):
        read(labels=("oedema",))


@pytest.mark.skipif(not NIH.is_dir(), reason="the radiographs of ../shared/data are not here")
def test_the_findings_of_the_real_radiographs_are_those_with_fifty_positives() -> None:
    source = Source(str(Path(__file__).parents[2] / "examples" / "nih_findings.yaml"), attribute="sex")
    study = read_imaging(source, PRESETS["smoke"], Narrator(quiet=True))
    assert study.labels == ("atelectasis", "edema", "effusion", "infiltration", "pneumonia")
    assert study.hold == (*study.labels, "view")


def test_a_cell_without_positives_says_so() -> None:
    world = PhantomWorld(size=32)
    frame = world.sample(12, seed=0, images_per_patient=1).frame
    frame["effusion"] = [1.0 if level == "male" else 0.0 for level in frame["sex"]]
    responses = pd.DataFrame(
        {"image_id": frame["image_id"], "label": "effusion", "draw": -1, "probability": np.linspace(0, 1, 12)}
    )

    class Study:
        labels, levels, attribute = ("effusion",), ("female", "male"), "sex"

    class Test:
        pass

    test: Any = Test()
    test.frame = frame
    study: Any = Study()
    notes = {row["level"]: row["note"] for row in factual_auroc(responses, test, study)}
    assert notes["female"] == "no images with the finding"
    assert notes["male"] == "no images without the finding"


def test_draws_and_images_are_averaged_within_patients() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"image_id": f"i{i}", "patient_id": f"p{i // 3}", "level": level, "draw": draw, "label": "flu"}
        for i in range(12)
        for level in ("f", "m")
        for draw in range(2)
    ]
    table = pd.DataFrame(rows).assign(probability=rng.random(len(rows)))
    found = paired_change(table, "flu", ("f", "m"))
    assert found["paired_patients"] == 4
    # 12 images of 4 patients, 2 levels, 2 draws, in this order
    levels = table["probability"].to_numpy().reshape(4, 3, 2, 2).mean(axis=(1, 3))
    change = levels[:, 1] - levels[:, 0]
    assert found["paired_t"] == pytest.approx(change.mean() / (change.std(ddof=1) / 2))
    same = paired_change(table.assign(probability=0.3), "flu", ("f", "m"))
    assert (same["paired_t"], same["paired_p"]) == (0.0, 1.0)


def test_the_true_eca_counts_the_factual_level_as_kept() -> None:
    a, b, c = np.array([0.0, 0, 1]), np.array([1.0, 0, 1]), np.array([1.0, 0, 0])
    outcome = {"a": a, "b": b, "c": c}
    decided = {level: values > 0.5 for level, values in outcome.items()}
    found = true_values(outcome, decided, np.array(["a", "b", "c"]), ("a", "c"))
    assert found["true_psi"] == pytest.approx(2 / 3)
    assert found["true_mean_effect"] == 0
    # of three levels: unit 1 keeps a alone, unit 2 all, unit 3 c alone
    assert found["true_eca"] == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)


def test_agreement_is_signed_so_that_a_test_of_the_effect_is_positive() -> None:
    strength = np.linspace(0.1, 1, 8)
    rows = [
        {
            "label": "flu", "true_psi": s, "true_eca": 1 - s / 2, "eca": 0.9,
            "log10_citlr": -5 * s, "log10_published": s - 2, "log10_parity": -1.0, "log10_opportunity": -s,
        }
        for s in strength
    ]  # fmt: skip
    found = {(r["finding"], r["test"], r["target"]): r["spearman"] for r in agreement(rows)}
    assert found["all", "log10_citlr", "true_psi"] == pytest.approx(1)
    assert found["flu", "log10_citlr", "true_eca"] == pytest.approx(1)
    assert found["flu", "log10_published", "true_psi"] == pytest.approx(-1)
    assert found["flu", "log10_parity", "true_psi"] is None
    assert found["flu", "log10_citlr", "eca"] is None


def test_fits_stand_above_their_panels_and_not_over_the_marks() -> None:
    rows = [
        {"label": label, "arch": "a", "true_psi": s, "log10_citlr": -s, "log10_published": s, "log10_parity": -1.0}
        | {"log10_opportunity": -(s**2)}
        for label in FINDINGS
        for s in (0.1, 0.2, 0.4, 0.8)
    ]
    panels = draw_tests_against(rows, "true_psi").axes
    assert all(not panel.texts for panel in panels)
    titles = [panel.get_title() for panel in panels]
    assert titles[0] == "this project\nPearson -1.00, Spearman -1.00"
    assert titles[4:] == ["Pearson -1.00, Spearman -1.00", "Pearson +1.00, Spearman +1.00", "no variation", titles[7]]


def test_every_network_has_a_panel_of_its_own_label() -> None:
    rows = [
        {"image_id": f"i{k}", "attribute": "sex", "level": level, "draw": draw, "label": "effusion", "probability": p}
        for k, own in enumerate(("F", "M", "F"))
        for level, draw, p in (("F", 0, 0.2), ("M", 0, 0.3), (own, -1, 0.4))
    ]
    table = pd.DataFrame(rows)
    study = cast("ImagingStudy", types.SimpleNamespace(attribute="sex", levels=("F", "M")))
    figure = draw_changes({"first": table, "second": table}, study, "effusion", ("F", "M"))
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert [panel.get_title() for panel in panels] == ["first", "second"]
    for panel in panels:
        assert panel.get_legend_handles_labels()[1] == ["recorded F (2)", "recorded M (1)"]


def test_notes_name_every_network_and_no_path() -> None:
    row = {"arch": "vgg13", "start": "vgg13 starts at random: nothing in '/var/cache/torch'", "start_kind": "random"}
    row["notes"] = row["start"] + "\nOf the 3 checkpoints of vgg13 that were kept, only 1 within 0.02 of the best."
    found = Results([row, {**row, "arch": "densenet121", "notes": row["start"]}], [], [], [], [], {}, [])

    class Study:
        notes = ()

    study: Any = Study()
    notes = _notes(study, found, [])
    assert notes[0].startswith("Trained from random first weights, not from ImageNet's: densenet121, vgg13")
    assert notes[1].startswith("Of the 3 checkpoints of vgg13")
    assert "/var/cache" not in " ".join(notes)


def test_a_missed_gate_asks_for_the_curve_as_the_verb_takes_it() -> None:
    class Study:
        cohort, notes = types.SimpleNamespace(part=lambda _: range(671)), ()

    gate = Gate("effectiveness", 0.1, 0.8, False, f"Too little. {ASK_FOR_A_CURVE}", "generator")
    own = Gate("agreement on edema", 0.1, 0.8, False, "The model answers otherwise.", "model", "edema")
    study, found = Study(), Results([], [], [], [], [], {}, [])
    said, *others = _notes(cast("ImagingStudy", study), found, [gate, own])
    assert "answers otherwise" not in " ".join(others)
    assert said.endswith("Too little. How many training images would do is foretold with --learn 168 --learn 336.")
    taken = typer.main.get_command(app).commands["reproduce"].commands["imaging"]
    taken.make_context("imaging", ["--learn", "168", "--learn", "336", "--kind", "edits"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "edit"}, "There is no generator of the kind 'edit'. Did you mean 'edits'?"),
        ({"generator": "tinny"}, "The preset 'tinny' is not known. Did you mean 'tiny'?"),
        ({"learn": (60, 500)}, "A training on 500 images is asked for, and the training split has 135: ask for fewer."),
        ({"learn": (60, 1)}, "A training on 1 images is asked for, and 1 cannot train the generator: The attribute "),
    ],
)
def test_a_generator_that_there_cannot_be_is_refused_before_any_is_trained(
    change: Mapping[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        run_imaging(out=tmp_path, changes={**TINY, "options": {}, **change}, weights=None)
    assert not (tmp_path / "generator").exists()
    assert (tmp_path / "stages").exists() == ("learn" in change)  # what needs no images is refused before them


def test_z_of_a_generator_without_a_latent_is_the_mean_over_the_levels(tmp_path: Path) -> None:
    world = PhantomWorld(size=32, correlation={"effusion": 0.0})
    sample = world.sample(60, seed=0, images_per_patient=1)
    write_images(tmp_path, sample.frame, sample.images()[:, 0], table="phantom.csv")
    cohort = read_phantom(
        tmp_path, attribute="sex", labels=["effusion"], fractions=(0.5, 0.1, 0.4), seed=0, min_patients_per_level=2
    )
    model = build_generator("vae", size=32, hold=["effusion"], preset="tiny", steps=2)
    model.fit(cohort.part("train"), cohort.part("validation"), seed=0)
    drawn = generate(model, cohort.part("test"), attribute="sex", draws=2, placebo_images=0)
    z = _beside_the_attribute(model, drawn)
    first = np.concatenate([images[:, :, 0] for _, images in Pictures(drawn.main, drawn.cohort, 32)])
    assert np.array_equal(z, (0.5 * first[:, 0] + 0.5 * first[:, 1]).reshape(len(first), -1))
    whole = _represent(drawn, 0)
    assert whole.shape == (len(z), min(32, len(z) - 1) + model.held_codes(drawn.cohort.frame).shape[1])


@pytest.mark.slow
def test_another_kind_is_trained_on_fewer_images_too(tmp_path: Path) -> None:
    changes = {**TINY, "options": {"steps": 2}, "kind": "vae", "learn": (60,), "probe_steps": 80}
    content = run_imaging(out=tmp_path, changes=changes, weights=None)
    assert (content["effort"]["kind"], len(content["models"])) == ("vae", 2)
    assert "The generator (vae) held: cardiomegaly, effusion, view." in (tmp_path / "imaging.html").read_text()
    assert [len(points) for points in read_faithfulness(tmp_path / "quality").curves.values()] == [2]


def test_more_checkpoints_ask_for_more_rounds() -> None:
    assert changed(PRESETS["smoke"], {"keep": 9}).rounds == 9
    with pytest.raises(InputError, match="draws is 0"):
        changed(PRESETS["smoke"], {"draws": 0})
