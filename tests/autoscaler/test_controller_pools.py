"""Now and then the controller says how much each node pool may be oversold."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from autoscaler.controller.pools import INTERVAL_SECONDS, PoolWatch
from autoscaler.settings import OversubscriptionSettings
from predictor.errors import SourceUnavailable
from predictor.usage.node_pools import NodePools
from predictor.usage.panel import Resource
from tests.support.scaling import CART, ScalingParts, noon_rush

DB = "shop/StatefulSet/db"
OTHER = "shop/Deployment/elsewhere"


@dataclass
class Pools:
    """A source of one pool of 16 cores and an empty one, until it is told to fail."""

    is_down: bool = False

    def fetch_node_pools(self, *, start_seconds: int, end_seconds: int, step_seconds: int) -> NodePools:
        if self.is_down:
            raise SourceUnavailable("http://prometheus:9090 did not answer within 60 s")
        cores = np.asarray([[16.0], [np.nan]])
        return NodePools(("general", "spot"), start_seconds, step_seconds, {Resource.CPU: cores}, np.ones((2, 1)))


def parts_on_a_pool() -> ScalingParts:
    """Two workloads on the pool that request 12 cores and peak at 5.6 + 0.4 together, and one outside it."""
    parts = ScalingParts(
        usage_by_workload={CART: noon_rush(2.0, 5.6), DB: noon_rush(0.4, 0.4), OTHER: noon_rush(9.0, 9.0)}
    )
    panel = parts.source.panel
    requests = np.repeat([[8.0], [4.0], [9.0]], panel.steps, axis=1)
    parts.source.panel = replace(
        panel, attributes={"request": requests}, node_pool={CART: "general", DB: "general", OTHER: "gpu"}
    )
    return parts


def published(parts: ScalingParts, pools: Pools, cycles_at: tuple[float, ...]) -> dict[str, float | None]:
    """The pool's gauges after cycles at these seconds from now; the source of pools fails after the first."""
    controller = parts.controller()
    watch = PoolWatch(pools, OversubscriptionSettings(), controller.metrics)
    begin = parts.clock.now
    for second in cycles_at:
        parts.clock.now = begin + second
        watch.after_cycle(controller.cycle())
        pools.is_down = True
    labels = {"node_pool": "general", "resource": "cpu"}
    names = ("oversubscription_ratio", "pool_allocatable", "pool_requested", "pool_usage", "pool_predicted_peak")
    values = {name: controller.metrics.registry.get_sample_value(f"foresize_{name}", labels) for name in names}
    errors = {"dependency": "prometheus", "error": "SourceUnavailable"}
    values["errors"] = controller.metrics.registry.get_sample_value("foresize_dependency_errors_total", errors)
    return values


def test_a_pool_may_be_sold_as_often_as_its_peak_fits() -> None:
    """Every day peaks alike at 6 of 12 requested cores; few days cannot support P99, so it is widened."""
    values = published(parts_on_a_pool(), Pools(), (0.0,))

    assert values["pool_allocatable"] == 16.0
    assert values["pool_requested"] == 12.0
    assert values["pool_usage"] == pytest.approx(2.4)
    assert values["pool_predicted_peak"] == pytest.approx(6.0, rel=0.25)
    assert (values["pool_predicted_peak"] or 0.0) >= 6.0
    assert values["oversubscription_ratio"] == pytest.approx(12.0 / (values["pool_predicted_peak"] or 1.0))


def test_a_source_that_is_gone_leaves_the_last_ratios() -> None:
    """The failure is counted; it is not asked again before the interval is over."""
    values = published(parts_on_a_pool(), Pools(), (0.0, 300.0, INTERVAL_SECONDS, INTERVAL_SECONDS + 300))

    assert values["oversubscription_ratio"] is not None
    assert values["errors"] == 1


def test_without_usage_nothing_is_said_about_pools() -> None:
    """A ratio without history would be made up."""
    parts = parts_on_a_pool()
    parts.source.is_down = True

    values = published(parts, Pools(), (0.0,))

    assert values["oversubscription_ratio"] is None
