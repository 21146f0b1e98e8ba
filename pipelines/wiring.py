"""Builds what the flows are handed, from settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.flows.clock import Told
    from pipelines.settings import Settings
    from pipelines.tracking.mlflow import MlflowTracker
    from predictor.registry.mlflow import MlflowBundleStore
    from predictor.serving.ports import UsageSource
    from predictor.usage.node_pools import NodePools
    from predictor.usage.panel import SeriesKey, UsagePanel
    from predictor.usage.ready import ReadyTimes


def build_tracker(settings: "Settings") -> "MlflowTracker":
    """MLflow, as `registry` in the settings says."""
    from pipelines.tracking.mlflow import MlflowTracker

    registry = settings.registry
    return MlflowTracker(
        settings.tracking_uri, registry.experiment, registry.model_name, registry.alias, registry.timeout
    )


def build_training_store(settings: "Settings") -> "MlflowBundleStore":
    """Where the champion is read from when a challenger is judged: the registry itself, never a local copy."""
    from predictor.registry.mlflow import MlflowBundleStore

    return MlflowBundleStore(settings.tracking_uri, settings.registry.model_name, settings.registry.timeout)


def history_end_seconds(settings: "Settings", source: "UsageSource", now_seconds: float) -> int:
    """When the newest step to train on starts: a file's last one, or the last that is over by now."""
    from predictor.sources.files import FileSource, MemorySource

    step_seconds = int(settings.history.step.total_seconds())
    if isinstance(source, FileSource):
        return source.panel(step_seconds).end_seconds
    if isinstance(source, MemorySource):
        return source.panel.end_seconds
    return int(now_seconds) // step_seconds * step_seconds - step_seconds


def build_training_source(settings: "Settings", history: Path | None, autoscalers: Path | None) -> "UsageSource":
    """The usage that `build_source` offers, with what the queries of those PredictiveAutoscalers say beside it.

    Raises InvalidUsage for a file of objects that cannot be read or followed.
    """
    from predictor.sources.prometheus import PrometheusSource
    from predictor.sources.queries import WithQueries
    from predictor.wiring import build_source

    source = build_source(settings, history)
    if autoscalers is None or not isinstance(source, PrometheusSource):
        return source
    return WithQueries(source, queries_in(autoscalers))


def queries_in(path: Path) -> "dict[SeriesKey, str]":
    """The queries of the PredictiveAutoscalers in a file of manifests, or in all of a folder, by what they stand for.

    Objects are taken as they are applied and as kubectl prints them, lists too; other kinds are passed over. Raises
    InvalidUsage for what is not YAML, for an object that cannot be followed, and where there is no such object at all.
    """
    import yaml

    from autoscaler.controller.autoscalers import KIND
    from autoscaler.kube.objects import autoscaler_of
    from predictor.errors import InvalidUsage
    from predictor.usage.panel import SeriesKey

    files = sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml", ".json")) if path.is_dir() else [path]
    found: dict[SeriesKey, str] = {}
    seen = 0
    for file in files:
        try:
            documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InvalidUsage(f"{file}: cannot be read as YAML: {error}") from error
        for document in documents:
            items = document.get("items", [document]) if isinstance(document, dict) else []
            for item in items if isinstance(items, list) else []:
                if not isinstance(item, dict) or item.get("kind") != KIND:
                    continue
                metadata = item.get("metadata") or {}
                if missing := [name for name in ("namespace", "name") if not metadata.get(name)]:
                    raise InvalidUsage(f"{file}: a {KIND} without metadata.{missing[0]}; add it")
                read = autoscaler_of({**item, "metadata": {"uid": "", **metadata}})
                if read.problem:
                    raise InvalidUsage(f"{file}: {KIND} {read.key}: {read.problem}")
                seen += 1
                if read.query:
                    found[SeriesKey(read.workload, read.resource)] = read.query
    if not seen:
        raise InvalidUsage(f"{path}: holds no {KIND}; give what `kubectl get {KIND.lower()}s -A -o yaml` prints")
    return found


def read_placement(path: Path) -> dict[str, str]:
    """The node of each workload, from a table with those two columns. Raises InvalidUsage for any other table."""
    from predictor.errors import InvalidUsage
    from predictor.sources.files import read_table

    columns = ["workload", "node"]
    table = read_table(path, columns)
    if missing := [name for name in columns if name not in table]:
        raise InvalidUsage(f"{path}: no column {missing[0]!r}; a placement has the columns workload and node")
    if table.empty:
        raise InvalidUsage(f"{path}: 0 rows; a placement has a row for each workload")
    if len(nameless := table.index[table["workload"].isna()]):
        raise InvalidUsage(f"{path}: row {nameless[0] + 1} names no workload")
    pairs = table[columns].dropna().astype(str).drop_duplicates()
    if twice := sorted(pairs.loc[pairs["workload"].duplicated(), "workload"]):
        raise InvalidUsage(f"{path}: {twice[0]!r} is on more than one node; a placement has a node for each workload")
    return dict(zip(pairs["workload"], pairs["node"], strict=True))


def fetch_history(settings: "Settings", source: "UsageSource", now_seconds: float, told: "Told") -> "UsagePanel":
    """The newest `history.span` of the source on the settings' step."""
    step_seconds = int(settings.history.step.total_seconds())
    told("fetch", 0, 1)
    end = history_end_seconds(settings, source, now_seconds) // step_seconds * step_seconds
    start = end - int(settings.history.span.total_seconds()) // step_seconds * step_seconds + step_seconds

    def progress(done: int, total: int) -> None:
        if done < total:
            told("fetch", done, total)

    panel = source.fetch(start_seconds=start, end_seconds=end, step_seconds=step_seconds, progress=progress)
    told("fetch", 1, 1)
    return panel


def fetch_pools(source: "UsageSource", start_seconds: int, end_seconds: int, step_seconds: int) -> "NodePools | None":
    """The node pools, or None where the source does not know any, as a file does not."""
    from predictor.sources.prometheus import PrometheusSource

    if not isinstance(source, PrometheusSource):
        return None
    pools = source.fetch_node_pools(start_seconds=start_seconds, end_seconds=end_seconds, step_seconds=step_seconds)
    return pools if pools.names else None


def fetch_ready_times(source: "UsageSource", panel: "UsagePanel", told: "Told") -> "ReadyTimes | None":
    """How long the pods of a history's workloads took to get Ready, or None where the source cannot know, as a file."""
    from predictor.sources.prometheus import PrometheusSource
    from predictor.usage.panel import Resource

    if not isinstance(source, PrometheusSource):
        return None
    told("ready times", 0, 1)
    times = source.fetch_ready_times(
        {panel.keys[row].workload for row in panel.rows(Resource.CPU)},
        start_seconds=panel.start_seconds,
        end_seconds=panel.end_seconds,
        step_seconds=panel.step_seconds,
        progress=lambda done, total: told("ready times", done, total) if done < total else None,
    )
    told("ready times", 1, 1)
    return times


@dataclass(frozen=True)
class DemoHistory:
    """The demo's history, ready to be read."""

    source: "UsageSource"
    end_seconds: int
    """When its last step starts."""
    origin: str
    """Where it is read from, for a person."""


DEMO_REUSE_SECONDS = 7 * 86_400
"""A history that ended longer ago is made anew, so that the demo speaks of this week."""


@contextmanager
def demo_history(
    settings: "Settings", folder: Path, *, seed: int, days: int, now_seconds: float, told: "Told"
) -> Iterator[DemoHistory]:
    """The made-up cluster's history in a running Prometheus, or in Parquet where there is none to be had.

    It ends at the midnight (UTC) before it was first made; the same one is reused for a week.
    """
    from pipelines.demo.local_prometheus import find_prometheus, local_prometheus
    from pipelines.demo.openmetrics import demo_data
    from pipelines.errors import DemoUnavailable
    from predictor.wiring import build_source

    end = _demo_end(folder, seed, days, int(now_seconds))
    last_step = end - int(settings.history.step.total_seconds())

    def progress(done: int, total: int) -> None:
        if done < total:
            told("history", done, total)

    told("history", 0, 1)
    try:
        programs = find_prometheus()
    except DemoUnavailable as problem:
        file = _demo_parquet(folder, seed, days, end)
        told("history", 1, 1)
        yield DemoHistory(build_source(settings, file), last_step, f"{file} ({problem})")
        return
    data = demo_data(folder, seed=seed, end_seconds=end, days=days, promtool=programs.promtool, progress=progress)
    told("history", 1, 1)
    with local_prometheus(data, programs=programs) as running:
        prometheus = settings.prometheus.model_copy(update={"url": running.url, "cache_name": data.name})
        source = build_source(settings.model_copy(update={"prometheus": prometheus}))
        yield DemoHistory(source, last_step, f"a Prometheus on loopback over {data}")


def _demo_end(folder: Path, seed: int, days: int, now_seconds: int) -> int:
    """The end of the newest history of this seed and length that is recent enough, else last midnight."""
    made = [path.name.split("-") for path in folder.glob(f"demo-{seed}-*-{days}d-*") if "unfinished" not in path.name]
    ends = [int(parts[2]) for parts in made if parts[2].isdigit()]
    recent = [end for end in ends if 0 <= now_seconds - end < DEMO_REUSE_SECONDS]
    return max(recent) if recent else now_seconds // 86_400 * 86_400


def _demo_parquet(folder: Path, seed: int, days: int, end_seconds: int) -> Path:
    from pipelines.demo.world import demo_world
    from predictor.usage.table import table_from_panel

    file = folder / f"demo-{seed}-{end_seconds}-{days}d.parquet"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        table_from_panel(demo_world(seed=seed, end_seconds=end_seconds, days=days).truth).to_parquet(part)
        part.replace(file)
    return file
