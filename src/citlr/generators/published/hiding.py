"""Training of the disentangler against its critic, and the information before and after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from citlr.generators.conditions import Conditions
from citlr.generators.diffusion.fitting import Workshop
from citlr.generators.diffusion.process import Process
from citlr.generators.effects.propensity import Propensity
from citlr.generators.probes.blocks import Critic
from citlr.generators.published.disentangle import Disentangler, critic_loss, donsker_varadhan
from citlr.learning.loop import VALIDATION, seeded
from citlr.learning.store import Rows, spans


@dataclass(frozen=True)
class Secret:
    """What is to be hidden, and what may be known: codes of the attributes and of the held covariates.

    - `conditions`: Names the variables.
    - `given_held`: Whether information that the held covariates already give may stay.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"patient_id": range(4), "sex": list("FMFM"), "view": ["AP", "AP", "PA", "PA"]})
    >>> conditions = Conditions.of(frame, attributes=("sex",), hold=("view",), coin_seed=0)
    >>> secret = Secret(conditions, given_held=True)
    >>> secret.columns, secret.held
    ([0, 1, 2], [6, 7, 8])
    >>> index, odds = secret.odds(conditions.encode(frame))
    >>> index.tolist(), odds[0].exp().round(decimals=2).tolist()
    ([1, 0, 1, 0], [0.5, 0.5])
    """

    conditions: Conditions
    given_held: bool

    @property
    def columns(self) -> list[int]:
        """Columns of a code that belong to attributes other than the coin."""
        return self.conditions.columns(self.conditions.recorded)

    @property
    def held(self) -> list[int]:
        """Columns of a code that belong to held covariates, when these may be known."""
        return self.conditions.columns(self.conditions.held) if self.given_held else []

    def odds(self, codes: Tensor) -> tuple[npt.NDArray[np.int64], Tensor]:
        """Give each row's level as a number, and how likely each level is by the held covariates alone.

        Shapes: `codes` (n, width); gives (n,).
        """
        distinct, index = np.unique(self._binned(codes), axis=0, return_inverse=True)
        shares = np.bincount(index, minlength=len(distinct)) / len(index)
        if not self.held or len(distinct) < 2:
            return index, torch.from_numpy(np.log(shares)).float().expand(len(index), -1)
        given = codes[:, self.held].numpy()
        odds = Propensity().fit(index, given).log_odds(given)
        return index, torch.from_numpy(odds).float()

    def _binned(self, codes: Tensor) -> npt.NDArray[np.float32]:
        """Codes of the attributes, a continuous one (the age) cut at its quartiles."""
        parts = []
        for variable in self.conditions.recorded:
            part = codes[:, self.conditions.span(variable.name)].numpy().copy()
            if not variable.levels:
                edges = np.quantile(part[:, 0], [0.25, 0.5, 0.75])
                part[:, 0] = np.searchsorted(edges, part[:, 0], side="left")
            parts.append(part)
        return np.concatenate(parts, axis=1)


class Hiding:
    """The data of the disentangler's game.

    - `shop`: Device, seed, folder.
    - `process`: For the noise of the denoiser, where the critic is to see it.
    - `secret`: What is hidden.
    - `z`, `codes`: Latents (n, c, h, w) and codes (n, width) of the training split.
    """

    def __init__(self, shop: Workshop, process: Process, secret: Secret, z: Rows, codes: Tensor) -> None:
        self.shop, self.process, self.secret, self.z, self.codes = shop, process, secret, z, codes
        self.index, self.log_odds = secret.odds(codes)

    def critic(self, part: str) -> Critic:
        """Build a fresh critic on the device, its first weights drawn by the seed and `part`."""
        config = self.shop.config
        with seeded(self.shop.seed, part):
            inputs = config.latent_channels + len(self.secret.held)
            critic = Critic(inputs, self.log_odds.shape[1], config.critic_channels, config.critic_grid)
        return critic.to(self.shop.trainer.device)

    def latent(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Latents of rows (n,), on the device: (n, c, h, w)."""
        return torch.from_numpy(np.asarray(self.z[rows])).to(self.shop.trainer.device)

    def told(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Factual codes of rows (n,), on the device: (n, len(secret.columns))."""
        return self.codes[rows][:, self.secret.columns].to(self.shop.trainer.device)

    def seen(self, hidden: Tensor, random: torch.Generator) -> Tensor:
        """Give what the critic sees (n, c, h, w): the latent, noised as the denoiser sees it with `at_depth`."""
        if not self.shop.config.at_depth:
            return hidden
        return self.process.start(hidden, torch.randn(hidden.shape, generator=random).to(hidden.device))

    def scores(self, critic: torch.nn.Module, hidden: Tensor, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Score rows with their own level and with all of them.

        Shapes: `hidden` (n, c, h, w), `rows` (n,); gives (n,).
        """
        scores = critic(hidden, self.codes[rows][:, self.secret.held].to(hidden.device)).float()
        joint = scores.gather(1, torch.from_numpy(self.index[rows])[:, None].to(hidden.device))[:, 0]
        return joint, torch.logsumexp(scores + self.log_odds[rows].to(hidden.device), dim=1)


def estimate_information(game: Hiding, phi: Disentangler | None, *, part: str) -> float:
    """Train a fresh critic on (phi of) the latents and give its bound of the information."""
    shop = game.shop
    config, trainer = shop.config, shop.trainer
    critic = game.critic(part)
    learner = shop.learner(critic, rate=config.phi_rate, decay=config.ema, weight_decay=1e-5)
    log_average = torch.tensor(float("nan"), device=trainer.device)

    def hidden(rows: npt.NDArray[np.int64]) -> Tensor:
        with torch.no_grad():
            z = game.latent(rows)
            return z if phi is None else phi(z, game.told(rows))

    def update(step: int, random: torch.Generator) -> dict[str, float]:
        rows = trainer.rows(len(game.z), seed=shop.seed, part=part, step=step, batch_size=config.phi_batch)
        joint, product = game.scores(learner.runner, game.seen(hidden(rows), random), rows)
        trainer.descend(critic_loss(joint, product, log_average), learner)
        return {"information": float(donsker_varadhan(joint, product).detach())}

    budget = shop.budget(config.information_steps, batch=config.phi_batch, rate=config.phi_rate)
    shop.plan(part, {"critic": learner}, update, budget, memory={"log_average": log_average})
    with torch.no_grad():
        scores = []
        for span in spans(min(len(game.z), 4 * VALIDATION), config.phi_batch):
            rows = np.arange(span.start, span.stop)
            random = trainer.random(seed=shop.seed, part=f"{part}-bound", step=span.start)
            scores.append(game.scores(critic, game.seen(hidden(rows), random), rows))
        joint, product = (torch.cat(parts) for parts in zip(*scores, strict=True))
    return max(0.0, float(donsker_varadhan(joint, product)))


def train_disentangler(game: Hiding, phi: Disentangler, *, part: str = "disentangler") -> None:
    """Play the game: `critic_steps` steps of the critic up the bound, then one of phi down it.

    The critic minimises `critic_loss`, phi the bound itself and `thrift` times its mean square change (nats).
    """
    shop = game.shop
    config, trainer = shop.config, shop.trainer
    phi.to(trainer.device)
    critic = game.critic("disentangler")
    up = shop.learner(critic, rate=config.phi_rate, weight_decay=1e-5)
    down = shop.learner(phi, rate=config.phi_rate, weight_decay=1e-5, decay=config.ema)
    log_average = torch.tensor(float("nan"), device=trainer.device)

    def update(step: int, random: torch.Generator) -> dict[str, float]:
        bound = 0.0
        for turn in range(config.critic_steps + 1):
            rows = trainer.rows(
                len(game.z),
                seed=shop.seed,
                part="disentangler",
                step=step * (config.critic_steps + 1) + turn,
                batch_size=config.phi_batch,
            )
            last = turn == config.critic_steps
            with torch.set_grad_enabled(last):
                z = game.latent(rows)
                hidden = down.runner(z, game.told(rows))
            joint, product = game.scores(up.runner, game.seen(hidden, random), rows)
            if last:
                # Down the bound itself, through the critic: its gradient must reach phi. The critic stands still.
                cost = config.thrift * (hidden - z).square().mean()
                information = donsker_varadhan(joint, product)
                trainer.descend(information + cost, down)
                bound = float(information.detach())
                up.stepper.zero_grad(set_to_none=True)
            else:
                trainer.descend(critic_loss(joint, product, log_average), up)
        return {"information": bound}

    budget = shop.budget(config.phi_steps, batch=config.phi_batch, rate=config.phi_rate)
    learners = {"critic": up, "disentangler": down}
    shop.plan(part, learners, update, budget, memory={"log_average": log_average})


def mean_effects(
    z: Rows, codes: Tensor, secret: Secret, *, rows: npt.NDArray[np.int64] | None = None, ridge: float = 1.0
) -> Tensor:
    """Regress the latent on the attribute's and the held covariates' codes; give the attribute's part.

    With the centred codes D and the arrays Z it is the attribute's rows of `(D' D + ridge I)^-1 D' Z`.

    Shapes: `z` (n, c, h, w), `codes` (n, width).

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"patient_id": range(4), "sex": list("FMFM")})
    >>> conditions = Conditions.of(frame, attributes=("sex",), hold=(), coin_seed=0)
    >>> z = np.array([0.0, 1.0, 0.0, 1.0]).reshape(4, 1, 1, 1)
    >>> mean_effects(z, conditions.encode(frame), Secret(conditions, False), ridge=1e-6)[:2].flatten().round(decimals=3)
    tensor([-0.5000,  0.5000])
    """
    chosen = np.arange(len(z)) if rows is None else rows
    wanted = codes[chosen][:, secret.columns].double()
    design = torch.cat([wanted, codes[chosen][:, Secret(secret.conditions, True).held].double()], dim=1)
    design = design - design.mean(dim=0)
    cross = torch.zeros(design.shape[1], int(np.prod(z.shape[1:])), dtype=torch.float64)
    for part in spans(len(chosen)):
        cross += design[part].T @ torch.from_numpy(np.array(z[chosen[part]], dtype=np.float64)).flatten(1)
    gram = design.T @ design + ridge * torch.eye(design.shape[1], dtype=torch.float64)
    effects = torch.linalg.solve(gram, cross)[: len(secret.columns)]
    start = 0
    for variable in secret.conditions.recorded:
        own = slice(start, start + variable.width)
        if variable.levels:
            effects[own] -= wanted[:, own].mean(dim=0) @ effects[own]
        start = own.stop
    centred: Tensor = effects.float().reshape(-1, *z.shape[1:])
    return centred
