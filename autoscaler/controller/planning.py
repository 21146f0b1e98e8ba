"""From what was seen and what is forecast to a decision per workload. Values in, values out: no client, no clock."""

from dataclasses import dataclass

from autoscaler.cluster.commands import Decision
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.cluster.snapshot import DemandForecast, ObservedDemand, Rung, WorkloadSnapshot
from autoscaler.controller.annotations import WorkloadPolicy, policy_of
from autoscaler.controller.ports import ManagedWorkload
from autoscaler.decisions.guardrails import Behaviour, ReplicaMemory, ScalingRules
from autoscaler.decisions.replicas import ReplicaRules, decide_replicas
from autoscaler.errors import InvalidAnnotation
from autoscaler.settings import ScalingSettings
from models.forecast import ForecastError
from predictor.serving.bundle import NoForecast
from predictor.serving.predictor import Forecasts, ServedForecast
from predictor.usage.panel import SeriesKey


@dataclass(frozen=True, slots=True)
class Plan:
    """What was decided for one workload, and everything that it was decided from."""

    workload: ManagedWorkload
    policy: WorkloadPolicy | InvalidAnnotation
    decision: Decision
    memory: ReplicaMemory
    data_age_seconds: float | None
    """Age of the newest sample of its demand; None where there is none."""
    relied_share: float = 1.0
    """Share of the capacity per replica that the decision relied on; below 1 where nothing was forecast."""


def sla_level(settings: ScalingSettings) -> float:
    """The quantile level at which demand must fit what is ready."""
    return round(settings.sla_percentile / 100.0, 10)


def rules_from(settings: ScalingSettings) -> ReplicaRules:
    """The settings as the guardrails take them: the HPA's own defaults but for what is set."""
    defaults = Behaviour()
    down = ScalingRules(
        settings.scale_down_stabilisation.total_seconds(),
        defaults.down.policies,
        defaults.down.select,
        settings.tolerance,
    )
    up = ScalingRules(defaults.up.stabilisation_seconds, defaults.up.policies, defaults.up.select, settings.tolerance)
    return ReplicaRules(
        behaviour=Behaviour(up, down),
        stale_after_seconds=settings.stale_after.total_seconds(),
        reactive_share=settings.reactive_utilisation / settings.target_utilisation,
    )


def plan(
    workload: ManagedWorkload,
    forecasts: Forecasts,
    memory: ReplicaMemory,
    *,
    settings: ScalingSettings,
    rules: ReplicaRules,
    now_seconds: float,
) -> Plan:
    """The decision for one workload; one whose annotations cannot be read is left alone."""
    try:
        policy = policy_of(workload, settings)
    except InvalidAnnotation as error:
        reason = Reason(ReasonCode.INVALID_ANNOTATION, str(error))
        hold = Hold(reason)
        decision = Decision(
            workload.name,
            now_seconds,
            workload.replicas,
            workload.replicas,
            hold,
            (reason,),
            forecast=hold,
            observed=hold,
            rung=Rung.HOLD,
        )
        return Plan(workload, error, decision, memory, None)
    key = SeriesKey(workload.name, policy.resource)
    observed = observed_demand(forecasts, key)
    snapshot = WorkloadSnapshot(
        name=workload.name,
        replicas=workload.replicas,
        ready_replicas=workload.ready_replicas,
        min_replicas=policy.min_replicas,
        max_replicas=policy.max_replicas,
        resource=policy.resource,
        capacity_per_replica=policy.capacity_per_replica,
        observed=observed,
        paused=policy.is_paused or settings.paused,
        request_per_replica=workload.request_per_replica,
    )
    lead_seconds = settings.lead_time.total_seconds()
    forecast = demand_forecast(forecasts, key, sla_level(settings), now_seconds + lead_seconds)
    outcome = decide_replicas(snapshot, forecast, memory, rules, now_seconds)
    age = None if isinstance(observed, Hold) else max(0.0, now_seconds - observed.measured_at_seconds)
    share = rules.reactive_share if outcome.decision.rung is Rung.REACTIVE else 1.0
    return Plan(workload, policy, outcome.decision, outcome.memory, age, share)


def observed_demand(forecasts: Forecasts, key: SeriesKey) -> ObservedDemand | Hold:
    """The newest sample of a workload's demand, however old, or why there is none."""
    observed = forecasts.observed(key)
    if isinstance(observed, NoForecast):
        return Hold(Reason(ReasonCode.NO_OBSERVATION, observed.reason))
    return ObservedDemand(observed.value, observed.measured_at_seconds)


def demand_forecast(forecasts: Forecasts, key: SeriesKey, level: float, until_seconds: float) -> DemandForecast | Hold:
    """The demand peak from the end of what was observed until then, or why there is no such forecast."""
    served = forecasts.of(key)
    if isinstance(served, NoForecast):
        code = ReasonCode.STALE_FORECAST if forecasts.is_stale(key) else ReasonCode.NO_FORECAST
        return Hold(Reason(code, served.reason))
    try:
        value = served.peak(level, until_seconds)
    except (ForecastError, KeyError) as error:
        return Hold(Reason(ReasonCode.NO_FORECAST, str(error.args[0])))
    return DemandForecast(
        value=value,
        level=level,
        horizon_seconds=until_seconds - served.known_until_seconds,
        cutoff_seconds=served.known_until_seconds,
        forecaster=served.series.served.forecaster,
        model_version=served.model.version,
        rung=_rung(served),
        because=served.series.served.reason,
    )


def _rung(served: ServedForecast) -> Rung:
    return Rung.FALLBACK if served.series.served.is_cold else Rung.CHAMPION
