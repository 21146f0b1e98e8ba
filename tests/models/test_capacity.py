"""What replicas carry, learned from simulated queues of known capacity; and when nothing can be learned."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.knee import a_past, counted, true_knee
from benchmarks.queues import simulated
from models.capacity import (
    LearnedCapacity,
    LearnedUsage,
    LoadHistory,
    Refusal,
    RisingShare,
    learned_capacity,
    learned_usage,
)
from models.forecast import FloatArray, ForecastError
from models.queueing import largest_load

THRESHOLD, LEVEL = 10.0, 0.99
DAY = 86_400


def true_capacity(replicas: int, is_pooled: bool) -> float:
    return largest_load(replicas, THRESHOLD, LEVEL) if is_pooled else replicas * largest_load(1, THRESHOLD, LEVEL)


def a_history(
    is_pooled: bool, most_replicas: int, seed: int = 0, days: int = 1, interval_seconds: int = 300
) -> LoadHistory:
    middle = max(1, most_replicas // 2)
    return simulated(
        np.random.default_rng(seed),
        seconds=days * DAY,
        interval_seconds=interval_seconds,
        most_replicas=most_replicas,
        carried_by_one=true_capacity(middle, is_pooled) / middle,
        threshold=THRESHOLD,
        is_pooled=is_pooled,
    )


def learned(history: LoadHistory, replicas: int = 30, level: float = LEVEL) -> LearnedCapacity | Refusal:
    return learned_capacity(
        history, threshold_seconds=THRESHOLD, level=level, replicas=replicas, rng=np.random.default_rng(1)
    )


def a_capacity(history: LoadHistory, replicas: int = 30) -> LearnedCapacity:
    found = learned(history, replicas)
    assert isinstance(found, LearnedCapacity), found
    return found


def a_refusal(history: LoadHistory) -> Refusal:
    found = learned(history)
    assert isinstance(found, Refusal), found
    return found


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("is_pooled", "most", "days", "interval"),
    [(True, 30, 1, 300), (False, 30, 1, 300), (True, 2, 7, 60), (False, 2, 7, 60), (False, 12, 7, 60)],
)
def test_the_capacity_of_a_queue_is_found(is_pooled: bool, most: int, days: int, interval: int, seed: int) -> None:
    """Within 5 % where the replicas usually were, and the truth is in the interval."""
    history = a_history(is_pooled, most, seed, days, interval)

    found = a_capacity(history)

    usual = int(np.median(history.replicas))
    true = true_capacity(usual, is_pooled)
    assert found.carried[usual - 1] == pytest.approx(true, rel=0.05)
    assert found.low[usual - 1] <= true <= found.high[usual - 1]


@pytest.mark.parametrize("is_pooled", [True, False])
def test_whether_replicas_share_a_queue_is_told(is_pooled: bool) -> None:
    """In three days with one to six replicas; so what thirty carry is found within a tenth."""
    found = a_capacity(a_history(is_pooled, most_replicas=6, days=3))

    assert found.is_pooled == is_pooled
    assert found.carried[29] == pytest.approx(true_capacity(30, is_pooled), rel=0.1)


def test_more_replicas_never_carry_less() -> None:
    """Neither by the estimate nor by its bounds, which lie around it."""
    found = a_capacity(a_history(is_pooled=True, most_replicas=12))

    for curve in (found.carried, found.low, found.high):
        assert (np.diff(curve) >= 0).all()
    assert (found.low < found.carried).all()
    assert (found.carried < found.high).all()


def test_replicas_never_seen_are_less_certain() -> None:
    """The interval is relatively wider at 100 replicas than at 20, which were seen."""
    found = a_capacity(a_history(is_pooled=False, most_replicas=30), replicas=100)
    width = (found.high - found.low) / found.carried

    assert width[99] > width[19]


def test_the_same_dice_give_the_same_answer() -> None:
    """Chance comes in only by the generator."""
    history = a_history(is_pooled=False, most_replicas=8)

    assert np.array_equal(a_capacity(history).low, a_capacity(history).low)


@pytest.mark.parametrize("factor", [0.01, 1000.0])
def test_capacity_has_the_unit_of_load(factor: float) -> None:
    """Requests a thousand times as many in a thousandth of the time: a thousand times the capacity."""
    history = a_history(is_pooled=True, most_replicas=12)
    faster = replace(history, load=history.load * factor)
    scaled = learned_capacity(
        faster, threshold_seconds=THRESHOLD / factor, level=LEVEL, replicas=12, rng=np.random.default_rng(1)
    )

    assert isinstance(scaled, LearnedCapacity)
    assert scaled.carried / factor == pytest.approx(a_capacity(history, 12).carried, rel=1e-3)


def test_intervals_in_which_something_is_not_known_do_not_count() -> None:
    """Scrapes fail: NaN, no replicas, no requests."""
    history = a_history(is_pooled=False, most_replicas=8)
    assert history.requests is not None
    nothing = np.full(5, np.nan)
    gaps = LoadHistory(
        np.concatenate([history.replicas, np.zeros(5)]),
        np.concatenate([history.load, nothing]),
        np.concatenate([history.late_share, nothing]),
        np.concatenate([history.requests, np.zeros(5)]),
    )

    assert np.array_equal(a_capacity(gaps).carried, a_capacity(history).carried)


def test_a_percentile_alone_tells_it_less_well() -> None:
    """Where only whether the 99th percentile was late is known of an interval: within 15 %."""
    history = a_history(is_pooled=False, most_replicas=30, days=3)
    gauge = replace(history, late_share=(history.late_share > 1 - LEVEL).astype(np.float64), requests=None)

    found = learned(gauge, level=0.5)

    assert isinstance(found, LearnedCapacity)
    assert found.carried[19] == pytest.approx(true_capacity(20, is_pooled=False), rel=0.15)


def with_versions(older: LoadHistory, current: LoadHistory) -> LoadHistory:
    assert older.requests is not None and current.requests is not None
    return LoadHistory(
        np.concatenate([older.replicas, current.replicas]),
        np.concatenate([older.load, current.load]),
        np.concatenate([older.late_share, current.late_share]),
        np.concatenate([older.requests, current.requests]),
        np.repeat([False, True], [len(older.load), len(current.load)]),
    )


def test_a_new_version_starts_from_the_old_one_s_curve_less_certain() -> None:
    """Six intervals after a rollout: about the same capacity, in wider bounds."""
    history = a_history(is_pooled=False, most_replicas=30)
    is_current = np.arange(len(history.load)) >= len(history.load) - 6

    before, after = a_capacity(history), a_capacity(replace(history, is_current=is_current))

    assert after.carried[19] == pytest.approx(before.carried[19], rel=0.05)
    assert after.low[19] < before.low[19]
    assert after.high[19] > before.high[19]


def test_the_version_that_runs_outvotes_older_ones() -> None:
    """A version that carries half as much, seen for a day after a day of another: found within 10 %."""
    older, current = (a_history(is_pooled=False, most_replicas=30, seed=seed) for seed in (0, 1))
    half = replace(current, load=current.load / 2)

    found = a_capacity(with_versions(older, half))

    assert found.carried[19] == pytest.approx(true_capacity(20, is_pooled=False) / 2, rel=0.1)


def test_latency_that_never_nears_the_threshold_only_says_what_is_carried_at_least() -> None:
    """Every interval is fast: the load that was fine is told."""
    history = a_history(is_pooled=False, most_replicas=8)

    refusal = a_refusal(replace(history, late_share=np.zeros_like(history.load)))

    assert "fewer are late than may be" in refusal.reason
    assert refusal.at_least is not None
    assert refusal.at_least == pytest.approx(np.quantile(history.load / history.replicas, 0.98), rel=0.1)


def test_a_load_that_never_varies_says_nothing() -> None:
    """As where an autoscaler keeps it where it is."""
    history = a_history(is_pooled=False, most_replicas=8)

    assert "hardly varies" in a_refusal(replace(history, load=0.3 * history.replicas)).reason


@pytest.mark.parametrize("seed", range(5))
def test_latency_that_has_nothing_to_do_with_load_is_told(seed: int) -> None:
    """Late by chance, or for an hour now and then because of something else."""
    rng = np.random.default_rng(seed)
    history = a_history(is_pooled=False, most_replicas=8)
    by_chance = rng.beta(1, 150, len(history.load))
    hours = np.repeat(rng.uniform(size=len(history.load) // 12) < 0.1, 12)

    for late in (by_chance, np.where(hours, 0.1, 0.002)):
        assert isinstance(learned(replace(history, late_share=late)), Refusal)


def test_a_threshold_below_service_time_has_no_capacity() -> None:
    """All requests are late, whatever the load."""
    history = a_history(is_pooled=False, most_replicas=8)

    assert "even at the lowest load" in a_refusal(replace(history, late_share=np.ones_like(history.load))).reason


def test_an_hour_is_too_little() -> None:
    """Twelve intervals, and none at all."""
    history = a_history(is_pooled=False, most_replicas=8)
    none = np.empty(0)

    for length in (12, 0):
        first = LoadHistory(history.replicas[:length], history.load[:length], history.late_share[:length])
        assert "need" in a_refusal(first).reason
    assert "need" in a_refusal(LoadHistory(none, none, none, none)).reason


def test_input_that_cannot_be_is_refused_loudly() -> None:
    """A share of 3, fields of different lengths, no threshold, no replica, a level of 1."""
    ones = np.ones(3)
    rng = np.random.default_rng(0)

    with pytest.raises(ForecastError, match="between 0 and 1"):
        LoadHistory(ones, ones, 3 * ones)
    with pytest.raises(ForecastError, match="one value of each per interval"):
        LoadHistory(ones, ones, np.ones(4))
    for threshold, level, replicas in ((0.0, 0.9, 1), (1.0, 1.0, 1), (1.0, 0.9, 0)):
        with pytest.raises(ForecastError, match="a threshold above 0"):
            learned_capacity(
                LoadHistory(ones, ones, ones), threshold_seconds=threshold, level=level, replicas=replicas, rng=rng
            )
    with pytest.raises(ForecastError, match="must lie between 0 and 1"):
        learned_usage(ones, ones, allowed=0.0, rng=rng)


shares = arrays(np.float64, 20, elements=st.floats(0, 1))


@given(shares=shares, weights=arrays(np.float64, 20, elements=st.floats(0.1, 100)))
@settings(max_examples=50)
def test_the_rising_share_rises_and_keeps_the_mean(shares: FloatArray, weights: FloatArray) -> None:
    """However the shares fall; and it is where it says."""
    curve = RisingShare.of(np.arange(20.0), shares * weights, weights)

    assert (np.diff(curve.share) > 0).all()
    assert (np.diff(curve.load) > 0).all()
    middle = (curve.share[0] + curve.share[-1]) / 2
    assert curve.at(np.array([curve.reaches(middle)]))[0] == pytest.approx(middle)


def throttled(usage: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Throttling as of a container with a limit of one core: none below .6 cores, a tenth of the periods at .7."""
    return np.asarray(np.clip((usage - 0.6) + rng.normal(0, 0.02, len(usage)), 0, 1))


def test_usage_at_which_throttling_begins_is_found() -> None:
    """A tenth of the periods may be throttled: .7 cores."""
    rng = np.random.default_rng(0)
    usage = rng.uniform(0.2, 1.0, 500)

    found = learned_usage(usage, throttled(usage, rng), allowed=0.1, rng=rng)

    assert isinstance(found, LearnedUsage)
    assert found.usage == pytest.approx(0.7, rel=0.05)
    assert found.low <= found.usage <= found.high


@pytest.mark.parametrize("allowed", [0.01, 0.05])
@pytest.mark.parametrize("burstiness", [0.1, 0.3, 0.5])
def test_the_knee_of_containers_under_a_limit_is_found(burstiness: float, allowed: float) -> None:
    """A day of two to nine replicas: within 5 %, and the low end is below the truth by no more than that."""
    rng = np.random.default_rng(2)
    truth = true_knee(burstiness, allowed)
    usage, replicas = a_past(1, truth, rng)

    found = learned_usage(usage, counted(usage, replicas, burstiness, rng), allowed=allowed, rng=rng)

    assert isinstance(found, LearnedUsage)
    assert found.usage == pytest.approx(truth, rel=0.05)
    assert 0.95 * truth <= found.low <= truth


def test_usage_that_stays_below_the_knee_does_not_tell_where_it_is() -> None:
    """Throttled in a thousandth of the periods at most, where a hundredth may be: up to which usage is told."""
    rng = np.random.default_rng(3)
    usage = rng.uniform(0.1, true_knee(0.3, 0.001), 500)
    share = counted(usage, np.full(500, 4.0), 0.3, rng)

    found = learned_usage(usage, share, allowed=0.01, rng=rng)

    assert isinstance(found, Refusal)
    assert "fewer are throttled than may be" in found.reason
    assert found.at_least == pytest.approx(usage.max(), rel=0.05)


def test_throttling_that_usage_does_not_explain_is_refused() -> None:
    """A start, a collection of garbage: throttled now and then however little is used."""
    rng = np.random.default_rng(4)
    usage, share = rng.uniform(0.2, 0.9, 500), rng.beta(0.2, 30, 500)

    assert isinstance(learned_usage(usage, share, allowed=0.01, rng=rng), Refusal)


def test_without_throttling_usage_has_no_known_ceiling() -> None:
    """No limit, so never measured; or never throttled."""
    usage = np.random.default_rng(0).uniform(0.2, 1.0, 500)

    for share in (np.full(500, np.nan), np.zeros(500)):
        assert isinstance(learned_usage(usage, share, allowed=0.1, rng=np.random.default_rng(1)), Refusal)
