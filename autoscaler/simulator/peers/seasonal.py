"""As many replicas as yesterday's demand at this time would need, and never fewer than the HPA sets.

The plainest of all forecasts. To the HPA it is one more metric beside CPU, so that CPU is a reactive floor and both end
in the HPA's tolerance and guardrails.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np

from autoscaler.decisions.guardrails import HPA_BEHAVIOUR, Behaviour
from autoscaler.simulator.outcome import ReplaySettings, ReplayWorkload
from autoscaler.simulator.peers.history import StepHistory, past_of
from autoscaler.simulator.peers.reactive import CpuMetric, GuardedScale, amount_per_replica, demand_proposal
from autoscaler.simulator.policies import Run, Tick
from models.forecast import SECONDS_PER_DAY, FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonalNaivePolicy:
    """The highest demand of one season ago, from now until what is ordered now is Ready, times a headroom."""

    past: FloatArray
    """Demand before the replay, [workloads, steps]; NaN is unknown."""
    headroom: float = 1.1
    """Demand of one season ago is multiplied by this."""
    season_seconds: int = SECONDS_PER_DAY
    target_utilisation: float | None = None
    """None: the workload's own target."""
    behaviour: Behaviour = HPA_BEHAVIOUR
    name: str = "seasonal_naive"

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> Run:
        """A fresh run."""
        return _SeasonalNaiveRun(self, past_of(self.past, row, self.name), workload, settings)


class _SeasonalNaiveRun:
    def __init__(
        self, policy: SeasonalNaivePolicy, past: FloatArray, workload: ReplayWorkload, settings: ReplaySettings
    ) -> None:
        self._history = StepHistory(past, settings)
        self._cpu = CpuMetric(workload, policy.target_utilisation, policy.behaviour)
        self._scale = GuardedScale(workload, policy.behaviour)
        self._per_replica = amount_per_replica(workload, policy.target_utilisation)
        self._policy = policy
        self._season = policy.season_seconds // settings.step_seconds
        self._window = 1 + ceil(settings.pod_ready_seconds / settings.step_seconds)
        self._step = -1
        self._demand: float | None = None

    def replicas(self, tick: Tick) -> int:
        """The larger of the HPA's and the season's replicas, after the guardrails."""
        self._history.see(tick)
        if tick.step != self._step:
            self._step = tick.step
            self._demand = self._demand_a_season_ago(tick.step)
        proposal = self._cpu.proposal(tick)
        if self._demand is None:
            return self._scale.replicas(tick, proposal)
        wanted = self._demand * self._policy.headroom
        forecast = demand_proposal(wanted, self._per_replica, tick.replicas, self._policy.behaviour)
        return self._scale.replicas(tick, proposal, forecast)

    def _demand_a_season_ago(self, step: int) -> float | None:
        begin = self._history.past_steps + step - self._season
        seen = self._history.values[max(begin, 0) : max(begin + self._window, 0)]
        known = seen[~np.isnan(seen)]
        return float(known.max()) if known.size else None
