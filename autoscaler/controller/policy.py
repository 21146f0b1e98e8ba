"""What holds for one object now: its spec over the controller's settings, its schedule and its target's requests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from math import ceil

from autoscaler.cluster.capacity import Capacity, proportional
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.cluster.resources import Resources
from autoscaler.controller.autoscalers import GivenRules, PredictiveAutoscaler, Prices, Remembered
from autoscaler.decisions.budget import LADDER, BudgetRules, priced_level
from autoscaler.decisions.guardrails import DOWN_DEFAULT, UP_DEFAULT, Behaviour, ScalingRules
from autoscaler.decisions.replicas import ReplicaRules
from autoscaler.settings import ScalingSettings
from predictor.usage.panel import Resource

DEMAND_RESOURCES = (Resource.CPU, Resource.REQUESTS, Resource.GPU, Resource.MEMORY)
"""What demand can be."""
LEAST_PODS = 5
"""With fewer pods seen to get Ready the lead time is not taken from them."""
LEAD_SHARE = 0.95
"""Share of the pods that must have been Ready within the lead time."""
NOT_LEARNED = Hold(Reason(ReasonCode.NOT_LEARNED, "what replicas carry has not been learned yet"))


@dataclass(frozen=True, slots=True)
class WorkloadPolicy:
    """What holds for one object at one instant."""

    min_replicas: int
    max_replicas: int
    event: str
    """Name of the scheduled event that the minimum comes from; empty where it is the spec's own."""
    resource: Resource
    capacity: Capacity | Hold
    """Demand that its replicas carry at their target."""
    capacity_source: str
    """Where the capacity comes from, for a person."""
    level: float
    """Quantile level at which demand must fit what is ready, before the error budget moves it."""
    level_source: str
    """Where the level comes from, for a person."""
    budget: BudgetRules
    """What the SLA allows."""
    rungs: tuple[float, ...]
    """Levels that demand is forecast at, ascending."""
    rules: ReplicaRules
    lead_seconds: float
    lead_source: str
    """Where the lead time comes from, for a person."""
    max_source: str = ""
    """What else sets the maximum; empty where it is the spec's own."""
    min_source: str = ""
    """What else sets the minimum; empty where it is the spec's own or an event's."""


def policy_of(
    autoscaler: PredictiveAutoscaler,
    request_per_replica: Resources,
    ready_seconds: Sequence[float],
    remembered: Remembered,
    *,
    settings: ScalingSettings,
    now_seconds: float,
) -> WorkloadPolicy:
    """The policy of an object whose target's pods request so much each and took so long to get Ready."""
    lead, lead_source = lead_time(ready_seconds, remembered.lead_seconds, settings)
    minimum, event = autoscaler.floor(now_seconds, lead)
    capacity, source = _capacity(autoscaler, request_per_replica, settings)
    budget, level_source = budget_rules(autoscaler, settings)
    return WorkloadPolicy(
        min_replicas=min(minimum, autoscaler.max_replicas),
        max_replicas=autoscaler.max_replicas,
        event=event,
        resource=autoscaler.resource,
        capacity=capacity,
        capacity_source=source,
        level=budget.level,
        level_source=level_source,
        budget=budget,
        rungs=_levels(budget, settings),
        rules=rules_of(autoscaler.up, autoscaler.down, settings),
        lead_seconds=lead,
        lead_source=lead_source,
    )


def budget_rules(autoscaler: PredictiveAutoscaler, settings: ScalingSettings) -> tuple[BudgetRules, str]:
    """What an object's SLA allows, and where that comes from, for a person.

    A level that prices ask for is at most the highest that is forecast.
    """
    relaxation = settings.error_budget_relaxation if settings.error_budget else 1.0
    window = settings.error_budget_window.total_seconds()
    return _budget_rules(autoscaler.percentile, autoscaler.prices, settings.sla_percentile, relaxation, window)


@lru_cache(maxsize=10_000)
def _budget_rules(
    own: float | None, prices: Prices | None, default: float, relaxation: float, window: float
) -> tuple[BudgetRules, str]:
    if prices is None or own is not None:
        source = "scaling.sla_percentile" if own is None else "spec.sla.percentile"
        return BudgetRules(level_of(default if own is None else own), relaxation, window), source
    asked = priced_level(prices.replica_hour, prices.violated_minute)
    source = f"spec.sla.prices: {asked:.6g}"
    if asked > LADDER[-1]:
        source += f", of which at most {LADDER[-1]:g} is forecast"
    return BudgetRules(round(min(asked, LADDER[-1]), 6), relaxation, window, is_rung=False), source


def levels_for(autoscaler: PredictiveAutoscaler, settings: ScalingSettings) -> tuple[float, ...]:
    """The levels that decisions about an object may need forecasts at."""
    rules, _ = budget_rules(autoscaler, settings)
    return _levels(rules, settings)


def _levels(rules: BudgetRules, settings: ScalingSettings) -> tuple[float, ...]:
    return rules.rungs if settings.error_budget or not rules.is_rung else (rules.level,)


def level_of(percentile: float) -> float:
    """The quantile level that an SLA percentile stands for."""
    return round(percentile / 100.0, 10)


def lead_time(
    ready_seconds: Sequence[float], last_seconds: float | None, settings: ScalingSettings
) -> tuple[float, str]:
    """How far ahead capacity is to be ordered, in seconds, and where that comes from.

    What all but one pod in twenty of the target took from creation to Ready, and the time to the next decision, at
    most the longest that is allowed; what was measured last, or the setting, where too few pods were seen.
    """
    interval, longest = settings.interval.total_seconds(), settings.longest_lead_time.total_seconds()
    count = len(ready_seconds)
    if count < LEAST_PODS:
        if last_seconds is not None:
            return min(last_seconds, longest), "measured earlier"
        return min(settings.lead_time.total_seconds(), longest), f"scaling.lead_time, as only {count} pods were seen"
    slowest = almost_all(ready_seconds)
    measured = slowest + interval
    source = f"{LEAD_SHARE:.0%} of {count} pods were Ready within {slowest:.0f} s, and {interval:.0f} s to decide"
    return (measured, source) if measured <= longest else (longest, f"scaling.longest_lead_time; {source}")


def almost_all(ready_seconds: Sequence[float]) -> float:
    """Within which time all but one pod in twenty were Ready, of at least one."""
    return sorted(ready_seconds)[ceil(LEAD_SHARE * len(ready_seconds)) - 1]


def rules_of(up: GivenRules, down: GivenRules, settings: ScalingSettings) -> ReplicaRules:
    """The guardrails that an object gives, and for what it does not give the settings' and the HPA's own."""
    return _replica_rules(
        up,
        down,
        stabilisation=settings.scale_down_stabilisation,
        up_tolerance=settings.scale_up_tolerance,
        down_tolerance=settings.tolerance,
        stale_after=settings.stale_after,
        reactive_share=settings.reactive_utilisation / settings.target_utilisation,
    )


@lru_cache(maxsize=10_000)
def _replica_rules(
    up: GivenRules,
    down: GivenRules,
    *,
    stabilisation: timedelta,
    up_tolerance: float,
    down_tolerance: float,
    stale_after: timedelta,
    reactive_share: float,
) -> ReplicaRules:
    stabilised = replace(DOWN_DEFAULT, stabilisation_seconds=stabilisation.total_seconds())
    return ReplicaRules(
        behaviour=Behaviour(_rules(up, UP_DEFAULT, up_tolerance), _rules(down, stabilised, down_tolerance)),
        stale_after_seconds=stale_after.total_seconds(),
        reactive_share=reactive_share,
    )


def _rules(given: GivenRules, default: ScalingRules, tolerance: float) -> ScalingRules:
    return ScalingRules(
        default.stabilisation_seconds if given.stabilisation_seconds is None else given.stabilisation_seconds,
        given.policies or default.policies,
        given.select,
        tolerance if given.tolerance is None else given.tolerance,
    )


def _capacity(
    autoscaler: PredictiveAutoscaler, request_per_replica: Resources, settings: ScalingSettings
) -> tuple[Capacity | Hold, str]:
    if autoscaler.target_value is not None:
        return proportional(autoscaler.target_value), "spec.horizontal.target.averageValue"
    if autoscaler.learns_capacity:
        return NOT_LEARNED, ""
    kind = autoscaler.resource.value
    share, source = autoscaler.target_utilisation, "averageUtilization"
    if share is None:
        share, source = settings.target_utilisation, "target utilisation"
    requested = request_per_replica.amount(autoscaler.resource)
    if requested > 0:
        return proportional(requested * share), f"request of {requested:g} × {source} {share:g}"
    message = f"its containers request no {kind}; set a {kind} request or spec.horizontal.target.averageValue"
    return Hold(Reason(ReasonCode.NO_CAPACITY, message)), ""
