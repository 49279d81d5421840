"""The disentangler's strength lambda, chosen on validation by leakage and composition."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from citlr.generators.probes.reading import Labelled, read_attribute
from citlr.generators.published.disentangle import Disentangler
from citlr.generators.published.game import Game, level_odds, train_disentangler
from citlr.learning.store import Stream, spans

Decode = Callable[[Tensor], Tensor]
# What is tried: root mean square change per entry of the standardised latent.
LADDER = (0.0, 0.25, 0.5, 1.0)
# What one of each is worth: an AUROC of 0.60 where 0.50 is nothing, and the gate's change of 0.05 grey values.
LEAKAGE, COMPOSITION = 0.10, 0.05
# Training of the fresh probe that measures the leakage.
STEPS = 150


@dataclass(frozen=True)
class StrengthTrial:
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
    def loss(self) -> float:
        """Leakage and composition in units of what is tolerable: `max(0, auroc - 0.5) / 0.10 + composition / 0.05`.

        >>> round(StrengthTrial(0.5, 0.6, 0.025).loss, 6)
        1.5
        """
        return max(0.0, self.auroc - 0.5) / LEAKAGE + self.composition / COMPOSITION


def choose_strength(game: Game, phi: Disentangler, decode: Decode, z: Stream, codes: Tensor) -> list[dict[str, Any]]:
    """Train the disentangler at every strength of the ladder, and leave the one of the least loss in `phi`."""
    found: list[tuple[StrengthTrial, Disentangler]] = []
    for strength in LADDER:
        one = copy.deepcopy(phi)
        one.strength = strength
        if strength > 0:
            train_disentangler(game, one, part=f"disentangler-{strength:g}")
        found.append((_try(game, one, decode, z, codes), one))
    trial, best = min(found, key=lambda pair: pair[0].loss)
    phi.load_state_dict(best.state_dict())
    phi.strength = trial.strength
    phi.eval()
    return [asdict(each) | {"price": each.loss} for each, _ in found]


@torch.no_grad()
def _hidden(game: Game, phi: Disentangler, z: Stream, codes: Tensor, *, name: str) -> tuple[Tensor, Tensor]:
    """Give phi of latents, plain and as the critic sees it."""
    device = game.session.device
    plain, seen = [], []
    for part in spans(len(z), 64):
        told = codes[part][:, game.hidden].to(device)
        hidden = phi(z[part].to(device), told)
        random = game.session.random(f"trade-{name}", part.start)
        plain.append(hidden.cpu())
        seen.append(game.seen(hidden, random).cpu())
    return torch.cat(plain), torch.cat(seen)


def _try(game: Game, phi: Disentangler, decode: Decode, z: Stream, codes: Tensor) -> StrengthTrial:
    _, learnt = _hidden(game, phi, game.z, game.codes, name="train")
    plain, judged = _hidden(game, phi, z, codes, name="validation")
    # One numbering of the levels for both splits.
    index, _ = level_odds(game.conditions, torch.cat([game.codes, codes]), game.held)
    own, other = index[: len(game.codes)], index[len(game.codes) :]
    reading = read_attribute(
        Labelled(learnt, own), Labelled(judged, other), steps=STEPS, seed=game.session.seed, part="trade"
    )
    change, device = 0.0, game.session.device
    with torch.no_grad():
        for part in spans(len(z), 64):
            before = decode(z[part].to(device))
            change += float((decode(plain[part].to(device)) - before).abs().mean()) * len(before)
    return StrengthTrial(phi.strength, reading.auroc, change / len(z))
