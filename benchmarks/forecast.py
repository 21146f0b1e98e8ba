"""How accurate the forecasts are on public traces, beside every forecaster alone and GIFT-Eval's seasonal naive.

    python -m benchmarks.forecast TRACES                       all tasks; those with a stored result are skipped
    python -m benchmarks.forecast TRACES --only bitbrains-july-cpu-4h --again

The path is the production one: what is fitted, weighed and calibrated sees nothing after the first cutoff; from then on
the bundle learns as it does when it serves. Everything is written to benchmarks/results/forecast.json as it is made,
and to forecast.md as a table.
"""

import argparse
import json
import platform
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import gaussian_seasonal_naive
from benchmarks.traces import Task, cutoffs, read, tasks
from foresize.settings import load_settings
from models.forecast import FloatArray, History, QuantileForecast
from pipelines.flows.clock import StepClock
from pipelines.flows.model import plan_of_all, trained
from pipelines.steps.plan import question_of
from pipelines.steps.prepare import prepared
from pipelines.steps.score import bundle_backtest
from predictor.backtest.coverage import grouped_coverage, ramps, worst_tenth
from predictor.backtest.rolling import Backtest, backtest_of

RESULTS = Path(__file__).with_name("results")
DECILES = tuple(round(0.1 * k, 1) for k in range(1, 10))
LEVELS = (*DECILES, 0.95, 0.99)
SHOWN = (0.5, 0.9, 0.95, 0.99)
RESAMPLES = 500
FORESIZE, PEER = "foresize", "gaussian_seasonal_naive"


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", type=Path, help="Folder with the trace files.")
    parser.add_argument("--only", action="append", default=[], help="Only tasks whose name begins so.")
    parser.add_argument("--again", action="store_true", help="Measure anew what has a stored result.")
    asked = parser.parse_args()
    file = RESULTS / "forecast.json"
    stored: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for task in tasks():
        if asked.only and not task.name.startswith(tuple(asked.only)):
            continue
        if task.name in stored and not asked.again:
            continue
        begun = time.process_time()
        result = measured(task, asked.traces)
        stored[task.name] = result | {"cpu_seconds": round(time.process_time() - begun, 1), **machine()}
        file.write_text(json.dumps(stored, indent=1))
        ours = result["methods"][FORESIZE]
        print(f"{task.name}: CRPS {ours['crps_ratio']:.3f}, equal weight {ours['equal_weight_ratio']:.3f}")
    (RESULTS / "forecast.md").write_text(table(stored))
    print(table(stored))


def measured(task: Task, folder: Path) -> dict[str, Any]:
    """The task's figures of every method."""
    panel = read(task, folder)
    settings = load_settings(
        None,
        {},
        {
            ("history", "step"): f"{task.step_seconds}s",
            ("forecast", "horizon"): f"{task.horizon_seconds}s",
            ("forecast", "levels"): LEVELS,
        },
    )
    at = tuple(cutoffs(task, panel))
    question = question_of(settings)
    history = prepared(panel)
    plan = plan_of_all(history.panel.between(history.panel.start_seconds, at[0]), settings)
    ours = trained(plan, (), StepClock(lambda _step, _done, _total: None))
    models, bundle = ours.models, ours.bundle
    place = {key: row for row, key in enumerate(history.panel.keys)}
    warm = [place[key] for key in plan.warm]
    usage = history.panel.history()
    made = {FORESIZE: bundle_backtest(bundle, history.panel, at, question)}
    for (_, name), model in models.items():
        made[name] = backtest_of(question.asked_of(model), usage, at)
    made[PEER] = backtest_of(
        lambda past: QuantileForecast(
            LEVELS,
            gaussian_seasonal_naive(past, question.horizon_steps, LEVELS),
            past.end_seconds,
            past.step_seconds,
            question.target,
        ),
        usage,
        at,
    )
    losses, covered, count = _losses({name: each.select(warm) for name, each in made.items()})
    served = [bundle.series[key].forecaster for key in plan.warm]
    return {
        "series": len(warm),
        "windows": len(at),
        "horizon_steps": task.horizon_steps,
        "tuned_on": task.is_tuned_on,
        "points": int(count.sum()),
        "ramp_coverage": _on_ramps(made[FORESIZE].select(warm), usage.select(warm)),
        "combined_series": served.count("combination"),
        "methods": {name: _figures(losses[name], losses[PEER], covered[name], count) for name in made},
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
                ours["crps_ratio"] / others[best]["crps_ratio"],
                f"| {name}{' †' if result['tuned_on'] else ''} | {result['series']} × {result['windows']} "
                f"| {ours['crps_ratio']:.3f} [{ours['interval'][0]:.3f}, {ours['interval'][1]:.3f}] "
                f"| {others[best]['crps_ratio']:.3f} {best} | {ours['equal_weight_ratio']:.3f} "
                f"| {others[best_equal]['equal_weight_ratio']:.3f} {best_equal} "
                f"| {_shares(ours['coverage'])} | {_shares(ours['worst_tenth'][1:])} "
                f"| {_shares(result['ramp_coverage'][1:])} | {ours['pinball_ratio'][-1]:.2f} |",
            )
        )
    heads = (
        "| task | series × windows | CRPS | best other | equal weight | best other "
        "| coverage at .5 / .9 / .95 / .99 | worst tenth of series at .9 / .95 / .99 | on ramps at .9 / .95 / .99 "
        "| pinball at .99 |\n|---|---|---|---|---|---|---|---|---|---|\n"
    )
    ratios = [ratio for ratio, _ in rows]
    mean = float(np.exp(np.mean(np.log(ratios)))) if ratios else float("nan")
    equal = [
        result["methods"][FORESIZE]["equal_weight_ratio"]
        / min(v["equal_weight_ratio"] for k, v in result["methods"].items() if k != FORESIZE)
        for result in stored.values()
    ]
    summary = (
        f"{len(rows)} tasks. CRPS ÷ that of the best other method of each task, geometric mean: {mean:.3f}; with equal "
        f"weight per series {float(np.exp(np.mean(np.log(equal)))):.3f}. Worse than the best other by more than 2 %: "
        f"{sum(ratio > 1.02 for ratio in ratios)} tasks.\n"
    )
    return heads + "\n".join(row for _, row in sorted(rows, reverse=True)) + "\n\n" + summary


def _shares(values: list[float]) -> str:
    return " / ".join(f"{100 * value:.1f}" for value in values)


def machine() -> dict[str, str]:
    """Where and with what a figure was measured."""
    versions = {name: metadata.version(name) for name in ("numpy", "lightgbm", "foresize")}
    return {"machine": platform.processor() or platform.machine(), "python": platform.python_version()} | versions


def _on_ramps(made: Backtest, usage: History) -> list[float]:
    """Coverage of the steps on a ramp: usage changed more within the hour before than nine times in ten until then."""
    is_ramp = ramps(usage, made.cutoffs_seconds[0]).astype(np.float64)
    changed = replace(usage, usage=is_ramp)
    groups = np.stack([made.target.after(changed, cutoff) > 0 for cutoff in made.cutoffs_seconds])
    on_ramp = grouped_coverage(made, np.asarray(groups, dtype=np.intp), 2)
    shares = on_ramp.covered[:, :, 1].sum(axis=0) / max(int(on_ramp.count[:, 1].sum()), 1)
    return [float(shares[LEVELS.index(level)]) for level in SHOWN]


def _losses(made: dict[str, Backtest]) -> tuple[dict[str, FloatArray], dict[str, FloatArray], FloatArray]:
    """Twice the pinball loss summed, [series, levels], how many points were covered, and how many there are, [series].

    A point counts where every method has an answer.
    """
    any_made = next(iter(made.values()))
    is_scored = ~np.isnan(any_made.actual)
    for each in made.values():
        is_scored &= ~np.isnan(each.forecast).any(axis=2)
    level = np.asarray(LEVELS)[:, None]
    losses, covered = {}, {}
    for name, each in made.items():
        gap = np.where(is_scored[:, :, None], each.actual[:, :, None] - each.forecast, 0.0)
        losses[name] = 2 * np.maximum(level * gap, (level - 1) * gap).sum(axis=(0, 3))
        covered[name] = ((gap <= 0) & is_scored[:, :, None]).sum(axis=(0, 3)).astype(np.float64)
    return losses, covered, is_scored.sum(axis=(0, 2)).astype(np.float64)


def _figures(loss: FloatArray, peer: FloatArray, covered: FloatArray, count: FloatArray) -> dict[str, Any]:
    """Ratios to the peer: GluonTS's CRPS (mean over the deciles of summed loss), and each series counting the same."""
    ours, theirs = loss[:, : len(DECILES)].sum(axis=1), peer[:, : len(DECILES)].sum(axis=1)
    rng = np.random.default_rng(0)
    picked = rng.integers(0, len(ours), (RESAMPLES, len(ours)))
    # A draw of series on which the peer made no error has no ratio.
    total = theirs[picked].sum(axis=1)
    resampled = ours[picked].sum(axis=1)[total > 0] / total[total > 0]
    is_moving = (theirs > 0) & (ours > 0)
    ratio = np.clip(ours[is_moving] / theirs[is_moving], 1e-3, 1e3)
    at = [LEVELS.index(level) for level in SHOWN]
    return {
        "crps_ratio": float(ours.sum() / theirs.sum()),
        "interval": [float(np.quantile(resampled, q)) for q in (0.025, 0.975)],
        "equal_weight_ratio": float(np.exp(np.log(ratio).mean())) if ratio.size else float("nan"),
        "coverage": [float(covered[:, k].sum() / count.sum()) for k in at],
        "worst_tenth": worst_tenth(covered[count > 0][:, at] / count[count > 0, None]).tolist(),
        "pinball_ratio": [float(loss[:, k].sum() / peer[:, k].sum()) for k in at],
    }


if __name__ == "__main__":
    main()
