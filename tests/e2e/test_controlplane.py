"""The control plane of the tests behaves as a Kubernetes cluster does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.controlplane import (
    READY_AFTER_ANNOTATION,
    ApiError,
    ControlPlane,
    ControlPlaneError,
    deployment,
    pinned_kubernetes_version,
    wait_until,
)

pytestmark = pytest.mark.e2e

SCALE_PATH = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"


@pytest.fixture
def own_plane(control_plane: ControlPlane) -> ControlPlane:
    """The control plane where its components may be touched."""
    if control_plane.is_external:
        pytest.skip("FORESIZE_TEST_KUBECONFIG names a cluster with kubelets and components of its own")
    return control_plane


def test_the_server_reports_the_pinned_version(own_plane: ControlPlane) -> None:
    """The API server is the Kubernetes release that tools/controlplane names."""
    if os.environ.get("KUBEBUILDER_ASSETS"):
        pytest.skip("KUBEBUILDER_ASSETS brings a version of its own")

    version = own_plane.get("/version")

    assert version["gitVersion"] == pinned_kubernetes_version()


def test_a_deployment_becomes_ready_and_scales(control_plane: ControlPlane) -> None:
    """Three replicas become Ready, and a patch of the scale subresource brings them to ten."""
    with control_plane.namespace() as namespace:
        control_plane.apply(deployment("web", namespace, replicas=3))
        wait_until(lambda: len(control_plane.ready_pods(namespace, "app=web")) == 3, 60, "3 Ready pods")

        path = SCALE_PATH.format(namespace=namespace, name="web")
        control_plane.api.patch(path, {"spec": {"replicas": 10}})

        wait_until(lambda: len(control_plane.ready_pods(namespace, "app=web")) == 10, 60, "10 Ready pods")
        wait_until(lambda: control_plane.get(path)["status"]["replicas"] == 10, 10, "a scale status of 10")


def test_a_restricted_user_may_do_what_its_rules_say_and_nothing_else(control_plane: ControlPlane) -> None:
    """A user with a Role that reads pods gets 403 for Deployments and for other namespaces."""
    with control_plane.namespace() as namespace, control_plane.namespace() as other:
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
        reader = control_plane.api_for(control_plane.kubeconfig_for("pod-reader", rules, namespace))

        assert reader.get(f"/api/v1/namespaces/{namespace}/pods")["items"] == []
        for forbidden in (
            f"/apis/apps/v1/namespaces/{namespace}/deployments",
            f"/api/v1/namespaces/{other}/pods",
        ):
            with pytest.raises(ApiError) as refusal:
                reader.get(forbidden)
            assert refusal.value.status == 403


def test_a_request_without_a_known_token_is_refused(own_plane: ControlPlane) -> None:
    """A stranger's token gets 401, so the server checks who is asking."""
    with own_plane.namespace() as namespace:
        kubeconfig = own_plane.kubeconfig_for("soon-unknown", [], namespace)
        text = kubeconfig.read_text()
        kubeconfig.write_text(text.replace("token: ", "token: not-"))

        with pytest.raises(ApiError) as refusal:
            own_plane.api_for(kubeconfig).get(f"/api/v1/namespaces/{namespace}/pods")

    assert refusal.value.status == 401


def test_an_in_place_resize_reaches_the_status(own_plane: ControlPlane) -> None:
    """A pods/resize patch is accepted and the container's status shows the new resources, without a new pod."""
    with own_plane.namespace() as namespace:
        own_plane.apply(deployment("web", namespace, replicas=1, requests={"cpu": "250m", "memory": "64Mi"}))
        (pod,) = wait_until(lambda: own_plane.ready_pods(namespace), 60, "a Ready pod")
        path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}"
        resized = {"name": "app", "resources": {"requests": {"cpu": "500m"}}}

        own_plane.api.patch(
            f"{path}/resize", {"spec": {"containers": [resized]}}, "application/strategic-merge-patch+json"
        )

        def actuated_cpu() -> str:
            return str(own_plane.get(path)["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"])

        wait_until(lambda: actuated_cpu() == "500m", 20, "the resize to be actuated")
        assert own_plane.get(path)["metadata"]["uid"] == pod["metadata"]["uid"]


def test_a_pod_takes_the_lead_time_it_asks_for(own_plane: ControlPlane) -> None:
    """A pod annotated with a time to Ready is not Ready before it has passed."""
    with own_plane.namespace() as namespace:
        started = time.monotonic()
        own_plane.apply(deployment("slow", namespace, 1, annotations={READY_AFTER_ANNOTATION: "2s"}))

        wait_until(lambda: own_plane.ready_pods(namespace), 60, "a Ready pod")

        assert time.monotonic() - started >= 2.0


def test_a_pod_that_fits_on_no_node_stays_pending(own_plane: ControlPlane) -> None:
    """A request over every node's allocatable leaves the pod unscheduled with the scheduler's reason."""
    with own_plane.namespace() as namespace:
        own_plane.apply(deployment("huge", namespace, 1, requests={"cpu": "1000"}))

        def refusals() -> list[str]:
            return [
                str(c["reason"])
                for pod in own_plane.pods(namespace)
                for c in pod["status"].get("conditions", [])
                if c["type"] == "PodScheduled" and c["status"] == "False"
            ]

        assert wait_until(refusals, 30, "the scheduler's verdict") == ["Unschedulable"]


@pytest.mark.parametrize("component", ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"])
def test_the_cluster_works_again_after_a_component_was_killed(own_plane: ControlPlane, component: str) -> None:
    """After the crash and restart of any one component, what was written is still there and new pods get Ready."""
    with own_plane.namespace() as namespace:
        own_plane.apply(deployment("before", namespace, replicas=1))
        wait_until(lambda: own_plane.ready_pods(namespace, "app=before"), 60, "the first pod")

        own_plane.kill(component)
        own_plane.restart(component)

        assert len(own_plane.ready_pods(namespace, "app=before")) == 1
        wait_until(lambda: own_plane.apply(deployment("after", namespace, replicas=2)), 30, "the Deployment")
        wait_until(lambda: len(own_plane.ready_pods(namespace, "app=after")) == 2, 60, "2 new pods")


def test_a_component_that_does_not_start_shows_the_end_of_its_log(own_plane: ControlPlane) -> None:
    """The error names the component and holds what it said before it ended."""
    argv = own_plane._components["kube-scheduler"].argv
    argv.append("--no-such-flag")
    try:
        with pytest.raises(ControlPlaneError, match=r"(?s)kube-scheduler ended .*no-such-flag"):
            own_plane.restart("kube-scheduler")
    finally:
        argv.remove("--no-such-flag")
        own_plane.restart("kube-scheduler")


def test_no_process_outlives_its_test_process(tmp_path: Path) -> None:
    """A process of the group ends when the Python process that started it is killed without warning."""
    script = (
        "import os, pathlib, signal; from tests.support.controlplane import ProcessGroup\n"
        "folder = pathlib.Path(os.environ['FOLDER'])\n"
        "child = ProcessGroup().start(['sleep', '600'], folder / 'sleep.log', folder)\n"
        "(folder / 'pid').write_text(str(child.pid))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    ended = subprocess.run([sys.executable, "-c", script], env=os.environ | {"FOLDER": str(tmp_path)}, check=False)

    assert ended.returncode == -signal.SIGKILL
    status = Path("/proc") / (tmp_path / "pid").read_text() / "stat"
    wait_until(lambda: not status.exists() or " Z " in status.read_text(), 10, "the orphan to be killed")
