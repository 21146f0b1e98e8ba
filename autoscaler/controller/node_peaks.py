"""The peaks of nodes, told once an hour and beside the loop: a thread reads four weeks of usage and tells them.

Cycles take the newest answer there is; what has come to a node since counts in full until the next.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np
import structlog

from autoscaler.cluster.containers import Amounts
from autoscaler.cluster.nodes import NodePod
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.node_ports import PlacedSource
from autoscaler.decisions.reclaiming import NodeTasks, ToldPeak, told_peaks
from models.forecast import LONGEST_PAST_SECONDS
from predictor.errors import PredictorError
from predictor.usage.panel import Resource
from predictor.usage.placed import MeanPods, Placed

log = structlog.get_logger("autoscaler.nodes")

REFRESH_SECONDS = 3600.0
"""How often peaks are told anew."""
RETRY_SECONDS = 300.0
"""How soon after they were asked for they are asked for again, where a node is new or the last time failed."""

Asked = tuple[Resource, float, float]
"""A resource, the violation probability and the horizon in seconds."""


@dataclass(frozen=True, slots=True)
class NodePeaks:
    """What was told at one time."""

    told_at_seconds: float
    peaks: Mapping[tuple[str, Asked], ToldPeak | Hold]
    """By node and what was asked about it."""
    counted: frozenset[str]
    """Uids of the pods that the peaks are of."""

    def peak(self, node: str, asked: Asked, now_seconds: float) -> ToldPeak | Hold:
        """What holds for a node now: a peak holds for its horizon, and no longer."""
        found = self.peaks.get((node, asked))
        if found is None:
            return Hold(Reason(ReasonCode.NO_EVIDENCE, "its peak is not told yet: nothing is oversold"))
        if now_seconds - self.told_at_seconds > asked[2]:
            text = f"its peak was told {(now_seconds - self.told_at_seconds) / 3600:.0f} hours ago: nothing is oversold"
            return Hold(Reason(ReasonCode.NO_EVIDENCE, text))
        return found


NOTHING_TOLD = NodePeaks(-inf, {}, frozenset())


@dataclass
class PeakTeller:
    """Keeps the peaks of some nodes; a source that fails leaves the last ones."""

    source: PlacedSource
    step_seconds: int
    is_patient: bool = False
    """Whether each answer is waited for: for tests, and for a command that decides once."""

    def __post_init__(self) -> None:
        self.told = NOTHING_TOLD
        self.problem: PredictorError | None = None
        """Why the last time failed."""
        self._asked_at_seconds = -inf
        self._thread: threading.Thread | None = None

    def peaks(self, wanted: Mapping[Asked, Sequence[str]], pods: Sequence[NodePod], now_seconds: float) -> NodePeaks:
        """The newest that there are; asks for newer where they are old, or a node is new."""
        if wanted and self._is_due(wanted, now_seconds) and (self._thread is None or not self._thread.is_alive()):
            self._asked_at_seconds = now_seconds
            self._thread = threading.Thread(
                target=self._work, args=(wanted, tuple(pods), now_seconds), name="node peaks", daemon=True
            )
            self._thread.start()
            if self.is_patient:
                self._thread.join()
        return self.told

    def _is_due(self, wanted: Mapping[Asked, Sequence[str]], now_seconds: float) -> bool:
        if now_seconds - self._asked_at_seconds < RETRY_SECONDS:
            return False
        known = self.told.peaks
        is_new = any((node, asked) not in known for asked, nodes in wanted.items() for node in nodes)
        return is_new or now_seconds - self.told.told_at_seconds >= REFRESH_SECONDS

    def _work(self, wanted: Mapping[Asked, Sequence[str]], pods: Sequence[NodePod], now_seconds: float) -> None:
        try:
            self.told, self.problem = _told(self.source, self.step_seconds, wanted, pods, now_seconds), None
        except PredictorError as problem:
            if str(problem) != str(self.problem):
                log.warning("usage on nodes not read", error=type(problem).__name__, message=str(problem))
            self.problem = problem
        except Exception:  # nobody waits for this thread: what broke must be seen, and is tried again
            log.exception("telling the peaks of nodes broke")


def _told(
    source: PlacedSource, step: int, wanted: Mapping[Asked, Sequence[str]], pods: Sequence[NodePod], now_seconds: float
) -> NodePeaks:
    nodes_asked = {node for nodes in wanted.values() for node in nodes}
    groups_of = {each: _grouped(pods, nodes_asked, each) for each in {asked[0] for asked in wanted}}
    end = int(now_seconds) // step * step - step
    steps = LONGEST_PAST_SECONDS // step
    names = {name for groups in groups_of.values() for each in groups for name in (each, known_as(each))}
    usage = source.fetch_mean_pods(names, start_seconds=end - (steps - 1) * step, end_seconds=end, step_seconds=step)
    row = {name: number for number, name in enumerate(usage.names)}
    on_node: dict[tuple[Resource, str], list[Placed]] = {}
    for resource, groups in groups_of.items():
        for name in groups:
            on_node.setdefault((resource, name.node), []).append(name)
    peaks: dict[tuple[str, Asked], ToldPeak | Hold] = {}
    for asked, nodes in wanted.items():
        resource, probability, horizon = asked
        tasks = [_tasks(on_node.get((resource, node), ()), groups_of[resource], usage, row, resource) for node in nodes]
        told = told_peaks(tasks, violation_probability=probability, horizon_steps=max(1, int(horizon) // step))
        peaks |= {(node, asked): each for node, each in zip(nodes, told, strict=True)}
    return NodePeaks(now_seconds, peaks, frozenset(pod.uid for pod in pods))


@dataclass(slots=True)
class _Group:
    """The pods of one workload on one node."""

    pods: int = 0
    requests: list[Amounts] = field(default_factory=list)
    limits: list[Amounts] = field(default_factory=list)


def _grouped(pods: Sequence[NodePod], nodes: set[str], resource: Resource) -> dict[Placed, _Group]:
    """The pods that use the resource on ordinary terms."""
    groups: dict[Placed, _Group] = {}
    for pod in pods:
        if pod.node in nodes and pod.is_ordinary(resource):
            group = groups.setdefault(Placed(pod.node, pod.workload), _Group())
            group.pods += 1
            group.requests.append(pod.requests)
            group.limits.append(pod.limits)
    return groups


def known_as(name: Placed) -> Placed:
    """A CronJob's pods are its usage's; only their Job is known here, named after it and the minute."""
    namespace, kind, job = name.workload.split("/", 2)
    above, _, minute = job.rpartition("-")
    return Placed(name.node, f"{namespace}/CronJob/{above}") if kind == "Job" and above and minute.isdigit() else name


def _tasks(
    names: Sequence[Placed], groups: Mapping[Placed, _Group], usage: MeanPods, row: Mapping[Placed, int], what: Resource
) -> NodeTasks:
    means = usage.usage[what]
    rows = []
    for name in names:
        own, other = row[name], row[known_as(name)]
        mean = means[other] if other != own and np.isnan(means[own]).all() else means[own]
        rows.append(mean * np.float32(groups[name].pods))
    steps = means.shape[1]
    return NodeTasks(
        np.stack(rows) if rows else np.empty((0, steps), np.float32),
        np.asarray([_sum(groups[name].limits, what) for name in names], dtype=np.float64),
        np.asarray([_sum(groups[name].requests, what) for name in names], dtype=np.float64),
    )


def _sum(amounts: Sequence[Amounts], resource: Resource) -> float:
    """NaN where one of them is not given."""
    given = [each.of(resource) for each in amounts]
    return float(sum(each for each in given if each is not None)) if None not in given else float("nan")


def in_full(pods: Sequence[NodePod], resource: Resource) -> float | Hold:
    """What pods count at of which no past is known: their limits, else their requests; a Hold where one has neither."""
    total = 0.0
    for pod in pods:
        limit = pod.limits.of(resource)
        amount = pod.requests.of(resource) if limit is None else limit
        if amount is None:
            text = f"{pod.namespace}/{pod.name} came since the peak was told and has neither limit nor request"
            return Hold(Reason(ReasonCode.NO_EVIDENCE, text))
        total += amount
    return total
