"""The measures of `citlr calibrate`: each draws a batch of data sets with a known truth, tests them, and counts."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from citlr.invariance.effects.equivalence import equivalence_test
from citlr.invariance.effects.estimates import contrast_effects
from citlr.invariance.effects.intervals import Interval
from citlr.invariance.observational.nuisances import Observations, fit_nuisances
from citlr.invariance.observational.published import published_cit_lr
from citlr.invariance.observational.tests import distilled_crt, gcm, rms_lower_bound
from citlr.invariance.parity import auroc_gap, demographic_parity, equalised_odds
from citlr.invariance.randomization.test import contrast_tests, omnibus_test
from citlr.invariance.responses import Responses
from citlr.simulators.families import NULLS, ResponseFamily, ScoredFamily, graded, subgroup, uniform_shift, zero_mean
from citlr.simulators.observed import ObservedFamily, ObservedSample
from citlr.studies.calibration.counts import BINS, Count

Floats = NDArray[np.float64]
ALPHA = 0.05
DRAWS = 4
MARGIN = 0.05
# alpha (B + 1) is whole: the test is exact at 199 randomisations as at 4999, only a little less powerful.
SIZE_RANDOMIZATIONS, POWER_RANDOMIZATIONS = 199, 999

# How a family of effects is made of the images per patient.
INTERVAL_CASES: dict[str, Callable[[int], ResponseFamily]] = {
    "uniform shift .05": lambda images: uniform_shift(0.05, images_per_patient=images),
    "uniform shift .1": lambda images: uniform_shift(0.1, images_per_patient=images),
    "10 % of patients by .5": lambda images: subgroup(0.1, 0.5, images_per_patient=images),
    "5 % of patients by .8": lambda images: subgroup(0.05, 0.8, images_per_patient=images),
    "graded probability .03": lambda images: graded(0.03, images_per_patient=images),
}


def default_size(rng: np.random.Generator, reps: int, *, null: str, n: int) -> Iterator[Count]:
    """Size of the default test on one null family; more than two levels count the omnibus and Holm over contrasts."""
    family = NULLS[null]
    values, patients = family.sample(rng, n, draws=DRAWS, repetitions=reps)
    settings = {"shared_seeds": family.shared_seeds, "randomizations": SIZE_RANDOMIZATIONS}
    clusters = int(np.unique(patients).size)
    seed = int(rng.integers(2**31))
    pairs = contrast_tests(values, seed=seed, **settings).pvalue  # type: ignore[arg-type]
    p = pairs[0] if family.levels == 2 else np.minimum(pairs.min(axis=0) * len(pairs), 1.0)
    if family.levels > 2:
        over_all = omnibus_test(values, seed=seed, **settings).pvalue  # type: ignore[arg-type]
        yield _rejections("size", "default test (omnibus)", null, 0.0, n, clusters, over_all)
    yield _rejections("size", "default test", null, 0.0, n, clusters, p)


POWER_FAMILIES: dict[str, Callable[[float], ResponseFamily]] = {
    "uniform": uniform_shift,
    "zero-mean": zero_mean,
    "zero-mean, quieter": lambda psi: zero_mean(psi, steepness=8),
    "zero-mean, shared": lambda psi: zero_mean(psi, shared=0.5),
}


def default_power(rng: np.random.Generator, reps: int, *, family: str, effect: float, n: int) -> Iterator[Count]:
    """Power of the default test, and of a paired t-test on the mean difference beside it."""
    made = POWER_FAMILIES[family](effect)
    values, _ = made.sample(rng, n, draws=DRAWS, repetitions=reps)
    seed = int(rng.integers(2**31))
    p = contrast_tests(values, shared_seeds=made.shared_seeds, randomizations=POWER_RANDOMIZATIONS, seed=seed).pvalue[0]
    change = (values[:, 1] - values[:, 0]).mean(axis=1)
    paired = stats.ttest_1samp(change, 0.0, axis=0).pvalue
    yield _rejections("power", "default test", made.name, effect, n, n, p)
    yield _rejections("power", "paired t-test of the mean", made.name, effect, n, n, paired)


def interval_coverage(rng: np.random.Generator, reps: int, *, case: str, n: int, images: int) -> Iterator[Count]:
    """Coverage of the nominal 95 % intervals of the mean effect and of psi."""
    family = INTERVAL_CASES[case](images)
    values, patients = family.sample(rng, n, draws=DRAWS, repetitions=reps)
    effects = contrast_effects(
        Responses.from_arrays(values, patients=patients),
        outcome=family.outcome,
        shared_seeds=family.shared_seeds,
        alpha=ALPHA,
    )
    for name, interval, truth in (
        ("mean effect", effects.mean_effect, family.mean_effect),
        ("psi", effects.psi, family.psi),
    ):
        hits = int(np.sum(_covers(interval, truth)))
        label = f"{case}, {images} image{'s' if images > 1 else ''} per patient"
        yield Count("coverage", name, "", label, n, n // images, reps, hits)


def psi_at_originals(
    rng: np.random.Generator, reps: int, *, psi: float, n: int, images: int, apart: float
) -> Iterator[Count]:
    """Coverage of psi's nominal 95 % interval where it is read at the originals' scores."""
    responses = _scored(rng, reps, ScoredFamily(psi, images, apart), n)
    hits = int(np.sum(_covers(contrast_effects(responses, alpha=ALPHA).psi, psi)))
    label = f"psi {psi:g}, {apart:.0%} of the noise not shared, {images} image{'s' if images > 1 else ''} per patient"
    yield Count("coverage", "psi at the originals", "", label, n, n // images, reps, hits)


def originals_equivalence_size(
    rng: np.random.Generator, reps: int, *, n: int, images: int, apart: float
) -> Iterator[Count]:
    """Rate of "equivalent" where psi at the originals lies on the margin."""
    effects = contrast_effects(_scored(rng, reps, ScoredFamily(MARGIN, images, apart), n))
    p = equivalence_test(effects.mean, effects.most, margin=MARGIN).pvalue
    where = f"psi at the originals = margin, {apart:.0%} of the noise not shared, {images} per patient"
    yield _rejections("size", "equivalence", where, 0.0, n, n // images, p)


def equivalence_size(rng: np.random.Generator, reps: int, *, boundary: str, n: int, images: int) -> Iterator[Count]:
    """Rate of "equivalent" where the truth lies on the margin: by its mean effect, or by psi alone."""
    family = (uniform_shift if boundary == "mean" else zero_mean)(MARGIN, images_per_patient=images)
    values, patients = family.sample(rng, n, draws=DRAWS, repetitions=reps)
    effects = contrast_effects(Responses.from_arrays(values, patients=patients), shared_seeds=False)
    p = equivalence_test(effects.mean, effects.product, margin=MARGIN).pvalue
    where = f"{'mean effect' if boundary == 'mean' else 'psi'} = margin, {images} per patient"
    yield _rejections("size", "equivalence", where, 0.0, n, n // images, p)


def parity_size(rng: np.random.Generator, reps: int, *, n: int, images: int) -> Iterator[Count]:
    """Sizes of the parity tests where all of their nulls hold: neither output nor outcome knows the attribute."""
    family = ObservedFamily(images_per_patient=images)
    p = np.array([_parity_pvalues(family.sample(rng, n)) for _ in range(reps)])
    for name, column in zip(("demographic parity", "equalised odds", "AUROC gap"), p.T, strict=True):
        yield _rejections("size", name, f"exact parity, {images} per patient", 0.0, n, n // images, column)


def parity_power(rng: np.random.Generator, reps: int, *, n: int, effect: float) -> Iterator[Count]:
    """Power of the parity tests for a uniform shift, where there is no confounding to mislead them."""
    family = ObservedFamily(effect=effect, shape="uniform")
    p = np.array([_parity_pvalues(family.sample(rng, n)) for _ in range(reps)])
    for name, column in zip(("demographic parity", "equalised odds"), p.T, strict=False):
        yield _rejections("power", name, "uniform shift, unconfounded", effect, n, n, column)


def resampled_parity_size(rng: np.random.Generator, reps: int, *, n: int) -> Iterator[Count]:
    """Size of the published comparison: 1000 pairs drawn from the two groups, whatever their size, and a paired t."""
    p = np.empty(reps)
    for i in range(reps):
        sample = ObservedFamily().sample(rng, n)
        women, men = sample.y[sample.a == 0], sample.y[sample.a == 1]
        change = rng.choice(men, 1000) - rng.choice(women, 1000)
        p[i] = stats.ttest_1samp(change, 0.0).pvalue if np.ptp(change) > 0 else 1.0
    yield _rejections("size", "published parity (1000 resampled pairs)", "exact parity, 1 per patient", 0.0, n, n, p)


def published_size(rng: np.random.Generator, reps: int, *, null: str, n_train: int, n_test: int) -> Iterator[Count]:
    """Size of the published CIT-LR: 32 features, an attribute by the toss of a coin, predictions that ignore it."""
    n = n_train + n_test
    p = np.empty(reps)
    for i in range(reps):
        z, w = rng.normal(size=(n, 32)), rng.uniform(-1, 1, 32)
        level = np.where(rng.random(n) < 0.5, "a", "b")
        chance = 1 / (1 + np.exp(-z @ w))
        bar = rng.random(n) if null == "noisy decisions" else 0.5
        y = (chance > bar).astype(float)
        p[i] = published_cit_lr(z, level, y, train_fraction=n_train / n, seed=int(rng.integers(2**31))).pvalue
    yield _rejections("size", "published CIT-LR", f"{null}, {n_train} train + {n_test} test", 0.0, n, n, p)


def observational(
    rng: np.random.Generator,
    reps: int,
    *,
    n: int,
    images: int,
    sources: tuple[str, ...] = ("known", "estimated"),
    **world: Any,
) -> Iterator[Count]:
    """Size or power of every test on (Z, A, Yhat), with p(A|Z) known and estimated, in a world of `ObservedFamily`."""
    family = ObservedFamily(**world, images_per_patient=images)
    p = np.empty((len(sources), 2, reps))
    for i in range(reps):
        sample, seed = family.sample(rng, n), int(rng.integers(2**31))
        data = _data(sample)
        for k, source in enumerate(sources):
            propensity = sample.propensity if source == "known" else None
            fits = fit_nuisances(data, propensity, seed=seed)
            distilled = distilled_crt(data, fits, redraws=SIZE_RANDOMIZATIONS, seed=seed)
            p[k, :, i] = distilled.pvalue, gcm(data, fits).pvalue
    section, scenario = _scenario(family.shape, family.confounded, images)
    for source, both in zip(sources, p, strict=True):
        for name, column in zip(("dCRT", "GCM"), both, strict=True):
            yield _rejections(section, f"{name}, p(A|Z) {source}", scenario, family.effect, n, n // images, column)


# With p(A|Z) known, which costs less than estimating it.
observational_known = partial(observational, sources=("known",))


def lower_bound(
    rng: np.random.Generator, reps: int, *, n: int, confounded: bool, images: int, shape: str, effect: float
) -> Iterator[Count]:
    """Size or power, and coverage, of the sequential lower bound of the root mean square effect."""
    family = ObservedFamily(confounded, effect, shape, images_per_patient=images)  # type: ignore[arg-type]
    section, scenario = _scenario(shape, confounded, images)
    p, low = np.empty((2, reps)), np.empty((2, reps))
    for i in range(reps):
        sample, seed = family.sample(rng, n), int(rng.integers(2**31))
        data = _data(sample)
        for k, propensity in enumerate((sample.propensity, None)):
            result = rms_lower_bound(data, propensity, seed=seed)
            p[k, i], low[k, i] = result.pvalue, result.rms_low
    for k, source in enumerate(("known", "estimated")):
        yield _rejections(section, f"RMS bound, p(A|Z) {source}", scenario, effect, n, n // images, p[k])
        if shape == "uniform":  # the only shape whose true size the clipping of chances to [0, 1] leaves as it is
            hits = int(np.sum(low[k] <= family.root_mean_square + 1e-12))
            label = f"RMS lower bound, p(A|Z) {source}"
            yield Count("coverage", label, "", f"effect {effect}, {_where(confounded, images)}", n, n, reps, hits)


def _where(confounded: bool, images: int) -> str:
    return f"{'confounded' if confounded else 'unconfounded'}, {images} per patient"


def _scenario(shape: str, confounded: bool, images: int) -> tuple[str, str]:
    where = _where(confounded, images)
    return ("size", where) if shape == "none" else ("power", f"{shape} effect, {where}")


def _data(sample: ObservedSample) -> Observations:
    return Observations.of(sample.z, sample.level, sample.y, patients=sample.patients)


def _parity_pvalues(sample: ObservedSample) -> tuple[float, float, float]:
    two = ("a", "b")
    if np.unique(sample.level).size < 2:
        return 1.0, 1.0, 1.0
    arrays = (sample.y, sample.level)
    return (
        demographic_parity(*arrays, sample.patients, contrast=two).pvalue,
        equalised_odds(*arrays, sample.outcome, sample.patients, contrast=two).pvalue,
        auroc_gap(*arrays, sample.outcome, sample.patients, contrast=two).pvalue,
    )


def _scored(rng: np.random.Generator, reps: int, family: ScoredFamily, n: int) -> Responses:
    """Sample outputs with those on the originals; every repetition is a label."""
    values, original, factual, patients = family.sample(rng, n, draws=DRAWS, repetitions=reps)
    return Responses.from_arrays(values, patients=patients, factual=factual, original=original)


def _covers(interval: Interval, truth: float) -> NDArray[np.bool_]:
    return np.asarray((interval.low <= truth + 1e-12) & (truth - 1e-12 <= interval.high))


def _rejections(section: str, subject: str, scenario: str, effect: float, n: int, clusters: int, p: Floats) -> Count:
    """Count p-values up to alpha: a randomisation p of exactly alpha rejects, and is exact in doing so."""
    p = np.asarray(p)
    bins = np.clip(np.ceil(p * BINS - 1e-9).astype(int) - 1, 0, BINS - 1)
    histogram = tuple(int(c) for c in np.bincount(bins, minlength=BINS)) if section == "size" else ()
    hits = int(np.sum(p <= ALPHA + 1e-12))
    return Count(section, subject, scenario, effect, n, clusters, p.size, hits, histogram)
