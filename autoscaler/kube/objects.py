"""API objects to values: what is kept of each kind, and the only place that knows their fields."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from cronsim import CronSimError

from autoscaler.cluster.containers import SIZED, Amounts
from autoscaler.cluster.domains import DomainKind
from autoscaler.cluster.resources import Resources
from autoscaler.controller.autoscalers import (
    PAUSED_ANNOTATION,
    Actuator,
    ContainerPolicy,
    GivenRules,
    Indicator,
    IndicatorKind,
    Mode,
    PredictiveAutoscaler,
    Prices,
    Rival,
    RivalKind,
    ScheduledFloor,
    TargetRef,
    Vertical,
    VerticalMode,
    seconds_of,
)
from autoscaler.controller.ports import DisruptionBudget, TargetWorkload
from autoscaler.controller.quantities import quantity
from autoscaler.decisions.budget import priced_level
from autoscaler.decisions.guardrails import PolicyKind, ScalingPolicy, Select
from predictor.usage.panel import Resource

JsonObject = dict[str, Any]
FIELD_MANAGER = "foresize"
"""Whom the API server notes as the author of what we write."""
GPU = "nvidia.com/gpu"
NOT_PAUSED = frozenset({"", "false", "no", "off", "0"})
"""What the annotation may say without a pause; whatever else it says is taken for one, as a brake must be."""
VERSION_DIGITS = 12
TEMPLATE_HASHES = ("pod-template-hash", "rollouts-pod-template-hash")
"""Labels by which a ReplicaSet's pods show what its own name adds to that of its Deployment or Rollout."""


# --- PredictiveAutoscaler


def autoscaler_of(item: JsonObject) -> PredictiveAutoscaler:
    """The object; one that an older schema let in and that cannot be followed carries its problem."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    horizontal, ref = spec.get("horizontal") or {}, spec.get("targetRef") or {}
    wish = str((metadata.get("annotations") or {}).get(PAUSED_ANNOTATION, ""))
    identity: dict[str, Any] = {
        "namespace": str(metadata["namespace"]),
        "name": str(metadata["name"]),
        "uid": str(metadata["uid"]),
        "generation": int(metadata.get("generation", 0)),
        "target": TargetRef(str(ref.get("apiVersion", "")), str(ref.get("kind", "")), str(ref.get("name", ""))),
        "is_paused": wish.strip().lower() not in NOT_PAUSED,
        "pause_wish": wish,
        "status": status,
    }
    try:
        return PredictiveAutoscaler(**identity, **_wishes(spec, horizontal))
    except (KeyError, ValueError, TypeError, AttributeError, CronSimError) as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__} "
        problem = f"spec cannot be followed: {kind}{error}; apply it again once that is mended"
        return PredictiveAutoscaler(**identity, max_replicas=1, problem=problem)


def _wishes(spec: JsonObject, horizontal: JsonObject) -> dict[str, Any]:
    target, behaviour = horizontal.get("target") or {}, horizontal.get("behavior") or {}
    sla = spec.get("sla") or {}
    percentile, utilisation = sla.get("percentile"), target.get("averageUtilization")
    value = target.get("averageValue")
    metric = horizontal.get("metric") or {}
    query = str(metric.get("query", ""))
    is_learned = sla.get("latency") is not None and not target
    if query and ("resource" in metric or (value is None and not is_learned)):
        raise ValueError("a query needs target.averageValue or, without any target, sla.latency; and no resource")
    if metric.get("resource") == Resource.CUSTOM:
        raise ValueError("the resource 'custom' is what a query gives; give metric.query")
    vertical = _vertical(spec.get("vertical") or {})
    scales = "horizontal" in spec or vertical.mode is VerticalMode.OFF
    return {
        "mode": Mode(spec.get("mode", Mode.OBSERVE)),
        "actuator": Actuator(spec.get("actuator", Actuator.SCALE)),
        "percentile": None if percentile is None else float(percentile),
        "prices": _prices(sla.get("prices")),
        "indicator": _indicator(sla),
        "survives": _survives(sla.get("survive")),
        "min_replicas": int(horizontal.get("minReplicas", 1)),
        "max_replicas": int(horizontal["maxReplicas"]) if scales else 1,
        "scales": scales,
        "resource": Resource.CUSTOM if query else Resource(metric.get("resource", Resource.CPU)),
        "query": query,
        "target_utilisation": None if utilisation is None else int(utilisation) / 100,
        "target_value": None if value is None else quantity(str(value)),
        "up": _rules(behaviour.get("scaleUp") or {}),
        "down": _rules(behaviour.get("scaleDown") or {}),
        "schedule": tuple(
            ScheduledFloor(
                str(each["name"]),
                str(each["start"]),
                float(each["durationSeconds"]),
                int(each["minReplicas"]),
                str(each.get("timeZone", "UTC")),
            )
            for each in spec.get("schedule") or ()
        ),
        "vertical": vertical,
    }


def _prices(given: JsonObject | None) -> Prices | None:
    if given is None:
        return None
    prices = Prices(float(given["replicaHour"]), float(given["violatedMinute"]))
    level = priced_level(prices.replica_hour, prices.violated_minute)
    if level <= 0.5:
        raise ValueError(
            f"sla.prices say a percentile of {100 * level:.3g}; violatedMinute is too low against replicaHour"
        )
    return prices


def _survives(given: JsonObject | None) -> DomainKind | None:
    if given is None:
        return None
    kinds = [kind for name, kind in (("nodes", DomainKind.NODE), ("zones", DomainKind.ZONE)) if given.get(name)]
    if len(kinds) != 1 or int(next(iter(given.values()))) != 1:
        raise ValueError("sla.survive needs exactly one of nodes: 1 and zones: 1")
    return kinds[0]


def _indicator(sla: JsonObject) -> Indicator | None:
    latency, availability = sla.get("latency"), sla.get("availability")
    if latency is not None and availability is not None:
        raise ValueError("sla.latency and sla.availability cannot both count; give one of them")
    if availability is not None:
        share = float(availability["targetPercent"]) / 100
        return Indicator(IndicatorKind.AVAILABILITY, share, query=str(availability["query"]))
    if latency is None:
        return None
    query, histogram = str(latency.get("query", "")), str(latency.get("histogram", ""))
    if bool(query) == bool(histogram):
        raise ValueError("sla.latency needs exactly one of query and histogram")
    threshold, percentile = float(latency["thresholdSeconds"]), float(latency.get("percentile", 99))
    return Indicator(IndicatorKind.LATENCY, threshold, query, histogram, percentile)


def _vertical(given: JsonObject) -> Vertical:
    return Vertical(
        VerticalMode(given.get("mode", VerticalMode.OFF)),
        tuple(
            (
                str(each["name"]),
                ContainerPolicy(
                    is_off=each.get("mode") == "Off",
                    controlled=tuple(Resource(r) for r in each.get("controlledResources", SIZED)),
                    least=amounts_of(each.get("minAllowed")),
                    most=amounts_of(each.get("maxAllowed")),
                ),
            )
            for each in given.get("containers") or ()
        ),
    )


def amounts_of(given: Mapping[str, Any] | None) -> Amounts:
    """Cores and bytes of a list of resources, such as a container's requests."""
    kept = {name: quantity(str(value)) for name, value in (given or {}).items() if name in SIZED}
    return Amounts(kept.get("cpu"), kept.get("memory"))


def _rules(given: JsonObject) -> GivenRules:
    window, tolerance, policies = (given.get(k) for k in ("stabilizationWindowSeconds", "tolerance", "policies"))
    return GivenRules(
        None if window is None else float(window),
        tuple(
            ScalingPolicy(PolicyKind(each["type"]), int(each["value"]), float(each["periodSeconds"]))
            for each in policies or ()
        )
        or None,
        Select(given.get("selectPolicy", Select.MAX)),
        None if tolerance is None else quantity(str(tolerance)),
    )


# --- what is steered


@dataclass(frozen=True, slots=True)
class UncountedTarget:
    """An object that does not say in `spec.replicas` how many it has: not set, or its kind keeps it elsewhere."""

    name: str
    """`namespace/kind/name`."""


def target_of(kind: str) -> Callable[[JsonObject], TargetWorkload | UncountedTarget]:
    """How objects of a kind become targets."""

    def reduce(item: JsonObject) -> TargetWorkload | UncountedTarget:
        metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
        name, replicas = f"{metadata['namespace']}/{kind}/{metadata['name']}", spec.get("replicas")
        if not isinstance(replicas, int):
            return UncountedTarget(name)
        template = (spec.get("template") or {}).get("spec") or {}
        return TargetWorkload(
            name=name,
            uid=str(metadata["uid"]),
            replicas=replicas,
            ready_replicas=int(status.get("readyReplicas") or 0),
            request_per_replica=_requests(template),
            cpu_limit_cores=_cpu_limit(template),
            rollout=_rollout(status),
            version=_version(template),
            node_selector=tuple(sorted((str(k), str(v)) for k, v in (template.get("nodeSelector") or {}).items())),
            containers=tuple(str(each["name"]) for each in template.get("containers") or ()),
            pod_labels=tuple(((spec.get("template") or {}).get("metadata", {}).get("labels") or {}).items()),
            generation=int(metadata.get("generation") or 0),
            is_set_by_us=_is_set_by_us(metadata, "replicas"),
        )

    return reduce


def _version(template: Mapping[str, Any]) -> str:
    """Fingerprint of a pod template's images; empty for a kind that has its template elsewhere."""
    images = sorted({str(each.get("image", "")) for each in template.get("containers") or ()})
    return sha256("\n".join(images).encode()).hexdigest()[:VERSION_DIGITS] if images else ""


def _is_set_by_us(metadata: Mapping[str, Any], field: str) -> bool:
    """Whether we wrote what the field of the spec says: whoever changes a field is its manager from then on.

    When that was the API server does not note for what is written through `scale`.
    """
    return any(
        entry.get("manager") == FIELD_MANAGER and f"f:{field}" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
        for entry in metadata.get("managedFields") or ()
    )


def _rollout(status: Mapping[str, Any]) -> str:
    """What is in progress: pods of more than one version, where the kind counts those of the newest."""
    there, updated = int(status.get("replicas") or 0), status.get("updatedReplicas")
    if status.get("currentRevision") is not None and status.get("currentRevision") == status.get("updateRevision"):
        return ""  # a StatefulSet counts only while it updates
    newest = int(updated or 0)
    if newest >= there:
        return ""
    return f"a rollout is in progress: {newest} of {there} pods are of the new version; none are removed meanwhile"


def _asked(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """`resources` of its containers, and of the init containers that go on running beside them (sidecars)."""
    sidecars = [c for c in pod.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    return [each.get("resources") or {} for each in [*(pod.get("containers") or ()), *sidecars]]


def _cpu_limit(pod: Mapping[str, Any]) -> float:
    """Cores that one pod may use, of those of its containers that have a limit."""
    return sum(quantity(str((each.get("limits") or {}).get("cpu", "0"))) for each in _asked(pod))


def _requests(pod: Mapping[str, Any]) -> Resources:
    """What one pod requests."""
    total = Resources()
    for resources in _asked(pod):
        # Extended resources cannot be overcommitted: their limit is their request.
        wanted = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        total += Resources(
            cpu_cores=quantity(str(wanted.get("cpu", "0"))),
            memory_bytes=quantity(str(wanted.get("memory", "0"))),
            gpu_devices=quantity(str(wanted.get(GPU, "0"))),
        )
    return total


@dataclass(frozen=True, slots=True)
class ReadyPod:
    """How long one pod took to get Ready."""

    workload: str
    """`namespace/kind/name` of what it belongs to."""
    created_seconds: float
    ready_seconds: float
    """From its creation to Ready."""


def ready_pod_of(item: JsonObject) -> ReadyPod | None:
    """The pod, where it is Ready and never restarted: a container that came back tells nothing of how long it took."""
    metadata, status = item["metadata"], item.get("status") or {}
    ready: JsonObject = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
    restarts = sum(int(c.get("restartCount") or 0) for c in status.get("containerStatuses") or ())
    workload = owner_of(metadata)
    if ready.get("status") != "True" or restarts or not workload or not ready.get("lastTransitionTime"):
        return None
    created = seconds_of(metadata["creationTimestamp"])
    return ReadyPod(workload, created, max(0.0, seconds_of(ready["lastTransitionTime"]) - created))


def owner_of(metadata: Mapping[str, Any]) -> str:
    """The workload that a pod belongs to, `namespace/kind/name`; empty for one of its own."""
    owner = next((o for o in metadata.get("ownerReferences") or () if o.get("controller")), None)
    if owner is None:
        return ""
    kind, name = str(owner["kind"]), str(owner["name"])
    if kind == "ReplicaSet":
        labels = metadata.get("labels") or {}
        for label, above in zip(TEMPLATE_HASHES, ("Deployment", "Rollout"), strict=True):
            if label in labels and name.endswith(f"-{labels[label]}"):
                kind, name = above, name.removesuffix(f"-{labels[label]}")
                break
    return f"{metadata['namespace']}/{kind}/{name}"


@dataclass(frozen=True, slots=True)
class SelectingBudget:
    """A PodDisruptionBudget and whom it is about."""

    namespace: str
    budget: DisruptionBudget
    labels: frozenset[tuple[str, str]]
    expressions: tuple[tuple[str, str, tuple[str, ...]], ...]
    """Key, operator and values, as label selectors have them."""

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether pods with these labels are among its pods."""
        return self.labels <= labels.items() and all(_meets(labels, *each) for each in self.expressions)


def budget_of(item: JsonObject) -> SelectingBudget:
    """A PodDisruptionBudget."""
    metadata, selector, status = item["metadata"], item["spec"].get("selector") or {}, item.get("status") or {}
    return SelectingBudget(
        str(metadata["namespace"]),
        DisruptionBudget(str(metadata["name"]), int(status.get("disruptionsAllowed") or 0)),
        frozenset((selector.get("matchLabels") or {}).items()),
        tuple(
            (str(each["key"]), str(each["operator"]), tuple(each.get("values") or ()))
            for each in selector.get("matchExpressions") or ()
        ),
    )


def _meets(labels: Mapping[str, str], key: str, operator: str, values: tuple[str, ...]) -> bool:
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


# --- what else steers it


def hpa_of(item: JsonObject) -> Rival:
    """A HorizontalPodAutoscaler."""
    spec = item["spec"]
    return _rival(
        RivalKind.HPA,
        item,
        spec["scaleTargetRef"],
        min_replicas=int(spec.get("minReplicas", 1)),
        max_replicas=int(spec["maxReplicas"]),
        is_set_by_us=_is_set_by_us(item["metadata"], "minReplicas"),
    )


def vpa_of(item: JsonObject) -> Rival | None:
    """A VerticalPodAutoscaler that changes pods; one that only recommends steers nothing."""
    spec = item["spec"]
    if (spec.get("updatePolicy") or {}).get("updateMode", "Auto") == "Off" or not spec.get("targetRef"):
        return None
    policies = [p for p in (spec.get("resourcePolicy") or {}).get("containerPolicies") or () if p.get("mode") != "Off"]
    named = [p.get("controlledResources") or ["cpu", "memory"] for p in policies] or [["cpu", "memory"]]
    resources = sorted({Resource(r) for names in named for r in names if r in set(Resource)})
    return _rival(RivalKind.VPA, item, spec["targetRef"], resources=tuple(resources))


def scaled_object_of(item: JsonObject) -> Rival:
    """KEDA's ScaledObject; without a kind its target is a Deployment."""
    return _rival(
        RivalKind.SCALED_OBJECT, item, {"kind": "Deployment", "apiVersion": "apps/v1"} | item["spec"]["scaleTargetRef"]
    )


def where_readable(reduce: Callable[[JsonObject], Rival | None]) -> Callable[[JsonObject], Rival | None]:
    """The same for kinds of other projects: one that does not say what it steers steers nothing.

    Their schemas are not ours, and one odd object in one namespace must not blind the controller for all.
    """

    def reduced(item: JsonObject) -> Rival | None:
        try:
            return reduce(item)
        except (KeyError, TypeError, AttributeError, ValueError):
            return None

    return reduced


def _rival(kind: RivalKind, item: JsonObject, ref: Mapping[str, Any], **more: Any) -> Rival:
    metadata = item["metadata"]
    owner = next((o for o in metadata.get("ownerReferences") or () if o.get("controller")), None)
    return Rival(
        kind,
        str(metadata["namespace"]),
        str(metadata["name"]),
        TargetRef(str(ref.get("apiVersion", "")), str(ref["kind"]), str(ref["name"])),
        uid=str(metadata["uid"]),
        owner="" if owner is None else f"{owner['kind']}/{owner['name']}",
        **more,
    )
