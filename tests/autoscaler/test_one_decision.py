"""The controller and the replay decide by one function: what one did with what it saw, the other does too."""

from itertools import pairwise

import numpy as np
import pytest

from autoscaler.cluster.commands import Decision
from autoscaler.cluster.snapshot import DemandForecast, ObservedDemand
from autoscaler.controller.autoscalers import NO_RULES
from autoscaler.controller.policy import rules_of
from autoscaler.controller.records import DecisionRecord
from autoscaler.decisions.budget import BudgetRules
from autoscaler.settings import ScalingSettings
from autoscaler.simulator.outcome import ReplaySettings, ReplayWorkload
from autoscaler.simulator.policies import ForesizePolicy, Tick
from predictor.serving.forecasts import ServedForecast
from predictor.usage.panel import Resource, SeriesKey
from tests.support.scaling import CART, NOON_SECONDS, ScalingParts, noon_rush
from tests.support.serving import STEP_SECONDS, ManualClock

STEPS = 60
"""Five hours, from before the rush until after it."""


def controlled(parts: ScalingParts) -> list[Decision]:
    """What a controller decides, one cycle at the beginning of each step, as it carries everything out."""
    controller = parts.controller()
    decisions = []
    for step in range(STEPS):
        parts.clock.now = float(NOON_SECONDS + step * STEP_SECONDS)
        (record,) = controller.cycle().records
        decisions.append(record.plan.decision)
    return decisions


@pytest.mark.parametrize("bursts", [False, True])
def test_one_decision_log_replayed_through_both_is_identical(bursts: bool) -> None:
    """Replicas, every reason and the rung: the log of a controller's five hours, fed to the replay's policy."""
    usage = noon_rush(2.0, 5.6)
    if bursts:
        usage = usage * np.random.default_rng(3).choice([1.0, 1.0, 1.0, 1.9], usage.size)
    parts = ScalingParts(usage_by_workload={CART: usage}, clock=ManualClock(float(NOON_SECONDS)))

    log = controlled(parts)

    scaling = parts.settings
    peaks = [each.forecast.value for each in log if isinstance(each.forecast, DemandForecast)]
    assert len(peaks) == STEPS
    policy = ForesizePolicy(
        peaks=np.array([peaks]),
        level=scaling.sla_percentile / 100,
        lead_seconds=scaling.lead_time.total_seconds(),
        rules=rules_of(NO_RULES, NO_RULES, scaling),
    )
    run = policy.start(0, _workload(scaling), ReplaySettings(step_seconds=STEP_SECONDS))
    replayed = []
    for step, each in enumerate(log):
        assert run.replicas(_seen(step, each)) == each.desired
        assert run.decision is not None
        replayed.append(run.decision)

    assert [_said(each) for each in replayed] == [_said(each) for each in log]
    assert len({_said(each) for each in log}) > 3
    assert all(after.current == before.desired for before, after in pairwise(log))


def test_a_controller_that_tightens_is_replayed_to_the_replica() -> None:
    """The same with pods that never turn Ready in time: fed its violations, the replay moves the level as it did."""
    usage = noon_rush(2.0, 5.6) * np.random.default_rng(3).choice([1.0, 1.0, 1.3], 9 * 288)
    # Looked at once a step: what was Ready within it is known all the same.
    settings = ScalingSettings.model_validate({"interval": "5m", "learned_margins": False})
    parts = ScalingParts(usage_by_workload={CART: usage}, settings=settings, clock=ManualClock(float(NOON_SECONDS)))
    rules = BudgetRules(settings.sla_percentile / 100)
    controller = parts.controller()
    log: list[DecisionRecord] = []
    peaks: dict[float, list[float]] = {rung: [] for rung in rules.rungs}
    for step in range(STEPS):
        now = parts.clock.now = float(NOON_SECONDS + step * STEP_SECONDS)
        report = controller.cycle()
        log += report.records
        assert report.forecasts is not None
        served = report.forecasts.of(SeriesKey(CART, Resource.CPU))
        assert isinstance(served, ServedForecast)
        for rung, found in peaks.items():
            found.append(served.peak(rung, now + settings.lead_time.total_seconds()))
    standings = [each.plan.standing for each in log]
    assert all(each is not None for each in standings)
    budgets = [each.budget for each in standings if each is not None]
    spent = np.diff([0.0, *(each.memory.spent_seconds for each in budgets)])

    policy = ForesizePolicy(
        peaks=np.array([peaks[rules.level]]),
        level=rules.level,
        lead_seconds=settings.lead_time.total_seconds(),
        rules=rules_of(NO_RULES, NO_RULES, settings),
        budget=rules,
        rungs={rung: np.array([found]) for rung, found in peaks.items()},
    )
    run = policy.start(0, _workload(settings), ReplaySettings(step_seconds=STEP_SECONDS))
    replayed = []
    for step, record in enumerate(log):
        tick = _seen(step, record.plan.decision)
        tick.violated, tick.violated_until_seconds = float(spent[step] > 0), step * STEP_SECONDS
        replayed.append(run.replicas(tick))

    assert replayed == [each.plan.decision.desired for each in log]
    assert len({each.level for each in budgets}) > 2
    assert len(set(replayed)) > 2


def _said(decision: Decision) -> tuple[object, ...]:
    """What was decided and why; in words that differ with the time alone, it says the same."""
    reasons = tuple(each.code for each in decision.reasons)
    return decision.current, decision.desired, type(decision.outcome), decision.reason.code, reasons, decision.rung


def _workload(scaling: ScalingSettings) -> ReplayWorkload:
    return ReplayWorkload(
        name=CART,
        request_per_replica=1.0,
        cores_per_replica=1.0,
        target_utilisation=scaling.target_utilisation,
        min_replicas=1,
        max_replicas=20,
    )


def _seen(step: int, decision: Decision) -> Tick:
    """What the decision was made from, as a replay shows it; its time begins with the log."""
    assert isinstance(decision.observed, ObservedDemand)
    return Tick(
        now_seconds=float(step * STEP_SECONDS),
        step=step,
        replicas=decision.current,
        ready=decision.current,
        settled=decision.current,
        usage=decision.observed.value,
        measured_at_seconds=decision.observed.measured_at_seconds - NOON_SECONDS,
    )
