"""A made-up fleet of any size: what the speed of forecasts is measured on. NumPy only, as the peers read it too."""

import numpy as np
from numpy.typing import NDArray

DAY_SECONDS = 86_400
BLOCK = 240
"""Series that share a seed, so that a larger fleet begins with the smaller one."""
KINDS = 6
MISSING = 0.005
"""Share of samples that are missing."""


def synthetic_usage(series: int, *, days: int = 28, step_seconds: int = 300, seed: int = 0) -> NDArray[np.float64]:
    """Usage in cores, [series, steps]: rhythms of days and weeks, batch, bursts, idleness and drift in turn."""
    steps = days * DAY_SECONDS // step_seconds
    usage = np.empty((series, steps))
    for start in range(0, series, BLOCK):
        part = usage[start : start + BLOCK]
        rng = np.random.default_rng([seed, start // BLOCK])
        part[:] = _block(rng, steps, step_seconds)[: len(part)]
    return usage


def _block(rng: np.random.Generator, steps: int, step_seconds: int) -> NDArray[np.float64]:
    usage = np.empty((BLOCK, steps))
    each = BLOCK // KINDS
    days = np.arange(steps) * step_seconds / DAY_SECONDS
    phase, noise = rng.uniform(0, 1, (each, 1)), rng.standard_normal((3, each, steps))
    rhythm = 1.5 + np.sin(2 * np.pi * (days + phase))
    period = rng.integers(20, 200, (each, 1))
    usage[0::KINDS] = rhythm * np.exp(0.1 * noise[0])
    usage[1::KINDS] = rhythm * np.where(days % 7 < 5, 1.0, 0.4) * np.exp(0.2 * noise[1])
    usage[2::KINDS] = np.where(np.arange(steps) % period < period // 3, 4.0, 0.1)
    usage[3::KINDS] = np.where(rng.random((each, steps)) < 0.03, rng.uniform(1, 3, (each, steps)), 0.0)
    usage[4::KINDS] = 0.01 * rng.integers(0, 2, (each, steps))
    usage[5::KINDS] = np.exp(0.02 * np.cumsum(noise[2], axis=1))
    usage *= 4.0 ** rng.uniform(-3, 2, (BLOCK, 1))
    usage[rng.random(usage.shape) < MISSING] = np.nan
    return usage
