"""Replay of requests: replicas stay, and what each of them requests moves with a policy, once per step.

Demand is exogenous and shared evenly. A new request is in force at once, as with an in-place resize. **CPU** may be
used beyond the request, as there is no limit, but nobody is entitled to it: a step whose demand exceeds the requests is
a violation. **Memory** beyond the request, which is its limit, kills: that is a violation too, each such step is one
kill of every replica, and what a policy then sees of usage is the request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from autoscaler.simulator.outcome import SECONDS_PER_HOUR, ReplayError
from models.forecast import SECONDS_PER_DAY, FloatArray
from predictor.usage.panel import Resource

ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedWorkload:
    """One workload whose requests are replayed. Amounts are in the base unit of its resource."""

    name: str
    replicas: int
    request_per_replica: float
    """At the start of the replay."""
    resource: Resource = Resource.CPU

    def __post_init__(self) -> None:
        if self.replicas < 1 or not 0 < self.request_per_replica < np.inf:
            raise ReplayError(f"{self.name}: need at least 1 replica and a request above 0")
        if self.resource not in (Resource.CPU, Resource.MEMORY):
            raise ReplayError(f"{self.name}: requests of CPU and memory are replayed, not of {self.resource}")


@dataclass(slots=True)
class StepSeen:
    """What a policy can see as a step begins; filled anew for every step."""

    now_seconds: float = 0.0
    """Since the start of the replay."""
    request: float = 0.0
    """Of one replica, in force."""
    usage: float = np.nan
    """Of one replica, mean over the step before; NaN where it was not measured, and as the replay begins."""
    is_killed: bool = False
    """Whether replicas were killed for want of memory in the step before."""


class RequestRun(Protocol):
    """One policy at work on one workload; keeps that workload's memory."""

    def request(self, seen: StepSeen) -> float:
        """What one replica is to request from now on."""
        ...


class RequestPolicy(Protocol):
    """A way to choose requests."""

    @property
    def name(self) -> str:
        """How it is called in tables."""
        ...

    def start(self, row: int, workload: SizedWorkload, step_seconds: int) -> RequestRun:
        """A fresh run for the workload in this row of the demand."""
        ...


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """What one policy did to one workload. Hours are of its resource's base unit: core-hours or byte-hours."""

    policy: str
    workload: str
    known_minutes: float
    """Time with known demand; the rest counts towards cost only."""
    requested_hours: float
    demand_hours: float
    violation_minutes: float
    """Time in which demand exceeded the requests."""
    beyond_hours: float
    """Demand beyond the requests."""
    out_of_memory_kills: int
    resizes: int
    requests: FloatArray
    """Of one replica, [steps]."""

    @property
    def slack_share(self) -> float:
        """Share of what is requested that is not demanded."""
        within = self.demand_hours - self.beyond_hours
        return 1.0 - within / self.requested_hours


def replay_requests(
    demand: FloatArray, workloads: Sequence[SizedWorkload], policies: Sequence[RequestPolicy], step_seconds: int
) -> tuple[RequestOutcome, ...]:
    """What each policy would have requested under the same demand, [workloads, steps], NaN where it is not known.

    Policy by policy, workloads in the order of the demand. Raises ReplayError for arrays that do not match.
    """
    if demand.ndim != 2 or demand.shape[0] != len(workloads) or demand.shape[1] == 0:
        raise ReplayError(f"demand is {demand.shape}, needed: ({len(workloads)} workloads, at least 1 step)")
    if np.nanmin(demand, initial=0.0) < 0 or np.isinf(demand).any():
        raise ReplayError("demand holds negative or infinite values; use NaN for what is not known")
    if not 0 < step_seconds <= SECONDS_PER_DAY:
        raise ReplayError(f"a step must last longer than 0 s and a day at most, got {step_seconds} s")
    return tuple(
        _replayed(policy, row, workload, demand[row], step_seconds)
        for policy in policies
        for row, workload in enumerate(workloads)
    )


def _replayed(
    policy: RequestPolicy, row: int, workload: SizedWorkload, demand: FloatArray, step_seconds: int
) -> RequestOutcome:
    run = policy.start(row, workload, step_seconds)
    seen = StepSeen(request=workload.request_per_replica)
    is_memory = workload.resource is Resource.MEMORY
    requests: list[float] = []
    for step, usage in enumerate((demand / workload.replicas).tolist()):
        seen.now_seconds = float(step * step_seconds)
        request = run.request(seen)
        requests.append(request)
        seen.request = request
        seen.is_killed = is_memory and usage > request * (1 + ROUNDING)
        seen.usage = request if seen.is_killed else usage
    requested = np.asarray(requests)
    known = ~np.isnan(demand)
    demanded = np.where(known, demand, 0.0)
    beyond = demanded - requested * workload.replicas
    violated = beyond > ROUNDING * demanded
    hours = step_seconds / SECONDS_PER_HOUR
    return RequestOutcome(
        policy.name,
        workload.name,
        known_minutes=float(known.sum()) * step_seconds / 60,
        requested_hours=float(requested.sum()) * workload.replicas * hours,
        demand_hours=float(demanded.sum()) * hours,
        violation_minutes=float(violated.sum()) * step_seconds / 60,
        beyond_hours=float(beyond[violated].sum()) * hours,
        out_of_memory_kills=int(violated.sum()) * workload.replicas if is_memory else 0,
        resizes=int(np.count_nonzero(np.diff(requested, prepend=workload.request_per_replica))),
        requests=requested,
    )
