"""Sizes the containers of workloads whose object asks for it: recommends, and resizes running pods to that in place.

Runs in every cycle after the replicas, on the newest advice that there is. Nothing is resized while a rollout is in
progress, in a pause, in a conflict, or on advice that has grown old; and never more than a few pods of a workload at
once. What was refused is not asked for again for a while.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from autoscaler.cluster.containers import NO_AMOUNTS, SIZED, Amounts, PodState
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.advisor import Advice, ContainerAdvice, RequestAdvisor
from autoscaler.controller.autoscalers import ContainerPolicy, VerticalMode, as_time, seconds_of
from autoscaler.controller.planning import Plan
from autoscaler.controller.ports import TargetWorkload
from autoscaler.controller.quantities import quantity
from autoscaler.controller.records import ActResult, Outcome
from autoscaler.controller.sizing import NOT_ASKED, ContainerRequest, Sizing
from autoscaler.decisions.requests import (
    OutOfMemory,
    RequestRange,
    after_out_of_memory,
    as_limit,
    capped,
    with_floor,
)
from autoscaler.decisions.resizes import GUARANTEED, PodResize, PodsReview, ResizeRules, review_pods
from autoscaler.settings import VerticalSettings
from predictor.serving.bundle import Bundle
from predictor.usage.containers import ContainerName
from predictor.usage.panel import Resource

log = structlog.get_logger("autoscaler.vertical")

REFUSED_SECONDS = 120.0
"""What the API server refused is tried again after this long: somebody may have mended the role."""
OLDEST_ADVICE_SECONDS = 3600.0
"""Advice on usage that ended longer ago resizes nothing; it stays readable."""
FRESH_SECONDS = 900.0
"""Usage that ended longer ago does not say what is used now: no memory is cut then."""
NO_MEASUREMENT = Hold(Reason(ReasonCode.NO_OBSERVATION, "no usage of it was measured"))

Write = Callable[[Plan, PodResize], ActResult]
"""Resizes one pod for a plan, within what the controller may write."""


@dataclass
class VerticalScaling:
    """Advice turned into recommendations and resizes; remembers kills, refusals and the last resizes."""

    advisor: RequestAdvisor
    settings: VerticalSettings

    def __post_init__(self) -> None:
        self._rules = ResizeRules(tolerance=self.settings.tolerance)
        self._killed: dict[tuple[str, str], OutOfMemory] = {}
        """By uid of the object and container."""
        self._refused: dict[str, tuple[float, str]] = {}
        """By uid of the pod: until when it is not asked again, and why."""
        self._resized_at: dict[str, float] = {}
        """By uid of the object."""

    def forget(self) -> None:
        """Leaves nothing of an own leadership: another copy may have resized and seen kills since."""
        self._killed, self._refused, self._resized_at = {}, {}, {}

    def size(
        self,
        plans: Sequence[Plan],
        bundle: Bundle,
        now_seconds: float,
        kept_from: Callable[[Plan], ActResult | None],
        write: Write,
    ) -> dict[str, Sizing]:
        """What came of it by uid of the object, for those that ask for it; `kept_from` says why one may not act."""
        asking = [p for p in plans if _is_seen(p) and p.autoscaler.vertical.mode is not VerticalMode.OFF]
        self._forget(asking, now_seconds)
        workloads = frozenset(p.autoscaler.workload for p in asking)
        advice = self.advisor.advise(workloads, bundle, now_seconds)
        sized = [self._sized(p, advice, now_seconds, kept_from) for p in asking]
        return {each.plan.autoscaler.uid: each for each in self._carried_out(sized, now_seconds, write)}

    # --- recommending

    def _sized(
        self, plan: Plan, advice: Advice | None, now: float, kept_from: Callable[[Plan], ActResult | None]
    ) -> Sizing:
        target = plan.workload.target
        assert isinstance(target, TargetWorkload)
        vertical = plan.autoscaler.vertical
        hold = self._no_advice(plan, advice)
        by_container = advice.by_container if advice is not None else {}
        is_fresh = advice is not None and now - advice.until_seconds <= FRESH_SECONDS
        requests = []
        in_use: dict[str, Amounts] = {}
        is_guaranteed = any(pod.is_running and pod.qos == GUARANTEED for pod in target.pods)
        for name in _container_names(target, by_container):
            policy = vertical.policy(name)
            if policy.is_off or not policy.controlled:
                continue
            known = by_container.get(ContainerName(target.name, name))
            in_use[name] = known.in_use if known is not None and is_fresh else NO_AMOUNTS
            killed = self._out_of_memory(plan, target.pods, name, known, now)
            requests.append(_request(name, policy, known, hold or NO_MEASUREMENT, killed, is_guaranteed=is_guaranteed))
        until = advice.until_seconds if advice is not None else None
        sizing = Sizing(plan, tuple(requests), until, hold, last_resize_seconds=self._last_resize(plan))
        if vertical.mode is not VerticalMode.IN_PLACE or hold is not None:
            return sizing
        recommended = {each.name: each.ranges for each in requests}
        review = review_pods(target.pods, recommended, in_use, self._rules, now, cuts_wait_for=_burning_budget(plan))
        refused = tuple((p.name, self._refused[p.uid][1]) for p in target.pods if p.uid in self._refused)
        return replace(
            sizing, review=review, refused=refused, kept_from=_kept_from(plan, target, advice, now, kept_from)
        )

    def _no_advice(self, plan: Plan, advice: Advice | None) -> Hold | None:
        """Why there is no recommendation for a workload at all."""
        if advice is not None and plan.autoscaler.workload in advice.workloads:
            return None
        problem = self.advisor.problem
        if problem is not None:
            return Hold(Reason(ReasonCode.NO_OBSERVATION, str(problem)))
        return NOT_ASKED

    def _out_of_memory(
        self, plan: Plan, pods: Sequence[PodState], container: str, known: ContainerAdvice | None, now: float
    ) -> OutOfMemory | None:
        """The last kill of a container for want of memory; each raises the floor once, from what it had then."""
        key = (plan.autoscaler.uid, container)
        last = self._killed.get(key) or _recorded_kill(plan.autoscaler.status, container)
        used = (known.highest.memory_bytes if known is not None else None) or 0.0
        kills = sorted(
            (each.out_of_memory_at_seconds, each.requests.memory_bytes or 0.0)
            for pod in pods
            for each in pod.containers
            if each.name == container and each.out_of_memory_at_seconds is not None
        )
        floor = last.floor_bytes if last is not None and last.is_kept(now) else 0.0
        for at, requested in kills:
            # Statuses tell seconds only.
            if (last is None or int(at) > int(last.at_seconds)) and OutOfMemory(at, 0.0).is_kept(now):
                floor = max(floor, after_out_of_memory(max(requested, used)))
                last = OutOfMemory(at, floor)
        if last is None or not last.is_kept(now):
            self._killed.pop(key, None)
            return None
        self._killed[key] = last
        return last

    def _last_resize(self, plan: Plan) -> float | None:
        known = self._resized_at.get(plan.autoscaler.uid)
        if known is not None:
            return known
        told = (plan.autoscaler.status.get("resize") or {}).get("lastResizeTime")
        return None if told is None else seconds_of(told)

    # --- resizing

    def _carried_out(self, sized: Sequence[Sizing], now: float, write: Write) -> Iterator[Sizing]:
        """Resizes the most urgent pods of all workloads first; a few of each."""
        chosen = [
            (resize, place)
            for place, each in enumerate(sized)
            if each.review is not None and not each.kept_from
            for resize in self._allowed(each.review, now)
        ]
        resized: dict[int, list[PodResize]] = {}
        refused: dict[int, list[tuple[str, str]]] = {}
        for resize, place in sorted(chosen, key=lambda pair: -pair[0].growth):
            result = write(sized[place].plan, resize)
            if result.outcome is Outcome.APPLIED:
                resized.setdefault(place, []).append(resize)
            elif result.outcome is Outcome.FAILED:
                again = now + REFUSED_SECONDS
                said = f"{result.detail}; it is tried again at {as_time(again)}"
                self._refused[resize.pod.uid] = (again, said)
                refused.setdefault(place, []).append((resize.pod.name, said))
                log.warning("resize failed", pod=resize.pod.name, message=said)
        for place, each in enumerate(sized):
            done = tuple(resized.get(place, ()))
            if done:
                self._resized_at[each.plan.autoscaler.uid] = now
            yield replace(
                each,
                resized=done,
                refused=(*each.refused, *refused.get(place, ())),
                last_resize_seconds=now if done else each.last_resize_seconds,
            )

    def _allowed(self, review: PodsReview, now: float) -> list[PodResize]:
        asked = [each for each in review.resizes if self._refused.get(each.pod.uid, (now, ""))[0] <= now]
        return asked[: self.settings.pods_per_cycle]

    def _forget(self, asking: Sequence[Plan], now: float) -> None:
        """Leaves nothing of objects and pods that are gone."""
        uids = {plan.autoscaler.uid for plan in asking}
        self._killed = {key: each for key, each in self._killed.items() if key[0] in uids}
        self._resized_at = {uid: each for uid, each in self._resized_at.items() if uid in uids}
        self._refused = {uid: each for uid, each in self._refused.items() if each[0] > now}


def _is_seen(plan: Plan) -> bool:
    """Whether object and target could be read."""
    return not plan.autoscaler.problem and isinstance(plan.workload.target, TargetWorkload)


def _container_names(target: TargetWorkload, by_container: Mapping[ContainerName, ContainerAdvice]) -> list[str]:
    """The containers that there are: as the workload makes them, else as its pods have them, else as they were seen."""
    if target.containers:
        return list(target.containers)
    of_pods = dict.fromkeys(each.name for pod in target.pods for each in pod.containers)
    return list(of_pods) or [each.container for each in by_container if each.workload == target.name]


def _request(
    name: str,
    policy: ContainerPolicy,
    known: ContainerAdvice | None,
    hold: Hold,
    killed: OutOfMemory | None,
    *,
    is_guaranteed: bool,
) -> ContainerRequest:
    wanted: dict[Resource, RequestRange | Hold] = {}
    for resource in SIZED:
        if resource not in policy.controlled:
            continue
        each = hold if known is None else known.wanted[resource]
        if isinstance(each, RequestRange):
            if resource is Resource.MEMORY and killed is not None:
                each = with_floor(each, killed)
            if resource is Resource.CPU and is_guaranteed and known is not None:
                each = as_limit(each, known.highest.cpu_cores or 0.0)
            each = capped(each, resource, policy.least.of(resource), policy.most.of(resource))
        wanted[resource] = each
    return ContainerRequest(name, wanted, killed)


def _kept_from(
    plan: Plan,
    target: TargetWorkload,
    advice: Advice | None,
    now: float,
    kept_from: Callable[[Plan], ActResult | None],
) -> str:
    """Why no pod of a workload may be resized now, the first of all reasons."""
    outcome = plan.decision.outcome
    if isinstance(outcome, Hold) and outcome.reason.code in (ReasonCode.PAUSED, ReasonCode.CONFLICT):
        return outcome.reason.message
    if plan.conflict is not None:
        return plan.conflict.reason.message
    if target.rollout:
        return target.rollout.partition(";")[0]
    if advice is not None and now - advice.until_seconds > OLDEST_ADVICE_SECONDS:
        return f"the recommendation rests on usage until {now - advice.until_seconds:.0f} s ago"
    result = kept_from(plan)
    return "" if result is None else result.detail


def _burning_budget(plan: Plan) -> str:
    """Why no request may be cut: replicas and requests answer for the same SLA. Empty where they may."""
    veto = None if plan.standing is None else plan.standing.budget.veto
    return "" if veto is None else f"its error budget burns: {veto.message}"


def _recorded_kill(status: Mapping[str, Any], container: str) -> OutOfMemory | None:
    """What a status says of a container's last kill; None where it says nothing that can be read."""
    try:
        for each in (status.get("recommendation") or {}).get("containers") or ():
            if each["name"] == container and "outOfMemory" in each:
                told = each["outOfMemory"]
                return OutOfMemory(seconds_of(told["time"]), quantity(told["memory"]))
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    return None
