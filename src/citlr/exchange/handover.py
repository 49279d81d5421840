"""Handing a run's images to the owner of a closed model, and taking the answers back."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from citlr.audit.assembly import CLOSED
from citlr.audit.chain import Chain
from citlr.audit.results.result import AuditResult
from citlr.console import Narrator
from citlr.errors import InputError
from citlr.exchange.answers import ingest
from citlr.exchange.closed import Export, Format, export_blind, require_exported
from citlr.report.publish import report
from citlr.run.files import sha256
from citlr.run.folder import Run

FOLDER = "closed"


def export_run(run: Run, *, out: Path, format: str = "png", narrator: Narrator | None = None) -> Export:
    """Write a run's redrawn images and originals under opaque names; see `citlr.exchange.closed.export_blind`."""
    narrator = narrator or Narrator(quiet=True)
    with run.locked():
        chain = Chain(run, narrator)
        chain.upto("quality")
        counterfactuals = chain.counterfactuals
        sets = counterfactuals.sets
        images = len(counterfactuals.main) + sum(len(part) * len(part.plan.levels) * part.plan.draws for part in sets)
        size = _size(chain)
        images += len(counterfactuals.main) if size > counterfactuals.main.plan.size else 0
        with narrator.progress("export", images) as tick:
            return export_blind(
                sets,
                chain.test_part,
                key_folder=run.path(FOLDER),
                out=out,
                format=cast(Format, format),
                size=size,
                tick=tick,
            )


def ingest_run(
    run: Run, file: Path, *, model: str = "", percent: bool = False, narrator: Narrator | None = None
) -> dict[str, AuditResult]:
    """Take a closed model's answers and finish its audit; the run is untouched until the whole file is accepted."""
    closed = [name for name, settings in run.config.models.items() if settings.kind == CLOSED]
    name = model or (closed[0] if len(closed) == 1 else "")
    if name not in closed:
        known = ", ".join(closed) or "none"
        raise InputError(
            f"Say which closed model the answers are of with --model (closed models of this run: {known})."
        )
    with run.locked():
        chain = Chain(run, narrator or Narrator(quiet=True))
        chain.upto("quality")
        require_exported(run.path(FOLDER), chain.counterfactuals.main, _size(chain))
        labels = run.config.models[name].labels or run.config.cohort.labels
        cut = run.config.test.threshold
        frame = ingest(file, key_folder=run.path(FOLDER), labels=labels, percent=percent, threshold=cut)
        chain.ingest(name, frame, sha256(file))
        chain.upto("test")
        report(chain)
        return chain.results()


def _size(chain: Chain) -> int:
    """Give the side that pictures are handed out in: the largest that a closed model of the run declares to read."""
    closed = [size for name, size in chain.sizes.items() if chain.predictor(name) is None]
    return max(closed or [chain.counterfactuals.main.plan.size])
