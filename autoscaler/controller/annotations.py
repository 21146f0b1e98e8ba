"""A workload's own wishes: the annotations under `foresize.io/`, read once and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.ports import ManagedWorkload
from autoscaler.errors import InvalidAnnotation
from autoscaler.settings import ScalingSettings
from predictor.usage.panel import Resource

PREFIX = "foresize.io/"
KNOWN = ("min-replicas", "max-replicas", "resource", "capacity-per-replica", "paused")
DEMAND_RESOURCES = (Resource.CPU, Resource.REQUESTS, Resource.GPU, Resource.MEMORY)
"""What demand can be; `cpu` where a workload does not say."""


@dataclass(frozen=True, slots=True)
class WorkloadPolicy:
    """What holds for one workload, its annotations over the settings."""

    min_replicas: int
    max_replicas: int
    resource: Resource
    capacity_per_replica: float | Hold
    capacity_source: str
    """Where the capacity comes from, for a person."""
    is_paused: bool


def quantity(text: str) -> float:
    """A Kubernetes quantity such as `500m`, `1.5` or `2Gi` in its base unit. Raises ValueError."""
    from kubernetes.utils import quantity as official

    parse: Any = official.parse_quantity  # it has no types
    value = float(parse(text))
    if not 0 <= value < float("inf"):
        raise ValueError(f"{text!r} is not a finite amount of at least 0")
    return value


def policy_of(workload: ManagedWorkload, settings: ScalingSettings) -> WorkloadPolicy:
    """The workload's policy. Raises InvalidAnnotation that names the annotation, its value and what is accepted."""
    given = workload.annotations
    unknown = sorted(set(given) - set(KNOWN))
    if unknown:
        raise _invalid(unknown[0], given[unknown[0]], "no such annotation; known: " + ", ".join(KNOWN))
    minimum = _count(given, "min-replicas", settings.min_replicas)
    maximum = _count(given, "max-replicas", max(settings.max_replicas, minimum))
    if minimum > maximum:
        name = "min-replicas" if "min-replicas" in given else "max-replicas"
        accepted = f"a minimum of at most the maximum; they are {minimum} and {maximum}"
        raise _invalid(name, given[name], accepted)
    names = ", ".join(r.value for r in DEMAND_RESOURCES)
    chosen = given.get("resource", Resource.CPU.value)
    if chosen not in [r.value for r in DEMAND_RESOURCES]:
        raise _invalid("resource", chosen, names)
    paused = given.get("paused", "false")
    if paused not in ("true", "false"):
        raise _invalid("paused", paused, "true, false")
    resource = Resource(chosen)
    capacity, source = _capacity(workload, resource, settings)
    return WorkloadPolicy(minimum, maximum, resource, capacity, source, paused == "true")


def _capacity(workload: ManagedWorkload, resource: Resource, settings: ScalingSettings) -> tuple[float | Hold, str]:
    name = "capacity-per-replica"
    if name in workload.annotations:
        text = workload.annotations[name]
        try:
            value = quantity(text)
        except ValueError:
            value = 0.0
        if value <= 0:
            raise _invalid(name, text, "a quantity above 0, such as 500m, 1.5 or 2Gi")
        return value, f"annotation {PREFIX}{name}: {text}"
    requested = workload.request_per_replica.amount(resource)
    if requested > 0:
        share = settings.target_utilisation
        return requested * share, f"request of {requested:g} × target utilisation {share:g}"
    if resource is Resource.REQUESTS:
        message = f"what one replica can carry is not known; set the annotation {PREFIX}{name} in requests per second"
    else:
        kind = resource.value
        message = f"its containers request no {kind}; set a {kind} request or the annotation {PREFIX}{name}"
    return Hold(Reason(ReasonCode.NO_CAPACITY, message)), ""


def _count(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1_000_000):
        raise _invalid(name, text, "a whole number of at least 1")
    return int(text)


def _invalid(name: str, value: str, accepted: str) -> InvalidAnnotation:
    return InvalidAnnotation(f"annotation {PREFIX}{name} is {value!r}; accepted: {accepted}")
