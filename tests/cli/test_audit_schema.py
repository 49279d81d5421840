"""The JSON Schema of the site takes the `audit.json` of a real run."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
from docsite import schema


def test_the_schema_takes_the_audit_of_a_run(never_killed: Path) -> None:
    content = json.loads((never_killed / "audit.json").read_text())
    jsonschema.Draft202012Validator(schema.schema()).validate(content)
