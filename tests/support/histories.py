"""Builders of series: small, seeded, with the shapes that real usage has."""

import numpy as np

from models.forecast import SECONDS_PER_DAY, FloatArray, History

MONDAY = 1_767_571_200
"""2026-01-05 00:00 UTC."""
STEP_SECONDS = 900


def a_history(usage: FloatArray, *, step_seconds: int = STEP_SECONDS, start_seconds: int = MONDAY) -> History:
    """A history of the given usage, [series, steps] or one series as [steps], starting on a Monday at midnight."""
    wide = np.atleast_2d(np.asarray(usage, dtype=np.float64))
    return History(wide, start_seconds + (wide.shape[1] - 1) * step_seconds, step_seconds)


def daily_usage(
    *, series: int = 4, days: float = 12, step_seconds: int = STEP_SECONDS, noise: float = 0.1, seed: int = 0
) -> FloatArray:
    """Usage with a daily rhythm, of another size and phase for each series, [series, steps]; always above zero."""
    rng = np.random.default_rng(seed)
    steps = int(days * SECONDS_PER_DAY / step_seconds)
    turn = 2 * np.pi * np.arange(steps) * step_seconds / SECONDS_PER_DAY
    size = 4.0 ** np.arange(series)[:, None] / 10
    phase = rng.uniform(0, 2 * np.pi, (series, 1))
    rhythm = 1.5 + np.sin(turn + phase)
    return np.asarray(size * rhythm * np.exp(noise * rng.standard_normal((series, steps))))


def bursty_usage(*, series: int = 2, days: float = 12, step_seconds: int = STEP_SECONDS, seed: int = 0) -> FloatArray:
    """Mostly idle usage with exact zeros and short bursts, [series, steps]."""
    rng = np.random.default_rng(seed)
    steps = int(days * SECONDS_PER_DAY / step_seconds)
    return np.asarray(np.where(rng.random((series, steps)) < 0.05, rng.uniform(1, 3, (series, steps)), 0.0))


def mixed_usage(*, days: float = 12, seed: int = 0) -> FloatArray:
    """What a small fleet looks like, [8, steps]: rhythms, bursts, a gap of a day, one constant, one late start."""
    usage = np.concatenate([daily_usage(days=days, seed=seed), bursty_usage(days=days, seed=seed)])
    day = SECONDS_PER_DAY // STEP_SECONDS
    usage[1, -3 * day : -2 * day] = np.nan
    constant = np.full((1, usage.shape[1]), 2.5)
    late = usage[:1] * 0.3
    late[:, : -day - day // 2] = np.nan
    return np.concatenate([usage, constant, late])
