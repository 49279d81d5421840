"""The verb `citlr reproduce generation`: the comparison of generators."""

from pathlib import Path
from typing import Annotated

import typer

from citlr.cli.options import EngineName, Out, Quiet, Scheduler, Seed, Workers, count, engine_of, side


def generation(
    preset: Annotated[str, typer.Option(help="smoke (minutes, shows that all works) or full.")] = "full",
    cohort: Annotated[str, typer.Option(help="phantom, an audit's YAML, or a cohort.parquet.")] = "phantom",
    attribute: Annotated[str | None, typer.Option(help="What to intervene on, of a cohort.parquet.")] = None,
    hold: Annotated[
        list[str] | None,
        typer.Option(help="Covariate that is kept as observed while the attribute is redrawn; repeatable."),
    ] = None,
    correlation: Annotated[
        float | None, typer.Option(help="Of attribute and label, where it is simulated; 0.8, or 0.4 with --world.")
    ] = None,
    features: Annotated[
        str, typer.Option(help="For FID and KID: probe, inception_v3:FILE or torchxrayvision:NAME[:FILE].")
    ] = "probe",
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be repeated.")] = None,
    size: Annotated[int | None, side("Side of the images, pixels.")] = None,
    patients: Annotated[int | None, count("Patients of the phantom.")] = None,
    seeds: Annotated[int | None, count("Trainings of every model.")] = None,
    images: Annotated[int | None, count("Test images to redraw, at most.")] = None,
    budget: Annotated[str | None, typer.Option(help="Preset of the generators: tiny, small or paper.")] = None,
    probe: Annotated[str | None, typer.Option(help="What reads redrawn images: resnet34 or small (faster).")] = None,
    world: Annotated[
        list[str] | None,
        typer.Option(
            help="Effect maps alone, in worlds of known truth: phantom, varying, or, planted into the images of "
            "--cohort, effects such as shadow+shape, or null; may be repeated."
        ),
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="With --world: kind of generator; may be repeated.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="With --world: a label of the cohort; the attribute goes with the first.")
    ] = None,
    strength: Annotated[float, typer.Option(help="With --world: strength of planted effects.")] = 1.0,
    learn: Annotated[
        list[int] | None, count("With --world: so many training images; may be repeated; all without it.")
    ] = None,
    engine: EngineName = "loky",
    workers: Workers = 1,
    scheduler: Scheduler = None,
    out: Out = Path("generation"),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Train the generators and their rivals, and measure all of them by one protocol: Tables 6-11, Fig. 13-14."""
    from citlr.console import Narrator
    from citlr.errors import InputError

    narrator, power = Narrator(quiet=quiet), engine_of(engine, workers, scheduler)
    if world:
        from citlr.studies.generation.effects import Fitting, run_effects
        from citlr.studies.generation.worlds import CORRELATION, Asked
        from citlr.studies.kit.cohorts import Source

        source = Source(cohort, attribute, tuple(label or ()), None if hold is None else tuple(hold), seed=seed)
        given = CORRELATION if correlation is None else correlation
        asked = Asked(tuple(world), source, given, strength, size=size or 64, patients=patients or 6000)
        fitting = Fitting(
            tuple(kind or ("dldm",)), budget or "laptop", sizes=tuple(learn or (None,)), images=images or 300
        )
        run_effects(asked, fitting, out=out, seed=seed, engine=power, narrator=narrator)
        for name in ("effects.md", "effects.json"):
            print(out / name)
        return
    for option, value in (("kind", kind), ("label", label), ("learn", learn)):
        if value:
            raise InputError(f"--{option} goes with --world: without it, models are chosen by --model.")
    from citlr.studies.generation.run import run_generation

    run_generation(
        out=out,
        preset=preset,
        cohort=cohort,
        attribute=attribute,
        hold=hold,
        correlation=0.8 if correlation is None else correlation,
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
        engine=power,
        narrator=narrator,
    )
    for name in ("generation.md", "generation.json", "pictures.png"):
        print(out / name)
