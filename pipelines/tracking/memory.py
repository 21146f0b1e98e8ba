"""A tracker that lives as long as the process: for tests, and for training without a server."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipelines.steps.record import Record, Submission
from predictor.errors import ModelNotFound
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.ports import alias_before


@dataclass
class MemoryRun:
    """What one cycle wrote down."""

    run_id: str
    parameters: Mapping[str, str]
    store: MemoryBundleStore
    alias: str
    status: str = "RUNNING"
    records: list[Record] = field(default_factory=list)
    submissions: dict[str, Submission] = field(default_factory=dict)

    def record(self, record: Record) -> None:
        """Keep it."""
        self.records.append(record)

    def register(self, submission: Submission) -> str:
        """Add the bundle to the store."""
        version = self.store.add(submission.bundle)
        self.submissions[version] = submission
        return version

    def promote(self, version: str, expected: str | None) -> bool:
        """Move the alias unless it has moved meanwhile."""
        try:
            held: str | None = self.store.version_of(self.alias)
        except ModelNotFound:
            held = None
        if held != expected:
            return False
        self.store.set_alias(self.alias, version)
        if held is not None and held != version:
            self.store.set_alias(alias_before(self.alias), held)
        return True


@dataclass
class MemoryTracker:
    """Keeps runs in a list and models in a MemoryBundleStore."""

    store: MemoryBundleStore = field(default_factory=MemoryBundleStore)
    alias: str = "champion"
    runs: list[MemoryRun] = field(default_factory=list)

    @contextmanager
    def run(self, parameters: Mapping[str, str]) -> Iterator[MemoryRun]:
        """A run that ends as MLflow's would."""
        run = MemoryRun(f"run-{len(self.runs) + 1}", parameters, self.store, self.alias)
        self.runs.append(run)
        try:
            yield run
        except Exception:
            run.status = "FAILED"
            raise
        except BaseException:
            run.status = "KILLED"
            raise
        run.status = "FINISHED"
