"""What peers built on the HPA share: how it reads a tick, and the guardrails in which every such peer ends."""

from math import isnan

from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.decisions.guardrails import HPA_BEHAVIOUR, NO_MEMORY, Behaviour, ReplicaMemory, remembered_scale
from autoscaler.decisions.hpa import PodGroups, average_value_replicas, hpa_replicas, utilisation_replicas
from autoscaler.simulator.outcome import ReplayWorkload
from autoscaler.simulator.policies import Tick

NOT_MEASURED = Hold(Reason(ReasonCode.NO_OBSERVATION, "demand was not measured"))


def target_of(workload: ReplayWorkload, target_utilisation: float | None) -> float:
    """Share of its request that a replica should carry: the policy's own target or, without one, the workload's."""
    return workload.target_utilisation if target_utilisation is None else target_utilisation


def amount_per_replica(workload: ReplayWorkload, target_utilisation: float | None) -> float:
    """Demand that one replica should carry."""
    return workload.request_per_replica * target_of(workload, target_utilisation)


def within_bounds(replicas: int, workload: ReplayWorkload) -> int:
    """The replicas, no fewer and no more than the workload may have."""
    return min(max(replicas, workload.min_replicas), workload.max_replicas)


def demand_proposal(demand: float, per_replica: float, current: int, behaviour: Behaviour) -> int | Hold:
    """What the HPA proposes on an `External` metric with `AverageValue`; NaN is no measurement."""
    if isnan(demand):
        return NOT_MEASURED
    return average_value_replicas(demand, per_replica, current, behaviour)


class CpuMetric:
    """The HPA's `Resource` metric of one workload; pods that are not settled are `ignored` in its words."""

    def __init__(
        self, workload: ReplayWorkload, target_utilisation: float | None, behaviour: Behaviour = HPA_BEHAVIOUR
    ) -> None:
        self._request = workload.request_per_replica
        self._percent = round(target_of(workload, target_utilisation) * 100)
        self._behaviour = behaviour

    def proposal(self, tick: Tick) -> int | Hold:
        """Replicas that bring utilisation of the request back to the target."""
        if isnan(tick.usage_per_pod):
            return NOT_MEASURED
        settled, request = tick.settled, self._request
        young = tick.replicas - settled
        groups = PodGroups(settled, tick.usage_per_pod * settled, request * settled, 0, 0.0, young, request * young)
        return utilisation_replicas(groups, tick.replicas, self._percent, self._behaviour)


class GuardedScale:
    """The HPA's last part for one workload: bounds, stabilisation and rate limits, and what they remember."""

    def __init__(self, workload: ReplayWorkload, behaviour: Behaviour = HPA_BEHAVIOUR) -> None:
        self._bounds = (workload.min_replicas, workload.max_replicas)
        self._behaviour = behaviour
        self._memory: ReplicaMemory = NO_MEMORY

    def replicas(self, tick: Tick, *proposals: int | Hold) -> int:
        """What `spec.replicas` is set to for these proposals, one per metric."""
        current, now = tick.replicas, tick.now_seconds
        result = hpa_replicas(current, proposals, self._bounds, self._memory, self._behaviour, now_seconds=now)
        self._memory = result.memory
        if result.replicas != current:
            self._memory = remembered_scale(self._memory, result.replicas - current, self._behaviour, now)
        return result.replicas
