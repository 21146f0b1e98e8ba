"""A histogram with exponential buckets in which old samples fade, filled sample by sample.

Buckets, percentile and decay as in the VPA recommender 1.7 (`histogram.go`, `decaying_histogram.go`), which the
forecaster `decaying_histogram` follows too; there the whole past is put in at once.
"""

from math import ceil, log, log1p

import numpy as np

from models.forecast import FloatArray

LARGEST_EXPONENT = 100.0
"""Halvings after which weights are written down anew, so that they do not overflow."""


class DecayingSamples:
    """Weights by bucket; the weight of a sample halves every `half_life_seconds`.

    Bucket n starts at first · (ratio^n − 1) / (ratio − 1), the last one at or just after `largest`.
    """

    def __init__(self, first: float, largest: float, ratio: float, half_life_seconds: float) -> None:
        self._first, self._growth, self._log_ratio = first, ratio - 1.0, log(ratio)
        count = ceil(log1p(largest * self._growth / first) / self._log_ratio) + 1
        self._starts: FloatArray = first * (ratio ** np.arange(count, dtype=np.float64) - 1.0) / self._growth
        self._ends: FloatArray = np.append(self._starts[1:], self._starts[-1])
        """The last bucket has no end: its start stands for it."""
        self._weights: FloatArray = np.zeros(count)
        self._half_life_seconds = half_life_seconds
        self._reference_seconds = 0.0

    def add(self, value: float, weight: float, at_seconds: float) -> None:
        """Puts a sample in; a negative weight takes one out that was put in with the same value and time."""
        halvings = (at_seconds - self._reference_seconds) / self._half_life_seconds
        if halvings > LARGEST_EXPONENT:
            self._weights *= 0.5**halvings
            self._reference_seconds, halvings = at_seconds, 0.0
        bucket = int(log1p(value * self._growth / self._first) / self._log_ratio)
        place = min(bucket, len(self._weights) - 1)
        # What is taken out may leave a rounding error.
        self._weights[place] = max(0.0, self._weights[place] + weight * 2.0**halvings)

    def percentile(self, level: float) -> float:
        """The end of the smallest bucket up to which `level` of the weight lies; 0 without samples."""
        return self._read_off(self._weights, level)

    def load_percentile(self, level: float) -> float:
        """The same with each sample weighing what it amounts to: that share of all usage lies at or under it."""
        return self._read_off(self._weights * self._ends, level)

    def mean(self) -> float:
        """Mean of the samples, each taken for the end of its bucket; 0 without samples."""
        total = self._weights.sum()
        return float(self._weights @ self._ends / total) if total > 0 else 0.0

    def _read_off(self, weights: FloatArray, level: float) -> float:
        cumulative = np.cumsum(weights)
        if cumulative[-1] <= 0:
            return 0.0
        place = int(np.searchsorted(cumulative, level * cumulative[-1]))
        return float(self._ends[min(place, len(self._ends) - 1)])
