"""GPUs shared on a real control plane, from DCGM's metrics in a real Prometheus; nodes have GPUs in name only."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.demo.exporters import RawSeries
from tests.support.controlplane import ApiError, ControlPlane, wait_until
from tests.support.live_nodes import LiveNodes
from tests.support.prometheus import STEP, a_prometheus, a_series
from tests.support.shop import CRDS, DEPLOY, HOURS, ROLES, Shop, a_bare_pod, a_policy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
LABEL = "nvidia.com/device-plugin.config"
GPU = "nvidia.com/gpu"
BUSY, MIB = 0.2, 8_000
"""Part of its device's time that each pod takes at the peak of each hour, and of its memory."""


def gpu_past(namespace: str, node: str, hostname: str, last_mib: int, hours: int = HOURS) -> list[RawSeries]:
    """Two pods, each with a device to itself, of which in the last quarter of an hour so much memory is in use."""
    # For a while from now on as well, as a test takes some time and devices are looked at step by step.
    steps = hours * 3600 // STEP + 6
    found: list[RawSeries] = []
    for number in range(2):
        pod = {"namespace": namespace, "pod": f"train-{number}"}
        device = {"Hostname": hostname or node, "UUID": f"GPU-{number}", "GPU_I_ID": ""}
        active = [BUSY if step % 12 in (5, 6, 7) else 0.01 for step in range(steps)]
        asked = {"container": "app", "resource": "nvidia_com_gpu"}
        found += [
            a_series("DCGM_FI_PROF_SM_ACTIVE", active, **device, **pod),
            a_series("DCGM_FI_DEV_GPU_UTIL", [99] * steps, **device, **pod),
            a_series("DCGM_FI_DEV_FB_USED", [MIB] * (steps - 9) + [last_mib] * 9, **device, **pod),
            a_series("kube_pod_container_resource_requests", [1] * steps, **pod, **asked),
            a_series("kube_pod_status_phase", [1] * steps, **pod, phase="Running"),
            a_series("kube_pod_info", [1] * steps, **pod, node=node),
        ]
    return found


@pytest.fixture
def hostname() -> str:
    """Of the node as DCGM's exporter tells it; empty is its name."""
    return ""


@pytest.fixture
def last_mib() -> int:
    """What is in use of each device's memory lately."""
    return MIB


@pytest.fixture
def lab(control_plane: ControlPlane, tmp_path: Path, hostname: str, last_mib: int) -> Iterator[Shop]:
    """A node with two GPUs, two pods that have one each, and a controller with the roles of deploy/."""
    if control_plane.is_external:
        pytest.skip("FORESIZE_TEST_KUBECONFIG names a cluster with kubelets of its own")
    for crd in CRDS:
        control_plane.apply(crd)
    now = int(time.time()) // STEP * STEP
    start = now - HOURS * 3600
    with control_plane.namespace("gpus") as namespace:
        labels = {"pool": namespace, "nvidia.com/gpu.count": "2", "nvidia.com/gpu.memory": "81920"}
        capacity = {**control_plane.node_capacity, GPU: "2"}
        (node,) = control_plane.add_nodes(1, labels=labels, prefix=namespace, capacity=capacity)
        taint = [{"key": "pool", "value": namespace, "effect": "NoSchedule"}]
        control_plane.api.patch(f"/api/v1/nodes/{node}", {"spec": {"taints": taint}})
        past = gpu_past(namespace, node, hostname, last_mib)
        with a_prometheus(tmp_path, past, start_seconds=start) as prometheus:
            rules = [r for rules in ROLES.values() for r in rules]
            usage = LiveNodes(lambda: control_plane.pods(namespace), prometheus.url)
            lab = Shop(control_plane, namespace, node, usage, control_plane.kubeconfig_for(namespace, rules))
            for number in range(2):
                train(lab, f"train-{number}")
            wait_until(lambda: len(lab.running()) == 2, 60, "two pods with a GPU each")
            try:
                yield lab
            finally:
                lab.close()
                for each in control_plane.get("/apis/foresize.io/v1alpha1/oversubscriptionpolicies")["items"]:
                    lab.delete(each["metadata"]["name"])
                control_plane.remove_nodes([node])


def train(lab: Shop, name: str) -> None:
    lab.plane.apply(a_bare_pod(lab, name, {"limits": {GPU: "1"}}))


def share(lab: Shop, mode: str = "Auto", rate: float = 3, **gpu: str) -> None:
    spec: dict[str, Any] = {
        "nodeSelector": {"pool": lab.namespace},
        "mode": mode,
        "resources": [{"name": "gpu", "horizon": "1h", "violationProbability": 0.1, "maxRate": rate}],
        "actuator": {"type": "GPUSharing", "gpu": gpu},
    }
    lab.plane.apply(a_policy(lab.namespace, spec))


def label(lab: Shop) -> str | None:
    found: str | None = lab.plane.get(f"/api/v1/nodes/{lab.node}")["metadata"]["labels"].get(LABEL)
    return found


def as_the_plugin_does(lab: Shop) -> None:
    """Advertises the shares that the configuration of deploy/ asks for."""
    configs = yaml.safe_load((DEPLOY / "gpu-sharing" / "device-plugin-configs.yaml").read_text())["data"]
    sharing = yaml.safe_load(configs[label(lab) or "default"]).get("sharing") or {}
    replicas = next((r["replicas"] for kind in sharing.values() for r in kind["resources"]), 1)
    amounts = {GPU: str(2 * replicas)}
    status = {"status": {"capacity": amounts, "allocatable": amounts}}
    lab.plane.api.patch(f"/api/v1/nodes/{lab.node}/status", status)


def test_a_policy_that_observes_says_into_how_many_shares_gpus_could_be_divided(lab: Shop) -> None:
    """With what a share takes, as advice for HAMi too; nothing is written to the node."""
    share(lab, mode="Observe")
    lab.until(lambda: lab.status().get("gpus"), "a status")

    (node,) = lab.status()["gpus"]
    assert (node["node"], node["devices"], node["replicas"], node["reason"]) == (lab.node, 2, 3, "MaxRatio")
    assert node["hami"]["gpucores"] in (20, 21, 22)
    assert node["hami"]["gpumemPercentage"] in (10, 11)
    cpu = lab.cpu()
    assert (cpu["name"], cpu["rate"], cpu["allocatable"], cpu["requested"], cpu["offered"]) == ("gpu", 3, 2, 2, 2)
    assert cpu["violations"].items() >= {"count": 0, "nodeHorizons": 1, "budget": 0.1, "budgetUsed": 0}.items()
    assert lab.status()["nodes"] == {"selected": 1, "cold": 0, "stale": 0, "suspended": 0}
    assert lab.metric("policy_oversubscription_rate", policy=lab.namespace, resource="gpu") == 3
    assert lab.metric("policy_budget_used_ratio", policy=lab.namespace, resource="gpu") == 0
    assert lab.metric("node_reclaimable", node=lab.node, resource="gpu") == 4
    assert lab.condition("AbleToReclaim") == ("True", "Observe")
    assert lab.condition("ReclaimingLimited") == ("True", "MaxRatio")
    assert label(lab) is None


def test_shares_are_made_scheduled_and_taken_back(lab: Shop) -> None:
    """The label names a configuration of deploy/; more pods than devices fit; without the policy the label is gone."""
    for number in range(2, 5):
        train(lab, f"train-{number}")
    share(lab, strategy="MPS")
    lab.until(lambda: label(lab) == "foresize-mps-3", "a label")
    assert lab.condition("ReclaimingActive") == ("True", "PeaksPredicted")

    as_the_plugin_does(lab)
    lab.until(lambda: len(lab.running()) == 5, "five pods on two devices")
    lab.until(lambda: lab.cpu()["requested"] == 5, "a status that counts them")
    assert lab.cpu()["offered"] == 6

    # What pods have is not taken from them while the policy holds.
    share(lab, rate=1, strategy="MPS")
    lab.until(lambda: lab.status()["gpus"][0]["reason"] == "SharesInUse", "shares that are kept")
    assert label(lab) == "foresize-mps-3"

    # A new leader that has read nothing yet leaves the label as it is.
    lab.close()
    url, lab.usage.url = lab.usage.url, "http://127.0.0.1:9"
    lab.control = lab.a_control()
    lab.cycle()
    assert label(lab) == "foresize-mps-3"
    lab.usage.url = url

    lab.delete(lab.namespace)
    lab.until(lambda: label(lab) is None, "a clean node")
    assert len(lab.running()) == 5


@pytest.mark.parametrize("last_mib", [78_000])
def test_a_shared_device_that_is_nearly_full_is_shared_no_further(lab: Shop, last_mib: int) -> None:
    """Of 72 GiB that are usable 76 are in use: the node goes back to as many shares as pods have, and people are told.

    A new leader finds it in the status.
    """
    lab.plane.api.patch(f"/api/v1/nodes/{lab.node}", {"metadata": {"labels": {LABEL: "foresize-timeslicing-3"}}})
    share(lab)
    lab.until(lambda: label(lab) is None, "a node that is not shared")
    lab.until(lambda: lab.status().get("suspendedNodes") == [lab.node], "a status that says so")

    (said,) = [note for reason, note in lab.events() if reason == "NodeSuspended"]
    assert said.startswith(f"{lab.node}: 76.17 GiB of a device with 3 shares are in use, 72 are usable; ")
    assert lab.status()["nodes"]["suspended"] == 1
    assert lab.status()["gpus"][0]["reason"] == "NodeFull"
    assert lab.cpu()["violations"]["count"] == 1
    assert lab.metric("node_suspended", node=lab.node) == 1
    assert lab.metric("policy_budget_used_ratio", policy=lab.namespace, resource="gpu") == 10
    assert len(lab.running()) == 2

    lab.close()
    lab.control = lab.a_control()
    lab.cycle()
    assert lab.status()["suspendedNodes"] == [lab.node]
    assert lab.cpu()["violations"]["count"] == 1
    assert [reason for reason, _ in lab.events()].count("NodeSuspended") == 1


@pytest.mark.parametrize("hostname", ["another-name"])
def test_a_node_that_the_exporter_does_not_name_is_stale(lab: Shop, hostname: str) -> None:
    """It is in the status' count, in the conditions and in the metrics, and it is not shared."""
    share(lab)
    lab.until(lambda: lab.condition("ReclaimingActive") == ("False", "StaleNodeMetrics"), "a status that says so")

    assert lab.status()["nodes"] == {"selected": 1, "cold": 1, "stale": 1, "suspended": 0}
    assert "label Hostname" in lab.status()["gpus"][0]["message"]
    assert lab.metric("node_stale", node=lab.node) == 1
    assert label(lab) is None


def test_a_label_of_somebody_elses_is_left_alone(lab: Shop) -> None:
    lab.plane.api.patch(f"/api/v1/nodes/{lab.node}", {"metadata": {"labels": {LABEL: "a100-by-hand"}}})
    share(lab)

    lab.until(lambda: lab.condition("Conflict") == ("True", "Conflict"), "a conflict")
    assert label(lab) == "a100-by-hand"
    lab.delete(lab.namespace)
    lab.cycle()
    assert label(lab) == "a100-by-hand"


def test_a_controller_without_the_role_says_which_rule_it_needs(lab: Shop) -> None:
    rules = [r for name, rules in ROLES.items() if name != "foresize-gpus" for r in rules]
    lab.close()
    lab.kubeconfig = lab.plane.kubeconfig_for(f"{lab.namespace}-reader", rules)
    lab.control = lab.a_control()
    share(lab)

    lab.until(lambda: lab.condition("AbleToReclaim") == ("False", "FailedUpdateNode"), "a status that says so")
    (said,) = [c["message"] for c in lab.status()["conditions"] if c["type"] == "AbleToReclaim"]
    assert "kubectl apply -f deploy/binding-gpus.yaml" in said
    assert 'resources: ["nodes"], verbs: ["patch"]' in said


@pytest.mark.parametrize(
    ("resources", "actuator"),
    [
        ([{"name": "gpu"}], {"type": "ExtendedResources"}),
        ([{"name": "cpu"}], {"type": "GPUSharing"}),
        ([{"name": "gpu"}, {"name": "cpu"}], {"type": "GPUSharing"}),
    ],
    ids=["gpu without sharing", "sharing of cpu", "gpu beside cpu"],
)
def test_gpus_and_sharing_belong_together(
    control_plane: ControlPlane, resources: list[dict[str, str]], actuator: dict[str, str]
) -> None:
    """The API server says so."""
    control_plane.apply(CRDS[1])

    with pytest.raises(ApiError, match="gpu"):
        control_plane.apply(a_policy("refused", {"resources": resources, "actuator": actuator}))


def test_every_configuration_that_is_named_is_in_deploy() -> None:
    """From two to ten shares by either strategy, each with as many as its name says."""
    configs = yaml.safe_load((DEPLOY / "gpu-sharing" / "device-plugin-configs.yaml").read_text())["data"]

    for name, key in (("timeslicing", "timeSlicing"), ("mps", "mps")):
        for replicas in range(2, 11):
            config = yaml.safe_load(configs[f"foresize-{name}-{replicas}"])
            assert config["sharing"] == {key: {"resources": [{"name": GPU, "replicas": replicas}]}}
    assert "sharing" not in yaml.safe_load(configs["default"])
