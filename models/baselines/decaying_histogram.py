"""The Vertical Pod Autoscaler's rule: a percentile of a histogram in which old samples fade."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.forecast import SECONDS_PER_DAY, Empirical, FloatArray, History, Target


@dataclass(frozen=True, slots=True)
class DecayingHistogram(Empirical):
    """Percentiles of the past, a sample's weight halving every `half_life_seconds`; the same for each step ahead.

    Buckets and percentile as in the VPA recommender 1.7 (`histogram.go`, `decaying_histogram.go`): bucket n starts
    at first · (ratio^n − 1) / (ratio − 1), the last at or just after 100,000 · first; a percentile is the upper end of
    the smallest bucket at which the cumulative weight reaches its share of the total, or the start of the last
    bucket. So an estimate is above the exact quantile by at most the width of a bucket. The VPA's first bucket is
    absolute (0.01 core, 10 MB); here it is a share of the series' largest sample, so that no resource needs
    settings of its own. Its rounding-off of weights below 0.0001 is left out.
    """

    name: ClassVar[str] = "decaying_histogram"

    half_life_seconds: int = SECONDS_PER_DAY
    first_bucket: float = 1e-4
    """Width of the first bucket, as a share of the largest sample."""
    ratio: float = 1.05
    """Each bucket is wider than the one before by this factor."""
    history_seconds: int = 8 * SECONDS_PER_DAY
    """How far back samples count, as the VPA loads 8 days at its start; an older one weighs under 0.4 %."""

    def quantiles(self, history: History, target: Target, levels: FloatArray) -> FloatArray:
        """Quantiles of each outcome, the same for all."""
        past = target.past_outcomes(history, self.history_seconds // history.step_seconds)
        return np.repeat(self._percentiles(past, history.step_seconds, levels)[:, :, None], len(target.ahead), axis=2)

    def _percentiles(self, past: FloatArray, step_seconds: int, levels: FloatArray) -> FloatArray:
        """One value per series and level, [series, levels]."""
        rows, width = past.shape
        present = ~np.isnan(past)
        largest = np.max(past, axis=1, initial=0.0, where=present)
        first = np.where(largest > 0, largest * self.first_bucket, 1.0)[:, None]
        growth = self.ratio - 1
        # The bounds do not depend on the series once divided by its first bucket.
        bucket_count = int(np.ceil(np.log(1 + 1e5 * growth) / np.log(self.ratio))) + 1
        starts = (self.ratio ** np.arange(bucket_count) - 1) / growth
        relative = np.where(present, past, 0.0) / first
        bucket = np.floor(np.log1p(relative * growth) / np.log(self.ratio))
        bucket = np.clip(bucket, 0, bucket_count - 1).astype(np.intp)
        age_seconds = step_seconds * np.arange(width - 1, -1, -1)
        weight = np.where(present, 0.5 ** (age_seconds / self.half_life_seconds), 0.0)
        cell = bucket + bucket_count * np.arange(rows)[:, None]
        mass = np.bincount(cell.ravel(), weights=weight.ravel(), minlength=rows * bucket_count)
        cumulative = np.cumsum(mass.reshape(rows, bucket_count), axis=1)
        total = cumulative[:, -1:]
        result = np.empty((rows, len(levels)))
        for column, level in enumerate(levels):
            reached = np.argmax(cumulative >= level * total, axis=1)
            result[:, column] = starts[np.minimum(reached + 1, bucket_count - 1)] * first[:, 0]
        result[largest == 0] = 0.0
        result[~present.any(axis=1)] = np.nan
        return result
