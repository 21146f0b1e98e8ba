"""What a real Prometheus tells of workloads whose autoscalers wanted more replicas than they may give."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from models.forecast import FloatArray
from pipelines.demo.exporters import RawSeries
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from tests.support.prometheus import STEP, a_counter, a_pod, a_prometheus, a_series

pytestmark = pytest.mark.real

STEPS = 96
START = (int(time.time()) // 86_400 - 6) * 86_400
HELD = list(range(30, 60))
"""Steps in which autoscalers want more than they may give."""
BUSY = np.isin(np.arange(STEPS), HELD)


def an_hpa(
    name: str,
    desired: Sequence[float] | FloatArray,
    *,
    limited: Sequence[float] | FloatArray,
    least: int = 1,
    copies: int = 1,
) -> list[RawSeries]:
    """An HPA of the StatefulSet of that name with at most 4 replicas, as so many kube-state-metrics show it."""
    series: list[RawSeries] = []
    prefix = "kube_horizontalpodautoscaler"
    for number in range(copies):
        ids = {"namespace": "shop", "horizontalpodautoscaler": f"of-{name}", "instance": f"ksm-{number}"}
        target = {"scaletargetref_kind": "StatefulSet", "scaletargetref_name": name}
        of_limit = {"condition": "ScalingLimited", "status": "true"}
        series += [
            a_series(f"{prefix}_info", [1] * STEPS, **ids, **target),
            a_series(f"{prefix}_spec_min_replicas", [least] * STEPS, **ids),
            a_series(f"{prefix}_spec_max_replicas", [4] * STEPS, **ids),
            a_series(f"{prefix}_status_desired_replicas", desired, **ids),
            a_series(f"{prefix}_status_condition", limited, **ids, **of_limit),
            a_series(f"{prefix}_status_condition", [1] * STEPS, **ids, condition="AbleToScale", status="true"),
        ]
    return series


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UsagePanel]:
    """All of them as the source reads them."""
    at_most, flags = np.where(BUSY, 4.0, 2.0), BUSY.astype(np.float64)
    series: list[RawSeries] = []
    for name in ("held", "enough", "limited-below", "fixed", "by-foresize", "idle"):
        cores = [0.0 if name == "idle" else 1.0] * STEPS
        series += a_pod(f"{name}-0", cores=cores, owner=("StatefulSet", name))
    series += an_hpa("held", at_most, limited=flags, copies=2)
    series += an_hpa("idle", at_most, limited=flags)
    series += an_hpa("enough", at_most, limited=[0] * STEPS)
    series += an_hpa("limited-below", [2] * STEPS, limited=flags)
    series += an_hpa("fixed", [4] * STEPS, limited=[1] * STEPS, least=4)
    told = {"namespace": "foresize", "workload": "shop/StatefulSet/by-foresize"}
    series.append(a_series("foresize_at_max_replicas", flags, **told))
    ingress = {"namespace": "shop", "service": "held", "ingress": "shop"}
    series.append(a_counter("nginx_ingress_controller_requests", [10.0] * STEPS, **ingress))
    with a_prometheus(tmp_path_factory.mktemp("held"), series, start_seconds=START) as running:
        endpoint = PrometheusEndpoint(url=running.url, retries=0, cache_name="held")
        source = PrometheusSource(endpoint, scrape_interval_seconds=STEP)
        yield source.fetch(start_seconds=START, end_seconds=START + (STEPS - 1) * STEP, step_seconds=STEP)


def bounds(panel: UsagePanel, name: str, resource: Resource) -> list[int]:
    """In which steps usage is only a bound of demand."""
    assert panel.is_bound is not None
    return np.flatnonzero(panel.is_bound[panel.row(SeriesKey(f"shop/StatefulSet/{name}", resource))]).tolist()


@pytest.mark.parametrize("resource", [Resource.CPU, Resource.MEMORY, Resource.REQUESTS])
def test_an_hpa_that_may_not_give_more_makes_usage_a_bound(panel: UsagePanel, resource: Resource) -> None:
    """Of whatever resource, and once however many kube-state-metrics tell it."""
    assert bounds(panel, "held", resource) == HELD


def test_the_controller_tells_it_of_its_own_workloads(panel: UsagePanel) -> None:
    """Whatever namespace the controller runs in itself."""
    assert bounds(panel, "by-foresize", Resource.CPU) == HELD


@pytest.mark.parametrize("name", ["enough", "limited-below", "fixed"])
def test_all_else_is_demand(panel: UsagePanel, name: str) -> None:
    """At the maximum as no more is wanted; limited in its pace below it; and with one number of replicas always."""
    assert bounds(panel, name, Resource.CPU) == []


def test_what_uses_nothing_wants_no_more(panel: UsagePanel) -> None:
    """Whatever its autoscaler says."""
    assert bounds(panel, "idle", Resource.CPU) == []


def test_it_is_said_in_words(panel: UsagePanel) -> None:
    """In how many steps, and what may be why."""
    row = panel.row(SeriesKey("shop/StatefulSet/held", Resource.CPU))

    assert panel.bounds_in_words(STEPS)[row] == (len(HELD), "throttled or held at its most replicas")
