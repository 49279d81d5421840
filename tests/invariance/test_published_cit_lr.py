"""CIT-LR as published: Algorithm 1, its measured size beside it, one where nothing varies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.neural_network import MLPRegressor

from citlr.errors import InputError
from citlr.invariance.observational import published
from citlr.invariance.observational.published import MEASURED_SIZE, nearest_size, published_cit_lr


def data(n: int, effect: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z, a = rng.normal(size=(n, 4)), rng.random(n) < 0.5
    return z, np.where(a, "m", "f"), np.clip(0.4 + 0.1 * z[:, 0] + effect * a, 0, 1)


def test_a_large_dependence_is_found() -> None:
    assert published_cit_lr(*data(600, 0.4)).pvalue < 1e-6


def test_it_is_the_paired_t_of_yhat_g_and_yhat_h(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[np.ndarray, MLPRegressor]] = []
    original = published._learn

    def spy(inputs: np.ndarray, target: np.ndarray, *rest: object) -> object:
        model = original(inputs, target, *rest)
        seen.append((inputs, model))
        return model

    monkeypatch.setattr(published, "_learn", spy)
    z, level, y = data(300, 0.1)
    result = published_cit_lr(z, level, y, seed=5)
    (with_attribute, g), (without, h) = seen
    assert with_attribute.shape == (150, 5)
    assert without.shape == (150, 4)
    trained = {tuple(row) for row in without}
    test = np.array([tuple(row) not in trained for row in z])
    a = (level == "m").astype(float)
    expected = stats.ttest_rel(y[test] * g.predict(np.column_stack([z, a])[test]), y[test] * h.predict(z[test]))
    assert result.statistic == pytest.approx(expected.statistic)
    assert result.pvalue == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_predictions_give_one_and_say_so(value: float) -> None:
    z, level, _ = data(80, 0.0)
    result = published_cit_lr(z, level, np.full(80, value))
    assert result.pvalue == 1.0
    assert "all equal" in result.note
    assert np.isfinite([result.statistic, result.low, result.high]).all()


def test_the_measured_size_is_printed_beside_every_p() -> None:
    result = published_cit_lr(*data(200, 0.2))
    assert "Measured size at 5 %" in str(result)
    assert f"{result.size.rate:.1%}" in str(result)
    assert result.size == nearest_size(100, 100)


def test_the_table_is_of_counts_and_shows_a_test_that_is_not_calibrated() -> None:
    assert all(0 <= row.low <= row.rate <= row.high <= 1 and row.reps >= 100 for row in MEASURED_SIZE)
    assert max(row.low for row in MEASURED_SIZE) > 0.05
    assert len({(row.n_train, row.n_test) for row in MEASURED_SIZE}) == len(MEASURED_SIZE)


def test_the_halves_share_no_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    z, level, y = data(200, 0.1)
    patients = np.repeat(np.arange(50), 4)
    level = np.repeat(level[:50], 4)
    rows = published._training_rows(patients, 0.5, np.random.default_rng(0))
    assert not set(patients[rows]) & set(patients[~rows])
    assert published_cit_lr(z, level, y, patients=patients).n_patients == 50


def test_the_same_seed_gives_the_same_p() -> None:
    one, two = (published_cit_lr(*data(120, 0.1), seed=9) for _ in range(2))
    assert one == two


def test_bad_input_is_a_sentence() -> None:
    z, level, y = data(40, 0.1)
    with pytest.raises(InputError, match="between 0 and 1"):
        published_cit_lr(z, level, y, train_fraction=1.0)
    with pytest.raises(InputError, match="two images in each half"):
        published_cit_lr(z, level, y, train_fraction=0.01)
    with pytest.raises(InputError, match="missing or infinite"):
        published_cit_lr(np.full_like(z, np.nan), level, y)
    with pytest.raises(InputError, match="predictions are missing"):
        published_cit_lr(z, level, np.where(y > 0.5, np.nan, y))
