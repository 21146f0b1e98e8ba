"""Forecasts of the steps and of peaks that do not contradict each other. Pure.

The highest usage of a window is at least that of any part of it, so its quantile is too, at the same level. Each target
is learned by itself, and on little past a peak of a day may come out below that of an hour.
"""

from collections.abc import Sequence

import numpy as np

from models.forecast import BoolArray, FloatArray, Target


def lifted(values: Sequence[FloatArray], targets: Sequence[Target], is_cold: BoolArray) -> list[FloatArray]:
    """Quantiles of the same series at the same levels, [series, levels, outcomes] of each target, with no peak below
    that of a shorter window, nor, of a cold series, below a step within its own. What is no number stays so.

    Only a cold series is held to the steps: that of the others costs accuracy (docs/forecasting.md).
    """
    found: list[FloatArray] = []
    for made, target in zip(values, targets, strict=True):
        least = np.full(made.shape, -np.inf)
        for other, its in zip(values, targets, strict=True):
            if not target.is_peak or (its.is_peak and its.steps >= target.steps):
                continue
            highest = np.fmax.reduce(other[:, :, : target.steps], axis=2, keepdims=True)
            least = np.fmax(least, highest if its.is_peak else np.where(is_cold[:, None, None], highest, -np.inf))
        found.append(np.where(np.isnan(made), made, np.fmax(made, least)))
    return found
