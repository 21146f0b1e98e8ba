"""What an object asks for is done, and what it must keep the controller from doing is not done."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from autoscaler.cluster.capacity import Capacity
from autoscaler.cluster.reasons import Hold, ReasonCode
from autoscaler.cluster.resources import Resources
from autoscaler.cluster.snapshot import Rung
from autoscaler.controller.autoscalers import (
    NOTHING_REMEMBERED,
    Actuator,
    GivenRules,
    Mode,
    Rival,
    RivalKind,
    ScheduledFloor,
    TargetRef,
    conflict,
    seconds_of,
)
from autoscaler.controller.policy import lead_time, policy_of, rules_of
from autoscaler.controller.ports import DisruptionBudget
from autoscaler.controller.records import DecisionRecord, Outcome
from autoscaler.controller.status import recorded, remembered_from
from autoscaler.decisions.guardrails import (
    DOWN_DEFAULT,
    NO_MEMORY,
    Behaviour,
    Recommendation,
    ReplicaMemory,
    ScaleEvent,
    guarded,
    remembered_scale,
)
from autoscaler.settings import ScalingSettings
from predictor.usage.panel import Resource
from tests.support.scaling import CART, NOON_SECONDS, ScalingParts, a_target, an_autoscaler, noon_rush
from tests.support.serving import ManualClock

NOW = float(NOON_SECONDS)
WINDOW = ScalingSettings().scale_down_stabilisation.total_seconds() + 1


def a_rival(kind: RivalKind, **more: Any) -> Rival:
    return Rival(kind, "shop", "other", TargetRef("apps/v1", "Deployment", "cart"), uid="rival", **more)


def before_the_rush(*rivals: Rival, **spec: Any) -> ScalingParts:
    """A minute past noon: the rush begins within the lead time of ten minutes."""
    parts = ScalingParts(autoscalers=(an_autoscaler(**spec),), clock=ManualClock(NOW + 60))
    for rival in rivals:
        parts.cluster.put(rival)
    return parts


def idle(replicas: int, **changes: Any) -> ScalingParts:
    """Far too many replicas for what is used."""
    return ScalingParts(
        targets=(a_target(replicas=replicas),), usage_by_workload={CART: noon_rush(0.5, 0.5)}, **changes
    )


def one_cycle(parts: ScalingParts) -> DecisionRecord:
    (record,) = parts.controller().cycle().records
    return record


# --- modes and bounds


def test_observing_writes_a_status_and_no_replicas() -> None:
    """What would be done can be read in the object; the target stays as it is."""
    parts = before_the_rush(mode=Mode.OBSERVE)

    record = one_cycle(parts)

    assert record.result.outcome is Outcome.OBSERVED
    assert parts.replicas() == 3
    assert parts.status()["desiredReplicas"] == record.plan.decision.desired > 3
    assert parts.condition("AbleToScale") == ("True", "Observe")
    assert parts.status()["decisions"][0]["outcome"] == "observed"


def test_the_percentile_of_an_object_is_the_level_that_is_asked_for() -> None:
    """Its own stands over the settings', although nothing else asks for that level."""
    record = one_cycle(before_the_rush(percentile=93.0))

    assert record.plan.decision.forecast.level == 0.93  # type: ignore[union-attr]
    assert record.plan.decision.rung is Rung.CHAMPION


def test_a_target_value_is_what_a_replica_carries() -> None:
    """No utilisation is taken off it, and no request is needed."""
    policy = policy_of(
        an_autoscaler(resource=Resource.REQUESTS, target_value=120.0),
        Resources(),
        (),
        NOTHING_REMEMBERED,
        settings=ScalingSettings(),
        now_seconds=NOW,
    )

    assert policy.capacity == Capacity(120.0)


def test_rules_that_an_object_gives_stand_over_the_defaults() -> None:
    """One field alone leaves the others as they are."""
    behaviour = rules_of(GivenRules(tolerance=0.0), GivenRules(stabilisation_seconds=60.0), ScalingSettings()).behaviour

    assert (behaviour.up.tolerance, behaviour.down.tolerance) == (0.0, 0.1)
    assert (behaviour.down.stabilisation_seconds, behaviour.down.policies) == (60.0, DOWN_DEFAULT.policies)


# --- lead time


def test_the_lead_time_is_what_pods_took_and_the_next_decision() -> None:
    """All but one in twenty; a single slow pod among many does not count."""
    settings = ScalingSettings(interval="30s")

    assert lead_time([20.0] * 99 + [900.0], None, settings)[0] == 50.0
    assert lead_time([20.0] * 9 + [100.0], None, settings)[0] == 130.0


def test_few_pods_do_not_tell_a_lead_time() -> None:
    """Then what was measured last counts, else the setting; nothing exceeds the longest that is allowed."""
    settings = ScalingSettings(lead_time="4m", longest_lead_time="20m")

    assert lead_time([1.0] * 4, None, settings)[0] == 240.0
    assert lead_time([], 75.0, settings)[0] == 75.0
    few = ScalingParts(targets=(a_target(ready_seconds=(5.0,) * 2),))
    assert one_cycle(few).plan.remembered.lead_seconds is None
    assert lead_time([5000.0] * 10, None, settings)[0] == 1200.0


def test_a_slow_start_is_ordered_further_ahead() -> None:
    """Pods that take 15 minutes: the rush in 10 minutes is ordered for now, with quick ones it is not."""
    slow = ScalingParts(targets=(a_target(ready_seconds=(900.0,) * 9),))
    quick = ScalingParts(targets=(a_target(ready_seconds=(5.0,) * 9),))

    assert one_cycle(slow).plan.decision.desired > 3
    assert one_cycle(quick).plan.decision.desired == 3


# --- schedule


def test_a_floor_is_there_when_its_event_begins_and_gone_after_it() -> None:
    """Ordered one lead time before; across a change of the clock the time zone's own time counts."""
    sale = ScheduledFloor("sale", "0 8 * * FRI", 3600.0, 10, "Europe/Berlin")
    begins = seconds_of("2026-11-27T07:00:00Z")  # a Friday, eight o'clock in Berlin

    at = {s: sale.is_active(begins + s, 300.0) for s in (-400, -290, 0, 3590, 3610)}

    assert at == {-400: False, -290: True, 0: True, 3590: True, 3610: False}
    assert sale.is_active(seconds_of("2026-07-03T06:00:00Z"), 0.0)


def test_a_scheduled_floor_raises_replicas_that_nothing_else_asks_for() -> None:
    """Named in the policy; never above the maximum."""
    always = ScheduledFloor("launch", "* * * * *", 3600.0, 8)

    record = one_cycle(idle(2, autoscalers=(an_autoscaler(schedule=(always,)),)))
    capped = one_cycle(
        idle(2, autoscalers=(an_autoscaler(schedule=(replace(always, min_replicas=90),), max_replicas=9),))
    )

    assert (record.plan.decision.desired, record.plan.policy and record.plan.policy.event) == (8, "launch")
    assert record.plan.decision.reason.code is ReasonCode.TOO_FEW_REPLICAS
    assert capped.plan.decision.desired == 9


# --- what keeps it from acting


@pytest.mark.parametrize("kind", [RivalKind.HPA, RivalKind.SCALED_OBJECT, RivalKind.VPA])
def test_nothing_is_written_while_something_else_steers(kind: RivalKind) -> None:
    """Said in the condition and an Event; once it is gone the controller goes on and says so."""
    parts = before_the_rush(a_rival(kind))
    controller = parts.controller()

    (record,) = controller.cycle().records
    assert parts.replicas() == 3
    assert record.plan.decision.reason.code is ReasonCode.CONFLICT
    assert parts.condition("Conflict") == ("True", "Conflict")
    assert f"{kind.value} other also steers {CART}" in parts.cluster.events[-1].note

    parts.cluster.remove("rival")
    controller.cycle()
    assert parts.replicas() > 3
    assert parts.condition("Conflict") == ("False", "NoConflict")
    assert [event.reason for event in parts.cluster.events] == ["Conflict", "SuccessfulRescale", "ConflictResolved"]


def test_two_objects_on_one_target_both_stand_back() -> None:
    """Neither knows better; who only observes disturbs nobody."""
    second = an_autoscaler(uid="second", name="cart-too")
    parts = before_the_rush()
    parts.cluster.put(second)
    controller = parts.controller()

    controller.cycle()
    assert parts.replicas() == 3

    parts.cluster.put(replace(second, mode=Mode.OBSERVE))
    controller.cycle()
    assert parts.replicas() > 3


def test_a_vpa_disturbs_only_what_rests_on_requests() -> None:
    """With a target value, or where it changes another resource, the replicas' capacity stays what it is."""
    vpa = a_rival(RivalKind.VPA, resources=(Resource.MEMORY,))

    assert conflict(an_autoscaler(), (vpa,)) is None
    assert conflict(an_autoscaler(resource=Resource.MEMORY), (vpa,)) is not None
    assert conflict(an_autoscaler(resource=Resource.MEMORY, target_value=1.0), (vpa,)) is None


def test_an_observing_object_is_not_troubled_by_an_hpa() -> None:
    """Its decision stays readable next to what runs today."""
    parts = before_the_rush(a_rival(RivalKind.HPA), mode=Mode.OBSERVE)

    one_cycle(parts)

    assert parts.status()["reason"] == "ForecastPeak"
    assert parts.condition("Conflict") == ("False", "Observe")


def test_a_paused_object_that_only_observes_says_what_it_would_do() -> None:
    """There is nothing to stop, and what would be done stays readable."""
    parts = before_the_rush(mode=Mode.OBSERVE, is_paused=True)

    one_cycle(parts)

    assert parts.status()["reason"] == "ForecastPeak"


def test_replicas_that_a_person_set_are_left_alone_for_a_while() -> None:
    """Ten minutes by default, then foresize takes over again; it is said meanwhile."""
    parts = before_the_rush()
    controller = parts.controller()
    controller.cycle()
    parts.cluster.put(replace(parts.cluster.targets[CART], replicas=2))
    parts.clock.now += 30

    (record,) = controller.cycle().records
    assert record.plan.decision.reason.code is ReasonCode.CHANGED_BY_OTHERS
    assert parts.condition("AbleToScale") == ("False", "ChangedByOthers")
    assert parts.replicas() == 2

    parts.clock.now += 601
    controller.cycle()
    assert parts.replicas() > 2


def test_its_own_change_is_nobody_elses() -> None:
    """What it wrote itself does not stop it in the next cycle."""
    parts = before_the_rush()
    controller = parts.controller()
    controller.cycle()

    (again,) = controller.cycle().records

    assert again.plan.remembered.changed_by_others_at_seconds is None


def test_a_picture_from_before_its_own_change_shows_no_change_by_others() -> None:
    """A watch that lags behind: what it set stands until something newer is seen, for the next leader too."""
    parts = ScalingParts(targets=(a_target(generation=1),), clock=ManualClock(NOW + 60))
    before = parts.cluster.targets[CART]
    first = parts.controller()
    first.cycle()
    raised = parts.replicas()
    parts.cluster.put(before)

    for controller in (first, parts.controller()):
        parts.clock.now += 30
        (record,) = controller.cycle().records
        assert (record.plan.decision.current, record.plan.decision.reason.code) == (
            raised,
            ReasonCode.READY_FOR_NEW_SCALE,
        )
        assert parts.status()["currentReplicas"] == raised

    parts.cluster.put(replace(before, replicas=2, generation=3))
    (record,) = first.cycle().records
    assert record.plan.decision.reason.code is ReasonCode.CHANGED_BY_OTHERS


def test_a_change_that_a_copy_made_and_could_not_tell_is_nobody_elses() -> None:
    """Killed after the write and before the status: its successor goes on, and the change counts in the rate limits."""
    parts = before_the_rush()
    parts.controller().cycle()
    raised = parts.replicas()
    parts.cluster.put(replace(parts.cluster.targets[CART], replicas=raised + 2, is_set_by_us=True))
    parts.clock.now += 30

    (record,) = parts.controller().cycle().records

    assert record.plan.remembered.changed_by_others_at_seconds is None
    assert record.plan.decision.current == raised + 2
    assert record.plan.remembered.last_replicas == parts.replicas()
    assert record.plan.remembered.replicas.events[-2:] == (
        ScaleEvent(parts.clock.now, 2),
        ScaleEvent(parts.clock.now, -2),
    )
    assert parts.condition("AbleToScale")[0] == "True"
    told = [event.note for event in parts.cluster.events if event.reason == "SuccessfulRescale"]
    assert sum(f"from {raised} to {raised + 2} replicas" in each for each in told) == 1
    assert sum(f"from {raised + 2} to {raised} replicas" in each for each in told) == 1
    for _ in range(2):
        shown = [(d["from"], d["to"], d["reason"], d["outcome"]) for d in parts.status()["decisions"]]
        assert shown[1:2] == [(raised, raised + 2, "UntoldChange", "applied")]
        assert [(was, to) for was, to, *_ in shown] == [(raised + 2, raised), (raised, raised + 2), (3, raised)]
        parts.controller().cycle()  # the next leader finds it told


def test_an_observer_does_not_take_changes_by_another_object_for_its_own() -> None:
    """Two objects for one target, of which one acts: only that one tells what it set."""
    watching = an_autoscaler(name="trial", uid="trial", mode=Mode.OBSERVE)
    parts = ScalingParts(autoscalers=(an_autoscaler(), watching), clock=ManualClock(NOW + 60))
    controller = parts.controller()
    controller.cycle()
    parts.cluster.put(replace(parts.cluster.targets[CART], is_set_by_us=True))
    parts.clock.now += 30
    controller.cycle()

    assert parts.replicas() > 3
    assert {each.about.name for each in parts.cluster.events if each.reason == "SuccessfulRescale"} == {"cart"}
    trial = parts.cluster.autoscalers["trial"].status
    assert [each["outcome"] for each in trial["decisions"]] == ["observed"]


def test_two_objects_for_one_target_are_one_series_in_the_metrics() -> None:
    """That of the one in mode Auto, whatever their names: Prometheus drops the second of two."""
    watching = an_autoscaler(name="a-trial", uid="trial", mode=Mode.OBSERVE, max_replicas=7)
    parts = ScalingParts(autoscalers=(watching, an_autoscaler()), clock=ManualClock(NOW + 60))
    controller = parts.controller()
    controller.cycle()

    shown = generate_latest(controller.metrics.registry).decode().splitlines()
    series = [line.rpartition(" ")[0] for line in shown if not line.startswith("#")]
    assert len(series) == len(set(series))
    assert f'foresize_max_replicas{{namespace="shop",workload="{CART}"}} 20.0' in shown


def test_a_rollout_keeps_its_pods() -> None:
    """No replica is removed while one is in progress; more may be added."""
    parts = idle(15)
    controller = parts.controller()
    controller.cycle()
    parts.cluster.put(replace(parts.cluster.targets[CART], rollout="a rollout is in progress"))
    parts.clock.now += WINDOW

    (record,) = controller.cycle().records
    assert parts.replicas() == 15
    assert record.plan.decision.reason.code is ReasonCode.ROLLOUT

    parts.cluster.put(replace(parts.cluster.targets[CART], rollout=""))
    controller.cycle()
    assert parts.replicas() < 15


def test_no_more_replicas_are_removed_than_a_disruption_budget_allows() -> None:
    """The tightest of those that select its pods; one that allows none keeps all."""
    parts = idle(15)
    controller = parts.controller()
    controller.cycle()
    parts.clock.now += WINDOW
    budgets = (DisruptionBudget("loose", 9), DisruptionBudget("tight", 2))
    parts.cluster.put(replace(parts.cluster.targets[CART], budgets=budgets))

    (record,) = controller.cycle().records
    assert parts.replicas() == 13
    assert ReasonCode.DISRUPTION_BUDGET in {reason.code for reason in record.plan.decision.reasons}

    parts.cluster.put(replace(parts.cluster.targets[CART], budgets=(DisruptionBudget("none", 0),)))
    parts.clock.now += 30
    controller.cycle()
    assert parts.replicas() == 13


def test_a_target_that_is_not_there_is_said_to_be_missing() -> None:
    """Held without a number, and taken up once it comes."""
    parts = before_the_rush()
    parts.cluster.remove(CART)
    controller = parts.controller()

    controller.cycle()
    assert parts.condition("AbleToScale") == ("False", "FailedGetScale")
    assert "currentReplicas" not in parts.status()

    parts.cluster.put(a_target())
    controller.cycle()
    assert parts.replicas() > 3


# --- an HPA in charge


def test_the_minimum_of_the_hpa_is_raised_and_its_replicas_are_left_to_it() -> None:
    """It stays in charge: only the floor under it moves, and never above its own maximum."""
    hpa = a_rival(RivalKind.HPA, min_replicas=2, max_replicas=6)
    parts = before_the_rush(hpa, actuator=Actuator.HPA_MIN_REPLICAS)

    record = one_cycle(parts)

    assert record.result.outcome is Outcome.APPLIED
    assert parts.cluster.rivals["rival"].min_replicas == 6
    assert parts.replicas() == 3
    assert parts.cluster.events[0].note.startswith("minReplicas of HorizontalPodAutoscaler other from 2 to 6: ")
    assert record.as_json()["max_source"] == "HorizontalPodAutoscaler other"
    said = next(c["message"] for c in parts.status()["conditions"] if c["type"] == "Conflict")
    assert said == f"only the HorizontalPodAutoscaler in charge steers {CART}"


def test_the_minimum_of_the_hpa_is_lowered_only_after_a_whole_window() -> None:
    """The guardrails hold for it as they do for replicas."""
    hpa = a_rival(RivalKind.HPA, min_replicas=9, max_replicas=20)
    parts = idle(9, autoscalers=(an_autoscaler(actuator=Actuator.HPA_MIN_REPLICAS),))
    parts.cluster.put(hpa)
    controller = parts.controller()

    controller.cycle()
    assert parts.cluster.rivals["rival"].min_replicas == 9
    parts.clock.now += WINDOW
    controller.cycle()
    assert parts.cluster.rivals["rival"].min_replicas < 9


@pytest.mark.parametrize(
    ("rivals", "said"),
    [
        ((), "needs a HorizontalPodAutoscaler"),
        ((a_rival(RivalKind.HPA), replace(a_rival(RivalKind.HPA), uid="2")), "2 HorizontalPodAutoscalers steer"),
        ((a_rival(RivalKind.HPA, owner="ScaledObject/cart"),), "is kept by ScaledObject/cart"),
    ],
)
def test_an_hpa_that_cannot_be_steered_is_a_conflict(rivals: tuple[Rival, ...], said: str) -> None:
    """None, two, or one that something else would put back."""
    clash = conflict(an_autoscaler(actuator=Actuator.HPA_MIN_REPLICAS), rivals)

    assert clash is not None
    assert said in clash.reason.message


# --- leading


def test_a_copy_on_standby_decides_and_writes_nothing() -> None:
    """It keeps its forecasts ready, and acts in the first cycle that it leads."""
    parts = before_the_rush()
    parts.leadership.is_leader = False
    controller = parts.controller()

    report = controller.cycle()
    assert (report.is_standby, report.records, parts.cluster.writes) == (True, (), 0)
    assert parts.source.fetches == 1

    parts.leadership.is_leader = True
    controller.cycle()
    assert parts.replicas() > 3
    assert parts.source.fetches == 1


def test_a_lease_that_ends_in_the_middle_stops_the_next_write() -> None:
    """The scale was read, then the lease ran out: nothing is written, no status either."""
    parts = before_the_rush()
    read = parts.cluster.scale_of

    def slow(namespace: str, target: TargetRef) -> Any:
        parts.leadership.is_leader = False
        return read(namespace, target)

    parts.cluster.scale_of = slow  # type: ignore[method-assign]

    record = one_cycle(parts)

    assert (record.result.outcome, parts.cluster.writes) == (Outcome.SKIPPED, 0)


def test_a_new_leader_goes_on_where_the_old_one_stopped() -> None:
    """It removes replicas when the old one would have, not earlier and not a whole window later."""
    parts = idle(15)
    first = parts.controller()
    first.cycle()
    parts.clock.now += 200
    first.cycle()

    second = parts.controller()
    second.cycle()
    assert parts.replicas() == 15

    parts.clock.now += WINDOW - 200
    second.cycle()
    assert parts.replicas() < 15


def test_who_leads_again_believes_what_the_other_one_left() -> None:
    """It lost the lease and got it back between two cycles: its own memory is older than the statuses."""
    parts = idle(15)
    first, second = parts.controller(), parts.controller()
    first.cycle()
    parts.clock.now += 200
    second.cycle()
    parts.cluster.put(replace(parts.cluster.targets[CART], replicas=14))
    second.cycle()
    parts.leadership.transitions += 2
    parts.clock.now += 30

    (record,) = first.cycle().records

    assert record.plan.remembered.last_replicas == 14
    assert record.plan.remembered.changed_by_others_at_seconds == parts.clock.now - 30


def test_an_unchanged_fleet_is_not_written_to() -> None:
    """The second cycle has nothing to say: no replicas, no status, no Event."""
    parts = ScalingParts(usage_by_workload={CART: noon_rush(2.0, 2.0)})
    controller = parts.controller()
    controller.cycle()
    before = parts.cluster.writes

    for _ in range(5):
        parts.clock.now += 30
        controller.cycle()

    assert parts.cluster.writes == before == 1


def test_figures_are_brought_up_to_date_now_and_then() -> None:
    """What only moved is written after ten minutes, not with each step."""
    rising = noon_rush(2.0, 2.0) + 0.0001 * (1 + (noon_rush(1.0, 1.0).cumsum() % 7))
    parts = ScalingParts(usage_by_workload={CART: rising})
    controller = parts.controller()
    writes = []

    for _ in range(21):
        controller.cycle()
        writes.append(parts.cluster.writes)
        parts.clock.now += 60

    assert writes[9] == 1
    assert 2 <= writes[-1] <= 3


def test_more_writes_than_allowed_wait_for_the_next_cycle() -> None:
    """Replicas come before statuses; what is left out is decided anew."""
    usage = {f"shop/Deployment/w{n}": noon_rush(2.0, 5.6) for n in range(6)}
    parts = ScalingParts(
        usage_by_workload=usage,
        targets=tuple(a_target(name) for name in usage),
        settings=ScalingSettings(writes_per_second=4, interval="1s"),
        clock=ManualClock(NOW + 60),
    )
    controller = parts.controller()

    controller.cycle()
    assert sum(parts.replicas(name) > 3 for name in usage) == 4
    assert parts.cluster.writes == 4
    controller.cycle()
    assert parts.cluster.writes == 4, "no time has passed, so nothing more is allowed"
    parts.clock.now += 1
    controller.cycle()
    assert all(parts.replicas(name) > 3 for name in usage)


def test_what_could_not_be_told_in_its_own_cycle_is_told_in_a_later_one() -> None:
    """Each change has its Event and its entry in the status, although all writes went into replicas."""
    usage = {f"shop/Deployment/w{n}": noon_rush(2.0, 5.6) for n in range(6)}
    parts = ScalingParts(
        usage_by_workload=usage,
        targets=tuple(a_target(name) for name in usage),
        settings=ScalingSettings(writes_per_second=4, interval="1s"),
        clock=ManualClock(NOW + 60),
    )
    controller = parts.controller()

    for _ in range(9):
        controller.cycle()
        parts.clock.now += 1

    told = sorted((event.about.workload, event.reason) for event in parts.cluster.events)
    assert told == [(name, "SuccessfulRescale") for name in usage]
    assert {len(parts.status(name)["decisions"]) for name in usage} == {1}
    assert {parts.status(name)["decisions"][0]["outcome"] for name in usage} == {"applied"}


def test_each_rung_down_is_told_once() -> None:
    """Prometheus goes: a warning with the reason; it comes back: told again."""
    parts = ScalingParts(usage_by_workload={CART: noon_rush(2.0, 2.0)})
    controller = parts.controller()
    controller.cycle()
    parts.source.is_down = True
    for _ in range(3):
        parts.clock.now += 300
        controller.cycle()
    parts.source.is_down = False
    parts.clock.now += 300
    controller.cycle()

    told = [(event.reason, event.is_warning) for event in parts.cluster.events]
    assert told == [("RungLowered", True), ("RungRaised", False)]
    assert parts.cluster.events[0].note.startswith("champion -> hold: ")
    assert "did not answer" in parts.cluster.events[0].note


# --- what a status remembers


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(1, 30)), min_size=1, max_size=30),
    st.integers(1, 400),
    st.integers(1, 30),
)
def test_a_memory_read_back_never_removes_more(past: list[tuple[int, int]], later: int, wanted: int) -> None:
    """Whatever was recommended before: a new leader keeps at least the replicas that the old one would have."""
    behaviour, memory, now, current = Behaviour(), NO_MEMORY, NOW, 30
    for seconds, replicas in past:
        now += seconds
        result = guarded(current, replicas, (1, 100), memory, behaviour, now_seconds=now)
        memory = result.memory
        if result.replicas != current:
            memory = remembered_scale(memory, result.replicas - current, behaviour, now)
            current = result.replicas
    status = {"stabilization": recorded(replace(NOTHING_REMEMBERED, replicas=memory))}

    read = remembered_from(status, now).replicas

    own = guarded(current, wanted, (1, 100), memory, behaviour, now_seconds=now + later).replicas
    others = guarded(current, wanted, (1, 100), read, behaviour, now_seconds=now + later).replicas
    assert others >= own


def test_what_a_status_remembers_is_read_back() -> None:
    """To the microsecond; the newest recommendation counts as made now."""
    memory = ReplicaMemory(
        (Recommendation(NOW - 90.5, 9), Recommendation(NOW - 30, 4)), (), (ScaleEvent(NOW - 12.25, -3),)
    )
    kept = replace(NOTHING_REMEMBERED, replicas=memory, target_uid="t", last_replicas=4, last_scale_seconds=NOW - 12.25)

    read = remembered_from({"stabilization": recorded(kept), "rung": "champion"}, NOW)

    highs = (Recommendation(NOW - 90.5, 9), Recommendation(NOW, 4))
    assert read == replace(kept, replicas=memory._replace(highs=highs), rung=Rung.CHAMPION, was_read=True)


@pytest.mark.parametrize("kept", [None, 7, {"highest": [{"time": "yesterday"}]}, {"changes": 3}, {"lastReplicas": "x"}])
def test_a_status_that_somebody_broke_is_not_believed(kept: Any) -> None:
    """Nothing is remembered then, which removes nothing for a whole window."""
    assert remembered_from({"stabilization": kept}, NOW).replicas == NO_MEMORY


def test_a_hold_of_an_unknown_target_has_no_number() -> None:
    """Nothing was seen, so nothing is said of replicas."""
    parts = before_the_rush()
    parts.cluster.remove(CART)

    record = one_cycle(parts)

    assert isinstance(record.plan.decision.outcome, Hold)
    assert record.reading().current_replicas is None
