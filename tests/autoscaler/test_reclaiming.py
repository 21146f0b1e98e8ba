"""What of a node may be sold a second time, and when no more is: from its pods' peak, never without evidence."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cluster.containers import Amounts
from autoscaler.cluster.nodes import NodePod
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.decisions.node_guard import UNGUARDED, Guard, GuardDecision, NodeUse, guarded, in_order_of_eviction
from autoscaler.decisions.reclaiming import (
    CHANGE_SECONDS,
    NodeTasks,
    Shelf,
    ToldPeak,
    in_hindsight,
    offer,
    oversubscription_rate,
    reclaimable,
    told_peaks,
)
from models.forecast import FloatArray
from predictor.usage.panel import Resource

HORIZON = 24
NOW = 1_800_000_000.0
UNKNOWN = Hold(Reason(ReasonCode.NO_EVIDENCE, "too little is known"))


def days(peaks: list[float]) -> FloatArray:
    """One task that idles at 1 and peaks once a day."""
    usage = np.ones((len(peaks), HORIZON))
    usage[:, 12] = peaks
    return usage.reshape(1, -1)


def told(peaks: list[float], probability: float = 0.1) -> ToldPeak | Hold:
    node = NodeTasks(days(peaks), np.array([np.nan]), np.array([np.nan]))
    return told_peaks([node], violation_probability=probability, horizon_steps=HORIZON)[0]


def a_shelf(peak: float | Hold, **more: float | Hold) -> Shelf:
    """A node of 16 cores of which 10 are requested."""
    known = peak if isinstance(peak, Hold) else ToldPeak(peak, 0.01, 28, 0)
    given = {"resource": Resource.CPU, "allocatable": 16.0, "requested": 10.0, "newcomers": 0.0, "sold": 0.0} | more
    return Shelf(peak=known, **given)  # type: ignore[arg-type]


def test_days_that_never_exceed_what_was_told_are_asked_for_the_stated_probability_or_a_higher_one() -> None:
    """28 days alike: a peak at the highest, and the probability asked for has risen above the one stated."""
    peak = told([6.0] * 28)

    assert isinstance(peak, ToldPeak)
    assert peak.value == pytest.approx(6.0, rel=0.05)
    assert peak.asked_probability > 0.1
    assert peak.past_horizons == 28


def test_days_that_exceeded_what_was_told_make_it_more_cautious() -> None:
    """Usage that grows day by day exceeds every peak told before it, so a rarer peak is asked for."""
    growing = told([1.0 + day / 4 for day in range(28)])

    assert isinstance(growing, ToldPeak)
    assert growing.asked_probability < 0.1


@given(st.integers(0, 6))
def test_little_history_tells_no_peak(count: int) -> None:
    assert isinstance(told([6.0] * count), Hold)


def test_what_is_left_of_the_usable_capacity_may_be_sold() -> None:
    """0.9 · 16 − 5 = 9.4 cores, of which the rate 1.2 allows 1.2 · 16 − 10 = 9.2."""
    uncapped = reclaimable(a_shelf(5.0), usable_share=0.9, max_rate=2.0)
    capped = reclaimable(a_shelf(5.0), usable_share=0.9, max_rate=1.2)

    assert uncapped.amount == pytest.approx(9.4)
    assert uncapped.reason.code is ReasonCode.PREDICTED_PEAK
    assert capped.amount == pytest.approx(9.2)
    assert capped.reason.code is ReasonCode.MAX_RATIO


def test_where_violations_overdraw_the_budget_less_of_what_is_left_is_sold() -> None:
    """Half of 0.9 · 16 − 5 cores, with the reason; a rate that allows less decides as ever."""
    cautious = reclaimable(a_shelf(5.0), usable_share=0.9, max_rate=2.0, sold_share=0.5)

    assert cautious.amount == pytest.approx(4.7)
    assert cautious.reason.code is ReasonCode.BUDGET_OVERDRAWN
    assert "50% of what is left is sold" in cautious.reason.message
    capped = reclaimable(a_shelf(5.0), usable_share=0.9, max_rate=0.8, sold_share=0.5)
    assert capped.reason.code is ReasonCode.MAX_RATIO


def test_in_hindsight_the_last_horizons_own_peak_decides() -> None:
    """Nine days that peak at 9 and one at 3: 0.9 · 16 − 3 cores would have been left on the last."""
    peak = told([9.0] * 9 + [3.0])
    assert isinstance(peak, ToldPeak)
    shelf = replace(a_shelf(5.0), peak=peak)

    assert in_hindsight(shelf, usable_share=0.9, max_rate=2.0) == pytest.approx(11.4)
    assert reclaimable(shelf, usable_share=0.9, max_rate=2.0).amount < 6
    assert in_hindsight(a_shelf(UNKNOWN), usable_share=0.9, max_rate=2.0) is None
    assert in_hindsight(a_shelf(5.0), usable_share=0.9, max_rate=2.0) is None


@pytest.mark.parametrize(
    ("shelf", "code"),
    [
        (a_shelf(UNKNOWN), ReasonCode.NO_EVIDENCE),
        (a_shelf(5.0, newcomers=UNKNOWN), ReasonCode.NO_EVIDENCE),
        (a_shelf(14.5), ReasonCode.PEAK_ABOVE_USABLE),
        (a_shelf(5.0, newcomers=10.0), ReasonCode.PEAK_ABOVE_USABLE),
    ],
)
def test_nothing_is_sold_without_evidence_or_room(shelf: Shelf, code: ReasonCode) -> None:
    """What came since the peak was told counts in full."""
    decision = reclaimable(shelf, usable_share=0.9, max_rate=2.0)

    assert decision.amount == 0.0
    assert decision.reason.code is code


@given(
    peak=st.floats(0, 50),
    requested=st.floats(0, 40),
    newcomers=st.floats(0, 10),
    share=st.floats(0.1, 1.0),
    rate=st.floats(1.0, 3.0),
)
def test_no_node_is_sold_beyond_its_usable_capacity_or_its_rate(
    peak: float, requested: float, newcomers: float, share: float, rate: float
) -> None:
    """However the inputs fall."""
    shelf = a_shelf(peak, requested=requested, newcomers=newcomers)

    amount = reclaimable(shelf, usable_share=share, max_rate=rate).amount

    assert amount >= 0
    assert amount == 0 or amount + peak + newcomers <= share * 16.0 + 1e-9
    assert amount == 0 or oversubscription_rate(requested, amount, 16.0) <= rate + 1e-9


def test_a_rate_of_one_is_none_also_where_what_nobody_requests_is_sold() -> None:
    assert oversubscription_rate(4.0, 8.0, 16.0) == 1.0
    assert oversubscription_rate(10.0, 9.2, 16.0) == pytest.approx(1.2)
    assert oversubscription_rate(0.0, 0.0, 0.0) == 1.0


def offered(allowed: float, **more: float | bool | None) -> float | None:
    given: dict[str, float | bool | None] = {"sold": 0, "offered": None, "is_held": False, "since_change_seconds": 1e9}
    return offer(allowed, **(given | more))  # type: ignore[arg-type]


def test_a_node_offers_what_may_be_sold_and_never_less_than_was() -> None:
    assert offered(9000) == 9000
    assert offered(9000, offered=9000) is None
    assert offered(3000, offered=9000, sold=4000) == 4000
    assert offered(9000, offered=9000, sold=4000, is_held=True) == 4000
    assert offered(9000, sold=0, is_held=True) is None


def test_small_rises_wait_and_neither_less_nor_a_hold_does() -> None:
    """A tenth of what is offered, or five minutes; what may not be sold any more is taken back at once."""
    soon = {"offered": 9000, "since_change_seconds": 10.0}

    assert offered(9500, **soon) is None
    assert offered(9500, offered=9000, since_change_seconds=CHANGE_SECONDS) == 9500
    assert offered(12_000, **soon) == 12_000
    assert offered(8900, **soon) == 8900
    assert offered(9500, sold=8900, is_held=True, **soon) == 8900


# --- the guard


def use(cores: float, at: float = NOW, *, pressure: bool = False, window: float = 0.0) -> NodeUse:
    """A node of which 14 cores are usable, measured over some time until then."""
    return NodeUse({Resource.CPU: cores}, {Resource.CPU: 14.0}, at - window, at, pressure)


def a_pod(name: str, priority: int = 0, *, age: float = 100.0, evictable: bool = True, cores: float = 1.0) -> NodePod:
    return NodePod(
        "batch",
        name,
        name,
        "n1",
        "batch/Job/sort",
        reclaimed=Amounts(cores or None, None),
        priority=priority,
        created_seconds=NOW - age,
        is_evictable=evictable,
    )


PODS = (a_pod("dear", 10), a_pod("old", 0, age=500.0), a_pod("young", 0, age=5.0), a_pod("kept", -5, evictable=False))
COSTS = {each.uid: {Resource.CPU: 1.0} for each in PODS}


def decide(guard: Guard, seen: NodeUse, now: float = NOW, release: float = 600.0) -> GuardDecision:
    return guarded(guard, seen, PODS, usage_of_pod=COSTS, release_seconds=release, now_seconds=now)


def test_the_lowest_priority_goes_first_and_of_one_priority_the_youngest() -> None:
    """Nobody who has not opted in, and nobody who runs on ordinary requests."""
    ordinary = a_pod("ordinary", cores=0.0)

    assert [each.name for each in in_order_of_eviction((*PODS, ordinary))] == ["young", "old", "dear"]


def test_of_one_priority_pods_with_state_go_last() -> None:
    """Whatever their age: a volume has to follow them."""
    stateful = a_pod("stateful", 0, age=1.0)._replace(has_state=True)

    assert [each.name for each in in_order_of_eviction((*PODS, stateful))] == ["young", "old", "stateful", "dear"]


def test_selling_stops_first_and_pods_go_only_if_that_was_not_enough() -> None:
    """And no more of them than bring usage under what is usable."""
    stopped = decide(UNGUARDED, use(15.5))
    again = decide(stopped.guard, use(15.5), NOW + 5)
    measured = decide(stopped.guard, use(15.5, NOW + 30), NOW + 30)

    assert stopped.is_intervention
    assert not stopped.evict
    assert stopped.guard.suspended_since_seconds == NOW
    assert not again.evict
    assert [each.name for each in measured.evict] == ["young", "old"]


def test_nobody_goes_before_half_of_what_is_measured_is_newer_than_the_suspension() -> None:
    """However often it is looked: with looks of seconds and scrapes of a minute nothing new is known for a while."""
    guard = Guard(suspended_since_seconds=NOW)

    assert not decide(guard, use(15.5, NOW + 55, window=120.0), NOW + 55).evict
    assert decide(guard, use(15.5, NOW + 65, window=120.0), NOW + 65).evict


def test_nobody_goes_again_before_usage_was_measured_after_the_last() -> None:
    """What was evicted still counts in older samples."""
    guard = Guard(suspended_since_seconds=NOW - 60, evicted_at_seconds=NOW)

    assert not decide(guard, use(15.5, NOW - 10), NOW + 30).evict
    assert not decide(guard, use(15.5, NOW + 30, window=60.0), NOW + 30).evict
    assert decide(guard, use(15.5, NOW + 60, window=60.0), NOW + 60).evict


def test_nobody_goes_for_what_a_pod_used_until_it_had_gone() -> None:
    """It took half a minute to end: the mean of the minute since it was evicted is half of its usage too high."""
    guard = Guard(suspended_since_seconds=NOW - 120)
    young, leaving = PODS[2], PODS[2]._replace(leaves_at_seconds=NOW + 30)
    others = tuple(each for each in PODS if each is not young)

    def looked(guard: Guard, after: float, cores: float, *more: NodePod) -> GuardDecision:
        seen, now = use(cores, NOW + after, window=60.0), NOW + after
        return guarded(guard, seen, (*others, *more), usage_of_pod=COSTS, release_seconds=600.0, now_seconds=now)

    evicted = looked(guard, 0, 14.5, young)
    assert evicted.evict == (young,)
    going = looked(evicted.guard, 25, 14.5, leaving)
    gone = looked(going.guard, 30, 14.5)
    assert not going.evict
    assert not gone.evict

    assert not looked(gone.guard, 65, 14.1).evict
    assert looked(gone.guard, 90, 14.1).evict
    # One that ended before anybody looked again.
    assert not looked(looked(evicted.guard, 5, 14.5).guard, 62, 14.1).evict


def test_pods_that_are_leaving_already_are_not_made_up_for_by_others() -> None:
    """A pod may take its grace period to go, and uses what it did until then."""
    guard = Guard(suspended_since_seconds=NOW - 60)

    def evicted(cores: float, leaves_at: float) -> list[str]:
        pods = [each._replace(leaves_at_seconds=leaves_at if each.name in ("young", "old") else None) for each in PODS]
        decision = guarded(guard, use(cores), pods, usage_of_pod=COSTS, release_seconds=600.0, now_seconds=NOW)
        return [each.name for each in decision.evict]

    assert evicted(15.5, NOW + 30) == []
    assert evicted(16.5, NOW + 30) == ["dear"]
    # An hour of grace is not waited for, nor is one that should have ended long ago.
    assert evicted(15.5, NOW + 3600) == ["dear"]
    assert evicted(15.5, NOW - 3600) == ["dear"]


def test_one_pod_at_a_time_goes_from_a_node_short_of_memory() -> None:
    guard = Guard(suspended_since_seconds=NOW - 60)

    decision = decide(guard, use(2.0, pressure=True))

    assert [each.name for each in decision.evict] == ["young"]
    assert decision.guard.reason is not None
    assert decision.guard.reason.code is ReasonCode.NODE_PRESSURE


def test_a_node_whose_kubelet_evicts_is_no_longer_sold_and_nobody_else_goes_for_that() -> None:
    """Until it has been calm for as long as after anything else; what is used too much beside it still has to go."""
    seen = replace(use(2.0), kubelet_evicted="batch/big")
    stopped = decide(UNGUARDED, seen)

    assert stopped.is_intervention
    assert stopped.guard.reason is not None
    assert stopped.guard.reason.code is ReasonCode.KUBELET_EVICTION
    assert "batch/big" in stopped.guard.reason.message
    later = replace(seen, since_seconds=NOW + 30, measured_at_seconds=NOW + 60)
    assert decide(stopped.guard, later, NOW + 60).evict == ()
    assert [
        each.name for each in decide(stopped.guard, replace(later, usage={Resource.CPU: 14.5}), NOW + 60).evict
    ] == ["young"]
    calm = decide(stopped.guard, use(2.0, NOW + 700), NOW + 700)
    assert not calm.has_resumed
    assert decide(calm.guard, use(2.0, NOW + 1300), NOW + 1300).has_resumed


def pressed(cores: float, pressure: float | None, at: float = NOW) -> NodeUse:
    """A node of which 14 cores are usable, and 40 % pressure is allowed."""
    return replace(use(cores, at), cpu_pressure=pressure, allowed_cpu_pressure=0.4)


def test_a_busy_node_whose_tasks_wait_for_cpu_is_no_longer_sold_and_then_pods_go_one_at_a_time() -> None:
    """Though less is used than is usable; a pod that is known to use no CPU stays."""
    stopped = decide(UNGUARDED, pressed(12.0, 0.55))
    costs = {**COSTS, "young": {Resource.CPU: 0.0}}
    measured = guarded(
        stopped.guard,
        pressed(12.0, 0.55, NOW + 30),
        PODS,
        usage_of_pod=costs,
        release_seconds=600.0,
        now_seconds=NOW + 30,
    )

    assert stopped.is_intervention
    assert stopped.guard.reason is not None
    assert stopped.guard.reason.code is ReasonCode.CPU_PRESSURE
    assert stopped.guard.reason.message == "tasks waited for CPU in 55% of the time, 40% is allowed"
    assert [each.name for each in measured.evict] == ["old"]


@pytest.mark.parametrize(
    ("cores", "pressure"),
    [(12.0, 0.4), (11.0, 0.9), (12.0, None)],
    ids=["no more than allowed", "not busy: tasks wait for limits of their own", "not measured"],
)
def test_cpu_pressure_alone_changes_nothing(cores: float, pressure: float | None) -> None:
    assert decide(UNGUARDED, pressed(cores, pressure)) == GuardDecision(UNGUARDED)


def test_cpu_pressure_is_no_matter_of_a_node_that_sells_only_memory() -> None:
    seen = NodeUse({Resource.MEMORY: 13.0}, {Resource.MEMORY: 14.0}, NOW, NOW, False, 0.9, 0.4)

    assert decide(UNGUARDED, seen) == GuardDecision(UNGUARDED)


def test_a_node_under_cpu_pressure_is_calm_once_that_is_well_under_what_is_allowed() -> None:
    guard = Guard(suspended_since_seconds=NOW - 60)

    assert decide(guard, pressed(12.0, 0.39)).guard.calm_since_seconds is None
    assert decide(guard, pressed(12.0, 0.37)).guard.calm_since_seconds == NOW
    assert decide(guard, pressed(11.0, 0.39)).guard.calm_since_seconds == NOW


def test_a_node_is_sold_again_once_it_was_calm_for_long_enough() -> None:
    """Calm is under 95 % of what is usable; a rise in between begins the wait anew."""
    guard = Guard(suspended_since_seconds=NOW - 60)
    calm = decide(guard, use(5.0))
    risen = decide(calm.guard, use(13.8), NOW + 300)

    assert calm.guard.calm_since_seconds == NOW
    assert not calm.has_resumed
    assert risen.guard.calm_since_seconds is None
    assert decide(calm.guard, use(5.0), NOW + 600).has_resumed
    assert decide(calm.guard, use(5.0), NOW + 600).guard == UNGUARDED
    assert not decide(risen.guard, use(5.0), NOW + 600).has_resumed


def test_a_node_below_what_is_usable_is_left_alone() -> None:
    assert decide(UNGUARDED, use(13.9)).guard == UNGUARDED
    assert not decide(replace(UNGUARDED), use(13.9)).is_intervention
