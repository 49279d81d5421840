"""The denoiser: MONAI's DiffusionModelUNet, told the condition by cross-attention and, on request, as planes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from citlr.generators.diffusion.settings import AutoencoderSettings, DenoiserSettings


class Tokens(nn.Module):
    """Embeds a code as one token per variable: (n, width) -> (n, variables, dim).

    A linear map per variable, so that a null token, a level and a number have an embedding each of their own.
    """

    def __init__(self, widths: Sequence[int], dim: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.embeddings = nn.ModuleList(nn.Linear(width, dim) for width in widths)

    def forward(self, codes: Tensor) -> Tensor:
        """Embed codes."""
        parts = torch.split(codes, list(self.widths), dim=1)
        return torch.stack([embed(part) for embed, part in zip(self.embeddings, parts, strict=True)], dim=1)


class Denoiser(nn.Module):
    """Predicts what a noisy latent consists of, given the time and the condition.

    - `settings`: Widths per resolution and whether there is (self- and cross-) attention at it (`unet_channels`,
      `unet_attention`; at least one has it), residual blocks per resolution, channels per attention head, length of a
      token (`context`), what the network puts out (`prediction`), and whether the code is also given at every position
      (`planes`), as constant planes beside the latent: cross-attention alone takes some thousand steps to find the
      condition; planes take some ten.
    - `autoencoder`: Channels of the latent, and groups of GroupNorm.
    - `widths`: Lengths of the variables' codes, see `Conditions`.
    """

    def __init__(self, settings: DenoiserSettings, autoencoder: AutoencoderSettings, widths: Sequence[int]) -> None:
        # Here, for it takes 5 s: whoever only reads results, or has a typing error in a model's name, does not wait.
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        super().__init__()
        self.prediction, self.planes = settings.prediction, settings.planes
        self.tokens = Tokens(widths, settings.context)
        self.net = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=autoencoder.latent_channels + (sum(widths) if self.planes else 0),
            out_channels=autoencoder.latent_channels,
            channels=settings.unet_channels,
            attention_levels=settings.unet_attention,
            num_res_blocks=settings.unet_blocks,
            num_head_channels=settings.head,
            norm_num_groups=autoencoder.groups,
            with_conditioning=True,
            cross_attention_dim=settings.context,
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
