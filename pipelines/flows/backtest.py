"""A rolling backtest: everything is fitted, chosen and calibrated once, on what lies before the first cutoff; then
every cutoff is forecast from the usage up to it. There is no retraining between cutoffs, but the weights of the
forecasters follow what became of earlier forecasts, as they do in serving.

What is done is kept in a folder as it goes, so that an interrupted backtest continues there. The table of forecasts
and all figures are made from that folder at the end: they are the same whether it was interrupted or not, and whatever
the number of jobs.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from models.forecast import FloatArray, Forecaster
from pipelines.flows.clock import StepClock, Told
from pipelines.flows.parallel import mapped_over
from pipelines.settings import Settings, TrainingSettings
from pipelines.steps.choose import made_bundle
from pipelines.steps.compare import (
    FORESIZE,
    Answer,
    Arrays,
    Lane,
    Sums,
    answered,
    joined,
    lanes_of,
    learned_over,
    part_for,
)
from pipelines.steps.figures import LaneFigures, exemplars, lane_figures
from pipelines.steps.fit import fitted
from pipelines.steps.peaks import missing_peaks, peak_parts
from pipelines.steps.plan import Mapped, Plan, Progress, Question, peak_questions_of, planned, question_of
from pipelines.steps.prepare import PreparedHistory, prepared
from pipelines.steps.record import parameters_of
from pipelines.steps.score import ResourceAccuracy, resource_accuracy
from pipelines.steps.split import Split, inner_split, observed_times, split_in_time
from pipelines.tracking.partial_backtest import Kept, PartialBacktest
from predictor.backtest.rolling import Backtest, forecast_table
from predictor.errors import InvalidUsage
from predictor.serving.bundle import Bundle
from predictor.settings import duration_text
from predictor.usage.panel import Finding, Resource, UsagePanel
from predictor.usage.sums import Together, summed

if TYPE_CHECKING:
    import pandas as pd

Task = Callable[[], Any]
LARGEST_BATCH = 8
"""Cutoffs that are worked on at once, at most: what is lost by an interruption."""
FORECASTS_PER_JOB = 2000
"""A process more is started for so many forecasts of one series, of all forecasters together: less is not worth it."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A series to look at: its forecasts at every cutoff, and what happened."""

    name: str
    """`best`, `median` or `worst` against the baseline."""
    row: int
    """Its place among the series of its resource."""
    made: Backtest
    """Of this series alone."""


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
    horizon: str
    step: str
    resources: tuple[ResourceAccuracy, ...]
    figures: Mapping[str, LaneFigures]
    """By resource and, for peaks, target: `cpu`, `cpu peak_1h`."""
    exemplars: Mapping[str, tuple[Exemplar, ...]]
    levels: tuple[float, ...]
    baseline: str
    findings: tuple[Finding, ...]
    fingerprint: str
    seconds_by_step: dict[str, float]


def backtest(
    settings: Settings,
    panel: UsagePanel,
    write: "Callable[[pd.DataFrame], None]",
    partial_backtest: PartialBacktest,
    *,
    cutoffs: int | Sequence[int],
    workloads: str | None = None,
    together: Together | None = None,
    jobs: int = 1,
    told: Told = lambda _step, _done, _total: None,
    said: Callable[[str], None] = lambda _sentence: None,
) -> BacktestReport:
    """Hands one long table of forecasts per cutoff to `write`, and sums up how good they were.

    A number of cutoffs is spread over the newest `training.held_out` of the panel; cutoffs given as epoch seconds
    are used as they are. With `together` sums of the workloads are forecast instead of each. Where `partial_backtest`
    holds the beginning of the same backtest, it is continued; `said` is told so. Raises InvalidUsage for cutoffs that
    cannot be used and for sums that cannot be made, NotEnoughHistory, UnknownWorkload.
    """
    clock = StepClock(told)
    question = question_of(settings)
    with clock.step("prepare"):
        history = prepared(panel, workloads)
        if together is not None:
            history = prepared(summed(history.panel, together))
        split = _split(history.panel, question, settings.training, cutoffs)
        plan = planned(history.panel, split, question, settings.training)
    processes = _worthwhile(jobs, plan)
    with mapped_over(processes) as mapped:
        kept = _begun(settings, history, plan, partial_backtest, said)
        if kept is None:
            threads = 1 if processes > 1 else settings.training.threads
            bundle = _trained(plan, peak_questions_of(settings), clock, mapped, threads=threads)
            kept = Kept(0, bundle)
            partial_backtest.keep(0, bundle, {})
        lanes = lanes_of(plan, kept.bundle, split.held_out_cutoffs[0])
        with clock.step("forecast") as progress:
            _answer_the_rest(plan, lanes, kept, partial_backtest, mapped, batch=processes, progress=progress)
    return _report(_Ended(history, plan, lanes, kept.bundle, partial_backtest), settings, write, clock)


def _worthwhile(jobs: int, plan: Plan) -> int:
    """No more processes than there is work for."""
    cutoffs = len(plan.split.calibration_cutoffs) + len(plan.split.held_out_cutoffs)
    forecasts = len(plan.panel.keys) * cutoffs * len(plan.candidates)
    return max(1, min(jobs, forecasts // FORECASTS_PER_JOB))


def _begun(
    settings: Settings,
    history: PreparedHistory,
    plan: Plan,
    partial_backtest: PartialBacktest,
    said: Callable[[str], None],
) -> Kept | None:
    """How far the same backtest came before; None where it begins at its beginning."""
    cutoffs = plan.split.held_out_cutoffs
    kept = partial_backtest.begin(
        {
            "history": history.fingerprint,
            "settings": _digest(dict(parameters_of(settings))),
            "cutoffs": _digest(list(cutoffs)),
            "version": metadata.version("foresize"),
        }
    )
    if isinstance(kept, Kept):
        said(f"continues an interrupted run: {kept.done} of {len(cutoffs)} cutoffs are done")
        return kept
    if kept.reason:
        said(f"begins anew: {kept.reason}")
    return None


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _trained(plan: Plan, peaks: Sequence[Question], clock: StepClock, mapped: Mapped, *, threads: int) -> Bundle:
    """Everything fitted, weighed, chosen and calibrated; a resource is fitted in one job."""
    training = plan.training.model_copy(update={"threads": threads})
    resources = dict.fromkeys(key.resource for key in plan.warm)
    panel = plan.panel.bare()
    alone = [
        replace(plan, panel=panel, training=training, warm=tuple(key for key in plan.warm if key.resource == resource))
        for resource in resources
    ]
    models: dict[tuple[Resource, str], Forecaster] = {}
    with clock.step("fit") as progress:
        for number, each in enumerate(mapped(fitted, alone), start=1):
            models |= each
            progress(number, len(alone))
    with clock.step("calibrate") as progress:
        bundle = made_bundle(plan, models, progress, mapped)
    if not peaks:
        return bundle
    with clock.step("peaks") as progress:
        return peak_parts(replace(plan, panel=panel, training=training), peaks, progress, mapped).joined_to(bundle)


def _answer_the_rest(
    plan: Plan,
    lanes: Sequence[Lane],
    kept: Kept,
    partial_backtest: PartialBacktest,
    mapped: Mapped,
    *,
    batch: int,
    progress: Progress,
) -> None:
    """Answers the cutoffs that are not done, and keeps each batch when it is.

    Learning is one chain from cutoff to cutoff for each resource and target; what a bundle knows at a cutoff it can be
    asked apart from the chain. So one batch is answered while the next is learned.
    """
    cutoffs, done = plan.split.held_out_cutoffs, kept.done
    size = min(batch, LARGEST_BATCH)
    batches = [cutoffs[start : start + size] for start in range(done, len(cutoffs), size)]
    bundles = [[part_for(kept.bundle, lane)] for lane in lanes]
    together = _together(lanes)

    def of_lanes(places: Sequence[int]) -> list[Lane]:
        return [lanes[place] for place in places]

    learned = list(mapped(_called, _learning(lanes, bundles, batches[0] if batches else ())))
    for here, following in pairwise([*batches, ()]):
        progress(done, len(cutoffs))
        answering: list[Task] = [
            partial(answered, joined(of_lanes(own), [learned[n][place] for n in own]), of_lanes(own), cutoff)
            for place, cutoff in enumerate(here)
            for own in together
        ]
        found = list(mapped(_called, [*_learning(lanes, learned, following), *answering]))
        answers = found[len(lanes) :]
        done += len(here)
        partial_backtest.keep(
            done,
            joined(lanes, [chain[-1] for chain in learned]),
            {
                cutoff: _named(lanes, together, answers[place * len(together) : (place + 1) * len(together)])
                for place, cutoff in enumerate(here)
            },
        )
        learned = found[: len(lanes)]


def _learning(lanes: Sequence[Lane], learned: Sequence[Sequence[Bundle]], cutoffs: Sequence[int]) -> list[Task]:
    return [partial(learned_over, chain[-1], lane, cutoffs) for chain, lane in zip(learned, lanes, strict=True)]


def _called(task: Task) -> Any:
    return task()


def _together(lanes: Sequence[Lane]) -> list[list[int]]:
    """The places of each resource's lanes: steps and peaks are served beside each other, so they are answered so."""
    resources = dict.fromkeys(lane.resource for lane in lanes)
    return [[place for place, lane in enumerate(lanes) if lane.resource == resource] for resource in resources]


def _named(lanes: Sequence[Lane], together: Sequence[Sequence[int]], answers: Sequence[Sequence[Answer]]) -> Arrays:
    """The answers of each resource's lanes as named arrays, in the order of the lanes."""
    of_lane: dict[int, Answer] = {}
    for places, found in zip(together, answers, strict=True):
        of_lane |= zip(places, found, strict=True)
    return {
        f"{lane.name}/{name}": values
        for place, lane in enumerate(lanes)
        for name, values in of_lane[place].to_arrays().items()
    }


def _answers(partial_backtest: PartialBacktest, lanes: Sequence[Lane], cutoff: int) -> list[Answer]:
    """What is kept of one cutoff, for each lane."""
    arrays = partial_backtest.answer(cutoff)
    found = []
    for lane in lanes:
        prefix = f"{lane.name}/"
        own = {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
        found.append(Answer.from_arrays(own, lane.methods, lane.question.levels))
    return found


@dataclass(frozen=True, slots=True)
class _Ended:
    """A backtest whose cutoffs are all answered."""

    history: PreparedHistory
    plan: Plan
    lanes: Sequence[Lane]
    bundle: Bundle
    partial_backtest: PartialBacktest


def _report(
    ended: _Ended, settings: Settings, write: "Callable[[pd.DataFrame], None]", clock: StepClock
) -> BacktestReport:
    """Writes the forecasts of every cutoff, and adds up what they were worth."""
    history, plan, lanes, bundle = ended.history, ended.plan, ended.lanes, ended.bundle
    cutoffs, baseline = plan.split.held_out_cutoffs, plan.training.baseline
    rows = forecasts = 0
    sums: list[Sums] = []
    with clock.step("write") as progress:
        for number, cutoff in enumerate(cutoffs):
            progress(number, len(cutoffs))
            answers = _answers(ended.partial_backtest, lanes, cutoff)
            for question in dict.fromkeys(lane.question for lane in lanes):
                made = _one_backtest(plan, question, lanes, answers, cutoff)
                table = forecast_table(plan.panel.keys, made)
                write(table)
                rows += len(table)
                if not question.target.is_peak:
                    forecasts += int(np.sum(~np.isnan(made.forecast[0, :, 0, 0])))
            found = [answer.sums for answer in answers]
            sums = found if not sums else [before + new for before, new in zip(sums, found, strict=True)]
    with clock.step("measure"):
        figures = {
            lane.name: lane_figures(lane, each, part_for(bundle, lane), baseline, plan.training.seed)
            for lane, each in zip(lanes, sums, strict=True)
        }
        shown = _exemplars(ended.partial_backtest, lanes, figures, cutoffs)
    return BacktestReport(
        cutoffs_seconds=cutoffs,
        trained_until_seconds=plan.split.calibrated_until_seconds,
        rows=rows,
        series=len(plan.panel.keys),
        forecasts=forecasts,
        without_forecast=len(plan.panel.keys) * len(cutoffs) - forecasts,
        past=duration_text(settings.history.serving_span),
        horizon=duration_text(settings.forecast.horizon),
        step=duration_text(settings.history.step),
        resources=tuple(
            each
            for lane, total in zip(lanes, sums, strict=True)
            for each in resource_accuracy(
                lane.panel.keys, total.scores[FORESIZE], total.scores[baseline], part_for(bundle, lane)
            )
        ),
        figures=figures,
        exemplars=shown,
        levels=plan.question.levels,
        baseline=baseline,
        findings=(*history.findings, *plan.findings, *missing_peaks(peak_questions_of(settings), bundle)),
        fingerprint=history.fingerprint,
        seconds_by_step=clock.seconds,
    )


def _one_backtest(
    plan: Plan, question: Question, lanes: Sequence[Lane], answers: Sequence[Answer], cutoff: int
) -> Backtest:
    """One cutoff's forecasts of all series about one question, in the panel's order."""
    series, outcomes = len(plan.panel.keys), len(question.target.ahead)
    forecast = np.full((1, series, len(question.levels), outcomes), np.nan)
    actual = np.full((1, series, outcomes), np.nan)
    for lane, answer in zip(lanes, answers, strict=True):
        if lane.question != question:
            continue
        rows = plan.panel.rows(lane.resource)
        forecast[0, rows] = answer.forecast
        actual[0, rows] = lane.outcome(cutoff)
    return Backtest((cutoff,), plan.panel.step_seconds, question.target, question.levels, forecast, actual)


def _exemplars(
    partial_backtest: PartialBacktest,
    lanes: Sequence[Lane],
    figures: Mapping[str, LaneFigures],
    cutoffs: tuple[int, ...],
) -> dict[str, tuple[Exemplar, ...]]:
    """The best, the median and the worst series of each lane, with all their forecasts."""
    picked = [exemplars(figures[lane.name].series) for lane in lanes]
    forecasts: dict[tuple[str, str], list[FloatArray]] = {}
    for cutoff in cutoffs:
        for lane, rows, answer in zip(lanes, picked, _answers(partial_backtest, lanes, cutoff), strict=True):
            for name, row in rows.items():
                forecasts.setdefault((lane.name, name), []).append(answer.forecast[[row]])
    return {
        lane.name: tuple(
            Exemplar(
                name,
                row,
                Backtest(
                    cutoffs,
                    lane.panel.step_seconds,
                    lane.question.target,
                    lane.question.levels,
                    np.stack(forecasts[lane.name, name]),
                    np.stack([lane.outcome(cutoff)[[row]] for cutoff in cutoffs]),
                ),
            )
            for name, row in rows.items()
        )
        for lane, rows in zip(lanes, picked, strict=True)
    }


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
