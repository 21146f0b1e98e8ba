"""Usage read from a Parquet or CSV file of the usage table, or from memory."""

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.forecast import FloatArray
from predictor.errors import InvalidUsage, SourceRefused, SourceUnavailable
from predictor.serving.ports import Progress
from predictor.usage.containers import ContainerUsage
from predictor.usage.panel import Finding, Resource, Severity, UsagePanel
from predictor.usage.table import TEXT_COLUMNS, checked_series, panel_from_table

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".parquet", ".pq", ".csv", ".csv.gz")


@dataclass
class MemorySource:
    """A UsageSource over a panel that is already here."""

    panel: UsagePanel

    def fetch(
        self,
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        resources: Collection[Resource] = tuple(Resource),
        progress: Progress | None = None,
    ) -> UsagePanel:
        """The part of the panel that was asked for; steps outside it hold no sample."""
        rows = [i for i, key in enumerate(self.panel.keys) if key.resource in resources]
        asked = on_grid(self.panel.select(rows), start_seconds, end_seconds, step_seconds)
        has_sample = np.sum(~np.isnan(asked.usage), axis=1) > 0
        silent = tuple(
            Finding(key.workload, key.resource.value, Severity.NOTE, "no sample in the span that is read; left out")
            for key, known in zip(asked.keys, has_sample.tolist(), strict=True)
            if not known
        )
        kept, found = checked_series(asked.select(np.flatnonzero(has_sample)))
        if progress is not None:
            progress(1, 1)
        return replace(kept, findings=tuple(dict.fromkeys((*self.panel.findings, *silent, *found))))


@dataclass
class FileSource:
    """A UsageSource over a Parquet or CSV file in the columns of `predictor.usage.table`; read once."""

    path: Path
    _read: dict[int, UsagePanel] = field(default_factory=dict, init=False, repr=False)

    def panel(self, step_seconds: int | None = None) -> UsagePanel:
        """Everything in the file, on a grid of `step_seconds` (default: the file's own spacing)."""
        key = step_seconds or 0
        if key not in self._read:
            try:
                self._read[key] = panel_from_table(
                    read_table(self.path), step_seconds=step_seconds, now_seconds=int(time.time())
                )
            except InvalidUsage as error:
                said = str(error)
                raise InvalidUsage(said if str(self.path) in said else f"{self.path}: {said}") from error
        return self._read[key]

    def fetch(
        self,
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        resources: Collection[Resource] = tuple(Resource),
        progress: Progress | None = None,
    ) -> UsagePanel:
        """The part of the file that was asked for; steps outside it hold no sample."""
        return MemorySource(self.panel(step_seconds)).fetch(
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            step_seconds=step_seconds,
            resources=resources,
            progress=progress,
        )

    def fetch_containers(
        self,
        workloads: Collection[str],  # noqa: ARG002 - of none of them
        *,
        start_seconds: int,  # noqa: ARG002
        end_seconds: int,  # noqa: ARG002
        step_seconds: int,  # noqa: ARG002
    ) -> ContainerUsage:
        """Raises SourceRefused: the usage table has whole workloads only."""
        raise SourceRefused(
            f"{self.path} holds the usage of whole workloads; what single containers use is only read from Prometheus"
        )


def read_table(path: Path, text_columns: Collection[str] = TEXT_COLUMNS) -> "pd.DataFrame":
    """The file as it is, with text in some columns also where it holds numbers.

    Raises SourceUnavailable where there is none, InvalidUsage where it is not such a file.
    """
    try:
        import pandas as pd
        import pyarrow.lib as arrow
    except ImportError as error:
        raise SourceUnavailable(
            f"reading {path} needs pandas and pyarrow; install the pipelines profile: pip install 'foresize[pipelines]'"
        ) from error
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise InvalidUsage(f"{path} is neither Parquet nor CSV; its name must end in {', '.join(SUFFIXES)}")
    try:
        if name.endswith((".parquet", ".pq")):
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=dict.fromkeys(text_columns, str))
    except FileNotFoundError as error:
        raise SourceUnavailable(f"there is no file {path}") from error
    except OSError as error:
        raise SourceUnavailable(f"{path} cannot be read: {error}") from error
    except (arrow.ArrowException, ValueError) as error:
        raise InvalidUsage(f"{path} is damaged or not what its name says: {error}") from error


def on_grid(panel: UsagePanel, start_seconds: int, end_seconds: int, step_seconds: int) -> UsagePanel:
    """The panel on the grid start, start+step, … up to end. Raises InvalidUsage where the grids do not meet."""
    if step_seconds != panel.step_seconds or (start_seconds - panel.start_seconds) % step_seconds:
        raise InvalidUsage(
            f"the history is on a grid of {panel.step_seconds} s from {panel.start_seconds}, "
            f"which {step_seconds} s from {start_seconds} does not meet"
        )
    if end_seconds < start_seconds:
        raise InvalidUsage(f"no time to fetch: start {start_seconds}, end {end_seconds}")
    steps = (end_seconds - start_seconds) // step_seconds + 1
    shift = (start_seconds - panel.start_seconds) // step_seconds
    first, stop = max(shift, 0), min(shift + steps, panel.steps)

    def moved(values: FloatArray) -> FloatArray:
        out = np.full((values.shape[0], steps), np.nan, dtype=values.dtype)
        if stop > first:
            out[:, first - shift : stop - shift] = values[:, first:stop]
        return out

    return replace(
        panel,
        start_seconds=start_seconds,
        usage=moved(panel.usage),
        attributes={name: moved(values) for name, values in panel.attributes.items()},
    )
