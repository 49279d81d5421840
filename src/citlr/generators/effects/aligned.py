"""What edits leave of an attribute, aligned as a diffusion model aligns its images (see `alignment`).

Means and covariances of pixels write what lies at the same place in all images, and scale what varies there: nearly all
that an attribute does where bodies lie on top of each other. Edits follow the anatomy, and scale all that is as fine.
Which of the two a cohort's images call for, or both, left-out patients say (`edits.choice`).
"""

from typing import Self

import numpy.typing as npt
import torch
from torch import Tensor, nn

from citlr.generators.conditions import Conditions
from citlr.generators.effects.alignment import Alignment
from citlr.generators.effects.contrasts import FAR
from citlr.generators.effects.support import Support, find_support
from citlr.generators.effects.uncertainty import Uncertainty, find_deviations
from citlr.generators.variables import Variable

# What it is called among the kinds of change.
ALIGNMENT = "alignment"
# Principal components within which covariances are aligned, at most.
COMPONENTS = 400


class Aligned(nn.Module):
    """The alignment over the levels of one attribute, of images that edits brought to the middle of these levels."""

    def __init__(self, conditions: Conditions, channels: int, size: int) -> None:
        super().__init__()
        self.conditions, self.shape = conditions, (channels, size, size)
        self.alignment = Alignment(conditions, self.shape, COMPONENTS)
        self.support = Support(conditions, size)
        self.uncertainty = Uncertainty(conditions, size, channels)

    @torch.no_grad()
    def fit(self, images: Tensor, codes: Tensor, *, seed: int, patients: npt.ArrayLike) -> Self:
        """Estimate where the attribute acts, and the maps, by images (n, c, s, s) at the middle and their codes."""
        pixels, codes = images.numpy(), self._near(codes)
        acts = find_support(pixels, codes, self.conditions, seed=seed, patients=patients)
        self.support.weights.copy_(acts)
        self.alignment.fit(pixels, codes, patients, seed=seed, where=self._where().expand(self.shape))
        return self

    @torch.no_grad()
    def doubt(self, images: Tensor, patients: npt.ArrayLike, codes: Tensor, *, seed: int) -> Self:
        """Find what images (n, c, s, s) of patients (n,) leave open of the mean effects."""
        found = find_deviations(images.numpy(), patients, self._near(codes), self.conditions, seed=seed)
        self.uncertainty.deviations.copy_(found)
        return self

    def _where(self) -> Tensor:
        return self.support.anywhere()

    def taken_off(self, images: Tensor, codes: Tensor) -> Tensor:
        """Add to images (n, c, s, s) at the middle what makes their levels alike."""
        found: Tensor = images + self._where() * (self.alignment(images, self._near(codes)) - images)
        return found

    def change(self, images: Tensor, codes: Tensor, requested: Tensor) -> Tensor:
        """Give what other levels add (n, c, s, s) to images at the middle; nothing where the level is the own one.

        What is held stays as it is: another attribute that is asked for has changes of its own.
        """
        own, codes = self.conditions.attributes[0].width, self._near(codes)
        requested = torch.cat([self._near(requested)[:, :own], codes[:, own:]], dim=1)
        restored = self.alignment.undo(self.alignment(images, codes), requested)
        moves = (requested != codes).any(dim=1).to(images.device).view(-1, 1, 1, 1)
        return torch.where(moves, self._where() * (restored - images), 0.0)

    def errors(self, requested: Tensor, first: Tensor) -> Tensor:
        """Give what replicates of effects from `first` to `requested` (n, width) are off by: (replicates, n, ...)."""
        return self._where() * (self.uncertainty.of(self._near(requested)) - self.uncertainty.of(self._near(first)))

    def _near(self, codes: Tensor) -> Tensor:
        """Let numbers act no further than in edits (see `contrasts.coded`)."""
        near = codes.clone()
        for variable in self.conditions.variables:
            if not variable.levels:
                near[:, self.conditions.span(variable.name).start].clamp_(-FAR, FAR)
        return near


def of_one(conditions: Conditions, variable: Variable) -> Conditions:
    """Give the conditions of one attribute alone; the others that are recorded are held, and the coin is left out."""
    others = tuple(other for other in conditions.recorded if other.name != variable.name)
    return Conditions((variable,), (*others, *conditions.held), conditions.coin_seed)
