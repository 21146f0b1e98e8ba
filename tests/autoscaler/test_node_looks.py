"""When nodes are looked at: beside the loop, more seldom where nothing is sold, never by a copy that does not lead."""

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from autoscaler.api.app import STUCK_SECONDS, build_app
from autoscaler.cluster.containers import Amounts
from autoscaler.cluster.nodes import KubeletEviction, NodePod, NodeState
from autoscaler.controller.autoscalers import Mode
from autoscaler.controller.gpu_sharing import GpuSharing
from autoscaler.controller.node_explanation import node_explanation
from autoscaler.controller.node_looks import lately_evicted
from autoscaler.controller.node_peaks import PeakTeller
from autoscaler.controller.node_ports import NodeObservation, PlacedSource
from autoscaler.controller.node_usage import UsageReader
from autoscaler.controller.nodes import NodeControl
from autoscaler.controller.policies import OversubscriptionPolicy, Terms
from autoscaler.errors import ClusterUnavailable
from autoscaler.settings import OversubscriptionSettings
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.usage.panel import Resource
from predictor.usage.placed import MeanPods, NodeUsage, Placed
from tests.support.http_answers import unused_url
from tests.support.kube_api import wait_until
from tests.support.scaling import ScalingParts


@dataclass
class Policies:
    """A cluster without nodes, and with policies that come and go; it can be gone or broken."""

    modes: tuple[Mode, ...] = ()
    fault: Exception | None = None
    looks: int = 0
    statuses: list[str] = field(default_factory=list)

    def observe_nodes(self) -> NodeObservation:
        self.looks += 1
        if self.fault is not None:
            raise self.fault
        policies = (OversubscriptionPolicy(name=mode, uid=mode, generation=1, mode=mode) for mode in self.modes)
        return NodeObservation(tuple(policies), (), ())

    def set_offer(self, node: NodeState, offer: Mapping[Any, int | None]) -> None:
        raise AssertionError("there is no node")

    def set_gpu_config(self, node: NodeState, config: str | None) -> None:
        raise AssertionError("there is no node")

    def evict(self, pod: NodePod) -> None:
        raise AssertionError("there is no pod")

    def set_policy_status(self, policy: OversubscriptionPolicy, status: Mapping[str, object]) -> None:
        self.statuses.append(policy.name)

    def publish_about(self, *_: Any, **__: Any) -> None:
        """Events are not kept."""


def control_of(
    cluster: Policies, parts: ScalingParts | None = None, placed: PlacedSource | None = None, patience: float = 30.0
) -> NodeControl:
    """Beside a controller whose cycles are 30 s apart."""
    source = PrometheusSource(PrometheusEndpoint(url=unused_url()))
    controller = (parts or ScalingParts()).controller()
    settings = OversubscriptionSettings(guard_interval=timedelta(milliseconds=10))
    peaks = PeakTeller(placed or source, 300, is_patient=True)
    gpus = GpuSharing(source, 300, settings.usable_share)
    return NodeControl(cluster, UsageReader(placed or source, patience), settings, controller, peaks, gpus)


WEB = Placed("n1", "shop/Deployment/web")
DAY = 86_400.0


@dataclass
class OneNode(Policies):
    """A node with a pod that requests two of its four cores."""

    told: Mapping[str, Any] = field(default_factory=dict)
    mode: Mode = Mode.OBSERVE

    def observe_nodes(self) -> NodeObservation:
        terms = {Resource.CPU: Terms(0.01, DAY, 1.5)}
        policy = OversubscriptionPolicy(name="p", uid="p", generation=1, terms=terms, status=self.told, mode=self.mode)
        node = NodeState(WEB.node, "n", allocatable=Amounts(4.0, None))
        pod = NodePod("shop", "web-0", "w", WEB.node, WEB.workload, Amounts(2.0, None))
        return NodeObservation((policy,), (node,), (pod,))

    def set_policy_status(self, policy: OversubscriptionPolicy, status: Mapping[str, object]) -> None:
        self.told = status


@dataclass
class OneCore:
    """The pod has used one core for four weeks; whether it is measured now is said from without."""

    is_measured: bool = True
    clock_ahead: float = 0.0
    has_past: bool = True

    def fetch_mean_pods(
        self, names: Collection[Placed], *, start_seconds: int, end_seconds: int, step_seconds: int
    ) -> MeanPods:
        usage = np.ones((len(names), (end_seconds - start_seconds) // step_seconds + 1), np.float32)
        usage[:] = 1.0 if self.has_past else np.nan
        return MeanPods(
            tuple(names), start_seconds, step_seconds, {Resource.CPU: usage, Resource.MEMORY: usage * 2**30}
        )

    def fetch_node_usage(self, now_seconds: float) -> NodeUsage:
        usage = {Resource.CPU: {WEB: 1.0}, Resource.MEMORY: {WEB: 2.0**30}}
        pods = {each: {WEB: 1.0} for each in usage}
        now = int(now_seconds)
        if not self.is_measured:
            return NodeUsage(now - 60, now, {each: {} for each in usage}, {each: {} for each in usage})
        return NodeUsage(now - 60, now, usage, pods, clock_ahead={WEB.node: self.clock_ahead})


def looks(control: NodeControl, outcome: str) -> float:
    labels = {"outcome": outcome}
    return control.controller.metrics.registry.get_sample_value("foresize_node_looks_total", labels) or 0.0


def test_nodes_that_are_sold_are_looked_at_between_cycles_and_others_once_a_cycle() -> None:
    """Without any cycle at all here."""
    sold, observed = control_of(Policies((Mode.OBSERVE, Mode.AUTO))), control_of(Policies((Mode.OBSERVE,)))
    threads = [threading.Thread(target=each.run, daemon=True) for each in (sold, observed)]
    for each in threads:
        each.start()

    wait_until(lambda: looks(sold, "complete") >= 5, 30, "looks")
    sold.controller.stop.set()
    observed.controller.stop.set()
    for each in threads:
        each.join(30)

    assert looks(observed, "complete") == 1
    assert not any(each.is_alive() for each in threads)


def test_an_eviction_by_a_kubelet_is_news_for_a_while() -> None:
    """Of each node the last one; one that a clock that was ahead puts into next year stops no sales until then."""
    evictions = [
        KubeletEviction("n1", "shop/first", 1000.0),
        KubeletEviction("n1", "shop/last", 1010.0),
        KubeletEviction("n2", "shop/ahead", 1100.0),
        KubeletEviction("n3", "shop/next-year", 1000.0 + 365 * DAY),
    ]

    assert lately_evicted(evictions, 1050.0, 600.0) == {"n1": "shop/last", "n2": "shop/ahead"}
    assert lately_evicted(evictions, 1705.0, 600.0) == {}


def test_a_copy_that_does_not_lead_looks_at_nothing() -> None:
    """And writes no status; once it leads it does."""
    cluster = Policies((Mode.AUTO,))
    parts = ScalingParts()
    control = control_of(cluster, parts)
    parts.leadership.is_leader = False

    control.look()
    assert (cluster.looks, cluster.statuses, looks(control, "standby")) == (0, [], 1)

    parts.leadership.is_leader = True
    control.look()
    assert (cluster.looks, cluster.statuses) == (1, ["Auto"])


def test_a_copy_that_leads_no_more_tells_nothing_of_nodes_and_policies() -> None:
    """Its metrics would be added to those of the copy that leads."""
    parts = ScalingParts()
    control = control_of(OneNode(), parts, OneCore())
    registry = control.controller.metrics.registry
    labels = {"node": WEB.node, "resource": "cpu"}

    control.look()
    assert registry.get_sample_value("foresize_node_reclaimable", labels) is not None

    parts.leadership.is_leader = False
    control.look()
    assert registry.get_sample_value("foresize_node_reclaimable", labels) is None
    assert registry.get_sample_value("foresize_policy_violations", {"policy": "p", "resource": "cpu"}) is None


def test_a_node_that_nobody_measures_is_not_counted_as_watched() -> None:
    """Though its peak is told from what it did before: a budget of violations that nobody could have seen is none."""
    cluster, source = OneNode(), OneCore(is_measured=False)
    parts = ScalingParts()
    control = control_of(cluster, parts, source)

    control.look()
    assert cluster.told["nodes"] == {"selected": 1, "cold": 0, "stale": 1, "suspended": 0}
    (cpu,) = cluster.told["resources"]
    assert 1 <= cpu["predictedPeak"] < 1.1
    assert (cpu["rate"], cpu["violations"]["nodeHorizons"]) == (1, 0)

    source.is_measured = True
    parts.clock.now += 1
    control.look()
    assert cluster.told["nodes"]["stale"] == 0
    assert cluster.told["resources"][0]["violations"]["nodeHorizons"] == 1


def test_a_node_whose_clock_is_ahead_is_stale_and_says_by_how_much() -> None:
    """As what is read of it is older than it seems; up to the time that usage is the mean of it is not."""
    cluster, source = OneNode(), OneCore(clock_ahead=61.0)
    parts = ScalingParts()
    control = control_of(cluster, parts, source)

    control.look()
    assert cluster.told["nodes"]["stale"] == 1
    (reason,) = cluster.told["resources"][0]["reasons"]
    assert reason["reason"] == "StaleNodeMetrics"
    assert "its clock is 61 s or more ahead of the controller's" in reason["message"]

    source.clock_ahead = 60.0
    parts.clock.now += 1
    control.look()
    assert cluster.told["nodes"]["stale"] == 0


@dataclass
class HangingCore(OneCore):
    """Answers once it is allowed to."""

    may_answer: threading.Event = field(default_factory=threading.Event)

    def fetch_node_usage(self, now_seconds: float) -> NodeUsage:
        self.may_answer.wait(60)
        return super().fetch_node_usage(now_seconds)


def test_a_prometheus_that_hangs_keeps_no_look_from_what_else_it_sees() -> None:
    """The look ends and says that the node is stale; what is answered at last is taken by the next one."""
    cluster, source, parts = OneNode(), HangingCore(), ScalingParts()
    control = control_of(cluster, parts, source, patience=0.01)

    control.look()
    assert looks(control, "complete") == 1
    assert cluster.told["nodes"]["stale"] == 1

    source.may_answer.set()
    parts.clock.now += 1

    def is_known() -> bool:
        control.look()
        return bool(cluster.told["nodes"]["stale"] == 0)

    wait_until(is_known, 30, "a look that takes the answer")


def test_a_running_controller_explains_what_is_sold_of_a_node() -> None:
    """Over HTTP, the arithmetic with its figures; nodes that no policy selects are told from those that one does."""
    parts = ScalingParts()
    control = control_of(OneNode(), parts, OneCore())
    client = TestClient(build_app(control.controller, control))
    assert client.get("/nodes").status_code == 503
    control.look()

    (record,) = client.get("/nodes").json()["nodes"]
    words = node_explanation(record)
    (cpu,) = record["resources"]
    unknown = client.get("/nodes/n2")

    assert client.get(f"/nodes/{WEB.node}").json() == record
    assert record["policies"] == ["p"]
    assert (cpu["allocatable"], cpu["usable"], cpu["requested"], cpu["used"]) == (4.0, 3.6, 2.0, 1.0)
    assert cpu["reclaimable"] == pytest.approx(3.6 - cpu["peak"]["value"])
    peak = f"{cpu['peak']['value']:.4g} cores"
    assert f"{peak} are exceeded within 24 h with a probability of 0.01" in words
    assert f"3.6 cores usable − {peak} − 0 cores that came since" in words
    assert "guard        has not stepped in" in words
    assert (unknown.status_code, "did you mean n1?" in unknown.json()["error"]) == (404, True)

    parts.leadership.is_leader = False
    assert client.get("/nodes").status_code == 503


def test_what_is_not_known_of_a_node_is_said_in_words() -> None:
    """Its peak is not told, nobody measures it, and the guard has stepped in."""
    told = {"suspendedNodes": [WEB.node]}
    control = control_of(OneNode(told=told, mode=Mode.AUTO), placed=OneCore(is_measured=False, has_past=False))
    control.look()
    assert control.last is not None

    words = node_explanation(control.last.record(WEB.node))

    assert "peak         not told: " in words
    assert "node         not measured lately" in words
    assert "guard        nothing more is sold since" in words
    assert "an unknown amount used now" in words
    assert "because      NodeFull: suspended since" in words


def test_looks_go_on_after_one_that_failed_and_one_that_broke() -> None:
    """Whatever it was: counted, and tried again."""
    cluster = Policies((Mode.AUTO,), fault=ClusterUnavailable("gone"))
    control = control_of(cluster)
    thread = threading.Thread(target=control.run, daemon=True)
    thread.start()

    wait_until(lambda: looks(control, "failed") >= 2, 30, "looks that failed")
    cluster.fault = ZeroDivisionError("a mistake of ours")
    before = looks(control, "failed")
    wait_until(lambda: looks(control, "failed") >= before + 2, 30, "looks that broke")
    cluster.fault = None
    wait_until(lambda: looks(control, "complete") >= 1, 30, "a look")
    control.controller.stop.set()
    thread.join(30)


def test_a_controller_that_does_not_guard_any_more_is_not_healthy() -> None:
    """So that Kubernetes starts it anew, though its cycles go on."""
    parts = ScalingParts()
    control = control_of(Policies(), parts)
    control.look()
    client = TestClient(build_app(control.controller, control))
    assert client.get("/healthz").status_code == 200

    parts.clock.now += STUCK_SECONDS + 1
    control.controller.cycle()
    answer = client.get("/healthz")
    assert (answer.status_code, answer.text) == (503, "no look at the nodes has ended for 1201 s\n")

    control.look()
    assert client.get("/healthz").status_code == 200


@dataclass
class TwoNodes(Policies):
    """One that is full by a pod that may go, and one on which much can be sold; what is written is not seen."""

    writes: list[str] = field(default_factory=list)
    cores: float | None = 4.0
    """What each node says is allocatable."""
    batch_workload: str = "shop/Pod/b"

    def observe_nodes(self) -> NodeObservation:
        terms = {Resource.CPU: Terms(0.01, DAY, 1.5)}
        policy = OversubscriptionPolicy(name="p", uid="p", generation=1, terms=terms, mode=Mode.AUTO)
        nodes = [NodeState(name, name, allocatable=Amounts(self.cores, None)) for name in (WEB.node, "n2")]
        web = [NodePod("shop", f"web-{n.name}", n.name, n.name, WEB.workload, Amounts(2.0, None)) for n in nodes]
        reclaimed = Amounts(1.0, None)
        batch = NodePod("shop", "b", "b", WEB.node, self.batch_workload, reclaimed=reclaimed, is_evictable=True)
        return NodeObservation((policy,), tuple(nodes), (*web, batch))

    def set_offer(self, node: NodeState, offer: Mapping[Any, int | None]) -> None:
        self.writes.append(f"offer {node.name}")

    def evict(self, pod: NodePod) -> None:
        self.writes.append(f"evict {pod.name}")


@dataclass
class FullNode(OneCore):
    """The pod on the first node uses all of it."""

    def fetch_node_usage(self, now_seconds: float) -> NodeUsage:
        names = {WEB: 1.0, Placed(WEB.node, "shop/Pod/b"): 3.0, Placed("n2", WEB.workload): 1.0}
        usage = {Resource.CPU: names, Resource.MEMORY: dict.fromkeys(names, 2.0**30)}
        pods = {each: dict.fromkeys(names, 1.0) for each in usage}
        now = int(now_seconds)
        return NodeUsage(now - 60, now, usage, pods)


def test_pods_go_before_more_is_offered_elsewhere() -> None:
    """What is written in a second is limited: that a large cluster is offered more keeps nobody on a full node."""
    cluster, parts = TwoNodes(), ScalingParts()
    control = control_of(cluster, parts, FullNode())

    control.look()
    parts.clock.now += 61
    control.look()

    both_offers = {f"offer {WEB.node}", "offer n2"}
    assert set(cluster.writes[:2]) == both_offers
    assert cluster.writes[2] == "evict b"
    assert set(cluster.writes[3:]) == both_offers


@dataclass
class BatchCore(OneCore):
    """Beside the pod, which uses one core, others run on what was reclaimed and use more than is predicted of it."""

    batch: str = ""

    def fetch_node_usage(self, now_seconds: float) -> NodeUsage:
        names = {WEB: 1.0, Placed(WEB.node, self.batch): 2.0}
        usage = {Resource.CPU: names, Resource.MEMORY: dict.fromkeys(names, 2.0**30)}
        now = int(now_seconds)
        return NodeUsage(now - 60, now, usage, {each: dict.fromkeys(names, 1.0) for each in usage})


@pytest.mark.parametrize("batch", ["shop/CronJob/nightly", "shop/Pod/has-ended"])
def test_what_pods_use_that_were_sold_to_violates_no_prediction_about_others(batch: str) -> None:
    """Also where usage names the CronJob of which only a Job is known here, or a pod that ended a moment ago."""
    cluster = TwoNodes(batch_workload="shop/Job/nightly-28000000")
    control = control_of(cluster, placed=BatchCore(batch=batch))

    control.look()

    violations = control.controller.metrics.registry.get_sample_value(
        "foresize_policy_violations", {"policy": "p", "resource": "cpu"}
    )
    assert violations == 0


def test_nobody_is_evicted_from_a_node_that_does_not_say_how_large_it_is() -> None:
    """As one whose kubelet has just registered it: nothing more is sold, and it is not too full for that."""
    cluster, parts = TwoNodes(cores=None), ScalingParts()
    control = control_of(cluster, parts, FullNode())

    for _ in range(3):
        control.look()
        parts.clock.now += 61

    assert not [write for write in cluster.writes if write != f"offer {WEB.node}"]  # of what is sold there
