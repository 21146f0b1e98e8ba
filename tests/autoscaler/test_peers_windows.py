"""Peers that look at the past: AWS by the hour, Autopilot by its window, a season ago, and those that never change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.simulator.outcome import ReplayError, ReplaySettings, WorkloadOutcome
from autoscaler.simulator.peers.autopilot import AutopilotPolicy
from autoscaler.simulator.peers.aws import AwsPredictivePolicy, hourly_forecast, hourly_means
from autoscaler.simulator.peers.fixed import FixedPolicy
from autoscaler.simulator.peers.history import StepHistory
from autoscaler.simulator.peers.seasonal import SeasonalNaivePolicy
from autoscaler.simulator.policies import Policy, Tick
from autoscaler.simulator.replay import replay
from models.forecast import FloatArray
from tests.support.clusters import a_replay_workload, minute_settings

TEN_MINUTES = ReplaySettings(step_seconds=600, tick_seconds=60, pod_ready_seconds=60, metric_delay_seconds=0)
PER_HOUR, PER_DAY = 6, 144
NO_PAST = np.empty((1, 0))


def run(
    policy: Policy, demand: FloatArray, settings: ReplaySettings = TEN_MINUTES, first: int | None = None
) -> WorkloadOutcome:
    return replay(demand[None, :], [a_replay_workload(initial_replicas=first)], [policy], settings).outcomes[0]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12), st.sampled_from([0, 30, 45]))
def test_a_peer_sees_each_step_as_it_was_however_late(demand: list[float], delay: int) -> None:
    """Windows of 30 s in steps of 60 s: the mean of those within a step is its demand."""
    settings = ReplaySettings(step_seconds=60, tick_seconds=15, metric_window_seconds=30, metric_delay_seconds=delay)
    history = StepHistory(np.array([7.0]), settings)

    class Watching:
        def replicas(self, tick: Tick) -> int:
            history.see(tick)
            return tick.replicas

    class Watcher:
        name = "watcher"

        def start(self, *_: object) -> Watching:
            return Watching()

    replay(np.array([demand]), [a_replay_workload()], [Watcher()], settings)

    # The last step is over only after the last tick.
    assert history.values == pytest.approx([7.0, *demand[:-1]])


def test_hours_are_means_of_what_is_known_of_them() -> None:
    """Two steps an hour; an hour of which nothing is known is unknown."""
    means = hourly_means(np.array([1.0, 3.0, np.nan, 4.0, np.nan, np.nan, 9.0]), 2)

    assert means[:2].tolist() == [2.0, 4.0]
    assert np.isnan(means[2])
    assert len(means) == 3


def test_aws_forecasts_from_24_hours_on() -> None:
    """A day of hours 0 to 23 forecasts two of them; 23 hours forecast nothing."""
    forecast = hourly_forecast(np.arange(24.0))

    assert forecast is not None
    assert forecast.tolist() == [*range(24), *range(24)]
    assert hourly_forecast(np.arange(23.0)) is None


def test_the_same_hour_of_the_week_goes_before_that_of_the_day() -> None:
    """Nine days of 1, 2, … 9: the next two days are as a week before, 3 and 4. Of 14 days, the mean of both."""
    forecast = hourly_forecast(np.repeat(np.arange(1.0, 10.0), 24))
    assert forecast is not None
    assert forecast.tolist() == [3.0] * 24 + [4.0] * 24

    fortnight = hourly_forecast(np.repeat(np.arange(1.0, 15.0), 24))
    assert fortnight is not None
    assert fortnight.tolist() == [4.5] * 24 + [5.5] * 24


def test_aws_launches_the_buffer_ahead_of_the_hour() -> None:
    """Yesterday 1 core but 4 in the tenth hour: from 5 minutes before it until its end there are 8 replicas."""
    day = np.ones(PER_DAY)
    day[10 * PER_HOUR : 11 * PER_HOUR] = 4.0
    series = run(AwsPredictivePolicy(past=day[None, :]), day).series

    assert series.replicas_mean[: 10 * PER_HOUR - 1].tolist() == [2.0] * (10 * PER_HOUR - 1)
    assert series.replicas_mean[10 * PER_HOUR - 1] == 5.0
    assert series.replicas_mean[10 * PER_HOUR : 11 * PER_HOUR].tolist() == [8.0] * PER_HOUR


def test_a_forecast_of_little_removes_nothing() -> None:
    """Yesterday's 1 core needs 2; today 2 cores come, at 50 % of 4 replicas: they stay."""
    series = run(AwsPredictivePolicy(past=np.ones((1, PER_DAY))), np.full(PER_HOUR, 2.0)).series

    assert series.replicas_mean.tolist() == [4.0] * PER_HOUR


def test_target_tracking_waits_for_its_alarms() -> None:
    """Minutes, half a core each: 1 core, then 2 from minute 2, then 1 from minute 10.

    It is seen a minute later: minutes 3, 4 and 5 are above the target, so at 5 there are 4. Below 90 % of it are
    minutes 11 to 25, so at 25 there are 2 again.
    """
    demand = np.array([1.0] * 2 + [2.0] * 8 + [1.0] * 20)
    series = run(AwsPredictivePolicy(past=NO_PAST), demand, minute_settings()).series

    assert series.replicas_mean.tolist() == [2.0] * 5 + [4.0] * 20 + [2.0] * 5


def test_aws_needs_steps_that_divide_an_hour() -> None:
    """Its forecast is hourly."""
    settings = ReplaySettings(step_seconds=2400, tick_seconds=60)

    with pytest.raises(ReplayError, match="by the hour"):
        AwsPredictivePolicy(past=np.ones((1, 9))).start(0, a_replay_workload(), settings)


def test_autopilot_keeps_replicas_for_the_peak_of_its_window_and_the_deferral_then_halves_them() -> None:
    """Half a core each; a window of 20 minutes, a deferral of 20, a half-life of 10.

    4 cores in the past need 8. The last step of 4 leaves the window after 20 minutes, its recommendations the deferral
    after 20 more; then 8 becomes 4 within 10 minutes, and 2 within 20.
    """
    policy = AutopilotPolicy(
        past=np.full((1, 6), 4.0),
        window_seconds=1200,
        deferral_seconds=1200,
        halving_seconds=600,
        refresh_seconds=600,
    )
    series = run(policy, np.ones(12), first=8).series

    assert series.replicas_mean[:4].tolist() == [8.0] * 4
    falling = series.replicas_mean[4:]
    assert (np.diff(falling) <= 0).all()
    assert 4 <= falling[0] < 8
    assert falling[-1] == 2


def test_autopilot_grows_at_once_for_a_new_peak() -> None:
    """The step of 4 cores is over at minute 20, and then there are 8 replicas."""
    policy = AutopilotPolicy(past=np.ones((1, 6)))
    series = run(policy, np.array([1.0, 4.0, 4.0, 4.0])).series

    assert series.replicas_mean.tolist() == [2, 2, 8, 8]


def test_autopilots_percentile_ignores_rare_peaks() -> None:
    """One step of 8 cores among a hundred of 2: its 0.95 quantile is 2 cores, so 4 replicas."""
    past = np.full((1, 100), 2.0)
    past[0, 50] = 8.0

    assert run(AutopilotPolicy(past=past), np.full(6, 2.0)).series.replicas_mean[-1] == 16
    assert run(AutopilotPolicy(past=past, level=0.95), np.full(6, 2.0)).series.replicas_mean[-1] == 4


def test_autopilot_leaves_small_changes_and_limits_what_initialises() -> None:
    """11 wanted of 10 are left for a least change of a fifth; half as many more at most may start at once."""
    small = AutopilotPolicy(past=np.full((1, 6), 5.5), least_change=0.2)
    assert run(small, np.full(3, 5.0), first=10).series.replicas_mean.tolist() == [10] * 3

    limited = AutopilotPolicy(past=np.full((1, 6), 4.0), initialising_share=0.5)
    start = limited.start(0, a_replay_workload(), TEN_MINUTES)
    assert start.replicas(Tick(replicas=4, ready=4, offered=2.0)) == 6


def test_the_season_is_scaled_for_before_it_comes_again() -> None:
    """Yesterday rose from 1 to 4 cores: within the step before that, replicas for 4 and a tenth are made Ready."""
    day = np.repeat([1.0, 4.0], PER_DAY // 2)
    series = run(SeasonalNaivePolicy(past=day[None, :]), day).series

    assert series.replicas_mean[PER_DAY // 2 - 2] == 2
    assert series.ready_max[PER_DAY // 2 - 1] == series.ready_min[PER_DAY // 2] == 9


def test_without_a_season_ago_the_reactive_floor_serves() -> None:
    """No past at all: the HPA."""
    series = run(SeasonalNaivePolicy(past=NO_PAST), np.full(6, 4.0), first=2).series

    assert series.replicas_mean[-1] == 8


def test_fixed_replicas_carry_the_pasts_peak_or_nearly_all_of_it() -> None:
    """99 steps of 2 cores and one of 8, at half a core each: 16 for the peak, 4 for the 0.95 quantile."""
    past = np.full((1, 100), 2.0)
    past[0, 7] = 8.0

    assert run(FixedPolicy(past=past), np.full(3, 1.0)).series.replicas_mean.tolist() == [16] * 3
    assert run(FixedPolicy(past=past, level=0.95), np.full(3, 9.0)).series.replicas_mean.tolist() == [4] * 3
