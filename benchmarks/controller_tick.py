"""What one tick of the controller costs with forecasts in memory: CPU time, memory, and how both grow.

    python -m benchmarks.controller_tick 1000 10000 50000
    python -m benchmarks.controller_tick 10000 --steady 1000      whether memory stays where it is while time goes on
    python -m benchmarks.controller_tick 10000 --serving          with all that serving holds in memory

Every size is measured in a process of its own, on a cluster in memory, so that what is measured is the controller: the
snapshot, one decision per object, the status of each. Usually all ticks fall into one step of the history, so that
nothing changes and nothing is written. With --steady time goes on by a quarter of a minute a tick, so that usage is
read and forecast anew every twentieth and statuses follow. With --serving a trained model forecasts CPU and memory of
all workloads from 28 days, with peaks, and learns within two of four ticks. Usage is made when it is asked for: what a
source needs to fetch it is not in the figures. Results are kept in benchmarks/results/controller_tick.json and shown in
controller_tick.md.
"""

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from math import ceil, nan
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from autoscaler.controller.demand import REBUILT_AT_ONCE
from autoscaler.controller.loop import Controller
from autoscaler.controller.memory import MemoryCluster, MemoryLeadership
from autoscaler.settings import ScalingSettings
from autoscaler.wiring import collect_garbage_seldom
from benchmarks.controller_fleet import STEP_SECONDS, FleetSource, a_cluster, days_after_start, train_to, widened
from benchmarks.forecast_speed import circumstances, growth_exponent
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.bundle import Bundle
from predictor.serving.predictor import Predictor
from predictor.usage.panel import Resource

RESULTS = Path(__file__).with_name("results")
ROOT = Path(__file__).parent.parent
DAYS, SERVING_DAYS = 8, 28
TICK_SECONDS, STEADY_TICK_SECONDS = 0.25, 15.0
"""Between two ticks by the controller's clock."""
WARM_TICKS = 3
STEADY_MARKS = (1, 10, *range(100, 1000, 100))
"""After so many ticks memory is looked at, and at the end; the page shows some of them."""
SERVED = (Resource.CPU, Resource.MEMORY)
LAST_SEEN_TICKS = 100


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="+", help="Numbers of objects.")
    parser.add_argument("--ticks", type=int, default=20, help="How many ticks are measured within one step.")
    parser.add_argument("--steady", type=int, default=0, metavar="TICKS", help="Let time go on for so many ticks.")
    parser.add_argument("--serving", action="store_true", help="With a model and 28 days of CPU and memory.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", type=Path, help="Measure one size in this process, the model from there; print JSON.")
    parser.add_argument("--train", type=Path, help="Only train a model for --serving, and save it there.")
    asked = parser.parse_args()
    if asked.train:
        train_to(asked.train, SERVED, days_after_start(SERVING_DAYS), asked.seed)
        return
    if asked.here:
        collect_garbage_seldom()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        size, seed = asked.sizes[0], asked.seed
        if asked.serving:
            made = serving(size, Bundle.load(asked.here), seed)
        else:
            made = steady(size, asked.steady, seed) if asked.steady else within_a_step(size, asked.ticks, seed)
        print(json.dumps(made))
        return
    file = RESULTS / "controller_tick.json"
    stored: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        if asked.serving:
            _run(asked.sizes[0], "--train", str(model), "--seed", str(asked.seed))
        for size in asked.sizes:
            options = ["--here", str(model), "--seed", str(asked.seed), "--ticks", str(asked.ticks)]
            options += ["--steady", str(asked.steady)] if asked.steady else []
            options += ["--serving"] if asked.serving else []
            made = json.loads(_run(size, *options).splitlines()[-1])
            kind = "serving" if asked.serving else f"steady over {asked.steady}" if asked.steady else str(asked.ticks)
            stored[f"{size} objects, {kind} ticks"] = made | circumstances(asked.seed, 1)
            file.write_text(json.dumps(stored, indent=1))
            (RESULTS / "controller_tick.md").write_text(page(stored))
    print(page(stored))


def _run(size: int, *options: str) -> str:
    command = [sys.executable, "-m", "benchmarks.controller_tick", str(size), *options]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


class Fleet:
    """A controller over a fleet, on a clock that moves when it is told to."""

    def __init__(self, source: FleetSource, days: int, began_at_seconds: float, bundle: Bundle | None = None) -> None:
        self.now = began_at_seconds
        self.cluster: MemoryCluster = a_cluster(source)
        store = MemoryBundleStore()
        if bundle is not None:
            store.set_alias("champion", store.add(bundle))
        settings = ScalingSettings(interval="30s", writes_per_second=1_000_000)
        predictor = Predictor(
            source,
            store,
            step_seconds=STEP_SECONDS,
            span=timedelta(days=days),
            horizon=timedelta(hours=2),
            levels=(0.5, 0.9, 0.95, 0.99),
            stale_after=settings.stale_after,
            peaks_within=settings.longest_lead_time + timedelta(seconds=STEP_SECONDS),
            threads=2,
        )
        self.controller = Controller(
            self.cluster,
            self.cluster,
            predictor,
            settings,
            lambda: self.now,
            MemoryLeadership(),
            other_resources=frozenset(source.resources),
        )

    def tick(self, after_seconds: float = 0.0) -> float:
        """CPU seconds of one cycle, so long after the one before."""
        self.now += after_seconds
        # What a cluster in memory remembers of Events is no part of the controller.
        self.cluster.events.clear()
        return _timed(self.controller.cycle)


def within_a_step(size: int, ticks: int, seed: int) -> dict[str, Any]:
    """One fleet of objects: its first tick, which writes every status, and those after it, which write nothing."""
    fleet = Fleet(FleetSource(size, seed=seed), DAYS, days_after_start(DAYS))
    first, written = fleet.tick(), fleet.cluster.writes
    # A new process takes in a few workloads' records of demand with each tick.
    rebuilding = [fleet.tick(TICK_SECONDS) for _ in range(ceil(size / REBUILT_AT_ONCE))]
    for _ in range(WARM_TICKS):
        fleet.tick(TICK_SECONDS)
    before_mb, writes_before = _memory_mb(), fleet.cluster.writes
    seconds = [fleet.tick(TICK_SECONDS) for _ in range(ticks)]
    return {
        "objects": size,
        "ticks": ticks,
        "first_tick_cpu_seconds": first,
        "first_tick_writes": written,
        "rebuilding_tick_cpu_seconds": float(np.median(rebuilding)),
        "tick_cpu_seconds": float(np.median(seconds)),
        "slowest_tick_cpu_seconds": max(seconds),
        "writes_per_tick": (fleet.cluster.writes - writes_before) / ticks,
        "memory_mb": _memory_mb(),
        "memory_grown_mb": _memory_mb() - before_mb,
        "peak_mb": _peak_mb(),
    }


def steady(size: int, ticks: int, seed: int) -> dict[str, Any]:
    """One fleet while time goes on: what memory holds after more and more ticks, and what a tick costs."""
    fleet = Fleet(FleetSource(size, seed=seed), DAYS, days_after_start(DAYS))
    memory, seconds = {}, []
    for number in range(1, ticks + 1):
        seconds.append(fleet.tick(STEADY_TICK_SECONDS))
        if number in STEADY_MARKS or number == ticks:
            memory[str(number)] = round(_memory_mb(), 1)
            print(f"{number} ticks: {memory[str(number)]} MB, {seconds[-1]:.2f} s CPU", file=sys.stderr, flush=True)
    return {
        "objects": size,
        "steady_ticks": ticks,
        "memory_mb_after_ticks": memory,
        "tick_cpu_seconds": float(np.median(seconds)),
        "mean_tick_cpu_seconds": float(np.mean(seconds)),
        "slowest_tick_cpu_seconds": max(seconds),
        "last_ticks_cpu_seconds": float(np.median(seconds[-LAST_SEEN_TICKS:])),
        "writes_per_tick": fleet.cluster.writes / ticks,
        "peak_mb": _peak_mb(),
    }


def serving(size: int, bundle: Bundle, seed: int) -> dict[str, Any]:
    """One fleet with a model: the memory and the CPU time of each kind of tick."""
    bare_mb = _memory_mb()
    began = days_after_start(SERVING_DAYS) + 4 * 3600
    fleet = Fleet(FleetSource(size, SERVED, seed), SERVING_DAYS, began, widened(bundle, size))
    objects_mb = _memory_mb()
    parts = {}
    for name, after in (
        ("first, which learns", 0),
        ("within the step", 30),
        ("of a new step", STEP_SECONDS),
        ("an hour on, which learns", 3600),
    ):
        cpu = fleet.tick(after)
        parts[name] = {"cpu_seconds": cpu, "memory_mb": round(_memory_mb(), 1), "peak_mb": _peak_mb()}
    return {
        "objects": size,
        "serving": parts,
        "imported_mb": round(bare_mb, 1),
        "objects_and_model_mb": round(objects_mb, 1),
        "peak_mb": _peak_mb(),
    }


def page(stored: dict[str, Any]) -> str:
    """The stored results as Markdown."""
    by_size = sorted(stored.values(), key=lambda each: (each["objects"], each.get("ticks", 0)))
    plain = [made for made in by_size if "ticks" in made]
    lines = [
        "| objects | ticks | CPU s of one tick (median, slowest) | of the first, with every status "
        "| of one in which records are rebuilt | writes per tick | memory MB | grown MB | peak MB | load before "
        "| machine |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {made['objects']:,} | {made['ticks']:,} | {made['tick_cpu_seconds']:.2f}, "
        f"{made['slowest_tick_cpu_seconds']:.2f} | {made['first_tick_cpu_seconds']:.2f} "
        f"| {made.get('rebuilding_tick_cpu_seconds', nan):.2f} | {made['writes_per_tick']:.2f} "
        f"| {made['memory_mb']:.0f} | {made['memory_grown_mb']:.1f} "
        f"| {made['peak_mb']:,} | {made['load']:.1f} | {made['machine']} |"
        for made in plain
    ]
    grown = growth_exponent({made["objects"]: made["tick_cpu_seconds"] for made in plain})
    lines += ["", f"CPU seconds of a tick grow as objects^{grown:.2f}.", ""]
    for made in (each for each in by_size if "steady_ticks" in each):
        shown = {"1", "100", str(made["steady_ticks"])}
        memory = ", ".join(
            f"{mb:,.0f} MB after {int(n):,}" for n, mb in made["memory_mb_after_ticks"].items() if n in shown
        )
        lines += [
            f"{made['objects']:,} objects over {made['steady_ticks']:,} ticks of {STEADY_TICK_SECONDS:g} s, usage read "
            f"and forecast every twentieth: {memory} ticks, {made['peak_mb']:,} MB at most; CPU s of a tick "
            f"{made['tick_cpu_seconds']:.2f} (mean {made['mean_tick_cpu_seconds']:.2f}, slowest "
            f"{made['slowest_tick_cpu_seconds']:.2f}, median of the last {LAST_SEEN_TICKS} "
            f"{made['last_ticks_cpu_seconds']:.2f}); {made['writes_per_tick']:,.0f} writes per tick; load "
            f"{made['load']:.1f}.",
            "",
        ]
    for made in (each for each in by_size if "serving" in each):
        lines += [
            f"{made['objects']:,} objects with a model of CPU and memory, 28 days: {made['imported_mb']:,.0f} MB after "
            f"the imports, {made['objects_and_model_mb']:,.0f} MB with objects and model, {made['peak_mb']:,} MB at "
            "most.",
            "",
            "| tick | CPU s | memory MB after it | peak MB until then |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {part['cpu_seconds']:.1f} | {part['memory_mb']:,.0f} | {part['peak_mb']:,} |"
            for name, part in made["serving"].items()
        ]
        lines.append("")
    last = next(reversed(stored.values()))
    lines.append(f"{last['machine']}, {last['cores']} cores, Python {last['python']}; {last['at']}.")
    return "\n".join(lines) + "\n"


def _timed(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    before = time.process_time()
    work()
    return time.process_time() - before


def _memory_mb() -> float:
    """Resident memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
