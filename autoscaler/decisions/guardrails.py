"""Limits on what a decision may do: stabilisation windows, rate limits and bounds, with the HPA's semantics.

One implementation for every policy that sets replicas. The past is explicit: a memory goes in, a new one comes out.
Source of the semantics: kubernetes/kubernetes, pkg/controller/podautoscaler, HPA v2 `behavior`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import NamedTuple

from autoscaler.cluster.reasons import Reason, ReasonCode, replicas_text


class PolicyKind(StrEnum):
    """What a rate limit counts."""

    PODS = "Pods"
    PERCENT = "Percent"


class Select(StrEnum):
    """Which of several rate limits holds: the one that allows most, the one that allows least, or no scaling."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """At most `value` pods, or percent of the replicas at the period's start, within `period_seconds`."""

    kind: PolicyKind
    value: int
    period_seconds: float

    def __post_init__(self) -> None:
        if self.value <= 0 or self.period_seconds <= 0:
            raise ValueError(f"a scaling policy needs a value and a period above 0, got {self}")


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """The guardrails in one direction."""

    stabilisation_seconds: float
    policies: tuple[ScalingPolicy, ...]
    select: Select = Select.MAX
    tolerance: float = 0.1
    """Relative change below which the replicas are left alone."""

    def __post_init__(self) -> None:
        if not self.policies and self.select is not Select.DISABLED:
            raise ValueError("scaling rules need at least one policy; to forbid scaling, select Disabled")
        if not 0 <= self.tolerance < 1 or self.stabilisation_seconds < 0:
            raise ValueError(f"tolerance must be in [0, 1) and the window at least 0 s, got {self}")


UP_DEFAULT = ScalingRules(0.0, (ScalingPolicy(PolicyKind.PODS, 4, 15), ScalingPolicy(PolicyKind.PERCENT, 100, 15)))
DOWN_DEFAULT = ScalingRules(300.0, (ScalingPolicy(PolicyKind.PERCENT, 100, 15),))


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The guardrails in both directions; the defaults are the HPA's."""

    up: ScalingRules = UP_DEFAULT
    down: ScalingRules = DOWN_DEFAULT

    def within_tolerance(self, ratio: float) -> bool:
        """Whether wanted ÷ current capacity is too near to 1 to be acted on."""
        return 1.0 - self.down.tolerance <= ratio <= 1.0 + self.up.tolerance


class Recommendation(NamedTuple):
    """Replicas that were recommended before any guardrail, and when."""

    at_seconds: float
    replicas: int


class ScaleEvent(NamedTuple):
    """A change of replicas that was carried out, and when."""

    at_seconds: float
    change: int


class ReplicaMemory(NamedTuple):
    """What the guardrails remember of one workload.

    Only recommendations that can still decide are kept: one is forgotten as soon as a newer one is at least as
    high (`highs`) or as low (`lows`), so both stay short however long the windows are.
    """

    highs: tuple[Recommendation, ...] = ()
    """Oldest first, replicas falling; the first within the scale-down window is its maximum."""
    lows: tuple[Recommendation, ...] = ()
    """Oldest first, replicas rising; the first within the scale-up window is its minimum."""
    events: tuple[ScaleEvent, ...] = ()
    """Oldest first; within the longest period of any policy."""


NO_MEMORY = ReplicaMemory()
HPA_BEHAVIOUR = Behaviour()


class Guarded(NamedTuple):
    """Replicas after the guardrails, each one that bit, and the memory with this recommendation in it."""

    replicas: int
    reasons: tuple[Reason, ...]
    memory: ReplicaMemory


def guarded(
    current: int,
    recommended: int,
    bounds: tuple[int, int],
    memory: ReplicaMemory,
    behaviour: Behaviour,
    *,
    now_seconds: float,
) -> Guarded:
    """The recommendation stabilised, rate-limited and clamped to `bounds` (minimum, maximum), in that order.

    An empty memory starts with `current` as a recommendation, so that a controller that has just started removes
    nothing before it has watched for a whole scale-down window. The bounds hold against everything else.
    """
    memory = watched(memory, current, behaviour, now_seconds)
    reasons: tuple[Reason, ...] = ()
    replicas = _stabilised(current, recommended, memory, behaviour, now_seconds)
    if replicas != recommended:
        reasons = (_stabilised_reason(replicas, recommended, behaviour),)
    memory = _with_recommendation(memory, recommended, behaviour, now_seconds)
    if replicas > current:
        limit = max(current, up_limit(current, memory.events, behaviour.up, now_seconds))
        if replicas > limit:
            reasons += (Reason(ReasonCode.SCALE_UP_LIMIT, f"the scale-up policies allow {replicas_text(limit)} now"),)
            replicas = limit
    elif replicas < current:
        limit = min(current, down_limit(current, memory.events, behaviour.down, now_seconds))
        if replicas < limit:
            reasons += (
                Reason(ReasonCode.SCALE_DOWN_LIMIT, f"the scale-down policies allow {replicas_text(limit)} now"),
            )
            replicas = limit
    minimum, maximum = bounds
    if replicas > maximum:
        reasons += (
            Reason(ReasonCode.TOO_MANY_REPLICAS, f"{replicas_text(replicas)} wanted, the maximum is {maximum}"),
        )
        replicas = maximum
    elif replicas < minimum:
        reasons += (Reason(ReasonCode.TOO_FEW_REPLICAS, f"{replicas_text(replicas)} wanted, the minimum is {minimum}"),)
        replicas = minimum
    return Guarded(replicas, reasons, memory)


def watched(memory: ReplicaMemory, current: int, behaviour: Behaviour, now_seconds: float) -> ReplicaMemory:
    """The memory, started with `current` as a recommendation where it is empty."""
    return memory if memory.highs else _with_recommendation(memory, current, behaviour, now_seconds)


def remembered_scale(memory: ReplicaMemory, change: int, behaviour: Behaviour, now_seconds: float) -> ReplicaMemory:
    """The memory after `change` replicas were really added (or, below 0, removed); call it once a command succeeded."""
    longest = max((p.period_seconds for rules in (behaviour.up, behaviour.down) for p in rules.policies), default=0.0)
    cutoff = now_seconds - longest
    kept = tuple(event for event in memory.events if event.at_seconds > cutoff)
    return memory._replace(events=(*kept, ScaleEvent(now_seconds, change)))


def up_limit(current: int, events: Sequence[ScaleEvent], rules: ScalingRules, now_seconds: float) -> int:
    """Most replicas that the policies allow now. Percentages round up, so that one replica can always be added."""
    if rules.select is Select.DISABLED:
        return current
    proposals = []
    for policy in rules.policies:
        start = current - _changed(events, now_seconds - policy.period_seconds)
        if policy.kind is PolicyKind.PODS:
            proposals.append(start + policy.value)
        else:
            # Divided last: 1 + value/100 first would lift exact products over the next whole number.
            proposals.append(ceil(start * (100 + policy.value) / 100))
    return max(proposals) if rules.select is Select.MAX else min(proposals)


def down_limit(current: int, events: Sequence[ScaleEvent], rules: ScalingRules, now_seconds: float) -> int:
    """Fewest replicas that the policies allow now. Percentages round down, as the HPA does."""
    if rules.select is Select.DISABLED:
        return current
    proposals = []
    for policy in rules.policies:
        start = current - _changed(events, now_seconds - policy.period_seconds)
        if policy.kind is PolicyKind.PODS:
            proposals.append(start - policy.value)
        else:
            proposals.append(int(start * (100 - policy.value) / 100))
    return min(proposals) if rules.select is Select.MAX else max(proposals)


def _stabilised(current: int, recommended: int, memory: ReplicaMemory, behaviour: Behaviour, now_seconds: float) -> int:
    """`current`, raised to the lowest recommendation of the up window and lowered to the highest of the down window."""
    highest = recommended
    cutoff = now_seconds - behaviour.down.stabilisation_seconds
    for at_seconds, replicas in memory.highs:
        if at_seconds > cutoff:
            highest = max(highest, replicas)
            break
    lowest = recommended
    cutoff = now_seconds - behaviour.up.stabilisation_seconds
    for at_seconds, replicas in memory.lows:
        if at_seconds > cutoff:
            lowest = min(lowest, replicas)
            break
    return min(max(current, lowest), highest)


def _stabilised_reason(replicas: int, recommended: int, behaviour: Behaviour) -> Reason:
    if replicas > recommended:
        window = behaviour.down.stabilisation_seconds
        return Reason(
            ReasonCode.SCALE_DOWN_STABILIZED,
            f"{replicas_text(recommended)} would do now, but up to {replicas} were needed within the last {window:g} s",
        )
    window = behaviour.up.stabilisation_seconds
    return Reason(
        ReasonCode.SCALE_UP_STABILIZED,
        f"{replicas_text(recommended)} would be set now, but {replicas} would have done within the last {window:g} s",
    )


def _with_recommendation(
    memory: ReplicaMemory, replicas: int, behaviour: Behaviour, now_seconds: float
) -> ReplicaMemory:
    newest = Recommendation(now_seconds, replicas)
    cutoff = now_seconds - behaviour.down.stabilisation_seconds
    highs: tuple[Recommendation, ...] = (newest,)
    if memory.highs and memory.highs[0][1] > replicas:
        highs = (*[r for r in memory.highs if r[1] > replicas and r[0] > cutoff], newest)
    lows: tuple[Recommendation, ...] = ()
    if behaviour.up.stabilisation_seconds:
        cutoff = now_seconds - behaviour.up.stabilisation_seconds
        lows = (*[r for r in memory.lows if r[1] < replicas and r[0] > cutoff], newest)
    return ReplicaMemory(highs, lows, memory.events)


def _changed(events: Sequence[ScaleEvent], cutoff_seconds: float) -> int:
    return sum(change for at_seconds, change in events if at_seconds > cutoff_seconds)
