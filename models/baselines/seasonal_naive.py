"""Tomorrow looks like today, give or take what that has missed by so far."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.forecast import SECONDS_PER_DAY, Empirical, FloatArray, ForecastError, History, last_samples, row_quantiles

MINIMUM_ERRORS = 24
"""Fewer past seasonal errors than this say too little about the spread."""


@dataclass(frozen=True, slots=True)
class SeasonalNaive(Empirical):
    """The value one season ago, spread by the quantiles of the series' own past errors of the same rule.

    A step whose counterpart is missing takes the last sample. A series with hardly more than a season of past
    takes the last sample everywhere, spread by its own past changes over as many steps as it looks ahead.
    """

    name: ClassVar[str] = "seasonal_naive"

    season_seconds: int = SECONDS_PER_DAY
    error_seconds: int = 7 * SECONDS_PER_DAY
    """How far back errors are looked at; with the season before it, all the past that is used."""

    def quantiles(self, history: History, horizon_steps: int, levels: FloatArray) -> FloatArray:
        """Quantiles of each step."""
        season = self.season_seconds // history.step_seconds
        if season < 1:
            raise ForecastError(f"a season of {self.season_seconds} s is shorter than a step, {history.step_seconds} s")
        recent = history.last(season + self.error_seconds // history.step_seconds).usage
        last = last_samples(recent)
        counterpart = np.full((history.series_count, min(season, horizon_steps)), np.nan)
        if recent.shape[1] >= season:
            counterpart = recent[:, recent.shape[1] - season :][:, :horizon_steps]
        point = np.resize(counterpart.T, (horizon_steps, history.series_count)).T
        errors = recent[:, season:] - recent[:, :-season] if recent.shape[1] > season else recent[:, :0]
        is_seasonal = np.sum(~np.isnan(errors), axis=1) >= MINIMUM_ERRORS
        values = np.where(np.isnan(point), last[:, None], point)[:, None, :] + np.nan_to_num(
            row_quantiles(errors, levels)[:, :, None]
        )
        if not is_seasonal.all():
            values[~is_seasonal] = _last_value(recent[~is_seasonal], horizon_steps, levels)
        values[np.isnan(last)] = np.nan
        return values


def _last_value(usage: FloatArray, horizon: int, levels: FloatArray) -> FloatArray:
    """The last sample, spread by the past changes over 1, 2, 4, … steps, up to the horizon, [series, levels, steps]."""
    spread = np.zeros((usage.shape[0], len(levels), horizon))
    lag = 1
    while lag <= horizon:
        changes = usage[:, lag:] - usage[:, :-lag]
        found = row_quantiles(changes, levels) if changes.shape[1] else np.full(spread.shape[:2], np.nan)
        # A lag without any change seen keeps what the shorter one said.
        spread[:, :, lag - 1 :] = np.where(np.isnan(found)[:, :, None], spread[:, :, lag - 1 : lag], found[:, :, None])
        lag *= 2
    return np.asarray(last_samples(usage)[:, None, None] + spread)
