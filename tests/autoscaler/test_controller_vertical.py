"""Containers are sized as an object asks: recommended in its status, resized in place, and never against the rules."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autoscaler.cluster.containers import Amounts, PendingResize
from autoscaler.controller.advisor import RequestAdvisor
from autoscaler.controller.autoscalers import (
    ContainerPolicy,
    Mode,
    PredictiveAutoscaler,
    Rival,
    RivalKind,
    TargetRef,
    Vertical,
    VerticalMode,
    as_micro_time,
    as_time,
    conflict,
)
from autoscaler.controller.explanation import explanation
from autoscaler.controller.quantities import amount_text, quantity
from autoscaler.errors import ClusterRefused
from autoscaler.settings import ScalingSettings, VerticalSettings
from predictor.usage.containers import ContainerName
from predictor.usage.panel import Resource
from tests.support.scaling import CART, a_target, an_autoscaler
from tests.support.serving import STEP_SECONDS, ManualClock
from tests.support.sizing import APP, MIB, ContainerHistory, SizingParts, a_pod, a_sized_object

RECOMMEND = VerticalMode.RECOMMEND


def after_one_cycle(**changes: Any) -> SizingParts:
    parts = SizingParts(**changes)
    parts.controller().cycle()
    return parts


def recommending(**changes: Any) -> SizingParts:
    return after_one_cycle(autoscalers=(a_sized_object(RECOMMEND),), **changes)


# --- recommendations


def test_a_recommendation_is_written_and_no_pod_is_touched() -> None:
    """The VPA's four figures and why, as quantities; 0.5 cores of the busiest pod, 200 MiB and a tenth."""
    parts = recommending()

    assert parts.recommended()["name"] == "app"
    assert parts.recommended()["target"] == {"cpu": "500m", "memory": "220Mi"}
    assert parts.recommended()["uncappedTarget"] == {"cpu": "500m", "memory": "220Mi"}
    assert parts.recommended()["lowerBound"] == {"cpu": "400m", "memory": "200Mi"}
    assert parts.recommended()["upperBound"] == {"cpu": "563m", "memory": "225Mi"}
    assert "busiest pod" in parts.recommended()["reason"]
    assert parts.condition("RecommendationProvided") == ("True", "RecommendationProvided")
    assert parts.cluster.resizes == []
    assert "resize" not in parts.status()


def test_nothing_is_asked_where_nobody_asks() -> None:
    """The default: no query, no field in the status."""
    parts = after_one_cycle(autoscalers=(an_autoscaler(),))

    assert parts.history.asked == []
    assert not {"recommendation", "resize"} & parts.status().keys()


def test_one_question_for_all_workloads_and_once_a_step() -> None:
    """Only for those that ask; at once for one that is new."""
    other = replace(a_target("shop/Deployment/till"), uid="t")
    parts = SizingParts(targets=(a_target(), other), autoscalers=(a_sized_object(RECOMMEND), an_autoscaler(other.name)))
    controller = parts.controller()

    controller.cycle()
    parts.clock.now += 30
    controller.cycle()
    assert parts.history.asked == [frozenset({CART})]

    parts.cluster.put(an_autoscaler(other.name, vertical=Vertical(RECOMMEND)))
    controller.cycle()
    assert parts.history.asked == [frozenset({CART}), frozenset({CART, other.name})]

    parts.clock.now += STEP_SECONDS
    controller.cycle()
    assert len(parts.history.asked) == 3


def test_policies_cap_and_leave_alone() -> None:
    """A container that is off has no entry, a resource that is not controlled no figure."""
    second = ContainerName(CART, "proxy")
    policies = (
        ("*", ContainerPolicy(controlled=(Resource.MEMORY,), most=Amounts(None, 100.0 * MIB))),
        ("proxy", ContainerPolicy(is_off=True)),
    )
    one = replace(a_sized_object(), vertical=Vertical(RECOMMEND, policies))
    history = ContainerHistory()
    history.usage[second] = history.usage[APP]
    parts = after_one_cycle(autoscalers=(one,), history=history, targets=(a_target(pods=(a_pod(),)),))

    assert len(parts.status()["recommendation"]["containers"]) == 1
    assert parts.recommended()["target"] == {"memory": "100Mi"}
    assert parts.recommended()["uncappedTarget"] == {"memory": "220Mi"}
    assert "capped by maxAllowed" in parts.recommended()["reason"]


@pytest.mark.parametrize(
    ("usage", "said"),
    [
        ({}, "no usage of it was measured"),
        ({APP: tuple(np.where(np.arange(2592) < 2300, np.nan, 1.0) for _ in range(3))}, "and a day is needed"),
        ({APP: tuple(np.where(np.arange(2592) > 2000, np.nan, 1.0) for _ in range(3))}, "within the last day"),
    ],
    ids=["none", "too little", "long ago"],
)
def test_without_usage_there_is_no_recommendation_but_a_reason(usage: Any, said: str) -> None:
    """No figure is made up."""
    parts = recommending(history=ContainerHistory(usage))

    assert said in parts.recommended()["reason"]
    assert "memory" not in parts.recommended().get("target", {})
    assert parts.condition("RecommendationProvided")[0] == "False"


def test_a_source_that_is_down_is_said_to_be_and_scaling_goes_on() -> None:
    """No recommendation, with what it said; replicas are decided as ever."""
    history = ContainerHistory(is_down=True)
    parts = recommending(history=history, clock=ManualClock(SizingParts().clock.now + 60))

    assert parts.status()["recommendation"] == {
        "containers": [{"name": "app", "reason": parts.recommended()["reason"]}]
    }
    assert "did not answer within 60 s" in parts.recommended()["reason"]
    assert parts.replicas() > 3


def test_the_last_recommendation_stays_while_the_source_is_down() -> None:
    """With its age; after an hour it resizes nothing any more."""
    parts = SizingParts(pods=(a_pod(cpu=0.5, memory_mib=220),))
    controller = parts.controller()
    controller.cycle()
    first = parts.status()["recommendation"]
    parts.history.is_down = True
    parts.cluster.put(replace(parts.cluster.targets[CART], pods=(a_pod(cpu=0.1),)))

    parts.clock.now += 3600 + STEP_SECONDS
    controller.cycle()

    assert parts.status()["recommendation"] == first
    assert parts.cluster.resizes == []
    assert "rests on usage until" in parts.status()["resize"]["message"]


def test_a_slow_source_delays_no_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer comes when it comes; until then the status keeps what it said."""
    monkeypatch.setattr("autoscaler.controller.advisor.FIRST_WAIT_SECONDS", 0.0)
    told = {"recommendation": {"containers": [{"name": "app", "target": {"cpu": "1m"}}]}}
    parts = SizingParts(autoscalers=(a_sized_object(RECOMMEND, status=told),))
    controller = parts.controller()
    assert controller.vertical is not None
    advisor = RequestAdvisor(parts.history, VerticalSettings(), STEP_SECONDS)
    controller.vertical.advisor = advisor
    # The thread cannot have answered before it was asked.
    controller.cycle()
    if advisor._job is not None:
        assert parts.status()["recommendation"] == told["recommendation"]
        assert advisor._job.done.wait(20)

    parts.clock.now += 30
    controller.cycle()
    assert parts.recommended()["target"]["cpu"] == "500m"


def test_an_answer_that_took_long_is_not_asked_for_again_in_every_step() -> None:
    """It took five minutes: the next is asked for 20 minutes later; meanwhile the old usage cuts no memory."""
    parts = SizingParts(pods=(a_pod(cpu=0.5, memory_mib=1000),))
    controller = parts.controller()
    assert controller.vertical is not None
    ticks = iter(range(0, 3000, 300))
    controller.vertical.advisor.timer = lambda: float(next(ticks))
    controller.cycle()
    assert parts.requests() == {"cart-1": Amounts(0.5, 220 * MIB)}
    parts.cluster.put(replace(parts.cluster.targets[CART], pods=(a_pod("cart-9", 0.5, 1000),)))

    parts.clock.now += 1190
    controller.cycle()
    assert len(parts.history.asked) == 1
    assert parts.requests() == {"cart-9": Amounts(0.5, 1000 * MIB)}
    parts.clock.now += 20
    controller.cycle()
    assert len(parts.history.asked) == 2
    assert parts.requests() == {"cart-9": Amounts(0.5, 220 * MIB)}


def test_an_explanation_shows_the_requests() -> None:
    """In a few lines after the replicas."""
    parts = SizingParts()
    (record,) = parts.controller().cycle().records

    said = explanation(record.as_json()).splitlines()

    assert "  requests     InPlace" in said
    assert any(line.startswith("    app        cpu 500m (400m to 563m), memory 220Mi (") for line in said)
    assert any(line.startswith("    pods       2 up to date") for line in said)


# --- resizing in place


def test_a_guaranteed_pod_that_its_limit_holds_back_grows_until_it_does_not() -> None:
    """Its usage is never above its limit, so it is what the limit is; each step adds 15 %, whatever the tolerance."""
    pod = a_pod(cpu=0.5, memory_mib=220, qos="Guaranteed", limits=Amounts(0.5, 220 * MIB))
    parts = SizingParts(pods=(pod,), vertical_settings=VerticalSettings(tolerance=0.5))
    controller = parts.controller()

    controller.cycle()
    (container,) = parts.cluster.targets[CART].pods[0].containers
    assert container.requests.cpu_cores == pytest.approx(0.575)
    assert container.limits == container.requests
    notes = [event.note for event in parts.cluster.events if event.reason == "ResizedPods"]
    assert notes == ["1 pods: cart-1 (app cpu 500m -> 575m, its limit too)"]
    controller.cycle()
    assert len(parts.cluster.resizes) == 1, "0.5 cores are used, which its new limit does not hold back"


def test_pods_are_resized_to_the_target() -> None:
    """Said in an Event, counted in the status; the next cycle has nothing to do."""
    parts = SizingParts()
    controller = parts.controller()

    controller.cycle()
    assert set(parts.requests().values()) == {Amounts(0.5, 220 * MIB)}
    assert parts.status()["resize"] == {
        "upToDate": 2,
        "waiting": 0,
        "inProgress": 0,
        "deferred": 0,
        "infeasible": 0,
        "leftAlone": 0,
        "lastResizeTime": as_time(parts.clock.now),
    }
    notes = [event.note for event in parts.cluster.events if event.reason == "ResizedPods"]
    assert notes == [
        "2 pods: cart-1 (app cpu 200m -> 500m, app memory 100Mi -> 220Mi); "
        "cart-2 (app cpu 200m -> 500m, app memory 100Mi -> 220Mi)"
    ]

    controller.cycle()
    assert len(parts.cluster.resizes) == 2


def test_while_the_error_budget_burns_no_request_is_cut() -> None:
    """Replicas and requests answer for the same SLA: what is left is kept until it does not burn any more."""
    parts = SizingParts(pods=(a_pod("cart-1", 2.0, 220), a_pod("cart-2", 0.2, 220)))
    told = as_micro_time(parts.clock.now)
    burning = {"offset": 0.0, "short": 1.0, "long": 1.0, "spentSeconds": 600.0, "knownUntil": told, "until": told}
    kept = {"targetUid": parts.targets[0].uid, "lastReplicas": parts.targets[0].replicas, "budget": burning}
    parts = SizingParts(pods=parts.pods, autoscalers=(a_sized_object(status={"stabilization": kept}),))

    parts.controller().cycle()

    assert parts.requests() == {"cart-1": Amounts(2.0, 220 * MIB), "cart-2": Amounts(0.5, 220 * MIB)}
    assert parts.status()["errorBudget"]["burnsFast"]
    assert parts.status()["resize"]["leftAlone"] == 1


def test_a_few_pods_at_a_time_and_those_that_grow_first() -> None:
    pods = tuple(a_pod(f"cart-{n}", cpu) for n, cpu in enumerate((2.0, 0.1, 0.3, 2.0, 0.2)))
    parts = SizingParts(pods=pods, vertical_settings=VerticalSettings(pods_per_cycle=2))
    controller = parts.controller()

    controller.cycle()
    assert [each.pod.name for each in parts.cluster.resizes] == ["cart-1", "cart-4"]
    assert parts.status()["resize"]["waiting"] == 3
    controller.cycle()
    controller.cycle()
    assert len(parts.cluster.resizes) == 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"autoscalers": (a_sized_object(mode=VerticalMode.IN_PLACE, **{"is_paused": True}),)}, "paused by"),
        ({"settings": ScalingSettings(paused=True)}, "paused by scaling.paused"),
        ({"targets": (a_target(rollout="a rollout is in progress: 1 of 2"),)}, "a rollout is in progress"),
    ],
    ids=["paused", "all paused", "rollout"],
)
def test_nothing_is_resized_while_it_must_not_be(changes: Any, said: str) -> None:
    """The recommendation is there all the same, and why nothing follows from it."""
    parts = after_one_cycle(**changes)

    assert parts.cluster.resizes == []
    assert said in parts.status()["resize"]["message"]
    assert parts.recommended()["target"]["cpu"] == "500m"


def test_an_observing_object_resizes_nothing() -> None:
    observing = replace(a_sized_object(), mode=Mode.OBSERVE)

    parts = after_one_cycle(autoscalers=(observing,))

    assert parts.cluster.resizes == []
    assert "mode Observe" in parts.status()["resize"]["message"]
    assert parts.status()["resize"]["waiting"] == 2


def sized_alone(mode: VerticalMode = VerticalMode.IN_PLACE, **changes: Any) -> PredictiveAutoscaler:
    """An object that leaves replicas to others."""
    return replace(a_sized_object(mode), scales=False, **changes)


def test_an_object_with_vertical_alone_resizes_and_leaves_replicas_alone() -> None:
    """Demand would take other replicas; its status says nothing of scaling that would have to be mended."""
    scaled, alone = after_one_cycle(), after_one_cycle(autoscalers=(sized_alone(),))

    assert scaled.cluster.resizes
    assert alone.cluster.resizes == scaled.cluster.resizes
    assert alone.cluster.targets[CART].replicas == alone.targets[0].replicas
    assert alone.status()["reason"] == "VerticalAlone"
    assert [c["type"] for c in alone.status()["conditions"]] == ["Conflict", "RecommendationProvided"]
    assert alone.condition("RecommendationProvided") == ("True", "RecommendationProvided")


def test_an_object_with_vertical_alone_honours_its_pause() -> None:
    """As any other does."""
    parts = after_one_cycle(autoscalers=(sized_alone(is_paused=True),))

    assert parts.cluster.resizes == []
    assert parts.status()["reason"] == "Paused"


def test_an_object_that_only_recommends_steers_nothing() -> None:
    """Beside it another object may set the replicas; one that resizes too is a second hand on the workload."""
    other = replace(an_autoscaler(), name="other", uid="other")
    beside = after_one_cycle(autoscalers=(sized_alone(RECOMMEND), other))
    fighting = after_one_cycle(autoscalers=(sized_alone(), other))

    def clashes(parts: SizingParts) -> set[str]:
        return {c["status"] for a in parts.cluster.autoscalers.values() for c in a.status["conditions"]
                if c["type"] == "Conflict"}  # fmt: skip

    assert clashes(beside) == {"False"}
    assert clashes(fighting) == {"True"}


def test_a_dry_run_writes_nothing() -> None:
    parts = after_one_cycle(is_dry_run=True)

    assert parts.cluster.writes == 0


def test_a_copy_that_loses_the_lease_resizes_no_more() -> None:
    """Between two pods."""
    parts = SizingParts()
    resize = parts.cluster.resize_pod

    def last(each: Any) -> None:
        resize(each)
        parts.leadership.is_leader = False

    parts.cluster.resize_pod = last  # type: ignore[method-assign, assignment]
    parts.controller().cycle()

    assert len(parts.cluster.resizes) == 1


def test_a_vpa_that_changes_the_same_requests_is_a_conflict() -> None:
    """Also with a target value, where it would not disturb the replicas; one for another resource is none."""
    vpa = Rival(RivalKind.VPA, "shop", "other", TargetRef("apps/v1", "Deployment", "cart"), uid="rival")
    parts = SizingParts()
    parts.cluster.put(vpa)
    parts.controller().cycle()

    assert parts.cluster.resizes == []
    assert parts.condition("Conflict") == ("True", "Conflict")
    memory_only = a_sized_object(policy=ContainerPolicy(controlled=(Resource.MEMORY,)))
    assert conflict(memory_only, (replace(vpa, resources=(Resource.CPU,)),)) is None
    assert conflict(a_sized_object(RECOMMEND), (vpa,)) is None


def test_writes_are_within_the_budget() -> None:
    """One write a cycle: one pod, and the status waits."""
    settings = ScalingSettings(writes_per_second=1 / 30, learned_margins=False)

    parts = after_one_cycle(settings=settings)

    assert (len(parts.cluster.resizes), parts.cluster.writes) == (1, 1)


def test_a_pod_that_changed_since_is_left_for_the_next_cycle() -> None:
    """Its resource version is another one: nothing is written, and nothing is said to have failed."""
    parts = SizingParts(pods=(a_pod(cpu=0.2),))
    seen = parts.cluster.observe

    def moving(now: float) -> Any:
        observation = seen(now)
        changed = tuple(pod._replace(resource_version="2") for pod in parts.cluster.targets[CART].pods)
        parts.cluster.put(replace(parts.cluster.targets[CART], pods=changed))
        return observation

    parts.cluster.observe = moving  # type: ignore[method-assign, assignment]
    controller = parts.controller()
    controller.cycle()
    assert parts.cluster.resizes == []

    parts.cluster.observe = seen  # type: ignore[method-assign]
    controller.cycle()
    assert len(parts.cluster.resizes) == 1


def test_what_the_api_refuses_is_told_and_not_asked_for_in_every_cycle() -> None:
    """Again after ten minutes."""
    parts = SizingParts(pods=(a_pod(cpu=0.2),))
    asked = 0

    def refuse(_: Any) -> None:
        nonlocal asked
        asked += 1
        raise ClusterRefused("refused PATCH (403): exceeded quota")

    parts.cluster.resize_pod = refuse  # type: ignore[method-assign, assignment]
    controller = parts.controller()
    controller.cycle()
    parts.clock.now += 30
    controller.cycle()
    assert asked == 1
    assert [event.reason for event in parts.cluster.events].count("FailedResize") == 1
    assert "exceeded quota" in parts.status()["resize"]["message"]

    parts.clock.now += 600
    controller.cycle()
    assert asked == 2


def test_an_infeasible_resize_is_told_once() -> None:
    """With what the node said."""
    node_says = PendingResize("Infeasible", "Node didn't have enough capacity: cpu", SizingParts().clock.now)
    parts = SizingParts(pods=(a_pod(cpu=0.2, pending=node_says), a_pod("cart-2", 0.5)))
    controller = parts.controller()

    controller.cycle()
    parts.clock.now += 30
    controller.cycle()

    (event,) = [each for each in parts.cluster.events if each.reason == "ResizeInfeasible"]
    assert event.is_warning
    assert "enough capacity" in event.note
    assert parts.status()["resize"]["infeasible"] == 1
    assert parts.cluster.resizes == []


# --- killed for want of memory


def killed(at: float, memory_mib: float = 300, name: str = "cart-1") -> Any:
    return a_pod(name, 0.5, memory_mib, out_of_memory_at_seconds=at)


def test_a_kill_raises_the_request_once() -> None:
    """100 MiB over what it had; what it has then is no new kill. After a day it is forgotten."""
    at = SizingParts().clock.now - 10
    parts = SizingParts(pods=(killed(at),))
    controller = parts.controller()

    controller.cycle()
    assert parts.recommended()["target"]["memory"] == "400Mi"
    assert parts.recommended()["outOfMemory"] == {"time": as_time(at), "memory": "400Mi"}
    assert parts.requests() == {"cart-1": Amounts(0.5, 400 * MIB)}
    parts.clock.now += 30
    controller.cycle()
    assert parts.recommended()["target"]["memory"] == "400Mi"

    successor = parts.controller()
    parts.clock.now += 30
    successor.cycle()
    assert parts.recommended()["target"]["memory"] == "400Mi", "a new leader reads it in the status"


def test_a_second_kill_raises_it_further() -> None:
    """From what it has now."""
    now = SizingParts().clock.now
    parts = SizingParts(pods=(killed(now - 10),))
    controller = parts.controller()
    controller.cycle()

    parts.cluster.put(replace(parts.cluster.targets[CART], pods=(killed(now + 20, 400),)))
    parts.clock.now += 30
    controller.cycle()

    assert parts.recommended()["target"]["memory"] == "500Mi"


def test_an_old_kill_counts_no_more() -> None:
    parts = after_one_cycle(pods=(killed(SizingParts().clock.now - 86_401),))

    assert parts.recommended()["target"]["memory"] == "220Mi"
    assert "outOfMemory" not in parts.recommended()


def test_the_kill_of_a_pod_that_is_gone_is_remembered() -> None:
    """Its successor gets what it lacked."""
    parts = SizingParts(pods=(killed(SizingParts().clock.now - 10),))
    controller = parts.controller()
    controller.cycle()
    parts.cluster.put(replace(parts.cluster.targets[CART], pods=(a_pod("cart-9", 0.5, 100),)))

    controller.cycle()

    assert parts.requests() == {"cart-9": Amounts(0.5, 400 * MIB)}


# --- quantities


@pytest.mark.parametrize(
    ("resource", "value", "text"),
    [
        (Resource.CPU, 0.25, "250m"),
        (Resource.CPU, 4.0, "4000m"),
        (Resource.MEMORY, 512.0 * MIB, "512Mi"),
        (Resource.MEMORY, 1000.0, "1000"),
    ],
)
def test_amounts_are_written_as_kubernetes_does_and_read_back(resource: Resource, value: float, text: str) -> None:
    assert amount_text(resource, value) == text
    assert quantity(text) == pytest.approx(value)
