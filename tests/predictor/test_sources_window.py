"""A window that is appended to says, to the bit, what a whole read of the same time says, whatever happened."""

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import pytest

from models.forecast import FloatArray
from pipelines.demo.exporters import RawSeries
from pipelines.demo.local_prometheus import LocalPrometheus
from predictor.errors import SourceRefused, SourceUnavailable
from predictor.settings import PredictorSettings
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.sources.window import LATE_STEPS, UsageWindow
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from predictor.wiring import build_predictor, build_source
from tests.support.live_demand import Gate, gated
from tests.support.prometheus import STEP, a_counter, a_pod, a_prometheus, a_series

pytestmark = pytest.mark.real

STEPS = 1152
START = (int(time.time()) // 86_400 - 6) * 86_400
"""Four whole days that ended two days ago."""
SPAN = 2 * 288
"""Steps of the window, which is two days."""
USAGE = "container_cpu_usage_seconds_total"
CPU, MEMORY, REQUESTS = Resource.CPU, Resource.MEMORY, Resource.REQUESTS
SERVICES = {"shop/front": "shop/StatefulSet/plain", "shop/back": "shop/StatefulSet/plain"}


def the_series() -> list[RawSeries]:
    """Workloads of which something happens while the window moves over them, each at times of its own."""
    rng = np.random.default_rng(7)
    series: list[RawSeries] = []

    def stateful(name: str, cores: Sequence[float] | FloatArray, first: int = 0, memory_bytes: float = 1e9) -> None:
        pod = f"{name}-0"
        owner = ("StatefulSet", name)
        series.extend(a_pod(pod, cores=list(cores), owner=owner, first=first, memory_bytes=memory_bytes))
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
    # What it asks for is known no more at last.
    for what in ("request", "limit"):
        asks("still", what, "memory", [1e10] * 500)
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
    series.extend(those_held_back(rng))
    series.extend(the_artefacts(rng))
    series.extend(the_idle(rng))
    # A second pod that no kubelet reports on for some time.
    second = {"namespace": "shop", "pod": "plain-1"}
    series.append(a_series("kube_pod_owner", [1] * 60, 630, **second, owner_kind="StatefulSet", owner_name="plain"))
    series.append(a_series("kube_pod_status_phase", [1] * 60, 630, **second, phase="Running"))
    # Three Services in front of one workload, one of which comes later, and one of nobody's.
    for service, first in (("plain", 0), ("front", 0), ("back", 700), ("nobody", 300)):
        labels = {"namespace": "ingress", "exported_namespace": "shop", "exported_service": service}
        rates = (10 * rng.random(STEPS - first)).tolist()
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
    throttled = np.where((np.arange(STEPS) > 560) & (np.arange(STEPS) < 740), 6 * rng.random(STEPS), 0.0).tolist()
    series.append(a_counter("container_cpu_cfs_periods_total", [10.0] * STEPS, **ids))
    series.append(a_counter("container_cpu_cfs_throttled_periods_total", throttled, **ids))
    series += a_pod("leaks-0", cores=[1.0] * STEPS, owner=("StatefulSet", "leaks"), memory_bytes=2e9)
    ids = {"namespace": "shop", "pod": "leaks-0", "container": "main"}
    starts = np.cumsum(np.isin(np.arange(STEPS), [100, 590, 700])).tolist()
    series.append(a_series("kube_pod_container_status_restarts_total", starts, **ids))
    metric = "kube_pod_container_status_last_terminated_reason"
    series.append(a_series(metric, [1.0] * (STEPS - 100), 100, **ids, reason="OOMKilled"))
    return series


def those_held_back(rng: np.random.Generator) -> list[RawSeries]:
    """Workloads whose autoscalers want more than they may give at times: an HPA, of two more, and a foresize.

    One of them starts only when its HPA has been at its maximum for long, one is idle meanwhile.
    """
    series: list[RawSeries] = []
    for name, first in (("crowded", 0), ("late", 640)):
        cores = (1 + rng.random(STEPS - first)).tolist()
        series += a_pod(f"{name}-0", cores=cores, owner=("StatefulSet", name), first=first)
    full = np.isin(np.arange(STEPS) % 90, np.arange(40))
    for name in ("crowded", "late", "plain", "asleep"):
        ids = {"namespace": "shop", "horizontalpodautoscaler": f"{name}-hpa"}
        target = {"scaletargetref_kind": "StatefulSet", "scaletargetref_name": name}
        series += [
            a_series("kube_horizontalpodautoscaler_info", [1] * STEPS, **ids, **target),
            a_series("kube_horizontalpodautoscaler_spec_min_replicas", [1] * STEPS, **ids),
            a_series("kube_horizontalpodautoscaler_spec_max_replicas", [4] * STEPS, **ids),
            a_series("kube_horizontalpodautoscaler_status_desired_replicas", np.where(full, 4.0, 2.0), **ids),
            a_series(
                "kube_horizontalpodautoscaler_status_condition",
                full.astype(np.float64),
                **ids,
                condition="ScalingLimited",
                status="true",
            ),
        ]
    own = (np.arange(STEPS) // 70 % 2).astype(np.float64)
    labels = {"namespace": "foresize", "workload": "shop/StatefulSet/gap"}
    series.append(a_series("foresize_at_max_replicas", own, **labels))
    return series


def the_artefacts(rng: np.random.Generator) -> list[RawSeries]:
    """Negative, infinite and impossibly high samples; a spike that turns out to be the way of its series."""
    memory = 1e9 + 1e8 * rng.random(STEPS)
    for step in (50, 590, 660, 661, 800):
        memory[step] = -1.0
    memory[[580, 610, 745]] = 5e16
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
        series += a_pod(
            "asleep-0", cores=rng.random(stop - first).tolist(), owner=("StatefulSet", "asleep"), first=first
        )
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


def a_source(url: str, folder: Path | None = None, timeout: float = 60.0, deadline: float = 900.0) -> PrometheusSource:
    """A source that knows the Services and does not wait for what fails."""
    endpoint = PrometheusEndpoint(
        url=url, retries=0, cache_name="window", timeout_seconds=timeout, deadline_seconds=deadline
    )
    return PrometheusSource(endpoint, scrape_interval_seconds=STEP, service_workloads=SERVICES, cache_folder=folder)


class Asked(TypedDict):
    """What a source is asked for."""

    start_seconds: int
    end_seconds: int
    step_seconds: int
    resources: Sequence[Resource]


def at(step: int, resources: Sequence[Resource] = tuple(Resource)) -> Asked:
    """A window whose last step is this one."""
    end = START + step * STEP
    return {"start_seconds": end - (SPAN - 1) * STEP, "end_seconds": end, "step_seconds": STEP, "resources": resources}


def assert_same(found: UsagePanel, source: PrometheusSource, asked: Asked) -> None:
    """All that forecasts, decisions and people read of a panel, to the bit, and the findings in their order."""
    whole = source.fetch(**asked).slim()
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


def said(panel: UsagePanel, name: str) -> str:
    """All findings on a workload."""
    return "; ".join(str(finding) for finding in panel.findings if finding.workload.endswith(f"/{name}"))


def test_a_window_that_moves_on_says_what_a_whole_read_says(prometheus: LocalPrometheus) -> None:
    """By single steps, by hours and by half days, over everything that happens in the history."""
    source = a_source(prometheus.url)
    window = UsageWindow(source)
    seen: list[UsagePanel] = []
    for step in (
        SPAN,
        SPAN + 1,
        SPAN + 14,
        600,
        660,
        661,
        690,
        691,
        694,
        702,
        704,
        722,
        745,
        760,
        900,
        1000,
        STEPS - 1,
    ):
        asked = at(step)
        seen.append(window.fetch(**asked))
        assert_same(seen[-1], source, asked)

    keys = [{key.workload.rpartition("/")[2] for key in panel.keys} for panel in seen]
    assert "appears" not in keys[0]
    assert "appears" in keys[-1]
    assert "vanishes" in keys[0]
    assert "vanishes" not in keys[-1]
    texts = {
        name: "; ".join(said(panel, name) for panel in seen) for name in ("broken", "gap", "still", "plain", "grown")
    }
    assert "samples taken as no sample: up to 5e+16" in texts["broken"]
    assert "negative or infinite" in texts["broken"]
    assert "a gap of" in texts["gap"]
    assert "constant at 0.25" in texts["still"]
    assert "only some of its running pods were measured" in texts["plain"]
    assert "up to 2e+13" in texts["grown"]
    assert "up to 2e+13" not in said(seen[-1], "grown")
    assert len({panel.node_pool["shop/StatefulSet/moves"] for panel in seen}) == 2
    assert len({panel.kin["shop/StatefulSet/moves"] for panel in seen}) == 2
    report = seen[9].usage[seen[9].row(SeriesKey("shop/CronJob/report", CPU))]
    assert report[0] == 0.0
    assert np.nanmax(report) > 1.0


def test_only_some_resources_are_as_a_whole_read_of_them(prometheus: LocalPrometheus) -> None:
    """Fewer than are held, and those again; one that is not held is read for the whole window."""
    source = a_source(prometheus.url)
    window = UsageWindow(source)
    for step, resources in ((700, (CPU, MEMORY)), (701, (MEMORY,)), (705, (CPU, MEMORY)), (706, (CPU, REQUESTS))):
        asked = at(step, resources)
        assert_same(window.fetch(**asked), source, asked)


def asked_seconds(gate: Gate, work: Callable[[], object]) -> tuple[int, int]:
    """The first and the last step whose CPU was asked for."""
    before = len(gate.asked)
    work()
    spans = [asked.form for asked in gate.asked[before:] if USAGE in asked.form.get("query", "")]
    return min(int(form["start"]) for form in spans) - STEP, max(int(form["end"]) for form in spans) - STEP


def test_a_step_reads_what_is_new_and_an_hour_later_what_may_have_come_late(gate: Gate) -> None:
    """And nothing else: that is what it is for."""
    window = UsageWindow(a_source(gate.url))
    window.fetch(**at(700))

    by_step = asked_seconds(gate, lambda: window.fetch(**at(701)))
    by_hour = asked_seconds(gate, lambda: window.fetch(**at(712)))

    assert by_step == (START + 698 * STEP, START + 701 * STEP)
    assert by_hour == (START + 641 * STEP, START + 712 * STEP)


@pytest.mark.parametrize(("late", "after"), [(1, 1), (LATE_STEPS - 1, 1), (40, 12)])
def test_samples_that_come_late_are_read(gate: Gate, late: int, after: int) -> None:
    """A few steps late with the next step, hours late within the hour."""
    source = a_source(gate.url)
    window = UsageWindow(source)
    gate.ends_at_seconds = START + (700 - late + 1) * STEP
    lagging = window.fetch(**at(700))
    assert np.isnan(lagging.usage[lagging.row(SeriesKey("shop/StatefulSet/plain", CPU)), -late:]).all()
    gate.mend()

    found = window.fetch(**at(700 + after))

    assert_same(found, source, at(700 + after))


def test_a_failed_read_leaves_the_window_and_the_next_one_catches_up(gate: Gate) -> None:
    """As after an outage of a day: the error is the source's own, and nothing is missing afterwards."""
    source = a_source(gate.url)
    window = UsageWindow(source)
    before = window.fetch(**at(600))
    kept = before.usage.copy()
    gate.is_failing = True
    for step in (601, 602, 880):
        with pytest.raises(SourceUnavailable, match="answered 500"):
            window.fetch(**at(step))
    gate.mend()

    begin, _ = asked_seconds(gate, lambda: assert_same(window.fetch(**at(889)), source, at(889)))

    np.testing.assert_array_equal(before.usage, kept)
    assert begin == at(889)["start_seconds"] or begin < START + 600 * STEP


def test_a_first_read_that_fails_halfway_goes_on_where_it_was(gate: Gate) -> None:
    """What was read is not read again, so that a fleet is read at last however slow its store is."""
    window = UsageWindow(a_source(gate.url, timeout=30.0, deadline=25.0))
    source, asked = a_source(gate.url), at(700)
    begins = []
    for _ in range(3):
        begins.append(asked_seconds(gate, lambda: fetched_or_why(window, asked))[0])

    found = window.fetch(**asked)

    assert begins[0] == asked["start_seconds"]
    assert begins[0] < begins[1] < begins[2]
    assert_same(found, source, asked)


def test_a_store_that_is_too_slow_for_a_day_is_asked_for_less(gate: Gate) -> None:
    """Each read that fails asks for half as much the next time, until it is little enough."""
    window, asked = UsageWindow(a_source(gate.url), part_samples=60_000), at(700)
    gate.most_points = 100
    failures = 0
    while failures < 10:
        try:
            found = window.fetch(**asked)
            break
        except SourceUnavailable:
            failures += 1
    gate.most_points = math.inf

    assert failures > 0
    assert_same(found, a_source(gate.url), asked)


def fetched_or_why(window: UsageWindow, asked: Asked) -> str:
    """The error of a read that is too long."""
    with pytest.raises(SourceUnavailable) as problem:
        window.fetch(**asked)
    assert re.fullmatch(
        r"reading usage takes longer than 25 s; what was read is kept, and .* UTC is read next\. .*", str(problem.value)
    )
    return str(problem.value)


@pytest.mark.parametrize(("step", "span", "step_seconds"), [(640, SPAN, STEP), (700, 600, STEP), (700, SPAN, 600)])
def test_another_window_is_read_whole(prometheus: LocalPrometheus, step: int, span: int, step_seconds: int) -> None:
    """After a clock that goes back, over a longer span, on another step."""
    source = a_source(prometheus.url)
    window = UsageWindow(source)
    window.fetch(**at(700))
    asked = at(step)
    asked["start_seconds"], asked["step_seconds"] = START + (step - span + 1) * STEP, step_seconds

    assert_same(window.fetch(**asked), source, asked)


def test_a_window_of_which_nothing_is_left_is_refused_as_any_other(prometheus: LocalPrometheus) -> None:
    """Exporters that are gone for as long as the window is leave no silent empty answer."""
    window = UsageWindow(a_source(prometheus.url))
    window.fetch(**at(1000))

    with pytest.raises(SourceRefused, match="answered, but has no cpu"):
        window.fetch(**at(STEPS + SPAN))


def test_what_was_returned_stays_as_it_was(prometheus: LocalPrometheus) -> None:
    """Requests are answered from the window before while the next one is read."""
    window = UsageWindow(a_source(prometheus.url))
    first = window.fetch(**at(690))
    assert first.cut_off is not None
    assert first.cut_off.marks is not None
    usage, marks = first.usage.copy(), first.cut_off.marks.copy()

    for step in (691, 703, 900):
        window.fetch(**at(step))

    np.testing.assert_array_equal(first.usage, usage)
    np.testing.assert_array_equal(first.cut_off.marks, marks)


def test_a_restart_reads_whole_days_from_disk(gate: Gate, tmp_path: Path) -> None:
    """Only what is not a settled day is asked for again."""
    UsageWindow(a_source(gate.url, tmp_path)).fetch(**at(700))
    source = a_source(gate.url, tmp_path)
    again = UsageWindow(source)

    assert_same(again.fetch(**at(700)), source, at(700))
    assert list(tmp_path.rglob("*.npz-checked"))


def test_a_large_fleet_is_read_in_short_parts(prometheus: LocalPrometheus) -> None:
    """So many samples at once, however many series there are; the parts together are the whole."""
    source = a_source(prometheus.url)
    told: list[tuple[int, int]] = []
    window = UsageWindow(source, part_samples=4_000)

    found = window.fetch(**at(700), progress=lambda done, total: told.append((done, total)))

    assert len(told) > 6
    assert told[-1][0] == told[-1][1]
    assert_same(found, source, at(700))


def test_only_who_asks_again_and_again_appends(tmp_path: Path) -> None:
    """A service does; a command that answers once reads what it needs, and a file is no less than it was."""
    settings = PredictorSettings(state_folder=tmp_path)
    source = build_source(settings)
    file = build_source(settings, tmp_path / "usage.parquet")

    assert isinstance(build_predictor(settings, source, learns_as="service").source, UsageWindow)
    assert build_predictor(settings, source).source is source
    assert build_predictor(settings, file, learns_as="service").source is file
