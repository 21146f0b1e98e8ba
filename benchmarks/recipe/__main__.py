"""How accurate the prototype's recipe is on the virtual machines' tasks: same series, windows, levels and points.

    python -m benchmarks.recipe TRACES                       all tasks; those with a stored result are skipped
    python -m benchmarks.recipe TRACES --only bitbrains-july-cpu-4h --again

It learns from what lies before the first cutoff, of all series. Results go to benchmarks/results/recipe.json, with the
forecasts that the recipe starts from; benchmarks.forecast shows them beside its own.
"""

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.accuracy import LEVELS, PEER, asked_of, losses, shares
from benchmarks.recipe.beside import NAME, RECIPE
from benchmarks.recipe.boosted import Recipe
from benchmarks.running import run
from benchmarks.traces import Task, tasks
from predictor.backtest.rolling import Backtest, backtest_of

BITBRAINS = "bitbrains"
SEED = 0


def main() -> None:
    """Run what is asked for."""
    made = {task.name: partial(measured, task) for task in tasks() if task.name.startswith(BITBRAINS)}
    run(__doc__, NAME, made, table)


def measured(task: Task, folder: Path) -> dict[str, Any]:
    """The task's figures of the recipe and of what it starts from."""
    asked = asked_of(task, folder)
    history = asked.panel.history()
    recipe = Recipe(LEVELS, task.horizon_steps, SEED).fit(history.until(asked.cutoffs[0]))
    by_cutoff = {at: recipe.forecasts(history.until(at)) for at in asked.cutoffs}

    def backtest(name: str) -> Backtest:
        return backtest_of(lambda past: by_cutoff[past.end_seconds][name], history, asked.cutoffs)

    made = {name: backtest(name) for name in (RECIPE, *(n for n in by_cutoff[asked.cutoffs[0]] if n != RECIPE))}
    scored = losses({name: each.select(asked.warm) for name, each in (made | {PEER: asked.peer()}).items()})
    return {
        "series": len(asked.warm),
        "windows": len(asked.cutoffs),
        "points": int(scored.count.sum()),
        "seed": SEED,
        "methods": scored.figures(),
    }


def table(stored: dict[str, Any]) -> str:
    """The stored results as Markdown, the recipe first of each task."""
    heads = "| task | series × windows | method | CRPS | equal weight | coverage at .5 / .9 / .95 / .99 |\n"
    rows = [
        f"| {name} | {result['series']} × {result['windows']} | {method} | {made['crps_ratio']:.3f} "
        f"[{made['interval'][0]:.3f}, {made['interval'][1]:.3f}] | {made['equal_weight_ratio']:.3f} "
        f"| {shares(made['coverage'])} |"
        for name, result in stored.items()
        for method, made in result["methods"].items()
        if method != PEER
    ]
    return heads + "|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
