"""Ridge regression of a series on its own past, against scikit-learn's with every row left out in turn."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from models.forecast import FloatArray, History, Target
from models.learned.ridge import MINIMUM_ROWS, PENALTIES, RidgeFourier, regressed
from tests.support.histories import a_history, daily_usage

LEVELS = (0.1, 0.5, 0.9)
HALF_HOUR, HOUR, DAY = 1800, 3600, 86_400
TRAILING_SECONDS = (900, 3600, 14_400, 86_400)


def slow_features(
    root: FloatArray, outcomes: FloatArray, history: History, moment: int, ahead: int, *, first: int
) -> list[float]:
    """What one moment knows of one step ahead; `root` and `outcomes` have no gaps."""
    step, day = history.step_seconds, DAY // history.step_seconds
    target = moment + ahead
    yesterday, week_ago = target, target
    while yesterday > moment:
        yesterday -= day
    while week_ago > moment:
        week_ago -= 7 * day
    found = [root[moment], outcomes[yesterday], outcomes[week_ago if week_ago >= first else yesterday]]
    for seconds in TRAILING_SECONDS:
        width = max(seconds // step, 1)
        found.append(float(np.mean(root[moment - width + 1 : moment + 1])))
    at = history.end_seconds - (len(root) - 1 - target) * step
    is_long = (len(root) - first) * step >= 14 * DAY
    for season, terms in ((DAY, 4), (7 * DAY, 2 if is_long else 0)):
        for term in range(1, terms + 1):
            found += [np.sin(2 * np.pi * term * at / season), np.cos(2 * np.pi * term * at / season)]
    return found


def left_out(inputs: FloatArray, outcome: FloatArray, penalty: float) -> FloatArray:
    """Each row's error by the regression on all others, refitted for each."""
    errors = np.empty(len(outcome))
    for row in range(len(outcome)):
        kept = np.arange(len(outcome)) != row
        model = Ridge(alpha=penalty * len(outcome)).fit(inputs[kept], outcome[kept])
        errors[row] = outcome[row] - model.predict(inputs[[row]])[0]
    return errors


def slow_regression(inputs: FloatArray, outcome: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slopes and, last, the intercept; and the leave-one-out errors."""
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
    unit = np.where(spread > 1e-6, spread, np.inf)
    scaled = (inputs - mean) / unit
    tried = [left_out(scaled, outcome, penalty) for penalty in PENALTIES]
    best = int(np.argmin([np.mean(errors**2) for errors in tried]))
    model = Ridge(alpha=PENALTIES[best] * len(outcome)).fit(scaled, outcome)
    slopes = model.coef_ / unit
    return np.append(slopes, model.intercept_ - slopes @ mean), tried[best]


def slow_quantile(errors: FloatArray, weights: FloatArray, level: float) -> float:
    """The smallest error at which the cumulative weight reaches the level."""
    order = np.argsort(errors)
    reached = np.cumsum(weights[order])
    return float(errors[order][np.argmax(reached >= level * reached[-1] * (1 - 1e-12))])


def slow_outcomes(usage: FloatArray, target: Target) -> FloatArray:
    """Usage itself, or the highest of the steps up to each if at least half of them were sampled."""
    if not target.is_peak:
        return usage
    found = np.full(len(usage), np.nan)
    for end in range(len(usage)):
        window = usage[max(end - target.steps + 1, 0) : end + 1]
        if 2 * np.sum(~np.isnan(window)) >= target.steps:
            found[end] = np.nanmax(window)
    return found


def without_gaps(values: FloatArray) -> FloatArray:
    """What is missing as the last before it."""
    filled = values.copy()
    for i in range(1, len(filled)):
        filled[i] = filled[i - 1] if np.isnan(filled[i]) else filled[i]
    return filled


def slow_ridge(history: History, target: Target, rows: int) -> FloatArray:
    """One series, one moment and one row at a time; a regression of their own for some steps ahead, or for a peak."""
    step, day = history.step_seconds, DAY // history.step_seconds
    largest, now = np.nanmax(history.usage), history.steps - 1
    usage = np.sqrt(history.usage[0] / largest)
    outcomes = slow_outcomes(usage, target)
    known, first = ~np.isnan(outcomes), int(np.argmax(~np.isnan(outcomes)))
    root, filled = without_gaps(usage), without_gaps(outcomes)
    asked = [300, 1200, 3600, *range(7200, target.steps * step, 7200)]
    knots = sorted({min(-(-seconds // step), target.steps) for seconds in asked if not target.is_peak} | {target.steps})
    coefficients, quantiles = [], []
    for knot in knots:
        latest = now - target.steps
        thinned = range(latest, day - 1, -max((28 * DAY // step - 1 - target.steps - day) // rows, 1))[::-1]
        moments = [m for m in thinned if m - day >= first and not np.isnan(usage[m]) and known[m + knot]]
        inputs = np.asarray([slow_features(root, filled, history, m, knot, first=first) for m in moments])
        slopes, errors = slow_regression(inputs, np.asarray([outcomes[m + knot] for m in moments]))
        hours_apart = [min(s := (now - m) * step % DAY, DAY - s) / 3600 for m in moments]
        weights = np.exp(-0.5 * (np.asarray(hours_apart) / 3) ** 2)
        coefficients.append(slopes)
        quantiles.append([slow_quantile(errors, weights, level) for level in LEVELS])
    made = np.empty((len(LEVELS), len(target.ahead)))
    for column, ahead in enumerate(target.ahead.tolist()):
        slopes = np.asarray([np.interp(ahead, knots, each) for each in np.transpose(coefficients)])
        mean = slopes @ [*slow_features(root, filled, history, now, ahead, first=first), 1.0]
        for row in range(len(LEVELS)):
            error = np.interp(ahead, knots, [each[row] for each in quantiles])
            made[row, column] = np.clip(mean + error, 0, np.sqrt(2)) ** 2 * largest
    return made


@pytest.mark.parametrize(
    ("step_seconds", "days", "target"),
    [
        (HALF_HOUR, 3.5, Target(1)),
        (HALF_HOUR, 4, Target(6)),
        (8 * HOUR, 26, Target(4)),
        (HOUR, 15, Target(3)),
        (HALF_HOUR, 5, Target(7, is_peak=True)),
        (HOUR, 16, Target(30, is_peak=True)),
    ],
)
def test_ridge_is_scikit_learns_with_each_row_left_out(step_seconds: int, days: float, target: Target) -> None:
    """With samples missing, a late start, beyond a day, with and without weekly terms, for steps and for peaks."""
    usage = daily_usage(series=1, days=days, step_seconds=step_seconds, noise=0.2, seed=int(days))[0]
    usage[np.random.default_rng(1).random(usage.size) < 0.05] = np.nan
    usage[:5], usage[5], usage[-1] = np.nan, 1.0, usage[np.flatnonzero(~np.isnan(usage))[-2]]
    history = a_history(usage, step_seconds=step_seconds)

    made = RidgeFourier(rows=700).predict(history, target, LEVELS).values[0]

    slow = slow_ridge(history, target, rows=700)
    np.testing.assert_allclose(made, np.sort(slow, axis=0), rtol=2e-3, atol=1e-4 * np.nanmax(usage))


def test_errors_are_those_of_rows_left_out() -> None:
    """In closed form as by refitting, for each of several series, rows that are none left aside."""
    rng = np.random.default_rng(0)
    features, noise = rng.normal(size=(3, 4, 40)), rng.normal(size=(3, 40))
    target = features[:, 0] - 2 * features[:, 1] + noise
    is_row = rng.random((3, 40)) < 0.8

    made = regressed(features, np.where(is_row, target, np.nan), is_row)

    for series in range(3):
        rows = is_row[series]
        slopes, errors = slow_regression(features[series][:, rows].T, target[series, rows])
        np.testing.assert_allclose(made.errors[series, rows], errors)
        np.testing.assert_allclose([*made.slopes[series], made.intercept[series]], slopes)
    assert np.isnan(made.errors[~is_row]).all()


def test_a_rhythm_is_continued() -> None:
    """Two weeks of a daily wave with little noise: the median follows it in a narrow band."""
    whole = daily_usage(series=1, days=15, step_seconds=HALF_HOUR, noise=0.05)[0]
    clean = daily_usage(series=1, days=15, step_seconds=HALF_HOUR, noise=0.0)[0]

    made = RidgeFourier().predict(a_history(whole[:-48], step_seconds=HALF_HOUR), Target(48), LEVELS).values[0]

    assert np.abs(made[1] - clean[-48:]).mean() < 0.04 * clean.mean()
    assert (made[2] - made[0]).mean() < 0.3 * clean.mean()


def test_too_little_past_gives_its_quantiles() -> None:
    """A day and a few rows: nothing can be regressed on them."""
    usage = daily_usage(series=1, days=1, step_seconds=HOUR)
    usage = np.concatenate([usage, usage], axis=1)
    assert usage.size - DAY // HOUR < MINIMUM_ROWS

    made = RidgeFourier().predict(a_history(usage, step_seconds=HOUR), Target(4), LEVELS).values[0]

    np.testing.assert_allclose(made, np.repeat(np.quantile(usage, LEVELS)[:, None], 4, axis=1))


def test_a_steep_trend_is_capped() -> None:
    """A regression may run away; its forecast stays within twice what was ever seen."""
    usage = np.arange(48.0 * 5) ** 6

    history = a_history(usage, step_seconds=HALF_HOUR)

    made = RidgeFourier().predict(history, Target(200), (0.5, 0.999)).values
    lower = RidgeFourier(cap_factor=0.5).predict(history, Target(4), (0.5,)).values

    assert made.max() <= 2.0 * usage.max() * (1 + 1e-12)
    np.testing.assert_allclose(lower, 0.5 * usage.max())


def test_a_series_alone_is_forecast_as_in_company() -> None:
    """Chunks never mix series, whatever each lacks."""
    usage = daily_usage(series=20, days=16)
    usage[3, :600] = np.nan
    usage[7, :-30] = np.nan
    usage[11, ::7] = np.nan

    together = RidgeFourier().predict(a_history(usage), Target(8), LEVELS).values

    alone = [RidgeFourier().predict(a_history(row), Target(8), LEVELS).values[0] for row in usage]
    np.testing.assert_array_equal(together, np.stack(alone))
