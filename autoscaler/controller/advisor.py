"""What containers will use within the next day, asked for once a step of the history and beside the loop.

A thread reads usage and forecasts it; cycles take the newest answer that there is. So a metrics store that is slow or
gone delays no replica: the last recommendations stay, and say how old they are. Only the very first answer is waited
for a little, as a command that decides once has no second chance; where answers take long, as for thousands of
containers, most of the time is left to the loop.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import structlog

from autoscaler.cluster.containers import NO_AMOUNTS, Amounts
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.ports import ContainerUsageSource
from autoscaler.decisions.requests import RequestRange, RequestRules, UsageFan, cpu_request, memory_request
from autoscaler.settings import VerticalSettings
from models.forecast import SECONDS_PER_DAY, FloatArray, ForecastError, Target
from predictor.errors import PredictorError
from predictor.serving.bundle import Bundle, NoForecast
from predictor.usage.containers import ContainerName
from predictor.usage.panel import Resource, SeriesKey, UsagePanel

log = structlog.get_logger("autoscaler.advisor")

FIRST_WAIT_SECONDS = 20.0
"""How long the first answer is waited for."""
LEAST_REST = 4.0
"""After an answer that took long, so many times as long passes until the next: a large fleet's is worth no more."""
CONTAINERS_AT_ONCE = 256
"""How many are forecast together."""
FRESH_SAMPLES_SECONDS = 900
"""A sample of memory that is older says nothing of what is used now."""

NOT_MEASURED = Hold(Reason(ReasonCode.NO_OBSERVATION, "no usage of it was measured"))
NOT_MEASURED_LATELY = Hold(Reason(ReasonCode.STALE_OBSERVATION, "no usage of it was measured within the last day"))


@dataclass(frozen=True, slots=True)
class ContainerAdvice:
    """What one container should request, before limits and floors."""

    wanted: Mapping[Resource, RequestRange | Hold]
    in_use: Amounts = NO_AMOUNTS
    """In its busiest and in its largest pod, by the newest samples; None where they are old."""
    highest: Amounts = NO_AMOUNTS
    """In the last day."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What all containers that were asked about should request."""

    workloads: frozenset[str]
    """Whom it was asked for."""
    until_seconds: int
    """Epoch second until which usage was known."""
    by_container: Mapping[ContainerName, ContainerAdvice] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class _Forecast:
    """What is forecast of one series, and what of it was measured."""

    fan: UsageFan
    days: float
    """How much of its past has samples."""
    last_day: FloatArray
    fresh_steps: int
    """How many of the newest steps say what is used now."""


class _Job:
    """One question under way."""

    def __init__(self, workloads: frozenset[str], end_seconds: int) -> None:
        self.workloads, self.end_seconds = workloads, end_seconds
        self.done = threading.Event()
        self.advice: Advice | None = None
        self.problem: PredictorError | None = None
        self.took_seconds = 0.0


@dataclass
class RequestAdvisor:
    """Keeps advice on the containers of some workloads; a source or a model that fails leaves the last one."""

    source: ContainerUsageSource
    settings: VerticalSettings
    step_seconds: int
    is_patient: bool = False
    """Whether every answer is waited for, and not only the first: for tests."""
    timer: Callable[[], float] = time.perf_counter
    """What says how long an answer took."""

    def __post_init__(self) -> None:
        self.rules = RequestRules(
            cpu_share=self.settings.cpu_percentile / 100, memory_level=self.settings.memory_percentile / 100
        )
        self.advice: Advice | None = None
        """The newest that there is."""
        self.problem: PredictorError | None = None
        """Why there is no newer one."""
        self._job: _Job | None = None
        self._asked: tuple[frozenset[str], int] = (frozenset(), 0)
        self._rests_until_seconds = 0.0

    def advise(self, workloads: frozenset[str], bundle: Bundle, now_seconds: float) -> Advice | None:
        """The newest advice; asks for newer where a step has passed, or a workload is new. None before the first."""
        self._collect(now_seconds)
        end = int(now_seconds) // self.step_seconds * self.step_seconds - self.step_seconds
        asked_workloads, asked_end = self._asked
        has_rested = now_seconds >= self._rests_until_seconds
        is_due = (end != asked_end and has_rested) or not workloads <= asked_workloads
        if is_due and workloads and self._job is None:
            is_first = self.advice is None and self.problem is None
            job = self._job = _Job(workloads, end)
            self._asked = (workloads, end)
            threading.Thread(target=self._work, args=(job, bundle), name="requests", daemon=True).start()
            if is_first or self.is_patient:
                job.done.wait(FIRST_WAIT_SECONDS)
                self._collect(now_seconds)
        return self.advice

    def _collect(self, now_seconds: float) -> None:
        job = self._job
        if job is None or not job.done.is_set():
            return
        self._job = None
        self._rests_until_seconds = now_seconds + LEAST_REST * job.took_seconds
        if job.advice is not None:
            self.advice = job.advice
        if job.problem is not None and str(job.problem) != str(self.problem):
            log.warning("containers not read", error=type(job.problem).__name__, message=str(job.problem))
        self.problem = job.problem

    def _work(self, job: _Job, bundle: Bundle) -> None:
        started = self.timer()
        try:
            job.advice = self._read(job.workloads, job.end_seconds, bundle)
        except PredictorError as problem:
            job.problem = problem
        except ForecastError as problem:
            job.problem = PredictorError(f"the model cannot forecast containers: {problem}")
        except Exception as error:  # the thread's only way to tell
            log.exception("advice broke")
            job.problem = PredictorError(f"recommending broke: {type(error).__name__}: {error}")
        finally:
            job.took_seconds = self.timer() - started
            job.done.set()

    def _read(self, workloads: frozenset[str], end_seconds: int, bundle: Bundle) -> Advice:
        step = self.step_seconds
        usage = self.source.fetch_containers(
            workloads,
            start_seconds=end_seconds - int(self.settings.span.total_seconds()) + step,
            end_seconds=end_seconds,
            step_seconds=step,
        )
        return Advice(workloads, end_seconds + step, advice_from(usage.highest, usage.mean, bundle, self.rules))


def advice_from(
    highest: UsagePanel, mean: UsagePanel, bundle: Bundle, rules: RequestRules
) -> dict[ContainerName, ContainerAdvice]:
    """What each container of two panels, keyed by `ContainerName.series`, should request by a model's forecasts.

    Some containers at a time: the quantiles of a day of all of a fleet's would take gigabytes.
    """
    day = Target(max(1, SECONDS_PER_DAY // highest.step_seconds))
    # Where the model knows no peak of a day, the largest of the steps' quantiles stands for it, which is less.
    peak = next((part.target for part in bundle.peaks if part.target.steps == day.steps), day)
    names = sorted({ContainerName(*key.workload.rsplit("/", 1)) for key in (*highest.keys, *mean.keys)})
    rows = [{key: row for row, key in enumerate(panel.keys)} for panel in (highest, mean)]
    found: dict[ContainerName, ContainerAdvice] = {}
    for first in range(0, len(names), CONTAINERS_AT_ONCE):
        part = names[first : first + CONTAINERS_AT_ONCE]

        def some(panel: UsagePanel, resource: Resource, part: Sequence[ContainerName] = part) -> UsagePanel:
            known = rows[0] if panel is highest else rows[1]
            return panel.select([known[key] for name in part if (key := name.series(resource)) in known])

        fans = {
            "busiest": _forecasts(some(highest, Resource.CPU), bundle, day, rules),
            "mean": _forecasts(some(mean, Resource.CPU), bundle, day, rules),
            "memory": _forecasts(some(highest, Resource.MEMORY), bundle, peak, rules),
        }
        found |= {name: _advice_on(name, fans, rules) for name in part}
    return found


def _advice_on(
    name: ContainerName,
    fans: "Mapping[str, Mapping[SeriesKey, _Forecast | Hold]]",
    rules: RequestRules,
) -> ContainerAdvice:
    cores, memory = name.series(Resource.CPU), name.series(Resource.MEMORY)
    wanted: dict[Resource, RequestRange | Hold] = {}
    of_mean, of_busiest = fans["mean"].get(cores, NOT_MEASURED), fans["busiest"].get(cores, NOT_MEASURED)
    if isinstance(of_mean, Hold):
        wanted[Resource.CPU] = of_mean
    elif isinstance(of_busiest, Hold):
        wanted[Resource.CPU] = of_busiest
    else:
        wanted[Resource.CPU] = cpu_request(of_mean.fan, of_busiest.fan, of_mean.days, rules)
    of_memory = fans["memory"].get(memory, NOT_MEASURED)
    (cpu_now, cpu_highest), (memory_now, memory_highest) = _lately(of_busiest), _lately(of_memory)
    if isinstance(of_memory, Hold):
        wanted[Resource.MEMORY] = of_memory
    elif memory_highest is None:
        wanted[Resource.MEMORY] = NOT_MEASURED_LATELY
    else:
        wanted[Resource.MEMORY] = memory_request(of_memory.fan, memory_highest, of_memory.days, rules)
    return ContainerAdvice(wanted, Amounts(cpu_now, memory_now), Amounts(cpu_highest, memory_highest))


def _lately(found: _Forecast | Hold) -> tuple[float | None, float | None]:
    """The most that was used in the newest steps, and in the last day; None where nothing was measured."""
    if isinstance(found, Hold):
        return None, None
    most = (float(np.fmax.reduce(part)) for part in (found.last_day[-found.fresh_steps :], found.last_day))
    now, highest = (None if np.isnan(each) else each for each in most)
    return now, highest


def _forecasts(
    panel: UsagePanel, bundle: Bundle, target: Target, rules: RequestRules
) -> "dict[SeriesKey, _Forecast | Hold]":
    """Quantiles of each series of a panel with what they rest on, or why there are none."""
    if not panel.keys:
        return {}
    made = bundle.forecast(panel, target, rules.levels)
    step, found = panel.step_seconds, {}
    day, fresh = SECONDS_PER_DAY // step, max(1, FRESH_SAMPLES_SECONDS // step)
    for row, key in enumerate(panel.keys):
        series, usage = made.of(key), panel.usage[row]
        days = int(np.count_nonzero(~np.isnan(usage))) * step / SECONDS_PER_DAY
        found[key] = (
            Hold(Reason(ReasonCode.NO_FORECAST, series.reason))
            if isinstance(series, NoForecast)
            else _Forecast(UsageFan(series.levels, series.values), days, usage[-day:], fresh)
        )
    return found
