"""What the pods of one namespace use, as their nodes' kubelets would show it: real pods, with cores that tests set.

Read by a real Prometheus that also holds a past of some of them.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.demo.exporters import RawSeries
from tests.support.http_answers import Answer, Asked, answering
from tests.support.kube_api import JsonObject
from tests.support.prometheus import a_prometheus

TYPES = "\n".join(
    f"# TYPE {name} {kind}"
    for name, kind in (
        ("container_cpu_usage_seconds_total", "counter"),
        ("container_memory_working_set_bytes", "gauge"),
        ("kube_pod_owner", "gauge"),
        ("kube_pod_info", "gauge"),
        ("kube_pod_status_phase", "gauge"),
        ("node_pressure_cpu_waiting_seconds_total", "counter"),
    )
)


@dataclass
class LiveNodes:
    """How many cores each pod uses now, by the beginning of its name."""

    pods: Callable[[], Sequence[JsonObject]]
    url: str = ""
    """Base address of the Prometheus that reads it."""
    cores: dict[str, float] = field(default_factory=dict)
    silent_nodes: set[str] = field(default_factory=set)
    """Whose kubelets nobody can scrape."""
    cpu_pressure: dict[str, float] = field(default_factory=dict)
    """By node, the share of time in which tasks wait for CPU; of others nobody tells it."""
    _used_seconds: dict[str, tuple[float, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def use(self, cores: Mapping[str, float]) -> None:
        """From now on each pod whose name begins so uses so many cores."""
        with self._lock:
            self.cores |= cores

    def metrics(self, asked: Asked, number: int) -> Answer:
        """What cAdvisor and kube-state-metrics would show of the pods that run."""
        lines = [TYPES]
        now = time.monotonic()
        for pod in self.pods():
            name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
            node = pod["spec"].get("nodeName")
            if not node or pod.get("status", {}).get("phase") != "Running":
                continue
            ids = f'namespace="{namespace}",pod="{name}"'
            owner = next(iter(pod["metadata"].get("ownerReferences") or ()), {"kind": "<none>", "name": "<none>"})
            lines += [
                f'kube_pod_owner{{{ids},owner_kind="{owner["kind"]}",owner_name="{owner["name"]}"}} 1',
                f'kube_pod_info{{{ids},node="{node}"}} 1',
                f'kube_pod_status_phase{{{ids},phase="Running"}} 1',
            ]
            if node in self.silent_nodes:
                continue
            container = f'{ids},container="app",id="/live/{pod["metadata"]["uid"]}"'
            total = self._total(pod["metadata"]["uid"], name, now)
            lines += [
                f"container_cpu_usage_seconds_total{{{container}}} {total:.6f}",
                f"container_memory_working_set_bytes{{{container}}} {2**30}",
            ]
        for node, share in self.cpu_pressure.items():
            waited = self._grown(f"pressure of {node}", share, now)
            lines.append(f'node_pressure_cpu_waiting_seconds_total{{node="{node}"}} {waited:.6f}')
        return Answer(body="\n".join([*lines, ""]).encode(), headers={"content-type": "text/plain; version=0.0.4"})

    def _total(self, uid: str, name: str, now: float) -> float:
        with self._lock:
            cores = next((each for begin, each in self.cores.items() if name.startswith(begin)), 0.0)
        return self._grown(uid, cores, now)

    def _grown(self, what: str, per_second: float, now: float) -> float:
        with self._lock:
            total, before = self._used_seconds.get(what, (1000.0, now))
            total += per_second * (now - before)
            self._used_seconds[what] = (total, now)
            return total


@contextmanager
def live_nodes(
    folder: Path, pods: Callable[[], Sequence[JsonObject]], past: Sequence[RawSeries], start_seconds: int
) -> Iterator[LiveNodes]:
    """The exporter and its Prometheus, both running."""
    nodes = LiveNodes(pods)
    with answering(nodes.metrics) as exporter:
        address = exporter.url.removeprefix("http://")
        targets = {"nodes": [address]}
        with a_prometheus(folder, past, start_seconds=start_seconds, scrape_targets=targets) as prometheus:
            nodes.url = prometheus.url
            yield nodes
