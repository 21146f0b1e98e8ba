"""A window that is appended to says, to the bit, what a whole read of the same time says, whatever happened meanwhile."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.demo.exporters import RawSeries
from pipelines.demo.local_prometheus import LocalPrometheus
from predictor.errors import SourceRefused, SourceUnavailable
from predictor.sources import window as window_module
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.sources.window import LATE_STEPS, UsageWindow
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from tests.support.http_answers import Answer, Asked
from tests.support.live_demand import Gate, gated
from tests.support.prometheus import STEP, a_counter, a_pod, a_prometheus, a_series

pytestmark = pytest.mark.real

STEPS = 1152
START = (int(time.time()) // 86_400 - 6) * 86_400
"""Four whole days that ended two days ago."""
SPAN = 2 * 288
"""Steps of the window, which is two days."""
CPU, MEMORY, REQUESTS = Resource.CPU, Resource.MEMORY, Resource.REQUESTS
SERVICES = {"shop/front": "shop/StatefulSet/plain", "shop/back": "shop/StatefulSet/plain"}


def the_series() -> list[RawSeries]:
    """Workloads of which something happens while the window moves over them, each at times of its own."""
    rng = np.random.default_rng(7)
    series: list[RawSeries] = []

    def stateful(name: str, cores: Sequence[float], first: int = 0, **more: float) -> None:
        series.extend(a_pod(f"{name}-0", cores=list(cores), owner=("StatefulSet", name), first=first, **more))
        running = [1.0] * len(cores)
        ids = {"namespace": "shop", "pod": f"{name}-0"}
        series.append(a_series("kube_pod_status_phase", running, first, **ids, phase="Running"))
        series.append(a_series("kube_pod_info", running, first, **ids, node="node-1"))

    def asks(name: str, what: str, resource: str, values: Sequence[float], first: int = 0) -> None:
        metric = f"kube_pod_container_resource_{what}s"
        ids = {"namespace": "shop", "pod": f"{name}-0", "container": "main", "resource": resource}
        series.append(a_series(metric, list(values), first, **ids))

    stateful("plain", 1 + rng.random(STEPS))
    asks("plain", "request", "cpu", [2.0] * 700 + [0.1 + 0.2] * (STEPS - 700))
    # It appears, it vanishes, it has a long gap, and one has too few samples to be used for a while.
    stateful("appears", 1 + rng.random(STEPS - 650), first=650)
    stateful("vanishes", 1 + rng.random(500))
    stateful("gap", 1 + rng.random(300))
    stateful("gap", 1 + rng.random(STEPS - 620), first=620)
    # Without a change in single precision, and without any.
    stateful("still", [0.25] * STEPS, memory_bytes=1e9 + 1)
    # At its limit for hours; above it so often that the limit is none; a limit that is raised, and one that is lowered.
    stateful("limited", np.where(np.arange(STEPS) % 100 < 30, 0.999, 0.5))
    asks("limited", "limit", "cpu", [1.0] * STEPS)
    stateful("sidecar", np.where(np.arange(STEPS) % 40 < 4, 1.5, 0.995))
    asks("sidecar", "limit", "cpu", [1.0] * STEPS)
    stateful("raised", 0.99 + 0.01 * rng.random(STEPS))
    asks("raised", "limit", "cpu", [1.0] * 640 + [2.0] * 200 + [1.0] * (STEPS - 840))
    # Above its limit now and then, so that it counts how much of a day is in the window.
    stateful("often", np.where(rng.random(STEPS) < 0.05, 1.3, 0.99))
    asks("often", "limit", "cpu", [1.0] * STEPS)
    series.extend(the_cuts(rng))
    series.extend(the_artefacts(rng))
    series.extend(the_idle(rng))
    # A second pod that no kubelet reports on for some time.
    series.extend(
        a_pod("plain-1", cores=[1.0] * 600, owner=("StatefulSet", "plain"))[2:]
        + [a_series("kube_pod_status_phase", [1.0] * 60, 630, namespace="shop", pod="plain-1", phase="Running")]
        + [a_series("kube_pod_owner", [1] * 60, 630, namespace="shop", pod="plain-1", owner_kind="StatefulSet",
                    owner_name="plain")]
    )  # fmt: skip
    # Three Services in front of one workload, one of which comes later, and one of nobody's.
    for service, first in (("plain", 0), ("front", 0), ("back", 700), ("nobody", 300)):
        labels = {"namespace": "ingress", "exported_namespace": "shop", "exported_service": service}
        rates = 10 * rng.random(STEPS - first)
        series.append(a_counter("nginx_ingress_controller_requests", rates, first, **labels))
    for node in ("node-1", "node-2"):
        series.append(a_series("kube_node_info", [1] * STEPS, node=node))
        series.append(a_series("kube_node_labels", [1] * STEPS, node=node, label_node_pool=f"pool-{node}"))
    # It moves to another pool, which becomes the more common one as the window moves on.
    series.extend(a_pod("moves-0", cores=[1.0] * STEPS, owner=("StatefulSet", "moves")))
    ids = {"namespace": "shop", "pod": "moves-0"}
    series.append(a_series("kube_pod_info", [1] * 500, **ids, node="node-1"))
    series.append(a_series("kube_pod_info", [1] * (STEPS - 500), 500, **ids, node="node-2"))
    for version, first, stop in (("shop/moves:1", 0, 900), ("other/moves:2", 900, STEPS)):
        series.append(
            a_series("kube_pod_container_info", [1] * (stop - first), first, **ids, container="main", image=version)
        )
    return series


def the_cuts(rng: np.random.Generator) -> list[RawSeries]:
    """One that is throttled for a while, and one of which a container is killed now and then."""
    series = a_pod("throttled-0", cores=rng.random(STEPS).tolist(), owner=("StatefulSet", "throttled"))
    ids = {"namespace": "shop", "pod": "throttled-0", "container": "main", "id": "/throttled-0"}
    throttled = np.where((np.arange(STEPS) > 560) & (np.arange(STEPS) < 740), 6 * rng.random(STEPS), 0.0)
    series.append(a_counter("container_cpu_cfs_periods_total", [10.0] * STEPS, **ids))
    series.append(a_counter("container_cpu_cfs_throttled_periods_total", throttled, **ids))
    series += a_pod("leaks-0", cores=[1.0] * STEPS, owner=("StatefulSet", "leaks"), memory_bytes=2e9)
    ids = {"namespace": "shop", "pod": "leaks-0", "container": "main"}
    starts = np.cumsum(np.isin(np.arange(STEPS), [100, 590, 700]))
    series.append(a_series("kube_pod_container_status_restarts_total", starts, **ids))
    metric = "kube_pod_container_status_last_terminated_reason"
    series.append(a_series(metric, [1.0] * (STEPS - 100), 100, **ids, reason="OOMKilled"))
    return series


def the_artefacts(rng: np.random.Generator) -> list[RawSeries]:
    """Negative, infinite and impossibly high samples; a spike that turns out to be the way of its series."""
    memory = 1e9 + 1e8 * rng.random(STEPS)
    for step in (50, 590, 660, 661, 800):
        memory[step] = -1.0
    memory[[610, 745]] = 5e16
    memory[680] = np.inf
    broken = a_pod("broken-0", cores=[1.0] * STEPS, owner=("StatefulSet", "broken"))
    grown = a_pod("grown-0", cores=[1.0] * STEPS, owner=("StatefulSet", "grown"))
    broken[1].values[:] = memory
    grown[1].values[:] = np.where(np.arange(STEPS) < 690, 1e9, 2e13)
    limit = {"namespace": "shop", "pod": "broken-0", "container": "main", "resource": "memory"}
    return [*broken, *grown, a_series("kube_pod_container_resource_limits", [1.1e9] * STEPS, **limit)]


def the_idle(rng: np.random.Generator) -> list[RawSeries]:
    """A CronJob whose first job within the window comes late, and a StatefulSet that is scaled to zero and back."""
    active = np.zeros(STEPS)
    series: list[RawSeries] = []
    for number, first in enumerate((20, 700, 990)):
        active[first : first + 12] = 1
        job, ids = f"report-{number}", {"namespace": "shop", "pod": f"report-{number}-x"}
        cores = (1 + rng.random(12)).tolist()
        series += a_pod(f"{job}-x", cores=cores, owner=("Job", job), first=first)
        owner = {"namespace": "shop", "job_name": job, "owner_kind": "CronJob", "owner_name": "report"}
        series.append(a_series("kube_job_owner", [1] * 12, first, **owner))
        asked = {**ids, "container": "main", "resource": "cpu"}
        series.append(a_series("kube_pod_container_resource_requests", [1.5] * 12, first, **asked))
    series.append(a_series("kube_cronjob_status_active", active, namespace="shop", cronjob="report"))
    wanted = np.where((np.arange(STEPS) >= 400) & (np.arange(STEPS) < 720), 0.0, 1.0)
    series.append(a_series("kube_statefulset_replicas", wanted, namespace="shop", statefulset="asleep"))
    for first, stop in ((0, 400), (720, STEPS)):
        series += a_pod("asleep-0", cores=rng.random(stop - first).tolist(), owner=("StatefulSet", "asleep"), first=first)
        asked = {"namespace": "shop", "pod": "asleep-0", "container": "main", "resource": "memory"}
        values = [2e9] * (stop - first)
        series.append(a_series("kube_pod_container_resource_requests", values, first, **asked))
    return series


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPrometheus]:
    """One Prometheus for all tests here; they only read."""
    with a_prometheus(tmp_path_factory.mktemp("window"), the_series(), start_seconds=START) as running:
        yield running


@pytest.fixture
def gate(prometheus: LocalPrometheus) -> Iterator[Gate]:
    """What lets that Prometheus misbehave."""
    with gated(prometheus.url) as found:
        yield found


def a_source(url: str, folder: Path | None = None, **more: float) -> PrometheusSource:
    """A source that knows the Services and does not wait for what fails."""
    endpoint = PrometheusEndpoint(url=url, retries=0, cache_name="window", **more)  # type: ignore[arg-type]
    return PrometheusSource(endpoint, scrape_interval_seconds=STEP, service_workloads=SERVICES, cache_folder=folder)


def at(step: int, resources: Sequence[Resource] = tuple(Resource)) -> dict[str, object]:
    """What is asked for so that the window's last step is this one."""
    end = START + step * STEP
    return {"start_seconds": end - (SPAN - 1) * STEP, "end_seconds": end, "step_seconds": STEP, "resources": resources}


def assert_same(found: UsagePanel, source: PrometheusSource, asked: dict[str, object]) -> None:
    """All that forecasts, decisions and people read of a panel, to the bit, and the findings in their order."""
    whole = source.fetch(**asked).slim()  # type: ignore[arg-type]
    assert found.findings == whole.findings
    assert found.keys == whole.keys
    assert (found.start_seconds, found.step_seconds) == (whole.start_seconds, whole.step_seconds)
    assert found.usage.dtype == np.float32
    np.testing.assert_array_equal(found.usage, whole.usage)
    assert found.newest.keys() == whole.newest.keys()
    for name, values in whole.newest.items():
        np.testing.assert_array_equal(found.newest[name], values, err_msg=name)
    for name in ("is_bound", "was_cut_off"):
        marks, expected = getattr(found, name), getattr(whole, name)
        assert (marks is None) == (expected is None), name
        if expected is not None:
            np.testing.assert_array_equal(marks, expected, err_msg=name)
    assert found.node_pool == whole.node_pool
    assert found.kin == whole.kin


@pytest.mark.parametrize("resources", [tuple(Resource), (CPU, MEMORY), (REQUESTS,)])
def test_a_window_that_moves_on_says_what_a_whole_read_says(
    prometheus: LocalPrometheus, resources: tuple[Resource, ...]
) -> None:
    """By single steps, by an hour, over half a day and over a restart of everything that happens in the history."""
    source = a_source(prometheus.url)
    window = UsageWindow(source)
    steps = [SPAN, *range(SPAN + 1, SPAN + 16), *range(SPAN + 16, 780, 12), *range(780, 790), 900, 901, 1000, STEPS - 1]
    for step in steps:
        asked = at(step, resources)
        assert_same(window.fetch(**asked), source, asked)  # type: ignore[arg-type]
