"""Nodes and the pods on them, as far as selling what will not be used needs them: compact, as pods are many. Pure."""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from autoscaler.cluster.containers import NO_AMOUNTS, Amounts
from predictor.usage.panel import Resource

RECLAIMED = {Resource.CPU: "foresize.io/reclaimed-cpu", Resource.MEMORY: "foresize.io/reclaimed-memory"}
"""Extended resources under which it is sold what ordinary pods will not use."""
UNITS_PER_BASE_UNIT = {Resource.CPU: 1000, Resource.MEMORY: 1}
"""Extended resources are whole numbers: milli-cores, and bytes."""


class Actuator(StrEnum):
    """How what is reclaimable is sold."""

    EXTENDED_RESOURCES = "ExtendedResources"
    """Under names of its own in the nodes' status, to pods that ask for it."""
    REQUEST_AMPLIFICATION = "RequestAmplification"
    """By lower requests of pods whose namespace opted in, from when they are created."""
    GPU_SHARING = "GPUSharing"
    """By several shares of each GPU, as NVIDIA's device plugin makes them."""


class GpuStrategy(StrEnum):
    """How the device plugin shares a GPU."""

    TIME_SLICING = "TimeSlicing"
    """One after the other, memory not kept apart."""
    MPS = "MPS"
    """At the same time, each within its part of the memory."""


class NodePod(NamedTuple):
    """A pod that is assigned to a node and not done."""

    namespace: str
    name: str
    uid: str
    node: str
    workload: str
    """`namespace/kind/name`; of a pod of its own `namespace/Pod/name`."""
    requests: Amounts = NO_AMOUNTS
    """What it requested at first, where its requests were lowered."""
    limits: Amounts = NO_AMOUNTS
    """Of a resource only where every container has one."""
    reclaimed: Amounts = NO_AMOUNTS
    """What it asks for of the resources in RECLAIMED, in base units."""
    priority: int = 0
    created_seconds: float = 0.0
    is_evictable: bool = False
    """Whether its owner has opted in to its eviction."""
    leaves_at_seconds: float | None = None
    """Until when it may take to end, where it is being deleted."""
    has_state: bool = False
    """Whether it takes a volume or a name of its own along when it moves, so that moving it costs more."""
    is_lowered: bool = False
    """Whether its requests were lowered when it was created."""
    gpus: int = 0
    """GPUs, or shares of them, that it has."""

    @property
    def is_leaving(self) -> bool:
        """Whether it is being deleted."""
        return self.leaves_at_seconds is not None

    @property
    def is_reclaimed(self) -> bool:
        """Whether it runs on what others do not use, of some resource."""
        return any(self.reclaimed)

    def is_ordinary(self, resource: Resource) -> bool:
        """Whether it uses the resource on ordinary terms; it may run on reclaimed CPU and ordinary memory.

        What asks for both of one resource, or for nothing of what was reclaimed, uses more than was sold to it.
        """
        return not self.reclaimed.of(resource) or bool(self.requests.of(resource))


class KubeletEviction(NamedTuple):
    """A pod that a kubelet ended, or did not take in, as its node was short of memory."""

    node: str
    pod: str
    """`namespace/name`."""
    at_seconds: float


class NodeState(NamedTuple):
    """A node."""

    name: str
    uid: str
    labels: frozenset[tuple[str, str]] = frozenset()
    allocatable: Amounts = NO_AMOUNTS
    offered: Amounts = NO_AMOUNTS
    """What its status offers of the resources in RECLAIMED, in base units; None where it offers none."""
    has_memory_pressure: bool = False
    takes_pods: bool = True
    """Whether it is Ready and not cordoned."""


def total_of(resource: Resource, amounts: Iterable[Amounts]) -> float:
    """The sum of what is given of a resource."""
    return float(sum(each.of(resource) or 0.0 for each in amounts))


def in_whole_units(resource: Resource, amount: float) -> int:
    """An amount in base units as the extended resource's whole number, rounded down."""
    return int(amount * UNITS_PER_BASE_UNIT[resource] + 1e-6)


def shown(resource: Resource, amount: float) -> str:
    """An amount in base units for a person: `1.5 cores`, `12.3 GiB`."""
    return f"{amount:.4g} cores" if resource is Resource.CPU else f"{amount / 2**30:.4g} GiB"
