"""Which running pods are resized in place to what is recommended, and why others are left alone.

A pod is resized where a container requests more than the tolerance away from the target or lies outside the bounds.
Memory is never cut below what is used and a tenth, and nothing is cut while its error budget burns. No pod may change
its quality of service class, as the API server refuses that: limits stay as they are and a request never exceeds one,
but for Guaranteed pods, whose limits move with their requests; there CPU is not cut below what is used either, as a
limit throttles. What a node answered that it cannot do now is not asked again for a while. Containers that would be
restarted are left alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoscaler.cluster.containers import NO_AMOUNTS, SIZED, Amounts, ContainerState, PodState
from autoscaler.decisions.requests import OBSERVED_MARGIN, RequestRange, rounded_up
from predictor.usage.panel import Resource

Recommended = Mapping[str, Mapping[Resource, RequestRange]]
"""What is recommended by container; a resource that is missing is left alone."""

ROUNDING = 1e-9
"""Relative excess over the tolerance that is the arithmetic's."""
IN_PROGRESS, DEFERRED, INFEASIBLE = "InProgress", "Deferred", "Infeasible"
GUARANTEED, BURSTABLE = "Guaranteed", "Burstable"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeRules:
    """What holds for every pod."""

    tolerance: float = 0.1
    """Relative difference from the target that is not worth a resize."""
    retry_seconds: float = 600.0
    """A pod whose node could not do it is asked again after this long."""


@dataclass(frozen=True, slots=True)
class ContainerResize:
    """New requests of one container; None in `after` leaves a resource as it is."""

    name: str
    before: Amounts
    after: Amounts
    with_limits: bool = False
    """Whether the limits become the same."""

    @property
    def growth(self) -> float:
        """By what part of it the request that grows most does; negative where all are cut."""
        changes = ((self.before.of(r) or 0.0, self.after.of(r)) for r in SIZED)
        return max((new - old) / max(old, 1e-9) for old, new in changes if new is not None)


@dataclass(frozen=True, slots=True)
class PodResize:
    """New requests for one pod."""

    pod: PodState
    containers: tuple[ContainerResize, ...]

    @property
    def growth(self) -> float:
        """Of the container that grows most; a pod that grows anywhere is urgent."""
        return max(each.growth for each in self.containers)


@dataclass(frozen=True, slots=True)
class PodsReview:
    """What is to become of a workload's pods."""

    resizes: tuple[PodResize, ...] = ()
    """The most urgent first: those that grow, by how much."""
    up_to_date: int = 0
    pending: tuple[PodState, ...] = ()
    """Those with a resize that their node has not carried out."""
    left_alone: tuple[tuple[str, str], ...] = ()
    """Name and why, of pods that are away from the target and must not be resized."""

    def count(self, reason: str) -> int:
        """How many wait for that reason."""
        return sum(1 for pod in self.pending if pod.pending is not None and pod.pending.reason == reason)


def review_pods(
    pods: Sequence[PodState],
    recommended: Recommended,
    in_use: Mapping[str, Amounts],
    rules: ResizeRules,
    now_seconds: float,
    *,
    cuts_wait_for: str = "",
) -> PodsReview:
    """What is to become of the running pods; `in_use` is the most that a container uses now in any pod.

    `cuts_wait_for` is why no request may be cut now, as while an error budget burns; empty where they may.
    """
    resizes: list[PodResize] = []
    pending: list[PodState] = []
    left_alone: list[tuple[str, str]] = []
    up_to_date = 0
    for pod in pods:
        if not pod.is_running:
            continue
        waits = pod.pending
        if waits is not None:
            pending.append(pod)
            if waits.reason == IN_PROGRESS or now_seconds - waits.since_seconds < rules.retry_seconds:
                continue
        changes, why = _changes(pod, recommended, in_use, rules, cuts_wait_for)
        if pod.is_oversold and (changes or why):
            changes, why = (), "foresize webhook changed its requests, as its node is oversold"
        elif changes or why:
            why = _refused_class(pod, changes) or why
        if why:
            left_alone.append((pod.name, why))
        elif changes:
            resizes.append(PodResize(pod, changes))
        elif waits is None:
            up_to_date += 1
    ordered = sorted(resizes, key=lambda each: (-each.growth, each.pod.name))
    return PodsReview(tuple(ordered), up_to_date, tuple(pending), tuple(left_alone))


def _changes(
    pod: PodState, recommended: Recommended, in_use: Mapping[str, Amounts], rules: ResizeRules, cuts_wait_for: str
) -> tuple[tuple[ContainerResize, ...], str]:
    """What would change in a pod; where nothing can and something should, why not."""
    changes: list[ContainerResize] = []
    reasons: list[str] = []
    is_guaranteed = pod.qos == GUARANTEED
    for container in pod.containers:
        after = Amounts()
        for resource, wanted in recommended.get(container.name, {}).items():
            used = in_use.get(container.name, NO_AMOUNTS).of(resource)
            target, why = _target(container, resource, wanted, used, is_guaranteed=is_guaranteed)
            current = container.requests.of(resource)
            if cuts_wait_for and current is not None and target < current:
                target, why = current, cuts_wait_for
            if not _is_away(container.requests.of(resource), target, wanted, rules.tolerance):
                if why and _is_away(container.requests.of(resource), wanted.target, wanted, rules.tolerance):
                    reasons.append(why)
                continue
            if resource in container.restarts_for:
                reasons.append(f"its resizePolicy restarts container {container.name} for {resource.value}")
                continue
            if is_guaranteed and container.requests.of(resource) != container.limits.of(resource):
                reasons.append(f"it is a Guaranteed pod by what the pod requests, not by container {container.name}")
                continue
            after = after.having(resource, target)
        if after != Amounts():
            changes.append(ContainerResize(container.name, container.requests, after, with_limits=is_guaranteed))
    return tuple(changes), "" if changes else "; ".join(dict.fromkeys(reasons))


def _target(
    container: ContainerState, resource: Resource, wanted: RequestRange, in_use: float | None, *, is_guaranteed: bool
) -> tuple[float, str]:
    """What can be requested now instead of the target, and why it is another amount."""
    target, why = wanted.target, ""
    current, limit = container.requests.of(resource), container.limits.of(resource)
    if (resource is Resource.MEMORY or is_guaranteed) and current is not None and target < current:
        least = current if in_use is None else rounded_up(OBSERVED_MARGIN * in_use, resource)
        if target < least:
            target = min(least, current)
            why = f"container {container.name} uses too much {resource.value} to cut its request"
    if limit is not None and target > limit and not is_guaranteed:
        target, why = limit, f"the {resource.value} limit of container {container.name} is below its target"
    return target, why


def _is_away(current: float | None, target: float, wanted: RequestRange, tolerance: float) -> bool:
    """Whether a request is worth a change to the target."""
    if current is None or current <= 0:
        return target > 0
    if current == target:
        return False
    is_far = abs(current - target) > tolerance * current * (1 + ROUNDING)
    return is_far or not min(wanted.lower, target) <= current <= max(wanted.upper, target)


def _refused_class(pod: PodState, changes: Sequence[ContainerResize]) -> str:
    """Why the API server would refuse: the change would make another class of the pod."""
    if pod.qos == BURSTABLE:
        after = {each.name: each.after for each in changes}
        if pod.is_rest_guaranteed and all(_is_guaranteed(c, after.get(c.name, Amounts())) for c in pod.containers):
            return "all its requests would equal their limits, which would make it a Guaranteed pod"
        return ""
    if pod.qos == GUARANTEED:
        return ""
    return "it requests nothing, and a resize may not make another class of it"


def _is_guaranteed(container: ContainerState, after: Amounts) -> bool:
    for resource in SIZED:
        changed = after.of(resource)
        request = container.requests.of(resource) if changed is None else changed
        if request is None or request != container.limits.of(resource):
            return False
    return True
