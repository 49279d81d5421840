"""Verbs that look before anything long starts: the machine, and what an audit will take on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from citlr.cli.options import Json, Out, Quiet, Trust, option

if TYPE_CHECKING:
    from citlr.config import AuditConfig


def plan(
    config: Annotated[Path, typer.Argument(help="The YAML configuration.")],
    out: Out = Path("run"),
    json: Annotated[Path | None, option("Also write the plan as JSON here.")] = None,
    trust: Trust = False,
    quiet: Quiet = False,
) -> None:
    """Check an audit before it starts, and say what it will take on this machine: time by stage, memory, disk.

    Takes a minute or so: every stage is tried on a few images. Nothing is written but the JSON.
    """
    from citlr.config import read_config

    show_plan(trusting(read_config(config), trust), out, json, quiet)


def doctor(as_json: Json = False) -> None:
    """List versions, devices, disk and extras, for a bug report; no path and no data of a patient."""
    import json

    from citlr.run.machine import examine

    found = examine()
    print(json.dumps(found.to_dict(), allow_nan=False) if as_json else found)


VERBS = (plan, doctor)


def show_plan(settings: AuditConfig, out: Path, json: Path | None, quiet: bool) -> None:
    """Print the plan of an audit into a folder, and write its JSON where that is asked for."""
    from citlr.audit.planning.plan import plan_audit
    from citlr.console import Narrator
    from citlr.report.page import write_report
    from citlr.run.files import write_json

    found = plan_audit(settings, out, write_page=write_report, narrator=Narrator(quiet=quiet))
    if json is not None:
        write_json(json, found.to_dict())
    print(found)


def trusting(settings: AuditConfig, trust: bool) -> AuditConfig:
    """Give settings in which every model is trusted, where the user trusts them."""
    if not trust:
        return settings
    models = {name: model.model_copy(update={"trust": True}) for name, model in settings.models.items()}
    return settings.model_copy(update={"models": models})
