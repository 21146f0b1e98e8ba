"""On which rung of the ladder a workload is decided for, and what is said of a step down."""

from dataclasses import replace
from typing import Any

import pytest

from autoscaler.cluster.snapshot import DemandForecast, Rung
from autoscaler.controller.explanation import explanation
from autoscaler.controller.records import DecisionRecord
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.bundle import Bundle
from predictor.serving.previous import PreviousChampion
from predictor.usage.panel import Resource, SeriesKey
from tests.support.scaling import CART, ScalingParts
from tests.support.serving import STEP_SECONDS

KEY = SeriesKey(CART, Resource.CPU)


def decided(parts: ScalingParts) -> DecisionRecord:
    (record,) = parts.controller().cycle().records
    return record


def champion(parts: ScalingParts) -> Bundle:
    return parts.store.load("1")


def with_champion(bundle: Bundle | None, parts: ScalingParts, before: Bundle | None = None) -> ScalingParts:
    """The same with another champion, or none, and a version before it."""
    store = MemoryBundleStore()
    for alias, each in (("champion-before", before), ("champion", bundle)):
        if each is not None:
            store.set_alias(alias, store.add(each))
    parts.store = parts.predictor.store = store
    parts.predictor.previous = PreviousChampion(store, "champion-before", STEP_SECONDS, aside=lambda work: work())
    return parts


def unknown(bundle: Bundle) -> Bundle:
    """The bundle without any series."""
    return replace(bundle, series={})


def ungated(bundle: Bundle) -> Bundle:
    lost = replace(bundle.series[KEY], gate_passed=False, reason="the combination had 1.30 of the pinball loss")
    return replace(bundle, series={KEY: lost})


def by_champion(parts: ScalingParts) -> ScalingParts:
    return parts


def by_previous(parts: ScalingParts) -> ScalingParts:
    return with_champion(unknown(champion(parts)), parts, before=champion(parts))


def by_previous_as_a_whole(parts: ScalingParts) -> ScalingParts:
    return with_champion(replace(champion(parts), step_seconds=600), parts, before=champion(parts))


def by_baseline_for_want_of_a_model(parts: ScalingParts) -> ScalingParts:
    return with_champion(None, parts)


def by_baseline_for_want_of_the_resource(parts: ScalingParts) -> ScalingParts:
    return with_champion(unknown(champion(parts)), parts)


def by_baseline_as_the_model_was_worse(parts: ScalingParts) -> ScalingParts:
    return with_champion(ungated(champion(parts)), parts)


def by_demand(parts: ScalingParts) -> ScalingParts:
    parts.predictor.horizon /= 48
    return parts


def by_nothing(parts: ScalingParts) -> ScalingParts:
    parts.source.is_down = True
    return parts


@pytest.mark.parametrize(
    ("put", "rung", "because"),
    [
        (by_champion, Rung.CHAMPION, "a test's"),
        (by_previous, Rung.PREVIOUS, "version 2 does not know it: version 1, the champion before, serves; a test's"),
        (by_previous_as_a_whole, Rung.PREVIOUS, "version 1, the champion before, serves: the champion cannot be used"),
        (by_baseline_for_want_of_a_model, Rung.SEASONAL_NAIVE, "there is no model: no model has the alias 'champion'"),
        (by_baseline_for_want_of_the_resource, Rung.SEASONAL_NAIVE, "cold: not among the 0 series"),
        (by_baseline_as_the_model_was_worse, Rung.SEASONAL_NAIVE, "the combination had 1.30 of the pinball loss"),
        (by_demand, Rung.REACTIVE, ""),
        (by_nothing, Rung.HOLD, ""),
    ],
)
def test_each_rung_is_told_with_its_reason(put: Any, rung: Rung, because: str) -> None:
    """In the decision, in what `foresize explain` says, and in the status of the object."""
    parts = put(ScalingParts())

    record = decided(parts)

    assert record.plan.decision.rung is rung
    assert parts.status()["rung"] == rung.value
    forecast = record.plan.decision.forecast
    if isinstance(forecast, DemandForecast):
        assert forecast.because.startswith(because)
        assert f"  because      {because}" in explanation(record.as_json())
        status, reason = parts.condition("ForecastAvailable")
        assert (status, reason) == ("True", f"{rung.value.title().replace('_', '')}Serves")
    else:
        assert not because


def test_the_version_that_served_is_the_one_in_the_status() -> None:
    """Not the champion's."""
    parts = by_previous(ScalingParts())

    decided(parts)

    assert parts.status()["modelVersion"] == "1"


def test_a_step_down_is_an_event_with_its_reason() -> None:
    """From the champion to the seasonal naive, and back up when the champion is mended."""
    parts = ScalingParts()
    controller = parts.controller()
    controller.cycle()
    good = champion(parts)
    parts.store.set_alias("champion", parts.store.add(ungated(good)))
    parts.clock.now += 600
    controller.cycle()
    parts.store.set_alias("champion", "1")
    parts.clock.now += 600
    controller.cycle()

    told = [(each.reason, each.note, each.is_warning) for each in parts.cluster.events if "Rung" in each.reason]

    assert told[0][0] == "RungLowered"
    assert told[0][1].startswith("champion -> seasonal_naive: the combination had 1.30 of the pinball loss")
    assert told[0][2] is True
    assert told[1][:2] == ("RungRaised", "seasonal_naive -> champion")
