"""A workload's requests, one by one, through queues of known capacity: what a learned capacity is held against.

Requests arrive as a Poisson process whose rate follows the day and wanders; a replica is one server with a mean service
time of one second. Replicas follow the load late and badly, as people and autoscalers do, so that they are now and then
too few. What is known of an interval is what Prometheus would know: counts of the requests that were done in it.
"""

from heapq import heapify, heapreplace

import numpy as np
from numpy.typing import NDArray

from models.capacity import LoadHistory
from models.forecast import FloatArray

SECONDS_PER_DAY = 86_400
STEADY_INTERVALS_SECONDS = 3_600
"""So long replicas stay as they are."""


def simulated(
    rng: np.random.Generator,
    *,
    seconds: int,
    interval_seconds: int,
    most_replicas: int,
    carried_by_one: float,
    threshold: float,
    is_pooled: bool,
    service_cv: float = 1.0,
) -> LoadHistory:
    """What is seen of a workload of 1 to about `most_replicas` replicas, of which each carries about `carried_by_one`.

    `service_cv` is the standard deviation of service times ÷ their mean: exponential where it is 1, else lognormal.
    """
    minutes = np.arange(0, seconds, 60)
    wandering = _wandering(rng, len(minutes), 0.12)
    day = 0.55 - 0.4 * np.cos(2 * np.pi * minutes / SECONDS_PER_DAY)
    rate = most_replicas * carried_by_one * np.clip(day * np.exp(wandering), 0.02, 1.1)
    replicas = _following(rng, rate, carried_by_one, most_replicas)
    rate = np.minimum(rate, 0.97 * replicas)
    counts = rng.poisson(rate * 60)
    arrived = np.sort(np.repeat(minutes, counts) + rng.uniform(0, 60, counts.sum()))
    service = service_times(rng, arrived.size, service_cv)
    done = _pooled(arrived, service, replicas) if is_pooled else _separate(rng, arrived, service, replicas)
    is_late = done - arrived > threshold
    intervals = seconds // interval_seconds
    which = (done // interval_seconds).astype(np.intp)
    which, is_late = which[which < intervals], is_late[which < intervals]
    weight = np.bincount(which, minlength=intervals).astype(np.float64)
    late = np.bincount(which, is_late, minlength=intervals)
    ready = replicas[:: interval_seconds // 60].astype(np.float64)
    return LoadHistory(ready, weight / interval_seconds, late / np.maximum(weight, 1), weight)


def service_times(rng: np.random.Generator, count: int, cv: float) -> FloatArray:
    """Service times with a mean of one second."""
    if cv == 1.0:
        return rng.exponential(1.0, count)
    spread = np.sqrt(np.log1p(cv**2))
    return rng.lognormal(-(spread**2) / 2, spread, count)


def in_one_queue(arrived: FloatArray, service: FloatArray) -> FloatArray:
    """When each request is done that one server takes in the order of arrival (Lindley 1952)."""
    before = np.concatenate([[0.0], np.cumsum(service)])
    return np.asarray(before[1:] + np.maximum.accumulate(arrived - before[:-1]))


def in_pooled_queue(arrived: FloatArray, service: FloatArray, servers: int) -> FloatArray:
    """When each request is done that the first free of some servers takes (Kiefer and Wolfowitz 1955)."""
    return _pooled(arrived, service, np.full(int(arrived[-1] // 60) + 1, servers))


def _wandering(rng: np.random.Generator, steps: int, spread: float) -> FloatArray:
    """A first-order autoregression with a memory of about an hour."""
    kept = np.exp(-1 / 60)
    shocks = rng.normal(0, spread * np.sqrt(1 - kept**2), steps)
    result = np.empty(steps)
    value = 0.0
    for i, shock in enumerate(shocks):
        value = kept * value + shock
        result[i] = value
    return result


def _following(rng: np.random.Generator, rate: FloatArray, carried_by_one: float, most: int) -> NDArray[np.intp]:
    """Replicas in each minute: what the rate half an hour before asked for, more or less, changed once an hour."""
    result = np.empty(len(rate), dtype=np.intp)
    minutes = STEADY_INTERVALS_SECONDS // 60
    for start in range(0, len(rate), minutes):
        wanted = rate[max(0, start - 30)] / carried_by_one * np.exp(rng.normal(0.1, 0.2))
        result[start : start + minutes] = int(np.clip(np.ceil(wanted), 1, most))
    return result


def _pooled(arrived: FloatArray, service: FloatArray, replicas: NDArray[np.intp]) -> FloatArray:
    """One queue; a replica that goes does what it took, one that comes is free at once."""
    done = np.empty(arrived.size)
    changes = np.flatnonzero(np.diff(replicas, prepend=replicas[0])) * 60.0
    free = [0.0] * int(replicas[0])
    first = 0
    for change in (*changes, np.inf):
        last = int(np.searchsorted(arrived, change))
        for i, (at, taken) in enumerate(zip(arrived[first:last].tolist(), service[first:last].tolist(), strict=True)):
            ends = max(free[0], at) + taken
            heapreplace(free, ends)
            done[first + i] = ends
        first = last
        if change < np.inf:
            count = int(replicas[int(change // 60)])
            free = sorted(free)[:count] + [float(change)] * max(0, count - len(free))
            heapify(free)
    return done


def _separate(
    rng: np.random.Generator, arrived: FloatArray, service: FloatArray, replicas: NDArray[np.intp]
) -> FloatArray:
    """A queue for each replica, chosen by chance; a replica that goes does what it was sent."""
    chosen = (rng.uniform(size=arrived.size) * replicas[(arrived // 60).astype(np.intp)]).astype(np.intp)
    done = np.empty(arrived.size)
    for replica in range(int(replicas.max())):
        mine = chosen == replica
        if mine.any():
            done[mine] = in_one_queue(arrived[mine], service[mine])
    return done
