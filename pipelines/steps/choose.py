"""Chooses each series' forecaster and calibrates it, on days that no fit has seen.

Both use the same days: the choice is between a handful of methods, so what it takes from the calibration is small
against what twice as many scores give. The held-out days, on which the bundle is judged, are untouched by either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.calibration import conformal_offsets, series_scale
from models.forecast import FloatArray, History
from pipelines.steps.fit import Fitted, resources_of
from pipelines.steps.plan import Plan, Progress, Question, untold
from predictor.backtest.rolling import Backtest, backtest_of
from predictor.backtest.scores import score
from predictor.serving.bundle import FALLBACK, Bundle, SeriesModel
from predictor.usage.panel import Resource, SeriesKey


@dataclass(frozen=True, slots=True)
class Choice:
    """Which forecaster serves a series, and why."""

    key: SeriesKey
    forecaster: str
    gate_passed: bool
    reason: str
    pinball: Mapping[str, float]
    """Mean pinball loss of each candidate over the calibration days; empty where nothing could be scored."""


def made_bundle(plan: Plan, models: Fitted, progress: Progress = untold) -> Bundle:
    """The bundle of the warm series: each served by the candidate that did best for it, calibrated."""
    question, resources = plan.question, resources_of(plan.warm)
    place = {key: row for row, key in enumerate(plan.panel.keys)}
    known = plan.panel.history().until(plan.split.calibrated_until_seconds)
    series: dict[SeriesKey, SeriesModel] = {}
    served_by: set[tuple[Resource, str]] = set()
    total = len(plan.candidates) * len(resources)
    for number, resource in enumerate(resources):
        keys = [key for key in plan.warm if key.resource == resource]
        history = known.select([place[key] for key in keys])
        made: dict[str, Backtest] = {}
        for name in plan.candidates:
            progress(number * len(plan.candidates) + len(made), total)
            made[name] = backtest_of(question.asked_of(models[resource, name]), history, plan.split.calibration_cutoffs)
        choices = chosen(keys, made, plan.training.baseline)
        offsets = calibration_offsets(history, choices, made, question)
        for choice, row in zip(choices, offsets, strict=True):
            series[choice.key] = SeriesModel(
                choice.key, choice.forecaster, row, choice.pinball, choice.gate_passed, choice.reason
            )
        served_by |= {(resource, choice.forecaster) for choice in choices} | {(resource, FALLBACK)}
    progress(total, total)
    return Bundle(
        step_seconds=plan.panel.step_seconds,
        horizon_steps=question.horizon_steps,
        levels=question.levels,
        forecasters={key: model for key, model in models.items() if key in served_by},
        series=series,
        trained_until_seconds=plan.split.calibrated_until_seconds,
    )


def chosen(keys: Sequence[SeriesKey], made: Mapping[str, Backtest], baseline: str) -> tuple[Choice, ...]:
    """For each series the candidate with the least mean pinball loss; the baseline where none has less than it.

    A candidate counts only where it had an answer for every point that the baseline had one for.
    """
    scores = {name: score(backtest).pooled(parts=True) for name, backtest in made.items()}
    loss = {name: each.pinball.mean(axis=(1, 2)) for name, each in scores.items()}
    points = {name: each.count[:, 0] for name, each in scores.items()}
    choices = []
    for row, key in enumerate(keys):
        usable = {
            name: float(loss[name][row])
            for name in made
            if points[name][row] > 0 and points[name][row] == points[baseline][row]
        }
        choices.append(_choice(key, usable, baseline))
    return tuple(choices)


def calibration_offsets(
    history: History, choices: Sequence[Choice], made: Mapping[str, Backtest], question: Question
) -> FloatArray:
    """Conformal offsets of what serves each series, [series, levels], in units of `series_scale`."""
    any_made = next(iter(made.values()))
    served = np.empty_like(any_made.forecast)
    for row, choice in enumerate(choices):
        served[:, row] = made[choice.forecaster].forecast[:, row]
    scale = np.stack(
        [series_scale(history.until(cutoff).last(question.past_steps)) for cutoff in any_made.cutoffs_seconds]
    )
    return conformal_offsets(any_made.actual, served, scale, question.levels)


def _choice(key: SeriesKey, loss: Mapping[str, float], baseline: str) -> Choice:
    if baseline not in loss:
        return Choice(key, baseline, False, "no sample on the calibration days: nothing to choose by", {})
    best = min(loss, key=lambda name: (loss[name], name != baseline, name))
    if loss[best] < loss[baseline]:
        ratio = loss[best] / loss[baseline]
        return Choice(key, best, True, f"{ratio:.2f} of the pinball loss of {baseline} on the calibration days", loss)
    others = [name for name in loss if name != baseline]
    if not others:
        return Choice(key, baseline, False, f"only {baseline} could be scored on the calibration days", loss)
    if loss[baseline] == 0:
        return Choice(key, baseline, False, f"{baseline} made no error on the calibration days", loss)
    nearest = min(others, key=lambda name: loss[name])
    ratio = loss[nearest] / loss[baseline]
    reason = f"nothing beats {baseline} on the calibration days; the nearest, {nearest}, has {ratio:.2f} of its loss"
    return Choice(key, baseline, False, reason, loss)
