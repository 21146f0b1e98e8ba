"""Everything that was observed at one instant, frozen: what a decision is made from."""

from dataclasses import dataclass
from enum import StrEnum

from autoscaler.cluster.capacity import Capacity
from autoscaler.cluster.domains import FailureDomains
from autoscaler.cluster.reasons import Hold, Reason
from predictor.usage.panel import Resource


class Rung(StrEnum):
    """How far down the ladder of degradation a decision was made; the best rung first."""

    CHAMPION = "champion"
    """The model that serves: with what it knows of the workload, or of others where the workload is new to it."""
    PREVIOUS = "previous"
    """The version that was champion before: the champion cannot be used, or not for this workload."""
    SEASONAL_NAIVE = "seasonal_naive"
    """The baseline: there is no model, or it does worse than this on the workload."""
    REACTIVE = "reactive"
    """No forecast: the HPA's formula on observed demand."""
    HOLD = "hold"
    """Neither forecast nor observation: nothing is changed."""


@dataclass(frozen=True, slots=True)
class ObservedDemand:
    """Demand of a whole workload (all replicas together) as it was last measured."""

    value: float
    """In the base unit of the demand resource."""
    measured_at_seconds: float
    """Epoch second at which the measurement ended."""


@dataclass(frozen=True, slots=True)
class DemandForecast:
    """The demand peak of a whole workload over the lead window, at one quantile level."""

    value: float
    """Highest demand in (cutoff, cutoff + horizon], in the base unit of the demand resource."""
    level: float
    """Quantile level in (0, 1): the probability with which demand stays at or under `value`."""
    horizon_seconds: float
    """How far the window reaches past the cutoff."""
    cutoff_seconds: float
    """Epoch second at which the last step known to the forecaster ended."""
    forecaster: str
    """Catalogue name."""
    model_version: str
    """Registered version that served; empty where nothing is registered."""
    rung: Rung = Rung.CHAMPION
    because: str = ""
    """Why this forecaster, and what else a reader should know of the forecast."""


@dataclass(frozen=True, slots=True)
class RemovalLimit:
    """How many replicas may be removed at most, and why no more."""

    most: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class WorkloadSnapshot:
    """One workload as it stands."""

    name: str
    """`namespace/kind/name`, for example `shop/Deployment/cart`."""
    replicas: int
    """`spec.replicas`: how many are wanted now."""
    ready_replicas: int
    """How many are Ready now."""
    min_replicas: int
    max_replicas: int
    resource: Resource
    """What demand is."""
    capacity: Capacity | Hold
    """Demand that its replicas carry at their target, in the base unit of `resource`."""
    observed: ObservedDemand | Hold
    """Demand now, of all replicas together."""
    suspended: Hold | None = None
    """Why decisions about it must not be acted on."""
    removal: RemovalLimit | None = None
    """How many of its replicas may be removed now; None is no limit beyond the guardrails."""
    survives: FailureDomains | None = None
    """Of which the fullest may be lost without demand exceeding what is left; None where none may."""
