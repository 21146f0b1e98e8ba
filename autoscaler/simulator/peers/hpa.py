"""The HPA on CPU utilisation of the request, by `autoscaler/decisions/hpa.py`."""

from dataclasses import dataclass

from autoscaler.decisions.guardrails import HPA_BEHAVIOUR, Behaviour
from autoscaler.simulator.outcome import ReplaySettings, ReplayWorkload
from autoscaler.simulator.peers.reactive import CpuMetric, GuardedScale
from autoscaler.simulator.policies import Run, Tick


@dataclass(frozen=True, slots=True, kw_only=True)
class HpaPolicy:
    """One `Resource` metric with `averageUtilization`."""

    behaviour: Behaviour = HPA_BEHAVIOUR
    target_utilisation: float | None = None
    """None: the workload's own target."""
    name: str = "hpa"

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> Run:  # noqa: ARG002 - every policy's
        """A fresh run; the HPA needs nothing but the workload."""
        return _HpaRun(
            CpuMetric(workload, self.target_utilisation, self.behaviour), GuardedScale(workload, self.behaviour)
        )


@dataclass(frozen=True, slots=True)
class _HpaRun:
    metric: CpuMetric
    scale: GuardedScale

    def replicas(self, tick: Tick) -> int:
        """What the HPA would set the replicas to."""
        return self.scale.replicas(tick, self.metric.proposal(tick))
