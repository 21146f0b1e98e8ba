"""Whether the loss of a node or zone would be survived now, for a reader. Values in, values out."""

from typing import Any

from autoscaler.cluster.capacity import Capacity
from autoscaler.cluster.commands import Decision
from autoscaler.cluster.domains import FailureDomains
from autoscaler.cluster.reasons import Hold, replicas_text
from autoscaler.controller.planning import Plan

CONDITION = "SurvivesLoss"


def survival_verdict(plan: Plan) -> tuple[bool, str, str] | None:
    """Whether it would be, the reason in a word and in a sentence; None where an object does not ask for it."""
    target, policy = plan.workload.target, plan.policy
    if plan.autoscaler.survives is None or isinstance(target, Hold) or policy is None or target.domains is None:
        return None
    domains = target.domains
    if isinstance(domains, Hold):
        return False, domains.reason.code.value, f"{domains.reason.message}; no replicas are removed meanwhile"
    kind = domains.kind.value
    if domains.there < 2:
        return False, "OneDomain", f"its pods can be in one {kind} only, and no number of replicas survives its loss"
    if isinstance(policy.capacity, Hold):
        return False, policy.capacity.reason.code.value, policy.capacity.reason.message
    needed = _needed(plan.decision, policy.capacity.scaled(plan.relied_share))
    if needed is None:
        return False, plan.decision.reason.code.value, "demand is not known"
    name, most = domains.fullest
    left = domains.placed - most
    lost = f"{name} has {most} of the {replicas_text(domains.placed)} that run" if name else "no replica runs"
    text = f"{lost}: without it {left} are left, and demand needs {needed}"
    return (True, "Survives", text) if left >= needed else (False, "TooFewLeft", text)


def survival_json(plan: Plan) -> dict[str, Any] | None:
    """The same as data, with where the pods are."""
    verdict, target = survival_verdict(plan), plan.workload.target
    if verdict is None or isinstance(target, Hold):
        return None
    survives, reason, message = verdict
    pods = dict(target.domains.pods) if isinstance(target.domains, FailureDomains) else {}
    return {"survives": survives, "reason": reason, "message": message, "pods": pods}


def _needed(decision: Decision, capacity: Capacity) -> int | None:
    known = [each.value for each in (decision.forecast, decision.observed) if not isinstance(each, Hold)]
    return capacity.replicas_for(max(known)) if known else None
