"""What was decided: a command to carry out or a hold, with everything that explains it."""

from dataclasses import dataclass

from autoscaler.cluster.reasons import Hold, Reason
from autoscaler.cluster.snapshot import DemandForecast, ObservedDemand, Rung


@dataclass(frozen=True, slots=True)
class ScaleReplicas:
    """Change a workload's `spec.replicas`, provided it is still `current`."""

    workload: str
    current: int
    desired: int
    reason: Reason
    """What decided the number."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for one workload at one instant, and from what."""

    workload: str
    decided_at_seconds: float
    current: int
    desired: int
    """What replicas should be; differs from `current` under a hold only where nothing may be acted on."""
    outcome: ScaleReplicas | Hold
    reasons: tuple[Reason, ...]
    """In the order in which they shaped the number."""
    forecast: DemandForecast | Hold
    """The forecast that was used, or why none was."""
    observed: ObservedDemand | Hold
    """The observation that was used, or why none was."""
    rung: Rung

    @property
    def reason(self) -> Reason:
        """What decided the outcome, in one line."""
        return self.outcome.reason

    @property
    def explanation(self) -> str:
        """Every reason, one a line."""
        return "\n".join(str(reason) for reason in self.reasons)
