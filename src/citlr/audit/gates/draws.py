"""The gate on what draws share: the test flips signs image by image, so no noise may be one for several images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from citlr.audit.results.records import Gate
from citlr.config import GateConfig
from citlr.invariance.responses import Responses

if TYPE_CHECKING:
    from citlr.audit.gates.evidence import Evidence

# How often draws that share nothing may fail.
LEVEL = 0.01
# Outputs that differ by less are alike: single precision tells no more.
ROUNDING = 1e-6


def gate_draws(evidence: Evidence) -> Iterator[Gate]:
    """Hold the draws of every level against each other."""
    if evidence.responses is not None:
        yield from draws_gates(evidence.responses, evidence.limits)


def draws_gates(responses: Responses, limits: GateConfig) -> Iterator[Gate]:
    """Give the gate of some outputs; see `gate_draws`."""
    if not limits.draws:
        return
    pvalue, label, level = shared_noise(responses)
    passed = pvalue >= LEVEL
    where = f"on '{label}' under '{level}' (p = {pvalue:.2g}, the smallest of all labels and levels, adjusted)"
    text = f"No draw lies above the others over all images, {where}: images share no noise."
    if not passed:
        text = (
            f"Draws lie above or below each other over all images, {where}, as one seed for all images makes them. "
            "Tests and intervals count every image as noise of its own: redraw with a seed of its own for every image "
            "and draw."
        )
    yield Gate("independent draws", pvalue, LEVEL, passed, text, "generator")


def shared_noise(responses: Responses) -> tuple[float, str, str]:
    r"""Test whether draws of one level have one mean over images; give p (Bonferroni), and the label and level.

    Draws of one image are exchangeable where its noise is its own. With c_ir the output less the image's mean over its
    R draws and s_i^2 their variance, :math:`\sum_r (\sum_i c_{ir})^2 / \sum_i s_i^2` is chi-squared with R - 1 degrees
    of freedom: Cochran's Q (1950) of decisions.
    """
    values = responses.values - responses.values[:, :, :1]  # (units, levels, draws, labels); 0 where draws are alike
    sums = (values - values.mean(axis=2, keepdims=True)).sum(axis=0)
    spread = values.var(axis=2, ddof=1).sum(axis=0)
    ratio = np.square(sums).sum(axis=1) / np.where(spread > len(values) * ROUNDING**2, spread, np.inf)
    pvalues = stats.chi2.sf(ratio, values.shape[2] - 1)
    level, label = np.unravel_index(int(np.argmin(pvalues)), pvalues.shape)
    smallest = min(1.0, float(pvalues[level, label]) * pvalues.size)
    return smallest, responses.labels[label], responses.levels[level]
