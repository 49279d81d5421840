"""What the data in hand could have found, and how many patients a margin needs."""

from dataclasses import dataclass
from math import ceil, comb, log
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator
from scipy import stats

from citlr.errors import InputError
from citlr.invariance.effects.at_originals import psi_at_originals
from citlr.invariance.effects.clusters import ClusteredMean, Floats
from citlr.invariance.effects.equivalence import check_margin
from citlr.invariance.effects.estimates import Effects, Outcome, contrast_effects, outcome_values
from citlr.invariance.effects.intervals import check_alpha
from citlr.invariance.randomization.groups import outcomes_within_draws, outcomes_within_image, product_scale
from citlr.invariance.randomization.test import contrast_tests
from citlr.invariance.records import psi_bound
from citlr.invariance.responses import Responses
from citlr.values import Flag, Number, Seed, Thresholds, Whole, checked, ordered

Pair = Annotated[tuple[Whole, Whole], BeforeValidator(ordered)]


@dataclass(frozen=True, eq=False)
class PowerReport:
    """What one contrast can and cannot show; one entry per label.

    - `contrast` (str, str)
    - `detectable_psi`, `detectable_mean`: Smallest psi and mean effect that the default test finds with that power.
    - `patients_needed`: Patients for an equivalence verdict with that power if the model is invariant; None without a
      margin.
    """

    contrast: tuple[str, str]
    labels: tuple[str, ...]
    power: float
    alpha: float
    n_patients: int
    detectable_psi: Floats
    detectable_mean: Floats
    patients_needed: NDArray[np.int64] | None
    margin: float | None


@checked
def power(
    responses: Responses,
    *,
    contrast: Pair = (0, 1),
    margin: Number | None = None,
    power: Number = 0.8,
    alpha: Number = 0.05,
    outcome: Outcome = "decision",
    threshold: Thresholds = 0.5,
    shared_seeds: Flag = True,
    seed: Seed = 0,
) -> PowerReport:
    """Power of the default test and of equivalence, with the noise of the data in hand.

    Parameters
    ----------
    responses : Responses
    contrast : (int, int)
        Level indices.
    margin : float, optional
        Asks also for the patients that equivalence at this margin needs.
    power : float
        In (0.5, 1).
    alpha, outcome, threshold, shared_seeds, seed
        As in `citlr.invariance.verdict.assess`.

    Returns
    -------
    PowerReport

    Examples
    --------
    >>> import numpy as np
    >>> report = power(Responses.from_arrays(np.zeros((300, 2, 4, 1))), margin=0.02)
    >>> report.detectable_psi.round(4), report.patients_needed
    (array([0.01]), array([149]))
    """
    values = outcome_values(responses, outcome=outcome, threshold=threshold)
    options = {"outcome": outcome, "threshold": threshold, "shared_seeds": shared_seeds}
    effects = contrast_effects(responses, contrast=contrast, alpha=alpha, **options)  # type: ignore[arg-type]
    tests = contrast_tests(values, contrasts=[contrast], shared_seeds=shared_seeds, randomizations=999, seed=seed)
    decisions = outcome == "decision"
    psi, mean = detectable(
        effects, tests.spread(0), responses, power=power, alpha=alpha, decisions=decisions, shared_seeds=shared_seeds
    )
    if decisions and shared_seeds:
        psi = psi_at_originals(responses, psi, threshold=threshold)
    needed = None
    if margin is not None:
        needed = patients_needed(effects, margin=margin, power=power, alpha=alpha, decisions=decisions)
    return PowerReport(
        contrast=effects.contrast,
        labels=responses.labels,
        power=power,
        alpha=alpha,
        n_patients=responses.n_patients,
        detectable_psi=psi,
        detectable_mean=mean,
        patients_needed=needed,
        margin=margin,
    )


def detectable(
    effects: Effects,
    spread: tuple[Floats, Floats],
    responses: Responses,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    decisions: bool = True,
    shared_seeds: bool = True,
) -> tuple[Floats, Floats]:
    r"""Smallest psi and mean effect that the default test finds with the given power, per label.

    psi solves :math:`\psi = z_{1-\alpha/2} \sqrt{s_0^2 + k_0\psi} + z_{power} \sqrt{s^2 + k\psi}`, with :math:`s_0` the
    spread of mean U under the randomisations, s its standard error, and :math:`k_0` and k the growth of their squares
    with psi (of decisions k is 1/patients, and an image that flips adds what it varies by once it is reshuffled); each
    half of the min-p test is taken at alpha/2. Where there is little noise the limit is the number of flipping
    images that reach significance at all: m with :math:`q^m \le \alpha/2`, q the chance that a flipping image looks
    as extreme after a reshuffle, must turn up with that power.

    `effects` are of the responses; `spread`, (labels,) each, is that of the summed D and U under the contrast's
    randomisations. Shapes: psi, mean (labels,), at most 1.
    """
    _check_power(power)
    z_power = float(stats.norm.ppf(power))
    product = effects.drawn
    growth = 1 / product.patients if decisions else _growth(product)
    s0 = spread[1] / responses.n_units
    draws = responses.n_draws
    shuffled = growth * product.patients / responses.n_units * _reshuffled(draws, shared_seeds)
    z_alpha, psi = float(stats.norm.isf(alpha / 2)), np.ones(s0.shape)
    # The right side is concave in psi: from above, steps come down to the one solution.
    for _ in range(100):
        psi = z_alpha * np.sqrt(np.square(s0) + shuffled * psi) + z_power * np.sqrt(product.variance + growth * psi)
    chance = 2.0 ** (1 - draws) if shared_seeds else 2 / comb(2 * draws, draws)
    events = ceil(log(alpha / 2) / log(chance) - 1e-9)
    rare = float(stats.gamma.ppf(power, events)) / product.patients if decisions else 0.0
    mean_spread = spread[0] / (responses.n_units * draws)
    whole = effects.mean.whole
    mean = float(stats.norm.isf(alpha / 4)) * mean_spread + z_power * whole.se
    return np.minimum(np.maximum(psi, rare), 1.0), np.minimum(np.maximum(mean, rare), 1.0)


def patients_needed(
    effects: Effects, *, margin: float, power: float = 0.8, alpha: float = 0.05, decisions: bool = True
) -> NDArray[np.int64]:
    r"""Patients for the verdict "equivalent" with the given power, if the model is invariant and the noise as in hand.

    Both the mean effect and psi have to pass, so each is given half of the allowed failures. With per-patient spread
    :math:`\sigma`, n has to bring the upper limit of an estimate that chance has put :math:`z\sigma/\sqrt n` too high
    below its bound; and an unseen kind of patient must be ruled out, :math:`(1 - margin)^n < \alpha`.

    Shapes: gives (labels,).
    """
    check_margin(margin)
    check_alpha(alpha)
    _check_power(power)
    miss = (1 - power) / 2
    bound = psi_bound(margin, "decision" if decisions else "probability")
    psi = _needed(effects.most, bound, alpha, float(stats.norm.isf(miss)), decisions)
    mean = _needed(effects.mean.whole, margin, alpha, float(stats.norm.isf(miss / 2)), decisions)
    unseen = ceil(log(alpha) / log(1 - margin) * (1 - 1e-9))
    return np.maximum(np.maximum(psi, mean), unseen)


def _needed(mean: ClusteredMean, margin: float, alpha: float, z_power: float, decisions: bool) -> NDArray[np.int64]:
    sigma = np.sqrt(mean.variance * mean.patients)
    k, most = _growth(mean) * mean.patients, mean.largest * mean.patients
    z = float(stats.norm.isf(alpha))
    low, high = np.full(sigma.shape, 2.0), np.full(sigma.shape, 1e12)
    for _ in range(80):
        n = np.sqrt(low * high)
        chance = z_power * sigma / np.sqrt(n)
        root = np.sqrt(np.square(sigma) / n + np.square(most / n) + np.square(k / n) * (z**2 + 2) / 12)
        limit = chance + k / n * (2 * z**2 + 1) / 6 + z * root
        unseen = chance + 1 - alpha ** (1 / n) if decisions else limit
        enough = np.maximum(limit, unseen) < margin
        low, high = np.where(enough, low, n), np.where(enough, n, high)
    return np.asarray(np.ceil(high * (1 - 1e-9)), dtype=np.int64)


def _reshuffled(draws: int, shared_seeds: bool) -> float:
    """Variance of U, under its randomisations, of an image whose decisions are 0 at one level and 1 at the other.

    >>> _reshuffled(2, True), round(_reshuffled(4, True), 4), round(_reshuffled(2, False), 4)
    (1.0, 0.1667, 0.5)
    """
    if shared_seeds:
        counts, chance = outcomes_within_draws(2, (1,) * draws)
    else:
        counts, chance = outcomes_within_image(2, draws, draws)
    moved = product_scale(2, draws, shared_seeds=shared_seeds) * np.square(counts[:, 1] - counts[:, 0])
    return float(chance @ np.square(moved) - (chance @ moved) ** 2)


def _growth(mean: ClusteredMean) -> Floats:
    varies = mean.variance > 0
    return np.maximum(np.where(varies, mean.third / np.where(varies, mean.variance, 1.0), 0.0), 0.0)


def _check_power(power: float) -> None:
    if not 0.5 < power < 1:
        raise InputError(f"power is {power}; give a chance of success above 0.5 and below 1, such as 0.8.")
