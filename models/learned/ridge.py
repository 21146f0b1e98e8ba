"""Ridge regression of each step ahead on the season, the last day and the newest samples of the series itself.

Where usage follows the clock and the calendar, a mean with its errors says more than draws from the past. Method:
direct multi-horizon ridge regression in closed form, its penalty and its error quantiles from leave-one-out residuals,
which cost no refit (Allen 1974, PRESS).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.forecast import (
    SECONDS_PER_DAY,
    Empirical,
    FloatArray,
    History,
    Target,
    between_levels,
    carried_forward,
)
from models.weighted import weighted_quantiles

CHUNK_SAMPLES = 130_000
"""Past samples that are regressed at a time, so that they stay in the processor's cache."""
PENALTIES: tuple[float, ...] = (0.1, 0.3, 1.0)
"""Penalties on standardised features, each times the number of rows. Smaller ones look better to leave-one-out, as
neighbouring rows share their noise, and are worse a day later."""
KNOT_SECONDS: tuple[int, ...] = (300, 1200, 3600)
"""How far ahead there are regressions of their own, as every two hours and at the last step; steps between
interpolate. On a day's wave four hours between them cost three times the error."""
KNOT_EVERY_SECONDS = 7200
TRAILING_SECONDS: tuple[int, ...] = (900, 3600, 14_400, SECONDS_PER_DAY)
"""Windows whose means are features."""
WEEKLY_AFTER_SECONDS = 14 * SECONDS_PER_DAY
"""A series known for less than this has no weekly terms: they would take any trend for a week's shape."""
MINIMUM_ROWS = 60
"""With fewer rows to regress on, nothing is regressed."""
ALIKE_SECONDS = 3 * 3600
"""Errors made this far from now's time of day weigh exp(−½) of those made at it."""
CONSTANT = 1e-6
"""A feature that varies by less than this share of the largest sample says nothing."""


@dataclass(frozen=True, slots=True)
class RidgeFourier(Empirical):
    """The mean of an outcome's root by ridge regression, and around it the quantiles of its leave-one-out errors.

    A row is a past moment; its features are the newest sample and means up to it, the outcome at the same time a day
    and a week before, and `daily_terms` and `weekly_terms` pairs of sine and cosine of the outcome's time. Errors near
    now's time of day weigh more. A series with too little past has no answer. A value is never above `cap_factor`
    times the largest sample.
    """

    name: ClassVar[str] = "ridge_fourier"

    daily_terms: int = 4
    weekly_terms: int = 2
    rows: int = 600
    """Past moments that are regressed on where the whole past is known, spread evenly; fewer where less is."""
    cap_factor: float = 2.0
    history_seconds: int = 28 * SECONDS_PER_DAY

    def quantiles(self, history: History, target: Target, levels: FloatArray) -> FloatArray:
        """Quantiles of each outcome."""
        past = history.last(self.history_seconds // history.step_seconds)
        values = np.full((past.series_count, len(levels), len(target.ahead)), np.nan)
        moments = self._moments(past, target.steps)
        if len(moments) >= MINIMUM_ROWS:
            waves = self._waves(past, target.steps)
            size = max(CHUNK_SAMPLES // past.steps, 1)
            for start in range(0, past.series_count, size):
                part = slice(start, start + size)
                design = Design(past.usage[part], target, past.step_seconds, waves, 2 * self.weekly_terms)
                values[part] = self._chunk(design, moments, target, levels)
        return values

    def _moments(self, past: History, horizon: int) -> NDArray[np.intp]:
        """Past steps that a day precedes and a whole horizon follows, oldest first; as far apart for any past."""
        first, last = _day_steps(past.step_seconds), past.steps - 1 - horizon
        longest = self.history_seconds // past.step_seconds - 1 - horizon - first
        return np.arange(last, first - 1, -max(longest // self.rows, 1))[::-1]

    def _waves(self, past: History, horizon: int) -> NDArray[np.float32]:
        """Sines and cosines of each step's time of day, then of week, [terms, steps + horizon]."""
        seconds = past.times[0] + past.step_seconds * np.arange(past.steps + horizon)
        terms = [(SECONDS_PER_DAY, k + 1) for k in range(self.daily_terms)]
        terms += [(7 * SECONDS_PER_DAY, k + 1) for k in range(self.weekly_terms)]
        turns = [2 * np.pi * term * (seconds % season) / season for season, term in terms]
        waves = [turned(turn) for turn in turns for turned in (np.sin, np.cos)]
        return np.asarray(waves, dtype=np.float32).reshape(-1, len(seconds))

    def _chunk(self, design: "Design", moments: NDArray[np.intp], target: Target, levels: FloatArray) -> FloatArray:
        """Forecasts of some series, [series, levels, outcomes]; NaN where one has too few rows."""
        knots, ahead = _knots(target, design.step_seconds), target.ahead.tolist()
        found = [
            regressed(design.features(moments, knot), design.outcome(moments, knot), design.is_row(moments, knot))
            for knot in knots
        ]
        slopes = between_levels(np.stack([each.slopes for each in found], axis=2), knots, ahead)
        mean = between_levels(np.stack([each.intercept for each in found], axis=1), knots, ahead)
        now = design.features(np.full(len(ahead), design.steps - 1), target.ahead)
        mean = mean + np.sum(slopes * now, axis=1)
        alike = _alike(design.steps - 1 - moments, design.step_seconds)
        errors = between_levels(_error_quantiles(found, alike, levels), knots, ahead)
        largest = design.largest[:, None, None]
        made = np.clip(mean[:, None] + errors, 0.0, np.sqrt(self.cap_factor)) ** 2 * largest
        is_known = np.all([each.rows >= MINIMUM_ROWS for each in found], axis=0) & (design.largest > 0)
        return np.where(is_known[:, None, None], made, np.nan)


class Design:
    """What a regression sees of some series: features and outcome of any past moment and step ahead."""

    def __init__(
        self,
        usage: FloatArray,
        target: Target,
        step_seconds: int,
        waves: NDArray[np.float32],
        weekly_waves: int,
    ) -> None:
        self.steps, self.step_seconds = usage.shape[1], step_seconds
        self._is_sampled = ~np.isnan(usage)
        self.largest = np.max(usage, axis=1, initial=0.0, where=self._is_sampled)
        root = np.sqrt(usage / np.where(self.largest > 0, self.largest, 1.0)[:, None])
        outcomes = target.outcomes(root)
        self._is_known = ~np.isnan(outcomes)
        self._filled = np.nan_to_num(carried_forward(root))
        self._outcomes = np.nan_to_num(carried_forward(outcomes)) if target.is_peak else self._filled
        self._sums = np.zeros((len(usage), self.steps + 1))
        np.cumsum(self._filled, axis=1, out=self._sums[:, 1:])
        self._first = np.where(self._is_known.any(axis=1), np.argmax(self._is_known, axis=1), self.steps)
        self._is_young = (self.steps - self._first) * step_seconds < WEEKLY_AFTER_SECONDS
        self._waves, self._weekly_waves = waves, weekly_waves

    def is_row(self, moments: NDArray[np.intp], ahead: int) -> NDArray[np.bool_]:
        """Whether a moment and what came of it can be learned from, [series, moments]: known, a day of past."""
        is_known = self._is_sampled.take(moments, axis=1) & self._is_known.take(moments + ahead, axis=1)
        return np.asarray(is_known & (moments - _day_steps(self.step_seconds) >= self._first[:, None]))

    def outcome(self, moments: NDArray[np.intp], ahead: int) -> FloatArray:
        """What came of each moment, [series, moments]; of no meaning where it is no row."""
        return np.asarray(self._outcomes.take(moments + ahead, axis=1))

    def features(self, moments: NDArray[np.intp], ahead: NDArray[np.intp] | int) -> NDArray[np.float32]:
        """Features of the step `ahead` of each moment, [series, features, moments]; none looks past its moment."""
        day, levels = _day_steps(self.step_seconds), 3 + len(TRAILING_SECONDS)
        found = np.empty((len(self._filled), levels + len(self._waves), len(moments)), dtype=np.float32)
        yesterday, last_week = (moments + ahead - -(-ahead // season) * season for season in (day, 7 * day))
        found[:, 0] = self._filled.take(moments, axis=1)
        found[:, 1] = self._outcomes.take(yesterday, axis=1)
        is_there = last_week >= self._first[:, None]
        found[:, 2] = np.where(is_there, self._outcomes.take(np.maximum(last_week, 0), axis=1), found[:, 1])
        until = self._sums.take(moments + 1, axis=1)
        for place, seconds in enumerate(TRAILING_SECONDS, start=3):
            width = min(max(seconds // self.step_seconds, 1), day)
            found[:, place] = (until - self._sums.take(moments + 1 - width, axis=1)) / width
        found[:, levels:] = self._waves.take(moments + ahead, axis=1)
        found[self._is_young, found.shape[1] - self._weekly_waves :] = 0.0
        return found


@dataclass(frozen=True, slots=True)
class Regression:
    """A ridge regression of each series on its own rows."""

    intercept: FloatArray
    """[series]"""
    slopes: FloatArray
    """[series, features]"""
    errors: FloatArray
    """Of each row by the regression on all others, [series, rows]; NaN for what is no row."""
    rows: NDArray[np.intp]
    """How many rows there are, [series]."""


def regressed(features: NDArray[np.floating[Any]], target: FloatArray, is_row: NDArray[np.bool_]) -> Regression:
    """The regression with that one of PENALTIES whose leave-one-out errors are smallest, for each series.

    `features` is [series, features, rows], the others [series, rows]. With the eigenvalues d and vectors V of the
    standardised features' covariance, u = Vᵀx, a row's leverage is (1 + Σ u² / (d + penalty)) / n and its leave-one-out
    error its error ÷ (1 − leverage).
    """
    rows = is_row.sum(axis=1)
    count = np.maximum(rows, 1)[:, None, None]
    counted = is_row.astype(features.dtype)
    mean = features @ counted[:, :, None] / count
    centred = (features - mean.astype(features.dtype)) * counted[:, None]
    level = np.sum(target, axis=1, where=is_row)[:, None] / count[:, 0]
    outcome = np.where(is_row, target - level, 0.0).astype(features.dtype)
    covariance = (centred @ np.ascontiguousarray(centred.transpose(0, 2, 1))).astype(np.float64) / count
    spread = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    unit = np.where(spread > CONSTANT, spread, np.inf)
    values, vectors = np.linalg.eigh(covariance / (unit[:, :, None] * unit[:, None]))
    turned = (vectors / unit[:, :, None]).astype(features.dtype).transpose(0, 2, 1) @ centred
    shrunk = 1.0 / (values[:, None] + np.asarray(PENALTIES)[:, None])
    leverage = (1.0 + shrunk.astype(features.dtype) @ turned**2) / count
    weights = shrunk * (turned @ outcome[:, :, None] / count)[:, None, :, 0]
    errors = (outcome[:, None] - weights.astype(features.dtype) @ turned) / np.maximum(1.0 - leverage, CONSTANT)
    best = np.argmin(np.sum(errors**2, axis=2), axis=1)
    series = np.arange(len(rows))
    slopes = (vectors @ weights[series, best][:, :, None])[:, :, 0] / unit
    return Regression(
        level[:, 0] - np.sum(slopes * mean[:, :, 0], axis=1),
        slopes,
        np.where(is_row, errors[series, best], np.nan),
        rows,
    )


def _error_quantiles(found: Sequence[Regression], weight: FloatArray, levels: FloatArray) -> FloatArray:
    """Quantiles of the errors of regressions of the same series, weighted by row, [series, levels, regressions]."""
    errors = np.stack([each.errors for each in found], axis=1)
    rows = errors.reshape(-1, errors.shape[2])
    read = weighted_quantiles(rows, np.zeros((len(rows), 1), dtype=np.intp), weight[None], levels)
    return read.reshape(*errors.shape[:2], len(levels)).transpose(0, 2, 1)


def _knots(target: Target, step_seconds: int) -> tuple[int, ...]:
    """Steps ahead with a regression of their own, the last among them; of a peak it alone."""
    if target.is_peak:
        return (target.steps,)
    beyond = range(KNOT_EVERY_SECONDS, target.steps * step_seconds, KNOT_EVERY_SECONDS)
    inside = {-(-seconds // step_seconds) for seconds in (*KNOT_SECONDS, *beyond)}
    return (*sorted(knot for knot in inside if knot < target.steps), target.steps)


def _alike(steps_back: NDArray[np.intp], step_seconds: int) -> FloatArray:
    """How much the errors of moments that far back say about now, by their time of day."""
    half = SECONDS_PER_DAY / 2
    apart = np.abs((steps_back * step_seconds + half) % SECONDS_PER_DAY - half)
    return np.asarray(np.exp(-0.5 * (apart / ALIKE_SECONDS) ** 2))


def _day_steps(step_seconds: int) -> int:
    return max(SECONDS_PER_DAY // step_seconds, 1)
