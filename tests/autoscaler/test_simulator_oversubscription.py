"""Held-out days of a pool: decided from the past, judged by what was really used."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.cluster.pools import PoolHistory
from autoscaler.cluster.reasons import ReasonCode
from autoscaler.simulator.outcome import ReplayError
from autoscaler.simulator.oversubscription import OversubscriptionReplay, replay_oversubscription
from models.forecast import FloatArray
from predictor.usage.panel import Resource

STEPS = 4
"""Steps in a day."""


def a_pool(usage: FloatArray, *, limit: float = np.nan, request: float = 10.0) -> PoolHistory:
    """Tasks that request 10 cores each on a pool of 100."""
    return PoolHistory(
        pool="general",
        resource=Resource.CPU,
        usage=usage,
        limits=np.full(len(usage), limit),
        requests=np.full(len(usage), request),
        allocatable=100.0,
    )


def days(peaks: list[float]) -> FloatArray:
    """One task that peaks at these values in the second step of each day and idles at 1 otherwise."""
    usage = np.ones((len(peaks), STEPS))
    usage[:, 1] = peaks
    return usage.reshape(1, -1)


def replayed(pool: PoolHistory, held_out: int, level: float = 0.8) -> OversubscriptionReplay:
    return replay_oversubscription(pool, level=level, horizon_steps=STEPS, held_out=held_out, max_ratio=5.0)


def test_two_held_out_days_worked_by_hand() -> None:
    """8 days peak at 5 of 10 requested, so the ratio is 2; the ninth day fits, the tenth peaks at 9.

    On the tenth 1 of 4 steps is over the 5 that were allowed, by 4 of 9. Half was saved on both days; an oracle would
    have saved 0.5 and 0.1.
    """
    result = replayed(a_pool(days([5.0] * 9 + [9.0])), 2)

    assert [day.rate.ratio for day in result.days] == [2.0, 2.0]
    assert [day.violated_steps for day in result.days] == [0, 1]
    assert result.violated_day_share == 0.5
    assert result.violated_step_share == 1 / 8
    assert result.worst_severity == pytest.approx(4 / 9)
    assert result.mean_savings == 0.5
    assert result.mean_oracle_savings == pytest.approx((0.5 + 0.1) / 2)
    assert result.mean_ratio == 2.0
    assert result.total_usage.tolist() == [1, 5, 1, 1, 1, 9, 1, 1]


def test_a_day_is_decided_from_the_days_before_it_only() -> None:
    """Whatever happens on the held-out days does not move the first one's ratio; but the second learns from it."""
    calm = replayed(a_pool(days([5.0] * 10)), 2)
    wild = replayed(a_pool(days([5.0] * 8 + [9.0, 9.0])), 2)

    assert wild.days[0].rate == calm.days[0].rate
    assert replayed(a_pool(days([5.0] * 8 + [9.0, 9.0])), 2, level=0.9).days[1].rate.ratio < calm.days[1].rate.ratio


def test_without_evidence_nothing_is_oversold_and_nothing_violated() -> None:
    """3 days of history, and then usage far above the requests: that is not overselling's fault."""
    result = replayed(a_pool(days([5.0] * 3 + [50.0])), 1)

    (day,) = result.days
    assert day.rate.ratio == 1.0
    assert [r.code for r in day.rate.reasons] == [ReasonCode.NO_EVIDENCE]
    assert not day.is_oversold
    assert (day.violated_steps, day.severity, day.savings) == (0, 0.0, 0.0)


def test_tasks_that_ended_before_the_day_do_not_count() -> None:
    """Neither their usage nor their requests say anything about what runs now."""
    ended = days([8.0] * 10)
    ended[0, -3 * STEPS :] = np.nan
    usage = np.concatenate([days([5.0] * 10), ended])

    result = replayed(a_pool(usage), 1)

    assert result.days[0].rate.requested == 10.0
    assert result.days[0].rate.ratio == 2.0


def test_a_day_on_which_nothing_was_measured_is_not_judged() -> None:
    """An outage of the metrics store is no proof of good behaviour."""
    usage = days([5.0] * 11)
    usage[0, -STEPS:] = np.nan
    dark = usage.copy()
    dark[0, -2 * STEPS :] = np.nan

    assert len(replayed(a_pool(usage), 2).days) == 1
    with pytest.raises(ReplayError, match="nothing was measured"):
        replayed(a_pool(dark), 2)


@settings(max_examples=60)
@given(
    usage=st.lists(st.lists(st.floats(0, 12), min_size=12 * STEPS, max_size=12 * STEPS), min_size=1, max_size=3).map(
        np.array
    ),
    level=st.sampled_from([0.5, 0.8, 0.99]),
    limit=st.sampled_from([np.nan, 8.0]),
)
def test_a_day_without_violation_saves_no_more_than_the_oracle(usage: FloatArray, level: float, limit: float) -> None:
    """And a violated one was oversold and has a severity."""
    for day in replayed(a_pool(usage, limit=limit), 4, level).days:
        if day.violated_steps == 0:
            assert day.savings <= day.oracle_savings + 1e-9
            assert day.severity == 0
        else:
            assert day.is_oversold
            assert 0 < day.severity <= 1


def test_a_history_too_short_to_hold_out_is_refused() -> None:
    """With what is there and what is needed."""
    with pytest.raises(ReplayError, match=r"usage is \(1, 12\).*5 × 4 steps"):
        replayed(a_pool(days([5.0] * 3)), 5)
