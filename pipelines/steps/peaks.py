"""What a bundle forecasts beside steps: peaks of windows, each fitted, weighed and calibrated as a target of its own.

A peak is learned on the same parts of the history as the steps, from cutoffs that leave room for its window.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines.errors import NotEnoughHistory
from pipelines.steps.choose import made_bundle
from pipelines.steps.fit import Fitted, fitted
from pipelines.steps.plan import Mapped, Plan, Progress, Question, planned, untold
from pipelines.steps.split import for_horizon
from predictor.backtest.rolling import target_name
from predictor.serving.bundle import Bundle
from predictor.usage.panel import Finding, Severity


@dataclass(frozen=True, slots=True)
class PeakPart:
    """A bundle for one peak, with what it was made from."""

    plan: Plan
    models: Fitted
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class PeakParts:
    """The peaks that the history is long enough for, the shortest window first, and what is missing."""

    parts: tuple[PeakPart, ...]
    findings: tuple[Finding, ...]

    def joined_to(self, bundle: Bundle) -> Bundle:
        """The bundle of the steps with these peaks."""
        return replace(bundle, peaks=tuple(part.bundle for part in self.parts))


def peak_parts(
    plan: Plan, questions: Sequence[Question], progress: Progress = untold, mapped: Mapped = map
) -> PeakParts:
    """A part for each question about a peak; one that the history is too short for is named in a finding."""
    parts: list[PeakPart] = []
    findings: list[Finding] = []
    for number, question in enumerate(questions):
        progress(number, len(questions))
        try:
            split = for_horizon(plan.split, plan.panel, question.horizon_steps, plan.training)
            part = planned(plan.panel, split, question, plan.training)
        except NotEnoughHistory:
            findings.append(_missing(question, plan.panel.step_seconds))
            continue
        models = fitted(part)
        parts.append(PeakPart(part, models, made_bundle(part, models, mapped=mapped)))
    progress(len(questions), len(questions))
    return PeakParts(tuple(parts), tuple(findings))


def missing_peaks(questions: Sequence[Question], bundle: Bundle) -> tuple[Finding, ...]:
    """What a bundle that was made does not answer of these questions about peaks."""
    there = {part.target for part in bundle.peaks}
    return tuple(_missing(question, bundle.step_seconds) for question in questions if question.target not in there)


def _missing(question: Question, step_seconds: int) -> Finding:
    name = target_name(question.target, step_seconds)
    message = f"{name} is not forecast: the history is too short to calibrate it; read more (history.span)"
    return Finding("", "", Severity.WARNING, message)
