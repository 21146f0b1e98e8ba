"""Whatever happens, the status that is read says what was decided last, and is written only where it has something to
say: most cycles see that without making the status.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.cluster.commands import ScaleReplicas
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.cluster.snapshot import Rung
from autoscaler.controller.autoscalers import Actuator, Mode, Rival, RivalKind, TargetRef, as_time
from autoscaler.controller.planning import Plan
from autoscaler.controller.ports import DisruptionBudget
from autoscaler.controller.records import ActResult, Outcome
from autoscaler.controller.status import REFRESH_SECONDS, essence_of, outline_of, status_of
from autoscaler.decisions.guardrails import Recommendation, ScaleEvent
from tests.support.scaling import CART, NOON_SECONDS, ScalingParts, a_target, an_autoscaler, noon_rush

REF = TargetRef("apps/v1", "Deployment", "cart")
HPA = Rival(RivalKind.HPA, "shop", "cart-hpa", REF, min_replicas=2, max_replicas=6)
UID = f"object of {CART}"


def spec(**wishes: Any) -> Callable[[ScalingParts], None]:
    """The object is edited."""

    def edit(parts: ScalingParts) -> None:
        before = parts.cluster.autoscalers[UID]
        parts.cluster.autoscalers[UID] = replace(before, generation=before.generation + 1, **wishes)

    return edit


def target(**seen: Any) -> Callable[[ScalingParts], None]:
    """Its target is seen otherwise."""

    def change(parts: ScalingParts) -> None:
        parts.cluster.targets[CART] = replace(parts.cluster.targets[CART], **seen)

    return change


def rival(present: bool) -> Callable[[ScalingParts], None]:
    """An HPA appears or goes."""

    def change(parts: ScalingParts) -> None:
        parts.cluster.rivals.pop(HPA.uid, None)
        if present:
            parts.cluster.rivals[HPA.uid] = HPA

    return change


def source(is_down: bool) -> Callable[[ScalingParts], None]:
    """Usage can no longer be read, or can again."""

    def change(parts: ScalingParts) -> None:
        parts.source.is_down = is_down

    return change


HAPPENINGS = (
    lambda _: None,
    spec(mode=Mode.OBSERVE),
    spec(mode=Mode.AUTO),
    spec(actuator=Actuator.HPA_MIN_REPLICAS),
    spec(actuator=Actuator.SCALE),
    spec(max_replicas=4),
    spec(max_replicas=20),
    spec(min_replicas=3),
    spec(percentile=90.0),
    spec(is_paused=True, pause_wish="true"),
    spec(is_paused=False),
    spec(problem="spec.horizontal: cannot be read"),
    spec(problem=""),
    target(replicas=7),
    target(replicas=0),
    target(ready_replicas=1),
    target(ready_replicas=6),
    target(rollout="2 of 3 pods have the new version"),
    target(rollout=""),
    target(budgets=(DisruptionBudget("cart", 0),)),
    target(uid="made anew"),
    rival(True),
    rival(False),
    source(True),
    source(False),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(HAPPENINGS), st.sampled_from((1.0, 30.0, 300.0, 1200.0))), min_size=2, max_size=14
    )
)
def test_what_is_read_is_what_was_decided_last(happenings: list[tuple[Callable[[ScalingParts], None], float]]) -> None:
    """Whatever a person or a new leader must know; the rest within ten minutes."""
    parts = ScalingParts(
        usage_by_workload={CART: noon_rush(2.0, 5.6)},
        targets=(a_target(),),
        autoscalers=(an_autoscaler(min_replicas=1),),
    )
    parts.clock.now = float(NOON_SECONDS)
    controller, told_at = parts.controller(), 0.0
    for happens, seconds in happenings:
        happens(parts)
        parts.clock.now += seconds
        before, now = parts.status(), parts.clock.now

        report = controller.cycle()

        written = parts.status()
        told_at = told_at if written is before else now
        for record in report.records:
            decided = status_of(record.plan, record.result, before, now, record.sizing)
            assert essence_of(written) == essence_of(decided)
            assert written == decided or now - told_at < REFRESH_SECONDS


def test_a_condition_without_a_time_holds_from_now_on() -> None:
    """The API server takes one, from whoever edits a status; a cycle does not break on it."""
    edited = {"conditions": [{"type": "AbleToScale", "status": "True"}]}
    parts = ScalingParts(
        usage_by_workload={CART: noon_rush(2.0, 5.6)},
        targets=(a_target(),),
        autoscalers=(an_autoscaler(status=edited),),
    )
    parts.clock.now = float(NOON_SECONDS)

    parts.controller().cycle()

    (able,) = [each for each in parts.status()["conditions"] if each["type"] == "AbleToScale"]
    assert able["lastTransitionTime"] == as_time(NOON_SECONDS)


Decided = tuple[Plan, ActResult]
LATER = NOON_SECONDS + 30.0
HOLD = Hold(Reason(ReasonCode.PAUSED, "paused by a test"))


def planned(**changes: Any) -> Callable[[Decided], Decided]:
    """The plan differs."""
    return lambda decided: (replace(decided[0], **changes), decided[1])


def with_decision(**changes: Any) -> Callable[[Decided], Decided]:
    """The decision differs."""
    return lambda decided: (replace(decided[0], decision=replace(decided[0].decision, **changes)), decided[1])


def with_past(**changes: Any) -> Callable[[Decided], Decided]:
    """What is remembered differs."""
    return lambda decided: (replace(decided[0], remembered=replace(decided[0].remembered, **changes)), decided[1])


def with_memory(**changes: Any) -> Callable[[Decided], Decided]:
    """What the guardrails remember differs."""
    return lambda d: with_past(replicas=d[0].remembered.replicas._replace(**changes))(d)


def with_budget(**changes: Any) -> Callable[[Decided], Decided]:
    """What the error budget remembers differs."""
    return lambda d: with_past(budget=d[0].remembered.budget._replace(**changes))(d)


def with_object(**changes: Any) -> Callable[[Decided], Decided]:
    """The object differs."""
    return lambda d: planned(workload=replace(d[0].workload, autoscaler=replace(d[0].autoscaler, **changes)))(d)


def with_target(**changes: Any) -> Callable[[Decided], Decided]:
    """The target differs."""
    return lambda d: planned(workload=replace(d[0].workload, target=replace(d[0].workload.target, **changes)))(d)


def burning(decided: Decided) -> Decided:
    """The error budget burns fast."""
    standing = decided[0].standing
    if standing is None:
        return decided
    veto = Reason(ReasonCode.ERROR_BUDGET_BURNS, "it burns")
    return planned(standing=replace(standing, budget=standing.budget._replace(veto=veto)))(decided)


def unknown(decided: Decided) -> Decided:
    """What the error budget counts is not known any more."""
    standing = decided[0].standing
    return decided if standing is None else planned(standing=replace(standing, remark="not known"))(decided)


def further_reason(code: ReasonCode) -> Callable[[Decided], Decided]:
    """There is one more reason."""
    return lambda d: with_decision(reasons=(*d[0].decision.reasons, Reason(code, "by a test")))(d)


def with_result(outcome: Outcome) -> Callable[[Decided], Decided]:
    """It ended otherwise."""
    return lambda decided: (decided[0], ActResult(outcome))


def forecast_of(**changes: Any) -> Callable[[Decided], Decided]:
    """The forecast differs."""

    def change(decided: Decided) -> Decided:
        forecast = decided[0].decision.forecast
        return decided if isinstance(forecast, Hold) else with_decision(forecast=replace(forecast, **changes))(decided)

    return change


VARIATIONS = (
    with_object(generation=7),
    with_object(mode=Mode.AUTO),
    with_object(actuator=Actuator.HPA_MIN_REPLICAS),
    with_target(replicas=9),
    with_target(ready_replicas=1),
    planned(conflict=Hold(Reason(ReasonCode.CONFLICT, "an HPA steers it too"))),
    planned(standing=None),
    planned(data_age_seconds=77.0),
    burning,
    unknown,
    with_decision(rung=Rung.REACTIVE),
    with_decision(rung=Rung.HOLD),
    with_decision(current=5),
    with_decision(desired=6),
    with_decision(outcome=HOLD),
    with_decision(outcome=ScaleReplicas(CART, 3, 6, Reason(ReasonCode.FORECAST_PEAK, "by a test"))),
    with_decision(observed=Hold(Reason(ReasonCode.NO_OBSERVATION, "nothing was seen"))),
    with_decision(forecast=Hold(Reason(ReasonCode.NO_FORECAST, "nothing is forecast"))),
    with_decision(forecast=Hold(Reason(ReasonCode.STALE_FORECAST, "it is old"))),
    forecast_of(model_version="9"),
    forecast_of(rung=Rung.PREVIOUS),
    forecast_of(value=2.5),
    *(
        further_reason(code)
        for code in (
            ReasonCode.TOO_MANY_REPLICAS,
            ReasonCode.TOO_FEW_REPLICAS,
            ReasonCode.SCALE_DOWN_LIMIT,
            ReasonCode.SCALE_DOWN_STABILIZED,
            ReasonCode.ROLLOUT,
            ReasonCode.DISRUPTION_BUDGET,
            ReasonCode.PAUSED,
            ReasonCode.CHANGED_BY_OTHERS,
        )
    ),
    *(with_result(outcome) for outcome in Outcome),
    with_memory(highs=(Recommendation(LATER, 8),)),
    with_memory(highs=(Recommendation(LATER, 3),)),
    with_memory(lows=(Recommendation(LATER, 2),)),
    with_memory(events=(ScaleEvent(LATER, 2),)),
    with_past(target_uid="another"),
    with_past(last_replicas=4),
    with_past(last_minimum=4),
    with_past(changed_by_others_at_seconds=LATER),
    with_past(last_scale_seconds=LATER),
    with_past(set_from_generation=4),
    with_past(lead_seconds=77.0),
    with_budget(offset=0.2),
    with_budget(offset=0.9),
    with_budget(burns_since_seconds=LATER),
    with_budget(spent_seconds=77.0),
)


def test_decisions_of_one_outline_have_one_essence() -> None:
    """Whichever two things differ: else a change that people must know would wait for ten minutes."""
    parts = ScalingParts(usage_by_workload={CART: noon_rush(2.0, 2.0)}, autoscalers=(an_autoscaler(mode=Mode.OBSERVE),))
    record = parts.controller().cycle().records[0]
    before, base = parts.status(), (record.plan, record.result)
    essences: dict[str, list[object]] = {}

    for first, second in combinations((lambda same: same, *VARIATIONS), 2):
        plan, result = second(first(base))
        outline = outline_of(replace(record, plan=plan, result=result))
        if outline is not None:
            essences.setdefault(repr(outline), []).append(essence_of(status_of(plan, result, before, LATER)))

    assert all(each == group[0] for group in essences.values() for each in group)
    assert len(essences) > 500
    assert any(len(group) > 1 for group in essences.values())
