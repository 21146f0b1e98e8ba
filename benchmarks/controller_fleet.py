"""A made-up fleet as the controller sees it: usage of any time, objects on a cluster in memory, and a model."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoscaler.cluster.resources import Resources
from autoscaler.controller.autoscalers import Mode, PredictiveAutoscaler, TargetRef
from autoscaler.controller.memory import MemoryCluster
from autoscaler.controller.ports import TargetWorkload
from benchmarks.fleet import BLOCK, DAY_SECONDS, synthetic_usage
from models.forecast import FloatArray
from predictor.serving.bundle import Bundle
from predictor.serving.ports import Progress
from predictor.usage.panel import Resource, SeriesKey, UsagePanel

STEP_SECONDS = 300
START_SECONDS = 1_767_571_200
"""2026-01-05 00:00 UTC, a Monday."""
CYCLE_DAYS = 35
"""Usage comes round after so many days."""
BYTES_PER_CORE = 4e9
TRAINED_SERIES = 120
"""Of each resource; the others of a fleet take the record of one of these."""


def names_of(size: int) -> list[str]:
    """The fleet's workloads."""
    return [f"ns{n % 100}/Deployment/w{n}" for n in range(size)]


@dataclass
class FleetSource:
    """Usage of a fleet's workloads at any time, made when it is asked for: nothing of it is held between."""

    size: int
    resources: tuple[Resource, ...] = (Resource.CPU,)
    seed: int = 0

    def __post_init__(self) -> None:
        self._patterns = synthetic_usage(BLOCK, days=CYCLE_DAYS, step_seconds=STEP_SECONDS, seed=self.seed)
        self._names = names_of(self.size)
        self._scale = 2.0 ** np.random.default_rng(self.seed).uniform(-1, 1, self.size)

    def fetch(
        self,
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        resources: Collection[Resource] = tuple(Resource),
        progress: Progress | None = None,  # noqa: ARG002 - it is made in a second
    ) -> UsagePanel:
        """In single precision, each workload with a daily pattern of its own size."""
        first = (start_seconds - START_SECONDS) // step_seconds
        steps = (end_seconds - start_seconds) // step_seconds + 1
        patterns = self._patterns[:, (first + np.arange(steps)) % self._patterns.shape[1]]
        asked = [resource for resource in self.resources if resource in resources]
        usage = np.empty((self.size * len(asked), steps), dtype=np.float32)
        for place, resource in enumerate(asked):
            unit = BYTES_PER_CORE if resource.is_held else 1.0
            for begin in range(0, self.size, BLOCK):
                end = min(begin + BLOCK, self.size)
                rows = usage[place * self.size + begin : place * self.size + end]
                rows[:] = patterns[: end - begin] * (unit * self._scale[begin:end, None])
        keys = tuple(SeriesKey(name, resource) for resource in asked for name in self._names)
        return UsagePanel(keys, start_seconds, step_seconds, usage)

    @property
    def highest_cores(self) -> FloatArray:
        """The most that each workload ever uses, [workloads]."""
        peaks = np.nan_to_num(np.nanmax(self._patterns, axis=1))
        return np.asarray(peaks[np.arange(self.size) % BLOCK] * self._scale)


def a_cluster(source: FleetSource) -> MemoryCluster:
    """A Deployment of ten replicas and an object in mode Observe for each workload of the fleet."""
    cluster = MemoryCluster()
    for name, highest in zip(names_of(source.size), source.highest_cores, strict=True):
        namespace, kind, short = name.split("/")
        request = Resources(cpu_cores=max(float(highest) / 8, 0.01))
        cluster.put(TargetWorkload(name, f"target {name}", 10, 10, request, "", (20.0,) * 10))
        cluster.put(
            PredictiveAutoscaler(
                namespace=namespace,
                name=short,
                uid=f"object {name}",
                generation=1,
                target=TargetRef("apps/v1", kind, short),
                min_replicas=2,
                max_replicas=40,
                mode=Mode.OBSERVE,
            )
        )
    return cluster


def train_to(folder: Path, resources: tuple[Resource, ...], trained_until_seconds: int, seed: int) -> None:
    """A model of the first workloads of a fleet, trained on 28 days and saved."""
    from foresize.settings import load_settings
    from pipelines.flows.train import train
    from predictor.registry.memory import MemoryBundleStore

    overrides = {
        ("history", "step"): f"{STEP_SECONDS}s",
        ("history", "span"): "28d",
        ("forecast", "horizon"): "2h",
        ("training", "rehearsals"): 12,
        ("training", "threads"): 2,
    }
    source = FleetSource(TRAINED_SERIES, resources, seed)
    settings = load_settings(None, {}, overrides)
    train(settings, source, MemoryBundleStore(), None, end_seconds=trained_until_seconds).bundle.save(folder)


def widened(bundle: Bundle, size: int) -> Bundle:
    """The bundle for a whole fleet, each series with the model and the record of one that it was trained on."""
    combinations, calibrations, series = {}, {}, {}
    for resource, record in bundle.combinations.items():
        models = [model for key, model in bundle.series.items() if key.resource == resource]
        rows = np.arange(size) % len(models)
        combinations[resource] = replace(record, loss=record.loss[rows], evidence=record.evidence[rows])
        known = bundle.calibrations[resource]
        calibrations[resource] = replace(known, covered=known.covered[rows], evidence=known.evidence[rows])
        keys = [SeriesKey(name, resource) for name in names_of(size)]
        series |= {key: replace(models[row], key=key) for key, row in zip(keys, rows.tolist(), strict=True)}
    peaks = tuple(widened(part, size) for part in bundle.peaks)
    return replace(bundle, series=series, combinations=combinations, calibrations=calibrations, peaks=peaks, gates={})


def days_after_start(days: float) -> int:
    """Epoch second, on the grid."""
    return START_SECONDS + int(days * DAY_SECONDS)
