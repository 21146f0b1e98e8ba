"""The HPA on a real control plane, beside foresize: how fast a metric that doubles becomes replicas and pods.

    python -m benchmarks.hpa_cluster 1000

First `benchmarks.controller_cluster` is measured, then as many HorizontalPodAutoscalers on the same kind of
Deployments, steered by kube-controller-manager with its own defaults (each HPA looked at every 15 s, by five workers
at a time). They read an external metric from a small API server that is made here and put behind the API aggregation;
it doubles for all at once. What an HPA sees is demand that has come, what foresize sees is a forecast of it: only the
way from there to replicas is compared. Results are kept in
benchmarks/results/hpa_cluster.json and shown in hpa_cluster.md.
"""

import argparse
import json
import logging
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import structlog

from benchmarks.controller_cluster import HIGH, LOW, WAIT_SECONDS, a_deployment, measured, ready_pods
from benchmarks.forecast_speed import circumstances
from tests.support.controlplane import ControlPlane, JsonObject, wait_until

RESULTS = Path(__file__).with_name("results")
NAMESPACE = "fleet"
GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
ROOT = f"/apis/{GROUP}/{VERSION}"
SETTLE_SECONDS = 30.0
"""Two looks of the HPA at every object, before the metric doubles."""


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", type=int, nargs="+")
    parser.add_argument("--controllers-qps", type=int, default=1000, help="--kube-api-qps of kube-controller-manager.")
    parser.add_argument("--hpa-alone", action="store_true", help="Do not measure foresize again.")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    file = RESULTS / "hpa_cluster.json"
    stored: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for count in asked.objects:
        if not asked.hpa_alone:
            stored[f"foresize, {count}"] = measured(count, 50.0) | {"controllers_qps": 1000} | circumstances(0, 1)
        made = hpas(count, asked.controllers_qps) | circumstances(0, 1)
        stored[f"HPA, {count}, {asked.controllers_qps} calls/s"] = made
        file.write_text(json.dumps(stored, indent=1))
        (RESULTS / "hpa_cluster.md").write_text(page(stored))
    print(page(stored))


@dataclass
class Demand:
    """The external metric, which is the same for all."""

    cores: float
    asked: int = 0
    """How often it was asked for."""

    def answer(self, path: str) -> JsonObject | None:
        """What the API says at a path; None where there is nothing."""
        if path.startswith(f"{ROOT}/namespaces/"):
            self.asked += 1
            value = {"metricName": "demand", "metricLabels": {}, "value": f"{round(1000 * self.cores)}m"}
            value["timestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            kind = {"kind": "ExternalMetricValueList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}}
            return kind | {"items": [value]}
        if path == ROOT:
            resource = {"name": "demand", "singularName": "", "namespaced": True, "verbs": ["get"]}
            resource["kind"] = "ExternalMetricValueList"
            listed = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}"}
            return listed | {"resources": [resource]}
        return None


@contextmanager
def served(demand: Demand, certificate: Path, key: Path) -> Iterator[int]:
    """The metric over HTTPS, as long as the block runs; its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = demand.answer(self.path.partition("?")[0])
            body = json.dumps(answer or {"kind": "Status", "apiVersion": "v1", "code": 404}).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def hpas(count: int, controllers_qps: int) -> dict[str, Any]:
    """One fleet, from its first look at the metric to the pods that the doubled metric asks for."""
    capacity = {"cpu": "256", "memory": "1Ti", "pods": "500"}
    demand = Demand(LOW)
    nodes = max(3, count // 60)
    with ControlPlane(node_count=nodes, node_capacity=capacity, controllers_qps=controllers_qps) as plane:
        assert plane.folder is not None
        with served(demand, plane.folder / "server.crt", plane.folder / "server.key") as port:
            plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            for manifest in the_api(port):
                plane.apply(manifest)
            wait_until(lambda: plane.get(ROOT)["resources"], WAIT_SECONDS, "the metric behind the API server")
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(plane.apply, (a_deployment(n, NAMESPACE) for n in range(count))))
                wait_until(lambda: ready_pods(plane, NAMESPACE) == 2 * count, WAIT_SECONDS, "the fleet")
                created = time.time()
                list(pool.map(plane.apply, (an_hpa(n) for n in range(count))))
            wait_until(lambda: len(active(plane)) == count, WAIT_SECONDS, "a first look at all")
            first = time.time() - created
            time.sleep(SETTLE_SECONDS)
            before = demand.asked
            demand.cores = HIGH
            began = time.time()
            wait_until(lambda: scaled(plane) == count, WAIT_SECONDS, "the replicas")
            last_scale = time.time() - began
            wait_until(lambda: ready_pods(plane, NAMESPACE) == 4 * count, WAIT_SECONDS, "the pods")
            all_ready = time.time() - began
    return {
        "objects": count,
        "controllers_qps": controllers_qps,
        "first_statuses_seconds": first,
        "last_patch_seconds": last_scale,
        "all_ready_seconds": all_ready,
        "asked_for_the_metric": demand.asked - before,
    }


def the_api(port: int) -> Iterator[JsonObject]:
    """What puts the metric's server behind the API server."""
    name = {"name": "metric", "namespace": NAMESPACE}
    yield {"apiVersion": "v1", "kind": "Service", "metadata": name} | {
        "spec": {"type": "ExternalName", "externalName": "localhost"}
    }
    yield {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{VERSION}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": name | {"port": port},
        },
    }


def an_hpa(number: int) -> JsonObject:
    """The same target as of foresize in `controller_cluster`: .9 of a core per replica."""
    name = f"w{number}"
    metric = {"name": "demand", "selector": {"matchLabels": {"workload": name}}}
    target = {"type": "AverageValue", "averageValue": "900m"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 1,
            "maxReplicas": 10,
            "metrics": [{"type": "External", "external": {"metric": metric, "target": target}}],
        },
    }


def active(plane: ControlPlane) -> list[str]:
    """HPAs that have seen the metric."""
    items = plane.get(f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers")["items"]
    conditions = ((item, each) for item in items for each in item.get("status", {}).get("conditions") or ())
    found = [item for item, each in conditions if each["type"] == "ScalingActive" and each["status"] == "True"]
    return [str(item["metadata"]["name"]) for item in found]


def scaled(plane: ControlPlane) -> int:
    """Deployments that have been asked for four replicas; asked for seldom, as the list is large."""
    time.sleep(0.5)
    items = plane.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments")["items"]
    return sum(item["spec"]["replicas"] == 4 for item in items)


def page(stored: dict[str, Any]) -> str:
    """The stored results as Markdown."""
    lines = [
        "| | objects | calls/s of the controllers | all seen once s | last scale patch s | all pods Ready s | load |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, made in stored.items():
        lines.append(
            f"| {name.partition(',')[0]} | {made['objects']:,} | {made['controllers_qps']:,} "
            f"| {made['first_statuses_seconds']:.1f} | {made['last_patch_seconds']:.1f} "
            f"| {made['all_ready_seconds']:.1f} | {made['load']} |"
        )
    last = next(reversed(stored.values()))
    lines += ["", f"{last['machine']}, {last['cores']} cores, Python {last['python']}; {last['at']}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
