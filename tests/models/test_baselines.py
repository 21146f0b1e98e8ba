"""The fast baselines against slow, obvious versions of themselves."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.baselines.decaying_histogram import DecayingHistogram
from models.baselines.seasonal_naive import MINIMUM_ERRORS, SeasonalNaive
from models.forecast import ForecastError, Target
from tests.support.histories import a_history, daily_usage

HOUR = 3600
samples = st.one_of(st.floats(0, 1e4), st.just(np.nan), st.just(0.0))


class VpaHistogram:
    """The recommender's histogram, sample by sample, as its source has it."""

    def __init__(self, first: float, ratio: float, half_life_seconds: float) -> None:
        self.first, self.ratio, self.half_life_seconds = first, ratio, half_life_seconds
        self.buckets = int(np.ceil(np.log(1e5 * (ratio - 1) + 1) / np.log(ratio))) + 1
        self.weights = [0.0] * self.buckets

    def start_of(self, bucket: int) -> float:
        return self.first * (self.ratio**bucket - 1) / (self.ratio - 1)

    def add(self, value: float, age_seconds: float) -> None:
        bucket = 0
        while bucket < self.buckets - 1 and value >= self.start_of(bucket + 1):
            bucket += 1
        self.weights[bucket] += 2.0 ** (-age_seconds / self.half_life_seconds)

    def percentile(self, level: float) -> float:
        bucket, reached = 0, self.weights[0]
        while reached < level * sum(self.weights) * (1 - 1e-12):
            bucket += 1
            reached += self.weights[bucket]
        return self.start_of(min(bucket + 1, self.buckets - 1))


@given(arrays(np.float64, st.integers(1, 30), elements=samples), st.sampled_from([0.1, 0.5, 0.9, 0.99]))
@settings(max_examples=60)
def test_the_histogram_is_the_vpas(usage: np.ndarray, level: float) -> None:
    """The same estimate as adding samples one by one, but for the neighbouring bucket where rounding decides."""
    largest = np.nanmax(np.append(usage, 0.0))
    if np.isnan(usage).all() or largest < 1e-6:
        return
    slow = VpaHistogram(1e-4 * largest, 1.05, 24 * HOUR)
    for i, value in enumerate(usage):
        if not np.isnan(value):
            slow.add(value, (len(usage) - 1 - i) * HOUR)

    fast = DecayingHistogram().predict(a_history(usage, step_seconds=HOUR), Target(3), (level,)).values

    assert (fast == fast[0, 0, 0]).all()
    assert fast[0, 0, 0] == pytest.approx(slow.percentile(level), rel=1e-9)


def test_a_histogram_estimate_is_at_most_a_bucket_above_the_quantile() -> None:
    """With samples of one age it is the quantile, rounded up by at most 5 % and the first bucket."""
    usage = np.random.default_rng(0).lognormal(size=(3, 96))

    made = DecayingHistogram(half_life_seconds=10**9).predict(a_history(usage), Target(1), (0.5, 0.9)).values[:, :, 0]
    exact = np.quantile(usage, [0.5, 0.9], axis=1, method="inverted_cdf").T

    assert (made >= exact).all()
    assert (made <= exact * 1.05 + 1e-4 * usage.max(axis=1, keepdims=True)).all()


def test_old_samples_fade() -> None:
    """After a step down, the histogram's median comes down with the half-life, not at once and not never."""
    usage = np.concatenate([np.full(96 * 3, 10.0), np.full(96 * 2, 1.0)])

    slow = DecayingHistogram(half_life_seconds=30 * 86_400).predict(a_history(usage), Target(1), (0.5,)).values
    fast = DecayingHistogram(half_life_seconds=86_400).predict(a_history(usage), Target(1), (0.5,)).values

    assert slow[0, 0, 0] > 9
    assert fast[0, 0, 0] < 2


def slow_seasonal_naive(usage: np.ndarray, season: int, horizon: int, levels: tuple[float, ...]) -> np.ndarray:
    """Seasonal naive with its own errors, written as its definition reads."""
    known = [(t, usage[t]) for t in range(len(usage)) if not np.isnan(usage[t])]
    last = known[-1][1]
    errors = [
        usage[t] - usage[t - season]
        for t in range(season, len(usage))
        if not np.isnan(usage[t]) and not np.isnan(usage[t - season])
    ]
    made = np.empty((len(levels), horizon))
    for h in range(1, horizon + 1):
        back = len(usage) - 1 + h
        while back >= len(usage):
            back -= season
        point = last if np.isnan(usage[back]) else usage[back]
        for i, level in enumerate(levels):
            made[i, h - 1] = max(point + np.quantile(errors, level), 0.0)
    return made


@given(st.integers(0, 10_000), st.floats(0, 0.3), st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_seasonal_naive_is_its_definition(seed: int, missing: float, horizon: int) -> None:
    """For any series of which enough seasonal errors are known, with samples missing and past one season ahead."""
    rng = np.random.default_rng(seed)
    usage = np.where(rng.random(96) < missing, np.nan, rng.uniform(0, 5, 96))
    assume(np.count_nonzero(~np.isnan(usage[24:] - usage[:-24])) >= MINIMUM_ERRORS)
    levels = (0.1, 0.5, 0.95)

    fast = SeasonalNaive().predict(a_history(usage, step_seconds=HOUR), Target(horizon), levels).values[0]

    np.testing.assert_allclose(fast, slow_seasonal_naive(usage, 24, horizon, levels), rtol=1e-9, atol=1e-9)


def test_a_pure_rhythm_is_forecast_exactly() -> None:
    """A series that repeats each day has no errors, so all quantiles are tomorrow itself."""
    usage = daily_usage(noise=0.0, days=3)
    day = 96

    made = SeasonalNaive().predict(a_history(usage), Target(day), (0.05, 0.5, 0.99)).values

    for level in range(3):
        np.testing.assert_allclose(made[:, level], usage[:, -day:], rtol=1e-9)


def test_a_short_history_falls_back_to_its_last_value() -> None:
    """With less than a season the median is about the last sample, and the far end is less sure."""
    usage = 50 + np.cumsum(np.random.default_rng(2).standard_normal(60))

    made = SeasonalNaive().predict(a_history(usage), Target(16), (0.05, 0.5, 0.95)).values[0]

    width = made[2] - made[0]
    assert made[0, 0] <= usage[-1] <= made[2, 0]
    assert width[15] > 1.3 * width[0]


def test_a_season_shorter_than_a_step_is_refused() -> None:
    """It would mean no season at all."""
    with pytest.raises(ForecastError, match="shorter than a step"):
        SeasonalNaive(season_seconds=60).predict(a_history(np.ones(10)), Target(1), (0.5,))
