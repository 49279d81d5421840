"""The report's documentation says what the code does: the map of guidance, the workflow file, the policy."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer
import yaml

from citlr.cli.app import app
from citlr.exchange.policy import read_policy
from citlr.report.guidance import items

DOCS = Path(__file__).parents[2] / "docs"


def test_the_map_in_the_documentation_is_the_one_of_the_page() -> None:
    text = (DOCS / "report.md").read_text(encoding="utf-8")
    rows = [
        f"| {one.source} | {one.item} | {one.answer} | {one.anchor}{f': {one.remark}' if one.remark else ''} |"
        for one in items(accuracy=True)
    ]
    assert "\n".join(rows) in text


def test_the_policy_of_the_documentation_is_one() -> None:
    policy = read_policy(DOCS / "workflows" / "policy.yaml")
    assert policy.fail_on == ("dependence", "inconclusive")
    text = (DOCS / "release-gate.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == set(type(policy).model_fields)


def test_every_command_of_the_workflow_exists_with_its_options() -> None:
    workflow = yaml.safe_load((DOCS / "workflows" / "audit-on-release.yml").read_text(encoding="utf-8"))
    assert workflow[True]["release"]["types"] == ["published"]  # YAML 1.1 reads `on` as a truth
    steps = workflow["jobs"]["audit"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    ours = [shlex.split(command) for command in commands if command.startswith("citlr ")]
    assert [words[1] for words in ours] == ["audit", "check", "report"]
    group = typer.main.get_command(app)
    for words in ours:
        verb = group.commands[words[1]]  # type: ignore[attr-defined]
        known = {name for parameter in verb.params for name in parameter.opts}
        assert {word for word in words[2:] if word.startswith("--")} <= known
        # Parsing alone: a missing argument or a value of the wrong type would raise.
        verb.make_context(words[1], list(words[2:]), resilient_parsing=False)
    checked, reported = (
        [step for step in steps if f"citlr {verb}" in step.get("run", "")] for verb in ("check", "report")
    )
    # After a breach too, but never of an audit that was refused.
    assert reported[0]["if"] == f"success() || steps.{checked[0]['id']}.outcome == 'failure'"
