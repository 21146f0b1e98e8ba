"""What happens to a target meanwhile: made anew, changed by others all the time, steered by an HPA, rolled out."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from autoscaler.cluster.reasons import Hold
from autoscaler.controller.autoscalers import Rival, TargetRef
from autoscaler.controller.loop import Controller
from autoscaler.controller.memory import MemoryLeadership
from autoscaler.controller.ports import ClusterObservation, Scale, TargetWorkload
from autoscaler.controller.records import Outcome
from autoscaler.kube.client import KubeClient
from autoscaler.kube.cluster import KubeCluster
from tests.support.controlplane import ControlPlane, condition, deployment, wait_until
from tests.support.live_demand import LiveDemand
from tests.support.running import CRD, LITTLE, MUCH, SOON_SECONDS, Scene, a_scene, an_object
from tests.support.scaling import NOON_SECONDS, ScalingParts, noon_rush
from tests.support.serving import ManualClock

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
STORMS = 3


@dataclass
class RecreatingReader:
    """Reads the cluster; just before the scale is read for the first write, the target is deleted and made anew."""

    cluster: KubeCluster
    plane: ControlPlane
    namespace: str
    is_due: bool = True
    uids: list[str] = field(default_factory=list)

    def observe(self, now_seconds: float) -> ClusterObservation:
        return self.cluster.observe(now_seconds)

    def minimum_of(self, hpa: Rival) -> Scale:
        return self.cluster.minimum_of(hpa)

    def scale_of(self, namespace: str, target: TargetRef) -> Scale:
        if self.is_due:
            self.is_due = False
            folder = f"/apis/apps/v1/namespaces/{self.namespace}/deployments"
            self.uids.append(self.plane.get(f"{folder}/web")["metadata"]["uid"])
            self.plane.api.delete(f"{folder}/web")
            wait_until(lambda: not self.plane.get(folder)["items"], SOON_SECONDS, "the Deployment to be gone")
            self.plane.apply(deployment("web", self.namespace, 3, requests={"cpu": "1"}))
            self.uids.append(self.plane.get(f"{folder}/web")["metadata"]["uid"])
        return self.cluster.scale_of(namespace, target)


def test_a_target_made_anew_between_decision_and_write_is_left_alone(control_plane: ControlPlane) -> None:
    """The same name and number of replicas, but another object: nothing is written, said so, and decided anew."""
    control_plane.apply(CRD)
    client = KubeClient.connect(control_plane.kubeconfig)
    with control_plane.namespace("faults") as namespace:
        control_plane.apply(deployment("web", namespace, 3, requests={"cpu": "1"}))
        control_plane.apply(an_object(namespace, "web", metric={"resource": "cpu"}, target={"averageUtilization": 90}))
        parts = ScalingParts(
            usage_by_workload={f"{namespace}/Deployment/web": noon_rush(2.0, 5.6)},
            targets=(),
            clock=ManualClock(NOON_SECONDS + 60.0),
        )
        cluster = KubeCluster(client, (namespace,))
        reader = RecreatingReader(cluster, control_plane, namespace)
        controller = Controller(reader, cluster, parts.predictor, parts.settings, parts.clock, MemoryLeadership())
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/web"
        status_path = f"/apis/foresize.io/v1alpha1/namespaces/{namespace}/predictiveautoscalers/web"
        try:
            (record,) = controller.cycle().records
            assert record.plan.decision.desired > 3
            assert record.result.outcome is Outcome.SKIPPED
            assert record.result.detail == "deleted and created anew since this was decided"
            assert reader.uids[0] != reader.uids[1]
            made = control_plane.get(path)
            assert (made["spec"]["replicas"], made["metadata"]["generation"]) == (3, 1)
            status = control_plane.get(status_path)["status"]
            able = next(c for c in status["conditions"] if c["type"] == "AbleToScale")
            assert (able["reason"], able["message"]) == ("DecidedAnew", record.result.detail)
            assert status["decisions"][0]["outcome"] == "skipped"

            def is_raised() -> bool:
                parts.clock.now += 1
                controller.cycle()
                return bool(control_plane.get(path)["spec"]["replicas"] > 3)

            wait_until(is_raised, SOON_SECONDS, "the new one to be raised")
            status = control_plane.get(status_path)["status"]
            assert status["stabilization"]["targetUid"] == reader.uids[1]
            assert control_plane.get(path)["metadata"]["generation"] == 2
        finally:
            cluster.close()
            client.close()


@contextmanager
def storm(scene: Scene, name: str) -> Iterator[list[int]]:
    """Others that change the Deployment's annotations as fast as they can; yields the replicas that they see."""
    over = threading.Event()
    seen: list[int] = []

    def blow(number: int) -> None:
        api = scene.plane.api_for(scene.plane.kubeconfig)
        count = 0
        while not over.is_set():
            count += 1
            answer = api.patch(scene.path(name), {"metadata": {"annotations": {f"storm-{number}": str(count)}}})
            seen.append(answer["spec"]["replicas"])

    threads = [threading.Thread(target=blow, args=(number,)) for number in range(STORMS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_storm_of_changes_by_others_leads_to_no_wrong_write(
    control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path
) -> None:
    """Each write meets a conflict: it gets through, or says that it did not; afterwards there was exactly one."""
    with a_scene(control_plane, demand, tmp_path) as scene:
        scene.use(LITTLE, "web")
        scene.put("web", maxReplicas=4)
        copy = scene.start()
        wait_until(lambda: scene.status("web").get("rung") == "reactive", SOON_SECONDS, "a status")

        with storm(scene, "web") as seen:
            scene.use(MUCH, "web")

            def answer() -> bool:
                return scene.replicas("web") == 4 or scene.condition("web", "AbleToScale")[1] == "DecidedAnew"

            wait_until(answer, SOON_SECONDS, "a write or the reason why there is none")
        scene.until_replicas("web", 4)
        scene.until_condition("web", "ScalingLimited", "True", "TooManyReplicas")
        wait_until(lambda: "SuccessfulRescale" in scene.reasons("web"), SOON_SECONDS, "the Event")
        assert set(seen) <= {1, 4}
        applied = [(d["from"], d["to"]) for d in scene.status("web")["decisions"] if d["outcome"] == "applied"]
        assert applied == [(1, 4)]
        (note,) = [note for reason, note in scene.events("web") if reason == "SuccessfulRescale"]
        assert note.startswith("from 1 to 4 replicas")
        assert {line["outcome"] for line in copy.lines("decision")} <= {"none", "skipped", "applied"}


def test_no_replica_is_removed_while_a_rollout_is_in_progress(
    control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path
) -> None:
    """New pods that fit on no node keep it open, and the replicas too; once it is through, scaling in goes on."""
    behaviour = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    with a_scene(control_plane, demand, tmp_path) as scene:
        scene.use(MUCH, "web")
        scene.put("web", replicas=6, maxReplicas=6, behavior=behaviour)
        scene.start()
        scene.until_condition("web", "ScalingLimited", "True", "TooManyReplicas")

        def roll_out(node: str | None) -> None:
            selector = None if node is None else {"kubernetes.io/hostname": node}
            control_plane.api.patch(scene.path("web"), {"spec": {"template": {"spec": {"nodeSelector": selector}}}})

        roll_out("nowhere")
        wait_until(
            lambda: 0 < control_plane.get(scene.path("web"))["status"].get("updatedReplicas", 0) < 6,
            SOON_SECONDS,
            "pods of both versions",
        )
        scene.use(LITTLE, "web")
        message = scene.until_condition("web", "AbleToScale", "True", "RolloutInProgress")
        assert "none are removed meanwhile" in message
        assert (scene.replicas("web"), scene.generation("web")) == (6, 2)

        roll_out(None)
        scene.until_replicas("web", 1)
        wait_until(lambda: "SuccessfulRescale" in scene.reasons("web"), SOON_SECONDS, "the Event")
        assert scene.generation("web") == 4
        assert scene.events("web")[-1][1].startswith("from 6 to 1")


def test_a_kind_that_counts_its_replicas_elsewhere_is_told_and_not_guessed(control_plane: ControlPlane) -> None:
    """Its scale reads another field than spec.replicas; the other objects are seen as ever."""
    control_plane.apply(CRD)
    names = {"kind": "Database", "listKind": "DatabaseList", "plural": "databases", "singular": "database"}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
        "subresources": {"scale": {"specReplicasPath": ".spec.instances", "statusReplicasPath": ".status.instances"}},
    }
    kind = control_plane.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "databases.example.org"},
            "spec": {"group": "example.org", "scope": "Namespaced", "names": names, "versions": [version]},
        }
    )
    path = control_plane.api.path_of(kind)
    wait_until(lambda: condition(control_plane.get(path), "Established") == "True", SOON_SECONDS, "the new kind")
    client = KubeClient.connect(control_plane.kubeconfig)
    with control_plane.namespace("faults") as namespace:
        control_plane.apply(
            {
                "apiVersion": "example.org/v1",
                "kind": "Database",
                "metadata": {"name": "pg", "namespace": namespace},
                "spec": {"instances": 4},
            }
        )
        control_plane.apply(deployment("web", namespace, 2))
        manifest = an_object(namespace, "pg")
        manifest["spec"]["targetRef"] = {"apiVersion": "example.org/v1", "kind": "Database", "name": "pg"}
        control_plane.apply(manifest)
        control_plane.apply(an_object(namespace, "web"))
        cluster = KubeCluster(client, namespaces=(namespace,))
        try:
            seen = {each.autoscaler.name: each.target for each in cluster.observe(0.0).workloads}
        finally:
            cluster.close()
            client.close()
            control_plane.api.delete(path)

    assert isinstance(seen["pg"], Hold)
    assert "does not say in spec.replicas how many it has" in seen["pg"].reason.message
    assert isinstance(seen["web"], TargetWorkload)
    assert seen["web"].replicas == 2
