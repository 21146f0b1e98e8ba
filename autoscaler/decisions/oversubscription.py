"""How much more than its allocatable may be requested on a node pool: as much as the predicted peak allows.

The peak is told as a node's is (`models.node_peak`): a pool counts as one large node. That pods fit the single nodes is
the scheduler's part.
"""

from dataclasses import dataclass
from math import inf

import numpy as np

from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from models.forecast import FloatArray, ForecastError, last_samples
from models.node_peak import NoPeak, node_past

ROUNDING = 1e-9


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
    [tasks, steps], of which the newest known are in force; NaN or infinite is no limit. `requests` is [tasks] and
    stands in for a missing limit of a cold task. How it is told: `models.node_peak`. Hold where that has no answer.
    Raises ForecastError for arrays that do not match, a level outside (0, 1), usage that is negative or infinite, and
    negative limits or requests.
    """
    if usage.ndim != 2 or limits.ndim not in (1, 2):
        raise ForecastError(f"needed: usage [tasks, steps] and limits [tasks]; got {usage.shape} and {limits.shape}")
    if not 0 < level < 1:
        raise ForecastError(f"a quantile level must lie inside (0, 1), got {level}")
    if usage.size == 0:
        return _no_evidence("no usage is known: nothing is oversold")
    in_force = limits if limits.ndim == 1 else last_samples(limits)
    if requests is not None and requests.shape != usage.shape[:1]:
        raise ForecastError(f"needed: requests [tasks], of {usage.shape[0]} tasks; got {requests.shape}")
    for name, amounts in (("usage", usage), ("limits", in_force), ("requests", requests)):
        if amounts is not None and (lowest := np.fmin.reduce(amounts, axis=None)) < 0:
            raise ForecastError(f"{name} cannot be negative, got {lowest:g}")
    if np.isinf(np.fmax.reduce(usage, axis=None)):
        raise ForecastError("usage cannot be infinite; NaN is no sample")
    past = node_past(usage, in_force, horizon_steps, requests)
    if isinstance(past, NoPeak):
        return _no_evidence(past.reason)
    reasons: list[Reason] = []
    if past.cold_tasks:
        reasons.append(Reason(ReasonCode.COLD_WORKLOADS, f"{past.cold_tasks} cold workloads count at their limit"))
    maxima, blocks = past.maxima, len(past.maxima)
    value = float(past.quantiles([1 - level])[0])
    is_extrapolated = (blocks + 1) * (1 - level) < 1 - ROUNDING
    if is_extrapolated:
        highest = float(maxima[-1]) + past.reserved
        text = f"the highest peak was widened by {(value / highest - 1) if highest > 0 else 0:.1%}"
        words = f"{blocks} past horizons cannot support level {level:g}: {text}"
        reasons.append(Reason(ReasonCode.LEVEL_NOT_SUPPORTED, words))
    return PeakEstimate(value, level, blocks, is_extrapolated, past.cold_tasks, tuple(reasons))


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


def _no_evidence(message: str) -> Hold:
    return Hold(Reason(ReasonCode.NO_EVIDENCE, message))
