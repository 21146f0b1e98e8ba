"""How good the forecasts of peaks are on public traces, beside every forecaster alone and the highest usage ever seen.

    python -m benchmarks.peaks TRACES                        all tasks; those with a stored result are skipped
    python -m benchmarks.peaks TRACES --only bitbrains-july-cpu --again

The path is the production one, as in benchmarks/forecast.py. Cutoffs are 4 h apart, their windows end within the last
three days; a window of a day overlaps with the five after it. Results go to benchmarks/results/peaks.json and peaks.md.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import shares
from benchmarks.running import run
from benchmarks.traces import AUGUST, HOUR, JULY, Task, read
from foresize.settings import load_settings
from models.forecast import History, QuantileForecast, Target
from pipelines.flows.model import plan_of_all
from pipelines.steps.peaks import peak_parts
from pipelines.steps.plan import question_of
from pipelines.steps.prepare import prepared
from pipelines.steps.score import bundle_backtest, on_common_points
from predictor.backtest.coverage import worst_tenth
from predictor.backtest.rolling import Backtest, backtest_of
from predictor.backtest.scores import score
from predictor.usage.panel import Resource

LEVELS = (0.5, 0.9, 0.95, 0.99)
SPACING_SECONDS = 4 * HOUR
SPAN_SECONDS = 72 * HOUR
FORESIZE, PEER = "foresize", "historical_maximum"


@dataclass(frozen=True, slots=True)
class PeakTask:
    """One figure of the benchmark."""

    task: Task
    window_seconds: int

    @property
    def name(self) -> str:
        """The series, and the window whose peak is forecast."""
        return f"{self.task.name}-peak-{self.window_seconds // HOUR}h"


def tasks() -> tuple[PeakTask, ...]:
    """Every task."""
    made = []
    for month, between in (("july", JULY), ("august", AUGUST)):
        for resource in (Resource.CPU, Resource.MEMORY):
            seen = month == "july" and resource is Resource.CPU
            name = f"bitbrains-{month}-{resource.value}"
            task = Task(name, "bitbrains_5min.parquet", resource, SPACING_SECONDS, between=between, is_tuned_on=seen)
            made += [PeakTask(task, HOUR), PeakTask(task, 24 * HOUR)]
    return tuple(made)


def main() -> None:
    """Run what is asked for."""
    run(__doc__, "peaks", {each.name: partial(measured, each) for each in tasks()}, table)


def measured(peak: PeakTask, folder: Path) -> dict[str, Any]:
    """The task's figures of every method."""
    settings = load_settings(None, {}, {("forecast", "levels"): LEVELS})
    panel = prepared(read(peak.task, folder)).panel
    target = Target(peak.window_seconds // panel.step_seconds, is_peak=True)
    question = replace(question_of(settings), target=target)
    last = panel.end_seconds - peak.window_seconds
    first = panel.end_seconds - max(SPAN_SECONDS, 2 * peak.window_seconds)
    at = tuple(range(last - (last - first) // SPACING_SECONDS * SPACING_SECONDS, last + 1, SPACING_SECONDS))
    plan = plan_of_all(panel.between(panel.start_seconds, at[0]), settings)
    (part,) = peak_parts(plan, (question,)).parts
    made = {FORESIZE: bundle_backtest(part.bundle, panel, at, question)}
    for (_, name), model in part.models.items():
        made[name] = backtest_of(question.asked_of(model), panel.history(), at)
    made[PEER] = backtest_of(lambda past: historical_maximum(past, target), panel.history(), at)
    place = {key: row for row, key in enumerate(panel.keys)}
    warm = [place[key] for key in part.plan.warm]
    common = dict(zip(made, on_common_points(*(each.select(warm) for each in made.values())), strict=True))
    return {
        "series": len(warm),
        "windows": len(at),
        "tuned_on": peak.task.is_tuned_on,
        "seed": settings.training.seed,
        "methods": {name: _figures(each, common[PEER]) for name, each in common.items()},
    }


def historical_maximum(past: History, target: Target) -> QuantileForecast:
    """The highest usage ever seen, at every level."""
    highest = np.max(past.usage, axis=1, initial=-np.inf, where=~np.isnan(past.usage))
    values = np.where(np.isfinite(highest), highest, np.nan)[:, None, None] * np.ones((1, len(LEVELS), 1))
    return QuantileForecast(LEVELS, values, past.end_seconds, past.step_seconds, target)


def table(stored: dict[str, Any]) -> str:
    """The stored results as Markdown, what falls short of the best other method at one of the levels by most first."""
    heads = [
        "| task | series × windows | method | pinball ÷ historical maximum's at .9 / .95 / .99 "
        "| ours ÷ best other's at each | equal weight | coverage | worst tenth of series |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = []
    for name, result in sorted(stored.items(), key=lambda item: -max(shortfall(item[1]["methods"]))):
        methods = result["methods"]
        behind = _joined(shortfall(methods))
        others = sorted((n for n in methods if n != FORESIZE), key=lambda n: sum(methods[n]["pinball_ratio"][1:]))
        for method in (FORESIZE, *others[:2]):
            figures = methods[method]
            title = f"{name}{' †' if result['tuned_on'] else ''} | {result['series']} × {result['windows']}"
            rows.append(
                f"| {title if method == FORESIZE else ' | '} | {method} | {_joined(figures['pinball_ratio'][1:])} "
                f"| {behind if method == FORESIZE else ''} | {_joined(figures['equal_ratio'][1:])} "
                f"| {shares(figures['coverage'][1:])} | {shares(figures['worst_tenth'][1:])} |"
            )
    return "\n".join([*heads, *rows]) + "\n"


def shortfall(methods: dict[str, Any]) -> list[float]:
    """Our loss at each of the upper levels ÷ that of the other method that lost least there."""
    by_level = zip(
        *(figures["pinball_ratio"][1:] for name, figures in methods.items() if name != FORESIZE), strict=True
    )
    return [ours / min(others) for ours, others in zip(methods[FORESIZE]["pinball_ratio"][1:], by_level, strict=True)]


def _joined(values: list[float]) -> str:
    return " / ".join(f"{value:.3f}" for value in values)


def _figures(made: Backtest, peer: Backtest) -> dict[str, Any]:
    ours, theirs = score(made), score(peer)
    a, b = ours.pinball_sums[:, :, 0], theirs.pinball_sums[:, :, 0]
    scored = ours.count[:, 0] > 0
    own = np.full(a.shape, np.nan)
    np.divide(a, b, out=own, where=b > 0)
    coverage = ours.coverage[scored, :, 0]
    return {
        "pinball_ratio": (a.sum(axis=0) / b.sum(axis=0)).tolist(),
        "equal_ratio": np.exp(np.nanmean(np.log(np.clip(own, 1e-3, 1e3)), axis=0)).tolist(),
        "coverage": ours.pooled(series=True).coverage[0, :, 0].tolist(),
        "worst_tenth": worst_tenth(coverage).tolist(),
    }


if __name__ == "__main__":
    main()
