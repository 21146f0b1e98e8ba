"""What single containers use, read from a real Prometheus: one pod's worth, and only of those that were named."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.demo.exporters import RawSeries
from pipelines.demo.local_prometheus import LocalPrometheus
from predictor.errors import SourceRefused
from predictor.sources import promql
from predictor.sources.files import FileSource
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.sources.promql import ClusterLabels, Queries
from predictor.usage.containers import ContainerName, ContainerUsage
from predictor.usage.panel import Resource, UsagePanel
from tests.support.prometheus import STEP, a_counter, a_prometheus, a_series

STEPS = 48
START = int(time.time()) // 86_400 * 86_400 - 2 * 86_400
WEB = "shop/Deployment/web"


def a_container(pod: str, name: str, cores: float, mebibytes: float, namespace: str = "shop") -> list[RawSeries]:
    ids = {"namespace": namespace, "pod": pod, "container": name, "id": f"/{pod}/{name}"}
    return [
        a_counter("container_cpu_usage_seconds_total", [cores] * STEPS, **ids),
        a_series("container_memory_working_set_bytes", [mebibytes * 2**20] * STEPS, **ids),
    ]


def owned(pod: str, kind: str, name: str, namespace: str = "shop") -> list[RawSeries]:
    ids = {"namespace": namespace, "pod": pod}
    return [
        a_series("kube_pod_owner", [1] * STEPS, **ids, owner_kind=kind, owner_name=name, instance=instance)
        for instance in ("first", "second")
    ]


def the_series() -> list[RawSeries]:
    """A Deployment of three pods with a sidecar, one skewed; a namesake elsewhere; a StatefulSet; a bare pod."""
    series: list[RawSeries] = []
    for number, cores in enumerate((1.0, 1.0, 4.0)):
        pod = f"web-5c9f-{number}"
        series += a_container(pod, "app", cores, 100.0 * (number + 1)) + a_container(pod, "proxy", 0.1, 20.0)
        series += owned(pod, "ReplicaSet", "web-5c9f")
    for namespace in ("shop", "other"):
        labels = {"namespace": namespace, "replicaset": "web-5c9f", "owner_kind": "Deployment", "owner_name": "web"}
        series.append(a_series("kube_replicaset_owner", [1] * STEPS, **labels))
    series += a_container("web-5c9f-0", "app", 9.0, 900.0, "other") + owned(
        "web-5c9f-0", "ReplicaSet", "web-5c9f", "other"
    )
    # The same kubelet is scraped by a second job, and a pod's own cgroup holds the same again.
    twice = {"namespace": "shop", "pod": "web-5c9f-2", "id": "/web-5c9f-2/app", "container": "app", "job": "again"}
    series.append(a_counter("container_cpu_usage_seconds_total", [4.0] * STEPS, **twice))
    series.append(a_counter("container_cpu_usage_seconds_total", [4.1] * STEPS, namespace="shop", pod="web-5c9f-2"))
    series += a_container("d.b-0", "main", 0.5, 300.0) + owned("d.b-0", "StatefulSet", "d.b")
    series += a_container("dxb-0", "main", 7.0, 700.0) + owned("dxb-0", "StatefulSet", "dxb")
    series += a_container("alone", "main", 0.2, 50.0) + owned("alone", "<none>", "<none>")
    return series


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPrometheus]:
    """One for all tests here; they only read."""
    with a_prometheus(tmp_path_factory.mktemp("containers"), the_series(), start_seconds=START) as running:
        yield running


def fetched(prometheus: LocalPrometheus, *workloads: str) -> ContainerUsage:
    source = PrometheusSource(PrometheusEndpoint(url=prometheus.url), scrape_interval_seconds=STEP)
    return source.fetch_containers(
        workloads, start_seconds=START, end_seconds=START + (STEPS - 1) * STEP, step_seconds=STEP
    )


def names(panel: UsagePanel) -> list[str]:
    return [str(key) for key in panel.keys]


def newest(panel: UsagePanel, container: str, resource: Resource, workload: str = WEB) -> float:
    return float(panel.usage[panel.row(ContainerName(workload, container).series(resource)), -1])


@pytest.mark.real
def test_each_container_is_one_pods_worth(prometheus: LocalPrometheus) -> None:
    """The busiest and the mean pod's cores, the largest pod's memory; exporters that say it twice count once."""
    usage = fetched(prometheus, WEB)

    assert names(usage.highest) == [f"{WEB}/{name} {what}" for name in ("app", "proxy") for what in ("cpu", "memory")]
    assert names(usage.mean) == [f"{WEB}/app cpu", f"{WEB}/proxy cpu"]
    assert newest(usage.highest, "app", Resource.CPU) == pytest.approx(4.0, rel=1e-3)
    assert newest(usage.mean, "app", Resource.CPU) == pytest.approx(2.0, rel=1e-3)
    assert newest(usage.highest, "app", Resource.MEMORY) == 300 * 2**20
    assert newest(usage.mean, "proxy", Resource.CPU) == pytest.approx(0.1, rel=1e-3)
    assert int(np.sum(~np.isnan(usage.highest.usage[0]))) >= STEPS - 2


@pytest.mark.real
def test_only_what_is_named_is_read(prometheus: LocalPrometheus) -> None:
    """A namesake in another namespace, and a name that a dot would match, are others."""
    usage = fetched(prometheus, WEB, "shop/StatefulSet/d.b", "other/StatefulSet/nobody")

    assert {key.workload.rsplit("/", 1)[0] for key in usage.mean.keys} == {WEB, "shop/StatefulSet/d.b"}
    assert newest(usage.mean, "main", Resource.CPU, "shop/StatefulSet/d.b") == pytest.approx(0.5, rel=1e-3)


@pytest.mark.real
def test_a_pod_of_its_own_is_read_too(prometheus: LocalPrometheus) -> None:
    """And a workload that nothing is known of is left out, without an error."""
    assert names(fetched(prometheus, "shop/Pod/alone").mean) == ["shop/Pod/alone/main cpu"]
    assert names(fetched(prometheus, "shop/Deployment/nobody").mean) == []


@pytest.mark.real
def test_many_workloads_are_asked_for_in_parts(prometheus: LocalPrometheus) -> None:
    """And put together again."""
    asked = [
        WEB,
        "shop/StatefulSet/d.b",
        "shop/Pod/alone",
        *(f"far-{number:03}/Deployment/web" for number in range(600)),
    ]
    queries = Queries(ClusterLabels(), STEP, STEP)

    assert len(list(queries.single_containers(asked))) == 2
    assert {key.workload.rsplit("/", 1)[0] for key in fetched(prometheus, *asked).mean.keys} == set(asked[:3])


@pytest.mark.real
def test_a_name_cannot_end_the_query(prometheus: LocalPrometheus) -> None:
    """Whatever an object calls its target stays a name."""
    hostile = 'shop/Deployment/web"} or vector(1) or x{y=~"|.*\\n'

    assert names(fetched(prometheus, hostile).mean) == []


def test_a_file_says_that_it_has_no_containers(tmp_path: Path) -> None:
    """It holds whole workloads."""
    source = FileSource(tmp_path / "usage.parquet")

    with pytest.raises(SourceRefused, match="only read from Prometheus"):
        source.fetch_containers([WEB], start_seconds=0, end_seconds=0, step_seconds=STEP)


def test_the_look_up_of_owners_is_that_of_workloads() -> None:
    """What holds for whole workloads holds for their containers: the same words but for who is meant."""
    queries = Queries(ClusterLabels(matchers={"cluster": "eu"}), STEP, 60)
    (text,) = queries.single_containers([WEB])

    assert queries._owners('namespace=~"shop"', '"web"') in text
    assert text.count('cluster="eu"') == text.count("{") - text.count("vector(")
    assert promql.NAME_CHARACTERS < 10_000
