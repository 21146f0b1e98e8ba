"""API objects become values: every field that a decision needs, and nothing that cannot be followed in silence."""

from typing import Any

import pytest

from autoscaler.controller.autoscalers import (
    Actuator,
    Indicator,
    IndicatorKind,
    Mode,
    PredictiveAutoscaler,
    Prices,
    RivalKind,
    TargetRef,
)
from autoscaler.controller.ports import TargetWorkload
from autoscaler.controller.quantities import quantity
from autoscaler.decisions.guardrails import PolicyKind, ScalingPolicy, Select
from autoscaler.kube.objects import (
    UncountedTarget,
    autoscaler_of,
    budget_of,
    hpa_of,
    ready_pod_of,
    scaled_object_of,
    target_of,
    vpa_of,
    where_readable,
)
from predictor.usage.panel import Resource

REF = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "cart"}


def an_object(spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": "cart", "uid": "u1", "generation": 3} | metadata, "spec": spec}


def test_an_object_that_says_the_least_has_the_defaults() -> None:
    """A target and a maximum: observed only, CPU, from one replica on."""
    read = autoscaler_of(an_object({"targetRef": REF, "horizontal": {"maxReplicas": 9}}))

    assert (read.key, read.workload, read.generation) == ("shop/cart", "shop/Deployment/cart", 3)
    assert (read.mode, read.actuator, read.resource) == (Mode.OBSERVE, Actuator.SCALE, Resource.CPU)
    assert (read.min_replicas, read.max_replicas, read.percentile) == (1, 9, None)
    assert not read.problem


def test_everything_that_an_object_can_say_is_read() -> None:
    """In base units, shares and seconds."""
    spec = {
        "targetRef": REF,
        "mode": "Auto",
        "actuator": "HPAMinReplicas",
        "sla": {"percentile": 99.5},
        "horizontal": {
            "minReplicas": 2,
            "maxReplicas": 40,
            "metric": {"resource": "memory"},
            "target": {"averageValue": "2Gi"},
            "behavior": {
                "scaleUp": {"tolerance": "50m", "selectPolicy": "Min"},
                "scaleDown": {
                    "stabilizationWindowSeconds": 60,
                    "policies": [{"type": "Pods", "value": 2, "periodSeconds": 30}],
                },
            },
        },
        "schedule": [{"name": "sale", "start": "0 8 * * FRI", "durationSeconds": 3600, "minReplicas": 10}],
    }

    read = autoscaler_of(an_object(spec, annotations={"foresize.io/paused": "true"}))

    assert (read.mode, read.actuator, read.percentile) == (Mode.AUTO, Actuator.HPA_MIN_REPLICAS, 99.5)
    assert (read.resource, read.target_value, read.target_utilisation) == (Resource.MEMORY, 2.0 * 2**30, None)
    assert (read.up.tolerance, read.up.select, read.up.policies) == (0.05, Select.MIN, None)
    assert read.down.stabilisation_seconds == 60
    assert read.down.policies == (ScalingPolicy(PolicyKind.PODS, 2, 30.0),)
    assert read.schedule[0].min_replicas == 10
    assert read.is_paused


@pytest.mark.parametrize(
    "horizontal",
    [{}, {"maxReplicas": 3, "metric": {"resource": "coffee"}}, {"maxReplicas": 3, "target": {"averageValue": "much"}}],
    ids=["no maximum", "unknown resource", "no quantity"],
)
def test_what_an_older_schema_let_in_is_named_and_not_followed(horizontal: dict[str, Any]) -> None:
    """No exception: one bad object must not hide the others."""
    read = autoscaler_of(an_object({"targetRef": REF, "horizontal": horizontal}))

    assert read.problem.startswith("spec cannot be followed: ")


def test_a_schedule_that_no_clock_knows_is_a_problem() -> None:
    """A cron expression or a time zone that does not exist."""
    event = {"name": "sale", "start": "0 8 * * FRI", "durationSeconds": 3600, "minReplicas": 10}
    spec = {"targetRef": REF, "horizontal": {"maxReplicas": 9}}

    for change in ({"start": "0 25 * * *"}, {"timeZone": "Europe/Atlantis"}):
        assert autoscaler_of(an_object(spec | {"schedule": [event | change]})).problem


def test_an_object_may_size_containers_alone() -> None:
    """Without horizontal it sets no replicas; without either it cannot be followed."""
    alone = autoscaler_of(an_object({"targetRef": REF, "vertical": {"mode": "InPlace"}}))

    assert (alone.scales, alone.problem) == (False, "")
    assert autoscaler_of(an_object({"targetRef": REF, "vertical": {"mode": "Off"}})).problem
    assert autoscaler_of(an_object({"targetRef": REF, "horizontal": {"maxReplicas": 3}})).scales


@pytest.mark.parametrize("start", ["0 8 31 2 *", "0 8 30 FEB *", "0 8 31 4,6,9,11 *"])
def test_a_schedule_for_a_day_that_never_comes_is_a_problem_with_its_name(start: str) -> None:
    """It would wait for ever and nobody would know why."""
    event = {"name": "sale", "start": start, "durationSeconds": 3600, "minReplicas": 10}

    read = autoscaler_of(an_object({"targetRef": REF, "horizontal": {"maxReplicas": 9}, "schedule": [event]}))

    assert f"schedule sale: {start!r} is no time that ever comes" in read.problem


@pytest.mark.parametrize(
    ("wish", "is_paused"),
    [("true", True), ("True", True), ("yes", True), ("1", True), ("please", True), ("false", False), ("No ", False)],
)
def test_a_pause_is_anything_but_a_no(wish: str, is_paused: bool) -> None:
    """A brake that is not understood brakes, and says what it read."""
    spec = {"targetRef": REF, "horizontal": {"maxReplicas": 9}}

    read = autoscaler_of(an_object(spec, annotations={"foresize.io/paused": wish}))

    assert (read.is_paused, read.pause_wish) == (is_paused, wish)
    assert not autoscaler_of(an_object(spec)).is_paused


def test_a_pod_requests_what_its_containers_and_sidecars_do() -> None:
    """Init containers that end do not count; a limit without a request is the request. So are limits added up."""
    asked = {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}
    sidecar = {"name": "mesh", "restartPolicy": "Always", "resources": asked}
    pod = {
        "initContainers": [{"name": "migrate", "resources": {"requests": {"cpu": "8"}}}, sidecar],
        "containers": [
            {"name": "app", "resources": {"requests": {"cpu": "1500m", "memory": "2Gi"}, "limits": {"cpu": "3"}}},
            {"name": "gpu", "resources": {"limits": {"nvidia.com/gpu": "2", "memory": "1G"}}},
            {"name": "bare"},
        ],
    }

    read = target_of("Deployment")(an_object({"replicas": 1, "template": {"spec": pod}}))

    assert isinstance(read, TargetWorkload)
    assert read.name == "shop/Deployment/cart"
    assert read.request_per_replica.cpu_cores == pytest.approx(1.6)
    assert read.request_per_replica.memory_bytes == 2 * 2**30 + 1e9
    assert read.request_per_replica.gpu_devices == 2
    assert read.cpu_limit_cores == pytest.approx(3.5)
    assert (read.replicas, read.ready_replicas) == (1, 0)


@pytest.mark.parametrize(
    ("manager", "fields", "is_ours"),
    [
        ("foresize", {"f:spec": {"f:replicas": {}}}, True),
        ("foresize", {"f:spec": {"f:template": {}}}, False),
        ("kubectl", {"f:spec": {"f:replicas": {}}}, False),
    ],
)
def test_whoever_manages_the_replicas_has_set_them(manager: str, fields: dict[str, Any], is_ours: bool) -> None:
    """As the API server notes it with each object, whoever else wrote other fields."""
    item = an_object({"replicas": 3})
    item["metadata"]["managedFields"] = [{"manager": "someone"}, {"manager": manager, "fieldsV1": fields}]

    read = target_of("Deployment")(item)

    assert isinstance(read, TargetWorkload)
    assert read.is_set_by_us is is_ours


@pytest.mark.parametrize(
    ("status", "is_rolling_out"),
    [
        ({"replicas": 4, "updatedReplicas": 4}, False),
        ({"replicas": 5, "updatedReplicas": 1}, True),
        ({"replicas": 5}, True),
        ({}, False),
        ({"replicas": 3, "currentRevision": "a", "updateRevision": "a"}, False),
        ({"replicas": 3, "currentRevision": "a", "updateRevision": "b", "updatedReplicas": 1}, True),
    ],
)
def test_pods_of_two_versions_are_a_rollout(status: dict[str, Any], is_rolling_out: bool) -> None:
    """A StatefulSet counts its new pods only while it updates."""
    item = an_object({"replicas": 4, "template": {"spec": {}}}) | {"status": status}

    read = target_of("StatefulSet")(item)

    assert isinstance(read, TargetWorkload)
    assert bool(read.rollout) is is_rolling_out


@pytest.mark.parametrize("spec", [{}, {"replicas": None}, {"instances": 4}])
def test_a_target_that_does_not_say_how_many_it_has_is_not_taken_for_one_replica(spec: dict[str, Any]) -> None:
    """Not set, or a kind whose scale keeps the number elsewhere."""
    assert target_of("Database")(an_object(spec)) == UncountedTarget("shop/Database/cart")


def a_pod(owner: tuple[str, str], labels: dict[str, str], *, ready: str = "True", restarts: int = 0) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "shop",
            "name": "x",
            "creationTimestamp": "2026-01-01T10:00:00Z",
            "labels": labels,
            "ownerReferences": [{"kind": owner[0], "name": owner[1], "controller": True}],
        },
        "status": {
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T10:00:42Z"}],
            "containerStatuses": [{"restartCount": restarts}],
        },
    }


@pytest.mark.parametrize(
    ("owner", "labels", "workload"),
    [
        (("ReplicaSet", "cart-5c9f"), {"pod-template-hash": "5c9f"}, "shop/Deployment/cart"),
        (("ReplicaSet", "cart-77"), {"rollouts-pod-template-hash": "77"}, "shop/Rollout/cart"),
        (("ReplicaSet", "alone"), {}, "shop/ReplicaSet/alone"),
        (("StatefulSet", "db"), {}, "shop/StatefulSet/db"),
    ],
)
def test_a_ready_pod_tells_how_long_it_took(owner: tuple[str, str], labels: dict[str, str], workload: str) -> None:
    """From its creation to Ready, for the workload above its ReplicaSet."""
    read = ready_pod_of(a_pod(owner, labels))

    assert read is not None
    assert (read.workload, read.ready_seconds) == (workload, 42.0)


def test_a_pod_that_is_not_ready_or_came_back_tells_nothing() -> None:
    """After a restart the time is that of the last container, not of the first."""
    assert ready_pod_of(a_pod(("StatefulSet", "db"), {}, ready="False")) is None
    assert ready_pod_of(a_pod(("StatefulSet", "db"), {}, restarts=1)) is None


def test_what_else_can_steer_a_workload_is_recognised() -> None:
    """An HPA with who keeps it, a VPA that acts, KEDA's object with its default target."""
    owned = [{"kind": "ScaledObject", "name": "cart", "controller": True}]
    hpa = hpa_of(an_object({"scaleTargetRef": REF, "maxReplicas": 7}, ownerReferences=owned))
    vpa = vpa_of(an_object({"targetRef": REF}))
    memory_only = {"containerPolicies": [{"containerName": "*", "controlledResources": ["memory"]}]}
    narrow = vpa_of(an_object({"targetRef": REF, "resourcePolicy": memory_only}))
    keda = scaled_object_of(an_object({"scaleTargetRef": {"name": "cart"}}))

    assert (hpa.kind, hpa.owner, hpa.min_replicas, hpa.max_replicas) == (RivalKind.HPA, "ScaledObject/cart", 1, 7)
    assert vpa is not None
    assert vpa.resources == (Resource.CPU, Resource.MEMORY)
    assert narrow is not None
    assert narrow.resources == (Resource.MEMORY,)
    assert keda.target == TargetRef("apps/v1", "Deployment", "cart")


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"spec": None},
        {"spec": {"scaleTargetRef": "cart", "targetRef": "cart"}},
        {"spec": {"scaleTargetRef": {}, "targetRef": {"kind": "Deployment"}}},
        {"spec": {"targetRef": REF, "updatePolicy": "Auto"}},
    ],
)
def test_an_object_of_another_project_that_cannot_be_read_steers_nothing(item: dict[str, Any]) -> None:
    """It must not end the picture of all the others."""
    odd = an_object({}) | item
    odd = odd if item else {"metadata": odd["metadata"]}

    assert where_readable(vpa_of)(odd) is None
    assert where_readable(scaled_object_of)(odd) is None


def test_a_vpa_that_only_recommends_steers_nothing() -> None:
    """Its mode is Off."""
    assert vpa_of(an_object({"targetRef": REF, "updatePolicy": {"updateMode": "Off"}})) is None


@pytest.mark.parametrize(
    ("selector", "is_selected"),
    [
        ({"matchLabels": {"app": "cart"}}, True),
        ({"matchLabels": {"app": "cart", "tier": "back"}}, False),
        ({}, True),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["cart", "till"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["cart"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_a_disruption_budget_selects_pods_as_kubernetes_does(selector: dict[str, Any], is_selected: bool) -> None:
    """By labels and by expressions; without either, every pod."""
    read = budget_of(an_object({"selector": selector}) | {"status": {"disruptionsAllowed": 2}})

    assert read.selects({"app": "cart"}) is is_selected
    assert (read.budget.name, read.budget.allowed) == ("cart", 2)


@pytest.mark.parametrize(
    ("text", "value"), [("250m", 0.25), ("2", 2.0), ("1.5k", 1500.0), ("2Gi", 2.0 * 2**30), ("1e3", 1000.0)]
)
def test_quantities_are_read_as_kubernetes_writes_them(text: str, value: float) -> None:
    """In base units."""
    assert quantity(text) == value


def test_demand_can_be_the_value_of_a_query() -> None:
    """It has no unit that is known, so the object says what one replica carries."""
    metric, target = {"query": "sum(jobs_waiting)"}, {"averageValue": "30"}
    read = autoscaler_of(
        an_object({"targetRef": REF, "horizontal": {"maxReplicas": 9, "metric": metric, "target": target}})
    )

    assert (read.resource, read.query, read.target_value) == (Resource.CUSTOM, "sum(jobs_waiting)", 30.0)
    assert not read.problem


@pytest.mark.parametrize(
    "horizontal",
    [
        {"metric": {"query": "sum(jobs)"}},
        {"metric": {"query": "sum(jobs)"}, "target": {"averageUtilization": 80}},
        {"metric": {"query": "sum(jobs)", "resource": "cpu"}, "target": {"averageValue": 3}},
        {"metric": {"resource": "custom"}},
    ],
)
def test_a_query_that_an_older_schema_let_in_by_half_is_not_followed(horizontal: dict[str, Any]) -> None:
    """Without what one replica carries, or beside a resource, nothing can be decided from it."""
    assert autoscaler_of(an_object({"targetRef": REF, "horizontal": {"maxReplicas": 9} | horizontal})).problem


def test_an_sla_may_be_prices_and_an_indicator() -> None:
    """In base units: seconds, shares."""

    def read(**sla: Any) -> PredictiveAutoscaler:
        return autoscaler_of(an_object({"targetRef": REF, "sla": sla, "horizontal": {"maxReplicas": 9}}))

    by_query = read(latency={"query": "slow", "thresholdSeconds": 0.25}, prices={"replicaHour": 1, "violatedMinute": 2})
    assert by_query.indicator == Indicator(IndicatorKind.LATENCY, 0.25, query="slow")
    assert by_query.prices == Prices(1.0, 2.0)
    by_histogram = read(latency={"histogram": "took", "percentile": 95, "thresholdSeconds": 1}).indicator
    assert by_histogram == Indicator(IndicatorKind.LATENCY, 1.0, histogram="took", percentile=95.0)
    available = read(availability={"query": "good", "targetPercent": 99.5}).indicator
    assert available is not None
    assert available.kind is IndicatorKind.AVAILABILITY
    assert available.bound == pytest.approx(0.995)


@pytest.mark.parametrize(
    ("sla", "named"),
    [
        ({"latency": {"thresholdSeconds": 1}}, "exactly one of query and histogram"),
        ({"latency": {"query": "a"}}, "thresholdSeconds"),
        ({"latency": {"query": "a", "thresholdSeconds": 1}, "availability": {"query": "b"}}, "give one of them"),
        ({"prices": {"replicaHour": 0, "violatedMinute": 1}}, "prices must be above 0"),
        ({"prices": {"replicaHour": 100, "violatedMinute": 1}}, "a percentile of 37.5"),
    ],
)
def test_an_sla_that_cannot_be_followed_is_a_problem(sla: dict[str, Any], named: str) -> None:
    """Where an older schema let it in."""
    assert named in autoscaler_of(an_object({"targetRef": REF, "sla": sla, "horizontal": {"maxReplicas": 9}})).problem
