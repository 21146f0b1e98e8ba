"""Replays days of a history: foresize beside the HPA and others on replicas, and node pools oversold by their ratio.

Nothing that is replayed was seen by the model. The registered champion is used if that holds for it, else forecasters
are fitted, chosen and calibrated on what lies before the replayed days.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from math import ceil

import numpy as np

from autoscaler.controller.autoscalers import NO_RULES
from autoscaler.controller.demand import SIGNAL_LEVELS
from autoscaler.controller.policy import almost_all, level_of, rules_of
from autoscaler.decisions.break_even import BREAK_EVEN_LEVEL
from autoscaler.decisions.budget import BudgetRules
from autoscaler.settings import ScalingSettings
from autoscaler.simulator.catalog import BUDGETED, FORESIZE, HPA, Entry, Given, SetUp, named, set_up
from autoscaler.simulator.comparison import Comparison
from autoscaler.simulator.outcome import Replay, ReplaySettings, WorkloadOutcome
from autoscaler.simulator.oversubscription import OversubscriptionReplay
from autoscaler.simulator.switching import SwitchingCosts, switching_outcome
from models.forecast import FloatArray
from pipelines.flows.clock import StepClock, Told, utc_text
from pipelines.flows.model import plan_of_all, trained
from pipelines.flows.parallel import mapped_over
from pipelines.flows.replays import replayed, safe_peaks_in_blocks, tried
from pipelines.flows.request_replays import RequestReplay, replayed_requests
from pipelines.settings import Settings
from pipelines.steps.plan import Mapped, Progress, peak_questions_of, question_of
from pipelines.steps.prepare import prepared
from pipelines.steps.replay import (
    FEWEST_REPLICAS,
    LatencySlo,
    NothingToReplay,
    ReplayPlan,
    lead_peaks,
    pool_replays,
    replay_plan,
)
from pipelines.steps.split import observed_times
from predictor.errors import CorruptModel, ModelNotFound, RegistryUnavailable
from predictor.serving.bundle import Bundle
from predictor.serving.ports import BundleStore, StoredBundle
from predictor.usage.node_pools import NodePools
from predictor.usage.panel import Finding, Severity, UsagePanel
from predictor.usage.ready import ReadyTimes

TICKS_PER_JOB = 500_000
"""Of one policy on one workload: with fewer, starting another process costs more than it saves."""


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What came of a replay."""

    model: str
    """Which model forecast: a registered version, or that it was fitted for the replay."""
    trained_until_seconds: int
    level: float
    hpa_utilisation: float
    set_up: tuple[SetUp, ...]
    """Of each policy, but for a sweep."""
    plan: ReplayPlan
    replay: Replay
    peaks: FloatArray
    """Forecast peaks that foresize decided on, [workloads, steps]."""
    comparison: Comparison | None
    """Of every setting of every policy, where that was asked for."""
    pools: tuple[OversubscriptionReplay, ...]
    requests: tuple[RequestReplay, ...]
    """By resource; empty where it was not asked for."""
    findings: tuple[Finding, ...]
    seconds_by_step: dict[str, float]
    slo: LatencySlo | None = None
    """What a violation was; None: demand above what was Ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is replayed, and by whom."""

    span: timedelta | None = None
    """The newest part of the history; None: training.held_out."""
    from_seconds: int | None = None
    """Instead of a span: when it begins…"""
    to_seconds: int | None = None
    """…and ends; steps that begin then or later are not looked at."""
    pod_ready: timedelta = timedelta(minutes=2)
    """From a scale-out to Ready pods; the median, where the times spread."""
    ready_spread: float = 0.0
    """Standard deviation of the logarithm of that time."""
    min_replicas: int = FEWEST_REPLICAS
    """Of every workload…"""
    max_replicas: int | None = None
    """…and None: twice what the past needed, at least 20."""
    ready_seconds: tuple[float, ...] = ()
    """Times that pods really took, to draw from instead; orders are placed as far ahead as all but one in twenty."""
    metric_window: timedelta = timedelta(seconds=60)
    """Usage is seen as its mean over this window…"""
    metric_delay: timedelta = timedelta(seconds=15)
    """…which ended this long ago."""
    slo: LatencySlo | None = None
    """What a violation is; None: demand above what is Ready."""
    costs: SwitchingCosts | None = None
    """Of violations and changes, for a second oracle that pays for both; None: there is none."""
    workloads: str | None = None
    policies: tuple[str, ...] = ()
    """Names in the catalogue; foresize and the HPA are always among them."""
    sweep: bool = False
    """Every policy with every value of its knob as well, compared at equal violations."""
    requests: bool = False
    """What containers request is replayed as well."""
    jobs: int = 1
    """Processes, at most, and threads that forecast; they change nothing but the time."""
    dask: str | None = None

    @property
    def lead_seconds(self) -> int:
        """How far ahead orders are placed."""
        if not self.ready_seconds:
            return ceil(self.pod_ready.total_seconds())
        return ceil(almost_all(self.ready_seconds))


def simulate(
    settings: Settings,
    panel: UsagePanel,
    pools: NodePools | None,
    store: BundleStore | None,
    asked: Asked = Asked(),
    *,
    ready_times: ReadyTimes | None = None,
    told: Told = lambda _step, _done, _total: None,
) -> SimulationReport:
    """Days of the panel replayed, the newest ones where nothing else is asked for.

    `store` is where the champion is asked for; None never asks. `ready_times` are what pods of the workloads took to
    get Ready; what is asked for stands in where they say nothing of a workload. Raises NothingToReplay,
    NotEnoughHistory, UnknownWorkload, ReplayError for a policy that there is not, ClusterUnavailable.
    """
    clock = StepClock(told)
    if asked.dask is not None:
        # A cluster that does not answer is told before hours of forecasts, not after them.
        with mapped_over(asked.jobs, dask=asked.dask):
            pass
    scaling, question = settings.scaling, question_of(settings)
    entries = {name: named(name) for name in dict.fromkeys((FORESIZE, HPA, *asked.policies))}
    with clock.step("prepare"):
        history = prepared(panel, asked.workloads)
        panel = history.panel
        if asked.to_seconds is not None:
            panel = panel.between(panel.start_seconds, min(asked.to_seconds - 1, panel.end_seconds))
        start, end = _replayed_span(settings, panel, asked)
        plan = replay_plan(
            panel,
            start,
            end,
            scaling,
            ReplaySettings(
                step_seconds=panel.step_seconds,
                pod_ready_seconds=asked.lead_seconds,
                pod_ready_spread=asked.ready_spread,
                metric_window_seconds=int(asked.metric_window.total_seconds()),
                metric_delay_seconds=int(asked.metric_delay.total_seconds()),
            ),
            slo=asked.slo,
            ready_seconds=asked.ready_seconds,
            ready_times=ready_times,
            min_replicas=asked.min_replicas,
            max_replicas=asked.max_replicas,
        )
        given = _given(scaling, plan, entries)
    level = given.level
    has_budget = given.relaxation is not None or BUDGETED in entries
    rungs = BudgetRules(level, scaling.error_budget_relaxation).rungs if has_budget else ()
    levels = tuple(sorted({level, *rungs, *(entries[FORESIZE].values if asked.sweep else ())}))
    processes = _worthwhile(asked, plan, tuple(entries.values()))
    comparison = None
    with mapped_over(processes, dask=asked.dask) as mapped:
        if processes > 1:
            settings = settings.model_copy(update={"training": settings.training.model_copy(update={"threads": 1})})
        bundle, model, remarks = _bundle(settings, panel, start, store, clock=clock, mapped=mapped)
        bundle = bundle.over_threads(asked.jobs)
        with clock.step("forecast") as progress:
            asked_levels = sorted({*levels, *SIGNAL_LEVELS})
            forecasts = lead_peaks(
                bundle, panel, plan, levels=asked_levels, past_steps=question.past_steps, progress=progress
            )
        later = _later(bundle, panel, plan, int(given.break_even_seconds), past_steps=question.past_steps, clock=clock)
        with clock.step("margins") as progress:
            peaks = safe_peaks_in_blocks(plan, forecasts, levels, mapped=mapped, progress=progress)
        given = replace(given, peaks=peaks, model_version=model, later=later)
        policies = [entry.make(given, None) for entry in entries.values()]
        with clock.step("replay") as progress:
            made = replayed(plan.demand, plan.workloads, policies, plan.settings, mapped=mapped, progress=progress)
        if asked.costs is not None:
            with clock.step("switching oracle") as progress:
                best = _paying_outcomes(plan, asked.costs, progress)
                made = replace(made, outcomes=(*made.outcomes, *best))
        if asked.sweep:
            with clock.step("sweep") as progress:
                comparison = tried(plan, tuple(entries), given, mapped, progress)
    with clock.step("pools"):
        pool_outcomes, pool_findings = pool_replays(panel, pools, start, settings.oversubscription)
    requests: tuple[RequestReplay, ...] = ()
    if asked.requests:
        with clock.step("requests") as progress:
            requests = replayed_requests(bundle, panel, settings.vertical, start, end, progress=progress)
    return SimulationReport(
        model=model,
        trained_until_seconds=bundle.trained_until_seconds,
        level=level,
        hpa_utilisation=scaling.reactive_utilisation,
        set_up=tuple(set_up(name, given, scaling.target_utilisation) for name in entries),
        plan=plan,
        replay=made,
        peaks=peaks[level],
        comparison=comparison,
        pools=pool_outcomes,
        requests=requests,
        findings=(*history.findings, *remarks, *plan.findings, *_too_coarse(panel, scaling), *pool_findings),
        seconds_by_step=clock.seconds,
        slo=asked.slo,
    )


def _worthwhile(asked: Asked, plan: ReplayPlan, entries: Sequence[Entry]) -> int:
    """No more processes than there is work for."""
    runs = len(entries) + (sum(len(each.values) for each in entries) if asked.sweep else 0)
    ticks = runs * len(plan.workloads) * plan.steps * plan.settings.ticks_per_step
    return max(1, min(asked.jobs, ticks // TICKS_PER_JOB))


def _later(
    bundle: Bundle,
    panel: UsagePanel,
    plan: ReplayPlan,
    break_even_seconds: int,
    *,
    past_steps: int,
    clock: StepClock,
) -> FloatArray | None:
    """The median of the highest demand within the break-even window, [workloads, steps], as `Given.later` has it.

    NaN for workloads whose lead time is as long, as it changes nothing for them.
    """
    leads = np.array([each.own(plan.settings).pod_ready_seconds for each in plan.workloads])
    if (break_even_seconds <= leads).all():
        return None
    until_then = tuple(replace(each, lead_seconds=break_even_seconds) for each in plan.workloads)
    with clock.step("forecast of the break-even window") as progress:
        peaks = lead_peaks(
            bundle,
            panel,
            replace(plan, workloads=until_then),
            levels=[BREAK_EVEN_LEVEL],
            past_steps=past_steps,
            progress=progress,
        )[BREAK_EVEN_LEVEL]
    return np.where((break_even_seconds > leads)[:, None], peaks, np.nan)


def _paying_outcomes(plan: ReplayPlan, costs: SwitchingCosts, progress: Progress) -> list[WorkloadOutcome]:
    """What the oracle does that pays for changes, workload by workload."""
    best = []
    for row, (workload, demand) in enumerate(zip(plan.workloads, plan.demand, strict=True)):
        best.append(switching_outcome(workload, plan.settings, demand, costs))
        progress(row + 1, len(plan.workloads))
    return best


def _given(scaling: ScalingSettings, plan: ReplayPlan, entries: Mapping[str, Entry]) -> Given:
    """What is known before anything is forecast. Raises ReplayError where a policy cannot be replayed on these steps.

    That is refused here, before the forecasts are made, and not hours later.
    """
    given = Given(
        past=plan.past,
        peaks={},
        level=level_of(scaling.sla_percentile),
        lead_seconds=plan.settings.pod_ready_seconds,
        rules=rules_of(NO_RULES, NO_RULES, scaling),
        model_version="",
        hpa_utilisation=scaling.reactive_utilisation,
        relaxation=scaling.error_budget_relaxation if scaling.error_budget else None,
        break_even_seconds=scaling.break_even.total_seconds(),
    )
    for name in entries.keys() - {FORESIZE, BUDGETED}:
        entries[name].make(given, None).start(0, plan.workloads[0], plan.settings)
    return given


def _replayed_span(settings: Settings, panel: UsagePanel, asked: Asked) -> tuple[int, int]:
    """The first and the last step that are replayed."""
    times = observed_times(panel)
    if asked.to_seconds is not None and times.size == 0:
        raise NothingToReplay(
            f"there are no samples before {utc_text(asked.to_seconds)} (--to): name a later time, or read more (--span)"
        )
    if asked.from_seconds is not None:
        wanted = int((times >= asked.from_seconds).sum())
        shown = f"what begins at {utc_text(asked.from_seconds)} (--from)"
    else:
        wanted = int((asked.span or settings.training.held_out).total_seconds()) // panel.step_seconds
        shown = f"{wanted} of them"
    if not 0 < wanted < times.size:
        raise NothingToReplay(
            f"the history holds {times.size} steps of samples, {utc_text(int(times[0]))} to "
            f"{utc_text(int(times[-1]))}, so {shown} cannot be replayed after a past; replay less (--days), another "
            "part (--from) or read more (--span)"
        )
    return int(times[-wanted]), int(times[-1])


def _bundle(
    settings: Settings,
    panel: UsagePanel,
    start_seconds: int,
    store: BundleStore | None,
    *,
    clock: StepClock,
    mapped: Mapped,
) -> tuple[Bundle, str, tuple[Finding, ...]]:
    """A bundle that has seen nothing of the replayed days, what it is called, and why it is this one."""
    remarks: tuple[Finding, ...] = ()
    if store is not None:
        with clock.step("registry"):
            found = _champion(settings, panel, start_seconds, store)
        if isinstance(found, StoredBundle):
            return found.bundle, f"{settings.registry.model_name} version {found.version}", ()
        remarks = (found,)
    past = panel.between(panel.start_seconds, start_seconds - panel.step_seconds)
    made = trained(plan_of_all(past, settings), peak_questions_of(settings), clock, mapped)
    return made.bundle, "fitted for this replay", (*remarks, *made.findings)


def _champion(settings: Settings, panel: UsagePanel, start_seconds: int, store: BundleStore) -> StoredBundle | Finding:
    """The champion, or why it cannot be replayed with."""
    try:
        version = store.version_of(settings.registry.alias)
        champion = store.load(version)
    except ModelNotFound:
        return _note("no model is registered yet")
    except (CorruptModel, RegistryUnavailable) as error:
        return _note(f"the champion cannot be read: {error}")
    if champion.step_seconds != panel.step_seconds:
        why = f"its step is {champion.step_seconds} s, the history's {panel.step_seconds} s"
    elif champion.trained_until_seconds >= start_seconds:
        why = "it has seen some of the replayed days"
    elif 2 * sum(key in champion.series for key in panel.keys) < len(panel.keys):
        why = "it does not know most of these workloads"
    else:
        return StoredBundle(version, champion)
    return _note(f"the champion, version {version}, cannot be replayed with: {why}")


def _too_coarse(panel: UsagePanel, scaling: ScalingSettings) -> tuple[Finding, ...]:
    stale_after = int(scaling.stale_after.total_seconds())
    if panel.step_seconds <= stale_after:
        return ()
    return (
        _note(
            f"a step is {panel.step_seconds} s, but a forecast counts for {stale_after} s (scaling.stale_after): "
            "foresize is replayed as reactive in the rest of each step; read the history on shorter steps (--step)"
        ),
    )


def _note(message: str) -> Finding:
    return Finding("", "", Severity.NOTE, message)


def shortfall_order(report: SimulationReport) -> list[int]:
    """Rows of the replayed workloads, those first on which the two policies differ most in time with violations."""
    ours, peer = report.replay.of(FORESIZE), report.replay.of(HPA)
    gaps = [abs(a.violation_minutes - b.violation_minutes) for a, b in zip(ours, peer, strict=True)]
    return [int(i) for i in np.argsort(gaps)[::-1]]
