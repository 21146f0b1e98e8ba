"""How much can be hosted where placement follows what each predictor says is free, and how often nodes then get full.

    python -m benchmarks.packing TRACES               all tasks; those with a stored result are skipped
    python -m benchmarks.packing TRACES --only cpu --again

Bitbrains' 300 virtual machines wait, in an order that is drawn twice, for room on six nodes of ten mean limits
each: far less than they ask for. Every six hours of July and August those that fit are placed, by first, best and
worst fit; a machine is unknown before it runs and none is moved. August counts, July is how nodes get full and
predictors learn. foresize is set to several violation probabilities, each peer multiplied by several factors, and what
is compared is how much is hosted at no more contention than is allowed. Peers have a week of past where they can have
it. The factors were chosen on July, so that every peer has some at little contention; foresize was not changed for it.
Results go to benchmarks/results/packing.json and packing.md.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autoscaler.settings import OversubscriptionSettings
from autoscaler.simulator.packing import (
    MEAN_LIMITS,
    TASKS_A_NODE,
    Arrivals,
    ByForesize,
    ByPredictor,
    Fit,
    RoomTeller,
    asked_share,
    crowded,
    packed,
)
from autoscaler.simulator.peers.node_peaks import PEERS
from benchmarks.oversubscription import FORESIZE, STEPS_A_DAY, bitbrains_usage
from benchmarks.running import run
from benchmarks.traces import AUGUST, JULY
from models.forecast import FloatArray, IntArray
from predictor.usage.panel import Resource

ORDERS = 2
SIGHT = "sight-"
PROBABILITIES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2)
FACTORS = (1.0, 1.5, 1.75, 2.0, 2.5, 3.0)
WITHOUT_FACTOR = ("limits", "borg_default")
BESIDE = (
    *WITHOUT_FACTOR,
    "rc_like_p99_7d",
    "n_sigma_5_7d",
    "max_n_sigma_rc_7d",
    "koordinator",
    "autopilot_p95_3d",
    "running_maximum_7d",
)
ALLOWED = 0.002
"""Share of the nodes' time in which usage may exceed capacity."""


def main() -> None:
    """Run what is asked for."""
    made: dict[str, Callable[[Path], dict[str, Any]]] = {}
    for each in (Resource.CPU, Resource.MEMORY):
        made |= {each.value: partial(measured, each), f"{SIGHT}{each.value}": partial(with_sight, each)}
    run(__doc__, "packing", made, table)


def measured(resource: Resource, folder: Path) -> dict[str, Any]:
    """What every predictor hosted with every value of its knob, by fit, the mean over the orders."""
    usage, limits = bitbrains_usage(resource, AUGUST[1], folder)
    known = ~np.isnan(limits).all(axis=1)
    usage, limits = usage[known], limits[known]
    counted_from = (AUGUST[0] - JULY[0]).days * STEPS_A_DAY
    orders = [np.random.default_rng(seed).permutation(len(usage)) for seed in range(ORDERS)]
    waiting = [Arrivals(usage=usage[o], limits=limits[o], resource=resource, step_seconds=300) for o in orders]
    plan = crowded(waiting[0], horizon_steps=STEPS_A_DAY, past_steps=28 * STEPS_A_DAY, counted_from=counted_from)

    def figures(make: Callable[[], RoomTeller]) -> dict[str, Any]:
        by_fit = {}
        for fit in Fit:
            outcomes = [packed(arrivals, make(), fit, plan) for arrivals in waiting]
            names = ("hosted", "contention", "severity", "tasks")
            by_fit[fit.value] = {name: float(np.mean([getattr(each, name) for each in outcomes])) for name in names}
        return by_fit

    def by_foresize(probability: float) -> RoomTeller:
        return ByForesize(probability, plan.nodes, STEPS_A_DAY)

    methods: dict[str, dict[str, Any]] = {FORESIZE: {f"{p:g}": figures(partial(by_foresize, p)) for p in PROBABILITIES}}
    for name in BESIDE:
        factors = FACTORS[:1] if name in WITHOUT_FACTOR else FACTORS
        methods[name] = {f"{f:g}": figures(partial(ByPredictor, PEERS[name], f)) for f in factors}
    return {
        "seed": 0,
        "virtual_machines": len(usage),
        "nodes": plan.nodes,
        "asked": asked_share(waiting[0], plan),
        "even_mix": even_mix(usage[:, counted_from:], limits[:, counted_from:]),
        "methods": methods,
    }


def with_sight(resource: Resource, folder: Path) -> dict[str, Any]:
    """What first fit hosts that knows all of August beforehand, newcomers too, at the contention that is allowed.

    In the orders in which machines wait, the mean; and those first that use the least of their limits at most. Each
    goes to the first node that is then full for no more than the allowed share of the month.
    """
    usage, limits = bitbrains_usage(resource, AUGUST[1], folder)
    known = ~np.isnan(limits).all(axis=1)
    counted_from = (AUGUST[0] - JULY[0]).days * STEPS_A_DAY
    capacity = MEAN_LIMITS * float(np.nanmean(limits[known], dtype=np.float64))
    nodes = max(round(np.count_nonzero(known) / TASKS_A_NODE), 1)
    used = np.nan_to_num(np.minimum(usage, limits))[known, counted_from:]
    limit_of = np.nanmean(limits[known], axis=1)

    def hosted(order: IntArray) -> float:
        totals, granted = np.zeros((nodes, used.shape[1])), 0.0
        for task in order:
            full = np.count_nonzero(totals + used[task] > capacity, axis=1)
            fitting = np.flatnonzero(full <= ALLOWED * used.shape[1])
            if len(fitting):
                totals[fitting[0]] += used[task]
                granted += float(limit_of[task])
        return granted / (nodes * capacity)

    drawn = [hosted(np.random.default_rng(seed).permutation(len(used))) for seed in range(ORDERS)]
    return {"seed": 0, "drawn": float(np.mean(drawn)), "quietest": hosted(np.argsort(used.max(axis=1) / limit_of))}


def even_mix(usage: FloatArray, limits: FloatArray) -> float:
    """How much could be hosted at the contention that is allowed if each node were like all machines together.

    With sight of the future; more is hosted only by choosing machines that use less of their limits than others.
    """
    known = ~np.isnan(usage)
    used = np.where(known, np.minimum(usage, limits), 0).sum(axis=0, dtype=np.float64)
    granted = np.where(known, limits, 0).sum(axis=0, dtype=np.float64)
    share = used[granted > 0] / granted[granted > 0]
    return float(1 / np.quantile(share, 1 - ALLOWED))


def most_hosted(by_knob: Mapping[str, Any], fit: str) -> tuple[float, str] | None:
    """The most that is hosted at no more contention than is allowed, and by which value of the knob; None: by none."""
    kept = [(each[fit]["hosted"], knob) for knob, each in by_knob.items() if each[fit]["contention"] <= ALLOWED]
    return max(kept, default=None)


def _seen_text(sight: Mapping[str, Any] | None, even: float) -> str:
    text = f"With sight of all of August {even:.2f} of an even mix of them all could be hosted at {ALLOWED:.1%}"
    if sight is None:
        return text
    return f"{text}; first fit hosts {sight['drawn']:.2f} in the order drawn and {sight['quietest']:.2f} quietest first"


def table(stored: Mapping[str, Any]) -> str:
    """The stored results as Markdown, a table a resource."""
    lines = []
    for task, result in stored.items():
        if task.startswith(SIGHT):
            continue
        lines += [
            f"**{task}**: {result['virtual_machines']} virtual machines that ask for {result['asked']:.1f} times the "
            f"capacity of {result['nodes']} nodes; Σ limits ÷ capacity hosted in August, and in which share of the "
            f"nodes' time usage exceeded capacity. {_seen_text(stored.get(SIGHT + task), result['even_mix'])}",
            "",
            "| predictor | as shipped, by first fit | by best fit | by worst fit "
            f"| most hosted at {ALLOWED:.1%}: by first fit (knob) | best | worst |",
            "|---|---|---|---|---|---|---|",
        ]
        rows = []
        for name, by_knob in result["methods"].items():
            shipped = by_knob[f"{OversubscriptionSettings().probability_of(task):g}" if name == FORESIZE else "1"]
            most = [most_hosted(by_knob, fit.value) for fit in Fit]
            cells = [f"{shipped[fit.value]['hosted']:.2f} at {shipped[fit.value]['contention']:.2%}" for fit in Fit]
            cells += ["none" if each is None else f"{each[0]:.2f} ({each[1]})" for each in most]
            rows.append((max((each[0] for each in most if each is not None), default=0.0), name, cells))
        lines += [f"| {name} | {' | '.join(cells)} |" for _, name, cells in sorted(rows, reverse=True)]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
