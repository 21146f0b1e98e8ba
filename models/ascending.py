"""The past in ascending order: sorted once for all who read quantiles off it."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.forecast import SECONDS_PER_DAY, FloatArray, History, Target

SHARED_SECONDS = 8 * SECONDS_PER_DAY
"""So much past is sorted with the place of each sample; what is asked of a shorter one is picked from it."""


@dataclass(frozen=True, slots=True)
class Ascending:
    """The samples of each row, ascending and NaN last, and where each of them stood, both [rows, steps]."""

    values: FloatArray
    places: NDArray[np.intp]

    @classmethod
    def of(cls, samples: FloatArray) -> Self:
        """Each row sorted."""
        places = np.argsort(samples, axis=1)
        return cls(np.take_along_axis(samples, places, axis=1), places)

    def newest(self, steps: int) -> FloatArray:
        """The last `steps` samples of each row, or all there are, ascending."""
        rows, width = self.values.shape
        if steps >= width:
            return self.values
        return np.asarray(self.values[self.places >= width - steps]).reshape(rows, steps)

    def over(self, unit: FloatArray) -> "Ascending":
        """The same in units of each row's own, [rows]."""
        return Ascending(self.values / unit[:, None], self.places)


def ascending_past(history: History, target: Target) -> Ascending:
    """The outcomes of the last eight days, sorted."""
    steps = max(SHARED_SECONDS // history.step_seconds, 1)
    window = target.steps if target.is_peak else 1
    return history.once(("ascending", window), lambda: Ascending.of(target.past_outcomes(history, steps)))


def ascending_outcomes(history: History, target: Target, steps: int) -> FloatArray:
    """The outcomes of the last `steps` steps, or all there are, ascending and NaN last, [series, steps]."""
    if steps * history.step_seconds <= SHARED_SECONDS:
        return ascending_past(history, target).newest(steps)
    return np.sort(target.past_outcomes(history, steps), axis=1)
