"""Rolling cutoffs: nothing ahead of a cutoff is seen, and what is set beside a forecast is what happened."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.baselines.seasonal_naive import SeasonalNaive
from models.forecast import ForecastError, History, QuantileForecast, Target
from predictor.backtest.rolling import FORECAST_COLUMNS, Backtest, backtest, backtest_of, cutoffs_for, forecast_table
from predictor.errors import InvalidUsage
from predictor.usage.panel import Resource, SeriesKey
from tests.support.histories import MONDAY, STEP_SECONDS, a_history, daily_usage

DAY = 96


@given(st.integers(1, 40), st.integers(1, 60), st.integers(DAY + 61, 5 * DAY))
@settings(max_examples=60)
def test_every_cutoff_has_its_past_and_its_outcomes(count: int, horizon_steps: int, steps: int) -> None:
    """Ascending, on the grid, a day before the first and a whole horizon after the last."""
    history = a_history(np.ones(steps))

    cutoffs = cutoffs_for(history, count=count, horizon_steps=horizon_steps)

    assert 1 <= len(cutoffs) <= count
    assert list(cutoffs) == sorted(set(cutoffs))
    assert set(cutoffs) <= set(history.times.tolist())
    assert cutoffs[0] - MONDAY + STEP_SECONDS >= 86_400
    assert cutoffs[-1] + horizon_steps * STEP_SECONDS <= history.end_seconds


def test_cutoffs_span_what_there_is() -> None:
    """The first forecast starts where it may at the earliest, the last ends with the history."""
    history = a_history(np.ones(10 * DAY))
    start = MONDAY + 7 * 86_400

    cutoffs = cutoffs_for(history, count=5, horizon_steps=16, start_seconds=start)

    assert len(cutoffs) == 5
    assert cutoffs[0] + STEP_SECONDS == start
    assert cutoffs[-1] + 16 * STEP_SECONDS == history.end_seconds


@pytest.mark.parametrize(("steps", "horizon_steps"), [(50, 4), (DAY, 1), (3 * DAY, 3 * DAY), (0, 1)])
def test_too_short_a_history_is_refused(steps: int, horizon_steps: int) -> None:
    """With what there is and what is needed."""
    with pytest.raises(InvalidUsage, match="too short for a backtest"):
        cutoffs_for(a_history(np.ones((1, steps))), count=3, horizon_steps=horizon_steps)


def test_a_backtest_of_nothing_is_refused() -> None:
    """No cutoffs or no steps."""
    history = a_history(np.ones(3 * DAY))
    with pytest.raises(InvalidUsage, match="at least one cutoff"):
        cutoffs_for(history, count=0, horizon_steps=1)
    with pytest.raises(InvalidUsage, match="at least one cutoff"):
        backtest(SeasonalNaive(), history, (), Target(4), (0.5,))


def test_a_cutoff_off_the_grid_or_in_the_future_is_refused() -> None:
    """It would move every outcome by a part of a step."""
    history = a_history(np.ones(3 * DAY))
    with pytest.raises(ForecastError, match="not on the grid"):
        backtest(SeasonalNaive(), history, (history.end_seconds - 100,), Target(4), (0.5,))
    with pytest.raises(ForecastError, match="after the history's end"):
        backtest(SeasonalNaive(), history, (history.end_seconds + STEP_SECONDS,), Target(4), (0.5,))


def test_nothing_after_the_cutoff_can_be_reached() -> None:
    """What is handed to a forecaster is a copy that ends at the cutoff: the rest is not even behind it in memory."""
    usage = daily_usage(days=4)
    history = a_history(usage)
    seen: list[History] = []

    def predict(past: History) -> QuantileForecast:
        seen.append(past)
        return SeasonalNaive().predict(past, Target(4), (0.5,))

    cutoffs = cutoffs_for(history, count=4, horizon_steps=4)
    backtest_of(predict, history, cutoffs)

    for past, cutoff in zip(seen, cutoffs, strict=True):
        assert past.end_seconds == past.times[-1] == cutoff
        assert past.usage.base is None
        np.testing.assert_array_equal(past.usage, usage[:, : past.steps])


def test_the_future_changes_no_forecast() -> None:
    """Other outcomes, the same forecasts to the bit."""
    usage = daily_usage(days=4)
    other = usage.copy()
    other[:, -20:] = 1e9
    cutoff = a_history(usage).end_seconds - 20 * STEP_SECONDS

    one = backtest(SeasonalNaive(), a_history(usage), (cutoff,), Target(20), (0.5, 0.9))
    two = backtest(SeasonalNaive(), a_history(other), (cutoff,), Target(20), (0.5, 0.9))

    np.testing.assert_array_equal(one.forecast, two.forecast)
    assert (two.actual == 1e9).all()


def test_the_outcome_beside_a_step_is_that_steps() -> None:
    """Step h after the cutoff is h steps after it; past the history's end there is no sample."""
    history = a_history(np.arange(3.0 * DAY))
    cutoff = history.end_seconds - 5 * STEP_SECONDS

    made = backtest(SeasonalNaive(), history, (cutoff,), Target(8), (0.5,))

    np.testing.assert_array_equal(made.actual[0, 0, :5], np.arange(3.0 * DAY)[-5:])
    assert np.isnan(made.actual[0, 0, 5:]).all()


def test_the_bounds_beside_outcomes_are_theirs() -> None:
    """Which of them were cut off, also of some series; what a forecaster is handed ends at the cutoff too."""
    usage = daily_usage(series=3, days=4)
    history = replace(a_history(usage), is_bound=usage > 0.3)
    cutoff = history.end_seconds - 8 * STEP_SECONDS
    seen: list[History] = []

    def predict(past: History) -> QuantileForecast:
        seen.append(past)
        return SeasonalNaive().predict(past, Target(8), (0.5,))

    made = backtest_of(predict, history, (cutoff,))

    assert made.is_bound is not None and seen[0].is_bound is not None
    np.testing.assert_array_equal(made.is_bound[0], usage[:, -8:] > 0.3)
    np.testing.assert_array_equal(seen[0].is_bound, usage[:, :-8] > 0.3)
    assert seen[0].is_bound.base is None
    some = made.select([2, 0]).is_bound
    assert some is not None
    np.testing.assert_array_equal(some, made.is_bound[:, [2, 0]])


def test_the_table_is_long_with_one_row_per_level_and_step() -> None:
    """Columns, order, times and values; a series without a forecast has no rows."""
    keys = (SeriesKey("b/Job/x", Resource.CPU), SeriesKey("a/Job/y", Resource.MEMORY))
    values = np.arange(2.0 * 2 * 2 * 3).reshape(2, 2, 2, 3)
    values[1, 1] = np.nan
    made = Backtest((MONDAY, MONDAY + 3600), 900, Target(3), (0.5, 0.9), values, np.zeros((2, 2, 3)))

    table = forecast_table(keys, made)

    assert tuple(table.columns) == FORECAST_COLUMNS
    assert len(table) == (2 * 2 - 1) * 2 * 3
    assert str(table["timestamp"].dt.tz) == "UTC"
    row = table[(table["workload"] == "b/Job/x") & (table["level"] == 0.9)].iloc[4]
    assert row["resource"] == "cpu"
    assert row["cutoff"].timestamp() == MONDAY + 3600
    assert row["timestamp"].timestamp() == MONDAY + 3600 + 2 * 900
    assert row["value"] == values[1, 0, 1, 1]
    assert set(table.loc[table["workload"] == "a/Job/y", "cutoff"].map(lambda c: c.timestamp())) == {MONDAY}
