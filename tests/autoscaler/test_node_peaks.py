"""The peaks of nodes as the controller tells them: of whom, from whose past, and for how long they hold."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import pytest

from autoscaler.cluster.containers import Amounts
from autoscaler.cluster.nodes import NodePod
from autoscaler.cluster.reasons import Hold
from autoscaler.controller.node_peaks import REFRESH_SECONDS, RETRY_SECONDS, Asked, NodePeaks, PeakTeller, in_full
from autoscaler.decisions.reclaiming import ToldPeak
from predictor.errors import SourceUnavailable
from predictor.usage.panel import Resource
from predictor.usage.placed import MeanPods, NodeUsage, Placed

STEP = 3600
NOW = 1_800_000_000.0
CPU: Asked = (Resource.CPU, 0.1, 86_400.0)
MEMORY: Asked = (Resource.MEMORY, 0.1, 86_400.0)
WEB, BATCH = "shop/Deployment/web", "shop/CronJob/sort"


@dataclass
class Source:
    """Pods that always use the same: a core each, and as many bytes."""

    known: Collection[str] = (WEB, BATCH)
    asked: int = 0
    is_down: bool = False
    names: list[Placed] = field(default_factory=list)

    def fetch_mean_pods(
        self, names: Collection[Placed], *, start_seconds: int, end_seconds: int, step_seconds: int
    ) -> MeanPods:
        self.asked += 1
        self.names = sorted(names)
        if self.is_down:
            raise SourceUnavailable("Prometheus did not answer")
        steps = (end_seconds - start_seconds) // step_seconds + 1
        rows = [np.full(steps, 1.0 if name.workload in self.known else np.nan, np.float32) for name in self.names]
        usage = np.stack(rows) if rows else np.empty((0, steps), np.float32)
        return MeanPods(
            tuple(self.names), start_seconds, step_seconds, {Resource.CPU: usage, Resource.MEMORY: usage * 2**30}
        )

    def fetch_node_usage(self, now_seconds: float) -> NodeUsage:
        raise NotImplementedError


def a_pod(name: str, workload: str = WEB, **more: object) -> NodePod:
    return NodePod("shop", name, name, "n1", workload, Amounts(2.0, 2.0 * 2**30))._replace(**more)  # type: ignore[arg-type]


def told(source: Source, pods: list[NodePod], *asked: Asked) -> NodePeaks:
    teller = PeakTeller(source, STEP, is_patient=True)
    return teller.peaks({each: ["n1"] for each in asked or (CPU,)}, pods, NOW)


def value(peaks: NodePeaks, asked: Asked = CPU, now: float = NOW) -> float:
    peak = peaks.peak("n1", asked, now)
    assert isinstance(peak, ToldPeak)
    return peak.value


def test_a_workload_counts_with_as_many_pods_as_it_has_on_the_node() -> None:
    """Three pods of one core; one elsewhere is another node's."""
    elsewhere = a_pod("d", node="n2")

    assert value(told(Source(), [a_pod("a"), a_pod("b"), a_pod("c"), elsewhere])) == pytest.approx(3.0, rel=0.05)


def test_a_pod_on_reclaimed_cpu_is_an_ordinary_one_of_memory() -> None:
    """What it was sold is not in the peak of what may be sold, what it was not sold is."""
    batch = a_pod("batch", requests=Amounts(None, 2.0 * 2**30), reclaimed=Amounts(2.0, None))

    peaks = told(Source(), [a_pod("a"), batch], CPU, MEMORY)

    assert value(peaks) == pytest.approx(1.0, rel=0.05)
    assert value(peaks, MEMORY) == pytest.approx(2.0 * 2**30, rel=0.05)


def test_a_node_whose_pods_changed_is_told_as_if_the_new_ones_had_always_been_there() -> None:
    """Nothing of those that left stays behind."""
    teller = PeakTeller(Source(), STEP, is_patient=True)
    before = teller.peaks({CPU: ["n1"]}, [a_pod("a"), a_pod("b")], NOW)

    after = teller.peaks({CPU: ["n1"]}, [a_pod(f"sort-{n}", BATCH) for n in range(5)], NOW + REFRESH_SECONDS)

    assert value(before) == pytest.approx(2.0, rel=0.05)
    assert after.peak("n1", CPU, NOW + REFRESH_SECONDS) == told(
        Source(), [a_pod(f"sort-{n}", BATCH) for n in range(5)]
    ).peak("n1", CPU, NOW)
    assert value(after, now=NOW + REFRESH_SECONDS) == pytest.approx(5.0, rel=0.05)


def test_a_pod_that_moved_counts_in_full_where_it_came_and_still_where_it_was_until_peaks_are_told_anew() -> None:
    """So that for a while it is counted twice and never not at all; then with its past where it is."""
    teller = PeakTeller(Source(), STEP, is_patient=True)
    stays, there = a_pod("a"), a_pod("c", node="n2")

    def counted(second: float, *pods: NodePod) -> list[float]:
        """At the first node, at the second, and what came since."""
        told = teller.peaks({CPU: ["n1", "n2"]}, pods, NOW + second)
        one, two = (told.peak(node, CPU, NOW + second) for node in ("n1", "n2"))
        assert isinstance(one, ToldPeak)
        assert isinstance(two, ToldPeak)
        newcomers = in_full([pod for pod in pods if pod.uid not in told.counted], Resource.CPU)
        assert isinstance(newcomers, float)
        return [one.value, two.value, newcomers]

    moved = (stays, a_pod("b-anew", node="n2"), there)
    assert counted(0.0, stays, a_pod("b"), there) == pytest.approx([2.0, 1.0, 0.0], rel=0.05)
    assert counted(60.0, *moved) == pytest.approx([2.0, 1.0, 2.0], rel=0.05)
    assert counted(REFRESH_SECONDS, *moved) == pytest.approx([1.0, 2.0, 0.0], rel=0.05)


def test_a_job_of_a_cron_job_has_the_cron_jobs_past() -> None:
    """A Job is new with each run; the metrics are the CronJob's."""
    source = Source()

    peaks = told(source, [a_pod("sort-29000000-x", "shop/Job/sort-29000000")])

    assert value(peaks) == pytest.approx(1.0, rel=0.05)
    assert Placed("n1", BATCH) in source.names


def test_a_workload_without_a_past_counts_at_its_request() -> None:
    assert value(told(Source(), [a_pod("a"), a_pod("new", "shop/Deployment/new")])) == pytest.approx(3.0, rel=0.05)


def test_a_peak_holds_for_its_horizon_and_no_longer() -> None:
    """As when the metrics store is gone for a day."""
    peaks = told(Source(), [a_pod("a")])

    assert value(peaks, now=NOW + 86_400) > 0
    assert isinstance(peaks.peak("n1", CPU, NOW + 86_401), Hold)
    assert isinstance(peaks.peak("other", CPU, NOW), Hold)


def test_peaks_are_told_anew_each_hour_and_sooner_where_a_node_is_new() -> None:
    """But not in each cycle."""
    source, pods = Source(), [a_pod("a")]
    teller = PeakTeller(source, STEP, is_patient=True)

    def asked_after(second: float, *nodes: str) -> int:
        teller.peaks({CPU: nodes}, pods, NOW + second)
        return source.asked

    assert asked_after(0, "n1") == 1
    assert asked_after(RETRY_SECONDS, "n1") == 1
    assert asked_after(RETRY_SECONDS + 1, "n1", "n2") == 2
    assert asked_after(RETRY_SECONDS + 2, "n1", "n2", "n3") == 2
    assert asked_after(RETRY_SECONDS + REFRESH_SECONDS + 1, "n1", "n2") == 3


def test_a_source_that_fails_leaves_the_last_peaks_and_is_asked_again() -> None:
    source, pods = Source(), [a_pod("a")]
    teller = PeakTeller(source, STEP, is_patient=True)
    teller.peaks({CPU: ["n1"]}, pods, NOW)
    source.is_down = True

    peaks = teller.peaks({CPU: ["n1"]}, pods, NOW + REFRESH_SECONDS)

    assert isinstance(teller.problem, SourceUnavailable)
    assert value(peaks) > 0
    source.is_down = False
    teller.peaks({CPU: ["n1"]}, pods, NOW + REFRESH_SECONDS + RETRY_SECONDS)
    assert teller.problem is None


def test_pods_of_which_no_past_is_known_count_at_their_limit_else_their_request() -> None:
    """And nothing is known of one that has neither."""
    limited = a_pod("limited", limits=Amounts(3.0, None))

    assert in_full([limited, a_pod("requested")], Resource.CPU) == 5.0
    assert isinstance(in_full([limited, a_pod("free", requests=Amounts())], Resource.CPU), Hold)
    assert in_full([], Resource.CPU) == 0.0
