"""What a replay is set up with and what it finds: figures per policy and workload, and replicas over time."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from statistics import fmean

import numpy as np

from autoscaler.cluster.capacity import ROUNDING, Capacity
from autoscaler.simulator.elasticity import Elasticity, elasticity
from models.forecast import FloatArray, IntArray
from predictor.usage.panel import Resource

SECONDS_PER_HOUR = 3600
TICK_SECONDS = 15
"""The HPA's sync period."""


class ReplayError(ValueError):
    """A replay that cannot be set up; the message says which argument and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """The actuator and the clock, the same for every policy."""

    step_seconds: int
    """Spacing of the demand."""
    tick_seconds: int = TICK_SECONDS
    """How often every policy decides; divides the step."""
    pod_ready_seconds: int = 60
    """From a scale-out to Ready pods; the median, where the times spread."""
    pod_ready_spread: float = 0.0
    """Standard deviation of the logarithm of that time; 0: every order takes the median."""
    seed: int = 0
    """Of the times that are drawn."""
    grace_seconds: float = 30.0
    """How long a removed replica, which serves nothing any more, is still paid for while it ends."""
    metric_window_seconds: int = 60
    """Usage is seen as its mean over this window…"""
    metric_delay_seconds: int = 15
    """…which ended this long ago: scrape and sync."""

    def __post_init__(self) -> None:
        if self.tick_seconds <= 0 or self.step_seconds <= 0 or self.step_seconds % self.tick_seconds:
            raise ReplayError(
                f"a tick of {self.tick_seconds} s must divide the step of {self.step_seconds} s: take longer steps"
            )
        if min(self.pod_ready_seconds, self.metric_delay_seconds) < 0 or self.metric_window_seconds <= 0:
            raise ReplayError(f"lead time and delay must be at least 0 s and the window above 0 s, got {self}")
        if not (0.0 <= self.pod_ready_spread < np.inf and 0.0 <= self.grace_seconds < np.inf and self.seed >= 0):
            raise ReplayError(f"spread, seed and grace must be at least 0 and finite, got {self}")

    @property
    def ticks_per_step(self) -> int:
        """How many decisions fall in one step."""
        return self.step_seconds // self.tick_seconds

    @property
    def lead_ticks(self) -> int:
        """Ticks from a scale-out to Ready pods, rounded up; the median where the times spread."""
        return -(-self.pod_ready_seconds // self.tick_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayWorkload:
    """One workload to replay. Amounts are in the base unit of its demand."""

    name: str
    request_per_replica: float
    """Demand one replica can serve at most: its request, which is its limit too."""
    cores_per_replica: float
    """What one replica costs; equal to `request_per_replica` where demand is CPU."""
    target_utilisation: float
    """Share of what replicas carry within the SLO that they should carry, unless a policy has a target of its own."""
    min_replicas: int
    max_replicas: int
    initial_replicas: int | None = None
    """None: as many as the first known demand needs at the target; the same for every policy."""
    resource: Resource = Resource.CPU
    """What demand is."""
    slo: Capacity | None = None
    """Demand that so many Ready replicas carry within the SLO, such as a curve of `queue_capacity`; more violates it.
    None: all that they can serve."""
    pod_ready_seconds: tuple[float, ...] = ()
    """Times its pods took to turn Ready, to draw from; empty: those of the replay's settings."""
    lead_seconds: int | None = None
    """How far ahead capacity is ordered for it; None: `pod_ready_seconds` of the replay's settings."""

    def __post_init__(self) -> None:
        if not (0 < self.request_per_replica < np.inf and 0 <= self.cores_per_replica < np.inf):
            raise ReplayError(f"{self.name}: a replica's request must be above 0 and its cores at least 0")
        if not 0 < self.target_utilisation <= 1:
            raise ReplayError(f"{self.name}: target utilisation must be in (0, 1], got {self.target_utilisation:g}")
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ReplayError(
                f"{self.name}: need 1 <= min <= max replicas, got {self.min_replicas} and {self.max_replicas}"
            )

        if not all(0.0 <= each < np.inf for each in self.pod_ready_seconds):
            raise ReplayError(f"{self.name}: times from a scale-out to Ready pods must be at least 0 s and finite")
        for count in (*range(1, len(self.within_slo.curve) + 1), self.max_replicas):
            promised, served = self.within_slo.demand_at(count), self.request_per_replica * count
            if promised > served * (1.0 + ROUNDING):
                raise ReplayError(
                    f"{self.name}: by its SLO {count} replicas carry {promised:g}, but by their requests they serve at "
                    f"most {served:g}; state both in the unit of demand"
                )

    def own(self, settings: ReplaySettings) -> ReplaySettings:
        """The settings as they hold for this workload."""
        return settings if self.lead_seconds is None else replace(settings, pod_ready_seconds=self.lead_seconds)

    @property
    def within_slo(self) -> Capacity:
        """Demand that replicas carry without violating the SLO."""
        return self.slo or Capacity(self.request_per_replica)

    @property
    def capacity(self) -> Capacity:
        """Demand that replicas carry at their target, a share of what they carry within the SLO."""
        return self.within_slo.scaled(self.target_utilisation)

    def needed_replicas(self, demand: FloatArray) -> IntArray:
        """The fewest replicas with which each demand keeps the SLO, whatever the bounds; 0 where demand is NaN."""
        amounts, where = np.unique(np.nan_to_num(demand), return_inverse=True)
        carried = self.within_slo
        return np.array([carried.replicas_for(each) for each in amounts.tolist()], dtype=np.int64)[where]


@dataclass(frozen=True, slots=True)
class ReplicaSeries:
    """Replicas over time, each [steps]: the range within every step of demand."""

    ready_min: FloatArray
    ready_mean: FloatArray
    ready_max: FloatArray
    replicas_mean: FloatArray
    """Ready or starting."""


@dataclass(frozen=True, slots=True)
class WorkloadOutcome:
    """What one policy did to one workload."""

    policy: str
    workload: str
    known_minutes: float
    """Time with known demand; the rest counts towards cost only."""
    violation_minutes: float
    """Time in which demand exceeded what the Ready replicas carry within the SLO."""
    demand_core_hours: float
    unserved_core_hours: float
    """Demand beyond what the Ready replicas can serve; it is lost, not queued."""
    replica_hours: float
    """Every replica from the order to its end, while it starts and while it ends included."""
    core_hours: float
    scale_actions: int
    replayed_hours: float
    elasticity: Elasticity
    series: ReplicaSeries

    @property
    def violation_share(self) -> float:
        """Of the time with known demand."""
        return self.violation_minutes / self.known_minutes if self.known_minutes > 0 else 0.0

    @property
    def scale_actions_per_hour(self) -> float:
        """How often replicas were changed, by however many."""
        return self.scale_actions / self.replayed_hours

    @property
    def unserved_share(self) -> float:
        """Share of demand that was not served."""
        return self.unserved_core_hours / self.demand_core_hours if self.demand_core_hours > 0 else 0.0

    @property
    def mean_utilisation(self) -> float:
        """Served usage ÷ request of all replicas, over the whole replay."""
        served = self.demand_core_hours - self.unserved_core_hours
        return served / self.core_hours if self.core_hours > 0 else 0.0


@dataclass(frozen=True, slots=True)
class PolicyTotals:
    """One policy over all workloads."""

    policy: str
    workloads: int
    violation_minutes: float
    violation_share: float
    """Of the time with known demand, all workloads together."""
    unserved_share: float
    """Of demand, weighted in cores."""
    replica_hours: float
    core_hours: float
    scale_actions: int
    scale_actions_per_hour: float
    """Of one workload, on average."""
    mean_utilisation: float
    elasticity: Elasticity
    """Mean over the workloads, each counted alike."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Every outcome of a replay, policy by policy in the order given, workloads in the order of the demand."""

    settings: ReplaySettings
    outcomes: tuple[WorkloadOutcome, ...]

    @property
    def policies(self) -> tuple[str, ...]:
        """Names of the policies, in order."""
        return tuple(dict.fromkeys(o.policy for o in self.outcomes))

    def of(self, policy: str) -> tuple[WorkloadOutcome, ...]:
        """One policy's outcomes, workload by workload."""
        return tuple(o for o in self.outcomes if o.policy == policy)

    def totals(self) -> tuple[PolicyTotals, ...]:
        """Each policy over all workloads."""
        return tuple(_totals(policy, self.of(policy)) for policy in self.policies)


def _totals(policy: str, outcomes: Sequence[WorkloadOutcome]) -> PolicyTotals:
    minutes = sum(o.violation_minutes for o in outcomes)
    known = sum(o.known_minutes for o in outcomes)
    demand = sum(o.demand_core_hours for o in outcomes)
    unserved = sum(o.unserved_core_hours for o in outcomes)
    cores = sum(o.core_hours for o in outcomes)
    return PolicyTotals(
        policy,
        len(outcomes),
        violation_minutes=minutes,
        violation_share=minutes / known if known > 0 else 0.0,
        unserved_share=unserved / demand if demand > 0 else 0.0,
        replica_hours=sum(o.replica_hours for o in outcomes),
        core_hours=cores,
        scale_actions=sum(o.scale_actions for o in outcomes),
        scale_actions_per_hour=fmean(o.scale_actions_per_hour for o in outcomes),
        mean_utilisation=(demand - unserved) / cores if cores > 0 else 0.0,
        elasticity=Elasticity(*(fmean(each) for each in zip(*(astuple(o.elasticity) for o in outcomes), strict=True))),
    )


def outcome(
    policy: str,
    workload: ReplayWorkload,
    settings: ReplaySettings,
    *,
    demand: FloatArray,
    ready: IntArray,
    replicas: IntArray,
    initial_replicas: int,
) -> WorkloadOutcome:
    """The figures of one policy and workload: `demand` is [steps], `ready` and `replicas` are [ticks]."""
    per_step = (-1, settings.ticks_per_step)
    tick_hours = settings.tick_seconds / SECONDS_PER_HOUR
    demanded = np.repeat(demand, settings.ticks_per_step)
    known = ~np.isnan(demanded)
    demanded = np.where(known, demanded, 0.0)
    needed = np.repeat(workload.needed_replicas(demand), settings.ticks_per_step)
    violating = known & (needed > ready)
    unserved = np.maximum(demanded - ready * workload.request_per_replica, 0.0)
    cores = workload.cores_per_replica / workload.request_per_replica
    ready_by_step = ready.reshape(per_step)
    changes = np.diff(replicas, prepend=initial_replicas)
    left_seconds = settings.tick_seconds * np.arange(replicas.size, 0, -1)
    ending_seconds = np.maximum(-changes, 0) @ np.minimum(left_seconds, settings.grace_seconds)
    replica_hours = float(replicas.sum()) * tick_hours + float(ending_seconds) / SECONDS_PER_HOUR
    return WorkloadOutcome(
        policy,
        workload.name,
        known_minutes=float(known.sum()) * settings.tick_seconds / 60,
        violation_minutes=float(violating.sum()) * settings.tick_seconds / 60,
        demand_core_hours=float(demanded.sum()) * tick_hours * cores,
        unserved_core_hours=float(unserved.sum()) * tick_hours * cores,
        replica_hours=replica_hours,
        core_hours=replica_hours * workload.cores_per_replica,
        scale_actions=int(np.count_nonzero(changes)),
        replayed_hours=replicas.size * tick_hours,
        elasticity=elasticity(np.maximum(needed, workload.min_replicas), ready, known),
        series=ReplicaSeries(
            ready_by_step.min(axis=1),
            ready_by_step.mean(axis=1),
            ready_by_step.max(axis=1),
            replicas.reshape(per_step).mean(axis=1),
        ),
    )
