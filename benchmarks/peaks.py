"""How good the forecasts of peaks are on public traces, beside every forecaster alone and the highest usage ever seen.

    python -m benchmarks.peaks TRACES                        all tasks; those with a stored result are skipped
    python -m benchmarks.peaks TRACES --only bitbrains-july-cpu --again

The path is the production one, as in benchmarks/forecast.py. Cutoffs are 4 h apart, their windows end within the last
three days; a window of a day overlaps with the five after it. Results go to benchmarks/results/peaks.json and peaks.md.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.forecast import RESULTS, machine
from benchmarks.traces import AUGUST, HOUR, JULY, Task, read
from foresize.settings import load_settings
from models.forecast import History, QuantileForecast, Target
from pipelines.steps.choose import made_bundle
from pipelines.steps.fit import fitted
from pipelines.steps.plan import planned, question_of
from pipelines.steps.prepare import prepared
from pipelines.steps.score import bundle_backtest, on_common_points
from pipelines.steps.split import inner_split, observed_times
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", type=Path, help="Folder with the trace files.")
    parser.add_argument("--only", action="append", default=[], help="Only tasks whose name begins so.")
    parser.add_argument("--again", action="store_true", help="Measure anew what has a stored result.")
    asked = parser.parse_args()
    file = RESULTS / "peaks.json"
    stored: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for each in tasks():
        if (asked.only and not each.name.startswith(tuple(asked.only))) or (each.name in stored and not asked.again):
            continue
        begun = time.process_time()
        result = measured(each, asked.traces)
        stored[each.name] = result | {"cpu_seconds": round(time.process_time() - begun, 1), **machine()}
        file.write_text(json.dumps(stored, indent=1))
        (RESULTS / "peaks.md").write_text(table(stored))
    print(table(stored))


def measured(peak: PeakTask, folder: Path) -> dict[str, Any]:
    """The task's figures of every method."""
    settings = load_settings(None, {}, {("forecast", "levels"): LEVELS})
    history = prepared(read(peak.task, folder))
    panel, step = history.panel, history.panel.step_seconds
    target = Target(peak.window_seconds // step, is_peak=True)
    question = replace(question_of(settings), target=target)
    last = panel.end_seconds - peak.window_seconds
    first = panel.end_seconds - max(SPAN_SECONDS, 2 * peak.window_seconds)
    at = tuple(range(last - (last - first) // SPACING_SECONDS * SPACING_SECONDS, last + 1, SPACING_SECONDS))
    known = int(np.sum(observed_times(panel) <= at[0]))
    split = inner_split(panel, target.steps, settings.training, known)
    plan = planned(panel, split, question, settings.training)
    models = fitted(plan)
    bundle = made_bundle(plan, models)
    made = {FORESIZE: bundle_backtest(bundle, panel, at, question)}
    for (_, name), model in models.items():
        made[name] = backtest_of(question.asked_of(model), panel.history(), at)
    made[PEER] = backtest_of(lambda past: historical_maximum(past, target), panel.history(), at)
    place = {key: row for row, key in enumerate(panel.keys)}
    warm = [place[key] for key in plan.warm]
    common = dict(zip(made, on_common_points(*(each.select(warm) for each in made.values())), strict=True))
    return {
        "series": len(warm),
        "windows": len(at),
        "tuned_on": peak.task.is_tuned_on,
        "methods": {name: _figures(each, common[PEER]) for name, each in common.items()},
    }


def historical_maximum(past: History, target: Target) -> QuantileForecast:
    """The highest usage ever seen, at every level."""
    highest = np.max(past.usage, axis=1, initial=-np.inf, where=~np.isnan(past.usage))
    values = np.where(np.isfinite(highest), highest, np.nan)[:, None, None] * np.ones((1, len(LEVELS), 1))
    return QuantileForecast(LEVELS, values, past.end_seconds, past.step_seconds, target)


def table(stored: dict[str, Any]) -> str:
    """The stored results as Markdown."""
    heads = [
        "| task | series × windows | method | pinball ÷ historical maximum's at .9 / .95 / .99 | equal weight "
        "| coverage | worst tenth of series |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = []
    for name, result in stored.items():
        methods = result["methods"]
        others = sorted((n for n in methods if n != FORESIZE), key=lambda n: sum(methods[n]["pinball_ratio"][1:]))
        for method in (FORESIZE, *others[:2]):
            figures = methods[method]
            title = f"{name}{' †' if result['tuned_on'] else ''} | {result['series']} × {result['windows']}"
            rows.append(
                f"| {title if method == FORESIZE else ' | '} | {method} | {_joined(figures['pinball_ratio'][1:])} "
                f"| {_joined(figures['equal_ratio'][1:])} | {_shares(figures['coverage'][1:])} "
                f"| {_shares(figures['worst_tenth'][1:])} |"
            )
    return "\n".join([*heads, *rows]) + "\n"


def _joined(values: list[float]) -> str:
    return " / ".join(f"{value:.3f}" for value in values)


def _shares(values: list[float]) -> str:
    return " / ".join(f"{100 * value:.1f}" for value in values)


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
