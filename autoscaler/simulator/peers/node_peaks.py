"""How others foretell the peak of a node's total usage, to be replayed beside foresize.

Sources: googleinterns/cluster-resource-forecast, the simulator beside Bashir et al., "Take it to the limit: peak
prediction-driven resource overcommitment in datacenters" (EuroSys 2021), for Borg's default, the RC-like predictor,
N-sigma and the maximum of both; koordinator-sh/koordinator, `prediction` of the koordlet, for its peak predictor;
Rzadca et al., "Autopilot" (EuroSys 2020), for a percentile of the total of three days. All cap usage at limits, and but
for Koordinator count a task with fewer than 24 samples at its limit. What a sample is follows the trace's step.
"""

from collections.abc import Mapping
from math import log
from types import MappingProxyType

import numpy as np

from autoscaler.simulator.node_peaks import NodeSeen, PeakPredictor
from models.forecast import SECONDS_PER_DAY, FloatArray, row_quantiles
from predictor.usage.panel import Resource

BORG_SHARE = 0.9
RC_LEVEL = 0.99
N_SIGMA = 5.0
WEEK_SECONDS = 7 * SECONDS_PER_DAY
TEN_HOURS_SECONDS = 36_000
AUTOPILOT_LEVEL, AUTOPILOT_SECONDS = 0.95, 3 * SECONDS_PER_DAY
KOORDINATOR_MARGIN = 1.10
KOORDINATOR_LEVEL = {Resource.CPU: 0.95, Resource.MEMORY: 0.98}
KOORDINATOR_HALF_LIFE_SECONDS = {Resource.CPU: 12 * 3600, Resource.MEMORY: 24 * 3600}
KOORDINATOR_FIRST_BUCKET = {Resource.CPU: 0.025, Resource.MEMORY: 5.0 * 2**20}
KOORDINATOR_RATIO = 1.05
KOORDINATOR_COLD_SECONDS = SECONDS_PER_DAY
KOORDINATOR_REMEMBERED_SECONDS = WEEK_SECONDS
"""Fourteen half-lives of CPU and seven of memory: what is older weighs less than a hundredth."""


def limits(seen: NodeSeen) -> float:
    """No oversubscription: Σ limits."""
    return float(seen.limits.sum(dtype=np.float64))


def borg_default(seen: NodeSeen) -> float:
    """A fixed share of Σ limits."""
    return BORG_SHARE * limits(seen)


def rc_like(seconds: int) -> PeakPredictor:
    """After Resource Central: the sum of every task's own 99th percentile over the last so many seconds."""

    def peak(seen: NodeSeen) -> float:
        cold = seen.is_cold
        own = row_quantiles(seen.last(seconds)[~cold], np.array([RC_LEVEL]))[:, 0]
        return float(np.nansum(own) + seen.limits[cold].sum(dtype=np.float64))

    return peak


def n_sigma(seconds: int) -> PeakPredictor:
    """Mean and five sample standard deviations of Σ usage ÷ Σ limits over the last so many seconds.

    At each step of the tasks that have a sample there; no more than all their limits.
    """

    def peak(seen: NodeSeen) -> float:
        cold = seen.is_cold
        warm_limits = seen.limits[~cold]
        ratio = _known_ratio(seen.last(seconds)[~cold], warm_limits)
        share = min(1.0, float(ratio.mean() + N_SIGMA * ratio.std(ddof=1))) if len(ratio) > 1 else 1.0
        return share * float(warm_limits.sum(dtype=np.float64)) + float(seen.limits[cold].sum(dtype=np.float64))

    return peak


def greater_of(*predictors: PeakPredictor) -> PeakPredictor:
    """The highest of what several foretell: with N-sigma and RC-like the paper's choice for production."""
    return lambda seen: max(predictor(seen) for predictor in predictors)


def running_maximum(seen: NodeSeen) -> float:
    """The highest total of the last seven days."""
    cold = seen.is_cold
    return _highest_total(seen.last(WEEK_SECONDS)[~cold]) + float(seen.limits[cold].sum(dtype=np.float64))


def autopilot(seen: NodeSeen) -> float:
    """The 95th percentile of the total of three days, as Autopilot scales a serving job horizontally; no margin."""
    cold = seen.is_cold
    total = _totals(seen.last(AUTOPILOT_SECONDS)[~cold])
    level = row_quantiles(total[None], np.array([AUTOPILOT_LEVEL]))[0, 0]
    return float(np.nan_to_num(level) + seen.limits[cold].sum(dtype=np.float64))


def koordinator(seen: NodeSeen) -> float:
    """What Koordinator's predictor leaves to production pods: Σ requests less what it reclaims of them.

    With P a percentile of a histogram in which samples fade, p95 of CPU and p98 of memory:
        max( Σ min(request, 1.1 P of the pod) + Σ requests of pods younger than a day,  min(Σ requests, 1.1 P of all) )
    Requests are taken for the limits here, all pods for production ones, the system's own usage for none.
    """
    usage = seen.last(KOORDINATOR_REMEMBERED_SECONDS)
    is_young = np.count_nonzero(~np.isnan(seen.usage), axis=1) * seen.step_seconds <= KOORDINATOR_COLD_SECONDS
    pods = KOORDINATOR_MARGIN * _faded_percentile(usage[~is_young], seen)
    one_by_one = np.minimum(pods, seen.limits[~is_young]).sum() + seen.limits[is_young].sum(dtype=np.float64)
    together = KOORDINATOR_MARGIN * _faded_percentile(_totals(usage)[None], seen)[0]
    return float(max(one_by_one, min(together, limits(seen))))


PEERS: Mapping[str, PeakPredictor] = MappingProxyType(
    {
        "limits": limits,
        "borg_default": borg_default,
        "rc_like_p99_7d": rc_like(WEEK_SECONDS),
        "rc_like_p99_10h": rc_like(TEN_HOURS_SECONDS),
        "n_sigma_5_7d": n_sigma(WEEK_SECONDS),
        "n_sigma_5_10h": n_sigma(TEN_HOURS_SECONDS),
        "max_n_sigma_rc_7d": greater_of(n_sigma(WEEK_SECONDS), rc_like(WEEK_SECONDS)),
        "max_n_sigma_rc_10h": greater_of(n_sigma(TEN_HOURS_SECONDS), rc_like(TEN_HOURS_SECONDS)),
        "koordinator": koordinator,
        "autopilot_p95_3d": autopilot,
        "running_maximum_7d": running_maximum,
    }
)
"""All of them, by the name that tables show."""


def predicts(name: str, resource: Resource) -> bool:
    """Whether a peer has an answer for a resource: Koordinator predicts CPU and memory only."""
    return name != "koordinator" or resource in KOORDINATOR_LEVEL


def _totals(usage: FloatArray) -> FloatArray:
    """Σ usage of the tasks with a sample, [steps]; NaN where none has one."""
    is_known = ~np.isnan(usage)
    return np.asarray(np.where(is_known.any(axis=0), np.where(is_known, usage, 0).sum(axis=0), np.nan))


def _highest_total(usage: FloatArray) -> float:
    total = _totals(usage)
    return float(np.fmax.reduce(total)) if len(usage) and not np.isnan(total).all() else 0.0


def _known_ratio(usage: FloatArray, limits_of: FloatArray) -> FloatArray:
    """Σ usage ÷ Σ limits over the tasks with a sample at each step where any has one, [steps]."""
    is_known = ~np.isnan(usage)
    granted = np.where(is_known, limits_of[:, None], 0).sum(axis=0)
    total = np.where(is_known, usage, 0).sum(axis=0)
    return np.asarray(total[granted > 0] / granted[granted > 0], dtype=np.float64)


def _faded_percentile(usage: FloatArray, seen: NodeSeen) -> FloatArray:
    """The end of the bucket up to which the percentile's share of the faded weight lies, [rows]; 0 without samples."""
    rows, steps = usage.shape
    first = KOORDINATOR_FIRST_BUCKET[seen.resource]
    growth = KOORDINATOR_RATIO - 1
    is_known = ~np.isnan(usage)
    values = np.where(is_known, usage, 0.0)
    bucket = (np.log1p(values * growth / first) / log(KOORDINATOR_RATIO)).astype(np.int64)
    count = int(bucket.max(initial=0)) + 1
    age = np.arange(steps - 1, -1, -1) * seen.step_seconds
    weight = np.where(is_known, 0.5 ** (age / KOORDINATOR_HALF_LIFE_SECONDS[seen.resource]), 0.0)
    place = bucket + np.arange(rows)[:, None] * count
    weights = np.bincount(place.ravel(), weight.ravel(), minlength=rows * count).reshape(rows, count)
    cumulative = np.cumsum(weights, axis=1)
    total = cumulative[:, -1:]
    reached = np.argmax(cumulative >= KOORDINATOR_LEVEL[seen.resource] * total, axis=1)
    end = first * (KOORDINATOR_RATIO ** (reached + 1.0) - 1) / growth
    return np.asarray(np.where(total[:, 0] > 0, end, 0.0))
