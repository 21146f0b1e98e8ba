"""What replicas carry is learned from a real Prometheus and decided by on a real API server, and outlives its copy."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.queueing import largest_loads, late_shares
from pipelines.demo.exporters import RawSeries
from tests.support.controlplane import ControlPlane, wait_until
from tests.support.live_demand import LiveDemand
from tests.support.prometheus import STEP, a_counter, a_prometheus, a_series
from tests.support.running import SOON_SECONDS, Scene, a_scene, an_object

pytestmark = pytest.mark.e2e
STEPS = 576
FEWEST, MOST = 4, 10
RATE, THRESHOLD = 10.0, 1.0
"""Requests a second that a replica is done with, and the longest that a request may take, in seconds."""
TRULY = RATE * largest_loads(np.arange(1.0, 41.0), THRESHOLD * RATE, 0.99)
"""What 1 to 40 replicas of the shared queue carry with 99 % of requests in time."""
CALM = 20.0
"""Requests a second in the last hours."""


@pytest.fixture
def scene(control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path) -> Iterator[Scene]:
    """History in steps of five minutes, as what it is learned from is."""
    variables = {
        "FORESIZE_HISTORY__STEP": f"{STEP}s",
        "FORESIZE_HISTORY__SERVING_SPAN": "2d",
        "FORESIZE_PROMETHEUS__SCRAPE_INTERVAL": f"{STEP}s",
        "FORESIZE_FORECAST__HORIZON": "1h",
    }
    with a_scene(control_plane, demand, tmp_path, variables) as made:
        yield made


def a_past(namespace: str) -> list[RawSeries]:
    """Two days of a Deployment `web`: replicas that are now and then too few, and how many requests were in time."""
    rng = np.random.default_rng(1)
    replicas = np.repeat(rng.integers(FEWEST, MOST + 1, STEPS // 12), 12)
    load = TRULY[replicas - 1] * rng.uniform(0.4, 1.04, STEPS)
    # The same hours of the day before are as calm as the last ones, so that a forecast is.
    for first in (STEPS - 72, STEPS - 72 - 288):
        load[first : first + 96] = CALM
    in_time = load * (1 - np.clip(late_shares(load / RATE, replicas.astype(np.float64), THRESHOLD * RATE), 0, 1))
    series = []
    for number in range(MOST):
        ids = {"namespace": namespace, "pod": f"web-5c9f-{number}"}
        there = np.where(replicas > number, 1.0, np.nan)
        series += [
            a_series("container_memory_working_set_bytes", there * 1e9, **ids, container="app"),
            a_series("kube_pod_status_ready", there, **ids, condition="true"),
            a_series("kube_pod_owner", there, **ids, owner_kind="ReplicaSet", owner_name="web-5c9f"),
            a_series("kube_pod_container_info", there, **ids, container="app", image_spec="web:1"),
        ]
    owner = {"namespace": namespace, "replicaset": "web-5c9f", "owner_kind": "Deployment", "owner_name": "web"}
    series.append(a_series("kube_replicaset_owner", np.ones(STEPS), **owner))
    for bound, each in (("0.5", in_time * 0.9), ("1.0", in_time), ("+Inf", load)):
        series.append(a_counter("http_seconds_bucket", each, namespace=namespace, le=bound))
    series.append(a_counter("http_seconds_count", load, namespace=namespace))
    return series


def test_learned_capacity_decides_and_a_new_copy_goes_on_with_it(scene: Scene, tmp_path: Path) -> None:
    """Replicas as the true queue needs them, four fifths of those seen at least; no flap when the leader dies."""
    start = int(time.time()) // STEP * STEP - STEPS * STEP
    with a_prometheus(tmp_path, a_past(scene.namespace), start_seconds=start) as prometheus:
        metric = {"query": f"sum(rate(http_seconds_count[{2 * STEP}s]))"}
        scene.put("web", replicas=2, metric={"resource": "memory"})
        manifest = an_object(scene.namespace, "web", metric=metric)
        del manifest["spec"]["horizontal"]["target"]
        manifest["spec"]["sla"] = {"latency": {"histogram": "http_seconds", "thresholdSeconds": THRESHOLD}}
        scene.plane.apply(manifest)
        leader = scene.leader(scene.start(prometheus=prometheus.url))

        wait_until(lambda: "low" in (scene.status("web").get("capacity") or {}), SOON_SECONDS, "a learned capacity")
        wait_until(lambda: scene.replicas("web") >= FEWEST, SOON_SECONDS, "what is kept of what was seen")
        wait_until(
            lambda: scene.status("web")["capacity"]["replicas"] == scene.status("web")["desiredReplicas"],
            SOON_SECONDS,
            "replicas that stay",
        )
        told, desired = scene.status("web")["capacity"], scene.replicas("web")
        assert TRULY[desired - 1] >= scene.status("web")["forecast"]["value"]
        assert 0.75 * TRULY[desired - 1] <= told["low"] <= TRULY[desired - 1] <= told["high"]
        assert f"from {FEWEST} to {MOST} replicas" in told["reason"]

        leader.kill()
        scene.leader(scene.start(prometheus=prometheus.url))
        later = scene.status("web")["capacity"]
        assert (later["learnedAt"], later["low"]) == (told["learnedAt"], told["low"])
        assert scene.replicas("web") == desired
