"""What a container should request: read off forecasts of what its pods will use within the next day.

**CPU.** The request below which a stated share of the CPU time of the mean pod is used: the quantile, each moment
weighted by what is used in it, so that busy hours count for what they are and idle nights do not lower it (the
load-adjusted percentile of Autopilot, EuroSys'20, on forecasts instead of on the past). At least what the busiest pod
uses in the middle of its own CPU time, as one request holds for all pods. More usage never lowers it where usage rises
in proportion, or more so the higher it is; in idle hours alone it may, as the busy ones are then a smaller share.

**Memory.** The quantile of the peak within a day, of the largest pod: what does not fit is killed, so that shares of
time say nothing. Never less than the highest usage of the last day and a tenth. After a container was killed for want
of memory, for a day at least a fifth or 100 MiB more than it had, whichever is more (the VerticalPodAutoscaler's
`oom-bump-up-ratio` and `oom-min-bump-up-bytes`).

**Bounds.** Between them a request is good enough. With c days of history

    lower = half-way quantile × (1 + 0.001 / c)^-2        upper = 0.99 quantile × (1 + 1 / c)

as the VerticalPodAutoscaler widens its own: after a day the upper bound is doubled, after a week a seventh is added.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from models.forecast import FloatArray
from predictor.usage.panel import Resource

LEAST_HISTORY_DAYS = 1.0
"""With less usage known nothing is recommended: not even every hour of a day was seen."""
MIDDLE_LEVEL, HIGH_LEVEL = 0.5, 0.99
"""Quantile levels of the bounds; the first also of what the busiest pod must have."""
OBSERVED_MARGIN = 1.1
"""A memory request is at least so many times what was used."""
OOM_RATIO, OOM_LEAST_BYTES = 1.2, 100 * 2**20
"""How much more memory a container gets after it was killed for want of it."""
OOM_KEPT_SECONDS = 86_400.0
LIMIT_MARGIN = 1.15
"""A CPU limit is at least so many times what was used: the safety margin of the VerticalPodAutoscaler."""
LEAST = {Resource.CPU: 0.01, Resource.MEMORY: 16 * 2**20}
"""Smallest request in cores and bytes: one of nothing would change how a pod is treated by its node."""
GRAIN = {Resource.CPU: 0.001, Resource.MEMORY: 2**20}
"""Requests are rounded up to a multiple of this, so that people can read them."""
LOWER_SPREAD, LOWER_POWER, UPPER_SPREAD = 0.001, -2.0, 1.0
ROUNDING = 1 - 1e-12
"""A share this near to the one wanted has reached it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRules:
    """What holds for every container."""

    cpu_share: float = 0.95
    """Share of CPU time that is to be used at or under the request."""
    memory_level: float = 0.99
    """Quantile level of the peak within a day that memory requests are to hold."""

    def __post_init__(self) -> None:
        for name, value in (("cpu_share", self.cpu_share), ("memory_level", self.memory_level)):
            if not MIDDLE_LEVEL <= value <= HIGH_LEVEL:
                raise ValueError(f"{name} must lie in [{MIDDLE_LEVEL}, {HIGH_LEVEL}], got {value}")

    @property
    def levels(self) -> tuple[float, ...]:
        """Quantile levels to forecast at: dense enough to stand for the whole distribution of a step."""
        return tuple(sorted({0.05, 0.25, MIDDLE_LEVEL, 0.75, 0.9, 0.95, HIGH_LEVEL, self.memory_level}))


@dataclass(frozen=True, slots=True)
class UsageFan:
    """Quantiles of usage, [levels, steps], in the resource's base unit; one column for a peak."""

    levels: tuple[float, ...]
    values: FloatArray

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or len(self.values) != len(self.levels):
            raise ValueError(f"{len(self.levels)} levels, but values of shape {self.values.shape}")

    @property
    def is_finite(self) -> bool:
        """Whether every value is an amount."""
        return bool(self.values.size and np.isfinite(self.values).all() and (self.values >= 0).all())

    def highest(self, level: float) -> float:
        """The largest of the steps' quantiles at one of the levels."""
        return float(self.values[self.levels.index(level)].max())


@dataclass(frozen=True, slots=True)
class RequestRange:
    """What a container should request of one resource, in its base unit: lower ≤ target ≤ upper."""

    target: float
    lower: float
    upper: float
    because: str
    """What the target rests on, in words."""
    uncapped: float | None = None
    """The target without what the object allows; None before that was looked at."""


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """A container's last kill for want of memory, and what it is to have at least since."""

    at_seconds: float
    floor_bytes: float

    def is_kept(self, now_seconds: float) -> bool:
        """Whether it still counts."""
        return now_seconds - self.at_seconds < OOM_KEPT_SECONDS


def level_shares(levels: Sequence[float]) -> FloatArray:
    """Which share of a distribution each of its quantiles stands for: half-way to its neighbours; they add up to 1."""
    between = (np.asarray(levels[:-1]) + np.asarray(levels[1:])) / 2
    return np.diff(np.concatenate(([0.0], between, [1.0])))


def load_weighted_quantile(fan: UsageFan, share: float) -> float:
    """The usage at or under which that share of all that is used within the fan's steps is used."""
    used = (level_shares(fan.levels)[:, None] * fan.values).ravel()
    order = np.argsort(fan.values, axis=None, kind="stable")
    cumulative = np.cumsum(used[order])
    if cumulative[-1] <= 0:
        return 0.0
    place = int(np.searchsorted(cumulative, share * cumulative[-1] * ROUNDING))
    return float(fan.values.ravel()[order[min(place, len(order) - 1)]])


def cpu_request(mean: UsageFan, busiest: UsageFan, history_days: float, rules: RequestRules) -> RequestRange | Hold:
    """Cores for a container whose mean and busiest pod will use so much."""
    hold = _too_little(history_days, mean, busiest)
    if hold is not None:
        return hold
    wanted, skewed = load_weighted_quantile(mean, rules.cpu_share), load_weighted_quantile(busiest, MIDDLE_LEVEL)
    high = max(load_weighted_quantile(each, HIGH_LEVEL) for each in (mean, busiest))
    because = (
        f"{rules.cpu_share:.3g} of its CPU time is forecast at or under {wanted:.4g} cores in the mean pod"
        if wanted >= skewed
        else f"half of the CPU time of its busiest pod is forecast above {skewed:.4g} cores"
    )
    target = max(wanted, skewed)
    return _range(target, (load_weighted_quantile(mean, MIDDLE_LEVEL), high), history_days, because)


def memory_request(
    peak: UsageFan, highest_bytes: float, history_days: float, rules: RequestRules
) -> RequestRange | Hold:
    """Bytes for a container whose largest pod will peak so within a day; `highest_bytes` it used in the last one."""
    hold = _too_little(history_days, peak)
    if hold is not None:
        return hold
    wanted, seen = peak.highest(rules.memory_level), OBSERVED_MARGIN * highest_bytes
    because = (
        f"a peak of {wanted / 2**20:.4g} MiB within a day is forecast at level {rules.memory_level:g}"
        if wanted >= seen
        else f"it used {highest_bytes / 2**20:.4g} MiB within the last day, and a tenth is added"
    )
    high = max(peak.highest(HIGH_LEVEL), wanted)
    return _range(max(wanted, seen), (peak.highest(MIDDLE_LEVEL), high), history_days, because)


def after_out_of_memory(had_bytes: float) -> float:
    """What a container is to have after it was killed with so much, the larger of its request and its usage."""
    return max(had_bytes + OOM_LEAST_BYTES, OOM_RATIO * had_bytes)


def with_floor(memory: RequestRange, out_of_memory: OutOfMemory) -> RequestRange:
    """The memory request after a container was killed for want of it: less than the floor is surely too little."""
    floor = out_of_memory.floor_bytes
    if floor <= memory.target:
        return memory
    because = f"it was killed for want of memory, so that it gets {floor / 2**20:.4g} MiB; before, {memory.because}"
    return replace(
        memory,
        target=floor,
        lower=max(memory.lower, floor),
        upper=max(memory.upper, floor),
        because=because,
    )


def as_limit(cpu: RequestRange, highest_cores: float) -> RequestRange:
    """The CPU request where it is the limit too: what exceeds it is throttled, so that it holds the peak.

    `highest_cores` its busiest pod used in the last day. A request that leaves less than a tenth above that is out of
    bounds, so that a container that is held back by its limit grows until it is not.
    """
    floor = LIMIT_MARGIN * highest_cores
    if floor <= cpu.target:
        return cpu
    added = f"{LIMIT_MARGIN - 1:.0%}"
    because = f"its limit is its request, and it used {highest_cores:.4g} cores within the last day; {added} is added"
    lower = max(cpu.lower, OBSERVED_MARGIN * highest_cores)
    return replace(cpu, target=floor, lower=lower, upper=max(cpu.upper, floor), because=because)


def capped(wanted: RequestRange, resource: Resource, least: float | None, most: float | None) -> RequestRange:
    """The request as it is recommended: in whole millicores or mebibytes, within what the object allows."""
    uncapped = rounded_up(wanted.target, resource)

    def within(value: float) -> float:
        value = max(value, LEAST[resource], least or 0.0)
        return value if most is None else min(value, most)

    target = within(uncapped)
    because = wanted.because
    if target < uncapped:
        because += "; capped by maxAllowed"
    elif target > uncapped:
        because += "; raised to minAllowed" if target == least else "; raised to the smallest request"
    return RequestRange(
        target,
        within(rounded_up(wanted.lower, resource)),
        within(rounded_up(wanted.upper, resource)),
        because,
        uncapped,
    )


def _range(target: float, middle_and_high: tuple[float, float], history_days: float, because: str) -> RequestRange:
    middle, high = middle_and_high
    lower = middle * (1 + LOWER_SPREAD / history_days) ** LOWER_POWER
    upper = high * (1 + UPPER_SPREAD / history_days)
    said = f"{because}, from {history_days:.1f} days of its usage"
    return RequestRange(target, min(lower, target), max(upper, target), said)


def _too_little(history_days: float, *fans: UsageFan) -> Hold | None:
    if history_days < LEAST_HISTORY_DAYS:
        text = f"{history_days * 24:.1f} hours of its usage are known, and a day is needed"
        return Hold(Reason(ReasonCode.LITTLE_HISTORY, text))
    if not all(fan.is_finite for fan in fans):
        return Hold(Reason(ReasonCode.NO_FORECAST, "what is forecast for it is no amount"))
    return None


def rounded_up(value: float, resource: Resource) -> float:
    """The next whole millicore or mebibyte."""
    grain = GRAIN[resource]
    # A thousandth of a grain more is the arithmetic's, not the forecast's.
    return ceil(value / grain - 1e-3) * grain
