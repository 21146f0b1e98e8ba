"""Where the pods of a workload are: nodes as the controller keeps them, and what of them counts as a domain."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autoscaler.cluster.containers import PodState
from autoscaler.cluster.domains import DomainKind, FailureDomains
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.ports import TargetWorkload
from autoscaler.kube.objects import JsonObject

ZONE_LABEL = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True)
class WatchedNode:
    """A node, as far as it matters for where pods can be."""

    name: str
    labels: frozenset[tuple[str, str]]
    takes_pods: bool
    """Ready, and not cordoned."""

    @property
    def zone(self) -> str:
        """Empty where it has none."""
        return dict(self.labels).get(ZONE_LABEL, "")


def watched_node_of(item: JsonObject) -> WatchedNode:
    """The node, reduced."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    conditions = {str(each.get("type")): each.get("status") for each in status.get("conditions") or ()}
    return WatchedNode(
        str(metadata["name"]),
        frozenset((str(k), str(v)) for k, v in (metadata.get("labels") or {}).items()),
        conditions.get("Ready") == "True" and not spec.get("unschedulable"),
    )


def failure_domains(
    kind: DomainKind, target: TargetWorkload, pods: Iterable[PodState], nodes: Mapping[str, WatchedNode] | Hold
) -> FailureDomains | Hold:
    """Where a target's running pods are, among the domains of the nodes that its `nodeSelector` allows.

    What affinity and taints forbid is not looked at: domains that pods can never be placed in count as eligible.
    """
    if isinstance(nodes, Hold):
        return nodes
    counts: Counter[str] = Counter()
    for pod in pods:
        if not pod.is_running or not pod.node:
            continue
        node = nodes.get(pod.node)
        if node is None:
            continue  # it is gone, and the pod with it, only this is not known yet
        domain = node.name if kind is DomainKind.NODE else node.zone
        if not domain:
            text = f"{pod.name} runs on {node.name}, which has no label {ZONE_LABEL}"
            return Hold(Reason(ReasonCode.DOMAINS_UNKNOWN, text))
        counts[domain] += 1
    allowed = [node for node in nodes.values() if node.takes_pods and node.labels >= set(target.node_selector)]
    eligible = {node.name if kind is DomainKind.NODE else node.zone for node in allowed} - {""}
    if not eligible:
        text = f"no node that takes its pods has a label {ZONE_LABEL}" if allowed else "no node takes its pods"
        return Hold(Reason(ReasonCode.DOMAINS_UNKNOWN, text))
    fullest_first = tuple(sorted(counts.items(), key=lambda each: (-each[1], each[0])))
    return FailureDomains(kind, fullest_first, len(eligible))
