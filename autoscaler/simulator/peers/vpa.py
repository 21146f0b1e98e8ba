"""The VerticalPodAutoscaler: percentiles of a decaying histogram, bounds that narrow with history, and its updater.

Source: kubernetes/autoscaler vertical-pod-autoscaler 1.7, recommender and updater. Every container gives a CPU sample a
minute and one memory peak a day. Pods of a workload are taken as alike and as of one age: they are all resized at once,
where the updater evicts half of them at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isnan
from types import MappingProxyType
from typing import NamedTuple

from autoscaler.decisions.requests import after_out_of_memory
from autoscaler.simulator.peers.histogram import DecayingSamples
from autoscaler.simulator.peers.history import past_of
from autoscaler.simulator.vertical import RequestRun, SizedWorkload, StepSeen
from models.forecast import SECONDS_PER_DAY, FloatArray
from predictor.usage.panel import Resource

HISTORY_SECONDS = 8 * SECONDS_PER_DAY
"""How far back samples are read at the start."""
HALF_LIFE_SECONDS = float(SECONDS_PER_DAY)
RATIO = 1.05
CPU_SAMPLE_SECONDS, SAMPLES_PER_DAY = 60.0, 1440.0
LOWER_LEVEL, UPPER_LEVEL = 0.5, 0.95
OLD_POD_SECONDS = 12 * 3600.0
QUICK_KILL_SECONDS = 600.0
LEAST_CHANGE = 0.1


class Buckets(NamedTuple):
    """The first bucket's width, and where the last one starts at the latest."""

    first: float
    largest: float


BUCKETS: Mapping[Resource, Buckets] = MappingProxyType(
    {Resource.CPU: Buckets(0.01, 1000.0), Resource.MEMORY: Buckets(1e7, 1e12)}
)
LEAST: Mapping[Resource, float] = MappingProxyType({Resource.CPU: 0.025, Resource.MEMORY: 250.0 * 2**20})
"""Least recommendation for a pod of one container, in cores and bytes."""


class VpaRange(NamedTuple):
    """What the recommender says: within the bounds a request is left alone while its pod is young."""

    lower: float
    target: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VpaPolicy:
    """Recommender and updater, at their defaults."""

    past: FloatArray
    """Demand before the replay, [workloads, steps]; NaN is unknown."""
    level: float = 0.9
    """Percentile of the target (`target-cpu-percentile`, `target-memory-percentile`)."""
    margin: float = 0.15
    """Added to every percentile (`recommendation-margin-fraction`)."""
    least_replicas: int = 2
    """Workloads with fewer are never resized (`min-replicas`)."""
    name: str = "vpa"

    def start(self, row: int, workload: SizedWorkload, step_seconds: int) -> RequestRun:
        """A fresh run, which has read the past."""
        return _VpaRun(self, past_of(self.past, row, self.name), workload, step_seconds)


def confidence(lifespan_seconds: float, samples: float) -> float:
    """Days of history, by the clock or by samples of a minute, whichever are fewer."""
    return min(lifespan_seconds / SECONDS_PER_DAY, samples / SAMPLES_PER_DAY)


def vpa_range(percentiles: VpaRange, days: float, margin: float, least: float) -> VpaRange:
    """The recommendation from the percentiles of lower bound, target and upper bound, and `confidence` above 0."""
    lower, target, upper = (each * (1.0 + margin) for each in percentiles)
    return VpaRange(
        max(lower * (1.0 + 0.001 / days) ** -2.0, least), max(target, least), max(upper * (1.0 + 1.0 / days), least)
    )


def is_due(request: float, wanted: VpaRange, *, pod_age_seconds: float, killed_after_seconds: float | None) -> bool:
    """Whether the updater acts: out of bounds, killed soon after a start, or an old pod a tenth or more away."""
    if not wanted.lower <= request <= wanted.upper:
        return True
    change = abs(request - wanted.target) / request
    if killed_after_seconds is not None and killed_after_seconds < QUICK_KILL_SECONDS:
        return change > 0
    return pod_age_seconds >= OLD_POD_SECONDS and change >= LEAST_CHANGE


class _VpaRun:
    def __init__(self, policy: VpaPolicy, past: FloatArray, workload: SizedWorkload, step_seconds: int) -> None:
        self._policy = policy
        self._workload = workload
        self._step_seconds = float(step_seconds)
        self._is_memory = workload.resource is Resource.MEMORY
        self._least = LEAST[workload.resource]
        self._samples = DecayingSamples(*BUCKETS[workload.resource], RATIO, HALF_LIFE_SECONDS)
        self._first_seconds = self._last_seconds = 0.0
        self._count = 0.0
        self._peak = 0.0
        self._window_ends_seconds = -inf
        self._resized_at_seconds = self._begun_at_seconds = 0.0
        usage = past[-(HISTORY_SECONDS // step_seconds) :] / workload.replicas
        for age, each in zip(range(len(usage), 0, -1), usage.tolist(), strict=True):
            self._add(each, -age * self._step_seconds)

    def request(self, seen: StepSeen) -> float:
        """The request in force, or the target where the updater acts."""
        now = seen.now_seconds
        killed_after: float | None = None
        self._add(seen.usage, now - self._step_seconds)
        if seen.is_killed:
            killed_after = now - self._begun_at_seconds
            self._begun_at_seconds = now
            self._add_peak(after_out_of_memory(max(seen.request, self._peak)), now - self._step_seconds)
        wanted = self._range()
        if wanted is None or self._workload.replicas < self._policy.least_replicas:
            return seen.request
        age = now - self._resized_at_seconds
        if not is_due(seen.request, wanted, pod_age_seconds=age, killed_after_seconds=killed_after):
            return seen.request
        self._resized_at_seconds = self._begun_at_seconds = now
        return wanted.target

    def _add(self, usage: float, at_seconds: float) -> None:
        if isnan(usage):
            return
        if self._count == 0:
            self._first_seconds = at_seconds
        # A step stands for the samples of all replicas that a minute of it would have given.
        self._count += self._workload.replicas * self._step_seconds / CPU_SAMPLE_SECONDS
        self._last_seconds = at_seconds
        if self._is_memory:
            self._add_peak(usage, at_seconds)
        else:
            self._samples.add(usage, 1.0, at_seconds)

    def _add_peak(self, usage: float, at_seconds: float) -> None:
        """One sample a day: the highest so far, dated at the end of the day that began with the first one."""
        if at_seconds >= self._window_ends_seconds:
            begun = at_seconds if self._window_ends_seconds == -inf else self._window_ends_seconds
            days = (at_seconds - begun) // SECONDS_PER_DAY + 1
            self._window_ends_seconds = begun + days * SECONDS_PER_DAY
        elif usage > self._peak:
            self._samples.add(self._peak, -1.0, self._window_ends_seconds)
        else:
            return
        self._peak = usage
        self._samples.add(usage, 1.0, self._window_ends_seconds)

    def _range(self) -> VpaRange | None:
        days = confidence(self._last_seconds - self._first_seconds, self._count)
        if days <= 0:
            return None
        levels = (LOWER_LEVEL, self._policy.level, UPPER_LEVEL)
        percentiles = VpaRange(*(self._samples.percentile(level) for level in levels))
        return vpa_range(percentiles, days, self._policy.margin, self._least)
