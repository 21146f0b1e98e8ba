"""Public usage traces as tasks: which series, on which step, forecast from which cutoffs how far ahead.

The files are not part of the project; their format is the usage table's. Windows are GIFT-Eval's: as many whole
horizons as a tenth of the span holds, at most 20, laid end to end at the end of the span. A day ahead is asked for
where that gives two windows and leaves four days of past: not of Alibaba's machines (8 days), pods (1) or PlanetLab
(1). Philly's devices have samples only around the start of a job, none of them a day's in all: 4 h, where measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from predictor.usage.panel import Resource, UsagePanel
from predictor.usage.table import panel_from_table

FIVE_MINUTES, HOUR, DAY = 300, 3600, 86_400
JULY = (datetime(2013, 6, 30, 22, tzinfo=UTC), datetime(2013, 7, 30, 22, tzinfo=UTC))
AUGUST = (datetime(2013, 7, 31, 22, tzinfo=UTC), datetime(2013, 8, 30, 22, tzinfo=UTC))
PLANETLAB = {
    "march": (datetime(2011, 3, 3, tzinfo=UTC), datetime(2011, 3, 4, tzinfo=UTC)),
    "april": (datetime(2011, 4, 3, tzinfo=UTC), datetime(2011, 4, 4, tzinfo=UTC)),
}
"""Two days a month apart, their nodes named anew on each."""
DATACENTERS = {
    "azure": (datetime(2019, 1, 1, tzinfo=UTC), datetime(2019, 1, 31, tzinfo=UTC)),
    "google": (datetime(2019, 5, 1, tzinfo=UTC), datetime(2019, 5, 30, tzinfo=UTC)),
}
"""The aggregates that are long enough for a day ahead, one after the other in the file."""
OCTOBER = (datetime(2021, 10, 6, tzinfo=UTC), datetime(2021, 10, 23, tzinfo=UTC))
"""All of Crane's workloads but one, which ended seven weeks before."""
LARGEST_WINDOWS = 20
TEST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Task:
    """One figure of the benchmark."""

    name: str
    file: str
    resource: Resource
    horizon_seconds: int
    step_seconds: int = FIVE_MINUTES
    between: tuple[datetime, datetime] | None = None
    """The part of the file that is used: nothing before or after it is known."""
    is_tuned_on: bool = False
    """Whether settings were chosen with a look at these windows."""

    @property
    def horizon_steps(self) -> int:
        """How many steps ahead."""
        return self.horizon_seconds // self.step_seconds


def tasks() -> tuple[Task, ...]:
    """Every task, those first that the published figures of GIFT-Eval are for."""
    made = []
    for month, between in (("july", JULY), ("august", AUGUST)):
        for resource in (Resource.CPU, Resource.MEMORY):
            name = f"bitbrains-{month}-{resource.value}"
            file = "bitbrains_5min.parquet"
            seen = month == "july" and resource is Resource.CPU
            for label, horizon, step in (
                ("4h", 4 * HOUR, FIVE_MINUTES),
                ("40h", 40 * HOUR, FIVE_MINUTES),
                ("60h", 60 * HOUR, FIVE_MINUTES),
                ("hourly-48h", 48 * HOUR, HOUR),
            ):
                made.append(Task(f"{name}-{label}", file, resource, horizon, step, between, seen and label == "4h"))
    for name, file, resources in (
        ("alibaba-machines", "alibaba2018_machine_5min.parquet", (Resource.CPU, Resource.MEMORY)),
        ("crane", "crane_1min.parquet", (Resource.CPU,)),
        ("genai-pods", "genai2026_pods_1min.parquet", (Resource.GPU, Resource.GPU_MEMORY)),
        ("nasa", "nasa_http_1995_1min.parquet", (Resource.REQUESTS,)),
        ("twitter", "twitter_stream_2021_1min.parquet", (Resource.REQUESTS,)),
        ("datacenter", "datacenter_aggregate_5min.parquet", (Resource.CPU, Resource.MEMORY)),
        ("philly", "philly2017_usage_1min.parquet", (Resource.GPU,)),
    ):
        made += [Task(f"{name}-{resource.value}-4h", file, resource, 4 * HOUR) for resource in resources]
    for month, day in PLANETLAB.items():
        file = "planetlab2011_5min.parquet"
        made.append(Task(f"planetlab-{month}-cpu-4h", file, Resource.CPU, 4 * HOUR, between=day))
    made += [
        Task("nasa-requests-24h", "nasa_http_1995_1min.parquet", Resource.REQUESTS, DAY),
        Task("twitter-requests-24h", "twitter_stream_2021_1min.parquet", Resource.REQUESTS, DAY),
        Task("crane-cpu-24h", "crane_1min.parquet", Resource.CPU, DAY, between=OCTOBER),
    ]
    for name, between in DATACENTERS.items():
        for resource in (Resource.CPU, Resource.MEMORY):
            file = "datacenter_aggregate_5min.parquet"
            made.append(Task(f"datacenter-{name}-{resource.value}-24h", file, resource, DAY, between=between))
    return tuple(made)


def read(task: Task, folder: Path) -> UsagePanel:
    """The task's series on its step."""
    table = pd.read_parquet(folder / task.file, filters=[("resource", "==", task.resource.value)])
    columns = ["workload", "resource", "timestamp", "usage", *(c for c in ("capacity",) if c in table)]
    table = table.loc[:, columns]
    if task.between is not None:
        first, last = (pd.Timestamp(each) for each in task.between)
        table = table.loc[(table["timestamp"] >= first) & (table["timestamp"] < last)]
    return panel_from_table(table, step_seconds=task.step_seconds)


def cutoffs(task: Task, panel: UsagePanel) -> Sequence[int]:
    """The last step known before each test window, ascending."""
    windows = int(np.clip(np.ceil(TEST_SHARE * panel.steps / task.horizon_steps), 1, LARGEST_WINDOWS))
    last = panel.end_seconds
    return [last - number * task.horizon_seconds for number in range(windows, 0, -1)]
