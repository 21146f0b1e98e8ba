"""What followed when the series last looked like this: nearest neighbours in its own past.

Square waves, batch jobs and ramps repeat their shape at no fixed hour; an analog sees them where seasons and windows
do not. Method: k nearest neighbours of the newest samples among all earlier ones (Lorenz 1969), the neighbours' futures
being the forecast distribution.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from models.forecast import SECONDS_PER_DAY, Empirical, FloatArray, History, Target, carried_forward
from models.weighted import weighted_columns

CHUNK_SAMPLES = 250_000
"""Past samples that are compared at a time, so that they stay near the processor."""
FARTHEST_WEIGHT = 1.5
"""A neighbour weighs exp(-1.5 × its distance ÷ the farthest neighbour's)."""
SAME = 1e-6
"""A squared distance that is no more than this share of the two lengths' squares is rounding: the moments are alike."""
FRAME = 32
"""Moments that are compared by one column of a matrix product."""
GROUPS = 16
"""Moments are looked through in so many interleaved groups for a bound on the distance of the nearest."""
MOST_CANDIDATES = 8
"""If more than this times the neighbours lie within the bound, as of equal samples, the bound is of no use."""

Float32Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Analogs(Empirical):
    """Weighted quantiles of what followed the `neighbours` past moments most like now, for each step ahead.

    Likeness is the sum over the last `context_steps` steps of the squared difference of √usage, a step `lag` back
    weighing 1 / (1 + lag_decay × lag); of equally like moments the newest count. A missing sample in between takes the
    one before it. A moment counts if everything that is asked for lies between it and now; where fewer than
    `neighbours` do, quantiles of the whole past are the forecast.
    """

    name: ClassVar[str] = "analogs"

    context_steps: int = 24
    neighbours: int = 60
    lag_decay: float = 0.1
    history_seconds: int = 28 * SECONDS_PER_DAY

    def quantiles(self, history: History, target: Target, levels: FloatArray) -> FloatArray:
        """Quantiles of each outcome."""
        recent = history.last(self.history_seconds // history.step_seconds)
        outcomes = target.past_outcomes(history, recent.steps)
        values = np.full((recent.series_count, len(levels), len(target.ahead)), np.nan)
        if recent.steps - target.steps - self.context_steps + 1 >= self.neighbours:
            size = max(CHUNK_SAMPLES // recent.steps, 1)
            for start in range(0, recent.series_count, size):
                part = slice(start, start + size)
                values[part] = self._chunk(recent.usage[part], outcomes[part], target, levels)
        return values

    def _chunk(self, usage: FloatArray, outcomes: FloatArray, target: Target, levels: FloatArray) -> FloatArray:
        """Forecasts of some series, [series, levels, outcomes]; NaN where one has too few moments."""
        distance = self._distances(usage, target.steps)
        place = nearest(distance, self.neighbours)
        near = np.take_along_axis(distance, place, axis=1).astype(np.float64)
        farthest = near.max(axis=1, keepdims=True)
        is_known = np.isfinite(farthest[:, 0])
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.sqrt(near / np.where(farthest > 0, farthest, 1.0))
        weight = np.where(np.isfinite(near), np.exp(-FARTHEST_WEIGHT * share), 0.0)
        # Moment 0 ends at step context_steps - 1.
        ends = place + self.context_steps - 1
        futures = outcomes[np.arange(len(usage))[:, None, None], ends[:, :, None] + target.ahead]
        return np.where(is_known[:, None, None], weighted_columns(futures, weight, levels), np.nan)

    def _distances(self, usage: FloatArray, horizon: int) -> Float32Array:
        """Squared distance of each moment that has a whole future from now, [series, moments], oldest first.

        Infinite where the moment's own newest sample is missing. |a - b|² is a² - 2ab + b², whose middle is a product
        of matrices: each row of the first is a stretch of the past, each column of the second now's samples moved on by
        one. Measured from the mean of now's samples, near moments lose nothing to rounding.
        """
        context = self.context_steps
        # In float32 a power of two as unit changes no digit.
        largest = np.max(usage, axis=1, initial=0.0, where=~np.isnan(usage))
        unit = np.exp2(np.floor(np.log2(np.where(largest > 0, largest, 1.0))))
        root = np.sqrt(usage / unit[:, None]).astype(np.float32)
        filled = carried_forward(root)
        now = filled[:, -context:]
        moments = usage.shape[1] - horizon - context + 1
        middle = now.mean(axis=1, keepdims=True)
        now = now - middle
        frames = -(-moments // FRAME)
        moved = np.zeros((len(usage), frames * FRAME + context - 1), dtype=np.float32)
        # The last frame ends with the newest moment, so that a longer past only adds frames.
        moved[:, frames * FRAME - moments :] = np.nan_to_num(filled[:, : moments + context - 1] - middle)
        stretches = np.ascontiguousarray(sliding_window_view(moved, FRAME + context - 1, axis=1)[:, ::FRAME])
        lag_weight = (1.0 / (1.0 + self.lag_decay * np.arange(context - 1, -1, -1))).astype(np.float32)
        lengths = np.square(stretches) @ _moved_on(lag_weight[None])
        lengths += (np.square(now) @ lag_weight)[:, None, None]
        distance = lengths - 2 * (stretches @ _moved_on(lag_weight * now))
        distance[distance <= SAME * lengths] = 0.0
        distance = distance.reshape(len(usage), -1)[:, frames * FRAME - moments :]
        is_missing = np.isnan(root[:, context - 1 : context - 1 + moments]) | np.isnan(filled[:, :moments])
        return np.where(is_missing | np.isnan(distance), np.float32(np.inf), distance)


def _moved_on(samples: Float32Array) -> Float32Array:
    """Matrices whose column j holds a row's samples from place j on, and zeros, [rows, FRAME + samples - 1, FRAME]."""
    rows, width = samples.shape
    made = np.zeros((rows, FRAME + width - 1, FRAME), dtype=np.float32)
    column = np.arange(FRAME)[:, None]
    made[:, column + np.arange(width), column] = samples[:, None, :]
    return made


def nearest(distance: Float32Array, count: int) -> NDArray[np.intp]:
    """Places of each row's `count` smallest distances, in any order, [rows, count]; of equal ones the last."""
    rows, width = distance.shape
    size = -(-width // GROUPS)
    if size < 2 * count:
        return _smallest(distance, np.broadcast_to(np.arange(width), distance.shape), count)
    padded = np.full((rows, size * GROUPS), np.inf, dtype=np.float32)
    padded[:, :width] = distance
    # As many groups have a member within it, so as many moments do.
    bound = np.partition(padded.reshape(rows, GROUPS, size).min(axis=1), count - 1, axis=1)[:, count - 1 : count]
    is_within = distance <= bound
    candidates = is_within.sum(axis=1)
    found = np.empty((rows, count), dtype=np.intp)
    is_few = candidates <= MOST_CANDIDATES * count
    many = np.flatnonzero(~is_few)
    if many.size:
        found[many] = _smallest(distance[many], np.broadcast_to(np.arange(width), (many.size, width)), count)
    few = np.flatnonzero(is_few)
    if few.size:
        row, place = np.nonzero(is_within[few])
        column = np.arange(len(row)) - np.repeat(np.cumsum(candidates[few]) - candidates[few], candidates[few])
        places = np.zeros((few.size, candidates[few].max()), dtype=np.intp)
        at_places = np.full(places.shape, np.inf, dtype=np.float32)
        places[row, column] = place
        at_places[row, column] = distance[few[row], place]
        found[few] = _smallest(at_places, places, count)
    return found


def _smallest(distance: Float32Array, places: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """The places of the `count` smallest distances, the last of equal ones."""
    # Distances are not negative, so that their bits order as they do; what is below them is the order of equals.
    key = (distance.view(np.int32).astype(np.int64) << 32) - places
    chosen = np.argpartition(key, count - 1, axis=1)[:, :count]
    return np.take_along_axis(places, chosen, axis=1)
