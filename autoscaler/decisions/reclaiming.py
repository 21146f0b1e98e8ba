"""How much of a node may be sold a second time: what its ordinary pods will not use, told by the peak of their sum.

    reclaimable = usable share · allocatable − predicted peak,   and no more than max_rate · allocatable − Σ requests

The peak is that of the pods that are there on ordinary terms; pods that run on what was reclaimed are what it is sold
to, and do not count. What came to the node since the peak was told counts in full. Without evidence nothing is sold.
How high the peak is told follows how often such peaks were exceeded on the past of the same nodes. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isnan

import numpy as np

from autoscaler.cluster.nodes import shown
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from models.exceedance import Exceedances
from models.forecast import FloatArray
from models.node_peak import LEAST_BLOCKS, NodePast, NodePasts, NoPeak, node_past
from predictor.usage.panel import Resource

ROUNDING = 1e-9
CHANGE_SHARE = 0.1
"""A rise of what is offered that is smaller, relative to it, waits …"""
CHANGE_SECONDS = 300.0
"""… until it was last changed this long ago, as Koordinator does it."""


@dataclass(frozen=True, slots=True)
class NodeTasks:
    """What runs on one node on ordinary terms, for one resource in its base unit; a task is a workload's pods there."""

    usage: FloatArray
    """[tasks, steps], ending now; NaN is no sample."""
    limits: FloatArray
    """[tasks]; NaN is none."""
    requests: FloatArray
    """[tasks]; NaN is none."""


@dataclass(frozen=True, slots=True)
class ToldPeak:
    """What the total usage of a node's ordinary pods exceeds within the horizon with no more than some probability."""

    value: float
    """In the resource's base unit."""
    asked_probability: float
    """For which it was asked, as that stated was exceeded more or less often than stated."""
    past_horizons: int
    cold_tasks: int
    last_peak: float = float("nan")
    """What they reached in the horizon that has just ended; NaN where nobody was watching."""


def told_peaks(
    nodes: Sequence[NodeTasks], *, violation_probability: float, horizon_steps: int
) -> tuple[ToldPeak | Hold, ...]:
    """The peak of each node's tasks within the next `horizon_steps`; a Hold where too little is known.

    The same is told at the beginning of each past horizon from those before it, and which probability is asked for now
    follows how often that was exceeded (`models.exceedance`), for all these nodes together and for each. The tasks
    there now stand for those that were.
    """
    pasts = [node_past(each.usage, each.limits, horizon_steps, each.requests) for each in nodes]
    record = Exceedances.without_record(violation_probability, classes=1, nodes=len(nodes))
    one_class = np.zeros(len(nodes), dtype=np.int64)
    rows = np.asarray([row for row, past in enumerate(pasts) if isinstance(past, NodePast)], dtype=np.int64)
    known = NodePasts.of([past for past in pasts if isinstance(past, NodePast)])
    for ago in range(known.peaks.shape[1] - LEAST_BLOCKS, 0, -1):
        told = known.quantiles(record.asked(one_class)[rows], ago)
        peak = known.peaks[:, -ago] + known.reserved
        exceeded = np.full(len(nodes), np.nan)
        exceeded[rows] = np.where(np.isnan(told + peak), np.nan, peak > told * (1 + ROUNDING))
        if not np.isnan(exceeded).all():
            record = record.realised(exceeded, one_class, 1.0)
    asked = record.asked(one_class)
    return tuple(
        Hold(Reason(ReasonCode.NO_EVIDENCE, past.reason))
        if isinstance(past, NoPeak)
        else ToldPeak(
            float(past.quantiles([probability])[0]),
            float(probability),
            len(past.maxima),
            past.cold_tasks,
            float(past.peaks[-1]) + past.reserved,
        )
        for past, probability in zip(pasts, asked, strict=True)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """One node and resource at one instant, in the resource's base unit: what there is to sell and what was sold."""

    resource: Resource
    allocatable: float
    requested: float
    """Of the pods on ordinary terms."""
    newcomers: float | Hold
    """Σ limits (or requests) of those of them that came after the peak was told; a Hold where one has neither."""
    sold: float
    """What pods on it ask for of what was reclaimed."""
    peak: ToldPeak | Hold


@dataclass(frozen=True, slots=True)
class Reclaimable:
    """What of a node may be sold a second time, in the resource's base unit, and why so much."""

    amount: float
    reason: Reason


def reclaimable(shelf: Shelf, *, usable_share: float, max_rate: float, sold_share: float = 1.0) -> Reclaimable:
    """What ordinary pods leave of the usable capacity at their peak, capped by the rate; 0 where that is unknown.

    No more than `sold_share` of what they leave, as what was told has been wrong too often where that is below 1.
    """
    for unknown in (shelf.peak, shelf.newcomers):
        if isinstance(unknown, Hold):
            return Reclaimable(0.0, unknown.reason)
    assert isinstance(shelf.peak, ToldPeak)
    assert isinstance(shelf.newcomers, float)
    words = partial(shown, shelf.resource)
    usable = usable_share * shelf.allocatable
    peak = shelf.peak.value + shelf.newcomers
    left, allowed = sold_share * (usable - peak), max(max_rate * shelf.allocatable - shelf.requested, 0.0)
    text = f"a peak of {words(peak)} is predicted, {words(usable)} are usable"
    if left <= 0:
        return Reclaimable(0.0, Reason(ReasonCode.PEAK_ABOVE_USABLE, f"{text}: nothing is left"))
    if allowed < left:
        limited = f"{text}, of which maxRate {max_rate:g} allows to sell {words(allowed)}"
        return Reclaimable(allowed, Reason(ReasonCode.MAX_RATIO, limited))
    if sold_share < 1.0:
        cautious = f"{text}; violations overdraw the budget, so {sold_share:.0%} of what is left is sold"
        return Reclaimable(left, Reason(ReasonCode.BUDGET_OVERDRAWN, cautious))
    return Reclaimable(left, Reason(ReasonCode.PREDICTED_PEAK, text))


def in_hindsight(shelf: Shelf, *, usable_share: float, max_rate: float) -> float | None:
    """What could have been sold of the pods that are there had the horizon that has just ended been known beforehand.

    None where no peak is told, or nobody was watching then.
    """
    if isinstance(shelf.peak, Hold) or isnan(shelf.peak.last_peak):
        return None
    known = replace(shelf, peak=replace(shelf.peak, value=shelf.peak.last_peak))
    return reclaimable(known, usable_share=usable_share, max_rate=max_rate).amount


def oversubscription_rate(requested: float, reclaimed: float, allocatable: float) -> float:
    """What may be requested of some nodes in all, on whatever terms, ÷ their allocatable; 1 is no oversubscription.

    What nobody requests can be sold twice without any being oversold: such nodes are at 1 as well.
    """
    return max(1.0, (requested + reclaimed) / allocatable) if allocatable > 0 else 1.0


def offer(
    allowed: float, *, sold: float, offered: float | None, is_held: bool, since_change_seconds: float
) -> float | None:
    """What the node's status should offer; None to leave it as it is. In any unit, the same for all.

    Never less than what was sold, as nothing is gained by it; just that where selling is held. Less is offered at once,
    more only where it is a tenth more, or the last change is five minutes ago.
    """
    wanted = sold if is_held else max(allowed, sold)
    now = offered or 0.0
    if wanted == now:
        return None
    is_small_rise = 0 < wanted - now < CHANGE_SHARE * now
    if is_small_rise and not is_held and since_change_seconds < CHANGE_SECONDS:
        return None
    return wanted
