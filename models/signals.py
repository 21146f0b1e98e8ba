"""Signals: numbers known at the cutoff that the demand of the coming steps is some multiple of.

Recent highs and means, a trend, and what was used a day and a week ago at this time, as it is and brought to today's
level. Each says little of how much is safe; by which factor it has to be multiplied is learned in margins.py. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d

from models.forecast import SECONDS_PER_DAY, FloatArray, IntArray

HIGH_MINUTES = (7 * 1440, 1440, 360, 90, 40, 20, 10, 5)
MEAN_MINUTES = (5, 10, 30)
SEASON_DAYS = (1, 7)
TREND_MINUTES = 5
"""A trend goes on from the mean of so many minutes by half of what it rose against those before."""
LEVEL_MINUTES = 15
"""Today's level against a season ago is taken from the means of so many minutes…"""
LARGEST_RATIO = 5.0
"""…and is at most so many times that, and at least its inverse."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal of recent usage."""

    name: str
    """For a person, such as "the highest of the last 20 min"."""
    _of: Callable[[FloatArray, IntArray, int], FloatArray]

    def of(self, usage: FloatArray, lead_steps: IntArray, steps: int = 1) -> FloatArray:
        """As known after each of the last `steps` of `usage`, [series, steps]; NaN: not known.

        `usage`, [series, all steps], holds NaN where there is no sample. `lead_steps`, [series], is how many steps
        after the coming one matter.
        """
        return self._of(usage, lead_steps, usage.shape[1] - steps)


def recent_signals(step_seconds: int) -> tuple[Signal, ...]:
    """Every signal of usage in steps of `step_seconds`; the first is the highest usage of the longest time."""

    def steps(minutes: float) -> int:
        return max(1, round(60 * minutes / step_seconds))

    highs = dict.fromkeys(map(steps, HIGH_MINUTES))
    means = dict.fromkeys(map(steps, MEAN_MINUTES))
    made = [Signal(f"the highest of the last {_span(each, step_seconds)}", _high_of(each)) for each in highs]
    made.append(Signal("the newest sample", lambda usage, _, first: usage[:, first:]))
    made += [Signal(f"the mean of the last {_span(each, step_seconds)}", _mean_of(each)) for each in means]
    trend = steps(TREND_MINUTES)
    made.append(Signal(f"the trend of the last {_span(2 * trend, step_seconds)}", _trend_of(trend)))
    for days in SEASON_DAYS:
        lag = days * SECONDS_PER_DAY // step_seconds
        if lag > 0:
            when = "a day ago" if days == 1 else "a week ago"
            high, level = _season_of(lag), _level_of(lag, steps(LEVEL_MINUTES))
            made.append(Signal(f"the highest at this time {when}", high))
            made.append(Signal(f"the highest at this time {when}, at today's level", _product_of(high, level)))
    return tuple(made)


def _high_of(steps: int) -> Callable[[FloatArray, IntArray, int], FloatArray]:
    def high(usage: FloatArray, _: IntArray, first: int) -> FloatArray:
        if first == usage.shape[1] - 1:
            newest: FloatArray = np.fmax.reduce(usage[:, -steps:], axis=1, keepdims=True)
            return newest
        window = _columns(usage, first - steps + 1, usage.shape[1])
        highest = maximum_filter1d(
            np.where(np.isnan(window), -np.inf, window), steps, axis=1, mode="nearest", origin=(steps - 1) // 2
        )[:, steps - 1 :]
        return np.where(np.isneginf(highest), np.nan, highest)

    return high


def _mean_of(steps: int) -> Callable[[FloatArray, IntArray, int], FloatArray]:
    return lambda usage, _, first: _mean(usage, steps, first, usage.shape[1])


def _trend_of(steps: int) -> Callable[[FloatArray, IntArray, int], FloatArray]:
    def trend(usage: FloatArray, _: IntArray, first: int) -> FloatArray:
        newer = _mean(usage, steps, first, usage.shape[1])
        older = _mean(usage, steps, first - steps, usage.shape[1] - steps)
        made: FloatArray = np.maximum(1.5 * newer - 0.5 * older, 0.0)
        return made

    return trend


def _season_of(lag: int) -> Callable[[FloatArray, IntArray, int], FloatArray]:
    """The highest a season before the coming step and those after it that matter."""

    def high(usage: FloatArray, lead_steps: IntArray, first: int) -> FloatArray:
        begin, end = first + 1 - lag, usage.shape[1] + 1 - lag
        highest = _columns(usage, begin, end)
        for ahead in range(1, min(int(lead_steps.max(initial=0)), lag - 1) + 1):
            then = _columns(usage, begin + ahead, end + ahead)
            highest = np.where((lead_steps >= ahead)[:, None], np.fmax(highest, then), highest)
        return highest

    return high


def _level_of(lag: int, steps: int) -> Callable[[FloatArray, int], FloatArray]:
    """Usage of late ÷ usage a season before, within bounds."""

    def level(usage: FloatArray, first: int) -> FloatArray:
        now = _mean(usage, steps, first, usage.shape[1])
        then = _mean(usage, steps, first - lag, usage.shape[1] - lag)
        largest = np.where(np.isnan(now) | np.isnan(then), np.nan, LARGEST_RATIO)
        ratio = np.divide(now, then, out=largest, where=then > now / LARGEST_RATIO)
        return np.maximum(ratio, 1 / LARGEST_RATIO)

    return level


def _product_of(
    high: Callable[[FloatArray, IntArray, int], FloatArray], level: Callable[[FloatArray, int], FloatArray]
) -> Callable[[FloatArray, IntArray, int], FloatArray]:
    return lambda usage, lead_steps, first: high(usage, lead_steps, first) * level(usage, first)


def _mean(usage: FloatArray, steps: int, begin: int, end: int) -> FloatArray:
    """The mean of the known of the last `steps` samples after each column from `begin` to before `end`; NaN for none.

    Added up in the same order however many columns are asked for, so that the answers are the same to the bit.
    """
    window = _columns(usage, begin - steps + 1, end)
    is_known = ~np.isnan(window)
    samples = np.where(is_known, window, 0.0)
    total, known = np.zeros((len(usage), end - begin)), np.zeros((len(usage), end - begin))
    for back in range(steps):
        total += samples[:, back : back + end - begin]
        known += is_known[:, back : back + end - begin]
    mean: FloatArray = np.divide(total, known, out=np.full(total.shape, np.nan), where=known > 0)
    return mean


def _columns(usage: FloatArray, begin: int, end: int) -> FloatArray:
    """Columns from `begin` to before `end`, NaN where they lie outside."""
    steps = usage.shape[1]
    inside = usage[:, min(max(begin, 0), steps) : min(max(end, 0), steps)]
    if inside.shape[1] == end - begin:
        return inside
    before = min(max(-begin, 0), end - begin)
    made: FloatArray = np.full((len(usage), end - begin), np.nan)
    made[:, before : before + inside.shape[1]] = inside
    return made


def _span(steps: int, step_seconds: int) -> str:
    seconds = steps * step_seconds
    for unit, length in (("d", SECONDS_PER_DAY), ("h", 3600), ("min", 60)):
        if seconds % length == 0 and seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
