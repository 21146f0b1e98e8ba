"""Replays what is foretold of the peaks of nodes' total usage: each decision from the past only, then usage judges it.

The set-up is that of EuroSys'21 "Take it to the limit": the true peak is the highest total, within a day, of the tasks
that are there at the decision, each capped at the limit that it has then. A decision is violated where the peak exceeds
what was foretold; what lies between that and the sum of limits is saved. Nothing that a predictor says moves a task:
placement is exogenous.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.simulator.outcome import ReplayError
from models.exceedance import Exceedances
from models.forecast import BoolArray, FloatArray, IntArray, last_samples
from models.node_peak import COLD_SAMPLES, SEEN_SHARE, NodePast, NoPeak, capped_totals, node_past
from predictor.usage.panel import Resource

ROUNDING = 1e-6
"""Usage that exceeds a peak by no more than this share does not: traces hold single precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHistory:
    """All that ever ran on one node, for one resource in its base unit."""

    node: str
    usage: FloatArray
    """[tasks, steps]; NaN is no sample."""
    limits: FloatArray
    """[tasks, steps], or [tasks] where they never changed; NaN is not known at that step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """What can be seen of a node at a decision: the tasks there now."""

    usage: FloatArray
    """[tasks, steps], the last step ends now; NaN is no sample."""
    limits: FloatArray
    """[tasks], now."""
    resource: Resource
    step_seconds: int

    @property
    def is_cold(self) -> BoolArray:
        """Which tasks have fewer than 24 samples, [tasks]."""
        return np.asarray(np.count_nonzero(~np.isnan(self.usage), axis=1) < COLD_SAMPLES)

    def last(self, seconds: int) -> FloatArray:
        """Usage within the last so many seconds, each task's capped at its limit, [tasks, steps]."""
        return np.asarray(np.minimum(self.usage[:, -max(seconds // self.step_seconds, 1) :], self.limits[:, None]))


PeakPredictor = Callable[[NodeSeen], float]
"""Foretells the highest total usage of a node's tasks, in the resource's base unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakReplay:
    """Every decision about every node, [nodes, decisions]; NaN where it had no task or nobody was watching after."""

    nodes: tuple[str, ...]
    decided_at: IntArray
    """The steps before which the decisions are made."""
    horizon_steps: int
    limits: FloatArray
    """Σ limits of the tasks there."""
    actual: FloatArray
    """The true peak."""
    predicted: Mapping[str, FloatArray]
    """What each predictor foretold, no more than Σ limits."""
    pasts: tuple[tuple[NodePast | NoPeak, ...], ...]
    """What foresize has to go by, [nodes][decisions]."""


def replay_node_peaks(
    nodes: Sequence[NodeHistory],
    predictors: Mapping[str, PeakPredictor],
    *,
    resource: Resource,
    step_seconds: int,
    horizon_steps: int,
    decided_at: Sequence[int],
    past_steps: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> PeakReplay:
    """What each predictor foretells at each decision from the `past_steps` before it; `progress` is told of each node.

    A task is there if it has a sample within the last 24 steps, as one that is cold is none the longer. How samples
    missing within the horizon count: `capped_totals`. Raises ReplayError where nothing is to be replayed or a task has
    no limit.
    """
    if not nodes or not len(decided_at) or min(decided_at) < 1:
        raise ReplayError(f"{len(nodes)} nodes and {len(decided_at)} decisions, needed: at least one, after some usage")
    shape = (len(nodes), len(decided_at))
    limits, actual = np.full(shape, np.nan), np.full(shape, np.nan)
    predicted = {name: np.full(shape, np.nan) for name in predictors}
    pasts: list[tuple[NodePast | NoPeak, ...]] = []
    for row, node in enumerate(nodes):
        if node.usage.ndim != 2 or len(node.limits) != len(node.usage):
            raise ReplayError(f"{node.node}: usage is {node.usage.shape}, limits {node.limits.shape}")
        of_node: list[NodePast | NoPeak] = []
        for column, now in enumerate(decided_at):
            there = ~np.isnan(node.usage[:, max(0, now - COLD_SAMPLES) : now]).all(axis=1)
            usage = node.usage[there, max(0, now - past_steps) : now]
            in_force = limits_at(node.limits[there], now)
            if not np.isfinite(in_force).all():
                raise ReplayError(f"{node.node}: a task has no limit before step {now}; savings are a share of limits")
            of_node.append(node_past(usage, in_force, horizon_steps))
            if not there.any():
                continue
            seen = NodeSeen(usage=usage, limits=in_force, resource=resource, step_seconds=step_seconds)
            limits[row, column] = in_force.sum(dtype=np.float64)
            actual[row, column] = true_peak(node.usage[there, now : now + horizon_steps], in_force, horizon_steps)
            for name, predictor in predictors.items():
                predicted[name][row, column] = min(predictor(seen), limits[row, column])
        pasts.append(tuple(of_node))
        progress(row + 1, len(nodes))
    return PeakReplay(
        nodes=tuple(node.node for node in nodes),
        decided_at=np.asarray(decided_at, dtype=np.int64),
        horizon_steps=horizon_steps,
        limits=limits,
        actual=actual,
        predicted=predicted,
        pasts=tuple(pasts),
    )


def foresize_peaks(replay: PeakReplay, violation_probability: float, *, is_learning: bool = True) -> FloatArray:
    """What foresize foretells so that a peak exceeds it with a probability, [nodes, decisions].

    It asks for the probability that follows from the violations so far, each known a horizon after its decision; all
    nodes are of one class. Where it has no answer, Σ limits stand, which cannot be exceeded and teach nothing.
    """
    one_class = np.zeros(len(replay.nodes), dtype=np.int64)
    record = Exceedances.without_record(violation_probability, classes=1, nodes=len(replay.nodes))
    made = np.full(replay.actual.shape, np.nan)
    is_told = np.zeros(made.shape, dtype=np.bool_)
    told = 0
    for column, now in enumerate(replay.decided_at):
        while is_learning and replay.decided_at[told] + replay.horizon_steps <= now:
            elapsed = int(replay.decided_at[told] - replay.decided_at[told - 1]) if told else replay.horizon_steps
            exceeded = np.where(is_told[:, told], is_violated(made[:, told], replay.actual[:, told]), np.nan)
            record = record.realised(exceeded, one_class, min(elapsed / replay.horizon_steps, 1.0))
            told += 1
        asked = record.asked(one_class)
        for row, past in enumerate(of_node[column] for of_node in replay.pasts):
            limit = replay.limits[row, column]
            is_told[row, column] = isinstance(past, NodePast) and not np.isnan(replay.actual[row, column])
            made[row, column] = limit if isinstance(past, NoPeak) else min(past.quantiles([asked[row]])[0], limit)
    return made


@dataclass(frozen=True, slots=True)
class PeakOutcome:
    """How one predictor fared over some decisions."""

    decisions: int
    violation_share: float
    worst_tenth_share: float
    """Mean violation share of the tenth of the nodes that fared worst."""
    severity: float
    """Mean over violations of (peak − foretold) ÷ peak; 0 without any."""
    savings: float
    """Mean of (Σ limits − foretold) ÷ Σ limits."""


def judged(
    foretold: FloatArray,
    replay: PeakReplay,
    columns: slice | BoolArray | None = None,
    *,
    rows: slice | BoolArray | None = None,
) -> PeakOutcome:
    """How what was foretold, [nodes, decisions], fared over the decisions of some columns and nodes, or all.

    Raises ReplayError where none of them can be judged.
    """
    at, of = slice(None) if columns is None else columns, slice(None) if rows is None else rows
    foretold, actual, limits = (each[of][:, at] for each in (foretold, replay.actual, replay.limits))
    known = ~np.isnan(actual) & ~np.isnan(foretold)
    if not known.any():
        raise ReplayError("no decision can be judged: nothing was measured after any of them")
    violated = is_violated(foretold, actual) & known
    count = known.sum(axis=1)
    of_node = np.sort(violated.sum(axis=1)[count > 0] / count[count > 0])
    worst = of_node[-max(round(len(of_node) / 10), 1) :]
    excess = ((actual - foretold) / np.where(actual > 0, actual, 1.0))[violated]
    return PeakOutcome(
        decisions=int(known.sum()),
        violation_share=float(violated.sum() / known.sum()),
        worst_tenth_share=float(worst.mean()),
        severity=float(excess.mean()) if len(excess) else 0.0,
        savings=float((1 - foretold / limits)[known].mean()),
    )


def scaled_in_hindsight(
    foretold: FloatArray, replay: PeakReplay, violation_share: float, columns: slice | BoolArray | None = None
) -> tuple[float, FloatArray]:
    """The smallest factor at which no more than a share of the decisions is violated, and what is foretold with it.

    No more than Σ limits, as ever. It knows the future, which favours whom it is done for.
    """
    at = slice(None) if columns is None else columns
    actual, before = replay.actual[:, at], foretold[:, at]
    known = ~np.isnan(actual) & (before > 0)
    if not known.any():
        raise ReplayError("no decision can be scaled: nothing was measured after any of them")
    needed = np.sort(actual[known] / before[known])
    factor = float(needed[max(len(needed) - int(violation_share * len(needed)) - 1, 0)])
    return factor, np.asarray(np.minimum(foretold * factor, replay.limits))


def is_violated(foretold: FloatArray, actual: FloatArray) -> BoolArray:
    """Where the peak exceeded what was foretold."""
    return np.asarray(actual > foretold * (1 + ROUNDING))


def limits_at(limits: FloatArray, now: int) -> FloatArray:
    """The newest known limit of each task before a step, [tasks]; NaN where there is none."""
    recent = slice(max(0, now - COLD_SAMPLES), now)
    return limits if limits.ndim == 1 else last_samples(limits[:, recent])


def true_peak(usage: FloatArray, limits: FloatArray, horizon_steps: int) -> float:
    """Highest total of tasks capped at their limits, from usage [tasks, steps]; NaN where nobody was watching."""
    if usage.shape[1] < horizon_steps:
        return float("nan")
    total = capped_totals(usage, np.broadcast_to(limits[:, None], usage.shape), horizon_steps)[0]
    if np.count_nonzero(~np.isnan(total)) < horizon_steps * SEEN_SHARE:
        return float("nan")
    return float(np.fmax.reduce(total))
