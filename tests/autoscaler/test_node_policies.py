"""What policies ask for, how their budgets are counted, and what is read of nodes and pods."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cluster.containers import Amounts
from autoscaler.cluster.nodes import KubeletEviction, NodeState
from autoscaler.controller.autoscalers import Mode, as_time, seconds_of
from autoscaler.controller.node_budget import HORIZONS_KEPT, BudgetRecord, record_from
from autoscaler.controller.node_status import NodeReading, PolicyReading, ShelfReading, policy_status
from autoscaler.controller.policies import OversubscriptionPolicy, Terms, rivals_of, terms_of
from autoscaler.decisions.node_guard import Guard
from autoscaler.decisions.reclaiming import Shelf, ToldPeak, reclaimable
from autoscaler.kube.nodes import node_of, node_pod_of, pod_or_eviction_of, policy_of
from predictor.usage.panel import Resource

DAY = 86_400.0
START = 20_000 * DAY
NODE = NodeState("n1", "uid", frozenset({("pool", "general"), ("zone", "a")}))


def a_policy(name: str, terms: Terms, *, mode: Mode = Mode.AUTO, pool: str = "general") -> OversubscriptionPolicy:
    selector = frozenset({("pool", pool)})
    return OversubscriptionPolicy(
        name=name, uid=name, generation=1, selector=selector, terms={Resource.CPU: terms}, mode=mode
    )


def test_of_several_policies_the_strictest_of_each_term_holds() -> None:
    """The lowest probability, the longest horizon, the lowest rate, and Observe before Auto."""
    one = a_policy("one", Terms(0.01, DAY, 1.5))
    other = a_policy("other", Terms(0.05, 2 * DAY, 1.2), mode=Mode.OBSERVE)
    elsewhere = a_policy("elsewhere", Terms(0.001, DAY, 1.0), pool="gpu")

    held = terms_of(NODE, (one, other, elsewhere))[Resource.CPU]

    assert held.terms == Terms(0.01, 2 * DAY, 1.2)
    assert not held.sells
    assert terms_of(NODE, (one, elsewhere))[Resource.CPU].sells
    assert rivals_of(one, (one, other, elsewhere), [NODE]) == {"other": 1}
    assert rivals_of(elsewhere, (one, other, elsewhere), [NODE]) == {}


@pytest.mark.parametrize(
    ("is_stale", "suspended_at", "reclaimed", "rate"),
    [(False, None, 10.4, 1.65), (True, None, 4.0, 1.25), (False, START, 4.0, 1.25)],
    ids=["measured and calm", "not measured", "suspended"],
)
def test_a_node_that_may_not_be_sold_on_counts_in_the_rate_with_what_was_sold_of_it(
    is_stale: bool, suspended_at: float | None, reclaimed: float, rate: float
) -> None:
    """16 cores are requested of 16, of which 4 are used at the peak; 4 were sold."""
    shelf = Shelf(
        resource=Resource.CPU, allocatable=16.0, requested=16.0, newcomers=0.0, sold=4.0, peak=ToldPeak(4.0, 0.1, 20, 0)
    )
    decision = reclaimable(shelf, usable_share=0.9, max_rate=10.0)
    node = NodeReading(NODE, {Resource.CPU: ShelfReading(shelf, decision, 4.0)}, is_stale, Guard(suspended_at))

    status = policy_status(PolicyReading(a_policy("p", Terms(0.1, DAY, 10.0)), (node,), {}, {}), {}, START)

    (cpu,) = status["resources"]
    assert cpu["reclaimable"] == pytest.approx(reclaimed)
    assert cpu["rate"] == pytest.approx(rate)


def test_the_status_says_how_much_the_roomiest_node_that_takes_pods_has_unsold() -> None:
    """Five on the node that is cordoned, two on one that has sold four of six, none where less is offered than sold."""
    readings = []
    for name, offered, sold, takes_pods in (("a", 6.0, 4.0, True), ("b", 5.0, 0.0, False), ("c", 1.0, 2.0, True)):
        peak = ToldPeak(4.0, 0.1, 20, 0)
        shelf = Shelf(resource=Resource.CPU, allocatable=16.0, requested=8.0, newcomers=0.0, sold=sold, peak=peak)
        reading = ShelfReading(shelf, reclaimable(shelf, usable_share=0.9, max_rate=10.0), offered)
        node = NODE._replace(name=name, takes_pods=takes_pods)
        readings.append(NodeReading(node, {Resource.CPU: reading}, is_stale=False, guard=Guard()))

    status = policy_status(PolicyReading(a_policy("p", Terms(0.1, DAY, 10.0)), tuple(readings), {}, {}), {}, START)

    assert status["resources"][0]["largestUnsold"] == 2.0
    assert status["resources"][0]["largestReclaimable"] == pytest.approx(0.9 * 16 - 4)


def test_a_node_counts_once_in_a_horizon_however_often_it_was_violated() -> None:
    record = BudgetRecord()
    for second in range(3):
        record = record.after({"n1", "n2"}, {"n1"}, DAY, START + second)
    record = record.after({"n1", "n2"}, {"n2", "not told"}, DAY, START + DAY)

    assert record.node_horizons == 4
    assert record.violations == 2
    assert record.budget(0.25) == 1.0
    assert record.used_share(0.25) == 2.0


def test_nothing_of_a_budget_is_used_before_anything_was_watched() -> None:
    assert BudgetRecord().used_share(0.01) == 0.0
    assert BudgetRecord().after((), (), DAY, START).node_horizons == 0


def test_what_leaves_the_window_no_longer_counts() -> None:
    record = BudgetRecord().after({"n1"}, {"n1"}, DAY, START)
    for day in range(1, HORIZONS_KEPT):
        record = record.after({"n1"}, (), DAY, START + day * DAY)
    assert (record.violations, record.node_horizons) == (1, HORIZONS_KEPT)

    record = record.after({"n1"}, (), DAY, START + HORIZONS_KEPT * DAY)

    assert (record.violations, record.node_horizons) == (0, HORIZONS_KEPT)


def test_each_violation_too_many_widens_the_margin() -> None:
    """Of ten nodes one violation is allowed at 10 %, a second may be chance, the third leaves 2/3 to sell."""
    nodes = [f"n{number}" for number in range(10)]

    def share(violated: int) -> float:
        return BudgetRecord().after(nodes, nodes[:violated], DAY, START).sold_share(0.1)

    assert [share(count) for count in range(4)] == pytest.approx([1.0, 1.0, 1.0, 2 / 3])
    assert share(10) == pytest.approx(0.2)
    assert BudgetRecord().sold_share(0.01) == 1.0


def test_severity_is_that_of_the_worst_violation_in_the_window() -> None:
    record = BudgetRecord().after({"n1"}, {"n1"}, DAY, START, worst=0.25)
    record = record.after({"n1"}, {"n1"}, DAY, START + 60, worst=0.1)
    record = record.after({"n1"}, (), DAY, START + DAY)

    assert record.severity == 0.25
    assert record_from(record.as_json()).severity == 0.25
    assert record.after({"n1"}, (), DAY, START + HORIZONS_KEPT * DAY).severity == 0.0


def test_a_record_of_an_earlier_version_has_no_severity() -> None:
    kept = {"start": "2026-01-01T00:00:00Z", "nodes": 2, "violated": ["n1"], "past": []}

    assert record_from(kept).violations == 1
    assert record_from(kept).severity == 0.0


KEPT: dict[str, Any] = {"start": "2026-01-01T00:00:00Z", "nodes": 2, "violated": ["n1"], "worst": 0.5, "past": []}


@pytest.mark.parametrize(
    "garbage",
    [
        {"start": "some day"},
        {"nodes": -3},
        {"nodes": 1e300},
        {"nodes": "many"},
        {"violated": 7},
        {"worst": "nan"},
        {"past": [{"start": "2026-01-01T00:00:00Z", "nodes": 5, "violations": 1, "worst": "inf"}]},
        {"past": [{"start": "2026-01-01T00:00:00Z", "nodes": 5, "violations": -1}]},
        {"past": ["yesterday"]},
    ],
    ids=str,
)
def test_a_record_that_somebody_has_spoilt_begins_anew(garbage: dict[str, Any]) -> None:
    """It is in a status, which can be edited: what is no record is none, and nothing breaks on it."""
    assert record_from(KEPT).violations == 1

    assert record_from(KEPT | garbage) == BudgetRecord()


def test_a_horizon_that_lies_ahead_is_forgotten() -> None:
    """A clock was wrong once, or somebody wrote it: it would never leave the window."""
    ahead = {"start": "2199-01-01T00:00:00Z", "nodes": 5, "violations": 400}

    record = record_from(KEPT | {"past": [ahead]}).after({"n1"}, (), DAY, seconds_of(KEPT["start"]) + DAY)

    assert (record.violations, record.node_horizons) == (1, 3)


def test_a_condition_without_a_time_holds_from_now_on() -> None:
    """The API server takes one, from whoever edits a status."""
    before = {"conditions": [{"type": "NodesSelected", "status": "False"}]}

    status = policy_status(PolicyReading(a_policy("p", Terms(0.1, DAY, 10.0)), (), {}, {}), before, START)

    assert status["conditions"][0]["lastTransitionTime"] == as_time(START)


@given(st.lists(st.tuples(st.integers(0, 40), st.sets(st.sampled_from("abc"))), max_size=10))
def test_a_record_comes_back_from_a_status_as_it_was(seen: list[tuple[int, set[str]]]) -> None:
    record = BudgetRecord()
    for day, violated in sorted(seen, key=lambda pair: pair[0]):
        record = record.after(set("abc"), violated, DAY, START + day * DAY)

    assert record_from(record.as_json()) == record


@pytest.mark.parametrize("kept", [None, {}, {"start": "yesterday"}, {"start": 3, "nodes": 1}])
def test_a_record_that_cannot_be_read_begins_anew(kept: dict[str, object] | None) -> None:
    assert record_from(kept) == BudgetRecord()


def a_pod(**spec: object) -> dict[str, object]:
    return {
        "metadata": {
            "name": "web-0",
            "namespace": "shop",
            "uid": "u",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"foresize.io/evictable": "true"},
        },
        "spec": {"nodeName": "n1", "containers": [], **spec},
        "status": {"phase": "Running"},
    }


def test_a_pod_is_read_with_its_sidecars_and_what_it_asks_for_of_what_was_reclaimed() -> None:
    """A limit of the pod is known only where every container has one."""
    containers = [
        {"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}}},
        {"resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi", "foresize.io/reclaimed-cpu": "1500"}}},
    ]
    sidecar = {"restartPolicy": "Always", "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "1Gi"}}}
    pod = node_pod_of(a_pod(containers=containers, initContainers=[sidecar, {"resources": {}}], priority=7))

    assert pod is not None
    assert pod.requests == Amounts(1.75, None)
    assert pod.limits == Amounts(None, 3 * 2**30)
    assert pod.reclaimed == Amounts(1.5, None)
    assert (pod.workload, pod.priority, pod.is_evictable, pod.is_reclaimed) == ("shop/Pod/web-0", 7, True, True)


@pytest.mark.parametrize(
    ("owner", "volume", "has_state"),
    [
        ("Job", {"emptyDir": {}}, False),
        ("StatefulSet", {"emptyDir": {}}, True),
        ("Job", {"persistentVolumeClaim": {"claimName": "data"}}, True),
        ("Job", {"ephemeral": {"volumeClaimTemplate": {}}}, True),
    ],
)
def test_a_pod_with_a_claim_or_a_name_of_its_own_has_state(
    owner: str, volume: dict[str, object], has_state: bool
) -> None:
    item = a_pod(volumes=[{"name": "data", **volume}])
    metadata: Any = item["metadata"]
    metadata["ownerReferences"] = [{"kind": owner, "name": "sort", "controller": True, "apiVersion": "v1"}]

    pod = node_pod_of(item)

    assert pod is not None
    assert pod.has_state is has_state


@pytest.mark.parametrize(
    ("requests", "is_ordinary", "is_reclaimed"),
    [
        ({"foresize.io/reclaimed-cpu": "2000"}, False, True),
        ({"foresize.io/reclaimed-cpu": "2000", "memory": "1Gi"}, False, True),
        ({"foresize.io/reclaimed-cpu": "1", "cpu": "8"}, True, True),
        ({"foresize.io/reclaimed-cpu": "0"}, True, False),
    ],
    ids=["reclaimed", "with ordinary memory", "with ordinary CPU", "none of it"],
)
def test_a_pod_that_uses_more_than_it_was_sold_is_an_ordinary_one(
    requests: dict[str, str], is_ordinary: bool, is_reclaimed: bool
) -> None:
    """By asking for a little, or nothing, of what was reclaimed nobody's usage gets out of the predicted peak."""
    pod = node_pod_of(a_pod(containers=[{"name": "a", "resources": {"requests": requests}}]))

    assert pod is not None
    assert pod.is_ordinary(Resource.CPU) is is_ordinary
    assert pod.is_reclaimed is is_reclaimed


def test_pods_that_are_done_or_nowhere_are_of_no_interest() -> None:
    done = a_pod() | {"status": {"phase": "Succeeded"}}

    assert node_pod_of(done) is None
    assert node_pod_of(a_pod(nodeName=None)) is None


@pytest.mark.parametrize(
    "said",
    [
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. ",
        "The node had condition: [MemoryPressure]. ",
    ],
    ids=["ended", "not taken in"],
)
def test_a_pod_that_its_kubelet_evicted_for_want_of_memory_says_when(said: str) -> None:
    ended = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-02T00:00:10Z"}
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-02T00:00:00Z"}
    status = {"phase": "Failed", "reason": "Evicted", "message": said, "conditions": [ended, ready]}

    found = pod_or_eviction_of(a_pod() | {"status": status})
    early = pod_or_eviction_of(a_pod() | {"status": status | {"conditions": []}})

    assert found == KubeletEviction("n1", "shop/web-0", seconds_of("2026-01-02T00:00:10Z"))
    assert early == KubeletEviction("n1", "shop/web-0", seconds_of("2026-01-01T00:00:00Z"))


def test_other_pods_are_read_as_they_are_and_other_evictions_are_no_sign() -> None:
    """A full disk says nothing of what was sold."""
    disk = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage. "}

    assert pod_or_eviction_of(a_pod()) == node_pod_of(a_pod())
    assert pod_or_eviction_of(a_pod() | {"status": disk}) is None


def test_a_node_is_read_with_what_it_offers() -> None:
    """In base units: cores and bytes."""
    amounts = {"cpu": "16", "memory": "64Gi", "foresize.io/reclaimed-cpu": "2k"}
    pressure = {"type": "MemoryPressure", "status": "True"}
    status = {"capacity": amounts, "allocatable": {"cpu": "15500m"}, "conditions": [pressure]}

    node = node_of({"metadata": {"name": "n1", "uid": "u", "labels": {"a": "b"}}, "status": status})

    assert node.allocatable == Amounts(15.5, None)
    assert node.offered == Amounts(2.0, None)
    assert node.has_memory_pressure


@pytest.mark.parametrize("horizon", ["", "a day", "0h", "-3h"])
def test_a_spec_that_cannot_be_followed_says_why_and_selects_nothing(horizon: str) -> None:
    resources = [{"name": "cpu", "violationProbability": 0.01, "horizon": horizon, "maxRate": 1.5}]

    policy = policy_of({"metadata": {"name": "p", "uid": "u"}, "spec": {"resources": resources}})

    assert "horizon" in policy.problem
    assert not policy.selects(NODE)


def test_memory_is_told_more_carefully_than_cpu_where_a_policy_does_not_say() -> None:
    resources = [{"name": name, "horizon": "24h", "maxRate": 1.5} for name in ("cpu", "memory")]

    policy = policy_of({"metadata": {"name": "p", "uid": "u"}, "spec": {"resources": resources}})

    assert {each: terms.violation_probability for each, terms in policy.terms.items()} == {
        Resource.CPU: 0.01,
        Resource.MEMORY: 0.001,
    }


def test_a_policy_is_read_as_it_is_written() -> None:
    resources = [{"name": "cpu", "violationProbability": 0.01, "horizon": "1h30m", "maxRate": 1.5}]
    metadata = {"name": "p", "uid": "u", "annotations": {"foresize.io/paused": "yes"}}

    policy = policy_of({"metadata": metadata, "spec": {"resources": resources, "mode": "Auto"}})

    assert policy.terms == {Resource.CPU: Terms(0.01, 5400.0, 1.5)}
    assert policy.mode is Mode.AUTO
    assert not policy.sells
