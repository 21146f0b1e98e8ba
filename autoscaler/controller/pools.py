"""How much each node pool may be oversold, worked out from the window of usage that the predictor has just read."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Protocol

import numpy as np
import structlog

from autoscaler.cluster.pools import pool_history
from autoscaler.cluster.reasons import Hold
from autoscaler.controller.loop import CycleReport
from autoscaler.decisions.oversubscription import node_peak_quantile, oversubscription_ratio
from autoscaler.metrics import AutoscalerMetrics, PoolReading
from autoscaler.settings import OversubscriptionSettings
from predictor.errors import PredictorError
from predictor.usage.node_pools import NodePools
from predictor.usage.panel import Resource, UsagePanel, newest

log = structlog.get_logger("autoscaler.pools")

INTERVAL_SECONDS = 900.0
"""How often ratios are worked out anew: they rest on whole days."""


class PoolSource(Protocol):
    """Knows what the nodes of each pool can give to pods."""

    def fetch_node_pools(self, *, start_seconds: int, end_seconds: int, step_seconds: int) -> NodePools:
        """Allocatable amounts of every pool on the grid. Raises a PredictorError."""
        ...


@dataclass
class PoolWatch:
    """Publishes ratios now and then, from the window that the last cycle read."""

    source: PoolSource
    settings: OversubscriptionSettings
    metrics: AutoscalerMetrics
    _last_seconds: float = -inf

    def after_cycle(self, report: CycleReport) -> None:
        """Works the ratios out where the last time is long enough ago; a source that is gone leaves the old ones."""
        panel = report.forecasts.panel if report.forecasts else None
        if panel is None or report.started_at_seconds - self._last_seconds < INTERVAL_SECONDS:
            return
        self._last_seconds = report.started_at_seconds
        try:
            with self.metrics.timed("oversubscription"):
                pools = self.source.fetch_node_pools(
                    start_seconds=panel.end_seconds, end_seconds=panel.end_seconds, step_seconds=panel.step_seconds
                )
                self.metrics.publish_pools(pool_readings(panel, pools, self.settings))
        except PredictorError as problem:
            self.metrics.errors.labels("prometheus", type(problem).__name__).inc()
            log.warning("node pools not read", message=str(problem))


def pool_readings(panel: UsagePanel, pools: NodePools, settings: OversubscriptionSettings) -> Iterable[PoolReading]:
    """The ratio of every pool and resource, with what it rests on; nothing for a resource a pool does not have."""
    horizon_steps = max(1, int(settings.horizon.total_seconds()) // panel.step_seconds)
    for pool in pools.names:
        for resource in map(Resource, settings.resources):
            ran = pool_history(panel, pools, pool, resource)
            if ran is None:
                continue
            requests = newest(ran.requests)
            peak = node_peak_quantile(
                ran.usage,
                ran.limits,
                level=1.0 - settings.probability_of(resource),
                horizon_steps=horizon_steps,
                requests=requests,
            )
            requested = float(np.nansum(requests))
            rate = oversubscription_ratio(
                peak, requested=requested, allocatable=ran.allocatable, max_ratio=settings.max_ratio
            )
            yield PoolReading(
                node_pool=pool,
                resource=resource.value,
                ratio=rate.ratio,
                predicted_peak=None if isinstance(rate.predicted_peak, Hold) else rate.predicted_peak,
                allocatable=ran.allocatable,
                usage=float(np.nansum(newest(ran.usage))),
                requested=requested,
            )
