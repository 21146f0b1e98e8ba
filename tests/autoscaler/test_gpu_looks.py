"""From hour to hour: what a controller tells of nodes' GPUs, counts against the budget and does where one is full."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from autoscaler.cluster.nodes import Actuator, GpuStrategy, NodePod, NodeState
from autoscaler.cluster.reasons import ReasonCode
from autoscaler.controller.autoscalers import Mode
from autoscaler.controller.gpu_sharing import GPU_CONFIG_LABEL, GpuSharing, SharedNode
from autoscaler.controller.gpu_status import gpu_gauges, gpu_status, node_gauges
from autoscaler.controller.policies import OversubscriptionPolicy, Terms
from autoscaler.metrics import AutoscalerMetrics
from models.forecast import FloatArray
from predictor.errors import SourceUnavailable
from predictor.usage.panel import Resource
from predictor.usage.placed import GpuPast, NodeGpus

GIB = 2.0**30
STEP, HOUR, DAY = 1800, 3600, 86_400
START = 1_700_000_000 // DAY * DAY
"""When the first of the days began that anything is known of."""
TODAY = START + 20 * DAY
LABEL = "foresize-timeslicing-{}"


@dataclass
class MemoryGpus:
    """Devices that are busy for an hour a day, and do what a test says otherwise: a source of four weeks."""

    busy: float = 0.2
    """Of a share, in its hour; at rest a tenth of it."""
    gib: float = 8.0
    """Of a share."""
    shares: float = 2.0
    devices: int = 2
    names: tuple[str, ...] = ("n1",)
    until: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """By when it begins, what is different from then on: `activity` (of all), `gib` (of the fullest), `shares`."""
    silent_since: float = float("inf")
    silent_until: float = float("inf")
    fault: Exception | None = None
    reads: list[tuple[int, int]] = field(default_factory=list)

    def fetch_gpus(self, *, start_seconds: int, end_seconds: int, step_seconds: int) -> NodeGpus:
        self.reads.append((start_seconds, end_seconds))
        if self.fault is not None:
            raise self.fault
        at = np.arange(start_seconds, end_seconds + 1, step_seconds)
        shares = np.where(at >= START, self.shares, 0.0)
        activity = np.where(at % DAY < HOUR, self.busy, self.busy / 10) * shares
        fullest = np.full(len(at), self.gib * GIB) * max(1, int(self.shares) // self.devices)
        for since, values in sorted(self.until.items()):
            later = at >= since
            activity = np.where(later, values.get("activity", activity), activity)
            fullest = np.where(later, values["gib"] * GIB if "gib" in values else fullest, fullest)
            shares = np.where(later, values.get("shares", shares), shares)

        def seen(values: FloatArray) -> FloatArray:
            is_silent = (at < START) | ((at >= self.silent_since) & (at < self.silent_until))
            return np.where(is_silent, np.nan, values)

        past = GpuPast(seen(activity), seen(fullest), shares, seen(np.full(len(at), float(self.devices))))
        return NodeGpus(start_seconds, step_seconds, dict.fromkeys(self.names, past))


def a_policy(mode: Mode = Mode.AUTO, status: Mapping[str, Any] | None = None, **more: Any) -> OversubscriptionPolicy:
    terms = {Resource.GPU: Terms(0.05, float(DAY), 10.0)}
    given: dict[str, Any] = {"terms": terms, "actuator": Actuator.GPU_SHARING, "status": status or {}} | more
    return OversubscriptionPolicy(name="p", uid="p", generation=1, mode=mode, **given)


@dataclass
class Lab:
    """Nodes with two GPUs of 80 GiB each, whose labels follow what is told, and a leader that may change."""

    source: MemoryGpus = field(default_factory=MemoryGpus)
    policy: OversubscriptionPolicy = field(default_factory=a_policy)
    labels: dict[str, str] = field(default_factory=dict)
    """By node, the device plugin's."""
    has_discovery: bool = True
    in_use: int = 2
    devices: int = 2
    """As the node's label says."""
    changes: int = 0

    def __post_init__(self) -> None:
        self.sharing = self.a_leader()

    def a_leader(self) -> GpuSharing:
        return GpuSharing(self.source, STEP, 0.9, is_patient=True)

    def look(self, now: float, *, is_told: bool = True) -> dict[str, SharedNode]:
        """One look, after which nodes are labelled and, where it is told, the policy has its status."""
        found = (
            {"nvidia.com/gpu.count": f"{self.devices}", "nvidia.com/gpu.memory": "81920"} if self.has_discovery else {}
        )
        nodes = []
        for name in self.source.names:
            label = {GPU_CONFIG_LABEL: self.labels[name]} if name in self.labels else {}
            nodes.append(NodeState(name, name, labels=frozenset((found | label).items())))
        pods = [NodePod("ai", f"p{n}", f"{n}", "n1", "ai/Pod/p", gpus=1) for n in range(self.in_use)]
        self.shared = self.sharing.look([self.policy], nodes, pods, now)
        for each in self.shared:
            if each.config != self.labels.get(each.node.name):
                self.changes += 1
            if each.config is None:
                self.labels.pop(each.node.name, None)
            else:
                self.labels[each.node.name] = each.config
        if is_told:
            self.policy = replace(self.policy, status=self.status(now))
        return {each.node.name: each for each in self.shared}

    def status(self, now: float) -> dict[str, Any]:
        record = self.sharing.record(self.policy)
        return gpu_status(self.policy, [self.policy], self.shared, self.policy.status, now, record=record)

    def violations(self) -> dict[str, Any]:
        (resource,) = self.policy.status["resources"]
        return dict(resource["violations"])


def replicas(node: SharedNode) -> int:
    return node.decision.replicas


def test_a_fall_is_followed_within_the_hour() -> None:
    """Four shares while they are small; one that is busy comes and goes, and the past weeks have seen it."""
    lab = Lab()
    assert replicas(lab.look(TODAY)["n1"]) == 4

    lab.source.until = {TODAY + 2 * HOUR: {"activity": 0.8}, TODAY + 3 * HOUR: {"activity": 0.04}}
    by_hour = [replicas(lab.look(TODAY + hour * HOUR + 60)["n1"]) for hour in range(1, 30)]

    assert by_hour == [4, 4, *[2] * 27]
    assert lab.labels == {"n1": LABEL.format(2)}


def test_a_rise_is_followed_after_a_horizon() -> None:
    """Nobody measured the devices for two days; a day after somebody does they are shared as they were."""
    lab = Lab(MemoryGpus(silent_since=TODAY, silent_until=TODAY + 2 * DAY))
    by_hour = [replicas(lab.look(TODAY + hour * HOUR + 60)["n1"]) for hour in range(0, 80, 4)]

    fell, rose = by_hour.index(1) * 4, len(by_hour) * 4 - by_hour[::-1].index(1) * 4
    assert by_hour == [4] * (fell // 4) + [1] * ((rose - fell) // 4) + [4] * ((80 - rose) // 4)
    assert 24 <= fell <= 28
    assert 72 <= rose <= 76
    assert lab.changes == 3


def test_a_new_leader_tells_what_the_one_before_told() -> None:
    """From usage alone, whenever it takes over, so that no label changes and nothing waits anew."""
    rng = np.random.default_rng(1)
    busy = {START + n * 4 * HOUR: {"activity": a} for n, a in enumerate(rng.uniform(0.4, 0.62, 24 * 6))}
    lab = Lab(MemoryGpus(until=busy), a_policy(terms={Resource.GPU: Terms(0.2, float(DAY), 10.0)}))
    heirs = [Lab(lab.source, lab.policy) for _ in range(12)]

    for hour in range(48):
        now = TODAY + hour * HOUR
        share = lab.look(now + 60)["n1"].decision.share
        if hour % 4 == 0:
            assert heirs[hour // 4].look(now + 1700)["n1"].decision.share == share

    assert lab.changes <= 2


def test_a_leader_that_cannot_read_usage_leaves_labels_for_a_horizon() -> None:
    lab = Lab(MemoryGpus(fault=SourceUnavailable("Prometheus does not answer")), labels={"n1": LABEL.format(3)})
    node = lab.look(TODAY)["n1"]

    assert lab.labels == {"n1": LABEL.format(3)}
    assert "Prometheus does not answer" in node.reason.message
    lab.look(TODAY + DAY + 1)
    assert lab.labels == {}


def test_what_was_read_grows_old() -> None:
    """Prometheus is gone: soon nobody is watched, and a horizon later no more is shared than pods need."""
    lab = Lab(in_use=4)
    lab.look(TODAY + 60)
    lab.source.fault = SourceUnavailable("Prometheus does not answer")

    assert replicas(lab.look(TODAY + DAY + 60)["n1"]) == 4
    assert lab.violations()["nodeHorizons"] == 1

    node = lab.look(TODAY + DAY + 2 * HOUR)["n1"]
    assert (replicas(node), lab.labels) == (2, {"n1": LABEL.format(2)})
    assert "read 26 hours ago" in node.reason.message
    assert lab.policy.status["nodes"]["stale"] == 1


def test_usage_is_read_once_a_step_and_the_past_once_an_hour() -> None:
    """Looks are seconds apart, and never wait for Prometheus longer than that."""
    lab = Lab()
    for second in range(0, 2 * HOUR, 60):
        lab.look(TODAY + second)

    newest = [start for start, end in lab.source.reads if start == end]
    assert newest == [TODAY + n * STEP for n in range(-1, 3)]
    assert len(lab.source.reads) == len(newest) + 2


# --- devices that nobody measures


def test_nodes_that_are_not_measured_are_counted_with_their_reason() -> None:
    """After a horizon: not as cold alone, and in the metrics; they keep the shares that pods have."""
    lab = Lab(in_use=4)
    lab.look(TODAY)
    assert lab.policy.status["nodes"] == {"selected": 1, "cold": 0, "stale": 0, "suspended": 0}

    lab.source.silent_since = TODAY
    lab.look(TODAY + DAY)
    assert lab.policy.status["nodes"]["stale"] == 0
    lab.look(TODAY + DAY + 2 * HOUR)

    status = lab.policy.status
    assert status["nodes"] == {"selected": 1, "cold": 1, "stale": 1, "suspended": 0}
    assert lab.labels == {"n1": LABEL.format(2)}
    assert "not measured within the last horizon" in status["gpus"][0]["message"]
    conditions = {each["type"]: each for each in status["conditions"]}
    active = conditions["ReclaimingActive"]
    assert (active["status"], active["reason"]) == ("False", "StaleNodeMetrics")
    assert gauges(lab)["foresize_node_stale", "n1"] == 1


def test_a_node_that_no_exporter_names_is_stale_and_one_without_discovery_is_cold() -> None:
    lab = Lab()
    lab.source.names = ("n1",)
    lab.look(TODAY)
    lab.has_discovery = False
    lab.look(TODAY + 60)

    assert lab.policy.status["nodes"] == {"selected": 1, "cold": 1, "stale": 0, "suspended": 0}
    assert "GPU Feature Discovery" in lab.policy.status["gpus"][0]["message"]
    # Its pods keep their shares: how many they need cannot be told.
    assert lab.labels == {"n1": LABEL.format(4)}


def gauges(lab: Lab) -> dict[tuple[str, str], float]:
    """By metric, and policy or node."""
    metrics = AutoscalerMetrics()
    metrics.publish_gpus(
        gpu_gauges([lab.policy], lab.shared, lab.sharing.record), [node_gauges(each) for each in lab.shared]
    )
    return {
        (sample.name, sample.labels.get("policy") or sample.labels["node"]): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if {"policy", "node"} & sample.labels.keys()
    }


# --- the budget


def test_a_node_that_does_more_than_was_told_counts_once_a_horizon() -> None:
    """In the status and the metrics, with by how much at worst; what is told next knows of it."""
    lab = Lab()
    lab.look(TODAY + 60)
    assert (lab.violations()["count"], lab.violations()["nodeHorizons"]) == (0, 1)

    lab.source.until = {TODAY: {"activity": 0.8}}
    for minute in range(30, 50, 5):
        lab.look(TODAY + minute * 60)

    told = lab.violations()
    assert (told["count"], told["nodeHorizons"], told["budget"]) == (1, 1, 0.05)
    assert told["severity"] == pytest.approx(0.5, abs=0.02)
    assert gauges(lab)["foresize_policy_violations", "p"] == 1
    assert gauges(lab)["foresize_policy_budget_used_ratio", "p"] == 20
    assert gauges(lab)["foresize_policy_violation_severity_ratio", "p"] == pytest.approx(told["severity"], rel=1e-4)


def test_a_new_leader_goes_on_with_the_record() -> None:
    lab = Lab(MemoryGpus(until={TODAY: {"gib": 30.0}}))
    lab.look(TODAY + 1900)
    assert lab.violations()["count"] == 1

    lab.sharing = lab.a_leader()
    lab.look(TODAY + 2000)

    assert lab.violations()["count"] == 1
    assert lab.violations()["record"]["violated"] == ["n1"]


def test_a_node_whose_newest_step_nobody_measured_is_not_watched() -> None:
    """Nor is one on which no pod has a device."""
    silent, idle = Lab(MemoryGpus(silent_since=TODAY - STEP)), Lab(MemoryGpus(until={TODAY - STEP: {"shares": 0.0}}))

    for lab in (silent, idle):
        assert replicas(lab.look(TODAY + 60)["n1"]) == 4
        assert lab.violations()["nodeHorizons"] == 0


def test_an_overdrawn_budget_makes_shares_fewer() -> None:
    """By what was told of these nodes in horizons before; the reason says so."""
    record = {
        "start": "2023-11-14T00:00:00Z",
        "nodes": 1,
        "violated": [],
        "worst": 0.5,
        "past": [
            {"start": f"2023-12-{day:02d}T00:00:00Z", "nodes": 1, "violations": 1, "worst": 0.5} for day in (3, 2, 1)
        ],
    }
    lab = Lab(policy=a_policy(status={"resources": [{"name": "gpu", "violations": {"record": record}}]}))

    node = lab.look(TODAY)["n1"]

    assert (replicas(node), node.reason.code) == (2, ReasonCode.BUDGET_OVERDRAWN)
    assert lab.labels == {"n1": LABEL.format(2)}


# --- a device that is full


def full_lab(mode: Mode = Mode.AUTO) -> Lab:
    """A node with three shares a device, two of each in use; then one device is nearly full."""
    source = MemoryGpus(shares=4.0, busy=0.05, gib=20.0)
    lab = Lab(source, a_policy(mode), labels={"n1": LABEL.format(3)}, in_use=4)
    lab.look(TODAY)
    source.until = {TODAY: {"gib": 75.0}, TODAY + STEP: {"gib": 40.0}}
    return lab


def test_a_full_device_stops_further_sharing_on_its_node() -> None:
    """Its pods keep what they have; a violation; told once; for a horizon, whoever leads."""
    lab = full_lab()
    assert lab.labels == {"n1": LABEL.format(3)}

    node = lab.look(TODAY + STEP)["n1"]
    assert node.news == (
        "n1: 75 GiB of a device with 3 shares are in use, 72 are usable; its GPUs are not shared any further"
    )
    assert (node.reason.code, lab.labels) == (ReasonCode.NODE_FULL, {"n1": LABEL.format(2)})
    assert lab.policy.status["nodes"]["suspended"] == 1
    assert lab.policy.status["suspendedNodes"] == ["n1"]
    assert lab.violations()["count"] == 1
    assert gauges(lab)["foresize_node_suspended", "n1"] == 1

    lab.sharing = lab.a_leader()
    node = lab.look(TODAY + 2 * STEP)["n1"]
    assert (node.news, node.reason.code) == ("", ReasonCode.NODE_FULL)

    calm = lab.look(TODAY + 2 * STEP + DAY + 60)["n1"]
    assert calm.news == "n1: no shared GPU was too full for a horizon"
    assert lab.policy.status["nodes"]["suspended"] == 0
    assert "suspendedNodes" not in lab.policy.status
    # Of 75 GiB two shares had, so that three may not be made of the device for four weeks.
    assert replicas(calm) == 2


def test_a_full_device_is_a_violation_though_each_share_took_what_was_told() -> None:
    """More pods have shares than should: they keep them, and whoever let them in is told."""
    lab = Lab(MemoryGpus(shares=6.0, busy=0.05, gib=25.0), labels={"n1": LABEL.format(3)}, in_use=6)

    node = lab.look(TODAY + 60)["n1"]

    assert (node.exceeded, node.reason.code) == (0.0, ReasonCode.NODE_FULL)
    assert lab.labels == {"n1": LABEL.format(3)}
    assert lab.violations()["count"] == 1


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.AUTO], ids=["observed", "not shared"])
def test_a_full_device_that_is_not_shared_is_its_pod_s_own_matter(mode: Mode) -> None:
    lab = Lab(MemoryGpus(until={TODAY: {"gib": 79.0}}), a_policy(mode), labels={})
    if mode is Mode.AUTO:
        lab.policy = a_policy(terms={Resource.GPU: Terms(0.05, float(DAY), 1.5)})

    node = lab.look(TODAY + STEP)["n1"]

    assert (node.fullness, node.news) == (None, "")


@pytest.mark.parametrize("label", [{}, {"n1": LABEL.format(10)}], ids=["by the plugin's default", "by ours"])
def test_no_configuration_is_named_that_is_not_in_deploy(label: dict[str, str]) -> None:
    """Pods have eleven shares of a device, as a device was lost or the plugin's own default makes more."""
    lab = Lab(labels=dict(label), in_use=22)

    node = lab.look(TODAY + 60)["n1"]

    assert (replicas(node), node.reason.code) == (11, ReasonCode.SHARES_IN_USE)
    assert lab.labels == label


def test_a_device_that_is_lost_makes_no_pod_smaller_than_it_was() -> None:
    """Two pods had 30 GiB of a device each: the one that is left holds two such, and not four half as large."""
    lab = Lab(MemoryGpus(busy=0.05, gib=30.0))
    assert replicas(lab.look(TODAY + 60)["n1"]) == 2

    lab.devices, lab.in_use = 1, 1

    assert replicas(lab.look(TODAY + 120)["n1"]) == 2


def test_two_policies_that_share_by_different_means_share_nothing() -> None:
    lab = Lab(labels={"n1": LABEL.format(3)})
    other = replace(a_policy(), name="q", uid="q", gpu_strategy=GpuStrategy.MPS)
    labels = {"nvidia.com/gpu.count": "2", "nvidia.com/gpu.memory": "81920", GPU_CONFIG_LABEL: LABEL.format(3)}
    node = NodeState("n1", "n1", labels=frozenset(labels.items()))

    (shared,) = lab.sharing.look([lab.policy, other], [node], [], TODAY)

    assert shared.config is None
    assert shared.reason.code is ReasonCode.CONFLICT
