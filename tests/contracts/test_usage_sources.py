"""The same usage, whether it is read from Prometheus, a file or memory: one contract, every source."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.forecast import FloatArray
from predictor.errors import InvalidUsage, SourceUnavailable
from predictor.serving.ports import UsageSource
from predictor.sources.files import FileSource, MemorySource
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.prometheus import PrometheusSource
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from predictor.usage.table import table_from_panel
from tests.support.prometheus import STEP, a_pod, a_prometheus, a_series

STEPS = 288
START = (int(time.time()) // 86_400 - 3) * 86_400
END = START + (STEPS - 1) * STEP
CORES = {
    "web": 2 + np.sin(np.arange(STEPS) / 20),
    "db": np.linspace(0.5, 1.5, STEPS),
}


def the_panel() -> UsagePanel:
    """Two StatefulSets of one pod each; the first step of CPU is not known, as a counter needs two samples."""
    rows: dict[SeriesKey, tuple[FloatArray, float]] = {}
    for name, cores in CORES.items():
        known = cores.copy()
        known[0] = np.nan
        rows[SeriesKey(f"shop/StatefulSet/{name}", Resource.CPU)] = (known, 2.0)
        rows[SeriesKey(f"shop/StatefulSet/{name}", Resource.MEMORY)] = (np.full(STEPS, 1e9), np.nan)
    keys = tuple(sorted(rows))
    usage = np.stack([rows[key][0] for key in keys])
    request = np.repeat([[rows[key][1]] for key in keys], STEPS, axis=1)
    return UsagePanel(keys, START, STEP, usage, {"request": request, "replicas": np.ones_like(usage)})


@pytest.fixture(scope="module")
def prometheus_source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UsageSource]:
    """The panel in a real Prometheus."""
    series = []
    for name, cores in CORES.items():
        ids = {"namespace": "shop", "pod": f"{name}-0"}
        series += a_pod(f"{name}-0", cores=cores.tolist(), owner=("StatefulSet", name))
        asked = [2.0] * STEPS
        series.append(a_series("kube_pod_container_resource_requests", asked, **ids, container="main", resource="cpu"))
        series.append(a_series("kube_statefulset_replicas", [1.0] * STEPS, namespace="shop", statefulset=name))
    with a_prometheus(tmp_path_factory.mktemp("contract"), series, start_seconds=START) as running:
        yield PrometheusSource(PrometheusEndpoint(url=running.url), scrape_interval_seconds=STEP)


@pytest.fixture(
    params=["memory", "parquet", "csv", pytest.param("prometheus", marks=pytest.mark.real)],
)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> UsageSource:
    """Each source, holding the same usage."""
    if request.param == "prometheus":
        found: UsageSource = request.getfixturevalue("prometheus_source")
        return found
    if request.param == "memory":
        return MemorySource(the_panel())
    path = tmp_path / f"history.{request.param}"
    table = table_from_panel(the_panel())
    if request.param == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return FileSource(path)


def test_every_source_gives_the_same_panel(source: UsageSource) -> None:
    """Keys, grid, usage, gaps, requests and replicas."""
    expected = the_panel()

    panel = source.fetch(start_seconds=START, end_seconds=END, step_seconds=STEP)

    assert panel.keys == expected.keys
    assert (panel.start_seconds, panel.step_seconds, panel.steps) == (START, STEP, STEPS)
    np.testing.assert_allclose(panel.usage, expected.usage, rtol=1e-6)
    # A table holds attributes only where it holds a sample, so the step before the first one is left aside.
    np.testing.assert_allclose(panel.attributes["request"][:, 1:], expected.attributes["request"][:, 1:])
    np.testing.assert_allclose(panel.attributes["replicas"][:, 1:], 1.0)


def test_every_source_gives_only_what_was_asked_for(source: UsageSource) -> None:
    """One resource, and a span that reaches beyond what is known: the steps there hold no sample."""
    end = START + 4 * STEP

    panel = source.fetch(
        start_seconds=START - 10 * STEP, end_seconds=end + 4 * STEP, step_seconds=STEP, resources=(Resource.MEMORY,)
    )

    assert {key.resource for key in panel.keys} == {Resource.MEMORY}
    assert panel.end_seconds == end + 4 * STEP
    assert np.isnan(panel.usage[:, :10]).all()
    np.testing.assert_allclose(panel.usage[:, 10:], 1e9)


def test_every_source_tells_the_same_of_odd_series(source: UsageSource) -> None:
    """A constant series is a constant series wherever it comes from."""
    panel = source.fetch(start_seconds=START, end_seconds=END, step_seconds=STEP)

    constant = {finding.workload for finding in panel.findings if "constant at 1e+09" in finding.message}
    assert constant == {"shop/StatefulSet/db", "shop/StatefulSet/web"}


def test_every_source_tells_its_progress(source: UsageSource) -> None:
    """Up to the whole."""
    told: list[tuple[int, int]] = []
    source.fetch(
        start_seconds=START, end_seconds=END, step_seconds=STEP, progress=lambda done, total: told.append((done, total))
    )

    assert told
    assert told[-1][0] == told[-1][1]


def test_no_source_accepts_a_span_that_ends_before_it_starts(source: UsageSource) -> None:
    """A slip of the caller is named, not answered with an empty panel."""
    with pytest.raises(InvalidUsage, match="no time to fetch"):
        source.fetch(start_seconds=END, end_seconds=START, step_seconds=STEP)


def test_a_file_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    """Named."""
    with pytest.raises(SourceUnavailable, match=r"there is no file .*nowhere\.parquet"):
        FileSource(tmp_path / "nowhere.parquet").panel()


@pytest.mark.parametrize("name", ["history.parquet", "history.txt"])
def test_a_file_that_is_no_table_is_invalid(tmp_path: Path, name: str) -> None:
    """Damaged, or of a kind that is not read."""
    path = tmp_path / name
    path.write_bytes(b"PAR1 but not really")

    with pytest.raises(InvalidUsage, match=name):
        FileSource(path).panel()


def test_a_file_without_a_column_names_file_and_column(tmp_path: Path) -> None:
    """So that the user knows what to add where."""
    path = tmp_path / "history.csv"
    table_from_panel(the_panel()).drop(columns="usage").to_csv(path, index=False)

    with pytest.raises(InvalidUsage, match=r"history\.csv: .*no column 'usage'"):
        FileSource(path).panel()


def test_grids_that_do_not_meet_are_refused() -> None:
    """A panel is never shifted silently by half a step."""
    source = MemorySource(replace(the_panel(), start_seconds=START + 60))

    with pytest.raises(InvalidUsage, match="does not meet"):
        source.fetch(start_seconds=START, end_seconds=END, step_seconds=STEP)
