from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from citlr.console import Narrator
from citlr.errors import InputError, StateError
from citlr.generators.registry import build_generator
from citlr.simulators.phantom.world import PhantomWorld
from citlr.studies.generation.run import run_generation
from citlr.studies.generation.study import PRESETS, cohort_study, entrants
from citlr.studies.generation.tables import Column, sheet, spread
from citlr.studies.kit.cohorts import Source
from citlr.studies.kit.page import Sheet

# The smallest comparison: enough for every table, not for a good number in any.
LDM = {
    "unet_channels": (16, 16),
    "ae_channels": (8,),
    "phi_channels": (8, 8),
    "critic_channels": (8, 8),
    "ae_steps": 3,
    "denoiser_steps": 3,
    "phi_steps": 2,
    "information_steps": 2,
    "recentre": 10,
    "guidance": 1.0,
}
TINY = {
    "patients": 200,
    "images": 8,
    "seeds": 2,
    "probe": "small",  # the ResNet-34 is tested by itself
    "probe_steps": 3,
    "leakage_steps": 4,
    "cycles": 2,
    "steps": {"dldm": LDM, "vae": {"steps": 3}},
}
MODELS = ["beta-VAE, beta 1", "DLDM", "oracle"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("generation")
    run_generation(out=out, preset="smoke", models=MODELS, changes=TINY)
    return out


def table(run: Path, name: str) -> list[list[str]]:
    return list(csv.reader((run / "tables" / f"{name}.csv").read_text().splitlines()))


def test_every_table_is_written_three_times_over(run: Path) -> None:
    names = {path.stem for path in (run / "tables").iterdir()}
    assert names == {
        "probe", "composition", "effectiveness", "distance", "drift", "effect_map", "disentanglement", "cost"
    }  # fmt: skip
    page = (run / "generation.md").read_text()
    for name in names:
        text = (run / "tables" / f"{name}.md").read_text().strip()
        assert text in page
        latex = (run / "tables" / f"{name}.tex").read_text()
        assert latex.count(r"\toprule") == latex.count(r"\end{tabular}") == 1
        lines = table(run, name)
        assert {len(line) for line in lines} == {len(lines[0])}
        assert len(lines) - 1 == latex.count(r"\\") - 1
    effects = {line[0]: line for line in table(run, "effect_map")}
    assert effects["oracle"][1:4] == ["0.000", "1.000", "1.000"]
    assert "±" in effects["DLDM"][1]  # two trainings
    assert "±" not in effects["oracle"][1]  # equations have none
    held = {line[0]: line for line in table(run, "drift")}
    assert held["DLDM"][1].endswith(" h")


def test_rows_hold_what_the_issue_asks_for(run: Path) -> None:
    content = json.loads((run / "generation.json").read_text())
    assert [(row["model"], row["seed"]) for row in content["rows"]] == [
        ("beta-VAE, beta 1", 0),
        ("beta-VAE, beta 1", 1),
        ("DLDM", 0),
        ("DLDM", 1),
        ("oracle", 0),
    ]
    for row in content["rows"]:
        assert set(row["composition"]) == set(row["similarity"]) == {"1", "2"}
        assert set(row["drift"]) >= {"cardiomegaly", "view", "edema"}
        assert {gate["name"] for gate in row["gates"]} >= {"composition", "effectiveness", "drift of cardiomegaly"}
    oracle, dldm = content["rows"][-1], content["rows"][2]
    assert oracle["composition"]["1"] < 0.003
    assert oracle["coin"] == 0
    assert dldm["leakage"]["latent"]["auroc"] > 0
    assert dldm["round_trip"]["latent"] > 0
    assert dldm["held"] == ["cardiomegaly", "view"]
    assert {row["target"] for row in content["probe"]} >= {"sex", "cardiomegaly", "effusion", "view"}


def test_pictures_are_there_and_not_empty(run: Path) -> None:
    pixels = np.asarray(Image.open(run / "pictures.png").convert("L"))
    assert min(pixels.shape) > 300
    assert pixels.std() > 20
    assert len(list((run / "pictures").glob("dldm-*.npy"))) == 2


def test_started_again_it_goes_on_and_another_comparison_is_refused(run: Path) -> None:
    before = {path.name: path.read_bytes() for path in (run / "rows").iterdir()}
    (run / "rows" / "beta-vae-beta-1-1.json").unlink()
    run_generation(out=run, preset="smoke", models=MODELS, changes=TINY)
    for path in (run / "rows").iterdir():
        again, known = json.loads(path.read_text()), json.loads(before[path.name])
        for timed in ("fit_seconds", "seconds_per_1000"):
            again.pop(timed), known.pop(timed)
        assert again == known, path.name
    with pytest.raises(StateError, match="another comparison"):
        run_generation(out=run, preset="smoke", models=MODELS, changes={**TINY, "images": 7})


def test_models_trained_before_stay_in_the_tables(run: Path) -> None:
    """A folder takes more models and more trainings; what it shows does not depend on what was asked for last."""
    found = run_generation(out=run, preset="smoke", models=["oracle"], changes={**TINY, "seeds": 1})
    assert [row["model"] for row in found["rows"]] == ["beta-VAE, beta 1"] * 2 + ["DLDM"] * 2 + ["oracle"]
    assert {line[0] for line in table(run, "cost")[1:]} == set(MODELS)
    assert "trainings: beta-VAE, beta 1 2, DLDM 2, oracle 1" in (run / "generation.md").read_text()


def test_a_prepared_cohort_takes_the_phantoms_place(tmp_path: Path) -> None:
    world = PhantomWorld(size=32, levels=("a", "b", "c"), attribute="race")
    cohort = world.sample(330, seed=0, images_per_patient=1).write(tmp_path / "world")
    (tmp_path / "study").mkdir()
    cohort.to_parquet(tmp_path / "study" / "cohort.parquet")
    found = run_generation(
        out=tmp_path / "out",
        preset="smoke",
        cohort=str(tmp_path / "study" / "cohort.parquet"),
        hold=["view"],
        models=["beta-VAE, beta 2"],
        changes={**TINY, "seeds": 1},
    )
    assert found["study"]["name"] == "study"
    assert found["study"]["levels"] == ["a", "b", "c"]
    assert found["study"]["hold"] == ["view"]
    assert found["rows"][0]["effect_map"] is None
    assert not (tmp_path / "out" / "tables" / "effect_map.md").exists()
    names = [one.name for one in entrants(_study(tmp_path, hold=None))]
    assert "DLDM, nothing held" not in names
    assert "oracle" not in names
    with pytest.raises(InputError, match="no column 'weight' to hold"):
        _study(tmp_path, hold=("weight",))


def _study(folder: Path, *, hold):
    file = folder / "study" / "cohort.parquet"
    return cohort_study(Source(str(file), hold=hold), Narrator())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "smok"}, "Did you mean 'smoke'"),
        ({"preset": "smoke", "models": ["DLMD"], "changes": {"patients": 200}}, "Did you mean 'DLDM'"),
        ({"preset": "smoke", "features": "inception"}, "Did you mean 'inception_v3'"),
        ({"preset": "smoke", "cohort": "nowhere.parquet"}, "no cohort at nowhere.parquet"),
        ({"preset": "smoke", "attribute": "race"}, "are of cohorts"),
        ({"preset": "smoke", "changes": {"seeds": 0}}, "seeds=0 is not a number of 1 or more"),
        ({"preset": "smoke", "changes": {"preset": "tinny"}}, "Did you mean 'tiny'"),
    ],
)
def test_bad_requests_are_refused_in_a_sentence(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_generation(out=tmp_path, **changes)
    assert not (tmp_path / "probe").exists()


def test_presets_compare_what_the_issue_names() -> None:
    assert PRESETS["full"].size == 64
    assert PRESETS["full"].seeds == 3
    assert PRESETS["full"].cycles == 10


def test_rivals_differ_from_the_model_in_what_their_names_say() -> None:
    every = {one.name: one for one in entrants(SimpleNamespace(hold=("view",), sample=None))}
    config = {
        name: build_generator(every[name].kind, size=64, hold=("view",), **every[name].options).config.to_json()
        for name in ("CLDM", "CLDM, aligned", "DLDM, played", "DLDM")
    }

    def differ(one: str) -> dict[str, object]:
        return {key: value for key, value in config[one].items() if value != config["DLDM"][key]}

    assert differ("CLDM") == {"disentangle": False, "alignment": "none"}
    assert differ("CLDM, aligned") == {"disentangle": False}
    assert differ("DLDM, played") == {"latent_alignment": "none", "strength": None}


def test_unknown_is_written_where_a_number_is_missing() -> None:
    rows = [{"model": "a", "x": 1.0}, {"model": "a", "x": None}, {"model": "b", "x": 0.25}]
    made = sheet("t", "c", rows, [Column("x, %", lambda row: row["x"], 0, 100.0)])
    assert made.cells == (("a", "unknown"), ("b", "25"))
    assert spread([float("nan")], digits=1) == "unknown"
    assert r"50\% \& \_" in Sheet("t", "50% & _", ("m",), (("a",),)).latex()
    # Labels of somebody's own cohort.
    written = Sheet("t", "c", ("m",), (("[a] {b} ~ ^ \\",), ("a<b>|",))).latex()
    assert r"{[}a] \{b\} \textasciitilde{} \textasciicircum{} \textbackslash{} \\" in written
    assert r"a\textless{}b\textgreater{}\textbar{} \\" in written
    # A star after a line break is taken for a part of it; an empty line ends a paragraph, which no caption may.
    written = Sheet("t", "two\n\nlines", ("m", "n"), (("*a", "−1"), ("b\x1b", "≥ 2"))).latex()
    assert r"\caption{two lines}" in written
    assert written.startswith(r"\begin{table}")
    assert r"{*}a & $-$1 \\" in written
    assert r"b\textbackslash{}x1b & $\geq$ 2 \\" in written
    assert Sheet("t", "Größe – å", ("m",), (("肺炎",),)).latex().startswith("% pdfLaTeX does not know")


def test_no_name_of_a_study_is_a_formula_and_its_numbers_stay_numbers() -> None:
    names = ("=HYPERLINK(1)", "-pleura", "@a", "+1 cmd|x", "-1+A1")
    numbers = ("-0.012", "+0.31 (-0.25)", "-0.1 ± 0.02", "-0.010 (-0.02 to 0.03)", "-1e-05")
    cells = (*zip(names, numbers, strict=True), ("edema, mild", "-"))
    rows = list(csv.reader(io.StringIO(Sheet("t", "c", ("=m", "x"), cells).csv())))
    assert rows == [["'=m", "x"], *([f"'{name}", number] for name, number in cells[:-1]), ["edema, mild", "-"]]
