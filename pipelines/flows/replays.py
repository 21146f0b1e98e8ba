"""A replay of many workloads spread over processes: the same outcomes as in one, however many there are."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from autoscaler.simulator.catalog import Given, named
from autoscaler.simulator.comparison import Comparison, Trial, compared
from autoscaler.simulator.oracle import ORACLE
from autoscaler.simulator.outcome import Replay, ReplaySettings, ReplayWorkload, WorkloadOutcome
from autoscaler.simulator.policies import Policy
from autoscaler.simulator.replay import replay
from models.forecast import FloatArray
from pipelines.steps.plan import Mapped, untold
from pipelines.steps.replay import ReplayPlan, safe_peaks

MOST_BLOCKS = 64
"""Demand and policies travel to the workers once a block."""
MARGIN_WORKLOADS = 128
"""Workloads whose margins are learned together: with fewer, what a step takes at all would count."""


def replayed(
    demand: FloatArray,
    workloads: Sequence[ReplayWorkload],
    policies: Sequence[Policy],
    settings: ReplaySettings,
    *,
    mapped: Mapped = map,
    progress: Callable[[int, int], None] = untold,
) -> Replay:
    """What `replay` answers, with blocks of workloads worked on by `mapped`; `progress` is told of workloads."""
    total = len(workloads)
    blocks = [block.tolist() for block in np.array_split(np.arange(total), min(total, MOST_BLOCKS))]
    parts: list[Replay] = []
    done = 0
    for block, part in zip(
        blocks, mapped(partial(_replayed_block, demand, workloads, policies, settings), blocks), strict=True
    ):
        parts.append(part)
        done += len(block)
        progress(done, total)
    names = parts[0].policies
    return Replay(settings, tuple(outcome for name in names for part in parts for outcome in part.of(name)))


def _replayed_block(
    demand: FloatArray,
    workloads: Sequence[ReplayWorkload],
    policies: Sequence[Policy],
    settings: ReplaySettings,
    rows: Sequence[int],
) -> Replay:
    return replay(demand, workloads, policies, settings, rows=rows)


def safe_peaks_in_blocks(
    plan: ReplayPlan,
    forecasts: Mapping[float, FloatArray],
    levels: Sequence[float],
    *,
    mapped: Mapped = map,
    progress: Callable[[int, int], None] = untold,
) -> dict[float, FloatArray]:
    """What `safe_peaks` answers, with blocks of workloads worked on by `mapped`; `progress` is told of workloads."""
    total = len(plan.workloads)
    blocks = [range(first, min(first + MARGIN_WORKLOADS, total)) for first in range(0, total, MARGIN_WORKLOADS)]
    asked = ((plan.select(block), {level: each[block] for level, each in forecasts.items()}) for block in blocks)
    parts: list[dict[float, FloatArray]] = []
    for block, part in zip(blocks, mapped(partial(_safe_block, levels), asked), strict=True):
        parts.append(part)
        progress(block.stop, total)
    return {level: np.concatenate([part[level] for part in parts]) for level in levels}


def _safe_block(
    levels: Sequence[float], asked: tuple[ReplayPlan, Mapping[float, FloatArray]]
) -> dict[float, FloatArray]:
    plan, forecasts = asked
    return safe_peaks(plan, forecasts, levels)


def tried(
    plan: ReplayPlan, names: Sequence[str], given: Given, mapped: Mapped, progress: Callable[[int, int], None]
) -> Comparison:
    """Every policy with every value of its knob, compared at equal violations; `progress` is told of settings."""
    settings = [(name, value) for name in names for value in named(name).values]
    trials: list[Trial] = []
    oracle: tuple[WorkloadOutcome, ...] = ()
    for name, value in settings:
        policy = named(name).make(given, value)
        made = replayed(plan.demand, plan.workloads, [policy], plan.settings, mapped=mapped)
        trials.append(Trial(name, value, made.of(policy.name)))
        oracle = made.of(ORACLE)
        progress(len(trials), len(settings))
    reactive = {name for name in names if named(name).is_reactive}
    return compared(trials, oracle, reactive=reactive, rng=np.random.default_rng(plan.settings.seed))
