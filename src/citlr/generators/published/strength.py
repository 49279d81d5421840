"""The disentangler's strength lambda, chosen on validation by the trade between leakage and composition."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from citlr.generators.diffusion.autoencoder import Autoencoder
from citlr.generators.probes.reading import read_attribute
from citlr.generators.published.disentangle import Disentangler
from citlr.generators.published.hiding import Hiding, train_disentangler
from citlr.learning.store import Rows, spans

# What is tried: root mean square change per entry of the standardised latent.
LADDER = (0.0, 0.25, 0.5, 1.0)
# What one of each is worth: an AUROC of 0.60 where 0.50 is nothing, and the gate's change of 0.05 grey values.
LEAKAGE, COMPOSITION = 0.10, 0.05
# Training of the fresh probe that measures the leakage.
STEPS = 150


@dataclass(frozen=True)
class Trade:
    """What one strength hides, and what it costs.

    - `strength`: See `Disentangler`.
    - `auroc`: Of a fresh probe that reads the attribute off phi(z) as the denoiser sees it, on validation images.
    - `composition`: Mean absolute change of the decoded image by phi, grey values in [0, 1]: what the denoiser has to
      make good.
    """

    strength: float
    auroc: float
    composition: float

    @property
    def price(self) -> float:
        """Leakage and composition in units of what is tolerable: `max(0, auroc - 0.5) / 0.10 + composition / 0.05`.

        Examples
        --------
        >>> round(Trade(0.5, 0.6, 0.025).price, 6)
        1.5
        """
        return max(0.0, self.auroc - 0.5) / LEAKAGE + self.composition / COMPOSITION


def choose_strength(
    game: Hiding, phi: Disentangler, autoencoder: Autoencoder, z: Rows, codes: Tensor
) -> list[dict[str, Any]]:
    """Train the disentangler at every strength of the ladder, and leave the one of the least price in `phi`."""
    found: list[tuple[Trade, Disentangler]] = []
    for strength in LADDER:
        one = copy.deepcopy(phi)
        one.strength = strength
        if strength > 0:
            train_disentangler(game, one, part=f"disentangler-{strength:g}")
        found.append((_trade(game, one, autoencoder, z, codes), one))
    trade, best = min(found, key=lambda pair: pair[0].price)
    phi.load_state_dict(best.state_dict())
    phi.strength = trade.strength
    phi.eval()
    return [asdict(each) | {"price": each.price} for each, _ in found]


@torch.no_grad()
def _hidden(game: Hiding, phi: Disentangler, z: Rows, codes: Tensor, *, name: str) -> tuple[Tensor, Tensor]:
    """Give phi of latents, plain and as the critic sees it."""
    device = game.shop.trainer.device
    plain, seen = [], []
    for part in spans(len(z), 64):
        told = codes[part][:, game.secret.columns].to(device)
        hidden = phi(torch.from_numpy(np.array(z[part])).to(device), told)
        random = game.shop.trainer.random(seed=game.shop.seed, part=f"trade-{name}", step=part.start)
        plain.append(hidden.cpu())
        seen.append(game.seen(hidden, random).cpu())
    return torch.cat(plain), torch.cat(seen)


def _trade(game: Hiding, phi: Disentangler, autoencoder: Autoencoder, z: Rows, codes: Tensor) -> Trade:
    _, learnt = _hidden(game, phi, game.z, game.codes, name="train")
    plain, judged = _hidden(game, phi, z, codes, name="validation")
    # One numbering of the levels for both splits.
    index, _ = game.secret.odds(torch.cat([game.codes, codes]))
    own, other = index[: len(game.codes)], index[len(game.codes) :]
    reading = read_attribute(learnt, own, judged, other, steps=STEPS, seed=game.shop.seed, part="trade")
    change, device = 0.0, game.shop.trainer.device
    with torch.no_grad():
        for part in spans(len(z), 64):
            before = autoencoder.decode(torch.from_numpy(np.array(z[part])).to(device))
            change += float((autoencoder.decode(plain[part].to(device)) - before).abs().mean()) * len(before)
    return Trade(phi.strength, reading.auroc, change / len(z))
