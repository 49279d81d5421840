"""`audit.json` as a JSON Schema, from the records that write and read it."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from citlr.audit.results.result import SCHEMA, AuditResult

HEAD = """# audit.json

An audit is one JSON file of the schema `citlr.audit/1`. [audit.schema.json](audit.schema.json) is the whole schema
(JSON Schema 2020-12), made from the records that write and read the file. `citlr.read_result` reads a file back and
refuses one that is not of it. A number that does not exist is `null`, never `NaN`.

A file that was handed on (`audit.shared.json`) also has `masked_below` and `masked_subgroups`.
"""


def schema() -> dict[str, Any]:
    """Return the JSON Schema."""
    made = TypeAdapter(AuditResult).json_schema(by_alias=True, mode="serialization")
    made["properties"] = {
        "schema": {"const": SCHEMA},
        **made["properties"],
        "masked_below": {"type": "integer", "description": "Cells of fewer patients are masked."},
        "masked_subgroups": {"type": "integer", "description": "How many subgroups are left out for that."},
    }
    made["required"] = ["schema", *made["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": SCHEMA}


def page() -> str:
    """Return a table of fields for every record of the schema, the result first."""
    made = schema()
    parts = [HEAD, "## The result\n", *_record(made)]
    for name, record in made["$defs"].items():
        parts += [f"\n## {name}\n", *_record(record)]
    return "\n".join(parts) + "\n"


def _record(record: dict[str, Any]) -> list[str]:
    said = str(record.get("description", "")).split("\n\nParameters")[0]
    rows = [said, "", "| field | type | always there |", "|---|---|---|"]
    for name, field in record.get("properties", {}).items():
        needed = "yes" if name in record.get("required", ()) else "no"
        rows.append(f"| `{name}` | {_kind(field)} | {needed} |")
    return rows


def _kind(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_kind(one) for one in field["anyOf"]))
    if field.get("type") == "array":
        inner = field.get("items") or {}
        if "prefixItems" in field:
            return f"list of {len(field['prefixItems'])} ({_kind(field['prefixItems'][0])})"
        return f"list of {_kind(inner)}"
    if field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"object of {_kind(field['additionalProperties'])}"
    kind = field.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
