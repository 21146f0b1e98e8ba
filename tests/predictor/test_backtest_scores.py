"""Scores against slow, obvious versions of themselves, and what they mean."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecast import Target
from predictor.backtest.rolling import Backtest
from predictor.backtest.scores import Scores, score

LEVELS = (0.5, 0.9)
ENDS = (1, 4)


def a_backtest(seed: int = 0, missing: float = 0.2) -> Backtest:
    rng = np.random.default_rng(seed)
    forecast = np.sort(rng.uniform(0, 4, (3, 2, 2, 4)), axis=2)
    actual = np.where(rng.random((3, 2, 4)) < missing, np.nan, rng.uniform(0, 4, (3, 2, 4)))
    forecast[rng.random((3, 2)) < missing] = np.nan
    return Backtest((0, 10, 20), 10, Target(4), LEVELS, forecast, actual)


def slow_points(made: Backtest, series: int, level: int, part: int) -> list[tuple[float, float]]:
    """(actual, forecast) of every point that can be scored."""
    start = 0 if part == 0 else ENDS[part - 1]
    return [
        (made.actual[c, series, h], made.forecast[c, series, level, h])
        for c in range(3)
        for h in range(start, ENDS[part])
        if not np.isnan(made.actual[c, series, h]) and not np.isnan(made.forecast[c, series, level, h])
    ]


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.2, 0.7]))
@settings(max_examples=30)
def test_scores_are_their_definitions(seed: int, missing: float) -> None:
    """Pinball, coverage, bias, cost and counts, per series, level and part, with samples missing anywhere."""
    made = a_backtest(seed, missing)

    found = score(made, ENDS)

    for i in range(2):
        for part in range(2):
            steps = 3 * (ENDS[part] - (0 if part == 0 else ENDS[part - 1]))
            for k, level in enumerate(LEVELS):
                points = slow_points(made, i, k, part)
                assert found.count[i, part] == len(points)
                assert found.missing[i, part] == steps - len(points)
                if not points:
                    assert np.isnan(found.pinball[i, k, part])
                    continue
                n = len(points)
                pinball = sum(max(level * (y - q), (level - 1) * (y - q)) for y, q in points) / n
                assert found.pinball[i, k, part] == pytest.approx(pinball)
                assert found.coverage[i, k, part] == pytest.approx(sum(y <= q for y, q in points) / n)
                assert found.bias[i, k, part] == pytest.approx(sum(q - y for y, q in points) / n)
                cost = sum(3 * max(y - q, 0) + 0.5 * max(q - y, 0) for y, q in points) / n
                assert found.cost(3, 0.5)[i, k, part] == pytest.approx(cost)


def test_the_weighted_quantile_loss_is_its_definition() -> None:
    """Twice the summed pinball loss over summed usage, averaged over the levels."""
    made = a_backtest(1)

    found = score(made).pooled(series=True).weighted_quantile_loss[0, 0]

    losses = []
    for k, level in enumerate(LEVELS):
        points = [p for i in range(2) for part in range(2) for p in slow_points(made, i, k, part)]
        total = sum(max(level * (y - q), (level - 1) * (y - q)) for y, q in points)
        losses.append(2 * total / sum(y for y, _ in points))
    assert found == pytest.approx(np.mean(losses))


def test_pooling_first_or_summing_later_is_the_same() -> None:
    """Sums make averages exact whatever is pooled, and in whatever order."""
    by_part = score(a_backtest(2), ENDS)
    whole = score(a_backtest(2))

    def equal(one: Scores, two: Scores) -> None:
        np.testing.assert_allclose(one.pinball, two.pinball)
        np.testing.assert_allclose(one.coverage, two.coverage)
        np.testing.assert_array_equal(one.count, two.count)

    equal(by_part.pooled(parts=True), whole)
    equal(by_part.pooled(series=True, parts=True), by_part.pooled(parts=True).pooled(series=True))


def test_the_pinball_loss_is_least_at_the_quantile() -> None:
    """It punishes a .9 quantile nine times as much for being too low as for being too high by as much."""
    actual = np.random.default_rng(0).lognormal(size=(1, 1, 4000))
    best = float(np.quantile(actual, 0.9))

    def loss(value: float) -> float:
        forecast = np.full((1, 1, 1, 4000), value)
        return float(score(Backtest((0,), 10, Target(4000), (0.9,), forecast, actual)).pinball[0, 0, 0])

    assert loss(best) < min(loss(best * 0.8), loss(best * 1.25))
    one = np.ones((1, 1, 1))
    low = score(Backtest((0,), 10, Target(1), (0.9,), np.zeros((1, 1, 1, 1)), one)).pinball[0, 0, 0]
    high = score(Backtest((0,), 10, Target(1), (0.9,), np.full((1, 1, 1, 1), 2.0), one)).pinball[0, 0, 0]
    assert low == pytest.approx(9 * high)


@pytest.mark.parametrize("ends", [(), (4, 1), (1, 5), (0, 4), (2, 2, 4)])
def test_parts_that_do_not_share_out_the_horizon_are_refused(ends: tuple[int, ...]) -> None:
    """They would count a step twice or never."""
    with pytest.raises(ValueError, match="ascending steps, the last at 4"):
        score(a_backtest(), ends)


def test_no_forecast_is_too_high_where_usage_was_cut_off() -> None:
    """The smaller of forecast and bound is scored, point by point; whether usage was covered is counted as ever."""
    made = a_backtest(3)
    is_bound = np.random.default_rng(4).random(made.actual.shape) < 0.5
    at_most = np.where(is_bound[:, :, None, :], np.minimum(made.forecast, made.actual[:, :, None, :]), made.forecast)
    expected = score(replace(made, forecast=np.where(np.isnan(at_most), made.forecast, at_most)), ENDS)

    found = score(replace(made, is_bound=is_bound), ENDS)

    np.testing.assert_array_equal(found.pinball, expected.pinball)
    np.testing.assert_array_equal(found.covered, score(made, ENDS).covered)
    assert (found.pinball_sums < score(made, ENDS).pinball_sums).any()
