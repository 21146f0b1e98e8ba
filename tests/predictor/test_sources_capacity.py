"""What capacity is learned from, read from a real Prometheus: Ready replicas and their version, and who was late."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from autoscaler.cluster.reasons import Hold
from autoscaler.controller.autoscalers import Indicator, IndicatorKind
from autoscaler.controller.learning import queries_of
from models.forecast import FloatArray
from pipelines.demo.exporters import RawSeries
from pipelines.demo.local_prometheus import LocalPrometheus
from predictor.errors import PredictorError, QueryRefused
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.usage.panel import Resource, SeriesKey
from predictor.usage.ready import ReadyHistory
from tests.support.prometheus import STEP, a_counter, a_prometheus, a_series

pytestmark = pytest.mark.real

STEPS = 48
START = int(time.time()) // 86_400 * 86_400 - 2 * 86_400
END = START + (STEPS - 1) * STEP
SPAN = {"start_seconds": START, "end_seconds": END, "step_seconds": STEP}
WEB = "shop/Deployment/web"
ALWAYS = np.ones(STEPS)
OBJECT = SeriesKey("shop/PredictiveAutoscaler/web", Resource.CUSTOM)


def within(first: int, last: int) -> FloatArray:
    """1 in these steps, nothing in the others."""
    step = np.arange(STEPS)
    return np.where((step >= first) & (step < last), 1.0, np.nan)


def a_ready_pod(
    pod: str, owner: tuple[str, str], image: str, there: FloatArray, *, ready: float = 1.0, namespace: str = "shop"
) -> list[RawSeries]:
    """As two copies of kube-state-metrics show it."""
    ids = {"namespace": namespace, "pod": pod}
    series = []
    for instance in ("first", "second"):
        series += [
            a_series("kube_pod_status_ready", there * ready, **ids, condition="true", instance=instance),
            a_series("kube_pod_status_ready", there * (1 - ready), **ids, condition="false", instance=instance),
            a_series("kube_pod_owner", there, **ids, owner_kind=owner[0], owner_name=owner[1], instance=instance),
            a_series(
                "kube_pod_container_info", there, **ids, container="app", image_spec=image, instance=instance
            ),
        ]  # fmt: skip
    return series


def the_series() -> list[RawSeries]:
    """A Deployment that is rolled out at step 24, one pod of it not Ready; namesakes of other kinds and namespaces."""
    series = [
        *a_ready_pod("web-1-a", ("ReplicaSet", "web-1"), "web:1", within(0, 26)),
        *a_ready_pod("web-1-b", ("ReplicaSet", "web-1"), "web:1", within(0, 24)),
        *a_ready_pod("web-2-a", ("ReplicaSet", "web-2"), "web:2", within(24, STEPS)),
        *a_ready_pod("web-2-b", ("ReplicaSet", "web-2"), "web:2", within(26, STEPS)),
        *a_ready_pod("web-2-c", ("ReplicaSet", "web-2"), "web:2", within(26, STEPS)),
        *a_ready_pod("web-2-d", ("ReplicaSet", "web-2"), "web:2", within(26, STEPS), ready=0.0),
        *a_ready_pod("web-0", ("StatefulSet", "web"), "other:1", ALWAYS),
        *a_ready_pod("web-1-z", ("ReplicaSet", "web-1"), "bank:1", ALWAYS, namespace="bank"),
    ]
    for namespace, names in (("shop", ("web-1", "web-2")), ("bank", ("web-1",))):
        for name in names:
            labels = {"namespace": namespace, "replicaset": name, "owner_kind": "Deployment", "owner_name": "web"}
            series.append(a_series("kube_replicaset_owner", ALWAYS, **labels))
    for namespace, pod, throttled in (("shop", "web-1-a", 1.0), ("shop", "web-1-b", 3.0), ("bank", "web-1-z", 10.0)):
        there = within(0, 26) if namespace == "shop" else ALWAYS
        of_pod = {"namespace": namespace, "pod": pod, "container": "app"}
        for job in ("kubelet", "again"):
            ids = {**of_pod, "id": f"/{pod}", "job": job}
            for metric, per_second in (("periods", 10.0), ("throttled_periods", throttled)):
                grown = 1000.0 + STEP * per_second * np.cumsum(ALWAYS)
                series.append(a_series(f"container_cpu_cfs_{metric}_total", grown * there, **ids))
        limit = np.where(np.arange(STEPS) < 12, 1.0, 2.0) if namespace == "shop" else 8.0 * ALWAYS
        for resource, amount in (("cpu", limit), ("memory", 1e9 * ALWAYS)):
            series.append(a_series("kube_pod_container_resource_limits", amount * there, **of_pod, resource=resource))
    for namespace, late in (("shop", 1.0), ("bank", 10.0)):
        for bound, in_time in (("0.1", 0.0), ("0.5", 10.0 - late), ("1.0", 10.0), ("+Inf", 10.0)):
            labels = {"namespace": namespace, "service": "web", "le": bound}
            series.append(a_counter("took_seconds_bucket", in_time * ALWAYS, **labels))
        series.append(a_counter("took_seconds_count", 10.0 * ALWAYS, namespace=namespace, service="web"))
    return series


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusSource]:
    """One for all tests here; they only read."""
    folder: Path = tmp_path_factory.mktemp("capacity")
    with a_prometheus(folder, the_series(), start_seconds=START) as running:
        yield reading(running)


def reading(running: LocalPrometheus) -> PrometheusSource:
    return PrometheusSource(PrometheusEndpoint(url=running.url), scrape_interval_seconds=STEP)


def test_ready_replicas_are_counted_with_the_version_that_runs_now(source: PrometheusSource) -> None:
    """Two of the old, one of each, three of the new; what is not Ready does not count, nor do namesakes."""
    seen = source.fetch_ready(WEB, **SPAN)

    assert seen.replicas.tolist() == [2.0] * 26 + [3.0] * 22
    assert seen.is_current.tolist() == [False] * 26 + [True] * 22


def test_throttled_is_a_share_of_the_periods_of_all_its_pods_under_the_limit_of_one(source: PrometheusSource) -> None:
    """A tenth of one and three of the other are a fifth; the limit is the mean pod's, and nobody else's."""
    seen = source.fetch_throttled(WEB, **SPAN)

    assert seen.share[2:24] == pytest.approx(0.2, rel=1e-6)
    assert seen.limit_cores[:26].tolist() == [1.0] * 12 + [2.0] * 14
    assert np.isnan(seen.share[28:]).all()
    assert np.isnan(seen.limit_cores[28:]).all()
    assert source.fetch_throttled("bank/Deployment/web", **SPAN).share[2:] == pytest.approx(1.0)
    nobody = source.fetch_throttled("shop/StatefulSet/web", **SPAN)
    assert np.isnan(nobody.share).all()
    assert np.isnan(nobody.limit_cores).all()


def test_each_kind_is_counted_by_its_pods(source: PrometheusSource) -> None:
    """A StatefulSet of one version, another namespace's Deployment, and one that is not there."""
    assert source.fetch_ready("shop/StatefulSet/web", **SPAN).replicas.tolist() == [1.0] * STEPS
    assert source.fetch_ready("shop/StatefulSet/web", **SPAN).is_current.all()
    assert source.fetch_ready("bank/Deployment/web", **SPAN).replicas.tolist() == [1.0] * STEPS
    nobody: ReadyHistory = source.fetch_ready("shop/Deployment/nobody", **SPAN)
    assert np.isnan(nobody.replicas).all()


def test_the_late_share_is_that_of_the_objects_own_namespace(source: PrometheusSource) -> None:
    """A tenth of ten a second is late; in the other namespace with the same names all are."""
    indicator = Indicator(IndicatorKind.LATENCY, 0.4, histogram='took_seconds{service="web"}')
    histograms = {OBJECT: indicator.histogram, SeriesKey("bare/PredictiveAutoscaler/web", Resource.CUSTOM): "took"}
    bounds = source.fetch_bounds(histograms, end_seconds=END, step_seconds=STEP)

    of_web = bounds[OBJECT]
    assert not isinstance(of_web, PredictorError)
    assert {float(each) for each in of_web} == {0.1, 0.5, 1.0, float("inf")}
    assert bounds[SeriesKey("bare/PredictiveAutoscaler/web", Resource.CUSTOM)] == ()

    asking = queries_of(indicator, of_web, STEP * 2)
    assert not isinstance(asking, Hold)
    for query, value in ((asking.late, 0.1), (asking.requests, 10.0)):
        panel = source.fetch_values({OBJECT: query}, **SPAN)
        assert panel.usage[panel.row(OBJECT), 4:] == pytest.approx(value, rel=1e-6)


def test_a_histogram_of_another_namespace_is_refused(source: PrometheusSource) -> None:
    """Its bounds tell what others measure."""
    asked = {OBJECT: 'took_seconds{namespace="bank"}'}

    assert isinstance(source.fetch_bounds(asked, end_seconds=END, step_seconds=STEP)[OBJECT], QueryRefused)
