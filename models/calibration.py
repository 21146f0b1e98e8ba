"""Conformal correction: quantiles moved by what they have missed by on days that no fit has seen."""

import numpy as np
from numpy.typing import NDArray

from models.forecast import SECONDS_PER_DAY, FloatArray, History, checked_levels, monotone, row_quantiles

SCALE_SECONDS = 7 * SECONDS_PER_DAY
SHRINKAGE_CUTOFFS = 100
"""A series with this many calibration cutoffs is believed as much as the fleet. Far fewer made forecasts of real
machines worse than no calibration: the steps of one cutoff hang together, and last week's misses fade."""
LARGEST_OFFSET = 1.0
"""No correction moves a forecast by more than this many scales."""
EXACT = 1e-3
"""A miss of no more scales than this is none …"""
TIE = 0.25
"""… and where more than this share of a series' outcomes hit the quantile, it is a tie, as at an idle series' zeros."""


def series_scale(history: History) -> FloatArray:
    """The unit of conformity scores, [series]: how far usage ranged over the last week, in its base unit.

    Between the .01 and the .99 quantile, so that no single sample decides. Zero where usage did not move or there
    is no sample.
    """
    recent = history.last(max(SCALE_SECONDS // history.step_seconds, 1)).usage
    low, high = row_quantiles(recent, np.asarray([0.01, 0.99])).T
    return np.asarray(np.nan_to_num(high - low))


def conformal_offsets(
    actual: FloatArray, forecast: FloatArray, scale: FloatArray, levels: tuple[float, ...]
) -> FloatArray:
    """What to add to each series' quantiles, in units of `series_scale`, [series, levels].

    `actual` is [cutoffs, series, steps], `forecast` [cutoffs, series, levels, steps] and `scale` [cutoffs, series],
    from cutoffs the forecaster was not fitted on; NaN samples count for nothing.

    One-sided split conformal prediction (Romano, Patterson and Candès 2019, normalised): with conformity scores
    E = (actual − forecast) / scale, the offset of level τ is the ceil((n + 1) τ)-th smallest of the n scores, the
    largest where that exceeds n. That covers the next outcome with probability τ or more if it is exchangeable with the
    scores. They are not quite, so a series' own offset is shrunk to that of all series pooled, trusting its own by
    m / (m + 100) after m cutoffs: the guarantee is the fleet's, not each series'.

    A quantile that many outcomes equal keeps its own offset, next to none: what others miss by is no reason to move it.
    """
    checked_levels(levels)
    scores = np.moveaxis(_scores(actual, forecast, scale), 0, 2)
    series, level_count = scores.shape[:2]
    own_scores = scores.reshape(series, level_count, -1)
    cutoffs = np.sum(~np.isnan(scores).all(axis=(1, 3)), axis=1)
    trust = cutoffs / (cutoffs + SHRINKAGE_CUTOFFS)
    offsets = np.zeros((series, level_count))
    for column, level in enumerate(levels):
        own = _conformal_quantile(own_scores[:, column], level)
        fleet = _conformal_quantile(own_scores[:, column].reshape(1, -1), level)
        is_tied = (np.abs(own) <= EXACT) & _has_ties(own_scores[:, column])
        shrunk = trust * np.nan_to_num(own) + (1 - trust) * np.nan_to_num(fleet)
        offsets[:, column] = np.where(is_tied, own, shrunk)
    return np.clip(offsets, -LARGEST_OFFSET, LARGEST_OFFSET)


def calibrated(values: FloatArray, scale: FloatArray, offsets: FloatArray) -> FloatArray:
    """Quantiles [series, levels, steps] moved by offsets [series, levels] times scale [series]; none crosses."""
    return monotone(values + (offsets * scale[:, None])[:, :, None])


def _scores(actual: FloatArray, forecast: FloatArray, scale: FloatArray) -> FloatArray:
    """Conformity scores [cutoffs, series, levels, steps]; NaN where there is no sample or no scale."""
    unit = np.where(scale > 0, scale, np.nan)[:, :, None, None]
    return np.asarray((actual[:, :, None, :] - forecast) / unit)


def _has_ties(scores: FloatArray) -> NDArray[np.bool_]:
    """Rows in which many scores are next to zero, [rows]."""
    return np.asarray(np.sum(np.abs(scores) <= EXACT, axis=1) > TIE * np.sum(~np.isnan(scores), axis=1))


def _conformal_quantile(scores: FloatArray, level: float) -> FloatArray:
    """The ceil((n + 1) level)-th smallest of each row's n scores, or the largest where there is no such, [rows]."""
    if scores.shape[1] == 0:
        return np.full(scores.shape[0], np.nan)
    ordered = np.sort(scores, axis=1)
    count = np.sum(~np.isnan(scores), axis=1)
    # A hair below, so that 0.9 × 10 is 9 and not its floating-point neighbour's ceiling.
    rank = np.ceil((count + 1) * level - 1e-9).astype(np.intp)
    place = np.maximum(np.minimum(rank, count) - 1, 0)
    return np.asarray(np.take_along_axis(ordered, place[:, None], axis=1)[:, 0])
