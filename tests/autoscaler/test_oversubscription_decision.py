"""Oversubscription: the peak of the sum at a quantile level, and no overselling without evidence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cluster.reasons import Hold, ReasonCode
from autoscaler.decisions.oversubscription import (
    PeakEstimate,
    node_peak_quantile,
    oversubscription_ratio,
)
from models.forecast import FloatArray, ForecastError
from models.node_peak import LEAST_BLOCKS, capped_totals

NO_LIMIT = np.array([np.nan])


def days(peaks: list[float], steps: int = 24) -> FloatArray:
    """One task whose days peak at these values, each day at another step, and that idles at 1: [1, days × steps]."""
    usage = np.ones((len(peaks), steps))
    for day, peak in enumerate(peaks):
        usage[day, day % steps] = peak
    return usage.reshape(1, -1)


def estimate(usage: FloatArray, limits: FloatArray = NO_LIMIT, level: float = 0.9) -> PeakEstimate:
    """The estimate for days of 24 steps, which must exist."""
    peak = node_peak_quantile(usage, limits, level=level, horizon_steps=24)
    assert isinstance(peak, PeakEstimate)
    return peak


def test_the_quantile_is_the_conformal_rank_of_the_daily_maxima() -> None:
    """19 days that peak at 11…29, level 0.9: rank ceil(20 × 0.9) = 18, so 28; at 0.95 rank 19, so 29."""
    usage = days([float(p) for p in range(11, 30)])

    assert estimate(usage, level=0.9).value == 28.0
    assert estimate(usage, level=0.95).value == 29.0
    assert not estimate(usage, level=0.95).is_extrapolated


def test_too_few_days_for_the_level_widen_the_highest_and_say_so() -> None:
    """9 days at 10, level 0.99: 10 × (1 + 0.01 × ln(1 / (10 × 0.01))) = 10 × 1.023."""
    peak = estimate(days([10.0] * 9), level=0.99)

    assert peak.is_extrapolated
    assert peak.value == pytest.approx(10.0 * (1 + 0.01 * np.log(10)))
    assert [r.code for r in peak.reasons] == [ReasonCode.LEVEL_NOT_SUPPORTED]


def test_widening_never_goes_beyond_the_sum_of_limits() -> None:
    """A task cannot use more than its limit."""
    assert estimate(days([10.0] * 9), np.array([10.1]), level=0.99).value == 10.1


def test_it_is_the_peak_of_the_sum_not_the_sum_of_peaks() -> None:
    """Two tasks of 10 cores that never peak together peak at 11, not at 20."""
    even = np.tile([10.0, 1.0], 12 * 10)
    odd = np.tile([1.0, 10.0], 12 * 10)

    assert estimate(np.stack([even, odd]), np.array([np.nan, np.nan])).value == 11.0


def test_it_is_the_maximum_over_the_day_not_the_quantile_of_single_steps() -> None:
    """A spike in one step of each day is 4 % of the steps but happens every day."""
    usage = days([50.0] * 20)

    assert np.quantile(usage, 0.9) == 1.0
    assert estimate(usage, level=0.9).value == 50.0


def test_usage_counts_up_to_the_limit_only() -> None:
    """What is throttled anyway needs no room."""
    assert estimate(days([50.0] * 20), np.array([8.0])).value == 8.0


def test_a_gap_counts_as_the_highest_of_the_day_and_an_unborn_task_as_its_highest_ever() -> None:
    """Missing samples never look like idle time, unless nobody was watching at all."""
    usage = np.array([[1.0, 5.0, np.nan, 2.0], [np.nan, np.nan, 3.0, 7.0]])

    totals = capped_totals(usage, np.full(usage.shape, np.inf), 2)
    unwatched = capped_totals(np.full((2, 2), np.nan), np.full((2, 2), np.inf), 2)

    assert totals.tolist() == [[1.0 + 7.0, 5.0 + 7.0], [2.0 + 3.0, 2.0 + 7.0]]
    assert np.isnan(unwatched).all()


def test_days_on_which_nobody_was_watching_are_no_evidence() -> None:
    """10 days, of which 4 without any sample, leave 6: fewer than a week."""
    usage = days([5.0] * 10)
    usage[0, : 4 * 24] = np.nan

    peak = node_peak_quantile(usage, NO_LIMIT, level=0.9, horizon_steps=24)

    assert isinstance(peak, Hold)
    assert peak.reason.code is ReasonCode.NO_EVIDENCE


def test_a_cold_task_counts_at_its_limit_else_at_its_request() -> None:
    """Known for an hour: its usage says nothing yet."""
    warm = days([10.0] * 20)
    cold = np.full_like(warm, np.nan)
    cold[0, -3:] = 0.1
    usage = np.concatenate([warm, cold])

    with_limit = node_peak_quantile(usage, np.array([np.nan, 4.0]), level=0.9, horizon_steps=24)
    with_request = node_peak_quantile(
        usage, np.array([np.nan, np.nan]), level=0.9, horizon_steps=24, requests=np.array([1.0, 2.5])
    )
    with_nothing = node_peak_quantile(usage, np.array([np.nan, np.nan]), level=0.9, horizon_steps=24)

    assert isinstance(with_limit, PeakEstimate)
    assert with_limit.value == 14.0
    assert with_limit.cold_tasks == 1
    assert isinstance(with_request, PeakEstimate)
    assert with_request.value == 12.5
    assert isinstance(with_nothing, Hold)


@pytest.mark.parametrize("shape", [(0, 0), (0, 240), (3, 0), (3, 24 * (LEAST_BLOCKS - 1))])
def test_an_empty_or_short_history_never_oversubscribes(shape: tuple[int, int]) -> None:
    """No evidence, no oversubscription: 1.0, with the reason."""
    peak = node_peak_quantile(np.ones(shape), np.ones(shape[0]), level=0.99, horizon_steps=24)
    rate = oversubscription_ratio(peak, requested=10.0, allocatable=10.0, max_ratio=3.0)

    assert rate.ratio == 1.0
    assert [r.code for r in rate.reasons] == [ReasonCode.NO_EVIDENCE]


def a_peak(value: float) -> PeakEstimate:
    return PeakEstimate(value, 0.99, 30, False, 0, ())


@pytest.mark.parametrize(
    ("peak", "requested", "ratio", "code"),
    [
        (50.0, 100.0, 2.0, ReasonCode.PREDICTED_PEAK),
        (20.0, 100.0, 3.0, ReasonCode.MAX_RATIO),
        (0.0, 100.0, 3.0, ReasonCode.MAX_RATIO),
        (120.0, 100.0, 1.0, ReasonCode.PEAK_ABOVE_REQUESTS),
        (50.0, 0.0, 1.0, ReasonCode.NO_EVIDENCE),
        (50.0, float("nan"), 1.0, ReasonCode.NO_EVIDENCE),
    ],
)
def test_the_ratio_is_requests_over_predicted_peak_within_its_bounds(
    peak: float, requested: float, ratio: float, code: ReasonCode
) -> None:
    """A mix that requests 100 and peaks at 50 can be sold twice."""
    rate = oversubscription_ratio(a_peak(peak), requested=requested, allocatable=64.0, max_ratio=3.0)

    assert rate.ratio == ratio
    assert rate.reasons[-1].code is code
    assert rate.sellable == ratio * 64.0


@given(peak=st.floats(0.1, 1e6), requested=st.floats(0.1, 1e6), allocatable=st.floats(0.1, 1e6))
def test_what_is_sold_up_to_the_ratio_peaks_within_the_allocatable(
    peak: float, requested: float, allocatable: float
) -> None:
    """The same mix, scaled until its requests reach the ratio, predictably fits, if it does so without overselling."""
    rate = oversubscription_ratio(a_peak(peak), requested=requested, allocatable=allocatable, max_ratio=3.0)

    scale = rate.sellable / requested
    assert peak * scale <= allocatable * (1 + 1e-9) or rate.ratio == 1.0
    assert 1.0 <= rate.ratio <= 3.0


usages = st.lists(st.lists(st.floats(0, 100), min_size=40, max_size=40), min_size=1, max_size=4).map(np.array)


@given(usage=usages, extra=st.floats(0, 50), row=st.integers(0, 3), step=st.integers(0, 39))
def test_more_usage_never_allows_a_higher_ratio(usage: FloatArray, extra: float, row: int, step: int) -> None:
    """One sample more anywhere, in a pool of up to 4 tasks over 10 days of 4 steps, at a level that 10 days support."""
    more = usage.copy()
    more[row % len(usage), step] += extra
    limits = np.full(len(usage), 80.0)

    def ratio(values: FloatArray) -> float:
        peak = node_peak_quantile(values, limits, level=0.9, horizon_steps=4)
        return oversubscription_ratio(peak, requested=80.0 * len(usage), allocatable=100.0, max_ratio=10.0).ratio

    assert ratio(more) <= ratio(usage) * (1 + 1e-12)


@given(usage=usages, power=st.integers(-8, 8), level=st.sampled_from([0.8, 0.99]))
def test_the_unit_and_the_order_of_tasks_do_not_matter(usage: FloatArray, power: int, level: float) -> None:
    """k times everything peaks at k times the value; the tasks are a set."""
    k = 2.0**power
    limits = np.linspace(50.0, 90.0, len(usage))
    base = node_peak_quantile(usage, limits, level=level, horizon_steps=4)
    scaled = node_peak_quantile(k * usage[::-1], k * limits[::-1], level=level, horizon_steps=4)

    assert isinstance(base, PeakEstimate)
    assert isinstance(scaled, PeakEstimate)
    assert scaled.value == pytest.approx(k * base.value, rel=1e-9)


def test_the_stated_level_is_kept_on_days_that_are_alike() -> None:
    """Over 600 drawn pools the peak of the 21st day stays under the estimate from 20 at least as often as stated."""
    drawn = np.random.default_rng(20261124).lognormal(size=(600, 2, 21 * 3))

    kept = [float(pool[:, 60:].sum(axis=0).max()) <= estimate_of_days(pool[:, :60]) for pool in drawn]

    # Expected is rank / (n + 1) = 19 / 21 = 0.905; two standard errors of 600 draws are 0.024.
    assert 0.9 - 0.024 <= float(np.mean(kept)) <= 0.905 + 0.024


def estimate_of_days(usage: FloatArray) -> float:
    peak = node_peak_quantile(usage, np.full(len(usage), np.inf), level=0.9, horizon_steps=3)
    assert isinstance(peak, PeakEstimate)
    return peak.value


DAYS = days([10.0] * 9)


@pytest.mark.parametrize(
    ("usage", "limits", "requests", "level", "message"),
    [
        (DAYS[0], NO_LIMIT, None, 0.9, r"usage \[tasks, steps\]"),
        (DAYS, np.array(4.0), None, 0.9, r"limits \[tasks\]"),
        (-DAYS, NO_LIMIT, None, 0.9, "usage cannot be negative, got -10"),
        (DAYS * np.inf, NO_LIMIT, None, 0.9, "usage cannot be infinite"),
        (DAYS, np.array([-4.0]), None, 0.9, "limits cannot be negative, got -4"),
        (DAYS, NO_LIMIT, np.array([-4.0]), 0.9, "requests cannot be negative, got -4"),
        (DAYS, NO_LIMIT, np.ones(3), 0.9, r"requests \[tasks\], of 1 tasks"),
        (DAYS, NO_LIMIT, None, 1.0, r"level must lie inside \(0, 1\), got 1"),
        (DAYS, NO_LIMIT, None, np.nan, r"level must lie inside \(0, 1\), got nan"),
    ],
)
def test_what_no_node_can_be_is_refused(
    usage: FloatArray, limits: FloatArray, requests: FloatArray | None, level: float, message: str
) -> None:
    """No peak below zero is told of a mistake, and no lack of evidence claimed for arrays of the wrong shape."""
    with pytest.raises(ForecastError, match=message):
        node_peak_quantile(usage, limits, level=level, horizon_steps=24, requests=requests)
