"""What a learned forecaster sees of a series' past: numbers in units of the series' own scale.

Every feature is a function of a window that ends at the cutoff, so none can look past it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.ascending import SHARED_SECONDS, Ascending
from models.forecast import SECONDS_PER_DAY, FloatArray, sorted_quantiles

PAST_SECONDS = SHARED_SECONDS
"""How much past is looked at: a week and a day, so that last week's same hour is in it at every horizon up to a day."""
LAGS: tuple[int, ...] = (0, 1, 2, 3, 5, 8, 11)
SUMMARY_SECONDS: tuple[int, ...] = (3600, 14_400, 86_400, 604_800)
QUANTILES = np.asarray([0.1, 0.5, 0.9, 0.99])
HIGHEST = np.asarray([1.0])
NEAR_SECONDS = 1200
"""Samples this near to the same phase are averaged with it."""


@dataclass(frozen=True, slots=True)
class Past:
    """Windows into the past of some series, each ending at its cutoff."""

    usage: FloatArray
    """[rows, past steps]."""
    ascending: Ascending
    """The same, or the part of it before which there is nothing, sorted."""
    outcomes: FloatArray
    """Past outcomes of the target, [rows, past steps]."""
    cutoff_seconds: NDArray[np.int64]
    step_seconds: int

    def of(self, rows: slice) -> "Past":
        """Some of the rows."""
        ascending = Ascending(self.ascending.values[rows], self.ascending.places[rows])
        return Past(self.usage[rows], ascending, self.outcomes[rows], self.cutoff_seconds[rows], self.step_seconds)

    def over(self, unit: FloatArray) -> "Past":
        """The same in units of each row's own, [rows]."""
        scaled = self.usage / unit[:, None], self.ascending.over(unit), self.outcomes / unit[:, None]
        return Past(*scaled, self.cutoff_seconds, self.step_seconds)


def scales(past: Ascending, step_seconds: int) -> FloatArray:
    """The unit a series is measured in, [rows]: about the highest it goes, but no single sample decides.

    The larger of the .995 quantile of the past and half the .99 quantile of the last day; the maximum where both
    are zero. Zero for a series of zeros or without samples.
    """
    high = sorted_quantiles(past.values, np.asarray([0.995]))[:, 0]
    day = past.newest(max(SECONDS_PER_DAY // step_seconds, 1))
    recent = 0.5 * sorted_quantiles(day, np.asarray([0.99]))[:, 0]
    scale = np.fmax(high, recent)
    highest = sorted_quantiles(past.values, HIGHEST)[:, 0]
    return np.where(scale > 0, scale, np.nan_to_num(highest))


def origin_features(past: Past) -> FloatArray:
    """What does not depend on the step ahead, [rows, features]: newest samples, and summaries of trailing windows."""
    usage, step_seconds = past.usage, past.step_seconds
    width = usage.shape[1]
    columns = [usage[:, width - 1 - lag] if lag < width else np.full(len(usage), np.nan) for lag in LAGS]
    for seconds in SUMMARY_SECONDS:
        steps = max(seconds // step_seconds, 1)
        recent, ascending = usage[:, -steps:], past.ascending.newest(steps)
        columns.append(mean_of_samples(recent))
        columns.append(sorted_quantiles(ascending, HIGHEST)[:, 0])
        columns.append(mean_of_samples(np.abs(np.diff(recent, axis=1))))
        columns.extend(sorted_quantiles(ascending, QUANTILES).T)
    return np.column_stack(columns)


def step_features(past: Past, ahead: NDArray[np.intp]) -> FloatArray:
    """What depends on the step ahead, [rows × steps, features]; row i looks `ahead[i]` steps past its cutoff.

    The outcome at the same phase yesterday and last week, alone and with its neighbours; mean and maximum over the same
    phase of the past seven days; the step itself, hour of day and day of week (UTC).
    """
    step_seconds = past.step_seconds
    day = max(SECONDS_PER_DAY // step_seconds, 1)
    near = NEAR_SECONDS // step_seconds
    phases = np.stack([_around(past.outcomes, ahead - days * day, near) for days in range(1, 8)], axis=1)
    target_seconds = (past.cutoff_seconds[:, None] + ahead * step_seconds).ravel()
    return np.column_stack(
        [
            phases[:, 0, near],
            phases[:, 6, near],
            mean_of_samples(phases[:, 0]),
            mean_of_samples(phases[:, 6]),
            mean_of_samples(phases.reshape(len(phases), -1)),
            mean_of_samples(_highest(phases)),
            ahead.ravel(),
            target_seconds % SECONDS_PER_DAY / 3600,
            (target_seconds // SECONDS_PER_DAY + 3) % 7,
        ]
    )


def mean_of_samples(values: FloatArray) -> FloatArray:
    """Mean of the samples in each row, NaN where there is none."""
    present = ~np.isnan(values)
    count = present.sum(axis=1)
    total = np.sum(values, axis=1, where=present)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _highest(phases: FloatArray) -> FloatArray:
    highest = np.max(phases, axis=2, initial=-np.inf, where=~np.isnan(phases))
    return np.where(np.isneginf(highest), np.nan, highest)


def _around(usage: FloatArray, offset: NDArray[np.intp], near: int) -> FloatArray:
    """Samples within `near` steps of the one `offset` steps after the newest, [rows × steps, 2 near + 1].

    Outside what is known there is no sample.
    """
    width = usage.shape[1]
    column = (width - 1 + offset)[:, :, None] + np.arange(-near, near + 1)
    is_known = (column >= 0) & (column < width)
    values = usage[np.arange(len(usage))[:, None, None], np.clip(column, 0, width - 1)]
    return np.where(is_known, values, np.nan).reshape(-1, 2 * near + 1)
