"""What a real Prometheus with a real cluster's oddities is read as."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.forecast import FloatArray
from pipelines.demo.exporters import RawSeries
from pipelines.demo.local_prometheus import LocalPrometheus
from predictor.errors import SourceRefused
from predictor.sources.discovery import find_metrics
from predictor.sources.http import PrometheusClient, PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.sources.promql import ClusterLabels
from predictor.usage.kin import Kin
from predictor.usage.panel import Resource, SeriesKey, Severity, UsagePanel
from tests.support.prometheus import STEP, a_counter, a_pod, a_prometheus, a_series

pytestmark = pytest.mark.real

STEPS = 576
START = (int(time.time()) // 86_400 - 4) * 86_400
"""Two whole days that ended two days ago: long enough to be settled."""
END = START + (STEPS - 1) * STEP
GIB = 2**30


def the_series() -> list[RawSeries]:
    """One cluster with everything that can go wrong in one."""
    nan = float("nan")
    series: list[RawSeries] = []
    # A Deployment of two pods, the second of which replaces the first at step 300; two kube-state-metrics.
    series += a_pod("cart-v1-a", cores=[2.0] * 300, owner=("ReplicaSet", "cart-v1"))
    series += a_pod("cart-v2-b", cores=[3.0] * (STEPS - 299), owner=("ReplicaSet", "cart-v2"), first=299)
    for version, first, count in (("v1", 0, 300), ("v2", 299, STEPS - 299)):
        owner = {"namespace": "shop", "replicaset": f"cart-{version}", "owner_kind": "Deployment"}
        series.append(a_series("kube_replicaset_owner", [1] * count, first, **owner, owner_name="cart"))
        twin = {**owner, "instance": "second-kube-state-metrics"}
        series.append(a_series("kube_replicaset_owner", [1] * count, first, **twin, owner_name="cart"))
    for pod, version, first, count in (("cart-v1-a", "v1", 0, 300), ("cart-v2-b", "v2", 299, STEPS - 299)):
        labels = {"namespace": "shop", "pod": pod, "owner_kind": "ReplicaSet", "owner_name": f"cart-{version}"}
        series.append(a_series("kube_pod_owner", [1] * count, first, **labels, instance="second"))
        asked = {"namespace": "shop", "pod": pod, "container": "main", "resource": "cpu"}
        for instance in ("first", "second"):
            values = [4.0] * count
            series.append(a_series("kube_pod_container_resource_requests", values, first, **asked, instance=instance))
        # The kubelet is scraped by a second job; and the pod's own cgroup, which holds the same CPU time again.
        twice = {"namespace": "shop", "pod": pod, "id": f"/{pod}"}
        cores = [2.0 if version == "v1" else 3.0] * count
        series.append(
            a_counter("container_cpu_usage_seconds_total", cores, first, **twice, container="main", job="again")
        )
        series.append(a_counter("container_cpu_usage_seconds_total", cores, first, **twice, container=""))
    wanted = [1.0] * STEPS
    series.append(a_series("kube_deployment_spec_replicas", wanted, namespace="shop", deployment="cart"))
    # A counter that starts anew at step 200, as after a container restart.
    resets = 1000.0 + STEP * np.arange(STEPS, dtype=np.float64)
    resets[200:] -= resets[200] - 150.0
    ids = {"namespace": "shop", "pod": "resets-0"}
    series.append(a_series("container_cpu_usage_seconds_total", resets, **ids, container="main", id="/resets"))
    series.append(a_series("kube_pod_owner", wanted, **ids, owner_kind="StatefulSet", owner_name="resets"))
    # Three samples, only NaN, constant, a day's gap, a bare pod, a static pod, a pod deleted in mid-window.
    series += a_pod("brief-0", cores=[1.0] * 4, owner=("StatefulSet", "brief"), first=100)[::2]
    ids = {"namespace": "shop", "pod": "void-0"}
    series.append(a_series("container_memory_working_set_bytes", [nan] * STEPS, **ids, container="main"))
    series += a_pod("gap-0", cores=[1.0] * 100, owner=("StatefulSet", "gap"))
    series += a_pod("gap-0", cores=[1.0] * 100, owner=("StatefulSet", "gap"), first=450)
    series += a_pod("alone", cores=[0.5] * STEPS, owner=("<none>", "<none>"))
    series += a_pod("etcd-node-1", cores=[0.25] * STEPS, owner=("Node", "node-1"), namespace="kube-system")
    # A CronJob: one job of 20 steps; its pod stays listed as done and keeps its request.
    done = {"namespace": "batch", "pod": "report-1-x"}
    series += a_pod("report-1-x", cores=[2.0] * 20, owner=("Job", "report-1"), first=50, namespace="batch")[:2]
    series.append(a_series("kube_pod_owner", [1] * 200, 50, **done, owner_kind="Job", owner_name="report-1"))
    job = {"namespace": "batch", "job_name": "report-1", "owner_kind": "CronJob", "owner_name": "report"}
    series.append(a_series("kube_job_owner", [1] * 200, 50, **job))
    series.append(a_series("kube_pod_status_phase", [0] * 20 + [1] * 180, 50, **done, phase="Succeeded"))
    asked = {**done, "container": "main", "resource": "cpu"}
    series.append(a_series("kube_pod_container_resource_requests", [1.5] * 200, 50, **asked))
    active = np.zeros(STEPS)
    active[50:70] = 1
    series.append(a_series("kube_cronjob_status_active", active, namespace="batch", cronjob="report"))
    # GPUs, seen by an exporter that was itself replaced: one busy, one idle in the exporter's own name.
    for exporter, first in (("dcgm-exporter-a", 0), ("dcgm-exporter-b", 288)):
        own = {"namespace": "gpu-operator", "pod": exporter, "instance": "10.0.0.1:9400"}
        held = {**own, "exported_namespace": "shop", "exported_pod": "alone", "UUID": "GPU-1"}
        series.append(a_series("DCGM_FI_DEV_GPU_UTIL", [60.0] * 288, first, **held))
        series.append(a_series("DCGM_FI_DEV_FB_USED", [1024.0] * 288, first, **held))
        series.append(a_series("DCGM_FI_DEV_FB_FREE", [3072.0] * 288, first, **held))
        series.append(a_series("DCGM_FI_DEV_GPU_UTIL", [0.0] * 288, first, **own, UUID="GPU-2"))
        exporter_pod = {"namespace": "gpu-operator", "pod": exporter, "owner_kind": "DaemonSet"}
        series.append(a_series("kube_pod_owner", [1] * 288, first, **exporter_pod, owner_name="dcgm-exporter"))
    # The ingress counts by Service: one named as its workload, one not.
    for service, rate in (("cart", 10.0), ("gap-http", 5.0), ("nobody", 1.0)):
        labels = {"namespace": "ingress", "exported_namespace": "shop", "exported_service": service}
        for status in ("200", "500"):
            series.append(a_counter("nginx_ingress_controller_requests", [rate / 2] * STEPS, **labels, status=status))
    # Nodes of two pools, one without a label.
    for node, pool in (("node-1", "blue"), ("node-2", "")):
        series.append(a_series("kube_node_info", wanted, node=node))
        series.append(a_series("kube_node_labels", wanted, node=node, **({"label_node_pool": pool} if pool else {})))
        for instance in ("first", "second"):
            given = {"node": node, "resource": "cpu", "instance": instance}
            series.append(a_series("kube_node_status_allocatable", [8.0] * STEPS, **given))
    series.append(a_series("kube_pod_info", [1] * 300, namespace="shop", pod="cart-v1-a", node="node-2"))
    later = [1] * (STEPS - 299)
    series.append(a_series("kube_pod_info", later, 299, namespace="shop", pod="cart-v2-b", node="node-1"))
    # Two pods, of which the second starts at step 100 and is not scraped for a while; and one deaf pod among 21.
    series += a_watched_pod("half", 0, cores=1.0)
    series += a_watched_pod("half", 1, cores=2.0, first=100, deaf=range(200, 260))
    for number in range(21):
        series += a_watched_pod("many", number, cores=1.0, deaf=range(200, 260) if number == 0 else range(0))
    series += the_contents()
    series += the_cuts()
    # A rise that starts at step 400: nothing before it may know.
    series += a_pod("rise-0", cores=[1.0] * 400 + [9.0] * 176, owner=("StatefulSet", "rise"))
    return series


def the_contents() -> list[RawSeries]:
    """What containers run and what owns workloads, from two kube-state-metrics; of most workloads neither is told."""
    series: list[RawSeries] = []
    digest = "sha256:" + "0" * 64

    def container(pod: str, name: str, image: str, first: int = 0, steps: int = STEPS, **more: str) -> None:
        ids = {"namespace": "shop", "pod": pod, "container": name, "image": image, **more}
        for instance in ("first", "second"):
            series.append(a_series("kube_pod_container_info", [1] * steps, first, **ids, instance=instance))

    # An older version with another sidecar; then the runtime names only a digest, and the container starts again.
    container("cart-v1-a", "main", "eu.io:5000/shop/cart:v1", steps=300)
    container("cart-v1-a", "old-proxy", "old/proxy:1", steps=300)
    container("cart-v2-b", "main", digest, 299, STEPS - 299, image_spec="eu.io:5000/shop/cart:v2", container_id="1")
    container("cart-v2-b", "main", digest, 400, STEPS - 400, image_spec="eu.io:5000/shop/cart:v2", container_id="2")
    container("cart-v2-b", "istio-proxy", "istio/proxyv2:1.2", 299, STEPS - 299)
    container("alone", "main", digest)
    container("half-0", "main", "half:v1")
    # In a rollout, the newest replica runs the next version already.
    container("half-1", "main", f"half:v2@{digest}", 100, STEPS - 100)
    cart = {"namespace": "shop", "deployment": "cart"}
    for instance in ("first", "second"):
        owner = {"owner_kind": "Store", "owner_name": "main", "owner_is_controller": "true", "instance": instance}
        series.append(a_series("kube_deployment_owner", [1] * STEPS, **cart, **owner))
    nothing = {"owner_kind": "<none>", "owner_name": "<none>"}
    series.append(a_series("kube_deployment_owner", [1] * STEPS, namespace="shop", deployment="half", **nothing))
    part_of = {"label_app_kubernetes_io_part_of": "storefront"}
    series.append(a_series("kube_deployment_labels", [1] * STEPS, **cart, **part_of))
    series.append(a_series("kube_statefulset_labels", [1] * STEPS, namespace="shop", statefulset="half", **part_of))
    series.append(a_series("kube_statefulset_labels", [1] * STEPS, namespace="shop", statefulset="many"))
    report = {"namespace": "batch", "cronjob": "report"}
    series.append(a_series("kube_cronjob_labels", [1] * STEPS, **report, **part_of))
    return series


def the_cuts() -> list[RawSeries]:
    """Two pods of which one is throttled from step 100 on, one of them with a second container; and pods that start
    again, of which one was killed for want of memory, its count scraped by two kube-state-metrics.
    """
    series: list[RawSeries] = []
    for number in range(2):
        pod = f"squeezed-{number}"
        series += a_pod(pod, cores=[1.0] * STEPS, owner=("StatefulSet", "squeezed"))
        for container, periods in (("main", 10.0), *([("proxy", 5.0)] if number else [])):
            ids = {"namespace": "shop", "pod": pod, "container": container, "id": f"/{pod}/{container}"}
            throttled = [0.0] * 100 + [0.8 * periods if (number, container) == (0, "main") else 0.0] * (STEPS - 100)
            for job in ("kubelet", "again"):
                total, cut = (f"container_cpu_cfs_{each}_total" for each in ("periods", "throttled_periods"))
                series.append(a_counter(total, [periods] * STEPS, **ids, job=job))
                series.append(a_counter(cut, throttled, **ids, job=job))
        # The pod's own cgroup, which holds its containers' periods once more.
        whole = {"namespace": "shop", "pod": pod, "container": "", "id": f"/{pod}"}
        series.append(a_counter("container_cpu_cfs_periods_total", [10.0] * STEPS, **whole))
    for workload, reason in (("leaks", "OOMKilled"), ("fails", "Error")):
        pod = f"{workload}-0"
        series += a_pod(pod, cores=[1.0] * STEPS, owner=("StatefulSet", workload))
        ids = {"namespace": "shop", "pod": pod, "container": "main"}
        starts = [0.0] * 300 + [1.0] * 100 + [2.0] * (STEPS - 400)
        for instance in ("first", "second"):
            twin = {**ids, "instance": instance}
            series.append(a_series("kube_pod_container_status_restarts_total", starts, **twin))
            ended = {**twin, "reason": reason}
            metric = "kube_pod_container_status_last_terminated_reason"
            # The second time it ends by itself.
            series.append(a_series(metric, [1.0] * 100, 300, **ended))
            series.append(a_series(metric, [1.0] * (STEPS - 400), 400, **{**ended, "reason": "Completed"}))
    return series


def a_watched_pod(
    workload: str, number: int, *, cores: float, first: int = 0, deaf: range = range(0)
) -> list[RawSeries]:
    """A StatefulSet's pod known to run from a step on, whose kubelet was not scraped in the steps `deaf`."""
    pod = f"{workload}-{number}"
    usage, _, owner = a_pod(pod, cores=[cores] * (STEPS - first), owner=("StatefulSet", workload), first=first)
    usage.values[[step - first for step in deaf]] = np.nan
    ids = {"namespace": "shop", "pod": pod}
    return [usage, owner, a_series("kube_pod_status_phase", [1] * (STEPS - first), first, **ids, phase="Running")]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPrometheus]:
    """One Prometheus for all tests here; they only read."""
    with a_prometheus(tmp_path_factory.mktemp("oddities"), the_series(), start_seconds=START) as running:
        yield running


@pytest.fixture(scope="module")
def panel(prometheus: LocalPrometheus) -> UsagePanel:
    """Everything in it, as read."""
    return a_source(prometheus).fetch(start_seconds=START, end_seconds=END, step_seconds=STEP)


def a_source(prometheus: LocalPrometheus, **more: object) -> PrometheusSource:
    """A source of the Prometheus."""
    services = {"shop/gap-http": "shop/StatefulSet/gap"}
    endpoint = PrometheusEndpoint(url=prometheus.url)
    return PrometheusSource(endpoint, scrape_interval_seconds=STEP, service_workloads=services, **more)  # type: ignore[arg-type]


def row(panel: UsagePanel, workload: str, resource: Resource = Resource.CPU) -> FloatArray:
    """One series' usage."""
    return np.asarray(panel.usage[panel.row(SeriesKey(workload, resource))])


def said(panel: UsagePanel, workload: str) -> str:
    """All findings on a workload."""
    return "; ".join(str(finding) for finding in panel.findings if finding.workload == workload)


def test_a_deployment_is_one_series_through_a_deploy_and_counts_once(panel: UsagePanel) -> None:
    """Two kube-state-metrics, two kubelet jobs and the pod's cgroup beside its container: still 2, then 3 cores."""
    usage = row(panel, "shop/Deployment/cart")

    np.testing.assert_allclose(usage[1:299], 2.0, rtol=1e-6)
    np.testing.assert_allclose(usage[301:], 3.0, rtol=1e-6)


def test_a_request_counts_once_and_only_for_pods_that_are_not_done(panel: UsagePanel) -> None:
    """The done job's pod is still listed with its request, but asks for nothing."""
    request = panel.attributes["request"]

    np.testing.assert_allclose(request[panel.row(SeriesKey("shop/Deployment/cart", Resource.CPU))][1:298], 4.0)
    report = request[panel.row(SeriesKey("batch/CronJob/report", Resource.CPU))]
    np.testing.assert_allclose(report[51:69], 1.5)
    np.testing.assert_allclose(report[72:], 0.0)


def test_a_counter_reset_gives_neither_a_negative_nor_a_huge_rate(panel: UsagePanel) -> None:
    """One core before, one after, and for the two ranges that the reset lies in less, never more."""
    usage = row(panel, "shop/StatefulSet/resets")

    assert np.nanmin(usage) >= 0
    assert np.nanmax(usage) <= 1.0 + 1e-6
    np.testing.assert_allclose(np.delete(usage[1:], [199, 200]), 1.0, rtol=1e-6)


def test_a_step_in_which_a_running_pod_was_not_measured_holds_no_sample(panel: UsagePanel) -> None:
    """What the other pod used is not the workload's usage: unknown, with a finding, until two scrapes are there."""
    usage = row(panel, "shop/StatefulSet/half")

    assert np.isnan(usage[201:261]).all()
    np.testing.assert_allclose(usage[102:200], 3.0, rtol=1e-6)
    np.testing.assert_allclose(usage[262:], 3.0, rtol=1e-6)
    assert "only some of its running pods were measured" in said(panel, "shop/StatefulSet/half")


def test_a_pod_that_has_just_started_does_not_blank_its_workload(panel: UsagePanel) -> None:
    """It was not there for the whole range: the usage of the others is the workload's."""
    usage = row(panel, "shop/StatefulSet/half")

    np.testing.assert_allclose(usage[1:101], 1.0, rtol=1e-6)
    assert not np.isnan(usage[1:200]).any()


def test_one_deaf_pod_among_many_does_not_blind_the_workload(panel: UsagePanel) -> None:
    """One of 21 is less than the tolerated share."""
    usage = row(panel, "shop/StatefulSet/many")

    np.testing.assert_allclose(usage[202:259], 20.0, rtol=1e-6)
    assert "only some" not in said(panel, "shop/StatefulSet/many")


def test_without_pod_phases_it_is_said_that_partial_usage_cannot_be_told(tmp_path: Path) -> None:
    """Some clusters drop the metric; the answer is used, with a warning that names it."""
    with a_prometheus(tmp_path, a_pod("cart-0", cores=[1.0] * 12), start_seconds=START) as running:
        read = a_source(running).fetch(start_seconds=START, end_seconds=START + 11 * STEP, step_seconds=STEP)

    assert any("kube_pod_status_phase is not there" in str(finding) for finding in read.findings)
    assert "shop/StatefulSet/cart" in read.workloads


def test_counters_scraped_too_seldom_for_the_setting_are_named(prometheus: LocalPrometheus) -> None:
    """CPU is there but never twice within a range: a warning names the setting, and memory is read all the same."""
    source = PrometheusSource(PrometheusEndpoint(url=prometheus.url), scrape_interval_seconds=60)

    read = source.fetch(start_seconds=START, end_seconds=END, step_seconds=STEP)

    warnings = [str(f) for f in read.findings if f.severity is Severity.WARNING and not f.workload]
    assert any("cpu: no usage" in text and "prometheus.scrape_interval" in text for text in warnings)
    assert np.isfinite(row(read, "shop/Deployment/cart", Resource.MEMORY)).mean() > 0.99
    assert not any("only some" in str(finding) for finding in read.findings)


def test_a_cronjob_uses_nothing_between_its_jobs(panel: UsagePanel) -> None:
    """No active job is a known zero, not a missing sample."""
    usage = row(panel, "batch/CronJob/report")

    np.testing.assert_allclose(usage[51:70], 2.0, rtol=1e-6)
    np.testing.assert_allclose(usage[72:], 0.0)


def test_pods_of_no_controller_are_workloads_of_their_own(panel: UsagePanel) -> None:
    """Bare pods, and static pods that their node owns."""
    np.testing.assert_allclose(row(panel, "shop/Pod/alone")[1:], 0.5, rtol=1e-6)
    np.testing.assert_allclose(row(panel, "kube-system/Pod/etcd-node-1")[1:], 0.25, rtol=1e-6)


def test_unusable_and_odd_series_are_left_out_or_used_with_a_finding(panel: UsagePanel) -> None:
    """Three samples and only NaN are left out, a gap and a constant are used; each is said."""
    assert "only 3 samples; at least 4" in said(panel, "shop/StatefulSet/brief")
    assert "a gap of 29.2 h" in said(panel, "shop/StatefulSet/gap")
    assert "constant" in said(panel, "shop/Pod/alone")
    assert "shop/StatefulSet/brief" not in panel.workloads
    assert np.isnan(row(panel, "shop/StatefulSet/gap")[102:449]).all()


def test_a_workload_is_cut_off_in_the_share_of_its_periods_that_was_throttled(panel: UsagePanel) -> None:
    """8 of 10 periods of one of its three containers, 25 altogether; not known of what has no limit."""
    cut_off = panel.attributes["cut_off"]

    squeezed = cut_off[panel.row(SeriesKey("shop/StatefulSet/squeezed", Resource.CPU))]
    np.testing.assert_allclose(squeezed[1:99], 0.0)
    np.testing.assert_allclose(squeezed[101:], 8 / 25, rtol=1e-6)
    assert np.isnan(cut_off[panel.row(SeriesKey("shop/StatefulSet/half", Resource.CPU))]).all()
    assert np.isnan(cut_off[panel.rows(Resource.REQUESTS)]).all()


def test_a_kill_for_want_of_memory_cuts_off_the_step_in_which_the_container_starts_again(panel: UsagePanel) -> None:
    """Not another restart, not the restart after it, and nothing before it."""
    cut_off = panel.attributes["cut_off"]

    leaks, fails = (cut_off[panel.row(SeriesKey(f"shop/StatefulSet/{n}", Resource.MEMORY))] for n in ("leaks", "fails"))
    assert np.flatnonzero(leaks).tolist() == [300]
    assert not fails.any()
    assert panel.was_cut_off is not None
    assert panel.is_bound is not None
    assert panel.is_bound[panel.row(SeriesKey("shop/StatefulSet/leaks", Resource.MEMORY)), 300]


def test_no_kill_is_lost_between_two_steps(tmp_path: Path) -> None:
    """With steps of four scrapes, wherever among them the container starts again."""
    series: list[RawSeries] = []
    for number in range(4):
        pod = f"leaks-{number}"
        series += a_pod(pod, cores=[1.0] * 48, owner=("StatefulSet", pod))
        ids = {"namespace": "shop", "pod": pod, "container": "main"}
        first = 20 + number
        starts = [0.0] * first + [1.0] * (48 - first)
        series.append(a_series("kube_pod_container_status_restarts_total", starts, **ids))
        metric = "kube_pod_container_status_last_terminated_reason"
        series.append(a_series(metric, [1.0] * (48 - first), first, **ids, reason="OOMKilled"))
    with a_prometheus(tmp_path, series, start_seconds=START) as running:
        read = a_source(running).fetch(start_seconds=START, end_seconds=START + 44 * STEP, step_seconds=4 * STEP)

    killed = read.attributes["cut_off"][read.rows(Resource.MEMORY)]
    assert [np.flatnonzero(row > 0).tolist() for row in killed] == [[5]] * 4


def test_without_cuts_nothing_is_said_of_them(tmp_path: Path) -> None:
    """Where the metrics are absent, and where all of them say that nothing was cut off."""
    quiet = {"namespace": "shop", "pod": "cart-0", "container": "main"}
    told = [
        a_counter("container_cpu_cfs_periods_total", [10.0] * 12, **quiet, id="/cart-0"),
        a_counter("container_cpu_cfs_throttled_periods_total", [0.0] * 12, **quiet, id="/cart-0"),
        a_series("kube_pod_container_status_restarts_total", [1.0] * 12, **quiet),
        a_series("kube_pod_container_status_last_terminated_reason", [1.0] * 12, **quiet, reason="OOMKilled"),
    ]
    for more in ([], told):
        with a_prometheus(tmp_path, [*a_pod("cart-0", cores=[1.0] * 12), *more], start_seconds=START) as running:
            read = a_source(running).fetch(start_seconds=START, end_seconds=START + 11 * STEP, step_seconds=STEP)

        assert "cut_off" not in read.attributes
        assert read.is_bound is None


def test_gpu_usage_goes_to_the_pod_that_holds_the_device(panel: UsagePanel) -> None:
    """Not to the exporter, not twice when the exporter was replaced, and an idle device to nobody."""
    np.testing.assert_allclose(row(panel, "shop/Pod/alone", Resource.GPU), 0.6)
    memory = panel.row(SeriesKey("shop/Pod/alone", Resource.GPU_MEMORY))
    np.testing.assert_allclose(panel.usage[memory], GIB)
    np.testing.assert_allclose(panel.attributes["capacity"][memory], 4 * GIB)
    assert not [key for key in panel.keys if "dcgm" in key.workload]


def test_requests_go_to_the_workload_behind_the_service(panel: UsagePanel) -> None:
    """By name, by the map that was given, and with a note where neither helps."""
    np.testing.assert_allclose(row(panel, "shop/Deployment/cart", Resource.REQUESTS)[1:], 10.0, rtol=1e-6)
    np.testing.assert_allclose(row(panel, "shop/StatefulSet/gap", Resource.REQUESTS)[1:], 5.0, rtol=1e-6)
    assert any("Service shop/nobody bears no workload's name" in str(finding) for finding in panel.findings)


def test_nothing_after_a_step_is_seen_in_it(panel: UsagePanel) -> None:
    """The step before a rise knows nothing of it, and the rise shows in its own step."""
    usage = row(panel, "shop/StatefulSet/rise")

    np.testing.assert_allclose(usage[399], 1.0, rtol=1e-6)
    np.testing.assert_allclose(usage[400], 9.0, rtol=1e-6)


def test_a_shorter_fetch_gives_the_same_values(prometheus: LocalPrometheus, panel: UsagePanel) -> None:
    """What was known at a cutoff does not depend on what was fetched after it."""
    end = START + 400 * STEP
    short = a_source(prometheus).fetch(start_seconds=START, end_seconds=end, step_seconds=STEP)

    for key in short.keys:
        np.testing.assert_array_equal(short.usage[short.row(key)], panel.usage[panel.row(key), :401], str(key))


def test_a_workload_is_in_the_pool_where_most_of_its_pods_were(panel: UsagePanel) -> None:
    """300 steps without a pool label, 277 in `blue`."""
    assert panel.node_pool["shop/Deployment/cart"] == "default"


def test_a_workload_is_known_by_its_newest_images_and_by_its_owner(panel: UsagePanel) -> None:
    """Without versions and what ran before; as the pod names them, not by digests; and the owner before the label."""
    assert panel.kin == {
        "shop/Deployment/cart": Kin("eu.io:5000/shop/cart,istio/proxyv2", "Store/main"),
        "shop/StatefulSet/half": Kin("half", "part-of/storefront"),
        "batch/CronJob/report": Kin("", "part-of/storefront"),
    }


def test_kin_is_as_it_was_at_the_end_of_the_time(prometheus: LocalPrometheus, tmp_path: Path) -> None:
    """Before the deploy the older version's images; the same from the cache, with Prometheus out of reach."""
    known = PrometheusEndpoint(url=prometheus.url, cache_name="here")
    away = PrometheusEndpoint(url="http://127.0.0.1:9", cache_name="here", retries=0)
    sources = [PrometheusSource(each, scrape_interval_seconds=STEP, cache_folder=tmp_path) for each in (known, away)]
    end = START + 280 * STEP

    first, second = (
        source.fetch(start_seconds=START, end_seconds=end, step_seconds=STEP, resources=(Resource.CPU,))
        for source in sources
    )

    assert first.kin["shop/Deployment/cart"] == Kin("eu.io:5000/shop/cart,old/proxy", "Store/main")
    assert second.kin == first.kin


def test_without_images_and_owners_nothing_is_said_of_kin(tmp_path: Path) -> None:
    """Some clusters drop these metrics: usage is read all the same, even of a time shorter than an hour."""
    with a_prometheus(tmp_path, a_pod("cart-0", cores=[1.0] * 12), start_seconds=START) as running:
        read = a_source(running).fetch(start_seconds=START, end_seconds=START + 7 * STEP, step_seconds=STEP)

    assert read.workloads == ("shop/StatefulSet/cart",)
    assert read.kin == {}


def test_node_pools_add_up_their_nodes_once(prometheus: LocalPrometheus) -> None:
    """Two kube-state-metrics, one node each: 8 cores per pool; a node without a label is in `default`."""
    pools = a_source(prometheus).fetch_node_pools(start_seconds=START, end_seconds=END, step_seconds=STEP)

    assert pools.names == ("blue", "default")
    np.testing.assert_allclose(pools.allocatable[Resource.CPU], 8.0)
    np.testing.assert_allclose(pools.node_counts, 1.0)
    assert Resource.GPU not in pools.allocatable


def test_a_resource_that_nothing_has_is_noted_and_the_others_are_read(prometheus: LocalPrometheus) -> None:
    """No GPU metrics under these labels in this time: a note that names them."""
    source = PrometheusSource(PrometheusEndpoint(url=prometheus.url), scrape_interval_seconds=STEP)
    early = START + 40 * STEP
    panel = source.fetch(start_seconds=START, end_seconds=early, step_seconds=STEP)

    assert Resource.CPU in {key.resource for key in panel.keys}
    resources = (Resource.MEMORY, Resource.REQUESTS)
    noted = source.fetch(start_seconds=START, end_seconds=early, step_seconds=STEP, resources=resources)
    assert {key.resource for key in noted.keys} == set(resources)


def test_nothing_at_all_names_the_missing_metrics(prometheus: LocalPrometheus) -> None:
    """Another cluster's labels: the error names what is not there and under which labels."""
    source = a_source(prometheus, labels=ClusterLabels(matchers={"cluster": 'eu "1"'}))

    with pytest.raises(SourceRefused, match=r"no series of container_cpu_usage_seconds_total.*'cluster'") as caught:
        source.fetch(start_seconds=START, end_seconds=END, step_seconds=STEP, resources=(Resource.CPU,))

    assert "kube_pod_owner" in str(caught.value)


def test_a_wrong_scrape_interval_is_named_as_the_reason(prometheus: LocalPrometheus) -> None:
    """Metrics that exist but never twice in a range: the setting is named."""
    source = PrometheusSource(PrometheusEndpoint(url=prometheus.url), scrape_interval_seconds=15)

    with pytest.raises(SourceRefused, match="scrape_interval"):
        source.fetch(start_seconds=START, end_seconds=END, step_seconds=60, resources=(Resource.REQUESTS,))


@pytest.mark.parametrize("ahead", [86_400, 86_400 + 3600 * 7])
def test_steps_that_are_not_over_hold_no_sample(prometheus: LocalPrometheus, ahead: int) -> None:
    """A fetch up to tomorrow ends in missing samples, not in an error or in half a step, at any hour of the day."""
    end = int(time.time()) // STEP * STEP + ahead
    panel = a_source(prometheus).fetch(start_seconds=START, end_seconds=end, step_seconds=STEP)

    assert panel.end_seconds == end
    assert np.isnan(panel.usage[:, -288:]).all()


def test_the_cap_on_points_is_met_on_a_real_server(prometheus: LocalPrometheus) -> None:
    """12,000 points: Prometheus itself would refuse them in one query."""
    client = PrometheusClient(PrometheusEndpoint(url=prometheus.url))
    try:
        matrix = client.range("vector(1)", start_seconds=START, points=12_000, step_seconds=1)
    finally:
        client.close()

    np.testing.assert_array_equal(matrix.values, np.ones((1, 12_000)))


def test_a_second_fetch_asks_only_for_what_is_new(prometheus: LocalPrometheus, tmp_path: Path) -> None:
    """Settled days come from the disk: with Prometheus out of reach they still do, and they are the same."""
    known = PrometheusEndpoint(url=prometheus.url, cache_name="here")
    away = PrometheusEndpoint(url="http://127.0.0.1:9", cache_name="here", retries=0)
    sources = [PrometheusSource(each, scrape_interval_seconds=STEP, cache_folder=tmp_path) for each in (known, away)]
    resources = (Resource.CPU, Resource.MEMORY, Resource.GPU)

    first, second = (
        source.fetch(start_seconds=START + 12 * STEP, end_seconds=END, step_seconds=STEP, resources=resources)
        for source in sources
    )

    assert first.keys == second.keys
    np.testing.assert_array_equal(first.usage, second.usage)


def test_a_cache_that_cannot_be_written_is_a_warning(prometheus: LocalPrometheus, tmp_path: Path) -> None:
    """The fetch goes on without it and says so."""
    (tmp_path / "cache").write_text("not a folder")
    source = a_source(prometheus, cache_folder=tmp_path / "cache")

    panel = source.fetch(start_seconds=START, end_seconds=END, step_seconds=STEP, resources=(Resource.CPU,))

    warnings = [finding for finding in panel.findings if finding.severity is Severity.WARNING]
    assert any("went on without it" in finding.message for finding in warnings)


def test_progress_ends_at_its_total(prometheus: LocalPrometheus) -> None:
    """Told of each piece, ascending to the whole."""
    told: list[tuple[int, int]] = []
    a_source(prometheus).fetch(
        start_seconds=START, end_seconds=END, step_seconds=STEP, progress=lambda done, total: told.append((done, total))
    )

    assert [done for done, _ in told] == list(range(1, told[-1][1] + 1))


def test_discovery_tells_what_is_there_from_what_is_not(prometheus: LocalPrometheus) -> None:
    """In the time asked for."""
    found = find_metrics(
        PrometheusEndpoint(url=prometheus.url),
        ("kube_pod_owner", "kube_nothing"),
        start_seconds=START,
        end_seconds=END,
    )

    assert found.present == ("kube_pod_owner",)
    assert found.missing == ("kube_nothing",)
