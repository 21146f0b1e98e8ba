"""What a number of replicas can carry: the same amount each, or more each the more there are, as in a pooled queue."""

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, inf
from typing import Self

from autoscaler.cluster.reasons import Hold, Reason, ReasonCode

ROUNDING = 1e-9
"""Relative excess over a whole number of replicas that is taken as rounding error, not as demand."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Demand that a workload's replicas carry within their target, in the base unit of demand."""

    per_replica: float
    """What every replica carries; with a curve, what each one beyond its end adds."""
    curve: tuple[float, ...] = ()
    """What 1, 2, 3 … replicas carry together, never falling; empty: in proportion to their number."""

    def __post_init__(self) -> None:
        if not 0.0 < self.per_replica < inf:
            raise ValueError(f"one replica carries {self.per_replica:g}, which is no amount above 0")
        if any(b < a for a, b in zip(self.curve, self.curve[1:], strict=False)):
            raise ValueError("more replicas carry less on this curve")

    def demand_at(self, replicas: int) -> float:
        """The most that so many replicas carry."""
        known = len(self.curve)
        if replicas <= known:
            return self.curve[replicas - 1] if replicas > 0 else 0.0
        return (self.curve[-1] if known else 0.0) + (replicas - known) * self.per_replica

    def replicas_for(self, demand: float) -> int:
        """Fewest replicas that carry the demand; 0 for no demand."""
        if demand <= 0.0:
            return 0
        known = len(self.curve)
        carried = self.curve[-1] if known else 0.0
        if known and demand * (1.0 - ROUNDING) <= carried:
            return bisect_left(self.curve, demand * (1.0 - ROUNDING)) + 1
        return known + ceil((demand * (1.0 - ROUNDING) - carried) / self.per_replica)

    def scaled(self, share: float) -> Self:
        """The capacity of which only a share is relied on."""
        return type(self)(self.per_replica * share, tuple(each * share for each in self.curve))


@lru_cache(maxsize=20_000)
def proportional(per_replica: float) -> Capacity | Hold:
    """The capacity of replicas that carry so much each, or why that is none."""
    if 0.0 < per_replica < inf:
        return Capacity(per_replica)
    return Hold(Reason(ReasonCode.NO_CAPACITY, f"one replica carries {per_replica:g}, which is no amount above 0"))
