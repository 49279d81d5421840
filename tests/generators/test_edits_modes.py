"""What lets edits carry the difference of real groups: directions in which people vary, and what no edit can write."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from citlr.generators.edits import choice
from citlr.generators.edits.choice import TOGETHER, Choice, choose, foretelling_best
from citlr.generators.edits.estimate import Search, State
from citlr.generators.edits.judge import Looked
from citlr.generators.edits.shrinkage import DIRECTIONS, Modes, nothing, shrink
from citlr.generators.edits.significance import shown_along
from citlr.generators.effects.aligned import ALIGNMENT
from citlr.generators.effects.whitening import Whitening

WIDTH, COEFFICIENTS, PATIENTS = 60, 40, 300


def people(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """How summaries answer to coefficients, and people who vary thirty times more along one way of them than else."""
    table = random.standard_normal((WIDTH, COEFFICIENTS)) / WIDTH**0.5
    way = random.standard_normal(COEFFICIENTS) / COEFFICIENTS**0.5
    own = random.standard_normal((PATIENTS, 1)) @ (table @ way)[None] * 3
    return table, own + 0.1 * random.standard_normal((PATIENTS, WIDTH))


def test_directions_write_what_patients_vary_by() -> None:
    table, values = people(np.random.default_rng(0))
    influences = (values - values.mean(axis=0)) * 2 / PATIENTS
    modes = Modes.of(table, influences)
    allowed = np.ones(COEFFICIENTS, dtype=np.bool_)
    directions = modes.directions(allowed)
    assert directions.shape == (COEFFICIENTS, DIRECTIONS)
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    leading = np.linalg.svd(scaled, full_matrices=False)[2][0]
    written = table @ directions[:, 0] / values.std(axis=0)
    assert abs(leading @ written) / np.linalg.norm(written) > 0.95
    # One along it is about one standard deviation of patients, less what the ridge takes.
    assert 0.3 < np.linalg.norm(written) / (scaled @ leading).std() < 1.1
    some = np.arange(COEFFICIENTS) % 2 == 0
    assert not modes.directions(some)[~some].any()


def test_what_nobody_varies_in_does_not_drown_the_directions() -> None:
    """The black around a digit, which an edit of the digit may touch."""
    table, values = people(np.random.default_rng(1))
    influences = (values - values.mean(axis=0)) * 2 / PATIENTS
    before = Modes.of(table, influences).directions(np.ones(COEFFICIENTS, dtype=np.bool_))
    black = np.concatenate([influences, np.zeros((PATIENTS, 5))], axis=1)
    touched = np.concatenate([table, np.full((5, COEFFICIENTS), 0.1)])
    after = Modes.of(touched, black).directions(np.ones(COEFFICIENTS, dtype=np.bool_))
    assert np.abs(np.abs(after[:, 0]) - np.abs(before[:, 0])).max() < 1e-9


def test_a_change_of_what_people_vary_by_is_carried_and_hardly_was_without_directions() -> None:
    """Four standard errors of a leading direction, among directions of which nothing is shown."""
    random = np.random.default_rng(2)
    table, values = people(random)
    influences = (values - values.mean(axis=0)) * 2 / PATIENTS
    whiten, allowed = Whitening.of(influences), np.ones(COEFFICIENTS, dtype=np.bool_)
    directions, blocks = Modes.of(table, influences).directions(allowed), np.arange(COEFFICIENTS) // 10
    change = table @ directions[:, 0]
    change *= 4 / np.linalg.norm(whiten(change))
    noise = influences.T @ random.choice([-1.0, 1.0], size=PATIENTS)
    carried = []
    for ways in (None, directions):
        found = shrink(whiten(table), whiten(change + noise), blocks, allowed, directions=ways)
        carried.append(float(change @ table @ found.coefficients) / float(change @ change))
    assert carried[1] == pytest.approx(1.0, abs=0.3)
    assert abs(carried[1] - 1) < 0.5 * abs(carried[0] - 1)
    assert nothing(blocks).coefficients.tolist() == [0.0] * COEFFICIENTS


def test_draws_along_directions_are_coefficients() -> None:
    table, values = people(np.random.default_rng(3))
    influences = (values - values.mean(axis=0)) * 2 / PATIENTS
    whiten, allowed = Whitening.of(influences), np.ones(COEFFICIENTS, dtype=np.bool_)
    directions = Modes.of(table, influences).directions(allowed)
    found = shrink(
        whiten(table), whiten(table @ directions[:, 0]), np.arange(COEFFICIENTS) // 10, allowed, directions=directions
    )
    draws = found.draws(whiten(table), 200, np.random.default_rng(4))
    assert draws.shape == (200, COEFFICIENTS)
    # What is left open lies mostly along the direction that people vary by.
    ways = np.linalg.svd(draws, full_matrices=False)[2][0]
    assert abs(ways @ directions[:, 0]) / np.linalg.norm(directions[:, 0]) > 0.9


class Half:
    """Stands for a search: a half of the patients that foretells the other best with a misfit of `best`."""

    def __init__(self, best: float) -> None:
        self.best, self.taken = best, (0.0, False)

    def foretold(self, misfit: float, along: bool) -> Any:
        return misfit

    def nearer(self, one: Any, other: Any) -> float:
        return abs(other - self.best) - abs(one - self.best)

    def allow(self, misfit: float, along: bool) -> None:
        self.taken = misfit, along


@pytest.mark.parametrize("best", [0.0, 0.3, 3.0])
def test_the_misfit_that_foretells_the_other_half_best_is_taken(best: float) -> None:
    halves: Any = [Half(best), Half(best)]
    assert foretelling_best(halves) == best
    assert [half.taken for half in halves] == [(best, True)] * 2


class Few:
    """Stands for a search in which no single kind promises anything, and all together write the difference."""

    cases = SimpleNamespace(family=SimpleNamespace(kinds=("shade", "displacement")))

    def __init__(self, p: float) -> None:
        self.p, self.taken = p, (0.0, False)
        self.start = SimpleNamespace(kinds=(), edit=0.0)

    def promises(self, state: Any) -> dict[str, float]:
        return {}

    def steps(self, state: Any, kinds: tuple[str, ...], count: int) -> Any:
        return SimpleNamespace(kinds=kinds, edit=0.9 if len(kinds) == 2 and self.taken[1] else 0.0)

    def foretold(self, misfit: float, along: bool) -> Any:
        return misfit

    def nearer(self, one: Any, other: Any) -> float:
        return float(one == 1.0)

    def allow(self, misfit: float, along: bool) -> None:
        self.taken = misfit, along

    def p_along(self, random: np.random.Generator) -> float:
        return self.p


@pytest.mark.parametrize(("p", "worth"), [(0.001, True), (0.5, True), (0.001, False)])
def test_all_kinds_together_are_taken_where_they_bring_left_out_patients_closer(p: float, worth: bool) -> None:
    def look(edit: float, aligned: None) -> Looked:
        left = np.full(50, 1.0 - edit * worth)
        return Looked(left, left, left)

    searches: Any = [Few(p), Few(p)]
    whole: Any = Few(p)
    judges: Any = [SimpleNamespace(look=look)] * 2
    chosen = choose(searches, judges, whole, np.random.default_rng(0))
    kinds, left = chosen.kinds, chosen.left
    if p == 0.001 and worth:
        assert kinds == ("shade", "displacement")
        assert left == {TOGETHER: pytest.approx(0.1)}
        assert whole.taken == (2.0, True)  # the misfit that foretold best, of twice as many patients
    else:
        assert (kinds, left, whole.taken) == ((), {}, (0.0, False))


class FewBesideOne(Few):
    """In which one kind promises something and is taken first; all together write much more of the difference."""

    def __init__(self, first: str) -> None:
        super().__init__(0.001)
        self.first = first

    def promises(self, state: Any) -> dict[str, float]:
        return {} if state.kinds else {self.first: np.inf}

    def steps(self, state: Any, kinds: tuple[str, ...], count: int) -> Any:
        return SimpleNamespace(kinds=kinds, edit=0.3 if len(kinds) == 1 else 0.9)


@pytest.mark.parametrize("means", [True, False])
@pytest.mark.parametrize("first", ["atlas", "film", "shade"])
def test_beside_fine_structure_alone_all_kinds_together_have_to_bring_mean_images_closer(
    first: str, means: bool
) -> None:
    """In numbers without a place, contrast everywhere makes up for a thin line, and others hide its mark on means."""

    def look(edit: float, aligned: None) -> Looked:
        apart = 1.0 - (edit if means else min(edit, 0.3))
        return Looked(*(np.full(50, value) for value in (1.0 - edit, apart, apart)))

    searches: Any = [FewBesideOne(first), FewBesideOne(first)]
    judges: Any = [SimpleNamespace(look=look)] * 2
    chosen = choose(searches, judges, FewBesideOne(first), np.random.default_rng(0))  # type: ignore[arg-type]
    kinds, left = chosen.kinds, chosen.left
    if means or first == "shade":
        assert set(kinds) == {first, "shade", "displacement"}
        assert left[TOGETHER] == pytest.approx(0.1)
    else:
        assert (kinds, list(left)) == ((first,), [first])


@pytest.mark.parametrize(("alone", "beside", "taken"), [(0.1, 0.3, ()), (0.4, 0.2, ("shade",)), (0.6, 0.55, None)])
def test_what_is_left_is_aligned_where_left_out_patients_come_closer(
    alone: float, beside: float, taken: tuple[str, ...] | None
) -> None:
    """Beside the edits, or instead of them; `alone` and `beside` are what either leaves, edits leave .5."""

    def look(edit: float, aligned: float | None) -> Looked:
        left = np.full(50, {(0.0, None): 1.0, (0.5, None): 0.5, (0.0, 1.0): alone, (0.5, 1.0): beside}[edit, aligned])
        return Looked(left, left, left)

    def half() -> Any:
        cases = SimpleNamespace(aligned=lambda edit, seed: 1.0)
        return SimpleNamespace(start=SimpleNamespace(edit=0.0), cases=cases)

    judges: Any = [SimpleNamespace(look=look)] * 2
    edits: Any = [SimpleNamespace(edit=0.5)] * 2
    first, now = (Looked.of(judges, states) for states in ([half().start] * 2, edits))
    before = Choice(("shade",), {"shade": 0.5}, edits, first, now)
    after = before.with_alignment([half(), half()], judges, 0)
    if taken is None:
        assert after is before
    else:
        assert after.kinds == (*taken, ALIGNMENT)
        assert after.left == dict.fromkeys(taken, 0.5) | {ALIGNMENT: pytest.approx(alone if not taken else beside)}


def test_where_only_mean_images_come_closer_numbers_may_not_grow_at_all() -> None:
    """As where many kinds together doubled a change of breath: a quarter of an error worse, by numbers."""
    random = np.random.default_rng(7)
    scatter = random.standard_normal(400)
    scatter -= scatter.mean()

    def looked(left: float, apart: float) -> Looked:
        return Looked(left + 0.5 * scatter, np.full(400, apart), np.zeros(400))

    first = now = looked(1.0, 1.0)
    grown, shrunk = (
        Looked(looked(own, 0.5).left - 0.2 * scatter, np.full(400, 0.5), np.zeros(400)) for own in (1.005, 0.99)
    )
    assert not grown.harms(now, first)
    assert [one.closer(now, first, in_means=False) for one in (grown, shrunk)] == [False, True]


def test_an_allowance_adds_to_the_error_of_every_number_and_direction() -> None:
    """What hardly varies is no longer known so well that what is missing there counts for more than all else."""
    _, values = people(np.random.default_rng(5))
    exact = Whitening.of((values - values.mean(axis=0)) * 2 / PATIENTS)
    assert np.allclose(exact.softened(0.0)(values.T), exact(values.T))
    for direction in exact.directions.T[[0, -1]]:
        before, after = (
            float((whiten(exact.deviation * direction) ** 2).sum()) for whiten in (exact, exact.softened(2.0))
        )
        assert 1 / after == pytest.approx(1 / before + 2.0)


def test_an_error_of_ones_own_for_every_number_is_added_and_no_other() -> None:
    _, values = people(np.random.default_rng(5))
    exact = Whitening.of((values - values.mean(axis=0)) * 2 / PATIENTS)
    misfits = np.random.default_rng(8).uniform(0, 3, WIDTH)

    def covariance(whiten: Whitening) -> np.ndarray:
        each = whiten(np.diag(whiten.deviation))
        return np.asarray(np.linalg.inv(each.T @ each))

    wider = exact.widened(misfits)
    assert np.allclose(covariance(wider), covariance(exact) + np.diag(misfits))
    for whiten in (exact, wider, wider.softened(1.0)):
        assert whiten.log_size == pytest.approx(np.linalg.slogdet(covariance(whiten))[1])
    assert exact.widened(0 * misfits) is exact


class Linear(Search):
    """A search whose summaries answer exactly as the table says, and whose patients differ by what is given."""

    def __init__(self, table: np.ndarray, influences: np.ndarray, difference: np.ndarray) -> None:
        self.table, self.blocks = table, np.arange(COEFFICIENTS) // 10
        self.seen: Any = SimpleNamespace(summaries=difference, fine=None)
        self.cases: Any = SimpleNamespace(design=SimpleNamespace(difference=lambda own: own[None]))
        self.none: Any = SimpleNamespace(coefficients=None)
        self.exact = [Whitening.of(influences)]
        self.allow(0.0, along=False)

    def _fine_shown(self, state: State) -> tuple[str, ...]:
        return ()

    def _fine(self, state: State, kinds: Any) -> Any:
        return {}, 0.0


def test_what_no_edit_can_write_is_told_by_the_evidence_and_widens_the_error() -> None:
    """Where every number falls short by a share of its own, numbers that hardly vary mislead, and less so with it."""
    allowed, gained = np.ones(COEFFICIENTS, dtype=np.bool_), []
    for seed in range(6):
        random = np.random.default_rng(20 + seed)
        table, values = people(random)
        influences = (values - values.mean(axis=0)) * 2 / PATIENTS
        true = random.standard_normal(COEFFICIENTS) * 0.3 * (np.arange(COEFFICIENTS) < 10)
        noise = influences.T @ random.choice([-1.0, 1.0], size=PATIENTS)
        able = Linear(table, influences, table @ true + noise)
        assert able.unwritten() == (0.0,)
        short = Linear(table, influences, (table @ true) * (1 + 0.4 * random.standard_normal(WIDTH)) + noise)
        (share,) = short.unwritten()
        assert share >= 0.2
        errors = []
        for widened in ((0.0,), (share,)):
            short.widen(widened)
            found = shrink(short.answers[0], short.first[0], short.blocks, allowed)
            errors.append(np.linalg.norm(found.coefficients - true))
        gained.append(errors[1] / errors[0])
    assert np.median(gained) < 0.9


@pytest.mark.parametrize(
    ("strict", "share", "expected"),
    [
        (("shade",), 0.3, (("tone",), (0.3,))),
        (("atlas", "shade"), 0.3, (("tone",), (0.3,))),
        (("shade",), 0.0, (("shade",), ())),
        (("atlas",), 0.3, (("atlas",), ())),
        ((), 0.3, ((), ())),
    ],
)
def test_kinds_are_chosen_anew_with_wider_errors_only_where_strict_ones_find_something_smooth(
    strict: tuple[str, ...], share: float, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    widened: list[tuple[float, ...]] = []
    each: Any = SimpleNamespace(unwritten=lambda: (share,), widen=widened.append)

    def chosen(*_: Any) -> Any:
        return SimpleNamespace(kinds=("tone",) if widened else strict)

    monkeypatch.setattr(choice, "choose", chosen)
    found, unwritten = choice._chosen([each, each], [], each, np.random.default_rng(0))
    assert (found.kinds, unwritten) == expected
    assert widened == ([(share,)] * 3 if unwritten else [])


def test_a_difference_in_what_people_vary_by_is_shown_and_chance_is_none() -> None:
    random = np.random.default_rng(6)
    _, values = people(random)
    level = np.arange(PATIENTS) % 2 * 2 - 1
    leading = np.linalg.svd(values, full_matrices=False)[2][0]
    apart = values + 0.35 * values.std(axis=0).max() * level[:, None] * leading * WIDTH**0.5 / 4
    for own, expected in ((apart, True), (values, False)):
        influences = level[:, None] * (own - own.mean(axis=0)) * 2 / PATIENTS
        assert (shown_along(influences, random) <= 0.01) is expected
