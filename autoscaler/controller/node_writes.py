"""Writes what nodes offer, evicts who has to go, and tells people of it; each write asks for the lease."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
from autoscaler.controller.writing import WriteBudget, side_by_side
from autoscaler.decisions.node_guard import in_order_of_eviction
from autoscaler.decisions.reclaiming import offer
from autoscaler.errors import AutoscalerError, ClusterRefused, ClusterUnavailable, CommandConflict, ObjectGone
from predictor.usage.panel import Resource

log = structlog.get_logger("autoscaler.nodes")

StatusOf = Callable[[Mapping[str, Any], float], dict[str, Any]]
"""A policy's status, from the one before and the time."""


@dataclass(slots=True)
class _Offer:
    """What is to be written to one node."""

    node: NodeState
    amounts: dict[Resource, int | None] = field(default_factory=dict)
    is_more: bool = False


@dataclass
class NodeWriter:
    """What is written about nodes, as far as the lease, the budget of writes and a dry run allow it."""

    cluster: NodeCluster
    controller: Controller

    def __post_init__(self) -> None:
        gathering = max(self.controller.settings.interval.total_seconds(), 1.0)
        self._budget = WriteBudget(self.controller.settings.writes_per_second, gathering)
        self._throttle = Throttle()
        self._said: dict[str, str] = {}
        """What was last logged of each thing that can go wrong."""
        self.refusal = ""
        """Why nodes cannot be written, as the API server said it in this look."""
        self.forget()

    def forget(self) -> None:
        """Leaves nothing of an own leadership: the next one starts from what the cluster says."""
        self._changed_at: dict[tuple[str, Resource], float] = {}
        self._statuses: dict[str, tuple[Mapping[str, object], float]] = {}

    def begin(self) -> None:
        """A new look: what was refused in the one before is asked for again."""
        self.refusal = ""
        self._budget.begin(self.controller.passing())

    def write_offers(
        self,
        nodes: Iterable[NodeState],
        terms: Mapping[str, Mapping[Resource, NodeTerms]],
        looked: Mapping[str, LookedAt],
        now: float,
    ) -> dict[str, Mapping[Resource, int | None]]:
        """What was written, by node; less before more, as it is the urgent one."""
        if self.controller.is_dry_run:
            return {}
        offers = []
        for node in nodes:
            wanted = self._wanted_offer(node, terms[node.name], looked.get(node.name), now)
            if wanted.amounts:
                offers.append(wanted)
        offers.sort(key=lambda each: each.is_more)
        results = side_by_side(lambda each: self._written(each, now), offers)
        return {each.node.name: each.amounts for each, is_done in zip(offers, results, strict=True) if is_done}

    def _wanted_offer(
        self, node: NodeState, terms: Mapping[Resource, NodeTerms], looked: LookedAt | None, now: float
    ) -> _Offer:
        wanted = _Offer(node)
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

    def _written(self, wanted: _Offer, now: float) -> bool:
        """Whether it was written; several threads are here at a time, each with another node."""
        if not self._may_write() or self.refusal:
            return False
        outcome, problem = self._outcome(lambda: self.cluster.set_offer(wanted.node, wanted.amounts))
        self.controller.metrics.node_writes.labels(outcome).inc()
        if isinstance(problem, ClusterRefused):
            self.refusal = str(problem)
        self.say("node not written", "" if problem is None else str(problem))
        if problem is not None:
            return False
        for resource in wanted.amounts:
            self._changed_at[wanted.node.name, resource] = now
        return True

    def label(self, nodes: Iterable[NodeState], shared: Sequence[SharedNode]) -> None:
        """Labels nodes for the device plugin."""
        for node, write in label_changes(self.cluster, nodes, shared):
            if self.controller.is_dry_run or self.refusal or not self._may_write():
                return
            outcome, problem = self._outcome(write)
            self.controller.metrics.node_writes.labels(outcome).inc()
            self.say("node not labelled", "" if problem is None else str(problem))
            if isinstance(problem, ClusterRefused):
                self.refusal = str(problem)
            if problem is None:
                log.info("node labelled for its device plugin", node=node.name)

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
            if gone == len(step.evict) or not self._may_write():
                break
            outcome, problem = self._outcome(partial(self.cluster.evict, pod))
            self.controller.metrics.evictions.labels(outcome).inc()
            who = f"{pod.namespace}/{pod.name} (priority {pod.priority}) from {node}"
            if problem is None:
                gone += 1
                log.warning("pod evicted", node=node, pod=f"{pod.namespace}/{pod.name}", message=cause)
                self.event(policies, "PodEvicted", f"{who}: {cause}", now, is_warning=True)
            elif isinstance(problem, CommandConflict):
                self.event(policies, "EvictionBlocked", f"{who}: {problem}", now, is_warning=True)
            elif isinstance(problem, ClusterRefused):
                self.refusal = str(problem)
                break
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
        for policy in policies:
            if not self._throttle.allows(policy.uid, now):
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
