"""Pods and their containers as far as sizing requests needs them: compact, as there are many. Pure values."""

from typing import NamedTuple

from predictor.usage.panel import Resource

SIZED = (Resource.CPU, Resource.MEMORY)
"""What containers are sized by: the resources that can be resized in place."""


class Amounts(NamedTuple):
    """What a container requests, or may use, of each sized resource; None is not given."""

    cpu_cores: float | None = None
    memory_bytes: float | None = None

    def of(self, resource: Resource) -> float | None:
        """How much of one resource."""
        return self.cpu_cores if resource is Resource.CPU else self.memory_bytes

    def having(self, resource: Resource, amount: float | None) -> "Amounts":
        """The same with another amount of one resource."""
        if resource is Resource.CPU:
            return self._replace(cpu_cores=amount)
        return self._replace(memory_bytes=amount)


NO_AMOUNTS = Amounts()


class ContainerState(NamedTuple):
    """One container of a pod."""

    name: str
    requests: Amounts = NO_AMOUNTS
    limits: Amounts = NO_AMOUNTS
    restarts_for: tuple[Resource, ...] = ()
    """Resources of which a resize restarts it."""
    out_of_memory_at_seconds: float | None = None
    """Epoch second at which it was last killed for want of memory, if that is how it last ended."""


class PendingResize(NamedTuple):
    """A resize that was asked for and is not carried out yet."""

    reason: str
    """`Deferred`, `Infeasible` or `InProgress`."""
    message: str
    since_seconds: float


class PodState(NamedTuple):
    """One pod of a workload whose containers are sized, or that is to survive the loss of a node or zone."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    is_running: bool
    """Running, and not about to go."""
    qos: str
    """Its quality of service class, which no resize may change."""
    containers: tuple[ContainerState, ...] = ()
    pending: PendingResize | None = None
    is_rest_guaranteed: bool = True
    """Whether all that is not among `containers` has limits equal to its requests."""
    node: str = ""
    """Where it is; empty before it is anywhere."""
    is_oversold: bool = False
    """Whether its requests were lowered, or turned into reclaimed resources, when it was created."""
