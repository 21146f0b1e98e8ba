"""Packs tasks onto nodes by the room that a predictor says is there: how much is hosted, and how often nodes get full.

Unlike in `node_peaks` placement reacts to what is foretold, as a scheduler's does: a predictor that is too low gets
more tasks onto the node that it misjudged. At each decision the tasks that still wait, in their order, go onto nodes
where what is foretold of those there and the newcomer's whole limit fit the capacity; nothing is known of a task before
it runs, and none is moved or ended because a node got full. Set-up after the packing of Bashir et al., "Take it to the
limit" (EuroSys 2021). Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from autoscaler.simulator.node_peaks import NodeSeen, PeakPredictor, is_violated, limits_at, true_peak
from autoscaler.simulator.outcome import ReplayError
from models.exceedance import Exceedances
from models.forecast import FloatArray, IntArray
from models.node_peak import COLD_SAMPLES, NoPeak, capped_totals, node_past
from predictor.usage.panel import Resource

WAITING, LEFT = -1, -2
ROUNDING = 1e-6
TASKS_A_NODE, MEAN_LIMITS, DECISIONS_A_HORIZON = 50, 10.0, 4


class Fit(StrEnum):
    """Which of the nodes with enough room a task goes to."""

    FIRST = "first"
    """By the nodes' order."""
    BEST = "best"
    """Where least room is left."""
    WORST = "worst"
    """Where most room is left."""


class RoomTeller(Protocol):
    """What says how high a node's total usage will peak, and hears what came true."""

    def peaks(self, nodes: Sequence[NodeSeen]) -> FloatArray:
        """Highest total usage of each node within the next horizon, [nodes], in the resource's base unit."""
        ...

    def realised(self, exceeded: FloatArray, share: float) -> None:
        """Whether what was told a horizon ago was exceeded: 1 or 0, NaN where that is not known, [nodes].

        `share` is how much of a horizon lies between two decisions.
        """
        ...


@dataclass(frozen=True)
class ByPredictor:
    """A predictor without memory, times a factor."""

    predictor: PeakPredictor
    factor: float = 1.0

    def peaks(self, nodes: Sequence[NodeSeen]) -> FloatArray:
        """No more than Σ limits, and 0 of an empty node."""
        told = [self.factor * self.predictor(node) if len(node.limits) else 0.0 for node in nodes]
        return np.minimum(told, [node.limits.sum(dtype=np.float64) for node in nodes])

    def realised(self, exceeded: FloatArray, share: float) -> None:
        """It has no memory."""


class ByForesize:
    """The quantile of the peak, asked for as violations so far suggest; Σ limits where there is no answer."""

    def __init__(self, violation_probability: float, nodes: int, horizon_steps: int) -> None:
        self._horizon = horizon_steps
        self._one_class: IntArray = np.zeros(nodes, dtype=np.int64)
        self._record = Exceedances.without_record(violation_probability, classes=1, nodes=nodes)

    def peaks(self, nodes: Sequence[NodeSeen]) -> FloatArray:
        """As `node_past` says, from what each node's tasks did."""
        told = np.zeros(len(nodes))
        for row, (node, asked) in enumerate(zip(nodes, self._record.asked(self._one_class), strict=True)):
            past = node_past(node.usage, node.limits, self._horizon)
            total = node.limits.sum(dtype=np.float64)
            told[row] = total if isinstance(past, NoPeak) else min(float(past.quantiles([asked])[0]), total)
        return told

    def realised(self, exceeded: FloatArray, share: float) -> None:
        """Moves what is asked for."""
        self._record = self._record.realised(exceeded, self._one_class, share)


@dataclass(frozen=True, slots=True)
class PackingOutcome:
    """What came of packing, over the steps that count."""

    hosted: float
    """Mean over the decisions of Σ limits of the tasks that run ÷ Σ capacity."""
    contention: float
    """Share of the nodes' steps in which usage exceeded capacity, without those in which none of a node's tasks was
    measured."""
    severity: float
    """Mean over those steps of (usage − capacity) ÷ capacity; 0 without any."""
    tasks: int
    """How many were placed in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """Tasks in the order in which they wait."""

    usage: FloatArray
    """[tasks, steps], also before they are placed, of which nobody is told; NaN is no sample."""
    limits: FloatArray
    """[tasks, steps] or [tasks]; NaN is not known at that step, and a task without limit waits."""
    resource: Resource
    step_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingPlan:
    """Onto what is packed, and when."""

    nodes: int
    capacity: float
    """Of each node, in the resource's base unit."""
    decided_at: Sequence[int]
    """The steps before which tasks are placed."""
    horizon_steps: int
    past_steps: int
    """How much of its past a predictor is shown."""
    counted_from: int
    """The step from which on it counts."""


def crowded(arrivals: Arrivals, *, horizon_steps: int, past_steps: int, counted_from: int) -> PackingPlan:
    """Far less room than is asked for: a node of ten mean limits for each 50 tasks, decided four times a horizon."""
    every = max(horizon_steps // DECISIONS_A_HORIZON, 1)
    return PackingPlan(
        nodes=max(round(len(arrivals.usage) / TASKS_A_NODE), 1),
        capacity=MEAN_LIMITS * float(np.nanmean(arrivals.limits, dtype=np.float64)),
        decided_at=range(every, arrivals.usage.shape[1] - horizon_steps + 1, every),
        horizon_steps=horizon_steps,
        past_steps=past_steps,
        counted_from=counted_from,
    )


def asked_share(arrivals: Arrivals, plan: PackingPlan) -> float:
    """Σ limits of all that wait, the mean of each, ÷ Σ capacity."""
    of_each = arrivals.limits if arrivals.limits.ndim == 1 else np.nanmean(arrivals.limits, axis=1, dtype=np.float64)
    return float(of_each.sum(dtype=np.float64) / (plan.nodes * plan.capacity))


def packed(arrivals: Arrivals, teller: RoomTeller, fit: Fit, plan: PackingPlan) -> PackingOutcome:
    """What comes of placing tasks by what a predictor says.

    A task that had no sample in 24 steps in which others had some has left its node, and nothing is decided where
    nobody was watching for so long. Raises ReplayError where nothing is decided or counted.
    """
    usage = arrivals.usage
    nodes, capacity, horizon_steps = plan.nodes, plan.capacity, plan.horizon_steps
    decided_at, past_steps, counted_from = plan.decided_at, plan.past_steps, plan.counted_from
    if not len(usage) or nodes < 1 or not len(decided_at) or decided_at[-1] < counted_from:
        raise ReplayError(f"{len(usage)} tasks, {nodes} nodes, {len(decided_at)} decisions: nothing is packed")
    place: IntArray = np.full(len(usage), WAITING, dtype=np.int64)
    since: IntArray = np.zeros(len(usage), dtype=np.int64)
    told: list[tuple[FloatArray, list[IntArray], FloatArray]] = []
    watched = np.flatnonzero(~np.isnan(usage).all(axis=0))
    decided_at = [now for now in decided_at if np.count_nonzero((watched >= now - COLD_SAMPLES) & (watched < now))]
    hosted, full, excess, counted = [], 0, 0.0, 0
    judged = 0
    for number, now in enumerate(decided_at):
        end = decided_at[number + 1] if number + 1 < len(decided_at) else min(now + horizon_steps, usage.shape[1])
        lately = watched[watched < now][-COLD_SAMPLES:]
        while judged < len(told) and decided_at[judged] + horizon_steps <= now:
            share = min((decided_at[judged + 1] - decided_at[judged]) / horizon_steps, 1.0)
            teller.realised(_exceeded(usage, told[judged], decided_at[judged], horizon_steps), share)
            judged += 1
        in_force = limits_at(arrivals.limits, now)
        has_left = np.isnan(usage[:, lately]).all(axis=1) & (since < lately[0])
        place[has_left & (place != WAITING)] = LEFT
        on = [np.flatnonzero(place == node) for node in range(nodes)]
        past = slice(max(0, now - past_steps), now)
        seen = [_seen(arrivals, rows, since, past, in_force) for rows in on]
        peaks = teller.peaks(seen)
        told.append((peaks.copy(), on, in_force))
        room = capacity - peaks
        for task in np.flatnonzero((place == WAITING) & (in_force <= room.max() * (1 + ROUNDING))):
            node = _chosen(room, in_force[task], fit)
            if node is not None:
                room[node] -= in_force[task]
                place[task], since[task] = node, now
        if end <= counted_from:
            continue
        hosted.append(float(in_force[place >= 0].sum(dtype=np.float64)) / (nodes * capacity))
        for node in range(nodes):
            rows = np.flatnonzero(place == node)
            used = _used(usage[rows, now:end], in_force[rows])
            over = used > capacity * (1 + ROUNDING)
            full, counted = full + int(over.sum()), counted + len(used)
            excess += float((used[over] / capacity - 1).sum())
    if not counted:
        raise ReplayError("nobody was watching after any of the decisions: nothing is counted")
    return PackingOutcome(
        hosted=float(np.mean(hosted)),
        contention=full / counted,
        severity=excess / full if full else 0.0,
        tasks=int(np.count_nonzero(place != WAITING)),
    )


def _used(usage: FloatArray, limits: FloatArray) -> FloatArray:
    """Total usage of a node's tasks in the steps that count, [steps]: all of those of an empty node, else those in
    which one of its tasks was measured. A sample that another misses counts as its highest of these steps."""
    total = capped_totals(usage.astype(np.float64), limits[:, None].repeat(usage.shape[1], axis=1), usage.shape[1])[0]
    return np.asarray(total[~np.isnan(total)])


def _seen(arrivals: Arrivals, rows: IntArray, since: IntArray, past: slice, in_force: FloatArray) -> NodeSeen:
    """What can be seen of a node within some steps: its tasks, each from when it was placed on."""
    usage = arrivals.usage[rows, past]
    for own, first in zip(usage, since[rows] - past.start, strict=True):
        own[: max(first, 0)] = np.nan
    return NodeSeen(usage=usage, limits=in_force[rows], resource=arrivals.resource, step_seconds=arrivals.step_seconds)


def _chosen(room: FloatArray, limit: float, fit: Fit) -> int | None:
    """The node that a task with such a limit goes to; None where none has the room."""
    fitting = np.flatnonzero(room * (1 + ROUNDING) >= limit)
    if not len(fitting):
        return None
    match fit:
        case Fit.FIRST:
            return int(fitting[0])
        case Fit.BEST:
            return int(fitting[room[fitting].argmin()])
        case Fit.WORST:
            return int(fitting[room[fitting].argmax()])


def _exceeded(
    usage: FloatArray, told: tuple[FloatArray, list[IntArray], FloatArray], then: int, horizon_steps: int
) -> FloatArray:
    """Whether the tasks that were there then used more than was told of them, [nodes]; NaN where that is not known."""
    peaks, on, limits = told
    actual = np.array([true_peak(usage[rows, then : then + horizon_steps], limits[rows], horizon_steps) for rows in on])
    is_told = peaks < np.array([limits[rows].sum(dtype=np.float64) for rows in on])
    return np.where(is_told & ~np.isnan(actual), is_violated(peaks, actual), np.nan)
