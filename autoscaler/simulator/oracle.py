"""A policy that sees the future and waits for its pods like any other: the bound to measure others against."""

import numpy as np

from autoscaler.simulator.outcome import ReplaySettings, ReplayWorkload, WorkloadOutcome, outcome
from autoscaler.simulator.readiness import lead_ticks
from models.forecast import FloatArray, IntArray

ORACLE = "oracle"


def oracle_outcome(workload: ReplayWorkload, settings: ReplaySettings, demand: FloatArray) -> WorkloadOutcome:
    """The cheapest replicas that never violate the SLO, as far as the maximum allows.

    It knows demand and how long the pods of every order will take, and begins with as many Ready replicas as it likes.
    A replica that is Ready at u was ordered by the last tick s(u) whose pods are Ready by then and lives on until u, so
    at t there must be at least the most that any u needs with s(u) <= t <= u. That many suffice: they rise only at
    ticks whose orders overtake all earlier ones. Where the replicas fall for no longer than a removed one is paid for
    anyway, they are kept. Nothing that never violates costs less.
    """
    needed = np.clip(workload.needed_replicas(demand), workload.min_replicas, workload.max_replicas)
    needed = np.repeat(needed, settings.ticks_per_step)
    order_at = last_orders(lead_ticks(workload, settings, needed.size))
    replicas = without_short_dips(ordered_for(needed, order_at), int(settings.grace_seconds // settings.tick_seconds))
    return outcome(
        ORACLE,
        workload,
        settings,
        demand=demand,
        ready=ready_of(replicas, order_at),
        replicas=replicas,
        initial_replicas=int(replicas[0]),
    )


def last_orders(lead: IntArray) -> IntArray:
    """The last tick whose order is Ready by each tick, [ticks]; 0 where only what was there at the start can be."""
    arrivals = np.arange(lead.size) + lead
    latest = np.zeros(lead.size, dtype=np.int64)
    within = arrivals < lead.size
    np.maximum.at(latest, arrivals[within], np.flatnonzero(within))
    return np.maximum.accumulate(latest)


def ordered_for(needed: IntArray, order_at: IntArray) -> IntArray:
    """The fewest replicas at each tick that have so many Ready at each, ordered as late as can be."""
    ticks = np.arange(needed.size)
    last_served = np.searchsorted(order_at, ticks, side="right") - 1
    return largest_between(needed, ticks, np.maximum(last_served, ticks))


def ready_of(replicas: IntArray, order_at: IntArray) -> IntArray:
    """Ready ones of replicas that rise only where an order overtakes all earlier ones: the fewest since the order."""
    return -largest_between(-replicas, order_at, np.arange(replicas.size))


def without_short_dips(replicas: IntArray, ticks: int) -> IntArray:
    """Replicas that fall for no longer than so many ticks, before they rise again, are kept instead."""
    if ticks == 0:
        return replicas
    padded = np.pad(replicas, ticks)
    dilated: IntArray = np.lib.stride_tricks.sliding_window_view(padded, ticks + 1).max(axis=1)
    kept: IntArray = np.lib.stride_tricks.sliding_window_view(dilated, ticks + 1).min(axis=1)
    return kept


def largest_between(values: IntArray, first: IntArray, last: IntArray) -> IntArray:
    """The largest value from each `first` to its `last`, both included: by maxima over stretches of powers of two."""
    lengths = last - first + 1
    largest = np.empty(first.size, dtype=np.int64)
    stretch, width = values, 1
    while True:
        fits = (lengths >= width) & (lengths < 2 * width)
        largest[fits] = np.maximum(stretch[first[fits]], stretch[last[fits] - width + 1])
        if lengths.max() < 2 * width:
            return largest
        stretch, width = np.maximum(stretch[:-width], stretch[width:]), 2 * width
