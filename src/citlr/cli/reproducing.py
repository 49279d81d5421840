"""The verbs of `citlr reproduce`: the studies whose tables and figures are made again."""

from pathlib import Path
from typing import Annotated

import typer

from citlr.cli.options import EngineName, Out, Quiet, Scheduler, Seed, Texts, Workers, count, engine_of, option, side

Hold = Annotated[Texts, option("Covariate that is kept as observed while the attribute is redrawn; repeatable.")]


def generation(
    preset: Annotated[str, option("smoke (minutes, shows that all works) or full.")] = "full",
    cohort: Annotated[str, option("phantom, an audit's YAML, or a cohort.parquet.")] = "phantom",
    attribute: Annotated[str | None, option("What to intervene on, of a cohort.parquet.")] = None,
    hold: Hold = None,
    correlation: Annotated[
        float | None, option("Of attribute and label, where it is simulated; 0.8, or 0.4 with --world.")
    ] = None,
    features: Annotated[
        str, option("For FID and KID: probe, inception_v3:FILE or torchxrayvision:NAME[:FILE].")
    ] = "probe",
    model: Annotated[Texts, option("Only this model; may be repeated.")] = None,
    size: Annotated[int | None, side("Side of the images, pixels.")] = None,
    patients: Annotated[int | None, count("Patients of the phantom.")] = None,
    seeds: Annotated[int | None, count("Trainings of every model.")] = None,
    images: Annotated[int | None, count("Test images to redraw, at most.")] = None,
    budget: Annotated[str | None, option("Preset of the generators: tiny, small or paper.")] = None,
    probe: Annotated[str | None, option("What reads redrawn images: resnet34 or small (faster).")] = None,
    world: Annotated[
        Texts,
        option(
            "Effect maps alone, in worlds of known truth: phantom, varying, or, planted into the images of "
            "--cohort, effects such as shadow+shape, or null; may be repeated."
        ),
    ] = None,
    kind: Annotated[Texts, option("With --world: kind of generator; may be repeated.")] = None,
    label: Annotated[Texts, option("With --world: a label of the cohort; the attribute goes with the first.")] = None,
    strength: Annotated[float, option("With --world: strength of planted effects.")] = 1.0,
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
    for name, value in (("kind", kind), ("label", label), ("learn", learn)):
        if value:
            raise InputError(f"--{name} goes with --world: without it, models are chosen by --model.")
    from citlr.studies.generation.run import run_generation

    changes = {"size": size, "patients": patients, "seeds": seeds, "images": images, "preset": budget, "probe": probe}
    run_generation(
        out=out,
        preset=preset,
        cohort=cohort,
        attribute=attribute,
        hold=hold,
        correlation=0.8 if correlation is None else correlation,
        features=features,
        models=model or (),
        changes=changes,
        seed=seed,
        engine=power,
        narrator=narrator,
    )
    for name in ("generation.md", "generation.json", "pictures.png"):
        print(out / name)


def imaging(
    cohort: Annotated[str, option("phantom, an audit's YAML, or a cohort.parquet.")] = "phantom",
    attribute: Annotated[str | None, option("What to intervene on: sex, race, ...")] = None,
    preset: Annotated[str, option("smoke (3 networks, 3 checkpoints, 64 pixels) or paper.")] = "smoke",
    label: Annotated[Texts, option("Finding; may be repeated.")] = None,
    hold: Hold = None,
    correlation: Annotated[float, option("Of sex with the findings, in the phantom.")] = 0.8,
    network: Annotated[Texts, option("Train only this network; may be repeated.")] = None,
    model: Annotated[Texts, option("NAME=FILE: audit this model too; may be repeated.")] = None,
    trust: Annotated[bool, option("Read pickles among --model; they can run any code.", "--trust")] = False,
    weights: Annotated[str, option("First weights: auto, none, or a file.")] = "auto",
    outcome: Annotated[str, option("What is tested: decision or probability.")] = "decision",
    checkpoints: Annotated[int | None, count("Kept per network.")] = None,
    rounds: Annotated[int | None, count("Passes over the training split, at most.")] = None,
    round_steps: Annotated[int | None, count("Steps per round; a whole pass without it.")] = None,
    size: Annotated[int | None, side("Side of the images, pixels.")] = None,
    patients: Annotated[int | None, count("Patients of the phantom.")] = None,
    images: Annotated[int | None, count("Test images, at most.")] = None,
    draws: Annotated[int | None, count("Images per level.")] = None,
    kind: Annotated[str | None, option("Of the generator: dldm without it; edits for real images.")] = None,
    budget: Annotated[str | None, option("Preset of the generator: tiny, small or paper.")] = None,
    learn: Annotated[
        list[int] | None, count("Train the generator on so many images too: how many would do? May be repeated.")
    ] = None,
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
            "kind": kind,
            "generator": budget,
            "learn": tuple(learn or ()),
        },
        engine=engine_of(engine, workers, scheduler),
        seed=seed,
        narrator=Narrator(quiet=quiet),
    )
    for note in content["notes"]:
        print(note)
    for name in ("imaging.html", "audit.html", "imaging.json"):
        print(out / name)


def morphomnist(
    mnist: Annotated[
        Path, typer.Argument(help="MNIST: a folder of the IDX files (.gz or not) or of PNG files, or an .npz.")
    ],
    preset: Annotated[str, option("smoke (seconds, shows that all works) or full.")] = "full",
    model: Annotated[Texts, option("Only this model; may be repeated.")] = None,
    features: Annotated[
        str, option("For FID and minimality: probe (this run's reader) or inception_v3:FILE.")
    ] = "probe",
    out: Out = Path("morphomnist"),
    page: Annotated[Path | None, option("Also write the Markdown page here, its picture beside it.")] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Digits redrawn to another thickness or intensity: our generators by the published protocol, and the truth."""
    from citlr.console import Narrator
    from citlr.studies.morphomnist.run import run_morphomnist

    narrator = Narrator(quiet=quiet)
    for path in run_morphomnist(
        mnist, out, preset=preset, models=model or (), features=features, into=page, seed=seed, narrator=narrator
    ):
        print(path)


def synthetic(
    sets: Annotated[
        Texts, option("linear, quadratic, exponential, interactive, log-scale, sin; all without it.")
    ] = None,
    models: Annotated[int, count("Per set, a multiple of ten; the graded pool has 40 beside.")] = 100,
    n_train: Annotated[int, count("Training units of every model.")] = 800,
    n_test: Annotated[int, count("Test units of every model.")] = 200,
    balanced: Annotated[bool, option("Half of the units positive in every set.", "--balanced")] = False,
    engine: EngineName = "loky",
    workers: Workers = 2,
    scheduler: Scheduler = None,
    out: Out = Path("synthetic"),
    page: Annotated[Path | None, option("Also write the Markdown page here.")] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Six synthetic sets, 100 models and a graded pool on each: six tests against ECA and against the true psi."""
    from citlr.console import Narrator
    from citlr.errors import StateError
    from citlr.simulators.tabular import SETS
    from citlr.studies.synthetic.page import write_synthetic
    from citlr.studies.synthetic.run import run_synthetic

    sweep = run_synthetic(
        out,
        sets=sets or SETS,
        models=models,
        n_train=n_train,
        n_test=n_test,
        balanced=balanced,
        engine=engine_of(engine, workers, scheduler),
        seed=seed,
        narrator=Narrator(quiet=quiet),
    )
    if not len(sweep.done):
        raise StateError(f"All {len(sweep.failed)} models failed; the first: {sweep.failed['error'].iloc[0]}")
    print(out / "synthetic.parquet")
    for path in write_synthetic(sweep.done, out, page=page, failed=len(sweep.failed)):
        print(path)
