"""What demand of the scaled workloads did beside its signals, followed from step to step, and what is safe by that.

Every copy of the controller follows it, leading or not, and rebuilds it from the window of usage, so that nothing is
lost with a leader but what forecasts were worth as signals: that is learned anew. Workloads that are new are taken in
some at a time; until then, and where a record says too little, the forecast's own quantile stands.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import isnan, nan
from typing import NamedTuple

import numpy as np

from autoscaler.cluster.capacity import Capacity
from autoscaler.cluster.snapshot import DemandForecast
from autoscaler.decisions.capacity import exceeded_by
from models.forecast import SECONDS_PER_DAY, BoolArray, FloatArray, ForecastError, IntArray
from models.margins import Advised, DemandMargins
from predictor.serving.bundle import NoForecast
from predictor.serving.forecasts import Forecasts
from predictor.usage.panel import SeriesKey, UsagePanel

SIGNAL_LEVELS = (0.5, 0.9, 0.98)
"""Quantiles of the forecast peak that are signals, beside those of recent usage."""
SIGNAL_NAMES = tuple(f"the forecast peak's {level:g} quantile" for level in SIGNAL_LEVELS)
REBUILT_SECONDS = 7 * SECONDS_PER_DAY
"""How much past a record is rebuilt from."""
REBUILT_AT_ONCE = 200
"""How many workloads are taken in a cycle: a second of work."""
LONGEST_LEAD_STEPS = 8


class Terms(NamedTuple):
    """What holds for one workload's demand."""

    capacity: Capacity
    fewest: int
    most: int
    lead_seconds: float


class SafeDemand(NamedTuple):
    """Demand to be ready for, and how that came about."""

    value: float
    """In the base unit of demand."""
    signal: str
    is_forecast: bool
    """Whether the signal is a forecast's quantile, and not recent usage."""
    margin: float
    record_seconds: float
    """How long the signal's record is, older steps counting less."""


class DemandWatch:
    """The records of all workloads that are scaled; `follow` takes in what has become known."""

    def __init__(self) -> None:
        self._margins: DemandMargins | None = None
        self._rows: dict[SeriesKey, int] = {}
        self._end_seconds = 0
        self._step_seconds = 0
        self._said: dict[SeriesKey, tuple[float, SafeDemand | None]] = {}
        """What was answered last, and at which level: the next step is worked out for all at once by these."""

    def follow(self, forecasts: Forecasts, terms: Mapping[SeriesKey, Terms]) -> None:
        """Takes in every step that has ended since the last call, and some of the workloads that are new.

        Those without terms are dropped. Nothing changes where usage could not be read.
        """
        panel = forecasts.panel
        if panel is None or not panel.steps:
            return
        places = {key: row for row, key in enumerate(panel.keys) if key in terms}
        if self._margins is None or panel.step_seconds != self._step_seconds or panel.end_seconds < self._end_seconds:
            self._margins = self._empty(panel.step_seconds, 0)
            self._rows, self._step_seconds = {}, panel.step_seconds
        elif panel.end_seconds == self._end_seconds and places.keys() == self._rows.keys():
            return
        known = [key for key in self._rows if key in places]
        if len(known) < len(self._rows):
            self._margins = self._margins.select(np.array([self._rows[key] for key in known], dtype=np.int64))
        missed = (panel.end_seconds - self._end_seconds) // panel.step_seconds
        if missed * panel.step_seconds > REBUILT_SECONDS:
            known, self._margins = [], self._empty(panel.step_seconds, 0)
        _walk(self._margins, _Walked(panel, forecasts, known, places, terms), missed)
        has_record = frozenset(known)
        new = [key for key in places if key not in has_record][:REBUILT_AT_ONCE]
        if new:
            rebuilt = self._empty(panel.step_seconds, len(new))
            _walk(rebuilt, _Walked(panel, forecasts, new, places, terms), REBUILT_SECONDS // panel.step_seconds)
            self._margins = self._margins.beside(rebuilt)
        self._rows = {key: row for row, key in enumerate([*known, *new])}
        self._end_seconds = panel.end_seconds
        self._said = {key: self._said[key] for key in known if key in self._said}
        if missed:
            self._answer_anew(self._margins)

    def safe(self, key: SeriesKey, level: float) -> SafeDemand | None:
        """What demand stays under in a share `level` of time, at the least cost; None where too little is recorded."""
        row = self._rows.get(key)
        if row is None or self._margins is None:
            return None
        said = self._said.get(key)
        if said is None or said[0] != level:
            advised = self._margins.select(np.array([row])).advised(np.array([[1.0 - level]]))
            said = self._said[key] = level, self._as_safe(self._margins, advised, 0)
        return said[1]

    def _answer_anew(self, margins: DemandMargins) -> None:
        """What was asked last, for the coming step."""
        asked = [(key, level) for key, (level, _) in self._said.items()]
        if not asked:
            return
        rows = np.array([self._rows[key] for key, _ in asked])
        advised = margins.select(rows).advised(np.array([[1.0 - level] for _, level in asked]))
        self._said = {key: (level, self._as_safe(margins, advised, row)) for row, (key, level) in enumerate(asked)}

    def _as_safe(self, margins: DemandMargins, advised: Advised, row: int) -> SafeDemand | None:
        signal, value = int(advised.signal[row, 0]), float(advised.demand[row, 0])
        if signal < 0 or isnan(value):
            return None
        name = margins.names[signal]
        seconds = float(advised.steps[row, 0]) * self._step_seconds
        return SafeDemand(value, name, name in SIGNAL_NAMES, float(advised.margin[row, 0]), seconds)

    @staticmethod
    def _empty(step_seconds: int, series: int) -> DemandMargins:
        return DemandMargins(series, SIGNAL_NAMES, step_seconds=step_seconds, longest_lead_steps=LONGEST_LEAD_STEPS)


def with_margin(forecast: DemandForecast, safe: SafeDemand) -> DemandForecast:
    """The forecast with the demand that is safe in the place of the quantile, and why."""
    days = safe.record_seconds / SECONDS_PER_DAY
    because = (
        f"{safe.signal} x {safe.margin:.3g} was enough for {forecast.level:.6g} of {days:.3g} d at the least cost; "
        f"{forecast.forecaster} alone says {forecast.value:.4g}"
    )
    because += f"; {forecast.because}" if forecast.because else ""
    by = forecast.forecaster if safe.is_forecast else "recent_usage"
    return replace(forecast, value=safe.value, forecaster=by, because=because)


class _Walked(NamedTuple):
    """Some workloads, and what is known of them."""

    panel: UsagePanel
    forecasts: Forecasts
    keys: list[SeriesKey]
    places: Mapping[SeriesKey, int]
    """Rows of the panel."""
    terms: Mapping[SeriesKey, Terms]


def _walk(margins: DemandMargins, walked: _Walked, steps: int) -> None:
    """Adds the newest `steps` steps of the workloads that the margins are of, with forecasts of the coming one."""
    if not walked.keys or steps <= 0:
        return
    panel, rows = walked.panel, np.array([walked.places[key] for key in walked.keys])
    usage = panel.usage[rows].astype(np.float64, copy=False)
    terms = [walked.terms[key] for key in walked.keys]
    is_bound = None if panel.is_bound is None else panel.is_bound[rows]
    lead = np.array([-int(-each.lead_seconds // panel.step_seconds) for each in terms], dtype=np.int64)
    exceeded = _exceeded(usage, is_bound, terms, max(panel.steps - steps, 0))
    margins.follow(usage, _forecast_signals(walked, lead), exceeded, lead)


def _exceeded(usage: FloatArray, is_bound: BoolArray | None, terms: list[Terms], first: int) -> FloatArray:
    """What readiness had to exceed in each step from `first` on; NaN where usage only says that demand was more."""
    demand = usage[:, first:]
    if is_bound is not None:
        demand = np.where(is_bound[:, first:], nan, demand)
    return np.stack(
        [exceeded_by(row, each.capacity, each.fewest, each.most) for row, each in zip(demand, terms, strict=True)]
    )


def _forecast_signals(walked: _Walked, lead: IntArray) -> FloatArray:
    """Quantiles of the peak within each one's lead window, [workloads, levels]; NaN where there is no forecast."""
    made = np.full((len(walked.keys), len(SIGNAL_LEVELS)), nan)
    step = walked.panel.step_seconds
    for row, (key, steps) in enumerate(zip(walked.keys, lead.tolist(), strict=True)):
        served = walked.forecasts.of(key)
        if isinstance(served, NoForecast):
            continue
        until = served.known_until_seconds + (steps + 1) * step
        try:
            made[row] = [served.peak(level, until) for level in SIGNAL_LEVELS]
        except (ForecastError, KeyError):
            continue
    return made
