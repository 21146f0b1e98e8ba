"""What holds for every peer, whoever published it."""

from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.simulator.outcome import ReplayError, ReplaySettings, WorkloadOutcome
from autoscaler.simulator.peers.catalog import PEERS
from autoscaler.simulator.peers.hpa import HpaPolicy
from autoscaler.simulator.replay import replay
from models.forecast import FloatArray
from tests.support.clusters import a_replay_workload

HALF_HOURS = ReplaySettings(step_seconds=1800, tick_seconds=60, pod_ready_seconds=60)
PER_DAY = 48
NOTHING = np.empty(0)
TOLERATED = 1.12 / 0.9
EVERY_PEER = pytest.mark.parametrize("name", PEERS)


def run(
    name: str,
    demand: FloatArray,
    past: FloatArray = NOTHING,
    *,
    least: int = 1,
    most: int = 60,
    first: int | None = None,
) -> WorkloadOutcome:
    workload = a_replay_workload(min_replicas=least, max_replicas=most, initial_replicas=first)
    policy = PEERS[name].make(past[None, :], None)
    return replay(demand[None, :], [workload], [policy], HALF_HOURS).of(policy.name)[0]


def days(count: int, seed: int = 0) -> FloatArray:
    """Demand with a daily season and some noise, in cores, about 2 to 14."""
    rng = np.random.default_rng(seed)
    hours = np.arange(count * PER_DAY)
    season: FloatArray = 8 + 6 * np.sin(2 * np.pi * hours / PER_DAY)
    return season * rng.uniform(0.9, 1.1, season.shape)


@EVERY_PEER
def test_the_same_replay_gives_the_same_replicas(name: str) -> None:
    """Whatever is random is seeded."""
    first, second = (run(name, days(1, seed=1), days(4)) for _ in range(2))

    assert first.series.replicas_mean.tolist() == second.series.replicas_mean.tolist()


@EVERY_PEER
@settings(max_examples=15, deadline=None)
@given(
    demand=st.lists(st.one_of(st.floats(0, 100), st.just(np.nan)), min_size=1, max_size=12),
    past_days=st.integers(0, 3),
    bounds=st.tuples(st.integers(1, 5), st.integers(0, 20)),
)
def test_replicas_stay_within_their_bounds(
    name: str, demand: list[float], past_days: int, bounds: tuple[int, int]
) -> None:
    """However demand goes, known or not."""
    least, most = bounds[0], bounds[0] + bounds[1]
    series = run(name, np.array(demand), days(past_days), least=least, most=most).series

    assert series.replicas_mean.min() >= least
    assert series.replicas_mean.max() <= most


@EVERY_PEER
def test_demand_that_never_changes_is_never_scaled_for_after_the_warm_up(name: str) -> None:
    """4 cores for ever: after a day of them, every hour has the same replicas."""
    series = run(name, np.full(2 * PER_DAY, 4.0), np.full(4 * PER_DAY, 4.0), first=20).series

    assert len(set(series.replicas_mean[PER_DAY:].tolist())) == 1
    assert series.ready_min[-1] >= 4


@EVERY_PEER
def test_without_any_knowledge_of_demand_the_replicas_stay(name: str) -> None:
    """Neither past nor replay is known: whatever is there is left alone."""
    series = run(name, np.full(6, np.nan), np.full(PER_DAY, np.nan), first=7).series

    assert series.replicas_mean.tolist() == [7] * 6


@EVERY_PEER
def test_a_gap_in_demand_removes_nothing_that_the_reactive_part_held(name: str) -> None:
    """4 cores, then unknown for three hours: nobody goes below what 4 cores need at full utilisation."""
    demand = np.concatenate((np.full(4, 4.0), np.full(6, np.nan), np.full(4, 4.0)))
    result = run(name, demand, np.full(3 * PER_DAY, 4.0))

    assert result.violation_minutes == 0
    assert result.series.replicas_mean.min() >= 4


@EVERY_PEER
@settings(max_examples=10, deadline=None)
@given(low=st.floats(0.1, 20), more=st.floats(0, 20))
def test_more_demand_never_means_fewer_replicas(name: str, low: float, more: float) -> None:
    """Of two workloads with demand that never changes, the one with more of it ends with at least as many replicas.

    But for the HPA's tolerance, within which replicas may stay: -10 % and, as it cuts to whole percents, +12 %.
    """
    ends = []
    for demand in (low, low + more):
        series = run(name, np.full(PER_DAY, demand), np.full(3 * PER_DAY, demand), first=1).series
        ends.append(series.replicas_mean[-1])

    assert ends[0] <= ceil(ends[1] * TOLERATED)


@EVERY_PEER
@pytest.mark.parametrize("steps", [0, 1, 5, 49, 150])
def test_a_replay_may_begin_in_the_middle_of_a_history(name: str, steps: int) -> None:
    """However little of the past there is, and although its first half is unknown, demand is served in the end."""
    past = days(4)[:steps]
    past[: steps // 2] = np.nan
    result = run(name, np.full(8, 5.0), past)

    if name.startswith("static"):
        assert result.series.replicas_mean.min() == result.series.replicas_mean.max()
    else:
        assert result.series.ready_min[-1] >= 5


@EVERY_PEER
def test_every_value_of_the_knob_makes_a_policy_that_carries_it(name: str) -> None:
    """The knob names a field of the policy, and a sweep sets it."""
    peer = PEERS[name]
    for value in peer.values:
        policy = peer.make(days(1)[None, :], value)

        assert getattr(policy, peer.knob) == value
        assert policy.name == name


@pytest.mark.parametrize("name", [name for name in PEERS if hasattr(PEERS[name].make(np.empty((1, 0)), None), "past")])
def test_a_past_that_lacks_a_workload_is_an_error(name: str) -> None:
    """Two workloads, one row."""
    policy = PEERS[name].make(np.ones((1, PER_DAY)), None)

    with pytest.raises(ReplayError, match="one row per workload"):
        replay(np.ones((2, 4)), [a_replay_workload()] * 2, [policy], HALF_HOURS)


def test_the_catalogues_hpa_is_the_one_that_foresize_is_compared_with() -> None:
    """One implementation."""
    assert PEERS["hpa"].make(np.empty((1, 0)), None) == HpaPolicy()
