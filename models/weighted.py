"""Quantiles of samples that weigh differently: what every empirical forecast is read off from."""

import numpy as np
from numpy.typing import NDArray

from models.forecast import FloatArray

ROUNDING = 1 - 1e-12
"""A cumulative weight this near to its share has reached it: half of four equal weights is two of them."""
CHUNK = 128
"""Rows that are sorted at a time, so that they stay in the processor's cache."""


def weighted_quantiles(
    past: FloatArray, blocks: NDArray[np.intp], weights: FloatArray, levels: FloatArray
) -> FloatArray:
    """The smallest sample of each row at which the cumulative weight reaches each level, [rows, columns, levels].

    Row i of `past` is weighted by `weights[blocks[i, j]]` for column j; NaN weighs nothing. A row without any weighted
    sample is NaN.
    """
    rows, columns = blocks.shape
    result = np.full((rows, columns, len(levels)), np.nan)
    if past.shape[1] == 0:
        return result
    for start in range(0, rows, CHUNK):
        part = slice(start, start + CHUNK)
        order = np.argsort(past[part], axis=1)
        ordered = np.take_along_axis(past[part], order, axis=1)
        missing = np.isnan(ordered)
        for column in range(columns):
            weight = weights[blocks[part, column][:, None], order]
            weight[missing] = 0.0
            result[part, column] = _read_off(ordered, weight, levels)
    return result


def _read_off(ordered: FloatArray, weight: FloatArray, levels: FloatArray) -> FloatArray:
    cumulative = np.cumsum(weight, axis=1)
    total = cumulative[:, -1]
    found = np.empty((ordered.shape[0], len(levels)))
    for column, level in enumerate(levels):
        place = np.argmax(cumulative >= (level * ROUNDING * total)[:, None], axis=1)
        found[:, column] = ordered[np.arange(len(place)), place]
    found[total == 0] = np.nan
    return found


def weighted_columns(samples: FloatArray, weight: FloatArray, levels: FloatArray) -> FloatArray:
    """Weighted quantiles over the middle axis, [series, levels, columns]; `weight` is [series, samples]; NaN is none.

    The smallest sample at which the cumulative weight reaches its level's share of the total.
    """
    order = np.argsort(samples, axis=1)
    ordered = np.take_along_axis(samples, order, axis=1)
    mass = np.take_along_axis(np.broadcast_to(weight[:, :, None], samples.shape), order, axis=1)
    cumulative = np.cumsum(np.where(np.isnan(ordered), 0.0, mass), axis=1)
    total = cumulative[:, -1:]
    found = np.empty((samples.shape[0], len(levels), samples.shape[2]))
    for row, level in enumerate(levels):
        place = np.argmax(cumulative >= level * ROUNDING * total, axis=1)[:, None]
        found[:, row] = np.take_along_axis(ordered, place, axis=1)[:, 0]
    return np.where(total > 0, found, np.nan)
