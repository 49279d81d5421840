"""The verb that begins an audit: a configuration proposed from a table and its images."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from citlr.cli.options import Label, Map, mapping, option
from citlr.errors import InputError

if TYPE_CHECKING:
    from citlr.data.proposals.propose import Proposal


def init(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, parquet or Excel, one row per image.")],
    images: Annotated[
        Path | None, option("The folder that the paths are relative to; a prepared cohort needs none.")
    ] = None,
    attribute: Annotated[str, option("The sensitive attribute; asked for without it.")] = "",
    label: Label = None,
    model: Annotated[str, option("The model's file or import path; without it, one that only its owner runs.")] = "",
    map: Map = None,
    out: Annotated[Path, option("The YAML file to write.", "--out", "-o")] = Path("audit.yaml"),
    force: Annotated[bool, option("Overwrite a file that is there.", "--force")] = False,
) -> None:
    """Propose a configuration for a table and its images, with the reason of every line; asks at a terminal."""
    from citlr.data.proposals.propose import Given, Nobody, propose

    if out.exists() and not (force and out.is_file()):
        raise InputError(f"{out} is there already: give another name with --out{', or --force' * out.is_file()}.")
    if problem := _no_model(model):
        raise InputError(f"--model {problem}")
    columns = mapping("--map", map, "ours=theirs, such as --map patient_id=subject")
    at_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    asker = _Person() if at_terminal else Nobody()
    found = propose(table, images, Given(columns, attribute, tuple(label or ())), asker)
    if not model and at_terminal:
        model = _ask_model()
    problem = _write(found, out, model)
    print(out)
    if problem:
        raise InputError(f"{out} is written, and an audit would stop at this: {problem}")


VERBS = (init,)


def _write(found: Proposal, out: Path, model: str) -> str:
    """Write what reads as a configuration, with the counts of the cohort by it; say what an audit would stop at."""
    from citlr.audit.intake import audited_cohort
    from citlr.config import read_config
    from citlr.console import Narrator
    from citlr.data.proposals.written import write_proposal
    from citlr.run.files import atomic_write

    problem = ""
    with atomic_write(out) as temporary:
        temporary.write_text(write_proposal(found, out, model), encoding="utf-8")
        settings = read_config(temporary)
        try:
            tried = audited_cohort(settings.cohort, narrator=Narrator(), check="exists")
        except InputError as error:
            problem = str(error)
        else:
            temporary.write_text(write_proposal(found, out, model, tried), encoding="utf-8")
    return problem


def _no_model(model: str) -> str:
    """Say what is wrong with a path at which nothing is; what has a colon is an import path, and tried by the audit."""
    if not model or ":" in model or Path(model).exists():
        return ""
    return f"{model} is neither a file, a folder nor an import path (file.py:name): see docs/models.md."


def _ask_model() -> str:
    """Ask until there is such a model, or none."""
    while True:
        model = _ask("\nThe model's file, folder or import path (nothing: only its owner runs it)")
        problem = _no_model(model)
        if not problem:
            return model
        typer.echo(problem, err=True)


class _Person:
    """Asks at the terminal, on standard error; an answer is a name or its number."""

    def one(self, what: str, option: str, candidates: Mapping[str, str]) -> str:
        """Ask until one of the candidates is named."""
        while True:
            chosen = self._asked(what.capitalize(), candidates)
            if len(chosen) == 1:
                return chosen[0]

    def several(self, what: str, option: str, candidates: Mapping[str, str]) -> tuple[str, ...]:
        """Ask until one or more of the candidates are named."""
        while True:
            chosen = self._asked(f"{what.capitalize()} (several with commas)", candidates)
            if chosen:
                return chosen

    def _asked(self, what: str, candidates: Mapping[str, str]) -> tuple[str, ...]:
        """Ask once; an answer that is not understood is told, and gives nothing."""
        names = list(candidates)
        typer.echo(f"\n{what}:", err=True)
        for number, name in enumerate(names, start=1):
            typer.echo(f"  {number:>2}  {name}  {candidates[name]}".rstrip(), err=True)
        given = [part.strip() for part in _ask("Name or number").split(",") if part.strip()]
        by_number = {str(number): name for number, name in enumerate(names, start=1)}
        chosen = [part if part in names else by_number.get(part, "") for part in given]
        if "" in chosen:
            typer.echo(f"'{given[chosen.index('')]}' is none of them.", err=True)
            return ()
        return tuple(dict.fromkeys(chosen))


def _ask(question: str) -> str:
    """Read a line; standard output is for results, so that nothing of a question stands there."""
    typer.echo(f"{question}: ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:
        raise InputError(
            "The input ended before all questions were answered: give --attribute, --label and --model instead."
        )
    return answer.strip()
