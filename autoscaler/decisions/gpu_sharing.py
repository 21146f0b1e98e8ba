"""Into how many shares each device of a node is divided: as many as its memory holds for sure and its peak allows.

    replicas = min( ⌊usable · memory of a device / memory of a share⌋, ⌊usable / activity of a share⌋, ⌊maxRate⌋ ),  ≥ 1

What a share takes is what the shares of this node took so far: of activity (SMs, the mean share) the peak that is
exceeded within the horizon with no more than the stated probability, of memory (the fullest device over the shares on
it) one that is exceeded a hundred times less often, and never less than the most that was seen. Memory is never
oversold: a device that runs out of it fails whoever asks next. All of a device's shares are taken to peak at once.

What is told changes a little from hour to hour, and each change of the replicas restarts the device plugin of a node:
what counts is the most that was told within the last horizon, so that fewer replicas are made at once and more only
where they were allowed throughout (the stabilisation window of the HPA). Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.decisions.reclaiming import NodeTasks, ToldPeak, told_peaks
from models.forecast import FloatArray

HARD_PART = 0.01
"""By what part of the stated probability memory may exceed its peak."""
MOST_REPLICAS = 10
"""For more than these the device plugin has no configuration of ours."""
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class GpuNode:
    """The devices of one node, all alike, and their past."""

    devices: FloatArray | int
    """How many there are, or [steps], how many there were then."""
    device_bytes: float
    activity: FloatArray
    """[steps], ending now: how busy the devices were, summed over them; NaN is no sample."""
    fullest_bytes: FloatArray
    """[steps]: memory in use on the device where that was most."""
    shares: FloatArray
    """[steps]: how many shares or devices pods had; devices are filled evenly, as the device plugin does it."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one share is told to take."""

    activity: float
    """Of one device, at its peak."""
    memory_bytes: float


@dataclass(frozen=True, slots=True)
class Sharing:
    """Into how many shares each device is divided, and why; 1 is none."""

    replicas: int
    reason: Reason
    share: Share | Hold
    """A Hold where nothing is known of it."""

    @property
    def is_stale(self) -> bool:
        """Whether nothing is known as its devices were not measured within the last horizon."""
        return isinstance(self.share, Hold) and self.share.reason.code is ReasonCode.STALE_NODE


def taken(node: GpuNode) -> tuple[FloatArray, FloatArray]:
    """What a share took in each step: activity of the mean one, and memory in bytes; both [steps], NaN is not known.

    Memory is that of the fullest device ÷ the shares on it, as if every other were on the other devices: where devices
    are not shared it is all that the largest pod had. Of a device with pods of unlike size it is their mean.
    """
    shares = np.where(node.shares >= 1, node.shares, np.nan)
    activity = np.minimum(node.activity / shares, 1.0)
    return activity, node.fullest_bytes / np.maximum(np.floor(shares / node.devices), 1.0)


def told_share(node: GpuNode, *, violation_probability: float, horizon_steps: int) -> Share | Hold:
    """What one share of a node takes at its peak within the horizon; a Hold where too little is known.

    What was measured last longer ago than a horizon says nothing of the next one.
    """
    if any(np.isnan(measured[-horizon_steps:]).all() for measured in (node.activity, node.fullest_bytes)):
        text = "its devices were not measured within the last horizon: is DCGM's exporter running there?"
        return Hold(Reason(ReasonCode.STALE_NODE, text))
    activity, memory = taken(node)
    none = np.full(1, np.nan)
    peaks = []
    for usage, most, probability in (
        (activity, 1.0, violation_probability),
        (memory, node.device_bytes, violation_probability * HARD_PART),
    ):
        tasks = NodeTasks(usage[None, :], np.full(1, most), none)
        if np.count_nonzero(~np.isnan(usage)) == 0:
            return Hold(Reason(ReasonCode.NO_EVIDENCE, "no pod was seen to use its devices"))
        (peak,) = told_peaks([tasks], violation_probability=probability, horizon_steps=horizon_steps)
        if isinstance(peak, ToldPeak) and peak.cold_tasks:
            return Hold(Reason(ReasonCode.NO_EVIDENCE, "pods used its devices for less than two hours"))
        peaks.append(peak)
    busy, held = peaks
    if isinstance(busy, Hold):
        return busy
    if isinstance(held, Hold):
        return held
    # Horizons that were hardly watched say nothing of how often; that a pod had so much memory is seen all the same.
    return Share(busy.value, max(held.value, float(np.nanmax(memory))))


def steady_share(tellings: Sequence[Share | Hold]) -> Share | Hold:
    """The most of what was told of a share within the last horizon, newest first: a Hold where one was a Hold."""
    for number, told in enumerate(tellings):
        if isinstance(told, Hold):
            if number == 0:
                return told
            text = f"too little was known of it within the last horizon: {told.reason.message}"
            return Hold(Reason(ReasonCode.NO_EVIDENCE, text))
    known = [told for told in tellings if isinstance(told, Share)]
    return Share(max(each.activity for each in known), max(each.memory_bytes for each in known))


def excess(share: Share, node: GpuNode) -> float | None:
    """By which share of what a share took in the newest step it exceeded what was told of it; 0 as a rule, None where
    that step is not known, or no pod had a share."""
    over = []
    for took, most in zip(taken(node), (share.activity, share.memory_bytes), strict=True):
        if np.isnan(took[-1]):
            return None
        over.append(float((took[-1] - most) / took[-1]) if took[-1] > most * (1 + ROUNDING) else 0.0)
    return max(over)


def sharing(
    share: Share | Hold,
    *,
    devices: int,
    device_bytes: float,
    in_use: int,
    usable_share: float,
    max_rate: float,
    sold_share: float = 1.0,
    fullness: str = "",
) -> Sharing:
    """The replicas of each device; never fewer than the pods that are there need, as none of them would go.

    Of what would be sold beside the first no more than `sold_share`, as what was told has been wrong too often where
    that is below 1. `fullness` says why a device is too full to be shared any further; empty where none is.
    """
    needed = max(1, ceil(in_use / devices))
    if fullness:
        return Sharing(needed, Reason(ReasonCode.NODE_FULL, fullness), share)
    if isinstance(share, Hold):
        return _held(Sharing(1, share.reason, share), needed)
    fits = floor(usable_share * device_bytes / max(share.memory_bytes, 1.0) + ROUNDING)
    busy = floor(usable_share / max(share.activity, 1e-6) + ROUNDING)
    most = min(floor(max_rate + ROUNDING), MOST_REPLICAS)
    gib = f"{share.memory_bytes / 2**30:.4g} of {usable_share * device_bytes / 2**30:.4g} GiB"
    text = f"a share takes up to {gib} of a device and {share.activity:.0%} of its time"
    if most <= min(fits, busy):
        reason = Reason(ReasonCode.MAX_RATIO, f"{text}; maxRate allows {most}")
    elif fits < busy:
        reason = Reason(ReasonCode.GPU_MEMORY, f"{text}: its memory holds {fits}")
    else:
        reason = Reason(ReasonCode.PREDICTED_PEAK, f"{text}: its time is enough for {busy}")
    replicas = max(1, min(fits, busy, most))
    allowed = 1 + floor(sold_share * (replicas - 1) + ROUNDING)
    if allowed < replicas:
        cautious = f"{reason.message}; violations overdraw the budget, so it is {allowed}"
        return _held(Sharing(allowed, Reason(ReasonCode.BUDGET_OVERDRAWN, cautious), share), needed)
    return _held(Sharing(replicas, reason, share), needed)


def _held(wanted: Sharing, needed: int) -> Sharing:
    if wanted.replicas >= needed:
        return wanted
    text = f"pods there have {needed} shares of a device, and keep them; else it would be {wanted.replicas}: "
    return Sharing(needed, Reason(ReasonCode.SHARES_IN_USE, text + wanted.reason.message), wanted.share)


@dataclass(frozen=True, slots=True)
class HamiAdvice:
    """What a pod like those seen would ask HAMi for, in percent of one device, rounded up."""

    gpu_cores: int
    gpu_memory_percentage: int


def hami_advice(share: Share, device_bytes: float) -> HamiAdvice:
    """Cores by the peak of the share's activity, memory by its peak; at least 1 and at most 100."""

    def percent(part: float) -> int:
        return min(100, max(1, ceil(100 * part - ROUNDING)))

    return HamiAdvice(percent(share.activity), percent(share.memory_bytes / device_bytes))
