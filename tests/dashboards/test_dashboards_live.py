"""Every panel, variable and rule of the dashboards, asked of a real Prometheus that has scraped the real services."""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx2
import numpy as np
import pytest

from autoscaler.api.app import build_app as build_controller_app
from autoscaler.api.server import start_server
from autoscaler.controller.pools import PoolWatch
from autoscaler.metrics import NodeGauges, PolicyGauges
from autoscaler.settings import OversubscriptionSettings
from pipelines.demo.local_prometheus import find_prometheus, local_prometheus
from predictor.api.app import build_app
from predictor.usage.node_pools import NodePools
from predictor.usage.panel import Resource
from tests.support.boards import RULES, panel_queries, rules, variable_queries
from tests.support.scaling import CART, NOON_SECONDS, ScalingParts, a_target, noon_rush
from tests.support.serving import STEP_SECONDS, ServiceParts

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

SEARCH = "shop/Deployment/search"
ALLOCATABLE_CORES = 16.0
VARIABLES = {
    "workload": CART,
    "resource": "cpu",
    "level": ".+",
    "horizon": "30m",
    "node_pool": ".+",
    "window": "20s",
    "__rate_interval": "10s",
}
"""What Grafana puts in for each variable; the spans of time as short as the test."""


class OnePool:
    """A cluster whose nodes are all in one pool of 16 cores."""

    def fetch_node_pools(self, *, start_seconds: int, end_seconds: int, step_seconds: int) -> NodePools:
        allocatable = {Resource.CPU: np.full((1, 1), ALLOCATABLE_CORES)}
        return NodePools(("general",), end_seconds, step_seconds, allocatable, np.full((1, 1), 2.0))


class Ask:
    """A Prometheus' HTTP interface."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def get(self, path: str, **params: str) -> Any:
        answer = self._client.get(path, params=params).json()
        assert answer["status"] == "success", f"{params}: {answer.get('error')}"
        return answer["data"]

    def values(self, expression: str) -> list[float]:
        """The numbers that an instant query answers with; NaN left out."""
        result = self.get("/api/v1/query", query=expression)["result"]
        numbers = [float(series["value"][1]) for series in result]
        return [number for number in numbers if not math.isnan(number)]


A_POLICY = PolicyGauges(
    policy="general", resource="cpu", rate=1.2, violations=1, budget_used=0.4, severity=0.1, oracle_rate=1.5
)
A_NODE = NodeGauges(
    node="n1",
    resource="cpu",
    predicted_peak=4.0,
    reclaimable=9.0,
    offered=9.0,
    sold=6.0,
    is_suspended=False,
    is_stale=False,
)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """A Prometheus with the rules that has scraped both services through hours of a demo history.

    A day's rush begins while it watches: the controller scales, forecasts are scored. Before that Prometheus, as the
    services see it, was gone for a moment, so that there are errors to show.
    """
    parts = ScalingParts(
        usage_by_workload={CART: noon_rush(2.0, 5.6), SEARCH: noon_rush(1.0, 1.1)},
        targets=(a_target(), a_target(SEARCH, 2)),
    )
    rng = np.random.default_rng(3)
    panel = parts.source.panel
    noisy = panel.usage * (1 + 0.05 * rng.standard_normal(panel.usage.shape))
    requests = np.full(panel.usage.shape, 6.0)
    pools = dict.fromkeys((CART, SEARCH), "general")
    panel = replace(panel, usage=noisy, attributes={"request": requests, "limit": 2 * requests}, node_pool=pools)
    parts.source.panel = panel
    parts.clock.now = NOON_SECONDS - 6 * 3600
    controller = parts.controller()
    pool_watch = PoolWatch(OnePool(), OversubscriptionSettings(resources=("cpu",)), controller.metrics)
    service = ServiceParts(panel=panel, source=parts.source, store=parts.store, clock=parts.clock).service()

    def five_minutes() -> None:
        parts.clock.now += STEP_SECONDS
        service.refresh()
        pool_watch.after_cycle(controller.cycle())
        # The cluster in memory is asked without a wire, and has no pods.
        controller.metrics.api_requests.labels("PATCH", "200").inc()
        controller.metrics.resizes.labels("applied").inc()
        # Nodes have a loop of their own, with tests of its own.
        controller.metrics.evictions.labels("applied").inc()
        controller.metrics.publish_nodes([A_POLICY], [A_NODE])

    for step in range(72):
        parts.source.is_down = step == 10
        five_minutes()
    with ExitStack() as stack:
        addresses = {}
        for job, app in (
            ("foresize-serve", build_app(service)),
            ("foresize-controller", build_controller_app(controller)),
        ):
            server = start_server(app, "127.0.0.1", 0)  # type: ignore[arg-type]
            stack.callback(server.stop)
            addresses[job] = [server.address.removeprefix("http://")]
        prometheus = stack.enter_context(
            local_prometheus(
                tmp_path_factory.mktemp("tsdb"),
                programs=find_prometheus(),
                scrape_targets=addresses,
                scrape_interval_seconds=1,
                rule_files=[RULES],
            )
        )
        client = stack.enter_context(httpx2.Client(base_url=prometheus.url, trust_env=False, timeout=10))
        deadline = time.monotonic() + 60
        ask = Ask(client)
        while len(ask.values('count_over_time(up{job=~"foresize-.+"}[30s]) >= 6')) < 2:
            assert time.monotonic() < deadline, ask.get("/api/v1/targets")
            five_minutes()
            time.sleep(0.5)
        yield ask


def test_every_panel_shows_something(scraped: Ask) -> None:
    """No panel of any dashboard is empty once the services have run for a while."""
    queries = list(panel_queries())

    empty = [str(query) for query in queries if not scraped.values(query.with_variables(VARIABLES))]

    assert len(queries) > 50
    assert empty == []


def test_every_variable_has_choices(scraped: Ask) -> None:
    """Each drop-down list of a dashboard is filled."""
    empty = []
    for title, metric, label in variable_queries():
        series = scraped.get("/api/v1/series", **{"match[]": metric})
        if not all(one.get(label) for one in series) or not series:
            empty.append(f"{title}: {label} of {metric}")

    assert empty == []


def test_every_recording_rule_records(scraped: Ask) -> None:
    """Rules evaluate without error, and what they record is there."""
    evaluated = [rule for group in scraped.get("/api/v1/rules")["groups"] for rule in group["rules"]]

    assert {rule["health"] for rule in evaluated} == {"ok"}, [rule for rule in evaluated if rule["health"] != "ok"]
    assert [rule["record"] for rule in rules() if "record" in rule and not scraped.values(rule["record"])] == []


def test_the_figures_are_those_of_the_demo(scraped: Ask) -> None:
    """What the panels show is right: coverage in range, the pool's size, replicas raised for the rush."""
    coverage = scraped.values('foresize:forecast_coverage:ratio_1d{resource="cpu",level="0.99",horizon="30m"}')
    desired = scraped.values(f'foresize_desired_replicas{{workload="{CART}"}}')
    ready = scraped.values("foresize_ready_replicas")
    is_ready = scraped.values("foresize_predictor_ready")
    pool = scraped.values('foresize_pool_allocatable{node_pool="general",resource="cpu"}')

    assert len(coverage) == 1
    assert 0.5 <= coverage[0] <= 1
    assert desired == [pytest.approx(8, abs=2)]
    assert len(ready) == 2
    assert is_ready == [1]
    assert pool == [ALLOCATABLE_CORES]
