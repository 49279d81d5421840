"""What can be known before anything long starts: whether the settings make a generator, and the files are there."""

from pathlib import Path

import torch

from citlr.audit.assembly import generator_from, held
from citlr.audit.measures.retraining import parts_of
from citlr.config import AuditConfig, GeneratorConfig
from citlr.data.cohort import Cohort
from citlr.data.splits import require_both
from citlr.errors import InputError, MissingExtraError
from citlr.generators.preparation import conditions_of
from citlr.generators.quality.features import load_extractor
from citlr.run.folder import Run
from citlr.text import shortened


def require_possible(config: AuditConfig) -> None:
    """Refuse a configuration that would fail only after the cohort is read, or the generator is trained."""
    table = config.generator.table
    if table is None:
        require_buildable(config.generator)
    elif not table.is_file():
        raise InputError(f"There is no table of redrawn images at '{table}' (generator.table): correct the path.")
    for name, model in config.models.items():
        for key, place in (("source", model.source), ("weights", model.weights)):
            file = None if place is None else Path(str(place).partition(":")[0])
            # An import path (package.module:name) is no file; every file has been made absolute.
            if file is not None and file.is_absolute() and not (file.exists() or Path(str(place)).exists()):
                where = f"models.{name}.{key}" if len(config.models) > 1 else f"model.{key}"
                raise InputError(f"There is no file '{file}' ({where}): correct the path.")
    load_extractor(config.quality.features)
    if not config.cohort.table.is_file():
        raise InputError(f"There is no table at '{config.cohort.table}' (cohort.table): correct the path.")


def require_learnable(run: Run, cohort: Cohort) -> None:
    """Refuse a cohort that cannot train the generator, or on a part of which it cannot be trained again."""
    config = run.config
    require_colour(config, cohort.channels)
    if config.generator.table is not None:  # of somebody else's images only probes learn here
        require_both(cohort.part("train"), cohort.part("validation"))
        return
    generator = generator_from(config.generator.model_copy(update={"hold": held(run, cohort)}))
    train = cohort.part("train")
    conditions = conditions_of(generator.config, train, cohort.part("validation"), config.seed)
    parts_of(train, conditions, config.quality.learning_curve, config.seed)


def require_colour(config: AuditConfig, channels: int) -> None:
    """Refuse a network of features that can only see grey, where the cohort is in colour."""
    if channels > 1 and config.quality.features.startswith("torchxrayvision"):
        raise InputError(
            "quality.features names a network of torchxrayvision, which reads grey radiographs, and the cohort is in "
            "colour: take probe or inception_v3:FILE."
        )


def require_buildable(settings: GeneratorConfig) -> None:
    """Build the generator on trial; InputError where its settings do not go together.

    A class of ours that is not whole (a method that is missing: TypeError) is no fault of the settings, and passes.
    """
    try:
        generator = generator_from(settings)
        generator.rehearse()
    except (InputError, MissingExtraError) as error:
        raise InputError(f"The generator cannot be built as `generator` asks: {error}") from error
    except (ArithmeticError, AssertionError, RuntimeError, ValueError) as error:
        # Of the networks' own library.
        raise InputError(
            f"The generator cannot be built as `generator` asks ({shortened(str(error))}): take a preset as it is, or "
            "change generator.options."
        ) from error
    accelerator = generator.config.accelerator
    there = torch.backends.mps.is_available() if accelerator == "mps" else torch.cuda.is_available()
    if accelerator not in ("auto", "cpu") and not there:
        raise InputError(
            f"generator.options.accelerator is '{accelerator}', which is not there: set it to 'auto' or 'cpu'."
        )
