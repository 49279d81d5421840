"""Optimal transport of normal distributions, and what permutations show of a level's covariance."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from scipy.linalg import sqrtm

from citlr.generators.effects.transport import (
    barycentre,
    level_covariances,
    move,
    plain_covariances,
    transport,
    ways_to_barycentre,
)


def covariance(seed: int, k: int = 4) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(3 * k, k))
    return rows.T @ rows / len(rows)


def test_the_map_takes_one_covariance_to_the_other_and_back() -> None:
    a, b = covariance(0), covariance(1)
    forth, back = transport(a, b), transport(b, a)
    np.testing.assert_allclose(forth @ a @ forth, b, atol=1e-8)
    np.testing.assert_allclose(forth @ back, np.eye(4), atol=1e-8)


def test_the_map_is_that_of_the_closed_form() -> None:
    a, b = covariance(2), covariance(3)
    inverse = np.linalg.inv(sqrtm(a).real)
    np.testing.assert_allclose(transport(a, b), inverse @ sqrtm(sqrtm(a) @ b @ sqrtm(a)).real @ inverse, atol=1e-8)


@pytest.mark.parametrize("count", [2, 3])
def test_all_ways_lead_to_the_barycentre(count: int) -> None:
    every = [covariance(seed) for seed in range(4, 4 + count)]
    centre = barycentre(every)
    for one, way in zip(every, ways_to_barycentre(every), strict=True):
        np.testing.assert_allclose(way @ one @ way, centre, atol=1e-5)
        np.testing.assert_allclose(way, transport(one, centre), atol=1e-5)
        np.testing.assert_allclose(np.linalg.inv(way), transport(centre, one), atol=1e-5)


def test_the_barycentre_solves_its_equation() -> None:
    every = [covariance(seed) for seed in range(3)]
    centre = barycentre(every)
    root = sqrtm(centre).real
    mean = np.mean([sqrtm(root @ one @ root).real for one in every], axis=0)
    np.testing.assert_allclose(mean, centre, atol=1e-6)


def world(seed: int, *, effect: float, nuisance: float, n: int = 3000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows in which a level scales the first entry, and a finding that goes with the level scales the second."""
    random = np.random.default_rng(seed)
    index = random.integers(0, 2, n)
    held = (random.random(n) < 0.1 + 0.8 * index).astype(float)
    rows = random.normal(size=(n, 6))
    rows[:, 0] *= 1 + effect * index
    rows[:, 1] *= 1 + nuisance * held
    return rows, index, held[:, None]


def test_a_levels_own_variance_is_found_and_a_held_findings_is_not_taken_for_it() -> None:
    rows, index, held = world(0, effect=1.0, nuisance=1.0)
    (first, second), kept = level_covariances(rows, index, held, range(len(rows)), np.random.default_rng(1), levels=2)
    assert kept >= 1
    ratio = np.diag(second) / np.diag(first)
    assert ratio[0] == pytest.approx(4, rel=0.25)
    assert ratio[1] == pytest.approx(1, abs=0.35)
    # Not told of the finding, one takes its doing for the level's.
    (first, second), _ = level_covariances(
        rows, index, held[:, :0], range(len(rows)), np.random.default_rng(1), levels=2
    )
    assert (np.diag(second) / np.diag(first))[1] > 1.8


def test_where_nothing_is_shown_levels_have_one_covariance() -> None:
    shown = 0
    for seed in range(20):
        rows, index, held = world(seed, effect=0.0, nuisance=0.0, n=400)
        (first, second), kept = level_covariances(
            rows, index, held, range(len(rows)), np.random.default_rng(seed), levels=2
        )
        shown += kept > 0
        if not kept:
            np.testing.assert_array_equal(first, second)
    # Each of two levels exceeds its 19 permutations by chance once in 20: more than 6 of 20 has a chance below 1 %.
    assert shown <= 6


def test_images_of_one_patient_are_no_witnesses_each() -> None:
    """Eight images of every patient, all alike: who permutes images sees a change in every sample."""
    shown, number = 0, np.repeat(np.arange(100), 8)
    for seed in range(20):
        random = np.random.default_rng(seed)
        index = random.integers(0, 2, 100)[number]
        held = (random.random(100) < 0.3 + 0.4 * index[::8])[number, None].astype(float)
        rows = random.normal(size=(100, 5))[number] + 0.1 * random.normal(size=(800, 5))
        found = level_covariances(rows / 8**0.5, index, held, number, np.random.default_rng(seed), levels=2)
        shown += found[1] > 0
        rows[:, 0] *= 1 + 2 * index
        (first, second), kept = level_covariances(rows / 8**0.5, index, held, number, random, levels=2)
        assert kept >= 1
        assert second[0, 0] > 4 * first[0, 0]
    assert shown <= 6


def test_levels_that_differ_within_every_patient_are_compared_there() -> None:
    """Patients that all have the same levels can swap nothing."""
    random = np.random.default_rng(3)
    number, index = np.repeat(np.arange(150), 2), np.tile([0, 1], 150)
    rows = random.normal(size=(300, 4)) / 2**0.5
    assert level_covariances(rows, index, np.empty((300, 0)), number, random, levels=2)[1] == 0
    rows[:, 0] *= 1 + index
    (first, second), kept = level_covariances(rows, index, np.empty((300, 0)), number, random, levels=2)
    assert kept >= 1
    assert second[0, 0] > 2 * first[0, 0]


def test_a_level_without_rows_gets_the_pooled_covariance() -> None:
    rows, index, held = world(0, effect=1.0, nuisance=0.0)
    every, _ = level_covariances(rows, index, held, range(len(rows)), np.random.default_rng(0), levels=3)
    np.testing.assert_allclose(every[2], rows.T @ rows / len(rows), rtol=1e-6)


def test_a_level_of_no_variance_in_a_direction_keeps_some() -> None:
    rows, index, held = world(0, effect=0.0, nuisance=0.0)
    rows[index == 1, 0] = 0
    (_, second), kept = level_covariances(rows, index, held, range(len(rows)), np.random.default_rng(0), levels=2)
    assert kept >= 1
    assert np.linalg.eigvalsh(second).min() > 0


def test_where_a_change_is_shown_weaker_ones_count_too() -> None:
    """A second direction whose change permutations exceed now and then is kept beside a strong one, not alone."""
    together = alone = 0
    for seed in range(10):
        rows, index, held = world(seed, effect=0.0, nuisance=0.0, n=600)
        rows[:, 3] *= 1 + 0.16 * index
        for effect in (0.0, 1.0):
            some = rows.copy()
            some[:, 0] *= 1 + effect * index
            every, _ = level_covariances(
                some, index, held[:, :0], range(len(some)), np.random.default_rng(seed), levels=2
            )
            ratio = every[1][3, 3] / every[0][3, 3]
            together += effect == 1.0 and ratio > 1.1
            alone += effect == 0.0 and ratio > 1.1
    assert together > alone


def test_plain_covariances_are_those_of_the_rows_and_of_an_absent_level_the_pooled_one() -> None:
    rows, index, _ = world(0, effect=1.0, nuisance=0.0)
    found, count = plain_covariances(rows, index, range(len(rows)), levels=3)
    assert count == 6
    np.testing.assert_allclose(found[1], rows[index == 1].T @ rows[index == 1] / (index == 1).sum())
    np.testing.assert_allclose(found[2], rows.T @ rows / len(rows))


def taken(work: Callable[[], object]) -> int:
    """Bytes that some work takes at most."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_neither_covariances_nor_maps_take_a_copy_of_the_rows() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((30_000, 40), dtype=np.float32)
    index, held = random.integers(0, 2, len(rows)), np.empty((len(rows), 0))
    assert taken(lambda: level_covariances(rows, index, held, range(len(rows)), random, levels=2)) < rows.nbytes / 2
    before, matrix = rows.copy(), covariance(2, k=40)
    assert taken(lambda: move(rows, index == 1, matrix)) < rows.nbytes / 4
    np.testing.assert_allclose(rows[index == 1], before[index == 1] @ matrix, rtol=1e-4, atol=1e-5)
    assert np.array_equal(rows[index == 0], before[index == 0])
