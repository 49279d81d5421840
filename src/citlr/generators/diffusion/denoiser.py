"""The denoiser: MONAI's DiffusionModelUNet, told the condition by cross-attention and, on request, as planes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from citlr.errors import InputError, did_you_mean
from citlr.generators.diffusion.tokens import Tokens

PREDICTIONS = ("epsilon", "sample", "velocity")


class Denoiser(nn.Module):
    """Predicts what a noisy latent consists of, given the time and the condition.

    - `latent_channels`: Channels of the latent.
    - `widths`: Lengths of the variables' codes, see `Conditions`.
    - `channels`, `attention`: Width per resolution, and whether there is (self- and cross-) attention at it; at least
      one has it.
    - `blocks`, `head`, `groups`, `context`: Residual blocks per resolution, channels per attention head, groups of
      GroupNorm, length of a token.
    - `planes`: Whether the code is also given at every position, as constant planes beside the latent. Cross-attention
      alone takes some thousand steps to find the condition; planes take some ten.
    - `prediction`: What the network puts out.
    """

    def __init__(
        self,
        *,
        latent_channels: int,
        widths: Sequence[int],
        channels: tuple[int, ...],
        attention: tuple[bool, ...],
        blocks: int,
        head: int,
        groups: int,
        context: int,
        planes: bool,
        prediction: str,
    ) -> None:
        # Here, for it takes 5 s: whoever only reads results, or has a typing error in a model's name, does not wait.
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        super().__init__()
        if prediction not in PREDICTIONS:
            raise InputError(f"prediction='{prediction}' is not known.{did_you_mean(prediction, PREDICTIONS)}")
        self.prediction = prediction
        self.planes = planes
        self.tokens = Tokens(widths, context)
        self.net = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=latent_channels + (sum(widths) if planes else 0),
            out_channels=latent_channels,
            channels=channels,
            attention_levels=attention,
            num_res_blocks=blocks,
            num_head_channels=head,
            norm_num_groups=groups,
            with_conditioning=True,
            cross_attention_dim=context,
            use_flash_attention=True,
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, times: Tensor, codes: Tensor) -> Tensor:
        """Run the network.

        Shapes: `x` (n, c, h, w), `times` (n,), `codes` (n, width); gives (n, c, h, w).
        """
        given = x
        if self.planes:
            planes = codes[:, :, None, None].expand(-1, -1, *x.shape[2:])
            given = torch.cat([x, planes], dim=1)
        output: Tensor = self.net(
            given.contiguous(memory_format=torch.channels_last), timesteps=times, context=self.tokens(codes)
        )
        return output


def target_of(prediction: str, *, z: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Give what a network of this kind should put out: the noise, the clean latent, or the velocity.

    The velocity is `sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) z` (Salimans and Ho 2022).

    Examples
    --------
    >>> target_of("velocity", z=torch.tensor([1.0]), noise=torch.tensor([2.0]), alpha_bar=torch.tensor(0.5))
    tensor([0.7071])
    """
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return z
    return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * z


def noise_of(prediction: str, output: Tensor, *, x: Tensor, alpha_bar: float) -> Tensor:
    """Turn the network's output at `x` into the noise that it implies.

    Examples
    --------
    >>> z, eps, a = torch.ones(1), torch.full((1,), 3.0), torch.tensor(0.64)
    >>> x = a.sqrt() * z + (1 - a).sqrt() * eps
    >>> outputs = [(p, target_of(p, z=z, noise=eps, alpha_bar=a)) for p in PREDICTIONS]
    >>> [round(float(noise_of(p, output, x=x, alpha_bar=0.64)), 4) for p, output in outputs]
    [3.0, 3.0, 3.0]
    """
    if prediction == "epsilon":
        return output
    if prediction == "sample":
        return (x - math.sqrt(alpha_bar) * output) / math.sqrt(max(1 - alpha_bar, 1e-12))
    return math.sqrt(alpha_bar) * output + math.sqrt(1 - alpha_bar) * x
