"""What the GPUs of nodes did, read from a real Prometheus: how far they may be shared rests on it."""

import time
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from pipelines.demo.exporters import RawSeries
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from tests.support.prometheus import STEP, a_prometheus, a_series

pytestmark = pytest.mark.real
STEPS = 24
NOW = int(time.time()) // STEP * STEP
START = NOW - STEPS * STEP
MEBIBYTE = 2**20


def a_device(node: str, number: int, metric: str, values: list[float], pod: str = "") -> RawSeries:
    labels = {"Hostname": node, "UUID": f"GPU-{node}-{number}"} | ({"namespace": "ai", "pod": pod} if pod else {})
    return a_series(metric, values, **labels)


def a_holder(node: str, pod: str, gpus: int, phase: str = "Running") -> list[RawSeries]:
    """A pod that requests GPUs, as two copies of kube-state-metrics tell of it."""
    ids = {"namespace": "ai", "pod": pod}
    found = []
    for copy in ("first", "second"):
        asked = {"container": "app", "resource": "nvidia_com_gpu", "instance": copy}
        found += [
            a_series("kube_pod_container_resource_requests", [gpus] * STEPS, **ids, **asked),
            a_series("kube_pod_status_phase", [1] * STEPS, **ids, phase=phase, instance=copy),
            a_series("kube_pod_info", [1] * STEPS, **ids, node=node, instance=copy),
        ]
    return found


def the_series() -> list[RawSeries]:
    """n1: a device that two pods share and one that a pod has alone; n2: an idle device without profiling metrics."""
    return [
        *(a_device("n1", 0, "DCGM_FI_PROF_SM_ACTIVE", [0.5] * STEPS, pod) for pod in ("a", "b")),
        a_device("n1", 1, "DCGM_FI_PROF_SM_ACTIVE", [0.25] * STEPS, "c"),
        a_device("n1", 0, "DCGM_FI_DEV_GPU_UTIL", [100.0] * STEPS, "a"),
        a_device("n1", 0, "DCGM_FI_DEV_FB_USED", [3000.0, 5000.0] * (STEPS // 2), "a"),
        a_device("n1", 1, "DCGM_FI_DEV_FB_USED", [4000.0] * STEPS, "c"),
        *a_holder("n1", "a", 1),
        *a_holder("n1", "b", 1),
        *a_holder("n1", "c", 1),
        *a_holder("n1", "done", 4, phase="Succeeded"),
        a_device("n2", 0, "DCGM_FI_DEV_GPU_UTIL", [10.0] * STEPS),
        a_device("n2", 0, "DCGM_FI_DEV_FB_USED", [100.0] * STEPS),
    ]


def test_devices_are_added_up_by_node_whoever_shares_them(tmp_path: Path) -> None:
    """A shared device counts once, its memory at the most within a step; pods that are done have nothing."""
    with a_prometheus(tmp_path, the_series(), start_seconds=START) as prometheus:
        source = PrometheusSource(PrometheusEndpoint(url=prometheus.url), scrape_interval_seconds=STEP)
        found = source.fetch_gpus(start_seconds=START + 6 * STEP, end_seconds=NOW - 4 * STEP, step_seconds=2 * STEP)
        newest = source.fetch_gpus(start_seconds=NOW - 4 * STEP, end_seconds=NOW - 4 * STEP, step_seconds=2 * STEP)

    assert set(found.by_node) == {"n1", "n2"}
    one, other = found.by_node["n1"], found.by_node["n2"]
    np.testing.assert_allclose(one.activity, 0.75)
    np.testing.assert_allclose(one.fullest_bytes, 5000 * MEBIBYTE)
    np.testing.assert_allclose(one.shares, 3)
    np.testing.assert_allclose(one.devices, 2)
    np.testing.assert_allclose(other.activity, 0.1)
    np.testing.assert_allclose(other.fullest_bytes, 100 * MEBIBYTE)
    np.testing.assert_allclose(other.shares, 0)
    # A step alone is what it is within a longer time: one may be held against the other.
    for whole, alone in zip(astuple(one), astuple(newest.by_node["n1"]), strict=True):
        np.testing.assert_array_equal(alone, whole[-1:])


def test_a_cluster_without_gpus_has_none(tmp_path: Path) -> None:
    """That is no error: nodes without evidence are not shared."""
    series = [a_series("kube_pod_info", [1] * STEPS, namespace="ai", pod="a", node="n1")]
    with a_prometheus(tmp_path, series, start_seconds=START) as prometheus:
        source = PrometheusSource(PrometheusEndpoint(url=prometheus.url), scrape_interval_seconds=STEP)
        found = source.fetch_gpus(start_seconds=START, end_seconds=NOW, step_seconds=STEP)

    assert found.by_node == {}
