"""The networks of a latent diffusion model: MONAI's autoencoder, and its denoiser, which is told the condition."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from citlr.generators.diffusion.settings import AutoencoderSettings, DenoiserSettings
from citlr.generators.quality.measures import ssim


def make_local(module: nn.Module) -> None:
    """Replace every GroupNorm below `module` by a norm of each position over its channels, scaled and shifted.

    So the latent stays local: GroupNorm's statistics run over the whole image, so that a change of the ribs changes the
    reconstruction of the heart a little, and a blind classifier sees it.

    >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(4, 8))
    >>> make_local(net)
    >>> net[1]
    LayerNorm2d((8,), eps=1e-05, elementwise_affine=True, bias=True)
    """
    # Here, for it takes 2 s, see `Denoiser`.
    from torchvision.models.convnext import LayerNorm2d

    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, LayerNorm2d(child.num_channels))
        else:
            make_local(child)


class Autoencoder(nn.Module):
    """Encodes images (n, channels, s, s) in [0, 1] as latents (n, c, s/f, s/f), standardised, and decodes them.

    The factor f is `patch * 2 ** (len(ae_channels) - 1)`. With `patch` above 1 the image enters as a stack of its
    sub-sampled copies, which spares the layers at full resolution: on a processor they are most of the time.

    - `settings`: Width per resolution (`ae_channels`), c (`latent_channels`), residual blocks per resolution, side of
      the squares that become channels (`patch`), groups of GroupNorm, whether normalisation stays within a position
      (`local`, see `make_local`), and whether both networks have a linear path around them (`shortcut`), which `start`
      sets to the principal components of f x f squares: training then starts from the best linear code instead of from
      nothing.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, settings: AutoencoderSettings, image_channels: int = 1) -> None:
        super().__init__()
        patch, channels, latent_channels = settings.patch, settings.ae_channels, settings.latent_channels
        self.patch, self.latent_channels = patch, latent_channels
        # Here, for it takes 5 s, see `Denoiser`.
        from monai.networks.nets.autoencoderkl import AutoencoderKL

        self.net = AutoencoderKL(
            spatial_dims=2,
            in_channels=image_channels * patch**2,
            out_channels=image_channels * patch**2,
            channels=channels,
            num_res_blocks=settings.ae_blocks,
            attention_levels=(False,) * len(channels),
            latent_channels=latent_channels,
            norm_num_groups=settings.groups,
            # Attention over the image would undo locality, and costs most where images are large.
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )
        if settings.local:
            make_local(self.net)
        factor = patch * 2 ** (len(channels) - 1)
        self.down: nn.Conv2d | None = None
        self.up: nn.ConvTranspose2d | None = None
        if settings.shortcut:
            self.down = nn.Conv2d(image_channels, latent_channels, factor, stride=factor)
            self.up = nn.ConvTranspose2d(latent_channels, image_channels, factor, stride=factor)
        self.register_buffer("centre", torch.zeros(1, latent_channels, 1, 1))
        self.register_buffer("spread", torch.ones(1, latent_channels, 1, 1))
        self.to(memory_format=torch.channels_last)

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Give mean and deviation (n, c, s/f, s/f) of the posterior of images (n, channels, s, s), not standardised."""
        stacked = functional.pixel_unshuffle(images * 2 - 1, self.patch) if self.patch > 1 else images * 2 - 1
        mean, deviation = self.net.encode(stacked.contiguous(memory_format=torch.channels_last))
        return (mean if self.down is None else mean + self.down(images)), deviation

    def render(self, latent: Tensor) -> Tensor:
        """Decode latents that are not standardised to images (n, channels, s, s); values are not clipped."""
        stacked: Tensor = self.net.decode(latent.contiguous(memory_format=torch.channels_last))
        images = (functional.pixel_shuffle(stacked, self.patch) if self.patch > 1 else stacked) / 2 + 0.5
        return images if self.up is None else images + self.up(latent) - 0.5

    @torch.no_grad()
    def start(self, images: Tensor) -> None:
        """Set the shortcut to principal components of squares of images (n, channels, s, s), the rest to zero."""
        if self.down is None or self.up is None:
            return
        factor, channels = self.down.stride[0], images.shape[1]
        squares = functional.pixel_unshuffle(images, factor).permute(0, 2, 3, 1).flatten(0, 2).double()
        mean = squares.mean(dim=0)
        values, vectors = torch.linalg.eigh(torch.cov((squares - mean).T))
        keep = torch.arange(len(values)).flip(0)[: self.latent_channels]
        scale = values[keep].clamp_min(1e-8).sqrt()
        basis = vectors[:, keep].T.reshape(-1, channels, factor, factor)
        level = mean.reshape(1, channels, factor, factor)
        self.down.weight.copy_(basis / scale[:, None, None, None])
        self.down.bias.copy_(-(self.down.weight * level).sum(dim=(1, 2, 3)))  # type: ignore[union-attr]
        self.up.weight.copy_(basis * scale[:, None, None, None])
        # One bias for a channel of a square: the mean of squares is flat, but for a rest that training takes care of.
        self.up.bias.copy_(mean.reshape(channels, -1).mean(dim=1))  # type: ignore[union-attr]
        last = max(
            int(name.split(".")[2]) for name, _ in self.net.named_parameters() if name.startswith("decoder.blocks.")
        )
        for name, parameter in self.net.named_parameters():
            if name.startswith(("quant_conv_mu.", f"decoder.blocks.{last}.")):
                parameter.zero_()

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, add `noise` (n, c, s/f, s/f) times the posterior's deviation, decode, for training."""
        mean, deviation = self.moments(images)
        return self.render(mean + noise * deviation), mean, deviation

    def encode(self, images: Tensor) -> Tensor:
        """Give the standardised mean of the posterior: (n, channels, s, s) to (n, c, s/f, s/f)."""
        return (self.moments(images)[0] - self.centre) / self.spread

    def decode(self, z: Tensor) -> Tensor:
        """Give images (n, channels, s, s) in [0, 1] of standardised latents (n, c, s/f, s/f)."""
        return self.decode_unclipped(z).clamp(0.0, 1.0)

    def decode_unclipped(self, z: Tensor) -> Tensor:
        """Decode standardised latents; grey values are not clipped, as those of residualised images need not be."""
        return self.render(z * self.spread + self.centre)

    def standardise(self, mean: Tensor, deviation: Tensor) -> None:
        """Set what latents are standardised by: mean and deviation (c,) of each channel over the training split."""
        self.centre.copy_(mean.reshape(self.centre.shape))
        self.spread.copy_(deviation.clamp_min(1e-6).reshape(self.spread.shape))


def reconstruction_loss(output: Tensor, target: Tensor, *, scales: int = 3, structure: float = 0.1) -> Tensor:
    """Mean absolute error and dissimilarity of structure of images (n, c, s, s), averaged over halved resolutions."""
    total = output.new_zeros(())
    for k in range(scales):
        if k:
            output, target = functional.avg_pool2d(output, 2), functional.avg_pool2d(target, 2)
        total = total + (output - target).abs().mean() + structure * (1 - ssim(output, target).mean())
    return total / scales


def kl_to_normal(mean: Tensor, deviation: Tensor) -> Tensor:
    """Kullback-Leibler divergence of N(mean, deviation^2) from N(0, 1), summed over a latent, averaged over images.

    `sum (mean^2 + deviation^2 - 1 - log deviation^2) / 2`, in nats: a scalar of means and deviations (n, ...).

    >>> kl_to_normal(torch.zeros(2, 3), torch.ones(2, 3)), kl_to_normal(torch.ones(2, 3), torch.ones(2, 3))
    (tensor(0.), tensor(1.5000))
    """
    variance = deviation**2
    each = 0.5 * (mean**2 + variance - 1 - variance.clamp_min(1e-12).log())
    return each.flatten(1).sum(dim=1).mean()


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
        """Run the network on `x` (n, c, h, w), `times` (n,) and `codes` (n, width)."""
        given = x
        if self.planes:
            planes = codes[:, :, None, None].expand(-1, -1, *x.shape[2:])
            given = torch.cat([x, planes], dim=1)
        output: Tensor = self.net(
            given.contiguous(memory_format=torch.channels_last), timesteps=times, context=self.tokens(codes)
        )
        return output
