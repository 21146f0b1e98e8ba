"""Weighs the forecasters, chooses what serves each series and calibrates it, on days that no fit has seen.

All use the same days: the choice is between two methods, so what it takes from the calibration is small against what
twice as many scores give. The held-out days, on which the bundle is judged, are untouched by either.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from models.calibration import Calibration, part_coverage
from models.combination import Combination, combined, loss_unit, part_losses
from models.forecast import FloatArray, Forecaster, History
from models.gate import LARGEST_LOSS
from models.gate import largest_loss as largest_loss_over
from pipelines.steps.fit import Fitted, resources_of
from pipelines.steps.plan import Mapped, Plan, Progress, Question, untold
from predictor.serving.blocks import Rows, answered_in_blocks
from predictor.serving.bundle import COMBINATION, Bundle, SeriesModel
from predictor.serving.siblings import siblings
from predictor.usage.kin import UNKNOWN_KIN
from predictor.usage.panel import Resource, SeriesKey

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
    baseline = plan.training.baseline
    series: dict[SeriesKey, SeriesModel] = {}
    combinations: dict[Resource, Combination] = {}
    calibrations: dict[Resource, Calibration] = {}
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
        choices = chosen(keys, rehearsal.pinball, baseline, largest_loss(plan))
        combinations[resource] = rehearsal.combination
        calibrations[resource] = _of_what_serves(rehearsal.calibrations, choices)
        for row, choice in enumerate(choices):
            losses = {name: float(loss[row]) for name, loss in rehearsal.pinball.items() if np.isfinite(loss[row])}
            kin = plan.panel.kin.get(choice.key.workload, UNKNOWN_KIN)
            series[choice.key] = SeriesModel(
                choice.key, choice.forecaster, losses, choice.gate_passed, choice.reason, kin
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
        calibrations=calibrations,
        learned_until_seconds=plan.split.calibration_cutoffs[-1],
        threads=plan.training.threads,
    )


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The calibration days as they would have been served."""

    combination: Combination
    """The candidates' record over all of them."""
    calibrations: Mapping[str, Calibration]
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
    names, baseline = tuple(candidates), plan.training.baseline
    kinships = siblings(keys, plan.panel.kin)
    outcomes = len(question.target.ahead)
    record = Combination.without_record(len(keys), names, question.levels, outcomes)
    nothing = Calibration.without_record(len(keys), question.levels, outcomes)
    calibrations = {baseline: nothing, COMBINATION: nothing}
    grid, ends = nothing.levels, nothing.part_ends
    served = [grid.index(level) for level in question.levels]
    reach_seconds = question.target.ahead[np.asarray(ends) - 1] * float(history.step_seconds)
    horizon_seconds = question.horizon_steps * history.step_seconds
    waiting: list[tuple[int, FloatArray]] = []
    last: float = -np.inf
    calibrated: float = -np.inf
    first = len(cutoffs) // WARM_UP
    losses: list[FloatArray] = []
    at_grid = replace(question, levels=grid)
    threads = plan.training.threads
    asked = mapped(partial(_each_asked, tuple(candidates.values()), history, at_grid, threads=threads), cutoffs)
    for number, (cutoff, made) in enumerate(zip(cutoffs, asked, strict=True)):
        told()
        while waiting and waiting[0][0] + horizon_seconds <= cutoff:
            then, loss = waiting.pop(0)
            record, last = record.realised(loss, then - last, reach_seconds), then
        blend = combined(dict(enumerate(made)), record.weights(kinships), ends, question.levels, grid)
        actual, is_bound = question.target.after(history, cutoff), question.target.bounds_after(history, cutoff)
        at_levels = [each[:, served] for each in made]
        unit = loss_unit(history.until(cutoff).last(question.past_steps))[:, None, None, None]
        waiting.append((cutoff, part_losses(actual, at_levels, question.levels, ends, is_bound) / unit))
        if number >= first:
            for name, forecast in ((baseline, made[names.index(baseline)]), (COMBINATION, blend)):
                covered = part_coverage(actual, forecast, grid, ends, is_bound)
                calibrations[name] = calibrations[name].realised(covered, cutoff - calibrated, reach_seconds)
            calibrated = cutoff
            losses.append(part_losses(actual, [*at_levels, blend[:, served]], question.levels, (outcomes,), is_bound))
    for then, loss in waiting:
        record, last = record.realised(loss, then - last, reach_seconds), then
    loss = np.stack(losses).mean(axis=(3, 4))
    count = np.sum(~np.isnan(loss), axis=0)
    mean = np.where(count > 0, np.nansum(loss, axis=0) / np.maximum(count, 1), np.nan)
    return Rehearsal(record, calibrations, dict(zip((*names, COMBINATION), mean.T, strict=True)))


def largest_loss(plan: Plan) -> float:
    """How many times the baseline's loss the combination may have had on the calibration days and still serves.

    It always serves a peak: few windows fit into the calibration days, and quiet ones say nothing against having been
    prepared.
    """
    if plan.question.target.is_peak:
        return np.inf
    cutoffs = plan.split.calibration_cutoffs
    scored_seconds = cutoffs[-1] - cutoffs[len(cutoffs) // WARM_UP]
    horizons = 1 + scored_seconds / (plan.question.horizon_steps * plan.panel.step_seconds)
    return largest_loss_over(horizons)


def chosen(
    keys: Sequence[SeriesKey], pinball: Mapping[str, FloatArray], baseline: str, most: float = LARGEST_LOSS
) -> tuple[Choice, ...]:
    """For each series the combination, or the baseline where the combination lost more than `most` times as much.

    `pinball` holds the mean loss of both, [series], over the same points.
    """
    choices = []
    for key, ours, theirs in zip(keys, pinball[COMBINATION].tolist(), pinball[baseline].tolist(), strict=True):
        is_scored = np.isfinite(theirs)
        choices.append(_choice(key, ours, theirs, baseline, most) if is_scored else _unscored(key, baseline))
    return tuple(choices)


def _of_what_serves(calibrations: Mapping[str, Calibration], choices: Sequence[Choice]) -> Calibration:
    """Each series' coverage by what was chosen for it."""
    made = calibrations[COMBINATION]
    covered, evidence = made.covered.copy(), made.evidence.copy()
    for row, choice in enumerate(choices):
        covered[row], evidence[row] = calibrations[choice.forecaster].covered[row], made.evidence[row]
    return replace(made, covered=covered, evidence=evidence)


def _each_asked(
    candidates: Sequence[Forecaster], history: History, question: Question, cutoff: int, *, threads: int
) -> list[FloatArray]:
    """What each candidate forecasts at a cutoff, from copies that end there."""
    past = history.until(cutoff).last(question.past_steps)

    def answer(block: Rows) -> list[FloatArray]:
        shown = past.select(block)
        return [question.asked_of(each)(shown).values for each in candidates]

    blocks = answered_in_blocks(answer, np.arange(history.series_count), threads)
    return [np.concatenate(each) for each in zip(*blocks, strict=True)]


def _unscored(key: SeriesKey, baseline: str) -> Choice:
    return Choice(key, baseline, False, "no sample on the calibration days: nothing to choose by")


def _choice(key: SeriesKey, ours: float, theirs: float, baseline: str, most: float) -> Choice:
    if theirs == 0 and np.isfinite(most):
        return Choice(key, baseline, False, f"{baseline} made no error on the calibration days")
    ratio = ours / theirs if theirs > 0 else 1.0
    said = f"{ratio:.2f} of the pinball loss of {baseline} on the calibration days"
    if ratio <= most:
        return Choice(key, COMBINATION, True, f"the combination had {said}")
    return Choice(key, baseline, False, f"the combination had {said}, more than {most:.3g}: the baseline serves")
