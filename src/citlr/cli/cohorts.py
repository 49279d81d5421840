"""Verbs of data: public data sets and tables to a cohort; the choices of a study are options once for all data sets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citlr.cli.options import Json, Map, Quiet, Texts, mapping, option, pairs
from citlr.data.sources.registry import DATA_SETS, DataSet, reader

if TYPE_CHECKING:
    from citlr.console import Narrator
    from citlr.data.cohort import Cohort

Root = Annotated[Path, typer.Argument(help="The data set's root folder.")]
Out = Annotated[Path, option("Folder for cohort.parquet, flow.md and flow.json.", "--out", "-o")]
Cache = Annotated[
    int | None, option("Also decode all images once, to this many pixels a side; an audit reads them there.", "--cache")
]
Leaks = Annotated[
    bool, option("Also list images that look the same in different splits (near_duplicates.csv).", "--leaks")
]
Check = Annotated[str, option("Look at the image files: exists, structure, decode or none.")]
Fit = Annotated[str, option("How images become square: pad, crop or stretch.")]
Channels = Annotated[int, option("1 reads images as grey, 3 as red, green and blue.")]
MaxUnreadable = Annotated[float, option("Share of missing or damaged images that may be left out.")]


def study_options(
    attribute: Annotated[
        Texts, option("Sensitive attribute, the main one first; may be repeated.", "--attribute")
    ] = None,
    label: Annotated[Texts, option("Finding; may be repeated.", "--label")] = None,
    views: Annotated[str, option("frontal or all.")] = "frontal",
    race: Annotated[Texts, option("Level of race that is kept; white, black and asian without it.", "--race")] = None,
    conflicts: Annotated[str, option("A patient's records disagree: drop, first or majority.")] = "drop",
    uncertain: Annotated[str, option("A label of -1 becomes: ignore, zeros or ones.")] = "ignore",
    blank: Annotated[str, option("A label that is blank becomes: zeros or ignore.")] = "zeros",
    age_edge: Annotated[
        list[float] | None, option("Inner edge of age_group; 40 and 60 without it.", "--age-edge")
    ] = None,
    age_cap: Annotated[float, option("The one value for ages above 89; 0 keeps them.")] = 90.0,
    min_age: Annotated[float, option("Younger patients are left out.")] = 0.0,
    allow_unknown: Annotated[
        bool, option("Strings outside the vocabulary count as unknown.", "--allow-unknown")
    ] = False,
    split: Annotated[str, option("auto (the data set's own if it has a test part), official or drawn.")] = ("auto"),
    seed: Annotated[int, option("Seed of a drawn split.")] = 0,
    check: Check = "exists",
    max_unreadable: MaxUnreadable = 0.01,
    fit: Fit = "pad",
) -> Any:
    """Put the options together as a study; what is no choice is said in one sentence by the study itself."""
    given: dict[str, Any] = dict(locals())
    from citlr.data.sources.study import Study as Choices

    for one, many in (("attribute", "attributes"), ("label", "labels"), ("race", "races"), ("age_edge", "age_edges")):
        values = given.pop(one)
        if values:
            given[many] = tuple(values)
    return Choices(**{**given, "age_cap": age_cap or None})


def data_set_verb(name: str, data_set: DataSet) -> Callable[..., None]:
    """Make the verb that prepares a data set: its own options, those of the study, and where it goes."""
    shared = _parameters(study_options, data_set.without)

    def verb(**given: Any) -> None:
        from citlr.console import Narrator

        out, cache, leaks = given.pop("out"), given.pop("cache"), given.pop("leaks")
        narrator = Narrator(quiet=given.pop("quiet"))
        study = study_options(**{name: given.pop(name) for name in shared})
        cohort = reader(name)(**given, study=study, narrator=narrator)
        save(cohort, out, cache=cache, leaks=leaks, max_unreadable=study.max_unreadable, narrator=narrator)

    _sign(verb, {**_own_parameters(data_set), **shared, **_parameters(_last_options)})
    verb.__doc__ = data_set.summary
    return verb


def save(
    cohort: Cohort, out: Path, *, cache: int | None, leaks: bool, max_unreadable: float, narrator: Narrator
) -> None:
    """Write what `citlr prepare` leaves behind, and print where."""
    from citlr.data.cohort import Cohort as Stored
    from citlr.data.leaks import check_leaks, write_near_duplicates
    from citlr.data.prepared import write_prepared

    written = write_prepared(cohort, out, cache=cache, max_unreadable=max_unreadable, narrator=narrator)
    if leaks:
        pairs = check_leaks(Stored.from_parquet(written["cohort"]), narrator=narrator)
        written["near_duplicates"] = write_near_duplicates(pairs, out)
    for path in written.values():
        print(path)


def _last_options(out: Out = Path("cohort"), cache: Cache = None, leaks: Leaks = False, quiet: Quiet = False) -> None:
    """Hold the options that every verb ends with."""


def _parameters(function: Callable[..., Any], without: Collection[str] = ()) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function, eval_str=True).parameters
    return {name: one.replace(kind=one.KEYWORD_ONLY) for name, one in found.items() if name not in without}


def _own_parameters(data_set: DataSet) -> dict[str, inspect.Parameter]:
    """Make parameters of the folder and of the options that only this data set has."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    made = {"root": inspect.Parameter("root", keyword, annotation=Root)}
    for name, own in data_set.options.items():
        default = typer.Option(own.default, help=own.help)
        made[name] = inspect.Parameter(name, keyword, default=default, annotation=own.kind)
    return made


def _sign(verb: Callable[..., None], parameters: dict[str, inspect.Parameter]) -> None:
    """Give a function a signature, for typer to read its arguments and options from."""
    # Both are what typer looks at, by its version.
    verb.__signature__ = inspect.Signature([*parameters.values()])  # type: ignore[attr-defined]
    verb.__annotations__ = {name: one.annotation for name, one in parameters.items()}


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
        columns=mapping("--map", map, "ours=theirs, such as --map path=file"),
        levels={attribute: mapping("--level", level, "raw=name, such as --level F=female")} if level else None,
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
