"""What the statistics can come to with the patients of the test split, and what they take."""

import time

import numpy as np

from citlr.audit.planning.records import Outlook
from citlr.config import AuditConfig
from citlr.data.cohort import Cohort
from citlr.invariance.effects.estimates import contrast_effects
from citlr.invariance.power import patients_needed
from citlr.invariance.responses import Responses
from citlr.invariance.verdict import assess

# Share of decisions that differ between draws for no reason but the generator's noise, where that is not measured yet,
# and the standard deviation of probabilities; how often the verdict is to be reached.
NOISE, SPREAD, POWER = 0.02, 0.03, 0.8
_UNITS = 2000


def foresee(cohort: Cohort, config: AuditConfig) -> Outlook:
    """Count the patients against those that equivalence at the margin takes, by the power of the default test."""
    test, draws = config.test, config.generate.draws
    random = np.random.default_rng(0)
    still = np.zeros((_UNITS, 2, draws, 1))
    decided = test.outcome == "decision"
    noisy = (random.random(still.shape) < NOISE).astype(np.float64)
    if not decided:
        noisy = np.clip(0.5 + random.normal(0, SPREAD, still.shape), 0, 1)

    # All rows have to be equivalent together: each is given its part of the allowed failures.
    levels = len(cohort.levels(config.cohort.attribute) or config.cohort.levels or ())
    rows = max(len(config.cohort.labels) * levels * (levels - 1) // 2, 1)

    def needed(probabilities: np.ndarray, margin: float) -> int:
        effects = contrast_effects(Responses.from_arrays(probabilities), alpha=test.alpha, outcome=test.outcome)
        power = POWER ** (1 / rows)
        return int(patients_needed(effects, margin=margin, power=power, alpha=test.alpha, decisions=decided).max())

    return Outlook(
        patients=int(cohort.part("test").frame["patient_id"].nunique()),
        margin=test.margin,
        fewest=needed(still, test.margin),
        usual=needed(noisy, test.margin),
    )


def statistics_seconds(images: int, levels: int, labels: int, config: AuditConfig) -> float:
    """Time the test of so many images, on answers drawn at random; of more than two thousand, in proportion."""
    random, drawn = np.random.default_rng(0), min(images, _UNITS)
    answers = random.random((drawn, levels, config.generate.draws, labels))
    threshold = config.test.threshold if isinstance(config.test.threshold, float) else 0.5
    settings = config.test.model_dump() | {"threshold": threshold}
    began = time.perf_counter()
    assess(Responses.from_arrays(answers), **settings, shared_seeds=config.generate.shared_seeds, seed=0)
    return (time.perf_counter() - began) * images / drawn
