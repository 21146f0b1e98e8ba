"""Pods become values: containers, kills and resizes only where requests are sized, and one number elsewhere."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from autoscaler.cluster.containers import Amounts, PendingResize
from autoscaler.controller.autoscalers import VerticalMode, seconds_of
from autoscaler.decisions.resizes import ContainerResize, PodResize
from autoscaler.errors import ClusterRefused
from autoscaler.kube.client import KubeClient
from autoscaler.kube.cluster import KubeCluster
from autoscaler.kube.objects import ReadyPod, autoscaler_of
from autoscaler.kube.pods import PodReducer, WatchedPod, pod_state_of
from predictor.usage.panel import Resource
from tests.support.http_answers import Answer, answering
from tests.support.kubeconfig import a_kubeconfig

MIB = 2**20


def a_pod(*, spec: Any = None, status: Any = None, **metadata: Any) -> dict[str, Any]:
    owner = {"kind": "StatefulSet", "name": "db", "controller": True}
    return {
        "metadata": {
            "namespace": "shop",
            "name": "db-0",
            "uid": "u",
            "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T10:00:00Z",
            "ownerReferences": [owner],
        }
        | metadata,
        "spec": spec or {"containers": [{"name": "main"}]},
        "status": {
            "phase": "Running",
            "qosClass": "Burstable",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T10:00:42Z"}],
        }
        | (status or {}),
    }


def test_of_a_pod_that_nobody_sizes_only_the_time_is_kept() -> None:
    """And everything from the moment at which somebody does."""
    reduce = PodReducer()

    assert isinstance(reduce(a_pod()), ReadyPod)
    assert reduce.widen({"shop/StatefulSet/db"})
    kept = reduce(a_pod())
    assert isinstance(kept, WatchedPod)
    assert (kept.workload, kept.state.name, kept.state.resource_version) == ("shop/StatefulSet/db", "db-0", "7")
    assert kept.ready is not None
    assert kept.ready.ready_seconds == 42.0
    assert not reduce.widen({"shop/StatefulSet/db"})
    assert not reduce.widen(set())
    assert isinstance(reduce(a_pod()), ReadyPod)


def test_a_pod_that_is_sized_is_kept_before_it_is_ready() -> None:
    """After a restart too, which tells nothing of how long it took."""
    reduce = PodReducer()
    reduce.widen({"shop/StatefulSet/db"})

    kept = reduce(a_pod(status={"conditions": [], "phase": "Pending"}))

    assert isinstance(kept, WatchedPod)
    assert (kept.ready, kept.state.is_running) == (None, False)


def test_containers_are_read_in_base_units() -> None:
    """What a resize would restart is noted."""
    container = {
        "name": "main",
        "resources": {"requests": {"cpu": "250m", "memory": "64Mi", "nvidia.com/gpu": "1"}, "limits": {"cpu": "1"}},
        "resizePolicy": [
            {"resourceName": "cpu", "restartPolicy": "NotRequired"},
            {"resourceName": "memory", "restartPolicy": "RestartContainer"},
        ],
    }

    (read,) = pod_state_of(a_pod(spec={"containers": [container]})).containers

    assert read.requests == Amounts(0.25, 64 * MIB)
    assert read.limits == Amounts(1.0, None)
    assert read.restarts_for == (Resource.MEMORY,)
    assert read.out_of_memory_at_seconds is None


@pytest.mark.parametrize("where", ["state", "lastState"])
def test_a_kill_for_want_of_memory_is_seen(where: str) -> None:
    """While the container is down and after it was started again; another end is none."""
    ended = {"reason": "OOMKilled", "finishedAt": "2026-01-02T00:00:00Z"}
    other = {"reason": "Error", "finishedAt": "2026-01-03T00:00:00Z"}

    def seconds(terminated: Any) -> float | None:
        statuses = [{"name": "main", where: {"terminated": terminated}}]
        return pod_state_of(a_pod(status={"containerStatuses": statuses})).containers[0].out_of_memory_at_seconds

    assert seconds(ended) == seconds_of("2026-01-02T00:00:00Z")
    assert seconds(other) is None


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (
            {"type": "PodResizePending", "reason": "Infeasible", "message": "too large"},
            PendingResize("Infeasible", "too large", seconds_of("2026-01-02T00:00:00Z")),
        ),
        (
            {"type": "PodResizePending", "reason": "Deferred"},
            PendingResize("Deferred", "", seconds_of("2026-01-02T00:00:00Z")),
        ),
        (
            {"type": "PodResizeInProgress"},
            PendingResize("InProgress", "", seconds_of("2026-01-02T00:00:00Z")),
        ),
        ({"type": "Initialized"}, None),
    ],
)
def test_a_resize_that_waits_is_seen(condition: dict[str, str], expected: PendingResize | None) -> None:
    conditions = [condition | {"status": "True", "lastTransitionTime": "2026-01-02T00:00:00Z"}]

    assert pod_state_of(a_pod(status={"conditions": conditions})).pending == expected


def test_a_pod_about_to_go_does_not_run() -> None:
    assert pod_state_of(a_pod()).is_running
    assert not pod_state_of(a_pod(deletionTimestamp="2026-01-02T00:00:00Z")).is_running


def test_init_containers_count_for_the_class() -> None:
    """One that asks for less than its limit keeps a pod from ever being Guaranteed."""
    loose = {"name": "init", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}
    tight = {"name": "init", "resources": {name: {"cpu": "1", "memory": "1Gi"} for name in ("requests", "limits")}}

    def rest(*init: Any) -> bool:
        return pod_state_of(a_pod(spec={"containers": [], "initContainers": list(init)})).is_rest_guaranteed

    assert rest()
    assert rest(tight)
    assert not rest(tight, loose)


def test_what_an_object_says_of_requests_is_read() -> None:
    """In base units; what is not given has the defaults, and nothing is done where nothing is said."""
    ref = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db"}

    def read(**spec: Any) -> Any:
        metadata = {"namespace": "shop", "name": "db", "uid": "u"}
        spec |= {"targetRef": ref, "horizontal": {"maxReplicas": 3}}
        return autoscaler_of({"metadata": metadata, "spec": spec}).vertical

    policy = {"name": "main", "minAllowed": {"cpu": "100m"}, "maxAllowed": {"memory": "2Gi"}}
    narrow = {"name": "*", "controlledResources": ["memory"]}
    given = read(vertical={"mode": "InPlace", "containers": [policy, narrow, {"name": "proxy", "mode": "Off"}]})

    assert read().mode is VerticalMode.OFF
    assert given.mode is VerticalMode.IN_PLACE
    assert given.policy("main").least == Amounts(0.1, None)
    assert given.policy("main").most == Amounts(None, 2 * 2**30)
    assert given.policy("main").controlled == (Resource.CPU, Resource.MEMORY)
    assert given.policy("any").controlled == (Resource.MEMORY,)
    assert given.policy("proxy").is_off
    assert given.changes(Resource.CPU)
    assert not read(vertical={"mode": "InPlace", "containers": [narrow]}).changes(Resource.CPU)
    assert not read(vertical={"mode": "Recommend"}).changes(Resource.CPU)


def test_a_cluster_that_cannot_resize_in_place_is_told_what_it_needs(tmp_path: Path) -> None:
    """It answers as if the pod were not there, but without a name."""
    message = "the server could not find the requested resource"
    answer = Answer(404, orjson.dumps({"kind": "Status", "code": 404, "message": message}))
    state = pod_state_of(a_pod())
    resize = PodResize(state, (ContainerResize("main", Amounts(), Amounts(0.5, None)),))

    with answering(answer) as server:
        cluster = KubeCluster(KubeClient.connect(a_kubeconfig(tmp_path, server.url)))
        with pytest.raises(ClusterRefused, match=r"needs Kubernetes 1\.33"):
            cluster.resize_pod(resize)
