"""The mean error of an intervention, measured on training images and taken off again.

Aligned images have the same mean under every level of an attribute, given what is held (see `alignment`): what an
attribute does on average is given back by the alignment, exactly as the training split shows it. Whatever a denoiser of
minutes adds to that on average is its error, and would move every classifier that looks there, also one that makes
nothing of the attribute.

The effect itself is known only as surely as the training split shows it (see `uncertainty`). Images are redrawn until
the mean error's standard error is a tenth of that, which makes an effect by half a percent less sure: more of them
would tell no more.
"""

import torch
from torch import Tensor, nn

from citlr.generators.conditions import Conditions
from citlr.generators.effects.uncertainty import Uncertainty

# The standard error of a mean error, in that of the effect, at which enough images are redrawn; and images that enter a
# level at least before it is believed.
SURE, FEWEST = 0.1, 16


class Recentring(nn.Module):
    """Mean changes of aligned images by which interventions are off; zeros until they are measured."""

    errors: Tensor

    def __init__(self, conditions: Conditions, size: int, channels: int = 1) -> None:
        super().__init__()
        self.image = (channels, size, size)
        self.columns = conditions.columns(variable for variable in conditions.attributes if variable.levels)
        # Which of them are levels: the last of each variable is that of a missing value.
        missing = {conditions.span(variable.name).stop - 1 for variable in conditions.attributes}
        self.levels = [k for k, column in enumerate(self.columns) if column not in missing]
        self.register_buffer("errors", torch.zeros(len(self.columns), channels * size, size))

    def entered(self, codes: Tensor, requested: Tensor) -> Tensor:
        """Mark the levels that images get and did not have before.

        Shapes: `codes, requested` (n, width); gives (n, columns).

        >>> import pandas as pd
        >>> frame = pd.DataFrame({"image_id": ["1", "2"], "patient_id": ["1", "2"], "sex": ["F", "M"]})
        >>> conditions = Conditions.of(frame, attributes=("sex",), hold=(), coin_seed=0)
        >>> codes = conditions.encode(frame)
        >>> Recentring(conditions, 32).entered(codes, conditions.intervene(codes, ("sex",), "M"))[:, :3]
        tensor([[0., 1., 0.],
                [0., 0., 0.]])
        """
        return (requested[:, self.columns] - codes[:, self.columns]).clamp(min=0)

    def forward(self, codes: Tensor, requested: Tensor) -> Tensor:
        """Give the mean error of redrawing images of these factual codes under those requested.

        Shapes: gives (n, 1, c, s, s).

        >>> import pandas as pd
        >>> frame = pd.DataFrame({"patient_id": ["1", "2"], "sex": ["F", "M"]})
        >>> conditions = Conditions.of(frame, attributes=("sex",), hold=(), coin_seed=0)
        >>> codes, recentring = conditions.encode(frame), Recentring(conditions, 1)
        >>> recentring.errors += 0.25
        >>> recentring(codes, conditions.intervene(codes, ("sex",), "M")).flatten()
        tensor([0.2500, 0.0000])
        """
        entered = self.entered(codes, requested).to(self.errors.device)
        # The channels lie one below the other.
        return torch.einsum("nc,chw->nhw", entered, self.errors).reshape(len(codes), 1, *self.image)


class MeanChanges:
    """Running means of changes by the level that images enter, and whether they are sure enough.

    - `where` (c * s, s): Weights in [0, 1] by which changes are let through to a redrawn image, see `Support`.
    """

    def __init__(self, recentring: Recentring, uncertainty: Uncertainty, where: Tensor) -> None:
        self.recentring, self.uncertainty, self.where = recentring, uncertainty, where.double().cpu()
        self.total = torch.zeros(recentring.errors.shape, dtype=torch.float64)
        self.squares = torch.zeros_like(self.total)
        self.count = torch.zeros(len(self.total), dtype=torch.float64)
        self.moved: Tensor | float = 0.0

    def add(self, codes: Tensor, requested: Tensor, change: Tensor) -> None:
        """Take in the changes (n, c * s, s) of images of these codes (n, width) under those requested."""
        entered, found = self.recentring.entered(codes, requested).double(), change.double().cpu()
        self.total += torch.einsum("nc,nhw->chw", entered, found)
        self.squares += torch.einsum("nc,nhw->chw", entered, found.square())
        self.count += entered.sum(dim=0)
        self.moved = self.moved + entered.T @ (requested - codes).double()

    def means(self) -> Tensor:
        """Give the mean change of entering each level: (columns, c * s, s), zero where none did."""
        return (self.total / self.count.clamp(min=1)[:, None, None]).float()

    def standard_errors(self) -> Tensor:
        """Give the means' standard errors, root mean squares over what is let through: (columns,)."""
        count = self.count.clamp(min=2)[:, None, None]
        variance = (self.squares - self.total.square() / count) / (count - 1)
        return (variance.clamp(min=0) / count * self.where.square()).mean(dim=(1, 2)).sqrt()

    def left_open(self) -> Tensor:
        """Give what the training split leaves open of the effects of entering each level, likewise: (columns,).

        The coin has none; its mean is to be as sure as that of the attribute that is known best.
        """
        codes = torch.as_tensor(self.moved) / self.count.clamp(min=1)[:, None]
        deviations = self.uncertainty.of(codes).cpu().double().flatten(2, 3) * self.where
        found = deviations.square().mean(dim=(0, 2, 3)).sqrt()
        shown = found[found > 0]
        return torch.where(found > 0, found, shown.min() if len(shown) else 0.0)

    def are_sure(self) -> bool:
        """Say whether more images would tell no more, for every level."""
        levels = self.recentring.levels
        if float(self.count[levels].min()) < FEWEST:
            return False
        return bool((self.standard_errors() <= SURE * self.left_open())[levels].all())
