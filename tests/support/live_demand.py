"""Demand that a test sets while it runs: an exporter with the series of made-up pods, read by a real Prometheus.

The gate stands in front of that Prometheus and lets it misbehave: cut off, silent, lagging behind, or failing.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import orjson

from tests.support.http_answers import Answer, Asked, answering
from tests.support.prometheus import a_prometheus
from tests.support.relay import Relay

STEP_SECONDS = 2
"""Spacing of what the controllers of these tests observe; Prometheus scrapes every second."""
TYPES = "\n".join(
    f"# TYPE {name} gauge" for name in ("container_memory_working_set_bytes", "kube_pod_owner", "kube_replicaset_owner")
)


@dataclass
class LiveDemand:
    """How many bytes each Deployment uses now, as its pods' exporters show it.

    Memory, because a gauge shows what was set with the next scrape and exactly.
    """

    url: str = ""
    """Base address of the Prometheus that reads it."""
    _bytes_by_name: dict[tuple[str, str], float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def use(self, namespace: str, amount: float, *names: str) -> None:
        """From now on each of these Deployments uses so much in all; NaN is what a broken exporter says."""
        with self._lock:
            self._bytes_by_name |= {(namespace, name): amount for name in names}

    def forget(self, namespace: str) -> None:
        """Its Deployments are gone."""
        with self._lock:
            self._bytes_by_name = {key: each for key, each in self._bytes_by_name.items() if key[0] != namespace}

    def metrics(self, asked: Asked, number: int) -> Answer:
        """What cAdvisor and kube-state-metrics would show of one pod of each."""
        with self._lock:
            used = dict(self._bytes_by_name)
        lines = [TYPES]
        for (namespace, name), amount in used.items():
            pod, owner = f'namespace="{namespace}",pod="{name}-5c9f-x"', f"{name}-5c9f"
            lines += [
                f'container_memory_working_set_bytes{{{pod},container="app"}} {amount}',
                f'kube_pod_owner{{{pod},owner_kind="ReplicaSet",owner_name="{owner}"}} 1',
                f'kube_replicaset_owner{{namespace="{namespace}",replicaset="{owner}",owner_kind="Deployment",'
                f'owner_name="{name}"}} 1',
            ]
        return Answer(body="\n".join([*lines, ""]).encode(), headers={"content-type": "text/plain; version=0.0.4"})


@contextmanager
def live_demand(folder: Path) -> Iterator[LiveDemand]:
    """The exporter and its Prometheus, both running; nobody uses anything yet."""
    demand = LiveDemand()
    with answering(demand.metrics) as exporter:
        address = exporter.url.removeprefix("http://")
        with a_prometheus(folder, scrape_targets={"demand": [address]}) as prometheus:
            demand.url = prometheus.url
            yield demand


@dataclass
class Gate:
    """What stands between a Prometheus and those who ask it."""

    upstream: str
    url: str = ""
    is_failing: bool = False
    """Whether every answer is a 500."""
    ends_at_seconds: float | None = None
    """Epoch second after which it shows no samples, as a store that lags behind."""
    most_points: float = math.inf
    """Asked for more steps at once it fails, as a store that is too slow for them."""
    asked: list[Asked] = field(default_factory=list)
    """What it was asked, oldest first."""

    def __post_init__(self) -> None:
        self._client = httpx2.Client(base_url=self.upstream, trust_env=False, timeout=30)
        self._relay: Relay | None = None

    def cut(self) -> None:
        """Ends every connection and takes no new one."""
        assert self._relay is not None
        self._relay.cut()

    def lag(self) -> None:
        """Shows nothing newer than now."""
        self.ends_at_seconds = time.time()

    def mend(self) -> None:
        """All is as it should be again."""
        assert self._relay is not None
        self.is_failing, self.ends_at_seconds = False, None
        self._relay.mend()

    def answer(self, asked: Asked, number: int) -> Answer:
        """The real one's answer, or what is made of it."""
        self.asked.append(asked)
        span = {name: int(asked.form.get(name, 0)) for name in ("start", "end", "step")}
        if self.is_failing or span["end"] - span["start"] > span["step"] * self.most_points:
            return Answer(500, b"boom")
        kept = {name: asked.headers[name] for name in ("content-type",) if name in asked.headers}
        answer = self._client.request(asked.method, asked.path, content=asked.body, headers=kept)
        body = answer.content
        if self.ends_at_seconds is not None and answer.status_code == 200:
            decoded = orjson.loads(body)
            data = decoded.get("data")
            for series in data.get("result", ()) if isinstance(data, dict) else ():
                series["values"] = [v for v in series.get("values", ()) if v[0] <= self.ends_at_seconds]
            if isinstance(data, dict) and "result" in data:
                data["result"] = [series for series in data["result"] if series["values"]]
            body = orjson.dumps(decoded)
        return Answer(answer.status_code, body, {"content-type": answer.headers.get("content-type", "")})


@contextmanager
def gated(upstream: str) -> Iterator[Gate]:
    """A gate that lets everything through until it is told otherwise."""
    gate = Gate(upstream)
    with answering(gate.answer) as server:
        address = urlsplit(server.url)
        relay = Relay((str(address.hostname), int(address.port or 80)))
        gate._relay, gate.url = relay, f"http://127.0.0.1:{relay.port}"
        try:
            yield gate
        finally:
            relay.close()
            gate._client.close()
