"""What followed when the series last looked like this: nearest neighbours in its own past.

Square waves, batch jobs and ramps repeat their shape at no fixed hour; an analog sees them where seasons and windows
do not. Method: k nearest neighbours of the newest samples among all earlier ones (Lorenz 1969), the neighbours' futures
being the forecast distribution.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.forecast import SECONDS_PER_DAY, Empirical, FloatArray, History, Target, carried_forward
from models.weighted import weighted_columns

CHUNK_SAMPLES = 1_000_000
"""Past samples that are compared at a time, so that they stay near the processor."""
FARTHEST_WEIGHT = 1.5
"""A neighbour weighs exp(-1.5 × its distance ÷ the farthest neighbour's)."""
AGE_PENALTY = 1e-9
"""What a step of age adds to a squared distance where neighbours are chosen: of equally near ones the newest count."""


@dataclass(frozen=True, slots=True)
class Analogs(Empirical):
    """Weighted quantiles of what followed the `neighbours` past moments most like now, for each step ahead.

    Likeness is the sum over the last `context_steps` steps of the squared difference of √usage, a step `lag` back
    weighing 1 / (1 + lag_decay × lag). A missing sample in between takes the one before it. A moment counts if
    everything that is asked for lies between it and now; where fewer than `neighbours` do, quantiles of the whole past
    are the forecast.
    """

    name: ClassVar[str] = "analogs"

    context_steps: int = 24
    neighbours: int = 60
    lag_decay: float = 0.1
    history_seconds: int = 28 * SECONDS_PER_DAY

    def quantiles(self, history: History, target: Target, levels: FloatArray) -> FloatArray:
        """Quantiles of each outcome."""
        usage = history.last(self.history_seconds // history.step_seconds).usage
        values = np.full((len(usage), len(levels), len(target.ahead)), np.nan)
        if usage.shape[1] - target.steps - self.context_steps + 1 >= self.neighbours:
            size = max(CHUNK_SAMPLES // usage.shape[1], 1)
            for start in range(0, len(usage), size):
                part = slice(start, start + size)
                values[part] = self._chunk(usage[part], target, levels)
        return values

    def _chunk(self, usage: FloatArray, target: Target, levels: FloatArray) -> FloatArray:
        """Forecasts of some series, [series, levels, outcomes]; NaN where one has too few moments."""
        distance = self._distances(usage, target.steps)
        age = np.arange(distance.shape[1], 0, -1)
        place = np.argpartition(distance + AGE_PENALTY * age, self.neighbours - 1, axis=1)[:, : self.neighbours]
        near = np.take_along_axis(distance, place, axis=1)
        farthest = near.max(axis=1, keepdims=True)
        is_known = np.isfinite(farthest[:, 0])
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.sqrt(near / np.where(farthest > 0, farthest, 1.0))
        weight = np.where(np.isfinite(near), np.exp(-FARTHEST_WEIGHT * share), 0.0)
        # Moment 0 ends at step context_steps - 1.
        ends = place + self.context_steps - 1
        rows = np.arange(len(usage))[:, None, None]
        futures = target.outcomes(usage)[rows, ends[:, :, None] + target.ahead]
        return np.where(is_known[:, None, None], weighted_columns(futures, weight, levels), np.nan)

    def _distances(self, usage: FloatArray, horizon: int) -> FloatArray:
        """Squared distance of each moment that has a whole future from now, [series, moments], oldest first.

        Infinite where the moment's own newest sample is missing.
        """
        # In float32 a power of two as unit changes no digit, and rounding is far below what tells moments apart.
        largest = np.max(usage, axis=1, initial=0.0, where=~np.isnan(usage))
        unit = np.exp2(np.floor(np.log2(np.where(largest > 0, largest, 1.0))))
        root = np.sqrt(usage / unit[:, None]).astype(np.float32)
        filled = carried_forward(root)
        moments = usage.shape[1] - horizon - self.context_steps + 1
        distance = np.zeros((len(usage), moments), dtype=np.float32)
        for lag in range(self.context_steps):
            begin = self.context_steps - 1 - lag
            gap = filled[:, begin : begin + moments] - filled[:, [usage.shape[1] - 1 - lag]]
            np.multiply(gap, gap, out=gap)
            gap *= np.float32(1.0 / (1.0 + self.lag_decay * lag))
            distance += gap
        ends = slice(self.context_steps - 1, self.context_steps - 1 + moments)
        return np.where(np.isnan(root[:, ends]) | np.isnan(distance), np.inf, distance).astype(np.float64)
