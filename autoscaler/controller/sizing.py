"""What came of sizing a workload's containers in one cycle, and how it is told: status, condition, Events.

Values in, values out. The recommendation in the status has the VerticalPodAutoscaler's form.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autoscaler.cluster.containers import SIZED, PodState
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.autoscalers import as_time
from autoscaler.controller.planning import Plan
from autoscaler.controller.ports import Event
from autoscaler.controller.quantities import amount_text
from autoscaler.decisions.requests import OutOfMemory, RequestRange
from autoscaler.decisions.resizes import DEFERRED, IN_PROGRESS, INFEASIBLE, PodResize, PodsReview
from predictor.usage.panel import Resource

JsonObject = dict[str, Any]
PODS_NAMED = 3
"""How many pods an Event names."""
NOT_ASKED = Hold(Reason(ReasonCode.NO_OBSERVATION, "its usage is being read"))
"""Before the first answer."""


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """What is recommended for one container, by resource, or why nothing is."""

    name: str
    wanted: Mapping[Resource, RequestRange | Hold]
    out_of_memory: OutOfMemory | None = None

    @property
    def ranges(self) -> dict[Resource, RequestRange]:
        """What can be recommended."""
        return {resource: each for resource, each in self.wanted.items() if isinstance(each, RequestRange)}

    @property
    def reason(self) -> str:
        """Why, in a sentence."""
        said = {
            resource: each.because if isinstance(each, RequestRange) else f"none, as {each.reason.message}"
            for resource, each in self.wanted.items()
        }
        if len(said) > 1 and len(set(said.values())) == 1:
            return next(iter(said.values()))
        return "; ".join(f"{resource.value}: {text}" for resource, text in said.items())


@dataclass(frozen=True, slots=True)
class Sizing:
    """What came of sizing one workload's containers in one cycle."""

    plan: Plan
    containers: tuple[ContainerRequest, ...]
    known_until_seconds: float | None
    """End of the usage that it rests on; None before the first answer."""
    hold: Hold | None = None
    """Why nothing is recommended at all."""
    review: PodsReview | None = None
    """What is to become of its pods; None where they are not looked at."""
    kept_from: str = ""
    """Why no pod is resized now."""
    resized: tuple[PodResize, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    """Name and why, of pods that the API server did not resize, now or lately."""
    last_resize_seconds: float | None = None


def resize_text(resize: PodResize) -> str:
    """The change of one pod's requests, and limits where they move too, for a person."""
    parts = []
    for each in resize.containers:
        for resource in SIZED:
            new = each.after.of(resource)
            if new is not None:
                old = each.before.of(resource)
                before = "none" if old is None else amount_text(resource, old)
                limit = ", its limit too" if each.with_limits else ""
                parts.append(f"{each.name} {resource.value} {before} -> {amount_text(resource, new)}{limit}")
    return f"{resize.pod.name} ({', '.join(parts)})"


def sizing_notices(sizing: Sizing, before: Mapping[str, Any]) -> Iterator[Event]:
    """Events about pods that were resized, and about those whose node cannot; `before` is the status until now."""
    about, review = sizing.plan.autoscaler, sizing.review
    if sizing.resized:
        named = "; ".join(resize_text(each) for each in sizing.resized[:PODS_NAMED])
        more = f"; and {len(sizing.resized) - PODS_NAMED} more" if len(sizing.resized) > PODS_NAMED else ""
        yield Event(about, "ResizedPods", f"{len(sizing.resized)} pods: {named}{more}")
    if review is None:
        return
    known = before.get("resize") or {}
    for reason, field_name in ((INFEASIBLE, "infeasible"), (DEFERRED, "deferred")):
        waiting = [pod for pod in review.pending if pod.pending is not None and pod.pending.reason == reason]
        if len(waiting) > int(known.get(field_name) or 0):
            said = waiting[0].pending.message if waiting[0].pending is not None else ""
            note = f"{len(waiting)} pods, such as {waiting[0].name}: {said or reason}"
            yield Event(about, f"Resize{reason}", note, is_warning=True)
    if sizing.refused and not (known.get("message") or "").startswith("refused"):
        name, why = sizing.refused[0]
        yield Event(about, "FailedResize", f"{len(sizing.refused)} pods, such as {name}: {why}", is_warning=True)


def sizing_status(sizing: Sizing | None, before: Mapping[str, Any]) -> JsonObject:
    """What a status says of requests; before the first answer what it said until now."""
    if sizing is None:
        return {}
    if sizing.hold is NOT_ASKED:
        return {name: before[name] for name in ("recommendation", "resize") if name in before}
    containers = []
    for each in sizing.containers:
        entry: JsonObject = {"name": each.name}
        for name, value_of in _SHOWN:
            amounts = {r.value: amount_text(r, value_of(each.ranges[r])) for r in SIZED if r in each.ranges}
            if amounts:
                entry[name] = amounts
        entry["reason"] = each.reason
        if each.out_of_memory is not None:
            killed = each.out_of_memory
            floor = amount_text(Resource.MEMORY, killed.floor_bytes)
            entry["outOfMemory"] = {"time": as_time(killed.at_seconds), "memory": floor}
        containers.append(entry)
    answer: JsonObject = {"recommendation": {"containers": containers}}
    if sizing.known_until_seconds is not None:
        answer["recommendation"]["time"] = as_time(sizing.known_until_seconds)
    if sizing.review is not None:
        answer["resize"] = _resize_status(sizing, sizing.review)
    return answer


_SHOWN: tuple[tuple[str, Callable[[RequestRange], float]], ...] = (
    ("target", lambda each: each.target),
    ("lowerBound", lambda each: each.lower),
    ("upperBound", lambda each: each.upper),
    ("uncappedTarget", lambda each: each.target if each.uncapped is None else each.uncapped),
)


def _resize_status(sizing: Sizing, review: PodsReview) -> JsonObject:
    done = len(sizing.resized)
    answer: JsonObject = {
        "upToDate": review.up_to_date + done,
        "waiting": len(review.resizes) - done,
        "inProgress": review.count(IN_PROGRESS),
        "deferred": review.count(DEFERRED),
        "infeasible": review.count(INFEASIBLE),
        "leftAlone": len(review.left_alone),
    }
    if sizing.last_resize_seconds is not None:
        answer["lastResizeTime"] = as_time(sizing.last_resize_seconds)
    said = []
    if sizing.refused:
        said.append(f"refused for {sizing.refused[0][0]}: {sizing.refused[0][1]}")
    if sizing.kept_from and review.resizes:
        said.append(sizing.kept_from)
    said += [
        f"{pod.name} is {pod.pending.reason}: {pod.pending.message}" for pod in _waiting(review)[:1] if pod.pending
    ]
    said += [f"{name} is left alone: {why}" for name, why in review.left_alone[:1]]
    if said:
        answer["message"] = "; ".join(said)
    return answer


def _waiting(review: PodsReview) -> list[PodState]:
    return [pod for pod in review.pending if pod.pending is not None and pod.pending.reason != IN_PROGRESS]


def sizing_essence(status: Mapping[str, Any]) -> list[object]:
    """What of it is worth a write at once: who has a recommendation, kills, and how far the pods have come."""
    containers = (status.get("recommendation") or {}).get("containers") or ()
    resize = status.get("resize") or {}
    return [
        [(each.get("name"), sorted(each.get("target") or ()), each.get("outOfMemory")) for each in containers],
        # Not those in progress: they are so for seconds only.
        [resize.get(name) for name in ("lastResizeTime", "upToDate", "waiting", "deferred", "infeasible", "leftAlone")],
    ]


def recommendation_provided(sizing: Sizing) -> tuple[bool, str, str]:
    """The condition of that name: whether every container has a target, why, and a sentence."""
    if sizing.hold is not None:
        return False, sizing.hold.reason.code.value, sizing.hold.reason.message
    if not sizing.containers:
        return False, "NoContainers", "every container is left alone"
    for each in sizing.containers:
        for missing in each.wanted.values():
            if isinstance(missing, Hold):
                return False, missing.reason.code.value, f"container {each.name}: {missing.reason.message}"
    return True, "RecommendationProvided", f"for {len(sizing.containers)} containers"
