"""From query answers to a panel: whose series is whose, what is zero and what is not known.

In two stages. A `Part` holds what can be said of some steps by themselves. What takes the whole time to tell (which
workloads there are, whose a Service's requests are, in which pool most pods ran) is told of parts together, be they one
(`assembled_panel`) or many that were read one after the other (`predictor.sources.window`).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.forecast import BoolArray, FloatArray
from predictor.errors import PredictorError
from predictor.sources.matrix import Labels, Matrix
from predictor.sources.promql import (
    ACTIVITY,
    AT_MAXIMUM,
    BUSIEST,
    DEVICES,
    FULLEST,
    KILLED,
    KUBERNETES_RESOURCE,
    LARGEST,
    LIMIT,
    MEAN,
    PERIODS,
    REPLICAS,
    RUNNING,
    SHARES,
    THROTTLED,
    UNMEASURED,
    capacity_of,
    pods_of,
)
from predictor.usage.bounds import CUT_OFF
from predictor.usage.containers import ContainerName, ContainerUsage
from predictor.usage.kin import Kin, kin_by_workload, repositories
from predictor.usage.node_pools import NodePools
from predictor.usage.panel import Finding, Resource, SeriesKey, Severity, UsagePanel
from predictor.usage.placed import GpuPast, NodeGpus, NodeUsage, Placed
from predictor.usage.ready import ReadyHistory
from predictor.usage.throttled import ThrottledHistory

Answers = Mapping[str, Matrix]
"""Answers by the name of what was asked."""
PLACED = (Resource.CPU, Resource.MEMORY)
"""What is told by node."""
ANSWER_WITH = {
    Resource.CPU: "containers",
    Resource.MEMORY: "containers",
    Resource.GPU: "gpus",
    Resource.GPU_MEMORY: "gpus",
    Resource.REQUESTS: "requests",
}
"""Where each resource's usage is found."""
MAX_UNMEASURED_FRACTION = 0.05
"""A step in which more of a workload's running pods than this were not measured holds no sample: their sum would read
as less usage than there was. Below it the sum is kept, so that one bad node among many does not blind a large workload.
"""
KINDS_BEHIND_A_SERVICE = ("Deployment", "StatefulSet", "DaemonSet", "Rollout", "Pod")
"""Where a Service and several workloads share a name, the first of these kinds is meant."""


Service = tuple[str, str]
"""The namespace and the name of a Service."""


@dataclass(frozen=True, slots=True)
class Part:
    """What the answers for some steps say of each step by itself. Arrays are [keys, steps], NaN is not known."""

    keys: tuple[SeriesKey, ...]
    """All series but requests per second, sorted: those in the answers, and those that were known before."""
    usage: FloatArray
    """Not checked, and in single precision (see `single`)."""
    newest_told: NDArray[np.intp]
    """The newest step of each key in which the answers have a sample of it, [keys]; the last step where all of them are
    NaN, -1 where there is no series."""
    left_out: BoolArray
    """Where usage is not known because only some of the running pods were measured."""
    request: FloatArray
    """Not yet 0 where nothing runs: that takes to know whether anything was ever asked for."""
    limit: FloatArray
    capacity: FloatArray
    cut_off: FloatArray | None
    """In which share of each step more was demanded than given; None where nowhere."""
    replicas: Mapping[str, FloatArray]
    """By workload, also of those that have no usage."""
    partial: Mapping[str, Mapping[str, BoolArray]]
    """By the name of the answer and workload, where too many of its running pods were not measured."""
    running: Mapping[str, FloatArray]
    """By the name of the answer, how many pods of some workload ran, [steps]; NaN where no pod is known to have."""
    services: Mapping[Service, FloatArray]
    """Requests per second by Service, the one without a name among them, and in single precision."""
    at_maximum: Mapping[str, BoolArray]
    """By workload, in which steps its autoscaler wanted more than its most replicas, [steps]; of no others."""

    @property
    def steps(self) -> int:
        """How many steps."""
        return int(self.usage.shape[1])


def single(values: FloatArray) -> FloatArray:
    """Usage as it is held of a fleet: in single precision, whatever the type of the array.

    So a window that is held in single precision gives the same answers as one that was just read.
    """
    with np.errstate(over="ignore"):
        return values.astype(np.float32).astype(np.float64)


def assembled_part(answers: Answers, resources: Collection[Resource], known: Collection[SeriesKey] = ()) -> Part:
    """What the answers say of their steps, for every series in them and for those that were `known` before.

    Where a workload is known to have no replicas its usage is 0, not unknown: a CronJob between its jobs, a
    Deployment scaled to zero. Where only some of its pods were measured its usage is unknown.
    """
    replicas = _by_workload(answers["replicas"], what=REPLICAS)
    told: dict[SeriesKey, FloatArray] = {}
    for resource in resources:
        if resource is not Resource.REQUESTS:
            rows = _by_workload(answers[ANSWER_WITH[resource]], what=resource.value)
            told |= {SeriesKey(workload, resource): values for workload, values in rows.items()}
    keys = tuple(sorted({*told, *known}))
    steps = answers["replicas"].points
    unknown = np.full(steps, np.nan)
    usage = single(_stacked([told.get(key, unknown) for key in keys], steps))
    is_known = ~np.isnan(usage)
    is_told = np.asarray([key in told for key in keys], dtype=np.bool_)
    # The first of what is equal is the last of all where nothing is known.
    newest_told = np.where(is_told, steps - 1 - np.argmax(is_known[:, ::-1], axis=1), -1)
    none_running = _stacked([replicas.get(key.workload, unknown) for key in keys], steps) == 0
    usage[np.isnan(usage) & none_running] = 0.0
    names = [name for name in ("containers", "gpus") if name in answers]
    partial = {name: _partial_sums(answers[name]) for name in names}
    left_out = np.zeros(usage.shape, dtype=np.bool_)
    for row, key in enumerate(keys):
        where = partial[ANSWER_WITH[key.resource]].get(key.workload)
        if where is not None:
            left_out[row] = where & ~np.isnan(usage[row])
    usage[left_out] = np.nan
    running = {name: _most(_by_workload(answers[name], what=RUNNING).values(), steps) for name in names}
    services = _by_service(answers["requests"]) if Resource.REQUESTS in resources else {}
    held_back = _by_workload(answers["replicas"], what=AT_MAXIMUM)
    at_maximum = {name: row > 0 for name, row in held_back.items() if (row > 0).any()}
    return Part(
        keys,
        usage,
        newest_told,
        left_out,
        _of_container(answers, "request", keys, steps),
        _of_container(answers, "limit", keys, steps),
        _capacity(answers, keys, steps),
        _cut_off(answers, keys, usage, at_maximum),
        replicas,
        partial,
        running,
        services,
        at_maximum,
    )


def assembled_panel(
    answers: Answers,
    resources: Collection[Resource],
    *,
    start_seconds: int,
    step_seconds: int,
    service_workloads: Mapping[str, str],
) -> UsagePanel:
    """Usage and attributes of every workload, rows sorted by workload and resource.

    Usage where nothing runs, or is measured in part only, is that of `assembled_part`. Requests per second stay
    unknown where nothing runs: they are counted in front of it.
    """
    part = assembled_part(answers, resources)
    known = {key.workload for key in part.keys} | set(part.replicas)
    behind, findings = workloads_behind(part.services, known, service_workloads)
    requests = {SeriesKey(name, Resource.REQUESTS): requests_to(behind[name], part.services) for name in behind}
    keys = tuple(sorted({*part.keys, *requests}))
    place = {key: row for row, key in enumerate((*part.keys, *requests))}
    order = np.asarray([place[key] for key in keys], dtype=np.intp)
    unknown = np.full((len(requests), part.steps), np.nan)

    def of_all(values: FloatArray, of_requests: FloatArray = unknown) -> FloatArray:
        return np.concatenate([values, of_requests])[order] if requests else values

    attributes = {
        "replicas": _stacked(
            [part.replicas.get(key.workload, np.full(part.steps, np.nan)) for key in keys], part.steps
        ),
        "request": of_all(part.request),
        "limit": of_all(part.limit),
        "capacity": of_all(part.capacity),
    }
    ever_known = ~np.isnan(attributes["request"]).all(axis=1, keepdims=True)
    is_nothing = np.isnan(attributes["request"]) & (attributes["replicas"] == 0) & ever_known
    attributes["request"] = np.where(is_nothing, 0.0, attributes["request"])
    if part.cut_off is not None:
        nowhere = np.zeros(part.steps, dtype=np.bool_)
        held_back = [
            np.where(was_held_back(values, part.at_maximum.get(key.workload, nowhere)), 1.0, np.nan)
            for key, values in requests.items()
        ]
        attributes[CUT_OFF] = of_all(part.cut_off, _stacked(held_back, part.steps))
    is_running_told = {name: not np.isnan(pods).all() for name, pods in part.running.items()}
    findings += left_out_findings(zip(part.keys, part.left_out.sum(axis=1).tolist(), strict=True), is_running_told)
    return UsagePanel(
        keys,
        start_seconds,
        step_seconds,
        of_all(part.usage, _stacked(list(requests.values()), part.steps)),
        {name: array for name, array in attributes.items() if not np.isnan(array).all()},
        tuple(findings),
        most_common_pool(answers["pods by pool"].rows(), {key.workload for key in keys}),
        kin_of(answers, {key.workload for key in keys}),
    )


def assembled_containers(
    answers: Answers, workloads: Collection[str], *, start_seconds: int, step_seconds: int
) -> ContainerUsage:
    """Usage of the containers of those workloads in one pod each, rows sorted by name; of others nothing."""
    found: dict[str, dict[ContainerName, FloatArray]] = {BUSIEST: {}, MEAN: {}, LARGEST: {}}
    points = max((matrix.points for matrix in answers.values()), default=0)
    for matrix in answers.values():
        for labels, values in matrix.rows():
            named = dict(labels)
            workload, container = _workload(named), named.get("container", "")
            if workload is not None and workload in workloads and container and named.get("what") in found:
                found[named["what"]][ContainerName(workload, container)] = values

    def panel(parts: tuple[tuple[str, Resource], ...]) -> UsagePanel:
        rows = {name.series(resource): values for what, resource in parts for name, values in found[what].items()}
        keys = tuple(sorted(rows))
        return UsagePanel(keys, start_seconds, step_seconds, _stacked([rows[key] for key in keys], points))

    return ContainerUsage(panel(((BUSIEST, Resource.CPU), (LARGEST, Resource.MEMORY))), panel(((MEAN, Resource.CPU),)))


def assembled_ready(answer: Matrix, workload: str) -> ReadyHistory:
    """What was Ready of the workload, by the answer to `Queries.ready`; pods of others are left out."""
    replicas = np.full(answer.points, np.nan)
    of_image: dict[str, FloatArray] = {}
    for labels, values in answer.rows():
        named = dict(labels)
        if _workload(named) != workload:
            continue
        image = named.get("container_image", "")
        if image:
            of_image[image] = np.nan_to_num(values)
        else:
            replicas = values
    known = np.flatnonzero(replicas >= 1)
    is_current = np.ones(answer.points, np.bool_)
    if len(known):
        for values in of_image.values():
            # One that the newest have must be in all of them, and one that they have not in none.
            wanted = replicas if values[known[-1]] > 0 else np.zeros_like(replicas)
            is_current &= values == wanted
    return ReadyHistory(replicas, is_current)


@dataclass
class ReadyPods:
    """Collects, one stretch of time after the other, how long pods of some workloads took to get Ready."""

    workloads: Collection[str]
    took: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """By workload, name and uid of a pod: seconds, the least that was answered."""

    def add(self, matrix: Matrix) -> None:
        """An answer to `Queries.first_ready`."""
        for labels, values in matrix.rows():
            named = dict(labels)
            workload = _workload(named)
            if workload is None or workload not in self.workloads or np.isnan(values).all():
                continue
            pod = (workload, named.get("pod", ""), named.get("uid", ""))
            # A kubelet's clock may be behind that of the API server.
            seconds = max(0.0, float(np.nanmin(values)))
            self.took[pod] = min(seconds, self.took.get(pod, seconds))

    def by_workload(self) -> dict[str, tuple[float, ...]]:
        """The times of each workload's pods, ascending."""
        found: dict[str, list[float]] = {}
        for (workload, _, _), seconds in self.took.items():
            found.setdefault(workload, []).append(seconds)
        return {workload: tuple(sorted(times)) for workload, times in sorted(found.items())}


@dataclass
class PlacedHistory:
    """Collects, one stretch of time after the other, what the mean pod of workloads on nodes used."""

    names: tuple[Placed, ...]
    steps: int

    def __post_init__(self) -> None:
        self._row = {name: row for row, name in enumerate(self.names)}
        self.usage = {each: np.full((len(self.names), self.steps), np.nan, np.float32) for each in PLACED}

    def add(self, matrix: Matrix, first: int) -> None:
        """The answer to `Queries.placed` for the steps from `first` on."""
        stretch = slice(first, first + matrix.points)
        for resource in PLACED:
            used, pods = (_by_placed(matrix, what) for what in (resource.value, pods_of(resource)))
            everywhere = _mean_pods_anywhere(used, pods, {each.workload for each in self.names})
            rows = self.usage[resource]
            for name, row in self._row.items():
                mean = everywhere.get(name.workload)
                if mean is None:
                    continue
                here = used[name] / pods[name] if name in used and name in pods else mean
                rows[row, stretch] = np.where(np.isnan(here), mean, here)


def _mean_pods_anywhere(
    used: Mapping[Placed, FloatArray], pods: Mapping[Placed, FloatArray], workloads: Collection[str]
) -> dict[str, FloatArray]:
    """What the mean pod of each workload used, on whatever node; NaN where it had none that was measured."""
    sums: dict[str, list[FloatArray]] = {}
    for name in used.keys() & pods.keys():
        if name.workload in workloads:
            both = sums.setdefault(name.workload, [np.zeros_like(used[name]), np.zeros_like(used[name])])
            both[0] += np.nan_to_num(used[name])
            both[1] += np.nan_to_num(pods[name])
    return {workload: each / np.where(count > 0, count, np.nan) for workload, (each, count) in sums.items()}


def assembled_node_usage(answers: Mapping[str, Matrix], since_seconds: int, measured_at_seconds: int) -> NodeUsage:
    """The newest points of the answers to `placed`, `cpu pressure` and `clocks ahead`, which are about that time."""
    unusable: set[str] = set()

    def newest(what: str) -> dict[Placed, float]:
        found = {}
        for name, values in _by_placed(answers["placed"], what).items():
            if np.isfinite(values[-1]):
                found[name] = float(values[-1])
            else:
                # A series without a value is not in the answer: somebody has exported this.
                unusable.add(name.node)
        return found

    running, missing = Counter[str](), Counter[str]()
    for what, counted in ((RUNNING, running), (UNMEASURED, missing)):
        for name, count in newest(what).items():
            counted[name.node] += int(count)
    usage = {each: newest(each.value) for each in PLACED}
    unmeasured = (node for node, count in missing.items() if count > MAX_UNMEASURED_FRACTION * running[node])
    return NodeUsage(
        since_seconds,
        measured_at_seconds,
        usage,
        {each: newest(pods_of(each)) for each in PLACED},
        frozenset((*unmeasured, *unusable)),
        # A rate that is extrapolated may be a little above 1.
        {node: min(share, 1.0) for node, share in _newest_by_node(answers["cpu pressure"]).items()},
        _newest_by_node(answers["clocks ahead"]),
    )


def _newest_by_node(matrix: Matrix) -> dict[str, float]:
    newest = {dict(labels).get("node", ""): float(values[-1]) for labels, values in matrix.rows()}
    return {node: value for node, value in newest.items() if node and not np.isnan(value)}


def assembled_gpus(matrix: Matrix, *, start_seconds: int, step_seconds: int) -> NodeGpus:
    """The answer to `Queries.gpus_of_nodes` by node; a node on which no pod had a GPU had none in use."""
    found: dict[str, dict[str, FloatArray]] = {}
    for labels, values in matrix.rows():
        named = dict(labels)
        found.setdefault(named.get("Hostname", ""), {})[named.get("what", "")] = values
    unknown = np.full(matrix.points, np.nan)
    by_node = {
        node: GpuPast(
            rows.get(ACTIVITY, unknown),
            rows.get(FULLEST, unknown),
            np.nan_to_num(rows.get(SHARES, unknown)),
            rows.get(DEVICES, unknown),
        )
        for node, rows in found.items()
        if node and ACTIVITY in rows
    }
    return NodeGpus(start_seconds, step_seconds, by_node)


def _by_placed(matrix: Matrix, what: str) -> dict[Placed, FloatArray]:
    rows: dict[Placed, FloatArray] = {}
    for labels, values in zip(matrix.labels, matrix.values, strict=True):
        named = dict(labels)
        workload, node = _workload(named), named.get("node", "")
        if named.get("what") == what and workload is not None and node:
            rows[Placed(node, workload)] = values
    return rows


def assembled_pools(
    answers: Answers, *, start_seconds: int, step_seconds: int, findings: tuple[Finding, ...]
) -> NodePools:
    """Allocatable amounts and node counts, pools sorted by name."""
    allocatable, nodes = answers["allocatable"], answers["nodes"]
    names = tuple(sorted({dict(labels)["node_pool"] for labels in allocatable.labels}))
    unknown = np.full(allocatable.points, np.nan)
    counts = {dict(labels)["node_pool"]: row for labels, row in zip(nodes.labels, nodes.values, strict=True)}
    by_resource: dict[Resource, FloatArray] = {}
    for resource, label in KUBERNETES_RESOURCE.items():
        rows = {
            dict(labels)["node_pool"]: row
            for labels, row in zip(allocatable.labels, allocatable.values, strict=True)
            if dict(labels).get("resource") == label
        }
        if rows:
            by_resource[resource] = np.stack([rows.get(name, unknown) for name in names])
    node_counts = np.stack([counts.get(name, unknown) for name in names])
    return NodePools(names, start_seconds, step_seconds, by_resource, node_counts, findings)


def assembled_queries(
    answers: Mapping[SeriesKey, Matrix | PredictorError], steps: int, *, start_seconds: int, step_seconds: int
) -> UsagePanel:
    """The value of each query that has one series, rows sorted by key; for the others a finding that says why not."""
    rows: dict[SeriesKey, FloatArray] = {}
    findings: list[Finding] = []
    for key, answer in sorted(answers.items()):
        if isinstance(answer, Matrix) and len(answer.labels) == 1:
            rows[key] = answer.values[0]
            said = [f"Prometheus says of the query: {text}" for text in (*answer.warnings, *answer.infos)]
            findings += [Finding(key.workload, key.resource.value, Severity.WARNING, text) for text in said]
        else:
            findings.append(Finding(key.workload, key.resource.value, Severity.BROKEN, _no_value(answer)))
    values = _stacked([rows[key] for key in sorted(rows)], steps)
    return UsagePanel(tuple(sorted(rows)), start_seconds, step_seconds, values, findings=tuple(findings))


def _no_value(answer: Matrix | PredictorError) -> str:
    """Why a query says nothing of its workload's demand."""
    if isinstance(answer, PredictorError):
        return f"the query has no answer: {answer}"
    if not answer.labels:
        return "the query matches nothing in its own namespace"
    shown = "{" + ", ".join(f'{name}="{value}"' for name, value in answer.labels[0]) + "}"
    return f"the query has {len(answer.labels)} series, such as {shown}; one is needed: put sum(…) or max(…) around it"


def remarks(answers: Answers) -> list[Finding]:
    """What Prometheus itself had to say about each answer."""
    found: list[Finding] = []
    for name, matrix in answers.items():
        found += [Finding("", name, Severity.WARNING, f"Prometheus warns: {text}") for text in sorted(matrix.warnings)]
        found += [Finding("", name, Severity.NOTE, f"Prometheus notes: {text}") for text in sorted(matrix.infos)]
    return found


def has_series(answers: Answers, resource: Resource) -> bool:
    """Whether anything was found for a resource."""
    labels = answers[ANSWER_WITH[resource]].labels
    return any(("what", resource.value) in each for each in labels) or (resource is Resource.REQUESTS and bool(labels))


def left_out_findings(counts: Iterable[tuple[SeriesKey, int]], is_running_told: Mapping[str, bool]) -> list[Finding]:
    """What is to be said of partial sums: of how many steps of each series, and where they cannot be told apart.

    `is_running_told` says by the name of an answer whether it has running pods at all.
    """
    counted = list(counts)
    findings: list[Finding] = []
    if counted and not any(is_running_told[name] for name in {ANSWER_WITH[key.resource] for key, _ in counted}):
        text = "kube_pod_status_phase is not there, so usage that was measured for only some pods cannot be told apart"
        findings.append(Finding("", "", Severity.WARNING, text))
    for key, steps in counted:
        if steps:
            message = f"{steps} steps left out: only some of its running pods were measured in them"
            findings.append(Finding(key.workload, key.resource.value, Severity.WARNING, message))
    return findings


def _partial_sums(matrix: Matrix) -> dict[str, BoolArray]:
    """In which steps too many of a workload's running pods were not measured."""
    running, unmeasured = _by_workload(matrix, what=RUNNING), _by_workload(matrix, what=UNMEASURED)
    # Where none of them was measured there is no sum, or it is of a metric that they all had.
    found = {
        workload: (missing > MAX_UNMEASURED_FRACTION * running[workload]) & (missing < running[workload])
        for workload, missing in unmeasured.items()
    }
    return {workload: where for workload, where in found.items() if where.any()}


def _most(rows: Iterable[FloatArray], steps: int) -> FloatArray:
    """The largest of each step, NaN where none is known."""
    most = np.full(steps, np.nan)
    for row in rows:
        np.fmax(most, row, out=most)
    return most


def _by_workload(matrix: Matrix, **wanted: str) -> dict[str, FloatArray]:
    """Rows by workload, of those that carry the labels wanted."""
    rows: dict[str, FloatArray] = {}
    pairs = tuple(wanted.items())
    for labels, values in matrix.rows():
        # Looked for before anything is made of the labels: most of a fleet's are others'.
        if all(pair in labels for pair in pairs) and (workload := _workload(dict(labels))) is not None:
            rows[workload] = values
    return rows


def _workload(labels: Mapping[str, str]) -> str | None:
    try:
        return f"{labels['namespace']}/{labels['owner_kind']}/{labels['owner_name']}"
    except KeyError:
        return None


def _by_service(matrix: Matrix) -> dict[Service, FloatArray]:
    """Rows by Service, sorted, in single precision."""
    rows: dict[Service, FloatArray] = {}
    for labels, values in matrix.rows():
        named = dict(labels)
        rows[named.get("subject_namespace", ""), named.get("subject_service", "")] = single(values)
    return dict(sorted(rows.items()))


def workloads_behind(
    services: Collection[Service], known: Collection[str], service_workloads: Mapping[str, str]
) -> tuple[dict[str, list[Service]], list[Finding]]:
    """The Services in front of each workload, and a finding for each that stands for none."""
    found: dict[str, list[Service]] = {}
    findings: list[Finding] = []
    for namespace, service in sorted(services):
        if not service:
            continue
        candidates = [f"{namespace}/{kind}/{service}" for kind in KINDS_BEHIND_A_SERVICE]
        by_name = next((candidate for candidate in candidates if candidate in known), None)
        workload = service_workloads.get(f"{namespace}/{service}", by_name)
        if workload is None:
            message = f"Service {namespace}/{service} bears no workload's name; its requests were left out"
            findings.append(Finding("", Resource.REQUESTS.value, Severity.NOTE, message))
            continue
        found.setdefault(workload, []).append((namespace, service))
    return found, findings


def requests_to(services: Iterable[Service], rows: Mapping[Service, FloatArray]) -> FloatArray:
    """Requests per second to some Services together, in single precision; NaN where none of them is known."""
    each = [rows[service].astype(np.float64) for service in services]
    total = each[0]
    for values in each[1:]:
        total = np.where(np.isnan(total), values, total + np.nan_to_num(values))
    return single(total)


def _of_container(answers: Answers, name: str, keys: tuple[SeriesKey, ...], steps: int) -> FloatArray:
    """Requests or limits of each row; NaN for what containers cannot ask for."""
    unknown = np.full(steps, np.nan)
    known = {
        resource: _by_workload(answers["asked"], what=name, resource=label) if "asked" in answers else {}
        for resource, label in KUBERNETES_RESOURCE.items()
    }
    return _stacked([known.get(key.resource, {}).get(key.workload, unknown) for key in keys], steps)


def _capacity(answers: Answers, keys: tuple[SeriesKey, ...], steps: int) -> FloatArray:
    unknown = np.full(steps, np.nan)
    known = {
        resource: _by_workload(answers["gpus"], what=capacity_of(resource)) if "gpus" in answers else {}
        for resource in (Resource.GPU, Resource.GPU_MEMORY)
    }
    return _stacked([known.get(key.resource, {}).get(key.workload, unknown) for key in keys], steps)


def was_held_back(usage: FloatArray, at_maximum: BoolArray) -> BoolArray:
    """In which steps, [steps], a workload would have used more with more replicas; what uses nothing would not."""
    return at_maximum & (usage > 0)


def assembled_throttled(answer: Matrix, workload: str) -> ThrottledHistory:
    """How much of the workload's CPU time was throttled, by the answer to `Queries.throttled`; others are left out."""
    unknown = np.full(answer.points, np.nan)
    periods, of_them, limit = (
        _by_workload(answer, what=what).get(workload, unknown) for what in (PERIODS, THROTTLED, LIMIT)
    )
    return ThrottledHistory(_throttled_share(periods, of_them), limit)


def _throttled_share(periods: FloatArray, throttled: FloatArray) -> FloatArray:
    """Of each step, NaN where no periods were counted; where none of them is told to be throttled, none was."""
    return np.clip(np.nan_to_num(throttled) / np.where(periods > 0, periods, np.nan), 0.0, 1.0)


def _cut_off(
    answers: Answers, keys: tuple[SeriesKey, ...], usage: FloatArray, at_maximum: Mapping[str, BoolArray]
) -> FloatArray | None:
    """In which share of each step more was demanded than given, NaN where that is not known; None where nowhere.

    Of memory it is 0 where there is usage and no kill was seen: an array for a fleet is large, and one without any cut
    says nothing.
    """
    of_containers = answers.get("containers")
    periods, throttled, killed = (
        {} if of_containers is None else _by_workload(of_containers, what=what) for what in (PERIODS, THROTTLED, KILLED)
    )
    if not killed and not at_maximum and not any((values > 0).any() for values in throttled.values()):
        return None
    found = np.full(usage.shape, np.nan)
    for row, (workload, resource) in enumerate(keys):
        if resource is Resource.CPU and workload in periods:
            counted = periods[workload]
            found[row] = _throttled_share(counted, throttled.get(workload, np.zeros_like(counted)))
        elif resource is Resource.MEMORY:
            seen = np.nan_to_num(killed[workload]) > 0 if workload in killed else np.zeros(usage.shape[1], np.bool_)
            found[row] = np.where(np.isnan(usage[row]), np.nan, seen)
        if workload in at_maximum:
            found[row, was_held_back(usage[row], at_maximum[workload])] = 1.0
    return found


def _stacked(rows: list[FloatArray], steps: int) -> FloatArray:
    return np.stack(rows) if rows else np.empty((0, steps))


def most_common_pool(pods_by_pool: Iterable[tuple[Labels, FloatArray]], workloads: Collection[str]) -> dict[str, str]:
    """The pool in which most of each workload's pods were, over all steps."""
    most: dict[str, tuple[float, str]] = {}
    for labels, values in pods_by_pool:
        named = dict(labels)
        workload = _workload(named)
        if workload in workloads and workload is not None:
            pods = float(np.nansum(values, dtype=np.float64))
            most[workload] = max(most.get(workload, (0.0, "")), (pods, named.get("node_pool", "")))
    return {workload: pool for workload, (_, pool) in sorted(most.items()) if pool}


def kin_of(answers: Answers, workloads: Collection[str]) -> dict[str, Kin]:
    """What is known of each workload's images and of what owns it; of several owners the first by name."""
    images = _names_by_workload(answers["images"], "container_image", workloads)
    owners = _names_by_workload(answers["owners"], "owner", workloads)
    return kin_by_workload(
        {workload: repositories(names) for workload, names in images.items()},
        {workload: min(names) for workload, names in owners.items()},
    )


def _names_by_workload(matrix: Matrix, label: str, workloads: Collection[str]) -> dict[str, list[str]]:
    """What a label says of each workload, in the series that have a sample."""
    found: dict[str, list[str]] = {}
    for labels, values in matrix.rows():
        named = dict(labels)
        workload, name = _workload(named), named.get(label, "")
        if workload is not None and workload in workloads and name and not np.isnan(values).all():
            found.setdefault(workload, []).append(name)
    return found
