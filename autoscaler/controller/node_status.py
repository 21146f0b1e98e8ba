"""What an OversubscriptionPolicy's status says, and whether it is worth a write. Values in, values out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoscaler.cluster.nodes import Actuator, NodeState
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.autoscalers import Mode, as_time
from autoscaler.controller.node_budget import BudgetRecord
from autoscaler.controller.policies import OversubscriptionPolicy, Terms
from autoscaler.decisions.amplification import PoolRate, node_rate, pool_rate
from autoscaler.decisions.node_guard import Guard
from autoscaler.decisions.reclaiming import Reclaimable, Shelf, ToldPeak, oversubscription_rate
from autoscaler.metrics import PolicyGauges
from predictor.usage.panel import Resource

JsonObject = dict[str, Any]
REFRESH_SECONDS = 60.0
"""Figures that alone have changed are written this often."""
NAMES_KEPT = 50
"""Most suspended nodes that a status names."""


@dataclass(frozen=True, slots=True)
class ShelfReading:
    """One node and resource after a cycle, in the resource's base unit."""

    shelf: Shelf
    decision: Reclaimable
    offered: float
    """What the node's status offers now."""
    sells: bool = True
    """Whether all policies that select it sell the resource there, and by one actuator."""
    in_hindsight: float | None = None
    """What an oracle of the horizon that has just ended would have sold; None where it is not known."""


@dataclass(frozen=True, slots=True)
class NodeReading:
    """One node after a cycle."""

    node: NodeState
    shelves: Mapping[Resource, ShelfReading]
    is_stale: bool
    """Whether its usage was not measured lately."""
    guard: Guard
    clock_ahead: float = 0.0
    """By how many seconds its clock is ahead, where it is stale for that."""


@dataclass(frozen=True, slots=True)
class PolicyReading:
    """One policy after a cycle."""

    policy: OversubscriptionPolicy
    nodes: tuple[NodeReading, ...]
    """Those that it selects."""
    records: Mapping[Resource, BudgetRecord]
    rivals: Mapping[str, int]
    refusal: str = ""
    """Why a node could not be written."""
    note: str = ""
    """Why nothing is written, where it is not for the policy: a dry run, or a pause of everything."""


@dataclass(frozen=True, slots=True)
class ResourceReading:
    """One policy and resource over all its nodes, in the resource's base unit."""

    policy: str
    resource: Resource
    rate: float
    predicted_peak: float | None
    allocatable: float
    requested: float
    reclaimable: float
    offered: float
    sold: float
    largest_unsold: float
    """Most that one node, Ready and not cordoned, offers beyond what pods there ask for."""
    largest_reclaimable: float
    """Most that may be sold of one such node, be it suspended or not."""
    violations: int
    budget: float
    budget_used: float
    severity: float
    oracle_rate: float | None


def resource_readings(reading: PolicyReading) -> Iterable[ResourceReading]:
    """Sums over the nodes; the peak is that of the nodes that have one, and what is reclaimable that of those on which
    the guard has not stopped sales and whose usage is known: of the others no more than what was sold."""
    for resource, terms in reading.policy.terms.items():
        nodes = [each for each in reading.nodes if resource in each.shelves]
        shelves = [each.shelves[resource] for each in nodes]
        told = [each.shelf.peak.value for each in shelves if isinstance(each.shelf.peak, ToldPeak)]
        allocatable = sum(each.shelf.allocatable for each in shelves)
        requested = sum(each.shelf.requested for each in shelves)
        reclaimable = sum(
            shelf.shelf.sold if _is_held(each) else shelf.decision.amount
            for each, shelf in zip(nodes, shelves, strict=True)
        )
        oracle = [each.in_hindsight for each in shelves if each.in_hindsight is not None]
        record = reading.records.get(resource, BudgetRecord())
        yield ResourceReading(
            reading.policy.name,
            resource,
            oversubscription_rate(requested, reclaimable, allocatable),
            sum(told) if told else None,
            allocatable,
            requested,
            reclaimable,
            sum(each.offered for each in shelves),
            sum(each.shelf.sold for each in shelves),
            max(
                (
                    max(shelf.offered - shelf.shelf.sold, 0.0)
                    for each, shelf in zip(nodes, shelves, strict=True)
                    if each.node.takes_pods
                ),
                default=0.0,
            ),
            max(
                (s.decision.amount for each, s in zip(nodes, shelves, strict=True) if each.node.takes_pods), default=0.0
            ),
            record.violations,
            record.budget(terms.violation_probability),
            record.used_share(terms.violation_probability),
            record.severity,
            oversubscription_rate(requested, sum(oracle), allocatable) if oracle else None,
        )


def policy_gauges(reading: PolicyReading) -> Iterable[PolicyGauges]:
    """The metrics of a policy, of each resource."""
    for each in resource_readings(reading):
        yield PolicyGauges(
            policy=each.policy,
            resource=each.resource.value,
            rate=each.rate,
            violations=each.violations,
            budget_used=each.budget_used,
            severity=each.severity,
            oracle_rate=each.oracle_rate,
        )


def policy_status(reading: PolicyReading, before: Mapping[str, Any], now_seconds: float) -> JsonObject:
    """The whole status; `before` is the one that it takes the place of."""
    policy, nodes = reading.policy, reading.nodes
    status: JsonObject = {
        "observedGeneration": policy.generation,
        "nodes": {
            "selected": len(nodes),
            "cold": sum(_is_cold(each) for each in nodes),
            "stale": sum(each.is_stale for each in nodes),
            "suspended": sum(_is_suspended(each) for each in nodes),
        },
        "resources": [_resource(reading, each, policy.terms[each.resource]) for each in resource_readings(reading)],
        "conditions": as_conditions(_verdicts(reading), before.get("conditions") or (), now_seconds),
    }
    if policy.sells:
        # Who admits pods must know that what is told here still holds.
        status["lookedAt"] = as_time(now_seconds)
    suspended = sorted(each.node.name for each in nodes if _is_suspended(each))
    if suspended:
        status["suspendedNodes"] = suspended[:NAMES_KEPT]
    return status


def is_worth_a_write(before: Mapping[str, Any], after: Mapping[str, Any], since_seconds: float) -> bool:
    """Whether what a person or a new leader must know has changed, or figures did and some time has passed."""
    return _essence(before) != _essence(after) or (since_seconds >= REFRESH_SECONDS and dict(before) != dict(after))


def _essence(status: Mapping[str, Any]) -> JsonObject:
    return {
        **{name: status.get(name) for name in ("observedGeneration", "nodes", "suspendedNodes", "gpus")},
        "conditions": [(c.get("type"), c.get("status"), c.get("reason")) for c in status.get("conditions") or ()],
        "resources": [
            (
                r.get("name"),
                r.get("offered"),
                r.get("sold"),
                r.get("largestUnsold"),
                (r.get("violations") or {}).get("count"),
                (r.get("amplification") or {}).get("rate"),
            )
            for r in status.get("resources") or ()
        ],
    }


def _is_cold(reading: NodeReading) -> bool:
    return any(isinstance(each.shelf.peak, Hold) for each in reading.shelves.values())


def _is_suspended(reading: NodeReading) -> bool:
    return reading.guard.suspended_since_seconds is not None


def _is_held(reading: NodeReading) -> bool:
    """Whether it offers what it has sold, and no more."""
    return reading.is_stale or _is_suspended(reading)


def _resource(reading: PolicyReading, sums: ResourceReading, terms: Terms) -> JsonObject:
    record = reading.records.get(sums.resource, BudgetRecord())
    told: JsonObject = {
        "name": sums.resource.value,
        "rate": round(sums.rate, 4),
        **({} if sums.oracle_rate is None else {"oracleRate": round(sums.oracle_rate, 4)}),
        **({} if sums.predicted_peak is None else {"predictedPeak": _short(sums.predicted_peak)}),
        "allocatable": _short(sums.allocatable),
        "requested": _short(sums.requested),
        "reclaimable": _short(sums.reclaimable),
        "offered": _short(sums.offered),
        "sold": _short(sums.sold),
        "largestUnsold": _short(sums.largest_unsold),
        "largestReclaimable": _short(sums.largest_reclaimable),
        "reasons": _reasons(reading.nodes, sums.resource),
        "violations": violations(record, terms.violation_probability),
        "violationProbability": terms.violation_probability,
    }
    if reading.policy.actuator is Actuator.REQUEST_AMPLIFICATION:
        allowed = amplification(reading, sums.resource)
        told["amplification"] = {
            "rate": round(allowed.rate, 2),
            "reason": allowed.reason.code.value,
            "message": allowed.reason.message,
        }
    return told


def violations(record: BudgetRecord, violation_probability: float) -> JsonObject:
    """How often what was told of a resource was wrong, beside how often it may be."""
    return {
        "count": record.violations,
        "nodeHorizons": record.node_horizons,
        "budget": _short(record.budget(violation_probability)),
        "budgetUsed": _short(record.used_share(violation_probability)),
        "severity": _short(record.severity),
        "record": record.as_json(),
    }


def amplification(reading: PolicyReading, resource: Resource) -> PoolRate:
    """By what requests of pods that go to the policy's nodes may be divided now; 1 where any of them forbids it.

    Of a policy that sells nothing it is what it could be.
    """
    return pool_rate(
        {
            each.node.name: _node_rate(each, resource, sells=reading.policy.sells)
            for each in reading.nodes
            if each.node.takes_pods and resource in each.shelves
        }
    )


def _node_rate(reading: NodeReading, resource: Resource, *, sells: bool) -> PoolRate:
    shelf = reading.shelves[resource]
    reason = reason_of(reading, resource) or shelf.decision.reason
    if _is_held(reading):
        return PoolRate(1.0, reason)
    if sells and not shelf.sells:
        return PoolRate(1.0, Reason(ReasonCode.CONFLICT, "another policy selects it that observes or sells otherwise"))
    return node_rate(shelf.shelf, shelf.decision)


def _reasons(nodes: Sequence[NodeReading], resource: Resource) -> list[JsonObject]:
    """How many nodes there are for each reason, with the words of the first of them by name."""
    found: dict[ReasonCode, tuple[int, str]] = {}
    for each in sorted(nodes, key=lambda reading: reading.node.name):
        reason = reason_of(each, resource)
        if reason is not None:
            count, words = found.get(reason.code, (0, f"{each.node.name}: {reason.message}"))
            found[reason.code] = (count + 1, words)
    return [{"reason": code.value, "nodes": count, "message": words} for code, (count, words) in sorted(found.items())]


def reason_of(reading: NodeReading, resource: Resource) -> Reason | None:
    """Why a node offers what it offers."""
    if resource not in reading.shelves:
        return None
    if reading.guard.suspended_since_seconds is not None:
        words = f"suspended since {as_time(reading.guard.suspended_since_seconds)}"
        cause = reading.guard.reason
        return Reason(cause.code, f"{words}: {cause.message}") if cause else Reason(ReasonCode.NODE_FULL, words)
    if reading.is_stale:
        why = "its usage was not measured lately"
        if reading.clock_ahead:
            why = f"its clock is {reading.clock_ahead:.0f} s or more ahead of the controller's, so its usage is old"
        return Reason(ReasonCode.STALE_NODE, f"{why}: it offers what it has sold, and no more")
    return reading.shelves[resource].decision.reason


def as_conditions(
    verdicts: Mapping[str, tuple[bool, str, str]], before: Iterable[Mapping[str, Any]], now_seconds: float
) -> list[JsonObject]:
    """Conditions by type from whether they hold, reason and message; `before` says since when they do."""
    former = {each["type"]: each for each in before if "lastTransitionTime" in each}
    answer = []
    for kind, (holds, reason, message) in verdicts.items():
        status = "True" if holds else "False"
        was = former.get(kind, {})
        since = was["lastTransitionTime"] if was.get("status") == status else as_time(now_seconds)
        answer.append(
            {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}
        )
    return answer


def _verdicts(reading: PolicyReading) -> dict[str, tuple[bool, str, str]]:
    policy, nodes = reading.policy, reading.nodes
    if policy.problem:
        return {"NodesSelected": (False, ReasonCode.INVALID_SPEC.value, policy.problem)}
    if not nodes:
        return {"NodesSelected": (False, "NoNodes", "no node carries all labels of spec.nodeSelector")}
    return {
        "NodesSelected": (True, "NodesFound", f"{len(nodes)} nodes carry all labels of spec.nodeSelector"),
        "AbleToReclaim": _able(reading),
        "ReclaimingActive": _active(nodes),
        "ReclaimingLimited": limited(
            reason.code
            for each in nodes
            for resource in each.shelves
            if (reason := reason_of(each, resource)) is not None
        ),
        "Conflict": _conflict(reading.rivals),
    }


def _able(reading: PolicyReading) -> tuple[bool, str, str]:
    if reading.refusal:
        return False, "FailedUpdateNode", reading.refusal
    if reading.note:
        return False, ReasonCode.PAUSED.value, reading.note
    if reading.policy.is_paused:
        return False, ReasonCode.PAUSED.value, "paused by its annotation: what was offered is taken back"
    if reading.policy.mode is Mode.OBSERVE:
        return True, Mode.OBSERVE.value, "nothing is written to nodes; spec.mode Auto offers what is reclaimable"
    if not any(shelf.sells for each in reading.nodes for shelf in each.shelves.values()):
        text = "nothing is sold: on each of its nodes another policy observes, is paused or sells otherwise"
        return False, ReasonCode.CONFLICT.value, text
    if reading.policy.actuator is Actuator.REQUEST_AMPLIFICATION:
        text = "foresize webhook may divide requests of pods of opted-in namespaces by amplification.rate"
        return True, "SucceededUpdate", text
    return True, "SucceededUpdate", "nodes offer what is reclaimable"


def _active(nodes: Sequence[NodeReading]) -> tuple[bool, str, str]:
    count = sum(not _is_cold(each) and not each.is_stale for each in nodes)
    if count:
        return True, "PeaksPredicted", f"of {count} of {len(nodes)} nodes the peak is predicted and usage is known"
    if all(each.is_stale for each in nodes):
        return False, ReasonCode.STALE_NODE.value, "usage of none of the nodes was measured lately"
    shown = next((r for each in nodes for r in _holds(each)), "the peak of no node is predicted")
    return False, ReasonCode.NO_EVIDENCE.value, shown


def _holds(reading: NodeReading) -> list[str]:
    return [
        f"{reading.node.name}: {each.shelf.peak.reason.message}"
        for each in reading.shelves.values()
        if isinstance(each.shelf.peak, Hold)
    ]


def limited(codes: Iterable[ReasonCode]) -> tuple[bool, str, str]:
    """Whether anything else than the predicted peak decides, from the reason of each node and resource."""
    counts = Counter(code for code in codes if code is not ReasonCode.PREDICTED_PEAK)
    if not counts:
        return False, "PredictedPeak", "the predicted peak alone decides on every node"
    most = counts.most_common(1)[0][0]
    said = ", ".join(f"{code.value} {count}" for code, count in sorted(counts.items()))
    return True, most.value, f"something else than the predicted peak decides: {said} (nodes and resources)"


def _conflict(rivals: Mapping[str, int]) -> tuple[bool, str, str]:
    if not rivals:
        return False, "NoConflict", "no other policy selects these nodes for the same resources"
    names = ", ".join(f"{name} ({count} nodes)" for name, count in sorted(rivals.items()))
    text = f"also selected by {names}: the stricter terms hold on those nodes, and other actuators sell nothing there"
    return True, ReasonCode.CONFLICT.value, text


def _short(value: float) -> float:
    """A figure to six digits, as people read it."""
    return float(f"{value:.6g}")
