"""How often what was told of nodes was wrong, beside how often it may be: a policy's budget. Values in, values out.

What counts is a node in one horizon: it is a violation where usage of its ordinary pods exceeded the peak that was told
(and what had come since), or where the guard had to step in. It counts once, however often that was.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from autoscaler.controller.autoscalers import as_time, seconds_of
from predictor.usage.panel import Resource

HORIZONS_KEPT = 28
"""The window of the budget, in horizons: the present one and those before it."""
MOST_NODES = 10**6
"""A status that counts more was not written here."""
NAMES_KEPT = 1000
"""Most names of violated nodes of the present horizon that a status holds."""


@dataclass(frozen=True, slots=True)
class PastHorizon:
    """One that is over."""

    start_seconds: float
    nodes: int
    violations: int
    worst: float = 0.0
    """The largest share of usage by which what was told was too low."""


@dataclass(frozen=True, slots=True)
class BudgetRecord:
    """Of one policy and resource."""

    start_seconds: float = 0.0
    """Of the present horizon; horizons begin at multiples of their length."""
    nodes: int = 0
    """Most nodes in it of which a peak was told and usage was known at a time."""
    violated: frozenset[str] = frozenset()
    """Those of them where it was exceeded, or the guard stepped in."""
    worst: float = 0.0
    """The same of the present horizon."""
    past: tuple[PastHorizon, ...] = ()
    """Newest first."""

    @property
    def node_horizons(self) -> int:
        """Over the window."""
        return self.nodes + sum(each.nodes for each in self.past)

    @property
    def violations(self) -> int:
        """Over the window."""
        return len(self.violated) + sum(each.violations for each in self.past)

    @property
    def severity(self) -> float:
        """The largest share of usage by which what was told was too low, over the window; 0 where it never was."""
        return max((self.worst, *(each.worst for each in self.past)))

    def budget(self, violation_probability: float) -> float:
        """How many violations the window may have; not a whole number."""
        return violation_probability * self.node_horizons

    def used_share(self, violation_probability: float) -> float:
        """Share of the budget that is used up; above 1 where it is overdrawn. 0 before any node was watched."""
        budget = self.budget(violation_probability)
        return self.violations / budget if budget > 0 else 0.0

    def sold_share(self, violation_probability: float) -> float:
        """Share of what is reclaimable that may be sold, so that each violation too many widens the margin.

        (budget + 1) / violations where that is below 1: one more than the budget is no evidence yet, as the first
        violation of a small pool overdraws its budget however rare it was.
        """
        return min(1.0, (self.budget(violation_probability) + 1.0) / max(self.violations, 1))

    def after(
        self,
        told: Collection[str],
        violated: Collection[str],
        horizon_seconds: float,
        now_seconds: float,
        *,
        worst: float = 0.0,
    ) -> "BudgetRecord":
        """With what one cycle has seen; `worst` is the largest share of usage by which what was told was too low."""
        start = now_seconds // horizon_seconds * horizon_seconds
        known = self
        if start != self.start_seconds:
            ended = PastHorizon(self.start_seconds, self.nodes, len(self.violated), self.worst)
            past = (ended, *self.past) if self.nodes else self.past
            oldest = start - (HORIZONS_KEPT - 1) * horizon_seconds
            # One later than now, as a clock was wrong, would never leave the window.
            known = BudgetRecord(
                start, past=tuple(each for each in past if oldest <= each.start_seconds <= now_seconds)
            )
        both = known.violated | (frozenset(violated) & frozenset(told))
        nodes = max(known.nodes, len(told), len(both))
        return replace(known, nodes=nodes, violated=both, worst=max(known.worst, worst))

    def as_json(self) -> dict[str, Any]:
        """As a status keeps it."""
        return {
            "start": as_time(self.start_seconds),
            "nodes": self.nodes,
            "violated": sorted(self.violated)[:NAMES_KEPT],
            "worst": self.worst,
            "past": [
                {
                    "start": as_time(each.start_seconds),
                    "nodes": each.nodes,
                    "violations": each.violations,
                    "worst": each.worst,
                }
                for each in self.past
            ],
        }


def kept_record(status: Mapping[str, Any], resource: Resource) -> BudgetRecord:
    """What the status of a policy kept of a resource; a new record where it kept none."""
    for each in status.get("resources") or ():
        if each.get("name") == resource.value:
            return record_from((each.get("violations") or {}).get("record"))
    return BudgetRecord()


def record_from(kept: Mapping[str, Any] | None) -> BudgetRecord:
    """What a status kept; what cannot be read, or was never a record, begins anew."""
    if not kept:
        return BudgetRecord()
    try:
        return BudgetRecord(
            seconds_of(kept["start"]),
            _count(kept["nodes"]),
            frozenset(str(name) for name in kept["violated"]),
            _share(kept.get("worst", 0.0)),
            tuple(
                PastHorizon(
                    seconds_of(each["start"]),
                    _count(each["nodes"]),
                    _count(each["violations"]),
                    _share(each.get("worst", 0.0)),
                )
                for each in kept["past"]
            ),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return BudgetRecord()


def _count(kept: Any) -> int:
    if not 0 <= int(kept) <= MOST_NODES:
        raise ValueError(f"{kept} is no count of nodes")
    return int(kept)


def _share(kept: Any) -> float:
    if not (isfinite(float(kept)) and float(kept) >= 0):
        raise ValueError(f"{kept} is no share of usage")
    return float(kept)
