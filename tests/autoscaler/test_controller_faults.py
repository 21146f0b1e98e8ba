"""The controller among faults: impossible forecasts, an API server that fails in the middle, the order to stop."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pytest

from autoscaler.cluster.reasons import ReasonCode
from autoscaler.cluster.snapshot import Rung
from autoscaler.controller.autoscalers import PredictiveAutoscaler, TargetRef
from autoscaler.controller.loop import WRITE_ATTEMPTS, Controller, CycleReport
from autoscaler.controller.memory import MemoryCluster
from autoscaler.controller.ports import Event, Scale
from autoscaler.controller.records import DecisionRecord, Outcome
from autoscaler.errors import ClusterRefused, ClusterUnavailable, CommandConflict
from autoscaler.settings import ScalingSettings
from models.forecast import ForecasterState, History, QuantileForecast, Target
from predictor.serving.bundle import Bundle, SeriesModel
from predictor.usage.panel import Resource, SeriesKey
from tests.support.scaling import CART, NOON_SECONDS, ScalingParts, a_target, an_autoscaler, noon_rush
from tests.support.serving import LEVELS, STEP_SECONDS, ManualClock

TILL = "shop/Deployment/till"


@dataclass(frozen=True)
class Oracle:
    """Says the same whatever it is shown."""

    name: ClassVar[str] = "oracle"
    says: float

    def fit(self, history: History, target: Target) -> Self:
        return self

    def predict(self, history: History, target: Target, levels: Sequence[float]) -> QuantileForecast:
        values = np.full((history.series_count, len(levels), len(target.ahead)), self.says)
        return QuantileForecast(tuple(levels), values, history.end_seconds, history.step_seconds, target)

    def to_state(self) -> ForecasterState:
        return ForecasterState({"says": self.says})

    @classmethod
    def from_state(cls, state: ForecasterState) -> Self:
        return cls(float(str(state.parameters["says"])))


def told(says: float, **changes: Any) -> ScalingParts:
    """A workload that uses 2 cores on 3 replicas and a champion that says something else."""
    parts = ScalingParts(**changes)
    key = SeriesKey(CART, Resource.CPU)
    bundle = Bundle(
        step_seconds=STEP_SECONDS,
        target=Target(48),
        levels=LEVELS,
        forecasters={(Resource.CPU, "oracle"): Oracle(says)},
        series={key: SeriesModel(key, "oracle")},
        trained_until_seconds=NOON_SECONDS,
    )
    parts.store.set_alias("champion", parts.store.add(bundle))
    return parts


def record_of(report: CycleReport, workload: str = CART) -> DecisionRecord:
    return next(record for record in report.records if record.plan.decision.workload == workload)


@pytest.mark.parametrize("says", [float("nan"), float("inf")])
def test_a_forecast_that_is_no_number_is_no_forecast(says: float) -> None:
    """The reactive rung answers from what is observed; the reason names the model."""
    parts = told(says)

    decision = record_of(parts.controller().cycle()).plan.decision

    assert decision.rung is Rung.REACTIVE
    assert decision.reasons[0].code is ReasonCode.NO_FORECAST
    assert "model version 2 forecasts NaN or infinity" in decision.reasons[0].message
    assert parts.replicas() == 3


def test_a_forecast_of_nothing_does_not_take_away_what_is_used() -> None:
    """Zero is forecast for a workload that uses 2 cores: the observed demand keeps its replicas, for good."""
    parts = told(0.0, usage_by_workload={CART: noon_rush(2.0, 2.0)})
    controller = parts.controller()

    for _ in range(20):
        controller.cycle()
        parts.clock.now += 60

    assert parts.replicas() == 3


def test_a_thousandfold_spike_stops_at_the_maximum() -> None:
    """The rate limit holds it in one cycle, the maximum in all."""
    parts = told(2000.0, autoscalers=(an_autoscaler(max_replicas=8),))
    controller = parts.controller()

    first = record_of(controller.cycle()).plan.decision

    assert (first.current, first.desired) == (3, 7)
    assert ReasonCode.SCALE_UP_LIMIT in {reason.code for reason in first.reasons}
    for _ in range(3):
        parts.clock.now += 30
        last = record_of(controller.cycle()).plan.decision
    assert parts.replicas() == last.desired == 8
    assert ReasonCode.TOO_MANY_REPLICAS in {reason.code for reason in last.reasons}


@pytest.mark.parametrize(
    ("harm", "failures", "outcome"),
    [
        (ClusterUnavailable("the API server did not answer"), 1, Outcome.FAILED),
        (ClusterRefused("forbidden (403): add to the role"), 1, Outcome.FAILED),
        (CommandConflict("the object has changed (409)"), WRITE_ATTEMPTS, Outcome.SKIPPED),
    ],
    ids=["gone", "403", "409"],
)
def test_a_write_that_fails_harms_no_other(harm: Exception, failures: int, outcome: Outcome) -> None:
    """One workload cannot be written: it is said of that one, the other is scaled, and the next cycle tries again."""
    usage = {CART: noon_rush(2.0, 5.6), TILL: noon_rush(2.0, 5.6)}
    parts = ScalingParts(
        usage_by_workload=usage,
        targets=(a_target(CART), a_target(TILL)),
        clock=ManualClock(NOON_SECONDS + 60.0),
    )

    class Flaky(MemoryCluster):
        """Fails the first writes to one workload."""

        left = failures

        def set_replicas(self, namespace: str, target: TargetRef, replicas: int, expected: Scale) -> None:
            if target.name == "cart" and self.left:
                self.left -= 1
                raise harm
            super().set_replicas(namespace, target, replicas, expected)

    parts.cluster = Flaky(parts.cluster.autoscalers, parts.cluster.targets)
    controller = parts.controller()

    report = controller.cycle()

    assert record_of(report).result.outcome is outcome
    assert str(harm) in record_of(report).result.detail
    assert record_of(report, TILL).result.outcome is Outcome.APPLIED
    assert report.has_failed_command == (outcome is Outcome.FAILED)
    assert record_of(controller.cycle()).result.outcome is Outcome.APPLIED


@pytest.mark.parametrize("kind", ["status", "event"])
def test_what_could_not_be_told_is_in_the_report(kind: str) -> None:
    """So that a single cycle can end with it; what was decided is carried out all the same."""
    parts = ScalingParts(clock=ManualClock(NOON_SECONDS + 60.0))
    harm = ClusterRefused("forbidden (403): add to the role")

    class Mute(MemoryCluster):
        """Takes replicas, but not a status or not an Event."""

        def set_status(self, autoscaler: PredictiveAutoscaler, status: Mapping[str, Any]) -> None:
            if kind == "status":
                raise harm
            super().set_status(autoscaler, status)

        def publish(self, event: Event, at_seconds: float) -> None:
            raise harm

    parts.cluster = Mute(parts.cluster.autoscalers, parts.cluster.targets)

    report = parts.controller().cycle()

    assert record_of(report).result.outcome is Outcome.APPLIED
    assert report.untold is harm


def test_a_change_that_is_not_of_the_scale_does_not_stop_a_write() -> None:
    """A pod gets ready between reading and writing: the scale is as decided, so the write is tried again."""
    parts = ScalingParts(clock=ManualClock(NOON_SECONDS + 60.0))

    class Busy(MemoryCluster):
        """Its status changes while the first write is on its way."""

        is_quiet = False

        def set_replicas(self, namespace: str, target: TargetRef, replicas: int, expected: Scale) -> None:
            if not self.is_quiet:
                self.is_quiet = True
                self.put(replace(self.targets[CART], ready_replicas=2))
            super().set_replicas(namespace, target, replicas, expected)

    parts.cluster = Busy(parts.cluster.autoscalers, parts.cluster.targets)

    record = record_of(parts.controller().cycle())

    assert record.result.outcome is Outcome.APPLIED
    assert parts.replicas() == record.plan.decision.desired


def test_a_command_that_came_too_late_is_not_carried_out() -> None:
    """The snapshot is older than what counts as fresh by the time it would be written."""
    usage = {CART: noon_rush(2.0, 5.6), TILL: noon_rush(2.0, 5.6)}
    parts = ScalingParts(
        usage_by_workload=usage, targets=(a_target(CART), a_target(TILL)), clock=ManualClock(NOON_SECONDS + 60.0)
    )

    class Slow(MemoryCluster):
        def scale_of(self, namespace: str, target: TargetRef) -> Scale:
            parts.clock.now += 1000
            return super().scale_of(namespace, target)

    parts.cluster = Slow(parts.cluster.autoscalers, parts.cluster.targets)

    report = parts.controller().cycle()

    assert record_of(report).result.outcome is Outcome.APPLIED
    assert record_of(report, TILL).result.outcome is Outcome.SKIPPED
    assert "last seen 2000 s ago" in record_of(report, TILL).result.detail


def test_an_object_made_anew_starts_without_a_past() -> None:
    """Deleted and created again under its name: the command for the old one is dropped, its history forgotten."""
    parts = ScalingParts(clock=ManualClock(NOON_SECONDS + 60.0))

    class Recreated(MemoryCluster):
        def scale_of(self, namespace: str, target: TargetRef) -> Scale:
            self.put(a_target(replicas=1, uid="another"))
            return super().scale_of(namespace, target)

    parts.cluster = Recreated(parts.cluster.autoscalers, parts.cluster.targets)
    controller = parts.controller()

    result = record_of(controller.cycle()).result

    assert (result.outcome, result.detail) == (Outcome.SKIPPED, "deleted and created anew since this was decided")
    controller.cycle()
    (remembered,) = controller.remembered.values()
    assert (remembered.target_uid, len(remembered.replicas.highs)) == ("another", 1)
    assert remembered.changed_by_others_at_seconds is None


def test_an_order_to_stop_finishes_the_write_in_hand_and_starts_no_other() -> None:
    """SIGTERM arrives during the first of two writes."""
    usage = {CART: noon_rush(2.0, 5.6), TILL: noon_rush(2.0, 5.6)}
    parts = ScalingParts(
        usage_by_workload=usage,
        targets=(a_target(CART), a_target(TILL)),
        clock=ManualClock(NOON_SECONDS + 60.0),
    )
    stop = threading.Event()

    class Told(MemoryCluster):
        def set_replicas(self, namespace: str, target: TargetRef, replicas: int, expected: Scale) -> None:
            stop.set()
            super().set_replicas(namespace, target, replicas, expected)

    parts.cluster = Told(parts.cluster.autoscalers, parts.cluster.targets)
    controller = Controller(
        parts.cluster, parts.cluster, parts.predictor, parts.settings, parts.clock, parts.leadership, stop=stop
    )

    controller.run()

    replicas = [parts.replicas(name) for name in (CART, TILL)]
    assert replicas[0] > 3
    assert replicas[1] == 3
    assert controller.report is not None
    assert record_of(controller.report, TILL).result.detail == "the controller is stopping"


def test_a_cycle_that_breaks_does_not_end_the_loop() -> None:
    """Something nobody foresaw is counted, and the next cycle runs."""
    parts = ScalingParts(settings=ScalingSettings(interval="10ms"))
    controller = parts.controller()
    cycles = 0

    def after_cycle(_: CycleReport) -> None:
        nonlocal cycles
        cycles += 1
        if cycles == 2:
            controller.stop.set()
        raise RuntimeError("nobody foresaw this")

    controller.run(after_cycle)

    assert cycles == 2
    assert controller.metrics.registry.get_sample_value("foresize_cycles_total", {"outcome": "failed"}) == 2


def test_what_goes_wrong_is_said_once_and_counted_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    """An API server that is gone for an hour fills no log."""
    parts = ScalingParts()
    parts.cluster.is_reachable = False
    controller = parts.controller()

    for _ in range(5):
        controller.cycle()

    labels = {"dependency": "kubernetes", "error": "ClusterUnavailable"}
    assert controller.metrics.registry.get_sample_value("foresize_dependency_errors_total", labels) == 5
    assert capsys.readouterr().out.count("cluster not seen") == 1


def test_a_problem_of_the_registry_is_counted_once_each_time_it_is_asked() -> None:
    """Cycles in between say nothing new."""
    parts = ScalingParts(clock=ManualClock(float(NOON_SECONDS)))
    parts.store.aliases.clear()
    controller = parts.controller()

    for _ in range(10):
        controller.cycle()
        parts.clock.now += 60

    labels = {"dependency": "registry", "error": "ModelNotFound"}
    assert controller.metrics.registry.get_sample_value("foresize_dependency_errors_total", labels) == 2
    assert controller.metrics.registry.get_sample_value("foresize_dependency_up", {"dependency": "registry"}) == 0
