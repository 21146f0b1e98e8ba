"""The bundle: each series by its own forecaster and calibration, and an honest answer where there is none."""

from dataclasses import replace

import numpy as np
import pytest

from models import catalog
from models.forecast import ForecastError, Target
from predictor.serving.bundle import MINIMUM_SAMPLES, NoForecast, SeriesForecast, SeriesModel, Served
from predictor.usage.panel import Resource, SeriesKey
from tests.support.bundles import LEVELS, a_bundle, some_usage
from tests.support.histories import daily_usage
from tests.support.panels import a_panel


def test_each_series_is_served_by_the_forecaster_chosen_for_it() -> None:
    """And nothing else is done to it where it is not calibrated."""
    panel = some_usage()

    made = a_bundle().forecast(panel)

    for row, name in enumerate(("seasonal_naive", "decaying_histogram")):
        alone = catalog.create(name).predict(panel.history().select([row]), Target(8), LEVELS)
        np.testing.assert_array_equal(made.forecast.values[row], alone.values[0])
        assert made.outcomes[row] == Served(name, False, "a test's")


def test_a_quantile_is_asked_for_at_the_level_that_covers_it() -> None:
    """Where .9 covered only .85 and .933 would have covered .9, that is what .9 is answered with."""
    panel, bundle = some_usage(), a_bundle(0.85)

    made = bundle.forecast(panel).forecast.values

    asked = float(np.interp(0.9, (0.85, 1.0), (0.9, 1.0)))
    np.testing.assert_allclose(bundle.asked_levels(Resource.CPU, panel.keys, LEVELS)[:, :, 1], asked)
    grid = bundle.calibrations[Resource.CPU].levels
    plain = a_bundle().forecast(panel, levels=grid).forecast.values
    expected = [np.interp(asked, grid, plain[row, :, step]) for row in range(2) for step in range(8)]
    np.testing.assert_allclose(made[:, 1], np.reshape(expected, (2, 8)))


def test_a_series_is_addressed_by_its_name() -> None:
    """With the times, the level asked for, and why it is served so."""
    panel = some_usage()
    key = panel.keys[1]

    found = a_bundle().forecast(panel).of(key)

    assert isinstance(found, SeriesForecast)
    assert found.key == key
    assert found.cutoff_seconds == panel.end_seconds
    assert found.served.reason == "a test's"
    np.testing.assert_array_equal(found.at(0.9), found.values[1])
    with pytest.raises(KeyError, match=r"level 0.7 was not forecast; there are 0.5, 0.9"):
        found.at(0.7)


def test_an_unknown_workload_is_served_cold() -> None:
    """By seasonal naive, uncalibrated, and it says so; a resource the model never saw as well."""
    unknown = a_panel(daily_usage(series=1), resource=Resource.MEMORY, names=("new/Deployment/one",))

    made = a_bundle(0.5).forecast(unknown)

    found = made.of(unknown.keys[0])
    assert isinstance(found, SeriesForecast)
    assert found.served.is_cold
    assert found.served.forecaster == "seasonal_naive"
    assert found.served.reason.startswith("cold: ")
    plain = catalog.create("seasonal_naive").predict(unknown.history(), Target(8), LEVELS)
    np.testing.assert_array_equal(found.values, plain.values[0])


@pytest.mark.parametrize("samples", [0, 3, MINIMUM_SAMPLES - 1])
def test_too_little_history_is_no_forecast_with_a_reason(samples: int) -> None:
    """Not a zero, and the neighbours are served all the same."""
    panel = some_usage()
    usage = panel.usage.copy()
    usage[0, : usage.shape[1] - samples] = np.nan

    made = a_bundle().forecast(replace(panel, usage=usage))

    outcome = made.of(panel.keys[0])
    assert outcome == NoForecast(f"too little history: {samples} samples, 12 are needed")
    assert np.isnan(made.forecast.values[0]).all()
    assert np.isfinite(made.forecast.values[1]).all()


def test_a_series_that_was_not_observed_has_no_forecast() -> None:
    """Asking for what is not in the panel is answered, not raised."""
    missing = SeriesKey("shop/Deployment/gone", Resource.CPU)

    assert a_bundle().forecast(some_usage()).of(missing) == NoForecast(f"no usage of {missing} was observed")


def test_the_order_of_the_panel_does_not_matter() -> None:
    """Row i of the answer belongs to row i of the panel, whatever the order."""
    panel = some_usage()

    turned = a_bundle(0.2).forecast(panel.select([1, 0])).forecast.values

    np.testing.assert_array_equal(turned, a_bundle(0.2).forecast(panel).forecast.values[[1, 0]])


def test_other_levels_and_horizons_may_be_asked_for() -> None:
    """Between the calibrated levels the offset lies between theirs; quantiles still do not cross."""
    panel = some_usage()

    made = a_bundle(0.2).forecast(panel, Target(3), levels=(0.3, 0.7, 0.9, 0.97)).forecast

    assert made.values.shape == (2, 4, 3)
    assert (np.diff(made.values, axis=1) >= 0).all()
    np.testing.assert_array_equal(made.values[:, 2], a_bundle(0.2).forecast(panel).forecast.values[:, 1, :3])


def test_impossible_questions_are_refused() -> None:
    """A horizon of nothing, levels out of order, another grid."""
    panel = some_usage()
    with pytest.raises(ForecastError, match="at least one step"):
        a_bundle().forecast(panel, Target(0))
    with pytest.raises(ForecastError, match="must ascend"):
        a_bundle().forecast(panel, levels=(0.9, 0.5))
    with pytest.raises(ForecastError, match="steps of 900 s and cannot forecast steps of 300 s"):
        a_bundle().forecast(replace(panel, step_seconds=300))


def test_an_empty_panel_has_an_empty_forecast() -> None:
    """No workloads are no error."""
    made = a_bundle().forecast(some_usage().select([]))

    assert made.keys == ()
    assert made.forecast.values.shape == (0, 2, 8)


def test_a_bundle_that_does_not_fit_together_cannot_be_made() -> None:
    """Each series needs a forecaster that is there, a calibration for each series, and scores that are numbers."""
    bundle = a_bundle()
    key = next(iter(bundle.series))

    def with_model(**changes: object) -> None:
        replace(bundle, series={key: replace(bundle.series[key], **changes)})  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="'lightgbm_quantiles', which the bundle does not hold"):
        with_model(forecaster="lightgbm_quantiles")
    with pytest.raises(ValueError, match="calibration of cpu needs 1 series, got 2"):
        replace(a_bundle(0.9), series={key: bundle.series[key]})
    with pytest.raises(ValueError, match="scores that are no numbers"):
        with_model(scores={"pinball": float("nan")})
    other = SeriesKey("shop/Deployment/other", Resource.CPU)
    with pytest.raises(ValueError, match=f"the model of {key} stands under {other}"):
        replace(bundle, series={other: SeriesModel(key, "seasonal_naive")})
