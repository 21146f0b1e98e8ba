"""Peers that are no forecasters of ours, as their publishers define them."""

from statistics import NormalDist

import numpy as np

from models.forecast import SECONDS_PER_DAY, FloatArray, History, carried_forward


def gaussian_seasonal_naive(history: History, horizon_steps: int, levels: tuple[float, ...]) -> FloatArray:
    """Yesterday's value, spread by the normal quantiles of its own past errors, [series, levels, steps].

    As statsforecast's SeasonalNaive, which GIFT-Eval divides by: σ² is the mean squared seasonal difference over all
    past, and grows with each season ahead, σ √(k + 1). Negative quantiles are left as they are. Where yesterday's
    sample is missing the last one stands in.
    """
    season = SECONDS_PER_DAY // history.step_seconds
    usage = carried_forward(history.usage)
    past = usage[:, -season:]
    point = past[:, np.arange(horizon_steps) % past.shape[1]]
    errors = history.usage[:, season:] - history.usage[:, :-season]
    known = ~np.isnan(errors)
    squares = np.sum(np.where(known, errors, 0.0) ** 2, axis=1)
    sigma = np.sqrt(squares / np.maximum(known.sum(axis=1), 1))
    grown = sigma[:, None] * np.sqrt(np.arange(horizon_steps) // season + 1)
    normal = np.asarray([NormalDist().inv_cdf(level) for level in levels])
    return np.asarray(point[:, None, :] + normal[None, :, None] * grown[:, None, :])
