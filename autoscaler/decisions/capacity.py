"""What replicas carry while the share of late responses stays within the SLO, from the M/M/c queue."""

from autoscaler.cluster.capacity import Capacity
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
