"""What a decision relies on of a learned capacity: the low end, within what has been seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decisions.capacity_curve import (
    CURVE_REPLICAS,
    MOST_KNOTS,
    Knot,
    ReplicaRange,
    estimate,
    fewest_kept,
    held_between,
    knots_of,
    knots_of_usage,
    narrowed,
    of_other_version,
    relied_on,
    seen_range,
)
from models.capacity import LearnedCapacity, LearnedUsage
from models.queueing import largest_loads


def a_learned(most: int, share: float = 0.9) -> LearnedCapacity:
    """A shared queue of replicas that are done with 10 requests a second each, known to a tenth."""
    carried = 10.0 * largest_loads(np.arange(1.0, most + 1), 10.0, 0.99)
    return LearnedCapacity(carried, share * carried, 1.1 * carried, True, 1, 10.0, 1.0, 1.0)


def test_the_low_end_is_relied_on_and_never_more_than_it() -> None:
    """At knots exactly; between them a little less, as what one carries rises less and less."""
    learned = a_learned(60)
    knots = knots_of(learned, ReplicaRange(4, 60))

    assert knots is not None
    assert len(knots) <= MOST_KNOTS
    made = np.array([relied_on(knots).demand_at(n) for n in range(4, 61)])
    assert (made <= learned.low[3:] * (1 + 1e-5)).all()
    assert (made >= learned.low[3:] * 0.99).all()
    assert made[0] == pytest.approx(learned.low[3], rel=1e-5)


def test_beyond_what_was_seen_replicas_carry_no_more_each() -> None:
    """A shared queue would; nobody has seen it."""
    knots = knots_of(a_learned(8), ReplicaRange(2, 8))

    assert knots is not None
    capacity = relied_on(knots)
    assert capacity.demand_at(16) == pytest.approx(2 * capacity.demand_at(8))
    assert capacity.demand_at(1) == pytest.approx(capacity.demand_at(2) / 2)


def test_few_replicas_are_kept_that_have_been_seen() -> None:
    """Of few all, of many four fifths: that many more are seen with time."""
    kept = [fewest_kept((Knot(fewest, 1.0, 1.0, 1.0),)) for fewest in (1, 2, 4, 5, 10, 100)]

    assert kept == [1, 2, 4, 4, 8, 80]


def test_what_was_seen_leaves_out_a_few_intervals_and_what_is_not_known() -> None:
    """Four intervals with a single replica, as in a restart, do not count; NaN never does."""
    replicas = np.array([1.0] * 4 + [3.0] * 5 + [7.0] * 20 + [np.nan] * 9 + [0.0] * 9 + [9.0])

    assert seen_range(replicas) == ReplicaRange(3, 7)
    assert seen_range(np.array([3.0] * 4 + [np.nan])) is None
    assert seen_range(np.full(5, 5000.0)) == ReplicaRange(5000, CURVE_REPLICAS)


def test_replicas_that_may_carry_nothing_are_no_capacity() -> None:
    """A low end of 0 is no answer."""
    nothing = LearnedCapacity(np.ones(3), np.zeros(3), np.ones(3), True, 1, 1.0, 1.0, 1.0)

    assert knots_of(nothing, ReplicaRange(1, 3)) is None


def test_replicas_with_a_limit_each_carry_in_proportion() -> None:
    """What one may use, times their number; a low end of nothing is no answer."""
    knots = knots_of_usage(LearnedUsage(0.64, 0.6, 0.67))

    assert knots is not None
    assert [relied_on(knots).demand_at(n) for n in (1, 2, 50)] == pytest.approx([0.6, 1.2, 30.0])
    assert fewest_kept(knots) == 1
    assert knots_of_usage(LearnedUsage(0.64, 0.0, 0.67)) is None


@pytest.mark.parametrize(("low", "relied"), [(0.1, 0.3), (0.6, 0.6), (1.5, 1.0)])
def test_each_replica_carries_no_less_and_no_more_than_is_allowed(low: float, relied: float) -> None:
    """Whatever was learned, for one replica as for many."""
    one, four = held_between((Knot(1, low, low * 1.1, low * 1.2), Knot(4, 4 * low, 5 * low, 6 * low)), 0.3, 1.0)

    assert (one.low, four.low) == pytest.approx((relied, 4 * relied))
    assert one.low <= one.likeliest <= one.high <= 1.0


def test_another_version_may_carry_a_quarter_less() -> None:
    """15 % standard deviation beside ln(1.1) / 1.96 = 0.0486, so 0.1577: 110 e^(-1.96 x 0.1577) = 80.76."""
    knots = of_other_version((Knot(2, 100.0, 110.0, 120.0), Knot(3, 0.0, 50.0, 60.0)))

    assert knots[0] == pytest.approx(Knot(2, 80.76, 110.0, 149.8), rel=1e-3)
    assert knots[1].low == 0.0
    assert [each.low for each in narrowed(knots, 1.0)] == pytest.approx([100.0, 0.0], rel=1e-4)
    assert narrowed(knots, 0.0) == knots


def test_the_estimate_of_some_replicas_lies_between_the_knots() -> None:
    """By what one replica carries: 10 of 2 and 13 of 4 are 11.5 of 3."""
    knots = (Knot(2, 20.0, 22.0, 24.0), Knot(4, 52.0, 60.0, 64.0))

    assert estimate(knots, 3) == pytest.approx(Knot(3, 34.5, 39.0, 42.0))
    assert estimate(knots, 8) == pytest.approx(Knot(8, 104.0, 120.0, 128.0))


@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0.1, 50.0)), min_size=1, max_size=12))
def test_more_replicas_never_carry_less(steps: list[tuple[int, float]]) -> None:
    """Whatever the knots are, as long as these rise."""
    replicas = np.cumsum([each for each, _ in steps])
    carried = np.cumsum([more for _, more in steps])
    knots = tuple(Knot(int(n), low, low, low) for n, low in zip(replicas.tolist(), carried.tolist(), strict=True))

    capacity = relied_on(knots)

    curve = [capacity.demand_at(n) for n in range(1, int(replicas[-1]) + 20)]
    assert curve == sorted(curve)
    for knot in knots:
        assert capacity.demand_at(knot.replicas) == pytest.approx(knot.low)
