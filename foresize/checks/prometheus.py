"""Whether Prometheus can be read, and has what is needed."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from foresize.checks.check import REQUEST_SECONDS, Check, Checks

if TYPE_CHECKING:
    from pipelines.settings import Settings
    from predictor.sources.http import PrometheusClient

HISTORY_WANTED_DAYS = 8
UNSEEN = (
    "only needed where you oversell nodes: the guard looks at usage and MemoryPressure alone without node-exporter's "
    "collector `pressure` or kubelets with KubeletPSI"
)
"""What is not seen where nobody measures CPU pressure."""
EXPORTERS: tuple[tuple[str, str, str], ...] = (
    ("container_", "cAdvisor, which the kubelet exports at /metrics/cadvisor", "needed"),
    ("kube_pod_owner", "kube-state-metrics", "needed"),
    ("kube_replicaset_owner", "kube-state-metrics", "needed"),
    ("kube_horizontalpodautoscaler_", "HorizontalPodAutoscalers, which kube-state-metrics shows", "optional"),
    ("kube_", "kube-state-metrics", "wanted"),
    ("DCGM_", "NVIDIA's dcgm-exporter", "optional"),
    ("nginx_", "ingress-nginx", "optional"),
    ("foresize_", "PredictiveAutoscalers, which `foresize run` shows at /metrics", "optional"),
)
"""By the start of a metric's name: what exports it, and how much it is needed."""


def prometheus_checks(settings: "Settings", now_seconds: float) -> Checks:
    """Whether Prometheus answers, has the metrics, how often it scrapes and how far back it reaches."""
    from predictor.errors import PredictorError
    from predictor.sources.discovery import find_metrics
    from predictor.sources.http import PrometheusClient
    from predictor.sources.promql import (
        HELD_BACK_METRICS,
        KIN_METRICS,
        METRICS,
        POOL_METRICS,
        PRESSURE_METRICS,
        selector,
    )
    from predictor.wiring import build_endpoint

    configured = build_endpoint(settings)
    endpoint = replace(configured, timeout_seconds=min(REQUEST_SECONDS, configured.timeout_seconds), retries=0)
    matchers = settings.prometheus.matchers
    others = (*POOL_METRICS, *KIN_METRICS, *HELD_BACK_METRICS, "kube_pod_container_resource_requests")
    names = sorted({*sum(METRICS.values(), ()), *others})
    now = int(now_seconds)
    client = PrometheusClient(endpoint)
    try:
        try:
            client.range("vector(1)", start_seconds=now, points=1, step_seconds=60)
        except PredictorError as error:
            advice = "check prometheus.url, its credentials (bearer_token, username, headers) and the network"
            yield Check("prometheus", "FAIL", str(error), advice)
            return
        yield Check("prometheus", "OK", f"{endpoint.shown_url} answers")
        asked = (*names, *PRESSURE_METRICS)
        found = find_metrics(endpoint, asked, start_seconds=now - 3600, end_seconds=now, matchers=matchers)
        yield from _missing(tuple(name for name in found.missing if name in names), len(names))
        if not any(name in found.present for name in PRESSURE_METRICS):
            yield Check(
                "prometheus", "OK", f"no series within the last hour of {' or '.join(PRESSURE_METRICS)}; {UNSEEN}"
            )
        frequent = ("container_cpu_usage_seconds_total", "kube_pod_owner")
        sample = next((name for name in frequent if name in found.present), "")
        if not sample:
            return
        series = selector(sample, matchers=matchers)
        newest = client.range(f"max(count_over_time({series}[10m]))", start_seconds=now, points=1, step_seconds=60)
        if newest.values.size and newest.values[0, 0] > 1:
            yield _scrape_interval(600 / float(newest.values[0, 0]), settings)
        yield _clocks(client, settings, now)
        span = settings.history.span.days + 1
        past = client.range(f"group({series})", start_seconds=now - span * 86_400, points=span + 1, step_seconds=86_400)
    finally:
        client.close()
    yield _history_length(settings, [not math.isnan(v) for v in past.values[0]] if past.values.size else [])


def _missing(missing: tuple[str, ...], asked: int) -> Checks:
    if len(missing) < asked:
        yield Check("prometheus", "OK", f"{asked - len(missing)} of the {asked} metrics are there")
    grouped: dict[tuple[str, str], list[str]] = {}
    for name in missing:
        exporter, need = next((e, n) for start, e, n in EXPORTERS if name.startswith(start))
        grouped.setdefault((exporter, need), []).append(name)
    for (exporter, need), names in grouped.items():
        text = f"no series within the last hour of {', '.join(names)}"
        if need == "optional":
            yield Check("prometheus", "OK", f"{text}; only needed where you have {exporter}")
        else:
            advice = f"have Prometheus scrape {exporter}; if it does, check prometheus.matchers"
            yield Check("prometheus", "FAIL" if need == "needed" else "WARN", text, advice)


def _scrape_interval(seconds: float, settings: "Settings") -> Check:
    configured = settings.prometheus.scrape_interval.total_seconds()
    text = f"scraped about every {seconds:.0f} s; prometheus.scrape_interval is {configured:.0f} s"
    # A tenth of a scrape more or less in ten minutes says nothing.
    if seconds > 1.5 * configured:
        return Check(
            "prometheus", "WARN", text, f"set prometheus.scrape_interval to {seconds:.0f}s, or rates have gaps"
        )
    return Check("prometheus", "OK", text)


def _clocks(client: "PrometheusClient", settings: "Settings", now: int) -> Check:
    """Whether samples are later than now; what is earlier by as much is seen as a node that is not measured."""
    from predictor.sources.promql import Queries
    from predictor.wiring import cluster_labels

    scrape = int(settings.prometheus.scrape_interval.total_seconds())
    text = Queries(cluster_labels(settings), scrape, scrape).clocks_ahead()
    answer = client.range(text, start_seconds=now, points=1, step_seconds=60)
    found = sorted((-float(values[-1]), dict(labels).get("node", "")) for labels, values in answer.rows())
    late = [(node, -seconds) for seconds, node in found if -seconds > 2 * scrape]
    if not late:
        return Check("prometheus", "OK", "no node's clock is ahead of this machine's by more than two scrapes")
    node, seconds = late[0]
    return Check(
        "prometheus",
        "WARN",
        f"the clock of {node} is {seconds:.0f} s or more ahead of this machine's, of {len(late)} nodes by two scrapes",
        "keep clocks in step by NTP; where it is all nodes, this machine's is behind. Nothing is sold on such nodes",
    )


def _history_length(settings: "Settings", is_there: list[bool]) -> Check:
    first = is_there.index(True) if True in is_there else len(is_there)
    days = max(0, len(is_there) - 1 - first)
    wanted = settings.history.span.days
    text = f"history reaches back {days} days; history.span is {wanted} days"
    if days < min(HISTORY_WANTED_DAYS, wanted):
        advice = (
            f"wait, or read from a store that keeps more: {HISTORY_WANTED_DAYS} days are the least for a weekly rhythm"
        )
        return Check("prometheus", "WARN", text, advice)
    return Check("prometheus", "OK", text)
