"""A Kubernetes API server as the controller's cluster: Deployments and StatefulSets that carry the label."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoscaler.cluster.resources import Resources
from autoscaler.controller.annotations import PREFIX, quantity
from autoscaler.controller.ports import ClusterObservation, ManagedWorkload, Scale
from autoscaler.errors import ObjectGone
from autoscaler.kube.client import JsonObject, KubeClient

COLLECTIONS: Mapping[str, str] = {"Deployment": "deployments", "StatefulSet": "statefulsets"}
"""Collection of each kind in `apps/v1`; one list of each per observation."""
FIELD_MANAGER = "foresize"
GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class KubeCluster:
    """Reads and scales the workloads that a label selector picks, in some namespaces or (with none named) in all."""

    client: KubeClient
    selector: str
    namespaces: tuple[str, ...] = ()

    def observe(self, now_seconds: float) -> ClusterObservation:
        """Every managed workload, with one list per kind (and namespace, where those are named)."""
        found: list[ManagedWorkload] = []
        for kind, collection in COLLECTIONS.items():
            for namespace in self.namespaces or ("",):
                scope = f"/namespaces/{namespace}" if namespace else ""
                items = self.client.list_all(f"/apis/apps/v1{scope}/{collection}", labelSelector=self.selector)
                found.extend(_workload(kind, item) for item in items)
        return ClusterObservation(now_seconds, tuple(found))

    def scale_of(self, workload: str) -> Scale:
        """The scale subresource now."""
        answer = self.client.get(_scale_path(workload))
        metadata = answer.get("metadata") or {}
        return Scale(
            uid=str(metadata.get("uid", "")),
            resource_version=str(metadata.get("resourceVersion", "")),
            replicas=int((answer.get("spec") or {}).get("replicas", 0)),
        )

    def set_replicas(self, workload: str, replicas: int, expected: Scale) -> None:
        """Patches the scale subresource; uid and resource version in the patch make it conditional."""
        changes: JsonObject = {
            "metadata": {"uid": expected.uid, "resourceVersion": expected.resource_version},
            "spec": {"replicas": replicas},
        }
        self.client.patch(_scale_path(workload), changes, fieldManager=FIELD_MANAGER)


def _scale_path(workload: str) -> str:
    try:
        namespace, kind, name = workload.split("/")
        return f"/apis/apps/v1/namespaces/{namespace}/{COLLECTIONS[kind]}/{name}/scale"
    except (ValueError, KeyError) as error:
        kinds = " or ".join(COLLECTIONS)
        raise ObjectGone(f"{workload!r} names no workload; write namespace/kind/name with {kinds}") from error


def _workload(kind: str, item: JsonObject) -> ManagedWorkload:
    metadata, spec = item["metadata"], item["spec"]
    annotations = metadata.get("annotations") or {}
    name = f"{metadata['namespace']}/{kind}/{metadata['name']}"
    return ManagedWorkload(
        name=name,
        uid=str(metadata["uid"]),
        replicas=int(spec.get("replicas", 1)),
        ready_replicas=int((item.get("status") or {}).get("readyReplicas") or 0),
        request_per_replica=_requests(spec["template"]["spec"]),
        annotations={k.removeprefix(PREFIX): str(v) for k, v in annotations.items() if k.startswith(PREFIX)},
    )


def _requests(pod: Mapping[str, Any]) -> Resources:
    """What one pod requests: its containers, and the init containers that go on running beside them (sidecars)."""
    sidecars = [c for c in pod.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    total = Resources()
    for container in [*(pod.get("containers") or ()), *sidecars]:
        resources = container.get("resources") or {}
        # Extended resources cannot be overcommitted: their limit is their request.
        wanted = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        total += Resources(
            cpu_cores=quantity(str(wanted.get("cpu", "0"))),
            memory_bytes=quantity(str(wanted.get("memory", "0"))),
            gpu_devices=quantity(str(wanted.get(GPU, "0"))),
        )
    return total
