"""Forecasts as they would have been made at past cutoffs, beside what then happened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.forecast import (
    SECONDS_PER_DAY,
    BoolArray,
    FloatArray,
    Forecaster,
    ForecastError,
    History,
    QuantileForecast,
    Target,
)
from predictor.errors import InvalidUsage
from predictor.usage.panel import Resource, SeriesKey
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

    `forecast` is [cutoffs, series, levels, outcomes], `actual` [cutoffs, series, outcomes], in the resource's base
    unit; the outcomes are the target's.
    """

    cutoffs_seconds: tuple[int, ...]
    step_seconds: int
    target: Target
    levels: tuple[float, ...]
    forecast: FloatArray
    actual: FloatArray
    is_bound: BoolArray | None = None
    """Which actuals are only bounds of demand, like `actual`; None where none is."""

    def select(self, rows: Sequence[int] | NDArray[np.intp]) -> "Backtest":
        """Some of the series, in the order given."""
        index = np.asarray(rows, dtype=np.intp)
        is_bound = None if self.is_bound is None else self.is_bound[:, index]
        return replace(self, forecast=self.forecast[:, index], actual=self.actual[:, index], is_bound=is_bound)


def backtest(
    forecaster: Forecaster,
    history: History,
    cutoffs_seconds: Sequence[int],
    target: Target,
    levels: Sequence[float],
) -> Backtest:
    """A fitted forecaster's forecasts at each cutoff, from the past up to it and nothing else."""
    return backtest_of(lambda past: forecaster.predict(past, target, levels), history, cutoffs_seconds)


def backtest_of(
    predict: Callable[[History], QuantileForecast], history: History, cutoffs_seconds: Sequence[int]
) -> Backtest:
    """The same for anything that forecasts from a history. Each call gets a copy that ends at the cutoff."""
    if not cutoffs_seconds:
        raise InvalidUsage("a backtest needs at least one cutoff")
    made: list[QuantileForecast] = []
    actual: list[FloatArray] = []
    is_bound: list[BoolArray] = []
    for cutoff in cutoffs_seconds:
        past = history.until(cutoff)
        if past.end_seconds != cutoff:
            raise ForecastError(f"cutoff {cutoff} is not on the grid of {history.step_seconds} s that the history has")
        cut_off = None if past.is_bound is None else past.is_bound.copy()
        made.append(predict(History(past.usage.copy(), past.end_seconds, past.step_seconds, cut_off)))
        actual.append(made[-1].target.after(history, cutoff))
        bounds = made[-1].target.bounds_after(history, cutoff)
        is_bound += [] if bounds is None else [bounds]
    return Backtest(
        tuple(cutoffs_seconds),
        history.step_seconds,
        made[0].target,
        made[0].levels,
        np.stack([f.values for f in made]),
        np.stack(actual),
        np.stack(is_bound) if is_bound else None,
    )


STEP = "step"
"""What the target is called in tables that is usage in each step."""
FORECAST_COLUMNS: tuple[str, ...] = ("workload", "resource", "target", "cutoff", "timestamp", "level", "value")


def forecast_table(keys: Sequence[SeriesKey], made: Backtest) -> "pd.DataFrame":
    """A backtest's forecasts as the long table, one row per series, cutoff, outcome and level; times in UTC.

    `target` is `step`, or `peak_1h` and alike; `timestamp` is when the outcome's last step starts. Rows without a
    forecast are left out.
    """
    import pandas as pd

    cutoffs, _, levels, outcomes = made.forecast.shape
    # Order of the rows: series, cutoff, outcome, level.
    values = made.forecast.transpose(1, 0, 3, 2).ravel()
    place = np.arange(values.size)
    outcome, level = place // levels % outcomes, place % levels
    row, cutoff = place // (levels * outcomes * cutoffs), place // (levels * outcomes) % cutoffs
    cutoff_seconds = np.asarray(made.cutoffs_seconds, dtype=np.int64)[cutoff]
    table = pd.DataFrame(
        {
            "workload": labels([key.workload for key in keys], row),
            "resource": labels([key.resource.value for key in keys], row),
            "target": labels([target_name(made.target, made.step_seconds)], np.zeros(values.size, dtype=np.intp)),
            "cutoff": _utc(cutoff_seconds),
            "timestamp": _utc(cutoff_seconds + made.target.ahead[outcome] * made.step_seconds),
            "level": np.asarray(made.levels)[level],
            "value": values,
        }
    )
    return table.loc[table["value"].notna()].reset_index(drop=True)


def target_name(target: Target, step_seconds: int) -> str:
    """What a target is called in tables: `step`, or a peak with its window in hours or less, such as `peak_24h`."""
    seconds = target.steps * step_seconds
    unit, length = next(each for each in (("h", 3600), ("m", 60), ("s", 1)) if seconds % each[1] == 0)
    return f"peak_{seconds // length}{unit}" if target.is_peak else STEP


def subject_name(resource: Resource, target: str) -> str:
    """What figures about a resource's forecasts of a target are called: `cpu`, or `cpu peak_1h`."""
    return resource.value if target == STEP else f"{resource.value} {target}"


def _utc(seconds: NDArray[np.int64]) -> "pd.DatetimeIndex":
    import pandas as pd

    return pd.DatetimeIndex(seconds.astype("datetime64[s]")).tz_localize("UTC")
