"""Replays a history's newest days: foresize beside the HPA on replicas, and node pools oversold by their ratio.

Nothing that is replayed was seen by the model. The registered champion is used if that holds for it, else forecasters
are fitted, chosen and calibrated on what lies before the replayed days.
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from autoscaler.controller.autoscalers import NO_RULES
from autoscaler.controller.policy import behaviour_of, level_of, replica_rules
from autoscaler.simulator.outcome import Replay, ReplaySettings
from autoscaler.simulator.oversubscription import OversubscriptionReplay
from autoscaler.simulator.policies import ForesizePolicy, HpaPolicy
from autoscaler.simulator.replay import replay
from models.forecast import FloatArray
from pipelines.flows.clock import StepClock, Told
from pipelines.flows.model import plan_of_all, trained
from pipelines.settings import Settings
from pipelines.steps.plan import peak_questions_of, question_of
from pipelines.steps.prepare import prepared
from pipelines.steps.replay import NothingToReplay, ReplayPlan, lead_peaks, pool_replays, replay_plan
from pipelines.steps.split import observed_times
from predictor.errors import CorruptModel, ModelNotFound, RegistryUnavailable
from predictor.serving.bundle import Bundle
from predictor.serving.ports import BundleStore, StoredBundle
from predictor.usage.node_pools import NodePools
from predictor.usage.panel import Finding, Severity, UsagePanel

FORESIZE, HPA = "foresize", "hpa"


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
    pools: tuple[OversubscriptionReplay, ...]
    findings: tuple[Finding, ...]
    seconds_by_step: dict[str, float]


def simulate(
    settings: Settings,
    panel: UsagePanel,
    pools: NodePools | None,
    store: BundleStore | None,
    *,
    span: timedelta | None = None,
    pod_ready: timedelta = timedelta(minutes=2),
    workloads: str | None = None,
    told: Told = lambda _step, _done, _total: None,
) -> SimulationReport:
    """The newest `span` of the panel (default: training.held_out) replayed.

    `store` is where the champion is asked for; None never asks. Raises NothingToReplay, NotEnoughHistory,
    UnknownWorkload.
    """
    clock = StepClock(told)
    scaling, question = settings.scaling, question_of(settings)
    with clock.step("prepare"):
        history = prepared(panel, workloads)
        panel = history.panel
        times = observed_times(panel)
        wanted = int((span or settings.training.held_out).total_seconds()) // panel.step_seconds
        if not 0 < wanted < times.size:
            raise NothingToReplay(
                f"the history holds {times.size} steps of samples, so {wanted} steps cannot be replayed after a past; "
                "replay less (--days) or read more (--span)"
            )
        start = int(times[-wanted])
        plan = replay_plan(
            panel,
            start,
            int(times[-1]),
            scaling,
            ReplaySettings(step_seconds=panel.step_seconds, pod_ready_seconds=int(pod_ready.total_seconds())),
        )
    bundle, model, remarks = _bundle(settings, panel, start, store, clock)
    level = level_of(scaling.sla_percentile)
    with clock.step("forecast") as progress:
        peaks = lead_peaks(bundle, panel, plan, level=level, past_steps=question.past_steps, progress=progress)
    with clock.step("replay") as progress:
        replayed = replay(
            plan.demand,
            plan.workloads,
            _policies(settings, plan, peaks, level, model),
            plan.settings,
            progress=progress,
        )
    with clock.step("pools"):
        pool_outcomes, pool_findings = pool_replays(panel, pools, start, settings.oversubscription)
    return SimulationReport(
        model=model,
        trained_until_seconds=bundle.trained_until_seconds,
        level=level,
        hpa_utilisation=scaling.reactive_utilisation,
        plan=plan,
        replay=replayed,
        peaks=peaks,
        pools=pool_outcomes,
        findings=(*history.findings, *remarks, *plan.findings, *pool_findings),
        seconds_by_step=clock.seconds,
    )


def _policies(
    settings: Settings, plan: ReplayPlan, peaks: FloatArray, level: float, model: str
) -> tuple[ForesizePolicy, HpaPolicy]:
    ours = ForesizePolicy(
        peaks=peaks,
        level=level,
        lead_seconds=plan.settings.pod_ready_seconds,
        rules=replica_rules(behaviour_of(NO_RULES, NO_RULES, settings.scaling), settings.scaling),
        model_version=model,
        name=FORESIZE,
    )
    return ours, HpaPolicy(target_utilisation=settings.scaling.reactive_utilisation, name=HPA)


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


def _note(message: str) -> Finding:
    return Finding("", "", Severity.NOTE, message)


def shortfall_order(report: SimulationReport) -> list[int]:
    """Rows of the replayed workloads, those first on which the two policies differ most in time with violations."""
    ours, peer = report.replay.of(FORESIZE), report.replay.of(HPA)
    gaps = [abs(a.violation_minutes - b.violation_minutes) for a, b in zip(ours, peer, strict=True)]
    return [int(i) for i in np.argsort(gaps)[::-1]]
