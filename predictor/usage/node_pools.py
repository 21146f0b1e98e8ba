"""What the nodes of each pool can give to pods. Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass

from models.forecast import FloatArray
from predictor.usage.panel import Finding, Resource


@dataclass(frozen=True, slots=True)
class NodePools:
    """Allocatable amounts of each node pool on one regular grid.

    Each array is [pools, steps] in the resource's base unit (cores, bytes, GPU devices), rows in the order of
    `names`; NaN is "not known". A resource that no pool has is absent. `node_counts` is [pools, steps].
    """

    names: tuple[str, ...]
    start_seconds: int
    step_seconds: int
    allocatable: Mapping[Resource, FloatArray]
    node_counts: FloatArray
    findings: tuple[Finding, ...] = ()
