"""Makes held-out history ready to be replayed: which workloads, what a replica of each carries, what was forecast when.

Every forecast that the replay uses is made from samples of earlier steps only, by a bundle that has seen none of the
replayed days.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoscaler.cluster.capacity import Capacity
from autoscaler.cluster.pools import WHOLE_POOL, pool_history
from autoscaler.controller.demand import SIGNAL_LEVELS, SIGNAL_NAMES
from autoscaler.controller.policy import LEAST_PODS, almost_all
from autoscaler.decisions.capacity import exceeded_by, queue_capacity
from autoscaler.settings import OversubscriptionSettings, ScalingSettings
from autoscaler.simulator.outcome import ReplayError, ReplaySettings, ReplayWorkload
from autoscaler.simulator.oversubscription import OversubscriptionReplay, replay_oversubscription
from models.forecast import FloatArray, Target
from models.margins import DemandMargins
from pipelines.errors import NotEnoughHistory
from pipelines.steps.plan import untold
from predictor.serving.bundle import Bundle
from predictor.usage.node_pools import NodePools
from predictor.usage.panel import Finding, Resource, SeriesKey, Severity, UsagePanel
from predictor.usage.ready import ReadyTimes

SCALABLE_KINDS = frozenset({"Deployment", "StatefulSet"})
FEWEST_REPLICAS = 1
MOST_REPLICAS = 20
"""The ceiling, raised to twice what the past needed."""
MOST_PLAUSIBLE_REPLICAS = 10_000
"""A past peak that takes more is one of a request in another unit than usage."""
LONGEST_CURVE = 300
"""Replicas up to which a queue's curve is worked out; from there on each one more carries all it serves but .1 %."""
ASSUMED_REPLICAS_AT_PEAK = 5
"""Where a history names no requests, one replica is taken to request this part of the highest past demand."""
MOST_NAMED = 5
"""Workloads that one remark names."""


class NothingToReplay(NotEnoughHistory):
    """No workload of the history can be replayed, or no day of it is left to replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySlo:
    """A share `level` of requests done within a time, by replicas that are one server each of a shared M/M/c queue.

    Its unit is what one replica serves at most, so that one curve holds for every workload. Raises ReplayError where
    service alone takes longer too often.
    """

    threshold_seconds: float
    service_seconds: float
    """Mean time that serving one request takes."""
    level: float = 0.99

    def __post_init__(self) -> None:
        if self.capacity(1) is None:
            raise ReplayError(
                f"with a mean service time of {self.service_seconds:g} s, {self.level:.4g} of requests are never done "
                f"within {self.threshold_seconds:g} s, however many replicas there are"
            )

    def capacity(self, replicas: int) -> Capacity | None:
        """What 1 to `replicas` replicas carry, in what one serves at most."""
        return queue_capacity(1.0, 1, self.threshold_seconds / self.service_seconds, self.level, replicas)


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What is replayed; rows of `demand` and `workloads` belong together."""

    keys: tuple[SeriesKey, ...]
    workloads: tuple[ReplayWorkload, ...]
    demand: FloatArray
    """[workloads, steps], cores."""
    past: FloatArray
    """What lies before, [workloads, past steps], cores."""
    start_seconds: int
    settings: ReplaySettings
    findings: tuple[Finding, ...]

    @property
    def steps(self) -> int:
        """How many steps are replayed."""
        return int(self.demand.shape[1])

    def select(self, rows: Sequence[int]) -> "ReplayPlan":
        """Some of the workloads, in the order given."""
        return replace(
            self,
            keys=tuple(self.keys[row] for row in rows),
            workloads=tuple(self.workloads[row] for row in rows),
            demand=self.demand[rows],
            past=self.past[rows],
        )

    @property
    def end_seconds(self) -> int:
        """When the last of them ends."""
        return self.start_seconds + self.steps * self.settings.step_seconds


def replay_plan(
    panel: UsagePanel,
    start_seconds: int,
    end_seconds: int,
    scaling: ScalingSettings,
    settings: ReplaySettings,
    *,
    slo: LatencySlo | None = None,
    ready_seconds: tuple[float, ...] = (),
    ready_times: ReadyTimes | None = None,
    min_replicas: int = FEWEST_REPLICAS,
    max_replicas: int | None = None,
) -> ReplayPlan:
    """The workloads that can be scaled, with what one replica requested when the replay starts.

    A replica's request is the workload's CPU request ÷ replicas, as last known before the start; where the history
    names none, a part of the highest demand before the start. Without `max_replicas` the ceiling is at least twice what
    the past needed, so that no policy is judged by a ceiling. `slo` says what is a violation, in place of demand above
    what is Ready; `ready_seconds` are times that pods took, to draw from. Where `ready_times` say of enough pods of a
    workload what they took, its are drawn from those, and ordered so far ahead as all but one in twenty took. What is
    left out is among the findings. Raises NothingToReplay.
    """
    kinds = {key.workload: key.workload.split("/")[1] for key in panel.keys if key.workload.count("/") == 2}
    past = panel.between(panel.start_seconds, start_seconds - panel.step_seconds)
    replayed = panel.between(start_seconds, end_seconds)
    keys: list[SeriesKey] = []
    workloads: list[ReplayWorkload] = []
    rows: list[int] = []
    findings: list[Finding] = []
    learned = _enough(ready_times)
    longest = scaling.longest_lead_time.total_seconds()
    for row in panel.rows(Resource.CPU):
        key = panel.keys[row]
        kind = kinds.get(key.workload, "Deployment")
        if kind not in SCALABLE_KINDS:
            findings.append(_finding(key, f"a {kind} has no replicas to choose: not replayed"))
            continue
        before = past.usage[row]
        if np.isnan(before).all() or np.isnan(replayed.usage[row]).all():
            when = "before" if np.isnan(before).all() else "within"
            findings.append(_finding(key, f"no usage {when} the replayed days: not replayed"))
            continue
        highest = float(np.nanmax(before))
        request = _request_per_replica(past, int(row))
        if request is None:
            if highest <= 0:
                text = "no request and no usage above 0 before the replayed days: not replayed"
                findings.append(_finding(key, text))
                continue
            request = highest / ASSUMED_REPLICAS_AT_PEAK
            text = f"no request: one replica is taken to request {request:.3g} cores, 1/{ASSUMED_REPLICAS_AT_PEAK}"
            findings.append(_finding(key, f"{text} of the highest past demand"))
        at_peak = highest / (request * scaling.reactive_utilisation)
        if at_peak > MOST_PLAUSIBLE_REPLICAS:
            text = f"a replica requests {request:.3g} cores, so that the past peak of {highest:.3g} took {at_peak:,.0f}"
            findings.append(_finding(key, f"{text} replicas: not replayed; is the request in cores?", Severity.WARNING))
            continue
        carried = None if slo is None else slo.capacity(min(max(MOST_REPLICAS, math.ceil(at_peak)), LONGEST_CURVE))
        needed = math.ceil(at_peak) if carried is None else carried.replicas_for(at_peak)
        own = learned.get(key.workload, ())
        keys.append(key)
        rows.append(int(row))
        workloads.append(
            ReplayWorkload(
                name=key.workload,
                request_per_replica=request,
                cores_per_replica=request,
                target_utilisation=scaling.target_utilisation,
                min_replicas=min_replicas,
                max_replicas=max_replicas or max(MOST_REPLICAS, 2 * needed, min_replicas),
                slo=None if carried is None else carried.scaled(request),
                pod_ready_seconds=own or ready_seconds,
                lead_seconds=math.ceil(min(almost_all(own), longest)) if own else None,
            )
        )
    if ready_times is not None:
        findings += [*ready_times.findings, *_not_learned(workloads, settings)]
    others = _other_resources(panel)
    if not keys or replayed.steps == 0:
        reasons = [*map(str, findings[:1]), *([f"it holds {others}"] if others else [])]
        raise NothingToReplay(
            "nothing can be replayed: the history needs CPU usage of a Deployment or StatefulSet (or of workloads "
            "without a kind) both before and within the replayed days" + "".join(f"; {each}" for each in reasons)
        )
    if others:
        findings.append(
            Finding("", "", Severity.NOTE, f"replicas are replayed by CPU alone; the history also holds {others}")
        )
    return ReplayPlan(
        tuple(keys),
        tuple(workloads),
        replayed.usage[rows],
        past.usage[rows],
        replayed.start_seconds,
        settings,
        tuple(findings),
    )


def _enough(ready_times: ReadyTimes | None) -> dict[str, tuple[float, ...]]:
    """The times of those workloads of which as many pods were seen as the controller asks for."""
    known = {} if ready_times is None else ready_times.by_workload
    return {workload: times for workload, times in known.items() if len(times) >= LEAST_PODS}


def _not_learned(workloads: Sequence[ReplayWorkload], settings: ReplaySettings) -> list[Finding]:
    """For which workloads the replay's own time to Ready stands in."""
    names = [each.name for each in workloads if each.lead_seconds is None]
    if not names:
        return []
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    text = (
        f"{len(names):,} of {len(workloads):,} workloads: fewer than {LEAST_PODS} pods were seen to get Ready, so that "
        f"{settings.pod_ready_seconds} s stand for what theirs take: {', '.join(names[:MOST_NAMED])}{more}"
    )
    return [Finding("", "", Severity.NOTE, text)]


def _other_resources(panel: UsagePanel) -> str:
    """How many series there are of what is not CPU, by resource; empty where there are none."""
    counts = Counter(key.resource for key in panel.keys if key.resource is not Resource.CPU)
    shown = ", ".join(f"{resource.value} ({n})" for resource, n in counts.items())
    return f"series of {shown}" if shown else ""


def lead_steps(settings: ReplaySettings) -> int:
    """Steps that a forecast made at the beginning of a step must reach: the step itself, then the lead time."""
    return math.ceil((settings.step_seconds + settings.pod_ready_seconds) / settings.step_seconds)


def lead_peaks(
    bundle: Bundle,
    panel: UsagePanel,
    plan: ReplayPlan,
    *,
    levels: Sequence[float],
    past_steps: int,
    progress: Callable[[int, int], None],
) -> dict[float, FloatArray]:
    """By level: the forecast peak within the lead window that begins with each replayed step, [workloads, steps].

    The window is each workload's own. Made from samples of earlier steps only: that of the bundle's shortest peak that
    covers the window, beside the steps and the shorter ones as in the controller; where it has none, the largest of the
    steps' own quantiles and of the shorter peaks.
    """
    rows = [panel.row(key) for key in plan.keys]
    history = panel.select(rows).history()
    alike: dict[_Window, list[int]] = {}
    for row, workload in enumerate(plan.workloads):
        alike.setdefault(_window(bundle, lead_steps(workload.own(plan.settings))), []).append(row)
    peaks = np.full((len(levels), len(plan.keys), plan.steps), np.nan)
    for step in range(plan.steps):
        cutoff = plan.start_seconds + (step - 1) * panel.step_seconds
        past = history.until(cutoff).last(past_steps)
        bundle = bundle.learned(plan.keys, past)
        for window, own in alike.items():
            keys, seen = [plan.keys[row] for row in own], past.select(own)
            made = bundle.forecasts_history(keys, seen, window.targets, tuple(levels), kin=panel.kin)
            counted = made[-1:] if window.is_covered else made
            peaks[:, own, step] = np.max([each.forecast.values.max(axis=2) for each in counted], axis=0).T
        progress(step + 1, plan.steps)
    return dict(zip(levels, peaks, strict=True))


@dataclass(frozen=True, slots=True)
class _Window:
    """What is forecast of a lead window."""

    targets: tuple[Target, ...]
    is_covered: bool
    """Whether the last of them is a peak of the whole window."""


def _window(bundle: Bundle, horizon: int) -> _Window:
    shorter = [each.target for each in bundle.peaks if each.target.steps < horizon]
    covering = [each.target for each in bundle.peaks[len(shorter) :][:1]]
    return _Window((bundle.target if covering else Target(horizon), *shorter, *covering), bool(covering))


def safe_peaks(
    plan: ReplayPlan,
    forecasts: Mapping[float, FloatArray],
    levels: Sequence[float],
    *,
    target_utilisation: float | None = None,
    learned_steps: int | None = None,
    progress: Callable[[int, int], None] = untold,
) -> dict[float, FloatArray]:
    """By level: the demand to be ready for in each replayed step, [workloads, steps].

    That is the cheapest signal times the margin which keeps the SLO in so large a share of time, as the controller
    learns them from one step to the next: from the past first, then from what is replayed. Where nothing was learned
    yet it is the forecast at the level. `forecasts` holds those of SIGNAL_LEVELS and of the levels, from `lead_peaks`.
    `target_utilisation` is the share of what replicas carry within the SLO that they should carry; None: each
    workload's own. `learned_steps` is how much of the past is learned from; None: all of it.
    """
    step_seconds = plan.settings.step_seconds
    leads = np.array([lead_steps(each.own(plan.settings)) - 1 for each in plan.workloads], dtype=np.int64)
    usage = np.concatenate([plan.past, plan.demand], axis=1)
    first, total = plan.past.shape[1], usage.shape[1]
    exceeded = np.stack(
        [_exceeded(row, each, target_utilisation) for row, each in zip(usage, plan.workloads, strict=True)]
    )
    margins = DemandMargins(
        len(plan.workloads), SIGNAL_NAMES, step_seconds=step_seconds, longest_lead_steps=int(leads.max())
    )
    safe = {level: forecasts[level].copy() for level in levels}
    allowed = np.tile(1.0 - np.array([*safe]), (len(plan.workloads), 1))
    learned = 0 if learned_steps is None else max(0, first - learned_steps)
    for at in range(total - first):
        step = first + at
        asked = np.stack([forecasts[level][:, at] for level in SIGNAL_LEVELS], axis=1)
        margins.follow(usage[:, :step], asked, exceeded[:, learned:step], leads)
        learned = step
        demand = margins.advised(allowed).demand.T
        for made, advised in zip(safe.values(), demand, strict=True):
            made[:, at] = np.where(np.isnan(advised), made[:, at], advised)
        progress(at + 1, total - first)
    return safe


def _exceeded(demand: FloatArray, workload: ReplayWorkload, target_utilisation: float | None) -> FloatArray:
    capacity = workload.within_slo.scaled(target_utilisation or workload.target_utilisation)
    return exceeded_by(demand, capacity, workload.min_replicas, workload.max_replicas)


def pool_replays(
    panel: UsagePanel, pools: NodePools | None, start_seconds: int, settings: OversubscriptionSettings
) -> tuple[tuple[OversubscriptionReplay, ...], tuple[Finding, ...]]:
    """Each pool and resource with each day from `start_seconds` on decided from what lay before it.

    Without node pools everything is one pool; what its nodes hold is then not known and the requests stand for it.
    """
    horizon_steps = max(1, int(settings.horizon.total_seconds()) // panel.step_seconds)
    held_out = int((panel.end_seconds - start_seconds) // panel.step_seconds + 1) // horizon_steps
    replays: list[OversubscriptionReplay] = []
    if held_out < 1 or "request" not in panel.attributes:
        reason = "the history names no requests" if held_out >= 1 else "less than one horizon is left to replay"
        return (), (Finding("", "", Severity.NOTE, f"oversubscription is not replayed: {reason}"),)
    names = pools.names if pools is not None else (WHOLE_POOL,)
    for pool in names:
        for resource in map(Resource, settings.resources):
            history = pool_history(panel, pools, pool, resource)
            if history is None or not np.nansum(history.requests) > 0:
                continue
            replays.append(
                replay_oversubscription(
                    history,
                    level=1.0 - settings.probability_of(resource),
                    horizon_steps=horizon_steps,
                    held_out=held_out,
                    max_ratio=settings.max_ratio,
                )
            )
    if not replays:
        return (), (Finding("", "", Severity.NOTE, "oversubscription is not replayed: no request is above 0"),)
    return tuple(replays), ()


def _request_per_replica(past: UsagePanel, row: int) -> float | None:
    if not {"request", "replicas"} <= past.attributes.keys():
        return None
    request, replicas = past.attributes["request"][row], past.attributes["replicas"][row]
    known = np.flatnonzero((request > 0) & (replicas > 0))
    return float(request[known[-1]] / replicas[known[-1]]) if known.size else None


def _finding(key: SeriesKey, message: str, severity: Severity = Severity.NOTE) -> Finding:
    return Finding(key.workload, key.resource.value, severity, message)
