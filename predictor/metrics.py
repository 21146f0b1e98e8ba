"""Every metric of the forecast service, in one place; dashboards and alerts are tested against these names.

Values that exist once per series are published as one set per refresh, so that a scrape never sees half of it and
a workload that is gone leaves nothing behind. They are in the resource's base unit: cores, bytes, devices, requests
per second. Sums only grow, so `rate()` and `increase()` give a mean over any span.

How many time series: with L levels and H followed horizons, each workload×resource costs 1 + 4·L·H + 4·H
(at four of each: 81). So only `DETAILED_SERIES` workload×resource pairs are published one by one; the
`foresize_fleet_` sums are over all of them, published or not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

DETAILED_SERIES = 2000
"""Most workload×resource pairs that are published one by one."""

Sample = tuple[tuple[str, ...], float]
"""Label values, in the order of the family's labels, and the value."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric that is published as one set: its name, type, labels and meaning."""

    name: str
    kind: Literal["gauge", "counter"]
    labels: tuple[str, ...]
    text: str

    def metric(self, samples: Iterable[Sample]) -> Metric:
        """The family with its samples, as prometheus_client takes it."""
        made = (CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily)(
            self.name, self.text, labels=self.labels
        )
        for labels, value in samples:
            made.add_metric(labels, value)
        return made


_SERIES = ("workload", "resource")
_AHEAD = ("workload", "resource", "horizon")
_QUANTILE = ("workload", "resource", "level", "horizon")

OBSERVED_USAGE = Family("foresize_observed_usage", "gauge", _SERIES, "Newest observed usage.")
FORECAST_USAGE = Family(
    "foresize_forecast_usage", "gauge", _QUANTILE, "Newest forecast for the step that starts `horizon` ahead."
)
FORECAST_DUE = Family(
    "foresize_forecast_due",
    "gauge",
    _QUANTILE,
    "What was forecast `horizon` earlier for the step whose usage was observed last: compare with observed usage.",
)
SCORED = Family("foresize_forecast_scored_total", "counter", _AHEAD, "Forecasts whose actual usage is known.")
COVERED = Family(
    "foresize_forecast_covered_total", "counter", _QUANTILE, "Scored forecasts that were at or above the actual usage."
)
PINBALL = Family(
    "foresize_forecast_pinball_loss_total", "counter", _QUANTILE, "Pinball loss of scored forecasts, summed."
)
EXCESS = Family(
    "foresize_forecast_excess_total", "counter", _AHEAD, "How much forecast medians were above actual usage, summed."
)
SHORTFALL = Family(
    "foresize_forecast_shortfall_total", "counter", _AHEAD, "How much forecast medians were below actual usage, summed."
)
ACTUAL = Family("foresize_forecast_actual_total", "counter", _AHEAD, "Actual usage of scored forecasts, summed.")

FLEET_SCORED = Family(
    "foresize_fleet_scored_total", "counter", ("resource", "horizon"), "As foresize_forecast_scored_total, all series."
)
FLEET_COVERED = Family(
    "foresize_fleet_covered_total",
    "counter",
    ("resource", "level", "horizon"),
    "As foresize_forecast_covered_total, all series.",
)
FLEET_PINBALL = Family(
    "foresize_fleet_pinball_loss_total",
    "counter",
    ("resource", "level", "horizon"),
    "As foresize_forecast_pinball_loss_total, all series.",
)
FLEET_EXCESS = Family(
    "foresize_fleet_excess_total", "counter", ("resource", "horizon"), "As foresize_forecast_excess_total, all series."
)
FLEET_SHORTFALL = Family(
    "foresize_fleet_shortfall_total",
    "counter",
    ("resource", "horizon"),
    "As foresize_forecast_shortfall_total, all series.",
)
FLEET_ACTUAL = Family(
    "foresize_fleet_actual_total", "counter", ("resource", "horizon"), "As foresize_forecast_actual_total, all series."
)
FLEET_UNLABELLED = Family(
    "foresize_fleet_unlabelled_total",
    "counter",
    ("resource", "horizon"),
    "Forecasts given up, because no sample of the usage they spoke of came in time.",
)

NOMINAL_COVERAGE = Family(
    "foresize_forecast_nominal_coverage", "gauge", ("level",), "The quantile level itself: what coverage should be."
)
SERIES = Family(
    "foresize_forecast_series",
    "gauge",
    ("resource", "forecaster", "outcome"),
    "Series by the forecaster that serves them and how: warm (chosen and calibrated for the series), cold (unknown to "
    "the model, served by others' weights or the seasonal naive) or none (no forecast).",
)
WITHOUT_DETAIL = Family(
    "foresize_predictor_series_without_detail", "gauge", (), "Series that are published in the fleet's sums only."
)
WAITING = Family("foresize_forecast_waiting", "gauge", (), "Forecasts whose actual usage is not known yet.")
MODEL_INFO = Family(
    "foresize_predictor_model_info", "gauge", ("version", "origin"), "1 for the model version that serves."
)
MODEL_AGE = Family(
    "foresize_predictor_model_age_seconds", "gauge", (), "Time since the newest sample that the model was fitted on."
)
DATA_AGE = Family(
    "foresize_predictor_data_age_seconds",
    "gauge",
    (),
    "Time since the end of the newest observed step; grows by itself.",
)
ANSWER_AGE = Family(
    "foresize_predictor_answer_age_seconds", "gauge", (), "Time since the last refresh that went well; grows by itself."
)
READY = Family(
    "foresize_predictor_ready", "gauge", (), "1 where a model is loaded and the data are fresh, as /readyz answers."
)

Published = Mapping[Family, Sequence[Sample]]


@dataclass(eq=False)
class _Live(Collector):
    """What the last refresh published, and what is worked out at each scrape."""

    published: Published = field(default_factory=dict)
    at_scrape: Callable[[], Published] = dict

    def collect(self) -> Iterable[Metric]:
        for family, samples in (*self.published.items(), *self.at_scrape().items()):
            yield family.metric(samples)


@dataclass
class PredictorMetrics:
    """The forecast service's metrics, in one registry."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        registry = self.registry
        self.refreshes = Counter(
            "foresize_predictor_refreshes_total",
            "Refreshes of the forecasts by outcome (complete, failed).",
            ("outcome",),
            registry=registry,
        )
        self.refresh_seconds = Histogram(
            "foresize_predictor_refresh_duration_seconds",
            "Time that a refresh took: reading usage, forecasting, scoring.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
            registry=registry,
        )
        self.errors = Counter(
            "foresize_predictor_errors_total",
            "Errors of what the service depends on (source, registry, accuracy), by error type.",
            ("part", "error"),
            registry=registry,
        )
        self.requests = Counter(
            "foresize_predictor_http_requests_total",
            "Answered requests by route and status.",
            ("route", "status"),
            registry=registry,
        )
        for outcome in ("complete", "failed"):
            self.refreshes.labels(outcome)
        ProcessCollector(registry=registry)
        self._live = _Live()
        registry.register(self._live)

    def publish(self, samples: Published) -> None:
        """Replaces what the last refresh published."""
        self._live.published = samples

    def at_scrape(self, samples: Callable[[], Published]) -> None:
        """Has some families, such as ages, worked out anew at every scrape."""
        self._live.at_scrape = samples
