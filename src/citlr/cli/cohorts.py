"""Verbs of data: public data sets and tables to a cohort."""

from pathlib import Path
from typing import Annotated

import typer

from citlr.cli.options import Json, Map, Quiet, Texts, option, pairs
from citlr.cli.preparing import Cache, Channels, Check, Fit, Leaks, MaxUnreadable, Out, data_set_verb, save
from citlr.data.sources.registry import DATA_SETS

prepare = typer.Typer(help="Read a public data set, or any table, into a cohort, and count who was left out and why.")

for _name, _data_set in DATA_SETS.items():
    prepare.command(name=_name)(data_set_verb(_name, _data_set))


@prepare.command()
def table(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, parquet or Excel, one row per image.")],
    attribute: Annotated[str, option("The sensitive attribute.")],
    label: Annotated[list[str], option("Finding; may be repeated.")],
    images: Annotated[Path | None, option("The folder that the paths are relative to.")] = None,
    map: Map = None,
    level: Annotated[Texts, option("raw=name, such as F=female: what the attribute's values mean.")] = None,
    edge: Annotated[
        list[float] | None, option("Cuts a numeric attribute, such as the age, into groups; may be repeated.")
    ] = None,
    keep: Annotated[Texts, option("column=value of the rows to keep; may be repeated.")] = None,
    covariate: Annotated[Texts, option("Column to carry along; may be repeated.")] = None,
    split: Annotated[str | None, option("Column with a given split.")] = None,
    uncertain: Annotated[str, option("A label of -1 is: error, ignore, zeros or ones.")] = "error",
    conflicts: Annotated[
        str, option("A patient's records disagree on sex, race or ethnicity: drop, first or majority.")
    ] = "drop",
    lateral: Annotated[str, option("Images known to be lateral: drop or keep.")] = "drop",
    seed: Annotated[int, option("Seed of a drawn split.")] = 0,
    check: Check = "decode",
    max_unreadable: MaxUnreadable = 0.01,
    fit: Fit = "pad",
    channels: Channels = 1,
    out: Out = Path("cohort"),
    cache: Cache = None,
    leaks: Leaks = False,
    quiet: Quiet = False,
) -> None:
    """Any table with an image folder (PNG, JPEG, DICOM)."""
    from citlr.console import Narrator
    from citlr.data.sources.table import prepare_table

    narrator = Narrator(quiet=quiet)
    kept: dict[str, list[str]] = {}
    for column, value in pairs("--keep", keep, "column=value, such as --keep view=PA"):
        kept.setdefault(column, []).append(value)
    cohort = prepare_table(
        file,
        images=images,
        attribute=attribute,
        labels=label,
        columns=dict(pairs("--map", map, "ours=theirs, such as --map path=file")),
        levels={attribute: dict(pairs("--level", level, "raw=name, such as --level F=female"))} if level else None,
        bins={attribute: edge} if edge else None,
        keep=kept or None,
        covariates=tuple(covariate or ()),
        split=split,
        uncertain=uncertain,
        conflicts=conflicts,
        lateral=lateral,
        seed=seed,
        check=check,
        max_unreadable=max_unreadable,
        fit=fit,
        channels=channels,
        narrator=narrator,
    )
    save(cohort, out, cache=cache, leaks=leaks, max_unreadable=max_unreadable, narrator=narrator)


def describe(
    cohort: Annotated[Path, typer.Argument(help="A cohort.parquet.")],
    out: Annotated[Path | None, option("Also write tables and plots here.", "--out", "-o")] = None,
    leaks: Annotated[bool, option("Also look for near-duplicates across splits.", "--leaks")] = False,
    generator: Annotated[
        Path | None, option("Also make sure that this trained generator has not seen the test patients.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Describe a cohort: findings by attribute with chi-square and Cramer's V, missing values, views, ages."""
    import json
    from dataclasses import asdict

    from citlr.console import Narrator
    from citlr.data.associations.measures import describe as cross
    from citlr.data.associations.measures import write_description
    from citlr.data.cohort import Cohort
    from citlr.data.leaks import check_leaks, require_unseen
    from citlr.data.splits import require_disjoint

    found = Cohort.from_parquet(cohort)
    require_disjoint(found.frame)
    if generator is not None:
        from citlr.generators.registry import load_generator

        require_unseen(found.part("test"), getattr(load_generator(generator), "seen", ()), what=str(generator))
    description = cross(found)
    pairs = check_leaks(found, narrator=Narrator(quiet=quiet)) if leaks else ()
    written = write_description(description, out) if out is not None else {}
    if as_json:
        looks = {"near_duplicates": [asdict(pair) for pair in pairs]} if leaks else {}
        print(json.dumps({**description.to_dict(), **looks}, indent=2))
        return
    for line in (description, *written.values(), *pairs):
        print(line)


VERBS = (describe,)
