"""What the controller asks of the outside world, in its own words. Adapters live in autoscaler/kube and predictor."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from autoscaler.cluster.resources import Resources
from predictor.serving.predictor import Forecasts


@dataclass(frozen=True, slots=True)
class ManagedWorkload:
    """A workload that carries the label, as the cluster has it."""

    name: str
    """`namespace/kind/name`."""
    uid: str
    """Changes when the object is deleted and made again under the same name."""
    replicas: int
    """`spec.replicas`."""
    ready_replicas: int
    request_per_replica: Resources = field(default_factory=Resources)
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Those under `foresize.io/`, without that prefix."""


@dataclass(frozen=True, slots=True)
class ClusterObservation:
    """Every managed workload at one instant. Never a part of them: what could not be read raises."""

    observed_at_seconds: float
    workloads: tuple[ManagedWorkload, ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """A workload's scale as it stands: what a write is conditional on."""

    uid: str
    resource_version: str
    replicas: int


class ClusterReader(Protocol):
    """Sees the cluster."""

    def observe(self, now_seconds: float) -> ClusterObservation:
        """Every managed workload, with one list per kind. Raises ClusterUnavailable or ClusterRefused."""
        ...

    def scale_of(self, workload: str) -> Scale:
        """The scale now. Raises ObjectGone, ClusterUnavailable or ClusterRefused."""
        ...


class ReplicaWriter(Protocol):
    """Changes the cluster."""

    def set_replicas(self, workload: str, replicas: int, expected: Scale) -> None:
        """Sets `spec.replicas`, provided the object is still exactly what `expected` says.

        Raises CommandConflict where it is not, ObjectGone, ClusterUnavailable or ClusterRefused.
        """
        ...


class Leadership(Protocol):
    """Says which of several controllers may act; asking costs nothing and asks nobody."""

    @property
    def is_leader(self) -> bool:
        """Whether this one may act now. Ask before each write: it may end at any moment."""
        ...

    @property
    def holder(self) -> str:
        """Who leads as far as this one knows; empty where nobody does."""
        ...


class Predicting(Protocol):
    """Answers what every workload will use; the predictor does."""

    def predict(self, now_seconds: float) -> Forecasts:
        """Every answer at one instant; a source that is gone is an answer with that reason, not an error."""
        ...
