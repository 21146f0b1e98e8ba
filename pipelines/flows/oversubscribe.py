"""What each node may be oversold by now, and how that would have gone on the past: the same decisions, replayed."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import numpy as np

from autoscaler.simulator.node_peaks import (
    NodeHistory,
    PeakOutcome,
    PeakReplay,
    foresize_peaks,
    judged,
    replay_node_peaks,
)
from autoscaler.simulator.outcome import ReplayError
from autoscaler.simulator.packing import (
    MEAN_LIMITS,
    Arrivals,
    ByForesize,
    ByPredictor,
    Fit,
    PackingOutcome,
    RoomTeller,
    asked_share,
    crowded,
    packed,
)
from autoscaler.simulator.peers.node_peaks import PEERS, predicts
from models.forecast import LONGEST_PAST_SECONDS, FloatArray
from models.node_peak import LEAST_BLOCKS, NoPeak
from pipelines.errors import NotEnoughHistory
from pipelines.flows.clock import StepClock, Told
from pipelines.settings import Settings
from pipelines.steps.nodes import nodes_of, without_pool
from pipelines.steps.plan import Progress
from pipelines.steps.prepare import prepared
from predictor.errors import InvalidUsage
from predictor.settings import duration_text
from predictor.usage.panel import Finding, Resource, Severity, UsagePanel

DECISIONS_A_HORIZON = 6
MOST_DECISIONS = 1_000
"""About each node at most: of a short horizon and a long history they are farther apart."""
TOLERATED = 1.25
"""A stated probability is kept where no more than so many times as many decisions of the past were violated."""
FORESIZE, ORACLE = "foresize", "oracle (sees the future)"
BESIDE = (
    "limits",
    "borg_default",
    "rc_like_p99_7d",
    "n_sigma_5_7d",
    "max_n_sigma_rc_7d",
    "koordinator",
    "running_maximum_7d",
)
"""Peers, with a week of past where they can have it: history counts for more than the formula."""
MOST_PACKED = 300
"""Of more workloads so many are drawn: packing takes as long however large the cluster is."""
LEAST_PACKED = 2 * int(MEAN_LIMITS)
"""With fewer workloads all of them have room by their limits alone, or nearly."""


@dataclass(frozen=True, slots=True)
class NodeDecision:
    """What is told of one node and resource, in the resource's base unit."""

    node: str
    resource: Resource
    limits: float
    """Σ limits of the workloads there now."""
    peak: float
    """What their total will exceed within the horizon with no more than the probability asked for; Σ limits where
    `reason` says why it cannot be told."""
    reason: str
    """Or what to know of the peak: that workloads are cold."""

    @property
    def freed(self) -> float:
        """What may be given to others."""
        return self.limits - self.peak


@dataclass(frozen=True, slots=True)
class PoolSum:
    """What is told of all nodes of one pool, in the resource's base unit."""

    node_pool: str
    resource: Resource
    nodes: int
    limits: float
    peak: float
    """Sum of the nodes' peaks: they need not come at the same time, and each node has to hold its own."""
    past: PeakOutcome | None
    """How foresize would have fared there; None where the past is too short."""

    @property
    def freed(self) -> float:
        """What may be given to others."""
        return self.limits - self.peak


@dataclass(frozen=True, slots=True)
class PackingReport:
    """What could have been hosted where each method said what is free."""

    workloads: int
    nodes: int
    capacity: float
    """Of each node, in the resource's base unit."""
    asked: float
    """Σ limits of the workloads ÷ Σ capacity."""
    outcomes: Mapping[str, Mapping[Fit, PackingOutcome]]


@dataclass(frozen=True, slots=True)
class OversubscriptionReport:
    """What came of it."""

    violation_probabilities: Mapping[Resource, float]
    """What was accepted of each resource that was asked for."""
    horizon_seconds: int
    decided_at_seconds: int
    nodes: tuple[NodeDecision, ...]
    """Those that may be oversold by most of their limits first."""
    pools: tuple[PoolSum, ...]
    """By node pool, where a placement says which nodes there are; else a pool is a node."""
    replays: Mapping[Resource, Mapping[str, PeakOutcome]]
    """How each method would have fared on the past; without a resource whose past is too short."""
    unanswered: Mapping[Resource, int]
    """Of the decisions that were replayed, those for which foresize had no answer, so that Σ limits stood."""
    packings: Mapping[Resource, PackingReport]
    """Without a resource of which too little is known, and empty where it was not asked for."""
    findings: tuple[Finding, ...]


def oversubscribe(
    settings: Settings,
    panel: UsagePanel,
    placement: Mapping[str, str] | None,
    *,
    with_packing: bool = True,
    told: Told = lambda _step, _done, _total: None,
) -> OversubscriptionReport:
    """Decide for every node from the whole panel, with what a replay of its past has taught.

    Packing is bounded by `MOST_PACKED`. Raises NotEnoughHistory where no workload can be decided on, InvalidUsage for a
    placement of others or a horizon of which no past that is looked at holds enough.
    """
    clock = StepClock(told)
    asked = settings.oversubscription
    with clock.step("prepare"):
        history = prepared(panel)
        panel = history.panel
    horizon = _horizon_steps(asked.horizon, panel.step_seconds)
    replayed = max(panel.steps - LEAST_BLOCKS * horizon, 0)
    every = max(horizon // DECISIONS_A_HORIZON, -(-replayed // MOST_DECISIONS), 1)
    first = panel.steps - replayed // every * every
    findings = list(history.findings)
    decisions: list[NodeDecision] = []
    replays: dict[Resource, dict[str, PeakOutcome]] = {}
    unanswered: dict[Resource, int] = {}
    packings: dict[Resource, PackingReport] = {}
    pools: list[PoolSum] = []
    for resource in dict.fromkeys(map(Resource, asked.resources)):
        nodes, left_out = nodes_of(panel, placement, resource)
        findings += left_out
        if not nodes:
            if not panel.rows(resource).size:
                findings.append(_note("", resource, "no usage of it in the history: nothing to decide"))
            continue
        with clock.step(f"replay {resource.value}") as progress:
            replay = replay_node_peaks(
                nodes,
                {name: PEERS[name] for name in _beside(resource)},
                resource=resource,
                step_seconds=panel.step_seconds,
                horizon_steps=horizon,
                decided_at=range(first, panel.steps + 1, every),
                past_steps=LONGEST_PAST_SECONDS // panel.step_seconds,
                progress=progress,
            )
            ours = foresize_peaks(replay, asked.probability_of(resource))
        unseen = [node for node, limits in zip(replay.nodes, replay.limits[:, -1], strict=True) if np.isnan(limits)]
        findings += [_note(node, resource, "nothing on it was measured lately: nothing to decide") for node in unseen]
        told_now = tuple(_decisions(replay, ours, resource))
        decisions += told_now
        try:
            methods = {FORESIZE: ours, **replay.predicted, ORACLE: replay.actual}
            replays[resource] = {name: judged(foretold, replay) for name, foretold in methods.items()}
            unanswered[resource] = _unanswered(replay)
            findings += _overdrawn(replays[resource][FORESIZE], asked.probability_of(resource), resource)
        except ReplayError:
            few = f"{panel.steps // horizon} horizons of history are too few to replay any: read more"
            findings.append(_note("", resource, few))
        if placement is not None:
            pools += _by_pool(told_now, _pools_of(panel, placement), replay, ours)
        if with_packing:
            with clock.step(f"pack {resource.value}") as progress:
                waiting = _in_drawn_order(nodes, resource, panel.step_seconds)
                try:
                    packings[resource] = _packing(waiting, horizon, asked.probability_of(resource), progress)
                except ReplayError as why:
                    findings.append(_note("", resource, f"not packed: {why}"))
    if not decisions:
        raise NotEnoughHistory(
            "no node can be decided on: the history needs recent usage of "
            f"{' or '.join(asked.resources)} (oversubscription.resources), with a limit, capacity or request of each "
            "workload"
        )
    return OversubscriptionReport(
        {each: asked.probability_of(each) for each in map(Resource, asked.resources)},
        horizon * panel.step_seconds,
        panel.end_seconds,
        tuple(sorted(decisions, key=lambda each: -each.freed / each.limits if each.limits > 0 else 0.0)),
        tuple(pools),
        replays,
        unanswered,
        packings,
        tuple(findings),
    )


def _horizon_steps(horizon: timedelta, step_seconds: int) -> int:
    """The whole steps that hold a horizon. Raises InvalidUsage where four weeks hold too few of it."""
    steps = -(-int(horizon.total_seconds()) // step_seconds)
    if steps * LEAST_BLOCKS * step_seconds > LONGEST_PAST_SECONDS:
        longest = timedelta(seconds=LONGEST_PAST_SECONDS // LEAST_BLOCKS // step_seconds * step_seconds)
        raise InvalidUsage(
            f"a horizon of {duration_text(horizon)} is too long: peaks are told from {LEAST_BLOCKS} past horizons or "
            f"more within four weeks, however much history there is; ask for {duration_text(longest)} at most"
        )
    return steps


def _decisions(replay: PeakReplay, foretold: FloatArray, resource: Resource) -> Iterator[NodeDecision]:
    """The newest decision about each node on which something runs."""
    for row, node in enumerate(replay.nodes):
        past, limits = replay.pasts[row][-1], float(replay.limits[row, -1])
        if np.isnan(limits):
            continue
        if isinstance(past, NoPeak):
            reason = past.reason
        else:
            reason = f"{past.cold_tasks} cold, in full at their limits" if past.cold_tasks else ""
        yield NodeDecision(node, resource, limits, float(foretold[row, -1]), reason)


def _beside(resource: Resource) -> tuple[str, ...]:
    return tuple(name for name in BESIDE if predicts(name, resource))


def _unanswered(replay: PeakReplay) -> int:
    return sum(
        isinstance(past, NoPeak) and not np.isnan(actual)
        for of_node, peaks in zip(replay.pasts, replay.actual, strict=True)
        for past, actual in zip(of_node, peaks.tolist(), strict=True)
    )


def _overdrawn(past: PeakOutcome, accepted: float, resource: Resource) -> Iterator[Finding]:
    """A finding where the past was violated more often than is accepted."""
    if past.violation_share > TOLERATED * accepted:
        count, times = round(past.violation_share * past.decisions), past.violation_share / accepted
        text = (
            f"{count:,} of {past.decisions:,} decisions of the past were violated, {times:.2g} times as many as are "
            "accepted: count on no fewer from now on, or ask for a lower probability"
        )
        yield Finding("", resource.value, Severity.WARNING, text)


def _pools_of(panel: UsagePanel, placement: Mapping[str, str]) -> dict[str, str]:
    """The node pool of each node: that of most of its workloads of which it is known."""
    counts: dict[str, Counter[str]] = {}
    for workload, node in sorted(placement.items()):
        counts.setdefault(node, Counter()).update({panel.node_pool[workload]} if workload in panel.node_pool else ())
    return {node: count.most_common(1)[0][0] if count else without_pool(panel) for node, count in counts.items()}


def _by_pool(
    decisions: Sequence[NodeDecision], pool_of: Mapping[str, str], replay: PeakReplay, foretold: FloatArray
) -> Iterator[PoolSum]:
    for pool in sorted({pool_of[each.node] for each in decisions}):
        mine = [each for each in decisions if pool_of[each.node] == pool]
        rows = np.array([pool_of[node] == pool for node in replay.nodes])
        try:
            past = judged(foretold, replay, rows=rows)
        except ReplayError:
            past = None
        limits, peak = sum(each.limits for each in mine), sum(each.peak for each in mine)
        yield PoolSum(pool, mine[0].resource, len(mine), limits, peak, past)


def _in_drawn_order(nodes: Sequence[NodeHistory], resource: Resource, step_seconds: int) -> Arrivals:
    """The workloads of all nodes as they wait for room, at most so many of them."""
    usage = np.concatenate([node.usage for node in nodes])
    limits = np.concatenate([node.limits for node in nodes])
    drawn = np.random.default_rng(0).permutation(len(usage))[:MOST_PACKED]
    return Arrivals(usage=usage[drawn], limits=limits[drawn], resource=resource, step_seconds=step_seconds)


def _packing(waiting: Arrivals, horizon: int, probability: float, progress: Progress) -> PackingReport:
    """The second half of the history counts; the first is how nodes get full and predictors learn.

    Raises ReplayError where the workloads or the history are too few.
    """
    workloads, steps = waiting.usage.shape
    if workloads < LEAST_PACKED:
        raise ReplayError(f"{workloads} workloads with usage and a limit, need {LEAST_PACKED}")
    if steps < 2 * LEAST_BLOCKS * horizon:
        raise ReplayError(f"{steps // horizon} horizons of history, need {2 * LEAST_BLOCKS}: read more")
    past = LONGEST_PAST_SECONDS // waiting.step_seconds
    plan = crowded(waiting, horizon_steps=horizon, past_steps=past, counted_from=steps // 2)
    methods: dict[str, Callable[[], RoomTeller]] = {FORESIZE: lambda: ByForesize(probability, plan.nodes, horizon)}
    methods |= {name: partial(ByPredictor, PEERS[name]) for name in _beside(waiting.resource)}
    outcomes: dict[str, dict[Fit, PackingOutcome]] = {}
    for number, (name, teller) in enumerate(methods.items()):
        outcomes[name] = {}
        for fit in Fit:
            outcomes[name][fit] = packed(waiting, teller(), fit, plan)
            progress(number * len(Fit) + len(outcomes[name]), len(methods) * len(Fit))
    return PackingReport(workloads, plan.nodes, plan.capacity, asked_share(waiting, plan), outcomes)


def _note(node: str, resource: Resource, message: str) -> Finding:
    return Finding(node, resource.value, Severity.NOTE, message)
