"""What a PredictiveAutoscaler asks for and what its status remembers, as values. No client, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from autoscaler.cluster.containers import NO_AMOUNTS, SIZED, Amounts
from autoscaler.cluster.domains import DomainKind
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.cluster.snapshot import Rung
from autoscaler.decisions.budget import NO_VIOLATIONS, BudgetMemory
from autoscaler.decisions.capacity_curve import LearnedCurve
from autoscaler.decisions.guardrails import NO_MEMORY, ReplicaMemory, ScalingPolicy, Select
from predictor.usage.panel import Resource

API_VERSION = "foresize.io/v1alpha1"
KIND = "PredictiveAutoscaler"
PAUSED_ANNOTATION = "foresize.io/paused"


class Mode(StrEnum):
    """Whether decisions are carried out."""

    OBSERVE = "Observe"
    AUTO = "Auto"


class Actuator(StrEnum):
    """What is written to carry a decision out."""

    SCALE = "Scale"
    """The target's scale sub-resource."""
    HPA_MIN_REPLICAS = "HPAMinReplicas"
    """`minReplicas` of the HorizontalPodAutoscaler that is in charge of the target."""


@dataclass(frozen=True, slots=True)
class TargetRef:
    """A workload in the namespace of the object that names it."""

    api_version: str
    kind: str
    name: str

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.api_version.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class GivenRules:
    """What an object says of the guardrails in one direction; None is not given."""

    stabilisation_seconds: float | None = None
    policies: tuple[ScalingPolicy, ...] | None = None
    select: Select = Select.MAX
    tolerance: float | None = None


NO_RULES = GivenRules()


class IndicatorKind(StrEnum):
    """What is measured to say whether the SLA is kept."""

    LATENCY = "latency"
    """In seconds; kept while it is at or under the bound."""
    AVAILABILITY = "availability"
    """Share of requests that are good; kept while it is at or above the bound."""


@dataclass(frozen=True, slots=True)
class Indicator:
    """What an object says by whether its SLA is kept in a step: PromQL with one value, or a histogram of latencies."""

    kind: IndicatorKind
    bound: float
    """Seconds, or a share in (0, 1)."""
    query: str = ""
    histogram: str = ""
    """Its name, with matchers where there are some; in the place of a query."""
    percentile: float = 99.0
    """Of the histogram, that must be within the bound."""

    def is_violated_by(self, value: float) -> bool:
        """Whether this value of a step is beyond the bound."""
        return value > self.bound if self.kind is IndicatorKind.LATENCY else value < self.bound

    def promql(self, window_seconds: int) -> str:
        """What to ask Prometheus; of a histogram the percentile over the window that ends with the step."""
        if self.query:
            return self.query
        name, brace, matchers = self.histogram.partition("{")
        buckets = f"{name.strip()}_bucket{brace}{matchers}"
        level = f"{self.percentile / 100:.10g}"
        return f"histogram_quantile({level}, sum by (le) (rate({buckets}[{window_seconds}s])))"


@dataclass(frozen=True, slots=True)
class Prices:
    """What one replica costs an hour, and one minute in violation, in the same currency."""

    replica_hour: float
    violated_minute: float


class VerticalMode(StrEnum):
    """What is done about the requests of a workload's containers."""

    OFF = "Off"
    RECOMMEND = "Recommend"
    """Written into the status."""
    IN_PLACE = "InPlace"
    """Running pods are resized too."""


EVERY_CONTAINER = "*"
"""Names the policy of the containers that have none of their own."""


@dataclass(frozen=True, slots=True)
class ContainerPolicy:
    """What an object says of one container's requests."""

    is_off: bool = False
    """Whether it is left alone."""
    controlled: tuple[Resource, ...] = SIZED
    least: Amounts = NO_AMOUNTS
    most: Amounts = NO_AMOUNTS


@dataclass(frozen=True, slots=True)
class Vertical:
    """What an object says of requests."""

    mode: VerticalMode = VerticalMode.OFF
    policies: tuple[tuple[str, ContainerPolicy], ...] = ()
    """By name of the container."""

    def policy(self, container: str) -> ContainerPolicy:
        """What holds for a container: its own policy, that for every one, or the defaults."""
        named = dict(self.policies)
        return named.get(container) or named.get(EVERY_CONTAINER) or ContainerPolicy()

    def changes(self, resource: Resource) -> bool:
        """Whether requests of the resource may be changed in any container, named or not."""
        if self.mode is not VerticalMode.IN_PLACE or resource not in SIZED:
            return False
        named = {EVERY_CONTAINER: ContainerPolicy(), **dict(self.policies)}
        return any(not each.is_off and resource in each.controlled for each in named.values())


NO_VERTICAL = Vertical()


@dataclass(frozen=True, slots=True)
class ScheduledFloor:
    """Fewest replicas during an event that comes round by a cron expression."""

    name: str
    start: str
    """Cron expression of five fields."""
    duration_seconds: float
    min_replicas: int
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        try:
            CronSim(self.start, datetime(2000, 1, 1, tzinfo=ZoneInfo(self.time_zone)))
        except CronSimError as error:
            raise ValueError(f"schedule {self.name}: {self.start!r} is no time that ever comes ({error})") from error

    def is_active(self, now_seconds: float, lead_seconds: float) -> bool:
        """Whether an event is under way, or begins within the lead time, so that its replicas are to be ordered."""
        begun = _last_start(self.start, self.time_zone, int((now_seconds + lead_seconds) // 60))
        return begun is not None and begun + self.duration_seconds > now_seconds


@lru_cache(maxsize=10_000)
def _last_start(expression: str, time_zone: str, minute: int) -> float | None:
    """Epoch second of the last moment that a cron expression names, up to and with a minute since the epoch."""
    after = datetime.fromtimestamp(60 * minute, ZoneInfo(time_zone)) + timedelta(minutes=1)
    begun = next(CronSim(expression, after, reverse=True), None)
    return None if begun is None else begun.timestamp()


class Readiness(NamedTuple):
    """How many replicas were Ready, and since when."""

    changes: tuple[tuple[float, int], ...] = ()
    """Epoch second and how many from then on, oldest first; empty where nothing is known."""
    seen_at_seconds: float = 0.0
    """When that was last looked at."""

    def seen(self, ready: int, now_seconds: float, longest_gap_seconds: float) -> "Readiness":
        """With what is Ready now; nothing is known of a time in which nobody looked."""
        changes = self.changes if now_seconds - self.seen_at_seconds <= longest_gap_seconds else ()
        if not changes or changes[-1][1] != ready:
            changes = (*changes, (now_seconds, ready))
        return Readiness(changes, now_seconds)

    def since(self, seconds: float) -> "Readiness":
        """Without what was over before then."""
        first = sum(at <= seconds for at, _ in self.changes[1:])
        return self._replace(changes=self.changes[first:]) if first else self

    def share_below(self, replicas: int, start_seconds: float, end_seconds: float) -> float | None:
        """Share of a span in which fewer were Ready; None where that is not known of all of it."""
        if not self.changes or self.changes[0][0] > start_seconds or self.seen_at_seconds < end_seconds:
            return None
        ends = (*(at for at, _ in self.changes[1:]), end_seconds)
        below = sum(
            max(0.0, min(until, end_seconds) - max(at, start_seconds))
            for (at, ready), until in zip(self.changes, ends, strict=True)
            if ready < replicas
        )
        return below / (end_seconds - start_seconds)


NOTHING_READY = Readiness()


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is known of the past of one object: kept from cycle to cycle, and in its status for the next leader."""

    replicas: ReplicaMemory = NO_MEMORY
    target_uid: str = ""
    """Of the target that all this is about: one that was made anew has no past."""
    last_replicas: int | None = None
    """What the target's scale asked for when it was last seen, or was set to by us."""
    last_minimum: int | None = None
    """The same of `minReplicas` of the HPA in charge."""
    was_read: bool = False
    """Whether it is what another copy left in the status, and nothing was seen since."""
    set_from_generation: int = 0
    """Generation that the target had before we last set its scale: what shows it, or an earlier one, is older."""
    changed_by_others_at_seconds: float | None = None
    """When the scale was last found changed by somebody else."""
    last_scale_seconds: float | None = None
    """When we last changed it."""
    rung: Rung | None = None
    lead_seconds: float | None = None
    """The lead time that was measured last."""
    budget: BudgetMemory = NO_VIOLATIONS
    capacity: LearnedCurve | None = None
    """What its replicas carry, where that is learned."""
    readiness: Readiness = NOTHING_READY
    """Not in the status: what a new leader has not seen of a step is not known."""


NOTHING_REMEMBERED = Remembered()


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictiveAutoscaler:
    """One object as the API server has it."""

    namespace: str
    name: str
    uid: str
    """Changes when the object is deleted and made again under the same name."""
    generation: int
    """Counts changes of the spec."""
    target: TargetRef
    max_replicas: int
    min_replicas: int = 1
    mode: Mode = Mode.OBSERVE
    actuator: Actuator = Actuator.SCALE
    percentile: float | None = None
    """None: what the prices say; without prices the controller's setting."""
    prices: Prices | None = None
    indicator: Indicator | None = None
    """What says whether the SLA is kept; None: whether demand fitted what was ready."""
    survives: DomainKind | None = None
    """What may be lost without demand exceeding what is left of its replicas; None: nothing."""
    resource: Resource = Resource.CPU
    """What demand is."""
    query: str = ""
    """PromQL whose value demand is, of the whole workload; empty where demand is the usage of a resource."""
    target_utilisation: float | None = None
    """Share of its request that one replica should carry; None, with no target value: the controller's setting."""
    target_value: float | None = None
    """Demand that one replica should carry, in the resource's base unit."""
    up: GivenRules = NO_RULES
    down: GivenRules = NO_RULES
    schedule: tuple[ScheduledFloor, ...] = ()
    vertical: Vertical = NO_VERTICAL
    scales: bool = True
    """Whether it sets replicas; if not, it has `vertical` alone."""
    is_paused: bool = False
    pause_wish: str = "true"
    """What the annotation says, where it is paused."""
    status: dict[str, Any] = field(default_factory=dict)
    """Its status as it was last read."""
    problem: str = ""
    """Why its spec cannot be followed, where an older schema let it in."""

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def workload(self) -> str:
        """The target as `namespace/kind/name`."""
        return f"{self.namespace}/{self.target.kind}/{self.target.name}"

    @property
    def looks_at_pods(self) -> bool:
        """Whether it needs to know its target's pods one by one."""
        return self.vertical.mode is not VerticalMode.OFF or self.survives is not None

    @property
    def learns_capacity(self) -> bool:
        """Whether what replicas carry is learned: demand is load, latency is promised, and no target is given."""
        is_load = self.resource is Resource.REQUESTS or bool(self.query)
        is_told = self.target_value is not None or self.target_utilisation is not None
        is_late = self.indicator is not None and self.indicator.kind is IndicatorKind.LATENCY
        return self.scales and not self.problem and is_load and is_late and not is_told

    @property
    def may_learn_utilisation(self) -> bool:
        """Whether nothing says how full replicas may be: demand is CPU usage, with neither latency nor target."""
        is_told = self.target_value is not None or self.target_utilisation is not None
        is_late = self.indicator is not None and self.indicator.kind is IndicatorKind.LATENCY
        is_cpu = self.resource is Resource.CPU and not self.query
        return self.scales and not self.problem and is_cpu and not is_late and not is_told

    @property
    def steers(self) -> bool:
        """Whether it writes anything to its target."""
        return self.mode is Mode.AUTO and (self.scales or self.vertical.mode is VerticalMode.IN_PLACE)

    def floor(self, now_seconds: float, lead_seconds: float) -> tuple[int, str]:
        """Fewest replicas now, and the name of the event that asks for them; empty where it is `minReplicas`."""
        events = [(each.min_replicas, each.name) for each in self.schedule if each.is_active(now_seconds, lead_seconds)]
        highest = max(events, default=(0, ""))
        return highest if highest[0] > self.min_replicas else (self.min_replicas, "")


class RivalKind(StrEnum):
    """What else can steer a workload."""

    HPA = "HorizontalPodAutoscaler"
    VPA = "VerticalPodAutoscaler"
    SCALED_OBJECT = "ScaledObject"
    PREDICTIVE = KIND


@dataclass(frozen=True, slots=True)
class Rival:
    """Another object that steers a workload's size."""

    kind: RivalKind
    namespace: str
    name: str
    target: TargetRef
    uid: str = ""
    resources: tuple[Resource, ...] = ()
    """What a vertical one changes the requests of; empty is all that it can."""
    min_replicas: int = 1
    """Of a HorizontalPodAutoscaler."""
    max_replicas: int = 0
    is_set_by_us: bool = False
    """Whether its minimum is what a copy of this controller wrote."""
    owner: str = ""
    """Kind and name of the object that made this one and keeps it, such as `ScaledObject/cart`."""

    @property
    def shown(self) -> str:
        """For a reader."""
        return f"{self.kind.value} {self.name}"


def conflict(autoscaler: PredictiveAutoscaler, rivals: Sequence[Rival]) -> Hold | None:
    """Why nothing may be written for an object: what else steers its target. None where nothing does.

    `rivals` steer the same target; the object itself is not among them. With `HPAMinReplicas` exactly one
    HorizontalPodAutoscaler must be there, and one that another object keeps as it wants cannot be steered.
    """
    if not rivals and autoscaler.actuator is Actuator.SCALE:
        return None
    if not autoscaler.scales and autoscaler.vertical.mode is not VerticalMode.IN_PLACE:
        return None
    hpas = [each for each in rivals if each.kind is RivalKind.HPA]
    others = [each for each in rivals if each.kind is not RivalKind.HPA and _disturbs(autoscaler, each)]
    if autoscaler.actuator is Actuator.SCALE:
        kept = {each.name for each in others if each.kind is RivalKind.SCALED_OBJECT}
        # KEDA makes an HPA of each ScaledObject: naming both says the same twice.
        others += [each for each in hpas if each.owner.partition("/")[2] not in kept]
    elif not others:
        if not hpas:
            return _conflict(
                f"actuator {autoscaler.actuator.value} needs a HorizontalPodAutoscaler of {autoscaler.workload}"
            )
        if len(hpas) > 1:
            return _conflict(f"{len(hpas)} HorizontalPodAutoscalers steer {autoscaler.workload}")
        if hpas[0].owner:
            return _conflict(f"{hpas[0].shown} is kept by {hpas[0].owner}, which would undo every change of it")
    if not others:
        return None
    names = ", ".join(each.shown for each in others)
    return _conflict(f"{names} also steers {autoscaler.workload}; nothing is written until only one does")


def _disturbs(autoscaler: PredictiveAutoscaler, rival: Rival) -> bool:
    """A vertical autoscaler that changes the requests of what demand is would move what one replica carries; one that
    changes the requests that the object itself does would fight it."""
    if rival.kind is not RivalKind.VPA:
        return True
    if any(autoscaler.vertical.changes(resource) for resource in rival.resources or SIZED):
        return True
    if not autoscaler.scales:
        return False
    return autoscaler.target_value is None and (not rival.resources or autoscaler.resource in rival.resources)


def _conflict(message: str) -> Hold:
    return Hold(Reason(ReasonCode.CONFLICT, message))


@lru_cache(maxsize=10_000)
def as_time(seconds: float) -> str:
    """An epoch second as Kubernetes writes times, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@lru_cache(maxsize=10_000)
def as_micro_time(seconds: float) -> str:
    """An epoch second as Kubernetes writes times that need more than seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds_of(time: str) -> float:
    """The epoch second of a time as Kubernetes writes it. Raises ValueError."""
    return datetime.fromisoformat(time).timestamp()
