"""Requests replayed, and the peers that choose them: what they publish, and what holds for all of them."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.simulator.outcome import ReplayError
from autoscaler.simulator.peers.autopilot_requests import AutopilotRequestPolicy, Statistic
from autoscaler.simulator.peers.catalog import REQUEST_PEERS
from autoscaler.simulator.peers.histogram import DecayingSamples
from autoscaler.simulator.peers.own_requests import ForesizeRequestPolicy, StaticRequestPolicy
from autoscaler.simulator.peers.vpa import VpaPolicy, VpaRange, confidence, is_due, vpa_range
from autoscaler.simulator.vertical import (
    RequestOutcome,
    RequestPolicy,
    RequestRun,
    SizedWorkload,
    StepSeen,
    replay_requests,
)
from models.baselines.decaying_histogram import DecayingHistogram
from models.forecast import FloatArray, History, Target
from predictor.usage.panel import Resource

STEP = 600
PER_DAY = 144
GIB = float(2**30)
EVERY_PEER = pytest.mark.parametrize("name", REQUEST_PEERS)
BOTH = pytest.mark.parametrize(("resource", "unit"), [(Resource.CPU, 1.0), (Resource.MEMORY, GIB)])


@dataclass(frozen=True)
class Scripted:
    """Requests a given amount at each step, and keeps what it saw."""

    script: tuple[float, ...]
    seen: list[StepSeen] = field(default_factory=list)
    name: str = "scripted"

    def start(self, row: int, workload: SizedWorkload, step_seconds: int) -> RequestRun:
        return self

    def request(self, seen: StepSeen) -> float:
        self.seen.append(replace(seen))
        return self.script[len(self.seen) - 1]


def a_workload(*, resource: Resource = Resource.CPU, replicas: int = 2, request: float = 2.0) -> SizedWorkload:
    return SizedWorkload(name="shop/cart", replicas=replicas, request_per_replica=request, resource=resource)


def run(
    policy: RequestPolicy, demand: FloatArray | list[float], workload: SizedWorkload | None = None
) -> RequestOutcome:
    return replay_requests(np.atleast_2d(np.asarray(demand)), [workload or a_workload()], [policy], STEP)[0]


DEMAND = [4.0, 8.0, np.nan, 2.0, 2.0, 2.0]
REQUESTS = (3.0, 3.0, 3.0, 0.5, 1.0, 1.0)


def test_cost_is_what_is_requested_and_violations_are_what_exceeds_it() -> None:
    """2 replicas; 10 minutes each of 6, 6, 6, 1, 2 and 2 requested for 4, 8, unknown, 2, 2 and 2 cores."""
    outcome = run(Scripted(REQUESTS), DEMAND)

    assert outcome.requested_hours == pytest.approx(23 / 6)
    assert outcome.demand_hours == pytest.approx(18 / 6)
    assert outcome.known_minutes == 50
    assert outcome.violation_minutes == 20
    assert outcome.beyond_hours == pytest.approx(3 / 6)
    assert outcome.slack_share == pytest.approx(1 - 15 / 23)
    assert outcome.resizes == 3
    assert outcome.out_of_memory_kills == 0


def test_memory_beyond_the_request_kills_every_replica_and_is_seen_as_the_request() -> None:
    """The same in bytes: two steps kill two replicas each; CPU beyond the request is seen as it was."""
    memory, cpu = Scripted(REQUESTS), Scripted(REQUESTS)
    outcome = run(memory, DEMAND, a_workload(resource=Resource.MEMORY))
    run(cpu, DEMAND)

    assert outcome.out_of_memory_kills == 4
    assert [seen.is_killed for seen in memory.seen] == [False, False, True, False, True, False]
    assert memory.seen[2].usage == 3
    assert [seen.is_killed for seen in cpu.seen] == [False] * 6
    assert cpu.seen[2].usage == 4
    assert np.isnan(cpu.seen[0].usage)


@pytest.mark.parametrize(
    ("demand", "step_seconds", "message"),
    [
        (np.ones(3), 60, "1 workloads"),
        (np.full((1, 3), -1.0), 60, "negative"),
        (np.ones((1, 3)), 0, "longer than 0"),
    ],
)
def test_what_cannot_be_replayed_is_an_error(demand: FloatArray, step_seconds: int, message: str) -> None:
    """Shape, sign and step."""
    with pytest.raises(ReplayError, match=message):
        replay_requests(demand, [a_workload()], [Scripted((1.0,) * 3)], step_seconds)


def test_a_gpu_is_not_resized() -> None:
    """Nor a workload without replicas."""
    with pytest.raises(ReplayError, match="CPU and memory"):
        a_workload(resource=Resource.GPU)
    with pytest.raises(ReplayError, match="at least 1 replica"):
        a_workload(replicas=0)


@given(
    st.lists(st.one_of(st.floats(0, 100), st.just(np.nan)), min_size=2, max_size=60),
    st.sampled_from([0.5, 0.9, 0.95]),
)
def test_samples_put_in_one_by_one_have_the_forecasters_percentiles(usage: list[float], level: float) -> None:
    """One histogram, filled at once by the forecaster; its buckets are the VPA's for a largest sample of 100 cores."""
    series = np.array([*usage, 100.0])
    samples = DecayingSamples(0.01, 1000.0, 1.05, 86_400.0)
    for step, each in enumerate(series.tolist()):
        if each == each:  # noqa: PLR0124 - NaN
            samples.add(each, 1.0, step * 3600.0)
    forecast = DecayingHistogram().predict(History(series[None, :], 0, 3600), Target(1), (level,))

    assert samples.percentile(level) == pytest.approx(forecast.values[0, 0, 0])


def test_after_months_old_samples_weigh_nothing_and_nothing_overflows() -> None:
    """Ten years of a core, then a day of three."""
    samples = DecayingSamples(0.01, 1000.0, 1.05, 86_400.0)
    for day in range(3650):
        samples.add(1.0, 1.0, day * 86_400.0)
    for hour in range(48):
        samples.add(3.0, 1.0, 3650 * 86_400.0 + hour * 3600.0)

    assert 3.0 <= samples.percentile(0.1) <= 3.0 * 1.05


def test_a_load_adjusted_percentile_counts_usage_not_time() -> None:
    """19 hours of 1 core and one of 19: half of all usage is at 1 core, though 95 % of the time is."""
    samples = DecayingSamples(0.01, 1000.0, 1.02, 1e12)
    for each in [1.0] * 19 + [19.0]:
        samples.add(each, 1.0, 0.0)

    assert samples.percentile(0.9) == pytest.approx(1.0, rel=0.02)
    assert samples.load_percentile(0.45) == pytest.approx(1.0, rel=0.02)
    assert samples.load_percentile(0.6) == pytest.approx(19.0, rel=0.021)
    assert samples.mean() == pytest.approx(1.9, rel=0.02)


@pytest.mark.parametrize(
    ("seconds", "lower", "upper"),
    [
        (300, 0.6, None),
        (1800, 0.9, None),
        (3600, 0.95, None),
        (43_200, None, 3.0),
        (86_400, None, 2.0),
        (604_800, None, 1.14),
    ],
)
def test_the_vpas_bounds_narrow_as_its_source_says(seconds: int, lower: float | None, upper: float | None) -> None:
    """The multipliers in the comments of its recommender, for a pod with a sample a minute."""
    bounds = vpa_range(VpaRange(1.0, 1.0, 1.0), confidence(seconds, seconds / 60), 0.0, 0.0)

    if lower is not None:
        assert bounds.lower == pytest.approx(lower, abs=0.015)
    if upper is not None:
        assert bounds.upper == pytest.approx(upper, abs=0.01)


def test_the_vpa_recommends_at_least_its_minimum() -> None:
    """25 millicores for a pod of one container, in all three figures."""
    assert vpa_range(VpaRange(0.0, 0.001, 0.001), 1.0, 0.15, 0.025) == VpaRange(0.025, 0.025, 0.025)


@pytest.mark.parametrize(
    ("request_now", "age_hours", "killed_after", "acts"),
    [
        pytest.param(0.4, 0, None, True, id="below the lower bound"),
        pytest.param(2.1, 0, None, True, id="above the upper bound"),
        pytest.param(1.5, 11, None, False, id="a third away, but young"),
        pytest.param(1.5, 12, None, True, id="a third away, and old"),
        pytest.param(1.05, 99, None, False, id="near"),
        pytest.param(1.05, 0, 599.0, True, id="killed soon after it began"),
        pytest.param(1.05, 0, 600.0, False, id="killed later"),
    ],
)
def test_the_vpas_updater_acts_by_its_rules(
    request_now: float, age_hours: float, killed_after: float | None, acts: bool
) -> None:
    """Bounds 0.5 and 2, target 1."""
    wanted = VpaRange(0.5, 1.0, 2.0)

    assert is_due(request_now, wanted, pod_age_seconds=age_hours * 3600, killed_after_seconds=killed_after) is acts


def test_the_vpa_asks_for_the_ninetieth_percentile_and_a_margin() -> None:
    """A week of 1 core per replica: the bucket above 1, and 15 %; a single replica is never resized."""
    past = np.full((1, 7 * PER_DAY), 2.0)
    request = run(VpaPolicy(past=past), np.full(PER_DAY, 2.0)).requests[-1]

    assert 1.15 <= request <= 1.15 * 1.05
    alone = a_workload(replicas=1, request=9.0)
    assert run(VpaPolicy(past=past), np.full(PER_DAY, 2.0), alone).resizes == 0


def test_of_memory_a_day_counts_by_its_peak() -> None:
    """Eight days with one step of 4 GiB each among 1 GiB: the percentile is that of the peaks."""
    day = np.full(PER_DAY, 2 * GIB)
    day[70] = 8 * GIB
    past = np.tile(day, 8)[None, :]
    workload = a_workload(resource=Resource.MEMORY, request=GIB)
    request = run(VpaPolicy(past=past), day, workload).requests[0]

    assert 4 * GIB * 1.15 <= request <= 4 * GIB * 1.15 * 1.05


@pytest.mark.parametrize("name", ["foresize", "vpa", "autopilot_maximum"])
def test_a_kill_raises_the_memory_request_by_a_fifth_or_more(name: str) -> None:
    """Days of 1 GiB per replica, then 2: kill by kill the request grows until it fits."""
    past = np.full((1, 8 * PER_DAY), 2 * GIB)
    outcome = run(
        REQUEST_PEERS[name].make(past, None),
        np.full(PER_DAY, 4 * GIB),
        a_workload(resource=Resource.MEMORY, request=1.3 * GIB),
    )

    assert 0 < outcome.out_of_memory_kills < 20
    assert outcome.requests[-1] >= 2 * GIB


def test_autopilot_holds_the_highest_recommendation_of_an_hour() -> None:
    """Steps of 10 minutes, a burst of one step: its maximum stays for a window, its mean for an hour."""
    past = np.full((1, 7 * PER_DAY), 2.0)
    demand = np.full(PER_DAY, 2.0)
    demand[3] = 20.0
    maximum = run(AutopilotRequestPolicy(past=past, statistic=Statistic.MAXIMUM), demand).requests
    mean = run(AutopilotRequestPolicy(past=past, statistic=Statistic.MEAN), demand).requests

    assert maximum[3] == pytest.approx(1.15)
    assert maximum[4:].tolist() == pytest.approx([11.5] * (PER_DAY - 4))
    assert (mean[4:10] == mean[4]).all()
    assert mean[10] < mean[4]


def test_autopilots_memory_in_between_is_half_the_maximum_at_least() -> None:
    """A week of 1 GiB and one step of 4: the 60th percentile is 1, half the maximum 2."""
    past = np.full((1, 7 * PER_DAY), 2 * GIB)
    past[0, 500] = 8 * GIB
    policy = AutopilotRequestPolicy(past=past, statistic=Statistic.P60_OR_HALF_MAXIMUM, margin=0.0)

    assert run(policy, [2 * GIB], a_workload(resource=Resource.MEMORY)).requests[0] == pytest.approx(2 * GIB)


def test_foresize_asks_for_the_share_of_cpu_time_that_its_rules_state() -> None:
    """Nights of 1 core per replica, days of 3: 95 % of its CPU time is at or under 3 cores."""
    past = np.tile(np.repeat([2.0, 6.0], PER_DAY // 2), 7)[None, :]

    assert run(ForesizeRequestPolicy(past=past), np.full(6, 2.0)).requests.tolist() == [3.0] * 6


def test_static_requests_are_the_pasts_quantile() -> None:
    """99 steps of 1 core per replica and one of 4."""
    past = np.full((1, 100), 2.0)
    past[0, 5] = 8.0

    assert run(StaticRequestPolicy(past=past), np.full(3, 2.0)).requests.tolist() == [4.0] * 3
    assert run(StaticRequestPolicy(past=past, level=0.95), np.full(3, 2.0)).requests.tolist() == [1.0] * 3


@EVERY_PEER
@BOTH
def test_demand_that_never_changes_is_resized_for_no_more_than_twice(
    name: str, resource: Resource, unit: float
) -> None:
    """Days of 1 per replica: what is requested holds it, and stays."""
    demand = np.full(2 * PER_DAY, 2 * unit)
    policy = REQUEST_PEERS[name].make(np.full((1, 8 * PER_DAY), 2 * unit), None)
    outcome = run(policy, demand, a_workload(resource=resource, request=5 * unit))

    assert outcome.violation_minutes == 0
    assert outcome.resizes <= 2
    assert len(set(outcome.requests[PER_DAY:].tolist())) == 1


@EVERY_PEER
@BOTH
def test_where_nothing_is_known_the_request_stays(name: str, resource: Resource, unit: float) -> None:
    """Neither of the past nor of the replay; nor is there any past."""
    for past in (np.full((1, PER_DAY), np.nan), np.empty((1, 0))):
        policy = REQUEST_PEERS[name].make(past, None)
        outcome = run(policy, np.full(PER_DAY, np.nan), a_workload(resource=resource, request=3 * unit))

        assert outcome.requests.tolist() == [3 * unit] * PER_DAY


@EVERY_PEER
@BOTH
@settings(max_examples=10, deadline=None)
@given(low=st.floats(0.5, 20), more=st.floats(0, 20))
def test_more_demand_never_means_a_smaller_request(
    name: str, resource: Resource, unit: float, low: float, more: float
) -> None:
    """Of two workloads with demand that never changes."""
    ends = []
    for demand in (low * unit, (low + more) * unit):
        policy = REQUEST_PEERS[name].make(np.full((1, 3 * PER_DAY), demand), None)
        workload = a_workload(resource=resource, request=0.1 * unit)
        ends.append(run(policy, np.full(PER_DAY, demand), workload).requests[-1])

    assert ends[0] <= ends[1]


@EVERY_PEER
@BOTH
@settings(max_examples=15, deadline=None)
@given(
    demand=st.lists(st.one_of(st.floats(0, 50), st.just(np.nan)), min_size=1, max_size=30),
    past_steps=st.integers(0, 2 * PER_DAY),
)
def test_requests_are_amounts_whatever_comes(
    name: str, resource: Resource, unit: float, demand: list[float], past_steps: int
) -> None:
    """Finite, above 0, and the same in a second replay; beginning anywhere in a history with a gap."""
    past = unit * (1 + np.arange(past_steps, dtype=float) % 7)
    past[past_steps // 3 : past_steps // 2] = np.nan
    policy = REQUEST_PEERS[name].make(past[None, :], None)
    first, second = (run(policy, np.array(demand) * unit, a_workload(resource=resource, request=unit)) for _ in "ab")

    assert np.isfinite(first.requests).all()
    assert (first.requests > 0).all()
    assert first.requests.tolist() == second.requests.tolist()


@EVERY_PEER
def test_every_value_of_the_knob_makes_a_policy_that_carries_it(name: str) -> None:
    """The knob names a field of the policy, and a sweep sets it."""
    peer = REQUEST_PEERS[name]
    for value in peer.values:
        policy = peer.make(np.ones((1, PER_DAY)), value)

        assert getattr(policy, peer.knob) == value
        assert policy.name == name
