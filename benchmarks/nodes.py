"""How long it takes to tell the peaks of many nodes, and what one more pod would make of each.

    python -m benchmarks.nodes

1,000 nodes of 50 pods, their limits known, with four weeks of usage at 5 minutes and a horizon of a day; the usage of a
hundred nodes, which differ, comes again ten times. Deciding tells each node's peak as the controller does, where every
sample is there and where 2 % of each pod's are missing. A candidate is scored by the peak that each node would have
with it, from the hours of past days, on all nodes and on a shortlist of 32. One thread. Results go to
results/nodes.json and nodes.md.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from autoscaler.decisions.reclaiming import NodeTasks, told_peaks
from benchmarks.fleet import synthetic_usage
from benchmarks.forecast_speed import circumstances
from benchmarks.running import RESULTS, made_with
from models.forecast import FloatArray
from models.node_peak import node_totals

NODES, PODS, DIFFERENT = 1000, 50, 100
STEPS_A_DAY = 288
PARTS = 24
"""Hours of the day."""
SHORTLIST = 32
MISSING = 0.02
PROBABILITY = 0.01
DECIDED, SCORED = 3, 300
"""How often each is timed."""


def main() -> None:
    """Measure all, store, print."""
    rng = np.random.default_rng(0)
    usage = np.nan_to_num(synthetic_usage(DIFFERENT * PODS)).astype(np.float32).reshape(DIFFERENT, PODS, -1)
    limits = np.asarray(3 * usage.max(axis=2), dtype=np.float64)
    gappy = np.where(rng.random(usage.shape, dtype=np.float32) < MISSING, np.float32(np.nan), usage)
    stored: dict[str, Any] = {"nodes": NODES, "pods": PODS, "shortlist": SHORTLIST}
    for name, of_nodes in (("decided", usage), ("decided, 2 % of samples missing", gappy)):
        stored[name] = timed(lambda used=of_nodes: decided(used, limits), DECIDED)
    totals = node_totals([(usage[n % DIFFERENT], limits[n % DIFFERENT]) for n in range(NODES)], STEPS_A_DAY, PARTS)
    shortlist = totals.of(np.sort(rng.choice(NODES, SHORTLIST, replace=False)))
    newcomer, limit = usage[0, 0], float(limits[0, 0])
    stored["candidate, all nodes"] = timed(lambda: totals.peaks_with(newcomer, limit, PROBABILITY), SCORED)
    stored["candidate, shortlist"] = timed(lambda: shortlist.peaks_with(newcomer, limit, PROBABILITY), SCORED)
    stored |= circumstances(0, 1)
    (RESULTS / "nodes.json").write_text(json.dumps(stored, indent=1))
    page = f"{table(stored)}\n\n{made_with({'all': stored})}\n"
    (RESULTS / "nodes.md").write_text(page)
    print(page)


def decided(usage: FloatArray, limits: FloatArray) -> int:
    """How many of the nodes have a peak."""
    tasks = [NodeTasks(usage[n % DIFFERENT], limits[n % DIFFERENT], limits[n % DIFFERENT]) for n in range(NODES)]
    return len(told_peaks(tasks, violation_probability=PROBABILITY, horizon_steps=STEPS_A_DAY))


def timed(work: Callable[[], object], times: int) -> dict[str, float]:
    """Milliseconds of wall time and of CPU, the median, and of wall time what one in twenty exceeds."""
    walls, cpus = [], []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.thread_time()
        work()
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.thread_time() - cpu))
    return {
        "cpu_ms": round(float(np.median(cpus)), 3),
        "wall_ms": round(float(np.median(walls)), 3),
        "wall_p95_ms": round(float(np.quantile(walls, 0.95)), 3),
    }


def table(stored: dict[str, Any]) -> str:
    """The stored results as Markdown."""
    lines = ["| what | CPU ms, median | wall ms, median | wall ms, 95 % |", "|---|---|---|---|"]
    for name, made in stored.items():
        if isinstance(made, dict) and "cpu_ms" in made:
            figures = " | ".join(f"{made[key]:,.3g}" for key in ("cpu_ms", "wall_ms", "wall_p95_ms"))
            lines.append(f"| {name} | {figures} |")
    size = f"{stored['nodes']:,} nodes of {stored['pods']} pods, a shortlist of {stored['shortlist']}"
    head = f"{size}; load of the machine {stored['load']}"
    return "\n".join([head, "", *lines])


if __name__ == "__main__":
    main()
