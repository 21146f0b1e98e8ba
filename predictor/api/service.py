"""Keeps the newest forecasts at hand and follows up how good they turn out; answers come from memory."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np
import structlog

from predictor import metrics
from predictor.api.accuracy_file import AccuracyFile
from predictor.api.exposition import published
from predictor.metrics import DETAILED_SERIES, PredictorMetrics, Published
from predictor.serving.accuracy import AccuracyError, AccuracyTracker
from predictor.serving.bundle import NoForecast, PanelForecast
from predictor.serving.forecasts import Forecasts, Origin
from predictor.serving.predictor import Predictor

log = structlog.get_logger("foresize.serve")

MISSED_REFRESHES = 3
"""So many refreshes may fail in a row before the service says that it is not ready."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether forecasts can be relied on, and if not, every reason."""

    problems: tuple[str, ...]

    @property
    def is_ready(self) -> bool:
        """Whether there is nothing to object to."""
        return not self.problems


@dataclass
class ForecastService:
    """The forecasts of all series, brought up to date by `refresh` and read by any number of requests.

    A refresh that fails leaves the last good answer in place, with its age growing; `Forecasts.of` turns it into
    NoForecast by itself once its samples are too old.
    """

    predictor: Predictor
    tracker: AccuracyTracker
    clock: Callable[[], float]
    refresh_every: timedelta
    metrics: PredictorMetrics = field(default_factory=PredictorMetrics)
    accuracy_file: AccuracyFile | None = None
    """Where scores survive a restart; None where they need not, as for forecasts from a file."""
    detailed_series: int = DETAILED_SERIES

    def __post_init__(self) -> None:
        self._answer: Forecasts | None = None
        self._latest: Forecasts | None = None
        self._answered_at_seconds: float | None = None
        self._saved_cutoff: int | None = None
        self.metrics.at_scrape(self._at_scrape)

    @property
    def answer(self) -> Forecasts | None:
        """The last good answer, judged at the present time; None before the first."""
        if self._answer is None:
            return None
        return replace(self._answer, now_seconds=int(self.clock()))

    def refresh(self) -> None:
        """Reads usage, forecasts, scores what was forecast before, and publishes all of it."""
        with self.metrics.refresh_seconds.time():
            answer = self.predictor.predict(self.clock())
            self._latest = answer
            if answer.model.problem is not None:
                self._count("registry", answer.model.problem)
            if answer.panel is None:
                self._count("source", answer.source_problem)
                self.metrics.refreshes.labels("failed").inc()
                return
            self._follow_up(answer)
            self._answer, self._answered_at_seconds = answer, self.clock()
            self.metrics.publish(published(answer, self.tracker, self.detailed_series))
            self.metrics.refreshes.labels("complete").inc()

    def run(self, stop: threading.Event) -> None:
        """Refreshes until told to stop; whatever goes wrong in one refresh is counted and the next is tried."""
        while True:
            try:
                self.refresh()
            except Exception as error:
                self._count("service", error)
                self.metrics.refreshes.labels("failed").inc()
            if stop.wait(self.refresh_every.total_seconds()):
                break
        self._save()

    def readiness(self) -> Readiness:
        """Whether a model is loaded and the data are fresh."""
        if self._latest is None:
            return Readiness(("no forecast was made yet",))
        problems = []
        model = self._latest.model
        if model.origin is Origin.NONE:
            problems.append(f"no model is loaded: {model.problem}")
        if self._latest.source_problem is not None and self._answer is None:
            problems.append(f"usage could not be read: {self._latest.source_problem}")
        every = self.refresh_every.total_seconds()
        if (age := self._answer_age()) is not None and age > MISSED_REFRESHES * every:
            problems.append(f"the last refresh that went well is {age:.0f} s ago; one is due every {every:.0f} s")
        if self._answer is not None:
            stale_after = self.predictor.stale_after.total_seconds()
            if (data_age := self._data_age()) is None:
                problems.append("no workload was observed")
            elif data_age > stale_after:
                problems.append(f"the newest sample is {data_age:.0f} s old; older than {stale_after:.0f} s is stale")
        return Readiness(tuple(problems))

    def _follow_up(self, answer: Forecasts) -> None:
        assert answer.panel is not None
        try:
            self.tracker.observe(answer.panel)
            if isinstance(answer.made, PanelForecast):
                given = [i for i, key in enumerate(answer.made.keys) if not isinstance(answer.of(key), NoForecast)]
                forecast = answer.made.forecast
                self.tracker.issue(
                    [answer.made.keys[i] for i in given],
                    replace(forecast, values=forecast.values[np.asarray(given, dtype=np.intp)]),
                )
        except AccuracyError as error:
            self._count("accuracy", error)
        if answer.panel.end_seconds != self._saved_cutoff:
            self._saved_cutoff = answer.panel.end_seconds
            self._save()

    def _save(self) -> None:
        if self.accuracy_file is not None:
            try:
                self.accuracy_file.save(self.tracker)
            except OSError as error:
                self._count("accuracy_file", error)

    def _count(self, part: str, error: Exception | None) -> None:
        self.metrics.errors.labels(part, type(error).__name__).inc()
        log.warning("refresh_problem", part=part, error=str(error), kind=type(error).__name__)

    def _answer_age(self) -> float | None:
        return None if self._answered_at_seconds is None else max(0.0, self.clock() - self._answered_at_seconds)

    def _data_age(self) -> float | None:
        newest = self._answer.newest_sample_seconds if self._answer is not None else None
        return None if newest is None else max(0.0, self.clock() - newest)

    def _at_scrape(self) -> Published:
        families: dict[metrics.Family, list[metrics.Sample]] = {metrics.READY: [((), float(self.readiness().is_ready))]}
        for family, age in ((metrics.DATA_AGE, self._data_age()), (metrics.ANSWER_AGE, self._answer_age())):
            families[family] = [] if age is None else [((), age)]
        if self._latest is not None:
            model = self._latest.model
            families[metrics.MODEL_INFO] = [((model.version, model.origin.value), 1.0)]
            if model.origin is not Origin.NONE:
                families[metrics.MODEL_AGE] = [((), max(0.0, self.clock() - model.bundle.trained_until_seconds))]
        return families


def restored_tracker(
    file: AccuracyFile | None, levels: tuple[float, ...], horizons_seconds: tuple[int, ...], step_seconds: int
) -> AccuracyTracker:
    """The tracker as saved, if it follows the same forecasts; else a new one."""
    fresh = AccuracyTracker(levels, horizons_seconds, step_seconds)
    if file is None or not file.path.exists():
        return fresh
    try:
        saved = file.load()
    except AccuracyError as error:
        log.warning("accuracy_starts_anew", error=str(error))
        return fresh
    if saved.to_state().parameters != fresh.to_state().parameters:
        log.info("accuracy_starts_anew", why="levels, horizons or step were changed")
        return fresh
    return saved
