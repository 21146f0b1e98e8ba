"""The oracle that weighs violations and changes: as good as the best of all that can be done, and the plain oracle."""

from dataclasses import replace
from itertools import product
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.simulator.oracle import oracle_outcome
from autoscaler.simulator.outcome import ReplayError, ReplaySettings, ReplayWorkload, WorkloadOutcome
from autoscaler.simulator.replay import replay
from autoscaler.simulator.switching import SwitchingCosts, switching_outcome
from tests.autoscaler.test_simulator_replay import Scripted
from tests.support.clusters import a_replay_workload, minute_settings


def total_cost(made: WorkloadOutcome, costs: SwitchingCosts) -> float:
    """In replica-hours, of a replay with one tick a step."""
    violations = made.violation_minutes / 60 * costs.violation_hour if made.violation_minutes else 0.0
    return made.replica_hours + violations + costs.change * float(np.abs(np.diff(made.series.replicas_mean)).sum())


@settings(max_examples=40, deadline=None)
@given(
    demand=st.lists(st.sampled_from([0.5, 1.5, 2.5]), min_size=1, max_size=5),
    times=st.lists(st.sampled_from([0.0, 60.0, 120.0]), min_size=1, max_size=3),
    grace=st.sampled_from([0.0, 60.0]),
    violation_hour=st.sampled_from([0.0, 0.7, 1.6, 4.0]),
    change=st.sampled_from([0.0, 0.01, 0.04]),
)
def test_nothing_that_can_be_done_costs_less_with_violations_and_changes(
    demand: list[float], times: list[float], grace: float, violation_hour: float, change: float
) -> None:
    """Every script of up to three replicas on small cases."""
    costs = SwitchingCosts(violation_hour=violation_hour, change=change)
    workload = replace(a_replay_workload(max_replicas=3), pod_ready_seconds=tuple(times))
    minutes = minute_settings(grace_seconds=grace)

    made = switching_outcome(workload, minutes, np.array(demand), costs)

    tried = (
        replay(np.array([demand]), [replace(workload, initial_replicas=script[0])], [Scripted(script, [])], minutes).of(
            "scripted"
        )[0]
        for script in product((1, 2, 3), repeat=len(demand))
    )
    assert total_cost(made, costs) == pytest.approx(min(total_cost(each, costs) for each in tried))


@settings(max_examples=50)
@given(
    demand=st.lists(st.floats(0, 20), min_size=1, max_size=30),
    spread=st.sampled_from([0.0, 0.7]),
    grace=st.sampled_from([0.0, 30.0, 120.0]),
)
def test_where_violations_cost_everything_and_changes_nothing_it_costs_what_the_oracle_does(
    demand: list[float], spread: float, grace: float
) -> None:
    """Two ways to the same bound."""
    many = ReplaySettings(step_seconds=60, pod_ready_seconds=40, pod_ready_spread=spread, grace_seconds=grace)
    workload: ReplayWorkload = a_replay_workload(max_replicas=15)
    plain = oracle_outcome(workload, many, np.array(demand))

    made = switching_outcome(workload, many, np.array(demand), SwitchingCosts(violation_hour=inf, change=0.0))

    assert made.violation_minutes == plain.violation_minutes
    assert made.core_hours == pytest.approx(plain.core_hours)


def test_a_valley_is_crossed_where_changes_are_dear() -> None:
    """Needed 3, 1, 1, 3: two replicas idle for two minutes, or go and come again for four changes."""
    demand = np.array([3.0, 1.0, 1.0, 3.0])
    minutes = minute_settings(pod_ready_seconds=0)

    dear = switching_outcome(a_replay_workload(), minutes, demand, SwitchingCosts(violation_hour=inf, change=1.1 / 60))
    cheap = switching_outcome(a_replay_workload(), minutes, demand, SwitchingCosts(violation_hour=inf, change=0.9 / 60))

    assert dear.series.ready_mean.tolist() == [3, 3, 3, 3]
    assert cheap.series.ready_mean.tolist() == [3, 1, 1, 3]


def test_a_cost_that_is_none_is_refused() -> None:
    """Changes that cost infinity leave nothing to choose."""
    with pytest.raises(ReplayError, match="must cost at least 0"):
        SwitchingCosts(violation_hour=1.0, change=inf)
