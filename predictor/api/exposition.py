"""Turns forecasts and scores into the samples of /metrics; the names and meanings are in predictor/metrics.py."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import product

import numpy as np

from models.forecast import FloatArray
from predictor import metrics
from predictor.metrics import Family, Published, Sample
from predictor.serving.accuracy import PER_LEVEL, AccuracyTracker, Scores
from predictor.serving.bundle import NoForecast
from predictor.serving.forecasts import Forecasts, ObservedUsage, ServedForecast
from predictor.settings import duration_text
from predictor.usage.panel import SeriesKey

_SUMS = {
    "scored": (metrics.SCORED, metrics.FLEET_SCORED),
    "covered": (metrics.COVERED, metrics.FLEET_COVERED),
    "pinball_sum": (metrics.PINBALL, metrics.FLEET_PINBALL),
    "excess_sum": (metrics.EXCESS, metrics.FLEET_EXCESS),
    "shortfall_sum": (metrics.SHORTFALL, metrics.FLEET_SHORTFALL),
    "actual_sum": (metrics.ACTUAL, metrics.FLEET_ACTUAL),
}


def published(answer: Forecasts, tracker: AccuracyTracker, detailed_series: int) -> Published:
    """What a refresh publishes: the newest forecasts, what is due, and all sums; series beyond the number given
    are in the fleet's sums only."""
    scores, totals = tracker.scores(), tracker.totals()
    known = tuple(dict.fromkeys([*scores.keys, *answer.keys]))
    shown = known[:detailed_series]
    due = tracker.said_for(answer.panel.end_seconds if answer.panel else 0)
    families: dict[Family, Sequence[Sample]] = {
        metrics.OBSERVED_USAGE: [
            ((key.workload, key.resource.value), seen.value)
            for key in shown
            if isinstance(seen := answer.observed(key), ObservedUsage)
        ],
        metrics.FORECAST_USAGE: list(_forecasts(answer, shown, scores)),
        metrics.NOMINAL_COVERAGE: [((f"{level:g}",), level) for level in scores.levels],
        metrics.SERIES: [(labels, float(count)) for labels, count in sorted(_served(answer).items())],
        metrics.WITHOUT_DETAIL: [((), float(len(known) - len(shown)))],
        metrics.WAITING: [((), float(tracker.waiting))],
    }
    named = [(key.workload, key.resource.value) for key in scores.keys[:detailed_series]]
    resources = [(key.resource.value,) for key in totals.keys]
    for name, (detail, fleet) in _SUMS.items():
        families[detail] = list(_cells(_cube(scores, name), scores, named, name in PER_LEVEL))
        families[fleet] = list(_cells(_cube(totals, name), totals, resources, name in PER_LEVEL))
    families[metrics.FLEET_UNLABELLED] = list(_cells(_cube(totals, "unlabelled"), totals, resources, False))
    families[metrics.FORECAST_DUE] = list(_cells(due, scores, named, True))
    return families


def _cube(scores: Scores, name: str) -> FloatArray:
    """Sums as [series, levels, horizons], with one level where the sum has none."""
    sums = np.asarray(getattr(scores, name), dtype=np.float64)
    return sums if name in PER_LEVEL else sums[:, None]


def _cells(cube: FloatArray, scores: Scores, rows: Sequence[tuple[str, ...]], by_level: bool) -> Iterator[Sample]:
    """One sample for each number of [series, levels, horizons], for as many series as are named."""
    levels = [(f"{level:g}",) for level in scores.levels] if by_level else [()]
    ahead = [(duration_text(timedelta(seconds=h)),) for h in scores.horizons_seconds]
    labels = [(*level, *horizon) for level, horizon in product(levels, ahead)]
    for row, numbers in zip(rows, cube[: len(rows)].reshape(-1, len(labels)).tolist(), strict=True):
        for label, number in zip(labels, numbers, strict=True):
            if not math.isnan(number):  # NaN is "nothing was said", which has no sample
                yield (*row, *label), number


def _forecasts(answer: Forecasts, shown: Sequence[SeriesKey], scores: Scores) -> Iterator[Sample]:
    for key in shown:
        served = answer.of(key)
        if not isinstance(served, ServedForecast):
            continue
        for horizon in scores.horizons_seconds:
            step = horizon // served.series.step_seconds - 1
            if step < served.series.values.shape[1]:
                ahead = duration_text(timedelta(seconds=horizon))
                for level, value in zip(served.series.levels, served.series.values[:, step].tolist(), strict=True):
                    yield (key.workload, key.resource.value, f"{level:g}", ahead), value


def _served(answer: Forecasts) -> Mapping[tuple[str, ...], int]:
    counted: Counter[tuple[str, ...]] = Counter()
    for key in answer.keys:
        served = answer.of(key)
        if isinstance(served, NoForecast):
            counted[key.resource.value, "none", "none"] += 1
        else:
            how = served.series.served
            counted[key.resource.value, how.forecaster, "cold" if how.is_cold else "warm"] += 1
    return counted
