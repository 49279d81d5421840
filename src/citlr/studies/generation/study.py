"""What `citlr reproduce generation` is run on: the phantom or a cohort, and the models that enter."""

from dataclasses import dataclass, field
from typing import Any

from citlr.console import Narrator
from citlr.data.cohort import Cohort
from citlr.errors import require_known
from citlr.generators.rivals.vae import BETAS
from citlr.run.files import fingerprint
from citlr.run.stages import Stages
from citlr.simulators.phantom import FINDINGS, PhantomSample, PhantomWorld
from citlr.simulators.phantom.sample import read_phantom
from citlr.studies.kit.cohorts import Source, require_columns, take_source
from citlr.studies.kit.worlds import DEFAULT_WORLD, anatomy_of, world_folder

FINDING = "cardiomegaly"
# Patients of the phantom's probe: a sample of their own in which attribute and findings are independent.
PROBE_PATIENTS = 1200
PROBE_SEED = 7_000_003


@dataclass(frozen=True)
class Effort:
    """How much of everything.

    - `size`: Side of the images, pixels.
    - `seeds`: Trainings of every model.
    - `images`: Test images that are redrawn, at most.
    - `probe_steps`, `leakage_steps`: Trainings of the ResNet-34 and of the fresh probes.
    - `probe`: The network that reads redrawn images: the publication's, or a small one that costs a tenth.
    - `cycles`: Null interventions in a row, on at most 40 images.
    - `steps`: Options of single kinds, over the preset.
    """

    size: int
    patients: int
    seeds: int
    draws: int
    images: int
    preset: str
    probe_steps: int
    leakage_steps: int
    probe: str = "resnet34"
    cycles: int = 10
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)


_FEW = {"ae_steps": 30, "denoiser_steps": 30, "phi_steps": 4, "information_steps": 4}
PRESETS = {
    "smoke": Effort(
        32,
        240,
        2,
        2,
        24,
        "tiny",
        60,
        20,
        steps={
            "dldm": _FEW,
            "cldm": _FEW,
            "vae": {"steps": 40},
            "latent-shift": {"probe_steps": 30, "autoencoder": {"ae_steps": 30}},
        },
    ),
    # The steps of the VAE give it about the processor time of a DLDM of the same preset.
    "full": Effort(64, 6000, 3, 4, 300, "laptop", 300, 300),
}


@dataclass(frozen=True)
class Study:
    """A cohort with what is asked of it.

    - `train`, `validation`, `test`: Splits by patient.
    - `probe_splits`: What the ResNet-34 learns from and chooses its weights by.
    - `watched`: What the probe reads besides the attribute.
    - `sample`: The simulator's units, where true counterfactuals are known.
    """

    name: str
    train: Cohort
    validation: Cohort
    test: Cohort
    probe_splits: tuple[Cohort, Cohort]
    attribute: str
    levels: tuple[str, ...]
    hold: tuple[str, ...]
    watched: tuple[str, ...]
    sample: PhantomSample | None = None

    def fingerprint(self) -> str:
        """Fingerprint the images and what is asked of them."""
        parts = [part.fingerprint() for part in (self.train, self.validation, self.test, *self.probe_splits)]
        settings = (self.name, self.attribute, self.levels, self.hold, self.watched)
        return fingerprint({"parts": parts, "settings": repr(settings)})


@dataclass(frozen=True)
class Entrant:
    """A model of the comparison: name, kind, options over the preset, and whether it holds what the study holds."""

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    held: bool = True

    @property
    def slug(self) -> str:
        """Name a folder.

        >>> Entrant("beta-VAE, beta 2", "vae").slug
        'beta-vae-beta-2'
        """
        return "-".join("".join(c if c.isalnum() else " " for c in self.name.lower()).split())


def entrants(study: Study, only: tuple[str, ...] = ()) -> tuple[Entrant, ...]:
    """List the models, in the order of the tables."""
    every = [Entrant(f"beta-VAE, beta {beta:g}", "vae", {"beta": beta}) for beta in BETAS]
    every += [
        Entrant("latent shift", "latent-shift"),
        # The publication conditions on the attribute alone.
        Entrant("CLDM as published", "cldm", {"preset": "published"}, held=False),
        Entrant("DLDM as published", "dldm", {"preset": "published"}, held=False),
        Entrant("CLDM", "cldm"),
        # All of the DLDM but what hides the attribute from its latent.
        Entrant("CLDM, aligned", "cldm", {"alignment": "gaussian"}),
        # The attribute hidden by the publication's game, its strength chosen on validation, and not by alignment.
        Entrant("DLDM, played", "dldm", {"latent_alignment": "none", "strength": None}),
        Entrant("DLDM", "dldm"),
    ]
    if study.hold:
        every.append(Entrant("DLDM, nothing held", "dldm", held=False))
    if study.sample is not None:
        every.append(Entrant("oracle", "oracle"))
    known = {entrant.name: entrant for entrant in every}
    for name in only:
        require_known(name, known, f"There is no model '{name}' in the comparison")
    return tuple(entrant for entrant in every if not only or entrant.name in only)


def phantom_study(source: Source, effort: Effort, stages: Stages) -> Study:
    """Draw a phantom cohort in which sex goes with one finding, and the probe's own in which it does not."""
    anatomy = anatomy_of(DEFAULT_WORLD)
    world = PhantomWorld(
        size=effort.size, correlation={FINDING: source.correlation}, prevalence={FINDING: 0.5}, anatomy=anatomy
    )
    sample = world.sample(effort.patients, seed=source.seed, images_per_patient=1)
    free = PhantomWorld(size=effort.size, prevalence=0.5, anatomy=anatomy)
    probed = max(effort.patients // 2, min(PROBE_PATIENTS, 2 * effort.patients))
    independent = free.sample(probed, seed=source.seed + PROBE_SEED)
    cohort, probe = (
        read_phantom(world_folder(stages, one, name=name), attribute=world.attribute, seed=source.seed)
        for name, one in {"world": sample, "probe-world": independent}.items()
    )
    return Study(
        name=f"phantom, {effort.size} x {effort.size}, correlation {source.correlation:g}",
        train=cohort.part("train"),
        validation=cohort.part("validation"),
        test=cohort.part("test"),
        probe_splits=(probe.part("train"), probe.part("validation")),
        attribute=world.attribute,
        levels=world.levels,
        hold=(FINDING, "view"),
        watched=(*FINDINGS, "view"),
        sample=sample,
    )


def cohort_study(source: Source, narrator: Narrator) -> Study:
    """Read the cohort of an audit's YAML, or a `cohort.parquet` that `citlr prepare` or an audit wrote."""
    taken = take_source(source, narrator)
    cohort, held = taken.cohort, taken.held if source.hold is None else source.hold
    require_columns(cohort, held)
    train, validation = cohort.part("train"), cohort.part("validation")
    return Study(
        name=taken.name,
        train=train,
        validation=validation,
        test=cohort.part("test"),
        probe_splits=(train, validation),
        attribute=taken.attribute,
        levels=taken.levels,
        hold=tuple(held),
        watched=tuple(dict.fromkeys((*held, *cohort.labels, *cohort.covariates))),
    )
