"""What is served for series that are hard to forecast: properties of the final quantiles, all forecasters together."""

from functools import cache

import numpy as np
import pytest

from models.forecast import FloatArray
from pipelines.steps.choose import made_bundle
from pipelines.steps.fit import fitted
from pipelines.steps.plan import Plan, planned, question_of
from pipelines.steps.prepare import prepared
from pipelines.steps.split import split_in_time
from predictor.serving.bundle import LARGEST_MULTIPLE, Bundle, SeriesForecast
from predictor.usage.panel import Resource, SeriesKey
from tests.support.histories import daily_usage
from tests.support.panels import DAY_STEPS, a_panel, a_settings

DAYS = 16
STEPS = DAYS * DAY_STEPS
HOUR_STEPS = DAY_STEPS // 24
LEVELS = (0.5, 0.9, 0.95, 0.99)


def the_series() -> dict[str, FloatArray]:
    """Every kind of hard series by name, [steps]."""
    rng = np.random.default_rng(1)
    step = np.arange(STEPS)
    rhythm = daily_usage(series=1, days=DAYS, seed=5)[0] * 10
    noise = np.exp(0.05 * rng.standard_normal(STEPS))
    bursts = rng.uniform(1, 3, STEPS)
    holes = rng.random(STEPS) < 0.3
    holes[-4 * DAY_STEPS : -3 * DAY_STEPS] = True
    holes[-2 * HOUR_STEPS :] = True
    return {
        "idle": np.zeros(STEPS),
        "constant": np.full(STEPS, 2.5),
        "rarely": np.where(rng.random(STEPS) < 0.05, bursts, 0.0),
        "at times": np.where(rng.random(STEPS) < 0.3, bursts, 0.0),
        "by schedule": np.where(step % DAY_STEPS < DAY_STEPS // 4, 8.0, 0.0),
        "on and off": np.repeat(rng.random(STEPS // 8) < 0.35, 8) * 8.0,
        "before": 1.0 * noise,
        "2 h after": np.where(step >= STEPS - 2 * HOUR_STEPS, 6.0, 1.0) * noise,
        "4 h after": np.where(step >= STEPS - 4 * HOUR_STEPS, 6.0, 1.0) * noise,
        "12 h after": np.where(step >= STEPS - 12 * HOUR_STEPS, 6.0, 1.0) * noise,
        "leak": 1.0 + 10.0 * step / STEPS,
        "noisy leak": (1.0 + 10.0 * step / STEPS) * np.exp(0.02 * rng.standard_normal(STEPS)),
        "whole": rhythm,
        "torn": np.where(holes, np.nan, rhythm),
        "throttled": np.minimum(rhythm, 2.0),
    }


@cache
def a_plan() -> Plan:
    """These and a small growing fleet, whose misses are all to the same side."""
    growing = daily_usage(series=6, days=DAYS, seed=9) * 1.04 ** (np.arange(STEPS) / DAY_STEPS)
    names = (*(f"hard/Deployment/{name}" for name in the_series()), *(f"shop/Deployment/w{n}" for n in range(6)))
    settings = a_settings(calibration="4d", rehearsals=24)
    panel = prepared(a_panel(np.concatenate([np.stack(list(the_series().values())), growing]), names=names)).panel
    question = question_of(settings)
    return planned(panel, split_in_time(panel, question.horizon_steps, settings.training), question, settings.training)


@cache
def a_bundle() -> Bundle:
    """Trained, and then serving hour by hour up to the end of the history."""
    plan = a_plan()
    bundle = made_bundle(plan, fitted(plan))
    for hours in range(48, -1, -1):
        cutoff = plan.panel.end_seconds - hours * 3600
        bundle = bundle.learned(plan.panel.keys, plan.panel.history().until(cutoff))
    return bundle


def served(name: str) -> FloatArray:
    """What is served from the end of the history on, [levels, steps]."""
    made = a_bundle().forecast(a_plan().panel).of(SeriesKey(f"hard/Deployment/{name}", Resource.CPU))
    assert isinstance(made, SeriesForecast)
    assert made.levels == LEVELS
    return made.values


def test_an_idle_workload_is_forecast_idle() -> None:
    """Zero at every level, not a small number."""
    assert (served("idle") == 0).all()


def test_a_constant_workload_is_forecast_at_its_constant() -> None:
    """At every level."""
    np.testing.assert_allclose(served("constant"), 2.5)


@pytest.mark.parametrize("name", ["idle", "constant"])
def test_a_new_workload_that_never_moved_is_not_expected_to(name: str) -> None:
    """Unknown to the bundle: what it was, within one bucket of a histogram."""
    plan = a_plan()
    usage = plan.panel.usage[plan.panel.row(SeriesKey(f"hard/Deployment/{name}", Resource.CPU))]

    made = a_bundle().forecast_history(
        [SeriesKey("new/Deployment/x", Resource.CPU)], a_panel(usage[None, -DAY_STEPS:]).history()
    )

    np.testing.assert_allclose(made.forecast.values, usage[-1], rtol=0.051)


@pytest.mark.parametrize("name", ["rarely", "at times"])
def test_the_median_of_a_mostly_idle_workload_is_zero(name: str) -> None:
    """More than half of its samples are zeros, and no correction by what the fleet misses moves that."""
    made = served(name)

    assert (made[0] == 0).all()
    assert (made[-1] > 1).all()


def test_what_runs_by_a_schedule_is_forecast_by_it() -> None:
    """Every morning at midnight it goes on, and so does the forecast."""
    made = served("by schedule")

    np.testing.assert_allclose(made, 8.0, rtol=0.01)


def test_what_goes_on_and_off_at_any_time_may_be_on() -> None:
    """Off now, on in a third of the time: the upper quantiles are full on, and not more."""
    made = served("on and off")

    assert (made[0, :4] < 0.001).all()
    np.testing.assert_allclose(made[-1], 8.0, rtol=0.05)


def test_the_upper_quantile_widens_soon_after_a_step() -> None:
    """Two hours after a deploy that uses six times as much, the top of the forecast is there."""
    assert (served("2 h after")[-1] > 5).all()


def test_the_forecast_follows_a_step_within_hours() -> None:
    """Four hours after, the next step's median is near; twelve hours after, all of them and all levels."""
    assert served("4 h after")[0, 0] > 4
    assert served("4 h after")[-1, 0] > 5.5
    np.testing.assert_allclose(served("12 h after"), 6.0, rtol=0.2)


@pytest.mark.parametrize("name", ["leak", "noisy leak"])
def test_the_upper_quantiles_of_a_leak_stay_above_the_newest_usage(name: str) -> None:
    """What has only ever grown is not expected to fall."""
    newest = the_series()[name][-HOUR_STEPS:].mean()

    made = served(name)

    assert (made[LEVELS.index(0.95) :] >= newest).all()
    assert (made[-1] <= 1.2 * newest).all()


def test_a_torn_series_is_forecast_almost_as_the_whole_one() -> None:
    """A third of the samples, a day and the newest two hours missing."""
    torn, whole = served("torn"), served("whole")

    assert np.isfinite(torn).all()
    assert np.abs(torn - whole).mean() < 0.3 * whole.mean()


def test_a_throttled_series_is_not_forecast_beyond_its_limit() -> None:
    """Usage never was: demand may be, which a finding of its history says."""
    assert (served("throttled") <= 2.0 * 1.01).all()


def test_no_forecast_goes_far_beyond_what_was_ever_seen() -> None:
    """For any series, level and step, combined and calibrated."""
    panel = a_plan().panel

    made = a_bundle().forecast(panel).forecast.values

    assert (made <= LARGEST_MULTIPLE * np.nanmax(panel.usage, axis=1)[:, None, None]).all()
