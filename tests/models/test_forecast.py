"""Histories and the helpers that forecasters share."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.forecast import FloatArray, ForecastError, History, Target, last_samples, row_quantiles
from tests.support.histories import a_history

samples = st.one_of(st.floats(0, 1e6), st.just(np.nan))


@given(arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 12)), elements=samples))
def test_row_quantiles_are_those_of_numpy(values: np.ndarray) -> None:
    """The fast one and NumPy's own agree for every row that has a sample."""
    levels = np.asarray([0.05, 0.5, 0.93])
    has_samples = ~np.isnan(values).all(axis=1)

    found = row_quantiles(values, levels)

    assert np.isnan(found[~has_samples]).all()
    if has_samples.any():
        np.testing.assert_allclose(found[has_samples], np.nanquantile(values[has_samples], levels, axis=1).T, rtol=1e-9)


def test_the_last_sample_is_the_newest_that_exists() -> None:
    """Missing newest samples are looked past; a row without any has none."""
    usage = np.asarray([[1.0, 2.0, np.nan], [3.0, np.nan, 4.0], [np.nan, np.nan, np.nan]])

    np.testing.assert_array_equal(last_samples(usage), [2.0, 4.0, np.nan])


@given(st.integers(0, 30))
def test_until_ends_at_the_cutoff(drop: int) -> None:
    """An earlier view has exactly the samples up to its cutoff, however many those are."""
    history = a_history(np.arange(20.0))
    cutoff = history.end_seconds - drop * history.step_seconds

    past = history.until(cutoff)

    assert past.end_seconds == cutoff
    np.testing.assert_array_equal(past.usage[0], np.arange(max(20 - drop, 0)))


def test_a_cutoff_after_the_end_is_refused() -> None:
    """The future is not known."""
    history = a_history(np.arange(20.0))

    with pytest.raises(ForecastError, match="after the history's end"):
        history.until(history.end_seconds + history.step_seconds)


def test_a_history_is_a_table_of_series() -> None:
    """Bare rows and steps without a length are refused."""
    with pytest.raises(ForecastError, match="1 dimensions"):
        History(np.zeros(3), 0, 300)
    with pytest.raises(ForecastError, match="must be positive"):
        History(np.zeros((1, 3)), 0, 0)


def slow_peak(usage: FloatArray, end: int, steps: int) -> float:
    """The highest sample of the steps up to `end`, if half of them have one; before the first there is none."""
    window = usage[max(end - steps + 1, 0) : end + 1]
    return float(np.nanmax(window)) if np.sum(~np.isnan(window)) * 2 >= steps else float("nan")


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 50), st.floats(0, 0.9))
@settings(deadline=None)
def test_the_outcome_of_a_peak_is_the_highest_sample_of_its_window(
    seed: int, steps: int, width: int, missing: float
) -> None:
    """At every step, in the past and after a cutoff, whatever is missing."""
    rng = np.random.default_rng(seed)
    usage = np.where(rng.random((2, width)) < missing, np.nan, rng.uniform(0, 5, (2, width)))
    target, history = Target(steps, is_peak=True), a_history(usage)

    expected = [[slow_peak(row, end, steps) for end in range(width)] for row in usage]

    np.testing.assert_array_equal(target.outcomes(usage), expected)
    newest = target.past_outcomes(history, 7)
    np.testing.assert_array_equal(newest, np.asarray(expected)[:, -7:])
    cutoff = width - 1 - steps
    if cutoff >= 0:
        after = target.after(history, int(history.times[cutoff]))
        np.testing.assert_array_equal(after[:, 0], np.asarray(expected)[:, -1])


def test_what_happened_after_a_cutoff_is_each_step_or_one_peak() -> None:
    """Beyond the history's end nothing is known; of a peak half its window is enough."""
    history = a_history(np.asarray([1.0, 2.0, 5.0, 3.0]))
    cutoff = int(history.times[1])

    assert Target(2).after(history, cutoff).tolist() == [[5.0, 3.0]]
    np.testing.assert_array_equal(Target(3).after(history, cutoff), [[5.0, 3.0, np.nan]])
    assert Target(4, is_peak=True).after(history, cutoff).tolist() == [[5.0]]
    assert np.isnan(Target(5, is_peak=True).after(history, cutoff)).all()


def a_cut_off_history() -> History:
    """Twelve steps of two series, of which some samples are bounds."""
    usage = np.arange(24.0).reshape(2, 12)
    return replace(a_history(usage), is_bound=usage % 5 == 0)


def test_bounds_stay_with_their_samples() -> None:
    """Earlier, later, of some series: what was cut off stays so."""
    history = a_cut_off_history()
    parts = (
        history.until(history.end_seconds - 4 * history.step_seconds),
        history.last(5),
        history.last(99),
        history.select([1, 0, 1]),
        history.select([1]).last(7).until(history.end_seconds - 2 * history.step_seconds),
    )

    for part in parts:
        assert part.is_bound is not None
        np.testing.assert_array_equal(part.is_bound, part.usage % 5 == 0)
    assert a_history(np.ones(3)).last(2).is_bound is None
    with pytest.raises(ForecastError, match="what of it is a bound"):
        History(np.ones((1, 3)), 0, 300, np.ones((1, 2), dtype=np.bool_))


@given(st.integers(0, 10_000), st.integers(1, 9), st.booleans(), st.floats(0, 0.9))
@settings(deadline=None)
def test_an_outcome_is_a_bound_where_its_usage_is(seed: int, steps: int, is_peak: bool, missing: float) -> None:
    """A peak where its highest usage was cut off; what is not known is none."""
    rng = np.random.default_rng(seed)
    usage = np.where(rng.random((3, 12)) < missing, np.nan, rng.integers(0, 4, (3, 12)))
    is_bound = (rng.random((3, 12)) < 0.4) & ~np.isnan(usage)
    history, target = replace(a_history(usage), is_bound=is_bound), Target(steps, is_peak)

    found = target.bounds_after(history, int(history.times[5]))

    actual = target.after(history, int(history.times[5]))
    assert found is not None
    assert found.shape == actual.shape
    for row, outcome in np.ndindex(*actual.shape):
        window = range(6, min(6 + steps, 12)) if is_peak else range(6 + outcome, min(7 + outcome, 12))
        expected = any(is_bound[row, k] and usage[row, k] == actual[row, outcome] for k in window)
        assert found[row, outcome] == expected
    assert target.bounds_after(a_history(usage), int(history.times[5])) is None
