"""What a cluster's exporters show of it, named and labelled as by cAdvisor, kube-state-metrics, DCGM and nginx."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import erf, log, sqrt

import numpy as np
from numpy.typing import NDArray

from models.forecast import FloatArray
from pipelines.demo.catalog import APPLICATIONS, GIB, OWNER_KIND, NodePoolSpec, WorkloadSpec
from pipelines.demo.pods import Node, Pod
from predictor.sources.promql import PART_OF

Labels = dict[str, str]
PERIODS_PER_SECOND = 10
"""How often the kernel hands out CPU time to a container with a limit."""
LATENCY_BOUNDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the latency histogram's buckets, seconds."""
KUBELET_OFFSET, DCGM_OFFSET, INGRESS_OFFSET, STATE_OFFSET = 284, 292, 294, 297
"""Seconds after a step's start at which a target is scraped; see `pipelines.demo.world`."""


@dataclass(frozen=True, slots=True)
class RawSeries:
    """One series as scraped: `values` from step `first` on, NaN where there was no scrape."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    first: int
    values: FloatArray
    offset_seconds: int


@dataclass(slots=True)
class Scrapes:
    """Collects series; `outages` are half-open ranges of steps in which a target was not scraped."""

    outages: Sequence[tuple[int, int]] = ()
    series: list[RawSeries] = field(default_factory=list)

    def add(
        self,
        metric: str,
        labels: Labels,
        first: int,
        values: FloatArray,
        *,
        offset_seconds: int,
        outages: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Keep a series, less what the outages took."""
        seen = np.array(values, dtype=np.float64)
        for start, stop in (*self.outages, *outages):
            seen[max(start - first, 0) : max(stop - first, 0)] = np.nan
        self.series.append(RawSeries(metric, tuple(labels.items()), first, seen, offset_seconds))

    def constant(self, metric: str, labels: Labels, first: int, stop: int, value: float = 1.0) -> None:
        """A value of kube-state-metrics that does not change in the steps [first, stop)."""
        if stop > first:
            self.add(metric, labels, first, np.full(stop - first, float(value)), offset_seconds=STATE_OFFSET)

    def state(self, metric: str, labels: Labels, values: FloatArray, first: int = 0) -> None:
        """A value of kube-state-metrics that changes."""
        self.add(metric, labels, first, values, offset_seconds=STATE_OFFSET)


def counter(per_step: FloatArray, restarts: Sequence[int] = ()) -> FloatArray:
    """What a counter shows at each step's end. A restart loses what was counted and half of its own step."""
    total = np.cumsum(per_step)
    for step in sorted(restarts):
        total[step:] -= total[step] - per_step[step] / 2
    return np.asarray(np.round(total, 3), dtype=np.float64)


def add_container(
    out: Scrapes,
    spec: WorkloadSpec,
    pod: Pod,
    uid: str,
    *,
    cores: FloatArray,
    memory_bytes: FloatArray,
    throttled: FloatArray,
    step_seconds: int,
    outages: Sequence[tuple[int, int]],
) -> None:
    """cAdvisor: CPU and memory of the pod's container; in `payments` those of the pod's own cgroup as well.

    Of one with a limit of CPU also its periods and those `throttled`, given as a share of each step.
    """
    restarts = [step - pod.first for step in pod.restarts]
    seconds = counter(cores * step_seconds, restarts)
    held = np.round(memory_bytes / 4096) * 4096
    node = {"instance": f"{pod.node}:10250", "job": "kubelet", "namespace": spec.namespace, "pod": pod.name}
    views: list[Labels] = [{"container": spec.name, "id": f"/kubepods/pod{uid}/{uid[::-1]}", "image": spec.name}]
    if spec.namespace == "payments":
        views.append({"container": "", "id": f"/kubepods/pod{uid}"})
    offset = KUBELET_OFFSET + int(pod.node.rsplit("-", 1)[-1])
    shown = {"container_cpu_usage_seconds_total": seconds, "container_memory_working_set_bytes": held}
    if spec.limit_cores:
        periods = np.full(pod.steps, float(PERIODS_PER_SECOND * step_seconds))
        shown["container_cpu_cfs_periods_total"] = counter(periods, restarts)
        shown["container_cpu_cfs_throttled_periods_total"] = counter(throttled * periods, restarts)
    for view in views:
        for metric, values in shown.items():
            out.add(metric, view | node, pod.first, values, offset_seconds=offset, outages=outages)


def add_pod_state(out: Scrapes, spec: WorkloadSpec, pod: Pod, uid: str) -> None:
    """kube-state-metrics: whose the pod is, where it runs, what of, what it asked for."""
    ids = {"namespace": spec.namespace, "pod": pod.name, "uid": uid}
    owner = {"owner_kind": pod.owner_kind, "owner_name": pod.owner_name}
    is_owned = str(pod.owner_kind != "<none>").lower()
    out.constant("kube_pod_owner", ids | owner | {"owner_is_controller": is_owned}, pod.first, pod.gone)
    creator = {"created_by_kind": pod.owner_kind, "created_by_name": pod.owner_name}
    out.constant("kube_pod_info", ids | creator | {"node": pod.node}, pod.first, pod.gone)
    out.constant("kube_pod_status_phase", ids | {"phase": "Running"}, pod.first, pod.stop)
    out.constant("kube_pod_status_phase", ids | {"phase": "Succeeded"}, pod.stop, pod.gone)
    version = pod.owner_name.rsplit("-", 1)[-1] if spec.kind == "Deployment" else "stable"
    image = f"{spec.repository}:{version}"
    contents = {
        "container": spec.name,
        "container_id": f"containerd://{uid[::-1]}",
        "image": image,
        "image_spec": image,
    }
    out.constant("kube_pod_container_info", ids | contents, pod.first, pod.gone)
    asked = [
        ("requests", "cpu", "core", spec.request_cores),
        ("requests", "memory", "byte", spec.request_gib * GIB),
        ("limits", "memory", "byte", spec.limit_gib * GIB),
    ]
    if spec.limit_cores:
        asked.append(("limits", "cpu", "core", spec.limit_cores))
    if pod.gpu >= 0:
        asked += [("requests", "nvidia_com_gpu", "integer", 1), ("limits", "nvidia_com_gpu", "integer", 1)]
    for kind, resource, unit, value in asked:
        labels = ids | {"container": spec.name, "node": pod.node, "resource": resource, "unit": unit}
        out.constant(f"kube_pod_container_resource_{kind}", labels, pod.first, pod.gone, value)
    if pod.restarts:
        # Of the others it would say nothing but 0, once for every scrape of every pod.
        container = ids | {"container": spec.name}
        starts = np.searchsorted(pod.restarts, np.arange(pod.first, pod.gone), side="right")
        out.state("kube_pod_container_status_restarts_total", container, starts.astype(np.float64), pod.first)
        reason = {"reason": "OOMKilled" if spec.leak_gib_per_day else "Error"}
        metric = "kube_pod_container_status_last_terminated_reason"
        out.constant(metric, container | reason, pod.restarts[0], pod.gone)


def add_owners(out: Scrapes, spec: WorkloadSpec, pods: Sequence[Pod], replicas: NDArray[np.int64], first: int) -> None:
    """kube-state-metrics: ReplicaSets, Jobs and Deployments with what owns them, and how many replicas are wanted."""
    owned: dict[str, list[int]] = {}
    for pod in pods:
        span = owned.setdefault(pod.owner_name, [pod.first, pod.gone])
        span[0], span[1] = min(span[0], pod.first), max(span[1], pod.gone)
    for name, (begin, end) in owned.items():
        owner = {"owner_kind": spec.kind, "owner_name": spec.name, "owner_is_controller": "true"}
        if spec.kind == "Deployment":
            labels = {"namespace": spec.namespace, "replicaset": name}
            out.constant("kube_replicaset_owner", labels | owner, begin, end)
        if spec.kind == "CronJob":
            out.constant("kube_job_owner", {"namespace": spec.namespace, "job_name": name} | owner, begin, end)
    wanted = {
        "Deployment": ("kube_deployment_spec_replicas", "deployment"),
        "StatefulSet": ("kube_statefulset_replicas", "statefulset"),
        "DaemonSet": ("kube_daemonset_status_desired_number_scheduled", "daemonset"),
        "CronJob": ("kube_cronjob_status_active", "cronjob"),
    }
    if spec.kind in wanted:
        metric, label = wanted[spec.kind]
        ids = {"namespace": spec.namespace, label: spec.name}
        out.state(metric, ids, replicas[first:].astype(np.float64), first)
        if part_of := APPLICATIONS.get(spec.namespace):
            out.constant(f"kube_{label}_labels", ids | {PART_OF: part_of}, first, replicas.size)
        if spec.owner:
            owner = {"owner_kind": OWNER_KIND, "owner_name": spec.owner, "owner_is_controller": "true"}
            out.constant("kube_deployment_owner", ids | owner, first, replicas.size)


def add_gpu(
    out: Scrapes, spec: WorkloadSpec, pod: Pod, pool: NodePoolSpec, *, active: FloatArray, used_mib: FloatArray
) -> None:
    """DCGM: how busy the pod's device is and what its memory holds. Profiling metrics where the device has them."""
    labels = {
        "gpu": str(pod.gpu), "UUID": f"GPU-{pod.node}-{pod.gpu}", "device": f"nvidia{pod.gpu}",
        "modelName": pool.gpu_model, "Hostname": pod.node, "namespace": spec.namespace, "pod": pod.name,
        "container": spec.name,
    }  # fmt: skip
    used = np.round(used_mib)
    shown = {
        "DCGM_FI_DEV_GPU_UTIL": np.round(100 * active),
        "DCGM_FI_DEV_FB_USED": used,
        "DCGM_FI_DEV_FB_FREE": pool.gpu_memory_mib - used,
    }
    if pool.has_profiling:
        shown["DCGM_FI_PROF_GR_ENGINE_ACTIVE"] = np.round(active, 4)
    for metric, values in shown.items():
        out.add(metric, labels, pod.first, values, offset_seconds=DCGM_OFFSET)


def add_nodes(out: Scrapes, nodes: Sequence[Node], steps: int) -> None:
    """kube-state-metrics: nodes, their pool label and what they can give to pods."""
    for node in nodes:
        out.constant("kube_node_info", {"node": node.name, "kubelet_version": "v1.31.4"}, 0, steps)
        out.constant("kube_node_labels", {"node": node.name, "label_node_pool": node.pool.name}, 0, steps)
        given = [("cpu", "core", node.pool.cores), ("memory", "byte", node.pool.memory_gib * GIB)]
        if node.pool.gpus:
            given.append(("nvidia_com_gpu", "integer", node.pool.gpus))
        for resource, unit, value in given:
            labels = {"node": node.name, "resource": resource, "unit": unit}
            out.constant("kube_node_status_allocatable", labels, 0, steps, value)


def add_ingress(
    out: Scrapes,
    spec: WorkloadSpec,
    *,
    per_second: FloatArray,
    failed_fraction: FloatArray,
    latency_seconds: FloatArray,
    first: int,
    restarts: Sequence[int],
    step_seconds: int,
) -> None:
    """ingress-nginx: requests by status, and for some Services how long they took.

    Counters start anew with the controller.
    """
    at = [step - first for step in restarts if step > first]
    base = {
        "controller_class": "k8s.io/ingress-nginx", "exported_namespace": spec.namespace,
        "exported_service": spec.name, "ingress": spec.name, "namespace": "ingress-nginx",
        "pod": "ingress-nginx-controller-0",
    }  # fmt: skip
    counted = per_second * step_seconds

    def show(metric: str, labels: Labels, per_step: FloatArray) -> None:
        out.add(metric, base | labels, first, counter(per_step, at), offset_seconds=INGRESS_OFFSET)

    show("nginx_ingress_controller_requests", {"status": "200"}, counted * (1 - failed_fraction))
    show("nginx_ingress_controller_requests", {"status": "500"}, counted * failed_fraction)
    if not spec.has_latency:
        return
    name = "nginx_ingress_controller_request_duration_seconds"
    middle = np.log(latency_seconds) - 0.18
    for bound in LATENCY_BOUNDS:
        below = np.asarray([0.5 * (1 + erf((log(bound) - m) / (0.6 * sqrt(2)))) for m in middle])
        show(f"{name}_bucket", {"le": str(bound)}, counted * below)
    show(f"{name}_bucket", {"le": "+Inf"}, counted)
    show(f"{name}_count", {}, counted)
    show(f"{name}_sum", {}, counted * latency_seconds)
