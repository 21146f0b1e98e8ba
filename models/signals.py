"""Signals: numbers known at the cutoff that the demand of the coming steps is some multiple of.

Recent highs and means, a trend, and what was used a day and a week ago at this time, as it is and brought to today's
level. Each says little of how much is safe; by which factor it has to be multiplied is learned in margins.py. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

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
    of: Callable[[FloatArray, IntArray], FloatArray]
    """[series] from usage [series, steps] up to the cutoff, NaN where there is no sample, and from how many steps after
    the coming one matter, [series]. NaN: not known."""


def recent_signals(step_seconds: int) -> tuple[Signal, ...]:
    """Every signal of usage in steps of `step_seconds`; the first is the highest usage of the longest time."""

    def steps(minutes: float) -> int:
        return max(1, round(60 * minutes / step_seconds))

    highs = dict.fromkeys(map(steps, HIGH_MINUTES))
    means = dict.fromkeys(map(steps, MEAN_MINUTES))
    made = [Signal(f"the highest of the last {_span(each, step_seconds)}", _high_of(each)) for each in highs]
    made.append(Signal("the newest sample", lambda usage, _: usage[:, -1]))
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


def _high_of(steps: int) -> Callable[[FloatArray, IntArray], FloatArray]:
    return lambda usage, _: _high(usage[:, -steps:])


def _mean_of(steps: int) -> Callable[[FloatArray, IntArray], FloatArray]:
    return lambda usage, _: _mean(usage[:, -steps:])


def _trend_of(steps: int) -> Callable[[FloatArray, IntArray], FloatArray]:
    def trend(usage: FloatArray, _: IntArray) -> FloatArray:
        newer, older = _mean(usage[:, -steps:]), _mean(usage[:, -2 * steps : -steps])
        made: FloatArray = np.maximum(1.5 * newer - 0.5 * older, 0.0)
        return made

    return trend


def _season_of(lag: int) -> Callable[[FloatArray, IntArray], FloatArray]:
    """The highest a season before the coming step and those after it that matter."""

    def high(usage: FloatArray, lead_steps: IntArray) -> FloatArray:
        first, longest = usage.shape[1] - lag, int(lead_steps.max(initial=0))
        if first < 0:
            return _unknown(usage)
        then = usage[:, first : first + longest + 1]
        return _high(np.where(np.arange(then.shape[1]) <= lead_steps[:, None], then, np.nan))

    return high


def _level_of(lag: int, steps: int) -> Callable[[FloatArray], FloatArray]:
    """Usage of late ÷ usage a season before, within bounds."""

    def level(usage: FloatArray) -> FloatArray:
        first = usage.shape[1] - lag
        if first - steps < 0:
            return _unknown(usage)
        now, then = _mean(usage[:, -steps:]), _mean(usage[:, first - steps : first])
        ratio = np.divide(now, then, out=np.full(now.shape, LARGEST_RATIO), where=then != 0.0)
        made: FloatArray = np.clip(ratio, 1 / LARGEST_RATIO, LARGEST_RATIO)
        return made

    return level


def _product_of(
    high: Callable[[FloatArray, IntArray], FloatArray], level: Callable[[FloatArray], FloatArray]
) -> Callable[[FloatArray, IntArray], FloatArray]:
    return lambda usage, lead_steps: high(usage, lead_steps) * level(usage)


def _high(usage: FloatArray) -> FloatArray:
    """The highest of the known samples; NaN where none is."""
    if not usage.shape[1]:
        return _unknown(usage)
    high: FloatArray = np.fmax.reduce(usage, axis=1)
    return high


def _mean(usage: FloatArray) -> FloatArray:
    """The mean of the known samples; NaN where none is."""
    is_known = ~np.isnan(usage)
    known = is_known.sum(axis=1)
    total = np.where(is_known, usage, 0.0).sum(axis=1)
    mean: FloatArray = np.divide(total, known, out=_unknown(usage), where=known > 0)
    return mean


def _unknown(usage: FloatArray) -> FloatArray:
    return np.full(usage.shape[0], np.nan)


def _span(steps: int, step_seconds: int) -> str:
    seconds = steps * step_seconds
    for unit, length in (("d", SECONDS_PER_DAY), ("h", 3600), ("min", 60)):
        if seconds % length == 0 and seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
