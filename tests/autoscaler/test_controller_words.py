"""What people and dashboards read, where it would be easy to mislead them."""

import math
from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from autoscaler.cluster.reasons import level_text
from autoscaler.controller.autoscalers import Actuator, Rival, RivalKind, TargetRef
from autoscaler.controller.loop import Controller
from predictor.registry.memory import MemoryBundleStore
from tests.support.scaling import CART, ScalingParts, a_target, an_autoscaler, noon_rush

IN_CHARGE = Rival(
    RivalKind.HPA, "shop", "in-charge", TargetRef("apps/v1", "Deployment", "cart"), min_replicas=2, max_replicas=4
)


def message(parts: ScalingParts, kind: str) -> str:
    """Of one of the conditions."""
    return str(next(c["message"] for c in parts.status()["conditions"] if c["type"] == kind))


def series(controller: Controller, name: str) -> dict[str, float]:
    """Value by labels of a metric, as it is scraped."""
    lines = generate_latest(controller.metrics.registry).decode().splitlines()
    found = (line.removeprefix(name).rpartition(" ") for line in lines if line.startswith(name))
    return {labels: float(value) for labels, _, value in found}


@pytest.mark.parametrize(
    ("most", "said"), [(20, "the maximum is 4, that of HorizontalPodAutoscaler in-charge"), (3, "the maximum is 3")]
)
def test_the_maximum_is_said_to_be_the_hpas_where_it_is(most: int, said: str) -> None:
    """Whoever raises the object's own to no avail must not have to guess."""
    parts = ScalingParts(
        usage_by_workload={CART: noon_rush(9.0, 9.0)},
        targets=(a_target(replicas=2),),
        autoscalers=(an_autoscaler(actuator=Actuator.HPA_MIN_REPLICAS, max_replicas=most),),
    )
    parts.cluster.rivals[IN_CHARGE.uid] = IN_CHARGE

    parts.controller().cycle()

    assert parts.condition("ScalingLimited") == ("True", "TooManyReplicas")
    assert message(parts, "ScalingLimited").endswith(said)


@pytest.mark.parametrize(
    ("level", "shown"),
    [(0.99, "0.99"), (0.99342173, "0.993422"), (0.999999999, "0.999999999"), (0.9999996, "0.9999996")],
)
def test_no_level_is_shown_as_certainty(level: float, shown: str) -> None:
    """In as few digits as that takes."""
    assert level_text(level) == shown


def test_a_percentile_near_certainty_is_not_told_as_one() -> None:
    """Neither in the reason nor in the label of the metric."""
    parts = ScalingParts(autoscalers=(an_autoscaler(percentile=99.9999999),))
    parts.settings = parts.settings.model_copy(update={"error_budget": False})
    controller = parts.controller()

    controller.cycle()

    assert "level 0.999999999," in message(parts, "ScalingActive")
    assert any('level="0.999999999"' in labels for labels in series(controller, "foresize_demand_forecast"))


def test_without_a_model_nothing_is_said_of_its_age() -> None:
    """0 would read as one that was just trained."""
    parts = ScalingParts()
    parts.predictor.store = MemoryBundleStore()
    controller = parts.controller()
    before = series(controller, "foresize_model_trained_age_seconds")

    controller.cycle()

    assert math.isnan(before[""])
    assert math.isnan(series(controller, "foresize_model_trained_age_seconds")[""])


def test_a_file_that_cannot_be_read_is_not_told_as_an_outage_of_prometheus() -> None:
    """Nobody should look for it there."""
    parts = ScalingParts()
    parts.source.is_down = True
    controller = replace(parts.controller(), usage_from="history")

    controller.cycle()

    up = series(controller, "foresize_dependency_up")
    assert up['{dependency="history"}'] == 0.0
    assert '{dependency="prometheus"}' not in up
