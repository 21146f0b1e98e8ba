"""Learned capacity of one object: what it is learned from, what of it holds now, what is told and kept of it.

Values in, values out. Kept are the knots of the curve, in the status, so that a new leader goes on from them; a curve
for other terms, another threshold say, is none, and one of another version counts with what versions differ by.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from autoscaler.cluster.reasons import Hold, Reason, ReasonCode, replicas_text
from autoscaler.controller.autoscalers import Indicator, PredictiveAutoscaler, as_time, seconds_of
from autoscaler.controller.policy import NOT_LEARNED, WorkloadPolicy
from autoscaler.controller.ports import TargetWorkload
from autoscaler.decisions.capacity_curve import (
    LEAST_UTILISATION,
    Knot,
    Knots,
    LearnedCurve,
    estimate,
    fewest_kept,
    held_between,
    knots_of,
    knots_of_usage,
    narrowed,
    of_other_version,
    relied_on,
    seen_range,
)
from autoscaler.settings import ScalingSettings
from models.capacity import LoadHistory, Refusal, learned_capacity, learned_usage
from models.forecast import SECONDS_PER_DAY, FloatArray
from predictor.usage.ready import ReadyHistory
from predictor.usage.throttled import ThrottledHistory

JsonObject = dict[str, Any]
WAY_BACK_SECONDS = 14 * SECONDS_PER_DAY
"""Within this what a new version widened is taken back, where it teaches nothing by itself."""
WAY_BACK_PARTS = 28
"""In so many steps: a little more load each half day."""
SAME_LIMIT = 0.01
"""Limits that differ by less, relative, are one."""
DIGITS = 12
"""Of a fingerprint."""


@dataclass(frozen=True, slots=True)
class LearningAnswer:
    """What came of learning once."""

    asked_at_seconds: float
    basis: str
    version: str
    curve: LearnedCurve | Hold


@dataclass(frozen=True, slots=True)
class CapacityStanding:
    """What is relied on now."""

    curve: LearnedCurve | None
    """As it is kept; None where there is none."""
    knots: Knots | None
    """As it is relied on: what another version widened comes back with time."""
    reason: str
    """How it came about, or why it is not newer, or why there is none."""
    request_cores: float | None = None
    """CPU request of a replica where what is learned is how much of it should be used; else None."""


class LatencyQueries(NamedTuple):
    """What to ask to know which requests were late, and what the answers mean."""

    late: str
    """PromQL whose value is the share of requests that were late, or a latency."""
    requests: str
    """PromQL whose value is how many requests a second that is of; empty where it is not known."""
    threshold_seconds: float
    """What is late takes longer."""
    remark: str = ""


# --- what is learned from


@lru_cache(maxsize=10_000)
def basis_of(autoscaler_query: str, resource: str, indicator: Indicator | None, level: float) -> str:
    """Fingerprint of what demand is and what is promised: a curve holds for these alone."""
    told = (autoscaler_query, resource, indicator, level if indicator is not None and indicator.query else 0.0)
    return sha256(repr(told).encode()).hexdigest()[:DIGITS]


def queries_of(indicator: Indicator, bounds: Iterable[str], window_seconds: int) -> LatencyQueries | Hold:
    """What to ask of an indicator; `bounds` are those of its histogram's buckets, as Prometheus writes them.

    Late is what takes longer than the threshold or, where that is no bound, than the next bound above it.
    """
    if indicator.query:
        remark = "by a latency alone: a step is late as a whole or not at all"
        return LatencyQueries(indicator.query, "", indicator.bound, remark)
    known: dict[float, list[str]] = {}
    for text in bounds:
        known.setdefault(float(text), []).append(text)
    above = [bound for bound in known if isfinite(bound) and bound >= indicator.bound * (1 - 1e-9)]
    shown = f"the histogram {indicator.histogram}"
    if not known:
        return _not_learned(f"{shown} has no buckets in the object's namespace")
    if not above:
        text = f"{shown} has no bucket that ends at or above the threshold of {indicator.bound:g} s; add one there"
        return _not_learned(text)
    bound = min(above)
    name, _, matchers = indicator.histogram.rstrip("}").partition("{")
    name, inner = name.strip(), matchers.strip().rstrip(",")
    written = "|".join(each.replace(".", "\\\\.").replace("+", "\\\\+") for each in known[bound])
    bucket = f'{name}_bucket{{{inner}{"," if inner else ""}le=~"{written}"}}'
    count = f"{name}_count{{{inner}}}" if inner else f"{name}_count"
    in_time, asked = (f"sum(rate({each}[{window_seconds}s]))" for each in (bucket, count))
    is_bound = abs(bound - indicator.bound) <= 1e-9 * bound
    remark = "" if is_bound else f"late is counted from {bound:g} s on, as no bucket ends at {indicator.bound:g} s"
    return LatencyQueries(f"1 - {in_time} / {asked}", asked, bound, remark)


def load_history(
    demand: FloatArray, ready: ReadyHistory, late: FloatArray, requests: FloatArray | None, step_seconds: float
) -> LoadHistory:
    """What was seen in successive steps, each array [steps]; `late` shares, `requests` a second.

    A step counts in which as many replicas were Ready when it began as when it ended.
    """
    before = np.concatenate([[np.nan], ready.replicas[:-1]])
    replicas = np.where(ready.replicas == before, ready.replicas, np.nan)
    # A share of none is not known, and rates of two series may differ by a rounding error.
    shares = np.where(np.isnan(late), np.nan, np.clip(late, 0.0, 1.0))
    counts = None if requests is None else requests * step_seconds
    return LoadHistory(replicas, demand, shares, counts, ready.is_current)


def learned_knots(
    history: LoadHistory, threshold_seconds: float, level: float, rng: np.random.Generator
) -> Knots | Hold:
    """The curve that a history teaches, or why it teaches none."""
    is_known = np.isfinite(history.load) & np.isfinite(history.late_share)
    seen = seen_range(np.where(is_known, history.replicas, np.nan))
    if seen is None:
        return _not_learned("replicas, load and latency are hardly ever known at the same time")
    learned = learned_capacity(history, threshold_seconds=threshold_seconds, level=level, replicas=seen.most, rng=rng)
    if isinstance(learned, Refusal):
        return _not_learned(learned.reason)
    knots = knots_of(learned, seen)
    return knots if knots is not None else _not_learned("what is seen leaves it open whether they carry anything")


def of_this_version(history: LoadHistory) -> LoadHistory | None:
    """What is known of the version that runs now, where others ran before; None where none did."""
    if history.is_current is None or history.is_current.all():
        return None
    return replace(history, late_share=np.where(history.is_current, history.late_share, np.nan), is_current=None)


def is_late(latency: FloatArray, threshold_seconds: float) -> FloatArray:
    """1 in each step whose latency is above the threshold, 0 in the others, NaN where none is known."""
    return np.where(np.isnan(latency), np.nan, (latency > threshold_seconds).astype(np.float64))


def usage_history(demand: FloatArray, ready: ReadyHistory, throttled: ThrottledHistory, step: float) -> LoadHistory:
    """What was seen of a workload's CPU usage in successive steps, each array [steps]; late is what was throttled.

    Steps under another limit than the newest one say nothing of it.
    """
    known = throttled.limit_cores[np.isfinite(throttled.limit_cores)]
    is_other = np.abs(throttled.limit_cores - known[-1]) > SAME_LIMIT * known[-1] if len(known) else np.zeros(1, bool)
    return load_history(demand, ready, np.where(is_other, np.nan, throttled.share), None, step)


def usage_knots(history: LoadHistory, level: float, rng: np.random.Generator) -> Knots | Hold:
    """What one replica can use before more of its CPU periods than a share 1 - `level` is throttled, or why that is
    not known. Where other versions took part it is wider by what versions differ by."""
    if not np.isfinite(history.late_share).any():
        return _not_learned("no CPU periods of its containers are counted; without a CPU limit none is ever throttled")
    each = history.load / history.replicas
    learned = learned_usage(each, history.late_share, allowed=1 - level, rng=rng)
    if isinstance(learned, Refusal):
        return _not_learned(learned.reason)
    knots = knots_of_usage(learned)
    if knots is None:
        return _not_learned("what is seen leaves it open whether they can use anything")
    return knots if history.is_current is None or history.is_current.all() else of_other_version(knots)


def usage_evidence(history: LoadHistory, level: float) -> str:
    """What such a history holds, in words."""
    is_known = np.isfinite(history.late_share) & (history.replicas >= 1) & (history.load > 0)
    over = int((is_known & (history.late_share > 1 - level)).sum())
    allowed = f"{100 * (1 - level):.3g} %"
    return f"{is_known.sum()} steps, in {over} of which more than {allowed} of the CPU periods were throttled"


def _not_learned(why: str) -> Hold:
    return Hold(Reason(ReasonCode.NOT_LEARNED, f"what replicas carry cannot be learned: {why}"))


# --- what holds now


def standing_capacity(
    kept: LearnedCurve | None, answer: LearningAnswer | None, basis: str, version: str, now_seconds: float
) -> CapacityStanding:
    """What is relied on: the newest curve for these terms, widened where it is of another version of the target.

    What that adds to its spread is taken back over WAY_BACK_SECONDS, unless this version taught something before.
    """
    if answer is not None and answer.basis != basis:
        answer = None
    if kept is not None and kept.basis != basis:
        kept = None
    found = None if answer is None else answer.curve
    if isinstance(found, LearnedCurve) and (kept is None or found.learned_at_seconds > kept.learned_at_seconds):
        goes_on = kept is not None and kept.version == found.version and kept.widened_at_seconds is not None
        if kept is not None and goes_on and found.widened_at_seconds is not None:
            found = found._replace(widened_at_seconds=kept.widened_at_seconds)  # the way back does
        kept = found
    refusal = found.reason.message if isinstance(found, Hold) else ""
    if kept is None:
        return CapacityStanding(None, None, refusal or NOT_LEARNED.reason.message)
    if kept.version != version:
        # Once is enough: a third version is no further from the first one than the second.
        knots = of_other_version(kept.knots) if kept.widened_at_seconds is None else kept.knots
        kept = kept._replace(knots=knots, version=version, widened_at_seconds=now_seconds)
    relied = kept.knots
    if kept.widened_at_seconds is not None:
        parts = max(0.0, now_seconds - kept.widened_at_seconds) // (WAY_BACK_SECONDS / WAY_BACK_PARTS)
        relied = narrowed(kept.knots, min(1.0, parts / WAY_BACK_PARTS))
    reason = f"learned at {as_time(kept.learned_at_seconds)} from {kept.taught_by or _seen(kept.knots)}"
    if kept.widened_at_seconds is not None:
        since = as_time(kept.widened_at_seconds)
        reason += f" of another version, and wider for that since {since}, which comes back within two weeks"
    reason += f"; {kept.remark}" if kept.remark else ""
    return CapacityStanding(kept, relied, f"{reason}; not since: {refusal}" if refusal else reason)


def standing_of(
    autoscaler: PredictiveAutoscaler,
    target: TargetWorkload,
    policy: WorkloadPolicy,
    *,
    kept: LearnedCurve | None,
    answer: LearningAnswer | None,
    settings: ScalingSettings,
    now_seconds: float,
) -> CapacityStanding | None:
    """What is relied on for an object; None where nothing is to be learned of it, or it has no CPU request to fill."""
    if not learns(autoscaler, settings):
        return None
    basis, _ = asks_of(autoscaler, policy.level, target.cpu_limit_cores)
    found = standing_capacity(kept, answer, basis, target.version, now_seconds)
    if autoscaler.learns_capacity:
        return found
    return None if isinstance(policy.capacity, Hold) else _within_request(found, target, policy.capacity.per_replica)


def with_capacity(policy: WorkloadPolicy, standing: CapacityStanding) -> WorkloadPolicy:
    """The policy of an object whose capacity is learned; the configured utilisation stands where none is known."""
    knots = standing.knots
    if knots is None and standing.request_cores is not None:
        return replace(policy, capacity_source=f"{policy.capacity_source}, as {standing.reason}")
    if knots is None:
        return replace(policy, capacity=Hold(Reason(ReasonCode.NOT_LEARNED, standing.reason)))
    policy = replace(policy, capacity=relied_on(knots), capacity_source=f"the low end of what was {standing.reason}")
    fewest = min(fewest_kept(knots), policy.max_replicas)
    if fewest <= policy.min_replicas:
        return policy
    source = f"a learned capacity, as no fewer than {knots[0].replicas} were seen"
    return replace(policy, min_replicas=fewest, min_source=source)


def _within_request(standing: CapacityStanding, target: TargetWorkload, configured_cores: float) -> CapacityStanding:
    """What is relied on of a learned usage, told as a share of the CPU request.

    From LEAST_UTILISATION of it, or what is configured where that is less, to all of it, or to the limit where that is
    more: then what was seen may go beyond the request.
    """
    request = target.request_per_replica.cpu_cores
    standing = replace(standing, request_cores=request)
    if standing.knots is None:
        return standing
    least, most = min(LEAST_UTILISATION * request, configured_cores), max(request, target.cpu_limit_cores)
    knots = held_between(standing.knots, least, most)
    relied, learned = knots[0], standing.knots[0]
    low, likeliest, high = (each / request for each in learned[1:])
    reason = f"{standing.reason}; the knee is at {likeliest:.0%} of the CPU request ({low:.0%} to {high:.0%})"
    if relied.low != learned.low:
        bound = "least" if relied.low > learned.low else "most"
        reason += f"; relied on is {relied.low / request:.0%}, the {bound} that is allowed"
    return replace(standing, knots=knots, reason=reason)


def _seen(knots: Knots) -> str:
    first, last = knots[0].replicas, knots[-1].replicas
    return replicas_text(first) if first == last else f"{first} to {replicas_text(last)}"


# --- what is told and kept


def capacity_status(standing: CapacityStanding, replicas: int) -> JsonObject:
    """What is known of the capacity of so many replicas, for a reader."""
    if standing.curve is None or standing.knots is None:
        return {"reason": standing.reason}
    at = estimate(standing.knots, max(replicas, 1))
    request = standing.request_cores
    return {
        "replicas": at.replicas,
        "perReplica": _short(at.low / at.replicas),
        "low": _short(at.low),
        "likeliest": _short(at.likeliest),
        "high": _short(at.high),
        **({} if request is None else {"averageUtilization": round(100 * at.low / at.replicas / request)}),
        "learnedAt": as_time(standing.curve.learned_at_seconds),
        "reason": standing.reason,
    }


def recorded_curve(curve: LearnedCurve) -> JsonObject:
    """The curve as data."""
    return {
        "learnedAt": as_time(curve.learned_at_seconds),
        "basis": curve.basis,
        "version": curve.version,
        "remark": curve.remark,
        **({} if curve.widened_at_seconds is None else {"widenedAt": as_time(curve.widened_at_seconds)}),
        **({"taughtBy": curve.taught_by} if curve.taught_by else {}),
        "knots": [list(each) for each in curve.knots],
    }


def remembered_curve(kept: Mapping[str, Any] | None) -> LearnedCurve | None:
    """The curve from such data. Raises ValueError, KeyError, TypeError or IndexError for what is none."""
    if kept is None:
        return None
    knots = tuple(Knot(int(n), float(low), float(likeliest), float(high)) for n, low, likeliest, high in kept["knots"])
    is_ascending = all(a.replicas < b.replicas for a, b in pairwise(knots))
    is_sound = all(isfinite(sum(each)) and min(each) >= 0 for each in knots) and knots[-1].low > 0
    if not is_ascending or not is_sound or knots[0].replicas < 1:
        raise ValueError(f"a curve of {kept}")
    return LearnedCurve(
        knots,
        seconds_of(kept["learnedAt"]),
        str(kept["basis"]),
        str(kept.get("version", "")),
        str(kept.get("remark", "")),
        seconds_of(kept["widenedAt"]) if "widenedAt" in kept else None,
        str(kept.get("taughtBy", "")),
    )


def learns(autoscaler: PredictiveAutoscaler, settings: ScalingSettings) -> bool:
    """Whether anything is to be learned of an object: what its replicas carry, or how full they may be."""
    return autoscaler.learns_capacity or (settings.learned_utilisation and autoscaler.may_learn_utilisation)


def asks_of(autoscaler: PredictiveAutoscaler, level: float, cpu_limit_cores: float) -> tuple[str, float]:
    """Fingerprint of an object's terms, and the share of requests (or, of a latency alone, steps) to be in time.

    Of an object whose utilisation is learned, the share of CPU periods that must not be throttled, under this limit.
    """
    indicator = autoscaler.indicator
    if not autoscaler.learns_capacity:
        return sha256(repr(("throttled", level, cpu_limit_cores)).encode()).hexdigest()[:DIGITS], level
    assert indicator is not None
    share = level if indicator.query else indicator.percentile / 100
    return basis_of(autoscaler.query, autoscaler.resource.value, indicator, level), share


def _short(value: float) -> float:
    return float(f"{value:.6g}")
