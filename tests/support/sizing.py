"""Builders for sizing containers: a source of their usage, their pods, and a controller that recommends requests."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from autoscaler.cluster.containers import Amounts, ContainerState, PodState
from autoscaler.controller.advisor import RequestAdvisor
from autoscaler.controller.autoscalers import PredictiveAutoscaler, Vertical, VerticalMode
from autoscaler.controller.loop import Controller
from autoscaler.controller.vertical import VerticalScaling
from autoscaler.settings import VerticalSettings
from models.forecast import FloatArray
from predictor.errors import SourceUnavailable
from predictor.usage.containers import ContainerName, ContainerUsage
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from tests.support.scaling import CART, DAYS, ScalingParts, an_autoscaler
from tests.support.serving import START_SECONDS, STEP_SECONDS

MIB = 2**20
STEPS = DAYS * 288
APP = ContainerName(CART, "app")


def flat(value: float) -> FloatArray:
    """The same in every step of the history."""
    return np.full(STEPS, value)


@dataclass
class ContainerHistory:
    """What containers used: by name their mean and busiest cores and the largest pod's bytes; none once it is down."""

    usage: dict[ContainerName, tuple[FloatArray, FloatArray, FloatArray]] = field(
        default_factory=lambda: {APP: (flat(0.4), flat(0.5), flat(200.0 * MIB))}
    )
    is_down: bool = False
    asked: list[frozenset[str]] = field(default_factory=list)
    """Whom it was asked for, oldest first."""

    def fetch_containers(
        self, workloads: Collection[str], *, start_seconds: int, end_seconds: int, step_seconds: int
    ) -> ContainerUsage:
        self.asked.append(frozenset(workloads))
        if self.is_down:
            raise SourceUnavailable("http://prometheus:9090 did not answer within 60 s")
        first = (start_seconds - START_SECONDS) // step_seconds
        count = (end_seconds - start_seconds) // step_seconds + 1
        known = {name: rows for name, rows in self.usage.items() if name.workload in workloads}

        def panel(parts: tuple[tuple[Resource, int], ...]) -> UsagePanel:
            rows: dict[SeriesKey, FloatArray] = {}
            for name, values in known.items():
                for resource, place in parts:
                    padded = np.pad(values[place], (STEPS, STEPS), constant_values=np.nan)
                    rows[name.series(resource)] = padded[STEPS + first : STEPS + first + count]
            usage = np.stack(list(rows.values())) if rows else np.empty((0, count))
            return UsagePanel(tuple(rows), start_seconds, step_seconds, usage)

        return ContainerUsage(panel(((Resource.CPU, 1), (Resource.MEMORY, 2))), panel(((Resource.CPU, 0),)))


def a_pod(name: str = "cart-1", cpu: float = 0.4, memory_mib: float = 220, **more: Any) -> PodState:
    """A running pod of one container `app`; what is not of pods is of the container."""
    of_pod = {key: more.pop(key) for key in ("pending", "qos", "is_running") if key in more}
    container = ContainerState("app", Amounts(cpu, memory_mib * MIB), **more)
    state: dict[str, Any] = {"is_running": True, "qos": "Burstable"} | of_pod
    return PodState("shop", name, f"uid of {name}", "1", containers=(container,), **state)


def a_sized_object(mode: VerticalMode = VerticalMode.IN_PLACE, **spec: Any) -> PredictiveAutoscaler:
    """An object in mode Auto that asks for requests too; `policy` is what it says of every container."""
    policy = spec.pop("policy", None)
    policies = () if policy is None else (("*", policy),)
    return an_autoscaler(vertical=Vertical(mode, policies), **({"target_value": 1.0} | spec))


@dataclass
class SizingParts(ScalingParts):
    """A controller that sizes containers; by default one workload with two pods that request half of what is used."""

    history: ContainerHistory = field(default_factory=ContainerHistory)
    pods: tuple[PodState, ...] = (a_pod("cart-1", 0.2, 100), a_pod("cart-2", 0.2, 100))
    vertical_settings: VerticalSettings = field(default_factory=VerticalSettings)

    def __post_init__(self) -> None:
        self.targets = tuple(
            replace(target, containers=("app",), pods=target.pods or self.pods) for target in self.targets
        )
        if self.autoscalers is None:
            self.autoscalers = (a_sized_object(),)
        super().__post_init__()

    def controller(self) -> Controller:
        made = super().controller()
        advisor = RequestAdvisor(self.history, self.vertical_settings, STEP_SECONDS, is_patient=True)
        made.vertical = VerticalScaling(advisor, self.vertical_settings)
        return made

    def requests(self) -> dict[str, Amounts]:
        """What the container of each pod requests now."""
        return {pod.name: pod.containers[0].requests for pod in self.cluster.targets[CART].pods}

    def recommended(self) -> dict[str, Any]:
        """The entry of the first container in the status."""
        found: dict[str, Any] = self.status()["recommendation"]["containers"][0]
        return found
