"""Google's Autopilot, horizontally: replicas for the highest usage of the last three days.

Source: Rzadca et al., "Autopilot: workload autoscaling at Google", EuroSys 2020, section on horizontal scaling. The
recommendation is a statistic of usage over a window, divided by what one replica should carry; then what stabilises it:
scale-ins wait until the recommendation was lower for `deferral_seconds`, and then halve the replicas at most every
`halving_seconds`; small changes are left; replicas that initialise are limited. The paper gives no figures for the last
two. Usage here is demand that arrived.
"""

from collections import deque
from dataclasses import dataclass
from math import ceil

import numpy as np

from autoscaler.cluster.capacity import ROUNDING, Capacity
from autoscaler.simulator.outcome import SECONDS_PER_HOUR, ReplaySettings, ReplayWorkload
from autoscaler.simulator.peers.history import StepHistory, past_of
from autoscaler.simulator.peers.reactive import amount_per_replica, within_bounds
from autoscaler.simulator.policies import Run, Tick
from models.forecast import SECONDS_PER_DAY, FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class AutopilotPolicy:
    """A moving window over the past, and stabilisers."""

    past: FloatArray
    """Demand before the replay, [workloads, steps]; NaN is unknown."""
    target_utilisation: float | None = None
    """None: the workload's own target."""
    level: float = 1.0
    """Quantile level of usage within the window; 1 is its maximum, the paper's other choice is 0.95."""
    window_seconds: int = 72 * SECONDS_PER_HOUR
    deferral_seconds: int = 2 * SECONDS_PER_DAY
    """A recommendation holds for so long against lower ones; two days, as most of its jobs have."""
    halving_seconds: float = float(SECONDS_PER_HOUR)
    """A scale-in takes at least so long to halve the replicas."""
    least_change: float = 0.1
    """Relative change of replicas below which they are left alone."""
    initialising_share: float | None = None
    """Replicas not Ready yet are at most this share of the Ready ones, and at least one; None: any number."""
    refresh_seconds: int = 300
    """How often it recommends."""
    name: str = "autopilot"

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> Run:
        """A fresh run, which has recommended throughout the past that is known."""
        return _AutopilotRun(self, past_of(self.past, row, self.name), workload, settings)


class _AutopilotRun:
    def __init__(
        self, policy: AutopilotPolicy, past: FloatArray, workload: ReplayWorkload, settings: ReplaySettings
    ) -> None:
        self._policy = policy
        self._workload = workload
        self._history = StepHistory(past, settings)
        self._capacity = Capacity(amount_per_replica(workload, policy.target_utilisation))
        self._window = max(1, policy.window_seconds // settings.step_seconds)
        self._refresh_steps = max(1, policy.refresh_seconds // settings.step_seconds)
        refresh_seconds = self._refresh_steps * settings.step_seconds
        self._recommended: deque[int] = deque(maxlen=1 + policy.deferral_seconds // refresh_seconds)
        self._refreshed_at_step = 0
        self._level = 0.0
        """Replicas while they decay, not yet whole."""
        self._last_seconds = 0.0
        back = min(self._recommended.maxlen or 1, len(past) // self._refresh_steps)
        for ago in range(back - 1, -1, -1):
            self._recommend(past[: len(past) - ago * self._refresh_steps])

    def replicas(self, tick: Tick) -> int:
        """The highest recommendation of the deferral, once the stabilisers let it."""
        self._history.see(tick)
        seen = len(self._history.values) - self._history.past_steps
        if seen >= self._refreshed_at_step + self._refresh_steps:
            self._refreshed_at_step = seen
            self._recommend(self._history.values)
        elapsed, self._last_seconds = tick.now_seconds - self._last_seconds, tick.now_seconds
        current = tick.replicas
        if not self._recommended:
            return current
        # The same bounds as everybody's, so that a change that they forbid is none.
        wanted = within_bounds(max(self._recommended), self._workload)
        if abs(wanted - current) < self._policy.least_change * current:
            return current
        if wanted > current:
            return self._grown(wanted, tick)
        if ceil(self._level * (1.0 - ROUNDING)) != current:
            self._level = float(current)
        self._level = max(wanted, self._level * 0.5 ** (elapsed / self._policy.halving_seconds))
        return ceil(self._level * (1.0 - ROUNDING))

    def _grown(self, wanted: int, tick: Tick) -> int:
        share = self._policy.initialising_share
        if share is None:
            return wanted
        return max(tick.replicas, min(wanted, tick.ready + max(1, int(share * tick.ready))))

    def _recommend(self, values: FloatArray) -> None:
        window = values[-self._window :]
        known = window[~np.isnan(window)]
        if known.size:
            usage = known.max() if self._policy.level >= 1.0 else np.quantile(known, self._policy.level)
            self._recommended.append(self._capacity.replicas_for(float(usage)))
