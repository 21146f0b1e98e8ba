"""Which level to ask for, so that quantiles mean what they say: learned from what lay at or under earlier ones.

A forecast that covers 97 % where it says 99 % is asked for a higher level, not moved by a constant: on loads that are
on or off a constant is the wrong correction, another level of the same distribution is the right one. Method:
distributional conformal prediction (Chernozhukov, Wüthrich and Zhu 2021), each level by itself and with labels that
come a horizon late. An outcome's conformity score is the level at which the forecast first covers it; the level asked
for is the quantile of these scores, read off the share of outcomes under each level of a grid. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.forecast import BoolArray, FloatArray, ForecastError, checked_levels
from models.parts import HALF_LIFE_SECONDS, independent_cutoffs, novelty, part_ends, part_of

FURTHER_LEVELS: tuple[float, ...] = (0.25, 0.8, 0.975, 0.995, 0.999)
"""Levels that coverage is followed at beside those that are served: what is asked for may lie around them."""
TAIL_LEVEL = 0.8
"""One of the further levels: the highest quantile less this one is the unit of what lies beyond."""
BEYOND: tuple[float, ...] = (1.25, 1.75, 3.0)
"""Coverage is followed a quarter, three quarters and twice that unit beyond the highest quantile as well: what was
never seen may come. It is the fleet's more than any series' own, of which none sees many."""
SHRINKAGE_CUTOFFS = 100.0
"""A series with this many scored cutoffs is believed as much as the fleet: the steps of one cutoff hang together."""
FLEET_SHRINKAGE_CUTOFFS = 80.0
"""After this many independent cutoffs the fleet's share of outcomes under the median is believed as much as what is
stated; under other levels after 4 τ (1 − τ) times as many, as the share scatters less there."""
MOST_MISSES = 2.0
"""However cautious a forecast was, it is never asked for a level that would leave more than this times the misses: at a
lower level those below, at an upper one those above."""
NEAR_BOUND = 0.04
"""Usage that is cut off varies by about this share: a quantile lower than a bound by less is as good as at it."""
SAME = 1e-9
"""Two values that differ by no more than this share are the same."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How much of what happened lay under the forecasts of some series, and the levels to ask for that follow.

    `covered` is [series, parts, grid]: the discounted sum over cutoffs of the share of a part's outcomes under the
    quantile of each level, then under what lies beyond the highest. `evidence` is [series, parts], the discounted
    number of cutoffs summed. A level above 1 that is asked for lies beyond the highest quantile.
    """

    levels: tuple[float, ...]
    """The levels that coverage is followed at, ascending."""
    part_ends: tuple[int, ...]
    covered: FloatArray
    evidence: FloatArray

    def __post_init__(self) -> None:
        checked_levels(self.levels)
        series = self.covered.shape[0] if self.covered.ndim else 0
        shape = (series, len(self.part_ends), len(self.levels) + len(BEYOND))
        if self.covered.shape != shape or self.evidence.shape != shape[:2]:
            raise ForecastError(f"a calibration of {shape} needs coverage like it, got {self.covered.shape}")
        if not (np.isfinite(self.covered).all() and (self.covered >= 0).all() and (self.evidence >= 0).all()):
            raise ForecastError("a calibration's coverage must be finite and not negative")

    @classmethod
    def without_record(cls, series: int, levels: Sequence[float], outcomes: int) -> Self:
        """Nothing realised yet: every level is asked for as it is. Further levels than `levels` are followed."""
        ends, grid = part_ends(outcomes), grid_of(levels)
        shape = (series, len(ends), len(grid) + len(BEYOND))
        return cls(grid, ends, np.zeros(shape), np.zeros(shape[:2]))

    def realised(self, covered: FloatArray, elapsed_seconds: float, reach_seconds: FloatArray) -> Self:
        """The record after one more cutoff, `elapsed_seconds` after the one before.

        `covered` as from `part_coverage`; NaN where nothing was scored. `reach_seconds` [parts] is how far ahead each
        part reaches; outcomes that the cutoff before had seen already count once.
        """
        fading = 0.5 ** (max(elapsed_seconds, 0.0) / HALF_LIFE_SECONDS)
        share = novelty(elapsed_seconds, reach_seconds)
        is_scored = np.asarray(~np.isnan(covered).any(axis=2))
        added = np.where(is_scored[:, :, None], covered, 0.0) * share[:, None]
        return replace(self, covered=self.covered * fading + added, evidence=self.evidence * fading + is_scored * share)

    def asked(self, levels: Sequence[float], *, beyond: bool) -> FloatArray:
        """The levels to ask for instead of some levels, [series, parts, levels]; above 1 only if `beyond`.

        A series' own coverage is trusted by n / (n + SHRINKAGE_CUTOFFS) after n cutoffs, the fleet's for the rest; the
        fleet's by m / (m + s), and what was stated for the rest, m being its independent cutoffs and
        s = FLEET_SHRINKAGE_CUTOFFS · 4 τ (1 − τ).
        """
        own = self.covered / np.where(self.evidence > 0, self.evidence, 1.0)[:, :, None]
        trust = (self.evidence / (self.evidence + SHRINKAGE_CUTOFFS))[:, :, None]
        return self._inverted(trust * own + (1 - trust) * self._fleet(), levels, beyond)

    def asked_of_unknown(self, levels: Sequence[float], *, beyond: bool) -> FloatArray:
        """The same for a series without any record, [parts, levels]: the fleet's."""
        return np.asarray(self._inverted(self._fleet()[None], levels, beyond)[0])

    def _fleet(self) -> FloatArray:
        """Coverage to believe of the fleet, [parts, grid]: over all series, and as stated while cutoffs are few."""
        total = self.evidence.sum(axis=0)[:, None]
        stated = np.asarray((*self.levels, *(1.0 for _ in BEYOND)))
        independent = independent_cutoffs(self.evidence)[:, None]
        needed = FLEET_SHRINKAGE_CUTOFFS * 4 * stated * (1 - stated)
        trust = np.where(total > 0, independent / np.where(total > 0, independent + needed, 1.0), 0.0)
        return np.asarray(trust * self.covered.sum(axis=0) / np.where(total > 0, total, 1.0) + (1 - trust) * stated)

    def _inverted(self, coverage: FloatArray, levels: Sequence[float], beyond: bool) -> FloatArray:
        """Where coverage [series, parts, grid] reaches each level, linear in between, [series, parts, levels]."""
        edge = np.zeros((*coverage.shape[:2], 1))
        # What lies even farther is not asked for.
        reached = np.maximum.accumulate(np.concatenate([edge, coverage[:, :, :-1], edge + 1.0], axis=2), axis=2)
        grid = np.asarray((0.0, *self.levels, *BEYOND))
        found = np.empty((*coverage.shape[:2], len(levels)))
        for column, level in enumerate(levels):
            above = np.maximum(np.argmax(reached >= level, axis=2), 1)
            low, high = (np.take_along_axis(reached, (above + k)[:, :, None], axis=2)[:, :, 0] for k in (-1, 0))
            share = np.where(high > low, (level - low) / np.where(high > low, high - low, 1.0), 1.0)
            asked = grid[above - 1] + np.clip(share, 0.0, 1.0) * (grid[above] - grid[above - 1])
            lowest = max(1 - MOST_MISSES * (1 - level), level / MOST_MISSES)
            top = BEYOND[-1] if beyond else max(self.levels[-1], level)
            highest = MOST_MISSES * level if level <= 0.5 else top
            found[:, :, column] = np.clip(asked, lowest, highest)
        return found


def grid_of(levels: Sequence[float]) -> tuple[float, ...]:
    """The levels that coverage is followed at where these are served."""
    return tuple(sorted({*levels, *FURTHER_LEVELS}))


def part_coverage(
    actual: FloatArray,
    forecast: FloatArray,
    levels: Sequence[float],
    ends: Sequence[int],
    is_bound: BoolArray | None = None,
) -> FloatArray:
    """Share of each part's outcomes under each quantile and what lies beyond, [series, parts, grid].

    NaN without a point.

    `actual` is [series, outcomes], `forecast` [series, levels, outcomes]. An outcome that equals the quantiles of some
    levels, as zeros do those of an idle series, lies evenly between the nearest levels below and above it (the
    randomised probability integral transform): ties speak neither for nor against a forecast. So does one that is only
    a bound, [series, outcomes], between the bound's level and 1: what it exceeds is known, what covers it is not.
    """
    starts = np.asarray((0, *ends[:-1]))
    is_scored = ~np.isnan(actual) & ~np.isnan(forecast).any(axis=1)
    known = np.where(is_scored, actual, 0.0)[:, None, :]
    quantiles = np.where(is_scored[:, None, :], forecast, 0.0)
    margin = SAME * np.abs(known)
    is_below, is_above = quantiles < known - margin, quantiles > known + margin
    grid = np.asarray((0.0, *levels, 1.0))
    low = grid[is_below.sum(axis=1)]
    high = grid[len(levels) + 1 - is_above.sum(axis=1)]
    tied = (np.asarray(levels)[:, None] - low[:, None, :]) / (high - low)[:, None, :]
    under = np.where(is_above, 1.0, np.where(is_below, 0.0, tied))
    if is_bound is not None:
        under = np.where(is_bound[:, None, :], _under_bounds(known, quantiles, levels), under)
    under = np.concatenate([under, known <= _beyond(quantiles, levels) + margin], axis=1) * is_scored[:, None, :]
    count = np.add.reduceat(is_scored.astype(np.float64), starts, axis=1)[:, :, None]
    total = np.moveaxis(np.add.reduceat(under, starts, axis=2), 1, 2)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1.0), np.nan))


def _under_bounds(known: FloatArray, quantiles: FloatArray, levels: Sequence[float]) -> FloatArray:
    """How much of what was `known` or more, [series, 1, outcomes], lies under quantiles, [series, levels, outcomes].

    It lies evenly between 1 and the level that the forecast gives to less, linear between the quantiles around it.
    """
    reach = known * (1.0 - NEAR_BOUND)
    is_missed = quantiles < reach
    below = np.asarray(is_missed.sum(axis=1, keepdims=True))
    above = np.clip(below, 1, len(levels) - 1)
    low, high = (np.take_along_axis(quantiles, above + k, axis=1) for k in (-1, 0))
    is_between = (below == above) & (high > low)
    share = np.where(is_between, (reach - low) / np.where(is_between, high - low, 1.0), 0.0)
    grid = np.asarray((0.0, *levels, 1.0))
    least = grid[below] + share * (grid[below + 1] - grid[below])
    return np.where(is_missed, 0.0, (np.asarray(levels)[:, None] - least) / (1.0 - least))


def at_levels(values: FloatArray, levels: Sequence[float], asked: FloatArray, ends: Sequence[int]) -> FloatArray:
    """Quantiles [series, levels, outcomes] at other levels, [series, parts, asked], linear between those known.

    Below the lowest known level its quantile stands, above the highest is what lies beyond; outcomes after the last
    part are asked as it is. Between zero and more it is one or the other, that of the nearer level: what is on or off
    is not half on.
    """
    known = np.asarray((*levels, *BEYOND))
    values = np.concatenate([values, _beyond(values, levels)], axis=1)
    of_outcome = np.moveaxis(asked[:, part_of(values.shape[2], ends)], 1, 2)
    above: NDArray[np.intp] = np.clip(np.searchsorted(known, of_outcome), 1, len(known) - 1)
    share = np.clip((of_outcome - known[above - 1]) / (known[above] - known[above - 1]), 0.0, 1.0)
    low, high = (np.take_along_axis(values, above + k, axis=1) for k in (-1, 0))
    share = np.where(low == 0, np.round(share), share)
    return np.asarray(low + (high - low) * share)


def _beyond(values: FloatArray, levels: Sequence[float]) -> FloatArray:
    """What lies beyond the highest of the quantiles, [series, beyond, outcomes]: none where the tail is a point."""
    highest = values[:, -1:]
    tail = highest - values[:, [list(levels).index(TAIL_LEVEL)]]
    return np.asarray(highest + (np.asarray(BEYOND)[:, None] - 1.0) * tail)
