"""Verbs of data: public data sets and tables to a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citlr.cli.options import Quiet

if TYPE_CHECKING:
    from citlr.data.cohort import Cohort

prepare = typer.Typer(help="Read a public data set, or any table, into a cohort with its flow of exclusions.")

Root = Annotated[Path, typer.Argument(help="The data set's root folder.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for cohort.parquet, flow.md and flow.json.")]
Attributes = Annotated[list[str] | None, typer.Option("--attribute", help="Sensitive attribute; may be repeated.")]
Labels = Annotated[list[str] | None, typer.Option("--label", help="Finding; may be repeated.")]
AllowUnknown = Annotated[bool, typer.Option("--allow-unknown", help="Count strings outside the vocabulary as unknown.")]
Uncertain = Annotated[str, typer.Option(help="A label of -1: ignore, zeros or ones.")]
Conflicts = Annotated[str, typer.Option(help="Records of a patient that disagree: drop, first or majority.")]
Seed = Annotated[int, typer.Option(help="Seed of a drawn split.")]


def _study(
    attributes: list[str] | None, labels: list[str] | None, allow: bool, uncertain: str, conflicts: str, seed: int
) -> Any:
    from citlr.data.study import Study

    return Study(
        attributes=tuple(attributes) if attributes else None,
        labels=tuple(labels) if labels else None,
        allow_unknown=allow,
        uncertain=uncertain,  # type: ignore[arg-type]
        conflicts=conflicts,  # type: ignore[arg-type]
        seed=seed,
    )


def _write(cohort: Cohort, out: Path) -> None:
    from citlr.data.prepared import write_prepared

    for path in write_prepared(cohort, out).values():
        print(path)


@prepare.command()
def chexpert(
    root: Root,
    out: Out = Path("cohort"),
    demographics: Annotated[Path | None, typer.Option(help="CHEXPERT DEMO.xlsx or its CSV.")] = None,
    labeller: Annotated[str, typer.Option(help="chexpert or chexbert.")] = "chexpert",
    attribute: Attributes = None,
    label: Labels = None,
    allow_unknown: AllowUnknown = False,
    uncertain: Uncertain = "ignore",
    conflicts: Conflicts = "drop",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """CheXpert, with its table of demographics."""
    from citlr.console import Narrator
    from citlr.data.sources.chexpert import prepare_chexpert

    study = _study(attribute, label, allow_unknown, uncertain, conflicts, seed)
    voice = Narrator(quiet=quiet)
    _write(prepare_chexpert(root, demographics=demographics, labeller=labeller, study=study, narrator=voice), out)


@prepare.command(name="mimic-cxr")
def mimic_cxr(
    root: Root,
    mimic_iv: Annotated[Path, typer.Option(help="The folder of MIMIC-IV's hosp tables.")],
    out: Out = Path("cohort"),
    labeller: Annotated[str, typer.Option(help="chexpert or negbio.")] = "chexpert",
    attribute: Attributes = None,
    label: Labels = None,
    allow_unknown: AllowUnknown = False,
    uncertain: Uncertain = "ignore",
    conflicts: Conflicts = "drop",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """MIMIC-CXR-JPG, with the demographics of MIMIC-IV."""
    from citlr.console import Narrator
    from citlr.data.sources.mimic_cxr import prepare_mimic_cxr

    study = _study(attribute, label, allow_unknown, uncertain, conflicts, seed)
    voice = Narrator(quiet=quiet)
    _write(prepare_mimic_cxr(root, mimic_iv=mimic_iv, labeller=labeller, study=study, narrator=voice), out)


@prepare.command()
def nih(
    root: Root,
    out: Out = Path("cohort"),
    table: Annotated[str | None, typer.Option(help="The table's file name.")] = None,
    attribute: Attributes = None,
    label: Labels = None,
    allow_unknown: AllowUnknown = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """NIH ChestX-ray14."""
    from citlr.console import Narrator
    from citlr.data.sources.nih import prepare_nih

    study = _study(attribute, label, allow_unknown, "ignore", "drop", seed)
    _write(prepare_nih(root, table=table, study=study, narrator=Narrator(quiet=quiet)), out)


@prepare.command()
def padchest(
    root: Root,
    out: Out = Path("cohort"),
    table: Annotated[str | None, typer.Option(help="The table's file name.")] = None,
    attribute: Attributes = None,
    label: Labels = None,
    allow_unknown: AllowUnknown = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """PadChest."""
    from citlr.console import Narrator
    from citlr.data.sources.padchest import prepare_padchest

    study = _study(attribute, label, allow_unknown, "ignore", "drop", seed)
    _write(prepare_padchest(root, table=table, study=study, narrator=Narrator(quiet=quiet)), out)


@prepare.command()
def table(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, parquet or Excel, one row per image.")],
    attribute: Annotated[str, typer.Option(help="The sensitive attribute.")],
    label: Annotated[list[str], typer.Option(help="Finding; may be repeated.")],
    images: Annotated[Path | None, typer.Option(help="The folder that the paths are relative to.")] = None,
    map: Annotated[list[str] | None, typer.Option(help="ours=theirs, such as path=file; may be repeated.")] = None,
    covariate: Annotated[list[str] | None, typer.Option(help="Column to carry along; may be repeated.")] = None,
    split: Annotated[str | None, typer.Option(help="Column with a given split.")] = None,
    out: Out = Path("cohort"),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Any table with an image folder."""
    from citlr.console import Narrator
    from citlr.data.sources.table import prepare_table

    cohort = prepare_table(
        file,
        images=images,
        attribute=attribute,
        labels=label,
        columns=_pairs(map or []),
        covariates=tuple(covariate or ()),
        split=split,
        seed=seed,
        narrator=Narrator(quiet=quiet),
    )
    _write(cohort, out)


def _pairs(entries: list[str]) -> dict[str, str]:
    from citlr.errors import InputError

    pairs = {}
    for entry in entries:
        ours, equals, theirs = entry.partition("=")
        if not (ours and equals and theirs):
            raise InputError(f"--map '{entry}' is not of the form ours=theirs, such as --map path=file.")
        pairs[ours] = theirs
    return pairs


def describe(
    cohort: Annotated[Path, typer.Argument(help="A cohort.parquet.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write tables and plots here.")] = None,
    leaks: Annotated[bool, typer.Option("--leaks", help="Also look for near-duplicates across splits.")] = False,
    quiet: Quiet = False,
) -> None:
    """Tell who is in a cohort: disease by attribute with chi-square and Cramer's V, missingness, view and age."""
    from citlr.console import Narrator
    from citlr.data.associations import describe as cross
    from citlr.data.associations import write_description
    from citlr.data.cohort import Cohort as Stored
    from citlr.data.leaks import check_leaks

    found = Stored.from_parquet(cohort)
    description = cross(found)
    print(description.to_frame().to_string(index=False))
    if out is not None:
        for path in write_description(description, out).values():
            print(path)
    if leaks:
        for pair in check_leaks(found, narrator=Narrator(quiet=quiet)):
            print(pair)


VERBS = (describe,)
