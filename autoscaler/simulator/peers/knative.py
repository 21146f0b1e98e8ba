"""Knative's pod autoscaler (KPA): concurrency over a stable and a panic window.

Source: knative/serving pkg/autoscaler/scaling. Requests in flight are, by Little's law, arrivals times the time each
takes; that time is taken as constant, so that concurrency is in proportion to demand and a replica's request stands
for its container concurrency. The panic window of 6 s is shorter than a tick and so is the newest reading; the stable
window is the mean of as many readings as cover it. Knative scrapes every second, so a replay shows it at its best with
a metric window of one tick: with one as long as the stable window the two windows are the same. There is no tolerance
and no rate limit but its own.
"""

from collections import deque
from dataclasses import dataclass
from math import ceil, floor, isnan
from typing import NamedTuple

from autoscaler.cluster.capacity import Capacity
from autoscaler.simulator.outcome import ReplaySettings, ReplayWorkload
from autoscaler.simulator.peers.reactive import within_bounds
from autoscaler.simulator.policies import Run, Tick


class Panic(NamedTuple):
    """Whether it panics since when, and the most replicas that this panic has asked for."""

    since_seconds: float | None = None
    most: int = 0


class Concurrency(NamedTuple):
    """What is in flight, in one unit: means over the two windows, and what one replica should carry."""

    stable: float
    panic: float
    per_replica: float


class KpaDecision(NamedTuple):
    """Replicas, and the panic that is carried on."""

    replicas: int
    panic: Panic


@dataclass(frozen=True, slots=True, kw_only=True)
class KpaPolicy:
    """Knative's pod autoscaler; the defaults are those of its `config-autoscaler`."""

    target: float = 0.7
    """Share of its concurrency that a replica should carry (`container-concurrency-target-percentage`)."""
    stable_window_seconds: float = 60.0
    panic_threshold: float = 2.0
    """It panics where the newest reading needs so many times the Ready replicas."""
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    name: str = "kpa"

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> Run:  # noqa: ARG002 - every policy's
        """A fresh run; it needs nothing but the workload."""
        return _KpaRun(self, workload, settings)


def kpa_decision(seen: Concurrency, ready: int, before: Panic, policy: KpaPolicy, *, now_seconds: float) -> KpaDecision:
    """What the KPA asks for with so many replicas Ready.

    A panic begins, or begins again, where the panic window needs `panic_threshold` times the Ready replicas, and ends
    once it did not for longer than a stable window. While it lasts the replicas only rise.
    """
    capacity, pods = Capacity(seen.per_replica), max(1, ready)
    least, most = floor(pods / policy.max_scale_down_rate), ceil(pods * policy.max_scale_up_rate)
    for_stable, for_panic = capacity.replicas_for(seen.stable), capacity.replicas_for(seen.panic)
    desired = min(max(for_stable, least), most)
    since = before.since_seconds
    if for_panic / pods >= policy.panic_threshold:
        since = now_seconds
    elif since is not None and since + policy.stable_window_seconds < now_seconds:
        since = None
    if since is None:
        return KpaDecision(desired, Panic())
    most_yet = max(before.most, desired, min(max(for_panic, least), most))
    return KpaDecision(most_yet, Panic(since, most_yet))


class _KpaRun:
    def __init__(self, policy: KpaPolicy, workload: ReplayWorkload, settings: ReplaySettings) -> None:
        self._policy = policy
        self._workload = workload
        self._per_replica = workload.request_per_replica * policy.target
        beyond = policy.stable_window_seconds - settings.metric_window_seconds
        self._readings: deque[float] = deque(maxlen=1 + max(0, round(beyond / settings.tick_seconds)))
        self._panic: Panic | None = None

    def replicas(self, tick: Tick) -> int:
        """What the KPA would set the replicas to; it begins in panic where more than one is Ready, as it does."""
        if self._panic is None:
            self._panic = Panic(tick.now_seconds, tick.ready) if tick.ready > 1 else Panic()
        if isnan(tick.offered):
            return tick.replicas
        self._readings.append(tick.offered)
        seen = Concurrency(sum(self._readings) / len(self._readings), tick.offered, self._per_replica)
        decision = kpa_decision(seen, tick.ready, self._panic, self._policy, now_seconds=tick.now_seconds)
        self._panic = decision.panic
        return within_bounds(decision.replicas, self._workload)
