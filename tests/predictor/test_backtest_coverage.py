"""Coverage by groups, ramps, volatility, and intervals over series."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.forecast import Target
from predictor.backtest.coverage import (
    grouped_coverage,
    hourly_changes,
    hours_of_day,
    ramps,
    tenths,
    volatility,
    worst_tenth,
    worst_tenth_if_alike,
)
from predictor.backtest.resampling import (
    geometric_mean_of_known,
    mean_of_known,
    median_of_known,
    ratio_of_sums,
    resampled,
)
from predictor.backtest.rolling import Backtest
from tests.support.histories import MONDAY, a_history

NAN = float("nan")


def a_backtest(
    actual: list[float], forecast: list[float], *, cutoff: int = MONDAY, step_seconds: int = 900
) -> Backtest:
    """One cutoff, one series, one level."""
    target = Target(len(actual))
    return Backtest((cutoff,), step_seconds, target, (0.5,), np.asarray([[[forecast]]]), np.asarray([[actual]]))


def test_each_point_counts_in_its_group_alone() -> None:
    """At or under is covered; a point without a sample or without a forecast counts nowhere."""
    made = a_backtest([1.0, 2.0, 3.0, NAN, 1.0], [1.0, 1.0, 4.0, 9.0, NAN])

    found = grouped_coverage(made, np.asarray([[[0, 0, 1, 1, 1]]]), 3)

    assert found.covered.tolist() == [[[1, 1, 0]]]
    assert found.count.tolist() == [[2, 1, 0]]
    assert (found + found).count.tolist() == [[4, 2, 0]]


def test_a_step_belongs_to_the_hour_in_which_it_starts() -> None:
    """Four steps of a quarter of an hour from 23:30 on."""
    made = a_backtest([0.0] * 4, [0.0] * 4, cutoff=MONDAY - 45 * 60)

    assert hours_of_day(made).tolist() == [[[23, 23, 0, 0]]]


def test_a_ramp_is_a_larger_change_than_usual_before_the_cutoff() -> None:
    """Usage that moves by 1 an hour, then by 5: only the latter is a ramp, also if it comes back later and often."""
    calm = np.tile([1.0, 2.0], 50)
    history = a_history(np.concatenate([calm, [6.0, 1.0, 6.0, 2.0]]), step_seconds=3600)
    cutoff = MONDAY + 99 * 3600

    on_ramp = ramps(history, cutoff)

    assert np.flatnonzero(on_ramp[0]).tolist() == [100, 101, 102, 103]


def test_nothing_is_a_ramp_where_a_sample_is_missing_or_nothing_is_known() -> None:
    """A change from or to nothing is no change; a series without a past has no usual one."""
    history = a_history(np.asarray([[1.0, 1.0, NAN, 9.0], [NAN, NAN, 1.0, 9.0]]), step_seconds=3600)

    assert not ramps(history, MONDAY + 3600).any()
    assert np.isnan(hourly_changes(history)[0]).tolist() == [True, False, True, True]


def test_volatility_does_not_depend_on_the_unit_nor_on_the_level_of_a_constant() -> None:
    """A constant, an idle and an unknown series have none; noise has the same in cores and in millicores."""
    noise = np.random.default_rng(0).uniform(1, 2, 200)
    rows = np.stack([noise, noise * 1000, np.full(200, 7.0), np.zeros(200), np.full(200, NAN)])

    found = volatility(a_history(rows))

    assert found[0] == pytest.approx(found[1]) == pytest.approx(np.std(np.diff(noise)) / np.mean(noise))
    assert found[2:].tolist() == [0.0, 0.0, 0.0]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_tenths_are_in_order_and_of_equal_size(values: list[float]) -> None:
    """No group is larger than another by more than one, and none holds less than the group before it."""
    found = tenths(np.asarray(values))

    sizes = np.bincount(found)
    assert sizes.max() - sizes.min() <= 1
    assert len(sizes) == min(10, len(values))
    known = np.asarray(values)
    assert all(known[found == n].max() <= known[found == n + 1].min() for n in range(len(sizes) - 1))


def test_the_worst_tenth_is_found_for_each_level_on_its_own() -> None:
    """Twenty series: the mean of the two lowest; a single series is its own worst tenth."""
    coverage = np.stack([np.linspace(0.0, 0.95, 20), np.linspace(0.95, 0.0, 20)], axis=1)

    assert worst_tenth(coverage) == pytest.approx([0.025, 0.025])
    assert worst_tenth(coverage[:1]) == pytest.approx([0.0, 0.95])


def test_an_interval_holds_the_figure_and_is_the_same_for_the_same_seed() -> None:
    """And it is a point where all series agree."""
    rng = np.random.default_rng(1)
    over, under = rng.uniform(1, 2, 50), rng.uniform(2, 3, 50)
    drawn, again = (resampled(50, np.random.default_rng(0)) for _ in range(2))

    found = ratio_of_sums(over, under, drawn)

    assert found == ratio_of_sums(over, under, again)
    assert found.value == pytest.approx(over.sum() / under.sum())
    assert found.low < found.value < found.high
    assert ratio_of_sums(under / 2, under, drawn).low == pytest.approx(0.5)


def test_what_cannot_be_measured_is_nan() -> None:
    """Nothing below the line, no known value; draws that miss the only known value are left out."""
    drawn = resampled(3, np.random.default_rng(0))

    assert np.isnan(ratio_of_sums(np.ones(3), np.zeros(3), drawn).value)
    assert np.isnan(mean_of_known(np.full(3, NAN), drawn).value)
    assert mean_of_known(np.asarray([NAN, 4.0, NAN]), drawn).low == 4.0


@given(st.lists(st.one_of(st.just(NAN), st.floats(0.1, 10)), min_size=1, max_size=9))
def test_medians_and_geometric_means_are_of_what_is_known_and_drawn_like_any_series(values: list[float]) -> None:
    """Each resample's median is that of the series as often as they are drawn."""
    array = np.asarray(values)
    drawn = resampled(array.size, np.random.default_rng(1))
    known = array[~np.isnan(array)]
    median, mean = median_of_known(array, drawn), geometric_mean_of_known(array, drawn)

    if known.size == 0:
        assert np.isnan(median.value)
        assert np.isnan(mean.value)
        return
    repeated = (np.repeat(array, row.astype(int)) for row in drawn)
    medians = [np.nanmedian(each) for each in repeated if not np.isnan(each).all()]
    assert median.value == np.median(known)
    assert (median.low, median.high) == pytest.approx(tuple(np.quantile(medians, [0.025, 0.975])))
    assert mean.value == pytest.approx(np.exp(np.log(known).mean()))
    assert mean.low <= mean.value * (1 + 1e-9)


def test_a_worst_tenth_that_is_chance_is_told_from_one_that_is_not() -> None:
    """Series alike show by chance what they show; where some are never covered, chance would show far more."""
    rng = np.random.default_rng(0)
    count = np.full((12, 200), 10.0)
    alike = np.where(rng.random((12, 200, 1)) < 0.9, 10.0, 0.0)
    uneven = alike.copy()
    uneven[:, :20] = 0.0

    by_chance = worst_tenth_if_alike(alike, count, draws=40, seed=0)
    instead = worst_tenth_if_alike(uneven, count, draws=40, seed=0)

    shown = worst_tenth(alike.sum(axis=0) / count.sum(axis=0)[:, None])
    assert by_chance == pytest.approx(shown, abs=0.03)
    assert worst_tenth(uneven.sum(axis=0) / count.sum(axis=0)[:, None]) == pytest.approx([0.0])
    assert (instead > 0.5).all()


def test_a_series_that_was_never_scored_is_no_worst_one() -> None:
    """It is drawn like the others and counts nowhere."""
    count = np.asarray([[4.0, 0.0, 4.0], [4.0, 0.0, 4.0]])

    assert worst_tenth_if_alike(count[:, :, None], count, draws=20, seed=0) == pytest.approx([1.0])
