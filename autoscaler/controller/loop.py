"""The loop: predict, observe, decide, validate, act. The one place of the controller with effects.

Each command is checked against the cluster as it is just before the write, and the write itself is conditional on
that; what changed in between is dropped and decided afresh in the next cycle. What must be remembered is kept in each
object's status, so that another copy goes on where this one stopped; where even that is missing, nothing is removed
before demand was watched for a whole window. A copy whose lease has run out writes nothing.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import Self

import structlog

from autoscaler.cluster.commands import ScaleReplicas
from autoscaler.cluster.reasons import replicas_text
from autoscaler.controller.asking import asked_queries, precedence, unread_because
from autoscaler.controller.autoscalers import Mode, Remembered
from autoscaler.controller.budgeting import NOT_READ
from autoscaler.controller.capacities import CapacityWatch
from autoscaler.controller.demand import DemandWatch, Terms
from autoscaler.controller.indicators import IndicatorWatch
from autoscaler.controller.learning import learns
from autoscaler.controller.planning import Plan, plan, steered_hpa, terms_of
from autoscaler.controller.policy import levels_for
from autoscaler.controller.ports import (
    ClusterObservation,
    ClusterReader,
    ClusterWriter,
    Leadership,
    ManagedWorkload,
    Predicting,
    TargetWorkload,
)
from autoscaler.controller.records import ActResult, DecisionRecord, Outcome
from autoscaler.controller.sizing import Sizing
from autoscaler.controller.status import remembered_from
from autoscaler.controller.telling import Teller
from autoscaler.controller.vertical import VerticalScaling
from autoscaler.controller.writing import WriteBudget, side_by_side
from autoscaler.decisions.guardrails import remembered_scale
from autoscaler.decisions.resizes import PodResize
from autoscaler.errors import AutoscalerError, ClusterRefused, ClusterUnavailable, CommandConflict, ObjectGone
from autoscaler.metrics import AutoscalerMetrics
from autoscaler.settings import ScalingSettings
from predictor.serving.bundle import NoForecast
from predictor.serving.forecasts import Forecasts
from predictor.usage.panel import Resource, SeriesKey

log = structlog.get_logger("autoscaler.controller")

WRITE_ATTEMPTS = 3
"""How often a write that meets a conflict is checked and tried within one cycle."""
LOOK_SECONDS = 0.5
"""How often a copy that rests looks whether it has come to lead."""
FRESH_SECONDS = 2.0
"""A snapshot that is older than this when forecasts are ready is taken anew."""
NOTHING_TO_DO = ActResult(Outcome.NONE)
OBSERVING = ActResult(Outcome.OBSERVED, "mode Observe: spec.mode Auto carries it out")
DRY_RUN = ActResult(Outcome.DRY_RUN, "the controller runs with --dry-run")
STOPPING = ActResult(Outcome.SKIPPED, "the controller is stopping")
NOT_LEADING = ActResult(Outcome.SKIPPED, "this copy does not lead any more")
NO_BUDGET = ActResult(Outcome.SKIPPED, "scaling.writes_per_second is used up; it is decided anew in the next cycle")


@dataclass(frozen=True, slots=True)
class CycleReport:
    """What one cycle saw, decided and did."""

    started_at_seconds: float
    records: tuple[DecisionRecord, ...] = ()
    problem: AutoscalerError | None = None
    """Why the cluster was not seen; nothing was decided then."""
    forecasts: Forecasts | None = None
    is_standby: bool = False
    """Whether another copy led, so that nothing was decided."""
    untold: AutoscalerError | None = None
    """Why a status or Event could not be written; the first of them."""

    @property
    def is_complete(self) -> bool:
        """Whether the whole cluster was seen and usage could be read."""
        return self.problem is None and self.forecasts is not None and self.forecasts.source_problem is None

    def without_window(self) -> Self:
        """The same without the window of usage and what was forecast from it, which are large."""
        if self.forecasts is None:
            return self
        nothing = NoForecast("the forecasts of the last cycle are not kept")
        return replace(self, forecasts=replace(self.forecasts, panel=None, made=nothing, peaks=()))

    @property
    def has_failed_command(self) -> bool:
        """Whether something that should have been written was not."""
        return any(record.result.outcome is Outcome.FAILED for record in self.records)


@dataclass
class Controller:
    """Runs cycles. A copy that does not lead keeps itself ready and decides nothing."""

    reader: ClusterReader
    writer: ClusterWriter
    predictor: Predicting
    settings: ScalingSettings
    clock: Callable[[], float]
    leadership: Leadership
    metrics: AutoscalerMetrics = field(default_factory=AutoscalerMetrics)
    is_dry_run: bool = False
    """Whether nothing at all is written, no status and no Event either."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set to end the loop; a write that is under way is finished first."""
    vertical: VerticalScaling | None = None
    """Sizes containers, for the objects that ask for it."""
    indicators: IndicatorWatch | None = None
    """Reads what says whether SLAs are kept, for the objects that give it."""
    capacities: CapacityWatch | None = None
    """Learns what replicas carry, for the objects that leave it to be learned."""
    other_resources: frozenset[Resource] = frozenset()
    """Whose usage is read though no object scales on them: what node pools are oversold by."""
    usage_from: str = "prometheus"
    """The dependency that problems of reading usage are counted under; `history` where it is a file."""
    monotonic: Callable[[], float] | None = None
    """A clock that nobody sets, for what may be written per second; by default `clock`."""

    def __post_init__(self) -> None:
        self.remembered: dict[str, Remembered] = {}
        """By uid of the object: one that was made anew starts without a past."""
        self._teller = Teller(self.writer, self.metrics)
        self._told: dict[str, Exception | None] = {}
        """Problems that were already counted and logged: the registry's stays until it is asked again."""
        self._warned: dict[str, str | None] = {}
        """What was last said of each thing that can go wrong."""
        self._logged: dict[str, tuple[object, ...]] = {}
        """By uid: what the last line about it said."""
        self._demand = DemandWatch()
        self._terms: dict[str, tuple[SeriesKey, Terms] | None] = {}
        """By uid: of whose demand what holds, as it was last decided on."""
        gathering = max(self.settings.interval.total_seconds(), 1.0)
        self._budget = WriteBudget(self.settings.writes_per_second, gathering)
        self._term = self.leadership.transitions
        self.started_at_seconds = self.clock()
        self.report: CycleReport | None = None
        """The last cycle that saw the cluster, without its window of usage."""
        self.has_read_usage = False
        """Whether usage was read in any cycle: after a start the whole window has to be, and all is held until then."""
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
            self._rest(max(0.0, interval - (self.clock() - started)))

    def _rest(self, seconds: float) -> None:
        """Waits so long, or until this copy is to stop or has come to lead."""
        led = self.leadership.is_leader
        while seconds > 0 and not self.stop.wait(min(seconds, LOOK_SECONDS)):
            seconds -= LOOK_SECONDS
            if self.leadership.is_leader and not led:
                return

    def cycle(self) -> CycleReport:
        """One cycle."""
        with self.metrics.timed("cycle"):
            report = self._cycle()
        self.last_cycle_seconds = self.clock()
        self.has_read_usage |= report.forecasts is not None and report.forecasts.source_problem is None
        if report.problem is None:
            self.report = report.without_window()
        self._publish(report)
        return report

    def _cycle(self) -> CycleReport:
        started = self.clock()
        forecasts: Forecasts | None = None
        try:
            seen = self._observed()
            with self.metrics.timed("predict"):
                scaled = [each.autoscaler for each in seen.workloads if each.autoscaler.scales]
                wanted = {each.resource for each in scaled if not each.query} | self.other_resources
                queries = asked_queries(seen.workloads)
                forecasts = self.predictor.predict(
                    started, levels=self._levels(seen), resources=wanted or None, queries=queries
                )
            if self.indicators is not None and self.settings.error_budget and self.leadership.is_leader:
                with self.metrics.timed("indicators"):
                    self.indicators.look(scaled, self.remembered, started)
            if self.capacities is not None and self.leadership.is_leader:
                asking = (each for each in seen.workloads if learns(each.autoscaler, self.settings))
                learning = [each for each in asking if not unread_because(each.autoscaler, queries)]
                self.capacities.look(learning, forecasts, self._past_of(learning, started), started)
            if self.clock() - seen.observed_at_seconds > FRESH_SECONDS:
                # Forecasts may take long, and the snapshot has to be young when it is acted on.
                seen = self._observed()
        except (ClusterUnavailable, ClusterRefused) as problem:
            self._count_error("kubernetes", problem)
            self._warn("cluster not seen", problem)
            return CycleReport(started, problem=problem, forecasts=forecasts)
        self._warn("cluster not seen", None)
        self.metrics.dependency_up.labels("kubernetes").set(1)
        if not self.leadership.is_leader:
            self._forget()
            self._follow_demand(seen, forecasts)
            return CycleReport(started, forecasts=forecasts, is_standby=True)
        if self.leadership.transitions != self._term:
            self._forget()
            self._term = self.leadership.transitions
        self._budget.begin(self.passing())
        with self.metrics.timed("decide"):
            before, plans = self._decide(seen, forecasts)
        results = self._carry_out(plans, seen)
        sizings = self._size_containers(plans, seen, forecasts)
        records = tuple(
            DecisionRecord(
                _with_remembered(decided, self.remembered[decided.autoscaler.uid]),
                results.get(decided.autoscaler.uid, NOTHING_TO_DO),
                forecasts.model,
                sizings.get(decided.autoscaler.uid),
            )
            for decided in plans
        )
        untold = None
        if not self.is_dry_run:
            with self.metrics.timed("tell"):
                untold = self._teller.tell(records, before, self._may_write, self.clock())
        self._warn("not told", untold)
        return CycleReport(started, records, forecasts=forecasts, untold=untold)

    def _warn(self, what: str, problem: AutoscalerError | None) -> None:
        """Says what went wrong when it begins and when it changes, not with every cycle; metrics count them all."""
        said = None if problem is None else str(problem)
        if said is not None and said != self._warned.get(what):
            log.warning(what, error=type(problem).__name__, message=said)
        self._warned[what] = said

    def _observed(self) -> ClusterObservation:
        with self.metrics.timed("observe"):
            seen = self.reader.observe(self.clock())
        self.metrics.snapshot_age.set(seen.age_seconds)
        return seen

    def _levels(self, seen: ClusterObservation) -> frozenset[float]:
        """The quantile levels that decisions may need: what the objects state, and those their budgets may ask for."""
        scaled = (each.autoscaler for each in seen.workloads if each.autoscaler.scales)
        return frozenset(level for each in scaled for level in levels_for(each, self.settings))

    def _forget(self) -> None:
        """Leaves nothing of an own leadership: the next one starts from what the cluster says."""
        self.remembered, self._logged = {}, {}
        self._teller.keep_only(())
        if self.vertical is not None:
            self.vertical.forget()
        if self.capacities is not None:
            self.capacities.forget()

    def _past_of(self, workloads: Sequence[ManagedWorkload], now: float) -> dict[str, Remembered]:
        """What is remembered of each object, by uid: from the cycles before, else by what its status says."""
        past = {}
        for workload in workloads:
            known = self.remembered.get(workload.autoscaler.uid)
            past[workload.autoscaler.uid] = remembered_from(workload.autoscaler.status, now) if known is None else known
        return past

    def _decide(self, seen: ClusterObservation, forecasts: Forecasts) -> tuple[dict[str, Remembered], list[Plan]]:
        """What was remembered of each object until now, and what was decided."""
        now = seen.observed_at_seconds
        before = self._past_of(seen.workloads, now)
        read = self.indicators.of if self.indicators is not None else lambda _: NOT_READ
        learned = self.capacities.of if self.capacities is not None else lambda _: None
        self._follow_demand(seen, forecasts)
        asked = asked_queries(seen.workloads)
        plans = [
            plan(
                workload,
                forecasts,
                before[workload.autoscaler.uid],
                settings=self.settings,
                now_seconds=now,
                readings=read(workload.autoscaler.uid),
                watch=self._demand if self.settings.learned_margins else None,
                learning=learned(workload.autoscaler.uid),
                unread=unread_because(workload.autoscaler, asked),
            )
            for workload in seen.workloads
        ]
        self._terms = {
            decided.autoscaler.uid: None if unread_because(decided.autoscaler, asked) else terms_of(decided)
            for decided in plans
        }
        # Replaced as a whole: what is gone from the cluster is forgotten.
        self.remembered = {decided.autoscaler.uid: decided.remembered for decided in plans}
        self._logged = {uid: known for uid, known in self._logged.items() if uid in before}
        self._teller.keep_only(before.keys())
        return before, plans

    def _follow_demand(self, seen: ClusterObservation, forecasts: Forecasts) -> None:
        """Takes into the records of demand what has become known; a copy that does not lead follows as well."""
        if not self.settings.learned_margins:
            return
        now, asked = seen.observed_at_seconds, asked_queries(seen.workloads)
        terms: dict[str, tuple[SeriesKey, Terms] | None] = {}
        for workload in seen.workloads:
            uid = workload.autoscaler.uid
            if unread_because(workload.autoscaler, asked):
                terms[uid] = None
            elif self._terms.get(uid) is None:
                # They may be known by now, where capacity is learned: by this copy or the one that leads.
                known = remembered_from(workload.autoscaler.status, now)
                first = plan(workload, forecasts, known, settings=self.settings, now_seconds=now)
                terms[uid] = terms_of(first)
            else:
                terms[uid] = self._terms[uid]
        self._terms = terms
        with self.metrics.timed("follow"):
            self._demand.follow(forecasts, dict(each for each in terms.values() if each is not None))

    def _carry_out(self, plans: Sequence[Plan], seen: ClusterObservation) -> dict[str, ActResult]:
        """Results by uid of everything that was a command; more replicas first, as they are the urgent ones."""
        commands = [(p.decision.outcome, p) for p in plans if isinstance(p.decision.outcome, ScaleReplicas)]
        commands.sort(key=lambda pair: pair[0].desired < pair[0].current)
        results = side_by_side(lambda pair: self._carried_out(*pair, seen), commands)
        return {decided.autoscaler.uid: result for (_, decided), result in zip(commands, results, strict=True)}

    def _carried_out(self, command: ScaleReplicas, decided: Plan, seen: ClusterObservation) -> ActResult:
        """What came of one command; several threads are here at a time, each with another object."""
        kept_from = self._kept_from_writing(decided)
        if kept_from is not None:
            return kept_from
        if not self._budget.take(self.passing()):
            return NO_BUDGET
        try:
            return self._validated_write(command, decided, seen)
        except (CommandConflict, ObjectGone) as change:
            return ActResult(Outcome.SKIPPED, str(change))
        except (ClusterUnavailable, ClusterRefused) as problem:
            self._count_error("kubernetes", problem)
            return ActResult(Outcome.FAILED, str(problem))

    def _kept_from_writing(self, decided: Plan) -> ActResult | None:
        if self.is_dry_run:
            return DRY_RUN
        if decided.autoscaler.mode is Mode.OBSERVE:
            return OBSERVING
        if self.stop.is_set():
            return STOPPING
        if not self.leadership.is_leader:
            return NOT_LEADING
        return NO_BUDGET if self._budget.is_spent else None

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
        autoscaler, target, hpa = decided.autoscaler, decided.workload.target, steered_hpa(decided.workload)
        assert isinstance(target, TargetWorkload)
        assert decided.policy is not None
        with self.metrics.timed("validate", workload=autoscaler.workload):
            scale = (
                self.reader.minimum_of(hpa) if hpa else self.reader.scale_of(autoscaler.namespace, autoscaler.target)
            )
        if scale.uid != (hpa.uid if hpa else target.uid):
            return ActResult(Outcome.SKIPPED, "deleted and created anew since this was decided")
        if scale.replicas != command.current:
            return ActResult(
                Outcome.SKIPPED,
                f"somebody set {replicas_text(scale.replicas)} since this was decided for {command.current}",
            )
        # Asked again: reading the scale may have taken longer than the lease lasts.
        if not self.leadership.is_leader:
            return NOT_LEADING
        with self.metrics.timed("act", workload=autoscaler.workload):
            if hpa:
                self.writer.set_minimum(hpa, command.desired, scale)
            else:
                self.writer.set_replicas(autoscaler.namespace, autoscaler.target, command.desired, scale)
        now = self.clock()
        change = command.desired - command.current
        memory = remembered_scale(decided.remembered.replicas, change, decided.policy.rules.behaviour, now)
        remembered = replace(
            decided.remembered, replicas=memory, last_scale_seconds=now, changed_by_others_at_seconds=None
        )
        if hpa is None:
            remembered = replace(remembered, last_replicas=command.desired, set_from_generation=target.generation)
        else:
            remembered = replace(remembered, last_minimum=command.desired)
        self.remembered[autoscaler.uid] = remembered
        return ActResult(Outcome.APPLIED, f"minReplicas of {hpa.shown}" if hpa else "")

    def _size_containers(
        self, plans: Sequence[Plan], seen: ClusterObservation, forecasts: Forecasts
    ) -> Mapping[str, Sizing]:
        """What came of sizing containers, by uid of the object; after the replicas, which are more urgent."""
        if self.vertical is None:
            return {}

        def write(decided: Plan, resize: PodResize) -> ActResult:
            return self._resized(decided, resize, seen.observed_at_seconds)

        with self.metrics.timed("size"):
            bundle, now = forecasts.model.bundle, seen.observed_at_seconds
            return self.vertical.size(plans, bundle, now, self._kept_from_writing, write)

    def _resized(self, decided: Plan, resize: PodResize, observed_at_seconds: float) -> ActResult:
        """What came of resizing one pod: what has changed since it was seen is decided anew in the next cycle."""
        age = self.clock() - observed_at_seconds
        if age > self.settings.stale_after.total_seconds():
            return ActResult(Outcome.SKIPPED, f"the cluster was last seen {age:.0f} s ago")
        kept_from = self._kept_from_writing(decided)
        if kept_from is not None:
            return kept_from
        if not self._budget.take(self.passing()):
            return NO_BUDGET
        try:
            with self.metrics.timed("act", workload=decided.autoscaler.workload):
                self.writer.resize_pod(resize)
            result = ActResult(Outcome.APPLIED)
        except (CommandConflict, ObjectGone) as change:
            result = ActResult(Outcome.SKIPPED, str(change))
        except ClusterUnavailable as problem:
            self._count_error("kubernetes", problem)
            result = ActResult(Outcome.SKIPPED, str(problem))
        except ClusterRefused as problem:
            self.metrics.errors.labels("kubernetes", type(problem).__name__).inc()
            result = ActResult(Outcome.FAILED, str(problem))
        self.metrics.resizes.labels(result.outcome.value).inc()
        return result

    def _may_write(self) -> bool:
        """Whether one more write is allowed now; one that is counts as made."""
        if self.stop.is_set() or not self.leadership.is_leader:
            return False
        return self._budget.take(self.passing())

    def passing(self) -> float:
        """Seconds by a clock that nobody sets; they only count from one time to the next."""
        return (self.monotonic or self.clock)()

    def _publish(self, report: CycleReport) -> None:
        metrics, forecasts = self.metrics, report.forecasts
        metrics.leader.set(1 if self.leadership.is_leader else 0)
        metrics.acting.set(0 if self.is_dry_run or self.settings.paused or report.is_standby else 1)
        metrics.paused.set(1 if self.settings.paused else 0)
        if forecasts is not None:
            self._publish_forecasts(forecasts)
        if report.problem is not None:
            metrics.cycles.labels("failed").inc()
            return
        metrics.cycles.labels("standby" if report.is_standby else "complete" if report.is_complete else "held").inc()
        if report.is_complete and not report.is_standby:
            metrics.last_complete_cycle.set(report.started_at_seconds)
        for record in report.records:
            decision = record.plan.decision
            metrics.decisions.labels(record.direction, decision.reason.code.value, record.result.outcome.value).inc()
            # One that says what the one before said is no news.
            said = record.gist
            if self._logged.get(record.plan.autoscaler.uid) != said:
                self._logged[record.plan.autoscaler.uid] = said
                tell = log.warning if record.result.outcome is Outcome.FAILED else log.info
                tell("decision", **record.log_fields())
        scaled = [record for record in report.records if record.plan.autoscaler.scales]
        scaled.sort(key=lambda record: precedence(record.plan.autoscaler), reverse=True)
        # One series of each target, as two are none to Prometheus.
        metrics.publish_workloads({r.plan.decision.workload: r.reading() for r in scaled}.values())
        outcomes = Counter(record.result.outcome.value for record in report.records)
        log.info(
            "cycle",
            workloads=len(report.records),
            leader=self.leadership.holder,
            standby=report.is_standby,
            took_seconds=round(self.clock() - report.started_at_seconds, 3),
            **outcomes,
        )

    def _publish_forecasts(self, forecasts: Forecasts) -> None:
        metrics, model, now = self.metrics, forecasts.model, forecasts.now_seconds
        metrics.model.clear()
        metrics.model.labels(model.version, model.origin.value).set(1)
        metrics.model_age.set(model.age_seconds(now))
        trained_age = max(0.0, now - model.bundle.trained_until_seconds) if model.version else nan
        metrics.model_trained_age.set(trained_age)
        if forecasts.newest_sample_seconds is not None:
            metrics.newest_sample_age.set(max(0, now - forecasts.newest_sample_seconds))
        for dependency, problem in ((self.usage_from, forecasts.source_problem), ("registry", model.problem)):
            metrics.dependency_up.labels(dependency).set(0 if problem else 1)
            before = self._told.get(dependency)
            if problem is not None and problem is not before:
                metrics.errors.labels(dependency, type(problem).__name__).inc()
            if problem is not None and str(problem) != str(before):
                log.warning("no answer", dependency=dependency, error=type(problem).__name__, message=str(problem))
                if dependency == "registry":
                    age = round(model.age_seconds(now))
                    log.warning("going on with another model", model=model.description, age_seconds=age)
            self._told[dependency] = problem

    def _count_error(self, dependency: str, problem: Exception) -> None:
        self.metrics.errors.labels(dependency, type(problem).__name__).inc()
        self.metrics.dependency_up.labels(dependency).set(0)


def _with_remembered(decided: Plan, remembered: Remembered) -> Plan:
    """The plan with what is remembered after it was carried out."""
    return decided if decided.remembered is remembered else replace(decided, remembered=remembered)
