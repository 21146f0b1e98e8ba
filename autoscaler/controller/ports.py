"""What the controller asks of the outside world, in its own words. Adapters live in autoscaler/kube and predictor."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from autoscaler.cluster.containers import PodState
from autoscaler.cluster.domains import FailureDomains
from autoscaler.cluster.reasons import Hold
from autoscaler.cluster.resources import Resources
from autoscaler.controller.autoscalers import PredictiveAutoscaler, Rival, TargetRef
from autoscaler.decisions.resizes import PodResize
from predictor.errors import PredictorError
from predictor.serving.forecasts import Forecasts
from predictor.serving.predictor import NO_QUERIES
from predictor.usage.containers import ContainerUsage
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from predictor.usage.ready import ReadyHistory
from predictor.usage.throttled import ThrottledHistory

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DisruptionBudget:
    """A PodDisruptionBudget over pods of a workload."""

    name: str
    allowed: int
    """How many of its pods may go now."""


@dataclass(frozen=True, slots=True)
class TargetWorkload:
    """The workload that an object names, as the cluster has it."""

    name: str
    """`namespace/kind/name`."""
    uid: str
    """Changes when the object is deleted and made again under the same name."""
    replicas: int
    """`spec.replicas`."""
    ready_replicas: int
    request_per_replica: Resources = field(default_factory=Resources)
    cpu_limit_cores: float = 0.0
    """CPU limit of one replica, of those of its containers that have one; 0 where none has."""
    rollout: str = ""
    """What is in progress, in words; empty where nothing is."""
    ready_seconds: tuple[float, ...] = ()
    """What its newest pods took from creation to Ready."""
    generation: int = 0
    """Counts changes of its spec; 0 where nobody counts them."""
    is_set_by_us: bool = False
    """Whether a copy of this controller set the replicas that it has."""

    pod_labels: tuple[tuple[str, str], ...] = ()
    """What its pods are selected by."""
    budgets: tuple[DisruptionBudget, ...] = ()
    """Those that select its pods."""

    version: str = ""
    """Fingerprint of the images that its pods are made of; empty where it is not known."""
    node_selector: tuple[tuple[str, str], ...] = ()
    """Labels of the nodes that its pods may be placed on; empty for any."""
    containers: tuple[str, ...] = ()
    """Names of the containers that its pods are made with."""
    pods: tuple[PodState, ...] = ()
    """Its pods, where its object needs to know them one by one."""
    domains: FailureDomains | Hold | None = None
    """Where they are, where one of the domains is to be survivable; or why that is not known."""

    def beside(
        self,
        ready_seconds: tuple[float, ...],
        budgets: tuple[DisruptionBudget, ...],
        pods: tuple[PodState, ...] = (),
        domains: FailureDomains | Hold | None = None,
    ) -> Self:
        """The same with what other objects say of its pods."""
        return replace(self, ready_seconds=ready_seconds, budgets=budgets, pods=pods, domains=domains)


@dataclass(frozen=True, slots=True)
class ManagedWorkload:
    """A PredictiveAutoscaler and what it steers."""

    autoscaler: PredictiveAutoscaler
    target: TargetWorkload | Hold
    """Or why it cannot be seen."""
    rivals: tuple[Rival, ...] = ()
    """What else steers the same target."""


@dataclass(frozen=True, slots=True)
class ClusterObservation:
    """Every managed workload at one instant. Never a part of them: what could not be read raises."""

    observed_at_seconds: float
    workloads: tuple[ManagedWorkload, ...]
    age_seconds: float = 0.0
    """How long before that the oldest part of it was last known to be current."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A workload's scale, or what stands for it, as it is: what a write is conditional on."""

    uid: str
    resource_version: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that people who look at an object should read."""

    about: PredictiveAutoscaler
    reason: str
    note: str
    is_warning: bool = False


class ClusterReader(Protocol):
    """Sees the cluster."""

    def observe(self, now_seconds: float) -> ClusterObservation:
        """Every managed workload, from lists that are kept current. Raises ClusterUnavailable or ClusterRefused."""
        ...

    def scale_of(self, namespace: str, target: TargetRef) -> Scale:
        """The scale of a target now. Raises ObjectGone, ClusterUnavailable or ClusterRefused."""
        ...

    def minimum_of(self, hpa: Rival) -> Scale:
        """`minReplicas` of a HorizontalPodAutoscaler now, in the place of replicas. Raises as `scale_of` does."""
        ...


class ClusterWriter(Protocol):
    """Changes the cluster. Every call raises CommandConflict, ObjectGone, ClusterUnavailable or ClusterRefused."""

    def set_replicas(self, namespace: str, target: TargetRef, replicas: int, expected: Scale) -> None:
        """Sets `spec.replicas`, provided the object is still exactly what `expected` says."""
        ...

    def set_minimum(self, hpa: Rival, replicas: int, expected: Scale) -> None:
        """Sets `minReplicas` of a HorizontalPodAutoscaler, provided it is still exactly what `expected` says."""
        ...

    def resize_pod(self, resize: PodResize) -> None:
        """Sets the requests of a running pod's containers, provided it is still the pod that was seen, unchanged."""
        ...

    def set_status(self, autoscaler: PredictiveAutoscaler, status: Mapping[str, object]) -> None:
        """Puts the status in the place of the one before."""
        ...

    def publish(self, event: Event, now_seconds: float) -> None:
        """Makes an Event of it."""
        ...


class ContainerUsageSource(Protocol):
    """Knows what single containers use."""

    def fetch_containers(
        self, workloads: Collection[str], *, start_seconds: int, end_seconds: int, step_seconds: int
    ) -> ContainerUsage:
        """Usage of the workloads' containers in one pod each, on the grid start, start+step, … up to end (inclusive).

        One question for all of them. A workload of which nothing is known is left out. Raises a PredictorError.
        """
        ...


class IndicatorSource(Protocol):
    """Evaluates the queries that say whether SLAs are kept."""

    def fetch_values(
        self,
        queries: Mapping[SeriesKey, str],
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        within_seconds: float | None = None,
    ) -> UsagePanel:
        """The value of each query, as it is, on the grid start, start+step, … up to end, each at the end of its step.

        Each is held to the namespace of its key. One that fails, has more than one series or is not done within that
        time is left out with a finding that says why.
        """
        ...


class CapacitySource(IndicatorSource, Protocol):
    """Knows what capacity is learned from, beside demand."""

    def fetch_bounds(
        self, histograms: Mapping[SeriesKey, str], *, end_seconds: int, step_seconds: int
    ) -> Mapping[SeriesKey, tuple[str, ...] | PredictorError]:
        """Bounds of each histogram's buckets at the end of a step, as they are written; each held to the namespace of
        its key."""
        ...

    def fetch_ready(self, workload: str, *, start_seconds: int, end_seconds: int, step_seconds: int) -> ReadyHistory:
        """How many replicas of a workload were Ready, on the grid start, start+step, … up to end (inclusive).

        Raises a PredictorError.
        """
        ...

    def fetch_throttled(
        self, workload: str, *, start_seconds: int, end_seconds: int, step_seconds: int
    ) -> ThrottledHistory:
        """How much of a workload's CPU time was throttled, and under which limit, on the same grid.

        Raises a PredictorError.
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

    @property
    def transitions(self) -> int:
        """How often it has changed hands: who leads again may have missed what another one did."""
        ...


class Predicting(Protocol):
    """Answers what every workload will use; the predictor does."""

    def predict(
        self,
        now_seconds: float,
        *,
        levels: Collection[float] = (),
        resources: Collection[Resource] | None = None,
        queries: Mapping[SeriesKey, str] = NO_QUERIES,
    ) -> Forecasts:
        """Every answer at one instant, at its own and those levels, of all resources or some of them.

        `queries` say what demand is, by the series that they stand for. A source that is gone is an answer.
        """
        ...
