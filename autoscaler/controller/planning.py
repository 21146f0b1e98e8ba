"""From what was seen and what is forecast to a decision per workload. Values in, values out: no client, no clock."""

from dataclasses import dataclass, replace

from autoscaler.cluster.commands import Decision
from autoscaler.cluster.domains import FailureDomains
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode, replicas_text
from autoscaler.cluster.snapshot import DemandForecast, ObservedDemand, RemovalLimit, Rung, WorkloadSnapshot
from autoscaler.controller.autoscalers import (
    NOTHING_REMEMBERED,
    Actuator,
    Mode,
    PredictiveAutoscaler,
    Remembered,
    Rival,
    RivalKind,
    conflict,
)
from autoscaler.controller.budgeting import (
    LONGEST_GAP_SECONDS,
    LONGEST_PAST_SECONDS,
    NOT_READ,
    BudgetStanding,
    Readings,
    StepValue,
    standing,
)
from autoscaler.controller.demand import DemandWatch, Terms, with_margin
from autoscaler.controller.learning import (
    CapacityStanding,
    LearningAnswer,
    standing_of,
    with_capacity,
)
from autoscaler.controller.policy import LEAST_PODS, WorkloadPolicy, policy_of
from autoscaler.controller.ports import ManagedWorkload, TargetWorkload
from autoscaler.decisions.break_even import BREAK_EVEN_LEVEL, kept_for_later, strictest
from autoscaler.decisions.budget import budget_after, shares_of_rungs
from autoscaler.decisions.guardrails import ReplicaMemory, ScaleEvent
from autoscaler.decisions.replicas import decide_replicas
from autoscaler.settings import ScalingSettings
from models.forecast import ForecastError
from predictor.serving.bundle import NoForecast
from predictor.serving.forecasts import Forecasts, Origin, ServedForecast
from predictor.usage.panel import Resource, SeriesKey

LONGEST_LAG_SECONDS = 120.0
"""No picture of the cluster that is older is decided on."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What was decided for one workload, and everything that it was decided from."""

    workload: ManagedWorkload
    policy: WorkloadPolicy | None
    """None where the object or its target cannot be read."""
    decision: Decision
    remembered: Remembered
    data_age_seconds: float | None = None
    """Age of the newest sample of its demand; None where there is none."""
    relied_share: float = 1.0
    """Share of the capacity per replica that the decision relied on; below 1 where nothing was forecast."""
    conflict: Hold | None = None
    """What else steers the target."""
    untold_from: int | None = None
    """Replicas, or the HPA's minimum, before a change by a copy of the controller that could not tell of it; None where
    there is none."""
    standing: BudgetStanding | None = None
    """Of the error budget; None where it is not counted."""
    learned: CapacityStanding | None = None
    """What was learned of its capacity; None where that is not to be learned."""

    @property
    def autoscaler(self) -> PredictiveAutoscaler:
        """The object that asked for the decision."""
        return self.workload.autoscaler


def plan(
    workload: ManagedWorkload,
    forecasts: Forecasts,
    remembered: Remembered,
    *,
    settings: ScalingSettings,
    now_seconds: float,
    readings: Readings = NOT_READ,
    watch: DemandWatch | None = None,
    learning: LearningAnswer | None = None,
    unread: Hold | None = None,
) -> Plan:
    """The decision for one workload; what cannot be read or followed is left alone.

    `readings` are what its indicator said, where its object has one; `watch` knows what demand did beside its signals;
    `learning` is what was last learned of its capacity, where that is to be learned; `unread` is why its demand was not
    asked for at all.
    """
    autoscaler, target = workload.autoscaler, workload.target
    if autoscaler.problem:
        return _left_alone(workload, remembered, Hold(Reason(ReasonCode.INVALID_SPEC, autoscaler.problem)), now_seconds)
    if isinstance(target, Hold):
        return _left_alone(workload, remembered, target, now_seconds)
    if not autoscaler.scales:
        return _sized_only(workload, remembered, settings, now_seconds)
    left = _as_we_left_it(target, remembered, now_seconds)
    if left is not target:
        target, workload = left, replace(workload, target=left)
    untold_from = remembered.last_replicas if _has_untold_change(autoscaler, remembered, target) else None
    remembered = _of_target(remembered, autoscaler, target, now_seconds)
    policy = policy_of(
        autoscaler,
        target.request_per_replica,
        target.ready_seconds,
        remembered,
        settings=settings,
        now_seconds=now_seconds,
    )
    key = SeriesKey(target.name, policy.resource)
    observed = unread or observed_demand(forecasts, key)
    clash = conflict(autoscaler, workload.rivals)
    hpa = steered_hpa(workload) if clash is None else None
    if hpa is not None:
        untold_from = remembered.last_minimum if _has_untold_minimum(autoscaler, remembered, hpa) else None
        remembered = _of_minimum(remembered, hpa, untold_from, now_seconds)
    if hpa is not None and hpa.max_replicas < policy.max_replicas:
        ceiling = max(policy.min_replicas, hpa.max_replicas)
        policy = replace(policy, max_replicas=ceiling, max_source=hpa.shown)
    learned = standing_of(
        autoscaler,
        target,
        policy,
        kept=remembered.capacity,
        answer=learning,
        settings=settings,
        now_seconds=now_seconds,
    )
    if learned is not None:
        policy = with_capacity(policy, learned)
        remembered = replace(remembered, capacity=learned.curve)
    suspended = _suspended(autoscaler, clash, remembered, settings, now_seconds)
    gap = max(LONGEST_GAP_SECONDS, 3 * settings.interval.total_seconds())
    readiness = remembered.readiness.seen(target.ready_replicas, now_seconds, gap)
    counted: BudgetStanding | None = None
    since = max(remembered.budget.until_seconds, now_seconds - LONGEST_PAST_SECONDS)
    if settings.error_budget and forecasts.panel is not None:
        counted = standing(
            remembered.budget,
            readiness,
            policy,
            [] if unread else [StepValue(*each) for each in forecasts.steps_since(key, since)],
            indicator=autoscaler.indicator,
            readings=readings,
            step_seconds=forecasts.panel.step_seconds,
            stale_after_seconds=settings.stale_after.total_seconds(),
            moves_level=autoscaler.mode is Mode.AUTO and suspended is None,
            now_seconds=now_seconds,
        )
    elif settings.error_budget:
        counted = BudgetStanding(budget_after(remembered.budget, (), policy.budget), "no usage can be read")
    later = None if unread else _later(forecasts, key, policy, settings, now_seconds)
    # Where an HPA is in charge, its minimum is what is raised and lowered.
    replicas = target.replicas if hpa is None else hpa.min_replicas
    snapshot = WorkloadSnapshot(
        name=target.name,
        replicas=replicas,
        ready_replicas=target.ready_replicas,
        min_replicas=policy.min_replicas,
        max_replicas=policy.max_replicas,
        resource=policy.resource,
        capacity=policy.capacity,
        observed=observed,
        suspended=suspended,
        removal=strictest(
            _removal(target if hpa is None else None, counted, target.domains),
            kept_for_later(replicas, policy.capacity, later),
        ),
        survives=None if isinstance(target.domains, Hold) else target.domains,
    )
    level = policy.level if counted is None else counted.budget.level
    until_seconds = now_seconds + policy.lead_seconds
    forecast = unread or demand_forecast(forecasts, key, level, until_seconds, policy.rungs)
    safe = None if watch is None or isinstance(forecast, Hold) else watch.safe(key, level)
    if safe is not None and not isinstance(forecast, Hold):
        forecast = with_margin(forecast, safe)
    outcome = decide_replicas(snapshot, forecast, remembered.replicas, policy.rules, now_seconds)
    age = None if isinstance(observed, Hold) else max(0.0, now_seconds - observed.measured_at_seconds)
    share = policy.rules.reactive_share if outcome.decision.rung is Rung.REACTIVE else 1.0
    measured = policy.lead_seconds if len(target.ready_seconds) >= LEAST_PODS else remembered.lead_seconds
    kept = replace(
        remembered,
        replicas=outcome.memory,
        lead_seconds=measured,
        rung=outcome.decision.rung,
        budget=remembered.budget if counted is None else counted.budget.memory,
        readiness=readiness.since(since),
        was_read=False,
    )
    return Plan(workload, policy, outcome.decision, kept, age, share, clash, untold_from, counted, learned)


def terms_of(decided: Plan) -> tuple[SeriesKey, Terms] | None:
    """What holds for the demand of a workload that was planned; None where its replicas are not scaled on any."""
    policy = decided.policy
    if policy is None or isinstance(policy.capacity, Hold):
        return None
    key = SeriesKey(decided.decision.workload, policy.resource)
    return key, Terms(policy.capacity, policy.min_replicas, policy.max_replicas, policy.lead_seconds)


def _removal(
    target: TargetWorkload | None, counted: BudgetStanding | None, domains: FailureDomains | Hold | None
) -> RemovalLimit | None:
    """None while versions change hands, the error budget burns, or a loss is to be survived and nobody knows where pods
    are; and no more than disruption budgets allow at once.

    Of pods that somebody else removes, an HPA, neither rollouts nor disruption budgets speak.
    """
    if target is not None and target.rollout:
        return RemovalLimit(0, Reason(ReasonCode.ROLLOUT, target.rollout))
    if counted is not None and counted.budget.veto is not None:
        return RemovalLimit(0, counted.budget.veto)
    if isinstance(domains, Hold):
        return RemovalLimit(0, domains.reason)
    budget = None if target is None else min(target.budgets, key=lambda each: each.allowed, default=None)
    if budget is None:
        return None
    text = f"PodDisruptionBudget {budget.name} allows {budget.allowed} of its pods to go now"
    return RemovalLimit(budget.allowed, Reason(ReasonCode.DISRUPTION_BUDGET, text))


def _later(
    forecasts: Forecasts, key: SeriesKey, policy: WorkloadPolicy, settings: ScalingSettings, now_seconds: float
) -> DemandForecast | Hold | None:
    """The median of the demand peak within the break-even window; None where that is no longer than the lead window."""
    window = settings.break_even.total_seconds()
    if window <= policy.lead_seconds:
        return None
    return demand_forecast(forecasts, key, BREAK_EVEN_LEVEL, now_seconds + window)


def steered_hpa(workload: ManagedWorkload) -> Rival | None:
    """The HorizontalPodAutoscaler whose minimum is written instead of the target's replicas."""
    if workload.autoscaler.actuator is Actuator.SCALE:
        return None
    return next((each for each in workload.rivals if each.kind is RivalKind.HPA), None)


def _sized_only(
    workload: ManagedWorkload, remembered: Remembered, settings: ScalingSettings, now_seconds: float
) -> Plan:
    """For an object that sizes containers alone: its replicas are others', its pauses and conflicts are its own."""
    clash = conflict(workload.autoscaler, workload.rivals)
    alone = Hold(Reason(ReasonCode.VERTICAL_ALONE, "without horizontal only what containers request is sized"))
    hold = _suspended(workload.autoscaler, clash, NOTHING_REMEMBERED, settings, now_seconds) or alone
    return replace(_left_alone(workload, remembered, hold, now_seconds), conflict=clash)


def _left_alone(workload: ManagedWorkload, remembered: Remembered, hold: Hold, now_seconds: float) -> Plan:
    target = workload.target
    replicas = (remembered.last_replicas or 0) if isinstance(target, Hold) else target.replicas
    decision = Decision(
        workload.autoscaler.workload,
        now_seconds,
        replicas,
        replicas,
        hold,
        (hold.reason,),
        forecast=hold,
        observed=hold,
        rung=Rung.HOLD,
    )
    return Plan(workload, None, decision, replace(remembered, rung=Rung.HOLD))


def _as_we_left_it(target: TargetWorkload, remembered: Remembered, now_seconds: float) -> TargetWorkload:
    """The target with the replicas that we set, where its picture is from before that: a watch may lag behind."""
    last, set_at = remembered.last_replicas, remembered.last_scale_seconds
    is_older = 0 < target.generation <= remembered.set_from_generation
    if remembered.target_uid != target.uid or last is None or set_at is None or not is_older:
        return target
    # A store that was put back to an earlier day counts from there again.
    return replace(target, replicas=last) if now_seconds - set_at < LONGEST_LAG_SECONDS else target


def _of_target(
    remembered: Remembered, autoscaler: PredictiveAutoscaler, target: TargetWorkload, now_seconds: float
) -> Remembered:
    """What is known of the past of this very target, with a change of its replicas noticed.

    One by a copy that ended before it could tell counts as made now; one by others is to be respected.
    """
    if remembered.target_uid != target.uid:
        return replace(NOTHING_REMEMBERED, target_uid=target.uid, last_replicas=target.replicas, rung=remembered.rung)
    before = remembered.last_replicas
    was_changed = before is not None and before != target.replicas
    if before is not None and _has_untold_change(autoscaler, remembered, target):
        memory = _with_change(remembered.replicas, target.replicas - before, now_seconds)
        return replace(remembered, replicas=memory, last_replicas=target.replicas, last_scale_seconds=now_seconds)
    if not was_changed and before is not None:
        return remembered
    changed_at = now_seconds if was_changed and _sets_replicas(autoscaler) else remembered.changed_by_others_at_seconds
    return replace(remembered, last_replicas=target.replicas, changed_by_others_at_seconds=changed_at)


def _with_change(memory: ReplicaMemory, change: int, now_seconds: float) -> ReplicaMemory:
    return memory._replace(events=(*memory.events, ScaleEvent(now_seconds, change)))


def _sets_replicas(autoscaler: PredictiveAutoscaler) -> bool:
    return autoscaler.mode is Mode.AUTO and autoscaler.actuator is Actuator.SCALE


def _has_untold_change(autoscaler: PredictiveAutoscaler, remembered: Remembered, target: TargetWorkload) -> bool:
    """Whether its replicas are no longer those remembered, and a copy of the controller set them for this object.

    That copy ended, or lost the answer, before it could tell. An object that only observes its target beside one that
    acts sees that one's changes, which are no more its own than a person's.
    """
    is_same = remembered.target_uid == target.uid and target.is_set_by_us and _sets_replicas(autoscaler)
    return is_same and remembered.last_replicas not in (None, target.replicas)


def _has_untold_minimum(autoscaler: PredictiveAutoscaler, remembered: Remembered, hpa: Rival) -> bool:
    """Whether the HPA's minimum is no longer the one remembered, and a copy of the controller set it.

    Only of what another copy left: what this one sees of the HPA may be older than what it wrote itself.
    """
    is_ours = remembered.was_read and autoscaler.mode is Mode.AUTO and hpa.is_set_by_us
    return is_ours and remembered.last_minimum not in (None, hpa.min_replicas)


def _of_minimum(remembered: Remembered, hpa: Rival, untold_from: int | None, now_seconds: float) -> Remembered:
    """What is known of the past with the HPA's minimum noticed; one that nobody could tell of counts as set now."""
    if untold_from is not None:
        memory = _with_change(remembered.replicas, hpa.min_replicas - untold_from, now_seconds)
        remembered = replace(remembered, replicas=memory, last_scale_seconds=now_seconds)
    return replace(remembered, last_minimum=hpa.min_replicas)


def _suspended(
    autoscaler: PredictiveAutoscaler,
    clash: Hold | None,
    remembered: Remembered,
    settings: ScalingSettings,
    now_seconds: float,
) -> Hold | None:
    """Why the decision must not be acted on, the first of all reasons."""
    if autoscaler.mode is Mode.AUTO and (autoscaler.is_paused or settings.paused):
        by = "scaling.paused"
        if autoscaler.is_paused:
            by = f"the annotation foresize.io/paused={autoscaler.pause_wish}"
        return Hold(Reason(ReasonCode.PAUSED, f"paused by {by}: decided, but not acted on"))
    if clash is not None and autoscaler.mode is Mode.AUTO:
        return clash
    changed, wait = remembered.changed_by_others_at_seconds, settings.respect_others_for.total_seconds()
    if changed is not None and autoscaler.mode is Mode.AUTO and now_seconds - changed < wait:
        left = wait - (now_seconds - changed)
        text = f"somebody else set {replicas_text(remembered.last_replicas or 0)}: left alone for another {left:.0f} s"
        return Hold(Reason(ReasonCode.CHANGED_BY_OTHERS, text))
    return None


def observed_demand(forecasts: Forecasts, key: SeriesKey) -> ObservedDemand | Hold:
    """The newest sample of a workload's demand, however old, or why there is none."""
    observed = forecasts.observed(key)
    if isinstance(observed, NoForecast):
        of_query = key.resource is Resource.CUSTOM and forecasts.panel is not None
        return Hold(Reason(ReasonCode.NO_QUERY_VALUE if of_query else ReasonCode.NO_OBSERVATION, observed.reason))
    return ObservedDemand(observed.value, observed.measured_at_seconds)


def demand_forecast(
    forecasts: Forecasts, key: SeriesKey, level: float, until_seconds: float, rungs: tuple[float, ...] = ()
) -> DemandForecast | Hold:
    """The demand peak from the end of what was observed until then, or why there is no such forecast.

    A level between two of the `rungs` is interpolated; without rungs it was itself forecast.
    """
    served = forecasts.of(key)
    if isinstance(served, NoForecast):
        code = ReasonCode.STALE_FORECAST if forecasts.is_stale(key) else ReasonCode.NO_FORECAST
        return Hold(Reason(code, served.reason))
    try:
        if not rungs or level in rungs:
            value = served.peak(level, until_seconds)
        else:
            value = sum(share * served.peak(rung, until_seconds) for rung, share in shares_of_rungs(rungs, level))
    except (ForecastError, KeyError) as error:
        return Hold(Reason(ReasonCode.NO_FORECAST, str(error.args[0])))
    return DemandForecast(
        value=value,
        level=level,
        horizon_seconds=until_seconds - served.known_until_seconds,
        cutoff_seconds=served.known_until_seconds,
        forecaster=served.series.served.forecaster,
        model_version=served.model.version,
        rung=_rung(served),
        because=served.reason,
    )


def _rung(served: ServedForecast) -> Rung:
    if served.series.served.is_baseline:
        return Rung.SEASONAL_NAIVE
    return Rung.PREVIOUS if served.model.origin is Origin.PREVIOUS else Rung.CHAMPION
