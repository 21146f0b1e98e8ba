"""By which margin each of several signals has to be multiplied so that demand exceeds it only a stated share of time.

For every series and signal a record counts by how much demand of each step was above the signal that replicas for it
had to be ordered by: the lowest one within the lead time, as what was given back in between is not there. All signals
are judged by every step whichever served, since what each would have led to is known afterwards: full information. Of
those whose record is long enough the one serves that costs least at its margin, by its mean so far.

Beyond what was seen the tail is taken as exponential, with one exceedance more than there was: conformal prediction's
correction for a finite record (Vovk, Gammerman and Shafer 2005), with a tail in the place of infinity. No clock.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.forecast import FloatArray, ForecastError, IntArray
from models.signals import recent_signals

MARGINS: FloatArray = np.concatenate(
    [np.geomspace(0.25, 0.8, 17)[:-1], np.geomspace(0.8, 1.6, 65)[:-1], np.geomspace(1.6, 8.0, 25)]
)
"""The margins that there are: 1 % apart where most serve, 7 % apart elsewhere."""
_LOGS: FloatArray = np.log(MARGINS)
HALF_LIFE_SECONDS = 14 * 86_400.0
"""After which a step counts half. With a day or less violations grow and cost does too: .5 % of a day are 7 minutes."""
LEAST_STEPS = 60.0
"""A signal may serve once its record is so many steps long, or as long as any of the series'."""
ROUNDING = 1e-6
"""Relative excess over a margin that is rounding to single precision, not demand."""
TAIL_SHARE = 0.1
"""The tail's mean excess, on the logarithm, is that over the margin which demand exceeds this share of time…"""
LEAST_TAIL = 0.02
"""…and at least so much, where demand has hardly varied yet."""


@dataclass(frozen=True, slots=True)
class Advised:
    """What to be ready for in the coming step, each [series]."""

    demand: FloatArray
    """The signal times its margin; NaN where no signal's record says how much is enough."""
    signal: IntArray
    """Which signal serves; -1 where none does."""
    margin: FloatArray
    steps: FloatArray
    """How long that signal's record is, older steps counting less."""


class DemandMargins:
    """What demand of some series did beside the signals of it; `step` adds to that in place."""

    def __init__(self, series: int, forecasts: Sequence[str], *, step_seconds: int, longest_lead_steps: int) -> None:
        """Nothing is known yet. `forecasts` names those signals that are forecast and not recent usage."""
        self._step_seconds, self._longest = step_seconds, longest_lead_steps
        self._recent_signals = recent_signals(step_seconds, longest_lead_steps)
        self.names = (*(each.name for each in self._recent_signals), *forecasts)
        """Of the signals, for a person."""
        self._fade = 0.5 ** (step_seconds / HALF_LIFE_SECONDS)
        count = len(self.names)
        self._needed: NDArray[np.float32] = np.zeros((series, count, MARGINS.size + 1), dtype=np.float32)
        """Weight of the steps by the first margin that would have been enough; last, those for which none is."""
        self._total: NDArray[np.float32] = np.zeros((series, count), dtype=np.float32)
        """Weighted sum of the signals."""
        self._recent: NDArray[np.float32] = np.full((longest_lead_steps + 1, series, count), np.nan, np.float32)
        """The signals of the coming step and of those before, newest first."""
        self._shares: FloatArray | None = None
        """Worked out once between two steps, however many shares are asked for."""

    @property
    def series(self) -> int:
        """How many series."""
        return int(self._total.shape[0])

    def select(self, rows: IntArray) -> Self:
        """Some series in the order given; a row of -1 is one of which nothing is known."""
        made = copy(self)
        is_new = rows < 0
        made._needed, made._total, made._recent = self._needed[rows], self._total[rows], self._recent[:, rows]
        made._needed[is_new], made._total[is_new], made._recent[:, is_new] = 0.0, 0.0, np.nan
        made._shares = None
        return made

    def step(self, usage: FloatArray, forecasts: FloatArray, exceeded: FloatArray, lead_steps: IntArray) -> None:
        """The last step of `usage`, [series, steps], is over, and the next begins.

        `forecasts`, [series, forecasts], are of the next one, NaN where there is none. `exceeded` [series] is what
        readiness in the step that is over had to exceed, 0 where anything was enough and NaN where demand is not known:
        then it teaches nothing. `lead_steps` [series] is how many steps before its own what a step needs has to be
        ordered. Raises ForecastError for arrays of other series or forecasts.
        """
        signals = np.column_stack([*(each.of(usage) for each in self._recent_signals), forecasts])
        if signals.shape != self._total.shape:
            raise ForecastError(f"signals are {signals.shape}, but the record is of {self._total.shape}")
        lead = np.minimum(lead_steps, self._longest)
        lowest = np.minimum.accumulate(self._recent, axis=0)[lead, np.arange(self.series)]
        is_known = ~np.isnan(lowest) & ~np.isnan(exceeded)[:, None]
        row, signal = np.nonzero(is_known)
        asked, given = exceeded[row], lowest[row, signal].astype(np.float64)
        ratio = np.divide(asked, given, out=np.where(asked > 0, np.inf, 0.0), where=given > 0)
        bins = np.searchsorted(MARGINS, ratio * (1.0 - ROUNDING), side="right")
        self._needed *= self._fade
        self._total *= self._fade
        self._needed[row, signal, bins] += 1.0
        self._total[row, signal] += self._recent[0, row, signal]
        self._recent = np.concatenate([signals[None].astype(np.float32), self._recent[:-1]])
        self._shares = None

    def advised(self, allowed: FloatArray) -> Advised:
        """What demand of the coming step exceeds in a share `allowed` [series] of time, at the least cost."""
        signals, steps = self._recent[0].astype(np.float64), self._needed.sum(axis=2, dtype=np.float64)
        if self._shares is None:
            self._shares = self._exceeding_shares(steps)
        is_enough = self._shares <= allowed[:, None, None]
        margins = MARGINS[is_enough.argmax(axis=2)]
        is_long = steps >= np.minimum(LEAST_STEPS, steps.max(axis=1, initial=0.0))[:, None]
        is_usable = is_enough.any(axis=2) & ~np.isnan(signals) & (steps > 0) & is_long
        cost = np.divide(self._total * margins, steps, out=np.full(steps.shape, np.inf), where=is_usable)
        rows, best = np.arange(self.series), cost.argmin(axis=1)
        serves = is_usable[rows, best]
        margin = np.where(serves, margins[rows, best], np.nan)
        return Advised(
            demand=signals[rows, best] * margin,
            signal=np.where(serves, best, -1),
            margin=margin,
            steps=np.where(serves, steps[rows, best], 0.0),
        )

    def _exceeding_shares(self, steps: FloatArray) -> FloatArray:
        """Share of time in which demand exceeds each signal at each margin, [series, signals, margins].

        One exceedance more than was seen lies in the tail, which ends nowhere.
        """
        above = np.flip(np.cumsum(np.flip(self._needed, axis=2), axis=2, dtype=np.float64), axis=2)[:, :, 1:]
        seen = np.maximum(steps, 1e-9)[:, :, None]
        share = above / seen
        tail = np.where(share <= TAIL_SHARE, share, 0.0)[:, :, 1:] @ np.diff(_LOGS)
        scale = np.maximum(tail / TAIL_SHARE, LEAST_TAIL)[:, :, None]
        end = _LOGS[(above < 0.5).argmax(axis=2)]
        beyond = np.maximum(_LOGS - end[:, :, None], 0.0)
        made: FloatArray = (above + np.exp(-beyond / scale)) / (seen + 1.0)
        return made
