"""The loop: predict, observe, decide, validate, act. The one place of the controller with effects.

Each command is checked against the cluster as it is just before the write, and the write itself is conditional on
that; what changed in between is dropped and decided afresh in the next cycle. Nothing is remembered that is not also
safe to forget: a controller that has just started removes nothing before it has watched for a whole window.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from autoscaler.cluster.commands import ScaleReplicas
from autoscaler.controller.planning import Plan, plan, rules_from
from autoscaler.controller.ports import ClusterObservation, ClusterReader, Predicting, ReplicaWriter
from autoscaler.controller.records import ActResult, DecisionRecord, Outcome
from autoscaler.decisions.guardrails import NO_MEMORY, ReplicaMemory, remembered_scale
from autoscaler.errors import AutoscalerError, ClusterRefused, ClusterUnavailable, CommandConflict, ObjectGone
from autoscaler.metrics import AutoscalerMetrics
from autoscaler.settings import ScalingSettings
from predictor.serving.predictor import Forecasts

log = structlog.get_logger("autoscaler.controller")

WRITE_ATTEMPTS = 3
"""How often a write that meets a conflict is checked and tried within one cycle."""
NOTHING_TO_DO = ActResult(Outcome.NONE)
DRY_RUN = ActResult(Outcome.DRY_RUN, "dry run: start the controller with --act to carry this out")
STOPPING = ActResult(Outcome.SKIPPED, "the controller is stopping")


@dataclass(frozen=True, slots=True)
class CycleReport:
    """What one cycle saw, decided and did."""

    started_at_seconds: float
    records: tuple[DecisionRecord, ...] = ()
    problem: AutoscalerError | None = None
    """Why the cluster was not seen; nothing was decided then."""
    forecasts: Forecasts | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the whole cluster was seen and usage could be read."""
        return self.problem is None and self.forecasts is not None and self.forecasts.source_problem is None

    @property
    def has_failed_command(self) -> bool:
        """Whether something that should have been written was not."""
        return any(record.result.outcome is Outcome.FAILED for record in self.records)


@dataclass
class Controller:
    """Runs cycles; `act` False only says what it would do."""

    reader: ClusterReader
    writer: ReplicaWriter
    predictor: Predicting
    settings: ScalingSettings
    clock: Callable[[], float]
    metrics: AutoscalerMetrics = field(default_factory=AutoscalerMetrics)
    act: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    """Set to end the loop; a write that is under way is finished first."""

    def __post_init__(self) -> None:
        self.rules = rules_from(self.settings)
        self.memories: dict[str, ReplicaMemory] = {}
        """By uid: a workload that was made anew starts without a past."""
        self._told: dict[str, Exception | None] = {}
        """Problems that were already counted and logged: the registry's stays until it is asked again."""
        self.started_at_seconds = self.clock()
        self.report: CycleReport | None = None
        """The last cycle that saw the cluster."""
        self.last_cycle_seconds: float | None = None
        """When the last cycle ended, whatever came of it."""

    def run(self, after_cycle: Callable[[CycleReport], None] = lambda _: None) -> None:
        """Cycles, one per interval, until `stop` is set."""
        interval = self.settings.interval.total_seconds()
        while not self.stop.is_set():
            started = self.clock()
            try:
                after_cycle(self.cycle())
            except Exception:  # the one place where anything goes on: a cycle that broke must not end the loop
                self.metrics.cycles.labels("failed").inc()
                log.exception("cycle broke")
            self.last_cycle_seconds = self.clock()
            self.stop.wait(max(0.0, interval - (self.clock() - started)))

    def cycle(self) -> CycleReport:
        """One cycle."""
        with self.metrics.timed("cycle"):
            report = self._cycle()
        self.last_cycle_seconds = self.clock()
        if report.problem is None:
            self.report = report
        self._publish(report)
        return report

    def _cycle(self) -> CycleReport:
        started = self.clock()
        # The forecast first: it may take long, and the snapshot has to be young when it is acted on.
        with self.metrics.timed("predict"):
            forecasts = self.predictor.predict(started)
        try:
            with self.metrics.timed("observe"):
                seen = self.reader.observe(self.clock())
        except (ClusterUnavailable, ClusterRefused) as problem:
            self._count_error("kubernetes", problem)
            log.error("cluster not seen", error=type(problem).__name__, message=str(problem))
            return CycleReport(started, problem=problem, forecasts=forecasts)
        self.metrics.dependency_up.labels("kubernetes").set(1)
        with self.metrics.timed("decide"):
            plans = self._decide(seen, forecasts)
        results = self._carry_out(plans, seen)
        records = tuple(
            DecisionRecord(decided, results.get(decided.decision.workload, NOTHING_TO_DO), forecasts.model)
            for decided in plans
        )
        return CycleReport(started, records, forecasts=forecasts)

    def _decide(self, seen: ClusterObservation, forecasts: Forecasts) -> list[Plan]:
        plans = [
            plan(
                workload,
                forecasts,
                self.memories.get(workload.uid, NO_MEMORY),
                settings=self.settings,
                rules=self.rules,
                now_seconds=seen.observed_at_seconds,
            )
            for workload in seen.workloads
        ]
        # Replaced as a whole: what is gone from the cluster is forgotten.
        self.memories = {decided.workload.uid: decided.memory for decided in plans}
        return plans

    def _carry_out(self, plans: Sequence[Plan], seen: ClusterObservation) -> dict[str, ActResult]:
        """Results by workload of everything that was a command; more replicas first, as they are the urgent ones."""
        commands = [(p.decision.outcome, p) for p in plans if isinstance(p.decision.outcome, ScaleReplicas)]
        if not self.act:
            return {command.workload: DRY_RUN for command, _ in commands}
        results: dict[str, ActResult] = {}
        for command, decided in sorted(commands, key=lambda pair: pair[0].desired < pair[0].current):
            if self.stop.is_set():
                results[command.workload] = STOPPING
                continue
            try:
                results[command.workload] = self._validated_write(command, decided, seen)
            except (CommandConflict, ObjectGone) as change:
                results[command.workload] = ActResult(Outcome.SKIPPED, str(change))
            except (ClusterUnavailable, ClusterRefused) as problem:
                self._count_error("kubernetes", problem)
                results[command.workload] = ActResult(Outcome.FAILED, str(problem))
        return results

    def _validated_write(self, command: ScaleReplicas, decided: Plan, seen: ClusterObservation) -> ActResult:
        """Writes, and on a conflict checks again: every pod that gets ready changes the object, but not its scale."""
        for _ in range(WRITE_ATTEMPTS - 1):
            try:
                return self._write(command, decided, seen)
            except CommandConflict:
                continue
        return self._write(command, decided, seen)

    def _write(self, command: ScaleReplicas, decided: Plan, seen: ClusterObservation) -> ActResult:
        age = self.clock() - seen.observed_at_seconds
        if age > self.settings.stale_after.total_seconds():
            return ActResult(Outcome.SKIPPED, f"the cluster was last seen {age:.0f} s ago")
        with self.metrics.timed("validate"):
            scale = self.reader.scale_of(command.workload)
        if scale.uid != decided.workload.uid:
            return ActResult(Outcome.SKIPPED, "deleted and created anew since this was decided")
        if scale.replicas != command.current:
            return ActResult(
                Outcome.SKIPPED,
                f"somebody set {scale.replicas} replicas since this was decided for {command.current}",
            )
        with self.metrics.timed("act"):
            self.writer.set_replicas(command.workload, command.desired, scale)
        self.memories[decided.workload.uid] = remembered_scale(
            decided.memory, command.desired - command.current, self.rules.behaviour, self.clock()
        )
        return ActResult(Outcome.APPLIED)

    def _publish(self, report: CycleReport) -> None:
        metrics, forecasts = self.metrics, report.forecasts
        metrics.acting.set(1 if self.act and not self.settings.paused else 0)
        metrics.paused.set(1 if self.settings.paused else 0)
        if forecasts is not None:
            self._publish_forecasts(forecasts)
        if report.problem is not None:
            metrics.cycles.labels("failed").inc()
            return
        metrics.cycles.labels("complete" if report.is_complete else "held").inc()
        if report.is_complete:
            metrics.last_complete_cycle.set(report.started_at_seconds)
        for record in report.records:
            decision = record.plan.decision
            metrics.decisions.labels(record.direction, decision.reason.code.value, record.result.outcome.value).inc()
            log.info("decision", **record.log_fields())
        metrics.publish_workloads(record.reading() for record in report.records)

    def _publish_forecasts(self, forecasts: Forecasts) -> None:
        metrics, model, now = self.metrics, forecasts.model, forecasts.now_seconds
        metrics.model.clear()
        metrics.model.labels(model.version, model.origin.value).set(1)
        metrics.model_age.set(model.age_seconds(now))
        if model.version:
            metrics.model_trained_age.set(max(0.0, now - model.bundle.trained_until_seconds))
        if forecasts.newest_sample_seconds is not None:
            metrics.newest_sample_age.set(max(0, now - forecasts.newest_sample_seconds))
        for dependency, problem in (("prometheus", forecasts.source_problem), ("registry", model.problem)):
            metrics.dependency_up.labels(dependency).set(0 if problem else 1)
            if problem is not None and problem is not self._told.get(dependency):
                metrics.errors.labels(dependency, type(problem).__name__).inc()
                log.warning("no answer", dependency=dependency, error=type(problem).__name__, message=str(problem))
                if dependency == "registry":
                    age = round(model.age_seconds(now))
                    log.warning("going on with another model", model=model.description, age_seconds=age)
            self._told[dependency] = problem

    def _count_error(self, dependency: str, problem: Exception) -> None:
        self.metrics.errors.labels(dependency, type(problem).__name__).inc()
        self.metrics.dependency_up.labels(dependency).set(0)
