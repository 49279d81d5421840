"""What every training starts from: two splits, decoded and coded, and a device."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from citlr.data.cohort import Cohort
from citlr.data.leaks import fingerprints
from citlr.data.splits import require_both
from citlr.errors import InputError
from citlr.generators.conditions import Conditions
from citlr.generators.overlap import sparse_levels
from citlr.generators.redrawing import Lesson
from citlr.generators.settings import GeneratorSettings
from citlr.learning.session import Session
from citlr.learning.store import Dataset, require_variety
from citlr.learning.trainer import Trainer
from citlr.randomness import hashed_seed


@dataclass(frozen=True)
class Prepared:
    """Splits that are ready to be learnt from, the training split first.

    - `codes` (n, width): See `Conditions.encode`.
    - `session`: Device, seed and folder of the training.
    - `notes`: What is to be known of the data, such as levels with few images.
    """

    splits: tuple[Cohort, Cohort]
    conditions: Conditions
    sets: tuple[Dataset, Dataset]
    codes: tuple[Tensor, Tensor]
    session: Session
    notes: tuple[str, ...]

    @property
    def mark(self) -> str:
        """Names what the images are conditioned on: a checkpoint of another table is none to go on from."""
        parts = (code.contiguous().numpy().tobytes() for code in self.codes)
        return f"{hashed_seed(self.conditions.to_json(), *(part.hex() for part in parts)):016x}"

    @property
    def seen(self) -> tuple[str, ...]:
        """Marks of the patients of both splits: no image of theirs may be audited."""
        return tuple(fingerprints([patient for split in self.splits for patient in split.frame["patient_id"]]))

    def remarks(self) -> dict[str, Any]:
        """Give what a report is to say of the data and of the device, once the training is over."""
        said: dict[str, Any] = {"batch_halved": self.session.trainer.halved, "sparse_levels": list(self.notes)}
        return {name: value for name, value in said.items() if value}


def prepare(config: GeneratorSettings, lesson: Lesson) -> Prepared:
    """Decode and code the splits, and take the device."""
    (train, validation), seed, directory, narrator = splits(lesson), lesson.seed, lesson.directory, lesson.narrator
    conditions = conditions_of(config, train, validation, seed)
    notes = sparse_levels(train.frame, conditions.recorded)
    for note in notes:
        narrator.say(note)
    trainer = Trainer(config.accelerator, config.precision, config.compiled)
    session = Session(trainer, seed, directory, narrator, config.patience, config.checkpoint_minutes, config.ema)
    sets = (
        Dataset.of(train, size=config.size, directory=directory),
        Dataset.of(validation, size=config.size, directory=directory),
    )
    require_variety(sets[0])
    codes = (conditions.encode(train.frame), conditions.encode(validation.frame))
    return Prepared((train, validation), conditions, sets, codes, session, notes)


def conditions_of(config: GeneratorSettings, train: Cohort, validation: Cohort, seed: int) -> Conditions:
    """Give what the generator is conditioned on; splits that cannot train it are refused before any image is read."""
    if validation.channels != train.channels:
        raise InputError(
            f"The training images have {train.channels} channel(s) and those of the validation split "
            f"{validation.channels}: read both the same way."
        )
    require_both(train, validation)
    return Conditions.of(
        train.frame, attributes=config.attributes or train.attributes, hold=config.hold, coin_seed=seed
    )


def splits(lesson: Lesson) -> tuple[Cohort, Cohort]:
    """Give both splits of a lesson; without one for validation, a part of the other is set aside."""
    return set_aside(lesson.train, lesson.seed) if lesson.validation is None else (lesson.train, lesson.validation)


def set_aside(train: Cohort, seed: int) -> tuple[Cohort, Cohort]:
    """Keep nine tenths of the patients for training and set a tenth aside for validation, drawn by a keyed hash.

    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from citlr.data.cohort import Cohort
    >>> frame = pd.DataFrame({"image_id": range(200), "path": "", "patient_id": np.arange(200) // 2})
    >>> kept, aside = set_aside(Cohort(frame, Path(), attributes=(), labels=()), seed=0)
    >>> len(kept) + len(aside), set(kept.frame["patient_id"]) & set(aside.frame["patient_id"])
    (200, set())
    """
    aside = np.asarray([hashed_seed("set aside", seed, patient) % 10 == 0 for patient in train.frame["patient_id"]])
    return train.take(~aside), train.take(aside)
