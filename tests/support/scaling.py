"""Builders for the controller: workloads, a cluster in memory, and a predictor over history made up for the test."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np

from autoscaler.cluster.resources import Resources
from autoscaler.controller.autoscalers import Mode, PredictiveAutoscaler, TargetRef
from autoscaler.controller.loop import Controller
from autoscaler.controller.memory import MemoryCluster, MemoryLeadership
from autoscaler.controller.ports import TargetWorkload
from autoscaler.settings import ScalingSettings
from models.forecast import FloatArray
from predictor.errors import SourceUnavailable
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.ports import Progress
from predictor.serving.predictor import Predictor
from predictor.sources.files import MemorySource
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from tests.support.serving import LEVELS, START_SECONDS, STEP_SECONDS, ManualClock, a_store

DAYS = 9
NOON_SECONDS = START_SECONDS + (DAYS - 1) * 86_400 + 43_200
"""Noon of the last day: demand doubles every day ten minutes later."""
CART = "shop/Deployment/cart"


def a_target(
    name: str = CART,
    replicas: int = 3,
    *,
    cpu_cores: float = 1.0,
    ready_replicas: int | None = None,
    uid: str = "",
    **more: Any,
) -> TargetWorkload:
    """A workload that objects can name."""
    return TargetWorkload(
        name=name,
        uid=uid or f"uid of {name}",
        replicas=replicas,
        ready_replicas=replicas if ready_replicas is None else ready_replicas,
        request_per_replica=Resources(cpu_cores=cpu_cores),
        **more,
    )


def an_autoscaler(workload: str = CART, *, uid: str = "", name: str = "", **spec: Any) -> PredictiveAutoscaler:
    """An object in mode Auto with the workload's name, up to 20 replicas."""
    namespace, kind, short = workload.split("/")
    wishes: dict[str, Any] = {"max_replicas": 20, "mode": Mode.AUTO}
    return PredictiveAutoscaler(
        namespace=namespace,
        name=name or short,
        uid=uid or f"object of {workload}",
        generation=1,
        target=TargetRef("apps/v1", kind, short),
        **(wishes | spec),
    )


def noon_rush(before: float, after: float) -> FloatArray:
    """Usage that goes from `before` to `after` at ten past noon each day for four hours, [steps]."""
    step = np.arange(DAYS * 288) % 288
    rush = (step >= 146) & (step < 146 + 48)
    return np.where(rush, after, before).astype(np.float64)


def a_panel(usage_by_workload: Mapping[str, FloatArray], resource: Resource = Resource.CPU) -> UsagePanel:
    """The panel of these workloads, from START_SECONDS on."""
    keys = tuple(SeriesKey(name, resource) for name in usage_by_workload)
    return UsagePanel(keys, START_SECONDS, STEP_SECONDS, np.stack(list(usage_by_workload.values())))


@dataclass
class SwitchableSource:
    """A source that answers until it is told not to."""

    panel: UsagePanel
    is_down: bool = False
    fetches: int = 0
    resources: frozenset[Resource] = frozenset()
    """What was asked for last."""

    def fetch(
        self,
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        resources: Collection[Resource] = tuple(Resource),
        progress: Progress | None = None,
    ) -> UsagePanel:
        self.fetches += 1
        self.resources = frozenset(resources)
        if self.is_down:
            raise SourceUnavailable("http://prometheus:9090 did not answer within 60 s")
        return MemorySource(self.panel).fetch(
            start_seconds=start_seconds, end_seconds=end_seconds, step_seconds=step_seconds, resources=resources
        )


@dataclass
class ScalingParts:
    """What a controller is made of: by default one workload with 3 replicas of 1 core that is idle before a rush."""

    usage_by_workload: Mapping[str, FloatArray] = field(default_factory=lambda: {CART: noon_rush(2.0, 5.6)})
    targets: tuple[TargetWorkload, ...] = field(default_factory=lambda: (a_target(),))
    autoscalers: tuple[PredictiveAutoscaler, ...] | None = None
    """By default one of each target."""
    settings: ScalingSettings = field(default_factory=lambda: ScalingSettings(learned_margins=False))
    """By default without learned margins, so that what is decided on is the forecast's own quantile."""
    clock: ManualClock = field(default_factory=lambda: ManualClock(float(NOON_SECONDS)))
    resource: Resource = Resource.CPU
    is_dry_run: bool = False

    def __post_init__(self) -> None:
        panel = a_panel(self.usage_by_workload, self.resource)
        self.source = SwitchableSource(panel)
        self.store: MemoryBundleStore = a_store(panel, START_SECONDS + 7 * 86_400)
        objects = [an_autoscaler(t.name) for t in self.targets] if self.autoscalers is None else self.autoscalers
        self.cluster = MemoryCluster({a.uid: a for a in objects}, {t.name: t for t in self.targets})
        self.leadership = MemoryLeadership()
        self.predictor = Predictor(
            source=self.source,
            store=self.store,
            step_seconds=STEP_SECONDS,
            span=timedelta(days=8),
            horizon=timedelta(hours=4),
            levels=LEVELS,
            stale_after=self.settings.stale_after,
        )

    def controller(self) -> Controller:
        """The controller, nothing decided yet."""
        return Controller(
            self.cluster,
            self.cluster,
            self.predictor,
            self.settings,
            self.clock,
            self.leadership,
            is_dry_run=self.is_dry_run,
        )

    def replicas(self, workload: str = CART) -> int:
        """What a workload's scale asks for."""
        return self.cluster.targets[workload].replicas

    def status(self, workload: str = CART) -> dict[str, Any]:
        """The status of the object of that target."""
        return next(a.status for a in self.cluster.autoscalers.values() if a.workload == workload)

    def condition(self, kind: str, workload: str = CART) -> tuple[str, str]:
        """Status and reason of one of the conditions."""
        return next((c["status"], c["reason"]) for c in self.status(workload)["conditions"] if c["type"] == kind)
