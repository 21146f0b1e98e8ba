"""Into how many shares each device of a node is divided: as many as its memory holds for sure and its peak allows.

    replicas = min( ⌊usable · memory of a device / memory of a share⌋, ⌊usable / activity of a share⌋, ⌊maxRate⌋ ),  ≥ 1

What a share takes is what the shares of this node took so far: of activity (SMs, the mean share) the peak that is
exceeded within the horizon with no more than the stated probability, of memory (the fullest device over the shares on
it) one that is exceeded a hundred times less often. Memory is never oversold: a device that runs out of it fails
whoever asks next. All of a device's shares are taken to peak at once. Pure.
"""

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

    devices: int
    device_bytes: float
    in_use: int
    """Shares (or whole devices) that pods on it have now."""
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
    share: Share | None = None
    """None where nothing is known of it."""


def told_share(node: GpuNode, *, violation_probability: float, horizon_steps: int) -> Share | Hold:
    """What one share of a node takes at its peak within the horizon; a Hold where too little is known.

    What was measured last longer ago than a horizon says nothing of the next one.
    """
    for measured in (node.activity, node.fullest_bytes):
        if np.isnan(measured[-horizon_steps:]).all() and not np.isnan(measured).all():
            text = "its devices were not measured within the last horizon: is DCGM's exporter running there?"
            return Hold(Reason(ReasonCode.NO_EVIDENCE, text))
    has_pods = node.shares >= 1
    shares = np.where(has_pods, node.shares, np.nan)
    activity = np.minimum(node.activity / shares, 1.0)
    # As if every share but one of the fullest device were on the others: no share is taken for smaller than it was.
    memory = node.fullest_bytes / np.maximum(np.floor(shares / node.devices), 1.0)
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
    return Share(busy.value, held.value)


def sharing(
    share: Share | Hold, *, devices: int, device_bytes: float, in_use: int, usable_share: float, max_rate: float
) -> Sharing:
    """The replicas of each device; never fewer than the pods that are there need, as none of them would go."""
    needed = max(1, ceil(in_use / devices))
    if isinstance(share, Hold):
        return _held(Sharing(1, share.reason), needed)
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
    return _held(Sharing(max(1, min(fits, busy, most)), reason, share), needed)


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
