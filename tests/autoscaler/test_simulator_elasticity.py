"""The measures of elasticity, worked by hand, and what they are whatever happened."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.simulator.elasticity import PERFECT, Elasticity, elasticity


def test_shortage_excess_and_movement_are_as_worked_by_hand() -> None:
    """Needed 1, 2, 4, 4, 2; Ready 1, 1, 2, 4, 4.

    Short by 1 of 2 and 2 of 4, so 1 / 5; over by 2 of 2, so 1 / 5. Of the four changes, need rose and supply did not;
    both rose; supply rose and need did not; need fell and supply did not: three apart.
    """
    made = elasticity(np.array([1, 2, 4, 4, 2]), np.array([1, 1, 2, 4, 4]), np.ones(5, dtype=np.bool_))

    assert made == Elasticity(theta_under=0.2, theta_over=0.2, tau_under=0.4, tau_over=0.2, instability=0.75)


def test_what_is_not_known_is_not_judged() -> None:
    """The second tick and the changes into and out of it count for nothing."""
    made = elasticity(np.array([1, 1, 2, 2]), np.array([1, 9, 2, 1]), np.array([True, False, True, True]))

    assert made.theta_under == pytest.approx(0.5 / 3)
    assert made.theta_over == made.tau_over == 0
    assert made.instability == 1
    assert elasticity(np.array([1, 2]), np.array([3, 4]), np.zeros(2, dtype=np.bool_)) == PERFECT


series = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=30)


@given(series)
def test_supply_that_is_what_is_needed_is_perfect_and_nothing_else_is(pairs: list[tuple[int, int]]) -> None:
    """All measures are shares of time or of need; without shortage and excess there is no instability either."""
    needed, ready = (np.array(each) for each in zip(*pairs, strict=True))
    known = np.ones(needed.size, dtype=np.bool_)

    made = elasticity(needed, ready, known)

    assert elasticity(needed, needed, known) == PERFECT
    assert 0 <= made.theta_under <= made.tau_under + 1e-9
    assert made.tau_under + made.tau_over <= 1 + 1e-9
    assert (made == PERFECT) == (needed == ready).all()
