"""Verbs of evidence: calibration of the tests."""

from pathlib import Path
from typing import Annotated, Any

import typer

from citlr.cli.options import EngineName, Out, Quiet, Scheduler, Seed, Texts, count, engine_of, option, side


def calibrate(
    out: Out = Path("calibration"),
    quick: Annotated[bool, option("Fewer repetitions: minutes instead of an hour.", "--quick")] = False,
    pipeline: Annotated[
        bool,
        option("Calibrate the whole chain with trained generators: how often is a blind model accused?", "--pipeline"),
    ] = False,
    generators: Annotated[
        int | None, option("With --pipeline: worlds per correlation, a generator each.", min=1, max=10_000)
    ] = None,
    correlation: Annotated[
        list[float] | None, option("With --pipeline: only worlds of this correlation; processes may share the folder.")
    ] = None,
    world: Annotated[
        str | None, option("With --pipeline: phantom, varying (its anatomy varies) or semireal (real images).")
    ] = None,
    cohort: Annotated[
        str | None, option("With --world semireal: the images, an audit's YAML or a cohort.parquet.")
    ] = None,
    effect: Annotated[Texts, option("With --world semireal: what the attribute does; may be repeated.")] = None,
    strength: Annotated[float, option("With --world semireal: strength of the effects; 0 is a null world.")] = 1.0,
    level: Annotated[Texts, option("With --world semireal: levels from least to most; repeated.")] = None,
    label: Annotated[Texts, option("With --world semireal: labels audited; the attribute goes with the first.")] = None,
    hold: Annotated[Texts, option("With --world semireal: labels and covariates that are kept as observed.")] = None,
    kind: Annotated[str | None, option("With --pipeline: another kind of generator.")] = None,
    preset: Annotated[str | None, option("With --pipeline: another preset of the generator.")] = None,
    engine: EngineName = "loky",
    workers: Annotated[
        int | None, option("Processes to start on this machine: 2, or 1 with --pipeline.", min=1, max=1024)
    ] = None,
    scheduler: Scheduler = None,
    seed: Seed = 0,
    page: Annotated[Path | None, option("Also write the Markdown page here.")] = None,
    quiet: Quiet = False,
) -> None:
    """Measure size, power and coverage of every test on worlds where the truth is known."""
    from citlr.console import Narrator
    from citlr.errors import InputError

    narrator = Narrator(quiet=quiet)
    planted = {"effect": effect, "level": level, "label": label, "hold": hold, "strength": strength}
    if pipeline:
        from citlr.studies.pipeline.families import choose_family

        _calibrate_pipeline(
            out,
            page,
            quick=quick,
            generators=generators,
            correlations=correlation or (),
            family=choose_family(world, cohort, planted, seed=seed, narrator=narrator),
            kind=kind,
            preset=preset,
            seed=seed,
            engine=engine_of(engine, workers or 1, scheduler),
            narrator=narrator,
        )
        return
    only = {"generators": generators, "correlation": correlation, "world": world, "cohort": cohort, "kind": kind}
    for name, value in (only | {"preset": preset}).items():
        if value is not None:
            raise InputError(f"--{name} goes with --pipeline: the statistics alone are calibrated without generators.")
    from citlr.studies.calibration.run import run_calibration

    power: dict[str, Any] = {"engine": engine, "workers": workers or 2, "scheduler": scheduler}
    run_calibration(quick=quick, out=out, **power, seed=seed, narrator=narrator)
    print(out / "calibration.json")
    if page is not None:
        from citlr.studies.calibration.page import write_calibration_page

        write_calibration_page(out / "calibration.json", page)
        print(page)


def _calibrate_pipeline(out: Path, page: Path | None, **settings: Any) -> None:
    from citlr.studies.pipeline.page import write_pipeline_figure, write_pipeline_page
    from citlr.studies.pipeline.run import run_pipeline

    run_pipeline(out=out, **settings)
    print(out / "pipeline.json")
    if page is not None:
        figure = page.with_suffix(".png")
        write_pipeline_figure(out / "pipeline.json", figure)
        write_pipeline_page(out / "pipeline.json", page, figure=figure.name)
        print(page)


def train_classifier(
    cohort: Annotated[Path, typer.Argument(help="A cohort.parquet.")],
    arch: Annotated[str, option("densenet121, vgg16_bn, inception_v3, ...")],
    label: Annotated[Texts, option("Finding; may be repeated; all without it.", "--label", "--labels")] = None,
    weights: Annotated[str, option("auto, none, or a file of ImageNet weights.")] = "auto",
    size: Annotated[int, side("Side of the images, pixels.")] = 64,
    rounds: Annotated[int, count("Passes over the training split at most.")] = 30,
    keep: Annotated[int | None, count("Best checkpoints kept; 10, or as many as there are rounds.")] = None,
    round_steps: Annotated[int | None, count("Steps per round; a whole pass without it.")] = None,
    patience: Annotated[int, count("Stop after so many rounds without a better AUROC.")] = 10,
    batch_size: Annotated[int, count("Images per step, over all devices.")] = 64,
    learning_rate: Annotated[float | None, option("Of Adam; 1e-3 or 1e-4 without it.")] = None,
    schedule: Annotated[str, option("Of the learning rate: constant or one-cycle.")] = "constant",
    tolerance: Annotated[float, option("Checkpoints this far below the best AUROC are the last choice.")] = 0.02,
    augment: Annotated[
        bool, option("Turn, scale and shift training images a little.", "--augment/--no-augment")
    ] = True,
    precision: Annotated[str, option("auto, 32-true, bf16-mixed, 16-mixed.")] = "auto",
    accelerator: Annotated[str, option("auto, cpu, cuda, mps.")] = "auto",
    devices: Annotated[int, count("Processes, one per GPU.")] = 1,
    out: Out = Path("classifier"),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Train a classifier, one of ten networks; the best checkpoint is written as model.pt2 and model.onnx."""
    from citlr.console import Narrator
    from citlr.data.cohort import Cohort
    from citlr.predictors.training.classifier import train_classifier as train
    from citlr.predictors.training.settings import TrainingSettings

    settings = TrainingSettings(
        size=size,
        rounds=rounds,
        keep=min(10, rounds) if keep is None else keep,
        round_steps=round_steps,
        patience=patience,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        tolerance=tolerance,
        augmented=augment,
        precision=precision,
        accelerator=accelerator,
        devices=devices,
    )
    trained = train(
        Cohort.from_parquet(cohort),
        arch=arch,
        directory=out,
        labels=label or None,
        weights=None if weights == "none" else weights,
        settings=settings,
        seed=seed,
        narrator=Narrator(quiet=quiet),
    )
    for note in trained.notes:
        print(note)
    first, last = trained.checkpoints[0], trained.checkpoints[-1]
    aurocs = ", ".join(f"{name} {'none' if area is None else f'{area:.3f}'}" for name, area in first.auroc.items())
    print(f"Validation AUROC of the best checkpoint: {aurocs}")
    print(f"{len(trained.checkpoints)} checkpoints kept, mean AUROC {first.mean_auroc:.3f} to {last.mean_auroc:.3f}")
    for path in (trained.program, trained.onnx):
        if path is not None:
            print(path)


VERBS = (calibrate, train_classifier)
