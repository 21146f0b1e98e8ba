"""Whatever an object asks for and cannot have, the API server refuses when it is applied, and names the field."""

import copy
import itertools
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.controlplane import ApiError, ControlPlane
from tests.support.kube_api import JsonObject
from tests.support.running import API, CRD, an_object

pytestmark = pytest.mark.e2e
EVENT = {"name": "sale", "start": "0 8 * * FRI", "durationSeconds": 3600, "minReplicas": 5}
HORIZONTAL = "spec.horizontal"
PRICES = {"replicaHour": 0.2, "violatedMinute": 1.5}
LATENCY = {"query": "max(latency_seconds)", "thresholdSeconds": 0.25}
HISTOGRAM = {"histogram": "http_request_duration_seconds", "thresholdSeconds": 0.25}
AVAILABILITY = {"query": "sum(good) / sum(all)", "targetPercent": 99.9}
POLICY = {"type": "Pods", "value": 4, "periodSeconds": 15}
UP, DOWN = f"{HORIZONTAL}.behavior.scaleUp", f"{HORIZONTAL}.behavior.scaleDown"


@pytest.fixture(scope="module")
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """One for all refusals; nothing gets into it but what is allowed."""
    control_plane.apply(CRD)
    with control_plane.namespace("rules") as made:
        yield made


def with_value(manifest: JsonObject, path: str, value: Any) -> JsonObject:
    """The manifest with a value at a path such as `spec.horizontal.minReplicas`; None takes the field out."""
    changed = copy.deepcopy(manifest)
    *folders, last = path.split(".")
    inner = changed
    for folder in folders:
        inner = inner.setdefault(folder, {})
    if value is None:
        inner.pop(last, None)
    else:
        inner[last] = value
    return changed


def created(plane: ControlPlane, namespace: str, path: str, value: Any) -> JsonObject:
    """An otherwise good object with that value, as the API server has made it."""
    manifest = with_value(an_object(namespace, f"o-{secrets.token_hex(4)}"), path, value)
    return plane.api.create(f"{API}/namespaces/{namespace}/predictiveautoscalers", manifest)


def a_schedule(**changes: Any) -> list[JsonObject]:
    """One event, with something else in it."""
    return [EVENT | changes]


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("spec.targetRef", None, "spec.targetRef"),
        ("spec.targetRef.apiVersion", "", "spec.targetRef.apiVersion"),
        ("spec.targetRef.kind", None, "spec.targetRef.kind"),
        ("spec.targetRef.name", "", "spec.targetRef.name"),
        ("spec.mode", "Automatic", "spec.mode"),
        ("spec.actuator", "Replicas", "spec.actuator"),
        ("spec.sla.percentile", 50, "spec.sla.percentile"),
        ("spec.sla.percentile", 100, "spec.sla.percentile"),
        ("spec.sla.percentile", "abc", "spec.sla.percentile"),
        ("spec.sla", {"percentile": 99, "prices": PRICES}, "spec.sla.prices"),
        ("spec.sla.prices", {"replicaHour": 1}, "spec.sla.prices.violatedMinute"),
        ("spec.sla.prices", PRICES | {"replicaHour": 0}, "spec.sla.prices.replicaHour"),
        ("spec.sla.prices", PRICES | {"violatedMinute": -1}, "spec.sla.prices.violatedMinute"),
        ("spec.sla.prices", {"replicaHour": 60, "violatedMinute": 1}, "spec.sla.prices.violatedMinute"),
        ("spec.sla", {"latency": LATENCY, "availability": AVAILABILITY}, "spec.sla.availability"),
        ("spec.sla.latency", {"query": "up"}, "spec.sla.latency.thresholdSeconds"),
        ("spec.sla.latency", LATENCY | {"thresholdSeconds": 0}, "spec.sla.latency.thresholdSeconds"),
        ("spec.sla.latency", {"thresholdSeconds": 1}, "spec.sla.latency"),
        ("spec.sla.latency", LATENCY | {"histogram": "http_seconds"}, "spec.sla.latency"),
        ("spec.sla.latency", LATENCY | {"percentile": 99}, "spec.sla.latency.percentile"),
        ("spec.sla.latency", HISTOGRAM | {"percentile": 100}, "spec.sla.latency.percentile"),
        ("spec.sla.latency", HISTOGRAM | {"histogram": "a) or vector(0"}, "spec.sla.latency.histogram"),
        ("spec.sla.latency", LATENCY | {"query": ""}, "spec.sla.latency.query"),
        ("spec.sla.availability", {"query": "up"}, "spec.sla.availability.targetPercent"),
        ("spec.sla.availability", AVAILABILITY | {"targetPercent": 101}, "spec.sla.availability.targetPercent"),
        ("spec.sla.availability", AVAILABILITY | {"query": "x" * 2001}, "spec.sla.availability.query"),
        ("spec.sla.survive", {}, "spec.sla.survive"),
        ("spec.sla.survive", {"nodes": 1, "zones": 1}, "spec.sla.survive"),
        ("spec.sla.survive", {"nodes": 2}, "spec.sla.survive.nodes"),
        ("spec.horizontal", None, "spec.horizontal"),
        (f"{HORIZONTAL}.maxReplicas", None, f"{HORIZONTAL}.maxReplicas"),
        (f"{HORIZONTAL}.maxReplicas", 0, f"{HORIZONTAL}.maxReplicas"),
        (f"{HORIZONTAL}.maxReplicas", 2_000_000, f"{HORIZONTAL}.maxReplicas"),
        (f"{HORIZONTAL}.minReplicas", 0, f"{HORIZONTAL}.minReplicas"),
        (f"{HORIZONTAL}.minReplicas", 21, f"{HORIZONTAL}.minReplicas"),
        (f"{HORIZONTAL}.minReplicas", 1.5, f"{HORIZONTAL}.minReplicas"),
        (f"{HORIZONTAL}.metric.resource", "disk", f"{HORIZONTAL}.metric.resource"),
        (f"{HORIZONTAL}.metric", {}, f"{HORIZONTAL}.metric"),
        (f"{HORIZONTAL}.metric.query", "sum(jobs)", f"{HORIZONTAL}.metric"),
        (f"{HORIZONTAL}.metric", {"query": ""}, f"{HORIZONTAL}.metric.query"),
        (f"{HORIZONTAL}.metric", {"query": "x" * 2001}, f"{HORIZONTAL}.metric.query"),
        (f"{HORIZONTAL}.target", {}, f"{HORIZONTAL}.target"),
        (f"{HORIZONTAL}.target", {"averageUtilization": 80, "averageValue": "1G"}, f"{HORIZONTAL}.target"),
        (f"{HORIZONTAL}.target", {"averageUtilization": 0}, f"{HORIZONTAL}.target.averageUtilization"),
        (f"{HORIZONTAL}.target", {"averageUtilization": 101}, f"{HORIZONTAL}.target.averageUtilization"),
        (f"{HORIZONTAL}.target", {"averageValue": "much"}, f"{HORIZONTAL}.target.averageValue"),
        (f"{HORIZONTAL}.target", {"averageValue": "0"}, f"{HORIZONTAL}.target.averageValue"),
        (f"{HORIZONTAL}.target", {"averageValue": -1}, f"{HORIZONTAL}.target.averageValue"),
        (f"{UP}.tolerance", 2, f"{UP}.tolerance"),
        (f"{UP}.tolerance", "-0.1", f"{UP}.tolerance"),
        (f"{DOWN}.tolerance", "a bit", f"{DOWN}.tolerance"),
        (f"{DOWN}.stabilizationWindowSeconds", -1, f"{DOWN}.stabilizationWindowSeconds"),
        (f"{DOWN}.stabilizationWindowSeconds", 3601, f"{DOWN}.stabilizationWindowSeconds"),
        (f"{UP}.selectPolicy", "Average", f"{UP}.selectPolicy"),
        (f"{UP}.policies", [], f"{UP}.policies"),
        (f"{UP}.policies", [POLICY | {"type": "Nodes"}], f"{UP}.policies[0].type"),
        (f"{UP}.policies", [POLICY | {"value": 0}], f"{UP}.policies[0].value"),
        (f"{DOWN}.policies", [POLICY | {"periodSeconds": 0}], f"{DOWN}.policies[0].periodSeconds"),
        (f"{DOWN}.policies", [POLICY | {"periodSeconds": 1801}], f"{DOWN}.policies[0].periodSeconds"),
        ("spec.schedule", a_schedule(name=""), "spec.schedule[0].name"),
        ("spec.schedule", a_schedule(start="every friday"), "spec.schedule[0].start"),
        ("spec.schedule", a_schedule(start="0 8 * * FRI 2026"), "spec.schedule[0].start"),
        ("spec.schedule", a_schedule(start="61 8 * * FRI"), "spec.schedule[0].start"),
        ("spec.schedule", a_schedule(start="0 24 * * FRI"), "spec.schedule[0].start"),
        ("spec.schedule", a_schedule(start="0 8 32 * *"), "spec.schedule[0].start"),
        ("spec.schedule", a_schedule(start="0 8 * 13 *"), "spec.schedule[0].start"),
        ("spec.schedule", a_schedule(start="0 8 31 2 *"), "spec.schedule[0].start"),
        ("spec.schedule", a_schedule(start="0 8 30,31 FEB *"), "spec.schedule[0].start"),
        ("spec.schedule", a_schedule(start="0 8 31 4,6,9,11 *"), "spec.schedule[0].start"),
        ("spec.schedule", a_schedule(start="0 8 * * FRY"), "spec.schedule[0].start"),
        ("spec.schedule", a_schedule(timeZone="Mars/Olympus"), "spec.schedule[0].timeZone"),
        ("spec.schedule", a_schedule(timeZone="+01:00"), "spec.schedule[0].timeZone"),
        ("spec.schedule", a_schedule(timeZone="Local"), "spec.schedule[0].timeZone"),
        ("spec.schedule", a_schedule(timeZone=""), "spec.schedule[0].timeZone"),
        ("spec.schedule", a_schedule(durationSeconds=59), "spec.schedule[0].durationSeconds"),
        ("spec.schedule", a_schedule(durationSeconds=2_678_401), "spec.schedule[0].durationSeconds"),
        ("spec.schedule", a_schedule(minReplicas=0), "spec.schedule[0].minReplicas"),
        ("spec.schedule", a_schedule(minReplicas=21), "spec.schedule"),
        ("spec.schedule", [EVENT, EVENT], "spec.schedule[1]"),
    ],
)
def test_a_field_that_cannot_be_followed_is_refused_by_its_name(
    control_plane: ControlPlane, namespace: str, path: str, value: Any, named: str
) -> None:
    """The whole object is refused; the message says which field it is, and nothing that a reader must decode."""
    with pytest.raises(ApiError) as refusal:
        created(control_plane, namespace, path, value)

    assert (refusal.value.status, named in refusal.value.message) == (422, True), refusal.value


def test_requests_need_to_be_told_what_a_replica_carries(control_plane: ControlPlane, namespace: str) -> None:
    """No pod requests them, nor the value of a query, so there is nothing to take a share of."""
    metrics, targets = ({"resource": "requests"}, {"query": "sum(jobs)"}), (None, {"averageUtilization": 80})
    for metric, target in itertools.product(metrics, targets):
        manifest = with_value(an_object(namespace, "asked"), f"{HORIZONTAL}.metric", metric)
        with pytest.raises(ApiError) as refusal:
            control_plane.apply(with_value(manifest, f"{HORIZONTAL}.target", target))

        assert f"{HORIZONTAL}.target" in refusal.value.message
        assert "needs averageValue" in refusal.value.message


def test_what_replicas_carry_is_learned_where_latency_is_promised(control_plane: ControlPlane, namespace: str) -> None:
    """Requests and queries then need no target, and still cannot have a share of what pods request."""
    for number, metric in enumerate(({"resource": "requests"}, {"query": "sum(jobs)"})):
        manifest = with_value(an_object(namespace, f"learns-{number}"), f"{HORIZONTAL}.metric", metric)
        promised = with_value(manifest, "spec.sla", {"latency": LATENCY})
        control_plane.apply(with_value(promised, f"{HORIZONTAL}.target", None))
        with pytest.raises(ApiError) as refusal:
            control_plane.apply(with_value(promised, f"{HORIZONTAL}.target", {"averageUtilization": 80}))
        assert "needs averageValue" in refusal.value.message


def test_a_query_takes_the_place_of_a_resource_and_back(control_plane: ControlPlane, namespace: str) -> None:
    """What was defaulted is not left beside it."""
    plain = with_value(an_object(namespace, "changes"), f"{HORIZONTAL}.metric", None)
    metrics = [
        control_plane.apply(each)["spec"]["horizontal"]["metric"]
        for each in (plain, with_value(plain, f"{HORIZONTAL}.metric", {"query": "sum(jobs)"}), plain)
    ]

    assert metrics == [{"resource": "cpu"}, {"query": "sum(jobs)"}, {"resource": "cpu"}]


def test_the_target_of_an_object_stays_its_target(control_plane: ControlPlane, namespace: str) -> None:
    """What is remembered in its status is about that one."""
    made = control_plane.apply(an_object(namespace, "stays"))
    with pytest.raises(ApiError) as refusal:
        control_plane.apply(with_value(an_object(namespace, "stays"), "spec.targetRef.name", "other"))

    assert made["spec"]["targetRef"]["name"] == "stays"
    assert "spec.targetRef" in refusal.value.message
    assert "cannot be changed" in refusal.value.message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.sla.percentile", 99.9),
        ("spec.sla", {"prices": PRICES, "availability": AVAILABILITY}),
        ("spec.sla", {"percentile": 99, "latency": LATENCY}),
        ("spec.sla.latency", HISTOGRAM),
        ("spec.sla.latency", HISTOGRAM | {"histogram": 'http_seconds{service="web"}', "percentile": 99.9}),
        ("spec.sla.prices", {"replicaHour": 1, "violatedMinute": 1}),
        ("spec.sla.availability", AVAILABILITY | {"targetPercent": 100}),
        (f"{HORIZONTAL}.target", {"averageValue": "500m"}),
        (f"{HORIZONTAL}.metric", {"query": "sum(jobs_waiting)"}),
        (f"{HORIZONTAL}.metric", None),
        (f"{HORIZONTAL}.target", {"averageUtilization": 100}),
        (f"{UP}.tolerance", "0.05"),
        (f"{DOWN}.stabilizationWindowSeconds", 0),
        ("spec.schedule", a_schedule(timeZone="Europe/Berlin", minReplicas=20)),
        ("spec.schedule", a_schedule(start="0 8 31 1,2 *")),
        ("spec.schedule", a_schedule(start="0 8 29 2 *")),
        ("spec.schedule", a_schedule(start="0 8 30 4 *")),
        ("spec.schedule", a_schedule(timeZone="Etc/GMT+3")),
        ("spec.schedule", a_schedule(start="*/15 0-6,22-23 1,15 JAN-mar 1-5")),
        ("spec.schedule", a_schedule(start="5/10 08 L * 5#2")),
        ("spec.schedule", a_schedule(start="0 8 LW 02 sun,7")),
    ],
)
def test_what_can_be_followed_is_let_in(control_plane: ControlPlane, namespace: str, path: str, value: Any) -> None:
    """The rules refuse no more than they must, and the controller reads what they let in."""
    from autoscaler.kube.objects import autoscaler_of

    assert not autoscaler_of(created(control_plane, namespace, path, value)).problem


def test_an_object_may_size_containers_alone(control_plane: ControlPlane, namespace: str) -> None:
    """Without horizontal, if it asks for requests; what only says how many replicas is refused then."""
    for mode in ("Recommend", "InPlace"):
        manifest = with_value(an_object(namespace, f"alone-{mode.lower()}"), HORIZONTAL, None)
        made = control_plane.apply(with_value(manifest, "spec.vertical", {"mode": mode}))
        assert "horizontal" not in made["spec"]

    alone = with_value(with_value(an_object(namespace, "not"), HORIZONTAL, None), "spec.vertical.mode", "Recommend")
    named = (
        ("spec.schedule", [EVENT]),
        ("spec.actuator", "HPAMinReplicas"),
        ("spec.sla", {"latency": LATENCY}),
        ("spec.sla", {"prices": PRICES}),
    )
    for path, value in named:
        with pytest.raises(ApiError) as refusal:
            control_plane.apply(with_value(alone, path, value))
        assert path in refusal.value.message
