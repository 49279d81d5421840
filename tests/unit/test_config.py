"""The configuration is validated whole, and every error names the key and what would do."""

from __future__ import annotations

from pathlib import Path

import pytest

from citlr.config import differences, read_config
from citlr.errors import InputError

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
