"""From query answers to a panel: whose series is whose, what is zero and what is not known."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from models.forecast import FloatArray
from predictor.errors import PredictorError
from predictor.sources.matrix import Matrix
from predictor.sources.promql import (
    BUSIEST,
    KILLED,
    KUBERNETES_RESOURCE,
    LARGEST,
    MEAN,
    PERIODS,
    RUNNING,
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
from predictor.usage.placed import NodeUsage, Placed

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


def assembled_panel(
    answers: Answers,
    resources: Collection[Resource],
    *,
    start_seconds: int,
    step_seconds: int,
    service_workloads: Mapping[str, str],
) -> UsagePanel:
    """Usage and attributes of every workload, rows sorted by workload and resource.

    Where a workload is known to have no replicas its usage is 0, not unknown: a CronJob between its jobs, a
    Deployment scaled to zero. Requests per second stay unknown then: they are counted in front of it.
    Where only some of its pods were measured its usage is unknown, with a finding.
    """
    replicas = _by_workload(answers["replicas"])
    usage: dict[SeriesKey, FloatArray] = {}
    findings: list[Finding] = []
    for resource in resources:
        if resource is not Resource.REQUESTS:
            rows = _by_workload(answers[ANSWER_WITH[resource]], what=resource.value)
            usage |= {SeriesKey(workload, resource): values for workload, values in rows.items()}
    if Resource.REQUESTS in resources:
        known = {key.workload for key in usage} | set(replicas)
        usage |= _requests(answers["requests"], known, service_workloads, findings)
    keys = tuple(sorted(usage))
    workloads = {key.workload for key in keys}
    steps = answers["replicas"].points
    unknown = np.full(steps, np.nan)
    values = np.stack([usage[key] for key in keys]) if keys else np.empty((0, steps))
    attributes = {
        "replicas": _stacked([replicas.get(key.workload, unknown) for key in keys], steps),
        "request": _of_container(answers, "request", keys, steps),
        "limit": _of_container(answers, "limit", keys, steps),
        "capacity": _capacity(answers, keys, steps),
    }
    none_running = attributes["replicas"] == 0
    counted_inside = np.asarray([[key.resource is not Resource.REQUESTS] for key in keys], dtype=bool).reshape(-1, 1)
    values = np.where(np.isnan(values) & none_running & counted_inside, 0.0, values)
    values = _without_partial_sums(answers, keys, values, findings)
    request = attributes["request"]
    ever_known = ~np.isnan(request).all(axis=1, keepdims=True)
    attributes["request"] = np.where(np.isnan(request) & none_running & ever_known, 0.0, request)
    if (cut_off := _cut_off(answers, keys, values)) is not None:
        attributes[CUT_OFF] = cut_off
    return UsagePanel(
        keys,
        start_seconds,
        step_seconds,
        values,
        {name: array for name, array in attributes.items() if not np.isnan(array).all()},
        tuple(findings),
        _most_common_pool(answers["pods by pool"], workloads),
        _kin(answers, workloads),
    )


def assembled_containers(
    answers: Answers, workloads: Collection[str], *, start_seconds: int, step_seconds: int
) -> ContainerUsage:
    """Usage of the containers of those workloads in one pod each, rows sorted by name; of others nothing."""
    found: dict[str, dict[ContainerName, FloatArray]] = {BUSIEST: {}, MEAN: {}, LARGEST: {}}
    points = max((matrix.points for matrix in answers.values()), default=0)
    for matrix in answers.values():
        for labels, values in zip(matrix.labels, matrix.values, strict=True):
            named = dict(labels)
            workload, container = _workload(named), named.get("container", "")
            if workload is not None and workload in workloads and container and named.get("what") in found:
                found[named["what"]][ContainerName(workload, container)] = values

    def panel(parts: tuple[tuple[str, Resource], ...]) -> UsagePanel:
        rows = {name.series(resource): values for what, resource in parts for name, values in found[what].items()}
        keys = tuple(sorted(rows))
        return UsagePanel(keys, start_seconds, step_seconds, _stacked([rows[key] for key in keys], points))

    return ContainerUsage(panel(((BUSIEST, Resource.CPU), (LARGEST, Resource.MEMORY))), panel(((MEAN, Resource.CPU),)))


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


def assembled_node_usage(matrix: Matrix, since_seconds: int, measured_at_seconds: int) -> NodeUsage:
    """The newest point of the answer to `Queries.placed`, which is about that time."""

    def newest(what: str) -> dict[Placed, float]:
        rows = _by_placed(matrix, what)
        return {name: float(values[-1]) for name, values in rows.items() if not np.isnan(values[-1])}

    running, missing = Counter[str](), Counter[str]()
    for what, counted in ((RUNNING, running), (UNMEASURED, missing)):
        for name, count in newest(what).items():
            counted[name.node] += int(count)
    return NodeUsage(
        since_seconds,
        measured_at_seconds,
        {each: newest(each.value) for each in PLACED},
        {each: newest(pods_of(each)) for each in PLACED},
        frozenset(node for node, count in missing.items() if count > MAX_UNMEASURED_FRACTION * running[node]),
    )


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
        found += [Finding("", name, Severity.WARNING, f"Prometheus warns: {text}") for text in matrix.warnings]
        found += [Finding("", name, Severity.NOTE, f"Prometheus notes: {text}") for text in matrix.infos]
    return found


def has_series(answers: Answers, resource: Resource) -> bool:
    """Whether anything was found for a resource."""
    labels = answers[ANSWER_WITH[resource]].labels
    return any(("what", resource.value) in each for each in labels) or (resource is Resource.REQUESTS and bool(labels))


def _without_partial_sums(
    answers: Answers, keys: tuple[SeriesKey, ...], values: FloatArray, findings: list[Finding]
) -> FloatArray:
    """The usage without the steps in which too many running pods were not measured."""
    blanked = values.copy()
    names = {ANSWER_WITH[key.resource] for key in keys} - {ANSWER_WITH[Resource.REQUESTS]}
    running = {name: _by_workload(answers[name], what=RUNNING) for name in names}
    unmeasured = {name: _by_workload(answers[name], what=UNMEASURED) for name in names}
    if names and not any(running.values()):
        text = "kube_pod_status_phase is not there, so usage that was measured for only some pods cannot be told apart"
        findings.append(Finding("", "", Severity.WARNING, text))
    for row, (workload, resource) in enumerate(keys):
        missing = unmeasured.get(ANSWER_WITH[resource], {}).get(workload)
        if missing is None:
            continue
        ran = running[ANSWER_WITH[resource]][workload]
        # Where none of them was measured there is no sum, or it is of a metric that they all had.
        partial = (missing > MAX_UNMEASURED_FRACTION * ran) & (missing < ran)
        partial &= ~np.isnan(blanked[row])
        if partial.any():
            blanked[row, partial] = np.nan
            message = f"{int(partial.sum())} steps left out: only some of its running pods were measured in them"
            findings.append(Finding(workload, resource.value, Severity.WARNING, message))
    return blanked


def _by_workload(matrix: Matrix, **wanted: str) -> dict[str, FloatArray]:
    """Rows by workload, of those that carry the labels wanted."""
    rows: dict[str, FloatArray] = {}
    for labels, values in zip(matrix.labels, matrix.values, strict=True):
        named = dict(labels)
        if wanted.items() <= named.items() and (workload := _workload(named)) is not None:
            rows[workload] = values
    return rows


def _workload(labels: Mapping[str, str]) -> str | None:
    try:
        return f"{labels['namespace']}/{labels['owner_kind']}/{labels['owner_name']}"
    except KeyError:
        return None


def _requests(
    matrix: Matrix, known: Collection[str], service_workloads: Mapping[str, str], findings: list[Finding]
) -> dict[SeriesKey, FloatArray]:
    rows: dict[SeriesKey, FloatArray] = {}
    for labels, values in zip(matrix.labels, matrix.values, strict=True):
        named = dict(labels)
        namespace, service = named.get("subject_namespace", ""), named.get("subject_service", "")
        if not service:
            continue
        candidates = [f"{namespace}/{kind}/{service}" for kind in KINDS_BEHIND_A_SERVICE]
        by_name = next((candidate for candidate in candidates if candidate in known), None)
        workload = service_workloads.get(f"{namespace}/{service}", by_name)
        if workload is None:
            message = f"Service {namespace}/{service} bears no workload's name; its requests were left out"
            findings.append(Finding("", Resource.REQUESTS.value, Severity.NOTE, message))
            continue
        key = SeriesKey(workload, Resource.REQUESTS)
        rows[key] = np.where(np.isnan(rows[key]), values, rows[key] + np.nan_to_num(values)) if key in rows else values
    return rows


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


def _cut_off(answers: Answers, keys: tuple[SeriesKey, ...], usage: FloatArray) -> FloatArray | None:
    """In which share of each step more was demanded than given, NaN where that is not known; None where nowhere.

    Of memory it is 0 where there is usage and no kill was seen: an array for a fleet is large, and one without any cut
    says nothing.
    """
    if "containers" not in answers:
        return None
    periods, throttled, killed = (
        _by_workload(answers["containers"], what=what) for what in (PERIODS, THROTTLED, KILLED)
    )
    if not killed and not any((values > 0).any() for values in throttled.values()):
        return None
    found = np.full(usage.shape, np.nan)
    for row, (workload, resource) in enumerate(keys):
        if resource is Resource.CPU and workload in periods:
            counted = periods[workload]
            of_them = np.nan_to_num(throttled.get(workload, np.zeros_like(counted)))
            found[row] = np.clip(of_them / np.where(counted > 0, counted, np.nan), 0.0, 1.0)
        elif resource is Resource.MEMORY:
            seen = np.nan_to_num(killed[workload]) > 0 if workload in killed else np.zeros(usage.shape[1], np.bool_)
            found[row] = np.where(np.isnan(usage[row]), np.nan, seen)
    return found


def _stacked(rows: list[FloatArray], steps: int) -> FloatArray:
    return np.stack(rows) if rows else np.empty((0, steps))


def _most_common_pool(matrix: Matrix, workloads: Collection[str]) -> dict[str, str]:
    """The pool in which most of each workload's pods were, over all steps."""
    most: dict[str, tuple[float, str]] = {}
    for labels, values in zip(matrix.labels, matrix.values, strict=True):
        named = dict(labels)
        workload = _workload(named)
        if workload in workloads and workload is not None:
            pods = float(np.nansum(values))
            most[workload] = max(most.get(workload, (0.0, "")), (pods, named.get("node_pool", "")))
    return {workload: pool for workload, (_, pool) in sorted(most.items()) if pool}


def _kin(answers: Answers, workloads: Collection[str]) -> dict[str, Kin]:
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
    for labels, values in zip(matrix.labels, matrix.values, strict=True):
        named = dict(labels)
        workload, name = _workload(named), named.get(label, "")
        if workload is not None and workload in workloads and name and not np.isnan(values).all():
            found.setdefault(workload, []).append(name)
    return found
