"""As many replicas as the past needed at its peak, or at most times, and never another number."""

from dataclasses import dataclass

import numpy as np

from autoscaler.cluster.capacity import Capacity
from autoscaler.simulator.outcome import ReplaySettings, ReplayWorkload
from autoscaler.simulator.peers.history import past_of
from autoscaler.simulator.peers.reactive import amount_per_replica, within_bounds
from autoscaler.simulator.policies import Run, Tick
from models.forecast import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPolicy:
    """Replicas for a quantile of past demand; where nothing of the past is known, those that there are."""

    past: FloatArray
    """Demand before the replay, [workloads, steps]; NaN is unknown."""
    level: float = 1.0
    """Quantile level; 1 is the peak."""
    target_utilisation: float | None = None
    """None: the workload's own target."""
    name: str = "static_peak"

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> Run:  # noqa: ARG002 - every policy's
        """A fresh run."""
        past = past_of(self.past, row, self.name)
        known = past[~np.isnan(past)]
        if not known.size:
            return _FixedRun(None)
        capacity = Capacity(amount_per_replica(workload, self.target_utilisation))
        wanted = capacity.replicas_for(float(np.quantile(known, self.level)))
        return _FixedRun(within_bounds(wanted, workload))


class _FixedRun:
    def __init__(self, wanted: int | None) -> None:
        self._wanted = wanted

    def replicas(self, tick: Tick) -> int:
        """The same at every tick."""
        return tick.replicas if self._wanted is None else self._wanted
