"""One training cycle: fetch, prepare, split, fit, choose and calibrate, score, judge, register, promote.

What was judged is what serves: the bundle is not fitted again on the held-out days after the verdict. That costs the
newest days in what is learned (forecasts are still made from usage up to now), and no model ever serves that was not
scored.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from models.forecast import SECONDS_PER_DAY, ForecastError
from pipelines.errors import TrackingUnavailable
from pipelines.flows.clock import StepClock, Told
from pipelines.flows.model import trained
from pipelines.flows.pictures import training_pictures
from pipelines.flows.ports import TrackedRun, Tracker
from pipelines.settings import Settings, TrainingSettings
from pipelines.steps.judge import Verdict, judged, without_loss_of_workloads
from pipelines.steps.plan import Plan, Progress, peak_questions_of, planned, question_of
from pipelines.steps.prepare import prepared
from pipelines.steps.record import Record, Submission, metrics_of, parameters_of, tables_of
from pipelines.steps.score import HeldOut, ResourceAccuracy, bundle_backtest, held_out_together, resource_accuracy
from pipelines.steps.split import affordable, split_in_time
from predictor.backtest.rolling import Backtest
from predictor.errors import CorruptModel, ModelNotFound, RegistryUnavailable
from predictor.serving.bundle import Bundle
from predictor.serving.ports import BundleStore, UsageSource
from predictor.usage.panel import Finding, Severity

EXAMPLE_SERIES = 3


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What came of a cycle."""

    run_id: str
    """Empty for a dry run, which leaves no trace."""
    version: str | None
    """The version registered; None for a dry run."""
    champion_before: str | None
    promoted: bool
    verdict: Verdict
    resources: tuple[ResourceAccuracy, ...]
    levels: tuple[float, ...]
    baseline: str
    findings: tuple[Finding, ...]
    fingerprint: str
    workloads: int
    fitted_until_seconds: int
    held_out_from_seconds: int
    held_out_until_seconds: int
    seconds_by_step: dict[str, float]
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The champion at the start of a cycle, as far as it could be read."""

    version: str | None = None
    bundle: Bundle | None = None
    findings: tuple[Finding, ...] = ()


def train(
    settings: Settings,
    source: UsageSource,
    store: BundleStore,
    tracker: Tracker | None,
    *,
    end_seconds: int | Callable[[], int],
    workloads: str | None = None,
    told: Told = lambda _step, _done, _total: None,
) -> TrainingReport:
    """The report of one cycle on the history up to `end_seconds`; without a tracker it is a dry run.

    `end_seconds` may be a function, which is asked when the fetching begins: the end of a file is known by reading it.
    Raises TrackingUnavailable before anything is fetched where the store or the tracker does not answer. An
    interruption or a failure leaves the registry as it was: a version is registered last, and its alias moved after
    that.
    """
    clock = StepClock(told)
    with tracker.run(parameters_of(settings)) if tracker is not None else nullcontext(None) as run:
        with clock.step("registry"):
            incumbent = incumbent_of(store, settings.registry.alias)
        return _cycle(settings, source, incumbent, run, end_seconds=end_seconds, workloads=workloads, clock=clock)


def incumbent_of(store: BundleStore, alias: str) -> Incumbent:
    """The champion. One that cannot be read is reported and counts as none; its version stays in the registry.

    Raises TrackingUnavailable where the store does not answer.
    """
    version: str | None = None
    try:
        version = store.version_of(alias)
        return Incumbent(version, store.load(version))
    except CorruptModel as error:
        message = f"the champion, version {version}, cannot be read and was not compared with: {error}"
        return Incumbent(version, None, (Finding("", "", Severity.WARNING, message),))
    except ModelNotFound as error:
        if version is None:
            return Incumbent()
        message = f"the alias {alias!r} points to version {version}, which is gone: {error}"
        return Incumbent(version, None, (Finding("", "", Severity.WARNING, message),))
    except RegistryUnavailable as error:
        raise TrackingUnavailable(f"{error}. Start it, or mend registry.tracking_uri") from error


def _cycle(
    settings: Settings,
    source: UsageSource,
    incumbent: Incumbent,
    run: TrackedRun | None,
    *,
    end_seconds: int | Callable[[], int],
    workloads: str | None,
    clock: StepClock,
) -> TrainingReport:
    training, question = settings.training, question_of(settings)
    step_seconds = int(settings.history.step.total_seconds())
    with clock.step("fetch") as progress:
        newest = end_seconds if isinstance(end_seconds, int) else end_seconds()
        end = newest // step_seconds * step_seconds
        start = end - int(settings.history.span.total_seconds()) // step_seconds * step_seconds + step_seconds
        panel = source.fetch(start_seconds=start, end_seconds=end, step_seconds=step_seconds, progress=progress)
    with clock.step("prepare"):
        history = prepared(panel, workloads)
        cutoffs = affordable(training.cutoffs, len(history.panel.keys))
        split = split_in_time(history.panel, question.horizon_steps, training.model_copy(update={"cutoffs": cutoffs}))
        plan = planned(history.panel, split, question, training)
    made = trained(plan, peak_questions_of(settings), clock)
    bundle = made.bundle
    with clock.step("score") as progress:
        parts = made.peaks.parts
        asked = [(plan, made.models), *((part.plan, part.models) for part in parts)]
        scored, *scored_peaks = held_out_together(asked, bundle, progress)
        resources = resource_accuracy(scored.keys, *scored.scores(), bundle)
        for part, each in zip(parts, scored_peaks, strict=True):
            resources += resource_accuracy(each.keys, *each.scores(), part.bundle)
    with clock.step("judge") as progress:
        verdict = _verdict(plan, scored, incumbent, progress)
        if incumbent.bundle is not None:
            verdict = without_loss_of_workloads(
                verdict, incumbent.bundle.series.keys(), bundle.series.keys(), left_out=history.left_out
            )
    findings = (
        *incumbent.findings,
        *history.findings,
        *made.findings,
        *_worse_than_baseline(resources, training),
    )
    report = TrainingReport(
        run_id="",
        version=None,
        champion_before=incumbent.version,
        promoted=False,
        verdict=verdict,
        resources=resources,
        levels=question.levels,
        baseline=training.baseline,
        findings=findings,
        fingerprint=history.fingerprint,
        workloads=len(history.panel.workloads),
        fitted_until_seconds=split.fitted_until_seconds,
        held_out_from_seconds=split.calibrated_until_seconds + step_seconds,
        held_out_until_seconds=split.end_seconds,
        seconds_by_step=clock.seconds,
        bundle=bundle,
    )
    if run is None:
        return report
    with clock.step("track"):
        run.record(_record(plan, scored, report))
    with clock.step("register"):
        return _registered(run, plan, report)


def _worse_than_baseline(resources: Sequence[ResourceAccuracy], training: TrainingSettings) -> list[Finding]:
    """That a resource as a whole was better off with the baseline, which the choice for each series did not foresee."""
    return [
        Finding(
            "",
            each.resource.value,
            Severity.WARNING,
            f"{each.name}: {each.ratio:.3f} of the loss of {training.baseline} on the held-out days: worse than the "
            "baseline",
        )
        for each in resources
        if each.ratio > 1
    ]


def _verdict(plan: Plan, scored: HeldOut, incumbent: Incumbent, progress: Progress) -> Verdict:
    remarks: list[str] = []
    before: Backtest | None = None
    if incumbent.bundle is None and incumbent.version is not None:
        remarks.append(f"the champion, version {incumbent.version}, cannot be read: judged against the baseline alone")
    elif incumbent.bundle is None:
        remarks.append("there is no champion yet")
    else:
        try:
            cutoffs = plan.split.held_out_cutoffs
            before = bundle_backtest(incumbent.bundle, plan.panel, cutoffs, plan.question, progress=progress)
        except ForecastError as error:
            remarks.append(f"the champion, version {incumbent.version}, cannot be compared with: {error}")
        if incumbent.bundle.trained_until_seconds > plan.split.calibrated_until_seconds:
            until = datetime.fromtimestamp(incumbent.bundle.trained_until_seconds, tz=UTC)
            remarks.append(f"the champion has seen some of the held-out days (up to {until:%Y-%m-%d %H:%M} UTC)")
    warm = set(plan.warm)
    rows = [row for row, key in enumerate(scored.keys) if key in warm]
    return judged(
        [scored.keys[row] for row in rows],
        scored.bundle.select(rows),
        scored.baseline.select(rows),
        before.select(rows) if before is not None else None,
        minimum_gain=plan.training.minimum_gain,
        remarks=remarks,
    )


def _record(plan: Plan, scored: HeldOut, report: TrainingReport) -> Record:
    metrics = dict(metrics_of(report.resources, report.levels))
    metrics |= {f"seconds/{name}": seconds for name, seconds in report.seconds_by_step.items()}
    standing = report.verdict.challenger
    metrics |= {
        name: value
        for name, value in (("loss", standing.loss), ("top_coverage", standing.top_coverage))
        if math.isfinite(value)
    }
    tags = _tags(report) | {
        "foresize.verdict": "promote" if report.verdict.promote else "keep",
        "foresize.reasons": "; ".join(report.verdict.reasons),
        "foresize.champion_before": report.champion_before or "none",
    }
    tables = tables_of(plan, scored, report.bundle)
    return Record(tags, metrics, tables, report.findings, training_pictures(plan, scored, report.resources))


def _tags(report: TrainingReport) -> dict[str, str]:
    until = datetime.fromtimestamp(report.bundle.trained_until_seconds, tz=UTC)
    return {"foresize.fingerprint": report.fingerprint, "foresize.trained_until": until.isoformat()}


def _registered(run: TrackedRun, plan: Plan, report: TrainingReport) -> TrainingReport:
    last_day = plan.panel.between(plan.panel.end_seconds - SECONDS_PER_DAY, plan.panel.end_seconds)
    samples = np.sum(~np.isnan(last_day.usage), axis=1)
    fullest = np.argsort(-samples, kind="stable")[:EXAMPLE_SERIES]
    version = run.register(Submission(report.bundle, _tags(report), last_day.select(fullest)))
    report = replace(report, run_id=run.run_id, version=version)
    if not report.verdict.promote:
        return report
    if run.promote(version, report.champion_before):
        return replace(report, promoted=True)
    message = (
        f"version {version} was not promoted: another cycle has moved the alias meanwhile, so it was compared with a "
        "champion that no longer serves; train again"
    )
    return replace(report, findings=(*report.findings, Finding("", "", Severity.WARNING, message)))
