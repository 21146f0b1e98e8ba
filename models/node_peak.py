"""How high the total usage of the tasks on one node will peak within a horizon: read off what their sum did before.

What counts is the quantile of the maximum over the horizon of the *sum* of usages, each capped at its limit. The sum of
the tasks' own quantiles overstates it (peaks seldom coincide), the maximum of each step's quantile understates it. The
sum is therefore made of the past of just those tasks that are there now, aligned on the same instants, and cut into
past horizons, one peak each: an empirical copula, so that the dependence between tasks and between steps is what it
was. The newest horizon ends now, so that every one holds as much of the day and none overlaps another. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from models.forecast import BoolArray, FloatArray, ForecastError, IntArray

COLD_SAMPLES = 24
"""A task with fewer samples is cold and counts in full (two hours at 5 minutes; EuroSys'21)."""
LEAST_BLOCKS = 7
"""With fewer past horizons nothing is known: of days, not every weekday was seen."""
SEEN_SHARE = 0.5
"""A past horizon in which nobody was watching for longer than this share is no evidence."""
COINCIDENCE = 0.07
"""Scale of the tail beyond the highest peak, as a share of what would come on top if all tasks peaked at once."""
SMALLEST_SCALE = 0.01
"""Least scale of that tail, as a share of the highest peak: a task alone has nobody to coincide with."""


@dataclass(frozen=True, slots=True)
class NoPeak:
    """A node whose peak cannot be told, so that nothing on it may be oversold."""

    reason: str


@dataclass(frozen=True, slots=True)
class NodePast:
    """What the peak of one node's total usage is read off from; amounts in the resource's base unit."""

    peaks: FloatArray
    """Highest total of the tasks that are not cold in each past horizon, oldest first, [blocks]; NaN where nobody was
    watching; at least `LEAST_BLOCKS` are known."""
    gap: float
    """By how much the sum of the tasks' own highest usages exceeds the highest total: they did not peak at once."""
    reserved: float
    """Limits or requests of the cold tasks, which come on top throughout."""
    ceiling: float
    """Σ limits, which the total cannot exceed; infinite where a task has none."""
    cold_tasks: int

    @property
    def maxima(self) -> FloatArray:
        """Highest total of each past horizon that was watched, ascending, [blocks]."""
        return np.sort(self.peaks[~np.isnan(self.peaks)])

    def as_of(self, horizons_ago: int) -> "NodePast | NoPeak":
        """What was known of the same tasks some horizons ago, at least one; the tail beyond the highest is today's."""
        known = replace(self, peaks=self.peaks[:-horizons_ago])
        blocks = len(known.maxima)
        if blocks < LEAST_BLOCKS:
            return NoPeak(f"{blocks} past horizons with samples, need {LEAST_BLOCKS}: nothing is oversold")
        return known

    def quantiles(self, exceedances: Sequence[float] | FloatArray) -> FloatArray:
        """Totals that the next horizon's peak exceeds with these probabilities, [exceedances]; falling along them.

        Of n past horizons the k-th smallest peak is exceeded by the next with probability (n + 1 − k) / (n + 1) if
        horizons are exchangeable (split conformal prediction); in between it is linear in the logarithm of the
        probability. Rarer than 1 / (n + 1) it is the highest peak with an exponential tail,
            max M + scale · ln( 1 / ((n + 1) p) ),  scale = max(7 % of `gap`, 1 % of max M),
        as what was never seen is that tasks coincide which never did. Not beyond `ceiling`. Raises ForecastError for
        probabilities outside (0, 1).
        """
        asked = _checked(exceedances)
        maxima = np.broadcast_to(self.maxima, (len(asked), len(self.maxima)))
        return _read_off(maxima, asked, gap=self.gap, reserved=self.reserved, ceiling=self.ceiling)


def node_past(
    usage: FloatArray, limits: FloatArray, horizon_steps: int, requests: FloatArray | None = None
) -> NodePast | NoPeak:
    """What is known of the peaks of tasks' total usage over `horizon_steps`.

    `usage` is [tasks, steps] in a base unit, ending now, NaN where there is no sample; `limits` is [tasks], those in
    force now, NaN or infinite where there is none. A cold task counts at its limit, or its request [tasks] where it has
    none; another did in horizons before it was there what it did since, over and over. How a missing sample counts:
    `capped_totals`. Long memory is worth more than any formula: give four weeks. NoPeak where there are no tasks or
    only cold ones, fewer than 7 past horizons, or a cold task has neither limit nor request. Raises ForecastError for
    arrays that do not match.
    """
    sums = _sums(usage, limits, horizon_steps, requests)
    if isinstance(sums, NoPeak):
        return sums
    peaks = np.where(sums.is_watched, np.fmax.reduce(sums.totals, axis=1), np.nan).astype(np.float64)
    return NodePast(
        peaks=peaks,
        gap=max(sums.own - float(np.nanmax(peaks)), 0.0),
        reserved=sums.reserved,
        ceiling=sums.ceiling,
        cold_tasks=sums.cold_tasks,
    )


@dataclass(frozen=True, slots=True)
class NodeTotals:
    """What is kept of some nodes to tell how high each would peak with one more task; amounts in the base unit."""

    parts: FloatArray
    """Highest total of the tasks that are not cold in each part of each past horizon, [parts, nodes, blocks]; NaN where
    nobody was watching for most of the horizon, or of a node without an answer."""
    own: FloatArray
    """Sum of these tasks' own highest usages, [nodes]."""
    reserved: FloatArray
    """Limits or requests of the cold tasks, [nodes]."""
    ceiling: FloatArray
    """Σ limits, [nodes]; infinite where a task has none."""
    reasons: tuple[str, ...]
    """Why the peak of a node cannot be told; empty where it can."""

    def of(self, rows: IntArray) -> "NodeTotals":
        """Some of the nodes, a shortlist."""
        reasons = tuple(self.reasons[row] for row in rows)
        return NodeTotals(self.parts[:, rows], self.own[rows], self.reserved[rows], self.ceiling[rows], reasons)

    def peaks_with(self, usage: FloatArray, limit: float, exceedance: float) -> FloatArray:
        """Totals that each node's peak within the next horizon exceeds with this probability if the task came to it,
        [nodes].

        `usage` [steps] is what the task did on the same instants, or a task like it elsewhere; NaN is no sample, and
        counts as its highest. With fewer than 24 samples it counts at its `limit`. As `NodePast.quantiles` tells it,
        from highest usages within the parts of a horizon, which the sum of two cannot exceed: never lower than from all
        steps. Infinite where there is no answer, as nothing may be oversold there. Raises ForecastError for arrays that
        do not match, and a limit that is none.
        """
        parts, _, blocks = self.parts.shape
        steps = len(usage) // (blocks * parts) * blocks * parts
        if usage.ndim != 1 or steps == 0:
            raise ForecastError(f"needed: usage [steps] of {blocks} horizons; got {usage.shape}")
        if not limit >= 0:
            raise ForecastError(f"a limit cannot be negative or unknown, infinite where there is none; got {limit}")
        is_cold = np.count_nonzero(~np.isnan(usage)) < COLD_SAMPLES
        highest = 0.0 if is_cold else min(float(np.fmax.reduce(usage)), limit)
        newcomer = np.zeros((parts, 1, blocks), dtype=self.parts.dtype)
        if not is_cold:
            known = np.where(np.isnan(usage), highest, np.minimum(usage, limit))[-steps:]
            newcomer = known.reshape(blocks, parts, -1).max(axis=2).astype(self.parts.dtype).T[:, None]
        maxima = np.sort((self.parts + newcomer).max(axis=0), axis=1).astype(np.float64)
        told = _read_off(
            maxima,
            np.repeat(_checked([exceedance]), len(maxima)),
            gap=np.maximum(self.own + highest - np.fmax.reduce(maxima, axis=1), 0.0),
            reserved=self.reserved + (limit if is_cold else 0.0),
            ceiling=self.ceiling + limit,
        )
        return np.asarray(np.where(np.isnan(told), np.inf, told))


@dataclass(frozen=True, slots=True)
class NodePasts:
    """Several nodes' pasts, to be asked all at once."""

    peaks: FloatArray
    """[nodes, blocks], the newest last; NaN where nobody was watching, or before a node's past."""
    gap: FloatArray
    """[nodes], as all that follow; today's also for what was known some horizons ago."""
    reserved: FloatArray
    ceiling: FloatArray

    @classmethod
    def of(cls, pasts: Sequence[NodePast]) -> Self:
        """The newest horizon of all is the same one."""
        longest = max((len(past.peaks) for past in pasts), default=0)
        peaks = np.full((len(pasts), longest), np.nan)
        for row, past in enumerate(pasts):
            peaks[row, longest - len(past.peaks) :] = past.peaks
        amounts = np.array([(past.gap, past.reserved, past.ceiling) for past in pasts], dtype=np.float64)
        return cls(peaks, *amounts.reshape(-1, 3).T)

    def quantiles(self, exceedances: FloatArray, horizons_ago: int) -> FloatArray:
        """What `NodePast.as_of` some horizons ago would have told with each node's probability, [nodes]; NaN where
        fewer than 7 horizons were known."""
        known = np.sort(self.peaks[:, : self.peaks.shape[1] - horizons_ago], axis=1)
        return _read_off(known, exceedances, gap=self.gap, reserved=self.reserved, ceiling=self.ceiling)


def _checked(exceedances: Sequence[float] | FloatArray) -> FloatArray:
    asked = np.asarray(exceedances, dtype=np.float64)
    if asked.size == 0 or not ((asked > 0) & (asked < 1)).all():
        raise ForecastError(f"probabilities of exceeding a peak must lie inside (0, 1), got {asked.tolist()}")
    return asked


def _read_off(
    maxima: FloatArray,
    exceedances: FloatArray,
    *,
    gap: FloatArray | float,
    reserved: FloatArray | float,
    ceiling: FloatArray | float,
) -> FloatArray:
    """What `NodePast.quantiles` says, of one probability for each row of past peaks, [rows].

    `maxima` is [rows, blocks], ascending, with what is not known as NaN at the end; NaN where fewer than 7 are known.
    """
    rows = np.arange(len(maxima))
    known = np.count_nonzero(~np.isnan(maxima), axis=1)
    count = np.maximum(known, 1)
    highest = maxima[rows, count - 1]
    # The k-th highest of n is exceeded in k of n + 1 cases.
    rank = np.clip(exceedances * (known + 1.0), 1.0, count)
    above = np.floor(rank).astype(np.int64)
    upper, lower = maxima[rows, count - above], maxima[rows, np.maximum(count - above - 1, 0)]
    within = upper + np.log(rank / above) / np.log1p(1 / above) * (lower - upper)
    scale = np.maximum(COINCIDENCE * np.asarray(gap), SMALLEST_SCALE * highest)
    beyond = scale * np.maximum(-np.log(exceedances * (known + 1.0)), 0.0)
    told = np.minimum(within + beyond + reserved, np.maximum(ceiling, reserved))
    return np.asarray(np.where(known >= LEAST_BLOCKS, told, np.nan))


def node_totals(nodes: Sequence[tuple[FloatArray, FloatArray]], horizon_steps: int, parts: int) -> NodeTotals:
    """What is kept of nodes, of each the usage [tasks, steps] and the limits [tasks] as for `node_past`.

    `parts` is into how many a horizon is divided, such as its hours: fewer are faster and tell higher peaks. Raises
    ForecastError where they do not divide it, or nodes have not as many steps.
    """
    lengths = {usage.shape[-1] for usage, _ in nodes}
    is_divided = 0 < parts <= horizon_steps and horizon_steps % parts == 0
    if len(lengths) != 1 or not is_divided or min(lengths) < horizon_steps:
        raise ForecastError(
            f"needed: nodes of equally many steps, a horizon at least, in parts of equally many; got {sorted(lengths)} "
            f"steps, horizons of {horizon_steps} in {parts} parts"
        )
    shape = (len(nodes), lengths.pop() // horizon_steps, parts)
    kept = np.full((parts, *shape[:2]), np.nan, dtype=np.float32)
    own, reserved, ceiling = np.zeros(len(nodes)), np.zeros(len(nodes)), np.full(len(nodes), np.inf)
    reasons = []
    for row, (usage, limits) in enumerate(nodes):
        sums = _sums(usage, limits, horizon_steps, None)
        reasons.append(sums.reason if isinstance(sums, NoPeak) else "")
        if isinstance(sums, NoPeak):
            continue
        by_part = np.fmax.reduce(sums.totals.reshape(*shape[1:], -1), axis=2)
        # Within a horizon that was watched for most of the time a part without samples says nothing.
        kept[:, row] = np.where(sums.is_watched[:, None], np.where(np.isnan(by_part), 0.0, by_part), np.nan).T
        own[row], reserved[row], ceiling[row] = sums.own, sums.reserved, sums.ceiling
    return NodeTotals(kept, own, reserved, ceiling, tuple(reasons))


@dataclass(frozen=True, slots=True)
class _Sums:
    """The totals of one node's tasks that are not cold, and what comes on top."""

    totals: FloatArray
    """[blocks, steps]"""
    is_watched: BoolArray
    """Which blocks are evidence, [blocks]."""
    own: float
    reserved: float
    ceiling: float
    cold_tasks: int


def _sums(usage: FloatArray, limits: FloatArray, horizon_steps: int, requests: FloatArray | None) -> _Sums | NoPeak:
    if usage.ndim != 2 or limits.shape != usage.shape[:1] or horizon_steps < 1:
        raise ForecastError(
            f"needed: usage [tasks, steps], limits [tasks] and a horizon of at least one step; "
            f"got {usage.shape}, {limits.shape} and {horizon_steps}"
        )
    tasks, steps = usage.shape
    blocks = steps // horizon_steps
    if tasks == 0:
        return NoPeak("nothing runs on it that a peak could be told of: nothing is oversold")
    if blocks < LEAST_BLOCKS:
        return NoPeak(f"{tasks} tasks with {blocks} past horizons of usage, need {LEAST_BLOCKS}: nothing is oversold")
    bounds = np.where(np.isnan(limits), np.inf, limits).astype(usage.dtype, copy=False)
    recent = usage[:, -blocks * horizon_steps :]
    is_gappy = _is_gappy(usage)
    is_cold = _is_cold(usage, is_gappy)
    reserved = bounds if requests is None else np.where(np.isfinite(bounds), bounds, requests)
    if not np.isfinite(reserved[is_cold]).all():
        return NoPeak("a cold task has neither limit nor request: nothing is oversold")
    warm = np.flatnonzero(~is_cold)
    if warm.size == 0:
        return NoPeak(f"all {tasks} tasks are cold, with fewer than {COLD_SAMPLES} samples: nothing is oversold")
    known = recent if len(warm) == tasks else recent[warm]
    highest = np.fmax.reduce(known.reshape(len(known), blocks, -1), axis=2) if is_gappy.any() else None
    if highest is not None:
        known, highest = _as_if_always_there(known, highest)
    caps = np.broadcast_to(bounds[warm, None], known.shape)
    totals = _totals(known, caps, horizon_steps, is_gappy[warm], highest)
    seen = np.count_nonzero(~np.isnan(totals), axis=1) >= horizon_steps * SEEN_SHARE
    watched = int(np.count_nonzero(seen))
    if watched < LEAST_BLOCKS:
        return NoPeak(f"{watched} past horizons with samples, need {LEAST_BLOCKS}: nothing is oversold")
    own = np.minimum(np.nan_to_num(np.fmax.reduce(known if highest is None else highest, axis=1)), bounds[warm])
    return _Sums(
        totals=totals,
        is_watched=seen,
        own=float(own.sum(dtype=np.float64)),
        reserved=float(reserved[is_cold].sum(dtype=np.float64)),
        ceiling=float(bounds.sum(dtype=np.float64)),
        cold_tasks=int(is_cold.sum()),
    )


def _is_gappy(usage: FloatArray) -> BoolArray:
    """Which tasks miss a sample, [tasks]: a NaN anywhere makes the sum NaN, which is one pass."""
    return np.asarray(np.isnan(usage.sum(axis=1)))


def _is_cold(usage: FloatArray, is_gappy: BoolArray) -> BoolArray:
    """Which tasks have fewer than 24 samples, [tasks]; nearly all that miss some show as many in their last 48."""
    few = np.flatnonzero(is_gappy)
    for steps in (2 * COLD_SAMPLES, usage.shape[1]):
        few = few[np.count_nonzero(~np.isnan(usage[few, -steps:]), axis=1) < COLD_SAMPLES]
    is_cold = np.zeros(len(usage), dtype=np.bool_)
    is_cold[few] = True
    return is_cold


def _as_if_always_there(usage: FloatArray, highest: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Tasks' usage [tasks, steps], with horizons in which others were watched filled by the task's own other ones; and
    their highest of each horizon, [tasks, blocks]."""
    is_seen = ~np.isnan(highest)
    lacking = np.flatnonzero((~is_seen & is_seen.any(axis=0)).any(axis=1))
    if lacking.size == 0:
        return usage, highest
    filled = usage.reshape(*highest.shape, -1).copy()
    highest = highest.copy()
    for task in lacking:
        donors = np.flatnonzero(is_seen[task])
        missing = np.flatnonzero(~is_seen[task] & is_seen.any(axis=0))
        if donors.size:
            chosen = donors[missing % donors.size]
            filled[task, missing] = filled[task, chosen]
            highest[task, missing] = highest[task, chosen]
    return filled.reshape(usage.shape), highest


def capped_totals(usage: FloatArray, limits: FloatArray, horizon_steps: int) -> FloatArray:
    """Total usage of tasks capped at their limits (both [tasks, steps]; infinite is no limit) as [blocks, steps].

    Where other tasks have a sample, a missing one counts as the task's highest of the block, or its highest ever where
    it has none in the block, so that a gap never looks like idle time. Where no task has one nobody was watching: NaN.
    """
    return _totals(usage, limits, horizon_steps, _is_gappy(usage), None)


def _totals(
    usage: FloatArray, limits: FloatArray, horizon_steps: int, is_gappy: BoolArray, of_blocks: FloatArray | None
) -> FloatArray:
    """`capped_totals`; which tasks may miss samples, and each one's highest of each block where it is known already."""
    tasks, steps = usage.shape
    blocks = steps // horizon_steps
    gappy = np.flatnonzero(is_gappy)
    if gappy.size == 0:
        return np.asarray(np.minimum(usage, limits).sum(axis=0).reshape(blocks, horizon_steps))
    filled = usage[gappy].reshape(gappy.size, blocks, horizon_steps)
    missing = np.isnan(filled)
    highest = np.fmax.reduce(filled, axis=2) if of_blocks is None else of_blocks[gappy]
    ever = np.fmax.reduce(highest, axis=1, keepdims=True)
    stand_in = np.nan_to_num(np.where(np.isnan(highest), ever, highest))
    places = np.flatnonzero(missing)
    filled.reshape(-1)[places] = stand_in.reshape(-1)[places // horizon_steps]
    totals = np.minimum(filled, limits[gappy].reshape(filled.shape), out=filled).sum(axis=0)
    if gappy.size == tasks:
        return np.asarray(np.where(missing.all(axis=0), np.nan, totals))
    whole = np.setdiff1d(np.arange(tasks), gappy)
    return np.asarray(totals + np.minimum(usage[whole], limits[whole]).sum(axis=0).reshape(blocks, horizon_steps))
