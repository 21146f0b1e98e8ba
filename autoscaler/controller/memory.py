"""A cluster and a leadership in memory that keep the same contracts as the real ones: for tests and benchmarks."""

from dataclasses import dataclass, field, replace

from autoscaler.controller.ports import ClusterObservation, ManagedWorkload, Scale
from autoscaler.errors import ClusterUnavailable, CommandConflict, ObjectGone


@dataclass
class MemoryCluster:
    """Remembers workloads and what it was told; every change gives the object a new resource version."""

    workloads: dict[str, ManagedWorkload] = field(default_factory=dict)
    is_reachable: bool = True

    def __post_init__(self) -> None:
        self._changes = 0
        self._version_by_name: dict[str, int] = {}

    def put(self, workload: ManagedWorkload) -> None:
        """Creates the workload or puts it in the place of the one of the same name."""
        self.workloads[workload.name] = workload
        self._changes += 1
        self._version_by_name[workload.name] = self._changes

    def remove(self, workload: str) -> None:
        """Deletes the workload."""
        self._found(workload)
        del self.workloads[workload]

    def observe(self, now_seconds: float) -> ClusterObservation:
        """Every workload."""
        self._reach()
        return ClusterObservation(now_seconds, tuple(self.workloads.values()))

    def scale_of(self, workload: str) -> Scale:
        """The scale now."""
        self._reach()
        found = self._found(workload)
        return Scale(found.uid, str(self._version_by_name.get(workload, 0)), found.replicas)

    def set_replicas(self, workload: str, replicas: int, expected: Scale) -> None:
        """Sets the replicas where nothing has changed since `expected` was read."""
        if self.scale_of(workload) != expected:
            raise CommandConflict(f"{workload} has changed since its scale was read")
        self.put(replace(self.workloads[workload], replicas=replicas))

    def _found(self, workload: str) -> ManagedWorkload:
        try:
            return self.workloads[workload]
        except KeyError:
            raise ObjectGone(f"{workload}: not found") from None

    def _reach(self) -> None:
        if not self.is_reachable:
            raise ClusterUnavailable("the cluster in memory was made unreachable")


@dataclass
class MemoryLeadership:
    """Leads, or does not, as it is told: also for a controller that runs alone."""

    is_leader: bool = True
    identity: str = "this one"
    other: str = ""
    """Who leads while this one does not."""

    @property
    def holder(self) -> str:
        """Who leads."""
        return self.identity if self.is_leader else self.other
