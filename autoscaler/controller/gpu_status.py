"""What the status of an OversubscriptionPolicy with GPUSharing says, and its metrics. Values in, values out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from autoscaler.cluster.reasons import Hold, ReasonCode
from autoscaler.controller.autoscalers import Mode
from autoscaler.controller.gpu_sharing import GPU_CONFIG_LABEL, SharedNode, replicas_of
from autoscaler.controller.node_budget import BudgetRecord
from autoscaler.controller.node_status import as_conditions, limited, violations
from autoscaler.controller.policies import OversubscriptionPolicy, rivals_of
from autoscaler.decisions.gpu_sharing import Share, hami_advice
from autoscaler.metrics import NodeGauges, PolicyGauges
from predictor.usage.panel import Resource

NODES_KEPT = 50
"""Most nodes that a status names."""

JsonObject = dict[str, Any]


def gpu_status(
    policy: OversubscriptionPolicy,
    policies: Sequence[OversubscriptionPolicy],
    shared: Sequence[SharedNode],
    before: Mapping[str, Any],
    now_seconds: float,
    *,
    record: BudgetRecord,
    refusal: str = "",
    note: str = "",
) -> JsonObject:
    """The whole status of a policy with GPUSharing."""
    mine = [each for each in shared if policy.selects(each.node)]
    devices = sum(each.devices for each in mine)
    suspended = sorted(each.node.name for each in mine if each.fullness is not None)
    reasons: dict[ReasonCode, tuple[int, str]] = {}
    for each in sorted(mine, key=lambda one: one.node.name):
        count, words = reasons.get(each.reason.code, (0, f"{each.node.name}: {each.reason.message}"))
        reasons[each.reason.code] = (count + 1, words)
    status: JsonObject = {
        "observedGeneration": policy.generation,
        "nodes": {
            "selected": len(mine),
            "cold": sum(isinstance(each.decision.share, Hold) for each in mine),
            "stale": sum(each.decision.is_stale for each in mine),
            "suspended": len(suspended),
        },
        "resources": [
            {
                "name": Resource.GPU.value,
                "rate": round(_rate(mine), 4),
                "allocatable": float(devices),
                "requested": float(sum(each.in_use for each in mine)),
                "reclaimable": float(sum(_reclaimable(each) for each in mine)),
                "offered": float(sum(_offered(each) for each in mine)),
                "reasons": [
                    {"reason": code.value, "nodes": count, "message": words}
                    for code, (count, words) in sorted(reasons.items())
                ],
                "violations": violations(record, terms.violation_probability),
                "violationProbability": terms.violation_probability,
            }
            for terms in policy.terms.values()
        ],
        "gpus": [_told(each) for each in sorted(mine, key=lambda one: one.node.name)[:NODES_KEPT]],
    }
    if suspended:
        status["suspendedNodes"] = suspended[:NODES_KEPT]
    verdicts = _verdicts(policy, policies, mine, refusal, note)
    status["conditions"] = as_conditions(verdicts, before.get("conditions") or (), now_seconds)
    return status


def gpu_gauges(
    policies: Iterable[OversubscriptionPolicy],
    shared: Sequence[SharedNode],
    record_of: Callable[[OversubscriptionPolicy], BudgetRecord],
) -> Iterable[PolicyGauges]:
    """The metrics of policies with GPUSharing."""
    for policy in policies:
        rate, record = _rate([each for each in shared if policy.selects(each.node)]), record_of(policy)
        for resource, terms in policy.terms.items():
            used = record.used_share(terms.violation_probability)
            yield PolicyGauges(policy.name, resource.value, rate, record.violations, used, record.severity, None)


def node_gauges(each: SharedNode) -> NodeGauges:
    """The metrics of a node whose GPUs are shared, in devices and shares of them."""
    return NodeGauges(
        node=each.node.name,
        resource=Resource.GPU.value,
        predicted_peak=None,
        reclaimable=float(_reclaimable(each)),
        offered=float(_offered(each)),
        sold=float(each.in_use),
        is_suspended=each.fullness is not None,
        is_stale=each.decision.is_stale,
    )


def _rate(mine: Sequence[SharedNode]) -> float:
    """Shares there may be ÷ devices."""
    devices = sum(each.devices for each in mine)
    return sum(each.devices + _reclaimable(each) for each in mine) / devices if devices else 1.0


def _reclaimable(each: SharedNode) -> int:
    """Shares beyond one for each device."""
    return each.devices * (each.decision.replicas - 1)


def _offered(each: SharedNode) -> int:
    """Shares there are, as the node's label says."""
    return each.devices * replicas_of(each.node)


def _told(each: SharedNode) -> JsonObject:
    told: JsonObject = {
        "node": each.node.name,
        "devices": each.devices,
        "replicas": each.decision.replicas,
        "reason": each.reason.code.value,
        "message": each.reason.message,
    }
    if isinstance(each.decision.share, Share):
        advice = hami_advice(each.decision.share, each.device_bytes)
        told["hami"] = {"gpucores": advice.gpu_cores, "gpumemPercentage": advice.gpu_memory_percentage}
    return told


def _verdicts(
    policy: OversubscriptionPolicy,
    policies: Sequence[OversubscriptionPolicy],
    mine: Sequence[SharedNode],
    refusal: str,
    note: str,
) -> dict[str, tuple[bool, str, str]]:
    if policy.problem:
        return {"NodesSelected": (False, ReasonCode.INVALID_SPEC.value, policy.problem)}
    if not mine:
        return {"NodesSelected": (False, "NoNodes", "no node carries all labels of spec.nodeSelector")}
    rivals = rivals_of(policy, policies, [each.node for each in mine])
    known = sum(_is_told(each) for each in mine)
    names = ", ".join(f"{name} ({count} nodes)" for name, count in sorted(rivals.items()))
    others = [f"{each.node.name}: {each.conflict}" for each in mine if each.conflict]
    able: tuple[bool, str, str] = (True, "SucceededUpdate", f"nodes are labelled {GPU_CONFIG_LABEL}")
    if refusal:
        able = (False, "FailedUpdateNode", refusal)
    elif note or policy.is_paused:
        able = (False, ReasonCode.PAUSED.value, note or "paused by its annotation: labels are taken off")
    elif policy.mode is Mode.OBSERVE:
        able = (True, Mode.OBSERVE.value, "nothing is written to nodes; spec.mode Auto labels them")
    why = ReasonCode.STALE_NODE if all(each.decision.is_stale for each in mine) else ReasonCode.NO_EVIDENCE
    unknown = next((f"{e.node.name}: {e.decision.reason.message}" for e in mine if not _is_told(e)), "")
    active = f"of {known} of {len(mine)} nodes it is told what a share takes"
    conflict = (
        True,
        ReasonCode.CONFLICT.value,
        others[0] if others else f"also selected by {names}: the stricter holds",
    )
    return {
        "NodesSelected": (True, "NodesFound", f"{len(mine)} nodes carry all labels of spec.nodeSelector"),
        "AbleToReclaim": able,
        "ReclaimingActive": (True, "PeaksPredicted", active) if known else (False, why.value, unknown),
        "ReclaimingLimited": limited(each.reason.code for each in mine),
        "Conflict": conflict if others or rivals else (False, "NoConflict", "nothing else shares these nodes' GPUs"),
    }


def _is_told(each: SharedNode) -> bool:
    return isinstance(each.decision.share, Share)
