"""What replicas carry, with and without a curve."""

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cluster.capacity import Capacity, proportional
from autoscaler.cluster.reasons import Hold
from autoscaler.decisions.capacity import as_learned, exceeded_by, queue_capacity, surely_carried
from models.capacity import LearnedCapacity, Refusal

steps = st.lists(st.floats(0.01, 10), min_size=1, max_size=30).map(lambda each: tuple(accumulate(each)))


@given(curve=steps, beyond=st.floats(0.01, 10), demand=st.floats(0, 1_000))
def test_the_fewest_replicas_that_carry_the_demand(curve: tuple[float, ...], beyond: float, demand: float) -> None:
    """They carry it and one fewer does not, on the curve and beyond its end."""
    capacity = Capacity(beyond, curve)

    n = capacity.replicas_for(demand)

    assert demand <= capacity.demand_at(n) * (1 + 1e-6)
    assert n == 0 or capacity.demand_at(n - 1) < demand


def test_a_share_of_the_capacity_needs_more_replicas() -> None:
    """Relying on half of what each carries doubles them."""
    assert Capacity(2.0).scaled(0.5).replicas_for(10.0) == 10
    assert Capacity(2.0, (1.0, 3.0)).scaled(0.5) == Capacity(1.0, (0.5, 1.5))


def test_a_queue_carries_more_each_the_more_replicas_there_are() -> None:
    """Ten requests a second each, 99 % within 0.6 s: one replica carries a fifth, forty carry most of it."""
    capacity = queue_capacity(10.0, 1, 0.6, 0.99, 40)

    assert capacity is not None
    assert capacity.demand_at(1) == pytest.approx(10 - 4.60517 / 0.6, rel=1e-5)
    each = [capacity.demand_at(n) / n for n in (1, 4, 40)]
    assert each == sorted(each)
    assert each[-1] > 9
    assert capacity.demand_at(41) - capacity.demand_at(40) == pytest.approx(10.0)


def test_a_threshold_that_service_alone_exceeds_has_no_capacity() -> None:
    """Mean service of 1 s, 99 % within 2 s: however few the requests, too many take longer."""
    assert queue_capacity(1.0, 1, 2.0, 0.99, 10) is None


@pytest.mark.parametrize("amount", [0.0, -1.0, float("nan"), float("inf")])
def test_no_amount_is_no_capacity(amount: float) -> None:
    """A reason, not an error: it comes from an object in the cluster."""
    assert isinstance(proportional(amount), Hold)


def test_a_falling_curve_is_refused() -> None:
    """More replicas never carry less."""
    with pytest.raises(ValueError, match="carry less"):
        Capacity(1.0, (2.0, 1.0))


def test_what_was_learned_is_a_capacity_and_its_lower_end_a_smaller_one() -> None:
    """Two replicas carry 5, surely 4; a third adds half of that."""
    learned = LearnedCapacity(np.array([2.0, 5.0]), np.array([1.0, 4.0]), np.array([3.0, 6.0]), True, 1, 3.0, 1.0, 1.0)

    assert as_learned(learned) == Capacity(2.5, (2.0, 5.0))
    assert surely_carried(learned) == Capacity(2.0, (1.0, 4.0))


def test_what_cannot_be_learned_is_held_with_its_reason() -> None:
    """The model's refusal, in the words of a decision."""
    for hold in (as_learned(Refusal("load never varies")), surely_carried(Refusal("load never varies"))):
        assert isinstance(hold, Hold)
        assert "load never varies" in hold.reason.message


@given(
    st.floats(0.0, 60.0),
    st.floats(0.1, 5.0),
    st.lists(st.floats(0.1, 3.0), max_size=6),
    st.integers(0, 4),
    st.integers(4, 40),
)
def test_what_readiness_must_exceed_is_what_one_replica_fewer_carries(
    demand: float, each: float, more: list[float], fewest: int, most: int
) -> None:
    """By the curve and beyond it, within the bounds; as the replicas for it are worked out one by one."""
    capacity = Capacity(each, tuple(np.cumsum(more).tolist()))
    needed = min(capacity.replicas_for(demand), most)

    made = exceeded_by(np.array([demand, np.nan]), capacity, fewest, most)

    assert made[0] == pytest.approx(capacity.demand_at(needed - 1) if needed > fewest else 0.0)
    assert np.isnan(made[1])
