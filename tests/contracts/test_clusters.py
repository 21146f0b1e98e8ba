"""A cluster in memory and a real API server behave alike to the controller: one contract, both."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from autoscaler.cluster.containers import Amounts, ContainerState, PodState
from autoscaler.cluster.reasons import Hold
from autoscaler.cluster.resources import Resources
from autoscaler.controller.autoscalers import (
    PredictiveAutoscaler,
    Rival,
    RivalKind,
    TargetRef,
    Vertical,
    VerticalMode,
)
from autoscaler.controller.memory import MemoryCluster
from autoscaler.controller.ports import ClusterReader, ClusterWriter, Event, ManagedWorkload, TargetWorkload
from autoscaler.decisions.resizes import ContainerResize, PodResize
from autoscaler.errors import ClusterRefused, ClusterUnavailable, CommandConflict, ObjectGone
from autoscaler.kube.client import KubeClient
from autoscaler.kube.cluster import KubeCluster
from tests.support.controlplane import ControlPlane, deployment, wait_until
from tests.support.scaling import an_autoscaler

CRD = yaml.safe_load((Path(__file__).resolve().parents[2] / "deploy" / "crd.yaml").read_text())
WEB = TargetRef("apps/v1", "Deployment", "web")


class Cluster(ClusterReader, ClusterWriter, Protocol):
    """Both ports, which one adapter serves."""


@dataclass
class Stage:
    """A cluster, and the hands of the people in it."""

    cluster: Cluster
    namespace: str
    create: Callable[[int], None]
    """A Deployment `web` with so many replicas."""
    scale: Callable[[int], None]
    delete: Callable[[], None]
    steer: Callable[[], None]
    """A HorizontalPodAutoscaler `rival` of it, from 2 to 7 replicas."""
    events: Callable[[], list[str]]
    """Reasons of the Events about the object."""

    def seen(self) -> ManagedWorkload:
        """The object as the controller sees it."""
        (found,) = [w for w in self.cluster.observe(1.0).workloads if w.autoscaler.namespace == self.namespace]
        return found

    def target(self) -> TargetWorkload:
        """Its target, once it is seen."""
        found = wait_until(lambda: self.seen().target, 20, "an observation")
        assert isinstance(found, TargetWorkload), found
        return found

    def until(self, holds: Callable[[ManagedWorkload], bool], what: str) -> ManagedWorkload:
        """The object as soon as it is so."""
        wait_until(lambda: holds(self.seen()), 20, what)
        return self.seen()


def replicas_of(seen: ManagedWorkload) -> int | None:
    return None if isinstance(seen.target, Hold) else seen.target.replicas


def write(stage: Stage, replicas: int) -> None:
    """Reads and writes until nothing came in between: in a living cluster every pod that gets ready does."""
    for _ in range(20):
        try:
            stage.cluster.set_replicas(stage.namespace, WEB, replicas, stage.cluster.scale_of(stage.namespace, WEB))
        except CommandConflict:
            continue
        return
    raise AssertionError("web never stood still")


def closed(cluster: KubeCluster) -> None:
    """Ends its watches and its connections."""
    cluster.close()
    cluster.client.close()


def in_memory() -> Iterator[Stage]:
    name = "shop/Deployment/web"
    cluster = MemoryCluster()
    cluster.put(an_autoscaler(name, uid="object", vertical=Vertical(VerticalMode.RECOMMEND)))
    made = 0

    def create(replicas: int) -> None:
        nonlocal made
        made += 1
        app = ContainerState("app", Amounts(0.5, 2.0**26))
        pods = tuple(
            PodState("shop", f"web-{made}-{number}", f"uid-{made}-{number}", "1", True, "Burstable", (app,))
            for number in range(replicas)
        )
        requested = Resources(0.5, 2**26)
        cluster.put(TargetWorkload(name, f"uid-{made}", replicas, 0, requested, containers=("app",), pods=pods))

    def steer() -> None:
        cluster.put(Rival(RivalKind.HPA, "shop", "rival", WEB, "hpa", min_replicas=2, max_replicas=7))

    yield Stage(
        cluster,
        "shop",
        create,
        lambda replicas: cluster.put(replace(cluster.targets[name], replicas=replicas)),
        lambda: cluster.remove(name),
        steer,
        lambda: [event.reason for event in cluster.events],
    )


def an_object(namespace: str, **spec: Any) -> dict[str, Any]:
    """The manifest of an object that steers `web`."""
    return {
        "apiVersion": "foresize.io/v1alpha1",
        "kind": "PredictiveAutoscaler",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "mode": "Auto",
            "horizontal": {"maxReplicas": 20},
            "vertical": {"mode": "Recommend"},
        }
        | spec,
    }


def on_an_api_server(plane: ControlPlane) -> Iterator[Stage]:
    client = KubeClient.connect(plane.kubeconfig)
    plane.apply(CRD)
    with plane.namespace("contract") as namespace:
        folder = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        plane.apply(an_object(namespace))
        cluster = KubeCluster(client, (namespace,))

        def create(replicas: int) -> None:
            plane.apply(deployment("web", namespace, replicas, requests={"cpu": "500m", "memory": "64Mi"}))

        def scale(replicas: int) -> None:
            plane.api.patch(f"{folder}/web/scale", {"spec": {"replicas": replicas}})

        def delete() -> None:
            plane.api.delete(f"{folder}/web")
            wait_until(lambda: not plane.get(folder)["items"], 30, "the Deployment to be gone")

        def steer() -> None:
            ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
            plane.apply(
                {
                    "apiVersion": "autoscaling/v2",
                    "kind": "HorizontalPodAutoscaler",
                    "metadata": {"name": "rival", "namespace": namespace},
                    "spec": {"scaleTargetRef": ref, "minReplicas": 2, "maxReplicas": 7},
                }
            )

        yield Stage(
            cluster,
            namespace,
            create,
            scale,
            delete,
            steer,
            lambda: [
                event["reason"]
                for event in plane.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
                if event["regarding"]["kind"] == "PredictiveAutoscaler"
            ],
        )
        closed(cluster)


@pytest.fixture(params=["memory", pytest.param("kubernetes", marks=pytest.mark.e2e)])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A cluster with one object, whose target is not there yet."""
    if request.param == "memory":
        yield from in_memory()
    else:
        yield from on_an_api_server(request.getfixturevalue("control_plane"))


def test_an_object_is_seen_with_all_that_a_decision_needs(stage: Stage) -> None:
    """Its target's replicas, and what one of them requests."""
    stage.create(3)

    target = stage.target()

    assert target.name == f"{stage.namespace}/Deployment/web"
    assert target.replicas == 3
    assert target.request_per_replica == Resources(cpu_cores=0.5, memory_bytes=2**26)
    assert target.uid == stage.cluster.scale_of(stage.namespace, WEB).uid


def test_a_target_that_is_not_there_is_no_error(stage: Stage) -> None:
    """The object is seen, and why its target is not; once it comes, it is seen too."""
    assert isinstance(stage.seen().target, Hold)

    stage.create(2)

    stage.until(lambda seen: replicas_of(seen) == 2, "the target")


def test_a_write_on_what_was_read_is_carried_out(stage: Stage) -> None:
    """The next observation shows the new number; the object stays the same one."""
    stage.create(3)
    before = stage.target()

    write(stage, 5)

    after = stage.until(lambda seen: replicas_of(seen) == 5, "5 replicas").target
    assert isinstance(after, TargetWorkload)
    assert after.uid == before.uid


def test_a_write_after_somebody_elses_is_a_conflict(stage: Stage) -> None:
    """Whoever scaled in between wins; the command is dropped."""
    stage.create(3)
    expected = stage.cluster.scale_of(stage.namespace, WEB)
    stage.scale(4)

    with pytest.raises(CommandConflict):
        stage.cluster.set_replicas(stage.namespace, WEB, 8, expected)

    stage.until(lambda seen: replicas_of(seen) == 4, "4 replicas")


def test_a_write_to_an_object_made_anew_is_a_conflict(stage: Stage) -> None:
    """The same name is not the same workload."""
    stage.create(3)
    expected = stage.cluster.scale_of(stage.namespace, WEB)
    stage.delete()
    stage.create(1)

    with pytest.raises(CommandConflict):
        stage.cluster.set_replicas(stage.namespace, WEB, 8, expected)

    stage.until(lambda seen: replicas_of(seen) == 1, "1 replica")


def test_what_is_not_there_is_gone(stage: Stage) -> None:
    """Neither read nor written, and said so."""
    stage.create(3)
    expected = stage.cluster.scale_of(stage.namespace, WEB)
    stage.delete()

    stage.until(lambda seen: isinstance(seen.target, Hold), "the target to be gone")
    with pytest.raises(ObjectGone):
        stage.cluster.scale_of(stage.namespace, WEB)
    with pytest.raises(ObjectGone):
        stage.cluster.set_replicas(stage.namespace, WEB, 8, expected)


def test_what_else_steers_the_target_is_seen_and_its_minimum_can_be_moved(stage: Stage) -> None:
    """A HorizontalPodAutoscaler; the object itself is not its own rival."""
    stage.create(3)
    stage.target()
    assert stage.seen().rivals == ()
    stage.steer()

    (hpa,) = stage.until(lambda seen: len(seen.rivals) == 1, "the rival").rivals
    assert (hpa.kind, hpa.name, hpa.min_replicas, hpa.max_replicas) == (RivalKind.HPA, "rival", 2, 7)

    for _ in range(20):
        try:
            stage.cluster.set_minimum(hpa, 4, stage.cluster.minimum_of(hpa))
            break
        except CommandConflict:
            continue
    stage.until(lambda seen: seen.rivals[0].min_replicas == 4, "a minimum of 4")


def running_pods(seen: ManagedWorkload) -> tuple[PodState, ...]:
    return () if isinstance(seen.target, Hold) else tuple(pod for pod in seen.target.pods if pod.is_running)


def test_the_pods_of_an_object_that_asks_for_requests_are_seen_and_resized(stage: Stage) -> None:
    """The other resource stays; a pod that has changed since it was seen is not written to."""
    stage.create(1)
    (pod,) = running_pods(stage.until(lambda seen: len(running_pods(seen)) == 1, "a running pod"))
    (container,) = pod.containers
    assert container == ContainerState("app", Amounts(0.5, 2.0**26))
    stale = PodResize(pod, (ContainerResize("app", container.requests, Amounts(0.75, None)),))

    for _ in range(20):
        (seen,) = running_pods(stage.seen())
        try:
            stage.cluster.resize_pod(replace(stale, pod=seen))
            break
        except CommandConflict:
            continue
    resized = stage.until(
        lambda seen: [each.containers[0].requests for each in running_pods(seen)] == [Amounts(0.75, 2.0**26)],
        "the new request",
    )

    assert [each.uid for each in running_pods(resized)] == [pod.uid]
    with pytest.raises(CommandConflict):
        stage.cluster.resize_pod(stale)
    with pytest.raises((CommandConflict, ObjectGone)):
        stage.cluster.resize_pod(replace(stale, pod=running_pods(resized)[0]._replace(uid="another")))
    with pytest.raises(ObjectGone):
        stage.cluster.resize_pod(replace(stale, pod=pod._replace(name="nobody", uid="nobody")))


def test_limits_are_written_where_they_move_with_requests(stage: Stage) -> None:
    """Of the resource that changes, and of no other."""
    stage.create(1)
    stage.until(lambda seen: len(running_pods(seen)) == 1, "a running pod")

    def is_resized(seen: ManagedWorkload) -> bool:
        (pod,) = running_pods(seen)
        (container,) = pod.containers
        if container.requests.cpu_cores != 0.75:
            change = ContainerResize("app", container.requests, Amounts(0.75, None), with_limits=True)
            with suppress(CommandConflict):
                stage.cluster.resize_pod(PodResize(pod, (change,)))
        return container == ContainerState("app", Amounts(0.75, 2.0**26), Amounts(0.75, None))

    stage.until(is_resized, "the new request and limit")


def test_a_status_takes_the_place_of_the_one_before(stage: Stage) -> None:
    """What is not in the new one is gone, and the spec is left as it was."""
    before = stage.seen().autoscaler
    stage.cluster.set_status(before, {"rung": "champion", "reason": "ForecastPeak"})
    stage.cluster.set_status(before, {"rung": "hold", "stabilization": {"targetUid": "t"}})

    after = stage.until(lambda seen: seen.autoscaler.status.get("rung") == "hold", "the status").autoscaler

    assert after.status == {"rung": "hold", "stabilization": {"targetUid": "t"}}
    assert (after.generation, after.max_replicas) == (before.generation, before.max_replicas)


def test_a_status_of_an_object_that_was_made_anew_is_refused(stage: Stage) -> None:
    """What is said of the old one would be believed of the new one."""
    gone: PredictiveAutoscaler = replace(stage.seen().autoscaler, uid="another")

    with pytest.raises((ClusterRefused, ObjectGone)):
        stage.cluster.set_status(gone, {"rung": "champion"})


def test_an_event_can_be_read_beside_the_object(stage: Stage) -> None:
    """By its reason."""
    about = stage.seen().autoscaler

    stage.cluster.publish(Event(about, "Conflict", "something else steers it", is_warning=True), 1_800_000_000.25)

    assert wait_until(stage.events, 10, "the Event") == ["Conflict"]


@pytest.mark.e2e
def test_who_set_the_replicas_last_is_seen(control_plane: ControlPlane) -> None:
    """Written by the controller, by a person through the scale, and by a person who applies the Deployment."""
    for stage in on_an_api_server(control_plane):
        stage.create(3)
        made = stage.target()
        assert not made.is_set_by_us

        write(stage, 5)
        ours = stage.until(lambda seen: replicas_of(seen) == 5, "5 replicas").target
        assert isinstance(ours, TargetWorkload)
        assert (ours.is_set_by_us, ours.generation) == (True, made.generation + 1)

        stage.scale(4)
        theirs = stage.until(lambda seen: replicas_of(seen) == 4, "4 replicas").target
        assert isinstance(theirs, TargetWorkload)
        assert not theirs.is_set_by_us

        write(stage, 6)
        stage.create(2)
        applied = stage.until(lambda seen: replicas_of(seen) == 2, "2 replicas").target
        assert isinstance(applied, TargetWorkload)
        assert not applied.is_set_by_us


@pytest.mark.e2e
def test_a_kind_without_a_scale_is_said_to_have_none(control_plane: ControlPlane) -> None:
    """A ConfigMap, and a kind that the cluster does not know: holds with a reason, no errors."""
    control_plane.apply(CRD)
    with control_plane.namespace("contract") as namespace:
        for name, api_version, kind in (("a", "v1", "ConfigMap"), ("b", "argoproj.io/v1alpha1", "Rollout")):
            manifest = an_object(namespace, targetRef={"apiVersion": api_version, "kind": kind, "name": "x"})
            manifest["metadata"]["name"] = name
            control_plane.apply(manifest)
        cluster = KubeCluster(KubeClient.connect(control_plane.kubeconfig), (namespace,))

        seen = {each.autoscaler.name: str(each.target) for each in cluster.observe(1.0).workloads}
        closed(cluster)

    assert "ConfigMap of v1 has no scale sub-resource" in seen["a"]
    assert "the cluster knows no Rollout of argoproj.io/v1alpha1" in seen["b"]


@pytest.mark.e2e
def test_a_custom_kind_with_a_scale_is_scaled(control_plane: ControlPlane) -> None:
    """Anything that has the sub-resource, as Argo's Rollout does."""
    control_plane.apply(CRD)
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    paths = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    control_plane.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "fleets.example.org"},
            "spec": {
                "group": "example.org",
                "scope": "Namespaced",
                "names": {"kind": "Fleet", "plural": "fleets"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": schema},
                        "subresources": {"scale": paths},
                    }
                ],
            },
        }
    )
    ref = TargetRef("example.org/v1", "Fleet", "one")
    with control_plane.namespace("contract") as namespace:
        fleet = {"apiVersion": "example.org/v1", "kind": "Fleet", "metadata": {"name": "one", "namespace": namespace}}
        control_plane.apply(fleet | {"spec": {"replicas": 2}})
        named = {"apiVersion": ref.api_version, "kind": ref.kind, "name": ref.name}
        control_plane.apply(an_object(namespace, targetRef=named))
        cluster = KubeCluster(KubeClient.connect(control_plane.kubeconfig), (namespace,))

        (seen,) = cluster.observe(1.0).workloads
        cluster.set_replicas(namespace, ref, 5, cluster.scale_of(namespace, ref))
        closed(cluster)

        assert replicas_of(seen) == 2
        assert control_plane.get(f"/apis/example.org/v1/namespaces/{namespace}/fleets/one")["spec"]["replicas"] == 5


@pytest.mark.e2e
def test_a_role_that_lacks_a_rule_is_told_which(control_plane: ControlPlane) -> None:
    """A user who may not see one of the kinds that must be seen is told the rule to add."""
    control_plane.apply(CRD)
    with control_plane.namespace("contract") as namespace:
        rules = [{"apiGroups": ["foresize.io"], "resources": ["predictiveautoscalers"], "verbs": ["list", "watch"]}]
        client = KubeClient.connect(control_plane.kubeconfig_for("sees-little", rules, namespace))
        cluster = KubeCluster(client, (namespace,))

        with pytest.raises(ClusterRefused) as refusal:
            cluster.observe(1.0)
        closed(cluster)

    assert f"add to the role in namespace {namespace}: " in str(refusal.value)


@pytest.mark.e2e
def test_a_kind_that_the_role_does_not_cover_stops_no_other_object(control_plane: ControlPlane) -> None:
    """Only the object that names it is held, with the rule that is missing; each cycle after the first is quick."""
    control_plane.apply(CRD)
    roles = yaml.safe_load_all((Path(__file__).resolve().parents[2] / "deploy" / "rbac.yaml").read_text())
    rules = next(each["rules"] for each in roles if each["metadata"]["name"] == "foresize-read")
    with control_plane.namespace("contract") as namespace:
        control_plane.apply(an_object(namespace))
        control_plane.apply(deployment("web", namespace, 2))
        stranger = an_object(namespace, targetRef={"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x"})
        stranger["metadata"]["name"] = "stranger"
        control_plane.apply(stranger)
        client = KubeClient.connect(control_plane.kubeconfig_for("reader", rules, namespace))
        cluster = KubeCluster(client, (namespace,))

        for _ in range(2):
            seen = {each.autoscaler.name: each.target for each in cluster.observe(1.0).workloads}
        closed(cluster)

    assert isinstance(seen["web"], TargetWorkload)
    assert "ReplicaSet objects cannot be seen: " in str(seen["stranger"])
    assert 'resources: ["replicasets"]' in str(seen["stranger"])


@pytest.mark.e2e
def test_how_long_pods_take_to_get_ready_is_learned(control_plane: ControlPlane) -> None:
    """From the pods of the target themselves."""
    if control_plane.is_external:
        pytest.skip("FORESIZE_TEST_KUBECONFIG names a cluster whose pods take their own time")
    from tests.support.controlplane import READY_AFTER_ANNOTATION

    control_plane.apply(CRD)
    with control_plane.namespace("contract") as namespace:
        control_plane.apply(an_object(namespace))
        control_plane.apply(deployment("web", namespace, 3, annotations={READY_AFTER_ANNOTATION: "3s"}))
        cluster = KubeCluster(KubeClient.connect(control_plane.kubeconfig), (namespace,))

        def ready() -> tuple[float, ...]:
            (seen,) = cluster.observe(1.0).workloads
            return () if isinstance(seen.target, Hold) else seen.target.ready_seconds

        wait_until(lambda: len(ready()) == 3, 60, "3 pods that tell")
        took = ready()
        closed(cluster)

    # The API counts whole seconds.
    assert all(2.0 <= seconds <= 30.0 for seconds in took)


@pytest.mark.e2e
def test_a_namespace_without_the_label_is_left_alone(control_plane: ControlPlane) -> None:
    """With a selector only namespaces that meet it count, as soon as they do."""
    control_plane.apply(CRD)
    with control_plane.namespace("contract") as namespace:
        control_plane.apply(an_object(namespace))
        client = KubeClient.connect(control_plane.kubeconfig)
        cluster = KubeCluster(client, (namespace,), f"opted-in={namespace}")

        assert cluster.observe(1.0).workloads == ()

        labels = {"metadata": {"labels": {"opted-in": namespace}}}
        control_plane.api.patch(f"/api/v1/namespaces/{namespace}", labels)
        wait_until(lambda: len(cluster.observe(2.0).workloads) == 1, 20, "the object")
        closed(cluster)


@pytest.mark.e2e
def test_the_disruption_budgets_of_the_pods_are_seen(control_plane: ControlPlane) -> None:
    """With what the cluster's own controller says they allow; one over other pods is none of the target's."""
    control_plane.apply(CRD)
    with control_plane.namespace("contract") as namespace:
        control_plane.apply(an_object(namespace))
        control_plane.apply(deployment("web", namespace, 3))
        for name, app in (("pdb", "web"), ("other", "else")):
            control_plane.apply(
                {
                    "apiVersion": "policy/v1",
                    "kind": "PodDisruptionBudget",
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": app}}},
                }
            )
        cluster = KubeCluster(KubeClient.connect(control_plane.kubeconfig), (namespace,))

        def allowed() -> list[tuple[str, int]]:
            (seen,) = cluster.observe(1.0).workloads
            return [] if isinstance(seen.target, Hold) else [(b.name, b.allowed) for b in seen.target.budgets]

        wait_until(lambda: allowed() == [("pdb", 1)], 60, "one pod that may go")
        closed(cluster)


@pytest.mark.e2e
def test_an_api_server_that_restarts_is_read_again(control_plane: ControlPlane) -> None:
    """While it is down a write fails soon; afterwards the same client works and the picture comes back."""
    if control_plane.is_external:
        pytest.skip("FORESIZE_TEST_KUBECONFIG names a cluster with components of its own")
    control_plane.apply(CRD)
    with control_plane.namespace("contract") as namespace:
        control_plane.apply(an_object(namespace))
        control_plane.apply(deployment("web", namespace, 1))
        cluster = KubeCluster(KubeClient.connect(control_plane.kubeconfig), (namespace,))
        cluster.observe(1.0)

        control_plane.kill("kube-apiserver")
        try:
            with pytest.raises(ClusterUnavailable, match="did not answer GET"):
                cluster.scale_of(namespace, WEB)
        finally:
            control_plane.restart("kube-apiserver")

        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/web/scale"
        control_plane.api.patch(path, {"spec": {"replicas": 2}})
        wait_until(lambda: replicas_of(cluster.observe(3.0).workloads[0]) == 2, 60, "the picture to come back")
        closed(cluster)
