"""The recipe's mixture of trailing windows: the series' own last two weeks, in weights fitted for each stretch ahead.

A past sample weighs Σ share ÷ width over the nested windows that it lies in, and a share spread over the samples within
45 minutes of the target's time of day, 0.85 per day back. One set of ten shares for each stretch of the horizon, fitted
on the fleet by random search with one parent and one child.

Where the recipe leaves it open: the search begins with equal shares and multiplies each by exp(N(0, 1)); a stretch is
judged by its first, middle and last step; origins are spread evenly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.forecast import SECONDS_PER_DAY, FloatArray, History
from models.learned.features import mean_of_samples
from models.weighted import weighted_quantiles

HOUR = 3600
WINDOWS = {300: (1, 3, 12, 48, 144, 288, 864, 2016, 4032), HOUR: (1, 2, 3, 6, 12, 24, 72, 168, 336)}
"""Widths of the nested windows in steps, for each step length."""
STRETCHES = {(300, False): (1, 4, 12, 24), (300, True): (12, 48, 144, 288), (HOUR, True): (1, 6, 24)}
"""Last steps of the stretches but for the last, by step length and whether the horizon is longer than 48 steps …"""
LONG_STEPS = 48
"""… or the step an hour."""
SAME_TIME_SECONDS = 2700
DAY_DECAY = 0.85
DECILES = np.arange(0.1, 0.95, 0.1)
FITTED_SERIES = 160
"""The largest ones, by mean usage …"""
FITTED_ORIGINS = 8
"""… from so many origins in …"""
FITTED_SHARE = 0.4
"""… the newest part of the past."""
SEARCH_STEPS = 50


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares of the windows and of the time of day, fitted; the weights that they make of the past."""

    weights: FloatArray
    """Weight of each past step, the newest last, for each step ahead, [steps ahead, past steps]."""

    def quantiles(self, past: FloatArray, ahead: NDArray[np.intp], levels: Sequence[float]) -> FloatArray:
        """Quantiles at each row's own steps ahead, [rows, steps, levels]; `ahead` is [rows, steps]."""
        own = past[:, -self.weights.shape[1] :]
        return weighted_quantiles(own, ahead - 1, self.weights[:, -own.shape[1] :], np.asarray(levels))


def fitted_mixture(history: History, horizon_steps: int, seed: int = 0) -> Mixture:
    """The mixture whose shares have the least loss over the deciles on the newest part of a history."""
    step_seconds = history.step_seconds
    past_steps = WINDOWS[step_seconds][-1]
    large = np.argsort(-mean_of_samples(history.usage))[:FITTED_SERIES]
    usage = history.usage[large]
    newest = history.steps - 1 - horizon_steps
    first = min(int(history.steps * (1 - FITTED_SHARE)), newest)
    ends = np.linspace(first, newest, FITTED_ORIGINS).round().astype(np.intp)
    past = np.concatenate([_window(usage, end, past_steps) for end in ends])
    rng = np.random.default_rng(seed)
    weights = np.empty((horizon_steps, past_steps))
    begin = 1
    for last in stretches(horizon_steps, step_seconds):
        ahead = sorted({begin, (begin + last) // 2, last})
        actual = np.stack([usage[:, ends + step].T.ravel() for step in ahead], axis=1)
        shares = _searched(past, actual, ahead, step_seconds, rng)
        for step in range(begin, last + 1):
            weights[step - 1] = shares @ _basis(past_steps, step_seconds, step)
        begin = last + 1
    return Mixture(weights)


def stretches(horizon_steps: int, step_seconds: int) -> tuple[int, ...]:
    """The last step of each stretch of the horizon that has shares of its own."""
    is_long = horizon_steps > LONG_STEPS or step_seconds == HOUR
    inside = (end for end in STRETCHES[step_seconds, is_long] if end < horizon_steps)
    return (*inside, horizon_steps)


def _basis(past_steps: int, step_seconds: int, ahead: int) -> FloatArray:
    """What a past step weighs for a share of one, [windows and time of day, past steps]."""
    lag = np.arange(past_steps - 1, -1, -1)
    rows = [np.where(lag < width, 1.0 / width, 0.0) for width in WINDOWS[step_seconds]]
    distance = (lag + ahead) * step_seconds
    days = np.maximum(np.round(distance / SECONDS_PER_DAY), 1)
    is_near = np.abs(distance - days * SECONDS_PER_DAY) <= SAME_TIME_SECONDS
    same_time = np.where(is_near, DAY_DECAY**days, 0.0)
    return np.stack([*rows, same_time / max(same_time.sum(), 1e-12)])


def _searched(
    past: FloatArray, actual: FloatArray, ahead: Sequence[int], step_seconds: int, rng: np.random.Generator
) -> FloatArray:
    """The best shares found, [windows and time of day]; `actual` is [rows, steps]."""
    order = np.argsort(past, axis=1)
    ordered = np.take_along_axis(past, order, axis=1)
    is_known = ~np.isnan(ordered)
    # Cumulative weight in the order of the samples, for a share of one: all windows, then each step's time of day.
    basis = [_basis(past.shape[1], step_seconds, step) for step in ahead]
    windows = np.stack([np.cumsum(row[order] * is_known, axis=1, dtype=np.float32) for row in basis[0][:-1]], axis=2)
    times = [np.cumsum(each[-1][order] * is_known, axis=1, dtype=np.float32) for each in basis]
    rows = np.flatnonzero(is_known.any(axis=1))

    def loss(shares: FloatArray) -> float:
        total = 0.0
        share = shares.astype(np.float32)
        common = windows @ share[:-1]
        for column, time in enumerate(times):
            reached = common + share[-1] * time
            wanted = reached[:, -1:] * DECILES.astype(np.float32)
            place = np.stack([np.searchsorted(reached[row], wanted[row]) for row in rows])
            found = np.take_along_axis(ordered[rows], np.minimum(place, past.shape[1] - 1), axis=1)
            gap = actual[rows, column, None] - found
            total += float(np.nansum(np.maximum(DECILES * gap, (DECILES - 1) * gap)))
        return total

    best = np.full(windows.shape[2] + 1, 1.0 / (windows.shape[2] + 1))
    least = loss(best)
    for _ in range(SEARCH_STEPS):
        child = best * np.exp(rng.standard_normal(len(best)))
        child /= child.sum()
        if (found := loss(child)) < least:
            best, least = child, found
    return best


def _window(usage: FloatArray, end: int, steps: int) -> FloatArray:
    """The steps up to and with `end`, [series, steps]; before the first there is no sample."""
    known = usage[:, max(end + 1 - steps, 0) : end + 1]
    return np.pad(known, ((0, 0), (steps - known.shape[1], 0)), constant_values=np.nan)
