"""Which forecaster to believe: weights from what each has cost lately, per series, part of the horizon and level.

No forecaster is fixed by hand: which one is best differs from series to series, from the next minute to the next hours,
and from one month to the next. The combined quantile is the weighted mean of the forecasters' quantiles of the same
level. Method: exponential weights on realised pinball loss, for each level on its own (Berrisch and Ziel, "CRPS
learning", 2021), shrunk to what holds for the fleet while a series' own record is short. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.forecast import BoolArray, FloatArray, ForecastError, History, between_levels, checked_levels, monotone
from models.parts import HALF_LIFE_SECONDS, independent_cutoffs, novelty, part_ends, part_of

SHARPNESS = 25.0
"""How steeply a weight falls with loss: one that loses a tenth more than the best weighs exp(−2.5) of it."""
SHRINKAGE_CUTOFFS = 15.0
"""A series with this many realised forecasts is believed as much as its prior, at the median; with twice as many where
each was of a single outcome, as a peak is, with 1 + 1 / k times as many where it was of k. Further out more are needed,
1 / (4 τ (1 − τ)) times as many: that a rare miss was not seen yet says little."""
LONGEST_MEMORY = "trailing_28d"
"""The forecaster that is believed of the tail, from TAIL_LEVEL on, while the fleet's record is short: what was not seen
in a few horizons may have been seen in a month."""
TAIL_LEVEL = 0.95
TAIL_CUTOFFS = 40.0
"""A fleet with 1 / (4 τ (1 − τ)) times as many independent cutoffs is believed of its tail as much as that."""
TAIL_MARGIN = 0.1
"""How much worse the other forecasters are taken to be there."""
LARGEST_RELATIVE_LOSS = 5.0
"""A forecaster that is worse than this many times the best is bad enough: no single series says more of it."""
NEARLY_ALL = 0.95
"""Where forecasters of more than this weight say exactly zero, it is zero: the mean would be a small number instead."""
SMALLEST_BEST = 1e-3
"""Where the best hardly errs, this share of the mean loss stands for its own."""


@dataclass(frozen=True, slots=True)
class Combination:
    """The record of some forecasters on some series, and the weights that follow from it.

    `loss` is [series, forecasters, parts, levels]: the discounted sum over cutoffs of the mean pinball loss in a part
    of the horizon ÷ the series' `loss_unit`. `evidence` is [series, parts], the discounted number of cutoffs summed.
    """

    forecasters: tuple[str, ...]
    levels: tuple[float, ...]
    part_ends: tuple[int, ...]
    """Last step ahead of each part of the horizon."""
    loss: FloatArray
    evidence: FloatArray

    def __post_init__(self) -> None:
        series = self.loss.shape[0] if self.loss.ndim else 0
        shape = (series, len(self.forecasters), len(self.part_ends), len(self.levels))
        checked_levels(self.levels)
        if self.loss.shape != shape or self.evidence.shape != (series, len(self.part_ends)):
            raise ForecastError(f"a record of {shape} needs losses like it, got {self.loss.shape}")
        if not (np.isfinite(self.loss).all() and (self.loss >= 0).all() and (self.evidence >= 0).all()):
            raise ForecastError("a record of losses must be finite and not negative")

    @classmethod
    def without_record(cls, series: int, forecasters: Sequence[str], levels: Sequence[float], outcomes: int) -> Self:
        """Nothing realised yet: every forecaster weighs the same."""
        ends = part_ends(outcomes)
        shape = (series, len(forecasters), len(ends), len(levels))
        return cls(tuple(forecasters), tuple(levels), ends, np.zeros(shape), np.zeros((series, len(ends))))

    def realised(self, losses: FloatArray, elapsed_seconds: float, reach_seconds: FloatArray) -> Self:
        """The record after one more cutoff, `elapsed_seconds` after the one before.

        `losses` as from `part_losses`, ÷ `loss_unit`; NaN where nothing was scored: a series' record only fades.
        `reach_seconds` [parts] is how far ahead each part reaches; outcomes that the cutoff before had seen already
        count once.
        """
        fading = 0.5 ** (max(elapsed_seconds, 0.0) / HALF_LIFE_SECONDS)
        share = novelty(elapsed_seconds, reach_seconds)
        # A part counts where every forecaster was scored, so that none gains by not answering.
        is_scored = np.asarray(~np.isnan(losses).any(axis=(1, 3)))
        added = np.where(is_scored[:, None, :, None], losses, 0.0) * share[:, None]
        return replace(self, loss=self.loss * fading + added, evidence=self.evidence * fading + is_scored * share)

    def weights(self, siblings: Sequence[Sequence[int]] | NDArray[np.intp] | None = None) -> FloatArray:
        """Weights of the forecasters, [series, forecasters, parts, levels], summing to 1 over the forecasters.

        r = a series' loss ÷ that of its best forecaster, at most 5; w ∝ exp(−SHARPNESS · r̃) with r̃ the series' own
        r trusted by n / (n + s) after n cutoffs, and its prior for the rest; s = SHRINKAGE_CUTOFFS (1 + 1 / k) /
        (4 τ (1 − τ)) in a part of k outcomes. `siblings` is [kinships, series], the nearest kinship first: a
        number that siblings share, negative where nothing is known. The prior is the r of a series' nearest siblings
        without itself taken together, itself trusted by their cutoffs, for the rest that of the next kinship's, and so
        on to the whole fleet's; where a series has no siblings by a kinship, that says nothing. Taken together are
        losses in units of each series' size: a forecaster that fails badly on a few is no good prior, however many it
        is best on. From TAIL_LEVEL on the fleet's r, in turn, is trusted by m / (m + TAIL_CUTOFFS / (4 τ (1 − τ)))
        after m independent cutoffs, and for the rest the forecaster with the longest memory is believed.
        """
        return _softened(self._believed(siblings))

    def weights_of_unknown(self) -> FloatArray:
        """Weights for a series without any record, [forecasters, parts, levels]: the fleet's."""
        return np.asarray(_softened(self._fleet()[None])[0])

    def _believed(self, siblings: Sequence[Sequence[int]] | NDArray[np.intp] | None) -> FloatArray:
        own = _relative(self.loss)
        prior = np.broadcast_to(self._fleet(), own.shape)
        for numbers in [] if siblings is None else np.asarray(siblings, dtype=np.intp)[::-1]:
            group = _groups(numbers)
            if len(np.unique(group)) == len(group):
                continue
            others, evidence = _of_the_others(self.loss, group), _of_the_others(self.evidence, group)
            prior = self._shrunk(_relative(others), evidence, prior)
        return self._shrunk(own, self.evidence, prior)

    def _fleet(self) -> FloatArray:
        """Relative loss over all series, [forecasters, parts, levels]; of the tail as far as there is evidence."""
        seen = np.asarray(_relative(self.loss.sum(axis=0, keepdims=True))[0])
        if LONGEST_MEMORY not in self.forecasters:
            return seen
        level = np.asarray(self.levels)
        independent = independent_cutoffs(self.evidence)[:, None]
        trust = independent / (independent + TAIL_CUTOFFS / (4 * level * (1 - level)))
        trust = np.where(level < TAIL_LEVEL, 1.0, trust)
        unseen = np.where(np.asarray(self.forecasters) == LONGEST_MEMORY, 1.0, 1.0 + TAIL_MARGIN)
        return np.asarray(trust * seen + (1 - trust) * unseen[:, None, None])

    def _shrunk(self, own: FloatArray, evidence: FloatArray, prior: FloatArray) -> FloatArray:
        level, outcomes = np.asarray(self.levels), np.diff(self.part_ends, prepend=0)[:, None]
        needed = SHRINKAGE_CUTOFFS * (1 + 1 / outcomes) / (4 * level * (1 - level))
        trust = (evidence[:, :, None] / (evidence[:, :, None] + needed))[:, None]
        return np.asarray(trust * own + (1 - trust) * prior)


def loss_unit(history: History) -> FloatArray:
    """What losses are measured in so that series can be taken together: the highest past sample, [series]."""
    highest = np.max(history.usage, axis=1, initial=0.0, where=~np.isnan(history.usage))
    return np.where(highest > 0, highest, 1.0)


def part_losses(
    actual: FloatArray,
    forecasts: Sequence[FloatArray],
    levels: Sequence[float],
    ends: Sequence[int],
    is_bound: BoolArray | None = None,
) -> FloatArray:
    """Mean pinball loss in each part of the horizon, [series, forecasters, parts, levels]; NaN without a point.

    `actual` is [series, steps], each forecast [series, levels, steps]. A point counts where it has a sample and every
    forecaster has an answer. Where an outcome is a bound, [series, steps], a forecast above it counts as the bound:
    what it may have been too high by is not known (Powell 1986).
    """
    level = np.asarray(levels)[:, None]
    starts = np.asarray((0, *ends[:-1]))
    is_scored = ~np.isnan(actual) & np.all([~np.isnan(each).any(axis=1) for each in forecasts], axis=0)
    count = np.add.reduceat(is_scored.astype(np.float64), starts, axis=1)[:, :, None]
    losses = np.empty((actual.shape[0], len(forecasts), len(ends), len(levels)))
    for number, forecast in enumerate(forecasts):
        gap = np.where(is_scored[:, None, :], actual[:, None, :] - forecast, 0.0)
        if is_bound is not None:
            gap = np.where(is_bound[:, None, :], np.maximum(gap, 0.0), gap)
        pinball = np.maximum(level * gap, (level - 1) * gap)
        total = np.moveaxis(np.add.reduceat(pinball, starts, axis=2), 1, 2)
        losses[:, number] = np.where(count > 0, total / np.maximum(count, 1.0), np.nan)
    return losses


def combined(
    forecasts: Mapping[int, FloatArray],
    weights: FloatArray,
    ends: Sequence[int],
    fitted: Sequence[float],
    levels: Sequence[float],
) -> FloatArray:
    """The weighted mean of quantiles, [series, levels, steps], made non-crossing; zero where nearly all say zero.

    `forecasts` maps a forecaster's number to its quantiles, [series, levels, steps]; one that is left out, or has no
    answer for a series, gives its weight to the others. `weights` is [series, forecasters, parts, fitted levels];
    steps beyond the last part weigh as it does, levels between fitted ones in proportion.
    """
    first = next(iter(forecasts.values()))
    part = part_of(first.shape[2], ends)
    total, given, idle = np.zeros_like(first), np.zeros_like(first), np.zeros_like(first)
    for number, values in forecasts.items():
        at_levels = between_levels(weights[:, number], fitted, levels)
        weight = np.where(np.isnan(values), 0.0, np.moveaxis(at_levels, 1, 2)[:, :, part])
        total += weight * np.nan_to_num(values)
        given += weight
        idle += weight * (values == 0)
    mean = np.where(given > 0, total / np.where(given > 0, given, 1.0), np.nan)
    return monotone(np.where(idle > NEARLY_ALL * given, 0.0, mean))


def _groups(numbers: NDArray[np.intp]) -> NDArray[np.intp]:
    """A group for each series, from 0 on; those with a negative number are alone."""
    alone = numbers.max(initial=-1) + 1 + np.arange(len(numbers))
    return np.asarray(np.unique(np.where(numbers < 0, alone, numbers), return_inverse=True)[1], dtype=np.intp)


def _of_the_others(values: FloatArray, group: NDArray[np.intp]) -> FloatArray:
    """The sum over the other series of each series' group, like `values`."""
    total = np.zeros((int(group.max()) + 1, *values.shape[1:]))
    np.add.at(total, group, values)
    return np.asarray(np.maximum(total[group] - values, 0.0))


def _relative(loss: FloatArray) -> FloatArray:
    """Loss ÷ that of the best forecaster, 1 where nothing is known or no forecaster erred."""
    mean = loss.mean(axis=1, keepdims=True)
    best = np.maximum(loss.min(axis=1, keepdims=True), SMALLEST_BEST * mean)
    relative = loss / np.where(best > 0, best, 1.0)
    return np.asarray(np.where(best > 0, np.minimum(relative, LARGEST_RELATIVE_LOSS), 1.0))


def _softened(relative: FloatArray) -> FloatArray:
    weight = np.exp(-SHARPNESS * (relative - relative.min(axis=1, keepdims=True)))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))
