"""Peers that only react: the HPA on requests, KEDA, Knative; what they publish, and replays worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.simulator.outcome import ReplaySettings
from autoscaler.simulator.peers.knative import Concurrency, KpaPolicy, Panic, kpa_decision
from autoscaler.simulator.peers.requests import KedaPolicy, RequestsPolicy
from autoscaler.simulator.policies import Policy, Tick
from autoscaler.simulator.replay import replay
from tests.support.clusters import a_replay_workload, minute_settings

RISE = [1.0, 1.0, 4.0, 4.0, 4.0, 4.0]
KPA = KpaPolicy()
CALM = Panic()


def replicas_of(policy: Policy, demand: list[float], settings: ReplaySettings | None = None) -> list[float]:
    result = replay(np.array([demand]), [a_replay_workload()], [policy], settings or minute_settings())
    replicas: list[float] = result.outcomes[0].series.replicas_mean.tolist()
    return replicas


def test_requests_show_all_of_a_rise_at_once_where_cpu_saturates() -> None:
    """Half a core each: 1 core needs 2, 4 cores need 8. Seen a minute later, 2 → 6 by the rate limit (+4), then 8."""
    assert replicas_of(RequestsPolicy(), RISE) == [2, 2, 2, 6, 8, 8]


def test_keda_is_an_hpa_whose_target_is_the_threshold() -> None:
    """A threshold of a quarter of the request needs twice the replicas: 4, then 8 and 16 by the rate limit (+100 %)."""
    assert replicas_of(KedaPolicy(threshold=0.25, polling_seconds=0), RISE) == [4, 4, 4, 8, 16, 16]
    assert replicas_of(KedaPolicy(polling_seconds=0), RISE) == replicas_of(RequestsPolicy(), RISE)


def test_between_polls_keda_does_not_see_a_rise() -> None:
    """Polled at minutes 0, 2, 4: the rise that is seen at minute 3 is read at minute 4."""
    assert replicas_of(KedaPolicy(polling_seconds=120), RISE) == [2, 2, 2, 2, 6, 8]


def kpa(seen: Concurrency, ready: int, before: Panic = CALM, *, now: float = 0.0) -> tuple[int, Panic]:
    decision = kpa_decision(seen, ready, before, KPA, now_seconds=now)
    return decision.replicas, decision.panic


@pytest.mark.parametrize(
    ("stable", "panic", "ready", "replicas"),
    [
        pytest.param(50, 10, 0, 5, id="grows by the stable window"),
        pytest.param(100, 10, 0, 10, id="grows more"),
        pytest.param(100, 100, 8, 10, id="above what is ready, no panic"),
        pytest.param(50, 50, 8, 5, id="shrinks"),
        pytest.param(1, 0, 0, 1, id="one request needs one pod"),
        pytest.param(0, 0, 0, 0, id="no request needs none"),
    ],
)
def test_the_kpa_answers_as_knatives_own_tests_have_it(stable: float, panic: float, ready: int, replicas: int) -> None:
    """Ten in flight per pod; the figures are those of knative/serving's tests of its autoscaler."""
    assert kpa(Concurrency(stable, panic, 10), ready)[0] == replicas


def test_a_panic_ends_a_stable_window_after_the_last_surge() -> None:
    """Knative's slow increase, one in flight per pod: 10 pods Ready, 25 needed; 40 and 41; after 62 s, 55 and 50."""
    replicas, panic = kpa(Concurrency(11, 25, 1), 10)
    assert (replicas, panic.since_seconds) == (25, 0.0)

    replicas, panic = kpa(Concurrency(30, 41, 1), 40, panic, now=30.0)
    assert (replicas, panic.since_seconds) == (41, 0.0)

    replicas, panic = kpa(Concurrency(50, 56, 1), 55, panic, now=62.0)
    assert (replicas, panic.since_seconds) == (50, None)


def test_a_surge_in_a_panic_begins_it_anew() -> None:
    """Knative's extended panic: 80 needed with 40 Ready half a minute later."""
    _, panic = kpa(Concurrency(11, 25, 1), 10)
    replicas, panic = kpa(Concurrency(30, 80, 1), 40, panic, now=30.0)

    assert (replicas, panic.since_seconds) == (80, 30.0)


@given(stable=st.floats(0, 1e4), panic=st.floats(0, 1e4), ready=st.integers(0, 500), most=st.integers(0, 500))
def test_a_panic_never_removes_replicas(stable: float, panic: float, ready: int, most: int) -> None:
    """While it lasts, the answer is at least the most so far; and never under half of what is Ready."""
    replicas, after = kpa(Concurrency(stable, panic, 7.0), ready, Panic(0.0, most), now=30.0)

    assert replicas >= most
    assert after.since_seconds is not None
    assert replicas >= max(1, ready) // 2


def test_the_kpa_has_no_tolerance_and_no_stabilisation() -> None:
    """Windows of one tick of a minute: 3.5, then 2.8 cores at 0.7 each are 5, then 4, once no panic holds them."""
    run = KPA.start(0, a_replay_workload(), minute_settings())
    answers = [
        run.replicas(Tick(now_seconds=60.0 * minute, replicas=5, ready=5, offered=offered))
        for minute, offered in enumerate([3.5, 2.8, 2.8])
    ]

    assert answers == [5, 5, 4]
