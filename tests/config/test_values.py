"""Kinds of values: what a number, a count, a text and a path may be, in settings, records and public functions."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time
from abc import abstractmethod
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from citlr.audit.preconditions import require_buildable, require_possible
from citlr.audit.redrawing.coin import placebo_size
from citlr.audit.redrawing.drawing import CohortRequest
from citlr.config import AuditConfig, GeneratorConfig, ModelConfig, Section, parse_config, parse_section
from citlr.config.written import alternatives
from citlr.errors import InputError, StateError
from citlr.generators import registry
from citlr.generators.diffusion.settings import LDMConfig
from citlr.generators.rivals.latent_shift import LatentShiftConfig
from citlr.generators.rivals.vae import ConditionalVAE, VAEConfig
from citlr.generators.settings import GeneratorSettings
from citlr.invariance.power import power
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import assess
from citlr.run.files import read_json
from citlr.simulators.phantom.world import PhantomWorld
from citlr.text import markdown, shortened, shown, visible

BASE = {
    "cohort": {"table": "t.csv", "images": "i", "attribute": "race", "labels": ["edema"], "covariates": ["view"]},
    "model": {"source": "m.ts"},
}
JUNK: tuple[Any, ...] = (
    True, False, 0, -1, 2.5, 1e300, 1e-300, math.inf, -math.inf, math.nan, 10**18, 10**400, "", "a\0b", "\ud800",
    "x" * 5000, "/".join(["y" * 300] * 3), "5", [], [math.nan], [[]], ["a", "a"], {}, {"a": math.inf}, {1: 2},
    date(2020, 1, 1), b"x", {"a"}, np.float32(0.5), np.int64(7), np.bool_(True), np.array([1, 2]), object(), 1j,
)  # fmt: skip


def every_key(section: type[Section], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Name every key of a section, those of the sections inside it too."""
    found: list[tuple[str, ...]] = []
    for name, field in section.model_fields.items():
        found.append((*before, name))
        for kind in alternatives(field.annotation):
            if isinstance(kind, type) and issubclass(kind, Section):
                found += every_key(kind, (*before, name))
    return found


KEYS = [key for key in every_key(AuditConfig) if key[0] != "models"] + every_key(ModelConfig, ("model",))


@pytest.mark.parametrize("key", KEYS, ids=".".join)
def test_every_key_takes_what_fits_and_refuses_the_rest_in_one_short_sentence(key: tuple[str, ...]) -> None:
    for value in JUNK:
        content = json.loads(json.dumps(BASE))
        inner = content
        for part in key[:-1]:
            inner = inner.setdefault(part, {})
        inner[key[-1]] = value
        said = ""
        try:
            config = parse_config(content, "here").resolved(Path("/"))
        except InputError as error:
            said = str(error)
        else:  # what is taken survives the run's config.json
            text = json.dumps(config.model_dump(mode="json"), allow_nan=False)
            assert parse_config(json.loads(text), "there") == config
        assert len(said) <= 1000
        assert "\n" not in said
        assert "Input " not in said  # pydantic's own words


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("test.margin", True), ("test.margin", 1e-9), ("test.margin", "0.1"), ("test.alpha", math.nan),
        ("test.threshold", 0), ("test.threshold", {"edema": "0.4"}), ("test.randomizations", 10**18),
        ("gates.drift", False), ("gates.probe_steps", 2.5), ("controls.planted", [1.0, math.inf]),
        ("generate.draws", 10**18), ("generate.guidance", math.inf), ("cohort.bins", {"race": [math.nan]}),
        ("cohort.levels", ["a"]), ("cohort.labels", "edema"), ("cohort.labels", ["edema", "edema"]),
        ("cohort.cache", "yes"), ("cohort.covariates", ["race"]), ("report.mask_below", True), ("seed", -1),
        ("model.batch_size", "64"), ("model.name", [1]), ("generator.options", {"size": 64}),
    ],
)  # fmt: skip
def test_what_is_no_such_value_is_refused_by_its_key(key: str, value: Any) -> None:
    content = json.loads(json.dumps(BASE))
    section, _, name = key.rpartition(".")
    (content.setdefault(section, {}) if section else content)[name] = value
    with pytest.raises(InputError, match=key.split(".")[0]):
        parse_config(content, "here")


def test_scalars_of_numpy_are_numbers() -> None:
    content = {**BASE, "test": {"margin": np.float32(0.25), "threshold": 1}, "generate": {"draws": np.int64(3)}}
    config = parse_config(content, "here")
    assert (config.test.margin, config.test.threshold, config.generate.draws) == (0.25, 1.0, 3)
    assert type(config.generate.draws) is int


@pytest.mark.parametrize("record", [LDMConfig, VAEConfig, LatentShiftConfig])
def test_no_field_of_a_generator_takes_junk(record: type[Any]) -> None:
    plain = record.preset_of("tiny", size=32)
    assert record.from_json(json.loads(json.dumps(plain.to_json()))) == plain
    # Sections can be given as such, and their fields by flat names.
    names = {*plain.to_json(), *(field.name for field in dataclasses.fields(record))}
    for name, value in itertools.product(sorted(names), JUNK):
        try:
            made = record.from_json({**plain.to_json(), name: value})
        except InputError:
            continue
        json.dumps(made.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"options": {"ae_stepz": 3}}, "Did you mean 'ae_steps'"),
        ({"options": {"denoiser_steps": "lots"}}, "denoiser_steps='lots'"),
        ({"options": {"phi_channels": [8, True]}}, "phi_channels"),
        ({"options": {"sampling_steps": 900}}, "sampling steps do not fit"),
        ({"options": {"accelerator": "cpuu"}}, "accelerator='cpuu'"),
        ({"preset": "laptp"}, "Did you mean 'laptop'"),
        ({"size": 45}, "multiple of 4"),
        ({"kind": "vae", "options": {"beta": -2}}, "beta=-2"),
        ({"kind": "latent-shift", "options": {"autoencoder": {"ae_rate": "quick"}}}, "ae_rate='quick'"),
        ({"kind": "latent-shift", "options": {"autoencoder": 3}}, "autoencoder=3"),
        ({"options": {"strength": 1.0, "ae_channels": [64, 64, 64], "patch": 8}}, "The generator cannot be built"),
    ],
)
def test_a_generator_that_cannot_be_is_refused_before_it_is_trained(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        require_buildable(parse_section(GeneratorConfig, settings, "generator"))


@pytest.mark.parametrize("kind", ["dldm", "cldm", "vae", "latent-shift"])
def test_a_generator_of_every_kind_is_built_on_trial(kind: str) -> None:
    require_buildable(GeneratorConfig(kind=kind, size=32, preset="tiny"))


def test_a_class_of_ours_that_is_not_whole_is_no_fault_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    class Half(ConditionalVAE):
        @abstractmethod
        def forgotten(self) -> None: ...

    monkeypatch.setattr(registry, "_class_of", lambda kind: Half)
    with pytest.raises(TypeError, match="forgotten"):
        require_buildable(GeneratorConfig(kind="vae", size=32, preset="tiny"))

    @dataclasses.dataclass(frozen=True)
    class Plain(GeneratorSettings):
        """Settings whose fields' limits are all there is to check."""

        @classmethod
        def presets(cls) -> dict[str, dict[str, Any]]:
            return {"tiny": {}}

    assert Plain.preset_of("tiny", size=32).size == 32


def test_a_model_file_that_is_not_there_is_told_before_anything(tmp_path: Path) -> None:
    config = parse_config({**BASE, "model": {"source": str(tmp_path / "none.ts")}}, "here").resolved(tmp_path)
    with pytest.raises(InputError, match=r"There is no file '.*none\.ts' \(model\.source\)"):
        require_possible(config)


def test_placebo_size_is_the_smallest_that_is_enough_and_comes_at_once() -> None:
    for margin in (0.7, 0.15, 0.033, 0.011):
        size = placebo_size(margin, power=0.85)
        assert stats.binom.sf(5, size, margin) >= 0.85
        assert size == 6 or stats.binom.sf(5, size - 1, margin) < 0.85
    start = time.monotonic()
    assert placebo_size(1e-4) > 60_000
    assert time.monotonic() - start < 10
    for nothing in (1e-9, 1e-300, 0, 1, True, math.nan, "0.02"):
        with pytest.raises(InputError, match="margin="):
            placebo_size(nothing)  # type: ignore[arg-type]


def test_requests_and_public_functions_take_numbers_and_nothing_else() -> None:
    responses = Responses.from_arrays(np.random.default_rng(1).random((40, 2, 2, 1)))
    one = assess(responses, margin=np.float32(0.25), threshold=1, randomizations=np.int64(99), seed=np.int64(3))
    assert one.tests[0].margin == 0.25
    assert CohortRequest("race", draws=np.int64(2)).draws == 2  # type: ignore[arg-type]
    world = PhantomWorld(size=32)
    calls: list[tuple[Any, dict[str, Any]]] = [
        (lambda **given: assess(responses, **given), {"margin": 0.1, "alpha": 0.05, "threshold": 0.5, "seed": 0}),
        (lambda **given: power(responses, **given), {"margin": 0.1, "power": 0.8, "contrast": (0, 1), "seed": 0}),
        (
            lambda **given: CohortRequest("race", **given),
            {"draws": 2, "guidance": 1.0, "placebo_images": 0, "shard": 1},
        ),
        (PhantomWorld, {"size": 32, "correlation": 0.0, "prevalence": 0.3, "strength": 1.0, "ap_share": 0.4}),
        (world.sample, {"n_patients": 1, "images_per_patient": 1, "seed": 0}),
    ]
    for call, good in calls:
        for name, value in itertools.product(good, (True, "1", math.nan, math.inf, 10**400, [], object(), "a\0")):
            with pytest.raises(InputError):
                call(**{**good, name: value})


def test_a_message_is_short_whatever_went_into_it() -> None:
    error = InputError(f"found {'z' * 10**6}\nand \u202e\x1b[2J: use less")
    assert len(str(error)) <= 1000
    assert str(error).endswith("\\u202e\\x1b[2J: use less")
    assert len(shown([["q" * 999] * 999] * 999)) <= 200
    assert shortened("word " * 100, 60).endswith("word ")
    assert visible("a\u202eb\u2066c\x07\td\n") == "a\\u202eb\\u2066c\\x07\td\n"
    assert markdown("<a>|\u202e`*_[x](y)") == "&lt;a&gt;\\|\\\\u202e\\`\\*\\_\\[x\\](y)"
    assert markdown("~~gone~~ ~0.5") == "\\~\\~gone\\~\\~ \\~0.5"


def test_json_that_was_cut_short_is_named(tmp_path: Path) -> None:
    for content in (b'{"a": 1', b"", b"\xff\xfe\x00", b"[" * 100_000):
        (tmp_path / "plan.json").write_bytes(content)
        with pytest.raises(StateError, match=r"plan\.json' is damaged"):
            read_json(tmp_path / "plan.json")
