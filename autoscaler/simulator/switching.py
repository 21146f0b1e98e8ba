"""An oracle that pays for violations and for every replica it adds or removes: what is best when change is not free.

By dynamic programming over the Ready replicas n, V(t, n) = min over m of V(t - 1, m) + cost of going from m to n, plus
what n cost at t. Going up and down costs in proportion, so the minimum over m is one running minimum from below and one
from above: O(ticks × replicas). Ticks that need the same and order alike are one: the cheapest way through them changes
at their first tick only.
"""

from dataclasses import dataclass

import numpy as np

from autoscaler.simulator.oracle import last_orders, ordered_for, ready_of
from autoscaler.simulator.outcome import (
    SECONDS_PER_HOUR,
    ReplayError,
    ReplaySettings,
    ReplayWorkload,
    WorkloadOutcome,
    outcome,
)
from autoscaler.simulator.readiness import lead_ticks
from models.forecast import FloatArray, IntArray

SWITCHING_ORACLE = "oracle with switching cost"


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchingCosts:
    """What is weighed against replica-hours, and in them."""

    violation_hour: float
    """Of an hour in which the SLO is violated, by however much, and fewer than the maximum are Ready.

    Infinity: no violation but what the maximum cannot help.
    """
    change: float
    """Of every replica added and of every replica removed, beyond what is paid while it starts and ends."""

    def __post_init__(self) -> None:
        if not (self.violation_hour >= 0.0 and 0.0 <= self.change < np.inf):
            raise ReplayError(f"violations and changes must cost at least 0, and changes no infinity, got {self}")


def switching_outcome(
    workload: ReplayWorkload, settings: ReplaySettings, demand: FloatArray, costs: SwitchingCosts
) -> WorkloadOutcome:
    """The replicas whose hours, violations and changes cost least together.

    It knows demand and how long the pods of every order will take, and begins with as many Ready replicas as it likes.
    Seen from the Ready replicas, an order's lead time is a cost of each replica that is added: it is paid for from the
    last order that is Ready in time.
    """
    needed = np.repeat(workload.needed_replicas(demand), settings.ticks_per_step)
    order_at = last_orders(lead_ticks(workload, settings, needed.size))
    starting = np.arange(needed.size) - order_at
    ready = cheapest_ready(workload, settings, needed, starting, costs)
    replicas = ordered_for(ready, order_at)
    return outcome(
        SWITCHING_ORACLE,
        workload,
        settings,
        demand=demand,
        ready=ready_of(replicas, order_at),
        replicas=replicas,
        initial_replicas=int(replicas[0]),
    )


def cheapest_ready(
    workload: ReplayWorkload, settings: ReplaySettings, needed: IntArray, starting: IntArray, costs: SwitchingCosts
) -> IntArray:
    """Ready replicas at each tick, [ticks]; those added at a tick are paid for `starting` ticks before it."""
    tick_hours = settings.tick_seconds / SECONDS_PER_HOUR
    counts = np.arange(workload.min_replicas, workload.max_replicas + 1)
    # Where the maximum is not enough, fewer than that are the violation: what can be served is.
    needed = np.minimum(needed, workload.max_replicas)
    changed = (np.diff(needed) != 0) | (np.diff(starting) != 0)
    firsts = np.concatenate([[0], np.flatnonzero(changed) + 1])
    lengths = np.diff(firsts, append=needed.size)
    left_hours = (needed.size - firsts) * tick_hours
    down = counts * (costs.change + np.minimum(settings.grace_seconds / SECONDS_PER_HOUR, left_hours))[:, None]
    up = counts * (costs.change + starting[firsts] * tick_hours)[:, None]

    value = np.zeros(counts.size)
    came_from = np.empty((firsts.size, counts.size), dtype=np.int64)
    same = np.arange(counts.size)
    for group, (first, length) in enumerate(zip(firsts.tolist(), lengths.tolist(), strict=True)):
        if group:
            below, from_below = _running_minimum(value - up[group])
            above, from_above = _running_minimum((value + down[group])[::-1])
            below, above = below + up[group], above[::-1] - down[group]
            fewer = below <= above
            came_from[group] = np.where(fewer, from_below, same[-1] - from_above[::-1])
            value = np.where(fewer, below, above)
        hours = length * tick_hours
        value = value + hours * counts
        value[counts < needed[first]] += hours * costs.violation_hour
    chosen = np.empty(firsts.size, dtype=np.int64)
    at = int(value.argmin())
    for group in range(firsts.size - 1, -1, -1):
        chosen[group] = counts[at]
        at = int(came_from[group, at]) if group else at
    return np.repeat(chosen, lengths)


def _running_minimum(values: FloatArray) -> tuple[FloatArray, IntArray]:
    """The smallest value so far, and where it was last met."""
    smallest = np.minimum.accumulate(values)
    positions = np.where(values == smallest, np.arange(values.size), 0)
    return smallest, np.maximum.accumulate(positions)
