"""Quantiles of samples that weigh differently: what every empirical forecast is read off from."""

import numpy as np
from numpy.typing import NDArray

from models.ascending import Ascending
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
    rows = len(blocks)
    result = np.full((*blocks.shape, len(levels)), np.nan)
    for start in range(0, rows, CHUNK):
        part = slice(start, start + CHUNK)
        result[part] = ascending_quantiles(Ascending.of(past[part]), blocks[part], weights, levels)
    return result


def ascending_quantiles(
    past: Ascending, blocks: NDArray[np.intp], weights: FloatArray, levels: FloatArray
) -> FloatArray:
    """The same of rows that are sorted already; `weights` may reach further back than they do."""
    width = past.values.shape[1]
    result = np.full((*blocks.shape, len(levels)), np.nan)
    if width == 0:
        return result
    missing = np.isnan(past.values)
    newest = weights[:, weights.shape[1] - width :]
    for column in range(blocks.shape[1]):
        weight = newest[blocks[:, column][:, None], past.places]
        weight[missing] = 0.0
        result[:, column] = _read_off(past.values, weight, levels)
    return result


def weighted_columns(samples: FloatArray, weight: FloatArray, levels: FloatArray) -> FloatArray:
    """Weighted quantiles over the middle axis, [series, levels, columns]; `weight` is [series, samples]; NaN is none.

    The smallest sample at which the cumulative weight reaches its level's share of the total.
    """
    by_column = np.ascontiguousarray(np.moveaxis(samples, 1, 2))
    order = np.argsort(by_column, axis=2)
    ordered = np.take_along_axis(by_column, order, axis=2)
    mass = np.take_along_axis(np.broadcast_to(weight[:, None, :], by_column.shape), order, axis=2)
    mass[np.isnan(ordered)] = 0.0
    return np.moveaxis(_read_off(ordered, mass, levels), 2, 1)


def _read_off(ordered: FloatArray, weight: FloatArray, levels: FloatArray) -> FloatArray:
    """The samples along the last axis, ascending, at which the cumulative weight reaches each level, [..., levels]."""
    cumulative = np.cumsum(weight, axis=-1)
    total = cumulative[..., -1:]
    found = np.take_along_axis(ordered, _first_reaching(cumulative, levels * ROUNDING * total), axis=-1)
    found[total[..., 0] == 0] = np.nan
    return np.asarray(found)


def _first_reaching(cumulative: FloatArray, wanted: FloatArray) -> NDArray[np.intp]:
    """The first place along the last axis with at least each amount that is wanted, by halving, [..., wanted]."""
    low = np.zeros(wanted.shape, dtype=np.intp)
    size = cumulative.shape[-1]
    step = 1 << max(size - 1, 0).bit_length()
    while step := step >> 1:
        probe = np.minimum(low + step, size) - 1
        low = np.where(np.take_along_axis(cumulative, probe, axis=-1) < wanted, probe + 1, low)
    return np.asarray(np.minimum(low, size - 1))
