"""The M/M/c queue: how long requests wait and take where `servers` serve one queue at a load in erlangs.

Load is arrival rate ÷ service rate of one server; times are in mean service times of one server, which makes every
figure free of units. Source: A. K. Erlang 1917; the recursion and the percentiles as in Gross, Shortle, Thompson and
Harris, Fundamentals of Queueing Theory, 2.4. No clock, no dice.
"""

from math import ceil, exp, expm1, log2

import numpy as np
from scipy.special import gammaincc, gammaln, xlogy

from models.forecast import FloatArray

LOAD_TOLERANCE = 1e-10
"""Relative error of a load that is found by bisection."""


def blocked_share(load: float, servers: int) -> float:
    """Erlang B: share of arrivals that find all `servers` busy where none may wait. By its stable recursion."""
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked


def waiting_share(load: float, servers: int) -> float:
    """Erlang C: share of arrivals that have to wait; 1 where the load is as much as the servers can do, or more."""
    if load >= servers:
        return 1.0
    blocked = blocked_share(load, servers)
    return servers * blocked / (servers - load * (1.0 - blocked))


def late_share(load: float, servers: int, threshold: float) -> float:
    """Share of requests whose response, wait and service together, takes longer than `threshold` service times.

    1 where the load is as much as the servers can do, or more: the queue then grows without end.
    """
    if load >= servers:
        return 1.0
    waiting = waiting_share(load, servers)
    spare = servers - load - 1.0
    # Service alone, and what waiting adds: waiting × (exp(-threshold) - exp(-(spare + 1) × threshold)) / spare, written
    # so that nothing overflows; as `spare` goes to 0 it goes to waiting × threshold × exp(-threshold).
    apart = max(abs(spare), 1e-9)
    added = exp(-min(1.0, spare + 1.0) * threshold) * -expm1(-apart * threshold) / apart
    return min(1.0, exp(-threshold) + waiting * added)


def largest_load(servers: int, threshold: float, level: float) -> float:
    """The largest load, in erlangs, at which at least a share `level` of responses takes at most `threshold`.

    0 where not even a request that never waits is that fast: the threshold is then no promise these servers can keep.
    """
    allowed = 1.0 - level
    if exp(-threshold) > allowed:
        return 0.0
    low, high = 0.0, float(servers)
    while high - low > LOAD_TOLERANCE * servers:
        middle = (low + high) / 2.0
        if late_share(middle, servers, threshold) <= allowed:
            low = middle
        else:
            high = middle
    return low


def late_shares(load: FloatArray, servers: FloatArray, threshold: FloatArray | float) -> FloatArray:
    """`late_share` of arrays, element by element; Erlang B is then by the Poisson distribution instead of recursion."""
    load, servers, threshold = np.broadcast_arrays(load, servers, threshold)
    is_served = load < servers
    inside = np.where(is_served, load, 0.5 * servers)
    blocked = np.exp(xlogy(servers, inside) - inside - gammaln(servers + 1)) / gammaincc(servers + 1, inside)
    waiting = servers * blocked / (servers - inside * (1.0 - blocked))
    spare = servers - inside - 1.0
    apart = np.maximum(np.abs(spare), 1e-9)
    added = np.exp(-np.minimum(1.0, spare + 1.0) * threshold) * -np.expm1(-apart * threshold) / apart
    late = np.exp(-threshold) + waiting * added
    return np.where(is_served, np.minimum(late, 1.0), 1.0)


def largest_loads(servers: FloatArray, threshold: float, level: float) -> FloatArray:
    """`largest_load` for each number of servers."""
    allowed = 1.0 - level
    low, high = np.zeros(len(servers)), servers.astype(np.float64)
    if exp(-threshold) > allowed:
        return low
    for _ in range(ceil(log2(1.0 / LOAD_TOLERANCE))):
        middle = (low + high) / 2.0
        is_kept = late_shares(middle, servers, threshold) <= allowed
        low, high = np.where(is_kept, middle, low), np.where(is_kept, high, middle)
    return low
