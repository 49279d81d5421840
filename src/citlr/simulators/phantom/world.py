"""A chest phantom whose counterfactuals are exact: images from structural equations with every random variable kept.

A unit is drawn once (`PhantomWorld.sample`): anatomy of the patient, pose and film noise of the image, attribute, view,
findings. Its image under another level of the attribute is the same equations evaluated again. The attribute acts on
pixels inside `PhantomWorld.support` only: bone of shoulders, clavicles and upper ribs, and a breast-like shadow.
Attribute and findings may be correlated through selection; setting the attribute does not move the findings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from citlr.errors import InputError
from citlr.simulators.phantom.anatomy import (
    choose_level,
    conditional_prevalence,
    draw_exogenous,
    draw_variation,
    graded,
    per_name,
    present,
)
from citlr.simulators.phantom.regions import FINDINGS, attribute_windows, check_finding, finding_window
from citlr.simulators.phantom.sample import PhantomSample
from citlr.values import ByForm, Listed, Name, Number, Numbers, One, Whole, check_fields, checked, ordered

SMALLEST, LARGEST = 32, 256
AnatomyKind = Literal["fixed", "varying"]
# Counts below 1 are refused with the sentence of the sample.
Size = Annotated[Whole, Field(le=10_000_000)]
Sizes = Annotated[Annotated[Size, One] | Annotated[tuple[Size, Size], Listed], ByForm]


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
    anatomy : {"fixed", "varying"}
        Whether chests lie on top of each other up to a few pixels, so that one map of pixels is most of what the
        attribute does, or differ in pose, size and place of their parts, so that its effect moves with the anatomy.

    Examples
    --------
    >>> world = PhantomWorld(size=32)
    >>> sample = world.sample(3, seed=0)
    >>> images = sample.images()
    >>> counterfactuals = sample.counterfactual("male")
    >>> images.shape, images.dtype
    ((6, 1, 32, 32), dtype('float32'))
    >>> bool((images[..., ~world.support()] == counterfactuals[..., ~world.support()]).all())
    True
    """

    size: Whole = 64
    levels: Annotated[tuple[Name, ...], BeforeValidator(ordered)] = ("female", "male")
    correlation: Numbers = 0.0
    attribute: Name = "sex"
    prevalence: Numbers = 0.3
    weights: tuple[Number, ...] | None = None
    ap_share: Number = 0.4
    strength: Annotated[Number, Field(ge=-10, le=10)] = 1.0
    anatomy: AnatomyKind = "fixed"

    def __post_init__(self) -> None:
        check_fields(self)
        if not SMALLEST <= self.size <= LARGEST:
            raise InputError(f"The phantom's size is {self.size}; it can be {SMALLEST} to {LARGEST} pixels.")
        if len(self.levels) < 2 or len(set(self.levels)) != len(self.levels):
            raise InputError(f"The phantom's attribute has levels {self.levels}; it needs two or more different ones.")
        if self.weights is not None and (
            len(self.weights) != len(self.levels) or min(self.weights) <= 0 or abs(sum(self.weights) - 1) > 1e-9
        ):
            raise InputError(f"weights is {self.weights}; it needs {len(self.levels)} positive shares that sum to one.")
        for name, share in self.prevalences().items():
            if not 0 < share < 1:
                raise InputError(f"The prevalence of {name} is {share:g}; it has to lie between 0 and 1.")
        self.conditional()

    def _weights(self) -> NDArray[np.float64]:
        count = len(self.levels)
        return np.full(count, 1 / count) if self.weights is None else np.asarray(self.weights, dtype=np.float64)

    def prevalences(self) -> dict[str, float]:
        """Return P(finding) for the five findings, and the share of AP views as "view"."""
        return per_name(self.prevalence, FINDINGS, what="prevalence", default=0.3) | {"view": self.ap_share}

    def conditional(self) -> dict[str, NDArray[np.float64]]:
        """Return P(finding | level) per finding, and P(AP | level) as "view", each of shape (n_levels,)."""
        named = isinstance(self.correlation, Mapping)
        names = (*FINDINGS, "view") if named else FINDINGS
        wanted = per_name(self.correlation, names, what="correlation", default=0.0)
        shares = self.prevalences()
        return {
            name: conditional_prevalence(share, wanted.get(name, 0.0), self._weights(), name=name)
            for name, share in shares.items()
        }

    def effects(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return what each level does: relative change of bone, and path of the breast shadow, each (n_levels,).

        The first level has fainter bone and the full shadow, the last one denser bone and none; the others lie evenly
        between them. Each unit adds its own response to both.
        """
        step = np.linspace(0, 1, len(self.levels))
        bone = self.strength * (-0.35 + 1.15 * step)
        shadow = self.strength * 0.34 * (1 - step)
        return bone.astype(np.float32), shadow.astype(np.float32)

    def support(self) -> NDArray[np.bool_]:
        """Return the pixels (size, size) that any level of the attribute can touch, for any unit."""
        bone, breast = attribute_windows(self.size, varying=self.anatomy == "varying")
        return (bone > 0) | (breast > 0)

    def region(self, finding: str) -> NDArray[np.bool_]:
        """Return the pixels (size, size) that a finding can touch, for any unit.

        Those of cardiomegaly and effusion lie outside of `support`; edema, consolidation and atelectasis overlap it.
        """
        check_finding(finding)
        return finding_window(finding, self.size) > 0

    @checked
    def sample(self, n_patients: Size, *, seed: Whole, images_per_patient: Sizes = 2) -> PhantomSample:
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
        if self.anatomy == "varying":
            exogenous = pd.concat([exogenous, draw_variation(exogenous, seed=seed)], axis=1)
        level = choose_level(exogenous["attribute_rank"].to_numpy(), self._weights())
        severity = {}
        chance = self.conditional()
        for name in FINDINGS:
            there = present(exogenous[f"{name}_tendency"].to_numpy(), chance[name][level])
            grade = graded(exogenous[f"{name}_rank"].to_numpy())
            severity[name] = np.where(there, grade, 0).astype(np.float32)
        frontal = present(exogenous["view_tendency"].to_numpy(), chance["view"][level])
        return PhantomSample(
            world=self, seed=seed, exogenous=exogenous, level=level, ap=frontal, severity=pd.DataFrame(severity)
        )
