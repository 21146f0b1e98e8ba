"""The Kubernetes HorizontalPodAutoscaler (autoscaling/v2), to be compared with and to fall back on.

Re-implemented from its documented algorithm and the semantics of pkg/controller/podautoscaler: which pods count, the
ratio and its tolerance, what is assumed of pods without a metric, then guardrails.py. An HPA that has no `behavior`
field is treated as one with the default behaviour; the real one then adds a replica or two less from 1 to 3 replicas.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import NamedTuple

from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.decisions.guardrails import Behaviour, Guarded, ReplicaMemory, guarded, watched

CPU_INITIALISATION_SECONDS = 300.0
INITIAL_READINESS_SECONDS = 30.0
"""Defaults of kube-controller-manager: how long a young pod's CPU is doubted, and when it was never ready."""

_NO_METRICS = Hold(Reason(ReasonCode.NO_OBSERVATION, "no metrics for any ready pod"))
_SOME_METRICS_MISSING = Reason(
    ReasonCode.NO_OBSERVATION,
    "a metric is missing and the others ask for fewer replicas: not scaling down on half a view",
)
_DISABLED = Reason(ReasonCode.SCALING_DISABLED, "scaled to 0 by somebody while the minimum is above 0")


class PodPhase(StrEnum):
    """Where a pod is in its life, as far as the HPA cares."""

    PENDING = "Pending"
    RUNNING = "Running"
    FAILED = "Failed"
    DELETED = "Deleted"
    """Has a deletion timestamp."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSample:
    """One pod, and its metric where there is one."""

    request: float
    """In the base unit of the metric."""
    phase: PodPhase = PodPhase.RUNNING
    is_ready: bool | None = True
    """None: the pod has no Ready condition yet."""
    started_at_seconds: float | None = 0.0
    """None: the kubelet has not reported a start."""
    ready_changed_at_seconds: float = 0.0
    usage: float | None = None
    """None: the metrics server knows nothing of it."""
    sampled_at_seconds: float = 0.0
    window_seconds: float = 30.0


class PodGroups(NamedTuple):
    """Pods sorted as the HPA does, with what it needs of each group."""

    ready: int
    usage: float
    """Sum over the ready pods."""
    request: float
    """Sum over the ready pods."""
    missing: int = 0
    request_missing: float = 0.0
    ignored: int = 0
    request_ignored: float = 0.0


def grouped(pods: Iterable[PodSample], now_seconds: float, *, is_cpu: bool = True) -> PodGroups:
    """Pods counted as ready, missing (no metric) or ignored (pending, or too young for their CPU to be believed).

    Failed and deleted pods are left out altogether. The time rules hold for CPU only.
    """
    ready = missing = ignored = 0
    usage = request = request_missing = request_ignored = 0.0
    for pod in pods:
        if pod.phase in (PodPhase.DELETED, PodPhase.FAILED):
            continue
        if pod.phase is PodPhase.PENDING or (pod.usage is not None and is_cpu and _is_young(pod, now_seconds)):
            ignored += 1
            request_ignored += pod.request
        elif pod.usage is None:
            missing += 1
            request_missing += pod.request
        else:
            ready += 1
            usage += pod.usage
            request += pod.request
    return PodGroups(ready, usage, request, missing, request_missing, ignored, request_ignored)


def utilisation_replicas(groups: PodGroups, current: int, target_percent: int, behaviour: Behaviour) -> int | Hold:
    """Replicas for a `Resource` metric with `averageUtilization`: usage as a share of requests.

    Utilisation is a whole number of percent, cut off, as in the HPA.
    """
    if groups.ready == 0 or groups.request <= 0:
        return _NO_METRICS
    ratio = _whole_percent(groups.usage, groups.request) / target_percent
    if ratio == 1.0:
        return current
    grows = ratio > 1.0
    if groups.missing == 0 and not (groups.ignored and grows):
        return current if behaviour.within_tolerance(ratio) else ceil(ratio * groups.ready)
    counted, usage, request = groups.ready, groups.usage, groups.request
    if groups.missing:
        counted += groups.missing
        request += groups.request_missing
        if ratio < 1.0:
            usage += groups.request_missing * max(100, target_percent) / 100
    if grows and groups.ignored:
        counted += groups.ignored
        request += groups.request_ignored
    return _rechecked(ratio, _whole_percent(usage, request) / target_percent, counted, current, behaviour)


def average_usage_replicas(groups: PodGroups, current: int, target: float, behaviour: Behaviour) -> int | Hold:
    """Replicas for a `Resource` or `Pods` metric with `averageValue`: mean usage per pod against `target`."""
    if groups.ready == 0:
        return _NO_METRICS
    ratio = groups.usage / groups.ready / target
    grows = ratio > 1.0
    if groups.missing == 0 and not (groups.ignored and grows):
        return current if behaviour.within_tolerance(ratio) else ceil(ratio * groups.ready)
    counted = groups.ready + groups.missing + (groups.ignored if grows else 0)
    usage = groups.usage + (groups.missing * target if ratio < 1.0 else 0.0)
    return _rechecked(ratio, usage / counted / target, counted, current, behaviour)


def average_value_replicas(total: float, target: float, current: int, behaviour: Behaviour) -> int:
    """Replicas for an `External` or `Object` metric with `AverageValue`: `total` shared among the replicas."""
    if current > 0 and behaviour.within_tolerance(total / (target * current)):
        return current
    return ceil(total / target)


def value_replicas(value: float, target: float, current: int, ready: int, behaviour: Behaviour) -> int:
    """Replicas for an `External` or `Object` metric with `Value`: a figure that more replicas bring down."""
    ratio = value / target
    if current == 0:
        return ceil(ratio)
    return current if behaviour.within_tolerance(ratio) else ceil(ratio * ready)


def hpa_replicas(
    current: int,
    proposals: Sequence[int | Hold],
    bounds: tuple[int, int],
    memory: ReplicaMemory,
    behaviour: Behaviour,
    *,
    now_seconds: float,
) -> Guarded:
    """What the HPA would set `spec.replicas` to: the largest proposal (one per metric), after the guardrails.

    Replicas outside the bounds (minimum, maximum) are first brought to the bound, whatever the metrics say. Where a
    metric failed, the others may add replicas but not remove any.
    """
    minimum, maximum = bounds
    memory = watched(memory, current, behaviour, now_seconds)
    if current == 0 and minimum > 0:
        return Guarded(0, (_DISABLED,), memory)
    if current > maximum:
        return Guarded(maximum, (Reason(ReasonCode.TOO_MANY_REPLICAS, f"the maximum is {maximum}"),), memory)
    if current < minimum:
        return Guarded(minimum, (Reason(ReasonCode.TOO_FEW_REPLICAS, f"the minimum is {minimum}"),), memory)
    answers = [proposal for proposal in proposals if not isinstance(proposal, Hold)]
    if not answers:
        return Guarded(current, tuple(p.reason for p in proposals if isinstance(p, Hold)), memory)
    recommended = max(answers)
    if len(answers) < len(proposals) and recommended < current:
        return Guarded(current, (_SOME_METRICS_MISSING,), memory)
    return guarded(current, recommended, bounds, memory, behaviour, now_seconds=now_seconds)


def _is_young(pod: PodSample, now_seconds: float) -> bool:
    if pod.is_ready is None or pod.started_at_seconds is None:
        return True
    if pod.started_at_seconds + CPU_INITIALISATION_SECONDS > now_seconds:
        return not pod.is_ready or pod.sampled_at_seconds < pod.ready_changed_at_seconds + pod.window_seconds
    return not pod.is_ready and pod.started_at_seconds + INITIAL_READINESS_SECONDS > pod.ready_changed_at_seconds


def _whole_percent(usage: float, request: float) -> int:
    """Usage as a percentage of request, cut off; the HPA counts in whole millicores, so 69.999… is 70 to it."""
    return int(usage * 100 / request + 1e-6)


def _rechecked(ratio: float, new_ratio: float, counted: int, current: int, behaviour: Behaviour) -> int:
    """Replicas from the ratio with assumed pods in it, unless that turns the direction round."""
    if behaviour.within_tolerance(new_ratio) or (ratio - 1.0) * (new_ratio - 1.0) < 0:
        return current
    replicas = ceil(new_ratio * counted)
    if (replicas - current) * (new_ratio - 1.0) < 0:
        return current
    return replicas
