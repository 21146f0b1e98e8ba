"""How long pods took to get Ready, read from a real Prometheus as kube-state-metrics tells it."""

import time
from pathlib import Path

import numpy as np
import pytest

from models.forecast import FloatArray
from pipelines.demo.exporters import RawSeries
from pipelines.demo.local_prometheus import LocalPrometheus
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.usage.ready import ReadyTimes
from tests.support.prometheus import STEP, a_prometheus, a_series

pytestmark = pytest.mark.real

STEPS = 26 * 12
START = int(time.time()) // 86_400 * 86_400 - 2 * 86_400
WEB, DB = "shop/Deployment/web", "shop/StatefulSet/db"


def a_starting_pod(
    pod: str, owner: tuple[str, str], created: int, *turned_ready: tuple[int, float], uid: str = "u", until: int = STEPS
) -> list[RawSeries]:
    """A pod that was created so many seconds after START and turned Ready so long after that, each time from a step on.

    Two copies of kube-state-metrics show it.
    """
    first = max(0, created // STEP)
    step = np.arange(STEPS)
    there = np.where((step >= first) & (step < until), 1.0, np.nan)
    ready: FloatArray = np.full(STEPS, np.nan)
    for since, took in turned_ready:
        ready[(step >= since) & (step < until)] = START + created + took
    series = []
    for instance in ("first", "second"):
        ids = {"namespace": "shop", "pod": pod, "uid": uid, "instance": instance}
        series += [
            a_series("kube_pod_created", there * (START + created), **ids),
            a_series("kube_pod_status_ready_time", ready, **ids),
            a_series("kube_pod_owner", there, **ids, owner_kind=owner[0], owner_name=owner[1]),
        ]
    return series


def the_series() -> list[RawSeries]:
    """A Deployment and a StatefulSet; pods that come, flap, restart under the same name, or never get Ready."""
    web = ("ReplicaSet", "web-1")
    names = {"namespace": "shop", "replicaset": "web-1", "owner_kind": "Deployment", "owner_name": "web"}
    return [
        a_series("kube_replicaset_owner", np.ones(STEPS), **names),
        *a_starting_pod("web-1-a", web, 7_300, (25, 40.0)),
        *a_starting_pod("web-1-b", web, 80_000, (267, 65.0)),
        # Ready after 30 s; a probe failed 3 minutes later, and a container restarted half a day later.
        *a_starting_pod("web-1-flaps", web, 7_200, (24, 30.0), (25, 400.0), (200, 50_000.0)),
        # Longer ago than anybody looks back: it only became Ready again.
        *a_starting_pod("web-1-old", web, -500_000, (0, 90.0), (100, 530_000.0)),
        *a_starting_pod("web-1-never", web, 7_200),
        # It waited for a node for nearly an hour, over the end of an hour.
        *a_starting_pod("web-1-waits", web, 13_000, (54, 3_300.0)),
        *a_starting_pod("db-0", ("StatefulSet", "db"), 36_000, (120, 12.0), uid="one", until=140),
        *a_starting_pod("db-0", ("StatefulSet", "db"), 42_000, (140, 19.0), uid="two"),
        *a_starting_pod("agent", ("DaemonSet", "agent"), 36_000, (120, 5.0)),
    ]


def read(running: LocalPrometheus, *workloads: str) -> ReadyTimes:
    source = PrometheusSource(PrometheusEndpoint(url=running.url), scrape_interval_seconds=STEP)
    end = START + (STEPS - 1) * STEP
    return source.fetch_ready_times(workloads, start_seconds=START, end_seconds=end, step_seconds=STEP)


def test_each_pod_counts_once_with_the_first_time_it_was_ready(tmp_path: Path) -> None:
    """Not when readiness came back after a failed probe or a restart, and not where nobody saw its beginning."""
    with a_prometheus(tmp_path, the_series(), start_seconds=START) as running:
        times = read(running, WEB, DB, "shop/Deployment/nobody")

    assert times.by_workload == {WEB: (30.0, 40.0, 65.0, 3_300.0), DB: (12.0, 19.0)}
    assert times.findings == ()


def test_an_older_kube_state_metrics_is_told_of(tmp_path: Path) -> None:
    """It shows when pods were created, but not when they were Ready."""
    older = [each for each in the_series() if each.metric != "kube_pod_status_ready_time"]

    with a_prometheus(tmp_path, older, start_seconds=START) as running:
        times = read(running, WEB, DB)

    assert times.by_workload == {}
    (told,) = map(str, times.findings)
    assert "no series of kube_pod_status_ready_time, which newer versions of kube-state-metrics show" in told
