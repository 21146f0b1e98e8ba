"""What runs on each node, read from a real Prometheus: what a node may be oversold by rests on it."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.demo.exporters import RawSeries
from pipelines.demo.local_prometheus import LocalPrometheus
from predictor.errors import SourceRefused
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.usage.panel import Resource
from predictor.usage.placed import MeanPods, Placed
from tests.support.prometheus import SCRAPED_AFTER, STEP, a_counter, a_pod, a_prometheus, a_series

STEPS = 288 + 12
NOW = int(time.time()) // STEP * STEP
START = NOW - STEPS * STEP
WEB, DB = "shop/StatefulSet/web", "shop/StatefulSet/db"


def on(node: str, pod: str, cores: list[float], owner: str, first: int = 0) -> list[RawSeries]:
    """A pod on a node, from a step on; two copies of kube-state-metrics tell of it."""
    series = a_pod(pod, cores=cores, owner=("StatefulSet", owner), memory_bytes=1e9 * cores[-1], first=first)
    ids = {"namespace": "shop", "pod": pod, "node": node}
    for copy in ("first", "second"):
        series.append(a_series("kube_pod_info", [1] * len(cores), first, **ids, instance=copy))
    phase = {"namespace": "shop", "pod": pod, "phase": "Running"}
    return [*series, a_series("kube_pod_status_phase", [1] * len(cores), first, **phase)]


def the_series() -> list[RawSeries]:
    """Two pods of `web` on n1 and one on n2, which came half-way; `db` on n2 beside a pod that nobody measures."""
    half = STEPS // 2
    silent = {"namespace": "shop", "pod": "db-1"}
    return [
        *on("n1", "web-0", [1.0] * STEPS, "web"),
        *on("n1", "web-1", [3.0] * STEPS, "web"),
        *on("n2", "web-2", [5.0] * half, "web", half),
        *on("n2", "db-0", [0.5] * STEPS, "db"),
        a_series("kube_pod_info", [1] * STEPS, **silent, node="n2"),
        a_series("kube_pod_owner", [1] * STEPS, **silent, owner_kind="StatefulSet", owner_name="db"),
        a_series("kube_pod_status_phase", [1] * STEPS, **silent, phase="Running"),
    ]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPrometheus]:
    """One for all tests here; they only read."""
    with a_prometheus(tmp_path_factory.mktemp("placed"), the_series(), start_seconds=START) as running:
        yield running


@pytest.fixture
def source(prometheus: LocalPrometheus) -> PrometheusSource:
    return PrometheusSource(PrometheusEndpoint(url=prometheus.url), scrape_interval_seconds=STEP)


def fetched(source: PrometheusSource, *names: Placed) -> MeanPods:
    return source.fetch_mean_pods(names, start_seconds=START, end_seconds=NOW - STEP, step_seconds=STEP)


@pytest.mark.real
def test_a_workload_on_a_node_is_its_mean_pod_there_and_before_it_was_there_that_of_anywhere(
    source: PrometheusSource,
) -> None:
    """Over more than a day, cut at midnight; its pods elsewhere stand in only where it had none."""
    usage = fetched(source, Placed("n1", WEB), Placed("n2", WEB), Placed("n2", DB))
    cores = {name: usage.usage[Resource.CPU][row] for row, name in enumerate(usage.names)}

    assert usage.usage[Resource.CPU].shape == (3, STEPS)
    assert usage.usage[Resource.CPU].dtype == np.float32
    assert np.nanmax(np.abs(cores[Placed("n1", WEB)] - 2.0)) < 1e-3
    assert cores[Placed("n2", WEB)][10] == pytest.approx(2.0, rel=1e-3)
    assert cores[Placed("n2", WEB)][-10] == pytest.approx(5.0, rel=1e-3)
    assert usage.usage[Resource.MEMORY][usage.names.index(Placed("n1", WEB)), -5] == pytest.approx(2e9, rel=1e-3)
    assert np.count_nonzero(np.isnan(cores[Placed("n2", DB)])) <= 2


@pytest.mark.real
def test_a_workload_that_moved_here_has_its_past_elsewhere(source: PrometheusSource) -> None:
    """And one that nobody knows has none."""
    usage = fetched(source, Placed("n3", DB), Placed("n3", "shop/StatefulSet/nobody"))

    assert usage.usage[Resource.CPU][0, -5] == pytest.approx(0.5, rel=1e-3)
    assert np.isnan(usage.usage[Resource.CPU][1]).all()


@pytest.mark.real
def test_what_is_used_on_a_node_now(source: PrometheusSource) -> None:
    """By workload, and whether its pods were measured: of n2's one was not."""
    now = source.fetch_node_usage(float(NOW))

    assert now.usage[Resource.CPU][Placed("n1", WEB)] == pytest.approx(4.0, rel=1e-3)
    assert now.pods[Resource.CPU][Placed("n1", WEB)] == 2
    assert now.usage[Resource.MEMORY][Placed("n2", WEB)] == pytest.approx(5e9, rel=1e-3)
    assert now.partial == {"n2"}
    assert (now.since_seconds, now.measured_at_seconds) == (NOW - 2 * STEP, NOW)


@pytest.mark.real
def test_a_node_of_which_an_exporter_tells_what_is_no_amount_is_not_known(tmp_path: Path) -> None:
    """Without that pod less would seem to be used there than is; with it more than there is. Other nodes are known."""
    endless = [float("inf")] * 12
    series = [
        *(each for node in ("n1", "n2") for each in a_pod(f"db-{node}", cores=[1.0] * 12, owner=("StatefulSet", "db"))),
        *(a_series("kube_pod_info", [1] * 12, namespace="shop", pod=f"db-{node}", node=node) for node in ("n1", "n2")),
        a_series("container_memory_working_set_bytes", endless, namespace="shop", pod="db-n1", container="b", id="/b"),
    ]
    with a_prometheus(tmp_path, series, start_seconds=NOW - 12 * STEP) as prometheus:
        source = PrometheusSource(PrometheusEndpoint(url=prometheus.url), scrape_interval_seconds=STEP)
        now = source.fetch_node_usage(float(NOW))

    assert now.partial == {"n1"}
    assert now.usage[Resource.MEMORY].keys() == {Placed("n2", DB)}


@pytest.mark.real
def test_how_long_tasks_waited_for_cpu_on_each_node_however_it_is_scraped(tmp_path: Path) -> None:
    """By node-exporter, whose scrape job may name the node or only its address, and by kubelets; the larger counts."""

    def waited(metric: str, share: float, **labels: str) -> RawSeries:
        return a_counter(f"{metric}_pressure_cpu_waiting_seconds_total", [share] * 12, **labels)

    series = [
        waited("node", 0.25, node="n1", instance="10.0.0.1:9100"),
        waited("container", 0.24, id="/", node="n1", instance="n1:10250"),
        waited("container", 0.9, id="/kubepods.slice", node="n1", instance="n1:10250"),
        waited("node", 0.5, instance="10.0.0.2:9100", pod="exporter-a"),
        waited("node", 0.4, instance="[fd00::3]:9100"),
        waited("node", 0.125, instance="n4:9100"),
        waited("node", 0.3, instance="bastion:9100"),
        *(
            a_series("kube_node_info", [1] * 12, node=node, internal_ip=address, instance=copy)
            for node, address in (("n1", "10.0.0.1"), ("n2", "10.0.0.2"), ("n3", "fd00::3"), ("n4", "10.0.0.4"))
            for copy in ("first", "second")
        ),
    ]
    with a_prometheus(tmp_path, series, start_seconds=NOW - 12 * STEP) as prometheus:
        source = PrometheusSource(PrometheusEndpoint(url=prometheus.url), scrape_interval_seconds=STEP)
        pressure = source.fetch_node_usage(float(NOW)).cpu_pressure

    known = {node: pressure[node] for node in ("n1", "n2", "n3", "n4")}
    assert known == pytest.approx({"n1": 0.25, "n2": 0.5, "n3": 0.4, "n4": 0.125}, rel=1e-3)


@pytest.mark.real
def test_a_clock_that_is_ahead_of_prometheus_sees_nodes_that_are_not_measured(source: PrometheusSource) -> None:
    """By as much as two scrapes: nothing old is taken for what is used now, so such nodes are stale."""
    ahead = source.fetch_node_usage(float(NOW + 3 * STEP))

    assert ahead.usage[Resource.CPU] == {}
    assert ahead.usage[Resource.MEMORY] == {}


@pytest.mark.real
def test_a_clock_that_is_behind_a_nodes_sees_by_how_much_and_one_in_step_sees_nothing(source: PrometheusSource) -> None:
    """What is read of such a node is older than it seems; within the time that usage is the mean of it is no matter."""
    behind = source.fetch_node_usage(float(NOW - STEP))
    often = PrometheusSource(source.endpoint, scrape_interval_seconds=60).fetch_node_usage(float(NOW - STEP))

    assert source.fetch_node_usage(float(NOW)).clock_ahead == {}
    assert behind.clock_ahead == pytest.approx({"n1": SCRAPED_AFTER, "n2": SCRAPED_AFTER})
    assert behind.ahead_by("n1") == 0.0
    assert often.ahead_by("n1") == pytest.approx(SCRAPED_AFTER)
    assert often.ahead_by("n3") == 0.0


@pytest.mark.real
def test_where_nobody_measures_cpu_pressure_none_is_known(source: PrometheusSource) -> None:
    """And usage is read as ever."""
    now = source.fetch_node_usage(float(NOW))

    assert now.cpu_pressure == {}
    assert now.usage[Resource.CPU]


@pytest.mark.real
def test_a_store_without_such_metrics_says_what_is_needed(tmp_path: Path) -> None:
    with (
        a_prometheus(tmp_path, [a_series("up", [1.0] * 12)], start_seconds=NOW - 12 * STEP) as prometheus,
        pytest.raises(SourceRefused, match="kube_pod_info"),
    ):
        fetched(PrometheusSource(PrometheusEndpoint(url=prometheus.url)), Placed("n1", WEB))
