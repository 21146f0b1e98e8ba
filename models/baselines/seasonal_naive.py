"""Tomorrow looks like today, give or take what that has missed by so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from models.forecast import (
    SECONDS_PER_DAY,
    FloatArray,
    ForecastError,
    ForecasterState,
    History,
    QuantileForecast,
    checked_horizon,
    checked_levels,
    checked_parameters,
    last_samples,
    monotone,
    row_quantiles,
)

MINIMUM_ERRORS = 24
"""Fewer past seasonal errors than this say too little about the spread."""


@dataclass(frozen=True, slots=True)
class SeasonalNaive:
    """The value one season ago, spread by the quantiles of the series' own past errors of the same rule.

    A step whose counterpart is missing takes the last sample. A series with hardly more than a season of past
    takes the last sample everywhere, spread by its own past changes over as many steps as it looks ahead.
    """

    name: ClassVar[str] = "seasonal_naive"

    season_seconds: int = SECONDS_PER_DAY
    error_seconds: int = 7 * SECONDS_PER_DAY
    """How far back errors are looked at; with the season before it, all the past that is used."""

    def fit(self, history: History) -> Self:  # noqa: ARG002 - the contract's argument
        """Nothing is learned across series."""
        return self

    def predict(self, history: History, horizon_steps: int, levels: Sequence[float]) -> QuantileForecast:
        """Quantiles of each step; see the contract."""
        quantiles = checked_levels(levels)
        horizon = checked_horizon(horizon_steps)
        season = self.season_seconds // history.step_seconds
        if season < 1:
            raise ForecastError(f"a season of {self.season_seconds} s is shorter than a step, {history.step_seconds} s")
        recent = history.last(season + self.error_seconds // history.step_seconds).usage
        last = last_samples(recent)
        counterpart = np.full((history.series_count, min(season, horizon)), np.nan)
        if recent.shape[1] >= season:
            counterpart = recent[:, recent.shape[1] - season :][:, :horizon]
        point = np.resize(counterpart.T, (horizon, history.series_count)).T
        errors = recent[:, season:] - recent[:, :-season] if recent.shape[1] > season else recent[:, :0]
        is_seasonal = np.sum(~np.isnan(errors), axis=1) >= MINIMUM_ERRORS
        values = np.where(np.isnan(point), last[:, None], point)[:, None, :] + np.nan_to_num(
            row_quantiles(errors, quantiles)[:, :, None]
        )
        if not is_seasonal.all():
            values[~is_seasonal] = _last_value(recent[~is_seasonal], horizon, quantiles)
        values[np.isnan(last)] = np.nan
        return QuantileForecast(tuple(quantiles.tolist()), monotone(values), history.end_seconds, history.step_seconds)

    def to_state(self) -> ForecasterState:
        """The parameters."""
        return ForecasterState({"season_seconds": self.season_seconds, "error_seconds": self.error_seconds})

    @classmethod
    def from_state(cls, state: ForecasterState) -> Self:
        """Back from the parameters."""
        return cls(**checked_parameters(cls.name, state, {"season_seconds": int, "error_seconds": int}))


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
