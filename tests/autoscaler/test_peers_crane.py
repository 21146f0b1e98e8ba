"""Crane's DSP forecast, step by step, and the HPA that has it as a metric."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoscaler.simulator.outcome import ReplayError, ReplaySettings
from autoscaler.simulator.peers.crane import CraneEhpaPolicy
from autoscaler.simulator.peers.dsp import (
    ESTIMATORS,
    Estimator,
    dsp_forecast,
    estimates,
    filled,
    forecast_error,
    period_of,
    without_outliers,
)
from autoscaler.simulator.peers.hpa import HpaPolicy
from autoscaler.simulator.replay import replay
from models.forecast import FloatArray
from tests.support.clusters import a_replay_workload

STEP = 1200
"""Three steps an hour, 72 a day."""
PER_DAY = 72
STEPS_OF_20_MINUTES = ReplaySettings(step_seconds=STEP, tick_seconds=60, pod_ready_seconds=60)


def waves(steps: int, *amplitudes: float) -> FloatArray:
    """20, and a cosine per amplitude: the first once a day, the second twice, and so on."""
    time = 2 * np.pi * np.arange(steps) / PER_DAY
    return 20 + sum((a * np.cos((i + 1) * time) for i, a in enumerate(amplitudes)), np.zeros(steps))


def period(signal: FloatArray) -> int | None:
    return period_of(signal, STEP, np.random.default_rng(0))


def test_short_gaps_are_filled_in_a_straight_line_and_a_long_one_ends_what_is_used() -> None:
    """Steps of 20 minutes: a gap of an hour is filled; after one of 80 minutes the history begins anew."""
    nan = np.nan
    assert filled(np.array([1.0, 2.0, nan, nan, 5.0, 6.0]), STEP).tolist() == [1, 2, 3, 4, 5, 6]
    assert filled(np.array([1.0, 2.0, nan, nan, nan, 6.0, 7.0, 8.0]), STEP).tolist() == [6, 7, 8]


def test_only_the_newest_whole_hours_are_used() -> None:
    """Of 8 steps up to the last known one, 6."""
    assert filled(np.append(np.arange(8.0), np.nan), STEP).tolist() == [2, 3, 4, 5, 6, 7]
    assert filled(np.full(9, np.nan), STEP).size == 0


def test_outliers_become_the_value_before_them() -> None:
    """Of 2,000 values, the 2 highest lie above the percentile, which is the 1,998th."""
    signal = np.arange(1, 2001, dtype=float)
    signal[[500, 1000]] = 1e6, 2e6
    cleaned = without_outliers(signal)

    assert cleaned[[500, 1000]].tolist() == [500, 1000]
    assert np.array_equal(np.delete(cleaned, [0, 500, 1000]), np.delete(signal, [0, 500, 1000]))


@pytest.mark.parametrize("days", [2, 3, 5, 14])
def test_a_daily_season_is_found(days: int) -> None:
    """With noise of a tenth."""
    noise = np.random.default_rng(1).normal(0, 0.5, days * PER_DAY)

    assert period(waves(days * PER_DAY, 5.0) + noise) == PER_DAY


def test_a_weekly_season_is_found_once_two_weeks_are_known() -> None:
    """Days of 5 cores more or less, and none of that on two of seven: the week repeats better than the day does."""
    week = waves(7 * PER_DAY, 5.0)
    week[5 * PER_DAY :] = 12.0

    assert period(np.tile(week, 2)) == 7 * PER_DAY


@pytest.mark.parametrize(
    "signal",
    [
        pytest.param(np.random.default_rng(2).normal(20, 1, 4 * PER_DAY), id="noise"),
        pytest.param(np.full(4 * PER_DAY, 20.0), id="constant"),
        pytest.param(waves(4 * PER_DAY, 0, 0, 0, 5), id="six hours"),
        pytest.param(waves(2 * PER_DAY - 1, 5.0), id="under two days"),
    ],
)
def test_what_repeats_by_no_day_or_week_is_not_forecast(signal: FloatArray) -> None:
    """Chance, nothing, another period, too little."""
    assert period(signal) is None
    assert dsp_forecast(signal, STEP, np.random.default_rng(0), is_folded=False) is None


@pytest.mark.parametrize(("is_folded", "share"), [(False, 0.5), (True, 1.0)])
def test_as_shipped_a_slow_and_weak_frequency_keeps_half_its_amplitude(is_folded: bool, share: float) -> None:
    """Bins of 2.5, 2, 1.5 and 0.5: the last is under the least amplitude of 1 and slower than once an hour.

    It is to be kept for being slow. As shipped, only its mirror is dropped, and the real part of what is left is half.
    """
    signal = waves(3 * PER_DAY, 5.0, 4.0, 3.0, 1.0)
    (estimate,) = estimates(signal, PER_DAY, STEP, (Estimator(3, 1.0, 0.01),), is_folded=is_folded)

    assert estimate == pytest.approx(1.01 * waves(PER_DAY, 5.0, 4.0, 3.0, share))


def test_nothing_or_less_is_estimated_as_a_hundredth() -> None:
    """A wave that dips below 0, as a sum of few frequencies may."""
    signal = waves(3 * PER_DAY, 5.0) - 20
    (estimate,) = estimates(signal, PER_DAY, STEP, (Estimator(3, 1.0, 0.1),), is_folded=True)

    assert estimate[signal[:PER_DAY] < -1] == pytest.approx(0.011)
    assert estimate[signal[:PER_DAY] > 1].min() > 1


def test_the_error_charges_too_little_far_more_than_too_much() -> None:
    """A fifth too little costs 1, a fifth too much 0.2; where there is nothing to be relative to, the amount."""
    actual = np.array([10.0, 10.0])

    assert forecast_error(actual, np.array([8.0, 8.0])) == pytest.approx(1.0)
    assert forecast_error(actual, np.array([12.0, 12.0])) == pytest.approx(0.2)
    assert forecast_error(np.array([0.0, 10.0]), np.array([1.0, 12.0])) == pytest.approx(1.5)


def test_the_smallest_margin_wins_where_the_last_period_is_as_those_before() -> None:
    """The forecast of an exact season is that season and a hundredth, and it goes on for ever."""
    forecast = dsp_forecast(waves(3 * PER_DAY, 5.0), STEP, np.random.default_rng(0), is_folded=False)

    assert forecast is not None
    assert forecast.values == pytest.approx(1.01 * waves(PER_DAY, 5.0))
    assert forecast.between(3 * PER_DAY, 3 * PER_DAY) == pytest.approx(1.01 * 25)
    assert forecast.between(9 * PER_DAY + 36, 9 * PER_DAY + 36) == pytest.approx(1.01 * 15)
    assert forecast.between(5 * PER_DAY - 3, 5 * PER_DAY) == pytest.approx(1.01 * 25)


def test_unknown_steps_at_the_end_do_not_shift_the_forecast() -> None:
    """The last hour was not measured: noon stays noon."""
    history = waves(3 * PER_DAY, 5.0)
    history[-3:] = np.nan
    forecast = dsp_forecast(history, STEP, np.random.default_rng(0), is_folded=True)

    assert forecast is not None
    assert forecast.between(3 * PER_DAY, 3 * PER_DAY) == pytest.approx(1.01 * 25, rel=0.01)


@given(arrays(np.float64, 3 * PER_DAY, elements=st.floats(0, 1e3)))
def test_every_estimator_estimates_amounts(signal: FloatArray) -> None:
    """However demand went, as shipped and as intended."""
    for is_folded in (False, True):
        for estimate in estimates(signal, PER_DAY, STEP, ESTIMATORS, is_folded=is_folded):
            assert estimate.shape == (PER_DAY,)
            assert np.isfinite(estimate).all()
            assert (estimate > 0).all()


def day_of_two_levels() -> FloatArray:
    """4 cores by night, 16 by day."""
    return np.repeat([4.0, 16.0], PER_DAY // 2)


def test_the_morning_is_scaled_for_a_window_ahead() -> None:
    """A past of three such days: an hour before the morning the replicas are there; the HPA alone comes too late."""
    day, workload = day_of_two_levels(), a_replay_workload()
    policy = CraneEhpaPolicy(past=np.tile(day, 3)[None, :])
    result = replay(day[None, :], [workload], [policy, HpaPolicy()], STEPS_OF_20_MINUTES)

    crane, hpa = result.outcomes[0], result.outcomes[1]
    assert crane.series.ready_min[PER_DAY // 2 - 1] >= 32
    assert crane.violation_minutes == 0
    assert hpa.violation_minutes > 0


def test_with_a_past_under_two_days_crane_is_the_hpa() -> None:
    """47 hours are not enough, and by the next refresh the replay is over."""
    day, workload = day_of_two_levels(), a_replay_workload()
    policy = CraneEhpaPolicy(past=np.tile(day, 2)[None, 3:])
    result = replay(day[None, :24], [workload], [policy, HpaPolicy()], STEPS_OF_20_MINUTES)

    assert np.array_equal(result.outcomes[0].series.replicas_mean, result.outcomes[1].series.replicas_mean)


def test_steps_that_do_not_divide_an_hour_are_an_error() -> None:
    """Crane's histories have steps of at most an hour, and whole hours of them are kept."""
    settings = ReplaySettings(step_seconds=2400, tick_seconds=60)

    with pytest.raises(ReplayError, match="divide an hour"):
        CraneEhpaPolicy(past=np.ones((1, 9))).start(0, a_replay_workload(), settings)
