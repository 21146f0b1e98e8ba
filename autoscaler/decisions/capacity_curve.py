"""What a decision relies on of a learned capacity: its low end, within what has been seen. Values in, values out.

A curve is kept as a few knots, small enough for a status, and decisions are made from the knots alone: whoever goes on
from a status decides as the one who learned it.
"""

from functools import lru_cache
from math import ceil, exp, hypot, inf, log, sqrt
from typing import NamedTuple

import numpy as np

from autoscaler.cluster.capacity import Capacity
from models.capacity import VERSION_SPREAD, LearnedCapacity, LearnedUsage
from models.forecast import FloatArray

MOST_KNOTS = 12
CURVE_REPLICAS = 1_000
"""Of so many replicas at most what they carry is told one by one; more carry in proportion, which is less."""
LEAST_SEEN = 5
"""So many intervals at least must have had so few replicas, or so many, for that to count as seen."""
KEPT_SHARE = 0.8
"""Share of the fewest replicas seen that is kept at least: how few carry follows badly from how many do."""
LEAST_SPREAD = 0.02
"""So much at least what is carried may be off, relative, as no queue is the one that is fitted."""
LEAST_UTILISATION = 0.3
"""Replicas are filled to so much of their CPU request at least, however early they are throttled: three times the
replicas of the default target are the most that is spent on it, and beyond that a higher limit is the remedy."""
NORMAL_LOW = 1.96
"""Standard deviations from the middle of a normal distribution to its 2.5 % quantile."""


class Knot(NamedTuple):
    """What so many replicas carry together, in the unit of demand."""

    replicas: int
    low: float
    """The 2.5 % quantile."""
    likeliest: float
    high: float
    """The 97.5 % quantile."""


Knots = tuple[Knot, ...]
"""Ascending, from the fewest replicas that were seen to the most; never empty."""


class ReplicaRange(NamedTuple):
    """The fewest and the most replicas that were Ready."""

    fewest: int
    most: int


class LearnedCurve(NamedTuple):
    """A learned capacity as it is kept."""

    knots: Knots
    learned_at_seconds: float
    basis: str
    """Fingerprint of what demand and the SLA were."""
    version: str
    """Fingerprint of the images that the target was made of; empty where that is not known."""
    remark: str = ""
    """What a reader should know of it."""
    widened_at_seconds: float | None = None
    """Since when it stands for a version that did not teach it, and is wider for that; None: it taught it."""
    taught_by: str = ""
    """What it was learned from, in words; empty: from the replicas of its knots."""


def seen_range(replicas: FloatArray) -> ReplicaRange | None:
    """Of the intervals in which any were Ready, but for the few with the fewest and the most; None of too few."""
    known = np.sort(replicas[replicas >= 1])
    if len(known) < LEAST_SEEN:
        return None
    return ReplicaRange(int(known[LEAST_SEEN - 1]), min(int(known[-LEAST_SEEN]), CURVE_REPLICAS))


def knots_of(learned: LearnedCapacity, seen: ReplicaRange) -> Knots | None:
    """The curve within what was seen, to six digits; None where so many replicas may carry nothing.

    `learned` has at least as many replicas as were seen.
    """
    fewest = min(seen.fewest, seen.most)
    spaced = np.unique(np.rint(np.geomspace(fewest, seen.most, MOST_KNOTS)).astype(np.intp))
    knots = tuple(
        Knot(each, *(float(f"{curve[each - 1]:.6g}") for curve in (learned.low, learned.carried, learned.high)))
        for each in spaced.tolist()
    )
    return knots if knots[-1].low > 0 else None


def knots_of_usage(learned: LearnedUsage) -> Knots | None:
    """What one replica uses before it is throttled too often, as any number of them, to six digits; None for nothing.

    Each has its own limit, so that they carry in proportion to their number.
    """
    low, likeliest, high = (float(f"{each:.6g}") for each in (learned.low, learned.usage, learned.high))
    return (Knot(1, low, likeliest, high),) if low > 0 else None


def held_between(knots: Knots, least: float, most: float) -> Knots:
    """The same, of which each replica carries no less and no more than that."""
    return tuple(
        Knot(n, *(min(max(amount, n * least), n * most) for amount in (low, likeliest, high)))
        for n, low, likeliest, high in knots
    )


def of_other_version(knots: Knots) -> Knots:
    """What another version of the workload may carry: likeliest the same, and wider by what versions differ by."""
    return tuple(_with_spread(each, hypot(_spread(each), VERSION_SPREAD)) for each in knots)


def narrowed(knots: Knots, share: float) -> Knots:
    """Knots that were widened for another version, with a share of what that added to their spread taken back.

    Nobody sees what more load would do while replicas keep it from coming, so the way back is to try, slowly.
    """
    if share <= 0:
        return knots
    return tuple(
        _with_spread(each, max(LEAST_SPREAD, sqrt(max(0.0, _spread(each) ** 2 - share * VERSION_SPREAD**2))))
        for each in knots
    )


def _spread(knot: Knot) -> float:
    """Standard deviation of the logarithm, by the low end; of one that may carry nothing, wide enough to stay that."""
    return log(knot.likeliest / knot.low) / NORMAL_LOW if knot.low > 0 else inf


def _with_spread(knot: Knot, spread: float) -> Knot:
    if spread == inf:
        return knot
    low, high = (knot.likeliest * exp(sign * NORMAL_LOW * spread) for sign in (-1, 1))
    return knot._replace(low=float(f"{low:.6g}"), high=float(f"{high:.6g}"))


@lru_cache(maxsize=10_000)
def relied_on(knots: Knots) -> Capacity:
    """The low end as a capacity: in proportion below the first knot and beyond the last, and never more than between.

    Between knots what one replica carries is a straight line, which lies below the curve of a shared queue.
    """
    places = np.array([float(each.replicas) for each in knots])
    each_carries = np.array([knot.low for knot in knots]) / places
    asked = np.arange(1.0, places[-1] + 1)
    carried = asked * np.interp(asked, places, each_carries)
    never_falling = np.minimum.accumulate(carried[::-1])[::-1]
    return Capacity(float(each_carries[-1]), tuple(never_falling.tolist()))


def estimate(knots: Knots, replicas: int) -> Knot:
    """The curve at so many replicas, between the knots and beyond them as `relied_on` has it."""
    places = [each.replicas for each in knots]

    def at(amounts: list[float]) -> float:
        shares = [amount / place for amount, place in zip(amounts, places, strict=True)]
        return replicas * float(np.interp(replicas, places, shares))

    low, likeliest, high = (at([each[part] for each in knots]) for part in (1, 2, 3))
    return Knot(replicas, min(low, relied_on(knots).demand_at(replicas)), likeliest, high)


def fewest_kept(knots: Knots) -> int:
    """The fewest replicas that there should be while the curve is relied on."""
    return ceil(KEPT_SHARE * knots[0].replicas)
