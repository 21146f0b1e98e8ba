"""What is written about nodes where the API server refuses some of it, does not answer, or has little budget left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autoscaler.cluster.containers import Amounts
from autoscaler.cluster.nodes import NodePod, NodeState
from autoscaler.cluster.reasons import Reason, ReasonCode
from autoscaler.controller.autoscalers import Mode
from autoscaler.controller.node_looks import LookedAt
from autoscaler.controller.node_ports import NodeObservation
from autoscaler.controller.node_status import NodeReading
from autoscaler.controller.node_writes import RETRY_SECONDS, NodeWriter, Offer
from autoscaler.controller.policies import OversubscriptionPolicy
from autoscaler.controller.writing import WRITES_AT_ONCE
from autoscaler.decisions.node_guard import Guard, GuardDecision
from autoscaler.errors import AutoscalerError, ClusterRefused, ClusterUnavailable, CommandConflict, ObjectGone
from predictor.usage.panel import Resource
from tests.support.scaling import ScalingParts

POLICY = OversubscriptionPolicy(name="p", uid="p", generation=1, mode=Mode.AUTO)
NOW = 1000.0


@dataclass
class Writes:
    """A cluster that answers some writes, by the name of the node or pod, with a fault."""

    faults: Mapping[str, AutoscalerError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)

    def observe_nodes(self) -> NodeObservation:
        return NodeObservation((), (), ())

    def _ask(self, name: str) -> None:
        self.asked.append(name)
        if name in self.faults:
            raise self.faults[name]

    def set_offer(self, node: NodeState, offer: Mapping[Resource, int | None]) -> None:
        self._ask(node.name)

    def set_gpu_config(self, node: NodeState, config: str | None) -> None:
        self._ask(node.name)

    def evict(self, pod: NodePod) -> None:
        self._ask(pod.name)

    def set_policy_status(self, policy: OversubscriptionPolicy, status: Mapping[str, object]) -> None:
        self._ask(policy.name)

    def publish_about(self, policy: OversubscriptionPolicy, reason: str, note: str, *_: Any, **__: Any) -> None:
        self.events.append((reason, note))


def a_writer(cluster: Writes, parts: ScalingParts | None = None) -> NodeWriter:
    return NodeWriter(cluster, (parts or ScalingParts()).controller())


def offers_of(names: Sequence[str]) -> list[Offer]:
    return [Offer(NodeState(name, name), {Resource.CPU: 2000}) for name in names]


def batch_pods(count: int) -> tuple[NodePod, ...]:
    """Pods that may be evicted, in the order in which they are to go."""
    return tuple(
        NodePod("shop", f"b{number}", f"b{number}", "n1", "w", reclaimed=Amounts(1.0, None), is_evictable=True)
        for number in range(count)
    )


def too_full(pods: Sequence[NodePod], to_go: int) -> LookedAt:
    """A node of which so many of its pods are to go."""
    guard = Guard(suspended_since_seconds=0.0, reason=Reason(ReasonCode.NODE_FULL, "full"))
    decision = GuardDecision(guard, is_intervention=True, evict=tuple(pods[:to_go]))
    return LookedAt(
        NodeReading(NodeState("n1", "n1"), {}, is_stale=False, guard=guard),
        decision,
        tuple(pods),
        {},
        policies=(),
        terms={},
        used={},
    )


def test_a_node_that_cannot_be_written_keeps_no_other_from_being_written() -> None:
    """As where an admission policy forbids it for some; they are tried again after a while, and the status says why."""
    names = [f"n{number}" for number in range(3 * WRITES_AT_ONCE)]
    cluster = Writes({name: ClusterRefused(f"{name} is not yours") for name in names[: 2 * WRITES_AT_ONCE]})
    writer = a_writer(cluster)
    written: set[str] = set()
    for look in range(3):
        writer.begin(NOW + look)
        written |= writer.write_offers(offers_of([name for name in names if name not in written]), NOW + look).keys()

    assert written == set(names[2 * WRITES_AT_ONCE :])
    assert all(cluster.asked.count(name) == 1 for name in names)
    assert writer.refusal_to_write(names) == "n0 is not yours"
    assert writer.refusal_to_write(written) == ""

    writer.begin(NOW + RETRY_SECONDS)
    assert writer.refusal_to_write(["n0"]) == ""
    writer.write_offers(offers_of(["n0"]), NOW + RETRY_SECONDS)
    assert cluster.asked.count("n0") == 2


def test_without_the_role_only_a_few_nodes_are_tried_at_a_time() -> None:
    names = [f"n{number}" for number in range(100)]
    cluster = Writes({name: ClusterRefused("forbidden") for name in names})
    writer = a_writer(cluster)

    writer.begin(NOW)
    writer.write_offers(offers_of(names), NOW)

    assert WRITES_AT_ONCE <= len(cluster.asked) < 2 * WRITES_AT_ONCE


def test_a_pod_that_may_not_go_is_not_asked_to_in_each_look_and_the_next_one_goes() -> None:
    """Whether a disruption budget or an admission policy keeps it; each is said once, and again after a while."""
    pods = batch_pods(3)
    cluster = Writes({"b0": CommandConflict("its budget"), "b1": ClusterRefused("its owner")})
    writer = a_writer(cluster)
    for look in range(3):
        writer.begin(NOW + look)
        assert writer.step_in(too_full(pods, 1), [POLICY], NOW + look)

    assert cluster.asked == ["b0", "b1", "b2", "b2", "b2"]
    blocked = [note for reason, note in cluster.events if reason == "EvictionBlocked"]
    assert [note.rpartition(": ")[2] for note in blocked] == ["its budget", "its owner"]

    writer.begin(NOW + RETRY_SECONDS)
    writer.step_in(too_full(pods, 1), [POLICY], NOW + RETRY_SECONDS)
    assert cluster.asked[5] == "b0"


def test_what_stays_blocked_leaves_nothing_else_unsaid() -> None:
    """However many pods a disruption budget keeps, that another one went is told."""
    pods = batch_pods(60)
    cluster = Writes({pod.name: CommandConflict("its budget") for pod in pods[:-1]})
    writer = a_writer(cluster)

    writer.begin(NOW)
    writer.step_in(too_full(pods, 1), [POLICY], NOW)

    reasons = [reason for reason, _ in cluster.events]
    assert 0 < reasons.count("EvictionBlocked") <= 10
    assert reasons[-1] == "PodEvicted"


def test_nobody_else_is_evicted_where_it_is_not_known_whether_a_pod_goes() -> None:
    """The API server may have done what it did not answer: the next look, of newer usage, will tell."""
    pods = batch_pods(5)
    cluster = Writes({pod.name: ClusterUnavailable("no answer in time") for pod in pods})
    writer = a_writer(cluster)

    writer.begin(NOW)

    assert writer.step_in(too_full(pods, 2), [POLICY], NOW)
    assert cluster.asked == ["b0"]


def test_a_pod_that_has_gone_by_itself_counts_as_gone() -> None:
    pods = batch_pods(3)
    cluster = Writes({"b0": ObjectGone("not found")})
    writer = a_writer(cluster)

    writer.begin(NOW)

    assert writer.step_in(too_full(pods, 1), [POLICY], NOW)
    assert cluster.asked == ["b0"]


def test_a_copy_that_has_just_lost_the_lease_says_nothing() -> None:
    """Whoever leads now will."""
    parts, cluster = ScalingParts(), Writes()
    writer = a_writer(cluster, parts)
    parts.leadership.is_leader = False

    writer.begin(NOW)
    writer.step_in(too_full(batch_pods(1), 0), [POLICY], NOW)

    assert cluster.events == []
