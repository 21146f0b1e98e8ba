"""Oversells nodes as OversubscriptionPolicies say: beside the loop and more often, with its lease and its pause.

Observe → decide → guard → write → tell. A cycle of the loop may take minutes, and a node that gets full cannot wait for
it: looks follow each other in a thread of their own, which alone holds what is remembered here. In mode Observe nothing
is written but the policies' statuses and Events. What a node offers is in its status, so that a new leader finds it
there; suspended nodes and the record of violations are in the policies' statuses.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import chain
from typing import Any

import structlog

from autoscaler.cluster.nodes import Actuator, NodePod, NodeState
from autoscaler.controller.gpu_sharing import GpuSharing, SharedNode
from autoscaler.controller.gpu_status import gpu_gauges, gpu_status
from autoscaler.controller.gpu_status import node_gauges as gauges_of_gpus
from autoscaler.controller.loop import Controller
from autoscaler.controller.node_budget import BudgetRecord, kept_record
from autoscaler.controller.node_explanation import Looks
from autoscaler.controller.node_looks import LookedAt, Measured, lately_evicted, looked_at, node_gauges, wanted_peaks
from autoscaler.controller.node_peaks import PeakTeller
from autoscaler.controller.node_ports import NodeCluster, NodeObservation
from autoscaler.controller.node_status import PolicyReading, policy_gauges, policy_status
from autoscaler.controller.node_usage import UsageReader
from autoscaler.controller.node_writes import NodeWriter
from autoscaler.controller.policies import NodeTerms, OversubscriptionPolicy, rivals_of, terms_of
from autoscaler.decisions.node_guard import UNGUARDED, Guard
from autoscaler.decisions.reclaiming import ToldPeak
from autoscaler.errors import AutoscalerError, ClusterRefused, ClusterUnavailable
from autoscaler.settings import OversubscriptionSettings
from predictor.errors import PredictorError
from predictor.usage.panel import Resource

log = structlog.get_logger("autoscaler.nodes")

PAUSED = "the controller is paused (scaling.paused): what was offered is taken back"
DRY_RUN = "the controller runs with --dry-run"


@dataclass
class NodeControl:
    """Keeps what nodes offer, and steps in where they get too full."""

    cluster: NodeCluster
    usage: UsageReader
    settings: OversubscriptionSettings
    controller: Controller
    peaks: PeakTeller
    gpus: GpuSharing

    def __post_init__(self) -> None:
        self._writer = NodeWriter(self.cluster, self.controller)
        self._measured = Measured()
        self._interval_seconds = self.settings.guard_interval.total_seconds()
        self.last_look_seconds = self.controller.clock()
        """When the last look ended, whatever came of it."""
        self.last: Looks | None = None
        """What the last look that saw the nodes came to; None where this copy does not lead, or saw none yet."""
        self.problem: AutoscalerError | None = None
        """Why the last look saw no nodes."""
        self._forget()

    def _forget(self) -> None:
        """Leaves nothing of an own leadership: the next one starts from what the cluster says."""
        self._term = self.controller.leadership.transitions
        self.gpus.forget()
        self._writer.forget()
        self._guards: dict[str, Guard] | None = None
        self._records: dict[tuple[str, Resource], BudgetRecord] = {}
        self.last = None

    def run(self) -> None:
        """Looks until the controller is to stop; a write that is under way is finished first."""
        stop = self.controller.stop
        while not stop.is_set():
            began = self.controller.passing()
            try:
                self.look()
            except Exception:  # nobody waits for this thread: what broke must be seen, and nodes still be guarded
                self.controller.metrics.node_looks.labels("failed").inc()
                log.exception("a look at the nodes broke")
            took = self.controller.passing() - began
            # A look that takes long, at a large cluster or a slow Prometheus, leaves as much time to everything else.
            stop.wait(max(self._interval_seconds - took, took))

    def look(self) -> None:
        """One look at the nodes. What cannot be seen or written now is tried again with the next one."""
        is_standby = not self.controller.leadership.is_leader
        if is_standby or self._term != self.controller.leadership.transitions:
            self._forget()
        if is_standby:
            # What was true while this one led would be told beside what the new leader tells.
            self.controller.metrics.publish_nodes((), ())
            self.controller.metrics.publish_gpus((), ())
        outcome = "standby" if is_standby else "complete"
        if not is_standby:
            try:
                with self.controller.metrics.timed("nodes"):
                    self._look(self.controller.clock())
                self._writer.say("nodes not seen", "")
                self.problem = None
            except (ClusterUnavailable, ClusterRefused) as problem:
                outcome, self.problem = "failed", problem
                self._writer.count("kubernetes", problem)
                self._writer.say("nodes not seen", str(problem))
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
        terms = {node.name: terms_of(node, seen.policies) for node in seen.nodes}
        looked = self._looked(seen, terms, now)
        self._guards = {name: each.guard.guard for name, each in looked.items()}
        self._record(seen.policies, looked, now)
        looked = self._acted(seen, terms, looked, now)
        self.last = Looks(now, looked, {each.node.name: each for each in shared}, self.settings.usable_share)
        readings = [self._policy_reading(policy, seen, looked) for policy in seen.policies]
        self._writer.label(seen.nodes, shared, now)
        self._writer.tell_of_full_gpus(sharing, shared, now)
        self._writer.tell(
            [
                *((each.policy, partial(policy_status, each)) for each in readings),
                *((each, partial(self._gpu_status, each, sharing, shared)) for each in sharing),
            ],
            now,
        )
        self.controller.metrics.publish_nodes(
            chain.from_iterable(map(policy_gauges, readings)),
            chain.from_iterable(node_gauges(each, self._measured) for each in looked.values()),
        )
        self.controller.metrics.publish_gpus(gpu_gauges(sharing, shared, self.gpus.record), map(gauges_of_gpus, shared))

    # --- observe and decide

    def _interval_of(self, policies: Iterable[OversubscriptionPolicy]) -> timedelta:
        """Until the next look: as nobody has to be stopped where nothing is sold, Prometheus is asked more seldom."""
        guard_interval = self.settings.guard_interval
        if any(each.sells for each in policies):
            return guard_interval
        return max(guard_interval, self.controller.settings.interval)

    def _looked(
        self, seen: NodeObservation, terms: Mapping[str, Mapping[Resource, NodeTerms]], now: float
    ) -> dict[str, LookedAt]:
        """What a look at each node that a policy selects comes to, by its name."""
        guards = self._known_guards(seen, now)
        if not any(terms.values()):
            return {}
        self._measure(now)
        peaks = self.peaks.peaks(wanted_peaks(terms), seen.pods, now)
        if self.peaks.problem is not None:
            self._writer.say("peaks not told", str(self.peaks.problem))
        evicted = lately_evicted(seen.evictions, now, self.settings.guard_release.total_seconds())
        by_node: dict[str, list[NodePod]] = {}
        for pod in seen.pods:
            by_node.setdefault(pod.node, []).append(pod)
        return {
            node.name: looked_at(
                node,
                terms[node.name],
                tuple(by_node.get(node.name, ())),
                policies=tuple(policy.name for policy in seen.policies if policy.selects(node)),
                guard=guards.get(node.name, UNGUARDED),
                evicted=evicted.get(node.name, ""),
                measured=self._measured,
                peaks=peaks,
                sold_shares=self._sold_shares(node, seen.policies),
                settings=self.settings,
                now=now,
            )
            for node in seen.nodes
            if terms[node.name]
        }

    def _known_guards(self, seen: NodeObservation, now: float) -> Mapping[str, Guard]:
        """What is remembered of nodes; at first, those that the statuses say are suspended."""
        if self._guards is not None:
            return self._guards
        names = {str(name) for policy in seen.policies for name in policy.status.get("suspendedNodes") or ()}
        return {name: Guard(suspended_since_seconds=now) for name in names}

    def _measure(self, now: float) -> None:
        """Reads what is used now; the last reading stays where that fails, and grows old."""
        try:
            self._measured = Measured.of(self.usage.read(now))
            self._writer.say("usage of nodes not read", "")
        except PredictorError as problem:
            self._writer.count("prometheus", problem)
            self._writer.say("usage of nodes not read", str(problem))

    def _record(self, policies: Sequence[OversubscriptionPolicy], looked: Mapping[str, LookedAt], now: float) -> None:
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

    # --- act and tell

    def _acted(
        self,
        seen: NodeObservation,
        terms: Mapping[str, Mapping[Resource, NodeTerms]],
        looked: Mapping[str, LookedAt],
        now: float,
    ) -> dict[str, LookedAt]:
        """Writes what nodes offer and steps in, what is urgent first; the looks with what the nodes offer now."""
        self._writer.begin(now)
        offers = self._writer.wanted_offers(seen.nodes, terms, looked, now)
        written = self._writer.write_offers([each for each in offers if not each.is_more], now)
        for name, each in looked.items():
            concerned = [policy for policy in seen.policies if policy.sells and policy.selects(each.reading.node)]
            if not self._writer.step_in(each, concerned, now) and self._guards is not None:
                # Nobody went, so nothing has to be waited for.
                self._guards[name] = replace(each.guard.guard, evicted_at_seconds=None)
        written |= self._writer.write_offers([each for each in offers if each.is_more], now)
        return {name: each.offering(written.get(name, {})) for name, each in looked.items()}

    def _policy_reading(
        self, policy: OversubscriptionPolicy, seen: NodeObservation, looked: Mapping[str, LookedAt]
    ) -> PolicyReading:
        mine = tuple(each.reading for each in looked.values() if policy.selects(each.reading.node))
        records = {resource: self._records[policy.uid, resource] for resource in policy.terms}
        rivals = rivals_of(policy, seen.policies, seen.nodes)
        refusal = self._writer.refusal_to_write(each.node.name for each in mine) if policy.sells else ""
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
        mine = (each.node.name for each in shared if policy.selects(each.node))
        refusal = self._writer.refusal_to_label(mine) if policy.sells else ""
        record, note = self.gpus.record(policy), self._note()
        return gpu_status(policy, policies, shared, before, now, record=record, refusal=refusal, note=note)
