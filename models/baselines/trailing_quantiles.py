"""The next hours are a draw from the last ones: quantiles of a trailing window, the same for each step ahead."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.ascending import ascending_outcomes
from models.forecast import SECONDS_PER_DAY, Empirical, FloatArray, History, Target, last_samples, sorted_quantiles


@dataclass(frozen=True, slots=True)
class TrailingQuantiles(Empirical):
    """Quantiles of the outcomes of the last `window_seconds`; of the newest sample where the window holds none."""

    name: ClassVar[str] = "trailing_quantiles"

    window_seconds: int = SECONDS_PER_DAY

    def quantiles(self, history: History, target: Target, levels: FloatArray) -> FloatArray:
        """Quantiles of each outcome, the same for all."""
        steps = max(self.window_seconds // history.step_seconds, 1)
        found = sorted_quantiles(ascending_outcomes(history, target, steps), levels)
        found = np.where(np.isnan(found), last_samples(history.usage)[:, None], found)
        return np.repeat(found[:, :, None], len(target.ahead), axis=2)
