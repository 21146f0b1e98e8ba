"""What a replayed policy is and sees, and foresize as one: it calls the controller's own decision function."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Protocol

from autoscaler.cluster.commands import Decision
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.cluster.snapshot import DemandForecast, ObservedDemand, RemovalLimit, WorkloadSnapshot
from autoscaler.decisions.break_even import BREAK_EVEN_LEVEL, kept_for_later, strictest
from autoscaler.decisions.budget import NO_VIOLATIONS, Budget, BudgetRules, StepVerdict, budget_after, shares_of_rungs
from autoscaler.decisions.guardrails import NO_MEMORY, Recommendation, ReplicaMemory, remembered_scale
from autoscaler.decisions.hpa import CPU_INITIALISATION_SECONDS
from autoscaler.decisions.replicas import ReplicaRules, decide_replicas
from autoscaler.simulator.outcome import ReplayError, ReplaySettings, ReplayWorkload
from models.forecast import FloatArray

_NO_PEAK = Hold(Reason(ReasonCode.NO_FORECAST, "no forecast was made for this step"))


@dataclass(slots=True)
class Tick:
    """What a policy can see at one tick; filled anew for every tick."""

    now_seconds: float = 0.0
    """Since the start of the replay."""
    step: int = 0
    replicas: int = 0
    ready: int = 0
    settled: int = 0
    """Ready for so long that the HPA believes their CPU."""
    usage: float = 0.0
    """Usage of all replicas, mean over the metric window; NaN where it was not measured."""
    offered: float = 0.0
    """Demand that arrived, served or not, over the same window: what a counter of requests shows."""
    usage_per_pod: float = 0.0
    """The same per Ready replica."""
    measured_at_seconds: float = 0.0
    violated: float = nan
    """Share of the newest whole step that was in violation; NaN where demand was not known."""
    violated_until_seconds: float = 0.0
    """When that step ended; 0 before the first."""


class Run(Protocol):
    """One policy at work on one workload; keeps that workload's memory."""

    def replicas(self, tick: Tick) -> int:
        """What to set the replicas to now."""
        ...


class Policy(Protocol):
    """A way to choose replicas."""

    @property
    def name(self) -> str:
        """How it is called in tables."""
        ...

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> Run:
        """A fresh run for the workload in this row of the demand."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ForesizePolicy:
    """The controller's decision function, fed with forecasts that somebody else has made.

    `peaks` is [workloads, steps]: the quantile, at `level`, of the highest demand in the lead window that begins with
    the step, forecast from samples of earlier steps only. It is in force while the step lasts. NaN is no forecast:
    the policy is then reactive.
    """

    peaks: FloatArray
    level: float
    lead_seconds: float
    """Of workloads without one of their own."""
    rules: ReplicaRules
    target_utilisation: float | None = None
    """Share of what replicas carry within the SLO that demand may be at its quantile; None: the workload's own."""
    budget: BudgetRules | None = None
    """Moves the level by the violations that the run meets, as in the controller; None: the level stays."""
    rungs: Mapping[float, FloatArray] = field(default_factory=dict)
    """With a budget: like `peaks`, at each of its rungs."""
    later: FloatArray | None = None
    """Like `peaks`, the median of the highest demand within the break-even window; None: that is the lead window."""
    break_even_seconds: float = 0.0
    forecaster: str = ""
    model_version: str = ""
    name: str = "foresize"

    def __post_init__(self) -> None:
        missing = set() if self.budget is None else {*self.budget.rungs} - self.rungs.keys()
        if missing:
            named = ", ".join(f"{each:g}" for each in sorted(missing))
            raise ReplayError(f"{self.name}: its error budget needs forecasts at the levels {named} as well")

    def start(self, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> "ForesizeRun":
        """A fresh run for the workload in this row of `peaks`."""
        return ForesizeRun(self, row, workload, settings)


class ForesizeRun:
    """Foresize at work on one workload."""

    def __init__(self, policy: ForesizePolicy, row: int, workload: ReplayWorkload, settings: ReplaySettings) -> None:
        self._policy = policy
        self._workload = workload
        target = policy.target_utilisation or workload.target_utilisation
        self._capacity = workload.within_slo.scaled(target)
        self._peaks: list[float] = policy.peaks[row].tolist()
        self._rungs: dict[float, list[float]] = {level: each[row].tolist() for level, each in policy.rungs.items()}
        self._later: list[float] | None = None if policy.later is None else policy.later[row].tolist()
        self._budget: Budget | None = budget_after(NO_VIOLATIONS, (), policy.budget) if policy.budget else None
        self._lead_seconds = policy.lead_seconds if workload.lead_seconds is None else workload.lead_seconds
        self._step_seconds = settings.step_seconds
        self._step = -1
        self._forecast: DemandForecast | Hold = _NO_PEAK
        self._memory: ReplicaMemory = NO_MEMORY
        self._settled: tuple[object, ...] = ()
        self._last_seconds = 0.0
        self.decision: Decision | None = None
        """The last one; of ticks that saw the same as that one, too."""

    def replicas(self, tick: Tick) -> int:
        """What the controller would set the replicas to.

        A decision to leave alone that saw the very same inputs as the one before it is not computed again: only the
        time of the newest recommendation would differ, and that is brought up to date before the next one.
        """
        now = tick.now_seconds
        has_news = self._budget is not None and self._counted(self._budget, tick)
        if tick.step != self._step or has_news:
            self._step = tick.step
            self._forecast = self._forecast_for(tick.step)
        age = now - tick.step * self._step_seconds
        veto = None if self._budget is None else self._budget.veto
        is_stale = age > self._policy.rules.stale_after_seconds
        inputs = (tick.usage, tick.step, tick.replicas, is_stale, self._forecast, veto)
        if inputs == self._settled:
            self._last_seconds = now
            return tick.replicas
        if self._settled:
            self._memory = _watched_until(self._memory, self._last_seconds)
        workload, rules = self._workload, self._policy.rules
        snapshot = WorkloadSnapshot(
            workload.name,
            tick.replicas,
            tick.ready,
            workload.min_replicas,
            workload.max_replicas,
            workload.resource,
            self._capacity,
            ObservedDemand(tick.usage, tick.measured_at_seconds),
            removal=strictest(RemovalLimit(0, veto) if veto is not None else None, self._kept(tick)),
        )
        decision, self._memory = decide_replicas(snapshot, self._forecast, self._memory, rules, now)
        self.decision = decision
        change = decision.desired - tick.replicas
        self._settled = ()
        if change:
            self._memory = remembered_scale(self._memory, change, rules.behaviour, now)
        elif _is_settled(self._memory, tick.replicas):
            self._settled = inputs
            self._last_seconds = now
        return decision.desired

    def _kept(self, tick: Tick) -> RemovalLimit | None:
        if self._later is None or isnan(self._later[tick.step]):
            return None
        policy = self._policy
        later = DemandForecast(
            self._later[tick.step],
            BREAK_EVEN_LEVEL,
            policy.break_even_seconds,
            tick.step * self._step_seconds,
            policy.forecaster,
            policy.model_version,
        )
        return kept_for_later(tick.replicas, self._capacity, later)

    def _counted(self, budget: Budget, tick: Tick) -> bool:
        """Takes the newest whole step into the budget; whether there was one."""
        rules = self._policy.budget
        if rules is None or tick.violated_until_seconds <= budget.memory.until_seconds:
            return False
        violated = None if isnan(tick.violated) else tick.violated
        verdict = StepVerdict(tick.violated_until_seconds, self._step_seconds, violated)
        self._budget = budget_after(budget.memory, (verdict,), rules)
        return True

    def _forecast_for(self, step: int) -> DemandForecast | Hold:
        policy, level, peak = self._policy, self._policy.level, self._peaks[step]
        if self._budget is not None and policy.budget is not None:
            level = self._budget.level
            peak = sum(share * self._rungs[rung][step] for rung, share in shares_of_rungs(policy.budget.rungs, level))
        if isnan(peak):
            return _NO_PEAK
        return DemandForecast(
            peak, level, self._lead_seconds, step * self._step_seconds, policy.forecaster, policy.model_version
        )


def settling_seconds(settings: ReplaySettings) -> float:
    """How long after turning Ready a pod's CPU is ignored by the HPA.

    Until one whole metric window lies after the moment it turned Ready, but no longer than 5 minutes after its start.
    """
    delay = settings.metric_delay_seconds
    until_believed = max(delay, CPU_INITIALISATION_SECONDS - settings.pod_ready_seconds)
    return min(settings.metric_window_seconds + delay, until_believed)


def checked_peaks(policy: Policy, shape: tuple[int, ...]) -> None:
    """Raises ReplayError where a policy's forecasts do not match the demand's shape."""
    if isinstance(policy, ForesizePolicy):
        for peaks in (policy.peaks, *policy.rungs.values(), *(() if policy.later is None else (policy.later,))):
            if peaks.shape != shape:
                raise ReplayError(f"{policy.name}: peaks are {peaks.shape}, but demand is {shape}")


def _is_settled(memory: ReplicaMemory, replicas: int) -> bool:
    return len(memory.highs) == 1 and memory.highs[0].replicas == replicas and len(memory.lows) <= 1


def _watched_until(memory: ReplicaMemory, now_seconds: float) -> ReplicaMemory:
    newest = (Recommendation(now_seconds, memory.highs[0].replicas),)
    return memory._replace(highs=newest, lows=newest if memory.lows else ())
