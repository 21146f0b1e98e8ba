"""Requests on a real control plane, from usage in a real Prometheus: recommended, resized in place, refused."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoscaler.controller.advisor import RequestAdvisor
from autoscaler.controller.loop import Controller
from autoscaler.controller.memory import MemoryLeadership
from autoscaler.controller.vertical import VerticalScaling
from autoscaler.kube.client import KubeClient
from autoscaler.kube.cluster import KubeCluster
from autoscaler.settings import ScalingSettings, VerticalSettings
from pipelines.demo.exporters import RawSeries
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.predictor import Predictor
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.usage.panel import Resource
from tests.support.controlplane import ApiError, ControlPlane, JsonObject, deployment, wait_until
from tests.support.prometheus import STEP, a_counter, a_prometheus, a_series

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CRD = yaml.safe_load((DEPLOY / "crd.yaml").read_text())
ROLES: dict[str, list[dict[str, Any]]] = {
    each["metadata"]["name"]: each["rules"]
    for each in yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text())
    if each["kind"] in ("ClusterRole", "Role")
}
DAYS = 8
CORES, MEBIBYTES = 0.4, 300
MIB = 2**20
CPU, MEMORY = "400m", "330Mi"
"""What such a container should request: all its CPU time is at 0.4 cores, and a tenth is added to its memory."""
GUARANTEED_CPU = "460m"
"""Where its CPU request is its limit too: 15 % more."""


def usage(namespace: str, start: int, now: int) -> list[RawSeries]:
    """Two pods of the Deployment `web` that always use the same; the cluster's own pods are named as it likes."""
    steps = (now - start) // STEP
    series: list[RawSeries] = []
    for number in range(2):
        pod = f"web-5c9f-{number}"
        ids = {"namespace": namespace, "pod": pod}
        real = {**ids, "container": "app", "id": f"/{pod}"}
        series += [
            a_counter("container_cpu_usage_seconds_total", [CORES] * steps, **real),
            a_series("container_memory_working_set_bytes", [float(MEBIBYTES * MIB)] * steps, **real),
            a_series("kube_pod_owner", [1] * steps, **ids, owner_kind="ReplicaSet", owner_name="web-5c9f"),
        ]
    owner = {"namespace": namespace, "replicaset": "web-5c9f", "owner_kind": "Deployment", "owner_name": "web"}
    return [*series, a_series("kube_replicaset_owner", [1] * steps, **owner)]


class Shop:
    """A namespace with a Deployment `web`, an object over it, and a controller."""

    def __init__(self, plane: ControlPlane, namespace: str, controller: Controller) -> None:
        self.plane, self.namespace, self.controller = plane, namespace, controller

    def deploy(self, replicas: int = 2, **more: Any) -> list[JsonObject]:
        """The Deployment's pods once they are Ready; the controller has looked at them before anything is asked."""
        self.controller.cycle()
        requests = {"cpu": "100m", "memory": "64Mi"}
        self.plane.apply(deployment("web", self.namespace, replicas, **({"requests": requests} | more)))
        wait_until(lambda: len(self.pods()) == replicas, 60, f"{replicas} Ready pods")
        return self.pods()

    def pods(self) -> list[JsonObject]:
        return self.plane.ready_pods(self.namespace, "app=web")

    def ask(self, vertical: JsonObject, mode: str = "Auto", replicas: int = 2) -> None:
        """The object, which keeps that many replicas."""
        self.plane.apply(an_object(self.namespace, vertical, mode, replicas))

    def status(self) -> JsonObject:
        path = f"/apis/foresize.io/v1alpha1/namespaces/{self.namespace}/predictiveautoscalers/web"
        found: JsonObject = self.plane.get(path).get("status") or {}
        return found

    def recommended(self) -> JsonObject:
        found = (self.status().get("recommendation") or {}).get("containers") or [{}]
        return dict(found[0])

    def requests(self) -> list[dict[str, str]]:
        """What the containers of the pods request, as their nodes carry it out."""
        return [pod["status"]["containerStatuses"][0].get("resources", {}).get("requests", {}) for pod in self.pods()]

    def until(self, holds: Any, what: str) -> None:
        """Cycles until it is so."""

        def now() -> Any:
            self.controller.cycle()
            return holds()

        wait_until(now, 60, what)

    def events(self) -> list[str]:
        listed = self.plane.get(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        return [e["reason"] for e in listed if e["regarding"]["kind"] == "PredictiveAutoscaler"]

    def set_status(self, pod: JsonObject, status: JsonObject) -> None:
        """What the pod's node would report."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}/status"
        self.plane.api.patch(path, {"status": status}, "application/strategic-merge-patch+json")


def with_changes(manifest: JsonObject, changes: JsonObject) -> JsonObject:
    """The object with other fields in its spec."""
    return manifest | {"spec": manifest["spec"] | changes}


def an_object(namespace: str, vertical: JsonObject, mode: str = "Auto", replicas: int = 2) -> JsonObject:
    horizontal = {"minReplicas": replicas, "maxReplicas": replicas, "target": {"averageValue": "1"}}
    spec = {
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "mode": mode,
        "horizontal": horizontal,
        "vertical": vertical,
    }
    return {
        "apiVersion": "foresize.io/v1alpha1",
        "kind": "PredictiveAutoscaler",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": spec,
    }


@contextmanager
def a_controller(kubeconfig: Path, namespace: str, url: str) -> Iterator[Controller]:
    """A controller without a model over that Prometheus."""
    source = PrometheusSource(PrometheusEndpoint(url=url), scrape_interval_seconds=STEP)
    cluster = KubeCluster(KubeClient.connect(kubeconfig), (namespace,))
    predictor = Predictor(
        source=source,
        store=MemoryBundleStore(),
        step_seconds=STEP,
        span=timedelta(days=DAYS),
        horizon=timedelta(hours=1),
        levels=(0.5, 0.9, 0.99),
        stale_after=timedelta(hours=2),
        resources=(Resource.CPU,),
    )
    settings = VerticalSettings()
    vertical = VerticalScaling(RequestAdvisor(source, settings, STEP, is_patient=True), settings)
    try:
        yield Controller(
            cluster, cluster, predictor, ScalingSettings(), time.time, MemoryLeadership(), vertical=vertical
        )
    finally:
        cluster.close()
        cluster.client.close()


@pytest.fixture
def shop(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Shop]:
    """A controller with the roles that deploy/ has, and no more."""
    if control_plane.is_external:
        pytest.skip("FORESIZE_TEST_KUBECONFIG names a cluster with kubelets of its own")
    now = int(time.time()) // STEP * STEP
    start = now - DAYS * 86_400
    control_plane.apply(CRD)
    with (
        control_plane.namespace("sized") as namespace,
        a_prometheus(tmp_path, usage(namespace, start, now), start_seconds=start) as prometheus,
    ):
        kubeconfig = control_plane.kubeconfig_for("foresize", [r for rules in ROLES.values() for r in rules], namespace)
        with a_controller(kubeconfig, namespace, prometheus.url) as controller:
            yield Shop(control_plane, namespace, controller)


def test_a_recommendation_can_be_read_in_the_object_and_touches_no_pod(shop: Shop) -> None:
    """As the API server keeps it, in the form of the VerticalPodAutoscaler."""
    before = shop.deploy()
    shop.ask({"mode": "Recommend", "containers": [{"name": "*", "maxAllowed": {"memory": "310Mi"}}]})

    shop.until(lambda: shop.recommended().get("target"), "a recommendation")

    found = shop.recommended()
    assert found["target"] == {"cpu": CPU, "memory": "310Mi"}
    assert found["uncappedTarget"] == {"cpu": CPU, "memory": MEMORY}
    assert found["lowerBound"].keys() == found["upperBound"].keys() == {"cpu", "memory"}
    assert "from 8.0 days of its usage" in found["reason"]
    assert "time" in shop.status()["recommendation"]
    assert [pod["metadata"]["resourceVersion"] for pod in shop.pods()] == [
        pod["metadata"]["resourceVersion"] for pod in before
    ]


def test_running_pods_are_resized_in_place_and_so_are_new_ones(shop: Shop) -> None:
    """The same pods, not restarted, with new requests; those of a scale-up come as the template says, and grow."""
    before = {pod["metadata"]["uid"] for pod in shop.deploy()}
    shop.ask({"mode": "InPlace"})

    shop.until(lambda: shop.requests() == [{"cpu": CPU, "memory": MEMORY}] * 2, "resized pods")
    assert {pod["metadata"]["uid"] for pod in shop.pods()} == before
    assert all(pod["status"]["containerStatuses"][0]["restartCount"] == 0 for pod in shop.pods())
    assert "ResizedPods" in shop.events()
    shop.until(lambda: shop.status()["resize"]["upToDate"] == 2, "a status that counts them")

    shop.ask({"mode": "InPlace"}, replicas=4)
    shop.until(lambda: shop.requests() == [{"cpu": CPU, "memory": MEMORY}] * 4, "4 resized pods")


def test_an_observing_object_resizes_nothing(shop: Shop) -> None:
    shop.deploy()
    shop.ask({"mode": "InPlace"}, mode="Observe")

    shop.until(lambda: shop.status().get("resize", {}).get("waiting") == 2, "a status")

    assert "mode Observe" in shop.status()["resize"]["message"]
    assert shop.requests() == [{"cpu": "100m", "memory": "64Mi"}] * 2


def test_memory_is_never_cut_below_what_is_used(shop: Shop) -> None:
    """Although the object allows no more than a third of it; the CPU request is cut at the same time."""
    shop.deploy(requests={"cpu": "2", "memory": "1Gi"})
    shop.ask({"mode": "InPlace", "containers": [{"name": "app", "maxAllowed": {"memory": "100Mi"}}]})

    shop.until(lambda: all(each["cpu"] == CPU for each in shop.requests()), "resized pods")

    assert {each["memory"] for each in shop.requests()} == {MEMORY}


def test_a_request_stays_within_its_limit(shop: Shop) -> None:
    """Limits are left as they are, and the status says that one is in the way."""
    shop.deploy(requests={"cpu": "100m", "memory": "64Mi"}, limits={"cpu": "300m", "memory": "1Gi"})
    shop.ask({"mode": "InPlace"})

    shop.until(lambda: shop.requests() == [{"cpu": "300m", "memory": MEMORY}] * 2, "resized pods")

    assert {pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] for pod in shop.pods()} == {"300m"}
    shop.until(lambda: "message" in shop.status()["resize"], "a status that tells it")
    assert "the cpu limit of container app is below its target" in shop.status()["resize"]["message"]


def test_a_container_killed_for_want_of_memory_gets_more(shop: Shop) -> None:
    """100 MiB over what it used, once, although its status goes on telling of the kill."""
    (pod,) = shop.deploy(1)
    ended = {"exitCode": 137, "reason": "OOMKilled"}
    times = {"startedAt": _time(-600), "finishedAt": _time(-60)}
    shop.set_status(pod, {"containerStatuses": [{"name": "app", "lastState": {"terminated": ended | times}}]})
    shop.ask({"mode": "InPlace"}, replicas=1)

    shop.until(lambda: shop.requests() == [{"cpu": CPU, "memory": "400Mi"}], "more memory")
    for _ in range(3):
        shop.controller.cycle()

    assert shop.requests() == [{"cpu": CPU, "memory": "400Mi"}]
    assert shop.recommended()["outOfMemory"]["memory"] == "400Mi"


def test_a_resize_that_a_node_can_never_do_is_told(shop: Shop) -> None:
    """In the status and an Event, and it is not asked for again in every cycle."""
    (pod,) = shop.deploy(1)
    condition = {
        "type": "PodResizePending",
        "status": "True",
        "reason": "Infeasible",
        "message": "Node didn't have enough capacity: cpu, requested: 400, capacity: 300",
        "lastTransitionTime": _time(0),
    }
    shop.set_status(pod, {"conditions": [condition]})
    shop.ask({"mode": "InPlace"}, replicas=1)

    shop.until(lambda: shop.status().get("resize", {}).get("infeasible") == 1, "a status that tells it")

    assert "enough capacity" in shop.status()["resize"]["message"]
    assert "ResizeInfeasible" in shop.events()
    assert shop.requests() == [{"cpu": "100m", "memory": "64Mi"}]


@pytest.mark.parametrize("same", [{"cpu": "100m", "memory": "64Mi"}, {"cpu": "2", "memory": "1Gi"}])
def test_a_guaranteed_pod_is_resized_and_stays_guaranteed(shop: Shop, same: dict[str, str]) -> None:
    """Requests and limits together, up or down, to the day's highest CPU usage and 15 %; no new pod, no restart."""
    (before,) = shop.deploy(1, requests=same, limits=same)
    assert before["status"]["qosClass"] == "Guaranteed"
    shop.ask({"mode": "InPlace"}, replicas=1)

    resized = {"cpu": GUARANTEED_CPU, "memory": MEMORY}
    shop.until(lambda: shop.requests() == [resized], "a resized pod")
    shop.until(lambda: shop.status()["resize"]["upToDate"] == 1, "a status that counts it")

    (pod,) = shop.pods()
    assert pod["spec"]["containers"][0]["resources"] == {"requests": resized, "limits": resized}
    assert (pod["metadata"]["uid"], pod["status"]["qosClass"]) == (before["metadata"]["uid"], "Guaranteed")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    assert shop.recommended()["target"] == resized
    assert "its limit is its request" in shop.recommended()["reason"]
    assert "ResizedPods" in shop.events()


def test_pods_that_the_api_would_refuse_are_left_alone(shop: Shop) -> None:
    """Burstable ones whose requests would all reach their limits, which would make them Guaranteed."""
    shop.deploy(1, requests={"cpu": "100m", "memory": "64Mi"}, limits={"cpu": "300m", "memory": "128Mi"})
    shop.ask({"mode": "InPlace"}, replicas=1)

    shop.until(lambda: shop.status().get("resize", {}).get("leftAlone") == 1, "a status that tells it")

    assert "make it a Guaranteed pod" in shop.status()["resize"]["message"]
    assert shop.controller.report is not None
    assert not shop.controller.report.has_failed_command


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vertical": {"mode": "InPlace"}, "horizontal": {"maxReplicas": 3}}, "share of"),
        (
            {"vertical": {"mode": "InPlace"}, "horizontal": {"maxReplicas": 3, "target": {"averageUtilization": 60}}},
            "share of",
        ),
        (
            {
                "vertical": {"mode": "InPlace", "containers": [{"name": "app", "controlledResources": ["memory"]}]},
                "horizontal": {"maxReplicas": 3},
            },
            "share of",
        ),
        ({"vertical": {"mode": "InPlace"}, "actuator": "HPAMinReplicas"}, "HPAMinReplicas"),
        (
            {"vertical": {"containers": [{"name": "a", "minAllowed": {"cpu": "2"}, "maxAllowed": {"cpu": "1500m"}}]}},
            "must not exceed that of maxAllowed",
        ),
        (
            {"vertical": {"containers": [{"name": "a", "minAllowed": {"memory": "2Gi"}, "maxAllowed": {"memory": 5}}]}},
            "must not exceed that of maxAllowed",
        ),
        ({"vertical": {"containers": [{"name": "a", "maxAllowed": {"cpu": "much"}}]}}, "must be a quantity above 0"),
        ({"vertical": {"containers": [{"name": "a", "maxAllowed": {"cpu": "0"}}]}}, "must be a quantity above 0"),
        ({"vertical": {"mode": "Sometimes"}}, "Unsupported value"),
        ({"vertical": {"containers": [{"name": "a", "controlledResources": ["gpu"]}]}}, "Unsupported value"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_the_api(
    control_plane: ControlPlane, change: dict[str, Any], said: str
) -> None:
    control_plane.apply(CRD)
    with control_plane.namespace("refused") as namespace, pytest.raises(ApiError, match=said):
        control_plane.apply(with_changes(an_object(namespace, {}), change))


@pytest.mark.parametrize(
    "change",
    [
        {"vertical": {"mode": "Recommend"}, "horizontal": {"maxReplicas": 3}},
        {"vertical": {"mode": "InPlace"}, "horizontal": {"maxReplicas": 3, "target": {"averageValue": "500m"}}},
        {
            "vertical": {"mode": "InPlace"},
            "horizontal": {"maxReplicas": 3, "metric": {"resource": "requests"}, "target": {"averageValue": 50}},
        },
        {
            "vertical": {
                "mode": "InPlace",
                "containers": [{"name": "*", "controlledResources": ["memory"]}, {"name": "proxy", "mode": "Off"}],
            },
            "horizontal": {"maxReplicas": 3},
        },
        {"vertical": {"containers": [{"name": "a", "minAllowed": {"cpu": 1}, "maxAllowed": {"cpu": "1"}}]}},
    ],
)
def test_what_can_be_followed_is_taken(control_plane: ControlPlane, change: dict[str, Any]) -> None:
    """Where nothing that replicas rest on is changed."""
    control_plane.apply(CRD)
    with control_plane.namespace("taken") as namespace:
        taken = control_plane.apply(with_changes(an_object(namespace, {}), change))

    assert taken["spec"]["vertical"]["mode"] in ("Off", "Recommend", "InPlace")


def _time(seconds_from_now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds_from_now))
