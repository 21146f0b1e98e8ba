"""From a history to the model of it: fitted, weighed, chosen and calibrated, its peaks included.

What training, a replay, a benchmark and the Python API have in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.flows.clock import StepClock
from pipelines.settings import Settings
from pipelines.steps.choose import made_bundle
from pipelines.steps.fit import Fitted, fitted
from pipelines.steps.peaks import PeakParts, peak_parts
from pipelines.steps.plan import Mapped, Plan, Question, planned, question_of
from pipelines.steps.split import inner_split, observed_times
from predictor.serving.bundle import Bundle
from predictor.usage.panel import Finding, UsagePanel


@dataclass(frozen=True, slots=True)
class Trained:
    """A model, with what it was made of."""

    bundle: Bundle
    models: Fitted
    """Every forecaster of the steps."""
    peaks: PeakParts
    findings: tuple[Finding, ...]
    """About the parts of the history, and peaks that it is too short for."""


def plan_of_all(panel: UsagePanel, settings: Settings) -> Plan:
    """The plan that learns from all of a prepared history and holds nothing out.

    Raises NotEnoughHistory.
    """
    question = question_of(settings)
    split = inner_split(panel, question.horizon_steps, settings.training, observed_times(panel).size)
    return planned(panel, split, question, settings.training)


def trained(plan: Plan, peaks: Sequence[Question], clock: StepClock, mapped: Mapped = map) -> Trained:
    """The model that a plan leads to, and of each question about a peak the part that answers it.

    Cutoffs are rehearsed by `mapped`, which changes nothing but the time.
    """
    with clock.step("fit") as progress:
        models = fitted(plan, progress)
    with clock.step("calibrate") as progress:
        bundle = made_bundle(plan, models, progress, mapped)
    with clock.step("peaks") as progress:
        parts = peak_parts(plan, peaks, progress, mapped)
    return Trained(parts.joined_to(bundle), models, parts, (*plan.findings, *parts.findings))
