"""Google's Autopilot, vertically: its moving-window recommenders.

Source: Rzadca et al., "Autopilot: workload autoscaling at Google", EuroSys 2020. Usage of 5 minutes goes into a
histogram of about 400 buckets in which samples fade with a half-life of 12 hours for CPU and 48 for memory; a
percentile of it is load-adjusted: that share of all usage lies at or under it. A margin is added, and the highest
recommendation of the last hour holds. The paper gives 10 to 15 % as margin, the less the larger a limit is, and no
length of the window of the maximum; here both are fixed. A step is one sample however many replicas there are, as they
are alike.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from math import isnan

from autoscaler.decisions.requests import after_out_of_memory
from autoscaler.simulator.outcome import SECONDS_PER_HOUR
from autoscaler.simulator.peers.histogram import DecayingSamples
from autoscaler.simulator.peers.history import past_of
from autoscaler.simulator.peers.vpa import BUCKETS
from autoscaler.simulator.vertical import RequestRun, SizedWorkload, StepSeen
from models.forecast import SECONDS_PER_DAY, FloatArray
from predictor.usage.panel import Resource

RATIO = 1.02
"""Makes 388 buckets of the VerticalPodAutoscaler's range."""
HALF_LIFE_SECONDS = {Resource.CPU: 12.0 * SECONDS_PER_HOUR, Resource.MEMORY: 48.0 * SECONDS_PER_HOUR}
AGGREGATED_SECONDS = 300


class Statistic(StrEnum):
    """What of the window is recommended, before the margin."""

    MEAN = "mean"
    """CPU of batch jobs."""
    P90 = "p90"
    P95 = "p95"
    """CPU of serving jobs, by how latency matters to them."""
    P98 = "p98"
    """Memory where kills are hardly tolerated."""
    MAXIMUM = "maximum"
    """Memory where they are not."""
    P60_OR_HALF_MAXIMUM = "p60 or half the maximum"
    """Memory in between."""


LEVELS = {Statistic.P90: 0.90, Statistic.P95: 0.95, Statistic.P98: 0.98, Statistic.P60_OR_HALF_MAXIMUM: 0.60}


@dataclass(frozen=True, slots=True, kw_only=True)
class AutopilotRequestPolicy:
    """A moving window over usage."""

    past: FloatArray
    """Demand before the replay, [workloads, steps]; NaN is unknown."""
    statistic: Statistic | None = None
    """None: the load-adjusted 0.95 percentile of CPU and 0.98 of memory."""
    margin: float = 0.15
    window_seconds: int = 7 * SECONDS_PER_DAY
    """Of the maximum, and of how much of the past is read at the start."""
    name: str = "autopilot"

    def start(self, row: int, workload: SizedWorkload, step_seconds: int) -> RequestRun:
        """A fresh run, which has read the past."""
        return _AutopilotRun(self, past_of(self.past, row, self.name), workload, step_seconds)


class _AutopilotRun:
    def __init__(
        self, policy: AutopilotRequestPolicy, past: FloatArray, workload: SizedWorkload, step_seconds: int
    ) -> None:
        self._margin = policy.margin
        is_memory = workload.resource is Resource.MEMORY
        self._statistic = policy.statistic or (Statistic.P98 if is_memory else Statistic.P95)
        # Memory counts by its peak within the 5 minutes, CPU by its mean.
        self._is_memory = is_memory
        self._least = BUCKETS[workload.resource][0]
        """The end of the first bucket: what never uses anything is still given something."""
        self._samples = DecayingSamples(*BUCKETS[workload.resource], RATIO, HALF_LIFE_SECONDS[workload.resource])
        self._steps = max(1, AGGREGATED_SECONDS // step_seconds)
        self._pending: list[float] = []
        self._sample_seconds = float(self._steps * step_seconds)
        self._window: deque[tuple[float, float]] = deque()
        """(time in seconds, usage), usage falling: the first is the window's maximum."""
        self._window_seconds = policy.window_seconds
        self._recommended: deque[float] = deque(maxlen=max(1, int(SECONDS_PER_HOUR / self._sample_seconds)))
        self._step_seconds = float(step_seconds)
        usage = past[-(policy.window_seconds // step_seconds) :] / workload.replicas
        for age, each in zip(range(len(usage), 0, -1), usage.tolist(), strict=True):
            self._see(each, -age * self._step_seconds)

    def request(self, seen: StepSeen) -> float:
        """The highest recommendation of the last hour; where nothing is known yet, the request in force.

        A kill counts as usage of a fifth more than there was, or 100 MiB.
        """
        usage = after_out_of_memory(seen.request) if seen.is_killed else seen.usage
        self._see(usage, seen.now_seconds - self._step_seconds, is_urgent=seen.is_killed)
        return max(self._recommended) if self._recommended else seen.request

    def _see(self, usage: float, at_seconds: float, *, is_urgent: bool = False) -> None:
        self._pending.append(usage)
        if len(self._pending) < self._steps and not is_urgent:
            return
        known = [each for each in self._pending if not isnan(each)]
        self._pending.clear()
        if not known:
            return
        sample = max(known) if self._is_memory else sum(known) / len(known)
        self._samples.add(sample, 1.0, at_seconds)
        while self._window and self._window[-1][1] <= sample:
            self._window.pop()
        self._window.append((at_seconds, sample))
        while self._window[0][0] <= at_seconds - self._window_seconds:
            self._window.popleft()
        self._recommended.append(max(self._recommendation(), self._least) * (1.0 + self._margin))

    def _recommendation(self) -> float:
        statistic, maximum = self._statistic, self._window[0][1]
        if statistic is Statistic.MAXIMUM:
            return maximum
        if statistic is Statistic.MEAN:
            return self._samples.mean()
        percentile = self._samples.load_percentile(LEVELS[statistic])
        return max(percentile, maximum / 2) if statistic is Statistic.P60_OR_HALF_MAXIMUM else percentile
