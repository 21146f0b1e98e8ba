"""The forecasters that are read off a series' own past, against slow, obvious versions of themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ascending import Ascending
from models.baselines.hour_of_day import HourOfDay
from models.baselines.trailing_quantiles import TrailingQuantiles
from models.forecast import FloatArray, Target
from models.learned.analogs import FARTHEST_WEIGHT, Analogs, nearest
from models.learned.mixture import TrailingMixture
from models.weighted import weighted_columns, weighted_quantiles
from tests.support.histories import a_history, mixed_usage

HOUR = 3600
LEVELS = (0.1, 0.5, 0.9)


def slow_quantile(samples: list[float], weights: list[float], level: float) -> float:
    """The smallest sample at which the cumulative weight reaches its share of the total."""
    known = sorted((s, w) for s, w in zip(samples, weights, strict=True) if not np.isnan(s))
    total, reached = sum(w for _, w in known), 0.0
    for sample, weight in known:
        reached += weight
        if reached >= level * total * (1 - 1e-12):
            return sample
    return known[-1][0]


def some_usage(seed: int, steps: int, missing: float) -> FloatArray:
    """One series with any samples missing but the newest."""
    rng = np.random.default_rng(seed)
    usage = np.where(rng.random(steps) < missing, np.nan, np.round(rng.uniform(0, 5, steps), 3))
    usage[-1] = 1.0
    return usage


@given(st.integers(0, 1000), st.integers(1, 30), st.floats(0, 0.5))
@settings(max_examples=30, deadline=None)
def test_trailing_quantiles_are_those_of_the_window(seed: int, window: int, missing: float) -> None:
    """Of its samples alone."""
    usage = some_usage(seed, 40, missing)

    made = TrailingQuantiles(window * HOUR).predict(a_history(usage, step_seconds=HOUR), Target(2), LEVELS).values[0]

    expected = np.nanquantile(usage[-window:], LEVELS)
    np.testing.assert_allclose(made, np.repeat(expected[:, None], 2, axis=1))


def test_an_empty_window_is_the_newest_sample() -> None:
    """Four hours without a scrape: the last thing known."""
    usage = np.concatenate([np.arange(1.0, 41.0), np.full(4, np.nan)])

    made = TrailingQuantiles(4 * HOUR).predict(a_history(usage, step_seconds=HOUR), Target(3), LEVELS).values

    assert (made == 40.0).all()


@given(st.integers(0, 1000), st.integers(1, 30), st.floats(0, 0.3))
@settings(max_examples=20, deadline=None)
def test_hour_of_day_is_its_definition(seed: int, ahead: int, missing: float) -> None:
    """Samples within 45 minutes of the middle of the target's half hour, by days back, on steps of half an hour."""
    step = 1800
    usage = some_usage(seed, 48 * 6, missing)

    made = HourOfDay().predict(a_history(usage, step_seconds=step), Target(ahead), LEVELS).values[0, :, -1]

    seconds_ahead = (ahead * step - 1) % 86_400 // 1800 * 1800 + 900
    samples, weights = [], []
    for lag in range(len(usage)):
        back = lag * step + seconds_ahead
        days = max(round(back / 86_400), 1)
        if abs(back - days * 86_400) <= 2700:
            samples.append(usage[len(usage) - 1 - lag])
            weights.append(0.85**days)
    expected = [slow_quantile(samples, weights, level) for level in LEVELS]
    np.testing.assert_allclose(made, expected)


def slow_analogs(usage: FloatArray, context: int, neighbours: int, decay: float, horizon: int) -> FloatArray:
    """Nearest neighbours one moment at a time."""
    filled = list(usage)
    for i in range(1, len(filled)):
        if np.isnan(filled[i]):
            filled[i] = filled[i - 1]
    root = np.sqrt(np.asarray(filled) / np.exp2(np.floor(np.log2(np.nanmax(usage)))))
    now = len(usage) - 1
    found = []
    for end in range(context - 1, len(usage) - horizon):
        gaps = [(root[end - lag] - root[now - lag]) ** 2 / (1 + decay * lag) for lag in range(context)]
        if not np.isnan(usage[end]) and not np.isnan(gaps).any():
            found.append((sum(gaps), now - end, end))
    nearest = sorted(found)[:neighbours]
    farthest = nearest[-1][0]
    weights = [np.exp(-FARTHEST_WEIGHT * np.sqrt(d / farthest)) if farthest > 0 else 1.0 for d, _, _ in nearest]
    made = np.empty((len(LEVELS), horizon))
    for row, level in enumerate(LEVELS):
        for h in range(1, horizon + 1):
            futures = [float(usage[end + h]) for _, _, end in nearest]
            is_known = not np.isnan(futures).all()
            made[row, h - 1] = slow_quantile(futures, weights, level) if is_known else np.nanquantile(usage, level)
    return made


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(2, 9), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_analogs_are_the_nearest_neighbours(seed: int, context: int, neighbours: int, horizon: int) -> None:
    """Their futures, weighted by likeness, whatever the context, the number and the horizon."""
    usage = some_usage(seed, 120, 0.05)
    # No two moments alike to the last digit, or rounding decides which is nearer.
    usage = usage * np.random.default_rng(seed + 1).uniform(0.9, 1.1, usage.size)
    usage[:2] = 1.0
    forecaster = Analogs(context_steps=context, neighbours=neighbours, lag_decay=0.2)

    made = forecaster.predict(a_history(usage), Target(horizon), LEVELS).values[0]

    np.testing.assert_allclose(made, slow_analogs(usage, context, neighbours, 0.2, horizon), rtol=1e-6)


def test_analogs_see_a_square_wave_where_seasons_do_not() -> None:
    """On for 5 steps, off for 8: the next edges are foretold to the step."""
    wave = np.resize(np.asarray([4.0] * 5 + [0.0] * 8), 13 * 60 + 7)

    made = Analogs(context_steps=24, neighbours=10).predict(a_history(wave), Target(26), (0.1, 0.9)).values[0]

    expected = np.resize(np.asarray([4.0] * 5 + [0.0] * 8), 13 * 60 + 7 + 26)[-26:]
    np.testing.assert_array_equal(made, np.stack([expected, expected]))


def test_too_short_a_past_for_neighbours_gives_its_quantiles() -> None:
    """Nothing like now can be looked for in a dozen samples."""
    usage = np.arange(12.0)

    made = Analogs().predict(a_history(usage), Target(6), LEVELS).values[0]

    np.testing.assert_allclose(made, np.repeat(np.quantile(usage, LEVELS)[:, None], 6, axis=1))


@given(st.integers(0, 500), st.sampled_from([0.01, 0.5, 0.99]))
@settings(max_examples=30, deadline=None)
def test_weighted_quantiles_are_their_definition(seed: int, level: float) -> None:
    """Along rows and along columns, with samples missing."""
    rng = np.random.default_rng(seed)
    samples = np.where(rng.random((3, 9)) < 0.2, np.nan, rng.integers(0, 6, (3, 9)).astype(float))
    samples[:, 0] = 1.0
    weights = rng.uniform(0.1, 1.0, 9)

    by_row = weighted_quantiles(samples, np.zeros((3, 1), dtype=np.intp), weights[None], np.asarray([level]))
    by_column = weighted_columns(samples[:, :, None], np.tile(weights, (3, 1)), np.asarray([level]))

    expected = [slow_quantile(list(row), list(weights), level) for row in samples]
    np.testing.assert_allclose(by_row[:, 0, 0], expected)
    np.testing.assert_allclose(by_column[:, 0, 0], expected)


@pytest.mark.parametrize("forecaster", [Analogs(), HourOfDay(), TrailingQuantiles()])
def test_a_series_alone_is_forecast_as_in_company(forecaster: Analogs | HourOfDay | TrailingQuantiles) -> None:
    """Chunks and sorting never mix series."""
    usage = np.stack([some_usage(seed, 96 * 8, 0.05) for seed in range(5)])

    together = forecaster.predict(a_history(usage), Target(8), LEVELS).values

    alone = [forecaster.predict(a_history(usage[row]), Target(8), LEVELS).values[0] for row in range(5)]
    np.testing.assert_array_equal(together, np.stack(alone))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 4))
def test_the_nearest_are_the_smallest_and_of_equal_ones_the_newest(seed: int, count: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    distance = np.round(rng.random((4, 900)) ** 3, digits).astype(np.float32)
    distance[0] = 0.0
    distance[1, rng.random(900) < 0.9] = np.inf
    found = nearest(distance, count)
    for row in range(4):
        newest_first = np.argsort(distance[row][::-1], kind="stable")[:count]
        assert set(found[row]) == set(899 - newest_first)


def test_the_newest_of_a_sorted_past_are_those_of_the_window() -> None:
    rng = np.random.default_rng(3)
    samples = np.where(rng.random((5, 60)) < 0.2, np.nan, rng.integers(0, 9, (5, 60)).astype(np.float64))
    for steps in (1, 7, 59, 60, 99):
        np.testing.assert_array_equal(Ascending.of(samples).newest(steps), np.sort(samples[:, -steps:], axis=1))


def test_what_forecasters_share_of_a_past_changes_nothing() -> None:
    """In any order, alone or after others, on the same history or on a fresh one."""
    usage = mixed_usage()
    for target in (Target(6), Target(12, is_peak=True)):
        shared = a_history(usage)
        for forecaster in (TrailingQuantiles(), TrailingMixture(), Analogs(), HourOfDay(), TrailingQuantiles()):
            alone = forecaster.predict(a_history(usage), target, LEVELS).values
            np.testing.assert_array_equal(forecaster.predict(shared, target, LEVELS).values, alone)
