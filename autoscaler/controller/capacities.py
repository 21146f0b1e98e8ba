"""Learns what replicas carry, about once an hour for each object that leaves it to be learned, beside the loop.

A thread reads the past of a few objects at a time, load, Ready replicas and latency or throttling, and fits it; cycles
take the newest answers. So a metrics store that is slow or gone delays no replica: the last curve stays. Only a copy
that leads learns; another one goes on from what stands in the status.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import numpy as np
import structlog

from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.autoscalers import KIND, Indicator, Remembered
from autoscaler.controller.learning import (
    LatencyQueries,
    LearningAnswer,
    asks_of,
    is_late,
    learned_knots,
    load_history,
    of_this_version,
    queries_of,
    usage_evidence,
    usage_history,
    usage_knots,
)
from autoscaler.controller.policy import budget_rules
from autoscaler.controller.ports import CapacitySource, ManagedWorkload
from autoscaler.decisions.capacity_curve import Knots, LearnedCurve
from autoscaler.settings import ScalingSettings
from models.capacity import LoadHistory
from models.forecast import FloatArray
from predictor.errors import PredictorError
from predictor.serving.forecasts import Forecasts
from predictor.usage.panel import Resource, SeriesKey, Severity, UsagePanel

log = structlog.get_logger("autoscaler.capacities")

LEARNED_EVERY_SECONDS = 3600.0
RETRIED_AFTER_SECONDS = 300.0
"""Where the metrics store gave no answer."""
LEARNED_AT_ONCE = 2
"""How many objects are taken in a cycle: one takes about a second of work."""
PATIENCE_SECONDS = 60.0
"""For the queries of one object."""
FIRST_WAIT_SECONDS = 20.0
"""How long an answer is waited for by who is patient."""


class _Question(NamedTuple):
    """What one object wants to know."""

    uid: str
    object_key: SeriesKey
    """In whose namespace its queries are held."""
    workload: str
    indicator: Indicator | None
    """None where the utilisation to run at is asked about."""
    basis: str
    version: str
    level: float
    """Share of requests that must be in time, or of CPU periods that must not be throttled."""
    demand: FloatArray
    """Of the last steps."""
    start_seconds: int
    step_seconds: int
    now_seconds: float


class _Job:
    """Questions under way."""

    def __init__(self, questions: Sequence[_Question]) -> None:
        self.questions = questions
        self.done = threading.Event()
        self.answers: dict[str, LearningAnswer | PredictorError] = {}


@dataclass
class CapacityWatch:
    """Keeps what was learned of the objects that leave it to be learned."""

    source: CapacitySource | None
    """None where the source of usage evaluates no queries."""
    settings: ScalingSettings
    window_seconds: int
    """What the rates of a histogram look back over."""
    is_patient: bool = False
    """Whether every answer is waited for: for tests, and for a command that decides once."""

    def __post_init__(self) -> None:
        self._answers: dict[str, LearningAnswer] = {}
        """By uid of the object."""
        self._next: dict[str, tuple[str, str, float]] = {}
        """By uid: the terms and the version that were asked about, and when to ask about them again."""
        self._job: _Job | None = None
        self._problems: dict[str, str] = {}

    def look(
        self,
        workloads: Sequence[ManagedWorkload],
        forecasts: Forecasts,
        remembered: Mapping[str, Remembered],
        now_seconds: float,
    ) -> None:
        """Takes in what was learned, and asks about objects of which it is time, those that know nothing first.

        `workloads` are all whose capacity is to be learned.
        """
        uids = {each.autoscaler.uid for each in workloads}
        self._collect(now_seconds)
        self._answers = {uid: answer for uid, answer in self._answers.items() if uid in uids}
        self._next = {uid: known for uid, known in self._next.items() if uid in uids}
        if self.source is None or self._job is not None:
            return
        questions = [
            question
            for each in workloads
            if (question := self._question(each, forecasts, remembered, now_seconds)) is not None
        ]
        questions.sort(key=lambda each: self._next.get(each.uid, ("", "", 0.0))[2])
        if not questions:
            return
        job = self._job = _Job(questions[:LEARNED_AT_ONCE])
        threading.Thread(target=self._work, args=(job, self.source), name="capacities", daemon=True).start()
        if self.is_patient:
            job.done.wait(FIRST_WAIT_SECONDS)
            self._collect(now_seconds)

    def of(self, uid: str) -> LearningAnswer | None:
        """The newest answer about an object; None before the first."""
        return self._answers.get(uid)

    def forget(self) -> None:
        """Leaves nothing of an own leadership."""
        self._answers, self._next = {}, {}

    def _question(
        self,
        workload: ManagedWorkload,
        forecasts: Forecasts,
        remembered: Mapping[str, Remembered],
        now_seconds: float,
    ) -> _Question | None:
        """What to ask about an object now; None while it is not time, or versions change hands, or no load is known."""
        autoscaler, target, panel = workload.autoscaler, workload.target, forecasts.panel
        if isinstance(target, Hold) or target.rollout or panel is None:
            return None
        level = budget_rules(autoscaler, self.settings)[0].level
        basis, share = asks_of(autoscaler, level, target.cpu_limit_cores)
        kept = remembered[autoscaler.uid].capacity if autoscaler.uid in remembered else None
        asked = self._next.get(autoscaler.uid)
        if asked is None and kept is not None:
            asked = kept.basis, kept.version, kept.learned_at_seconds + LEARNED_EVERY_SECONDS
            if kept.widened_at_seconds is not None:
                asked = None  # of this version nothing was learned
        if asked is not None and asked[:2] == (basis, target.version) and now_seconds < asked[2]:
            return None
        since = now_seconds - self.settings.capacity_span.total_seconds()
        steps = forecasts.steps_since(SeriesKey(target.name, autoscaler.resource), since)
        if not steps:
            return None
        return _Question(
            autoscaler.uid,
            SeriesKey(f"{autoscaler.namespace}/{KIND}/{autoscaler.name}", Resource.CUSTOM),
            target.name,
            autoscaler.indicator if autoscaler.learns_capacity else None,
            basis,
            target.version,
            share,
            np.array([value for _, value in steps]),
            steps[0][0] - panel.step_seconds,
            panel.step_seconds,
            now_seconds,
        )

    def _collect(self, now_seconds: float) -> None:
        job = self._job
        if job is None or not job.done.is_set():
            return
        self._job = None
        for question in job.questions:
            answer = job.answers[question.uid]
            wait = LEARNED_EVERY_SECONDS if isinstance(answer, LearningAnswer) else RETRIED_AFTER_SECONDS
            self._next[question.uid] = question.basis, question.version, now_seconds + wait
            if isinstance(answer, LearningAnswer):
                self._answers[question.uid] = answer
                self._problems.pop(question.uid, None)
                continue
            said = str(answer)
            why = f"what replicas carry cannot be learned: {said}"
            hold = Hold(Reason(ReasonCode.NOT_LEARNED, why))
            self._answers[question.uid] = LearningAnswer(now_seconds, question.basis, question.version, hold)
            if self._problems.get(question.uid) != said:
                log.warning("capacity not learned", workload=question.workload, message=said)
            self._problems[question.uid] = said

    def _work(self, job: _Job, source: CapacitySource) -> None:
        for question in job.questions:
            try:
                job.answers[question.uid] = self._answered(question, source)
            except PredictorError as problem:
                job.answers[question.uid] = problem
            except Exception as error:  # the thread's only way to tell
                log.exception("learning capacity broke", workload=question.workload)
                job.answers[question.uid] = PredictorError(f"learning broke: {type(error).__name__}: {error}")
        job.done.set()

    def _answered(self, question: _Question, source: CapacitySource) -> LearningAnswer:
        grid = {
            "start_seconds": question.start_seconds,
            "end_seconds": question.start_seconds + (len(question.demand) - 1) * question.step_seconds,
            "step_seconds": question.step_seconds,
        }
        asked = self._latency_asked(question, source, grid["end_seconds"])
        if isinstance(asked, Hold):
            return LearningAnswer(question.now_seconds, question.basis, question.version, asked)
        # The same history always teaches the same.
        rng = np.random.default_rng(crc32(question.uid.encode()))
        if asked is None:
            throttled = source.fetch_throttled(question.workload, **grid)
            ready = source.fetch_ready(question.workload, **grid)
            history = usage_history(question.demand, ready, throttled, question.step_seconds)
        else:
            history = self._latency_history(question, source, asked, grid)

        def taught(seen: LoadHistory) -> Knots | Hold:
            if asked is None:
                return usage_knots(seen, question.level, rng)
            return learned_knots(seen, asked.threshold_seconds, question.level, rng)

        own = of_this_version(history)
        by = history if own is None else own
        knots, widened_at = taught(by), None
        if isinstance(knots, Hold) and own is not None:
            by, widened_at = history, question.now_seconds
            knots = taught(by)
        if isinstance(knots, Hold):
            return LearningAnswer(question.now_seconds, question.basis, question.version, knots)
        remark = "" if asked is None else asked.remark
        evidence = usage_evidence(by, question.level) if asked is None else ""
        terms = question.basis, question.version, remark, widened_at, evidence
        curve = LearnedCurve(knots, question.now_seconds, *terms)
        return LearningAnswer(question.now_seconds, question.basis, question.version, curve)

    def _latency_asked(
        self, question: _Question, source: CapacitySource, end_seconds: int
    ) -> LatencyQueries | Hold | None:
        """What to ask of the question's latency; None where it is about utilisation."""
        indicator = question.indicator
        if indicator is None:
            return None
        bounds: tuple[str, ...] = ()
        if indicator.histogram:
            histograms = {question.object_key: indicator.histogram}
            step = question.step_seconds
            read = source.fetch_bounds(histograms, end_seconds=end_seconds, step_seconds=step)[question.object_key]
            if isinstance(read, PredictorError):
                raise read
            bounds = read
        return queries_of(indicator, bounds, self.window_seconds)

    @staticmethod
    def _latency_history(
        question: _Question, source: CapacitySource, asked: LatencyQueries, grid: Mapping[str, int]
    ) -> LoadHistory:
        def values(query: str) -> FloatArray:
            panel = source.fetch_values({question.object_key: query}, **grid, within_seconds=PATIENCE_SECONDS)
            return _row(panel, question.object_key)

        late, requests = values(asked.late), values(asked.requests) if asked.requests else None
        if question.indicator is not None and question.indicator.query:
            late = is_late(late, asked.threshold_seconds)
        ready = source.fetch_ready(question.workload, **grid)
        return load_history(question.demand, ready, late, requests, question.step_seconds)


def _row(panel: UsagePanel, key: SeriesKey) -> FloatArray:
    if key in panel.keys:
        return np.asarray(panel.usage[panel.row(key)], dtype=np.float64)
    broken = [each.message for each in panel.findings if each.severity is Severity.BROKEN]
    raise PredictorError(broken[0] if broken else "the query has no value")
