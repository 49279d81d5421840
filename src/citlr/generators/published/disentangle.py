"""The disentangler, a bounded change of the latent that hides the attribute from a critic (MINE), and its settings."""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from citlr.values import Batch, Count, Few, Flag, NotNegative, Widths, check_fields


@dataclass(frozen=True)
class PublishedSettings:
    """The game, which is not played at strength 0: what `latent_alignment` leaves is less than it adds in minutes.

    - `strength`: See `Disentangler`; None is chosen on the validation split by the leakage and the composition.
    - `informed`, `at_most`, `phi_channels`: See `Disentangler`.
    - `critic_channels`, `critic_grid`: See `Critic`.
    - `critic_steps`: Steps of the critic per step of the disentangler.
    - `information_steps`: Steps of the critics that estimate the information before and after.
    - `thrift`: Price (in nats) of a mean square change of 1.
    - `given_held`: Whether the information that the critic measures is that beyond the held covariates, instead of all
      of it: a game without `latent_alignment` then leaves a disease in the latent that the attribute predicts.
    - `at_depth`: Whether the critic sees latents noised as the denoiser sees them.
    """

    strength: NotNegative | None = 0.0
    informed: Flag = True
    at_most: Flag = True
    phi_channels: Widths = (8, 16, 32)
    phi_steps: Count = 150
    phi_batch: Batch = 32
    phi_rate: NotNegative = 2e-3
    critic_channels: Widths = (16, 32)
    critic_grid: Few = 4
    critic_steps: Count = 3
    information_steps: Count = 100
    thrift: NotNegative = 0.3
    given_held: Flag = True
    at_depth: Flag = True

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def played(self) -> bool:
        """Whether there is a game at all."""
        return self.strength != 0


# What the publication describes, at any size.
PUBLISHED = {
    "objective": "published",
    "strength": 0.5,
    "prediction": "epsilon",
    "planes": False,
    "local": False,
    "shortcut": False,
    "detail": "none",
    "support": "everywhere",
    "alignment": "none",
    "informed": False,
    "at_most": False,
    "latent_alignment": "none",
    "thrift": 0.0,
    "at_depth": False,
    "critic_grid": 1,
    "critic_steps": 5,
    "given_held": False,
    "guidance": 1.0,
    "sampling_steps": 10,
}


def donsker_varadhan(joint: Tensor, product: Tensor) -> Tensor:
    """Lower bound of the mutual information from a critic's scores: `E_joint[T] - log E_product[exp T]`, in nats.

    The bound of Donsker and Varadhan, as Belghazi et al. (2018, MINE) use it.

    Shapes: `joint, product` (n,).
    """
    return joint.mean() - (torch.logsumexp(product, dim=0) - math.log(len(product)))


def critic_loss(joint: Tensor, product: Tensor, log_average: Tensor, *, rate: float = 0.05) -> Tensor:
    """Negative bound whose gradient is corrected as in Belghazi et al. (2018), section 3.2.

    The gradient of `log E[exp T]` on a batch is biased, as its denominator is the batch's own mean. A moving average of
    that mean takes its place: `E[exp(T_product)] / average - E[T_joint]`.
    """
    batch = (torch.logsumexp(product, dim=0) - math.log(len(product))).detach()
    if torch.isnan(log_average):
        log_average.copy_(batch)
    else:
        log_average.copy_(torch.logaddexp(log_average + math.log(1 - rate), batch + math.log(rate)))
    return torch.exp(product - log_average).mean() - joint.mean()


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.GroupNorm(min(8, outputs), outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.SiLU(),
    )


class Disentangler(nn.Module):
    """`phi(z) = z + lambda delta(z) / ||delta(z)||` with a U-shaped delta.

    - `channels`: Widths going down; mirrored going up.
    - `strength`: Root mean square of the change per entry of the (standardised) latent: lambda = strength *
      sqrt(entries).
    - `attributes`: Length of the factual attribute's code.
    - `informed`: Whether delta is told that code; the published delta is not.
    - `at_most`: Whether lambda is a bound of the change instead of its length: then nothing moves more than hiding asks
      for.
    """

    def __init__(
        self,
        *,
        latent_shape: tuple[int, int, int],
        channels: tuple[int, ...],
        strength: float,
        attributes: int,
        informed: bool = False,
        at_most: bool = False,
    ) -> None:
        super().__init__()
        latent_channels, told = latent_shape[0], attributes if informed else 0
        self.strength = strength
        self.told = told
        self.at_most = at_most
        widths = (latent_channels + told, *channels)
        self.down = nn.ModuleList(_block(a, b) for a, b in itertools.pairwise(widths))
        up = [(below + above, above) for above, below in itertools.pairwise(channels)]
        self.up = nn.ModuleList(_block(a, b) for a, b in reversed(up))
        self.out = nn.Conv2d(channels[0], latent_channels, 1)
        self.to(memory_format=torch.channels_last)

    def delta(self, z: Tensor, factual: Tensor) -> Tensor:
        """Give the direction of the change, (n, c, h, w); parameters as of `forward`."""
        x = z
        if self.told:
            x = torch.cat([z, factual[:, :, None, None].expand(-1, -1, *z.shape[2:])], dim=1)
        kept: list[Tensor] = []
        for k, block in enumerate(self.down):
            if k:
                kept.append(x)
                x = functional.max_pool2d(x, 2)
            x = block(x)
        for block in self.up:
            skip = kept.pop()
            x = functional.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skip], dim=1))
        change: Tensor = self.out(x)
        return change

    def forward(self, z: Tensor, factual: Tensor) -> Tensor:
        """Give phi(z), of `z` (n, c, h, w) and the codes `factual` (n, attributes)."""
        change = self.delta(z, factual)
        length = change.flatten(1).norm(dim=1).clamp_min(1e-8)[:, None, None, None]
        reach = self.strength * math.sqrt(z[0].numel())
        factor = (reach / length).clamp_max(1.0) if self.at_most else reach / length
        hidden: Tensor = z + factor * change
        return hidden
