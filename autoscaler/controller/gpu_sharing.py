"""Shares of GPUs as OversubscriptionPolicies with GPUSharing say: told once an hour, written as a label of the node.

NVIDIA's device plugin reads from the label which configuration of its ConfigMap holds for the node; those that this
names are in deploy/gpu-sharing and never written here. So there is nothing to take back but the label.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

import structlog

from autoscaler.cluster.nodes import GpuStrategy, NodePod, NodeState
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.autoscalers import Mode
from autoscaler.controller.node_peaks import REFRESH_SECONDS, RETRY_SECONDS
from autoscaler.controller.node_ports import GpuSource, NodeCluster
from autoscaler.controller.node_status import as_conditions, limited
from autoscaler.controller.policies import NodeTerms, OversubscriptionPolicy, rivals_of, terms_of
from autoscaler.decisions.gpu_sharing import GpuNode, Share, Sharing, hami_advice, sharing, told_share
from models.forecast import LONGEST_PAST_SECONDS
from predictor.errors import PredictorError
from predictor.usage.panel import Resource
from predictor.usage.placed import NodeGpus

log = structlog.get_logger("autoscaler.gpus")

GPU_CONFIG_LABEL = "nvidia.com/device-plugin.config"
COUNT_LABEL, MEMORY_LABEL = "nvidia.com/gpu.count", "nvidia.com/gpu.memory"
"""Devices of a node, and mebibytes of each, as GPU Feature Discovery labels it."""
OURS = "foresize-"
CONFIGS = {GpuStrategy.TIME_SLICING: "foresize-timeslicing-{}", GpuStrategy.MPS: "foresize-mps-{}"}
NODES_KEPT = 50
"""Most nodes that a status names."""
MEBIBYTE = 2**20

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SharedNode:
    """One node with GPUs after a cycle."""

    node: NodeState
    devices: int
    device_bytes: float
    in_use: int
    decision: Sharing
    terms: NodeTerms
    config: str | None
    """What its label should say; None is nothing of ours."""
    conflict: str = ""
    """Why its label is left alone."""

    @property
    def reason(self) -> Reason:
        """Why its devices have as many shares as they have."""
        return Reason(ReasonCode.CONFLICT, self.conflict) if self.conflict else self.decision.reason


@dataclass
class GpuSharing:
    """Tells the shares of nodes' GPUs, and which labels have to change."""

    source: GpuSource
    step_seconds: int
    usable_share: float
    is_patient: bool = False
    """Whether each answer is waited for: for tests, and for a command that decides once."""
    problem: PredictorError | None = field(default=None, init=False)
    """Why the last reading failed."""

    def __post_init__(self) -> None:
        self._past: NodeGpus | None = None
        self._read_at = self._asked_at = -inf
        self._first_look_at = inf
        self._thread: threading.Thread | None = None
        self._shares: dict[tuple[str, float, float, int], tuple[float, Share | Hold]] = {}

    def look(
        self,
        policies: Sequence[OversubscriptionPolicy],
        nodes: Iterable[NodeState],
        pods: Iterable[NodePod],
        now: float,
    ) -> list[SharedNode]:
        """The nodes with GPUs that policies select; asks for newer usage where it is old."""
        if not policies:
            return []
        self._first_look_at = min(self._first_look_at, now)
        self._read(now)
        in_use: dict[str, int] = {}
        for pod in pods:
            in_use[pod.node] = in_use.get(pod.node, 0) + pod.gpus
        found = []
        for node in nodes:
            terms = terms_of(node, policies).get(Resource.GPU)
            if terms is not None:
                strategies = {each.gpu_strategy for each in policies if each.selects(node)}
                found.append(self._looked(node, terms, strategies, in_use.get(node.name, 0), now))
        return found

    def _looked(
        self, node: NodeState, terms: NodeTerms, strategies: set[GpuStrategy], in_use: int, now: float
    ) -> SharedNode:
        labels = dict(node.labels)
        devices, device_bytes = _number(labels.get(COUNT_LABEL)), _number(labels.get(MEMORY_LABEL)) * MEBIBYTE
        current = labels.get(GPU_CONFIG_LABEL)
        conflict = ""
        if current is not None and not current.startswith(OURS):
            conflict = f"its label {GPU_CONFIG_LABEL} is {current!r}, which is somebody else's: it is left alone"
        elif len(strategies) > 1:
            conflict = "policies with TimeSlicing and with MPS select it: it is not shared"
        if not devices or not device_bytes:
            text = f"it has no labels {COUNT_LABEL} and {MEMORY_LABEL}: is GPU Feature Discovery running?"
            decision = Sharing(1, Reason(ReasonCode.NO_EVIDENCE, text))
        elif labels.get("nvidia.com/mig.config", "all-disabled") != "all-disabled":
            decision = Sharing(1, Reason(ReasonCode.CONFLICT, "its devices are divided by MIG already"))
        else:
            share = self._share(node.name, devices, device_bytes, terms, now)
            decision = sharing(
                share,
                devices=devices,
                device_bytes=device_bytes,
                in_use=in_use,
                usable_share=self.usable_share,
                max_rate=terms.terms.max_rate,
            )
        config = None
        if terms.sells and not conflict:
            if self._past is None and now - self._first_look_at <= terms.terms.horizon_seconds:
                # A new leader changes nothing before it knows anything: a new label restarts the device plugin.
                config = current
            elif decision.replicas > 1:
                config = CONFIGS[next(iter(strategies))].format(decision.replicas)
        return SharedNode(node, devices, device_bytes, in_use, decision, terms, config, conflict)

    def _share(self, node: str, devices: int, device_bytes: float, terms: NodeTerms, now: float) -> Share | Hold:
        """As it was told from the last reading; what is older than its horizon says nothing."""
        horizon = terms.terms.horizon_seconds
        if self._past is None or node not in self._past.by_node:
            return Hold(Reason(ReasonCode.NO_EVIDENCE, _unknown(self.problem)))
        if now - self._read_at > horizon:
            text = f"usage of its devices was read {(now - self._read_at) / 3600:.0f} hours ago"
            return Hold(Reason(ReasonCode.NO_EVIDENCE, text))
        key = (node, terms.terms.violation_probability, horizon, devices)
        told_at, share = self._shares.get(key, (-inf, None))
        if share is None or told_at != self._read_at:
            past = self._past.by_node[node]
            gpus = GpuNode(devices, device_bytes, 0, past.activity, past.fullest_bytes, past.shares)
            steps = max(1, int(horizon) // self.step_seconds)
            share = told_share(gpus, violation_probability=key[1], horizon_steps=steps)
            self._shares[key] = (self._read_at, share)
        return share

    def _read(self, now: float) -> None:
        due = now - self._asked_at >= RETRY_SECONDS and now - self._read_at >= REFRESH_SECONDS
        if due and (self._thread is None or not self._thread.is_alive()):
            self._asked_at = now
            self._thread = threading.Thread(target=self._work, args=(now,), name="gpus", daemon=True)
            self._thread.start()
            if self.is_patient:
                self._thread.join()

    def _work(self, now: float) -> None:
        step = self.step_seconds
        end = int(now) // step * step - step
        start = end - (LONGEST_PAST_SECONDS // step - 1) * step
        try:
            past = self.source.fetch_gpus(start_seconds=start, end_seconds=end, step_seconds=step)
            self._past, self._read_at, self.problem, self._shares = past, now, None, {}
        except PredictorError as problem:
            if str(problem) != str(self.problem):
                log.warning("usage of GPUs not read", error=type(problem).__name__, message=str(problem))
            self.problem = problem
        except Exception:  # nobody waits for this thread: what broke must be seen, and is tried again
            log.exception("reading the usage of GPUs broke")


def label_changes(
    cluster: NodeCluster, nodes: Iterable[NodeState], shared: Iterable[SharedNode]
) -> list[tuple[NodeState, Callable[[], None]]]:
    """The writes that bring labels to what they should be; of a node that no policy shares, ours is taken off."""
    wanted = {each.node.name: each for each in shared}
    changes: list[tuple[NodeState, Callable[[], None]]] = []
    for node in nodes:
        current = dict(node.labels).get(GPU_CONFIG_LABEL)
        of_node = wanted.get(node.name)
        config = None if of_node is None else of_node.config
        if current == config or (current is not None and not current.startswith(OURS)):
            continue
        changes.append((node, partial(cluster.set_gpu_config, node, config)))
    return changes


def gpu_status(
    policy: OversubscriptionPolicy,
    policies: Sequence[OversubscriptionPolicy],
    shared: Sequence[SharedNode],
    before: Mapping[str, Any],
    now_seconds: float,
    *,
    refusal: str = "",
    note: str = "",
) -> JsonObject:
    """The whole status of a policy with GPUSharing."""
    mine = [each for each in shared if policy.selects(each.node)]
    devices = sum(each.devices for each in mine)
    shares = sum(each.devices * each.decision.replicas for each in mine)
    offered = sum(each.devices * _replicas(each.node) for each in mine)
    reasons: dict[ReasonCode, tuple[int, str]] = {}
    for each in sorted(mine, key=lambda one: one.node.name):
        count, words = reasons.get(each.reason.code, (0, f"{each.node.name}: {each.reason.message}"))
        reasons[each.reason.code] = (count + 1, words)
    status: JsonObject = {
        "observedGeneration": policy.generation,
        "nodes": {
            "selected": len(mine),
            "cold": sum(each.decision.share is None for each in mine),
            "stale": 0,
            "suspended": 0,
        },
        "resources": [
            {
                "name": Resource.GPU.value,
                "rate": round(shares / devices, 4) if devices else 1.0,
                "allocatable": float(devices),
                "requested": float(sum(each.in_use for each in mine)),
                "reclaimable": float(shares - devices),
                "offered": float(offered),
                "reasons": [
                    {"reason": code.value, "nodes": count, "message": words}
                    for code, (count, words) in sorted(reasons.items())
                ],
            }
        ],
        "gpus": [_told(each) for each in sorted(mine, key=lambda one: one.node.name)[:NODES_KEPT]],
    }
    verdicts = _verdicts(policy, policies, mine, refusal, note)
    status["conditions"] = as_conditions(verdicts, before.get("conditions") or (), now_seconds)
    return status


def _told(each: SharedNode) -> JsonObject:
    told: JsonObject = {
        "node": each.node.name,
        "devices": each.devices,
        "replicas": each.decision.replicas,
        "reason": each.reason.code.value,
        "message": each.reason.message,
    }
    if each.decision.share is not None:
        advice = hami_advice(each.decision.share, each.device_bytes)
        told["hami"] = {"gpucores": advice.gpu_cores, "gpumemPercentage": advice.gpu_memory_percentage}
    return told


def _verdicts(
    policy: OversubscriptionPolicy,
    policies: Sequence[OversubscriptionPolicy],
    mine: Sequence[SharedNode],
    refusal: str,
    note: str,
) -> dict[str, tuple[bool, str, str]]:
    if policy.problem:
        return {"NodesSelected": (False, ReasonCode.INVALID_SPEC.value, policy.problem)}
    if not mine:
        return {"NodesSelected": (False, "NoNodes", "no node carries all labels of spec.nodeSelector")}
    rivals = rivals_of(policy, policies, [each.node for each in mine])
    known = sum(each.decision.share is not None for each in mine)
    names = ", ".join(f"{name} ({count} nodes)" for name, count in sorted(rivals.items()))
    others = [f"{each.node.name}: {each.conflict}" for each in mine if each.conflict]
    able: tuple[bool, str, str] = (True, "SucceededUpdate", f"nodes are labelled {GPU_CONFIG_LABEL}")
    if refusal:
        able = (False, "FailedUpdateNode", refusal)
    elif note or policy.is_paused:
        able = (False, ReasonCode.PAUSED.value, note or "paused by its annotation: labels are taken off")
    elif policy.mode is Mode.OBSERVE:
        able = (True, Mode.OBSERVE.value, "nothing is written to nodes; spec.mode Auto labels them")
    unknown = next((f"{e.node.name}: {e.decision.reason.message}" for e in mine if e.decision.share is None), "")
    active = f"of {known} of {len(mine)} nodes it is told what a share takes"
    conflict = (
        True,
        ReasonCode.CONFLICT.value,
        others[0] if others else f"also selected by {names}: the stricter holds",
    )
    return {
        "NodesSelected": (True, "NodesFound", f"{len(mine)} nodes carry all labels of spec.nodeSelector"),
        "AbleToReclaim": able,
        "ReclaimingActive": (True, "PeaksPredicted", active)
        if known
        else (False, ReasonCode.NO_EVIDENCE.value, unknown),
        "ReclaimingLimited": limited(each.reason.code for each in mine),
        "Conflict": conflict if others or rivals else (False, "NoConflict", "nothing else shares these nodes' GPUs"),
    }


def _unknown(problem: PredictorError | None) -> str:
    if problem is not None:
        return f"usage of its devices is not known: {problem}"
    return "DCGM's exporter tells nothing of its devices (label Hostname), or was not asked yet"


def _replicas(node: NodeState) -> int:
    """As its label says."""
    current = dict(node.labels).get(GPU_CONFIG_LABEL, "")
    number = current.rpartition("-")[2]
    return int(number) if current.startswith(OURS) and number.isdigit() else 1


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0
