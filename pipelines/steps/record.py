"""What is worth keeping of a cycle: its parameters, its aggregate figures, its tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipelines.settings import Settings
from pipelines.steps.plan import Plan
from pipelines.steps.score import HeldOut, ResourceAccuracy, accuracy_table, series_table
from predictor.backtest.rolling import STEP, Backtest, forecast_table
from predictor.serving.bundle import Bundle, PanelForecast
from predictor.settings import Section
from predictor.usage.panel import Finding, UsagePanel

if TYPE_CHECKING:
    import pandas as pd

MOST_LEVELS = 8
"""Of more levels than this only the lowest, the middle and the highest become metrics; the tables hold all."""


@dataclass(frozen=True, slots=True)
class Record:
    """Everything about a cycle that is worth keeping, beside its parameters."""

    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    """Aggregates, fewer than 200: what there is per workload goes into a table."""
    tables: "Mapping[str, pd.DataFrame]"
    findings: tuple[Finding, ...]
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """PNG, by name."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A bundle to be registered, with what a reader of the registry sees of it."""

    bundle: Bundle
    tags: Mapping[str, str]
    example: UsagePanel
    """A little usage, from which the model's signature and input example are made."""


def parameters_of(settings: Settings) -> Mapping[str, str]:
    """The settings that the outcome of a cycle depends on, by their names in foresize.yaml."""
    sections: Mapping[str, Section] = {
        "history": settings.history,
        "forecast": settings.forecast,
        "training": settings.training,
    }
    return {
        f"{name}.{key}": ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, section in sections.items()
        for key, value in section.model_dump(mode="json").items()
    }


def metrics_of(accuracies: tuple[ResourceAccuracy, ...], levels: tuple[float, ...]) -> Mapping[str, float]:
    """Aggregate metrics by name, such as `cpu/coverage/0.95`; what could not be measured is left out.

    Of a peak, as in `cpu/peak_1h/coverage/0.95`, only its loss against the baseline's and its coverage.
    """
    shown = levels if len(levels) <= MOST_LEVELS else (levels[0], levels[len(levels) // 2], levels[-1])
    found: dict[str, float] = {}
    for each in accuracies:
        name = each.name.replace(" ", "/")
        found[f"{name}/pinball_ratio"] = each.ratio
        found |= {
            f"{name}/coverage/{level:g}": share
            for level, share in zip(levels, each.coverage, strict=True)
            if level in shown
        }
        if each.target == STEP:
            found |= {
                f"{name}/series": each.series,
                f"{name}/cold": each.cold,
                f"{name}/points": each.points,
                f"{name}/pinball": each.pinball,
                f"{name}/pinball_baseline": each.baseline_pinball,
                f"{name}/pinball_ratio_median": each.median_ratio,
            }
            found |= {f"{name}/chosen/{forecaster}": count for forecaster, count in each.chosen.items()}
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def tables_of(plan: Plan, scored: HeldOut, bundle: Bundle) -> "Mapping[str, pd.DataFrame]":
    """The long tables of a cycle by name: one row per series and level, and per resource, level and part ahead."""
    import pandas as pd

    findings = pd.DataFrame(
        [(f.severity.value, f.workload, f.resource, f.message) for f in (*plan.panel.findings, *plan.findings)],
        columns=pd.Index(["severity", "workload", "resource", "message"]),
    )
    return {
        "series": series_table(scored, bundle),
        "accuracy": accuracy_table(scored, bundle),
        "findings": findings,
    }


def forecast_rows(made: PanelForecast) -> "pd.DataFrame":
    """Forecasts as the long table; a series without one has no rows."""
    said = made.forecast
    nothing = np.full((1, len(made.keys), len(said.target.ahead)), np.nan)
    at_one = Backtest((said.cutoff_seconds,), said.step_seconds, said.target, said.levels, said.values[None], nothing)
    return forecast_table(made.keys, at_one)
