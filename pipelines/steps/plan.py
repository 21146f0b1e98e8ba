"""What a cycle works on, put together before anything is fitted."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from models.forecast import FloatArray, Forecaster, History, QuantileForecast, Target
from pipelines.errors import NotEnoughHistory
from pipelines.settings import Settings, TrainingSettings
from pipelines.steps.split import Split, warm_keys, warm_samples
from predictor.errors import InvalidUsage
from predictor.serving.bundle import FALLBACK, MINIMUM_SAMPLES
from predictor.settings import ForecastSettings, duration_text
from predictor.usage.panel import Finding, SeriesKey, Severity, UsagePanel

Progress = Callable[[int, int], None]
Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class Mapped(Protocol):
    """The built-in `map`, or what gives the same answers in the same order, sooner."""

    def __call__(self, function: Callable[[Asked], Answered], asked: Iterable[Asked], /) -> Iterable[Answered]:
        """What the function answers to each, in order."""
        ...


def untold(_done: int, _total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, slots=True)
class Question:
    """What every forecast of a cycle is asked for."""

    target: Target
    levels: tuple[float, ...]
    past_steps: int
    """How much past a forecast is made from: what serving reads, so that scores speak of what will be served."""

    @property
    def horizon_steps(self) -> int:
        """How far ahead it reaches."""
        return self.target.steps

    def asked_of(self, forecaster: Forecaster) -> Callable[[History], QuantileForecast]:
        """The forecaster as it serves: a function of the past that shows it no more than the predictor reads."""
        return lambda past: forecaster.predict(past.last(self.past_steps), self.target, self.levels)


def question_of(settings: Settings) -> Question:
    """The question that the settings ask, in steps.

    Raises InvalidUsage where the horizon, or the past that serving reads, is shorter than one step.
    """
    step_seconds = int(settings.history.step.total_seconds())
    horizon_steps = -(-int(settings.forecast.horizon.total_seconds()) // max(step_seconds, 1))
    past_steps = int(settings.history.serving_span.total_seconds()) // max(step_seconds, 1)
    if horizon_steps < 1 or past_steps < 1 or step_seconds < 1:
        raise InvalidUsage(
            f"forecast.horizon ({settings.forecast.horizon}) and history.serving_span "
            f"({settings.history.serving_span}) must hold at least one step of history.step "
            f"({settings.history.step}), which is a whole second or more"
        )
    return Question(Target(horizon_steps), tuple(settings.forecast.levels), past_steps)


def peak_questions_of(settings: Settings) -> tuple[Question, ...]:
    """The same about the peaks that the settings ask for, the shortest window first; one of a step is that step.

    Raises InvalidUsage for a window shorter than a step, unless it is one of the settings' own.
    """
    question = question_of(settings)
    step_seconds = settings.history.step.total_seconds()
    own = ForecastSettings().peaks
    for window in settings.forecast.peaks:
        if window.total_seconds() < step_seconds and settings.forecast.peaks != own:
            raise InvalidUsage(
                f"a peak of {duration_text(window)} is shorter than a step, {duration_text(settings.history.step)}: "
                "ask for a longer one (forecast.peaks, or --peak), or for finer steps"
            )
    windows = sorted({math.ceil(window.total_seconds() / step_seconds) for window in settings.forecast.peaks})
    return tuple(replace(question, target=Target(steps, is_peak=True)) for steps in windows if steps > 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """The history, its parts, which series are warm, and what will be asked."""

    panel: UsagePanel
    split: Split
    warm: tuple[SeriesKey, ...]
    question: Question
    training: TrainingSettings
    findings: tuple[Finding, ...]
    """About the split: parts cut short, series that are cold or have ended."""

    @property
    def cold(self) -> tuple[SeriesKey, ...]:
        """The series that nothing is fitted for."""
        warm = set(self.warm)
        return tuple(key for key in self.panel.keys if key not in warm)

    @property
    def candidates(self) -> tuple[str, ...]:
        """Catalogue names to fit, each once: the baseline and the fallback of cold series are always among them."""
        return tuple(dict.fromkeys((self.training.baseline, FALLBACK, *self.training.forecasters)))


def planned(panel: UsagePanel, split: Split, question: Question, training: TrainingSettings) -> Plan:
    """The plan of a cycle.

    Raises NotEnoughHistory where every series is cold.
    """
    needed = warm_samples(question.horizon_steps, panel.step_seconds)
    warm = warm_keys(panel, split, needed)
    if not warm:
        raise NotEnoughHistory(
            f"none of the {len(panel.keys)} series has the {needed} samples that are needed in the part to fit on; "
            "read more (history.span, or --span), or hold out less (training.held_out, training.calibration)"
        )
    known = set(warm)
    cold = f"cold: fewer than {needed} samples to fit on"
    findings = list(split.findings)
    for key, values in zip(panel.keys, panel.usage, strict=True):
        if key not in known:
            findings.append(_finding(key, f"{cold}; {_served_cold(values[-question.past_steps :])}"))
        elif not _is_observed_after(panel, values, split.fitted_until_seconds):
            findings.append(_finding(key, "has ended: no sample since the part that is fitted on; it is not scored"))
    return Plan(panel, split, warm, question, training, tuple(findings))


def _served_cold(past: FloatArray) -> str:
    """What a cold series is served, with the past that a forecast is made from."""
    samples = int(np.sum(~np.isnan(past)))
    if samples < MINIMUM_SAMPLES:
        return f"no forecast before there are {MINIMUM_SAMPLES} samples, and there are {samples}"
    return "served by what its siblings, or the fleet, have shown"


def _finding(key: SeriesKey, message: str) -> Finding:
    return Finding(key.workload, key.resource.value, Severity.NOTE, message)


def _is_observed_after(panel: UsagePanel, values: FloatArray, seconds: int) -> bool:
    return bool((~np.isnan(values[panel.times > seconds])).any())
