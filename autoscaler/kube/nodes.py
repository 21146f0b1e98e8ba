"""Nodes, the pods on them and OversubscriptionPolicies: watched, and written where a policy wants it.

Nodes are watched as soon as the cluster knows the kind OversubscriptionPolicy, so that what nodes still offer is taken
back when the last policy is gone; pods only while there are policies.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

from autoscaler.cluster.containers import NO_AMOUNTS, SIZED, Amounts
from autoscaler.cluster.nodes import (
    RECLAIMED,
    UNITS_PER_BASE_UNIT,
    Actuator,
    GpuStrategy,
    KubeletEviction,
    NodePod,
    NodeState,
)
from autoscaler.controller.autoscalers import API_VERSION, PAUSED_ANNOTATION, Mode, as_micro_time, seconds_of
from autoscaler.controller.gpu_sharing import GPU_CONFIG_LABEL
from autoscaler.controller.node_ports import NodeObservation
from autoscaler.controller.policies import FLOOR, POLICY_KIND, VIOLATION_PROBABILITY, OversubscriptionPolicy, Terms
from autoscaler.controller.quantities import quantity
from autoscaler.decisions.amplification import first_request
from autoscaler.errors import ClusterRefused, ClusterUnavailable
from autoscaler.kube.admission import ORIGINAL_ANNOTATION, first_requests
from autoscaler.kube.client import JsonObject, KubeClient
from autoscaler.kube.clocks import seconds_since_boot
from autoscaler.kube.objects import FIELD_MANAGER, GPU, NOT_PAUSED, amounts_of, owner_of
from autoscaler.kube.watch import WatchedCollection
from predictor.usage.panel import Resource

POLICIES = f"/apis/{API_VERSION}/oversubscriptionpolicies"
NODES = "/api/v1/nodes"
PODS = "/api/v1/pods"
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
"""Where Events about objects without a namespace are."""
EVICTABLE_LABEL = "foresize.io/evictable"
REPORTER = "foresize.io/controller"
NOTE_CHARACTERS = 1024
SYNC_SECONDS = 30.0
OLDEST_SECONDS = 100.0
"""As of the objects that are scaled; see autoscaler/kube/cluster.py."""
DURATION_WRITTEN = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
EVICTED = "Evicted"
SHORT_OF_MEMORY = ("low on resource: memory", "MemoryPressure")
"""How a kubelet says in the status of a pod that it ended, or did not take in, what its node was short of."""
DONE = frozenset({"Succeeded", "Failed"})


@dataclass
class KubeNodes:
    """The nodes of a cluster."""

    client: KubeClient
    identity: str = ""
    """Who reports Events."""
    clock: Callable[[], float] = seconds_since_boot
    random: Random = field(default_factory=Random)

    def __post_init__(self) -> None:
        self._watched: dict[str, WatchedCollection[Any]] = {}
        self._awaited: set[str] = set()

    def close(self) -> None:
        """Ends every watch."""
        for each in self._watched.values():
            each.stop()

    def observe_nodes(self) -> NodeObservation:
        """Everything there is; nothing where the cluster does not know the kind."""
        policies = tuple(self._current(POLICIES, policy_of).values())
        if self._watched[POLICIES].is_absent and NODES not in self._watched:
            return NodeObservation((), (), ())
        nodes = tuple(self._current(NODES, node_of).values())
        found = tuple(self._current(PODS, pod_or_eviction_of).values()) if policies else ()
        return NodeObservation(
            tuple(sorted(policies, key=lambda each: each.name)),
            nodes,
            tuple(each for each in found if isinstance(each, NodePod)),
            tuple(each for each in found if isinstance(each, KubeletEviction)),
        )

    def set_offer(self, node: NodeState, offer: Mapping[Resource, int | None]) -> None:
        """Patches the node's status: capacity, and allocatable, which a kubelet would only bring up to date later."""
        amounts = {RECLAIMED[each]: None if amount is None else str(amount) for each, amount in offer.items()}
        changes = {"metadata": {"uid": node.uid}, "status": {"capacity": amounts, "allocatable": amounts}}
        self.client.patch(f"{NODES}/{node.name}/status", changes, fieldManager=FIELD_MANAGER)

    def set_gpu_config(self, node: NodeState, config: str | None) -> None:
        """Patches the label by which NVIDIA's device plugin is told its configuration."""
        changes = {"metadata": {"uid": node.uid, "labels": {GPU_CONFIG_LABEL: config}}}
        self.client.patch(f"{NODES}/{node.name}", changes, fieldManager=FIELD_MANAGER)

    def evict(self, pod: NodePod) -> None:
        """Creates an Eviction of the very pod."""
        eviction: JsonObject = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/eviction"
        self.client.create(path, eviction, fieldManager=FIELD_MANAGER)

    def set_policy_status(self, policy: OversubscriptionPolicy, status: Mapping[str, object]) -> None:
        """Puts the status into the very object that it is about."""
        operations: list[JsonObject] = [
            {"op": "test", "path": "/metadata/uid", "value": policy.uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        self.client.json_patch(f"{POLICIES}/{policy.name}/status", operations, fieldManager=FIELD_MANAGER)

    def publish_about(
        self, policy: OversubscriptionPolicy, reason: str, note: str, now_seconds: float, *, is_warning: bool
    ) -> None:
        """Creates an Event about the policy."""
        manifest: JsonObject = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{policy.name}.{self.random.getrandbits(64):016x}", "namespace": "default"},
            "eventTime": as_micro_time(now_seconds),
            "reportingController": REPORTER,
            "reportingInstance": self.identity or FIELD_MANAGER,
            "action": "Overselling",
            "reason": reason,
            "note": note[:NOTE_CHARACTERS],
            "type": "Warning" if is_warning else "Normal",
            "regarding": {"apiVersion": API_VERSION, "kind": POLICY_KIND, "name": policy.name, "uid": policy.uid},
        }
        self.client.create(EVENTS, manifest)

    def _current(self, path: str, reduce: Callable[[JsonObject], Any]) -> Mapping[str, Any]:
        if path not in self._watched:
            watch = WatchedCollection(self.client, path, reduce, clock=self.clock, random=self.random)
            self._watched[path] = watch
            watch.start()
        watch = self._watched[path]
        seconds = 0.0 if path in self._awaited else SYNC_SECONDS
        self._awaited.add(path)
        while not watch.wait_until_synced(min(seconds, 0.5)):
            seconds -= 0.5
            if seconds <= 0 or isinstance(watch.problem, ClusterRefused):
                raise watch.problem or ClusterUnavailable(f"{self.client.server} did not list {path} in time")
        age = watch.age_seconds()
        if age > OLDEST_SECONDS and not watch.is_absent:
            raise ClusterUnavailable(f"{path} was last seen {age:.0f} s ago: {watch.problem or 'nothing was heard'}")
        return watch.snapshot()


def policy_of(item: JsonObject) -> OversubscriptionPolicy:
    """The object; one whose spec cannot be followed carries its problem."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    wish = str((metadata.get("annotations") or {}).get(PAUSED_ANNOTATION, ""))
    identity: dict[str, Any] = {
        "name": str(metadata["name"]),
        "uid": str(metadata["uid"]),
        "generation": int(metadata.get("generation", 0)),
        "is_paused": wish.strip().lower() not in NOT_PAUSED,
        "status": item.get("status") or {},
    }
    try:
        actuator = spec.get("actuator") or {}
        least = amounts_of(actuator.get("minRequests"))
        return OversubscriptionPolicy(
            **identity,
            actuator=Actuator(actuator.get("type", Actuator.EXTENDED_RESOURCES)),
            floor=Amounts(*(given if given is not None else own for given, own in zip(least, FLOOR, strict=True))),
            gpu_strategy=GpuStrategy((actuator.get("gpu") or {}).get("strategy", GpuStrategy.TIME_SLICING)),
            selector=frozenset((str(k), str(v)) for k, v in (spec.get("nodeSelector") or {}).items()),
            terms={Resource(each["name"]): _terms_of(each) for each in spec["resources"]},
            mode=Mode(spec.get("mode", Mode.OBSERVE)),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__} "
        return OversubscriptionPolicy(**identity, problem=f"spec cannot be followed: {kind}{error}; apply it again")


def _terms_of(each: Mapping[str, Any]) -> Terms:
    probability = each.get("violationProbability", VIOLATION_PROBABILITY[Resource(each["name"])])
    return Terms(float(probability), _duration(str(each["horizon"])), float(each["maxRate"]))


def node_of(item: JsonObject) -> NodeState:
    """The node."""
    metadata, status = item["metadata"], item.get("status") or {}
    capacity = status.get("capacity") or {}
    conditions = {str(each.get("type")): each.get("status") for each in status.get("conditions") or ()}
    return NodeState(
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        labels=frozenset((str(k), str(v)) for k, v in (metadata.get("labels") or {}).items()),
        allocatable=amounts_of(status.get("allocatable")),
        offered=_reclaimed(capacity),
        has_memory_pressure=conditions.get("MemoryPressure") == "True",
        takes_pods=conditions.get("Ready") == "True" and not (item.get("spec") or {}).get("unschedulable"),
    )


def pod_or_eviction_of(item: JsonObject) -> NodePod | KubeletEviction | None:
    """The pod, where it is on a node and not done, or how the kubelet ended it for want of memory."""
    metadata, status = item["metadata"], item.get("status") or {}
    node, said = item["spec"].get("nodeName"), str(status.get("message", ""))
    if not node or status.get("reason") != EVICTED or not any(words in said for words in SHORT_OF_MEMORY):
        return node_pod_of(item)
    times = [each.get("lastTransitionTime") for each in status.get("conditions") or ()]
    last = max((seconds_of(each) for each in times if each), default=seconds_of(metadata["creationTimestamp"]))
    return KubeletEviction(str(node), f"{metadata['namespace']}/{metadata['name']}", last)


def node_pod_of(item: JsonObject) -> NodePod | None:
    """The pod, where it is on a node and not done."""
    metadata, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    node = spec.get("nodeName")
    if not node or status.get("phase") in DONE:
        return None
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    containers = [(each.get("resources") or {}) for each in [*(spec.get("containers") or ()), *sidecars]]
    reclaimed = [_reclaimed({**(c.get("limits") or {}), **(c.get("requests") or {})}) for c in containers]
    requests = [amounts_of(each.get("requests")) for each in containers]
    annotations = metadata.get("annotations") or {}
    if ORIGINAL_ANNOTATION in annotations:
        first = first_requests(annotations)
        named = [*(spec.get("containers") or ()), *sidecars]
        first_of = [first.get(str(each["name"]), NO_AMOUNTS) for each in named]
        requests = [_first(given, told) for given, told in zip(requests, first_of, strict=True)]
    workload = owner_of(metadata)
    # A static pod is its node's, and known by its own name.
    is_alone = not workload or workload.split("/")[1] == "Node"
    return NodePod(
        namespace=str(metadata["namespace"]),
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        node=str(node),
        workload=f"{metadata['namespace']}/Pod/{metadata['name']}" if is_alone else workload,
        requests=_sum(requests, needs_all=False),
        limits=_sum([amounts_of(each.get("limits")) for each in containers], needs_all=True),
        reclaimed=_sum(reclaimed, needs_all=False),
        priority=int(spec.get("priority") or 0),
        created_seconds=seconds_of(metadata["creationTimestamp"]),
        is_evictable=str((metadata.get("labels") or {}).get(EVICTABLE_LABEL, "")).lower() == "true",
        leaves_at_seconds=seconds_of(metadata["deletionTimestamp"]) if "deletionTimestamp" in metadata else None,
        has_state="/StatefulSet/" in workload
        or any("persistentVolumeClaim" in each or "ephemeral" in each for each in spec.get("volumes") or ()),
        gpus=int(sum(quantity(str((each.get("limits") or {}).get(GPU, "0"))) for each in containers)),
        is_lowered=ORIGINAL_ANNOTATION in annotations and not any(each != NO_AMOUNTS for each in reclaimed),
    )


def _first(given: Amounts, told: Amounts) -> Amounts:
    """What a container requested at first: what it requests now, or what its annotation says that was more."""
    for resource in SIZED:
        now, before = given.of(resource), told.of(resource)
        if now is not None and before is not None:
            given = given.having(resource, first_request(before, now))
    return given


def _reclaimed(given: Mapping[str, Any]) -> Amounts:
    """What a list of resources says of those that are reclaimed, in base units."""
    amounts = NO_AMOUNTS
    for resource, name in RECLAIMED.items():
        if name in given:
            amounts = amounts.having(resource, quantity(str(given[name])) / UNITS_PER_BASE_UNIT[resource])
    return amounts


def _sum(amounts: list[Amounts], *, needs_all: bool) -> Amounts:
    """What containers have in all; None of a resource that none of them gives, or not all of them."""
    total = NO_AMOUNTS
    for resource in SIZED:
        given = [value for each in amounts if (value := each.of(resource)) is not None]
        if given and (len(given) == len(amounts) or not needs_all):
            total = total.having(resource, sum(given))
    return total


def _duration(text: str) -> float:
    found = DURATION_WRITTEN.fullmatch(text)
    parts = [int(part or 0) for part in found.groups()] if found else [0, 0, 0]
    seconds = timedelta(hours=parts[0], minutes=parts[1], seconds=parts[2]).total_seconds()
    if seconds <= 0:
        raise ValueError(f"horizon {text!r} is no time such as 24h")
    return seconds
