"""Usage read from Prometheus. The PromQL is in `promql.py`, the wire in `http.py`, the days on disk in `cache.py`."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from predictor.errors import InvalidUsage, PredictorError, QueryRefused, SourceRefused
from predictor.serving.ports import Progress
from predictor.sources.assembly import (
    Answers,
    Part,
    PlacedHistory,
    ReadyPods,
    assembled_containers,
    assembled_gpus,
    assembled_node_usage,
    assembled_panel,
    assembled_part,
    assembled_pools,
    assembled_queries,
    assembled_ready,
    assembled_throttled,
    has_series,
    remarks,
)
from predictor.sources.cache import DayCache
from predictor.sources.discovery import MetricsFound, find_metrics
from predictor.sources.held import held_to_namespace
from predictor.sources.http import PrometheusClient, PrometheusEndpoint
from predictor.sources.matrix import Matrix, joined_in_time
from predictor.sources.promql import (
    METRICS,
    PLACED_METRICS,
    POOL_METRICS,
    READY_TIME_METRICS,
    ClusterLabels,
    Queries,
)
from predictor.usage.containers import ContainerUsage
from predictor.usage.node_pools import NodePools
from predictor.usage.panel import Finding, Resource, SeriesKey, Severity, UsagePanel
from predictor.usage.placed import MeanPods, NodeGpus, NodeUsage, Placed
from predictor.usage.ready import ReadyHistory, ReadyTimes
from predictor.usage.table import checked_series
from predictor.usage.throttled import ThrottledHistory

DAY = 86_400
COUNTED = frozenset({Resource.CPU, Resource.REQUESTS})
"""Resources that are read as the rate of a counter, which takes two scrapes in a range."""
SETTLED_SECONDS = 6 * 3600
"""A day is kept in the cache only this long after its end: Thanos and remote write bring samples late."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of one query's time. `keep` is the half-open range of its points that was asked for."""

    query: str
    start_seconds: int
    step_seconds: int
    points: int
    keep: tuple[int, int]
    is_settled_day: bool


@dataclass(frozen=True, slots=True)
class Grid:
    """The steps that start at start, start+step, … up to end (inclusive), in epoch seconds."""

    start_seconds: int
    end_seconds: int
    step_seconds: int

    @property
    def steps(self) -> int:
        """How many steps."""
        return (self.end_seconds - self.start_seconds) // self.step_seconds + 1

    def coarse(self) -> "Grid":
        """About one step an hour within the same time, for what hardly ever changes."""
        step = max(3600 // self.step_seconds, 1) * self.step_seconds
        first = -(-self.start_seconds // step) * step
        last = (self.end_seconds + self.step_seconds) // step * step - step
        return Grid(first, last, step) if last >= first else self

    def newest(self, now_seconds: int) -> "Grid":
        """The last whole hour within the same time that is over, for what is asked once; the first where none is."""
        coarse = self.coarse()
        over = (now_seconds - coarse.start_seconds) // coarse.step_seconds
        last = coarse.start_seconds + max(min(coarse.steps, over) - 1, 0) * coarse.step_seconds
        return Grid(last, last, coarse.step_seconds)

    def __str__(self) -> str:
        first, last = (datetime.fromtimestamp(s, tz=UTC) for s in (self.start_seconds, self.end_seconds))
        return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


class PrometheusSource:
    """A UsageSource that asks Prometheus, Thanos, Mimir or VictoriaMetrics.

    `service_workloads` says which workload an ingress Service (`namespace/service`) stands for where it does not
    bear the workload's name, for example `{"shop/cart-http": "shop/Deployment/cart"}`.
    Without a `cache_folder` nothing is kept on disk.
    """

    def __init__(
        self,
        endpoint: PrometheusEndpoint,
        *,
        labels: ClusterLabels | None = None,
        scrape_interval_seconds: int = 60,
        cache_folder: Path | None = None,
        service_workloads: Mapping[str, str] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._labels = labels or ClusterLabels()
        self._scrape_interval_seconds = scrape_interval_seconds
        self._cache = DayCache(cache_folder, endpoint.fingerprint) if cache_folder else None
        self.service_workloads = dict(service_workloads or {})

    def fetch(
        self,
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        resources: Collection[Resource] = tuple(Resource),
        progress: Progress | None = None,
    ) -> UsagePanel:
        """Usage of every workload, as `UsageSource.fetch` promises. Steps that are not over yet hold no sample."""
        grid = checked_grid(start_seconds, end_seconds, step_seconds)
        wanted = [resource for resource in METRICS if resource in resources]
        queries, newest = self._queries(step_seconds), grid.newest(int(time.time()))
        asked = _usage_asked(queries, wanted, grid) | _pods_asked(queries, grid.coarse()) | _kin_asked(queries, newest)
        answers = self._ask(asked, progress)
        absent = [resource for resource in wanted if not has_series(answers, resource)]
        if absent == wanted:
            raise self.nothing_of(wanted, grid)
        panel = assembled_panel(
            answers,
            wanted,
            start_seconds=start_seconds,
            step_seconds=step_seconds,
            service_workloads=self.service_workloads,
        )
        kept, found = checked_series(panel)
        said = (*panel.findings, *self.absent(absent, grid), *remarks(answers), *self.cache_problem(), *found)
        return replace(kept, findings=said)

    def fetch_part(
        self,
        grid: Grid,
        resources: Collection[Resource],
        *,
        known: Collection[SeriesKey],
        pods: Grid | None,
        kin: Grid | None,
        deadline: float,
        with_cache: bool,
    ) -> tuple[Part, Answers]:
        """A part of what `fetch` reads, and the answers that it is of: usage on one grid, the pools that pods ran in on
        another, and what makes kin on a third.

        Nothing is said of it yet that takes the whole time to tell: a part without any series is no error. `known` are
        the series that other parts have. `deadline` is on the monotonic clock. Raises SourceUnavailable, SourceRefused
        or MalformedAnswer.
        """
        wanted = [resource for resource in METRICS if resource in resources]
        queries = self._queries(grid.step_seconds)
        asked = _usage_asked(queries, wanted, grid)
        asked |= _pods_asked(queries, pods) if pods else {}
        asked |= _kin_asked(queries, kin) if kin else {}
        answers = self._ask(asked, None, deadline=deadline, with_cache=with_cache)
        return assembled_part(answers, wanted, known), answers

    def fetch_node_pools(
        self, *, start_seconds: int, end_seconds: int, step_seconds: int, progress: Progress | None = None
    ) -> NodePools:
        """What the nodes of each pool can give to pods, on the grid start, start+step, … up to end (inclusive)."""
        grid = checked_grid(start_seconds, end_seconds, step_seconds)
        queries = self._queries(step_seconds)
        asked = {"allocatable": (queries.pool_allocatable(), grid), "nodes": (queries.pool_nodes(), grid)}
        answers = self._ask(asked, progress)
        if not answers["allocatable"].labels:
            raise SourceRefused(self._nothing_matched(["node pools"], POOL_METRICS, grid))
        return assembled_pools(
            answers,
            start_seconds=start_seconds,
            step_seconds=step_seconds,
            findings=(*remarks(answers), *self.cache_problem()),
        )

    def fetch_containers(
        self, workloads: Collection[str], *, start_seconds: int, end_seconds: int, step_seconds: int
    ) -> ContainerUsage:
        """What the containers of those workloads used in one pod each, on the grid start, … up to end (inclusive).

        A workload that Prometheus knows nothing of is left out. Raises SourceUnavailable, SourceRefused or
        MalformedAnswer.
        """
        grid = checked_grid(start_seconds, end_seconds, step_seconds)
        texts = self._queries(step_seconds).single_containers(workloads)
        answers = self._ask({f"containers {number}": (text, grid) for number, text in enumerate(texts)}, None)
        read = assembled_containers(answers, workloads, start_seconds=start_seconds, step_seconds=step_seconds)
        said = (*remarks(answers), *self.cache_problem())
        highest, mean = (
            replace(kept, findings=(*said, *found)) for kept, found in map(checked_series, (read.highest, read.mean))
        )
        return ContainerUsage(highest, mean)

    def fetch_mean_pods(
        self, names: Collection[Placed], *, start_seconds: int, end_seconds: int, step_seconds: int
    ) -> MeanPods:
        """What the mean pods of workloads on nodes used, on the grid start, start+step, … up to end (inclusive).

        Read day after day, so that of others' pods no more than a day is in memory at a time. Raises SourceUnavailable,
        SourceRefused or MalformedAnswer.
        """
        grid = checked_grid(start_seconds, end_seconds, step_seconds)
        text = self._queries(step_seconds).placed()
        kept = PlacedHistory(tuple(sorted(names)), grid.steps)
        findings: dict[str, Finding] = {}
        size = max(DAY // step_seconds, 1)
        # Days are whole, so that they are found in the cache.
        first = -(start_seconds % DAY // step_seconds) if start_seconds % step_seconds == 0 else 0
        has_any = False
        for begin in range(first, grid.steps, size):
            start = max(begin, 0)
            stop = min(begin + size, grid.steps)
            part = Grid(start_seconds + start * step_seconds, start_seconds + (stop - 1) * step_seconds, step_seconds)
            answers = self._ask({"placed": (text, part)}, None)
            has_any = has_any or bool(answers["placed"].labels)
            kept.add(answers["placed"], start)
            findings |= {str(each): each for each in remarks(answers)}
        if not has_any:
            raise SourceRefused(self._nothing_matched(["pods on nodes"], PLACED_METRICS, grid))
        said = (*findings.values(), *self.cache_problem())
        return MeanPods(kept.names, start_seconds, step_seconds, kept.usage, said)

    def fetch_node_usage(self, now_seconds: float) -> NodeUsage:
        """What is used on each node now: over the least time that always holds two scrapes.

        Raises SourceUnavailable, SourceRefused or MalformedAnswer.
        """
        step = 2 * self._scrape_interval_seconds
        end = int(now_seconds) - step
        queries, grid = self._queries(step), Grid(end, end, step)
        texts = {
            "placed": queries.placed(),
            "cpu pressure": queries.cpu_pressure_of_nodes(),
            "clocks ahead": queries.clocks_ahead(),
        }
        answers = self._ask({name: (text, grid) for name, text in texts.items()}, None)
        return assembled_node_usage(answers, end, end + step)

    def fetch_gpus(self, *, start_seconds: int, end_seconds: int, step_seconds: int) -> NodeGpus:
        """How busy and full the GPUs of nodes were; none where DCGM's exporter is not scraped.

        Raises SourceUnavailable, SourceRefused or MalformedAnswer.
        """
        grid = checked_grid(start_seconds, end_seconds, step_seconds)
        answers = self._ask({"gpus of nodes": (self._queries(step_seconds).gpus_of_nodes(), grid)}, None)
        return assembled_gpus(answers["gpus of nodes"], start_seconds=start_seconds, step_seconds=step_seconds)

    def fetch_queries(
        self,
        queries: Mapping[SeriesKey, str],
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        within_seconds: float | None = None,
    ) -> UsagePanel:
        """The value of each query, as `QuerySource.fetch_queries` promises."""
        panel = self.fetch_values(
            queries,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            step_seconds=step_seconds,
            within_seconds=within_seconds,
        )
        kept, found = checked_series(panel)
        return replace(kept, findings=(*panel.findings, *self.cache_problem(), *found))

    def fetch_values(
        self,
        queries: Mapping[SeriesKey, str],
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        within_seconds: float | None = None,
    ) -> UsagePanel:
        """The same without a look at whether the values can be demand: a few of anything, negative and infinite too."""
        grid = checked_grid(start_seconds, end_seconds, step_seconds)
        asked: dict[SeriesKey, str] = {}
        answers: dict[SeriesKey, Matrix | PredictorError] = {}
        for key, query in sorted(queries.items()):
            try:
                asked[key] = held_to_namespace(query, key.namespace, self._labels.namespace, self._labels.matchers)
            except QueryRefused as refusal:
                answers[key] = refusal
        answers |= self._ask_each(asked, grid, within_seconds)
        return assembled_queries(answers, grid.steps, start_seconds=start_seconds, step_seconds=step_seconds)

    def fetch_bounds(
        self, histograms: Mapping[SeriesKey, str], *, end_seconds: int, step_seconds: int
    ) -> dict[SeriesKey, tuple[str, ...] | PredictorError]:
        """Bounds of the buckets that each histogram has at the end of the step that starts then, as Prometheus writes
        them; none of one that has no series in the namespace of its key.

        A histogram is a name, with matchers where there are some, as an object's `sla.latency.histogram` is.
        """
        asked: dict[SeriesKey, str] = {}
        answers: dict[SeriesKey, tuple[str, ...] | PredictorError] = {}
        for key, histogram in sorted(histograms.items()):
            name, brace, matchers = histogram.partition("{")
            query = f"group by (le) ({name.strip()}_bucket{brace}{matchers})"
            try:
                asked[key] = held_to_namespace(query, key.namespace, self._labels.namespace, self._labels.matchers)
            except QueryRefused as refusal:
                answers[key] = refusal
        for key, answer in self._ask_each(asked, Grid(end_seconds, end_seconds, step_seconds), None).items():
            if isinstance(answer, Matrix):
                answers[key] = tuple(bound for each in answer.labels if (bound := dict(each).get("le")))
            else:
                answers[key] = answer
        return answers

    def fetch_ready(self, workload: str, *, start_seconds: int, end_seconds: int, step_seconds: int) -> ReadyHistory:
        """How many replicas of a workload were Ready, on the grid start, start+step, … up to end (inclusive).

        Raises SourceUnavailable, SourceRefused or MalformedAnswer.
        """
        grid = checked_grid(start_seconds, end_seconds, step_seconds)
        answers = self._ask({"ready": (self._queries(step_seconds).ready(workload), grid)}, None)
        return assembled_ready(answers["ready"], workload)

    def fetch_throttled(
        self, workload: str, *, start_seconds: int, end_seconds: int, step_seconds: int
    ) -> ThrottledHistory:
        """How much of a workload's CPU time was throttled, on the grid start, start+step, … up to end (inclusive).

        Raises SourceUnavailable, SourceRefused or MalformedAnswer.
        """
        grid = checked_grid(start_seconds, end_seconds, step_seconds)
        answers = self._ask({"throttled": (self._queries(step_seconds).throttled(workload), grid)}, None)
        return assembled_throttled(answers["throttled"], workload)

    def fetch_ready_times(
        self,
        workloads: Collection[str],
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        progress: Progress | None = None,
    ) -> ReadyTimes:
        """How long pods of those workloads took to get Ready that were created in that time, one of each pod.

        Asked hour by hour and read day after day, so that no more than a day of pods is in memory at a time. Where
        kube-state-metrics does not show it, a finding says so. Raises SourceUnavailable, SourceRefused or
        MalformedAnswer.
        """
        grid = checked_grid(start_seconds, end_seconds, step_seconds).coarse()
        text = self._queries(grid.step_seconds).first_ready()
        pods = ReadyPods(frozenset(workloads))
        size = DAY // grid.step_seconds or 1
        for first in range(0, grid.steps, size):
            last = min(first + size, grid.steps) - 1
            begin, end = (grid.start_seconds + step * grid.step_seconds for step in (first, last))
            pods.add(self._ask({"first ready": (text, Grid(begin, end, grid.step_seconds))}, None)["first ready"])
            if progress is not None:
                progress(last + 1, grid.steps)
        found = pods.by_workload()
        try:
            missing = () if found else self._found(READY_TIME_METRICS, grid).missing
        except PredictorError:
            missing = ()
        said = (
            f"Prometheus has no series of {', '.join(missing)}, which newer versions of kube-state-metrics show: how "
            "long pods took to get Ready is not known"
        )
        return ReadyTimes(found, (Finding("", "", Severity.NOTE, said),) if missing else ())

    def _ask_each(
        self, asked: Mapping[SeriesKey, str], grid: Grid, within_seconds: float | None
    ) -> dict[SeriesKey, Matrix | PredictorError]:
        """Each query over the whole grid, or why not; a day after the other, so that one takes one of the threads."""
        now, patience = int(time.time()), self.endpoint.deadline_seconds if within_seconds is None else within_seconds
        deadline = time.monotonic() + patience
        endpoint = self.endpoint
        if within_seconds is not None:
            endpoint = replace(endpoint, timeout_seconds=min(endpoint.timeout_seconds, within_seconds / 2), retries=0)
        client = PrometheusClient(endpoint)

        def whole(query: str) -> Matrix | PredictorError:
            pieces = _pieces(query, grid, now, with_cache=self._cache is not None)
            try:
                parts = [self._piece(client, piece, deadline) for piece in pieces]
            except PredictorError as problem:
                return problem
            return joined_in_time(parts).padded(grid.steps)

        try:
            with ThreadPoolExecutor(endpoint.max_parallel, thread_name_prefix="queries") as pool:
                return dict(zip(asked, pool.map(whole, asked.values()), strict=True))
        finally:
            client.close()

    def _queries(self, step_seconds: int) -> Queries:
        return Queries(self._labels, step_seconds, self._scrape_interval_seconds)

    def _ask(
        self,
        asked: Mapping[str, tuple[str, Grid]],
        progress: Progress | None,
        *,
        deadline: float | None = None,
        with_cache: bool = True,
    ) -> Answers:
        """Every query over its whole grid, several days at a time. All of it, or an error."""
        now = int(time.time())
        with_cache = with_cache and self._cache is not None
        if self._cache is not None:
            self._cache.prune(now)
        pieces = {name: list(_pieces(text, grid, now, with_cache=with_cache)) for name, (text, grid) in asked.items()}
        total = sum(len(each) for each in pieces.values())
        until = time.monotonic() + self.endpoint.deadline_seconds if deadline is None else deadline
        client = PrometheusClient(self.endpoint)
        pool = ThreadPoolExecutor(self.endpoint.max_parallel, thread_name_prefix="prometheus")
        try:
            # Day by day over all queries, so that the costly and the cheap ones mix.
            ordered = sorted((piece for each in pieces.values() for piece in each), key=lambda p: p.start_seconds)
            futures = {pool.submit(self._piece, client, piece, until): piece for piece in ordered}
            answers: dict[_Piece, Matrix] = {}
            for done, future in enumerate(as_completed(futures), start=1):
                answers[futures[future]] = future.result()
                if progress is not None:
                    progress(done, total)
        finally:
            client.stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            client.close()
        return {
            name: joined_in_time([answers[piece] for piece in pieces[name]]).padded(grid.steps)
            for name, (_, grid) in asked.items()
        }

    def _piece(self, client: PrometheusClient, piece: _Piece, deadline: float) -> Matrix:
        cache, step_seconds = self._cache if piece.is_settled_day else None, piece.step_seconds
        answer = cache.load(piece.query, step_seconds, piece.start_seconds) if cache else None
        if answer is None:
            answer = client.range(
                piece.query,
                start_seconds=piece.start_seconds + step_seconds,
                points=piece.points,
                step_seconds=step_seconds,
                deadline=deadline,
            )
            if cache and not answer.warnings:
                cache.store(piece.query, step_seconds, piece.start_seconds, answer)
        return answer.part(*piece.keep)

    def cache_problem(self) -> list[Finding]:
        """That answers could not be kept on disk, where it is so."""
        if self._cache is None or not self._cache.problem:
            return []
        return [Finding("", "", Severity.WARNING, f"{self._cache.problem}; went on without it")]

    def absent(self, absent: Sequence[Resource], grid: Grid) -> list[Finding]:
        """What is to be said of resources without any series, while others have some.

        A counter that is there but never twice in a range points to a wrong scrape interval.
        """
        counters = {METRICS[resource][0]: resource for resource in absent if resource in COUNTED}
        try:
            present = self._found(tuple(counters), grid).present if counters else ()
        except PredictorError:
            present = ()
        window = self._queries(grid.step_seconds).counter_range
        findings = []
        for resource in absent:
            metric = METRICS[resource][0]
            if resource in COUNTED and metric in present:
                message = (
                    f"no usage: {metric} is there, but hardly twice within {window}; set "
                    "prometheus.scrape_interval to how often it is really scraped"
                )
                findings.append(Finding("", resource.value, Severity.WARNING, message))
            else:
                message = f"no series; read from {', '.join(METRICS[resource])}"
                findings.append(Finding("", resource.value, Severity.NOTE, message))
        return findings

    def _found(self, metrics: Collection[str], grid: Grid) -> MetricsFound:
        return find_metrics(
            self.endpoint,
            metrics,
            start_seconds=grid.start_seconds,
            end_seconds=grid.end_seconds + grid.step_seconds,
            matchers=self._labels.matchers,
        )

    def nothing_of(self, wanted: Sequence[Resource], grid: Grid) -> SourceRefused:
        """The error for a time in which there is no series of any of the resources, with what may be wrong."""
        return SourceRefused(self._nothing_matched([r.value for r in wanted], _metrics(wanted), grid))

    def _nothing_matched(self, what: Collection[str], metrics: Collection[str], grid: Grid) -> str:
        said = f"Prometheus at {self.endpoint.shown_url} answered, but has no {', '.join(what)} from {grid}. "
        try:
            found = self._found(metrics, grid)
        except PredictorError as error:
            return f"{said}Needed: {', '.join(metrics)} (which of them exist is not known: {error})"
        under = f" under {dict(self._labels.matchers)}" if self._labels.matchers else ""
        if found.missing:
            return (
                f"{said}It has no series of {', '.join(found.missing)}{under}. Check that the kubelet's cAdvisor, "
                "kube-state-metrics and the other exporters are scraped, and for how long data are kept."
            )
        return (
            f"{said}All metrics needed exist{under}, but do not fit together. Check that kube-state-metrics is scraped "
            f"with honor_labels: true and that metrics are scraped at least every {self._scrape_interval_seconds} s "
            "(the setting scrape_interval)."
        )


def _metrics(resources: Iterable[Resource]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for resource in resources for name in METRICS[resource]))


def _usage_asked(queries: Queries, wanted: Collection[Resource], grid: Grid) -> dict[str, tuple[str, Grid]]:
    texts = {"replicas": queries.replicas()}
    if {Resource.CPU, Resource.MEMORY} & set(wanted):
        texts |= {"containers": queries.containers()}
    if {Resource.CPU, Resource.MEMORY, Resource.GPU} & set(wanted):
        texts |= {"asked": queries.asked()}
    if {Resource.GPU, Resource.GPU_MEMORY} & set(wanted):
        texts |= {"gpus": queries.gpus()}
    if Resource.REQUESTS in wanted:
        texts |= {"requests": queries.requests()}
    return {name: (text, grid) for name, text in texts.items()}


def _pods_asked(queries: Queries, grid: Grid) -> dict[str, tuple[str, Grid]]:
    return {"pods by pool": (queries.pods_by_pool(), grid)}


def _kin_asked(queries: Queries, grid: Grid) -> dict[str, tuple[str, Grid]]:
    return {"images": (queries.images(), grid), "owners": (queries.owners(), grid)}


def checked_grid(start_seconds: int, end_seconds: int, step_seconds: int) -> Grid:
    """The grid. Raises InvalidUsage where it has no step."""
    if step_seconds <= 0 or end_seconds < start_seconds:
        raise InvalidUsage(f"no time to fetch: start {start_seconds}, end {end_seconds}, step {step_seconds} s")
    return Grid(start_seconds, end_seconds, step_seconds)


def _pieces(query: str, grid: Grid, now_seconds: int, *, with_cache: bool) -> Iterable[_Piece]:
    """The query's time cut into days. A settled day is asked for whole, so that it can be kept."""
    step = grid.step_seconds
    over = (now_seconds - step - grid.start_seconds) // step + 1
    steps = min(grid.steps, max(over, 0))
    if DAY % step or grid.start_seconds % step:
        size = max(DAY // step, 1)
        for first in range(0, steps, size):
            count = min(size, steps - first)
            yield _Piece(query, grid.start_seconds + first * step, step, count, (0, count), is_settled_day=False)
        return
    stop = grid.start_seconds + steps * step
    if not steps:
        return
    for day in range(grid.start_seconds // DAY * DAY, stop, DAY):
        first, last = max(day, grid.start_seconds), min(day + DAY, stop)
        if with_cache and day + DAY + SETTLED_SECONDS <= now_seconds:
            keep = ((first - day) // step, (last - day) // step)
            yield _Piece(query, day, step, DAY // step, keep, is_settled_day=True)
        else:
            count = (last - first) // step
            yield _Piece(query, first, step, count, (0, count), is_settled_day=False)
