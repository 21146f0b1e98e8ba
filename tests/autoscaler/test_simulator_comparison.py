"""Policies at equal violations: one comparison worked by hand, and what is true of every front."""

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.simulator.comparison import Comparison, Point, Trial, compared, cost_at, pareto_front
from autoscaler.simulator.elasticity import PERFECT
from autoscaler.simulator.outcome import ReplayError, ReplicaSeries, WorkloadOutcome

NO_SERIES = ReplicaSeries(*[np.empty(0)] * 4)


def an_outcome(workload: str, core_hours: float, violation_share: float) -> WorkloadOutcome:
    """Of a thousand minutes."""
    minutes = 1000 * violation_share
    return WorkloadOutcome("", workload, 1000, minutes, 1, 0, core_hours, core_hours, 0, 1000 / 60, PERFECT, NO_SERIES)


def a_trial(policy: str, knob: float, *outcomes: tuple[float, float]) -> Trial:
    """Core-hours and violation share in each of the workloads a, b, …"""
    return Trial(policy, knob, tuple(an_outcome("abcdef"[i], *each) for i, each in enumerate(outcomes)))


def by_hand() -> Comparison:
    """Two workloads; the oracle costs 100 in both.

    hpa      a: 140 at 2 %, 200 at 0 %, so 170 at 1 %.   b: 150 at 0.5 %, which is enough at 1 %, and 160 at 0.4 %.
    keda     a: 190 at 1 %.                              b: never below 3 %.
    ours     a: 120 at 1 %.                              b: 160 at 1 %, and dearer and worse at the other setting.
    """
    return compared(
        [
            a_trial("hpa", 0.8, (140, 0.02), (150, 0.005)),
            a_trial("hpa", 0.5, (200, 0.0), (160, 0.004)),
            a_trial("keda", 0.5, (190, 0.01), (90, 0.03)),
            a_trial("ours", 0.99, (120, 0.01), (160, 0.01)),
            a_trial("ours", 0.9, (130, 0.02), (170, 0.02)),
        ],
        [an_outcome("a", 100, 0), an_outcome("b", 100, 0)],
        reactive={"hpa", "keda"},
        rng=np.random.default_rng(1),
        violation_shares=(0.01, 0.0),
    )


def test_a_comparison_is_as_worked_by_hand() -> None:
    """At 1 %: the best peer is the HPA in both, 170 and 150; ours closes 50 of 70 and loses 10 of 50."""
    made = by_hand()
    ours, hpa, keda = (made.of(name).at[0] for name in ("ours", "hpa", "keda"))
    a, b = (each for each in made.workloads if each.violation_share == 0.01)

    assert (a.best_peer, b.best_peer) == ("hpa", "hpa")
    assert dict(a.core_hours) == {"hpa": pytest.approx(170), "keda": 190, "ours": 120}
    assert dict(b.core_hours) == {"hpa": 150, "keda": None, "ours": 160}
    assert a.gap_closed["ours"] == pytest.approx(50 / 70)
    assert b.gap_closed["ours"] == pytest.approx(-10 / 50)
    assert (ours.reached, keda.reached) == (2, 1)
    assert ours.over_oracle.value == pytest.approx((1.2 * 1.6) ** 0.5)
    assert ours.over_peer.value == pytest.approx((120 / 170 * 160 / 150) ** 0.5)
    assert ours.median_over_oracle.value == pytest.approx(1.4)
    assert ours.gap_closed.value == pytest.approx((50 / 70 - 10 / 50) / 2)
    assert ours.gap_closed.low <= ours.gap_closed.value <= ours.gap_closed.high
    assert hpa.gap_closed.value == pytest.approx(0)
    assert [each.workload for each in made.lost_first("ours", 0.01)] == ["b", "a"]
    # All workloads together, one setting for both: 290 at 1.25 %, 360 at 0.2 %.
    assert hpa.fleet_core_hours == pytest.approx(290 + 70 * 0.25 / 1.05)


def test_a_share_that_no_setting_reaches_has_no_cost() -> None:
    """At no violation at all only the HPA reaches workload a, and nobody b: none is made up beyond the settings."""
    made = by_hand()
    a, b = (each for each in made.workloads if each.violation_share == 0.0)
    ours = made.of("ours").at[1]

    assert (a.core_hours["hpa"], a.core_hours["ours"], a.gap_closed["ours"]) == (200, None, None)
    assert b.best_peer is None
    assert (ours.reached, ours.fleet_core_hours) == (0, None)
    assert isnan(ours.over_oracle.value)


def test_trials_of_other_workloads_are_refused() -> None:
    """Rows that do not belong together are not compared."""
    with pytest.raises(ReplayError, match=r"hpa at 0\.5: its workloads are not those"):
        compared([a_trial("hpa", 0.5, (1, 0))], [an_outcome("b", 1, 0)], reactive=(), rng=np.random.default_rng(1))


points = st.lists(st.builds(Point, st.none(), st.floats(1, 100), st.floats(0, 0.1)), min_size=1, max_size=12)


@given(points)
def test_a_front_is_beaten_by_no_point_and_no_point_is_missing(given_points: list[Point]) -> None:
    """Each point is on the front, or one on the front is as good in both."""
    front = pareto_front(given_points)

    for point in given_points:
        assert any(
            each.core_hours <= point.core_hours and each.violation_share <= point.violation_share for each in front
        )
    for one in front:
        assert not any(
            other.core_hours <= one.core_hours and other.violation_share < one.violation_share for other in front
        )


@given(points, st.floats(0, 0.1), st.floats(0, 0.1))
def test_who_may_violate_more_never_pays_more(given_points: list[Point], one: float, other: float) -> None:
    """And nobody pays less than the cheapest or more than the dearest setting."""
    front = pareto_front(given_points)
    strict, lenient = cost_at(front, min(one, other)), cost_at(front, max(one, other))

    if strict is not None:
        assert lenient is not None
        assert front[0].core_hours - 1e-9 <= lenient <= strict + 1e-9 <= front[-1].core_hours + 2e-9
    assert (strict is None) == all(each.violation_share > min(one, other) for each in given_points)
    for point in front:
        assert cost_at(front, point.violation_share) == pytest.approx(point.core_hours)


@given(points, points)
def test_more_settings_never_cost_more(some: list[Point], more: list[Point]) -> None:
    """At a violation share that a setting has; between settings a new one may bend the front outwards."""
    front = pareto_front(some)
    for point in front:
        both = cost_at(pareto_front(some + more), point.violation_share)
        assert both is not None
        assert both <= point.core_hours + 1e-9
