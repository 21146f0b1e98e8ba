"""How many replicas a workload should have: a forecast raises them, only observed demand lowers them.

    desired = fewest replicas that carry max(forecast peak, observed demand)

then tolerance, stabilisation, rate limits and bounds as in the HPA (guardrails.py). The forecast peak is the quantile,
at the SLA's level, of the highest demand within the lead window: what must be Ready by the time an order placed now
takes effect. Without a forecast the same formula on observed demand is the HPA's own (`AverageValue`), with the share
of each replica that leaves room for what was not forecast. Where the loss of a node or zone is to be survived,
`desired` is then as many as leave that number (survival.py).
"""

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from autoscaler.cluster.commands import Decision, ScaleReplicas
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode, replicas_text
from autoscaler.cluster.snapshot import DemandForecast, ObservedDemand, Rung, WorkloadSnapshot
from autoscaler.decisions.guardrails import HPA_BEHAVIOUR, Behaviour, ReplicaMemory, guarded
from autoscaler.decisions.survival import left_of, survival_reason, surviving_replicas

_DISABLED = Hold(
    Reason(ReasonCode.SCALING_DISABLED, "somebody scaled it to 0, which switches scaling off; scale it to 1 or more")
)
_UNCHANGED = Reason(ReasonCode.READY_FOR_NEW_SCALE, "the replicas are already what they should be")
_UNSEEN = Reason(ReasonCode.NO_SHRINK_UNSEEN, "fewer replicas are forecast, but only observed demand removes replicas")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRules:
    """What holds for every workload's replicas."""

    behaviour: Behaviour = HPA_BEHAVIOUR
    stale_after_seconds: float = 900.0
    """An observation, or the history behind a forecast, that ended longer ago is no answer."""
    reactive_share: float = 1.0
    """Share of a replica's capacity that is relied on where there is no forecast, whose quantile is headroom."""

    def __post_init__(self) -> None:
        if not 0 < self.reactive_share <= 1:
            raise ValueError(f"reactive_share must be in (0, 1], got {self.reactive_share}")


class ReplicaOutcome(NamedTuple):
    """A decision, and the memory to decide the next one with."""

    decision: Decision
    memory: ReplicaMemory


class _Advice(NamedTuple):
    """Replicas before the guardrails."""

    replicas: int
    rung: Rung
    driver: Reason
    reasons: tuple[Reason, ...]


def decide_replicas(
    workload: WorkloadSnapshot,
    forecast: DemandForecast | Hold,
    memory: ReplicaMemory,
    rules: ReplicaRules,
    now_seconds: float,
) -> ReplicaOutcome:
    """The replicas a workload should have, with every reason, and the memory for the next decision.

    A value that is not a finite number of at least 0, or is stale, counts as no answer. Without observation nothing is
    removed; without both nothing is changed (the bounds excepted), and the hold counts as a recommendation to stay, so
    that nothing is removed before demand was watched for a whole stabilisation window again.
    The memory does not yet hold the command: add it with `remembered_scale` once it was carried out.
    """
    name, current = workload.name, workload.replicas
    forecast = _usable_forecast(forecast, rules.stale_after_seconds, now_seconds)
    observed = _usable_observation(workload.observed, rules.stale_after_seconds, now_seconds)
    if current == 0 and workload.min_replicas > 0:
        decision = Decision(name, now_seconds, 0, 0, _DISABLED, (_DISABLED.reason,), forecast, observed, Rung.HOLD)
        return ReplicaOutcome(decision, memory)

    advice = _advised(workload, forecast, observed, rules)
    bounds = (workload.min_replicas, workload.max_replicas)
    result = guarded(current, advice.replicas, bounds, memory, rules.behaviour, now_seconds=now_seconds)
    desired = result.replicas
    reasons = advice.reasons + result.reasons
    removal = workload.removal
    if removal is not None and desired < current - removal.most and current <= workload.max_replicas:
        reasons += (removal.reason,)
        desired = current - removal.most
    outcome: ScaleReplicas | Hold
    if workload.suspended is not None:
        reasons += (workload.suspended.reason,)
        outcome = workload.suspended
    elif desired == current:
        outcome = Hold(reasons[-1])
    else:
        as_advised = (desired > current) == (advice.replicas > current) and advice.replicas != current
        outcome = ScaleReplicas(name, current, desired, advice.driver if as_advised else reasons[-1])
    decision = Decision(name, now_seconds, current, desired, outcome, reasons, forecast, observed, advice.rung)
    return ReplicaOutcome(decision, result.memory)


def _advised(
    workload: WorkloadSnapshot,
    forecast: DemandForecast | Hold,
    observed: ObservedDemand | Hold,
    rules: ReplicaRules,
) -> _Advice:
    """Replicas that the larger of forecast peak and observed demand asks for."""
    current = workload.replicas
    capacity = workload.capacity
    if isinstance(capacity, Hold):
        return _Advice(current, Rung.HOLD, capacity.reason, (capacity.reason,))
    unit = workload.resource.unit
    reasons: tuple[Reason, ...]
    if isinstance(forecast, Hold):
        if isinstance(observed, Hold):
            return _Advice(current, Rung.HOLD, observed.reason, (forecast.reason, observed.reason))
        rung, demand = Rung.REACTIVE, observed.value
        capacity = capacity.scaled(rules.reactive_share)
        needed = capacity.replicas_for(demand)
        driver = _observed_reason(observed, needed, unit)
        reasons = (forecast.reason, driver)
    else:
        rung, demand = forecast.rung, forecast.value
        needed = capacity.replicas_for(demand)
        driver = _forecast_reason(forecast, needed, unit)
        if isinstance(observed, Hold):
            reasons = (driver, observed.reason)
        else:
            needed_now = capacity.replicas_for(observed.value)
            seen = _observed_reason(observed, needed_now, unit)
            reasons = (driver, seen)
            if observed.value > demand:
                demand, needed, driver = observed.value, needed_now, seen
    left = current
    if workload.survives is not None:
        left = left_of(current, workload.survives)
        surviving = surviving_replicas(needed, workload.survives)
        if surviving > needed:
            driver = survival_reason(needed, surviving, workload.survives)
            needed, reasons = surviving, (*reasons, driver)
    if needed < current and isinstance(observed, Hold):
        return _Advice(current, rung, _UNSEEN, (*reasons, _UNSEEN))
    if needed == current:
        return _Advice(current, rung, _UNCHANGED, (*reasons, _UNCHANGED))
    carried = capacity.demand_at(left)
    if carried > 0 and rules.behaviour.within_tolerance(ratio := demand / carried):
        small = Reason(
            ReasonCode.WITHIN_TOLERANCE,
            f"{ratio:.3f} times the capacity of {replicas_text(left)} is within the tolerance",
        )
        return _Advice(current, rung, small, (*reasons, small))
    return _Advice(needed, rung, driver, reasons)


def _usable_forecast(
    forecast: DemandForecast | Hold, stale_after_seconds: float, now_seconds: float
) -> DemandForecast | Hold:
    if isinstance(forecast, Hold):
        return forecast
    if not 0.0 <= forecast.value < inf:
        return Hold(Reason(ReasonCode.NO_FORECAST, f"the forecast is {forecast.value:g}, which is no demand"))
    age = now_seconds - forecast.cutoff_seconds
    if age > stale_after_seconds:
        text = f"the forecast knows nothing of the last {age:.0f} s; {stale_after_seconds:.0f} s are accepted"
        return Hold(Reason(ReasonCode.STALE_FORECAST, text))
    return forecast


def _usable_observation(
    observed: ObservedDemand | Hold, stale_after_seconds: float, now_seconds: float
) -> ObservedDemand | Hold:
    if isinstance(observed, Hold):
        return observed
    if not 0.0 <= observed.value < inf:
        return Hold(Reason(ReasonCode.NO_OBSERVATION, f"demand was measured as {observed.value:g}, which is no demand"))
    age = now_seconds - observed.measured_at_seconds
    if age > stale_after_seconds:
        text = f"demand was last measured {age:.0f} s ago; {stale_after_seconds:.0f} s are accepted"
        return Hold(Reason(ReasonCode.STALE_OBSERVATION, text))
    return observed


def _forecast_reason(forecast: DemandForecast, replicas: int, unit: str) -> Reason:
    return Reason(
        ReasonCode.FORECAST_PEAK,
        f"a peak of {_amount(forecast.value, unit)} is forecast within {forecast.horizon_seconds:.0f} s at level "
        f"{forecast.level:g}, which needs {replicas_text(replicas)}",
    )


def _observed_reason(observed: ObservedDemand, replicas: int, unit: str) -> Reason:
    return Reason(
        ReasonCode.OBSERVED_DEMAND,
        f"{_amount(observed.value, unit)} are used now, which needs {replicas_text(replicas)}",
    )


def _amount(value: float, unit: str) -> str:
    """To four digits; what a query gives has no unit."""
    return f"{value:.4g} {unit}".rstrip()
