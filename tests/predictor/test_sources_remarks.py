"""What a source says beside its numbers, and how it ends when one of many queries fails."""

import time
from pathlib import Path

import pytest

from predictor.errors import SourceRefused, SourceUnavailable
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.usage.panel import Resource, Severity
from tests.support.http_answers import (
    Answer,
    Asked,
    a_matrix,
    an_error,
    answering,
    evaluated,
    seconds_since,
    unused_url,
)

DAY = 86_400
START = (int(time.time()) // DAY - 10) * DAY


def with_a_warning(asked: Asked, _: int) -> Answer:
    """One workload's CPU, and a remark of each kind."""
    series = evaluated(asked)
    series["metric"] = {"namespace": "shop", "owner_kind": "Deployment", "owner_name": "cart", "what": "cpu"}
    return a_matrix(series, warnings=["PromQL warning: odd buckets"], infos=["PromQL info: might not be a counter"])


def test_remarks_of_prometheus_are_findings_and_are_not_cached_away(tmp_path: Path) -> None:
    """A warning is a warning, an info a note, each once however many days said it, and again the next time."""
    with answering(with_a_warning) as server:
        source = PrometheusSource(PrometheusEndpoint(url=server.url), cache_folder=tmp_path)
        panels = [
            source.fetch(start_seconds=START, end_seconds=START + 3 * DAY, step_seconds=3600, resources=(Resource.CPU,))
            for _ in range(2)
        ]

    for panel in panels:
        said = [(finding.severity, finding.message) for finding in panel.findings if finding.resource == "containers"]
        assert said == [
            (Severity.WARNING, "Prometheus warns: PromQL warning: odd buckets"),
            (Severity.NOTE, "Prometheus notes: PromQL info: might not be a counter"),
        ]
    assert not list(tmp_path.rglob("*.npz-checked"))


def test_one_refused_query_ends_the_whole_fetch_at_once() -> None:
    """Nothing partial is returned, and what was still to be asked is not asked any more."""
    with answering(an_error(422, "execution", "no")) as server:
        source = PrometheusSource(PrometheusEndpoint(url=server.url, max_parallel=2))
        with pytest.raises(SourceRefused):
            source.fetch(start_seconds=START, end_seconds=START + 8 * DAY, step_seconds=300)

        assert len(server.asked) < 10


def test_a_fetch_from_a_prometheus_that_is_away_ends_soon_with_retries() -> None:
    """Two attempts with back-off, then the error: a controller's cycle can wait for that."""
    source = PrometheusSource(PrometheusEndpoint(url=unused_url(), retries=1))
    start = time.monotonic()

    with pytest.raises(SourceUnavailable, match="cannot be reached"):
        source.fetch(start_seconds=START, end_seconds=START + 8 * DAY, step_seconds=300)

    assert seconds_since(start) < 3


def test_progress_that_is_interrupted_ends_the_fetch() -> None:
    """Ctrl-C while waiting: the error comes through and the threads are gone with it."""

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with answering(with_a_warning) as server:
        source = PrometheusSource(PrometheusEndpoint(url=server.url))
        with pytest.raises(KeyboardInterrupt):
            source.fetch(start_seconds=START, end_seconds=START + 8 * DAY, step_seconds=3600, progress=interrupted)
