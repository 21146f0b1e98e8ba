"""Which probability to ask for, so that outcomes exceed a quantile as often as is stated: by feedback, for rare events.

A fleet whose peaks were exceeded less often than stated is asked for a higher probability, one whose were more often
for a lower. Method: adaptive conformal inference (Gibbs and Candès 2021) on the logarithm of the probability, a step
for the class of a node and one for the node itself. What it steers is the share in the long run, not any one horizon's,
and only as far as its bounds allow. An outcome is known a horizon later than its quantile was made, and is told then.
Pure.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from models.forecast import FloatArray, ForecastError, IntArray

CLASS_RATE = 2.0
"""By how much ln(asked) of a class rises in a quiet horizon, as a share of √stated: the rarer a miss, the more one of
it moves, and the more it is chance."""
NODE_RATE = 0.5
"""The same of a node's own: slower, as a single node's miss is more often chance than many nodes' on one day."""
MOST_CAUTIOUS = 1 / 16
"""What is asked for is no less than this share of what is stated, by class and node together."""
BOLDEST = 3.0
"""And no more than this many times: a few calm days get there, and are no evidence of more."""


@dataclass(frozen=True, slots=True)
class Exceedances:
    """How the probability to ask for has moved from the one stated: ln(asked ÷ stated)."""

    stated: float
    """Probability in (0, 1) with which an outcome may exceed its quantile."""
    of_class: FloatArray
    """[classes]."""
    of_node: FloatArray
    """[nodes], on top of the class."""

    def __post_init__(self) -> None:
        if not 0 < self.stated < 1:
            raise ForecastError(f"a probability of exceeding must lie inside (0, 1), got {self.stated}")
        if not (np.isfinite(self.of_class).all() and np.isfinite(self.of_node).all()):
            raise ForecastError("a record of exceedances must be finite")

    @classmethod
    def without_record(cls, stated: float, *, classes: int, nodes: int) -> Self:
        """Nothing realised yet: what is stated is asked for."""
        return cls(stated, np.zeros(classes), np.zeros(nodes))

    def asked(self, class_of: IntArray) -> FloatArray:
        """The probability to ask for of each node, [nodes]; `class_of` is each one's class, [nodes]."""
        shift = np.clip(self.of_class[class_of] + self.of_node, np.log(MOST_CAUTIOUS), np.log(BOLDEST))
        return np.asarray(np.minimum(self.stated * np.exp(shift), (1 + self.stated) / 2))

    def realised(self, exceeded: FloatArray, class_of: IntArray, share: float) -> Self:
        """The record after one more outcome of each node, [nodes]: 1 where it was exceeded, 0 where not, NaN not known.

        `share` is how much of a horizon lies between this outcome's cutoff and the one before, at most 1: outcomes of
        overlapping horizons are one event and count as such.
        """
        if not 0 < share <= 1:
            raise ForecastError(f"the share of a horizon between two outcomes must lie in (0, 1], got {share}")
        known = ~np.isnan(exceeded)
        miss = np.where(known, exceeded, 0.0)
        classes = len(self.of_class)
        count = np.bincount(class_of[known], minlength=classes)
        rate = np.bincount(class_of, miss, minlength=classes) / np.maximum(count, 1)
        unit = share * np.sqrt(self.stated) / self.stated
        low, high = np.log(MOST_CAUTIOUS), np.log(BOLDEST)
        of_class = self.of_class + np.where(count > 0, CLASS_RATE * unit * (self.stated - rate), 0.0)
        of_node = self.of_node + np.where(known, NODE_RATE * unit * (self.stated - miss), 0.0)
        return replace(self, of_class=np.clip(of_class, low, high), of_node=np.clip(of_node, low, high))
