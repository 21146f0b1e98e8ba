"""How much of a figure may be chance: bootstrap intervals over series (Efron 1979). Pure: dice are arguments."""

from dataclasses import dataclass

import numpy as np

from models.forecast import FloatArray

RESAMPLES = 500
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with the 95 % interval that it has if other series like these had been drawn; NaN is not measured."""

    value: float
    low: float
    high: float


NOT_MEASURED = Estimate(float("nan"), float("nan"), float("nan"))


def resampled(series: int, rng: np.random.Generator) -> FloatArray:
    """How often each series is drawn in each resample, [resamples, series]."""
    return rng.multinomial(series, np.full(series, 1 / series), RESAMPLES).astype(np.float64)


def ratio_of_sums(over: FloatArray, under: FloatArray, drawn: FloatArray) -> Estimate:
    """Σ over ÷ Σ under with its interval; both are [series]. Draws in which nothing is below the line are left out."""
    total = under.sum()
    if total <= 0:
        return NOT_MEASURED
    below = drawn @ under
    ratios = (drawn @ over)[below > 0] / below[below > 0]
    low, high = np.quantile(ratios, INTERVAL)
    return Estimate(float(over.sum() / total), float(low), float(high))


def mean_of_known(values: FloatArray, drawn: FloatArray) -> Estimate:
    """Mean over the series that have a value, [series], with its interval; NaN is no value."""
    known = ~np.isnan(values)
    return ratio_of_sums(np.where(known, values, 0.0), known.astype(np.float64), drawn)


def geometric_mean_of_known(values: FloatArray, drawn: FloatArray) -> Estimate:
    """Geometric mean over the series that have a value above 0, [series], with its interval; NaN is no value."""
    mean = mean_of_known(np.log(values), drawn)
    return Estimate(*np.exp((mean.value, mean.low, mean.high)).tolist())


def median_of_known(values: FloatArray, drawn: FloatArray) -> Estimate:
    """Median over the series that have a value, [series], with its interval; NaN is no value."""
    known = ~np.isnan(values)
    if not known.any():
        return NOT_MEASURED
    order = np.flatnonzero(known)[np.argsort(values[known])]
    ascending, counted = values[order], drawn[:, order].cumsum(axis=1)
    counted = counted[counted[:, -1] > 0]
    half = counted[:, -1:] / 2
    middle = (ascending[(counted >= half).argmax(axis=1)] + ascending[(counted > half).argmax(axis=1)]) / 2
    low, high = np.quantile(middle, INTERVAL)
    return Estimate(float(np.median(ascending)), float(low), float(high))
