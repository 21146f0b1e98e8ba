"""Makes a history ready for oversubscription: which workloads are on which node, and what limits each of them."""

from collections.abc import Mapping

import numpy as np

from autoscaler.simulator.node_peaks import NodeHistory
from models.forecast import FloatArray, carried_forward
from predictor.errors import InvalidUsage
from predictor.usage.panel import Finding, Resource, Severity, UsagePanel

ONE_NODE = "all"
"""Name of the one node of a history that names neither nodes nor node pools."""
LIMITING = ("limit", "capacity", "request")
"""What counts as the most that a workload may use: the first of these that is known of it."""


def nodes_of(
    panel: UsagePanel, placement: Mapping[str, str] | None, resource: Resource
) -> tuple[tuple[NodeHistory, ...], tuple[Finding, ...]]:
    """The nodes that workloads of a resource are on, by name, and what was left out.

    Without a placement a node pool stands for a node, without pools everything is on one. Workloads without limit,
    capacity and request are left out, as are those that a placement does not name. Raises InvalidUsage for a placement
    that names none of them.
    """
    rows_of: dict[str, list[int]] = {}
    limits: dict[int, FloatArray] = {}
    findings: list[Finding] = []
    for row in panel.rows(resource).tolist():
        workload = panel.keys[row].workload
        node = panel.node_pool.get(workload, ONE_NODE) if placement is None else placement.get(workload)
        known = _limits(panel, row)
        if node is None or known is None:
            why = "on no node of the placement" if node is None else "neither limit, capacity nor request"
            findings.append(Finding(workload, resource.value, Severity.WARNING, f"{why}: left out of oversubscription"))
            continue
        limits[row] = known
        rows_of.setdefault(node, []).append(row)
    if placement is not None and not rows_of and any("no node" in str(each) for each in findings):
        first = panel.keys[panel.rows(resource)[0]].workload
        raise InvalidUsage(f"the placement names none of the history's workloads, such as {first!r}")
    nodes = tuple(
        NodeHistory(node=name, usage=panel.usage[rows], limits=np.stack([limits[row] for row in rows]))
        for name, rows in sorted(rows_of.items())
    )
    return nodes, tuple(findings)


def _limits(panel: UsagePanel, row: int) -> FloatArray | None:
    """[steps], each step's newest known; before the first known that one. None where nothing is known."""
    for name in LIMITING:
        if name in panel.attributes:
            values = carried_forward(np.asarray(panel.attributes[name][[row]], dtype=np.float64))[0]
            known = np.flatnonzero(~np.isnan(values))
            if known.size:
                return np.asarray(np.where(np.isnan(values), values[known[0]], values))
    return None
