"""Replays days of a history: foresize beside the HPA and others on replicas, and node pools oversold by their ratio.

Nothing that is replayed was seen by the model. The registered champion is used if that holds for it, else forecasters
are fitted, chosen and calibrated on what lies before the replayed days.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from math import ceil

import numpy as np

from autoscaler.controller.autoscalers import NO_RULES
from autoscaler.controller.demand import SIGNAL_LEVELS
from autoscaler.controller.policy import LEAD_SHARE, level_of, rules_of
from autoscaler.decisions.break_even import BREAK_EVEN_LEVEL
from autoscaler.decisions.budget import BudgetRules
from autoscaler.settings import ScalingSettings
from autoscaler.simulator.catalog import BUDGETED, FORESIZE, HPA, Given, named
from autoscaler.simulator.comparison import Comparison
from autoscaler.simulator.outcome import Replay, ReplaySettings
from autoscaler.simulator.oversubscription import OversubscriptionReplay
from autoscaler.simulator.switching import SwitchingCosts, switching_outcome
from models.forecast import FloatArray
from pipelines.flows.clock import StepClock, Told
from pipelines.flows.model import plan_of_all, trained
from pipelines.flows.parallel import mapped_over
from pipelines.flows.replays import replayed, tried
from pipelines.flows.request_replays import RequestReplay, replayed_requests
from pipelines.settings import Settings
from pipelines.steps.plan import peak_questions_of, question_of
from pipelines.steps.prepare import prepared
from pipelines.steps.replay import (
    LatencySlo,
    NothingToReplay,
    ReplayPlan,
    lead_peaks,
    pool_replays,
    replay_plan,
    safe_peaks,
)
from pipelines.steps.split import observed_times
from predictor.errors import CorruptModel, ModelNotFound, RegistryUnavailable
from predictor.serving.bundle import Bundle
from predictor.serving.ports import BundleStore, StoredBundle
from predictor.usage.node_pools import NodePools
from predictor.usage.panel import Finding, Severity, UsagePanel


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What came of a replay."""

    model: str
    """Which model forecast: a registered version, or that it was fitted for the replay."""
    trained_until_seconds: int
    level: float
    hpa_utilisation: float
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
    ready_seconds: tuple[float, ...] = ()
    """Times that pods really took, to draw from instead; orders are placed as far ahead as all but one in twenty."""
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
    dask: str | None = None


def simulate(
    settings: Settings,
    panel: UsagePanel,
    pools: NodePools | None,
    store: BundleStore | None,
    asked: Asked = Asked(),
    *,
    told: Told = lambda _step, _done, _total: None,
) -> SimulationReport:
    """Days of the panel replayed, the newest ones where nothing else is asked for.

    `store` is where the champion is asked for; None never asks. Raises NothingToReplay, NotEnoughHistory,
    UnknownWorkload, ReplayError for a policy that there is not, ClusterUnavailable.
    """
    clock = StepClock(told)
    scaling, question = settings.scaling, question_of(settings)
    entries = {name: named(name) for name in dict.fromkeys((FORESIZE, HPA, *asked.policies))}
    with clock.step("prepare"):
        history = prepared(panel, asked.workloads)
        panel = history.panel
        if asked.to_seconds is not None:
            panel = panel.between(panel.start_seconds, min(asked.to_seconds - 1, panel.end_seconds))
        start, end = _replayed_span(settings, panel, asked)
        ready = asked.pod_ready.total_seconds()
        if asked.ready_seconds:
            ready = sorted(asked.ready_seconds)[ceil(LEAD_SHARE * len(asked.ready_seconds)) - 1]
        plan = replay_plan(
            panel,
            start,
            end,
            scaling,
            ReplaySettings(
                step_seconds=panel.step_seconds, pod_ready_seconds=ceil(ready), pod_ready_spread=asked.ready_spread
            ),
            slo=asked.slo,
            ready_seconds=asked.ready_seconds,
        )
    bundle, model, remarks = _bundle(settings, panel, start, store, clock)
    level = level_of(scaling.sla_percentile)
    relaxation = scaling.error_budget_relaxation if scaling.error_budget else None
    rungs = BudgetRules(level, scaling.error_budget_relaxation).rungs if relaxation or BUDGETED in entries else ()
    levels = tuple(sorted({level, *rungs, *(entries[FORESIZE].values if asked.sweep else ())}))
    with clock.step("forecast") as progress:
        asked_levels = sorted({*levels, *SIGNAL_LEVELS})
        forecasts = lead_peaks(
            bundle, panel, plan, levels=asked_levels, past_steps=question.past_steps, progress=progress
        )
    later, break_even = None, int(scaling.break_even.total_seconds())
    if break_even > plan.settings.pod_ready_seconds:
        with clock.step("forecast of the break-even window") as progress:
            until_then = replace(plan, settings=replace(plan.settings, pod_ready_seconds=break_even))
            later = lead_peaks(
                bundle,
                panel,
                until_then,
                levels=[BREAK_EVEN_LEVEL],
                past_steps=question.past_steps,
                progress=progress,
            )[BREAK_EVEN_LEVEL]
    with clock.step("margins") as progress:
        peaks = safe_peaks(plan, forecasts, levels, progress=progress)
    given = Given(
        past=plan.past,
        peaks=peaks,
        level=level,
        lead_seconds=plan.settings.pod_ready_seconds,
        rules=rules_of(NO_RULES, NO_RULES, scaling),
        model_version=model,
        hpa_utilisation=scaling.reactive_utilisation,
        relaxation=relaxation,
        later=later,
        break_even_seconds=float(break_even),
    )
    policies = [entry.make(given, None) for entry in entries.values()]
    comparison = None
    with mapped_over(asked.jobs, dask=asked.dask) as mapped:
        with clock.step("replay") as progress:
            made = replayed(plan.demand, plan.workloads, policies, plan.settings, mapped=mapped, progress=progress)
        if asked.costs is not None:
            with clock.step("switching oracle") as progress:
                best = []
                for row, (workload, demand) in enumerate(zip(plan.workloads, plan.demand, strict=True)):
                    best.append(switching_outcome(workload, plan.settings, demand, asked.costs))
                    progress(row + 1, len(plan.workloads))
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


def _replayed_span(settings: Settings, panel: UsagePanel, asked: Asked) -> tuple[int, int]:
    """The first and the last step that are replayed."""
    times = observed_times(panel)
    if asked.from_seconds is not None:
        wanted = int((times >= asked.from_seconds).sum())
        shown = "that part"
    else:
        wanted = int((asked.span or settings.training.held_out).total_seconds()) // panel.step_seconds
        shown = f"{wanted} steps"
    if not 0 < wanted < times.size:
        raise NothingToReplay(
            f"the history holds {times.size} steps of samples, so {shown} cannot be replayed after a past; "
            "replay less (--days, --from) or read more (--span)"
        )
    return int(times[-wanted]), int(times[-1])


def _bundle(
    settings: Settings, panel: UsagePanel, start_seconds: int, store: BundleStore | None, clock: StepClock
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
    made = trained(plan_of_all(past, settings), peak_questions_of(settings), clock)
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
