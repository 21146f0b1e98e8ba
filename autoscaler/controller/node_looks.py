"""What a look at a node comes to: what may be sold, whether it is too full, who has to go. Values in, values out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from autoscaler.cluster.containers import SIZED
from autoscaler.cluster.nodes import UNITS_PER_BASE_UNIT, KubeletEviction, NodePod, NodeState, total_of
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.node_peaks import Asked, NodePeaks, in_full, known_as
from autoscaler.controller.node_status import NodeReading, ShelfReading
from autoscaler.controller.policies import NodeTerms
from autoscaler.decisions.node_guard import UNGUARDED, Guard, GuardDecision, NodeUse, guarded
from autoscaler.decisions.reclaiming import Shelf, ToldPeak, in_hindsight, reclaimable
from autoscaler.metrics import NodeGauges
from autoscaler.settings import OversubscriptionSettings
from predictor.usage.panel import Resource
from predictor.usage.placed import NodeUsage, Placed


@dataclass(frozen=True, slots=True)
class Measured:
    """What was last read of usage on nodes."""

    usage: NodeUsage | None = None
    """None before anything was."""
    by_node: Mapping[str, Mapping[Resource, Mapping[str, float]]] = field(default_factory=dict)
    """By node, resource and workload."""

    @classmethod
    def of(cls, usage: NodeUsage) -> "Measured":
        """Usage as it was read."""
        found: dict[str, dict[Resource, dict[str, float]]] = {}
        for resource, amounts in usage.usage.items():
            for name, amount in amounts.items():
                found.setdefault(name.node, {}).setdefault(resource, {})[name.workload] = amount
        return cls(usage, found)

    def is_known(self, node: str, now_seconds: float, stale_after_seconds: float) -> bool:
        """Whether what is known of a node is about now, and about all of it."""
        usage = self.usage
        if usage is None or node in usage.partial or Resource.MEMORY not in self.by_node.get(node, {}):
            return False
        return not usage.ahead_by(node) and now_seconds - usage.measured_at_seconds <= stale_after_seconds

    def of_pods(self, pods: Iterable[NodePod]) -> dict[str, dict[Resource, float]]:
        """What each pod is thought to use, by uid: as much as the mean pod of its workload on its node."""
        found: dict[str, dict[Resource, float]] = {}
        usage = self.usage
        for pod in pods if usage is not None else ():
            own = Placed(pod.node, pod.workload)
            for resource in SIZED:
                assert usage is not None
                name = own if own in usage.usage[resource] else known_as(own)
                used, count = usage.usage[resource].get(name), usage.pods[resource].get(name)
                if used is not None and count:
                    found.setdefault(pod.uid, {})[resource] = used / count
        return found


@dataclass(frozen=True, slots=True)
class LookedAt:
    """What one look at one node came to."""

    reading: NodeReading
    guard: GuardDecision
    pods: tuple[NodePod, ...]
    exceeded: Mapping[Resource, float]
    """Of which ordinary pods use more than was told, and by which share of what they use."""
    policies: tuple[str, ...]
    """Names of those that select the node."""
    terms: Mapping[Resource, NodeTerms]
    used: Mapping[Resource, float]
    """What all its pods use now, in base units; without a resource of which that is not known."""

    def offering(self, written: Mapping[Resource, int | None]) -> "LookedAt":
        """With what has just been written into the node's status."""
        shelves = {
            resource: replace(shelf, offered=(written[resource] or 0) / UNITS_PER_BASE_UNIT[resource])
            if resource in written
            else shelf
            for resource, shelf in self.reading.shelves.items()
        }
        return replace(self, reading=replace(self.reading, shelves=shelves))


def looked_at(
    node: NodeState,
    terms: Mapping[Resource, NodeTerms],
    pods: tuple[NodePod, ...],
    *,
    policies: tuple[str, ...],
    guard: Guard,
    evicted: str,
    measured: Measured,
    peaks: NodePeaks,
    sold_shares: Mapping[Resource, float],
    settings: OversubscriptionSettings,
    now: float,
) -> LookedAt:
    """What is to be sold of a node, and what the guard wants of it.

    `evicted` is whom its kubelet has just ended, if anybody; of what is reclaimable of a resource no more than its
    sold share is sold.
    """
    usage, of_node = measured.usage, measured.by_node.get(node.name, {})
    used = {resource: sum(amounts.values()) for resource, amounts in of_node.items()}
    is_stale = bool(pods) and not measured.is_known(node.name, now, settings.stale_after.total_seconds())
    shelves: dict[Resource, ShelfReading] = {}
    exceeded = {}
    for resource, held in terms.items():
        shelf = _shelf(node, _asked(resource, held), pods, peaks, now)
        usable_share, rate = settings.usable_share, held.terms.max_rate
        share = sold_shares.get(resource, 1.0)
        decision = reclaimable(shelf, usable_share=usable_share, max_rate=rate, sold_share=share)
        oracle = in_hindsight(shelf, usable_share=usable_share, max_rate=rate)
        shelves[resource] = ShelfReading(shelf, decision, node.offered.of(resource) or 0.0, held.sells, oracle)
        excess = 0.0 if is_stale else _excess(shelf, of_node.get(resource, {}), pods)
        if excess > 0:
            exceeded[resource] = excess
    sold_on = [each for each, held in terms.items() if held.sells]
    if not sold_on or is_stale:
        # Who sells nothing has nothing to stop; blind, nothing more is sold than was, and nobody is evicted.
        step = GuardDecision(guard if sold_on else UNGUARDED)
    else:
        use = NodeUse(
            {each: used.get(each, 0.0) for each in sold_on},
            {each: settings.usable_share * amount for each in sold_on if (amount := node.allocatable.of(each))},
            now if usage is None else usage.since_seconds,
            now if usage is None else usage.measured_at_seconds,
            node.has_memory_pressure,
            None if usage is None else usage.cpu_pressure.get(node.name),
            settings.cpu_pressure,
            evicted,
        )
        step = guarded(
            guard,
            use,
            pods,
            # Of use only where somebody may have to go.
            usage_of_pod=measured.of_pods(pods) if use.excess() is not None else {},
            release_seconds=settings.guard_release.total_seconds(),
            now_seconds=now,
        )
    ahead = usage.ahead_by(node.name) if is_stale and usage is not None else 0.0
    reading = NodeReading(node, shelves, is_stale, step.guard, ahead)
    return LookedAt(reading, step, pods, exceeded, policies, terms, {} if is_stale else used)


def wanted_peaks(terms: Mapping[str, Mapping[Resource, NodeTerms]]) -> dict[Asked, list[str]]:
    """The nodes of which each kind of peak is wanted."""
    wanted: dict[Asked, list[str]] = {}
    for node, by_resource in terms.items():
        for resource, held in by_resource.items():
            wanted.setdefault(_asked(resource, held), []).append(node)
    return wanted


def lately_evicted(evictions: Iterable[KubeletEviction], now: float, within_seconds: float) -> dict[str, str]:
    """Whom the kubelets ended last, by node."""
    # What a kubelet whose clock was ahead says happened later is not news until then.
    lately = (each for each in evictions if abs(now - each.at_seconds) < within_seconds)
    return {each.node: each.pod for each in sorted(lately, key=lambda eviction: eviction.at_seconds)}


def node_gauges(looked: LookedAt, measured: Measured) -> Iterable[NodeGauges]:
    """The metrics of a node, of each resource."""
    name = looked.reading.node.name
    for resource, shelf in looked.reading.shelves.items():
        yield NodeGauges(
            node=name,
            resource=resource.value,
            predicted_peak=shelf.shelf.peak.value if isinstance(shelf.shelf.peak, ToldPeak) else None,
            reclaimable=shelf.decision.amount,
            offered=shelf.offered,
            sold=shelf.shelf.sold,
            is_suspended=looked.guard.guard.suspended_since_seconds is not None,
            is_stale=looked.reading.is_stale,
            cpu_pressure=None if measured.usage is None else measured.usage.cpu_pressure.get(name),
        )


def _asked(resource: Resource, held: NodeTerms) -> Asked:
    return resource, held.terms.violation_probability, held.terms.horizon_seconds


def _shelf(node: NodeState, asked: Asked, pods: Sequence[NodePod], peaks: NodePeaks, now: float) -> Shelf:
    resource = asked[0]
    ordinary = [pod for pod in pods if pod.is_ordinary(resource)]
    peak: ToldPeak | Hold = peaks.peak(node.name, asked, now)
    allocatable = node.allocatable.of(resource)
    if allocatable is None:
        peak = Hold(Reason(ReasonCode.NO_EVIDENCE, f"the node does not say how much {resource.value} is allocatable"))
    return Shelf(
        resource=resource,
        allocatable=allocatable or 0.0,
        requested=total_of(resource, (pod.requests for pod in ordinary)),
        newcomers=in_full([pod for pod in ordinary if pod.uid not in peaks.counted], resource),
        sold=total_of(resource, (pod.reclaimed for pod in pods)),
        peak=peak,
    )


def _excess(shelf: Shelf, used: Mapping[str, float], pods: Iterable[NodePod]) -> float:
    """The share of their usage by which ordinary pods exceed what was told of them and what came since; 0 as a rule."""
    if isinstance(shelf.peak, Hold) or isinstance(shelf.newcomers, Hold):
        return 0.0
    # Usage is a mean over some time: it may still be that of a pod that was sold to, and has just ended.
    sold_to, ordinary_on = set[str](), set[str]()
    for pod in pods:
        names = ordinary_on if pod.is_ordinary(shelf.resource) else sold_to
        names |= {pod.workload, known_as(Placed(pod.node, pod.workload)).workload}
    ordinary = sum(amount for workload, amount in used.items() if workload in ordinary_on - sold_to)
    told = shelf.peak.value + shelf.newcomers
    return (ordinary - told) / ordinary if ordinary > told * (1 + 1e-9) else 0.0
