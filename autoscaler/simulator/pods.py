"""One workload's pods in a replay: those that start, those Ready, and whose turn comes when replicas are removed."""

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import NamedTuple


class Cohort(NamedTuple):
    """Pods that were ordered, or turned Ready, together."""

    due: float
    """The tick at which they turn Ready, or count as settled."""
    pods: int


class Pods:
    """Pods by age. What is not Ready is removed first, the newest order first; then the youngest of those Ready."""

    __slots__ = ("_lead_ticks", "_settle_ticks", "_starting", "_warming", "due", "ready", "settled")

    def __init__(self, ready: int, lead_ticks: Sequence[int], settle_ticks: int) -> None:
        self.ready = self.settled = ready
        self.due = inf
        """The next tick at which something turns Ready or settled; never late."""
        self._lead_ticks = lead_ticks
        self._settle_ticks = settle_ticks
        self._starting: deque[Cohort] = deque()
        self._warming: deque[Cohort] = deque()

    def order(self, tick: int, count: int) -> None:
        """So many more, Ready after the lead time that orders of this tick have."""
        cohort = Cohort(tick + self._lead_ticks[tick], count)
        self._starting.append(cohort)
        self.due = min(self.due, cohort.due)

    def remove(self, count: int) -> None:
        """So many fewer, at once."""
        surplus = _taken(self._starting, count)
        self.ready -= surplus
        self.settled -= _taken(self._warming, surplus)

    def turn(self, tick: int) -> None:
        """Whoever is due by this tick turns Ready or settled."""
        while self._warming and self._warming[0].due <= tick:
            self.settled += self._warming.popleft().pods
        arrived = sum(cohort.pods for cohort in self._starting if cohort.due <= tick)
        if arrived:
            # A later order may have overtaken an earlier one.
            self._starting = deque(cohort for cohort in self._starting if cohort.due > tick)
            self.ready += arrived
            self._warming.append(Cohort(tick + self._settle_ticks, arrived))
        self.due = min((cohort.due for cohort in self._starting), default=inf)
        if self._warming:
            self.due = min(self.due, self._warming[0].due)


def _taken(cohorts: deque[Cohort], surplus: int) -> int:
    """How many of `surplus` pods are left to take after the newest cohorts have given theirs."""
    while surplus and cohorts:
        due, count = cohorts.pop()
        if count > surplus:
            cohorts.append(Cohort(due, count - surplus))
            return 0
        surplus -= count
    return surplus
