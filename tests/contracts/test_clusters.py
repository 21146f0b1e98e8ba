"""A cluster in memory and a real API server behave alike to the controller: one contract, both."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import pytest

from autoscaler.cluster.resources import Resources
from autoscaler.controller.memory import MemoryCluster
from autoscaler.controller.ports import ClusterReader, ManagedWorkload, ReplicaWriter
from autoscaler.errors import ClusterRefused, ClusterUnavailable, CommandConflict, ObjectGone
from autoscaler.kube.client import KubeClient
from autoscaler.kube.cluster import KubeCluster
from tests.support.controlplane import ControlPlane, deployment, wait_until

SELECTOR = "foresize.io/managed=true"


class Cluster(ClusterReader, ReplicaWriter, Protocol):
    """Both ports, which one adapter serves."""


@dataclass
class Stage:
    """A cluster, and the hands of the people in it."""

    cluster: Cluster
    namespace: str
    create: Callable[[str, int], None]
    scale: Callable[[str, int], None]
    delete: Callable[[str], None]

    def name(self, short: str) -> str:
        return f"{self.namespace}/Deployment/{short}"

    def seen(self, short: str) -> ManagedWorkload:
        """The workload as the controller sees it."""
        (found,) = [w for w in self.cluster.observe(1.0).workloads if w.name == self.name(short)]
        return found


def write(cluster: Cluster, workload: str, replicas: int) -> None:
    """Reads and writes until nothing came in between: in a living cluster every pod that gets ready does."""
    for _ in range(20):
        try:
            cluster.set_replicas(workload, replicas, cluster.scale_of(workload))
        except CommandConflict:
            continue
        return
    raise AssertionError(f"{workload} never stood still")


def in_memory() -> Iterator[Stage]:
    cluster = MemoryCluster()
    made = 0

    def create(short: str, replicas: int) -> None:
        nonlocal made
        made += 1
        cluster.put(
            ManagedWorkload(
                f"shop/Deployment/{short}", f"uid-{made}", replicas, 0, Resources(0.5, 2**26), {"max-replicas": "9"}
            )
        )

    def scale(short: str, replicas: int) -> None:
        cluster.put(replace(cluster.workloads[f"shop/Deployment/{short}"], replicas=replicas))

    yield Stage(cluster, "shop", create, scale, lambda short: cluster.remove(f"shop/Deployment/{short}"))


def on_an_api_server(plane: ControlPlane) -> Iterator[Stage]:
    client = KubeClient.connect(plane.kubeconfig)
    with plane.namespace("contract") as namespace:
        folder = f"/apis/apps/v1/namespaces/{namespace}/deployments"

        def create(short: str, replicas: int) -> None:
            manifest = deployment(short, namespace, replicas, requests={"cpu": "500m", "memory": "64Mi"})
            manifest["metadata"]["labels"] = {"app": short, "foresize.io/managed": "true"}
            manifest["metadata"]["annotations"] = {"foresize.io/max-replicas": "9", "example.org/other": "x"}
            plane.apply(manifest)

        def scale(short: str, replicas: int) -> None:
            plane.api.patch(f"{folder}/{short}/scale", {"spec": {"replicas": replicas}})

        def delete(short: str) -> None:
            plane.api.delete(f"{folder}/{short}")
            wait_until(lambda: not plane.get(folder)["items"], 30, "the Deployment to be gone")

        yield Stage(
            KubeCluster(client, SELECTOR, (namespace,)),
            namespace,
            create,
            scale,
            delete,
        )
    client.close()


@pytest.fixture(params=["memory", pytest.param("kubernetes", marks=pytest.mark.e2e)])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A cluster with nothing in it yet."""
    if request.param == "memory":
        yield from in_memory()
    else:
        yield from on_an_api_server(request.getfixturevalue("control_plane"))


def test_a_managed_workload_is_seen_with_all_that_a_decision_needs(stage: Stage) -> None:
    """Its replicas, what one of them requests, and its own wishes."""
    stage.create("web", 3)

    seen = stage.seen("web")

    assert seen.replicas == 3
    assert seen.request_per_replica == Resources(cpu_cores=0.5, memory_bytes=2**26)
    assert seen.annotations == {"max-replicas": "9"}
    assert seen.uid == stage.cluster.scale_of(seen.name).uid


def test_a_write_on_what_was_read_is_carried_out(stage: Stage) -> None:
    """The next observation shows the new number; the object stays the same one."""
    stage.create("web", 3)
    before = stage.seen("web")

    write(stage.cluster, before.name, 5)

    after = stage.seen("web")
    assert (after.replicas, after.uid) == (5, before.uid)


def test_a_write_after_somebody_elses_is_a_conflict(stage: Stage) -> None:
    """Whoever scaled in between wins; the command is dropped."""
    stage.create("web", 3)
    expected = stage.cluster.scale_of(stage.name("web"))
    stage.scale("web", 4)

    with pytest.raises(CommandConflict):
        stage.cluster.set_replicas(stage.name("web"), 8, expected)

    assert stage.seen("web").replicas == 4


def test_a_write_to_an_object_made_anew_is_a_conflict(stage: Stage) -> None:
    """The same name is not the same workload."""
    stage.create("web", 3)
    expected = stage.cluster.scale_of(stage.name("web"))
    stage.delete("web")
    stage.create("web", 1)

    with pytest.raises(CommandConflict):
        stage.cluster.set_replicas(stage.name("web"), 8, expected)

    assert stage.seen("web").replicas == 1


def test_what_is_not_there_is_gone(stage: Stage) -> None:
    """Neither read nor written, and said so; an empty cluster is an observation, not an error."""
    stage.create("web", 3)
    expected = stage.cluster.scale_of(stage.name("web"))
    stage.delete("web")

    assert stage.cluster.observe(1.0).workloads == ()
    with pytest.raises(ObjectGone):
        stage.cluster.scale_of(stage.name("web"))
    with pytest.raises(ObjectGone):
        stage.cluster.set_replicas(stage.name("web"), 8, expected)


@pytest.mark.e2e
def test_only_what_carries_the_label_is_seen(control_plane: ControlPlane) -> None:
    """A Deployment and a StatefulSet with the label are managed; the same without it is nobody's business."""
    with control_plane.namespace("contract") as namespace:
        for kind, name, value in (
            ("Deployment", "web", "true"),
            ("Deployment", "alone", "false"),
            ("StatefulSet", "db", "true"),
        ):
            manifest = deployment(name, namespace, replicas=1)
            manifest["kind"] = kind
            manifest["metadata"]["labels"] = {"foresize.io/managed": value}
            if kind == "StatefulSet":
                manifest["spec"]["serviceName"] = name
            control_plane.apply(manifest)
        cluster = KubeCluster(KubeClient.connect(control_plane.kubeconfig), SELECTOR, (namespace,))

        seen = {workload.name for workload in cluster.observe(1.0).workloads}
        write(cluster, f"{namespace}/StatefulSet/db", 2)

        assert seen == {f"{namespace}/Deployment/web", f"{namespace}/StatefulSet/db"}
        database = control_plane.get(f"/apis/apps/v1/namespaces/{namespace}/statefulsets/db")
        assert database["spec"]["replicas"] == 2


@pytest.mark.e2e
def test_a_role_that_lacks_a_rule_is_told_which(control_plane: ControlPlane) -> None:
    """A user who may look but not touch reads everything; the refused write names the rule to add."""
    with control_plane.namespace("contract") as namespace:
        manifest = deployment("web", namespace, replicas=2)
        manifest["metadata"]["labels"] = {"foresize.io/managed": "true"}
        control_plane.apply(manifest)
        rules = [
            {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets"], "verbs": ["list"]},
            {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get"]},
        ]
        kubeconfig = control_plane.kubeconfig_for("looks-only", rules, namespace)
        cluster = KubeCluster(KubeClient.connect(kubeconfig), SELECTOR, (namespace,))
        (web,) = cluster.observe(1.0).workloads

        with pytest.raises(ClusterRefused) as write:
            cluster.set_replicas(web.name, 5, cluster.scale_of(web.name))
        with pytest.raises(ClusterRefused) as everywhere:
            KubeCluster(cluster.client, SELECTOR).observe(1.0)

    assert (
        f'add to the role in namespace {namespace}: {{apiGroups: ["apps"], resources: ["deployments/scale"], '
        'verbs: ["patch"]}' in str(write.value)
    )
    assert 'in the cluster: {apiGroups: ["apps"], resources: ["deployments"], verbs: ["list"]}' in str(everywhere.value)


@pytest.mark.e2e
def test_an_api_server_that_restarts_is_read_again(control_plane: ControlPlane) -> None:
    """While it is down it is unavailable, soon; afterwards the same client works, without a doubled write."""
    if control_plane.is_external:
        pytest.skip("FORESIZE_TEST_KUBECONFIG names a cluster with components of its own")
    client = KubeClient.connect(control_plane.kubeconfig)
    cluster = KubeCluster(client, SELECTOR, ("default",))
    cluster.observe(1.0)

    control_plane.kill("kube-apiserver")
    try:
        with pytest.raises(ClusterUnavailable, match="did not answer GET"):
            cluster.observe(2.0)
    finally:
        control_plane.restart("kube-apiserver")

    assert cluster.observe(3.0).observed_at_seconds == 3.0
