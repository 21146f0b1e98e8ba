"""Builders for snapshots, forecasts and replays, with defaults that mean something: one workload in mid-life."""

from autoscaler.cluster.capacity import Capacity, proportional
from autoscaler.cluster.domains import FailureDomains
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.cluster.snapshot import DemandForecast, ObservedDemand, RemovalLimit, Rung, WorkloadSnapshot
from autoscaler.simulator.outcome import ReplaySettings, ReplayWorkload
from predictor.usage.panel import Resource

NOW = 1_800_000_000.0
NOT_FORECAST = Hold(Reason(ReasonCode.NO_FORECAST, "the registry is empty"))
NOT_MEASURED = Hold(Reason(ReasonCode.NO_OBSERVATION, "Prometheus did not answer"))


def observed(cores: float, *, age_seconds: float = 0.0) -> ObservedDemand:
    """Demand in cores, measured `age_seconds` ago."""
    return ObservedDemand(cores, NOW - age_seconds)


def a_workload(
    *,
    replicas: int = 5,
    demand: float | ObservedDemand | Hold = 5.0,
    capacity: float | Capacity | Hold = 1.0,
    min_replicas: int = 1,
    max_replicas: int = 100,
    suspended: Hold | None = None,
    removal: RemovalLimit | None = None,
    survives: FailureDomains | None = None,
) -> WorkloadSnapshot:
    """A Deployment whose replicas carry one core each at the target; a bare number is demand measured just now."""
    return WorkloadSnapshot(
        "shop/Deployment/cart",
        replicas,
        replicas,
        min_replicas,
        max_replicas,
        Resource.CPU,
        proportional(capacity) if isinstance(capacity, int | float) else capacity,
        observed(demand) if isinstance(demand, int | float) else demand,
        suspended,
        removal,
        survives,
    )


def a_forecast(peak: float, *, age_seconds: float = 60.0, rung: Rung = Rung.CHAMPION) -> DemandForecast:
    """A forecast peak in cores over the next ten minutes, from history that ended `age_seconds` ago."""
    return DemandForecast(peak, 0.99, 600.0, NOW - age_seconds, "lightgbm", "7", rung)


def a_replay_workload(
    *,
    target_utilisation: float = 0.5,
    min_replicas: int = 1,
    max_replicas: int = 100,
    initial_replicas: int | None = None,
) -> ReplayWorkload:
    """Replicas of one core each."""
    return ReplayWorkload(
        name="shop/Deployment/cart",
        request_per_replica=1.0,
        cores_per_replica=1.0,
        target_utilisation=target_utilisation,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        initial_replicas=initial_replicas,
    )


def minute_settings(
    *, pod_ready_seconds: int = 60, pod_ready_spread: float = 0.0, seed: int = 0, grace_seconds: float = 0.0
) -> ReplaySettings:
    """Steps and ticks of a minute; usage is seen as the minute before, so that a replay can be worked by hand."""
    return ReplaySettings(
        step_seconds=60,
        tick_seconds=60,
        pod_ready_seconds=pod_ready_seconds,
        pod_ready_spread=pod_ready_spread,
        seed=seed,
        grace_seconds=grace_seconds,
        metric_window_seconds=60,
        metric_delay_seconds=0,
    )
