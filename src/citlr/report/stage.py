"""The last arrow of the chain: from finished audits to their pages, in the run's folder."""

from __future__ import annotations

from pathlib import Path

from citlr.audit.assembly import whole_provenance
from citlr.audit.chain import STAGES as BEFORE
from citlr.audit.chain import Chain
from citlr.audit.finished import side_answered
from citlr.audit.results.result import AuditResult
from citlr.audit.stages import PAGE
from citlr.console import Narrator
from citlr.errors import InputError, did_you_mean
from citlr.report.publish import publish, templates_fingerprint
from citlr.run.engines import Engine
from citlr.run.files import write_json
from citlr.run.folder import Run
from citlr.run.stage import Stage

STAGES = (*BEFORE, "report")


def run_audit(run: Run, *, narrator: Narrator | None = None, engine: Engine | None = None) -> dict[str, AuditResult]:
    """Run every stage that is not done yet, and return the audit of every model by name."""
    with run.locked():
        chain = Chain(run, narrator or Narrator(quiet=True), engine)
        chain.upto("test")
        report(chain)
        return chain.results()


def run_stage(
    run: Run, stage: str, *, force: bool = False, narrator: Narrator | None = None, engine: Engine | None = None
) -> str:
    """Run the stages up to one, and say what it left behind."""
    if stage not in STAGES:
        raise InputError(f"There is no stage '{stage}'.{did_you_mean(stage, STAGES)}")
    with run.locked():
        chain = Chain(run, narrator or Narrator(quiet=True), engine)
        if force and stage == "report":
            run.forget(stage)
        elif force:
            chain.forget(stage)
        if stage != "report":
            chain.upto(stage)
            return f"{stage}: done, see {chain.artefact(stage)}"
        if not chain.audited():
            chain.upto("test")
        report(chain)
    return f"report: done, see {run.path(PAGE)}"


def report(chain: Chain) -> None:
    """Write the pages of finished audits."""
    run, config = chain.run, chain.config
    places = {name: chain.place(name, PAGE) for name in config.models}

    def work(folder: Path) -> None:
        sources = {name: chain.folder(name) for name in config.models}
        targets = {name: folder / place for name, place in places.items()}
        # The redrawn images are opened only where strips are shown.
        publish(
            sources,
            targets,
            chain.results(),
            lambda: chain.counterfactuals,
            report=config.report,
            sizes={name: side_answered(run, name) for name in config.models},
            first=folder / PAGE,
        )
        write_json(folder / "provenance.json", whole_provenance(run))

    inputs = {"report": config.report.model_dump(mode="json"), "templates": templates_fingerprint()}
    after = tuple(chain.keys[f"test.{name}"] for name in config.models)
    every = tuple(dict.fromkeys((PAGE, *places.values(), "provenance.json")))
    chain.do(Stage("report", inputs, work, every, after))
    chain.narrator.say(f"report: {run.path(PAGE)}")
