"""When no more is sold on a node, and who has to go: what was predicted was wrong, or cannot be known to be right.

In this order: nothing more is sold; if that was not enough at the next look, pods that opted in are evicted, the lowest
priority first and of one priority the youngest, as the least is lost with it. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaler.cluster.nodes import NodePod
from autoscaler.cluster.reasons import Reason, ReasonCode
from predictor.usage.panel import Resource

CALM_SHARE = 0.95
"""A node is calm while its usage is under this share of what is usable."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What is remembered of one node."""

    suspended_since_seconds: float | None = None
    """Since when nothing more is sold on it; None where it is."""
    calm_since_seconds: float | None = None
    """Since when, while suspended, it has been calm."""
    evicted_at_seconds: float | None = None
    """When pods were last evicted from it."""
    reason: Reason | None = None
    """Why it was suspended."""


UNGUARDED = Guard()


@dataclass(frozen=True, slots=True)
class NodeUse:
    """What is measured of a node: usage of all its pods and what of it is usable, by resource in its base unit."""

    usage: Mapping[Resource, float]
    usable: Mapping[Resource, float]
    measured_at_seconds: float
    has_memory_pressure: bool

    def excess(self) -> Reason | None:
        """Why the node is too full; None where it is not."""
        if self.has_memory_pressure:
            return Reason(ReasonCode.NODE_PRESSURE, "the node reports MemoryPressure")
        for resource, used in self.usage.items():
            usable = self.usable.get(resource, float("inf"))
            if used >= usable:
                text = f"{used:.6g} {resource.unit} of {resource.value} are used, {usable:.6g} are usable"
                return Reason(ReasonCode.NODE_FULL, text)
        return None

    def is_calm(self) -> bool:
        """Whether it is so far from being too full that it may be sold again."""
        if self.has_memory_pressure:
            return False
        return all(used < CALM_SHARE * self.usable.get(each, float("inf")) for each, used in self.usage.items())


@dataclass(frozen=True, slots=True)
class GuardDecision:
    """What the guard wants of one node now."""

    guard: Guard
    is_intervention: bool = False
    """Whether selling has just been stopped, or pods go."""
    has_resumed: bool = False
    evict: tuple[NodePod, ...] = ()
    """In the order in which they are to go."""


def guarded(
    guard: Guard,
    use: NodeUse,
    pods: Iterable[NodePod],
    *,
    usage_of_pod: Mapping[str, Mapping[Resource, float]],
    release_seconds: float,
    now_seconds: float,
) -> GuardDecision:
    """What becomes of a node: `pods` are those on it, `usage_of_pod` what each is thought to use, by uid.

    As many go as bring what is measured under what is usable, and one where that is not known or memory is pressed.
    After an eviction nothing is evicted until usage was measured since.
    """
    excess = use.excess()
    if excess is None:
        if guard.suspended_since_seconds is None:
            return GuardDecision(guard)
        if not use.is_calm():
            return GuardDecision(replace(guard, calm_since_seconds=None))
        since = now_seconds if guard.calm_since_seconds is None else guard.calm_since_seconds
        if now_seconds - since >= release_seconds:
            return GuardDecision(UNGUARDED, has_resumed=True)
        return GuardDecision(replace(guard, calm_since_seconds=since))
    if guard.suspended_since_seconds is None:
        return GuardDecision(Guard(suspended_since_seconds=now_seconds, reason=excess), is_intervention=True)
    stopped = max(guard.suspended_since_seconds, guard.evicted_at_seconds or 0.0)
    tense = replace(guard, calm_since_seconds=None, reason=excess)
    if use.measured_at_seconds <= stopped:
        return GuardDecision(tense)
    victims = _victims(use, in_order_of_eviction(pods), usage_of_pod)
    if not victims:
        return GuardDecision(tense)
    return GuardDecision(replace(tense, evicted_at_seconds=now_seconds), is_intervention=True, evict=victims)


def in_order_of_eviction(pods: Iterable[NodePod]) -> tuple[NodePod, ...]:
    """Those that may go, the cheapest first: pods on what was reclaimed whose owners opted in."""
    able = (each for each in pods if each.is_evictable and each.is_reclaimed and not each.is_leaving)
    return tuple(sorted(able, key=lambda each: (each.priority, -each.created_seconds, each.namespace, each.name)))


def _victims(
    use: NodeUse, able: Sequence[NodePod], usage_of_pod: Mapping[str, Mapping[Resource, float]]
) -> tuple[NodePod, ...]:
    over = {
        each: used - use.usable[each] for each, used in use.usage.items() if used >= use.usable.get(each, float("inf"))
    }
    chosen: list[NodePod] = []
    for pod in able:
        frees = usage_of_pod.get(pod.uid, {})
        if chosen and not any(amount >= 0 for amount in over.values()):
            break
        if over and not use.has_memory_pressure and not any(frees.get(each, 1.0) > 0 for each in over):
            continue  # it uses nothing of what is short
        chosen.append(pod)
        over = {each: amount - frees.get(each, amount + 1.0) for each, amount in over.items()}
    return tuple(chosen)
