"""What `citlr reproduce morphomnist` is run on: digits, targets of the interventions, and the models that enter."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citlr.data.cohort import Cohort
from citlr.errors import InputError, require_known
from citlr.run.stage import Stage
from citlr.run.stages import Stages
from citlr.simulators.morphomnist.files import Digits
from citlr.simulators.morphomnist.world import ATTRIBUTES, MorphoSample, intensity_of, sample_digits

# Groups of equal width that a value is moved out of, and that minimality compares within.
GROUPS = 9
# What nothing is trained for: the true counterfactual, and the image as it is.
EXACT, UNCHANGED = "exact", "unchanged"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Effort:
    """How much of everything.

    - `train`, `validation`, `test`: Digits that generators and reader learn from, and that are redrawn.
    - `cycled`: Test digits that are redrawn ten times over.
    - `reader_steps`: Training of the network that reads thickness, intensity and digit.
    - `options`: Of each kind of generator, its preset among them.
    """

    train: int
    validation: int
    test: int
    cycled: int
    reader_steps: int
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


_FEW = {"preset": "tiny", "ae_channels": (8,), "unet_channels": (16, 16), "ae_steps": 5, "denoiser_steps": 5}
PRESETS = {
    "smoke": Effort(
        160, 40, 12, 4, 20, {"vae": {"steps": 10}, "dldm": {**_FEW, "recentre": 0}, "edits": {"preset": "tiny"}}
    ),
    "full": Effort(
        3000, 300, 300, 60, 800, {"vae": {"steps": 2000}, "dldm": {"preset": "tiny"}, "edits": {"preset": "tiny"}}
    ),
}


@dataclass(frozen=True)
class Entrant:
    """A model of the comparison: its name in the tables, its kind, and options over the preset's."""

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        """Whether there is anything to train."""
        return self.kind not in (EXACT, UNCHANGED)


ENTRANTS = (
    Entrant("exact", EXACT),
    Entrant("unchanged", UNCHANGED),
    # The peers' VAE draws close to the posterior's mean (a temperature of .1); this one takes the mean itself.
    Entrant("vae", "vae", {"abduction": "inversion"}),
    Entrant("dldm", "dldm"),
    Entrant("edits", "edits"),
)


def entrants(only: tuple[str, ...]) -> tuple[Entrant, ...]:
    """List the models that were asked for, all without names, in the order of the tables."""
    known = [entrant.name for entrant in ENTRANTS]
    for name in only:
        require_known(name, known, f"There is no model '{name}' in the comparison")
    return tuple(entrant for entrant in ENTRANTS if not only or entrant.name in only)


@dataclass(frozen=True)
class Study:
    """Digits to learn from, digits to redraw, and what each is redrawn to.

    - `test`: Units whose counterfactuals are exact.
    - `targets`: By the attribute that is intervened on: the thickness and intensity (n,) of the true counterfactual.
    - `edges`: By attribute: inner edges of the groups.
    """

    train: Cohort
    validation: Cohort
    test: MorphoSample
    targets: dict[str, tuple[Floats, Floats]]
    edges: dict[str, Floats]

    def group(self, attribute: str, values: Floats) -> NDArray[np.intp]:
        """Give the number of each value's group, (n,)."""
        return np.asarray(np.digitize(values, self.edges[attribute]))


def open_study(digits: tuple[Digits, Digits], effort: Effort, stages: Stages, seed: int) -> Study:
    """Draw thickness and intensity, write the training images, and choose the targets."""
    both, test_digits = digits
    wanted = effort.train + effort.validation
    if len(both) < wanted or len(test_digits) < effort.test:
        raise InputError(
            f"There are {len(both)} training and {len(test_digits)} test digits, and {wanted} and {effort.test} are "
            "asked for: take a smaller preset or the whole of MNIST."
        )
    random = np.random.default_rng([seed, 1])
    learnt = sample_digits(both, wanted, name="train", seed=seed)
    order = random.permutation(wanted)
    parts = [learnt.take(np.sort(order[effort.validation :])), learnt.take(np.sort(order[: effort.validation]))]
    stages.narrator.say(f"drawing {wanted} training digits")
    stages.do(
        Stage("world", {"digits": learnt.fingerprint()}, lambda folder: learnt.write(folder / "world"), ("world",))
    )
    train, validation = (part.cohort(stages.path("world")) for part in parts)
    test = sample_digits(test_digits, effort.test, name="test", seed=seed)
    known = {"thickness": parts[0].thickness, "intensity": parts[0].intensity}
    edges = {name: np.linspace(known[name].min(), known[name].max(), GROUPS + 1)[1:-1] for name in ATTRIBUTES}
    width = moved(test.thickness, known["thickness"], edges["thickness"], random)
    grey = moved(test.intensity, known["intensity"], edges["intensity"], random)
    targets = {"thickness": (width, intensity_of(width, test.noise)), "intensity": (test.thickness, grey)}
    return Study(train, validation, test, targets, edges)


def moved(values: Floats, known: Floats, edges: Floats, random: np.random.Generator) -> Floats:
    """Choose for each value one of the training values in another group.

    >>> moved(np.array([1.0, 9.0]), np.array([1.0, 9.0]), np.array([5.0]), np.random.default_rng(0)).tolist()
    [9.0, 1.0]
    """
    groups = np.digitize(known, edges)
    return np.array([random.choice(known[groups != group]) for group in np.digitize(values, edges)])
