"""The pages that are made from the code: every key, every command and every public name, with what it means."""

from __future__ import annotations

import copy
import importlib

import jsonschema
import pytest
from docsite import commands, python, schema, settings
from report_fake import make_result

import citlr
from citlr.audit.results.result import AuditResult
from citlr.config import InputConfig, ModelConfig, OutputConfig

SECTIONS = {"": None, "model.": ModelConfig, "model.input.": InputConfig, "model.output.": OutputConfig}


def rows(page: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")] for line in lines]


def test_every_key_has_a_type_and_a_meaning() -> None:
    """A new key without a line below it that says what it means fails here."""
    silent = [name for name, field in settings.keys_of().items() if not field.description]
    for prefix, section in SECTIONS.items():
        if section is not None:
            silent += [f"{prefix}{name}" for name, field in section.model_fields.items() if not field.description]
    assert silent == []
    page = settings.page()
    assert {key.rsplit(".")[-1] for key in settings.keys_of()} <= {row[0].strip("`") for row in rows(page)}
    for key, kind, _, meaning in rows(page):
        assert kind, key
        assert meaning, key
        assert "typing" not in kind, key
        assert "Annotated" not in kind, key


def test_types_defaults_and_limits_are_told_in_words() -> None:
    page = settings.page()
    assert "| `margin` | number, ≥ 0.0001, < 1 | `0.02` |" in page
    assert "| `hold` | list of text | `[]` |" in page
    assert "| `attribute` | text | required |" in page
    assert "| `cache` | true or false | `true` |" in page
    assert "`error`, `ignore`, `zeros`, `ones` | `error`" in page


def test_every_verb_and_every_option_is_on_the_page() -> None:
    page = commands.page()
    listed = dict(commands.verbs())
    assert {"citlr audit", "citlr init", "citlr prepare chexpert", "citlr reproduce imaging"} <= set(listed)
    for name, command in listed.items():
        part = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert command.help.split("\n")[0].split(".")[0].strip() in part
        for option in (one for one in command.params if one.param_type_name == "option" and one.name != "help"):
            assert f"`{', '.join((*option.opts, *option.secondary_opts))}`" in part, (name, option.name)
    for row in rows(page):
        assert row[1], row


def test_every_public_name_has_an_entry_that_is_there() -> None:
    page = python.page()
    for name in set(citlr.__all__) - {"__version__"}:
        assert f"heading: citlr.{name}\n" in page
        home, _, last = python.where(name).rpartition(".")
        assert hasattr(importlib.import_module(home), last)
    assert python.where("audit") == "citlr.audit.api.audit"


def check(content: object) -> None:
    jsonschema.Draft202012Validator(schema.schema()).validate(content)


def test_the_schema_takes_a_result_and_nothing_else() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.schema())
    whole = make_result().to_dict()
    check(whole)
    # What an audit that was handed on has besides, and a number that does not exist.
    shared = copy.deepcopy(whole) | {"masked_below": 5, "masked_subgroups": 0}
    shared["tests"][0]["pvalue"] = None
    check(shared)
    for change in ({"schema": "citlr.audit/2"}, {"verdict": "fair"}, {"no_such_key": 1}, {"tests": [{"label": "a"}]}):
        with pytest.raises(jsonschema.ValidationError):
            check(whole | change)


def test_every_field_of_the_result_is_in_the_schema() -> None:
    assert set(AuditResult.__dataclass_fields__) <= set(schema.schema()["properties"])
    page = schema.page()
    assert "| `verdict` | `dependence`, `equivalent`, `inconclusive` | yes |" in page
    for record in schema.schema()["$defs"]:
        assert f"\n## {record}\n" in page
