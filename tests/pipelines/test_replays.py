"""Replays spread over processes and a Dask cluster: the same outcomes as in one process."""

from dataclasses import replace

import distributed
import numpy as np
import pytest

from autoscaler.controller.demand import SIGNAL_LEVELS
from autoscaler.decisions.replicas import ReplicaRules
from autoscaler.simulator.outcome import Replay
from autoscaler.simulator.peers.hpa import HpaPolicy
from autoscaler.simulator.policies import ForesizePolicy
from autoscaler.simulator.replay import replay
from pipelines.errors import ClusterUnavailable
from pipelines.flows.parallel import mapped_over
from pipelines.flows.replays import MARGIN_WORKLOADS, replayed, safe_peaks_in_blocks
from pipelines.steps.plan import Mapped
from pipelines.steps.replay import ReplayPlan, safe_peaks
from predictor.usage.panel import Resource, SeriesKey
from tests.support.clusters import a_replay_workload, minute_settings

DEMAND = np.random.default_rng(3).gamma(4.0, 1.0, (5, 40))
WORKLOADS = tuple(replace(a_replay_workload(), name=f"w{row}") for row in range(5))
POLICIES = (
    ForesizePolicy(peaks=DEMAND * 1.1, level=0.99, lead_seconds=120, rules=ReplicaRules()),
    HpaPolicy(),
)
SETTINGS = minute_settings(pod_ready_spread=0.5)


def in_blocks(mapped: Mapped) -> Replay:
    return replayed(DEMAND, WORKLOADS, POLICIES, SETTINGS, mapped=mapped)


def same(one: Replay, other: Replay) -> bool:
    return [
        (each.policy, each.workload, each.core_hours, each.violation_minutes, each.series.ready_mean.tolist())
        for each in one.outcomes
    ] == [
        (each.policy, each.workload, each.core_hours, each.violation_minutes, each.series.ready_mean.tolist())
        for each in other.outcomes
    ]


def test_a_replay_in_blocks_and_processes_is_the_same_replay() -> None:
    """Order, forecasts and drawn times belong to the workload, not to the process."""
    whole = replay(DEMAND, WORKLOADS, POLICIES, SETTINGS)

    with mapped_over(2) as mapped:
        assert same(in_blocks(mapped), whole)
    assert same(in_blocks(map), whole)


def test_margins_in_blocks_and_processes_are_the_same_margins() -> None:
    """Of more workloads than a block has, some with a longer lead time: each learns from itself alone."""
    count = MARGIN_WORKLOADS + 7
    usage = np.random.default_rng(5).gamma(4.0, 1.0, (count, 90))
    leads = [None if row % 3 else 90 + 60 * (row % 5) for row in range(count)]
    plan = ReplayPlan(
        keys=tuple(SeriesKey(f"w{row}", Resource.CPU) for row in range(count)),
        workloads=tuple(
            replace(a_replay_workload(), name=f"w{row}", lead_seconds=lead) for row, lead in enumerate(leads)
        ),
        demand=usage[:, 70:],
        past=usage[:, :70],
        start_seconds=70 * 60,
        settings=SETTINGS,
        findings=(),
    )
    forecasts = {level: usage[:, 70:] * (1 + level) for level in (*SIGNAL_LEVELS, 0.95)}
    whole = safe_peaks(plan, forecasts, [0.95])

    alone = safe_peaks_in_blocks(plan, forecasts, [0.95])
    with mapped_over(2) as mapped:
        spread = safe_peaks_in_blocks(plan, forecasts, [0.95], mapped=mapped)

    assert not np.array_equal(whole[0.95], forecasts[0.95])
    assert np.array_equal(alone[0.95], whole[0.95])
    assert np.array_equal(spread[0.95], whole[0.95])


def test_progress_is_told_in_workloads() -> None:
    """One block each, as there are few."""
    told: list[tuple[int, int]] = []
    replayed(DEMAND, WORKLOADS, POLICIES, SETTINGS, progress=lambda done, total: told.append((done, total)))

    assert told == [(done, 5) for done in range(1, 6)]


def test_a_dask_cluster_gives_the_same_replay() -> None:
    """Whatever its workers are; here two threads behind a real address."""
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address=None
        ) as cluster,
        mapped_over(1, dask=cluster.scheduler_address) as mapped,
    ):
        assert same(in_blocks(mapped), replay(DEMAND, WORKLOADS, POLICIES, SETTINGS))


def test_an_address_without_a_scheduler_is_named() -> None:
    """With what to give instead."""
    with (
        pytest.raises(ClusterUnavailable, match="nowhere://x: no Dask scheduler answered"),
        mapped_over(1, dask="nowhere://x"),
    ):
        pass
