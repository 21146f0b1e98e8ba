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
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.forecast import FloatArray, ForecastError, IntArray
from models.signals import recent_signals

MARGINS: FloatArray = np.concatenate(
    [np.geomspace(0.25, 0.8, 17)[:-1], np.geomspace(0.8, 1.6, 65)[:-1], np.geomspace(1.6, 8.0, 25)]
)
"""The margins that there are: 1 % apart where most serve, 7 % apart elsewhere."""
_MARGINS = MARGINS.astype(np.float32)
_LOGS: FloatArray = np.log(MARGINS)
HALF_LIFE_SECONDS = 14 * 86_400.0
"""After which a step counts half. Little memory costs: of a day, .5 % are 7 minutes."""
BLOCK = 512
"""How many series are advised on together: all of a large fleet's would take gigabytes."""
MOST_CELLS = 2_000_000
"""How many numbers, of series by signals by steps, are held while steps are taken in."""
LARGEST_UNIT = 1e4
"""Weights are made small again beyond this, long before single precision drops old ones."""
LEAST_STEPS = 59.0
"""A signal may serve once its record is longer: an hour of minutes, five hours of five minutes."""
ROUNDING = 1e-6
"""Relative excess over a margin that is rounding to single precision, not demand."""
HIGHEST = 1.2
"""However large the margin, what is advised is at most so many times the highest demand of the last week."""
TAIL_SHARE = 0.1
"""The tail's mean excess, on the logarithm, is that over the margin which demand exceeds this share of time…"""
LEAST_TAIL = 0.02
"""…and at least so much, where demand has hardly varied yet."""


@dataclass(frozen=True, slots=True)
class Advised:
    """What to be ready for in the coming step, each [series, asked]."""

    demand: FloatArray
    """The signal times its margin; NaN where no signal's record says how much is enough."""
    signal: IntArray
    """Which signal serves; -1 where none does."""
    margin: FloatArray
    steps: FloatArray
    """How long that signal's record is, older steps counting less."""


class DemandMargins:
    """What demand of some series did beside the signals of it; `follow` adds to that in place."""

    def __init__(self, series: int, forecasts: Sequence[str], *, step_seconds: int, longest_lead_steps: int) -> None:
        """Nothing is known yet. `forecasts` names those signals that are forecast and not recent usage."""
        self._longest = longest_lead_steps
        self._recent_signals = recent_signals(step_seconds)
        self.names = (*(each.name for each in self._recent_signals), *forecasts)
        """Of the signals, for a person."""
        self._growth = 2.0 ** (step_seconds / HALF_LIFE_SECONDS)
        self._unit = 1.0
        """Weight of the coming step: newer ones weigh more, so that older ones need not be faded one by one."""
        count = len(self.names)
        self._needed: NDArray[np.float32] = np.zeros((series, count, MARGINS.size + 1), dtype=np.float32)
        """Weight of the steps by the first margin that would have been enough; last, those for which none is."""
        self._total: NDArray[np.float32] = np.zeros((series, count), dtype=np.float32)
        """Weighted sum of the signals."""
        self._used: NDArray[np.float32] = np.zeros((series, count), dtype=np.float32)
        """Weighted sum of usage in the same steps: signals that are known at different times are compared by it."""
        self._recent: NDArray[np.float32] = np.full((longest_lead_steps + 1, series, count), np.nan, np.float32)
        """The signals of the coming step and of those before, newest first."""

    @property
    def series(self) -> int:
        """How many series."""
        return int(self._total.shape[0])

    def select(self, rows: IntArray) -> Self:
        """Some series, in the order given."""
        made = copy(self)
        made._needed, made._total, made._used = self._needed[rows], self._total[rows], self._used[rows]
        made._recent = self._recent[:, rows]
        return made

    def beside(self, other: Self) -> Self:
        """These series, then the other's, whose signals and steps must be the same."""
        made = copy(self)
        scale = np.float32(self._unit / other._unit)
        made._needed = np.concatenate([self._needed, other._needed * scale])
        made._total = np.concatenate([self._total, other._total * scale])
        made._used = np.concatenate([self._used, other._used * scale])
        made._recent = np.concatenate([self._recent, other._recent], axis=1)
        return made

    def follow(self, usage: FloatArray, forecasts: FloatArray, exceeded: FloatArray, lead_steps: IntArray) -> None:
        """The newest steps of `usage`, [series, all steps], are over, and the next begins.

        `exceeded`, [series, new steps], is what readiness in each step that is over had to exceed, 0 where anything was
        enough and NaN where demand is not known: then it teaches nothing. `forecasts`, [series, forecasts], are of the
        next step, NaN where there is none; of those in between there are none. `lead_steps` [series] is how many steps
        before its own what a step needs has to be ordered. Raises ForecastError for
        arrays of other series or forecasts.
        """
        found = (len(usage), len(self._recent_signals) + forecasts.shape[1])
        if found != self._total.shape or len(exceeded) != self.series:
            raise ForecastError(f"signals are {found}, but the record is of {self._total.shape}")
        steps = exceeded.shape[1]
        weights = self._unit * self._growth ** np.arange(steps + 1)
        size = max(1, MOST_CELLS // (len(self.names) * (steps + self._longest + 1)))
        for first in range(0, self.series, size):
            rows = slice(first, first + size)
            self._follow(
                rows,
                usage[rows],
                forecasts[rows],
                exceeded[rows],
                lead=np.minimum(lead_steps[rows], self._longest),
                weights=weights[:-1].astype(np.float32),
            )
        self._unit = float(weights[-1])
        if self._unit > LARGEST_UNIT:
            self._needed /= self._unit
            self._total /= self._unit
            self._used /= self._unit
            self._unit = 1.0

    def _follow(
        self,
        rows: slice,
        usage: FloatArray,
        forecasts: FloatArray,
        exceeded: FloatArray,
        *,
        lead: IntArray,
        weights: NDArray[np.float32],
    ) -> None:
        series, steps = exceeded.shape
        count, before = len(self.names), self._longest + 1
        signals: NDArray[np.float32] = np.full((series, count, before + steps), np.nan, dtype=np.float32)
        """As they were before each step and, last, as they are now; oldest first."""
        signals[:, :, :before] = self._recent[::-1, rows].transpose(1, 2, 0)
        for place, each in enumerate(self._recent_signals):
            signals[:, place, before:] = each.of(usage, lead, steps)
        signals[:, len(self._recent_signals) :, -1] = forecasts
        newest = signals[:, :, before - 1 : -1]
        lowest = newest.copy()
        for back in range(1, int(lead.max(initial=0)) + 1):
            earlier = signals[:, :, before - 1 - back : -1 - back]
            np.minimum(lowest, earlier, out=lowest, where=(lead >= back)[:, None, None])
        asked = exceeded[:, None].astype(np.float32)
        anything = np.broadcast_to(np.where(asked > 0, np.float32(np.inf), np.float32(0.0)), lowest.shape)
        ratio = np.divide(asked, lowest, out=anything.copy(), where=lowest > 0)
        bins = np.searchsorted(_MARGINS, ratio * np.float32(1.0 - ROUNDING), side="right")
        bins += np.arange(series * count).reshape(series, count, 1) * (MARGINS.size + 1)
        weight = np.where(np.isnan(lowest) | np.isnan(asked), np.float32(0.0), weights)
        used = np.nan_to_num(usage[:, None, -steps:].astype(np.float32))
        np.add.at(self._needed[rows].reshape(-1), bins.reshape(-1), weight.reshape(-1))
        self._total[rows] += (weight * np.nan_to_num(newest)).sum(axis=2)
        self._used[rows] += (weight * used).sum(axis=2)
        self._recent[:, rows] = signals[:, :, ::-1][:, :, :before].transpose(2, 0, 1)

    def advised(self, allowed: FloatArray) -> Advised:
        """What demand of the coming step exceeds in shares `allowed` of time, [series, asked], at the least cost."""
        firsts = range(0, max(self.series, 1), BLOCK)
        parts = [self._advised(slice(first, first + BLOCK), allowed[first : first + BLOCK]) for first in firsts]
        return Advised(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Advised)))

    def _advised(self, block: slice, allowed: FloatArray) -> Advised:
        signals = self._recent[0, block].astype(np.float64)
        needed = self._needed[block] / np.float32(self._unit)
        above = np.flip(np.cumsum(np.flip(needed, axis=2), axis=2), axis=2)
        steps, above = above[:, :, 0].astype(np.float64), above[:, :, 1:]
        is_tail = above <= TAIL_SHARE * steps[:, :, None]
        excess = np.where(is_tail, above, 0.0)[:, :, 1:] @ np.diff(_LOGS)
        scale = np.maximum(excess / (TAIL_SHARE * np.maximum(steps, 1.0)), LEAST_TAIL)
        beyond_all = above[:, :, -1]
        end = np.where(beyond_all < 0.5, (above < 0.5).argmax(axis=2), MARGINS.size - 1)
        is_usable = (steps >= LEAST_STEPS) & ~np.isnan(signals)
        # What a signal costs, at a margin of one, for each unit of usage in its steps.
        total, used = self._total[block].astype(np.float64), self._used[block].astype(np.float64)
        cost = np.divide(total, used, out=total, where=used > 0)
        rows, highest = np.arange(len(signals)), signals[:, 0]
        columns = []
        for share in allowed.T:
            # One exceedance more than was seen lies beyond the end, where the tail falls from it exponentially.
            most = share[:, None] * (steps + 1.0) - 1.0
            seen = (above <= most[:, :, None]).argmax(axis=2)
            beyond = scale * np.maximum(-np.log(np.maximum(most + 1.0, 1e-300)), 0.0)
            margins = np.where(most >= 0.0, MARGINS[np.minimum(seen, end)], MARGINS[end] * np.exp(beyond))
            is_enough = is_usable & (margins <= MARGINS[-1]) & (beyond_all <= np.maximum(most, 0.5))
            best = np.where(is_enough, cost * margins, np.inf).argmin(axis=1)
            serves = is_enough[rows, best]
            margin = np.where(serves, margins[rows, best], np.nan)
            demand = np.minimum(signals[rows, best] * margin, HIGHEST * highest)
            columns.append((demand, np.where(serves, best, -1), margin, np.where(serves, steps[rows, best], 0.0)))
        demand, signal, margin, count = (np.stack(each, axis=1) for each in zip(*columns, strict=True))
        return Advised(demand, signal, margin, count)
