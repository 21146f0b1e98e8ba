"""Where quantiles cannot be trusted: coverage by hour of day, by ramps, by how volatile a series is. Pure."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.forecast import FloatArray, History
from predictor.backtest.rolling import Backtest

HOUR_SECONDS = 3600
HOURS_OF_DAY = 24
USUAL_SHARE = 0.9
"""A change of usage is a ramp if it is larger than this share of the series' past changes were."""
TENTHS = 10


@dataclass(frozen=True, slots=True)
class GroupedCoverage:
    """Points at or below the forecast, [series, levels, groups], and points at all, [series, groups]."""

    covered: NDArray[np.int64]
    count: NDArray[np.int64]

    def __add__(self, other: Self) -> Self:
        return type(self)(self.covered + other.covered, self.count + other.count)


def grouped_coverage(made: Backtest, groups: NDArray[np.intp], size: int) -> GroupedCoverage:
    """Coverage of each of `size` groups; `groups` is the number of every point's group, [cutoffs, series, steps].

    A point counts where both a forecast and a sample exist.
    """
    is_scored = ~np.isnan(made.actual) & ~np.isnan(made.forecast).any(axis=2)
    is_covered = (made.actual[:, :, None, :] <= made.forecast) & is_scored[:, :, None, :]
    members = [groups == number for number in range(size)]
    covered = [np.sum(is_covered & here[:, :, None, :], axis=(0, 3), dtype=np.int64) for here in members]
    count = [np.sum(is_scored & here, axis=(0, 2), dtype=np.int64) for here in members]
    return GroupedCoverage(np.stack(covered, axis=-1), np.stack(count, axis=-1))


def hours_of_day(made: Backtest) -> NDArray[np.intp]:
    """The hour (UTC) in which each outcome ends, [cutoffs, series, outcomes]."""
    ahead = made.step_seconds * made.target.ahead.astype(np.int64)
    hours = (np.asarray(made.cutoffs_seconds)[:, None] + ahead) // HOUR_SECONDS % HOURS_OF_DAY
    return np.asarray(np.broadcast_to(hours[:, None, :], made.actual.shape), dtype=np.intp)


def hourly_changes(history: History) -> FloatArray:
    """How far usage is from what it was an hour before, [series, steps]; NaN where either sample is missing.

    On steps longer than an hour it is the change from the step before.
    """
    lag = min(max(HOUR_SECONDS // history.step_seconds, 1), history.steps)
    changes = np.full(history.usage.shape, np.nan)
    changes[:, lag:] = np.abs(history.usage[:, lag:] - history.usage[:, : history.steps - lag])
    return changes


def ramps(history: History, cutoff_seconds: int) -> NDArray[np.bool_]:
    """Whether usage is on a ramp at each step, [series, steps]: it changed by more within an hour than in nine of ten
    cases up to the cutoff. Never where a sample is missing.
    """
    changes = hourly_changes(history)
    known = np.sort(changes[:, history.times <= cutoff_seconds], axis=1)
    count = np.sum(~np.isnan(known), axis=1)
    place = np.maximum(np.ceil(count * USUAL_SHARE).astype(np.intp) - 1, 0)
    usual = np.where(count > 0, np.take_along_axis(known, place[:, None], axis=1)[:, 0], np.inf)
    return np.asarray(changes > usual[:, None])


def volatility(history: History) -> FloatArray:
    """Standard deviation of the change from one step to the next ÷ mean usage, [series]; zero where nothing was used
    or fewer than two steps in a row have samples.
    """
    changes = np.diff(history.usage, axis=1)
    deviation = np.sqrt(np.maximum(_mean(changes**2) - _mean(changes) ** 2, 0.0))
    scale = _mean(history.usage)
    return np.asarray(deviation / np.where(scale > 0, scale, np.inf))


def tenths(values: FloatArray) -> NDArray[np.intp]:
    """The tenth, from 0, in which each value ranks; fewer than ten values have a group each."""
    groups = min(TENTHS, len(values))
    ranks = np.empty(len(values), dtype=np.intp)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return np.asarray(ranks * groups // max(len(values), 1), dtype=np.intp)


def worst_tenth(coverage: FloatArray) -> FloatArray:
    """Mean coverage of the tenth of series with the lowest coverage at each level, [levels]; `coverage` is
    [series, levels], at least one series counts.
    """
    count = -(-len(coverage) // TENTHS)
    return np.asarray(np.sort(coverage, axis=0)[:count].mean(axis=0))


def worst_tenth_if_alike(covered: FloatArray, count: FloatArray, *, draws: int, seed: int) -> FloatArray:
    """What the worst tenth would show on average if all series were covered alike, [levels].

    `covered` is [cutoffs, series, levels], how many points were covered, `count` [cutoffs, series] how many there were.
    Each series is given, at every cutoff, what happened to some series there: what is left of the difference to the
    others is chance, as a handful of cutoffs shows no more.
    """
    rng = np.random.default_rng(seed)
    cutoffs, series = count.shape
    at = np.arange(cutoffs)[:, None]
    found = []
    for _ in range(draws):
        picked = rng.integers(0, series, (cutoffs, series))
        total = count[at, picked].sum(axis=0)
        shares = covered[at, picked].sum(axis=0)[total > 0] / total[total > 0, None]
        found.append(worst_tenth(shares))
    return np.asarray(np.mean(found, axis=0))


def _mean(values: FloatArray) -> FloatArray:
    """Mean of each row's samples; zero without any."""
    present = ~np.isnan(values)
    total = np.where(present, values, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(present.sum(axis=1), 1))
