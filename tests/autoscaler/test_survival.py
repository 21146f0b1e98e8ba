"""A node or a zone may be lost, and what is left still carries demand; by hand, and whatever the numbers are."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cluster.commands import ScaleReplicas
from autoscaler.cluster.containers import PodState
from autoscaler.cluster.domains import DomainKind, FailureDomains
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.cluster.snapshot import Rung
from autoscaler.controller.explanation import explanation
from autoscaler.controller.ports import TargetWorkload
from autoscaler.decisions.guardrails import NO_MEMORY, Behaviour, PolicyKind, ScalingPolicy, ScalingRules
from autoscaler.decisions.replicas import ReplicaRules, decide_replicas
from autoscaler.decisions.survival import evenly_spread, left_of, surviving_replicas
from autoscaler.kube.domains import ZONE_LABEL, WatchedNode, failure_domains, watched_node_of
from autoscaler.settings import ScalingSettings
from tests.support.clusters import NOT_FORECAST, NOT_MEASURED, NOW, a_forecast, a_workload
from tests.support.scaling import CART, ScalingParts, a_target, an_autoscaler, noon_rush

AT_ONCE = ReplicaRules(
    behaviour=Behaviour(
        ScalingRules(0, (ScalingPolicy(PolicyKind.PERCENT, 1_000_000, 15),)),
        ScalingRules(0, (ScalingPolicy(PolicyKind.PERCENT, 100, 15),)),
    )
)


def zones(*pods: int, eligible: int | None = None) -> FailureDomains:
    """So many pods in each of some zones, of which there are no others unless it is said."""
    named = tuple((f"zone-{number}", count) for number, count in enumerate(sorted(pods, reverse=True)) if count)
    return FailureDomains(DomainKind.ZONE, named, len(pods) if eligible is None else eligible)


@pytest.mark.parametrize(
    ("needed", "domains", "replicas"), [(4, 2, 8), (4, 3, 6), (5, 3, 8), (1, 2, 2), (1, 9, 2), (10, 6, 12), (11, 6, 14)]
)
def test_evenly_spread_replicas_by_hand(needed: int, domains: int, replicas: int) -> None:
    """Four of two zones need eight, four and four; of three zones six, two each."""
    assert evenly_spread(needed, domains) == replicas


@pytest.mark.parametrize(
    ("needed", "pods", "replicas"),
    [
        (4, zones(0, 0), 8),  # none is there yet: as evenly spread
        (4, zones(4, 4), 8),  # four are left
        (4, zones(5, 3), 9),  # five may go: one more, where three are
        (3, zones(4, 3), 7),  # four may go and three are left; with six it could be four and two
        (2, zones(10, 10), 12),  # of what is removed all may be of one zone
        (2, zones(4, 0), 6),  # two more have to be in the other zone
        (4, zones(8, 0, 0), 10),  # no more than 4 + 6, wherever they come to lie
        (4, zones(16, 0, 0), 10),  # and so back to that
        (4, zones(3, 3, 2), 7),  # three may go
        (4, zones(4, eligible=1), 4),  # one zone: nothing helps
        (0, zones(3, 3), 0),
    ],
)
def test_replicas_that_survive_by_hand(needed: int, pods: FailureDomains, replicas: int) -> None:
    """From where the pods are now."""
    assert surviving_replicas(needed, pods) == replicas


@given(needed=st.integers(1, 40), where=st.lists(st.integers(0, 30), min_size=2, max_size=6), data=st.data())
def test_whatever_is_removed_the_rest_survives_and_nothing_has_to_be_added_again(
    needed: int, where: list[int], data: st.DataObject
) -> None:
    """Pods go from zones by chance until as many are left as was said; then that many still do."""
    wanted = surviving_replicas(needed, zones(*where))
    if wanted > sum(where):
        return
    if needed + max(where) > sum(where):
        return  # it was not survived before, and is at the bound
    left = list(where)
    while sum(left) > wanted:
        zone = data.draw(st.sampled_from([number for number, count in enumerate(left) if count]))
        left[zone] -= 1

    assert sum(left) - max(left) >= needed
    assert surviving_replicas(needed, zones(*left)) <= wanted


@given(needed=st.integers(1, 40), where=st.lists(st.integers(0, 30), min_size=2, max_size=6))
def test_pods_added_where_fewest_are_survive_and_never_cost_more_than_the_bound(needed: int, where: list[int]) -> None:
    """A scheduler that spreads evenly gets there at once."""
    wanted = surviving_replicas(needed, zones(*where))
    bound = needed + evenly_spread(needed, len(where))

    assert needed < wanted <= max(bound, sum(where))
    filled = list(where)
    while sum(filled) < wanted:
        filled[filled.index(min(filled))] += 1
    if sum(where) < wanted < bound:
        assert sum(filled) - max(filled) >= needed


def test_what_is_left_of_some_replicas() -> None:
    """The fullest zone's are lost, or as many as an even spread has where more are to come."""
    assert [left_of(n, zones(3, 1)) for n in (2, 4, 6, 9)] == [0, 1, 3, 4]
    assert left_of(4, zones(4, eligible=1)) == 4


def test_a_forecast_and_what_is_seen_are_both_survived() -> None:
    """Four replicas' worth of demand in two zones: eight, whichever says so, and the reason names the zones."""
    for forecast, rung in ((a_forecast(4.0), Rung.CHAMPION), (NOT_FORECAST, Rung.REACTIVE)):
        workload = a_workload(replicas=4, demand=4.0, survives=zones(2, 2))
        decision = decide_replicas(workload, forecast, NO_MEMORY, AT_ONCE, NOW).decision

        assert (decision.desired, decision.rung) == (8, rung)
        assert isinstance(decision.outcome, ScaleReplicas)
        assert decision.outcome.reason.code is ReasonCode.SURVIVES_LOSS
        assert "8 replicas, so that 4 are left when one of 2 zones is lost; zone-0 has 2" in str(decision.reason)


def test_the_tolerance_is_that_of_what_is_left() -> None:
    """Eight replicas carry four replicas' worth of demand: that is no slack where half of them may go."""
    calm = a_workload(replicas=8, demand=3.9, survives=zones(4, 4))
    slack = a_workload(replicas=8, demand=2.9, survives=zones(4, 4))

    assert decide_replicas(calm, a_forecast(3.9), NO_MEMORY, AT_ONCE, NOW).decision.desired == 8
    assert decide_replicas(slack, a_forecast(2.9), NO_MEMORY, AT_ONCE, NOW).decision.desired == 7


def test_a_forecast_alone_removes_nothing_here_either() -> None:
    """Only what is observed does."""
    workload = a_workload(replicas=20, demand=NOT_MEASURED, survives=zones(10, 10))

    decision = decide_replicas(workload, a_forecast(2.0), NO_MEMORY, AT_ONCE, NOW).decision

    assert (decision.desired, decision.reason.code) == (20, ReasonCode.NO_SHRINK_UNSEEN)


# --- where pods are


def a_pod(name: str, node: str, *, is_running: bool = True) -> PodState:
    return PodState("shop", name, f"uid of {name}", "1", is_running, "Burstable", node=node)


def a_node(name: str, zone: str = "", *, takes_pods: bool = True, **labels: str) -> WatchedNode:
    zoned = {ZONE_LABEL: zone} if zone else {}
    return WatchedNode(name, frozenset((zoned | labels).items()), takes_pods)


def domains(kind: DomainKind, pods: list[PodState], *nodes: WatchedNode, **target: Any) -> FailureDomains | Hold:
    return failure_domains(kind, a_target(**target), pods, {node.name: node for node in nodes})


def test_pods_are_counted_by_node_and_by_zone() -> None:
    """Running ones alone; a cordoned node takes no more, and still holds what it has."""
    nodes = (a_node("n1", "a"), a_node("n2", "a"), a_node("n3", "b", takes_pods=False), a_node("n4", "c"))
    pods = [a_pod("1", "n1"), a_pod("2", "n2"), a_pod("3", "n3"), a_pod("4", "n4", is_running=False), a_pod("5", "")]

    assert domains(DomainKind.NODE, pods, *nodes) == FailureDomains(
        DomainKind.NODE, (("n1", 1), ("n2", 1), ("n3", 1)), 3
    )
    assert domains(DomainKind.ZONE, pods, *nodes) == FailureDomains(DomainKind.ZONE, (("a", 2), ("b", 1)), 2)


def test_only_nodes_that_the_pods_may_be_on_are_eligible() -> None:
    """By the template's nodeSelector."""
    nodes = (a_node("n1", "a", disk="ssd"), a_node("n2", "b"))

    found = domains(DomainKind.ZONE, [a_pod("1", "n1")], *nodes, node_selector=(("disk", "ssd"),))

    assert found == FailureDomains(DomainKind.ZONE, (("a", 1),), 1)


@pytest.mark.parametrize(
    ("pods", "nodes", "why"),
    [
        ([a_pod("web-1", "n1")], (a_node("n1"),), f"web-1 runs on n1, which has no label {ZONE_LABEL}"),
        ([], (a_node("n1"),), f"no node that takes its pods has a label {ZONE_LABEL}"),
        ([], (a_node("n1", "a", takes_pods=False),), "no node takes its pods"),
    ],
)
def test_zones_that_are_not_known_are_said(pods: list[PodState], nodes: tuple[WatchedNode, ...], why: str) -> None:
    """Not taken for one zone."""
    found = domains(DomainKind.ZONE, pods, *nodes)

    assert isinstance(found, Hold)
    assert found.reason.message == why


def test_a_node_takes_pods_while_it_is_ready_and_not_cordoned() -> None:
    """As the API server has it."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    item = {"metadata": {"name": "n1", "labels": {ZONE_LABEL: "a"}}, "spec": {}, "status": ready}

    assert watched_node_of(item) == a_node("n1", "a")
    assert not watched_node_of(item | {"spec": {"unschedulable": True}}).takes_pods
    assert not watched_node_of(item | {"status": {}}).takes_pods


# --- the controller


def surviving(target: TargetWorkload) -> ScalingParts:
    """A workload at rest that 3 replicas carry, under an object that survives a zone."""
    return ScalingParts(
        usage_by_workload={CART: noon_rush(2.0, 2.0)},
        autoscalers=(an_autoscaler(survives=DomainKind.ZONE),),
        targets=(target,),
        settings=ScalingSettings(learned_margins=False, scale_down_stabilisation="0s"),
    )


def test_a_controller_keeps_what_survives_and_says_whether_it_would() -> None:
    """Three are needed: three more are added, and the condition is true once these are in the other zone."""
    parts = surviving(a_target(replicas=3, domains=zones(3, 0)))
    controller = parts.controller()
    controller.cycle()

    assert parts.replicas() == 6
    assert parts.condition("SurvivesLoss") == ("False", "TooFewLeft")
    assert parts.status()["decisions"][0]["reason"] == "SurvivesLoss"
    assert controller.report is not None
    words = explanation(controller.report.records[0].as_json())
    assert (
        "survival     no: zone-0 has 3 of the 3 replicas that run: without it 0 are left, and demand needs 3" in words
    )

    parts.cluster.put(a_target(replicas=6, domains=zones(3, 3), is_set_by_us=True))
    parts.clock.now += 60
    controller.cycle()
    assert parts.replicas() == 6
    assert parts.condition("SurvivesLoss") == ("True", "Survives")


def test_nothing_is_removed_while_nobody_knows_where_pods_are() -> None:
    """As without the permission to see nodes; the condition says what is missing."""
    unseen = Hold(Reason(ReasonCode.DOMAINS_UNKNOWN, "nodes cannot be seen: forbidden"))
    parts = surviving(a_target(replicas=8, domains=unseen))
    controller = parts.controller()
    for _ in range(10):
        controller.cycle()
        parts.clock.now += 60

    assert parts.replicas() == 8
    assert parts.condition("SurvivesLoss") == ("False", "DomainsUnknown")
    assert parts.condition("AbleToScale") == ("True", "DomainsUnknown")


def test_a_single_zone_is_said_and_costs_nothing() -> None:
    """No number of replicas would help."""
    parts = surviving(a_target(replicas=3, domains=zones(3)))
    parts.controller().cycle()

    assert parts.replicas() == 3
    assert parts.condition("SurvivesLoss") == ("False", "OneDomain")
