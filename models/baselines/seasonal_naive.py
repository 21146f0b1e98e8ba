"""Tomorrow looks like today, give or take what that has missed by so far."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from models.forecast import (
    SECONDS_PER_DAY,
    Empirical,
    FloatArray,
    ForecastError,
    History,
    Target,
    last_samples,
    row_quantiles,
)

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

    def quantiles(self, history: History, target: Target, levels: FloatArray) -> FloatArray:
        """Quantiles of each outcome."""
        season = self.season_seconds // history.step_seconds
        if season < 1:
            raise ForecastError(f"a season of {self.season_seconds} s is shorter than a step, {history.step_seconds} s")
        recent = target.past_outcomes(history, season + self.error_seconds // history.step_seconds)
        last = last_samples(recent)
        counterpart = np.full((history.series_count, season), np.nan)
        if recent.shape[1] >= season:
            counterpart = recent[:, recent.shape[1] - season :]
        point = counterpart[:, (target.ahead - 1) % season]
        errors = recent[:, season:] - recent[:, :-season] if recent.shape[1] > season else recent[:, :0]
        is_seasonal = np.sum(~np.isnan(errors), axis=1) >= MINIMUM_ERRORS
        values = np.where(np.isnan(point), last[:, None], point)[:, None, :] + np.nan_to_num(
            row_quantiles(errors, levels)[:, :, None]
        )
        if not is_seasonal.all():
            values[~is_seasonal] = _last_value(recent[~is_seasonal], target.ahead, levels)
        values[np.isnan(last)] = np.nan
        return values


def _last_value(past: FloatArray, ahead: NDArray[np.intp], levels: FloatArray) -> FloatArray:
    """The last sample, spread by the past changes over 1, 2, 4, … steps, up to those asked for, [series, levels, …]."""
    spread = np.zeros((past.shape[0], len(levels), len(ahead)))
    lag = 1
    while lag <= ahead[-1]:
        changes = past[:, lag:] - past[:, :-lag]
        found = row_quantiles(changes, levels) if changes.shape[1] else np.full(spread.shape[:2], np.nan)
        # A lag without any change seen keeps what the shorter one said.
        is_further = (ahead >= lag) & ~np.isnan(found)[:, :, None]
        spread = np.where(is_further, found[:, :, None], spread)
        lag *= 2
    return np.asarray(last_samples(past)[:, None, None] + spread)
