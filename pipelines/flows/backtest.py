"""A rolling backtest: everything is fitted, chosen and calibrated once, on what lies before the first cutoff; then
every cutoff is forecast from the usage up to it. There is no retraining between cutoffs, but the weights of the
forecasters follow what became of earlier forecasts, as they do in serving.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from pipelines.flows.clock import StepClock, Told
from pipelines.settings import Settings, TrainingSettings
from pipelines.steps.choose import made_bundle
from pipelines.steps.fit import Fitted, fitted
from pipelines.steps.plan import Plan, Question, planned, question_of
from pipelines.steps.prepare import prepared
from pipelines.steps.score import (
    HeldOut,
    ResourceAccuracy,
    added,
    baseline_backtest,
    bundle_backtest,
    resource_accuracy,
)
from pipelines.steps.split import Split, inner_split, observed_times, split_in_time
from predictor.backtest.rolling import forecast_table
from predictor.backtest.scores import Scores
from predictor.errors import InvalidUsage
from predictor.serving.bundle import Bundle
from predictor.settings import duration_text
from predictor.usage.panel import Finding, UsagePanel

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class BacktestReport:
    """What came of a backtest."""

    cutoffs_seconds: tuple[int, ...]
    trained_until_seconds: int
    """Nothing after it was seen by a fit, a choice or a calibration; at or before the first cutoff."""
    rows: int
    series: int
    forecasts: int
    """Pairs of series and cutoff with a forecast."""
    without_forecast: int
    """Pairs without one: too few samples in the past that a forecast is made from."""
    past: str
    """How much past that is, as written in the settings."""
    resources: tuple[ResourceAccuracy, ...]
    levels: tuple[float, ...]
    baseline: str
    findings: tuple[Finding, ...]
    fingerprint: str
    seconds_by_step: dict[str, float]


def backtest(
    settings: Settings,
    panel: UsagePanel,
    write: "Callable[[pd.DataFrame], None]",
    *,
    cutoffs: int | Sequence[int],
    workloads: str | None = None,
    told: Told = lambda _step, _done, _total: None,
) -> BacktestReport:
    """Hands one long table of forecasts per cutoff to `write`, and sums up how good they were.

    A number of cutoffs is spread over the newest `training.held_out` of the panel; cutoffs given as epoch seconds
    are used as they are. Raises InvalidUsage for cutoffs that cannot be used, NotEnoughHistory, UnknownWorkload.
    """
    clock = StepClock(told)
    question = question_of(settings)
    with clock.step("prepare"):
        history = prepared(panel, workloads)
        split = _split(history.panel, question, settings.training, cutoffs)
        plan = planned(history.panel, split, question, settings.training)
    with clock.step("fit") as progress:
        models = fitted(plan, progress)
    with clock.step("calibrate") as progress:
        bundle = made_bundle(plan, models, progress)
    rows = forecasts = 0
    sums: tuple[Scores, Scores] | None = None
    with clock.step("forecast") as progress:
        for number, cutoff in enumerate(split.held_out_cutoffs):
            progress(number, len(split.held_out_cutoffs))
            part = _seen_from(plan, cutoff)
            bundle = bundle.learned(part.keys, part.history().until(cutoff))
            scored = _at(plan, part, bundle, models, cutoff)
            table = forecast_table(scored.keys, scored.bundle)
            write(table)
            rows += len(table)
            forecasts += int(np.sum(~np.isnan(scored.bundle.forecast[0, :, 0, 0])))
            ours, theirs = scored.scores()
            sums = (ours, theirs) if sums is None else (added(sums[0], ours), added(sums[1], theirs))
    assert sums is not None  # a split has at least one cutoff
    return BacktestReport(
        cutoffs_seconds=split.held_out_cutoffs,
        trained_until_seconds=split.calibrated_until_seconds,
        rows=rows,
        series=len(history.panel.keys),
        forecasts=forecasts,
        without_forecast=len(history.panel.keys) * len(split.held_out_cutoffs) - forecasts,
        past=duration_text(settings.history.serving_span),
        resources=resource_accuracy(history.panel.keys, *sums, bundle),
        levels=question.levels,
        baseline=settings.training.baseline,
        findings=(*history.findings, *plan.findings),
        fingerprint=history.fingerprint,
        seconds_by_step=clock.seconds,
    )


def _split(panel: UsagePanel, question: Question, training: TrainingSettings, cutoffs: int | Sequence[int]) -> Split:
    if isinstance(cutoffs, int):
        asked = training.model_copy(update={"cutoffs": cutoffs})
        # As many cutoffs for the calibration as ever: their number has another purpose.
        split = split_in_time(panel, question.horizon_steps, asked)
        inner = inner_split(
            panel, question.horizon_steps, training, _steps_until(panel, split.calibrated_until_seconds)
        )
        return replace(inner, held_out_cutoffs=split.held_out_cutoffs, findings=split.findings)
    given = tuple(sorted(set(cutoffs)))
    _check(panel, given)
    inner = inner_split(panel, question.horizon_steps, training, _steps_until(panel, given[0]))
    return replace(inner, held_out_cutoffs=given)


def _steps_until(panel: UsagePanel, seconds: int) -> int:
    return int(np.sum(observed_times(panel) <= seconds))


def _check(panel: UsagePanel, cutoffs: tuple[int, ...]) -> None:
    if not cutoffs:
        raise InvalidUsage("no cutoff was given")
    first, last = panel.start_seconds, panel.end_seconds
    for cutoff in cutoffs:
        if not first <= cutoff <= last:
            raise InvalidUsage(f"cutoff {_time(cutoff)} lies outside the history, {_time(first)} to {_time(last)}")
        if (cutoff - first) % panel.step_seconds:
            near = cutoff - (cutoff - first) % panel.step_seconds
            raise InvalidUsage(
                f"cutoff {_time(cutoff)} is not on the grid of {panel.step_seconds} s; the step before it begins at "
                f"{_time(near)}"
            )


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seen_from(plan: Plan, cutoff: int) -> UsagePanel:
    """No more of the panel than one cutoff needs: the window that serving reads, and what then happened."""
    question, step = plan.question, plan.panel.step_seconds
    return plan.panel.between(cutoff - (question.past_steps - 1) * step, cutoff + question.horizon_steps * step)


def _at(plan: Plan, part: UsagePanel, bundle: Bundle, models: Fitted, cutoff: int) -> HeldOut:
    """One cutoff's forecasts, by the bundle and by the baseline."""
    question = plan.question
    ours = bundle_backtest(bundle, part, (cutoff,), question)
    theirs = baseline_backtest(models, plan.training.baseline, part, (cutoff,), question=question)
    return HeldOut(part.keys, ours, theirs)
