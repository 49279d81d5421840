"""The configuration is validated whole, and every error names the key and what would do."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from citlr.audit.api import audit
from citlr.audit.generation import generate
from citlr.audit.measures.faithfulness import QualitySettings
from citlr.audit.redrawing.drawing import CohortRequest
from citlr.config import ControlsConfig, GenerateConfig, QualityConfig, Section, TestConfig, differences, read_config
from citlr.errors import InputError
from citlr.invariance.verdict import assess

BASE = """
cohort: {table: data/a.csv, images: data, attribute: sex, labels: [pneumonia], covariates: [view]}
model: {source: model.onnx}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "audit.yaml"
    file.write_text(text)
    return file


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, BASE))
    assert config.cohort.table == tmp_path / "data" / "a.csv"
    assert config.models["model"].source == str(tmp_path / "model.onnx")


def test_an_import_path_is_left_alone(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, BASE.replace("model.onnx", "package.module:build")))
    assert config.models["model"].source == "package.module:build"


def test_order_of_keys_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    first = read_config(write(tmp_path, BASE)).fingerprint()
    swapped = "\n".join(reversed(BASE.strip().splitlines()))
    assert read_config(write(tmp_path, swapped)).fingerprint() == first
    assert read_config(write(tmp_path, BASE + "seed: 1")).fingerprint() != first


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASE + "report: {gallery: 4, gallery_pixels: 512}", "no_burnt_in_text: true, or keep to 128 pixels"),
        (BASE + "test: {margn: 0.1}", "unknown key 'test.margn'. Did you mean 'margin'?"),
        (BASE + "tset: {}", "unknown key 'tset'. Did you mean 'test'?"),
        (BASE.replace("source", "sorce"), "unknown key 'model.sorce'. Did you mean 'source'?"),
        (BASE + "generator: {hold: [vieww]}", "neither a label nor a covariate of the cohort. Did you mean 'view'?"),
        (BASE + "generator: {hold: [zzz]}", "of the cohort. Known: pneumonia, view."),
        (BASE + "generator: {hold: [sex]}", "the attribute itself"),
        (BASE + "generator: {options: {abduction: inversion}}", "set options.eta above 0"),
        (BASE + "test: {threshold: {edema: 0.5}}", "each label once"),
        (BASE + "test: {margin: 0}", "'test.margin' is 0: it should be greater than or equal to 0.0001"),
        (BASE + "generate: {draws: 1}", "'generate.draws' is 1"),
        (BASE + "models: {a: {source: b.onnx}}", "either 'model' (one) or 'models'"),
        (BASE.replace("model: {source: model.onnx}", "models: {../a: {source: b.onnx}}"), "cannot name a folder"),
        (BASE.replace("model.onnx}", "model.onnx, labels: [effusion]}"), "none of the cohort's labels"),
        ("cohort: [", "not valid YAML"),
        ("just words", "not a mapping"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_errors_name_the_key_and_what_would_do(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_config(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not str(caught.value).endswith("..")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASE + "seed: 1\nseed: 2", "the key 'seed' is there twice, again in line 5"),
        (BASE + "gates: {drift: .1, drift: .2}", "the key 'drift' is there twice"),
        (BASE + "quality: &q {features: *q}", "'&q' holds itself"),
        (BASE + "quality: [" * 500, "nested more than 30 levels deep"),
        (BASE + "".join(f"{' ' * step}a{step}:\n" for step in range(99)), "nested more than 30 levels deep"),
        (BASE + "quality: *nowhere", "undefined alias"),
        (BASE + "seed: 2024-02-31", "not valid YAML"),
        (BASE + "? {a: b}\n: 1", "keys are names"),
        (BASE + "report: !!set {gallery}", "none that a setting has"),
        (BASE + "test: {margin: '0.05'}", "give a number, without quotes"),
        (BASE + "generator: {options: {size: 64}}", "give generator.size"),
        (BASE + "x1: 1\nx2: 1\nx3: 1\nx4: 1\nx5: 1\nx6: 1\nx7: 1", "and 2 more"),
        (BASE.replace("model.onnx", "m.onnx, input: {size: 3.5}"), "'model.input.size' is 3.5"),
        (BASE.replace("model.onnx", "m.onnx, input: {siz: 3}"), "unknown key 'model.input.siz'. Did you mean 'size'?"),
        (BASE.replace("model.onnx", "m.onnx, output: {kind: logit, columns: [b]}"), "'model.output.columns.0' is 'b'"),
        (BASE.replace("source: model.onnx", "kind: vendor"), "'callable' or 'closed'"),
        (BASE.replace("source: model.onnx", "labels: [pneumonia]"), "'source' is missing"),
        (BASE.replace("source: model.onnx", "kind: closed, output: logit"), "leave out output"),
        (BASE.replace("data/a.csv", '"a\\0.csv"'), "which no text has"),
        (BASE.replace("data/a.csv", "d" * 5000), "no path is that long"),
    ],
)
def test_yaml_that_is_not_meant_is_one_short_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_config(write(tmp_path, text))
    assert said in str(caught.value)
    assert len(str(caught.value)) <= 1000


def test_few_bytes_do_not_become_a_flood(tmp_path: Path) -> None:
    layers = "".join(f"l{step + 1}: &l{step + 1} [{', '.join([f'*l{step}'] * 9)}]\n" for step in range(9))
    with pytest.raises(InputError, match="stands for more than 100000 values") as caught:
        read_config(write(tmp_path, f"l0: &l0 [lol]\n{layers}{BASE}"))
    assert len(str(caught.value)) < 400


def test_text_is_read_as_it_is_written(tmp_path: Path) -> None:
    text = """
cohort:
  table: t.csv
  attribute: on
  labels: [no, 1e5]
  levels: [yes, 0, 010, 1.50, 2020-01-01, null]
  keep: {true: [off, 7]}
  columns: {no: 12}
  split:
model: {kind: closed, labels: [no]}
test: {margin: 5e-2, threshold: {no: .5, 1e5: 1}}
generator: {options: {kl_weight: 1e-6, at_depth: no}}
"""
    config = read_config(write(tmp_path, text))
    assert config.cohort.attribute == "on"
    assert config.cohort.labels == ("no", "1e5")
    assert config.cohort.levels == ("yes", "0", "010", "1.50", "2020-01-01", "null")
    assert (config.cohort.keep, config.cohort.columns) == ({"true": ("off", "7")}, {"no": "12"})
    assert config.cohort.split is None
    assert (config.test.margin, config.test.threshold) == (0.05, {"no": 0.5, "1e5": 1.0})
    assert config.generator.options == {"kl_weight": 1e-6, "at_depth": False}
    assert config.models["model"].source is None


def test_merged_and_aliased_settings_are_taken(tmp_path: Path) -> None:
    text = (
        BASE + "gates: &g {drift: .1}\nquality: {cycles: &c 3}\ncontrols: {<<: {bootstraps: *c}, replicate_images: *c}"
    )
    config = read_config(write(tmp_path, text))
    assert (config.controls.bootstraps, config.controls.replicate_images, config.quality.cycles) == (3, 3, 3)


@pytest.mark.parametrize("path", ["n" * 5000, "n" * 300, "a\0b", "."])
def test_a_path_that_cannot_be_is_named(path: str) -> None:
    with pytest.raises(InputError, match="No configuration at"):
        read_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No configuration at '.*none\.yaml'"):
        read_config(tmp_path / "none.yaml")


def test_differences_are_told_by_key() -> None:
    assert differences({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "e": 5}) == [
        "a.c: 2 -> 4",
        "d: 3 -> None",
        "e: None -> 5",
    ]


def test_inversion_with_fresh_noise_and_seeds_of_each_level_are_taken(tmp_path: Path) -> None:
    text = "generator: {options: {abduction: inversion, eta: 0.5}}\ngenerate: {shared_seeds: false}"
    config = read_config(write(tmp_path, BASE + text))
    assert not config.generate.shared_seeds
    assert config.generator.options["eta"] == 0.5


@pytest.mark.parametrize(
    ("function", "section"),
    [
        (audit, TestConfig),
        (assess, TestConfig),
        (generate, GenerateConfig),
        (generate, ControlsConfig),
        (generate, TestConfig),
        (CohortRequest, GenerateConfig),
        (QualitySettings, QualityConfig),
    ],
)
def test_what_is_left_out_is_the_same_in_python_and_in_a_configuration(function: Any, section: type[Section]) -> None:
    default = {one.name: one.default for one in signature(function).parameters.values() if one.default is not one.empty}
    shared = default.keys() & section.model_fields.keys()
    assert shared
    assert {name: default[name] for name in shared} == {name: section.model_fields[name].default for name in shared}


def test_models_that_are_listed_are_told_to_be_named(tmp_path: Path) -> None:
    """The sentence named 'model', which nobody had written."""
    text = BASE.replace("model: {source: model.onnx}", "models: [{name: a, source: a.onnx}, {source: b.onnx}]")
    with pytest.raises(InputError, match=r"'models' is \[.*\], not a mapping of names to models, such as \{ours: "):
        read_config(write(tmp_path, text))
