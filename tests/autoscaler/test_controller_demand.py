"""Demand to be ready for, as the controller learns it: the cheapest signal times the margin that its record asks."""

import re
from dataclasses import replace

import numpy as np
import pytest

from autoscaler.cluster.capacity import Capacity
from autoscaler.cluster.snapshot import DemandForecast
from autoscaler.controller.demand import (
    REBUILT_AT_ONCE,
    REBUILT_SECONDS,
    SIGNAL_LEVELS,
    DemandWatch,
    Terms,
)
from autoscaler.settings import ScalingSettings
from autoscaler.simulator.outcome import ReplaySettings, ReplayWorkload
from models.forecast import FloatArray
from pipelines.steps.replay import ReplayPlan, safe_peaks
from predictor.serving.bundle import NoForecast
from predictor.serving.forecasts import Forecasts, ServedForecast
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from tests.support.scaling import CART, NOON_SECONDS, ScalingParts, a_panel, noon_rush
from tests.support.serving import STEP_SECONDS, ManualClock

KEY = SeriesKey(CART, Resource.CPU)
LEAD_SECONDS = 600.0
TERMS = Terms(Capacity(0.9), 1, 20, LEAD_SECONDS)
MARGINS = ScalingSettings()
NO_FORECAST = NoForecast("none was made")


def noisy_rush(seed: int = 3) -> FloatArray:
    usage = noon_rush(2.0, 5.6)
    return usage * np.random.default_rng(seed).uniform(0.9, 1.1, usage.size)


def parts_of(usage: FloatArray | None = None, settings: ScalingSettings = MARGINS) -> ScalingParts:
    usage = noisy_rush() if usage is None else usage
    return ScalingParts(usage_by_workload={CART: usage}, settings=settings, clock=ManualClock(float(NOON_SECONDS)))


def forecasts_at(parts: ScalingParts, step: int) -> Forecasts:
    return parts.predictor.predict(NOON_SECONDS + step * STEP_SECONDS, levels=(*SIGNAL_LEVELS, 0.99))


def without_usage(forecasts: Forecasts) -> Forecasts:
    return replace(forecasts, panel=None)


def of_many(names: list[str], usage: FloatArray) -> Forecasts:
    """What is known of workloads that all did the same, without a model."""
    panel = a_panel(dict.fromkeys(names, usage))
    empty = ScalingParts().predictor.predict(NOON_SECONDS)
    return replace(empty, panel=panel)


def test_decisions_rest_on_margins_once_the_record_is_long_enough() -> None:
    """The object says which signal, by how much, for how long, and what the model alone would say."""
    (record,) = parts_of().controller().cycle().records
    forecast = record.plan.decision.forecast

    assert isinstance(forecast, DemandForecast)
    assert re.search(r" x 0?\.?\d+ was enough for 0.99 of ", forecast.because)
    assert "seasonal_naive alone says" in forecast.because
    assert forecast.value < 1.2 * 5.6 * 1.1


def test_without_them_the_forecast_stands() -> None:
    """One setting brings back the model's own quantile."""
    (record,) = parts_of(settings=ScalingSettings(learned_margins=False)).controller().cycle().records
    forecast = record.plan.decision.forecast

    assert isinstance(forecast, DemandForecast)
    assert forecast.forecaster == "seasonal_naive"


def test_a_short_record_says_nothing() -> None:
    """Four hours are too little: the forecast stands."""
    usage = noisy_rush()
    usage[: 8 * 288 + 144 - 48] = np.nan
    parts = parts_of(usage)
    watch = DemandWatch()

    watch.follow(forecasts_at(parts, 0), {KEY: TERMS})

    assert watch.safe(KEY, 0.99) is None


def test_following_step_by_step_is_rebuilding_at_the_end() -> None:
    """But for what forecasts were worth, which a new copy has to learn anew, and for what is older than a week."""
    parts = parts_of()
    followed = DemandWatch()
    for step in range(12):
        followed.follow(replace(forecasts_at(parts, step), made=NO_FORECAST), {KEY: TERMS})
    rebuilt = DemandWatch()
    last = replace(forecasts_at(parts, 11), made=NO_FORECAST)
    rebuilt.follow(last, {KEY: TERMS})

    one, other = followed.safe(KEY, 0.99), rebuilt.safe(KEY, 0.99)

    assert one is not None
    assert other is not None
    assert one.value == pytest.approx(other.value, rel=0.1)


def test_an_outage_is_caught_up_with() -> None:
    """Steps that came while usage could not be read are taken in as soon as it can."""
    parts = parts_of()
    watch, steady = DemandWatch(), DemandWatch()
    for step in range(10):
        seen = replace(forecasts_at(parts, step), made=NO_FORECAST)
        steady.follow(seen, {KEY: TERMS})
        watch.follow(without_usage(seen) if 2 <= step < 9 else seen, {KEY: TERMS})

    assert watch.safe(KEY, 0.99) == steady.safe(KEY, 0.99)


def test_the_replay_learns_as_the_controller_does() -> None:
    """From the same week before and the same forecasts, the demand to be ready for is the same in every step."""
    parts = parts_of()
    steps = 24
    first = (NOON_SECONDS - parts.source.panel.start_seconds) // STEP_SECONDS
    rebuilt = REBUILT_SECONDS // STEP_SECONDS
    watch, decided = DemandWatch(), []
    peaks: dict[float, list[float]] = {level: [] for level in (*SIGNAL_LEVELS, 0.99)}
    for step in range(steps):
        seen = forecasts_at(parts, step)
        served = seen.of(KEY)
        assert isinstance(served, ServedForecast)
        for level, found in peaks.items():
            found.append(served.peak(level, served.known_until_seconds + LEAD_SECONDS + STEP_SECONDS))
        watch.follow(seen, {KEY: TERMS})
        safe = watch.safe(KEY, 0.99)
        assert safe is not None
        decided.append(safe.value)
    usage = parts.source.panel.usage
    workload = ReplayWorkload(
        name=CART,
        request_per_replica=1.0,
        cores_per_replica=1.0,
        target_utilisation=0.9,
        min_replicas=1,
        max_replicas=20,
    )
    settings = ReplaySettings(step_seconds=STEP_SECONDS, pod_ready_seconds=int(LEAD_SECONDS))
    past, held_out = usage[:, first - 8 * 288 : first], usage[:, first : first + steps]
    plan = ReplayPlan((KEY,), (workload,), held_out, past, NOON_SECONDS, settings, ())

    made = safe_peaks(
        plan, {level: np.array([found]) for level, found in peaks.items()}, (0.99,), learned_steps=rebuilt
    )

    np.testing.assert_allclose(made[0.99][0], decided, rtol=1e-6)


def test_usage_at_a_limit_teaches_nothing() -> None:
    """Where usage was cut off, demand was more, by how much is not known: always so, and nothing is recorded."""
    parts = parts_of(np.full(9 * 288, 4.0))
    seen = replace(forecasts_at(parts, 0), made=NO_FORECAST)
    assert seen.panel is not None
    free, held = DemandWatch(), DemandWatch()

    free.follow(seen, {KEY: TERMS})
    limit = {"limit": np.full(seen.panel.usage.shape, 4.0)}
    cut = UsagePanel(seen.panel.keys, seen.panel.start_seconds, STEP_SECONDS, seen.panel.usage, attributes=limit)
    held.follow(replace(seen, panel=cut), {KEY: TERMS})

    assert free.safe(KEY, 0.99) is not None
    assert cut.is_bound is not None
    assert cut.is_bound.all()
    assert held.safe(KEY, 0.99) is None


def test_a_large_fleet_is_taken_in_over_several_cycles() -> None:
    """Some hundred at a time, so that no cycle takes long; those that are gone are dropped."""
    names = [f"shop/Deployment/w{number}" for number in range(REBUILT_AT_ONCE + 5)]
    seen = of_many(names, noisy_rush()[: 2 * 288])
    terms = {SeriesKey(name, Resource.CPU): TERMS for name in names}
    watch, first, last = DemandWatch(), SeriesKey(names[0], Resource.CPU), SeriesKey(names[-1], Resource.CPU)

    watch.follow(seen, terms)
    assert watch.safe(first, 0.99) is not None
    assert watch.safe(last, 0.99) is None

    watch.follow(seen, terms)
    assert watch.safe(last, 0.99) == watch.safe(first, 0.99)

    del terms[first]
    watch.follow(seen, terms)
    assert watch.safe(first, 0.99) is None
    assert watch.safe(last, 0.99) is not None
