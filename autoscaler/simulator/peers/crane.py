"""Crane's EffectiveHorizontalPodAutoscaler (EHPA): the HPA, with a DSP forecast as one more metric.

Source: gocrane/crane pkg/ehpa and pkg/prediction/dsp (`dsp.py` has the forecast and its traps). The HPA takes the
larger of its reading of CPU and of the highest demand that is forecast within the prediction window.
"""

from dataclasses import dataclass

import numpy as np

from autoscaler.decisions.guardrails import HPA_BEHAVIOUR, Behaviour
from autoscaler.simulator.outcome import SECONDS_PER_HOUR, ReplayError, ReplaySettings, ReplayWorkload
from autoscaler.simulator.peers.dsp import PeriodForecast, dsp_forecast
from autoscaler.simulator.peers.history import StepHistory, past_of
from autoscaler.simulator.peers.reactive import CpuMetric, GuardedScale, amount_per_replica, demand_proposal
from autoscaler.simulator.policies import Run, Tick
from models.forecast import SECONDS_PER_DAY, FloatArray

HISTORY_SECONDS = 15 * SECONDS_PER_DAY + SECONDS_PER_HOUR
REFRESHED_AFTER_SECONDS = 12 * SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class CraneEhpaPolicy:
    """The HPA on CPU and on Crane's forecast. Without a daily or weekly period there is no forecast."""

    past: FloatArray
    """Demand before the replay, [workloads, steps]; NaN is unknown."""
    target_utilisation: float | None = None
    """None: the workload's own target."""
    prediction_window_seconds: float = 3600.0
    """The metric is the highest demand forecast within it."""
    is_folded: bool = False
    """Whether frequencies are folded, as intended; as shipped they are not."""
    seed: int = 0
    """Of the permutations that tell a period from chance."""
    behaviour: Behaviour = HPA_BEHAVIOUR
    name: str = "crane_ehpa"

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> Run:
        """A fresh run. Raises ReplayError where steps do not divide an hour."""
        if SECONDS_PER_HOUR % settings.step_seconds:
            raise ReplayError(f"{self.name}: it needs steps that divide an hour, not of {settings.step_seconds} s")
        return _CraneRun(self, past_of(self.past, row, self.name), row, workload, settings)


class _CraneRun:
    def __init__(
        self, policy: CraneEhpaPolicy, past: FloatArray, row: int, workload: ReplayWorkload, settings: ReplaySettings
    ) -> None:
        self._policy = policy
        self._step_seconds = settings.step_seconds
        self._history = StepHistory(past, settings)
        self._rng = np.random.default_rng([policy.seed, row])
        self._cpu = CpuMetric(workload, policy.target_utilisation, policy.behaviour)
        self._scale = GuardedScale(workload, policy.behaviour)
        self._per_replica = amount_per_replica(workload, policy.target_utilisation)
        self._refresh_at_seconds = 0.0
        self._forecast: PeriodForecast | None = None
        self._step = -1
        self._peak = 0.0

    def replicas(self, tick: Tick) -> int:
        """The larger of what CPU and the forecast ask for, after the guardrails."""
        self._history.see(tick)
        if tick.now_seconds >= self._refresh_at_seconds:
            self._refresh_at_seconds += REFRESHED_AFTER_SECONDS
            self._refresh()
            self._step = -1
        proposal = self._cpu.proposal(tick)
        if self._forecast is None:
            return self._scale.replicas(tick, proposal)
        if tick.step != self._step:
            self._step = tick.step
            first = self._history.past_steps + tick.step
            window = int(self._policy.prediction_window_seconds) // self._step_seconds
            self._peak = self._forecast.between(first, first + window)
        forecast = demand_proposal(self._peak, self._per_replica, tick.replicas, self._policy.behaviour)
        return self._scale.replicas(tick, proposal, forecast)

    def _refresh(self) -> None:
        """Looks for a period anew; where there is none any more, there is no forecast."""
        values = self._history.values
        newest = values[-(HISTORY_SECONDS // self._step_seconds) :]
        found = dsp_forecast(newest, self._step_seconds, self._rng, is_folded=self._policy.is_folded)
        dropped = len(values) - len(newest)
        self._forecast = None if found is None else PeriodForecast(found.values, found.begins_after + dropped)
