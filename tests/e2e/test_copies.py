"""Copies of the controller that are killed, stopped, ended and cut off: one acts, and nothing is lost or done twice."""

from datetime import datetime
from pathlib import Path

import pytest

from tests.support.controlplane import ControlPlane, wait_until
from tests.support.kube_api import JsonObject
from tests.support.live_demand import LiveDemand
from tests.support.relay import relayed
from tests.support.running import LITTLE, MUCH, SOON_SECONDS, Copy, Scene, a_scene

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
WITHOUT_WINDOW: JsonObject = {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}


def seconds(line: JsonObject) -> float:
    """When a line was logged."""
    return datetime.fromisoformat(line["time"]).timestamp()


def raised(scene: Scene, above: int = 1) -> list[str]:
    """Deployments that have more replicas than that."""
    return [name for name, item in scene.deployments().items() if item["spec"]["replicas"] > above]


def events(scene: Scene, reason: str) -> list[str]:
    """Names of the objects that have an Event of that reason, once for each."""
    items = scene.plane.get(f"/apis/events.k8s.io/v1/namespaces/{scene.namespace}/events")["items"]
    return [item["regarding"]["name"] for item in items if item["reason"] == reason]


def until_told(scene: Scene, replicas: int, *names: str) -> None:
    """Waits until each object's status shows so many replicas."""
    folder = scene.object_path(names[0]).rpartition("/")[0]

    def shown() -> bool:
        statuses = {i["metadata"]["name"]: i.get("status", {}) for i in scene.plane.get(folder)["items"]}
        return all(statuses[name].get("currentReplicas") == replicas for name in names)

    wait_until(shown, SOON_SECONDS, f"statuses that show {replicas} replicas")


def decided_first(copy: Copy, after_seconds: float) -> float:
    """When a copy's first cycle in which it led began to count, after that moment."""

    def found() -> list[float]:
        led = [seconds(line) for line in copy.lines("cycle") if not line["standby"]]
        return [each for each in led if each > after_seconds]

    return wait_until(found, SOON_SECONDS, "a cycle of the next leader")[0]


def test_a_leader_killed_amid_its_writes_is_replaced_and_nothing_is_lost(
    control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path
) -> None:
    """kill -9 with some Deployments raised and some not: the next one raises the rest, each exactly once.

    What the dead one wrote and could not tell any more is not taken for somebody else's change.
    """
    names = [f"w{number:02}" for number in range(40)]
    with (
        a_scene(control_plane, demand, tmp_path) as scene,
        relayed(control_plane.kubeconfig, tmp_path) as (relay, slow_kubeconfig),
    ):
        scene.use(LITTLE, *names)
        scene.put(*names, maxReplicas=3, wait=False)
        first = scene.start(kubeconfig=slow_kubeconfig)
        scene.leader(first)
        second = scene.start()
        wait_until(lambda: second.is_ready, SOON_SECONDS, "the second copy")
        until_told(scene, 1, *names)

        relay.delay_seconds = 0.05
        scene.use(MUCH, *names)
        wait_until(lambda: len(raised(scene)) >= 5, SOON_SECONDS, "the first writes")
        first.kill()
        killed_seconds = datetime.now().astimezone().timestamp()
        by_first = raised(scene)
        assert len(by_first) < len(names), "it was to be killed in the middle"

        assert decided_first(second, killed_seconds) - killed_seconds < 15
        wait_until(lambda: len(raised(scene, 2)) == len(names), SOON_SECONDS, "3 replicas each")
        until_told(scene, 3, *names)
        for name, item in scene.deployments().items():
            assert (item["spec"]["replicas"], item["metadata"]["generation"]) == (3, 2), name
            status, reason, message = scene.condition(name, "AbleToScale")
            assert (status, reason in ("SucceededRescale", "ReadyForNewScale")) == ("True", True), (name, message)
            assert scene.status(name)["lastScaleTime"], name
        # What the dead one wrote it could not tell of; the next one does.
        wait_until(lambda: len(events(scene, "SuccessfulRescale")) >= len(names), SOON_SECONDS, "an Event for each")
        assert sorted(events(scene, "SuccessfulRescale")) == names, "one Event for one change"
        assert not events(scene, "FailedRescale")
        told = {name: [(d["from"], d["to"], d["outcome"]) for d in scene.status(name)["decisions"]] for name in names}
        assert told == {name: [(1, 3, "applied")] for name in names}, "one entry for one change"
        by_dead = {name for name in names if scene.status(name)["decisions"][0]["reason"] == "UntoldChange"}
        by_next = {d["autoscaler"].rpartition("/")[2] for d in second.decisions() if d["outcome"] == "applied"}
        assert set(by_first) <= by_dead
        assert by_dead == set(names) - by_next


def test_a_leader_that_slept_through_its_lease_does_not_act_when_it_wakes(
    control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path
) -> None:
    """Stopped amid its writes, its successor raises and lowers; what it had decided is then no longer written.

    To the sleeper the Deployments look as when it decided: only the lease tells that it may not.
    """
    names = [f"w{number:02}" for number in range(12)]
    with (
        a_scene(control_plane, demand, tmp_path) as scene,
        relayed(control_plane.kubeconfig, tmp_path) as (relay, slow_kubeconfig),
    ):
        scene.use(LITTLE, *names)
        scene.put(*names, maxReplicas=3, wait=False, **WITHOUT_WINDOW)
        first = scene.start(kubeconfig=slow_kubeconfig)
        scene.leader(first)
        second = scene.start()
        wait_until(lambda: second.is_ready, SOON_SECONDS, "the second copy")
        until_told(scene, 1, *names)

        relay.delay_seconds = 0.15
        scene.use(MUCH, *names)
        wait_until(lambda: len(raised(scene)) >= 2, SOON_SECONDS, "the first writes")
        first.pause()
        assert len(raised(scene)) < len(names) - 1, "it was to be stopped in the middle"
        scene.leader(second)
        wait_until(lambda: len(raised(scene, 2)) == len(names), SOON_SECONDS, "the other one's writes")
        scene.use(LITTLE, *names)
        wait_until(lambda: not raised(scene), SOON_SECONDS, "the other one's way back")
        until_told(scene, 1, *names)
        before = {name: item["metadata"]["generation"] for name, item in scene.deployments().items()}
        said, cycles = len(first.lines("decision")), len(first.lines("cycle"))

        first.go_on()
        wait_until(lambda: len(first.lines("cycle")) >= cycles + 3, SOON_SECONDS, "three cycles of the sleeper")

        after = {name: item["metadata"]["generation"] for name, item in scene.deployments().items()}
        assert after == before, "nothing was written by it"
        late = first.lines("decision")[said:]
        skipped = [line for line in late if line.get("detail") == "this copy does not lead any more"]
        assert skipped, late
        assert [line["standby"] for line in first.lines("cycle")[cycles + 1 :]][:2] == [True, True]
        assert second.leads
        name = skipped[0]["autoscaler"].rpartition("/")[2]
        assert events(scene, "SuccessfulRescale").count(name) == 2, "raised and lowered, both by the other one"


def test_one_acts_and_ends_politely(control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path) -> None:
    """SIGTERM: the leader ends with 0 and gives its lease up, so that the other one leads within seconds."""
    with a_scene(control_plane, demand, tmp_path) as scene:
        scene.use(2.5, "web")
        scene.put("web", maxReplicas=5)
        first = scene.start()
        scene.leader(first)
        second = scene.start()
        scene.until_replicas("web", 3)
        wait_until(lambda: second.is_ready, SOON_SECONDS, "the second copy")
        assert not second.leads

        assert first.terminate() == 0
        stopped = first.lines()[-1]
        assert stopped["event"] == "stopped"
        assert decided_first(second, seconds(stopped)) - seconds(stopped) < 5

        scene.use(MUCH, "web")
        scene.until_replicas("web", 5)
        wait_until(lambda: scene.reasons("web").count("SuccessfulRescale") == 2, SOON_SECONDS, "two Events")
        assert scene.generation("web") == 3
        assert scene.condition("web", "AbleToScale")[0] == "True"


def test_an_outage_of_the_api_server_and_its_store_is_survived(demand: LiveDemand, tmp_path: Path) -> None:
    """It goes on running, writes nothing, says why, and acts as soon as it leads again."""
    plane = ControlPlane(folder=tmp_path / "plane")
    if plane.is_external:
        pytest.skip("FORESIZE_TEST_KUBECONFIG names a cluster with components of its own")
    with plane, a_scene(plane, demand, tmp_path) as scene:
        scene.use(LITTLE, "web")
        scene.put("web", maxReplicas=3)
        copy = scene.start()
        scene.leader(copy)
        until_told(scene, 1, "web")

        plane.kill("kube-apiserver")
        plane.kill("etcd")
        scene.use(MUCH, "web")
        (said,) = wait_until(lambda: copy.lines("lease not reached"), SOON_SECONDS, "the reason in its log")
        assert "did not answer" in said["message"]
        wait_until(lambda: not copy.leads, SOON_SECONDS, "the end of its lease")

        plane.restart("etcd")
        plane.restart("kube-apiserver")
        scene.until_replicas("web", 3)
        until_told(scene, 3, "web")
        assert scene.generation("web") == 2
        wait_until(lambda: scene.reasons("web").count("SuccessfulRescale") == 1, SOON_SECONDS, "the Event")
        assert scene.condition("web", "AbleToScale")[0] == "True"
        assert copy.process.poll() is None
