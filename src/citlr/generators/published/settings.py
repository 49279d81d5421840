"""Settings of the publication's game between a disentangler and a critic."""

from __future__ import annotations

from dataclasses import dataclass

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
