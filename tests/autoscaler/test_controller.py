"""The controller's cycle: what it writes, what it leaves alone, and what it says about both."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autoscaler.cluster.commands import ScaleReplicas
from autoscaler.cluster.reasons import Hold, ReasonCode
from autoscaler.controller.autoscalers import TargetRef
from autoscaler.controller.loop import CycleReport
from autoscaler.controller.memory import MemoryCluster
from autoscaler.controller.ports import Scale
from autoscaler.controller.records import DecisionRecord, Outcome
from autoscaler.errors import ClusterUnavailable
from autoscaler.settings import ScalingSettings
from predictor.usage.panel import Resource
from tests.support.scaling import CART, NOON_SECONDS, ScalingParts, a_target, an_autoscaler, noon_rush
from tests.support.serving import ManualClock


def only(report: CycleReport) -> DecisionRecord:
    """The record of the one workload."""
    assert len(report.records) == 1
    return report.records[0]


def reasons(record: DecisionRecord) -> set[ReasonCode]:
    return {each.code for each in record.plan.decision.reasons}


def before_the_rush(**changes: Any) -> ScalingParts:
    """A minute past noon: the rush begins within the lead time of ten minutes."""
    return ScalingParts(clock=ManualClock(NOON_SECONDS + 60.0), **changes)


def test_a_rise_that_is_forecast_is_met_before_it_is_seen() -> None:
    """Two cores are used and three replicas are enough; 5.6 cores come within the lead time, so more are ordered."""
    parts = before_the_rush()

    record = only(parts.controller().cycle())

    assert isinstance(record.plan.decision.outcome, ScaleReplicas)
    assert record.plan.decision.reason.code is ReasonCode.FORECAST_PEAK
    assert record.result.outcome is Outcome.APPLIED
    assert parts.replicas() == record.plan.decision.desired > 3


def test_a_dry_run_decides_the_same_and_writes_nothing() -> None:
    """The decision is made and logged, and the cluster stays as it is: no status and no Event either."""
    real, rehearsal = before_the_rush(), before_the_rush(is_dry_run=True)

    acted, told = only(real.controller().cycle()), only(rehearsal.controller().cycle())

    assert told.plan.decision.desired == acted.plan.decision.desired
    assert told.result.outcome is Outcome.DRY_RUN
    assert rehearsal.cluster.writes == 0
    assert rehearsal.replicas() == 3


@pytest.mark.parametrize("paused", ["everything", "one object"])
def test_pause_writes_nothing(paused: str) -> None:
    """One setting pauses all, one annotation pauses one object, even where more replicas are needed."""
    if paused == "everything":
        parts = before_the_rush(settings=ScalingSettings(paused=True))
    else:
        parts = before_the_rush(autoscalers=(an_autoscaler(is_paused=True),))

    record = only(parts.controller().cycle())

    assert record.plan.decision.desired > 3
    assert ReasonCode.PAUSED in reasons(record)
    assert parts.replicas() == 3


def test_a_cycle_repeated_at_once_changes_nothing() -> None:
    """Once the replicas are what they should be, the same observation asks for nothing more."""
    parts = before_the_rush()
    controller = parts.controller()
    first = only(controller.cycle())

    again = only(controller.cycle())

    assert first.result.outcome is Outcome.APPLIED
    assert again.result.outcome is Outcome.NONE
    assert parts.replicas() == first.plan.decision.desired


@pytest.mark.parametrize("harm", ["nothing", "Prometheus is down", "usage is stale"])
def test_without_fresh_usage_nothing_shrinks(harm: str) -> None:
    """Far too many replicas, watched for a whole window: they are removed only if usage is still to be had."""
    parts = ScalingParts(targets=(a_target(replicas=15),), usage_by_workload={CART: noon_rush(0.5, 0.5)})
    controller = parts.controller()
    controller.cycle()
    if harm == "Prometheus is down":
        parts.source.is_down = True
    elif harm == "usage is stale":
        known = (NOON_SECONDS - 3600 - parts.source.panel.start_seconds) // parts.source.panel.step_seconds
        parts.source.panel.usage[:, known:] = np.nan
    parts.clock.now += ScalingSettings().scale_down_stabilisation.total_seconds() + 1

    record = only(controller.cycle())

    if harm == "nothing":
        assert parts.replicas() < 15
    else:
        assert parts.replicas() == 15
        assert reasons(record) & {ReasonCode.NO_OBSERVATION, ReasonCode.STALE_OBSERVATION}


def test_a_fresh_controller_removes_nothing_before_it_has_watched() -> None:
    """Too many replicas are removed only after a whole stabilisation window."""
    parts = ScalingParts(targets=(a_target(replicas=15),), usage_by_workload={CART: noon_rush(0.5, 0.5)})
    controller = parts.controller()

    first = only(controller.cycle())

    assert ReasonCode.SCALE_DOWN_STABILIZED in reasons(first)
    assert parts.replicas() == 15
    parts.clock.now += ScalingSettings().scale_down_stabilisation.total_seconds() + 1
    controller.cycle()
    assert parts.replicas() < 15


def test_an_object_that_cannot_be_followed_is_left_alone_and_says_why() -> None:
    """One that an older schema let in: held, its problem in the status."""
    parts = before_the_rush(autoscalers=(an_autoscaler(problem="spec cannot be followed: 'sometimes' is no mode"),))

    record = only(parts.controller().cycle())

    assert record.plan.decision.reason.code is ReasonCode.INVALID_SPEC
    assert parts.condition("AbleToScale") == ("False", "InvalidSpec")
    assert parts.replicas() == 3


def test_a_workload_without_a_request_is_left_alone_with_advice() -> None:
    """What one replica can carry is not known, so no number can be right."""
    parts = ScalingParts(targets=(a_target(cpu_cores=0.0),))

    record = only(parts.controller().cycle())

    assert ReasonCode.NO_CAPACITY in reasons(record)
    assert "set a cpu request or spec.horizontal.target.averageValue" in record.plan.decision.explanation


def test_a_workload_that_nobody_measured_is_held() -> None:
    """No usage under its name: no forecast, no observation, no change."""
    parts = ScalingParts(targets=(a_target("shop/Deployment/unseen", replicas=4),))

    record = only(parts.controller().cycle())

    assert record.plan.decision.desired == 4
    assert {ReasonCode.NO_FORECAST, ReasonCode.NO_OBSERVATION} <= reasons(record)


def test_the_bounds_hold() -> None:
    """A maximum of four caps what the forecast asks for."""
    parts = before_the_rush(autoscalers=(an_autoscaler(max_replicas=4),))

    parts.controller().cycle()

    assert parts.replicas() == 4


def test_every_decision_is_counted_with_its_reason() -> None:
    """One increment per workload and cycle, labelled with the code of what decided."""
    parts = before_the_rush(targets=(a_target(), a_target("shop/Deployment/unseen")))
    controller = parts.controller()

    report = controller.cycle()

    counted = {
        sample.labels["reason"]: sample.value
        for family in controller.metrics.decisions.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert sum(counted.values()) == len(report.records) == 2
    assert counted[ReasonCode.FORECAST_PEAK.value] == 1


def test_the_last_model_goes_on_when_the_registry_is_gone() -> None:
    """The model that was loaded serves on, and the cycle says that the registry gave no answer."""
    parts = before_the_rush()
    controller = parts.controller()
    controller.cycle()
    parts.store.aliases.clear()
    parts.clock.now += 600

    report = controller.cycle()

    assert only(report).model.version == "1"
    assert only(report).model.problem is not None
    assert not isinstance(only(report).plan.decision.forecast, Hold)


def test_replicas_that_somebody_changed_meanwhile_are_respected() -> None:
    """Decided for three, but there are five when it comes to writing: nothing is written, and that is said."""
    parts = before_the_rush()

    class Meddled(MemoryCluster):
        """Somebody scales between deciding and acting."""

        def scale_of(self, namespace: str, target: TargetRef) -> Scale:
            self.put(replace(self.targets[CART], replicas=5))
            return super().scale_of(namespace, target)

    parts.cluster = Meddled(parts.cluster.autoscalers, parts.cluster.targets)

    record = only(parts.controller().cycle())

    assert record.result.outcome is Outcome.SKIPPED
    assert "somebody set 5 replicas" in record.result.detail
    assert parts.replicas() == 5


def test_a_cluster_that_does_not_answer_is_no_reason_to_decide() -> None:
    """Nothing is assumed about what was not seen."""
    parts = before_the_rush()
    parts.cluster.is_reachable = False

    report = parts.controller().cycle()

    assert report.records == ()
    assert isinstance(report.problem, ClusterUnavailable)


def test_only_usage_that_an_object_scales_on_is_read() -> None:
    """With what node pools are oversold by; without an object everything, so that what is there can be told."""
    parts = before_the_rush()
    controller = parts.controller()

    controller.cycle()
    assert parts.source.resources == {Resource.CPU}
    controller.other_resources = frozenset({Resource.MEMORY})
    controller.cycle()

    assert parts.source.resources == {Resource.CPU, Resource.MEMORY}


def test_the_window_of_usage_is_not_kept_with_the_last_report() -> None:
    """It is a fleet's usage of weeks, and the next cycle has its own."""
    controller = before_the_rush().controller()

    report = controller.cycle()

    assert report.forecasts is not None
    assert report.forecasts.panel is not None
    assert controller.report is not None
    assert controller.report.forecasts is not None
    assert controller.report.forecasts.panel is None
    assert controller.report.is_complete
    assert controller.report.records == report.records
