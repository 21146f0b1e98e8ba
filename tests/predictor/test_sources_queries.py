"""What queries of workloads' owners say is read beside the usage, and none of them is in the way of another."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from autoscaler.controller.autoscalers import Indicator, IndicatorKind
from pipelines.demo.local_prometheus import LocalPrometheus
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.sources.queries import WithQueries
from predictor.usage.panel import Resource, SeriesKey, Severity, UsagePanel
from tests.support.http_answers import Answer, answering, unused_url
from tests.support.prometheus import STEP, a_pod, a_prometheus, a_series

pytestmark = pytest.mark.real

STEPS = 576
START = (int(time.time()) // 86_400 - 4) * 86_400
END = START + (STEPS - 1) * STEP
WAITING = np.arange(STEPS, dtype=np.float64)
SPAN = {"start_seconds": START, "end_seconds": END, "step_seconds": STEP}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPrometheus]:
    series = [
        a_series("jobs_waiting", WAITING, namespace="shop", queue="mail"),
        a_series("jobs_waiting", WAITING * 2, namespace="shop", queue="bills"),
        a_series("jobs_waiting", WAITING * 1000, namespace="bank", queue="mail"),
        *a_pod("cart-0", cores=[2.0] * STEPS),
        *(
            a_series("took_seconds_bucket", np.arange(STEPS) * STEP * below, namespace="shop", service="web", le=le)
            for le, below in (("0.1", 0.0), ("0.5", 9.0), ("+Inf", 10.0))
        ),
    ]
    with a_prometheus(tmp_path_factory.mktemp("queries"), series, start_seconds=START) as running:
        yield running


def custom(name: str, namespace: str = "shop") -> SeriesKey:
    return SeriesKey(f"{namespace}/Deployment/{name}", Resource.CUSTOM)


def a_source(prometheus: LocalPrometheus, folder: Path | None = None) -> PrometheusSource:
    return PrometheusSource(PrometheusEndpoint(url=prometheus.url), scrape_interval_seconds=STEP, cache_folder=folder)


def why_not(panel: UsagePanel) -> dict[str, str]:
    return {f.workload.rpartition("/")[2]: f.message for f in panel.findings if f.severity is Severity.BROKEN}


def test_a_query_is_read_as_usage_is(prometheus: LocalPrometheus, tmp_path: Path) -> None:
    """A sample stands for the step that ends where the query is evaluated; each namespace has its own; so from disk."""
    queries = {custom("mailer"): "sum(jobs_waiting)", custom("vault", "bank"): "scalar(sum(jobs_waiting))"}
    for _ in range(2):
        read = a_source(prometheus, tmp_path).fetch_queries(queries, **SPAN)

        assert read.keys == tuple(sorted(queries))
        np.testing.assert_array_equal(read.usage[read.row(custom("mailer"))], WAITING * 3)
        np.testing.assert_array_equal(read.usage[read.row(custom("vault", "bank"))], WAITING * 1000)
        assert not why_not(read)


def test_each_query_that_fails_says_why_and_the_others_are_read(prometheus: LocalPrometheus) -> None:
    """Refused by us, refused by Prometheus, several series, none."""
    queries = {
        custom("good"): "sum(jobs_waiting)",
        custom("other"): 'sum(jobs_waiting{namespace="bank"})',
        custom("nonsense"): "summ(jobs_waiting)",
        custom("clash"): "jobs_waiting + on () jobs_waiting",
        custom("several"): "jobs_waiting",
        custom("nothing"): "sum(jobs_wating)",
    }
    read = a_source(prometheus).fetch_queries(queries, **SPAN)
    said = why_not(read)

    assert read.keys == (custom("good"),)
    assert 'reads what is not namespace="shop"' in said["other"]
    assert "unknown function" in said["nonsense"] or "not PromQL" in said["nonsense"]
    assert "many-to-many" in said["clash"] or "duplicate series" in said["clash"]
    assert "2 series, such as" in said["several"]
    assert "put sum(…)" in said["several"]
    assert said["nothing"] == "the query matches nothing in its own namespace"


def test_a_slow_query_is_given_up_in_time() -> None:
    """The cycle that asked goes on."""
    with answering(lambda asked, number: Answer(delay_seconds=5)) as slow:
        source = PrometheusSource(PrometheusEndpoint(url=slow.url))
        began = time.monotonic()
        read = source.fetch_queries({custom("slow"): "sum(jobs)"}, **SPAN, within_seconds=1.0)

    assert time.monotonic() - began < 10
    assert "did not answer within" in why_not(read)["slow"]


def test_a_store_that_is_gone_is_said_of_each_query() -> None:
    """No error that would take the usage with it."""
    source = PrometheusSource(PrometheusEndpoint(url=unused_url(), retries=0))

    assert "cannot be reached" in why_not(source.fetch_queries({custom("a"): "sum(jobs)"}, **SPAN))["a"]


def test_training_reads_both_from_one_source(prometheus: LocalPrometheus) -> None:
    """Usage and queries on one grid, with the findings of both."""
    source = WithQueries(a_source(prometheus), {custom("mailer"): "sum(jobs_waiting)", custom("bad"): "jobs_waiting"})
    read = source.fetch(start_seconds=START, end_seconds=END, step_seconds=STEP)

    assert {key.resource for key in read.keys} == {Resource.CPU, Resource.MEMORY, Resource.CUSTOM}
    np.testing.assert_array_equal(read.usage[read.row(custom("mailer"))], WAITING * 3)
    assert "bad" in why_not(read)
    assert {f.resource for f in read.findings} >= {"gpu", "custom"}


def test_a_value_is_read_as_it_is(prometheus: LocalPrometheus) -> None:
    """One step of anything, which as demand would be refused: below 0, infinite, no number."""
    end = {"start_seconds": END, "end_seconds": END, "step_seconds": STEP}
    queries = {custom("a"): "-sum(jobs_waiting)", custom("b"): "sum(jobs_waiting) / 0", custom("c"): "jobs_waiting"}

    read = a_source(prometheus).fetch_values(queries, **end)

    assert read.usage[read.row(custom("a"))].tolist() == [-3 * WAITING[-1]]
    assert np.isinf(read.usage[read.row(custom("b"))]).all()
    assert "series, such as" in why_not(read)["c"]


def test_a_histogram_gives_the_latency_at_its_percentile(prometheus: LocalPrometheus) -> None:
    """Of the object's namespace and the matchers given: nine of ten requests took 0.1 to 0.5 s."""
    end = {"start_seconds": END, "end_seconds": END, "step_seconds": STEP}
    asked = Indicator(IndicatorKind.LATENCY, 0.25, histogram='took_seconds{service="web"}', percentile=45.0)
    other = Indicator(IndicatorKind.LATENCY, 0.25, histogram='took_seconds{service="other"}')

    read = a_source(prometheus).fetch_values(
        {custom("web"): asked.promql(2 * STEP), custom("other"): other.promql(2 * STEP)}, **end
    )

    assert read.usage[read.row(custom("web"))][0] == pytest.approx(0.3, rel=1e-3)
    assert "other" in why_not(read)
