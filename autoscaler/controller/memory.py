"""A cluster and a leadership in memory that keep the same contracts as the real ones: for tests and benchmarks."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from autoscaler.cluster.containers import SIZED, Amounts, ContainerState
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.autoscalers import PredictiveAutoscaler, Rival, RivalKind, TargetRef
from autoscaler.controller.ports import ClusterObservation, Event, ManagedWorkload, Scale, TargetWorkload
from autoscaler.decisions.resizes import ContainerResize, PodResize
from autoscaler.errors import ClusterUnavailable, CommandConflict, ObjectGone

Kept = TypeVar("Kept")


@dataclass
class MemoryCluster:
    """Remembers objects and what it was told; every change gives an object a new resource version."""

    autoscalers: dict[str, PredictiveAutoscaler] = field(default_factory=dict)
    """By uid."""
    targets: dict[str, TargetWorkload] = field(default_factory=dict)
    """By `namespace/kind/name`."""
    rivals: dict[str, Rival] = field(default_factory=dict)
    """By uid."""
    events: list[Event] = field(default_factory=list)
    """All that were published, oldest first."""
    resizes: list[PodResize] = field(default_factory=list)
    """All that were carried out, oldest first."""
    writes: int = 0
    """How many writes of any kind were carried out."""
    is_reachable: bool = True

    def __post_init__(self) -> None:
        self._changes = 0
        self._lock = threading.Lock()
        self._version_by_name: dict[str, int] = {}

    def put(self, thing: PredictiveAutoscaler | TargetWorkload | Rival) -> None:
        """Creates the object or puts it in the place of the one of the same name."""
        if isinstance(thing, PredictiveAutoscaler):
            self.autoscalers[thing.uid] = thing
        elif isinstance(thing, Rival):
            self.rivals[thing.uid] = thing
            self._touch(thing.uid)
        else:
            self.targets[thing.name] = thing
            self._touch(thing.name)

    def remove(self, name: str) -> None:
        """Deletes the object of that uid or, for a target, name."""
        for kept in (self.autoscalers, self.targets, self.rivals):
            kept.pop(name, None)

    def observe(self, now_seconds: float) -> ClusterObservation:
        """Every managed workload."""
        self._reach()
        steering: dict[str, list[Rival]] = {}
        for rival in self.rivals.values():
            steering.setdefault(f"{rival.namespace}/{rival.target.kind}/{rival.target.name}", []).append(rival)
        for each in self.autoscalers.values():
            if each.steers:
                own = Rival(RivalKind.PREDICTIVE, each.namespace, each.name, each.target, each.uid)
                steering.setdefault(each.workload, []).append(own)
        return ClusterObservation(
            now_seconds,
            tuple(
                ManagedWorkload(
                    each,
                    self.targets.get(each.workload)
                    or Hold(Reason(ReasonCode.NO_TARGET, f"there is no {each.target.kind} {each.target.name}")),
                    tuple(rival for rival in steering.get(each.workload, ()) if rival.uid != each.uid),
                )
                for each in self.autoscalers.values()
            ),
        )

    def scale_of(self, namespace: str, target: TargetRef) -> Scale:
        """The scale now."""
        self._reach()
        found = self._found(self.targets, f"{namespace}/{target.kind}/{target.name}")
        return Scale(found.uid, str(self._version_by_name.get(found.name, 0)), found.replicas)

    def minimum_of(self, hpa: Rival) -> Scale:
        """The HorizontalPodAutoscaler now."""
        self._reach()
        found = self._found(self.rivals, hpa.uid)
        return Scale(found.uid, str(self._version_by_name.get(found.uid, 0)), found.min_replicas)

    def set_replicas(self, namespace: str, target: TargetRef, replicas: int, expected: Scale) -> None:
        """Sets the replicas where nothing has changed since `expected` was read."""
        name = f"{namespace}/{target.kind}/{target.name}"
        if self.scale_of(namespace, target) != expected:
            raise CommandConflict(f"{name} has changed since its scale was read")
        self._count()
        self.put(replace(self.targets[name], replicas=replicas))

    def set_minimum(self, hpa: Rival, replicas: int, expected: Scale) -> None:
        """Sets the minimum where nothing has changed since `expected` was read."""
        if self.minimum_of(hpa) != expected:
            raise CommandConflict(f"{hpa.shown} has changed since it was read")
        self._count()
        self.put(replace(self.rivals[hpa.uid], min_replicas=replicas))

    def resize_pod(self, resize: PodResize) -> None:
        """Sets requests (and limits) of a pod that is exactly as it was seen; it is carried out at once."""
        self._reach()
        for target in self.targets.values():
            if resize.pod in target.pods:
                changes = {each.name: each for each in resize.containers}
                containers = tuple(_resized(each, changes.get(each.name)) for each in resize.pod.containers)
                version = str(int(resize.pod.resource_version or 0) + 1)
                changed = resize.pod._replace(containers=containers, resource_version=version)
                pods = tuple(changed if pod == resize.pod else pod for pod in target.pods)
                self._count()
                self.resizes.append(resize)
                self.put(replace(target, pods=pods))
                return
            if any(pod.uid == resize.pod.uid for pod in target.pods):
                raise CommandConflict(f"{resize.pod.name} has changed since it was seen")
        raise ObjectGone(f"{resize.pod.name}: not found")

    def set_status(self, autoscaler: PredictiveAutoscaler, status: Mapping[str, Any]) -> None:
        """Puts the status in the place of the one before."""
        self._reach()
        found = self._found(self.autoscalers, autoscaler.uid)
        self._count()
        self.autoscalers[found.uid] = replace(found, status=dict(status))

    def publish(self, event: Event, now_seconds: float) -> None:  # noqa: ARG002 - the real one stamps it
        """Keeps the event."""
        self._reach()
        self._count()
        self.events.append(event)

    def _count(self) -> None:
        with self._lock:
            self.writes += 1

    def _touch(self, name: str) -> None:
        with self._lock:
            self._changes += 1
            self._version_by_name[name] = self._changes

    def _found(self, kept: Mapping[str, Kept], name: str) -> Kept:
        try:
            return kept[name]
        except KeyError:
            raise ObjectGone(f"{name}: not found") from None

    def _reach(self) -> None:
        if not self.is_reachable:
            raise ClusterUnavailable("the cluster in memory was made unreachable")


def _resized(container: ContainerState, change: ContainerResize | None) -> ContainerState:
    if change is None:
        return container
    limits = _over(container.limits, change.after) if change.with_limits else container.limits
    return container._replace(requests=_over(container.requests, change.after), limits=limits)


def _over(before: Amounts, after: Amounts) -> Amounts:
    for resource in SIZED:
        if after.of(resource) is not None:
            before = before.having(resource, after.of(resource))
    return before


@dataclass
class MemoryLeadership:
    """Leads, or does not, as it is told: also for a controller that runs alone."""

    is_leader: bool = True
    identity: str = "this one"
    other: str = ""
    """Who leads while this one does not."""
    transitions: int = 0

    @property
    def holder(self) -> str:
        """Who leads."""
        return self.identity if self.is_leader else self.other
