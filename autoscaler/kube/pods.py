"""Pods as the controller keeps them: of all how long they took to get Ready, more only where objects ask for it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from autoscaler.cluster.containers import SIZED, ContainerState, PendingResize, PodState
from autoscaler.controller.autoscalers import seconds_of
from autoscaler.decisions.resizes import GUARANTEED, IN_PROGRESS
from autoscaler.kube.admission import ORIGINAL_ANNOTATION
from autoscaler.kube.objects import JsonObject, ReadyPod, amounts_of, owner_of, ready_pod_of
from predictor.usage.panel import Resource

RESTARTS = "RestartContainer"
OOM_KILLED = "OOMKilled"


@dataclass(frozen=True, slots=True)
class WatchedPod:
    """A pod of a workload whose pods are looked at one by one."""

    workload: str
    state: PodState
    ready: ReadyPod | None
    """Where it tells how long it took."""


class PodReducer:
    """What is kept of a pod: everything that is decided on for pods of some workloads, of the others one number."""

    def __init__(self) -> None:
        self.workloads: frozenset[str] = frozenset()
        """Whose pods are kept with their containers."""

    def widen(self, workloads: Collection[str]) -> bool:
        """Keeps the containers of these workloads' pods from now on; whether that are more than before."""
        is_wider = not self.workloads.issuperset(workloads)
        self.workloads = frozenset(workloads)
        return is_wider

    def __call__(self, item: JsonObject) -> ReadyPod | WatchedPod | None:
        """The pod, reduced."""
        workload = owner_of(item["metadata"])
        if workload not in self.workloads:
            return ready_pod_of(item)
        return WatchedPod(workload, pod_state_of(item), ready_pod_of(item))


def pod_state_of(item: JsonObject) -> PodState:
    """The pod with its containers; those that only prepare it, and sidecars among them, cannot be resized by us."""
    metadata, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    statuses = {str(each["name"]): each for each in status.get("containerStatuses") or ()}
    return PodState(
        namespace=str(metadata["namespace"]),
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        resource_version=str(metadata.get("resourceVersion", "")),
        is_running=status.get("phase") == "Running" and "deletionTimestamp" not in metadata,
        qos=str(status.get("qosClass", "")),
        containers=tuple(
            _container(each, statuses.get(str(each["name"]), {})) for each in spec.get("containers") or ()
        ),
        pending=_pending(status),
        node=str(spec.get("nodeName") or ""),
        is_rest_guaranteed=status.get("qosClass") == GUARANTEED
        or all(_is_guaranteed(each) for each in spec.get("initContainers") or ()),
        is_oversold=ORIGINAL_ANNOTATION in (metadata.get("annotations") or {}),
    )


def _container(item: Mapping[str, Any], status: Mapping[str, Any]) -> ContainerState:
    resources = item.get("resources") or {}
    return ContainerState(
        name=str(item["name"]),
        requests=amounts_of(resources.get("requests")),
        limits=amounts_of(resources.get("limits")),
        restarts_for=tuple(
            Resource(each["resourceName"])
            for each in item.get("resizePolicy") or ()
            if each.get("restartPolicy") == RESTARTS and each.get("resourceName") in SIZED
        ),
        out_of_memory_at_seconds=_out_of_memory(status),
    )


def _is_guaranteed(item: Mapping[str, Any]) -> bool:
    resources = item.get("resources") or {}
    requests, limits = amounts_of(resources.get("requests")), amounts_of(resources.get("limits"))
    return None not in requests and requests == limits


def _out_of_memory(status: Mapping[str, Any]) -> float | None:
    """When the container was last killed for want of memory, now or before it was started again."""
    ends = [(status.get(name) or {}).get("terminated") or {} for name in ("state", "lastState")]
    times = [
        seconds_of(each["finishedAt"]) for each in ends if each.get("reason") == OOM_KILLED and each.get("finishedAt")
    ]
    return max(times, default=None)


def _pending(status: Mapping[str, Any]) -> PendingResize | None:
    """A resize that is not carried out: `Deferred`, `Infeasible`, or being carried out."""
    for kind in ("PodResizePending", "PodResizeInProgress"):
        for each in status.get("conditions") or ():
            if each.get("type") == kind and each.get("status") == "True":
                reason = str(each.get("reason") or "Deferred") if kind == "PodResizePending" else IN_PROGRESS
                since = each.get("lastTransitionTime")
                return PendingResize(reason, str(each.get("message") or ""), seconds_of(since) if since else 0.0)
    return None
