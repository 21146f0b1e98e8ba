"""What an object's status says after a decision, and whether it is worth a write. Values in, values out.

Its conditions are the HorizontalPodAutoscaler's, with its reasons where the meaning is the same, and two of our own.
What a new leader needs to go on from is in it too: see `recorded` and `remembered_from`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import ceil, isfinite
from typing import Any

from autoscaler.cluster.commands import ScaleReplicas
from autoscaler.cluster.reasons import UNTOLD, Hold, Reason, ReasonCode, replicas_text
from autoscaler.cluster.snapshot import Rung
from autoscaler.controller.autoscalers import (
    NOTHING_REMEMBERED,
    Actuator,
    Mode,
    Remembered,
    as_micro_time,
    as_time,
    seconds_of,
)
from autoscaler.controller.budgeting import budget_status
from autoscaler.controller.learning import capacity_status, recorded_curve, remembered_curve
from autoscaler.controller.planning import Plan, steered_hpa
from autoscaler.controller.records import ActResult, DecisionRecord, Outcome
from autoscaler.controller.sizing import Sizing, recommendation_provided, sizing_essence, sizing_status
from autoscaler.controller.surviving import CONDITION, survival_verdict
from autoscaler.decisions.budget import NO_VIOLATIONS, BudgetMemory
from autoscaler.decisions.guardrails import Recommendation, ReplicaMemory, ScaleEvent

JsonObject = dict[str, Any]

DECISIONS_KEPT = 5
"""How many of the last changes a status shows."""
REFRESH_SECONDS = 600.0
"""Figures that change with every step of the history are brought up to date this often, when there is time."""
LIMITS = (
    ReasonCode.TOO_MANY_REPLICAS,
    ReasonCode.TOO_FEW_REPLICAS,
    ReasonCode.SCALE_UP_LIMIT,
    ReasonCode.SCALE_DOWN_LIMIT,
)
SUSPENDED = (ReasonCode.PAUSED, ReasonCode.CONFLICT, ReasonCode.CHANGED_BY_OTHERS)
STABILISED = (ReasonCode.SCALE_DOWN_STABILIZED, ReasonCode.SCALE_UP_STABILIZED)
ESSENTIAL = (
    "observedGeneration",
    "rung",
    "reason",
    "currentReplicas",
    "desiredReplicas",
    "lastScaleTime",
    "modelVersion",
)
"""Plain fields that are written as soon as they change."""


def status_of(
    plan: Plan, result: ActResult, before: Mapping[str, Any], now_seconds: float, sizing: Sizing | None = None
) -> JsonObject:
    """The whole status; `before` is the one that it takes the place of."""
    decision = plan.decision
    status: JsonObject = {
        "observedGeneration": plan.autoscaler.generation,
        "rung": decision.rung.value,
        "reason": decision.reason.code.value,
        "conditions": _conditions(plan, result, sizing, before.get("conditions") or (), now_seconds),
        "stabilization": recorded(plan.remembered),
    }
    target = plan.workload.target
    if not isinstance(target, Hold):
        is_set = result.outcome is Outcome.APPLIED and plan.autoscaler.actuator is Actuator.SCALE
        status["currentReplicas"] = decision.desired if is_set else target.replicas
        status["desiredReplicas"] = decision.desired
    if plan.remembered.last_scale_seconds is not None:
        status["lastScaleTime"] = as_time(plan.remembered.last_scale_seconds)
    if plan.policy is not None:
        status["leadTimeSeconds"] = round(plan.policy.lead_seconds)
    forecast, observed = decision.forecast, decision.observed
    if not isinstance(forecast, Hold):
        status["modelVersion"] = forecast.model_version
        status["forecast"] = {
            "value": _short(forecast.value),
            "quantile": forecast.level,
            "windowStart": as_time(forecast.cutoff_seconds),
            "windowEnd": as_time(forecast.cutoff_seconds + forecast.horizon_seconds),
            "forecaster": forecast.forecaster,
        }
    if not isinstance(observed, Hold):
        status["observed"] = {"value": _short(observed.value), "time": as_time(observed.measured_at_seconds)}
    if plan.standing is not None:
        status["errorBudget"] = budget_status(plan.standing)
    if plan.learned is not None and not isinstance(target, Hold):
        status["capacity"] = capacity_status(plan.learned, target.replicas)
    decisions = _decisions(plan, result, before.get("decisions") or [], now_seconds)
    if decisions:
        status["decisions"] = decisions
    return status | sizing_status(sizing, before)


def recorded(remembered: Remembered) -> JsonObject:
    """What a new leader must know, as data."""
    memory = remembered.replicas
    answer: JsonObject = {"targetUid": remembered.target_uid} if remembered.target_uid else {}
    for name, kept in (("highest", memory.highs), ("lowest", memory.lows)):
        if kept:
            answer[name] = [{"time": as_micro_time(each.at_seconds), "replicas": each.replicas} for each in kept]
    if memory.events:
        answer["changes"] = [{"time": as_micro_time(each.at_seconds), "by": each.change} for each in memory.events]
    if remembered.last_replicas is not None:
        answer["lastReplicas"] = remembered.last_replicas
    if remembered.last_minimum is not None:
        answer["lastMinimum"] = remembered.last_minimum
    if remembered.set_from_generation:
        answer["setFromGeneration"] = remembered.set_from_generation
    for name, moment in (
        ("changedByOthers", remembered.changed_by_others_at_seconds),
        ("lastScale", remembered.last_scale_seconds),
    ):
        if moment is not None:
            answer[name] = as_micro_time(moment)
    if remembered.lead_seconds is not None:
        answer["leadSeconds"] = round(remembered.lead_seconds, 3)
    if remembered.budget.until_seconds:
        answer["budget"] = _recorded_budget(remembered.budget)
    if remembered.capacity is not None:
        answer["capacity"] = recorded_curve(remembered.capacity)
    return answer


def _recorded_budget(budget: BudgetMemory) -> JsonObject:
    answer: JsonObject = {
        "offset": round(budget.offset, 6),
        "short": round(budget.short, 6),
        "long": round(budget.long, 6),
        "spentSeconds": round(budget.spent_seconds, 3),
        "knownUntil": as_micro_time(budget.known_until_seconds),
        "until": as_micro_time(budget.until_seconds),
    }
    if budget.level is not None:
        answer["level"] = budget.level
    if budget.burns_since_seconds is not None:
        answer["burnsSince"] = as_micro_time(budget.burns_since_seconds)
    return answer


def _remembered_budget(kept: Mapping[str, Any]) -> BudgetMemory:
    """Raises ValueError, KeyError or TypeError for what is no budget."""
    since, level = kept.get("burnsSince"), kept.get("level")
    offset, short, long, spent = (float(kept[name]) for name in ("offset", "short", "long", "spentSeconds"))
    if not all(isfinite(each) for each in (offset, short, long, spent)):
        raise ValueError(f"a budget of {kept}")
    return BudgetMemory(
        offset,
        short,
        long,
        spent,
        known_until_seconds=seconds_of(kept["knownUntil"]),
        until_seconds=seconds_of(kept["until"]),
        burns_since_seconds=None if since is None else seconds_of(since),
        level=None if level is None else float(level),
    )


def remembered_from(status: Mapping[str, Any], now_seconds: float) -> Remembered:
    """What the status of an object says of its past.

    The newest recommendation is written only when it changes: whoever reads it takes it as made just now, so that
    nothing is removed earlier than the leader before would have. What cannot be read is not remembered.
    """
    kept = status.get("stabilization")
    if not isinstance(kept, Mapping):
        return NOTHING_REMEMBERED
    try:
        memory = ReplicaMemory(
            highs=_recommendations(kept.get("highest") or (), now_seconds),
            lows=_recommendations(kept.get("lowest") or (), now_seconds),
            events=tuple(ScaleEvent(seconds_of(each["time"]), int(each["by"])) for each in kept.get("changes") or ()),
        )
        changed, scaled, last = kept.get("changedByOthers"), kept.get("lastScale"), kept.get("lastReplicas")
        lead, rung, budget = kept.get("leadSeconds"), status.get("rung"), kept.get("budget")
        minimum = kept.get("lastMinimum")
        return Remembered(
            replicas=memory,
            target_uid=str(kept.get("targetUid", "")),
            last_replicas=None if last is None else int(last),
            last_minimum=None if minimum is None else int(minimum),
            was_read=True,
            set_from_generation=int(kept.get("setFromGeneration", 0)),
            changed_by_others_at_seconds=None if changed is None else seconds_of(changed),
            last_scale_seconds=None if scaled is None else seconds_of(scaled),
            lead_seconds=None if lead is None else float(lead),
            rung=Rung(rung) if rung in set(Rung) else None,
            budget=NO_VIOLATIONS if budget is None else _remembered_budget(budget),
            capacity=remembered_curve(kept.get("capacity")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return replace(NOTHING_REMEMBERED)


def _recommendations(kept: Iterable[Mapping[str, Any]], now_seconds: float) -> tuple[Recommendation, ...]:
    read = [Recommendation(seconds_of(each["time"]), int(each["replicas"])) for each in kept]
    return (*read[:-1], read[-1]._replace(at_seconds=now_seconds)) if read else ()


def _conditions(
    plan: Plan,
    result: ActResult,
    sizing: Sizing | None,
    before: Iterable[Mapping[str, Any]],
    now_seconds: float,
) -> list[JsonObject]:
    former = {each["type"]: each for each in before if "lastTransitionTime" in each}
    answer = []
    verdicts = _verdicts(plan, result)
    if sizing is not None:
        verdicts["RecommendationProvided"] = recommendation_provided(sizing)
    for kind, (holds, reason, message) in verdicts.items():
        status = "True" if holds else "False"
        was = former.get(kind, {})
        since = was["lastTransitionTime"] if was.get("status") == status else as_time(now_seconds)
        answer.append(
            {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}
        )
    return answer


def _verdicts(plan: Plan, result: ActResult) -> dict[str, tuple[bool, str, str]]:
    decision = plan.decision
    if not plan.autoscaler.scales and not isinstance(plan.workload.target, Hold) and not plan.autoscaler.problem:
        return {"Conflict": _conflicting(plan)}  # it never scales, and that is nothing to be mended
    conditions = {"AbleToScale": _able(plan, result), "ScalingActive": _active(plan)}
    if plan.policy is None:
        return conditions  # nothing else can be known
    conditions |= {
        # The last one decided: what a rate would allow does not count where the maximum is below it.
        "ScalingLimited": _limited(decision.reasons, plan.policy.max_source),
    }
    survival = survival_verdict(plan)
    if survival is not None:
        conditions[CONDITION] = survival
    forecast = decision.forecast
    if isinstance(forecast, Hold):
        conditions["ForecastAvailable"] = (False, forecast.reason.code.value, forecast.reason.message)
    else:
        served = f"model version {forecast.model_version}" if forecast.model_version else "no model"
        message = f"{served}: {forecast.forecaster}" + (f"; {forecast.because}" if forecast.because else "")
        serves = forecast.rung.value.title().replace("_", "")
        conditions["ForecastAvailable"] = (True, f"{serves}Serves", message)
    conditions["Conflict"] = _conflicting(plan)
    return conditions


def _limited(reasons: tuple[Reason, ...], max_source: str) -> tuple[bool, str, str]:
    within = (False, "DesiredWithinRange", "the desired replicas are within what is allowed")
    holds, reason, message = _first(reversed(reasons), LIMITS, within)
    if max_source and reason == ReasonCode.TOO_MANY_REPLICAS:
        message += f", that of {max_source}"
    return holds, reason, message


def _conflicting(plan: Plan) -> tuple[bool, str, str]:
    clash = plan.conflict
    if clash is None:
        other = "nothing else" if steered_hpa(plan.workload) is None else "only the HorizontalPodAutoscaler in charge"
        return False, "NoConflict", f"{other} steers {plan.autoscaler.workload}"
    if plan.autoscaler.mode is Mode.OBSERVE:
        return False, Mode.OBSERVE.value, f"in mode Auto: {clash.reason.message}"
    return True, clash.reason.code.value, clash.reason.message


def _able(plan: Plan, result: ActResult) -> tuple[bool, str, str]:
    decision = plan.decision
    if plan.policy is None:
        return False, decision.reason.code.value, decision.reason.message
    if result.outcome is Outcome.APPLIED:
        of_hpa = f"{result.detail}: " if result.detail else ""
        return True, "SucceededRescale", f"{of_hpa}set {replicas_text(decision.desired)}, from {decision.current}"
    if result.outcome is Outcome.FAILED:
        return False, "FailedUpdateScale", result.detail
    if decision.reason.code in SUSPENDED:
        return False, decision.reason.code.value, decision.reason.message
    if result.outcome is Outcome.SKIPPED:
        return True, "DecidedAnew", result.detail
    if plan.autoscaler.mode is Mode.OBSERVE:
        wanted = f"{replicas_text(decision.desired)} would be set" if _is_command(plan) else "nothing would be changed"
        return True, Mode.OBSERVE.value, f"{wanted}; spec.mode Auto carries decisions out"
    return _first(
        decision.reasons,
        (
            *STABILISED,
            ReasonCode.ROLLOUT,
            ReasonCode.ERROR_BUDGET_BURNS,
            ReasonCode.DOMAINS_UNKNOWN,
            ReasonCode.DISRUPTION_BUDGET,
            ReasonCode.BREAK_EVEN,
        ),
        (True, ReasonCode.READY_FOR_NEW_SCALE.value, "replicas can be changed"),
    )


def _active(plan: Plan) -> tuple[bool, str, str]:
    decision = plan.decision
    if decision.rung is Rung.HOLD:
        # A pause or a conflict says nothing of the metrics: the reason before it does.
        of_metrics = [reason for reason in decision.reasons if reason.code not in SUSPENDED]
        reason = of_metrics[-1] if of_metrics else decision.reason
        return False, reason.code.value, reason.message
    asking = (ReasonCode.FORECAST_PEAK, ReasonCode.OBSERVED_DEMAND, ReasonCode.SURVIVES_LOSS)
    sources = [r for r in decision.reasons if r.code in asking]
    told = "; ".join(r.message for r in sources)
    if plan.learned is not None and plan.policy is not None:
        told += f"; by {plan.policy.capacity_source}"
    return True, "ValidMetricFound", told


def _first(
    reasons: Iterable[Reason], wanted: tuple[ReasonCode, ...], otherwise: tuple[bool, str, str]
) -> tuple[bool, str, str]:
    """The first reason of those wanted as a condition that holds."""
    for reason in reasons:
        if reason.code in wanted:
            return True, reason.code.value, reason.message
    return otherwise


def _is_command(plan: Plan) -> bool:
    return isinstance(plan.decision.outcome, ScaleReplicas)


def _decisions(plan: Plan, result: ActResult, before: list[JsonObject], now_seconds: float) -> list[JsonObject]:
    """The last changes with the newest in front; the same one decided again and not carried out counts once."""
    decision = plan.decision
    if plan.untold_from is not None:
        before = [_entry(plan.untold_from, decision.current, UNTOLD, Outcome.APPLIED, now_seconds), *before]
    if not _is_command(plan):
        return before[:DECISIONS_KEPT]
    entry = _entry(decision.current, decision.desired, decision.reason, result.outcome, now_seconds)
    same = ("from", "to", "reason", "outcome")
    if result.outcome is not Outcome.APPLIED and before and all(before[0].get(k) == entry[k] for k in same):
        return before[:DECISIONS_KEPT]
    return [entry, *before][:DECISIONS_KEPT]


def _entry(current: int, desired: int, reason: Reason, outcome: Outcome, now_seconds: float) -> JsonObject:
    return {
        "time": as_time(now_seconds),
        "from": current,
        "to": desired,
        "reason": reason.code.value,
        "message": reason.message,
        "outcome": outcome.value,
    }


def essence_of(status: Mapping[str, Any]) -> JsonObject:
    """What of a status is worth a write at once when it changes: what a person or a new leader must know."""
    kept = status.get("stabilization") or {}
    return {
        **{name: status.get(name) for name in ESSENTIAL},
        "conditions": [(c.get("type"), c.get("status"), c.get("reason")) for c in status.get("conditions") or ()],
        "decisions": [(d.get("time"), d.get("to"), d.get("outcome")) for d in status.get("decisions") or ()],
        # A recommendation that only grew older is not a new one.
        "kept": [
            *(((kept.get(name) or [{}])[-1]).get("replicas") for name in ("highest", "lowest")),
            kept.get("changes"),
            *(kept.get(name) for name in ("targetUid", "lastReplicas", "lastMinimum", "changedByOthers")),
        ],
        "budget": _budget_essence(status),
        "capacity": [(kept.get("capacity") or {}).get(name) for name in ("learnedAt", "basis", "version")],
        "sizing": sizing_essence(status),
    }


def outline_of(record: DecisionRecord) -> tuple[object, ...] | None:
    """What the essence of a status follows from, beside the status before, without making it; None where only the
    status itself tells, as where containers are sized.

    Two equal outlines after one another have one essence: all else that a status says are figures and sentences.
    """
    plan, result = record.plan, record.result
    target, decision, remembered = plan.workload.target, plan.decision, plan.remembered
    if plan.policy is None or plan.learned is not None or record.sizing is not None or isinstance(target, Hold):
        return None
    if plan.autoscaler.survives is not None or plan.untold_from is not None or result.outcome is Outcome.APPLIED:
        return None
    forecast, memory = decision.forecast, remembered.replicas
    return (
        plan.autoscaler.generation,
        plan.autoscaler.mode,
        plan.conflict,
        target.replicas,
        decision.current,
        decision.desired,
        decision.rung,
        decision.reason.code,
        [reason.code for reason in decision.reasons],
        result.outcome,
        forecast.reason.code if isinstance(forecast, Hold) else (forecast.rung, forecast.model_version),
        memory.highs[-1].replicas if memory.highs else None,
        memory.lows[-1].replicas if memory.lows else None,
        memory.events,
        remembered.target_uid,
        remembered.last_replicas,
        remembered.last_minimum,
        remembered.changed_by_others_at_seconds,
        remembered.last_scale_seconds,
        ceil(2 * round(remembered.budget.offset, 6)),
        plan.standing is None,
        plan.standing is None or plan.standing.budget.veto is None,
        plan.standing is None or plan.standing.remark == "",
    )


def _budget_essence(status: Mapping[str, Any]) -> list[object]:
    """Whether the budget burns, is known and how far the level has moved, by halves: not each step of the way back."""
    told, kept = status.get("errorBudget") or {}, (status.get("stabilization") or {}).get("budget")
    offset = kept.get("offset") if isinstance(kept, Mapping) else None
    moved = ceil(2 * offset) if isinstance(offset, float | int) and isfinite(offset) else None
    return [told.get("burnsFast"), told.get("isKnown"), moved]


def _short(value: float) -> float:
    """A figure to six digits, as people read it."""
    return float(f"{value:.6g}")
