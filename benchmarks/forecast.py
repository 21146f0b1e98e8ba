"""How accurate the forecasts are on public traces, beside every forecaster alone and GIFT-Eval's seasonal naive.

    python -m benchmarks.forecast TRACES                       all tasks; those with a stored result are skipped
    python -m benchmarks.forecast TRACES --only bitbrains-july-cpu-4h --again

The path is the production one: what is fitted, weighed and calibrated sees nothing after the first cutoff; from then on
the bundle learns as it does when it serves. Everything is written to benchmarks/results/forecast.json as it is made,
and to forecast.md as a table.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import LEVELS, PEER, SHOWN, asked_of, geometric_mean, losses, shares
from benchmarks.recipe.beside import NAME as RECIPE_RESULTS
from benchmarks.recipe.beside import beside
from benchmarks.running import kept, run
from benchmarks.traces import Task, tasks
from models.forecast import History
from pipelines.flows.clock import StepClock
from pipelines.flows.model import trained
from pipelines.steps.score import bundle_backtest
from predictor.backtest.coverage import grouped_coverage, ramps
from predictor.backtest.rolling import Backtest, backtest_of

FORESIZE = "foresize"


def main() -> None:
    """Run what is asked for."""
    run(__doc__, "forecast", {task.name: partial(measured, task) for task in tasks()}, table)


def measured(task: Task, folder: Path) -> dict[str, Any]:
    """The task's figures of every method."""
    asked = asked_of(task, folder)
    usage, question = asked.panel.history(), asked.question
    ours = trained(asked.plan, (), StepClock(lambda _step, _done, _total: None))
    made = {FORESIZE: bundle_backtest(ours.bundle, asked.panel, asked.cutoffs, question)}
    for (_, name), model in ours.models.items():
        made[name] = backtest_of(question.asked_of(model), usage, asked.cutoffs)
    made[PEER] = asked.peer()
    scored = losses({name: each.select(asked.warm) for name, each in made.items()})
    figures = scored.figures()
    best = min((name for name in made if name != FORESIZE), key=lambda name: figures[name]["crps_ratio"])
    served = [ours.bundle.series[key].forecaster for key in asked.plan.warm]
    return {
        "series": len(asked.warm),
        "windows": len(asked.cutoffs),
        "horizon_steps": task.horizon_steps,
        "tuned_on": task.is_tuned_on,
        "seed": asked.settings.training.seed,
        "points": int(scored.count.sum()),
        "ramp_coverage": _on_ramps(made[FORESIZE].select(asked.warm), usage.select(asked.warm)),
        "combined_series": served.count("combination"),
        "worst_tenth_if_alike": scored.worst_tenth_if_alike(FORESIZE),
        "ratio_to_best_interval": scored.ratio_interval(FORESIZE, best),
        "methods": figures,
    }


def table(stored: dict[str, Any]) -> str:
    """The stored results as Markdown, what falls short of its best competitor first."""
    rows = []
    for name, result in stored.items():
        ours = result["methods"][FORESIZE]
        others = {k: v for k, v in result["methods"].items() if k != FORESIZE}
        best = min(others, key=lambda k: others[k]["crps_ratio"])
        best_equal = min(others, key=lambda k: others[k]["equal_weight_ratio"])
        rows.append(
            (
                ratio := ours["crps_ratio"] / others[best]["crps_ratio"],
                f"| {name}{' †' if result['tuned_on'] else ''} | {result['series']} × {result['windows']} "
                f"| {ours['crps_ratio']:.3f} [{ours['interval'][0]:.3f}, {ours['interval'][1]:.3f}] "
                f"| {others[best]['crps_ratio']:.3f} {best} | {ratio:.3f}{_interval(result)} "
                f"| {ours['equal_weight_ratio']:.3f} "
                f"| {others[best_equal]['equal_weight_ratio']:.3f} {best_equal} "
                f"| {shares(ours['coverage'])} | {shares(ours['worst_tenth'][1:])}{_if_alike(result)} "
                f"| {shares(result['ramp_coverage'][1:])} | {ours['pinball_ratio'][-1]:.2f} "
                f"| {result.get('wall_seconds', float('nan')):.0f}, {result['cpu_seconds']:.0f} |",
            )
        )
    heads = (
        "| task | series × windows | CRPS | best other | ours ÷ best other | equal weight | best other "
        "| coverage at .5 / .9 / .95 / .99 | worst tenth of series at .9 / .95 / .99 (by chance) "
        "| on ramps at .9 / .95 / .99 | pinball at .99 | wall, CPU s |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    )
    ratios = [ratio for ratio, _ in rows]
    equal = [
        result["methods"][FORESIZE]["equal_weight_ratio"]
        / min(v["equal_weight_ratio"] for k, v in result["methods"].items() if k != FORESIZE)
        for result in stored.values()
    ]
    summary = (
        f"{len(rows)} tasks. CRPS ÷ that of the best other method of each task, geometric mean: "
        f"{geometric_mean(ratios):.3f}; with equal weight per series {geometric_mean(equal):.3f}. "
        f"Worse than the best other by more than 2 %: "
        f"{sum(ratio > 1.02 for ratio in ratios)} tasks.\n"
    )
    recipe = "\nBeside the best recipe of an earlier prototype, made anew:\n\n" + beside(stored, kept(RECIPE_RESULTS))
    return heads + "\n".join(row for _, row in sorted(rows, reverse=True)) + "\n\n" + summary + recipe


def _interval(result: dict[str, Any]) -> str:
    """The interval of the ratio to the best other method; nothing where it was not measured."""
    low, high = result.get("ratio_to_best_interval", (np.nan, np.nan))
    return "" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]"


def _if_alike(result: dict[str, Any]) -> str:
    """What the worst tenth would show if all series were covered alike; nothing where it was not measured."""
    return f" ({shares(result['worst_tenth_if_alike'][1:])})" if "worst_tenth_if_alike" in result else ""


def _on_ramps(made: Backtest, usage: History) -> list[float]:
    """Coverage of the steps on a ramp: usage changed more within the hour before than nine times in ten until then."""
    is_ramp = ramps(usage, made.cutoffs_seconds[0]).astype(np.float64)
    changed = replace(usage, usage=is_ramp)
    groups = np.stack([made.target.after(changed, cutoff) > 0 for cutoff in made.cutoffs_seconds])
    on_ramp = grouped_coverage(made, np.asarray(groups, dtype=np.intp), 2)
    covered = on_ramp.covered[:, :, 1].sum(axis=0) / max(int(on_ramp.count[:, 1].sum()), 1)
    return [float(covered[LEVELS.index(level)]) for level in SHOWN]


if __name__ == "__main__":
    main()
