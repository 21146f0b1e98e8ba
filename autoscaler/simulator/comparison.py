"""Policies compared at equal violations: what each costs where its knob is set so that it violates equally often.

A policy has a knob, such as its target utilisation; each setting is one point of cost and violation share, and those
that no other beats in both are its front. Between two neighbouring settings of the front cost is linear: so much is
what the two cost when each has its part of the time. Where even the most careful setting violates more often than
asked, the policy does not reach the share and has no cost there; where even the cheapest violates less, its cost is
taken.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from autoscaler.simulator.outcome import ReplayError, WorkloadOutcome
from models.forecast import FloatArray
from predictor.backtest.resampling import (
    Estimate,
    geometric_mean_of_known,
    median_of_known,
    resampled,
)

VIOLATION_SHARES = (0.001, 0.005, 0.01)
"""Of the time, at which policies are compared."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One policy with one setting of its knob on every workload."""

    policy: str
    knob: float | None
    """None: the policy has none."""
    outcomes: tuple[WorkloadOutcome, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """What one setting costs and how often it violates."""

    knob: float | None
    core_hours: float
    violation_share: float


@dataclass(frozen=True, slots=True)
class AtShare:
    """One policy at one violation share."""

    violation_share: float
    fleet_core_hours: float | None
    """Of all workloads together, with one setting for all of them; None: not reached."""
    reached: int
    """In how many workloads the policy reaches the share, with a setting for each; the figures below are over those."""
    over_oracle: Estimate
    """Cost ÷ the oracle's: geometric mean over the workloads, each with its best setting."""
    median_over_oracle: Estimate
    over_peer: Estimate
    """Cost ÷ that of the best reactive peer in the same workload: geometric mean."""
    gap_closed: Estimate
    """(the best peer's cost − its own) ÷ (the best peer's − the oracle's): median. 1 is as cheap as the oracle, which
    never violates: a policy that may can be above."""


@dataclass(frozen=True, slots=True)
class PolicyComparison:
    """One policy: its front over all workloads together, and how it stands at each violation share."""

    policy: str
    points: tuple[Point, ...]
    front: tuple[Point, ...]
    at: tuple[AtShare, ...]


@dataclass(frozen=True, slots=True)
class WorkloadComparison:
    """One workload at one violation share."""

    workload: str
    violation_share: float
    core_hours: Mapping[str, float | None]
    """By policy; None: not reached."""
    oracle_core_hours: float
    best_peer: str | None
    """The reactive policy that is cheapest here; None: none reaches the share."""
    gap_closed: Mapping[str, float | None]
    """By policy; None: not reached, or there is nothing between the best peer and the oracle."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Policies in the order of their trials; workloads share by share in the order of the outcomes."""

    policies: tuple[PolicyComparison, ...]
    workloads: tuple[WorkloadComparison, ...]

    def of(self, policy: str) -> PolicyComparison:
        """One policy's."""
        return next(each for each in self.policies if each.policy == policy)

    def lost_first(self, policy: str, violation_share: float) -> tuple[WorkloadComparison, ...]:
        """Workloads at one share, those first in which the policy does not reach it, then by the gap it closes least.

        Where there is no gap to close come last.
        """

        def order(each: WorkloadComparison) -> float:
            gap = each.gap_closed[policy]
            return -np.inf if each.core_hours[policy] is None else np.inf if gap is None else gap

        return tuple(sorted((w for w in self.workloads if w.violation_share == violation_share), key=order))


def pareto_front(points: Iterable[Point]) -> tuple[Point, ...]:
    """The points that no other beats in cost and in violations, from the cheapest to that which violates least."""
    front: list[Point] = []
    for point in sorted(points, key=lambda each: (each.core_hours, each.violation_share)):
        if not front or point.violation_share < front[-1].violation_share:
            front.append(point)
    return tuple(front)


def cost_at(front: Sequence[Point], violation_share: float) -> float | None:
    """Core-hours at which a front violates for so large a share of time; None: every setting violates more often."""
    if not front or front[-1].violation_share > violation_share:
        return None
    if front[0].violation_share <= violation_share:
        return front[0].core_hours
    cheap, careful = next(pair for pair in pairwise(front) if pair[1].violation_share <= violation_share)
    part = (cheap.violation_share - violation_share) / (cheap.violation_share - careful.violation_share)
    return cheap.core_hours + part * (careful.core_hours - cheap.core_hours)


def compared(
    trials: Sequence[Trial],
    oracle: Sequence[WorkloadOutcome],
    *,
    reactive: Collection[str],
    rng: np.random.Generator,
    violation_shares: Sequence[float] = VIOLATION_SHARES,
) -> Comparison:
    """Every policy of the trials at each violation share, against the oracle and the best of the `reactive` ones.

    Intervals are over workloads. Raises ReplayError where a trial is of other workloads than the oracle.
    """
    names = tuple(each.workload for each in oracle)
    for trial in trials:
        if tuple(each.workload for each in trial.outcomes) != names:
            raise ReplayError(f"{trial.policy} at {trial.knob}: its workloads are not those of the oracle, in order")
    if not names:
        raise ReplayError("nothing to compare: the oracle has no workloads")
    policies = tuple(dict.fromkeys(trial.policy for trial in trials))
    by_policy = {policy: [trial for trial in trials if trial.policy == policy] for policy in policies}
    points = {policy: tuple(map(_fleet_point, by_policy[policy])) for policy in policies}
    fleet_fronts = {policy: pareto_front(points[policy]) for policy in policies}
    fronts = {policy: [_front(by_policy[policy], row) for row in range(len(names))] for policy in policies}
    bound = np.array([each.core_hours for each in oracle])
    drawn = resampled(len(names), rng)

    workloads: list[WorkloadComparison] = []
    at: dict[str, list[AtShare]] = {policy: [] for policy in policies}
    for share in violation_shares:
        costs = {policy: _costs(fronts[policy], share) for policy in policies}
        peers = [policy for policy in policies if policy in reactive]
        best = np.min([costs[peer] for peer in peers], axis=0, initial=np.inf)
        gaps = {policy: _gap_closed(costs[policy], best, bound) for policy in policies}
        for policy in policies:
            over_oracle = _ratio(costs[policy], bound)
            at[policy].append(
                AtShare(
                    share,
                    cost_at(fleet_fronts[policy], share),
                    int(np.isfinite(costs[policy]).sum()),
                    over_oracle=geometric_mean_of_known(over_oracle, drawn),
                    median_over_oracle=median_of_known(over_oracle, drawn),
                    over_peer=geometric_mean_of_known(_ratio(costs[policy], best), drawn),
                    gap_closed=median_of_known(gaps[policy], drawn),
                )
            )
        for row, name in enumerate(names):
            workloads.append(
                WorkloadComparison(
                    name,
                    share,
                    {policy: _or_none(costs[policy][row]) for policy in policies},
                    float(bound[row]),
                    min(peers, key=lambda peer: costs[peer][row]) if np.isfinite(best[row]) else None,
                    {policy: _or_none(gaps[policy][row]) for policy in policies},
                )
            )
    return Comparison(
        tuple(PolicyComparison(each, points[each], fleet_fronts[each], tuple(at[each])) for each in policies),
        tuple(workloads),
    )


def _fleet_point(trial: Trial) -> Point:
    known = sum(each.known_minutes for each in trial.outcomes)
    violated = sum(each.violation_minutes for each in trial.outcomes)
    cores = sum(each.core_hours for each in trial.outcomes)
    return Point(trial.knob, cores, violated / known if known > 0 else 0.0)


def _front(trials: Sequence[Trial], row: int) -> tuple[Point, ...]:
    outcomes = [(trial.knob, trial.outcomes[row]) for trial in trials]
    return pareto_front(Point(knob, each.core_hours, each.violation_share) for knob, each in outcomes)


def _costs(fronts: Sequence[Sequence[Point]], share: float) -> FloatArray:
    """Cost at the share, [workloads]; infinity where it is not reached."""
    costs = [cost_at(front, share) for front in fronts]
    return np.array([np.inf if each is None else each for each in costs])


def _ratio(over: FloatArray, under: FloatArray) -> FloatArray:
    """NaN where either is not reached or nothing."""
    usable = np.isfinite(over) & np.isfinite(under) & (over > 0) & (under > 0)
    ratio: FloatArray = np.divide(over, under, out=np.full(over.shape, np.nan), where=usable)
    return ratio


def _gap_closed(cost: FloatArray, best: FloatArray, bound: FloatArray) -> FloatArray:
    """NaN where either is not reached, or the best peer costs no more than the oracle."""
    reached = np.isfinite(cost) & np.isfinite(best)
    cost, best = np.where(reached, cost, 0.0), np.where(reached, best, 0.0)
    usable = reached & (best - bound > 1e-9 * bound)
    closed: FloatArray = np.divide(best - cost, best - bound, out=np.full(cost.shape, np.nan), where=usable)
    return closed


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
