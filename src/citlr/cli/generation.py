"""The verb `citlr reproduce generation`: the comparison of generators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from citlr.cli.options import Out, Quiet, Seed, count, side


def generation(
    preset: Annotated[str, typer.Option(help="smoke (minutes, shows that all works) or full.")] = "full",
    cohort: Annotated[str, typer.Option(help="phantom, an audit's YAML, or a cohort.parquet.")] = "phantom",
    attribute: Annotated[str | None, typer.Option(help="What to intervene on, of a cohort.parquet.")] = None,
    hold: Annotated[list[str] | None, typer.Option(help="Covariate to hold; may be repeated.")] = None,
    correlation: Annotated[float, typer.Option(help="Of sex with cardiomegaly, in the phantom.")] = 0.8,
    features: Annotated[
        str, typer.Option(help="For FID and KID: probe, inception_v3:FILE or torchxrayvision:NAME[:FILE].")
    ] = "probe",
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be repeated.")] = None,
    size: Annotated[int | None, side("Side of the images, pixels.")] = None,
    patients: Annotated[int | None, count("Of the phantom.")] = None,
    seeds: Annotated[int | None, count("Trainings of every model.")] = None,
    images: Annotated[int | None, count("Test images to redraw, at most.")] = None,
    budget: Annotated[str | None, typer.Option(help="Preset of the generators: tiny, small or paper.")] = None,
    probe: Annotated[str | None, typer.Option(help="What reads redrawn images: resnet34 or small (faster).")] = None,
    out: Out = Path("generation"),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Train the generators and their rivals, and measure all of them by one protocol: Tables 6-11, Fig. 13-14."""
    from citlr.console import Narrator
    from citlr.studies.generation.run import run_generation

    run_generation(
        out=out,
        preset=preset,
        cohort=cohort,
        attribute=attribute,
        hold=hold,
        correlation=correlation,
        features=features,
        models=model or (),
        changes={
            "size": size,
            "patients": patients,
            "seeds": seeds,
            "images": images,
            "preset": budget,
            "probe": probe,
        },
        seed=seed,
        narrator=Narrator(quiet=quiet),
    )
    for name in ("generation.md", "generation.json", "pictures.png"):
        print(out / name)
