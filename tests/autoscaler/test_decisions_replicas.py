"""A forecast raises replicas, only observed demand lowers them, and without an answer nothing is changed."""

from math import inf, nan

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autoscaler.cluster.capacity import Capacity
from autoscaler.cluster.commands import Decision, ScaleReplicas
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode, replicas_text
from autoscaler.cluster.snapshot import DemandForecast, ObservedDemand, Rung, WorkloadSnapshot
from autoscaler.decisions.guardrails import (
    NO_MEMORY,
    Behaviour,
    PolicyKind,
    Recommendation,
    ReplicaMemory,
    ScalingPolicy,
    ScalingRules,
    remembered_scale,
)
from autoscaler.decisions.replicas import ReplicaRules, decide_replicas
from tests.support.clusters import NOT_FORECAST, NOT_MEASURED, NOW, a_forecast, a_workload, observed

RULES = ReplicaRules()
ANY_POLICY = (ScalingPolicy(PolicyKind.PERCENT, 1_000_000, 15),)
FREE = ReplicaRules(
    behaviour=Behaviour(ScalingRules(0, ANY_POLICY), ScalingRules(0, (ScalingPolicy(PolicyKind.PERCENT, 100, 15),)))
)
"""No window and no rate limit; the tolerance stays."""
demands = st.floats(0, 1e4, allow_subnormal=False)


def decide(
    workload: WorkloadSnapshot,
    forecast: DemandForecast | Hold = NOT_FORECAST,
    memory: ReplicaMemory = NO_MEMORY,
    rules: ReplicaRules = RULES,
) -> Decision:
    return decide_replicas(workload, forecast, memory, rules, NOW).decision


def calm(replicas: int) -> ReplicaMemory:
    """A memory in which this many replicas were recommended a minute ago, and no more within the window."""
    return ReplicaMemory((Recommendation(NOW - 60, replicas),))


@given(demand=st.floats(0, 1e9, allow_subnormal=False), capacity=st.floats(1e-3, 1e6))
def test_replicas_keep_the_peak_under_the_target(demand: float, capacity: float) -> None:
    """However the inputs fall, no replica carries more than its capacity, and one fewer would not do."""
    n = Capacity(capacity).replicas_for(demand)

    assert demand <= n * capacity * (1 + 1e-6)
    assert n == 0 or (n - 1) * capacity < demand


def test_rounding_errors_do_not_cost_a_replica() -> None:
    """2.1 cores fit 3 replicas of 0.7, though the quotient is 3.0000000000000004 in floating point."""
    assert Capacity(0.7).replicas_for(2.1) == 3
    assert Capacity(0.7).replicas_for(2.1001) == 4


def test_a_forecast_rise_is_ordered_before_demand_rises() -> None:
    """5 replicas, 5 cores used, 9 cores forecast within the lead time: 9 replicas now."""
    decision = decide(a_workload(replicas=5, demand=5.0), a_forecast(9.0))

    assert isinstance(decision.outcome, ScaleReplicas)
    assert (decision.outcome.current, decision.outcome.desired) == (5, 9)
    assert decision.reason.code is ReasonCode.FORECAST_PEAK
    assert [r.code for r in decision.reasons] == [ReasonCode.FORECAST_PEAK, ReasonCode.OBSERVED_DEMAND]
    assert decision.rung is Rung.CHAMPION


def test_observed_demand_above_the_forecast_decides() -> None:
    """A forecast never holds capacity back: 5 replicas, 8 cores used, 4 forecast: 8 replicas."""
    decision = decide(a_workload(replicas=5, demand=8.0), a_forecast(4.0))

    assert decision.desired == 8
    assert decision.reason.code is ReasonCode.OBSERVED_DEMAND


def test_a_low_forecast_alone_removes_nothing() -> None:
    """2 cores are forecast, but nothing was measured: the 10 replicas stay."""
    decision = decide(a_workload(replicas=10, demand=NOT_MEASURED), a_forecast(2.0), calm(1))

    assert decision.desired == 10
    assert decision.reason.code is ReasonCode.NO_SHRINK_UNSEEN
    assert NOT_MEASURED.reason in decision.reasons


def test_a_high_forecast_raises_even_without_an_observation() -> None:
    """A fresh forecast is enough to add replicas."""
    assert decide(a_workload(replicas=5, demand=NOT_MEASURED), a_forecast(9.0)).desired == 9


def test_a_scale_in_needs_a_whole_window_of_low_demand() -> None:
    """Demand falls from 10 to 4 cores and the forecast with it: replicas follow 5 minutes later."""
    memory = NO_MEMORY
    replicas = 10
    seen = []
    for minute in range(7):
        now = NOW + 60 * minute
        demand = ObservedDemand(10.0 if minute == 0 else 4.0, now)
        forecast = DemandForecast(4.0, 0.99, 600, now, "lightgbm", "7")
        outcome = decide_replicas(a_workload(replicas=replicas, demand=demand), forecast, memory, RULES, now)
        change = outcome.decision.desired - replicas
        memory = remembered_scale(outcome.memory, change, RULES.behaviour, now) if change else outcome.memory
        replicas = outcome.decision.desired
        seen.append(replicas)

    assert seen == [10, 10, 10, 10, 10, 4, 4]


def test_without_a_forecast_the_hpa_formula_decides() -> None:
    """ceil(8 cores / 1 core) replicas, on the reactive rung, and it says why there is no forecast."""
    decision = decide(a_workload(replicas=5, demand=7.2), NOT_FORECAST)

    assert decision.desired == 8
    assert decision.rung is Rung.REACTIVE
    assert decision.reasons[0] == NOT_FORECAST.reason
    assert decision.reason.code is ReasonCode.OBSERVED_DEMAND


def test_without_forecast_and_observation_it_holds_with_both_reasons() -> None:
    """Metrics store gone: hold, never shrink."""
    decision = decide(a_workload(replicas=7, demand=NOT_MEASURED), NOT_FORECAST, calm(1))

    assert isinstance(decision.outcome, Hold)
    assert decision.desired == 7
    assert decision.reasons == (NOT_FORECAST.reason, NOT_MEASURED.reason)
    assert decision.rung is Rung.HOLD


def test_after_an_outage_nothing_is_removed_before_a_whole_window_was_watched() -> None:
    """The hold counts as a recommendation to stay."""
    blind = decide_replicas(a_workload(replicas=7, demand=NOT_MEASURED), NOT_FORECAST, calm(1), RULES, NOW)
    seeing = a_workload(replicas=7, demand=ObservedDemand(1.0, NOW + 290))

    assert decide_replicas(seeing, NOT_FORECAST, blind.memory, RULES, NOW + 290).decision.desired == 7
    assert decide_replicas(seeing, NOT_FORECAST, blind.memory, RULES, NOW + 301).decision.desired == 1


@pytest.mark.parametrize("value", [nan, inf, -1.0])
def test_a_value_that_is_no_demand_counts_as_no_answer(value: float) -> None:
    """A NaN, an infinity or a negative figure never reaches the replicas."""
    blind = decide(a_workload(replicas=5, demand=value), a_forecast(value), calm(1))
    half = decide(a_workload(replicas=5, demand=8.0), a_forecast(value))

    assert blind.desired == 5
    assert [r.code for r in blind.reasons] == [ReasonCode.NO_FORECAST, ReasonCode.NO_OBSERVATION]
    assert half.desired == 8
    assert half.rung is Rung.REACTIVE


def test_zero_demand_is_an_answer() -> None:
    """An idle workload shrinks to its minimum, not to zero."""
    assert decide(a_workload(replicas=5, demand=0.0, min_replicas=2), a_forecast(0.0), calm(1)).desired == 2


def test_a_spike_of_a_thousand_fold_stays_within_the_guardrails() -> None:
    """The rate limit and the maximum hold whatever the figures say."""
    decision = decide(a_workload(replicas=5, demand=5000.0, max_replicas=8), a_forecast(5000.0))

    assert decision.desired == 8
    assert [r.code for r in decision.reasons][-2:] == [ReasonCode.SCALE_UP_LIMIT, ReasonCode.TOO_MANY_REPLICAS]


@given(
    demand=demands, peak=demands, replicas=st.integers(1, 200), demand_age=st.floats(901, 1e6), age=st.floats(901, 1e6)
)
def test_stale_figures_never_shrink_anything(
    demand: float, peak: float, replicas: int, demand_age: float, age: float
) -> None:
    """Neither stale demand nor a stale forecast, nor both; with both stale nothing grows either."""
    workload = a_workload(replicas=replicas, demand=observed(demand, age_seconds=demand_age), max_replicas=1000)

    assert decide(workload, a_forecast(peak), calm(1)).desired >= replicas
    assert decide(workload, a_forecast(peak, age_seconds=age), calm(1)).desired == replicas


@pytest.mark.parametrize("capacity", [0.0, -1.0, nan, inf, Hold(Reason(ReasonCode.NO_CAPACITY, "no CPU request"))])
def test_without_a_capacity_per_replica_it_holds(capacity: float | Hold) -> None:
    """A pod without a request says nothing about how many are needed."""
    decision = decide(a_workload(replicas=5, capacity=capacity), a_forecast(50.0), calm(1))

    assert decision.desired == 5
    assert decision.reason.code is ReasonCode.NO_CAPACITY


@pytest.mark.parametrize(("demand", "desired"), [(9.0, 10), (10.9, 10), (8.9, 9), (11.1, 12)])
def test_a_change_within_the_tolerance_is_left_alone(demand: float, desired: int) -> None:
    """10 replicas of one core: from 9 to 11 cores nothing happens."""
    assert decide(a_workload(replicas=10, demand=demand), a_forecast(demand), calm(1)).desired == desired


def test_a_workload_scaled_to_zero_by_hand_is_left_alone() -> None:
    """As with the HPA, zero replicas switch autoscaling off."""
    decision = decide(a_workload(replicas=0, demand=5.0), a_forecast(9.0))

    assert decision.desired == 0
    assert decision.reason.code is ReasonCode.SCALING_DISABLED


def test_what_must_not_be_acted_on_is_decided_all_the_same() -> None:
    """What would be done stays readable."""
    paused = Hold(Reason(ReasonCode.PAUSED, "paused by a test"))
    decision = decide(a_workload(replicas=5, demand=5.0, suspended=paused), a_forecast(9.0))

    assert decision.desired == 9
    assert isinstance(decision.outcome, Hold)
    assert decision.reason.code is ReasonCode.PAUSED


def test_replicas_outside_the_bounds_are_brought_back_even_without_an_answer() -> None:
    """The bounds are the user's own command."""
    low = decide(a_workload(replicas=1, demand=NOT_MEASURED, min_replicas=3))
    high = decide(a_workload(replicas=9, demand=NOT_MEASURED, max_replicas=6))

    assert (low.desired, low.reason.code) == (3, ReasonCode.TOO_FEW_REPLICAS)
    assert (high.desired, high.reason.code) == (6, ReasonCode.TOO_MANY_REPLICAS)


@given(demand=demands, peak=demands, replicas=st.integers(1, 500))
def test_the_chosen_replicas_carry_the_demand_within_the_tolerance(demand: float, peak: float, replicas: int) -> None:
    """Without rate limits: what is chosen carries the larger of both, give or take the tolerance."""
    workload = a_workload(replicas=replicas, demand=demand, max_replicas=20_000)

    desired = decide(workload, a_forecast(peak), calm(1), FREE).desired

    assert max(demand, peak) <= desired * 1.1 * (1 + 1e-6)


@given(demand=demands, peak=demands, more=st.floats(0, 1e4), replicas=st.integers(1, 500), past=st.integers(0, 500))
def test_more_usage_never_means_fewer_replicas(
    demand: float, peak: float, more: float, replicas: int, past: int
) -> None:
    """Neither more observed demand nor a higher forecast ever lowers what is decided."""
    memory = calm(past)
    base = decide(a_workload(replicas=replicas, demand=demand), a_forecast(peak), memory).desired

    assert decide(a_workload(replicas=replicas, demand=demand + more), a_forecast(peak), memory).desired >= base
    assert decide(a_workload(replicas=replicas, demand=demand), a_forecast(peak + more), memory).desired >= base
    assert base >= decide(a_workload(replicas=replicas, demand=demand), NOT_FORECAST, memory).desired


@given(demand=demands, peak=demands, replicas=st.integers(1, 500), past=st.integers(0, 500))
def test_a_plan_applied_twice_changes_nothing_the_second_time(
    demand: float, peak: float, replicas: int, past: int
) -> None:
    """Deciding again at once, on the state the first decision made, is a hold."""
    first = decide_replicas(a_workload(replicas=replicas, demand=demand), a_forecast(peak), calm(past), RULES, NOW)
    desired = first.decision.desired
    memory = remembered_scale(first.memory, desired - replicas, RULES.behaviour, NOW)

    second = decide(a_workload(replicas=desired, demand=demand), a_forecast(peak), memory)

    assert isinstance(second.outcome, Hold)
    assert second.desired == desired


@given(demand=st.floats(0, 1e3), peak=st.floats(0, 1e3), replicas=st.integers(1, 50), power=st.integers(-10, 10))
def test_the_unit_of_demand_does_not_matter(demand: float, peak: float, replicas: int, power: int) -> None:
    """Demand, forecast and capacity times k: the same replicas. (Powers of two, so that nothing is rounded.)"""
    k = 2.0**power
    assume(demand == 0 or demand * k > 1e-300)

    scaled = decide(a_workload(replicas=replicas, demand=demand * k, capacity=k), a_forecast(peak * k), calm(1))

    assert scaled.desired == decide(a_workload(replicas=replicas, demand=demand), a_forecast(peak), calm(1)).desired


def test_a_lower_rung_is_carried_into_the_decision() -> None:
    """A reader sees that a simpler forecaster served."""
    assert decide(a_workload(), a_forecast(9.0, rung=Rung.PREVIOUS)).rung is Rung.PREVIOUS


def test_without_a_forecast_the_headroom_is_larger() -> None:
    """A replica relied on for half its capacity: 4 cores need 8 replicas reactively, 4 under a forecast of 4."""
    rules = ReplicaRules(reactive_share=0.5)
    workload = a_workload(replicas=4, demand=4.0)

    assert decide(workload, NOT_FORECAST, rules=rules).desired == 8
    assert decide(workload, a_forecast(4.0), rules=rules).desired == 4
    with pytest.raises(ValueError, match="reactive_share"):
        ReplicaRules(reactive_share=0.0)


@pytest.mark.parametrize(("count", "text"), [(0, "0 replicas"), (1, "1 replica"), (2, "2 replicas")])
def test_one_replica_is_one_replica(count: int, text: str) -> None:
    """In every sentence about replicas."""
    assert replicas_text(count) == text
