"""AWS EC2 Auto Scaling: predictive scaling beside target tracking.

Source: the AWS documentation of both. The forecast is made from up to 14 days, once 24 hours are known, for each of
the next 48 hours, and anew every 6 hours; a group is scaled out to it a buffer ahead of its hour and is never scaled in
by it. **How AWS forecasts is not published**: here an hour's demand is the mean of the same hour of the week or, before
that is known, of the same hour of other days. Hours are counted from the start of the replay.

Target tracking is two alarms on mean CPU by the minute: above the target for 3 minutes, and below 90 % of it for 15.
Its steps are not published either; here replicas are set so that what all of them serve is at the target, those that
still start are counted as if they ran already, and nothing is scaled in while some do or within a cooldown of another
scale-in.
"""

from dataclasses import dataclass
from math import inf, isnan

import numpy as np

from autoscaler.cluster.capacity import Capacity
from autoscaler.simulator.outcome import SECONDS_PER_HOUR, ReplayError, ReplaySettings, ReplayWorkload
from autoscaler.simulator.peers.history import StepHistory, past_of
from autoscaler.simulator.peers.reactive import amount_per_replica, target_of, within_bounds
from autoscaler.simulator.policies import Run, Tick
from models.forecast import FloatArray

HOURS_PER_DAY, HOURS_PER_WEEK = 24, 168
HOURS_KNOWN_AT_LEAST, HOURS_USED_AT_MOST, HOURS_AHEAD = 24, 14 * 24, 48
REFRESHED_AFTER_HOURS = 6
ALARM_PERIOD_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsPredictivePolicy:
    """Forecast and scale, with target tracking as what reacts."""

    past: FloatArray
    """Demand before the replay, [workloads, steps]; NaN is unknown."""
    target_utilisation: float | None = None
    """None: the workload's own target."""
    buffer_seconds: float = 300.0
    """How far ahead of its hour the forecast's capacity is launched (`SchedulingBufferTime`)."""
    high_alarm_periods: int = 3
    """Minutes above the target after which replicas are added."""
    low_alarm_periods: int = 15
    """Minutes below the lower threshold after which replicas are removed."""
    low_alarm_share: float = 0.9
    """The lower threshold, as a share of the target."""
    scale_in_cooldown_seconds: float = 300.0
    name: str = "aws_predictive"

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> Run:
        """A fresh run. Raises ReplayError where steps do not divide an hour."""
        if SECONDS_PER_HOUR % settings.step_seconds:
            raise ReplayError(f"{self.name}: it forecasts by the hour, which steps of {settings.step_seconds} s split")
        return _AwsRun(self, past_of(self.past, row, self.name), workload, settings)


def hourly_means(values: FloatArray, steps_per_hour: int) -> FloatArray:
    """Mean demand of each whole hour; NaN where nothing of it is known."""
    hours = len(values) // steps_per_hour
    by_hour = values[: hours * steps_per_hour].reshape(hours, steps_per_hour)
    return _known_mean(by_hour, axis=1)


def hourly_forecast(hours: FloatArray) -> FloatArray | None:
    """Mean demand of each of the 48 hours after these, NaN where unknown; None while fewer than 24 are known."""
    recent = hours[-HOURS_USED_AT_MOST:]
    if np.count_nonzero(~np.isnan(recent)) < HOURS_KNOWN_AT_LEAST:
        return None
    forecast = _same_hour_mean(recent, HOURS_PER_WEEK)
    return np.where(np.isnan(forecast), _same_hour_mean(recent, HOURS_PER_DAY), forecast)


def _same_hour_mean(hours: FloatArray, season: int) -> FloatArray:
    """For each hour ahead, the mean of those that lie whole seasons before it."""
    padded = np.concatenate((np.full(-len(hours) % season, np.nan), hours)).reshape(-1, season)
    return np.resize(_known_mean(padded, axis=0), HOURS_AHEAD)


def _known_mean(values: FloatArray, *, axis: int) -> FloatArray:
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.sum(values, axis=axis, where=known)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


class _AwsRun:
    def __init__(
        self, policy: AwsPredictivePolicy, past: FloatArray, workload: ReplayWorkload, settings: ReplaySettings
    ) -> None:
        self._policy = policy
        self._workload = workload
        self._steps_per_hour = SECONDS_PER_HOUR // settings.step_seconds
        # Hours begin with the replay, so that its past ends with a whole one.
        self._history = StepHistory(past[len(past) % self._steps_per_hour :], settings)
        self._capacity = Capacity(amount_per_replica(workload, policy.target_utilisation))
        self._forecast_from_hour = 0
        self._floors: tuple[int, ...] = ()
        self._refresh_at_hour = 0
        self._alarms = _TargetTracking(policy, workload)

    def replicas(self, tick: Tick) -> int:
        """What target tracking sets, and at least what is forecast for this hour and, a buffer ahead, for the next."""
        self._history.see(tick)
        if tick.now_seconds >= self._refresh_at_hour * SECONDS_PER_HOUR:
            self._refresh(int(tick.now_seconds) // SECONDS_PER_HOUR)
        floor = max(self._floor(tick.now_seconds), self._floor(tick.now_seconds + self._policy.buffer_seconds))
        return within_bounds(max(self._alarms.replicas(tick, floor), floor), self._workload)

    def _refresh(self, hour: int) -> None:
        self._refresh_at_hour = hour + REFRESHED_AFTER_HOURS
        hours = hourly_means(self._history.values, self._steps_per_hour)
        forecast = hourly_forecast(hours)
        if forecast is None:
            return
        self._forecast_from_hour = len(hours) - self._history.past_steps // self._steps_per_hour
        self._floors = tuple(0 if isnan(each) else self._capacity.replicas_for(each) for each in forecast.tolist())

    def _floor(self, at_seconds: float) -> int:
        ahead = int(at_seconds) // SECONDS_PER_HOUR - self._forecast_from_hour
        return self._floors[ahead] if 0 <= ahead < len(self._floors) else 0


class _TargetTracking:
    def __init__(self, policy: AwsPredictivePolicy, workload: ReplayWorkload) -> None:
        self._policy = policy
        self._request = workload.request_per_replica
        self._target = target_of(workload, policy.target_utilisation)
        self._capacity = Capacity(amount_per_replica(workload, policy.target_utilisation))
        self._next_period_seconds = 0.0
        self._above = self._below = 0
        self._scaled_in_at_seconds = -inf

    def replicas(self, tick: Tick, floor: int) -> int:
        """What the alarms ask for now; a minute in which nothing was measured leaves them as they are."""
        current, now = tick.replicas, tick.now_seconds
        if now < self._next_period_seconds or isnan(tick.usage_per_pod):
            return current
        self._next_period_seconds = now + ALARM_PERIOD_SECONDS
        policy, target = self._policy, self._target
        utilisation = tick.usage_per_pod / self._request
        self._above = self._above + 1 if utilisation > target else 0
        self._below = self._below + 1 if utilisation < policy.low_alarm_share * target else 0
        needed = self._capacity.replicas_for(tick.usage)
        if self._above >= policy.high_alarm_periods:
            return max(current, needed)
        cooled = now - self._scaled_in_at_seconds >= policy.scale_in_cooldown_seconds
        settled = tick.ready == current
        if self._below >= policy.low_alarm_periods and settled and cooled and max(needed, floor) < current:
            self._scaled_in_at_seconds = now
            return needed
        return current
