"""How much can be hosted where placement follows what each predictor says is free, and how often nodes then get full.

    python -m benchmarks.packing TRACES               all tasks; those with a stored result are skipped
    python -m benchmarks.packing TRACES --only cpu --again

Bitbrains' 300 virtual machines wait, in an order that is drawn twice, for room on six nodes of ten mean limits
each: far less than they ask for. Every six hours of July and August those that fit are placed, by first, best and
worst fit; a machine is unknown before it runs and none is moved. August counts, July is how nodes get full and
predictors learn. foresize is set to several violation probabilities, each peer multiplied by several factors, and what
is compared is how much is hosted at no more contention than is allowed. Nothing was chosen on it. Results go to
benchmarks/results/packing.json and packing.md.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autoscaler.simulator.packing import Arrivals, ByForesize, ByPredictor, Fit, RoomTeller, packed
from autoscaler.simulator.peers.node_peaks import PEERS
from benchmarks.oversubscription import FORESIZE, STEPS_A_DAY, bitbrains_usage
from benchmarks.running import run
from benchmarks.traces import AUGUST, JULY
from predictor.usage.panel import Resource

NODES, MEAN_LIMITS = 6, 10.0
ORDERS = 2
EVERY = 72
PROBABILITIES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2)
STATED = 0.01
FACTORS = (0.9, 1.0, 1.1, 1.25, 1.5)
ALLOWED = 0.002
"""Share of the nodes' time in which usage may exceed capacity."""


def main() -> None:
    """Run what is asked for."""
    made = {each.value: partial(measured, each) for each in (Resource.CPU, Resource.MEMORY)}
    run(__doc__, "packing", made, table)


def measured(resource: Resource, folder: Path) -> dict[str, Any]:
    """What every predictor hosted with every value of its knob, by fit, the mean over the orders."""
    usage, limits = bitbrains_usage(resource, AUGUST[1], folder)
    known = ~np.isnan(limits).all(axis=1)
    usage, limits = usage[known], limits[known]
    capacity = MEAN_LIMITS * float(np.nanmean(limits, dtype=np.float64))
    steps = usage.shape[1]
    counted_from = (AUGUST[0] - JULY[0]).days * STEPS_A_DAY
    orders = [np.random.default_rng(seed).permutation(len(usage)) for seed in range(ORDERS)]

    def figures(make: Any) -> dict[str, Any]:
        by_fit = {}
        for fit in Fit:
            outcomes = [
                packed(
                    Arrivals(usage=usage[order], limits=limits[order], resource=resource, step_seconds=300),
                    make(),
                    fit,
                    nodes=NODES,
                    capacity=capacity,
                    decided_at=range(EVERY, steps - STEPS_A_DAY + 1, EVERY),
                    horizon_steps=STEPS_A_DAY,
                    past_steps=28 * STEPS_A_DAY,
                    counted_from=counted_from,
                )
                for order in orders
            ]
            names = ("hosted", "contention", "severity", "tasks")
            by_fit[fit.value] = {name: float(np.mean([getattr(each, name) for each in outcomes])) for name in names}
        return by_fit

    def by_foresize(probability: float) -> RoomTeller:
        return ByForesize(probability, NODES, STEPS_A_DAY)

    methods: dict[str, dict[str, Any]] = {FORESIZE: {f"{p:g}": figures(partial(by_foresize, p)) for p in PROBABILITIES}}
    for name, predictor in PEERS.items():
        methods[name] = {f"{f:g}": figures(partial(ByPredictor, predictor, f)) for f in FACTORS}
    return {
        "seed": 0,
        "virtual_machines": len(usage),
        "asked": float(np.nansum(np.nanmean(limits, axis=1)) / (NODES * capacity)),
        "methods": methods,
    }


def most_hosted(by_knob: Mapping[str, Any], fit: str) -> tuple[float, str] | None:
    """The most that is hosted at no more contention than is allowed, and by which value of the knob; None: by none."""
    kept = [(each[fit]["hosted"], knob) for knob, each in by_knob.items() if each[fit]["contention"] <= ALLOWED]
    return max(kept, default=None)


def table(stored: Mapping[str, Any]) -> str:
    """The stored results as Markdown, a table a resource."""
    lines = []
    for task, result in stored.items():
        lines += [
            f"**{task}**: {result['virtual_machines']} virtual machines that ask for {result['asked']:.1f} times the "
            f"capacity of {NODES} nodes; Σ limits ÷ capacity hosted in August, and in which share of the nodes' time "
            "usage exceeded capacity",
            "",
            "| predictor | as shipped, by first fit | by best fit | by worst fit "
            f"| most hosted at {ALLOWED:.1%}: by first fit (knob) | best | worst |",
            "|---|---|---|---|---|---|---|",
        ]
        rows = []
        for name, by_knob in result["methods"].items():
            shipped = by_knob[f"{STATED:g}" if name == FORESIZE else "1"]
            most = [most_hosted(by_knob, fit.value) for fit in Fit]
            cells = [f"{shipped[fit.value]['hosted']:.2f} at {shipped[fit.value]['contention']:.2%}" for fit in Fit]
            cells += ["none" if each is None else f"{each[0]:.2f} ({each[1]})" for each in most]
            rows.append((max((each[0] for each in most if each is not None), default=0.0), name, cells))
        lines += [f"| {name} | {' | '.join(cells)} |" for _, name, cells in sorted(rows, reverse=True)]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
