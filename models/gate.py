"""When a model has lost too much against its baseline on a series to serve it: one rule, at training and after.

A gate keeps what was lost by what the model served, and by the baseline, at the same cutoffs. It closes where the model
lost more than chance explains. It opens again only once the model lost no more than the baseline, so that it does not
open and close by chance. Pure.
"""

from dataclasses import dataclass, replace
from typing import Self, overload

import numpy as np

from models.forecast import BoolArray, FloatArray, ForecastError
from models.parts import HALF_LIFE_SECONDS, novelty

LARGEST_LOSS = 1.05
"""The model serves a series unless it lost this many times the baseline there: less may be chance."""
CHANCE_HORIZONS = 10.0
"""Over so few horizons end to end, twice that excess may be chance; over n of them 1 + CHANCE_HORIZONS / n times."""
MINIMUM_HORIZONS = 6.0
"""While serving, no gate closes over fewer horizons: with four hours ahead that is a whole day, not one bad hour."""
SMALLEST_EXCESS = 0.005
"""Nor for an excess below this share of a series' size: it is what a forecast some 3 % of that size too high costs at
the usual levels, which is little, and quiet weeks say nothing against having been prepared."""
REMEMBERED_HORIZONS = 1.0
"""A closed gate whose record has faded below this is open again: nothing is known any more."""
OF_SERVED, OF_BASELINE = 0, 1
"""The columns of the losses that a gate is told of."""


@overload
def largest_loss(horizons: float) -> float: ...
@overload
def largest_loss(horizons: FloatArray) -> FloatArray: ...
def largest_loss(horizons: float | FloatArray) -> float | FloatArray:
    """How many times the baseline's loss the model may have had over so many horizons end to end and still serves."""
    return 1 + (LARGEST_LOSS - 1) * (1 + CHANCE_HORIZONS / horizons)


@dataclass(frozen=True, slots=True)
class Gate:
    """The gates of some series, each field [series]."""

    served: FloatArray
    """The discounted sum over cutoffs of what the model lost, over all levels and steps ÷ the series' size."""
    baseline: FloatArray
    """What the baseline lost at the same cutoffs."""
    evidence: FloatArray
    """How many horizons end to end that is; what two cutoffs share counts once."""
    is_closed: BoolArray

    def __post_init__(self) -> None:
        sums = (self.served, self.baseline, self.evidence)
        if self.served.ndim != 1 or any(each.shape != self.served.shape for each in (*sums, self.is_closed)):
            raise ForecastError(f"a gate is for each series; got {[each.shape for each in (*sums, self.is_closed)]}")
        if not all(np.isfinite(each).all() and (each >= 0).all() for each in sums):
            raise ForecastError("a gate's losses and evidence must be finite and not negative")

    @classmethod
    def without_record(cls, series: int) -> Self:
        """Nothing seen yet: all are open."""
        return cls(np.zeros(series), np.zeros(series), np.zeros(series), np.zeros(series, dtype=np.bool_))

    def realised(self, losses: FloatArray, elapsed_seconds: float, horizon_seconds: float) -> Self:
        """The gates after one more cutoff, `elapsed_seconds` after the one before.

        `losses` is [series, 2], of what the model served and of the baseline; NaN where nothing was scored: such a
        record only fades. Outcomes that the cutoff before had seen already count once.
        """
        fading = 0.5 ** (max(elapsed_seconds, 0.0) / HALF_LIFE_SECONDS)
        share = float(novelty(elapsed_seconds, np.asarray(horizon_seconds)))
        is_scored = np.asarray(~np.isnan(losses).any(axis=1))
        added = np.where(is_scored[:, None], losses, 0.0) * share
        served = self.served * fading + added[:, OF_SERVED]
        baseline = self.baseline * fading + added[:, OF_BASELINE]
        evidence = self.evidence * fading + is_scored * share
        excess, little = served - baseline, SMALLEST_EXCESS * evidence
        by_chance = (largest_loss(np.maximum(evidence, REMEMBERED_HORIZONS)) - 1) * baseline
        closes = (evidence >= MINIMUM_HORIZONS) & (excess > np.maximum(by_chance, little))
        stays = self.is_closed & (evidence >= REMEMBERED_HORIZONS) & (excess > little / 2)
        return replace(self, served=served, baseline=baseline, evidence=evidence, is_closed=closes | stays)

    def said(self, row: int, baseline: str) -> str:
        """What the record of a series says, in words."""
        over = f"over the last {self.evidence[row]:.0f} horizons the model lost"
        if self.baseline[row] > 0:
            return f"{over} {self.served[row] / self.baseline[row]:.2g} times what {baseline} did"
        return f"{over} something and {baseline} nothing"
