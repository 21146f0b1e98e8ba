"""The conditional empirical distribution: a series' own recent samples, weighted by what they say about a step ahead.

The starting point that a learned forecaster corrects. It needs no training: for the next minutes the newest samples
count most, for later steps the last hours, days and the same time of day.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from models.ascending import SHARED_SECONDS, ascending_past
from models.forecast import SECONDS_PER_DAY, Empirical, FloatArray, History, Target
from models.weighted import ascending_quantiles

PAST_SECONDS = SHARED_SECONDS
"""How much past is weighed: the longest window, and a day for the same time of day at its far end."""

WINDOW_SECONDS: tuple[int, ...] = (300, 900, 3600, 14_400, 43_200, 86_400, 259_200, 604_800)
"""Nested windows into the past; each spreads its share evenly over its steps."""
HALF_HOUR_OF_DAY_SECONDS = 2700
"""Samples this near to the target's time of day count as the same."""
DAY_DECAY = 0.85
"""What a same-time-of-day sample weighs less per day back."""
SHARES: tuple[tuple[int, tuple[float, ...]], ...] = (
    (300, (0.558, 0.162, 0.090, 0.036, 0.018, 0.034, 0.034, 0.044, 0.024)),
    (1200, (0.360, 0.198, 0.144, 0.090, 0.036, 0.043, 0.043, 0.053, 0.033)),
    (3600, (0.225, 0.180, 0.180, 0.126, 0.054, 0.061, 0.052, 0.062, 0.060)),
    (7200, (0.162, 0.162, 0.162, 0.180, 0.072, 0.070, 0.052, 0.062, 0.078)),
    (14_400, (0.135, 0.144, 0.108, 0.198, 0.072, 0.079, 0.070, 0.080, 0.114)),
    (86_400, (0.027, 0.036, 0.045, 0.090, 0.117, 0.205, 0.142, 0.143, 0.195)),
    (1 << 62, (0.000, 0.000, 0.018, 0.045, 0.072, 0.250, 0.205, 0.215, 0.195)),
)
"""Up to how far ahead, and the share of each window, the last of the same time of day. Set by hand, near what a fit
on virtual machines' CPU usage gave for the nearest and the farthest steps, with a tenth moved to windows of a day and
more: without it bursts that paused for some hours were missed at the highest levels. Learning corrects the rest."""


@dataclass(frozen=True, slots=True)
class TrailingMixture(Empirical):
    """Weighted quantiles of the series' own last eight days, weighted anew for each stretch of the horizon."""

    name: ClassVar[str] = "trailing_mixture"

    def quantiles(self, history: History, target: Target, levels: FloatArray) -> FloatArray:
        """Quantiles of each outcome."""
        return np.moveaxis(mixture_quantiles(history, target, levels), 1, 2).copy()


def mixture_quantiles(history: History, target: Target, levels: FloatArray) -> FloatArray:
    """The mixture's quantiles, [series, outcomes, levels], NaN for a series without samples; not to be written to."""

    def made() -> FloatArray:
        past = ascending_past(history, target)
        blocks = horizon_blocks(target.ahead, max(PAST_SECONDS // history.step_seconds, 1), history.step_seconds)
        everywhere = np.tile(np.arange(len(blocks.weights)), (history.series_count, 1))
        return ascending_quantiles(past, everywhere, blocks.weights, levels)[:, blocks.of_step]

    return history.once(("mixture", target, tuple(levels.tolist())), made)


@dataclass(frozen=True, slots=True)
class HorizonBlocks:
    """Steps ahead that share one weighting of the past."""

    of_step: NDArray[np.intp]
    """Block of each step ahead, [steps ahead]."""
    weights: FloatArray
    """Weight of each past step, the newest last, [blocks, past steps]."""


def horizon_blocks(ahead: NDArray[np.intp], past_steps: int, step_seconds: int) -> HorizonBlocks:
    """The weighting of the past for each step ahead: as fine as the shares for the first hour, then by the hour."""
    ahead_seconds = step_seconds * ahead
    first = np.searchsorted([300, 1200, 3600], ahead_seconds)
    label = np.where(ahead_seconds <= 3600, first, 3 + (ahead_seconds - 1) // 3600)
    blocks, of_step = np.unique(label, return_inverse=True)
    weights = np.empty((len(blocks), past_steps))
    for block in range(len(blocks)):
        members = ahead_seconds[of_step == block]
        weights[block] = _weights(float(members.mean()), past_steps, step_seconds)
    return HorizonBlocks(np.asarray(of_step, dtype=np.intp), weights)


def _weights(ahead_seconds: float, past_steps: int, step_seconds: int) -> FloatArray:
    shares = next(shares for limit, shares in SHARES if ahead_seconds <= limit)
    lag = np.arange(past_steps - 1, -1, -1)
    weight = np.zeros(past_steps)
    for window_seconds, share in zip(WINDOW_SECONDS, shares, strict=False):
        width = max(window_seconds // step_seconds, 1)
        weight += np.where(lag < width, share / width, 0.0)
    distance_seconds = lag * step_seconds + ahead_seconds
    days_back = np.maximum(np.round(distance_seconds / SECONDS_PER_DAY), 1)
    is_same_time = np.abs(distance_seconds - days_back * SECONDS_PER_DAY) <= HALF_HOUR_OF_DAY_SECONDS
    same_time = np.where(is_same_time, DAY_DECAY**days_back, 0.0)
    if same_time.sum() > 0:
        weight += shares[-1] * same_time / same_time.sum()
    return weight
