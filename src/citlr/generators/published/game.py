"""The game of the disentangler against its critic, its strength, and the information before and after."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from citlr.generators.conditions import Conditions
from citlr.generators.effects.propensity import Propensity
from citlr.generators.probes.parts import Critic
from citlr.generators.probes.reading import Labelled, read_attribute
from citlr.generators.published.disentangle import Disentangler, PublishedSettings, critic_loss, donsker_varadhan
from citlr.learning.loop import VALIDATION, seeded
from citlr.learning.session import Session
from citlr.learning.store import Stream, spans


@dataclass(frozen=True)
class Game:
    """What the players are given.

    - `conditions`: Names the variables; the attributes but for the coin are to be hidden.
    - `start`: Noises latents, with this noise, as the denoiser sees them.
    - `z`, `codes`: Latents (n, c, h, w) and codes (n, width) of the training split.
    """

    settings: PublishedSettings
    session: Session
    conditions: Conditions
    start: Callable[[Tensor, Tensor], Tensor]
    z: Stream
    codes: Tensor

    @property
    def hidden(self) -> list[int]:
        """Columns of a code that belong to attributes other than the coin."""
        return self.conditions.columns(self.conditions.recorded)

    @property
    def held(self) -> list[int]:
        """Columns of a code that belong to held covariates, when information that they give may stay."""
        return self.conditions.columns(self.conditions.held) if self.settings.given_held else []

    @cached_property
    def odds(self) -> tuple[npt.NDArray[np.int64], Tensor]:
        """Level of each image, and how likely each level is by the held covariates alone, see `level_odds`."""
        return level_odds(self.conditions, self.codes, self.held)

    def critic(self, part: str) -> Critic:
        """Build a fresh critic, its first weights drawn by the seed and `part`."""
        settings = self.settings
        with seeded(self.session.seed, part):
            inputs = self.z.rows.shape[1] + len(self.held)
            return Critic(inputs, self.odds[1].shape[1], settings.critic_channels, settings.critic_grid)

    def latent(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Latents of rows (n,), on the device: (n, c, h, w)."""
        return self.z[rows].to(self.session.device)

    def told(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Factual codes of rows (n,), on the device: (n, len(hidden))."""
        return self.codes[rows][:, self.hidden].to(self.session.device)

    def seen(self, hidden: Tensor, random: torch.Generator) -> Tensor:
        """Give what the critic sees (n, c, h, w): the latent, noised as the denoiser sees it with `at_depth`."""
        if not self.settings.at_depth:
            return hidden
        return self.start(hidden, torch.randn(hidden.shape, generator=random).to(hidden.device))

    def scores(self, critic: torch.nn.Module, hidden: Tensor, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Score rows (n,) of `hidden` (n, c, h, w) with their own level and with all of them: (n,) each."""
        scores = critic(hidden, self.codes[rows][:, self.held].to(hidden.device)).float()
        joint = scores.gather(1, torch.from_numpy(self.odds[0][rows])[:, None].to(hidden.device))[:, 0]
        return joint, torch.logsumexp(scores + self.odds[1][rows].to(hidden.device), dim=1)


def level_odds(conditions: Conditions, codes: Tensor, held: Sequence[int]) -> tuple[npt.NDArray[np.int64], Tensor]:
    """Give the rows' levels as numbers (n,), and log-probabilities (n, levels) by the held columns alone."""
    parts = []
    for variable in conditions.recorded:
        part = codes[:, conditions.span(variable.name)].numpy().copy()
        if not variable.levels:
            # A continuous one (the age) is cut at its quartiles.
            part[:, 0] = np.searchsorted(np.quantile(part[:, 0], [0.25, 0.5, 0.75]), part[:, 0], side="left")
        parts.append(part)
    distinct, index = np.unique(np.concatenate(parts, axis=1), axis=0, return_inverse=True)
    shares = np.bincount(index, minlength=len(distinct)) / len(index)
    if not held or len(distinct) < 2:
        return index, torch.from_numpy(np.log(shares)).float().expand(len(index), -1)
    given = codes[:, held].numpy()
    odds = Propensity().fit(index, given).log_odds(given)
    return index, torch.from_numpy(odds).float()


def estimate_information(game: Game, phi: Disentangler | None, *, part: str) -> float:
    """Train a fresh critic on (phi of) the latents and give its bound of the information."""
    session, settings = game.session, game.settings
    critic = game.critic(part)
    learner = session.learner(critic, rate=settings.phi_rate, weight_decay=1e-5)
    log_average = torch.tensor(float("nan"), device=session.device)

    def hidden(rows: npt.NDArray[np.int64]) -> Tensor:
        with torch.no_grad():
            z = game.latent(rows)
            return z if phi is None else phi(z, game.told(rows))

    def update(step: int, random: torch.Generator) -> dict[str, Tensor]:
        rows = session.rows(len(game.z), part=part, step=step, batch=settings.phi_batch)
        joint, product = game.scores(learner.runner, game.seen(hidden(rows), random), rows)
        session.trainer.descend(critic_loss(joint, product, log_average), learner)
        return {"information": donsker_varadhan(joint, product).detach()}

    budget = session.budget(settings.information_steps, batch=settings.phi_batch, rate=settings.phi_rate)
    session.train(part, {"critic": learner}, update, budget, memory={"log_average": log_average})
    with torch.no_grad():
        scores = []
        for span in spans(min(len(game.z), 4 * VALIDATION), settings.phi_batch):
            rows = np.arange(span.start, span.stop)
            random = session.random(f"{part}-bound", span.start)
            scores.append(game.scores(critic, game.seen(hidden(rows), random), rows))
        joint, product = (torch.cat(parts) for parts in zip(*scores, strict=True))
    return max(0.0, float(donsker_varadhan(joint, product)))


def train_disentangler(game: Game, phi: Disentangler, *, part: str = "disentangler") -> None:
    """Play the game: `critic_steps` steps of the critic up the bound, then one of phi down it.

    The critic minimises `critic_loss`, phi the bound itself and `thrift` times its mean square change (nats).
    """
    session, settings = game.session, game.settings
    up = session.learner(game.critic("disentangler"), rate=settings.phi_rate, weight_decay=1e-5, decay=0)
    down = session.learner(phi, rate=settings.phi_rate, weight_decay=1e-5)
    log_average = torch.tensor(float("nan"), device=session.device)

    def update(step: int, random: torch.Generator) -> dict[str, Tensor]:
        bound = torch.zeros(())
        for turn in range(settings.critic_steps + 1):
            number = step * (settings.critic_steps + 1) + turn
            rows = session.rows(len(game.z), part="disentangler", step=number, batch=settings.phi_batch)
            last = turn == settings.critic_steps
            with torch.set_grad_enabled(last):
                z = game.latent(rows)
                hidden = down.runner(z, game.told(rows))
            joint, product = game.scores(up.runner, game.seen(hidden, random), rows)
            if last:
                # Down the bound itself, through the critic: its gradient must reach phi. The critic stands still.
                cost = settings.thrift * (hidden - z).square().mean()
                information = donsker_varadhan(joint, product)
                session.trainer.descend(information + cost, down)
                bound = information.detach()
                up.stepper.zero_grad(set_to_none=True)
            else:
                session.trainer.descend(critic_loss(joint, product, log_average), up)
        return {"information": bound}

    budget = session.budget(settings.phi_steps, batch=settings.phi_batch, rate=settings.phi_rate)
    learners = {"critic": up, "disentangler": down}
    session.train(part, learners, update, budget, memory={"log_average": log_average})


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
        """Leakage and composition in units of what is tolerable: `max(0, auroc - 0.5) / 0.10 + composition / 0.05`."""
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
