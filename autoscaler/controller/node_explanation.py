"""What a look came to at one node, as JSON and in words: what may be sold of it and why, and what the guard did."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from autoscaler.cluster.nodes import shown
from autoscaler.cluster.reasons import Hold
from autoscaler.controller.gpu_sharing import SharedNode
from autoscaler.controller.node_looks import LookedAt
from autoscaler.controller.node_status import reason_of
from autoscaler.controller.policies import NodeTerms
from autoscaler.controller.records import moment, reason_json
from autoscaler.decisions.gpu_sharing import Share
from autoscaler.decisions.reclaiming import ToldPeak
from autoscaler.errors import UnknownNode
from predictor.usage.panel import Resource

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Looks:
    """What one look at the nodes came to."""

    at_seconds: float
    nodes: Mapping[str, LookedAt]
    """By name, those that policies select."""
    gpus: Mapping[str, SharedNode]
    """The same of policies that share GPUs."""
    usable_share: float

    def records(self) -> list[JsonObject]:
        """All that it came to at each node, by name."""
        return [self.record(name) for name in sorted(self.nodes.keys() | self.gpus.keys())]

    def record(self, name: str) -> JsonObject:
        """All that it came to at a node, by CPU and memory and by GPUs; amounts in cores and bytes.

        Raises UnknownNode, with names that are near, for one that no policy selects.
        """
        known = self.nodes.keys() | self.gpus.keys()
        if name not in known:
            near = get_close_matches(name, known, 3, 0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"policies select {len(known)} nodes"
            raise UnknownNode(f"no OversubscriptionPolicy selects a node {name!r}; {hint}")
        record: JsonObject = {"node": name, "looked_at": moment(self.at_seconds)}
        looked, shared = self.nodes.get(name), self.gpus.get(name)
        if looked is not None:
            reading = looked.reading
            record |= {
                "policies": list(looked.policies),
                "takes_pods": reading.node.takes_pods,
                "is_stale": reading.is_stale,
                "guard": _guard(looked),
                "resources": [_resource(each, looked, self.usable_share) for each in reading.shelves],
            }
        if shared is not None:
            record["gpus"] = _gpus(shared)
        return record


def _guard(looked: LookedAt) -> JsonObject:
    guard = looked.reading.guard
    times = {
        "suspended_since": guard.suspended_since_seconds,
        "calm_since": guard.calm_since_seconds,
        "evicted_at": guard.evicted_at_seconds,
    }
    return {
        **{what: moment(at) for what, at in times.items() if at is not None},
        **({} if guard.reason is None else {"reason": reason_json(guard.reason)}),
    }


def _resource(resource: Resource, looked: LookedAt, usable_share: float) -> JsonObject:
    reading = looked.reading.shelves[resource]
    shelf, held = reading.shelf, looked.terms[resource]
    reason = reason_of(looked.reading, resource)
    return {
        "name": resource.value,
        **_terms(held),
        "allocatable": shelf.allocatable,
        "usable": usable_share * shelf.allocatable,
        "requested": shelf.requested,
        "peak": _peak(shelf.peak),
        "newcomers": None if isinstance(shelf.newcomers, Hold) else shelf.newcomers,
        "reclaimable": reading.decision.amount,
        "offered": reading.offered,
        "sold": shelf.sold,
        "used": looked.used.get(resource),
        "reason": None if reason is None else reason_json(reason),
    }


def _terms(held: NodeTerms) -> JsonObject:
    return {
        "sells": held.sells,
        "actuator": held.actuator.value,
        "violation_probability": held.terms.violation_probability,
        "horizon_seconds": held.terms.horizon_seconds,
        "max_rate": held.terms.max_rate,
    }


def _peak(peak: ToldPeak | Hold) -> JsonObject:
    if isinstance(peak, Hold):
        return {"reason": reason_json(peak.reason)}
    return {
        "value": peak.value,
        "asked_probability": peak.asked_probability,
        "past_horizons": peak.past_horizons,
        "cold_tasks": peak.cold_tasks,
    }


def _gpus(shared: SharedNode) -> JsonObject:
    share = shared.decision.share
    return {
        **_terms(shared.terms),
        "devices": shared.devices,
        "in_use": shared.in_use,
        "replicas": shared.decision.replicas,
        "label": shared.config,
        "share": {"activity": share.activity, "memory_bytes": share.memory_bytes} if isinstance(share, Share) else None,
        "reason": reason_json(shared.reason),
    }


def node_explanation(record: JsonObject) -> str:
    """What `Looks.record` says, for a terminal."""
    lines = [f"{record['node']}, looked at {record['looked_at']}", ""]
    if "resources" in record:
        state = [] if record["takes_pods"] else ["not Ready, or cordoned"]
        state += ["not measured lately"] if record["is_stale"] else []
        lines += [f"  policies     {', '.join(record['policies'])}", f"  guard        {_guard_words(record['guard'])}"]
        lines += [f"  node         {'; '.join(state)}"] if state else []
    for each in record.get("resources", ()):
        lines += ["", *_resource_lines(each)]
    if "gpus" in record:
        lines += ["", *_gpu_lines(record["gpus"])]
    return "\n".join(lines)


def _guard_words(guard: JsonObject) -> str:
    if "suspended_since" not in guard:
        return "has not stepped in"
    words = f"nothing more is sold since {guard['suspended_since']}"
    words += f": {guard['reason']['message']}" if "reason" in guard else ""
    words += f"; pods were evicted at {guard['evicted_at']}" if "evicted_at" in guard else ""
    return words + (f"; calm since {guard['calm_since']}" if "calm_since" in guard else "")


def _resource_lines(each: JsonObject) -> list[str]:
    resource = Resource(each["name"])

    def said(amount: float | None) -> str:
        return "an unknown amount" if amount is None else shown(resource, amount)

    peak, mode = each["peak"], each["actuator"] if each["sells"] else "nothing is sold"
    usable, newcomers, left = said(each["usable"]), said(each["newcomers"]), said(each["reclaimable"])
    if "value" in peak:
        told = (
            f"{said(peak['value'])} are exceeded within {each['horizon_seconds'] / 3600:g} h with a probability of "
            f"{each['violation_probability']:.3g} (asked for {peak['asked_probability']:.3g}, from "
            f"{peak['past_horizons']} past horizons; {peak['cold_tasks']} tasks count in full)"
        )
        arithmetic = f"{usable} usable − {said(peak['value'])} − {newcomers} that came since: {left} may be sold"
    else:
        told, arithmetic = f"not told: {peak['reason']['message']}", f"{usable} usable: {left} may be sold"
    reason = each["reason"]
    return [
        f"  {resource.value:<12} {mode}; {said(each['allocatable'])} allocatable, {said(each['used'])} used now, "
        f"{said(each['requested'])} requested on ordinary terms",
        f"  peak         {told}",
        f"  arithmetic   {arithmetic}, no more than {each['max_rate']:g} times what is allocatable in all",
        f"  offered      {said(each['offered'])}, of which {said(each['sold'])} are sold",
        *([] if reason is None else [f"  because      {reason['code']}: {reason['message']}"]),
    ]


def _gpu_lines(gpus: JsonObject) -> list[str]:
    mode = gpus["actuator"] if gpus["sells"] else "nothing is written"
    share = gpus["share"]
    takes = (
        "not told" if share is None else f"{share['activity']:.0%} of a device, {share['memory_bytes'] / 2**30:.4g} GiB"
    )
    return [
        f"  gpu          {mode}; {gpus['devices']} devices, {gpus['in_use']} shares in use, "
        f"{gpus['replicas']} shares of each device, {gpus['max_rate']:g} at most",
        f"  a share      {takes}",
        f"  label        {gpus['label'] or 'none'}",
        f"  because      {gpus['reason']['code']}: {gpus['reason']['message']}",
    ]
