"""Foresize's requests on quantiles of the past instead of forecasts, and requests that never change.

The first shows what the rules of `decisions/requests.py` do on the same knowledge as the peers have: the quantiles of
an hour of the day are those of its usage within the past days, those of a day's peak are those of past days' peaks.
"""

from dataclasses import dataclass

import numpy as np

from autoscaler.cluster.reasons import Hold
from autoscaler.decisions.requests import (
    OutOfMemory,
    RequestRange,
    RequestRules,
    UsageFan,
    after_out_of_memory,
    capped,
    cpu_request,
    memory_request,
    with_floor,
)
from autoscaler.simulator.advised_requests import TOLERANCE
from autoscaler.simulator.outcome import SECONDS_PER_HOUR
from autoscaler.simulator.peers.history import past_of
from autoscaler.simulator.vertical import RequestRun, SizedWorkload, StepSeen
from models.forecast import SECONDS_PER_DAY, FloatArray
from predictor.usage.panel import Resource

HOURS_PER_DAY = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class ForesizeRequestPolicy:
    """The controller's rules for requests, on the past's quantiles; thought over every hour and after a kill."""

    past: FloatArray
    """Demand before the replay, [workloads, steps]; NaN is unknown."""
    level: float | None = None
    """Share of CPU time, and quantile level of memory's peak; None: the defaults of the rules."""
    tolerance: float = TOLERANCE
    """Relative distance from the target that is not worth a resize."""
    history_days: int = 14
    name: str = "foresize"

    def start(self, row: int, workload: SizedWorkload, step_seconds: int) -> RequestRun:
        """A fresh run, which knows the past."""
        return _ForesizeRequestRun(self, past_of(self.past, row, self.name), workload, step_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticRequestPolicy:
    """The past's quantile of usage, for ever; where nothing of the past is known, what there is."""

    past: FloatArray
    """Demand before the replay, [workloads, steps]; NaN is unknown."""
    level: float = 1.0
    """Quantile level; 1 is the peak."""
    name: str = "static_peak"

    def start(self, row: int, workload: SizedWorkload, step_seconds: int) -> RequestRun:  # noqa: ARG002 - every policy's
        """A fresh run."""
        past = past_of(self.past, row, self.name)
        known = past[~np.isnan(past)] / workload.replicas
        request = float(np.quantile(known, self.level)) if known.size else 0.0
        return _StaticRequestRun(request if request > 0 else workload.request_per_replica)


class _StaticRequestRun:
    def __init__(self, request: float) -> None:
        self._request = request

    def request(self, seen: StepSeen) -> float:  # noqa: ARG002 - every run's
        """The same at every step."""
        return self._request


class _ForesizeRequestRun:
    def __init__(
        self, policy: ForesizeRequestPolicy, past: FloatArray, workload: SizedWorkload, step_seconds: int
    ) -> None:
        self._policy = policy
        level = policy.level
        self._rules = RequestRules() if level is None else RequestRules(cpu_share=level, memory_level=level)
        self._resource = workload.resource
        self._step_seconds = step_seconds
        self._per_day = SECONDS_PER_DAY // step_seconds
        self._usage: list[float] = (past[-policy.history_days * self._per_day :] / workload.replicas).tolist()
        self._begin = -len(self._usage)
        """Step of the first of `usage`, counted from the replay's."""
        self._out_of_memory: OutOfMemory | None = None
        self._wanted: RequestRange | None = None
        self._next_seconds = 0.0

    def request(self, seen: StepSeen) -> float:
        """The target, where the request in force is a tolerance away from it or out of its bounds."""
        now = seen.now_seconds
        if now > 0:
            self._usage.append(seen.usage)
        if seen.is_killed:
            self._out_of_memory = OutOfMemory(now, after_out_of_memory(seen.request))
        if now >= self._next_seconds or seen.is_killed:
            self._next_seconds = now + SECONDS_PER_HOUR
            self._wanted = self._recommended(now)
        wanted = self._wanted
        if wanted is None:
            return seen.request
        is_near = abs(wanted.target - seen.request) <= self._policy.tolerance * seen.request
        return seen.request if is_near and wanted.lower <= seen.request <= wanted.upper else wanted.target

    def _recommended(self, now_seconds: float) -> RequestRange | None:
        kept = self._policy.history_days * self._per_day
        if len(self._usage) > kept:
            self._begin += len(self._usage) - kept
            self._usage = self._usage[-kept:]
        usage = np.asarray(self._usage)
        known = np.flatnonzero(~np.isnan(usage))
        if known.size == 0:
            return None
        days = (len(usage) - known[0]) / self._per_day
        rules, levels = self._rules, self._rules.levels
        if self._resource is Resource.CPU:
            fan = UsageFan(levels, _by_hour(usage, self._begin, self._step_seconds, levels))
            made = cpu_request(fan, fan, days, rules)
        else:
            last_day = usage[-self._per_day :]
            highest = float(np.max(last_day, initial=0.0, where=~np.isnan(last_day)))
            made = memory_request(UsageFan(levels, _of_peaks(usage, self._per_day, levels)), highest, days, rules)
        if isinstance(made, Hold):
            return None
        if self._out_of_memory is not None and self._out_of_memory.is_kept(now_seconds):
            made = with_floor(made, self._out_of_memory)
        return capped(made, self._resource, None, None)


def _by_hour(usage: FloatArray, begin: int, step_seconds: int, levels: tuple[float, ...]) -> FloatArray:
    """Quantiles of usage in each hour of a day, [levels, hours]; hours of which nothing is known are left out."""
    hours = (np.arange(begin, begin + len(usage)) * step_seconds // SECONDS_PER_HOUR) % HOURS_PER_DAY
    of_hours = [usage[(hours == hour) & ~np.isnan(usage)] for hour in range(HOURS_PER_DAY)]
    return np.stack([np.quantile(each, levels) for each in of_hours if each.size], axis=1)


def _of_peaks(usage: FloatArray, per_day: int, levels: tuple[float, ...]) -> FloatArray:
    """Quantiles of the peaks of past days, counted back from now, [levels, 1]; before a whole day, of what is known."""
    begin = len(usage) % per_day if len(usage) >= per_day else 0
    by_day = usage[begin:].reshape(-1, min(per_day, len(usage)))
    peaks = [day[~np.isnan(day)].max() for day in by_day if not np.isnan(day).all()]
    return np.asarray(np.quantile(peaks, levels))[:, None]
