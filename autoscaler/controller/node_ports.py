"""What overselling nodes asks of the outside world. Adapters live in autoscaler/kube and predictor."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from autoscaler.cluster.nodes import KubeletEviction, NodePod, NodeState
from autoscaler.controller.policies import OversubscriptionPolicy
from predictor.usage.panel import Resource
from predictor.usage.placed import MeanPods, NodeGpus, NodeUsage, Placed


@dataclass(frozen=True, slots=True)
class NodeObservation:
    """Policies, nodes and the pods on them at one instant; pods only where there are policies."""

    policies: tuple[OversubscriptionPolicy, ...]
    nodes: tuple[NodeState, ...]
    pods: tuple[NodePod, ...]
    evictions: tuple[KubeletEviction, ...] = ()
    """Of pods that are still known."""


class NodeCluster(Protocol):
    """Sees nodes and writes what they offer. Every write raises CommandConflict, ObjectGone, ClusterUnavailable or
    ClusterRefused."""

    def observe_nodes(self) -> NodeObservation:
        """From lists that are kept current. Raises ClusterUnavailable or ClusterRefused."""
        ...

    def set_offer(self, node: NodeState, offer: Mapping[Resource, int | None]) -> None:
        """Sets how much of the extended resources the node's status offers, in their whole units; None takes it back.

        Provided it is still the node that was seen.
        """
        ...

    def set_gpu_config(self, node: NodeState, config: str | None) -> None:
        """Names the configuration of the node's device plugin; None leaves it to the plugin's own default.

        Provided it is still the node that was seen.
        """
        ...

    def evict(self, pod: NodePod) -> None:
        """Asks the eviction API for the very pod to go; CommandConflict where a disruption budget does not allow it."""
        ...

    def set_policy_status(self, policy: OversubscriptionPolicy, status: Mapping[str, object]) -> None:
        """Puts the status in the place of the one before."""
        ...

    def publish_about(
        self, policy: OversubscriptionPolicy, reason: str, note: str, now_seconds: float, *, is_warning: bool
    ) -> None:
        """Makes an Event about the policy."""
        ...


class PlacedSource(Protocol):
    """Knows what is used on nodes. Every call raises a PredictorError."""

    def fetch_mean_pods(
        self, names: Collection[Placed], *, start_seconds: int, end_seconds: int, step_seconds: int
    ) -> MeanPods:
        """What the mean pods of workloads on nodes used, on the grid start, start+step, … up to end (inclusive)."""
        ...

    def fetch_node_usage(self, now_seconds: float) -> NodeUsage:
        """What is used on each node now."""
        ...


class GpuSource(Protocol):
    """Knows the GPUs of nodes. Every call raises a PredictorError."""

    def fetch_gpus(self, *, start_seconds: int, end_seconds: int, step_seconds: int) -> NodeGpus:
        """How busy and full the GPUs of nodes were, on the grid start, start+step, … up to end (inclusive)."""
        ...
