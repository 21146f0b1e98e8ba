"""Which pods are admitted with lower requests, by how much, and why others are left alone; what is patched of them."""

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cluster.containers import NO_AMOUNTS, Amounts
from autoscaler.cluster.nodes import Actuator
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.admission import rates_of
from autoscaler.controller.policies import FLOOR
from autoscaler.decisions.amplification import (
    Changed,
    NamespaceRules,
    NewContainer,
    NewPod,
    Placement,
    PolicyRates,
    PoolRate,
    Requirement,
    lowered,
    node_rate,
    pool_rate,
    translated,
)
from autoscaler.decisions.reclaiming import Shelf, ToldPeak, reclaimable
from autoscaler.errors import ClusterRefused
from autoscaler.kube.admission import (
    ORIGINAL_ANNOTATION,
    Rule,
    admitted,
    limit_range_of,
    quota_of,
    reviewed,
    rules_of,
)
from autoscaler.kube.nodes import node_pod_of, policy_of
from predictor.usage.panel import Resource

NOW = 1_800_000_000.0
LOOKED_AT = "2027-01-15T08:00:00Z"
GENERAL = Placement(frozenset({("pool", "general")}))
GIB = 2.0**30


def a_policy(
    name: str = "general",
    rate: float | Hold = 1.5,
    *,
    pool: str = "general",
    actuator: Actuator = Actuator.REQUEST_AMPLIFICATION,
    floor: Amounts = FLOOR,
    **labels: str,
) -> PolicyRates:
    selector = frozenset({"pool": pool, **labels}.items())
    return PolicyRates(name, selector, actuator, {Resource.CPU: rate, Resource.MEMORY: rate}, floor)


def a_pod(
    cpu: float | None = 2.0,
    memory: float | None = None,
    *,
    limits: Amounts = NO_AMOUNTS,
    placement: Placement = GENERAL,
    **more: bool,
) -> NewPod:
    return NewPod(placement, (NewContainer("app", Amounts(cpu, memory), limits),), **more)


def changed(answer: Changed | Hold) -> Mapping[str, Amounts]:
    assert isinstance(answer, Changed), answer
    return answer.amounts


def why(answer: Changed | Hold) -> ReasonCode:
    assert isinstance(answer, Hold), answer
    return answer.reason.code


def in_terms(*terms: tuple[Requirement, ...], labels: dict[str, str] | None = None) -> Placement:
    return Placement(frozenset((labels or {}).items()), terms)


# --- by how much


def test_requests_are_divided_by_the_rate_and_rounded_up() -> None:
    """Each resource by its own; what is not requested is not made up."""
    policy = PolicyRates(
        "p",
        frozenset({("pool", "general")}),
        Actuator.REQUEST_AMPLIFICATION,
        {Resource.CPU: 1.3, Resource.MEMORY: 1.25},
    )
    sidecar = NewContainer("proxy", Amounts(0.1, None))
    pod = NewPod(GENERAL, (NewContainer("app", Amounts(2.0, GIB)), sidecar))

    assert changed(lowered(pod, [policy], NamespaceRules())) == {
        "app": Amounts(1.539, -(-GIB // 1.25)),
        "proxy": Amounts(0.077, None),
    }


@given(
    cpu=st.floats(0.001, 200),
    rate=st.floats(1.01, 10),
    floor=st.floats(0, 2),
    least=st.one_of(st.none(), st.floats(0.001, 2)),
)
def test_no_request_grows_or_falls_below_a_floor_or_by_more_than_the_rate(
    cpu: float, rate: float, floor: float, least: float | None
) -> None:
    policy = a_policy(rate=rate, floor=Amounts(floor, None))
    answer = lowered(a_pod(cpu), [policy], NamespaceRules(least=Amounts(least, None)))

    if isinstance(answer, Changed):
        after = answer.amounts["app"].cpu_cores
        assert after is not None
        assert after < cpu
        assert after >= max(floor, least or 0.0, cpu / rate) - 1e-6
    else:
        assert cpu / rate > cpu - 1e-3 - cpu * 1e-9 or cpu <= max(floor, least or 0.0) + 1e-3


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (a_pod(None, None), ReasonCode.REQUESTS_NOTHING),
        (a_pod(0.01), ReasonCode.REQUESTS_NOTHING),
        (a_pod(0.005), ReasonCode.REQUESTS_NOTHING),
        (a_pod(2.0, GIB, limits=Amounts(2.0, GIB)), ReasonCode.GUARANTEED_POD),
        (a_pod(is_changed=True), ReasonCode.ALREADY_CHANGED),
        (a_pod(requests_as_a_whole=True), ReasonCode.POD_LEVEL_RESOURCES),
    ],
    ids=["requests nothing", "at the floor", "below the floor", "Guaranteed", "changed before", "pod-level"],
)
def test_a_pod_that_should_not_be_lowered_is_left_alone(pod: NewPod, reason: ReasonCode) -> None:
    assert why(lowered(pod, [a_policy()], NamespaceRules())) is reason


def test_the_floor_holds_for_each_container() -> None:
    """One that is above it goes no lower; another that is below it stays."""
    policy = a_policy(rate=4.0, floor=Amounts(0.5, None))
    pod = NewPod(GENERAL, (NewContainer("app", Amounts(1.0)), NewContainer("proxy", Amounts(0.2))))

    assert changed(lowered(pod, [policy], NamespaceRules())) == {"app": Amounts(0.5, None)}


# --- under which policy


def test_a_pod_that_may_go_elsewhere_too_is_left_alone() -> None:
    """No node selector, that of another pool, or another label of the same nodes."""
    for placement in (
        Placement(),
        Placement(frozenset({("pool", "other")})),
        Placement(frozenset({("zone", "a")})),
        in_terms((Requirement("pool", "Exists"),)),
        in_terms((Requirement("pool", "In", ("general", "other")),)),
        in_terms((Requirement("pool", "In", ("general",)),), (Requirement("zone", "In", ("a",)),)),
        in_terms((), labels={"pool": "general"}),
    ):
        assert why(lowered(a_pod(placement=placement), [a_policy()], NamespaceRules())) is ReasonCode.NO_POLICY


def test_node_affinity_that_is_required_says_where_a_pod_goes_as_well() -> None:
    placement = in_terms((Requirement("pool", "In", ("general",)), Requirement("zone", "NotIn", ("c",))))

    assert changed(lowered(a_pod(placement=placement), [a_policy()], NamespaceRules())) == {"app": Amounts(1.334, None)}


def test_of_several_pools_that_a_pod_may_go_to_the_lowest_rate_holds() -> None:
    """Be it by one expression with two values or by two terms."""
    policies = [a_policy("one", 2.0, pool="one"), a_policy("other", 1.25, pool="other")]
    by_values = in_terms((Requirement("pool", "In", ("one", "other")),))
    by_terms = in_terms((Requirement("pool", "In", ("one",)),), (Requirement("pool", "In", ("other",)),))

    for placement in (by_values, by_terms):
        assert changed(lowered(a_pod(placement=placement), policies, NamespaceRules())) == {"app": Amounts(1.6, None)}


def test_a_second_policy_that_may_select_the_node_as_well_can_only_make_it_stricter() -> None:
    """Its rate where it is lower; nothing at all where it observes, tells nothing, or sells in another way."""
    own = a_policy("own", 2.0)
    zone = frozenset({("zone", "a")})

    def beside(rate: float | Hold, actuator: Actuator = Actuator.REQUEST_AMPLIFICATION) -> Changed | Hold:
        other = PolicyRates("zonal", zone, actuator, {Resource.CPU: rate})
        return lowered(a_pod(), [own, other], NamespaceRules())

    assert changed(beside(1.25)) == {"app": Amounts(1.6, None)}
    assert changed(beside(3.0)) == {"app": Amounts(1.0, None)}
    assert why(beside(Hold(Reason(ReasonCode.STALE_RATE, "old")))) is ReasonCode.STALE_RATE
    assert why(beside(1.0, Actuator.EXTENDED_RESOURCES)) is ReasonCode.CONFLICT
    elsewhere = PolicyRates("gpu", frozenset({("pool", "gpu")}), Actuator.REQUEST_AMPLIFICATION, {Resource.CPU: 1.1})
    assert changed(lowered(a_pod(), [own, elsewhere], NamespaceRules())) == {"app": Amounts(1.0, None)}


def test_an_affinity_with_too_many_kinds_of_nodes_is_not_followed() -> None:
    many = tuple(str(number) for number in range(65))
    policies = [a_policy("p", 2.0, pool="1")]
    pod = a_pod(placement=in_terms((Requirement("pool", "In", many),)))

    assert why(lowered(pod, policies, NamespaceRules())) is ReasonCode.NO_POLICY


# --- the rate


def a_shelf(requested: float, peak: float, newcomers: float = 0.0) -> Shelf:
    told = ToldPeak(peak, 0.01, 28, 0)
    return Shelf(resource=Resource.CPU, allocatable=16.0, requested=requested, newcomers=newcomers, sold=0.0, peak=told)


def rate_of(shelf: Shelf, max_rate: float = 3.0) -> float:
    return node_rate(shelf, reclaimable(shelf, usable_share=0.9, max_rate=max_rate)).rate


def test_a_nodes_rate_is_what_may_be_requested_of_it() -> None:
    """(15.5 + 14.4 - 4) / 16, rounded down; no more than maxRate; 1 where nothing is left, or there is room anyway."""
    assert rate_of(a_shelf(15.5, 4.0)) == pytest.approx(1.61)
    assert rate_of(a_shelf(15.5, 4.0), max_rate=1.5) == 1.5
    assert rate_of(a_shelf(24.0, 15.0)) == 1.0
    assert rate_of(a_shelf(24.0, 8.0, newcomers=7.0)) == 1.0
    assert rate_of(a_shelf(0.0, 0.0)) == 1.0


def test_what_pods_still_have_of_what_was_reclaimed_is_not_sold_a_second_time() -> None:
    """A policy that offered reclaimed resources before: its pods run on, and go on using what they were sold."""
    shelf = a_shelf(15.5, 4.0)  # 10.4 are left.

    assert rate_of(replace(shelf, sold=4.0)) == pytest.approx(1.36)  # (15.5 + 6.4) / 16
    assert rate_of(replace(shelf, sold=11.0)) == 1.0
    sold_out = node_rate(replace(shelf, sold=11.0), reclaimable(shelf, usable_share=0.9, max_rate=3.0))
    assert sold_out.reason.code is ReasonCode.SOLD_OUT


def test_the_pools_rate_is_that_of_the_node_that_allows_least() -> None:
    reason = Reason(ReasonCode.PREDICTED_PEAK, "so it is")
    rate = pool_rate({"a": PoolRate(1.4, reason), "b": PoolRate(1.2, reason)})

    assert rate.rate == 1.2
    assert rate.reason.message.startswith("b decides")
    assert pool_rate({}).rate == 1.0


def told(policy: dict[str, Any], **status: Any) -> dict[str, Any]:
    shown = {
        "lookedAt": LOOKED_AT,
        "observedGeneration": 1,
        "resources": [{"name": "cpu", "amplification": {"rate": 1.3}, "offered": 2}],
    }
    return policy | {"status": shown | status}


def an_object(**spec: Any) -> dict[str, Any]:
    resources = [{"name": "cpu", "violationProbability": 0.01, "horizon": "24h", "maxRate": 1.5}]
    actuator = {"type": "RequestAmplification", "minRequests": {"cpu": "50m"}}
    return {
        "metadata": {"name": "p", "uid": "u", "generation": 1},
        "spec": {"resources": resources, "mode": "Auto", "actuator": actuator} | spec,
    }


@pytest.mark.parametrize(
    ("found", "now", "reason"),
    [
        (an_object(), NOW, ReasonCode.STALE_RATE),
        (told(an_object()), NOW + 301, ReasonCode.STALE_RATE),
        (told(an_object()), NOW - 301, ReasonCode.STALE_RATE),
        (told(an_object(), lookedAt="0000-01-01T00:00:00Z"), NOW, ReasonCode.STALE_RATE),
        (told(an_object(), observedGeneration=0), NOW, ReasonCode.STALE_RATE),
        (told(an_object(), resources=[]), NOW, ReasonCode.STALE_RATE),
        (told(an_object(mode="Observe")), NOW, ReasonCode.NOT_OVERSOLD),
        (told(an_object(), resources=[{"name": "cpu", "amplification": {"rate": 1.0}}]), NOW, ReasonCode.NOT_OVERSOLD),
    ],
    ids=["never told", "old", "from the future", "at no time", "of another spec", "of nothing", "observes", "one"],
)
def test_a_rate_that_does_not_hold_now_is_none(found: dict[str, Any], now: float, reason: ReasonCode) -> None:
    (rates,) = rates_of([policy_of(found)], now, 300.0)
    rate = rates.rates[Resource.CPU]

    assert isinstance(rate, Hold)
    assert rate.reason.code is reason


def test_a_rate_is_what_the_status_says_and_no_more_than_the_spec_allows() -> None:
    """A status that says more than maxRate was not written by a controller of this spec."""
    (rates,) = rates_of([policy_of(told(an_object()))], NOW + 60, 300.0)
    forged = told(an_object(), resources=[{"name": "cpu", "amplification": {"rate": 9}}])
    (capped,) = rates_of([policy_of(forged)], NOW, 300.0)

    assert rates.rates == {Resource.CPU: 1.3}
    assert rates.floor == Amounts(0.05, 32 * 2**20)
    assert capped.rates == {Resource.CPU: 1.5}


# --- reclaimed resources


def test_a_pod_asks_for_reclaimed_resources_only_where_they_are_sold() -> None:
    """CPU by a policy that sells some; memory stays, as nobody sells any."""
    seller = PolicyRates(
        "s",
        frozenset({("pool", "general")}),
        Actuator.EXTENDED_RESOURCES,
        {Resource.CPU: 1.0},
        unsold={Resource.CPU: 2.0},
    )
    pod = a_pod(1.5, GIB, limits=Amounts(3.0, 2 * GIB), placement=Placement())

    assert changed(translated(pod, [seller], NamespaceRules())) == {"app": Amounts(1.5, None)}
    assert why(translated(pod, [a_policy()], NamespaceRules())) is ReasonCode.NO_POLICY
    elsewhere = a_pod(placement=Placement(frozenset({("pool", "other")})))
    assert why(translated(elsewhere, [seller], NamespaceRules())) is ReasonCode.NO_POLICY


def test_a_pod_that_no_node_has_enough_unsold_for_stays_ordinary_and_does_not_wait() -> None:
    """Containers that run at the same time need room together, one that runs first by itself."""

    def with_room(cores: float) -> PolicyRates:
        return PolicyRates(
            "s", frozenset(), Actuator.EXTENDED_RESOURCES, {Resource.CPU: 1.0}, unsold={Resource.CPU: cores}
        )

    app, sidecar = NewContainer("app", Amounts(1.5, None)), NewContainer("sidecar", Amounts(0.5, None))
    first = NewContainer("first", Amounts(3.0, None), is_first=True)

    def found(*containers: NewContainer, room: float) -> Changed | Hold:
        return translated(replace(a_pod(), containers=containers), [with_room(room)], NamespaceRules())

    assert why(found(app, sidecar, room=1.9)) is ReasonCode.SOLD_OUT
    assert changed(found(app, sidecar, room=2.0)) == {"app": Amounts(1.5, None), "sidecar": Amounts(0.5, None)}
    assert why(found(app, first, room=2.9)) is ReasonCode.SOLD_OUT
    assert set(changed(found(app, first, room=3.0))) == {"app", "first"}


def test_a_pod_waits_rather_than_come_back_on_ordinary_terms_to_a_node_that_evicted_it() -> None:
    """While the guard has stopped sales on a node of the policy, and if one of them may ever sell as much."""

    def admitted_with(suspended: int, reclaimable: float) -> Changed | Hold:
        object_told = told(
            an_object(actuator={"type": "ExtendedResources"}),
            resources=[{"name": "cpu", "offered": 4, "largestUnsold": 0, "largestReclaimable": reclaimable}],
            nodes={"selected": 3, "suspended": suspended},
        )
        return translated(a_pod(), rates_of([policy_of(object_told)], NOW, 300.0), NamespaceRules())

    assert changed(admitted_with(1, 2.0)) == {"app": Amounts(2.0, None)}
    assert why(admitted_with(1, 1.9)) is ReasonCode.SOLD_OUT
    assert why(admitted_with(0, 2.0)) is ReasonCode.SOLD_OUT


def test_how_much_is_unsold_is_read_from_the_status() -> None:
    """One that does not say has nothing."""
    spec = an_object(actuator={"type": "ExtendedResources"})
    said = {"name": "cpu", "offered": 4, "sold": 1, "largestUnsold": 1.5}

    (telling,) = rates_of([policy_of(told(spec, resources=[said]))], NOW, 300.0)
    (silent,) = rates_of([policy_of(told(spec, resources=[{"name": "cpu", "offered": 4}]))], NOW, 300.0)

    assert telling.unsold == {Resource.CPU: 1.5}
    assert silent.unsold == {Resource.CPU: 0.0}


def test_a_namespace_that_asks_for_ordinary_requests_gets_them() -> None:
    """Else its quota or LimitRange would refuse the pod."""
    seller = PolicyRates("s", frozenset(), Actuator.EXTENDED_RESOURCES, {Resource.CPU: 1.0}, unsold={Resource.CPU: 2.0})
    quota = quota_of({"metadata": {"namespace": "shop"}, "spec": {"hard": {"requests.cpu": "10", "pods": "5"}}})

    assert why(translated(a_pod(), [seller], rules_of("shop", [quota]))) is ReasonCode.NAMESPACE_RULES
    assert changed(translated(a_pod(), [seller], rules_of("other", [quota]))) == {"app": Amounts(2.0, None)}


def test_no_request_is_lowered_so_far_that_a_limit_range_refuses_the_pod() -> None:
    """Neither below its minimum nor below the share of the limit that it asks for; rules for pods stop all."""

    def ranged(**limit: Any) -> NamespaceRules:
        item = {"metadata": {"namespace": "shop"}, "spec": {"limits": [{"type": "Container", **limit}]}}
        return rules_of("shop", [limit_range_of(item)])

    pod = a_pod(2.0, limits=Amounts(3.5, None))
    policies = [a_policy(rate=4.0)]

    assert changed(lowered(pod, policies, ranged(min={"cpu": "1500m"}))) == {"app": Amounts(1.5, None)}
    assert changed(lowered(pod, policies, ranged(maxLimitRequestRatio={"cpu": "2"}))) == {"app": Amounts(1.75, None)}
    assert why(lowered(pod, policies, ranged(type="Pod", min={"cpu": "1"}))) is ReasonCode.NAMESPACE_RULES


# --- the patch


def a_manifest(**spec: Any) -> dict[str, Any]:
    container = {"name": "app", "image": "x", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "4"}}}
    return {
        "kind": "Pod",
        "metadata": {"generateName": "web-"},
        "spec": {"nodeSelector": {"pool": "general"}, "containers": [container]} | spec,
    }


def test_the_patch_sets_requests_and_keeps_what_they_were() -> None:
    """Limits and what is not changed are not touched; init containers are lowered as well."""
    first = {"name": "init", "image": "x", "resources": {"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}}}

    found = admitted(a_manifest(initContainers=[first]), Rule.AMPLIFY, [a_policy()], NamespaceRules())

    by_path = {each["path"]: each["value"] for each in found.operations}
    assert by_path["/spec/containers/0/resources"] == {"requests": {"cpu": "1334m"}, "limits": {"cpu": "4"}}
    assert by_path["/spec/initContainers/0/resources"] == {"requests": {"cpu": "667m", "ephemeral-storage": "1Gi"}}
    assert json.loads(by_path["/metadata/annotations/foresize.io~1original-resources"]) == {
        "app": {"requests": {"cpu": "2"}},
        "init": {"requests": {"cpu": "1"}},
    }
    assert [str(each) for each in found.reasons] == ["RequestsNothing: memory: it requests none"]


def test_a_pod_that_asks_for_reclaimed_resources_has_no_ordinary_ones_of_the_kind() -> None:
    seller = PolicyRates("s", frozenset(), Actuator.EXTENDED_RESOURCES, {Resource.CPU: 1.0}, unsold={Resource.CPU: 2.0})

    found = admitted(a_manifest(), Rule.RECLAIM, [seller], NamespaceRules())

    by_path = {each["path"]: each["value"] for each in found.operations}
    amount = {"foresize.io/reclaimed-cpu": "2000"}
    assert by_path["/spec/containers/0/resources"] == {"requests": amount, "limits": amount}
    assert json.loads(by_path["/metadata/annotations/foresize.io~1original-resources"]) == {
        "app": {"requests": {"cpu": "2"}, "limits": {"cpu": "4"}}
    }


@pytest.mark.parametrize(
    "spec",
    [{"containers": [{"name": "app", "resources": {"requests": {"cpu": "lots"}}}]}, {"containers": [{}]}],
    ids=["an amount that is none", "a container without a name"],
)
def test_a_pod_that_cannot_be_read_is_left_to_the_api_server(spec: dict[str, Any]) -> None:
    found = admitted(a_manifest(**spec), Rule.AMPLIFY, [a_policy()], NamespaceRules())

    assert found.operations == ()
    assert found.reasons[0].code is ReasonCode.INVALID_SPEC


def test_every_review_is_answered_with_leave_to_create_the_pod() -> None:
    """With a patch, or without one."""
    review = {"request": {"uid": "r", "namespace": "shop", "object": a_manifest()}}

    patched, _ = reviewed(review, lambda pod, _: admitted(pod, Rule.AMPLIFY, [a_policy()], NamespaceRules()))
    plain, found = reviewed(review, lambda pod, _: admitted(pod, Rule.AMPLIFY, [], NamespaceRules()))

    assert patched["response"]["uid"] == "r"
    assert patched["response"]["allowed"] is True
    assert json.loads(base64.b64decode(patched["response"]["patch"]))[0]["op"] == "add"
    assert plain["response"] == {"uid": "r", "allowed": True}
    assert found.reasons[0].code is ReasonCode.NO_POLICY


@pytest.mark.parametrize(
    "review", [{}, {"request": {"uid": "r"}}, {"request": {"uid": "r", "object": {"kind": "Job"}}}]
)
def test_what_is_no_review_of_a_pod_is_refused(review: dict[str, Any]) -> None:
    with pytest.raises(ClusterRefused, match="AdmissionReviews"):
        reviewed(review, lambda pod, _: admitted(pod, Rule.AMPLIFY, [], NamespaceRules()))


# --- pods that were lowered


def a_running_pod(annotation: str, cpu: str = "1") -> dict[str, Any]:
    metadata = {"name": "p", "namespace": "shop", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    containers = [{"name": "app", "resources": {"requests": {"cpu": cpu}}}]
    return {
        "metadata": metadata | {"annotations": {ORIGINAL_ANNOTATION: annotation}},
        "spec": {"nodeName": "n1", "containers": containers},
    }


@pytest.mark.parametrize(
    ("annotation", "cores"),
    [
        ('{"app":{"requests":{"cpu":"1500m"}}}', 1.5),
        ('{"app":{"requests":{"cpu":"900"}}}', 10.0),
        ('{"app":{"requests":{"cpu":"100m"}}}', 1.0),
        ('{"other":{"requests":{"cpu":"2"}}}', 1.0),
        ("[1]", 1.0),
        ("no json", 1.0),
    ],
    ids=["lowered", "forged: too much", "forged: less", "of another container", "no object", "no JSON"],
)
def test_a_lowered_pod_counts_at_what_it_requested_at_first(annotation: str, cores: float) -> None:
    """Where the annotation can be true: no rate is above ten, and none below one."""
    pod = node_pod_of(a_running_pod(annotation))

    assert pod is not None
    assert pod.requests.cpu_cores == cores
    assert pod.is_lowered
