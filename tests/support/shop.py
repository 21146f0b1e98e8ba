"""A node that is oversold: its web server, what it uses, and a controller that looks after it on the control plane."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from autoscaler.controller.gpu_sharing import GpuSharing
from autoscaler.controller.loop import Controller
from autoscaler.controller.memory import MemoryLeadership
from autoscaler.controller.node_peaks import PeakTeller
from autoscaler.controller.node_usage import UsageReader
from autoscaler.controller.nodes import NodeControl
from autoscaler.controller.quantities import quantity
from autoscaler.kube.client import KubeClient
from autoscaler.kube.cluster import KubeCluster
from autoscaler.kube.nodes import KubeNodes
from autoscaler.settings import OversubscriptionSettings, ScalingSettings
from pipelines.demo.exporters import RawSeries
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.predictor import Predictor
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.usage.panel import Resource
from tests.support.controlplane import ControlPlane, JsonObject, wait_until
from tests.support.live_nodes import LiveNodes, live_nodes
from tests.support.prometheus import STEP, a_pod, a_series

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CRDS = [yaml.safe_load((DEPLOY / f"{name}.yaml").read_text()) for name in ("crd", "crd-oversubscriptionpolicies")]
ROLES: dict[str, list[dict[str, Any]]] = {
    each["metadata"]["name"]: each["rules"]
    for each in yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text())
    if each["kind"] in ("ClusterRole", "Role")
}
RECLAIMED_CPU = "foresize.io/reclaimed-cpu"
HOURS = 14
"""Of past; the policies' horizon is an hour, so that these are as good as two weeks of days."""
IDLE, PEAK = 1.0, 4.0
"""Cores that the web server uses, and once an hour."""
USABLE_CORES = 0.9 * 16


def web_past(namespace: str, node: str, start: int, now: int) -> list[RawSeries]:
    """A pod that peaks once an hour, always alike."""
    steps = (now - start) // STEP
    cores = [PEAK if step % 12 in (5, 6, 7) else IDLE for step in range(steps)]
    series = a_pod("web-0", cores=cores, owner=("StatefulSet", "web"), namespace=namespace)
    return [*series, a_series("kube_pod_info", [1] * steps, namespace=namespace, pod="web-0", node=node)]


class Shop:
    """A node of 16 cores that its web server has requested whole, and a controller that looks after it."""

    def __init__(self, plane: ControlPlane, namespace: str, node: str, usage: LiveNodes, kubeconfig: Path) -> None:
        self.plane, self.namespace, self.node, self.usage = plane, namespace, node, usage
        self.kubeconfig = kubeconfig
        self.control = self.a_control()

    def a_control(self) -> NodeControl:
        """A controller as after a restart."""
        source = PrometheusSource(PrometheusEndpoint(url=self.usage.url), scrape_interval_seconds=2)
        client = KubeClient.connect(self.kubeconfig)
        cluster = KubeCluster(client, (self.namespace,))
        predictor = Predictor(
            source=source,
            store=MemoryBundleStore(),
            step_seconds=STEP,
            span=timedelta(hours=HOURS),
            horizon=timedelta(hours=1),
            levels=(0.5, 0.99),
            stale_after=timedelta(hours=2),
            resources=(Resource.CPU,),
        )
        controller = Controller(cluster, cluster, predictor, ScalingSettings(), time.time, MemoryLeadership())
        settings = OversubscriptionSettings(
            guard_interval=timedelta(seconds=1),
            guard_release=timedelta(seconds=8),
            stale_after=timedelta(seconds=12),
        )
        # Two samples of the past in each step.
        teller = PeakTeller(source, 2 * STEP, is_patient=True)
        gpus = GpuSharing(source, 2 * STEP, settings.usable_share, is_patient=True)
        return NodeControl(KubeNodes(client), UsageReader(source), settings, controller, teller, gpus)

    def close(self) -> None:
        """Ends its watches and connections."""
        cluster, nodes = self.control.controller.reader, self.control.cluster
        assert isinstance(cluster, KubeCluster)
        assert isinstance(nodes, KubeNodes)
        nodes.close()
        cluster.close()
        cluster.client.close()

    def cycle(self) -> None:
        self.control.controller.cycle()
        self.control.look()

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        """Cycles until it is so."""

        def now() -> Any:
            self.cycle()
            return holds()

        return wait_until(now, 60, what)

    # --- what is asked

    def policy(self, name: str = "", mode: str = "Auto", **terms: Any) -> str:
        """Applies a policy over the node; its name."""
        name = name or self.namespace
        spec = {
            "nodeSelector": {"pool": self.namespace},
            "mode": mode,
            "resources": [{"name": "cpu", "horizon": "1h", "violationProbability": 0.1} | terms],
        }
        self.plane.apply(a_policy(name, spec))
        return name

    def delete(self, policy: str) -> None:
        self.plane.api.delete(f"/apis/foresize.io/v1alpha1/oversubscriptionpolicies/{policy}")

    def batch(self, name: str, priority: str, cores: float = 2.0, labels: dict[str, str] | None = None) -> None:
        """A pod that asks for reclaimed cores and may be evicted."""
        amount = str(int(1000 * cores))
        resources = {"requests": {RECLAIMED_CPU: amount}, "limits": {RECLAIMED_CPU: amount}}
        evictable = {"foresize.io/evictable": "true"} if labels is None else labels
        self.plane.apply(a_bare_pod(self, name, resources, evictable, priority))

    # --- what is there

    def status(self, policy: str = "") -> JsonObject:
        path = f"/apis/foresize.io/v1alpha1/oversubscriptionpolicies/{policy or self.namespace}"
        found: JsonObject = self.plane.get(path).get("status") or {}
        return found

    def cpu(self, policy: str = "") -> JsonObject:
        found = self.status(policy).get("resources") or [{}]
        return dict(found[0])

    def condition(self, kind: str, policy: str = "") -> tuple[str, str]:
        """Status and reason."""
        found = {each["type"]: each for each in self.status(policy).get("conditions") or ()}
        return (found[kind]["status"], found[kind]["reason"]) if kind in found else ("", "")

    def offered(self) -> int | None:
        """Thousandths of cores that the node's status offers."""
        status = self.plane.get(f"/api/v1/nodes/{self.node}")["status"]
        amount = status["capacity"].get(RECLAIMED_CPU)
        assert status["allocatable"].get(RECLAIMED_CPU) == amount
        return None if amount is None else round(quantity(amount))

    def running(self) -> list[str]:
        """Names of the pods on the node."""
        return sorted(
            pod["metadata"]["name"]
            for pod in self.plane.pods(self.namespace)
            if pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]
        )

    def events(self, policy: str = "") -> list[tuple[str, str]]:
        """Reasons and notes of the policy's Events."""
        listed = self.plane.get("/apis/events.k8s.io/v1/namespaces/default/events")["items"]
        found = [e for e in listed if e["regarding"].get("name") == (policy or self.namespace)]
        return [(e["reason"], e["note"]) for e in sorted(found, key=lambda e: e["eventTime"])]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.control.controller.metrics.registry.get_sample_value(f"foresize_{name}", labels)


def a_policy(name: str, spec: JsonObject) -> JsonObject:
    return {
        "apiVersion": "foresize.io/v1alpha1",
        "kind": "OversubscriptionPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def a_bare_pod(
    shop: Shop, name: str, resources: JsonObject, labels: dict[str, str] | None = None, priority: str = ""
) -> JsonObject:
    spec: JsonObject = {
        "nodeSelector": {"pool": shop.namespace},
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "app", "image": "busybox", "resources": resources}],
    }
    if priority:
        spec["priorityClassName"] = priority
    metadata = {"name": name, "namespace": shop.namespace, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def web(namespace: str) -> JsonObject:
    """The web server, which requests nearly all that the node has."""
    resources = {"requests": {"cpu": "15500m", "memory": "1Gi"}, "limits": {"cpu": "15500m", "memory": "2Gi"}}
    labels = {"app": "web"}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": 1,
            "serviceName": "web",
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {"pool": namespace},
                    "tolerations": [{"operator": "Exists"}],
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "app", "image": "busybox", "resources": resources}],
                },
            },
        },
    }


@contextmanager
def a_shop(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Shop]:
    """A controller with the roles that deploy/ has, and no more."""
    for crd in CRDS:
        control_plane.apply(crd)
    for name, value in (("cheap", 10), ("dear", 1000)):
        control_plane.apply(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name},
                "value": value,
                "preemptionPolicy": "Never",
            }
        )
    now = int(time.time()) // STEP * STEP
    start = now - HOURS * 3600
    with control_plane.namespace("oversold") as namespace:
        (node,) = control_plane.add_nodes(1, labels={"pool": namespace}, prefix=namespace)
        taint = [{"key": "pool", "value": namespace, "effect": "NoSchedule"}]
        control_plane.api.patch(f"/api/v1/nodes/{node}", {"spec": {"taints": taint}})
        past = web_past(namespace, node, start, now)
        with live_nodes(tmp_path, lambda: control_plane.pods(namespace), past, start) as usage:
            usage.use({"web": IDLE})
            control_plane.apply(web(namespace))
            wait_until(lambda: len(control_plane.ready_pods(namespace)) == 1, 60, "the web server")
            rules = [r for rules in ROLES.values() for r in rules]
            shop = Shop(control_plane, namespace, node, usage, control_plane.kubeconfig_for(namespace, rules))
            try:
                yield shop
            finally:
                shop.close()
                for each in control_plane.get("/apis/foresize.io/v1alpha1/oversubscriptionpolicies")["items"]:
                    shop.delete(each["metadata"]["name"])
                control_plane.remove_nodes([node])
