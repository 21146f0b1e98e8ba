"""Usage of single containers in one pod of their workload: what requests are sized from. Pure values."""

from dataclasses import dataclass
from typing import NamedTuple

from predictor.usage.panel import Finding, Resource, SeriesKey, UsagePanel


class ContainerName(NamedTuple):
    """One container of a workload (`namespace/kind/name`); not of a pod, as pods come and go."""

    workload: str
    container: str

    def series(self, resource: Resource) -> SeriesKey:
        """The key of its usage: the container is a fourth part of the name, so that it is nobody else's."""
        return SeriesKey(f"{self.workload}/{self.container}", resource)

    def __str__(self) -> str:
        return f"{self.workload}/{self.container}"


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What containers used in one pod of their workload, on one grid; keys are `ContainerName.series`."""

    highest: UsagePanel
    """CPU of the pod that used most of it in each step, and the highest working set that any pod had within it."""
    mean: UsagePanel
    """CPU of the mean pod."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What a reader should know of either."""
        return tuple(dict.fromkeys((*self.highest.findings, *self.mean.findings)))
