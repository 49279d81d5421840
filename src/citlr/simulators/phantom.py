"""A chest phantom whose counterfactuals are exact: images from structural equations with every random variable kept.

A unit is drawn once (`PhantomWorld.sample`): anatomy of the patient, pose and film noise of the image, attribute, view,
findings. Its image under another level of the attribute is the same equations evaluated again. The attribute acts on
pixels inside `PhantomWorld.support` only: bone of shoulders, clavicles and upper ribs, and a breast-like shadow.
Attribute and findings may be correlated through selection; setting the attribute does not move the findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from citlr.errors import InputError, did_you_mean
from citlr.simulators.phantom_anatomy import (
    VIEWS,
    choose_level,
    conditional_prevalence,
    draw_exogenous,
    per_name,
    present,
    stream,
)
from citlr.simulators.phantom_regions import FINDINGS, Image, bone_window, breast_window, finding_window
from citlr.simulators.phantom_render import digitise, film, thickness

if TYPE_CHECKING:
    from citlr.data.cohort import Cohort

SMALLEST, LARGEST = 32, 256
CHUNK_PIXELS = 2**17
"""Pixels rendered at a time: a dozen float32 planes of that size stay in the cache of one core."""


@dataclass(frozen=True)
class PhantomWorld:
    """The world's parameters: what is drawn, how often, and how strongly the attribute shows.

    Parameters
    ----------
    size : int
        Height and width of the images in pixels, 32 to 256.
    levels : tuple of str
        Levels of the attribute, two or more; ("a", "b", "c") is a three-level world.
    attribute : str
        Name of the attribute's column.
    correlation : float or mapping of str to float
        Pearson correlation, in [-1, 1], of each finding (and of view AP, key "view", where named) with the index of the
        level. A number holds for all five findings. It comes from selection: do(attribute) leaves the findings alone.
    prevalence : float or mapping of str to float
        P(finding = 1) in (0, 1), default 0.3.
    weights : tuple of float or None
        P(level), summing to one; equal when None.
    ap_share : float
        Share of AP views in [0, 1]; they magnify the heart and lower the contrast.
    strength : float
        Size of the attribute's effect on the image, 1 by default, 0 for none.

    Examples
    --------
    >>> world = PhantomWorld(size=32)
    >>> sample = world.sample(3, seed=0)
    >>> images = sample.images()
    >>> twins = sample.counterfactual("male")
    >>> images.shape, images.dtype
    ((6, 1, 32, 32), dtype('float32'))
    >>> bool((images[..., ~world.support()] == twins[..., ~world.support()]).all())
    True
    """

    size: int = 64
    levels: tuple[str, ...] = ("female", "male")
    correlation: float | Mapping[str, float] = 0.0
    attribute: str = "sex"
    prevalence: float | Mapping[str, float] = 0.3
    weights: tuple[float, ...] | None = None
    ap_share: float = 0.4
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not SMALLEST <= self.size <= LARGEST:
            raise InputError(f"The phantom's size is {self.size}; it can be {SMALLEST} to {LARGEST} pixels.")
        if len(self.levels) < 2 or len(set(self.levels)) != len(self.levels):
            raise InputError(f"The phantom's attribute has levels {self.levels}; it needs two or more different ones.")
        if self.weights is not None and (
            len(self.weights) != len(self.levels) or min(self.weights) <= 0 or abs(sum(self.weights) - 1) > 1e-9
        ):
            raise InputError(f"weights is {self.weights}; it needs {len(self.levels)} positive shares that sum to one.")
        for name, share in self._prevalences().items():
            if not 0 < share < 1:
                raise InputError(f"The prevalence of {name} is {share:g}; it has to lie between 0 and 1.")
        self.conditional()

    def _weights(self) -> NDArray[np.float64]:
        count = len(self.levels)
        return np.full(count, 1 / count) if self.weights is None else np.asarray(self.weights, dtype=np.float64)

    def _prevalences(self) -> dict[str, float]:
        return per_name(self.prevalence, FINDINGS, what="prevalence", default=0.3) | {"view": self.ap_share}

    def conditional(self) -> dict[str, NDArray[np.float64]]:
        """Return P(finding | level) per finding, and P(AP | level) as "view", each of shape (n_levels,)."""
        named = isinstance(self.correlation, Mapping)
        names = (*FINDINGS, "view") if named else FINDINGS
        wanted = per_name(self.correlation, names, what="correlation", default=0.0)
        shares = self._prevalences()
        return {
            name: conditional_prevalence(share, wanted.get(name, 0.0), self._weights(), name=name)
            for name, share in shares.items()
        }

    def effects(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return what each level does: relative change of bone, and path of the breast shadow, each (n_levels,)."""
        step = np.linspace(0, 1, len(self.levels))
        bone = self.strength * (-0.35 + 1.15 * step)
        # With three levels the middle one has the stronger bone of the last and half of the shadow of the first.
        shadow = self.strength * 0.34 * (1 - step)
        return bone.astype(np.float32), shadow.astype(np.float32)

    def support(self) -> NDArray[np.bool_]:
        """Return the pixels (size, size) that any level of the attribute can touch, for any unit."""
        touched: NDArray[np.bool_] = (bone_window(self.size) > 0) | (breast_window(self.size) > 0)
        return touched

    def region(self, finding: str) -> NDArray[np.bool_]:
        """Return the pixels (size, size) that a finding can touch, for any unit.

        Those of cardiomegaly and effusion lie outside of `support`; edema, consolidation and atelectasis overlap it.
        """
        _check_finding(finding)
        touched: NDArray[np.bool_] = finding_window(finding, self.size) > 0
        return touched

    def sample(self, n_patients: int, *, seed: int, images_per_patient: int | tuple[int, int] = 2) -> PhantomSample:
        """Draw patients and their images.

        Parameters
        ----------
        n_patients : int
            At least 1.
        seed : int
            At least 0. Patient `i` of a seed is the same however many are drawn.
        images_per_patient : int or tuple of int
            Exact number, or smallest and largest (uniform between them).

        Returns
        -------
        PhantomSample
            The units; nothing is rendered yet.

        Raises
        ------
        InputError
            If a number is out of range.
        """
        low, high = images_per_patient if isinstance(images_per_patient, tuple) else (images_per_patient,) * 2
        if n_patients < 1 or low < 1 or high < low or seed < 0:
            raise InputError(
                f"A phantom sample of {n_patients} patients with {images_per_patient} images each and seed {seed} "
                "cannot be drawn; counts start at 1 and seeds at 0."
            )
        exogenous = draw_exogenous(n_patients, seed=seed, images_per_patient=(low, high))
        level = choose_level(exogenous["attribute_rank"].to_numpy(), self._weights())
        severity = {}
        chance = self.conditional()
        for name in FINDINGS:
            there = present(exogenous[f"{name}_tendency"].to_numpy(), chance[name][level])
            graded = 0.4 + 0.6 * exogenous[f"{name}_rank"].to_numpy()
            severity[name] = np.where(there, graded, 0).astype(np.float32)
        frontal = present(exogenous["view_tendency"].to_numpy(), chance["view"][level])
        return PhantomSample(
            world=self, seed=seed, exogenous=exogenous, level=level, ap=frontal, severity=pd.DataFrame(severity)
        )


@dataclass(frozen=True)
class PhantomSample:
    """Units of a phantom world: their variables, and on demand their images under any level.

    Parameters
    ----------
    world : PhantomWorld
        The equations.
    seed : int
        The seed of the film noise.
    exogenous : DataFrame
        All random variables, one row per image.
    level : ndarray of shape (n,)
        Index of each unit's level.
    ap : ndarray of shape (n,)
        Whether the view is AP.
    severity : DataFrame
        Severity of the five findings in [0, 1]; 0 is absent, present starts at 0.4.
    """

    world: PhantomWorld
    seed: int
    exogenous: pd.DataFrame = field(repr=False)
    level: NDArray[np.intp] = field(repr=False)
    ap: NDArray[np.bool_] = field(repr=False)
    severity: pd.DataFrame = field(repr=False)

    def __len__(self) -> int:
        return len(self.exogenous)

    @property
    def frame(self) -> pd.DataFrame:
        """The observed variables: image_id, patient_id, path, the attribute, view, age (years), five findings 0/1."""
        patient = [f"s{self.seed}p{number:06d}" for number in self.exogenous["patient"]]
        image = [f"{name}i{number:02d}" for name, number in zip(patient, self.exogenous["image"], strict=True)]
        table: dict[str, object] = {
            "image_id": image,
            "patient_id": patient,
            "path": [f"images/{name}.png" for name in image],
            self.world.attribute: [self.world.levels[index] for index in self.level],
            "view": [VIEWS[int(flag)] for flag in self.ap],
            "age": (20 + 65 * self.exogenous["age_rank"].to_numpy()).astype(np.int64),
        }
        for name in FINDINGS:
            table[name] = (self.severity[name] > 0).to_numpy().astype(np.int64)
        return pd.DataFrame(table)

    def take(self, rows: ArrayLike) -> PhantomSample:
        """Return the sample of some rows: positions or a mask of shape (n,)."""
        index = np.arange(len(self))[np.asarray(rows)]
        return replace(
            self,
            exogenous=self.exogenous.iloc[index].reset_index(drop=True),
            level=self.level[index],
            ap=self.ap[index],
            severity=self.severity.iloc[index].reset_index(drop=True),
        )

    def do(self, level: str | Sequence[str]) -> PhantomSample:
        """Return the same units with the attribute set: to one level, or to one level per unit.

        Examples
        --------
        >>> sample = PhantomWorld(size=32).sample(2, seed=1)
        >>> back = sample.do("male").do(list(sample.frame["sex"]))
        >>> bool((back.images() == sample.images()).all())
        True
        """
        names = [level] * len(self) if isinstance(level, str) else list(level)
        if len(names) != len(self):
            raise InputError(
                f"{len(names)} levels were given for {len(self)} phantom units; give one, or one for each."
            )
        for name in set(names) - set(self.world.levels):
            raise InputError(
                f"The phantom's {self.world.attribute} has no level '{name}'.{did_you_mean(name, self.world.levels)}"
            )
        return replace(self, level=np.array([self.world.levels.index(name) for name in names], dtype=np.intp))

    def with_severity(self, finding: str, severity: ArrayLike) -> PhantomSample:
        """Return the same units with one finding set to a severity in [0, 1], one for all or one per unit."""
        _check_finding(finding)
        values = np.broadcast_to(np.asarray(severity, dtype=np.float32), (len(self),))
        if not ((values >= 0) & (values <= 1)).all():
            raise InputError(f"A severity of {finding} lies outside [0, 1].")
        return replace(self, severity=self.severity.assign(**{finding: values.copy()}))

    def images(self, rows: ArrayLike | None = None, *, digital: bool = True) -> NDArray[np.float32]:
        """Render images.

        Parameters
        ----------
        rows : array-like or None
            Positions or mask; all when None.
        digital : bool
            Rounded to 256 grey values (as the PNG files are, bit for bit), or continuous.

        Returns
        -------
        ndarray of shape (n, 1, size, size)
            Float32 in [0, 1].
        """
        chosen = self if rows is None else self.take(rows)
        out = np.empty((len(chosen), 1, self.world.size, self.world.size), dtype=np.float32)
        done = 0
        for block in chosen._blocks(digital=digital):
            out[done : done + len(block), 0] = block
            done += len(block)
        return out

    def counterfactual(
        self, level: str | Sequence[str], rows: ArrayLike | None = None, *, digital: bool = True
    ) -> NDArray[np.float32]:
        """Render the same units, noise included, under another level; shape and range as `images`."""
        chosen = self if rows is None else self.take(rows)
        return chosen.do(level).images(digital=digital)

    def _blocks(self, *, digital: bool) -> Iterator[Image]:
        """Render in blocks of about `CHUNK_PIXELS`; each is (b, size, size)."""
        step = max(1, CHUNK_PIXELS // self.world.size**2)
        for start in range(0, len(self), step):
            image = self._render(slice(start, start + step))
            yield digitise(image) if digital else image

    def _render(self, part: slice) -> Image:
        table = self.exogenous.iloc[part]
        units = {name: _column(table[name]) for name in table.columns if name not in ("patient", "image")}
        units["ap"] = _column(self.ap[part])
        severity = {name: _column(self.severity[name].iloc[part]) for name in FINDINGS}
        bone, shadow = self.world.effects()
        level = self.level[part]
        bone_gain = _column(bone[level]) * (1 + np.float32(0.10) * units["bone_response"])
        total = thickness(self.world.size, units, severity, bone_gain, _column(shadow[level]))
        noise = np.empty_like(total)
        for row, (patient, image) in enumerate(zip(table["patient"], table["image"], strict=True)):
            stream(self.seed, int(patient), int(image), "noise").standard_normal(dtype=np.float32, out=noise[row])
        return film(total, units, noise)

    def write(
        self,
        directory: str | Path,
        *,
        fractions: tuple[float, float, float] = (0.65, 0.10, 0.25),
        seed: int = 0,
        min_patients_per_level: int = 20,
    ) -> Cohort:
        """Write 8-bit PNG files and `phantom.csv`, and read them as a cohort.

        Parameters
        ----------
        directory : str or Path
            Made if missing; images go to its folder `images`.
        fractions : tuple of float
            Shares of patients for training, validation and test.
        seed : int
            Seed of the split.
        min_patients_per_level : int
            Passed to `read_cohort`.

        Returns
        -------
        Cohort
            With the attribute, the five findings as labels and the view as covariate. Memory holds one block of images.
        """
        from citlr.data.cohort import read_cohort
        from citlr.data.images import encode_png

        root = Path(directory)
        (root / "images").mkdir(parents=True, exist_ok=True)
        frame = self.frame
        paths = iter(frame["path"])
        for block in self._blocks(digital=True):
            for image in block:
                (root / next(paths)).write_bytes(encode_png(image))
        frame.to_csv(root / "phantom.csv", index=False)
        return read_cohort(
            root / "phantom.csv",
            images=root,
            attribute=self.world.attribute,
            labels=list(FINDINGS),
            covariates=("view",),
            fractions=fractions,
            seed=seed,
            min_patients_per_level=min_patients_per_level,
        )


@dataclass(frozen=True)
class TrueEffect:
    """The true effect of setting the attribute on a classifier's output, over the units of a sample.

    Attributes
    ----------
    contrast : tuple of str
        Levels (a, a').
    psi : float
        ``mean (d(a') - d(a))^2`` of the decisions `d`; with exact counterfactuals the flip rate is the same number.
    flip_rate : float
        Share of units whose decision differs.
    mean_effect : float
        ``mean d(a') - d(a)``.
    psi_probability, mean_effect_probability : float
        The same of the probabilities.
    n_images, n_patients : int
        Units and patients behind the means.
    threshold : float
        Probability from which on the decision is 1.
    """

    contrast: tuple[str, str]
    psi: float
    flip_rate: float
    mean_effect: float
    psi_probability: float
    mean_effect_probability: float
    n_images: int
    n_patients: int
    threshold: float


def true_effect(
    classify: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    sample: PhantomSample,
    contrast: tuple[str, str],
    *,
    threshold: float = 0.5,
    batch: int = 512,
) -> TrueEffect:
    """Return the true effect of the attribute on a classifier, from exact counterfactuals.

    Parameters
    ----------
    classify : callable
        From float32 images (n, 1, s, s) in [0, 1] to probabilities (n,) in [0, 1].
    sample : PhantomSample
        Units; both levels of the contrast are rendered for each of them.
    contrast : tuple of str
        Levels (a, a'); effects are a' minus a.
    threshold : float
        Probability from which on the decision is 1.
    batch : int
        Images per call.

    Returns
    -------
    TrueEffect
        Means over the units.

    Raises
    ------
    InputError
        If the output has another shape or leaves [0, 1].

    Examples
    --------
    >>> sample = PhantomWorld(size=32).sample(4, seed=0)
    >>> true_effect(lambda images: images[:, 0, 16, 16].astype(float), sample, ("female", "male")).psi
    0.0
    """
    pieces = []
    for start in range(0, len(sample), batch):
        part = sample.take(np.arange(start, min(start + batch, len(sample))))
        pieces.append([_probabilities(classify, part.counterfactual(level)) for level in contrast])
    before, after = (np.concatenate(column) for column in zip(*pieces, strict=True))
    change = (after >= threshold).astype(np.float64) - (before >= threshold)
    return TrueEffect(
        contrast=contrast,
        psi=float(np.mean(change**2)),
        flip_rate=float(np.mean(change != 0)),
        mean_effect=float(np.mean(change)),
        psi_probability=float(np.mean((after - before) ** 2)),
        mean_effect_probability=float(np.mean(after - before)),
        n_images=len(sample),
        n_patients=int(sample.exogenous["patient"].nunique()),
        threshold=threshold,
    )


def _probabilities(
    classify: Callable[[NDArray[np.float32]], NDArray[np.float64]], images: NDArray[np.float32]
) -> NDArray[np.float64]:
    result = np.asarray(classify(images), dtype=np.float64)
    if result.shape != (len(images),):
        raise InputError(
            f"The classifier returned shape {result.shape} for {len(images)} images; it should be ({len(images)},)."
        )
    if not ((result >= 0) & (result <= 1)).all():
        raise InputError("The classifier returned something outside [0, 1]; a probability is needed, not a logit.")
    return result


def _column(values: Iterable[float] | NDArray[np.float32]) -> Image:
    return np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)


def _check_finding(finding: str) -> None:
    if finding not in FINDINGS:
        raise InputError(f"The phantom has no finding '{finding}'.{did_you_mean(finding, FINDINGS)}")
