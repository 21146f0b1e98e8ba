"""What of a decision people should be told by an Event, and how often: each thing once, and never a flood."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from autoscaler.cluster.commands import ScaleReplicas
from autoscaler.cluster.reasons import UNTOLD, Hold, replicas_text
from autoscaler.cluster.snapshot import DemandForecast, Rung
from autoscaler.controller.autoscalers import Mode, Remembered
from autoscaler.controller.planning import Plan, steered_hpa
from autoscaler.controller.ports import Event
from autoscaler.controller.records import ActResult, Outcome

BURST = 10
"""Most Events of one object at once …"""
SECONDS_PER_EVENT = 60.0
"""… and how long it takes until it may have another."""


def notices(plan: Plan, result: ActResult, before: Remembered, was_conflict: bool) -> Iterator[Event]:
    """Events about what changed: replicas, the rung of the ladder, fast burn of the error budget, a conflict."""
    about, decision = plan.autoscaler, plan.decision
    target = plan.workload.target
    if plan.untold_from is not None and not isinstance(target, Hold):
        change = f"from {plan.untold_from} to {replicas_text(target.replicas)}"
        yield Event(about, "SuccessfulRescale", f"{change}: {UNTOLD}")
    if isinstance(decision.outcome, ScaleReplicas):
        hpa = steered_hpa(plan.workload)
        what = f"minReplicas of {hpa.shown} " if hpa else ""
        unit = "" if hpa else " replica" if decision.desired == 1 else " replicas"
        change = f"{what}from {decision.current} to {decision.desired}{unit}: {decision.reason}"
        if result.outcome is Outcome.APPLIED:
            yield Event(about, "SuccessfulRescale", change)
        elif result.outcome is Outcome.FAILED:
            yield Event(about, "FailedRescale", f"{result.detail}; it was to be {change}", is_warning=True)
    if before.rung is not None and decision.rung is not before.rung:
        order = list(Rung)
        is_down = order.index(decision.rung) > order.index(before.rung)
        why = _why(plan)
        text = f"{before.rung.value} -> {decision.rung.value}" + (f": {why}" if why else "")
        yield Event(about, "RungLowered" if is_down else "RungRaised", text, is_warning=is_down)
    burnt, burns = before.budget.burns_since_seconds is not None, plan.remembered.budget.burns_since_seconds is not None
    if burns and not burnt and plan.standing is not None and plan.standing.budget.veto is not None:
        yield Event(about, "ErrorBudgetBurns", plan.standing.budget.veto.message, is_warning=True)
    elif burnt and not burns and plan.standing is not None:
        left = f"{plan.standing.budget.remaining:.1%} of the budget is left"
        yield Event(about, "ErrorBudgetRecovers", f"replicas may be removed again; {left}")
    if about.mode is Mode.AUTO and plan.conflict is not None and not was_conflict:
        yield Event(about, "Conflict", plan.conflict.reason.message, is_warning=True)
    elif plan.conflict is None and was_conflict and plan.policy is not None:
        yield Event(about, "ConflictResolved", f"nothing else steers {about.workload} any more")


def _why(plan: Plan) -> str:
    """Why the decision stands on its rung: what is missing on those above, or wrong with them."""
    decision = plan.decision
    if plan.policy is None:
        return str(decision.reason)
    missing = [str(part.reason) for part in (decision.forecast, decision.observed) if not hasattr(part, "value")]
    if isinstance(decision.forecast, DemandForecast) and decision.rung in (Rung.PREVIOUS, Rung.SEASONAL_NAIVE):
        missing.append(decision.forecast.because)
    capacity = plan.policy.capacity
    if decision.rung is Rung.HOLD and hasattr(capacity, "reason"):
        missing.append(str(capacity.reason))
    return "; ".join(missing)


@dataclass
class Throttle:
    """Lets each object have a burst of Events, then one a minute."""

    _left: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By uid: how many it may still have, and when that was."""

    def allows(self, uid: str, now_seconds: float) -> bool:
        """Whether the object may have one more now; counts it if so."""
        left, at = self._left.get(uid, (float(BURST), now_seconds))
        left = min(float(BURST), left + max(0.0, now_seconds - at) / SECONDS_PER_EVENT)
        if left < 1:
            self._left[uid] = (left, now_seconds)
            return False
        self._left[uid] = (left - 1, now_seconds)
        return True

    def keep_only(self, uids: Collection[str]) -> None:
        """Forgets objects that are gone."""
        self._left = {uid: left for uid, left in self._left.items() if uid in uids}
