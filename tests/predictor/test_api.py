"""What the forecast service answers over HTTP, in good times and bad."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from predictor.api.accuracy_file import AccuracyFile
from predictor.api.app import build_app
from predictor.api.service import ForecastService, restored_tracker
from predictor.errors import SourceUnavailable
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.ports import Progress
from predictor.sources.files import MemorySource
from predictor.usage.panel import Resource, UsagePanel
from tests.support.serving import CART, LEVELS, START_SECONDS, STEP_SECONDS, ManualClock, ServiceParts, a_history


@dataclass
class FlakySource:
    """A source that answers until it is told not to."""

    panel: UsagePanel
    is_down: bool = False

    def fetch(
        self,
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        resources: Collection[Resource] = tuple(Resource),
        progress: Progress | None = None,
    ) -> UsagePanel:
        if self.is_down:
            raise SourceUnavailable("http://prometheus:9090 did not answer within 60 s")
        return MemorySource(self.panel).fetch(
            start_seconds=start_seconds, end_seconds=end_seconds, step_seconds=step_seconds, resources=resources
        )


def client_of(service: ForecastService) -> TestClient:
    return TestClient(build_app(service))


def samples_of(client: TestClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of /metrics by name and labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_forecasts_hold_every_level_and_step() -> None:
    """The answer says what is forecast, in which unit, by what, from data how old; quantiles do not cross."""
    service = ServiceParts().service()
    service.refresh()

    answer = client_of(service).get("/v1/forecasts", params={"workload": CART, "resource": "cpu"})

    body = answer.json()
    assert answer.status_code == 200
    assert (body["workload"], body["unit"], body["forecaster"]) == (CART, "cores", "seasonal_naive")
    assert body["model"] == {"version": "1", "origin": "registry"}
    assert body["data_age_seconds"] == 0
    assert [q["level"] for q in body["quantiles"]] == list(LEVELS)
    assert len(body["times_seconds"]) == 48
    assert body["times_seconds"][0] == START_SECONDS + 3 * 86_400
    assert (np.diff([q["values"] for q in body["quantiles"]], axis=0) >= 0).all()


def test_one_level_can_be_asked_for() -> None:
    """`level` picks one; one that is not forecast is refused with those that are."""
    service = ServiceParts().service()
    service.refresh()
    client = client_of(service)

    one = client.get("/v1/forecasts", params={"workload": "shop/cart", "resource": "cpu", "level": "0.99"})
    other = client.get("/v1/forecasts", params={"workload": CART, "resource": "cpu", "level": "0.7"})

    assert [q["level"] for q in one.json()["quantiles"]] == [0.99]
    assert other.status_code == 400
    assert "0.5, 0.9, 0.95, 0.99" in other.json()["error"]


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"workload": "shop/Deployment/crat", "resource": "cpu"}, 404, "did you mean shop/Deployment/cart"),
        ({"workload": CART, "resource": "gpu"}, 404, "cart cpu"),
        ({"workload": CART, "resource": "cores"}, 400, "cpu, memory, gpu"),
        ({"resource": "cpu"}, 400, "name a workload"),
    ],
)
def test_a_wrong_question_is_answered_with_what_would_be_right(query: dict[str, str], status: int, words: str) -> None:
    """A typo, a resource that was not observed, a unit instead of a resource, no workload at all."""
    service = ServiceParts().service()
    service.refresh()

    answer = client_of(service).get("/v1/forecasts", params=query)

    assert answer.status_code == status
    assert words in answer.json()["error"]


def test_workloads_are_listed_with_their_forecaster() -> None:
    """A newcomer sees what is forecast, and by what."""
    service = ServiceParts().service()
    service.refresh()

    listed = client_of(service).get("/v1/workloads").json()["workloads"]

    assert [w["workload"] for w in listed] == [CART, "shop/Deployment/search"]
    assert listed[0]["resources"]["memory"] == {"forecaster": "seasonal_naive", "is_cold": False, "reason": "a test's"}


def test_nothing_is_ready_before_the_first_forecast() -> None:
    """The process is alive at once; forecasts, readiness and /v1 wait for the first refresh."""
    client = client_of(ServiceParts().service())

    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
    assert client.get("/v1/workloads").status_code == 503
    assert client.get("/").text.startswith("foresize forecast service")
    assert client.get("/metrics").status_code == 200


def test_ready_means_a_model_and_fresh_data() -> None:
    """Ready with both; not without a model, and not once the newest sample is older than the limit."""
    parts = ServiceParts()
    good = parts.service()
    good.refresh()
    without_model = ServiceParts(store=MemoryBundleStore()).service()
    without_model.refresh()

    fresh = client_of(good).get("/readyz")
    untrained = client_of(without_model).get("/readyz")
    parts.clock.now += 16 * 60
    stale = client_of(good).get("/readyz")

    assert fresh.status_code == 200
    assert (untrained.status_code, stale.status_code) == (503, 503)
    assert "foresize train" in untrained.text
    assert "960 s old" in stale.text


def test_the_last_answer_stays_with_its_age_until_it_is_stale() -> None:
    """Without Prometheus the forecast made before goes on to be served, older and older, and then no more."""
    source = FlakySource(a_history())
    parts = ServiceParts(source=source)
    service = parts.service()
    service.refresh()
    client = client_of(service)
    query = {"workload": CART, "resource": "cpu"}

    source.is_down = True
    parts.clock.now += 600
    service.refresh()
    aged = client.get("/v1/forecasts", params=query)
    parts.clock.now += 600
    service.refresh()
    stale = client.get("/v1/forecasts", params=query)

    samples = samples_of(client)
    assert (aged.status_code, aged.json()["data_age_seconds"]) == (200, 600)
    assert stale.status_code == 503
    assert "is no answer" in stale.json()["error"]
    errors = ("foresize_predictor_errors_total", (("error", "SourceUnavailable"), ("part", "source")))
    assert samples[errors] == 2
    assert samples["foresize_predictor_refreshes_total", (("outcome", "failed"),)] == 2
    assert samples["foresize_predictor_data_age_seconds", ()] == 1200
    assert samples["foresize_predictor_answer_age_seconds", ()] == 1200


def test_metrics_show_forecasts_usage_and_scores() -> None:
    """After an hour of refreshes, what was said half an hour ahead is compared with what was used."""
    parts = ServiceParts()
    service = parts.service()
    for _ in range(13):
        service.refresh()
        parts.clock.now += STEP_SECONDS
    service.refresh()

    samples = samples_of(client_of(service))

    series = {"workload": CART, "resource": "cpu"}

    def value(name: str, **labels: str) -> float:
        return samples[name, tuple(sorted(labels.items()))]

    scored = value("foresize_forecast_scored_total", **series, horizon="30m")
    median = value("foresize_forecast_covered_total", **series, horizon="30m", level="0.5")
    upper = value("foresize_forecast_covered_total", **series, horizon="30m", level="0.99")
    last = parts.panel.row(parts.panel.keys[0])
    column = (int(parts.clock.now) - START_SECONDS) // STEP_SECONDS - 1
    assert scored == 13 + 1 - 6
    assert median <= upper <= scored
    assert value("foresize_fleet_scored_total", resource="cpu", horizon="30m") == 2 * scored
    assert value("foresize_observed_usage", **series) == pytest.approx(parts.panel.usage[last, column])
    assert value("foresize_forecast_due", **series, horizon="5m", level="0.5") > 0
    assert value("foresize_forecast_usage", **series, horizon="4h", level="0.5") > 0
    assert value("foresize_forecast_nominal_coverage", level="0.99") == 0.99
    assert value("foresize_predictor_model_info", version="1", origin="registry") == 1
    assert value("foresize_forecast_series", resource="cpu", forecaster="seasonal_naive", outcome="warm") == 2


def test_series_beyond_the_limit_are_in_the_totals_only() -> None:
    """A fleet of any size costs a bounded number of time series."""
    parts = ServiceParts(detailed_series=1)
    service = parts.service()
    for _ in range(3):
        service.refresh()
        parts.clock.now += STEP_SECONDS
    service.refresh()

    samples = samples_of(client_of(service))

    shown = {labels for name, labels in samples if name == "foresize_observed_usage"}
    assert len(shown) == 1
    assert samples["foresize_predictor_series_without_detail", ()] == 2
    assert samples["foresize_fleet_scored_total", (("horizon", "5m"), ("resource", "memory"))] == 3


def test_requests_are_counted_by_route() -> None:
    """Unknown paths are one route, so that a scanner cannot make time series."""
    client = client_of(ServiceParts().service())
    for path in ("/healthz", "/wp-admin", "/.env"):
        client.get(path)

    samples = samples_of(client)

    name = "foresize_predictor_http_requests_total"
    assert samples[name, (("route", "/healthz"), ("status", "200"))] == 1
    assert samples[name, (("route", "other"), ("status", "404"))] == 2


def test_scores_survive_a_restart(tmp_path: Path) -> None:
    """Sums and waiting forecasts are on disk; changed levels or a damaged file start anew instead of failing."""
    parts = ServiceParts(
        accuracy_file=tmp_path / "state" / "accuracy.npz", clock=ManualClock(START_SECONDS + 3 * 86_400)
    )
    service = parts.service()
    for _ in range(3):
        service.refresh()
        parts.clock.now += STEP_SECONDS
    file = AccuracyFile(tmp_path / "state" / "accuracy.npz")
    horizons = (300, 1800, 3600, 14_400)

    again = restored_tracker(file, LEVELS, horizons, STEP_SECONDS)
    changed = restored_tracker(file, (0.5, 0.9), horizons, STEP_SECONDS)
    file.path.write_bytes(file.path.read_bytes()[:100])
    damaged = restored_tracker(file, LEVELS, horizons, STEP_SECONDS)

    assert again.scores().scored[:, 0].tolist() == [2, 2, 2]
    assert again.waiting == service.tracker.waiting > 0
    assert changed.waiting == damaged.waiting == 0
