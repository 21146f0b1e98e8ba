"""Writes what nodes offer, evicts who has to go, and tells people of it; each write asks for the lease."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from math import inf
from typing import Any

import structlog

from autoscaler.cluster.containers import SIZED
from autoscaler.cluster.nodes import NodeState, in_whole_units
from autoscaler.controller.gpu_sharing import SharedNode, label_changes
from autoscaler.controller.loop import Controller
from autoscaler.controller.node_looks import LookedAt
from autoscaler.controller.node_ports import NodeCluster
from autoscaler.controller.node_status import is_worth_a_write
from autoscaler.controller.notices import Throttle
from autoscaler.controller.policies import NodeTerms, OversubscriptionPolicy
from autoscaler.controller.writing import WRITES_AT_ONCE, WriteBudget, side_by_side
from autoscaler.decisions.node_guard import in_order_of_eviction
from autoscaler.decisions.reclaiming import offer
from autoscaler.errors import AutoscalerError, ClusterRefused, ClusterUnavailable, CommandConflict, ObjectGone
from predictor.usage.panel import Resource

log = structlog.get_logger("autoscaler.nodes")

StatusOf = Callable[[Mapping[str, Any], float], dict[str, Any]]
"""A policy's status, from the one before and the time."""


RETRY_SECONDS = 30.0
"""How soon the API server is asked again for what it has refused: what would be the same is not asked in each look."""


@dataclass(slots=True)
class Offer:
    """What is to be written to one node."""

    node: NodeState
    amounts: dict[Resource, int | None] = field(default_factory=dict)
    is_more: bool = False


class _Write(StrEnum):
    """What may be refused."""

    OFFER = "offer"
    LABEL = "label"
    EVICTION = "eviction"


@dataclass
class _Refusals:
    """What the API server has refused lately, and why, by kind and the node's name or the pod's uid."""

    _lately: dict[tuple[_Write, str], tuple[float, str]] = field(default_factory=dict)

    def add(self, kind: _Write, name: str, why: str, now: float) -> None:
        """It is not asked for again for a while."""
        self._lately[kind, name] = (now, why)

    def keep_lately(self, now: float) -> None:
        """Forgets what may be asked for again."""
        self._lately = {key: kept for key, kept in self._lately.items() if 0 <= now - kept[0] < RETRY_SECONDS}

    def why(self, kind: _Write, name: str) -> str:
        """Empty where it was not refused lately."""
        return self._lately.get((kind, name), (0.0, ""))[1]


@dataclass
class NodeWriter:
    """What is written about nodes, as far as the lease, the budget of writes and a dry run allow it."""

    cluster: NodeCluster
    controller: Controller

    def __post_init__(self) -> None:
        gathering = max(self.controller.settings.interval.total_seconds(), 1.0)
        self._budget = WriteBudget(self.controller.settings.writes_per_second, gathering)
        self._throttle, self._throttle_of_blocked = Throttle(), Throttle()
        self._said: dict[str, str] = {}
        """What was last logged of each thing that can go wrong."""
        self._refusals = _Refusals()
        self._refused_in_a_row = 0
        self.forget()

    def forget(self) -> None:
        """Leaves nothing of an own leadership: the next one starts from what the cluster says."""
        self._changed_at: dict[tuple[str, Resource], float] = {}
        self._statuses: dict[str, tuple[Mapping[str, object], float]] = {}

    def begin(self, now: float) -> None:
        """A new look: what the one before had no budget for may be asked for again."""
        self._refusals.keep_lately(now)
        self._refused_in_a_row = 0
        self._budget.begin(self.controller.passing())

    def refusal_to_write(self, nodes: Iterable[str]) -> str:
        """Why one of these nodes could not be written, or no pod evicted from it; empty where that was not refused."""
        kinds = (_Write.OFFER, _Write.EVICTION)
        return next((why for name in nodes for kind in kinds if (why := self._refusals.why(kind, name))), "")

    def refusal_to_label(self, nodes: Iterable[str]) -> str:
        """Why one of these nodes could not be labelled; empty where that was not refused."""
        return next((why for name in nodes if (why := self._refusals.why(_Write.LABEL, name))), "")

    def wanted_offers(
        self,
        nodes: Sequence[NodeState],
        terms: Mapping[str, Mapping[Resource, NodeTerms]],
        looked: Mapping[str, LookedAt],
        now: float,
    ) -> list[Offer]:
        """What nodes should offer where that is something else than they do."""
        names = {node.name for node in nodes}
        self._changed_at = {key: at for key, at in self._changed_at.items() if key[0] in names}
        offers = (self._wanted_offer(node, terms[node.name], looked.get(node.name), now) for node in nodes)
        return [each for each in offers if each.amounts]

    def write_offers(self, offers: Sequence[Offer], now: float) -> dict[str, Mapping[Resource, int | None]]:
        """What was written, by node."""
        if self.controller.is_dry_run:
            return {}
        problems = side_by_side(lambda each: self._written(each, now), offers)
        tried = [problem for problem in problems if problem is not None]
        if tried:
            self.say("node not written", next(filter(None, tried), ""))
        return {each.node.name: each.amounts for each, problem in zip(offers, problems, strict=True) if problem == ""}

    def _wanted_offer(
        self, node: NodeState, terms: Mapping[Resource, NodeTerms], looked: LookedAt | None, now: float
    ) -> Offer:
        wanted = Offer(node)
        for resource in SIZED:
            held, offered = terms.get(resource), node.offered.of(resource)
            if held is None or not held.offers or looked is None:
                if offered is not None:
                    wanted.amounts[resource] = None
                continue
            reading = looked.reading.shelves[resource]
            before = None if offered is None else in_whole_units(resource, offered)
            amount = offer(
                in_whole_units(resource, reading.decision.amount),
                sold=in_whole_units(resource, reading.shelf.sold),
                offered=before,
                is_held=looked.reading.is_stale or looked.guard.guard.suspended_since_seconds is not None,
                since_change_seconds=now - self._changed_at.get((node.name, resource), -inf),
            )
            if amount is not None:
                wanted.amounts[resource] = int(amount) or None
                wanted.is_more = wanted.is_more or amount > (before or 0)
        return wanted

    def _written(self, wanted: Offer, now: float) -> str | None:
        """Why it was not written, empty where it was; None where it was not tried. Several threads are here at a time,
        each with another node."""
        name = wanted.node.name
        if self._refusals.why(_Write.OFFER, name) or self._is_refused_anything() or not self._may_write():
            return None
        outcome, problem = self._outcome(lambda: self.cluster.set_offer(wanted.node, wanted.amounts))
        self.controller.metrics.node_writes.labels(outcome).inc()
        self._note_refusal(_Write.OFFER, name, problem, now)
        if problem is not None:
            return str(problem)
        for resource in wanted.amounts:
            self._changed_at[name, resource] = now
        return ""

    def _is_refused_anything(self) -> bool:
        """Whether so much was refused in this look, and nothing was written between, that the role may be missing."""
        return self._refused_in_a_row >= WRITES_AT_ONCE

    def _note_refusal(self, kind: _Write, name: str, problem: AutoscalerError | None, now: float) -> None:
        """One object that cannot be written, as an admission policy forbids it, does not keep others from it."""
        if isinstance(problem, ClusterRefused):
            self._refused_in_a_row += 1
            self._refusals.add(kind, name, str(problem), now)
        elif problem is None:
            self._refused_in_a_row = 0

    def label(self, nodes: Iterable[NodeState], shared: Sequence[SharedNode], now: float) -> None:
        """Labels nodes for the device plugin."""
        self._refused_in_a_row = 0  # It takes another role.
        said = []
        for node, write in label_changes(self.cluster, nodes, shared) if not self.controller.is_dry_run else ():
            if self._refusals.why(_Write.LABEL, node.name):
                continue
            if self._is_refused_anything() or not self._may_write():
                break
            outcome, problem = self._outcome(write)
            self.controller.metrics.node_writes.labels(outcome).inc()
            self._note_refusal(_Write.LABEL, node.name, problem, now)
            said.append("" if problem is None else str(problem))
            if problem is None:
                log.info("node labelled for its device plugin", node=node.name)
        if said:
            self.say("node not labelled", next(filter(None, said), ""))

    def tell_of_full_gpus(
        self, policies: Sequence[OversubscriptionPolicy], shared: Iterable[SharedNode], now: float
    ) -> None:
        """Says where the memory of a shared GPU was too full, and where it no longer is."""
        for each in shared if not self.controller.is_dry_run else ():
            concerned = [policy for policy in policies if policy.sells and policy.selects(each.node)]
            if each.has_filled:
                self.controller.metrics.node_suspensions.inc()
                log.warning("GPUs of a node suspended", node=each.node.name, message=each.news)
                self.event(concerned, "NodeSuspended", each.news, now, is_warning=True)
            if each.has_calmed:
                log.info("GPUs of a node resumed", node=each.node.name)
                self.event(concerned, "NodeResumed", each.news, now)

    def step_in(self, looked: LookedAt, policies: Sequence[OversubscriptionPolicy], now: float) -> bool:
        """Evicts whom the guard chose, and says what it did; False where somebody had to go and nobody did."""
        node, step = looked.reading.node.name, looked.guard
        if self.controller.is_dry_run:
            return True
        cause = step.guard.reason.message if step.guard.reason else ""
        if step.is_intervention and not step.evict:
            self.controller.metrics.node_suspensions.inc()
            log.warning("node suspended", node=node, message=cause)
            self.event(policies, "NodeSuspended", f"{node}: {cause}; nothing more is sold on it", now, is_warning=True)
        if step.has_resumed:
            log.info("node resumed", node=node)
            self.event(policies, "NodeResumed", f"{node} has been calm: it is sold again", now)
        if not step.evict:
            return True
        gone = 0
        chosen = {pod.uid for pod in step.evict}
        others = [pod for pod in in_order_of_eviction(looked.pods) if pod.uid not in chosen]
        for pod in (*step.evict, *others):
            if self._refusals.why(_Write.EVICTION, pod.uid):
                continue
            if gone == len(step.evict) or self._is_refused_anything() or not self._may_write():
                break
            outcome, problem = self._outcome(partial(self.cluster.evict, pod))
            self.controller.metrics.evictions.labels(outcome).inc()
            who = f"{pod.namespace}/{pod.name} (priority {pod.priority}) from {node}"
            self._note_refusal(_Write.EVICTION, node, problem, now)
            if isinstance(problem, ObjectGone):
                gone += 1
            elif problem is None:
                gone += 1
                log.warning("pod evicted", node=node, pod=f"{pod.namespace}/{pod.name}", message=cause)
                self.event(policies, "PodEvicted", f"{who}: {cause}", now, is_warning=True)
            elif isinstance(problem, ClusterUnavailable):
                # It may have been carried out all the same: the next one would be one too many.
                log.warning("pod perhaps evicted", node=node, pod=f"{pod.namespace}/{pod.name}", message=str(problem))
                return True
            else:
                self._refusals.add(_Write.EVICTION, pod.uid, str(problem), now)
                self.event(policies, "EvictionBlocked", f"{who}: {problem}", now, is_warning=True)
        return gone > 0

    def _outcome(self, write: Callable[[], None]) -> tuple[str, AutoscalerError | None]:
        """`applied`, `skipped` or `failed`, and why it was not applied."""
        try:
            write()
        except (CommandConflict, ObjectGone) as change:
            return "skipped", change
        except (ClusterUnavailable, ClusterRefused) as problem:
            self.count("kubernetes", problem)
            return "failed", problem
        return "applied", None

    def _may_write(self) -> bool:
        if self.controller.stop.is_set() or not self.controller.leadership.is_leader:
            return False
        return self._budget.take(self.controller.passing())

    def tell(self, told: Sequence[tuple[OversubscriptionPolicy, StatusOf]], now: float) -> None:
        """Writes statuses that have something to say, and Events about conflicts that came."""
        uids = {policy.uid for policy, _ in told}
        self._throttle.keep_only(uids)
        self._throttle_of_blocked.keep_only(uids)
        self._statuses = {uid: kept for uid, kept in self._statuses.items() if uid in uids}
        if self.controller.is_dry_run:
            return
        for policy, status_of in told:
            before, at = self._statuses.get(policy.uid, (policy.status, -inf))
            status = status_of(before, now)
            if not is_worth_a_write(before, status, now - at) or not self._may_write():
                continue
            _, problem = self._outcome(partial(self.cluster.set_policy_status, policy, status))
            self.say(f"status of {policy.name} not written", "" if problem is None else str(problem))
            if problem is not None:
                continue
            self._statuses[policy.uid] = (status, now)
            if _holds(status, "Conflict") and not _holds(before, "Conflict"):
                words = next(c["message"] for c in status["conditions"] if c["type"] == "Conflict")
                self.event([policy], "Conflict", words, now, is_warning=True)

    def event(
        self,
        policies: Iterable[OversubscriptionPolicy],
        reason: str,
        note: str,
        now: float,
        *,
        is_warning: bool = False,
    ) -> None:
        """Makes an Event about each of the policies, never a flood of them."""
        # Of what stays blocked there is something to say again and again: it must not leave the rest unsaid.
        throttle = self._throttle_of_blocked if reason == "EvictionBlocked" else self._throttle
        for policy in policies if self.controller.leadership.is_leader else ():
            if not throttle.allows(policy.uid, now):
                self.controller.metrics.events_held_back.inc()
                continue
            self._outcome(partial(self.cluster.publish_about, policy, reason, note, now, is_warning=is_warning))

    def count(self, dependency: str, problem: Exception) -> None:
        """Counts what a dependency did not do."""
        self.controller.metrics.errors.labels(dependency, type(problem).__name__).inc()

    def say(self, what: str, said: str) -> None:
        """Logs what went wrong when it begins and when it changes."""
        if said and self._said.get(what) != said:
            log.warning(what, message=said)
        self._said[what] = said


def _holds(status: Mapping[str, object], kind: str) -> bool:
    conditions = status.get("conditions")
    found = conditions if isinstance(conditions, list) else []
    return any(each.get("type") == kind and each.get("status") == "True" for each in found)
