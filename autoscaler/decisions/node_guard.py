"""When no more is sold on a node, and who has to go: what was predicted was wrong, or cannot be known to be right.

In this order: nothing more is sold; if that was not enough at the next look, pods that opted in are evicted, the lowest
priority first, of one priority those without state, and of those the youngest, as the least is lost with it. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaler.cluster.nodes import NodePod, shown
from autoscaler.cluster.reasons import Reason, ReasonCode
from predictor.usage.panel import Resource

CALM_SHARE = 0.95
"""A node is calm while its usage is under this share of what is usable, and its CPU pressure of what is allowed."""
BUSY_SHARE = 0.8
"""CPU pressure counts from this share of what is usable on: below it tasks wait for limits of their own.

The kernel counts a task that its own limit holds back as waiting, at the node as well (kubernetes/enhancements#5062),
and evicting others would not help it. OpenShift's load-aware descheduler goes by pressure from 80 % utilisation on.
"""

SOON_SECONDS = 60.0
"""What pods that are leaving use counts as freed if they end within this time. One that may take longer, or should have
ended long ago, goes on using it."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What is remembered of one node."""

    suspended_since_seconds: float | None = None
    """Since when nothing more is sold on it; None where it is."""
    calm_since_seconds: float | None = None
    """Since when, while suspended, it has been calm."""
    evicted_at_seconds: float | None = None
    """When pods were last evicted from it, or the last of those had gone."""
    going: frozenset[str] = frozenset()
    """Uids of those that were evicted, as long as they are there."""
    reason: Reason | None = None
    """Why it was suspended."""


UNGUARDED = Guard()


@dataclass(frozen=True, slots=True)
class NodeUse:
    """What is measured of a node: usage of all its pods and what of it is usable, by resource in its base unit."""

    usage: Mapping[Resource, float]
    usable: Mapping[Resource, float]
    since_seconds: float
    """The usage is the mean from then …"""
    measured_at_seconds: float
    """… to then."""
    has_memory_pressure: bool
    cpu_pressure: float | None = None
    """Share of that time in which some task waited for a CPU; None where nobody measures it."""
    allowed_cpu_pressure: float = 1.0
    """More of it is too much."""
    kubelet_evicted: str = ""
    """Whom the kubelet ended lately, as the node was short of memory; empty where nobody."""

    def excess(self) -> Reason | None:
        """Why the node is too full; None where it is not."""
        if self.has_memory_pressure:
            return Reason(ReasonCode.NODE_PRESSURE, "the node reports MemoryPressure")
        if self.kubelet_evicted:
            text = f"the kubelet has evicted {self.kubelet_evicted}, as the node was short of memory"
            return Reason(ReasonCode.KUBELET_EVICTION, text)
        for resource, used in self.usage.items():
            usable = self.usable.get(resource, float("inf"))
            if used >= usable:
                text = f"{shown(resource, used)} are used, {shown(resource, usable)} are usable"
                return Reason(ReasonCode.NODE_FULL, text)
        if self.has_cpu_pressure:
            waited = f"tasks waited for CPU in {self.cpu_pressure:.0%} of the time"
            return Reason(ReasonCode.CPU_PRESSURE, f"{waited}, {self.allowed_cpu_pressure:.0%} is allowed")
        return None

    @property
    def has_cpu_pressure(self) -> bool:
        """Whether tasks wait for CPU for too much of the time, and not for limits of their own alone."""
        return self._waits_more_than(self.allowed_cpu_pressure)

    def _waits_more_than(self, share: float) -> bool:
        used, usable = self.usage.get(Resource.CPU), self.usable.get(Resource.CPU, float("inf"))
        if self.cpu_pressure is None or used is None:
            return False
        return used >= BUSY_SHARE * usable and self.cpu_pressure > share

    def is_calm(self) -> bool:
        """Whether it is so far from being too full that it may be sold again."""
        if (
            self.has_memory_pressure
            or self.kubelet_evicted
            or self._waits_more_than(CALM_SHARE * self.allowed_cpu_pressure)
        ):
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

    As many go as bring what is measured under what is usable, and one where that is not known, or where memory or CPU
    is pressed: what the going of a pod does to that cannot be told before.
    Nothing is evicted until half of what is measured lies after the suspension (usage is measured over the time that
    holds two scrapes, so that at least one is new), and after an eviction until all of it does.
    """
    pods = tuple(pods)
    if guard.evicted_at_seconds is not None:
        guard = _watched(guard, pods, now_seconds)
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
    tense = replace(guard, calm_since_seconds=None, reason=excess)
    was_looked_at = (use.since_seconds + use.measured_at_seconds) / 2 > guard.suspended_since_seconds
    # What went counts in the mean of any time in which it was still there.
    shows_eviction = guard.evicted_at_seconds is None or use.since_seconds >= guard.evicted_at_seconds
    if not was_looked_at or not shows_eviction:
        return GuardDecision(tense)
    victims = _victims(use, pods, usage_of_pod, now_seconds)
    if not victims:
        return GuardDecision(tense)
    after = replace(tense, evicted_at_seconds=now_seconds, going=frozenset(pod.uid for pod in victims))
    return GuardDecision(after, is_intervention=True, evict=victims)


def _watched(guard: Guard, pods: Sequence[NodePod], now_seconds: float) -> Guard:
    """With who is going still: pods take their time to end, and use what they use until then."""
    leaving = frozenset(pod.uid for pod in pods if pod.is_leaving and (pod.is_reclaimed or pod.is_lowered))
    has_gone = bool(guard.going - {pod.uid for pod in pods})
    return replace(guard, going=leaving, evicted_at_seconds=now_seconds if has_gone else guard.evicted_at_seconds)


def in_order_of_eviction(pods: Iterable[NodePod]) -> tuple[NodePod, ...]:
    """Those that may go, the cheapest first: pods that were sold what others requested, whose owners opted in."""
    sold_to = (each for each in pods if each.is_reclaimed or each.is_lowered)
    able = (each for each in sold_to if each.is_evictable and not each.is_leaving)

    def cost(pod: NodePod) -> tuple[int, bool, float, str, str]:
        return pod.priority, pod.has_state, -pod.created_seconds, pod.namespace, pod.name

    return tuple(sorted(able, key=cost))


def _victims(
    use: NodeUse, pods: Sequence[NodePod], usage_of_pod: Mapping[str, Mapping[Resource, float]], now_seconds: float
) -> tuple[NodePod, ...]:
    """Enough to bring down what is over, less what pods that are leaving already will free soon; one for pressure."""
    soon_gone = [
        pod.uid
        for pod in pods
        if pod.leaves_at_seconds is not None and abs(pod.leaves_at_seconds - now_seconds) <= SOON_SECONDS
    ]
    is_pressed = use.has_memory_pressure or use.has_cpu_pressure
    over = {}
    for resource, used in use.usage.items():
        leaving = sum(usage_of_pod.get(uid, {}).get(resource, 0.0) for uid in soon_gone)
        if used - leaving >= use.usable.get(resource, float("inf")):
            over[resource] = used - leaving - use.usable[resource]
    chosen: list[NodePod] = []
    for pod in in_order_of_eviction(pods):
        is_enough = not over and (chosen or not is_pressed)
        if is_enough:
            break
        frees = usage_of_pod.get(pod.uid, {})
        short = {*over, Resource.CPU} if use.has_cpu_pressure else set(over)
        if short and not use.has_memory_pressure and not any(frees.get(each, 1.0) > 0 for each in short):
            continue  # it uses nothing of what is short
        chosen.append(pod)
        # What nobody knows is taken for enough: the next look will tell.
        left = {each: amount - frees.get(each, amount + 1.0) for each, amount in over.items()}
        over = {each: amount for each, amount in left.items() if amount >= 0}
    return tuple(chosen)
