"""PHPA: the HPA's recommendations, extrapolated."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.simulator.outcome import ReplaySettings
from autoscaler.simulator.peers.phpa import PhpaHoltWintersPolicy, PhpaLinearPolicy, holt_winters, line_at
from autoscaler.simulator.replay import replay
from models.forecast import FloatArray
from tests.support.clusters import a_replay_workload, minute_settings

HALF_HOURS = ReplaySettings(step_seconds=1800, tick_seconds=60, pod_ready_seconds=60)


def holt_winters_policy(past: FloatArray) -> PhpaHoltWintersPolicy:
    """A model fitted every hour of 60 ticks."""
    return PhpaHoltWintersPolicy(past=past, per_sync_period=60)


def test_a_line_through_two_recommendations_goes_on_as_it_went() -> None:
    """2 replicas at 0 s, 4 at 60 s: 6 at 120 s; a single one stays what it is."""
    assert line_at(deque([(0.0, 2), (60.0, 4)]), 120.0) == pytest.approx(6.0)
    assert line_at(deque([(0.0, 3)]), 999.0) == 3.0


@given(st.lists(st.integers(1, 100), min_size=2, max_size=8), st.floats(0, 600))
def test_the_line_is_that_of_least_squares(replicas: list[int], ahead: float) -> None:
    """NumPy fits the same one."""
    times = 15.0 * np.arange(len(replicas))
    history = deque(zip(times.tolist(), replicas, strict=True))
    expected = np.polyval(np.polyfit(times, replicas, 1), times[-1] + ahead)

    assert line_at(history, times[-1] + ahead) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_rise_is_carried_on_for_the_lead_time() -> None:
    """Worked by hand at half a core each, kept at every sync, a minute ahead, in the HPA's words.

    minutes 0 to 2: 2 replicas.   minute 3: both full, so 4; the line through 2, 2, 2, 4 is 4.0 a minute later: 4.
    minute 4: 2 old ones full, 2 young ones count as idle: 4; the line through 2, 2, 2, 4, 4 is 4.6: 5.
    """
    result = replay(
        np.array([[1.0, 1.0, 2.0, 2.0, 2.0]]),
        [a_replay_workload()],
        [PhpaLinearPolicy(per_sync_period=1)],
        minute_settings(),
    )

    assert result.outcomes[0].series.replicas_mean.tolist() == [2, 2, 2, 4, 5]


def test_holt_winters_forecasts_a_season_that_repeats_exactly() -> None:
    """Days of 2 replicas by night and 8 by day: an hour before the morning it says 8."""
    day = [2.0] * 12 + [8.0] * 12
    series = np.array(day * 3 + day[:12])

    assert holt_winters(series, holt_winters_policy(np.empty((1, 0)))) == pytest.approx(8.0, abs=1e-6)


def test_holt_winters_has_no_answer_before_two_seasons() -> None:
    """47 hours of days; and 15 values of a season of 6 are one short of what its beginning needs."""
    policy = holt_winters_policy(np.empty((1, 0)))

    assert holt_winters(np.ones(47), policy) is None
    assert holt_winters(np.ones(48), policy) == pytest.approx(1.0)
    short = PhpaHoltWintersPolicy(past=np.empty((1, 0)), season_length=6)
    assert holt_winters(np.ones(15), short) is None
    assert holt_winters(np.ones(16), short) == pytest.approx(1.0)


def test_with_a_past_of_days_the_morning_is_scaled_for_an_hour_early() -> None:
    """Nights of 1 core, days of 4, at half a core each: 8 replicas from 11 o'clock on, where the HPA waits until 12."""
    day = np.array([1.0] * 24 + [4.0] * 24)
    policy = holt_winters_policy(np.tile(day, 4)[None, :])
    series = replay(day[None, :], [a_replay_workload()], [policy], HALF_HOURS).outcomes[0].series

    assert series.replicas_mean[:21].tolist() == [2.0] * 21
    assert series.ready_mean[23] == 8
    assert series.ready_min[24] == 8
