"""What ran on a node pool: picked out of a usage panel, the same for the controller and the replay. Pure values."""

from dataclasses import dataclass

import numpy as np

from models.forecast import FloatArray
from predictor.usage.node_pools import NodePools
from predictor.usage.panel import Resource, UsagePanel, newest

WHOLE_POOL = "all"
"""Name of the one pool of a history that knows no node pools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolHistory:
    """Everything that ran on one node pool, for one resource in its base unit."""

    pool: str
    resource: Resource
    usage: FloatArray
    """[tasks, steps]; NaN is no sample."""
    limits: FloatArray
    """[tasks, steps], or [tasks] where only the newest is known; NaN or infinite is no limit."""
    requests: FloatArray
    """[tasks, steps], or [tasks] where only the newest is known; NaN is none."""
    allocatable: float


def pool_history(panel: UsagePanel, pools: NodePools | None, pool: str, resource: Resource) -> PoolHistory | None:
    """The workloads of one pool; None where nothing of the resource ran there or nothing is known to be allocatable.

    Without node pools every workload is in the pool `WHOLE_POOL`, and the newest requests stand for its allocatable.
    """
    rows = [
        row
        for row, key in enumerate(panel.keys)
        if key.resource == resource and (pools is None or panel.node_pool.get(key.workload) == pool)
    ]
    requests = _attribute(panel, "request", rows)
    if pools is None:
        allocatable = float(np.nansum(newest(requests)))
    elif resource in pools.allocatable:
        allocatable = float(newest(pools.allocatable[resource][[pools.names.index(pool)]])[0])
    else:
        allocatable = np.nan
    if not rows or not allocatable > 0 or np.isnan(panel.usage[rows]).all():
        return None
    return PoolHistory(
        pool=pool,
        resource=resource,
        usage=panel.usage[rows],
        limits=_attribute(panel, "limit", rows),
        requests=requests,
        allocatable=allocatable,
    )


def _attribute(panel: UsagePanel, name: str, rows: list[int]) -> FloatArray:
    if name in panel.attributes:
        return np.asarray(panel.attributes[name][rows], dtype=np.float64)
    if name in panel.newest:
        return np.asarray(panel.newest[name][rows], dtype=np.float64)
    return np.full((len(rows), panel.steps), np.nan)
