"""Predictive Horizontal Pod Autoscaler (PHPA): the HPA's own recommendations, extrapolated.

Source: jthomperoo/predictive-horizontal-pod-autoscaler. At every sync it computes what the HPA would recommend, keeps
that in a history, has a model extrapolate the history, and takes the larger of the two; then its stabilisation window
and rate limits hold. A model that has no answer is skipped.
"""

from collections import deque
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Protocol

import numpy as np

from autoscaler.cluster.capacity import Capacity
from autoscaler.cluster.reasons import Hold
from autoscaler.decisions.guardrails import Behaviour, PolicyKind, ScalingPolicy, ScalingRules
from autoscaler.simulator.outcome import ReplaySettings, ReplayWorkload
from autoscaler.simulator.peers.history import past_of
from autoscaler.simulator.peers.reactive import CpuMetric, GuardedScale, amount_per_replica, within_bounds
from autoscaler.simulator.policies import Run, Tick
from models.forecast import FloatArray

PHPA_BEHAVIOUR = Behaviour(
    ScalingRules(0.0, (ScalingPolicy(PolicyKind.PERCENT, 100, 60), ScalingPolicy(PolicyKind.PODS, 4, 60))),
    ScalingRules(300.0, (ScalingPolicy(PolicyKind.PERCENT, 100, 60),)),
)
ROUNDING = 1e-6
"""A forecast this little above a whole number of replicas is taken for it, as sums of floats are not exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhpaLinearPolicy:
    """A straight line through the newest recommendations, read off a look-ahead from now."""

    target_utilisation: float | None = None
    """None: the workload's own target."""
    history_size: int = 6
    """Recommendations that the line goes through; its documentation's examples have 6."""
    per_sync_period: int = 4
    """Syncs from one recommendation that is kept to the next: a minute at 15 s.

    Kept at every one, the line goes up and down with the pods that it ordered itself, which the HPA ignores at first.
    """
    look_ahead_seconds: float | None = None
    """None: the lead time, so that what is ordered now is Ready when it is needed."""
    name: str = "phpa_linear"

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> Run:  # noqa: ARG002 - every policy's
        """A fresh run: its history is minutes long and is its own."""
        ahead = self.look_ahead_seconds
        model = _Linear(self.history_size, settings.pod_ready_seconds if ahead is None else ahead)
        return _PhpaRun(workload, self.target_utilisation, self.per_sync_period, model)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhpaHoltWintersPolicy:
    """Additive Holt-Winters over the recommendations, one of its steps ahead.

    A step is `per_sync_period` syncs, so it looks further ahead only by looking more seldom. Nothing optimises the
    smoothing: its examples have 0.9 thrice. Begins with what the HPA would have recommended for the past.
    """

    past: FloatArray
    """Demand before the replay, [workloads, steps]; NaN is unknown."""
    target_utilisation: float | None = None
    """None: the workload's own target."""
    per_sync_period: int = 240
    """Syncs from one recommendation that is kept, and one fit, to the next: an hour at 15 s."""
    season_length: int = 24
    """Recommendations in a season; a day of hours."""
    stored_seasons: int = 4
    alpha: float = 0.9
    beta: float = 0.9
    gamma: float = 0.9
    name: str = "phpa_holt_winters"

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> Run:
        """A fresh run."""
        past = past_of(self.past, row, self.name)
        every = self.per_sync_period * settings.tick_seconds / settings.step_seconds
        back = np.arange(self.stored_seasons * self.season_length, 0, -1)
        places = len(past) + np.floor(-back * every).astype(int)
        demand = past[places[places >= 0]]
        capacity = Capacity(amount_per_replica(workload, self.target_utilisation))
        replicas = [within_bounds(capacity.replicas_for(each), workload) for each in demand[~np.isnan(demand)].tolist()]
        return _PhpaRun(workload, self.target_utilisation, self.per_sync_period, _HoltWinters(self, replicas))


class _Model(Protocol):
    def keep(self, now_seconds: float, replicas: int) -> None: ...

    def forecast(self, now_seconds: float) -> float | None: ...


class _Linear:
    def __init__(self, history_size: int, look_ahead_seconds: float) -> None:
        self._history: deque[tuple[float, int]] = deque(maxlen=history_size)
        self._look_ahead_seconds = look_ahead_seconds

    def keep(self, now_seconds: float, replicas: int) -> None:
        self._history.append((now_seconds, replicas))

    def forecast(self, now_seconds: float) -> float | None:
        return line_at(self._history, now_seconds + self._look_ahead_seconds) if self._history else None


def line_at(history: deque[tuple[float, int]], at_seconds: float) -> float:
    """The least-squares line through (time in seconds, replicas), at a time; of a single point, its replicas."""
    count = len(history)
    ages = [at_seconds - kept_at for kept_at, _ in history]
    mean_age = sum(ages) / count
    mean_replicas = sum(replicas for _, replicas in history) / count
    spread = sum((age - mean_age) ** 2 for age in ages)
    if spread == 0:
        return mean_replicas
    products = zip(ages, history, strict=True)
    return mean_replicas - mean_age * sum((age - mean_age) * replicas for age, (_, replicas) in products) / spread


class _HoltWinters:
    def __init__(self, policy: PhpaHoltWintersPolicy, replicas: list[int]) -> None:
        self._policy = policy
        kept = policy.stored_seasons * policy.season_length
        self._history: deque[int] = deque(replicas, maxlen=kept)
        self._forecast: float | None = None

    def keep(self, now_seconds: float, replicas: int) -> None:  # noqa: ARG002 - every model's
        self._history.append(replicas)
        self._forecast = holt_winters(np.asarray(self._history, dtype=np.float64), self._policy)

    def forecast(self, now_seconds: float) -> float | None:  # noqa: ARG002 - every model's
        return self._forecast


def holt_winters(series: FloatArray, policy: PhpaHoltWintersPolicy) -> float | None:
    """The next value of a series by additive trend and season, as statsmodels smooths it; None while it is too short.

    Its heuristic beginning needs two seasons, and ten values more than a whole season.
    """
    season = policy.season_length
    if len(series) < max(2 * season, 10 + 2 * (season // 2)):
        return None
    # Heavy, and only the command that replays has it: nobody who runs a controller needs statsmodels.
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    model = ExponentialSmoothing(
        series,
        trend="add",
        seasonal="add",
        seasonal_periods=season,
        damped_trend=False,
        initialization_method="estimated",
    )
    fitted = model.fit(
        smoothing_level=policy.alpha,
        smoothing_trend=policy.beta,
        smoothing_seasonal=policy.gamma,
        optimized=False,
    )
    return float(fitted.forecast(1)[0])


class _PhpaRun:
    def __init__(
        self, workload: ReplayWorkload, target_utilisation: float | None, per_sync_period: int, model: _Model
    ) -> None:
        self._cpu = CpuMetric(workload, target_utilisation, PHPA_BEHAVIOUR)
        self._scale = GuardedScale(workload, PHPA_BEHAVIOUR)
        self._per_sync_period = per_sync_period
        self._model = model
        self._syncs = 0

    def replicas(self, tick: Tick) -> int:
        """The larger of the HPA's and the model's answer, after the guardrails."""
        proposal = self._cpu.proposal(tick)
        due = self._syncs % self._per_sync_period == 0
        self._syncs += 1
        if isinstance(proposal, Hold):
            return self._scale.replicas(tick, proposal)
        if due:
            self._model.keep(tick.now_seconds, proposal)
        forecast = self._model.forecast(tick.now_seconds)
        if forecast is not None and isfinite(forecast):
            proposal = max(proposal, ceil(forecast - ROUNDING))
        return self._scale.replicas(tick, proposal)
