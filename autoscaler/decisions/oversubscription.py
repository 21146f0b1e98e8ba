"""How much more than its allocatable may be requested on a node pool: as much as the predicted peak allows.

What counts is the quantile of the *maximum over the horizon of the sum* of usages, each capped at its limit. The sum
of every task's own quantile overstates it (peaks seldom coincide), the maximum of each step's quantile understates it
(one of many steps is exceeded far more often than a given one). It is estimated from what the sum really did: one
maximum per past block of one horizon, aligned on the same instants, so that the dependence between tasks and between
steps is the true one. Method: the 24-hour peak of EuroSys'21 "Take it to the limit", with a split-conformal quantile
in place of a percentile plus margin. A pool is treated as one large node: that pods fit the single nodes is the
scheduler's part.
"""

from dataclasses import dataclass
from math import ceil, inf, log, pi, sqrt

import numpy as np

from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from models.forecast import FloatArray
from models.node_peak import COLD_SAMPLES, LEAST_BLOCKS, SEEN_SHARE, capped_totals

SMALLEST_SCALE = 0.05
"""Least spread of block maxima that is believed, as a share of the highest, where the level must be extrapolated."""


@dataclass(frozen=True, slots=True)
class PeakEstimate:
    """A quantile of the highest total usage within one horizon, in the resource's base unit."""

    value: float
    level: float
    blocks: int
    """Past horizons it rests on."""
    is_extrapolated: bool
    """Whether the blocks are too few for the level, so that the highest of them was widened."""
    cold_tasks: int
    """Tasks counted at their limit or request."""
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class RateDecision:
    """The oversubscription ratio of one pool and resource, and what it rests on, in base units."""

    ratio: float
    """Requests allowed ÷ allocatable; 1.0 is no oversubscription."""
    predicted_peak: float | Hold
    requested: float
    allocatable: float
    reasons: tuple[Reason, ...]

    @property
    def sellable(self) -> float:
        """Requests that may be admitted in all."""
        return self.ratio * self.allocatable

    @property
    def allowed_usage(self) -> float:
        """Total usage of the present requests at which the pool, sold up to the ratio, would be full."""
        return self.requested / self.ratio


def node_peak_quantile(
    usage: FloatArray,
    limits: FloatArray,
    *,
    level: float,
    horizon_steps: int,
    requests: FloatArray | None = None,
) -> PeakEstimate | Hold:
    """The quantile at `level` of the highest total usage of some tasks within the next `horizon_steps`.

    `usage` is [tasks, steps] in a base unit, ending now, NaN where there is no sample. `limits` is [tasks], or
    [tasks, steps] where they changed; NaN or infinite is no limit. `requests` is [tasks] and stands in for a missing
    limit of a cold task. The newest whole blocks of `horizon_steps` are used.

    total(t) = Σ_i min(usage_i(t), limit_i(t)) ;  M_b = max of total over block b, b = 1…n
    With k = ceil((n + 1) · level) ≤ n the answer is the k-th smallest M: the next block stays under it with
    probability ≥ level if blocks are exchangeable (split conformal). Otherwise n blocks cannot support the level, and
    the highest is widened along an exponential tail,
        max M + scale · ln( 1 / ((n + 1)(1 − level)) ),  scale = max(√6/π · sd(M), 5 % of max M)   (Gumbel),
    but never beyond Σ limits where every task has one. A missing sample of a warm task counts as in `capped_totals`; a
    cold task counts at its limit, else its request, throughout. Hold where there are fewer than 7 blocks, or a cold
    task has neither.
    """
    steps = usage.shape[1] if usage.ndim == 2 else 0
    blocks = steps // horizon_steps
    if usage.ndim != 2 or usage.shape[0] == 0 or blocks < LEAST_BLOCKS:
        return _no_evidence(f"{blocks} past horizons of usage, need {LEAST_BLOCKS}: nothing is oversold")
    limit_steps = np.broadcast_to(limits[:, None] if limits.ndim == 1 else limits, usage.shape)
    bounds = np.where(np.isnan(limit_steps), inf, limit_steps)
    cold = np.count_nonzero(~np.isnan(usage), axis=1) < COLD_SAMPLES
    reserved = _reserved_for_cold(bounds[cold, -1], None if requests is None else requests[cold])
    if isinstance(reserved, Hold):
        return reserved
    totals = capped_totals(
        usage[~cold, -blocks * horizon_steps :], bounds[~cold, -blocks * horizon_steps :], horizon_steps
    )
    seen = np.count_nonzero(~np.isnan(totals), axis=1) >= horizon_steps * SEEN_SHARE
    maxima = np.sort(np.fmax.reduce(totals[seen], axis=1)) + reserved
    blocks = len(maxima)
    if blocks < LEAST_BLOCKS:
        return _no_evidence(f"{blocks} past horizons with samples, need {LEAST_BLOCKS}: nothing is oversold")
    reasons: list[Reason] = []
    cold_tasks = int(cold.sum())
    if cold_tasks:
        reasons.append(Reason(ReasonCode.COLD_WORKLOADS, f"{cold_tasks} cold workloads count at their limit"))
    rank = ceil((blocks + 1) * level * (1 - 1e-12))
    if rank <= blocks:
        return PeakEstimate(float(maxima[rank - 1]), level, blocks, False, cold_tasks, tuple(reasons))
    highest = float(maxima[-1])
    scale = max(sqrt(6) / pi * float(maxima.std(ddof=1)), SMALLEST_SCALE * highest)
    ceiling = float(bounds.max(axis=1).sum())
    value = max(highest, min(highest + scale * log(1 / ((blocks + 1) * (1 - level))), ceiling))
    reasons.append(
        Reason(
            ReasonCode.LEVEL_NOT_SUPPORTED,
            f"{blocks} past horizons cannot support level {level:g}: the highest peak was widened by "
            f"{(value / highest - 1) if highest > 0 else 0:.1%}",
        )
    )
    return PeakEstimate(value, level, blocks, True, cold_tasks, tuple(reasons))


def oversubscription_ratio(
    peak: PeakEstimate | Hold, *, requested: float, allocatable: float, max_ratio: float
) -> RateDecision:
    """The largest ratio of requests to allocatable at which selling more of the same mix keeps the peak within it.

    A mix that requests R and peaks at P, scaled by s, peaks at s·P ≤ allocatable for s = allocatable / P; it then
    requests s·R, so the ratio is R / P, within [1, max_ratio]. That is on the safe side: more independent tasks of
    the same kind peak at less than s·P. All amounts in the resource's base unit.
    """
    if isinstance(peak, Hold):
        return RateDecision(1.0, peak, requested, allocatable, (peak.reason,))
    reasons = peak.reasons
    if not requested > 0:
        hold = _no_evidence("nothing is requested, so there is nothing to learn from: nothing is oversold")
        return RateDecision(1.0, hold, requested, allocatable, (*reasons, hold.reason))
    ratio = requested / peak.value if peak.value > 0 else inf
    shares = f"the peak predicted at level {peak.level:g} is {peak.value / requested:.1%} of what is requested"
    if ratio < 1.0:
        reason = Reason(ReasonCode.PEAK_ABOVE_REQUESTS, f"{shares}: more than that, so nothing is oversold")
    elif ratio > max_ratio:
        reason = Reason(ReasonCode.MAX_RATIO, f"{shares}: {ratio:.3g} would fit, the maximum is {max_ratio:g}")
    else:
        reason = Reason(ReasonCode.PREDICTED_PEAK, f"{shares}: {ratio:.3g} times the allocatable may be requested")
    return RateDecision(min(max(ratio, 1.0), max_ratio), peak.value, requested, allocatable, (*reasons, reason))


def _reserved_for_cold(limits: FloatArray, requests: FloatArray | None) -> float | Hold:
    amounts = limits if requests is None else np.where(np.isfinite(limits), limits, requests)
    if not np.isfinite(amounts).all():
        return _no_evidence("a cold workload has neither limit nor request: nothing is oversold")
    return float(amounts.sum())


def _no_evidence(message: str) -> Hold:
    return Hold(Reason(ReasonCode.NO_EVIDENCE, message))
