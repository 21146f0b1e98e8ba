"""The controller on a real control plane: how fast a changed forecast becomes replicas, and what it asks of the API.

    python -m benchmarks.controller_cluster 1000

etcd, API server, controllers, scheduler and kwok (tools/controlplane) run on this machine: all of them share its cores
with the controller. Each object steers a Deployment of two replicas; then the forecast of all of them doubles at once.
Results are kept in benchmarks/results/controller_cluster.json and shown in controller_cluster.md.
"""

import argparse
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
import yaml

from benchmarks.forecast_speed import circumstances
from tests.support.controlplane import ControlPlane, JsonObject, deployment, wait_until

if TYPE_CHECKING:
    from predictor.usage.panel import UsagePanel

RESULTS = Path(__file__).with_name("results")
CRD = Path(__file__).parent.parent / "deploy" / "crd.yaml"
STEP_SECONDS, DAYS, DAY_SECONDS = 300, 9, 86_400
LOW, HIGH = 1.7, 3.4
"""Cores of each workload before and after: two replicas and four, at a target of .9 of one core each."""
RISE_SECONDS = 43_200
"""Of each day."""
INTERVAL_SECONDS = 1.0
QUIET_TICKS = 10
WAIT_SECONDS = 900.0


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", type=int, nargs="+")
    parser.add_argument("--writes-per-second", type=float, default=50.0, help="scaling.writes_per_second.")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    file = RESULTS / "controller_cluster.json"
    stored: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for count in asked.objects:
        made = measured(count, asked.writes_per_second)
        stored[f"{count} objects, {asked.writes_per_second:g} writes/s"] = made | circumstances(0, 1)
        file.write_text(json.dumps(stored, indent=1))
        (RESULTS / "controller_cluster.md").write_text(page(stored))
    print(page(stored))


def measured(count: int, writes_per_second: float) -> dict[str, Any]:
    """One fleet, from its first tick to the pods that the rise asks for."""
    from autoscaler.controller.loop import Controller, CycleReport
    from autoscaler.controller.memory import MemoryLeadership
    from autoscaler.kube.client import KubeClient
    from autoscaler.kube.cluster import KubeCluster
    from autoscaler.settings import ScalingSettings
    from predictor.registry.memory import MemoryBundleStore
    from predictor.serving.predictor import Predictor
    from predictor.sources.files import MemorySource

    namespace = "fleet"
    panel = _history(count, namespace)
    settings = ScalingSettings(
        interval="1s", writes_per_second=writes_per_second, lead_time="10m", longest_lead_time="10m"
    )
    capacity = {"cpu": "256", "memory": "1Ti", "pods": "500"}
    with ControlPlane(node_count=max(3, count // 60), node_capacity=capacity) as plane:
        plane.apply(yaml.safe_load(CRD.read_text()))
        plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(plane.apply, (a_deployment(n, namespace) for n in range(count))))
            list(pool.map(plane.apply, (_object(n, namespace) for n in range(count))))
        wait_until(lambda: ready_pods(plane, namespace) == 2 * count, WAIT_SECONDS, "the fleet")

        asked: Counter[str] = Counter()
        client = KubeClient.connect(plane.kubeconfig)
        client.told = lambda method, _status: asked.update([method])
        cluster = KubeCluster(client, (namespace,))
        predictor = Predictor(
            MemorySource(panel),
            MemoryBundleStore(),
            step_seconds=STEP_SECONDS,
            span=timedelta(days=8),
            horizon=timedelta(hours=1),
            levels=(0.5, 0.99),
            stale_after=settings.stale_after,
        )
        # Half an hour before the rise of the last day, by a clock that the benchmark moves.
        shift = panel.start_seconds + (DAYS - 1) * DAY_SECONDS + RISE_SECONDS - 1800 - time.time()
        controller = Controller(
            cluster,
            cluster,
            predictor,
            settings,
            lambda: time.time() + shift,
            MemoryLeadership(),
            monotonic=time.monotonic,
        )
        first = _cycles(controller.cycle, lambda report: _waiting(controller) == 0 and bool(report.records))
        calls = Counter(asked)
        quiet = [_taken(controller.cycle) for _ in range(QUIET_TICKS)]
        quiet_calls = {name: n - calls[name] for name, n in asked.items() if n != calls[name]}

        before = Counter(asked)
        shift += 1500  # five minutes before: the rise lies within the lead time
        began = time.time()
        last_patch = 0.0

        def done(report: CycleReport) -> bool:
            nonlocal last_patch
            applied = [r for r in report.records if r.result.outcome.value == "applied"]
            last_patch = time.time() - began if applied else last_patch
            return bool(last_patch) and all(r.plan.decision.desired == r.plan.decision.current for r in report.records)

        _cycles(controller.cycle, done)
        wait_until(lambda: ready_pods(plane, namespace) == 4 * count, WAIT_SECONDS, "the pods")
        all_ready = time.time() - began
        cluster.close()
        client.close()
    rise = {name: n - before[name] for name, n in asked.items()}
    return {
        "objects": count,
        "writes_per_second": writes_per_second,
        "first_statuses_seconds": first,
        "quiet_tick_cpu_seconds": float(np.median([cpu for cpu, _ in quiet])),
        "quiet_tick_seconds": float(np.median([wall for _, wall in quiet])),
        "quiet_calls_per_tick": sum(quiet_calls.values()) / QUIET_TICKS,
        "last_patch_seconds": last_patch,
        "all_ready_seconds": all_ready,
        "calls_of_the_rise": rise,
    }


def page(stored: dict[str, Any]) -> str:
    """The stored results as Markdown."""
    lines = [
        "| objects | writes/s | first statuses s | quiet tick s (CPU s) | API calls per quiet tick "
        "| last scale patch s | all pods Ready s | API calls of the rise |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for made in sorted(stored.values(), key=lambda each: (each["objects"], each["writes_per_second"])):
        calls = ", ".join(f"{n} {name}" for name, n in sorted(made["calls_of_the_rise"].items()) if n)
        lines.append(
            f"| {made['objects']:,} | {made['writes_per_second']:g} | {made['first_statuses_seconds']:.1f} "
            f"| {made['quiet_tick_seconds']:.2f} ({made['quiet_tick_cpu_seconds']:.2f}) "
            f"| {made['quiet_calls_per_tick']:.1f} | {made['last_patch_seconds']:.1f} "
            f"| {made['all_ready_seconds']:.1f} | {calls} |"
        )
    last = next(reversed(stored.values()))
    lines += [
        "",
        f"{last['machine']}, {last['cores']} cores, Python {last['python']}; {last['at']}; load {last['load']}.",
    ]
    return "\n".join(lines) + "\n"


def _history(count: int, namespace: str) -> "UsagePanel":
    """The same rise at noon of every day for all."""
    from predictor.usage.panel import Resource, SeriesKey, UsagePanel

    start = (int(time.time()) // DAY_SECONDS - DAYS) * DAY_SECONDS
    seconds = np.arange(DAYS * DAY_SECONDS // STEP_SECONDS) * STEP_SECONDS % DAY_SECONDS
    keys = tuple(SeriesKey(f"{namespace}/Deployment/w{n}", Resource.CPU) for n in range(count))
    return UsagePanel(keys, start, STEP_SECONDS, np.tile(np.where(seconds >= RISE_SECONDS, HIGH, LOW), (count, 1)))


def _cycles(cycle: Callable[[], Any], is_done: Callable[[Any], bool]) -> float:
    """Seconds of cycles, one per interval, until one of them is what is waited for."""
    began = time.time()
    while time.time() - began < WAIT_SECONDS:
        started = time.time()
        if is_done(cycle()):
            return time.time() - began
        time.sleep(max(0.0, INTERVAL_SECONDS - (time.time() - started)))
    raise TimeoutError(f"not done within {WAIT_SECONDS:g} s")


def _waiting(controller: Any) -> float:
    return float(controller.metrics.registry.get_sample_value("foresize_statuses_waiting") or 0.0)


def _taken(cycle: Callable[[], Any]) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = time.process_time(), time.time()
    cycle()
    return time.process_time() - cpu, time.time() - wall


def ready_pods(plane: ControlPlane, namespace: str) -> int:
    """Of all Deployments of the namespace."""
    items = plane.get(f"/apis/apps/v1/namespaces/{namespace}/deployments")["items"]
    return sum(int(item.get("status", {}).get("readyReplicas") or 0) for item in items)


def a_deployment(number: int, namespace: str) -> JsonObject:
    """Of two replicas of a core each."""
    return deployment(f"w{number}", namespace, 2, requests={"cpu": "1", "memory": "64Mi"})


def _object(number: int, namespace: str) -> JsonObject:
    name = f"w{number}"
    return {
        "apiVersion": "foresize.io/v1alpha1",
        "kind": "PredictiveAutoscaler",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "mode": "Auto",
            "horizontal": {"maxReplicas": 10, "behavior": {"scaleUp": {"tolerance": "0"}}},
        },
    }


if __name__ == "__main__":
    main()
