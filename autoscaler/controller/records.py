"""What happened to one workload in one cycle, as plain data: log line, HTTP answer and `explain` are all made of it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from autoscaler.cluster.capacity import Capacity
from autoscaler.cluster.reasons import Hold, Reason
from autoscaler.controller.budgeting import budget_status
from autoscaler.controller.learning import capacity_status
from autoscaler.controller.planning import Plan
from autoscaler.controller.sizing import Sizing, resize_text, sizing_status
from autoscaler.controller.surviving import survival_json
from autoscaler.decisions.capacity_curve import estimate
from autoscaler.metrics import BudgetReading, CapacityReading, WorkloadReading
from predictor.serving.forecasts import ModelInUse
from predictor.usage.panel import Resource

JsonObject = dict[str, Any]


class Outcome(StrEnum):
    """What came of a decision."""

    APPLIED = "applied"
    """Written to the cluster."""
    DRY_RUN = "dry_run"
    """Would have been written, but for a dry run."""
    OBSERVED = "observed"
    """Would have been written in mode Auto."""
    SKIPPED = "skipped"
    """Not written: the workload was no longer as it was when this was decided."""
    FAILED = "failed"
    """Not written: the API server refused or did not answer."""
    NONE = "none"
    """Nothing to write."""


@dataclass(frozen=True, slots=True)
class ActResult:
    """What came of a decision, and a sentence about it where there is more to say."""

    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One workload in one cycle."""

    plan: Plan
    result: ActResult
    model: ModelInUse
    sizing: Sizing | None = None
    """What came of sizing its containers, where its object asks for it."""

    @property
    def direction(self) -> str:
        """`scale_up`, `scale_down` or `hold`."""
        outcome = self.plan.decision.outcome
        if isinstance(outcome, Hold):
            return "hold"
        return "scale_up" if outcome.desired > outcome.current else "scale_down"

    @property
    def gist(self) -> tuple[object, ...]:
        """What makes it another decision than the one before."""
        decision = self.plan.decision
        return (self.direction, decision.reason.code, decision.desired, self.result.outcome, decision.rung)

    def log_fields(self) -> JsonObject:
        """The one log line of the decision."""
        decision = self.plan.decision
        fields: JsonObject = {
            "autoscaler": self.plan.autoscaler.key,
            "workload": decision.workload,
            "decision": self.direction,
            "reason": decision.reason.code.value,
            "message": decision.reason.message,
            "current": decision.current,
            "desired": decision.desired,
            "outcome": self.result.outcome.value,
            "rung": decision.rung.value,
            "model": self.model.version,
        }
        if self.result.detail:
            fields["detail"] = self.result.detail
        if not isinstance(decision.observed, Hold):
            fields["observed"] = decision.observed.value
        if not isinstance(decision.forecast, Hold):
            fields |= {"forecast": decision.forecast.value, "level": decision.forecast.level}
        return fields

    def reading(self) -> WorkloadReading:
        """What the metrics show of it."""
        decision = self.plan.decision
        policy, target = self.plan.policy, self.plan.workload.target
        seen = None if isinstance(target, Hold) else target
        forecast = None if isinstance(decision.forecast, Hold) else decision.forecast
        return WorkloadReading(
            workload=decision.workload,
            resource=policy.resource.value if policy else Resource.CPU.value,
            current_replicas=seen.replicas if seen else None,
            desired_replicas=decision.desired if seen else None,
            ready_replicas=seen.ready_replicas if seen else None,
            min_replicas=policy.min_replicas if policy else None,
            max_replicas=policy.max_replicas if policy else None,
            is_at_maximum=self._is_at_maximum(),
            observed=None if isinstance(decision.observed, Hold) else decision.observed.value,
            forecast=forecast.value if forecast else None,
            # Of the stated level: a series for each that the budget makes of it would be too many.
            level=policy.level if policy else None,
            data_age_seconds=self.plan.data_age_seconds,
            rung=decision.rung.value,
            hold_reason=decision.reason.code.value if isinstance(decision.outcome, Hold) else "",
            budget=self._budget_reading(),
            capacity=self._capacity_reading(),
        )

    def _is_at_maximum(self) -> bool | None:
        """Whether demand is more than the most replicas carry that are allowed, with all of them there."""
        policy, target, observed = self.plan.policy, self.plan.workload.target, self.plan.decision.observed
        if policy is None or isinstance(target, Hold) or isinstance(observed, Hold):
            return None
        if isinstance(policy.capacity, Hold):
            return None
        most = policy.max_replicas
        return target.replicas >= most and observed.value > policy.capacity.demand_at(most)

    def _capacity_reading(self) -> CapacityReading | None:
        learned, target = self.plan.learned, self.plan.workload.target
        if learned is None or learned.curve is None or learned.knots is None or isinstance(target, Hold):
            return None
        at = estimate(learned.knots, max(1, target.replicas))
        return CapacityReading(at.low, at.likeliest, at.high, learned.curve.learned_at_seconds)

    def _budget_reading(self) -> BudgetReading | None:
        if self.plan.standing is None:
            return None
        budget = self.plan.standing.budget
        return BudgetReading(
            budget.level, budget.remaining, budget.short_burn_rate, budget.burn_rate, budget.veto is not None
        )

    def as_json(self) -> JsonObject:
        """Everything, for `explain` and the HTTP answer."""
        decision, policy, model = self.plan.decision, self.plan.policy, self.model
        autoscaler, target = self.plan.autoscaler, self.plan.workload.target
        now = decision.decided_at_seconds
        answer: JsonObject = {
            "autoscaler": autoscaler.key,
            "workload": decision.workload,
            "mode": autoscaler.mode.value,
            "actuator": autoscaler.actuator.value,
            "decided_at": moment(now),
            "decision": self.direction,
            "reason": reason_json(decision.reason),
            "reasons": [reason_json(reason) for reason in decision.reasons],
            "replicas": {
                "current": decision.current,
                "ready": 0 if isinstance(target, Hold) else target.ready_replicas,
                "target": decision.current if isinstance(target, Hold) else target.replicas,
                "desired": decision.desired,
            },
            "outcome": self.result.outcome.value,
            "detail": self.result.detail,
            "rung": decision.rung.value,
            "model": {
                "version": model.version,
                "origin": model.origin.value,
                "description": model.description,
                "age_seconds": model.age_seconds(now),
                "trained_until": moment(model.bundle.trained_until_seconds) if model.version else None,
                "problem": str(model.problem) if model.problem else None,
            },
        }
        if policy is not None:
            capacity = policy.capacity
            answer |= {
                "resource": policy.resource.value,
                "unit": policy.resource.unit,
                "query": autoscaler.query,
                "min_replicas": policy.min_replicas,
                "max_replicas": policy.max_replicas,
                "max_source": policy.max_source,
                "event": policy.event,
                "min_source": policy.min_source,
                "level": policy.level,
                "level_source": policy.level_source,
                "lead_time": {"seconds": policy.lead_seconds, "source": policy.lead_source},
                "capacity_per_replica": _held(capacity)
                if isinstance(capacity, Hold)
                else self._capacity(capacity, policy.capacity_source),
            }
        if self.plan.learned is not None:
            answer["capacity"] = capacity_status(self.plan.learned, decision.desired)
        survival = survival_json(self.plan)
        if survival is not None:
            answer["survival"] = survival
        if self.plan.standing is not None:
            answer["error_budget"] = budget_status(self.plan.standing)
        observed, forecast = decision.observed, decision.forecast
        answer["observed"] = (
            _held(observed)
            if isinstance(observed, Hold)
            else {"value": observed.value, "age_seconds": max(0.0, now - observed.measured_at_seconds)}
        )
        answer["forecast"] = (
            _held(forecast)
            if isinstance(forecast, Hold)
            else {
                "value": forecast.value,
                "level": forecast.level,
                "from": moment(forecast.cutoff_seconds),
                "until": moment(forecast.cutoff_seconds + forecast.horizon_seconds),
                "forecaster": forecast.forecaster,
                "because": forecast.because,
                "model_version": forecast.model_version,
            }
        )
        if self.sizing is not None:
            told = sizing_status(self.sizing, autoscaler.status)
            answer["vertical"] = {
                "mode": autoscaler.vertical.mode.value,
                **told,
                "hold": reason_json(self.sizing.hold.reason) if self.sizing.hold is not None else None,
                "resized": [resize_text(each) for each in self.sizing.resized],
            }
        return answer

    def _capacity(self, capacity: Capacity, source: str) -> JsonObject:
        share = self.plan.relied_share
        if share < 1.0:
            source += f", × {share:.3g} as nothing is forecast"
            capacity = capacity.scaled(share)
        if not capacity.curve:
            return {"value": capacity.per_replica, "source": source}
        replicas = max(1, self.plan.decision.desired)
        carried = {"replicas": replicas, "beyond": capacity.per_replica, "curve": list(capacity.curve)}
        return {"value": capacity.demand_at(replicas) / replicas, "source": source, **carried}


def moment(seconds: float) -> str:
    """An epoch second as ISO 8601 in UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def reason_json(reason: Reason) -> JsonObject:
    """A reason as its code and its sentence."""
    return {"code": reason.code.value, "message": reason.message}


def _held(hold: Hold) -> JsonObject:
    return {"hold": reason_json(hold.reason)}
