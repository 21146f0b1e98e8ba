"""From what a source returned to the history that a cycle works on: usable series, what is wrong with them, and
a fingerprint that says whether two cycles saw the same data."""

import hashlib
import json
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from pipelines.errors import NotEnoughHistory
from predictor.usage.bounds import OFTEN
from predictor.usage.panel import Finding, SeriesKey, Severity, UsagePanel, unknown_workload

MOSTLY_EMPTY = 0.5
"""A series with a smaller share of its steps observed, from its first sample to its last, is reported."""


@dataclass(frozen=True, slots=True)
class PreparedHistory:
    """A history that can be split: its panel begins and ends with a step in which something was observed."""

    panel: UsagePanel
    findings: tuple[Finding, ...]
    fingerprint: str
    """SHA-256 over keys, grid and values; the order in which the source listed the series does not matter."""
    left_out: tuple[SeriesKey, ...] = ()
    """Series that the pattern excluded."""


def prepared(panel: UsagePanel, workloads: str | None = None) -> PreparedHistory:
    """The history of the workloads that match a pattern such as `shop/*`, in the order of their names.

    Raises UnknownWorkload for a pattern that matches none, NotEnoughHistory for a panel without any usable series.
    """
    if not panel.keys and (broken := [f for f in panel.findings if f.severity is Severity.BROKEN]):
        raise NotEnoughHistory(f"none of the {len(broken)} series can be used; first: {broken[0]}")
    rows = list(range(len(panel.keys)))
    if workloads is not None:
        rows = [row for row in rows if fnmatchcase(panel.keys[row].workload, workloads)]
        if not rows and panel.keys:
            raise unknown_workload(workloads, panel.workloads, where="in the span that is read (history.span)")
    ordered = _trimmed(panel.select(sorted(rows, key=lambda row: panel.keys[row])))
    chosen = set(ordered.workloads)
    inherited = [f for f in panel.findings if not f.workload or f.workload in chosen or workloads is None]
    findings = (*inherited, *_sparse_series(ordered), *_series_at_their_limit(ordered))
    left_out = tuple(panel.keys[row] for row in sorted(set(range(len(panel.keys))) - set(rows)))
    return PreparedHistory(replace(ordered, findings=findings), findings, fingerprint(ordered), left_out)


def fingerprint(panel: UsagePanel) -> str:
    """SHA-256 over keys, grid, usage, where it was cut off and kin, independent of the order of the series.

    Usage counts in single precision: a server that adds up pods in another order changes the sixteenth digit.
    """
    digest = hashlib.sha256()
    grid = {"start": panel.start_seconds, "step": panel.step_seconds, "steps": panel.steps}
    digest.update(json.dumps(grid, sort_keys=True).encode())
    is_bound = panel.is_bound
    for row in sorted(range(len(panel.keys)), key=lambda row: panel.keys[row]):
        key = panel.keys[row]
        digest.update(json.dumps([key.workload, key.resource.value]).encode())
        values = panel.usage[row]
        # One NaN and one zero, whatever bits the source made them of.
        digest.update(np.where(np.isnan(values), np.nan, values + 0.0).astype("<f4").tobytes())
        if is_bound is not None and is_bound[row].any():
            digest.update(np.packbits(is_bound[row]).tobytes())
        if (kin := panel.kin.get(key.workload)) is not None:
            digest.update(json.dumps([kin.image, kin.owner]).encode())
    return digest.hexdigest()


def _trimmed(panel: UsagePanel) -> UsagePanel:
    observed = np.flatnonzero((~np.isnan(panel.usage)).any(axis=0))
    if observed.size == 0:
        raise NotEnoughHistory(
            "the history holds no sample of any workload: check that the query or the file matches something, and "
            "that the span asked for (history.span) reaches the time it covers"
        )
    times = panel.times
    return panel.between(int(times[observed[0]]), int(times[observed[-1]]))


def _sparse_series(panel: UsagePanel) -> list[Finding]:
    found = []
    for key, values in zip(panel.keys, panel.usage, strict=True):
        present = np.flatnonzero(~np.isnan(values))
        if present.size == 0:
            continue
        share = present.size / (int(present[-1]) - int(present[0]) + 1)
        if share < MOSTLY_EMPTY:
            message = f"only {share:.0%} of the steps between its first and its last sample hold one"
            found.append(Finding(key.workload, key.resource.value, Severity.WARNING, message))
    return found


def _series_at_their_limit(panel: UsagePanel) -> list[Finding]:
    """Series whose demand may often have been higher than what was measured: their limit, capacity or a kill cut it
    off."""
    samples = np.maximum(np.sum(~np.isnan(panel.usage), axis=1), 1).tolist()
    found = []
    for key, (bounds, what), count in zip(panel.keys, panel.bounds_in_words(panel.steps), samples, strict=True):
        if (share := bounds / count) > OFTEN:
            message = (
                f"{what} in {share:.0%} of the steps; there usage is but a bound of demand and counts as one, "
                "yet forecasts may be too low: raise the limit or the most replicas, then train anew"
            )
            found.append(Finding(key.workload, key.resource.value, Severity.NOTE, message))
    return found
