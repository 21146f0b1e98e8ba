"""The next hours are a draw from the same time of day on past days, newer days weighing more."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.forecast import SECONDS_PER_DAY, Empirical, FloatArray, History, Target
from models.weighted import weighted_quantiles

BLOCK_SECONDS = 1800
"""Steps ahead within half an hour share one weighting of the past."""


@dataclass(frozen=True, slots=True)
class HourOfDay(Empirical):
    """Weighted quantiles of the samples within `around_seconds` of the target's time of day, over `days` days.

    A sample weighs `day_decay` to the power of its days back. Where a target's time of day was never seen, quantiles of
    the whole past stand in.
    """

    name: ClassVar[str] = "hour_of_day"

    days: int = 14
    day_decay: float = 0.85
    around_seconds: int = 2700

    def quantiles(self, history: History, target: Target, levels: FloatArray) -> FloatArray:
        """Quantiles of each outcome."""
        past = target.past_outcomes(history, self.days * SECONDS_PER_DAY // history.step_seconds)
        ahead_seconds = history.step_seconds * target.ahead
        # What lies a day or more ahead has the same times of day before it as what lies within one.
        block_seconds = (ahead_seconds - 1) % SECONDS_PER_DAY // BLOCK_SECONDS * BLOCK_SECONDS + BLOCK_SECONDS // 2
        blocks, of_step = np.unique(block_seconds, return_inverse=True)
        weights = np.stack([self._weights(float(seconds), past.shape[1], history.step_seconds) for seconds in blocks])
        # A sample that no block weighs need not be sorted.
        is_used = weights.any(axis=0)
        everywhere = np.tile(np.arange(len(blocks)), (history.series_count, 1))
        found = weighted_quantiles(past[:, is_used], everywhere, weights[:, is_used], levels)
        return np.moveaxis(found[:, of_step], 1, 2)

    def _weights(self, ahead_seconds: float, past_steps: int, step_seconds: int) -> "np.typing.NDArray[np.float64]":
        """Weight of each past step, the newest last, [past steps]."""
        back_seconds = step_seconds * np.arange(past_steps - 1, -1, -1) + ahead_seconds
        days_back = np.maximum(np.round(back_seconds / SECONDS_PER_DAY), 1)
        is_near = np.abs(back_seconds - days_back * SECONDS_PER_DAY) <= self.around_seconds
        return np.where(is_near, self.day_decay**days_back, 0.0)
