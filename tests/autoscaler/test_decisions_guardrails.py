"""Stabilisation, rate limits and bounds: hand-worked examples, and a slow obvious version as their oracle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cluster.reasons import ReasonCode
from autoscaler.decisions.guardrails import (
    DOWN_DEFAULT,
    HPA_BEHAVIOUR,
    NO_MEMORY,
    UP_DEFAULT,
    Behaviour,
    PolicyKind,
    ReplicaMemory,
    ScaleEvent,
    ScalingPolicy,
    ScalingRules,
    Select,
    down_limit,
    guarded,
    remembered_scale,
    up_limit,
)

WIDE = (0, 10_000)


def pods(value: int, seconds: float) -> ScalingPolicy:
    return ScalingPolicy(PolicyKind.PODS, value, seconds)


def percent(value: int, seconds: float) -> ScalingPolicy:
    return ScalingPolicy(PolicyKind.PERCENT, value, seconds)


@pytest.mark.parametrize(
    ("current", "limit"),
    [(1, 5), (3, 7), (4, 8), (5, 10), (20, 40)],
)
def test_by_default_replicas_may_double_or_grow_by_four_whichever_is_more(current: int, limit: int) -> None:
    """4 pods or 100 % within 15 s; four replicas is where the two meet."""
    assert up_limit(current, (), UP_DEFAULT, 0.0) == limit


def test_what_was_added_within_the_period_counts_against_the_limit() -> None:
    """10 replicas of which 5 came 10 s ago: the period began with 5, so 5 + 4 or 2 × 5 = 10 are allowed, no more."""
    events = (ScaleEvent(90.0, 5),)

    assert up_limit(10, events, UP_DEFAULT, 100.0) == 10
    assert up_limit(10, events, UP_DEFAULT, 105.0) == 20, "at exactly 15 s the event has left the period"


def test_of_several_policies_max_allows_most_and_min_allows_least() -> None:
    """With 10 replicas, 3 pods or 50 % down: to 7 or to 5."""
    policies = (pods(3, 60), percent(50, 60))

    assert down_limit(10, (), ScalingRules(0, policies, Select.MAX), 0.0) == 5
    assert down_limit(10, (), ScalingRules(0, policies, Select.MIN), 0.0) == 7
    assert down_limit(10, (), ScalingRules(0, policies, Select.DISABLED), 0.0) == 10
    assert up_limit(10, (), ScalingRules(0, policies, Select.MAX), 0.0) == 15
    assert up_limit(10, (), ScalingRules(0, policies, Select.MIN), 0.0) == 13
    assert up_limit(10, (), ScalingRules(0, (), Select.DISABLED), 0.0) == 10


def test_every_change_within_the_longest_period_is_remembered() -> None:
    """At most 2 pods within 15 s and 3 within 60 s: 10, 12, 13, then none until the first two are a minute old."""
    behaviour = Behaviour(up=ScalingRules(0, (pods(2, 15), pods(3, 60)), Select.MIN), down=DOWN_DEFAULT)
    memory, current = NO_MEMORY, 10
    replicas = []
    for now in (0.0, 15.0, 30.0, 45.0, 60.0, 75.0):
        result = guarded(current, 100, WIDE, memory, behaviour, now_seconds=now)
        memory = remembered_scale(result.memory, result.replicas - current, behaviour, now)
        current = result.replicas
        replicas.append(current)

    assert replicas == [12, 13, 13, 13, 15, 16]


def test_percentages_round_towards_more_replicas_upwards_and_fewer_downwards() -> None:
    """10 % of 3 replicas: up to 4 (else one could never grow), down to 2."""
    rules = ScalingRules(0, (percent(10, 60),))

    assert up_limit(3, (), rules, 0.0) == 4
    assert down_limit(3, (), rules, 0.0) == 2
    assert up_limit(10, (), rules, 0.0) == 11, "an exact product is not rounded up"


def test_a_scale_in_waits_until_the_highest_recommendation_has_left_the_window() -> None:
    """Recommended 10 at 0 s, 8 at 60 s, 3 from 120 s on: 10 until 300 s, 8 until 360 s, then 3."""
    memory, current = NO_MEMORY, 10
    seen = {}
    for now in range(0, 421, 60):
        recommended = {0: 10, 60: 8}.get(now, 3)
        result = guarded(current, recommended, WIDE, memory, HPA_BEHAVIOUR, now_seconds=float(now))
        memory = remembered_scale(result.memory, result.replicas - current, HPA_BEHAVIOUR, float(now))
        current = seen[now] = result.replicas

    assert seen == {0: 10, 60: 10, 120: 10, 180: 10, 240: 10, 300: 8, 360: 3, 420: 3}


def test_a_scale_out_window_ignores_a_spike_shorter_than_itself() -> None:
    """With a 120 s window one high recommendation adds nothing; two minutes of them do."""
    behaviour = Behaviour(up=ScalingRules(120, (percent(900, 15),)), down=DOWN_DEFAULT)
    memory = NO_MEMORY
    replicas = []
    for minute, recommended in enumerate([2, 9, 2, 9, 9, 9]):
        result = guarded(2, recommended, WIDE, memory, behaviour, now_seconds=60.0 * minute)
        memory = result.memory
        replicas.append(result.replicas)

    assert replicas == [2, 2, 2, 2, 9, 9]


def test_a_controller_that_has_just_started_removes_nothing_for_one_window() -> None:
    """An empty memory takes what is there as the first recommendation."""
    result = guarded(10, 2, WIDE, NO_MEMORY, HPA_BEHAVIOUR, now_seconds=1000.0)

    assert result.replicas == 10
    assert [r.code for r in result.reasons] == [ReasonCode.SCALE_DOWN_STABILIZED]
    assert guarded(10, 2, WIDE, result.memory, HPA_BEHAVIOUR, now_seconds=1300.0).replicas == 2


def test_the_bounds_hold_against_rate_limits() -> None:
    """A minimum above what the policies allow is a wish of the user's, and is met at once."""
    result = guarded(1, 50, (30, 40), NO_MEMORY, HPA_BEHAVIOUR, now_seconds=0.0)

    assert result.replicas == 30
    assert [r.code for r in result.reasons] == [ReasonCode.SCALE_UP_LIMIT, ReasonCode.TOO_FEW_REPLICAS]


@st.composite
def behaviours(draw: st.DrawFn) -> Behaviour:
    policies = st.lists(
        st.builds(ScalingPolicy, st.sampled_from(PolicyKind), st.integers(1, 100), st.sampled_from([15.0, 30.0, 60.0])),
        min_size=1,
        max_size=2,
    ).map(tuple)
    rules = st.builds(ScalingRules, st.sampled_from([0.0, 30.0, 75.0, 300.0]), policies, st.sampled_from(Select))
    return Behaviour(draw(rules), draw(rules))


@given(
    behaviour=behaviours(),
    recommendations=st.lists(st.integers(0, 30), min_size=1, max_size=40),
    start=st.integers(0, 30),
    tick=st.sampled_from([10, 15, 30]),
)
def test_the_short_memory_decides_as_if_it_remembered_everything(
    behaviour: Behaviour, recommendations: list[int], start: int, tick: int
) -> None:
    """Against a slow version that scans every recommendation ever made, as the HPA does."""
    memory, current = NO_MEMORY, start
    past = [(0.0, start)]
    for number, recommended in enumerate(recommendations):
        now = float(number * tick)
        result = guarded(current, recommended, WIDE, memory, behaviour, now_seconds=now)

        highest = max([recommended, *(n for at, n in past if at > now - behaviour.down.stabilisation_seconds)])
        lowest = min([recommended, *(n for at, n in past if at > now - behaviour.up.stabilisation_seconds)])
        expected = min(max(current, lowest), highest)
        if expected > current:
            expected = min(expected, max(current, up_limit(current, memory.events, behaviour.up, now)))
        elif expected < current:
            expected = max(expected, min(current, down_limit(current, memory.events, behaviour.down, now)), 0)
        assert result.replicas == expected

        past.append((now, recommended))
        memory = result.memory
        if result.replicas != current:
            memory = remembered_scale(memory, result.replicas - current, behaviour, now)
        current = result.replicas


@given(
    behaviour=behaviours(),
    current=st.integers(0, 50),
    recommended=st.integers(0, 200),
    events=st.lists(st.tuples(st.floats(-100, 0), st.integers(-20, 20)), max_size=4),
    bounds=st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (pair[0], pair[0] + pair[1])),
)
def test_no_step_goes_beyond_the_guardrails(
    behaviour: Behaviour,
    current: int,
    recommended: int,
    events: list[tuple[float, int]],
    bounds: tuple[int, int],
) -> None:
    """Whatever was recommended: within the bounds, and inside the bounds within the rate limits."""
    memory = ReplicaMemory(events=tuple(ScaleEvent(*event) for event in sorted(events)))

    result = guarded(current, recommended, bounds, memory, behaviour, now_seconds=0.0).replicas

    assert bounds[0] <= result <= bounds[1]
    if result > current and result > bounds[0]:
        assert result <= up_limit(current, memory.events, behaviour.up, 0.0)
    if result < current and result < bounds[1]:
        assert result >= down_limit(current, memory.events, behaviour.down, 0.0)


def test_the_memory_stays_short_however_long_a_demand_falls() -> None:
    """Only what can still decide is kept: at most one recommendation per level within the window."""
    memory = NO_MEMORY
    for number in range(1000):
        memory = guarded(5, 5 + number % 3, WIDE, memory, HPA_BEHAVIOUR, now_seconds=15.0 * number).memory
        memory = remembered_scale(memory, 1, HPA_BEHAVIOUR, 15.0 * number)

    assert len(memory.highs) <= 3
    assert len(memory.lows) == 0
    assert len(memory.events) == 1
