"""A picture of one kind of object that stays current by itself: a list, then a watch, and what goes wrong with both.

Only what a caller's `reduce` makes of each object is kept. The picture knows its age, so that whoever decides on it
can tell "nothing changed" from "nothing was heard"; see docs/decisions/0009-watching-and-leading.md.
"""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Generic, TypeVar

import structlog

from autoscaler.errors import AutoscalerError, ClusterUnavailable, HistoryExpired, ObjectGone
from autoscaler.kube.client import JsonObject, KubeClient, WatchStream

log = structlog.get_logger("autoscaler.kube")

Reduced = TypeVar("Reduced")

JOIN_SECONDS = 2.0
"""How long `stop` waits for a thread that is in the middle of a request; it ends by itself later."""


@dataclass(frozen=True, slots=True)
class WatchTiming:
    """How long each step may take, and how soon it is tried again."""

    watch_seconds: float = 45.0
    """After which the server ends a watch: the sign of life in a quiet collection.

    Bookmarks come once a minute, but only where their version is newer than that at which the watch began. Proxies
    commonly cut a connection that is silent for a minute.
    """
    read_timeout_seconds: float = 60.0
    """The longest silence: a server that lives has ended the watch by then."""
    resync_seconds: float = 600.0
    """After which everything is listed again: how long an event that got lost on the way can mislead at most."""
    first_retry_seconds: float = 1.0
    longest_retry_seconds: float = 30.0
    absent_retry_seconds: float = 60.0
    """How soon a kind that the cluster does not know is asked for again."""


@dataclass(eq=False)
class WatchedCollection(Generic[Reduced]):
    """The objects of one collection, reduced, as they are now; one thread keeps them so between `start` and `stop`."""

    client: KubeClient
    path: str
    """The collection, such as `/apis/apps/v1/deployments`."""
    reduce: Callable[[JsonObject], Reduced | None]
    """What is kept of an object, None for one that is of no interest. One that it raises for stops the picture."""
    clock: Callable[[], float]
    random: Random
    selector: str = ""
    """Label selector; empty for all."""
    timing: WatchTiming = field(default_factory=WatchTiming)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[str, Reduced] = {}
        self._view: Mapping[str, Reduced] | None = None
        self._current_at_seconds = -math.inf
        self._is_absent = False
        self._problem: AutoscalerError | None = None
        self._synced = threading.Event()
        self._stopping = threading.Event()
        self._is_outdated = threading.Event()
        self._stream: WatchStream | None = None
        self._thread: threading.Thread | None = None
        # Of the thread alone:
        self._version = ""
        self._resync_at_seconds = -math.inf
        self._failures = 0
        self._has_expired = False
        """Whether the history had expired, and nothing was heard since."""

    # --- what readers see

    def snapshot(self) -> Mapping[str, Reduced]:
        """Everything by `namespace/name` (by name, where the kind has no namespaces); never changes afterwards."""
        with self._lock:
            if self._view is None:
                self._view = MappingProxyType(dict(self._objects))
            return self._view

    def age_seconds(self) -> float:
        """How long ago the picture was last known to be the cluster's; infinite before the first list.

        An event, a bookmark and the end of a watch at its time say so when they come, a list for the moment at which
        it began. A silent watch proves nothing yet: in a quiet cluster the age reaches `watch_seconds`.
        """
        return self.clock() - self._current_at_seconds

    @property
    def problem(self) -> AutoscalerError | None:
        """Why the picture is not kept current at the moment; None when it is."""
        return self._problem

    @property
    def is_absent(self) -> bool:
        """Whether the cluster does not know this kind: the picture is then current, and empty."""
        return self._is_absent

    @property
    def is_synced(self) -> bool:
        """Whether the cluster has been seen, even if long ago."""
        return self._synced.is_set()

    def wait_until_synced(self, timeout_seconds: float) -> bool:
        """Whether the cluster has been seen, as soon as it has and at the latest after the timeout."""
        return self._synced.wait(timeout_seconds)

    def list_again(self) -> None:
        """Lists everything anew now, as what `reduce` keeps has changed; the picture stays until then."""
        self._is_outdated.set()
        with self._lock:
            if self._stream is not None:
                self._stream.close()

    # --- life

    def start(self) -> None:
        """Begins to list and watch."""
        self._thread = threading.Thread(target=self._run, name=f"watch {self.path}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch and its thread; the picture stays as it is, and ages."""
        self._stopping.set()
        with self._lock:
            if self._stream is not None:
                self._stream.close()
        if self._thread is not None:
            self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            pause_seconds = self._step()
            self._stopping.wait(pause_seconds)

    def _step(self) -> float:
        """Lists where that is due, watches until that ends, and says after how long to go on."""
        try:
            if not self._version or self._is_outdated.is_set() or self.clock() >= self._resync_at_seconds:
                self._list()
            return self._watch()
        except HistoryExpired as problem:
            # Once is in the nature of a long break; again, before any event, is trouble.
            is_trouble, self._has_expired, self._version = self._has_expired, True, ""
            return self._retry_seconds(problem) if is_trouble else 0.0
        except ObjectGone:
            self._replace({}, self.clock(), is_absent=True)
            self._version = ""
            return self.timing.absent_retry_seconds * self.random.uniform(0.8, 1.2)
        except AutoscalerError as problem:
            return self._retry_seconds(problem)
        except Exception as error:  # the thread must not end: the picture would grow old without a word
            log.exception("watch broke", path=self.path)
            return self._retry_seconds(ClusterUnavailable(f"{self.path} could not be followed: {error!r}"))

    # --- list and watch

    def _list(self) -> None:
        self._is_outdated.clear()
        asked_at_seconds, version = self.clock(), ""
        found: dict[str, Reduced] = {}
        for page in self.client.pages(self.path, **self._selection):
            for item in page.get("items") or ():
                reduced = self.reduce(item)
                if reduced is not None:
                    found[_key(item)] = reduced
            version = str((page.get("metadata") or {}).get("resourceVersion") or "")
            if self._stopping.is_set():
                return
        if not version:
            raise ClusterUnavailable(f"{self.client.server} listed {self.path} without a resource version")
        self._replace(found, asked_at_seconds, is_absent=False)
        self._version = version
        # Not all pictures of all controllers at the same time.
        self._resync_at_seconds = self.clock() + self.timing.resync_seconds * self.random.uniform(0.8, 1.0)

    def _watch(self) -> float:
        """Follows one watch to its end; says how long to wait then."""
        if self._stopping.is_set():
            return 0.0
        started, events = self.clock(), 0
        longest_seconds = self.timing.watch_seconds * self.random.uniform(0.8, 1.0)
        asked_seconds = max(1, math.ceil(min(longest_seconds, self._resync_at_seconds - started)))
        stream = self.client.watch(
            self.path,
            self.timing.read_timeout_seconds,
            resourceVersion=self._version,
            allowWatchBookmarks="true",
            timeoutSeconds=asked_seconds,
            **self._selection,
        )
        with stream:
            with self._lock:
                self._stream = stream
            try:
                if self._stopping.is_set() or self._is_outdated.is_set():
                    return 0.0
                self._problem = None
                for event in stream:
                    self._apply(event)
                    events += 1
                    if self._stopping.is_set() or self.clock() >= self._resync_at_seconds:
                        break
            finally:
                with self._lock:
                    self._stream = None
        if self._stopping.is_set() or self._is_outdated.is_set():
            return 0.0
        ended = self.clock()
        lasted_seconds, shortest_seconds = ended - started, self.timing.first_retry_seconds
        if lasted_seconds >= asked_seconds:
            self._current_at_seconds = ended
        elif not events and lasted_seconds < shortest_seconds:
            raise ClusterUnavailable(
                f"{self.client.server} ends WATCH {self.path} as soon as it is opened; is a proxy in between?"
            )
        self._failures, self._has_expired = 0, False
        return max(0.0, shortest_seconds - lasted_seconds)

    def _apply(self, event: JsonObject) -> None:
        kind, item = event["type"], event["object"]
        now = self.clock()
        if kind != "BOOKMARK":
            reduced = None if kind == "DELETED" else self.reduce(item)
            key = _key(item)
            with self._lock:
                if reduced != self._objects.get(key):
                    self._view = None
                if reduced is None:
                    self._objects.pop(key, None)
                else:
                    self._objects[key] = reduced
        self._version = str(item["metadata"]["resourceVersion"])
        self._current_at_seconds = now
        self._failures, self._has_expired = 0, False

    def _replace(self, objects: dict[str, Reduced], current_at_seconds: float, *, is_absent: bool) -> None:
        """A whole new picture: what is not in it has vanished."""
        with self._lock:
            self._objects, self._view = objects, None
        self._current_at_seconds = current_at_seconds
        self._is_absent = is_absent
        self._problem = None
        self._synced.set()

    # --- failures

    def _retry_seconds(self, problem: AutoscalerError) -> float:
        """Keeps the problem; how long to wait: twice as long each time, half of it by chance."""
        self._problem = problem
        self._failures += 1
        doubled = self.timing.first_retry_seconds * 2.0 ** min(self._failures - 1, 30)
        return min(self.timing.longest_retry_seconds, doubled) * self.random.uniform(0.5, 1.0)

    @property
    def _selection(self) -> Mapping[str, str]:
        return {"labelSelector": self.selector} if self.selector else {}


def _key(item: JsonObject) -> str:
    metadata = item["metadata"]
    namespace, name = metadata.get("namespace"), metadata["name"]
    return f"{namespace}/{name}" if namespace else str(name)
