"""What one tick of the controller costs with forecasts in memory: CPU time, memory, and how both grow.

    python -m benchmarks.controller_tick 1000 10000 50000
    python -m benchmarks.controller_tick 1000 --ticks 1000        whether memory stays where it is

Every size is measured in a process of its own, on a cluster in memory, so that what is measured is the controller: the
snapshot, one decision per object, the status of each, and nothing to write as nothing changes. Results are kept in
benchmarks/results/controller_tick.json and shown in controller_tick.md.
"""

import argparse
import json
import logging
import resource
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from benchmarks.fleet import synthetic_usage
from benchmarks.forecast_speed import circumstances, growth_exponent

RESULTS = Path(__file__).with_name("results")
ROOT = Path(__file__).parent.parent
DAYS = 8
STEP_SECONDS = 300
START_SECONDS = 1_767_571_200
TICK_SECONDS = 0.25
"""Between two ticks by the controller's clock: short, so that all of them fall into one step of the history."""
WARM_TICKS = 3


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="+", help="Numbers of objects.")
    parser.add_argument("--ticks", type=int, default=20, help="How many ticks are measured.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", action="store_true", help="Measure one size in this process and print JSON.")
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(measured(asked.sizes[0], asked.ticks, asked.seed)))
        return
    file = RESULTS / "controller_tick.json"
    stored: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for size in asked.sizes:
        command = [sys.executable, "-m", "benchmarks.controller_tick", str(size), "--here"]
        command += ["--ticks", str(asked.ticks), "--seed", str(asked.seed)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        made = json.loads(done.stdout.splitlines()[-1])
        stored[f"{size} objects, {asked.ticks} ticks"] = made | circumstances(asked.seed, 1)
        file.write_text(json.dumps(stored, indent=1))
        (RESULTS / "controller_tick.md").write_text(page(stored))
    print(page(stored))


def measured(size: int, ticks: int, seed: int) -> dict[str, Any]:
    """One fleet of objects: its first tick, which writes every status, and those after it, which write nothing."""
    from autoscaler.cluster.resources import Resources
    from autoscaler.controller.autoscalers import Mode, PredictiveAutoscaler, TargetRef
    from autoscaler.controller.loop import Controller
    from autoscaler.controller.memory import MemoryCluster, MemoryLeadership
    from autoscaler.controller.ports import TargetWorkload
    from autoscaler.settings import ScalingSettings
    from predictor.registry.memory import MemoryBundleStore
    from predictor.serving.predictor import Predictor
    from predictor.sources.files import MemorySource
    from predictor.usage.panel import Resource, SeriesKey, UsagePanel

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    usage = synthetic_usage(size, days=DAYS, step_seconds=STEP_SECONDS, seed=seed)
    names = [f"ns{n % 100}/Deployment/w{n}" for n in range(size)]
    panel = UsagePanel(tuple(SeriesKey(n, Resource.CPU) for n in names), START_SECONDS, STEP_SECONDS, usage)
    highest = np.nan_to_num(np.nanmax(usage, axis=1))
    cluster = MemoryCluster()
    for number, name in enumerate(names):
        namespace, kind, short = name.split("/")
        request = max(highest[number] / 8, 0.01)
        cluster.put(TargetWorkload(name, f"target {name}", 10, 10, Resources(cpu_cores=request), "", (20.0,) * 10))
        cluster.put(
            PredictiveAutoscaler(
                namespace=namespace,
                name=short,
                uid=f"object {name}",
                generation=1,
                target=TargetRef("apps/v1", kind, short),
                min_replicas=2,
                max_replicas=40,
                mode=Mode.OBSERVE,
            )
        )
    now = float(START_SECONDS + DAYS * 86_400)

    def clock() -> float:
        return now

    settings = ScalingSettings(interval="30s", writes_per_second=1_000_000)
    predictor = Predictor(
        MemorySource(panel),
        MemoryBundleStore(),
        step_seconds=STEP_SECONDS,
        span=timedelta(days=DAYS),
        horizon=timedelta(hours=4),
        levels=(0.5, 0.9, 0.95, 0.99),
        stale_after=settings.stale_after,
    )
    controller = Controller(cluster, cluster, predictor, settings, clock, MemoryLeadership())
    first = _timed(controller.cycle)
    written = cluster.writes
    for _ in range(WARM_TICKS):
        now += TICK_SECONDS
        controller.cycle()
    before_mb, writes_before = _memory_mb(), cluster.writes
    seconds = []
    for _ in range(ticks):
        now += TICK_SECONDS
        seconds.append(_timed(controller.cycle))
    return {
        "objects": size,
        "ticks": ticks,
        "first_tick_cpu_seconds": first,
        "first_tick_writes": written,
        "tick_cpu_seconds": float(np.median(seconds)),
        "slowest_tick_cpu_seconds": max(seconds),
        "writes_per_tick": (cluster.writes - writes_before) / ticks,
        "memory_mb": _memory_mb(),
        "memory_grown_mb": _memory_mb() - before_mb,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def page(stored: dict[str, Any]) -> str:
    """The stored results as Markdown."""
    lines = [
        "| objects | ticks | CPU s of one tick (median, slowest) | of the first, with every status | writes per tick "
        "| memory MB | grown MB | peak MB | load before |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for made in sorted(stored.values(), key=lambda each: (each["objects"], each["ticks"])):
        lines.append(
            f"| {made['objects']:,} | {made['ticks']:,} | {made['tick_cpu_seconds']:.2f}, "
            f"{made['slowest_tick_cpu_seconds']:.2f} | {made['first_tick_cpu_seconds']:.2f} "
            f"| {made['writes_per_tick']:.2f} | {made['memory_mb']:.0f} | {made['memory_grown_mb']:.1f} "
            f"| {made['peak_mb']:,} | {made['load']:.1f} |"
        )
    by_size = {made["objects"]: made["tick_cpu_seconds"] for made in stored.values()}
    last = next(reversed(stored.values()))
    lines += [
        "",
        f"CPU seconds of a tick grow as objects^{growth_exponent(by_size):.2f}.",
        "",
        f"{last['machine']}, {last['cores']} cores, Python {last['python']}; {last['at']}.",
    ]
    return "\n".join(lines) + "\n"


def _timed(work: Any) -> float:
    """CPU seconds of this process."""
    before = time.process_time()
    work()
    return time.process_time() - before


def _memory_mb() -> float:
    """Resident memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
