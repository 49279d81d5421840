"""The verb `citlr reproduce imaging`: the study of many networks."""

from pathlib import Path
from typing import Annotated

import typer

from citlr.cli.options import EngineName, Out, Quiet, Scheduler, Seed, Workers, count, engine_of, side


def imaging(
    cohort: Annotated[str, typer.Option(help="phantom, an audit's YAML, or a cohort.parquet.")] = "phantom",
    attribute: Annotated[str | None, typer.Option(help="What to intervene on: sex, race, ...")] = None,
    preset: Annotated[str, typer.Option(help="smoke (3 networks, 3 checkpoints, 64 pixels) or paper.")] = "smoke",
    label: Annotated[list[str] | None, typer.Option(help="Finding; may be repeated.")] = None,
    hold: Annotated[
        list[str] | None,
        typer.Option(help="Covariate that is kept as observed while the attribute is redrawn; repeatable."),
    ] = None,
    correlation: Annotated[float, typer.Option(help="Of sex with the findings, in the phantom.")] = 0.8,
    network: Annotated[list[str] | None, typer.Option(help="Train only this network; may be repeated.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="NAME=FILE: audit this model too; may be repeated.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Read pickles among --model; they can run any code.")] = False,
    weights: Annotated[str, typer.Option(help="First weights: auto, none, or a file.")] = "auto",
    outcome: Annotated[str, typer.Option(help="What is tested: decision or probability.")] = "decision",
    checkpoints: Annotated[int | None, count("Kept per network.")] = None,
    rounds: Annotated[int | None, count("Passes over the training split, at most.")] = None,
    round_steps: Annotated[int | None, count("Steps per round; a whole pass without it.")] = None,
    size: Annotated[int | None, side("Side of the images, pixels.")] = None,
    patients: Annotated[int | None, count("Patients of the phantom.")] = None,
    images: Annotated[int | None, count("Test images, at most.")] = None,
    draws: Annotated[int | None, count("Images per level.")] = None,
    budget: Annotated[str | None, typer.Option(help="Preset of the generator: tiny, small or paper.")] = None,
    engine: EngineName = "loky",
    workers: Workers = 1,
    scheduler: Scheduler = None,
    out: Out = Path("imaging"),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Train the networks, audit every checkpoint on images redrawn once: Tables 2-3, 6, 12-13, Fig. 3-4, 6, 8-12."""
    from citlr.console import Narrator
    from citlr.studies.imaging.run import run_imaging

    content = run_imaging(
        out=out,
        cohort=cohort,
        attribute=attribute,
        preset=preset,
        labels=label or (),
        hold=hold,
        correlation=correlation,
        models=model or (),
        trust=trust,
        weights=None if weights == "none" else weights,
        outcome=outcome,
        changes={
            "networks": tuple(network or ()),
            "keep": checkpoints,
            "rounds": rounds,
            "round_steps": round_steps,
            "size": size,
            "patients": patients,
            "images": images,
            "draws": draws,
            "generator": budget,
        },
        engine=engine_of(engine, workers, scheduler),
        seed=seed,
        narrator=Narrator(quiet=quiet),
    )
    for note in content["notes"]:
        print(note)
    for name in ("imaging.html", "audit.html", "imaging.json"):
        print(out / name)
