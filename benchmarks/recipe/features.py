"""What the recipe's boosters see: numbers in units of the series' own scale, none from after the cutoff.

The recipe names the kinds and their number, 115; which lags, windows and periods there are is chosen here.
"""

import numpy as np
from numpy.typing import NDArray

from models.forecast import SECONDS_PER_DAY, FloatArray, row_quantiles
from models.learned.features import mean_of_samples

LAGS = (0, 1, 2, 3, 4, 5, 6, 8, 11, 17, 23, 35, 47, 71, 143, 287)
WINDOWS = {300: (12, 48, 144, 288, 864, 2016), 3600: (3, 6, 12, 24, 72, 168)}
PERIODS = {300: (6, 12, 24, 36, 48, 72, 144, 288), 3600: (2, 3, 4, 6, 8, 12, 24, 168)}
"""In steps: half an hour to a day, or where the step is an hour two hours to a week."""
REPEATS = 7
"""So many repeats of a period are looked at, and …"""
DAYS = 14
"""… so many days at the target's time."""
DECILES = np.arange(0.1, 0.95, 0.1)
ALL_HISTORY = np.asarray([0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])
PEAK, FLAT = 0.9, 0.01
"""Shares of the scale: usage above the one is a peak, a change below the other none."""


def scale_of(past: FloatArray, step_seconds: int) -> FloatArray:
    """The unit of each row: the larger of the past's .995 quantile and half the last day's maximum; 1 where neither."""
    high = row_quantiles(past, np.asarray([0.995]))[:, 0]
    day = past[:, -SECONDS_PER_DAY // step_seconds :]
    scale = np.fmax(high, 0.5 * np.max(day, axis=1, initial=0.0, where=~np.isnan(day)))
    return np.where(scale > 0, scale, 1.0)


def features(
    past: FloatArray, cutoff_seconds: NDArray[np.int64], ahead: NDArray[np.intp], step_seconds: int
) -> NDArray[np.float32]:
    """Features of each row's own steps ahead, [rows × steps, features]; `past` is over the scale, `ahead` by row."""
    of_origin = _of_origin(past, step_seconds).astype(np.float32)
    of_step = _of_step(past, cutoff_seconds, ahead, step_seconds).astype(np.float32)
    return np.concatenate([np.repeat(of_origin, ahead.shape[1], axis=0), of_step], axis=1)


def _of_origin(past: FloatArray, step_seconds: int) -> FloatArray:
    """Newest samples, windows, the whole past, what has changed and how the seasons have erred, [rows, features]."""
    width = past.shape[1]
    columns = [past[:, width - 1 - lag] for lag in LAGS]
    for steps in WINDOWS[step_seconds]:
        recent = past[:, -steps:]
        highest = np.max(recent, axis=1, initial=-np.inf, where=~np.isnan(recent))
        columns += [mean_of_samples(recent), np.where(np.isneginf(highest), np.nan, highest)]
        columns += [mean_of_samples(np.abs(np.diff(recent, axis=1))), *row_quantiles(recent, DECILES).T]
    columns += list(row_quantiles(past, ALL_HISTORY).T)
    columns.append(_steps_since(past >= PEAK))
    columns.append(_steps_since(np.abs(np.diff(past, axis=1)) >= FLAT))
    day = SECONDS_PER_DAY // step_seconds
    for period in PERIODS[step_seconds]:
        columns.append(mean_of_samples(np.abs(past[:, -day:] - past[:, -day - period : -period])))
    return np.column_stack(columns)


def _of_step(
    past: FloatArray, cutoff_seconds: NDArray[np.int64], ahead: NDArray[np.intp], step_seconds: int
) -> FloatArray:
    """Same phase of each period, same time of past days and weeks, and the target's time, [rows × steps, features]."""
    day = SECONDS_PER_DAY // step_seconds
    columns = []
    for period in PERIODS[step_seconds]:
        phase = _back(past, ahead, period, REPEATS)
        highest = np.max(phase, axis=1, initial=-np.inf, where=~np.isnan(phase))
        columns += [phase[:, 0], mean_of_samples(phase), np.where(np.isneginf(highest), np.nan, highest)]
    columns += list(row_quantiles(_back(past, ahead, day, DAYS), np.asarray([0.1, 0.5, 0.9])).T)
    columns += list(_back(past, ahead, 7 * day, 2).T)
    seconds = (cutoff_seconds[:, None] + ahead * step_seconds).ravel()
    columns += [ahead.ravel(), seconds % SECONDS_PER_DAY / 3600, (seconds // SECONDS_PER_DAY + 3) % 7]
    return np.column_stack(columns)


def _back(past: FloatArray, ahead: NDArray[np.intp], period: int, repeats: int) -> FloatArray:
    """The samples whole periods before each step ahead, the newest known first, [rows × steps, repeats]."""
    offset = ahead - -(-ahead // period) * period
    column = past.shape[1] - 1 + offset[:, :, None] - period * np.arange(repeats)
    values = past[np.arange(len(past))[:, None, None], np.maximum(column, 0)]
    return np.where(column >= 0, values, np.nan).reshape(-1, repeats)


def _steps_since(happened: NDArray[np.bool_]) -> FloatArray:
    """How many steps ago it last happened in each row; the width where it never did."""
    return np.where(happened.any(axis=1), np.argmax(happened[:, ::-1], axis=1), happened.shape[1]).astype(np.float64)
