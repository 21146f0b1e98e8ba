"""Usage by node: what a workload's pods on a node used. Pure values."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from models.forecast import FloatArray
from predictor.usage.panel import Finding, Resource


class Placed(NamedTuple):
    """A workload (`namespace/kind/name`) on a node."""

    node: str
    workload: str


@dataclass(frozen=True, slots=True)
class MeanPods:
    """What the mean pod of workloads on nodes used, on one grid."""

    names: tuple[Placed, ...]
    start_seconds: int
    step_seconds: int
    usage: Mapping[Resource, FloatArray]
    """[names, steps] in the resource's base unit, single precision. Where the workload had no pod on that node, or none
    that was measured, that of its mean pod anywhere; NaN where it had none."""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class GpuPast:
    """What the GPUs of one node did, on one grid; NaN is no sample."""

    activity: FloatArray
    """[steps]: part of the time in which they were busy, summed over devices."""
    fullest_bytes: FloatArray
    """[steps]: the most memory in use on any of them within the step."""
    shares: FloatArray
    """[steps]: GPUs, or shares of them, that running pods had; 0 where none did."""
    devices: FloatArray
    """[steps]: how many were measured."""


@dataclass(frozen=True, slots=True)
class NodeGpus:
    """The GPUs of nodes by the node's name, on the grid start, start+step, …"""

    start_seconds: int
    step_seconds: int
    by_node: Mapping[str, GpuPast]


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """What was used on nodes lately, in base units. A node that is not measured is not there."""

    since_seconds: int
    """It is the mean from then …"""
    measured_at_seconds: int
    """… to then."""
    usage: Mapping[Resource, Mapping[Placed, float]]
    pods: Mapping[Resource, Mapping[Placed, float]]
    """How many pods that is."""
    partial: Collection[str] = field(default_factory=frozenset)
    """Nodes of which too many running pods were not measured, or were at what is no amount."""
    cpu_pressure: Mapping[str, float] = field(default_factory=dict)
    """By node, the share of that time in which some task waited for a CPU; a node without it was not measured so."""
    clock_ahead: Mapping[str, float] = field(default_factory=dict)
    """By node, by how many seconds its newest samples are later than the time asked about; a node without it has none.
    Its clock is ahead, or the asker's behind, and what was read as its newest usage is as much older."""

    def ahead_by(self, node: str) -> float:
        """By how many seconds its clock is ahead, where that is more than the time that usage is the mean of; or 0."""
        ahead = self.clock_ahead.get(node, 0.0)
        return ahead if ahead > self.measured_at_seconds - self.since_seconds else 0.0
