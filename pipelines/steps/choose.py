"""Chooses each series' forecaster and calibrates it, on days that no fit has seen.

Both use the same days: the choice is between a handful of methods, so what it takes from the calibration is small
against what twice as many scores give. The held-out days, on which the bundle is judged, are untouched by either.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from models.calibration import conformal_offsets, series_scale
from models.combination import Combination, combined, part_losses
from models.forecast import FloatArray, Forecaster, History
from pipelines.steps.fit import Fitted, resources_of
from pipelines.steps.plan import Mapped, Plan, Progress, Question, untold
from predictor.backtest.rolling import Backtest
from predictor.backtest.scores import score
from predictor.serving.bundle import COMBINATION, Bundle, SeriesModel, siblings
from predictor.usage.panel import Resource, SeriesKey

LARGEST_LOSS = 1.05
"""The combination serves a series unless it lost this many times the baseline there: less may be chance."""
WARM_UP = 3
"""The first of so many parts of the cutoffs only fills the record: what serves is chosen and calibrated on the rest."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which forecaster serves a series, and why."""

    key: SeriesKey
    forecaster: str
    gate_passed: bool
    reason: str


def made_bundle(plan: Plan, models: Fitted, progress: Progress = untold, mapped: Mapped = map) -> Bundle:
    """The bundle of the warm series: each served by the combination of all candidates or the baseline, calibrated."""
    resources = resources_of(plan.warm)
    place = {key: row for row, key in enumerate(plan.panel.keys)}
    known = plan.panel.history().until(plan.split.calibrated_until_seconds)
    series: dict[SeriesKey, SeriesModel] = {}
    combinations: dict[Resource, Combination] = {}
    asked = 0

    def told() -> None:
        nonlocal asked
        progress(asked, len(resources) * len(plan.split.calibration_cutoffs))
        asked += 1

    for resource in resources:
        keys = [key for key in plan.warm if key.resource == resource]
        history = known.select([place[key] for key in keys])
        candidates = {name: models[resource, name] for name in plan.candidates}
        rehearsal = rehearsed(history, keys, candidates, plan, told=told, mapped=mapped)
        combinations[resource] = rehearsal.combination
        choices = chosen(keys, rehearsal.made, plan.training.baseline)
        offsets = calibration_offsets(history, choices, rehearsal.made, plan.question)
        for row, (choice, offset) in enumerate(zip(choices, offsets, strict=True)):
            losses = {name: float(loss[row]) for name, loss in rehearsal.pinball.items() if np.isfinite(loss[row])}
            series[choice.key] = SeriesModel(
                choice.key, choice.forecaster, offset, losses, choice.gate_passed, choice.reason
            )
    progress(asked, asked)
    return Bundle(
        step_seconds=plan.panel.step_seconds,
        target=plan.question.target,
        levels=plan.question.levels,
        forecasters=models,
        series=series,
        trained_until_seconds=plan.split.calibrated_until_seconds,
        combinations=combinations,
        learned_until_seconds=plan.split.calibration_cutoffs[-1],
    )


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The calibration days as they would have been served."""

    combination: Combination
    """The candidates' record over all of them."""
    made: Mapping[str, Backtest]
    """Of the baseline and of the combination, without the cutoffs at which there was no record to combine by yet."""
    pinball: Mapping[str, FloatArray]
    """Mean loss of each candidate and of the combination over the same cutoffs, [series]; NaN without a point."""


def rehearsed(
    history: History,
    keys: Sequence[SeriesKey],
    candidates: Mapping[str, Forecaster],
    plan: Plan,
    *,
    told: Callable[[], None] = lambda: None,
    mapped: Mapped = map,
) -> Rehearsal:
    """Every candidate at every calibration cutoff, and what the combination would have made of them at the time.

    At a cutoff the weights know only those forecasts whose whole horizon was over by then.
    """
    question, cutoffs = plan.question, plan.split.calibration_cutoffs
    names, baseline = tuple(candidates), tuple(candidates).index(plan.training.baseline)
    outcomes_asked = len(question.target.ahead)
    record = Combination.without_record(len(keys), names, question.levels, outcomes_asked)
    horizon_seconds = question.horizon_steps * history.step_seconds
    waiting: list[tuple[int, FloatArray]] = []
    last = cutoffs[0]
    first = len(cutoffs) // WARM_UP
    kept: dict[str, list[FloatArray]] = {name: [] for name in (plan.training.baseline, COMBINATION)}
    outcomes: list[FloatArray] = []
    losses: list[FloatArray] = []
    asked = mapped(partial(_each_asked, tuple(candidates.values()), history, question), cutoffs)
    for number, (cutoff, made) in enumerate(zip(cutoffs, asked, strict=True)):
        told()
        while waiting and waiting[0][0] + horizon_seconds <= cutoff:
            then, loss = waiting.pop(0)
            record, last = record.realised(loss, then - last), then
        blend = combined(
            dict(enumerate(made)), record.weights(siblings(keys)), record.part_ends, question.levels, question.levels
        )
        outcome = question.target.after(history, cutoff)
        waiting.append((cutoff, part_losses(outcome, made, question.levels, record.part_ends)))
        if number >= first:
            kept[plan.training.baseline].append(made[baseline])
            kept[COMBINATION].append(blend)
            outcomes.append(outcome)
            losses.append(part_losses(outcome, [*made, blend], question.levels, (outcomes_asked,)))
    for then, loss in waiting:
        record, last = record.realised(loss, then - last), then
    actual = np.stack(outcomes)
    backtests = {
        name: Backtest(
            cutoffs[first:], history.step_seconds, question.target, question.levels, np.stack(forecasts), actual
        )
        for name, forecasts in kept.items()
    }
    loss = np.stack(losses).mean(axis=(3, 4))
    count = np.sum(~np.isnan(loss), axis=0)
    mean = np.where(count > 0, np.nansum(loss, axis=0) / np.maximum(count, 1), np.nan)
    return Rehearsal(record, backtests, dict(zip((*names, COMBINATION), mean.T, strict=True)))


def chosen(keys: Sequence[SeriesKey], made: Mapping[str, Backtest], baseline: str) -> tuple[Choice, ...]:
    """For each series the combination, or the baseline where the combination lost clearly more.

    The combination counts only where it had an answer for every point that the baseline had one for.
    """
    scores = {name: score(backtest).pooled(parts=True) for name, backtest in made.items()}
    loss = {name: each.pinball.mean(axis=(1, 2)) for name, each in scores.items()}
    points = {name: each.count[:, 0] for name, each in scores.items()}
    choices = []
    for row, key in enumerate(keys):
        is_scored = points[baseline][row] > 0 and points[COMBINATION][row] == points[baseline][row]
        ours, theirs = float(loss[COMBINATION][row]), float(loss[baseline][row])
        choices.append(_choice(key, ours, theirs, baseline) if is_scored else _unscored(key, baseline))
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


def _each_asked(
    candidates: Sequence[Forecaster], history: History, question: Question, cutoff: int
) -> list[FloatArray]:
    """What each candidate forecasts at a cutoff, from a copy that ends there."""
    past = history.until(cutoff)
    shown = History(past.usage.copy(), past.end_seconds, past.step_seconds)
    return [question.asked_of(each)(shown).values for each in candidates]


def _unscored(key: SeriesKey, baseline: str) -> Choice:
    return Choice(key, baseline, False, "no sample on the calibration days: nothing to choose by")


def _choice(key: SeriesKey, ours: float, theirs: float, baseline: str) -> Choice:
    if theirs == 0:
        return Choice(key, baseline, False, f"{baseline} made no error on the calibration days")
    ratio = ours / theirs
    said = f"{ratio:.2f} of the pinball loss of {baseline} on the calibration days"
    if ratio <= LARGEST_LOSS:
        return Choice(key, COMBINATION, True, f"the combination had {said}")
    return Choice(key, baseline, False, f"the combination had {said}, more than {LARGEST_LOSS:g}: the baseline serves")
