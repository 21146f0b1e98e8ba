"""The HPA on requests, and KEDA from 1 replica up, which is an HPA on a trigger's value.

Sources: kubernetes/kubernetes pkg/controller/podautoscaler (`External` metric with `AverageValue`); kedacore/keda, the
ScaledObject specification. KEDA makes an HPA whose metric is the trigger's value and whose target its threshold, with
the HPA's default behaviour; its own scaling between none and one is not replayed, as a workload here has at least one.
"""

from dataclasses import dataclass
from math import inf

from autoscaler.decisions.guardrails import HPA_BEHAVIOUR, Behaviour
from autoscaler.simulator.outcome import ReplaySettings, ReplayWorkload
from autoscaler.simulator.peers.reactive import GuardedScale, amount_per_replica, demand_proposal
from autoscaler.simulator.policies import Run, Tick


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestsPolicy:
    """The HPA on demand that arrives, shared among the replicas."""

    target_utilisation: float | None = None
    """Demand per replica at the target, as a share of its request; None: the workload's own target."""
    polling_seconds: float = 0.0
    """For how long a value read is taken for the newest one; 0: read at every sync."""
    behaviour: Behaviour = HPA_BEHAVIOUR
    name: str = "hpa_requests"

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> Run:  # noqa: ARG002 - every policy's
        """A fresh run; it needs nothing but the workload."""
        return _RequestsRun(self, workload)


@dataclass(frozen=True, slots=True, kw_only=True)
class KedaPolicy:
    """KEDA on a trigger that counts demand, from 1 replica up."""

    threshold: float | None = None
    """Demand per replica, as a share of its request; None: the workload's target utilisation."""
    polling_seconds: float = 30.0
    """KEDA's `pollingInterval` with `useCachedMetrics`; 0 is without it: the trigger is read at every sync."""
    name: str = "keda"

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> Run:
        """A fresh run: that of an HPA with the HPA's default behaviour."""
        hpa = RequestsPolicy(target_utilisation=self.threshold, polling_seconds=self.polling_seconds, name=self.name)
        return hpa.start(row, workload, settings)


class _RequestsRun:
    def __init__(self, policy: RequestsPolicy, workload: ReplayWorkload) -> None:
        self._policy = policy
        self._per_replica = amount_per_replica(workload, policy.target_utilisation)
        self._scale = GuardedScale(workload, policy.behaviour)
        self._read_at_seconds = -inf
        self._demand = 0.0

    def replicas(self, tick: Tick) -> int:
        """What the HPA would set the replicas to."""
        if tick.now_seconds - self._read_at_seconds >= self._policy.polling_seconds:
            self._read_at_seconds, self._demand = tick.now_seconds, tick.offered
        proposal = demand_proposal(self._demand, self._per_replica, tick.replicas, self._policy.behaviour)
        return self._scale.replicas(tick, proposal)
