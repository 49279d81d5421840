"""A cohort of real images with a planted attribute: who has which level, and every image under every level."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from citlr.data.cohort import Cohort
from citlr.errors import InputError, require_known
from citlr.randomness import hashed_seed
from citlr.run.files import fingerprint
from citlr.simulators.planted.effects import apply, check_kinds, locate
from citlr.simulators.units import WorldUnits, read_images

# Images decoded and changed at a time.
BLOCK = 64
# Patients respond to the attribute by this share more or less (standard deviation), as the phantom's do.
RESPONSE = 0.15
# Labels whose correlations have an eigenvalue below this determine each other.
SAME = 1e-9


@dataclass(frozen=True)
class SemiRealWorld:
    """What is planted, and how strongly it shows and goes together with the labels.

    - `effects`: Kinds of effect, see `citlr.simulators.planted.effects.EFFECTS`; none is a null world, in which the
      attribute is a coin that no image shows.
    - `strength`: 1 is about as strong as the phantom's attribute; 0 is a null world.
    - `attribute`, `levels`: Name of the planted attribute, and its levels from the least to the most of the effect.
    - `correlation`: By label, between the level's index and whether any image of the patient has it; of several
      labels each comes out as asked, also where they go with each other.
    - `size`: Side of the images in pixels.
    """

    effects: tuple[str, ...] = ("shadow", "contrast", "shape")
    strength: float = 1.0
    attribute: str = "planted"
    levels: tuple[str, ...] = ("less", "more")
    correlation: Mapping[str, float] = field(default_factory=dict)
    size: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "effects", check_kinds(self.effects))
        object.__setattr__(self, "levels", tuple(self.levels))
        if len(set(self.levels)) < 2 or len(set(self.levels)) < len(self.levels):
            raise InputError(f"levels is {list(self.levels)}: two different names or more are needed.")
        if not 0 <= self.strength <= 3:
            raise InputError(f"strength is {self.strength:g}: it has to lie between 0 (a null world) and 3.")
        if not 32 <= self.size <= 1024:
            raise InputError(f"size is {self.size}: it has to lie between 32 and 1024 pixels.")

    @property
    def null(self) -> bool:
        """Whether no image shows the attribute."""
        return not self.effects or self.strength == 0


@dataclass(frozen=True)
class SemiRealSample(WorldUnits):
    """Real images with their planted levels, and on demand under any level.

    - `cohort`: The real images, before anything is planted.
    - `frame`: One row per image: `image_id`, `patient_id`, `path` below the folder that `write` makes, the planted
      attribute, and the cohort's own labels and covariates.
    - `level` (n,): index of each image's level.
    - `response` (n,): how strongly each patient shows it, about 1.
    """

    table = "semireal.csv"
    world: SemiRealWorld
    cohort: Cohort
    frame: pd.DataFrame = field(repr=False)
    level: NDArray[np.intp] = field(repr=False)
    response: NDArray[np.float64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, rows: ArrayLike | slice) -> Self:
        """Return the sample of some rows: positions, a slice, or a mask of shape (n,)."""
        index = np.arange(len(self))[rows if isinstance(rows, slice) else np.asarray(rows)]
        return replace(
            self,
            cohort=self.cohort.take(index),
            frame=self.frame.iloc[index].reset_index(drop=True),
            level=self.level[index],
            response=self.response[index],
        )

    def read(self, directory: str | Path, **split: Any) -> Cohort:
        """Read it with the labels and covariates of the real images."""
        columns = {"labels": self.cohort.labels, "covariates": self.cohort.covariates}
        return read_semireal(directory, attribute=self.world.attribute, **columns, **split)

    def fingerprint(self) -> str:
        """Fingerprint the real images, and what is planted in whom."""
        planted = [repr(self.world), self.frame.astype(str).to_dict("list"), self.response.tolist()]
        return fingerprint([self.cohort.fingerprint(), planted])

    def _blocks(self, *, digital: bool) -> Iterator[list[NDArray[np.float32]]]:
        amount = self.level / (len(self.world.levels) - 1)
        size, kinds = self.world.size, () if self.world.null else self.world.effects
        for rows, pixels in self.cohort.batches(size=size, batch_size=BLOCK):
            block = []
            for row, plain in zip(rows, pixels[:, 0], strict=True):
                image = plain
                if kinds:
                    shown = 0.5 + (amount[row] - 0.5) * self.world.strength * self.response[row]
                    image = apply(plain, locate(plain), float(shown), kinds)
                block.append((np.round(image * 255) / 255).astype(np.float32) if digital else image)
            yield block


def read_semireal(directory: str | Path, **asked: Any) -> Cohort:
    """Read what `SemiRealSample.write` wrote as a cohort; `asked` as of `read_cohort`."""
    return read_images(directory, table=SemiRealSample.table, **asked)


def semireal(cohort: Cohort, world: SemiRealWorld | None = None, *, seed: int, **planted: object) -> SemiRealSample:
    """Plant an attribute into a cohort of real images, whose own attributes are not in the table of the new world.

    `world` or, as keywords, the fields of one say what. By the seed are the levels, one to a patient in all images, and
    how strongly every patient shows them. Nothing is drawn yet.
    """
    chosen = SemiRealWorld(**planted) if world is None else world  # type: ignore[arg-type]
    patients = cohort.frame["patient_id"].astype(str)
    unique = patients.drop_duplicates().to_list()
    weights = _weights(cohort, chosen, patients)
    turns = np.array([hashed_seed("planted", seed, name) / 2**63 for name in unique])
    level = (turns[:, None] >= weights.cumsum(axis=1)[:, :-1]).sum(axis=1)
    normal = [np.random.default_rng(hashed_seed("response", seed, name)).normal() for name in unique]
    place = patients.map({name: number for number, name in enumerate(unique)}).to_numpy()
    names = [f"r{number:06d}" for number in range(len(cohort))]
    frame = pd.DataFrame(
        {
            "image_id": names,
            "patient_id": patients.to_numpy(),
            "path": [f"images/{name}.png" for name in names],
            chosen.attribute: [chosen.levels[index] for index in level[place]],
        }
    )
    for column in (*cohort.labels, *cohort.covariates):
        frame[column] = cohort.frame[column].to_numpy()
    response = 1 + RESPONSE * np.clip(np.asarray(normal), -2.5, 2.5)
    return SemiRealSample(chosen, cohort, frame, level[place].astype(np.intp), response[place])


def _weights(cohort: Cohort, world: SemiRealWorld, patients: pd.Series) -> NDArray[np.float64]:
    """Return each patient's chances of the levels (patients, levels): even, moved by the labels that they go with."""
    count = len(world.levels)
    index = np.arange(count) - (count - 1) / 2
    score = index / np.sqrt(np.mean(index**2))
    pull = np.zeros(patients.nunique())
    shown = {label: _shown(cohort, label, patients) for label in world.correlation}
    for label, share in _shares(world.correlation, shown).items():
        pull += share * (shown[label] - shown[label].mean()) / shown[label].std()
    weights: NDArray[np.float64] = (1 + pull[:, None] * score) / count
    # The comparison is false for NaN.
    if not weights.min() >= 0:
        raise InputError(
            f"A correlation of {dict(world.correlation)} asks for a share of {weights.min():.2f} of a level among some "
            "patients: ask for less, or for a label that is nearer to one half."
        )
    return weights


def _shown(cohort: Cohort, label: str, patients: pd.Series) -> NDArray[np.float64]:
    """Return whether any image of a patient has a label (patients,), which has to be known of all images."""
    require_known(label, cohort.labels, f"'{label}' is not a label of the cohort")
    values = cohort.frame[label]
    if values.isna().any():
        raise InputError(
            f"The label '{label}' is blank for {values.isna().sum()} of the cohort's {len(values)} images, and the "
            "planted attribute is to go with it: leave these images out, or take a label that all images have."
        )
    shown = np.asarray((values > 0).groupby(patients.to_numpy(), sort=False).max(), dtype=np.float64)
    if shown.std() == 0:
        raise InputError(f"Every patient has the same {label}: the planted attribute cannot go with it.")
    return shown


def _shares(wanted: Mapping[str, float], shown: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return how strongly each label pulls on its own, so that all correlations come out as wanted.

    A label that goes with another one pulls through it too: the correlations of the labels are taken out.
    """
    if not shown:
        return {}
    # Of one label it is 1 exactly, and the share is what was wanted, bit for bit.
    together = np.atleast_2d(np.corrcoef(np.stack(list(shown.values()))))
    if np.linalg.matrix_rank(together, tol=SAME, hermitian=True) < len(together):
        raise InputError(
            f"The labels {', '.join(shown)} determine each other among the patients: ask for a correlation with fewer."
        )
    return dict(zip(shown, np.linalg.solve(together, np.array(list(wanted.values()), float)), strict=True))
