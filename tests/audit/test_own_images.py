"""Somebody else's counterfactual images to a verdict, as a user comes with them: a table, files, and what is wrong."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from as_user import citlr
from pages import ROOT, commands, python
from PIL import Image
from rich.console import Console
from scipy.ndimage import gaussian_filter

from citlr.audit.measures.faithfulness import AS_THEY_CAME, ROUNDED, null_remarks, read_faithfulness
from citlr.audit.measures.readings import find_strangers, outline, strangers
from citlr.audit.on_disk import read_counterfactuals
from citlr.audit.results.result import read_result
from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.data.flow import RawCount
from citlr.data.images import encode_png
from citlr.data.reading import read_cohort
from citlr.data.redrawn import read_redrawn
from citlr.errors import InputError
from citlr.exchange.policy import Policy, check_policy
from citlr.generators.edits.generator import EditGenerator
from citlr.generators.on_disk import ImagesOnDisk
from citlr.generators.probes.training import ProbeSettings, fit_probes
from citlr.generators.request import Request
from citlr.predictors.export import export_program, make_card
from citlr.predictors.specs import InputSpec
from citlr.run.engines import Engine
from citlr.run.files import digest_or_missing
from citlr.simulators.phantom.classifiers import analytic_blind
from citlr.simulators.phantom.world import PhantomWorld

PAGE = (ROOT / "docs" / "own-images.md").read_text(encoding="utf-8")
SIDE, TESTED = 32, 60


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user brings, under the names of the page: cohort, images, counterfactuals, a model that is blind."""
    root = tmp_path_factory.mktemp("brought")
    phantom = PhantomWorld(size=SIDE)
    sample = phantom.sample(160, seed=0, images_per_patient=1)
    sample.write(root / "phantom", min_patients_per_level=1)
    (root / "phantom" / "images").rename(root / "images")
    table = pd.read_csv(root / "phantom" / "phantom.csv")
    table["path"] = table["path"].str.removeprefix("images/")
    parts = ["test"] * TESTED + ["train"] * 70 + ["validation"] * (len(table) - TESTED - 70)
    table.assign(split=parts).to_csv(root / "cohort.csv", index=False)
    rng, rows = np.random.default_rng(0), []
    (root / "redrawn").mkdir()
    for level in ("female", "male"):
        drawn = sample.counterfactual(level, np.arange(TESTED))
        for name, image in zip(table["image_id"], drawn, strict=False):
            for draw in range(2):
                path = f"redrawn/{name}_{level}_{draw}.png"
                noisy = np.clip(image + rng.normal(0, 0.01, image.shape), 0, 1).astype(np.float32)
                (root / path).write_bytes(encode_png(noisy))
                rows.append((name, level, draw, path))
    pd.DataFrame(rows, columns=["image_id", "level", "draw", "path"]).to_csv(root / "counterfactuals.csv", index=False)
    model = analytic_blind(phantom, "cardiomegaly").eval()
    export_program(model, root / "model.pt2", make_card(["cardiomegaly"], input=InputSpec(size=SIDE)))
    quick = {
        "gates": {"probe_steps": 24},
        "controls": {"bootstraps": 5},
        "test": {"margin": 0.1, "randomizations": 499},
    }
    page = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0])
    page["generator"]["size"] = SIDE
    (root / "audit.yaml").write_text(yaml.safe_dump({**page, **quick}))
    return root


@pytest.fixture(scope="module")
def cohort(brought: Path) -> Cohort:
    return read_cohort(
        brought / "cohort.csv", images=brought / "images", attribute="sex", labels=["cardiomegaly"], split="split"
    ).part("test")


def test_the_page_leads_from_files_to_a_verdict(brought: Path) -> None:
    (words,) = commands("own-images.md")
    done = citlr(*words, "--quiet", cwd=brought)
    assert done.returncode == 0, done.stderr
    result = read_result(brought / "run" / "audit.json")
    assert "conditional on what only the owner of the generator could measure" in done.stdout
    gates = [gate.name for gate in result.quality.gates]
    assert "placebo" not in gates
    assert {"composition", "effectiveness", "drift of view", "agreement on cardiomegaly"} <= set(gates)
    assert next(gate for gate in result.quality.gates if gate.name == "composition").passed
    assert next(gate for gate in result.quality.gates if gate.name == "own patient").passed
    assert 0 < (result.quality.composition or 0) < 0.02
    assert result.quality.reversibility is None
    assert result.quality.cycles == {}
    assert any("nothing can be redrawn" in note for note in result.quality.notes)
    assert result.controls.placebo is None
    assert result.tests[0].draws == 2
    assert "gates" in [rule.name for rule in check_policy({"model": result}, Policy()).breaches]


def test_the_plan_of_images_trains_nothing_and_asks_for_no_coin(brought: Path) -> None:
    done = citlr("audit", "audit.yaml", "--dry-run", "--quiet", cwd=brought)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing is trained" in done.stdout
    assert f"{TESTED} images, 2 draws of every level; 0 for the coin, 0 for replicates" in done.stdout
    assert "network" not in done.stdout


def test_probes_need_images_to_be_judged_by(brought: Path, cohort: Cohort) -> None:
    """A split of train and test alone ended in a traceback when the probes were trained, after everything else."""
    table = pd.read_csv(brought / "cohort.csv")
    table.assign(split=table["split"].replace("validation", "train")).to_csv(brought / "two.csv", index=False)
    page = yaml.safe_load((brought / "audit.yaml").read_text())
    page["cohort"]["table"] = "two.csv"
    (brought / "two.yaml").write_text(yaml.safe_dump(page))
    done = citlr("audit", "two.yaml", "--out", "two", "--quiet", "--until", "generate", cwd=brought)
    assert (done.returncode, done.stdout) == (2, "")
    assert "training and 0 validation images: both need at least one" in done.stderr
    with pytest.raises(InputError, match="60 training and 0 validation images"):
        fit_probes(cohort, cohort.take([]), ProbeSettings(("sex",), SIDE))


def test_an_image_that_was_changed_since_is_read_again(brought: Path, tmp_path: Path) -> None:
    copied = tmp_path / "brought"
    shutil.copytree(brought, copied, ignore=shutil.ignore_patterns("run"))
    command = ("audit", "audit.yaml", "--out", "run", "--until", "generate", "--quiet")
    assert citlr(*command, cwd=copied).returncode == 0
    before = json.loads((copied / "run" / "stages" / "generate.json").read_text())["key"]
    assert citlr(*command, cwd=copied).returncode == 0
    assert json.loads((copied / "run" / "stages" / "generate.json").read_text())["key"] == before
    table = pd.read_csv(copied / "counterfactuals.csv")
    shutil.copy(copied / table["path"][0], copied / table["path"][1])
    assert citlr(*command, cwd=copied).returncode == 0
    assert json.loads((copied / "run" / "stages" / "generate.json").read_text())["key"] != before


def test_the_python_of_the_page_reads_what_the_command_reads(brought: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it but the audit itself, whose probes take minutes."""
    monkeypatch.chdir(brought)
    (block,) = python("own-images.md")
    names: dict[str, object] = {}
    exec(block[: block.index("result = ")].replace("size=64", f"size={SIDE}"), names)
    drawn = names["counterfactuals"]
    assert (drawn.levels, len(drawn.main)) == (("female", "male"), TESTED)  # type: ignore[attr-defined]
    first = drawn.main.read(0).drawn[0, 0, 0, 0]  # type: ignore[attr-defined]
    row = pd.read_csv("counterfactuals.csv").iloc[0]
    np.testing.assert_allclose(first, np.asarray(Image.open(row["path"])) / 255, atol=1e-6)


def at(row: int, **cells: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        changed = table.astype(object)
        for name, value in cells.items():
            changed.loc[row, name] = value
        return changed

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t[t["level"] == "female"], "records the level 'male'"),
        (lambda t: t.drop(index=3), "1 of 2 draws of the image"),
        (lambda t: t[t["draw"] == 0], "one draw per image and level"),
        (lambda t: pd.concat([t, t.iloc[[3]]]), "twice, in row 4 and row 241"),
        (at(3, path="redrawn/none.png"), "row 4: there is no image"),
        (at(3, path="../cohort.csv"), "the first in row 4"),
        (at(3, path="cohort.csv"), "is no PNG or JPEG"),
        (lambda t: t.assign(path=t["path"].where(t.index != 3, t["path"][2])), "in row 4 for the second time"),
        (lambda t: at(3, path=f"./{t['path'][2]}")(t), "in row 4 for the second time"),
        (at(3, path=""), "no path in row 4"),
        (at(3, draw="x"), "'x' as draw in row 4"),
        (at(3, level=""), "no level in row 4"),
        (lambda t: t.assign(image_id="another"), "redraws none of the 60 images"),
        (lambda t: t[t["image_id"] != t["image_id"][0]], "redraws 59 of the 60 images"),
        (lambda t: t.assign(level=t["level"].replace("male", "men")), "redrawn under female, men"),
        (lambda t: t.rename(columns={"path": "file"}), "no column 'path'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_table_is_named(
    brought: Path, cohort: Cohort, change: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    file = brought / "changed.csv"
    change(pd.read_csv(brought / "counterfactuals.csv")).to_csv(file, index=False)
    with pytest.raises(InputError) as refused:
        read_redrawn(file, cohort, attribute="sex", size=SIDE)
    assert said in str(refused.value)


@pytest.mark.parametrize("names", [["007", "008"], ["007", "12"]])
def test_ids_that_a_spreadsheet_took_for_numbers_are_named(tmp_path: Path, names: list[str]) -> None:
    """Of some of the images the advice was to take the others out of the test part."""
    frame = pd.DataFrame({"image_id": names, "path": "a.png", "patient_id": names, "sex": ["F", "M"]})
    rows = [(int(name), level, draw, "b.png") for name in names for level in "FM" for draw in range(2)]
    pd.DataFrame(rows, columns=["image_id", "level", "draw", "path"]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match="There is '7' for '007': export the column as text"):
        read_redrawn(
            tmp_path / "t.csv", Cohort(frame, tmp_path, attributes=("sex",), labels=()), attribute="sex", size=SIDE
        )


def test_a_level_is_named_as_the_cohort_or_its_table_names_it(brought: Path, cohort: Cohort) -> None:
    pairs = [("male", "female"), ("female", "male"), ("M", "male"), ("F", "female"), ("?", "")]
    crossed = replace(cohort, raw=tuple(RawCount("sex", raw, level, 1, 1) for raw, level in pairs))
    table = pd.read_csv(brought / "counterfactuals.csv")
    file = brought / "changed.csv"
    for names in ({}, {"male": "M", "female": "F"}):
        table.assign(level=table["level"].replace(names)).to_csv(file, index=False)
        redrawn = read_redrawn(file, crossed, attribute="sex", size=SIDE)
        assert redrawn["level"].tolist() == [Path(one).name.split("_")[-2] for one in redrawn["file"]]


@pytest.mark.parametrize(
    ("side", "said"), [((64, 64), "set generator.size to 64"), ((32, 24), "redrawn images are squares")]
)
def test_an_image_of_another_size_is_not_shrunk_in_silence(
    brought: Path, cohort: Cohort, side: tuple[int, int], said: str
) -> None:
    Image.new("L", side).save(brought / "redrawn" / "odd.png")
    file = brought / "changed.csv"
    at(3, path="redrawn/odd.png")(pd.read_csv(brought / "counterfactuals.csv")).to_csv(file, index=False)
    with pytest.raises(InputError, match=said):
        read_redrawn(file, cohort, attribute="sex", size=SIDE)


def deep_images(folder: Path, bits: int, redrawn_bits: int, check: str = "decode") -> tuple[Cohort, Path]:
    """Forty images of some bits (8 in an 8-bit file, more in a 16-bit one), redrawn as themselves in others."""
    shades = np.random.default_rng(0).random((40, SIDE, SIDE))
    rows = []
    for number, shade in enumerate(shades):
        files = {
            f"{number}.png": bits,
            **{f"{number}{level}{draw}.png": redrawn_bits for level in "FM" for draw in (0, 1)},
        }
        for name, depth in files.items():
            values = np.round(shade * (2**depth - 1)).astype(np.uint8 if depth == 8 else np.uint16)
            Image.fromarray(values).save(folder / name)
        rows += [(f"{number}.png", level, draw, f"{number}{level}{draw}.png") for level in "FM" for draw in (0, 1)]
    pd.DataFrame(rows, columns=["image_id", "level", "draw", "path"]).to_csv(folder / "redrawn.csv", index=False)
    table = pd.DataFrame({"path": [f"{number}.png" for number in range(40)], "patient_id": range(40)})
    table = table.assign(sex=["F", "M"] * 20, edema=[0, 1, 1, 0] * 10)
    usual = {"images": folder, "attribute": "sex", "labels": ["edema"], "min_patients_per_level": 1}
    return read_cohort(table, check=check, **usual), folder / "redrawn.csv"


@pytest.mark.parametrize(("bits", "check"), [(8, "decode"), (12, "decode"), (12, "exists"), (16, "decode")])
def test_a_redrawn_image_is_scaled_as_its_original(tmp_path: Path, bits: int, check: str) -> None:
    cohort, table = deep_images(tmp_path, bits, bits, check)
    drawn = read_counterfactuals(table, cohort, attribute="sex", size=SIDE)
    first = drawn.main.read(0)
    np.testing.assert_allclose(first.drawn[0, 0, 0, 0], cohort.pixels([0], size=SIDE)[0, 0], atol=1 / 500)
    drawn.generator.save(tmp_path / "saved")
    kept = ImagesOnDisk.load(tmp_path / "saved")
    assert (kept.white, kept.fingerprint()) == (cohort.white, drawn.generator.fingerprint())
    other = ImagesOnDisk(kept.index, attribute="sex", size=SIDE, white=1023)
    assert other.fingerprint() != kept.fingerprint()


@pytest.mark.parametrize(
    ("bits", "redrawn", "said"),
    [
        (8, 12, "4,095 as white by their values, and 65,535 is white in the cohort, so that they would be too dark"),
        (16, 12, "4,095 as white by their values, and 65,535 is white in the cohort, so that they would be too dark"),
        (12, 16, "65,535 as white by their values, and 4,095 is white in the cohort, so that they would be cut"),
    ],
)
def test_redrawn_images_of_another_depth_than_their_originals_are_refused(
    tmp_path: Path, bits: int, redrawn: int, said: str
) -> None:
    cohort, table = deep_images(tmp_path, bits, redrawn)
    with pytest.raises(InputError, match=said):
        read_redrawn(table, cohort, attribute="sex", size=SIDE)


def test_one_image_above_the_white_of_the_originals_is_not_cut(tmp_path: Path) -> None:
    cohort, table = deep_images(tmp_path, 12, 12)
    index = read_redrawn(table, cohort, attribute="sex", size=SIDE)
    bright = np.full((SIDE, SIDE), 5000, dtype=np.uint16)
    Image.fromarray(bright).save(index["file"][0])
    index.loc[0, "sha256"] = digest_or_missing(Path(index["file"][0]))
    generator = ImagesOnDisk(index, attribute="sex", size=SIDE, white=cohort.white)
    request = Request(("sex",), ("F", "M"), draws=2)
    with pytest.raises(InputError, match="values up to 5,000, and in its original 4,095 is white"):
        generator.redraw(cohort.pixels(size=SIDE), cohort.frame, request)


@pytest.mark.parametrize(
    ("generator", "said"),
    [
        ({"kind": "images"}, "'table' is missing"),
        ({"kind": "images", "table": "none.csv"}, "no table of redrawn images"),
        ({"kind": "dldm", "table": "counterfactuals.csv"}, "say kind: images"),
        ({"kind": "images", "table": "counterfactuals.csv", "options": {"ae_steps": 3}}, "leave it out"),
        ({"kind": "images", "table": "counterfactuals.csv", "size": 128}, "set generator.size to 32"),
    ],
)
def test_a_configuration_that_cannot_be_is_one_sentence(
    brought: Path, tmp_path: Path, generator: dict[str, object], said: str
) -> None:
    content = {**yaml.safe_load((brought / "audit.yaml").read_text()), "generator": generator}
    (brought / "wrong.yaml").write_text(yaml.safe_dump(content))
    done = citlr("audit", brought / "wrong.yaml", "--out", tmp_path / "run", "--quiet")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert said in done.stderr


def copied(table: pd.DataFrame, root: Path, source: int, target: int) -> pd.DataFrame:
    """The table, with the picture of one row in the place of another's."""
    place = root / "redrawn" / "copy.png"
    shutil.copy(root / table["path"][source], place)
    return at(target, path="redrawn/copy.png")(table)


def test_a_picture_that_was_copied_is_named(brought: Path, cohort: Cohort) -> None:
    """A third draw for all; of one image it is a copy of the second; and then a picture of the image before."""
    table = pd.read_csv(brought / "counterfactuals.csv")
    third = table[table["draw"] == 1].assign(draw=2)
    paths = [path.replace("_1.png", "_2.png") for path in third["path"]]
    for path, other in zip(third["path"], paths, strict=True):
        pixels = np.asarray(Image.open(brought / path))
        Image.fromarray(np.clip(pixels.astype(int) + 1, 0, 255).astype(np.uint8)).save(brought / other)
    three = pd.concat([table, third.assign(path=paths)], ignore_index=True)
    file = brought / "changed.csv"
    three.to_csv(file, index=False)
    assert len(read_redrawn(file, cohort, attribute="sex", size=SIDE)) == 6 * TESTED
    first = three.index[three["draw"] == 2][0]
    for source, said in ((1, "for several, and not all, draws of the image"), (2, "(2 rows have a picture of another")):
        copied(three, brought, source, first).to_csv(file, index=False)
        with pytest.raises(InputError, match=re.escape(said)):
            read_redrawn(file, cohort, attribute="sex", size=SIDE)


def test_draws_that_are_all_alike_are_those_of_a_generator_without_chance(brought: Path, cohort: Cohort) -> None:
    table = pd.read_csv(brought / "counterfactuals.csv")
    for row in table.index[table["draw"] == 1][:20]:
        shutil.copy(brought / table["path"][row - 1], brought / "redrawn" / f"same{row}.png")
        table.loc[row, "path"] = f"redrawn/same{row}.png"
    table.to_csv(brought / "changed.csv", index=False)
    index = read_redrawn(brought / "changed.csv", cohort, attribute="sex", size=SIDE)
    assert index.groupby(["image_id", "level"])["sha256"].nunique().eq(1).sum() == 20


def test_null_interventions_that_are_the_originals_are_told(brought: Path, cohort: Cohort) -> None:
    drawn = read_counterfactuals(brought / "counterfactuals.csv", cohort, attribute="sex", size=SIDE)
    assert null_remarks(0.0, drawn.generator) == (AS_THEY_CAME,)
    assert null_remarks(ROUNDED, drawn.generator) == (AS_THEY_CAME,)
    assert null_remarks(0.008, drawn.generator) == null_remarks(None, drawn.generator) == ()
    assert null_remarks(0.0, EditGenerator(size=SIDE)) == ()


def test_originals_in_the_place_of_null_interventions_are_refused(brought: Path, cohort: Cohort) -> None:
    """A model that reads the blur of redrawing would be found to depend on the attribute."""
    table = pd.read_csv(brought / "counterfactuals.csv")
    recorded = cohort.frame.set_index("image_id")
    own = table["level"] == table["image_id"].map(recorded["sex"])
    file = brought / "changed.csv"
    for all_alike, refused in ((own, True), (own & (table.index > 40), False), (own | True, False)):
        for row in table.index[all_alike]:
            place = f"redrawn/plain{row}.png"
            image, level = table.loc[row, ["image_id", "level"]]
            source = cohort.root / recorded["path"][image] if level == recorded["sex"][image] else None
            shutil.copy(source or brought / table["path"][row - row % 2], brought / place)
        paths = [f"redrawn/plain{row}.png" if all_alike[row] else table["path"][row] for row in table.index]
        table.assign(path=paths).to_csv(file, index=False)
        if refused:
            with pytest.raises(InputError, match="draws that are all alike of every image under its own level"):
                read_redrawn(file, cohort, attribute="sex", size=SIDE)
        else:
            assert len(read_redrawn(file, cohort, attribute="sex", size=SIDE)) == 4 * TESTED


@pytest.mark.parametrize(
    ("written", "levels"),
    [(("recorded", "estimated"), ("estimated", "recorded")), (("50", "recorded", "8"), ("8", "50"))],
)
def test_a_level_that_is_called_recorded_is_one_among_names(written: tuple[str, ...], levels: tuple[str, ...]) -> None:
    # Of a number it is the image under its own value.
    index = pd.DataFrame({"image_id": "a", "level": written, "draw": 0, "file": "a.png", "sha256": "s"})
    assert ImagesOnDisk(index, attribute="age", size=SIDE).attributes == {"age": levels}


def exchanged(table: pd.DataFrame, images: list[str], levels: tuple[str, ...] = ("female", "male")) -> pd.DataFrame:
    """Give each of some images the files of the one after it, under some levels."""
    after = dict(zip(images, [*images[1:], *images[:1]], strict=True))
    files = table.set_index(["image_id", "level", "draw"])["path"]
    rows = table[["image_id", "level", "draw"]].itertuples(index=False)
    own = [files[after[name] if name in after and level in levels else name, level, draw] for name, level, draw in rows]
    return table.assign(path=own)


def test_images_of_another_patient_are_found_whatever_the_level(brought: Path, cohort: Cohort) -> None:
    table, file, said = pd.read_csv(brought / "counterfactuals.csv"), brought / "changed.csv", StringIO()
    names = [str(name) for name in table["image_id"].unique()]
    some = names[::10]
    pairs = tuple(zip(some, [*some[1:], some[0]], strict=True))

    def found(images: list[str], levels: tuple[str, ...], cohort: Cohort = cohort) -> Any:
        exchanged(table, images, levels).to_csv(file, index=False)
        drawn = read_counterfactuals(file, cohort, attribute="sex", size=SIDE)
        return find_strangers(drawn, 0, Narrator(False, Console(file=said)), Engine())

    assert found([], ("female", "male")) == ()
    assert "another patient" not in said.getvalue()
    assert found(some, ("female", "male")) == pairs
    assert f"redrawn as another patient's: 6, {some[0]} as {some[1]}" in said.getvalue()
    # What a level changes makes another level's image a little less like the original that it shows.
    only_male = found(some, ("male",)) or ()
    assert set(only_male) <= set(pairs)
    assert len(only_male) >= 5
    # Images of one patient are alike, and who is who is not asked among them.
    one = cohort.frame["patient_id"].where(~cohort.frame["image_id"].isin(some), "one and the same")
    assert found(some, ("female", "male"), replace(cohort, frame=cohort.frame.assign(patient_id=one))) == ()


def test_a_generator_that_leaves_little_of_the_patients_is_not_accused() -> None:
    """Nearly the mean image for all, and blurred; nor one that takes brightness, contrast or a shift for its own."""
    random = np.random.default_rng(0)
    bodies = PhantomWorld(size=SIDE, anatomy="varying").sample(200, seed=4, images_per_patient=1).images()
    bodies = bodies.reshape(200, 1, SIDE, SIDE)
    weak = {
        "the mean": bodies.mean(axis=0) + 0.1 * (bodies - bodies.mean(axis=0)),
        "a blur": gaussian_filter(bodies, (0, 0, 4, 4)),
        "gamma": bodies**0.5,
        "darker": 0.4 * bodies,
        "a shift": np.roll(bodies, 1, axis=-1),
    }
    originals, rows = outline(bodies), np.arange(200)
    for name, images in weak.items():
        noisy = (images + 0.05 * random.standard_normal(bodies.shape)).astype(np.float32)
        assert (strangers(outline(noisy)[:, None], originals, rows, rows) < 0).all(), name
    # All of a good generator's in another order.
    noisy = outline((bodies + 0.02 * random.standard_normal(bodies.shape)).astype(np.float32))[:, None]
    assert np.mean(strangers(np.roll(noisy, 1, axis=0), originals, rows, rows) == np.roll(rows, 1)) > 0.95


def test_what_a_level_changes_makes_nobody_another_patient() -> None:
    """A field that is bright in all images of a level: 54 of 120 who are redrawn so were somebody else."""
    random, rows = np.random.default_rng(0), np.arange(120)
    recorded = random.integers(0, 2, 120)
    bodies = gaussian_filter(random.standard_normal((120, SIDE, SIDE)), (0, 2, 2))

    def at(level: np.ndarray) -> np.ndarray:
        drawn = 0.5 + 0.15 * bodies + random.normal(0, 0.01, bodies.shape)
        drawn[:, 4:14, 4:14] += 0.35 * level[:, None, None]
        return outline(drawn[:, None].astype(np.float32))

    originals, redrawn = at(recorded), np.stack([at(np.zeros(120)), at(np.ones(120))], axis=1)
    assert (strangers(redrawn, originals, rows, rows, recorded) < 0).all()
    redrawn[[3, 50]] = redrawn[[50, 3]]
    found = strangers(redrawn, originals, rows, rows, recorded)
    assert found[3] == 50
    assert set(np.flatnonzero(found >= 0)) <= {3, 50}
    # What goes with a level and is held, as a view, is no patient's either.
    view = (random.random(120) < np.where(recorded == 1, 0.8, 0.2)).astype(float)
    held = at(3 * view)
    assert (strangers(held[:, None].repeat(2, axis=1), held, rows, rows, recorded) < 0).all()
    few = np.where(rows < 2, 0, 1)
    assert (strangers(originals[:, None], originals, rows, rows, few) < 0).all(), "a level of two images has no mean"


def test_images_of_another_patient_take_the_verdict(brought: Path) -> None:
    table = pd.read_csv(brought / "counterfactuals.csv")
    exchanged(table, [str(name) for name in table["image_id"].unique()[::10]]).to_csv(
        brought / "mixed.csv", index=False
    )
    content = yaml.safe_load((brought / "audit.yaml").read_text())
    content["generator"]["table"] = "mixed.csv"
    (brought / "mixed.yaml").write_text(yaml.safe_dump(content))
    done = citlr("audit", "mixed.yaml", "--out", "mixed", "--quiet", cwd=brought)
    assert done.returncode == 0, done.stderr
    result = read_result(brought / "mixed" / "audit.json")
    (gate,) = [gate for gate in result.quality.gates if gate.name == "own patient"]
    assert (gate.passed, gate.value, result.quality.misfiled, result.verdict) == (False, 6, 6, "inconclusive")
    assert "than their original, far more than their own: 6." in gate.text
    named = read_faithfulness(brought / "mixed" / "quality").strangers
    assert len(named) == 6
    assert not any(image in (brought / "mixed" / "audit.json").read_text() for pair in named for image in pair)


def test_who_is_another_patient_is_said_only_where_the_images_can_tell() -> None:
    known = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)
    rows, patients, nobody = np.arange(40), np.repeat(np.arange(20), 2), np.full(40, -1)

    def told(redrawn: np.ndarray, originals: np.ndarray = known) -> np.ndarray:
        return strangers(redrawn[:, None], originals, rows, patients)

    swapped = known.copy()
    swapped[[0, 2]] = known[[2, 0]]
    assert told(swapped).tolist() == np.where(rows == 0, 2, np.where(rows == 2, 0, -1)).tolist()
    # The other image of the same patient is no stranger.
    np.testing.assert_array_equal(told(known[rows ^ 1]), nobody)
    # Of two patients who look alike, either is as near.
    twins = known.copy()
    twins[2] = known[0] + 0.05 * known[5]
    close = twins.copy()
    close[0] = twins[2]
    np.testing.assert_array_equal(told(close, twins), nobody)
    # Where redrawing leaves next to nothing of anybody, a few that look like others say nothing; most of them do.
    lost = np.random.default_rng(1).standard_normal((40, 64)).astype(np.float32)
    lost[[0, 2]] = known[[2, 0]]
    np.testing.assert_array_equal(told(lost), nobody)
    np.testing.assert_array_equal(told(np.roll(known, -2, axis=0)), np.roll(rows, -2))
