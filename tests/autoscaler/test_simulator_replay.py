"""The closed loop: an actuator worked by hand, the same for every policy, and an oracle that nothing beats."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.cluster.capacity import Capacity
from autoscaler.cluster.reasons import Hold
from autoscaler.cluster.snapshot import DemandForecast, ObservedDemand, WorkloadSnapshot
from autoscaler.decisions.budget import BudgetRules
from autoscaler.decisions.capacity import queue_capacity
from autoscaler.decisions.guardrails import (
    DOWN_DEFAULT,
    NO_MEMORY,
    Behaviour,
    PolicyKind,
    ReplicaMemory,
    ScalingPolicy,
    ScalingRules,
    remembered_scale,
)
from autoscaler.decisions.replicas import ReplicaRules, decide_replicas
from autoscaler.simulator.outcome import Replay, ReplayError, ReplaySettings, ReplayWorkload, WorkloadOutcome
from autoscaler.simulator.peers.hpa import HpaPolicy
from autoscaler.simulator.policies import ForesizePolicy, Policy, Run, Tick
from autoscaler.simulator.readiness import lead_ticks
from autoscaler.simulator.replay import replay
from models.forecast import FloatArray
from tests.support.clusters import NOT_FORECAST, a_replay_workload, minute_settings

RULES = ReplicaRules()
RISE = [1.0, 1.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]


@dataclass(frozen=True)
class Scripted:
    """Sets the replicas to a given number at each tick, and keeps what it saw."""

    script: tuple[int, ...]
    seen: list[Tick]
    name: str = "scripted"

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> Run:
        return self

    def replicas(self, tick: Tick) -> int:
        self.seen.append(replace(tick))
        return self.script[len(self.seen) - 1]


def foresize(peaks: list[float] | FloatArray, rules: ReplicaRules = RULES) -> ForesizePolicy:
    return ForesizePolicy(peaks=np.atleast_2d(np.asarray(peaks)), level=0.99, lead_seconds=120, rules=rules)


def run_one(
    policy: Policy,
    demand: list[float] | FloatArray,
    workload: ReplayWorkload | None = None,
    replay_settings: ReplaySettings | None = None,
) -> WorkloadOutcome:
    result = replay(
        np.atleast_2d(np.asarray(demand)),
        [workload or a_replay_workload()],
        [policy],
        replay_settings or minute_settings(),
    )
    return result.of(policy.name)[0]


def test_what_is_ordered_serves_after_the_lead_time_and_what_is_removed_is_gone_at_once() -> None:
    """Demand 1, 3, 3, 1; replicas 1, 3, 3, 1; Ready 1, 1, 3, 1: one minute lacks two cores."""
    scripted = Scripted((1, 3, 3, 1), [])
    result = run_one(scripted, [1.0, 3.0, 3.0, 1.0], a_replay_workload(initial_replicas=1))

    assert result.series.ready_mean.tolist() == [1, 1, 3, 1]
    assert result.series.replicas_mean.tolist() == [1, 3, 3, 1]
    assert result.violation_minutes == 1
    assert result.known_minutes == 4
    assert result.unserved_core_hours == pytest.approx(2 / 60)
    assert result.unserved_share == pytest.approx(2 / 8)
    assert result.replica_hours == result.core_hours == pytest.approx(8 / 60)
    assert result.mean_utilisation == pytest.approx(6 / 8)
    assert result.scale_actions == 2
    assert result.scale_actions_per_hour == 30
    assert result.violation_share == result.elasticity.tau_under == 1 / 4
    assert result.elasticity.theta_under == pytest.approx(2 / 3 / 4)
    # Usage saturates at what is Ready, and is seen one window later; before the start demand was the first one.
    assert [tick.usage for tick in scripted.seen] == [1, 1, 1, 3]


def test_a_scale_in_takes_starting_replicas_first_then_the_youngest() -> None:
    """2 old ones, 3 ordered; one minute later 2 are cut: those that start. Settled ones go last."""
    scripted = Scripted((5, 3, 3, 3, 2), [])
    result = run_one(scripted, [1.0] * 5, a_replay_workload(initial_replicas=2), minute_settings(pod_ready_seconds=120))

    assert result.series.ready_mean.tolist() == [2, 2, 3, 3, 2]
    assert [tick.settled for tick in scripted.seen] == [2, 2, 2, 3, 3]
    assert result.scale_actions == 3


def test_metrics_are_a_mean_over_the_window_that_ended_one_delay_ago() -> None:
    """Ticks of 15 s, a window of 30 s, a delay of 15 s: at 60 s what ran from 15 to 45 s is seen."""
    scripted = Scripted((4,) * 8, [])
    run_one(
        scripted,
        [1.0, 3.0, 2.0, 4.0, 1.0, 1.0, 1.0, 1.0],
        a_replay_workload(initial_replicas=4),
        ReplaySettings(step_seconds=15, tick_seconds=15, metric_window_seconds=30, metric_delay_seconds=15),
    )

    assert [tick.usage for tick in scripted.seen] == [1, 1, 1, 2, 2.5, 3, 2.5, 1]
    assert scripted.seen[4].measured_at_seconds == 45


def test_the_hpa_follows_a_rise_as_worked_by_hand() -> None:
    """Target 50 %, so 4 cores need 8 replicas. Usage saturates, and young pods damp: 2, 4, then 8, too late by 2 min.

    minute 2: the rise is not seen yet, 2 cores are lost.   minute 3: 2 pods at 100 %: 4.  Still 2 Ready.
    minute 4: 2 settled at 100 %, 2 young count as idle: 50 %, so 4.   minute 5: 4 at 100 %: 8.   Then 50 %.
    """
    result = run_one(HpaPolicy(), RISE)

    assert result.series.replicas_mean.tolist() == [2, 2, 2, 4, 4, 8, 8, 8]
    assert result.series.ready_mean.tolist() == [2, 2, 2, 2, 4, 4, 8, 8]
    assert result.violation_minutes == 2
    assert result.unserved_core_hours == pytest.approx(4 / 60)
    assert result.scale_actions == 2


def test_a_forecast_has_the_replicas_ready_before_the_rise() -> None:
    """The peak of 4 cores is forecast from minute 1 on: 2 + 4 by the rate limit, then 8, and nothing is lost."""
    result = run_one(foresize([1.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]), RISE)

    assert result.series.replicas_mean.tolist() == [2, 6, 8, 8, 8, 8, 8, 8]
    assert result.series.ready_mean.tolist() == [2, 2, 6, 8, 8, 8, 8, 8]
    assert result.violation_minutes == 0


def test_without_forecasts_foresize_is_reactive() -> None:
    """NaN is no forecast: it then does what the HPA does here."""
    result = run_one(foresize([np.nan] * 8), RISE)

    assert result.series.replicas_mean.tolist() == [2, 2, 2, 4, 4, 8, 8, 8]


def test_unknown_demand_changes_nothing_and_is_not_judged() -> None:
    """A gap in the history: both policies hold, and only the cost counts."""
    demand = [4.0, 4.0, np.nan, np.nan, np.nan, 4.0]
    for policy in (HpaPolicy(), foresize([np.nan] * 6)):
        result = run_one(policy, demand)

        assert result.series.replicas_mean.tolist() == [8] * 6
        assert result.known_minutes == 3
        assert result.violation_minutes == 0


def test_an_order_may_overtake_an_earlier_one_and_a_removal_takes_what_is_not_ready() -> None:
    """Ordered at minutes 0 and 1, Ready at 3 and 2; the removal at minute 2 takes the one that still starts."""
    workload = replace(a_replay_workload(initial_replicas=1), name="w", pod_ready_seconds=(60.0, 180.0))
    seeds = (s for s in range(99) if lead_ticks(workload, minute_settings(seed=s), 5).tolist()[:2] == [3, 1])
    minutes = minute_settings(seed=next(seeds))

    kept = run_one(Scripted((2, 3, 3, 3, 3), []), [1.0] * 5, workload, minutes)
    cut = run_one(Scripted((2, 3, 2, 2, 2), []), [1.0] * 5, workload, minutes)

    assert kept.series.ready_mean.tolist() == [1, 1, 2, 3, 3]
    assert cut.series.ready_mean.tolist() == [1, 1, 2, 2, 2]


def test_every_policy_meets_the_same_ready_times() -> None:
    """They spread around the median, by the seed, the workload's name and the tick of the order; nothing else."""
    spread = ReplaySettings(step_seconds=300, tick_seconds=1, pod_ready_seconds=100, pod_ready_spread=0.5, seed=1)
    workload = a_replay_workload()
    times = lead_ticks(workload, spread, 5000)

    assert np.quantile(times, [0.16, 0.5, 0.84]) == pytest.approx([61, 100, 164], rel=0.1)
    assert times.tolist() == lead_ticks(replace(workload, max_replicas=7), spread, 5000).tolist()
    assert times.tolist() != lead_ticks(replace(workload, name="shop/Deployment/till"), spread, 5000).tolist()
    assert times.tolist() != lead_ticks(workload, replace(spread, seed=2), 5000).tolist()
    assert set(lead_ticks(replace(workload, pod_ready_seconds=(7.0, 30.5)), spread, 99).tolist()) == {7, 31}


def test_a_removed_replica_is_paid_for_while_it_ends() -> None:
    """Three replicas, one of them removed after a minute, half a minute's grace: 3 + 2 + 2 minutes and a half."""
    result = run_one(
        Scripted((3, 2, 2), []), [1.0] * 3, a_replay_workload(initial_replicas=3), minute_settings(grace_seconds=30)
    )

    assert result.replica_hours == pytest.approx(7.5 / 60)


def test_the_oracle_orders_one_lead_time_ahead_and_no_earlier() -> None:
    """Demand 1, 1, 4, 1 with a lead time of a minute: 1, 4, 4, 1 replicas at full utilisation."""
    result = replay(np.array([[1.0, 1.0, 4.0, 1.0]]), [a_replay_workload()], [], minute_settings())
    (oracle,) = result.of("oracle")

    assert oracle.series.replicas_mean.tolist() == [1, 4, 4, 1]
    assert oracle.violation_minutes == 0


demands = st.lists(st.floats(0, 20), min_size=10, max_size=40)


@settings(max_examples=50)
@given(demand=demands, lead=st.sampled_from([0, 60, 150]), data=st.data())
def test_nothing_that_never_violates_saves_more_than_the_oracle(
    demand: list[float], lead: int, data: st.DataObject
) -> None:
    """Whatever the policy and its luck; and the oracle itself never violates."""
    peaks = data.draw(st.lists(st.floats(0, 40), min_size=len(demand), max_size=len(demand)))
    result = replay(
        np.array([demand]),
        [a_replay_workload()],
        [foresize(peaks), HpaPolicy()],
        minute_settings(pod_ready_seconds=lead),
    )
    (oracle,) = result.of("oracle")

    assert oracle.violation_minutes == 0
    for name in ("foresize", "hpa"):
        (ours,) = result.of(name)
        assert ours.violation_minutes > 0 or ours.core_hours >= oracle.core_hours - 1e-9


@settings(max_examples=30, deadline=None)
@given(
    demand=st.lists(st.sampled_from([0.5, 1.5, 2.5]), min_size=1, max_size=5),
    times=st.lists(st.sampled_from([0.0, 60.0, 120.0, 180.0]), min_size=1, max_size=4),
    grace=st.sampled_from([0.0, 60.0, 130.0]),
    seed=st.integers(0, 99),
)
def test_of_all_that_can_be_done_nothing_without_violations_is_cheaper_than_the_oracle(
    demand: list[float], times: list[float], grace: float, seed: int
) -> None:
    """Whatever the pods' times and however long a removed one is paid for; the oracle does as well as the best."""
    workload = replace(a_replay_workload(max_replicas=3), pod_ready_seconds=tuple(times))
    minutes = minute_settings(grace_seconds=grace, seed=seed)
    (oracle,) = replay(np.array([demand]), [workload], [], minutes).of("oracle")

    tried = [
        run_one(Scripted(script, []), demand, replace(workload, initial_replicas=script[0]), minutes)
        for script in product((1, 2, 3), repeat=len(demand))
    ]

    assert oracle.violation_minutes == 0
    assert oracle.core_hours == pytest.approx(min(each.core_hours for each in tried if each.violation_minutes == 0))


@settings(max_examples=50)
@given(demand=demands, spread=st.sampled_from([0.0, 0.7]), seed=st.integers(0, 99))
def test_the_oracles_replicas_can_be_replayed(demand: list[float], spread: float, seed: int) -> None:
    """A policy that is told them has the very same pods Ready at the same cost."""
    minutes = minute_settings(pod_ready_seconds=150, pod_ready_spread=spread, seed=seed, grace_seconds=60)
    (oracle,) = replay(np.array([demand]), [a_replay_workload()], [], minutes).of("oracle")
    script = tuple(map(int, oracle.series.replicas_mean))

    result = run_one(Scripted(script, []), demand, a_replay_workload(initial_replicas=script[0]), minutes)

    assert result.series.ready_mean.tolist() == oracle.series.ready_mean.tolist()
    assert result.core_hours == oracle.core_hours


@settings(max_examples=25)
@given(demand=demands, power=st.integers(-6, 6))
def test_the_unit_of_demand_does_not_matter(demand: list[float], power: int) -> None:
    """Demand, forecast and request times k: the same replicas. (Powers of two, so that nothing is rounded.)"""
    k = 2.0**power
    scaled = replace(a_replay_workload(), request_per_replica=k)
    peaks = [1.2 * d for d in demand]

    for policy, other in ((foresize(peaks), foresize(k * np.asarray(peaks))), (HpaPolicy(), HpaPolicy())):
        ours, theirs = run_one(policy, demand), run_one(other, k * np.asarray(demand), scaled)
        assert ours.series.replicas_mean.tolist() == theirs.series.replicas_mean.tolist()
        assert theirs.violation_minutes == ours.violation_minutes


@dataclass(frozen=True)
class EveryTick:
    """Foresize's decision function called at every tick, in the plainest way."""

    peaks: FloatArray
    rules: ReplicaRules
    name: str = "every tick"

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> Run:
        return EveryTickRun(self, workload, settings, NO_MEMORY)


@dataclass
class EveryTickRun:
    policy: EveryTick
    workload: ReplayWorkload
    settings: ReplaySettings
    memory: ReplicaMemory

    def replicas(self, tick: Tick) -> int:
        peak = float(self.policy.peaks[0, tick.step])
        forecast: DemandForecast | Hold = NOT_FORECAST
        if not np.isnan(peak):
            forecast = DemandForecast(peak, 0.99, 120, tick.step * self.settings.step_seconds, "", "")
        snapshot = WorkloadSnapshot(
            self.workload.name,
            tick.replicas,
            tick.ready,
            self.workload.min_replicas,
            self.workload.max_replicas,
            self.workload.resource,
            self.workload.capacity,
            ObservedDemand(tick.usage, tick.measured_at_seconds),
        )
        rules = self.policy.rules
        decision, self.memory = decide_replicas(snapshot, forecast, self.memory, rules, tick.now_seconds)
        if change := decision.desired - tick.replicas:
            self.memory = remembered_scale(self.memory, change, rules.behaviour, tick.now_seconds)
        return decision.desired


@pytest.mark.parametrize("up_window", [0, 45])
@pytest.mark.parametrize("step_seconds", [300, 3600])
def test_decisions_that_are_not_computed_again_would_have_been_the_same(up_window: int, step_seconds: int) -> None:
    """The replay's short cut against a decision at each tick, over half a day with gaps; hourly forecasts go stale."""
    steps = 43_200 // step_seconds
    rng = np.random.default_rng(7)
    demand = np.round(5 + 4 * np.sin(np.arange(steps) / steps * 12) + rng.normal(0, 0.5, steps), 1).clip(0)[None]
    demand[0, steps // 2] = np.nan
    peaks = np.where(rng.random((1, steps)) < 0.8, demand * 1.2 + rng.normal(0, 1, (1, steps)), np.nan)
    up = ScalingRules(up_window, (ScalingPolicy(PolicyKind.PODS, 2, 60),))
    rules = ReplicaRules(behaviour=Behaviour(up, DOWN_DEFAULT))

    result = replay(
        demand,
        [a_replay_workload()],
        [foresize(peaks, rules), EveryTick(peaks, rules)],
        ReplaySettings(step_seconds=step_seconds, pod_ready_seconds=50),
    )

    (ours,), (plain,) = result.of("foresize"), result.of("every tick")
    assert ours.scale_actions == plain.scale_actions > 5
    assert ours.series.replicas_mean.tolist() == plain.series.replicas_mean.tolist()
    assert ours.series.ready_min.tolist() == plain.series.ready_min.tolist()
    assert ours.core_hours == plain.core_hours


def test_a_violation_is_of_the_slo_and_what_is_lost_is_beyond_the_requests() -> None:
    """Two replicas serve 2 but carry 1.5 within the SLO: 1.6 violates and is served, of 2.5 a half is lost as well."""
    workload = replace(a_replay_workload(initial_replicas=2), slo=Capacity(0.75))
    result = run_one(Scripted((2,) * 4, []), [1.0, 1.5, 1.6, 2.5], workload)

    assert result.violation_minutes == 2
    assert result.unserved_core_hours == pytest.approx(0.5 / 60)


def test_an_slo_on_latency_makes_ten_replicas_carry_far_more_than_ten_times_one() -> None:
    """95 % within 4 mean service times, one request at a time each: one carries 0.25, ten carry 8.8 together."""
    slo = queue_capacity(1.0, 1, 4.0, 0.95, 12)
    assert slo is not None
    assert slo.demand_at(10) > 30 * slo.demand_at(1)
    workload = replace(a_replay_workload(target_utilisation=1.0, max_replicas=12), slo=slo)
    demand = [slo.demand_at(n) for n in (3, 3, 10, 10, 3)]
    (oracle,) = replay(np.array([demand]), [workload], [], minute_settings()).of("oracle")

    assert oracle.series.replicas_mean.tolist() == [3, 10, 10, 10, 3]
    assert oracle.violation_minutes == 0
    assert run_one(foresize(demand, RULES), demand, workload).series.replicas_mean[0] == 3


def two_workloads() -> Replay:
    rng = np.random.default_rng(3)
    demand = rng.gamma(4.0, 1.0, (2, 60))
    return replay(
        demand,
        [replace(a_replay_workload(), name="a"), replace(a_replay_workload(), name="b", cores_per_replica=2.0)],
        [ForesizePolicy(peaks=demand * 1.1, level=0.99, lead_seconds=120, rules=RULES), HpaPolicy()],
        minute_settings(),
    )


def test_a_replay_is_the_same_every_time_and_its_totals_add_up() -> None:
    """No clock, no dice; core-hours, minutes and actions are sums, shares are weighted."""
    first, second = two_workloads(), two_workloads()

    assert first.policies == ("foresize", "hpa", "oracle")
    assert first.totals() == second.totals()
    for total in first.totals():
        outcomes = first.of(total.policy)
        assert [o.workload for o in outcomes] == ["a", "b"]
        assert total.core_hours == sum(o.core_hours for o in outcomes)
        assert total.scale_actions == sum(o.scale_actions for o in outcomes)
        assert total.elasticity.tau_under == pytest.approx(total.violation_share)
        assert total.violation_share == total.violation_minutes / 120
        assert outcomes[1].core_hours == 2 * outcomes[1].replica_hours


def test_a_target_of_its_own_overrides_the_workloads() -> None:
    """At a target of 100 % 4 cores need 4 replicas, not 8."""
    policy = replace(HpaPolicy(), target_utilisation=1.0)

    assert run_one(policy, [4.0] * 10).series.replicas_mean[-1] == 4


def test_progress_is_told_after_each_workload_of_each_policy_and_the_oracle() -> None:
    """For a progress bar."""
    told: list[tuple[int, int]] = []
    replay(
        np.ones((2, 3)),
        [a_replay_workload(), a_replay_workload()],
        [HpaPolicy()],
        minute_settings(),
        progress=lambda done, total: told.append((done, total)),
    )

    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_what_cannot_be_replayed_is_refused_with_the_reason() -> None:
    """Shapes that do not match, negative demand, a tick that does not divide the step, bounds the wrong way round."""
    with pytest.raises(ReplayError, match=r"demand is \(2, 3\)"):
        replay(np.ones((2, 3)), [a_replay_workload()], [], minute_settings())
    with pytest.raises(ReplayError, match="negative"):
        replay(-np.ones((1, 3)), [a_replay_workload()], [], minute_settings())
    with pytest.raises(ReplayError, match=r"peaks are \(1, 2\), but demand is \(1, 3\)"):
        replay(np.ones((1, 3)), [a_replay_workload()], [foresize([1.0, 1.0])], minute_settings())
    with pytest.raises(ReplayError, match="must divide"):
        ReplaySettings(step_seconds=50)
    with pytest.raises(ReplayError, match="min <= max"):
        a_replay_workload(min_replicas=3, max_replicas=2)
    with pytest.raises(ReplayError, match="spread, seed and grace"):
        minute_settings(pod_ready_spread=-1.0)
    with pytest.raises(ReplayError, match="shop/Deployment/cart: times from a scale-out"):
        replace(a_replay_workload(), pod_ready_seconds=(-1.0,))
    with pytest.raises(ReplayError, match="by its SLO 2 replicas carry 3, but by their requests they serve at most 2"):
        replace(a_replay_workload(), slo=Capacity(0.5, (1.0, 3.0)))


def test_a_policy_sees_what_share_of_each_step_was_in_violation() -> None:
    """Once its end is as old as anything that is measured, and nothing of a step whose demand is not known."""
    seen: list[Tick] = []
    ticks = ReplaySettings(step_seconds=60, tick_seconds=15, pod_ready_seconds=30, metric_delay_seconds=15)
    run_one(Scripted((1,) * 4 + (2,) * 12, seen), [1.0, 2.0, np.nan, 1.0], a_replay_workload(initial_replicas=1), ticks)

    news = {each.violated_until_seconds: (each.now_seconds, each.violated) for each in reversed(seen)}
    assert list(reversed(news))[:1] == [0.0]
    assert news[60.0] == (75.0, 0.0)
    assert news[120.0] == (135.0, 0.5)
    assert news[180.0][0] == 195.0
    assert np.isnan(news[180.0][1])


def test_a_budget_tightens_until_what_is_violated_is_allowed() -> None:
    """A peak every ten minutes, higher than what is forecast at the stated level and known at a higher one."""
    demand = np.where(np.arange(720) % 10 == 9, 6.0, 4.0)[None, :]
    rungs = {level: np.full(demand.shape, peak) for level, peak in ((0.99, 4.0), (0.995, 5.0), (0.999, 7.0))}
    plain = ForesizePolicy(peaks=rungs[0.99], level=0.99, lead_seconds=120, rules=RULES, target_utilisation=1.0)
    budgeted = replace(plain, budget=BudgetRules(0.99), rungs=rungs, name="budgeted")

    made = replay(demand, [a_replay_workload(initial_replicas=4)], [plain, budgeted], minute_settings())
    (without,), (with_budget,) = made.of("foresize"), made.of("budgeted")
    assert without.violation_share == pytest.approx(0.1)
    assert with_budget.violation_share < 0.02
    assert with_budget.core_hours > without.core_hours


def test_a_budget_needs_forecasts_at_its_rungs() -> None:
    """It says which levels are missing."""
    peaks = np.ones((1, 3))
    with pytest.raises(ReplayError, match=r"levels 0\.999 as well"):
        ForesizePolicy(
            peaks=peaks,
            level=0.99,
            lead_seconds=120,
            rules=RULES,
            budget=BudgetRules(0.99),
            rungs={0.99: peaks, 0.995: peaks},
        )
