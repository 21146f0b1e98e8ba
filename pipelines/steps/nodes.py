"""Makes a history ready for oversubscription: which workloads are on which node, and what limits each of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from autoscaler.simulator.node_peaks import NodeHistory
from models.forecast import FloatArray, carried_forward
from models.node_peak import COLD_SAMPLES
from predictor.errors import InvalidUsage
from predictor.settings import duration_text
from predictor.usage.artefacts import UNIT_CEILING
from predictor.usage.panel import Finding, Resource, Severity, UsagePanel

ONE_NODE = "all"
"""Name of the one node of a history that names neither nodes nor node pools."""
NO_POOL = "(no node pool)"
"""Name of what is in no node pool of a history that names some."""
LIMITING = ("limit", "capacity", "request")
"""What counts as the most that a workload may use: the first of these that is known of it."""
JITTER = 1.05
"""A rate between two scrapes may exceed a limit that is kept by about so much."""


def nodes_of(
    panel: UsagePanel, placement: Mapping[str, str] | None, resource: Resource
) -> tuple[tuple[NodeHistory, ...], tuple[Finding, ...]]:
    """The nodes that workloads of a resource are on, by name, and what was left out.

    Without a placement a node pool stands for a node, without pools everything is on one. Workloads without limit,
    capacity and request are left out, as are those that a placement does not name. Raises InvalidUsage for a placement
    that names none of them. What may mislead is a finding: usage above what limits it, and whoever is on a node
    without a history or was not measured lately.
    """
    rows_of: dict[str, list[int]] = {}
    limits: dict[int, FloatArray] = {}
    findings: list[Finding] = []
    for row in panel.rows(resource).tolist():
        workload = panel.keys[row].workload
        node = placement.get(workload) if placement is not None else panel.node_pool.get(workload, without_pool(panel))
        known = _limits(panel, row)
        if node is None or known is None:
            why = "on no node of the placement" if node is None else "neither limit, capacity nor request"
            findings.append(Finding(workload, resource.value, Severity.WARNING, f"{why}: left out of oversubscription"))
            continue
        limits[row] = known.values
        findings += _excess(panel, row, known)
        findings += _silence(panel, row, None if placement is None else node)
        rows_of.setdefault(node, []).append(row)
    if placement is not None and not rows_of and any("no node" in str(each) for each in findings):
        first = panel.keys[panel.rows(resource)[0]].workload
        raise InvalidUsage(f"the placement names none of the history's workloads, such as {first!r}")
    measured = {panel.keys[row].workload for row in panel.rows(resource).tolist()}
    for workload, name in sorted(placement.items()) if placement and measured else ():
        if workload in measured:
            continue
        text = f"on node {name} by the placement, but not in the history: it counts for nothing there"
        findings.append(Finding(workload, resource.value, Severity.WARNING, text))
    nodes = tuple(
        NodeHistory(node=name, usage=panel.usage[rows], limits=np.stack([limits[row] for row in rows]))
        for name, rows in sorted(rows_of.items())
    )
    return nodes, tuple(findings)


def without_pool(panel: UsagePanel) -> str:
    """What stands for the node pool of a workload that has none."""
    return NO_POOL if panel.node_pool else ONE_NODE


@dataclass(frozen=True, slots=True)
class _Limits:
    """The most that a workload may use."""

    name: str
    """Which of `LIMITING` it is."""
    values: FloatArray
    """[steps]"""


def _limits(panel: UsagePanel, row: int) -> _Limits | None:
    """Each step's newest known; before the first known that one. None where nothing is known.

    0 is no limit, nor is more than any workload can use, as which "unlimited" is exported.
    """
    for name in LIMITING:
        if name in panel.attributes:
            given = np.asarray(panel.attributes[name][[row]], dtype=np.float64)
            is_limit = (given > 0) & (given <= UNIT_CEILING[panel.keys[row].resource])
            values = carried_forward(np.where(is_limit, given, np.nan))[0]
            known = np.flatnonzero(~np.isnan(values))
            if known.size:
                return _Limits(name, np.asarray(np.where(np.isnan(values), values[known[0]], values)))
    return None


def _excess(panel: UsagePanel, row: int, limits: _Limits) -> Iterator[Finding]:
    """A finding where usage exceeds what counts as the most it may be, as it is cut off there."""
    usage, key = panel.usage[row], panel.keys[row]
    exceeded = np.count_nonzero(usage > JITTER * limits.values)
    if exceeded:
        times = float(np.nanmax(usage / limits.values))
        text = (
            f"usage exceeds its {limits.name} in {exceeded} samples, up to {times:.3g} times: it counts up to that only"
        )
        yield Finding(key.workload, key.resource.value, Severity.WARNING, text)


def _silence(panel: UsagePanel, row: int, node: str | None) -> Iterator[Finding]:
    """A finding where a workload has no sample for so long that it is taken to have left; `node` is where a placement
    says that it is."""
    if not np.isnan(panel.usage[row, -COLD_SAMPLES:]).all():
        return
    key, lately = panel.keys[row], duration_text(timedelta(seconds=COLD_SAMPLES * panel.step_seconds))
    if node is None:
        severity, text = Severity.NOTE, f"no sample in the last {lately}: taken to be gone, it counts for nothing now"
    else:
        severity = Severity.WARNING
        text = f"on node {node} by the placement, but no sample in the last {lately}: it counts for nothing there now"
    yield Finding(key.workload, key.resource.value, severity, text)
