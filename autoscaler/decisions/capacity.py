"""What replicas carry while the share of late responses stays within the SLO: from the M/M/c queue, or as learned."""

import numpy as np

from autoscaler.cluster.capacity import ROUNDING, Capacity
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from models.capacity import LearnedCapacity, Refusal
from models.forecast import FloatArray
from models.queueing import largest_load


def queue_capacity(
    service_rate: float, servers_per_replica: int, threshold_seconds: float, level: float, replicas: int
) -> Capacity | None:
    """What 1 to `replicas` replicas carry, in requests per second, so that a share `level` of responses is in time.

    Each replica is `servers_per_replica` servers of one queue that all share, each done with `service_rate` requests a
    second. None where no request is in time often enough, however few there are.
    """
    loads = [
        largest_load(count * servers_per_replica, threshold_seconds * service_rate, level)
        for count in range(1, replicas + 1)
    ]
    if loads[-1] <= 0.0:
        return None
    return Capacity(service_rate * servers_per_replica, tuple(load * service_rate for load in loads))


def exceeded_by(demand: FloatArray, capacity: Capacity, fewest: int, most: int) -> FloatArray:
    """What readiness must exceed to be enough for each demand: what one replica fewer than it needs carries.

    0 where the fewest replicas that there may be are enough, and no more than the most can do is asked. NaN is NaN.
    """
    carried = np.array([0.0, *capacity.curve])
    known, asked = carried.size - 1, np.where(np.isnan(demand), 0.0, demand) * (1.0 - ROUNDING)
    beyond = known + np.ceil(np.maximum(asked - carried[-1], 0.0) / capacity.per_replica)
    needed = np.minimum(np.where(asked <= carried[-1], np.searchsorted(carried, asked), beyond), most)
    fewer = needed - 1.0
    on_curve = carried[np.clip(fewer, 0, known).astype(np.intp)]
    made = on_curve + np.maximum(fewer - known, 0.0) * capacity.per_replica
    return np.where(np.isnan(demand), np.nan, np.where(needed > fewest, made, 0.0))


def as_learned(learned: LearnedCapacity | Refusal) -> Capacity | Hold:
    """What replicas likeliest carry, or why that is not known."""
    return _on_curve(learned.carried) if isinstance(learned, LearnedCapacity) else _not_learned(learned)


def surely_carried(learned: LearnedCapacity | Refusal) -> Capacity | Hold:
    """What they carry all but surely, by the lower end of the 95 % interval, or why that is not known."""
    return _on_curve(learned.low) if isinstance(learned, LearnedCapacity) else _not_learned(learned)


def _on_curve(carried: FloatArray) -> Capacity:
    """Replicas beyond the curve add what those on it carry on average, which is no more than the last one adds."""
    return Capacity(float(carried[-1]) / len(carried), tuple(carried.tolist()))


def _not_learned(refusal: Refusal) -> Hold:
    return Hold(Reason(ReasonCode.NOT_LEARNED, f"what replicas carry cannot be learned: {refusal.reason}"))
