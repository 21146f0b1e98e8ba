"""Replicas that are worth keeping because they will be needed again soon.

A replica that goes and comes back costs what it takes to start it: time in which it is paid for and serves nobody, cold
caches, and whatever else a change costs. One that is kept costs its idle time. Both are equal over the break-even
window: restart cost ÷ cost of an idle replica per second. So those are kept that are more likely than not to be needed
again within it (ski rental; Lin et al. 2011, "Dynamic right-sizing for power-proportional data centers"). Where
starting costs no more than the start itself, that window is the lead time, which forecasts cover anyway.
"""

from autoscaler.cluster.capacity import Capacity
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode, replicas_text
from autoscaler.cluster.snapshot import DemandForecast, RemovalLimit

BREAK_EVEN_LEVEL = 0.5
"""Of the demand peak within the window: what is exceeded is as likely as not."""


def kept_for_later(
    replicas: int, capacity: Capacity | Hold, later: DemandForecast | Hold | None
) -> RemovalLimit | None:
    """How many of the replicas may go while the rest carries the peak within the break-even window; None for no limit.

    `later` is the median of that peak; where it is not known, nothing is kept for it.
    """
    if later is None or isinstance(later, Hold) or isinstance(capacity, Hold):
        return None
    needed = capacity.replicas_for(later.value)
    text = f"{replicas_text(needed)} will more likely than not be needed within {later.horizon_seconds:.0f} s again"
    return RemovalLimit(max(0, replicas - needed), Reason(ReasonCode.BREAK_EVEN, text))


def strictest(*limits: RemovalLimit | None) -> RemovalLimit | None:
    """The one that allows fewest to go, the first of those that allow as few; None where there is none."""
    return min((each for each in limits if each is not None), key=lambda each: each.most, default=None)
