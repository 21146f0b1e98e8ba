"""What counts against an error budget: an indicator, or demand against what was Ready. Values in, values out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import isnan
from typing import Any, NamedTuple

from autoscaler.cluster.reasons import Hold
from autoscaler.controller.autoscalers import Indicator, Readiness, as_time
from autoscaler.controller.policy import WorkloadPolicy
from autoscaler.decisions.budget import Budget, BudgetMemory, BudgetRules, StepVerdict, budget_after

LONGEST_GAP_SECONDS = 120.0
"""Replicas that were not looked at for longer are not known to have been Ready in between."""
LONGEST_PAST_SECONDS = 3600.0
"""Steps that ended longer ago are not counted any more: after an outage they are not known."""


class StepValue(NamedTuple):
    """What is known of one step."""

    ended_at_seconds: float
    value: float
    """NaN where nothing is."""


@dataclass(frozen=True, slots=True)
class Readings:
    """What an object's indicator said of the last steps, oldest first."""

    steps: tuple[StepValue, ...] = ()
    problem: str = ""
    """Why there is no answer; empty where there is one."""


NOT_READ = Readings(problem="it has not been asked for yet")


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    """The budget of one workload, and what a reader must know of how it was counted."""

    budget: Budget
    remark: str = ""
    """What is not known; empty where the newest steps are."""

    @property
    def reason(self) -> str:
        """Why this level, and what is not known."""
        return f"{self.budget.reason}; {self.remark}" if self.remark else self.budget.reason


def standing(
    memory: BudgetMemory,
    readiness: Readiness,
    policy: WorkloadPolicy,
    demand: Iterable[StepValue],
    *,
    indicator: Indicator | None,
    readings: Readings,
    step_seconds: float,
    stale_after_seconds: float,
    moves_level: bool,
    now_seconds: float,
) -> BudgetStanding:
    """How the budget stands after the steps that have become known.

    `demand` are the newest steps of the workload's demand, `readings` of its indicator where it has one. A step without
    a value waits until one after it has, or until it is stale, and is then neither good nor bad; so is time without any
    steps. Counting begins with the first step that ends after the workload was first seen.
    """
    if memory.until_seconds == 0.0:
        memory = memory._replace(until_seconds=now_seconds, known_until_seconds=now_seconds)
    steps = readings.steps if indicator is not None else demand
    judged = _by(indicator) if indicator is not None else _by_demand(readiness, policy, step_seconds)
    verdicts = _verdicts(steps, judged, memory, step_seconds, now_seconds - stale_after_seconds)
    budget = budget_after(memory, verdicts, policy.budget, moves_level=moves_level)
    return BudgetStanding(
        budget, _remark(budget.memory, policy.budget, _what(indicator, readings), step_seconds, now_seconds)
    )


def budget_status(standing: BudgetStanding) -> dict[str, Any]:
    """How the error budget stands, for a reader."""
    budget = standing.budget
    return {
        "remaining": round(budget.remaining, 4),
        "burnRate": float(f"{budget.burn_rate:.6g}"),
        "level": budget.level,
        "burnsFast": budget.veto is not None,
        "isKnown": not standing.remark,
        "reason": f"{standing.reason}; {budget.veto.message}" if budget.veto is not None else standing.reason,
    }


def _by(indicator: Indicator) -> Callable[[StepValue], float | None]:
    return lambda step: None if isnan(step.value) else float(indicator.is_violated_by(step.value))


def _by_demand(
    readiness: Readiness, policy: WorkloadPolicy, step_seconds: float
) -> Callable[[StepValue], float | None]:
    """Demand violates where it is above what those that were Ready in the same step carry at their target."""
    capacity = policy.capacity

    def judged(step: StepValue) -> float | None:
        if isnan(step.value) or isinstance(capacity, Hold):
            return None
        ended = step.ended_at_seconds
        return readiness.share_below(capacity.replicas_for(step.value), ended - step_seconds, ended)

    return judged


def _verdicts(
    steps: Iterable[StepValue],
    judged: Callable[[StepValue], float | None],
    memory: BudgetMemory,
    step_seconds: float,
    stale_seconds: float,
) -> Iterator[StepVerdict]:
    new = [each for each in steps if each.ended_at_seconds > memory.until_seconds]
    known_until = max((each.ended_at_seconds for each in new if not isnan(each.value)), default=stale_seconds)
    judged_until = memory.until_seconds
    for each in new:
        if each.ended_at_seconds <= max(known_until, stale_seconds):
            judged_until = each.ended_at_seconds
            yield StepVerdict(judged_until, step_seconds, judged(each))
    if judged_until < stale_seconds - step_seconds:
        yield StepVerdict(stale_seconds, step_seconds, None)  # there is no answer at all


def _what(indicator: Indicator | None, readings: Readings) -> str:
    """What there is to be known of a step, and why it is not, where that is known."""
    if indicator is None:
        return "demand, or what was Ready,"
    return f"its {indicator.kind.value}" + (f" ({readings.problem})" if readings.problem else "")


def _remark(memory: BudgetMemory, rules: BudgetRules, what: str, step_seconds: float, now_seconds: float) -> str:
    unknown_seconds = now_seconds - memory.known_until_seconds
    # A step becomes known a step and a moment after it began to be unknown.
    if unknown_seconds <= 3 * step_seconds:
        return ""
    is_forgotten = memory.until_seconds - memory.known_until_seconds > rules.window_seconds
    faded = ", and what burned before is forgotten" if is_forgotten else ""
    since = as_time(memory.known_until_seconds)
    return f"{what} is not known since {since}: that time counts neither as good nor as violated{faded}"
