"""How many images a fair coin is audited on, and which."""

from bisect import bisect_left
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from citlr.config import TestConfig
from citlr.data.cohort import Cohort
from citlr.randomness import hashed_seed
from citlr.values import Margin, Number, check_value

# The share of moved decisions that a coin's sample is sized by where nothing else is said.
PLACEBO_MARGIN = TestConfig().margin


def placebo_size(margin: float, *, power: float = 0.80) -> int:
    """Give the number of images that a coin is audited on, so that a generator that lets it show is noticed.

    If the coin moves a share `margin` of the decisions one way, the default test sees about `n * margin` of them. Six
    that agree are the fewest that random signs produce in less than 5 % of cases (2 / 2^6), so n is the smallest number
    at which six or more are drawn with probability `power`.
    """
    # Here, for it takes .6 s, and processes that draw come by this file without asking.
    from scipy import stats

    margin = check_value("margin", margin, Margin)
    power = check_value("power", power, Annotated[Number, Field(gt=0, lt=1)])
    fewest = 6

    def enough(size: int) -> bool:
        return bool(stats.binom.sf(fewest - 1, size, margin) >= power)

    # The probability grows with the size: double it until it is enough, then halve the way back.
    high = fewest
    while not enough(high):
        high *= 2
    return bisect_left(range(high + 1), True, lo=fewest, key=enough)


def coin_sample(wanted: int | None, margin: float = PLACEBO_MARGIN) -> int:
    """Return how many images the coin is audited on; a margin above the default asks for no fewer.

    So that moving the margin upwards redraws nothing.

    >>> coin_sample(None, 0.05), coin_sample(None, 0.01) > 700, coin_sample(8, 0.05)
    (394, True, 8)
    """
    return placebo_size(min(margin, PLACEBO_MARGIN)) if wanted is None else wanted


def placebo_sample(cohort: Cohort, n_images: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the rows of the images that the coin is audited on: one per patient first, drawn by a keyed order.

    The order is a hash of the seed and the image, so that a larger sample contains a smaller one.
    """
    frame = cohort.frame[["image_id", "patient_id"]].assign(
        order=[hashed_seed("placebo sample", seed, name) for name in cohort.frame["image_id"]]
    )
    frame = frame.sort_values("order")
    frame["repeat"] = frame.groupby("patient_id").cumcount()
    rows = frame.sort_values(["repeat", "order"]).index.to_numpy()[:n_images]
    return np.sort(rows).astype(np.int64)
