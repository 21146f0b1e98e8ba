"""What it costs to read a fleet's usage from Prometheus for a forecast: whole at each step, and appended to.

    python -m benchmarks.window 500 1000

A made-up fleet with CPU, memory, requests and limits of 28 days at 5 minutes is written into a real Prometheus on this
machine. Each way of reading it runs in a process of its own, without answers kept on disk: a first read and the steps
after it, among them the one an hour later that reads the last hours again. Memory is the reader's, not Prometheus's.
Results are kept in benchmarks/results/window.json and shown in window.md.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.controller_fleet import BYTES_PER_CORE, STEP_SECONDS, names_of
from benchmarks.fleet import DAY_SECONDS, synthetic_usage
from benchmarks.forecast_speed import circumstances
from models.forecast import FloatArray
from pipelines.demo.exporters import RawSeries, counter
from pipelines.demo.local_prometheus import find_prometheus, local_prometheus
from pipelines.demo.openmetrics import write_series
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.sources.window import UsageWindow
from predictor.usage.panel import Resource, UsagePanel

RESULTS = Path(__file__).with_name("results")
ROOT = Path(__file__).parent.parent
DAYS = 28
FOLLOWING_STEPS = 13
"""Beyond the window's first end, so that an hour's last hours are read again within them."""
SCRAPED_AFTER = 290
RESOURCES = (Resource.CPU, Resource.MEMORY)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="+", help="Numbers of workloads.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("whole", "appended"), help="Only one way of reading.")
    parser.add_argument("--here", nargs=3, metavar=("URL", "END", "WAY"), help="Read in this process; print JSON.")
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(read(asked.here[0], int(asked.here[1]), asked.here[2])))
        return
    file = RESULTS / "window.json"
    stored: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    programs = find_prometheus()
    steps = DAYS * DAY_SECONDS // STEP_SECONDS + FOLLOWING_STEPS
    start = (int(time.time()) // DAY_SECONDS - DAYS - 1) * DAY_SECONDS
    for size in asked.sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_series(Path(folder), fleet(size, steps, asked.seed), start, STEP_SECONDS, promtool=programs.promtool)
            for way in ("appended", "whole"):
                if asked.only not in (None, way):
                    continue
                with local_prometheus(Path(folder), programs=programs) as prometheus:
                    end = start + (steps - FOLLOWING_STEPS - 1) * STEP_SECONDS
                    command = [
                        sys.executable,
                        "-m",
                        "benchmarks.window",
                        str(size),
                        "--here",
                        prometheus.url,
                        str(end),
                        way,
                    ]
                    said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
                stored[f"{size} workloads, {way}"] = (
                    {"workloads": size, "way": way} | json.loads(said.splitlines()[-1]) | circumstances(asked.seed, 1)
                )
                file.write_text(json.dumps(stored, indent=1))
                (RESULTS / "window.md").write_text(page(stored))
    print(page(stored))


def fleet(size: int, steps: int, seed: int) -> list[RawSeries]:
    """A Deployment of one pod for each workload, as cAdvisor and kube-state-metrics show it."""
    usage = np.nan_to_num(synthetic_usage(size, days=DAYS + 1, step_seconds=STEP_SECONDS, seed=seed)[:, :steps])
    series = []
    for name, cores in zip(names_of(size), usage, strict=True):
        series += _of_workload(name, cores)
    return series


def _of_workload(name: str, cores: FloatArray) -> list[RawSeries]:
    namespace, _, short = name.split("/")
    pod, owner, ones = f"{short}-5c9f-x", f"{short}-5c9f", np.ones_like(cores)
    of_pod = (("namespace", namespace), ("pod", pod))
    container = (*of_pod, ("container", "main"))

    def one(metric: str, labels: tuple[tuple[str, str], ...], values: FloatArray) -> RawSeries:
        return RawSeries(metric, labels, 0, values, SCRAPED_AFTER)

    owned = (("namespace", namespace), ("replicaset", owner), ("owner_kind", "Deployment"), ("owner_name", short))
    made = [
        one("container_cpu_usage_seconds_total", (*container, ("id", f"/{pod}")), counter(cores * STEP_SECONDS)),
        one("container_memory_working_set_bytes", (*container, ("id", f"/{pod}")), cores * BYTES_PER_CORE),
        one("kube_pod_owner", (*of_pod, ("owner_kind", "ReplicaSet"), ("owner_name", owner)), ones),
        one("kube_replicaset_owner", owned, ones),
        one("kube_deployment_spec_replicas", (("namespace", namespace), ("deployment", short)), ones),
        one("kube_pod_status_phase", (*of_pod, ("phase", "Running")), ones),
        one("kube_pod_info", (*of_pod, ("node", "node-1")), ones),
    ]
    for what, share in (("requests", 0.5), ("limits", 1.0)):
        for of, amount in (("cpu", float(cores.max())), ("memory", float(cores.max()) * BYTES_PER_CORE)):
            labels = (*container, ("resource", of))
            made.append(one(f"kube_pod_container_resource_{what}", labels, ones * amount * share))
    return made


def read(url: str, end_seconds: int, way: str) -> dict[str, Any]:
    """Seconds and memory of the first read and of each step after it."""
    # Patient, so that a busy machine makes it slow but does not end it.
    endpoint = PrometheusEndpoint(url=url, timeout_seconds=900.0, deadline_seconds=3600.0)
    prometheus = PrometheusSource(endpoint, scrape_interval_seconds=STEP_SECONDS)
    source = UsageWindow(prometheus) if way == "appended" else prometheus
    bare_mb, panel = _memory_mb(), UsagePanel((), 0, STEP_SECONDS, np.empty((0, 0)))
    took: list[float] = []
    cpu: list[float] = []
    peaks: list[int] = []
    for step in range(FOLLOWING_STEPS + 1 if way == "appended" else 2):
        del panel
        end = end_seconds + step * STEP_SECONDS
        began, began_cpu = time.perf_counter(), time.process_time()
        panel = source.fetch(
            start_seconds=end - DAYS * DAY_SECONDS + STEP_SECONDS,
            end_seconds=end,
            step_seconds=STEP_SECONDS,
            resources=RESOURCES,
        ).slim()
        took.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    return {
        "series": len(panel.keys),
        "imported_mb": round(bare_mb, 1),
        "first_seconds": took[0],
        "step_seconds": float(np.median(took[1:])),
        "slowest_step_seconds": max(took[1:]),
        "first_cpu_seconds": cpu[0],
        "step_cpu_seconds": float(np.median(cpu[1:])),
        "first_peak_mb": peaks[0],
        "peak_mb": peaks[-1],
        "memory_mb": round(_memory_mb(), 1),
    }


def page(stored: dict[str, Any]) -> str:
    """The stored results as Markdown."""
    lines = [
        "| workloads | series | read | first read s (CPU) | a step s (median, slowest) | CPU s of a step "
        "| peak MB of the first read, of all | memory MB after | load before |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for made in sorted(stored.values(), key=lambda each: (each["workloads"], each["way"])):
        lines.append(
            f"| {made['workloads']:,} | {made['series']:,} | {made['way']} "
            f"| {made['first_seconds']:.1f} ({made['first_cpu_seconds']:.1f}) "
            f"| {made['step_seconds']:.2f}, {made['slowest_step_seconds']:.2f} | {made['step_cpu_seconds']:.2f} "
            f"| {made['first_peak_mb']:,}, {made['peak_mb']:,} | {made['memory_mb']:,.0f} | {made['load']:.1f} |"
        )
    last = next(reversed(stored.values()))
    lines += ["", f"{last['machine']}, {last['cores']} cores, Python {last['python']}; {last['at']}."]
    return "\n".join(lines) + "\n"


def _memory_mb() -> float:
    """Resident memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
