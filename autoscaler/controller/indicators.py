"""Asks the indicators of SLAs, once for each step of the history, for all objects that have one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autoscaler.controller.autoscalers import KIND, PredictiveAutoscaler, Remembered
from autoscaler.controller.budgeting import LONGEST_PAST_SECONDS, NOT_READ, Readings, StepValue
from autoscaler.controller.ports import IndicatorSource
from predictor.errors import PredictorError
from predictor.usage.panel import Resource, SeriesKey, Severity, UsagePanel

WITHIN_SECONDS = 5.0
"""For all of them together: decisions wait for it."""
NO_QUERIES = Readings(problem="the source of usage evaluates no queries")


@dataclass
class IndicatorWatch:
    """Keeps what indicators said of the last steps."""

    source: IndicatorSource | None
    """None where the source of usage evaluates no queries."""
    step_seconds: int
    window_seconds: int
    """What the rates of a histogram look back over."""

    def __post_init__(self) -> None:
        self._readings: dict[str, Readings] = {}
        """By uid of the object."""
        self._asked: tuple[int, dict[SeriesKey, str]] | None = None
        """The newest step that was asked for, and the queries."""

    def look(
        self, autoscalers: Iterable[PredictiveAutoscaler], remembered: Mapping[str, Remembered], now_seconds: float
    ) -> None:
        """Asks all that have an indicator of the steps that are not counted yet, if one ended since the last time.

        What fails is asked again with the next step.
        """
        asking = [each for each in autoscalers if each.indicator is not None and not each.problem]
        if self.source is None:
            self._readings = {each.uid: NO_QUERIES for each in asking}
            return
        step = self.step_seconds
        last = int(now_seconds) // step * step - step
        queries = {
            _key(each): each.indicator.promql(self.window_seconds) for each in asking if each.indicator is not None
        }
        if not queries or self._asked == (last, queries):
            return
        self._asked = last, queries
        hour_ago = now_seconds - LONGEST_PAST_SECONDS
        counted = [remembered[each.uid].budget.until_seconds for each in asking if each.uid in remembered]
        since = max(hour_ago, min(counted)) if len(counted) == len(asking) else hour_ago
        first = min(int(since) // step * step, last)
        try:
            panel = self.source.fetch_values(
                queries, start_seconds=first, end_seconds=last, step_seconds=step, within_seconds=WITHIN_SECONDS
            )
        except PredictorError as problem:
            self._readings = {each.uid: Readings(problem=str(problem)) for each in asking}
            return
        self._readings = {each.uid: _readings(panel, _key(each)) for each in asking}

    def of(self, uid: str) -> Readings:
        """What the indicator of an object said."""
        return self._readings.get(uid, NOT_READ)


def _key(autoscaler: PredictiveAutoscaler) -> SeriesKey:
    """Stands for the object itself: two may have the same target and promise different things."""
    return SeriesKey(f"{autoscaler.namespace}/{KIND}/{autoscaler.name}", Resource.CUSTOM)


def _readings(panel: UsagePanel, key: SeriesKey) -> Readings:
    if key not in panel.keys:
        broken = [f.message for f in panel.findings if f.workload == key.workload and f.severity is Severity.BROKEN]
        return Readings(problem=broken[0] if broken else "the query has no value")
    values = panel.usage[panel.row(key)].tolist()
    ends = (panel.start_seconds + (place + 1) * panel.step_seconds for place in range(len(values)))
    return Readings(tuple(StepValue(end, value) for end, value in zip(ends, values, strict=True)))
