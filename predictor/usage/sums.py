"""What workloads use together: series of sums, which are forecast as series of their own. Pure.

The quantile of a sum is not the sum of quantiles, nor its peak the sum of peaks: workloads do not peak at once,
and how far they do is in their common past.
"""

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

import numpy as np

from models.forecast import FloatArray
from predictor.errors import InvalidUsage
from predictor.usage.panel import SeriesKey, UsagePanel


class Together(StrEnum):
    """Which workloads are summed up."""

    NAMESPACE = "namespace"
    """Those of a namespace."""
    NODE_POOL = "node_pool"
    """Those that mostly ran in a node pool."""
    ALL = "all"
    """All of them."""


def summed(panel: UsagePanel, together: Together) -> UsagePanel:
    """A series for each resource of each set of workloads; named `shop/Namespace/sum` and alike.

    A sum is known at a step if every workload of the set that has samples both before and after it has one there: what
    is missing in between would count as zero. Attributes are left out. Raises InvalidUsage where no workload has a
    node pool and sums by node pool are asked for; a workload without one is in no sum.
    """
    name_of = _names(panel, together)
    rows_of: dict[SeriesKey, list[int]] = {}
    for row, key in enumerate(panel.keys):
        if name := name_of(key):
            rows_of.setdefault(SeriesKey(name, key.resource), []).append(row)
    usage = [_sum(panel.usage[rows]) for rows in rows_of.values()]
    return replace(
        panel, keys=tuple(rows_of), usage=np.stack(usage).reshape(-1, panel.steps), attributes={}, node_pool={}, kin={}
    )


def _names(panel: UsagePanel, together: Together) -> Callable[[SeriesKey], str]:
    if together is Together.ALL:
        return lambda _: "all/Fleet/sum"
    if together is Together.NAMESPACE:
        return lambda key: f"{key.namespace}/Namespace/sum"
    if not any(panel.node_pool.get(key.workload) for key in panel.keys):
        raise InvalidUsage("no workload's node pool is known: give the table a column 'node_pool', or sum by namespace")

    def of_pool(key: SeriesKey) -> str:
        pool = panel.node_pool.get(key.workload)
        return f"{pool}/NodePool/sum" if pool else ""

    return of_pool


def _sum(usage: FloatArray) -> FloatArray:
    """The sum over the rows, [steps]; NaN where a row lacks a sample between two of its own, or all lack one."""
    is_missing = np.isnan(usage)
    has_begun = np.logical_or.accumulate(~is_missing, axis=1)
    goes_on = np.logical_or.accumulate(~is_missing[:, ::-1], axis=1)[:, ::-1]
    is_known = ~(is_missing & has_begun & goes_on).any(axis=0) & ~is_missing.all(axis=0)
    return np.where(is_known, np.nansum(usage, axis=0), np.nan)
