"""How much may be written, and several writes at a time: the API server answers many as fast as one."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WRITES_AT_ONCE = 8
"""Writes that are under way at the same time; fewer than connections are kept open."""


@dataclass
class WriteBudget:
    """Lets so many writes through per second of time that really passed, and as many at once as gather in a while.

    Any thread may ask. The time is an argument; it must never go back.
    """

    per_second: float
    gathering_seconds: float
    """What is not used gathers for this long."""

    def __post_init__(self) -> None:
        self._left = self._most
        self._at_seconds: float | None = None
        self._is_spent = False
        self._lock = threading.Lock()

    @property
    def _most(self) -> float:
        return self.per_second * self.gathering_seconds

    def begin(self, now_seconds: float) -> None:
        """A new cycle: what was refused in the one before may be asked for again."""
        with self._lock:
            self._gather(now_seconds)
            self._is_spent = False

    @property
    def is_spent(self) -> bool:
        """Whether nothing more is let through in this cycle."""
        return self._is_spent or self._left < 1

    def take(self, now_seconds: float) -> bool:
        """Whether one more write is let through; one that is counts as made.

        Once one is refused so are all others of the cycle, as they matter less.
        """
        with self._lock:
            self._gather(now_seconds)
            self._is_spent = self._is_spent or self._left < 1
            if not self._is_spent:
                self._left -= 1
            return not self._is_spent

    def _gather(self, now_seconds: float) -> None:
        passed = 0.0 if self._at_seconds is None else max(0.0, now_seconds - self._at_seconds)
        self._left = min(self._most, self._left + self.per_second * passed)
        self._at_seconds = now_seconds


def side_by_side(write: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """What came of each, in order; they are begun in order, WRITES_AT_ONCE of them at a time.

    What one raises is raised once those that were begun have ended; no more are begun.
    """
    if len(items) < 2:
        return [write(item) for item in items]
    # In the caller's context, so that logs and traces say what a write belongs to.
    contexts = [copy_context() for _ in items]
    with ThreadPoolExecutor(min(WRITES_AT_ONCE, len(items)), thread_name_prefix="write") as pool:
        return list(pool.map(lambda context, item: context.run(write, item), contexts, items))
