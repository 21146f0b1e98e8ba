"""What the predictor asks of the outside world. Adapters live in predictor/sources and predictor/registry."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from predictor.usage.panel import Resource, SeriesKey, UsagePanel

if TYPE_CHECKING:
    from predictor.serving.bundle import Bundle

Progress = Callable[[int, int], None]
"""Told (done, total) while long work goes on."""


class UsageSource(Protocol):
    """Where observed usage comes from: Prometheus, a file, memory."""

    def fetch(
        self,
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        resources: Collection[Resource] = tuple(Resource),
        progress: Progress | None = None,
    ) -> UsagePanel:
        """Usage of every workload the source knows, on the grid start, start+step, … up to end (inclusive).

        Raises SourceUnavailable, SourceRefused or MalformedAnswer; a workload that cannot be used is left out
        with a finding. Never returns a silently partial answer.
        """
        ...


@runtime_checkable
class QuerySource(Protocol):
    """Where the values of queries come from that workloads' owners wrote: Prometheus."""

    def fetch_queries(
        self,
        queries: Mapping[SeriesKey, str],
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        within_seconds: float | None = None,
    ) -> UsagePanel:
        """The value of each query, held to the namespace of its key, on the grid start, start+step, … up to end.

        A query that fails, has more than one series or is not done within that time is left out with a finding that
        says why, and takes nothing from the others.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoredBundle:
    """A model as it came out of a store, with where it came from."""

    version: str
    bundle: "Bundle"


def alias_before(alias: str) -> str:
    """The alias of the version that another alias pointed to before it was last moved, as `champion-before`."""
    return f"{alias}-before"


class BundleStore(Protocol):
    """Where fitted bundles are kept under versions and aliases such as `champion`."""

    def version_of(self, alias: str) -> str:
        """The version an alias points to. Raises RegistryUnavailable or ModelNotFound."""
        ...

    def load(self, version: str) -> "Bundle":
        """The bundle of a version. Raises RegistryUnavailable, ModelNotFound or CorruptModel."""
        ...
