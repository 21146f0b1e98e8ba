"""Oversells nodes as OversubscriptionPolicies say: beside the loop and more often, with its lease and its pause.

Observe → decide → guard → write → tell. A cycle of the loop may take minutes, and a node that gets full cannot wait for
it: looks follow each other in a thread of their own, which alone holds what is remembered here. In mode Observe nothing
is written but the policies' statuses and Events. What a node offers is in its status, so that a new leader finds it
there; suspended nodes and the record of violations are in the policies' statuses.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from math import inf
from typing import Any

import structlog

from autoscaler.cluster.containers import SIZED
from autoscaler.cluster.nodes import UNITS_PER_BASE_UNIT, Actuator, NodePod, NodeState, in_whole_units, total_of
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.gpu_sharing import GpuSharing, SharedNode, label_changes
from autoscaler.controller.gpu_status import gpu_gauges, gpu_status, node_gauges
from autoscaler.controller.loop import Controller
from autoscaler.controller.node_budget import BudgetRecord, kept_record
from autoscaler.controller.node_peaks import Asked, NodePeaks, PeakTeller, in_full
from autoscaler.controller.node_ports import NodeCluster, NodeObservation, PlacedSource
from autoscaler.controller.node_status import (
    NodeReading,
    PolicyReading,
    ShelfReading,
    is_worth_a_write,
    policy_status,
    resource_readings,
)
from autoscaler.controller.notices import Throttle
from autoscaler.controller.policies import NodeTerms, OversubscriptionPolicy, rivals_of, terms_of
from autoscaler.controller.writing import WriteBudget, side_by_side
from autoscaler.decisions.node_guard import UNGUARDED, Guard, GuardDecision, NodeUse, guarded, in_order_of_eviction
from autoscaler.decisions.reclaiming import Shelf, ToldPeak, in_hindsight, offer, reclaimable
from autoscaler.errors import AutoscalerError, ClusterRefused, ClusterUnavailable, CommandConflict, ObjectGone
from autoscaler.metrics import NodeGauges, PolicyGauges
from autoscaler.settings import OversubscriptionSettings
from predictor.errors import PredictorError
from predictor.usage.panel import Resource
from predictor.usage.placed import NodeUsage, Placed

log = structlog.get_logger("autoscaler.nodes")

StatusOf = Callable[[Mapping[str, Any], float], dict[str, Any]]
"""A policy's status, from the one before and the time."""
PAUSED = "the controller is paused (scaling.paused): what was offered is taken back"
DRY_RUN = "the controller runs with --dry-run"


@dataclass(frozen=True, slots=True)
class _Looked:
    """What one look at one node came to."""

    reading: NodeReading
    guard: GuardDecision
    pods: tuple[NodePod, ...]
    exceeded: Mapping[Resource, float]
    """Of which ordinary pods use more than was told, and by which share of what they use."""


@dataclass(slots=True)
class _Offer:
    """What is to be written to one node."""

    node: NodeState
    amounts: dict[Resource, int | None] = field(default_factory=dict)
    is_more: bool = False


@dataclass
class NodeControl:
    """Keeps what nodes offer, and steps in where they get too full."""

    cluster: NodeCluster
    source: PlacedSource
    settings: OversubscriptionSettings
    controller: Controller
    peaks: PeakTeller
    gpus: GpuSharing

    def __post_init__(self) -> None:
        gathering = max(self.controller.settings.interval.total_seconds(), 1.0)
        self._budget = WriteBudget(self.controller.settings.writes_per_second, gathering)
        self._throttle = Throttle()
        self._said: dict[str, str] = {}
        """What was last logged of each thing that can go wrong."""
        self._usage: NodeUsage | None = None
        self._used: dict[str, dict[Resource, dict[str, float]]] = {}
        self._refusal = ""
        self._interval_seconds = self.settings.guard_interval.total_seconds()
        self.last_look_seconds = self.controller.clock()
        """When the last look ended, whatever came of it."""
        self._forget()

    def _forget(self) -> None:
        """Leaves nothing of an own leadership: the next one starts from what the cluster says."""
        self._term = self.controller.leadership.transitions
        self.gpus.forget()
        self._guards: dict[str, Guard] | None = None
        self._records: dict[tuple[str, Resource], BudgetRecord] = {}
        self._changed_at: dict[tuple[str, Resource], float] = {}
        self._statuses: dict[str, tuple[Mapping[str, object], float]] = {}

    def run(self) -> None:
        """Looks until the controller is to stop; a write that is under way is finished first."""
        stop = self.controller.stop
        while not stop.is_set():
            began = self._passing()
            try:
                self.look()
            except Exception:  # nobody waits for this thread: what broke must be seen, and nodes still be guarded
                self.controller.metrics.node_looks.labels("failed").inc()
                log.exception("a look at the nodes broke")
            took = self._passing() - began
            # A look that takes long, at a large cluster or a slow Prometheus, leaves as much time to everything else.
            stop.wait(max(self._interval_seconds - took, took))

    def look(self) -> None:
        """One look at the nodes. What cannot be seen or written now is tried again with the next one."""
        is_standby = not self.controller.leadership.is_leader
        if is_standby or self._term != self.controller.leadership.transitions:
            self._forget()
        outcome = "standby" if is_standby else "complete"
        if not is_standby:
            try:
                with self.controller.metrics.timed("nodes"):
                    self._look(self.controller.clock())
                self._say("nodes not seen", "")
            except (ClusterUnavailable, ClusterRefused) as problem:
                outcome = "failed"
                self._count("kubernetes", problem)
                self._say("nodes not seen", str(problem))
        self.controller.metrics.node_looks.labels(outcome).inc()
        self.last_look_seconds = self.controller.clock()

    def _look(self, now: float) -> None:
        seen = self.cluster.observe_nodes()
        if self.controller.settings.paused:
            # Nobody would watch what goes on being sold.
            seen = replace(seen, policies=tuple(replace(policy, is_paused=True) for policy in seen.policies))
        sharing = [each for each in seen.policies if each.actuator is Actuator.GPU_SHARING]
        shared = self.gpus.look(sharing, seen.nodes, seen.pods, now)
        seen = replace(seen, policies=tuple(each for each in seen.policies if each not in sharing))
        self._interval_seconds = self._interval_of(seen.policies).total_seconds()
        by_node: dict[str, list[NodePod]] = {}
        for pod in seen.pods:
            by_node.setdefault(pod.node, []).append(pod)
        evicted = self._lately_evicted(seen, now)
        terms = {node.name: terms_of(node, seen.policies) for node in seen.nodes}
        guards = self._known_guards(seen, now)
        looked: dict[str, _Looked] = {}
        if any(terms.values()):
            self._measure(now)
            peaks = self.peaks.peaks(_wanted(terms), seen.pods, now)
            if self.peaks.problem is not None:
                self._say("peaks not told", str(self.peaks.problem))
            for node in seen.nodes:
                if terms[node.name]:
                    guard = guards.get(node.name, UNGUARDED)
                    pods = tuple(by_node.get(node.name, ()))
                    looked[node.name] = self._looked(
                        node,
                        terms[node.name],
                        pods,
                        guard=guard,
                        evicted=evicted.get(node.name, ""),
                        peaks=peaks,
                        sold_shares=self._sold_shares(node, seen.policies),
                        now=now,
                    )
        self._guards = {name: each.guard.guard for name, each in looked.items()}
        self._record(seen.policies, looked, now)
        self._budget.begin(self._passing())
        written = self._write_offers(seen.nodes, terms, looked, now)
        for name, each in looked.items():
            self._step_in(each, [p for p in seen.policies if p.sells and p.selects(each.reading.node)], now)
            if name in written:
                looked[name] = replace(each, reading=_offering(each.reading, written[name]))
        readings = [self._policy_reading(policy, seen, looked) for policy in seen.policies]
        self._label(seen.nodes, shared)
        self._tell_of_full_gpus(sharing, shared, now)
        self._tell(
            [
                *((each.policy, partial(policy_status, each)) for each in readings),
                *((each, partial(self._gpu_status, each, sharing, shared)) for each in sharing),
            ],
            now,
        )
        self._publish(readings, looked.values())
        self.controller.metrics.publish_gpus(gpu_gauges(sharing, shared, self.gpus.record), map(node_gauges, shared))

    # --- observe and decide

    def _interval_of(self, policies: Iterable[OversubscriptionPolicy]) -> timedelta:
        """Until the next look: as nobody has to be stopped where nothing is sold, Prometheus is asked more seldom."""
        guard_interval = self.settings.guard_interval
        if any(each.sells for each in policies):
            return guard_interval
        return max(guard_interval, self.controller.settings.interval)

    def _known_guards(self, seen: NodeObservation, now: float) -> Mapping[str, Guard]:
        """What is remembered of nodes; at first, those that the statuses say are suspended."""
        if self._guards is not None:
            return self._guards
        names = {str(name) for policy in seen.policies for name in policy.status.get("suspendedNodes") or ()}
        return {name: Guard(suspended_since_seconds=now) for name in names}

    def _lately_evicted(self, seen: NodeObservation, now: float) -> dict[str, str]:
        """Whom the kubelets ended last, by node, within the time that a node must have been calm to be sold again."""
        release = self.settings.guard_release.total_seconds()
        lately = (each for each in seen.evictions if now - each.at_seconds < release)
        return {each.node: each.pod for each in sorted(lately, key=lambda eviction: eviction.at_seconds)}

    def _measure(self, now: float) -> None:
        """Reads what is used now; the last reading stays where that fails, and grows old."""
        try:
            self._usage = self.source.fetch_node_usage(now)
            self._used = _by_node(self._usage)
            self._say("usage of nodes not read", "")
        except PredictorError as problem:
            self._count("prometheus", problem)
            self._say("usage of nodes not read", str(problem))

    def _is_measured(self, node: str, now: float) -> bool:
        usage = self._usage
        if usage is None or node in usage.partial or Resource.MEMORY not in self._used.get(node, {}):
            return False
        if usage.ahead_by(node):
            return False
        return now - usage.measured_at_seconds <= self.settings.stale_after.total_seconds()

    def _looked(
        self,
        node: NodeState,
        terms: Mapping[Resource, NodeTerms],
        pods: tuple[NodePod, ...],
        *,
        guard: Guard,
        evicted: str,
        peaks: NodePeaks,
        sold_shares: Mapping[Resource, float],
        now: float,
    ) -> _Looked:
        usage, used = self._usage, self._used.get(node.name, {})
        is_stale = bool(pods) and not self._is_measured(node.name, now)
        shelves: dict[Resource, ShelfReading] = {}
        exceeded = {}
        usable_share = self.settings.usable_share
        for resource, held in terms.items():
            shelf = _shelf(node, _asked(resource, held), pods, peaks, now)
            rate, share = held.terms.max_rate, sold_shares.get(resource, 1.0)
            decision = reclaimable(shelf, usable_share=usable_share, max_rate=rate, sold_share=share)
            oracle = in_hindsight(shelf, usable_share=usable_share, max_rate=rate)
            shelves[resource] = ShelfReading(shelf, decision, node.offered.of(resource) or 0.0, held.sells, oracle)
            excess = 0.0 if is_stale else _excess(shelf, used.get(resource, {}), pods)
            if excess > 0:
                exceeded[resource] = excess
        sold_on = [each for each, held in terms.items() if held.sells]
        if not sold_on or is_stale:
            # Who sells nothing has nothing to stop; blind, nothing more is sold than was, and nobody is evicted.
            step = GuardDecision(guard if sold_on else UNGUARDED)
        else:
            use = NodeUse(
                {each: sum(used.get(each, {}).values()) for each in sold_on},
                {each: self.settings.usable_share * (node.allocatable.of(each) or 0.0) for each in sold_on},
                now if usage is None else usage.since_seconds,
                now if usage is None else usage.measured_at_seconds,
                node.has_memory_pressure,
                None if usage is None else usage.cpu_pressure.get(node.name),
                self.settings.cpu_pressure,
                evicted,
            )
            step = guarded(
                guard,
                use,
                pods,
                # Of use only where somebody may have to go.
                usage_of_pod=_usage_of_pods(pods, usage) if use.excess() is not None else {},
                release_seconds=self.settings.guard_release.total_seconds(),
                now_seconds=now,
            )
        ahead = usage.ahead_by(node.name) if is_stale and usage is not None else 0.0
        return _Looked(NodeReading(node, shelves, is_stale, step.guard, ahead), step, pods, exceeded)

    def _record(self, policies: Sequence[OversubscriptionPolicy], looked: Mapping[str, _Looked], now: float) -> None:
        """Counts nodes of which a peak was told, as far as their usage is known, and those where it was exceeded or the
        guard stepped in."""
        records: dict[tuple[str, Resource], BudgetRecord] = {}
        for policy in policies:
            mine = [each for each in looked.values() if policy.selects(each.reading.node)]
            for resource, terms in policy.terms.items():
                told, violated, worst = [], [], 0.0
                for each in mine:
                    shelf = each.reading.shelves[resource].shelf
                    if isinstance(shelf.peak, ToldPeak) and not each.reading.is_stale:
                        told.append(each.reading.node.name)
                        if resource in each.exceeded or (each.guard.is_intervention and policy.sells):
                            violated.append(each.reading.node.name)
                        worst = max(worst, each.exceeded.get(resource, 0.0))
                known = self._known_record(policy, resource)
                records[policy.uid, resource] = known.after(told, violated, terms.horizon_seconds, now, worst=worst)
        self._records = records

    def _known_record(self, policy: OversubscriptionPolicy, resource: Resource) -> BudgetRecord:
        return self._records.get((policy.uid, resource)) or kept_record(policy.status, resource)

    def _sold_shares(self, node: NodeState, policies: Sequence[OversubscriptionPolicy]) -> dict[Resource, float]:
        """What share of what is reclaimable may be sold: the lowest that the records of the node's policies allow."""
        shares: dict[Resource, float] = {}
        for policy in policies:
            for resource, terms in policy.terms.items() if policy.selects(node) else ():
                own = self._known_record(policy, resource).sold_share(terms.violation_probability)
                shares[resource] = min(own, shares.get(resource, 1.0))
        return shares

    # --- act

    def _write_offers(
        self,
        nodes: Iterable[NodeState],
        terms: Mapping[str, Mapping[Resource, NodeTerms]],
        looked: Mapping[str, _Looked],
        now: float,
    ) -> dict[str, Mapping[Resource, int | None]]:
        """What was written, by node; less before more, as it is the urgent one."""
        self._refusal = ""
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
        self, node: NodeState, terms: Mapping[Resource, NodeTerms], looked: _Looked | None, now: float
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
        if not self._may_write() or self._refusal:
            return False
        outcome, problem = self._outcome(lambda: self.cluster.set_offer(wanted.node, wanted.amounts))
        self.controller.metrics.node_writes.labels(outcome).inc()
        if isinstance(problem, ClusterRefused):
            self._refusal = str(problem)
        self._say("node not written", "" if problem is None else str(problem))
        if problem is not None:
            return False
        for resource in wanted.amounts:
            self._changed_at[wanted.node.name, resource] = now
        return True

    def _label(self, nodes: Iterable[NodeState], shared: Sequence[SharedNode]) -> None:
        """Labels nodes for the device plugin."""
        for node, write in label_changes(self.cluster, nodes, shared):
            if self.controller.is_dry_run or self._refusal or not self._may_write():
                return
            outcome, problem = self._outcome(write)
            self.controller.metrics.node_writes.labels(outcome).inc()
            self._say("node not labelled", "" if problem is None else str(problem))
            if isinstance(problem, ClusterRefused):
                self._refusal = str(problem)
            if problem is None:
                log.info("node labelled for its device plugin", node=node.name)

    def _tell_of_full_gpus(
        self, policies: Sequence[OversubscriptionPolicy], shared: Iterable[SharedNode], now: float
    ) -> None:
        """Says where the memory of a shared GPU was too full, and where it no longer is."""
        for each in shared if not self.controller.is_dry_run else ():
            concerned = [policy for policy in policies if policy.sells and policy.selects(each.node)]
            if each.has_filled:
                self.controller.metrics.node_suspensions.inc()
                log.warning("GPUs of a node suspended", node=each.node.name, message=each.news)
                self._event(concerned, "NodeSuspended", each.news, now, is_warning=True)
            if each.has_calmed:
                log.info("GPUs of a node resumed", node=each.node.name)
                self._event(concerned, "NodeResumed", each.news, now)

    def _step_in(self, looked: _Looked, policies: Sequence[OversubscriptionPolicy], now: float) -> None:
        """Evicts whom the guard chose, and says what it did."""
        node, step = looked.reading.node.name, looked.guard
        if self.controller.is_dry_run:
            return
        cause = step.guard.reason.message if step.guard.reason else ""
        if step.is_intervention and not step.evict:
            self.controller.metrics.node_suspensions.inc()
            log.warning("node suspended", node=node, message=cause)
            self._event(policies, "NodeSuspended", f"{node}: {cause}; nothing more is sold on it", now, is_warning=True)
        if step.has_resumed:
            log.info("node resumed", node=node)
            self._event(policies, "NodeResumed", f"{node} has been calm: it is sold again", now)
        if not step.evict:
            return
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
                self._event(policies, "PodEvicted", f"{who}: {cause}", now, is_warning=True)
            elif isinstance(problem, CommandConflict):
                self._event(policies, "EvictionBlocked", f"{who}: {problem}", now, is_warning=True)
            elif isinstance(problem, ClusterRefused):
                self._refusal = str(problem)
                break
        if not gone and self._guards is not None:
            # Nobody went, so nothing has to be waited for.
            self._guards[node] = replace(step.guard, evicted_at_seconds=None)

    def _outcome(self, write: Callable[[], None]) -> tuple[str, AutoscalerError | None]:
        """`applied`, `skipped` or `failed`, and why it was not applied."""
        try:
            write()
        except (CommandConflict, ObjectGone) as change:
            return "skipped", change
        except (ClusterUnavailable, ClusterRefused) as problem:
            self._count("kubernetes", problem)
            return "failed", problem
        return "applied", None

    def _may_write(self) -> bool:
        if self.controller.stop.is_set() or not self.controller.leadership.is_leader:
            return False
        return self._budget.take(self._passing())

    def _passing(self) -> float:
        return (self.controller.monotonic or self.controller.clock)()

    # --- tell

    def _policy_reading(
        self, policy: OversubscriptionPolicy, seen: NodeObservation, looked: Mapping[str, _Looked]
    ) -> PolicyReading:
        mine = tuple(each.reading for each in looked.values() if policy.selects(each.reading.node))
        records = {resource: self._records[policy.uid, resource] for resource in policy.terms}
        rivals = rivals_of(policy, seen.policies, seen.nodes)
        refusal = self._refusal if policy.sells else ""
        return PolicyReading(policy, mine, records, rivals, refusal, self._note())

    def _note(self) -> str:
        return PAUSED if self.controller.settings.paused else DRY_RUN if self.controller.is_dry_run else ""

    def _gpu_status(
        self,
        policy: OversubscriptionPolicy,
        policies: Sequence[OversubscriptionPolicy],
        shared: Sequence[SharedNode],
        before: Mapping[str, Any],
        now: float,
    ) -> dict[str, Any]:
        refusal = self._refusal if policy.sells else ""
        record, note = self.gpus.record(policy), self._note()
        return gpu_status(policy, policies, shared, before, now, record=record, refusal=refusal, note=note)

    def _tell(self, told: Sequence[tuple[OversubscriptionPolicy, StatusOf]], now: float) -> None:
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
            self._say(f"status of {policy.name} not written", "" if problem is None else str(problem))
            if problem is not None:
                continue
            self._statuses[policy.uid] = (status, now)
            if _holds(status, "Conflict") and not _holds(before, "Conflict"):
                words = next(c["message"] for c in status["conditions"] if c["type"] == "Conflict")
                self._event([policy], "Conflict", words, now, is_warning=True)

    def _event(
        self,
        policies: Iterable[OversubscriptionPolicy],
        reason: str,
        note: str,
        now: float,
        *,
        is_warning: bool = False,
    ) -> None:
        for policy in policies:
            if not self._throttle.allows(policy.uid, now):
                self.controller.metrics.events_held_back.inc()
                continue
            self._outcome(partial(self.cluster.publish_about, policy, reason, note, now, is_warning=is_warning))

    def _publish(self, readings: Iterable[PolicyReading], looked: Iterable[_Looked]) -> None:
        self.controller.metrics.publish_nodes(
            (
                PolicyGauges(
                    policy=each.policy,
                    resource=each.resource.value,
                    rate=each.rate,
                    violations=each.violations,
                    budget_used=each.budget_used,
                    severity=each.severity,
                    oracle_rate=each.oracle_rate,
                )
                for reading in readings
                for each in resource_readings(reading)
            ),
            (
                NodeGauges(
                    node=each.reading.node.name,
                    resource=resource.value,
                    predicted_peak=shelf.shelf.peak.value if isinstance(shelf.shelf.peak, ToldPeak) else None,
                    reclaimable=shelf.decision.amount,
                    offered=shelf.offered,
                    sold=shelf.shelf.sold,
                    is_suspended=each.guard.guard.suspended_since_seconds is not None,
                    is_stale=each.reading.is_stale,
                    cpu_pressure=None if self._usage is None else self._usage.cpu_pressure.get(each.reading.node.name),
                )
                for each in looked
                for resource, shelf in each.reading.shelves.items()
            ),
        )

    def _count(self, dependency: str, problem: Exception) -> None:
        self.controller.metrics.errors.labels(dependency, type(problem).__name__).inc()

    def _say(self, what: str, said: str) -> None:
        """Logs what went wrong when it begins and when it changes."""
        if said and self._said.get(what) != said:
            log.warning(what, message=said)
        self._said[what] = said


def _asked(resource: Resource, held: NodeTerms) -> Asked:
    return resource, held.terms.violation_probability, held.terms.horizon_seconds


def _wanted(terms: Mapping[str, Mapping[Resource, NodeTerms]]) -> dict[Asked, list[str]]:
    """The nodes of which each kind of peak is wanted."""
    wanted: dict[Asked, list[str]] = {}
    for node, by_resource in terms.items():
        for resource, held in by_resource.items():
            wanted.setdefault(_asked(resource, held), []).append(node)
    return wanted


def _shelf(node: NodeState, asked: Asked, pods: Sequence[NodePod], peaks: NodePeaks, now: float) -> Shelf:
    resource = asked[0]
    ordinary = [pod for pod in pods if pod.is_ordinary(resource)]
    peak: ToldPeak | Hold = peaks.peak(node.name, asked, now)
    allocatable = node.allocatable.of(resource)
    if allocatable is None:
        peak = Hold(Reason(ReasonCode.NO_EVIDENCE, f"the node does not say how much {resource.value} is allocatable"))
    return Shelf(
        resource=resource,
        allocatable=allocatable or 0.0,
        requested=total_of(resource, (pod.requests for pod in ordinary)),
        newcomers=in_full([pod for pod in ordinary if pod.uid not in peaks.counted], resource),
        sold=total_of(resource, (pod.reclaimed for pod in pods)),
        peak=peak,
    )


def _by_node(usage: NodeUsage) -> dict[str, dict[Resource, dict[str, float]]]:
    """Usage by node, resource and workload."""
    found: dict[str, dict[Resource, dict[str, float]]] = {}
    for resource, amounts in usage.usage.items():
        for name, amount in amounts.items():
            found.setdefault(name.node, {}).setdefault(resource, {})[name.workload] = amount
    return found


def _excess(shelf: Shelf, used: Mapping[str, float], pods: Iterable[NodePod]) -> float:
    """The share of their usage by which ordinary pods exceed what was told of them and what came since; 0 as a rule."""
    if isinstance(shelf.peak, Hold) or isinstance(shelf.newcomers, Hold):
        return 0.0
    reclaimed = {pod.workload for pod in pods if not pod.is_ordinary(shelf.resource)}
    ordinary = sum(amount for workload, amount in used.items() if workload not in reclaimed)
    told = shelf.peak.value + shelf.newcomers
    return (ordinary - told) / ordinary if ordinary > told * (1 + 1e-9) else 0.0


def _usage_of_pods(pods: Iterable[NodePod], usage: NodeUsage | None) -> dict[str, dict[Resource, float]]:
    """What each pod that may go is thought to use, by uid: as much as the mean pod of its workload on its node."""
    found: dict[str, dict[Resource, float]] = {}
    for pod in pods if usage is not None else ():
        name = Placed(pod.node, pod.workload)
        for resource in SIZED:
            assert usage is not None
            used, count = usage.usage[resource].get(name), usage.pods[resource].get(name)
            if used is not None and count:
                found.setdefault(pod.uid, {})[resource] = used / count
    return found


def _offering(reading: NodeReading, written: Mapping[Resource, int | None]) -> NodeReading:
    shelves = {
        resource: replace(shelf, offered=(written[resource] or 0) / UNITS_PER_BASE_UNIT[resource])
        if resource in written
        else shelf
        for resource, shelf in reading.shelves.items()
    }
    return replace(reading, shelves=shelves)


def _holds(status: Mapping[str, object], kind: str) -> bool:
    conditions = status.get("conditions")
    found = conditions if isinstance(conditions, list) else []
    return any(each.get("type") == kind and each.get("status") == "True" for each in found)
