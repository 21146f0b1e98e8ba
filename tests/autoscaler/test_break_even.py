"""Replicas that will be needed again soon are kept, in the controller and the replay alike, and no others."""

from math import nan

import numpy as np
import pytest

from autoscaler.cluster.capacity import Capacity
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.cluster.snapshot import DemandForecast, RemovalLimit
from autoscaler.decisions.break_even import kept_for_later, strictest
from autoscaler.decisions.replicas import ReplicaRules
from autoscaler.settings import ScalingSettings
from autoscaler.simulator.policies import ForesizePolicy
from autoscaler.simulator.replay import replay
from models.forecast import FloatArray
from tests.support.clusters import NOT_FORECAST, a_forecast, a_replay_workload, minute_settings
from tests.support.scaling import CART, DAYS, NOON_SECONDS, ScalingParts, a_target
from tests.support.serving import STEP_SECONDS, ManualClock

LULL_STEPS = 12
BEFORE_STEPS, AFTER_STEPS = 4, 6


def noon_lull(low: float, high: float) -> FloatArray:
    """Usage that falls for an hour at twenty past noon each day, [steps]."""
    step = np.arange(DAYS * 288) % 288
    first = 144 + BEFORE_STEPS
    return np.where((step >= first) & (step < first + LULL_STEPS), low, high)


@pytest.mark.parametrize(("later", "most"), [(6.2, 3), (0.0, 10), (10.0, 0), (25.0, 0)])
def test_so_many_may_go_that_the_rest_carries_what_is_to_come(later: float, most: int) -> None:
    """Of ten replicas of one core each."""
    limit = kept_for_later(10, Capacity(1.0), a_forecast(later))

    assert limit is not None
    assert (limit.most, limit.reason.code) == (most, ReasonCode.BREAK_EVEN)


@pytest.mark.parametrize("later", [None, NOT_FORECAST])
def test_what_is_not_forecast_keeps_nothing(later: DemandForecast | Hold | None) -> None:
    """Scale-in is then as it is without a break-even window."""
    assert kept_for_later(10, Capacity(1.0), later) is None


def test_the_strictest_of_several_limits_holds() -> None:
    """Of equals the first, so that what is said does not flicker."""
    budget, kept = (
        RemovalLimit(most, Reason(code, "by a test"))
        for most, code in ((2, ReasonCode.DISRUPTION_BUDGET), (1, ReasonCode.BREAK_EVEN))
    )

    assert strictest(budget, kept, None) is kept
    assert strictest(budget, budget) is budget
    assert strictest(None, None) is None


@pytest.mark.parametrize(("break_even", "fewest"), [("0s", 3), ("10m", 3), ("2h", 7)])
def test_a_lull_that_is_known_to_end_removes_nothing(break_even: str, fewest: int) -> None:
    """Within two hours it does; ten minutes are the lead time, which changes nothing."""
    settings = ScalingSettings.model_validate({"break_even": break_even, "learned_margins": False})
    parts = ScalingParts(
        usage_by_workload={CART: noon_lull(2.0, 5.6)},
        targets=(a_target(replicas=7),),
        settings=settings,
        clock=ManualClock(float(NOON_SECONDS)),
    )
    controller = parts.controller()
    seen, said = [], set()
    for step in range(BEFORE_STEPS + LULL_STEPS - 2):
        parts.clock.now = float(NOON_SECONDS + step * STEP_SECONDS)
        controller.cycle()
        seen.append(parts.replicas())
        said.add(parts.condition("AbleToScale"))

    assert min(seen) == fewest
    assert (("True", "BreakEven") in said) == (fewest == 7)


@pytest.mark.parametrize(("later", "fewest"), [(None, 2), (3.5, 7), (nan, 2)])
def test_a_replay_keeps_them_too(later: float | None, fewest: int) -> None:
    """Demand falls from 4 to .9 and comes back, half of each replica's core is to be used; NaN is no forecast."""
    demand = np.array([[4.0] * 4 + [0.9] * 20 + [4.0] * 4])
    policy = ForesizePolicy(
        peaks=demand,
        level=0.99,
        lead_seconds=120,
        rules=ReplicaRules(),
        later=None if later is None else np.full(demand.shape, later),
        break_even_seconds=1800,
    )

    outcome = replay(demand, [a_replay_workload()], [policy], minute_settings()).of("foresize")[0]

    assert outcome.series.replicas_mean.min() == fewest
