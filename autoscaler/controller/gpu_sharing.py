"""Shares of GPUs as OversubscriptionPolicies with GPUSharing say: told once an hour, written as a label of the node.

NVIDIA's device plugin reads from the label which configuration of its ConfigMap holds for the node; those that this
names are in deploy/gpu-sharing and never written here. So there is nothing to take back but the label. What the devices
did in the newest step is read beside: a share that took more than was told is a violation, and a shared device whose
memory is too full stops further sharing on its node. Nobody is evicted for it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

from autoscaler.cluster.nodes import GpuStrategy, NodePod, NodeState
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.gpu_tellings import Asked, GpuTeller, ToldShares
from autoscaler.controller.node_budget import BudgetRecord, kept_record
from autoscaler.controller.node_ports import GpuSource, NodeCluster
from autoscaler.controller.policies import NodeTerms, OversubscriptionPolicy, terms_of
from autoscaler.decisions.gpu_sharing import MOST_REPLICAS, GpuNode, Share, Sharing, excess, sharing
from predictor.usage.panel import Resource

GPU_CONFIG_LABEL = "nvidia.com/device-plugin.config"
COUNT_LABEL, MEMORY_LABEL = "nvidia.com/gpu.count", "nvidia.com/gpu.memory"
"""Devices of a node, and mebibytes of each, as GPU Feature Discovery labels it."""
OURS = "foresize-"
CONFIGS = {GpuStrategy.TIME_SLICING: "foresize-timeslicing-{}", GpuStrategy.MPS: "foresize-mps-{}"}
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Fullness:
    """That the memory of a shared device of a node was too full."""

    seen_at_seconds: float
    """Last."""
    text: str


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
    exceeded: float | None = None
    """By which share of what a share took in the newest step it exceeded what was told; None where nobody knows."""
    fullness: Fullness | None = None
    """Why it is not shared any further."""
    has_filled: bool = False
    """Whether that has just begun."""
    has_calmed: bool = False
    """Whether that has just ended."""

    @property
    def news(self) -> str:
        """What people are told of its fullness; empty where that did not change."""
        if self.has_filled and self.fullness is not None:
            return f"{self.node.name}: {self.fullness.text}; its GPUs are not shared any further"
        return f"{self.node.name}: no shared GPU was too full for a horizon" if self.has_calmed else ""

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

    def __post_init__(self) -> None:
        self.teller = GpuTeller(self.source, self.step_seconds, self.is_patient)
        self._untold_since: dict[str, float] = {}
        self.forget()

    def forget(self) -> None:
        """Leaves nothing of an own leadership: the next one starts from what the policies' statuses say."""
        self._records: dict[str, BudgetRecord] = {}
        self._full: dict[str, Fullness] | None = None

    def look(
        self,
        policies: Sequence[OversubscriptionPolicy],
        nodes: Iterable[NodeState],
        pods: Iterable[NodePod],
        now: float,
    ) -> list[SharedNode]:
        """The nodes with GPUs that policies select; asks for newer usage where it is old."""
        policies = [each for each in policies if Resource.GPU in each.terms]
        if not policies:
            return []
        selected = [(node, terms_of(node, policies).get(Resource.GPU)) for node in nodes]
        mine = [(node, terms) for node, terms in selected if terms is not None]
        asked = {node.name: each for node, terms in mine if (each := _asked(node, terms)) is not None}
        self.teller.refresh(frozenset(asked.values()), now)
        told, full = self.teller.told, self._known_full(policies, now)
        untold = [name for name, each in asked.items() if each not in told.by_asked]
        self._untold_since = {name: self._untold_since.get(name, now) for name in untold}
        in_use: dict[str, int] = {}
        for pod in pods:
            in_use[pod.node] = in_use.get(pod.node, 0) + pod.gpus
        found = []
        for node, terms in mine:
            own, used = [each for each in policies if each.selects(node)], in_use.get(node.name, 0)
            of_node, before = asked.get(node.name), full.get(node.name)
            found.append(
                _unlabelled(node, terms, used, _conflict(node, own))
                if of_node is None
                else self._looked(node, terms, own, asked=of_node, told=told, before=before, in_use=used, now=now)
            )
        self._full = {each.node.name: each.fullness for each in found if each.fullness is not None}
        self._record(policies, found, now)
        return found

    def record(self, policy: OversubscriptionPolicy) -> BudgetRecord:
        """How often what was told of a policy's nodes was wrong."""
        return self._records.get(policy.uid) or kept_record(policy.status, Resource.GPU)

    def _known_full(self, policies: Iterable[OversubscriptionPolicy], now: float) -> Mapping[str, Fullness]:
        """What is remembered of nodes; at first, those that the statuses say are suspended."""
        if self._full is not None:
            return self._full
        names = {str(name) for policy in policies for name in policy.status.get("suspendedNodes") or ()}
        return {name: Fullness(now, "the memory of a shared device was too full, says the status") for name in names}

    def _looked(
        self,
        node: NodeState,
        terms: NodeTerms,
        policies: Sequence[OversubscriptionPolicy],
        *,
        asked: Asked,
        told: ToldShares,
        before: Fullness | None,
        in_use: int,
        now: float,
    ) -> SharedNode:
        labels, conflict = dict(node.labels), _conflict(node, policies)
        writes = terms.sells and not conflict
        share, newest = self.teller.share(asked, told, now), self.teller.newest(asked, now)
        fullness = self._fullness(node, newest, now) if writes else None
        if fullness is None and before is not None and now - before.seen_at_seconds <= asked.horizon_seconds:
            fullness = before
        if labels.get("nvidia.com/mig.config", "all-disabled") != "all-disabled":
            reason = Reason(ReasonCode.CONFLICT, "its devices are divided by MIG already")
            decision = Sharing(1, reason, Hold(reason))
        else:
            decision = sharing(
                share,
                devices=asked.devices,
                device_bytes=asked.device_bytes,
                in_use=in_use,
                usable_share=self.usable_share,
                max_rate=terms.terms.max_rate,
                sold_share=min(self._sold_share(each) for each in policies),
                fullness="" if fullness is None else fullness.text,
            )
        config = None
        if writes and (self._is_awaited(asked, now) or decision.replicas > MOST_REPLICAS):
            # Nothing is changed before anything is known: a new label restarts the device plugin. Nor where pods have
            # more shares of a device than any configuration of ours makes: the plugin fails with one that is not there.
            config = labels.get(GPU_CONFIG_LABEL)
        elif writes and decision.replicas > 1:
            config = CONFIGS[policies[0].gpu_strategy].format(decision.replicas)
        return SharedNode(
            node,
            asked.devices,
            asked.device_bytes,
            in_use,
            decision,
            terms,
            config,
            conflict,
            excess(share, newest) if isinstance(share, Share) and newest is not None else None,
            fullness,
            has_filled=fullness is not None and before is None,
            has_calmed=fullness is None and before is not None,
        )

    def _sold_share(self, policy: OversubscriptionPolicy) -> float:
        return self.record(policy).sold_share(policy.terms[Resource.GPU].violation_probability)

    def _is_awaited(self, asked: Asked, now: float) -> bool:
        """Whether nothing was told yet of the node, and that is so for no longer than its horizon."""
        return now - self._untold_since.get(asked.node, -inf) <= asked.horizon_seconds

    def _fullness(self, node: NodeState, newest: GpuNode | None, now: float) -> Fullness | None:
        replicas = replicas_of(node)
        if newest is None or replicas < 2:
            return None
        used, usable = newest.fullest_bytes[-1], self.usable_share * newest.device_bytes
        if not used > usable:
            return None
        gib = f"{used / 2**30:.4g} GiB of a device with {replicas} shares are in use, {usable / 2**30:.4g} are usable"
        return Fullness(now, gib)

    def _record(self, policies: Iterable[OversubscriptionPolicy], shared: Iterable[SharedNode], now: float) -> None:
        """Counts nodes of which a share was told and the newest step is known, and those where it took more or the
        memory of a shared device was too full."""
        known = {each.node.name: each for each in shared if each.exceeded is not None}
        records = {}
        for policy in policies:
            mine = [each for each in known.values() if policy.selects(each.node)]
            records[policy.uid] = self.record(policy).after(
                [each.node.name for each in mine],
                [each.node.name for each in mine if each.exceeded or (each.has_filled and policy.sells)],
                policy.terms[Resource.GPU].horizon_seconds,
                now,
                worst=max((each.exceeded or 0.0 for each in mine), default=0.0),
            )
        self._records = records


def _conflict(node: NodeState, policies: Iterable[OversubscriptionPolicy]) -> str:
    current = dict(node.labels).get(GPU_CONFIG_LABEL)
    if current is not None and not current.startswith(OURS):
        return f"its label {GPU_CONFIG_LABEL} is {current!r}, which is somebody else's: it is left alone"
    if len({each.gpu_strategy for each in policies}) > 1:
        return "policies with TimeSlicing and with MPS select it: it is not shared"
    return ""


def _asked(node: NodeState, terms: NodeTerms) -> Asked | None:
    """None where the node does not say what devices it has."""
    labels = dict(node.labels)
    devices, mebibytes = _number(labels.get(COUNT_LABEL)), _number(labels.get(MEMORY_LABEL))
    if not devices or not mebibytes:
        return None
    held = terms.terms
    return Asked(node.name, devices, mebibytes * MEBIBYTE, held.violation_probability, held.horizon_seconds)


def _unlabelled(node: NodeState, terms: NodeTerms, in_use: int, conflict: str) -> SharedNode:
    """A node that does not say what devices it has: how many shares its pods need is not known, so they keep theirs."""
    text = f"it has no labels {COUNT_LABEL} and {MEMORY_LABEL}: is GPU Feature Discovery running?"
    reason = Reason(ReasonCode.NO_EVIDENCE, text)
    config = dict(node.labels).get(GPU_CONFIG_LABEL) if terms.sells and not conflict and in_use else None
    return SharedNode(node, 0, 0.0, in_use, Sharing(1, reason, Hold(reason)), terms, config, conflict)


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


def replicas_of(node: NodeState) -> int:
    """As its label says."""
    current = dict(node.labels).get(GPU_CONFIG_LABEL, "")
    number = current.rpartition("-")[2]
    return int(number) if current.startswith(OURS) and number.isdigit() else 1


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0
