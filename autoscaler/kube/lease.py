"""Who of several controllers acts: a `coordination.k8s.io/v1` Lease, held as client-go's controllers hold theirs.

No clock of one machine is ever compared with another's. A holder may act for a while after the *start* of its last
successful renewal, by its own clock; a candidate takes over when it has seen the record unchanged for longer than
that, by its own clock. What a process that was stopped or cut off believes therefore ends by itself, before anybody
else may begin; see docs/decisions/0009-watching-and-leading.md.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from autoscaler.errors import AutoscalerError, ClusterUnavailable, CommandConflict, ObjectGone
from autoscaler.kube.client import JsonObject, KubeClient

log = structlog.get_logger("autoscaler.kube")

FIELD_MANAGER = "foresize"
RELEASED_SECONDS = 1
"""Duration of a lease that was given up, as client-go writes it."""
RELEASE_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """How fast a leader that died is replaced, and how long an API server may be slow before one steps down.

    A killed leader is replaced after `lease_seconds` plus the one `retry_seconds` that a candidate may have looked
    before the last renewal. The difference of `lease_seconds` and `renew_deadline_seconds` is what the machines' clocks
    may differ in speed, and what a write that was under way at the end may take.
    """

    lease_seconds: int = 10
    renew_deadline_seconds: float = 7.0
    retry_seconds: float = 2.0
    request_seconds: float = 2.5
    """Longest wait for one answer, so that one that hangs leaves time for another try."""

    def __post_init__(self) -> None:
        if not 0 < self.retry_seconds + self.request_seconds < self.renew_deadline_seconds < self.lease_seconds:
            raise ValueError(f"a retry and its answer must fit into the deadline, and that into the lease: {self}")


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What a Lease says; a renewal changes it."""

    holder: str = ""
    duration_seconds: int = 0
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0

    @classmethod
    def of(cls, lease: JsonObject) -> "LeaseRecord":
        """The record of an API object; what is missing in it counts as nothing."""
        spec = lease.get("spec") or {}
        return cls(
            holder=str(spec.get("holderIdentity") or ""),
            duration_seconds=int(spec.get("leaseDurationSeconds") or 0),
            acquired=str(spec.get("acquireTime") or ""),
            renewed=str(spec.get("renewTime") or ""),
            transitions=int(spec.get("leaseTransitions") or 0),
        )

    @property
    def spec(self) -> JsonObject:
        """The record as the API has it."""
        return {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": self.duration_seconds,
            "acquireTime": self.acquired,
            "renewTime": self.renewed,
            "leaseTransitions": self.transitions,
        }


@dataclass(frozen=True, slots=True)
class _Seen:
    """A record, the version a write is conditional on, and since when this one has seen it unchanged."""

    record: LeaseRecord
    version: str
    since_seconds: float


@dataclass(eq=False)
class LeaseElector:
    """One candidate: between `start` and `release` a thread renews the lease, or waits for its turn.

    A leader that lost the lease goes on as a candidate, and may lead again.
    """

    client: KubeClient
    namespace: str
    name: str
    identity: str
    """No other candidate's, not even that of an earlier process in the same pod."""
    clock: Callable[[], float]
    """Must go on while this process is stopped and while the machine sleeps: `seconds_since_boot`."""
    wall_clock: Callable[[], float]
    """Only written into the record, for people; never compared."""
    timing: LeaseTiming = field(default_factory=LeaseTiming)

    def __post_init__(self) -> None:
        if not self.identity:
            raise ValueError("a candidate needs an identity: an empty one means that nobody holds the lease")
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"
        self._path = f"{self._collection}/{self.name}"
        self._client = self.client.with_timeout(self.timing.request_seconds)
        self._lock = threading.Lock()
        self._leads_until_seconds = -math.inf
        self._stopping = threading.Event()
        self._seen: _Seen | None = None
        self._problem: AutoscalerError | None = None
        self._thread: threading.Thread | None = None

    # --- what the controller asks

    @property
    def is_leader(self) -> bool:
        """Whether this one may act now, by its own clock and without asking anybody."""
        return self.clock() < self._leads_until_seconds

    @property
    def holder(self) -> str:
        """Who held the lease when it was last seen; empty where nobody did."""
        seen = self._seen
        return seen.record.holder if seen else ""

    @property
    def transitions(self) -> int:
        """How often the lease had changed hands when it was last seen."""
        seen = self._seen
        return seen.record.transitions if seen else 0

    @property
    def problem(self) -> AutoscalerError | None:
        """Why the lease could not be read or written the last time; None where it could."""
        return self._problem

    # --- life

    def start(self) -> None:
        """Begins to stand for election."""
        self._thread = threading.Thread(target=self._run, name=f"lease {self.name}", daemon=True)
        self._thread.start()

    def release(self) -> bool:
        """Stops, and gives up the lease where it is held, so that the next one need not wait; says whether it did.

        Ends within a few seconds whatever the API server does: a lease that cannot be given up runs out.
        """
        with self._lock:
            self._stopping.set()
            self._leads_until_seconds = -math.inf
        if self._thread is None:
            return False
        self._thread.join(2 * self.timing.request_seconds)
        for _ in range(RELEASE_ATTEMPTS):
            try:
                seen = self._look()
                if seen.record.holder != self.identity:
                    return False
                now = self._timestamp()
                released = LeaseRecord("", RELEASED_SECONDS, now, now, seen.record.transitions)
                self._observe(self._replace(seen, released))
                return True
            except CommandConflict:
                continue  # a renewal that was under way has come through
            except ObjectGone:
                return False
            except AutoscalerError as problem:
                self._problem = problem
                return False
        return False

    def _run(self) -> None:
        led = False
        while not self._stopping.is_set():
            started = self.clock()
            try:
                self._turn()
                self._problem = None
            except CommandConflict:
                self._problem = None  # somebody else was faster: seen in the next turn
            except AutoscalerError as problem:
                if self._problem is None:  # said once, not with every turn
                    log.warning("lease not reached", error=type(problem).__name__, message=str(problem))
                self._problem = problem
            except Exception as error:  # the thread must not end: nobody would lead any more
                log.exception("election broke", lease=self.name)
                self._problem = ClusterUnavailable(f"{self._path} could not be followed: {error!r}")
            if self.is_leader != led:  # also where it ran out between two turns
                led = not led
                log.info("lease", leads=led, holder=self.holder)
            self._stopping.wait(self._pause_seconds(started))

    def _pause_seconds(self, started: float) -> float:
        """Until the next turn; sooner where somebody else's lease ends before."""
        now, pause = self.clock(), self.timing.retry_seconds
        seen = self._seen
        if seen is not None and seen.record.holder not in ("", self.identity):
            left_seconds = self._ends_seconds(seen) - now
            return min(pause, left_seconds) if left_seconds > 0 else pause
        return max(pause / 10, started + pause - now)

    # --- one turn

    def _turn(self) -> None:
        """Renews, takes over, or leaves things as they are."""
        seen = self._seen
        if seen is not None and seen.record.holder == self.identity:
            try:
                # Without a look before: nothing has changed, or the write says so.
                self._take(seen)
                return
            except (CommandConflict, ObjectGone):
                pass
        try:
            seen = self._look()
        except ObjectGone:
            # Deleted under somebody who leads: that one still does, as far as it knows.
            if self._may_take(self._seen):
                self._create()
            return
        if seen.record.holder not in ("", self.identity):
            self._lead_until(-math.inf)
        if self._may_take(seen):
            self._take(seen)

    def _may_take(self, seen: _Seen | None) -> bool:
        if seen is None or seen.record.holder in ("", self.identity):
            return True
        return self.clock() >= self._ends_seconds(seen)

    def _ends_seconds(self, seen: _Seen) -> float:
        return seen.since_seconds + (seen.record.duration_seconds or self.timing.lease_seconds)

    def _take(self, seen: _Seen) -> None:
        """Writes this one's name; nobody else can have written since `seen`."""
        started, now = self.clock(), self._timestamp()
        is_ours = seen.record.holder == self.identity
        record = LeaseRecord(
            holder=self.identity,
            duration_seconds=self.timing.lease_seconds,
            acquired=seen.record.acquired if is_ours else now,
            renewed=now,
            transitions=seen.record.transitions + (0 if is_ours else 1),
        )
        self._led_since(started, self._observe(self._replace(seen, record)))

    def _create(self) -> None:
        started, now = self.clock(), self._timestamp()
        transitions = self._seen.record.transitions + 1 if self._seen else 0
        record = LeaseRecord(self.identity, self.timing.lease_seconds, now, now, transitions)
        manifest: JsonObject = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": record.spec,
        }
        answer = self._client.create(self._collection, manifest, fieldManager=FIELD_MANAGER)
        self._led_since(started, self._observe(answer))

    def _led_since(self, started: float, seen: _Seen) -> None:
        """The deadline counts from before the request: the server may have taken it up at any moment since."""
        if seen.record.holder == self.identity:
            self._lead_until(started + self.timing.renew_deadline_seconds)

    def _lead_until(self, seconds: float) -> None:
        with self._lock:
            if self._stopping.is_set():
                return
            self._leads_until_seconds = seconds

    def _look(self) -> _Seen:
        return self._observe(self._client.get(self._path))

    def _observe(self, lease: JsonObject) -> _Seen:
        """Keeps what an answer shows. The time is that after the answer: the record cannot have ended before."""
        record, version = LeaseRecord.of(lease), str((lease.get("metadata") or {}).get("resourceVersion", ""))
        before = self._seen
        is_unchanged = before is not None and before.record == record
        since_seconds = before.since_seconds if before is not None and is_unchanged else self.clock()
        self._seen = _Seen(record, version, since_seconds)
        return self._seen

    def _replace(self, seen: _Seen, record: LeaseRecord) -> JsonObject:
        changes: JsonObject = {"metadata": {"resourceVersion": seen.version}, "spec": record.spec}
        return self._client.patch(self._path, changes, fieldManager=FIELD_MANAGER)

    def _timestamp(self) -> str:
        """Now, as the API writes it."""
        return datetime.fromtimestamp(self.wall_clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
