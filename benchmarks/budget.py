"""What the error budget does on public traces: how often an SLO of 99.5 % is then violated, and what that costs.

    python -m benchmarks.budget TRACES

Series, SLO and replay are those of `benchmarks.scaling`; foresize states 99.5 % and sizes by the quantiles of its
forecasts alone, with replicas filled to its default target and to all that they carry within the SLO, each without a
budget, with one that only tightens, and with ones that may relax. Nothing was chosen on these series. Results go to
benchmarks/results/budget.json and budget.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autoscaler.decisions.budget import BudgetRules
from autoscaler.simulator.catalog import FORESIZE, named
from autoscaler.simulator.oracle import ORACLE
from autoscaler.simulator.policies import ForesizePolicy, Policy
from benchmarks.running import run
from benchmarks.scaling import SEED, TASKS, ScalingTask, kept, prepared
from pipelines.flows.replays import replayed

STATED = 0.995
TARGET = 0.9
RELAXATIONS = (None, 1.0, 3.0, 10.0, 100.0)
"""None: no budget."""


def main() -> None:
    """Run what is asked for."""
    tasks = {each.name: partial(measured, each) for each in TASKS if each.name.startswith("crane")}
    run(__doc__, "budget", tasks, table)


def measured(task: ScalingTask, folder: Path) -> dict[str, Any]:
    """Each setting's outcomes, series by series."""
    plan, given, forecasts = prepared(task, folder)
    trials = []
    for target in (TARGET, 1.0):
        policy = named(FORESIZE).make(replace(given, peaks=forecasts, level=STATED, target_utilisation=target), None)
        assert isinstance(policy, ForesizePolicy)
        for relaxation in RELAXATIONS:
            budget = None if relaxation is None else BudgetRules(STATED, relaxation)
            rungs = {} if budget is None else {rung: forecasts[rung] for rung in budget.rungs}
            asked: Policy = replace(policy, budget=budget, rungs=rungs)
            made = replayed(plan.demand, plan.workloads, [asked], plan.settings)
            trials.append({"is_full": target == 1.0, "relaxation": relaxation, "outcomes": kept(made.of(policy.name))})
            oracle = kept(made.of(ORACLE))
    return {"seed": SEED, "series": [key.workload for key in plan.keys], "trials": trials, "oracle": oracle}


def table(stored: Mapping[str, Any]) -> str:
    """The stored results as Markdown: all series together, then each."""
    lines = [
        f"Foresize at a stated {STATED:.1%}, so that {1 - STATED:.1%} of the time may be in violation.",
        "",
        "| replicas filled to | error budget | violated, all | median | worst | within | cost ÷ oracle's |",
        "|---|---|---|---|---|---|---|",
    ]
    oracle = _cores(each for task in stored.values() for each in task["oracle"])
    trials = [task["trials"] for task in stored.values()]
    for same in zip(*trials, strict=True):
        rows = [row for trial in same for row in trial["outcomes"]]
        known, violated = (np.array([float(row.split()[i]) for row in rows]) for i in (0, 1))
        shares, share = violated / known, violated.sum() / known.sum()
        ratio = np.exp(np.mean(np.log(_cores(rows) / oracle)))
        lines.append(
            f"| {_setting(same[0])} | {share:.2%} | {np.median(shares):.2%} | {shares.max():.2%} "
            f"| {np.mean(shares <= 1 - STATED):.0%} | {ratio:.3f} |"
        )
    lines += [
        "",
        "Violated share of each series:",
        "",
        "| series |" + "".join(f" {_setting(each).replace(' | ', ', ')} |" for each in trials[0]),
        "|---|" + "---|" * len(trials[0]),
    ]
    for name, task in stored.items():
        for row, series in enumerate(task["series"]):
            cells = []
            for each in task["trials"]:
                known, violated = map(float, each["outcomes"][row].split()[:2])
                cells.append(f"{violated / known:.2%}")
            lines.append(f"| {name} {series} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cores(rows: Iterable[str]) -> Any:
    return np.array([float(row.split()[2]) for row in rows])


def _setting(trial: Mapping[str, Any]) -> str:
    relaxation = trial["relaxation"]
    budget = "none" if relaxation is None else "tightens" if relaxation == 1 else f"may relax {relaxation:g} times"
    return f"{'the SLO' if trial['is_full'] else 'the target'} | {budget}"


if __name__ == "__main__":
    main()
