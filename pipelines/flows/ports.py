"""What a training cycle asks of a tracking server. The adapters live in pipelines/tracking."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from pipelines.steps.record import Record, Submission


class TrackedRun(Protocol):
    """One training cycle as the tracking server knows it."""

    @property
    def run_id(self) -> str:
        """The server's name for it."""
        ...

    def record(self, record: Record) -> None:
        """Keep what came out of the cycle. Raises TrackingUnavailable."""
        ...

    def register(self, submission: Submission) -> str:
        """Register the bundle as a new version, which no alias points to yet. Raises TrackingUnavailable.

        Interrupted or failing, it leaves no version behind.
        """
        ...

    def promote(self, version: str, expected: str | None) -> bool:
        """Point the alias to the version if it still points to `expected` (None: to nothing); whether it did.

        Then `alias_before` points to what the alias pointed to until now. Raises TrackingUnavailable.
        """
        ...


class Tracker(Protocol):
    """Where training cycles are written down."""

    def run(self, parameters: Mapping[str, str]) -> AbstractContextManager[TrackedRun]:
        """A run for the duration of the block.

        It ends as finished, as failed after an exception, and as killed after an interruption, whatever happens.
        Raises TrackingUnavailable at once where the server does not answer.
        """
        ...
