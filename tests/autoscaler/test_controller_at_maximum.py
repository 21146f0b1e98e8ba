"""What the metrics say of a workload that would need more replicas than it may have."""

from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from tests.support.scaling import CART, ScalingParts, a_target, an_autoscaler, noon_rush


def shown(parts: ScalingParts) -> list[str]:
    """The lines of the metric after one cycle."""
    controller = parts.controller()
    controller.cycle()
    lines = generate_latest(controller.metrics.registry).decode().splitlines()
    return [line for line in lines if line.startswith("foresize_at_max_replicas")]


def parts(cores: float, replicas: int, most: int) -> ScalingParts:
    """A steady workload of replicas of one core, of which nine tenths are to be used."""
    return ScalingParts(
        usage_by_workload={CART: noon_rush(cores, cores)},
        targets=(a_target(replicas=replicas),),
        autoscalers=(an_autoscaler(max_replicas=most),),
    )


@pytest.mark.parametrize(
    ("cores", "replicas", "is_held"),
    [(5.0, 4, 1.0), (3.7, 4, 1.0), (3.5, 4, 0.0), (5.0, 2, 0.0)],
    ids=["far above what they carry", "above the target", "within it", "some are still to come"],
)
def test_demand_above_what_the_most_replicas_carry_is_told(cores: float, replicas: int, is_held: float) -> None:
    """Once all of them are there: until then the workload is only late."""
    assert shown(parts(cores, replicas, most=4)) == [
        f'foresize_at_max_replicas{{namespace="shop",workload="{CART}"}} {is_held}'
    ]


def test_what_is_not_known_is_not_told() -> None:
    """Without usage, or without a request to take a share of, there is no series: neither yes nor no."""
    blind, sizeless = parts(5.0, 4, most=4), parts(5.0, 4, most=4)
    blind.source.is_down = True
    sizeless.cluster.put(
        replace(sizeless.cluster.targets[CART], request_per_replica=a_target(cpu_cores=0).request_per_replica)
    )

    assert shown(blind) == []
    assert shown(sizeless) == []
