"""Forecasts as they would have been made at past cutoffs, beside what then happened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.forecast import SECONDS_PER_DAY, FloatArray, Forecaster, ForecastError, History, QuantileForecast
from predictor.errors import InvalidUsage
from predictor.usage.panel import SeriesKey
from predictor.usage.table import labels

if TYPE_CHECKING:
    import pandas as pd

MINIMUM_HISTORY_SECONDS = SECONDS_PER_DAY
"""A cutoff with less past than this says nothing about a warm workload."""


def cutoffs_for(
    history: History,
    *,
    count: int,
    horizon_steps: int,
    start_seconds: int | None = None,
    minimum_history_seconds: int = MINIMUM_HISTORY_SECONDS,
) -> tuple[int, ...]:
    """Cutoffs on the grid, ascending, spread evenly from the earliest to the latest possible; fewer where fewer fit.

    A cutoff is the last step that a forecast sees: the earliest is the step before `start_seconds` (so that all that
    is forecast starts at it or later) with the minimum history before it; the latest leaves a whole horizon of
    outcomes. Raises InvalidUsage when there is no room for even one.
    """
    if count < 1 or horizon_steps < 1:
        raise InvalidUsage(f"a backtest needs at least one cutoff and one step, got {count} and {horizon_steps}")
    times = history.times
    minimum_steps = max(-(-minimum_history_seconds // history.step_seconds), 1)
    earliest = minimum_steps - 1
    if start_seconds is not None:
        earliest = max(earliest, int(np.searchsorted(times, start_seconds)) - 1)
    latest = history.steps - 1 - horizon_steps
    if latest < earliest:
        raise InvalidUsage(
            f"the history is too short for a backtest: {history.steps} steps of {history.step_seconds} s, needed are "
            f"{earliest + 1} before the first cutoff and {horizon_steps} after it; read more history or shorten the "
            "horizon"
        )
    places = np.unique(np.round(np.linspace(earliest, latest, count)).astype(np.intp))
    return tuple(int(second) for second in times[places])


@dataclass(frozen=True, slots=True)
class Backtest:
    """What was forecast at each cutoff and what happened; NaN is "no forecast" or "no sample".

    `forecast` is [cutoffs, series, levels, steps], `actual` [cutoffs, series, steps], in the resource's base unit.
    """

    cutoffs_seconds: tuple[int, ...]
    step_seconds: int
    levels: tuple[float, ...]
    forecast: FloatArray
    actual: FloatArray

    def select(self, rows: Sequence[int] | NDArray[np.intp]) -> "Backtest":
        """Some of the series, in the order given."""
        index = np.asarray(rows, dtype=np.intp)
        return Backtest(
            self.cutoffs_seconds, self.step_seconds, self.levels, self.forecast[:, index], self.actual[:, index]
        )


def backtest(
    forecaster: Forecaster,
    history: History,
    cutoffs_seconds: Sequence[int],
    horizon_steps: int,
    levels: Sequence[float],
) -> Backtest:
    """A fitted forecaster's forecasts at each cutoff, from the past up to it and nothing else."""
    return backtest_of(lambda past: forecaster.predict(past, horizon_steps, levels), history, cutoffs_seconds)


def backtest_of(
    predict: Callable[[History], QuantileForecast], history: History, cutoffs_seconds: Sequence[int]
) -> Backtest:
    """The same for anything that forecasts from a history. Each call gets a copy that ends at the cutoff."""
    if not cutoffs_seconds:
        raise InvalidUsage("a backtest needs at least one cutoff")
    made: list[QuantileForecast] = []
    actual: list[FloatArray] = []
    for cutoff in cutoffs_seconds:
        past = history.until(cutoff)
        if past.end_seconds != cutoff:
            raise ForecastError(f"cutoff {cutoff} is not on the grid of {history.step_seconds} s that the history has")
        made.append(predict(History(past.usage.copy(), past.end_seconds, past.step_seconds)))
        after = history.usage[:, past.steps : past.steps + made[-1].horizon_steps]
        missing = made[-1].horizon_steps - after.shape[1]
        actual.append(np.pad(after, ((0, 0), (0, missing)), constant_values=np.nan))
    return Backtest(
        tuple(cutoffs_seconds),
        history.step_seconds,
        made[0].levels,
        np.stack([f.values for f in made]),
        np.stack(actual),
    )


FORECAST_COLUMNS: tuple[str, ...] = ("workload", "resource", "cutoff", "timestamp", "level", "value")


def forecast_table(keys: Sequence[SeriesKey], made: Backtest) -> "pd.DataFrame":
    """A backtest's forecasts as the long table, one row per series, cutoff, step and level; times in UTC.

    Rows without a forecast are left out.
    """
    import pandas as pd

    cutoffs, _, levels, steps = made.forecast.shape
    # Order of the rows: series, cutoff, step, level.
    values = made.forecast.transpose(1, 0, 3, 2).ravel()
    place = np.arange(values.size)
    step, level = place // levels % steps, place % levels
    row, cutoff = place // (levels * steps * cutoffs), place // (levels * steps) % cutoffs
    cutoff_seconds = np.asarray(made.cutoffs_seconds, dtype=np.int64)[cutoff]
    table = pd.DataFrame(
        {
            "workload": labels([key.workload for key in keys], row),
            "resource": labels([key.resource.value for key in keys], row),
            "cutoff": _utc(cutoff_seconds),
            "timestamp": _utc(cutoff_seconds + (step + 1) * made.step_seconds),
            "level": np.asarray(made.levels)[level],
            "value": values,
        }
    )
    return table.loc[table["value"].notna()].reset_index(drop=True)


def _utc(seconds: NDArray[np.int64]) -> "pd.DatetimeIndex":
    import pandas as pd

    return pd.DatetimeIndex(seconds.astype("datetime64[s]")).tz_localize("UTC")
