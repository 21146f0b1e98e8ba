"""Replays held-out days of a node pool: each day's ratio comes from the past only, then usage shows what it cost."""

from dataclasses import dataclass

import numpy as np

from autoscaler.cluster.capacity import ROUNDING
from autoscaler.cluster.pools import PoolHistory
from autoscaler.decisions.oversubscription import (
    RateDecision,
    node_peak_quantile,
    oversubscription_ratio,
)
from autoscaler.simulator.outcome import ReplayError
from models.forecast import FloatArray
from models.node_peak import capped_totals
from predictor.usage.panel import Resource


@dataclass(frozen=True, slots=True)
class DayOutcome:
    """One held-out horizon."""

    first_step: int
    """Where it begins in the history."""
    rate: RateDecision
    actual_peak: float
    """Highest total usage of the day of the tasks that ran at its beginning, each capped at its limit."""
    violated_steps: int
    """Measured steps at which the pool, sold up to the ratio with the same mix, would have exceeded its allocatable."""
    steps: int
    """Measured steps."""

    @property
    def is_oversold(self) -> bool:
        """Whether more than the allocatable was sold; what is not oversold cannot be violated by overselling."""
        return self.rate.ratio > 1.0

    @property
    def severity(self) -> float:
        """Share of the day's highest usage that would not have fitted; 0 without a violation."""
        if self.violated_steps == 0:
            return 0.0
        return (self.actual_peak - self.rate.allowed_usage) / self.actual_peak

    @property
    def savings(self) -> float:
        """Share of the requests that were freed: 1 − 1 / ratio."""
        return 1.0 - 1.0 / self.rate.ratio

    @property
    def oracle_ratio(self) -> float:
        """The largest ratio without a violation on this day, had its peak been known; without any maximum."""
        return max(1.0, self.rate.requested / self.actual_peak) if self.actual_peak > 0 else np.inf

    @property
    def oracle_savings(self) -> float:
        """Savings of the oracle ratio."""
        return 1.0 - 1.0 / self.oracle_ratio


@dataclass(frozen=True, slots=True)
class OversubscriptionReplay:
    """Every held-out day of one pool and resource on which anything was measured."""

    pool: str
    resource: Resource
    level: float
    days: tuple[DayOutcome, ...]
    total_usage: FloatArray
    """Total usage at each held-out step, [days × steps], for plots; NaN where nothing was measured."""

    @property
    def violated_day_share(self) -> float:
        """Share of days with at least one violated step; to be compared with 1 − level."""
        return sum(day.violated_steps > 0 for day in self.days) / len(self.days)

    @property
    def violated_step_share(self) -> float:
        """Share of steps that were violated."""
        return sum(day.violated_steps for day in self.days) / sum(day.steps for day in self.days)

    @property
    def worst_severity(self) -> float:
        """The worst day's severity."""
        return max(day.severity for day in self.days)

    @property
    def mean_ratio(self) -> float:
        """Mean of the days' ratios."""
        return sum(day.rate.ratio for day in self.days) / len(self.days)

    @property
    def mean_savings(self) -> float:
        """Mean of the days' savings."""
        return sum(day.savings for day in self.days) / len(self.days)

    @property
    def mean_oracle_savings(self) -> float:
        """Mean of what an oracle would have saved without a violation."""
        return sum(day.oracle_savings for day in self.days) / len(self.days)


def replay_oversubscription(
    history: PoolHistory, *, level: float, horizon_steps: int, held_out: int, max_ratio: float
) -> OversubscriptionReplay:
    """The last `held_out` horizons of a pool's history, each decided at its beginning from everything before it.

    A day is decided and judged for the tasks that had a sample in the horizon before it, with the requests in force in
    its first step; a sample missing later that day counts as the task's highest of the day. Usage above the requests
    on a day on which nothing was oversold is not counted. Raises ReplayError where no day is held out or the history
    is shorter than that.
    """
    usage = history.usage
    if usage.ndim != 2 or held_out < 1 or usage.shape[1] < held_out * horizon_steps:
        raise ReplayError(
            f"pool {history.pool!r}: usage is {usage.shape}, needed: [tasks, steps] with at least "
            f"{max(held_out, 1)} × {horizon_steps} steps to hold out"
        )
    limits = _by_step(history.limits, usage.shape)
    requests = _by_step(history.requests, usage.shape)
    begin = usage.shape[1] - held_out * horizon_steps
    bounds = np.where(np.isnan(limits), np.inf, limits)
    days, totals = [], []
    for now in range(begin, usage.shape[1], horizon_steps):
        runs = ~np.isnan(usage[:, max(0, now - horizon_steps) : now]).all(axis=1)
        if not runs.any():
            totals.append(np.full(horizon_steps, np.nan))
            continue
        day = slice(now, now + horizon_steps)
        total = capped_totals(usage[runs, day], bounds[runs, day], horizon_steps)[0]
        seen = int(np.count_nonzero(~np.isnan(total)))
        requests_now = requests[runs, now]
        peak = node_peak_quantile(
            usage[runs, :now], limits[runs, :now], level=level, horizon_steps=horizon_steps, requests=requests_now
        )
        rate = oversubscription_ratio(
            peak, requested=float(np.nansum(requests_now)), allocatable=history.allocatable, max_ratio=max_ratio
        )
        over = total > rate.allowed_usage * (1 + ROUNDING)
        violated = int(np.count_nonzero(over)) if rate.ratio > 1.0 else 0
        totals.append(total)
        if seen:
            days.append(DayOutcome(now, rate, float(np.fmax.reduce(total)), violated, seen))
    if not days:
        raise ReplayError(f"pool {history.pool!r}: nothing was measured on any of the {held_out} days held out")
    return OversubscriptionReplay(history.pool, history.resource, level, tuple(days), np.concatenate(totals))


def _by_step(values: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    return np.asarray(np.broadcast_to(values[:, None] if values.ndim == 1 else values, shape), dtype=np.float64)
