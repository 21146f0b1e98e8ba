"""Usage with what some queries say beside it, as one source."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from predictor.serving.ports import Progress
from predictor.sources.prometheus import PrometheusSource
from predictor.usage.panel import Resource, SeriesKey, UsagePanel


@dataclass(frozen=True, slots=True)
class WithQueries:
    """A UsageSource that asks Prometheus for usage, and for a series by each of the queries."""

    source: PrometheusSource
    queries: Mapping[SeriesKey, str]

    def fetch(
        self,
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        resources: Collection[Resource] = tuple(Resource),
        progress: Progress | None = None,
    ) -> UsagePanel:
        """As `UsageSource.fetch` promises; a query without an answer is left out with a finding."""
        span = {"start_seconds": start_seconds, "end_seconds": end_seconds, "step_seconds": step_seconds}
        usage = self.source.fetch(**span, resources=resources, progress=progress)
        asked = {key: query for key, query in self.queries.items() if key.resource in resources}
        return usage.beside(self.source.fetch_queries(asked, **span)) if asked else usage
