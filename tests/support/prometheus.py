"""A small real Prometheus with given series, and builders of the series that a cluster's exporters would show."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from models.forecast import FloatArray
from pipelines.demo.exporters import RawSeries
from pipelines.demo.local_prometheus import LocalPrometheus, find_prometheus, local_prometheus
from pipelines.demo.openmetrics import write_series
from pipelines.errors import DemoUnavailable
from tests.support.missing import without

STEP = 300
SCRAPED_AFTER = 290
"""Seconds after a step's start at which everything is scraped."""


@contextmanager
def a_prometheus(
    folder: Path,
    series: Sequence[RawSeries] = (),
    *,
    start_seconds: int = 0,
    scrape_targets: Mapping[str, Sequence[str]] | None = None,
    rule_files: Sequence[Path] = (),
) -> Iterator[LocalPrometheus]:
    """A Prometheus that holds the series, their first step starting at `start_seconds`, and scrapes the targets.

    >>> with a_prometheus(tmp_path, [a_series("up", [1, 1, 1], job="node")], start_seconds=start) as prometheus:
    ...     prometheus.url, prometheus.stop()
    """
    try:
        programs = find_prometheus()
    except DemoUnavailable as reason:
        without(reason)
    data = folder / "prometheus-data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    if series:
        write_series(data, series, start_seconds, STEP, promtool=programs.promtool)
    with local_prometheus(data, programs=programs, scrape_targets=scrape_targets, rule_files=rule_files) as running:
        yield running


def a_series(metric: str, values: Sequence[float] | FloatArray, first: int = 0, /, **labels: str) -> RawSeries:
    """One series, one sample a step; NaN where there was no scrape."""
    return RawSeries(metric, tuple(labels.items()), first, np.asarray(values, dtype=np.float64), SCRAPED_AFTER)


def a_counter(metric: str, per_second: Sequence[float] | FloatArray, first: int = 0, /, **labels: str) -> RawSeries:
    """A counter that grows by so much a second in each step."""
    grown = 1000.0 + STEP * np.cumsum(np.asarray(per_second, dtype=np.float64))
    return a_series(metric, grown, first, **labels)


def a_pod(
    pod: str,
    *,
    cores: Sequence[float],
    owner: tuple[str, str] = ("StatefulSet", "cart"),
    namespace: str = "shop",
    memory_bytes: float = 1e9,
    first: int = 0,
) -> list[RawSeries]:
    """A pod as cAdvisor and kube-state-metrics show it. `owner` is what Kubernetes wrote into it, kind and name."""
    steps = len(cores)
    ids = {"namespace": namespace, "pod": pod}
    container = {"container": "main", "id": f"/{pod}"}
    return [
        a_counter("container_cpu_usage_seconds_total", cores, first, **ids, **container),
        a_series("container_memory_working_set_bytes", [memory_bytes] * steps, first, **ids, **container),
        a_series("kube_pod_owner", [1] * steps, first, **ids, owner_kind=owner[0], owner_name=owner[1]),
    ]
