"""Tells people and the next leader what was decided: statuses and Events, what changed before what only moved.

What could not be said in its own cycle, for want of budget or of an answer, is said in a later one: no change of
replicas is left without its Event and its entry among the decisions.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

from autoscaler.controller.autoscalers import Remembered
from autoscaler.controller.notices import Throttle, notices
from autoscaler.controller.ports import ClusterWriter, Event
from autoscaler.controller.records import DecisionRecord
from autoscaler.controller.sizing import sizing_notices
from autoscaler.controller.status import (
    DECISIONS_KEPT,
    REFRESH_SECONDS,
    JsonObject,
    essence_of,
    outline_of,
    status_of,
)
from autoscaler.controller.writing import side_by_side
from autoscaler.errors import AutoscalerError, ClusterRefused, ClusterUnavailable, CommandConflict, ObjectGone
from autoscaler.metrics import AutoscalerMetrics

SEEN_AGAIN = frozenset({"Conflict", "ConflictResolved"})
"""Reasons of Events about what the next cycle finds by itself, where the status does not say it yet."""

MayWrite = Callable[[], bool]
"""Whether one more write is allowed now; one that is counts as made."""


class _Importance(IntEnum):
    """How much a new status has to say."""

    NOTHING = 0
    FIGURES = 1
    """Only figures and sentences have moved."""
    CHANGE = 2
    """Something that a person or a new leader must know."""


class _Written(NamedTuple):
    """A status as it was last written, or read before anything was."""

    status: Mapping[str, Any]
    essence: JsonObject
    at_seconds: float
    outline: tuple[object, ...] | None = None
    """Of the decision that was last found to have this essence; None where only a status tells."""


@dataclass(frozen=True, slots=True)
class _Telling:
    """What is to be said of one object: its new status, and Events with their times."""

    record: DecisionRecord
    status: Mapping[str, Any]
    essence: JsonObject
    matters: _Importance
    written_at_seconds: float
    events: tuple[tuple[Event, float], ...]
    decided_at_seconds: float

    @property
    def uid(self) -> str:
        """Of the object."""
        return self.record.plan.autoscaler.uid

    def is_due(self, now_seconds: float) -> bool:
        """Whether it is worth a write now."""
        if self.matters is _Importance.CHANGE:
            return True
        return bool(self.matters) and now_seconds - self.written_at_seconds >= REFRESH_SECONDS


class Teller:
    """Remembers what was said of each object, and what is still to be said."""

    def __init__(self, writer: ClusterWriter, metrics: AutoscalerMetrics) -> None:
        self._writer = writer
        self._metrics = metrics
        self._statuses: dict[str, _Written] = {}
        """By uid: the status that was last written."""
        self._untold: dict[str, tuple[_Telling, ...]] = {}
        """By uid, oldest first: what could not be said in its own cycle and must not get lost."""
        self._throttle = Throttle()

    def keep_only(self, uids: Collection[str]) -> None:
        """Forgets objects that are gone; with none, everything."""
        self._statuses = {uid: known for uid, known in self._statuses.items() if uid in uids}
        self._untold = {uid: known for uid, known in self._untold.items() if uid in uids}
        self._throttle.keep_only(uids)

    def tell(
        self,
        records: Sequence[DecisionRecord],
        before: Mapping[str, Remembered],
        may_write: MayWrite,
        now_seconds: float,
    ) -> AutoscalerError | None:
        """Writes what has something to say; why the first that was refused was."""
        tellings = [
            self._telling(each, before[each.plan.autoscaler.uid], now_seconds)
            for each in records
            if not self._is_told(each, now_seconds)
        ]
        for each in tellings:
            known = self._statuses.get(each.uid)
            if known is not None and each.matters is not _Importance.CHANGE:
                self._statuses[each.uid] = known._replace(outline=outline_of(each.record))
        waiting = [each for each in tellings if each.is_due(now_seconds)]
        waiting.sort(key=lambda each: (-int(each.matters), each.written_at_seconds))
        is_over = threading.Event()

        def told(each: _Telling) -> AutoscalerError | None:
            """Why it was refused; several threads are here at a time, each with another object."""
            if is_over.is_set() or not may_write():
                is_over.set()
                return None
            refusal = self._refusal(partial(self._writer.set_status, each.record.plan.autoscaler, each.status))
            if isinstance(refusal, (ClusterUnavailable, ClusterRefused)):
                is_over.set()  # the next one would fare no better
                return refusal
            if refusal is not None:
                return None
            outline = outline_of(each.record)
            self._statuses[each.uid] = _Written(each.status, each.essence, now_seconds, outline)
            self._untold.pop(each.uid, None)
            return self._published(each, may_write, now_seconds)

        problem = next((each for each in side_by_side(told, waiting) if each is not None), None)
        behind = [each for each in waiting if self._is_behind(each)]
        for each in behind:
            if any(event.reason not in SEEN_AGAIN for event, at in each.events if at == now_seconds):
                self._untold[each.uid] = (*self._untold.get(each.uid, ()), each)[-DECISIONS_KEPT:]
        self._metrics.statuses_waiting.set(len(behind))
        return problem

    def _published(self, telling: _Telling, may_write: MayWrite, now: float) -> AutoscalerError | None:
        """Makes the Events, as many as an object may have; why the last that was refused was."""
        problem: AutoscalerError | None = None
        for event, at_seconds in telling.events:
            if not self._throttle.allows(telling.uid, now):
                self._metrics.events_held_back.inc()
                continue
            may_write()  # an Event belongs to its status: it is counted, and not left out
            refusal = self._refusal(partial(self._writer.publish, event, at_seconds))
            if isinstance(refusal, (ClusterUnavailable, ClusterRefused)):
                problem = refusal
        return problem

    def _is_told(self, record: DecisionRecord, now_seconds: float) -> bool:
        """Whether there is nothing to say of an object yet, which most often can be seen without making its status."""
        uid = record.plan.autoscaler.uid
        known = self._statuses.get(uid)
        if known is None or known.outline is None or uid in self._untold:
            return False
        return now_seconds - known.at_seconds < REFRESH_SECONDS and known.outline == outline_of(record)

    def _telling(self, record: DecisionRecord, before: Remembered, now: float) -> _Telling:
        """What is to be said of an object, with what earlier cycles could not say any more."""
        uid = record.plan.autoscaler.uid
        known = self._statuses.get(uid)
        if known is None:
            known = _Written(record.plan.autoscaler.status, essence_of(record.plan.autoscaler.status), 0.0)
        written = old = known.status
        events: list[tuple[Event, float]] = []
        for missed in self._untold.get(uid, ()):
            then = missed.record
            old = status_of(then.plan, then.result, old, missed.decided_at_seconds, then.sizing)
            events += [
                (event, at)
                for event, at in missed.events
                if at == missed.decided_at_seconds and event.reason not in SEEN_AGAIN
            ]
        was_conflict = any(
            c.get("type") == "Conflict" and c.get("status") == "True" for c in written.get("conditions") or ()
        )
        events += [(event, now) for event in notices(record.plan, record.result, before, was_conflict)]
        if record.sizing is not None:
            events += [(event, now) for event in sizing_notices(record.sizing, written)]
        new = status_of(record.plan, record.result, old, now, record.sizing)
        essence = essence_of(new)
        matters = _Importance.NOTHING if new == written else _Importance.FIGURES
        if essence != known.essence:
            matters = _Importance.CHANGE
        return _Telling(record, new, essence, matters, known.at_seconds, tuple(events), now)

    def _is_behind(self, telling: _Telling) -> bool:
        written = self._statuses.get(telling.uid)
        return written is None or written.status is not telling.status

    def _refusal(self, write: Callable[[], None]) -> AutoscalerError | None:
        """Why a status or Event was not written; the next cycle tries again."""
        try:
            write()
        except (CommandConflict, ObjectGone) as change:
            return change
        except (ClusterUnavailable, ClusterRefused) as problem:
            self._metrics.errors.labels("kubernetes", type(problem).__name__).inc()
            self._metrics.dependency_up.labels("kubernetes").set(0)
            return problem
        return None
