"""What policies' statuses allow pods that are created now; the statuses are all that `foresize webhook` goes by.

So any process may admit pods, and none has to lead: a controller that is gone tells nothing any more, and what it told
last is soon too old to oversell anything.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from autoscaler.cluster.nodes import Actuator
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.autoscalers import Mode, seconds_of
from autoscaler.controller.policies import OversubscriptionPolicy
from autoscaler.decisions.amplification import HIGHEST_RATE, PolicyRates
from predictor.usage.panel import Resource


def rates_of(
    policies: Iterable[OversubscriptionPolicy], now_seconds: float, stale_after_seconds: float
) -> tuple[PolicyRates, ...]:
    """What each policy allows of the resources that it is about; one that cannot be followed is about none."""
    return tuple(
        PolicyRates(
            each.name,
            each.selector,
            each.actuator,
            {resource: _rate(each, resource, now_seconds, stale_after_seconds) for resource in each.terms},
            each.floor,
            {resource: _amount(each, resource, "largestUnsold") for resource in each.terms},
            {resource: _awaited(each, resource) for resource in each.terms},
        )
        for each in policies
        if not each.problem
    )


def _rate(policy: OversubscriptionPolicy, resource: Resource, now: float, stale_after: float) -> float | Hold:
    """By what requests may be divided; 1 where reclaimed resources are offered."""
    if policy.mode is Mode.OBSERVE:
        return Hold(Reason(ReasonCode.NOT_OVERSOLD, "its mode is Observe"))
    if policy.is_paused:
        return Hold(Reason(ReasonCode.PAUSED, "it is paused"))
    stale = _stale(policy, now, stale_after)
    if stale:
        return Hold(Reason(ReasonCode.STALE_RATE, stale))
    told = _told(policy, resource)
    if policy.actuator is Actuator.EXTENDED_RESOURCES:
        is_offered = float(told.get("offered") or 0.0) > 0
        return 1.0 if is_offered else Hold(Reason(ReasonCode.NOT_OVERSOLD, "its nodes offer nothing now"))
    told_rate = (told.get("amplification") or {}).get("rate")
    if told_rate is None:
        return Hold(Reason(ReasonCode.STALE_RATE, "its status has no amplification.rate"))
    rate = min(float(told_rate), policy.terms[resource].max_rate, HIGHEST_RATE)
    return rate if rate > 1 else Hold(Reason(ReasonCode.NOT_OVERSOLD, "its rate is 1: nothing is oversold"))


def _awaited(policy: OversubscriptionPolicy, resource: Resource) -> float:
    has_suspended = bool((policy.status.get("nodes") or {}).get("suspended"))
    return _amount(policy, resource, "largestReclaimable") if has_suspended else 0.0


def _amount(policy: OversubscriptionPolicy, resource: Resource, name: str) -> float:
    return float(_told(policy, resource).get(name) or 0.0)


def _told(policy: OversubscriptionPolicy, resource: Resource) -> Mapping[str, Any]:
    return next((r for r in policy.status.get("resources") or () if r.get("name") == resource.value), {})


def _stale(policy: OversubscriptionPolicy, now: float, stale_after: float) -> str:
    """Why its status says nothing of now; empty where it does."""
    looked_at = policy.status.get("lookedAt")
    if looked_at is None:
        return "no controller has looked at its nodes yet"
    if policy.status.get("observedGeneration") != policy.generation:
        return "no controller has looked at its nodes since its spec was changed"
    try:
        age = now - seconds_of(str(looked_at))
    except ValueError:
        return f"its status says {str(looked_at)!r} of when a controller looked at its nodes"
    if abs(age) > stale_after:
        return f"a controller last looked at its nodes {age:.0f} s ago"
    return ""
