"""The made-up history, filled into a real Prometheus and read back as it truly was."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest

from pipelines.demo.local_prometheus import LocalPrometheus, PrometheusPrograms, find_prometheus, local_prometheus
from pipelines.demo.openmetrics import MANIFEST, demo_data
from pipelines.demo.world import STEP_SECONDS, demo_world
from pipelines.errors import DemoUnavailable
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.usage.panel import Resource
from tests.support.http_answers import Answer, answering
from tests.support.missing import without
from tests.support.prometheus import a_prometheus

DAYS = 2
END = int(time.time()) // 86_400 * 86_400
START = END - DAYS * 86_400
SEED = 3


@pytest.fixture(scope="module")
def programs() -> PrometheusPrograms:
    """The real programs; without them these tests cannot be run."""
    try:
        return find_prometheus()
    except DemoUnavailable as reason:
        without(reason)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, programs: PrometheusPrograms) -> Path:
    """Two days of the world in a data folder."""
    return demo_data(tmp_path_factory.mktemp("demo"), seed=SEED, end_seconds=END, days=DAYS, promtool=programs.promtool)


@pytest.fixture(scope="module")
def prometheus(data: Path, programs: PrometheusPrograms) -> Iterator[LocalPrometheus]:
    """A Prometheus over them."""
    with local_prometheus(data, programs=programs) as running:
        yield running


@pytest.mark.real
def test_what_prometheus_tells_is_what_happened(prometheus: LocalPrometheus) -> None:
    """Every workload and resource, through counters, owners, restarts and deploys: most steps to a thousandth."""
    truth = demo_world(seed=SEED, end_seconds=END, days=DAYS).truth
    source = PrometheusSource(PrometheusEndpoint(url=prometheus.url), scrape_interval_seconds=STEP_SECONDS)

    panel = source.fetch(start_seconds=START, end_seconds=END - STEP_SECONDS, step_seconds=STEP_SECONDS)

    assert panel.keys == truth.keys
    assert panel.node_pool == {workload: truth.node_pool[workload] for workload in panel.workloads}
    assert panel.kin == {workload: truth.kin[workload] for workload in panel.workloads}
    # DCGM's utilisation is in whole percent, and an idle container's counter in milliseconds.
    coarse = np.asarray([0.01 if key.resource is Resource.GPU else 1e-4 for key in panel.keys])[:, np.newaxis]
    near = np.abs(panel.usage - truth.usage) <= 1e-3 * truth.usage + coarse
    known = ~np.isnan(panel.usage)
    assert not (known & np.isnan(truth.usage)).any()
    assert known.mean() > 0.93 * (~np.isnan(truth.usage)).mean()
    assert near[known].mean() > 0.99
    # What was throttled is told by two scrapes, as usage is, and a kill by the count of starts.
    told, true = panel.attributes["cut_off"], truth.attributes["cut_off"]
    known = ~np.isnan(told)
    assert not (known & np.isnan(true)).any()
    assert (np.abs(told - true)[known] < 0.02).mean() > 0.99
    memory = panel.rows(Resource.MEMORY)
    np.testing.assert_array_equal(told[memory] > 0, (true[memory] > 0) & known[memory])


@pytest.mark.real
def test_node_pools_are_what_the_catalogue_says(prometheus: LocalPrometheus) -> None:
    """Five general nodes of 15.6 cores, two GPU nodes of four devices."""
    source = PrometheusSource(PrometheusEndpoint(url=prometheus.url), scrape_interval_seconds=STEP_SECONDS)

    truth = demo_world(seed=SEED, end_seconds=END, days=DAYS).node_pools

    pools = source.fetch_node_pools(start_seconds=START, end_seconds=START + 3600, step_seconds=STEP_SECONDS)

    assert pools.names == ("general", "gpu", "gpu-small", "memory")
    np.testing.assert_allclose(pools.allocatable[Resource.CPU][:, 0], [78.0, 63.0, 15.5, 15.6])
    assert pools.names == truth.names
    for resource, amounts in truth.allocatable.items():
        np.testing.assert_allclose(pools.allocatable[resource], amounts[:, : pools.node_counts.shape[1]])
    np.testing.assert_allclose(pools.node_counts, truth.node_counts[:, : pools.node_counts.shape[1]])


@pytest.mark.real
def test_a_history_that_is_there_is_not_made_again(data: Path, tmp_path: Path) -> None:
    """promtool is not even asked."""
    again = demo_data(data.parent, seed=SEED, end_seconds=END, days=DAYS, promtool=tmp_path / "no-promtool")

    assert again == data


@pytest.mark.real
def test_a_half_made_history_is_made_anew(tmp_path: Path, programs: PrometheusPrograms) -> None:
    """Blocks without their manifest are what a killed process left."""
    made = demo_data(tmp_path, seed=1, end_seconds=END, days=1, promtool=programs.promtool)
    blocks = len(list(made.iterdir()))
    (made / MANIFEST).unlink()
    shutil.rmtree(next(path for path in made.iterdir() if path.is_dir()))

    again = demo_data(tmp_path, seed=1, end_seconds=END, days=1, promtool=programs.promtool)

    assert len(list(again.iterdir())) == blocks


@pytest.mark.parametrize("promtool", ["/bin/false", "/nowhere/promtool"])
def test_a_failing_promtool_leaves_nothing_behind(tmp_path: Path, promtool: str) -> None:
    """The error says what failed; no folder is left that a later run could take for a history."""
    with pytest.raises(DemoUnavailable, match="promtool"):
        demo_data(tmp_path, seed=1, end_seconds=END, days=1, promtool=Path(promtool))

    assert not list(tmp_path.iterdir())


def test_a_missing_prometheus_says_how_to_get_it(tmp_path: Path) -> None:
    """Neither set, nor on PATH, nor in the cache."""
    with pytest.raises(DemoUnavailable, match=r"tools/prometheus\.sh"):
        find_prometheus({"PATH": str(tmp_path), "FORESIZE_CACHE": str(tmp_path)})


def test_the_folder_that_was_set_comes_before_the_path_and_the_cache(tmp_path: Path) -> None:
    """A user who says where it is means it; the cache is the last resort."""
    for place in ("set", "path", "cache/prometheus/bin"):
        (tmp_path / place).mkdir(parents=True)
        for name in ("prometheus", "promtool"):
            (tmp_path / place / name).write_text("#!/bin/sh\n")
            (tmp_path / place / name).chmod(0o755)
    variables = {
        "FORESIZE_PROMETHEUS_BIN": str(tmp_path / "set"),
        "PATH": str(tmp_path / "path"),
        "FORESIZE_CACHE": str(tmp_path / "cache"),
    }

    for variable, place in (("FORESIZE_PROMETHEUS_BIN", "set"), ("PATH", "path"), ("", "cache/prometheus/bin")):
        assert find_prometheus(variables).prometheus == tmp_path / place / "prometheus"
        variables.pop(variable, None)


@pytest.mark.real
def test_a_prometheus_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path, programs: PrometheusPrograms) -> None:
    """A file where the data folder should be."""
    (tmp_path / "data").write_text("not a folder")

    with (
        pytest.raises(DemoUnavailable, match=r"(?s)The end of its log:.*not a directory"),
        local_prometheus(tmp_path / "data", programs=programs),
    ):
        pass


@pytest.mark.real
def test_a_prometheus_scrapes_what_it_is_told_and_can_be_stopped(tmp_path: Path) -> None:
    """Its answer holds the target's metric; once stopped, nothing answers any more."""
    metrics = Answer(body=b"answers_total 42\n", headers={"content-type": "text/plain; version=0.0.4"})
    with (
        answering(metrics) as target,
        a_prometheus(tmp_path, scrape_targets={"ours": [target.url.removeprefix("http://")]}) as running,
        httpx2.Client(trust_env=False) as client,
    ):
        deadline = time.monotonic() + 15
        found: list[object] = []
        while not found and time.monotonic() < deadline:
            answer = client.get(f"{running.url}/api/v1/query", params={"query": 'answers_total{job="ours"}'})
            found = answer.json()["data"]["result"]
            time.sleep(0.1)
        assert found

        running.stop()
        with pytest.raises(httpx2.TransportError):
            client.get(running.url)
