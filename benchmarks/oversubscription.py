"""What may be oversold of nodes on public traces, and how often that was too much: foresize, its peers, the oracle.

    python -m benchmarks.oversubscription TRACES               all tasks; those with a stored result are skipped
    python -m benchmarks.oversubscription TRACES --only bitbrains-july --again

The set-up is that of EuroSys'21 "Take it to the limit". Bitbrains' 300 virtual machines are put on 33 nodes of 20 to 40
each, three times all of them, so that nodes are no independent witnesses; a decision every four hours foretells the
peak of the next 24 h from four weeks at most. July is what everything was chosen on; August, on nodes drawn anew, is
scored from its first day, with July as its past. Tianchi's tasks are on the machines that they ran on, but a single
day of them is known: a decision an hour foretells the peak of the next hour; the first half of the day is what
was chosen on. How calibration stands a change of the mix is seen where in the middle of August other machines take the
place of those on each node. Results go to benchmarks/results/oversubscription.json and oversubscription.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from autoscaler.simulator.node_peaks import (
    NodeHistory,
    PeakReplay,
    foresize_peaks,
    is_violated,
    judged,
    replay_node_peaks,
    scaled_in_hindsight,
)
from autoscaler.simulator.peers.node_peaks import PEERS
from benchmarks.running import run
from benchmarks.traces import AUGUST, JULY
from models.forecast import BoolArray, FloatArray, carried_forward
from predictor.usage.panel import Resource

PROBABILITIES = (0.01, 0.05)
SHUFFLES, NODES, SMALLEST, LARGEST = 3, 11, 20, 40
STEPS_A_DAY = 288
DRAWS = 1000
MIX_CHANGES = 15 * STEPS_A_DAY
"""After so much of August."""
FORESIZE, ORACLE = "foresize", "oracle"


@dataclass(frozen=True, slots=True)
class Scene:
    """Nodes, the decisions about them, and which of these are scored."""

    nodes: Sequence[NodeHistory]
    step_seconds: int
    horizon_steps: int
    decided_at: range
    scored_from: int
    """The step of the first decision that is scored."""
    past_steps: int
    seed: int
    is_tuned_on: bool


def main() -> None:
    """Run what is asked for."""
    made = {}
    for month in ("july", "august"):
        for resource in (Resource.CPU, Resource.MEMORY):
            made[f"bitbrains-{month}-{resource.value}"] = partial(_of_bitbrains, month, resource)
    for half in ("first-half", "second-half"):
        for resource in (Resource.CPU, Resource.MEMORY):
            made[f"tianchi-{half}-{resource.value}"] = partial(_of_tianchi, half, resource)
    for resource in (Resource.CPU, Resource.MEMORY):
        made[f"drift-redrawn-{resource.value}"] = partial(_of_drift, resource, is_to_bursty=False)
        made[f"drift-bursty-{resource.value}"] = partial(_of_drift, resource, is_to_bursty=True)
    run(__doc__, "oversubscription", made, table)


def _of_bitbrains(month: str, resource: Resource, folder: Path) -> dict[str, Any]:
    return measured(bitbrains(month, resource, folder), resource)


def _of_tianchi(half: str, resource: Resource, folder: Path) -> dict[str, Any]:
    return measured(tianchi(half, resource, folder), resource)


def _of_drift(resource: Resource, folder: Path, *, is_to_bursty: bool) -> dict[str, Any]:
    """What foresize foretold before and after the mix of each node changed, beside mixes that did not.

    The machines are dealt anew; or those whose usage varied more in July take the place of those whose varied less.
    """
    usage, limits = bitbrains_usage(resource, AUGUST[1], folder)
    august = (AUGUST[0] - JULY[0]).days * STEPS_A_DAY
    change = august + MIX_CHANGES
    rng = np.random.default_rng(2)
    if is_to_bursty:
        july = usage[:, :august]
        mean = np.nanmean(july, axis=1)
        by_variation = np.argsort(np.nanstd(july, axis=1) / np.where(mean > 0, mean, 1.0), kind="stable")
        halves = np.array_split(by_variation, 2)
        mixes = [np.array_split(rng.permutation(half), NODES // 2) for half in halves]
    else:
        mixes = [drawn_nodes(len(usage), rng), drawn_nodes(len(usage), rng)]

    def replay(mix: Sequence[np.ndarray[Any, Any]]) -> PeakReplay:
        nodes = [NodeHistory(node=f"node-{n}", usage=usage[tasks], limits=limits[tasks]) for n, tasks in enumerate(mix)]
        return replay_node_peaks(
            nodes,
            {},
            resource=resource,
            step_seconds=300,
            horizon_steps=STEPS_A_DAY,
            decided_at=range(7 * STEPS_A_DAY, usage.shape[1] - STEPS_A_DAY + 1, 48),
            past_steps=28 * STEPS_A_DAY,
        )

    first, second = (replay(mix) for mix in mixes)
    changed, at = _spliced(first, second, change), first.decided_at
    # A decision whose horizon holds the change is about a mix that is not there any more.
    before, after = (at >= august) & (at <= change - STEPS_A_DAY), at >= change
    methods = {}
    for probability in PROBABILITIES:
        stated = f"{FORESIZE} {probability:.0%}"
        for what, mix, columns in (
            ("before the change", changed, before),
            ("after it", changed, after),
            ("after it, the new mix all along", second, after),
            ("after it, the old mix all along", first, after),
        ):
            methods[f"{stated}: {what}"] = _figures(foresize_peaks(mix, probability), mix, columns)
    return {
        "nodes": len(mixes[0]),
        "horizon_hours": 24.0,
        "decisions": int(np.count_nonzero(~np.isnan(changed.actual[:, before | after]))),
        "tuned_on": False,
        "seed": 2,
        "methods": methods,
    }


def _spliced(first: PeakReplay, second: PeakReplay, change: int) -> PeakReplay:
    """One replay until a step, then another of as many nodes."""
    is_first = first.decided_at < change
    return replace(
        first,
        limits=np.where(is_first, first.limits, second.limits),
        actual=np.where(is_first, first.actual, second.actual),
        pasts=tuple(
            tuple(a if is_a else b for a, b, is_a in zip(one, other, is_first, strict=True))
            for one, other in zip(first.pasts, second.pasts, strict=True)
        ),
    )


def bitbrains(month: str, resource: Resource, folder: Path) -> Scene:
    """The virtual machines on nodes that are made up; of July nothing later is read."""
    usage, limits = bitbrains_usage(resource, (JULY if month == "july" else AUGUST)[1], folder)
    seed = 0 if month == "july" else 1
    nodes = [
        NodeHistory(node=f"node-{number}", usage=usage[tasks], limits=limits[tasks])
        for number, tasks in enumerate(drawn_nodes(len(usage), np.random.default_rng(seed)))
    ]
    starts = {"july": JULY[0] + pd.Timedelta(days=10), "august": AUGUST[0]}
    return Scene(
        nodes,
        step_seconds=300,
        horizon_steps=STEPS_A_DAY,
        decided_at=range(7 * STEPS_A_DAY, usage.shape[1] - STEPS_A_DAY + 1, 48),
        scored_from=(starts[month] - JULY[0]) // pd.Timedelta(minutes=5),
        past_steps=28 * STEPS_A_DAY,
        seed=seed,
        is_tuned_on=month == "july",
    )


def bitbrains_usage(resource: Resource, end: pd.Timestamp, folder: Path) -> tuple[FloatArray, FloatArray]:
    """Usage and limits of the virtual machines from the beginning of July on, both [tasks, steps of 5 minutes]."""
    conditions = [("resource", "==", resource.value), ("timestamp", "<", pd.Timestamp(end))]
    rows = pd.read_parquet(folder / "bitbrains_5min.parquet", filters=conditions)
    times = pd.date_range(pd.Timestamp(JULY[0]), pd.Timestamp(end), freq="5min", inclusive="left")
    wide = {
        name: rows.pivot(index="timestamp", columns="workload", values=name).reindex(times).to_numpy(np.float32).T
        for name in ("usage", "capacity")
    }
    return np.maximum(wide["usage"], 0), carried_forward(wide["capacity"])


def drawn_nodes(tasks: int, rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
    """The tasks shuffled three times and dealt to eleven nodes of 20 to 40 each time; which are on each node."""
    nodes: list[np.ndarray[Any, Any]] = []
    while len(nodes) < SHUFFLES * NODES:
        sizes = rng.integers(SMALLEST, LARGEST + 1, NODES)
        if sizes.sum() == tasks:
            nodes += np.split(rng.permutation(tasks), np.cumsum(sizes)[:-1])
    return nodes


def tianchi(half: str, resource: Resource, folder: Path) -> Scene:
    """The machines that had tasks; every instance uses what the mean instance of its application does."""
    rows = pd.read_parquet(folder / "tianchi2018_usage_15min.parquet", filters=[("resource", "==", resource.value)])
    wide = rows.pivot(index="workload", columns="timestamp", values="usage")
    capacity = rows.groupby("workload", observed=True)["capacity"].max().reindex(wide.index).to_numpy(np.float32)
    usage = wide.to_numpy(np.float32)
    place = {app: row for row, app in enumerate(wide.index)}
    placed = pd.read_parquet(folder / "tianchi2018_instances.parquet").astype(str)
    nodes = []
    for machine, apps in placed.groupby("machine")["app"]:
        tasks = [place[app] for app in apps]
        nodes.append(NodeHistory(node=str(machine), usage=usage[tasks], limits=capacity[tasks]))
    steps = usage.shape[1]
    is_first = half == "first-half"
    return Scene(
        nodes,
        step_seconds=900,
        horizon_steps=4,
        decided_at=range(28, (steps // 2 if is_first else steps) - 4 + 1, 4),
        scored_from=28 if is_first else steps // 2,
        past_steps=steps,
        seed=0,
        is_tuned_on=is_first,
    )


def measured(scene: Scene, resource: Resource) -> dict[str, Any]:
    """What every method foretold and what came of it."""
    replay = replay_node_peaks(
        scene.nodes,
        PEERS,
        resource=resource,
        step_seconds=scene.step_seconds,
        horizon_steps=scene.horizon_steps,
        decided_at=scene.decided_at,
        past_steps=scene.past_steps,
    )
    columns = replay.decided_at >= scene.scored_from
    methods = {name: _figures(foretold, replay, columns) for name, foretold in replay.predicted.items()}
    methods[ORACLE] = _figures(replay.actual, replay, columns)
    for probability in PROBABILITIES:
        learning = foresize_peaks(replay, probability)
        methods[f"{FORESIZE} {probability:.0%}"] = _figures(learning, replay, columns)
        fixed = foresize_peaks(replay, probability, is_learning=False)
        methods[f"{FORESIZE} {probability:.0%}, not learning"] = _figures(fixed, replay, columns)
    return {
        "nodes": len(scene.nodes),
        "horizon_hours": scene.horizon_steps * scene.step_seconds / 3600,
        "decisions": int(np.count_nonzero(~np.isnan(replay.actual[:, columns]))),
        "tuned_on": scene.is_tuned_on,
        "seed": scene.seed,
        "methods": methods,
    }


def _figures(foretold: FloatArray, replay: PeakReplay, columns: BoolArray) -> dict[str, Any]:
    outcome = judged(foretold, replay, columns)
    low, high = violation_interval(foretold, replay, columns)
    figures = {
        "violations": outcome.violation_share,
        "violations_interval": [low, high],
        "worst_tenth": outcome.worst_tenth_share,
        "severity": outcome.severity,
        "savings": outcome.savings,
    }
    for probability in PROBABILITIES:
        factor, scaled = scaled_in_hindsight(foretold, replay, probability, columns)
        savings = judged(scaled, replay, columns).savings
        figures[f"at_{probability:g}"] = {"factor": round(factor, 4), "savings": savings}
    return figures


def violation_interval(foretold: FloatArray, replay: PeakReplay, columns: BoolArray) -> tuple[float, float]:
    """The middle 95 % of the violation share where other horizons might have come, by bootstrap.

    Whole horizons are drawn, with all nodes and decisions in them: those are no independent witnesses.
    """
    actual, block = replay.actual[:, columns], replay.decided_at[columns] // replay.horizon_steps
    known = ~np.isnan(actual)
    violated = is_violated(foretold[:, columns], actual) & known
    sums = np.array([[each[:, block == b].sum() for b in np.unique(block)] for each in (violated, known)])
    drawn = np.random.default_rng(0).integers(0, sums.shape[1], (DRAWS, sums.shape[1]))
    shares = sums[0][drawn].sum(axis=1) / np.maximum(sums[1][drawn].sum(axis=1), 1)
    return float(np.quantile(shares, 0.025)), float(np.quantile(shares, 0.975))


def table(stored: Mapping[str, Any]) -> str:
    """The stored results as Markdown, a table a task; savings are shares of Σ limits."""
    lines = []
    for task, result in stored.items():
        chosen = ", what was chosen on" if result["tuned_on"] else ""
        lines += [
            f"**{task}**: {result['nodes']} nodes, {result['decisions']} decisions, peak of "
            f"{result['horizon_hours']:g} h{chosen}",
            "",
            "| method | violated | 95 % interval | worst tenth of nodes | severity | savings "
            "| savings scaled in hindsight to 1 % violations | to 5 % |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, figures in sorted(result["methods"].items(), key=lambda item: -item[1]["at_0.01"]["savings"]):
            low, high = figures["violations_interval"]
            scaled = " | ".join(
                f"{100 * figures[f'at_{p:g}']['savings']:.1f} (× {figures[f'at_{p:g}']['factor']:.2f})"
                for p in PROBABILITIES
            )
            lines.append(
                f"| {name} | {figures['violations']:.2%} | {low:.2%} to {high:.2%} | {figures['worst_tenth']:.1%} "
                f"| {figures['severity']:.1%} | {100 * figures['savings']:.1f} | {scaled} |"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
