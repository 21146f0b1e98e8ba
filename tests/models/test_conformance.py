"""The contract that every forecaster in the catalogue keeps, one suite for all of them."""

import json
from functools import cache

import numpy as np
import pytest

from models import catalog
from models.forecast import DEFAULT_LEVELS, Forecaster, ForecastError, ForecasterState, History, Target
from tests.support.histories import STEP_SECONDS, a_history, daily_usage, mixed_usage

SMALL = {"lightgbm_quantiles": {"rounds": 12, "maximum_rows": 3000, "threads": 1}}
STEPS, PEAK = Target(16), Target(12, is_peak=True)
every_forecaster = pytest.mark.parametrize("name", catalog.names())
every_target = pytest.mark.parametrize("target", [STEPS, PEAK], ids=["steps", "peak"])


def a_forecaster(name: str) -> Forecaster:
    return catalog.create(name, **SMALL.get(name, {}))


@cache
def a_fitted(name: str, target: Target = STEPS) -> Forecaster:
    return a_forecaster(name).fit(a_history(mixed_usage()), target)


def values(
    name: str, history: History, target: Target = STEPS, levels: tuple[float, ...] = DEFAULT_LEVELS
) -> np.ndarray:
    return a_fitted(name, target).predict(history, target, levels).values


@every_forecaster
@pytest.mark.parametrize("horizon_steps", [1, 7, 200])
@pytest.mark.parametrize("levels", [(0.5,), DEFAULT_LEVELS, (0.01, 0.3, 0.7, 0.999)])
def test_quantiles_are_finite_positive_and_never_cross(
    name: str, horizon_steps: int, levels: tuple[float, ...]
) -> None:
    """At any levels and horizon a series with samples has a forecast that is a distribution."""
    history = a_history(mixed_usage(seed=1))

    made = a_fitted(name).predict(history, Target(horizon_steps), levels)

    assert made.values.shape == (history.series_count, len(levels), horizon_steps)
    assert made.levels == levels
    assert (made.cutoff_seconds, made.step_seconds) == (history.end_seconds, history.step_seconds)
    assert np.isfinite(made.values).all()
    assert (made.values >= 0).all()
    assert (np.diff(made.values, axis=1) >= 0).all()


@every_forecaster
def test_a_peak_is_one_outcome_that_covers_its_window(name: str) -> None:
    """One value per level, finite, and at the upper levels no less than the same forecaster says of the last step."""
    history = a_history(mixed_usage(seed=1))

    made = a_fitted(name, PEAK).predict(history, PEAK, DEFAULT_LEVELS)

    assert made.values.shape == (history.series_count, len(DEFAULT_LEVELS), 1)
    assert np.isfinite(made.values).all()
    assert (np.diff(made.values, axis=1) >= 0).all()
    assert made.times.tolist() == [history.end_seconds + PEAK.steps * STEP_SECONDS]
    step = values(name, history)[:, :, PEAK.steps - 1]
    assert made.values.mean() > step.mean()


@every_forecaster
@every_target
def test_a_series_without_samples_has_no_forecast_and_disturbs_no_other(name: str, target: Target) -> None:
    """All NaN in, all NaN out; its neighbours are forecast as if it were not there."""
    usage = mixed_usage()
    with_empty = np.insert(usage, 2, np.nan, axis=0)

    made = values(name, a_history(with_empty), target)

    assert np.isnan(made[2]).all()
    np.testing.assert_array_equal(np.delete(made, 2, axis=0), values(name, a_history(usage), target))


@every_forecaster
@every_target
def test_gaps_are_lived_with(name: str, target: Target) -> None:
    """A fifth of the samples missing, and the newest hour: still a forecast near what is there."""
    usage = daily_usage(noise=0.02)
    holes = usage.copy()
    holes[np.random.default_rng(3).random(usage.shape) < 0.2] = np.nan
    holes[:, -4:] = np.nan

    whole, torn = values(name, a_history(usage), target), values(name, a_history(holes), target)

    assert np.isfinite(torn).all()
    assert np.abs(torn - whole).mean() < 0.25 * whole.mean()


@every_forecaster
@every_target
def test_nothing_after_the_cutoff_is_seen(name: str, target: Target) -> None:
    """Whatever happens after the cutoff, the forecast from it is the same to the bit."""
    usage = mixed_usage()
    cut = usage.shape[1] - 100
    other = usage.copy()
    other[:, cut:] = 1e6
    cutoff = a_history(usage[:, :cut]).end_seconds

    made = values(name, a_history(usage).until(cutoff), target)

    np.testing.assert_array_equal(made, values(name, a_history(other).until(cutoff), target))
    np.testing.assert_array_equal(made, values(name, a_history(usage[:, :cut]), target))


@every_forecaster
@every_target
def test_fitting_sees_nothing_after_the_history(name: str, target: Target) -> None:
    """Two histories that are the same up to a cutoff give the same fitted forecaster there."""
    usage = mixed_usage()
    other = usage.copy()
    other[:, -50:] = 7.0
    cutoff = a_history(usage[:, :-50]).end_seconds

    one = a_forecaster(name).fit(a_history(usage).until(cutoff), target).to_state()
    two = a_forecaster(name).fit(a_history(other).until(cutoff), target).to_state()

    assert one.texts == two.texts


@every_forecaster
@every_target
@pytest.mark.parametrize("factor", [2.0**20, 2.0**-10])
def test_another_unit_scales_the_forecast(name: str, target: Target, factor: float) -> None:
    """Usage times a power of two gives the forecast times it, to the bit: cores or millicores, bytes or GiB."""
    usage = mixed_usage()

    np.testing.assert_array_equal(
        values(name, a_history(usage * factor), target), values(name, a_history(usage), target) * factor
    )


@every_forecaster
@every_target
def test_any_factor_scales_the_forecast(name: str, target: Target) -> None:
    """Another factor too, within one histogram bucket (5 %): its rounding may move a sample over a bound."""
    usage = mixed_usage()

    np.testing.assert_allclose(
        values(name, a_history(usage * 0.3), target), values(name, a_history(usage), target) * 0.3, rtol=0.051
    )


@every_forecaster
@every_target
def test_the_order_of_series_does_not_matter(name: str, target: Target) -> None:
    """Neither to a forecast nor to what is learned."""
    usage = mixed_usage()
    order = np.random.default_rng(5).permutation(len(usage))

    shuffled = a_forecaster(name).fit(a_history(usage[order]), target)

    assert shuffled.to_state().texts == a_fitted(name, target).to_state().texts
    made = shuffled.predict(a_history(usage[order]), target, DEFAULT_LEVELS).values
    np.testing.assert_array_equal(made, values(name, a_history(usage), target)[order])


@every_forecaster
@every_target
def test_the_past_beyond_four_weeks_does_not_matter(name: str, target: Target) -> None:
    """A controller that reads 28 days forecasts what the training pipeline, which reads more, forecasts."""
    history = a_history(mixed_usage(days=32))
    four_weeks = 28 * 86_400 // STEP_SECONDS

    np.testing.assert_array_equal(values(name, history, target), values(name, history.last(four_weeks), target))


@every_forecaster
@every_target
def test_time_before_anything_was_sampled_does_not_matter(name: str, target: Target) -> None:
    """A predictor asks for four weeks of a cluster that is two weeks old and gets the rest as missing."""
    history = a_history(mixed_usage())
    padded = np.pad(history.usage, ((0, 0), (16 * 86_400 // STEP_SECONDS, 0)), constant_values=np.nan)

    made = values(name, History(padded, history.end_seconds, STEP_SECONDS), target)

    # Its sums over more rows, all but some of weight zero, round otherwise.
    margin = 1e-5 if name == "ridge_fourier" else 0.0
    np.testing.assert_allclose(made, values(name, history, target), rtol=margin)


@every_forecaster
@every_target
def test_state_brings_back_the_same_forecaster(name: str, target: Target) -> None:
    """Through JSON and text and back: the same forecast to the bit, and the same state."""
    state = a_fitted(name, target).to_state()
    stored = ForecasterState(json.loads(json.dumps(state.parameters)), state.arrays, state.texts)

    back = catalog.from_state(name, stored)

    history = a_history(mixed_usage(seed=4))
    np.testing.assert_array_equal(
        back.predict(history, target, (0.2, 0.9)).values, values(name, history, target, (0.2, 0.9))
    )
    assert json.dumps(back.to_state().parameters) == json.dumps(state.parameters)


@every_forecaster
@every_target
def test_fitting_twice_gives_the_same_to_the_bit(name: str, target: Target) -> None:
    """No dice but the seeded ones."""
    again = a_forecaster(name).fit(a_history(mixed_usage()), target)

    assert again.to_state() == a_fitted(name, target).to_state()


@every_forecaster
@every_target
def test_a_constant_series_stays_constant(name: str, target: Target) -> None:
    """At the very value, or at most one histogram bucket (5 %) above it."""
    made = values(name, a_history(np.full((1, 800), 3.0)), target)

    assert (made >= 3.0 * (1 - 1e-9)).all()
    assert (made <= 3.0 * 1.051).all()


@every_forecaster
@every_target
def test_an_idle_series_stays_idle(name: str, target: Target) -> None:
    """Zeros in, zeros out, not a small positive number."""
    assert (values(name, a_history(np.zeros((1, 800))), target) == 0).all()


@every_forecaster
@every_target
@pytest.mark.parametrize("steps", [1, 2, 12, 97])
def test_a_workload_born_just_now_has_a_forecast(name: str, target: Target, steps: int) -> None:
    """One sample is enough for the contract, and the forecast stays within sight of what was seen."""
    usage = daily_usage(days=12)[:, :steps]

    made = values(name, a_history(usage), target)

    assert np.isfinite(made).all()
    assert (made <= 3 * usage.max(axis=1)[:, None, None]).all()


@every_forecaster
@pytest.mark.parametrize("levels", [(), (0.0,), (0.5, 1.0), (0.9, 0.5), (0.5, 0.5)])
def test_impossible_levels_are_refused(name: str, levels: tuple[float, ...]) -> None:
    """Levels that are not ascending inside (0, 1) are named."""
    with pytest.raises(ForecastError, match="levels must ascend"):
        a_fitted(name).predict(a_history(daily_usage()), Target(4), levels)


@every_forecaster
def test_an_empty_horizon_is_refused(name: str) -> None:
    """There is no forecast of nothing."""
    with pytest.raises(ForecastError, match="at least one step"):
        a_fitted(name).predict(a_history(daily_usage()), Target(0), (0.5,))


@every_forecaster
def test_a_foreign_state_is_refused(name: str) -> None:
    """What some other forecaster wrote is not half-read."""
    with pytest.raises(ForecastError, match="no state of"):
        catalog.from_state(name, ForecasterState({"depth": 3}))


def test_an_unknown_forecaster_is_named_with_those_that_exist() -> None:
    """A typing error in the settings tells what could have been meant."""
    with pytest.raises(ForecastError, match=r"no forecaster 'prophet'; there are seasonal_naive, .*lightgbm"):
        catalog.create("prophet")


def test_an_unknown_parameter_is_named() -> None:
    """So does one in a parameter."""
    with pytest.raises(ForecastError, match=r"seasonal_naive does not take these parameters.*period"):
        catalog.create("seasonal_naive", period=3)
